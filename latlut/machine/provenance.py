"""The machine around a run: what it was while it measured, and what has changed.

Every key is declared once, in ``FACTS``, with its unit and meaning. A fact that cannot be read
here (no such file, no permission, another operating system) is None; nothing here raises.
Only the standard library is imported, and no engine: versions come from package metadata.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from latlut.machine import cpu

FactValue: TypeAlias = str | int | float | None
Environment: TypeAlias = dict[str, FactValue]


@dataclass(frozen=True)
class Fact:
    """One key of an environment.

    Args:
        name: the key.
        unit: unit of a number, "" for text and counts.
        description: what it means, a noun phrase.
        read: reads it here; an exception means that it cannot be known.
        matters: a change between two runs can change latencies.
    """

    name: str
    unit: str
    description: str
    read: Callable[[], FactValue]
    matters: bool = False


def _operating_system() -> str:
    try:
        return str(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        return platform.system()


def _memory_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", cpu.kernel_text("/proc/meminfo"), re.MULTILINE)
    if match is None:
        raise LookupError(field)
    return int(match[1]) * 1024


def _nvidia_driver() -> str | None:
    try:
        return cpu.kernel_text("/sys/module/nvidia/version")
    except OSError:
        match = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", cpu.kernel_text("/proc/driver/nvidia/version"))
        return match[0] if match else None


def _own_version() -> str:
    from latlut.version import __version__

    return __version__


def _version(*distributions: str) -> Callable[[], FactValue]:
    """Reads the version of the first of these distributions that is installed."""

    def read() -> FactValue:
        from importlib.metadata import PackageNotFoundError, version

        for distribution in distributions:
            try:
                return version(distribution)
            except PackageNotFoundError:
                continue
        return None

    return read


#: Facts whose None means "not there", so that None is itself worth comparing.
_PACKAGES = (
    Fact("latlut", "", "version of latlut", _own_version, matters=True),
    Fact("numpy", "", "version of NumPy", _version("numpy")),
    Fact("torch", "", "version of PyTorch", _version("torch"), matters=True),
    Fact("onnx", "", "version of ONNX", _version("onnx"), matters=True),
    Fact(
        "onnxruntime",
        "",
        "version of ONNX Runtime",
        _version("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
        matters=True,
    ),
    Fact("openvino", "", "version of OpenVINO", _version("openvino"), matters=True),
    Fact(
        "tensorrt",
        "",
        "version of TensorRT",
        _version("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
        matters=True,
    ),
    Fact(
        "tensorrt_rtx",
        "",
        "version of TensorRT for RTX",
        _version("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        matters=True,
    ),
)

#: Every key of an environment, in the order in which it is shown.
FACTS: tuple[Fact, ...] = (
    Fact("host", "", "host name", platform.node, matters=True),
    Fact(
        "machine_model",
        "",
        "model of the machine, or of the virtual machine's platform",
        lambda: cpu.kernel_text("/sys/class/dmi/id/product_name"),
        matters=True,
    ),
    Fact("os", "", "operating system", _operating_system),
    Fact("kernel", "", "kernel release", platform.release, matters=True),
    Fact("architecture", "", "instruction set", platform.machine, matters=True),
    Fact("python", "", "Python version", platform.python_version),
    Fact("cpu_model", "", "CPU model", cpu.cpu_model, matters=True),
    Fact("microcode", "", "CPU microcode", lambda: cpu.cpu_info().get("microcode"), matters=True),
    Fact("logical_cpus", "", "CPUs that the system has online", os.cpu_count, matters=True),
    Fact("allowed_cpus", "", "CPUs that this process may use", lambda: len(cpu.allowed_cpus())),
    Fact("allowed_cpu_list", "", "their numbers", lambda: cpu.cpu_ranges(cpu.allowed_cpus())),
    Fact(
        "cgroup_cpus",
        "CPUs",
        "CPU time that the container or control group grants; None where unlimited",
        cpu.cgroup_cpus,
        matters=True,
    ),
    Fact(
        "cpu_governor",
        "",
        "frequency governor of the allowed CPUs",
        lambda: cpu.of_allowed_cpus("scaling_governor"),
        matters=True,
    ),
    Fact(
        "cpu_scaling_driver",
        "",
        "frequency driver of the allowed CPUs",
        lambda: cpu.of_allowed_cpus("scaling_driver"),
        matters=True,
    ),
    Fact("cpu_mhz", "MHz", "mean CPU frequency shown at the moment of reading", cpu.cpu_mhz),
    Fact("cpu_max_mhz", "MHz", "highest CPU frequency", cpu.cpu_max_mhz, matters=True),
    Fact("turbo", "", "frequency boost (on, off)", cpu.turbo, matters=True),
    Fact(
        "smt",
        "",
        "simultaneous multithreading (on, off)",
        lambda: "on" if cpu.kernel_text(cpu.CPU_DIR / "smt/active") == "1" else "off",
        matters=True,
    ),
    Fact(
        "omp_num_threads",
        "",
        "OMP_NUM_THREADS of the process",
        lambda: os.environ.get("OMP_NUM_THREADS"),
    ),
    Fact("load_1min", "", "load average of the last minute", lambda: round(os.getloadavg()[0], 2)),
    Fact("memory_total_bytes", "bytes", "main memory", lambda: _memory_bytes("MemTotal")),
    Fact(
        "memory_available_bytes",
        "bytes",
        "main memory that was available",
        lambda: _memory_bytes("MemAvailable"),
    ),
    Fact(
        "transparent_hugepages",
        "",
        "policy for transparent huge pages",
        lambda: re.findall(
            r"\[(\w+)\]", cpu.kernel_text("/sys/kernel/mm/transparent_hugepage/enabled")
        )[0],
        matters=True,
    ),
    Fact("is_virtual", "", "1 on a virtual machine, 0 on metal", cpu.hypervisor, matters=True),
    Fact(
        "cpu_steal_ticks",
        "ticks",
        "CPU time that the hypervisor gave to others, all CPUs, since boot",
        lambda: cpu.cpu_ticks()[7],
    ),
    Fact(
        "cpu_total_ticks",
        "ticks",
        "CPU time of all CPUs in every state since boot",
        lambda: sum(cpu.cpu_ticks()),
    ),
    Fact("cpu_temperature_c", "°C", "CPU temperature", cpu.cpu_temperature_c),
    Fact(
        "cpu_power_limit_w", "W", "sustained CPU power limit", cpu.cpu_power_limit_w, matters=True
    ),
    Fact("nvidia_driver", "", "NVIDIA driver version", _nvidia_driver, matters=True),
    Fact(
        "boot_id",
        "",
        "identifier of this boot of the kernel",
        lambda: cpu.kernel_text("/proc/sys/kernel/random/boot_id"),
    ),
    Fact("process_id", "", "number of the process that read these facts", os.getpid),
    *_PACKAGES,
)


def collect_environment() -> Environment:
    """What this machine is at this moment: one value per fact of ``FACTS``, JSON-able.

    A fact that cannot be read is None; nothing raises.
    """
    environment: Environment = {}
    for fact in FACTS:
        try:
            environment[fact.name] = fact.read()
        except Exception:
            # Provenance must not end a measurement: an odd /proc is not the caller's error.
            environment[fact.name] = None
    return environment


def environment_changes(
    before: Mapping[str, FactValue], after: Mapping[str, FactValue]
) -> list[str]:
    """Sentences on what changed that can change latencies; empty where nothing did.

    Args:
        before: an earlier environment, perhaps written by another version of latlut.
        after: a later one.

    Returns:
        One sentence per changed fact that matters, in the order of ``FACTS``. A fact that one
        side does not have, or could not read, is no change; a package that is only on one side
        is.
    """
    optional = {fact.name for fact in _PACKAGES}
    sentences = []
    for fact in FACTS:
        if not fact.matters or fact.name not in before or fact.name not in after:
            continue
        old, new = before[fact.name], after[fact.name]
        if old == new or (fact.name not in optional and (old is None or new is None)):
            continue
        old_text, new_text = (_shown(value, fact.unit) for value in (old, new))
        sentences.append(f"{fact.description} was {old_text}, is now {new_text}")
    return sentences


def is_process_gone(environment: Mapping[str, FactValue]) -> bool:
    """Whether the process that collected an environment has surely ended, however it did.

    False where it cannot be known from here: another host, or a system without such a question.
    """
    if environment.get("host") != platform.node() or os.name != "posix":
        return False
    boot, number = environment.get("boot_id"), environment.get("process_id")
    if not boot or not isinstance(number, int):
        return False
    try:
        if boot != cpu.kernel_text("/proc/sys/kernel/random/boot_id"):
            return True
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's, or no /proc
        return False
    return False


def _shown(value: FactValue, unit: str) -> str:
    if value is None:
        return "not installed"
    return f"{value} {unit}".rstrip()


def cpu_steal_fraction(
    before: Mapping[str, FactValue], after: Mapping[str, FactValue]
) -> float | None:
    """Share of all CPU time between two environments that the hypervisor gave to others.

    Returns:
        0 to 1; None where the counters were not readable, the machine was rebooted in between,
        or no time has passed.
    """
    if before.get("boot_id") != after.get("boot_id"):
        return None
    steal, total = (
        _difference(before, after, name) for name in ("cpu_steal_ticks", "cpu_total_ticks")
    )
    if steal is None or total is None or total <= 0:
        return None
    return min(1.0, max(0.0, steal / total))


def _difference(
    before: Mapping[str, FactValue], after: Mapping[str, FactValue], name: str
) -> float | None:
    old, new = before.get(name), after.get(name)
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return new - old
    return None
