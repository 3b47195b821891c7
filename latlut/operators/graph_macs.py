"""Multiply-accumulates of an ONNX graph: what its nodes multiply, or that they cannot be counted.

Counted are convolutions, matrix products, recurrent cells, Einsum and attention, quantised or not,
in bodies and local functions too. By definition not counted: norms, activations, pooling,
interpolation, element-wise sums and products. A node of another domain whose kind is not known
here, and a size that is not known before running, make the whole count unknown.

Of an If the larger branch counts, of a Loop its greatest length: an upper bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from latlut.operators.graph_view import Scope, Shape, attributes_of
from latlut.operators.onnx_nodes import bodies_of

#: Of domains other than ONNX's own: kinds without products, and reorderings.
_WITHOUT_PRODUCTS = {
    "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat",
    "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSoftmax", "QLinearReduceMean",
    "QLinearWhere", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Gelu",
    "BiasGelu", "FastGelu", "QuickGelu", "BiasAdd", "BiasSoftmax", "BiasDropout", "BiasSplitGelu",
    "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "GroupNorm", "SkipGroupNorm",
    "RotaryEmbedding", "ReorderInput", "ReorderOutput", "NhwcMaxPool", "GridSample", "Trilu",
    "Unique", "Crop", "MaxpoolWithMask", "Pad", "Inverse", "IsAllFinite", "ExpandDims", "Range",
    "GatherND", "GatherBlockQuantized", "ArrayFeatureExtractor", "Binarizer", "CastMap",
    "CategoryMapper", "DictVectorizer", "FeatureVectorizer", "Imputer", "LabelEncoder",
    "Normalizer", "OneHotEncoder", "Scaler", "ZipMap", "TreeEnsemble", "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
}  # fmt: skip
#: Parts of the names of ONNX's own kinds that multiply. Those without a rule are not known here.
_MULTIPLYING = re.compile(
    "Attention|Conv|MatMul|Gemm|(?<!antize)Linear|RNN|LSTM|GRU|Affine|Einsum|DFT|STFT|Det$"
)
_OWN_DOMAINS = ("", "ai.onnx")
#: ONNX Runtime's own, whose kinds are in the table of rules as well.
_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_LEARNING_DOMAIN = "ai.onnx.ml"
#: A loop of more runs than this ends by its condition, after nobody knows how many.
_MOST_RUNS = 1 << 31


class UncountedError(Exception):
    """Why a graph's multiply-accumulates are not known."""


def count_macs(scope: Scope) -> int:
    """Multiply-accumulates of one run.

    Raises:
        UncountedError: they cannot be counted; says which node and why.
    """
    return sum(node_macs(node, scope) for node in scope.nodes if scope.varying & {*node.output})


def node_macs(node: Any, scope: Scope) -> int:
    """Those of one node of the scope.

    Raises:
        UncountedError: see ``count_macs``.
    """
    kind, is_own = node.op_type, node.domain in _OWN_DOMAINS
    rule = _RULES.get(kind) if is_own or node.domain in _RUNTIME_DOMAINS else None
    if rule is None:
        if is_own and bodies_of(node):
            return _body_macs(node, scope)
        is_other = node.domain in (*_RUNTIME_DOMAINS, _LEARNING_DOMAIN)
        without = (
            not _MULTIPLYING.search(kind) if is_own else is_other and kind in _WITHOUT_PRODUCTS
        )
        if not without:
            raise UncountedError(f"nothing is known of what {_called(node)} multiplies")
        return 0
    try:
        return rule(node, scope)
    except KeyError as error:
        raise UncountedError(
            f"the shape of {error.args[0]!r} at {_called(node)} is not known before it runs"
        ) from None
    except (IndexError, ValueError, TypeError) as error:
        raise UncountedError(f"{_called(node)} is not what ONNX describes: {error}") from None


def _called(node: Any) -> str:
    kind = node.op_type if node.domain in _OWN_DOMAINS else f"{node.domain}.{node.op_type}"
    return f"{kind} {node.name!r}" if node.name else f"the {kind} that gives {node.output[0]!r}"


