"""A sweep by ssh on this machine: a real worker process with real ONNX Runtime and no PyTorch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from click.testing import CliRunner, Result
from onnx_models import segmenter, word_reader

from latlut.cli import main
from latlut.cluster.ssh_connection import Host
from latlut.cluster.sweep import sweep_on_hosts
from latlut.engines.choosing import DeviceChoice
from latlut.errors import LatlutError
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep_settings import SweepSettings
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.table.subgraphs import stored_pieces
from latlut.table.table import LatencyTable

asyncssh = pytest.importorskip("asyncssh", reason="pip install 'latlut[remote]'")

from ssh_server import LoopbackServer, lean_python, serving  # noqa: E402

# The workers take the machine's lock in turn.
pytestmark = [pytest.mark.xdist_group("remote"), pytest.mark.slow]

OPS = (
    "conv 4->4 at 8x8",
    "conv 4->8 stride 2 at 8x8",
    "upsample 4->4 stride 1 at 8x8 out_size=16x16",
)
ENGINE = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "home"


@pytest.fixture
def server(tmp_path: Path, home: Path) -> Iterator[LoopbackServer]:
    with serving(tmp_path / "server", home) as server:
        yield server


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(lean_python(tmp_path_factory.mktemp("lean"), ENGINE))


def command(server: LoopbackServer, python: str, *more: str) -> list[str]:
    ops = [part for op in OPS for part in ("--op", op)]
    return [
        "profile", "--cpu", "--remote", f"me@127.0.0.1:{server.port}", "--remote-python", python,
        "--passes", "2", *ops, "--json", *more,
    ]  # fmt: skip


def run(server: LoopbackServer, python: str, *more: str) -> Result:
    return CliRunner().invoke(main, command(server, python, *more))


def wait_until_removed(server: LoopbackServer) -> None:
    for _ in range(100):
        if not server.folders():
            return
        time.sleep(0.1)
    raise AssertionError(f"left behind: {server.folders()}")


def test_a_sweep_where_the_engine_alone_is_installed(server: LoopbackServer, lean: str) -> None:
    imported = subprocess.run(
        [lean, "-c", "import torch"], capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in imported.stderr
    result = run(server, lean)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["table"] == "profiles/cpu-onnxruntime-fp32.db"
    assert (said["entries"], said["measured"], said["failed"]) == (3, 6, {})
    assert said["workers"][0]["measured"] == 6
    wait_until_removed(server)
    with LatencyTable.open(Path(said["table"])) as table:
        assert {entry.spec for entry in table} == set(map(OpSpec.parse, OPS))
        (row,) = table.rows("SELECT count(*) AS n FROM measurements WHERE parity IS NULL")
        assert row["n"] <= 3  # compared in the first pass
    again = run(server, lean)
    said = json.loads(again.stdout)
    assert (said["measured"], said["reused"]) == (0, 6)


def test_pieces_of_onnx_files_where_neither_onnx_nor_pytorch_is_installed(
    server: LoopbackServer, lean: str
) -> None:
    Path("net.onnx").write_bytes(segmenter())
    Path("words.onnx").write_bytes(word_reader())
    command = [
        "profile", "--cpu", "--remote", f"me@127.0.0.1:{server.port}", "--remote-python", lean,
        "--onnx", "net.onnx", "words.onnx", "--passes", "2", "--table", "pieces.db", "--json",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["failed"] == {}
    wait_until_removed(server)
    with LatencyTable.open(Path("pieces.db")) as table:
        assert len(stored_pieces(table)) == len(table) >= 3
        (row,) = table.rows("SELECT count(*) AS n FROM measurements WHERE parity IS NOT NULL")
        assert row["n"] >= 3  # each was compared once
    priced = CliRunner().invoke(
        main, ["estimate", "--table", "pieces.db", "--onnx", "words.onnx", "--json"]
    )
    assert json.loads(priced.stdout)["is_complete"]


def test_a_connection_that_is_cut_is_made_again_and_one_that_stays_away_is_resumed(
    server: LoopbackServer, lean: str, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latlut.cluster.ssh_pool.BACK_OFF_S", (0.1, 0.2))
    plan = plan_from_ops(OPS)
    hosts = [Host("127.0.0.1", "me", server.port)]
    choice = DeviceChoice(None, True, "onnxruntime", "fp32", 1)
    said: list[str] = []

    def sweep(listener) -> object:
        return sweep_on_hosts(
            plan, choice, SweepSettings(passes=4, group=1), hosts, lambda own: db_path,
            python=lean, listener=listener, say=said.append,
        )  # fmt: skip

    def cut_twice(progress: Progress) -> None:
        if progress.done == 2:
            server.cut()
        if progress.done == 5:
            server.refuse()
            server.cut()

    first = sweep(cut_twice)
    assert any("the connection was lost" in text for text in said), said
    assert any("trying again" in text for text in said), said
    assert first.summary.status == "failed"
    assert 5 <= first.summary.measured < 12
    assert first.summary.failed == {}
    server.accept()
    second = sweep(None)
    assert (second.summary.status, second.summary.failed) == ("done", {})
    assert first.summary.measured + second.summary.measured == 12
    with LatencyTable.open(db_path) as table:
        rows = table.rows("SELECT count(*) AS n FROM readings GROUP BY op_spec, pass_index")
        assert [row["n"] for row in rows] == [1] * 12
    wait_until_removed(server)


CRASHING = """
import os
import time

