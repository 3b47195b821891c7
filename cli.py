"""Launcher for a bare checkout: ``python cli.py profile --cpu`` is ``latlut profile --cpu``."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent
LINKED_FOLDERS = ("search", "reports", "profiles")


def why_not() -> str | None:
    """What keeps this checkout from running as it is, or None."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return f"latlut needs Python 3.11 to 3.13, this is {sys.version.split()[0]}"
    missing = [name for name in LINKED_FOLDERS if not (CHECKOUT / "latlut" / name).is_dir()]
    if missing:
        return (
            f"latlut/{', latlut/'.join(missing)} should be symbolic links to the folders beside "
            "latlut/, and this checkout has none (git's core.symlinks is off?); "
            "install it instead: pip install -e . and type latlut"
        )
    return None


def main() -> None:
    refusal = why_not()
    if refusal:
        sys.exit(f"Error: {refusal}")
    try:
        from latlut.cli import main as latlut
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "latlut":
            raise
        sys.exit(
            f"Error: the package {error.name!r} is not installed in {sys.prefix}; "
            "install what latlut needs: pip install -e ."
        )
    latlut(prog_name="python cli.py")


if __name__ == "__main__":
    main()
