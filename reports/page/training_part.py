"""What a page shows of a training: its course, the classes' scores, and predictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latlut.reports.page import charts
from latlut.reports.page.csv_files import number_in, read_rows
from latlut.reports.page.parts import Block, Chart, Facts, Picture, Section, Text
from latlut.reports.page.pictures import picture_uri
from latlut.search.runs.folder import RESULT, RUN, SETTINGS, read_json

EPOCHS = "epochs.csv"
#: Folders beside the network in which predictions are looked for, and how many are shown.
PREDICTIONS = ("predictions", "prediction")
MOST_PREDICTIONS = 6
_LOSSES = ("loss", "main_loss", "auxiliary_loss", "distillation_loss")
_SCORES = ("mean_iou", "pixel_accuracy")


def is_training(folder: Path) -> bool:
    """Whether a folder is of a training."""
    return (folder / EPOCHS).is_file() and (folder / SETTINGS).is_file()


def training_section(folder: Path) -> Section:
    """All that a page shows of a training, also of one that is under way.

    Raises:
        LatlutError: its files cannot be read.
    """
    return Section(folder.name, str(folder), "training", tuple(_blocks(folder)))


def _blocks(folder: Path) -> Iterator[Block]:
    run = read_json(folder / RUN)
    result = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    facts: dict[str, object] = {"data": run.get("data"), "started": run.get("started_at")}
    facts |= {f"{name} images": n for name, n in (run.get("images") or {}).items()}
    if result is None:
        yield Text("The training has not finished.", "caution")
    else:
        facts |= {
            "best mean IoU, %": _percent(result.get("best_mean_iou")),
            "pixels right, %": _percent(result.get("best_pixel_accuracy")),
            "best epoch": result.get("best_epoch"),
            "epochs": result.get("epochs"),
        }
    yield Facts({name: value for name, value in facts.items() if value is not None})
    rows = read_rows(folder / EPOCHS, "list of a training's epochs")
    for names, title, axis in (
        (_LOSSES, "Loss", "loss"),
        (_SCORES, "Scores on validation images", "fraction"),
    ):
        if series := _series(rows, names):
            yield Chart(title.split()[0].lower(), title, charts.lines(series, axis))
    iou = (result or {}).get("best_class_iou") or {}
    judged = [{"name": name, "value": 100 * value} for name, value in iou.items()
              if isinstance(value, float | int)]  # fmt: skip
    if judged:
        absent = [name for name, value in iou.items() if value is None]
        note = f"nowhere in the validation images: {', '.join(absent)}" if absent else ""
        yield Chart("classes", "IoU by class", charts.bars(judged, "IoU, %"), note)
    for path in _predictions(folder):
        yield Picture(f"Prediction: {path.stem}", picture_uri(path))


def _predictions(folder: Path) -> list[Path]:
    found = [
        path
        for name in PREDICTIONS
        if (folder / name).is_dir()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.is_file()
    ]
    return found[:MOST_PREDICTIONS]


def _series(rows: list[dict[str, str]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"series": name.replace("_iou", "_IoU").replace("_", " "), "epoch": epoch, "value": value}
        for name in names
        for row in rows
        if (value := number_in(row.get(name))) is not None
        and (epoch := number_in(row.get("epoch"))) is not None
    ]


def _percent(value: object) -> float | None:
    return 100 * value if isinstance(value, float | int) else None
