"""Commands as pages and messages show them: taken apart, and parsed as click does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell line, without redirections and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    is_file_name = False
    for word in lexer:
        if set(word) <= set("|&;"):
            yield words
            words = []
        elif set(word) <= set("<>&"):
            is_file_name = True
        elif is_file_name:
            is_file_name = False
        else:
            words.append(word)
    yield words


def check_arguments(command: click.Command, words: list[str], context: click.Context) -> None:
    """Parse as click does, without running anything or asking whether files exist.

    Raises:
        click.UsageError: an unknown command or option, a missing or superfluous argument.
    """
    values, rest, _ = command.make_parser(context).parse_args(args=list(words))
    for parameter in command.get_params(context):
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice):
            for choice in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(choice, str):
                    parameter.type.convert(choice, parameter, context)
        is_given = isinstance(value, (str, list, tuple)) and len(value) > 0
        if parameter.required and not is_given and "help" not in values:
            raise click.MissingParameter(ctx=context, param=parameter)
    if isinstance(command, click.Group):
        if rest:
            name, below, rest = command.resolve_command(context, rest)
            assert below is not None
            check_arguments(below, rest, click.Context(below, info_name=name, parent=context))
    elif rest and not command.allow_extra_args:
        raise click.UsageError(f"superfluous: {' '.join(rest)}", ctx=context)
