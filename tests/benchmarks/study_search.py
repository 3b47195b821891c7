"""The two studies of the search in docs/results/search: what made their data and figures.

    study_search.py trajectories RUNS OUT         runs named naive-0, paper-3, auto-1, ...
    study_search.py train RUNS TABLE OUT [--part 0/2]
    study_search.py compare OUT

``trajectories`` gathers the epochs of finished ``latlut search`` runs and draws latency, mIoU and
the shares of skip and narrowest widths, as in the paper's Fig. 4. ``train`` trains, per seed, the
searched student of run ``paper-SEED`` and random networks of the same latency, all alike.
``compare`` tests the searched against the mean of the random ones, paired by seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlut.pricing.estimator import estimate
from latlut.search.data.opening import open_data
from latlut.search.networks.network import trainable
from latlut.search.train.settings import TrainSettings
from latlut.search.train.training import Training
from latlut.spaces import Architecture
from latlut.table.space import space_of
from latlut.table.table import LatencyTable

RANDOM_NETWORKS = 4
TRAINING = TrainSettings.model_validate(
    {
        "data": {"image_size": [128, 256], "train_images": 320, "validation_images": 64},
        "schedule": {
            "epochs": 5, "batch": 8, "crop": [96, 192], "lr": 0.05, "decay": "poly",
            "warmup_steps": 10, "evaluate_every": 5,
        },
    }
)  # fmt: skip
COLOURS = {"naive": "#d97706", "paper": "#2563a8", "auto": "#15803d"}
LABELS = {
    "naive": "naive (1/3, 1/3, 1/3)",
    "paper": "decoupled, the paper's weights",
    "auto": "decoupled, balanced for this table",
}


def trajectories(runs: Path, out: Path) -> None:
    """All epochs of all runs as one CSV file, and the figure."""
    rows: list[dict[str, Any]] = []
    targets = set()
    for folder in sorted(runs.iterdir()):
        variant, _, seed = folder.name.partition("-")
        if not (folder / "result.json").exists():
            continue
        targets.add(json.loads((folder / "run.json").read_text())["target_ms"])
        with (folder / "trajectory.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["phase"] == "search":
                    rows.append({"variant": variant, "seed": int(seed), **row})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (out / "trajectories.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (target_ms,) = targets
    _draw_trajectories(rows, target_ms, out / "penalty.png")
    for variant in LABELS:
        last = _last_epochs(rows, variant)
        if last:
            texts = [
                f"{name} {np.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"
                for name in ("expected_ms", "best_ms", "best_miou", "skip_share", "narrowest_share")
                for values in [[row[name] for row in last]]
            ]
            print(f"{variant}, {len(last)} seeds, last epoch: {'; '.join(texts)}")


def _best(row: dict[str, Any], name: str) -> float:
    """The value of the branch pair of largest score."""
    pairs = [key.removeprefix("scores_") for key in row if key.startswith("scores_")]
    best = max(pairs, key=lambda pair: float(row[f"scores_{pair}"]))
    return float(row[f"{name}_{best}"])


def _last_epochs(rows: list[dict[str, Any]], variant: str) -> list[dict[str, float]]:
    mine = [row for row in rows if row["variant"] == variant]
    last = max((int(row["epoch"]) for row in mine), default=-1)
    return [
        {
            "expected_ms": float(row["expected_ms"]),
            "best_ms": _best(row, "derived_ms"),
            "best_miou": 100 * _best(row, "miou"),
            "skip_share": float(row["skip_share"]),
            "narrowest_share": float(row["narrowest_share"]),
        }
        for row in mine
        if int(row["epoch"]) == last
    ]


def _draw_trajectories(rows: list[dict[str, Any]], target_ms: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    figure.suptitle(
        "Searches on generated street scenes: mean over seeds, and each seed (thin)",
        fontsize=11, x=0.01, ha="left",
    )  # fmt: skip
    subjects = (
        ("latency of the best derived student, ms", lambda row: _best(row, "derived_ms")),
        ("supernet mIoU of its branches, %", lambda row: 100 * _best(row, "miou")),
        ("share of cells that choose skip", lambda row: float(row["skip_share"])),
        ("share of maps at the narrowest width",
         lambda row: float(row["narrowest_share"])),
    )  # fmt: skip
    for axis, (label, value) in zip(panels, subjects, strict=True):
        for variant, colour in COLOURS.items():
            mine = [row for row in rows if row["variant"] == variant]
            lines = {}
            for seed in sorted({row["seed"] for row in mine}):
                own = sorted(
                    (row for row in mine if row["seed"] == seed), key=lambda r: int(r["epoch"])
                )
                lines[seed] = [value(row) for row in own]
                axis.plot(range(1, len(own) + 1), lines[seed], color=colour, lw=0.6, alpha=0.45)
            if lines:
                mean = np.mean(list(lines.values()), axis=0)
                axis.plot(range(1, len(mean) + 1), mean, "o-", color=colour, label=LABELS[variant])
        axis.set_xlabel("search epoch")
        axis.set_ylabel(label, fontsize=9)
        axis.grid(color="#e5e7eb", lw=0.6)
    panels[0].axhline(target_ms, color="#b91c1c", lw=1, label=f"target {target_ms:.4g} ms")
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def _random_networks(
    table: LatencyTable, latency_ms: float, seed: int
) -> list[tuple[Architecture, float]]:
    """Networks of the space's sampler whose estimate is within 2% of ``latency_ms``."""
    where = space_of(table)
    rng = random.Random(f"random networks/{seed}")
    found: list[tuple[Architecture, float]] = []
    for _ in range(20_000):
        network = where.space.sample(rng)
        ms = estimate(network.op_specs(where.input_size), table).ms
        if abs(ms / latency_ms - 1) <= 0.02 and network not in [item for item, _ in found]:
            found.append((network, ms))
        if len(found) == RANDOM_NETWORKS:
            return found
    raise SystemExit(f"fewer than {RANDOM_NETWORKS} random networks of {latency_ms:.4g} ms")


