"""The version of latlut, for modules below the package's front."""

from __future__ import annotations

__version__ = "0.1.0"
