"""Benchmarks of whole networks: with a scripted engine the latency is known."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_engine import FakeEngine, FakeSession, work_ns
from onnx import TensorProto, helper
from onnx_models import segmenter
from torch import nn

from latlut.cli import main
from latlut.cli.bench import print_result
from latlut.engines import engine_class
from latlut.errors import EngineError, ImportFileError, ParityError, SpecError
from latlut.machine.gpu_state import GpuMonitor
from latlut.machine.lock import device_lock
from latlut.measure.bench import (
    BenchSettings,
    bench_module,
    bench_onnx,
    bench_workload,
    bench_workloads,
    paper_reading,
)
from latlut.measure.bench_result import BenchResult
from latlut.measure.timing import TimingSettings
from latlut.operators.graph_cache import GraphCache
from latlut.operators.module_files import read_module
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import ModuleWorkload, Workload
from latlut.spaces import Architecture, FasterSegSpace

SIZE = (64, 96)
QUICK = BenchSettings(
    passes=2,
    timing=TimingSettings(min_samples=3, max_samples=20, min_time_s=0.0, time_cap_s=0.01),
)


@pytest.fixture
def network() -> Architecture:
    return FasterSegSpace(layers=4, widths=(4,), stem_head_widths=(4,)).sample(3)


@pytest.fixture
def workload(network: Architecture) -> Workload:
    return Workload.from_nodes(network.nodes(SIZE), "a network")


class LaunchingSession(FakeSession):
    """Says how it is launched; the host has most of a run."""

    def _open(self, module, graph) -> None:
        super()._open(module, graph)
        self.launch, self._host_shares = "CUDA graph", [0.9]


def test_launches_and_the_hosts_share_are_in_the_result(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plain = bench_workload(FakeEngine(), workload, QUICK)
    assert not {"host_share", "launch"} & plain.to_dict().keys()
    monkeypatch.setattr(FakeEngine, "session_type", LaunchingSession)
    found = bench_workload(FakeEngine(), workload, QUICK)
    assert (found.host_share, found.launch) == (0.9, "CUDA graph")
    assert found.to_dict() | {"host_share": 0.9, "launch": "CUDA graph"} == found.to_dict()
    assert any("the host takes 90% of a run's time" in text for text in found.warnings)
    print_result(found)
    shown = capsys.readouterr().out
    assert "launched: CUDA graph, host 90% of a run" in shown
    assert "note: the host takes 90%" in shown


def test_a_gpu_is_warmed_up_before_a_network_is_timed(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, clocks = FakeEngine(), iter(range(10_000))
    monkeypatch.setattr(GpuMonitor, "sm_mhz", lambda self: 300 + 500 * (next(clocks) % 2))
    settings = replace(QUICK, passes=1)
    bench_workload(engine, workload, settings)
    few = engine.runs
    engine.device = replace(engine.device, uuid="GPU-1")
    found = bench_workload(engine, workload, settings)
    assert (engine.runs - few) * work_ns(workload) / 1e9 >= 3.0
    assert "warm-up did not settle" in found.warnings


def test_the_latency_is_the_scripted_one_inside_its_interval(workload: Workload) -> None:
    truth_ms = work_ns(workload) * np.exp(-1.2816 * 0.01) / 1e6  # p10 of a lognormal
    hits = 0
    for seed in range(20):
        found = bench_workload(FakeEngine(noise=0.01, seed=seed), workload)
        assert found.latency_ms == pytest.approx(truth_ms, rel=0.01)
        hits += found.ci_low_ms <= truth_ms <= found.ci_high_ms
    assert hits >= 17  # 95% of them, less what 20 draws can differ by


def test_speed_is_images_per_second(network: Architecture) -> None:
    workload = Workload.from_nodes(network.nodes(SIZE, batch=4), "four images")
    found = bench_workload(FakeEngine(), workload)
    assert found.batch == 4
    assert found.fps == pytest.approx(4e3 / found.latency_ms)
    assert found.fps_interval == pytest.approx((4e3 / found.ci_high_ms, 4e3 / found.ci_low_ms))


def test_percentiles_rise_and_enclose_the_mean(workload: Workload) -> None:
    found = bench_workload(FakeEngine(noise=0.1), workload)
    values = list(found.percentiles_ms.values())
    assert values == sorted(values)
    assert values[0] < found.mean_ms < values[-1]
    truth_ms = work_ns(workload) / 1e6
    assert found.percentiles_ms[50] == pytest.approx(truth_ms, rel=0.05)
    assert found.samples >= 5 * 10


def test_passes_that_differ_widen_the_interval(workload: Workload) -> None:
    engine = FakeEngine(noise=0.001)
    engine.speed = lambda runs: 1.0 + 0.2 * (len(engine.opened) % 2)  # every second pass is slow
    found = bench_workload(engine, workload)
    assert len(found.readings_ms) == 5
    assert max(found.readings_ms) / min(found.readings_ms) == pytest.approx(1.2, rel=0.02)
    assert found.ci_high_ms / found.ci_low_ms > 1.2
    assert any(warning.startswith("interval ±") for warning in found.warnings)


def test_one_pass_has_no_interval(workload: Workload) -> None:
    found = bench_workload(FakeEngine(), workload, BenchSettings(passes=1))
    assert math.isnan(found.ci_low_ms) and found.fps_interval == (None, None)
    assert found.to_dict()["ci_low_ms"] is None
    assert "interval unknown after one pass" in found.warnings
    with pytest.raises(SpecError, match="passes"):
        BenchSettings(passes=0)


def test_networks_take_turns_in_every_pass_with_fresh_sessions(network: Architecture) -> None:
    engine = FakeEngine()
    workloads = [
        Workload.from_nodes(network.nodes(size), f"at {size[0]}") for size in (SIZE, (96, 96))
    ]
    found = bench_workloads(engine, workloads, BenchSettings(passes=6))
    assert [item.name for item in found] == ["at 64", "at 96"]
    assert found[0].latency_ms < found[1].latency_ms
    passes = [tuple(engine.opened[start : start + 2]) for start in range(0, 12, 2)]
    assert all(set(item) == {"at 64", "at 96"} for item in passes)
    assert len(Counter(passes)) == 2  # in both orders
    assert engine.closed == len(engine.opened) == 12


def test_an_engine_that_computes_something_else_is_not_timed(workload: Workload) -> None:
    engine = FakeEngine()
    engine.wrong.add(workload.name)
    with pytest.raises(ParityError, match="nothing was timed"):
        bench_workload(engine, workload)
    assert engine.runs == 0
    found = bench_workload(engine, workload, BenchSettings(passes=2, is_checked=False))
    assert found.difference is None


class TestPaperProtocol:
    def test_the_mean_of_six_seconds(self, workload: Workload) -> None:
        engine = FakeEngine(noise=0.05, seed=1)
        settings = BenchSettings(passes=3, has_paper_protocol=True)
        found = bench_workload(engine, workload, settings)
        assert found.paper is not None
        mean_ms = work_ns(workload) * np.exp(0.05**2 / 2) / 1e6
        assert found.paper.mean_ms == pytest.approx(mean_ms, rel=0.005)
        assert found.paper.seconds == pytest.approx(6.0, rel=0.02)
        assert found.paper.fps == pytest.approx(1e3 / found.paper.mean_ms)
        assert len(found.readings_ms) == 3
        assert engine.closed == 4  # a session of its own

    def test_a_network_slower_than_the_protocol_is_run_once(self, workload: Workload) -> None:
        engine = FakeEngine(noise=0.0)
        engine.speed = lambda runs: 1e10 / work_ns(workload)  # ten seconds a run
        with engine.load(workload) as session:
            found = paper_reading(session)
        assert (found.runs, found.mean_ms) == (1, pytest.approx(10e3))

    def test_only_with_batch_one(self, network: Architecture) -> None:
        two = Workload.from_nodes(network.nodes(SIZE, batch=2), "two images")
        engine = FakeEngine()
        with pytest.raises(SpecError, match="batch 1, received 2"):
            bench_workload(engine, two, BenchSettings(has_paper_protocol=True))
        assert engine.opened == []


class TestInsideTheClock:
    @pytest.mark.parametrize("has_upsample", [False, True])
    @pytest.mark.parametrize("has_argmax", [False, True])
    def test_of_an_onnx_file(self, has_upsample: bool, has_argmax: bool) -> None:
        content = segmenter(has_upsample=has_upsample, has_argmax=has_argmax)
        found = bench_onnx(engine_class("onnxruntime")(), content, settings=QUICK)
        contents = found.contents
        assert (contents.has_upsample, contents.has_argmax) == (has_upsample, has_argmax)
        inside = contents.describe().partition("inside the clock:")[2].partition("; outside:")
        assert ("1 Resize" in inside[0]) == ("image's size" in inside[0]) == has_upsample
        assert ("1 ArgMax" in inside[0]) == has_argmax
        assert "copies" in inside[2]
        assert found.to_dict()["inside_the_clock"]["argmax"] == has_argmax  # type: ignore[index]

    @pytest.mark.parametrize("has_upsample", [False, True])
    def test_of_an_architecture(self, network: Architecture, has_upsample: bool) -> None:
        nodes = network.nodes(SIZE)
        kept = nodes if has_upsample else nodes[:-1]
        found = bench_workload(FakeEngine(), Workload.from_nodes(kept, "a network"))
        assert found.contents.has_upsample == has_upsample
        assert not found.contents.has_argmax
        assert found.contents.output_shapes == ((1, 19, *(SIZE if has_upsample else (8, 12))),)


class ClassMap(nn.Module):
    """The best of four channels that a convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image).argmax(dim=1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "pytorch"])
