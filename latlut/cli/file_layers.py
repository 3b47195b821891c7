"""``latlut layers``: what an engine runs for an ONNX file, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import as_in_table, device_options
from latlut.cli.commands import Command
from latlut.cli.names import TABLE
from latlut.cli.options import batch_option, input_option, shape_option, unchecked_option
from latlut.cli.output import json_option, note, print_json, print_table, range_text

if TYPE_CHECKING:
    from latlut.measure.layers import MeasuredLayers


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@device_options
@click.option(
    "--table", "table_name", type=TABLE,
    help="Show the layers beside the entries of this table, on its engine and device.",
)  # fmt: skip
@input_option("Image size, where the file leaves it open.")
@batch_option("Images per inference, where the file leaves it open.", show_default="1")
@shape_option
@click.option(
    "--runs",
    type=click.IntRange(1, 10000),
    default=20,
    show_default=True,
    help="Number of profiled runs.",
)
@unchecked_option
@json_option
def layers(
    file: Path, gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...], table_name: str | None,
    input_size: tuple[int, int] | None, batch: int | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...], runs: int, unchecked: bool, as_json: bool,
) -> None:  # fmt: skip
    """The engine's own layers of an ONNX file, with their times and the nodes in them.

    With --table, the file's pieces and their entries are shown beside the layers.

    \b
    latlut layers network.onnx --cpu --engine openvino
    latlut layers network.onnx --table cpu
    """
    from latlut.cli.layers import layers_as_json, print_layers
    from latlut.cli.onnx import cut_as_in
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.held_device import measuring_on
    from latlut.measure.layers import file_view, measure_file
    from latlut.measure.onnx_plans import read_files
    from latlut.measure.sweep_settings import identity_of
    from latlut.table.table import LatencyTable

    (workload,) = read_files([file], input_size, batch, dict(shapes))
    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    if table_name is None:
        _, chosen = choose_engine(choice)
        chosen.is_compared = not unchecked
        with measuring_on(chosen):
            found = measure_file(chosen, workload, "p10", runs)
        if as_json:
            print_json(_file_as_json(found))
        else:
            _print_file(found)
        return
    with LatencyTable.open(table_name) as table:
        own = table.identity
        target, chosen = choose_engine(as_in_table(choice, own))
        chosen.is_compared = not unchecked
        table.check_identity(
            identity_of(chosen, target.name, mode=own.mode, statistic=own.statistic)
        )
        with measuring_on(chosen):
            (cut,) = cut_as_in(table, [workload], chosen)
            view = file_view(chosen, workload, cut, table, runs)
    if as_json:
        print_json(layers_as_json(view) | {"left_out": list(cut.unpriced)})
        return
    print_layers(view)
    for text in cut.unpriced:
        note(f"in no piece: {text}")


def _print_file(found: MeasuredLayers) -> None:
    total = sum(layer.time_ms for layer in found.layers)
    rows = [
        [
            layer.kind,
            layer.time_ms,
            f"{100 * layer.time_ms / total:.1f}%" if total else "",
            layer.detail,
            ", ".join(layer.source_nodes) or "none",
        ]
        for layer in found.layers
    ]
    print_table(["layer", "ms", "share", "detail", "nodes"], rows)
    whole = found.whole_ms
    click.echo(
        f"\n{total:8.4g} ms  sum of layers (medians of {found.runs} profiled runs)\n"
        f"{whole.value:8.4g} ms  the whole without profiling ({range_text(whole.low, whole.high)})"
    )


def _file_as_json(found: MeasuredLayers) -> dict[str, object]:
    return {
        "whole_ms": found.whole_ms.value,
        "whole_ci_low_ms": found.whole_ms.low,
        "whole_ci_high_ms": found.whole_ms.high,
        "profiled_runs": found.runs,
        "cpu_share": found.cpu_share,
        "layers": [vars(layer) for layer in found.layers],
    }
