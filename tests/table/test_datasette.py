"""The view of measured networks, and what Datasette is told of a table."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from latlut.table.datasette import VIEWS, metadata
from latlut.table.storage import find_table
from latlut.table.table import LatencyTable

NAME = "epyc4-onnxruntime-fp32"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return Path(shutil.copy(find_table(NAME), tmp_path / "shipped.db"))


def test_networks_are_shown_with_estimate_measurement_and_error(shipped: Path) -> None:
    with LatencyTable.open(shipped) as table:
        rows = table.rows("SELECT * FROM networks")
        stored = table.rows("SELECT * FROM validation_networks ORDER BY position")
    assert len(rows) == len(stored) == 60
    for row, own in zip(rows, stored, strict=True):
        measured = (own["measured_first_ms"] + own["measured_second_ms"]) / 2
        assert row["measured_ms"] == pytest.approx(measured, abs=1e-5)
        error = 100 * (own["estimated_ms"] / measured - 1)
        assert row["error_percent"] == pytest.approx(error, abs=0.01)
        assert row["is_inside"] == (own["ci_low_ms"] <= measured <= own["ci_high_ms"])
        assert "\n" not in row["architecture"]
        assert json.loads(row["architecture"]) == json.loads(own["architecture"])


def test_metadata_describes_every_view_by_its_own_columns(shipped: Path) -> None:
    described = metadata([shipped])["databases"]["shipped"]
    with LatencyTable.open(shipped) as table:
        views = {r["name"] for r in table.rows("SELECT name FROM sqlite_master WHERE type='view'")}
        assert set(VIEWS) == views
        for name, (_, columns) in VIEWS.items():
            own = {row["name"] for row in table.rows(f"PRAGMA table_info({name})")}
            assert set(columns) <= own, name
        for query in described["queries"].values():
            assert table.rows(query["sql"])
    tables = described["tables"]
    assert tables["entries"] == {"hidden": True} and not tables["networks"].get("hidden")
    assert [name for name in tables if name in VIEWS][:2] == ["latencies", "networks"]
    assert "AMD EPYC" in described["description"] and "2026" in described["source"]


def test_the_module_writes_json_and_refuses_what_is_no_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "latlut.table.datasette"]
    run = subprocess.run([*command, NAME], capture_output=True, text=True, check=True)
    assert NAME in json.loads(run.stdout)["databases"]
    (tmp_path / "no.db").write_text("no table")
    run = subprocess.run(
        [*command, str(tmp_path / "no.db")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2 and "is not a table" in run.stderr and "Traceback" not in run.stderr


def test_datasette_serves_the_views(shipped: Path) -> None:
    app = pytest.importorskip("datasette.app")
    with sqlite3.connect(shipped) as connection:
        connection.execute("SELECT count(*) FROM networks").fetchone()
    served = app.Datasette([str(shipped)], metadata=metadata([shipped]))

    async def read() -> tuple[str, list[dict[str, object]]]:
        page = await served.client.get("/shipped")
        rows = await served.client.get("/shipped/networks.json?_shape=array&_size=5")
        return page.text, rows.json()

    page, rows = asyncio.run(read())
    assert "networks" in page and len(rows) == 5 and rows[0]["measured_ms"] > 0
