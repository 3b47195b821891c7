"""The tables that ship with latlut are whole, and are what the authors' file says."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from checkout import ROOT
from click.testing import CliRunner
from shipped_tables import ENGINES, make, table_name

from latlut import LatencyTable, estimate
from latlut.cli import main
from latlut.errors import MissingEntryError, UnknownNameError
from latlut.opspec import OpSpec
from latlut.pricing.missing import adding_line
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.settings import LatencySettings, SpaceSettings
from latlut.spaces.shipped import find_architecture
from latlut.table.import_export import import_file
from latlut.table.storage import shipped_tables

PUBLISHED = ROOT.parent / "shared" / "fasterseg" / "latency_lookup_table.npy"


def assert_same_entries(shipped: LatencyTable, own: LatencyTable) -> None:
    """Numbers may differ in their last digits: CPUs do not round logarithms alike."""
    for there, here in zip(shipped, own, strict=True):
        for name, value in asdict(here).items():
            is_number = isinstance(value, float)
            expected = pytest.approx(value, rel=1e-9, abs=1e-12) if is_number else value
            assert getattr(there, name) == expected, (there.key, name)


@pytest.mark.parametrize("path", shipped_tables(), ids=lambda path: path.stem)
def test_a_shipped_table_is_found_by_name_and_sound(path: Path) -> None:
    found = CliRunner().invoke(main, ["table", "check", path.stem, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["is_reliable"]
    assert path.stem in CliRunner().invoke(main, ["targets"]).output


def test_the_1080ti_table_prices_the_published_student_and_its_space() -> None:
    with LatencyTable.open("1080ti") as table:
        assert len(table) == 605 and "MIT" in (table.fact("source") or "")
        specs = find_architecture("fasterseg-student").op_specs((1024, 2048))
        with pytest.raises(MissingEntryError, match="GTX 1080 Ti"):
            estimate([*specs, "conv 3->3 at 4x4"], table)
        found = estimate(specs, table)
        assert found.ms == pytest.approx(5.69, abs=0.01)
        assert found.is_complete and {spec.kind for spec in found.excluded} == {"upsample"}
        problem = SearchProblem(table, SpaceSettings(), LatencySettings())
        assert problem.input_size == (1024, 2048) and problem.space.layers == 16
        assert {spec.kind for spec in problem.unpriced} == {"upsample"}


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the authors' file is not here")
def test_the_1080ti_table_is_the_authors_file(tmp_path: Path) -> None:
    import_file(PUBLISHED, tmp_path / "own.db")
    with LatencyTable.open("1080ti") as shipped, LatencyTable.open(tmp_path / "own.db") as own:
        assert_same_entries(shipped, own)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cpu_table_is_the_published_study(engine: str, tmp_path: Path) -> None:
    own_path = make(engine, tmp_path)
    with LatencyTable.open(table_name(engine)[:-3]) as shipped, LatencyTable.open(own_path) as own:
        assert len(shipped) == 656
        assert_same_entries(shipped, own)
        assert "24 November 2026" in (shipped.fact("source") or "")
        rows = "SELECT position, architecture, plain_ms, measured_first_ms FROM validation_networks"
        assert shipped.rows(rows) == own.rows(rows)
        model = "SELECT networks, model FROM calibrations"
        (mine,), (theirs,) = own.rows(model), shipped.rows(model)
        assert mine["networks"] == theirs["networks"] == 30
        found = estimate("fasterseg-student", shipped)
        assert found.is_complete and found.calibration is not None
        assert found.ms == pytest.approx(estimate("fasterseg-student", own).ms, rel=1e-6)


def test_no_shipped_table_passes_for_the_cpu_at_hand(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="no table 'cpu'"):
        LatencyTable.open("cpu")


def test_a_shipped_table_is_never_written(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    name = "epyc4-onnxruntime-fp32"
    for command in ("validate", "calibrate", "predict"):
        found = CliRunner().invoke(main, [command, "--table", name])
        assert found.exit_code == 2 and "is never written: use a copy" in found.output, command
    copying = found.output.split("make one with: ")[1]
    subprocess.run(copying, shell=True, check=True)
    with LatencyTable.open(name, is_writable=True) as own:
        assert own.path == Path("profiles") / f"{name}.db" and len(own) == 656


def test_what_a_shipped_table_lacks_is_added_to_a_copy(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with LatencyTable.open("epyc4-onnxruntime") as table:
        line = table.missing_message(OpSpec.parse("conv 64->97 at 32x64")).splitlines()[-1]
    assert line.startswith("add it, on its device (AMD EPYC (family 25, model 17)), with: mkdir")
    copying, profiling = line.split(" with: ")[1].split(" && latlut profile ")
    subprocess.run(copying, shell=True, check=True)
    assert profiling.startswith("--table profiles/epyc4-onnxruntime-fp32.db --op 'conv 64->97")
    with LatencyTable.open("profiles/epyc4-onnxruntime-fp32.db", is_writable=True) as own:
        assert "mkdir" not in own.command("validate")


def test_nobody_is_told_to_add_to_the_authors_table() -> None:
    with LatencyTable.open("1080ti") as table:
        lacking = find_architecture("fasterseg-student").op_specs((512, 1024))
        line = adding_line(table, lacking)
        assert "table of your own, on NVIDIA GeForce GTX 1080 Ti, with: latlut profile" in line
        assert "--table" not in line and line.count("--op ") == len(lacking)
    found = CliRunner().invoke(main, ["table", "check", "1080ti"])
    assert "no network was measured against it\n" in found.output


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("1080t", "'1080ti'"), ("epyc4-onnxruntme", "'epyc4-onnxruntime-fp32'"),
     ("epyc4-pytorch-fp23", "'epyc4-pytorch-fp32'"), ("devcie.db", "'device.db'")],
)  # fmt: skip
def test_the_nearest_table_is_named(typed: str, meant: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("device.db").touch()
    found = CliRunner().invoke(main, ["table", "info", typed])
    assert found.exit_code == 2 and f"did you mean {meant}?" in found.output
