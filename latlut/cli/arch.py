"""``latlut arch``: show a network as a table and a picture, import the authors' files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.commands import Group
from latlut.cli.names import ARCHITECTURE
from latlut.cli.options import NumbersType, input_option, plot_option
from latlut.cli.output import json_option, note, print_json, print_table
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.spaces import Architecture

_FILE = click.Path(path_type=Path)


@click.group(cls=Group)
def arch() -> None:
    """Show networks of the FasterSeg space; import the architectures that its authors published."""


@arch.command(short_help="A network cell by cell.")
@click.argument("name", type=ARCHITECTURE)
@plot_option("Draw the network into FILE")
@input_option(
    "Image size that multiply-accumulates are counted at.", default="1024x2048", show_default=True
)
@json_option
def show(name: str, plot_path: Path | None, input_size: tuple[int, int], as_json: bool) -> None:
    """A network cell by cell: operators, widths, channels, parameters, multiply-accumulates.

    NAME is a shipped network such as fasterseg-student; FILE an architecture's JSON. Cells that
    both branches share are listed once, as "shared".

    \b
    latlut arch show fasterseg-student
    latlut arch show found.json --plot found.png
    """
    from latlut.search.networks.nodes import architecture_rows
    from latlut.spaces.shipped import find_architecture

    architecture = find_architecture(name)
    rows = architecture_rows(architecture, input_size)
    facts = _facts(architecture, rows)
    if plot_path is not None:
        from latlut.reports.architecture import plot_architecture

        plot_architecture(
            architecture, Path(name).stem, plot_path, subtitle=_totals(facts, input_size)
        )
    if as_json:
        print_json({"name": name, "input_size": input_size, **facts, "nodes": rows})
        return
    click.echo(f"{name}: {_headline(architecture)}")
    click.echo("")
    columns = ["node", "operator", "scale", "width", "channels", "stride",
               "k params", "M MACs"]  # fmt: skip
    print_table(
        columns,
        [
            [
                row["node"],
                row["operator"],
                f"1/{row['in_scale']}"
                + (f" to 1/{row['scale']}" if row["scale"] != row["in_scale"] else ""),
                "" if row["width"] is None else f"{row['width']}/12",
                f"{'+'.join(map(str, row['in_channels']))} to {row['channels']}",
                row["stride"],
                row["parameters"] / 1e3,
                row["macs"] / 1e6,
            ]
            for row in rows
        ],
        spare=("stride", "width"),
    )
    click.echo("")
    click.echo(_totals(facts, input_size))
    if plot_path is not None:
        note(f"drawn into {plot_path}")


@arch.command(name="import", short_help="Read an architecture file of the FasterSeg authors.")
@click.argument("file", type=_FILE)
@click.option("-o", "--out", type=_FILE, required=True, metavar="FILE", help="JSON file to write.")
@click.option(
    "--decoding", type=click.Choice(["released", "corrected", "path"]), default="released",
    show_default=True,
    help="How positions are read: as by the authors' code, or by latlut's rules.",
)  # fmt: skip
@click.option(
    "--scales", "branches",
    type=NumbersType(
        "SCALES", "branches: two of 8, 16, 32, such as 16,32", lambda scale: scale in (8, 16, 32)
    ),
    help="Scales of the branches, e.g. 16,32.", show_default="by the file's scores",
)  # fmt: skip
@json_option
def import_(
    file: Path, out: Path, decoding: str, branches: tuple[int, ...] | None, as_json: bool
) -> None:
    """Read the FasterSeg authors' arch_0.pt (teacher) or arch_1.pt (student) into a JSON file.

    Nothing in the file is executed: one that holds anything but tensors and numbers is refused.

    \b
    latlut arch import arch_1.pt -o student.json
    latlut estimate --table 1080ti --arch student.json
    """
    from latlut.search.derive.published import read_published

    if out.suffix.lower() != ".json":
        raise LatlutError(f"{out}: an architecture is written as .json, such as {file.stem}.json")
    branches = tuple(sorted(branches)) if branches else None
    found = read_published(file, decoding, branches)  # type: ignore[arg-type]  # a Choice
    found.architecture.save(out)
    if as_json:
        print_json(
            {
                "file": str(file),
                "out": str(out),
                "role": found.role,
                "decoding": decoding,
                "branches": found.scales,
                "chosen_by": "option" if branches else "scores",
                "scores": [
                    {"branches": scales, "miou": miou, "latency_ms": latency_ms}
                    for scales, (miou, latency_ms) in found.scores.items()
                ],
            }
        )
        return
    click.echo(f"{out}: the {found.role} of {file}, {_headline(found.architecture)}")
    for scales, (miou, latency_ms) in found.scores.items():
        mark = "  <- chosen" if scales == found.scales and not branches else ""
        named = ",".join(map(str, scales))
        note(f"  branches {named}: mIoU {miou:.4g}, {latency_ms:.4g} ms stored{mark}")
    if found.role == "teacher" and found.scores:
        note("  a teacher's file holds the scores of the student beside it")


def _headline(architecture: Architecture) -> str:
    scales = " and ".join(f"1/{branch.scale}" for branch in architecture.branches)
    depths = " and ".join(str(len(branch.cells)) for branch in architecture.branches)
    return (
        f"branches at {scales} of {depths} cells, {architecture.shared_cells} shared; "
        f"stem {architecture.stem_width}/12, head {architecture.head_width}/12"
    )


def _facts(architecture: Architecture, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "branches": [
            {"scale": branch.scale, "cells": len(branch.cells)} for branch in architecture.branches
        ],
        "shared_cells": architecture.shared_cells,
        "stem_width": architecture.stem_width,
        "head_width": architecture.head_width,
        "parameters": sum(row["parameters"] for row in rows),
        "macs": sum(row["macs"] for row in rows),
    }


def _totals(facts: dict[str, Any], input_size: tuple[int, int]) -> str:
    height, width = input_size
    return (
        f"{facts['parameters'] / 1e6:.3f} M parameters, "
        f"{facts['macs'] / 1e9:.2f} G multiply-accumulates at {height}x{width}"
    )
