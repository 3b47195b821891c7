"""Does a teacher help a student? The study in docs/results/ablation: what made its data and figure.

    study_distillation.py train ABLATION RUNS [--part 0/2] [--short] [--set NAME=VALUE ...]
    study_distillation.py summarise ABLATION RUNS OUT

``ABLATION`` is a finished folder of ``latlut ablate``. Its searched student is trained alone and
with a teacher, for as long as there (``SHORT`` epochs), for ``LONG``, and on ``FEW`` images for as
many steps as there; the teacher was trained like it, or for ``LONG``; the divergence from it counts
1, or 0.05: it is summed over classes, and the FasterSeg authors' code, which averages over its 19
classes, weighs it like that.
Folders ``ABLATION/seed-N/search-full`` of ``latlut search`` will do: all else is trained then.
``--short`` leaves out all but the ``SHORT`` trainings; ``--set`` goes to ``latlut train``.
``train`` runs what is missing, ``summarise`` writes one CSV line for each training, with what it
answers on images that it was trained on and on others, and a figure of the gains against the
teacher's lead; it prints means, and gains and leads paired by seed.
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
import torch
from scipy import stats

from latlut.search.data.augment import whole
from latlut.search.data.classes import IGNORE
from latlut.search.data.dataset import Split
from latlut.search.networks.model_files import load_model
from latlut.search.runs.settings import DataSettings
from latlut.search.train.data import open_train_data
from latlut.search.train.evaluating import full_logits

SHORT, LONG = 12, 36
ALL, FEW = 256, 16
FEW_EPOCHS = SHORT * ALL // FEW
WEIGHTS = (1.0, 0.05)
COLOURS = {1.0: "#d97706", 0.05: "#2563a8"}


@dataclass(frozen=True)
class Training:
    """Of the teacher (``student`` False) or the student: epochs, images, who taught it."""

    student: bool
    epochs: int
    images: int = ALL
    teacher_epochs: int | None = None
    weight: float = 0.0

    @property
    def alone(self) -> Training:
        """The same without a teacher."""
        return Training(self.student, self.epochs, self.images)

    @property
    def teacher(self) -> Training | None:
        """Who teaches it: trained on the same images."""
        if self.teacher_epochs is None:
            return None
        return Training(False, self.teacher_epochs, self.images)

    def folder(self, ablation: Path, runs: Path, seed: int) -> Path:
        """Where its run lies; the ablation has three of them."""
        if self in IN_ABLATION:
            return ablation / f"seed-{seed}" / IN_ABLATION[self]
        name = f"{'student' if self.student else 'teacher'}-{self.epochs}"
        if self.images != ALL:
            name += f"-images-{self.images}"
        if self.student:
            taught = f"-by-{self.teacher_epochs}-weight-{self.weight:g}"
            name += "-alone" if self.teacher_epochs is None else taught
        return runs / f"{name}-seed-{seed}"

    @property
    def label(self) -> str:
        """For people."""
        few = "" if self.images == ALL else f" of {self.images} images"
        return f"student {self.epochs} epochs{few}, teacher {self.teacher_epochs}"


IN_ABLATION = {
    Training(True, SHORT): "student",
    Training(True, SHORT, ALL, SHORT, 1.0): "distilled",
    Training(False, SHORT): "teacher",
}
TAUGHT = tuple(
    Training(True, epochs, images, teacher, weight)
    for epochs, images, teacher in (
        (SHORT, ALL, SHORT),
        (SHORT, ALL, LONG),
        (LONG, ALL, LONG),
        (FEW_EPOCHS, FEW, FEW_EPOCHS),
    )
    for weight in WEIGHTS
)
#: Teachers before those whom they teach.
TRAININGS = tuple(
    dict.fromkeys(
        training
        for taught in TAUGHT
        for training in (taught.teacher, taught.alone, taught)
        if training is not None
    )
)


def seeds_of(ablation: Path) -> list[int]:
    """Seeds of the ablation."""
    return sorted(int(folder.name.removeprefix("seed-")) for folder in ablation.glob("seed-*"))


def miou_percent(folder: Path) -> float | None:
    """Of the last epoch; None where the run is not finished."""
    path = folder / "result.json"
    return 100 * json.loads(path.read_text())["last_mean_iou"] if path.exists() else None


def train(
    ablation: Path, runs: Path, part: tuple[int, int], is_short: bool, more: list[str]
) -> None:
    """Train what is missing of this part's seeds, one run after another."""
    wanted = [t for t in TRAININGS if not is_short or {t.epochs, t.teacher_epochs} <= {SHORT, None}]
    for seed in seeds_of(ablation)[part[0] :: part[1]]:
        for training in wanted:
            folder = training.folder(ablation, runs, seed)
            if miou_percent(folder) is not None:
                continue
            found = ablation / f"seed-{seed}" / "search-full"
            architecture = found / ("student.json" if training.student else "teacher.json")
            teacher = training.teacher
            taught_by = "none" if teacher is None else str(teacher.folder(ablation, runs, seed))
            settings = [
                f"schedule.epochs={training.epochs}",
                f"schedule.evaluate_every={max(1, training.epochs // 4)}",
                f"data.train_images={training.images}",
                *([f"loss.distillation={training.weight}"] if teacher else []),
                *more,
            ]
            command = [
                sys.executable, "-m", "latlut", "train", "--arch", str(architecture),
                "--teacher", taught_by, "--run", str(folder), "--seed", str(seed),
                "--threads", "1", "--accelerator", "cpu",
                *(word for setting in settings for word in ("--set", setting)),
            ]  # fmt: skip
            subprocess.run(command, check=True)


