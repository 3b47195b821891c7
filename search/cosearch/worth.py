"""What a found network is worth: against random networks of equal latency, by inherited score.

The random networks are those of the rank phase's first generation: choices uniform, brought to the
target by random changes, drawn before any score was known. All scores are on the validation images
that chose the network, so that its own is the best of many and optimistic; the interval is that of
the random networks' mean alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from latlut.search.cosearch.archive import Archive, Archived
from latlut.search.cosearch.inherited import FEWEST_IMAGES

CONFIDENCE = 0.95
#: How far such scores and mIoU after training agree, of searches as short as the preset "tiny".
#: Source: docs/results, "Searched against random networks" and "On photographs"; Spearman.
KNOWN_CORRELATION = (
    "in short searches such scores ordered trained networks on generated scenes (Spearman 0.73 to "
    "0.80) and not on CamVid's photographs (-0.20 to 0.15), where --method paper and --finalists "
    "chose better"
)


#: Below so many networks no correlation is told.
_FEWEST_RANKED = 5


@dataclass(frozen=True)
class Worth:
    """One network against random ones; mIoU are fractions, inherited."""

    miou: float
    random_miou: float
    """Of the network, and the mean of the random ones."""
    networks: int
    """How many random ones. rank: the network's place among itself and them, 1 the best."""
    rank: int
    difference_points: float
    ci_low_points: float | None
    ci_high_points: float | None
    """Percentage points, and the 95% interval by Student's t; None below three networks."""
    tolerance: float
    """Relative distance from the target within which latencies count as equal."""
    images: int
    """Validation images that judged."""

    def describe(self, target_ms: float) -> str:
        """One sentence, and what to think of it."""
        interval = (
            ""
            if self.ci_low_points is None
            else f" (95% {self.ci_low_points:+.2f} to {self.ci_high_points:+.2f})"
        )
        ahead = self.networks + 1 - self.rank
        text = (
            f"chosen against random at equal latency: inherited mIoU {100 * self.miou:.3g}% "
            f"against {100 * self.random_miou:.3g}%, the mean of {self.networks} random networks "
            f"within {100 * self.tolerance:.3g}% of {target_ms:.4g} ms: "
            f"{self.difference_points:+.2f} "
            f"points{interval}, ahead of {ahead} of {self.networks}; on the {self.images} "
            "validation images that chose it, before either was trained"
        )
        if self.images < FEWEST_IMAGES:
            text += f": too few to rank networks by (fewer than {FEWEST_IMAGES})"
        return f"{text}; {KNOWN_CORRELATION}"


def worth_of(
    found: Archived, archive: Archive, target_ms: float, tolerance: float, images: int
) -> Worth | None:
    """A network against the archive's random ones of a target; None where there are none.

    Args:
        tolerance: relative distance from the target. images: validation images of the scores.
    """
    randoms = [
        item.ranked
        for item in archive.items
        if item.kind == "random" and item.target_ms == target_ms and item.ranked is not None
    ]
    if found.ranked is None or not randoms:
        return None
    mean = statistics.fmean(randoms)
    half = _half_width(randoms)
    points = 100 * (found.ranked - mean)
    return Worth(
        found.ranked,
        mean,
        len(randoms),
        1 + sum(value > found.ranked for value in randoms),
        points,
        None if half is None else points - 100 * half,
        None if half is None else points + 100 * half,
        tolerance,
        images,
    )


@dataclass(frozen=True)
class Finalists:
    """What the networks came to that had a training of their own; mIoU are fractions."""

    networks: int
    """How many. best_miou, mean_miou, worst_miou: of them."""
    best_miou: float
    mean_miou: float
    worst_miou: float
    images: int
    """Validation images that judged."""
    tried: int = 0
    """How many had a shorter training before, of which they are the best."""
    spearman: float | None = None
    """Rank correlation of inherited scores with what was trained, shorter where both were; None of
    fewer than five networks."""

    @classmethod
    def of(cls, students: Sequence[Archived], images: int) -> Finalists | None:
        """Of the students near a target; None where none was trained."""
        values = list(
            {i.architecture: i.trained for i in students if i.trained is not None}.values()
        )
        tried = {item.architecture for item in students if item.tried is not None}
        if not values:
            return None
        mean = statistics.fmean(values)
        return cls(
            len(values), max(values), mean, min(values), images, len(tried), _agreement(students)
        )

    def describe(self) -> str:
        """One sentence."""
        plural = "s" * (self.networks != 1)
        agree = (
            ""
            if self.spearman is None
            else "; inherited scores order what was trained by a Spearman correlation of "
            f"{self.spearman:.2f}"
        )
        before = f", the best of {self.tried} after a shorter one" if self.tried else ""
        return (
            f"chosen among {self.networks} finalist{plural} by a training of each{before}: mIoU "
            f"{100 * self.best_miou:.3g}%, all {100 * self.worst_miou:.3g} to "
            f"{100 * self.best_miou:.3g}%, mean {100 * self.mean_miou:.3g}%; on the {self.images} "
            f"validation images that chose it, so that its own is optimistic{agree}"
        )


def _agreement(students: Sequence[Archived]) -> float | None:
    """Spearman's correlation of inherited scores and own trainings, each network once."""
    from scipy import stats

    tried = [item for item in students if item.tried is not None]
    pairs = {
        item.architecture: (item.inherited, item.tried if tried else item.trained)
        for item in tried or [item for item in students if item.trained is not None]
    }
    if len(pairs) < _FEWEST_RANKED:
        return None
    inherited, own = zip(*pairs.values(), strict=True)
    if len(set(inherited)) == 1 or len(set(own)) == 1:
        return None
    return float(stats.spearmanr(inherited, own).statistic)


def _half_width(values: Sequence[float]) -> float | None:
    """Of the 95% interval of the mean."""
    from scipy import stats

    if len(values) < 3:
        return None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