import torch
from torch import nn

from latlut.operators import register


class Fatal(nn.Module):
    def forward(self, maps):
        if maps.device.type != "meta":
            END
        return maps


@register("fatal")
def fatal(spec):
    return Fatal()
"""


@pytest.mark.parametrize(
    ("end", "more", "words"),
    [
        ("os.kill(os.getpid(), 11)", (), "ended by SIGSEGV"),
        ("os._exit(7)", (), "ended by exit(7)"),
        ("time.sleep(600)", ("--timeout", "20s"), "timed out after 20 s"),
    ],
)
def test_an_operator_that_ends_its_process_fails_by_name(
    server: LoopbackServer, tmp_path: Path, end: str, more: tuple[str, ...], words: str
) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(CRASHING.replace("END", end))
    fatal = OpSpec("fatal", (4, 8, 8), 4).key
    result = run(
        server, sys.executable, "--engine", "pytorch", "--operators", str(path), "--op", fatal,
        *more,
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    said = json.loads(result.stdout)
    assert list(said["failed"]) == [fatal], said["failed"]
    assert words in said["failed"][fatal]
    assert said["entries"] == 3
    wait_until_removed(server)


def test_hosts_that_refuse_or_are_not_there(
    server: LoopbackServer, lean: str, home: Path, tmp_path: Path
) -> None:
    known = home / ".ssh" / "known_hosts"
    content = known.read_text()
    known.write_text("")
    result = run(server, lean)
    assert result.exit_code == 2
    fingerprint = server.host_key.get_fingerprint()
    for words in (fingerprint, f"ssh-keyscan -p {server.port} 127.0.0.1 >> ~/.ssh/known_hosts"):
        assert words in result.output
    assert known.read_text() == ""
    assert server.commands == 0
    known.write_text(content)

    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(home / ".ssh/id_ed25519"))
    result = run(server, lean)
    assert result.exit_code == 2
    assert f"ssh-copy-id -p {server.port} me@127.0.0.1" in result.output
    assert server.commands == 0

    server.port = 1
    result = run(server, lean)
    assert result.exit_code == 2
    assert "cannot be reached by ssh" in result.output
    assert list(tmp_path.rglob("*.db")) == []


def test_what_is_missing_there_is_named(server: LoopbackServer, tmp_path: Path) -> None:
    bare = str(lean_python(tmp_path / "bare", ("numpy",)))
    result = run(server, bare)
    assert result.exit_code == 2
    assert "lacks onnxruntime" in result.output
    assert "-m pip install onnxruntime" in result.output
    result = run(server, "/nowhere/python3")
    assert result.exit_code == 2
    assert "no Python runs as /nowhere/python3" in result.output
    assert "--remote-python PATH" in result.output
    assert server.folders() == []


def test_ctrl_c_ends_the_remote_process_and_removes_its_folder(
    server: LoopbackServer, lean: str, home: Path
) -> None:
    arguments = command(server, lean, "--passes", "100")
    process = subprocess.Popen(
        [sys.executable, "-m", "latlut", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    table = Path("profiles/cpu-onnxruntime-fp32.db")
    for _ in range(600):
        time.sleep(0.1)
        if table.exists() and _measured(table) or process.poll() is not None:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command continues from here" in errors
    assert "Traceback" not in errors
    assert 0 < _measured(table) < 300
    wait_until_removed(server)
    with LatencyTable.open(table) as opened:
        assert opened.rows("SELECT status FROM runs") == [{"status": "stopped"}]


def _measured(path: Path) -> int:
    try:
        with LatencyTable.open(path) as table:
            return int(table.rows("SELECT count(*) AS n FROM measurements")[0]["n"])
    except LatlutError:
        return 0
