"""What all commands share: options in groups, a lab's own defaults, and --print-settings.

An option means the same in every command, so its group is said once, in ``GROUPS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import cloup

from latlut.cli.defaults import Defaults, option_key, option_values, settings_text, toml_lines
from latlut.cli.output import QUIET, QUIET_HELP, keep_quiet
from latlut.cli.progress import ProgressLines
from latlut.cli.ranges import say_range_in_words
from latlut.cli.refusals import refuse_command
from latlut.cli.sweeping import settings_in_table
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Groups of a long command's help and the options in them, in their order; all other options are of
#: the second, which says what is measured, searched or written.
WHAT = "What"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Device": (
        "gpu", "cpu", "engine", "precision", "threads", "engine-option", "torch-precision",
        "accelerator", "processes", "devices", "shard", "ray", "workers", "remote",
        "remote-python", "wait",
    ),
    WHAT: (),
    "How precisely": (
        "passes", "rebuilds", "rounds", "networks", "runs", "iterations", "duration", "ci",
        "statistic", "budget", "fraction", "until", "timeout", "seed", "seeds", "mode", "protocol",
        "unchecked", "explain", "min-r", "tolerance", "equal-share", "ok", "caution", "max-points",
    ),
    "Output": (
        "out", "plot", "csv", "samples", "predictions", "label-ids", "run", "measure", "dry-run",
        "details", "json", "quiet", "print-settings",
    ),
}  # fmt: skip
#: What every command ends with.
_LAST = GROUPS["Output"][-3:]
#: Commands with fewer options list them without groups.
LEAST_GROUPED = 9


def _quiet_option() -> click.Option:
    """--quiet, of a command that needs not be told of it: ``output.note`` looks at it."""
    return cloup.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=keep_quiet, help=QUIET_HELP
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
        if not any(option_key(item) == "quiet" for item in options):
            options.append(_quiet_option())
        options.append(_print_settings_option())
        for item in params or ():
            say_range_in_words(item)
        super().__init__(*args, params=[*arguments, *_grouped(options)], **more)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """As click's, with the defaults that a file of the user's sets for this command."""
        defaults, path = Defaults("", {}), [*_path(parent), info_name or ""]
        if parent is not None and not extra.get("resilient_parsing"):
            try:
                defaults = Defaults.find()
                values = defaults.of(path, self)
            except LatlutError as error:
                raise click.UsageError(str(error)) from error
            extra["default_map"] = {**values, **extra.get("default_map", {})}
        with defaults.blamed(path):
            context = super().make_context(info_name, args, parent, **extra)
        _let_the_typed_device_win(context)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print what it would run with."""
        if ctx.meta.get(_WANTED):
            click.echo(settings_text(_path(ctx), option_values(ctx, settings_in_table(ctx.params))))
            if not self._prints_run_settings:
                return None
        if self._shows_progress or ctx.meta.get(QUIET):
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; a command that there is not is refused as ``latlut`` refuses one."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            refuse_command(ctx, args[0], list(self.commands))
        return super().resolve_command(ctx, args)


def _path(context: click.Context | None) -> list[str]:
    """The words by which a command is called, without ``latlut``."""
    words: list[str] = []
    step = context
    while step is not None and step.parent is not None:
        words.insert(0, step.info_name or "")
        step = step.parent
    return words


def _grouped(options: Sequence[click.Option]) -> list[click.Option]:
    """The options in the order of their groups, each marked with its own."""
    if len(options) < LEAST_GROUPED:
        return sorted(options, key=lambda item: _place(item, _LAST))
    groups = {title: cloup.OptionGroup(title) for title in GROUPS}
    by_title: dict[str, list[click.Option]] = {title: [] for title in GROUPS}
    for option in options:
        key = option_key(option)
        title = next((title for title, names in GROUPS.items() if key in names), WHAT)
        option.group = groups[title]  # type: ignore[attr-defined]  # cloup reads it
        by_title[title].append(option)
    return [
        option
        for title, names in GROUPS.items()
        for option in sorted(by_title[title], key=lambda item: _place(item, names))
    ]


def _place(option: click.Option, names: Sequence[str]) -> int:
    """An option's number among names; -1 if it is none of them."""
    key = option_key(option)
    return names.index(key) if key in names else -1


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
