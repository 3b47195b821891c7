"""What a GPU is doing: clocks, temperature, power, why its clocks are held, who else is on it.

Everything is read through the driver's library (nvidia-ml-py) and nothing is ever set: a clock
that is locked for the user's benefit stays locked for everybody else. ``advice`` says which
commands the user could type. A field that the driver does not answer is None.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from latlut.errors import DeviceLostError
from latlut.machine.gpus import as_text, is_integrated_name
from latlut.machine.nvml import first_answer, nvml_errors, open_nvml

HW_SLOWDOWN = "hw slowdown"

#: Bit of the driver's answer -> name. Source: nvml.h, nvmlClocksEventReason* and, up to driver
#: 535, nvmlClocksThrottleReason* with the same values.
THROTTLE_REASONS = {
    0x001: "gpu idle",
    0x002: "applications clocks setting",
    0x004: "sw power cap",
    0x008: HW_SLOWDOWN,
    0x010: "sync boost",
    0x020: "sw thermal slowdown",
    0x040: "hw thermal slowdown",
    0x080: "hw power brake slowdown",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability",
}

#: Reasons that are how the card runs, today and tomorrow: idle between two kernels, clocks that
#: somebody has set, and the limits of power, board and voltage under which it always runs this
#: load. Measuring again meets the same ones. What is not in here (heat, a power brake, another
#: card's clocks) passes, and a group that was measured meanwhile is measured again.
LASTING_REASONS = frozenset(
    {
        "gpu idle",
        "applications clocks setting",
        "sw power cap",
        "display clock setting",
        "board limit",
        "reliability",
    }
)

#: The call for the reasons of the clocks, with its name up to driver 535.
CLOCK_REASONS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)

#: The calls for a GPU's processes, newest first. The plain name is the binding's newest version,
#: ``_v3``, which drivers such as R470 and 535.98 lack; they answer ``_v2``.
PROCESS_CALLS = tuple(
    (name, f"{name}_v2")
    for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
)

#: nvmlDeviceArchitecture_t of Volta, the first whose clocks ``nvidia-smi -lgc`` locks.
_VOLTA = 5


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment, or over several (``merge_states``); None where the driver is silent.

    Clocks are MHz, ``temperature_c`` degrees Celsius, powers watts. ``throttle_reasons`` are
    names of ``THROTTLE_REASONS``; ``other_processes`` the process numbers of compute and graphics
    clients that are not this process; ``performance_state`` is 0 (fastest) to 15. What follows
    is for ``advice``: the highest and the default clocks, whether the driver can lock clocks, and
    whether it stays loaded while nobody uses the card.
    """

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    other_processes: tuple[int, ...] | None = None
    performance_state: int | None = None
    is_persistent: bool | None = None
    default_sm_mhz: int | None = None
    default_memory_mhz: int | None = None
    max_sm_mhz: int | None = None
    max_memory_mhz: int | None = None
    has_clock_lock: bool | None = None
    uuid: str = ""
    #: Of several moments, how many in a row had ``hw slowdown`` at most; not set of one.
    slowdown_readings: int = 0

    @property
    def disturbances(self) -> tuple[str, ...]:
        """The reasons among ``throttle_reasons`` that pass: not in ``LASTING_REASONS``.

        A hardware slowdown that was read only once is none: the bit is set for a moment whenever
        the clock changes. Heat and the power brake have bits of their own, which count at once.
        """
        ignored = LASTING_REASONS
        if self.slowdown_readings < 2:
            ignored = ignored | {HW_SLOWDOWN}
        return tuple(name for name in self.throttle_reasons or () if name not in ignored)


class Monitor(Protocol):
    """What a sweep asks for the state of its GPU."""

    def snapshot(self) -> GpuState:
        """The state now.

        Raises:
            DeviceLostError: the GPU has gone.
        """
        ...

    def sm_mhz(self) -> int | None:
        """The clock of the multiprocessors now; None where the driver does not tell it.

        Raises:
            DeviceLostError: the GPU has gone.
        """
        ...


