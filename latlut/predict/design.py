"""Which op specs of a plan to measure, so that its networks are known best from a part of it.

Three kinds are chosen: operators of which there are few are measured whole, since nothing tells of
them; a share is drawn at random, so that conformal intervals come from op specs like those that are
left; all others are chosen by what they tell. With C the covariance of what is unknown (the
logarithms of latencies) and a_r the parts that op specs have in network r, the relative variance of
the networks' sums is

    mean_r a_r' C a_r = tr(C M),    M = mean_r a_r a_r',

and measuring op spec j takes c_j' M c_j / (C_jj + noise) off it. The next is the one that takes off
most; to M a multiple of the identity is added, so that entries outside of the sampled networks
count as well.

Symbols: N op specs of the plan, R networks.

Source: Krause et al., "Near-optimal sensor placements in Gaussian processes", JMLR 2008 (greedy
choice); Cohn, "Neural network exploration using optimal experiment design", 1996 (mean variance).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latlut.errors import PredictionError
from latlut.opspec import OpSpec
from latlut.predict.conformal import LEAST_SCORES
from latlut.predict.features import Features, category_of
from latlut.predict.predictor import LEAST_KNOWN, LEAST_OF_CATEGORY, Kernel, Predictor

#: Categories of so few op specs are measured whole.
_FEW = 4
#: Share of the op specs that is drawn at random, beyond those that are measured anyway.
_RANDOM = 0.35
#: Before anything is measured: smooth over two octaves, one kind much like another.
_FIRST_LENGTH = 2.0


@dataclass(frozen=True)
class Design:
    """What to measure of a plan. Says the same again for the same seed and measurements.

    Raises:
        PredictionError: fewer op specs than a model needs.
    """

    specs: tuple[OpSpec, ...]
    """The N op specs of the plan."""
    counts: np.ndarray
    """(R, N): how often each of R networks of the space executes each; R may be 0."""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.specs) <= LEAST_KNOWN:
            raise PredictionError(
                f"a plan of {len(self.specs)} operator configurations is too small to "
                "predict a part of it: "
                "measure all of it"
            )

    @cached_property
    def always(self) -> list[int]:
        """Places of the op specs that are measured first."""
        places: dict[str, list[int]] = {}
        for place, spec in enumerate(self.specs):
            places.setdefault(category_of(spec), []).append(place)
        order = np.random.default_rng(self.seed).permutation(len(self.specs)).tolist()
        found = []
        for own in places.values():
            if len(own) <= _FEW:
                found += own
            else:
                chosen = set(own)
                found += [place for place in order if place in chosen][:LEAST_OF_CATEGORY]
        # A network's first operators see few channels and large maps, like no other.
        images = min(spec.in_channels for spec in self.specs)
        found += [place for place, s in enumerate(self.specs) if s.in_channels == images <= 4]
        return list(dict.fromkeys(found))

    def random(self, total: int) -> list[int]:
        """Places of those that are drawn at random when ``total`` op specs are to be measured."""
        known = set(self.always)
        order = np.random.default_rng(self.seed + 1).permutation(len(self.specs)).tolist()
        rest = [place for place in order if place not in known]
        count = max(int(_RANDOM * (total - len(known))), LEAST_SCORES + 1)
        return rest[: max(0, min(count, total - len(known)))]

    def fit(self, known: Mapping[OpSpec, float], total: int) -> Predictor:
        """A model of what is known, with intervals from what was drawn at random.

        Args:
            known: op spec -> milliseconds.
            total: as given to ``next``.
        """
        drawn = {self.specs[place] for place in self.random(total)}
        specs = list(known)
        return Predictor.fit(specs, list(known.values()), [spec in drawn for spec in specs])

    def next(
        self, known: Mapping[OpSpec, float], count: int, total: int, predictor: Predictor | None
    ) -> list[OpSpec]:
        """The op specs to measure next, at most ``count`` and ``total`` with those that are known.

        Args:
            known: op spec -> milliseconds, of those that are measured.
            count: most op specs.
            total: how many op specs are to be measured in all.
            predictor: a model of the known ones; None before there is one.
        """
        there = {place for place, spec in enumerate(self.specs) if spec in known}
        count = min(count, total - len(there))
        wanted = [p for p in (*self.always, *self.random(total)) if p not in there]
        chosen = wanted[: max(0, count)]
        if len(chosen) < count:
            taken = sorted(there | set(chosen))
            chosen += self._informative(count - len(chosen), taken, known, predictor)
        return [self.specs[place] for place in chosen]

    def _informative(
        self, count: int, taken: list[int], known: Mapping[OpSpec, float],
        predictor: Predictor | None,
    ) -> list[int]:  # fmt: skip
        if predictor is None:
            matrix = Features.of(self.specs).rows(self.specs).matrix
            kernel = Kernel((_FIRST_LENGTH,) * matrix.shape[1], 1.0, 1e-3)
            covariance, noise = kernel.between(matrix, matrix), kernel.noise
            latency_ms = np.ones(len(self.specs))
            open_places = taken
        else:
            covariance = predictor.covariance(self.specs)
            noise = predictor.noise_variance
            latency_ms = self.latency_ms(known, predictor)
            open_places = [place for place in taken if self.specs[place] not in known]
        for place in open_places:
            covariance = _given(covariance, place, noise)
        importance = self._importance(latency_ms)
        chosen: list[int] = []
        is_open = np.ones(len(self.specs), bool)
        is_open[taken] = False
        for _ in range(min(count, int(is_open.sum()))):
            gain = (covariance * (importance @ covariance)).sum(axis=0)
            gain = gain / (np.diag(covariance) + noise)
            gain[~is_open] = -np.inf
            best = int(gain.argmax())
            is_open[best] = False
            chosen.append(best)
            covariance = _given(covariance, best, noise)
        return chosen

    def latency_ms(self, known: Mapping[OpSpec, float], predictor: Predictor) -> np.ndarray:
        """(N,): measured where known, predicted elsewhere."""
        left = [spec for spec in self.specs if spec not in known]
        found = dict(zip(left, predictor.predict(left).latency_ms.tolist(), strict=True))
        return np.array([known.get(spec, found.get(spec, np.nan)) for spec in self.specs])

    def _parts(self, latency_ms: np.ndarray) -> np.ndarray:
        """(R, N): what part of each network each op spec takes."""
        parts = self.counts * latency_ms
        found: np.ndarray = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-300)
        return found

    def _importance(self, latency_ms: np.ndarray) -> np.ndarray:
        """(N, N): M, with the identity's share; each has a trace of 1."""
        total = len(self.specs)
        identity = np.eye(total) / total
        if not len(self.counts):
            return identity
        parts = self._parts(latency_ms)
        own = parts.T @ parts / len(parts)
        found: np.ndarray = own / np.trace(own) + identity
        return found

    def network_half_width(self, known: Mapping[OpSpec, float], predictor: Predictor) -> float:
        """Relative half-width of a network's 95% interval that predicted entries cause: mean.

        Their errors are taken as correlated as the model says; NaN where no network is known.
        """
        if not len(self.counts):
            return float("nan")
        left = [place for place, spec in enumerate(self.specs) if spec not in known]
        parts = self._parts(self.latency_ms(known, predictor))[:, left]
        covariance = predictor.covariance([self.specs[place] for place in left])
        covariance = covariance + predictor.noise_variance * np.eye(len(left))
        variance = ((parts @ covariance) * parts).sum(axis=1)
        return predictor.quantiles[""] * float(np.sqrt(np.maximum(variance, 0.0)).mean())


def counts_of(specs: Sequence[OpSpec], networks: Sequence[Sequence[OpSpec]]) -> np.ndarray:
    """(R, N): how often each network executes each op spec."""
    place = {spec: number for number, spec in enumerate(specs)}
    found = np.zeros((len(networks), len(specs)))
    for row, network in enumerate(networks):
        for spec, count in Counter(network).items():
            if spec in place:
                found[row, place[spec]] = count
    return found


def _given(covariance: np.ndarray, place: int, noise: float) -> np.ndarray:
    """The covariance when the op spec at ``place`` is measured."""
    own = covariance[:, place]
    found: np.ndarray = covariance - np.outer(own, own) / (own[place] + noise)
    return found
