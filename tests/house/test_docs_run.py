"""The documentation as a site, and the pages whose commands a new user repeats."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)

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
    programs = folder / "bin"
    programs.mkdir()
    (programs / "latlut").write_text(PROGRAM)
    (programs / "latlut").chmod(0o755)
    work = folder / "work"
    work.mkdir()
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "CI": "true",
    }  # fmt: skip
    printed = ""
    for block in bash_blocks(page):
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace(*SHORTER)], cwd=work, env=environment,
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
        printed += run.stdout
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


@pytest.mark.long
def test_the_twelve_tasks_run(tmp_path: Path) -> None:
    printed = run_blocks(DOCS / "usability.md", tmp_path)
    assert " ms" in printed and (tmp_path / "work" / "device.csv").exists()


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
