"""What all commands share: one meaning per option, defaults of a lab, completion, quiet."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result
from onnx_models import adder
from shown_commands import check_arguments, simple_commands
from small_tables import make_table

from latlut.cli import commands, main
from latlut.cli.choices import STATISTICS
from latlut.cli.commands import GROUPS
from latlut.cli.defaults import VARIABLE, option_key
from latlut.cli.output import counted, percent_text
from latlut.cli.progress import ProgressLines
from latlut.engines import PRECISIONS, engine_class, engine_names
from latlut.opspec import OpSpec
from latlut.stats import quantiles
from latlut.table.identity import Identity

OPS = ["conv 4->8 stride 1 at 8x8", "conv 8->8 stride 1 at 8x8", "conv 16->8 stride 2 at 8x8"]
#: Options whose values differ between commands for a reason: one table or several, files or also
#: folders, a part of the engines, one batch or several.
OF_SEVERAL_KINDS = {"batch", "engine", "from", "out"}


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, args)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def all_options(command: click.Command, words: str = "") -> Iterator[tuple[str, click.Option]]:
    """Every option with the command that has it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from all_options(below, f"{words} {name}".strip())
        return
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield words, parameter


@pytest.fixture
def table_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "profiles" / "my table's.db"
    path.parent.mkdir()
    make_table(path, map(OpSpec.parse, OPS)).close()
    return path


# --- one name, one meaning ---


def test_an_option_takes_the_same_kind_of_value_in_every_command() -> None:
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for words, option in all_options(main):
        kind = "flag" if option.is_flag else option.type.name
        kinds[option_key(option)][f"{kind}{'*' if option.multiple else ''}"].append(words)
    different = {
        name: dict(found)
        for name, found in kinds.items()
        if len(found) > 1 and name not in OF_SEVERAL_KINDS
    }
    assert not different


def test_groups_name_options_that_exist() -> None:
    known = {option_key(option) for _, option in all_options(main)}
    assert set().union(*GROUPS.values()) <= known


def test_long_commands_list_their_options_in_groups() -> None:
    output = run("profile", "--help").stdout
    places = [output.index(f"\n{title}:\n") for title in GROUPS]
    assert places == sorted(places)
    device = output[places[0] : places[1]]
    assert "--engine [onnxruntime|openvino|pytorch|tensorrt|tensorrt-rtx]" in device


def test_defaults_are_shown_in_one_way() -> None:
    for words, option in all_options(main):
        assert not re.search(r"\[[^\]]*\]\.?$", option.help or ""), f"{words} {option.opts}"


def test_choices_are_those_of_the_library() -> None:
    assert list(STATISTICS) == list(quantiles.STATISTICS)
    for name in engine_names():
        assert set(engine_class(name).precisions) <= set(PRECISIONS)


# --- a lab's defaults ---


def test_defaults_come_from_the_nearest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latlut.toml").write_text(
        'engine = "openvino"\nthreads = 2\n[profile]\npasses = 3\nci = "2%"\n'
        "[table.query]\nlimit = 7\n"
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    shown = run("profile", "--threads", "1", "--print-settings").stdout
    assert 'engine = "openvino"  # file of defaults' in shown
    assert "passes = 3  # file of defaults" in shown
    assert 'ci = "2%"  # file of defaults' in shown
    assert 'timeout = "5m"  # default' in shown
    assert "threads = 1  # command line" in shown
    assert "rebuilds = 1  # default" in shown
    assert "limit = 7  # file of defaults" in run("table", "query", "x", "--print-settings").stdout
    # What is printed is a file of defaults itself.
    again = tmp_path / "again.toml"
    again.write_text(shown)
    monkeypatch.setenv(VARIABLE, str(again))
    settings = run("profile", "--print-settings").stdout
    assert re.sub(" +#.*", "", settings) == re.sub(" +#.*", "", shown)


