"""A space's choices with what they cost by a table: a network's latency, ranges, a fit to a target.

Symbols: V choices, K_v options of choice v; p_v(k) probability of an option.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from latlut.errors import MissingEntryError, SpecError
from latlut.opspec import OpSpec
from latlut.pricing.calibration import stored as stored_calibration
from latlut.pricing.gaps import gap_half_width_ms
from latlut.pricing.missing import missing_message
from latlut.spaces.choices import MAX_COMBINATIONS, Choices
from latlut.table.table import LatencyTable

Floats = npt.NDArray[np.float64]
#: Name of each choice -> number of its option.
Picks = Mapping[str, int]

#: No fit takes more steps than this.
MAX_STEPS = 1000


@dataclass(frozen=True)
class Fit:
    """A network near a target.

    ``loss`` is the log probability given up for it, natural logarithm, 0 for the likeliest network
    itself; ``changes`` how many choices differ from that.
    """

    picks: dict[str, int]
    latency_ms: float
    loss: float
    changes: int
    is_within: bool
    """Whether the latency is within the tolerance."""


@dataclass(frozen=True)
class GroupRange:
    """What one kind of choice can change, the other kinds uniform.

    ``half_ms`` is the half-width of the gap's 95% interval, None where an entry has none.
    """

    group: str
    low_ms: float
    high_ms: float
    low: dict[str, int]
    high: dict[str, int]
    half_ms: float | None

    @property
    def gap_ms(self) -> float:
        """How much it can change, in milliseconds."""
        return self.high_ms - self.low_ms


class PricedParts:
    """Parts with the milliseconds of every combination of their choices.

        T(picks) = fixed_ms + sum over parts of ms[picks of the part's choices]

    Args:
        counts: name of each choice -> how many options it has.
        parts: (names of the choices, milliseconds with an axis for each).
        fixed_ms: what every network takes.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        parts: Sequence[tuple[tuple[str, ...], Floats]],
        fixed_ms: float,
    ) -> None:
        self.counts, self.parts, self.fixed_ms = dict(counts), list(parts), fixed_ms

    @cached_property
    def _parts_of(self) -> dict[str, list[int]]:
        return {
            name: [place for place, (names, _) in enumerate(self.parts) if name in names]
            for name in self.counts
        }

    def ms(self, picks: Picks) -> float:
        """A network's latency in milliseconds."""
        return self.fixed_ms + sum(
            float(ms[tuple(picks[name] for name in names)]) for names, ms in self.parts
        )

    def expected_ms(self, probabilities: Mapping[str, Floats]) -> float:
        """E[T] where choices are independent of each other, in milliseconds.

        Args:
            probabilities: name of each choice -> (K_v,), with sum 1.
        """
        return self.fixed_ms + sum(
            float(_contracted(names, ms, probabilities)) for names, ms in self.parts
        )

    def range_ms(self) -> tuple[float, float]:
        """(fastest, slowest) network, in milliseconds.

        Raises:
            SpecError: the parts depend on each other in too many ways to tell.
        """
        everything = list(self.counts)
        low = _extreme(self.counts, everything, self.parts, 1.0)
        return self.ms(low), self.ms(_extreme(self.counts, everything, self.parts, -1.0))

    def fit(
        self,
        log_weights: Mapping[str, npt.ArrayLike],
        target_ms: float,
        tolerance: float = 0.02,
    ) -> Fit:
        """The network near a target that is likeliest, as far as single changes and pairs find it.

        From the likeliest network on, the change of one choice that brings the latency nearer at
        the least loss of log probability per share of the distance; where none brings it nearer,
        the pair of changes that does.

        Args:
            log_weights: name of each choice -> (K_v,) logits, such as a search ends with.
            target_ms: positive.
            tolerance: relative distance from the target that is near enough.

        Returns:
            The network; ``is_within`` says whether it is near enough.

        Raises:
            SpecError: logits of other shapes, or a target that the space does not reach.
        """
        logs = {name: _log_softmax(name, log_weights, count) for name, count in self.counts.items()}
        low, high = self.range_ms()
        if not (target_ms > 0 and low * (1 - tolerance) <= target_ms <= high * (1 + tolerance)):
            raise SpecError(
                f"a target of {target_ms:.4g} ms is out of reach: networks of the space take "
                f"{low:.4g} to {high:.4g} ms"
            )
        start = {name: int(row.argmax()) for name, row in logs.items()}
        picks, now_ms = dict(start), self.ms(start)
        near = math.log1p(tolerance)

        def away(ms: float) -> float:
            return abs(math.log(ms / target_ms))

        for _ in range(MAX_STEPS):
            if away(now_ms) <= near:
                break
            singles = list(self._single_changes(picks, logs))
            best = _best(singles, now_ms, away, near)
            if best is None:
                best = _best(self._pairs(picks, singles), now_ms, away, near)
            if best is None:
                break
            picks |= best.changed
            now_ms = self.ms(picks)
        loss = sum(float(row[start[name]] - row[picks[name]]) for name, row in logs.items())
        changes = sum(start[name] != picks[name] for name in picks)
        return Fit(picks, now_ms, loss, changes, away(now_ms) <= near)

    def _single_changes(self, picks: Picks, logs: Mapping[str, Floats]) -> Iterator[_Change]:
        for name, row in logs.items():
            touched = self._parts_of[name]
            before = self._sum(touched, picks)
            for option in range(len(row)):
                if option != picks[name]:
                    gained_ms = self._sum(touched, {**picks, name: option}) - before
                    yield _Change({name: option}, gained_ms, float(row[picks[name]] - row[option]))

    def _pairs(self, picks: Picks, singles: Sequence[_Change]) -> Iterator[_Change]:
        for first, second in combinations(singles, 2):
            changed = first.changed | second.changed
            if len(changed) < 2:  # two options of one choice
                continue
            touched = {place for name in changed for place in self._parts_of[name]}
            gained_ms = self._sum(touched, {**picks, **changed}) - self._sum(touched, picks)
            yield _Change(changed, gained_ms, first.lost + second.lost)

    def _sum(self, places: Sequence[int] | set[int], picks: Picks) -> float:
        return sum(
            float(ms[tuple(picks[name] for name in names)])
            for names, ms in (self.parts[place] for place in places)
        )


