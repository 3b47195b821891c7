"""The report page in a real browser, and what it refuses."""

from __future__ import annotations

import csv
import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, headless
from click.testing import CliRunner

from latlut.cli import main
from latlut.reports.page.collect import sections_of
from latlut.reports.page.parts import Chart, Facts, Grid, Section, Text
from latlut.reports.page.write import page_text

HOSTILE = '<script>document.title="hacked"</script>&"\'</script><b>'

#: Run inside the page; its findings go to the page around it.
_PROBE = """
<script>
const probe = (tries) => {
  const charts = document.querySelectorAll(".chart");
  const drawn = document.querySelectorAll(".chart svg");
  if (drawn.length < charts.length && tries) return setTimeout(() => probe(tries - 1), 200);
  const rows = () => [...document.querySelectorAll("tbody tr")];
  const cells = (n) => rows().map((row) => row.cells[n].textContent);
  const heads = document.querySelectorAll("th button");
  const found = { title: document.title, before: cells(1),
    wide: document.documentElement.scrollWidth, view: document.documentElement.clientWidth,
    drawn: drawn.length, bold: document.querySelectorAll("main b").length };
  heads[1].click(); found.ascending = cells(1);
  heads[1].click(); found.descending = cells(1);
  heads[0].click(); found.names = cells(0);
  const filter = document.querySelector("input[type=search]");
  filter.value = "delta"; filter.dispatchEvent(new Event("input"));
  found.left = rows().filter((row) => !row.hidden).length;
  parent.postMessage(JSON.stringify(found), "*");
};
addEventListener("load", () => probe(50));
</script>
"""


