"""DecoupledLatency: the latency penalty of a FasterSeg search, exact and differentiable.

    penalty = w1 E[T](alpha | uniform beta, widest gamma)
            + w2 E[T](beta  | uniform alpha, widest gamma)
            + w3 E[T](gamma | uniform alpha, uniform beta)

An expectation is the mean estimate of the networks that (alpha, beta, gamma) describe: stem,
each branch's cells, once where branches share them, refinements, fusion, head and upsampling of
the logits; averaged over the candidate sets of branches. Operators belong to cells and widths to
maps, both shared by all branches; each branch takes its own way, independently.

What is exact: every cell of a branch's path has its own operator and its own widths,
sum_k,i,j alpha_k gamma_i gamma'_j t[k, i, j]. In a space without skip that is the mean of
``latlut.estimate`` over sampled networks, to rounding. With skip it is the mean in which a
stride-1 skip costs 0 (or, with ``skip_price="searched"``, its 1x1 convolution), but the cell
after it still reads the width of the map that the skip would have written. In a derived network
the skip is gone, and that cell reads the width of the map before; and a last cell or a down cell
that chose skip is there with another operator. ``docs/penalty.md`` says how much that makes.

Source: FasterSeg, Sec. 3.2, Eq. 3 and Appendix C. The paper samples gamma by Gumbel-softmax, which
``sampling="gumbel"`` does too; the default is the exact expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latlut.errors import LatlutError, SpecError
from latlut.search.penalty.prices import SkipPrice, SpacePrices, layout_for, read_prices
from latlut.search.penalty.sensitivity import balanced_weights, sensitivity
from latlut.search.penalty.terms import Evaluation, ExpectedTerms
from latlut.search.penalty.weights import PAPER_WEIGHTS, checked_weights
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import FasterSegSpace
from latlut.table.table import LatencyTable

Sampling = Literal["exact", "gumbel"]


class LatencyTerms(NamedTuple):
    """What the latency module gives back, milliseconds, in alpha's dtype and on its device.

    ``penalty_ms`` () is what to add to a loss; ``terms_ms`` (3,) are E[T] when only alpha, only
    beta, only gamma vary; ``expected_ms`` () is E[T] of all three as they are.
    """

    penalty_ms: Tensor
    terms_ms: Tensor
    expected_ms: Tensor


class DecoupledLatency(nn.Module):
    """The decoupled latency of one relaxed architecture by one table.

    Args:
        space: what is searched.
        table: prices it, by variants of an op spec too (see ``substituted``). It is read here
            once, and not kept.
        weights: w1, w2, w3 of operators, downsampling and widths: three finite numbers, none
            negative, with sum 1; or "auto": those that balance the three by ``sensitivity``.
        end_width: of stem and head, in twelfths.
        widths: gamma's columns, in twelfths; those of ``space`` if not given.
        input_size: (height, width) of the image in pixels; the table's own if not given. It is
            independent of what the search trains on.
        skip_price: of a stride-1 skip: "derived", 0, or "searched", its 1x1 convolution.
        sampling: "exact", or "gumbel": one width per map is drawn by Gumbel-softmax (temperature
            1, straight-through) in each call, and the terms that gamma enters are those of the
            drawn widths. Their mean over calls is the exact value.
        seed: of that drawing. The generator's state is part of ``state_dict``.
        batch: images per inference; the table's own if neither it nor ``input_size`` is given.
        leave_out_fixed: leave out what every network executes alike (stem, fusion, head, logits
            upsampling) where the table cannot price it; ``unpriced`` then names it.

    Attributes:
        weights: the three in use. prices: the table's prices with their origin. terms: the
            expectations on NumPy arrays.

    Raises:
        SpecError: weights, widths, skip price or sampling that are none.
        MissingEntryError: op specs that the table cannot price: how many, the first ten, and the
            command that adds them.
        TableError: no ``input_size`` given, and the table was not made from a search space.
        LatlutError: ``weights="auto"`` and a factor whose gap is not beyond its own interval.

    The numbers are computed on the CPU in double precision; parameters on another device are
    copied there and the results and gradients back, which waits for that device.
    """

    def __init__(
        self,
        space: FasterSegSpace,
        table: LatencyTable,
        weights: Sequence[float] | Literal["auto"] = PAPER_WEIGHTS,
        end_width: int = 8,
        widths: tuple[int, ...] | None = None,
        input_size: tuple[int, int] | None = None,
        skip_price: SkipPrice = "derived",
        sampling: Sampling = "exact",
        seed: int = 0,
        batch: int | None = None,
        leave_out_fixed: bool = False,
    ) -> None:
        super().__init__()
        if sampling not in ("exact", "gumbel"):
            raise SpecError(f'sampling is "exact" or "gumbel", received {sampling!r}')
        if not isinstance(weights, str):
            weights = checked_weights(weights)
        elif weights != "auto":
            raise SpecError(f'weights are three numbers or "auto", received {weights!r}')
        layout = layout_for(space, table, widths, end_width, input_size, batch, skip_price)
        self.prices: SpacePrices = read_prices(layout, table, leave_out_fixed)
        self.terms = ExpectedTerms(self.prices)
        if isinstance(weights, str):
            weights = balanced_weights(sensitivity(self.terms, table))
        self.weights: tuple[float, float, float] = weights
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(seed)
        self._two_way = np.flatnonzero(self.terms.uniform_beta == 0.5)
        self._one_way_beta = np.where(self.terms.uniform_beta == 0.5, 0.0, self.terms.uniform_beta)

    def forward(self, relaxed: RelaxedArchitecture) -> LatencyTerms:
        """Penalty, its terms, and the expected latency, differentiable once.

        Args:
            relaxed: of the same space, widths and end width as this module.

        Raises:
            SpecError: it is of another space, of other widths or of another end width.
            LatlutError: a second derivative is asked for (in ``backward``).
        """
        layout = self.prices.layout
        ours = (layout.space, layout.widths, layout.end_width)
        theirs = (relaxed.space, relaxed.widths, relaxed.end_width)
        for name, mine, other in zip(("space", "widths", "end width"), ours, theirs, strict=True):
            if mine != other:
                raise SpecError(f"this latency is of {name} {mine}, the architecture of {other}")
        noise = None
        if self.sampling == "gumbel":
            uniform = torch.rand(relaxed.gamma.shape, generator=self._generator, dtype=torch.double)
            noise = -np.log(-np.log(uniform.numpy().clip(1e-300, 1.0 - 1e-16)))
        outputs = _Expectation.apply(relaxed.alpha, relaxed.beta, relaxed.gamma, self, noise)
        return LatencyTerms(*outputs)

    def get_extra_state(self) -> Tensor:
        """The state of the generator that draws widths."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where ``get_extra_state`` was called."""
        self._generator.set_state(state.cpu())


