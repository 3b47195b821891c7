"""What several processes do together: two real ones on this CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric
from torch import nn

from latlut.cli import main
from latlut.errors import LatlutError
from latlut.search.runs.norms import shared_norms
from latlut.search.runs.processes import (
    LostProcessError,
    launched,
    mean_gradients,
    on_first,
    refuse_several,
)

PROGRAM = """
import os, signal, sys, time
from datetime import timedelta
from pathlib import Path
import torch
from torch import nn
from latlut.errors import LatlutError
from latlut.search.data.classes import IGNORE
from latlut.search.runs.norms import shared_norms
from latlut.search.runs.processes import (
    LostProcessError, ended_by_signal, launched, mean_gradients, mean_of, on_first, share_state,
)
from latlut.search.train.losses import distillation_loss, ohem_loss

fabric = launched("cpu", 2, "32-true", timeout_s=90)
rank = fabric.global_rank

# gradients: of a parameter that both use, that the second alone uses, that none uses
module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
first, second, *others = module.parameters()
first.grad = torch.full_like(first, float(rank + 1))
if rank == 1:
    second.grad = torch.full_like(second, 4.0)
mean_gradients(fabric, module.parameters())
assert (first.grad == 1.5).all(), first.grad
assert (second.grad == 2.0).all(), second.grad
assert all(item.grad is None for item in others)

# state
with torch.no_grad():
    first.fill_(float(rank))
share_state(fabric, module)
assert (first == 0).all()

# norms, of shares of unlike size: outputs, gradients and running statistics of the whole batch
torch.manual_seed(0)
whole = torch.randn(5, 3, 4, 6, dtype=torch.double).mul(2).add(30).requires_grad_()
weights = torch.randn(5, 3, 4, 6, dtype=torch.double)
part = slice(0, 3) if rank == 0 else slice(3, 5)
alone, shared = (nn.BatchNorm2d(3).double() for _ in range(2))
expected = alone(whole)
(expected * weights).sum().backward()
mine = whole.detach()[part].requires_grad_()
with shared_norms(fabric):
    found = shared(mine)
(found * weights[part]).sum().mul(2).backward()
mean_gradients(fabric, shared.parameters())
close = torch.testing.assert_close
close(found, expected[part])
close(mine.grad / 2, whole.grad[part])
close(shared.weight.grad, alone.weight.grad)
close(shared.bias.grad, alone.bias.grad)
close(shared.running_mean, alone.running_mean)
close(shared.running_var, alone.running_var)
with shared_norms(fabric):
    close(shared.eval()(mine), alone.eval()(whole)[part])

# losses: hard pixels and labelled ones are those of the whole batch
logits, taught = torch.randn(2, 5, 7, 4, 6).mul(6)
labels = torch.randint(0, 7, (5, 4, 6))
labels[:2] = IGNORE
for loss, joint in (
    (ohem_loss(logits, labels), ohem_loss(logits[part], labels[part], fabric=fabric)),
    (ohem_loss(logits, labels, min_kept=90),
     ohem_loss(logits[part], labels[part], min_kept=90, fabric=fabric)),
    (ohem_loss(logits, labels, threshold=1e-9, min_kept=9),
     ohem_loss(logits[part], labels[part], threshold=1e-9, min_kept=9, fabric=fabric)),
    (distillation_loss(logits, taught, labels),
     distillation_loss(logits[part], taught[part], labels[part], fabric=fabric)),
    (distillation_loss(logits, taught),
     distillation_loss(logits[part], taught[part], fabric=fabric)),
):
    close(mean_of(fabric, joint), loss)

# what the first process does, and refuses
assert on_first(fabric, lambda: {"rank": rank}) == {"rank": 0}
def refuse():
    raise LatlutError("no room")
try:
    on_first(fabric, refuse)
except LatlutError as error:
    text = "no room" if rank == 0 else "process 2 of 2 ends with the first one: no room"
    assert str(error) == text, error

# SIGTERM, which torchrun sends when another process has failed
try:
    with ended_by_signal(fabric):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except LostProcessError as error:
    assert f"process {rank + 1} of 2 was told to end by SIGTERM" in str(error), error
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

# a process that is silent for longer than the time-out
torch.distributed.destroy_process_group()
torch.distributed.init_process_group(
    "gloo", f"file://{sys.argv[1]}/store", timedelta(seconds=10), rank=rank, world_size=2
)
mean_of(fabric, torch.ones(1))
done = Path(sys.argv[1], "done-0")
while rank == 1 and not done.exists():
    time.sleep(0.1)
if rank == 0:
    try:
        mean_of(fabric, torch.ones(1))
        raise AssertionError("did not wait in vain")
    except LostProcessError as error:
        assert "process 1 of 2 waited in vain" in str(error), error
        assert "the same command continues from the last epoch" in str(error)
Path(sys.argv[1], f"done-{rank}").touch()
"""


@pytest.mark.slow
def test_two_processes_come_to_what_one_would(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=600, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def test_one_process_changes_nothing() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    module = nn.BatchNorm1d(3)
    mean_gradients(fabric, module.parameters())
    assert all(parameter.grad is None for parameter in module.parameters())
    image = torch.randn(4, 3)
    with shared_norms(fabric):
        found = module(image)
    assert torch.equal(found, nn.BatchNorm1d(3)(image))
    assert on_first(fabric, lambda: 3) == 3


@pytest.mark.parametrize(
    ("accelerator", "precision"), [("tpu-of-no-kind", "32-true"), ("cpu", "half-mixed")]
)
def test_what_is_not_here_is_named(accelerator: str, precision: str) -> None:
    with pytest.raises(LatlutError, match=f"--accelerator {accelerator}.*{precision}"):
        launched(accelerator, 1, precision)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "two"},
        {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
    ],
)
def test_variables_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    received = ", ".join(f"{name}={value}" for name, value in variables.items())
    with pytest.raises(LatlutError, match=f"the environment has {received}: expected a rank"):
        launched("cpu", 1, "32-true")


def test_what_runs_in_one_process_is_refused_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_several("latlut evaluate")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_several("latlut evaluate")
    monkeypatch.setenv("WORLD_SIZE", "2")
    predicting = ["predict-image", "runs/none", "a.png", "--out", "b"]
    for command in (["evaluate", "runs/none"], predicting, ["quickstart"]):
        found = CliRunner().invoke(main, command)
        assert found.exit_code == 2
        assert f"latlut {command[0]} runs in one process, and the envir" in found.output


def test_a_process_whose_others_do_not_come_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    here = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**here, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LostProcessError, match="process 1 of 2 waited in vain for the others"):
        launched("cpu", 1, "32-true", timeout_s=1)
