"""`latlut bench` against independent timers on the same ONNX file.

    python tests/benchmarks/bench_bench.py [--rounds 20] [--input 256x512] [--out FILE.json]

ONNX Runtime is driven by hand, with its outputs bound and without (then every run allocates
them); OpenVINO is timed by its own benchmark_app. All give the median and the minimum of a second
of runs, one thread, fresh sessions, on the same CPU. The timers take turns in random order within
each round, so that drift of the machine falls on all of them alike; what counts is the ratio within
a round. Where other processes run, the medians show mostly them, and the ratio of the minima over
all rounds says more.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from latlut.engines import engine_class
from latlut.engines.base import Engine
from latlut.machine.provenance import collect_environment
from latlut.measure.bench import BenchSettings, bench_onnx
from latlut.measure.held_device import measuring_on
from latlut.measure.timing import TimingSettings
from latlut.opspec import parse_size
from latlut.search.deploy.export import ExportSettings, export
from latlut.search.networks.finding import find_network

SECONDS = 1.0
WARMUP_RUNS = 5
_APP_LINES = ("Median", "Min")


class Reading(NamedTuple):
    """What a timer says of one sitting, milliseconds."""

    median_ms: float
    min_ms: float


def bench_reading(engine: Engine, path: Path) -> Reading:
    """One pass of `latlut bench`."""
    timing = TimingSettings(
        statistic="min", min_time_s=SECONDS, time_cap_s=SECONDS, max_samples=100_000,
        warmup_cap_s=1.0,
    )  # fmt: skip
    settings = BenchSettings(passes=1, timing=timing, is_checked=False)
    found = bench_onnx(engine, path, settings=settings)
    return Reading(found.percentiles_ms[50], found.latency_ms)


def onnxruntime_reading(path: Path, is_bound: bool) -> Reading:
    """ONNX Runtime driven by hand."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    meta = session.get_inputs()[0]
    image = np.random.default_rng(0).standard_normal(meta.shape, dtype=np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(meta.name, image)
    output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
        session.get_outputs()[0].shape, np.float32
    )
    binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    times, started = [], time.perf_counter()
    while len(times) < WARMUP_RUNS or time.perf_counter() - started < SECONDS:
        before = time.perf_counter()
        if is_bound:
            session.run_with_iobinding(binding)
        else:
            session.run(None, {meta.name: image})
        times.append(time.perf_counter() - before)
    times_ms = 1e3 * np.array(times[WARMUP_RUNS:])
    return Reading(float(np.median(times_ms)), float(times_ms.min()))


def benchmark_app_reading(path: Path) -> Reading:
    """OpenVINO's benchmark_app with one stream and one thread."""
    beside = Path(sys.executable).with_name("benchmark_app")
    app = str(beside) if beside.exists() else shutil.which("benchmark_app")
    if app is None:
        raise SystemExit("benchmark_app is not installed: pip install openvino")
    command = [
        app, "-m", str(path), "-d", "CPU", "-hint", "none", "-api", "sync", "-nstreams", "1",
        "-nthreads", "1", "-pin", "NO", "-infer_precision", "f32", "-t", str(int(SECONDS)),
        "-ip", "f32",  # its default for images is another graph, with 8-bit input
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    median, least = (re.search(rf"{name}:\s+([0-9.]+) ms", run.stdout) for name in _APP_LINES)
    if run.returncode or median is None or least is None:
        raise SystemExit(f"benchmark_app failed:\n{run.stdout[-1000:]}{run.stderr[-1000:]}")
    return Reading(float(median[1]), float(least[1]))


def main() -> None:
    """Rounds over all timers; prints each timer's median and its ratio with the spread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--input", type=parse_size, default=(256, 512))
    parser.add_argument("--network", default="fasterseg-student")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ort, openvino = engine_class("onnxruntime")(), engine_class("openvino")()
    found: dict[str, list[Reading]] = {}
    with tempfile.TemporaryDirectory() as folder, measuring_on(ort):
        path = Path(folder) / "network.onnx"
        export(find_network(options.network), path, "onnx", ExportSettings(options.input))
        timers: dict[str, Callable[[], Reading]] = {
            "bench, ONNX Runtime": lambda: bench_reading(ort, path),
            "by hand, outputs bound": lambda: onnxruntime_reading(path, is_bound=True),
            "by hand, run()": lambda: onnxruntime_reading(path, is_bound=False),
            "bench, OpenVINO": lambda: bench_reading(openvino, path),
            "benchmark_app": lambda: benchmark_app_reading(path),
        }
        for number in range(options.rounds):
            names = list(timers)
            random.Random(number).shuffle(names)
            for name in names:
                found.setdefault(name, []).append(timers[name]())
    environment = collect_environment()
    print(f"{options.network} at {options.input[0]}x{options.input[1]}, one thread, "
          f"{options.rounds} rounds; load average {environment['load_1min']}")  # fmt: skip
    for name in timers:
        medians = [reading.median_ms for reading in found[name]]
        low, middle, high = np.quantile(medians, [0, 0.5, 1])
        least = min(reading.min_ms for reading in found[name])
        print(f"  {name:24} median {middle:7.2f} ms (rounds {low:.2f} to {high:.2f}), "
              f"minimum {least:.2f} ms")  # fmt: skip
    ratios = {}
    generator = np.random.default_rng(0)
    for mine, other in (
        ("bench, ONNX Runtime", "by hand, outputs bound"),
        ("bench, ONNX Runtime", "by hand, run()"),
        ("bench, OpenVINO", "benchmark_app"),
    ):
        pairs = list(zip(found[mine], found[other], strict=True))
        ratio = np.array([a.median_ms / b.median_ms for a, b in pairs])
        draws = generator.choice(ratio, (4000, len(ratio)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        floor = min(a.min_ms for a, _ in pairs) / min(b.min_ms for _, b in pairs)
        ratios[f"{mine} / {other}"] = {"of_medians": ratio.tolist(), "of_minima": floor}
        print(
            f"{mine} / {other}: medians {np.median(ratio):.3f} (95% bootstrap over rounds "
            f"{low:.3f} to {high:.3f}; rounds {ratio.min():.3f} to {ratio.max():.3f}), "
            f"minima {floor:.3f}"
        )
    if options.out:
        values = {"latency_ms": found, "ratios": ratios, "environment": environment}
        options.out.write_text(json.dumps(values, indent=1, default=str))


if __name__ == "__main__":
    main()
