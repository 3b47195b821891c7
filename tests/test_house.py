"""The house rules: imports point one way, importing latlut is cheap, the folders are in place."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Lowest first. A unit (a module of latlut, or one of its packages) imports from its own layer
#: and from those above it in this list. A new module has to be entered here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("opspec", "resources", "inert_pickle"),
    ("spaces", "operators", "variants", "pickled_npy", "entry_rows"),
    (
        "plans",
        "plan_file",
        "graphs",
        "contexts",
        "onnx_files",
        "fasterseg_npy",
        "whole_files",
        "bench_result",
    ),
    ("stats", "agreement", "devicelock", "identity", "schema", "storage"),
    (
        "environment",
        "affinity",
        "targets",
        "gpus",
        "gpustate",
        "builds",
        "differences",
        "entry_errors",
        "stopwatch",
        "parts",
        "progress",
    ),
    ("timing", "table"),
    (
        "engines",
        "calibration",
        "estimator",
        "importers",
        "penalty",
        "recording",
        "sentinels",
        "summary",
        "table_space",
    ),
    ("groups", "coverage", "worklist", "calibrate", "network_timing", "residuals", "scores"),
    (
        "profiler",
        "bench",
        "measuring",
        "selftest",
        "compare",
        "merging",
        "table_files",
        "layers",
        "composition",
        "tensorrt_plan",
    ),
    ("validate",),
    ("search", "reports"),
    ("cli",),
)
LAYER_OF = {unit: number for number, units in enumerate(LAYERS) for unit in units}

#: Beyond the layers: what the first may not reach, not even through others.
NEVER_REACHES = {
    "table": {"engines", "timing", "profiler"},
    "estimator": {"engines", "timing", "profiler"},
    "engines": {"table", "profiler"},
    "search": {"profiler", "validate", "bench", "engines", "timing"},
}
#: What the first may not import itself; a result's type may come from a module that does.
NEVER_IMPORTS = {"reports": {"engines", "timing"}}

#: Not units: the package's own front, which imports lazily (checked below), and ``python -m``.
FRONT = {"latlut/__init__.py", "latlut/__main__.py"}

HEAVY = {
    "matplotlib", "numpy", "onnx", "onnxruntime", "openvino", "pandas", "pyarrow", "pydantic",
    "rich", "scipy", "sklearn", "sqlite_utils", "torch",
}  # fmt: skip


class Import(NamedTuple):
    """An import statement of ``path`` that names the module ``name`` (dotted, absolute)."""

    path: str
    line: int
    name: str
    is_at_top: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def source_files() -> list[Path]:
    """Every module of the library once, under the folder that holds it."""
    inside = [
        path
        for path in sorted(ROOT.glob("latlut/**/*.py"))
        if path.relative_to(ROOT).parts[1] not in ("search", "reports", "profiles")
    ]
    return inside + sorted([*ROOT.glob("search/**/*.py"), *ROOT.glob("reports/**/*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "latlut" else ("latlut", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(dotted: str) -> str | None:
    """``"engines"`` for latlut.engines.ort; None for the package's front and for other packages."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "latlut" and len(parts) > 1 else None


def imports_of(path: Path) -> Iterator[Import]:
    """All imports of a file, relative ones resolved; those inside functions and those for type
    checkers alone are included and not at the top."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    inside_functions = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    shown = str(path.relative_to(ROOT))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from latlut import table" names a module, "from latlut.table import X" an object
            names = [f"latlut.{a.name}" for a in node.names] if module == "latlut" else [module]
        else:
            continue
        for name in names:
            yield Import(shown, node.lineno, name, node not in inside_functions)


def library_imports() -> list[tuple[str, str, Import]]:
    """(unit, imported unit, statement) for every import of one unit of latlut by another."""
    edges = []
    for path in source_files():
        if str(path.relative_to(ROOT)) in FRONT:
            continue
        unit = unit_of(module_name(path))
        for statement in imports_of(path):
            imported = unit_of(statement.name)
            if unit and imported and imported not in (unit, "__version__"):
                edges.append((unit, imported, statement))
    return edges


def test_every_module_declares_its_layer() -> None:
    units = {
        unit_of(module_name(path)): path.relative_to(ROOT)
        for path in source_files()
        if str(path.relative_to(ROOT)) not in FRONT
    }
    missing = {str(path) for unit, path in units.items() if unit not in LAYER_OF}
    assert not missing, f"declare its layer in {__file__}: {sorted(missing)}"


def test_imports_point_one_way() -> None:
    wrong = [
        f"{statement}: {unit} lies below {imported}"
        for unit, imported, statement in library_imports()
        if unit in LAYER_OF and LAYER_OF.get(imported, -1) > LAYER_OF[unit]
    ]
    unknown = [
        f"{statement}: not a module of latlut (public names come from their own module)"
        for _, imported, statement in library_imports()
        if imported not in LAYER_OF
    ]
    assert not wrong + unknown, "\n".join(wrong + unknown)


def test_units_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for unit, imported, _ in library_imports():
        graph.setdefault(unit, set()).add(imported)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("unit", NEVER_REACHES)
def test_what_a_unit_never_reaches(unit: str) -> None:
    edges = library_imports()
    route = {unit: unit}
    waiting = [unit]
    while waiting:
        current = waiting.pop()
        for source, imported, _ in edges:
            if source == current and imported not in route:
                route[imported] = f"{route[current]} -> {imported}"
                waiting.append(imported)
    wrong = [route[reached] for reached in sorted(NEVER_REACHES[unit] & set(route))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("unit", NEVER_IMPORTS)
def test_what_a_unit_never_imports(unit: str) -> None:
    wrong = [
        str(statement)
        for source, imported, statement in library_imports()
        if source == unit and imported in NEVER_IMPORTS[unit]
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_import_inside_their_bodies() -> None:
    allowed = {"__future__", "click", *sys.stdlib_module_names}
    wrong = [
        str(statement)
        for path in source_files()
        if unit_of(module_name(path)) == "cli"
        for statement in imports_of(path)
        if statement.is_at_top
        and statement.name.split(".")[0] not in allowed
        and unit_of(statement.name) not in ("cli", "errors", "__version__")
    ]
    assert not wrong, "import inside the command's body:\n" + "\n".join(wrong)


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


def test_public_names_are_what_they_say() -> None:
    import latlut
    import latlut.estimator
    import latlut.opspec
    import latlut.table

    assert latlut.OpSpec is latlut.opspec.OpSpec
    assert latlut.LatencyTable is latlut.table.LatencyTable
    assert latlut.estimate is latlut.estimator.estimate
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
