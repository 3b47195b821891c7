"""What only a GPU can settle, asked of the first one at hand through latlut's own modules.

    python tests/gpu/first_contact.py [--device cuda:0] [--only NAME ...]

Needs PyTorch's build for CUDA and nvidia-ml-py, not TensorRT; takes about three minutes. Prints one
JSON object a line: ``check`` and what was found, or ``failed``. Nothing on the card is set.

Exit code 0 when all checks ran, 1 when one failed, 2 where no GPU can be used: then one line says
why.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from latlut.engines import engine_class
from latlut.engines.base import Engine, Session
from latlut.engines.cuda.clock import CacheFlush, GpuClock, launch_floor_ms
from latlut.engines.cuda.devices import cuda_devices, cuda_index
from latlut.engines.cuda.driver import (
    CapturedGraph,
    EmptyKernel,
    compute_capability,
    driver_cuda_version,
    l2_cache_bytes,
)
from latlut.engines.cuda.memory import DeviceMemory, memory_type, open_memory
from latlut.engines.resolution import EVENT_TICK_S
from latlut.errors import LatlutError
from latlut.machine.gpu_state import GpuMonitor, advice
from latlut.machine.gpus import detect_gpus, gpu_absence_reason
from latlut.measure.device_warmup import clock_of, warm_device
from latlut.measure.held_device import measuring_on
from latlut.measure.timing import TimingSettings, warm_up
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

NO_GPU = 2
#: Seconds without work after which a card's clocks have fallen.
IDLE_S = 8.0
SPECS = ("conv 8->8 at 16x16", "conv_2x 64->64 at 64x128", "conv_2x 256->256 at 128x256")
LARGE = SPECS[-1]


def say(check: str, **facts: object) -> None:
    """One line."""
    print(json.dumps({"check": check, **facts}, default=str), flush=True)


class Contact:
    """The checks, each a method that gives its facts; ``device`` as PyTorch calls it."""

    def __init__(self, device: str) -> None:
        self.engine = engine_class("pytorch")(device=device)
        self.index = cuda_index(self.engine.device)
        self.memory: DeviceMemory = open_memory(self.index)

    def _engine(self, choice: str) -> Engine:
        return engine_class("pytorch")(
            device=self.engine.device.name, options={"cuda_graph": choice}
        )

    def _session(self, text: str = LARGE, choice: str = "auto") -> Session:
        return self._engine(choice).load(Workload.from_spec(OpSpec.parse(text)))

    def names(self) -> dict[str, object]:
        """Do NVML, CUDA and PyTorch mean the same cards by the same UUIDs?"""
        gpus, devices = detect_gpus(), cuda_devices()
        return {
            "nvml": [(gpu.name, gpu.uuid, gpu.driver, gpu.target_name) for gpu in gpus],
            "cuda": [(device.name, device.uuid, device.is_integrated) for device in devices],
            "pytorch": asdict(self.engine.device),
            "uuids_agree": {gpu.uuid for gpu in gpus} >= {device.uuid for device in devices},
            "capability": compute_capability(self.index),
            "l2_bytes": l2_cache_bytes(self.index),
            "driver_cuda": driver_cuda_version(),
            "memory": memory_type().__name__,  # type: ignore[union-attr]  # it was opened
        }

    def state(self) -> dict[str, object]:
        """What does the driver answer, and how long does that take beside a measurement?"""
        with GpuMonitor(self.engine.device.uuid) as monitor:
            started = time.perf_counter()
            found = monitor.snapshot()
            snapshot_ms = 1e3 * (time.perf_counter() - started)
            return {
                "state": asdict(found),
                "advice": advice(found),
                "reason": monitor.reason,
                "snapshot_ms": snapshot_ms,
            }

    def ticks(self) -> dict[str, object]:
        """The step of the event clock: is it the one that is assumed?"""
        with self.memory.current():
            kernel = EmptyKernel()
            kernel.launch(self.memory.stream)
            timed = GpuClock(self.memory).time(lambda: kernel.launch(self.memory.stream), 4000)
            kernel.close()
        steps = np.diff(np.unique(timed.durations_ns))
        return {
            "smallest_step_ns": int(steps.min()) if len(steps) else None,
            "assumed_ns": 1e9 * EVENT_TICK_S,
            "distinct": len(steps) + 1,
            "p10_p50_p90_ns": np.quantile(timed.durations_ns, [0.1, 0.5, 0.9]).tolist(),
        }

    def floor(self) -> dict[str, object]:
        """An empty kernel after a pause, and as the product reads it, on a warm card."""
        time.sleep(IDLE_S)
        with self.memory.current():
            kernel = EmptyKernel()
            clock = GpuClock(self.memory)
            cold = clock.time(lambda: kernel.launch(self.memory.stream), 200).durations_ns
            kernel.close()
            warm = [launch_floor_ms(self.memory, is_replayed=choice) for choice in (False, True)]
        return {
            "cold_us": float(np.median(cold)) / 1e3,
            "warm_enqueued_us": 1e3 * warm[0],
            "warm_replayed_us": 1e3 * warm[1],
        }

    def ramp(self) -> dict[str, object]:
        """How long until the clock is steady after a pause, and does the product wait for it?"""
        with self._session() as session, clock_of(self.engine) as clock_mhz:
            assert clock_mhz is not None
            time.sleep(IDLE_S)
            first_ns = float(session.sample_ns(1)[0])
            found = warm_device([session.sample_ns], clock_mhz)
            then_ns = float(np.median(session.sample_ns(20)))
            end = time.perf_counter() + 3.0
            while time.perf_counter() < end:
                session.sample_ns(20)
            final_ns = float(np.median(session.sample_ns(20)))
            return {
                **asdict(found),
                "final_mhz": clock_mhz(),
                "first_us": first_ns / 1e3,
                "after_warm_up_us": then_ns / 1e3,
                "after_3_s_us": final_ns / 1e3,
                "off_by_percent": 100 * (then_ns / final_ns - 1),
            }

    def host_share(self) -> dict[str, object]:
        """The host's share of small, middle and large operators, without and with graphs."""
        rows = []
        for choice in ("off", "on", "auto"):
            for text in SPECS:
                with self._session(text, choice) as session:
                    warm = warm_up(session.sample_ns, TimingSettings(), self.engine.resolution)
                    alone = session.sample_ns(640)
                    shared = session.sample_ns(200, warm.runs_per_reading)
                    rows.append(
                        {
                            "op": text,
                            "cuda_graph": choice,
                            "launch": session.launch,
                            "host_share": session.host_share,
                            "p10_us": float(np.quantile(alone, 0.1)) / 1e3,
                            "runs_per_reading": warm.runs_per_reading,
                            "p10_of_several_us": float(np.quantile(shared, 0.1)) / 1e3,
                            "first_of_64_over_rest": _first_over_rest(alone),
                        }
                    )
        return {"rows": rows}

    def flush(self) -> dict[str, object]:
        """Is a run with a cold cache never faster than one with a hot one?"""
        rows = []
        for text in SPECS:
            module = Workload.from_spec(OpSpec.parse(text)).build().cuda(self.index).eval()
            shape = OpSpec.parse(text).inputs[0]
            stream = torch.cuda.ExternalStream(self.memory.stream, device=self.index)
            with self.memory.current(), torch.cuda.stream(stream), torch.inference_mode():
                image = torch.randn(1, *shape, device=f"cuda:{self.index}")
                hot, cold = (
                    GpuClock(self.memory, flush)
                    for flush in (None, CacheFlush(self.memory, 2 * l2_cache_bytes(self.index)))
                )

                def launch(module: nn.Module = module, image: torch.Tensor = image) -> None:
                    module(image)

                hot.time(launch, 100)
                found = [(clock.time(launch, 200)) for clock in (hot, cold)]
            rows.append(
                {
                    "op": text,
                    "hot_cold_us": [float(np.median(item.durations_ns)) / 1e3 for item in found],
                    "host_us": [item.host_ns / 1e3 for item in found],
                }
            )
        return {"rows": rows}

    def host_clock(self) -> dict[str, object]:
        """The event clock against the host's around many runs and one wait."""
        with self._session() as session:
            session.sample_ns(100)
            event_ns = float(session.sample_ns(500).mean())
            started = time.perf_counter()
            for _ in range(500):
                session.run()
            waited_ns = 1e9 * (time.perf_counter() - started) / 500
        return {"events_us": event_ns / 1e3, "host_with_wait_us": waited_ns / 1e3}

    def capture_after_failure(self) -> dict[str, object]:
        """After a capture that failed: is the stream usable, does the next one succeed?"""
        stream = self.memory.stream
        with self.memory.current():
            kernel = EmptyKernel()

            def waits() -> None:
                kernel.launch(stream)
                self.memory.synchronize()  # may not be captured

            try:
                CapturedGraph(stream, waits)
                first = "captured, against expectation"
            except Exception as error:  # of pycuda, PyTorch or the driver
                first = f"{type(error).__name__}: {error}"
            waits()
            graph = CapturedGraph(stream, lambda: kernel.launch(stream))
            graph.launch()
            self.memory.synchronize()
            graph.close()
            kernel.close()
        engine = self._engine("auto")
        uncapturable = Workload.from_module(_Waits().eval(), [(1, 3, 32, 32)], "waits for the host")
        with engine.load(uncapturable) as session:
            difference = engine.check_parity(session)
            refused = session.launch
        try:
            self._engine("on").load(uncapturable).close()
            refusal = "none, against expectation"
        except LatlutError as error:
            refusal = str(error)
        with self._session() as session:
            after = session.launch
        return {
            "first": first,
            "auto": refused,
            "difference": difference,
            "on": refusal,
            "next_session": after,
        }

    def memory_returned(self) -> dict[str, object]:
        """Do sessions give their memory back?"""
        used = []
        for _ in range(60):
            with self._session(SPECS[1]) as session:
                session.sample_ns(4)
            used.append(torch.cuda.memory_allocated(self.index))
        return {"after_10_bytes": used[9], "after_60_bytes": used[-1]}

    def throttle_bits(self) -> dict[str, object]:
        """Which reasons does the driver name, idle and under load, and how often alone?"""
        seen: Counter[str] = Counter()
        with GpuMonitor(self.engine.device.uuid) as monitor, self._session() as session:
            for phase in ("idle", "load", "idle again", "load again"):
                end = time.perf_counter() + 3.0
                while time.perf_counter() < end:
                    if phase.startswith("load"):
                        session.sample_ns(3)
                    else:
                        time.sleep(0.02)
                    for reason in monitor.snapshot().throttle_reasons or ("none",):
                        seen[f"{phase}: {reason}"] += 1
        return {"counts": dict(seen)}


