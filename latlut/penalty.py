"""Differentiable latency of any layer-wise search space, from a table: E[T] = sum_l p_l . t_l.

For spaces in which a network is a chain of layers and each layer picks one of its candidates
(FBNet, ProxylessNAS and their kin), the expected latency is a sum of dot products:
``ExpectedLatency``. Where widths are searched, a layer's latency depends on the widths of both its
maps: ``ChoiceLatency``. FasterSeg's branches need more: see ``latlut.search.penalty.decoupled``.

Symbols: L layers, K candidates of a layer (K_l may differ; K is the largest).

Source: ProxylessNAS (Cai et al., ICLR 2019), Eq. 2 of Sec. 3.3; FBNet (Wu et al., CVPR 2019),
Sec. 3.3; FasterSeg, Sec. 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from latlut.errors import MissingEntryError, SpecError
from latlut.opspec import OpSpec, unique
from latlut.pricing.calibration import stored as stored_calibration
from latlut.pricing.choices import Fit, PricedChoices, PricedParts
from latlut.pricing.missing import missing_message
from latlut.spaces.choices import Choices, block
from latlut.table.table import LatencyTable


class ExpectedLatency(nn.Module):
    """Expected latency of a network whose layers each pick one candidate, in milliseconds.

        E[T] = fixed_ms + sum_l sum_k softmax(logits_l)_k * t_lk

    Where the table has a calibration, every t counts with its factor and fixed_ms has its constant.

    Args:
        layers: per layer its candidates, in the order of that layer's logits. A candidate is an
            op spec, several op specs (a block, whose entries add up), or None: an identity, which
            costs nothing. Layers may have different numbers of candidates.
        table: prices the candidates, each by its own entry; no variant stands in for one.
        fixed: op specs that every network executes (stem, head), once per mention.

    Raises:
        SpecError: no layers, or a layer without candidates.
        MissingEntryError: the table lacks entries; names all of them and the command that adds
            them.

    The table is read once, here; the module keeps no reference to it.
    """

    latency_ms: Tensor
    """(L, K) float32 buffer, 0 beyond a layer's own candidates."""
    fixed_ms: Tensor
    """() float32 buffer."""
    _is_candidate: Tensor

    def __init__(
        self,
        layers: Sequence[Sequence[OpSpec | Sequence[OpSpec] | None]],
        table: LatencyTable,
        fixed: Iterable[OpSpec] = (),
    ) -> None:
        super().__init__()
        blocks = [[block(candidate) for candidate in layer] for layer in layers]
        constant = tuple(fixed)
        wanted = unique([*(s for layer in blocks for block in layer for s in block), *constant])
        if missing := [spec for spec in wanted if spec not in table]:
            raise MissingEntryError(missing_message(table, missing))
        prices_ms = dict(zip(wanted, table.latencies_ms(wanted).tolist(), strict=True))
        constant_ms = 0.0
        if calibration := stored_calibration(table):
            prices_ms = {spec: calibration.factor(spec) * ms for spec, ms in prices_ms.items()}
            constant_ms = calibration.constant_ms
        self._register(
            [[sum(prices_ms[spec] for spec in block) for block in layer] for layer in blocks],
            constant_ms + sum(prices_ms[spec] for spec in constant),
        )

    @classmethod
    def from_latencies_ms(
        cls, layers: Sequence[Sequence[float]], fixed_ms: float = 0.0
    ) -> ExpectedLatency:
        """The same from plain numbers: per layer the latency of each candidate, milliseconds.

        Raises:
            SpecError: no layers, a layer without candidates, or a latency that is not finite.
        """
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module._register([[float(value) for value in layer] for layer in layers], float(fixed_ms))
        return module

    def _register(self, layers: list[list[float]], fixed_ms: float) -> None:
        if not layers or not all(layers):
            empty = next((number for number, layer in enumerate(layers) if not layer), None)
            where = "no layers" if empty is None else f"layer {empty} without candidates"
            raise SpecError(f"an expected latency needs candidates in every layer: {where}")
        if not all(map(math.isfinite, (fixed_ms, *(ms for layer in layers for ms in layer)))):
            raise SpecError("a latency must be a finite number of milliseconds")
        counts = [len(layer) for layer in layers]
        widest = max(counts)
        rows = [layer + [0.0] * (widest - len(layer)) for layer in layers]
        mask = [[column < count for column in range(widest)] for count in counts]
        self.counts = tuple(counts)
        self.register_buffer("latency_ms", torch.tensor(rows))
        self.register_buffer("fixed_ms", torch.tensor(fixed_ms))
        self.register_buffer("_is_candidate", torch.tensor(mask), persistent=False)

    def forward(self, logits: Tensor | Sequence[Tensor]) -> Tensor:
        """Expected latency, differentiable in ``logits``.

        Args:
            logits: unnormalised choice weights: one (K_l,) tensor per layer, or all in a tensor
                (L, K), whose entries beyond a layer's own candidates are not read.

        Returns:
            () milliseconds, of the buffers' dtype.

        Raises:
            SpecError: another number of layers or candidates than the module has.
        """
        return self.fixed_ms + (self.probabilities(logits) * self.latency_ms).sum()

    def probabilities(self, logits: Tensor | Sequence[Tensor]) -> Tensor:
        """(L, K) softmax of each layer's logits; 0 beyond a layer's own candidates."""
        padded = logits if isinstance(logits, Tensor) else self._padded(logits)
        if padded.shape != self.latency_ms.shape:
            raise SpecError(
                f"expected logits of shape {tuple(self.latency_ms.shape)}, "
                f"received {tuple(padded.shape)}"
            )
        weights = padded.masked_fill(~self._is_candidate, -math.inf)
        return weights.to(self.latency_ms.dtype).softmax(-1)

    def fit(
        self, logits: Tensor | Sequence[Tensor], target_ms: float, tolerance: float = 0.02
    ) -> Fit:
        """The likeliest network near a target; its ``picks`` are by the number of the layer, "0".

        See ``pricing.choices.PricedParts.fit``.
        """
        logs = self.probabilities(logits).detach().double().log().cpu().numpy()
        names = [str(number) for number in range(len(self.counts))]
        rows = self.latency_ms.double().cpu().numpy()
        counts = dict(zip(names, self.counts, strict=True))
        parts = [((name,), rows[int(name), :count]) for name, count in counts.items()]
        priced = PricedParts(counts, parts, float(self.fixed_ms))
        return priced.fit(
            {name: logs[int(name), :count] for name, count in counts.items()}, target_ms, tolerance
        )

    def _padded(self, logits: Sequence[Tensor]) -> Tensor:
        received = [tuple(layer.shape) for layer in logits]
        expected = [(count,) for count in self.counts]
        if received != expected:
            raise SpecError(
                f"expected one vector of logits per layer, of lengths {list(self.counts)}; "
                f"received shapes {received}"
            )
        return nn.utils.rnn.pad_sequence(list(logits), batch_first=True)