def _body_macs(node: Any, scope: Scope) -> int:
    counts = [count_macs(scope.body(graph)) for graph in bodies_of(node)]
    if node.op_type == "If":
        return max(counts)
    if not any(counts):
        return 0
    if node.op_type == "Loop":
        sources = list(scope.sources(node.input[0])) if node.input[0] else []
        length = scope.constants[sources[0]].value if len(sources) == 1 else None
        if length is None or length > _MOST_RUNS:
            raise UncountedError(f"how often {_called(node)} repeats is not known before it runs")
        return max(0, length) * counts[0]
    if node.op_type == "Scan":
        attributes = attributes_of(node)
        scanned = attributes["num_scan_inputs"]
        axis = attributes.get("scan_input_axes", [0] * scanned)[0]
        first = node.input[len(node.input) - scanned]
        if first not in scope.shapes:
            raise UncountedError(f"how often {_called(node)} repeats is not known before it runs")
        return scope.shapes[first][axis] * counts[0]
    raise UncountedError(f"how often {_called(node)} runs its body is not known")


Rule = Callable[[Any, Scope], int]


def _shape(scope: Scope, name: str) -> Shape:
    return scope.shapes[name]


def _convolution(weight_at: int) -> Rule:
    """Weight (out, in / groups, *kernel); each output element takes one filter."""

    def rule(node: Any, scope: Scope) -> int:
        weight = _shape(scope, node.input[weight_at])
        return math.prod(_shape(scope, node.output[0])) * math.prod(weight[1:])

    return rule


def _transposed_convolution(node: Any, scope: Scope) -> int:
    """Weight (in, out / groups, *kernel); each input element takes one filter."""
    image, weight = (_shape(scope, name) for name in node.input[:2])
    return math.prod(image) * math.prod(weight[1:])


def _product(node: Any, scope: Scope) -> int:
    """(..., M, K) by (..., K, N); ``transA`` swaps the first's last two axes."""
    attributes = attributes_of(node)
    first = _shape(scope, node.input[0])
    depth = first[-2] if attributes.get("transA") and len(first) > 1 else first[-1]
    return math.prod(_shape(scope, node.output[0])) * depth


def _packed_product(node: Any, scope: Scope) -> int:
    """By weights of a few bits, whose shape (K, N) is in the attributes."""
    return math.prod(_shape(scope, node.output[0])) * int(attributes_of(node)["K"])


def _recurrent(node: Any, scope: Scope) -> int:
    """Input (T, B, I), weights (D, gates, I) and (D, gates, H): each step multiplies them all."""
    sequence, weight, recurrence = (_shape(scope, name) for name in node.input[:3])
    steps = math.prod(sequence[:2])
    return steps * (math.prod(weight) + math.prod(recurrence))


