"""``latlut report``: tables, searches, trainings and comparisons as one page."""

from __future__ import annotations

from pathlib import Path

import click

from latlut.cli.commands import Command
from latlut.cli.output import counted, quiet_option, remark


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"),
    show_default=True, help="The page to write.",
)  # fmt: skip
@click.option("--title", help="Title of the page.", show_default="name of the first file")
@quiet_option
def report(files: tuple[str, ...], out: Path, title: str | None, quiet: bool) -> None:
    """One page that shows FILES: it opens from disk, without a network, and can be sent on.

    FILES are tables (files or bare names), folders of searches and trainings, architectures (.json
    or shipped names), and comparisons (latlut compare --csv). Several tables are also compared.

    \b
    latlut report cpu -o cpu.html
    latlut report before.db after.db -o upgrade.html
    latlut report cpu fasterseg-student runs/search compare.csv -o study.html
    """
    from latlut.files.writing import check_writable
    from latlut.reports.page.collect import sections_of
    from latlut.reports.page.write import page_path, write_page

    check_writable(page_path(out), makes_folder=True)
    sections = sections_of(files)
    write_page(sections, out, title or sections[0].title)
    remark(f"{out}: {counted(len(sections), 'section')}, {out.stat().st_size / 1e6:.1f} MB", quiet)
