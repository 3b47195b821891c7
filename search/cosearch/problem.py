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
from latlut.search.penalty.decoupled import DecoupledLatency
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.supernet import Supernet, outputs_of
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.fasterseg import fasterseg_space
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
                    f"the table {table.path} is of widths {self.space.widths}, width {width} was "
                    "asked for"
                )
        self.student_end = min(self.space.stem_head_widths)
        self.teacher_end = max(self.space.stem_head_widths)
        self.outputs = outputs_of(self.space)
        self.branch_sets = tuple(o for o in self.outputs if len(o) == self.space.branches)
        self.latency = DecoupledLatency(
            self.space,
            table,
            settings.weights,
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
        self.target_ms = self._target_ms()

    @property
    def unpriced(self) -> tuple[OpSpec, ...]:
        """What every network executes and an imported table cannot price: no latency has it."""
        return self.latency.prices.unpriced

    def _target_ms(self) -> float:
        reach, wanted = self.reach, self.settings.target_ms
        if wanted is None:
            students = replace(
                self.space, widths=self.student_widths, stem_head_widths=(self.student_end,)
            )
            networks = students.sample_many(DEFAULT_TARGET_NETWORKS, 0)
            mean = sum(self.price(network) for network in networks) / len(networks)
            return min(reach.slowest_ms, max(reach.fastest_ms, mean))
        if not reach.fastest_ms * (1 - self.tolerance) <= wanted:
            word = "faster than any"
        elif not wanted <= reach.slowest_ms * (1 + self.tolerance):
            word = "slower than any"
        else:
            return wanted
        raise SpecError(
            f"the target {wanted:.4g} ms is {word} network of this space by {self.table.path}: "
            f"{reach.fastest_ms:.4g} to {reach.slowest_ms:.4g} ms can be reached"
        )

    def price(self, network: Architecture) -> float:
        """A student's latency by the table, milliseconds: its ``latlut.estimate``."""
        return self.latency.prices.network_ms(network)

    def teacher_ms(self, network: Architecture) -> float:
        """A teacher's latency by the table, milliseconds; of what the table can price."""
        return estimate(network.op_specs(self.input_size, self.batch), self.table).ms

    def student(self, seed: int) -> RelaxedArchitecture:
        """A fresh student: widths of the space, or those asked for."""
        return RelaxedArchitecture(self.space, self.student_widths, self.student_end, seed)

    def teacher(self, seed: int) -> RelaxedArchitecture:
        """A fresh teacher: as wide as the space goes."""
        return RelaxedArchitecture(self.space, (max(self.space.widths),), self.teacher_end, seed)

    def supernet(self, classes: int, seed: int) -> Supernet:
        """A fresh supernet with heads of ``classes`` classes, for teacher and student."""
        ends = tuple(dict.fromkeys((self.teacher_end, self.student_end)))
        return Supernet(replace(self.space, num_classes=classes), ends, seed)

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
