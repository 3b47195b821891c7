"""What to run first on a machine with an NVIDIA GPU: does it hold what the documentation claims?

    python tests/benchmarks/bench_gpu.py [--device cuda:0] [--ops 30] [--repeats 5] [--out FILE]

Before it, tests/gpu/first_contact.py settles what needs no TensorRT. For each engine that works on
the GPU, in fp32, as it is and without CUDA graphs where it has them:

1. the behaviour suite, tests marked ``gpu``: how many pass, fail and skip;
2. repeatability: op specs from all over the FasterSeg plan at 1024x2048, each measured several
   times in random order, by a new engine object with an empty cache folder each time, so that
   everything is built anew; the relative standard deviation of an entry between them;
3. agreement with the host's clock, around many runs that are waited for one by one. Waiting costs
   the same for every op spec: host = wait + slope * events, and the slope should be 1. For PyTorch
   also ``torch.utils.benchmark`` and, with CUDA graphs, Triton's ``do_bench_cudagraph``.

Prints JSON. Without a GPU it says what is missing and ends with code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from latlut.engines import engine_class, engine_names
from latlut.engines.base import Engine, Session
from latlut.engines.cuda.graphs import REPLAYED
from latlut.errors import EngineError
from latlut.machine.gpus import gpu_absence_reason
from latlut.measure.held_device import measuring_on
from latlut.measure.plans import load_plan
from latlut.measure.timing import TimingSettings, warm_up
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

ROOT = Path(__file__).resolve().parents[2]
CACHE = GraphCache()
TIMING = TimingSettings(statistic="median")


def spread_over_plan(count: int, seed: int = 0) -> list[OpSpec]:
    """Op specs of the plan at 1024x2048, one at random from each slice of their work."""

    def work(spec: OpSpec) -> float:
        channels, height, width = spec.output
        return spec.in_channels * channels * height * width

    specs = sorted(load_plan("fasterseg", (1024, 2048)).specs, key=work)
    generator = random.Random(seed)
    return [generator.choice(list(part)) for part in np.array_split(specs, count)]


@contextmanager
def fresh_engine(name: str, device: str, options: dict[str, str]) -> Iterator[Engine]:
    """A new engine object whose caches are empty: nothing that was built before is taken."""
    before = os.environ.get("LATLUT_CACHE")
    with TemporaryDirectory() as folder:
        os.environ["LATLUT_CACHE"] = folder
        try:
            yield engine_class(name)(1, "fp32", device, options)
        finally:
            os.environ.pop("LATLUT_CACHE")
            if before is not None:
                os.environ["LATLUT_CACHE"] = before


def open_session(engine: Engine, spec: OpSpec) -> Session:
    """A fresh session of one op spec, warm."""
    workload = Workload.from_spec(spec)
    graph = CACHE.onnx_bytes(workload) if engine.reads_onnx else None
    session = engine.load(workload, graph=graph)
    warm_up(session.sample_ns, TIMING, engine.resolution)
    return session


def entry_ms(session: Session, runs: int = 200) -> float:
    """The median over the runs, as a table's entry within one pass."""
    return float(np.median(session.sample_ns(runs))) / 1e6


def repeatability(
    name: str, device: str, options: dict[str, str], specs: list[OpSpec], repeats: int
) -> dict[str, object]:
    """Relative standard deviation of each op spec between fresh engines, in percent."""
    found: dict[str, list[float]] = {spec.key: [] for spec in specs}
    failed = {}
    for repeat in range(repeats):
        order = list(specs)
        random.Random(repeat).shuffle(order)
        with fresh_engine(name, device, options) as engine:
            for spec in order:
                try:
                    with open_session(engine, spec) as session:
                        found[spec.key].append(entry_ms(session))
                except EngineError as error:
                    failed[spec.key] = str(error)
    spreads = {
        key: 100 * float(np.std(values, ddof=1) / np.mean(values))
        for key, values in found.items()
        if len(values) > 1
    }
    return {
        "median_percent": float(np.median(list(spreads.values()))) if spreads else None,
        "worst_percent": max(spreads.values(), default=None),
        "within_1_percent": sum(value <= 1 for value in spreads.values()),
        "op_specs": len(spreads),
        "failed": failed,
        "ms": {key: float(np.mean(values)) for key, values in found.items() if values},
    }


def host_clock_ms(session: Session, seconds: float = 0.3) -> float:
    """Milliseconds of a run and the wait for it, by the host's clock alone."""
    session.run()
    started, runs = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        session.run()
        runs += 1
    return 1000 * elapsed / runs


