"""Options that several commands have, each defined once, and the types of their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from latlut.cli.choices import DurationType, SizeType
from latlut.cli.names import PLAN, TABLE, NameType

Command = TypeVar("Command", bound=Callable[..., Any])


class SettingType(click.ParamType[tuple[str, Any]]):
    """GROUP.NAME=VALUE, the value as in TOML."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """(dotted name, value)."""
        from latlut.errors import ImportFileError
        from latlut.files.toml_files import parse_toml

        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=VALUE: data.workers=2", param, ctx)
        try:
            return name, parse_toml(f"value = {text}", name)["value"]
        except ImportFileError:
            return name, text


class ShapeType(click.ParamType[tuple[str, tuple[int, ...]]]):
    """NAME:1x3x640x640, or the shape alone."""

    name = "[NAME:]SHAPE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, tuple[int, ...]]:
        """(input's name or "", its shape)."""
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).rpartition(":")
        words = [] if text in ("scalar", "") else text.replace(",", "x").lower().split("x")
        if not text or not all(word.isdecimal() and int(word) > 0 for word in words):
            self.fail(
                f"{value!r} is no shape: image:1x3x640x640, 1x3x640x640, or x:scalar", param, ctx
            )
        return name, tuple(map(int, words))


class NumbersType(click.ParamType[tuple[int, ...]]):
    """Whole numbers, separated by commas.

    Args:
        name: in the command's help.
        wanted: what a value that is none should have named, with an example.
        is_right: whether a number is one that can be named.
    """

    def __init__(
        self, name: str, wanted: str, is_right: Callable[[int], bool] = lambda number: True
    ) -> None:
        self.name, self._wanted, self._is_right = name, wanted, is_right

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers, in their order."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(map(self._is_right, numbers)):
            self.fail(f"{value!r} names no {self._wanted}", param, ctx)
        return numbers


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help."""

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def table_option(text: str = "Latency table.") -> Callable[[Command], Command]:
    """--table, which has to be named."""
    return click.option("--table", "table_name", type=TABLE, required=True, help=text)


def plan_option(
    text: str, default_text: str = "the table's latest"
) -> Callable[[Command], Command]:
    """--plan: which op specs, and by them the search space."""
    return click.option("--plan", type=PLAN, help=text, show_default=default_text)


def input_option(text: str = "Image size.", **more: Any) -> Callable[[Command], Command]:
    """--input: height and width of the image in pixels."""
    return click.option("--input", "input_size", type=SizeType(), help=text, **more)


def batch_option(text: str = "Images per inference.", **more: Any) -> Callable[[Command], Command]:
    """--batch: images per inference."""
    return click.option("--batch", type=click.IntRange(1, 4096), help=text, **more)


def op_option(text: str) -> Callable[[Command], Command]:
    """--op: operator configurations, one by one."""
    return click.option(
        "--op", "ops", multiple=True, metavar="OPERATOR",
        help=f'{text}, e.g. "conv 64->96 stride 1 at 128x256"; may be repeated.',
    )  # fmt: skip


#: --batch of a plan: everything at each of them.
batches_option = click.option(
    "--batch", "batches",
    type=NumbersType("N,N,...", "batches: 1 or 1,4,16", lambda number: 1 <= number <= 4096),
    help="Images per inference; several, 1,4,16: measure everything at each.",
    show_default="the plan's; else 1",
)  # fmt: skip

#: --cut of ONNX files.
cut_option = click.option(
    "--cut", type=click.Choice(("work", "layers")), show_default="the table's; else work",
    help="How ONNX files are cut into pieces: work: each convolution or matrix product with its "
    "element-wise tail; layers: what the engine runs as one layer.",
)  # fmt: skip


shape_option = click.option(
    "--shape", "shapes", type=ShapeType(), multiple=True,
    help="Shape of an input of the file, e.g. image:1x3x640x640; may be repeated.",
)  # fmt: skip


class NewFile(click.Path):
    """A file to write, whose ending and folder are checked before any work is done.

    Args:
        is_picture: has the ending of one; else that of CSV.
        makes_folder: its folder is made if need be.
    """

    def __init__(self, *, is_picture: bool = False, makes_folder: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=False)
        self._is_picture, self._makes_folder = is_picture, makes_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; a WriteError names what is wrong with it."""
        from latlut.files.writing import check_writable
        from latlut.reports.style import SUFFIXES

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        endings = SUFFIXES if self._is_picture else (".csv",)
        check_writable(path, *endings, makes_folder=self._makes_folder)
        return path


def plot_option(text: str, default_text: str | None = None) -> Callable[[Command], Command]:
    """--plot: a picture of the result."""
    return click.option(
        "--plot", "plot_path", type=NewFile(is_picture=True), metavar="FILE",
        show_default=default_text,
        help=f"{text}: .png, .svg or .pdf.",
    )  # fmt: skip


def csv_option(text: str) -> Callable[[Command], Command]:
    """--csv: the rows of the result."""
    return click.option(
        "--csv", "csv_path", type=NewFile(makes_folder=True), metavar="FILE", help=text
    )


def seed_option(text: str = "Random seed.", **more: Any) -> Callable[[Command], Command]:
    """--seed."""
    return click.option("--seed", type=click.IntRange(min=0), help=text, **more)


