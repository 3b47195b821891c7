"""Does a teacher help a student? The study in docs/results/ablation: what made its data and figure.

    study_distillation.py train ABLATION RUNS [--part 0/2]
    study_distillation.py summarise ABLATION RUNS OUT

``ABLATION`` is a finished folder of ``latlut ablate``. Its searched student is trained alone and
with a teacher, for as long as there (``SHORT`` epochs) and for ``LONG``; the teacher was trained
for as long as there or for ``LONG``; the divergence from it counts 1, or 0.05: it is summed over
classes, and the FasterSeg authors' code, which averages over its 19 classes, weighs it like that.
``train`` runs what is missing, ``summarise`` writes one CSV line for each training, the differences
paired by seed, and a figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

SHORT, LONG = 12, 36
WEIGHTS = (1.0, 0.05)
COLOURS = {1.0: "#d97706", 0.05: "#2563a8"}


@dataclass(frozen=True)
class Case:
    """A training of the student: epochs, those of its teacher (None: alone), and the weight."""

    epochs: int
    teacher_epochs: int | None = None
    weight: float = 0.0

    def folder(self, ablation: Path, runs: Path, seed: int) -> Path:
        """Where its run lies; the ablation has two of them."""
        if self == Case(SHORT):
            return ablation / f"seed-{seed}" / "student"
        if self == Case(SHORT, SHORT, 1.0):
            return ablation / f"seed-{seed}" / "distilled"
        taught = f"by-{self.teacher_epochs}-weight-{self.weight:g}"
        how = "alone" if self.teacher_epochs is None else taught
        return runs / f"student-{self.epochs}-{how}-seed-{seed}"


TAUGHT = tuple(
    Case(epochs, teacher, weight)
    for epochs, teacher in ((SHORT, SHORT), (SHORT, LONG), (LONG, LONG))
    for weight in WEIGHTS
)
CASES = (Case(SHORT), Case(LONG), *TAUGHT)


def seeds_of(ablation: Path) -> list[int]:
    """Seeds of the ablation."""
    return sorted(int(folder.name.removeprefix("seed-")) for folder in ablation.glob("seed-*"))


def teacher_folder(epochs: int, ablation: Path, runs: Path, seed: int) -> Path:
    """Where the run of a teacher lies."""
    short = ablation / f"seed-{seed}" / "teacher"
    return short if epochs == SHORT else runs / f"teacher-{epochs}-seed-{seed}"


def miou_percent(folder: Path) -> float | None:
    """Of the last epoch; None where the run is not finished."""
    path = folder / "result.json"
    return 100 * json.loads(path.read_text())["last_mean_iou"] if path.exists() else None


def train(ablation: Path, runs: Path, part: tuple[int, int]) -> None:
    """Train what is missing of this part's seeds, one run after another."""
    for seed in seeds_of(ablation)[part[0] :: part[1]]:
        found = ablation / f"seed-{seed}" / "search-full"
        _train(teacher_folder(LONG, ablation, runs, seed), found / "teacher.json", LONG, seed)
        for case in CASES:
            more: list[str] = []
            if case.teacher_epochs is not None:
                teacher = teacher_folder(case.teacher_epochs, ablation, runs, seed)
                more = ["--teacher", str(teacher), "--set", f"loss.distillation={case.weight}"]
            folder = case.folder(ablation, runs, seed)
            _train(folder, found / "student.json", case.epochs, seed, *more)


def _train(folder: Path, architecture: Path, epochs: int, seed: int, *more: str) -> None:
    if miou_percent(folder) is not None:
        return
    command = [
        sys.executable, "-m", "latlut", "train", "--arch", str(architecture), "--run", str(folder),
        "--seed", str(seed), "--threads", "1", "--accelerator", "cpu",
        "--set", f"schedule.epochs={epochs}",
        *(more or ["--teacher", "none"]),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def summarise(ablation: Path, runs: Path, out: Path) -> None:
    """CSV of all finished trainings, the gains paired by seed, and the figure."""
    seeds = seeds_of(ablation)
    scores: dict[Case, dict[int, float]] = {}
    lines = []
    for seed in seeds:
        for epochs in (SHORT, LONG):
            score = miou_percent(teacher_folder(epochs, ablation, runs, seed))
            if score is not None:
                lines.append([seed, "teacher", epochs, "", "", round(score, 3)])
        for case in CASES:
            score = miou_percent(case.folder(ablation, runs, seed))
            if score is not None:
                scores.setdefault(case, {})[seed] = score
                teaching = (case.teacher_epochs or "", case.weight or "")
                lines.append([seed, "student", case.epochs, *teaching, round(score, 3)])
    with (out / "distillation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["seed", "network", "epochs", "teacher_epochs", "divergence_weight", "miou_percent"]
        )
        writer.writerows(lines)
    for case, found in scores.items():
        values = np.array(list(found.values()))
        print(f"{case}: {len(values)} seeds, mean {values.mean():.2f}")
    gains = {case: _gains(case, scores) for case in TAUGHT if case in scores}
    for case, by_seed in gains.items():
        values = np.array(list(by_seed.values()))
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else 0
        mean = values.mean()
        print(
            f"{case}: gain {mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}); "
            + ", ".join(f"{value:+.2f}" for value in values)
        )
    _draw(gains, out / "distillation.png")


def _gains(case: Case, scores: dict[Case, dict[int, float]]) -> dict[int, float]:
    """Seed -> percentage points above the same student, trained alone for as long."""
    alone = scores[Case(case.epochs)]
    return {seed: score - alone[seed] for seed, score in scores[case].items() if seed in alone}


def _draw(gains: dict[Case, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = figure.subplots()
    figure.suptitle(
        "What a teacher adds to the student's mIoU, each seed a dot", x=0.01, ha="left", fontsize=11
    )
    places = list(dict.fromkeys((case.epochs, case.teacher_epochs) for case in gains))
    for weight, colour in COLOURS.items():
        for case, by_seed in gains.items():
            if case.weight != weight:
                continue
            x = places.index((case.epochs, case.teacher_epochs)) + 0.12 * (1 - 2 * (weight < 1))
            values = list(by_seed.values())
            label = f"divergence counts {weight:g}" if x < 0.5 else None
            axes.plot([x] * len(values), values, "o", color=colour, alpha=0.55, markersize=5)
            axes.plot(
                [x - 0.08, x + 0.08], [np.mean(values)] * 2, color=colour, lw=2.5, label=label
            )
    axes.axhline(0, color="#22272e", lw=1)
    axes.set_xticks(
        range(len(places)),
        [f"student {epochs} epochs,\nteacher {teacher}" for epochs, teacher in places],
    )
    axes.set_ylabel("percentage points of mIoU")
    axes.grid(axis="y", color="#e5e7eb", lw=0.6)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Parse the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["train", "summarise"])
    parser.add_argument("ablation", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--part", default="0/1")
    options = parser.parse_args()
    if options.command == "train":
        index, count = options.part.split("/")
        train(options.ablation, options.runs, (int(index), int(count)))
    elif options.out is None:
        parser.error("summarise needs OUT")
    else:
        summarise(options.ablation, options.runs, options.out)


if __name__ == "__main__":
    main()
