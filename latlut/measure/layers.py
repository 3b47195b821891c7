"""Where a network's sum of entries and its measured whole part ways: the engine's own layers.

An engine does not run the operators that a table prices one after another. It fuses graph nodes
into layers, converts memory layouts between them, and may run what one operator asks for inside
another's layer. Here the layers that the engine's profiler times are traced back to the nodes of
the network, and stand beside the entries that price those nodes.

A layer's source is a node of the ONNX graph, or a submodule, whose name starts with its place in
``operators.Network``: ``/operators.3/conv/Conv``. Where a name does not say it (the last
tensor is called ``out``), the graph does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from latlut.engines.base import Engine, LayerTime
from latlut.measure.cpu_share import watching_cpu
from latlut.measure.opening import Opening
from latlut.measure.timing import TimingSettings, measure
from latlut.operators.graph_cache import GraphCache
from latlut.operators.onnx_cutting import CutFile
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.onnx_graph import named_model, open_graph
from latlut.operators.workloads import Workload
from latlut.opspec import Node
from latlut.pricing.estimator import Estimate, estimate
from latlut.stats.quantiles import Interval, statistic_interval
from latlut.table.table import LatencyTable

_PLACE = re.compile(r"/?operators\.(\d+)(?=[./]|$)")


@dataclass(frozen=True)
class LayerGroup:
    """Nodes that the engine does not keep apart, with the layers that compute them.

    Usually one node with its layers. Several nodes are a group where a layer computes parts of
    more than one of them; such a layer's time cannot be divided. A node without layers is
    computed by none: an identity.
    """

    nodes: tuple[Node, ...]
    """In order of execution."""
    layers: tuple[LayerTime, ...]
    """In the order in which the engine runs them."""
    estimated_ms: float | None
    """Sum of the nodes' entries, milliseconds; None where the table prices not all."""

    @property
    def layers_ms(self) -> float:
        """Time of its layers, milliseconds."""
        return sum(layer.time_ms for layer in self.layers)

    @property
    def difference_ms(self) -> float | None:
        """Milliseconds by which the layers take longer than the entries; None without entries."""
        return None if self.estimated_ms is None else self.layers_ms - self.estimated_ms


@dataclass(frozen=True)
class LayerView:
    """A network as its engine runs it, beside its estimate. Milliseconds."""

    groups: tuple[LayerGroup, ...]
    """Every node of the network in exactly one, in order of execution."""
    added: tuple[LayerTime, ...]
    """Layers that belong to no node, such as conversions of memory layouts."""
    whole_ms: Interval
    """The measured network, without profiling, with its interval."""
    estimate: Estimate
    """The sum of the entries."""
    runs: int
    """Profiled runs."""
    cpu_share: float | None = None
    """Part of the time that the process was on a CPU while the whole was measured, 1 for all of it;
    None on a GPU. Below 1 another process has the same CPU: a run of a whole network is interrupted
    then, where most runs of one layer are not."""

    @property
    def added_ms(self) -> float:
        """Time of the layers that belong to no node."""
        return sum(layer.time_ms for layer in self.added)

    @property
    def layers_ms(self) -> float:
        """Time of all layers; above ``whole_ms`` where profiling slows the engine down."""
        return self.added_ms + sum(group.layers_ms for group in self.groups)

    def share(self, time_ms: float) -> float:
        """``time_ms`` as a fraction of all layers' time, 0 where they took none."""
        return time_ms / self.layers_ms if self.layers_ms else 0.0

    def fused(self) -> tuple[LayerGroup, ...]:
        """Groups of several nodes: what the engine fused across operators."""
        return tuple(group for group in self.groups if len(group.nodes) > 1)

    def differences(self, count: int = 5) -> tuple[LayerGroup, ...]:
        """The groups whose layers and entries are furthest apart, furthest first."""
        priced = [group for group in self.groups if group.difference_ms is not None]
        return tuple(sorted(priced, key=lambda group: -abs(group.difference_ms or 0.0))[:count])


def layer_view(
    engine: Engine, nodes: Sequence[Node], table: LatencyTable, runs: int = 20
) -> LayerView:
    """Measure a network whole and layer by layer, and set it beside its estimate.

    Args:
        engine: as the table was measured; the caller holds its device (``measuring_on``).
        nodes: the network's graph.
        table: prices the nodes; what it lacks is left without a price.
        runs: profiled runs.

    Raises:
        EngineError: the engine rejects the network, or has no per-layer view.
        ParityError: its output differs from PyTorch's.
    """
    workload = Workload.from_nodes(nodes, f"a network of {len(nodes)} operators")
    opening = Opening(engine, workload, GraphCache())
    measured = _measured(opening, table.identity.statistic, runs)
    places = {} if opening.graph is None else places_in_graph(opening.graph)
    return _view(measured, nodes, table, partial(place_of, places=places))


def file_view(
    engine: Engine, workload: OnnxWorkload, file: CutFile, table: LatencyTable, runs: int = 20
) -> LayerView:
    """The same of an ONNX file, whose pieces are the view's nodes.

    Args:
        engine: as the table was measured; the caller holds its device.
        workload: the file.
        file: as it was cut for the table.
        table: prices the pieces; what it lacks is left without a price.
        runs: profiled runs.

    Raises:
        EngineError, ParityError: as of ``layer_view``.
    """
    measured = measure_file(engine, workload, table.identity.statistic, runs)
    nodes = [Node(piece.label, piece.spec, ()) for piece in file.pieces]
    place = {name: index for index, piece in enumerate(file.pieces) for name in piece.nodes}
    for node in open_graph(workload).nodes:
        if node.name in place:
            place.update(dict.fromkeys(node.output, place[node.name]))
    return _view(measured, nodes, table, place.get)


