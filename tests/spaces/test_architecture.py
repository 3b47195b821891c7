"""Architecture: the graph of a discrete network, and its JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import ImportFileError, LatlutError, SpecError
from latlut.opspec import IMAGE, OpSpec, check_graph
from latlut.resources import profiles_dir
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace

SIZES = [(1024, 2048), (720, 960), (720, 1280), (256, 512), (100, 150), (1, 1)]
PUBLISHED = ("fasterseg-student", "fasterseg-teacher", "fasterseg-teacher-pruned")


def published(name: str) -> Architecture:
    return Architecture.load(profiles_dir() / "architectures" / f"{name}.json")


def small_pair() -> Architecture:
    """Branches 1/16 and 1/32 that share one cell."""
    return Architecture(
        stem_width=8,
        head_width=8,
        branches=(
            Branch(
                32,
                (
                    Cell("conv", 4),
                    Cell("zoomed_conv", 4, is_down=True),
                    Cell("conv", 6, is_down=True),
                    Cell("conv_2x", 8),
                ),
            ),
            Branch(
                16,
                (
                    Cell("conv", 4),
                    Cell("conv", 12),
                    Cell("zoomed_conv_2x", 4, is_down=True),
                    Cell("conv", 8),
                ),
            ),
        ),
    )


def test_graph_of_a_small_network_by_hand() -> None:
    expected = """
        stem.0 | conv 3->32 stride 2 at 64x96 | image
        stem.1 | conv_2x 32->64 stride 2 at 32x48 | stem.0
        stem.2 | conv_2x 64->64 stride 2 at 16x24 | stem.1
        shared.cell.0 | conv 64->32 stride 1 at 8x12 | stem.2
        branch16.cell.1 | conv 32->96 stride 1 at 8x12 | shared.cell.0
        branch16.cell.2 | zoomed_conv_2x 96->64 stride 2 at 8x12 | branch16.cell.1
        branch16.cell.3 | conv 64->128 stride 1 at 4x6 | branch16.cell.2
        branch16.refine.s8 | refine 128,96->64 stride 1 at 4x6,8x12 | branch16.cell.3 branch16.cell.1
        branch32.cell.1 | zoomed_conv 32->64 stride 2 at 8x12 | shared.cell.0
        branch32.cell.2 | conv 64->192 stride 2 at 4x6 | branch32.cell.1
        branch32.cell.3 | conv_2x 192->256 stride 1 at 2x3 | branch32.cell.2
        branch32.refine.s16 | refine 256,64->128 stride 1 at 2x3,4x6 | branch32.cell.3 branch32.cell.1
        branch32.refine.s8 | refine 128,32->64 stride 1 at 4x6,8x12 | branch32.refine.s16 shared.cell.0
        fusion | fusion 64,64->128 stride 1 at 8x12,8x12 | branch16.refine.s8 branch32.refine.s8
        head | head 128->19 stride 1 at 8x12 | fusion
        upsample | upsample 19->19 stride 1 at 8x12 out_size=64x96 | head
    """  # noqa: E501
    nodes = small_pair().nodes((64, 96))
    found = [f"{n.name} | {n.spec} | {' '.join(n.inputs)}" for n in nodes]
    assert found == [line.strip() for line in expected.strip().splitlines()]
    assert nodes[0].inputs == (IMAGE,)
    check_graph(nodes)


def test_one_fine_branch_has_no_refinement() -> None:
    network = Architecture(12, 8, (Branch(8, (Cell("conv", 8),)),), num_classes=11)
    assert [spec.key for spec in network.op_specs((16, 16), batch=3)] == [
        "conv 3->48 stride 2 at 16x16 batch=3",
        "conv_2x 48->96 stride 2 at 8x8 batch=3",
        "conv_2x 96->96 stride 2 at 4x4 batch=3",
        "conv 96->64 stride 1 at 2x2 batch=3",
        "fusion 64->64 stride 1 at 2x2 batch=3",
        "head 64->11 stride 1 at 2x2 batch=3",
        "upsample 11->11 stride 1 at 2x2 batch=3 out_size=16x16",
    ]
    assert network.shared_cells == 0


def test_equal_specs_of_two_nodes_appear_twice() -> None:
    specs = published("fasterseg-student").op_specs()
    down = OpSpec.parse("zoomed_conv_2x 64->64 stride 1 at 64x128")
    assert specs.count(down) == 3


def test_equal_last_cells_are_not_shared() -> None:
    cells = (Cell("conv", 8), Cell("conv", 8))
    network = Architecture(
        8, 8, (Branch(8, cells), Branch(16, (cells[0], Cell("conv", 8, True), cells[1])))
    )
    assert network.shared_cells == 1
    short = Architecture(
        8, 8, (Branch(8, cells[:1]), Branch(16, (Cell("conv", 8, True), cells[1])))
    )
    assert short.shared_cells == 0


def test_a_shared_down_cell_serves_both_refinements() -> None:
    head = (Cell("conv", 4), Cell("conv", 4, True))
    network = Architecture(
        8,
        8,
        (
            Branch(16, (*head, Cell("conv", 8))),
            Branch(32, (*head, Cell("conv", 4, True), Cell("conv", 8))),
        ),
    )
    assert network.shared_cells == 2
    inputs = {node.name: node.inputs for node in network.nodes()}
    assert inputs["branch16.refine.s8"][1] == inputs["branch32.refine.s8"][1] == "shared.cell.0"
    assert inputs["branch32.refine.s16"][1] == "shared.cell.1"


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", SIZES)
def test_published_networks_fit_together_at_every_size(name: str, size: tuple[int, int]) -> None:
    network = published(name)
    nodes = network.nodes(size)
    check_graph(nodes)
    assert nodes[-1].spec.output == (19, *size)
    assert set(network.op_specs(size)) <= set(FasterSegSpace().op_specs(size))


def test_published_student() -> None:
    student = published("fasterseg-student")
    assert student.shared_cells == 3
    outputs = {node.name: node.spec for node in student.nodes()}
    assert [outputs[f"stem.{i}"].out_channels for i in range(3)] == [32, 64, 64]
    assert outputs["branch32.cell.9"].output == (256, 32, 64)
    assert outputs["branch16.cell.8"].output == (128, 64, 128)
    assert [cell.is_down for cell in student.branches[1].cells].index(True) == 3
    assert student.branches[1].cells[3] == Cell("zoomed_conv", 8, is_down=True)
    assert [cell.width for cell in student.branches[0].cells] == [4, 4, 4, 4, 4, 4, 4, 12, 8]
    down = [cell.is_down for cell in student.branches[0].cells]
    assert (down.index(True), sum(down)) == (5, 1)


@pytest.mark.parametrize(("name", "width", "end"), [(PUBLISHED[1], 12, 12), (PUBLISHED[2], 4, 8)])
def test_published_teachers(name: str, width: int, end: int) -> None:
    teacher = published(name)
    assert teacher.shared_cells == 4
    assert (teacher.stem_width, teacher.head_width) == (end, end)
    for branch, downs in zip(teacher.branches, ([4], [5, 13]), strict=True):
        assert len(branch.cells) == 16
        assert [i for i, cell in enumerate(branch.cells) if cell.is_down] == downs
        assert {cell.width for cell in branch.cells[:-1]} == {width}
    # (layer, scale) cells that both branches visit have one operator: alpha has one row for each.
    fine, coarse = (branch.cells for branch in teacher.branches)
    assert [cell.operator for cell in fine[6:14]] == [cell.operator for cell in coarse[6:14]]
    assert {cell.operator for cell in coarse[14:]} == {"conv_2x"}


def test_describe_names_every_node() -> None:
    text = published("fasterseg-student").describe()
    assert "1/16 and 1/32, 3 shared cells" in text
    for node in published("fasterseg-student").nodes():
        assert node.name in text
    assert max(map(len, text.splitlines())) <= 100


def test_branches_have_one_order() -> None:
    network = small_pair()
    turned = Architecture(8, 8, network.branches[::-1])
    assert turned == network
    assert hash(turned) == hash(network)
    assert [branch.scale for branch in network.branches] == [16, 32]


@given(st.integers(0, 2**32), st.sampled_from(SIZES), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_json_round_trip_and_graph_of_any_network(
    seed: int, size: tuple[int, int], branches: int
) -> None:
    network = FasterSegSpace(layers=8, branches=branches).sample(seed)
    assert Architecture.from_json(network.to_json()) == network
    assert Architecture.from_json(json.dumps(json.loads(network.to_json()))) == network
    nodes = network.nodes(size)
    check_graph(nodes)
    cells = sum(len(branch.cells) for branch in network.branches) - network.shared_cells
    refinements = sum({8: 0, 16: 1, 32: 2}[branch.scale] for branch in network.branches)
    assert len(nodes) == 3 + cells + refinements + 3


def test_files_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    small_pair().save(path)
    assert Architecture.load(path) == small_pair()
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert Architecture.load(str(path)) == small_pair()
    with pytest.raises(ImportFileError, match=r"missing\.json"):
        Architecture.load(tmp_path / "missing.json")
    with pytest.raises(ImportFileError, match="is a folder"):
        Architecture.load(tmp_path)
    with pytest.raises(ImportFileError, match="cannot write"):
        small_pair().save(tmp_path / "missing" / "network.json")
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ImportFileError, match="UTF-8"):
        Architecture.load(path)
    path.write_text("{")
    with pytest.raises(ImportFileError, match=r"network\.json.*not JSON.*line 1"):
        Architecture.load(path)


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", "[]", "null", "3", '"text"', '{"format": "other"}', "NaN", "[" * 100_000]
    + ['{"format": "latlut-architecture", "format": "latlut-architecture"}']
    + ["9" * 5000],
)
def test_texts_that_are_no_architecture_file_are_refused(text: str) -> None:
    with pytest.raises(ImportFileError):
        Architecture.from_json(text)


def edited(path: str, value: Any) -> str:
    """The small network's JSON with the value at ``path`` replaced, or removed if None."""
    data = json.loads(small_pair().to_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    item = data
    for part in parents:
        item = item[part]
    if value is None:
        del item[last]
    else:
        item[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "upgrade latlut"),
        ("version", 0, "version"),
        ("version", "1", "version"),
        ("version", True, "version"),
        ("version", None, "version"),
        ("space", "darts", "fasterseg"),
        ("base_width", None, "lacks 'base_width'"),
        ("colour", 3, "unknown key 'colour'"),
        ("branches", 3, "must be a list"),
        ("branches.0", 3, r"branches\[0\] must be an object"),
        ("branches.0.cells", {}, "must be a list"),
        ("branches.0.cells.1.operator", None, r"cells\[1\] lacks 'operator'"),
        ("branches.0.cells.1.kernel", 3, "unknown key 'kernel'"),
        ("base_width", float("nan"), "NaN"),
    ],
)
def test_files_of_another_form_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ImportFileError, match=message):
        Architecture.from_json(edited(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("base_width", 0, "base_width"),
        ("base_width", 12.0, "whole number"),
        ("base_width", True, "whole number"),
        ("base_width", 1, "not a whole number"),
        ("base_width", 10**30, "between"),
        ("stem_width", 13, "between 1 and 12"),
        ("head_width", 4, "head's width 4, received 8"),
        ("num_classes", -19, "num_classes"),
        ("branches", [], "one branch or two"),
        ("branches.0.scale", 64, r"branches\[0\]"),
        ("branches.0.scale", 32, "2 down cells, received 1"),
        ("branches.0.scale", 16.0, "whole number"),
        ("branches.0.cells", [], "1 to 1000 cells"),
        ("branches.0.cells.0.operator", "skip", "no place in a derived network"),
        ("branches.0.cells.0.operator", "convv", r"cells\[0\].*did you mean 'conv'"),
        ("branches.0.cells.0.operator", ["conv"], "unknown operator"),
        ("branches.0.cells.0.width", 0, "between 1 and 12"),
        ("branches.0.cells.0.width", "4", "whole number"),
        ("branches.0.cells.0.is_down", 1, "true or false"),
        ("branches.0.cells.3.is_down", True, "last cell"),
    ],
)
def test_values_that_are_no_network_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture.from_json(edited(path, value))


def test_at_most_two_different_branches() -> None:
    eight = Branch(8, (Cell("conv", 8),))
    with pytest.raises(SpecError, match=r"scales \[8, 8\]"):
        Architecture(8, 8, (eight, eight))
    with pytest.raises(SpecError, match="one branch or two"):
        Architecture(8, 8, (eight, *small_pair().branches))


@given(st.text(max_size=40), st.integers(0, 700))
def test_damaged_files_are_refused_with_a_message(noise: str, position: int) -> None:
    text = small_pair().to_json()
    damaged = text[:position] + noise + text[position + 3 :]
    try:
        Architecture.from_json(damaged)
    except LatlutError as error:
        assert str(error)


@pytest.mark.parametrize("size", [(0, 8), (8,), (8, 8.0), "8x8", (8, True), None])
def test_bad_image_sizes_are_refused(size: object) -> None:
    with pytest.raises(SpecError):
        small_pair().nodes(size)  # type: ignore[arg-type]
