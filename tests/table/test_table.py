"""The table file: identity, lookups, and what happens when something goes wrong around it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import IdentityError, MissingEntryError, TableError, UnknownNameError
from latlut.measure.plans import Plan
from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.samples import pack_samples, unpack_samples
from latlut.table.schema import migrations
from latlut.table.storage import find_table, table_to_make
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import insert


def test_lookup_gives_the_entry_with_its_interval(measured: Path, plan: Plan) -> None:
    with LatencyTable.open(measured) as table:
        assert len(table) == len(plan.specs)
        for spec in plan.specs:
            entry = table.lookup(spec)
            assert entry.spec == spec
            assert entry.ci_low_ms < entry.latency_ms < entry.ci_high_ms
            assert entry.passes == 5
        many = table.latencies_ms(plan.specs)
        assert many.dtype == np.float64
        assert many.tolist() == [table.lookup(spec).latency_ms for spec in plan.specs]


def test_entries_of_many_op_specs_are_asked_for_at_once(
    measured: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latlut.table.table._AT_ONCE", 2)
    unknown = OpSpec("conv", (3, 5, 7), 9)
    asked = [*plan.specs[2:], unknown, *plan.specs]
    with LatencyTable.open(measured) as table:
        assert table.held(asked) == [table.lookup(spec) for spec in asked if spec != unknown]
        assert table.held([unknown]) == table.held([]) == []


def test_a_miss_names_the_nearest_entry_and_the_command(measured: Path) -> None:
    with LatencyTable.open(measured) as table:
        with pytest.raises(MissingEntryError) as caught:
            table.lookup(OpSpec("conv", (8, 16, 18), 8))
        text = str(caught.value)
        assert "no entry for conv 8->8 stride 1 at 16x18" in text
        assert "nearest measured: conv 8->8 stride 1 at 16x16" in text
        assert f"latlut profile --table {measured} --op 'conv 8->8 stride 1 at 16x18'" in text
        with pytest.raises(MissingEntryError, match="no such operator"):
            table.latencies_ms([OpSpec("skip", (8, 16, 16), 8, stride=2)])


def test_the_nearest_entry_is_nearest_in_value(db_path: Path, identity: Identity) -> None:
    with LatencyTable.create(db_path, identity) as table:
        specs = [
            OpSpec("conv", (8, 16, 16), 8, kernel_size=5),
            OpSpec("conv", (8, 16, 16), 8, kernel_size=11),
            OpSpec("conv", (64, 16, 16), 8, kernel_size=7, dilation=2),
        ]
        ids = recording.add_op_specs(table, specs)
        run = recording.start_run(table, "import", settings={}, environment={})
        pass_id = recording.start_pass(table, run, 0)
        recording.add_readings(table, pass_id, dict.fromkeys(ids.values(), 1.0))
        summarise(table)
        asked = OpSpec("conv", (8, 16, 16), 8, kernel_size=7)
        assert table.nearest(asked) == specs[0]  # not the one that names the same options
        assert table.nearest(OpSpec("conv", (8, 16, 16), 8, kernel_size=9)) == specs[1]


def test_commands_in_messages_work_when_pasted(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "my tables" / "a $b.db"
    with LatencyTable.create(path, identity) as table:
        recording.keep_own_modules(table, ["/lab/my ops.py"])
        recording.keep_own_modules(table, ["/lab/my ops.py", "lab.ops"])
        with pytest.raises(MissingEntryError) as caught:
            table.lookup(OpSpec("conv", (8, 16, 18), 8))
    line = str(caught.value).split("add it with: ")[1]
    assert shlex.split(line) == [
        "latlut", "profile", "--table", str(path), "--op", "conv 8->8 stride 1 at 16x18",
        "--operators", "/lab/my ops.py", "--operators", "lab.ops",
    ]  # fmt: skip


def test_another_identity_is_refused_field_by_field(measured: Path, identity: Identity) -> None:
    other = replace(identity, engine_version="2.0", threads=4)
    with pytest.raises(IdentityError) as caught:
        LatencyTable.create(measured, other)
    assert "engine_version: '1.0' here, '2.0' there" in str(caught.value)
    assert "threads: 1 here, 4 there" in str(caught.value)


def test_the_same_identity_continues(measured: Path, identity: Identity, plan: Plan) -> None:
    with LatencyTable.create(measured, identity) as table:
        assert len(table) == len(plan.specs)


def test_views_read_well_in_plain_sqlite(measured: Path) -> None:
    connection = sqlite3.connect(measured)
    for view in ("latencies", "readings", "suspects", "failed", "run_log"):
        connection.execute(f"SELECT * FROM {view}").fetchall()
    (count,) = connection.execute("SELECT count(*) FROM latencies WHERE latency_ms > 0").fetchone()
    assert count == 5
    (status,) = connection.execute("SELECT status FROM run_log").fetchone()
    assert status == "done"


def test_only_one_file_remains(measured: Path) -> None:
    assert sorted(path.name for path in measured.parent.iterdir()) == [measured.name]


# ---- files that are no tables --------------------------------------------------------------


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _other_sqlite(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('latlut', 'm999_future', 'now')"
    )
    connection.commit()
    connection.close()


def _garbled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_text("op_spec,latency_ms\n"), "not a table.*table import"),
        (lambda path: path.write_bytes(b""), "not a table"),
        (_truncated, "truncated"),
        (_other_sqlite, "not a latlut table"),
        (_newer, "newer latlut.*m999_future"),
        (lambda path: path.unlink(), "make one with: latlut profile"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    ],
)
def test_what_is_no_table_is_refused(measured: Path, spoil, words: str) -> None:
    spoil(measured)
    with pytest.raises(TableError, match=f"(?s){words}"):
        LatencyTable.open(measured)


def test_a_garbled_file_is_an_error_with_advice(measured: Path) -> None:
    _garbled(measured)
    with pytest.raises(TableError), LatencyTable.open(measured) as table:
        list(table)
        table.rows("PRAGMA integrity_check")
        assert table.rows("PRAGMA integrity_check")[0]["integrity_check"] == "ok"


def test_an_older_schema_is_brought_up_to_date_when_written(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_migrations", list(migrations._migrations))

    @migrations()
    def m998_added_later(db) -> None:
        db.conn.execute("CREATE TABLE added_later (x INTEGER)")

    before = measured.read_bytes()
    with LatencyTable.open(measured) as table:  # read through a copy
        assert table.rows("SELECT * FROM added_later") == []
        assert len(table) == 5
    assert measured.read_bytes() == before
    with LatencyTable.open(measured, is_writable=True) as table:
        assert table.rows("SELECT * FROM added_later") == []
    LatencyTable.open(measured).close()


def test_a_table_without_launches_is_read_as_before(
    identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the schema before them: no new key in what is printed of it."""
    path = tmp_path / "old.db"
    older = [step for step in migrations._migrations if step.name != "m007_launches"]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_migrations", older)
        with LatencyTable.create(path, identity) as table:
            ids = recording.add_op_specs(table, [OpSpec.parse("conv 8->8 at 16x16")])
            with table.writing() as db:
                insert(
                    db, "entries", op_spec_id=next(iter(ids.values())), latency_ms=0.5,
                    passes=1, n=12, updated_at="2026-01-01",
                )  # fmt: skip
    with LatencyTable.open(path) as table:
        (entry,) = table
        assert (entry.latency_ms, entry.host_share, entry.launch) == (0.5, None, None)
        assert table.rows("SELECT * FROM launches") == []
        assert not {"host_share", "launch"} & set(table.frame().columns)
    with LatencyTable.open(path, is_writable=True) as table:
        assert table.rows("SELECT launch FROM entries") == [{"launch": None}]


