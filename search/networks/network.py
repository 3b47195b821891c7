"""A derived network as it is trained: any image size, the data's classes, auxiliary heads.

The operators are those of ``latlut.operators``, one per node of the architecture's graph, so that
what is trained is what a table prices and what is deployed.

Symbols: B batch, C classes, H, W pixels, F base width.

Source: FasterSeg, Appendix A; the auxiliary heads follow the authors' code: one at 1/32 on the
1/32 branch's last map, and one at 1/16 on the 1/16 branch's last map together with what enters the
down cell of the 1/32 branch there. Which of these exist depends on the branches.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latlut.operators.building import build, initialise
from latlut.operators.modules import Head, resize
from latlut.operators.network import Network
from latlut.opspec import IMAGE, Node
from latlut.spaces import Architecture

#: Operators are built for maps of this image; none of them keeps its size.
_BUILD_SIZE = (128, 256)


class TrainOutputs(NamedTuple):
    """Logits of a network in training mode; the loss enlarges them to the labels' size.

    ``main`` (B, C, h, w), for FasterSeg at 1/8; ``auxiliary`` logits of heads that exist only
    while training, each (B, C, h, w).
    """

    main: Tensor
    auxiliary: tuple[Tensor, ...] = ()


class SegmentationNetwork(nn.Module):
    """An architecture as a module that takes images of any size.

    In evaluation mode ``forward`` takes the image (B, 3, H, W) to logits (B, C, H, W); in training
    mode to ``TrainOutputs`` at 1/8.

    Args:
        architecture: the network; ``num_classes`` is C.
        seed: of the weights.
        has_auxiliary: whether there are auxiliary heads.
    """

    def __init__(
        self, architecture: Architecture, seed: int = 0, has_auxiliary: bool = True
    ) -> None:
        super().__init__()
        self.architecture = architecture
        nodes = architecture.nodes(_BUILD_SIZE)[:-1]  # the last one enlarges to a fixed size
        self._nodes = nodes
        self.operators = nn.ModuleList(
            build(node.spec, seed + index) for index, node in enumerate(nodes)
        )
        self._sources = _auxiliary_sources(nodes) if has_auxiliary else {}
        self.auxiliary_heads = nn.ModuleDict()
        channels = {node.name: node.spec.out_channels for node in nodes}
        for number, (scale, names) in enumerate(self._sources.items()):
            joined = sum(channels[name] for name in names)
            with torch.random.fork_rng(devices=[]):
                head = Head(joined, architecture.num_classes)
            initialise(head, seed + len(nodes) + number)
            self.auxiliary_heads[str(scale)] = head
        kept = {name for names in self._sources.values() for name in names}
        last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
        self._dropped = tuple(
            tuple(name for name in set(node.inputs) if last_use[name] == index and name not in kept)
            for index, node in enumerate(nodes)
        )

    def forward(self, image: Tensor) -> Tensor | TrainOutputs:
        """Logits of the image (B, 3, H, W): see the class."""
        maps = {IMAGE: image}
        logits = image
        for node, operator, dropped in zip(self._nodes, self.operators, self._dropped, strict=True):
            logits = operator(*(maps[name] for name in node.inputs))
            maps[node.name] = logits
            for name in dropped:
                del maps[name]
        if not self.training:
            return resize(logits, (int(image.shape[-2]), int(image.shape[-1])), "bilinear")
        size = (int(logits.shape[-2]), int(logits.shape[-1]))
        auxiliary = tuple(
            resize(
                self.auxiliary_heads[str(scale)](*(maps[name] for name in names)), size, "bilinear"
            )
            for scale, names in self._sources.items()
        )
        return TrainOutputs(logits, auxiliary)

    def deployed(self, input_size: tuple[int, int], with_upsample: bool = True) -> Network:
        """The network for one image size, without auxiliary heads, in evaluation mode.

        Its modules are its own, its weights and running statistics are this network's.

        Args:
            input_size: (height, width) of the image in pixels.
            with_upsample: whether it ends with the logits at the image's size, else at 1/8.

        Raises:
            SpecError: a size out of range.
        """
        nodes = self.architecture.nodes(input_size)
        network = Network(nodes if with_upsample else nodes[:-1])
        for index, operator in enumerate(self.operators):
            shared = {id(item): item for item in (*operator.parameters(), *operator.buffers())}
            network.operators[index] = deepcopy(operator, shared)
        return network.eval()


def trainable(
    architecture: Architecture, num_classes: int, seed: int = 0, auxiliary: bool = True
) -> SegmentationNetwork:
    """The architecture for data of ``num_classes`` classes, with fresh weights.

    Args:
        architecture: its own number of classes is passed over.
        num_classes: C.
        seed: of the weights.
        auxiliary: whether there are auxiliary heads.

    Raises:
        SpecError: a number of classes out of range.
    """
    return SegmentationNetwork(replace(architecture, num_classes=num_classes), seed, auxiliary)


def main_logits(outputs: Tensor | TrainOutputs | tuple[Tensor, ...]) -> Tensor:
    """The logits that count, of a network in either mode."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _auxiliary_sources(nodes: tuple[Node, ...]) -> dict[int, tuple[str, ...]]:
    """Scale of each auxiliary head -> the maps that it sees.

    Found through the refinements, whose inputs are the coarse map and the down cell's input.
    """
    inputs = {node.name: node.inputs for node in nodes}
    at_16 = []
    sources: dict[int, tuple[str, ...]] = {}
    if "branch16.refine.s8" in inputs:
        at_16.append(inputs["branch16.refine.s8"][0])
    if "branch32.refine.s16" in inputs:
        last, entering = inputs["branch32.refine.s16"]
        at_16.append(entering)
        sources[32] = (last,)
    if at_16:
        sources[16] = tuple(at_16)
    return dict(sorted(sources.items()))
