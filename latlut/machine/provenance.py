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
from pathlib import Path
from typing import TypeAlias

FactValue: TypeAlias = str | int | float | None
Environment: TypeAlias = dict[str, FactValue]

_CPU_DIR = Path("/sys/devices/system/cpu")


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


def _text(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace").strip()


#: What tells a model in a CPU's name: three digits, or digits around a letter, as in 7B13.
_MODEL_NUMBER = re.compile(r"\d{3}|\d[A-Z]\d")

#: Name -> field of /proc/cpuinfo; x86 has the first two, ARM the last two.
_CPU_NUMBERS = {
    "family": "cpu family",
    "model": "model",
    "implementer": "CPU implementer",
    "part": "CPU part",
}


def cpu_info() -> dict[str, str]:
    """The first processor's fields in /proc/cpuinfo, empty where there is no such file."""
    try:
        block = _text("/proc/cpuinfo").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Name of the processor model, for instance "AMD EPYC 7B13"; never empty.

    Virtual machines often hide the model's number: generations that differ by half in speed are all
    "AMD EPYC" there. Then the CPU's own numbers are added: "AMD EPYC (family 25, model 17)".
    """
    info = cpu_info()
    named = info.get("model name") or info.get("Hardware") or platform.processor()
    named = named or platform.machine() or "unknown CPU"
    numbers = [f"{name} {info[key]}" for name, key in _CPU_NUMBERS.items() if key in info]
    return (
        named if _MODEL_NUMBER.search(named) or not numbers else f"{named} ({', '.join(numbers)})"
    )


def allowed_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _operating_system() -> str:
    try:
        return str(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        return platform.system()


def cpu_ranges(numbers: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) as "0-2,5", the kernel's own notation."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _of_allowed_cpus(file: str) -> str:
    """The distinct contents of one cpufreq file over the allowed CPUs."""
    paths = (_CPU_DIR / f"cpu{cpu}" / "cpufreq" / file for cpu in allowed_cpus())
    return ",".join(sorted({_text(path) for path in paths}))


def _cpu_mhz() -> float:
    """Mean over all CPUs of the frequency that the kernel shows at this moment."""
    shown = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text("/proc/cpuinfo"), re.MULTILINE)
    if not shown:
        files = sorted(_CPU_DIR.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        shown = [str(int(_text(path)) / 1000) for path in files]
    return round(sum(map(float, shown)) / len(shown), 1)


def cpu_max_mhz() -> float | None:
    """Highest frequency that the CPU's driver names, in MHz; None where it names none."""
    try:
        return int(_text(_CPU_DIR / "cpu0/cpufreq/cpuinfo_max_freq")) / 1000
    except (OSError, ValueError):
        return None


def _turbo() -> str:
    try:
        return "off" if _text(_CPU_DIR / "intel_pstate/no_turbo") == "1" else "on"
    except OSError:
        return "on" if _text(_CPU_DIR / "cpufreq/boost") == "1" else "off"


def _memory_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    if match is None:
        raise LookupError(field)
    return int(match[1]) * 1024


def _cpu_ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal, summed over CPUs since boot."""
    return [int(field) for field in _text("/proc/stat").splitlines()[0].split()[1:9]]


def _hypervisor() -> int | None:
    flags = cpu_info().get("flags")
    return None if flags is None else int("hypervisor" in flags.split())


def _cpu_temperature_c() -> float | None:
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        if re.search("pkg|cpu|soc", _text(zone / "type"), re.IGNORECASE):
            return int(_text(zone / "temp")) / 1000
    for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*")):
        if _text(sensor / "name") in ("coretemp", "k10temp", "zenpower"):
            return int(_text(sensor / "temp1_input")) / 1000
    return None


def _power_limit_w() -> float:
    rapl = Path("/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw")
    return int(_text(rapl)) / 1e6


def _cgroup_cpus() -> float | None:
    """CPUs' worth of time that the tightest control group above this process grants."""
    limits = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = Path("/sys/fs/cgroup")
        elif "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup/cpu")
        else:
            continue
        here = root / path.lstrip("/")
        # Inside a container the path is the host's and may not exist below the mounted root.
        for folder in {root, *(p for p in (here, *here.parents) if p.is_relative_to(root))}:
            try:
                if not controllers:
                    quota, period = _text(folder / "cpu.max").split()
                else:
                    quota = _text(folder / "cpu.cfs_quota_us")
                    period = _text(folder / "cpu.cfs_period_us")
            except (OSError, ValueError):
                continue
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
    return min(limits) if limits else None


