"""OpSpec: one operator with its shapes, the key of everything that latlut measures.

An op spec names all that changes the timed graph: operator, input maps, output channels,
stride, batch, and the operator's options (kernel size, groups, dilation, interpolation,
skip form, ...). Its canonical text is its key in the table and what people type:

    conv 64->96 stride 1 at 128x256
    zoomed_conv 64->96 stride 1 at 128x256 interpolation=nearest
    refine 256,128->128 stride 1 at 8x16,16x32 batch=2
    conv 64->96 stride 2 at 128x256 kernel_size=1x7 stride_width=1

Several input maps are separated by commas, sizes are height x width, options follow in
alphabetical order and are left out where they have their default. ``stride 2x1`` may be
typed for a stride of 2 along the height and 1 along the width.

A network, for latlut, is anything with ``op_specs()``; where it has to be built and run
it is a graph of ``Node``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any, Protocol, SupportsIndex, TypeAlias, runtime_checkable

from latlut.errors import SpecError

OptionValue: TypeAlias = int | str | tuple[int, ...]

#: One option with its default for every operator. An option equal to its default is not part
#: of the key, so that "conv" and "conv kernel_size=3" are the same op spec.
OPTION_DEFAULTS: Mapping[str, OptionValue] = {
    "kernel_size": 3,
    "groups": 1,
    "dilation": 1,
    "interpolation": "bilinear",  # align_corners=True, as in FasterSeg
    "form": "derived",  # of a skip: derived | searched | identity | single
}

_RELU: Mapping[str, OptionValue] = {"activation": "relu"}
#: The same for options whose default is one kind's own.
KIND_DEFAULTS: Mapping[str, Mapping[str, OptionValue]] = {
    "conv": _RELU,
    "conv_2x": _RELU,
    "depthwise_separable": _RELU,
    "inverted_residual": {**_RELU, "expansion": 6},
    "transposed_conv": _RELU,
    "linear": {"activation": "none"},
    "add": {"activation": "none"},
    "attention_block": {"activation": "gelu", "heads": 1, "mlp_ratio": 0},
}
_DEFAULTS = {kind: {**OPTION_DEFAULTS, **own} for kind, own in KIND_DEFAULTS.items()}

#: Options of which a pair is (height, width); two equal ones are written as one number.
PAIRS = frozenset({"kernel_size", "dilation", "padding"})

MAX_DIMENSION = 1 << 16
#: Of one map: 4 GB in float32.
MAX_ELEMENTS = 1 << 30
#: Input maps of one operator, and options of one.
MAX_INPUTS = MAX_OPTIONS = 256
#: Characters of an op spec as text.
MAX_TEXT = 1 << 14

_WORD = re.compile(r"[a-z][a-z0-9_.]*")
_TEXT = re.compile(
    r"(?P<kind>\S+)\s+(?P<channels>[0-9,]+)\s*->\s*(?P<out>[0-9]+)"
    r"(?:\s+stride\s+(?P<stride>[0-9]+(?:x[0-9]+)?))?\s+at\s+(?P<sizes>[0-9x,]+)"
    r"(?P<options>(?:\s+\S+)*)\s*",
    re.IGNORECASE,
)
GRAMMAR = (
    'an operator configuration reads like "conv 64->96 stride 1 at 128x256", '
    'options as "kernel_size=5 batch=2", several inputs as "refine 256,128->128 at 8x16,16x32"'
)


def _positive_int(name: str, value: object, limit: int = MAX_DIMENSION) -> int:
    if type(value) is int:  # nearly always; asking for the protocol takes ten times as long
        number = value
    elif isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise SpecError(f"{name} must be a whole number, received {value!r:.80}")
    else:
        number = index(value)
    if not 1 <= number <= limit:
        raise SpecError(f"{name} must be between 1 and {limit}, received {_shown(number)}")
    return number


def _read_int(text: str) -> int:
    """The number that ASCII digits write; capped, since a longer one is out of range anyway."""
    return int(text) if len(text) <= 18 else 10**18


def _shown(number: int) -> str:
    return str(number) if abs(number) < 10**18 else "a number beyond 10^18"


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from ``"128x256"``; both between 1 and 65536.

    Raises:
        SpecError: the text is not HxW or a side is out of range.
    """
    match = re.fullmatch(r"\s*([0-9]+)\s*x\s*([0-9]+)\s*", text)
    if match is None:
        raise SpecError(f"a size is HEIGHTxWIDTH, for instance 256x512; received {text!r}")
    height, width = _read_int(match[1]), _read_int(match[2])
    return _positive_int("height", height), _positive_int("width", width)


