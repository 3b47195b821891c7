"""Targets: the hardware that latlut knows, and its peak rates.

A shipped target is one file ``profiles/targets/<name>.toml``; the CPU of this machine is
described by what Linux says about it. Peaks are upper bounds for a roofline, from public
sources that each file names; no latency is ever computed from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from latlut.errors import ImportFileError, SpecError, UnknownNameError, did_you_mean
from latlut.files.toml_files import read_toml
from latlut.machine.cpu import (
    allowed_cpus,
    cpu_info,
    cpu_max_mhz,
    cpu_model,
    last_level_cache_bytes,
    physical_cores,
)
from latlut.machine.pinning import choose_cpus
from latlut.resources import profiles_dir

#: Bytes that one core or SM can move to and from the last-level cache in a cycle. Generous: the
#: port of an NVIDIA SM to its L2 is 64 bytes wide, a CPU core sustains 10 to 32 from its L3.
CACHE_BYTES_PER_CYCLE = 64

#: Assumed where Linux names no CPU frequency at all; high, so that the peak stays a bound.
ASSUMED_CPU_MHZ = 4000.0


@dataclass(frozen=True)
class Source:
    """Where a target's figures come from.

    ``checked`` is "read" where the text at ``url`` was read, "quoted" where the figures were seen
    with this address given as their source, "remembered" where neither.
    """

    what: str
    url: str
    checked: str = "remembered"


@dataclass(frozen=True)
class Target:
    """A piece of hardware. None stands for a figure that is not known."""

    name: str
    """What people type: "1080ti", "cpu"."""
    title: str
    """Its full name; for a CPU the processor model."""
    kind: Literal["gpu", "cpu"]
    """"gpu" or "cpu"."""
    match: tuple[str, ...] = ()
    """Regular expressions for the device name that the driver reports."""
    compute_capability: str | None = None
    """CUDA's, for instance "8.6"."""
    cores: int | None = None
    """Streaming multiprocessors of a GPU; physical cores in use of a CPU."""
    memory_bytes: int | None = None
    clock_hz: float | None = None
    peak_fp32_flops_per_s: float | None = None
    """fp32 arithmetic without TF32; a multiply-add counts as two."""
    peak_tf32_flops_per_s: float | None = None
    """fp32 tensors multiplied on tensor cores, dense."""
    peak_fp16_flops_per_s: float | None = None
    """The fastest dense way to compute with fp16 tensors."""
    peak_bf16_flops_per_s: float | None = None
    """The same for bf16; where it is not given, the fp16 figure, which no GPU exceeds in bf16."""
    peak_int8_ops_per_s: float | None = None
    """The same for int8."""
    bandwidth_bytes_per_s: float | None = None
    """Of device memory."""
    cache_bandwidth_bytes_per_s: float | None = None
    """A generous bound for the last-level cache."""
    last_level_cache_bytes: int | None = None
    """L2 of a GPU, the highest level of a CPU."""
    tdp_w: float | None = None
    """Board power."""
    notes: str = ""
    """Which variant the figures are of."""
    sources: tuple[Source, ...] = ()
    """Where they come from."""

    def peak_flops_per_s(self, precision: str) -> float | None:
        """Upper bound of arithmetic at fp32, tf32, fp16, bf16 or int8; None where not known.

        An engine that may run fp32 convolutions as TF32 (TensorRT and cuDNN do so by default from
        compute capability 8.0) is bounded by "tf32", which is the fp32 peak where there is none.

        Raises:
            SpecError: another precision.
        """
        peaks = {
            "fp32": self.peak_fp32_flops_per_s,
            "tf32": self.peak_tf32_flops_per_s or self.peak_fp32_flops_per_s,
            "fp16": self.peak_fp16_flops_per_s,
            "bf16": self.peak_bf16_flops_per_s or self.peak_fp16_flops_per_s,
            "int8": self.peak_int8_ops_per_s,
        }
        if precision not in peaks:
            raise SpecError(f"no peak for precision {precision!r}: {', '.join(peaks)}")
        return peaks[precision]

    def matches(self, device_name: str) -> bool:
        """Whether the device name that a driver reports is this target's."""
        return any(re.search(pattern, device_name, re.IGNORECASE) for pattern in self.match)


def target_names() -> list[str]:
    """Names that ``load_target`` knows: the shipped GPUs in alphabetical order, then "cpu"."""
    return [*sorted(path.stem for path in (profiles_dir() / "targets").glob("*.toml")), "cpu"]


