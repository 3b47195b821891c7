"""How many images per second the data gives, without a network.

    python tests/benchmarks/bench_data.py

Generated scenes and the same scenes as PNG files, with 0, 1 and 2 worker processes, in rounds
that take turns. Beside them stands reading alone (no augmentation, in this process), and the
loader's rate as a share of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latlut.search.data.augment import Augmentation
from latlut.search.data.dataset import Split
from latlut.search.data.loading import TrainBatches
from latlut.search.data.opening import open_data

SIZE = (128, 256)
IMAGES = 96
BATCH = 2
ROUNDS = 5
VIEW = Augmentation((96, 192), label_stride=8)


def make_folder(root: Path, scenes: Split, names: tuple[str, ...]) -> Path:
    """The scenes as PNG files with a class file."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for index, (image, label) in enumerate(scenes):
        picture = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
        Image.fromarray(picture).save(root / f"images/{index:03}.png")
        Image.fromarray(label.numpy()).save(root / f"masks/{index:03}.png")
    lines = ["format = 1", "ignore = [255]"]
    for number, name in enumerate(names):
        lines += ["[[class]]", f'name = "{name}"', f"colour = [{number}, 0, 0]"]
    for split in ("train", "val"):
        lines += [f"[split.{split}]", 'images = "images"', 'masks = "masks"']
    path = root / "scenes.toml"
    path.write_text("\n".join(lines))
    return path


def read_alone(split: Split) -> Iterator[float]:
    while True:
        started = time.perf_counter()
        for _ in split:
            pass
        yield len(split) / (time.perf_counter() - started)


def load(split: Split, workers: int) -> Iterator[float]:
    batches = TrainBatches(split, VIEW, BATCH, workers=workers)
    for _ in batches.epoch(0):  # starts the workers
        pass
    epoch = 0
    while True:
        epoch += 1
        started = time.perf_counter()
        count = sum(len(batch.image) for batch in batches.epoch(epoch))
        yield count / (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    height, width = SIZE
    scenes = open_data("street-scenes", size=SIZE, counts=(IMAGES, 1, 0))
    with tempfile.TemporaryDirectory() as folder:
        files = open_data(make_folder(Path(folder), scenes.train, scenes.classes.names))
        runs = {}
        for name, split in (("generated", scenes.train), ("PNG files", files.train)):
            runs[name, "reading alone"] = read_alone(split)
            for workers in (0, 1, 2):
                runs[name, f"{workers} workers"] = load(split, workers)
        rates: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for _ in range(ROUNDS):
            for key, run in runs.items():
                rates[key].append(next(run))
    print(f"images per second, {height}x{width}, crop {VIEW.crop}, batch {BATCH}")
    print(f"median of {ROUNDS} rounds (lowest to highest), share of reading alone in one process")
    for (name, what), values in rates.items():
        shares = np.array(values) / np.array(rates[name, "reading alone"])
        print(
            f"{name:10} {what:14} {np.median(values):7.0f} ({min(values):.0f} to {max(values):.0f})"
            f"   x{np.median(shares):.2f} ({shares.min():.2f} to {shares.max():.2f})"
        )


if __name__ == "__main__":
    main()
