"""What a search searches for: a space, its price by a table, and the latency to hit.

The latency's input size is the table's (1024x2048 for the published network) and has nothing to
do with the crops that the supernet trains on. Networks keep the table's number of classes while
they are priced and derived; the supernet's heads have the data's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from latlut.errors import SpecError, TableError
from latlut.opspec import OpSpec
from latlut.pricing.estimator import estimate
from latlut.search.cosearch.controller import LambdaController
from latlut.search.cosearch.settings import LatencySettings, SpaceSettings
from latlut.search.derive.fitting import reachable_ms
from latlut.search.networks.cost import cost_of_architecture
from latlut.search.penalty.decoupled import DecoupledLatency
from latlut.search.penalty.weights import PAPER_WEIGHTS
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.supernet import Supernet, outputs_of
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.fasterseg import fasterseg_space
from latlut.spaces.shapes import FULL_WIDTH
from latlut.table.space import TableSpace, space_of
from latlut.table.table import LatencyTable

#: Random networks whose mean latency is the target where none was asked for.
DEFAULT_TARGET_NETWORKS = 100


@dataclass(frozen=True)
class Reach:
    """The latencies between which a target can be hit, milliseconds."""

    fastest_ms: float
    slowest_ms: float


class SearchProblem:
    """Space, latency and target of a search.

    Args:
        table: prices networks; open while the problem is used.
        space_settings: what is searched of the table's space.
        settings: weights, target, gains.

    Attributes:
        space: the searched space. latency: the student's penalty. target_ms, tolerance.
        branch_sets: the sets of branches that can be derived: those that have a head.
        student_end, teacher_end: widths of stem and head, twelfths.
        teacher_space: the same with all channels, whether the table has them or not: a teacher is
            as wide as can be, since no latency binds it.

    Raises:
        SpecError: settings that do not fit the table's space, or a target out of reach; the
            message has the range.
        MissingEntryError: the table lacks entries of the space; lists them.
        TableError: the table was not made from a search space.
    """

    def __init__(
        self, table: LatencyTable, space_settings: SpaceSettings, settings: LatencySettings
    ) -> None:
        found = _space(table, settings.input_size)
        self.table, self.input_size, self.batch = table, found.input_size, found.batch
        self.settings, self.tolerance = settings, settings.tolerance
        chosen = {
            name: value
            for name in ("branches", "layers")
            if (value := getattr(space_settings, name)) is not None
        }
        self.space: FasterSegSpace = replace(fasterseg_space(found.space), **chosen)
        self.student_widths = tuple(sorted(space_settings.widths or self.space.widths))
        for width in self.student_widths:
            if width not in self.space.widths:
                raise SpecError(
                    f"the table {table.title} is of widths {self.space.widths}, width {width} was "
                    "asked for"
                )
        self.student_end = min(self.space.stem_head_widths)
        self.teacher_end = FULL_WIDTH
        self.teacher_space = replace(
            self.space,
            widths=tuple({*self.space.widths, FULL_WIDTH}),
            stem_head_widths=tuple({*self.space.stem_head_widths, FULL_WIDTH}),
        )
        self.outputs = outputs_of(self.space)
        self.branch_sets = tuple(o for o in self.outputs if len(o) == self.space.branches)
        self.latency = DecoupledLatency(
            self.space,
            table,
            PAPER_WEIGHTS if settings.weights == "gradient" else settings.weights,
            end_width=self.student_end,
            widths=self.student_widths,
            input_size=self.input_size,
            skip_price=settings.skip_price,
            sampling=settings.sampling,
            batch=self.batch,
            leave_out_fixed=not found.is_swept,
        )
        self.skip_column = (
            self.space.operators.index("skip") if "skip" in self.space.operators else None
        )
        self.reach = Reach(*reachable_ms(self.student(0), self.price, self.branch_sets))
        self.unreachable_ms: tuple[float, ...] = ()
        self.target_ms = self._target_ms()
        self.targets_ms = self._targets_ms()

    @property
    def unpriced(self) -> tuple[OpSpec, ...]:
        """What every network executes and an imported table cannot price: no latency has it."""
        return self.latency.prices.unpriced

    def _target_ms(self) -> float:
        reach, wanted = self.reach, self.settings.target_ms
        front = self._front_ms()
        if wanted is None and front:
            return front[len(front) // 2]
        if wanted is None:
            students = replace(
                self.space, widths=self.student_widths, stem_head_widths=(self.student_end,)
            )
            networks = students.sample_many(DEFAULT_TARGET_NETWORKS, 0)
            mean = sum(self.price(network) for network in networks) / len(networks)
            return min(reach.slowest_ms, max(reach.fastest_ms, mean))
        if self._is_reachable(wanted):
            return wanted
        if wanted < reach.fastest_ms:
            word = "faster than any"
        else:
            word = "slower than any"
        raise SpecError(
            f"the target {wanted:.4g} ms is {word} network of this space by {self.table.title}: "
            f"{reach.fastest_ms:.4g} to {reach.slowest_ms:.4g} ms can be reached"
        )

    def _targets_ms(self) -> tuple[float, ...]:
        """The front's targets, the search's own among them."""
        return tuple(sorted({self.target_ms, *self._front_ms()}))

    def _front_ms(self) -> list[float]:
        """The targets of the front that can be reached; keeps those that cannot.

        Raises:
            SpecError: both a list and a number of targets, or none that can be reached.
        """
        wanted, number = self.settings.targets_ms, self.settings.front
        if wanted and number:
            raise SpecError(
                "a front is of targets that are listed, or of a number of them: not both"
            )
        if number:
            low, high = self.reach.fastest_ms * 1.1, self.reach.slowest_ms / 1.1
            steps = range(number)
            wanted = tuple(low * (high / low) ** ((s + 0.5) / number) for s in steps)
        self.unreachable_ms = tuple(ms for ms in wanted if not self._is_reachable(ms))
        found = sorted(set(wanted) - set(self.unreachable_ms))
        if wanted and not found:
            raise SpecError(
                f"none of the targets {', '.join(f'{ms:.4g}' for ms in wanted)} ms can be reached "
                f"by {self.table.title}: {self.reach.fastest_ms:.4g} to "
                f"{self.reach.slowest_ms:.4g} ms can"
            )
        return found

    def _is_reachable(self, ms: float) -> bool:
        low, high = self.reach.fastest_ms, self.reach.slowest_ms
        return low * (1 - self.tolerance) <= ms <= high * (1 + self.tolerance)

    def is_allowed(self, network: Architecture) -> bool:
        """Whether a student keeps to the bounds of parameters and multiply-accumulates."""
        most = (self.settings.most_parameters, self.settings.most_macs)
        if most == (None, None):
            return True
        cost = cost_of_architecture(network, self.input_size)
        counts = (cost.parameters, cost.macs)
        return all(
            bound is None or (count is not None and count <= bound)
            for count, bound in zip(counts, most, strict=True)
        )

    def price(self, network: Architecture) -> float:
        """A student's latency by the table, milliseconds: its ``latlut.estimate``."""
        return self.latency.prices.network_ms(network)

    def teacher_ms(self, network: Architecture) -> float | None:
        """A teacher's latency by the table, milliseconds; None where it cannot price the cells."""
        specs = network.op_specs(self.input_size, self.batch)
        found = estimate(specs, self.table, allow_missing=True)
        return found.ms if set(found.unpriced) <= set(self.unpriced) else None

    def student(self, seed: int) -> RelaxedArchitecture:
        """A fresh student: widths of the space, or those asked for."""
        return RelaxedArchitecture(self.space, self.student_widths, self.student_end, seed)

    def teacher(self, seed: int) -> RelaxedArchitecture:
        """A fresh teacher: cells, stem and head of full width."""
        return RelaxedArchitecture(self.teacher_space, (FULL_WIDTH,), self.teacher_end, seed)

    def supernet(self, classes: int, seed: int) -> Supernet:
        """A fresh supernet with heads of ``classes`` classes, for teacher and student."""
        ends = tuple(dict.fromkeys((self.teacher_end, self.student_end)))
        return Supernet(replace(self.teacher_space, num_classes=classes), ends, seed)

    def controller(self) -> LambdaController:
        """The controller of lambda at its start."""
        gains = self.settings.proportional, self.settings.integral
        return LambdaController(self.settings.strength / self.target_ms, self.target_ms, *gains)


def _space(table: LatencyTable, input_size: tuple[int, int] | None) -> TableSpace:
    """The space to search: the table's; where it says none FasterSeg's, at ``input_size``."""
    try:
        found = space_of(table)
    except TableError as error:
        if input_size is None:
            raise TableError(
                f"{error}\nan imported table of FasterSeg's own space is searched at the size that "
                "--input names: --input 1024x2048"
            ) from error
        return TableSpace(FasterSegSpace(), input_size, 1, is_swept=False)
    return found if input_size is None else replace(found, input_size=input_size)
