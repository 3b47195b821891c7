"""What ``estimate`` is given, as op specs and an open table: networks and tables by name or file.

A network is an architecture's name or file, an op spec as text, or an object. Where neither the
caller nor the network says for which image size and batch, the table's own are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from latlut.errors import SpecError, TableError
from latlut.opspec import HasOpSpecs, OpSpec
from latlut.spaces.shipped import find_network
from latlut.spaces.space import SpaceNetwork
from latlut.table.space import space_of
from latlut.table.table import LatencyTable

#: (height, width) of images where a table does not say: single op specs, or imported entries.
DEFAULT_SIZE = (1024, 2048)


@contextmanager
def opened(
    table: LatencyTable | str | Path, *, is_writable: bool = False
) -> Iterator[LatencyTable]:
    """The table itself, or the one of that name or file, which is closed afterwards.

    Raises:
        TableError: the file is no table.
        UnknownNameError: no table of that name.
    """
    if isinstance(table, LatencyTable):
        yield table
    else:
        with LatencyTable.open(table, is_writable=is_writable) as found:
            yield found


def size_and_batch(
    table: LatencyTable, input_size: tuple[int, int] | None = None, batch: int | None = None
) -> tuple[tuple[int, int], int]:
    """Image size and batch: what was asked for, else what the table was swept at.

    Args:
        table: says what it was swept at.
        input_size: (height, width) in pixels.
        batch: images per inference.

    Returns:
        ((height, width), batch); ``DEFAULT_SIZE`` and 1 where nothing says.
    """
    try:
        own = space_of(table)
    except TableError:  # swept from single op specs, or imported
        return input_size or DEFAULT_SIZE, batch or 1
    return input_size or own.input_size, batch or (1 if input_size else own.batch)


def specs_of(
    network: HasOpSpecs | SpaceNetwork | Iterable[OpSpec | str] | OpSpec | str | Path,
    table: LatencyTable,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> list[OpSpec]:
    """The op specs of a network, one per execution.

    Args:
        network: an architecture's name or JSON file, an op spec, also as text, several of them, or
            an object with ``op_specs()``.
        table: whose size and batch are taken where none are given.
        input_size: (height, width) of the image in pixels.
        batch: images per inference.

    Raises:
        SpecError: a size or batch for what has its own, or a text that is no op spec.
        UnknownNameError: no architecture of that name.
        ImportFileError: a file that is no architecture.
    """
    if isinstance(network, OpSpec) or _is_op_spec_text(network):
        network = [network]
    if isinstance(network, (str, Path)):
        if Path(network).suffix == ".onnx":
            raise SpecError(
                f"{network}: an ONNX file has to be cut into the table's pieces first: "
                "latlut estimate --onnx does both"
            )
        network = find_network(str(network))
    if isinstance(network, SpaceNetwork):
        return list(network.op_specs(*size_and_batch(table, input_size, batch)))
    if input_size is not None or batch is not None:
        raise SpecError(
            "operator configurations name their own size and batch: leave input_size and batch out"
        )
    found = network.op_specs() if isinstance(network, HasOpSpecs) else network
    return [OpSpec.parse(item) if isinstance(item, str) else item for item in found]


def is_network(
    network: HasOpSpecs | SpaceNetwork | Sequence[OpSpec | str] | OpSpec | str | Path,
) -> bool:
    """Whether ``estimate`` was given a network, which a calibration is for, or operators.

    A network is a name, a file, an object with ``op_specs()``, or several ``OpSpec`` objects, one
    per execution. Operators are a single op spec, and op specs as text.
    """
    if isinstance(network, (str, Path)):
        return not _is_op_spec_text(network)
    if isinstance(network, (HasOpSpecs, SpaceNetwork)):
        return True
    if isinstance(network, OpSpec):
        return False
    return len(network) > 1 and not any(isinstance(item, str) for item in network)


def _is_op_spec_text(network: object) -> TypeGuard[str]:
    return isinstance(network, str) and "->" in network