class _Waits(nn.Module):
    """Reads a value of the GPU on the host in the middle, which no graph can hold."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * (1.0 if image.sum().item() > 0 else 2.0)


def _first_over_rest(samples_ns: np.ndarray) -> float:
    """The first reading after a wait over the others."""
    waves = samples_ns.reshape(-1, 64)
    return float(np.median(waves[:, 0]) / np.median(waves[:, 1:]))


#: In the order of their running.
CHECKS = (
    "names", "state", "ticks", "floor", "ramp", "host_share", "flush", "host_clock",
    "capture_after_failure", "memory_returned", "throttle_bits",
)  # fmt: skip


def guarded(name: str, check: Callable[[], dict[str, object]]) -> bool:
    """Run a check and print what it found; whether it ran to its end."""
    try:
        say(name, **check())
    except Exception as error:  # whatever it is, the other checks are still to be made
        say(
            name,
            failed=f"{type(error).__name__}: {error}",
            where=traceback.format_exc().splitlines()[-4:],
        )
        return False
    return True


def main() -> int:
    """Run and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS, metavar="NAME",
                        help=", ".join(CHECKS))  # fmt: skip
    arguments = parser.parse_args()
    reason = gpu_absence_reason()
    if reason is None and not torch.cuda.is_available():
        reason = f"this PyTorch, {torch.__version__}, reaches no GPU: install its build for CUDA"
    if reason is not None:
        say("gpu", missing=reason)
        return NO_GPU
    try:
        contact = Contact(arguments.device)
    except LatlutError as error:
        say("gpu", missing=str(error))
        return NO_GPU
    with measuring_on(contact.engine):
        ran = [guarded(name, getattr(contact, name)) for name in CHECKS if name in arguments.only]
    return 0 if all(ran) else 1


if __name__ == "__main__":
    sys.exit(main())
