"""A new device from a few measurements on it, and all that is known of other devices.

The latencies of N items (networks, or op specs) on a new device are

    y = c + Phi w + e,    w ~ N(0, s^2 V),    e ~ N(0, s^2 noise)                         (1)

a linear-Gaussian model: c is a level that the measurements give, s^2 a scale that they give as
well, and the columns of Phi are what the D known devices say of the items, each device
standardised and split by a least-squares fit on the items' own features into what follows from
them (smooth) and the rest (rough):

    Phi = [mean of smooth, smooth of each device, mean of rough, rough of each device, features]

Devices agree more on the smooth part, and that of a new one is nearly a mixture of theirs. The five
variances V of the blocks, and the noise, are those under which the known devices predict each other
best: each in turn plays the new one, and the marginal likelihood of what would be measured on it,
given the others, is maximised over all. Which items to measure follows from the model alone: each
next one lowers the mean posterior variance of all items the most (V-optimal, greedily).

Intervals are conformal over devices: every known device in turn is predicted from the same items
as the new one, and the errors, over the model's standard deviations, say how wide an interval is.

Symbols: N items, D known devices, F features, P columns of Phi, n measured items.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, Sec. 2.1 and 2.7
(linear model, unknown level); Pukelsheim, "Optimal Design of Experiments", 2006, Ch. 9 (average
variance); Lei et al., JASA 2018 (normalised scores). Compare HELP (Lee et al., NeurIPS 2021), which
meta-learns a network for the same task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from latlut.errors import PredictionError
from latlut.predict.conformal import COVERAGE

#: Devices that a prior needs: each is predicted from the others.
LEAST_DEVICES = 2
#: Measured items from which a level and a scale can be told.
LEAST_MEASURED = 3
#: Items on which the variances are fitted, and among which the next to measure are chosen.
_FITTED_ITEMS, _CANDIDATES = 60, 1500
_BLOCKS = 5


@dataclass(frozen=True)
class Variances:
    """Prior variances of (1), as multiples of s^2."""

    blocks: tuple[float, ...]
    """Of the weights in each block of Phi."""
    noise: float


@dataclass(frozen=True)
class Transferred:
    """What is known of a new device; arrays of length N in the units of its latencies' domain."""

    mean: np.ndarray
    sd: np.ndarray
    quantile: float
    """The 95% interval is ``mean`` plus and minus ``quantile`` x ``sd``."""


