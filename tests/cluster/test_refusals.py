"""What ``latlut profile --ray`` and ``--remote`` refuse before anything is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from latlut.cli import main
from latlut.cluster.messages import carried
from latlut.errors import LatlutError

OP = "conv 4->4 at 8x8"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray", "local"], "name --gpu NAME or --cpu"),
        (["--cpu", "--ray", "local", "--shard", "1/2"], "leave --shard out"),
        (["--cpu", "--ray", "local", "--wait"], "leave --wait out"),
        (["--gpu", "h200", "--ray", "auto", "--devices", "0,1"], "leave --devices out"),
        (["--cpu", "--workers", "2"], "--workers is for --ray"),
        (["--cpu", "--ray", "local", "--workers", "0"], "0 is not in the range"),
        (["--cpu", "--ray", "local", "--dry-run"], "leave --dry-run out"),
        (["--remote", "a@b"], "name --gpu NAME or --cpu"),
        (["--cpu", "--remote", "a@b", "--dry-run"], "leave --dry-run out"),
        (["--cpu", "--remote", "a@b", "--wait"], "leave --wait out"),
        (["--cpu", "--remote", "a@b", "--unchecked"], "leave --unchecked out"),
        (["--cpu", "--remote", "a@b", "--shard", "1/2"], "leave --shard out"),
        (["--cpu", "--remote", "a@b", "--workers", "2"], "leave --workers out"),
        (["--cpu", "--remote", "a@b", "--ray", "local"], "leave --ray out"),
        (["--cpu", "--remote", "a@b", "--mode", "in-context"], "leave --mode out"),
        (["--cpu", "--remote", "a b"], "USER@HOST"),
        (["--cpu", "--remote-python", "python3"], "--remote-python is for --remote"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["profile", "--op", OP, *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.rglob("*.db")) == []


def test_without_ray_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["profile", "--op", OP, "--cpu", "--ray", "auto"])
    assert result.exit_code == 2
    assert "pip install 'latlut[cluster]'" in result.output
    assert list(tmp_path.rglob("*.db")) == []


def test_files_of_operators_are_carried_and_modules_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("VALUE = 1\n")
    assert carried([str(path), "a.module"]) == ((str(path), "VALUE = 1\n"), ("a.module", None))
    with pytest.raises(LatlutError, match="nowhere.py: cannot be read"):
        carried(["nowhere.py"])