class GpuMonitor:
    """Reads the state of one GPU; a context manager.

    Args:
        uuid: of the GPU, as ``DetectedGpu.uuid`` and ``Device.uuid`` give it.

    Where the driver's library is missing or does not know the GPU (a Jetson's integrated one),
    every snapshot is empty and ``reason`` says why.
    """

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self._nvml, self.reason = open_nvml()
        self._handle: Any = None
        if self._nvml is None:
            return
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except nvml_errors(self._nvml) as error:
            self._handle = _integrated_handle(self._nvml)
            if self._handle is None:
                self.reason = f"the NVIDIA driver does not know the GPU {uuid}: {error}"

    def __enter__(self) -> GpuMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the driver's library; may be called again."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
        self._nvml = self._handle = None

    def snapshot(self) -> GpuState:
        """The state now; a field is None where the driver does not answer.

        Raises:
            DeviceLostError: the driver says that the GPU has gone.
        """
        if self._handle is None:
            return GpuState(uuid=self.uuid)
        nvml = self._nvml
        ask = self._ask
        sm, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
        persistence = ask("nvmlDeviceGetPersistenceMode")
        architecture = ask("nvmlDeviceGetArchitecture")
        mask = self._ask_any(CLOCK_REASONS)
        state = ask("nvmlDeviceGetPerformanceState")
        return GpuState(
            sm_mhz=ask("nvmlDeviceGetClockInfo", sm),
            memory_mhz=ask("nvmlDeviceGetClockInfo", memory),
            temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            power_w=_watts(ask("nvmlDeviceGetPowerUsage")),
            power_limit_w=_watts(ask("nvmlDeviceGetEnforcedPowerLimit")),
            throttle_reasons=None if mask is None else reason_names(mask),
            other_processes=self._other_processes(),
            performance_state=state if state is not None and 0 <= state <= 15 else None,
            is_persistent=None if persistence is None else bool(persistence),
            default_sm_mhz=ask("nvmlDeviceGetDefaultApplicationsClock", sm),
            default_memory_mhz=ask("nvmlDeviceGetDefaultApplicationsClock", memory),
            max_sm_mhz=ask("nvmlDeviceGetMaxClockInfo", sm),
            max_memory_mhz=ask("nvmlDeviceGetMaxClockInfo", memory),
            has_clock_lock=None if architecture is None else architecture >= _VOLTA,
            uuid=self.uuid,
        )

    def sm_mhz(self) -> int | None:
        """The clock of the multiprocessors now; None where the driver does not tell it.

        Raises:
            DeviceLostError: the driver says that the GPU has gone.
        """
        if self._handle is None:
            return None
        found: int | None = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        return found

    def _ask(self, name: str, *arguments: object) -> Any:
        """The driver's answer, None where it has none."""
        return self._ask_any((name,), *arguments)

    def _ask_any(self, names: tuple[str, ...], *arguments: object) -> Any:
        """The first answer to functions that ask the same, None where there is none."""
        try:
            return first_answer(self._nvml, names, self._handle, *arguments)
        except nvml_errors(self._nvml) as error:
            raise DeviceLostError(
                f"the GPU {self.uuid} has gone ({error}); the kernel log (dmesg, lines with "
                "Xid) says why. It comes back with a reset or a reboot"
            ) from error

    def _other_processes(self) -> tuple[int, ...] | None:
        clients = [self._ask_any(names) for names in PROCESS_CALLS]
        if all(answer is None for answer in clients):
            return None
        found = {int(client.pid) for answer in clients for client in answer or ()}
        parent = multiprocessing.parent_process()  # one process per GPU measures, it only waits
        own = {os.getpid()} | ({parent.pid} if parent is not None and parent.pid else set())
        return other_processes(found, own)


def _integrated_handle(nvml: Any) -> Any:
    """The driver's handle of the integrated GPU, whose UUID here is not CUDA's; None without."""
    for index in range(first_answer(nvml, ("nvmlDeviceGetCount",)) or 0):
        handle = first_answer(nvml, ("nvmlDeviceGetHandleByIndex",), index)
        name = None if handle is None else first_answer(nvml, ("nvmlDeviceGetName",), handle)
        if name is not None and is_integrated_name(as_text(name)):
            return handle
    return None


def state_of(uuid: str) -> GpuState:
    """The GPU's state now; empty where the driver does not answer, or the GPU has gone."""
    try:
        with GpuMonitor(uuid) as monitor:
            return monitor.snapshot()
    except DeviceLostError:
        return GpuState(uuid=uuid)