def _columns(latencies: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
    """The five blocks of Phi from (N, D) latencies and (N, F) features."""
    spread = latencies.std(axis=0)
    standard = (latencies - latencies.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.c_[np.ones(len(features)), features]
    ridge = 1e-6 * len(features) * np.eye(design.shape[1])
    smooth = design @ np.linalg.solve(design.T @ design + ridge, design.T @ standard)
    rough = standard - smooth
    share = 1 / np.sqrt(latencies.shape[1])
    level = smooth.mean(axis=1, keepdims=True)
    level = level / (level.std() or 1.0)
    own = features - features.mean(axis=0)
    own = own / np.sqrt((own**2).sum(axis=1).mean() or 1.0)
    return [level, share * smooth, rough.mean(axis=1, keepdims=True), share * rough, own]


class _Posterior:
    """(1) given n measured items, with c and s^2 estimated from them."""

    def __init__(self, weighted: np.ndarray, noise: float, items: Sequence[int]) -> None:
        self._weighted, self._noise = weighted, noise
        self._own = weighted[list(items)]
        covariance = self._own @ self._own.T + noise * np.eye(len(self._own))
        self._factor = (np.linalg.cholesky(covariance), True)
        self._ones = cho_solve(self._factor, np.ones(len(self._own)))

    def level_and_scale(self, values: np.ndarray) -> tuple[float, np.ndarray, float]:
        """c, the weights of the measured items, and s^2 (restricted maximum likelihood)."""
        level = float(self._ones @ values / self._ones.sum())
        weights = cho_solve(self._factor, values - level)
        scale = float((values - level) @ weights) / max(1, len(values) - 1)
        return level, weights, scale

    def likelihood(self, values: np.ndarray) -> float:
        """Restricted log likelihood of the measured values, c and s^2 at their best."""
        _, _, scale = self.level_and_scale(values)
        determinant = np.log(np.diag(self._factor[0])).sum()
        dof = len(values) - 1
        return -float(
            0.5 * dof * np.log(max(scale, 1e-300)) + determinant + 0.5 * np.log(self._ones.sum())
        )

    def moments(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every item's latency: (N,) each."""
        level, weights, scale = self.level_and_scale(values)
        beside = self._weighted @ self._own.T  # (N, n)
        explained = (cho_solve(self._factor, beside.T).T * beside).sum(axis=1)
        # What the unknown level adds: R&W Eq. 2.42.
        lever = 1 - beside @ self._ones
        variance = (self._weighted**2).sum(axis=1) - explained + lever**2 / self._ones.sum()
        sd = np.sqrt(scale * (np.maximum(variance, 0.0) + self._noise))
        return level + beside @ weights, sd


@dataclass(frozen=True)
class DevicePrior:
    """What D known devices say of N items."""

    latencies: np.ndarray
    """(N, D), in a domain where devices are mixtures of each other: milliseconds for networks of
    one space, whose latencies are sums; logarithms for op specs, which range over decades."""
    features: np.ndarray
    """(N, F)."""
    seed: int = 0

    def __post_init__(self) -> None:
        items, devices = self.latencies.shape
        if devices < LEAST_DEVICES:
            raise PredictionError(
                f"{devices} known device{'s' * (devices != 1)}: a prior for a new device needs "
                f"{LEAST_DEVICES} or more, since each is predicted from the others"
            )
        if items < 2 * LEAST_MEASURED or len(self.features) != items:
            raise PredictionError(
                f"the known devices have {items} operator configurations in common, too "
                "few to transfer from"
            )

    @cached_property
    def _phi(self) -> list[np.ndarray]:
        return _columns(self.latencies, self.features)

    def _without(self, device: int) -> list[np.ndarray]:
        """Phi of the other devices; kept, since it is asked for again."""
        kept: dict[int, list[np.ndarray]] = self.__dict__.setdefault("_kept", {})
        if device not in kept:
            others = np.delete(self.latencies, device, axis=1)
            kept[device] = _columns(others, self.features)
        return kept[device]

    @staticmethod
    def _weighted(blocks: Sequence[np.ndarray], variances: Variances) -> np.ndarray:
        """(N, P): Phi V^(1/2)."""
        return np.concatenate(
            [np.sqrt(v) * block for v, block in zip(variances.blocks, blocks, strict=True)], axis=1
        )

    @cached_property
    def variances(self) -> Variances:
        """Those under which the known devices predict each other best."""
        random = np.random.default_rng(self.seed)
        items, devices = self.latencies.shape
        samples = []
        for device in range(devices):
            for _ in range(2):
                chosen = random.choice(items, min(items, _FITTED_ITEMS), replace=False)
                values = self.latencies[chosen, device]
                spread = float(values.std()) or 1.0
                rows = [block[chosen] for block in self._without(device)]
                samples.append((rows, values / spread))

        def loss(logs: np.ndarray) -> float:
            own = Variances(tuple(np.exp(logs[:-1])), float(np.exp(logs[-1])))
            total = 0.0
            for rows, values in samples:
                weighted = self._weighted(rows, own)
                total -= _Posterior(weighted, own.noise, range(len(values))).likelihood(values)
            return total + 0.05 * float(logs @ logs)  # keeps what does not matter in sight

        found = minimize(
            loss,
            np.r_[np.zeros(_BLOCKS), -3.0],
            method="L-BFGS-B",
            bounds=[(-9, 9)] * (_BLOCKS + 1),
        )
        values = np.exp(found.x)
        return Variances(tuple(values[:-1].tolist()), float(values[-1]))

    def next_items(
        self, count: int, measured: Sequence[int] = (), allowed: npt.ArrayLike | None = None
    ) -> list[int]:
        """The items to measure next, the most informative first.

        Args:
            count: how many.
            measured: items that are measured already.
            allowed: (N,) bool, which can be measured; all if not given.
        """
        random = np.random.default_rng(self.seed)
        total = len(self.latencies)
        can = np.ones(total, bool) if allowed is None else np.array(allowed, bool)
        can[list(measured)] = False
        others = np.setdiff1d(np.arange(total), measured)
        if len(others) > _CANDIDATES:
            others = random.choice(others, _CANDIDATES, replace=False)
        places = np.r_[np.array(measured, int), others]
        weighted = self._weighted(self._phi, self.variances)[places]
        # The unknown level, as a weight of large variance.
        covariance = weighted @ weighted.T + 25.0
        noise = self.variances.noise
        for place in range(len(measured)):
            covariance = _given(covariance, place, noise)
        chosen: list[int] = []
        open_ = can[places]
        for _ in range(min(count, int(open_.sum()))):
            gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + noise)
            gain[~open_] = -1.0
            best = int(gain.argmax())
            open_[best] = False
            chosen.append(int(places[best]))
            covariance = _given(covariance, best, noise)
        return chosen

    def transfer(self, items: Sequence[int], values: npt.ArrayLike) -> Transferred:
        """Every item's latency on a new device.

        Args:
            items: n measured items.
            values: (n,) their latencies, in the domain of ``latencies``.

        Raises:
            PredictionError: fewer than 3 measured items.
        """
        known = np.asarray(values, np.float64)
        if len(known) < LEAST_MEASURED:
            raise PredictionError(
                f"{len(known)} measured operator configurations are too few to tell a "
                "device's level and speed: "
                f"measure {LEAST_MEASURED} or more"
            )
        noise = self.variances.noise
        own = _Posterior(self._weighted(self._phi, self.variances), noise, items)
        mean, sd = own.moments(known)
        return Transferred(mean, sd, self._quantile(items))

    def _quantile(self, items: Sequence[int]) -> float:
        """What intervals of the known devices need to hold 95% of all their items together."""
        needed = []
        left = np.ones(len(self.latencies), bool)
        left[list(items)] = False
        for device in range(self.latencies.shape[1]):
            truth = self.latencies[:, device]
            weighted = self._weighted(self._without(device), self.variances)
            mean, sd = _Posterior(weighted, self.variances.noise, items).moments(truth[list(items)])
            scores = np.abs(truth - mean)[left] / np.maximum(sd[left], 1e-12)
            needed.append(scores)
        return float(np.quantile(np.concatenate(needed), COVERAGE))


def _given(covariance: np.ndarray, place: int, noise: float) -> np.ndarray:
    """The covariance when the item at ``place`` is measured."""
    own = covariance[:, place]
    found: np.ndarray = covariance - np.outer(own, own) / (own[place] + noise)
    return found
