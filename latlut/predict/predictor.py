"""A Gaussian process of latencies over op specs, with conformal intervals, evaluated in numpy.

    log t(x) = log work(x) + m + f(x) + e,    f ~ GP(0, a^2 k(|x - x'|)),    e ~ N(0, s^2)

f is the logarithm of how far an operator is from its roofline (the reciprocal of its utilisation),
which changes smoothly with shapes within a kind and by steps where an engine chooses another
kernel: k is Matern's of order 3/2, with a length of its own for every feature. Kinds are features
as well: how much of f two kinds share is learned. scikit-learn finds the lengths by the marginal
likelihood; what is kept is a small predictor that needs numpy alone.

Symbols: N known op specs, M to be predicted, F features.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: Eq. 2.25 and 2.26
(mean, variance: ``conditioning``), 4.17 (kernel), 5.10 to 5.12 (leave-one-out without refitting).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latlut.errors import PredictionError
from latlut.opspec import OpSpec
from latlut.predict.conditioning import Beside, Conditioned
from latlut.predict.conformal import LEAST_SCORES, quantile_of, quantiles_by_kind
from latlut.predict.features import Features, OpSpecRows, category_of

#: Known op specs that a model needs: one more than its interval's quantile does.
LEAST_KNOWN = LEAST_SCORES + 1
#: Known ones of a category that anything of it can be predicted from.
LEAST_OF_CATEGORY = 3
#: Lengths and amplitudes are found on so many op specs at most, the rest is conditioned on.
MOST_FITTED = 300
_LENGTHS = (0.1, 100.0)
_NOISE = (1e-6, 1e-1)


@dataclass(frozen=True)
class Kernel:
    """a^2 k(|x - x'|) + s^2, on standardised targets."""

    lengths: tuple[float, ...]
    """F, in units of the features."""
    amplitude: float
    """A^2, a variance."""
    noise: float
    """s^2."""

    def between(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Covariances of f: (N, F) and (M, F) give (N, M)."""
        return self.amplitude * Beside(np.array(self.lengths), right)(left)

    def conditioned(self, known: np.ndarray) -> Conditioned:
        """f at any rows, given its values with noise at (N, F) known ones; in units of a^2.

        Raises:
            LinAlgError: a kernel that is none: the covariance is not positive definite.
        """
        return Conditioned(np.array(self.lengths), known, self.noise / self.amplitude)

    @classmethod
    def fit(cls, features: np.ndarray, targets: np.ndarray, numbers: int) -> Kernel:
        """The kernel of largest marginal likelihood.

        Args:
            features: (N, F).
            targets: (N,), of mean 0 and variance 1.
            numbers: how many of the features are logarithms of shapes; the others are categories.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        if len(targets) > MOST_FITTED:
            chosen = np.random.default_rng(0).choice(len(targets), MOST_FITTED, replace=False)
            features, targets = features[chosen], targets[chosen]
        start = np.r_[np.full(numbers, 3.0), np.ones(features.shape[1] - numbers)]
        # A feature that does not vary has no length that could be learned.
        varies = np.ptp(features, axis=0) > 0
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(
            start[varies], _LENGTHS, nu=1.5
        ) + WhiteKernel(1e-3, _NOISE)
        with warnings.catch_warnings():  # a length at its bound says that the feature is no matter
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = GaussianProcessRegressor(kernel).fit(features[:, varies], targets)
        lengths = np.full(len(start), _LENGTHS[1])
        lengths[varies] = model.kernel_.k1.k2.length_scale
        return cls(
            tuple(lengths.tolist()),
            float(model.kernel_.k1.k1.constant_value),
            float(model.kernel_.k2.noise_level),
        )


@dataclass(frozen=True)
class Predictions:
    """M predicted latencies; arrays of length M."""

    latency_ms: np.ndarray
    ci_low_ms: np.ndarray
    ci_high_ms: np.ndarray
    """``latency_ms``, ``ci_low_ms``, ``ci_high_ms``: with their 95% conformal intervals."""
    half_width: np.ndarray
    """Of the logarithm's interval: about the relative half-width."""


@dataclass(frozen=True)
class Predictor:
    """A fitted model. Predicts op specs of the categories that it knows."""

    features: Features
    kernel: Kernel
    keys: tuple[str, ...]
    """N known op specs, canonical texts."""
    targets: tuple[float, ...]
    """N, log(latency in ms) - log work."""
    quantiles: Mapping[str, float] = field(hash=False)
    """Category -> quantile of its scores; "" for all others."""

    @classmethod
    def fit(
        cls,
        specs: Sequence[OpSpec],
        latency_ms: npt.ArrayLike,
        is_scored: npt.ArrayLike | None = None,
        kernel: Kernel | None = None,
    ) -> Predictor:
        """A predictor from known latencies.

        Args:
            specs: N op specs, each once.
            latency_ms: (N,) positive.
            is_scored: (N,) bool, which of them the intervals come from: those that were chosen at
                random among what is still to be predicted; never narrower than all of them need.
                All of them if not given, or where fewer than 19 are true.
            kernel: to use as it is; fitted if not given.

        Raises:
            PredictionError: fewer than 20 op specs, or a latency that is not positive.
        """
        latencies = np.asarray(latency_ms, np.float64)
        if len(specs) < LEAST_KNOWN:
            raise PredictionError(
                f"{len(specs)} known latencies are too few to predict others from: measure "
                f"{LEAST_KNOWN} or more"
            )
        if not (latencies > 0).all():
            lowest = specs[int(latencies.argmin())]
            raise PredictionError(
                f"{lowest}: {latencies.min():.4g} ms has no logarithm: only latencies above 0 can "
                "be predicted from, not differences"
            )
        features = Features.of(specs)
        rows = features.rows(specs)
        targets = np.log(latencies) - rows.log_work
        if kernel is None:
            spread = float(targets.std()) or 1.0
            standard = (targets - targets.mean()) / spread
            kernel = Kernel.fit(rows.matrix, standard, features.numbers)
        fitted = cls(
            features, kernel, tuple(spec.key for spec in specs), tuple(targets.tolist()), {"": 1.0}
        )
        scores = np.abs(fitted.left_out[0]) / fitted.left_out[1]
        chosen = np.ones(len(specs), bool) if is_scored is None else np.asarray(is_scored, bool)
        if chosen.sum() < LEAST_SCORES:
            chosen = np.ones(len(specs), bool)
        names = [name for name, is_own in zip(rows.categories, chosen, strict=True) if is_own]
        quantiles = quantiles_by_kind(scores[chosen], names)
        if not chosen.all():  # a few random ones may happen to be easy
            least = quantile_of(scores)
            quantiles = {name: max(own, least) for name, own in quantiles.items()}
        return replace(fitted, quantiles=quantiles)

    @cached_property
    def _level(self) -> tuple[float, float]:
        """Mean and standard deviation of the targets."""
        values = np.array(self.targets)
        return float(values.mean()), float(values.std()) or 1.0

    @cached_property
    def specs(self) -> tuple[OpSpec, ...]:
        """The known op specs."""
        return tuple(OpSpec.parse(key) for key in self.keys)

    @cached_property
    def _known(self) -> np.ndarray:
        return self.features.rows(self.specs).matrix

    @cached_property
    def _conditioned(self) -> Conditioned:
        return self.kernel.conditioned(self._known)

    @cached_property
    def _weights(self) -> np.ndarray:
        """(N,): a^2 times what each known target counts for in a mean, standardised."""
        mean, spread = self._level
        triangle = self._conditioned.triangle.inverse
        weights: np.ndarray = triangle.T @ (triangle @ ((np.array(self.targets) - mean) / spread))
        return weights

    @cached_property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) twice: error of each known target predicted without it, and the standard deviation.

        Source: Rasmussen and Williams, Eq. 5.12.
        """
        _, spread = self._level
        triangle = self._conditioned.triangle.inverse
        precision = np.einsum("nm,nm->m", triangle, triangle)
        sd = spread * (self.kernel.amplitude / precision) ** 0.5
        return spread * self._weights / precision, sd

    @cached_property
    def category_counts(self) -> Mapping[str, int]:
        """How many known op specs each category has."""
        columns = self._known[:, self.features.numbers :].sum(axis=0)
        return dict(zip(self.features.categories, columns.astype(int).tolist(), strict=True))

    def can_predict(self, spec: OpSpec) -> bool:
        """Whether enough of its category is known."""
        return self.category_counts.get(category_of(spec), 0) >= LEAST_OF_CATEGORY

    def _moments(self, rows: OpSpecRows) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the targets: (M,) each."""
        mean, spread = self._level
        means, left = self._conditioned.moments(rows.matrix, spread * self._weights)
        return mean + means, spread * np.sqrt(self.kernel.amplitude * left)

    def predict(self, specs: Sequence[OpSpec]) -> Predictions:
        """Latencies with 95% intervals.

        Raises:
            PredictionError: an op spec of a category of which fewer than 3 are known.
        """
        rows = self.features.rows(specs)
        quantiles = {name: self._quantile_of(name) for name in set(rows.categories)}
        if None in quantiles.values():
            raise self._refusal(specs, rows.categories)
        mean, sd = self._moments(rows)
        half = sd * [quantiles[name] for name in rows.categories]
        latency_ms, factor = np.exp(mean + rows.log_work), np.exp(half)
        return Predictions(latency_ms, latency_ms / factor, latency_ms * factor, half)

    def _quantile_of(self, category: str) -> float | None:
        """Of its scores; None of a category that nothing can be predicted of."""
        if self.category_counts.get(category, 0) < LEAST_OF_CATEGORY:
            return None
        return self.quantiles.get(category, self.quantiles[""])

    def _refusal(self, specs: Sequence[OpSpec], categories: Sequence[str]) -> PredictionError:
        """Names the first op spec that nothing can be predicted of."""
        spec, name = next(
            pair for pair in zip(specs, categories, strict=True) if not self.can_predict(pair[0])
        )
        return PredictionError(
            f"{spec} cannot be predicted: {self.category_counts.get(name, 0)} of the "
            f"{len(self.keys)} known operator configurations are {name!r}, it takes "
            f"{LEAST_OF_CATEGORY}"
        )

    def covariance(self, specs: Sequence[OpSpec]) -> np.ndarray:
        """(M, M): of the logarithms that are left unknown, noise aside."""
        _, spread = self._level
        matrix = self.features.rows(specs).matrix
        given = self._conditioned
        solved = given.beside(matrix) @ given.triangle.inverse.T
        own = self.kernel.between(matrix, matrix)
        found: np.ndarray = spread**2 * (own - self.kernel.amplitude * (solved @ solved.T))
        return found

    @property
    def noise_variance(self) -> float:
        """Of a logarithm: what no neighbour tells, and what measuring adds."""
        return self._level[1] ** 2 * self.kernel.noise

    def to_json(self) -> str:
        """A text that ``from_json`` reads."""
        return json.dumps(
            {
                "options": self.features.options,
                "categories": self.features.categories,
                "lengths": self.kernel.lengths,
                "amplitude": self.kernel.amplitude,
                "noise": self.kernel.noise,
                "keys": self.keys,
                "targets": self.targets,
                "quantiles": dict(self.quantiles),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Predictor:
        """The predictor that ``to_json`` wrote.

        Raises:
            PredictionError: a text that is none.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            lists = {n: tuple(values[n]) for n in ("options", "categories", "keys")}
            numbers = {n: tuple(map(float, values[n])) for n in ("lengths", "targets")}
            found = cls(
                Features(lists["options"], lists["categories"]),
                Kernel(numbers["lengths"], float(values["amplitude"]), float(values["noise"])),
                lists["keys"],
                numbers["targets"],
                {str(name): float(value) for name, value in values["quantiles"].items()},
            )
            is_whole = (
                len(found.keys) == len(found.targets) >= LEAST_KNOWN
                and len(found.kernel.lengths)
                == found.features.numbers + len(found.features.categories)
                and "" in found.quantiles
                and np.isfinite([*found.targets, *found.kernel.lengths, *found._weights]).all()
            )
        except (ValueError, TypeError, KeyError, AttributeError, np.linalg.LinAlgError) as error:
            raise PredictionError(f"not a predictor: {error}") from error
        if not is_whole:
            raise PredictionError("not a predictor: its parts do not fit together")
        return found
