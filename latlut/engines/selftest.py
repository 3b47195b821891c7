"""A small convolution through every engine: does it build, run, and agree with PyTorch?

One result per engine and device of this machine, also for what is missing: then with the command
that gets it. Nothing that an engine does wrong ends the round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latlut.engines import PROVEN_ON, engine_class, engine_names
from latlut.engines.base import Engine
from latlut.errors import LatlutError, ParityError
from latlut.machine.gpus import DetectedGpu, detect_gpus
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

PROBE = OpSpec("conv", (8, 16, 16), 8)
_DEFECT = "this is a defect: please report it"


@dataclass(frozen=True)
class OptionHere:
    """A setting of an engine with those of its choices that a device has, the default first."""

    name: str
    choices: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class EngineTest:
    """How one engine did on one device."""

    name: str
    title: str
    """``name``, ``title``: the engine, and what the line is called."""
    works: bool
    """Whether it ran and agreed with PyTorch."""
    detail: str
    """The version and the figures, or what went wrong."""
    remedy: str = ""
    """What to do where it did not work."""
    device: str = ""
    """``cpu`` or ``cuda:N``; empty where no device was reached."""
    precisions: tuple[str, ...] = ()
    """Those that the engine has on this device."""
    options: tuple[OptionHere, ...] = ()
    """Its settings, as far as this device has them."""
    is_proven: bool = True
    """Whether this engine was run on this kind of device by us."""


def try_engines() -> list[EngineTest]:
    """One result per engine and device that it could use; engines that are missing included."""
    gpus = detect_gpus()
    results = []
    for name in engine_names():
        try:
            results += _try_engine(name, gpus)
        except Exception as error:  # an engine's package may be broken in any way
            detail = f"cannot be asked: {type(error).__name__}: {error}"
            results.append(EngineTest(name, name, False, detail, "install its package anew"))
    return results


def never_run() -> list[str]:
    """The combinations of engine and kind of device that we have not run on hardware."""
    kinds = {"cpu": "the CPU", "cuda": "a GPU"}
    return [
        f"{engine_class(name).title} on {kinds[kind]}"
        for name in engine_names()
        for kind in engine_class(name).device_kinds
        if (name, kind) not in PROVEN_ON
    ]


def _try_engine(name: str, gpus: Sequence[DetectedGpu]) -> list[EngineTest]:
    found = engine_class(name)
    status = found.availability()
    if not status.is_available:
        return [EngineTest(name, found.title, False, status.reason, status.remedy)]
    devices = found.device_names()
    results = [_try(found, device) for device in devices]
    if "cuda" in found.device_kinds and not any(device != "cpu" for device in devices):
        # A GPU that the driver shows and the engine does not see: it says itself what it lacks.
        results += [_refusal(found, gpu) for gpu in gpus]
        if not results:
            detail = f"version {status.version} is installed, but there is no NVIDIA GPU here"
            results.append(EngineTest(name, found.title, False, detail, "it runs on a GPU only"))
    return results


def _try(found: type[Engine], device: str) -> EngineTest:
    title = f"{found.title} on {device}"
    is_proven = (found.name, device.partition(":")[0]) in PROVEN_ON
    workload = Workload.from_spec(PROBE)
    try:
        engine = found(device=device)
        module = workload.build()
        with engine.load(workload, module=module) as session:
            difference = engine.check_parity(session, module)
            fastest_ms = float(session.sample_ns(50).min()) / 1e6
        precisions = tuple(name for name in found.precisions if _has(found, device, name, {}))
        options = tuple(
            OptionHere(
                name,
                tuple(
                    choice
                    for choice in dict.fromkeys([option.default(device), *option.choices])
                    if _has(found, device, "fp32", {name: choice})
                ),
                option.description,
            )
            for name, option in found.option_choices.items()
        )
    except Exception as error:  # whatever an engine raises, the others are still to be tried
        text = str(error) if isinstance(error, LatlutError) else f"{type(error).__name__}: {error}"
        reason, _, advice = text.partition("\n")
        return EngineTest(
            found.name, title, False, reason, advice or _advice_on(error), device,
            is_proven=is_proven,
        )  # fmt: skip
    detail = (
        f"version {engine.version}, {PROBE.key} in {fastest_ms:.4f} ms, "
        f"differs from PyTorch by {difference:.1e} of the largest output"
    )
    return EngineTest(found.name, title, True, detail, "", device, precisions, options, is_proven)


def _refusal(found: type[Engine], gpu: DetectedGpu) -> EngineTest:
    """Why an engine that runs on GPUs does not run on this one."""
    title = f"{found.title} on {gpu.name}"
    reason, advice = "it does not list this GPU among its devices", _DEFECT
    try:
        found(device=gpu.uuid)
    except LatlutError as error:
        reason, _, advice = str(error).partition("\n")
        advice = advice or _advice_on(error)
    return EngineTest(found.name, title, False, reason, advice, is_proven=False)


def _advice_on(error: Exception) -> str:
    """What to do where the error says no more than why."""
    is_refusal = isinstance(error, LatlutError) and not isinstance(error, ParityError)
    return "choose another engine with --engine" if is_refusal else _DEFECT


def _has(found: type[Engine], device: str, precision: str, options: dict[str, str]) -> bool:
    try:
        found(1, precision, device, options)
    except LatlutError:
        return False
    return True
