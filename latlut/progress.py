"""What a listener is told while something long is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """What a listener is told after each step.

    Attributes:
        done, total: steps.
        pass_index: which pass over everything this is, from 0.
        label: what was just measured.
        reading_ms: its latency in milliseconds, None where there is none.
    """

    done: int
    total: int
    pass_index: int
    label: str
    reading_ms: float | None
