"""`latlut bench` against an independent loop on ONNX files that latlut did not make.

    python tests/benchmarks/bench_foreign.py FILE.onnx... [--rounds 12]

ONNX Runtime is driven by hand with the same inputs: outputs bound, one thread, a fresh session,
a second of runs. Both give the 10th percentile. They take turns in random order within each round;
what counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import onnxruntime

from latlut.engines import engine_class
from latlut.engines.base import Engine
from latlut.measure.bench import BenchSettings, bench_workload
from latlut.measure.held_device import measuring_on
from latlut.measure.timing import TimingSettings
from latlut.operators.onnx_files import OnnxWorkload, read_onnx

SECONDS = 1.0
WARMUP_RUNS = 20


def bench_ms(engine: Engine, workload: OnnxWorkload) -> float:
    """One pass of `latlut bench`."""
    timing = TimingSettings(
        statistic="p10", min_time_s=SECONDS, time_cap_s=SECONDS, max_samples=100_000,
        warmup_cap_s=1.0,
    )  # fmt: skip
    settings = BenchSettings(passes=1, timing=timing, is_checked=False)
    return bench_workload(engine, workload, settings).latency_ms


def by_hand_ms(workload: OnnxWorkload) -> float:
    """ONNX Runtime driven by hand."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        workload.content, options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for meta, array in zip(session.get_inputs(), workload.random_inputs(), strict=True):
        binding.bind_cpu_input(meta.name, array)
    for meta in session.get_outputs():
        binding.bind_output(meta.name)
    session.run_with_iobinding(binding)
    for meta, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(meta.name, value)
    times, started = [], time.perf_counter()
    while len(times) < WARMUP_RUNS or time.perf_counter() - started < SECONDS:
        before = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - before)
    return float(1e3 * np.quantile(times[WARMUP_RUNS:], 0.1))


def main() -> None:
    """Rounds over all files; prints each file's ratio with its spread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    engine = engine_class("onnxruntime")()
    workloads = [read_onnx(path) for path in options.files]
    mine, other = (np.zeros((len(workloads), options.rounds)) for _ in range(2))
    with measuring_on(engine):
        for number in range(options.rounds):
            turns = [(index, is_mine) for index in range(len(workloads)) for is_mine in (0, 1)]
            random.Random(number).shuffle(turns)
            for index, is_mine in turns:
                if is_mine:
                    mine[index, number] = bench_ms(engine, workloads[index])
                else:
                    other[index, number] = by_hand_ms(workloads[index])
    generator = np.random.default_rng(0)
    for index, workload in enumerate(workloads):
        ratio = mine[index] / other[index]
        draws = np.median(generator.choice(ratio, (4000, len(ratio))), axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        print(
            f"{workload.name}: bench {np.median(mine[index]):.4g} ms, by hand "
            f"{np.median(other[index]):.4g} ms, ratio {np.median(ratio):.3f} (95% bootstrap over "
            f"rounds {low:.3f} to {high:.3f}; rounds {ratio.min():.3f} to {ratio.max():.3f})"
        )


if __name__ == "__main__":
    main()