class PricedChoices(PricedParts):
    """Every combination of a space's parts, priced by a table.

    Where the table has a calibration every entry counts with its factor, and its constant is in
    ``fixed_ms``.

    Args:
        choices: of the space.
        table: prices each op spec by its own entry; no variant stands in for one.

    Raises:
        MissingEntryError: the table lacks entries; names them and the command that adds them.
    """

    def __init__(self, choices: Choices, table: LatencyTable) -> None:
        wanted = choices.op_specs()
        if missing := [spec for spec in wanted if spec not in table]:
            raise MissingEntryError(missing_message(table, missing))
        plain_ms = dict(zip(wanted, table.latencies_ms(wanted).tolist(), strict=True))
        calibration = stored_calibration(table)
        factor = {spec: calibration.factor(spec) if calibration else 1.0 for spec in wanted}
        super().__init__(choices.counts, (), calibration.constant_ms if calibration else 0.0)
        self.choices = choices
        self._specs: list[dict[tuple[int, ...], tuple[OpSpec, ...]]] = []
        for part in choices.parts:
            cells = dict(choices.combinations(part))
            ms = np.zeros([self.counts[name] for name in part.choices])
            for place, specs in cells.items():
                ms[place] = sum(factor[spec] * plain_ms[spec] for spec in specs)
            self.parts.append((part.choices, ms))
            self._specs.append(cells)
        self._entries = {spec.key: table.lookup(spec) for spec in wanted}
        self._shared_error, self._calibration = table.shared_error, calibration

    def group_ranges(self) -> list[GroupRange]:
        """What each kind of choice can change, others uniform; see ``GroupRange``."""
        found = []
        for group, own in self.choices.groups.items():
            names = [choice.name for choice in own]
            uniform = {
                name: np.full(count, 1 / count)
                for name, count in self.counts.items()
                if name not in names
            }
            parts = [
                (tuple(name for name in axes if name in names), _contracted(axes, ms, uniform))
                for axes, ms in self.parts
            ]
            low, high = (_extreme(self.counts, names, parts, sign) for sign in (1.0, -1.0))
            ends = [
                self.fixed_ms + sum(float(ms[tuple(p[n] for n in axes)]) for axes, ms in parts)
                for p in (low, high)
            ]
            first, last = (self._executed(end, uniform) for end in (low, high))
            half = gap_half_width_ms(
                first, last, self._entries, self._shared_error, self._calibration
            )
            found.append(GroupRange(group, ends[0], ends[1], low, high, half))
        return found

    def _executed(self, picks: Picks, uniform: Mapping[str, Floats]) -> dict[OpSpec, float]:
        """Op spec -> how often it is executed, on average over the choices that are not picked."""
        counts: dict[OpSpec, float] = {}
        for (names, _), cells in zip(self.parts, self._specs, strict=True):
            for place, specs in cells.items():
                weight = math.prod(
                    uniform[name][number] if name in uniform else float(picks[name] == number)
                    for name, number in zip(names, place, strict=True)
                )
                for spec in specs if weight else ():
                    counts[spec] = counts.get(spec, 0.0) + weight
        return counts


