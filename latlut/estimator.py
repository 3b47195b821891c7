"""From entries to a network: the sum of its op specs' latencies, with an interval.

    T = sum over executed operators of their entries

Each cell that branches share is executed, and counted, once. Nothing is added for what the table
does not hold: it is named in ``unpriced``, and the sum is then a part of the network only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from latlut.opspec import HasOpSpecs, OpSpec
from latlut.table import Entry, LatencyTable
from latlut.variants import alternatives


@dataclass(frozen=True)
class Term:
    """One op spec's part of a network's latency.

    ``latency_ms`` is of one execution; ``count`` how often the network executes it. ``priced_as``
    names the entries used: the op spec itself, or what stands for it, and then ``reason`` why.
    """

    spec: OpSpec
    count: int
    latency_ms: float
    priced_as: tuple[str, ...]
    reason: str = ""

    @property
    def total_ms(self) -> float:
        """Latency of all executions, in milliseconds."""
        return self.count * self.latency_ms


@dataclass(frozen=True)
class Estimate:
    """A network's latency from a table, in milliseconds.

    ``ci_low_ms`` and ``ci_high_ms`` bound the sum of the entries (95%), None where an entry has
    no interval; they say nothing of what happens between operators, which only ``validate`` sees.
    ``unpriced`` are op specs that the table cannot price; the sum is without them.
    """

    ms: float
    ci_low_ms: float | None
    ci_high_ms: float | None
    terms: tuple[Term, ...]
    unpriced: tuple[OpSpec, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every op spec was priced."""
        return not self.unpriced

    @property
    def substituted(self) -> tuple[Term, ...]:
        """Terms that are priced by something else than their own entry."""
        return tuple(term for term in self.terms if term.reason)


@dataclass(frozen=True)
class _Price:
    entries: tuple[Entry, ...]
    reason: str
    lacking: tuple[OpSpec, ...]


def estimate(network: HasOpSpecs | Iterable[OpSpec], table: LatencyTable) -> Estimate:
    """Latency of a network from a table's entries.

    Args:
        network: anything with ``op_specs()``, or the op specs themselves, one per execution.
        table: where the entries come from.

    Returns:
        The sum with its interval, term by term in order of first execution. Op specs without an
        entry are priced by the variants that the table holds (``latlut.variants``), which the
        term names; what cannot be priced at all is in ``unpriced``.

    Interval: the entries' own errors are independent, the error that they share adds up:
        half-width^2 = sum_i (n_i t_i own_i)^2 + (shared * T)^2.
    """
    specs = list(network.op_specs() if isinstance(network, HasOpSpecs) else network)
    terms: list[Term] = []
    unpriced: list[OpSpec] = []
    used: Counter[str] = Counter()
    errors: dict[str, float | None] = {}
    for spec, count in Counter(specs).items():
        price = _price(spec, table, frozenset())
        if price is None:
            unpriced.append(spec)
            continue
        unpriced.extend(price.lacking)
        for entry in price.entries:
            used[entry.key] += count
            own = entry.own_error
            errors[entry.key] = None if own is None else own * entry.latency_ms
        latency_ms = sum(entry.latency_ms for entry in price.entries)
        keys = tuple(entry.key for entry in price.entries)
        terms.append(Term(spec, count, latency_ms, keys, price.reason))
    total = sum(term.total_ms for term in terms)
    half = None
    if errors and all(error is not None for error in errors.values()):
        own_parts = [used[key] * (errors[key] or 0.0) for key in used]
        half = float(np.hypot(np.linalg.norm(own_parts), table.shared_error * total))
    return Estimate(
        ms=total,
        ci_low_ms=None if half is None else max(0.0, total - half),
        ci_high_ms=None if half is None else total + half,
        terms=tuple(terms),
        unpriced=tuple(dict.fromkeys(unpriced)),
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