def _page() -> list[Section]:
    from latlut.reports.page import charts

    rows = [["alpha", 10.5], ["delta", 9.25], [HOSTILE, 100.0], ["beta", None], ["Beta", 9.0]]
    points = [{"network": HOSTILE, "series": HOSTILE, "x": 1.0, "y": 2.0},
              {"network": "b", "series": "b", "x": 2.0, "y": 3.0}]  # fmt: skip
    blocks = (
        Text(HOSTILE, "bad"),
        Facts({HOSTILE: HOSTILE, "x" * 300: 1}),
        Chart("plane", HOSTILE, charts.plane(points, "latency, ms", "mIoU, %", limit=1.5)),
        Chart("lines", "lines", charts.lines(
            [{"epoch": n, "series": "a", "value": 1.0 + n} for n in range(3)], "ms")),
        Grid("numbers", ["name", "ms"], rows, has_filter=True),
    )  # fmt: skip
    return [Section(HOSTILE, "/" + "long" * 200, HOSTILE, blocks)]


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str, int], tuple[dict[str, Any], str]]:
    """Opens a page in headless Chromium, in a frame of a width: its findings, its log."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")

    def opened(text: str, width: int) -> tuple[dict[str, Any], str]:
        head, tail = text.rsplit("</body>", 1)  # the charts' scripts have such a text too
        (tmp_path / "page.html").write_text(f"{head}{_PROBE}</body>{tail}")
        frame = (
            '<pre id="found"></pre><script>addEventListener("message", (event) => {'
            ' document.getElementById("found").textContent = event.data; });</script>'
            f'<iframe src="page.html" width="{width}" height="900" style="border:0"></iframe>'
        )
        (tmp_path / "frame.html").write_text(frame)
        words = headless(
            tmp_path / "profile", "--enable-logging=stderr", "--v=0",
            "--virtual-time-budget=20000", "--dump-dom", f"file://{tmp_path / 'frame.html'}",
        )  # fmt: skip
        ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        found = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
        assert found, ended.stderr[-2000:]
        return json.loads(html.unescape(found[1])), ended.stderr

    return opened


@pytest.mark.parametrize("width", [380, 1100])
def test_a_page_sorts_filters_fits_and_escapes_names_in_a_browser(
    browse: Callable[[str, int], tuple[dict[str, Any], str]], width: int
) -> None:
    found, log = browse(page_text(_page(), HOSTILE), width)
    assert found["title"] == HOSTILE and not found["bold"]
    assert found["before"] == ["10.5", "9.25", "100", "", "9"]
    assert found["ascending"] == ["9", "9.25", "10.5", "100", ""]
    assert found["descending"] == ["100", "10.5", "9.25", "9", ""]
    assert found["names"].index("alpha") < found["names"].index("delta")
    assert found["left"] == 1
    assert found["drawn"] == 2
    assert found["wide"] <= found["view"] <= width  # a scroll bar takes the rest
    console = [line for line in log.splitlines() if "CONSOLE" in line]
    assert not console


def test_a_page_asks_for_nothing_from_elsewhere() -> None:
    text = page_text(_page(), "page")
    assert not re.findall(r"<(?:link|img|iframe)[^>]+(?:href|src)=.https?:", text)
    assert "<script src" not in text


def _invoke(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, [str(word) for word in words])
    return found.exit_code, found.output


def _table(folder: Path, name: str, scale: float = 1.0, kind: str = "conv") -> Path:
    path = folder / f"{name}.db"
    rows = [("op_spec", "latency_ms")]
    rows += [(f"{kind} {c}->{o} at {s}x{2 * s}", scale * c * o * s / 1e4)
             for c in (16, 32) for o in (16, 32) for s in (8, 16)]  # fmt: skip
    file = folder / f"{name}.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    fields = ("target=cpu", "device_model=x", f"engine={name}", "engine_version=1")
    code, output = _invoke("table", "import", file, "--table", path,
                           *(f"--identity={field}" for field in fields))  # fmt: skip
    assert code == 0, output
    return path


def test_report_of_two_tables_compares_them(tmp_path: Path) -> None:
    first, second = _table(tmp_path, "a"), _table(tmp_path, "b", 2.0)
    page = tmp_path / "page.html"
    code, output = _invoke("report", first, second, "-o", page)
    assert code == 0, output
    sections = sections_of([str(first), str(second)])
    assert [section.what for section in sections] == ["latency table"] * 2 + [
        "comparison of tables"
    ]
    texts = " ".join(block.text for block in sections[-1].blocks if isinstance(block, Text))
    assert "the median of b.db over a.db is 2" in texts
    assert "a.db is 2.00 times faster (median)" in texts
    differing = next(block for block in sections[-1].blocks if isinstance(block, Grid))
    assert differing.columns == ["", "a.db", "b.db"] and differing.rows == [["engine", "a", "b"]]
    assert page.stat().st_size < 3_000_000
    assert "conv 16-&gt;32 stride 1 at 8x16" in page.read_text()


def test_report_of_a_comparison_never_mixes_data_sets(tmp_path: Path) -> None:
    file = tmp_path / "compare.csv"
    code, output = _invoke("compare", "enet,fast-scnn,fasterseg-student", "--csv", file)
    assert code == 0, output
    (section,) = sections_of([str(file)])
    planes = [block for block in section.blocks if isinstance(block, Chart)]
    assert len(planes) > 1 and len({chart.title for chart in planes}) == len(planes)


@pytest.mark.parametrize(
    ("chart", "suffix"), [("heatmap", ".png"), ("heatmap", ".csv"), ("heatmap", ".svg")]
)
def test_table_plot_writes_single_figures(tmp_path: Path, chart: str, suffix: str) -> None:
    path, out = _table(tmp_path, "a"), tmp_path / f"figure{suffix}"
    code, output = _invoke("table", "plot", path, chart, "-o", out)
    assert code == 0, output
    content = out.read_bytes()
    beginning = {".png": b"\x89PNG", ".csv": b"op_spec,", ".svg": b"<svg"}[suffix]
    assert content.startswith(beginning)
    if suffix == ".csv":
        assert content.count(b"\n") == 9


def test_refusals_name_what_is_wrong(tmp_path: Path) -> None:
    path = _table(tmp_path, "a")
    own = _table(tmp_path, "own", kind="mystery")
    folder, other = tmp_path / "empty", tmp_path / "picture.png"
    folder.mkdir()
    other.write_bytes(b"\x89PNG....")
    for words, said in (
        (("report", path, "-o", tmp_path / "page.pdf"), "written as .html"),
        (("report", folder), "no folder of a search or of a training"),
        (("report", other), "it is a PNG picture"),
        (("report", tmp_path / "a.csv"), "no comparison of networks"),
        (("report", tmp_path / "absent.db"), "absent.db"),
        (("table", "plot", path, "agreement", "-o", tmp_path / "a.png"), "No network was"),
        (("table", "plot", own, "roofline", "-o", tmp_path / "a.svg"), "operators compute"),
        (("table", "plot", path, "heatmap", "-o", tmp_path / "a.gif"), "a figure ends in"),
        (("table", "plot", path, "heatmap", "-o", tmp_path / "a.png", "--operator", "cnv"),
         "did you mean 'conv'"),
    ):  # fmt: skip
        code, output = _invoke(*words)
        assert code == 2 and said in output, output
        assert "Traceback" not in output
    assert not (tmp_path / "page.pdf").exists()
