"""OpSpec: its canonical text, its limits, and graphs of nodes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.opspec import IMAGE, OPTION_DEFAULTS, Node, OpSpec, check_graph, parse_size, unique

SIDES = st.integers(1, 512)
MAPS = st.tuples(st.integers(1, 512), SIDES, SIDES)
WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,8}", fullmatch=True)
FIELDS = {"kind", "inputs", "out_channels", "stride", "batch", "self", "out_size"}
OPTION_NAMES = st.one_of(
    st.sampled_from(sorted(OPTION_DEFAULTS)),
    st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True).filter(lambda name: name not in FIELDS),
)
OPTION_VALUES = st.one_of(
    st.integers(0, 1 << 16),
    WORDS,
    st.lists(st.integers(1, 1 << 16), min_size=2, max_size=3).map(tuple),
)


@st.composite
def op_specs(draw: st.DrawFn) -> OpSpec:
    return OpSpec(
        draw(st.sampled_from(["conv", "zoomed_conv_2x", "refine", "my.op_2"])),
        draw(st.lists(MAPS, min_size=1, max_size=3)),
        draw(st.integers(1, 256)),
        stride=draw(st.integers(1, 64)),
        batch=draw(st.integers(1, 8)),
        **draw(st.dictionaries(OPTION_NAMES, OPTION_VALUES, max_size=4)),
    )


@given(op_specs())
def test_parse_reads_back_the_key(spec: OpSpec) -> None:
    assert OpSpec.parse(spec.key) == spec
    assert OpSpec.parse(spec.key).key == spec.key


@given(op_specs(), op_specs())
def test_equal_specs_have_equal_keys_and_only_they(one: OpSpec, other: OpSpec) -> None:
    assert (one == other) == (one.key == other.key)
    assert one != other or hash(one) == hash(other)


@given(op_specs())
def test_replace_and_pickle_keep_the_spec(spec: OpSpec) -> None:
    assert spec.replace() == spec
    assert spec.replace(batch=spec.batch + 1) != spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_stride_has_two_numbers_where_they_differ() -> None:
    spec = OpSpec.parse("conv 8->4 stride 2x1 at 9x16")
    assert (spec.stride, spec.strides, spec.out_size) == (2, (2, 1), (5, 16))
    assert spec == OpSpec.parse(spec.key) == OpSpec("conv", (8, 9, 16), 4, stride_width=1, stride=2)
    assert spec.replace(stride=1).strides == (1, 1)
    assert spec.replace(stride=(2, 2)) == OpSpec.parse("conv 8->4 stride 2x2 at 9x16")
    assert OpSpec.parse("conv 8->4 stride 2x2 at 9x16").key == "conv 8->4 stride 2 at 9x16"


@pytest.mark.parametrize(
    "text",
    [
        "conv 8->4 stride 2x1x1 at 9x16",
        "conv 8->4 stride 2x65 at 9x16",
        "conv 8->4 stride 2x at 9x16",
        "conv 8->4 stride 2x1 at 9x16 stride_width=1",
        "conv 8->4 at 9x16 stride_width=wide",
        "conv 8->4 at 9x16 kernel_size=0x3",
    ],
)
def test_wrong_strides_and_kernels_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        OpSpec.parse(text)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (OpSpec("conv", (64, 128, 256), 96), "conv 64->96 stride 1 at 128x256"),
        (
            OpSpec("zoomed_conv", (64, 8, 9), 96, stride=2, interpolation="nearest", batch=4),
            "zoomed_conv 64->96 stride 2 at 8x9 batch=4 interpolation=nearest",
        ),
        (
            OpSpec("refine", ((256, 8, 16), (128, 16, 32)), 128),
            "refine 256,128->128 stride 1 at 8x16,16x32",
        ),
        (
            OpSpec("upsample", (19, 8, 16), 19, out_size=(64, 128)),
            "upsample 19->19 stride 1 at 8x16 out_size=64x128",
        ),
        (
            OpSpec("conv", (8, 8, 16), 4, stride=(2, 1), kernel_size=(1, 7), padding=(0, 3)),
            "conv 8->4 stride 2 at 8x16 kernel_size=1x7 padding=0x3 stride_width=1",
        ),
        (
            OpSpec("conv", (8, 8, 16), 4, (2, 2), kernel_size=(5, 5), activation="relu"),
            "conv 8->4 stride 2 at 8x16 kernel_size=5",
        ),
        (
            OpSpec("add", ((8, 8, 16), (8, 8, 16)), 8, activation="relu"),
            "add 8,8->8 stride 1 at 8x16,8x16 activation=relu",
        ),
    ],
)
def test_key_is_the_documented_text(spec: OpSpec, key: str) -> None:
    assert spec.key == str(spec) == key


def test_options_at_their_defaults_are_no_part_of_the_key() -> None:
    plain = OpSpec("conv", (64, 8, 8), 64)
    spelled_out = OpSpec("conv", (64, 8, 8), 64, kernel_size=3, groups=1, dilation=1)
    assert plain == spelled_out
    assert plain.option("kernel_size") == 3
    assert plain.option("padding") is None
    assert plain.replace(groups=2).replace(groups=None) == plain


def test_short_forms_are_read() -> None:
    assert OpSpec.parse(" conv 3 -> 8  at 5x7 ") == OpSpec("conv", (3, 5, 7), 8)
    both = OpSpec("fusion", ((64, 5, 7), (64, 5, 7)), 128)
    assert OpSpec.parse("fusion 64,64->128 at 5x7") == both


@given(SIDES, SIDES, st.integers(1, 64))
def test_output_size_rounds_up(height: int, width: int, stride: int) -> None:
    spec = OpSpec("conv", (3, height, width), 5, stride=stride)
    assert spec.output == (5, (height + stride - 1) // stride, (width + stride - 1) // stride)


def test_output_size_follows_the_last_input_or_out_size() -> None:
    refine = OpSpec("refine", ((8, 4, 4), (4, 7, 9)), 4)
    assert refine.output == (4, 7, 9)
    assert refine.in_channels == 12
    assert OpSpec("upsample", (19, 4, 4), 19, out_size=(30, 31)).output == (19, 30, 31)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "conv",
        "conv 64->96",
        "conv 64 96 at 8x8",
        "conv 64->96 at 8",
        "conv 64->96 at 8x",
        "conv 64->96 at 0x8",
        "conv 0->96 at 8x8",
        "conv 64->0 at 8x8",
        "conv -64->96 at 8x8",
        "conv 64->96 stride 0 at 8x8",
        "conv 64->96 stride 65 at 8x8",
        "conv 64->99999 at 8x8",
        "conv 64->96 at 8x8 groups",
        "conv 64->96 at 8x8 groups=",
        "conv 64->96 at 8x8 =2",
        "conv 64->96 at 8x8 groups=-1",
        "conv 64->96 at 8x8 groups=1.5",
        "conv 64->96 at 8x8 batch=0",
        "conv 64->96 at 8x8 stride=2",
        "conv 64->96 at 8x8 out_size=8x0",
        "Conv 64->96 at 8x8",
        "conv 64,64->96 at 8x8,8x8,8x8",
        "conv ,->96 at 8x8",
        "conv 65536->65536 at 65536x65536",
    ],
)
def test_texts_that_name_no_op_spec_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        OpSpec.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "conv 3->4 at 8x8 groups=\u00b2",  # a digit for str.isdigit, not for int
        f"conv 3->{'9' * 5000} at 8x8",
        "conv 3->4 at 8x8 self=1",
    ],
)
def test_odd_texts_are_refused_with_a_message(text: str) -> None:
    with pytest.raises(SpecError):
        OpSpec.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        spec = OpSpec.parse(f"conv 3->4 at 8x8 {text}")
    except SpecError:
        return
    assert OpSpec.parse(spec.key) == spec


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("conv", (), 8), {}),
        (("conv", (64, 8), 8), {}),
        (("conv", ((64, 8, 8), (8, 8)), 8), {}),
        (("conv", (64.0, 8, 8), 8), {}),
        (("conv", (True, 8, 8), 8), {}),
        (("conv", (64, 8, 8), 8.5), {}),
        (("conv", (64, 8, 8), float("nan")), {}),
        (("", (64, 8, 8), 8), {}),
        ((3, (64, 8, 8), 8), {}),
        (("conv", (64, 8, 8), 8), {"groups": None}),
        (("conv", (64, 8, 8), 8), {"groups": 2.0}),
        (("conv", (64, 8, 8), 8), {"form": "two words"}),
        (("conv", (64, 8, 8), 8), {"out_size": (8,)}),
        (("conv", (64, 8, 8), 8), {"out_size": (8, 8, 8)}),
        (("conv", (64, 8, 8), 8), {"Groups": 2}),
    ],
)
def test_values_that_are_no_op_spec_are_refused(arguments: tuple, options: dict) -> None:
    with pytest.raises(SpecError):
        OpSpec(*arguments, **options)


def test_sizes_are_read_strictly() -> None:
    assert parse_size(" 128 x 256 ") == (128, 256)
    for text in ("128", "128x", "x256", "0x4", "4x-4", "1.5x2", "4x4x4", "65537x1"):
        with pytest.raises(SpecError):
            parse_size(text)


def test_unique_keeps_the_first_of_equal_specs() -> None:
    one, two = OpSpec("conv", (3, 8, 8), 4), OpSpec("conv", (3, 8, 8), 5)
    assert unique([two, one, two, one]) == (two, one)


def test_graphs_are_checked() -> None:
    first = Node("a", OpSpec("conv", (3, 8, 8), 4, stride=2), (IMAGE,))
    second = Node("b", OpSpec("conv", (4, 4, 4), 4), ("a",))
    check_graph([first, second])
    bad = [
        [second],
        [first, first],
        [Node(IMAGE, first.spec, (IMAGE,))],
        [first, Node("b", OpSpec("conv", (4, 8, 8), 4), ("a",))],
        [first, Node("b", second.spec, ("a", "a"))],
    ]
    for nodes in bad:
        with pytest.raises(SpecError):
            check_graph(nodes)