@dataclass(frozen=True)
class MeasuredLayers:
    """A workload as its engine runs it."""

    layers: tuple[LayerTime, ...]
    """As the engine's profiler times them."""
    whole_ms: Interval
    """The whole without profiling, milliseconds."""
    runs: int
    """Profiled runs."""
    cpu_share: float | None
    """See ``LayerView``."""


def measure_file(
    engine: Engine, workload: OnnxWorkload, statistic: str, runs: int = 20
) -> MeasuredLayers:
    """The layers of an ONNX file; errors as of ``layer_view``."""
    opening = Opening(engine, workload, GraphCache())
    opening.graph = named_model(workload).SerializeToString()
    return _measured(opening, statistic, runs)


def _measured(opening: Opening, statistic: str, runs: int) -> MeasuredLayers:
    engine = opening.engine
    timing = TimingSettings(
        statistic=statistic,
        max_samples=400,
        min_time_s=0.25,
        time_cap_s=0.5,
        warmup_cap_s=0.5,
    )
    with opening.open() as session:
        # Before and after the layers: a machine that is faster by then has been so for both.
        with watching_cpu(engine) as first:
            before = measure(session.sample_ns, timing, engine.resolution)
        layers = session.layers(runs)
        with watching_cpu(engine) as second:
            after = measure(session.sample_ns, timing, engine.resolution)
    samples_ns = np.concatenate([before.samples_ns, after.samples_ns])
    share = min((part.value for part in (first, second) if part.value is not None), default=None)
    whole_ms = statistic_interval(samples_ns / 1e6, timing.statistic)
    return MeasuredLayers(layers, whole_ms, runs, share)


def _view(
    measured: MeasuredLayers,
    nodes: Sequence[Node],
    table: LatencyTable,
    place: Callable[[str], int | None],
) -> LayerView:
    """The layers beside the entries of the nodes; ``place`` gives the node of a layer's source."""
    specs = [node.spec for node in nodes]
    priced = estimate(specs, table, is_calibrated=False, allow_missing=True)
    prices = {term.spec: term.latency_ms for term in priced.terms}
    groups, added = group_layers(len(nodes), measured.layers, place)
    return LayerView(
        tuple(
            LayerGroup(
                tuple(nodes[index] for index in members),
                own,
                _sum_or_none([prices.get(nodes[index].spec) for index in members]),
            )
            for members, own in groups
        ),
        added,
        measured.whole_ms,
        priced,
        measured.runs,
        measured.cpu_share,
    )


def group_layers(
    count: int, layers: Sequence[LayerTime], place: Callable[[str], int | None]
) -> tuple[list[tuple[list[int], tuple[LayerTime, ...]]], tuple[LayerTime, ...]]:
    """Divide a network's operators into groups that share no layer.

    Args:
        count: operators of the network, K.
        layers: what the engine ran.
        place: gives the operator of a layer's source, None where that is not known.

    Returns:
        Per group its operators, numbers from 0 to K - 1 ascending, and its layers; every operator
        is in one group. And the layers of no operator.
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    added: list[LayerTime] = []
    owners: list[tuple[LayerTime, int]] = []
    for layer in layers:
        members = {place(source) for source in layer.source_nodes}
        known = sorted(index for index in members if index is not None and index < count)
        if not known:
            added.append(layer)
            continue
        owners.append((layer, known[0]))
        for other in known[1:]:
            low, high = sorted((root(known[0]), root(other)))
            parent[high] = low
    own: dict[int, list[LayerTime]] = {}
    for layer, index in owners:
        own.setdefault(root(index), []).append(layer)
    members_of: dict[int, list[int]] = {}
    for index in range(count):
        members_of.setdefault(root(index), []).append(index)
    groups = [(members, tuple(own.get(first, ()))) for first, members in members_of.items()]
    return groups, tuple(added)


def place_of(source: str, places: Mapping[str, int]) -> int | None:
    """Number of the operator that a source belongs to, None where that cannot be told."""
    match = _PLACE.match(source)
    return int(match[1]) if match else places.get(source)


def places_in_graph(graph: bytes) -> dict[str, int]:
    """Node and tensor names of an exported network that do not say their operator -> its number.

    A tensor belongs to the operator of the node that makes it; a node that says nothing to that
    of the nodes that take its output, where they agree.
    """
    import onnx

    places: dict[str, int] = {}
    takers: dict[str, set[int]] = {}
    for node in reversed(onnx.load_from_string(graph).graph.node):
        match = _PLACE.match(node.name)
        if match:
            place = int(match[1])
        else:
            users = {user for name in node.output for user in takers.get(name, ())}
            if len(users) != 1:
                continue
            place = users.pop()
            places[node.name] = place
        for name in node.input:
            takers.setdefault(name, set()).add(place)
        places.update({name: place for name in node.output if not _PLACE.match(name)})
    return places


def _sum_or_none(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(v for v in values if v)
