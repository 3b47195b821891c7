"""The documentation as a site, and the pages whose commands a new user repeats."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest
from checkout import ROOT

from latlut.resources import profiles_dir

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What a statement prints, as a page shows it: comments on lines of their own behind it.
PRINTED = re.compile(r"^(print\(.*\))\n((?:# .*\n)+)", re.MULTILINE)
#: Of the twelve tasks those that take seconds; the others sweep a plan or search.
QUICK_TASKS = (1, 2, 3, 7, 8, 10, 11, 12)

pytestmark = pytest.mark.slow


def bash_blocks(page: Path) -> list[str]:
    """The commands of a page's ``bash`` blocks, block by block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


#: As ``latlut``, on a machine that may be busy: a calibration of disturbed networks is not refused,
#: and a bad verdict is an answer like any other.
PROGRAM = f'''#!/bin/sh
[ "$1" = calibrate ] && set -- "$@" --force
"{sys.executable}" -m latlut "$@"
code=$?
[ "$1 $2 $code" = "table check 1" ] && exit 0
exit $code
'''


#: A search for 8 ms takes minutes, and a slow machine has no such network: the shortest preset, and
#: the latency of random networks, take its place.
SHORTER = ("--target-ms 8", "--preset quickstart")


def run_blocks(page: Path, folder: Path) -> str:
    """What a page's commands print, run one after the other in an empty folder."""
    return "".join(run_each(bash_blocks(page), folder))


def run_each(blocks: Sequence[str], folder: Path) -> list[str]:
    """What blocks of commands print, run one after the other in the folder ``work`` below."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "latlut").write_text(PROGRAM)
    (programs / "latlut").chmod(0o755)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "CI": "true",
    }  # fmt: skip
    printed = []
    for block in blocks:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace(*SHORTER)], cwd=work, env=environment,
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
        printed.append(run.stdout)
    return printed


def test_tutorial_your_own_device(tmp_path: Path) -> None:
    printed = run_blocks(DOCS / "tutorials" / "your-own-device.md", tmp_path)
    assert "110 entries" in printed
    page = (tmp_path / "work" / "device.html").read_text(encoding="utf-8")
    assert "<html" in page and "onnxruntime" in page


def test_tutorial_your_own_network(tmp_path: Path) -> None:
    printed = run_blocks(DOCS / "tutorials" / "your-own-network.md", tmp_path)
    assert "Conv" in printed
    assert (tmp_path / "work" / "profiles" / "network.db").exists()


def test_twelve_tasks_take_two_commands_each() -> None:
    page = DOCS / "usability.md"
    tasks = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(tasks) == 12
    for task in tasks:
        commands = "".join(BLOCK.findall("## " + task)).strip().splitlines()
        assert 1 <= len(commands) <= 2, task
        assert all(command.startswith("latlut ") for command in commands), task


def test_the_tasks_that_take_seconds_run(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(profiles_dir() / "tables" / "epyc4-onnxruntime-fp32.db", work / "device.db")
    blocks = bash_blocks(DOCS / "usability.md")
    assert len(blocks) == 12
    printed = run_each([blocks[task - 1] for task in QUICK_TASKS], tmp_path)
    of_task = dict(zip(QUICK_TASKS, printed, strict=True))
    assert "onnxruntime" in of_task[1]
    for task in (2, 3, 7, 10):
        assert re.search(r"\d ms", of_task[task]), of_task[task]
    assert re.search(r"is [\d.]+ times faster \(median\)", of_task[8]), of_task[8]
    assert "epyc4" in of_task[8] or "onnxruntime" in of_task[8]
    assert "<html" in (work / "device.html").read_text(encoding="utf-8")
    assert (work / "device.csv").read_text(encoding="utf-8").count("\n") > 656


def test_usability_says_which_tasks_run_on_every_change() -> None:
    text = (DOCS / "usability.md").read_text(encoding="utf-8")
    said = re.search(r"run on every change: ([\d,\sand]+)", text)
    assert said
    assert tuple(map(int, re.findall(r"\d+", said[1]))) == QUICK_TASKS


@pytest.mark.long
def test_the_twelve_tasks_run(tmp_path: Path) -> None:
    printed = run_blocks(DOCS / "usability.md", tmp_path)
    assert " ms" in printed and (tmp_path / "work" / "device.csv").exists()


def readme_python() -> tuple[str, str]:
    """The README's Python block: what only reads, and all of it."""
    (block,) = PYTHON_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    reading, measuring, _ = block.partition("\nprofile(")
    assert measuring
    return reading, block


def check_prints_what_it_shows(block: str, folder: Path) -> None:
    """Run Python of a page; each result that it shows has to be what is printed."""
    shown = PRINTED.findall(block)
    assert shown, "no result is shown"
    marked = PRINTED.sub(lambda found: f"print('<<<')\n{found[1]}\nprint('>>>')\n", block)
    run = subprocess.run(
        [sys.executable, "-c", marked], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    printed = re.findall(r"^<<<\n(.*?\n)>>>$", run.stdout, re.MULTILINE | re.DOTALL)
    for (_, comment), found in zip(shown, printed, strict=True):
        expected = re.sub(r"^# ", "", comment, flags=re.MULTILINE)
        flags = ELLIPSIS | NORMALIZE_WHITESPACE
        assert OutputChecker().check_output(expected, found, flags), f"{expected}\n{found}"


def test_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    check_prints_what_it_shows(readme_python()[0], tmp_path)


@pytest.mark.long
def test_all_of_the_readmes_python_runs(tmp_path: Path) -> None:
    check_prints_what_it_shows(readme_python()[1], tmp_path)


def test_a_stale_result_in_the_readme_is_found(tmp_path: Path) -> None:
    stale = readme_python()[0].replace("(4.749 to 6.636)", "(5.585 to 5.801)")
    with pytest.raises(AssertionError, match=r"5\.585 to 5\.801"):
        check_prints_what_it_shows(stale, tmp_path)


def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    path = DOCS / "tutorials" / "first-table.ipynb"
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "save it without outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    shown = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert "Estimate" in shown and "<table" in shown


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="mkdocs is not installed: pip install 'latlut[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("estimate", "profile", "LatencyTable.lookup", "OpSpec", "DecoupledLatency"):
        assert f"{name}" in reference
    assert "Latency of a network from a table" in reference
    assert (tmp_path / "start" / "index.html").exists()
