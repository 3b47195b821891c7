"""Fitting a calibration on measured networks, and how well it does on others.

The networks are those that ``latlut validate`` measured and the table holds. A Bayesian linear
regression (scikit-learn's ``BayesianRidge``) of relative residuals on the relative sums of entries,

    measured / plain - 1 = sum_p v_p x_p / plain + error,

with the effects v of ``pricing.calibration``, all of them 0 before any network was seen; how far
they lie from 0, and how large the error is, is estimated from the networks by the evidence. Kinds
that every network executes alike cannot be told apart from the constant and belong to it.

The error is normal, or Student's t of ``TAILS`` degrees of freedom where cross-validation finds
that likelier: one network with a trouble of its own then widens the intervals of the others less.

Symbols: N networks, P effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from latlut.errors import CalibrationError
from latlut.pricing.calibration import (
    ADDED,
    NETWORK,
    Calibration,
    added_amounts,
    entries_digest,
    features_ms,
    kind_effect,
    spec_effects,
)
from latlut.pricing.estimator import Estimate, calibrated, estimate
from latlut.spaces.onnx_files import OnnxNetwork
from latlut.spaces.space import network_from_json
from latlut.stats.machine_speed import is_disturbed
from latlut.stats.quantiles import student_95
from latlut.table.calibrations import UsedNetwork
from latlut.table.space import space_of
from latlut.table.subgraphs import learn_graphs
from latlut.table.table import LatencyTable
from latlut.table.validations import quietness, stored_networks, validation_ids
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.scores import Scores, score

if TYPE_CHECKING:
    from sklearn.linear_model import BayesianRidge

#: Fewer networks than this cannot tell effects from noise.
MIN_NETWORKS = 10
#: Passes whose networks correlate by less say more about the machine than about the networks.
LEAST_R12 = 0.9
#: An effect whose sums differ less than this between networks is one with the constant.
LEAST_SPREAD = 1e-3
#: An operator in a network takes at least this part of its entry; a fit below is shrunk further.
LEAST_FACTOR = 0.2
FOLDS = 10
#: Fewer suffice to see whether residuals are larger than they should be.
WIDENING_FOLDS = 5
SPLITS = 20
#: Degrees of freedom of errors with heavy tails.
TAILS = 4


def measured_networks(
    table: LatencyTable, source: LatencyTable | None = None, validation_id: int | None = None
) -> list[MeasuredNetwork]:
    """The networks that validations measured, latest validation first, each network once.

    Args:
        table: prices them.
        source: holds the validations; the table itself if not given. It may be of another
            measuring mode.
        validation_id: only of this validation.

    Raises:
        IdentityError: ``source`` is of another identity than ``table``.
        CalibrationError: no such validation, or it measured networks that ``table`` cannot price.
    """
    source = table if source is None else source
    # A network's latency does not depend on how the table's operators were isolated.
    table.check_identity(replace(source.identity, mode=table.identity.mode))
    rows = stored_networks(source, validation_id)
    if validation_id is not None and not rows:
        known = [str(number) for number in validation_ids(source)]
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise CalibrationError(f"{source.title} has no validation {validation_id}: {there}")
    found: dict[str, MeasuredNetwork] = {}
    where = None
    for row in rows:
        size, batch = row.input_size, row.batch
        network = network_from_json(row.architecture)
        if isinstance(network, OnnxNetwork):
            size, batch = (0, 0), 1  # a file has its own
        elif size is None or batch is None:  # measured before validations kept their input size
            where = where or space_of(source)
            size, batch = where.input_size, where.batch
        specs = network.op_specs(size, batch)
        learn_graphs(table, specs)
        plain = estimate(specs, table, is_calibrated=False, allow_missing=True)
        if not plain.is_complete or plain.substituted:
            lacks = next(spec for spec in specs if spec not in table)
            raise CalibrationError(
                f"validation {row.validation_id} of {source.title} measured networks of other "
                f"operator configurations than {table.title} holds, such as {lacks}\n"
                "name another validation with --validation, or measure networks of this table: "
                + table.command("validate")
            )
        key = f"{row.architecture} {size} {batch}"
        found.setdefault(
            key,
            MeasuredNetwork(
                network, plain, row.measured_first_ms, row.measured_second_ms,
                validation_id=row.validation_id, position=row.position,
            ),
        )  # fmt: skip
    return list(found.values())


def doubts(networks: Sequence[MeasuredNetwork], source: LatencyTable) -> list[str]:
    """Why not to learn from these networks: validations on a busy machine; empty for quiet ones.

    Args:
        networks: as ``measured_networks`` gives.
        source: holds their validations.
    """
    known = quietness(source)
    found = []
    for number in sorted({item.validation_id for item in networks if item.validation_id}):
        quiet = known.get(number)
        if quiet is None:
            continue
        if quiet.cpu_share is not None and is_disturbed(quiet.cpu_share):
            taken = 100 * (1 - quiet.cpu_share)
            found.append(f"validation {number}: other processes took {taken:.0f}% of the CPU")
        elif quiet.r12 is not None and quiet.r12 < LEAST_R12:
            found.append(f"validation {number}: its two passes correlate by {quiet.r12:.3f} alone")
    return found


def fit(networks: Sequence[MeasuredNetwork], digest: str = "") -> Calibration:
    """Fit the effects on measured networks.

    Args:
        networks: N of them, at least ``MIN_NETWORKS``.
        digest: of the table's entries.

    Raises:
        CalibrationError: too few networks, or networks that are all alike.

    The evidence takes its own choice of variances for certain. Where cross-validation finds the
    networks further away than the intervals say, these are widened to fit (never narrowed). It
    chooses between normal errors and those with heavy tails, too.

    Source: MacKay, Bayesian Interpolation, 1992; Tipping, Sparse Bayesian Learning, 2001, for
    the estimates of both variances; Lange et al., Robust Statistical Modeling Using the t
    Distribution, 1989, for heavy tails.
    """
    if len(networks) < MIN_NETWORKS:
        raise CalibrationError(
            f"a calibration needs {MIN_NETWORKS} measured networks or more, there are "
            f"{len(networks)}\nmeasure more with: latlut validate --networks 60"
        )
    tried = [(_judged(networks, heavy), heavy) for heavy in (False, True)]
    judged, is_heavy = max(tried, key=lambda item: item[0].log_likelihood)
    return _posterior(networks, digest, is_heavy).widened(max(1.0, judged.scale))


@dataclass(frozen=True)
class _Judged:
    """Errors of networks that were not fitted, over the standard deviations stated for them."""

    scale: float
    """What they are multiples of: 1 where the standard deviations are right."""
    log_likelihood: float
    """Of the measured latencies, with standard deviations times ``scale``."""


def _judged(networks: Sequence[MeasuredNetwork], is_heavy: bool) -> _Judged:
    from scipy import stats

    errors, sds = np.empty(len(networks)), np.empty(len(networks))
    for part in np.array_split(np.arange(len(networks)), WIDENING_FOLDS):
        inside = set(part.tolist())
        others = [item for i, item in enumerate(networks) if i not in inside]
        found = _posterior(others, "", is_heavy)
        for index in inside:
            item = networks[index]
            half_ms = found.half_width_ms(
                features_ms(found.effects, item.terms),
                item.plain.ms,
                item.plain.entries_sd_ms or 0.0,
            )
            sds[index] = half_ms / float(student_95(found.dof))
            errors[index] = item.measured_ms - calibrated(item.plain, found).ms
    ratios = errors / sds
    if is_heavy:
        unit = np.sqrt(1 - 2 / TAILS)  # of a standard deviation, as in ``_posterior``
        scale = _t_scale(ratios / unit)
        own = stats.t(TAILS, scale=scale * unit)
    else:
        scale = float(np.sqrt(np.mean(ratios**2)))
        own = stats.norm(scale=scale)
    return _Judged(scale, float((own.logpdf(ratios) - np.log(sds)).sum()))


def _t_weights(squares: np.ndarray) -> np.ndarray:
    """Of squared errors over the squared scale, in a likelihood with heavy tails."""
    return (TAILS + 1) / (TAILS + squares)


def _t_scale(errors: np.ndarray) -> float:
    """Maximum-likelihood scale of errors with heavy tails."""
    square = float(np.mean(errors**2))
    for _ in range(100):
        square = float(np.mean(_t_weights(errors**2 / square) * errors**2))
    return float(np.sqrt(square))


def _posterior(
    networks: Sequence[MeasuredNetwork], digest: str, is_heavy: bool = False
) -> Calibration:
    """The effects and variances that the evidence gives."""
    plain = np.array([item.plain.ms for item in networks])
    residuals = np.array([item.measured_ms for item in networks]) / plain - 1
    effects, sums = _effects(networks)
    # Priors are relative. What is added to networks has that of a kind which is all of the network
    # where it counts most: a constant of 1 ms is much of a network of 2 ms.
    scales = np.array(
        [
            1 / (column / plain).max() if name in ADDED else 1.0
            for name, column in zip(effects, sums.T, strict=True)
        ]
    )
    x = sums * scales / plain[:, None]  # (N, P)
    weights = np.ones(len(networks))
    ridge = _evidence(x, residuals, weights)
    for _ in range(12 if is_heavy else 0):
        squares = (residuals - x @ ridge.coef_) ** 2 * ridge.alpha_
        before, weights = weights, _t_weights(squares)
        ridge = _evidence(x, residuals, weights)
        if np.abs(weights - before).max() < 1e-2:
            break
    noise, prior = 1 / float(ridge.alpha_), 1 / float(ridge.lambda_)
    gram = (x.T * weights) @ x / noise
    while True:
        covariance = np.linalg.inv(gram + np.eye(len(effects)) / prior)
        values = covariance @ (x.T * weights) @ residuals / noise
        if _least_factor(effects, values, networks) >= LEAST_FACTOR or prior < 1e-9:
            break
        prior /= 2
    # Degrees of freedom that the effects took from the residuals.
    taken = float(np.trace(gram @ covariance))
    entries = np.array([item.plain.entries_sd_ms or 0.0 for item in networks]) / plain
    # Student's t has a larger standard deviation than its scale; with that, 1.96 of it are its 95%
    # interval as they are a normal distribution's.
    spread = TAILS / (TAILS - 2) if is_heavy else 1.0
    return Calibration(
        effects=tuple(effects),
        values=tuple((values * scales).tolist()),
        covariance=tuple(map(tuple, (covariance * np.outer(scales, scales)).tolist())),
        prior_sd=tuple((np.sqrt(prior) * scales).tolist()),
        low_ms=tuple(sums.min(axis=0).tolist()),
        high_ms=tuple(sums.max(axis=0).tolist()),
        residual_sd=float(np.sqrt(noise * spread)),
        entries_sd=float(np.sqrt((entries**2).mean())),
        dof=max(1.0, len(networks) - taken),
        networks=len(networks),
        entries_digest=digest,
    )


def _evidence(x: np.ndarray, residuals: np.ndarray, weights: np.ndarray) -> BayesianRidge:
    """The precisions of the errors and of the effects that fit best, and the effects."""
    from sklearn.linear_model import BayesianRidge

    return BayesianRidge(fit_intercept=False, compute_score=False).fit(
        x, residuals, sample_weight=weights
    )


def _effects(networks: Sequence[MeasuredNetwork]) -> tuple[list[str], np.ndarray]:
    """Names of the effects that networks differ in, the constant last, and their sums (N, P)."""
    specs = {term.spec for item in networks for term in item.plain.terms}
    kinds = _varying(networks, sorted({kind_effect(spec) for spec in specs}))
    if not kinds:
        raise CalibrationError("the measured networks are all alike: nothing to fit on them")
    # The others count over the kinds that vary: what is always there is the constant's.
    others = {
        name for spec in specs if kind_effect(spec) in kinds for name in spec_effects(spec)[1:]
    }
    added = sorted({name for spec in specs for name in added_amounts(spec)})
    varying = _varying(networks, [*kinds, *sorted(others), *added])
    effects = [*kinds, *varying[len(kinds) :], NETWORK]
    return effects, np.array([features_ms(effects, item.terms) for item in networks])


def _varying(networks: Sequence[MeasuredNetwork], names: list[str]) -> list[str]:
    sums = np.array([features_ms(names, item.terms) for item in networks])
    mean = np.abs(sums).mean(axis=0)
    spread = sums.std(axis=0)
    return [name for name, m, s in zip(names, mean, spread, strict=True) if s > LEAST_SPREAD * m]


def _least_factor(
    effects: Sequence[str], values: np.ndarray, networks: Sequence[MeasuredNetwork]
) -> float:
    by_name = dict(zip(effects, values, strict=True))
    return float(
        min(
            1 + sum(by_name.get(name, 0.0) for name in spec_effects(spec))
            for spec in {term.spec for item in networks for term in item.plain.terms}
            if kind_effect(spec) in by_name
        )
    )


@dataclass(frozen=True)
class CurvePoint:
    """Errors on networks that were not fitted after fitting on ``networks``, over random splits.

    ``mape_percent`` is the mean over the splits, ``low`` and ``high`` their 10th and 90th
    percentile.
    """

    networks: int
    mape_percent: float
    low: float
    high: float


def learning_curve(
    networks: Sequence[MeasuredNetwork], seed: int = 0, splits: int = SPLITS
) -> list[CurvePoint]:
    """How the error on other networks falls with the number of fitted ones.

    Every split keeps a third of the networks for judging, the same for all sizes.

    Args:
        networks: all that were measured.
        seed: of the splits.
        splits: how many.

    Returns:
        One point per size that the networks allow; the first, of 0 networks, is the plain sum.
    """
    judged = max(3, len(networks) // 3)
    sizes = [n for n in (10, 15, 20, 25, 30, 40, 60, 80, 120) if n <= len(networks) - judged]
    rng = np.random.default_rng(seed)
    errors: dict[int, list[float]] = {size: [] for size in (0, *sizes)}
    for _ in range(splits):
        order = rng.permutation(len(networks))
        test = [networks[i] for i in order[:judged]]
        errors[0].append(_mape(test, [item.plain.ms for item in test]))
        for size in sizes:
            found = _posterior([networks[i] for i in order[judged : judged + size]], "")
            errors[size].append(_mape(test, [calibrated(i.plain, found).ms for i in test]))
    return [
        CurvePoint(size, float(np.mean(values)), *np.quantile(values, [0.1, 0.9]).tolist())
        for size, values in errors.items()
    ]


def cross_validated(
    networks: Sequence[MeasuredNetwork], seed: int = 0, folds: int = FOLDS
) -> list[Estimate]:
    """Each network's calibrated estimate by a fit on the other folds, in order."""
    order = np.random.default_rng(seed).permutation(len(networks))
    estimates: list[Estimate | None] = [None] * len(networks)
    for part in np.array_split(order, min(folds, len(networks))):
        inside = set(part.tolist())
        found = fit([item for index, item in enumerate(networks) if index not in inside])
        for index in inside:
            estimates[index] = calibrated(networks[index].plain, found)
    return [item for item in estimates if item is not None]