def train(runs: Path, table_path: Path, out: Path, part: tuple[int, int]) -> None:
    """Train every network of this part, and write one JSON line for each."""
    jobs: list[tuple[int, str, Architecture, float]] = []
    with LatencyTable.open(table_path) as table:
        where = space_of(table)
        for folder in sorted(runs.glob("paper-*")):
            seed = int(folder.name.partition("-")[2])
            student = Architecture.load(folder / "student.json")
            ms = estimate(student.op_specs(where.input_size), table).ms
            jobs.append((seed, "searched", student, ms))
            for number, (network, own_ms) in enumerate(_random_networks(table, ms, seed)):
                jobs.append((seed, f"random {number}", network, own_ms))
    images = TRAINING.data
    counts = (images.train_images, images.validation_images, 0)
    for seed, kind, network, ms in jobs[part[0] :: part[1]]:
        # The search saw the scenes of seed 0: these are others.
        data = open_data("street-scenes", size=images.image_size, counts=counts, seed=1000 + seed)
        settings = TRAINING.model_copy(update={"seed": seed})
        with tempfile.TemporaryDirectory() as folder_name:
            module = trainable(network, data.classes.count, seed=seed)
            result = Training(module, data, settings, Path(folder_name)).run()
        line = {
            "seed": seed, "kind": kind, "latency_ms": ms, "miou": result.last_mean_iou,
            "architecture": json.loads(network.to_json()),
        }  # fmt: skip
        with (out / "trainings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"seed {seed}, {kind}, {ms:.4g} ms: mIoU {100 * result.last_mean_iou:.4g}%", flush=True
        )


def compare(out: Path) -> None:
    """Paired by seed: the searched network against the mean of the random ones; and the figure."""
    from matplotlib.figure import Figure
    from scipy import stats

    lines = [json.loads(text) for text in (out / "trainings.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: (line["seed"], line["kind"]))
    (out / "trainings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    searched, randoms = {}, {}
    for line in lines:
        if line["kind"] == "searched":
            searched[line["seed"]] = 100 * line["miou"]
        else:
            randoms.setdefault(line["seed"], []).append(100 * line["miou"])
    seeds = sorted(searched)
    differences = [searched[seed] - float(np.mean(randoms[seed])) for seed in seeds]
    t = stats.ttest_rel([searched[s] for s in seeds], [np.mean(randoms[s]) for s in seeds])
    signed = stats.wilcoxon(differences)
    low, high = t.confidence_interval(0.95)
    better = [sum(searched[seed] > value for value in randoms[seed]) for seed in seeds]
    for seed in seeds:
        others = ", ".join(f"{value:.2f}" for value in randoms[seed])
        print(f"seed {seed}: searched {searched[seed]:.2f}, random {others}")
    verdict = "reached" if t.pvalue < 0.05 and np.mean(differences) > 0 else "not reached"
    print(
        f"searched minus random: {np.mean(differences):+.2f} points of mIoU (95% {low:+.2f} to "
        f"{high:+.2f}), paired t-test p = {t.pvalue:.3f}, Wilcoxon p = {signed.pvalue:.3f}; better "
        f"than {sum(better)} of {RANDOM_NETWORKS * len(seeds)} random networks: {verdict}"
    )
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for seed in seeds:
        axis.plot([seed] * len(randoms[seed]), randoms[seed], "o", color="#9ca3af")
        axis.plot([seed], [searched[seed]], "D", color="#2563a8")
    axis.plot([], [], "D", color="#2563a8", label="searched")
    axis.plot([], [], "o", color="#9ca3af", label="random, same latency")
    axis.set_xticks(seeds)
    axis.set_xlabel("seed")
    axis.set_ylabel("mIoU after equal short training, %")
    axis.set_title(
        f"Searched against random networks: {np.mean(differences):+.2f} points, "
        f"p = {t.pvalue:.2f}",
        fontsize=10, loc="left",
    )  # fmt: skip
    axis.grid(axis="y", color="#e5e7eb", lw=0.6)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(out / "random.png", dpi=120)


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for name, folders in (
        ("trajectories", ("runs", "out")),
        ("train", ("runs", "table", "out")),
        ("compare", ("out",)),
    ):
        step = steps.add_parser(name)
        for folder in folders:
            step.add_argument(folder, type=Path)
        if name == "train":
            step.add_argument("--part", default="0/1")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if options.step == "trajectories":
        trajectories(options.runs, options.out)
    elif options.step == "train":
        index, _, count = options.part.partition("/")
        train(options.runs, options.table, options.out, (int(index), int(count)))
    else:
        compare(options.out)


if __name__ == "__main__":
    main()
