"""The GPUs of this machine, and which target each of them is."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.errors import TargetError, UnknownNameError, did_you_mean
from latlut.machine.cpu import allowed_cpus, cpu_model
from latlut.machine.nvml import first_answer, nvml_errors, open_nvml
from latlut.machine.targets import (
    Target,
    is_part_of_gpu,
    load_target,
    plain_name,
    shipped_target_name,
    target_names,
)


@dataclass(frozen=True)
class DetectedGpu:
    """A GPU of this machine, as its driver reports it.

    ``index`` is the driver's own, in PCI order, which need not be CUDA's: engines pick the device
    by ``uuid``. ``target_name`` is None for a GPU that no shipped target describes, and for a part
    of one (a MIG instance, a virtual GPU), which does not have the peaks of the whole card.
    ``is_integrated`` GPUs, a Jetson's, share the host's memory; the driver's UUID of one, where
    it has any, is not CUDA's.
    """

    index: int
    name: str
    uuid: str
    driver: str
    memory_bytes: int | None
    target_name: str | None
    is_integrated: bool = False


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


def integrated_uuids() -> tuple[str, ...]:
    """What the driver's tools call the integrated GPU of this machine; empty without one."""
    return tuple(gpu.uuid for gpu in detect_gpus() if gpu.is_integrated)


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
        notes=(
            "A part of a GPU, without the peaks of the whole one: entries are measured without a "
            "roofline."
            if is_part_of_gpu(gpu.name)
            else "No target file describes this GPU: entries are measured without a roofline."
        ),
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
    wanted = plain_name(name)
    for gpu in gpus:
        if wanted in {plain_name(called) for called in (_name_to_type(gpu), gpu.name)}:
            return gpu
    found = ", ".join(f"{gpu.name} (--gpu {_name_to_type(gpu)})" for gpu in gpus)
    try:
        target = load_target(name)
    except UnknownNameError as error:
        if not gpus:
            raise
        known = [*target_names(), *dict.fromkeys(_name_to_type(gpu) for gpu in gpus)]
        hint = did_you_mean(slug(name), list(dict.fromkeys(known)))
        raise UnknownNameError(f"no GPU is called {name!r}; {hint}\nGPUs found: {found}") from error
    if target.kind == "cpu":
        raise TargetError("'cpu' is no GPU: use --cpu")
    is_file = name.lower().endswith(".toml")
    for gpu in gpus:
        if target.matches(gpu.name) if is_file else target.name == gpu.target_name:
            return gpu
    lines = [f"{name} was asked for, but no {target.title} is here"]
    nothing = "" if gpus else f"none ({gpu_absence_reason() or 'none was given'})"
    lines.append(f"GPUs found: {found or nothing}")
    lines.append(f"CPU: {cpu_model()}, {len(allowed_cpus())} CPUs allowed")
    instead = [f"--gpu {shlex.quote(_name_to_type(gpu))}" for gpu in gpus]
    lines.append(f"what can be used here: {' or '.join([*dict.fromkeys(instead), '--cpu'])}")
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
    parts = [gpu for gpu in gpus if gpu.index in numbers and gpu.uuid.startswith("MIG-")]
    if parts:
        raise TargetError(
            f"GPU {parts[0].index} is split into MIG instances, and a process sees one of them: "
            f"leave --devices out and run with CUDA_VISIBLE_DEVICES={parts[0].uuid}"
        )
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
    index: int,
    name: str,
    uuid: str,
    driver: str,
    memory_bytes: int | None,
    is_part: bool = False,
) -> DetectedGpu:
    is_integrated = is_integrated_name(name)
    if "nvgpu" in name.lower():
        # All Orin modules call themselves "Orin (nvgpu)"; the board's name tells them apart.
        name = _board_model() or name
    target_name = None if is_part else shipped_target_name(name, memory_bytes)
    return DetectedGpu(index, name, uuid, driver, memory_bytes, target_name, is_integrated)


def is_integrated_name(name: str) -> bool:
    """Whether the GPU that a driver calls so is a Jetson's own."""
    return re.search(r"\bnvgpu\b|\bjetson\b|\btegra\b|^(nvidia )?thor\b", name.lower()) is not None


def _from_nvml() -> tuple[list[DetectedGpu], str]:
    pynvml, reason = open_nvml()
    if pynvml is None:
        return [], reason
    try:
        driver = as_text(pynvml.nvmlSystemGetDriverVersion())
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            whole = pynvml.nvmlDeviceGetHandleByIndex(index)
            mode = first_answer(pynvml, ("nvmlDeviceGetVirtualizationMode",), whole)
            is_virtual = mode is not None and mode == pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU
            is_split, instances = _mig_instances(pynvml, whole)
            for handle in instances or [whole]:
                # Integrated GPUs have no memory of their own.
                memory = first_answer(pynvml, ("nvmlDeviceGetMemoryInfo",), handle)
                bytes_ = None if memory is None else int(memory.total)
                name = as_text(pynvml.nvmlDeviceGetName(handle))
                if is_split and not is_part_of_gpu(name):
                    name += " MIG" if instances else " MIG without an instance"
                uuid = as_text(pynvml.nvmlDeviceGetUUID(handle))
                is_part = is_virtual or is_split
                gpus.append(_detected(index, name, uuid, driver, bytes_, is_part))
        return gpus, "the NVIDIA driver lists no GPU"
    except nvml_errors(pynvml) as error:
        return [], f"the NVIDIA driver's library failed: {error}"
    finally:
        pynvml.nvmlShutdown()


def _mig_instances(pynvml: Any, whole: Any) -> tuple[bool, list[Any]]:
    """Whether the GPU is split by MIG, and its instances, the only things that CUDA then sees."""
    mode = first_answer(pynvml, ("nvmlDeviceGetMigMode",), whole)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return False, []
    count = first_answer(pynvml, ("nvmlDeviceGetMaxMigDeviceCount",), whole) or 0
    found = (
        first_answer(pynvml, ("nvmlDeviceGetMigDeviceHandleByIndex",), whole, number)
        for number in range(count)
    )
    return True, [handle for handle in found if handle is not None]


def as_text(value: str | bytes) -> str:
    """A text of the driver's library, which some versions of the binding give as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _from_nvidia_smi() -> tuple[list[DetectedGpu], str]:
    import csv
    import shutil

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
    split = _split_by_mig(program)
    gpus = []
    for row in csv.reader(answer.stdout.splitlines(), skipinitialspace=True):
        if len(row) == 5 and row[0].isdigit():
            memory_bytes = int(row[4]) * 2**20 if row[4].isdigit() else None
            index, name = int(row[0]), row[1]
            if index not in split:
                gpus.append(_detected(index, name, row[2], row[3], memory_bytes))
            for profile, uuid in split.get(index, ()):
                part = f"{name} MIG {profile}"
                gpus.append(_detected(index, part, uuid, row[3], None, is_part=True))
    return gpus, "nvidia-smi lists no GPU"


def _split_by_mig(program: str) -> dict[int, list[tuple[str, str]]]:
    """The (profile, UUID) of each MIG instance, by the number of the GPU that has it."""
    try:
        answer = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    split: dict[int, list[tuple[str, str]]] = {}
    number = -1
    for line in answer.stdout.splitlines():
        if found := re.match(r"GPU (\d+):", line):
            number = int(found[1])
        elif found := re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-\S+)\)", line):
            split.setdefault(number, []).append((found[1], found[2]))
    return split


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
