"""A search space of one's own: the file that ``--space`` names."""

from __future__ import annotations

from latlut.errors import SpecError
from latlut.operators.own_modules import import_own_module
from latlut.spaces.checking import asked
from latlut.spaces.space import Space, spaces_of


def own_space(name: str) -> Space:
    """The space that a file or module registers, as it is without any values given.

    Args:
        name: a path that ends in .py, or a dotted name.

    Raises:
        LatlutError: it cannot be imported.
        SpecError: it registers no space, or several.
    """
    module = import_own_module(name, "--space")
    found = spaces_of(module.__name__)
    if len(found) != 1:
        names = ", ".join(space.name for space in found) or "none"
        raise SpecError(
            f"--space {name}: the file registers one space with @register_space, found {names}"
        )
    kind = found[0]
    return asked(kind.name, "from_dict", lambda: kind.from_dict({"name": kind.name}))
