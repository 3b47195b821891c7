"""``latlut targets``: the hardware that latlut knows, and which of it is here."""

from __future__ import annotations

from pathlib import Path

import click

from latlut.cli.commands import Command
from latlut.cli.names import TARGET
from latlut.cli.output import json_option, print_json, print_table


@click.command(cls=Command)
@click.argument("name", required=False, type=TARGET)
@json_option
def targets(name: str | None, as_json: bool) -> None:
    """List the hardware that latlut knows, with peak figures; NAME shows one with its sources."""
    from dataclasses import asdict

    from latlut.machine.gpus import detect_gpus, gpu_absence_reason, slug
    from latlut.machine.targets import load_target, target_names
    from latlut.table.storage import shipped_tables

    if name:
        target = load_target(name)
        if as_json:
            print_json(asdict(target))
            return
        for key, value in asdict(target).items():
            if key != "sources" and value not in (None, "", ()):
                click.echo(f"{key}: {value}")
        for source in target.sources:
            click.echo(f"source: {source.what}: {source.url} ({source.checked})")
        return
    known = [load_target(item) for item in target_names()]
    here = detect_gpus()
    if as_json:
        print_json(
            {
                "targets": [asdict(t) for t in known],
                "gpus_here": [asdict(g) for g in here],
                "shipped_tables": [path.stem for path in shipped_tables()],
            }
        )
        return
    rows = [
        [
            target.name,
            target.title,
            _scaled(target.peak_fp32_flops_per_s, 1e12),
            _scaled(target.peak_fp16_flops_per_s, 1e12),
            _scaled(target.bandwidth_bytes_per_s, 1e9),
            target.tdp_w,
            "yes"
            if target.kind == "cpu" or any(g.target_name == target.name for g in here)
            else "",
        ]
        for target in known
    ]
    columns = ["target", "hardware", "FP32 TFLOP/s", "FP16 TFLOP/s", "GB/s", "W", "here"]
    print_table(columns, rows)
    click.echo("\ntables that ship with latlut, for --table NAME; latlut table info NAME says more")
    print_table(
        ["table", "entries", "measured with"], [_shipped(path) for path in shipped_tables()]
    )
    for gpu in here:
        click.echo(
            f"\nGPU {gpu.index} here: {gpu.name} (--gpu {gpu.target_name or slug(gpu.name)})"
        )
    if not here:
        click.echo(f"\nno GPU here: {gpu_absence_reason()}")


def _shipped(path: Path) -> list[object]:
    """Name, entries and identity of a table."""
    from latlut.table.table import LatencyTable

    with LatencyTable.open(path) as table:
        return [path.stem, len(table), str(table.identity)]


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
