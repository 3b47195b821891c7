"""From entries to networks: sums, intervals, variants, and what cannot be priced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latlut.errors import MissingEntryError, UnknownNameError
from latlut.opspec import OpSpec
from latlut.pricing.estimator import estimate
from latlut.pricing.sum_errors import USUAL_ERROR
from latlut.resources import profiles_dir
from latlut.spaces import Architecture
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text

SPEC = OpSpec("conv", (8, 16, 16), 8)
OTHER = OpSpec("conv_2x", (8, 16, 16), 8)


def fill(
    table: LatencyTable, entries: dict[OpSpec, tuple[float, float | None]], shared: float = 0.0
):
    """Entries with (latency_ms, own relative error)."""
    ids = recording.add_op_specs(table, entries)
    with table.writing() as db:
        for spec, (latency_ms, own) in entries.items():
            low, high = (
                (None, None) if own is None else (latency_ms * (1 - own), latency_ms * (1 + own))
            )
            db.execute(
                "INSERT INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error,"
                " passes, n, updated_at) VALUES (?,?,?,?,?,5,100,?)",
                [ids[spec.key], latency_ms, low, high, own, now_text()],
            )
        db.execute("INSERT OR REPLACE INTO facts VALUES ('shared_error', ?)", [repr(shared)])


@pytest.fixture
def table(db_path: Path, identity: Identity):
    with LatencyTable.create(db_path, identity) as opened:
        yield opened


def test_a_network_is_the_sum_of_what_it_executes(table: LatencyTable) -> None:
    fill(table, {SPEC: (2.0, 0.01), OTHER: (3.0, 0.02)}, shared=0.03)
    found = estimate([SPEC, OTHER, SPEC], table)
    assert found.ms == pytest.approx(7.0)
    assert found.is_complete
    assert [(term.spec, term.count, term.total_ms) for term in found.terms] == [
        (SPEC, 2, 4.0),
        (OTHER, 1, 3.0),
    ]
    assert found.sum_error is not None and found.sum_error.networks == 0
    missed = 1.96 * USUAL_ERROR
    half = np.sqrt((4.0 * 0.01) ** 2 + (3.0 * 0.02) ** 2 + (0.03 * 7.0) ** 2 + (missed * 7.0) ** 2)
    assert found.ci_high_ms - found.ms == pytest.approx(half)
    assert found.ms - found.ci_low_ms == pytest.approx(half)


def test_a_single_op_spec_has_its_entrys_interval(table: LatencyTable) -> None:
    fill(table, {SPEC: (2.0, 0.01)}, shared=0.03)
    found = estimate([SPEC], table)
    assert found.sum_error is None
    assert found.ci_high_ms - found.ms == pytest.approx(2.0 * np.hypot(0.01, 0.03))


def test_an_entry_without_interval_leaves_the_sum_without_one(table: LatencyTable) -> None:
    fill(table, {SPEC: (2.0, None), OTHER: (3.0, 0.02)})
    found = estimate([SPEC, OTHER], table)
    assert found.ms == 5.0
    assert found.ci_low_ms is None
    assert found.ci_high_ms is None


def test_what_is_missing_is_named_and_never_zero(table: LatencyTable) -> None:
    fill(table, {SPEC: (2.0, 0.01)})
    with pytest.raises(MissingEntryError, match=rf"(?s)lacks 1 entry.*{OTHER.key}.*profile"):
        estimate([SPEC, OTHER], table)
    found = estimate([SPEC, OTHER], table, allow_missing=True)
    assert not found.is_complete
    assert found.unpriced == (OTHER,)
    assert found.ms == 2.0


def test_variants_price_what_is_missing_and_are_named(table: LatencyTable) -> None:
    refine = OpSpec("refine", [(16, 8, 8), (8, 16, 16)], 8)
    zoomed = OpSpec("zoomed_conv", (8, 16, 16), 8)
    fill(
        table,
        {
            zoomed.replace(interpolation="nearest"): (1.0, 0.01),
            OpSpec("conv", (16, 8, 8), 8, kernel_size=1): (0.5, 0.01),
            OpSpec("conv", (16, 16, 16), 8): (2.0, 0.01),
        },
    )
    found = estimate([refine, zoomed], table, allow_missing=True)
    assert found.ms == pytest.approx(3.5)
    assert len(found.substituted) == 2
    assert "nearest" in found.terms[1].reason
    assert [spec.kind for spec in found.unpriced] == ["upsample"]


def test_an_own_entry_wins_over_a_variant(table: LatencyTable) -> None:
    zoomed = OpSpec("zoomed_conv", (8, 16, 16), 8)
    fill(table, {zoomed: (1.0, 0.01), zoomed.replace(interpolation="nearest"): (9.0, 0.01)})
    found = estimate([zoomed], table)
    assert found.ms == 1.0
    assert found.substituted == ()


def test_anything_with_op_specs_is_a_network(table: LatencyTable) -> None:
    class Chain:
        def op_specs(self) -> list[OpSpec]:
            return [SPEC, SPEC]

    fill(table, {SPEC: (2.0, 0.01)})
    assert estimate(Chain(), table).ms == 4.0


def test_shared_cells_are_counted_once(table: LatencyTable) -> None:
    student = Architecture.load(profiles_dir() / "architectures" / "fasterseg-student.json")
    specs = student.op_specs((256, 512))
    fill(table, dict.fromkeys(specs, (1.0, 0.0)))
    found = estimate(specs, table)
    cells = sum(len(branch.cells) for branch in student.branches) - student.shared_cells
    around = 3 + 3 + 3  # stem, refinements (two and one), fusion, head, upsample
    assert found.ms == pytest.approx(cells + around)


def test_public_function(table: LatencyTable) -> None:
    import latlut

    fill(table, {SPEC: (2.0, 0.01)})
    assert latlut.estimate([SPEC], table).ms == 2.0


def test_unknown_names_stay_errors(table: LatencyTable) -> None:
    with pytest.raises(UnknownNameError):
        LatencyTable.open("no-such-table-anywhere")
