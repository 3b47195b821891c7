"""A calibration: what a network takes beyond the sum of its entries, as a linear model of them.

    T = b0 + sum_e (1 + a_kind(e) + c_map(e) + d_kind,map(e)) t_e                      (1)

over the executed operators e with entries t_e: an operator costs more or less inside a network
than alone, by its kind (what the engine fuses with it, what its neighbours leave in the cache), by
the size of the map that it writes (whether maps fit in a cache) and by both together; b0 is what
every network costs whatever is in it. The model is linear in the entries, so a search can use it as
it uses them. ``validation.fitting`` fits it, ``table.calibrations`` keeps it; here it is applied.

Pieces of ONNX files have maps of any size, so that c and d are left out for them, and two effects
more:

    + sum_e (f + g w_e)

f is milliseconds of an execution, as each entry holds the start of a run and a network has one; g
milliseconds per megabyte of weights w_e, which a piece that runs again and again finds in a cache
and a network may have to read from memory.

Symbols: P effects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from latlut.errors import CalibrationError
from latlut.operators.subgraph_store import digest_of, known
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.stats.quantiles import student_95
from latlut.table import calibrations
from latlut.table.calibrations import UsedNetwork
from latlut.table.table import LatencyTable

#: Raised whenever the model changes so much that a stored one can no longer be applied.
CALIBRATION_VERSION = 1

#: The effect that is no operator's: b0.
NETWORK = "network"
#: f and g, of pieces of ONNX files alone.
CALL, WEIGHTS = "call", "weights"
#: Effects in milliseconds (per execution, per megabyte); the others are fractions of entries.
ADDED = (NETWORK, CALL, WEIGHTS)
#: A network takes at least this part of its plain sum.
LEAST_PART = 0.1


def kind_effect(spec: OpSpec) -> str:
    """Name of the effect of the op spec's kind."""
    return f"kind {spec.kind}"


def map_size(spec: OpSpec) -> str:
    """Size of the map that the op spec writes, ``16x32``."""
    _, height, width = spec.output
    return f"{height}x{width}"


def spec_effects(spec: OpSpec) -> tuple[str, ...]:
    """Names of the effects that an op spec's entry has in a network: a, c and d of (1)."""
    if digest_of(spec) is not None:
        return (kind_effect(spec),)
    size = map_size(spec)
    return kind_effect(spec), f"map {size}", f"{spec.kind} at {size}"


def added_amounts(spec: OpSpec) -> dict[str, float]:
    """What an execution of an op spec counts in the effects f and g; empty of an operator."""
    if digest_of(spec) is None:
        return {}
    piece = known(spec)
    return {CALL: 1.0, WEIGHTS: piece.weight_bytes / 1e6 if piece else 0.0}