@torch.inference_mode()
def answers(network: torch.nn.Module, split: Split, count: int) -> tuple[float, float, float]:
    """Pixels that a network labels right, %; its cross entropy; its entropy; both in nats."""
    right = pixels = 0
    cross_entropy = entropy = 0.0
    for index in range(count):
        image, label = whole(split[index])
        is_valid = label != IGNORE
        logs = full_logits(network, image[None])[0].log_softmax(0)[:, is_valid]
        labels = label[is_valid]
        pixels += int(is_valid.sum())
        right += int((logs.argmax(0) == labels).sum())
        cross_entropy -= float(logs.gather(0, labels[None]).sum())
        entropy -= float((logs.exp() * logs).sum())
    return 100 * right / pixels, cross_entropy / pixels, entropy / pixels


def summarise(ablation: Path, runs: Path, out: Path) -> None:
    """CSV of all finished trainings, gains and leads paired by seed, and the figure."""
    scores: dict[Training, dict[int, float]] = {}
    seen: dict[Training, list[list[float]]] = {}
    lines = []
    for seed in seeds_of(ablation):
        for training in TRAININGS:
            folder = training.folder(ablation, runs, seed)
            score = miou_percent(folder)
            if score is None:
                continue
            scores.setdefault(training, {})[seed] = score
            network, facts = load_model(folder)
            height, width = facts.input_size
            data = open_train_data(
                DataSettings(image_size=(height, width), train_images=training.images)
            )
            found = [
                round(value, 4)
                for split in (data.train, data.val)
                for value in answers(network, split, min(len(split), len(data.val)))
            ]
            seen.setdefault(training, []).append(found)
            who = "student" if training.student else "teacher"
            taught = (training.teacher_epochs or "", training.weight or "")
            lines.append(
                [seed, who, training.images, training.epochs, *taught, round(score, 3), *found]
            )
    with (out / "distillation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        answered = [
            f"{part}_{name}"
            for part in ("train", "val")
            for name in ("right_percent", "cross_entropy", "entropy")
        ]
        how = ["images", "epochs", "teacher_epochs", "divergence_weight", "miou_percent"]
        writer.writerow(["seed", "network", *how, *answered])
        writer.writerows(lines)
    for training, by_seed in scores.items():
        values = np.array(list(by_seed.values()))
        means = " ".join(f"{value:.3f}" for value in np.mean(seen[training], axis=0))
        print(f"{training}: {len(values)} seeds, mIoU {values.mean():.2f}; {means}")
    for taught in TAUGHT:
        alone, of_teacher, of_taught = _compared(taught, scores)
        if len(alone) < 2:
            continue
        leads, gains = of_teacher - alone, of_taught - alone
        half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
        mean = gains.mean()
        print(
            f"{taught.label}, {taught.weight:g}: gain {mean:+.2f} ({mean - half:+.2f} to "
            f"{mean + half:+.2f}) = {_listed(gains)}; lead {leads.mean():+.2f} = {_listed(leads)}"
        )
    for weight in WEIGHTS:
        _print_shares(weight, scores)
    _draw(scores, out / "distillation.png")


