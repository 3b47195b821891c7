"""``latlut estimate`` beside Python: operators, what is missing, notes and --quiet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_tables import make_table

import latlut
from latlut.cli import main
from latlut.machine.cpu import cpu_model
from latlut.opspec import OpSpec
from latlut.pricing import calibration as calibrations
from latlut.pricing.calibration import NETWORK, Calibration
from latlut.spaces.shipped import find_architecture
from latlut.table.entry import DISTURBED
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.validation.verdict import Level, check

SHIPPED = "epyc4-onnxruntime"
OPS = ("zoomed_conv_2x 64->128 stride 2 at 16x32", "conv 64->64 stride 1 at 16x32")
SMALL = [OpSpec("conv", (8, 8, 8), out) for out in (8, 16)]
WHY = "validation 1: other processes took 40% of the CPU"
STUDENT = find_architecture("fasterseg-student")


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def constant_of(ms: float, forced: tuple[str, ...] = ()) -> Calibration:
    """A calibration that adds a constant alone."""
    return Calibration(
        effects=(NETWORK,), values=(ms,), covariance=((1e-4,),), prior_sd=(0.1,), low_ms=(1.0,),
        high_ms=(1.0,), residual_sd=0.01, entries_sd=0.01, dof=10.0, networks=12, forced=forced,
    )  # fmt: skip


@pytest.fixture
def student_table(tmp_path: Path) -> Path:
    """Prices the student's operators at 64x128; its calibration was forced, its constant < 0."""
    with make_table(tmp_path / "t.db", STUDENT.op_specs((64, 128))) as table:
        calibrations.store(table, constant_of(-0.5, (WHY,)), {}, 0, [])
        with table.writing() as db:
            db.execute("UPDATE entries SET warnings = ?", [DISTURBED])
    return tmp_path / "t.db"


@pytest.mark.parametrize("ops", [OPS[:1], OPS])
def test_operators_cost_the_same_in_python_and_in_the_command(ops: tuple[str, ...]) -> None:
    words = [word for op in ops for word in ("--op", op)]
    shown = json.loads(run("estimate", "--table", SHIPPED, *words, "--json").stdout)
    specs = [OpSpec.parse(op) for op in ops]
    with LatencyTable.open(SHIPPED) as table:
        assert calibrations.stored(table) is not None
        entries_ms = sum(table.lookup(op).latency_ms for op in ops)
        forms = [list(ops), tuple(ops), iter(ops)]
        forms += [ops[0], specs[0], specs] if len(ops) == 1 else []
        for form in forms:
            found = latlut.estimate(form, table)
            assert found.calibration is None
            assert found.ms == pytest.approx(entries_ms)
            assert found.ms == pytest.approx(shown["latency_ms"])
            assert (found.ci_low_ms, found.ci_high_ms) == pytest.approx(
                (shown["ci_low_ms"], shown["ci_high_ms"])
            )


def test_a_network_is_calibrated_in_both_and_so_are_its_op_specs() -> None:
    words = ("estimate", "--table", SHIPPED, "--arch", "fasterseg-student", "--json")
    shown = json.loads(run(*words).stdout)
    with LatencyTable.open(SHIPPED) as table:
        found = latlut.estimate("fasterseg-student", table)
        specs = [term.spec for term in found.terms for _ in range(term.count)]
        assert found.calibration is not None and shown["is_calibrated"]
        assert found.ms == pytest.approx(shown["latency_ms"])
        assert latlut.estimate(STUDENT, table) == found
        assert latlut.estimate(specs, table).ms == pytest.approx(found.ms)
        plain = latlut.estimate(specs, table, is_calibrated=False)
        assert plain.ms == pytest.approx(found.plain_ms)
        as_text = [spec.key for spec in specs]
        assert latlut.estimate(as_text, table) == plain
        assert latlut.estimate(as_text, table, is_calibrated=True) == found


def test_a_repr_counts_its_terms() -> None:
    assert "plain sum of 1 term>" in repr(latlut.estimate(OPS[0], SHIPPED))
    found = latlut.estimate("fasterseg-student", SHIPPED)
    assert f"calibrated sum of {len(found.terms)} terms" in repr(found)


