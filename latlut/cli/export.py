"""``latlut export``: a network as a file that runs without latlut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import FractionType, precision_option
from latlut.cli.commands import Command
from latlut.cli.names import NETWORK, TARGET
from latlut.cli.options import batch_option, classes_option, input_option
from latlut.cli.output import json_option, note, print_json, quiet_option, remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.search.deploy.export import ExportedFile, ExportSettings
    from latlut.search.networks.deployable import Deployable

#: File endings of the format that only an engine with a GPU can write.
PLAN_ENDINGS = (".plan", ".engine")


@click.command(cls=Command)
@click.argument("network", type=NETWORK, metavar="RUN|ARCH|BASELINE")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="File to write; its ending must fit the format.",
)  # fmt: skip
@click.option(
    "--format", "file_format", default="onnx", show_default=True,
    type=click.Choice(["onnx", "openvino", "torchscript", "exported-program", "tensorrt"]),
    help="Format; tensorrt needs TensorRT and the GPU that the plan is for.",
)  # fmt: skip
@input_option(show_default="a run's own; else 1024x2048")
@batch_option(default=1, show_default=True)
@click.option("--dynamic-batch", is_flag=True, help="Leave the number of images open.")
@click.option(
    "--opset", type=click.IntRange(11, 20), default=17, show_default=True, help="ONNX opset."
)
@click.option(
    "--upsample/--no-upsample", "has_upsample", default=True, show_default=True,
    help="Enlarge the output to the image's size.",
)  # fmt: skip
@click.option("--argmax", "has_argmax", is_flag=True, help="Output the best class, not the logits.")
@classes_option
@click.option(
    "--tolerance", type=FractionType(), default=1e-3, show_default=True,
    help="Largest accepted difference from PyTorch, relative to the largest logit.",
)  # fmt: skip
@click.option(
    "--equal-share", type=FractionType(), default=0.999, show_default=True,
    help="Smallest accepted share of pixels with PyTorch's class, with --argmax.",
)  # fmt: skip
@click.option("--engine", type=click.Choice(["tensorrt", "tensorrt-rtx"]), default="tensorrt",
              show_default=True, help="Engine that builds a tensorrt plan.")  # fmt: skip
@click.option(
    "--gpu", type=TARGET, metavar="NAME|FILE", show_default="the first",
    help="GPU that a tensorrt plan is for.",
)  # fmt: skip
@precision_option("Number format of a tensorrt plan.")
@quiet_option
@json_option
def export(
    network: str, out: Path, file_format: str, input_size: tuple[int, int] | None, batch: int,
    dynamic_batch: bool, opset: int, has_upsample: bool, has_argmax: bool,
    num_classes: int | None, tolerance: float, equal_share: float, engine: str, gpu: str | None,
    precision: str, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write a network to a file that runs without latlut.

    RUN is the folder of a training, ARCH an architecture's JSON file or a shipped name, BASELINE a
    hand-designed network; the last two have random weights, which serve for measuring only. The
    file is loaded again and compared with PyTorch; if it differs, it is not written.

    \b
    latlut export runs/student -o student.onnx
    latlut export runs/student -o student.xml --format openvino --argmax
    latlut export fasterseg-student -o student.onnx --input 512x1024 --dynamic-batch
    latlut export runs/student -o student.plan --format tensorrt --precision fp16
    """
    from latlut.search.deploy.export import ExportSettings
    from latlut.search.deploy.export import export as write
    from latlut.search.networks.deployable import DEFAULT_SIZE
    from latlut.search.networks.finding import find_network

    _refuse_other_ending(out, file_format)
    found = find_network(network, num_classes)
    settings = ExportSettings(
        input_size=input_size or found.input_size or DEFAULT_SIZE,
        batch=batch,
        is_batch_dynamic=dynamic_batch,
        opset=opset,
        has_upsample=has_upsample,
        has_argmax=has_argmax,
        tolerance=tolerance,
        equal_share=equal_share,
    )
    if found.kind != "trained":
        remark(f"{found.name} is not trained: the file has random weights", quiet)
    if file_format == "tensorrt":
        written = export_plan(found, out, settings, engine, gpu, precision)
    else:
        _refuse_engine_options(file_format)
        written = write(found, out, file_format, settings)
    if as_json:
        print_json(as_dict(written))
        return
    shown = [" x ".join(map(str, s)) for s in (written.input_shape, written.output_shape)]
    click.echo(
        f"{written.path}: {file_format}, {written.size_bytes / 1e6:.2f} MB, "
        f"{shown[0]} to {shown[1]}"
    )
    for path in written.neighbours:
        note(f"  with {path}")
    batches = " and ".join(map(str, written.comparison.batches))
    note(f"  {written.comparison.describe()} (loaded again, batch {batches})")


