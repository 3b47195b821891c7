"""Validations of a busy machine are not learnt from, unless that is asked for."""

from __future__ import annotations

import pytest

from latlut.table.validations import Quietness
from latlut.validation import fitting


class Item:
    def __init__(self, validation_id: int | None) -> None:
        self.validation_id = validation_id


@pytest.mark.parametrize(
    ("cpu_share", "r12", "reason"),
    [
        (0.6, 0.99, "took 40% of the CPU"),
        (0.99, 0.5, "correlate by 0.500"),
        (None, 0.5, "correlate by 0.500"),
        (0.99, 0.99, None),
        (None, None, None),
    ],
)
def test_doubts(
    monkeypatch: pytest.MonkeyPatch, cpu_share: float | None, r12: float | None, reason: str | None
) -> None:
    known = {1: Quietness(1.0, 0.999), 2: Quietness(cpu_share, r12)}
    monkeypatch.setattr(fitting, "quietness", lambda table: known)
    found = fitting.doubts([Item(1), Item(2), Item(2), Item(None)], None)  # type: ignore[list-item,arg-type]
    if reason is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith("validation 2: ") and reason in text
