"""Beginning a run in a folder, or going on with one: the same settings or none.

    settings.json    all settings, resolved
    run.json         what the run is of, where and when it started

The same command goes on with a run that was stopped; a folder of a run with other settings or of
something else is refused, so that no run is half of one and half of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latlut.errors import LatlutError

SETTINGS, RUN = "settings.json", "run.json"


def begin_run(
    path: Path,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    remarks: Mapping[str, Any],
) -> bool:
    """Write what the run is, or check that the folder is of this very run.

    Args:
        path: the run's folder.
        settings: JSON-able, complete.
        facts: JSON-able; what else must be the same when the run goes on.
        remarks: JSON-able; what is written once and may differ then.

    Returns:
        Whether there is a run to go on with.

    Raises:
        LatlutError: the folder is of a run with other settings or facts or of something else, or
            cannot be written.
    """
    if (path / SETTINGS).exists():
        changed = differences(read_json(path / SETTINGS), settings)
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
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise LatlutError(f"{path} is a folder of something else: name another with --run")
        write_json(path / RUN, {**facts, **remarks})
        write_json(path / SETTINGS, settings)
    except OSError as error:
        raise LatlutError(f"cannot write the run's folder {path}: {error}") from error
    return False


def write_json(path: Path, values: object) -> None:
    """Write JSON-able values.

    Raises:
        OSError: they cannot be written.
    """
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a run's file.

    Raises:
        LatlutError: it cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LatlutError(
            f"{path} cannot be read ({error}): name another folder with --run"
        ) from error
    if not isinstance(values, dict):
        raise LatlutError(f"{path} holds no settings: name another folder with --run")
    return values


def differences(there: Mapping[str, Any], here: Mapping[str, Any], place: str = "") -> list[str]:
    """One line per value that differs, ``search.epochs: 8 there, 5 asked for``."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        before, now = there.get(name), here.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{place}{name}.")
        elif before != now:
            found.append(f"{place}{name}: {before!r} there, {now!r} asked for")
    return found
