"""One verdict on a table: OK, CAUTION or NOT RELIABLE, why, and what has changed here since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from latlut.engines import engine_packages
from latlut.errors import CalibrationError, LatlutError, SpecError, UnknownNameError
from latlut.machine.provenance import Environment, environment_changes
from latlut.pricing import calibration as calibrations
from latlut.pricing.estimator import calibrated
from latlut.table import history
from latlut.table.calibrations import fitted_networks
from latlut.table.entry import Entry
from latlut.table.examination import faults
from latlut.table.summary import HOST_BOUND, NEAR_LAUNCH_FLOOR, NEAR_ZERO, OTHER_PROCESSES
from latlut.table.table import LatencyTable
from latlut.table.validations import validation_ids
from latlut.validation.fitting import MIN_NETWORKS, doubts, measured_networks
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.remarks import measured_elsewhere, remarks

#: More disturbed entries than this share of all, and the table is not OK.
MAX_SUSPECT_SHARE = 0.10


class Level(IntEnum):
    """How far a table can be relied on; the larger, the less."""

    OK = 0
    CAUTION = 1
    NOT_RELIABLE = 2

    @property
    def title(self) -> str:
        """As a person reads it: ``NOT RELIABLE``."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Limits:
    """The largest error of an OK table and of one to be used with CAUTION, in percent.

    They hold for the intervals of entries and for the errors of networks, 95% of each.
    """

    ok_percent: float = 5.0
    caution_percent: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.ok_percent <= self.caution_percent:
            raise SpecError(
                f"the limit of OK, {self.ok_percent:g}%, must be above 0 and at most that of "
                f"CAUTION, {self.caution_percent:g}%"
            )

    def level(self, percent: float) -> Level:
        """What an error of so many percent amounts to."""
        if percent <= self.ok_percent:
            return Level.OK
        return Level.CAUTION if percent <= self.caution_percent else Level.NOT_RELIABLE

    def describe(self) -> str:
        """One line for people."""
        return (
            f"OK up to ±{self.ok_percent:g}%, CAUTION up to ±{self.caution_percent:g}%, "
            "NOT RELIABLE above"
        )


@dataclass(frozen=True)
class Reason:
    """Something that the verdict rests on, and the level that it allows at best."""

    level: Level
    text: str


@dataclass(frozen=True)
class Verdict:
    """How far a table can be relied on, and why.

    ``entry_percent``: 95% of the entries have a 95% interval of at most this half-width;
    ``network_percent``: 95% of the networks of the latest undisturbed validation were estimated
    within this; both None where nothing is known. ``reasons`` decide, the most serious first;
    ``suspects`` are entries with a warning; ``changes`` what is different on this machine now.
    """

    reasons: tuple[Reason, ...]
    limits: Limits
    entry_percent: float | None = None
    network_percent: float | None = None
    suspects: tuple[Entry, ...] = ()
    changes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        """The verdict: that of the most serious reason."""
        return max((reason.level for reason in self.reasons), default=Level.OK)

    @property
    def is_reliable(self) -> bool:
        """Whether the verdict is OK or CAUTION."""
        return self.level < Level.NOT_RELIABLE

    @property
    def sentence(self) -> str:
        """The verdict and what decided it, in one line."""
        deciding = [reason.text for reason in self.reasons if reason.level == self.level]
        return f"{self.level.title}: {'; '.join(deciding)}"


def check(
    table: LatencyTable, environment: Environment | None = None, limits: Limits | None = None
) -> Verdict:
    """One verdict on a table.

    Args:
        table: the table.
        environment: this machine's, as ``collect_environment`` gives it; compared with that of
            the table's latest run on the same host, as is the device. None compares nothing.
        limits: the errors from which on the table is not OK, and not reliable.
    """
    limits = limits or Limits()
    if wrong := faults(table):  # nothing that is computed from it would mean anything
        return Verdict(tuple(Reason(Level.NOT_RELIABLE, text) for text in wrong), limits)
    held = list(table)
    entries = [entry for entry in held if not entry.is_predicted]
    suspects = [entry for entry in entries if entry.warnings]
    widths = [entry.ci_percent for entry in entries if entry.ci_percent is not None]
    entry_percent = float(np.quantile(widths, 0.95)) if widths else None
    networks = _networks(table, limits)
    reasons = [
        *_entry_faults(table, held, suspects, networks.percent is not None),
        *networks.reasons,
        *_interval_reasons(entries, entry_percent, limits, networks.percent is not None),
        *_run_reasons(table),
    ]
    return Verdict(
        tuple(sorted(reasons, key=lambda reason: -reason.level)),
        limits,
        entry_percent,
        networks.percent,
        tuple(sorted(suspects, key=lambda entry: -(entry.own_error or 0.0))),
        tuple(_changes(table, environment)),
        (*_origin(table, environment), *remarks(table, held)),
    )


def _entry_faults(
    table: LatencyTable, held: Sequence[Entry], suspects: Sequence[Entry], is_validated: bool
) -> Iterator[Reason]:
    """What is wrong with entries beyond their intervals.

    Where networks were measured on a machine that was not disturbed, these decide on sums.
    """
    measured = sum(not entry.is_predicted for entry in held)
    if not measured:
        text = "it has no entries" if not held else "it has no measured entries"
        yield Reason(Level.NOT_RELIABLE, text)
    impossible = sum("peak figures" in entry.warnings for entry in suspects)
    if impossible:
        text = f"{impossible} entries are faster than the hardware can be"
        yield Reason(Level.NOT_RELIABLE, text)
    doubtful = sum(any(map(_is_doubt, entry.warnings.split("; "))) for entry in suspects)
    if doubtful > MAX_SUSPECT_SHARE * measured:
        yield Reason(
            Level.CAUTION if is_validated else Level.NOT_RELIABLE,
            f"{doubtful} of {measured} entries were taken while disturbed: profile again on a "
            "quiet machine (--wait)",
        )
    if failed := list(history.failures(table)):
        yield Reason(
            Level.CAUTION,
            f"operator configurations that could not be measured: {len(failed)}, such as "
            f"{failed[0]}; networks that have them cannot be estimated",
        )


