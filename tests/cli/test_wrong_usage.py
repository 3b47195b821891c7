"""Errors of usage have one form: what is wrong, what is near, where the help is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latlut.cli import main


def run(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), prog_name="latlut")


@pytest.mark.parametrize(
    ("arguments", "message", "place"),
    [
        (["estimat"], "no command 'estimat'; did you mean 'estimate'? known: ", "latlut"),
        (["table", "inof"], "no command 'inof' in latlut table; did you mean 'info'? known: ",
         "latlut table"),
        (["profile", "--engine", "openvnio"], "--engine: no choice 'openvnio'; did you mean "
         "'openvino'? known: onnxruntime, ", "latlut profile"),
        (["table", "plot", "x", "heatmpa", "-o", "x.png"], "no choice 'heatmpa'; did you mean "
         "'heatmap'? known: agreement, ", "latlut table plot"),
        (["profile", "--enginee", "x"], "no option '--enginee'; did you mean '--engine'?",
         "latlut profile"),
        (["profile", "--passes", "0"], "--passes: 0 is not in the range 1 to 100.",
         "latlut profile"),
        (["table", "info"], "Missing argument 'TABLE'.", "latlut table info"),
        (["--versoin"], "no option '--versoin'; did you mean '--version'?", "latlut"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_errors_of_usage_have_one_form(arguments: list[str], message: str, place: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    first, *rest = result.stderr.splitlines()
    assert first.startswith("Error: ") and message in first
    assert rest == [f"help: {place} --help"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('engine = "openvinoo"', "latlut.toml: engine: no choice 'openvinoo'; did you mean 'op"),
        ("[bench]\npasses = 0", "latlut.toml: bench.passes: 0 is not in the range 1 to 100"),
        ('gpu = "x"\n[bench]\nthreads = "two"', "latlut.toml: bench.threads: 'two' is not"),
    ],
)  # fmt: skip
def test_a_wrong_default_is_blamed_on_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latlut.toml").write_text(text)
    result = run("bench", "x", "--cpu")
    assert result.exit_code == 2
    assert message in result.stderr
    typed = run("bench", "x", "--engine", "openvinoo", "--passes", "0", "--threads", "x")
    assert "latlut.toml" not in typed.stderr


def test_a_group_without_a_command_prints_its_help() -> None:
    assert "Commands:" in run("table").output


@pytest.mark.parametrize("group", ["table", "plan", "arch", "data"])
def test_lists_of_commands_are_whole(group: str) -> None:
    listed = run(group, "--help").output.partition("Commands:")[2]
    assert listed and "..." not in listed


def test_ranges_are_in_words() -> None:
    text = " ".join(run("profile", "--help").output.split())
    assert "--passes N" in text
    assert "[default: 5; 1 to 100]" in text
    assert "<=" not in text and "RANGE" not in text


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "profiles/x.onnx"])
def test_a_table_is_not_made_under_the_name_of_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("profile", "--cpu", "--table", name, "--op", "conv 4->4 at 8x8")
    assert result.exit_code == 2
    assert f"{name}: a table is an SQLite file, its name has to end in .db" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "check", "1080ti"],
        ["table", "info", "1080ti"],
        ["table", "query", "1080ti", "--kind", "cnv"],
        ["table", "query", "1080ti", "--where", "nonsense = 1"],
        ["table", "diff", "1080ti", "epyc4-onnxruntime-fp32"],
        ["table", "plot", "1080ti", "heatmap", "--operator", "nope", "-o", "x.png"],
    ],
    ids=" ".join,
)
def test_shipped_tables_are_named_as_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert ".db" not in result.output
    assert result.output


def test_a_near_name_is_suggested_instead_of_making_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = run("table", "info", "epyc4-onnxruntim-fp32").stderr
    assert "did you mean 'epyc4-onnxruntime-fp32'?" in near
    assert "make one with" not in near
    assert "make one with: latlut profile --table zzz" in run("table", "info", "zzz").stderr


def test_another_ending_names_its_format(tmp_path: Path) -> None:
    result = run("export", "fast-scnn", "-o", tmp_path / "x.xml")
    assert result.exit_code == 2
    assert "for a file that ends in .xml add --format openvino" in result.stderr
