"""Networks side by side: their counts, their sizes, what is measured, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx_models import segmenter
from torch import nn

from latlut.cli import main
from latlut.errors import SpecError, UnknownNameError
from latlut.measure.bench_result import BenchResult, ClockContents
from latlut.operators.onnx_export import export_onnx
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import Workload
from latlut.reports.comparison import plot_comparison
from latlut.search.data.classes import Classes
from latlut.search.networks.baselines import baseline_names, baseline_on_meta, build_baseline
from latlut.search.networks.comparing import compare
from latlut.search.networks.cost import cost_of_baseline, cost_of_onnx, macs_of, parameters_of
from latlut.search.networks.finding import QUICK, contender_names, find_contender, find_contenders
from latlut.search.networks.model_files import ModelFacts, save_model
from latlut.search.networks.network import trainable
from latlut.spaces import Architecture, FasterSegSpace

SIZE = (64, 128)


def macs_by_hand(module: nn.Module, input_size: tuple[int, int]) -> int:
    """Multiply-accumulates from the shapes that pass each convolution."""
    total = 0

    def add(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):  # weight (in, out / groups, kernel)
            total += inputs[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Conv2d):  # weight (out, in / groups, kernel)
            total += output.numel() * layer.weight[0].numel()

    for layer in module.modules():
        layer.register_forward_hook(add)
    with torch.no_grad():
        module(torch.empty(1, 3, *input_size, device="meta"))
    return total


@pytest.mark.parametrize("name", baseline_names())
def test_macs_are_those_of_the_convolutions(name: str) -> None:
    size = (96, 160)
    assert macs_of(baseline_on_meta(name), size) == macs_by_hand(baseline_on_meta(name), size)


@pytest.mark.parametrize("name", ["enet", "fast-scnn", "bisenet-v2"])
def test_onnx_counts_are_the_networks(name: str) -> None:
    module = build_baseline(name, 5)
    content = export_onnx(module, [np.zeros((1, 3, *SIZE), dtype=np.float32)])
    found = cost_of_onnx(read_onnx(content))
    network = cost_of_baseline(name, SIZE, 5)
    assert found.macs == network.macs
    # norms that follow a convolution are folded: their scales go, the convolutions get biases
    assert 0.9 * network.parameters < found.parameters <= 1.01 * network.parameters
    assert found.training_parameters is None


def test_onnx_macs_of_a_matrix_product(tmp_path: Path) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.line = nn.Linear(16, 7)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.line(self.conv(image))

    content = export_onnx(Product().eval(), [np.zeros((1, 3, 12, 16), dtype=np.float32)])
    found = cost_of_onnx(read_onnx(content))
    assert found.macs == 12 * 16 * 8 * 27 + 8 * 12 * 7 * 16
    assert found.parameters == 8 * 27 + 7 * 16 + 7


# --- names and sizes ---


def test_every_name_is_found() -> None:
    found = find_contenders(["all"])
    assert [contender.name for contender in found] == contender_names()
    assert {contender.kind for contender in found} == {"baseline", "fasterseg", "published"}
    assert set(QUICK) < set(contender_names())
    assert [item.name for item in find_contenders(["enet", "quick", "enet"])][0] == "enet"
    assert len(find_contenders(["enet", "quick", "enet"])) == len(QUICK)


def test_an_unknown_network_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fast-scnn'"):
        find_contender("fastscnn")
    with pytest.raises(UnknownNameError, match=r"nowhere\.onnx"):
        find_contender(str(tmp_path / "nowhere.onnx"))


def test_sizes_are_the_papers_or_common() -> None:
    contenders = find_contenders(["enet", "fast-scnn", "cas"])

    def found(sizes: str) -> list[tuple[str, tuple[int, int], bool]]:
        rows = compare(contenders, sizes, (128, 256))  # type: ignore[arg-type]  # a literal
        return [(row.name, row.input_size, row.is_paper_size) for row in rows]

    enet, scnn = ("enet", (512, 1024), True), ("fast-scnn", (1024, 2048), True)
    cas = ("cas", (768, 1536), True)
    assert found("paper") == [enet, scnn, cas]
    common = [(name, (128, 256), False) for name in ("enet", "fast-scnn")]
    assert found("common") == [*common, cas]
    assert found("both") == [enet, common[0], scnn, common[1], cas]


def test_published_numbers_alone_are_neither_counted_nor_measured() -> None:
    cas = find_contender("cas")
    (row,) = compare([cas], "both", SIZE, measure=lambda workloads: pytest.fail("measured"))
    assert row.cost is None and row.latency is None
    assert row.to_dict()["published"]["miou_val_percent"]["value"] == 71.6
    with pytest.raises(SpecError, match="only its published numbers"):
        cas.workload(SIZE)


def searched_architecture() -> Architecture:
    return FasterSegSpace(layers=5).sample(2)


def result_of(name: str, latency_ms: float) -> BenchResult:
    image, logits = (1, 3, *SIZE), (1, 19, *SIZE)
    return BenchResult(
        name, 1, "p10", latency_ms, latency_ms, latency_ms, (latency_ms,), {50: latency_ms},
        latency_ms, 1, ClockContents((image,), (logits,), True, False), {}, None, "",
    )  # fmt: skip


def test_each_row_gets_its_own_latency(tmp_path: Path) -> None:
    searched_architecture().save(tmp_path / "found.json")
    names = ["enet", str(tmp_path / "found.json"), "cas", "fasterseg-student"]
    seen: list[str] = []

    def measure(workloads: Sequence[Workload]) -> list[BenchResult]:
        seen.extend(workload.name for workload in workloads)
        assert all(workload.input_shapes == ((1, 3, *SIZE),) for workload in workloads)
        return [result_of(item.name, 1.0 + index) for index, item in enumerate(workloads)]

    rows = compare(find_contenders(names), "common", SIZE, measure)
    assert [row.name for row in rows] == names
    assert [row.latency and row.latency.latency_ms for row in rows] == [1.0, 2.0, None, 3.0]
    assert seen == [f"{name} at 64x128" for name in names if name != "cas"]
    assert rows[1].published is None and rows[1].kind == "architecture"


@pytest.mark.parametrize("kind", ["architecture", "baseline"])
def test_a_trained_network_has_its_own_score(tmp_path: Path, kind: str) -> None:
    classes = Classes(("road", "sky", "rest"), ((0, 0, 0), (9, 9, 9), (99, 9, 9)))
    own = replace(searched_architecture(), num_classes=3)
    facts = ModelFacts(
        own if kind == "architecture" else "fast-scnn", classes, "street scenes", (32, 64),
        mean_iou=0.4321,
    )  # fmt: skip
    network = trainable(own, 3) if kind == "architecture" else build_baseline("fast-scnn", 3)
    save_model(tmp_path / "run", network, facts)
    contender = find_contender(str(tmp_path / "run"))
    (row,) = compare([contender], "paper", SIZE)
    assert (row.kind, row.input_size, row.published) == ("trained", (32, 64), None)
    assert row.own_miou_percent == pytest.approx(43.21)
    assert row.own_data == "street scenes"
    assert row.cost is not None and row.cost.macs and row.cost.training_parameters
    assert row.cost.training_parameters == parameters_of(network)
    workload = contender.workload((32, 64))
    image = workload.random_inputs()
    (expected,) = workload.expected(image)
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(image[0])).numpy()
    assert expected.shape == (1, 3, 32, 64)
    np.testing.assert_allclose(expected, found, rtol=1e-4, atol=1e-4 * np.abs(found).max())


# --- the picture ---


def test_the_picture_takes_what_has_both_numbers(tmp_path: Path) -> None:
    searched_architecture().save(tmp_path / "found.json")
    names = ["enet", "fasterseg-student", str(tmp_path / "found.json"), "cas"]
    rows = compare(find_contenders(names), "common", SIZE)
    path = tmp_path / "compare.png"
    assert plot_comparison(rows, "title", "subtitle", path) == 2  # no accuracy, no MACs
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SpecError, match="nothing to draw"):
        plot_comparison(rows[2:], "title", "subtitle", path)
    with pytest.raises(SpecError, match=r"\.pdf, \.png, \.svg"):
        plot_comparison(rows, "title", "subtitle", tmp_path / "compare.gif")


# --- the command ---


def test_counting_needs_no_engine(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    arguments = ["compare", "enet,cas", "--input", "64x128", "--csv", str(table)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "Nothing was measured; add --measure." in result.output
    with table.open(encoding="utf-8", newline="") as file:
        enet, cas = csv.DictReader(file)
    assert enet["input"] == "64x128" and int(enet["macs"]) > 0 and enet["latency_ms"] == ""
    assert enet["published_miou_test_percent"] == "58.3"
    assert cas["macs"] == "" and cas["published_fps"] == "108.0"


def test_measuring_names_engine_clock_and_what_was_not_compared(tmp_path: Path) -> None:
    searched_architecture().save(tmp_path / "found.json")
    module = build_baseline("fast-scnn", 5)
    content = export_onnx(module, [np.zeros((1, 3, 32, 64), dtype=np.float32)])
    (tmp_path / "mine.onnx").write_bytes(content)
    names = ["enet", str(tmp_path / "found.json"), str(tmp_path / "mine.onnx")]
    arguments = ["compare", ",".join(names), "--input", "64x128", "--passes", "1"]
    arguments += ["--engine", "onnxruntime", "--quiet", "--json"]
    arguments += ["--plot", str(tmp_path / "compare.svg")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "ONNX Runtime" in found["measured_on"]
    enet, searched, mine = found["rows"]
    for row in (enet, searched, mine):
        assert row["latency"]["latency_ms"] > 0
        assert row["latency"]["inside_the_clock"]["upsample"]
    assert (enet["latency"]["difference"] is None, enet["input_size"]) == (True, [64, 128])
    assert searched["latency"]["difference"] < 2e-3
    assert (mine["kind"], mine["input_size"]) == ("onnx", [32, 64])
    assert b"measured latency" in (tmp_path / "compare.svg").read_bytes()


def test_files_that_fail_are_rows_that_say_why_and_batches_are_named(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"this is no model")
    module = build_baseline("fast-scnn", 5)
    content = export_onnx(module, [np.zeros((4, 3, 32, 64), dtype=np.float32)])
    (tmp_path / "four.onnx").write_bytes(content)
    odd = segmenter(op_type="NoSuchOperator")
    (tmp_path / "odd.onnx").write_bytes(odd)
    (tmp_path / "torn.json").write_text("{")
    files = ("torn.onnx", "odd.onnx", "four.onnx", "torn.json", "none.onnx")
    names = ",".join(str(tmp_path / name) for name in files)
    arguments = ["compare", names, "--engine", "onnxruntime", "--passes", "1"]
    result = CliRunner().invoke(main, [*arguments, "--quiet", "--json"])
    assert result.exit_code == 0, result.output
    torn, unknown, four, broken, absent = json.loads(result.stdout)["rows"]
    assert "torn.json" in broken["failure"] and "none.onnx" in absent["failure"]
    assert "cannot be read as an ONNX model" in torn["failure"] and torn["macs"] is None
    assert "NoSuchOperator" in unknown["failure"] and unknown["latency"] is None
    assert (four["failure"], four["batch"], four["input_size"]) == (None, 4, [32, 64])
    assert four["macs"] == cost_of_baseline("fast-scnn", (32, 64), 5).macs
    latency = four["latency"]
    assert latency["fps"] == pytest.approx(4e3 / latency["latency_ms"])
    shown = CliRunner().invoke(main, [*arguments, "--unchecked"]).output
    assert "batch N: the latency is that of N images" in shown and "failed: " in shown
    assert "its output was not compared with anything" in shown
