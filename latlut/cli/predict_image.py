"""``latlut predict-image``: a trained network on an image, a video, or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from latlut.cli.commands import Command
from latlut.cli.options import compute_options, set_threads, view_options
from latlut.cli.output import json_option, print_json, quiet_option, remark
from latlut.cli.progress import progress_bar


@click.command(name="predict-image", cls=Command, shows_progress=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("predictions"), show_default=True,
    help="Folder to write into; for a single image or video also a file, e.g. out.png or out.mp4.",
)  # fmt: skip
@click.option(
    "--form", type=click.Choice(["overlay", "colour", "label-ids"]), default="overlay",
    show_default=True,
    help="Colours over the image, colours alone, or class numbers (Cityscapes: its label ids).",
)  # fmt: skip
@click.option(
    "--opacity", type=click.FloatRange(0, 1), default=0.5, show_default=True,
    help="Opacity of the overlay.",
)  # fmt: skip
@view_options
@click.option("--corrupt", type=click.Choice(["fatal", "skip"]), default="fatal",
              show_default=True, help="What to do with files that cannot be read.")  # fmt: skip
@compute_options
@quiet_option
@json_option
def predict_image(
    run: Path, source: Path, out: Path, form: Any, opacity: float,
    window: tuple[int, int] | None, image_scale: float | None, corrupt: Any, precision: str,
    accelerator: str, threads: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw what a trained network predicts for an image, a video, or a folder of them.

    RUN is the folder of a training. Videos (.mp4, .mov, .avi, .mkv, .webm and more) become .mp4
    without sound, frame by frame; they need pip install "latlut[video]".
    Animated GIF, WebP and PNG files keep their format.

    \b
    latlut predict-image runs/train street.jpg --out street-classes.png
    latlut predict-image runs/train drive.mp4 --out drive-classes.mp4
    latlut predict-image runs/train photos --out predictions --form colour
    """
    from latlut.search.deploy.predicting import Predictor
    from latlut.search.deploy.prediction_files import predict_files, tasks_of
    from latlut.search.networks.model_files import load_model
    from latlut.search.runs.processes import launched, refuse_several

    refuse_several("latlut predict-image")
    tasks = tasks_of(source, out, form)
    network, facts = load_model(run)
    set_threads(threads)
    fabric = launched(accelerator, 1, precision)
    fabric.to_device(network)
    predictor = Predictor(
        network, facts.classes, fabric, facts.image_scale if image_scale is None else image_scale,
        window, form, opacity,
    )  # fmt: skip
    written, skipped = [], []

    def bar(name: str) -> Any:
        return progress_bar(name, quiet)

    def tell(text: str) -> None:
        remark(text, quiet)

    for task, problem in predict_files(predictor, tasks, corrupt, bar, tell):
        if problem is None:
            written.append(str(task.target))
        else:
            skipped.append(problem)
            remark(f"left out: {problem}", quiet)
    if as_json:
        print_json({"written": written, "left_out": skipped})
        return
    for path in written[:1] if len(written) == 1 else []:
        click.echo(path)
    if len(written) != 1:
        click.echo(f"{len(written)} predictions in {out}")
