"""How well a new device's latencies follow from ten measurements on it and other devices' data.

    study_transfer.py HWDATA [--out docs/results/transfer] [--seeds 20] [--measured 10]

HWDATA is a folder with ``nasbench201.csv.gz`` and ``fbnet.csv.gz``: latencies of whole networks
that others measured (HELP, Lee et al., NeurIPS 2021), a row a network, a column a device. HELP's
nine meta-training devices are the prior; on each of its test devices ten networks are measured,
which the model chooses, and all others are predicted. Seeds change the networks among which it
chooses and those on which its variances are fitted. fpga and eyeriss (and raspi4 in FBNet) are
sums of tables there, additive exactly; means are given with and without them.

``floor_percent`` is the median error of least squares on the same features and devices where half
of all networks are measured, thousands instead of ten: what a linear model leaves on that device.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from latlut.predict.transfer import DevicePrior

_PHONES = ("samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")
TRAINING = {
    "nasbench201": ("1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", *_PHONES),
    "fbnet": ("1080ti_1", "1080ti_32", "1080ti_64", "silver_4114", "silver_4210r", *_PHONES),
}
_OTHERS = ("gold_6226", "fpga", "pixel2", "raspi4", "eyeriss")
TEST = {
    "nasbench201": ("titan_rtx_1", "titan_rtx_32", "titan_rtx_256", *_OTHERS),
    "fbnet": ("titan_rtx_1", "titan_rtx_32", "titan_rtx_64", *_OTHERS),
}
ADDITIVE = {"nasbench201": {"fpga", "eyeriss"}, "fbnet": {"fpga", "eyeriss", "raspi4"}}


def features_of(architectures: pd.Series, space: str) -> np.ndarray:
    """(N, places x operators): 1 where the network has that operator at that place."""
    if space == "fbnet":
        rows = [list(text.split()) for text in architectures]
    else:
        rows = [re.findall(r"([a-z_0-9]+)~", text) for text in architectures]
    operators = np.array(rows)
    return np.concatenate(
        [
            (column[:, None] == np.unique(column)[1:]).astype(float)
            for column in operators.T
        ],
        axis=1,
    )  # fmt: skip


def floor_percent(features: np.ndarray, known: np.ndarray, truth: np.ndarray) -> float:
    """Median error of a fit on a random half, on the other half."""
    design = np.c_[np.ones(len(truth)), features, known / known.mean(axis=0)]
    order = np.random.default_rng(0).permutation(len(truth))
    fitted, others = order[: len(order) // 2], order[len(order) // 2 :]
    weights = np.linalg.lstsq(design[fitted], truth[fitted], rcond=None)[0]
    error = np.abs(design[others] @ weights - truth[others]) / truth[others]
    return 100 * float(np.median(error))


def study(folder: Path, space: str, seeds: int, measured: int) -> dict[str, dict[str, float]]:
    """Test device -> Spearman, median error in percent, coverage; means over the seeds."""
    frame = pd.read_csv(folder / f"{space}.csv.gz")
    features = features_of(frame["architecture"], space)
    known = frame[list(TRAINING[space])].to_numpy(float)
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in range(seeds):
        prior = DevicePrior(known, features, seed)
        items = prior.next_items(measured)
        left = np.ones(len(frame), bool)
        left[items] = False
        for device in TEST[space]:
            truth = frame[device].to_numpy(float)
            result = prior.transfer(items, truth[items])
            error = np.abs(result.mean - truth)
            found.setdefault(device, []).append(
                (
                    float(spearmanr(result.mean[left], truth[left])[0]),
                    100 * float(np.median(error[left] / truth[left])),
                    100 * float(np.mean((error <= result.quantile * result.sd)[left])),
                    100 * float(np.median((result.quantile * result.sd / truth)[left])),
                )
            )
    names = ("spearman", "median_error_percent", "coverage_percent", "half_width_percent")
    return {
        device: {
            **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
            "floor_percent": floor_percent(features, known, frame[device].to_numpy(float)),
        }
        for device, rows in found.items()
    }


def main() -> None:
    """Study both spaces, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--measured", type=int, default=10)
    options = parser.parse_args()
    content = {}
    for space in TRAINING:
        started = time.process_time()
        content[space] = study(options.folder, space, options.seeds, options.measured)
        print(f"{space}: {(time.process_time() - started) / options.seeds:.1f} s CPU a seed")
        for device, numbers in content[space].items():
            shown = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            print(f"  {device}{' (additive)' if device in ADDITIVE[space] else ''}: {shown}")
        for title, chosen in (
            ("all", list(content[space])),
            ("not additive", [d for d in content[space] if d not in ADDITIVE[space]]),
        ):
            mean = {
                name: np.mean([content[space][device][name] for device in chosen])
                for name in ("spearman", "coverage_percent")
            }
            print(
                f"  mean of {title} ({len(chosen)}): Spearman {mean['spearman']:.4f}, "
                f"coverage {mean['coverage_percent']:.1f}%"
            )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"measured": options.measured, "spaces": content}, indent=1)
        (options.out / "transfer.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
