"""Operators and spaces of one's own: files or modules that register them when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from latlut.errors import LatlutError

_IMPORTED: dict[str, None] = {}


def imported_own_modules() -> tuple[str, ...]:
    """What was imported so far: absolute paths and dotted names, in order."""
    return tuple(_IMPORTED)


def import_own_modules(names: Iterable[str]) -> None:
    """Import files or modules that call ``operators.register`` or ``spaces.space.register_space``.

    Args:
        names: paths that end in .py, or dotted names.

    Raises:
        LatlutError: one that cannot be found or fails while it is imported.
    """
    for name in names:
        import_own_module(name, "--operators")


def import_own_module(name: str, option: str) -> ModuleType:
    """One of them; ``option`` is what named it on the command line, for messages.

    Raises:
        LatlutError: see ``import_own_modules``.
    """
    try:
        if not name.endswith(".py"):
            module = importlib.import_module(name)
            _IMPORTED[name] = None
            return module
        path = Path(name)
        own_name = f"latlut_operators_{path.stem}"
        spec = importlib.util.spec_from_file_location(own_name, path)
        if spec is None or spec.loader is None or not path.exists():
            raise LatlutError(f"{option} {name}: no such file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[own_name] = module
        spec.loader.exec_module(module)
        _IMPORTED[str(path.resolve())] = None
        return module
    except LatlutError:
        raise
    except (Exception, SystemExit) as error:
        raise LatlutError(
            f"{option} {name}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
