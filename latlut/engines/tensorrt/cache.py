"""Files of TensorRT's that outlive a process: built engines by content, and timing caches.

Each begins with a line of JSON that says what made it. A file of another version or GPU, or one
that is damaged, is set aside with a remark and made anew: it is never handed to the library, which
may crash on it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latlut.files.writing import BoundedFolder, read_cached, write_cached

_MAGIC = b"latlut-tensorrt-1 "
LIMIT_BYTES = 8 << 30


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def packed(content: bytes, made_by: Mapping[str, str]) -> bytes:
    """The content behind a line that says what made it."""
    return _MAGIC + _line({**made_by, "sha256": digest_of(content)}) + b"\n" + content


def _line(header: Mapping[str, str]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def unpacked(data: bytes, made_by: Mapping[str, str]) -> tuple[bytes | None, str]:
    """The content of a packed file, or None and why it is of no use here.

    Args:
        data: the file's bytes.
        made_by: what the file must have been made by, such as the version.
    """
    line, newline, content = data.partition(b"\n")
    if not line.startswith(_MAGIC) or not newline:
        return None, "it is not a file of latlut's, or it is damaged"
    try:
        header = json.loads(line[len(_MAGIC) :])
    except ValueError:
        return None, "its header is damaged"
    # Damage may leave JSON of the same content: a tab for a space.
    if not isinstance(header, dict) or _line(header) != line[len(_MAGIC) :]:
        return None, "its header is damaged"
    for name, wanted in made_by.items():
        if header.get(name) != wanted:
            return None, f"its {name} is {header.get(name)}, here it is {wanted}"
    if header.get("sha256") != digest_of(content):
        return None, "its content is damaged"
    return content, ""


@dataclass
class CacheFile:
    """One packed file.

    ``made_by`` is what its content depends on beside its name, at least the version; ``remarks``
    collects why a file was set aside.
    """

    path: Path
    made_by: Mapping[str, str]
    remarks: list[str] = field(default_factory=list)

    def read(self) -> bytes | None:
        """The content; None where there is none for this version and GPU, with a warning."""
        data = read_cached(self.path)
        if data is None:
            return None
        content, reason = unpacked(data, self.made_by)
        if content is None:
            remark = f"{self.path} is not used and will be replaced: {reason}"
            self.remarks.append(remark)
            warnings.warn(remark, stacklevel=2)
            return None
        return content

    def write(self, content: bytes) -> bool:
        """Store it whole; False where it cannot be written, which stops nothing."""
        return write_cached(self.path, packed(content, self.made_by))


class EngineCache(BoundedFolder):
    """Built engines on disk, by what they were built from.

    Args:
        folder: where they live.
        made_by: version of the library and GPU that they are built for: a file of the same name
            with other values is replaced, so that each engine is on disk once.

    Attributes:
        remarks: why files were set aside.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, str]) -> None:
        super().__init__(folder, ".engine", LIMIT_BYTES)
        self.made_by = made_by
        self.remarks: list[str] = []

    def file(self, graph: bytes, recipe: str) -> CacheFile:
        """Where the engine of a graph is.

        Args:
            graph: the ONNX model that is built, precision included.
            recipe: settings and number of the build.
        """
        name = digest_of(f"{digest_of(graph)}\n{recipe}\n{self.made_by.get('device', '')}".encode())
        return CacheFile(self.path_of(name), self.made_by, self.remarks)
