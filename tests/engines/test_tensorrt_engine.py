"""What the TensorRT engines say without a GPU: versions, what is missing, errors, layers."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latlut.engines import engine_class
from latlut.engines.cuda import driver as cuda_driver
from latlut.engines.device_errors import engine_error, is_device_lost, is_out_of_memory
from latlut.engines.tensorrt.engine import TensorRtEngine, TensorRtRtxEngine
from latlut.engines.tensorrt.layers import layer_times
from latlut.engines.tensorrt.versions import Release
from latlut.errors import DeviceLostError, EngineError
from latlut.machine.gpus import detect_gpus
from latlut.operators.onnx_export import OPSET
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

#: As CUDA's driver, PyTorch, pycuda and TensorRT word them.
LOST = [
    "CUDA error: an illegal memory access was encountered",
    "cuStreamSynchronize failed: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "[defaultAllocator.cpp::deallocate::74] Error Code 1: Cuda Runtime (device lost)",
    "NVML: GPU is lost",
    "CUDA error: no CUDA-capable device is detected",
    "the launch timed out and was terminated",
]
FULL = [
    "cuMemAlloc failed: out of memory",
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23 GiB",
    "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (Requested size was "
    "8589934592 bytes.)",
]


@pytest.mark.parametrize("text", LOST)
def test_a_lost_gpu_is_told_from_a_failed_operator(text: str) -> None:
    found = engine_error(f"TensorRT failed on conv 4->4: {text}")
    assert isinstance(found, DeviceLostError)
    assert "conv 4->4" in str(found)
    assert "run the same command again" in str(found)


@pytest.mark.parametrize("text", FULL)
def test_full_memory_is_an_error_of_the_op_spec_alone(text: str) -> None:
    found = engine_error(f"TensorRT rejects conv 4->4: {text}")
    assert not isinstance(found, DeviceLostError)
    assert "conv 4->4" in str(found)
    assert "nvidia-smi" in str(found)


@given(st.text())
def test_any_message_gives_an_error_that_keeps_it(text: str) -> None:
    assert text in str(engine_error(text))


def test_an_ordinary_message_is_neither() -> None:
    text = "the ONNX parser rejects it: Det 'd': unsupported"
    assert not is_device_lost(text)
    assert not is_out_of_memory(text)


@pytest.mark.parametrize(
    ("package", "version", "opset", "gpu"),
    [
        ("tensorrt", "8.6.1", 17, (5, 0)),
        ("tensorrt", "9.3.0", 17, (5, 0)),
        ("tensorrt", "10.0.1", 20, (7, 0)),
        ("tensorrt", "10.4.0", 20, (7, 0)),
        ("tensorrt", "10.5.0", 20, (7, 5)),
        ("tensorrt", "11.4.0.106", 24, (7, 5)),
        ("tensorrt_rtx", "1.7.1.116", 20, (7, 5)),
    ],
)
def test_limits_of_versions(package: str, version: str, opset: int, gpu: tuple[int, int]) -> None:
    release = Release(package, version)
    assert (release.newest_opset, release.oldest_gpu) == (opset, gpu)
    release.check_opset(OPSET)  # latlut's own graphs are read by all of them
    with pytest.raises(EngineError, match=f"opset {opset + 1}"):
        release.check_opset(opset + 1)
    release.check_gpu("a GPU", gpu)


def test_a_gpu_that_is_too_old_is_told_its_line() -> None:
    with pytest.raises(EngineError, match=r"(?s)GTX 1080 Ti has 6\.1.*tensorrt==8\.6\.1"):
        Release("tensorrt", "11.4.0").check_gpu("NVIDIA GeForce GTX 1080 Ti", (6, 1))
    with pytest.raises(EngineError, match=r"(?s)V100.*last line for Volta is 10\.4"):
        Release("tensorrt", "10.9.0").check_gpu("Tesla V100", (7, 0))
    with pytest.raises(EngineError, match=r"8\.6\.1\.post1', with NVIDIA's package index"):
        Release("tensorrt", "10.4.0").check_gpu("NVIDIA GeForce GTX 1080 Ti", (6, 1))
    Release("tensorrt", "8.6.1").check_gpu("NVIDIA GeForce GTX 1080 Ti", (6, 1))


def test_a_version_that_cannot_be_read_is_said() -> None:
    with pytest.raises(EngineError, match="no version"):
        _ = Release("tensorrt", "unknown").numbers


@pytest.mark.parametrize("engine", [TensorRtEngine, TensorRtRtxEngine])
def test_what_is_missing_is_said_with_what_to_type(engine: type[TensorRtEngine]) -> None:
    found = engine.availability()
    if found.is_available:
        pytest.skip("nothing is missing here")
    if find_spec(engine.module_name) is None:
        assert "not installed" in found.reason
        assert "pip install" in found.remedy
    else:
        assert found.version
        assert found.reason
        assert found.remedy


@pytest.mark.skipif(bool(detect_gpus()), reason="a GPU is here")
def test_a_driver_that_is_not_here_is_said() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    found = TensorRtRtxEngine.availability()
    assert "no GPU can be used" in found.reason
    assert "nvidia-smi" in found.remedy
    with pytest.raises(EngineError, match=r"(?s)TensorRT-RTX cannot run here.*nvidia-smi"):
        engine_class("tensorrt-rtx")(device="cuda:0")


@pytest.mark.parametrize(
    ("cuda", "reason"), [((12, 4), "driver is too old: it runs CUDA up to 12.4"), (None, "no GPU")]
)
def test_a_driver_that_is_too_old_is_said(
    monkeypatch: pytest.MonkeyPatch, cuda: tuple[int, int] | None, reason: str
) -> None:
    """Only what the driver answers is set here; the release is the installed one."""
    from latlut.engines.cuda.devices import CudaDevice
    from latlut.engines.tensorrt import engine as trt

    tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    monkeypatch.setattr(trt, "driver_cuda_version", lambda: cuda)
    monkeypatch.setattr(trt, "cuda_devices", lambda: [CudaDevice(0, "GPU-0", "a GPU")])
    release = Release("tensorrt_rtx", tensorrt_rtx.__version__)
    assert release.cuda_major == 13
    found = TensorRtRtxEngine.availability()
    assert reason in found.reason
    if cuda:
        assert "pip install tensorrt-rtx-cu12" in found.remedy


def test_the_empty_kernel_is_one_that_the_assembler_takes(tmp_path: Path) -> None:
    assembler = shutil.which("ptxas")
    if assembler is None:
        pytest.skip("ptxas, of the CUDA toolkit, is not on the PATH")
    source = tmp_path / "empty.ptx"
    source.write_bytes(cuda_driver._EMPTY_PTX)
    for capability in ("sm_75", "sm_90"):
        command = [assembler, f"-arch={capability}", source, "-o", tmp_path / "empty.cubin"]
        subprocess.run(command, check=True)


@pytest.mark.skipif(cuda_driver.driver_cuda_version() is not None, reason="a driver is here")
def test_without_a_driver_the_calls_say_so() -> None:
    with pytest.raises(EngineError, match="driver's library is not here"):
        cuda_driver.compute_capability(0)


# As the TensorRT developer guide's section "Engine Inspector" shows it, shortened.
INSPECTED = """{"Layers": [
 {"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat",
  "Inputs": [], "Outputs": [], "TacticValue": "0x03e8", "Metadata": ""},
 {"Name": "/conv/Conv + /relu/Relu", "LayerType": "CaskConvolution",
  "TacticName": "sm80_xmma_fprop_implicit_gemm",
  "Metadata": "[ONNX Layer: /conv/Conv]\\u001e[ONNX Layer: /relu/Relu]"}
], "Bindings": ["in0", "out"]}"""


def test_layers_are_joined_from_inspector_and_profiler() -> None:
    names = ("Reformatting CopyNode for Input Tensor 0", "/conv/Conv + /relu/Relu")
    runs = [dict(zip(names, times, strict=True)) for times in ((1, 4), (2, 5), (9, 6))]
    first, second = layer_times(INSPECTED, runs)
    assert (first.kind, first.time_ms, first.source_nodes) == ("Reformat", 2, ())
    assert (second.kind, second.time_ms) == ("CaskConvolution", 5)
    assert second.source_nodes == ("/conv/Conv", "/relu/Relu")
    assert second.detail.startswith("sm80")


def test_layers_without_detail_or_without_times() -> None:
    (layer,) = layer_times('{"Layers": ["a fused layer"], "Bindings": []}', [{"a fused layer": 1}])
    assert (layer.name, layer.kind, layer.source_nodes) == ("a fused layer", "unknown", ())
    with pytest.raises(EngineError, match="no layers"):
        layer_times(INSPECTED, [{}])
    with pytest.raises(EngineError, match="cannot be read"):
        layer_times("not JSON", [{"a": 1.0}])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_on_a_gpu_caches_floor_and_layers(name: str, tmp_path: Path) -> None:
    status = engine_class(name).availability()
    if not status.is_available:
        pytest.skip(status.reason)
    engine = engine_class(name)(device="cuda:0")
    assert isinstance(engine, TensorRtEngine)
    engine.keep_caches_beside(tmp_path / "table.db")
    engine.plans.folder = tmp_path / "engines"
    workload = Workload.from_spec(OpSpec("conv_2x", (16, 32, 32), 16))
    for build in (0, 0, 1):
        with engine.load(workload, build=build) as session:
            assert (session.sample_ns(10) > 0).all()
            assert sum(layer.time_ms for layer in session.layers(3)) > 0
    assert len(list(engine.plans.folder.glob("*/*.engine"))) == 2
    floor_ms = engine.launch_floor_ms()
    assert floor_ms is not None
    assert 0 < floor_ms < 1
    facts = engine.facts()
    assert bool(facts["timing_cache_sha256"]) == engine.has_timing_cache
    assert facts["memory_backend"].startswith(("pycuda", "torch"))
