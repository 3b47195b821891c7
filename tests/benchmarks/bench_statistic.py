"""Which statistic of an op's samples to believe: what repeats, and what adds up to networks?

    python tests/benchmarks/bench_statistic.py [--repeats 8] [--table FILE] [--out FOLDER]

Repeatability: the same op specs are measured several times over, as passes of a sweep are, beside
the same sentinels; first with nothing else running, then with a second process that multiplies
matrices on every CPU. All statistics are taken of the same samples. The spread is the standard
deviation of the log of an op's statistic between repeats, as read and after the sentinels'
correction; "busy / quiet" is how much the busy machine changes it.

Additivity (with --table, a table of the FasterSeg space): entries by each statistic from the
table's raw samples, against networks measured now by the same statistic.
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

from latlut.engines import engine_class, run_environment
from latlut.engines.base import Engine, Session
from latlut.measure.held_device import measuring_on
from latlut.measure.sentinels import choose_sentinels
from latlut.measure.timing import TimingSettings, measure, measure_side_by_side, warm_up
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.stats.passes import combine_passes
from latlut.stats.quantiles import STATISTICS, statistic_interval
from latlut.table.samples import unpack_samples
from latlut.table.space import space_of
from latlut.table.summary import group_speeds
from latlut.table.table import LatencyTable
from latlut.validation.validate import ValidationSettings

GROUP = 12
NAMES = [*STATISTICS, "mean"]
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


def statistic_ms(samples_ns: np.ndarray, name: str) -> float:
    """A statistic of samples, milliseconds; ``mean`` beside those that a table may have."""
    if name == "mean":
        return float(samples_ns.mean()) / 1e6
    return statistic_interval(samples_ns / 1e6, name).value


def open_op(engine: Engine, spec: OpSpec) -> Session:
    """A session of one op spec, its graph from the cache."""
    workload = Workload.from_spec(spec)
    return engine.load(workload, graph=CACHE.onnx_bytes(workload))


def one_pass(
    engine: Engine, specs: list[OpSpec], sentinels: tuple[OpSpec, ...], seed: int
) -> tuple[dict[OpSpec, np.ndarray], dict[OpSpec, list[np.ndarray]]]:
    """Samples of each op spec, and of the sentinels beside its group; nanoseconds."""
    order = list(specs)
    random.Random(seed).shuffle(order)
    samples, beside = {}, {}
    with ExitStack() as watched:
        companions = [watched.enter_context(open_op(engine, spec)) for spec in sentinels]
        for companion in companions:
            warm_up(companion.sample_ns, TimingSettings())
        for start in range(0, len(order), GROUP):
            group = order[start : start + GROUP]
            with ExitStack() as stack:
                sessions = [stack.enter_context(open_op(engine, spec)) for spec in group]
                found, readings = measure_side_by_side(
                    [session.sample_ns for session in sessions],
                    TimingSettings(),
                    [companion.sample_ns for companion in companions],
                )
            for spec, sampling in zip(group, found, strict=True):
                samples[spec], beside[spec] = sampling.samples_ns, readings
    return samples, beside


def repeatability(engine: Engine, specs: list[OpSpec], repeats: int) -> dict[str, dict]:
    """Readings and sentinels' speeds by machine (quiet, busy) and statistic: (E, R) lists."""
    sentinels = choose_sentinels(specs, 3)
    found: dict[str, dict] = {}
    for machine in ("quiet", "busy"):
        with load(machine == "busy"):
            passes = [one_pass(engine, specs, sentinels, seed) for seed in range(repeats)]
        found[machine] = {}
        for name in NAMES:
            readings = [[statistic_ms(s[spec], name) for s, _ in passes] for spec in specs]
            levels = np.array(
                [[[statistic_ms(x, name) for x in b[spec]] for _, b in passes] for spec in specs]
            )  # (E, R, sentinels)
            speeds = np.exp(np.log(levels / np.median(levels, axis=(0, 1))).mean(axis=2))
            found[machine][name] = {"readings_ms": readings, "speeds": speeds.tolist()}
    return found


def spreads_percent(item: dict) -> tuple[np.ndarray, np.ndarray]:
    """(E,) spread between repeats as read, and after the sentinels' correction."""
    readings, speeds = np.array(item["readings_ms"]), np.array(item["speeds"])
    corrected = readings / speeds ** combine_passes(readings, speeds).elasticity
    return tuple(100 * np.log(x).std(axis=1, ddof=1) for x in (readings, corrected))  # type: ignore[return-value]


