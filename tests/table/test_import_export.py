"""CSV and Parquet both ways, and the FasterSeg authors' table in; all or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkout import AUTHORS_TABLE
from small_tables import make_table

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


def test_a_table_of_very_noisy_passes_comes_back(tmp_path: Path) -> None:
    """The half-width is one of logarithms; of two passes it is over 1 when they differ by 16%."""
    spec = OpSpec("conv", (4, 8, 8), 4)
    file, copy = tmp_path / "entries.csv", tmp_path / "copy.db"
    with make_table(tmp_path / "noisy.db", [spec], shared_error=1.83) as noisy:
        export_file(noisy, file)
    import_file(file, copy)
    with LatencyTable.open(copy) as again:
        assert again.shared_error == 1.83


@pytest.mark.parametrize(
    "value", ["1e9", "1" + "0" * 400, "-0.1", "NaN", "Infinity", "true", '"wide"', "null"]
)
def test_a_shared_error_that_is_none(tmp_path: Path, value: str) -> None:
    file = tmp_path / "mine.csv"
    identity = (
        '{"device_model": "X", "engine": "other", "engine_version": "1", "target": "cpu", '
        f'"shared_error": {value}}}'
    )
    file.write_text(f"# identity: {identity}\nop_spec,latency_ms\nconv 4->4 at 8x8,1\n")
    with pytest.raises(ImportFileError, match="shared_error"):
        import_file(file, tmp_path / "mine.db")
    assert not (tmp_path / "mine.db").exists()


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
    column = lines[0].split(",").index("latency_ms")
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
        found = estimate(network.op_specs((1024, 2048)), table, allow_missing=True)
    assert {spec.kind for spec in found.excluded} == {"upsample"}
    assert OpSpec("upsample", (19, 128, 256), 19, out_size=(1024, 2048)) in found.excluded
    assert any("nearest" in term.reason for term in found.terms)
    # The paper measured the whole student at 163.9 FPS, 6.1 ms, on this card.
    if name == "fasterseg-student":
        assert 4.0 < found.ms < 7.0


FORMS = {
    "ConvNorm_H{h}_W{w}_Cin3_Cout48_kernel3_stride2": 1.0,
    "BasicResidual1x_H{e}_W{f}_Cin64_Cout64_stride1_dilation1": 2.0,
    "head_H{e}_W{f}_Cin128_Cout{c}": 0.5,
}


def fasterseg_npy(path: Path, size: tuple[int, int], classes: int) -> Path:
    height, width = size
    fill = {"h": height, "w": width, "e": height // 8, "f": width // 8, "c": classes}
    np.save(path, {key.format(**fill): np.float64(ms) for key, ms in FORMS.items()})  # type: ignore[arg-type]
    return path


OWN = {"target": "mine", "device_model": "A", "engine": "tensorrt", "engine_version": "8.6"}


@pytest.mark.parametrize(
    ("size", "classes", "is_published"),
    [((1024, 2048), 19, True), ((256, 512), 19, False), ((1024, 2048), 3, False)],
)
def test_a_fasterseg_file_of_somebody_else_needs_an_identity(
    tmp_path: Path, size: tuple[int, int], classes: int, is_published: bool
) -> None:
    file = fasterseg_npy(tmp_path / "own.npy", size, classes)
    if is_published:
        found = import_file(file, tmp_path / "a.db")
        assert any("assumed" in text and "GTX 1080 Ti" in text for text in found.remarks)
    else:
        with pytest.raises(IdentityError, match=r"not the published.*--identity device_model="):
            import_file(file, tmp_path / "a.db")
        with pytest.raises(IdentityError, match="--identity engine_version="):
            import_file(file, tmp_path / "a.db", {"target": "mine", "device_model": "A"})
        assert not (tmp_path / "a.db").exists()
    found = import_file(file, tmp_path / "b.db", dict(OWN))
    assert any("assumed" in text and "statistic=mean" in text for text in found.remarks)
    with LatencyTable.open(tmp_path / "b.db") as table:
        identity = table.identity
    assert (identity.device_model, identity.engine_version, identity.driver) == ("A", "8.6", "")


def test_another_device_s_name_takes_nothing_from_the_published_table(tmp_path: Path) -> None:
    file = fasterseg_npy(tmp_path / "own.npy", (1024, 2048), 19)
    with pytest.raises(IdentityError, match="another device.*--identity target="):
        import_file(file, tmp_path / "a.db", {"device_model": "NVIDIA H100"})


def test_only_columns_that_no_export_writes_are_mentioned(measured: Path, tmp_path: Path) -> None:
    file = tmp_path / "entries.csv"
    with LatencyTable.open(measured) as table:
        export_file(table, file)
    assert import_file(file, tmp_path / "again.db").remarks == ()
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{header},rack", *(f"{row},7" for row in rows)]) + "\n")
    (said,) = import_file(file, tmp_path / "other.db").remarks
    assert said == "columns that are not part of an entry: rack"
