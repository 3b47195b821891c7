"""The command line as a whole: its help, its exit codes, and the commands that the README shows."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from checkout import ROOT
from click.testing import CliRunner
from shown_commands import check_arguments, simple_commands

import latlut.cli
from latlut.cli import COMMANDS, LazyCommand, main
from latlut.errors import TableError

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/tutorials/*.md")),
]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL_BLOCK = re.compile(r"^```(?:bash|console|sh|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_below(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, each with what one types to call it."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands_below(below, f"{words} {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_options_have_help(name: str) -> None:
    top = main.get_command(click.Context(main), name)
    assert top is not None
    for words, command in commands_below(top, f"latlut {name}"):
        assert command.help, f"{words} has no help text"
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{words} {parameter.opts[0]} has no help text"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_answers_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"{name} " in result.stdout


def test_help_lists_every_command_under_its_section() -> None:
    output = CliRunner().invoke(main, ["--help"]).stdout
    for name, command in COMMANDS.items():
        assert re.search(rf"^{command.section}:$", output, re.MULTILINE)
        assert re.search(rf"^  {name} +{re.escape(command.help[:30])}", output, re.MULTILINE)


# --- what the pages show ---


def shell_lines(page: Path) -> list[str]:
    """The commands in a page's shell blocks, continued lines joined; of a session, the input."""
    lines = []
    for block in SHELL_BLOCK.findall(page.read_text(encoding="utf-8")):
        joined = block.replace("\\\n", " ")
        typed = [line.strip() for line in joined.splitlines()]
        is_session = any(line.startswith("$ ") for line in typed)
        lines += [
            line.removeprefix("$ ") for line in typed if line.startswith("$ ") or not is_session
        ]
    return [line for line in lines if line]


def check_line(line: str) -> int:
    """Check the commands of a shell line that are latlut's or make's; how many they were."""
    count = 0
    for words in simple_commands(line):
        if words[:2] == ["python", "cli.py"]:
            words = ["latlut", *words[2:]]
        if words[:1] == ["latlut"]:
            check_arguments(main, words[1:], click.Context(main, info_name="latlut"))
            count += 1
        if words[:1] == ["make"]:
            targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            unknown = [word for word in words[1:] if "=" not in word and word not in targets]
            if unknown:
                raise click.UsageError(f"no target of the Makefile: {unknown}")
            count += 1
    return count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_readme_and_docs_show_commands_that_exist(page: Path) -> None:
    wrong = []
    count = 0
    for line in shell_lines(page):
        try:
            count += check_line(line)
        except click.UsageError as error:
            wrong.append(f"{line}\n    {error.format_message()}")
    assert not wrong, f"in {page.relative_to(ROOT)}:\n" + "\n".join(wrong)
    assert count or page.name != "README.md", "the README shows no command: is the block marked?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_readme_and_docs_import_what_exists(page: Path) -> None:
    for block in PYTHON_BLOCK.findall(page.read_text(encoding="utf-8")):
        for statement in ast.walk(ast.parse(block)):
            if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("latlut"):
                module = importlib.import_module(str(statement.module))
                missing = [name.name for name in statement.names if not hasattr(module, name.name)]
                assert not missing, f"{page.name}: no {missing} in {statement.module}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_readme_and_docs_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing, f"{page.relative_to(ROOT)} links to {missing}"


@pytest.mark.parametrize(
    "line",
    [
        "latlut profil --cpu",
        "latlut table inform",
        "latlut profile --no-such-option",
        "cd x && latlut frobnicate # comment",
        "make dem",
    ],
)
def test_readme_check_notices_a_wrong_line(line: str) -> None:
    with pytest.raises(click.UsageError):
        check_line(line)


# --- exit codes ---


@click.command()
@click.argument("outcome")
def probe(outcome: str) -> None:
    """Ends in the way that it is told to."""
    if outcome == "refused":
        raise TableError("no table at x.db\nmake one with: latlut profile")
    if outcome == "stopped":
        raise KeyboardInterrupt
    if outcome == "defect":
        raise ZeroDivisionError("a defect of latlut")
    if outcome == "package":
        import a_package_that_is_missing  # noqa: F401
    if outcome == "inner pipe":
        raise BrokenPipeError("between our own processes")


@pytest.fixture
def with_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    home = LazyCommand("Start here", f"{__name__}:probe", "Ends as told.")
    monkeypatch.setattr(latlut.cli, "COMMANDS", {**COMMANDS, "probe": home})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.usefixtures("with_probe")
class TestExitCodes:
    @pytest.mark.parametrize(
        ("outcome", "code", "message"),
        [
            ("done", 0, ""),
            ("refused", 2, "Error: no table at x.db\nmake one with: latlut profile\n"),
            ("stopped", 130, "stopped\n"),
        ],
    )
    def test_code_and_message(self, outcome: str, code: int, message: str) -> None:
        result = CliRunner().invoke(main, ["probe", outcome])
        assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")

    @pytest.mark.parametrize(
        ("outcome", "error"), [("defect", ZeroDivisionError), ("inner pipe", RuntimeError)]
    )
    def test_a_defect_keeps_its_traceback(self, outcome: str, error: type[Exception]) -> None:
        assert isinstance(CliRunner().invoke(main, ["probe", outcome]).exception, error)

    def test_a_missing_package_is_named(self) -> None:
        result = CliRunner().invoke(main, ["probe", "package"])
        assert result.exit_code == 2
        assert "'a_package_that_is_missing' is not installed" in result.stderr
        assert "pip install" in result.stderr


def test_unknown_command_suggests_the_nearest() -> None:
    result = CliRunner().invoke(main, ["profil"])
    assert result.exit_code == 2
    assert "did you mean 'profile'?" in result.stderr


def test_a_reader_that_leaves_early_causes_no_message() -> None:
    program = (
        "import sys, click, latlut.cli as cli\n"
        "@click.command()\n"
        "def talk():\n"
        "    for _ in range(100_000):\n"
        "        print('a line that nobody reads')\n"
        "sys.modules['talking'] = type(sys)('talking'); sys.modules['talking'].talk = talk\n"
        "cli.COMMANDS = {'talk': cli.LazyCommand('', 'talking:talk', '')}\n"
        "cli.main(['talk'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_launcher_says_what_a_checkout_lacks(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_bytes((ROOT / "cli.py").read_bytes())
    run = subprocess.run(
        [sys.executable, "cli.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "should be symbolic links" in run.stderr


def test_launcher_says_which_package_is_missing() -> None:
    run = subprocess.run(
        [sys.executable, "-S", "cli.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "the package 'click' is not installed" in run.stderr
    assert "Traceback" not in run.stderr
