"""What else a table may hold in place of an op spec, when the exact one is missing.

Published tables rarely hold the very operator that a network uses: the FasterSeg authors' table
has nearest-neighbour zooming and one-convolution skips, measures fusions on maps that were
concatenated before, and holds the convolutions of a refinement but not its upsampling. An
alternative says which op specs, added up, stand for the missing one, and why. It is an
approximation with a reason, and whoever prices with it must name it.

Alternatives are one step away. Two steps (another interpolation, then the parts) come from asking
for the alternatives of the alternatives; interpolation goes both ways, so keep the specs seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from latlut.opspec import OpSpec

#: Operators that resize a map, so that the interpolation changes what is timed.
INTERPOLATED_KINDS = frozenset({"zoomed_conv", "zoomed_conv_2x", "refine", "upsample"})
#: Operators whose graph begins with the concatenation of their input maps.
CONCATENATING_KINDS = frozenset({"conv", "fusion", "head"})
_OTHER_INTERPOLATION = {"nearest": "bilinear", "bilinear": "nearest"}


@dataclass(frozen=True)
class Alternative:
    """Op specs whose latencies, added up, stand for a missing one.

    Attributes:
        specs: what to look up, each once.
        reason: how this differs from the op spec asked for, as a clause for a message.
        may_lack: those of ``specs`` that a table may lack without making the others useless;
            they are small, and the caller names them as unpriced.
    """

    specs: tuple[OpSpec, ...]
    reason: str
    may_lack: tuple[OpSpec, ...] = ()


def alternatives(spec: OpSpec) -> tuple[Alternative, ...]:
    """What may stand for ``spec``, the closest first; empty where nothing may.

    1. The other interpolation of an operator that resizes: same convolutions, cheaper or dearer
       resizing. The authors' table timed nearest, their networks run bilinear.
    2. A stride-2 skip made of one 1x1 convolution in place of two of half the width. The authors'
       table timed the former, their networks contain the latter.
    3. One input of all channels in place of several of equal size: without the concatenation.
       The authors' table has ``fusion`` and ``head`` that way.
    4. The parts of a refinement: 1x1 convolution of the coarse map, upsampling to the fine map's
       size, 3x3 convolution of both; without the concatenation.

    Source: FasterSeg's release, where latencies of a network are looked up operator by operator,
    the multi-resolution fusion part by part (paper, Sec. 3.3), and the upsampling not at all.
    """
    candidates = (
        _other_interpolation(spec),
        _single_skip(spec),
        _concatenated(spec),
        _refine_parts(spec),
    )
    return tuple(found for found in candidates if found is not None)


def _other_interpolation(spec: OpSpec) -> Alternative | None:
    if spec.kind not in INTERPOLATED_KINDS:
        return None
    asked = str(spec.option("interpolation"))
    other = _OTHER_INTERPOLATION.get(asked)
    if other is None:
        return None
    return Alternative(
        (spec.replace(interpolation=other),), f"measured with {other}, not {asked} interpolation"
    )


def _single_skip(spec: OpSpec) -> Alternative | None:
    if spec.kind != "skip" or spec.stride != 2 or spec.option("form") != "derived":
        return None
    return Alternative(
        (spec.replace(form="single"),),
        "measured as one 1x1 convolution with stride 2, not as two of half the width",
    )


def _concatenated(spec: OpSpec) -> Alternative | None:
    sizes = {(height, width) for _, height, width in spec.inputs}
    if spec.kind not in CONCATENATING_KINDS or len(spec.inputs) < 2 or len(sizes) != 1:
        return None
    height, width = sizes.pop()
    return Alternative(
        (spec.replace(inputs=((spec.in_channels, height, width),)),),
        "measured on one input that is already concatenated",
    )


def _refine_parts(spec: OpSpec) -> Alternative | None:
    """1x1 conv coarse -> out, upsample to the fine size, 3x3 conv (out + fine) -> out."""
    is_plain = all(name == "interpolation" for name, _ in spec.options)
    if spec.kind != "refine" or len(spec.inputs) != 2 or spec.stride != 1 or not is_plain:
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