def load_target(name: str) -> Target:
    """The target of that name, or the one described by a .toml file of your own.

    Args:
        name: a shipped name as people write it ("1080ti", "GTX 1080 Ti"), a driver's name,
            "cpu" (this machine, all allowed CPUs), or a path that ends in .toml.

    Raises:
        UnknownNameError: no such target.
        ImportFileError: the .toml file cannot be read or does not follow the grammar.
    """
    if name.lower().endswith(".toml"):
        return read_target(Path(name))
    known = target_names()
    by_plain_name = {plain_name(shipped): shipped for shipped in known}
    wanted = by_plain_name.get(plain_name(name)) or shipped_target_name(name)
    if wanted == "cpu":
        return cpu_target()
    if wanted is None:
        hint = did_you_mean(plain_name(name), known)
        raise UnknownNameError(
            f"no target is called {name!r}; {hint}; or name a .toml file that describes your device"
        )
    return _shipped(wanted)


def shipped_target_name(device_name: str, memory_bytes: int | None = None) -> str | None:
    """The shipped target of a whole GPU that a driver calls so; None for any other, and for a
    part of a GPU, which does not have the peaks of the whole.

    Args:
        device_name: as the driver reports it.
        memory_bytes: of the GPU; tells boards apart that have one name and several sizes.
    """
    if is_part_of_gpu(device_name):
        return None
    found = [_shipped(name) for name in target_names() if name != "cpu"]
    found = [target for target in found if target.matches(device_name)]
    if memory_bytes is not None:
        found = [t for t in found if t.memory_bytes and has_memory_of(memory_bytes, t.memory_bytes)]
    return found[0].name if found else None


def has_memory_of(memory_bytes: int, expected_bytes: int) -> bool:
    """Whether a driver that reports ``memory_bytes`` can mean a board of ``expected_bytes``.

    Drivers keep some per cent for themselves and for ECC, and data sheets round to decimal GB:
    between 0.8 and 1.1 of the board's. The next size of any model is at least 1.2 times as much.
    """
    return 0.8 <= memory_bytes / expected_bytes <= 1.1


def is_part_of_gpu(device_name: str) -> bool:
    """Whether a driver's name is of a MIG instance or of a virtual GPU: "GRID V100-8Q",
    "NVIDIA A40-12Q", "NVIDIA A100-SXM4-40GB MIG 1g.5gb".

    Source: NVIDIA Virtual GPU Software User Guide, virtual GPU types (series A, B, C, Q).
    """
    pattern = r"\b(GRID|MIG|vGPU)\b|-\d+(-\d+)?[ABCQ](ME|GFX|NOLL)*\b"
    return re.search(pattern, device_name, re.IGNORECASE) is not None


def plain_name(name: str) -> str:
    """A GPU's name without what people leave out: "RTX 4090", "rtx4090" and "NVIDIA GeForce RTX
    4090" are "4090", "GTX 1080 Ti" is "1080ti".
    """
    words = re.sub(r"\b(nvidia|geforce|tesla)\b", " ", name.strip().lower())
    words = re.sub(r"\b[gr]tx[ _-]*(?=\d)", " ", words)
    return re.sub(r"[^a-z0-9.]", "", words)


@cache
def _shipped(name: str) -> Target:
    return read_target(profiles_dir() / "targets" / f"{name}.toml")