def _compared(taught: Training, scores: dict[Training, dict[int, float]]) -> np.ndarray:
    """(3, seeds) mIoU in %: the student alone, its teacher, the student that it taught.

    Of the seeds that have all three.
    """
    assert taught.teacher is not None
    found = [scores.get(training, {}) for training in (taught.alone, taught.teacher, taught)]
    seeds = sorted(set(found[0]).intersection(*found[1:]))
    return np.array([[by_seed[seed] for seed in seeds] for by_seed in found])


def _print_shares(weight: float, scores: dict[Training, dict[int, float]]) -> None:
    """Fit taught = a alone + t teacher + a constant for each length, both trained as long.

    Gain and lead subtract the same student's score, whose chance alone would make them go
    together; with that score beside it, t is what the teacher's own is worth.
    """
    groups = [
        _compared(taught, scores)
        for taught in TAUGHT
        if taught.weight == weight and taught.epochs == taught.teacher_epochs
    ]
    centred = np.hstack(
        [group - group.mean(axis=1, keepdims=True) for group in groups if group.size]
    )
    x, y = centred[:2].T, centred[2]
    freedom = len(y) - sum(group.size > 0 for group in groups) - 2
    if freedom < 1:
        return
    shares = np.linalg.lstsq(x, y, rcond=None)[0]
    variance = ((y - x @ shares) ** 2).sum() / freedom
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x)))
    for name, share, by in zip(("alone", "teacher"), shares, half, strict=True):
        print(f"divergence counts {weight:g}: share of {name} {share:.2f} ± {by:.2f}")


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)


def _draw(scores: dict[Training, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    figure.suptitle(
        "What the student gains, against how far its teacher is ahead", x=0.01, ha="left",
        fontsize=11,
    )  # fmt: skip
    markers = dict(zip(dict.fromkeys(taught.label for taught in TAUGHT), "o^sD", strict=True))
    for taught in TAUGHT:
        alone, of_teacher, of_taught = _compared(taught, scores)
        is_first = taught.weight == WEIGHTS[0]
        axes.plot(
            of_teacher - alone, of_taught - alone, markers[taught.label],
            color=COLOURS[taught.weight], alpha=0.75, markersize=6,
            label=taught.label if is_first else None,
        )  # fmt: skip
    for weight, colour in COLOURS.items():
        axes.plot([], [], "-", color=colour, lw=3, label=f"divergence counts {weight:g}")
    axes.axhline(0, color="#22272e", lw=1)
    axes.axvline(0, color="#22272e", lw=1)
    axes.set_xlabel("mIoU of the teacher above that of the student alone, percentage points")
    axes.set_ylabel("mIoU by teaching, percentage points")
    axes.grid(color="#e5e7eb", lw=0.6)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Parse the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["train", "summarise"])
    parser.add_argument("ablation", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    if options.command == "train":
        index, count = options.part.split("/")
        part = int(index), int(count)
        train(options.ablation, options.runs, part, options.short, options.set)
    elif options.out is None:
        parser.error("summarise needs OUT")
    else:
        summarise(options.ablation, options.runs, options.out)


if __name__ == "__main__":
    main()
