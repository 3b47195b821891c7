"""In which other form a table may hold an operator: what stands for an entry that is missing.

Published tables rarely hold the very operator that a network uses: the FasterSeg authors' table
has nearest-neighbour zooming and one-convolution skips, measures fusions on maps that were
concatenated before, and holds the convolutions of a refinement but not its upsampling. An
alternative says which op specs, added up, stand for the missing one, and why. It is an
approximation with a reason, and whoever prices with it must name it.

Source: FasterSeg's release, where latencies of a network are looked up operator by operator, the
multi-resolution fusion part by part (paper, Sec. 3.3), and the upsampling not at all.
"""

from __future__ import annotations

from latlut.operators.registry import Alternative
from latlut.opspec import OpSpec


def other_interpolation(spec: OpSpec) -> Alternative | None:
    """The other interpolation of an operator that resizes: same convolutions, another resizing.

    The authors' table timed nearest, their networks run bilinear.
    """
    asked = str(spec.option("interpolation"))
    other = {"nearest": "bilinear", "bilinear": "nearest"}.get(asked)
    if other is None:
        return None
    return Alternative(
        (spec.replace(interpolation=other),), f"measured with {other}, not {asked} interpolation"
    )


def single_convolution(spec: OpSpec) -> Alternative | None:
    """A stride-2 skip made of one 1x1 convolution in place of two of half the width.

    The authors' table timed the former, their networks contain the latter.
    """
    if spec.stride != 2 or spec.option("form") != "derived":
        return None
    return Alternative(
        (spec.replace(form="single"),),
        "measured as one 1x1 convolution with stride 2, not as two of half the width",
    )


def concatenated(spec: OpSpec) -> Alternative | None:
    """One input of all channels in place of several of equal size: without the concatenation.

    The authors' table has ``fusion`` and ``head`` that way.
    """
    sizes = {(height, width) for _, height, width in spec.inputs}
    if len(spec.inputs) < 2 or len(sizes) != 1:
        return None
    height, width = sizes.pop()
    return Alternative(
        (spec.replace(inputs=((spec.in_channels, height, width),)),),
        "measured on one input that is already concatenated",
    )


def refinement_parts(spec: OpSpec) -> Alternative | None:
    """1x1 conv coarse -> out, upsample to the fine size, 3x3 conv (out + fine) -> out.

    Without the concatenation of both maps; the upsampling may be lacking.
    """
    is_plain = all(name == "interpolation" for name, _ in spec.options)
    if len(spec.inputs) != 2 or spec.stride != 1 or not is_plain:
        return None
    coarse, (fine_channels, fine_height, fine_width) = spec.inputs
    out, batch = spec.out_channels, spec.batch
    upsample = OpSpec(
        "upsample",
        (out, *coarse[1:]),
        out,
        batch=batch,
        out_size=(fine_height, fine_width),
        interpolation=spec.option("interpolation"),
    )
    return Alternative(
        (
            OpSpec("conv", coarse, out, batch=batch, kernel_size=1),
            upsample,
            OpSpec("conv", (out + fine_channels, fine_height, fine_width), out, batch=batch),
        ),
        "measured as its parts: 1x1 convolution, upsampling, 3x3 convolution",
        may_lack=(upsample,),
    )