class ChoiceLatency(nn.Module):
    """Expected latency of a space by its choices, pairs of widths included, in milliseconds.

        E[T] = fixed_ms + sum over parts, combinations of p_1(k_1) p_2(k_2) ... t[k_1, k_2, ...]

    with p_v the softmax of choice v's logits. A part that depends on the width before and after a
    layer is the pairwise term sum_ij gamma_i gamma'_j t_ij. Choices are independent of each other,
    so that this is the mean over networks drawn from them, exactly.

    Args:
        choices: of the space.
        table: prices every combination; see ``pricing.choices.PricedChoices``.

    Raises:
        MissingEntryError: the table lacks entries; names them and the command that adds them.

    Source: FasterSeg, Sec. 3.2 and 3.3, for a chain; ``DecoupledLatency`` has its branches, too.
    """

    fixed_ms: Tensor
    """() float32 buffer: the constant of the table's calibration."""

    def __init__(self, choices: Choices, table: LatencyTable) -> None:
        super().__init__()
        self.prices = PricedChoices(choices, table)
        self.register_buffer("fixed_ms", torch.tensor(self.prices.fixed_ms))
        for number, (_, ms) in enumerate(self.prices.parts):
            self.register_buffer(f"part_{number}", torch.tensor(ms, dtype=torch.float32))

    def new_logits(self) -> dict[str, nn.Parameter]:
        """Name of each choice -> (K_v,) zeros, to be trained."""
        return {name: nn.Parameter(torch.zeros(k)) for name, k in self.prices.counts.items()}

    def forward(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Expected latency, differentiable in ``logits``.

        Args:
            logits: name of each choice -> (K_v,) unnormalised weights.

        Returns:
            () milliseconds.

        Raises:
            SpecError: a choice without logits, or of another number.
        """
        shares = {}
        for name, count in self.prices.counts.items():
            row = logits.get(name)
            if row is None or row.shape != (count,):
                found = "none" if row is None else f"shape {tuple(row.shape)}"
                raise SpecError(f"the choice {name!r} needs {count} logits, received {found}")
            shares[name] = row.softmax(-1)
        total: Tensor = self.fixed_ms
        for number, (names, _) in enumerate(self.prices.parts):
            ms: Tensor = getattr(self, f"part_{number}")
            for name in reversed(names):
                ms = ms @ shares[name].to(ms.dtype)
            total = total + ms
        return total

    def fit(self, logits: Mapping[str, Tensor], target_ms: float, tolerance: float = 0.02) -> Fit:
        """The likeliest network near a target; see ``PricedChoices.fit``."""
        rows = {name: logits[name].detach().cpu().numpy() for name in self.prices.counts}
        return self.prices.fit(rows, target_ms, tolerance)
