"""Op specs of two tables, paired by row ids."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.pairs import SpecPairs
from latlut.table.table import LatencyTable

SPECS = [
    OpSpec(kind, (channels, 8, 8), 4) for kind in ("conv", "skip") for channels in range(1, 20)
]


def table_of(path: Path, specs: list[OpSpec]) -> LatencyTable:
    table = LatencyTable.create(path, Identity("cpu", "m", "none", "0"))
    recording.add_op_specs(table, specs)
    return table


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_equal_keys(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    some, others = (draw.sample(SPECS, draw.randint(0, len(SPECS))) for _ in range(2))
    with table_of(tmp_path / "a.db", some) as source, table_of(tmp_path / "b.db", others) as into:
        pairs = SpecPairs(source, into)
        there = dict(source.tuples("SELECT id, key FROM op_specs"))
        here = dict(into.tuples("SELECT key, id FROM op_specs"))
        known = [number for number, key in there.items() if key in here]
        assert pairs.here(np.array(known, dtype=np.int64)).tolist() == [
            here[there[number]] for number in known
        ]
        assert set(pairs.unknown.tolist()) == set(there) - set(known)
        alike = dict(zip(sorted(there), pairs.are_alike.tolist(), strict=True))
        assert {number for number, is_alike in alike.items() if is_alike} == set(known)


@pytest.mark.parametrize("change", ["in_channels = 3", "kind = 'skip'", "stride = 'x'"])
def test_op_specs_with_other_columns_are_not_alike(tmp_path: Path, change: str) -> None:
    specs = [OpSpec("conv", (channels, 8, 8), 4) for channels in (1, 2)]
    with table_of(tmp_path / "a.db", specs) as source, table_of(tmp_path / "b.db", specs) as into:
        (number,) = source.tuples("SELECT id FROM op_specs WHERE in_channels = 2")[0]
        with into.writing() as db:
            db.execute(f"UPDATE op_specs SET {change} WHERE in_channels = 2")
        pairs = SpecPairs(source, into)
        assert pairs.are_alike.tolist() == [number != 1, number != 2]
        assert not len(pairs.unknown)
