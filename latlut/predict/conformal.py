"""Conformal intervals: as wide as the predictions of known values have been wrong.

A prediction with mean m and standard deviation s gets the interval m - q s to m + q s, where q is
a quantile of the scores |y_i - m_i| / s_i of values that are known, each predicted without itself
(leave-one-out). If the values to come are drawn as the known ones were, the interval holds them as
often as it says, whatever the model is worth; a poor model gives wide intervals.

Sources: Lei et al., "Distribution-free predictive inference for regression", JASA 2018, Sec. 2 and
5.2 (normalised scores); Barber et al., "Predictive inference with the jackknife+", Annals of
Statistics 2021 (leave-one-out scores; guaranteed is 1 - 2 alpha, in practice it is 1 - alpha).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

#: Of all intervals here.
COVERAGE = 0.95
#: Fewer scores have no quantile of that coverage: ceil(0.95 (n + 1)) <= n from 19 on.
LEAST_SCORES = 19
#: A kind with so many scores has a quantile of its own; with fewer, one score would decide it.
SCORES_OF_KIND = 40


def quantile_of(scores: npt.ArrayLike, coverage: float = COVERAGE) -> float:
    """The score below which the next one lies with a probability of at least ``coverage``.

    The ceil(coverage (n + 1))-th smallest of n scores.

    Args:
        scores: (n,) not negative.
        coverage: between 0 and 1.

    Returns:
        The quantile; infinite where there are too few scores for that coverage.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    rank = math.ceil(coverage * (len(ordered) + 1) - 1e-9)
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def quantiles_by_kind(
    scores: npt.ArrayLike, kinds: Sequence[str], coverage: float = COVERAGE
) -> Mapping[str, float]:
    """A quantile per kind that has scores enough, and "" for all others from all scores.

    Args:
        scores: (n,) not negative.
        kinds: n names.
        coverage: between 0 and 1.
    """
    values = np.asarray(scores, np.float64)
    found = {"": quantile_of(values, coverage)}
    for kind in sorted(set(kinds)):
        own = values[[name == kind for name in kinds]]
        if len(own) >= SCORES_OF_KIND:
            found[kind] = quantile_of(own, coverage)
    return found
