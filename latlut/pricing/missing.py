"""What to tell someone whose table lacks op specs."""

from __future__ import annotations

from collections.abc import Sequence

from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable

#: So many missing op specs are named in a message; the rest is counted.
_LISTED = 10
#: So many are in the command that adds them: more than a network has.
_IN_COMMAND = 100


def missing_message(table: LatencyTable, missing: Sequence[OpSpec], command: str = "") -> str:
    """What to tell someone whose table lacks these op specs.

    Args:
        table: that lacks them.
        missing: at least one.
        command: what adds them; if empty, ``latlut profile`` with each of them, up to a hundred.
    """
    listed = [f"  {spec}" for spec in missing[:_LISTED]]
    rest = len(missing) - len(listed)
    more = [f"  and {rest} more"] if rest else []
    noun = "entry" if len(missing) == 1 else "entries"
    return "\n".join(
        [f"{table.title} lacks {len(missing)} {noun}:", *listed, *more]
        + [adding_line(table, missing, command)]
    )


def adding_line(table: LatencyTable, missing: Sequence[OpSpec], command: str = "") -> str:
    """The last line of ``missing_message``: what adds the entries."""
    ops = [word for spec in missing[:_IN_COMMAND] for word in ("--op", spec)]
    adding = command or table.command("profile", *ops)
    then = " (and so on for the rest)" if len(missing) > _IN_COMMAND and not command else ""
    return table.adding(f"{adding}{then}", len(missing))
