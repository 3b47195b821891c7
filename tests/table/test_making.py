"""Tables are made whole or not at all, whoever else makes one, and whatever was left behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT

from latlut.errors import IdentityError, TableError
from latlut.files.writing import folder_beside, place_new, remove_abandoned
from latlut.machine.provenance import collect_environment
from latlut.table import recording
from latlut.table.history import latest_runs
from latlut.table.identity import Identity
from latlut.table.import_export import import_file
from latlut.table.table import LatencyTable

IDENTITY = {"target": "cpu", "device_model": "x", "engine": "e", "engine_version": "1"}


def _csv(path: Path, rows: int = 1) -> Path:
    lines = [f"conv 4->4 stride 1 at 8x{8 + row},{1 + row}" for row in range(rows)]
    path.write_text("\n".join(["op_spec,latency_ms", *lines]) + "\n")
    return path


def test_of_two_processes_one_makes_the_table_and_the_other_continues_it(tmp_path: Path) -> None:
    """Both begin together; those of another identity are told which one there is."""
    program = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from latlut.errors import IdentityError
        from latlut.table import recording
        from latlut.table.identity import Identity
        from latlut.table.table import LatencyTable
        import latlut.table.file_schema as s; s.own_schema()
        identity = Identity("cpu", "x", "e", sys.argv[3])
        print("ready", flush=True); sys.stdin.readline()
        try:
            with LatencyTable.create(sys.argv[2], identity) as table:
                recording.start_run(table, "profile", settings={}, environment={})
        except IdentityError as error:
            print("refused" if "engine_version" in str(error) else error)
        else:
            print("written")
    """
    path = tmp_path / "new.db"
    command = [sys.executable, "-c", textwrap.dedent(program), str(ROOT), str(path)]
    started = [
        subprocess.Popen(
            [*command, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for version in ("1", "1", "2")
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in started]
    with LatencyTable.open(path) as table:
        winner = table.identity.engine_version
        runs = table.rows("SELECT count(*) AS n FROM runs")[0]["n"]
    assert said == (
        ["written", "written", "refused"] if winner == "1" else ["refused"] * 2 + ["written"]
    )
    assert runs == said.count("written")
    assert [found.name for found in tmp_path.iterdir()] == ["new.db"]


def test_a_refused_import_leaves_the_table_that_another_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.db"

    def too_late(file: Path, place: Path) -> None:
        monkeypatch.setattr("latlut.table.table.place_new", place_new)
        LatencyTable.create(place, Identity(**IDENTITY | {"engine": "other"})).close()
        place_new(file, place)

    monkeypatch.setattr("latlut.table.table.place_new", too_late)
    with pytest.raises(IdentityError, match="'other' here"):
        import_file(_csv(tmp_path / "a.csv"), path, dict(IDENTITY))
    with LatencyTable.open(path) as table:
        assert table.identity.engine == "other"


def test_a_new_table_that_cannot_be_opened_again_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, timeout_s: float = 0) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    file, path = _csv(tmp_path / "a.csv", rows=3), tmp_path / "new.db"
    with monkeypatch.context() as patch:
        patch.setattr("latlut.table.table.connect_writable", full)
        with pytest.raises(TableError, match="new.db is made.*cannot be opened.*disk is full"):
            import_file(file, path, dict(IDENTITY))
        with pytest.raises(TableError) as caught:  # one that was there is not said to be made
            import_file(file, path, dict(IDENTITY))
    assert "is made" not in str(caught.value)
    with LatencyTable.open(path) as table:
        assert len(table) == 3


def test_a_refused_import_makes_no_table(
    tmp_path: Path, measured: Path, identity: Identity
) -> None:
    """Neither a new one, nor a row in one that is there."""
    with LatencyTable.open(measured) as table:
        own = table.identity.to_dict()
        key = next(iter(table)).key
    text = f"op_spec,latency_ms\nconv 4->4 stride 1 at 9x9,1\n{key},2\n"
    file = tmp_path / "clash.csv"
    file.write_text(text)
    with pytest.raises(TableError, match="never replaces measurements"):
        import_file(file, measured, own)
    with LatencyTable.open(measured) as table:
        assert len(table) == 5 and len(latest_runs(table)) == 1
    with pytest.raises(IdentityError):
        import_file(file, tmp_path / "none.db", dict(IDENTITY, mode="sideways"))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("error", "is_made"), [("EPERM", True), ("EOPNOTSUPP", True), ("EIO", False)]
)
def test_where_links_are_unknown_the_place_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, is_made: bool
) -> None:
    import errno

    def no_links(*_: object) -> None:
        raise OSError(getattr(errno, error), "no links")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "new.db"
    if is_made:
        LatencyTable.create(path, Identity(**IDENTITY)).close()
        with pytest.raises(FileExistsError):
            place_new(_csv(tmp_path / "a.csv"), path)
        LatencyTable.open(path).close()
    else:
        with pytest.raises(TableError, match="cannot be made: no links"):
            LatencyTable.create(path, Identity(**IDENTITY))
        assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_table_that_is_not_there_is_kept(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "far" / "real.db")
    LatencyTable.create(link, Identity(**IDENTITY)).close()
    assert link.is_symlink()
    LatencyTable.open(tmp_path / "far" / "real.db").close()


