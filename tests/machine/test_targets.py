"""Targets: every shipped file is sound, device names find their target, refusals say what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from latlut.errors import ImportFileError, SpecError, TargetError, UnknownNameError
from latlut.machine import gpus, targets
from latlut.machine.gpus import (
    DetectedGpu,
    detect_gpus,
    gpu_absence_reason,
    resolve_gpu,
    slug,
    target_of,
)
from latlut.machine.targets import cpu_target, load_target, read_target, target_names
from latlut.resources import profiles_dir

SHIPPED = [name for name in target_names() if name != "cpu"]
TARGETS_DIR = profiles_dir() / "targets"


def gpu(name: str, target_name: str | None = None, index: int = 0) -> DetectedGpu:
    return DetectedGpu(index, name, f"GPU-{index}", "580.1", 8 * 2**30, target_name)


def test_the_paper_s_device_and_the_common_ones_are_shipped() -> None:
    expected = (
        "1080ti 2080ti titan-rtx t4 v100 p100 3060 3080 3090 4060 4070 4080 4090 5080 5090 "
        "a10 a40 l4 l40s rtx-a6000 rtx-6000-ada rtx-pro-6000 a100 a100-40gb h100 h100-pcie "
        "h100-nvl h200 b200 gb10 jetson-orin jetson-orin-nano jetson-orin-nx jetson-thor"
    )
    assert set(SHIPPED) == set(expected.split())


#: Targets whose figures nobody has looked up again yet.
REMEMBERED = {"h100-nvl", "jetson-orin-nx"}


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
    is_checked = any(source.checked != "remembered" for source in target.sources)
    assert is_checked != (name in REMEMBERED)


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
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100X", None),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("GRID A100-10C", None),
        ("NVIDIA A40-48Q", None),
        ("NVIDIA L40S-24Q", None),
        ("GRID T4-16Q", None),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10-24Q", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A40", "a40"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", None),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("Quadro RTX 6000", None),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB10", "gb10"),
        ("NVIDIA GB200", None),
        ("Tesla P100-SXM2-16GB", "p100"),
        ("NVIDIA GeForce RTX 5090", "5090"),
        ("NVIDIA GeForce RTX 5090 D", None),
        ("NVIDIA GeForce RTX 5080", "5080"),
        ("NVIDIA GeForce RTX 4080", "4080"),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA GeForce RTX 4070", "4070"),
        ("NVIDIA GeForce RTX 4070 Ti", None),
        ("NVIDIA GeForce RTX 4060", "4060"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3080", "3080"),
        ("NVIDIA GeForce RTX 3060", "3060"),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "jetson-thor"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-orin"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "jetson-orin-nano"),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_a_device_name_finds_one_target_at_most(device_name: str, expected: str | None) -> None:
    found = [name for name in SHIPPED if load_target(name).matches(device_name)]
    assert found == ([expected] if expected else [])


def test_names_are_read_in_any_case() -> None:
    assert load_target(" 1080TI ").name == "1080ti"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean '1080ti'"):
        load_target("1080-ti")


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
        ("fp32_tflops = 35.6", "fp32_tflops = nan", "fp32_tflops must be a number above 0"),
        ("tdp_w = 350", "", "'tdp_w' is missing"),
        ("match = [", "match = [ '(', ", "unterminated|missing"),
        ("format = 1", "format = ", "not a TOML file"),
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
    here = [gpu("NVIDIA GeForce RTX 4070")]
    found = resolve_gpu("rtx-4070", here)
    target = target_of(found)
    assert target.name == slug(found.name) == "rtx-4070"
    assert target.matches(found.name)
    assert target.peak_flops_per_s("fp32") is None


def test_a_gpu_that_is_not_here_is_refused_with_what_is() -> None:
    with pytest.raises(TargetError) as caught:
        resolve_gpu("1080ti", [gpu("NVIDIA H200", "h200")])
    message = str(caught.value)
    assert "NVIDIA GeForce GTX 1080 Ti" in message
    assert "NVIDIA H200 (--gpu h200)" in message
    assert "latlut profile --gpu h200 or latlut profile --cpu" in message
    assert load_target("cpu").title in message


def test_without_a_gpu_the_refusal_says_why_and_names_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "gpu_absence_reason", lambda: "no driver")
    with pytest.raises(TargetError, match=r"none \(no driver\)\nCPU: .*\nrun instead: .*--cpu$"):
        resolve_gpu("1080ti", [])


def test_an_unknown_gpu_name_lists_targets_and_what_is_here() -> None:
    with pytest.raises(UnknownNameError, match=r"known: .*\n.*--gpu rtx-4070"):
        resolve_gpu("rtx-407", [gpu("NVIDIA GeForce RTX 4070")])
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
        return SimpleNamespace(total=2**30)

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
        DetectedGpu(0, "NVIDIA H200", "GPU-0", "580.1", 2**30, "h200"),
        DetectedGpu(1, "NVIDIA RTX A1000", "GPU-1", "580.1", 2**30, None),
    ]
    assert gpu_absence_reason() is None


def test_an_orin_is_told_apart_by_its_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(["Orin (nvgpu)"]))
    monkeypatch.setattr(gpus, "_board_model", lambda: "NVIDIA Jetson AGX Orin Developer Kit")
    (found,) = detect_gpus()
    assert (found.target_name, found.memory_bytes) == ("jetson-orin", None)


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


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("RTX 4090", "4090"),
        ("rtx4090", "4090"),
        ("rtx-4090", "4090"),
        ("GeForce RTX 4090", "4090"),
        ("GTX 1080 Ti", "1080ti"),
        ("gtx1080ti", "1080ti"),
        ("gtx 1080ti", "1080ti"),
        ("rtx a6000", "rtx-a6000"),
        ("RTX PRO 6000", "rtx-pro-6000"),
        ("rtx5090", "5090"),
        ("Tesla T4", "t4"),
        ("A100 40GB", "a100-40gb"),
    ],
)
def test_a_card_is_known_by_what_it_is_called(typed: str, expected: str) -> None:
    assert load_target(typed).name == expected
    assert resolve_gpu(typed, [gpu(load_target(expected).title, expected)]).target_name == expected


def test_a_card_without_a_target_is_known_by_what_it_is_called() -> None:
    found = gpu("NVIDIA GeForce RTX 4070 Ti")
    assert resolve_gpu("rtx4070 ti", [found]) == resolve_gpu("RTX 4070 Ti", [found]) == found
