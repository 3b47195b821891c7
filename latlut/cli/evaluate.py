"""``latlut evaluate``: the score of a trained network on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from latlut.cli.commands import Command
from latlut.cli.options import compute_options, set_threads, view_options
from latlut.cli.output import json_option, print_json, print_table, quiet_option, remark
from latlut.cli.progress import progress_bar
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from torch import Tensor

    from latlut.search.data.classes import Classes
    from latlut.search.data.dataset import SegmentationData, Split
    from latlut.search.train.evaluating import PredictionListener


@click.command(cls=Command, shows_progress=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data", "data_name", metavar="NAME|PATH", help="Data set.", show_default="the training's"
)
@click.option(
    "--split", default="val", show_default=True, type=click.Choice(["train", "val", "test"]),
    help="Split of the data set.",
)  # fmt: skip
@view_options
@click.option("--limit", type=click.IntRange(min=1), help="Number of images.")
@click.option(
    "--predictions", type=click.Path(path_type=Path, file_okay=False),
    help="Write predictions as colours into this folder.",
)  # fmt: skip
@click.option(
    "--label-ids", type=click.Path(path_type=Path, file_okay=False),
    help="Write predictions as class numbers into this folder (Cityscapes: its label ids, named as "
    "its server expects).",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, show_default=True,
    help="Number of processes that load images.",
)  # fmt: skip
@compute_options
@quiet_option
@json_option
def evaluate(
    run: Path, data_name: str | None, split: str, window: tuple[int, int] | None,
    image_scale: float | None, limit: int | None, predictions: Path | None,
    label_ids: Path | None, workers: int, precision: str, accelerator: str, threads: int | None,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate a trained network: mIoU over whole images at full resolution, class by class.

    RUN is the folder of a training, or its folder last. One scale, no flip. Images without labels,
    such as Cityscapes' test split, get no score, but their predictions can be written.

    \b
    latlut evaluate runs/train
    latlut evaluate runs/train --split test --label-ids submission
    latlut evaluate runs/train --data cityscapes:FOLDER --window 512x1024 --predictions colours
    """
    import math
    import time

    from latlut.progress import Progress
    from latlut.search.networks.model_files import check_same_classes, load_model
    from latlut.search.runs.processes import launched, refuse_several
    from latlut.search.train.evaluating import evaluate as score_of

    refuse_several("latlut evaluate")
    network, facts = load_model(run)
    data = _data(run, data_name)
    check_same_classes(facts, data.classes, f"the network {run}")
    part = data.splits.get(split)
    if part is None:
        raise LatlutError(
            f"{data.name} has no {split} split with masks; it has {', '.join(data.splits)}. Images "
            "without masks can be predicted: latlut predict-image RUN FOLDER --form label-ids"
        )
    set_threads(threads)
    fabric = launched(accelerator, 1, precision)
    fabric.to_device(network)
    scale = facts.image_scale if image_scale is None else image_scale
    listener = _writer(part, facts.classes, predictions, label_ids)
    started = time.monotonic()
    count = len(part) if limit is None else min(limit, len(part))
    with progress_bar("evaluate", quiet) as moved:

        def on_prediction(number: int, predicted: Tensor) -> None:
            if listener is not None:
                listener(number, predicted)
            moved(Progress(number + 1, count, 0, "", None))

        score = score_of(
            network, part, data.classes, fabric=fabric, image_scale=scale, window=window,
            limit=limit, workers=workers, on_prediction=on_prediction,
        )  # fmt: skip
    seconds = time.monotonic() - started
    for folder in filter(None, (predictions, label_ids)):
        remark(f"{count} predictions written into {folder}", quiet)
    if as_json:
        print_json(
            {
                "run": str(run),
                "data": data.name,
                "split": split,
                "images": count,
                "image_scale": scale,
                "window": window,
                "mean_iou": score.mean_iou,
                "pixel_accuracy": score.pixel_accuracy,
                "labelled_pixels": score.labelled_pixels,
                "class_iou": dict(zip(data.classes.names, score.class_iou, strict=True)),
                "seconds": seconds,
            }
        )
        return
    if math.isnan(score.mean_iou):
        click.echo(f"{data.name}, {split}: {count} images, no labelled pixel, so no score")
        return
    print_table(
        ["class", "IoU, %"],
        [
            [name, 100 * value]
            for name, value in zip(data.classes.names, score.class_iou, strict=True)
        ],
    )
    how = "whole images" if window is None else f"windows of {window[0]}x{window[1]}"
    click.echo(
        f"\n{100 * score.mean_iou:.4g}% mIoU, {100 * score.pixel_accuracy:.4g}% of the pixels "
        f"right: {count} images of {data.name}, {split}; {how}, scaled by {scale:g}, one scale, "
        f"no flip; {seconds:.0f} s"
    )


def _data(run: Path, name: str | None) -> SegmentationData:
    """The data set that is named, else that of the training."""
    from latlut.search.data.opening import STREET_SCENES, open_data
    from latlut.search.runs.folder import SETTINGS, read_json
    from latlut.search.runs.setting_files import validated
    from latlut.search.train.data import open_train_data
    from latlut.search.train.settings import TrainSettings

    folder = run if run.is_dir() else run.parent  # a file of the model is named too
    path = next((f / SETTINGS for f in (folder, folder.parent) if (f / SETTINGS).is_file()), None)
    if path is None:
        if name is None:
            raise LatlutError(f"{run} does not say what it was trained on: name it with --data")
        return open_data(name)
    settings = validated(TrainSettings, read_json(path), str(path))
    if name is None or name == settings.data.name == STREET_SCENES:
        return open_train_data(settings.data)
    return open_data(name)


def _writer(
    split: Split, classes: Classes, colours: Path | None, label_ids: Path | None
) -> PredictionListener | None:
    """What writes an image's prediction into folders; None where there is nowhere to write."""
    from latlut.files.writing import written_whole
    from latlut.search.deploy.predicting import drawn, prediction_names

    places: list[tuple[Literal["colour", "label-ids"], Path | None, str]] = [
        ("colour", colours, ""), ("label-ids", label_ids, "_pred_labelIds")
    ]  # fmt: skip
    if not (colours or label_ids):
        return None
    names = prediction_names(split)

    def write(number: int, predicted: Tensor) -> None:
        labels = predicted.byte().cpu().numpy()
        for form, folder, ending in places:
            if folder is None:
                continue
            path = folder / f"{names[number]}{ending}.png"
            with written_whole(path) as temporary:
                drawn(labels, classes, form).save(temporary)

    return write