def other_processes(
    found: set[int], own: set[int], is_visible: Callable[[int], bool] | None = None
) -> tuple[int, ...] | None:
    """The processes of ``found`` that are not this one, ascending; None where that is open.

    In a container the driver tells the host's process numbers, and this process is among them
    under a number that it does not know. One such number is probably its own: nothing can be
    said. Of several at least one is another's, and all of them are given.

    Args:
        found: process numbers that the driver names.
        own: the numbers of this process and, in a sweep of several, of the one that started it.
        is_visible: whether a process of that number exists here; asks /proc by default.
    """
    is_visible = is_visible or (lambda pid: Path(f"/proc/{pid}").exists())
    if own & found or not found:
        return tuple(sorted(found - own))
    hidden = {pid for pid in found if not is_visible(pid)}
    if len(hidden) == 1:
        return tuple(sorted(found - hidden)) or None
    return tuple(sorted(found))


def reason_names(mask: int) -> tuple[str, ...]:
    """The names of the driver's clock event reasons; an unknown bit is named by its number."""
    names = [name for bit, name in THROTTLE_REASONS.items() if mask & bit]
    unknown = mask & ~sum(THROTTLE_REASONS)
    return (*names, f"reason {unknown:#x}") if unknown else tuple(names)


def merge_states(states: Sequence[GpuState]) -> GpuState | None:
    """Several states, in order, as one: lowest clocks, highest temperature and power, all reasons
    and processes that were seen; the rest as it was last. None for no state.
    """
    if not states:
        return None

    def of_all(choose: Callable[..., Any], name: str) -> Any:
        return choose(_known(getattr(state, name) for state in states), default=None)

    return replace(
        states[-1],
        sm_mhz=of_all(min, "sm_mhz"),
        memory_mhz=of_all(min, "memory_mhz"),
        temperature_c=of_all(max, "temperature_c"),
        power_w=of_all(max, "power_w"),
        power_limit_w=of_all(min, "power_limit_w"),
        throttle_reasons=_union([state.throttle_reasons for state in states]),
        other_processes=_union([state.other_processes for state in states]),
        performance_state=of_all(max, "performance_state"),
        slowdown_readings=_longest_slowdown(states),
    )


def _longest_slowdown(states: Sequence[GpuState]) -> int:
    row = longest = 0
    for state in states:
        row = row + 1 if HW_SLOWDOWN in (state.throttle_reasons or ()) else 0
        longest = max(longest, row, state.slowdown_readings)
    return longest


def advice(state: GpuState) -> list[str]:
    """Commands that would keep the GPU's clocks still, for the user to type; none is ever run.

    The clock is the card's default one under load where the driver tells it, else three quarters
    of its highest: one that it can hold without reaching its limits of power and heat. The last
    command takes the lock away again. Empty where the driver answers too little.
    """
    if not state.uuid:
        return []
    start = f"sudo nvidia-smi -i {state.uuid}"
    commands = [f"{start} -pm 1"] if state.is_persistent is False else []
    highest = state.max_sm_mhz
    sm_mhz = state.default_sm_mhz or (None if highest is None else highest * 3 // 4)
    memory_mhz = state.default_memory_mhz or state.max_memory_mhz
    if sm_mhz is None or state.has_clock_lock is None:
        return commands
    if state.has_clock_lock:
        return [*commands, f"{start} -lgc {sm_mhz},{sm_mhz}", f"{start} -rgc"]
    if memory_mhz is None:
        return commands
    return [*commands, f"{start} -ac {memory_mhz},{sm_mhz}", f"{start} -rac"]


def power_mode() -> str:
    """The power mode that a Jetson is set to, such as ``MAXN``; empty on any other machine.

    Only there is it a mode, that is one of few settings with other clocks and cores each, and so
    a part of a table's identity. A power limit in watts is provenance: it is kept with the run.
    """
    program = shutil.which("nvpmodel")
    if program is None:
        return ""
    try:
        answer = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"NV Power Mode:\s*(\S+)", answer.stdout)
    return found[1] if found else ""


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _known(values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def _union(answers: Sequence[tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
    """All that was named in any answer, in order; None where no answer was given."""
    given = _known(answers)
    return tuple(dict.fromkeys(item for answer in given for item in answer)) if given else None
