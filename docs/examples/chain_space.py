"""A chain search space, as of MobileNetV2, FBNet and their kin: stages of inverted residuals.

The image goes through a stem, then through layers in stages. A layer chooses its block (kernel,
expansion, with or without squeeze and excitation, or, where the shape stays, nothing at all), a
stage chooses its width. A head and a classifier follow.

    latlut profile --cpu --space docs/examples/chain_space.py --input 64x64
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from latlut.errors import SpecError
from latlut.opspec import IMAGE, Node, OpSpec
from latlut.spaces.choices import Choice, Choices, Part
from latlut.spaces.space import register_space

#: (kernel, expansion, squeeze); 0 is no squeeze and excitation, None a layer that is left out.
BLOCKS = ((3, 3, 0), (3, 6, 0), (5, 3, 4), (5, 6, 4), None)
#: Candidate widths of each stage.
STAGES = ((16, 24), (32, 40, 48), (64, 80))


@dataclass(frozen=True)
class ChainNetwork:
    """One network: what the space's choices were decided to be."""

    space: ChainSpace
    picks: Mapping[str, int]
    """Name of each choice -> number of its option."""

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> tuple[OpSpec, ...]:
        """One op spec per node, in order."""
        return self.space.choices(input_size, batch).of(self.picks)

    def nodes(self, input_size: tuple[int, int], batch: int = 1) -> tuple[Node, ...]:
        """A chain: each node takes the one before."""
        specs = self.op_specs(input_size, batch)
        names = [f"layer{number}" for number in range(len(specs))]
        return tuple(
            Node(name, spec, (before,))
            for name, spec, before in zip(names, specs, [IMAGE, *names], strict=False)
        )

    def to_json(self) -> str:
        """The picks, and the space's values, so that the network can be read back."""
        return json.dumps({"space": ChainSpace.name, **asdict(self)["space"], "picks": self.picks})


@register_space
@dataclass(frozen=True)
class ChainSpace:
    """The space; its values can be given in a plan's [space] table."""

    name: ClassVar[str] = "chain"
    title: ClassVar[str] = "the chain space"

    depth: int = 2
    """Layers of a stage."""
    classes: int = 10

    def choices(self, input_size: tuple[int, int] = (64, 64), batch: int = 1) -> Choices:
        """A width for each stage, a block for each layer; the parts say what they decide on."""
        height, width = input_size
        choices = [Choice("stem.width", (16,), "width")]
        stem = OpSpec("conv", (3, height, width), 16, stride=2, batch=batch, activation="hswish")
        parts = [Part((), lambda: stem)]
        before, (_, *size) = "stem.width", stem.output
        for stage, widths in enumerate(STAGES):
            own = f"stage{stage}.width"
            choices.append(Choice(own, widths, "width"))
            for layer in range(self.depth):
                name = f"stage{stage}.layer{layer}.block"
                is_first = layer == 0  # it has the stride, and cannot be left out
                blocks = BLOCKS[:-1] if is_first else BLOCKS
                choices.append(Choice(name, blocks, "block"))
                decided = (before, name, own) if is_first else (name, own)
                parts.append(Part(decided, _layer(tuple(size), is_first, batch)))
                if is_first:
                    size = [-(-side // 2) for side in size]
            before = own
        parts.append(Part((before,), _head(tuple(size), self.classes, batch)))
        return Choices(tuple(choices), tuple(parts))

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> tuple[OpSpec, ...]:
        """Everything that any combination needs."""
        return self.choices(input_size, batch).op_specs()

    def sample_many(self, count: int, seed: int) -> tuple[ChainNetwork, ...]:
        """Networks drawn one after the other, so that fewer are the first of more."""
        rng = random.Random(seed)
        counts = self.choices().counts
        return tuple(
            ChainNetwork(self, {name: rng.randrange(options) for name, options in counts.items()})
            for _ in range(count)
        )

    def describe_sampler(self) -> str:
        """How networks are drawn, kept with results."""
        return "Chain sampler, version 1: every choice uniformly and independently."

    def to_dict(self) -> dict[str, object]:
        """What a table remembers."""
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ChainSpace:
        """What ``to_dict`` wrote."""
        own: dict[str, Any] = {key: value for key, value in values.items() if key != "name"}
        if unknown := set(own) - {"depth", "classes"}:
            raise SpecError(f"the chain space has depth and classes, received {sorted(unknown)}")
        return cls(**own)

    @classmethod
    def network_from_json(cls, text: str) -> ChainNetwork:
        """What ``ChainNetwork.to_json`` wrote."""
        values = json.loads(text)
        return ChainNetwork(cls(values["depth"], values["classes"]), values["picks"])


def _layer(size: tuple[int, int], is_first: bool, batch: int) -> Any:
    """What a layer executes, from (width before, block, width) or, later in a stage, without the
    width before."""

    def specs(*decided: Any) -> OpSpec | None:
        block, width = decided[-2:]
        if block is None:
            return None
        kernel_size, expansion, squeeze = block
        return OpSpec(
            "inverted_residual",
            (decided[0] if is_first else width, *size),
            width,
            stride=2 if is_first else 1,
            batch=batch,
            kernel_size=kernel_size,
            expansion=expansion,
            activation="hswish",
            **({"squeeze": squeeze} if squeeze else {}),
        )

    return specs


def _head(size: tuple[int, int], classes: int, batch: int) -> Any:
    def specs(width: int) -> list[OpSpec]:
        conv = OpSpec("conv", (width, *size), 128, batch=batch, kernel_size=1, activation="hswish")
        pool = OpSpec("global_pool", conv.output, 128, batch=batch, out_size=(1, 1))
        return [conv, pool, OpSpec("linear", pool.output, classes, batch=batch)]

    return specs
