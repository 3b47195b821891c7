"""What ``latlut plan show`` says of plans and of ONNX files, and several batches in one sweep."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from onnx_models import segmenter

from latlut.cli import main
from latlut.measure.plans import load_plan


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(segmenter(("batch", 3, 16, 24)))
    (tmp_path / "fixed.onnx").write_bytes(segmenter((1, 3, 16, 24)))
    return tmp_path


def test_a_shipped_plan() -> None:
    found = json.loads(run("plan", "show", "table1", "--json").stdout)
    assert len(found["op_specs"]) == 4
    assert found["hash"] == load_plan("table1").hash
    assert sum(item["macs"] for item in found["op_specs"]) == sum(
        item["macs"] for item in found["by_kind"]
    )
    assert "sweep" not in found
    text = run("plan", "show", "table1", "--all").stdout
    assert (
        "4 operator configurations to measure" in text
        and "zoomed_conv 256->256 stride 1 at 32x64" in text
    )


def test_a_plan_at_several_batches_and_a_sweep_of_it(folder: Path) -> None:
    (folder / "mine.toml").write_text('format = 1\nops = ["conv 4->4 at 8x8"]\n')
    found = json.loads(run("plan", "show", "mine.toml", "--batch", "1,2", "--cpu", "--json").stdout)
    keys = [item["op_spec"] for item in found["op_specs"]]
    assert keys == ["conv 4->4 stride 1 at 8x8", "conv 4->4 stride 1 at 8x8 batch=2"]
    assert found["sweep"]["readings"] == 10 and found["sweep"]["seconds"] > 0
    assert not Path("profiles").exists()
    swept = run(
        "profile", "--op", "conv 4->4 at 8x8", "--batch", "1,2", "--cpu", "--passes", 1,
        "--table", "t.db", "--json", "-q",
    )  # fmt: skip
    assert json.loads(swept.stdout)["entries"] == 2, swept.output
    text = run("plan", "show", "mine.toml", "--batch", "1,2,4", "--table", "t.db", "--passes", 1)
    assert "1 of them lack readings in t.db: 1 to take, 2 are there" in text.stdout


def test_files_are_shown_as_pieces_at_each_batch(folder: Path) -> None:
    text = run("plan", "show", "net.onnx", "fixed.onnx").stdout
    assert "net: 2 pieces, 2 of them unique" in text
    assert re.search(r"Conv 3->4 3x3 s2 \+ Relu at 8x12 +2 ", text)  # once in each file
    assert "2 operator configurations to measure" in text
    found = json.loads(run("plan", "show", "--onnx", "net.onnx", "--batch", "1,4", "--json").stdout)
    labels = [item["label"] for item in found["op_specs"]]
    assert labels[0] == "Conv 3->4 3x3 s2 + Relu at 8x12"
    assert labels[2] == "Conv 3->4 3x3 s2 + Relu at 8x12 batch=4"
    assert [file["name"] for file in found["files"]] == ["net batch=1", "net batch=4"]
    assert found["op_specs"][2]["macs"] == 4 * found["op_specs"][0]["macs"]


def test_pieces_at_two_batches_are_priced_and_validated(folder: Path) -> None:
    swept = run(
        "profile", "--cpu", "--onnx", "net.onnx", "--batch", "1,4", "--passes", 2,
        "--table", "t.db", "--json", "-q",
    )  # fmt: skip
    assert json.loads(swept.stdout)["entries"] == 4, swept.output
    one, four = (
        json.loads(
            run("estimate", "--table", "t.db", "--onnx", "net.onnx", "--batch", n, "--json").stdout
        )
        for n in (1, 4)
    )
    assert one["is_complete"] and four["is_complete"]
    assert one["terms"][0]["op_spec"] != four["terms"][0]["op_spec"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a plan, a plan's file, ONNX files, or a space"),
        (("tiny", "table1"), "a plan is shown alone, 2 are named"),
        (("tinny",), "did you mean 'tiny'"),
        (("fixed.onnx", "--batch", "4"), "fixed at image (1, 3, 16, 24)"),
        (("tiny", "--cut", "work"), "--cut is for pieces of ONNX files"),
        (("tiny", "--batch", "0"), "names no batches"),
        (("missing.onnx",), "missing.onnx"),
    ],
)
def test_what_cannot_be_shown_is_said(folder: Path, words: tuple[str, ...], message: str) -> None:
    result = run("plan", "show", *words)
    assert result.exit_code == 2
    assert message in result.stderr
