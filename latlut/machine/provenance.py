"""The machine around a run: what it was while it measured, and what has changed.

Every key is declared once, in ``FACTS``, with its unit and meaning; the versions of the engines'
packages are added by whoever knows the engines (``latlut.engines.engine_packages``). A fact that
cannot be read here (no such file, no permission, another operating system) is None; nothing here
raises. Only the standard library is imported: versions come from package metadata.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from latlut.machine import cpu
from latlut.machine.lock import is_alive
from latlut.version import __version__

FactValue: TypeAlias = str | int | float | None
Environment: TypeAlias = dict[str, FactValue]


@dataclass(frozen=True)
class Fact:
    """One key of an environment."""

    name: str
    """The key."""
    description: str
    """What it means, a noun phrase."""
    read: Callable[[], FactValue]
    """Reads it here; an exception means that it cannot be known."""
    unit: str = ""
    """Unit of a number, "" for text and counts."""
    matters: bool = False
    """A change between two runs can change latencies."""
    is_optional: bool = False
    """None means "not there", so that None is itself worth comparing."""


def installed_version(*distributions: str) -> str | None:
    """The version of the first of these distributions that is installed; None without one."""
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def package(name: str, title: str, *suffixes: str, matters: bool = True) -> Fact:
    """The version of a package.

    Args:
        name: of the package and of the fact.
        title: as sentences call it.
        suffixes: of the distributions that it comes in, such as ``-gpu``; none if not given.
        matters: see ``Fact``.
    """
    names = [name.replace("_", "-") + suffix for suffix in suffixes or ("",)]
    return Fact(
        name,
        f"version of {title}",
        lambda: installed_version(*names),
        matters=matters,
        is_optional=True,
    )


def _from(path: str, found: str = "(?s)(.*)") -> Callable[[], FactValue]:
    """Reads a file of the kernel's, or the part of it that a pattern's group matches."""
    return lambda: re.findall(found, cpu.kernel_text(path))[0]


def _operating_system() -> str:
    try:
        return str(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        return platform.system()


def _memory_bytes(field: str) -> Callable[[], FactValue]:
    pattern = rf"(?m)^{field}:\s+(\d+) kB"
    return lambda: int(re.findall(pattern, cpu.kernel_text("/proc/meminfo"))[0]) * 1024


def _nvidia_driver() -> str | None:
    try:
        return cpu.kernel_text("/sys/module/nvidia/version")
    except OSError:
        match = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", cpu.kernel_text("/proc/driver/nvidia/version"))
        return match[0] if match else None


_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"

#: Every key of an environment but the engines' packages, in the order in which it is shown.
# fmt: off
FACTS: tuple[Fact, ...] = (
    Fact("host", "host name", platform.node, matters=True),
    Fact("machine_model", "model of the machine, or of the virtual machine's platform",
         _from("/sys/class/dmi/id/product_name"), matters=True),
    Fact("os", "operating system", _operating_system),
    Fact("kernel", "kernel release", platform.release, matters=True),
    Fact("architecture", "instruction set", platform.machine, matters=True),
    Fact("python", "Python version", platform.python_version),
    Fact("cpu_model", "CPU model", cpu.cpu_model, matters=True),
    Fact("microcode", "CPU microcode", lambda: cpu.cpu_info().get("microcode"), matters=True),
    Fact("logical_cpus", "CPUs that the system has online", os.cpu_count, matters=True),
    Fact("allowed_cpus", "CPUs that this process may use", lambda: len(cpu.allowed_cpus())),
    Fact("allowed_cpu_list", "their numbers", lambda: cpu.cpu_ranges(cpu.allowed_cpus())),
    Fact("cgroup_cpus",
         "CPU time that the container or control group grants; None where unlimited",
         cpu.cgroup_cpus, "CPUs", matters=True),
    Fact("cpu_governor", "frequency governor of the allowed CPUs",
         lambda: cpu.of_allowed_cpus("scaling_governor"), matters=True),
    Fact("cpu_scaling_driver", "frequency driver of the allowed CPUs",
         lambda: cpu.of_allowed_cpus("scaling_driver"), matters=True),
    Fact("cpu_mhz", "mean CPU frequency shown at the moment of reading", cpu.cpu_mhz, "MHz"),
    Fact("cpu_max_mhz", "highest CPU frequency", cpu.cpu_max_mhz, "MHz", matters=True),
    Fact("turbo", "frequency boost (on, off)", cpu.turbo, matters=True),
    Fact("smt", "simultaneous multithreading (on, off)", cpu.smt, matters=True),
    Fact("omp_num_threads", "OMP_NUM_THREADS of the process",
         lambda: os.environ.get("OMP_NUM_THREADS")),
    Fact("load_1min", "load average of the last minute", lambda: round(os.getloadavg()[0], 2)),
    Fact("memory_total_bytes", "main memory", _memory_bytes("MemTotal"), "bytes"),
    Fact("memory_available_bytes", "main memory that was available",
         _memory_bytes("MemAvailable"), "bytes"),
    Fact("transparent_hugepages", "policy for transparent huge pages",
         _from(_HUGE_PAGES, r"\[(\w+)\]"), matters=True),
    Fact("is_virtual", "1 on a virtual machine, 0 on metal", cpu.is_virtual, matters=True),
    Fact("cpu_steal_ticks", "CPU time that the hypervisor gave to others, all CPUs, since boot",
         lambda: cpu.cpu_ticks()[7], "ticks"),
    Fact("cpu_total_ticks", "CPU time of all CPUs in every state since boot",
         lambda: sum(cpu.cpu_ticks()), "ticks"),
    Fact("cpu_temperature_c", "CPU temperature", cpu.cpu_temperature_c, "°C"),
    Fact("cpu_power_limit_w", "sustained CPU power limit", cpu.cpu_power_limit_w, "W",
         matters=True),
    Fact("nvidia_driver", "NVIDIA driver version", _nvidia_driver, matters=True),
    Fact("boot_id", "identifier of this boot of the kernel", _from(_BOOT_ID)),
    Fact("process_id", "number of the process that read these facts", os.getpid),
    Fact("latlut", "version of latlut", lambda: __version__, matters=True, is_optional=True),
    package("numpy", "NumPy", matters=False),
    package("torch", "PyTorch"),
    package("onnx", "ONNX"),
)
# fmt: on


def collect_environment(packages: Iterable[Fact] = ()) -> Environment:
    """What this machine is at this moment: one value per fact, JSON-able.

    A fact that cannot be read is None; nothing raises.

    Args:
        packages: facts beside ``FACTS``: the versions of the engines' packages.
    """
    environment: Environment = {}
    for fact in (*FACTS, *packages):
        try:
            environment[fact.name] = fact.read()
        except Exception:
            # Provenance must not end a measurement: an odd /proc is not the caller's error.
            environment[fact.name] = None
    return environment


def environment_changes(
    before: Mapping[str, FactValue],
    after: Mapping[str, FactValue],
    packages: Iterable[Fact] = (),
) -> list[str]:
    """Sentences on what changed that can change latencies; empty where nothing did.

    Args:
        before: an earlier environment, perhaps written by another version of latlut.
        after: a later one.
        packages: as in ``collect_environment``.

    Returns:
        One sentence per changed fact that matters, in the order of the facts. A fact that one
        side does not have, or could not read, is no change; a package that is only on one side
        is.
    """
    sentences = []
    for fact in (*FACTS, *packages):
        if not fact.matters or fact.name not in before or fact.name not in after:
            continue
        old, new = before[fact.name], after[fact.name]
        if old == new or (not fact.is_optional and (old is None or new is None)):
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
        return boot != cpu.kernel_text(_BOOT_ID) or not is_alive(number)
    except OSError:  # no /proc
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
