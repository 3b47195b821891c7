"""A small convolution through every engine: does it build, run, and agree with PyTorch?"""

from __future__ import annotations

from dataclasses import dataclass

from latlut.engines import engine_class, engine_names
from latlut.errors import LatlutError
from latlut.graphs import Workload
from latlut.opspec import OpSpec

PROBE = OpSpec("conv", (8, 16, 16), 8)


@dataclass(frozen=True)
class EngineTest:
    """How one engine did on one device; ``remedy`` is what to do where it did not work."""

    name: str
    title: str
    works: bool
    detail: str
    remedy: str = ""


def try_engines() -> list[EngineTest]:
    """One result per engine and device that it could use; engines that are missing included."""
    import torch

    results = []
    for name in engine_names():
        found = engine_class(name)
        status = found.availability()
        if not status.is_available:
            results.append(EngineTest(name, found.title, False, status.reason, status.remedy))
            continue
        devices = ["cpu"]
        if name == "pytorch":
            devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        results += [_try(name, device) for device in devices]
    return results


def _try(name: str, device: str) -> EngineTest:
    found = engine_class(name)
    title = f"{found.title} on {device}"
    workload = Workload.from_spec(PROBE)
    try:
        engine = found(device=device)
        module = workload.build()
        with engine.load(workload, module=module) as session:
            difference = engine.check_parity(session, module)
            fastest_ms = float(session.sample_ns(50).min()) / 1e6
    except LatlutError as error:
        return EngineTest(name, title, False, str(error), "this is a defect: please report it")
    detail = (
        f"version {engine.version}, {PROBE.key} in {fastest_ms:.4f} ms, "
        f"differs from PyTorch by {difference:.1e} of the largest output"
    )
    return EngineTest(name, title, True, detail)
