"""Whether a long search and a long training keep their memory flat.

    python tests/benchmarks/bench_memory.py [--steps 1000] [--table TABLE]

Runs `latlut train` and `latlut search --method paper` on small generated scenes for that many
optimizer steps, samples the process's resident memory meanwhile, and prints what it held after a
quarter of the time (all buffers are there by then) and at the end.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PAGE_MB = resource.getpagesize() / 2**20
SAMPLE_S = 0.5
#: Images of a step.
BATCH = 4
SMALL = ["--set", "data.image_size=[64,128]", "--set", "data.validation_images=2"]
#: Images of a pass over the data. An epoch of a search also derives, scores and keeps networks.
TRAINED, SEARCHED = 32, 256


def resident_mb(process_id: int) -> float:
    """MB that a process holds; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * PAGE_MB
    except (OSError, IndexError):
        return 0.0


def watched(words: Sequence[str]) -> list[float]:
    """Runs a latlut command; its resident memory every half second, MB."""
    command = [sys.executable, "-m", "latlut", *words, "--quiet"]
    held = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            held.append(resident_mb(process.pid))
            time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return [value for value in held if value]


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--table", help="prices the search [measured here: the plan tiny]")
    parser.add_argument("--only", choices=("training", "search"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = options.table or f"{folder}/tiny.db"
        if options.table is None and options.only != "training":
            watched(["profile", "--cpu", "--plan", "tiny", "--passes", "2", "--table", table])
        epochs = -(-options.steps * BATCH // TRAINED)
        runs = {
            "training": [
                "train", "--network", "enet", "--preset", "quickstart", "--run", f"{folder}/t",
                *SMALL, "--set", f"data.train_images={TRAINED}",
                "--set", f"schedule.epochs={epochs}", "--set", "schedule.crop=[64,64]",
                "--set", f"schedule.evaluate_every={epochs}",
            ],
            # Half of the images train weights, the other half the architecture: a step each.
            "search": [
                "search", "--table", table, "--preset", "quickstart", "--method", "paper",
                "--run", f"{folder}/s", *SMALL, "--set", f"data.train_images={SEARCHED}",
                "--set", "pretrain.epochs=1", "--set", "pretrain.iterations=1",
                "--set", "pretrain.crop=[64,64]", "--set", "search.crop=[64,64]",
                "--set", f"search.epochs={-(-options.steps * BATCH // SEARCHED)}",
            ],
        }  # fmt: skip
        for name, words in runs.items():
            if options.only not in (None, name):
                continue
            held = watched(words)
            early = held[len(held) // 4]
            print(
                f"{name}, {options.steps} steps: {early:.0f} MB after a quarter of the time, "
                f"{held[-1]:.0f} at the end ({held[-1] - early:+.0f}), {max(held):.0f} at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
