"""Headless Chromium, where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def headless(profile: Path, *words: str) -> list[str]:
    """The command that opens Chromium with its profile in a folder; ``words`` are further ones."""
    return [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={profile}", *words,
    ]  # fmt: skip
