"""What several commands are asked for: device, engine, sizes, durations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from latlut.cli.names import TARGET
from latlut.engines import PRECISIONS, engine_names
from latlut.errors import SpecError

if TYPE_CHECKING:
    from latlut.engines.choosing import DeviceChoice
    from latlut.table.identity import Identity

#: Statistics of samples, as ``stats.quantiles`` defines them.
STATISTICS = ("min", "p10", "p25", "median")

Command = TypeVar("Command", bound=Callable[..., Any])


class SizeType(click.ParamType[tuple[int, int]]):
    """HEIGHTxWIDTH."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """(height, width) in pixels."""
        if isinstance(value, tuple):
            return value
        from latlut.opspec import parse_size

        try:
            return parse_size(value)
        except SpecError as error:
            self.fail(str(error), param, ctx)


class DurationType(click.ParamType[float]):
    """Seconds, or a number with s, m or h.

    Args:
        can_be_zero: take 0 as well.
    """

    name = "DURATION"

    def __init__(self, *, can_be_zero: bool = False) -> None:
        self._can_be_zero = can_be_zero

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|)", value)
        if match is None or (float(match[1]) == 0 and not self._can_be_zero):
            self.fail(f"{value!r} is no duration: 90s, 10m, 1.5h", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]

    def typed(self, value: float) -> str:
        """As people type it: 90s, 5m, 1.5h."""
        unit, size = ("h", 3600) if value >= 3600 else ("m", 60) if value >= 60 else ("s", 1)
        if value % size:
            unit, size = "s", 1
        return f"{value / size:g}{unit}"


class FractionType(click.ParamType[float]):
    """A fraction such as 0.01, or a percentage such as 1%."""

    name = "FRACTION"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """The fraction, above 0 and below 1."""
        text = str(value)
        try:
            number = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            number = -1.0
        if not 0 < number < 1:
            self.fail(f"{value!r} is no fraction between 0 and 1: 0.01 or 1%", param, ctx)
        return number

    def typed(self, value: float) -> str:
        """As people type it: 1%."""
        return f"{100 * value:g}%"


class DeviceListType(click.ParamType[tuple[int, ...]]):
    """Numbers of GPUs, 0,1,2."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers, in order."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isdecimal() for word in words):
            self.fail(f"{value!r} is no list of GPUs, such as 0,1,2,3", param, ctx)
        return tuple(int(word) for word in words)


class ShardType(click.ParamType[tuple[int, int]]):
    """I/N, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """(number of the shard, how many there are)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(value))
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is no shard: 1/4, 2/4, 3/4 and 4/4 are those of four", param, ctx)
        return int(match[1]), int(match[2])


class OptionType(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        """(name, value)."""
        if isinstance(value, tuple):
            return value
        name, equals, setting = str(value).partition("=")
        if not (name and equals and setting):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, setting


def device_options(command: Command) -> Command:
    """--gpu, --cpu, --engine, --precision, --threads, --engine-option."""
    for option in reversed(
        [
            click.option("--gpu", type=TARGET, metavar="NAME|FILE",
                         help="GPU: a name of `latlut targets`, or a file that describes one."),
            click.option("--cpu", is_flag=True, help="Use this machine's CPU."),
            click.option("--engine", type=click.Choice(engine_names()),
                         help="Inference engine; `latlut doctor` shows which work here.",
                         show_default="the best that works here"),
            precision_option("Number format of the engine."),
            click.option("--threads", type=click.IntRange(1, 4096), default=1, show_default=True,
                         help="CPU threads of one inference."),
            click.option("--engine-option", "engine_options", type=OptionType(), multiple=True,
                         help="Setting of the engine, see `latlut doctor`; may be repeated."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def precision_option(text: str) -> Callable[[Command], Command]:
    """--precision."""
    return click.option(
        "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help=text
    )


def statistic_option(command: Command) -> Command:
    """--statistic."""
    return click.option(
        "--statistic", type=click.Choice(STATISTICS), default="p10", show_default=True,
        help="Statistic of a pass's samples that is its reading; p10 is the 10th percentile.",
    )(command)  # fmt: skip


def ci_option(command: Command) -> Command:
    """--ci."""
    return click.option(
        "--ci", type=FractionType(), default="1%", show_default=True,
        help="Sample until the 95% interval within a pass has this half-width, or time is up.",
    )(command)  # fmt: skip


def mode_option(command: Command) -> Command:
    """--mode: how operators are isolated."""
    return click.option(
        "--mode",
        type=click.Choice(("standalone", "in-context")),
        help="Time each operator alone, or in a network as the difference of two graphs.",
        show_default="the table's; else the engine's own",
    )(command)


def operators_option(command: Command) -> Command:
    """--operators: modules that register operators of one's own."""
    return click.option(
        "--operators",
        "operator_modules",
        multiple=True,
        metavar="MODULE",
        help="Python file or module that registers your own operators; may be repeated.",
    )(command)


def space_option(command: Command) -> Command:
    """--space: the file of a search space of one's own."""
    return click.option(
        "--space",
        "space_file",
        metavar="FILE",
        help="Python file or module that registers your own search space.",
    )(command)


def as_in_table(choice: DeviceChoice, own: Identity) -> DeviceChoice:
    """The choice with what was not typed taken from a table's identity."""
    typed = choice._replace(
        gpu=None if is_left_open("gpu") else choice.gpu,
        cpu=choice.cpu and not is_left_open("cpu"),
        engine=None if is_left_open("engine") else choice.engine,
    )
    return typed.completed(own, filter(is_left_open, ("precision", "threads", "engine_options")))


def is_left_open(parameter: str) -> bool:
    """Whether the running command's parameter was not typed, or it has none of that name.

    A default of latlut.toml was not typed.
    """
    source = click.get_current_context().get_parameter_source(parameter)
    return source in (
        None, click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP
    )  # fmt: skip
