"""The protocol of a search space: a space of one's own is found by name, sampled and read back."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from latlut.errors import ImportFileError, SpecError, UnknownNameError
from latlut.measure.plan_file import expand_plan, parse_plan
from latlut.opspec import IMAGE, Node, OpSpec, unique
from latlut.spaces import FasterSegSpace
from latlut.spaces import space as spaces
from latlut.spaces.fasterseg import fasterseg_space
from latlut.spaces.space import Space, network_from_json, register_space, space_class
from latlut.table.space import space_from_plan


@dataclass(frozen=True)
class Chain:
    """A stem and as many convolutions as there are widths."""

    widths: tuple[int, ...]

    def nodes(self, input_size: tuple[int, int], batch: int = 1) -> tuple[Node, ...]:
        nodes, last, shape = [], IMAGE, (3, *input_size)
        for index, width in enumerate(self.widths):
            spec = OpSpec("conv", shape, width, stride=2, batch=batch)
            nodes.append(Node(f"conv.{index}", spec, (last,)))
            last, shape = f"conv.{index}", spec.output
        return tuple(nodes)

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> tuple[OpSpec, ...]:
        return tuple(node.spec for node in self.nodes(input_size, batch))

    def to_json(self) -> str:
        return json.dumps({"space": "test-chain", "widths": self.widths})


@dataclass(frozen=True)
class ChainSpace:
    """Two convolutions, each of one of some widths."""

    name: ClassVar[str] = "test-chain"
    title: ClassVar[str] = "chain"
    widths: tuple[int, ...] = (4, 8)

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> tuple[OpSpec, ...]:
        pairs = [Chain((a, b)) for a in self.widths for b in self.widths]
        return unique(spec for pair in pairs for spec in pair.op_specs(input_size, batch))

    def sample_many(self, count: int, seed: int) -> tuple[Chain, ...]:
        rng = random.Random(seed)
        return tuple(
            Chain((rng.choice(self.widths), rng.choice(self.widths))) for _ in range(count)
        )

    def describe_sampler(self) -> str:
        return "uniform"

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ChainSpace:
        return cls(tuple(values.get("widths", (4, 8))))  # type: ignore[arg-type]

    @classmethod
    def network_from_json(cls, text: str) -> Chain:
        return Chain(tuple(json.loads(text)["widths"]))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "_SPACES", dict(spaces._SPACES))
    register_space(ChainSpace)


def test_a_plan_of_an_own_space_has_its_op_specs_and_says_so() -> None:
    text = 'format = 1\ninput = "32x64"\n[space]\nname = "test-chain"\nwidths = [4, 6]\n'
    specs, described = expand_plan(parse_plan(text, "mine"), "mine", None, None, 100)
    assert set(specs) == set(ChainSpace((4, 6)).op_specs((32, 64)))
    assert described is not None
    where = space_from_plan(described)
    assert where.space == ChainSpace((4, 6))
    assert (where.input_size, where.batch) == ((32, 64), 1)


def test_networks_come_back_from_their_json_whatever_their_space() -> None:
    for network in ChainSpace().sample_many(5, 1):
        assert network_from_json(network.to_json()) == network
    for architecture in FasterSegSpace(layers=6).sample_many(5, 1):
        assert network_from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '"space"', "[" * 100_000])
def test_texts_that_are_no_network_are_refused(text: str) -> None:
    with pytest.raises(ImportFileError, match="JSON"):
        network_from_json(text)


def test_an_unknown_space_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fasterseg'"):
        space_class("fastersegg")


def test_a_taken_name_is_refused_and_the_same_class_is_not() -> None:
    assert register_space(FasterSegSpace) is FasterSegSpace

    class Other(FasterSegSpace):
        pass

    with pytest.raises(SpecError, match="already registered by latlut.spaces.fasterseg"):
        register_space(Other)


def test_what_needs_the_supernet_refuses_another_space() -> None:
    space: Space = FasterSegSpace()
    assert fasterseg_space(space) is space
    with pytest.raises(SpecError, match=r"this table is of 'test-chain'.*ExpectedLatency"):
        fasterseg_space(ChainSpace())
