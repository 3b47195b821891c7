"""The folder of a run: beginning in it or going on with it, and the files in it.

    settings.json    all settings, resolved
    run.json         what the run is of, where and when it started
    checkpoints/     last.pt and previous.pt, to go on with
    tensorboard/     how it goes

The same command continues with a run that was stopped; a folder of a run with other settings or of
something else is refused, so that no run is half of one and half of another.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, LatlutError
from latlut.files.strict_json import read_json as read_json_file
from latlut.files.writing import why_not_written, written_whole
from latlut.timestamps import now_text
from latlut.version import __version__

SETTINGS, RUN, RESULT = "settings.json", "run.json", "result.json"

#: Gives what is known of the machine, JSON-able; asked once, where a run begins.
Environment = Callable[[], Mapping[str, object]]


def begin_run(
    path: Path,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    environment: Environment,
    *,
    changeable: Collection[str] = (),
    **remarks: object,
) -> bool:
    """Write what the run is, or check that the folder is of this very run.

    Args:
        path: the run's folder.
        settings: JSON-able, complete.
        facts: JSON-able; what else must be the same when the run goes on.
        environment: of the run where it begins.
        changeable: dotted names of settings that may differ when the run goes on, as only what is
            still to come depends on them; what is asked for now is then written down.
        remarks: JSON-able; what else is written once and may differ when the run goes on.

    Returns:
        Whether there is a run to go on with.

    Raises:
        LatlutError: the folder is of a run with other settings or facts or of something else, or
            cannot be written.
    """
    if holds_run(path, settings, facts, changeable):
        if differences(read_json(path / SETTINGS), settings):
            write_json(path / SETTINGS, settings)
        return True
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not _has_only_begun(path):
            raise LatlutError(f"{path} is a folder of something else: name another with --run")
    except OSError as error:
        raise LatlutError(
            f"cannot write the run's folder {path}: {why_not_written(error)}"
        ) from error
    once = {"started_at": now_text(), **remarks, "latlut_version": __version__}
    write_json(path / RUN, {**facts, **once, "environment": dict(environment())})
    write_json(path / SETTINGS, settings)
    return False


def _has_only_begun(path: Path) -> bool:
    """Whether there is nothing of worth in the folder: a run was killed while it began, or none."""
    own = (RUN, SETTINGS)
    return all(
        item.name in own or item.name.startswith(tuple(f".{name}." for name in own))
        for item in path.iterdir()
    )


def holds_run(
    path: Path,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    changeable: Collection[str] = (),
) -> bool:
    """Whether the folder holds a run, which is this one.

    Args:
        path, settings, facts, changeable: see ``begin_run``.

    Raises:
        LatlutError: it is of a run with other settings or facts, or cannot be read.
    """
    if not (path / SETTINGS).exists():
        return False
    if not _parses(path / SETTINGS, path / RUN) and _has_only_begun(path):
        return False
    changed = differences(read_json(path / SETTINGS), settings, changeable)
    before = read_json(path / RUN)
    changed += differences(
        {name: before.get(name) for name in facts}, json.loads(json.dumps(facts))
    )
    if changed:
        raise LatlutError(
            f"{path} holds a run with other settings:\n  " + "\n  ".join(changed) + "\n"
            "go on with the settings of that run, or name another folder with --run"
        )
    return True


def processes_of(path: Path, otherwise: int) -> int:
    """How many processes the folder's run began with; ``otherwise`` where it does not say."""
    if not _parses(path / SETTINGS, path / RUN):
        return otherwise
    found = read_json(path / RUN).get("processes")
    return found if isinstance(found, int) and found > 0 else otherwise


def is_finished(
    path: Path,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    read: Callable[[Path], object],
) -> bool:
    """Whether the folder holds this very run, finished: its result and its networks can be read.

    Args:
        path, settings, facts: see ``begin_run``.
        read: reads from the folder what else the run comes to.

    Raises:
        LatlutError: it holds a finished run of something else, or with other settings.
    """
    if not _parses(path / RESULT) or not holds_run(path, settings, facts):
        return False
    try:
        read(path)
    except LatlutError:
        return False
    return True


def _parses(*files: Path) -> bool:
    """Whether all of a run's files are there and hold objects."""
    try:
        for file in files:
            read_json(file)
    except LatlutError:
        return False
    return True


def write_json(path: Path, values: object) -> None:
    """Write JSON-able values.

    Raises:
        WriteError: they cannot be written.
    """
    with written_whole(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], line_end: str = "\n") -> None:
    """Write rows under the names that any of them has; what a row lacks or is None stays empty.

    Raises:
        WriteError: they cannot be written.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a run's file.

    Raises:
        LatlutError: it cannot be read or holds something else.
    """
    try:
        values = read_json_file(path, "a run's file")
    except ImportFileError as error:
        raise LatlutError(f"{error}: name another folder with --run") from error
    if not isinstance(values, dict):
        raise LatlutError(f"{path} holds no settings: name another folder with --run")
    return values


def differences(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    changeable: Collection[str] = (),
    place: str = "",
) -> list[str]:
    """One line per value that differs, ``search.epochs: 8 there, 5 asked for``; none for those
    that are changeable."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        before, now = there.get(name), here.get(name)
        if f"{place}{name}" in changeable:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, changeable, f"{place}{name}.")
        elif before != now:
            found.append(f"{place}{name}: {before!r} there, {now!r} asked for")
    return found
