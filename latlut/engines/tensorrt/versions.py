"""What the versions of TensorRT and TensorRT-RTX can do: opsets, GPUs, CUDA drivers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from latlut.errors import EngineError
from latlut.machine.provenance import installed_version

T = TypeVar("T")

#: Package -> the first version that has what the session uses (named tensors, optimisation
#: levels). TensorRT's is the last that supports Pascal.
OLDEST = {"tensorrt": (8, 6), "tensorrt_rtx": (1, 0)}

#: How the last line for Pascal is installed. Its libraries are on NVIDIA's index alone, and of the
#: 8.6.1 packages only .post1 looks there: 8.6.1 itself ends in "no matching distribution found".
INSTALL_8_6 = (
    "pip install 'tensorrt==8.6.1.post1', with NVIDIA's package index as --extra-index-url"
)

#: (package, first version) -> newest ONNX opset of its parser. Of each package the last row whose
#: version is not newer than the installed one holds.
#: Sources: onnx-tensorrt, docs/operators.md of the releases 8.6 ("up to Opset 17"), 10.0 ("opset 9
#: to opset 20"), 10.15 and 11.2 ("to opset 24"); TensorRT "ONNX Opset Guide" for 11.x (25, of
#: which the lower of both is taken). TensorRT-RTX has the parser of TensorRT 10.9 or later.
_OPSETS = (
    ("tensorrt", (8, 6), 17),
    ("tensorrt", (10, 0), 20),
    ("tensorrt", (10, 15), 24),
    ("tensorrt_rtx", (1, 0), 20),
)

#: (package, first version) -> lowest compute capability.
#: Sources: TensorRT 8.5.2 release notes (Kepler ends), support matrix of 10.1 ("SM 7.0 or
#: higher"), release notes of 10.5 ("Volta support removed"), TensorRT-RTX 1.0 support matrix.
_OLDEST_GPUS = (
    ("tensorrt", (8, 6), (5, 0)),
    ("tensorrt", (10, 0), (7, 0)),
    ("tensorrt", (10, 5), (7, 5)),
    ("tensorrt_rtx", (1, 0), (7, 5)),
)


@dataclass(frozen=True)
class Release:
    """An installed TensorRT: ``package`` is ``tensorrt`` or ``tensorrt_rtx``."""

    package: str
    version: str

    @property
    def numbers(self) -> tuple[int, int]:
        """(major, minor)."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        if found is None:
            raise EngineError(f"{self.package} {self.version!r} is no version that latlut can read")
        return int(found[1]), int(found[2])

    @property
    def newest_opset(self) -> int:
        """The newest ONNX opset that its parser knows."""
        return self._last_of(_OPSETS)

    @property
    def oldest_gpu(self) -> tuple[int, int]:
        """The lowest compute capability that it builds for."""
        return self._last_of(_OLDEST_GPUS)

    def _last_of(self, rows: Iterable[tuple[str, tuple[int, int], T]]) -> T:
        """The value of the last row that is of the package and not newer than it."""
        here = max(self.numbers, OLDEST[self.package])
        return [value for name, since, value in rows if name == self.package and since <= here][-1]

    @property
    def cuda_major(self) -> int | None:
        """The CUDA version that its libraries are built for; None where its name does not tell.

        The wheels carry it in their names, ``tensorrt-cu13`` or ``tensorrt_rtx_cu13``.
        """
        stem = self.package.replace("_", "-")
        for major in (11, 12, 13, 14):
            for name in (f"{stem}-cu{major}", f"{stem}-cu{major}-bindings"):
                if installed_version(name) == self.version:
                    return major
        return None

    def check_opset(self, opset: int) -> None:
        """Refuse a graph that the parser is too old for.

        Raises:
            EngineError: names both versions.
        """
        if opset > self.newest_opset:
            raise EngineError(
                f"the graph uses ONNX opset {opset}, the parser of {self.package} {self.version} "
                f"knows opsets up to {self.newest_opset}: install a newer {self.package}"
            )

    def check_gpu(self, model: str, capability: tuple[int, int]) -> None:
        """Refuse a GPU that this release no longer builds for.

        Raises:
            EngineError: names the release line that does.
        """
        if capability >= self.oldest_gpu:
            return
        raise EngineError(
            f"{self.package} {self.version} needs compute capability {_dotted(self.oldest_gpu)}, "
            f"{model} has {_dotted(capability)}\n{_line_for(capability)}"
        )


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))


def _line_for(capability: tuple[int, int]) -> str:
    """Where a TensorRT for the GPU can be had."""
    if capability >= (7, 5):
        return "pip install tensorrt"
    if capability >= (7, 0):
        return "the last line for Volta is 10.4: pip install 'tensorrt-cu12==10.4.0'"
    if capability >= (5, 0):
        return (
            f"the last line for Pascal and Maxwell is 8.6, with Python 3.11 at most: {INSTALL_8_6}"
        )
    return "choose another engine: --engine onnxruntime --cpu"
