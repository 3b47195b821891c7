"""What all commands share: options in groups, a lab's own defaults, and --print-settings.

An option means the same in every command, so its group is said once, in ``GROUPS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import cloup

from latlut.cli.defaults import Defaults, option_key, option_values, settings_text, toml_lines
from latlut.cli.output import QUIET, QUIET_HELP
from latlut.cli.progress import ProgressLines
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Groups of a long command's help, in their order, and the options in them; all other options are
#: of the second, which says what is measured, searched or written.
WHAT = "What"
GROUPS: Mapping[str, frozenset[str]] = {
    "Device": frozenset(
        {"gpu", "cpu", "engine", "precision", "threads", "engine-option", "devices", "shard",
         "ray", "workers", "remote", "remote-python", "wait", "accelerator", "processes",
         "torch-precision"}
    ),
    WHAT: frozenset(),
    "How precisely": frozenset(
        {"passes", "rebuilds", "ci", "statistic", "budget", "fraction", "until", "timeout", "seed",
         "seeds", "mode", "unchecked", "rounds", "networks", "explain", "min-r",
         "protocol", "duration", "iterations", "tolerance", "equal-share", "runs", "ok", "caution",
         "max-points"}
    ),
    "Output": frozenset(
        {"out", "plot", "csv", "samples", "predictions", "label-ids", "run", "dry-run", "measure",
         "details", "quiet", "json", "print-settings"}
    ),
}  # fmt: skip
#: Commands with fewer options list them without groups.
LEAST_GROUPED = 9


def _quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[QUIET] = value


def _quiet_option() -> click.Option:
    """--quiet, of a command that needs not be told of it: ``output.remark`` looks at it."""
    return cloup.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quiet, help=QUIET_HELP
    )


def _print_settings(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_WANTED] = value


_WANTED = "latlut.print_settings"


def _print_settings_option() -> click.Option:
    """--print-settings."""
    return cloup.Option(
        ["--print-settings"],
        is_flag=True,
        expose_value=False,
        callback=_print_settings,
        help="Print the options that this command would run with, as latlut.toml; do nothing.",
    )


class Command(cloup.Command):
    """A command whose options are in groups, with defaults from ``latlut.toml``.

    Args:
        args: as of ``cloup.Command``, as is ``more``.
        params: options and arguments.
        prints_run_settings: it calls ``printed_run_settings`` for what its preset says.
        shows_progress: of its own; any other command says every 30 s that it still runs.
    """

    def __init__(
        self,
        *args: Any,
        params: Sequence[click.Parameter] | None = None,
        prints_run_settings: bool = False,
        shows_progress: bool = False,
        **more: Any,
    ) -> None:
        self._prints_run_settings, self._shows_progress = prints_run_settings, shows_progress
        arguments = [item for item in params or () if not isinstance(item, click.Option)]
        options = [item for item in params or () if isinstance(item, click.Option)]
        if options:
            if not any(option_key(item) == "quiet" for item in options):
                options.append(_quiet_option())
            options.append(_print_settings_option())
        super().__init__(*args, params=[*arguments, *_grouped(options)], **more)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """As click's, with the defaults that a file of the user's sets for this command."""
        if parent is not None and not extra.get("resilient_parsing"):
            path = [*_path(parent), info_name or ""]
            try:
                defaults = Defaults.find().of(path, self)
            except LatlutError as error:
                raise click.UsageError(str(error)) from error
            extra["default_map"] = {**defaults, **extra.get("default_map", {})}
        context = super().make_context(info_name, args, parent, **extra)
        _let_the_typed_device_win(context)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print what it would run with."""
        if ctx.meta.get(_WANTED):
            click.echo(settings_text(_path(ctx), option_values(ctx)))
            if not self._prints_run_settings:
                return None
        if self._shows_progress or ctx.meta.get(QUIET) or ctx.params.get("quiet"):
            return super().invoke(ctx)
        with ProgressLines(" ".join(_path(ctx))):
            return super().invoke(ctx)


def printed_run_settings(settings: BaseModel) -> bool:
    """Print a run's settings where --print-settings asks for them; whether it does."""
    is_wanted = bool(click.get_current_context().meta.get(_WANTED))
    if is_wanted:
        click.echo("\n# the settings of the run, for a file that --preset names")
        click.echo("\n".join(toml_lines(settings.model_dump(mode="json", exclude_none=True))))
    return is_wanted


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def _path(context: click.Context) -> list[str]:
    """The words by which a command is called, without ``latlut``."""
    words: list[str] = []
    step: click.Context | None = context
    while step is not None and step.parent is not None:
        words.insert(0, step.info_name or "")
        step = step.parent
    return words


def _grouped(options: Sequence[click.Option]) -> list[click.Option]:
    """The options in the order of their groups, each marked with its own."""
    if len(options) < LEAST_GROUPED:
        return list(options)
    groups = {title: cloup.OptionGroup(title) for title in GROUPS}
    by_title: dict[str, list[click.Option]] = {title: [] for title in GROUPS}
    for option in options:
        key = option_key(option)
        title = next((title for title, names in GROUPS.items() if key in names), WHAT)
        option.group = groups[title]  # type: ignore[attr-defined]  # cloup reads it
        by_title[title].append(option)
    return [option for title in GROUPS for option in by_title[title]]


def _let_the_typed_device_win(context: click.Context) -> None:
    """A device on the command line replaces one of a file of defaults, instead of clashing."""
    typed = click.core.ParameterSource.COMMANDLINE
    if {"cpu", "gpu"} <= context.params.keys():
        for name, other, blank in (("cpu", "gpu", None), ("gpu", "cpu", False)):
            if (
                context.get_parameter_source(name) == typed
                and context.get_parameter_source(other) != typed
            ):
                context.params[other] = blank
