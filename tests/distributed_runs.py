"""A training and a search of a few steps, as one process makes them and as several together.

Networks compute in double precision: norms over few values would make rounding errors large.

Under torchrun, ``distributed_runs.py FOLDER`` makes them with its processes, from the table
``FOLDER/table.db``, and writes what each process found into ``FOLDER/found-RANK.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.data.opening import open_data
from latlut.search.networks.network import trainable
from latlut.search.runs.processes import launched
from latlut.search.runs.setting_files import validated
from latlut.search.train.settings import TrainSettings
from latlut.search.train.training import Training
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace
from latlut.table.table import LatencyTable

NARROW = Cell("conv", 4)
NETWORK = Architecture(
    8,
    8,
    (
        Branch(16, (NARROW, Cell("zoomed_conv", 4, True), Cell("conv", 8))),
        Branch(32, (NARROW, Cell("conv", 4, True), Cell("conv_2x", 8, True), Cell("conv", 8))),
    ),
    base_width=3,
)
TEACHER = Architecture(
    12, 12, (Branch(16, (Cell("conv", 12, True), Cell("conv", 12))),), base_width=3
)
SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(4, 8))
DATA: dict[str, Any] = {"image_size": [32, 64], "train_images": 16, "validation_images": 3}
TRAINING: dict[str, Any] = {
    "data": DATA,
    "schedule": {"epochs": 2, "accumulate": 2, "crop": [24, 40], "lr": 0.02, "ema": 0.5},
}
PHASE: dict[str, Any] = {"iterations": 2, "crop": [24, 40], "lr": 0.01}
SEARCHING: dict[str, Any] = {
    "data": DATA,
    "pretrain": {"epochs": 1, **PHASE},
    "search": {"epochs": 1, **PHASE},
    "architecture": {"lr": 0.05},
}
#: Where a run stops that is to be gone on with: in its second epoch.
STOPS: dict[str, tuple[object, ...]] = {"training": (1, 1), "search": ("search", 0, 1)}
#: Images of one process in a batch; two of them share twice as many.
BATCH = 2


class Stopped(Exception):
    """Stands for a signal that all processes get."""


def run(
    kind: str, folder: Path, table: Path, fabric: Fabric, batch: int, *,
    processes: int | None = None, stops: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Run, or go on with, what ``kind`` names: the loss of each step, and the state at the end.

    Args:
        kind: ``training`` or ``search``.
        batch: the setting.
        processes: that the run began with.
        stops: whether it is stopped where ``STOPS`` says.
    """
    losses: list[float] = []

    def on_step(*told: Any) -> None:
        losses.append(told[-1])
        if stops and told[: len(STOPS[kind])] == STOPS[kind]:
            raise Stopped

    data = open_data("street-scenes", size=(32, 64), counts=(16, 3, 0))
    more: Any = {"fabric": fabric, "processes": processes, "on_step": on_step}
    made: Training | Search
    with LatencyTable.open(table) as opened:
        if kind == "training":
            chosen = validated(TrainSettings, with_batch(TRAINING, batch, "schedule"), "the test")
            classes = data.classes.count
            network, teacher = (doubled(trainable(what, classes, 1)) for what in (NETWORK, TEACHER))
            made = Training(network, data, chosen, folder, teacher, **more)
            modules = {"network": made.network, "average": made.model}
        else:
            values = with_batch(SEARCHING, batch, "pretrain", "search")
            searching = validated(SearchSettings, values, "the test")
            problem = SearchProblem(opened, searching.space, searching.latency)
            made = Search(problem, data, searching, folder, **more)
            doubled(made.supernet)
            made.teacher.double()
            made.student.double()
            modules = {name: getattr(made, name) for name in ("supernet", "teacher", "student")}
        try:
            made.run()
        except Stopped:
            return {"losses": losses}
    states = {name: module.state_dict() for name, module in modules.items()}
    if isinstance(made, Search):  # moments are linear in the gradients of alpha, beta and gamma
        moments = made._architecture_optimizer.state_dict()["state"]
        states["moments"] = {str(key): item["exp_avg"] for key, item in moments.items()}
    records = [{**item.to_dict(), "seconds": 0.0} for item in made.records]
    return {"losses": losses, "records": records, "states": states}


def doubled(network: nn.Module) -> nn.Module:
    """The network itself, in double precision; it takes images in single precision."""
    network.register_forward_pre_hook(lambda _, given: (given[0].double(), *given[1:]))
    return network.double()


def with_batch(values: dict[str, Any], batch: int, *groups: str) -> dict[str, Any]:
    """The settings with that batch in the groups."""
    return {**values, **{name: {**values[name], "batch": batch} for name in groups}}


def main(folder: Path) -> None:
    """Begin both runs, and stop; go on with those that one process left."""
    torch.set_num_threads(1)
    fabric = launched("cpu", 1, "32-true", timeout_s=300)
    table, found = folder / "table.db", {}
    for kind in STOPS:
        began, left = folder / f"{kind}-left-by-two", folder / f"{kind}-left-by-one"
        found[f"{kind} begun"] = run(kind, began, table, fabric, BATCH, stops=True)
        # with the batch of the one process, which two share here
        found[f"{kind} ended"] = run(kind, left, table, fabric, 2 * BATCH, processes=1)
    torch.save(found, folder / f"found-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
