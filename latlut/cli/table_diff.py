"""What ``latlut table diff`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from latlut.cli.output import is_quiet, note, print_json, print_table

if TYPE_CHECKING:
    from latlut.table.diff import Difference


def print_diff_json(found: Difference) -> None:
    """All of it."""
    print_json(
        {
            "identity": found.identity,
            "overall_ratio": found.overall,
            "common": len(found.moves),
            "moved": [
                {"op_spec": m.key, "before_ms": m.before_ms, "after_ms": m.after_ms,
                 "ratio": m.ratio}
                for m in found.moved
            ],
            "expected_by_chance": found.by_chance,
            "only_before": found.only_before,
            "only_after": found.only_after,
            "predicted": found.predicted,
        }
    )  # fmt: skip


def print_diff(
    found: Difference, titles: tuple[str, str], names: Mapping[str, str], limit: int
) -> None:
    """What differs, which table is faster, and what moved.

    Args:
        found: the difference.
        titles: of BEFORE and AFTER.
        names: of op specs, as they are shown.
        limit: most rows.
    """
    for line in found.identity:
        note(f"identity differs: {line}")
    if found.predicted:
        note(
            f"{len(found.predicted)} common operator configurations are left out: one of "
            f"the tables predicted them, such as {names[found.predicted[0]]}"
        )
    if not found.moves:
        click.echo("the tables have no measured operator configuration in common")
        return
    click.echo(
        f"{len(found.moves)} common operator configurations; median ratio after / before "
        f"{found.overall:.4f}; "
        f"{len(found.moved)} moved beyond their intervals (up to {found.by_chance:.0f} by chance)"
    )
    if text := _faster_text(found, titles):
        click.echo(text)
    if found.moved:
        _print_moved(found, names, limit)
    for where, keys in (("BEFORE", found.only_before), ("AFTER", found.only_after)):
        if keys:
            shown = names[keys[0]]
            note(f"{len(keys)} operator configurations only in {where}, such as {shown}")


def _faster_text(found: Difference, titles: tuple[str, str]) -> str:
    """``NAME is 1.36 times faster (median)``; empty where the ratio says nothing."""
    if found.slowdown is None:
        return ""
    if f"{found.slowdown:.2f}" == "1.00":
        return "both are equally fast (median)"
    faster = titles[0] if found.overall > 1 else titles[1]
    return f"{faster} is {found.slowdown:.2f} times faster (median)"


def _print_moved(found: Difference, names: Mapping[str, str], limit: int) -> None:
    """The op specs that moved, the largest change first; a detail beside the summary."""
    if is_quiet():
        return
    moved = found.moved[:limit]
    rows = [[names[m.key], m.before_ms, m.after_ms, m.ratio] for m in moved]
    print_table(["operator configuration", "before, ms", "after, ms", "ratio"], rows)
    if len(moved) < len(found.moved):
        total = len(found.moved)
        note(f"showing {len(moved)} of {total}; --limit {total} shows all")
