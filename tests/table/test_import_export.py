"""CSV and Parquet both ways, and the FasterSeg authors' table in; all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import AUTHORS_TABLE

from latlut.errors import IdentityError, ImportFileError, TableError
from latlut.measure.plans import Plan
from latlut.opspec import OpSpec
from latlut.pricing.estimator import estimate
from latlut.resources import profiles_dir
from latlut.spaces import Architecture
from latlut.table.import_export import export_file, import_file
from latlut.table.table import LatencyTable

needs_authors_table = pytest.mark.skipif(
    not AUTHORS_TABLE.exists(), reason="the FasterSeg authors' table is not part of the project"
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_round_trip_keeps_every_entry_exactly(
    measured: Path, tmp_path: Path, plan: Plan, suffix: str
) -> None:
    file, copy = tmp_path / f"entries{suffix}", tmp_path / "copy.db"
    with LatencyTable.open(measured) as table:
        assert export_file(table, file) == 5
        report = import_file(file, copy)
        assert (report.rows, report.op_specs, report.repeats) == (5, 5, 0)
        with LatencyTable.open(copy) as again:
            assert again.identity == table.identity
            for spec in plan.specs:
                first, second = table.lookup(spec), again.lookup(spec)
                assert second.latency_ms == first.latency_ms
                assert second.ci_low_ms == first.ci_low_ms
                assert second.ci_high_ms == first.ci_high_ms
                assert (second.passes, second.n) == (first.passes, first.n)
                assert second.own_error == pytest.approx(first.own_error, rel=1e-6)
            assert again.shared_error == table.shared_error


def test_a_file_without_identity_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("op_spec,latency_ms\nconv 4->4 at 8x8,0.25\n")
    with pytest.raises(IdentityError, match="target"):
        import_file(file, tmp_path / "mine.db")
    assert not (tmp_path / "mine.db").exists()
    fields = {"target": "cpu", "device_model": "mine", "engine": "other", "engine_version": "1"}
    import_file(file, tmp_path / "mine.db", dict(fields))
    with LatencyTable.open(tmp_path / "mine.db") as table:
        assert table.lookup(OpSpec("conv", (4, 8, 8), 4)).latency_ms == 0.25


def test_a_bad_row_leaves_nothing_behind(tmp_path: Path, measured: Path) -> None:
    file = tmp_path / "bad.csv"
    with LatencyTable.open(measured) as table:
        export_file(table, file)
    lines = file.read_text().splitlines()
    column = lines[1].split(",").index("latency_ms")
    cells = lines[-1].split(",")
    cells[column] = "-1"
    file.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    with pytest.raises(ImportFileError, match="latency_ms"):
        import_file(file, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_an_import_never_replaces_measurements(measured: Path, tmp_path: Path) -> None:
    file = tmp_path / "entries.csv"
    with LatencyTable.open(measured) as table:
        export_file(table, file)
    with pytest.raises(TableError, match="never replaces measurements"):
        import_file(file, measured)


def test_an_empty_table_has_nothing_to_export(db_path: Path, identity, tmp_path: Path) -> None:
    with (
        LatencyTable.create(db_path, identity) as table,
        pytest.raises(TableError, match="no entr"),
    ):
        export_file(table, tmp_path / "x.csv")


@needs_authors_table
def test_every_row_of_the_authors_table_is_accounted_for(tmp_path: Path) -> None:
    report = import_file(AUTHORS_TABLE, tmp_path / "1080ti.db")
    assert (report.rows, report.op_specs, report.repeats) == (667, 605, 62)
    with LatencyTable.open(tmp_path / "1080ti.db") as table:
        assert table.identity.target == "1080ti"
        assert table.rows("SELECT count(*) AS n FROM measurements")[0]["n"] == 667
        skip = table.lookup(OpSpec("skip", (32, 128, 256), 32, form="identity"))
        assert skip.passes == 5
        zoomed = OpSpec("zoomed_conv_2x", (160, 64, 128), 256, stride=2, interpolation="nearest")
        assert table.lookup(zoomed).latency_ms == pytest.approx(0.2627038262520987)
        assert all(entry.ci_low_ms is not None for entry in table)


@needs_authors_table
@pytest.mark.parametrize("name", ["fasterseg-student", "fasterseg-teacher"])
def test_the_authors_table_prices_the_published_networks(tmp_path: Path, name: str) -> None:
    import_file(AUTHORS_TABLE, tmp_path / "1080ti.db")
    network = Architecture.load(profiles_dir() / "architectures" / f"{name}.json")
    with LatencyTable.open(tmp_path / "1080ti.db") as table:
        found = estimate(network.op_specs((1024, 2048)), table)
    assert {spec.kind for spec in found.unpriced} == {"upsample"}
    assert OpSpec("upsample", (19, 128, 256), 19, out_size=(1024, 2048)) in found.unpriced
    assert any("nearest" in term.reason for term in found.terms)
    # The paper measured the whole student at 163.9 FPS, 6.1 ms, on this card.
    if name == "fasterseg-student":
        assert 4.0 < found.ms < 7.0