def _canonical_option(name: str, value: object) -> OptionValue:
    if not _WORD.fullmatch(name):
        raise SpecError(f"option names are lower-case words, received {name!r}")
    if isinstance(value, str):
        if not re.fullmatch(r"[A-Za-z_][\w.]*", value):
            raise SpecError(f"option {name}: a text value is one word, received {value!r}")
        return value
    if isinstance(value, (tuple, list)):
        if len(value) < 2:
            raise SpecError(f"option {name}: a size has two numbers or more, received {value!r}")
        if name == "padding" and len(value) == 2:
            first, second = (_canonical_option(name, item) for item in value)
            return first if first == second else (first, second)  # type: ignore[return-value]
        sides = tuple(_positive_int(f"option {name}", item) for item in value)
        is_square = len(sides) == 2 and sides[0] == sides[1]
        return sides[0] if name in PAIRS and is_square else sides
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise SpecError(
            f"option {name}: expected a whole number, a word or a size, received {value!r}"
        )
    number = index(value)
    if not 0 <= number <= MAX_DIMENSION:
        raise SpecError(
            f"option {name} must be between 0 and {MAX_DIMENSION}, received {_shown(number)}"
        )
    return number


def _parse_option(text: str) -> tuple[str, OptionValue]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise SpecError(f"cannot read {text!r}: options are name=value; {GRAMMAR}")
    if re.fullmatch(r"[0-9]+", value):
        return name, _read_int(value)
    if re.fullmatch(r"[0-9]+(x[0-9]+)+", value):
        return name, tuple(_read_int(part) for part in value.split("x"))
    return name, value


