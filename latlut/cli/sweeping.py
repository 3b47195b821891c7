"""What commands that sweep into a table have in common: its place, and what is as in the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.cli.choices import as_in_table, is_left_open

if TYPE_CHECKING:
    from latlut.engines.choosing import DeviceChoice
    from latlut.measure.sweep_settings import SweepSettings


def as_in_file(
    choice: DeviceChoice, statistic: str, mode: str | None, path: Path | None
) -> tuple[DeviceChoice, str, str | None]:
    """Engine, statistic and mode with what was left open taken from a table that is there."""
    if path is None or not path.exists():
        return choice, statistic, mode
    from latlut.table.table import LatencyTable

    with LatencyTable.open(path) as existing:
        own = existing.identity
    statistic = own.statistic if is_left_open("statistic") else statistic
    return as_in_table(choice, own), statistic, mode or own.mode


def settings_of(
    statistic: str, ci: float, passes: int, budget: float | None, seed: int, rebuilds: int,
    path: Path | None,
) -> SweepSettings:  # fmt: skip
    """What the options mean; builds as in the table where they are left open."""
    from latlut.measure.sweep_settings import SweepSettings
    from latlut.measure.timing import TimingSettings

    if is_left_open("rebuilds") and path is not None:
        rebuilds = _builds_in(path)
    if is_left_open("passes"):
        passes = max(passes, 2 * rebuilds)  # two per build, to tell builds and passes apart
    timing = TimingSettings(statistic=statistic, ci=ci)
    return SweepSettings(timing, passes, budget, seed=seed, rebuilds=rebuilds)


def _builds_in(path: Path) -> int:
    """How many builds a table's passes take turns with; 1 for a table that is not there yet."""
    from latlut.table.history import build_count
    from latlut.table.table import LatencyTable

    if not path.exists() or not path.stat().st_size:
        return 1
    with LatencyTable.open(path) as table:
        return build_count(table)


def measurements_in(path: Path) -> int:
    """How many measurements a table holds; none where there is no file."""
    from latlut.table.history import measurement_count
    from latlut.table.table import LatencyTable

    if not path.exists() or not path.stat().st_size:
        return 0
    with LatencyTable.open(path) as table:
        return measurement_count(table)


def default_path(
    stem: str, batches: tuple[int, ...] | None, shard: tuple[int, int] | None = None
) -> Path:
    """Where a table lies that was not named."""
    suffix = f"-batch{'-'.join(map(str, batches))}" if batches not in (None, (1,)) else ""
    suffix += f"-shard{shard[0]}of{shard[1]}" if shard else ""
    return Path("profiles") / f"{stem}{suffix}.db"


def settings_in_table(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a table that a command names decides of how it measures: parameter -> value.

    Empty where the command chooses no engine, or names no table that is there.
    """
    from latlut.engines.choosing import DeviceChoice
    from latlut.errors import LatlutError
    from latlut.table.storage import find_table

    named = params.get("table_path") or params.get("table_name")
    if named is None or not set(DeviceChoice._fields) <= params.keys():
        return {}
    try:
        path = find_table(named)
        choice = DeviceChoice(*(params[name] for name in DeviceChoice._fields))
        choice, statistic, mode = as_in_file(
            choice, params.get("statistic", ""), params.get("mode"), path
        )
    except LatlutError:
        return {}
    found = {**choice._asdict(), "statistic": statistic, "mode": mode}
    return {
        name: value for name, value in found.items() if name in params and value != params[name]
    }
