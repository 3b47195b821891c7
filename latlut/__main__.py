"""``python -m latlut`` is ``latlut``."""

from __future__ import annotations

from latlut.cli import main

if __name__ == "__main__":
    main(prog_name="latlut")
