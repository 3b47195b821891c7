"""Entries from several builds: what differs between builds, apart from what differs within one.

An engine that chooses among implementations while it builds may choose others the next time. The
error of an entry then has two sources: which builds it was measured on, and the passes on each of
them. A one-way random-effects model separates them,

    x_ebp = mu_e + B_eb + W_ebp,    B_eb ~ (0, build variance of e),    W_ebp ~ (0, pass variance)

x being log latency at the machine's usual speed, or a share (``stats.differences``). Both
variances are shrunk towards what all entries have, as ``stats.passes`` does with the one between
passes: two or three builds say little about their own spread.

Symbols: E entries, P passes, k builds of an entry, n their passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latlut.errors import SpecError
from latlut.stats.passes import MEDIAN_LOSS, posterior_variances
from latlut.stats.quantiles import student_95


@dataclass(frozen=True)
class CombinedBuilds:
    """Entries from several builds; arrays of length E, NaN where nothing is known."""

    value: np.ndarray
    """In the unit of the input."""
    half_width: np.ndarray
    """Relative (log) half-width of its 95% interval, from both sources."""
    build_half_width: np.ndarray
    """What of it comes from the builds alone."""
    build_sd: np.ndarray
    pass_sd: np.ndarray
    """``build_sd``, ``pass_sd``: standard deviations of log latency from build to build and from
    pass to pass on one build."""
    builds: np.ndarray
    """How many builds an entry has."""
    elasticity: float
    """How strongly readings follow the machine's speed."""


def separate_builds(values: np.ndarray, builds: np.ndarray) -> CombinedBuilds:
    """The model above, of values x: what comes back is in the unit of x, its elasticity 0.

    A build's level m_eb is the median over its passes, the entry the mean over its builds: builds
    differ for a reason, and what a fresh one costs on average is asked for.

        value_e = mean_b m_eb
        S_e = moderated variance of the means over the passes of each build    k - 1 degrees
        V_e = moderated variance within builds                                 n - k degrees
        build variance = max(0, S_e - V_e / h_e),    h_e harmonic mean of the passes per build
        half-width^2 = t^2 (build variance + c^2 V_e / h_e) / k

    with t for the degrees of freedom of S_e and c = 1.2533 where builds have three passes or more
    (the loss of a median). Where V_e is unknown, all of S_e counts as the builds'.

    Args:
        values: (E, P), NaN where an entry was not measured in a pass.
        builds: (E, P) int, number of the build that was measured; ignored where there is none.

    Raises:
        SpecError: shapes differ.

    Source: the unweighted-means analysis of the one-way random model; Searle, Casella, McCulloch,
    Variance Components, 1992, Sec. 3.6; moderation as in ``stats.passes.fit_spread_prior``.
    """
    if builds.shape != values.shape:
        raise SpecError(f"builds are {builds.shape}, readings {values.shape}: they go together")
    entries = len(values)
    value = np.full(entries, np.nan)
    between, within = np.zeros(entries), np.zeros(entries)
    counts, dof_between, dof_within = np.zeros(entries), np.zeros(entries), np.zeros(entries)
    harmonic, loss = np.ones(entries), np.ones(entries)
    for e in range(entries):
        known = np.isfinite(values[e])
        parts = [values[e, known & (builds[e] == b)] for b in np.unique(builds[e, known])]
        if not parts:
            continue
        means = np.array([part.mean() for part in parts])
        sizes = np.array([len(part) for part in parts])
        value[e] = np.mean([np.median(part) for part in parts])
        counts[e], harmonic[e] = len(parts), len(parts) / np.sum(1 / sizes)
        loss[e] = MEDIAN_LOSS if sizes.max() > 2 else 1.0
        dof_between[e], dof_within[e] = len(parts) - 1, sizes.sum() - len(parts)
        if dof_between[e]:
            between[e] = means.var(ddof=1)
        if dof_within[e]:
            squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
            within[e] = squares / dof_within[e]
    of_means, dof = posterior_variances(between, dof_between)
    of_passes, _ = posterior_variances(within, dof_within)
    from_passes = np.nan_to_num(of_passes / harmonic)
    of_builds = np.maximum(0.0, of_means - from_passes)
    t_value = student_95(np.where(dof > 0, dof, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (of_builds + loss**2 * from_passes) / counts
        half_width = t_value * np.sqrt(variance)
        build_half_width = t_value * np.sqrt(of_builds / counts)
    has_any = counts > 0
    return CombinedBuilds(
        value=value,
        half_width=np.where(has_any, half_width, math.nan),
        build_half_width=np.where(has_any, build_half_width, math.nan),
        build_sd=np.where(has_any, np.sqrt(of_builds), math.nan),
        pass_sd=np.where(has_any, np.sqrt(of_passes), math.nan),
        builds=counts.astype(int),
        elasticity=0.0,
    )
