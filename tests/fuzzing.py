"""Reading files of random content: a result or a refusal, never another error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings

from latlut.errors import ImportFileError

T = TypeVar("T")

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused_or_read(read: Callable[[Path], T], path: Path) -> T | None:
    """What ``read`` makes of a file; None where it refuses it by name."""
    try:
        return read(path)
    except ImportFileError as error:
        assert path.name in str(error)
        return None
