"""What an engine runs, layer by layer: ``latlut layers`` and ``latlut estimate --layers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import as_in_table, device_options
from latlut.cli.options import batch_option, input_option, shape_option, unchecked_option
from latlut.cli.output import json_option, print_json, print_table, range_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latlut.measure.layers import LayerGroup, LayerView, MeasuredLayers
    from latlut.opspec import Node
    from latlut.table.table import LatencyTable


def measure_layers(
    table: LatencyTable, nodes: Sequence[Node], is_compared: bool = True
) -> LayerView:
    """Run the network on the table's own engine and device.

    Raises:
        LatlutError: engine or hardware are not here, or are not those of the table; the device is
            being measured on.
    """
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.held_device import measuring_on
    from latlut.measure.layers import layer_view
    from latlut.measure.sweep import identity_of

    own = table.identity
    target, engine = choose_engine(DeviceChoice.of_identity(own))
    engine.is_compared = is_compared
    table.check_identity(identity_of(engine, target.name, mode=own.mode, statistic=own.statistic))
    with measuring_on(engine):
        return layer_view(engine, nodes, table)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@device_options
@click.option(
    "--table", "table_name", metavar="NAME|FILE",
    help="Set the layers beside the entries of this table's pieces; its engine and device.",
)  # fmt: skip
@input_option("Image size, of a file that leaves it open.")
@batch_option("Images per inference, of a file that leaves it open [1].")
@shape_option
@click.option(
    "--runs", type=click.IntRange(1, 10000), default=20, show_default=True, help="Profiled runs."
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

    With --table the pieces of the file and their entries stand beside the layers.

    \b
    latlut layers network.onnx --cpu --engine openvino
    latlut layers network.onnx --table cpu
    """
    from latlut.cli.onnx import cut_as_in
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.held_device import measuring_on
    from latlut.measure.layers import file_view, measure_file
    from latlut.measure.onnx_plans import read_files
    from latlut.measure.sweep import identity_of
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
        click.echo(f"in no piece: {text}")


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


def print_layers(view: LayerView) -> None:
    """Every operator with its layers, what belongs to none, and where the sums part ways."""
    from latlut.stats.machine_speed import is_disturbed

    click.echo("")
    rows = [
        [
            " + ".join(node.name for node in group.nodes),
            ", ".join(_counted(group)) or "no layer",
            group.estimated_ms,
            group.layers_ms,
            f"{100 * view.share(group.layers_ms):.1f}%",
            group.difference_ms,
        ]
        for group in view.groups
    ]
    columns = ["operator", "layers", "entry, ms", "layers, ms", "share", "difference, ms"]
    print_table(columns, rows, title="as the engine runs it")
    if view.added:
        click.echo("\nlayers of no operator:")
        for layer in sorted(view.added, key=lambda layer: -layer.time_ms):
            click.echo(f"  {layer.time_ms:8.4g} ms  {layer.kind}  {layer.name}")
    if view.fused():
        click.echo("\nlayers across operators:")
        for group in view.fused():
            click.echo(f"  {' + '.join(node.name for node in group.nodes)}")
    whole = view.whole_ms
    click.echo(
        f"\n{view.estimate.ms:8.4g} ms  sum of entries"
        f"{'' if view.estimate.is_complete else ', without what the table cannot price'}\n"
        f"{view.layers_ms:8.4g} ms  sum of layers, of which {view.added_ms:.4g} ms belong to no "
        f"operator (medians of {view.runs} profiled runs)\n"
        f"{whole.value:8.4g} ms  the whole network without profiling "
        f"({range_text(whole.low, whole.high)})"
    )
    if view.cpu_share is not None and is_disturbed(view.cpu_share):
        click.echo(
            f"note: this process had a CPU for only {100 * view.cpu_share:.0f}% of that time, "
            "others the rest: the whole is too slow beside its layers"
        )
    click.echo("\nfurthest apart, layers against entry:")
    for group in view.differences():
        names = " + ".join(f"{node.name} ({node.spec})" for node in group.nodes)
        click.echo(f"  {group.difference_ms:+8.4g} ms  {names}")


def layers_as_json(view: LayerView) -> dict[str, object]:
    """The view as JSON-able values; times in milliseconds."""
    return {
        "whole_ms": view.whole_ms.value,
        "whole_ci_low_ms": view.whole_ms.low,
        "whole_ci_high_ms": view.whole_ms.high,
        "layers_ms": view.layers_ms,
        "added_ms": view.added_ms,
        "profiled_runs": view.runs,
        "cpu_share": view.cpu_share,
        "groups": [
            {
                "nodes": [{"name": node.name, "op_spec": node.spec.key} for node in group.nodes],
                "estimated_ms": group.estimated_ms,
                "layers_ms": group.layers_ms,
                "share": view.share(group.layers_ms),
                "difference_ms": group.difference_ms,
                "layers": [vars(layer) for layer in group.layers],
            }
            for group in view.groups
        ],
        "added": [vars(layer) for layer in view.added],
    }


def _counted(group: LayerGroup) -> list[str]:
    """The kinds of a group's layers, "2 Convolution", in order of first appearance."""
    from collections import Counter

    kinds = Counter(layer.kind for layer in group.layers)
    return [f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items()]