# ---- names ---------------------------------------------------------------------------------


def test_bare_names_are_looked_up_in_profiles(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    shutil.copy(measured, folder / "cpu-onnxruntime-fp32.db")
    monkeypatch.chdir(tmp_path)
    assert find_table("cpu") == Path("profiles/cpu-onnxruntime-fp32.db")
    assert find_table("cpu-onnxruntime-fp32") == Path("profiles/cpu-onnxruntime-fp32.db")
    shutil.copy(measured, folder / "cpu-openvino-fp32.db")
    with pytest.raises(UnknownNameError, match="cpu-onnxruntime-fp32, cpu-openvino-fp32"):
        find_table("cpu")
    with pytest.raises(UnknownNameError, match="cpu-openvino-fp32"):
        find_table("gpu")
    with pytest.raises(UnknownNameError, match="did you mean 'cpu-openvino-fp32'"):
        find_table("cpu-openvin")


def test_a_table_is_not_taken_for_those_whose_names_go_on_from_its_own(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    for stem in ("cpu-ort-fp32", "cpu-ort-fp32-batch2", "cpu-ort-fp32-2threads"):
        shutil.copy(measured, folder / f"{stem}.db")
    monkeypatch.chdir(tmp_path)
    for find in (find_table, table_to_make):
        assert find("cpu") == folder.relative_to(tmp_path) / "cpu-ort-fp32.db"
        assert find("cpu-ort-fp32-batch2").name == "cpu-ort-fp32-batch2.db"
    (folder / "cpu-ort-fp32.db").unlink()
    for find in (find_table, table_to_make):
        with pytest.raises(UnknownNameError, match="write the whole name"):
            find("cpu")


def test_a_new_table_of_a_bare_name_is_made_in_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert table_to_make("mine") == Path("profiles/mine.db")
    assert table_to_make("1080ti") == Path("profiles/1080ti.db")  # shipped ones are not written
    assert find_table("1080ti").name == "1080ti-fasterseg.db"
    for path in ("mine.db", "./mine", Path("mine")):
        assert table_to_make(path) == find_table(path) == Path(path)


# ---- other processes, full and read-only disks ---------------------------------------------


def test_a_writer_and_readers_never_see_a_locked_database(measured: Path) -> None:
    """Other programs read and write the file for a second while a sweep's writes go on."""
    program = """
        import sqlite3, sys, time
        path, mode = sys.argv[1:]
        end = time.monotonic() + 1.0
        count = 0
        while time.monotonic() < end:
            connection = sqlite3.connect(path)
            if mode == "read":
                connection.execute("SELECT count(*) FROM latencies").fetchone()
            else:
                connection.execute("INSERT OR REPLACE INTO facts VALUES ('note', ?)", [str(count)])
                connection.commit()
            connection.close()
            count += 1
        print(count)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(measured)]
    with LatencyTable.open(measured, is_writable=True) as table:
        others = [
            subprocess.Popen([*command, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for mode in ("read", "read", "write")
        ]
        writes = 0
        while any(other.poll() is None for other in others):
            with table.writing() as db:
                db.execute("INSERT OR REPLACE INTO facts VALUES ('writes', ?)", [str(writes)])
            writes += 1
            time.sleep(0.01)  # a sweep writes once for some seconds of measuring
        results = [other.communicate() for other in others]
    for output, errors in results:
        assert errors == b""
        assert int(output) >= 1


def test_ctrl_c_while_waiting_for_another_writer_leaves_no_transaction(measured: Path) -> None:
    other = sqlite3.connect(measured, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode = wal")
    with LatencyTable.open(measured, is_writable=True) as table:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        threading.Timer(0.5, other.execute, ["ROLLBACK"]).start()
        with pytest.raises(KeyboardInterrupt), table.writing():
            time.sleep(10)  # the signal is there when BEGIN returns
        with table.writing() as db:
            db.execute("DELETE FROM failures")
    other.close()


def test_kill_9_at_any_instant_leaves_a_sound_file(tmp_path: Path, identity: Identity) -> None:
    program = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from fake_engine import FakeEngine
        from latlut.measure.plans import plan_from_ops
        from latlut.measure.sweep import Sweep
        from latlut.measure.sweep_settings import SweepSettings, identity_of
        from latlut.table.table import LatencyTable
        engine = FakeEngine()
        plan = plan_from_ops([f"conv 4->4 at 8x{width}" for width in range(4, 40)])
        table = LatencyTable.create(sys.argv[1], identity_of(engine, "cpu", statistic="p10"))
        Sweep(table, plan, engine, SweepSettings(group=2, passes=100)).run()
    """
    path = tmp_path / "killed.db"
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(program),
        str(path),
        str(ROOT / "tests"),
    ]
    counts = [0]
    for delay_s in (0.0, 0.05, 0.11):
        process = subprocess.Popen(command)
        _wait_for_more_measurements(path, counts[-1], process)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with LatencyTable.open(path, is_writable=True) as table:
            assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
            assert table.rows("PRAGMA foreign_key_check") == []
            table.check_identity(identity)
            counts.append(table.rows("SELECT count(*) AS n FROM measurements")[0]["n"])
            torn = table.rows("SELECT id FROM measurements WHERE samples IS NULL OR n < 1")
            assert torn == []
    assert counts == sorted(set(counts))  # each process went on where the last was killed


def _wait_for_more_measurements(path: Path, count: int, process: subprocess.Popen) -> None:
    for _ in range(3000):
        if path.exists():
            try:
                with LatencyTable.open(path) as table:
                    if table.rows("SELECT count(*) AS n FROM measurements")[0]["n"] > count:
                        return
            except TableError:  # its schema is not complete yet
                pass
        assert process.poll() is None
        time.sleep(0.02)
    raise AssertionError("nothing was measured within a minute")


def test_a_full_disk_is_a_clear_error_and_loses_nothing(measured: Path) -> None:
    """The file may not grow any more, as on a full disk; SQLite reports the same condition."""
    with LatencyTable.open(measured, is_writable=True) as table:
        pages = table.rows("PRAGMA page_count")[0]["page_count"]
        table.rows(f"PRAGMA max_page_count = {pages}")
        words = "full.*nothing of this step was written"
        with pytest.raises(TableError, match=words), table.writing() as db:
            db.execute("INSERT INTO facts VALUES ('big', ?)", ["x" * 1_000_000])
    with LatencyTable.open(measured) as table:
        assert table.fact("big") is None
        assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        assert len(table) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_really_full_disk(measured: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        path = small / "table.db"
        shutil.copy(measured, path)
        with LatencyTable.open(path, is_writable=True) as table:
            for index in range(100):
                try:
                    with table.writing() as db:
                        db.execute("INSERT INTO facts VALUES (?, ?)", [index, "x" * 50_000])
                except TableError as error:
                    assert "disk is full" in str(error)
                    break
            else:
                raise AssertionError("the disk did not fill up")
        with LatencyTable.open(path) as table:
            assert len(table) == 5
            assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_read_only_table_can_be_read_and_not_written(measured: Path) -> None:
    with (
        LatencyTable.open(measured) as table,
        pytest.raises(TableError, match="for reading"),
        table.writing(),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_read_only_disk(measured: Path, tmp_path: Path, identity: Identity) -> None:
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(frozen)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        shutil.copy(measured, frozen / "table.db")
        subprocess.run(["mount", "-o", "remount,ro", str(frozen)], check=True)
        with LatencyTable.open(frozen / "table.db") as table:
            assert len(table) == 5
        with pytest.raises(TableError, match="read-only|may not be written"):
            LatencyTable.open(frozen / "table.db", is_writable=True)
        with pytest.raises(TableError, match="Read-only file system: nothing was written"):
            LatencyTable.create(frozen / "new.db", identity)
    finally:
        subprocess.run(["umount", "-l", str(frozen)], check=True)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**62), max_size=300))
def test_samples_survive_packing(samples: list[int]) -> None:
    packed = pack_samples(np.array(samples, dtype=np.int64))
    assert unpack_samples(packed).tolist() == samples
