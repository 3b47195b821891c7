"""Plans: the shipped ones, the TOML grammar, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from latlut.errors import ImportFileError, SpecError, UnknownNameError
from latlut.measure.plans import Plan, load_plan, plan_from_ops, plan_names
from latlut.opspec import OpSpec
from latlut.spaces import FasterSegSpace

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a plan's text, below ``format = 1``, to a file."""

    def write_text(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(f"format = 1\n{text}", encoding="utf-8")
        return path

    return write_text


GRID = '[[grid]]\nkind = "conv"\nin_channels = 8\nout_channels = 8\nsize = "4x4"\n'


def keys(plan: Plan) -> list[str]:
    return [spec.key for spec in plan.specs]


def test_shipped_plans() -> None:
    assert plan_names() == ["fasterseg", "table1", "tiny"]
    for name in plan_names():
        plan = load_plan(name)
        assert plan.name == name
        assert plan.description
        assert plan.hash == load_plan(name).hash


def test_fasterseg_plan_is_the_published_space() -> None:
    plan = load_plan("fasterseg")
    assert plan.specs == FasterSegSpace().op_specs((1024, 2048))
    assert plan.space is not None
    assert FasterSegSpace.from_dict(json.loads(json.dumps(plan.space))) == FasterSegSpace()
    assert (plan.space["input_size"], plan.space["batch"]) == ([1024, 2048], [1])


def test_input_size_and_batch_replace_the_files() -> None:
    plan = load_plan("fasterseg", input_size=(720, 960), batch=4)
    assert plan.specs == FasterSegSpace().op_specs((720, 960), 4)
    assert plan.space is not None
    assert (plan.space["input_size"], plan.space["batch"]) == ([720, 960], [4])
    several = load_plan("tiny", batch=(1, 8))
    assert len(several.specs) == 2 * len(load_plan("tiny").specs)
    assert len({plan.hash, several.hash, load_plan("tiny").hash}) == 3


def test_tiny_plan_is_small_and_has_every_operator() -> None:
    plan = load_plan("tiny")
    assert len(plan.specs) <= 110
    assert {spec.kind for spec in plan.specs} == {
        spec.kind for spec in load_plan("fasterseg").specs
    }


def test_table1_plan_is_the_papers() -> None:
    assert keys(load_plan("table1")) == [
        "conv 256->256 stride 1 at 32x64",
        "conv 256->256 stride 1 at 32x64 groups=2",
        "conv 256->256 stride 1 at 32x64 dilation=2",
        "zoomed_conv 256->256 stride 1 at 32x64",
    ]
    assert load_plan("table1").space is None
    assert {spec.batch for spec in load_plan("table1", batch=2).specs} == {2}


def test_grid_is_the_product_of_its_axes(write: Write) -> None:
    path = write(
        """
        description = "all axes"
        batch = [1, 2]
        [[grid]]
        kind = ["conv", "zoomed_conv"]
        in_channels = [8, 16]
        out_channels = [8, 12, 16]
        stride = [1, 2]
        size = ["4x4", "5x7"]
        dilation = [1, 2]
        interpolation = "nearest"
        """
    )
    plan = load_plan(path)
    assert (plan.name, plan.description) == ("mine", "all axes")
    assert len(plan.specs) == 2 * 2 * 2 * 3 * 2 * 2 * 2
    assert "zoomed_conv 16->12 stride 2 at 5x7 batch=2 dilation=2 interpolation=nearest" in keys(
        plan
    )


@pytest.mark.parametrize(
    ("ins", "size", "shown"),
    [
        ('"256,128"', '"8x16,16x32"', "8x16,16x32"),
        ("[[256, 128]]", '[["8x16", "16x32"]]', "8x16,16x32"),
        ('["256, 128"]', '"8x16"', "8x16,8x16"),
    ],
)
def test_grids_of_several_inputs(write: Write, ins: str, size: str, shown: str) -> None:
    plan = load_plan(
        write(f'[[grid]]\nkind = "refine"\nin_channels = {ins}\nout_channels = 128\nsize = {size}')
    )
    assert keys(plan) == [f"refine 256,128->128 stride 1 at {shown}"]


def test_option_values_may_be_sizes(write: Write) -> None:
    plan = load_plan(write(GRID + 'out_size = ["8x8", "16x16"]\npadding = [[1, 2], 3]'))
    assert len(plan.specs) == 4
    assert {spec.out_size for spec in plan.specs} == {(8, 8), (16, 16)}
    assert {spec.option("padding") for spec in plan.specs} == {(1, 2), 3}


def test_ops_and_grids_combine(write: Write) -> None:
    path = write('ops = ["conv 8->8 at 4x4", "conv 8->9 at 4x4 batch=3"]\nbatch = [1, 2]\n' + GRID)
    assert keys(load_plan(path)) == [
        "conv 8->8 stride 1 at 4x4",
        "conv 8->8 stride 1 at 4x4 batch=2",
        "conv 8->9 stride 1 at 4x4 batch=3",
    ]
    assert keys(load_plan(path, batch=5)) == [
        "conv 8->8 stride 1 at 4x4 batch=5",
        "conv 8->9 stride 1 at 4x4 batch=5",
    ]


def test_a_grid_without_a_size_takes_the_input(write: Write) -> None:
    path = write(GRID.replace('size = "4x4"\n', ""))
    assert keys(load_plan(path, input_size=(6, 7))) == ["conv 8->8 stride 1 at 6x7"]
    with pytest.raises(SpecError, match=r"\[\[grid\]\] 1: the key \"size\" is missing"):
        load_plan(path)


def test_space_with_its_options(write: Write) -> None:
    plan = load_plan(
        write(
            'input = "64x64"\nbatch = [1, 2]\n[space]\nname = "fasterseg"\nlayers = 4\nwidths = [6]'
        )
    )
    space = FasterSegSpace(layers=4, widths=(6,))
    assert set(plan.specs) == {*space.op_specs((64, 64), 1), *space.op_specs((64, 64), 2)}


def test_hash_depends_on_the_set_of_op_specs_alone() -> None:
    one, two = OpSpec("conv", (3, 8, 8), 4), OpSpec("conv", (3, 8, 8), 5)
    plan = Plan("a", (one, two, one))
    assert plan.specs == (one, two)
    assert plan.hash == Plan("b", (two, one), "other words").hash
    assert len(plan.hash) == 64
    assert plan.hash != Plan("a", (one,)).hash
    assert isinstance(hash(load_plan("tiny")), int)


def test_plan_from_texts() -> None:
    plan = plan_from_ops(["conv 8->8 at 4x4", "conv 8->8 stride 1 at 4x4", "conv 8->9 at 4x4"])
    assert keys(plan) == ["conv 8->8 stride 1 at 4x4", "conv 8->9 stride 1 at 4x4"]
    assert {spec.batch for spec in plan_from_ops(["conv 8->8 at 4x4"], batch=4).specs} == {4}
    with pytest.raises(SpecError, match="reads like"):
        plan_from_ops(["conv"])
    with pytest.raises(SpecError, match="empty"):
        plan_from_ops([])


def test_missing_plans_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match="did you mean 'tiny'.*known: fasterseg, table1, tiny"
    ):
        load_plan("tinyy")
    with pytest.raises(UnknownNameError, match="none.toml"):
        load_plan(tmp_path / "none.toml")
    with pytest.raises(ImportFileError, match="is a folder"):
        load_plan(tmp_path)
    with pytest.raises(ImportFileError, match="cannot read"):
        load_plan("x" * 5000)


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("format = 1\nname = \n")
    with pytest.raises(ImportFileError, match=r"mine\.toml: not TOML.*line 2"):
        load_plan(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImportFileError, match="UTF-8"):
        load_plan(path)
    path.write_text("format = " + "[" * 50_000)
    with pytest.raises(ImportFileError, match="not TOML"):
        load_plan(path)
    path.write_text("format = 2")
    with pytest.raises(ImportFileError, match="upgrade latlut"):
        load_plan(path)
    for text in ("", 'format = "1"', "format = true", "format = 0"):
        path.write_text(text)
        with pytest.raises(SpecError, match="format = 1"):
            load_plan(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the plan is empty"),
        ("ops = []", "the plan is empty"),
        ("nmae = 'x'\n" + GRID, "unknown key 'nmae'; did you mean 'name'"),
        ("name = 3\n" + GRID, "name must be a text, received 3"),
        ("batch = 'two'\n" + GRID, "batch must be a whole number or a list of them"),
        ("batch = 1.0\n" + GRID, "batch must be a whole number"),
        ("batch = true\n" + GRID, "batch must be a whole number"),
        ("batch = []\n" + GRID, "empty list"),
        ("batch = 0\n" + GRID, r"\[\[grid\]\] 1: batch must be between"),
        ("ops = 'conv 8->8 at 4x4'", "ops must be a list"),
        ("ops = ['conv 8->8 at 4x4', 'conv']", "ops, entry 2: cannot read"),
        ("grid = 3", r"grid must be tables written as \[\[grid\]\]"),
        ("grid = [3]", r"\[\[grid\]\] 1: must be a table"),
        ("[grid]\nkind = 'conv'", r"grid must be tables written as \[\[grid\]\]"),
        (GRID.replace('kind = "conv"\n', ""), r"\[\[grid\]\] 1: the key 'kind' is missing"),
        (GRID.replace("in_channels", "in_chanels"), "'in_channels' is missing"),
        (GRID + "strid = 2", "unknown key 'strid'; did you mean 'stride'"),
        (GRID + "self = 2", "unknown key 'self'"),
        (GRID + "inputs = 2", "unknown key 'inputs'"),
        (GRID + "groups = []", "groups: an empty list"),
        (GRID + "groups = 1.5", "option groups: expected a whole number"),
        (GRID + "groups = true", "option groups: expected a whole number"),
        (GRID + "groups = 2020-01-01", "option groups: expected a whole number"),
        (GRID + "groups = {a = 1}", "option groups: expected a whole number"),
        (GRID + GRID.replace("4x4", "4x"), r"\[\[grid\]\] 2: a size is HEIGHTxWIDTH"),
        (GRID + GRID.replace("4x4", "0x4"), r"\[\[grid\]\] 2: height must be between"),
        (GRID.replace('"4x4"', "4"), 'size must be a size such as "32x64"'),
        (GRID.replace("out_channels = 8", "out_channels = 0"), "out_channels must be between"),
        (GRID.replace("out_channels = 8", "out_channels = -8"), "out_channels must be between"),
        (GRID.replace("out_channels = 8", "out_channels = 1e3"), "out_channels must be a whole"),
        (GRID.replace("= 8", "= 999999999999999999"), "input channels must be between"),
        (GRID.replace("in_channels = 8", "in_channels = '8;8'"), "in_channels: expected numbers"),
        (GRID.replace("in_channels = 8", "in_channels = [[]]"), "at least one input"),
        (GRID.replace("in_channels = 8", "in_channels = '8,8,8'").replace("4x4", "4x4,2x2"),
         "3 input channel counts but 2 sizes"),
        ("input = '4x4'\n" + GRID, "an input size does not apply"),
        ("input = '4'\n" + GRID, "input: a size is HEIGHTxWIDTH"),
        ("input = 4\n" + GRID, "input must be a size"),
        ("space = 3", r"space must be a table \[space\]"),
        ("input = '8x8'\n[space]\nlayers = 4", "needs a name"),
        ("input = '8x8'\n[space]\nname = 'fasterseg'\nlayer = 4", "did you mean 'layers'"),
        ("input = '8x8'\n[space]\nname = 'fasterseg'\nlayers = 1", r"\[space\]: layers must be"),
        ("input = '8x8'\n[space]\nname = 'fasterseg'\nbatch = 2", "stand above"),
        ("[space]\nname = 'fasterseg'", "needs an input size"),
        ("input = '8x8'\n" + GRID + "[space]\nname = 'fasterseg'", "either"),
        (f"batch = {[*range(1, 999)]}\ninput = '8x8'\n[space]\nname = 'fasterseg'", "the limit"),
        (
            GRID + f"a = {list(range(400))}\nb = {list(range(400))}",
            "160000 operator configurations, the limit",
        ),
        (GRID + "\n".join(f"k{i} = {list(range(99))}" for i in range(40)), "the limit is 100000"),
    ],
)  # fmt: skip
def test_plans_that_make_no_sense_are_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_plan(write(text))
    assert "mine.toml" in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert "model" not in str(caught.value)


def test_all_problems_are_named_at_once(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_plan(write("[[grid]]\nkind = 3\nout_channels = 'x'\nsize = '4x4'"))
    assert len(str(caught.value).splitlines()) == 3


def test_unknown_spaces_are_refused(write: Write) -> None:
    with pytest.raises(UnknownNameError, match="unknown search space 'darts'.*known: fasterseg"):
        load_plan(write("input = '8x8'\n[space]\nname = 'darts'"))


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "2", [], [1, 0]])
def test_bad_batches_are_refused(batch: object) -> None:
    with pytest.raises(SpecError):
        load_plan("tiny", batch=batch)  # type: ignore[arg-type]


def test_an_input_size_for_fixed_sizes_is_refused() -> None:
    with pytest.raises(SpecError, match="does not apply"):
        load_plan("table1", input_size=(8, 8))
    with pytest.raises(SpecError):
        load_plan("tiny", input_size=(0, 8))
