"""What the commands that search and train are asked for alike: data, preset, folder, processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class SettingType(click.ParamType[tuple[str, Any]]):
    """GROUP.NAME=VALUE, the value as in TOML."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """(dotted name, value)."""
        import tomllib

        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=VALUE: data.workers=2", param, ctx)
        try:
            return name, tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return name, text


def run_options(folder: str, example: str) -> Callable[[Command], Command]:
    """--data, --preset, --run, --seed, --precision, --accelerator, --devices, --threads, --set.

    Args:
        folder: of the run, where --run is not given.
        example: a setting, for the help of --set.
    """
    options = [
        click.option(
            "--data", metavar="NAME|PATH", help="Data set [the preset's; street-scenes]."
        ),
        click.option(
            "--preset", default="tiny", show_default=True, metavar="NAME|FILE",
            help="tiny (CPU, minutes), small (one GPU), paper (FasterSeg's numbers), or a TOML "
            "file.",
        ),
        click.option(
            "--run", "folder", type=click.Path(path_type=Path, file_okay=False),
            default=Path(folder), show_default=True,
            help="The run's folder; the same command goes on with a run that was stopped.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of everything random."),
        click.option("--precision", help="32-true, bf16-mixed or 16-mixed."),
        click.option(
            "--accelerator", default="auto", show_default=True, help="auto, cpu or gpu."
        ),
        click.option(
            "--devices", type=click.IntRange(min=1), default=1, show_default=True,
            help="Processes, one per device; under torchrun its own number.",
        ),
        click.option(
            "--threads", type=click.IntRange(min=1), help="Threads of a process on the CPU."
        ),
        click.option(
            "--set", "extra", type=SettingType(), multiple=True,
            help=f"Any other setting, {example}; may be repeated.",
        ),
    ]  # fmt: skip

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def overrides_of(chosen: Mapping[str, Any], extra: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """What replaces a preset's values: options that were given, then --set."""
    return {name: value for name, value in chosen.items() if value is not None} | dict(extra)


def set_threads(threads: int | None) -> None:
    """Let PyTorch use so many threads of this process; leave it be where None."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
