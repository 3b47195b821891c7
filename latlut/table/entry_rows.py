"""One row of a file of entries, checked cell by cell.

A cell that cannot be what its column says is refused with the file, the row, the column, what was
received and what was expected.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latlut.errors import ImportFileError, SpecError
from latlut.operators import subgraph_store
from latlut.opspec import OpSpec
from latlut.table.content import LEAST_MS, MOST_COUNT, MOST_MS

if TYPE_CHECKING:
    from latlut.operators.subgraph import Subgraph

#: Characters of the text beside an entry.
MAX_WARNINGS = 10_000


@dataclass(frozen=True)
class EntryRow:
    """One row of a file of entries; what the file does not say is None, ``warnings`` empty.

    Latency and interval are milliseconds; ``n`` counts samples, ``passes`` measuring passes;
    ``predicted_from`` how many measured entries a predicted one rests on, None of measured ones;
    ``piece`` is the graph behind a piece of an ONNX file, if the file carries it. ``row`` is where
    it stands: the line in a CSV file, the row counted from 1 in Parquet.
    """

    spec: OpSpec
    latency_ms: float
    ci_low_ms: float | None = None
    ci_high_ms: float | None = None
    n: int | None = None
    passes: int | None = None
    warnings: str = ""
    row: int = 0
    predicted_from: int | None = None
    piece: Subgraph | None = None

    @property
    def is_bare_piece(self) -> bool:
        """Whether it is of a piece of an ONNX file, and the file does not carry the graph."""
        return self.piece is None and subgraph_store.digest_of(self.spec) is not None


_RANGE = f" between {LEAST_MS:g} and {MOST_MS:g}"


def is_possible_ms(latency_ms: float) -> bool:
    """Whether an operator can take so many milliseconds; False for NaN."""
    return LEAST_MS <= latency_ms <= MOST_MS


def _is_text(value: object) -> bool:
    """Whether it is a text that can be stored: no lone surrogate, which UTF-8 does not know."""
    if not isinstance(value, str) or len(value) > MAX_WARNINGS or "\0" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


class Cells:
    """The cells of one row by column (None: empty), and where it stands; ``entry`` checks them.

    ``may_be_negative`` of latencies that are differences: zero and below are numbers like others.

    Every method raises ImportFileError for a cell that cannot be used.
    """

    def __init__(
        self,
        path: Path,
        row: int,
        values: Mapping[str, object],
        may_be_negative: bool = False,
    ) -> None:
        self.path = path
        self.row = row
        self.values = values
        self.may_be_negative = may_be_negative

    def error(self, column: str, expected: str) -> ImportFileError:
        value = self.values.get(column)
        shown = "nothing" if value is None else f"{str(value)[:120]!r}"
        return ImportFileError(
            f"{self.path}: row {self.row}, column {column}: received {shown}, expected {expected}; "
            "correct the file and import it again"
        )

    def entry(self) -> EntryRow:
        kind = "finite" if self.may_be_negative else "positive, finite"
        latency_ms = self.number("latency_ms", f"a {kind} number of milliseconds")
        if latency_ms is None or not self._is_possible(latency_ms):
            raise self.error("latency_ms", f"a {kind} number of milliseconds{_RANGE}")
        low_ms = self.number("ci_low_ms", "a finite number of milliseconds, or nothing")
        high_ms = self.number("ci_high_ms", "a finite number of milliseconds, or nothing")
        if (low_ms is None) != (high_ms is None):
            missing = "ci_low_ms" if low_ms is None else "ci_high_ms"
            raise self.error(missing, "both ends of the interval or neither")
        for column, end_ms in (("ci_low_ms", low_ms), ("ci_high_ms", high_ms)):
            if end_ms is not None and not self._is_possible(end_ms):
                raise self.error(column, f"a {kind} number of milliseconds{_RANGE}, or nothing")
        if low_ms is not None and low_ms > latency_ms:
            raise self.error("ci_low_ms", f"at most the latency, {latency_ms} ms")
        if high_ms is not None and high_ms < latency_ms:
            raise self.error("ci_high_ms", f"at least the latency, {latency_ms} ms")
        warnings = self.values.get("warnings")
        if warnings is not None and not _is_text(warnings):
            raise self.error("warnings", f"text of at most {MAX_WARNINGS} characters")
        predicted_from = self.count("predicted_from")
        least = 1 if predicted_from is None else 0
        spec = self.spec()
        return EntryRow(
            spec,
            latency_ms,
            low_ms,
            high_ms,
            self.count("n", least),
            self.count("passes", least),
            str(warnings or ""),
            self.row,
            predicted_from,
            self.piece(spec),
        )

    def _is_possible(self, latency_ms: float) -> bool:
        return is_possible_ms(abs(latency_ms) if self.may_be_negative else latency_ms) or (
            self.may_be_negative and latency_ms == 0
        )

    def spec(self) -> OpSpec:
        text = self.values.get("op_spec")
        if not isinstance(text, str):
            raise self.error("op_spec", "the text of an operator configuration")
        try:
            return OpSpec.parse(text)
        except (ValueError, TypeError) as error:
            raise self.error(
                "op_spec", f"an operator configuration ({str(error)[:300]})"
            ) from error

    def piece(self, spec: OpSpec) -> Subgraph | None:
        """The graph in the column ``graph``, which has to be that of the op spec."""
        text = self.values.get("graph")
        if text in (None, ""):
            return None
        digest = subgraph_store.digest_of(spec)
        if digest is None:
            raise self.error("graph", "nothing: the operator configuration is no piece of a graph")
        try:
            found = subgraph_store.read(digest, base64.b64decode(str(text), validate=True))
            if found.spec != spec:
                raise SpecError(f"it is that of {found.spec.key}")
        except (binascii.Error, ValueError, ImportFileError, SpecError) as error:
            raise self.error(
                "graph", f"the piece's graph as `latlut table export` writes it ({error})"
            ) from error
        return found

    def number(self, column: str, expected: str) -> float | None:
        value = self.values.get(column)
        is_missing = value is None or (isinstance(value, float) and math.isnan(value))
        if is_missing and column != "latency_ms":
            return None
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise self.error(column, expected)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(column, expected) from error
        if not math.isfinite(number):
            raise self.error(column, expected)
        return number

    def count(self, column: str, least: int = 1) -> int | None:
        expected = "a positive whole number, or nothing"
        number = self.number(column, expected)
        if number is None:
            return None
        if not least <= number <= MOST_COUNT or number != int(number):
            raise self.error(column, expected)
        return int(number)
