"""Parameters and multiply-accumulates of ONNX graphs against counts made another way.

The other count is that of the PyTorch module which a graph was exported from (PyTorch's own
counter of operations and its parameters), or what the shapes of a hand-made graph come to.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from latlut.operators.onnx_export import export_onnx
from latlut.operators.onnx_files import read_onnx
from latlut.search.networks.cost import cost_of_onnx

Counted = tuple[bytes, int, int]  # graph, multiply-accumulates, parameters
GENERATOR = np.random.default_rng(0)


def exported(module: nn.Module, *shape: int) -> Counted:
    """The module's graph, PyTorch's count of its operations, and its parameters."""
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(shape))
    parameters = sum(item.numel() for item in module.parameters())
    graph = export_onnx(module, [np.zeros(shape, np.float32)])
    return graph, counter.get_total_flops() // 2, parameters


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 2, 2), nn.ReLU(),
        nn.Conv2d(32, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 24, 5, 1, 2, groups=24), nn.Hardswish(),
        nn.Conv2d(24, 48, 1), nn.Conv2d(48, 48, 3, 1, 1, groups=4), nn.PReLU(48),
    )  # fmt: skip


class Attention(nn.Module):
    """A block of a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 8, 8)
        self.places = nn.Parameter(torch.randn(1, 32, 48))
        self.norm = nn.LayerNorm(48)
        self.qkv, self.out = nn.Linear(48, 144), nn.Linear(48, 48)
        self.mlp = nn.Sequential(nn.Linear(48, 192), nn.GELU(), nn.Linear(192, 48))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.places
        q, k, v = self.qkv(self.norm(x)).reshape(1, 32, 3, 4, 12).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)) / 12**0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(1, 32, 48))
        return x + self.mlp(x)


class Einsums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 16, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.einsum("bchw,kcd->bkdhw", x, self.weight)
        return torch.einsum("bkdhw,bkehw->bde", y, y)


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], bidirectional: bool) -> None:
        super().__init__()
        self.cell = cell(20, 16, bidirectional=bidirectional, batch_first=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0]


def recurrent(cell: type[nn.RNNBase], gates: int, directions: int) -> Counted:
    """(T, B, I) = (7, 2, 20), 16 hidden: each step of each direction multiplies both matrices."""
    module = Recurrent(cell, directions == 2).eval()
    parameters = sum(item.numel() for item in module.parameters())
    graph = export_onnx(module, [np.zeros((7, 2, 20), np.float32)])
    return graph, 7 * 2 * directions * gates * 16 * (20 + 16), parameters


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 24), nn.Linear(24, 50, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table((x * 0).long()))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.permute(0, 3, 1, 2))


def quantised(form: str) -> Counted:
    """By ONNX Runtime's own tools, from the plain network."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        quantize_dynamic,
        quantize_static,
    )

    graph, macs, parameters = exported(plain(), 1, 3, 32, 48)
    if form == "dynamic":
        return _by_file(graph, quantize_dynamic), macs, parameters

    class Once(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"in0": GENERATOR.standard_normal((1, 3, 32, 48), dtype=np.float32)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    kind = QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator

    def write(a: Path, b: Path) -> None:
        quantize_static(a, b, Once(), quant_format=kind, per_channel=form == "qdq")

    return _by_file(graph, write), macs, parameters


def _by_file(graph: bytes, write: Callable[[Path, Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        first.write_bytes(graph)
        write(first, second)
        return second.read_bytes()


def fused(module: nn.Module, *shape: int) -> Counted:
    """As ONNX Runtime rewrites it: kinds of its own domain."""
    import onnxruntime

    graph, macs, parameters = exported(module, *shape)

    def write(a: Path, b: Path) -> None:
        options = onnxruntime.SessionOptions()
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(b)
        onnxruntime.InferenceSession(a, options, providers=["CPUExecutionProvider"])

    return _by_file(graph, write), macs, parameters


def in_half_precision() -> Counted:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph, macs, parameters = exported(separable(), 1, 3, 32, 48)
    half = convert_float_to_float16(onnx.load_from_string(graph))
    return half.SerializeToString(), macs, parameters


def in_constants() -> Counted:
    """Weights in Constant nodes, as Paddle's and older exporters write them."""
    graph, macs, parameters = exported(plain(), 1, 3, 32, 48)
    model = onnx.load_from_string(graph)
    made = [helper.make_node("Constant", [], [x.name], value=x) for x in model.graph.initializer]
    nodes = [*made, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString(), macs, parameters


WEIGHT = numpy_helper.from_array(
    GENERATOR.standard_normal((8, 8, 3, 3), dtype=np.float32), "weight"
)
CONV_MACS, CONV_PARAMETERS = 8 * 16 * 24 * 8 * 9, 8 * 8 * 9


def _value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _conv(source: str, target: str, weight: str = "weight") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], pads=[1, 1, 1, 1])