@dataclass(frozen=True)
class Fitted:
    """A calibration, the networks it was and was not fitted on, and how it does.

    ``held_out`` is None where fewer than three networks were left; ``cross_validated`` is on the
    fitted networks, None where they are too few for folds.
    """

    calibration: Calibration
    fitted: tuple[MeasuredNetwork, ...]
    others: tuple[MeasuredNetwork, ...]
    held_out: Scores | None
    cross_validated: Scores | None

    def scores(self) -> dict[str, object]:
        """JSON-able, as a table keeps them beside the calibration."""
        return {
            name: None if found is None else found.to_dict()
            for name, found in (
                ("held_out", self.held_out),
                ("cross_validated", self.cross_validated),
            )
        }

    def used(self, source: str) -> list[UsedNetwork]:
        """The networks as a table keeps them beside the calibration.

        Args:
            source: the file of the validations that measured them.
        """
        return [
            UsedNetwork(
                item.architecture.to_json(), source, item.validation_id or 0, item.position or 0,
                is_fitted,
            )
            for items, is_fitted in ((self.fitted, True), (self.others, False))
            for item in items
        ]  # fmt: skip


def calibrate(
    table: LatencyTable, networks: Sequence[MeasuredNetwork], count: int = 30, seed: int = 0
) -> Fitted:
    """Fit on ``count`` of the measured networks, and judge it on the others.

    Args:
        table: that the networks are priced by.
        networks: as ``measured_networks`` gives.
        count: how many to fit on; all that there are where there are fewer.
        seed: of the choice.

    Raises:
        CalibrationError: too few networks.
    """
    order = np.random.default_rng(seed).permutation(len(networks))
    fitted = tuple(networks[i] for i in order[:count])
    others = tuple(networks[i] for i in order[count:])
    found = fit(fitted, entries_digest(table))
    has_folds = len(fitted) * (FOLDS - 1) // FOLDS >= MIN_NETWORKS
    return Fitted(
        found,
        fitted,
        others,
        score(others, [calibrated(item.plain, found) for item in others], seed)
        if len(others) >= 3
        else None,
        score(fitted, cross_validated(fitted, seed), seed) if has_folds else None,
    )


def _mape(networks: Sequence[MeasuredNetwork], estimated_ms: Sequence[float]) -> float:
    measured = np.array([item.measured_ms for item in networks])
    return 100 * float(np.mean(np.abs(np.array(estimated_ms) / measured - 1)))