def read_target(path: Path) -> Target:
    """The GPU that a target file describes.

    Raises:
        ImportFileError: the file is missing, is not TOML, or lacks a field.
    """
    try:
        return _target_from_toml(read_toml(path))
    except KeyError as error:
        raise ImportFileError(f"{path}: the field {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise ImportFileError(f"{path}: {error}") from error


def _target_from_toml(data: Mapping[str, Any]) -> Target:
    if data["format"] != 1:
        raise ValueError(f"format {data['format']!r} is not known here: expected 1")
    if data["kind"] != "gpu":
        raise ValueError(f"kind is {data['kind']!r}, expected 'gpu': CPUs are detected")
    if isinstance(data["match"], str):
        raise TypeError("match is a list of regular expressions, received one text")
    for pattern in data["match"]:
        re.compile(pattern)
    peak, sms = data["peak"], int(data["sms"])
    clock_hz = _positive(peak, "boost_clock_mhz") * 1e6
    tf32 = _positive(peak, "tf32_tflops") * 1e12 if "tf32_tflops" in peak else None
    return Target(
        name=data["name"],
        title=data["title"],
        kind="gpu",
        match=tuple(data["match"]),
        compute_capability=data["compute_capability"],
        cores=sms,
        memory_bytes=int(_positive(data, "memory_gib") * 2**30),
        clock_hz=clock_hz,
        peak_fp32_flops_per_s=_positive(peak, "fp32_tflops") * 1e12,
        peak_tf32_flops_per_s=tf32,
        peak_fp16_flops_per_s=_positive(peak, "fp16_tflops") * 1e12,
        peak_int8_ops_per_s=_positive(peak, "int8_tops") * 1e12,
        bandwidth_bytes_per_s=_positive(peak, "bandwidth_gbps") * 1e9,
        cache_bandwidth_bytes_per_s=sms * CACHE_BYTES_PER_CYCLE * clock_hz,
        last_level_cache_bytes=int(_positive(peak, "l2_mib") * 2**20),
        tdp_w=_positive(peak, "tdp_w"),
        notes=data.get("notes", "").strip(),
        sources=tuple(Source(**source) for source in data["source"]),
    )


def _positive(table: Mapping[str, Any], field: str) -> float:
    value = table[field]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{field} must be a number above 0, received {value!r}")
    return float(value)


def cpu_target(threads: int | None = None) -> Target:
    """This machine's CPU as a target, for ``threads`` threads; all allowed CPUs without one.

        peak fp32 = physical cores in use x frequency x FLOP per cycle and core

    The frequency is the highest that the driver names, else the one that /proc/cpuinfo shows; a
    virtual machine shows the base frequency, which boost exceeds by up to 1.5 times. FLOP per
    cycle assume two multiply-add ports of the widest vectors in the instruction-set flags: 64
    for AVX-512 (32 on chips with one port), 32 for AVX2 with FMA, 16 for AVX, 8 for SSE; 32 for
    SVE, 16 for NEON. Memory bandwidth is not knowable without measuring: None.

    Raises:
        SpecError: more threads than CPUs that this process may use.
    """
    cpus = choose_cpus(len(allowed_cpus()) if threads is None else threads)
    cores = physical_cores(cpus)
    info = cpu_info()
    flags = frozenset((info.get("flags") or info.get("Features") or "").split())
    clock_hz = (cpu_max_mhz() or _shown_mhz(info)) * 1e6
    fp32, fp16, int8 = _operations_per_cycle(flags)
    return Target(
        name="cpu",
        title=cpu_model(),
        kind="cpu",
        cores=cores,
        clock_hz=clock_hz,
        peak_fp32_flops_per_s=cores * clock_hz * fp32,
        peak_fp16_flops_per_s=cores * clock_hz * fp16,
        peak_bf16_flops_per_s=cores * clock_hz * _bf16_operations_per_cycle(flags, fp32),
        peak_int8_ops_per_s=cores * clock_hz * int8,
        cache_bandwidth_bytes_per_s=cores * clock_hz * CACHE_BYTES_PER_CYCLE,
        last_level_cache_bytes=last_level_cache_bytes(),
        notes=(
            f"{cores} physical core{'s' if cores > 1 else ''} at {clock_hz / 1e9:.2f} GHz, "
            f"{fp32} fp32 FLOP per cycle and core (two multiply-add ports assumed)"
        ),
    )


def _shown_mhz(info: Mapping[str, str]) -> float:
    try:
        return float(info["cpu MHz"])
    except (KeyError, ValueError):
        return ASSUMED_CPU_MHZ


def _operations_per_cycle(flags: frozenset[str]) -> tuple[int, int, int]:
    """(fp32, fp16, int8) operations per cycle and core; generous where ports differ."""
    if "avx512f" in flags:
        fp32 = 64
    elif "sve" in flags or {"avx2", "fma"} <= flags:
        fp32 = 32
    elif "avx" in flags or "asimd" in flags:
        fp32 = 16
    else:
        fp32 = 8
    fp16 = 2 * fp32 if {"avx512_fp16", "asimdhp"} & flags else fp32
    int8 = 4 * fp32 if {"avx512_vnni", "avx_vnni", "asimddp"} & flags else 2 * fp32
    if "amx_int8" in flags:
        int8 = 2048
    if "amx_fp16" in flags:
        fp16 = 1024
    return fp32, fp16, int8


def _bf16_operations_per_cycle(flags: frozenset[str], fp32: int) -> int:
    """The same for bf16, which a CPU without instructions for it computes in fp32."""
    if "amx_bf16" in flags:
        return 1024
    return 2 * fp32 if {"avx512_bf16", "bf16"} & flags else fp32
