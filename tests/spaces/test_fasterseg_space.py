"""FasterSegSpace: what it contains, what must be measured for it, and how it is sampled."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.opspec import OpSpec, check_graph
from latlut.spaces import FasterSegSpace
from latlut.spaces.architecture import OPERATORS

SIZES = [(1024, 2048), (720, 960), (720, 1280), (256, 512), (100, 150), (33, 65), (1, 1)]


@st.composite
def spaces(draw: st.DrawFn) -> FasterSegSpace:
    widths = st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)
    operators = st.lists(st.sampled_from(OPERATORS), min_size=1, unique=True)
    return FasterSegSpace(
        layers=draw(st.integers(3, 9)),
        base_width=draw(st.sampled_from([3, 6, 12, 24])),
        widths=draw(widths),
        stem_head_widths=draw(widths),
        branches=draw(st.integers(1, 2)),
        num_classes=draw(st.sampled_from([1, 11, 19])),
        operators=draw(operators.filter(lambda names: names != ["skip"])),
    )


def test_published_space_has_the_published_counts() -> None:
    space = FasterSegSpace()
    assert len(space.cells()) == 45
    assert len(set(space.cells())) == 45
    assert [scale for layer, scale in space.cells() if layer <= 2] == [8, 8, 16, 8, 16, 32]
    assert space.count() == 1695 == 15 + 105 + 15 * 105
    assert FasterSegSpace(branches=1).count() == 1 + 15 + 105
    assert space.combinations() == (1 + 4 * 5) ** (15 + 14 + 13) * 5**3
    assert f"{21**42:.1e}" == "3.4e+55"
    assert f"{space.combinations():.1e}" == "4.3e+57"


def test_one_width_leaves_the_choice_of_operators() -> None:
    assert FasterSegSpace(widths=(12,)).combinations() == 5**45
    assert FasterSegSpace(widths=(12,), operators=("conv", "skip")).combinations() == 2**45


def test_count_agrees_with_an_enumeration_of_small_spaces() -> None:
    for layers in (3, 4, 5):
        space = FasterSegSpace(layers=layers, branches=1)
        routes = {(8,)}
        for _ in range(layers - 1):  # every walk through the cells, step by step
            routes = {(*route, s) for route in routes for s in (route[-1], 2 * route[-1]) if s < 64}
        assert space.count() == len(routes)
        by_end = Counter(route[-1] for route in routes)
        pairs = FasterSegSpace(layers=layers).count()
        assert pairs == sum(by_end[a] * by_end[b] for a, b in ((8, 16), (8, 32), (16, 32)))


def test_paths_are_unique_and_possible() -> None:
    space = FasterSegSpace(layers=7)
    paths = list(space.paths())
    assert len(paths) == len(set(paths)) == space.count()
    cells = set(space.cells())
    for path in paths:
        for downs in path:
            assert list(downs) == sorted(set(downs))
            route = [
                (layer, 8 * 2 ** sum(d < layer for d in downs)) for layer in range(space.layers)
            ]
            assert set(route) <= cells


def test_op_specs_of_a_minimal_space_by_hand() -> None:
    space = FasterSegSpace(
        layers=3, widths=(4,), stem_head_widths=(8,), branches=1, operators=("conv", "skip")
    )
    texts = """
        conv 3->32 stride 2 at 64x96
        conv_2x 32->64 stride 2 at 32x48
        conv_2x 64->64 stride 2 at 16x24
        conv 32->32 stride 1 at 8x12
        conv 32->64 stride 1 at 8x12
        conv 64->32 stride 1 at 8x12
        conv 64->64 stride 1 at 8x12
        skip 32->32 stride 1 at 8x12 form=searched
        skip 32->64 stride 1 at 8x12 form=searched
        skip 64->32 stride 1 at 8x12 form=searched
        skip 64->64 stride 1 at 8x12 form=searched
        conv 32->64 stride 2 at 8x12
        conv 64->64 stride 2 at 8x12
        skip 32->64 stride 2 at 8x12
        skip 64->64 stride 2 at 8x12
        conv 64->64 stride 1 at 4x6
        conv 64->128 stride 1 at 4x6
        skip 64->64 stride 1 at 4x6 form=searched
        skip 64->128 stride 1 at 4x6 form=searched
        conv 64->128 stride 2 at 4x6
        skip 64->128 stride 2 at 4x6
        conv 128->128 stride 1 at 2x3
        conv 128->256 stride 1 at 2x3
        skip 128->128 stride 1 at 2x3 form=searched
        skip 128->256 stride 1 at 2x3 form=searched
        refine 256,64->128 stride 1 at 2x3,4x6
        refine 128,32->64 stride 1 at 4x6,8x12
        refine 128,64->64 stride 1 at 4x6,8x12
        fusion 64->64 stride 1 at 8x12
        head 64->19 stride 1 at 8x12
        upsample 19->19 stride 1 at 8x12 out_size=64x96
    """
    expected = {OpSpec.parse(line) for line in texts.strip().splitlines()}
    specs = space.op_specs((64, 96))
    assert len(specs) == len(set(specs))
    assert set(specs) == expected


def test_published_space_needs_656_op_specs() -> None:
    specs = FasterSegSpace().op_specs()
    kinds = Counter((spec.kind, spec.stride) for spec in specs)
    for operator in OPERATORS:
        stem = 4 if operator == "conv_2x" else 2 if operator == "conv" else 0
        assert kinds[operator, 1] == 3 * 25
        assert kinds[operator, 2] == 2 * 25 + stem
    assert kinds["refine", 1] == 2 * 2 * 5
    assert (kinds["fusion", 1], kinds["head", 1], kinds["upsample", 1]) == (2, 2, 1)
    assert len(specs) == len(set(specs)) == 656


@given(spaces(), st.sampled_from(SIZES), st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_op_specs_hold_all_that_a_sampled_network_needs(
    space: FasterSegSpace, size: tuple[int, int], seed: int, batch: int
) -> None:
    known = set(space.op_specs(size, batch))
    for architecture in space.sample_many(5, seed):
        nodes = architecture.nodes(size, batch)
        check_graph(nodes)
        assert {node.spec for node in nodes} <= known


@pytest.mark.parametrize("size", SIZES)
def test_published_op_specs_hold_all_that_sampled_networks_need(size: tuple[int, int]) -> None:
    space = FasterSegSpace()
    known = set(space.op_specs(size))
    for architecture in space.sample_many(60, seed=3):
        assert set(architecture.op_specs(size)) <= known


@given(spaces(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_sampled_networks_belong_to_the_space(space: FasterSegSpace, seed: int) -> None:
    architecture = space.sample(seed)
    assert architecture == space.sample(random.Random(seed))
    assert len(architecture.branches) == space.branches
    assert architecture.stem_width == architecture.head_width
    assert architecture.stem_width in space.stem_head_widths
    for branch in architecture.branches:
        assert len(branch.cells) <= space.layers
        assert {cell.operator for cell in branch.cells} <= set(space.candidates)
        assert {cell.width for cell in branch.cells[:-1]} <= set(space.widths)
        if "skip" not in space.operators:
            assert len(branch.cells) == space.layers


def test_sample_many_repeats_and_extends() -> None:
    space = FasterSegSpace()
    few, many = space.sample_many(4, seed=5), space.sample_many(9, seed=5)
    assert many[:4] == few
    assert len(set(many)) == 9
    assert space.sample_many(4, seed=6) != few
    assert space.sample_many(0, seed=5) == ()


def test_the_sampler_is_fixed() -> None:
    """Results name the sampler's version: who changes its draws changes that version, too."""
    texts = "".join(a.to_json() for a in FasterSegSpace().sample_many(5, seed=0))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "1de6c9cedb938604"
    description = FasterSegSpace().describe_sampler()
    assert "version 1" in description
    assert "\n" not in description


