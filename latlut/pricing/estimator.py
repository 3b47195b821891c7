"""From entries to a network: the sum of its op specs' latencies, with an interval.

    T = sum over executed operators of their entries

Each cell that branches share is executed, and counted, once. Where the table has a calibration
(``pricing.calibration``) each entry counts with its factor, and a constant is added. Nothing is
added for what the table does not hold: that is an error, or by permission named in ``unpriced``,
and the sum is then a part of the network only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latlut.errors import MissingEntryError
from latlut.operators.registry import alternatives, check_options
from latlut.opspec import HasOpSpecs, OpSpec
from latlut.pricing import calibration as calibrations
from latlut.pricing.calibration import CALL, LEAST_PART, WEIGHTS, Calibration, features_ms
from latlut.pricing.missing import missing_message
from latlut.pricing.named import is_network, opened, specs_of
from latlut.pricing.sum_errors import SumError, sum_error
from latlut.spaces.space import SpaceNetwork
from latlut.table.entry import Entry
from latlut.table.subgraphs import learn_graphs
from latlut.table.table import LatencyTable

if TYPE_CHECKING:
    import pandas

#: Of features of a calibration that are no milliseconds.
_UNITS = {CALL: "executions", WEIGHTS: "MB"}


@dataclass(frozen=True)
class Term:
    """One op spec's part of a network's latency.

    ``latency_ms`` is of one execution; ``count`` how often the network executes it. ``priced_as``
    names the entries used: the op spec itself, or what stands for it, and then ``reason`` why.
    ``factor`` is what the entry counts with inside a network, 1 without a calibration.
    ``predicted_ms`` is the part of ``latency_ms`` that comes from predicted entries;
    ``is_disturbed`` says that an entry was measured on a disturbed machine.
    """

    spec: OpSpec
    count: int
    latency_ms: float
    priced_as: tuple[str, ...]
    reason: str = ""
    factor: float = 1.0
    predicted_ms: float = 0.0
    is_disturbed: bool = False

    @property
    def price_ms(self) -> float:
        """What one execution adds to a network, in milliseconds."""
        return self.factor * self.latency_ms

    @property
    def total_ms(self) -> float:
        """What all executions add to the network, in milliseconds."""
        return self.count * self.price_ms


@dataclass(frozen=True, repr=False)
class Estimate:
    """A network's latency from a table, in milliseconds.

    ``ci_low_ms`` and ``ci_high_ms`` bound what ``latlut validate`` would measure (95%), None where
    an entry has no interval. Without a calibration they hold ``sum_error``, by which measured
    networks lay off their sums; it is None of a single op spec. ``unpriced`` are op specs that the
    table cannot price, by permission; the sum is without them, and without ``excluded`` ones, which
    the table's source does not count. ``plain_ms`` is the sum of the
    entries as they are, ``entries_sd_ms`` the standard deviation that their own errors give it,
    None if unknown; ``constant_ms`` what the calibration adds to every network; ``notes`` where the
    calibration is used beyond what it was fitted on.
    """

    ms: float
    ci_low_ms: float | None
    ci_high_ms: float | None
    terms: tuple[Term, ...]
    unpriced: tuple[OpSpec, ...]
    plain_ms: float
    entries_sd_ms: float | None
    constant_ms: float = 0.0
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
    sum_error: SumError | None = None
    excluded: tuple[OpSpec, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every op spec was priced that the table's source counts."""
        return not self.unpriced

    @property
    def predicted(self) -> tuple[Term, ...]:
        """Terms that rest on predicted entries."""
        return tuple(term for term in self.terms if term.predicted_ms)

    @property
    def predicted_ms(self) -> float:
        """How much of the latency comes from entries that were predicted, not measured."""
        return sum(term.count * term.factor * term.predicted_ms for term in self.terms)

    @property
    def predicted_share(self) -> float:
        """``predicted_ms`` as a part of what all terms take; 0 where that is nothing."""
        total_ms = sum(term.total_ms for term in self.terms)
        return self.predicted_ms / total_ms if total_ms else 0.0

    @property
    def disturbed(self) -> tuple[Term, ...]:
        """Terms that rest on entries of a disturbed machine: they may be too high."""
        return tuple(term for term in self.terms if term.is_disturbed)

    @property
    def substituted(self) -> tuple[Term, ...]:
        """Terms that are priced by something else than their own entry."""
        return tuple(term for term in self.terms if term.reason)

    def frame(self) -> pandas.DataFrame:
        """One row per term, in order of first execution; latencies in milliseconds.

        Columns: ``op_spec``, ``count``, ``latency_ms`` of one execution by the table, ``factor``
        of the calibration, ``total_ms`` of all executions, ``share`` of the network,
        ``predicted_ms``, ``priced_as``.
        """
        import pandas

        rows = [
            (
                term.spec.key, term.count, term.latency_ms, term.factor, term.total_ms,
                term.total_ms / self.ms if self.ms else 0.0, term.predicted_ms, term.reason,
            )
            for term in self.terms
        ]  # fmt: skip
        columns = ["op_spec", "count", "latency_ms", "factor", "total_ms", "share",
                   "predicted_ms", "priced_as"]  # fmt: skip
        return pandas.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        half = "" if self.ci_low_ms is None else f" ({self.ci_low_ms:.4g} to {self.ci_high_ms:.4g})"
        kind = "plain" if self.calibration is None else "calibrated"
        terms = _counted(len(self.terms), "term")
        lacking = _counted(len(self.unpriced), "operator")
        lacks = "" if self.is_complete else f", {lacking} without an entry"
        return f"<Estimate {self.ms:.4g} ms{half}, {kind} sum of {terms}{lacks}>"

    def _repr_html_(self) -> str:
        frame = self.frame().sort_values("total_ms", ascending=False)
        shown = frame.to_html(index=False, max_rows=20, float_format="{:.4g}".format)
        return f"<p>{escape(repr(self)[1:-1])}</p>{shown}"


