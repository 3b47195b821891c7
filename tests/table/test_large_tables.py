"""Tables of many entries: what is asked for is read, and rows are printed as they come."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from latlut.cli import main
from latlut.cli.output import print_json_rows
from latlut.errors import MissingEntryError
from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.table.writing import insert

IDENTITY = Identity(
    target="cpu", device_model="m", engine="onnxruntime", engine_version="1", precision="fp32",
    threads=1,
)  # fmt: skip


def filled(path: Path, specs: list[OpSpec]) -> LatencyTable:
    """A table in which the entry number i takes i + 1 milliseconds."""
    table = LatencyTable.create(path, IDENTITY)
    ids = recording.add_op_specs(table, specs)
    with table.writing() as db:
        for number, spec in enumerate(specs):
            row = {"latency_ms": number + 1.0, "passes": 1, "n": 1, "updated_at": "2026-01-01"}
            insert(db, "entries", op_spec_id=ids[spec.key], **row)
    return table


def some_specs(count: int, seed: int) -> list[OpSpec]:
    draw = random.Random(seed)
    options = [{}, {"kernel_size": 5}, {"kernel_size": (1, 7)}, {"dilation": 2}, {"groups": 4}]
    found = {
        OpSpec(
            draw.choice(["conv", "conv_2x"]),
            (draw.randint(1, 99), draw.randint(1, 64), draw.randint(1, 64)),
            draw.randint(1, 99),
            stride=draw.choice([1, 2]),
            batch=draw.choice([1, 1, 4]),
            **draw.choice(options),
        )
        for _ in range(count)
    }
    return sorted(found, key=lambda spec: spec.key)


def distance(asked: OpSpec, other: OpSpec) -> float:
    """What "nearest" means, op spec by op spec."""
    names = ("in_channels", "out_channels", "batch", "stride")
    pairs = [(getattr(asked, name), getattr(other, name)) for name in names]
    pairs += zip(asked.inputs[-1][1:], other.inputs[-1][1:], strict=True)
    away = sum(abs(np.log2(a / b)) for a, b in pairs)
    first, second = dict(asked.options), dict(other.options)
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if a == b:
            continue
        are_numbers = isinstance(a, int) and isinstance(b, int)
        away += abs(np.log2(a / b)) if are_numbers else 1.0
    return float(away)


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_is_the_one_of_the_least_distance(tmp_path: Path, seed: int) -> None:
    specs = some_specs(200, seed)
    with filled(tmp_path / "t.db", specs) as table:
        for asked in some_specs(40, 100 + seed):
            found = table.nearest(asked)
            same_kind = [spec for spec in specs if spec.kind == asked.kind]
            least = min(distance(asked, spec) for spec in same_kind)
            assert found is not None and found.kind == asked.kind
            assert distance(asked, found) == pytest.approx(least)
        assert table.nearest(OpSpec("refine", (8, 8, 8), 8)) is None


def test_entries_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    specs = some_specs(50, 0)
    with filled(tmp_path / "t.db", specs[:-1]) as table:
        read: list[str] = []
        table.db.conn.set_trace_callback(read.append)
        assert table.latencies_ms(specs[:3] * 2).tolist() == [1, 2, 3, 1, 2, 3]
        assert sum("WHERE key" in sql for sql in read) == 3
        assert specs[-1] not in table and len(table) == 49
        with pytest.raises(MissingEntryError):
            table.latencies_ms([specs[0], specs[-1]])
        with table.writing() as db:
            db.execute("UPDATE entries SET latency_ms = 7")
        assert table.lookup(specs[0]).latency_ms == 7
        assert [entry.latency_ms for entry in table] == [7] * 49


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": "x\n", "b": float("nan")}, {"a": None}]])
def test_rows_are_printed_as_a_list_is(rows: list[dict], capsys: pytest.CaptureFixture) -> None:
    assert print_json_rows(iter(rows)) == len(rows)
    shown = capsys.readouterr().out
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    assert shown == json.dumps(plain, indent=2) + "\n"


def test_a_query_says_that_there_is_more(tmp_path: Path) -> None:
    filled(tmp_path / "t.db", some_specs(20, 1)).close()
    count = len(some_specs(20, 1))
    for limit, is_cut in ((count - 1, True), (count, False)):
        words = ["table", "query", str(tmp_path / "t.db"), "--json", "--limit", str(limit)]
        found = CliRunner().invoke(main, words)
        assert found.exit_code == 0
        assert len(json.loads(found.stdout)) == limit
        assert (f"showing {limit} of {count}; --limit {count} shows all" in found.stderr) == is_cut


def test_a_query_of_all_rows_needs_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    with LatencyTable.create(tmp_path / "t.db", IDENTITY) as table, table.writing() as db:
        number = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
        db.execute(
            f"INSERT INTO op_specs {number} SELECT i, 'conv ' || i || '->8 stride 1 at 8x8',"
            " 'conv', i, 8, 1, 8, 8, 1, '{}', 1, 1, 1 FROM n"
        )
        db.execute(
            "INSERT INTO entries (op_spec_id, latency_ms, passes, n, updated_at)"
            " SELECT id, 1, 1, 1, '2026-01-01' FROM op_specs"
        )

    def peak_kb(limit: int) -> int:
        words = ["table", "query", str(tmp_path / "t.db"), "--json", "--limit", str(limit)]
        script = (
            f"import sys, resource; from latlut.cli import main\n"
            f"try: main({words!r})\n"
            "except SystemExit: pass\n"
            "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
        )
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        assert found.stdout.count(b'"op_spec"') == limit
        return int(found.stderr.split()[-1])

    few, all_of_them = peak_kb(10), peak_kb(100_000)
    assert all_of_them - few < 50_000  # as dictionaries they take more than 300 MB
