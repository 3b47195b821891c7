"""An entry: one op spec's latency, as a table holds it: measured, imported or predicted."""

from __future__ import annotations

from dataclasses import dataclass

from latlut.opspec import OpSpec
from latlut.stats.half_widths import percent_text, relative_half_width

#: The warning of an entry that was mostly measured beside other processes.
DISTURBED = "machine disturbed while measuring"


@dataclass(frozen=True, repr=False)
class Entry:
    """One op spec's latency; in a table of differences it may be zero or negative."""

    key: str
    """Canonical text of the op spec."""
    latency_ms: float
    ci_low_ms: float | None
    ci_high_ms: float | None
    """``latency_ms``, ``ci_low_ms``, ``ci_high_ms``: with its 95% interval, None where unknown: one
    pass, or imported without one."""
    own_error: float | None
    """The part of the interval's relative half-width that other entries do not share."""
    passes: int
    n: int
    """``passes``, ``n``: how many passes and samples it rests on."""
    roofline_ms: float | None
    """The least that the target's peak figures allow."""
    warnings: str
    """What to know before using it, joined by "; "."""
    builds: int = 1
    """How many independent builds of the engine it rests on."""
    build_error: float | None = None
    """The part of ``own_error`` that comes from their number."""
    build_sd: float | None = None
    pass_sd: float | None = None
    """``build_sd``, ``pass_sd``: relative standard deviations from build to build and from pass to
    pass on one build; None where one build was measured. Of a difference they are relative to what
    it is a difference of (``stats.differences``)."""
    own_error_ms: float | None = None
    """``own_error`` in milliseconds, which also an entry of zero has."""
    host_share: float | None = None
    """What the host takes to enqueue a run over what the run takes on the GPU, median over passes;
    None where it is not known, as on a CPU."""
    launch: str | None = None
    """How runs were launched on the GPU (``engines.cuda.graphs``), all ways if several."""
    devices: int = 1
    device_error: float | None = None
    device_sd: float | None = None
    """``devices``, ``device_error``, ``device_sd``: as of builds, of the devices that it was
    measured on."""
    predicted_from: int | None = None
    """How many measured entries it was predicted from; None where it was measured itself."""

    @property
    def is_predicted(self) -> bool:
        """Whether a model predicted it, and nothing measured it."""
        return self.predicted_from is not None

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes used the CPU while it was measured."""
        return DISTURBED in self.warnings

    @property
    def is_distinguishable(self) -> bool:
        """Whether zero lies outside the interval; True where there is none."""
        if self.ci_low_ms is None or self.ci_high_ms is None:
            return True
        return not self.ci_low_ms <= 0 <= self.ci_high_ms

    @property
    def ci_percent(self) -> float | None:
        """The interval's half-width in percent of the latency; None where there is no interval,
        or where zero lies in it: nothing is a share of what may be nothing."""
        half = relative_half_width(self.latency_ms, self.ci_low_ms, self.ci_high_ms)
        return None if half is None else 100 * half

    def __repr__(self) -> str:
        half = "" if self.ci_percent is None else f" ±{percent_text(self.ci_percent)}%"
        origin = "predicted" if self.is_predicted else f"{self.passes} passes"
        return f"<Entry {self.key}: {self.latency_ms:.4g} ms{half}, {origin}>"

    @property
    def spec(self) -> OpSpec:
        """The op spec whose latency it is."""
        return OpSpec.parse(self.key)
