"""From the files that somebody names to the sections of a page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

from latlut.errors import ImportFileError
from latlut.files.kinds import but_it_is
from latlut.reports.page.comparison_part import comparison_section, is_comparison
from latlut.reports.page.difference_part import difference_section
from latlut.reports.page.parts import Section
from latlut.reports.page.search_part import architecture_blocks, is_search, search_section
from latlut.reports.page.table_part import table_section
from latlut.reports.page.training_part import is_training, training_section
from latlut.spaces.shipped import shipped_architectures
from latlut.table.table import LatencyTable

#: Tables of one page that are compared with each other, two at a time.
MOST_COMPARED = 4
_WANTED = (
    "a report shows latency tables (.db), the folders of searches and trainings, architectures "
    "(.json, or a shipped name) and comparisons (latlut compare --csv)"
)


def sections_of(names: Sequence[str]) -> list[Section]:
    """What a page shows of each file, in their order; tables are then compared with each other.

    A file that is named several times, also by other spellings, is shown once.

    Args:
        names: paths, bare names of tables, or names of architectures that ship with latlut.

    Raises:
        LatlutError: a file is of no kind that a page shows, or cannot be read.
    """
    sections: list[Section] = []
    with ExitStack() as stack:
        tables: list[LatencyTable] = []
        seen: set[Path] = set()
        for name in names:
            path = Path(name)
            shipped = shipped_architectures().get(name)
            if shipped is not None and not path.exists():
                path = shipped
            if path.is_dir():
                sections += _of_folder(path, seen)
            elif path.exists() and _is_seen(path, seen):
                continue
            elif path.suffix.lower() == ".csv":
                if not is_comparison(path):
                    raise ImportFileError(f"{path} is no comparison of networks; {_WANTED}")
                sections.append(comparison_section(path))
            elif path.suffix.lower() == ".json":
                blocks = tuple(architecture_blocks(path, path.stem, (1024, 2048)))
                sections.append(Section(path.stem, str(path), "architecture", blocks))
            elif path.suffix.lower() in ("", ".db", ".sqlite"):
                table = stack.enter_context(LatencyTable.open(name))
                if path.exists() or not _is_seen(table.path, seen):
                    sections.append(table_section(table))
                    tables.append(table)
            else:
                raise ImportFileError(f"{path} cannot be shown{but_it_is(path)}; {_WANTED}")
        sections += [
            difference_section(before, after)
            for before, after in combinations(tables[:MOST_COMPARED], 2)
        ]
    return sections


def _is_seen(path: Path, seen: set[Path]) -> bool:
    """Whether a file or folder was seen before; from now on it was."""
    whole = path.resolve()
    if whole in seen:
        return True
    seen.add(whole)
    return False


def _of_folder(path: Path, seen: set[Path]) -> list[Section]:
    if is_training(path):
        return [] if _is_seen(path, seen) else [training_section(path)]
    if is_search(path):
        inside = [item for item in sorted(path.iterdir()) if item.is_dir() and is_training(item)]
        shown = [] if _is_seen(path, seen) else [search_section(path)]
        return shown + [training_section(item) for item in inside if not _is_seen(item, seen)]
    raise ImportFileError(f"{path} is no folder of a search or of a training; {_WANTED}")