@dataclass(frozen=True)
class _Change:
    changed: dict[str, int]
    added_ms: float
    lost: float


def _best(
    changes: Iterator[_Change] | Sequence[_Change],
    now_ms: float,
    away: Callable[[float], float],
    near: float,
) -> _Change | None:
    """The change that brings the latency nearer at the least loss per distance gained."""
    best: tuple[tuple[float, float], _Change] | None = None
    distance = away(now_ms)
    for change in changes:
        ms = now_ms + change.added_ms
        if ms <= 0:
            continue
        gained = distance - max(near, away(ms))  # what is gained inside the tolerance is no gain
        if gained <= 1e-9:
            continue
        rank = (max(change.lost, 1e-6) / gained, -gained)
        if best is None or rank < best[0]:
            best = rank, change
    return None if best is None else best[1]


def _extreme(
    counts: Mapping[str, int],
    names: Sequence[str],
    parts: Sequence[tuple[tuple[str, ...], Floats]],
    sign: float,
) -> dict[str, int]:
    """The picks of least ``sign`` times the parts' sum, exactly.

    One choice after another is eliminated, that with the fewest neighbours first: its best option
    for each combination of what its parts share with it. Of a chain that is Viterbi's recursion.
    """
    factors = [(axes, sign * ms) for axes, ms in parts if axes]
    decided: list[tuple[str, tuple[str, ...], npt.NDArray[np.intp]]] = []
    left = list(names)
    while left:
        beside = {name: _neighbours(name, [axes for axes, _ in factors]) for name in left}
        sizes = {name: math.prod(counts[other] for other in beside[name]) for name in left}
        name = min(sizes, key=sizes.__getitem__)
        left.remove(name)
        axes = (*beside[name], name)
        if math.prod(counts[other] for other in axes) > MAX_COMBINATIONS:
            raise SpecError(f"too many choices depend on each other beside {name!r}")
        total = np.zeros([counts[other] for other in axes])
        for own, ms in factors:
            if name in own:
                order = sorted(range(len(own)), key=lambda place: axes.index(own[place]))
                shape = [counts[other] if other in own else 1 for other in axes]
                total += ms.transpose(order).reshape(shape)
        factors = [(own, ms) for own, ms in factors if name not in own]
        factors.append((axes[:-1], total.min(axis=-1)))
        decided.append((name, axes[:-1], total.argmin(axis=-1)))
    picks: dict[str, int] = {}
    for name, axes, options in reversed(decided):
        picks[name] = int(options[tuple(picks[other] for other in axes)])
    return picks


def _neighbours(name: str, parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The choices that share a part with one."""
    found = dict.fromkeys(other for axes in parts if name in axes for other in axes)
    return tuple(other for other in found if other != name)


def _contracted(names: Sequence[str], ms: Floats, weights: Mapping[str, Floats]) -> Floats:
    """The part with the axes of ``weights`` averaged out."""
    for axis in reversed(range(len(names))):
        if names[axis] in weights:
            ms = np.tensordot(ms, weights[names[axis]], axes=(axis, 0))
    return ms


def _log_softmax(name: str, logits: Mapping[str, npt.ArrayLike], count: int) -> Floats:
    if name not in logits:
        raise SpecError(f"there are no logits for the choice {name!r}")
    row = np.asarray(logits[name], dtype=np.float64)
    if row.shape != (count,) or not np.isfinite(row).all():
        raise SpecError(
            f"the choice {name!r} has {count} options: expected as many finite logits, received "
            f"shape {row.shape}"
        )
    shifted = row - row.max()
    found: Floats = shifted - np.log(np.exp(shifted).sum())
    return found
