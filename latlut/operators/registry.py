"""The registry that finds operators by name, and knows what each kind is.

It is open: anyone can add an operator. Nothing here imports torch; a builder is called only when
its operator is built (``operators.building``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from latlut.errors import SpecError, UnknownNameError, did_you_mean
from latlut.opspec import OpSpec

if TYPE_CHECKING:
    from torch import nn

Builder: TypeAlias = "Callable[[OpSpec], nn.Module]"


@dataclass(frozen=True)
class Option:
    """An option that an operator understands; ``choices`` are the words that it may be.

    What it means where it is left out is the builder's to say (``spec.option(name)`` is None
    then, or its value in ``latlut.opspec.OPTION_DEFAULTS``).
    """

    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """Op specs whose latencies, added up, stand for one that a table does not hold."""

    specs: tuple[OpSpec, ...]
    """What to look up, each once."""
    reason: str
    """How this differs from the op spec asked for, as a clause for a message."""
    may_lack: tuple[OpSpec, ...] = ()
    """Those of ``specs`` that a table may lack without making the others useless; they are small,
    and the caller names them as unpriced."""


@dataclass(frozen=True)
class Graphs:
    """How op specs of a kind are run that is no PyTorch module; each takes the op spec."""

    workload: Callable[[OpSpec], Any]
    """Gives what engines run, a ``workloads.Workload``."""
    context: Callable[[OpSpec], Any]
    """Gives the two graphs of an ``in_context.Context``."""
    cost: Callable[[OpSpec], Any]
    """Gives what it computes and moves, a ``building.Cost``."""


@dataclass(frozen=True)
class Operator:
    """A registered operator: how to build it, and what ``register`` was told of its kind."""

    kind: str
    builder: Builder
    options: Mapping[str, Option]
    min_inputs: int
    max_inputs: int
    is_last: bool
    alternatives: tuple[Callable[[OpSpec], Alternative | None], ...]
    graphs: Graphs | None = None


_REGISTRY: dict[str, Operator] = {}


def register(
    kind: str,
    *,
    options: Mapping[str, Option] | None = None,
    min_inputs: int = 1,
    max_inputs: int | None = None,
    is_last: bool = False,
    alternatives: Sequence[Callable[[OpSpec], Alternative | None]] = (),
    graphs: Graphs | None = None,
) -> Callable[[Builder], Builder]:
    """Decorator that makes ``builder(spec) -> nn.Module`` known under ``kind``.

    The module's ``forward`` takes one (B, C, H, W) float tensor per input of the op spec and
    returns (B, out_channels, *spec.out_size); ``build`` checks it.

    Args:
        kind: lower-case word, the operator's name in op specs.
        options: the options that change its graph; an op spec with any other is refused.
        min_inputs: fewest input maps.
        max_inputs: most input maps; ``min_inputs`` if not given.
        is_last: its output is the network's: logits enlarged to the image's size.
        alternatives: in which other forms a table may hold it, the closest first: functions that
            give the alternative to an op spec, None where there is none.
        graphs: of a kind that is no PyTorch module; the builder raises then.

    Raises:
        SpecError: the name is taken by another builder.
    """

    def add(builder: Builder) -> Builder:
        known = _REGISTRY.get(kind)
        source = (builder.__module__, builder.__qualname__)
        if known and (known.builder.__module__, known.builder.__qualname__) != source:
            raise SpecError(
                f"operator {kind!r} is already registered by {known.builder.__module__}"
            )
        most = max_inputs or min_inputs
        _REGISTRY[kind] = Operator(
            kind, builder, dict(options or {}), min_inputs, most, is_last, tuple(alternatives),
            graphs,
        )  # fmt: skip
        return builder

    return add


def operator_kinds() -> list[str]:
    """Names of all registered operators."""
    return sorted(_REGISTRY)


def option_names() -> list[str]:
    """Names of all options that any registered operator understands."""
    return sorted({name for operator in _REGISTRY.values() for name in operator.options})


def alternatives(spec: OpSpec) -> tuple[Alternative, ...]:
    """What may stand for ``spec`` where a table lacks it, the closest first; empty for nothing.

    They are one step away. Two steps (another interpolation, then the parts) come from asking for
    the alternatives of the alternatives; interpolation goes both ways, so keep the specs seen.
    """
    operator = _REGISTRY.get(spec.kind)
    found = [alternative(spec) for alternative in operator.alternatives] if operator else []
    return tuple(item for item in found if item is not None)


def check(spec: OpSpec) -> Operator:
    """The operator that ``spec`` names, after checking inputs and options against it.

    Raises:
        UnknownNameError: no such operator.
        SpecError: the wrong number of inputs, or an option or choice it does not have.
    """
    operator = _REGISTRY.get(spec.kind)
    if operator is None:
        raise UnknownNameError(
            f"unknown operator {spec.kind!r} in {spec.key!r}: "
            f"{did_you_mean(spec.kind, operator_kinds())}"
        )
    if not operator.min_inputs <= len(spec.inputs) <= operator.max_inputs:
        wanted = f"{operator.min_inputs} to {operator.max_inputs}"
        raise SpecError(f"{spec.key}: {spec.kind} takes {wanted} inputs, got {len(spec.inputs)}")
    check_options(spec)
    return operator


def check_options(spec: OpSpec) -> None:
    """Refuse options that the operator does not have; of an operator that nobody registered any
    may be right.

    Raises:
        SpecError: names the option, and those that there are.
    """
    operator = _REGISTRY.get(spec.kind)
    if operator is None:
        return
    for name, value in spec.options:
        option = operator.options.get(name)
        if option is None:
            known = sorted(operator.options)
            hint = did_you_mean(name, known) if known else "it has none"
            raise SpecError(f"{spec.key}: {spec.kind} has no option {name!r}; {hint}")
        if option.choices and value not in option.choices:
            raise SpecError(
                f"{spec.key}: {name} is one of {', '.join(option.choices)}, received {value!r}"
            )
