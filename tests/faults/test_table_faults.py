"""Tables meet kills and failing disks: whole or as they were, and the next command goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.injecting import DISK_FAULTS, KILLS, Injector, case_count

from latlut.table.table import LatencyTable

MODULES = ("latlut.cli.table", "latlut.table.import_export", "latlut.table.merging", "pandas",
           "scipy.special", "scipy.optimize", "scipy.stats")  # fmt: skip
SET = [f"--set={pair}" for pair in ("target=cpu", "device_model=x", "engine=e", "engine_version=1")]
FAULTS = (*KILLS, *DISK_FAULTS)


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    with Injector(MODULES) as started:
        yield started


def _csv(folder: Path, name: str, first: int, rows: int) -> None:
    lines = [f"conv 4->4 stride 1 at 8x{first + row},{1 + row}" for row in range(rows)]
    (folder / f"{name}.csv").write_text("\n".join(["op_spec,latency_ms", *lines]) + "\n")


def _import(injector: Injector, folder: Path, name: str) -> None:
    words = ["table", "import", f"{name}.csv", "--table", f"{name}.db", *SET]
    found = injector.run(words, folder)
    assert found.code == 0, found.output


@pytest.fixture
def folder(tmp_path: Path, injector: Injector) -> Path:
    """Two tables of one identity, and a file to import."""
    found = tmp_path / "tables"
    found.mkdir()
    for name, first in (("a", 8), ("b", 20)):
        _csv(found, name, first, 4)
        _import(injector, found, name)
    _csv(found, "new", 40, 20)
    return found


def _keys(path: Path) -> set[str]:
    with LatencyTable.open(path) as table:
        assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        return {entry.key for entry in table}


#: Command, and the file that it writes.
COMMANDS = {
    "creation": (["table", "import", "new.csv", "--table", "new.db", *SET], "new.db"),
    "import": (["table", "import", "new.csv", "--table", "a.db", *SET], "a.db"),
    "merge": (["table", "merge", "a.db", "b.db"], "a.db"),
    "export": (["table", "export", "a.db", "a-out.csv"], "a-out.csv"),
}


def _sweep(injector: Injector, folder: Path, name: str, count: int) -> None:
    words, written = COMMANDS[name]
    path = folder / written

    def state() -> object:
        if not path.exists():
            return None
        return _keys(path) if path.suffix == ".db" else path.read_text()

    before, untouched = state(), path.read_bytes() if path.exists() else None
    assert injector.run(words, folder).code == 0
    after = state()
    assert after != before
    path.unlink()
    if untouched is not None:
        path.write_bytes(untouched)
    cases = 0
    for fault, at, found in injector.sweep(words, folder, FAULTS, count, seed=3):
        cases += 1
        where = f"{name}, {fault.name} at {at}: {found.output}"
        assert not found.has_traceback, where
        assert found.code in ((-9,) if fault in KILLS else (0, 2)), where
        now = state()
        assert now in (before, after), where
        again = injector.run(words, folder)
        assert again.code == 0, f"{where}\nafterwards: {again.output}"
        assert state() == after, where
        assert not list(folder.glob(".*")), where
        side = {path.name for path in folder.iterdir()} - {"a.csv", "b.csv", "new.csv"}
        assert side <= {"a.db", "b.db", written}, where
    assert cases


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_leaves_all_or_nothing(injector: Injector, folder: Path, name: str) -> None:
    _sweep(injector, folder, name, 20)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_many_faults_leave_all_or_nothing(injector: Injector, folder: Path, name: str) -> None:
    """``LATLUT_FAULTS`` cases of each command."""
    _sweep(injector, folder, name, case_count(100))
