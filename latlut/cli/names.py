"""Names that commands take, and what a shell completes them to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem


class NameType(click.ParamType[str]):
    """A name that latlut knows, or a file.

    Args:
        name: in the command's help.
        known: the names, for completion.
        has_files: whether files are completed too.
    """

    def __init__(self, name: str, known: Callable[[], Sequence[str]], has_files: bool = True):
        self.name, self._known, self._has_files = name, known, has_files

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The text as it is: what it names is looked up where it is used."""
        return value

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Names that begin so; where none does and there may be a file, files.

        Not both: Bash forgets names beside files, and Zsh inserts the files' common beginning.
        """
        names = [name for name in self._known() if name.startswith(incomplete)]
        if names or not self._has_files:
            return [CompletionItem(name) for name in names]
        return [CompletionItem(incomplete, type="file")]


class NewTableType(NameType):
    """The file of a table that need not exist: a bare name means ``profiles/NAME.db``."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The table's file."""
        from latlut.errors import LatlutError
        from latlut.table.storage import refuse_other_ending, table_to_make

        try:
            path = table_to_make(value)
            refuse_other_ending(path)
            return path
        except LatlutError as error:
            self.fail(str(error), param, ctx)


def _tables() -> list[str]:
    from latlut.table.storage import table_names

    return table_names()


def _targets() -> list[str]:
    from latlut.machine.targets import target_names

    return [name for name in target_names() if name != "cpu"]


def _plans() -> list[str]:
    from latlut.measure.plans import plan_names

    return plan_names()


def _architectures() -> list[str]:
    from latlut.spaces.shipped import shipped_architectures

    return list(shipped_architectures())


def _networks() -> list[str]:
    from latlut.search.networks.finding import contender_names

    return contender_names()


def _presets(kind: str) -> Callable[[], list[str]]:
    def names() -> list[str]:
        from latlut.search.runs.setting_files import preset_names

        return preset_names(kind)

    return names


def _baselines() -> list[str]:
    from latlut.search.networks.baselines import baseline_names

    return baseline_names()


TABLE = NameType("NAME|FILE", _tables)
NEW_TABLE = NewTableType("NAME|FILE", _tables)
TARGET = NameType("NAME|FILE", _targets)
PLAN = NameType("NAME|FILE", _plans)
ARCHITECTURE = NameType("NAME|FILE", _architectures)
NETWORK = NameType("NAME|FILE|RUN", _networks)
BASELINE = NameType("NAME", _baselines, has_files=False)
SEARCH_PRESET = NameType("NAME|FILE", _presets("searches"))
TRAIN_PRESET = NameType("NAME|FILE", _presets("trainings"))