wait_option = click.option(
    "--wait", is_flag=True, help="Wait until the device is free and the machine is quiet."
)
unchecked_option = click.option(
    "--unchecked", is_flag=True, help="Do not compare outputs with the reference before timing."
)


sweep_timeout_option = click.option(
    "--timeout", "timeout_s", type=DurationType(can_be_zero=True), default="5m", show_default=True,
    help="An operator that takes longer in one pass has failed; 0: no limit.",
)  # fmt: skip
budget_option = click.option(
    "--budget", type=DurationType(),
    help="Stop after this time, e.g. 10m; the same command continues later.",
)  # fmt: skip
dry_run_option = click.option(
    "--dry-run", is_flag=True,
    help="Say what would be measured and how long it would take; write nothing.",
)  # fmt: skip


timeout_option = click.option(
    "--timeout", "timeout_s", type=DurationType(can_be_zero=True), default="15m", show_default=True,
    help="A network that takes longer in one pass has failed; 0: no limit.",
)  # fmt: skip


def passes_option(text: str) -> Callable[[Command], Command]:
    """--passes: with fresh sessions."""
    return click.option(
        "--passes", type=click.IntRange(1, 100), default=5, show_default=True, help=text
    )


def folder_option(default: str) -> Callable[[Command], Command]:
    """--run: the folder of a run that can be gone on with."""
    return click.option(
        "--run", "folder", type=click.Path(path_type=Path, file_okay=False),
        default=Path(default), show_default=True,
        help="Folder of the run; the same command continues a run that was stopped.",
    )  # fmt: skip


def threads_option(text: str = "CPU threads of PyTorch.") -> Callable[[Command], Command]:
    """--threads: of PyTorch; see ``set_threads``."""
    return click.option(
        "--threads", type=click.IntRange(min=1), help=text, show_default="PyTorch's own"
    )


def setting_option(
    example: str, name: str = "--set", of: str = "", variable: str | None = None
) -> Callable[[Command], Command]:
    """--set: any setting of a preset."""
    return click.option(
        name, *filter(None, [variable]), type=SettingType(), multiple=True,
        help=f"Any other setting{of}, e.g. {example}; may be repeated.",
    )  # fmt: skip


def preset_option(
    kind: NameType, name: str = "--preset", text: str = ""
) -> Callable[[Command], Command]:
    """--preset: settings of a search or a training."""
    return click.option(
        name, type=kind, default="tiny", show_default=True,
        help=text or "Settings: tiny (CPU, minutes), small (one GPU), paper (FasterSeg's), "
        "or a TOML file.",
    )  # fmt: skip


def data_option(default_text: str) -> Callable[[Command], Command]:
    """--data: the data set."""
    return click.option(
        "--data", metavar="NAME|PATH", help="Data set; see `latlut data check --help`.",
        show_default=default_text,
    )  # fmt: skip


accelerator_option = click.option(
    "--accelerator", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
    help="What PyTorch runs on.",
)  # fmt: skip
classes_option = click.option(
    "--classes", "num_classes", type=click.IntRange(1, 65536), show_default="its own; else 19",
    help="Number of classes of an untrained network.",
)  # fmt: skip


def torch_precision_option(**more: Any) -> Callable[[Command], Command]:
    """--torch-precision: of a training or of what is trained."""
    return click.option(
        "--torch-precision", "precision", help="Number format of PyTorch.",
        type=click.Choice(["32-true", "bf16-mixed", "16-mixed"]), **more,
    )  # fmt: skip


#: How a trained network sees an image.
view_options = together(
    click.option(
        "--window", type=SizeType(), show_default="the whole image",
        help="Slide a window of this size over the image.",
    ),
    click.option(
        "--image-scale", type=click.FloatRange(min=0, min_open=True),
        show_default="as in the training", help="Scale images before they enter the network.",
    ),
)  # fmt: skip

#: What a trained network runs with.
compute_options = together(
    torch_precision_option(default="32-true", show_default=True),
    accelerator_option,
    threads_option(),
)


def run_options(folder: str, example: str, kind: NameType) -> Callable[[Command], Command]:
    """--data, --preset, --run, --seed, --torch-precision, --accelerator, --processes, --timeout,
    --threads, --set.

    Args:
        folder: of the run, where --run is not given.
        example: a setting, for the help of --set.
        kind: presets of searches or of trainings.
    """
    return together(
        data_option("the preset's"),
        preset_option(kind),
        folder_option(folder),
        seed_option(show_default="the preset's"),
        torch_precision_option(show_default="the preset's"),
        accelerator_option,
        click.option(
            "--processes", type=click.IntRange(min=1), default=1, show_default=True,
            help="Number of processes, one per device; torchrun sets it itself.",
        ),
        click.option(
            "--timeout", "timeout_s", type=DurationType(), default="10m", show_default=True,
            help="How long a process waits for the others.",
        ),
        threads_option("CPU threads of each process."),
        setting_option(example, variable="extra"),
    )  # fmt: skip


def overrides_of(chosen: Mapping[str, Any], extra: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """What replaces a preset's values: options that were given, then --set."""
    return {name: value for name, value in chosen.items() if value is not None} | dict(extra)


def set_threads(threads: int | None) -> None:
    """Let PyTorch use so many threads of this process; leave it be where None."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