def _einsum(node: Any, scope: Scope) -> int:
    """Operands contracted from left to right; each contraction goes over all letters in it."""
    equation = attributes_of(node)["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    shapes = [_shape(scope, name) for name in node.input]
    terms = [_letters(term, shape) for term, shape in zip(left.split(","), shapes, strict=True)]
    sizes: dict[Any, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, side in zip(term, shape, strict=True):
            sizes[letter] = max(side, sizes.get(letter, 1))
    every = [letter for term in terms for letter in term]
    kept = set(_letters(right, None, every)) if arrow else {x for x in every if every.count(x) == 1}
    total, current = 0, set(terms[0])
    for index, term in enumerate(terms[1:], 1):
        joined = current | set(term)
        total += math.prod(sizes[letter] for letter in joined)
        later = {letter for rest in terms[index + 1 :] for letter in rest}
        current = joined & (kept | later)
    return total


def _letters(term: str, shape: Shape | None, every: Sequence[Any] = ()) -> list[Any]:
    """The axes of a term; those of an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    if shape is None:
        hidden = sorted({x for x in every if isinstance(x, int)})
    else:
        hidden = list(range(len(before) + len(after) - len(shape), 0))
    return [*before, *hidden, *after]


def _scores(query: Shape, keys: int, values: int) -> int:
    """Queries (B, S, D) by keys, and their weights by values of so many channels."""
    rows = math.prod(query[:-1])
    return rows * keys * (query[-1] + values)


def _optional(node: Any, position: int) -> str:
    """The name of an input, empty where it is not given."""
    return str(node.input[position]) if len(node.input) > position else ""


def _self_attention(node: Any, scope: Scope) -> int:
    """com.microsoft.Attention: input (B, S, I), weights (I, q + k + v) for all three."""
    image, weight = (_shape(scope, name) for name in node.input[:2])
    output = _shape(scope, node.output[0])
    hidden = attributes_of(node).get("qkv_hidden_sizes", [weight[1] // 3] * 3)
    past = _optional(node, 4 if node.op_type == "Attention" else 8)
    keys = image[1] + (_shape(scope, past)[3] if past else 0)
    projection = math.prod(image) * weight[1]
    return projection + _scores((*image[:2], hidden[0]), keys, output[-1])


def _attention(node: Any, scope: Scope) -> int:
    """ONNX's Attention: (B, heads, S, D) or (B, S, heads * D); com.microsoft's of that name."""
    if node.domain not in _OWN_DOMAINS:
        return _self_attention(node, scope)
    query, key, value = (_shape(scope, name) for name in node.input[:3])
    past = _optional(node, 4)
    keys = key[-2] + (_shape(scope, past)[-2] if past else 0)
    if len(query) == 4:
        return _scores(query, keys, value[-1])
    attributes = attributes_of(node)
    heads, groups = int(attributes["q_num_heads"]), int(attributes["kv_num_heads"])
    return _scores(query, keys, value[-1] // groups * heads)


def _head_attention(node: Any, scope: Scope) -> int:
    """com.microsoft.MultiHeadAttention.

    Queries (B, S, D) with keys (B, L, D), (B, heads, L, d) or, packed with values,
    (B, L, heads, 2, d); or all three packed, (B, S, heads, 3, d). Values give the output (B, S, V).
    """
    query, output = _shape(scope, node.input[0]), _shape(scope, node.output[0])
    if len(query) == 5:
        keys, channels = query[1], query[2] * query[4]
    else:
        key = _shape(scope, node.input[1])
        keys, channels = key[2 if len(key) == 4 else 1], query[-1]
    past = _optional(node, 6)
    keys += _shape(scope, past)[2] if past else 0
    return _scores((*query[:2], channels), keys, output[-1])


def _group_attention(node: Any, scope: Scope) -> int:
    """com.microsoft.GroupQueryAttention; output 1 holds all keys, (B, groups, L, D)."""
    output = _shape(scope, node.output[0])
    keys = _shape(scope, node.output[1])[2]
    return _scores(output, keys, output[-1])


#: Kind of node -> what it multiplies. Sources: ONNX operator schemas; ONNX Runtime, "Contrib
#: operators".
_RULES: dict[str, Rule] = {
    "Conv": _convolution(1), "FusedConv": _convolution(1), "NhwcConv": _convolution(1),
    "NhwcFusedConv": _convolution(1), "ConvInteger": _convolution(1), "DeformConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "ConvTransposeWithDynamicPads": _transposed_convolution,
    "Gemm": _product, "FusedGemm": _product, "QGemm": _product, "GemmFloat8": _product,
    "MatMul": _product, "FusedMatMul": _product, "TransposeMatMul": _product,
    "MatMulInteger": _product, "MatMulInteger16": _product, "QLinearMatMul": _product,
    "MatMulIntegerToFloat": _product, "DynamicQuantizeMatMul": _product, "GemmFastGelu": _product,
    "FusedMatMulActivation": _product,
    "MatMulNBits": _packed_product, "MatMulBnb4": _packed_product, "MatMulFpQ4": _packed_product,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent, "DynamicQuantizeLSTM": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention, "QAttention": _self_attention, "MultiHeadAttention": _head_attention,
    "GroupQueryAttention": _group_attention,
}  # fmt: skip
