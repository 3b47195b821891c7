"""What the report page says and draws: rooflines, colours, axes, labels, and each file once."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from latlut import LatencyTable
from latlut.cli import main
from latlut.machine.targets import load_target
from latlut.operators.building import cost
from latlut.opspec import OpSpec
from latlut.reports.page import charts, labels
from latlut.reports.page.collect import sections_of
from latlut.reports.page.figures import figure_of
from latlut.reports.page.parts import Chart, Facts, Grid, Section, number
from latlut.reports.page.work import stated_peaks
from latlut.resources import profiles_dir

SHIPPED = ("1080ti-fasterseg", "epyc4-onnxruntime-fp32", "epyc4-openvino-fp32",
           "epyc4-pytorch-fp32")  # fmt: skip


def invoke(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, [str(word) for word in words])
    return found.exit_code, found.output


def rows_of(chart: Chart) -> list[dict[str, Any]]:
    """The largest set of data of a chart."""
    layers = chart.spec.get("layer") or [chart.spec]
    return max((layer["data"]["values"] for layer in layers), key=len)


def encodings(spec: Any) -> Iterator[dict[str, Any]]:
    """Of all layers of a chart."""
    for layer in spec.get("layer") or [spec]:
        yield layer["encoding"]


# --- rooflines ---


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_table_has_a_roofline(name: str, tmp_path: Path) -> None:
    for suffix in (".png", ".csv"):
        code, output = invoke("table", "plot", name, "roofline", "-o", tmp_path / f"a{suffix}")
        assert code == 0, output
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 400
    for row in rows:
        macs = cost(OpSpec.parse(row["op_spec"])).macs
        assert float(row["gmacs"]) * 1e9 == pytest.approx(macs, rel=0.02, abs=1e6)
        assert float(row["bound_ms"]) > 0


def test_a_gpus_roofline_is_that_of_its_target() -> None:
    target = load_target("1080ti")
    with LatencyTable.open("1080ti") as table:
        chart = figure_of(table, "roofline")
    assert "peak figures" in chart.note and "not known" not in chart.note
    for row in rows_of(chart)[:40]:
        work = cost(OpSpec.parse(row["op_spec"]))
        assert target.peak_fp32_flops_per_s and target.bandwidth_bytes_per_s
        least_s = max(
            2 * work.macs / target.peak_fp32_flops_per_s,
            work.moved_bytes / target.bandwidth_bytes_per_s,
        )
        assert row["bound_ms"] == pytest.approx(1e3 * least_s)


def test_a_cpus_roofline_is_that_of_the_tables_best_rates() -> None:
    """The peak figures of the machine at hand say nothing of the CPU of a shipped table."""
    with LatencyTable.open("epyc4-openvino") as table:
        assert stated_peaks(table).flops_per_s is None
        chart = figure_of(table, "roofline")
    assert "highest rates of this table's entries" in chart.note
    above = [row["latency_ms"] / row["bound_ms"] for row in rows_of(chart)]
    assert min(above) == pytest.approx(1, abs=1e-6)
    assert max(above) > 1.5


def test_nothing_is_written_into_the_table(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    path.write_bytes((profiles_dir() / "tables" / "epyc4-pytorch-fp32.db").read_bytes())
    with LatencyTable.open(path) as table:
        figure_of(table, "roofline")
        assert table.rows("SELECT count(macs) AS n FROM op_specs")[0]["n"] == 0


# --- charts ---


def agreement_rows(*series: str) -> list[dict[str, Any]]:
    return [
        {"network": f"network {n}", "measured_ms": 5.0 + n, "estimated_ms": 5.5 + n,
         "low_ms": 5.0 + n, "high_ms": 6.0 + n, "error_percent": 1.0, "estimate": name}
        for n, name in enumerate(series)
    ]  # fmt: skip


def test_the_page_has_the_axes_of_the_picture() -> None:
    """``latlut validate --plot`` draws estimates on x."""
    spec = charts.agreement(agreement_rows(charts.SUM, charts.CALIBRATED))
    for encoding in encodings(spec):
        assert encoding["x"]["field"] in ("estimated_ms", "low_ms")
        assert encoding["y"]["field"] == "measured_ms"
    points = list(encodings(spec))[-1]
    assert points["x"]["title"] == "estimated latency, ms"
    assert points["y"]["title"] == "measured latency, ms"


@pytest.mark.parametrize(
    "series",
    [
        (charts.SUM, charts.CALIBRATED, charts.FITTED),
        (charts.SUM, charts.FITTED, charts.CALIBRATED),
        (charts.FITTED, charts.SUM),
        (charts.CALIBRATED, "another"),
    ],
)
def test_a_series_has_one_colour_and_one_shape_wherever_it_stands(series: tuple[str, ...]) -> None:
    expected = {charts.SUM: ("#2563a8", "circle"), charts.CALIBRATED: ("#d97706", "triangle-up"),
                charts.FITTED: ("#15803d", "square")}  # fmt: skip
    for draw in (charts.agreement, charts.residuals):
        encoding = list(encodings(draw(agreement_rows(*series))))[-1]
        colours, shapes = encoding["color"]["scale"], encoding["shape"]["scale"]
        found = {
            name: (colour, shape)
            for name, colour, shape in zip(
                colours["domain"], colours["range"], shapes["range"], strict=True
            )
        }
        assert colours["domain"] == shapes["domain"]
        assert len({colour for colour, _ in found.values()}) == len(found)
        for name in set(series) & set(expected):
            assert found[name] == expected[name]


def test_operators_have_one_colour_in_tables_of_different_operators() -> None:
    first = dict(zip(("skip", "conv"), charts.colours_of(["skip", "conv"]), strict=True))
    second = dict(zip(("conv", "mine"), charts.colours_of(["conv", "mine"]), strict=True))
    assert first["conv"] == second["conv"] != first["skip"]
    assert second["mine"] != second["conv"]
    many = [f"kind {n}" for n in range(40)]
    assert len(charts.colours_of(many)) == 40


def test_legends_show_shapes_as_points_do() -> None:
    """A legend of colours alone shows circles for triangles: both are one legend where equal."""
    encoding = list(encodings(charts.agreement(agreement_rows(charts.SUM, charts.CALIBRATED))))[-1]
    assert encoding["color"]["legend"] == encoding["shape"]["legend"]
    assert encoding["color"]["field"] == encoding["shape"]["field"]


# --- labels ---


@pytest.mark.parametrize(
    ("name", "shown"),
    [("power_w", "power, W"), ("build_percent", "build, %"), ("least_ms", "least, ms"),
     ("entries", "entries"), ("plan", "plan"), ("sm_mhz", "sm, MHz"), ("ms", "ms")],
)  # fmt: skip
def test_fields_are_named_with_units(name: str, shown: str) -> None:
    assert labels.label(name) == shown


def test_times_are_shown_to_the_minute() -> None:
    assert number("2026-11-24T03:50:59+00:00") == "2026-11-24 03:50 UTC"
    assert number("2026-11-24T03:50:59+02:00") == "2026-11-24T03:50:59+02:00"
    assert number("fp32") == "fp32"


@pytest.mark.parametrize("name", ["1080ti", "epyc4-openvino"])
def test_a_tables_page_has_no_raw_field_names(name: str) -> None:
    (section,) = sections_of([name])
    shown: list[str] = []
    for block in section.blocks:
        if isinstance(block, Facts):
            shown += [*block.rows, *map(number, block.rows.values())]
        elif isinstance(block, Grid):
            shown += block.columns
            if block.title in ("Runs", "Validations"):
                shown += [number(value) for row in block.rows for value in row]
        elif isinstance(block, Chart):
            shown += [
                tip["title"] for encoding in encodings(block.spec)
                for tip in encoding.get("tooltip", ())
            ]  # fmt: skip
    assert len(shown) > 20
    for text in shown:
        assert not re.search(r"[a-z]_[a-z]", text), text
        assert not re.search(r"\dT\d\d:", text), text
        assert text not in ("r12", "at")


# --- which files ---


def titles(sections: list[Section]) -> list[tuple[str, str]]:
    return [(section.title, section.what) for section in sections]


def make_training(folder: Path) -> Path:
    """The files of a training that a page reads."""
    folder.mkdir(parents=True)
    (folder / "epochs.csv").write_text("epoch,loss,mean_iou\n1,2.0,0.1\n2,1.0,0.2\n")
    (folder / "settings.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"started_at": "2026-11-24T03:50:59+00:00"}))
    return folder


def test_what_is_named_twice_is_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_training(tmp_path / "runs" / "one")
    make_training(tmp_path / "runs" / "two")
    names = ["runs/one", "./runs/one/", str(tmp_path / "runs" / "one"), "runs/two",
             "epyc4-openvino", "epyc4-openvino-fp32",
             str(profiles_dir() / "tables" / "epyc4-openvino-fp32.db"),
             "fasterseg-student", "fasterseg-student"]  # fmt: skip
    assert titles(sections_of(names)) == [
        ("one", "training"), ("two", "training"), ("epyc4-openvino-fp32.db", "latency table"),
        ("fasterseg-student", "architecture"),
    ]  # fmt: skip


def test_a_shipped_architecture_is_named_as_elsewhere(tmp_path: Path) -> None:
    page = tmp_path / "new" / "folder" / "page.html"
    code, output = invoke("report", "fasterseg-student", "-o", page)
    assert code == 0, output
    text = page.read_text(encoding="utf-8")
    assert "The fasterseg-student, cell by cell" in text and "data:image/svg" in text
    code, output = invoke("report", "fasterseg-studnet", "-o", page)
    assert code == 2 and "fasterseg-studnet" in output


def test_a_file_of_ones_own_comes_before_a_shipped_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_training(tmp_path / "fasterseg-student")
    assert titles(sections_of(["fasterseg-student"])) == [("fasterseg-student", "training")]


def test_folders_are_made_for_pages_and_figures(tmp_path: Path) -> None:
    for words, path in (
        (("report", "epyc4-openvino"), tmp_path / "a" / "b" / "page.html"),
        (("table", "plot", "epyc4-openvino", "heatmap"), tmp_path / "c" / "map.svg"),
        (("table", "plot", "epyc4-openvino", "heatmap"), tmp_path / "d" / "map.csv"),
    ):
        code, output = invoke(*words, "-o", path)
        assert code == 0, output
        assert path.stat().st_size > 1000
    blocked = tmp_path / "file"
    blocked.touch()
    code, output = invoke("report", "epyc4-openvino", "-o", blocked / "page.html")
    assert code == 2 and "Traceback" not in output