def test_a_module_with_its_own_weights(name: str) -> None:
    if not engine_class(name).availability().is_available:
        pytest.skip(engine_class(name).availability().reason)
    engine = engine_class(name)()
    found = bench_module(engine, ClassMap().eval(), (16, 24), batch=2, settings=QUICK)
    assert found.name == "ClassMap"
    assert found.contents.output_shapes == ((2, 16, 24),)
    assert found.contents.has_upsample and found.contents.has_argmax
    assert found.difference is not None and found.difference < 0.01
    assert found.engine["name"] == name and found.engine["threads"] == 1


class Several(ClassMap):
    """Logits in a dict, with a tuple of others and a None, as transformers' models return them."""

    def forward(self, image: torch.Tensor) -> dict[str, object]:
        logits = self.conv(image)
        return {"logits": logits, "none": None, "maps": (logits.relu(), [logits.argmax(1)])}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "pytorch"])
def test_a_module_that_returns_dicts_and_tuples(name: str) -> None:
    if not engine_class(name).availability().is_available:
        pytest.skip(engine_class(name).availability().reason)
    found = bench_module(engine_class(name)(), Several().eval(), (16, 24), settings=QUICK)
    assert found.contents.output_shapes == ((1, 4, 16, 24), (1, 4, 16, 24), (1, 16, 24))
    assert found.difference is not None and found.difference < 0.01


