"""The per-layer view: real engines on a small network, and how layers are traced to operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from latlut.cli import main
from latlut.engines import engine_class
from latlut.engines.base import LayerTime
from latlut.errors import EngineError
from latlut.measure.layers import LayerView, group_layers, layer_view, place_of, places_in_graph
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import IMAGE, Node, OpSpec
from latlut.spaces import Architecture, FasterSegSpace
from latlut.table.table import LatencyTable

SIZE = (64, 96)


@pytest.fixture(scope="module")
def network() -> Architecture:
    """Both branches, zoomed convolutions, a refinement: every kind of layer in few operators."""
    space = FasterSegSpace(layers=5, widths=(4, 8), stem_head_widths=(4,))
    seeds = (space.sample(seed) for seed in range(100))
    return next(
        found
        for found in seeds
        if len(found.branches) == 2
        and {"zoomed_conv", "conv_2x"} <= {c.operator for b in found.branches for c in b.cells}
    )


def real_view(name: str, network: Architecture, path: Path) -> LayerView:
    found = engine_class(name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    engine = engine_class(name)()
    nodes = network.nodes(SIZE)
    plan = plan_from_ops([node.spec.key for node in nodes])
    fake = FakeEngine()  # entries of a known size; the layers are the real engine's
    with LatencyTable.create(path, identity_of(fake, "cpu", statistic="p10")) as table:
        Sweep(table, plan, fake, SweepSettings()).run()
        return layer_view(engine, nodes, table, runs=3)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "pytorch"])
def view(
    request: pytest.FixtureRequest, network: Architecture, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LayerView]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("layers")
        patch.setenv("LATLUT_CACHE", str(folder))
        yield real_view(request.param, network, folder / "table.db")


def test_every_node_is_in_one_group_in_order(view: LayerView, network: Architecture) -> None:
    names = [node.name for group in view.groups for node in group.nodes]
    expected = [node.name for node in network.nodes(SIZE)]
    assert sorted(names) == sorted(expected)
    firsts = [expected.index(group.nodes[0].name) for group in view.groups]
    assert firsts == sorted(firsts)


def test_every_operator_with_work_has_layers_that_took_time(view: LayerView) -> None:
    for group in view.groups:
        assert group.layers, group.nodes
        assert group.layers_ms > 0, group.nodes


def test_convolutions_of_a_node_are_found_in_its_own_layers(view: LayerView) -> None:
    per_kind = {"conv": 1, "conv_2x": 2, "zoomed_conv": 1, "zoomed_conv_2x": 2, "refine": 2,
                "fusion": 1, "head": 2, "upsample": 0}  # fmt: skip
    for group in view.groups:
        found = sum("conv" in layer.kind.lower() for layer in group.layers)
        assert found == sum(per_kind[node.spec.kind] for node in group.nodes), group.nodes


def test_what_belongs_to_no_operator_is_a_change_of_layout(view: LayerView) -> None:
    assert all("reorder" in layer.kind.lower() for layer in view.added)


def test_sums_add_up(view: LayerView) -> None:
    assert view.layers_ms == pytest.approx(
        sum(group.layers_ms for group in view.groups) + view.added_ms
    )
    shares = sum(view.share(group.layers_ms) for group in view.groups)
    assert shares + view.share(view.added_ms) == pytest.approx(1)
    entries = sum(group.estimated_ms or 0 for group in view.groups)
    assert entries == pytest.approx(view.estimate.ms)
    assert view.whole_ms.value > 0
    assert view.cpu_share is not None
    assert 0 < view.cpu_share <= 1


def test_differences_come_furthest_first(view: LayerView) -> None:
    found = [abs(group.difference_ms or 0) for group in view.differences(100)]
    assert found == sorted(found, reverse=True)
    assert len(found) == len(view.groups)


def test_onnxruntime_covers_every_node_of_the_graph_that_computes(network: Architecture) -> None:
    workload = Workload.from_nodes(network.nodes(SIZE), "a network")
    graph = GraphCache(is_enabled=False).onnx_bytes(workload)
    with engine_class("onnxruntime")().load(workload, graph=graph) as session:
        layers = session.layers(1)
    covered = [source for layer in layers for source in layer.source_nodes]
    assert len(covered) == len(set(covered))  # nothing is computed twice
    wanted = {"Conv", "Relu", "Resize", "Concat"}
    nodes = onnx.load_from_string(graph).graph.node
    # the exporter joins shapes, too: those are constants, and no layer
    shapes = {node.name for node in nodes if node.op_type == "Concat" and not _joins_maps(node)}
    computing = {node.name for node in nodes if node.op_type in wanted} - shapes
    assert computing == set(covered)


def _joins_maps(node: onnx.NodeProto) -> bool:
    return not any("Slice" in name or "Constant" in name for name in node.input)


def test_an_identity_and_a_skip_are_accounted_for(tmp_path: Path) -> None:
    conv = OpSpec("conv", (4, 16, 16), 4)
    nodes = (
        Node("a", conv, (IMAGE,)),
        Node("b", OpSpec("skip", (4, 16, 16), 4, form="identity"), ("a",)),
        Node("c", OpSpec("skip", (4, 16, 16), 8, stride=2), ("b",)),
    )
    for name in ("onnxruntime", "pytorch"):
        with LatencyTable.create(
            tmp_path / f"{name}.db", identity_of(FakeEngine(), "cpu", statistic="p10")
        ) as table:
            found = layer_view(engine_class(name)(), nodes, table, runs=1)
        assert [node.name for group in found.groups for node in group.nodes] == ["a", "b", "c"]
        assert not found.groups[1].layers
        assert all(group.estimated_ms is None for group in found.groups)
        assert not found.differences()


def test_an_engine_without_the_view_says_so(network: Architecture, measured: Path) -> None:
    with (
        LatencyTable.open(measured) as table,
        pytest.raises(EngineError, match="Fake engine has no per-layer view"),
    ):
        layer_view(FakeEngine(), network.nodes(SIZE), table)


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("/operators.3/conv/Conv", 3),
        ("/operators.13/operators.13.1/Relu", 13),
        ("operators.3.conv", 3),
        ("operators.3", 3),
        ("/operators.3/Relu_output_0_nchwc", 3),
        ("/operatorsx.3/conv", None),
        ("/stem/operators.3/conv", None),
        ("out", 7),
        ("reorder", None),
    ],
)
def test_places_are_read_from_names(source: str, place: int | None) -> None:
    assert place_of(source, {"out": 7}) == place


def test_places_come_from_the_graph_where_names_do_not_say(network: Architecture) -> None:
    nodes = network.nodes(SIZE)
    graph = GraphCache(is_enabled=False).onnx_bytes(Workload.from_nodes(nodes, "a network"))
    places = places_in_graph(graph)
    assert places["out"] == len(nodes) - 1
    assert all(0 <= place < len(nodes) for place in places.values())


@given(st.data())
def test_groups_partition_operators_and_layers(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    covers = data.draw(st.lists(st.sets(st.integers(0, count - 1), max_size=3), max_size=12))
    layers = [
        LayerTime(str(number), "", 1.0, tuple(f"/operators.{index}/Conv" for index in cover))
        for number, cover in enumerate(covers)
    ]
    groups, added = group_layers(count, layers, partial(place_of, places={}))
    assert sorted(index for members, _ in groups for index in members) == list(range(count))
    assert [members[0] for members, _ in groups] == sorted(members[0] for members, _ in groups)
    held = [layer.name for _, own in groups for layer in own]
    assert sorted([*held, *(layer.name for layer in added)]) == sorted(la.name for la in layers)
    assert {layer.name for layer in added} == {
        str(n) for n, cover in enumerate(covers) if not cover
    }
    for (
        cover
    ) in covers:  # what a layer joins is in one group, and groups are no larger than need be
        assert any(cover <= set(members) for members, _ in groups)
    for members, own in groups:
        reached, before = {members[0]}, set()
        while reached != before:
            before = set(reached)
            for layer in own:
                cover = covers[int(layer.name)]
                if cover & reached:
                    reached |= cover
        assert reached == set(members)


class TestCommand:
    """``latlut estimate --layers``."""

    def test_it_measures_with_the_table_s_own_engine(
        self, network: Architecture, tmp_path: Path
    ) -> None:
        path, file = tmp_path / "ort.db", tmp_path / "network.json"
        network.save(file)
        engine = engine_class("onnxruntime")()
        plan = plan_from_ops([node.spec.key for node in network.nodes(SIZE)][:2])
        with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
            Sweep(table, plan, FakeEngine(), SweepSettings()).run()
            with table.writing() as db:
                db.execute("UPDATE entries SET predicted_from = 20")
        words = [
            "estimate",
            "--table",
            str(path),
            "--arch",
            str(file),
            "--input",
            "64x96",
            "--partial",
        ]
        shown = CliRunner().invoke(main, [*words, "--layers"])
        assert shown.exit_code == 0, shown.output
        assert "100% of it predicted, not measured" in shown.stdout
        for text in ("sum of entries", "sum of layers", "whole network", "stem.0", "upsample"):
            assert text in shown.stdout
        answer = CliRunner().invoke(main, [*words, "--layers", "--json"])
        assert answer.exit_code == 0, answer.output
        layers = json.loads(answer.stdout)["layers"]
        names = [node["name"] for group in layers["groups"] for node in group["nodes"]]
        assert sorted(names) == sorted(node.name for node in network.nodes(SIZE))
        assert layers["whole_ms"] > 0
        assert layers["predicted_share"] == 1 and not layers["is_complete"]

    def test_hardware_or_an_engine_that_is_not_here_is_refused(
        self, network: Architecture, measured: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "network.json"
        network.save(file)
        spec = network.nodes(SIZE)[0].spec
        with LatencyTable.open(measured, is_writable=True) as table:
            Sweep(table, plan_from_ops([spec.key]), FakeEngine(), SweepSettings()).run()
        words = [
            "estimate",
            "--table",
            str(measured),
            "--arch",
            str(file),
            "--input",
            "64x96",
            "--partial",
        ]
        assert CliRunner().invoke(main, words).exit_code == 0
        refused = CliRunner().invoke(main, [*words, "--layers"])
        assert refused.exit_code != 0
        assert "unknown engine 'fake'" in refused.output

    def test_op_specs_alone_are_no_network(self, measured: Path) -> None:
        words = ["estimate", "--table", str(measured), "--op", "conv 8->8 at 16x16", "--layers"]
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code != 0
        assert "--arch" in refused.output
