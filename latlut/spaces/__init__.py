"""Search spaces and their discrete networks, without torch."""

import latlut.spaces.onnx_files  # noqa: F401  # registers it
from latlut.spaces.architecture import Architecture, Branch, Cell
from latlut.spaces.fasterseg import FasterSegSpace

__all__ = ["Architecture", "Branch", "Cell", "FasterSegSpace"]
