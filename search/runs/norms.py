"""Batch norms that see the crops of all processes, on any device.

The statistics of a batch norm in training mode are those of all processes together, and its
gradient goes through them, so that several processes compute what one with all their crops would.
PyTorch's own SyncBatchNorm needs a GPU and other modules; here ``functional.batch_norm`` is taken
over while a network runs forward, so that modules stay what they are.

Symbols: B batch of this process, C channels, P processes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from latlut.search.runs.processes import gathered, sum_of


def shared_norms(fabric: Fabric) -> AbstractContextManager[object]:
    """While networks run forward: batch norms in training mode see all processes.

    All processes have to run the same norms in the same order, backward as well.
    """
    return nullcontext() if fabric.world_size == 1 else _SharedNorms(fabric)


class _SharedNorms(TorchFunctionMode):
    def __init__(self, fabric: Fabric) -> None:
        super().__init__()
        self._fabric = fabric

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        # PyTorch hands the call on with all but its first three arguments named.
        if func is functional.batch_norm and named["training"]:
            return self._normalised(*args, **named)
        return func(*args, **named)

    def _normalised(
        self,
        image: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        mean, variance, count = _statistics(self._fabric, image)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = variance * (count / (count - 1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        result: Tensor = _Normalised.apply(
            image, weight, bias, mean, variance, count, eps, self._fabric
        )
        return result


def _axes(image: Tensor) -> list[int]:
    return [0, *range(2, image.ndim)]


def _statistics(fabric: Fabric, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and biased variance (C,) over all processes, and () the number of values."""
    values = image.detach().to(torch.promote_types(image.dtype, torch.float32))
    variance, mean = torch.var_mean(values, _axes(image), correction=0)
    own = mean.new_tensor([image.numel() // image.shape[1]])
    parts = gathered(fabric, torch.cat([mean, variance, own]))  # (P, 2 C + 1)
    means, variances, counts = parts.split([mean.numel(), mean.numel(), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variance = ((variances + (means - mean).square()) * counts).sum(0) / count
    return mean, variance, count


class _Normalised(torch.autograd.Function):
    """weight (x - mean) / sqrt(variance + eps) + bias, where mean and variance depend on x."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        fabric: Fabric,
    ) -> Tensor:
        ctx.save_for_backward(image, weight, mean, (variance + eps).rsqrt(), count)
        ctx.fabric = fabric
        return functional.batch_norm(image, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, mean, scale, count = ctx.saved_tensors
        shape = [1, -1, *[1] * (image.ndim - 2)]
        mean, scale = mean.view(shape), scale.view(shape)
        normal = (image - mean) * scale
        gradient = gradient.to(normal.dtype)
        sums = torch.stack([gradient.sum(_axes(image)), (gradient * normal).sum(_axes(image))])
        of_image = None
        if ctx.needs_input_grad[0]:
            by_one, by_normal = (sum_of(ctx.fabric, sums) / count).unbind()
            rest = gradient - by_one.view(shape) - normal * by_normal.view(shape)
            factor = scale if weight is None else scale * weight.view(shape)
            of_image = (rest * factor).to(image.dtype)
        of_bias, of_weight = sums.unbind()
        return (
            of_image,
            of_weight if ctx.needs_input_grad[1] else None,
            of_bias if ctx.needs_input_grad[2] else None,
            *[None] * 5,
        )
