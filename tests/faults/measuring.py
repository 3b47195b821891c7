"""``latlut`` with short timings, that says outside of its folder what it has acknowledged.

A campaign repeats a sweep hundreds of times, and looks at what is stored, not at latencies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from faults.forking import command as latlut

from latlut.measure import sweep_settings, timing
from latlut.progress import Progress
from latlut.validation import validate

#: Where each progress is noted, as a line of JSON: op spec, pass, milliseconds.
ACKNOWLEDGED = "LATLUT_ACKNOWLEDGED"

_SHORT = {"min_samples": 3, "max_samples": 5, "min_time_s": 0.0, "time_cap_s": 0.002,
          "burst_s": 0.001, "window_s": 0.0005, "warmup_cap_s": 0.001}  # fmt: skip


@contextmanager
def _noting(title: str, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    descriptor = os.open(os.environ[ACKNOWLEDGED], os.O_WRONLY | os.O_APPEND)
    try:
        yield lambda told: _note(descriptor, told)
    finally:
        os.close(descriptor)


def _note(descriptor: int, told: Progress) -> None:
    line = json.dumps([told.label, told.pass_index, told.reading_ms])
    os.write(descriptor, f"{line}\n".encode())


def command(arguments: Sequence[str]) -> None:
    """``latlut profile`` or ``latlut validate``, in a process of its own."""
    from latlut.cli import profile, validate as validate_command  # noqa: I001

    short = partial(timing.TimingSettings, **_SHORT)
    timing.TimingSettings = short  # type: ignore[assignment,misc]
    short_sweep = partial(sweep_settings.SweepSettings, group=2, sentinels=1)
    sweep_settings.SweepSettings = short_sweep  # type: ignore[assignment,misc]
    validate.ValidationSettings = partial(  # type: ignore[misc]
        validate.ValidationSettings, timing=short()
    )
    profile.progress_bar = validate_command.progress_bar = _noting  # type: ignore[attr-defined]
    latlut(arguments)