class _Expectation(torch.autograd.Function):
    """Logits to (penalty, terms, expected), softmax included: one node instead of dozens."""

    @staticmethod
    def forward(
        ctx: Any,
        alpha: Tensor,
        beta: Tensor,
        gamma: Tensor,
        latency: DecoupledLatency,
        noise: np.ndarray | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        operators = _softmax(_array(alpha))
        ways = _array(beta)
        with np.errstate(over="ignore"):  # exp overflows to inf, and the probability to 0
            finer = 1.0 / (1.0 + np.exp(ways[:, 1] - ways[:, 0]))
        everywhere = latency._one_way_beta.copy()
        everywhere[latency._two_way] = finer
        logits = _array(gamma)
        widths = _softmax(logits if noise is None else logits + noise)
        drawn = widths
        if noise is not None:
            drawn = np.zeros_like(widths)
            drawn[np.arange(len(widths)), widths.argmax(1)] = 1.0
        found = latency.terms.evaluate(operators, everywhere, drawn)
        ctx.latency, ctx.found, ctx.finer, ctx.soft_widths = latency, found, finer, widths
        ctx.like = alpha, beta, gamma
        penalty = sum(w * t for w, t in zip(latency.weights, found.terms_ms.tolist(), strict=True))
        values = np.array([penalty, *found.terms_ms.tolist(), found.expected_ms])
        outputs = torch.from_numpy(values).to(alpha.device, alpha.dtype)
        return outputs[0], outputs[1:4], outputs[4]

    @staticmethod
    def backward(
        ctx: Any, penalty: Tensor | None, terms: Tensor | None, expected: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # autograd enables it for create_graph=True alone
            raise LatlutError(
                "the latency's gradient is given in closed form and has no derivative of its own: "
                "differentiate it once, without create_graph=True"
            )
        latency: DecoupledLatency = ctx.latency
        found: Evaluation = ctx.found
        weight = np.zeros(3)
        if penalty is not None:
            weight += penalty.item() * np.array(latency.weights)
        if terms is not None:
            weight += _array(terms)
        of_expected = 0.0 if expected is None else expected.item()
        got = latency.terms.gradient(found, weight, of_expected)
        by_beta = np.empty((len(ctx.finer), 2))
        by_beta[:, 0] = got.beta[latency._two_way] * ctx.finer * (1.0 - ctx.finer)
        by_beta[:, 1] = -by_beta[:, 0]
        gradients = (
            _softmax_gradient(found.alpha, got.alpha),
            by_beta,
            _softmax_gradient(ctx.soft_widths, got.gamma),
        )
        wanted = zip(ctx.like, gradients, ctx.needs_input_grad, strict=False)
        given = [
            torch.from_numpy(value).to(like.device, like.dtype) if is_needed else None
            for like, value, is_needed in wanted
        ]
        return (*given, None, None)


def _array(tensor: Tensor) -> np.ndarray:
    """The values in double precision; shared memory where they are that on the CPU already."""
    values = tensor.detach().double()
    return (values if values.device.type == "cpu" else values.cpu()).numpy()


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers: np.ndarray = np.exp(logits - np.maximum.reduce(logits, 1, keepdims=True))
    powers /= np.add.reduce(powers, 1, keepdims=True)
    return powers


def _softmax_gradient(probabilities: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    weighted = probabilities * gradient
    weighted -= probabilities * np.add.reduce(weighted, 1, keepdims=True)
    return weighted
