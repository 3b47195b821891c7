"""The baselines: their counts against published figures, their shapes, their export."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import UnknownNameError
from latlut.operators.onnx_export import export_onnx
from latlut.search.networks.baselines import (
    CAS,
    FASTERSEG,
    Baseline,
    Published,
    baseline_names,
    baseline_on_meta,
    build_baseline,
    published,
)
from latlut.search.networks.baselines.blocks import pool_to_bins
from latlut.search.networks.baselines.df1_seg import BACKBONE_MACS_G, DF1
from latlut.search.networks.baselines.enet import pool_with_winners, unpool
from latlut.search.networks.cost import cost_of_baseline, macs_of, parameters_of
from latlut.search.networks.finding import find_contender
from latlut.search.networks.network import TrainOutputs

#: ImageNet's classifier, which the DRN and DF1 figures include: 512 -> 1000 with biases.
IMAGENET_CLASSIFIER = 512 * 1000 + 1000

#: The pyramid's convolutions that the counted ICNet holds without using them: 1024 -> 256, norm.
UNUSED_IN_ICNET = 4 * (1024 * 256 + 2 * 256)

#: Network -> (published millions of parameters, tolerance, source). What the figure is of is said
#: by ``counted_as_published``. ENet's and Fast-SCNN's papers do not say what they count.
PARAMETERS_M = {
    "enet": (0.37, 0.03, "arXiv 1606.02147, Table 3"),
    "icnet": (7.7, 0.01, "FC-HarDNet repository's table"),
    "bisenet": (13.4, 0.005, "FC-HarDNet repository's table"),
    "fast-scnn": (1.11, 0.03, "arXiv 1902.04502"),
    "drn-d-22": (16.4, 0.005, "README of the authors' repository"),
    "drn-d-38": (26.5, 0.005, "README of the authors' repository"),
    "pidnet-s": (7.62, 0.005, "Qualcomm's model card"),
}
#: Network -> (published billions of multiply-accumulates, input, tolerance, source). BiSeNetV2's
#: figure was not read in the paper and is not reached: what it counts is not known.
MACS_G = {
    "icnet": (30.7, (1024, 2048), 0.06, "FC-HarDNet repository's table"),
    "bisenet": (66.8, (768, 1536), 0.01, "FC-HarDNet repository's table"),
    "pidnet-s": (47.6, (1024, 2048), 0.01, "CVPR 2023 paper"),
    "bisenet-v2": (21.15, (512, 1024), 0.2, "arXiv 2004.02147"),
}


def counted_as_published(name: str) -> int:
    """Parameters of what the source counts."""
    cost = cost_of_baseline(name, (128, 256))
    assert cost.training_parameters is not None
    if name == "icnet":
        return cost.training_parameters + UNUSED_IN_ICNET
    if name == "bisenet":
        return cost.training_parameters
    if name.startswith("drn"):
        backbone = baseline_on_meta(name).get_submodule("backbone")
        return parameters_of(backbone) + IMAGENET_CLASSIFIER
    return cost.parameters


@pytest.mark.parametrize("name", PARAMETERS_M)
def test_parameters_are_the_published_ones(name: str) -> None:
    figure, tolerance, _ = PARAMETERS_M[name]
    stated = published(name).parameters_m
    assert stated is not None and stated.value == figure
    assert counted_as_published(name) / 1e6 == pytest.approx(figure, rel=tolerance)


@pytest.mark.parametrize("name", MACS_G)
def test_macs_are_the_published_ones(name: str) -> None:
    figure, size, tolerance, _ = MACS_G[name]
    paper = published(name)
    assert paper.macs_g is not None and paper.macs_g.value == figure
    assert paper.macs_input_size == size
    macs = cost_of_baseline(name, size).macs
    assert macs is not None and macs / 1e9 == pytest.approx(figure, rel=tolerance)


def test_enet_computes_about_what_its_paper_says() -> None:
    """3.83 GFLOPs at 640x360, two a multiply-accumulate; the paper does not say what it counts."""
    paper = published("enet")
    assert paper.macs_g is not None and 2 * paper.macs_g.value == 3.83
    macs = cost_of_baseline("enet", (360, 640)).macs
    assert macs is not None and 2 * macs / 1e9 == pytest.approx(3.83, rel=0.12)


def test_df1_backbone_computes_what_its_readme_says() -> None:
    """746 M multiply-accumulates at 224x224."""

    class Deepest(DF1):
        def forward(self, image: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(image)[2]

    with torch.device("meta"):
        backbone = Deepest().eval()
    assert BACKBONE_MACS_G.value == 0.746
    assert macs_of(backbone, (224, 224)) / 1e9 == pytest.approx(0.746, rel=0.001)


def test_every_network_says_where_its_figures_are_from() -> None:
    everyone: list[Published] = [published(name) for name in baseline_names()]
    for paper in [*everyone, CAS, *FASTERSEG.values()]:
        for field in ("parameters_m", "macs_g", "miou_val_percent", "miou_test_percent", "fps"):
            figure = getattr(paper, field)
            assert figure is None or (figure.value > 0 and figure.source), (paper.title, field)
        assert (paper.macs_g is None) == (paper.macs_input_size is None)
        assert (paper.fps is None) == (not paper.fps_device)
    # Table 4 of the FasterSeg paper
    assert CAS.miou_val_percent and CAS.miou_val_percent.value == 71.6
    assert CAS.fps and CAS.fps.value == 108.0


@pytest.mark.parametrize("name", baseline_names())
@pytest.mark.parametrize("size", [(1024, 2048), (720, 960), (331, 517)])
def test_logits_have_the_images_size(name: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = baseline_on_meta(name, 11)(torch.empty(2, 3, *size, device="meta"))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 11, *size)


@pytest.mark.parametrize("name", baseline_names())
def test_training_gives_auxiliary_logits_of_every_class(name: str) -> None:
    module = baseline_on_meta(name, 7).train()
    outputs = module(torch.empty(2, 3, 128, 256, device="meta"))
    assert isinstance(outputs, TrainOutputs)
    assert len(outputs.auxiliary) == len(module.auxiliary)
    for logits in (outputs.main, *outputs.auxiliary):
        assert logits.shape[:2] == (2, 7)


EXPECTED_HEADS = {
    "enet": 1, "icnet": 2, "bisenet": 2, "fast-scnn": 2, "df1-seg-d8": 0, "drn-d-22": 0,
    "drn-d-38": 0, "pidnet-s": 1, "bisenet-v2": 4,
}  # fmt: skip


def test_auxiliary_heads_are_the_papers() -> None:
    assert {name: len(baseline_on_meta(name).auxiliary) for name in baseline_names()} == (
        EXPECTED_HEADS
    )


def small_image(batch: int = 1, height: int = 64, width: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, height, width, generator=generator)


@pytest.mark.parametrize("name", ["enet", "icnet", "df1-seg-d8", "pidnet-s"])
def test_weights_come_from_the_seed(name: str) -> None:
    image = small_image()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    with torch.no_grad():
        first, again, other = (build_baseline(name, 5, seed=seed)(image) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers were used"
    assert isinstance(first, torch.Tensor) and isinstance(other, torch.Tensor)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.isfinite().all() and float(first.std()) > 0


@pytest.mark.parametrize("name", ["enet", "fast-scnn", "bisenet-v2"])
def test_every_parameter_learns(name: str) -> None:
    module = build_baseline(name, 5).train()
    outputs = module(small_image(batch=2, height=96, width=160))
    loss = sum(logits.square().mean() for logits in (outputs.main, *outputs.auxiliary))
    loss.backward()
    silent = [key for key, item in module.named_parameters() if item.grad is None]
    assert not silent


@pytest.mark.parametrize("name", baseline_names())
def test_onnx_computes_the_same(name: str) -> None:
    size = (66, 90)  # no multiple of any network's stride
    module: Baseline = build_baseline(name, 5, seed=4)
    image = small_image(1, *size)
    content = export_onnx(module, [image.numpy()], opset=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"in0": image.numpy()})
    with torch.no_grad():
        expected = module(image).numpy()
    assert found.shape == (1, 5, *size)
    differs = np.abs(found - expected) > 2e-3 * float(np.abs(expected).max())
    # ENet's unpooling may choose another winner where two values are equal up to rounding.
    assert differs.mean() <= (0.0 if module.is_continuous else 0.1)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pidnet-s'"):
        build_baseline("pidnet")


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    st.booleans(),
)
def test_unpooling_by_winners_is_torchs(
    seed: int, shape: tuple[int, int, int, int], has_ties: bool
) -> None:
    batch, channels, rows, columns = shape
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, 2 * rows, 2 * columns, generator=generator)
    if has_ties:
        image = image.round()
    values = torch.randn(batch, channels, rows, columns, generator=generator)
    pooled, winners = pool_with_winners(image)
    expected, places = functional.max_pool2d(image, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    assert torch.equal(unpool(values, winners), functional.max_unpool2d(values, places, 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(1, 16))
def test_pooling_windows_are_equal_and_cover_the_map(
    height: int, width: int, rows: int, columns: int
) -> None:
    ramp = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    pooled = pool_to_bins(ramp, rows, columns)
    assert pooled.shape == (1, 1, min(rows, height), min(columns, width))
    # by symmetry, windows that cover the map evenly have the map's mean
    assert float(pooled.mean()) == pytest.approx(float(ramp.mean()))
    if height % pooled.shape[2] == 0 and width % pooled.shape[3] == 0:
        expected = functional.adaptive_avg_pool2d(ramp, pooled.shape[2:])
        assert torch.allclose(pooled, expected)


#: The authors' fusion also weighs channels by their mean: two 1x1 convolutions of 128 channels,
#: which latlut's fusion, the paper's, does not have.
AUTHORS_ATTENTION = 2 * 128 * 128


@pytest.mark.parametrize(
    ("name", "parameters_m", "macs_g"),
    [("fasterseg-student", 4.4, 28.2), ("fasterseg-teacher-pruned", 4.7, 29.5)],
)
def test_fasterseg_counts_are_the_papers(name: str, parameters_m: float, macs_g: float) -> None:
    """FasterSeg's Table 3, parameters with training heads: within 2%."""
    contender = find_contender(name)
    paper = contender.published
    assert paper is not None and paper.parameters_m is not None and paper.macs_g is not None
    assert (paper.parameters_m.value, paper.macs_g.value) == (parameters_m, macs_g)
    cost = contender.cost((1024, 2048))
    assert cost is not None and cost.training_parameters and cost.macs
    assert cost.training_parameters / 1e6 == pytest.approx(parameters_m, rel=0.02)
    assert cost.macs / 1e9 == pytest.approx(macs_g, rel=0.02)
    # with the authors' attention, the parameters round to the paper's figure
    assert round((cost.training_parameters + AUTHORS_ATTENTION) / 1e6, 1) == parameters_m
