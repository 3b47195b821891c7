"""Images per second of a training step and of the loader alone, and peak memory.

    python tests/benchmarks/bench_training.py
    python tests/benchmarks/bench_training.py --workers 8 --size 1024x2048 --crop 512x1024

The published student is trained without and with the published teacher, on a GPU if there is one,
in single precision and in bf16, in rounds of a few steps that take turns. Before that the loader
gives the same batches without a network, for itself, as its worker processes would go on while
others have their turn. Shown are medians over rounds with their quartiles, and the loader's rate as
a multiple of the training's: below 1, data would be what a training waits for.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from latlut.opspec import parse_size
from latlut.resources import profiles_dir
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.opening import open_data
from latlut.search.networks.network import trainable
from latlut.search.runs.setting_files import validated
from latlut.search.train.settings import TrainSettings
from latlut.search.train.training import Training
from latlut.spaces import Architecture


def network(name: str, data: SegmentationData) -> torch.nn.Module:
    path = profiles_dir() / "architectures" / f"{name}.json"
    return trainable(Architecture.load(path), data.classes.count)


class Case:
    """A training that can be driven some batches at a time."""

    def __init__(self, data: SegmentationData, chosen: TrainSettings, has_teacher: bool) -> None:
        device = "gpu" if torch.cuda.is_available() else "cpu"
        fabric = Fabric(accelerator=device, devices=1, precision=chosen.precision)
        teacher = network("fasterseg-teacher", data).eval() if has_teacher else None
        with tempfile.TemporaryDirectory() as folder:
            self.training = Training(
                network("fasterseg-student", data), data, chosen, Path(folder), teacher,
                fabric=fabric,
            )  # fmt: skip
        self.training.network.train()
        self.optimizer = self.training._optimizer()
        self.batches = self.training.batches()
        self.drawn = self.batches.epoch(0)
        self.done = 0

    def step(self) -> None:
        self.training._step(self.drawn, self.optimizer, {}, (0, self.done, self.batches))
        self.done += 1


def seconds(work: Callable[[], object], count: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def loader_rates(training: Training, asked: argparse.Namespace) -> list[float]:
    """Images per second of rounds; the first, left out, empties what workers have in store."""
    batches = training.batches()
    per_round = asked.steps * max(1, asked.workers)
    epochs = range(-(-(asked.rounds + 1) * per_round // len(batches)))
    drawn = (batch for epoch in epochs for batch in batches.epoch(epoch))
    return [
        asked.batch * per_round / seconds(lambda: next(drawn), per_round)
        for _ in range(asked.rounds + 1)
    ][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="128x256", help="of generated images")
    parser.add_argument("--crop", default="96x192")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="per round")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    count = asked.batch * 8
    data = open_data("street-scenes", size=parse_size(asked.size), counts=(count, 1, 0))
    steps = (asked.rounds + 1) * asked.steps
    cases = {}
    for precision in ("32-true", "bf16-mixed"):
        values = {
            "precision": precision,
            "is_channels_last": torch.cuda.is_available(),
            "data": {"workers": asked.workers},
            "schedule": {
                "epochs": 1, "iterations": steps, "batch": asked.batch,
                "crop": parse_size(asked.crop),
            },
        }  # fmt: skip
        chosen = validated(TrainSettings, values, "the benchmark")
        for has_teacher in (False, True):
            name = f"train {precision}{', teacher' if has_teacher else ''}"
            cases[name] = Case(data, chosen, has_teacher)
    rates = {"loader alone": loader_rates(cases["train 32-true"].training, asked)}
    rates |= {name: [] for name in cases}
    for number in range(asked.rounds + 1):
        for name, case in cases.items():
            rate = asked.batch * asked.steps / seconds(case.step, asked.steps)
            if number:  # the first round warms up
                rates[name].append(rate)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{where}, {asked.threads} threads, {asked.workers} workers, images {asked.size}, crops "
        f"{asked.crop}, batch {asked.batch}"
    )
    alone = statistics.median(rates["loader alone"])
    for name, found in rates.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(
            f"{name:<28} {middle:8.2f} images/s ({low:.2f} to {high:.2f})"
            + ("" if name == "loader alone" else f"   loader {alone / middle:.1f}x")
        )
    if torch.cuda.is_available():
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB, all cases")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of this process {peak / 2**20:.2f} GiB, all cases")


if __name__ == "__main__":
    main()
