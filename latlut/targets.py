"""Targets: the hardware that latlut knows, which of it is here, and its peak rates.

A shipped target is one file ``profiles/targets/<name>.toml``; the CPU of this machine is
described by what Linux says about it. Peaks are upper bounds for a roofline, from public
sources that each file names; no latency is ever computed from them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latlut.environment import (
    allowed_cpus,
    choose_cpus,
    cpu_info,
    cpu_max_mhz,
    cpu_model,
    physical_cores,
)
from latlut.errors import ImportFileError, SpecError, TargetError, UnknownNameError, did_you_mean
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
    """A piece of hardware. None stands for a figure that is not known.

    Args:
        name: what people type: "1080ti", "cpu".
        title: its full name; for a CPU the processor model.
        kind: "gpu" or "cpu".
        match: regular expressions for the device name that the driver reports.
        compute_capability: CUDA's, for instance "8.6".
        cores: streaming multiprocessors of a GPU; physical cores in use of a CPU.
        peak_fp32_flops_per_s: fp32 arithmetic without TF32; a multiply-add counts as two.
        peak_tf32_flops_per_s: fp32 tensors multiplied on tensor cores, dense.
        peak_fp16_flops_per_s: the fastest dense way to compute with fp16 tensors.
        peak_int8_ops_per_s: the same for int8.
        bandwidth_bytes_per_s: of device memory.
        cache_bandwidth_bytes_per_s: a generous bound for the last-level cache.
        last_level_cache_bytes: L2 of a GPU, the highest level of a CPU.
        tdp_w: board power.
        notes: which variant the figures are of.
        sources: where they come from.
    """

    name: str
    title: str
    kind: Literal["gpu", "cpu"]
    match: tuple[str, ...] = ()
    compute_capability: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    clock_hz: float | None = None
    peak_fp32_flops_per_s: float | None = None
    peak_tf32_flops_per_s: float | None = None
    peak_fp16_flops_per_s: float | None = None
    peak_int8_ops_per_s: float | None = None
    bandwidth_bytes_per_s: float | None = None
    cache_bandwidth_bytes_per_s: float | None = None
    last_level_cache_bytes: int | None = None
    tdp_w: float | None = None
    notes: str = ""
    sources: tuple[Source, ...] = ()

    def peak_flops_per_s(self, precision: str) -> float | None:
        """Upper bound of arithmetic at "fp32", "tf32", "fp16" or "int8"; None where not known.

        An engine that may run fp32 convolutions as TF32 (TensorRT and cuDNN do so by default from
        compute capability 8.0) is bounded by "tf32", which is the fp32 peak where there is none.

        Raises:
            SpecError: another precision.
        """
        peaks = {
            "fp32": self.peak_fp32_flops_per_s,
            "tf32": self.peak_tf32_flops_per_s or self.peak_fp32_flops_per_s,
            "fp16": self.peak_fp16_flops_per_s,
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
        name: a shipped name in any case, "cpu" (this machine, all allowed CPUs), or a path that
            ends in .toml.

    Raises:
        UnknownNameError: no such target.
        ImportFileError: the .toml file cannot be read or does not follow the grammar.
    """
    if name.lower().endswith(".toml"):
        return read_target(Path(name))
    known = target_names()
    wanted = name.strip().lower()
    if wanted == "cpu":
        return cpu_target()
    if wanted not in known:
        raise UnknownNameError(
            f"no target is called {name!r}; {did_you_mean(wanted, known)}; "
            "or name a .toml file that describes your device"
        )
    return read_target(profiles_dir() / "targets" / f"{wanted}.toml")