@dataclass(frozen=True, init=False, eq=True, repr=False)
class OpSpec:
    """An operator with its shapes. Hashable; equal specs have equal keys.

    Raises:
        SpecError: a shape, stride, batch or option that is not positive, not whole or too large.
    """

    kind: str
    """Name of a registered operator, for instance ``"conv_2x"``."""
    inputs: tuple[tuple[int, int, int], ...]
    """(C, H, W) of the input map, or several of them. The last one sets the output size."""
    out_channels: int
    """Channels of the output map."""
    stride: int
    """Downsampling of the last input; the output is ceil(H / stride) x ceil(W / stride) unless the
    option ``out_size`` says otherwise. The option ``stride_width`` is that along the width where
    it differs (``strides``)."""
    batch: int
    """Images per inference."""
    options: tuple[tuple[str, OptionValue], ...]
    """What else changes the timed graph; integers, words, or sizes as tuples."""

    def __init__(
        self,
        kind: str,
        inputs: Sequence[int] | Sequence[Sequence[int]],
        out_channels: int,
        stride: int | Sequence[int] = 1,
        batch: int = 1,
        **options: object,
    ) -> None:
        if not isinstance(kind, str) or not _WORD.fullmatch(kind):
            raise SpecError(f"an operator's name is a lower-case word, received {kind!r}")
        set_field = object.__setattr__
        set_field(self, "kind", kind)
        if len(options) > MAX_OPTIONS:
            raise SpecError(
                f"{len(options)} options, an operator configuration has {MAX_OPTIONS} at most"
            )
        set_field(self, "inputs", _canonical_inputs(inputs))
        set_field(self, "out_channels", _positive_int("out_channels", out_channels))
        if isinstance(stride, (tuple, list)):
            if len(stride) != 2:
                raise SpecError(f"a stride has one number or two, received {stride!r:.80}")
            stride, options["stride_width"] = stride
        set_field(self, "stride", _positive_int("stride", stride, limit=64))
        set_field(self, "batch", _positive_int("batch", batch, limit=4096))
        canonical = {name: _canonical_option(name, value) for name, value in options.items()}
        if "stride_width" in canonical:
            _positive_int("stride_width", canonical["stride_width"], limit=64)
        defaults = _DEFAULTS.get(kind, OPTION_DEFAULTS)
        kept = {n: v for n, v in canonical.items() if defaults.get(n) != v}
        if kept.get("stride_width") == self.stride:
            del kept["stride_width"]
        set_field(self, "options", tuple(sorted(kept.items())))
        largest = max(channels * height * width for channels, height, width in self.inputs)
        out_height, out_width = self.out_size
        largest = max(largest, self.out_channels * out_height * out_width) * self.batch
        if largest > MAX_ELEMENTS:
            raise SpecError(
                f"{self.key}: a map of {largest} elements is beyond the limit of {MAX_ELEMENTS}"
            )

    @cached_property
    def key(self) -> str:
        """The canonical text, which ``OpSpec.parse`` reads back."""
        channels = ",".join(str(c) for c, _, _ in self.inputs)
        sizes = ",".join(f"{h}x{w}" for _, h, w in self.inputs)
        words = [f"{self.kind} {channels}->{self.out_channels} stride {self.stride} at {sizes}"]
        if self.batch != 1:
            words.append(f"batch={self.batch}")
        for name, value in self.options:
            shown = "x".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"{name}={shown}")
        return " ".join(words)

    def __str__(self) -> str:
        return self.key

    def __repr__(self) -> str:
        return f"OpSpec.parse({self.key!r})"

    @property
    def in_channels(self) -> int:
        """Channels of all inputs together."""
        return sum(channels for channels, _, _ in self.inputs)

    @property
    def out_size(self) -> tuple[int, int]:
        """(height, width) of the output map, in pixels."""
        explicit = self.option("out_size")
        if explicit is not None:
            if not isinstance(explicit, tuple) or len(explicit) != 2:
                raise SpecError(f"option out_size is HEIGHTxWIDTH, received {explicit!r}")
            return explicit[0], explicit[1]
        _, height, width = self.inputs[-1]
        down, across = self.strides
        return -(-height // down), -(-width // across)

    @property
    def strides(self) -> tuple[int, int]:
        """Downsampling along (height, width)."""
        across = self.option("stride_width")
        return self.stride, across if isinstance(across, int) else self.stride

    @property
    def output(self) -> tuple[int, int, int]:
        """(C, H, W) of the output map."""
        return (self.out_channels, *self.out_size)

    def option(self, name: str) -> OptionValue | None:
        """An option's value, its default where it was not given, None where it has none."""
        for key, value in self.options:
            if key == name:
                return value
        return _DEFAULTS.get(self.kind, OPTION_DEFAULTS).get(name)

    def replace(self, **changes: object) -> OpSpec:
        """The same op spec with other fields or options; an option set to None is removed."""
        fields = {name: getattr(self, name) for name in ("kind", "inputs", "out_channels")}
        fields |= {"stride": self.stride, "batch": self.batch, **dict(self.options), **changes}
        kept: dict[str, Any] = {n: value for n, value in fields.items() if value is not None}
        return OpSpec(**kept)

    @classmethod
    def parse(cls, text: str) -> OpSpec:
        """The op spec that a text such as ``"conv 64->96 stride 1 at 128x256"`` names.

        Raises:
            SpecError: the text does not follow the grammar or its numbers are out of range.
        """
        if len(text) > MAX_TEXT:
            raise SpecError(
                f"an operator configuration of {len(text)} characters, expected {MAX_TEXT} at most"
            )
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise SpecError(f"cannot read the operator configuration {text!r}: {GRAMMAR}")
        channels = [_read_int(part) for part in match["channels"].split(",") if part]
        sizes = [parse_size(part) for part in match["sizes"].split(",")]
        if len(sizes) == 1:
            sizes = sizes * len(channels)
        if len(sizes) != len(channels):
            raise SpecError(
                f"{text!r}: {len(channels)} input channel counts but {len(sizes)} sizes; {GRAMMAR}"
            )
        pairs = [_parse_option(part) for part in match["options"].split()]
        options: dict[str, Any] = dict(pairs)
        if len(options) < len(pairs):
            raise SpecError(f"{text!r}: an option is given twice; {GRAMMAR}")
        if fields := {"self", "kind", "inputs", "out_channels", "stride"} & set(options):
            raise SpecError(f"{text!r}: {', '.join(sorted(fields))} is not an option; {GRAMMAR}")
        inputs = [(c, h, w) for c, (h, w) in zip(channels, sizes, strict=True)]
        strides = [_read_int(part) for part in (match["stride"] or "1").split("x")]
        if len(strides) == 2 and "stride_width" in options:
            raise SpecError(f"{text!r}: the stride along the width is given twice; {GRAMMAR}")
        stride = strides[0] if len(strides) == 1 else strides
        return cls(match["kind"], inputs, _read_int(match["out"]), stride=stride, **options)


def _canonical_inputs(inputs: Sequence[Any]) -> tuple[tuple[int, int, int], ...]:
    items = list(inputs)
    maps = [items] if items and not isinstance(items[0], (tuple, list)) else items
    if not maps:
        raise SpecError("an operator configuration has at least one input (C, H, W), received none")
    if len(maps) > MAX_INPUTS:
        raise SpecError(
            f"{len(maps)} input maps, an operator configuration has {MAX_INPUTS} at most"
        )
    if bad := [shape for shape in maps if len(shape) != 3]:
        raise SpecError(f"an input map is (C, H, W), received {bad[0]!r}")
    return tuple(
        (
            _positive_int("input channels", channels),
            _positive_int("input height", height),
            _positive_int("input width", width),
        )
        for channels, height, width in maps
    )


def unique(specs: Iterable[OpSpec]) -> tuple[OpSpec, ...]:
    """The specs without repetition, in order of first appearance."""
    return tuple(dict.fromkeys(specs))


#: Name of the node that stands for a network's input image.
IMAGE = "image"


@dataclass(frozen=True)
class Node:
    """One operator inside a network: its name, op spec, and the nodes whose outputs it takes.

    ``inputs`` has one name per input map of ``spec``, in order; ``IMAGE`` is the network's input.
    """

    name: str
    spec: OpSpec
    inputs: tuple[str, ...]


@runtime_checkable
class HasOpSpecs(Protocol):
    """What ``estimate`` accepts: op specs in any order, one per executed operator."""

    def op_specs(self) -> Sequence[OpSpec]: ...


def check_graph(nodes: Sequence[Node]) -> None:
    """Refuse a graph whose names, order or shapes do not fit together.

    Raises:
        SpecError: a repeated or unknown name, or an input map that is not the producer's output.
    """
    outputs: dict[str, tuple[int, int, int]] = {}
    for node in nodes:
        if node.name in outputs or node.name == IMAGE:
            raise SpecError(f"two nodes are called {node.name!r}")
        if len(node.inputs) != len(node.spec.inputs):
            raise SpecError(
                f"node {node.name!r} has {len(node.inputs)} inputs, "
                f"its operator configuration {len(node.spec.inputs)}: {node.spec}"
            )
        for source, expected in zip(node.inputs, node.spec.inputs, strict=True):
            if source != IMAGE and source not in outputs:
                raise SpecError(f"node {node.name!r} takes {source!r}, which does not come before")
            if source != IMAGE and outputs[source] != expected:
                raise SpecError(
                    f"node {node.name!r} expects {expected} from {source!r}, "
                    f"which gives {outputs[source]}"
                )
        outputs[node.name] = node.spec.output