def test_branches_share_the_choices_of_a_cell() -> None:
    space = FasterSegSpace(widths=(4,), operators=("conv",))
    for architecture in space.sample_many(50, seed=1):
        fine, coarse = architecture.branches
        firsts = [
            next((i for i, cell in enumerate(b.cells) if cell.is_down), space.layers)
            for b in (fine, coarse)
        ]
        if firsts[0] != firsts[1]:
            assert architecture.shared_cells == min(firsts)
        else:
            assert architecture.shared_cells > firsts[0]
    mixed = FasterSegSpace().sample_many(200, seed=1)
    assert sum(a.shared_cells > 0 for a in mixed) > 150


def test_draws_are_uniform() -> None:
    networks = FasterSegSpace().sample_many(3000, seed=2)
    pairs = Counter(tuple(b.scale for b in network.branches) for network in networks)
    assert set(pairs) == {(8, 16), (8, 32), (16, 32)}
    assert all(900 < count < 1100 for count in pairs.values())
    ends = Counter(network.head_width for network in networks)
    assert all(1380 < ends[width] < 1620 for width in (8, 12))
    firsts = Counter(network.branches[0].cells[0].operator for network in networks)
    assert all(650 < firsts[name] < 850 for name in FasterSegSpace().candidates)


def test_a_stretch_of_skips_keeps_one_cell() -> None:
    """With three layers a 1/16 branch that goes down at layer 1 must keep its layer 0."""
    space = FasterSegSpace(layers=3, branches=1, operators=("skip", "conv"))
    branches = [a.branches[0] for a in space.sample_many(6000, seed=4)]
    sixteen = [branch for branch in branches if branch.scale == 16]
    late = sum(not branch.cells[0].is_down for branch in sixteen) / len(sixteen)
    assert 0.47 < late < 0.53


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 2},
        {"layers": 1e9},
        {"layers": 16.0},
        {"layers": True},
        {"branches": 0},
        {"branches": 3},
        {"base_width": 0},
        {"num_classes": -1},
        {"widths": ()},
        {"widths": 4},
        {"widths": "4"},
        {"widths": (0, 4)},
        {"widths": (4, 13)},
        {"widths": (4, 4)},
        {"widths": (4, float("nan"))},
        {"stem_head_widths": ()},
        {"base_width": 1, "widths": (4,)},
        {"operators": ()},
        {"operators": ("skip",)},
        {"operators": ("conv", "conv")},
        {"operators": ("conv", "convv")},
        {"operators": ("conv", None)},
    ],
)
def test_spaces_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(SpecError):
        FasterSegSpace(**options)


