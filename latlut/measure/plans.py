"""Plans: which op specs to measure.

A plan comes from a shipped TOML file (``plan_names``), from a file of one's own with the same
grammar (``plan_file``), or from op specs written out on the command line.

    load_plan("fasterseg", input_size=(720, 960))
    load_plan("my-network.toml")
    plan_from_ops(["conv 64->96 stride 1 at 128x256"])
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from latlut.errors import ImportFileError, SpecError, UnknownNameError, did_you_mean
from latlut.files.reading import read_text
from latlut.opspec import OpSpec, unique
from latlut.resources import profiles_dir
from latlut.spaces.space import Space

#: A sweep of more op specs than this is taken for a mistake.
MAX_SPECS = 100_000


@dataclass(frozen=True, repr=False)
class Plan:
    """The op specs to measure, without repetition.

    Raises:
        SpecError: no op specs, or more than 100000.
    """

    name: str
    """What the plan is called; stored with every run."""
    specs: tuple[OpSpec, ...]
    """The op specs, in the order in which they were named."""
    description: str = ""
    """One line for people."""
    space: dict[str, object] | None = field(default=None, hash=False)
    """The search space that the plan covers, as its ``to_dict()`` with two more keys:
    ``"input_size"``, [height, width] in pixels, and ``"batch"``, a list of batch sizes. None for a
    plan that is no search space."""
    cut: str | None = None
    """By which rule its pieces of ONNX files were cut; None for a plan of operators."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "specs", unique(self.specs))
        if not self.specs:
            raise SpecError(f"the plan {self.name!r} is empty: it names no operator configurations")
        if len(self.specs) > MAX_SPECS:
            raise SpecError(
                f"the plan {self.name!r} has {len(self.specs)} operator configurations, "
                f"the limit is {MAX_SPECS}"
            )

    def __repr__(self) -> str:
        return f"<Plan {self.name}: {len(self.specs)} operator configurations>"

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the sorted keys, in hexadecimal: equal for plans that measure the same."""
        keys = sorted(spec.key for spec in self.specs)
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def plan_names() -> list[str]:
    """Names of the plans that ship with latlut, sorted.

    Raises:
        LatlutError: the installation lacks its data files.
    """
    return sorted(path.stem for path in (profiles_dir() / "plans").glob("*.toml"))


def load_plan(
    name_or_path: str | Path,
    input_size: tuple[int, int] | None = None,
    batch: int | Sequence[int] | None = None,
) -> Plan:
    """The plan of a shipped name or of a TOML file; a shipped name wins over a file called so.

    Args:
        name_or_path: for instance ``"fasterseg"`` or ``"plans/mine.toml"``.
        input_size: (height, width) of the image in pixels, instead of the file's ``input``.
        batch: images per inference, one number or several, instead of the file's.

    Raises:
        UnknownNameError: no such plan and no such file, or a space that nobody knows.
        ImportFileError: a file that cannot be read or is not TOML.
        SpecError: a plan that makes no sense, or an input size for a plan that fixes its sizes.
    """
    path = _find(name_or_path)
    from latlut.measure.plan_file import expand_plan, parse_plan

    content = parse_plan(read_text(path), str(path))
    specs, space = expand_plan(content, str(path), input_size, batch, MAX_SPECS)
    return Plan(content.name or path.stem, specs, content.description, space)


def plan_from_ops(texts: Iterable[str], batch: int | Sequence[int] | None = None) -> Plan:
    """A plan of the op specs that the texts name; ``batch`` replaces theirs if given.

    Several batches give each op spec at each of them.

    Raises:
        SpecError: no texts, or one that is no op spec.
    """
    specs = [OpSpec.parse(text) for text in texts]
    if batch is not None:
        specs = [spec.replace(batch=count) for count in _batches(batch) for spec in specs]
    return Plan("ops", tuple(specs), "operator configurations given one by one")


def plan_of_space(
    space: Space, input_size: tuple[int, int], batch: int | Sequence[int] | None = None
) -> Plan:
    """The plan of everything that a space's networks need.

    Args:
        space: such as ``latlut.spaces.own.own_space`` gives.
        input_size: (height, width) of the image in pixels.
        batch: images per inference, one number or several; 1 if not given.

    Raises:
        SpecError: something is wrong with the space, or it has too many op specs.
    """
    from latlut.measure.plan_file import specs_of_space

    specs, described = specs_of_space(space, input_size, _batches(batch or 1), MAX_SPECS)
    return Plan(space.name, specs, space.title, described)


def _batches(batch: int | Sequence[int]) -> Sequence[int]:
    return [batch] if isinstance(batch, int) else batch


def _find(name_or_path: str | Path) -> Path:
    known = plan_names()
    if isinstance(name_or_path, str) and name_or_path in known:
        return profiles_dir() / "plans" / f"{name_or_path}.toml"
    path = Path(name_or_path)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise ImportFileError(f"cannot read the plan {path}: {error.strerror}") from error
    raise UnknownNameError(
        f"no plan and no file is called {str(name_or_path)!r}; "
        f"{did_you_mean(path.stem, known)}; or give the path of a plan's TOML file"
    )