def additivity(engine: Engine, path: Path, networks: int) -> dict[str, dict]:
    """Estimated and measured milliseconds of random networks, by statistic."""
    with LatencyTable.open(path) as table:
        where = space_of(table)
        speeds = group_speeds(table)
        rows = table.rows(
            "SELECT key, pass_id, group_index, samples FROM measurements"
            " JOIN op_specs ON op_specs.id = op_spec_id"
        )
    passes = sorted({row["pass_id"] for row in rows})
    keys = {key: line for line, key in enumerate(sorted({row["key"] for row in rows}))}
    beside = np.full((len(keys), len(passes)), np.nan)
    readings = {name: beside.copy() for name in NAMES}
    for row in rows:
        cell = keys[row["key"]], passes.index(row["pass_id"])
        beside[cell] = speeds[row["pass_id"], row["group_index"]]
        for name in NAMES:
            readings[name][cell] = statistic_ms(unpack_samples(row["samples"]), name)
    entries = {name: combine_passes(values, beside).value for name, values in readings.items()}
    sampled = where.space.sample_many(networks, seed=1)
    visits: dict[int, list[np.ndarray]] = {index: [] for index in range(networks)}
    for round_index in range(4):
        order = list(visits)
        random.Random(round_index).shuffle(order)
        for index in order:
            nodes = sampled[index].nodes(where.input_size, where.batch)
            workload = Workload.from_nodes(nodes, f"network {index}")
            with engine.load(workload, graph=CACHE.onnx_bytes(workload)) as session:
                sampling = measure(session.sample_ns, ValidationSettings().timing)
            visits[index].append(sampling.samples_ns)
    specs = [item.op_specs(where.input_size, where.batch) for item in sampled]
    return {
        name: {
            "estimated_ms": [float(entries[name][[keys[s.key] for s in x]].sum()) for x in specs],
            "measured_ms": [
                float(np.median([statistic_ms(samples, name) for samples in visits[index]]))
                for index in visits
            ],
        }
        for name in NAMES
    }


def main() -> None:
    """Measure, print both tables, and write data and figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--ops", type=int, default=36)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    engine = engine_class("onnxruntime")()
    specs = stratified(options.ops, seed=1)
    for spec in specs:
        CACHE.onnx_bytes(Workload.from_spec(spec))
    with measuring_on(engine):
        found = repeatability(engine, specs, options.repeats)
        sums = additivity(engine, options.table, options.networks) if options.table else {}
    print("spread of an op between repeats, median over ops (and 90th percentile), %")
    print("statistic  quiet, as read   quiet, corrected   busy, as read   busy, corrected   b/q")
    corrected: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    for name in NAMES:
        cells = []
        for machine in ("quiet", "busy"):
            for values in spreads_percent(found[machine][name]):
                cells.append(f"{np.median(values):5.2f} ({np.quantile(values, 0.9):5.2f})")
            corrected[name][machine] = spreads_percent(found[machine][name])[1]
        logs = [np.log(found[m][name]["readings_ms"]).mean(axis=1) for m in ("busy", "quiet")]
        shift = np.exp(np.median(logs[0] - logs[1]))
        print(f"{name:9}  {'   '.join(cells)}   {shift:.3f}")
    if sums:
        print(f"\nsums of entries against {options.networks} networks, by the same statistic, %")
        print("statistic   bias    mean absolute error   r")
        for name, item in sums.items():
            estimated, measured = np.array(item["estimated_ms"]), np.array(item["measured_ms"])
            errors = 100 * (estimated / measured - 1)
            r = np.corrcoef(estimated, measured)[0, 1]
            print(f"{name:9} {errors.mean():+6.2f}   {np.abs(errors).mean():6.2f}   {r:.4f}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        data = {
            "op_specs": [spec.key for spec in specs],
            "repeatability": found,
            "additivity": sums,
            "environment": run_environment(),
        }
        (options.out / "statistic.json").write_text(json.dumps(data))
        draw(corrected, options.out / "statistic.png")


def draw(rows: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Box plots of the corrected spread between repeats, by statistic, quiet beside busy."""
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
