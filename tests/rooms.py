"""The rooms of the code: who imports whom. What tests/house checks, and the picture in the docs.

    python tests/rooms.py            rooms, floors, arrows and circles
    python tests/rooms.py --draw     the same, and docs/rooms.svg

A room is a folder of latlut, or a file outside one; the folders of ``search/`` are rooms of their
own. Imports inside functions and those for type checkers count as all others do.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from checkout import ROOT

#: Package -> its floors, lowest first. A room imports from its own floor and from those below.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "latlut": (
        ("errors", "version", "timestamps", "shell", "heap"),
        ("opspec", "resources", "progress", "files"),
        ("stats", "machine", "operators", "predict"),
        ("spaces", "engines", "table"),
        ("pricing",),
        ("penalty",),
        ("measure",),
        ("validation", "search", "cluster"),
        ("reports", "commands"),
        ("cli",),
    ),
    "latlut.search": (
        ("data", "runs"),
        ("supernet", "networks"),
        ("penalty", "train"),
        ("derive", "deploy"),
        ("cosearch",),
    ),
}

#: Beyond the floors: what a room may not import.
NEVER = {
    "search": {"machine", "engines", "measure", "cluster", "validation"},
    "table": {"engines"},
    "reports": {"engines"},
}

#: Not rooms: the packages' own fronts, which import lazily, and ``python -m latlut``.
FRONTS = {"latlut", "latlut.__main__", "latlut.search"}


class Import(NamedTuple):
    """The file ``path`` names the module ``imported``; both modules by their dotted names."""

    path: str
    line: int
    module: str
    imported: str
    is_at_top: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.imported}"


def source_files() -> list[Path]:
    """Every module of the library once, under the folder that holds it."""
    inside = [
        path
        for path in sorted(ROOT.glob("latlut/**/*.py"))
        if path.relative_to(ROOT).parts[1] not in ("search", "reports", "profiles")
    ]
    return inside + sorted([*ROOT.glob("search/**/*.py"), *ROOT.glob("reports/**/*.py")])


def module_name(path: Path) -> str:
    """``latlut.search.data`` for search/data/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "latlut" else ("latlut", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str, package: str) -> str | None:
    """The room of ``package`` that a module is in; None for a front and for what is outside."""
    if module in FRONTS or not module.startswith(f"{package}."):
        return None
    return module.removeprefix(f"{package}.").partition(".")[0]


def imports_of(path: Path) -> Iterator[Import]:
    """All imports of a file that name modules; of ``from package import name`` the module is
    ``package.name`` where that is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    elsewhere = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    own, shown = module_name(path), str(path.relative_to(ROOT))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = list(dict.fromkeys(name if name in MODULES else node.module for name in inner))
        else:
            continue
        for name in names:
            yield Import(shown, node.lineno, own, name, node not in elsewhere)


MODULES = {module_name(path) for path in source_files()}


def library_imports() -> list[Import]:
    """Every import of one module of latlut by another."""
    found = [item for path in source_files() for item in imports_of(path)]
    return [item for item in found if item.imported in MODULES and item.imported != item.module]


def arrows(package: str) -> dict[tuple[str, str], list[Import]]:
    """(room, imported room) of a package -> the imports behind it."""
    found: dict[tuple[str, str], list[Import]] = defaultdict(list)
    for item in library_imports():
        here, there = room_of(item.module, package), room_of(item.imported, package)
        if here and there and here != there:
            found[here, there].append(item)
    return dict(found)


def circle_of(edges: set[tuple[str, str]]) -> list[str] | None:
    """Names along a circle of imports, None where there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for source, imported in edges:
        graph[source].add(imported)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return None


def file_circle() -> list[str] | None:
    """Modules along a circle; packages' fronts, which import lazily, are no part of one."""
    edges = {(item.module, item.imported) for item in library_imports()}
    return circle_of({(a, b) for a, b in edges if a not in FRONTS and b not in FRONTS})


