"""What may stand for a missing op spec."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latlut.operators import Option, register, registry
from latlut.operators.building import build
from latlut.operators.in_context import context_of
from latlut.operators.registry import (
    Alternative,
    alternatives,
    check,
    operator_kinds,
    option_names,
)
from latlut.opspec import OpSpec


def parse(text):
    return OpSpec.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "zoomed_conv 64->96 stride 1 at 32x64",
        "zoomed_conv_2x 64->96 stride 2 at 32x64 batch=2",
        "refine 256,128->128 at 8x16,16x32",
        "upsample 19->19 at 32x64 out_size=256x512",
    ],
)
def test_interpolation_goes_both_ways(text):
    spec = parse(text)
    nearest = alternatives(spec)[0].specs[0]
    assert nearest == spec.replace(interpolation="nearest")
    assert "nearest" in alternatives(spec)[0].reason
    assert alternatives(nearest)[0].specs == (spec,)


def test_stride_2_skip_may_be_a_single_convolution():
    (found,) = alternatives(parse("skip 64->128 stride 2 at 32x64"))
    assert found.specs == (parse("skip 64->128 stride 2 at 32x64 form=single"),)
    assert alternatives(parse("skip 64->64 at 32x64")) == ()
    assert alternatives(parse("skip 64->128 stride 2 at 32x64 form=single")) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fusion 64,64->128 at 32x64", "fusion 128->128 at 32x64"),
        ("head 64,32->19 at 32x64 batch=3", "head 96->19 at 32x64 batch=3"),
        ("conv 8,8,8->16 at 32x64 kernel_size=1", "conv 24->16 at 32x64 kernel_size=1"),
    ],
)
def test_several_inputs_may_be_concatenated_already(text, expected):
    (found,) = alternatives(parse(text))
    assert found.specs == (parse(expected),)


def test_inputs_of_different_size_cannot_be_concatenated():
    assert alternatives(parse("fusion 64,64->128 at 16x32,32x64")) == ()


def test_refinement_may_be_priced_by_its_parts():
    spec = parse("refine 256,128->96 at 8x16,16x32 batch=2 interpolation=nearest")
    other, parts = alternatives(spec)
    assert other.specs == (spec.replace(interpolation="bilinear"),)
    upsample = parse("upsample 96->96 at 8x16 out_size=16x32 interpolation=nearest batch=2")
    assert parts.specs == (
        parse("conv 256->96 at 8x16 kernel_size=1 batch=2"),
        upsample,
        parse("conv 224->96 at 16x32 batch=2"),
    )
    assert parts.may_lack == (upsample,)
    assert parts.specs[-1].output == spec.output


def test_a_refinement_with_unknown_options_is_not_taken_apart():
    found = alternatives(parse("refine 256,128->96 at 8x16,16x32 groups=2"))
    assert [len(alternative.specs) for alternative in found] == [1]


@pytest.mark.parametrize("text", ["conv 8->8 at 4x4", "fusion 8->8 at 4x4", "other 8,8->8 at 4x4"])
def test_nothing_stands_for_a_plain_operator(text):
    assert alternatives(parse(text)) == ()


def test_every_alternative_keeps_the_output_and_is_built_by_the_registry():
    kinds = [kind for kind in operator_kinds() if kind.startswith(("zoomed_conv", "upsample"))]
    texts = [f"{kind} 8->8 at 8x16" for kind in kinds]
    texts += ["refine 16,8->8 at 4x8,8x16", "fusion 4,4->8 at 8x16", "skip 8->16 stride 2 at 8x16"]
    for spec in map(parse, texts):
        check(spec)
        for alternative in alternatives(spec):
            assert alternative.reason
            assert set(alternative.may_lack) <= set(alternative.specs)
            assert alternative.specs[-1].output == spec.output
            for part in alternative.specs:
                assert part.batch == spec.batch
                build(part)


def test_an_operator_from_outside_says_what_its_kind_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def as_convolution(spec: OpSpec) -> Alternative | None:
        return Alternative((spec.replace(kind="conv", gain=None),), "measured as a convolution")

    @register("classify", options={"gain": Option()}, is_last=True, alternatives=[as_convolution])
    def classify(spec: OpSpec) -> nn.Module:
        return nn.Conv2d(spec.in_channels, spec.out_channels, 1)

    spec = parse("classify 8->19 at 8x8 gain=2")
    (found,) = alternatives(spec)
    assert found.specs == (parse("conv 8->19 at 8x8"),)
    assert "gain" in option_names()
    context = context_of(spec).with_operator.build()
    assert context(torch.zeros(1, 4, 8, 8)).shape == (1, 19, 8, 8)  # without a sink
