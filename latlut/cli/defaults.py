"""A lab's own defaults of options: ``latlut.toml``, or ``[tool.latlut]`` of a pyproject.toml.

Top-level keys are options of every command that has them, tables those of one command::

    engine = "openvino"
    threads = 2

    [profile]
    passes = 3

    [table.query]
    limit = 100

The nearest such file counts, from the current folder upward; LATLUT_DEFAULTS names another one.
What is typed replaces what the file says, and what a table was measured with does too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from latlut.cli.output import QUIET
from latlut.cli.refusals import value_text
from latlut.errors import SpecError, did_you_mean

#: Environment variable that names the file.
VARIABLE = "LATLUT_DEFAULTS"
FILE = "latlut.toml"


@dataclass(frozen=True)
class Defaults:
    """What a file of defaults says; ``where`` names it in messages."""

    where: str
    values: Mapping[str, Any]

    @classmethod
    def find(cls) -> Defaults:
        """The file that counts here; without one there are no values.

        Raises:
            LatlutError: a file that cannot be read, is not TOML, or has no table where one belongs.
        """
        from latlut.files.toml_files import read_toml

        if named := os.environ.get(VARIABLE):
            return cls(named, read_toml(Path(named)))
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (path := folder / FILE).is_file():
                return cls(str(path), read_toml(path))
            if "[tool.latlut" in _text_of(path := folder / "pyproject.toml"):
                where = f"{path} [tool.latlut]"
                tools = _as_table(read_toml(path).get("tool", {}), str(path), "tool")
                return cls(where, _as_table(tools.get("latlut", {}), str(path), "tool.latlut"))
        return cls("", {})

    def of(self, path: Sequence[str], command: click.Command) -> dict[str, Any]:
        """What is set for a command, by parameter.

        Args:
            path: the words by which it is called.
            command: the command.

        Raises:
            SpecError: an option that no command has, or that this one has not in its own table; a
                list of values for an option that takes one, or a value where a table belongs.
        """
        if not self.values:
            return {}
        options = {option_key(item): item for item in command.params if _is_settable(item)}
        found = {}
        for key, value in self.values.items():
            if isinstance(value, dict):
                self._check_command(key)
            elif key in options:
                found[key] = value
            else:
                self._check_option(key)
        own = self.values.get(path[0], {})
        # A value is the default of an option that is called as the command is: table = "cpu".
        section: Mapping[str, Any] = own if isinstance(own, dict) else {}
        for number, word in enumerate(path[1:], 2):
            section = _as_table(section.get(word, {}), self.where, ".".join(path[:number]))
        for key, value in section.items():
            if key not in options:
                raise SpecError(
                    f"{self.where}: latlut {' '.join(path)} has no option {key!r}; "
                    f"{did_you_mean(key, list(options))}"
                )
            found[key] = value
        for key, value in found.items():
            if isinstance(value, dict) or (isinstance(value, list) and not options[key].multiple):
                raise SpecError(f"{self.where}: {key} takes one value, received {value!r}")
        return {str(options[key].name): _typed(value) for key, value in found.items()}

    @contextmanager
    def blamed(self, path: Sequence[str]) -> Iterator[None]:
        """Refusals of a value that the file sets name the file and the key."""
        try:
            yield
        except click.BadParameter as error:
            if error.ctx is None or error.param is None or not _is_of_file(error.ctx, error.param):
                raise
            name = self._dotted(path, option_key(error.param))
            text = f"{self.where}: {name}: {value_text(error)}"
            raise click.UsageError(text, error.ctx) from error

    def _dotted(self, path: Sequence[str], key: str) -> str:
        """A key as the file has it: with the table of the command where it stands there."""
        section: Any = self.values
        for word in path:
            section = section.get(word, {}) if isinstance(section, dict) else {}
        is_own = isinstance(section, dict) and key in section
        return ".".join([*path, key]) if is_own else key

    def _check_command(self, name: str) -> None:
        from latlut.cli import COMMANDS

        if name not in COMMANDS:
            hint = did_you_mean(name, list(COMMANDS))
            raise SpecError(f"{self.where}: no command is called {name!r}; {hint}")

    def _check_option(self, key: str) -> None:
        known = sorted({option_key(item) for item in _all_options()})
        if key not in known:
            raise SpecError(
                f"{self.where}: no command has an option {key!r}; {did_you_mean(key, known)}"
            )


def option_key(option: click.Parameter) -> str:
    """An option's long name without its dashes, as files of defaults have it."""
    return next((name[2:] for name in option.opts if name.startswith("--")), str(option.name))


