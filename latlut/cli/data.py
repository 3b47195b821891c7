"""``latlut data``: look at a data set before a search or a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.commands import Group
from latlut.cli.options import input_option, seed_option
from latlut.cli.output import json_option, print_json, print_table, quiet_option, remark
from latlut.cli.progress import progress_bar

if TYPE_CHECKING:
    from latlut.search.data.checking import SplitReport
    from latlut.search.data.dataset import SegmentationData

_SHOWN = 20  # problems that are printed
_SAMPLES = 8


@click.group(cls=Group)
def data() -> None:
    """Check the data for a search or a training."""


@data.command(shows_progress=True, short_help="Read all images and masks; list sizes and problems.")
@click.argument("name", metavar="NAME|PATH")
@input_option("Size of generated scenes.", show_default="128x256")
@seed_option("Random seed of generated scenes.", show_default="0")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of threads that read.",
)
@click.option(
    "--sample", type=click.Path(dir_okay=False, writable=True), metavar="FILE.png",
    help="Write a sheet of training images beside their labels.",
)  # fmt: skip
@json_option
@quiet_option
@click.pass_context
def check(
    ctx: click.Context,
    name: str,
    input_size: tuple[int, int] | None,
    seed: int | None,
    workers: int,
    sample: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read every image and mask of a data set; list sizes, classes and problems.

    \b
    NAME|PATH is street-scenes (generated), cityscapes:FOLDER, camvid:FOLDER, bdd100k:FOLDER,
    a folder whose layout is one of these, or a class file *.toml.

    Files that were fine before and have not changed are not read again. Exit code 1 if there
    are problems.
    """
    from dataclasses import asdict

    from latlut.progress import Progress
    from latlut.search.data.checking import inspect_data
    from latlut.search.data.opening import open_data

    opened = open_data(name, size=input_size, seed=seed)
    with progress_bar(f"read {opened.name}", quiet) as listener:
        reports = inspect_data(
            opened, workers,
            listener=lambda done, total: listener(Progress(done, total, 0, "", None)),
        )  # fmt: skip
    if as_json:
        print_json(
            {
                "name": opened.name,
                "classes": opened.classes.names,
                "splits": {
                    split: asdict(report) | {"sizes": _sizes(report)}
                    for split, report in reports.items()
                },
            }
        )
    else:
        _print_reports(opened, reports)
    problems = [problem for report in reports.values() for problem in report.problems]
    for problem in problems[:_SHOWN]:
        click.echo(problem, err=True)
    if len(problems) > _SHOWN:
        click.echo(f"... and {len(problems) - _SHOWN} more", err=True)
    if sample and not problems:
        _write_sample(opened, sample)
        remark(f"{sample}: written", quiet)
    elif sample:
        remark(f"{sample}: not written, because there are problems")
    if problems:
        ctx.exit(1)


def _print_reports(opened: SegmentationData, reports: dict[str, SplitReport]) -> None:
    click.echo(f"{opened.name}: {opened.classes.count} classes")
    print_table(
        ["split", "images", "read", "problems", "height x width"],
        [
            [name, report.count, report.looked_at, len(report.problems), _size_text(report)]
            for name, report in reports.items()
        ],
    )
    click.echo("")
    print_table(
        ["share of pixels, %", *reports],
        [
            [class_name, *(_share(report, number) for report in reports.values())]
            for number, class_name in enumerate(opened.classes.names)
        ]
        + [["(ignored)", *(_share(report, None) for report in reports.values())]],
    )


def _sizes(report: SplitReport) -> dict[str, int]:
    return {f"{height}x{width}": count for (height, width), count in report.sizes.items()}


def _size_text(report: SplitReport) -> str:
    sizes = list(_sizes(report))
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    return ", ".join(sizes[:3]) + more


def _share(report: SplitReport, number: int | None) -> float | None:
    total = sum(report.class_pixels) + report.ignored_pixels
    pixels = report.ignored_pixels if number is None else report.class_pixels[number]
    return 100 * pixels / total if total else None


def _write_sample(opened: SegmentationData, path: str) -> None:
    from latlut.errors import LatlutError
    from latlut.files.writing import written_whole
    from latlut.search.data.contact_sheet import contact_sheet

    count = min(_SAMPLES, len(opened.train))
    indices = [number * len(opened.train) // count for number in range(count)]
    sheet = contact_sheet(opened.train, opened.classes, indices)
    with written_whole(Path(path), makes_folder=False) as temporary:
        try:
            sheet.save(temporary)
        except ValueError as error:
            raise LatlutError(f"--sample {path}: cannot be written: {error}") from error
