"""An identity from a file: texts that can be shown, and a number of threads."""

from __future__ import annotations

import pytest

from latlut.errors import IdentityError
from latlut.table.identity import Identity

WHOLE = Identity("cpu", "Xeon®", "none", "0", threads=2).to_dict()


def test_threads_may_be_a_text() -> None:
    assert Identity.from_dict(WHOLE | {"threads": "16"}).threads == 16
    assert Identity.from_dict(WHOLE).to_dict() == WHOLE


@pytest.mark.parametrize(
    "value", [-5, 0, True, 1.5, "-1", "x", "", None, float("inf"), 10**30, 2**63]
)
def test_threads_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(IdentityError, match="threads is a whole number from 1 to 65536"):
        Identity.from_dict(WHOLE | {"threads": value})


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "threads"])
@pytest.mark.parametrize(
    "value", [None, {"a": 1}, ["cpu"], True, 5, "a\0b", "\x1b[2J", "\ud800", "x" * 2000]
)
def test_what_is_no_text_is_refused(name: str, value: object) -> None:
    with pytest.raises(IdentityError, match=f"{name} is a text"):
        Identity.from_dict(WHOLE | {name: value})


@pytest.mark.parametrize("name", ["target", "device_model", "engine", "engine_version"])
def test_who_measured_is_not_left_empty(name: str) -> None:
    with pytest.raises(IdentityError, match=f"{name} is empty"):
        Identity.from_dict(WHOLE | {name: " "})