def read_target(path: Path) -> Target:
    """The GPU that a target file describes.

    Raises:
        ImportFileError: the file is missing, is not TOML, or lacks a field.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return _target_from_toml(data)
    except OSError as error:
        raise ImportFileError(f"cannot read the target file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImportFileError(f"{path} is not a TOML file: {error}") from error
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
        peak_int8_ops_per_s=cores * clock_hz * int8,
        cache_bandwidth_bytes_per_s=cores * clock_hz * CACHE_BYTES_PER_CYCLE,
        last_level_cache_bytes=_last_level_cache_bytes(),
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


def _last_level_cache_bytes() -> int | None:
    """Size of CPU 0's highest cache level, in bytes; None where Linux does not show it."""
    sizes: dict[int, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level = int((index / "level").read_text())
            number, unit = re.fullmatch(r"(\d+)([KMG]?)\s*", (index / "size").read_text()).groups()  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            continue
        sizes[level] = int(number) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[unit]
    return sizes[max(sizes)] if sizes else None


@dataclass(frozen=True)
class DetectedGpu:
    """A GPU of this machine, as its driver reports it.

    ``index`` is the driver's own, in PCI order, which need not be CUDA's: engines pick the device
    by ``uuid``. ``target_name`` is None for a GPU that no shipped target describes.
    """

    index: int
    name: str
    uuid: str
    driver: str
    memory_bytes: int | None
    target_name: str | None


def detect_gpus() -> list[DetectedGpu]:
    """The NVIDIA GPUs of this machine; empty, never an error, where none can be reached.

    Asks the driver's library through nvidia-ml-py, else nvidia-smi, else, on a Jetson, the
    device tree. ``gpu_absence_reason`` says why the list is empty.
    """
    return _query_gpus()[0]


def gpu_absence_reason() -> str | None:
    """Why ``detect_gpus`` finds nothing here; None where it does find a GPU."""
    gpus, reasons = _query_gpus()
    return None if gpus else "; ".join(reasons)


def target_of(gpu: DetectedGpu) -> Target:
    """The target of a detected GPU: the shipped one, else one that knows its name alone."""
    if gpu.target_name is not None:
        return load_target(gpu.target_name)
    return Target(
        name=slug(gpu.name),
        title=gpu.name,
        kind="gpu",
        match=(f"^{re.escape(gpu.name)}$",),
        memory_bytes=gpu.memory_bytes,
        notes="No target file describes this GPU: entries are measured without a roofline.",
    )


def slug(device_name: str) -> str:
    """A name that can be typed: "NVIDIA GeForce RTX 4070" is "rtx-4070"."""
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    kept = [word for word in words if word not in ("nvidia", "geforce", "tesla")]
    return "-".join(kept or words) or "gpu"


def resolve_gpu(name: str, gpus: Sequence[DetectedGpu]) -> DetectedGpu:
    """The first of the detected GPUs that is called ``name``.

    Args:
        name: a target's name, or the ``slug`` of a GPU that no target describes.
        gpus: what ``detect_gpus`` found.

    Raises:
        UnknownNameError: no target and no GPU of this machine is called so.
        TargetError: the target is known, but no such GPU is here. The message says what was
            found and what can be run instead.
    """
    wanted = name.strip().lower()
    for gpu in gpus:
        if wanted in (gpu.target_name, slug(gpu.name)):
            return gpu
    found = ", ".join(f"{gpu.name} (--gpu {_name_to_type(gpu)})" for gpu in gpus)
    try:
        target = load_target(name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}\nGPUs found: {found}" if gpus else str(error)) from None
    if target.kind == "cpu":
        raise TargetError("'cpu' is no GPU; run latlut profile --cpu")
    for gpu in gpus:
        if target.matches(gpu.name):
            return gpu
    lines = [f"{name} was asked for, but no {target.title} is here"]
    nothing = "" if gpus else f"none ({gpu_absence_reason() or 'none was given'})"
    lines.append(f"GPUs found: {found or nothing}")
    lines.append(f"CPU: {cpu_model()}, {len(allowed_cpus())} CPUs allowed")
    instead = [f"latlut profile --gpu {_name_to_type(gpu)}" for gpu in gpus]
    choices = " or ".join([*dict.fromkeys(instead), "latlut profile --cpu"])
    lines.append(f"run instead: {choices}")
    raise TargetError("\n".join(lines))


def _name_to_type(gpu: DetectedGpu) -> str:
    return gpu.target_name or slug(gpu.name)


def _query_gpus() -> tuple[list[DetectedGpu], list[str]]:
    """The GPUs from the first source that has any, with each empty source's reason."""
    reasons: list[str] = []
    for query in (_from_nvml, _from_nvidia_smi, _from_device_tree):
        gpus, reason = query()
        if gpus:
            return gpus, []
        if reason:
            reasons.append(reason)
    return [], reasons


def _detected(
    index: int, name: str, uuid: str, driver: str, memory_bytes: int | None
) -> DetectedGpu:
    if "nvgpu" in name.lower():
        # All Orin modules call themselves "Orin (nvgpu)"; the board's name tells them apart.
        name = _board_model() or name
    shipped = (load_target(known) for known in target_names() if known != "cpu")
    target_name = next((target.name for target in shipped if target.matches(name)), None)
    return DetectedGpu(index, name, uuid, driver, memory_bytes, target_name)


def _from_nvml() -> tuple[list[DetectedGpu], str]:
    try:
        import pynvml
    except ImportError:
        return [], "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError) as error:
        return [], f"the NVIDIA driver's library does not answer: {error}"
    try:
        driver = _as_text(pynvml.nvmlSystemGetDriverVersion())
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            try:
                memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            except pynvml.NVMLError:  # integrated GPUs have no memory of their own
                memory_bytes = None
            name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
            gpus.append(_detected(index, _as_text(name), _as_text(uuid), driver, memory_bytes))
        return gpus, "the NVIDIA driver lists no GPU"
    except pynvml.NVMLError as error:
        return [], f"the NVIDIA driver's library failed: {error}"
    finally:
        pynvml.nvmlShutdown()


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _from_nvidia_smi() -> tuple[list[DetectedGpu], str]:
    import csv
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "nvidia-smi is not on the PATH"
    fields = "index,name,uuid,driver_version,memory.total"
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi does not answer: {error}"
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        return [], f"nvidia-smi failed: {said[0] if said else f'exit code {answer.returncode}'}"
    gpus = []
    for row in csv.reader(answer.stdout.splitlines(), skipinitialspace=True):
        if len(row) == 5 and row[0].isdigit():
            memory_bytes = int(row[4]) * 2**20 if row[4].isdigit() else None
            gpus.append(_detected(int(row[0]), row[1], row[2], row[3], memory_bytes))
    return gpus, "nvidia-smi lists no GPU"


def _board_model() -> str | None:
    """What the device tree calls this board, for instance a Jetson; None without one."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0 \n")
    except OSError:
        return None


def _from_device_tree() -> tuple[list[DetectedGpu], str]:
    board = _board_model()
    if board is None or "jetson" not in board.lower():
        return [], ""
    try:
        release = Path("/etc/nv_tegra_release").read_text(encoding="utf-8")
        version = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
        driver = f"L4T {version[1]}.{version[2]}" if version else "unknown"
    except OSError:
        driver = "unknown"
    return [_detected(0, board, "integrated", driver, None)], ""
