"""The round over all engines that ``latlut doctor`` prints: complete whatever an engine does."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from latlut.cli import main
from latlut.engines import PROVEN_ON, engine_class, engine_names, selftest
from latlut.engines import onnxruntime as ort
from latlut.engines.onnxruntime import OnnxRuntimeEngine
from latlut.engines.selftest import EngineTest, never_run, try_engines
from latlut.machine.gpus import DetectedGpu

GPU = DetectedGpu(0, "NVIDIA GeForce GTX 1080 Ti", "GPU-0", "535.1", 11 << 30, "1080ti")


def results_of(name: str) -> list[EngineTest]:
    return [result for result in try_engines() if result.name == name]


def test_each_engine_has_a_line_that_says_what_it_has() -> None:
    assert {result.name for result in try_engines()} == set(engine_names())
    (torch,) = [result for result in results_of("pytorch") if result.device == "cpu"]
    assert torch.works
    assert "fp32" in torch.precisions
    options = {option.name: option for option in torch.options}
    assert options["memory_format"].choices == ("contiguous", "channels_last")
    assert options["cuda_graph"].choices == ("off",)  # not on a CPU
    assert all(option.description for option in torch.options)


def test_an_engine_that_breaks_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a library of it is missing")

    monkeypatch.setattr(OnnxRuntimeEngine, "_find_device", broken)
    (result,) = results_of("onnxruntime")
    assert not result.works
    assert "a library of it is missing" in result.detail
    assert result.remedy
    assert any(other.works for other in results_of("pytorch"))


def test_an_engine_that_cannot_even_be_asked_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> None:
        raise ImportError("undefined symbol")

    monkeypatch.setattr(ort, "find_spec", broken)
    answer = CliRunner().invoke(main, ["doctor", "--json"])
    assert answer.exit_code == 0
    engines = {item["name"]: item for item in json.loads(answer.stdout)["engines"]}
    assert "undefined symbol" in engines["onnxruntime"]["detail"]
    assert engines["pytorch"]["works"]


def test_a_gpu_that_an_engine_does_not_see_gets_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if any(device != "cpu" for device in OnnxRuntimeEngine.device_names()):
        pytest.skip("ONNX Runtime reaches a GPU here")
    monkeypatch.setattr(selftest, "detect_gpus", lambda: [GPU])
    on_cpu, on_gpu = results_of("onnxruntime")
    assert on_cpu.works
    assert not on_gpu.works
    assert GPU.name in on_gpu.title
    assert "no CUDA execution provider" in on_gpu.detail
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in on_gpu.remedy
    assert len(results_of("openvino")) == 1  # which has no GPUs in principle


def test_no_engine_at_all_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "engine_names", lambda: [])
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 1


def test_what_was_never_run_is_named() -> None:
    named = never_run()
    for name in engine_names():
        title = engine_class(name).title
        for kind, words in (("cpu", "the CPU"), ("cuda", "a GPU")):
            is_named = f"{title} on {words}" in named
            exists = kind in engine_class(name).device_kinds
            assert is_named == (exists and (name, kind) not in PROVEN_ON)
    shown = CliRunner().invoke(main, ["doctor"]).stdout
    assert all(words in shown for words in named)


def test_what_is_proven_exists() -> None:
    for name, kind in PROVEN_ON:
        assert kind in engine_class(name).device_kinds