@pytest.mark.parametrize("more", [(), ("--partial",), ("-q",)])
def test_an_operator_without_an_entry_is_a_failed_check(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    path = tmp_path / "t.db"
    make_table(path, SMALL).close()
    op = "conv 8->9 stride 1 at 8x8"
    found = run("estimate", "--table", path, "--op", op, *more)
    assert found.exit_code == 1
    assert f"Error: {path} has no entry for this" in found.stderr
    assert f"latlut profile --table {path} --op '{op}'" in found.stderr
    assert not found.stdout


def test_a_part_of_a_network_says_so(tmp_path: Path) -> None:
    make_table(tmp_path / "t.db", STUDENT.op_specs((64, 128))[:3]).close()
    words = ("estimate", "--table", tmp_path / "t.db", "--arch", "fasterseg-student",
             "--input", "64x128")  # fmt: skip
    found = run(*words)
    assert found.exit_code == 1
    assert "This covers only part of the network; add --partial to accept that." in found.stderr
    accepted = run(*words, "--partial", "-q")
    assert accepted.exit_code == 0 and not accepted.stderr
    assert accepted.stdout.startswith("at least ") and accepted.stdout.count("\n") == 1


def test_a_forced_calibration_is_named(student_table: Path) -> None:
    words = ("estimate", "--table", student_table, "--arch", "fasterseg-student",
             "--input", "64x128")  # fmt: skip
    found = run(*words)
    assert f"note: the calibration was fitted with --force: {WHY}" in found.stdout
    assert "calibrated on 12 networks, plus a constant of -0.5 ms" in found.stdout
    assert json.loads(run(*words, "--json").stdout)["forced"] == [WHY]
    with LatencyTable.open(student_table, is_writable=True) as table:
        verdict = check(table)
        assert any(WHY in reason.text for reason in verdict.reasons)
        assert verdict.level >= Level.CAUTION
        (row,) = table.rows("SELECT model, scores FROM calibrations")
        assert "forced" not in json.loads(row["model"])  # older versions read it
        calibrations.store(table, constant_of(-0.5), {}, 0, [])
        assert not any(WHY in reason.text for reason in check(table).reasons)
    assert "--force" not in run(*words).stdout
    assert json.loads(run(*words, "--json").stdout)["forced"] == []


@pytest.mark.parametrize("scores", ['{"forced": "why"}', '{"forced": 3}', '{"forced": null}', "{}"])
def test_scores_of_strangers_are_no_reasons(student_table: Path, scores: str) -> None:
    with LatencyTable.open(student_table, is_writable=True) as table:
        with table.writing() as db:
            db.execute("UPDATE calibrations SET scores = ?", [scores])
        found = calibrations.stored(table)
        assert found is not None and found == replace(constant_of(-0.5), forced=())


def test_disturbed_entries_are_a_share_of_the_entries(student_table: Path) -> None:
    """A constant below 0 makes the latency smaller than its entries."""
    words = ("estimate", "--table", student_table, "--arch", "fasterseg-student",
             "--input", "64x128")  # fmt: skip
    assert run(*words).stdout.startswith("disturbed: entries of 100% of this latency")
    with LatencyTable.open(student_table, is_writable=True) as table, table.writing() as db:
        db.execute("UPDATE entries SET warnings = '' WHERE op_spec_id > 1")
        (row,) = table.rows("SELECT key FROM op_specs WHERE id = 1")
    terms = json.loads(run(*words, "--json").stdout)["terms"]
    part = sum(term["total_ms"] for term in terms if term["op_spec"] == row["key"])
    share = 100 * part / sum(term["total_ms"] for term in terms)
    assert run(*words).stdout.startswith(f"disturbed: entries of {share:.0f}% of this latency")


def test_what_was_measured_elsewhere_says_where(tmp_path: Path) -> None:
    for name, model in (("here", cpu_model()), ("there", "Another CPU")):
        own = Identity("cpu", model, "onnxruntime", "1.2.3")
        make_table(tmp_path / f"{name}.db", SMALL, identity=own).close()
    said = f"measured with onnxruntime 1.2.3 on Another CPU; this machine is {cpu_model()}"
    there = ("estimate", "--table", tmp_path / "there.db", "--op", SMALL[0])
    here = ("estimate", "--table", tmp_path / "here.db", "--op", SMALL[0])
    assert f"note: {said}" in run(*there).stdout
    assert json.loads(run(*there, "--json").stdout)["measured_elsewhere"] == said
    assert "this machine" not in run(*here).stdout
    assert f"remark: {said}" in run("table", "check", tmp_path / "there.db").stdout
    assert "this machine is" not in run("table", "check", tmp_path / "here.db").stdout


def test_a_table_of_a_gpu_that_is_not_here_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("latlut.validation.remarks.detect_gpus", lambda: [])
    words = ("estimate", "--table", "1080ti", "--arch", "fasterseg-student")
    found = run(*words)
    assert "GTX 1080 Ti; this machine has no such device" in found.stdout
    assert "not included, because the table's source does not include them: " in found.stdout
    assert "the interval includes ±16.5% because no network was measured" in found.stdout


def test_quiet_prints_the_latency_alone(student_table: Path) -> None:
    words = ("estimate", "--table", student_table, "--arch", "fasterseg-student",
             "--input", "64x128")  # fmt: skip
    quiet = run(*words, "-q")
    shown = json.loads(run(*words, "--json", "-q").stdout)
    low, high = shown["ci_low_ms"], shown["ci_high_ms"]
    assert quiet.stdout == f"{shown['latency_ms']:.4g} ms ({low:.4g} to {high:.4g})\n"
    assert not quiet.stderr
    assert shown["terms"] and shown["forced"]  # JSON is the same as without -q
