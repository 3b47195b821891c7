"""What several processes average by hand: two real processes on this CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lightning_fabric import Fabric
from torch import nn

from latlut.errors import LatlutError
from latlut.search.runs.processes import launched, mean_gradients, share_buffers

PROGRAM = """
import sys
from pathlib import Path
import torch
from latlut.search.runs.processes import launched, mean_gradients, mean_of, share_buffers

fabric = launched("cpu", 2, "32-true")
rank = fabric.global_rank
module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
first, *others = module.parameters()
first.grad = torch.full_like(first, float(rank + 1))
if rank == 1:  # a parameter that the first process did not use
    others[0].grad = torch.full_like(others[0], 4.0)
mean_gradients(fabric, module.parameters())
assert (first.grad == 1.5).all(), first.grad
assert (others[0].grad == 2.0).all(), others[0].grad
assert all((item.grad == 0).all() for item in others[1:])
module[1].running_mean.fill_(float(10 * rank))
share_buffers(fabric, module)
assert (module[1].running_mean == 5).all()
assert module[1].num_batches_tracked == 0
assert float(mean_of(fabric, torch.tensor(float(rank)))) == 0.5
Path(sys.argv[1], f"done-{rank}").touch()
"""


@pytest.mark.slow
def test_two_processes_average_gradients_and_statistics(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def test_one_process_changes_nothing() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    module = nn.BatchNorm1d(3)
    mean_gradients(fabric, module.parameters())
    share_buffers(fabric, module)
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("accelerator", "precision"), [("tpu-of-no-kind", "32-true"), ("cpu", "half-mixed")]
)
def test_what_is_not_here_is_named(accelerator: str, precision: str) -> None:
    with pytest.raises(LatlutError, match=f"--accelerator {accelerator}.*{precision}"):
        launched(accelerator, 1, precision)