def upward(package: str) -> list[str]:
    """Imports from a lower floor to a higher one, and those that are forbidden besides."""
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    return [
        f"{item}: {here} lies below {there}" if floor[there] > floor[here] else f"{item}: forbidden"
        for (here, there), items in arrows(package).items()
        for item in items
        if floor[there] > floor[here] or (package == "latlut" and there in NEVER.get(here, ()))
    ]


def rooms(package: str) -> set[str]:
    """All rooms of a package."""
    found = {room_of(module, package) for module in MODULES}
    return {room for room in found if room is not None and room != "profiles"}


def report() -> str:
    """What the imports come to, in a few lines."""
    lines = []
    for package, floors in FLOORS.items():
        edges = arrows(package)
        lines.append(
            f"{package}: {len(rooms(package))} rooms on {len(floors)} floors, {len(edges)} arrows, "
            f"{len(upward(package))} imports upward or forbidden, "
            f"circle of rooms: {' -> '.join(circle_of(set(edges)) or ['none'])}"
        )
    circle = file_circle()
    lines.append(f"circle of files: {' -> '.join(circle) if circle else 'none'}")
    return "\n".join(lines)


#: What every room needs is left out of the picture: arrows to it would say nothing.
BASICS = {
    "errors",
    "version",
    "timestamps",
    "shell",
    "opspec",
    "resources",
    "progress",
    "files",
}
PICTURE = ROOT / "docs" / "rooms.svg"


def draw(path: Path = PICTURE) -> None:
    """Draw both packages' rooms, floor by floor, with an arrow for every room that imports one."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.size": 10})
    figure, axes = plt.subplots(1, 2, figsize=(13, 8.5), width_ratios=[5, 4])
    for axis, (package, floors) in zip(axes, FLOORS.items(), strict=True):
        shown = [[room for room in floor if room not in BASICS] for floor in floors]
        shown = [floor for floor in shown if floor]
        widest = max(map(len, shown))
        places = {
            room: ((number + 0.5) * widest / len(floor), height)
            for height, floor in enumerate(shown)
            for number, room in enumerate(floor)
        }
        edges = arrows(package)
        for (here, there), items in sorted(edges.items()):
            if here not in places or there not in places:
                continue
            (x0, y0), (x1, y1) = places[here], places[there]
            axis.annotate(
                "", (x1, y1 + 0.17), (x0, y0 - 0.17),
                arrowprops={
                    "arrowstyle": "-|>", "color": "#64748b", "shrinkA": 0, "shrinkB": 0,
                    "lw": 0.5 + min(len(items), 20) / 10, "alpha": 0.35 if y0 - y1 > 1 else 0.8,
                    "connectionstyle": f"arc3,rad={0.08 * (y0 - y1 - 1):.2f}",
                },
            )  # fmt: skip
        for room, (x, y) in places.items():
            axis.text(
                x, y, room, ha="center", va="center", zorder=3,
                bbox={"boxstyle": "round,pad=0.4", "fc": "#f1f5f9", "ec": "#334155", "lw": 0.8},
            )  # fmt: skip
        title = package.removeprefix("latlut.") if package != "latlut" else package
        axis.set_title(f"{title}: {len(rooms(package))} rooms, {len(edges)} arrows")
        axis.set_xlim(0, widest)
        axis.set_ylim(-0.5, len(shown) - 0.5)
        axis.axis("off")
    figure.text(
        0.5, 0.02, f"an arrow: imports, the wider the more; not drawn: {', '.join(sorted(BASICS))}",
        ha="center", color="#475569",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, metadata={"Date": None, "Description": arrows_text()})
    plt.close(figure)


def arrows_text() -> str:
    """All arrows in one line, which the picture holds: a test compares it with the imports."""
    return "; ".join(
        f"{package}: {', '.join(f'{a} to {b}' for a, b in sorted(arrows(package)))}"
        for package in FLOORS
    )


if __name__ == "__main__":
    print(report())
    for package in FLOORS:
        print("\n".join(upward(package)))
    if "--draw" in sys.argv:
        draw()