def _model(nodes: list[onnx.NodeProto], *more: onnx.TensorProto, **options) -> bytes:
    image = _value("x", 1, 8, 16, 24)
    graph = helper.make_graph(nodes, "g", [image], [_value("y", 1, 8, 16, 24)], [WEIGHT, *more])
    imports = [helper.make_opsetid("", 17), *options.pop("imports", [])]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=8, **options
    ).SerializeToString()


def _body(inputs: list, nodes: list[onnx.NodeProto], outputs: list) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def branches() -> Counted:
    """One branch convolves twice, the other once: the larger one counts, the weight once."""
    twice = _body([], [_conv("x", "a"), _conv("a", "b")], [_value("b", 1, 8, 16, 24)])
    once = _body([], [_conv("x", "c")], [_value("c", 1, 8, 16, 24)])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["is_positive"], to=TensorProto.BOOL),
        helper.make_node("If", ["is_positive"], ["y"], then_branch=twice, else_branch=once),
    ]
    return _model(nodes), 2 * CONV_MACS, CONV_PARAMETERS


def repeated(length: int = 5) -> Counted:
    body = _body(
        [_value("i", kind=TensorProto.INT64), _value("go", kind=TensorProto.BOOL),
         _value("state", 1, 8, 16, 24)],
        [_conv("state", "next"), helper.make_node("Identity", ["go"], ["on"])],
        [_value("on", kind=TensorProto.BOOL), _value("next", 1, 8, 16, 24)],
    )  # fmt: skip
    count = numpy_helper.from_array(np.array(length, np.int64), "count")
    nodes = [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)]
    return _model(nodes, count), length * CONV_MACS, CONV_PARAMETERS


def scanned() -> Counted:
    """Over the rows of a (16, 24) map: each by a (24, 24) matrix of the graph around it."""
    weight = numpy_helper.from_array(np.ones((24, 24), np.float32), "matrix")
    body = _body(
        [_value("row", 24)], [helper.make_node("MatMul", ["row", "matrix"], ["made"])],
        [_value("made", 24)],
    )  # fmt: skip
    nodes = [helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)]
    graph = helper.make_graph(nodes, "g", [_value("x", 16, 24)], [_value("y", 16, 24)], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), 16 * 24 * 24, 24 * 24


def by_function() -> Counted:
    """A local function that calls another one."""
    inner = helper.make_function(
        "mine", "Inner", ["a", "w"], ["b"], [_conv("a", "b", "w")], [helper.make_opsetid("", 17)]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    calls = [
        helper.make_node("Inner", ["a", "w"], ["m"], domain="mine"),
        helper.make_node("Inner", ["m", "w"], ["b"], domain="mine"),
    ]
    outer = helper.make_function("mine", "Outer", ["a", "w"], ["b"], calls, imports)
    nodes = [helper.make_node("Outer", ["x", "weight"], ["y"], domain="mine")]
    content = _model(nodes, functions=[inner, outer], imports=[helper.make_opsetid("mine", 1)])
    return content, 2 * CONV_MACS, CONV_PARAMETERS


def normalised() -> Counted:
    """A norm with running statistics, which training does not change by gradients."""
    more = [
        numpy_helper.from_array(np.ones(8, np.float32), name)
        for name in ("scale", "shift", "mean", "variance")
    ]
    norm = helper.make_node(
        "BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["y"]
    )
    return _model([_conv("x", "a"), norm], *more), CONV_MACS, CONV_PARAMETERS + 16


def integer_products() -> Counted:
    """MatMulInteger and ConvInteger with weights of 8 bits."""
    left = numpy_helper.from_array(np.ones((8, 8, 1, 1), np.int8), "w8")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w8", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    return _model(nodes, left), 8 * 16 * 24 * 8, 64


GRAPHS: dict[str, Callable[[], Counted]] = {
    "convolutions": lambda: exported(plain(), 1, 3, 32, 48),
    "batch of four": lambda: _per_image(exported(plain(), 4, 3, 32, 48), 4),
    "depthwise": lambda: exported(separable(), 1, 3, 32, 48),
    "transposed": lambda: exported(nn.ConvTranspose2d(6, 10, 4, 2, 1, groups=2), 1, 6, 9, 12),
    "one axis": lambda: exported(nn.Conv1d(8, 12, 5, 2, 2), 1, 8, 50),
    "three axes": lambda: exported(nn.Conv3d(4, 6, 3, 1, 1), 1, 4, 5, 6, 7),
    "linear": lambda: exported(nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 7, False)), 1, 30),
    "attention": lambda: exported(Attention(), 1, 3, 32, 64),
    "attention, fused": lambda: fused(Attention(), 1, 3, 32, 64),
    "convolutions, fused": lambda: fused(separable(), 1, 3, 32, 48),
    "lstm": lambda: recurrent(nn.LSTM, 4, 2),
    "gru": lambda: recurrent(nn.GRU, 3, 1),
    "rnn": lambda: recurrent(nn.RNN, 1, 2),
    "einsum": lambda: exported(Einsums(), 1, 16, 5, 8),
    "embedding": lambda: exported(Embedded(), 1, 9),
    "channels last": lambda: exported(ChannelsLast(), 1, 32, 48, 3),
    "quantised, QDQ": lambda: quantised("qdq"),
    "quantised, QOperator": lambda: quantised("operator"),
    "quantised, dynamic": lambda: quantised("dynamic"),
    "half precision": in_half_precision,
    "weights in constants": in_constants,
    "if": branches,
    "loop": repeated,
    "scan": scanned,
    "local functions": by_function,
    "batch norm": normalised,
    "integers": integer_products,
}