@pytest.mark.parametrize("size", [(0, 8), (8,), "8x8", (8.0, 8), (8, 1 << 20), None])
def test_bad_image_sizes_are_refused(size: object) -> None:
    with pytest.raises(SpecError):
        FasterSegSpace().op_specs(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [None, "0", 1.5, -1])
def test_seeds_are_whole_numbers_or_generators(seed: object) -> None:
    with pytest.raises(SpecError):
        FasterSegSpace().sample(seed)  # type: ignore[arg-type]


@given(spaces())
@settings(max_examples=50, deadline=None)
def test_dictionary_round_trip(space: FasterSegSpace) -> None:
    values = json.loads(json.dumps(space.to_dict()))
    assert FasterSegSpace.from_dict(values) == space
    assert FasterSegSpace.from_dict({**values, "input_size": [8, 8], "batch": [1]}) == space


def test_dictionaries_of_something_else_are_refused() -> None:
    with pytest.raises(SpecError, match="did you mean 'layers'"):
        FasterSegSpace.from_dict({"name": "fasterseg", "layer": 16})
    with pytest.raises(SpecError, match="mobilenet"):
        FasterSegSpace.from_dict({"name": "mobilenet"})
    assert FasterSegSpace.from_dict({}) == FasterSegSpace()


def test_spaces_and_plans_import_nothing_heavy() -> None:
    code = (
        "import sys, latlut.spaces, latlut.measure.plans\n"
        "print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'pydantic')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
