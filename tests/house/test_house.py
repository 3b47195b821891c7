"""The house rules: imports point one way, importing latlut is cheap, the folders are in place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rooms
from checkout import ROOT

from latlut.cli import COMMANDS

#: What a room may not reach, not even through others.
NEVER_REACHES = {
    "table": {"engines", "measure"},
    "pricing": {"engines", "measure"},
    "engines": {"table", "measure"},
    "search": {"engines", "measure", "validation"},
}

HEAVY = {
    "matplotlib", "numpy", "onnx", "onnxruntime", "openvino", "pandas", "pyarrow", "pydantic",
    "rich", "scipy", "sklearn", "sqlite_utils", "torch",
}  # fmt: skip


@pytest.mark.parametrize("package", rooms.FLOORS)
def test_every_room_has_its_floor(package: str) -> None:
    declared = [room for floor in rooms.FLOORS[package] for room in floor]
    assert sorted(declared) == sorted(rooms.rooms(package)), f"see FLOORS in {rooms.__file__}"


@pytest.mark.parametrize("package", rooms.FLOORS)
def test_imports_point_one_way(package: str) -> None:
    wrong = rooms.upward(package)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", rooms.FLOORS)
def test_rooms_do_not_import_each_other_in_a_circle(package: str) -> None:
    circle = rooms.circle_of(set(rooms.arrows(package)))
    assert circle is None, " -> ".join(circle or [])


def test_files_do_not_import_each_other_in_a_circle() -> None:
    circle = rooms.file_circle()
    assert circle is None, " -> ".join(circle or [])


SQL = re.compile(
    r"\bSELECT\b.*\bFROM\b|\bINSERT\b.*\bINTO\b|\bUPDATE\b.*\bSET\b|\bDELETE FROM\b|\bPRAGMA\b",
    re.DOTALL,
)


def test_only_the_table_speaks_sql() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value[:60]}"
        for path in rooms.source_files()
        if rooms.room_of(rooms.module_name(path), "latlut") != "table"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]
    assert not wrong, "ask a function of table/ instead:\n" + "\n".join(wrong)


def test_the_picture_of_the_rooms_is_of_these_imports() -> None:
    drawn = rooms.PICTURE.read_text(encoding="utf-8")
    assert rooms.arrows_text() in drawn, "draw it again: python tests/rooms.py --draw"


def test_the_house_is_small() -> None:
    assert len(rooms.rooms("latlut")) <= 25
    assert len(rooms.FLOORS["latlut"]) <= 10


@pytest.mark.parametrize("room", NEVER_REACHES)
def test_what_a_room_never_reaches(room: str) -> None:
    edges = rooms.arrows("latlut")
    route = {room: room}
    waiting = [room]
    while waiting:
        current = waiting.pop()
        for source, imported in edges:
            if source == current and imported not in route:
                route[imported] = f"{route[current]} -> {imported}"
                waiting.append(imported)
    wrong = [route[reached] for reached in sorted(NEVER_REACHES[room] & set(route))]
    assert not wrong, "\n".join(wrong)


def test_commands_import_inside_their_bodies() -> None:
    allowed = {"__future__", "click", "cloup", *sys.stdlib_module_names}
    #: What --engine and --precision take; it imports no engine.
    names_alone = {"latlut.engines"}
    wrong = [
        str(item)
        for path in rooms.source_files()
        if rooms.room_of(rooms.module_name(path), "latlut") == "cli"
        for item in rooms.imports_of(path)
        if item.is_at_top
        and item.imported.split(".")[0] not in allowed
        and item.imported not in names_alone
        and rooms.room_of(item.imported, "latlut") not in ("cli", "errors", "version", "shell")
    ]
    assert not wrong, "import inside the command's body:\n" + "\n".join(wrong)


def test_no_command_imports_another() -> None:
    """What two of them need is a function of the library, or in a file that is no command."""
    commands = {command.home.partition(":")[0] for command in COMMANDS.values()}
    wrong = [
        str(item)
        for item in rooms.library_imports()
        if item.module in commands and item.imported in commands
    ]
    assert not wrong, "\n".join(wrong)


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh interpreter imports when it runs with ``arguments``."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import latlut"), ("-m", "latlut", "--help"), ("cli.py", "--version")],
    ids=["import latlut", "latlut --help", "python cli.py --version"],
)
def test_starting_is_cheap(arguments: tuple[str, ...]) -> None:
    loaded = imported_by(*arguments)
    assert "latlut" in loaded
    assert not loaded & HEAVY


def test_spaces_need_no_torch() -> None:
    loaded = imported_by("-c", "from latlut.spaces import Architecture, FasterSegSpace")
    assert not loaded & {"torch", "pandas", "matplotlib"}


def test_estimating_needs_no_torch() -> None:
    code = (
        "from latlut.operators.registry import operator_kinds\n"
        "from latlut.pricing.estimator import estimate\n"
        "assert 'zoomed_conv' in operator_kinds()"
    )
    assert "torch" not in imported_by("-c", code)


def test_public_names_are_what_they_say() -> None:
    import latlut
    import latlut.opspec
    import latlut.pricing.estimator
    import latlut.table.table

    assert latlut.OpSpec is latlut.opspec.OpSpec
    assert latlut.LatencyTable is latlut.table.table.LatencyTable
    assert latlut.estimate is latlut.pricing.estimator.estimate
    assert {"LatencyTable", "OpSpec", "estimate"} <= set(dir(latlut))
    with pytest.raises(AttributeError, match="no attribute 'estimation'"):
        _ = latlut.estimation  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["latlut", "search", "profiles", "reports", "tests", "cli.py", "pyproject.toml"]
)
def test_top_level_name_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", ["search", "reports", "profiles"])
def test_folder_is_linked_into_the_package(name: str) -> None:
    link = ROOT / "latlut" / name
    assert link.is_symlink(), f"{link} is a symbolic link to ../{name}"
    assert link.readlink() == Path("..") / name


def test_no_file_reaches_outside_the_project() -> None:
    outside = ("../" + "shared", "/work/" + "shared", "/work/" + "main")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
            # tests compare with the authors' own code where a machine has it
            is_comparison = name.startswith("tests/") and "fasterseg" in line.lower()
            if any(text in line for text in outside) and not is_comparison:
                wrong.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not wrong, "\n".join(wrong)
