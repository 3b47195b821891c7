"""Targets: every shipped file is sound, device names find their target, refusals say what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from latlut.engines.cuda.devices import driver_uuids, is_called
from latlut.errors import ImportFileError, SpecError, TargetError, UnknownNameError
from latlut.machine import gpus, targets
from latlut.machine.gpu_state import GpuMonitor
from latlut.machine.gpus import (
    DetectedGpu,
    choose_gpus,
    detect_gpus,
    driver_of,
    gpu_absence_reason,
    resolve_gpu,
    slug,
    target_of,
)
from latlut.machine.targets import (
    cpu_target,
    load_target,
    read_target,
    shipped_target_name,
    target_names,
)
from latlut.resources import profiles_dir

SHIPPED = [name for name in target_names() if name != "cpu"]
TARGETS_DIR = profiles_dir() / "targets"


def gpu(name: str, target_name: str | None = None, index: int = 0) -> DetectedGpu:
    return DetectedGpu(index, name, f"GPU-{index}", "580.1", 8 * 2**30, target_name)


def test_the_paper_s_device_and_the_common_ones_are_shipped() -> None:
    expected = """
        1080ti 2080ti titan-rtx t4 v100 p100 p100-pcie 3060 3080 3090 4060 4070 4080 4090 5080 5090
        l4 l40s a10 a40 rtx-a6000 rtx-6000-ada rtx-pro-6000 a100 a100-40gb a100-pcie-80gb
        h100 h100-pcie h100-nvl h200 b200 gb10 jetson-orin jetson-orin-nano jetson-orin-nx
        jetson-thor
    """
    assert set(SHIPPED) == set(expected.split())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_is_complete(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.kind == "gpu"
    assert target.match
    for precision in ("fp32", "tf32", "fp16", "int8"):
        peak = target.peak_flops_per_s(precision)
        assert peak is not None
        assert peak > 1e12
    assert target.bandwidth_bytes_per_s is not None
    assert target.cache_bandwidth_bytes_per_s is not None
    assert 0 < target.bandwidth_bytes_per_s < target.cache_bandwidth_bytes_per_s
    assert target.last_level_cache_bytes is not None
    assert 2**20 < target.last_level_cache_bytes < 2**28
    assert target.tdp_w is not None
    assert target.sources
    for source in target.sources:
        assert source.what
        assert source.url.startswith(("https://", "http://"))
        assert source.checked in ("read", "quoted", "remembered")
    assert any(source.checked != "remembered" for source in target.sources)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_fp32_peak_is_two_operations_per_core_and_cycle(name: str) -> None:
    import tomllib

    data = tomllib.loads((TARGETS_DIR / f"{name}.toml").read_text(encoding="utf-8"))
    peak = data["peak"]
    derived_tflops = 2 * data["cores"] * peak["boost_clock_mhz"] * 1e6 / 1e12
    assert peak["fp32_tflops"] == pytest.approx(derived_tflops, rel=0.01)
    assert data["cores"] % data["sms"] == 0


@pytest.mark.parametrize(
    ("device_name", "expected"),
    [
        ("NVIDIA GeForce GTX 1080 Ti", "1080ti"),
        ("GeForce GTX 1080 Ti", "1080ti"),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA GeForce RTX 2080 Ti", "2080ti"),
        ("TITAN RTX", "titan-rtx"),
        ("Tesla T4", "t4"),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA T4G", None),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla V100S-PCIE-32GB", None),
        ("NVIDIA GeForce RTX 3090", "3090"),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM-64GB", None),
        ("NVIDIA A100X", None),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200 NVL", None),
        ("Tesla P100-PCIE-16GB", "p100-pcie"),
        ("Tesla P100-PCIE-12GB", None),
        ("NVIDIA GeForce RTX 5090", "5090"),
        ("NVIDIA GeForce RTX 5090 D", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA GeForce RTX 4070 Ti", None),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3080 Ti", None),
        ("NVIDIA GeForce RTX 4060", "4060"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", None),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("Quadro RTX 6000", None),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", None),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", None),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", None),
        ("NVIDIA GB10", "gb10"),
        ("NVIDIA Thor", "jetson-thor"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        # Parts of a GPU do not have its peaks.
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("GRID V100-8Q", None),
        ("GRID T4-16C", None),
        ("NVIDIA A40-48Q", None),
        ("NVIDIA A10-24Q", None),
        ("NVIDIA L40S-12C", None),
        ("NVIDIA A100-1-5CME", None),
        ("NVIDIA RTX6000-Ada-24Q", None),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-orin"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "jetson-orin-nano"),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_a_device_name_finds_one_target_at_most(device_name: str, expected: str | None) -> None:
    found = [name for name in SHIPPED if load_target(name).matches(device_name)]
    assert len(found) <= 1
    assert shipped_target_name(device_name) == expected


@pytest.mark.parametrize(
    ("device_name", "mib", "expected"),
    [
        ("NVIDIA GeForce RTX 3080", 10240, "3080"),
        ("NVIDIA GeForce RTX 3080", 12288, None),
        ("NVIDIA GeForce RTX 3060", 8192, None),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA L4", 23034, "l4"),
        ("NVIDIA B200", 183359, "b200"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40gb"),
    ],
)
def test_boards_of_one_name_are_told_apart_by_memory(
    device_name: str, mib: int, expected: str | None
) -> None:
    assert shipped_target_name(device_name, mib * 2**20) == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("RTX 4090", "4090"),
        ("rtx4090", "4090"),
        ("RTX-4090", "4090"),
        ("GTX 1080 Ti", "1080ti"),
        ("gtx1080ti", "1080ti"),
        ("1080-ti", "1080ti"),
        ("NVIDIA GeForce RTX 3090", "3090"),
        ("Tesla T4", "t4"),
        ("RTX A6000", "rtx-a6000"),
        ("RTX 6000 Ada", "rtx-6000-ada"),
        ("A100 40GB", "a100-40gb"),
        ("H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Titan RTX", "titan-rtx"),
        ("Jetson Orin Nano", "jetson-orin-nano"),
    ],
)
def test_a_gpu_is_called_as_people_write_it(typed: str, expected: str) -> None:
    assert load_target(typed).name == expected


@pytest.mark.parametrize("typed", ["RTX 4090 Laptop", "RTX 4070 Ti", "GRID T4-16C", "4090 d", ""])
def test_another_card_is_not_taken_for_it(typed: str) -> None:
    with pytest.raises(UnknownNameError):
        load_target(typed)


def test_names_are_read_in_any_case() -> None:
    assert load_target(" 1080TI ").name == "1080ti"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean '1080ti'"):
        load_target("1080tj")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(SpecError, match="fp64"):
        load_target("1080ti").peak_flops_per_s("fp64")


def test_tf32_falls_back_to_fp32_where_there_is_none() -> None:
    pascal, ampere = load_target("1080ti"), load_target("a100")
    assert pascal.peak_flops_per_s("tf32") == pascal.peak_fp32_flops_per_s
    assert ampere.peak_flops_per_s("tf32") == 156e12
    assert ampere.peak_flops_per_s("bf16") == ampere.peak_flops_per_s("fp16")


def test_a_target_file_of_one_s_own(tmp_path: Path) -> None:
    text = (TARGETS_DIR / "3090.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('name = "3090"', 'name = "mine"'), encoding="utf-8")
    assert load_target(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "expected 1"),
        ('kind = "gpu"', 'kind = "npu"', "npu"),
        ("fp32_tflops = 35.6", "fp32_tflops = -1", "fp32_tflops must be a number above 0"),
        ("fp32_tflops = 35.6", "fp32_tflops = nan", "nan is no value of a setting"),
        ("tdp_w = 350", "", "'tdp_w' is missing"),
        ("match = [", "match = [ '(', ", "unterminated|missing"),
        ("format = 1", "format = ", "not TOML"),
        ("checked =", "cheked =", "cheked"),
    ],
)
def test_a_bad_target_file_is_named_with_its_fault(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (TARGETS_DIR / "3090.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ImportFileError, match=message) as caught:
        read_target(path)
    assert "bad.toml" in str(caught.value)


def test_a_missing_target_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"none\.toml"):
        load_target(str(tmp_path / "none.toml"))


def test_the_cpu_is_a_target() -> None:
    cpu = load_target("cpu")
    assert (cpu.name, cpu.kind) == ("cpu", "cpu")
    assert cpu.title
    assert cpu.bandwidth_bytes_per_s is None
    one = cpu_target(1)
    assert one.cores == 1
    assert one.peak_fp32_flops_per_s is not None
    assert cpu.peak_fp32_flops_per_s is not None
    assert 1e9 < one.peak_fp32_flops_per_s <= cpu.peak_fp32_flops_per_s


def test_more_threads_than_cpus_are_refused() -> None:
    with pytest.raises(SpecError, match="this process may use"):
        cpu_target(100_000)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse2", (8, 8, 16)),
        ("sse2 avx", (16, 16, 32)),
        ("avx avx2 fma", (32, 32, 64)),
        ("avx2 fma avx512f avx512_vnni", (64, 64, 256)),
        ("avx512f avx512_vnni avx512_fp16 amx_int8", (64, 128, 2048)),
        ("asimd asimdhp asimddp", (16, 32, 64)),
    ],
)
def test_operations_per_cycle_follow_the_instruction_set(
    flags: str, expected: tuple[int, int, int]
) -> None:
    assert targets._operations_per_cycle(frozenset(flags.split())) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx512f", 64), ("avx512f avx512_bf16", 128), ("amx_bf16 avx512_bf16", 1024), ("bf16", 128)],
)
def test_bf16_is_fp32_unless_the_cpu_has_instructions_for_it(flags: str, expected: int) -> None:
    assert targets._bf16_operations_per_cycle(frozenset(flags.split()), 64) == expected


def test_resolving_finds_the_first_gpu_of_that_name() -> None:
    here = [
        gpu("NVIDIA H200", "h200", 0),
        gpu("Tesla T4", "t4", 1),
        gpu("Tesla T4", "t4", 2),
    ]
    assert resolve_gpu("T4", here).index == 1


def test_a_gpu_without_a_target_file_can_be_used() -> None:
    here = [gpu("NVIDIA GeForce RTX 4070 Ti")]
    found = resolve_gpu("rtx-4070-ti", here)
    assert resolve_gpu("RTX 4070 Ti", here) is resolve_gpu("4070ti", here) is found
    target = target_of(found)
    assert target.name == slug(found.name) == "rtx-4070-ti"
    assert target.matches(found.name)
    assert target.peak_flops_per_s("fp32") is None


def test_a_gpu_that_is_not_here_is_refused_with_what_is() -> None:
    with pytest.raises(TargetError) as caught:
        resolve_gpu("1080ti", [gpu("NVIDIA H200", "h200")])
    message = str(caught.value)
    assert "NVIDIA GeForce GTX 1080 Ti" in message
    assert "NVIDIA H200 (--gpu h200)" in message
    assert "what can be used here: --gpu h200 or --cpu" in message
    assert load_target("cpu").title in message


def test_without_a_gpu_the_refusal_says_why_and_names_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "gpu_absence_reason", lambda: "no driver")
    with pytest.raises(
        TargetError, match=r"none \(no driver\)\nCPU: .*\nwhat can be used here: --cpu$"
    ):
        resolve_gpu("1080ti", [])


def test_an_unknown_gpu_name_lists_targets_and_what_is_here() -> None:
    with pytest.raises(
        UnknownNameError, match=r"did you mean 'rtx-5060-ti'\? known: .*\n.*--gpu rtx-5060-ti"
    ):
        resolve_gpu("rtx-506-ti", [gpu("NVIDIA GeForce RTX 5060 Ti")])
    with pytest.raises(TargetError, match="--cpu"):
        resolve_gpu("cpu", [])


def test_detection_never_raises_and_explains_an_empty_answer() -> None:
    assert (gpu_absence_reason() is None) == bool(detect_gpus())


class FakeNvml(SimpleNamespace):
    """The part of pynvml that detection uses; ``NVMLError`` as there."""

    class NVMLError(Exception):
        pass


def fake_nvml(names: list[str], start_error: str | None = None) -> FakeNvml:
    def start() -> None:
        if start_error:
            raise FakeNvml.NVMLError(start_error)

    def memory(index: int) -> SimpleNamespace:
        if "nvgpu" in names[index]:
            raise FakeNvml.NVMLError("Not Supported")
        return SimpleNamespace(total=140 * 2**30)

    return FakeNvml(
        nvmlInit=start,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"580.1",
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda index: names[index],
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
        nvmlDeviceGetMemoryInfo=memory,
    )


def test_gpus_are_read_from_the_driver_s_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(["NVIDIA H200", "NVIDIA RTX A1000"]))
    assert detect_gpus() == [
        DetectedGpu(0, "NVIDIA H200", "GPU-0", "580.1", 140 * 2**30, "h200"),
        DetectedGpu(1, "NVIDIA RTX A1000", "GPU-1", "580.1", 140 * 2**30, None),
    ]
    assert gpu_absence_reason() is None


def test_an_orin_is_told_apart_by_its_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(["Orin (nvgpu)"]))
    monkeypatch.setattr(gpus, "_board_model", lambda: "NVIDIA Jetson AGX Orin Developer Kit")
    (found,) = detect_gpus()
    assert (found.target_name, found.memory_bytes) == ("jetson-orin", None)


def test_the_parts_of_a_split_gpu_are_listed_instead_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_nvml(["NVIDIA A100-SXM4-80GB", "NVIDIA H200"])
    names = {"mig": "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 0: "NVIDIA A100-SXM4-80GB", 1: "Odd"}
    fake.NVML_DEVICE_MIG_ENABLE, fake.NVML_GPU_VIRTUALIZATION_MODE_VGPU = 1, 2
    fake.nvmlDeviceGetMigMode = lambda handle: [1 if handle == 0 else 0, 0]
    fake.nvmlDeviceGetMaxMigDeviceCount = lambda handle: 7

    def instance(handle: int, number: int) -> str:
        if number:
            raise FakeNvml.NVMLError("Not Found")
        return "mig"

    fake.nvmlDeviceGetMigDeviceHandleByIndex = instance
    fake.nvmlDeviceGetName = lambda handle: names[handle]
    fake.nvmlDeviceGetUUID = lambda handle: "MIG-7" if handle == "mig" else f"GPU-{handle}"
    fake.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=10 * 2**30)
    fake.nvmlDeviceGetVirtualizationMode = lambda handle: 2 if handle == 1 else 0
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    found = detect_gpus()
    assert [(g.index, g.uuid, g.target_name) for g in found] == [
        (0, "MIG-7", None),
        (1, "GPU-1", None),
    ]
    assert target_of(found[0]).peak_flops_per_s("fp32") is None
    with pytest.raises(TargetError, match=r"--gpu a100-sxm4-80gb-mig-1g-10gb"):
        resolve_gpu("a100", found)
    with pytest.raises(TargetError, match="CUDA_VISIBLE_DEVICES=MIG-7"):
        choose_gpus(slug(found[0].name), [0], found)


def test_nvidia_smi_lists_the_parts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """if [ "$1" = -L ]; then
echo "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-a)"
echo "  MIG 1g.10gb     Device  0: (UUID: MIG-b)"
else echo "0, NVIDIA A100-SXM4-80GB, GPU-a, 535.1, 81920"; fi"""
    fake_nvidia_smi(tmp_path, script, monkeypatch)
    (found,) = detect_gpus()
    assert (found.name, found.uuid) == ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "MIG-b")
    assert found.target_name is None


def test_a_jetson_is_found_under_the_uuid_of_the_driver_and_of_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = fake_nvml(["Orin (nvgpu)"])
    fake.nvmlDeviceGetHandleByUUID = lambda uuid: fake.nvmlDeviceGetMemoryInfo(0)
    fake.NVML_CLOCK_SM, fake.NVML_CLOCK_MEM, fake.NVML_TEMPERATURE_GPU = 1, 2, 0
    fake.nvmlDeviceGetTemperature = lambda handle, sensor: 61
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    (found,) = detect_gpus()
    assert found.is_integrated
    for name in ("cuda:0", "GPU-of-cuda", found.uuid):
        assert is_called(name, "cuda:0", "GPU-of-cuda", is_integrated=True)
    assert not is_called(found.uuid, "cuda:1", "GPU-of-another", is_integrated=False)
    assert driver_of(*driver_uuids("GPU-of-cuda", is_integrated=True)) == "580.1"
    with GpuMonitor("GPU-of-cuda") as monitor:
        assert (monitor.reason, monitor.snapshot().temperature_c) == ("", 61)


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "0, Tesla T4, GPU-a, 535.1, 15360\\n1, NVIDIA H200, GPU-b, 535.1, [N/A]\\n"
    fake_nvidia_smi(tmp_path, f"printf '{rows}'", monkeypatch)
    assert detect_gpus() == [
        DetectedGpu(0, "Tesla T4", "GPU-a", "535.1", 15360 * 2**20, "t4"),
        DetectedGpu(1, "NVIDIA H200", "GPU-b", "535.1", None, "h200"),
    ]


def test_each_failed_way_of_asking_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path, "echo 'driver mismatch' >&2; exit 18", monkeypatch)
    assert detect_gpus() == []
    assert gpu_absence_reason() == (
        "nvidia-ml-py is not installed; nvidia-smi failed: driver mismatch"
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([], start_error="Driver Not Loaded"))
    assert "Driver Not Loaded" in str(gpu_absence_reason())


def test_targets_import_no_heavy_package() -> None:
    import subprocess

    code = (
        "import sys, latlut.machine.targets, latlut.machine.gpus, latlut.machine.lock; "
        "print([m for m in ('torch', 'pandas', 'numpy', 'pynvml') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
