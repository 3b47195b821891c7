"""What measuring a part of a plan is worth: full tables, of which a study measures a part only.

    study_active.py [--fraction 0.15] [--seeds 10] [--out docs/results/active]

Each table of docs/results/fasterseg-256x512 (656 op specs, three engines, one thread) plays the
device: "measuring" looks an entry up. The active sweep chooses its op specs as ``latlut profile
--fraction`` does; the others are predicted and compared. Networks: random ones of the space; their
sums from the part are compared with those from all entries, and, where networks.csv holds measured
ones, both are calibrated on half of these and judged on the other half.

Then whole regions are left out: a pair of channels, a resolution, a kind's largest shapes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from latlut.opspec import OpSpec
from latlut.predict.design import Design, counts_of
from latlut.predict.predictor import Predictor
from latlut.spaces import FasterSegSpace

DATA = Path(__file__).resolve().parents[2] / "docs" / "results" / "fasterseg-256x512"
ENGINES = ("onnxruntime", "openvino", "pytorch")
SIZE = (256, 512)
BATCH = 16
NETWORKS = 200


def entries_of(engine: str) -> dict[OpSpec, float]:
    """The table: op spec -> milliseconds."""
    frame = pd.read_csv(DATA / f"{engine}-entries.csv", comment="#")
    return {
        OpSpec.parse(key): ms
        for key, ms in zip(frame["op_spec"], frame["latency_ms"], strict=True)
    }  # fmt: skip


def active(
    table: dict[OpSpec, float], design: Design, total: int
) -> tuple[dict[OpSpec, float], Predictor]:
    """Measure ``total`` op specs as an active sweep does; the known ones and their model."""
    known: dict[OpSpec, float] = {}
    predictor = None
    while len(known) < total:
        # What is not chosen by a model is measured at once.
        first = len(design.always) + len(design.random(total)) + BATCH
        count = first if not known else BATCH
        for spec in design.next(known, count, total, predictor):
            known[spec] = table[spec]
        predictor = design.fit(known, total)
    assert predictor is not None
    return known, predictor


def errors_of(table: dict[OpSpec, float], left: list[OpSpec], model: Predictor) -> dict[str, float]:
    """How far predictions of the op specs in ``left`` are off, and what their intervals hold."""
    sure = [spec for spec in left if model.can_predict(spec)]
    found = model.predict(sure)
    truth = np.array([table[spec] for spec in sure])
    error = np.abs(found.latency_ms / truth - 1)
    inside = (found.ci_low_ms <= truth) & (truth <= found.ci_high_ms)
    return {
        "predicted": len(sure),
        "median_percent": 100 * float(np.median(error)),
        "p90_percent": 100 * float(np.quantile(error, 0.9)),
        "within_10_percent": 100 * float((error < 0.1).mean()),
        "coverage_percent": 100 * float(inside.mean()),
        "half_width_percent": 100 * float(np.median(found.half_width)),
    }


def calibrated_errors(
    engine: str,
    counts: np.ndarray,
    full_ms: np.ndarray,
    part_ms: np.ndarray,
    kinds: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """Mean absolute error of measured networks, calibrated from all entries and from the part.

    A ridge regression of relative residuals on relative sums by kind, as ``latlut calibrate`` in
    short; fitted on half of the measured networks and judged on the others.
    """
    frame = pd.read_csv(DATA / "networks.csv")
    frame = frame[frame["engine"] == engine]
    measured = frame[["measured_first_ms", "measured_second_ms"]].mean(axis=1).to_numpy()
    sums = counts @ full_ms
    # networks.csv names its networks by their plain sums, of the same 90 that are sampled here.
    rows = np.array([np.abs(sums - plain).argmin() for plain in frame["plain_ms"]])
    order = np.random.default_rng(seed).permutation(len(rows))
    fitted, judged = order[: len(rows) // 2], order[len(rows) // 2 :]
    errors = []
    for latency_ms in (full_ms, part_ms):
        parts = np.stack(
            [counts[rows][:, kinds == kind] @ latency_ms[kinds == kind] for kind in set(kinds)], 1
        )
        total = parts.sum(axis=1)
        design = np.c_[parts / total[:, None], 1 / total * total.mean()]
        residual = measured / total - 1
        own = design[fitted]
        weights = np.linalg.solve(
            own.T @ own + 1e-2 * np.eye(own.shape[1]), own.T @ residual[fitted]
        )
        estimate = total * (1 + design @ weights)
        errors.append(float(np.abs(estimate / measured - 1)[judged].mean()))
    return 100 * errors[0], 100 * errors[1]


def study_active(engine: str, fraction: float, seeds: int) -> dict[str, float]:
    """Means over the seeds."""
    table = entries_of(engine)
    specs = tuple(table)
    total = round(fraction * len(specs))
    kinds = np.array([spec.kind for spec in specs])
    networks = [n.op_specs(SIZE) for n in FasterSegSpace().sample_many(NETWORKS, 1)]
    validated = [n.op_specs(SIZE) for n in FasterSegSpace().sample_many(90, 0)]
    counts, own = counts_of(specs, networks), counts_of(specs, validated)
    full_ms = np.array([table[spec] for spec in specs])
    rows = []
    for seed in range(seeds):
        design = Design(specs, counts, seed)
        known, model = active(table, design, total)
        found = errors_of(table, [spec for spec in specs if spec not in known], model)
        part_ms = design.latency_ms(known, model)
        off = np.abs(own @ part_ms / (own @ full_ms) - 1)
        half = design.network_half_width(known, model)
        full, part = calibrated_errors(engine, own, full_ms, part_ms, kinds, seed)
        rows.append(
            found
            | {
                "measured": len(known),
                "network_off_percent": 100 * float(off.mean()),
                "network_half_width_percent": 100 * half,
                "networks_inside_percent": 100 * float((off <= half).mean()),
                "calibrated_full_percent": full,
                "calibrated_part_percent": part,
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def regions(table: dict[OpSpec, float]) -> dict[str, list[OpSpec]]:
    """Regions that a model has not seen: name -> op specs that are left out."""
    cells = [
        s for s in table if s.kind.startswith(("conv", "zoomed", "skip")) and s.in_channels > 4
    ]
    pairs = [(64, 128), (128, 128), (256, 192)]
    sizes = sorted({s.inputs[0][1:] for s in cells})
    found = {
        f"channels {a} to {b}": [s for s in cells if (s.in_channels, s.out_channels) == (a, b)]
        for a, b in pairs
    }
    found |= {
        f"resolution {h}x{w}": [s for s in cells if s.inputs[0][1:] == (h, w)] for h, w in sizes
    }
    for kind in ("conv", "conv_2x", "zoomed_conv", "zoomed_conv_2x", "skip"):
        own = sorted(
            (s for s in cells if s.kind == kind), key=lambda s: s.in_channels * s.out_channels
        )
        found[f"{kind}: largest tenth by channels"] = own[-len(own) // 10 :]
    return {name: left for name, left in found.items() if left}


def study_regions(engine: str) -> dict[str, dict[str, float]]:
    """Region -> errors of its op specs, predicted from all others."""
    table = entries_of(engine)
    found = {}
    for name, left in regions(table).items():
        gone = set(left)
        known = {spec: ms for spec, ms in table.items() if spec not in gone}
        model = Predictor.fit(list(known), list(known.values()))
        found[name] = errors_of(table, left, model)
    return found


def main() -> None:
    """Study all engines, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fraction", type=float, default=0.15)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    content: dict[str, object] = {"fraction": options.fraction, "seeds": options.seeds}
    for engine in ENGINES:
        own = study_active(engine, options.fraction, options.seeds)
        content[engine] = own
        print(engine, ", ".join(f"{name} {value:.2f}" for name, value in own.items()), flush=True)
    for engine in ENGINES:
        left_out = study_regions(engine)
        content[f"{engine}, left out"] = left_out
        for name, numbers in left_out.items():
            shown = ", ".join(f"{key} {value:.1f}" for key, value in numbers.items())
            print(f"{engine}, {name}: {shown}", flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "active.json").write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
