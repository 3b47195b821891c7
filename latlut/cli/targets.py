"""``latlut targets``: the hardware that latlut knows, and which of it is here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.commands import Command
from latlut.cli.layout import number_text
from latlut.cli.names import TARGET
from latlut.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from latlut.machine.targets import Target

#: Figure of a target -> its name for people, what it is divided by, and the unit of that.
_FIGURES: Mapping[str, tuple[str, float, str]] = {
    "clock_hz": ("clock", 1e9, "GHz"),
    "memory_bytes": ("memory", 1e9, "GB"),
    "bandwidth_bytes_per_s": ("memory bandwidth", 1e9, "GB/s"),
    "last_level_cache_bytes": ("last-level cache", 1e6, "MB"),
    "cache_bandwidth_bytes_per_s": ("cache bandwidth, at most", 1e9, "GB/s"),
    "peak_fp32_flops_per_s": ("peak, FP32", 1e12, "TFLOP/s"),
    "peak_tf32_flops_per_s": ("peak, TF32", 1e12, "TFLOP/s"),
    "peak_fp16_flops_per_s": ("peak, FP16", 1e12, "TFLOP/s"),
    "peak_bf16_flops_per_s": ("peak, BF16", 1e12, "TFLOP/s"),
    "peak_int8_ops_per_s": ("peak, INT8", 1e12, "TOP/s"),
    "tdp_w": ("board power", 1, "W"),
}


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
        _print_target(target)
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
    click.echo("\ntables that ship with latlut, for --table NAME")
    print_table(
        ["table", "entries", "measured with"], [_shipped(path) for path in shipped_tables()]
    )
    note("latlut table info NAME says more of a table")
    for gpu in here:
        note(f"\nGPU {gpu.index} here: {gpu.name} (--gpu {gpu.target_name or slug(gpu.name)})")
    if not here:
        note(f"\nno GPU here: {gpu_absence_reason()}")


def _print_target(target: Target) -> None:
    """One piece of hardware with its figures, and where they come from."""
    click.echo(f"{target.name}: {target.title}")
    if target.compute_capability is not None:
        click.echo(f"  compute capability: {target.compute_capability}")
    if target.cores is not None:
        units = "streaming multiprocessors" if target.kind == "gpu" else "cores"
        click.echo(f"  {units}: {target.cores}")
    for field, (label, scale, unit) in _FIGURES.items():
        value = getattr(target, field)
        if value is not None:
            click.echo(f"  {label}: {number_text(value / scale)} {unit}")
    if target.notes:
        click.echo(f"  notes: {target.notes}")
    for source in target.sources:
        note(f"  source: {source.what}: {source.url} ({source.checked})")


def _shipped(path: Path) -> list[object]:
    """Name, entries and identity of a table."""
    from latlut.table.table import LatencyTable

    with LatencyTable.open(path) as table:
        return [path.stem, len(table), str(table.identity)]


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
