"""Composition effects: exact sums, names that the layers bear out, and real engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from latlut.cli.residuals import composition_as_json, print_composition
from latlut.engines import engine_class
from latlut.engines.base import LayerTime
from latlut.errors import EngineError
from latlut.measure.alone import Alone, is_conversion, profile_alone
from latlut.measure.layers import LayerGroup, LayerView, layer_view
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.opspec import IMAGE, Node, OpSpec
from latlut.pricing.estimator import Estimate, Term
from latlut.spaces import FasterSegSpace
from latlut.stats.quantiles import Interval
from latlut.table.table import LatencyTable
from latlut.validation.composition import (
    ALLOCATION,
    CACHE,
    CALLS,
    CONVERSION,
    COUNTED_CONVERSION,
    ENDS,
    FUSION,
    INTERRUPTIONS,
    KERNEL,
    OTHER_ADDED,
    PROFILING,
    SPEED,
    UNPRICED,
    CompositionEffect,
    composition_effects,
)
from latlut.validation.explain import Explained

#: An operator of the invented network: name, its entry in ms, its layers (kind, ms, detail).
Part = tuple[str, float | None, Sequence[tuple[str, float, str]]]


def spec_of(name: str) -> OpSpec:
    return OpSpec("conv", (4, 8, 8), 4 + sum(map(ord, name)))


def layers_of(place: int, layers: Sequence[tuple[str, float, str]]) -> tuple[LayerTime, ...]:
    return tuple(
        LayerTime(f"{kind} {place}.{i}", kind, ms, (f"/operators.{place}/{i}",), detail)
        for i, (kind, ms, detail) in enumerate(layers)
    )


def view_of(
    parts: Sequence[Part | tuple[Part, ...]],
    whole_ms: float,
    added: Sequence[tuple[str, float]] = (),
    cpu_share: float | None = None,
) -> LayerView:
    """A view of a chain; a tuple of parts is one group, whose layers are those of its first."""
    groups, terms = [], []
    for place, item in enumerate(parts):
        members = (item,) if isinstance(item[0], str) else item
        nodes = tuple(Node(name, spec_of(name), (IMAGE,)) for name, _, _ in members)  # type: ignore[misc]
        prices = [price for _, price, _ in members]  # type: ignore[misc]
        terms += [
            Term(node.spec, 1, price, (node.spec.key,))
            for node, price in zip(nodes, prices, strict=True)
            if price is not None
        ]
        known = None if None in prices else sum(prices)
        groups.append(LayerGroup(nodes, layers_of(place, members[0][2]), known))  # type: ignore[arg-type]
    plain = sum(term.total_ms for term in terms)
    return LayerView(
        tuple(groups),
        tuple(LayerTime(f"{kind}_{i}", kind, ms) for i, (kind, ms) in enumerate(added)),
        Interval(whole_ms, whole_ms, whole_ms),
        Estimate(plain, None, None, tuple(terms), (), plain, None),
        10,
        cpu_share,
    )


def amounts(effects: Sequence[CompositionEffect]) -> dict[str, float]:
    assert len({effect.name for effect in effects}) == len(effects)
    return {effect.name: effect.ms for effect in effects}


def evidence(effects: Sequence[CompositionEffect], name: str) -> str:
    (found,) = [effect for effect in effects if effect.name == name]
    return found.evidence


def add_up(view: LayerView, effects: Sequence[CompositionEffect]) -> bool:
    difference = view.whole_ms.value - view.estimate.plain_ms
    return sum(effect.ms for effect in effects) == pytest.approx(difference, abs=1e-9)


CONV = "Conv"


def test_entries_alone_say_where_the_difference_lies() -> None:
    view = view_of(
        [
            ("a", 1.0, [(CONV, 1.4, "")]),
            ("b", 2.0, [(CONV, 1.7, "")]),
            (("c", 0.5, [(CONV, 0.6, "")]), ("d", 0.4, [])),
            ("e", 0.1, []),
        ],
        whole_ms=5.0,
        added=[("ReorderInput", 0.3), ("Softmax", 0.2)],
    )
    effects = composition_effects(view)
    assert amounts(effects) == pytest.approx(
        {
            CACHE: 0.4,
            ENDS: -0.3,
            FUSION: 0.6 - 0.9 - 0.1,
            CONVERSION: 0.3,
            OTHER_ADDED: 0.2,
            ALLOCATION: 5.0 - (1.4 + 1.7 + 0.6 + 0.5),
        }
    )
    assert add_up(view, effects)
    sizes = [abs(effect.ms) for effect in effects]
    assert sizes == sorted(sizes, reverse=True)
    assert f"a ({spec_of('a')}): layer 1.4 ms, entry 1 ms" in evidence(effects, CACHE)
    assert "c (" in evidence(effects, FUSION)
    assert "no layer, entry 0.1 ms" in evidence(effects, FUSION)
    assert "ReorderInput_0: 0.3 ms" in evidence(effects, CONVERSION)
    assert "whole 5 ms: +0.8 ms beside its 5 layers" in evidence(effects, ALLOCATION)


def test_an_entry_in_context_holds_no_ends() -> None:
    view = view_of([("a", 1.0, [(CONV, 1.5, "")]), ("b", 2.0, [(CONV, 1.75, "")])], 3.25)
    assert amounts(composition_effects(view, mode="in-context")) == {CACHE: 0.25}


def test_time_of_no_layer_is_named_by_what_it_is() -> None:
    parts: list[Part] = [("a", 1.0, [(CONV, 1.0, "")])]
    assert amounts(composition_effects(view_of(parts, 1.5))) == {ALLOCATION: 0.5}
    assert amounts(composition_effects(view_of(parts, 0.75))) == {PROFILING: -0.25}
    busy = view_of(parts, 1.5, cpu_share=0.5)
    assert amounts(composition_effects(busy)) == {INTERRUPTIONS: 0.5}
    assert "on a CPU for 50% of the time" in evidence(composition_effects(busy), INTERRUPTIONS)
    assert composition_effects(view_of(parts, 1.0)) == ()


def test_operators_alone_take_their_entries_apart() -> None:
    view = view_of(
        [("a", 1.0, [(CONV, 0.9, "blocked")]), ("b", 2.0, [(CONV, 1.7, "blocked")])],
        whole_ms=2.9,
        added=[("Reorder", 0.1)],
    )
    alone = {
        spec_of("a"): Alone(
            (
                LayerTime("in", "Reorder", 0.2),
                LayerTime("conv", CONV, 0.6, ("/conv/Conv",), "blocked"),
                LayerTime("out", "Reorder", 0.1),
            ),
            whole_ms=1.1,
        ),
        # what cannot be traced back is the operator's, unless it converts
        spec_of("b"): Alone((LayerTime("conv", CONV, 1.8, (), "blocked"),), whole_ms=2.0),
    }
    effects = composition_effects(view, alone)
    assert amounts(effects) == pytest.approx(
        {
            CONVERSION: 0.1,
            COUNTED_CONVERSION: -0.3,
            CACHE: 0.3 - 0.1,
            SPEED: 0.1,
            # outside its layers the network takes 0.2, the operators alone 0.2 + 0.2
            CALLS: 0.2 - 0.4,
        }
    )
    assert add_up(view, effects)
    assert evidence(effects, CACHE).startswith("a (")  # the sum is positive: its causes come first
    assert "layer 0.9 ms, alone 0.6 ms" in evidence(effects, CACHE)
    assert "alone 1.1 ms now, entry 1 ms" in evidence(effects, SPEED)
    assert "+0.4 ms in 2 operators alone" in evidence(effects, CALLS)


def test_other_layers_than_alone_are_another_kernel_or_fusion() -> None:
    view = view_of(
        [
            ("a", 1.0, [("Upsample", 0.4, "blocked")]),
            ("b", 1.0, [(CONV, 0.8, "")]),
            ("c", 1.0, [(CONV, 0.9, "")]),
        ],
        whole_ms=2.1,
    )
    alone = {
        spec_of("a"): Alone((LayerTime("resize", "Resize", 1.0, ("/Resize",)),), 1.0),
        spec_of("b"): Alone(
            (LayerTime("conv", CONV, 0.7, ("/Conv",)), LayerTime("r", "Relu", 0.3, ("/Relu",))), 1.0
        ),
        spec_of("c"): Alone((LayerTime("conv", CONV, 1.0, ("/Conv",)),), 1.0),
    }
    effects = composition_effects(view, alone)
    assert amounts(effects) == pytest.approx({KERNEL: -0.6, FUSION: -0.2, CACHE: -0.1})
    assert evidence(effects, KERNEL).endswith("Upsample (blocked) instead of Resize")
    assert evidence(effects, FUSION).endswith("Conv instead of Conv + Relu")


def test_a_profile_of_some_operators_serves_those() -> None:
    view = view_of([("a", 1.0, [(CONV, 0.9, "")]), ("b", 2.0, [(CONV, 1.7, "")])], whole_ms=2.6)
    alone = {spec_of("a"): Alone((LayerTime("conv", CONV, 0.9, ("/Conv",)),), 0.95)}
    effects = composition_effects(view, alone)
    assert amounts(effects) == pytest.approx({ENDS: -0.3, SPEED: -0.05, CALLS: -0.05})
    assert add_up(view, effects)


def test_operators_without_an_entry_are_named() -> None:
    view = view_of([("a", None, [(CONV, 0.9, "")]), ("b", 2.0, [(CONV, 2.0, "")])], whole_ms=2.9)
    effects = composition_effects(view)
    assert amounts(effects) == pytest.approx({UNPRICED: 0.9})
    assert add_up(view, effects)


def test_only_the_largest_contributors_are_named() -> None:
    names = "abcdef"
    parts: list[Part] = [(name, 1.0, [(CONV, 1.1 + 0.1 * i, "")]) for i, name in enumerate(names)]
    text = evidence(composition_effects(view_of(parts, 8.1)), CACHE)
    assert [part.split(" (")[0] for part in text.split("; ")] == ["f", "e", "d", "and 3 more"]


@pytest.mark.parametrize(
    "kind",
    ["ReorderInput", "ReorderOutput", "Transpose", "Reorder", "Convert", "Reformat", "aten::copy_",
     "aten::contiguous", "aten::to"],
)  # fmt: skip
def test_kinds_that_convert(kind: str) -> None:
    assert is_conversion(LayerTime("", kind, 1.0))


@pytest.mark.parametrize("kind", ["Conv", "Convolution", "aten::conv2d", "Resize", "Interpolate"])
def test_kinds_that_compute(kind: str) -> None:
    assert not is_conversion(LayerTime("", kind, 1.0))


TIMES = st.floats(0, 10, allow_subnormal=False)
LAYERS = st.lists(st.tuples(st.sampled_from([CONV, "Relu", "Reorder"]), TIMES, st.just("")),
                  max_size=3)  # fmt: skip


@given(st.data())
def test_effects_add_up_whatever_the_layers_are(data: st.DataObject) -> None:
    parts: list[Part | tuple[Part, ...]] = []
    names = iter("abcdefghij")
    for _ in range(data.draw(st.integers(1, 4))):
        members = tuple(
            (next(names), data.draw(st.one_of(st.none(), TIMES)), data.draw(LAYERS))
            for _ in range(data.draw(st.integers(1, 2)))
        )
        parts.append(members)
    added = data.draw(st.lists(st.tuples(st.sampled_from(["Reorder", "Add"]), TIMES), max_size=3))
    share = data.draw(st.one_of(st.none(), st.floats(0, 1)))
    view = view_of(parts, data.draw(TIMES), added, share)
    specs = [node.spec for group in view.groups for node in group.nodes]
    alone = {
        spec: Alone(
            tuple(LayerTime(k, k, ms, data.draw(st.sampled_from([(), ("/x",)])))
                  for k, ms, _ in data.draw(LAYERS)),
            data.draw(TIMES),
        )
        for spec in data.draw(st.sets(st.sampled_from(specs)))
    }  # fmt: skip
    for effects in (
        composition_effects(view),
        composition_effects(view, alone),
        composition_effects(view, mode="in-context"),
    ):
        assert add_up(view, effects)
        assert len(amounts(effects)) == len(effects)
        assert all(effect.evidence for effect in effects)


def test_what_is_printed_adds_up_and_leaves_small_effects_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = view_of(
        [("a", 8.0, [(CONV, 9.0, "")]), ("b", 0.9, [(CONV, 0.87, "")])],
        whole_ms=10.0,
        added=[("Reorder", 0.02)],
        cpu_share=0.5,
    )
    effects = composition_effects(view)
    print_composition([Explained("network 7", 9.9, view, effects)], has_details=True)
    lines = capsys.readouterr().out.splitlines()
    headline = "network 7: run again 10 ms, sum of entries 8.9 ms, difference +1.1 ms"
    assert any(line.startswith(headline) for line in lines)
    shown = [line for line in lines if "%  " in line]
    assert [line.split("%")[1].strip() for line in shown] == [
        CACHE,
        INTERRUPTIONS,
        f"{ENDS}, {CONVERSION}",
    ]
    assert sum(float(line.split(" ms")[0]) for line in shown) == pytest.approx(1.1)
    assert any(f"a ({spec_of('a')}): layer 9 ms, entry 8 ms" in line for line in lines)
    assert "50%" in lines[-1]
    items = json.loads(
        json.dumps(composition_as_json([Explained("network 7", 9.9, view, effects)]))
    )
    assert items[0]["network"] == "network 7"
    total = sum(effect["ms"] for effect in items[0]["effects"])
    assert total == pytest.approx(items[0]["whole_ms"] - items[0]["plain_ms"])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "pytorch"])
def test_a_real_network_is_explained_by_its_own_operators(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = engine_class(name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    monkeypatch.setenv("LATLUT_CACHE", str(tmp_path))
    engine = engine_class(name)()
    space = FasterSegSpace(layers=4, widths=(4,), stem_head_widths=(4,))
    nodes = space.sample(3).nodes((64, 96))
    fake = FakeEngine()  # entries of a known size; the layers are the real engine's
    plan = plan_from_ops([node.spec.key for node in nodes])
    with LatencyTable.create(
        tmp_path / "table.db", identity_of(fake, "cpu", statistic="p10")
    ) as table:
        Sweep(table, plan, fake, SweepSettings()).run()
        view = layer_view(engine, nodes, table, runs=3)
    alone = profile_alone(engine, [node.spec for node in nodes], "p10", runs=3)
    assert set(alone) == {node.spec for node in nodes}
    for spec, item in alone.items():
        assert item.whole_ms > 0
        assert item.own, spec
        assert len(item.own) + len(item.added) == len(item.layers)
    effects = composition_effects(view, alone)
    assert add_up(view, effects)
    names = set(amounts(effects))
    assert {CACHE, SPEED} <= names
    assert not names & {ENDS, UNPRICED, PROFILING}
    # PyTorch keeps the layout that its modules ask for, the other two have their own
    assert (COUNTED_CONVERSION in names) == (name != "pytorch")
    assert (CONVERSION in names) == (name != "pytorch")
    assert add_up(view, composition_effects(view))


def test_an_engine_without_the_view_says_so() -> None:
    with pytest.raises(EngineError, match="Fake engine has no per-layer view"):
        profile_alone(FakeEngine(), [spec_of("a")], "p10")


def explained(measured_ms: float, whole_ms: float) -> Explained:
    """Sum of entries 8.9 ms; a layer takes 1 ms more, another 0.4 ms less, than its entry."""
    view = view_of(
        [("a", 8.0, [(CONV, 9.0, "")]), ("b", 0.9, [(CONV, 0.5, "")])], whole_ms=whole_ms
    )
    return Explained("a network", measured_ms, view, composition_effects(view))


def test_the_main_cause_has_the_sign_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    slower, faster = explained(10.0, 9.8), explained(8.0, 8.0)
    for item, sign in ((slower, 1), (faster, -1)):
        assert item.main_effect is not None and item.main_effect.ms * sign > 0
    print_composition([slower, faster])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "main cause: cache, +1 ms of the +1.1 ms between the sum of its entries (8.9 ms) and its "
        "measurement"
    )


@pytest.mark.parametrize("whole_ms", [8.8, 8.9, 9.3])
def test_an_error_that_the_layers_do_not_show_has_no_cause(
    capsys: pytest.CaptureFixture[str], whole_ms: float
) -> None:
    item = explained(10.0, whole_ms)
    assert item.main_effect is None
    print_composition([item])
    said = capsys.readouterr().out
    assert "main cause: not known" in said and f"{whole_ms:.4g} ms when it was run again" in said
    print_composition([item], has_details=True)
    assert "does not show the error" in capsys.readouterr().out
