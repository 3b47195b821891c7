"""The GPUs of this machine, and which target each of them is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latlut.errors import TargetError, UnknownNameError
from latlut.machine.cpu import allowed_cpus, cpu_model
from latlut.machine.nvml import nvml_errors, open_nvml
from latlut.machine.targets import Target, load_target, target_names


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


def driver_of(*uuids: str) -> str | None:
    """The driver's version of the first GPU that has one of these UUIDs; None for no such GPU."""
    return next((gpu.driver for gpu in detect_gpus() if gpu.uuid in uuids), None)


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


def choose_gpus(
    name: str, numbers: Sequence[int], gpus: Sequence[DetectedGpu]
) -> tuple[DetectedGpu, ...]:
    """The GPUs with these numbers, all of the model that ``name`` calls and with one driver.

    Args:
        name: as in ``resolve_gpu``.
        numbers: the driver's own, as nvidia-smi shows them.
        gpus: what ``detect_gpus`` found.

    Raises:
        UnknownNameError, TargetError: as in ``resolve_gpu``.
        TargetError: a number twice or of no GPU, or GPUs of several models or drivers: their
            latencies do not belong in one table. Names both.
    """
    model = resolve_gpu(name, gpus)
    by_number = {gpu.index: gpu for gpu in gpus}
    if missing := [str(number) for number in numbers if number not in by_number]:
        there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus)
        raise TargetError(f"no GPU has the number {', '.join(missing)}; GPUs found: {there}")
    if len(set(numbers)) < len(numbers):
        raise TargetError("--devices names a GPU twice: one process measures on each")
    chosen = tuple(by_number[number] for number in numbers)
    for gpu in chosen:
        if gpu.name != model.name or gpu.driver != model.driver:
            raise TargetError(
                f"GPU {gpu.index} is a {gpu.name} with driver {gpu.driver}, GPU {model.index} a "
                f"{model.name} with driver {model.driver}: they do not share a table; name GPUs "
                "of one model with --devices"
            )
    return chosen


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
    pynvml, reason = open_nvml()
    if pynvml is None:
        return [], reason
    try:
        driver = _as_text(pynvml.nvmlSystemGetDriverVersion())
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            try:
                memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            except nvml_errors(pynvml):  # integrated GPUs have no memory of their own
                memory_bytes = None
            name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
            gpus.append(_detected(index, _as_text(name), _as_text(uuid), driver, memory_bytes))
        return gpus, "the NVIDIA driver lists no GPU"
    except nvml_errors(pynvml) as error:
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
