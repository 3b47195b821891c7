"""Operators built from their op specs: checked, with seeded weights; and what they cost."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod

import torch
from torch import Tensor, nn

from latlut.errors import LatlutError, OperatorError
from latlut.operators.blocks import InvertedResidual
from latlut.operators.modules import ConvNorm
from latlut.operators.registry import check
from latlut.opspec import OpSpec

#: Modules whose source shapes graphs of any operator.
_SHAPING = (__name__, ConvNorm.__module__, InvertedResidual.__module__)


def build(spec: OpSpec, seed: int = 0) -> nn.Module:
    """The operator as a plain module in evaluation mode, with seeded Kaiming weights.

    Takes (B, C, H, W) per input of ``spec``, returns (B, out_channels, *spec.out_size), float32.

    Raises:
        UnknownNameError, SpecError: see ``check``.
        OperatorError: the builder or its module raises, or gives another shape.
    """
    check(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _built(spec)
    cost(spec)  # which refuses a module that gives another shape
    initialise(module, seed)
    return module.eval()


def _built(spec: OpSpec) -> nn.Module:
    """What the operator's builder gives; whatever it raises becomes OperatorError."""
    try:
        module = check(spec).builder(spec)
    except LatlutError:
        raise
    except (Exception, SystemExit) as error:
        raise OperatorError(
            f"{spec.key}: its builder raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        found = type(module).__name__
        raise OperatorError(f"{spec.key}: the builder returned {found}, not a Module")
    return module


def _run_on_meta(spec: OpSpec) -> tuple[nn.Module, list[Tensor], int]:
    """Run the operator without data: (module, inputs, multiply-accumulates).

    Raises:
        OperatorError: it cannot be run, or gives another shape than the op spec says.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        module = _built(spec).eval()
        maps = [torch.empty(spec.batch, *shape) for shape in spec.inputs]
        try:
            with FlopCounterMode(display=False) as counter:
                result = module(*maps)
        except (Exception, SystemExit) as error:  # whatever somebody's module raises
            reason = f"{type(error).__name__}: {error}"
            raise OperatorError(f"{spec.key}: cannot be run: {reason}") from error
    if not isinstance(result, Tensor):
        raise OperatorError(f"{spec.key}: gives {type(result).__name__}, expected one tensor")
    found = tuple(result.shape)
    if found != (spec.batch, *spec.output):
        raise OperatorError(f"{spec.key}: gives {found}, expected {(spec.batch, *spec.output)}")
    return module, maps, counter.get_total_flops() // 2


def initialise(module: nn.Module, seed: int) -> None:
    """Fill weights from a seeded generator: Kaiming (fan in) for convolutions, so that maps of
    deep random networks stay in the normal float range (denormals would slow a CPU down)."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            fan_in = part.weight[0].numel()
            if isinstance(
                part, nn.ConvTranspose2d
            ):  # (in, out / groups, kh, kw), spread by strides
                fan_in = max(1, part.weight[:, 0].numel() // (part.groups * prod(part.stride)))
            with torch.no_grad():
                part.weight.uniform_(-1, 1, generator=generator).mul_((6.0 / fan_in) ** 0.5)
                if part.bias is not None:
                    part.bias.uniform_(-0.1, 0.1, generator=generator)


def source_digest(specs: Sequence[OpSpec], modules: Sequence[str] = ()) -> str:
    """Hash of the source that shapes these operators' graphs; part of a cached graph's name.

    It covers the files of their builders, of the plain modules, and of what builds and seeds them.

    Args:
        specs: the operators.
        modules: names of imported Python modules whose files count, too.
    """
    names = {check(spec).builder.__module__ for spec in specs}
    digest = hashlib.sha256()
    for name in sorted({*names, *modules, *_SHAPING}):
        digest.update(_source(name))
    return digest.hexdigest()


@cache
def _source(module_name: str) -> bytes:
    return inspect.getsource(sys.modules[module_name]).encode()


@dataclass(frozen=True)
class Cost:
    """What an operator must compute and move at least, for the roofline beside its latency."""

    macs: int
    params: int
    moved_bytes: int  # inputs, weights and outputs once each, float32


def cost(spec: OpSpec) -> Cost:
    """Multiply-accumulates, parameters and least memory traffic of one inference.

    Raises:
        UnknownNameError, SpecError: see ``check``.
        OperatorError: see ``build``.
    """
    operator = check(spec)
    if operator.graphs is not None:
        found: Cost = operator.graphs.cost(spec)
        return found
    return _cost(spec, operator.builder)


@lru_cache(maxsize=1 << 17)
def _cost(spec: OpSpec, builder: Callable[[OpSpec], nn.Module]) -> Cost:
    """The cost by this builder: an operator can be registered anew under the same name."""
    module, maps, macs = _run_on_meta(spec)
    weights = sum(parameter.numel() for parameter in module.parameters())
    elements = sum(item.numel() for item in maps) + spec.batch * prod(spec.output)
    return Cost(macs, weights, 4 * (elements + weights))
