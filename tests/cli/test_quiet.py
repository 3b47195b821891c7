"""With -q a command prints its result only: no notes, no hints, no names of files written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_tables import invented_ms, make_table

from latlut.cli import main
from latlut.opspec import OpSpec

OPS = ["conv 4->8 stride 1 at 8x8", "conv 8->8 stride 1 at 8x8", "conv 16->8 stride 2 at 8x8"]
GPU, CPU, OTHER_CPU = "1080ti-fasterseg", "epyc4-onnxruntime-fp32", "epyc4-openvino-fp32"
IDENTITY = [
    f"--identity={name}=x" for name in ("target", "device_model", "engine", "engine_version")
]

#: Arguments, and what is said without -q and not with it.
COMMANDS = [
    (["table", "check", GPU], "limits: "),
    (["table", "check", CPU], "limits: "),
    (["table", "info", GPU], "started"),
    (["table", "info", CPU], "started"),
    (["table", "query", GPU, "--limit", "2"], "--limit 605"),
    (["table", "query", CPU, "--limit", "2"], "--limit 656"),
    (["table", "diff", GPU, CPU], "identity differs"),
    (["table", "diff", CPU, OTHER_CPU, "--limit", "1"], "shows all"),
    (["table", "diff", "a", "b"], "conv 4->8"),
    (["table", "export", CPU, "out.csv"], "out.csv"),
    (["table", "plot", CPU, "heatmap", "-o", "out.csv"], "out.csv"),
    (["table", "import", "bare.csv", "--table", "new.db", *IDENTITY], "not part of an entry"),
    (["sensitivity", "--table", GPU], "end points"),
    (["sensitivity", "--table", CPU], "end points"),
    (["transfer", "--to", "new.db", "--from", f"{CPU},{OTHER_CPU}"], "devices know"),
    (["compare", "enet", "--input", "64x128"], "--measure"),
    (["compare", "enet", "--input", "64x128"], "published: "),
    (["compare", "enet", "--input", "64x128", "--csv", "out.csv"], "out.csv"),
    (["arch", "show", "fasterseg-student", "--plot", "out.png"], "out.png"),
    (["targets"], "says more"),
    (["targets", "1080ti"], "https://"),
]


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, args)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    specs = [OpSpec.parse(text) for text in OPS]
    make_table(tmp_path / "profiles" / "a.db", specs).close()
    make_table(tmp_path / "profiles" / "b.db", specs, lambda spec: 2 * invented_ms(spec)).close()
    (tmp_path / "bare.csv").write_text(f"op_spec,latency_ms,rack\n{OPS[0]},1,7\n")
    return tmp_path


@pytest.mark.parametrize(("arguments", "said"), COMMANDS)
def test_a_quiet_command_prints_its_result_only(
    folder: Path, arguments: list[str], said: str
) -> None:
    loud, quiet = run(*arguments), run(*arguments, "-q")
    assert quiet.exit_code == loud.exit_code != 2, loud.output
    assert said in loud.output
    assert said not in quiet.output
    assert quiet.stderr == ""
    lines = loud.stdout.splitlines()
    assert [line for line in quiet.stdout.splitlines() if line not in lines] == []


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["table", "check", GPU], f"{GPU}: "),
        (["table", "diff", "a", "b"], "3 common operator configurations; "),
    ],
)
def test_a_verdict_and_a_summary_are_not_silenced(
    folder: Path, arguments: list[str], first: str
) -> None:
    lines = run(*arguments, "-q").stdout.splitlines()
    assert lines[0].startswith(first)
    assert len(lines) <= 2


def test_a_lab_can_be_quiet_by_default(folder: Path) -> None:
    Path("latlut.toml").write_text("quiet = true\n")
    assert len(run("table", "check", GPU).stdout.splitlines()) == 1
    assert (
        "quiet = true  # file of defaults" in run("table", "query", "a", "--print-settings").stdout
    )
