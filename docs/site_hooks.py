"""For mkdocs: pages of the project's top folder become pages of the site, and links follow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
#: File of the top folder -> page of the site.
PAGES = {
    "README.md": "start.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the top folder's pages."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_on_site(text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Let links that lead out of docs/ lead to the site's pages."""
    for name, target in PAGES.items():
        depth = page.file.src_uri.count("/")
        markdown = markdown.replace(f"]({'../' * (depth + 1)}{name}", f"]({'../' * depth}{target}")
    return markdown


def _on_site(text: str) -> str:
    """A top page's links as of a page in docs/."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return re.sub(r"\]\(docs/", "](", text)