def test_printed_settings_are_those_of_a_table_where_it_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latlut.toml").write_text('engine = "openvino"\nthreads = 2\n')
    monkeypatch.chdir(tmp_path)
    identity = Identity("cpu", "x", "onnxruntime", "1", threads=3, statistic="median")
    make_table(tmp_path / "t.db", map(OpSpec.parse, OPS), identity=identity).close()
    shown = run("profile", "--table", "t.db", "--print-settings").stdout
    for line in ('engine = "onnxruntime"', "threads = 3", 'statistic = "median"', "cpu = true"):
        assert f"{line}  # the table" in shown
    typed = run("profile", "--table", "t.db", "--threads", "1", "--print-settings").stdout
    assert "threads = 1  # command line" in typed
    fresh = run("profile", "--table", "new.db", "--print-settings").stdout
    assert "threads = 2  # file of defaults" in fresh


def test_a_project_file_can_hold_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.latlut.bench]\npasses = 9\n")
    monkeypatch.chdir(tmp_path)
    assert "passes = 9  # file" in run("bench", "x", "--print-settings").stdout
    assert "passes = 5  # default" in run("profile", "--print-settings").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thread = 2", "did you mean 'threads'"),
        ("[profil]\npasses = 2", "did you mean 'profile'"),
        ("[bench]\npases = 2", "latlut bench has no option 'pases'; did you mean 'passes'"),
        ("passes = 0", "latlut.toml: passes: 0 is not in the range"),
        ("passes", "not TOML"),
        ("passes = [1]", "passes takes one value, received [1]"),
        ("[bench.passes]\na = 1", "passes takes one value"),
        ("# tool.latlut\n[[bench]]\npasses = 1", "no command has an option 'bench'"),
    ],
)
def test_wrong_defaults_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    (tmp_path / "latlut.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = run("bench", "x", "--cpu")
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "tool = 1 # [tool.latlut]",
        "[[tool.latlut]]\npasses = 1",
        "[tool]\nlatlut = [] # [tool.latlut]",
    ],
)
def test_a_project_file_without_a_table_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = run("bench", "x", "--cpu")
    assert result.exit_code == 2
    assert "has to be a table" in result.stderr


def test_a_command_and_an_option_may_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latlut.toml").write_text('table = "cpu"\n')
    monkeypatch.chdir(tmp_path)
    assert 'table = "cpu"  # file of defaults' in run("validate", "--print-settings").stdout
    assert run("table", "query", "x", "--print-settings").exit_code == 0


def test_a_device_that_is_typed_replaces_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latlut.toml").write_text('gpu = "1080ti"\n')
    monkeypatch.chdir(tmp_path)
    shown = run("profile", "--cpu", "--print-settings").stdout
    assert "# gpu is not set" in shown
    assert "cpu = true" in shown


# --- what messages suggest ---


def suggested(text: str) -> list[list[str]]:
    """The commands of latlut in a message."""
    found = re.findall(r"(?:^|: +|`|with )(latlut [a-z].*?)(?:`|, | \(|$)", text, re.MULTILINE)
    return [words for line in found for words in simple_commands(line)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "info", "no such table.db"],
        ["table", "info", "nosuch"],
        ["estimate", "--table", "TABLE", "--op", "conv 4->9 stride 1 at 8x8"],
        ["estimate", "--table", "TABLE", "--arch", "fasterseg-student"],
        ["table", "info", "small model.onnx"],
        ["table", "info", "a file.csv"],
        ["table", "check", "TABLE"],
        ["calibrate", "--table", "TABLE"],
    ],
    ids=" ".join,
)
def test_suggested_commands_are_quoted_and_parse(table_path: Path, arguments: list[str]) -> None:
    Path("small model.onnx").write_bytes(adder((1, 8), (1, 8)))
    Path("a file.csv").write_text("op_spec,latency_ms\nconv 4->4 at 8x8,1\n")
    result = run(*(str(table_path) if word == "TABLE" else word for word in arguments))
    found = suggested(result.output)
    assert found, result.output
    for words in found:
        check_arguments(main, words[1:], click.Context(main, info_name="latlut"))
        if table_path.stem in " ".join(words):
            assert str(table_path) in words or "profiles/my table's.db" in words


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "enet", "--measure", "--csv", "x.png"),
        ("bench", "enet", "--cpu", "--samples", "x.txt"),
        ("table", "query", "my table's", "--csv", "x.db"),
    ],
)
def test_files_of_rows_end_in_csv(table_path: Path, words: tuple[str, ...]) -> None:
    refused = run(*words)
    assert refused.exit_code == 2
    assert "its name has to end in .csv" in refused.output


