"""Plans from ONNX files: each cut into pieces, equal pieces of all files measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from latlut.engines.base import Engine
from latlut.errors import EngineError, SpecError
from latlut.measure.plans import Plan
from latlut.operators.onnx_cutting import Cut, CutFile, by_layers, by_work, cut
from latlut.operators.onnx_files import OnnxWorkload, read_onnx
from latlut.operators.onnx_graph import open_graph
from latlut.opspec import unique
from latlut.table.subgraphs import CUTS


def read_files(
    paths: Sequence[Path],
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[OnnxWorkload]:
    """The files as workloads, called by their names without the ending.

    Args:
        paths: of ONNX files.
        input_size: (height, width), of files that leave it open.
        batch: images per inference, of files that leave it open; None for one.
        shapes: whole shapes of inputs by name, of files that have such an input.

    Raises:
        ImportFileError, SpecError: see ``read_onnx``.
    """
    return [read_onnx(path, input_size, batch, path.stem, shapes=shapes) for path in paths]


def cut_files(
    workloads: Sequence[OnnxWorkload], how: str, engine: Engine | None = None
) -> list[CutFile]:
    """Every file as its pieces.

    Args:
        workloads: the files.
        how: one of ``table.subgraphs.CUTS``.
        engine: whose layers they are, for ``layers``; the caller holds its device.

    Raises:
        EngineError: a cut by layers of an engine that does not show its layers.
        SpecError: no such cut.
    """
    if how not in CUTS:
        raise SpecError(f"files are cut by {' or '.join(CUTS)}, received {how!r}")
    found = []
    for workload in workloads:
        rule: Cut = by_work
        if how == "layers":
            if engine is None:
                raise EngineError(f"{workload.name}: its layers are known to an engine alone")
            rule = _layers_of(workload, engine)
        found.append(cut(workload, rule))
    return found


def onnx_plan(files: Sequence[CutFile], how: str) -> Plan:
    """The pieces of all files, which were cut by the rule ``how``, each once.

    Raises:
        SpecError: none of the files has a piece that can be measured.
    """
    specs = unique(spec for file in files for spec in file.op_specs())
    if not specs:
        reasons = "\n  ".join(text for file in files for text in file.unpriced[:3])
        raise SpecError(f"the files have no piece that can be measured:\n  {reasons}")
    names = ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")
    return Plan("onnx", specs, f"pieces of ONNX files: {names}", cut=how)


def _layers_of(workload: OnnxWorkload, engine: Engine) -> Cut:
    """By the layers that the engine shows of the file."""
    graph = open_graph(workload)
    content = graph.model.SerializeToString()
    with engine.load(workload, graph=content) as session:
        layers = session.layers(3)
    return by_layers(layer.source_nodes for layer in layers)