def _refuse_other_ending(path: Path, file_format: str) -> None:
    """Refuse, with LatlutError, a file that ends as those of another format; names the format."""
    from latlut.search.deploy.export_formats import FORMATS

    endings = {name: item.endings for name, item in FORMATS.items()} | {"tensorrt": PLAN_ENDINGS}
    ending, own = path.suffix.lower(), endings[file_format]
    for name, others in endings.items():
        if ending in others and ending not in own:
            raise LatlutError(
                f"{path}: a file of format {file_format} ends in {' or '.join(own)}; "
                f"for a file that ends in {ending} add --format {name}"
            )


def export_plan(
    network: Deployable,
    path: Path,
    settings: ExportSettings,
    engine_name: str,
    gpu: str | None,
    precision: str,
) -> ExportedFile:
    """A TensorRT plan, compared with PyTorch on the GPU.

    Raises:
        EngineError: TensorRT or a GPU is not here; says why and how to get it.
        LatlutError: an open batch, or another ending than a plan's.
    """
    from typing import cast

    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.engines.tensorrt.engine import TensorRtEngine
    from latlut.engines.tensorrt.plan_file import write_plan
    from latlut.measure.held_device import measuring_on
    from latlut.search.deploy.export import Comparison, ExportedFile, check_ending

    check_ending(path, "tensorrt", PLAN_ENDINGS)
    if settings.is_batch_dynamic:
        raise LatlutError("a TensorRT plan has a fixed batch: leave --dynamic-batch out")
    # A plan for other programs must not expect them to bring its memory, as a captured one does.
    options = (("cuda_graph", "off"),)
    _, chosen = choose_engine(DeviceChoice(gpu, False, engine_name, precision, 1, options))
    module = network.module(settings.input_size, settings.has_upsample, settings.has_argmax)
    with measuring_on(chosen):
        difference, shape = write_plan(
            cast(TensorRtEngine, chosen), module, settings.input_shape, path
        )
    is_map = settings.has_argmax
    comparison = Comparison(
        None if is_map else difference, 1 - difference if is_map else None, (settings.batch,)
    )
    return ExportedFile(path, (), "tensorrt", settings.input_shape, shape, comparison)


def _refuse_engine_options(file_format: str) -> None:
    """Options of a plan that another format would pass over in silence."""
    from latlut.cli.choices import is_left_open

    for name in ("engine", "gpu", "precision"):
        if not is_left_open(name):
            raise LatlutError(
                f"--{name} is for --format tensorrt: a file of format {file_format} is float32 "
                "and for any device"
            )


def as_dict(written: ExportedFile) -> dict[str, object]:
    """JSON-able."""
    comparison = written.comparison
    return {
        "path": str(written.path),
        "neighbours": [str(path) for path in written.neighbours],
        "format": written.file_format,
        "size_bytes": written.size_bytes,
        "input_shape": written.input_shape,
        "output_shape": written.output_shape,
        "max_relative_difference": comparison.max_relative_difference,
        "equal_pixels": comparison.equal_pixels,
        "batches_compared": comparison.batches,
    }
