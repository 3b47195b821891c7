"""The CPUs of this machine, as Linux shows them: model, cores, frequencies, caches, limits."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

CPU_DIR = Path("/sys/devices/system/cpu")


def kernel_text(path: str | Path) -> str:
    """The content of a file of the kernel's, without white space around it."""
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
        block = kernel_text("/proc/cpuinfo").split("\n\n", 1)[0]
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


def cpu_ranges(numbers: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) as "0-2,5", the kernel's own notation."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def of_allowed_cpus(file: str) -> str:
    """The distinct contents of one cpufreq file over the allowed CPUs."""
    paths = (CPU_DIR / f"cpu{cpu}" / "cpufreq" / file for cpu in allowed_cpus())
    return ",".join(sorted({kernel_text(path) for path in paths}))


def cpu_mhz() -> float:
    """Mean over all CPUs of the frequency that the kernel shows at this moment."""
    shown = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", kernel_text("/proc/cpuinfo"), re.MULTILINE)
    if not shown:
        files = sorted(CPU_DIR.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        shown = [str(int(kernel_text(path)) / 1000) for path in files]
    return round(sum(map(float, shown)) / len(shown), 1)


def cpu_max_mhz() -> float | None:
    """Highest frequency that the CPU's driver names, in MHz; None where it names none."""
    try:
        return int(kernel_text(CPU_DIR / "cpu0/cpufreq/cpuinfo_max_freq")) / 1000
    except (OSError, ValueError):
        return None


def turbo() -> str:
    """Whether the frequency may be boosted: on or off."""
    try:
        return "off" if kernel_text(CPU_DIR / "intel_pstate/no_turbo") == "1" else "on"
    except OSError:
        return "on" if kernel_text(CPU_DIR / "cpufreq/boost") == "1" else "off"


def smt() -> str:
    """Whether cores run several threads: on or off."""
    return "on" if kernel_text(CPU_DIR / "smt/active") == "1" else "off"


def cpu_ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal, summed over CPUs since boot."""
    return [int(field) for field in kernel_text("/proc/stat").splitlines()[0].split()[1:9]]


def cpu_times(cpus: Sequence[int]) -> tuple[float, float]:
    """Seconds that these CPUs were busy, and that a hypervisor took from them, since boot.

    Args:
        cpus: their numbers.

    Returns:
        Sums over the CPUs, in steps of the kernel's clock (10 ms).

    Raises:
        OSError: the kernel does not show them.
    """
    per_second = os.sysconf("SC_CLK_TCK")
    lines = {line.split()[0]: line.split()[1:9] for line in kernel_text("/proc/stat").splitlines()}
    busy = stolen = 0
    for number in cpus:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, lines[f"cpu{number}"])
        busy += user + nice + system + irq + softirq
        stolen += steal
    return busy / per_second, stolen / per_second


def is_virtual() -> int | None:
    """1 on a virtual machine, 0 on metal; None where the CPU shows no flags."""
    flags = cpu_info().get("flags")
    return None if flags is None else int("hypervisor" in flags.split())


def cpu_temperature_c() -> float | None:
    """The CPU's temperature, of the first sensor that is one; None without one."""
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        if re.search("pkg|cpu|soc", kernel_text(zone / "type"), re.IGNORECASE):
            return int(kernel_text(zone / "temp")) / 1000
    for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*")):
        if kernel_text(sensor / "name") in ("coretemp", "k10temp", "zenpower"):
            return int(kernel_text(sensor / "temp1_input")) / 1000
    return None


def cpu_power_limit_w() -> float:
    """The sustained power limit in watts, of Intel's RAPL."""
    return int(kernel_text("/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw")) / 1e6


def cgroup_cpus() -> float | None:
    """CPUs' worth of time that the tightest control group above this process grants."""
    limits = []
    for line in kernel_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = Path("/sys/fs/cgroup")
        elif "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup/cpu")
        else:
            continue
        here = root / path.lstrip("/")
        # Inside a container the path is the host's and may not exist below the mounted root.
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        for folder in {root, *(p for p in (here, *here.parents) if p.is_relative_to(root))}:
            try:
                quota, period = " ".join(kernel_text(folder / file) for file in files).split()
            except (OSError, ValueError):
                continue
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
    return min(limits) if limits else None


def physical_cores(cpus: Iterable[int]) -> int:
    """How many physical cores these CPUs belong to."""
    return len({core_of(cpu) for cpu in cpus})


def core_of(cpu: int) -> str:
    """What tells the physical core of a CPU: the CPUs on it, or the CPU where Linux names none."""
    try:
        return kernel_text(CPU_DIR / f"cpu{cpu}/topology/thread_siblings_list")
    except OSError:
        return str(cpu)


def last_level_cache_bytes() -> int | None:
    """Size of CPU 0's highest cache level, in bytes; None where Linux does not show it."""
    sizes: dict[int, int] = {}
    for index in (CPU_DIR / "cpu0/cache").glob("index*"):
        with suppress(OSError, ValueError):
            [(number, unit)] = re.findall(r"^(\d+)([KMG]?)$", kernel_text(index / "size"))
            size = int(number) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[unit]
            sizes[int(kernel_text(index / "level"))] = size
    return sizes[max(sizes)] if sizes else None
