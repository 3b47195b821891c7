"""How wrong usage is told: one line that names what is near, and where the help is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from latlut.errors import did_you_mean, nearest_name


class WrongUsage(click.UsageError):
    """A ``UsageError`` as the command line shows it: without the lines of usage."""

    def show(self, file: object = None) -> None:
        """The message and the command that prints the help."""
        click.echo(f"Error: {self.message}", err=True)
        if self.ctx is not None:
            click.echo(f"help: {self.ctx.command_path} --help", err=True)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors of usage into ``WrongUsage``; a group without a command prints its help."""
    try:
        yield
    except (WrongUsage, click.exceptions.NoArgsIsHelpError):
        raise
    except click.UsageError as error:
        raise WrongUsage(usage_text(error), error.ctx) from error


def usage_text(error: click.UsageError) -> str:
    """What is wrong, with the option or argument that it is of."""
    if isinstance(error, click.NoSuchOption):
        return _no_option(error)
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        name = error.param_hint or (error.param.get_error_hint(error.ctx) if error.param else "")
        hint = name if isinstance(name, str) else " / ".join(name or ())
        return f"{hint.replace(chr(39), '')}: {value_text(error)}".removeprefix(": ")
    return error.format_message()


def value_text(error: click.BadParameter) -> str:
    """What is wrong with a value; of a choice, which one is near."""
    kind = error.param.type if error.param is not None else None
    chosen = re.match(r"'(.*)' is not one of ", error.message, re.DOTALL)
    if not isinstance(kind, click.Choice) or chosen is None:
        return error.message
    return f"no choice {chosen[1]!r}; {did_you_mean(chosen[1], list(map(str, kind.choices)))}"


def refuse_command(context: click.Context, name: str, known: Sequence[str]) -> NoReturn:
    """Refuse a command that a group does not have."""
    place = "" if context.parent is None else f" in {context.command_path}"
    context.fail(f"no command {name!r}{place}; {did_you_mean(name, list(known))}")


def _no_option(error: click.NoSuchOption) -> str:
    context = error.ctx
    known = [] if context is None else [
        name for item in context.command.get_params(context) for name in item.opts
        if name.startswith("--")
    ]  # fmt: skip
    hint = nearest_name(error.option_name, known).rstrip()
    return f"no option {error.option_name!r}" + (f"; {hint}" if hint else "")
