"""Files of TensorRT's that outlive a process: built engines by content, and timing caches.

Each begins with a line of JSON that says what made it. A file of another version or GPU, or one
that is damaged, is set aside with a remark and made anew: it is never handed to the library, which
may crash on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_MAGIC = b"latlut-tensorrt-1 "
LIMIT_BYTES = 8 << 30


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def packed(content: bytes, made_by: Mapping[str, str]) -> bytes:
    """The content behind a line that says what made it."""
    header = {**made_by, "sha256": digest_of(content)}
    return _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + content


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
    if not isinstance(header, dict):
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
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        content, reason = unpacked(data, self.made_by)
        if content is None:
            remark = f"{self.path} is not used and will be replaced: {reason}"
            self.remarks.append(remark)
            warnings.warn(remark, stacklevel=2)
            return None
        with suppress(OSError):  # tells ``trim`` what is in use
            os.utime(self.path)
        return content

    def write(self, content: bytes) -> bool:
        """Store atomically; False where it cannot be written, which stops nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(packed(content, self.made_by))
                os.replace(temporary, self.path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError:
            return False
        return True


@dataclass
class EngineCache:
    """Built engines on disk, by what they were built from.

    Args:
        folder: where they live.
        made_by: version of the library and GPU that they are built for: a file of the same name
            with other values is replaced, so that each engine is on disk once.
    """

    folder: Path
    made_by: Mapping[str, str]
    remarks: list[str] = field(default_factory=list)

    def file(self, graph: bytes, recipe: str) -> CacheFile:
        """Where the engine of a graph is.

        Args:
            graph: the ONNX model that is built, precision included.
            recipe: settings and number of the build.
        """
        name = digest_of(f"{digest_of(graph)}\n{recipe}\n{self.made_by.get('device', '')}".encode())
        return CacheFile(self.folder / name[:2] / f"{name}.engine", self.made_by, self.remarks)

    def trim(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Delete the engines that were not used for longest until the rest fits."""
        files = []
        for path in self.folder.glob("*/*.engine"):
            with suppress(OSError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        excess = sum(size for _, size, _ in files) - limit_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def default_folder() -> Path:
    """Where engines are kept unless something else is said: the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("LATLUT_CACHE") or user_cache_path("latlut")) / "tensorrt"