def _per_image(counted: Counted, batch: int) -> Counted:
    graph, macs, parameters = counted
    return graph, macs // batch, parameters


@pytest.mark.parametrize("name", GRAPHS)
def test_counts_agree_with_an_independent_one(name: str) -> None:
    graph, macs, parameters = GRAPHS[name]()
    found = cost_of_onnx(read_onnx(graph))
    assert found.macs == pytest.approx(macs, rel=0.01), found.why_unknown
    assert found.parameters == pytest.approx(parameters, rel=0.01)


def single(
    kind: str, inputs: dict[str, tuple[int, ...] | None], output: tuple[int, ...],
    domain: str = "com.microsoft", constants: tuple[str, ...] = (), **attributes: object,
) -> bytes:  # fmt: skip
    """One node of declared shapes; inputs without a shape are left out."""
    names = [name if shape is not None else "" for name, shape in inputs.items()]
    shapes = {name: shape for name, shape in inputs.items() if shape is not None}
    node = helper.make_node(kind, names, ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node], "g",
        [_value(name, *shape) for name, shape in shapes.items() if name not in constants],
        [_value("y", *output)],
        [numpy_helper.from_array(np.ones(shapes[name], np.float32), name) for name in constants],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 23)]
    imports += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


B, S, D, HEADS = 2, 6, 16, 4
SINGLE = {
    # Shapes as in ONNX Runtime, "Contrib operators"; multiply-accumulates of one run.
    "heads": (
        single("MultiHeadAttention", {"q": (B, S, D), "k": (B, 9, D), "v": (B, 9, D)}, (B, S, D),
               num_heads=HEADS),
        2 * B * S * 9 * D,
    ),
    "heads with past": (
        single("MultiHeadAttention", {"q": (B, S, D), "k": (B, 9, D), "v": (B, 9, D), "b": None,
               "m": None, "r": None, "pk": (B, HEADS, 20, 4), "pv": (B, HEADS, 20, 4)}, (B, S, D),
               num_heads=HEADS),
        2 * B * S * 29 * D,
    ),
    "heads, keys and values packed": (
        single("MultiHeadAttention", {"q": (B, S, D), "kv": (B, 9, HEADS, 2, 4)}, (B, S, D),
               num_heads=HEADS),
        2 * B * S * 9 * D,
    ),
    "heads, all packed": (
        single("MultiHeadAttention", {"qkv": (B, S, HEADS, 3, 4)}, (B, S, D), num_heads=HEADS),
        2 * B * S * S * D,
    ),
    "heads, keys by head": (
        single("MultiHeadAttention", {"q": (B, S, D), "k": (B, HEADS, 9, 4), "v": (B, HEADS, 9, 4)},
               (B, S, D), num_heads=HEADS),
        2 * B * S * 9 * D,
    ),
    "self-attention": (
        single("Attention", {"x": (B, S, D), "w": (D, 3 * D), "b": (3 * D,)}, (B, S, D),
               num_heads=HEADS, constants=("w", "b")),
        B * S * D * 3 * D + 2 * B * S * S * D,
    ),
    "quantised self-attention with past": (
        single("QAttention", {"x": (B, S, D), "w": (D, 3 * D), "b": (3 * D,), "s": (1,), "t": (1,),
               "m": None, "z": (1,), "u": (1,), "p": (2, B, HEADS, 5, 4)}, (B, S, D),
               num_heads=HEADS, constants=("w", "b")),
        B * S * D * 3 * D + 2 * B * S * (S + 5) * D,
    ),
    "weights of four bits": (
        single("MatMulNBits", {"x": (B, S, 32), "w": (24, 1, 16), "s": (24,)}, (B, S, 24), K=32,
               N=24, bits=4, block_size=32, constants=("w", "s")),
        B * S * 32 * 24,
    ),
    "deformable": (
        single("DeformConv", {"x": (1, 8, 9, 9), "w": (6, 8, 3, 3), "o": (1, 18, 7, 7)},
               (1, 6, 7, 7), domain="", constants=("w",)),
        6 * 49 * 8 * 9,
    ),
    "ONNX's attention": (
        single("Attention", {"q": (B, HEADS, S, 4), "k": (B, HEADS, 9, 4), "v": (B, HEADS, 9, 8)},
               (B, HEADS, S, 8), domain=""),
        B * HEADS * S * 9 * (4 + 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_kinds_of_other_domains(name: str) -> None:
    graph, macs = SINGLE[name]
    found = cost_of_onnx(read_onnx(graph))
    workload = read_onnx(graph)
    assert found.macs == macs // (workload.batch or 1), found.why_unknown


def test_packed_weights_count_by_their_attributes() -> None:
    assert cost_of_onnx(read_onnx(SINGLE["weights of four bits"][0])).parameters == 32 * 24
    assert cost_of_onnx(read_onnx(SINGLE["self-attention"][0])).parameters == 3 * D * (D + 1)


def test_what_is_drawn_at_random_is_multiplied_too() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[1, 8, 16, 24]),
        _conv("r", "a"),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    assert cost_of_onnx(read_onnx(_model(nodes))).macs == CONV_MACS


def sized_by_values() -> bytes:
    """As many rows as there are positive values, by a matrix."""
    matrix = numpy_helper.from_array(np.ones((4, 4), np.float32), "matrix")
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["places"]),
        helper.make_node("Cast", ["places"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["matrix", "rows"], ["y"]),
    ]
    model = onnx.load_from_string(_model(nodes, matrix))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, None]))
    return model.SerializeToString()