@dataclass(frozen=True)
class Calibration:
    """Equation (1) with what is known of its error. Lists are of length P, in one order."""

    effects: tuple[str, ...]
    """Names: ``kind conv``, ``map 16x32`` and ``conv at 16x32`` are fractions of an entry, the rest
    see ``ADDED``."""
    values: tuple[float, ...]
    """A, c, d, f, g and b0."""
    covariance: tuple[tuple[float, ...], ...]
    """(P, P) of ``values``, posterior."""
    prior_sd: tuple[float, ...]
    """Of ``values`` before any network was seen."""
    low_ms: tuple[float, ...]
    high_ms: tuple[float, ...]
    """``low_ms``, ``high_ms``: range of each effect's feature over the fitted networks, see
    ``features_ms``."""
    residual_sd: float
    """Relative standard deviation of a measured network around the model."""
    entries_sd: float
    """Relative standard deviation that the entries' own errors gave to the fitted networks, root
    mean square; ``residual_sd`` contains it."""
    dof: float
    """Degrees of freedom of ``residual_sd``."""
    networks: int
    """How many networks it was fitted on."""
    entries_digest: str = ""
    """Of the entries that it was fitted with."""
    forced: tuple[str, ...] = ()
    """Why it would have been refused without ``--force`` (``validation.fitting.doubts``); empty
    where it was not forced. Kept with the scores, not in the model."""

    @cached_property
    def _values(self) -> dict[str, float]:
        return dict(zip(self.effects, self.values, strict=True))

    @property
    def constant_ms(self) -> float:
        """b0, milliseconds."""
        return self._values.get(NETWORK, 0.0)

    @property
    def forced_text(self) -> str:
        """That it was forced, and on what, for people; empty where it was not."""
        if not self.forced:
            return ""
        return "the calibration was fitted with --force: " + "; ".join(self.forced)

    def added_ms(self, features: np.ndarray) -> float:
        """What a network takes beside its entries: b0 and all f and g, milliseconds.

        Args:
            features: (P,) as ``features_ms`` gives.
        """
        pairs = zip(self.effects, features, strict=True)
        return sum(self._values[name] * float(amount) for name, amount in pairs if name in ADDED)

    def covers(self, spec: OpSpec) -> bool:
        """Whether the fitted networks say anything of this op spec's kind."""
        return kind_effect(spec) in self._values

    def factor(self, spec: OpSpec) -> float:
        """What the op spec's entry is multiplied by: 1 where nothing is known of its kind."""
        if not self.covers(spec):
            return 1.0
        return 1.0 + sum(self._values.get(name, 0.0) for name in spec_effects(spec))

    def factor_half_width(self, spec: OpSpec) -> float:
        """Half-width of the factor's 95% interval; 0 where nothing is known of the kind."""
        if not self.covers(spec):
            return 0.0
        own = spec_effects(spec)
        chosen = np.array([float(name in own) for name in self.effects])
        return 1.96 * float(np.sqrt(chosen @ np.array(self.covariance) @ chosen))

    def outside(self, features: np.ndarray) -> dict[str, tuple[float, float, float]]:
        """Effects whose sum is not within the fitted range: name -> (sum, low, high), ms."""
        return {
            name: (float(value), low, high)
            for name, value, low, high in zip(
                self.effects, features, self.low_ms, self.high_ms, strict=True
            )
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9)
        }

    def half_width_ms(self, features: np.ndarray, plain_ms: float, entries_sd_ms: float) -> float:
        """Half-width of the 95% interval of a network's measured latency, milliseconds.

            variance = (residual_sd * plain)^2 + x' covariance x + x_out' prior x_out + excess^2

        where x are the features and x_out what of them lies outside the fitted range: there the
        effects may go on otherwise, and no more is known of them than before the fit. The
        residuals of the fitted networks contain the errors of their entries; excess^2 is what
        this network's entries add to that, where they are known less well.

        Args:
            features: (P,) as ``features_ms`` gives.
            plain_ms: the plain sum of the network's entries.
            entries_sd_ms: standard deviation that the entries' own errors give to the network.
        """
        variance = (
            (self.residual_sd * plain_ms) ** 2
            + self._effects_variance(features, self._beyond(features))
            + max(0.0, entries_sd_ms**2 - (self.entries_sd * plain_ms) ** 2)
        )
        return float(student_95(self.dof)) * float(np.sqrt(variance))

    def gap_half_width_ms(self, low: np.ndarray, high: np.ndarray) -> float:
        """Half-width of the 95% interval that the effects give a difference of two expectations.

            variance = x' covariance x + x_out' prior x_out,  x = high - low

        with x_out the difference of what lies outside the fitted range. How far single networks
        lie from the model, and the entries' own errors, are not in it.

        Args:
            low: (P,) features of the one, as ``features_ms`` gives.
            high: (P,) features of the other.
        """
        variance = self._effects_variance(high - low, self._beyond(high) - self._beyond(low))
        return float(student_95(self.dof)) * float(np.sqrt(variance))

    def _beyond(self, features: np.ndarray) -> np.ndarray:
        """(P,) how far features lie above the fitted range, negative below it, milliseconds."""
        low, high = np.array(self.low_ms), np.array(self.high_ms)
        return np.asarray(np.maximum(0.0, features - high) - np.maximum(0.0, low - features))

    def _effects_variance(self, features: np.ndarray, beyond: np.ndarray) -> float:
        inside = float(features @ np.array(self.covariance) @ features)
        return inside + float(((beyond * np.array(self.prior_sd)) ** 2).sum())

    def widened(self, factor: float) -> Calibration:
        """The same with all standard deviations multiplied by ``factor``."""
        return replace(
            self,
            covariance=tuple(tuple(v * factor**2 for v in row) for row in self.covariance),
            residual_sd=self.residual_sd * factor,
        )


