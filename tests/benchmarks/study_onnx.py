"""How ONNX files are best cut into pieces, and how far the pieces' sums can be trusted.

    python tests/benchmarks/study_onnx.py FOLDER [--engines onnxruntime,openvino] [--small]

Writes mixed families of networks (``onnx_families``) into FOLDER, measures for each engine the
pieces by each cut (element-wise tails, or the engine's own layers) in each mode (standalone, in
context), then the networks, and prints a table: how far sums of entries are from networks plain,
calibrated on the same families (random folds) and on other families alone. A command that was
stopped goes on where it was. FOLDER/results.json holds what the numbers are made of.

With --cpu-time runs are timed by what they take of the CPU, not by the wall's clock: on a machine
where other processes run, whole networks are interrupted and their pieces are not, and nothing can
be said by the clock.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx_families

from latlut.engines import engine_class
from latlut.engines.base import Session
from latlut.machine.targets import cpu_target
from latlut.measure.held_device import measuring_on
from latlut.measure.onnx_plans import cut_files, onnx_plan, read_files
from latlut.measure.profile import profile
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.timing import TimingSettings
from latlut.spaces.onnx_files import OnnxNetwork
from latlut.table.identity import MODES
from latlut.table.space import files_as_space
from latlut.table.subgraphs import CUTS
from latlut.table.table import LatencyTable
from latlut.table.validations import validation_ids
from latlut.validation.fitting import measured_networks
from latlut.validation.onnx_families import by_family, by_folds
from latlut.validation.validate import ValidationSettings, store, validate


def measure(
    folder: Path, name: str, cut: str, mode: str, files: list[Path], passes: int, cap_s: float
) -> Path:
    """Sweep the pieces and measure the networks, as far as that is not done; the table's path."""
    engine = engine_class(name)()
    engine.is_compared = False  # each piece was compared by the product's own tests
    workloads = read_files(files)
    with measuring_on(engine):
        cuts = cut_files(workloads, cut, engine)
    plan = onnx_plan(cuts, cut)
    path = folder / f"{name}-{cut}-{mode}.db"
    timing = TimingSettings(min_time_s=cap_s / 2, time_cap_s=cap_s, warmup_cap_s=cap_s)
    print(f"{path.name}: {len(plan.specs)} pieces of {len(files)} files", flush=True)
    settings = SweepSettings(timing, passes=passes)
    summary = profile(plan, engine, cpu_target(1), path, settings, mode=mode)
    for key, message in summary.failed.items():
        print(f"  failed: {key}: {message}")
    pairs = zip(cuts, workloads, strict=True)
    networks = [OnnxNetwork.of_pieces(c.name, c.op_specs(), w) for c, w in pairs]
    with LatencyTable.open(path, is_writable=True) as table:
        priced = [item for item in networks if all(spec in table for spec in item.op_specs())]
        where = files_as_space(priced)
        if not validation_ids(table):
            own = replace(ValidationSettings(), networks=len(priced))
            with measuring_on(engine):
                store(table, validate(table, engine, where, own), own, where)
    return path


def _cpu_time_ns(self: Session, count: int, runs: int) -> np.ndarray:
    """As ``Session.sample_ns``, by the process's CPU time."""
    run, clock = self._run, time.process_time_ns
    durations = np.empty(count, dtype=np.int64)
    for index in range(count):
        started = clock()
        for _ in range(runs):
            run()
        durations[index] = (clock() - started) // runs
    return durations


def report(path: Path) -> dict[str, object]:
    """What a table's validation says, as numbers."""
    with LatencyTable.open(path) as table:
        networks = measured_networks(table)
    ratios = np.array([item.measured_ms / item.plain.ms for item in networks])
    passes = [abs(item.measured_first_ms / item.measured_second_ms - 1) for item in networks]
    found: dict[str, object] = {
        "table": path.stem,
        "networks": len(networks),
        "ratio_mean": float(ratios.mean()),
        "ratio_sd": float(ratios.std(ddof=1)),
        "plain_mape": float(100 * np.mean(np.abs(1 / ratios - 1))),
        "noise_percent": float(100 * np.mean(passes) / 2),
        "rows": [
            {
                "name": item.architecture.name,  # type: ignore[attr-defined]
                "measured_ms": item.measured_ms,
                "plain_ms": item.plain.ms,
            }
            for item in networks
        ],
    }
    for what, tried in (("same", by_folds(networks)), ("other", by_family(networks))):
        found |= {f"{what}_mape": tried.mape_percent, f"{what}_covered": tried.coverage}
    return found


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", default="onnxruntime,openvino")
    parser.add_argument("--cuts", default=",".join(CUTS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--cap", type=float, default=0.1, help="seconds of one reading")
    parser.add_argument("--small", action="store_true", help="one network of each family")
    parser.add_argument("--cpu-time", action="store_true", help="see above")
    own = parser.parse_args()
    if own.cpu_time:
        for name in own.engines.split(","):
            engine_class(name).session_type._sample_ns = _cpu_time_ns  # type: ignore[method-assign]
    files = onnx_families.write(own.folder / "networks", own.small)
    found = []
    for name, cut, mode in product(*(v.split(",") for v in (own.engines, own.cuts, own.modes))):
        found.append(report(measure(own.folder, name, cut, mode, files, own.passes, own.cap)))
        (own.folder / "results.json").write_text(json.dumps(found, indent=1))
        print_table(found)


def print_table(found: list[dict[str, object]]) -> None:
    """One line per table."""
    names = ("networks", "ratio_mean", "ratio_sd", "plain_mape", "same_mape", "same_covered",
             "other_mape", "other_covered", "noise_percent")  # fmt: skip
    print("".join(f"{name:>15}" for name in ("", *names)).replace(" " * 15, "", 1))
    for row in found:
        values = "".join(f"{float(row[name]):15.3f}" for name in names)  # type: ignore[arg-type]
        print(f"{row['table']:40}{values}", flush=True)


if __name__ == "__main__":
    main()