def option_values(
    context: click.Context, of_table: Mapping[str, Any]
) -> Iterator[tuple[str, Any, str]]:
    """(name, value, where it comes from) of each option of a command.

    Args:
        context: of the command.
        of_table: parameters that a table decides, and their values.
    """
    sources = {
        click.core.ParameterSource.COMMANDLINE: "command line",
        click.core.ParameterSource.DEFAULT_MAP: "file of defaults",
    }
    for option in filter(_is_settable, context.command.params):
        name = str(option.name)
        source = context.get_parameter_source(name)
        where = "default" if source is None else sources.get(source, "default")
        value = context.params.get(name, context.meta.get(QUIET))
        if name in of_table:
            value, where = of_table[name], "the table"
        typed = getattr(option.type, "typed", None)
        yield option_key(option), value if typed is None or value is None else typed(value), where


def settings_text(path: Sequence[str], values: Iterator[tuple[str, Any, str]]) -> str:
    """The options of a command as a file of defaults has them."""
    lines = [f"[{'.'.join(path)}]"]
    for name, value, where in values:
        text = _toml_text(value)
        lines.append(f"# {name} is not set" if text is None else f"{name} = {text}  # {where}")
    return "\n".join(lines)


def toml_lines(values: Mapping[str, Any], table: str = "") -> Iterator[str]:
    """Settings in groups as TOML: values first, then a table per group."""
    groups = {name: value for name, value in values.items() if isinstance(value, dict)}
    if table:
        yield f"\n[{table}]"
    for name, value in values.items():
        if name not in groups:
            yield f"{name} = {json.dumps(value)}"
    for name, value in groups.items():
        yield from toml_lines(value, f"{table}.{name}" if table else name)


def _all_options() -> Iterator[click.Parameter]:
    """The options of all commands."""
    from latlut.cli import main

    def below(command: click.Command, context: click.Context) -> Iterator[click.Parameter]:
        yield from filter(_is_settable, command.params)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                if found is not None:
                    yield from below(found, context)

    return below(main, click.Context(main))


def _is_settable(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and option_key(parameter) != "print-settings"


def _is_of_file(context: click.Context, parameter: click.Parameter) -> bool:
    """Whether a value comes from the file of defaults."""
    source = context.get_parameter_source(str(parameter.name))
    return source == click.core.ParameterSource.DEFAULT_MAP


def _as_table(value: Any, where: str, name: str) -> Mapping[str, Any]:
    """A value that has to be a table of TOML.

    Raises:
        SpecError: it is something else.
    """
    if not isinstance(value, dict):
        raise SpecError(f"{where}: {name} has to be a table, received {value!r}")
    return value


def _text_of(path: Path) -> str:
    """The content of a file that others wrote for others; empty where it cannot be read."""
    from latlut.errors import LatlutError
    from latlut.files.reading import read_text

    try:
        return read_text(path)
    except LatlutError:
        return ""


def _typed(value: Any) -> Any:
    """A value as it is typed: options read texts; flags and lists stay."""
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return value if isinstance(value, bool) else str(value)


def _toml_text(value: Any) -> str | None:
    """A parameter's value in TOML; None where there is none."""
    if value is None or value == ():
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple) and all(isinstance(item, int) for item in value):
        return json.dumps(
            "x".join(map(str, value)) if len(value) == 2 else ",".join(map(str, value))
        )
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_text(_joined(item)) or '' for item in value)}]"
    return json.dumps(str(value))


def _joined(item: Any) -> Any:
    """NAME=VALUE of a pair."""
    return "=".join(map(str, item)) if isinstance(item, tuple) else item