def test_a_name_that_looks_like_a_uri_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file:e.db?mode=memory&x.db", "50%#a?.db", ":memory:.db"):
        report = import_file(_csv(tmp_path / "a.csv"), Path(name), dict(IDENTITY))
        assert report.op_specs == 1
        assert (tmp_path / name).stat().st_size > 4096
        with LatencyTable.open(Path(name)) as table:
            assert len(table) == 1


@pytest.mark.parametrize("pages", [0, 1])
def test_what_an_unfinished_creation_left_is_named(
    tmp_path: Path, identity: Identity, pages: int
) -> None:
    path = tmp_path / "left.db"
    connection = sqlite3.connect(path)
    if pages:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    path.touch()
    assert path.stat().st_size == 4096 * pages
    for open_it in (LatencyTable.open, lambda p: LatencyTable.create(p, identity)):
        with pytest.raises(TableError, match=f"(?s)creation was cut short.*rm -- {path}"):
            open_it(path)


# ---- what killed processes leave -----------------------------------------------------------


def test_abandoned_folders_go_and_those_in_use_stay(tmp_path: Path, measured: Path) -> None:
    left = tmp_path / ".a.csv.12345678.latlut-part"
    left.mkdir()
    (left / "a.csv").write_text("half")
    other = tmp_path / ".mine"
    other.mkdir()
    with folder_beside(tmp_path / "b.csv") as used:
        LatencyTable.open(measured).close()
        assert not left.exists()
        assert used.exists() and other.exists()
        remove_abandoned(tmp_path)
        assert used.exists()
    assert not used.exists()
    remove_abandoned(tmp_path / "no such folder")


def _running(path: Path, identity: Identity, **changes: object) -> None:
    environment = collect_environment() | changes
    with LatencyTable.create(path, identity) as table:
        recording.start_run(table, "profile", settings={}, environment=environment)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "running"),  # this very process
        ({"process_id": 2**22 - 3}, "killed"),
        ({"boot_id": "another boot"}, "killed"),
        ({"host": "elsewhere", "process_id": 2**22 - 3}, "running"),  # nobody here can know
    ],
)
def test_a_killed_run_is_recorded_by_the_next_command_that_reads(
    tmp_path: Path, identity: Identity, changes: dict[str, object], status: str
) -> None:
    path = tmp_path / "a.db"
    _running(path, identity, **changes)
    before = path.read_bytes()
    for _ in range(2):
        with LatencyTable.open(path) as table:
            assert list(latest_runs(table).values()) == [status]
    assert (path.read_bytes() == before) == (status == "running")
    assert [found.name for found in tmp_path.iterdir()] == ["a.db"]


