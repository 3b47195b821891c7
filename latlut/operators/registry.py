"""The registry that finds operators by name. It is open: anyone can add an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from latlut.errors import SpecError, UnknownNameError, did_you_mean
from latlut.opspec import OpSpec


@dataclass(frozen=True)
class Option:
    """An option that an operator understands; ``choices`` are the words that it may be.

    What it means where it is left out is the builder's to say (``spec.option(name)`` is None
    then, or its value in ``latlut.opspec.OPTION_DEFAULTS``).
    """

    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A registered operator: how to build it and what its op specs may say."""

    kind: str
    builder: Callable[[OpSpec], nn.Module]
    options: dict[str, Option] = field(default_factory=dict)
    min_inputs: int = 1
    max_inputs: int = 1


_REGISTRY: dict[str, Operator] = {}


def register(
    kind: str,
    *,
    options: dict[str, Option] | None = None,
    min_inputs: int = 1,
    max_inputs: int | None = None,
) -> Callable[[Callable[[OpSpec], nn.Module]], Callable[[OpSpec], nn.Module]]:
    """Decorator that makes ``builder(spec) -> nn.Module`` known under ``kind``.

    The module's ``forward`` takes one (B, C, H, W) float tensor per input of the op spec and
    returns (B, out_channels, *spec.out_size); ``build`` checks it.

    Args:
        kind: lower-case word, the operator's name in op specs.
        options: the options that change its graph; an op spec with any other is refused.
        min_inputs: fewest input maps.
        max_inputs: most input maps; ``min_inputs`` if not given.

    Raises:
        SpecError: the name is taken by another builder.
    """

    def add(builder: Callable[[OpSpec], nn.Module]) -> Callable[[OpSpec], nn.Module]:
        known = _REGISTRY.get(kind)
        source = (builder.__module__, builder.__qualname__)
        if known and (known.builder.__module__, known.builder.__qualname__) != source:
            raise SpecError(
                f"operator {kind!r} is already registered by {known.builder.__module__}"
            )
        _REGISTRY[kind] = Operator(
            kind, builder, dict(options or {}), min_inputs, max_inputs or min_inputs
        )
        return builder

    return add


def operator_kinds() -> list[str]:
    """Names of all registered operators."""
    return sorted(_REGISTRY)


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
    for name, value in spec.options:
        option = operator.options.get(name)
        if option is None:
            known = ", ".join(sorted(operator.options)) or "none"
            raise SpecError(f"{spec.key}: {spec.kind} has no option {name!r}; it has: {known}")
        if option.choices and value not in option.choices:
            raise SpecError(
                f"{spec.key}: {name} is one of {', '.join(option.choices)}, received {value!r}"
            )
    return operator
