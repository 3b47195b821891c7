"""What the papers say of their networks, as frozen data, each figure with its source.

None of these numbers is measured by latlut. A figure whose source could be read while this was
written is confirmed; one that is cited from a paper whose text was not at hand is not, and says
so. Units are in the names: millions of parameters, billions of multiply-accumulates (papers call
them FLOPs), percent of mean IoU on Cityscapes, images per second.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The comparison that FasterSeg makes, on a GTX 1080 Ti with TensorRT 5.
FASTERSEG_TABLE_4 = "FasterSeg (Chen et al., ICLR 2020), Table 4"


@dataclass(frozen=True)
class Figure:
    """One number and where it stands."""

    value: float
    """The number, in the unit of the field that holds it."""
    source: str
    """The text that states it."""
    is_confirmed: bool = True
    """False where that text could not be read, and the number is cited from memory of it."""
    note: str = ""
    """What the number is of, where the field's name does not say it."""


@dataclass(frozen=True)
class Published:
    """What a paper says of its network. None where it says nothing that could be found."""

    title: str
    """The network's name as the paper writes it."""
    paper: str
    """Authors, title and venue."""
    input_size: tuple[int, int]
    """(height, width) in pixels at which the paper states its speed."""
    parameters_m: Figure | None = None
    """Millions of parameters."""
    macs_g: Figure | None = None
    """Billions of multiply-accumulates at ``macs_input_size``."""
    macs_input_size: tuple[int, int] | None = None
    """(height, width) in pixels."""
    miou_val_percent: Figure | None = None
    miou_test_percent: Figure | None = None
    """``miou_val_percent``, ``miou_test_percent``: mean IoU on Cityscapes, single scale."""
    fps: Figure | None = None
    """Images per second at ``input_size``."""
    fps_device: str = ""
    """What it was measured on."""

    @property
    def miou_percent(self) -> Figure | None:
        """The validation figure, or the test one where there is no other."""
        return self.miou_val_percent or self.miou_test_percent


#: Customizable Architecture Search: its paper shows the cells of one search as a picture, and
#: neither their number of channels nor the multi-scale cell in full, so it is not rebuilt here.
CAS = Published(
    title="CAS",
    paper="Zhang et al., Customizable Architecture Search for Semantic Segmentation, CVPR 2019",
    input_size=(768, 1536),
    miou_val_percent=Figure(71.6, FASTERSEG_TABLE_4),
    miou_test_percent=Figure(70.5, FASTERSEG_TABLE_4),
    fps=Figure(108.0, FASTERSEG_TABLE_4),
    fps_device="as listed in FasterSeg's Table 4",
)

_FASTERSEG = (
    "Chen et al., FasterSeg: Searching for Faster Real-time Semantic Segmentation, ICLR 2020"
)
_TABLE_3 = "FasterSeg (Chen et al., ICLR 2020), Table 3"
_GTX = "GTX 1080 Ti, TensorRT 5, FP32"

#: Shipped architectures by name. The teacher's own scores are not in the paper.
FASTERSEG = {
    "fasterseg-student": Published(
        title="FasterSeg",
        paper=_FASTERSEG,
        input_size=(1024, 2048),
        parameters_m=Figure(4.4, _TABLE_3, note="with the heads that only training uses"),
        macs_g=Figure(28.2, _TABLE_3),
        macs_input_size=(1024, 2048),
        miou_val_percent=Figure(73.1, FASTERSEG_TABLE_4),
        miou_test_percent=Figure(71.5, FASTERSEG_TABLE_4),
        fps=Figure(163.9, FASTERSEG_TABLE_4),
        fps_device=_GTX,
    ),
    "fasterseg-teacher": Published(
        title="FasterSeg teacher", paper=_FASTERSEG, input_size=(1024, 2048)
    ),
    "fasterseg-teacher-pruned": Published(
        title="FasterSeg teacher, pruned",
        paper=_FASTERSEG,
        input_size=(1024, 2048),
        parameters_m=Figure(4.7, _TABLE_3, note="with the heads that only training uses"),
        macs_g=Figure(29.5, _TABLE_3),
        macs_input_size=(1024, 2048),
        miou_val_percent=Figure(66.1, _TABLE_3),
        fps=Figure(146.7, _TABLE_3),
        fps_device=_GTX,
    ),
}
