"""The graphs of a table's pieces, by digest: what a sweep can be repeated from.

A file from elsewhere may hold any bytes there: a graph is looked at before it is used, and refused
where it is not the piece that its digest names (``operators.subgraph.stored_subgraph``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlut.errors import ImportFileError, SpecError, TableError
from latlut.operators import subgraph_store as store
from latlut.operators.subgraph_kinds import MAX_BYTES
from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable
from latlut.table.writing import insert, set_fact

if TYPE_CHECKING:
    from latlut.operators.subgraph import Subgraph

#: Fact of a table: by which rule files are cut into its pieces (``measure.onnx_plans``).
CUT = "onnx_cut"
#: By what files are cut: engine-independent work, or the layers of the table's engine.
CUTS = ("work", "layers")
DEFAULT_CUT = "work"


def keep_pieces(table: LatencyTable, specs: Iterable[OpSpec], cut: str | None) -> None:
    """What a table needs of a plan's pieces before they are measured: their graphs and their cut.

    Args:
        cut: by which rule; None where there are no pieces.

    Raises:
        TableError: it holds pieces that were cut otherwise, or a graph that is none.
    """
    if cut is not None:
        keep_cut(table, cut)
    learn_graphs(table, specs)
    keep_graphs(table, specs)


def keep_graphs(table: LatencyTable, specs: Iterable[OpSpec]) -> None:
    """Write the graphs of those op specs that are pieces into the table, where it lacks them.

    A piece whose graph is not known here is left out: it came without, from a file of entries.
    """
    _write(table, (piece for piece in map(store.known, specs) if piece is not None))


def add_pieces(table: LatencyTable, pieces: Iterable[Subgraph], cut: str) -> None:
    """Write graphs that came with entries into the table, where it lacks them.

    Args:
        cut: by which rule they were cut.

    Raises:
        TableError: it holds pieces that were cut otherwise.
    """
    keep_cut(table, cut)
    _write(table, pieces)


def _write(table: LatencyTable, pieces: Iterable[Subgraph]) -> None:
    there = set(digests(table))
    found = {piece.digest: piece for piece in pieces}
    new = [piece for digest, piece in found.items() if digest not in there]
    if not new:
        return
    with table.writing() as db:
        for piece in new:
            insert(db, "subgraphs", digest=piece.digest, label=piece.label, graph=piece.content)


def cut_of(table: LatencyTable) -> str:
    """By which rule files are cut into the table's pieces; the default of a table without any."""
    return table.fact(CUT) or DEFAULT_CUT


def keep_cut(table: LatencyTable, how: str) -> None:
    """Remember by which rule files are cut into the table's pieces.

    Raises:
        TableError: it holds pieces that were cut otherwise.
    """
    own = table.fact(CUT)
    if own not in (None, how):
        raise TableError(
            f"{table.title} holds pieces that were cut by {own}, --cut {how} was asked for: leave "
            "--cut out, or choose another table with --table"
        )
    if own is None:
        with table.writing() as db:
            set_fact(db, CUT, how)


def digests(table: LatencyTable) -> list[str]:
    """Of the graphs that the table holds."""
    return [row[0] for row in table.tuples("SELECT digest FROM subgraphs ORDER BY digest")]


def contents(table: LatencyTable) -> dict[str, bytes]:
    """Digest -> serialised graph; as the table has it, which nobody has looked at."""
    return dict(table.tuples("SELECT digest, graph FROM subgraphs"))


def stored_pieces(table: LatencyTable) -> tuple[OpSpec, ...]:
    """The op specs of the table that are pieces whose graphs it holds."""
    there = set(digests(table))
    keys = table.tuples("SELECT key FROM op_specs WHERE kind LIKE 'subgraph_%' ORDER BY id")
    specs = (OpSpec.parse(key) for (key,) in keys)
    return tuple(spec for spec in specs if store.digest_of(spec) in there)


def pieces_count(table: LatencyTable) -> int:
    """How many of the table's entries are of pieces of ONNX files."""
    return int(
        table.tuples(
            "SELECT count(*) FROM entries JOIN op_specs ON op_specs.id = op_spec_id"
            " WHERE kind LIKE 'subgraph_%'"
        )[0][0]
    )


