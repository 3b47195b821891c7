"""How a sweep ended, and the progress of several parts of one as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from latlut.progress import Progress


@dataclass
class SweepSummary:
    """How a sweep ended."""

    status: str = "running"
    """``done``, ``out of budget``, ``stopped`` or ``failed``."""
    measured: int = 0
    reused: int = 0
    """``measured``, ``reused``: readings that were taken, and that were in the table already."""
    requeued: int = 0
    """Op specs that were put back because the machine was disturbed."""
    failed: dict[str, str] = field(default_factory=dict)
    """Op spec -> why it could not be measured."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By what they went into; ``total`` is their wall time."""
    disturbed: int = 0
    """Readings that were taken while others had a part of the CPU."""

    @property
    def overhead_fraction(self) -> float:
        """Share of the sweep that is neither timing, warm-up nor engine building."""
        names = ("timing", "warm-up", "sentinels", "building")
        useful = sum(self.seconds.get(name, 0.0) for name in names)
        return 1 - useful / self.seconds["total"] if self.seconds.get("total") else 0.0


def joined(summaries: Sequence[SweepSummary]) -> SweepSummary:
    """Several parts of one sweep as one: counts added up, seconds as the mean over the parts.

    The status is ``done`` only if all parts are; the first other one otherwise.
    """
    names = dict.fromkeys(name for summary in summaries for name in summary.seconds)
    other = [summary.status for summary in summaries if summary.status != "done"]
    return SweepSummary(
        status=other[0] if other else "done",
        measured=sum(summary.measured for summary in summaries),
        reused=sum(summary.reused for summary in summaries),
        requeued=sum(summary.requeued for summary in summaries),
        disturbed=sum(summary.disturbed for summary in summaries),
        failed={key: text for summary in summaries for key, text in summary.failed.items()},
        seconds={"total": 0.0}
        | {
            name: sum(summary.seconds.get(name, 0.0) for summary in summaries) / len(summaries)
            for name in names
        },
    )


class TotalProgress:
    """Makes one progress of those of several parts.

    Args:
        totals: how many readings each part has to take.
        listener: told of all of them together.
    """

    def __init__(self, totals: Sequence[int], listener: Callable[[Progress], None]) -> None:
        self._totals = list(totals)
        self._done = [0] * len(totals)
        self._listener = listener

    def __call__(self, part: int, progress: Progress) -> None:
        # A part that goes on in another process counts what is left then.
        self._done[part] = self._totals[part] - progress.total + progress.done
        self._listener(replace(progress, done=sum(self._done), total=sum(self._totals)))