def _interval_reasons(
    entries: Sequence[Entry], percent: float | None, limits: Limits, is_validated: bool
) -> Iterator[Reason]:
    """How well single entries are known. Where networks were measured, these decide on sums."""
    if percent is not None:
        level = limits.level(percent)
        yield Reason(
            min(level, Level.CAUTION) if is_validated else level,
            f"entries accurate to ±{percent:.1f}% (95%)",
        )
    unknown = sum(entry.ci_low_ms is None for entry in entries)
    if unknown:
        yield Reason(Level.CAUTION, f"{unknown} of {len(entries)} entries have no interval")


def _run_reasons(table: LatencyTable) -> Iterator[Reason]:
    """What the table's runs left undone, and a calibration that no longer belongs to it."""
    # The runs of one sweep on several devices are as late as each other.
    for number, status in history.latest_runs(table).items():
        if status not in ("done", "imported"):
            yield Reason(
                Level.CAUTION, f"run {number} ended as {status!r}: repeat it to complete the table"
            )
    if uncompared := history.uncompared_runs(table):
        listed = ", ".join(map(str, uncompared))
        yield Reason(
            Level.CAUTION, f"outputs were compared with nothing in run {listed} (--unchecked)"
        )
    try:
        found = calibrations.stored(table)
    except CalibrationError as error:
        yield Reason(Level.CAUTION, str(error).replace("\n", "; "))
        return
    if found is None:
        return
    if found.forced:
        yield Reason(Level.CAUTION, found.forced_text)
    if found.entries_digest != calibrations.entries_digest(table):
        yield Reason(
            Level.CAUTION,
            "entries have changed since the calibration was fitted: fit it again with "
            + table.command("calibrate"),
        )


def _is_doubt(warning: str) -> bool:
    """Whether a warning says that the measurement was disturbed.

    A wide or unknown interval does not: the verdict says how wide they are. Nor does an entry near
    the launch floor or limited by the host, a difference near zero, or another process with a
    context on the GPU: throttling and sentinels show whether that one did anything.
    """
    is_remark = warning in (NEAR_LAUNCH_FLOOR, HOST_BOUND, NEAR_ZERO, OTHER_PROCESSES)
    return not (is_remark or warning.startswith("interval"))


@dataclass(frozen=True)
class _Networks:
    """What validations say; ``percent`` None where no undisturbed one can be priced."""

    percent: float | None
    reasons: tuple[Reason, ...]


def _networks(table: LatencyTable, limits: Limits) -> _Networks:
    """Within what 95% of a validation's networks are estimated, by the table as it is.

    Of the latest validation that the machine did not disturb, without the networks that a
    calibration was fitted on.
    """
    if not validation_ids(table):
        text = "no network was measured against it"
        if table.identity.is_of_this_protocol:
            text += f": {table.command('validate')}"
        return _Networks(None, (Reason(Level.CAUTION, text),))
    fitted = fitted_networks(table)
    disturbed: list[str] = []
    for number in reversed(validation_ids(table)):
        try:
            calibration = calibrations.stored(table)
            networks = measured_networks(table, validation_id=number)
        except LatlutError as error:  # another version's, or of a space that is not known here
            why = str(error).splitlines()[0]
            text = f"the networks of validation {number} cannot be priced by it: {why}"
            if isinstance(error, UnknownNameError) and table.own_modules:
                text += f": name the file that registers it, --space {table.own_modules[0]}"
            return _Networks(None, (Reason(Level.CAUTION, text),))
        if found := doubts(networks, table):
            disturbed += found
            continue
        judged = [item for item in networks if item.architecture.to_json() not in fitted]
        if not judged:
            continue
        percent = _error_percent(judged, calibration)
        level = limits.level(percent)
        way = "" if calibration is None else " with calibration"
        of = f"95% of {len(judged)}, validation {number}"
        text = f"networks estimated to ±{percent:.1f}%{way} ({of})"
        if level > Level.OK and calibration is None and len(networks) >= 2 * MIN_NETWORKS:
            half = table.command("calibrate", "--networks", len(networks) // 2)
            text += f"; a calibration may bring it down: {half}"
        return _Networks(percent, (Reason(level, text),))
    if disturbed:
        text = f"{'; '.join(disturbed)}: measure again with {table.command('validate', '--wait')}"
    else:
        text = (
            "all measured networks were used to fit its calibration: measure others with "
            + table.command("validate", "--seed", 1)
        )
    return _Networks(None, (Reason(Level.CAUTION, text),))


def _error_percent(
    networks: Sequence[MeasuredNetwork], calibration: calibrations.Calibration | None
) -> float:
    """95% of the networks are estimated within this, in percent of what was measured."""
    errors = []
    for item in networks:
        found = item.plain if calibration is None else calibrated(item.plain, calibration)
        errors.append(abs(found.ms / item.measured_ms - 1))
    return 100 * float(np.quantile(errors, 0.95))


def _origin(table: LatencyTable, environment: Environment | None) -> list[str]:
    text = "" if environment is None else measured_elsewhere(table)
    return [text] if text else []


def _changes(table: LatencyTable, environment: Environment | None) -> list[str]:
    then = history.profiling_environment(table)
    if environment is None or then is None:
        return []
    if then.get("host") != environment.get("host"):
        return [f"measured on host {then.get('host')}, this is {environment.get('host')}"]
    return environment_changes(then, environment, engine_packages())
