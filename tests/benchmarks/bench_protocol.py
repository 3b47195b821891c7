"""latlut's protocol against the FasterSeg authors': time spent, and how well it repeats.

    python tests/benchmarks/bench_protocol.py [--ops 30] [--out FILE.json]

The authors time an operator by 10 warm-up runs, then double the number of runs until they last
more than 1 s, then run for 6 s and take the mean. latlut makes five passes in random order, side
by side. Both measure the same op specs with the same engine, in turns over the same minutes, so
that drift of the machine falls on both alike. Repeatability is |first - second| / mean.

Source of the authors' protocol: ``compute_latency_ms_pytorch`` of the FasterSeg release.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from latlut.engines import engine_class
from latlut.engines.base import Engine
from latlut.measure.held_device import measuring_on
from latlut.measure.plans import Plan, load_plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable

CACHE = GraphCache()


def stratified(count: int, seed: int = 0) -> list[OpSpec]:
    """Op specs of the FasterSeg plan at 256x512, one at random from each slice of its work."""

    def work(spec: OpSpec) -> float:
        channels, height, width = spec.output
        return spec.in_channels * channels * height * width

    specs = sorted(load_plan("fasterseg", (256, 512)).specs, key=work)
    generator = random.Random(seed)
    return [generator.choice(list(part)) for part in np.array_split(specs, count)]


def authors_ms(engine: Engine, spec: OpSpec) -> float:
    """The authors' protocol for one op spec: mean milliseconds over about 6 s."""
    graph = CACHE.onnx_bytes(Workload.from_spec(spec))
    with engine.load(Workload.from_spec(spec), graph=graph) as session:
        session.sample_ns(10)
        iterations, elapsed_s = 1, 0.0
        while elapsed_s < 1:
            started = time.perf_counter()
            session.sample_ns(iterations)
            elapsed_s = time.perf_counter() - started
            iterations *= 2
        iterations = max(1, int(iterations / elapsed_s * 6 / 2))
        started = time.perf_counter()
        session.sample_ns(iterations)
        return 1e3 * (time.perf_counter() - started) / iterations


def repeat_both(
    engine: Engine, specs: list[OpSpec], seed: int
) -> tuple[dict[str, dict[OpSpec, float]], dict[str, float]]:
    """One repeat of each protocol over the same span of time: (milliseconds, seconds spent).

    latlut's passes are meant to be spread over a sweep; here each is followed by a share of the
    authors' op specs, so that both protocols see the same minutes of the machine.
    """
    order = list(specs)
    random.Random(seed).shuffle(order)
    authors: dict[OpSpec, float] = {}
    seconds = {"latlut": 0.0, "authors": 0.0}
    settings = SweepSettings(seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        identity = identity_of(engine, "cpu", statistic="p10")
        with LatencyTable.create(Path(folder) / "t.db", identity) as table:
            for number, share in enumerate(np.array_split(np.arange(len(order)), settings.passes)):
                started = time.monotonic()
                until_now = replace(settings, passes=number + 1)
                Sweep(table, Plan("ops", tuple(specs)), engine, until_now, cache=CACHE).run()
                seconds["latlut"] += time.monotonic() - started
                started = time.monotonic()
                authors |= {order[i]: authors_ms(engine, order[i]) for i in share}
                seconds["authors"] += time.monotonic() - started
            latlut = {spec: table.lookup(spec).latency_ms for spec in specs}
    return {"latlut": latlut, "authors": authors}, seconds


def main() -> None:
    """Two repeats of both protocols; prints times, spreads and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ops", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    specs = stratified(options.ops)
    engine = engine_class("onnxruntime")()
    for spec in specs:
        CACHE.onnx_bytes(Workload.from_spec(spec))
    values: dict[str, list[dict[OpSpec, float]]] = {"latlut": [], "authors": []}
    seconds: dict[str, list[float]] = {"latlut": [], "authors": []}
    with measuring_on(engine):
        for repeat in range(2):
            found, spent = repeat_both(engine, specs, repeat)
            for name, latencies in found.items():
                values[name].append(latencies)
                seconds[name].append(spent[name])
    spreads = {}
    for name, (first, second) in values.items():
        differences = np.array(
            [abs(first[s] - second[s]) / (first[s] + second[s]) * 2 for s in specs]
        )
        spreads[name] = differences
        low, middle, high = 100 * np.quantile(differences, [0.25, 0.5, 0.75])
        each_s = float(np.mean(seconds[name]))
        print(
            f"{name:8} {each_s:6.1f} s a repeat ({each_s / len(specs):.2f} s an op); "
            f"|difference| / mean: median {middle:.2f}% (quartiles {low:.2f}%, {high:.2f}%)"
        )
    generator = np.random.default_rng(0)
    picks = generator.integers(len(specs), size=(2000, len(specs)))
    ratios = np.median(spreads["latlut"][picks], axis=1) / np.median(
        spreads["authors"][picks], axis=1
    )
    time_ratio = np.array(seconds["authors"]) / np.array(seconds["latlut"])
    print(
        f"time, authors / latlut: {time_ratio.mean():.1f}x ({time_ratio.min():.1f}x, "
        f"{time_ratio.max():.1f}x)"
    )
    spread = np.median(spreads["latlut"]) / np.median(spreads["authors"])
    low, high = np.quantile(ratios, [0.025, 0.975])
    print(
        f"spread, latlut / authors: {spread:.2f} "
        f"(95% bootstrap over op specs {low:.2f} to {high:.2f})"
    )
    if options.out:
        options.out.write_text(
            json.dumps(
                {
                    "seconds": seconds,
                    "op_specs": [spec.key for spec in specs],
                    "latency_ms": {
                        name: [[found[spec] for spec in specs] for found in repeats]
                        for name, repeats in values.items()
                    },
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
