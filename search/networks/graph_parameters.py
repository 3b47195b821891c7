"""Parameters of an ONNX graph: the values that training changes, told by what reads them.

Counted are the weights and biases of convolutions, products, recurrent cells and attention, the
scale and shift of norms, slopes of PReLU, tables that Gather looks up, and tensors of more than
one element that are added or multiplied. Not counted: running means and variances, scales and zero
points of quantisation, shapes, axes and other settings. A tensor that several nodes read, or that
comes through casts, transpositions or dequantisation, counts once.

Norms that were folded into convolutions are no longer there to be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latlut.operators.graph_view import Scope, attributes_of
from latlut.operators.onnx_nodes import bodies_of

#: Kind of node -> the inputs that training changes. Sources: ONNX operator schemas; ONNX Runtime,
#: "Contrib operators".
_TRAINED: dict[str, Sequence[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "NhwcConv", "NhwcFusedConv"), (1, 2)),
    **dict.fromkeys(("ConvTransposeWithDynamicPads",), (1, 3)),
    "ConvInteger": (1,), "DeformConv": (1, 3), "QLinearConv": (3, 8),
    **dict.fromkeys(("Gemm", "FusedGemm", "GemmFastGelu"), (0, 1, 2)),
    **dict.fromkeys(("MatMul", "FusedMatMul", "TransposeMatMul", "MatMulInteger"), (0, 1)),
    "FusedMatMulActivation": (0, 1), "MatMulInteger16": (0, 1), "GemmFloat8": (0, 1, 2),
    "QLinearMatMul": (0, 3), "QGemm": (0, 3, 6), "MatMulIntegerToFloat": (0, 1, 6),
    "DynamicQuantizeMatMul": (1, 4), "MatMulNBits": (1, 5),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (1, 2, 3, 7)),
    **dict.fromkeys(("Attention", "QAttention"), (1, 2)), "MultiHeadAttention": (3,),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization",
         "RMSNormalization", "SimplifiedLayerNormalization", "GroupNorm"), (1, 2),
    ),
    "SkipLayerNormalization": (2, 3, 4), "SkipSimplifiedLayerNormalization": (2, 3),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6), "SkipGroupNorm": (1, 2, 4),
    **dict.fromkeys(("BiasGelu", "FastGelu", "BiasAdd", "BiasSplitGelu", "PRelu"), (1,)),
    "QLinearAdd": (0, 3), "QLinearMul": (0, 3),
}  # fmt: skip
#: Kinds of which any tensor of more than one element is taken for trained.
_ANY_TENSOR = {"Add", "Mul", "Einsum", "Sum"}
_LOOKED_UP = {"Gather", "GatherBlockQuantized"}
#: Weights packed into bytes: their number is in the attributes.
_PACKED = {"MatMulNBits", "MatMulBnb4", "MatMulFpQ4"}


def count_parameters(scope: Scope) -> int:
    """The number of values in the graph, bodies included, that training changes."""
    return sum(_found(scope).values())


def _found(scope: Scope) -> dict[str, int]:
    """Name of a constant -> how many values of it count."""
    found: dict[str, int] = {}
    for node in scope.nodes:
        for body in bodies_of(node):
            found |= {f"{node.output[0]}/{name}" if name not in scope.constants else name: size
                      for name, size in _found(scope.body(body)).items()}  # fmt: skip
        for position in _positions(node, scope):
            for name in scope.sources(node.input[position]):
                found[name] = scope.constants[name].size
        if node.op_type in _PACKED and node.input[1] in scope.constants:
            attributes = attributes_of(node)
            found[node.input[1]] = int(attributes["K"]) * int(attributes["N"])
    return found


def _positions(node: Any, scope: Scope) -> list[int]:
    kind = node.op_type
    positions: Sequence[int] = _TRAINED.get(kind, ())
    if kind == "Attention" and node.domain in ("", "ai.onnx"):
        positions = ()  # queries, keys and values are computed by others
    if kind in _LOOKED_UP:
        positions = [0] if _is_table(node.input[0], scope) else []
    elif kind in _ANY_TENSOR:
        positions = [
            index
            for index, name in enumerate(node.input)
            if any(
                scope.constants[source].size > 1
                and (scope.constants[source].is_float or source != name)
                for source in scope.sources(name)
            )
            and _is_varying(node, scope)
        ]
    return [index for index in positions if index < len(node.input) and node.input[index]]


def _is_varying(node: Any, scope: Scope) -> bool:
    return bool(scope.varying & {*node.output})


def _is_table(name: str, scope: Scope) -> bool:
    """Whether rows of weights are looked up, not sides of a shape."""
    sources = [scope.constants[source] for source in scope.sources(name)]
    return any(
        item.rank >= 2 and (item.is_float or name not in scope.constants) for item in sources
    )
