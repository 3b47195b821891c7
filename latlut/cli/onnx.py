"""ONNX files on the command line: ``--onnx FILES``, cut as a table's pieces are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from latlut.cli.options import shape_option
from latlut.errors import IdentityError, LatlutError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.operators.onnx_cutting import CutFile
    from latlut.operators.onnx_files import OnnxWorkload
    from latlut.spaces.onnx_files import OnnxNetwork
    from latlut.table.table import LatencyTable

Command = TypeVar("Command", bound=Callable[..., Any])
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

#: Pieces that lack readings from which on a sweep says how long it will take before it starts.
MANY_PIECES = 300


def onnx_options(command: Command) -> Command:
    """--onnx FILES and --shape."""
    return onnx_option(shape_option(command))


def onnx_option(command: Command) -> Command:
    """--onnx FILES."""
    for option in (
        click.option("--onnx", "is_onnx", is_flag=True, help="Networks are the ONNX files FILES."),
        click.argument(
            "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=Path, dir_okay=False)
        ),
    ):
        command = option(command)
    return command


def check_files(
    files: Sequence[Path], is_onnx: bool, shapes: Shapes, needs_files: bool = True
) -> None:
    """Refuse files without --onnx, and --onnx without files where it needs some."""
    if is_onnx and not files and needs_files:
        raise LatlutError("--onnx takes ONNX files: --onnx network.onnx another.onnx")
    if files and not is_onnx:
        raise LatlutError(f"{files[0]}: files are for --onnx: add it, or leave them out")
    if shapes and not is_onnx:
        raise LatlutError("--shape is for inputs of ONNX files: name files with --onnx")


def cut_as_in(
    table: LatencyTable, workloads: Sequence[OnnxWorkload], engine: Engine | None = None
) -> list[CutFile]:
    """The files cut by the table's rule.

    Args:
        table: says the rule.
        workloads: the files.
        engine: the table's, whose device is held; found and taken if not given and needed.

    Raises:
        LatlutError: the table's rule needs its engine, which is not here.
        IdentityError: its engine here is of another version, or on another device.
    """
    from latlut.measure.onnx_plans import cut_files
    from latlut.table.subgraphs import cut_of

    how = cut_of(table)
    if how == "work" or engine is not None:
        return cut_files(workloads, how, engine)
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.held_device import measuring_on
    from latlut.measure.sweep_settings import identity_of

    own = table.identity
    target, engine = choose_engine(DeviceChoice.of_identity(own))
    here = identity_of(engine, target.name, mode=own.mode, statistic=own.statistic)
    if differences := own.differences(here):
        raise IdentityError(
            f"{table.title} holds the layers of {own.engine} {own.engine_version} on "
            f"{own.device_model}, and only the same engine cuts files in the same way (here: in "
            "the table, there: on this machine):\n  " + "\n  ".join(differences) + "\nprice the "
            "file there, or make a table whose pieces depend on no engine: --cut work"
        )
    with measuring_on(engine):
        return cut_files(workloads, how, engine)


def networks_of(
    files: Sequence[CutFile], workloads: Sequence[OnnxWorkload], family: str | None
) -> list[OnnxNetwork]:
    """The files as networks that can be measured and compared with sums of their pieces.

    Raises:
        LatlutError: a file has parts that are no pieces: the sum would be of a part of it.
    """
    from latlut.spaces.onnx_files import OnnxNetwork

    found = []
    for file, workload in zip(files, workloads, strict=True):
        if file.unpriced:
            raise LatlutError(
                f"{file.name} has parts that no table prices: a sum is of a part of it\n  "
                + "\n  ".join(file.unpriced[:5])
            )
        found.append(OnnxNetwork.of_pieces(file.name, file.op_specs(), workload, family or ""))
    return found
