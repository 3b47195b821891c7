"""Ranges in op specs, and what a scan finds in a table: with a scripted engine whose steps are
known, and with ONNX Runtime."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_engine import FakeEngine

from latlut.cli import main
from latlut.errors import LatlutError, SpecError, UnknownNameError
from latlut.machine.targets import cpu_target
from latlut.measure.profile import profile
from latlut.measure.ranges import parse_grid
from latlut.measure.scan import Scan, common_steps, plan_of_grid, read_scan
from latlut.measure.sweep_settings import SweepSettings
from latlut.operators.workloads import Workload
from latlut.reports.scan import plot_scan
from latlut.table.table import LatencyTable


def keys(text: str) -> list[str]:
    return [spec.key for _, spec in parse_grid(text).points()]


def named(text: str) -> list[tuple[str, tuple[int | str, ...]]]:
    return [(item.name, item.values) for item in parse_grid(text).parameters]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("conv 4->{3..5} at 8x8", [("output channels", (3, 4, 5))]),
        ("conv {8..20..4}->4 at 8x8", [("input channels", (8, 12, 16, 20))]),
        ("refine 8,{4,2}->4 at 4x4,8x8", [("input channels", (2, 4))]),
        ("conv 4->4 at {8,16}x{7..8}", [("height", (8, 16)), ("width", (7, 8))]),
        ("conv 4->4 at {8x8,16x8}", [("size", ("8x8", "16x8"))]),
        ("conv 4->4 stride {1,2} at 8x8", [("stride", (1, 2))]),
        ("conv 4->4 at 8x8 kernel_size={1,3..5..2}", [("kernel_size", (1, 3, 5))]),
        ("{conv,conv_2x} 4->4 at 8x8", [("kind", ("conv", "conv_2x"))]),
        ("conv {c=2..3}->{c} at 8x8", [("c", (2, 3))]),
    ],
)  # fmt: skip
def test_parameters_are_named_by_their_place(text: str, parameters: list) -> None:
    assert named(text) == parameters


def test_points_are_all_combinations() -> None:
    assert keys("conv {c=2..3}->{c} at 8x{4,8}") == [
        "conv 2->2 stride 1 at 8x4",
        "conv 2->2 stride 1 at 8x8",
        "conv 3->3 stride 1 at 8x4",
        "conv 3->3 stride 1 at 8x8",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conv 4->4 at 8x8", "no range"),
        ("conv 4->{9..3} at 8x8", "the range 9..3 .* is empty"),
        ("conv 4->{3..9..0} at 8x8", "is empty"),
        ("conv 4->{} at 8x8", "cannot read ''"),
        ("conv 4->{3..} at 8x8", "cannot read '3..'"),
        ("conv {1..2}->{1..2} at {1..2}x8", "varies 3 parameters"),
        ("conv 4->{1..999999} at 8x8", "more than 100000 values"),
        ("conv 4->{3..9 at 8x8", "has no partner"),
        ("conv {c=1..2}->{c=1..3} at 8x8", "given once"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_grid(text)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("cnv 4->{3..5} at 8x8", UnknownNameError, "did you mean 'conv'"),
        ("conv {1..1000}->{1..1000} at 8x8", SpecError, "names 1000000 points"),
        ("conv 4->{0..5} at 8x8", SpecError, "out_channels must be between 1"),
        ("conv 4->4 at 8x8 wings={1..3}", SpecError, "no option 'wings'"),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    text: str, kind: type[LatlutError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        plan_of_grid(parse_grid(text))


def stairs_ns(workload: Workload) -> float:
    """Blocks of 8 output channels, on a slope along the height."""
    (spec,) = workload.specs
    return 1e5 * (2 + -(-spec.out_channels // 8)) * (1 + 0.01 * spec.inputs[0][1])


def scanned(path: Path, text: str) -> Scan:
    engine = FakeEngine(noise=0.02)
    engine.work_ns = stairs_ns
    grid = parse_grid(text)
    profile(plan_of_grid(grid), engine, cpu_target(1), path, SweepSettings(passes=3))
    with LatencyTable.open(path) as table:
        return read_scan(table, grid)


def test_steps_along_one_parameter(db_path: Path, tmp_path: Path) -> None:
    found = scanned(db_path, "conv 2->{4..36} at 4x4")
    (line,) = found.lines
    assert line.staircase is not None
    after = [line.numbers[step.before + 1] for step in line.staircase.steps]
    assert after == [9, 17, 25, 33]
    assert line.multiple == 8
    first = line.staircase.steps[0]
    assert first.percent == pytest.approx(100 / 3, abs=2)
    plot_scan(found, "a device", tmp_path / "line.svg")
    assert (tmp_path / "line.svg").read_bytes().startswith(b"<?xml")
    again = scanned(db_path, "conv 2->{30..40} at 4x4")  # what is there is not measured again
    with LatencyTable.open(db_path) as table:
        assert len(table) == 37
    assert len(again.points) == 11


def test_steps_along_two_parameters(db_path: Path, tmp_path: Path) -> None:
    found = scanned(db_path, "conv 2->{5..12} at {4..8}x4")
    along = [line for line in found.lines if line.parameter == 0]
    assert [line.held for line in along] == [4, 5, 6, 7, 8]
    for line in along:
        assert line.staircase is not None
        assert [line.numbers[step.before] for step in line.staircase.steps] == [8]
    assert len(found.lines) == 5 + 8
    (step,) = common_steps(along)
    assert (step.before, step.after, step.lines) == (8, 9, 5)
    low, middle, high = step.percents
    assert low <= middle <= high and middle == pytest.approx(100 / 3, abs=2)
    plot_scan(found, "a device", tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_words_have_no_steps(db_path: Path, tmp_path: Path) -> None:
    found = scanned(db_path, "conv 2->2 at 4x4 activation={relu,none,silu}")
    assert found.lines == ()
    assert all(point.entry is not None for point in found.points)
    plot_scan(found, "a device", tmp_path / "words.pdf")
    assert (tmp_path / "words.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, ["scan", *args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_from_end_to_end(folder: Path) -> None:
    spec = "conv 4->{4..10} at 8x8"
    result = run(spec, "--cpu", "--plot", "w.png", "--csv", "w.csv", "--json", "-q")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [point["values"] for point in found["points"]] == [[n] for n in range(4, 11)]
    assert all(point["latency_ms"] > 0 for point in found["points"])
    assert found["parameters"] == ["output channels"]
    assert found["lines"][0]["noise_percent"] > 0
    assert Path("w.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(Path("w.csv").read_text().splitlines()))
    assert [row["op_spec"] for row in rows] == [point["op_spec"] for point in found["points"]]
    again = json.loads(run(spec, "--cpu", "--json", "-q").stdout)
    assert (again["measured"], again["reused"]) == (0, 21)
    text = run(spec, "--table", found["table"], "-q").stdout
    assert "7 of 7 points have an entry" in text and "from 4 to 10" in text
    text = run(
        "conv 4->{4..7} at {7,8}x8", "--table", found["table"], "-q", "--plot", "m.svg"
    ).stdout
    assert "from 4 to 7; standard error of a point" in text
    assert "2 lines, one for each height" in text
    assert "height: 2 points are too few" in text


def test_too_many_points_say_how_long_they_take(folder: Path) -> None:
    result = run("conv 4->{4..13} at 8x8", "--cpu", "--max-points", "5", "-q")
    assert result.exit_code == 2
    assert "names 10 points, the limit is 5; measuring them takes" in result.stderr
    assert "unknown" not in result.stderr
    assert not Path("profiles").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["cnv 4->{3..5} at 8x8", "--cpu"], "did you mean 'conv'"),
        (["conv 4->4 at 8x8", "--cpu"], "has no range to scan"),
        (["conv 4->{3..5} at 8x8", "--cpu", "--plot", "w.txt"], "has to end in"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_predicted_points_are_in_no_line(db_path: Path) -> None:
    from latlut.opspec import OpSpec
    from latlut.table import predictions
    from latlut.table.predictions import PredictedEntry

    scanned(db_path, "conv 2->{4..12} at 4x4")
    guessed = PredictedEntry(OpSpec.parse("conv 2->13 at 4x4"), 9.0, 8.0, 10.0, 0.1)
    with LatencyTable.open(db_path, is_writable=True) as table:
        predictions.store(table, [guessed], 20, "{}")
        found = read_scan(table, parse_grid("conv 2->{4..13} at 4x4"))
    assert found.points[-1].entry is not None and not found.points[-1].is_measured
    assert found.lines[0].numbers == list(range(4, 13))
