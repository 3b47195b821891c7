"""The tables of CPUs that ship with latlut, made again from the study that docs/results publishes.

    python tests/shipped_tables.py          write them into profiles/tables

Of each engine the study keeps the entries, and of the 60 networks that judged its calibration both
measured latencies and the sum of entries, in the order in which the study drew them. The networks
are sampled again; one whose sum is not what the study wrote is refused. Single samples, the 30
networks that the calibration was fitted on, and the state of the machine are not kept there.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from checkout import ROOT

from latlut.pricing.estimator import estimate
from latlut.spaces.fasterseg import FasterSegSpace
from latlut.stats.agreement import agreement
from latlut.table import validations
from latlut.table.import_export import import_file
from latlut.table.table import LatencyTable
from latlut.table.writing import set_fact
from latlut.validation.validate import ValidationSettings

STUDY = ROOT / "docs" / "results" / "fasterseg-256x512"
INPUT_SIZE = (256, 512)
SAMPLED, FITTED, SEED = 90, 30, 0
ENGINES = ("onnxruntime", "openvino", "pytorch")
PUBLISHED_AT = "2026-11-24T03:50:59+00:00"
SOURCE = (
    "docs/results/fasterseg-256x512 of latlut: one sweep and 60 validation networks on two shared "
    "virtual CPUs of an EPYC of the fourth generation, published on 24 November 2026 without "
    "single samples; calibrated on 30 of these networks"
)


def table_name(engine: str) -> str:
    """Not ``cpu``, which finds the table of the machine at hand."""
    return f"epyc4-{engine}-fp32.db"


def make(engine: str, folder: Path) -> Path:
    """The table of an engine, in a folder that does not have it.

    Raises:
        ValueError: the study's entries are not those of the space, or its networks not those that
            are sampled now.
    """
    path = folder / table_name(engine)
    space = FasterSegSpace()
    described = {**space.to_dict(), "input_size": list(INPUT_SIZE), "batch": [1]}
    import_file(STUDY / f"{engine}-entries.csv", path, space=described)
    with LatencyTable.open(path, is_writable=True) as table:
        if lacking := [spec for spec in space.op_specs(INPUT_SIZE) if spec not in table]:
            raise ValueError(f"{path} lacks {len(lacking)} op specs, such as {lacking[0]}")
        keep_validation(table, space, engine)
        with table.writing() as db:
            set_fact(db, "source", SOURCE)
            db.execute("UPDATE validations SET at = ?", [PUBLISHED_AT])
    calibrating = [sys.executable, "-m", "latlut", "calibrate", "--table", str(path)]
    subprocess.run(calibrating, check=True, stdout=subprocess.DEVNULL)
    return path


def keep_validation(table: LatencyTable, space: FasterSegSpace, engine: str) -> None:
    """The networks that judged the study's calibration, as a validation."""
    sampled = space.sample_many(SAMPLED, SEED)
    order = np.random.default_rng(SEED).permutation(SAMPLED)[FITTED:]
    rows = [row for row in _study_rows() if row["engine"] == engine]
    networks = []
    for index, row in zip(order, rows, strict=True):
        found = estimate(sampled[index].op_specs(INPUT_SIZE), table)
        if abs(found.ms - float(row["plain_ms"])) > 1e-4:
            raise ValueError(f"network {index}: {found.ms} ms here, {row['plain_ms']} in the study")
        networks.append(
            {
                "architecture": sampled[index].to_json(),
                "estimated_ms": found.ms,
                "ci_low_ms": found.ci_low_ms,
                "ci_high_ms": found.ci_high_ms,
                "plain_ms": found.ms,
                "measured_first_ms": float(row["measured_first_ms"]),
                "measured_second_ms": float(row["measured_second_ms"]),
            }
        )
    names = ("plain_ms", "measured_first_ms", "measured_second_ms")
    scores = agreement(*([network[name] for network in networks] for name in names), seed=SEED)
    validations.store(
        table,
        networks,
        seed=SEED,
        sampler=space.describe_sampler(),
        settings=json.dumps(asdict(ValidationSettings(networks=SAMPLED, rounds=1, seed=SEED))),
        environment=json.dumps({"source": SOURCE}),
        agreement=json.dumps(scores.to_dict()),
        input_size="x".join(map(str, INPUT_SIZE)),
        batch=1,
    )


def _study_rows() -> list[dict[str, str]]:
    with (STUDY / "networks.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the tables keep the path of what they were calibrated from
        for name in ENGINES:
            print(shutil.copy(make(name, Path()), ROOT / "profiles" / "tables"))
        os.chdir(ROOT)
