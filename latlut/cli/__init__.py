"""The command line: one group whose commands are imported when they are called.

Each command lives in a file of its own that imports what it needs inside the command's
body. Exit codes: 0 done, 1 a check failed (a command calls ``ctx.exit(1)``), 2 wrong usage
or a request that cannot be met, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from latlut.cli.refusals import refuse_command, usage_errors
from latlut.errors import LatlutError
from latlut.version import __version__

EXIT_REFUSED = 2
EXIT_STOPPED = 130  # 128 + SIGINT, as shells report it
EXIT_READER_GONE = 141  # 128 + SIGPIPE


class LazyCommand(NamedTuple):
    """Where a command is defined, and its line in ``latlut --help``."""

    section: str
    home: str
    help: str


COMMANDS: Mapping[str, LazyCommand] = {
    "quickstart": LazyCommand(
        "Start here",
        "latlut.cli.quickstart:quickstart",
        "The whole loop, small: from a table to a trained network.",
    ),
    "doctor": LazyCommand(
        "Start here",
        "latlut.cli.doctor:doctor",
        "What works on this machine, and how to get the rest.",
    ),
    "targets": LazyCommand(
        "Start here",
        "latlut.cli.targets:targets",
        "List the hardware that latlut knows.",
    ),
    "profile": LazyCommand(
        "Measure",
        "latlut.cli.profile:profile",
        "Measure the operators of a plan into a latency table.",
    ),
    "plan": LazyCommand(
        "Measure",
        "latlut.cli.plan:plan",
        "What a plan or ONNX files hold, and how long a sweep takes.",
    ),
    "scan": LazyCommand(
        "Measure",
        "latlut.cli.scan:scan",
        "Latency over one or two shape parameters, and its steps.",
    ),
    "validate": LazyCommand(
        "Measure",
        "latlut.cli.validate:validate",
        "Measure whole networks and compare them with the table's estimates.",
    ),
    "calibrate": LazyCommand(
        "Measure",
        "latlut.cli.calibrate:calibrate",
        "Correct estimates by how measured networks differ from their sums.",
    ),
    "predict": LazyCommand(
        "Use a table",
        "latlut.cli.predict:predict",
        "Predict the entries that a table lacks, with intervals.",
    ),
    "transfer": LazyCommand(
        "Use a table",
        "latlut.cli.transfer:transfer",
        "Predict a new device's entries from ten measurements and other tables.",
    ),
    "estimate": LazyCommand(
        "Use a table",
        "latlut.cli.estimate:estimate",
        "Estimate a network's latency from a table, term by term.",
    ),
    "table": LazyCommand(
        "Use a table",
        "latlut.cli.table:table",
        "Inspect, query, compare, merge, export and import tables.",
    ),
    "report": LazyCommand(
        "Use a table",
        "latlut.cli.report:report",
        "Write one HTML page of tables, searches, trainings, comparisons.",
    ),
    "sensitivity": LazyCommand(
        "Use a table",
        "latlut.cli.sensitivity:sensitivity",
        "How much operators, downsampling and widths change the latency.",
    ),
    "data": LazyCommand(
        "Networks",
        "latlut.cli.data:data",
        "Check the data for a search or a training.",
    ),
    "search": LazyCommand(
        "Networks",
        "latlut.cli.search:search",
        "Search for a network with a target latency, by a table.",
    ),
    "train": LazyCommand(
        "Networks",
        "latlut.cli.train:train",
        "Train a network, with or without a teacher.",
    ),
    "ablate": LazyCommand(
        "Networks",
        "latlut.cli.ablate:ablate",
        "The paper's Table 3: what each part of the search contributes.",
    ),
    "evaluate": LazyCommand(
        "Networks",
        "latlut.cli.evaluate:evaluate",
        "Score a trained network: mIoU, class by class.",
    ),
    "predict-image": LazyCommand(
        "Networks",
        "latlut.cli.predict_image:predict_image",
        "Draw a trained network's predictions for images and videos.",
    ),
    "export": LazyCommand(
        "Networks",
        "latlut.cli.export:export",
        "Write a network as ONNX, OpenVINO, TorchScript or a TensorRT plan.",
    ),
    "bench": LazyCommand(
        "Networks",
        "latlut.cli.bench:bench",
        "Measure a whole network, or an ONNX file, on any engine.",
    ),
    "layers": LazyCommand(
        "Networks",
        "latlut.cli.file_layers:layers",
        "What an engine runs for an ONNX file, layer by layer.",
    ),
    "compare": LazyCommand(
        "Networks",
        "latlut.cli.compare:compare",
        "Compare networks: parameters, MACs, latency, published accuracy.",
    ),
    "arch": LazyCommand(
        "Networks",
        "latlut.cli.arch:arch",
        "Show networks; import the FasterSeg authors' architecture files.",
    ),
}


class Refusal(click.ClickException):
    """A ``LatlutError`` as the command line shows it: its message alone, exit code 2."""

    exit_code = EXIT_REFUSED


class LazyGroup(click.Group):
    """A click group that imports a command's file when the command is called.

    Its own help needs none of those files: the lines come from ``COMMANDS``.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name].home.partition(":")
        command: click.Command = getattr(import_module(module_name), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            refuse_command(ctx, name, list(COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, COMMANDS))
        for section in dict.fromkeys(command.section for command in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [
                        (name.ljust(widest), command.help)
                        for name, command in COMMANDS.items()
                        if command.section == section
                    ]
                )

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with usage_errors():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with usage_errors():
                result: object = super().invoke(ctx)
            sys.stdout.flush()
        except LatlutError as error:
            raise Refusal(str(error)) from error
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] == "latlut":
                raise
            raise Refusal(
                f"the package {error.name!r} is not installed in {sys.prefix}; "
                "install latlut with all it needs: pip install latlut, "
                "in a checkout: pip install -e ."
            ) from error
        except MemoryError as error:
            raise Refusal(
                f"the memory does not suffice: {error or 'nothing more is free'}"
            ) from error
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(EXIT_STOPPED)
        except BrokenPipeError as error:
            if not _is_reader_gone():  # click would end silently here, and hide a defect
                raise RuntimeError("a pipe other than standard output broke") from error
            ctx.exit(EXIT_READER_GONE)
        return result


def _is_reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more; if so, silence it."""
    import select

    try:
        output = sys.stdout.fileno()
    except OSError:  # not a file: a caller has captured the output
        return False
    poll = select.poll()
    poll.register(output, select.POLLOUT)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if gone:  # what is still buffered is written at exit, to nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="latlut")
def main() -> None:
    """How long will a network take on this device? Measure its operators once, then add up.

    \b
    latlut profile --cpu                        measure the operators into a table
    latlut validate                             measure networks: how accurate are its sums?
    latlut estimate --table cpu --arch FILE     a network's latency from the table
    latlut bench FILE --cpu                     a network's latency, measured

    Defaults of options: latlut.toml. Completion: docs/command-line.md.
    """
