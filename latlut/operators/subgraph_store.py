"""The graphs behind op specs of pieces, by digest, and how such op specs are built and timed.

Like the registry of operators it is of the whole process: an op spec is a value and carries its
graph's digest alone. Graphs come from files (``onnx_cutting``) and from tables
(``table.subgraphs``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from latlut.errors import EngineError, SpecError
from latlut.operators.registry import Graphs, Option, register
from latlut.operators.subgraph_kinds import KINDS
from latlut.opspec import MAX_INPUTS, OpSpec

if TYPE_CHECKING:
    from torch import nn

    from latlut.operators.building import Cost
    from latlut.operators.in_context import Context
    from latlut.operators.subgraph import Subgraph
    from latlut.operators.workloads import Workload

_STORE: dict[str, Subgraph] = {}


def keep(subgraph: Subgraph) -> None:
    """Make a piece known under its digest."""
    _STORE[subgraph.digest] = subgraph


def digest_of(spec: OpSpec) -> str | None:
    """The digest of the graph behind an op spec; None of an operator."""
    if spec.kind not in KINDS:
        return None
    return str(spec.option("graph") or "")[1:]


def known(spec: OpSpec) -> Subgraph | None:
    """The piece behind an op spec, None where it is an operator or its graph is not known here."""
    return _STORE.get(digest_of(spec) or "")


def contents(specs: Iterable[OpSpec]) -> dict[str, bytes]:
    """The graphs of those op specs that are pieces known here, by digest."""
    pieces = filter(None, map(known, specs))
    return {piece.digest: piece.content for piece in pieces}


def read(digest: str, content: bytes) -> Subgraph:
    """A piece as a table holds it, examined; see ``subgraph.stored_subgraph``."""
    from latlut.operators.subgraph import stored_subgraph

    return stored_subgraph(digest, content)


def subgraph_of(spec: OpSpec) -> Subgraph:
    """The piece behind an op spec.

    Raises:
        SpecError: its graph is not known, or has other shapes than the op spec says.
    """
    found = known(spec)
    if found is None:
        raise SpecError(
            f"{spec.key}: its graph is not known here: open the table that holds it, or name the "
            "ONNX file that it was cut from with --onnx"
        )
    if found.spec != spec:
        raise SpecError(f"{spec.key}: its graph is that of {found.spec.key}")
    return found


def shown(spec: OpSpec) -> str:
    """An op spec for people: a piece by its label, with a batch that is not 1, else its key."""
    found = known(spec)
    if found is None:
        return spec.key
    return found.label if spec.batch == 1 else f"{found.label} batch={spec.batch}"


def _workload(spec: OpSpec) -> Workload:
    from latlut.operators.subgraph_workloads import workload_of

    return workload_of(subgraph_of(spec))


def _context(spec: OpSpec) -> Context:
    from latlut.operators.subgraph_workloads import context_of

    return context_of(subgraph_of(spec))


def _cost(spec: OpSpec) -> Cost:
    from latlut.operators.building import Cost

    found = subgraph_of(spec)
    return Cost(found.macs or 0, found.params, found.moved_bytes)


def _no_module(spec: OpSpec) -> nn.Module:
    raise EngineError(
        f"{spec.key} is a piece of an ONNX graph, which PyTorch does not run: choose an engine "
        "that does, --engine onnxruntime, openvino, tensorrt or tensorrt-rtx"
    )


for _kind in KINDS:
    register(
        _kind,
        options={"graph": Option(), "out_size": Option()},
        max_inputs=MAX_INPUTS,
        graphs=Graphs(_workload, _context, _cost),
    )(_no_module)