def other_timer_ms(engine: Engine, session: Session) -> tuple[str, float] | None:
    """(name, milliseconds) of a PyTorch module by somebody else's timer."""
    if engine.name != "pytorch":
        return None
    device = engine.device.name
    module = session.workload.build().to(device).eval()
    inputs = [torch.from_numpy(array).to(device) for array in session.workload.random_inputs()]
    if session.launch == REPLAYED:
        if find_spec("triton") is None:
            return None
        from triton.testing import do_bench_cudagraph

        with torch.inference_mode():
            return "triton do_bench_cudagraph", float(
                do_bench_cudagraph(lambda: module(*inputs), return_mode="median")
            )
    from torch.utils.benchmark import Timer

    with torch.inference_mode():
        timer = Timer("module(*inputs)", globals={"module": module, "inputs": inputs})
        measured = timer.blocked_autorange(min_run_time=0.3)
    return "torch.utils.benchmark", 1000 * measured.median


def agreement(engine: Engine, specs: list[OpSpec]) -> dict[str, object]:
    """The events' time of op specs against that of other clocks, side by side in one session."""
    events_ms, hosts_ms, launches, ratios = [], [], {}, {}
    for spec in specs:
        try:
            with open_session(engine, spec) as session:
                events_ms.append(entry_ms(session))
                hosts_ms.append(host_clock_ms(session))
                launches[spec.key] = {"launch": session.launch, "host_share": session.host_share}
                if other := other_timer_ms(engine, session):
                    ratios[spec.key] = {"timer": other[0], "ratio": events_ms[-1] / other[1]}
        except EngineError:
            continue  # named by ``repeatability``
    return {
        "host_clock": against_host(np.array(events_ms), np.array(hosts_ms)),
        "launches": launches,
        "ratios": ratios,
        "op_specs": len(events_ms),
    }


def against_host(events_ms: np.ndarray, hosts_ms: np.ndarray) -> dict[str, float] | None:
    """Of host = wait + slope * events: slope, wait, largest relative residual; both (n,) arrays.

    Weighted so that every op spec counts alike; None where there are fewer than three.
    """
    if len(events_ms) < 3:
        return None
    slope, wait_ms = np.polyfit(events_ms, hosts_ms, 1, w=1 / hosts_ms)
    residuals = hosts_ms / (wait_ms + slope * events_ms) - 1
    return {
        "slope": float(slope),
        "wait_us": 1000 * float(wait_ms),
        "worst_residual_percent": 100 * float(np.abs(residuals).max()),
    }


def behaviour_suite(name: str) -> dict[str, int]:
    """How the engine's tests on the GPU end."""
    names = ("test_engines.py", "test_tensorrt_engine.py")
    files = [ROOT / "tests" / "engines" / name for name in names]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", f"{name}-cuda or [{name}]",
         *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", answer.stdout)
    if answer.returncode:
        print(answer.stdout[-4000:], file=sys.stderr)
    return {word: int(number) for number, word in counts}


def configurations(name: str) -> list[dict[str, str]]:
    """As it is, then without CUDA graphs where the engine has them."""
    choices = engine_class(name).option_choices
    return [{}, {"cuda_graph": "off"}] if "cuda_graph" in choices else [{}]


def measure(device: str, ops: int, repeats: int, *, with_suite: bool) -> dict[str, object]:
    """Everything, by engine and options; engines that do not work say why."""
    specs = spread_over_plan(ops)
    results: dict[str, object] = {}
    for name in engine_names():
        if "cuda" not in engine_class(name).device_kinds:
            continue
        status = engine_class(name).availability()
        if not status.is_available:
            results[name] = {"missing": status.reason, "remedy": status.remedy}
            continue
        found: dict[str, object] = {"version": status.version}
        if with_suite:
            found["behaviour"] = behaviour_suite(name)
        for options in configurations(name):
            found[",".join(f"{k}={v}" for k, v in options.items()) or "plain"] = _guarded(
                lambda name=name, options=options: _one(name, device, options, specs, repeats)
            )
        results[name] = found
    return results


def _guarded(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """One engine's failure is a result; the others still run."""
    try:
        return work()
    except EngineError as error:
        return {"failed": str(error)}


def _one(
    name: str, device: str, options: dict[str, str], specs: list[OpSpec], repeats: int
) -> dict[str, object]:
    engine = engine_class(name)(1, "fp32", device, options)
    with measuring_on(engine):
        return {
            "device": engine.device.model,
            "facts": engine.facts(),
            "launch_floor_ms": engine.launch_floor_ms(),
            "repeatability": repeatability(name, device, options, specs, repeats),
            "agreement": agreement(engine, specs),
        }


def main() -> int:
    """Run and print; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--ops", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-suite", action="store_true", help="leave the behaviour suite out")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    reason = gpu_absence_reason()
    if reason is not None:
        print(f"no NVIDIA GPU can be used here: {reason}", file=sys.stderr)
        return 2
    results = measure(
        arguments.device, arguments.ops, arguments.repeats, with_suite=not arguments.no_suite
    )
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
