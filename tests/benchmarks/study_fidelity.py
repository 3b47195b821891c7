"""How close estimates come to measured networks, plain and calibrated, on several devices.

    study_fidelity.py measure OUT [--devices onnxruntime:1,openvino:2] [--networks 90]
    study_fidelity.py summarise OUT [--splits 20]

``measure`` runs, per device (an engine with a number of threads), ``latlut profile`` in both
measuring modes, a ``latlut validate`` of networks, and on the table of the other mode
``latlut calibrate --from`` the first: networks are measured once. It goes on where it was stopped.
Nothing else should run on the machine meanwhile.

``summarise`` fits each table on 30 of the networks, judges on the others, over ``--splits`` random
choices of the 30, pools the 95% intervals' coverage over devices, and says of each number that is
asked for whether it was reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latlut.pricing.estimator import calibrated
from latlut.table.table import LatencyTable
from latlut.validation.fitting import fit, measured_networks
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.scores import Scores, score

DEVICES = "onnxruntime:1,openvino:1,pytorch:1,onnxruntime:2,openvino:2"
MODES = ("standalone", "in-context")
FITTED = 30
COLOURS = {"plain": "#d97706", "calibrated": "#2563a8"}


def table_path(out: Path, engine: str, threads: str, mode: str) -> Path:
    """Where the table of a device and mode lives."""
    return out / f"{engine}-{threads}-{mode}.db"


def measure(out: Path, devices: list[tuple[str, str]], networks: int, plan: str) -> None:
    """Profile and validate every device; what is there already is left."""
    out.mkdir(parents=True, exist_ok=True)
    for engine, threads in devices:
        for mode in MODES:
            path = table_path(out, engine, threads, mode)
            run("profile", "--cpu", "--engine", engine, "--threads", threads, "--plan", plan,
                "--mode", mode, "--table", str(path))  # fmt: skip
        path = table_path(out, engine, threads, MODES[0])
        with LatencyTable.open(path) as table:
            is_done = bool(table.rows("SELECT id FROM validations"))
        if not is_done:
            run("validate", "--table", str(path), "--networks", str(networks), "--quiet")


def run(*words: str) -> None:
    """A ``latlut`` command, printed first."""
    print("latlut", *words, flush=True)
    subprocess.run([sys.executable, "-m", "latlut", *words], check=True)


@dataclass(frozen=True)
class Result:
    """One table: the split of seed 0, and the held-out scores of all splits."""

    engine: str
    threads: str
    mode: str
    first: Scores
    scores: list[Scores]
    networks: list[MeasuredNetwork]
    estimated_ms: list[float]

    @property
    def name(self) -> str:
        """``openvino, 2 threads``."""
        return f"{self.engine}, {self.threads} thread{'s' if self.threads != '1' else ''}"

    def over_splits(self, which: str, number: str) -> tuple[float, float, float]:
        """Mean, 10th and 90th percentile of a number over the splits."""
        values = [getattr(getattr(item, which), number) for item in self.scores]
        low, high = np.quantile(values, [0.1, 0.9])
        return float(np.mean(values)), float(low), float(high)


def judge(out: Path, engine: str, threads: str, mode: str, splits: int) -> Result:
    """Fit on 30 networks and judge on the others, over random choices of the 30."""
    with (
        LatencyTable.open(table_path(out, engine, threads, mode)) as table,
        LatencyTable.open(table_path(out, engine, threads, MODES[0])) as source,
    ):
        networks = measured_networks(table, source)
    scores = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(networks))
        own = fit([networks[i] for i in order[:FITTED]])
        others = [networks[i] for i in order[FITTED:]]
        estimates = [calibrated(item.plain, own) for item in others]
        scores.append(score(others, estimates, seed))
        if seed == 0:
            shown, shown_ms = others, [item.ms for item in estimates]
    return Result(engine, threads, mode, scores[0], scores, shown, shown_ms)


def verdicts(found: Scores) -> dict[str, bool]:
    """The numbers asked for, and whether this table reaches them on its held-out networks."""
    plain, own = found.plain, found.calibrated
    beyond_10 = round((1 - own.within_10) * own.n)
    return {
        "error <= 2%": own.mape_percent <= 2,
        "error <= floor + 0.5": own.mape_percent <= own.noise_floor_mape_percent + 0.5,
        "at most 1 beyond 10%": beyond_10 <= 1,
        "95% within 5%": own.within_5 >= 0.95,
        "r >= ceiling - 0.005": own.r >= own.ceiling_r - 0.005,
        "better than plain": own.mape_percent < plain.mape_percent
        and own.r > plain.r
        and own.within_5 >= plain.within_5
        and own.within_10 >= plain.within_10,
    }


def summarise(out: Path, devices: list[tuple[str, str]], splits: int) -> None:
    """Print and store what the tables say, and draw it."""
    from scipy.stats import binomtest

    results = [
        judge(out, engine, threads, mode, splits)
        for mode in MODES
        for engine, threads in devices
        if table_path(out, engine, threads, mode).exists()
    ]
    stored: list[dict[str, Any]] = []
    for found in results:
        one = found.first
        missed = [name for name, is_reached in verdicts(one).items() if not is_reached]
        shares = [
            sum(verdicts(item)[name] for item in found.scores) / len(found.scores)
            for name in verdicts(one)
        ]
        texts = {
            which: "{:.2f}% ({:.2f} to {:.2f})".format(*found.over_splits(which, "mape_percent"))
            for which in ("plain", "calibrated")
        }
        r = found.over_splits("calibrated", "r")
        print(
            f"{found.mode}, {found.name}: {one.calibrated.n} networks; error plain {texts['plain']}"
            f", calibrated {texts['calibrated']}, floor "
            f"{one.calibrated.noise_floor_mape_percent:.2f}%; r plain "
            f"{found.over_splits('plain', 'r')[0]:.4f}, calibrated {r[0]:.4f} "
            f"({r[1]:.4f} to {r[2]:.4f}), ceiling {one.calibrated.ceiling_r:.4f}; within 5% "
            f"{100 * one.plain.within_5:.0f} -> {100 * one.calibrated.within_5:.0f}%; intervals "
            f"hold {100 * np.mean([item.coverage for item in found.scores]):.1f}%\n"
            f"    seed 0: {'all reached' if not missed else 'MISSED ' + ', '.join(missed)}; over "
            "splits reached: "
            + ", ".join(f"{n} {100 * s:.0f}%" for n, s in zip(verdicts(one), shares, strict=True))
        )
        stored.append(
            {
                "engine": found.engine, "threads": int(found.threads), "mode": found.mode,
                "splits": len(found.scores), "seed_0": one.to_dict(), "verdicts": verdicts(one),
                "over_splits": {
                    f"{which}_{number}": found.over_splits(which, number)
                    for which in ("plain", "calibrated")
                    for number in ("mape_percent", "r", "within_5", "within_10")
                },
            }
        )  # fmt: skip
    pooled: dict[str, Any] = {}
    for mode in MODES:
        own = [found for found in results if found.mode == mode]
        if not own:
            continue
        covered = sum(found.first.covered for found in own)
        total = sum(found.first.calibrated.n for found in own)
        low, high = binomtest(covered, total).proportion_ci(0.95, method="exact")
        over = np.mean([[item.coverage for item in found.scores] for found in own])
        print(
            f"{mode}, intervals of seed 0, all devices: {covered} of {total} measured networks "
            f"inside, {100 * covered / total:.1f}% (95% {100 * low:.1f} to {100 * high:.1f}): "
            f"{'contains' if low <= 0.95 <= high else 'does not contain'} 95%; over all splits "
            f"{100 * over:.1f}%"
        )
        pooled[mode] = {"covered": covered, "networks": total, "interval": [low, high],
                        "over_splits": float(over)}  # fmt: skip
    content = {"fitted": FITTED, "tables": stored, "pooled_coverage": pooled}
    (out / "fidelity.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_networks(results, out / "networks.csv")
    draw([found for found in results if found.mode == MODES[0]], out / "fidelity.png")


def write_networks(results: list[Result], path: Path) -> None:
    """Every held-out network of seed 0, one line per table."""
    lines = ["engine,threads,mode,plain_ms,calibrated_ms,measured_first_ms,measured_second_ms"]
    for found in results:
        for item, ms in zip(found.networks, found.estimated_ms, strict=True):
            lines.append(
                f"{found.engine},{found.threads},{found.mode},{item.plain.ms:.5f},{ms:.5f},"
                f"{item.measured_first_ms:.5f},{item.measured_second_ms:.5f}"
            )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(results: list[Result], path: Path) -> None:
    """Errors of plain and calibrated estimates by measured latency, one panel a device."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(results), 3.4), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axis, found in zip(panels, results, strict=True):
        measured = np.array([item.measured_ms for item in found.networks])
        plain = np.array([item.plain.ms for item in found.networks])
        for label, values in (("plain", plain), ("calibrated", np.array(found.estimated_ms))):
            agreement = getattr(found.first, label)
            axis.plot(
                measured, 100 * (values / measured - 1), "o", ms=3.5, color=COLOURS[label],
                label=f"{label}, {agreement.mape_percent:.2f}%",
            )  # fmt: skip
        axis.axhline(0, color="#111827", lw=0.8)
        axis.set_title(found.name, fontsize=9, loc="left")
        axis.set_xlabel("measured, ms", fontsize=8)
        axis.grid(color="#e5e7eb", lw=0.6)
        axis.legend(fontsize=7, frameon=False, title="mean absolute error", title_fontsize=7)
    panels[0].set_ylabel("estimate is too high by, %", fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("measure", "summarise"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--devices", default=DEVICES)
    parser.add_argument("--networks", type=int, default=90)
    parser.add_argument("--plan", default="tiny")
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    devices = []
    for text in options.devices.split(","):
        engine, _, threads = text.partition(":")
        devices.append((engine, threads or "1"))
    if options.step == "measure":
        measure(options.out, devices, options.networks, options.plan)
    else:
        summarise(options.out, devices, options.splits)


if __name__ == "__main__":
    main()