def count_without_graph(table: LatencyTable, most_bytes: int = MAX_BYTES) -> int:
    """How many entries are of pieces whose graph the table lacks, or has only as more bytes."""
    return int(
        table.tuples(
            "SELECT count(*) FROM entries JOIN op_specs ON op_specs.id = op_spec_id"
            " LEFT JOIN subgraphs"
            " ON digest = substr(key, instr(key, ' graph=g') + length(' graph=g'), 40)"
            " WHERE kind LIKE 'subgraph_%' AND (graph IS NULL OR length(graph) > ?)",
            [most_bytes],
        )[0][0]
    )


def shown_keys(table: LatencyTable, keys: Iterable[str]) -> dict[str, str]:
    """Key -> the same for people: a piece by its label and the first digits of its digest."""
    names = labels(table)
    found = {}
    for key in keys:
        digest = (re.findall(r" graph=g([0-9a-f]{40})\b", key) or [""])[0]
        found[key] = f"{names[digest]} [{digest[:8]}]" if digest in names else key
    return found


def labels(table: LatencyTable) -> dict[str, str]:
    """Digest -> what the piece is, for people; as the table has it, which nobody has looked at."""
    return dict(table.tuples("SELECT digest, label FROM subgraphs"))


def learn_graphs(table: LatencyTable, specs: Iterable[OpSpec]) -> None:
    """Make the graphs of those op specs that are pieces known, from the table where they are not.

    Raises:
        TableError: a graph that is none, or another piece's.
    """
    wanted = {store.digest_of(spec) for spec in specs if store.known(spec) is None} - {None}
    for digest in sorted(filter(None, wanted)):
        rows = table.tuples("SELECT graph FROM subgraphs WHERE digest = ?", [digest])
        for (content,) in rows:
            try:
                store.keep(store.read(digest, content))
            except ImportFileError as error:
                raise TableError(
                    f"{table.title}: {error}: the file is damaged, or somebody has changed it"
                ) from error


def require_graphs(path: Path, specs: Sequence[OpSpec]) -> None:
    """Make sure that pieces can be measured, before a table is made: learn their graphs.

    Args:
        path: of the table; nothing is made if it is not there.
        specs: what is to be measured; operators need no graph.

    Raises:
        SpecError: the graph of a piece is neither known here nor in the table.
        TableError: a graph that is none, or another piece's.
    """
    if any(map(_lacks_graph, specs)) and path.exists() and path.stat().st_size:
        with LatencyTable.open(path) as table:
            learn_graphs(table, specs)
    lacking = list(filter(_lacks_graph, specs))
    if lacking:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise SpecError(
            f"{lacking[0]}{more}: a piece of an ONNX file, and {path} does not hold its graph: "
            "name the file that it was cut from, with --onnx instead of its key"
        )


def _lacks_graph(spec: OpSpec) -> bool:
    return store.digest_of(spec) is not None and store.known(spec) is None


def wrong_graphs(table: LatencyTable) -> Iterator[str]:
    """The first of the table's graphs that is none, in words."""
    for digest in digests(table):
        ((label, content),) = table.tuples(
            "SELECT label, graph FROM subgraphs WHERE digest = ?", [digest]
        )
        try:
            found = store.read(digest, content)
        except ImportFileError as error:
            yield f"subgraphs: {error}"
            return
        if found.label != label:
            yield f"subgraphs: {digest[:12]} is called {label[:80]!r}, it is {found.label!r}"
            return


def copy_graphs(into: LatencyTable, source: LatencyTable) -> None:
    """Add the graphs that another table has; they were examined (``table.examination``).

    Raises:
        TableError: the tables hold pieces that were cut by different rules: no network's sum
            could have pieces of both.
    """
    theirs, own = source.fact(CUT), into.fact(CUT)
    if None not in (theirs, own) and theirs != own:
        raise TableError(
            f"{source.path} holds pieces that were cut by {theirs}, {into.path} such that were cut "
            f"by {own}: a network is a sum of one kind of pieces; keep two tables"
        )
    there = set(digests(into))
    with into.writing() as db:
        for digest in digests(source):
            if digest not in there:
                (row,) = source.rows("SELECT * FROM subgraphs WHERE digest = ?", [digest])
                insert(db, "subgraphs", **row)
