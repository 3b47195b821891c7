"""Where the data files that ship with latlut are: targets, plans, architectures, tables.

In the wheel the top-level folder ``profiles/`` is the package ``latlut.profiles``; a checkout
has the same under a symbolic link, and a checkout without symbolic links the folder itself.
"""

from __future__ import annotations

from pathlib import Path

from latlut.errors import LatlutError


def profiles_dir() -> Path:
    """The folder with ``targets/``, ``plans/``, ``architectures/`` and ``tables/``.

    Raises:
        LatlutError: neither the installed package nor the checkout has it.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "profiles", package.parent / "profiles")
    for folder in candidates:
        if (folder / "targets").is_dir():
            return folder
    raise LatlutError(
        f"latlut's data files are missing: looked for {candidates[0]} and {candidates[1]}; "
        "the installation is incomplete, install latlut again"
    )
