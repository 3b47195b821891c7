"""What is printed of a network that an engine shows layer by layer."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import click

from latlut.cli.output import is_quiet, note, print_table, range_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latlut.measure.layers import LayerGroup, LayerView
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
    from latlut.measure.sweep_settings import identity_of

    own = table.identity
    target, engine = choose_engine(DeviceChoice.of_identity(own))
    engine.is_compared = is_compared
    table.check_identity(identity_of(engine, target.name, mode=own.mode, statistic=own.statistic))
    with measuring_on(engine):
        return layer_view(engine, nodes, table)


def print_layers(view: LayerView) -> None:
    """Every operator with its layers, layers of no operator, and the largest differences."""
    from latlut.stats.machine_speed import is_disturbed

    click.echo("")
    rows = [
        [
            " + ".join(node.name for node in group.nodes),
            ", ".join(_counted(group)) or "no layer",
            group.estimated_ms,
            group.layers_ms,
            f"{100 * view.share(group.layers_ms):.1f}%",
            None if group.difference_ms is None else difference_text(group.difference_ms),
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
    whole, entries = view.whole_ms, view.estimate
    predicted = f", {100 * entries.predicted_share:.0f}% of it predicted, not measured"
    click.echo(
        f"\n{entries.ms:8.4g} ms  sum of entries"
        f"{'' if entries.is_complete else ', without what the table cannot price'}"
        f"{predicted if entries.predicted else ''}\n"
        f"{view.layers_ms:8.4g} ms  sum of layers, of which {view.added_ms:.4g} ms belong to no "
        f"operator (medians of {view.runs} profiled runs)\n"
        f"{whole.value:8.4g} ms  the whole network without profiling "
        f"({range_text(whole.low, whole.high)})"
    )
    if view.cpu_share is not None and is_disturbed(view.cpu_share):
        note(
            f"note: this process had a CPU for only {100 * view.cpu_share:.0f}% of that time, "
            "others the rest: the whole is too slow beside its layers"
        )
    differences = () if is_quiet() else view.differences()
    if differences:
        click.echo("\nlargest differences between layers and entry:")
    for group in differences:
        names = " + ".join(f"{node.name} ({node.spec})" for node in group.nodes)
        click.echo(f"  {difference_text(group.difference_ms or 0.0):>8} ms  {names}")


def difference_text(ms: float) -> str:
    """``-0.000098``: three significant digits without an exponent; below 0.5 ns ``0.000``."""
    return "0.000" if abs(ms) < 5e-7 else f"{Decimal(f'{ms:.3g}'):+f}"


def layers_as_json(view: LayerView) -> dict[str, object]:
    """The view as JSON-able values; times in milliseconds."""
    return {
        "whole_ms": view.whole_ms.value,
        "whole_ci_low_ms": view.whole_ms.low,
        "whole_ci_high_ms": view.whole_ms.high,
        "entries_ms": view.estimate.ms,
        "is_complete": view.estimate.is_complete,
        "predicted_share": view.estimate.predicted_share,
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
