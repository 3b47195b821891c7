"""What to tell someone whose table lacks op specs."""

from __future__ import annotations

from collections.abc import Sequence

from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable

#: So many missing op specs are named in a message; the rest is counted.
_LISTED = 10


def missing_message(table: LatencyTable, missing: Sequence[OpSpec], command: str = "") -> str:
    """What to tell someone whose table lacks these op specs.

    Args:
        table: that lacks them.
        missing: at least one.
        command: what adds them; if empty, ``latlut profile`` with those that are listed.
    """
    listed = [f"  {spec}" for spec in missing[:_LISTED]]
    rest = len(missing) - len(listed)
    more = [f"  and {rest} more"] if rest else []
    ops = [word for spec in missing[:_LISTED] for word in ("--op", spec)]
    adding = command or table.command("profile", *ops)
    noun = "entry" if len(missing) == 1 else "entries"
    then = " (and so on for the rest)" if rest and not command else ""
    return "\n".join(
        [f"{table.path} lacks {len(missing)} {noun}:", *listed, *more]
        + [f"add {'it' if len(missing) == 1 else 'them'} with: {adding}{then}"]
    )
