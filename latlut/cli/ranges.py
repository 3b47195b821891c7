"""Ranges of numbers as people write them: ``1 to 100``, ``at least 0``, not ``1<=x<=100``."""

from __future__ import annotations

from functools import partial

import click


def say_range_in_words(parameter: click.Parameter) -> None:
    """Name a number N in the command's help, and its range in words there and in refusals."""
    kind = parameter.type
    if not isinstance(kind, (click.IntRange, click.FloatRange)):
        return
    if isinstance(parameter, click.Option) and not parameter.is_flag:
        parameter.metavar = parameter.metavar or "N"
    kind._describe_range = partial(range_text, kind)  # type: ignore[method-assign]


def range_text(kind: click.IntRange | click.FloatRange) -> str:
    """``1 to 100``, ``at least 1``, ``above 0``, ``above 0, at most 1``."""
    low, high = kind.min, kind.max
    if low is not None and high is not None and not (kind.min_open or kind.max_open):
        return f"{low} to {high}"
    ends = [
        None if low is None else f"{'above' if kind.min_open else 'at least'} {low}",
        None if high is None else f"{'below' if kind.max_open else 'at most'} {high}",
    ]
    return ", ".join(filter(None, ends))