@dataclass(frozen=True)
class _Price:
    entries: tuple[Entry, ...]
    reason: str
    lacking: tuple[OpSpec, ...]


#: Of a normal distribution: a 95% half-width over a standard deviation.
_NORMAL_95 = 1.96


def estimate(
    network: HasOpSpecs | SpaceNetwork | Iterable[OpSpec | str] | OpSpec | str | Path,
    table: LatencyTable | str | Path,
    *,
    is_calibrated: bool | None = None,
    allow_missing: bool = False,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> Estimate:
    """Latency of a network from a table, by its calibration where it has one; or of operators.

    Args:
        network: an architecture's name or file, anything with ``op_specs()``, or several ``OpSpec``
            objects, one per execution; or operators: a single op spec, or op specs as text.
        table: where the entries come from: an open table, a name, or a file.
        is_calibrated: use the table's calibration; False: the plain sum of the entries. By default
            networks are calibrated, and operators stay as measured.
        allow_missing: leave out what the table cannot price, and name it in ``unpriced``.
        input_size: (height, width) of the image in pixels; the table's own if not given.
        batch: images per inference; the table's own if not given.

    Returns:
        The sum with its interval, term by term in order of first execution. Op specs without an
        entry are priced by the alternatives that the table holds (``operators.registry``), which
        the term names.

    Raises:
        MissingEntryError: the table cannot price all op specs; lists them, and the command that
            adds them.
        CalibrationError: the table's calibration is of a version that cannot be applied.
        SpecError: an op spec with an option that its operator does not have; sizes for op specs.
        UnknownNameError: no network or table of that name.

    Interval of a plain sum: the entries' own errors are independent, the one they share adds up,
    and so does what sums are known to miss (``pricing.sum_errors``):
        half-width^2 = sum_i (n_i t_i own_i)^2 + (shared * T)^2 + (missed * T)^2;
    of a calibrated one see ``Calibration.half_width_ms``.
    """
    if not isinstance(network, (str, Path, OpSpec, HasOpSpecs, SpaceNetwork)):
        network = list(network)
    with opened(table) as entries:
        plain = _plain(specs_of(network, entries, input_size, batch), entries)
        if plain.unpriced and not allow_missing:
            raise MissingEntryError(missing_message(entries, plain.unpriced))
        is_wanted = is_network(network) if is_calibrated is None else is_calibrated
        found = calibrations.stored(entries) if is_wanted else None
        if found is not None and WEIGHTS in found.effects:
            learn_graphs(entries, [term.spec for term in plain.terms])  # which say their weights
    return plain if found is None else calibrated(plain, found)


def calibrated(plain: Estimate, calibration: Calibration) -> Estimate:
    """A plain estimate by a calibration."""
    terms = tuple(replace(term, factor=calibration.factor(term.spec)) for term in plain.terms)
    sums = ((term.spec, term.count * term.latency_ms, term.count) for term in plain.terms)
    features = features_ms(calibration.effects, sums)
    added_ms = calibration.added_ms(features)
    total = max(added_ms + sum(term.total_ms for term in terms), LEAST_PART * plain.plain_ms)
    half = None
    if plain.entries_sd_ms is not None:
        half = calibration.half_width_ms(features, plain.plain_ms, plain.entries_sd_ms)
    notes = [
        f"{name}: {value:.4g} {_UNITS.get(name, 'ms')}, the calibration saw {low:.4g} to {high:.4g}"
        for name, (value, low, high) in calibration.outside(features).items()
    ]
    return replace(
        plain,
        ms=total,
        ci_low_ms=None if half is None else max(0.0, total - half),
        ci_high_ms=None if half is None else total + half,
        terms=terms,
        constant_ms=added_ms,
        calibration=calibration,
        notes=tuple(notes),
        sum_error=None,
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _plain(specs: Sequence[OpSpec], table: LatencyTable) -> Estimate:
    terms: list[Term] = []
    lacking: list[OpSpec] = []
    used: Counter[str] = Counter()
    errors: dict[str, float | None] = {}
    for spec, count in Counter(specs).items():
        price = _price(spec, table, frozenset())
        if price is None:
            check_options(spec)
            lacking.append(spec)
            continue
        lacking.extend(price.lacking)
        for entry in price.entries:
            used[entry.key] += count
            errors[entry.key] = entry.own_error_ms
        latency_ms = sum(entry.latency_ms for entry in price.entries)
        keys = tuple(entry.key for entry in price.entries)
        predicted_ms = sum(entry.latency_ms for entry in price.entries if entry.is_predicted)
        terms.append(
            Term(
                spec, count, latency_ms, keys, price.reason, predicted_ms=predicted_ms,
                is_disturbed=any(entry.is_disturbed for entry in price.entries),
            )
        )  # fmt: skip
    kinds = table.excluded_kinds if lacking else frozenset()
    total = sum(term.total_ms for term in terms)
    half = own_half = None
    missed = sum_error(table) if len(specs) > 1 else None
    if errors and all(error is not None for error in errors.values()):
        own_half = float(np.linalg.norm([used[key] * (errors[key] or 0.0) for key in used]))
        relative = np.hypot(table.shared_error, missed.half_width if missed else 0.0)
        half = float(np.hypot(own_half, relative * total))
    # A difference may be negative, and so may the sum of a few.
    least_ms = -np.inf if table.identity.is_in_context else 0.0
    return Estimate(
        ms=total,
        ci_low_ms=None if half is None else max(least_ms, total - half),
        ci_high_ms=None if half is None else total + half,
        terms=tuple(terms),
        unpriced=tuple(dict.fromkeys(spec for spec in lacking if spec.kind not in kinds)),
        plain_ms=total,
        entries_sd_ms=None if own_half is None else own_half / _NORMAL_95,
        sum_error=missed,
        excluded=tuple(dict.fromkeys(spec for spec in lacking if spec.kind in kinds)),
    )


def _price(spec: OpSpec, table: LatencyTable, seen: frozenset[OpSpec]) -> _Price | None:
    """The entries that price ``spec``: its own, else the first alternative that the table holds."""
    if spec in table:
        return _Price((table.lookup(spec),), "", ())
    seen = seen | {spec}
    for option in alternatives(spec):
        entries: list[Entry] = []
        lacking: list[OpSpec] = []
        reasons = [option.reason]
        for part in option.specs:
            found = None if part in seen else _price(part, table, seen)
            if found is not None:
                entries.extend(found.entries)
                lacking.extend(found.lacking)
                reasons += [found.reason] if found.reason else []
            elif part in option.may_lack:
                lacking.append(part)
            else:
                break
        else:
            return _Price(tuple(entries), "; ".join(reasons), tuple(lacking))
    return None