def test_a_killed_run_is_left_where_another_process_is_writing(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    _running(path, identity, boot_id="another boot")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = wal")
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("latlut.table.table._BRIEFLY_S", 0.05)
    with LatencyTable.open(path) as table:
        assert list(latest_runs(table).values()) == ["running"]
    other.close()


def test_an_unfinished_import_of_an_earlier_version_is_killed(
    tmp_path: Path, identity: Identity
) -> None:
    path = tmp_path / "a.db"
    with LatencyTable.create(path, identity) as table:
        recording.start_run(table, "import", settings={}, environment={})
    with LatencyTable.open(path) as table:
        assert list(latest_runs(table).values()) == ["killed"]


# ---- logs in folders that are read-only ----------------------------------------------------


@pytest.fixture
def frozen_folder(tmp_path: Path):
    """A function that makes a folder's file system read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "frozen"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("has_index", [True, False])
def test_a_read_only_folder_with_a_log_is_read_with_the_log(
    measured: Path, frozen_folder: Path, has_index: bool
) -> None:
    writer = sqlite3.connect(measured)
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("UPDATE entries SET latency_ms = 0.0123, ci_low_ms = NULL, ci_high_ms = NULL")
    writer.commit()
    for ending in ("", "-wal", "-shm") if has_index else ("", "-wal"):
        shutil.copy(f"{measured}{ending}", frozen_folder / f"t.db{ending}")
    writer.close()
    subprocess.run(["mount", "-o", "remount,ro", str(frozen_folder)], check=True)
    with LatencyTable.open(frozen_folder / "t.db") as table:
        assert {entry.latency_ms for entry in table} == {0.0123}


def test_a_copy_of_what_is_being_written_is_refused(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latlut.table import storage

    Path(f"{measured}-wal").write_bytes(b"x" * 100)
    copyfile = shutil.copyfile

    def while_others_write(source: str, target: str) -> None:
        copyfile(source, target)
        os.utime(source, ns=(0, 0))

    monkeypatch.setattr(storage.shutil, "copyfile", while_others_write)
    with pytest.raises(TableError, match="another process is writing"):
        storage._copy_with_log(measured)


def test_what_is_committed_is_flushed(measured: Path) -> None:
    with LatencyTable.open(measured, is_writable=True) as table:
        assert table.rows("PRAGMA synchronous") == [{"synchronous": 2}]
        assert table.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]


# ---- transactions --------------------------------------------------------------------------


def test_a_part_of_a_transaction_fails_alone_and_all_of_it_together(measured: Path) -> None:
    with LatencyTable.open(measured, is_writable=True) as table:
        with table.writing() as db:
            db.execute("DELETE FROM entries WHERE op_spec_id = 1")
            with pytest.raises(TableError, match="no such table"), table.writing():
                db.execute("DELETE FROM entries")
                db.execute("DELETE FROM absent")
            assert len(table) == 4
        assert len(table) == 4
        with pytest.raises(TableError, match="no such table"), table.writing() as db:
            with table.writing():
                db.execute("DELETE FROM entries")
            assert len(table) == 0
            db.execute("DELETE FROM absent")
        assert len(table) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", -5), ("threads", 0), ("threads", True), ("threads", 1.5), ("threads", "²"),
        ("threads", 2**63), ("engine", None), ("engine", ["a"]), ("driver", {"a": 1}),
        ("engine", "a\nb"), ("engine", "a\0b"), ("engine", "\ud800"), ("engine", "x" * 1001),
        ("precision", 32),
    ],
)  # fmt: skip
def test_an_identity_is_text_and_a_count(field: str, value: object) -> None:
    with pytest.raises(IdentityError, match=field):
        Identity.from_dict(IDENTITY | {field: value})
    assert Identity.from_dict(IDENTITY | {"threads": "4"}) == replace(
        Identity(**IDENTITY), threads=4
    )
