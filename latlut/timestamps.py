"""The time as tables and run folders store it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """The time now: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
