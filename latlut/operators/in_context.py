"""An operator inside a network: the two graphs whose difference is its latency in context.

Timed alone, an operator pays for what a network pays once: the start of a run, the conversion of
its maps into the engine's own layout and back, maps that come from memory and not from the cache.
In context it stands between neighbours, and the neighbours' share is subtracted:

    WITH      each input map <- 1x1 convolution, batch norm, ReLU;   operator;   sink
    WITHOUT   each input map <- 1x1 convolution, batch norm, ReLU;               sink

The rule, for any registered operator:

- A map of more than three channels is a feature map. It comes out of a 1x1 convolution that reads
  ``NEIGHBOUR_CHANNELS`` channels at the map's full size: cheap, but a map in the engine's own
  layout and as warm as a producer leaves it. Batch norm and ReLU follow, as after most operators.
- A map of at most three channels is the image, in a network as here: nothing comes before it. An
  operator that reads nothing else has no WITHOUT, and its entry is all of WITH. It then contains
  what a run costs beyond its operators, which a network, having one such operator, pays once.
- The output ends in a sink that reads a small part of the map in its layout, and gives a number
  per channel. It stands for the next operator, whose reading is that operator's own.
- An operator that ``is_last`` makes the network's output: its WITH has no sink, and the output
  is written in plain layout, as in a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.building import build
from latlut.operators.registry import check
from latlut.operators.workloads import Workload, graph_digest
from latlut.opspec import OpSpec

#: Channels that the 1x1 convolution before an operator reads.
NEIGHBOUR_CHANNELS = 4
#: A map of as many channels or fewer is an image.
IMAGE_CHANNELS = 3
#: The sink looks at 2x2 pixels of every 16x16.
SINK_STRIDE = 16

#: (C, H, W) of an image.
Image = tuple[int, int, int]


@dataclass(frozen=True)
class Context:
    """The graphs that an op spec is timed in; ``without`` is None where nothing comes before."""

    with_operator: Workload
    without: Workload | None


def context_of(spec: OpSpec) -> Context:
    """The two graphs of an op spec, by the rule above.

    Raises:
        UnknownNameError, SpecError: an operator that is not registered, or that has no such spec.
    """
    graphs = check(spec).graphs
    if graphs is not None:
        found: Context = graphs.context(spec)
        return found
    sources = tuple(_neighbour(spec, shape) for shape in spec.inputs)
    neighbours = tuple(source for source in sources if isinstance(source, OpSpec))
    without = None
    if neighbours:
        name = f"the neighbours of {spec.key}"
        without = ContextWorkload(name, _shapes(spec.batch, neighbours), neighbours, None)
    name = f"{spec.key} in context"
    return Context(ContextWorkload(name, _shapes(spec.batch, sources), sources, spec), without)


def _neighbour(spec: OpSpec, shape: Image) -> OpSpec | Image:
    """The op spec that makes an input map, or the map's own shape where it is the image."""
    channels, height, width = shape
    if channels <= IMAGE_CHANNELS:
        return shape
    read = (NEIGHBOUR_CHANNELS, height, width)
    return OpSpec("conv", read, channels, batch=spec.batch, kernel_size=1)


def _shapes(batch: int, sources: Sequence[OpSpec | Image]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        (batch, *(source.inputs[0] if isinstance(source, OpSpec) else source)) for source in sources
    )


@dataclass(frozen=True)
class ContextWorkload(Workload):
    """Neighbours, the operator between them unless it is left out, and sinks; seeded weights.

    ``sources`` has one item per map: the op spec that makes it, or the shape (C, H, W) of an
    image that is read as it is.
    """

    sources: tuple[OpSpec | Image, ...]
    operator: OpSpec | None

    @property
    def specs(self) -> tuple[OpSpec, ...]:
        """The op specs of the neighbours, then that of the operator."""
        neighbours = tuple(source for source in self.sources if isinstance(source, OpSpec))
        return neighbours if self.operator is None else (*neighbours, self.operator)

    @cached_property
    def digest(self) -> str:
        """See ``Workload``."""
        return graph_digest(self.specs, [*map(str, self.sources), str(self.operator)], [__name__])

    def build(self) -> nn.Module:
        """The graph as a module; takes one image per source."""
        return InContext(self.sources, self.operator).eval()


class InContext(nn.Module):
    """The module of a ``ContextWorkload``.

    Takes one (B, C, H, W) per source. Returns (B, C, 1, 1), the maps' channels one after another;
    for an operator that ``is_last`` in its network its output as it is.
    """

    def __init__(self, sources: Sequence[OpSpec | Image], operator: OpSpec | None) -> None:
        super().__init__()
        self.neighbours = nn.ModuleList(
            build(source, seed) if isinstance(source, OpSpec) else nn.Identity()
            for seed, source in enumerate(sources, start=1)
        )
        self.operator = None if operator is None else build(operator)
        self.is_last = operator is not None and check(operator).is_last

    def forward(self, *images: Tensor) -> Tensor:
        maps = [part(image) for part, image in zip(self.neighbours, images, strict=True)]
        if self.operator is not None:
            maps = [self.operator(*maps)]
        if self.is_last:
            return maps[0]
        ends = [sink(item) for item in maps]
        return torch.cat(ends, dim=1) if len(ends) > 1 else ends[0]


def sink(image: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 1, 1): the mean over the largest of 2x2 pixels in every 16x16.

    It reads a part of the map, so that it costs next to nothing beside what made the map, and what
    the two graphs' maps differ in does not count: a mean over all of a map costs as much as a fifth
    to the whole of a 1x1 convolution that makes it. Pooling, unlike slicing, is done in the layout
    that the map has.
    """
    height, width = int(image.shape[-2]), int(image.shape[-1])
    kernel = (min(2, height), min(2, width))
    return functional.adaptive_avg_pool2d(functional.max_pool2d(image, kernel, SINK_STRIDE), 1)
