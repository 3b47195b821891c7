"""What ``latlut profile`` measures: which options go together, and the plan that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latlut.cli.onnx import Shapes
from latlut.cli.output import remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.measure.plans import Plan
    from latlut.operators.onnx_cutting import CutFile

#: Why options do not go with one another, and which; asked in this order.
_ACTIVE = (
    "--fraction and --until choose what to measure from what is measured, on one device: "
    "leave --devices, --shard, --ray, --remote and --dry-run out"
)
_PIECES_ACTIVE = (
    "--fraction and --until predict a part, and pieces of ONNX files are not predicted: leave them "
    "out; with --budget the same command continues later"
)
_BESIDE_ACTIVE = ("--devices", "--shard", "--ray", "--remote", "--dry-run")


def check_together(given: Mapping[str, object], *, is_onnx: bool, is_active: bool) -> None:
    """Refuse options that do not go together.

    Args:
        given: option -> its value, None or empty where it is left open.
        is_onnx: pieces of ONNX files are measured.
        is_active: a part of the plan is measured and the rest predicted.

    Raises:
        LatlutError: names them.
    """
    has_workers = bool(given["--ray"] or given["--remote"])
    if is_active and any(given[name] for name in _BESIDE_ACTIVE):
        raise LatlutError(_ACTIVE)
    if is_onnx and is_active:
        raise LatlutError(_PIECES_ACTIVE)
    if is_onnx and any(given[name] for name in ("--plan", "--space", "--op")):
        raise LatlutError("--onnx is a plan of its own: leave --plan, --space and --op out")
    if given["--cut"] and not is_onnx:
        raise LatlutError("--cut is for pieces of ONNX files: name files with --onnx")
    if given["--workers"] is not None and not has_workers:
        raise LatlutError("--workers is for --ray: name the cluster, or leave it out")
    if given["--remote-python"] is not None and not has_workers:
        raise LatlutError("--remote-python is for --remote: name the machine, or leave it out")


def own_modules_of(operator_modules: tuple[str, ...], space_file: str | None) -> tuple[str, ...]:
    """What other processes have to import, too."""
    return operator_modules if space_file is None else (*operator_modules, space_file)


def plan_of(
    plan: str | None,
    space_file: str | None,
    ops: tuple[str, ...],
    input_size: tuple[int, int] | None,
    batches: tuple[int, ...] | None,
) -> Plan:
    """The plan that is named: a plan, a space's, or op specs; FasterSeg's where none is.

    Raises:
        LatlutError: options that exclude each other, or a plan that is not there.
    """
    from latlut.measure.plans import load_plan, plan_from_ops, plan_of_space
    from latlut.spaces.own import own_space

    if space_file and (ops or plan):
        raise LatlutError(
            "--space names all operator configurations of a space: leave --op and --plan out"
        )
    if space_file and not input_size:
        raise LatlutError("--space needs the image's size: give --input HEIGHTxWIDTH")
    if space_file and input_size:
        return plan_of_space(own_space(space_file), input_size, batches)
    if ops and plan:
        raise LatlutError(
            "--op and --plan exclude each other: put the operator configurations into the plan file"
        )
    if ops and input_size:
        raise LatlutError("--op names its own size: leave --input out")
    if ops:
        return plan_from_ops(ops, batches)
    return load_plan(plan or "fasterseg", input_size, batches)


def onnx_plan_of(
    files: tuple[Path, ...], input_size: tuple[int, int] | None, batches: tuple[int, ...] | None,
    shapes: Shapes, cut: str | None, kind: type[Engine], engine: Engine | None,
    table_path: Path | None, quiet: bool,
) -> Plan:  # fmt: skip
    """The pieces of the files, cut as those of the table.

    Args:
        kind: of the engine that measures them.
        engine: it, None where it is on another machine.
    """
    from latlut.errors import EngineError
    from latlut.measure.onnx_plans import onnx_plan
    from latlut.measure.plans import Plan
    from latlut.table.subgraphs import count_without_graph, cut_of, learn_graphs, stored_pieces
    from latlut.table.table import LatencyTable

    if not kind.reads_onnx:
        raise EngineError(
            f"{kind.title} does not read ONNX files: choose --engine onnxruntime, openvino, "
            "tensorrt or tensorrt-rtx"
        )
    if not files and table_path is not None:
        with LatencyTable.open(table_path) as table:
            specs, how, lacking = stored_pieces(table), cut_of(table), count_without_graph(table)
            learn_graphs(table, specs)
        bare = f"{lacking} pieces in {table_path} came without their graphs"
        if not specs:
            why = bare if lacking else f"{table_path} holds no pieces of ONNX files"
            raise LatlutError(f"{why}: name files with --onnx")
        if lacking:
            remark(f"{bare} and are not measured: name their files with --onnx", quiet)
        return Plan("onnx", specs, f"pieces that {table_path} holds", cut=how)
    how = cut or cut_in(table_path)
    if how == "layers" and engine is None:
        raise EngineError(
            "--cut layers asks the engine of the machine that measures, which is another one: "
            "leave it out, or measure here"
        )
    return onnx_plan(cut_onnx_files(files, input_size, batches, shapes, how, engine, quiet), how)


def cut_onnx_files(
    files: tuple[Path, ...], input_size: tuple[int, int] | None, batches: tuple[int, ...] | None,
    shapes: Shapes, how: str, engine: Engine | None, quiet: bool,
) -> list[CutFile]:  # fmt: skip
    """The files at each batch, cut into pieces; remarks say what is in none."""
    from contextlib import nullcontext
    from dataclasses import replace

    from latlut.measure.held_device import measuring_on
    from latlut.measure.onnx_plans import cut_files, read_files

    found: list[CutFile] = []
    with measuring_on(engine) if how == "layers" and engine else nullcontext():
        for batch in batches or (None,):
            cut = cut_files(read_files(files, input_size, batch, dict(shapes)), how, engine)
            is_one_of = len(batches or ()) > 1
            found += [replace(f, name=f"{f.name} batch={batch}") if is_one_of else f for f in cut]
    for text in dict.fromkeys(
        f"{file.name}: not measured: {t}" for file in found for t in file.unpriced
    ):
        remark(text, quiet)
    return found


def cut_in(table_path: Path | None) -> str:
    """By which rule files are cut into a table's pieces, the default of one that is not there."""
    from latlut.table.subgraphs import DEFAULT_CUT, cut_of
    from latlut.table.table import LatencyTable

    if table_path is None or not table_path.exists() or not table_path.stat().st_size:
        return DEFAULT_CUT
    with LatencyTable.open(table_path) as table:
        return cut_of(table)
