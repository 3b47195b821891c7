"""A network as it is deployed: for one image size, without auxiliary heads, from image to output.

    architecture   the operators with seeded weights: for its latency, not for its predictions
    trained        the weights of a training
    baseline       a hand-designed network by its name, with seeded weights

The image is float32, RGB, normalised by ImageNet's mean and deviation.

Symbols: B batch, C classes, H, W sides of the image in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from latlut.errors import LatlutError
from latlut.operators.workloads import Workload
from latlut.search.networks.baselines import build_baseline
from latlut.search.networks.model_files import load_model
from latlut.search.networks.network import SegmentationNetwork
from latlut.spaces import Architecture

#: Image size where neither a caller nor a training says another: the paper's.
DEFAULT_SIZE = (1024, 2048)

Kind = Literal["architecture", "trained", "baseline"]


class BestClass(nn.Module):
    """A network and the best class of its logits: (B, C, h, w) -> (B, h, w) int64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.argmax(self.network(image), dim=1)


@dataclass(frozen=True)
class Deployable:
    """A network that can be exported and measured."""

    name: str
    """For people."""
    kind: Kind
    """Where its weights are from."""
    network: nn.Module = field(repr=False)
    """In evaluation mode, image (B, 3, H, W) -> logits (B, C, H, W)."""
    num_classes: int
    """C."""
    classes: tuple[str, ...] = ()
    """Their names, empty where they are not known."""
    input_size: tuple[int, int] | None = None
    """(height, width) that it is meant for; None where it was made for none."""
    image_scale: float = 1.0
    """Factor by which images are scaled before they enter it."""

    @property
    def architecture(self) -> Architecture | None:
        """The architecture with its number of classes, None for a baseline."""
        is_ours = isinstance(self.network, SegmentationNetwork)
        return cast("SegmentationNetwork", self.network).architecture if is_ours else None

    def module(
        self, input_size: tuple[int, int], has_upsample: bool = True, has_argmax: bool = False
    ) -> nn.Module:
        """The network for images of ``input_size``, in evaluation mode; shares the weights.

        Args:
            input_size: (height, width) in pixels.
            has_upsample: whether the output has the image's size, else that of the network's own
                logits, 1/8 for FasterSeg.
            has_argmax: whether it is the best class, (B, h, w) int64, else logits (B, C, h, w).

        Raises:
            LatlutError: without upsampling, where the network is not made of our operators.
            SpecError: a size out of range.
        """
        if isinstance(self.network, SegmentationNetwork):
            network: nn.Module = self.network.deployed(input_size, has_upsample)
        elif has_upsample:
            network = self.network
        else:
            raise LatlutError(
                f"{self.name} enlarges its logits itself: it has no form without upsampling"
            )
        return BestClass(network).eval() if has_argmax else network

    def workload(
        self,
        input_size: tuple[int, int],
        batch: int = 1,
        has_upsample: bool = True,
        has_argmax: bool = False,
    ) -> Workload:
        """What an engine runs for ``batch`` images of ``input_size``; see ``module``.

        The graph of an architecture whose weights are not trained is kept in the cache.
        """
        name = f"{self.name} at {input_size[0]}x{input_size[1]}"
        architecture = self.architecture
        if self.kind == "architecture" and architecture is not None and not has_argmax:
            nodes = architecture.nodes(input_size, batch)
            return Workload.from_nodes(nodes if has_upsample else nodes[:-1], name)
        module = self.module(input_size, has_upsample, has_argmax)
        return Workload.from_module(module, [(batch, 3, *input_size)], name)


def from_architecture(architecture: Architecture, name: str, seed: int = 0) -> Deployable:
    """The architecture with seeded weights."""
    network = SegmentationNetwork(architecture, seed, has_auxiliary=False).eval()
    return Deployable(name, "architecture", network, architecture.num_classes)


def from_training(path: str | Path) -> Deployable:
    """A trained network.

    Raises:
        ImportFileError: no trained model there, or one that cannot be read.
    """
    network, facts = load_model(path)
    return Deployable(
        str(path), "trained", network, facts.num_classes, tuple(facts.classes.names),
        facts.input_size, facts.image_scale,
    )  # fmt: skip


def from_baseline(name: str, num_classes: int = 19, seed: int = 0) -> Deployable:
    """A hand-designed network with seeded weights.

    Raises:
        UnknownNameError: there is none of that name.
    """
    network = build_baseline(name, num_classes, seed).eval()
    return Deployable(name, "baseline", network, num_classes)
