"""What a listener is told while something long is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """What a listener is told after each step."""

    done: int
    total: int
    """``done``, ``total``: steps."""
    pass_index: int
    """Which pass over everything this is, from 0."""
    label: str
    """What was just measured."""
    reading_ms: float | None
    """Its latency in milliseconds, None where there is none."""
    cpu_share: float | None = None
    """What of the CPU was got meanwhile, 0 to 1; None where it is not known."""
