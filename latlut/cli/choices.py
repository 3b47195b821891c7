"""What several commands are asked for: device, engine, sizes, durations, and how they choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from latlut.errors import EngineError, LatlutError, SpecError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.machine.targets import Target
    from latlut.table.identity import Identity

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
    """Seconds, or a number with s, m or h."""

    name = "DURATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|)", value)
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is no duration: 90s, 10m, 1.5h", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


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
            click.option("--gpu", metavar="NAME", help="GPU to use, a name of `latlut targets`."),
            click.option("--cpu", is_flag=True, help="Use this machine's CPU."),
            click.option("--engine", metavar="NAME", help="Inference engine; see `latlut doctor`."),
            click.option("--precision", metavar="NAME", default="fp32", show_default=True,
                         help="Arithmetic of the engine."),
            click.option("--threads", type=int, default=1, show_default=True,
                         help="Threads of one inference on a CPU."),
            click.option("--engine-option", "engine_options", type=OptionType(), multiple=True,
                         help="An engine's own setting, see `latlut doctor`; may be repeated."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def mode_option(command: Command) -> Command:
    """--mode: how operators are isolated."""
    return click.option(
        "--mode",
        type=click.Choice(("standalone", "in-context")),
        help="Time operators alone, or inside a network as the difference of two graphs "
        "[the table's; the engine's default].",
    )(command)


def operators_option(command: Command) -> Command:
    """--operators: modules that register operators of one's own."""
    return click.option(
        "--operators",
        "operator_modules",
        multiple=True,
        metavar="MODULE",
        help="Python file or module that registers operators of your own; may be repeated.",
    )(command)


class DeviceChoice(NamedTuple):
    """What the device options say."""

    gpu: str | None
    cpu: bool
    engine: str | None
    precision: str
    threads: int
    engine_options: tuple[tuple[str, str], ...] = ()


def as_in_table(choice: DeviceChoice, own: Identity) -> DeviceChoice:
    """The choice with what was left open on the command line taken from a table's identity."""
    gpu, cpu = choice.gpu, choice.cpu
    if not (gpu or cpu):
        gpu, cpu = (None, True) if own.target == "cpu" else (own.target, False)
    return DeviceChoice(
        gpu,
        cpu,
        choice.engine or own.engine,
        own.precision if is_left_open("precision") else choice.precision,
        own.threads if is_left_open("threads") else choice.threads,
        own.options if is_left_open("engine_options") else choice.engine_options,
    )


def is_left_open(parameter: str) -> bool:
    """Whether the running command's parameter was not given."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source == click.core.ParameterSource.DEFAULT


def choose_engine(choice: DeviceChoice) -> tuple[Target, Engine]:
    """The target and the engine that the options mean, or a refusal; nothing is ever swapped.

    With no choice made: TensorRT, TensorRT-RTX, then PyTorch on the first GPU, then ONNX Runtime
    on the CPU, whichever works here. ``--gpu NAME`` alone means TensorRT. An engine that runs on
    GPUs only takes the first GPU where none is named.

    Raises:
        LatlutError: contradicting options, hardware or an engine that is not here.
    """
    from latlut.engines import engine_class
    from latlut.machine.gpus import detect_gpus, gpu_absence_reason, resolve_gpu, target_of
    from latlut.machine.targets import cpu_target, load_target

    gpu, cpu, engine, precision, threads, pairs = choice
    options = dict(pairs)
    if gpu and cpu:
        raise LatlutError("--gpu and --cpu exclude each other: choose one")
    if gpu:
        found = resolve_gpu(gpu, detect_gpus())
        name = engine or "tensorrt"
        try:
            chosen = engine_class(name)(threads, precision, found.uuid, options)
        except EngineError as error:
            if engine:
                raise
            raise EngineError(f"--gpu {gpu} alone means TensorRT. {error}") from error
        # A target's own file has figures that the detected name alone does not lead to.
        return (load_target(gpu) if Path(gpu).suffix else target_of(found)), chosen
    if engine and "cpu" not in engine_class(engine).device_kinds:
        title = engine_class(engine).title
        if cpu:
            raise LatlutError(f"{title} runs on GPUs only: leave --cpu or --engine out")
        gpus = detect_gpus()
        # Where there is no GPU the engine itself refuses, and says what is missing.
        chosen = engine_class(engine)(
            threads, precision, gpus[0].uuid if gpus else "cuda:0", options
        )
        if not gpus:
            raise EngineError(f"{title}: {gpu_absence_reason()}")
        return target_of(gpus[0]), chosen
    if not cpu and not engine:
        gpus = detect_gpus()
        for name in ("tensorrt", "tensorrt-rtx", "pytorch"):
            for item in gpus[:1]:
                try:
                    chosen = engine_class(name)(threads, precision, item.uuid, options)
                except EngineError:
                    continue
                return target_of(item), chosen
    chosen = engine_class(engine or "onnxruntime")(threads, precision, "cpu", options)
    return cpu_target(threads), chosen
