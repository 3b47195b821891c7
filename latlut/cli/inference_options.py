"""What the commands that run a trained network are asked for alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from latlut.cli.choices import SizeType

Command = TypeVar("Command", bound=Callable[..., Any])


def view_options(command: Command) -> Command:
    """--window, --image-scale: how the network sees an image."""
    return _with_options(
        command,
        click.option(
            "--window", type=SizeType(),
            help="Slide a window of this size over the image. [whole image]",
        ),
        click.option(
            "--image-scale", type=click.FloatRange(min=0, min_open=True),
            help="Scale images before they enter the network. [as in the training]",
        ),
    )  # fmt: skip


def compute_options(command: Command) -> Command:
    """--precision, --accelerator, --threads: what the network runs with."""
    return _with_options(
        command,
        click.option(
            "--precision", default="32-true", show_default=True,
            help="32-true, bf16-mixed or 16-mixed.",
        ),
        click.option(
            "--accelerator", default="auto", show_default=True, help="auto, cpu or gpu."
        ),
        click.option("--threads", type=click.IntRange(min=1), help="Threads on the CPU."),
    )  # fmt: skip


def _with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
