"""A page as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latlut.errors import SpecError
from latlut.files.writing import written_whole
from latlut.reports.page.parts import Section, number
from latlut.timestamps import now_text
from latlut.version import __version__

HERE = Path(__file__).parent


def page_path(path: str | Path) -> Path:
    """The path of a page to write.

    Raises:
        SpecError: a suffix other than .html and .htm.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"{path}: a report is written as .html, such as {path.stem}.html")
    return path


def write_page(sections: Sequence[Section], path: str | Path, title: str) -> None:
    """Write a page, whole or not at all; its charts' scripts are inside.

    Args:
        sections: what it shows, in order.
        path: .html or .htm; its folder is made, a file that exists is replaced.
        title: of the page.

    Raises:
        SpecError: another suffix.
        WriteError: the file cannot be written.
    """
    path = page_path(path)
    text = page_text(sections, title)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_text(sections: Sequence[Section], title: str) -> str:
    """The page as text. Names from files are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = number
    environment.filters["is_number"] = lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool)
    )
    has_charts = any(block.kind == "chart" for section in sections for block in section.blocks)
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        written_at=now_text(),
        version=__version__,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        bundle=_bundle() if has_charts else "",
    )


def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    # A script element ends at the first "</script", wherever it stands.
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace(
        "</script", "<\\/script"
    )