def _nvidia_driver() -> str | None:
    try:
        return _text("/sys/module/nvidia/version")
    except OSError:
        match = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", _text("/proc/driver/nvidia/version"))
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
        lambda: _text("/sys/class/dmi/id/product_name"),
        matters=True,
    ),
    Fact("os", "", "operating system", _operating_system),
    Fact("kernel", "", "kernel release", platform.release, matters=True),
    Fact("architecture", "", "instruction set", platform.machine, matters=True),
    Fact("python", "", "Python version", platform.python_version),
    Fact("cpu_model", "", "CPU model", cpu_model, matters=True),
    Fact("microcode", "", "CPU microcode", lambda: cpu_info().get("microcode"), matters=True),
    Fact("logical_cpus", "", "CPUs that the system has online", os.cpu_count, matters=True),
    Fact("allowed_cpus", "", "CPUs that this process may use", lambda: len(allowed_cpus())),
    Fact("allowed_cpu_list", "", "their numbers", lambda: cpu_ranges(allowed_cpus())),
    Fact(
        "cgroup_cpus",
        "CPUs",
        "CPU time that the container or control group grants; None where unlimited",
        _cgroup_cpus,
        matters=True,
    ),
    Fact(
        "cpu_governor",
        "",
        "frequency governor of the allowed CPUs",
        lambda: _of_allowed_cpus("scaling_governor"),
        matters=True,
    ),
    Fact(
        "cpu_scaling_driver",
        "",
        "frequency driver of the allowed CPUs",
        lambda: _of_allowed_cpus("scaling_driver"),
        matters=True,
    ),
    Fact("cpu_mhz", "MHz", "mean CPU frequency shown at the moment of reading", _cpu_mhz),
    Fact("cpu_max_mhz", "MHz", "highest CPU frequency", cpu_max_mhz, matters=True),
    Fact("turbo", "", "frequency boost (on, off)", _turbo, matters=True),
    Fact(
        "smt",
        "",
        "simultaneous multithreading (on, off)",
        lambda: "on" if _text(_CPU_DIR / "smt/active") == "1" else "off",
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
        lambda: re.findall(r"\[(\w+)\]", _text("/sys/kernel/mm/transparent_hugepage/enabled"))[0],
        matters=True,
    ),
    Fact("is_virtual", "", "1 on a virtual machine, 0 on metal", _hypervisor, matters=True),
    Fact(
        "cpu_steal_ticks",
        "ticks",
        "CPU time that the hypervisor gave to others, all CPUs, since boot",
        lambda: _cpu_ticks()[7],
    ),
    Fact(
        "cpu_total_ticks",
        "ticks",
        "CPU time of all CPUs in every state since boot",
        lambda: sum(_cpu_ticks()),
    ),
    Fact("cpu_temperature_c", "°C", "CPU temperature", _cpu_temperature_c),
    Fact("cpu_power_limit_w", "W", "sustained CPU power limit", _power_limit_w, matters=True),
    Fact("nvidia_driver", "", "NVIDIA driver version", _nvidia_driver, matters=True),
    Fact(
        "boot_id",
        "",
        "identifier of this boot of the kernel",
        lambda: _text("/proc/sys/kernel/random/boot_id"),
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
        if boot != _text("/proc/sys/kernel/random/boot_id"):
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