def endless() -> bytes:
    return repeated(2**63 - 1)[0]


def of_unknown_domain(kind: str) -> bytes:
    return single(kind, {"x": (4, 8), "w": (8, 8)}, (4, 8), domain="somebody")


def unknown_kind() -> bytes:
    node = helper.make_node("Mystery", ["x", "weight"], ["y"], domain="somebody")
    return _model([node], imports=[helper.make_opsetid("somebody", 1)])


def unknown_length() -> bytes:
    body = onnx.load_from_string(repeated()[0]).graph.node[0].attribute[0].g
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
        helper.make_node("Loop", ["count", "", "x"], ["y"], body=body),
    ]
    return _model(nodes)


def unknown_kind_in_a_branch() -> bytes:
    model = onnx.load_from_string(branches()[0])
    body = model.graph.node[2].attribute[0].g
    body.node[0].op_type, body.node[0].domain = "Mystery", "somebody"
    model.opset_import.append(helper.make_opsetid("somebody", 1))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (unknown_kind, "somebody.Mystery"),
        (unknown_kind_in_a_branch, "somebody.Mystery"),
        (unknown_length, "how often .*Loop"),
        (endless, "how often .*Loop"),
        (sized_by_values, "rows.*not known before it runs|places.*|y.*not known before it runs"),
        (lambda: of_unknown_domain("MatMul"), "somebody.MatMul"),
        (lambda: of_unknown_domain("Scaler"), "somebody.Scaler"),
        (
            lambda: single("AffineGrid", {"x": (1, 2, 3), "s": (4,)}, (1, 8, 8, 2), domain=""),
            "AffineGrid",
        ),
    ],
)
def test_what_cannot_be_counted_is_unknown_and_says_why(
    graph: Callable[[], bytes], reason: str
) -> None:
    found = cost_of_onnx(read_onnx(graph()))
    assert found.macs is None
    assert re.search(reason, found.why_unknown)


def test_a_loop_without_products_needs_no_length() -> None:
    model = onnx.load_from_string(unknown_length())
    body = model.graph.node[2].attribute[0].g
    body.node[0].CopyFrom(helper.make_node("Relu", ["state"], ["next"]))
    assert cost_of_onnx(read_onnx(model.SerializeToString())).macs == 0
