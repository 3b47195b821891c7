"""Which statistic of an op's samples repeats best, on a quiet and on a busy machine?

    python tests/benchmarks/bench_statistic.py [--repeats 8] [--out FOLDER]

The same op specs are measured several times over, as passes of a sweep are, first with nothing
else running, then with a second process that multiplies matrices on every CPU. All statistics
are taken of the same samples. Repeatability is the standard deviation of the log of an op's
statistic between repeats; bias is how much the busy machine changes its mean.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from bench_protocol import CACHE, stratified

from latlut.engines import engine_class
from latlut.engines.base import Engine
from latlut.environment import collect_environment
from latlut.graphs import Workload
from latlut.measuring import measuring_on
from latlut.opspec import OpSpec
from latlut.stats import STATISTICS, statistic_interval
from latlut.timing import TimingSettings, measure_side_by_side

GROUP = 12
LOAD = (
    "import numpy as np\n"
    "a = np.random.default_rng(0).standard_normal((700, 700)).astype('float32')\n"
    "while True: a = a @ a; a /= np.abs(a).max()\n"
)


@contextmanager
def load(is_busy: bool) -> Iterator[None]:
    """A process that multiplies matrices with all threads, or nothing."""
    if not is_busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        time.sleep(2)
        yield
    finally:
        process.kill()
        process.wait()


def measure_all(engine: Engine, specs: list[OpSpec], seed: int) -> dict[str, list[float]]:
    """One pass over the op specs: every statistic's milliseconds, in the order of ``specs``."""
    order = list(specs)
    random.Random(seed).shuffle(order)
    samples: dict[OpSpec, np.ndarray] = {}
    for start in range(0, len(order), GROUP):
        group = order[start : start + GROUP]
        with ExitStack() as stack:
            sessions = [
                stack.enter_context(
                    engine.load(
                        Workload.from_spec(spec), graph=CACHE.onnx_bytes(Workload.from_spec(spec))
                    )
                )
                for spec in group
            ]
            samplings, _ = measure_side_by_side(
                [session.sample_ns for session in sessions], TimingSettings()
            )
        samples.update(
            {spec: sampling.samples_ns for spec, sampling in zip(group, samplings, strict=True)}
        )
    found = {
        name: [statistic_interval(samples[spec] / 1e6, name).value for spec in specs]
        for name in STATISTICS
    }
    found["mean"] = [float(samples[spec].mean()) / 1e6 for spec in specs]
    return found


def main() -> None:
    """Measure, print the table, and write data and figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--ops", type=int, default=24)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    engine = engine_class("onnxruntime")()
    specs = stratified(options.ops, seed=1)
    for spec in specs:
        CACHE.onnx_bytes(Workload.from_spec(spec))
    found: dict[str, list[dict[str, list[float]]]] = {}
    with measuring_on(engine):
        for name in ("quiet", "busy"):
            with load(name == "busy"):
                found[name] = [measure_all(engine, specs, s) for s in range(options.repeats)]
    names = [*STATISTICS, "mean"]
    print("statistic   spread quiet      spread busy       busy / quiet")
    rows = {}
    for name in names:
        logs = {k: np.log([item[name] for item in v]) for k, v in found.items()}
        spreads = {k: 100 * values.std(axis=0, ddof=1) for k, values in logs.items()}
        shift = np.exp(np.median(logs["busy"].mean(axis=0) - logs["quiet"].mean(axis=0)))
        rows[name] = spreads
        cells = "   ".join(
            f"{np.median(spreads[k]):5.2f}% (p90 {np.quantile(spreads[k], 0.9):5.2f}%)"
            for k in ("quiet", "busy")
        )
        print(f"{name:8} {cells}   {shift:.3f}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        data = {
            "op_specs": [spec.key for spec in specs],
            "readings_ms": found,
            "environment": collect_environment(),
        }
        (options.out / "statistic.json").write_text(json.dumps(data))
        draw(rows, options.out / "statistic.png")


def draw(rows: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Box plots of the spread between repeats, by statistic, quiet beside busy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for offset, name, colour in ((-0.18, "quiet", "#2563a8"), (0.18, "busy", "#d97706")):
        boxes = axes.boxplot(
            [row[name] for row in rows.values()],
            positions=np.arange(len(rows)) + offset,
            widths=0.3,
            patch_artist=True,
            showfliers=False,
            medianprops={"color": "white"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=colour, edgecolor=colour)
        axes.plot([], [], color=colour, linewidth=6, label=f"{name} machine")
    axes.set_xticks(np.arange(len(rows)), list(rows))
    axes.set_ylabel("spread of an op between repeats, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
