"""Commands as messages show them: quoted so that they work when they are pasted."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """``latlut`` with these words, quoted for a POSIX shell where they need it."""
    return shlex.join(["latlut", *map(str, words)])
