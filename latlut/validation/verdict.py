"""One verdict on a table: may it be believed, within what, and what is different here now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlut.engines import engine_packages
from latlut.errors import CalibrationError, LatlutError
from latlut.machine.provenance import Environment, environment_changes
from latlut.pricing import calibration as calibrations
from latlut.pricing.estimator import calibrated
from latlut.shell import command
from latlut.table import history
from latlut.table.calibrations import fitted_networks
from latlut.table.entry import Entry
from latlut.table.examination import faults
from latlut.table.summary import HOST_BOUND, NEAR_LAUNCH_FLOOR, NEAR_ZERO, OTHER_PROCESSES
from latlut.table.table import LatencyTable
from latlut.table.validations import validation_ids
from latlut.validation.fitting import measured_networks

#: More disturbed entries than this share of all, and the table is not to be believed.
MAX_SUSPECT_SHARE = 0.10


@dataclass(frozen=True)
class Verdict:
    """Whether a table may be believed, and within what.

    ``entry_percent``: 95% of the entries have a 95% interval of at most this half-width;
    ``network_percent``: 95% of the networks of the latest validation were estimated within this;
    both None where nothing is known. ``problems`` are why it is not believed; ``suspects`` are
    entries with a warning; ``changes`` what is different on this machine now.
    """

    is_believed: bool
    entry_percent: float | None
    network_percent: float | None
    problems: tuple[str, ...]
    suspects: tuple[Entry, ...]
    changes: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.is_believed:
            return "do not believe this table: " + "; ".join(self.problems)
        entry = (
            "an entry (how far, nothing says: it has no intervals)"
            if self.entry_percent is None
            else f"an entry within ±{self.entry_percent:.1f}%"
        )
        if self.network_percent is None:
            return f"believe {entry}; no network was measured against it yet: latlut validate"
        return f"believe {entry}, a whole network within ±{self.network_percent:.1f}%"


def check(table: LatencyTable, environment: Environment | None = None) -> Verdict:
    """One verdict on a table.

    Args:
        table: the table.
        environment: this machine's, as ``collect_environment`` gives it; compared with that of
            the table's latest run on the same host. None compares nothing.
    """
    problems: list[str] = []
    remarks: list[str] = []
    if wrong := faults(table):  # nothing that is computed from it would mean anything
        return Verdict(False, None, None, tuple(wrong), (), (), ())
    held = list(table)
    entries = [entry for entry in held if not entry.is_predicted]
    if not entries:
        problems.append("it has no entries" if not held else "it has no measured entries")
    if failed := list(history.failures(table)):
        problems.append(f"{len(failed)} op specs could not be measured: {failed[0]}, ...")
    suspects = [entry for entry in entries if entry.warnings]
    impossible = [entry for entry in suspects if "peak figures" in entry.warnings]
    if impossible:
        problems.append(f"{len(impossible)} entries are faster than the hardware can be")
    doubtful = [entry for entry in suspects if any(map(_is_doubt, entry.warnings.split("; ")))]
    if entries and len(doubtful) > MAX_SUSPECT_SHARE * len(entries):
        problems.append(f"{len(doubtful)} of {len(entries)} entries were taken while disturbed")
    widths = [entry.ci_percent for entry in entries if entry.ci_percent is not None]
    entry_percent = float(np.quantile(widths, 0.95)) if widths else None
    unknown = sum(entry.ci_low_ms is None for entry in entries)
    if 0 < unknown < len(entries):
        remarks.append(f"{unknown} entries have no interval")
    remarks += _prediction_remarks([entry for entry in held if entry.is_predicted], len(held))
    remarks += _difference_remarks(table, entries)
    remarks += _gpu_remarks(table, entries)
    remarks += _build_remarks(entries)
    remarks += _device_remarks(table, entries)
    if uncompared := history.uncompared_runs(table):
        listed = ", ".join(map(str, uncompared))
        remarks.append(f"outputs were compared with nothing in run {listed} (--unchecked)")
    remarks += _calibration_remarks(table)
    # The runs of one sweep on several devices are as late as each other.
    remarks += [
        f"run {number} ended as {status!r}: repeat it to complete the table"
        for number, status in history.latest_runs(table).items()
        if status not in ("done", "imported")
    ]
    return Verdict(
        not problems,
        entry_percent,
        _network_percent(table),
        tuple(problems),
        tuple(sorted(suspects, key=lambda entry: -(entry.own_error or 0.0))),
        tuple(_changes(table, environment)),
        tuple(remarks),
    )


def _is_doubt(warning: str) -> bool:
    """Whether a warning says that the measurement was disturbed.

    A wide or unknown interval does not: the verdict says how wide they are. Nor does an entry near
    the launch floor or limited by the host, a difference near zero, or another process with a
    context on the GPU: throttling and sentinels show whether that one did anything.
    """
    is_remark = warning in (NEAR_LAUNCH_FLOOR, HOST_BOUND, NEAR_ZERO, OTHER_PROCESSES)
    return not (is_remark or warning.startswith("interval"))


def _calibration_remarks(table: LatencyTable) -> list[str]:
    try:
        found = calibrations.stored(table)
    except CalibrationError as error:
        return [str(error)]
    if found is None or found.entries_digest == calibrations.entries_digest(table):
        return []
    return [
        "entries have changed since the calibration was fitted: fit it again with "
        + command("calibrate", "--table", table.path)
    ]


def _prediction_remarks(predicted: Sequence[Entry], held: int) -> list[str]:
    if not predicted:
        return []
    widths = [entry.ci_percent for entry in predicted if entry.ci_percent is not None]
    within = f", 95% of them within ±{np.quantile(widths, 0.95):.1f}%" if widths else ""
    known = max(entry.predicted_from or 0 for entry in predicted)
    return [
        f"{len(predicted)} of {held} entries are predicted from {known} others{within}: they are "
        "in no other number here"
    ]


def _difference_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    if not table.identity.is_in_context:
        return []
    near_zero = sum(not entry.is_distinguishable for entry in entries)
    negative = [entry for entry in entries if entry.latency_ms < 0]
    beyond = sum(entry.is_distinguishable for entry in negative)
    found = []
    if near_zero:
        found.append(
            f"{near_zero} of {len(entries)} entries are not distinguishable from zero: they are "
            "not in the percentage"
        )
    if negative:
        found.append(
            f"{len(negative)} entries are negative, {beyond} of them beyond their interval: the "
            "engine is faster with these operators than with their neighbours alone"
        )
    return found


def _gpu_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    remarks = []
    for warning, text in (
        (NEAR_LAUNCH_FLOOR, "take less than twice what an empty kernel takes"),
        (HOST_BOUND, "take the host more than 80% of their time to launch"),
        (OTHER_PROCESSES, "were measured with other processes on the GPU"),
    ):
        count = sum(warning in entry.warnings for entry in entries)
        remarks += [f"{count} of {len(entries)} entries {text}"] if count else []
    launches = Counter(entry.launch for entry in entries if entry.launch)
    remarks += [f"{n} of {len(entries)} entries: {text}" for text, n in launches.most_common()]
    capped, groups = history.power_capped_groups(table)
    if capped:
        remarks.append(
            f"the GPU was at its power limit beside {capped} of {groups} groups: "
            "its clocks followed the load; lower, locked clocks repeat better (latlut doctor)"
        )
    return remarks


def _build_remarks(entries: Sequence[Entry]) -> list[str]:
    spreads = [entry.build_sd for entry in entries if entry.build_sd is not None]
    if not spreads:
        return []
    within = [entry.pass_sd for entry in entries if entry.pass_sd is not None]
    beside = f", passes on one build by {100 * np.median(within):.1f}%" if within else ""
    return [
        f"builds of one op spec differ by {100 * np.median(spreads):.1f}% (standard deviation, "
        f"median over entries){beside}; both are in the intervals"
    ]


def _device_remarks(table: LatencyTable, entries: Sequence[Entry]) -> list[str]:
    spreads = [entry.device_sd for entry in entries if entry.device_sd is not None]
    remarks = [str(item) for item in history.quarantines(table)]
    if spreads:
        remarks.append(
            f"devices differ by {100 * np.median(spreads):.1f}% in one op spec beyond their usual "
            "speed (standard deviation, median over entries); that is in the intervals"
        )
    return remarks


def _network_percent(table: LatencyTable) -> float | None:
    """What 95% of the latest validation's networks are estimated within, by the table as it is."""
    known = validation_ids(table)
    if not known:
        return None
    try:
        calibration = calibrations.stored(table)
        networks = measured_networks(table, validation_id=known[-1])
    except LatlutError:  # of another version, or of a space that is not priced
        return None
    fitted = fitted_networks(table)
    errors = [
        abs((item.plain.ms if calibration is None else calibrated(item.plain, calibration).ms)
            / item.measured_ms - 1)
        for item in networks
        if item.architecture.to_json() not in fitted
    ]  # fmt: skip
    return 100 * float(np.quantile(errors, 0.95)) if errors else None


def _changes(table: LatencyTable, environment: Environment | None) -> list[str]:
    then = history.profiling_environment(table)
    if environment is None or then is None:
        return []
    if then.get("host") != environment.get("host"):
        return [f"measured on host {then.get('host')}, this is {environment.get('host')}"]
    return environment_changes(then, environment, engine_packages())
