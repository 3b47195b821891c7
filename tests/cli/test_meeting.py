"""The last line of what measures a network, and files that are refused before measuring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_tables import make_table

from latlut.cli import main
from latlut.cli.meeting import is_met, meeting_text
from latlut.files.writing import WriteError, check_writable
from latlut.spaces.shipped import find_architecture


def test_the_line_says_what_was_wanted_estimated_and_measured() -> None:
    line = meeting_text(8.55, 8.43, 8.60, 0.99)
    assert line == "target 8.550 ms, table 8.430 ms, measured 8.600 ms: met"
    assert meeting_text(8.0, None, 9.0, None).endswith("measured 9.000 ms: missed by 12.5%")
    assert meeting_text(None, 8.0, 8.4, None).endswith("+5.0% against the table")
    assert "disturbed" in meeting_text(8.0, 7.9, 8.4, 0.6)
    assert meeting_text(8.0, 7.9, 7.0, 0.6).endswith("measured 7.000 ms: met")


def test_a_disturbed_machine_can_meet_a_target_and_cannot_miss_it() -> None:
    assert is_met(8.0, 7.0, 0.5) is True
    assert is_met(8.0, 8.3, 0.5) is None
    assert is_met(8.0, 7.0, None) and is_met(8.0, 8.1, 1.0)
    assert is_met(8.0, 8.3, 1.0) is False


def run(*words: str):
    return CliRunner().invoke(main, list(words))


def test_bench_against_a_table_and_a_target(tmp_path: Path) -> None:
    specs = dict.fromkeys(find_architecture("fasterseg-student").op_specs((64, 128)))
    with make_table(tmp_path / "t.db", list(specs)) as table, table.writing() as db:
        db.execute("UPDATE entries SET predicted_from = 20 WHERE op_spec_id % 2")
    words = ["bench", "fasterseg-student", "--cpu", "--engine", "onnxruntime", "--input", "64x128",
             "--passes", "1", "-q", "--table", str(tmp_path / "t.db")]  # fmt: skip
    found = run(*words, "--target-ms", "0.001")
    assert found.exit_code == 1, found.output
    latency, last = found.stdout.splitlines()
    assert " ms (" in latency
    assert last.startswith("target 0.001 ms, table ") and "measured" in last
    shown = json.loads(run(*words, "--json").stdout)
    assert 0 < shown["predicted_share"] < 1
    assert shown["table_ms"] > 0 and shown["target_ms"] is None and shown["is_met"] is None
    told = run(*[word for word in words if word != "-q"])
    assert len(told.stdout.splitlines()) > 5
    assert f"not measured: {100 * shown['predicted_share']:.0f}% of the estimate" in told.stderr
    other = words[:6] + ["128x256"] + words[7:]
    missing = run(*other)
    assert missing.exit_code == 2 and "lacks" in missing.stderr


def test_files_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"end in \.png, \.svg"):
        check_writable(tmp_path / "a.gif", ".png", ".svg")
    with pytest.raises(WriteError, match="no folder"):
        check_writable(tmp_path / "none" / "a.png", ".png")
    check_writable(tmp_path / "none" / "a.png", ".png", makes_folder=True)
    with pytest.raises(WriteError, match="is a folder"):
        check_writable(tmp_path)
    refused = run("validate", "--table", "none.db", "--plot", str(tmp_path / "a.gif"))
    assert refused.exit_code == 2 and "end in" in refused.stderr
    refused = run("compare", "--measure", "--plot", str(tmp_path / "none" / "a.png"))
    assert refused.exit_code == 2 and "no folder" in refused.stderr
    refused = run("scan", "conv {1..3}->8 at 4x4", "--cpu", "--plot", str(tmp_path / "a.gif"))
    assert refused.exit_code == 2 and "end in" in refused.stderr
    (tmp_path / "a").write_text("")
    refused = run("bench", "enet", "--cpu", "--samples", str(tmp_path / "a" / "runs.csv"))
    assert refused.exit_code == 2 and "cannot write" in refused.stderr
    refused = run("arch", "show", "fasterseg-student", "--plot", str(tmp_path / "no" / "a.png"))
    assert refused.exit_code == 2 and "no folder" in refused.stderr


@pytest.mark.parametrize(
    "words", [("compare", "fasterseg-student", "--csv"), ("table", "export", "1080ti")]
)
def test_a_missing_folder_is_named_without_the_systems_number(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    refused = run(*words, str(tmp_path / "none" / "a.csv"))
    assert refused.exit_code == 2
    assert f"there is no folder {tmp_path / 'none'}" in refused.stderr
    assert "Errno" not in refused.stderr