def test_an_unknown_operator_of_a_figure_is_named(table_path: Path) -> None:
    refused = run("table", "plot", "my table's", "heatmap", "-o", "x.png", "--operator", "nope")
    assert "no operator 'nope' in the heat map; known: " in refused.output


@pytest.mark.parametrize(("count", "text"), [(1, "1 pass"), (2, "2 passes"), (0, "0 passes")])
def test_counts_are_written_out(count: int, text: str) -> None:
    assert counted(count, "pass") == text
    assert counted(count, "round") == text.replace("pass", "round").replace("es", "s")


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (4.26, "4.3"), (287.9, "290")])
def test_percentages_have_no_exponent(value: float, text: str) -> None:
    assert percent_text(value) == text


# --- completion ---


@pytest.mark.parametrize(
    ("words", "incomplete", "name"),
    [
        ([], "prof", "profile"),
        (["table"], "q", "query"),
        (["estimate", "--table"], "my", "my table's"),
        (["table", "info"], "1080", "1080ti-fasterseg"),
        (["profile", "--engine"], "open", "openvino"),
        (["profile", "--gpu"], "108", "1080ti"),
        (["profile", "--plan"], "ti", "tiny"),
        (["bench"], "fasterseg-s", "fasterseg-student"),
        (["compare", "enet"], "bise", "bisenet-v2"),
        (["estimate", "--arch"], "fasterseg-s", "fasterseg-student"),
        (["search", "--preset"], "pa", "paper"),
    ],
)
def test_names_are_completed(
    table_path: Path, words: list[str], incomplete: str, name: str
) -> None:
    found = BashComplete(main, {}, "latlut", "_LATLUT_COMPLETE").get_completions(words, incomplete)
    assert name in [item.value for item in found]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no Bash")
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["estimate", "--table", ""], "1080ti-fasterseg epyc4-onnxruntime-fp32"),
        (["targets", "h1"], "h100 h100-nvl h100-pcie"),
        (["profile", "--engine", "open"], "openvino"),
        (["profile", "--plan", ""], "fasterseg table1 tiny"),
        (["bench", "fasterseg-s"], "fasterseg-student"),
        (["bench", "network.o"], ""),  # a file's name is left to Bash
    ],
)
def test_bash_shows_names(words: list[str], shown: str, tmp_path: Path) -> None:
    program = tmp_path / "latlut"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m latlut "$@"\n')
    program.chmod(0o755)
    script = BashComplete(main, {}, "latlut", "_LATLUT_COMPLETE").source()
    typed = " ".join(map(shlex.quote, ["latlut", *words]))
    asking = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _latlut_completion {program}"
    found = subprocess.run(
        ["bash", "-c", f'compopt() {{ :; }}\n{script}\n{asking}\necho "${{COMPREPLY[*]}}"'],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.stdout.strip().startswith(shown) and bool(found.stdout.strip()) == bool(shown)


# --- entries of a table ---


def test_entries_are_sorted_chosen_and_written(table_path: Path) -> None:
    chosen = ["--columns", "op_spec,latency_ms", "--sort", "-latency_ms"]
    result = run("table", "query", "my table's", *chosen)
    values = [float(line.split()[-1]) for line in result.stdout.splitlines()[1:]]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert result.stdout.splitlines()[0].split() == ["op_spec", "latency_ms"]
    run("table", "query", "my table's", *chosen, "--csv", "out.csv")
    assert Path("out.csv").read_text().splitlines()[0] == "op_spec,latency_ms"
    assert len(Path("out.csv").read_text().splitlines()) == 4
    for option in ("--sort", "--columns"):
        refused = run("table", "query", "my table's", option, "latency")
        assert refused.exit_code == 2
        assert f"{option}: no column 'latency'; did you mean 'latency_ms'?" in refused.stderr


def test_quiet_commands_make_no_remarks(table_path: Path) -> None:
    arguments = ("table", "query", "my table's", "--limit", "1")
    assert "showing 1 of 3; --limit 3 shows all" in run(*arguments).stderr
    assert run(*arguments, "-q").stderr == ""


# --- bench ---


def test_bench_takes_a_number_of_runs_and_writes_them(table_path: Path) -> None:
    Path("small.onnx").write_bytes(adder((1, 8), (1, 8)))
    result = run("bench", "small.onnx", "--cpu", "--engine", "onnxruntime", "--passes", "2",
                 "--iterations", "15", "--samples", "runs.csv", "-q")  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [line.split(",") for line in Path("runs.csv").read_text().splitlines()]
    assert rows[0] == ["pass", "run", "ms"]
    assert [row[:2] for row in rows[1:]] == [
        [str(number), str(count)] for number in (1, 2) for count in range(1, 16)
    ]
    assert all(float(row[2]) > 0 for row in rows[1:])
    both = run("bench", "small.onnx", "--cpu", "-t", "1s", "--iterations", "3")
    assert both.exit_code == 2
    assert "choose one" in both.stderr


# --- progress without a terminal ---


def test_a_step_that_says_nothing_is_mentioned_from_time_to_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressLines("export", every_s=0.02):
        for _ in range(500):
            time.sleep(0.01)
            if (text := capsys.readouterr().err).count("elapsed") >= 1:
                break
    assert text.startswith("export: 0 s elapsed")


@pytest.mark.parametrize(("words", "titles"), [([], ["slow"]), (["--quiet"], [])])
def test_a_command_without_progress_says_that_it_still_runs(
    monkeypatch: pytest.MonkeyPatch, words: list[str], titles: list[str]
) -> None:
    lines: list[str] = []

    class Lines(ProgressLines):
        def __enter__(self) -> ProgressLines:
            lines.append(self._title)
            return super().__enter__()

    monkeypatch.setattr(commands, "ProgressLines", Lines)

    @click.command("slow", cls=commands.Command)
    @click.option("--table")
    def slow(table: str | None) -> None:
        click.echo("done")

    group = click.Group("latlut", commands={"slow": slow})
    found = CliRunner().invoke(group, ["slow", *words])
    assert found.stdout == "done\n" and lines == titles


def test_progress_says_what_is_done_elapsed_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLines("profile") as lines:
        for done in range(1, 101):
            lines.move(done, 100)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10
    assert re.fullmatch(r"profile: 10% \(10 of 100\), \d+ s elapsed, about \d+ s left", said[0])
    assert re.fullmatch(r"profile: 100% \(100 of 100\), \d+ s elapsed", said[-1])


# --- settings of runs ---


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["search", "--table", "x", "--set", "search.epochs=3"], "[search]\nepochs = 3\n"),
        (["train", "--arch", "x", "--set", "schedule.epochs=3"], "[schedule]\nepochs = 3\n"),
    ],
    ids=["search", "train"],
)
def test_printed_settings_of_a_run_are_a_preset(
    table_path: Path, arguments: list[str], setting: str
) -> None:
    shown = run(*arguments, "--print-settings").stdout
    _, preset = shown.split("# the settings of the run, for a file that --preset names")
    assert setting in preset
    Path("mine.toml").write_text(preset)
    again = run(*arguments[:3], "--preset", "mine.toml", "--print-settings").stdout
    assert again.endswith(preset)