def features_ms(effects: Sequence[str], terms: Iterable[tuple[OpSpec, float, float]]) -> np.ndarray:
    """Sums of entries by effect; an op spec whose kind has no effect is in none.

    Args:
        effects: P names.
        terms: (op spec, milliseconds of all its executions, how many these are).

    Returns:
        (P,) milliseconds; executions for ``call``, megabytes for ``weights``, 1 for ``network``.
    """
    column = {name: index for index, name in enumerate(effects)}
    found = np.zeros(len(effects))
    if NETWORK in column:
        found[column[NETWORK]] = 1.0
    for spec, ms, count in terms:
        amounts = {name: count * amount for name, amount in added_amounts(spec).items()}
        if kind_effect(spec) in column:
            amounts |= dict.fromkeys(spec_effects(spec), ms)
        for name, amount in amounts.items():
            if name in column:
                found[column[name]] += amount
    return found


def entries_digest(table: LatencyTable) -> str:
    """A hash of all entries' latencies."""
    lines = sorted(f"{entry.key} {entry.latency_ms:.9g}" for entry in table)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def store(
    table: LatencyTable,
    calibration: Calibration,
    scores: Mapping[str, object],
    seed: int,
    used: Iterable[UsedNetwork],
) -> int:
    """Keep a calibration in the table's file, in force from now on; its id.

    Args:
        table: writable.
        calibration: what to keep; why it was forced stands with the scores.
        scores: JSON-able, how well it does.
        seed: of the choice of networks.
        used: the networks that it was fitted on, and those that judged it.
    """
    model = asdict(calibration)
    del model["forced"]  # versions that do not know it can read the model
    forced = {"forced": list(calibration.forced)} if calibration.forced else {}
    return calibrations.store(
        table,
        used,
        version=CALIBRATION_VERSION,
        networks=calibration.networks,
        seed=seed,
        model=json.dumps(model),
        scores=json.dumps({**scores, **forced}),
    )


def stored(table: LatencyTable) -> Calibration | None:
    """The table's calibration, the latest one; None where it has none.

    Raises:
        CalibrationError: it was made by a version whose model this one cannot apply.
    """
    found = calibrations.latest(table)
    if found is None:
        return None
    try:
        is_known = found.version == CALIBRATION_VERSION
        model = _from_json(found.model, found.forced) if is_known else None
    except (TypeError, ValueError, KeyError) as error:
        raise CalibrationError(f"{table.title}: its calibration cannot be read: {error}") from error
    # Pieces once had effects of map sizes, as operators have.
    if model is None or any(name.startswith("subgraph_") for name in model.effects):
        raise CalibrationError(
            f"{table.title} has a calibration of version {found.version}, made by latlut "
            f"{found.latlut_version}, whose model this one cannot apply\n"
            f"fit it again with: {command('calibrate', '--table', table.path)}\n"
            f"or delete it with: {command('calibrate', '--table', table.path, '--forget')}"
        )
    return model


@lru_cache(maxsize=8)
def _from_json(text: str, forced: tuple[str, ...] = ()) -> Calibration:
    """A calibration as ``store`` wrote it, with the reasons why it was forced.

    Kept by its text, which is read from the file each time: parsing takes longer than summing a
    network's entries, and a search asks for thousands of networks.
    """
    values: dict[str, Any] = json.loads(text)
    lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
    lists["covariance"] = tuple(tuple(row) for row in values["covariance"])
    return Calibration(**{**values, **lists, "forced": forced})