def test_a_module_that_returns_something_else_is_refused() -> None:
    class Odd(ClassMap):
        def forward(self, image: torch.Tensor) -> object:
            return {"logits": "none"}

    for name in ("pytorch", "onnxruntime"):
        with pytest.raises(EngineError, match="returns str"):
            bench_module(engine_class(name)(), Odd().eval(), (16, 24), settings=QUICK)


def nonzero() -> bytes:
    """The places of positive values: as many as the input happens to have."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["places"]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    places = helper.make_tensor_value_info("places", TensorProto.INT64, [4, None])
    graph = helper.make_graph(nodes, "nonzero", [image], [places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_outputs_whose_size_depends_on_the_values(name: str) -> None:
    if not engine_class(name).availability().is_available:
        pytest.skip(engine_class(name).availability().reason)
    found = bench_onnx(engine_class(name)(), nonzero(), settings=QUICK)
    assert found.difference == 0 and found.latency_ms > 0


def script_and_program(folder: Path) -> list[Path]:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    example = torch.zeros(2, 3, 16, 24)
    torch.jit.save(torch.jit.trace(module, example), folder / "a.pt")
    torch.export.save(torch.export.export(module, (example,)), folder / "a.pt2")
    return [folder / "a.pt", folder / "a.pt2"]


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_modules_in_files_of_pytorch(tmp_path: Path, name: str) -> None:
    for path in script_and_program(tmp_path):
        size = (16, 24) if path.suffix == ".pt" else None
        workload = read_module(path, size, 2)
        found = bench_workload(engine_class(name)(), workload, QUICK)
        assert (found.name, found.batch) == (path.name, 2)
        assert found.contents.output_shapes == ((2, 4, 14, 22),)
        assert found.difference is not None and found.difference < 1e-5
    with pytest.raises(SpecError, match="which inputs it takes.*--input 512x1024"):
        read_module(tmp_path / "a.pt")
    for size, batch in (((8, 8), None), (None, 3)):
        with pytest.raises(SpecError, match="was exported for inputs of"):
            read_module(tmp_path / "a.pt2", size, batch)
    for size, batch in (((8, 8), None), (None, 2)):
        with pytest.raises(SpecError, match="leave --input and --batch out"):
            read_module(tmp_path / "a.pt", size, batch, [(1, 3, 16, 24)])
    with pytest.raises(EngineError) as failed:  # TorchScript tells its code first
        wrong = read_module(tmp_path / "a.pt", shapes=[(1, 5, 16, 24)])
        bench_workload(engine_class(name)(), wrong, QUICK)
    assert "Traceback" not in str(failed.value) and "channels" in str(failed.value)
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ImportFileError, match="weights alone"):
        read_module(tmp_path / "weights.pt", (8, 8))


def test_a_batch_that_is_not_known_gives_no_images_per_second() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [128, 64, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [128, 64, 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    engine = engine_class("onnxruntime")()
    found = bench_onnx(engine, model.SerializeToString(), settings=QUICK)
    assert found.batch is None and found.fps is None and found.to_dict()["fps"] is None
    with pytest.raises(SpecError, match="batch is not known"):
        workload = read_onnx(model.SerializeToString())
        bench_workload(engine, workload, BenchSettings(has_paper_protocol=True))


def test_a_network_that_fails_is_left_out_and_told(network: Architecture) -> None:
    engine = FakeEngine()
    workloads = [Workload.from_nodes(network.nodes(SIZE), name) for name in ("a", "b", "c")]
    engine.rejects = {"b"}
    failures: list[tuple[str, str]] = []
    found = bench_workloads(
        engine, workloads, failed=lambda item, error: failures.append((item.name, str(error)))
    )
    assert [result.name for result in found] == ["a", "c"]
    assert failures == [("b", "b: rejected by the script")]
    with pytest.raises(EngineError, match="rejected"):
        bench_workloads(engine, workloads)


def test_a_refusal_of_the_comparison_names_the_option(workload: Workload) -> None:
    engine = FakeEngine()
    engine.wrong = {workload.name}
    with pytest.raises(ParityError, match="--unchecked"):
        bench_workload(engine, workload)


def test_a_module_s_weights_are_never_taken_from_the_cache(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path)
    first, second = (Workload.from_module(ClassMap().eval(), [(1, 3, 8, 8)], "same") for _ in "ab")
    assert cache.onnx_bytes(first) != cache.onnx_bytes(second)
    assert cache.size_bytes() == 0


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(SpecError, match=r"call \.eval\(\) first"):
        ModuleWorkload("a network", ((1, 3, 8, 8),), ClassMap())


# ---- the command ----


def call(*words: str):
    return CliRunner().invoke(main, ["bench", *words])


def json_of(*words: str) -> dict:
    result = call(*words, "--passes", "2", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestCommand:
    @pytest.fixture
    def model(self, tmp_path: Path) -> str:
        path = tmp_path / "model.onnx"
        path.write_bytes(segmenter(("n", 3, "h", "w"), has_argmax=True))
        return str(path)

    def test_an_onnx_file_with_open_sides(self, model: str) -> None:
        found = json_of(model, "--cpu", "--input", "32x48", "--batch", "2")
        assert found["inside_the_clock"]["input_shapes"] == [[2, 3, 32, 48]]
        assert found["inside_the_clock"]["argmax"] is True
        assert found["fps"] == pytest.approx(2e3 / found["latency_ms"])
        assert found["paper_protocol"] is None

    def test_an_architecture_with_and_without_its_parts(
        self, network: Architecture, tmp_path: Path
    ) -> None:
        file = tmp_path / "network.json"
        network.save(file)
        base = (str(file), "--cpu", "--input", "64x96")
        logits = json_of(*base, "--no-upsample", "--classes", "5")
        assert logits["inside_the_clock"]["output_shapes"] == [[1, 5, 8, 12]]
        classes = json_of(*base, "--argmax", "--engine", "pytorch", "--statistic", "median")
        assert classes["inside_the_clock"]["output_shapes"] == [[1, 64, 96]]
        assert classes["statistic"] == "median"

    def test_what_people_see(self, model: str) -> None:
        result = call(model, "--cpu", "--input", "32x48", "--passes", "2")
        assert result.exit_code == 0, result.output
        for text in ("latency", "FPS", "p50", "inside the clock", "ONNX Runtime", "of the pixels"):
            assert text in result.stdout

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["MODEL"], "leaves its size open.*--input"),
            (["MODEL", "--input", "32x48", "--engine", "pytorch"], "does not read"),
            (["MODEL", "--input", "32x48", "--argmax"], "measured as it is"),
            (["none.onnx"], "no such file"),
            ([__file__], "no network that can be read"),
            (["fasterseg-studnet"], "did you mean 'fasterseg-student'"),
            (["MODEL", "--input", "32x48", "--batch", "2", "--protocol", "paper"], "batch 1"),
        ],
    )
    def test_refusals(self, model: str, words: list[str], message: str) -> None:
        result = call(*[model if word == "MODEL" else word for word in words], "--cpu")
        assert result.exit_code == 2
        assert re.search(message, result.stderr, re.DOTALL), result.stderr

    def test_a_device_that_is_being_measured_on_is_refused(self, model: str) -> None:
        with device_lock("cpu"):
            result = call(model, "--cpu", "--input", "32x48")
        assert result.exit_code == 2
        assert "measur" in result.stderr


def test_a_result_is_one_json_document(workload: Workload) -> None:
    found = bench_workload(FakeEngine(), workload, BenchSettings(passes=2))
    assert isinstance(found, BenchResult)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["percentiles_ms"]["p50"] == found.percentiles_ms[50]
    assert again["inside_the_clock"]["copies"] is False
