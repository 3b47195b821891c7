"""A network as a file that runs without latlut, compared with PyTorch before it is put in place.

    onnx               one file; ONNX Runtime, OpenVINO, TensorRT and others read it
    openvino           OpenVINO IR: an .xml and the weights in a .bin beside it
    torchscript        a trace, for PyTorch in C++ and mobile runtimes
    exported-program   torch.export's format

Every file is loaded again by what runs it, and its output compared with PyTorch's on random
images; one that differs is refused and removed. The files carry what a user has to know: classes,
normalisation, the meaning of the output.

Symbols: B batch, C classes, H, W sides of the image in pixels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from latlut.errors import LatlutError, SpecError, UnknownNameError, did_you_mean
from latlut.files.writing import written_whole
from latlut.operators.onnx_export import OPSET
from latlut.search.data.augment import IMAGENET_MEAN, IMAGENET_STD
from latlut.search.deploy.export_formats import FORMATS, OPSETS, Run
from latlut.search.networks.deployable import Deployable
from latlut.version import __version__

#: Sides of the image below which nothing is left at 1/32.
SMALLEST_SIDE = 32


class ExportError(LatlutError):
    """A network that cannot be exported, or a file that computes something else than PyTorch."""


@dataclass(frozen=True)
class ExportSettings:
    """What is exported.

    ``input_size`` (H, W); ``batch`` images per inference, with ``is_batch_dynamic`` any number of
    them; ``opset`` of ONNX, also on the way to OpenVINO; ``has_upsample`` and ``has_argmax`` as in
    ``Deployable.module``. ``tolerance`` is the largest difference of logits, relative to the
    largest logit, and ``equal_share`` the smallest share of equal pixels of a class map, that
    passes. ``seed`` of the random images.

    Raises:
        SpecError: an image, batch or opset out of range.
    """

    input_size: tuple[int, int]
    batch: int = 1
    is_batch_dynamic: bool = False
    opset: int = OPSET
    has_upsample: bool = True
    has_argmax: bool = False
    tolerance: float = 1e-3
    equal_share: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.input_size) < SMALLEST_SIDE:
            raise SpecError(
                f"an image has sides of at least {SMALLEST_SIDE} pixels, received "
                f"{self.input_size[0]}x{self.input_size[1]}"
            )
        if self.batch < 1:
            raise SpecError(f"batch must be at least 1, received {self.batch}")
        if not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise SpecError(
                f"PyTorch writes these networks in ONNX opset {OPSETS[0]} to {OPSETS[1]}, "
                f"received {self.opset}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(B, 3, H, W)."""
        return (self.batch, 3, *self.input_size)


@dataclass(frozen=True)
class Comparison:
    """How far a file's output is from PyTorch's.

    ``max_relative_difference`` of logits, over the largest logit; ``equal_pixels`` the share of
    equal pixels of a class map. The other one is None. ``batches`` that were compared.
    """

    max_relative_difference: float | None
    equal_pixels: float | None
    batches: tuple[int, ...]

    def describe(self) -> str:
        """For people: ``largest difference from PyTorch 3.1e-07 of the largest logit``."""
        if self.equal_pixels is not None:
            return f"{100 * self.equal_pixels:.4g}% of the pixels have PyTorch's class"
        return (
            f"largest difference from PyTorch {self.max_relative_difference:.2g} of the largest "
            "logit"
        )


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, with its neighbours, and how it compares with PyTorch.

    ``output_shape`` (B, C, h, w) of logits or (B, h, w) of a class map.
    """

    path: Path
    neighbours: tuple[Path, ...]
    file_format: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    comparison: Comparison

    @property
    def size_bytes(self) -> int:
        """Of the file and its neighbours."""
        return sum(path.stat().st_size for path in (self.path, *self.neighbours))


def export(
    network: Deployable, path: str | Path, file_format: str, settings: ExportSettings
) -> ExportedFile:
    """Write the network to a file, load it again, and compare it with PyTorch.

    Args:
        network: what is exported.
        path: of the file, with the format's ending; it is replaced only by a file that agrees.
        file_format: one of ``FORMATS``.
        settings: size, batch, what the output is.

    Raises:
        UnknownNameError: no such format.
        ExportError: another ending than the format's, a network that the exporter rejects, or a
            file that differs from PyTorch or cannot be loaded; nothing is left of it.
        WriteError: the disk is full, or the folder cannot be written.
        LatlutError: an output that the network does not have.
    """
    path = Path(path)
    if file_format not in FORMATS:
        raise UnknownNameError(
            f"unknown format {file_format!r}; {did_you_mean(file_format, list(FORMATS))}"
        )
    chosen = FORMATS[file_format]
    check_ending(path, file_format, chosen.endings)
    module = network.module(settings.input_size, settings.has_upsample, settings.has_argmax)
    facts = json.dumps(file_facts(network, settings))
    images = random_images(settings)
    with torch.inference_mode():
        expected = [module(torch.from_numpy(image)).numpy() for image in images]
    with written_whole(path) as temporary:
        with _failures(f"{network.name} cannot be written as {file_format}"):
            chosen.write(module, temporary, settings, facts)
        with _failures(f"{file_format} was written but cannot be run again"):
            comparison = compare(chosen.load(temporary), images, expected)
        check(comparison, settings, file_format)
        names = [item.name for item in temporary.parent.iterdir() if item != temporary]
    neighbours = tuple(path.with_name(name) for name in sorted(names))
    return ExportedFile(
        path, neighbours, file_format, settings.input_shape, expected[0].shape, comparison
    )


def check_ending(path: Path, file_format: str, endings: tuple[str, ...]) -> None:
    """Refuse, with ExportError, a path that ends as files of another format do."""
    if path.suffix.lower() not in endings:
        raise ExportError(
            f"{path}: a file of format {file_format} ends in {' or '.join(endings)}, such as "
            f"{path.stem or 'network'}{endings[0]}"
        )
    if path.is_dir():
        raise ExportError(f"{path} is a folder: name a file")


def file_facts(network: Deployable, settings: ExportSettings) -> Mapping[str, object]:
    """What a user of the file has to know, JSON-able; it is written into the file."""
    return {
        "latlut": __version__,
        "network": network.name,
        "weights": network.kind,
        "input": {
            "type": "float32",
            "layout": "batch, RGB, height, width",
            "size": list(settings.input_size),
            "batch": "any" if settings.is_batch_dynamic else settings.batch,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "range": "0 to 1 before mean and std",
            "image_scale": network.image_scale,
        },
        "output": {
            "what": "best class" if settings.has_argmax else "logits",
            "size": "the image's" if settings.has_upsample else "the network's own",
        },
        "num_classes": network.num_classes,
        "classes": list(network.classes),
    }


def random_images(settings: ExportSettings) -> list[np.ndarray]:
    """Standard normal images to compare on, float32; of two batches where the batch is open."""
    generator = np.random.default_rng(settings.seed)
    batches = (
        [settings.batch, settings.batch + 1] if settings.is_batch_dynamic else [settings.batch]
    )
    return [
        generator.standard_normal((batch, *settings.input_shape[1:]), dtype=np.float32)
        for batch in batches
    ]


def compare(run: Run, images: list[np.ndarray], expected: list[np.ndarray]) -> Comparison:
    """How far a loaded file's outputs are from the expected ones; NaN and other shapes are far.

    Args:
        run: image (B, 3, H, W) -> output.
        images: float32, one per batch.
        expected: logits (B, C, h, w) float32 or class maps (B, h, w) int64, one per image.
    """
    difference, equal = 0.0, 1.0
    is_map = not np.issubdtype(expected[0].dtype, np.floating)
    for image, wanted in zip(images, expected, strict=True):
        found = run(image)
        if found.shape != wanted.shape:
            raise ExportError(f"the file gives {found.shape}, PyTorch {wanted.shape}")
        if is_map:
            equal = min(equal, float(np.mean(found == wanted)))
            continue
        scale = float(np.abs(wanted).max()) or 1.0
        ratio = float(np.abs(found - wanted).max()) / scale
        difference = ratio if not ratio <= difference else difference  # NaN stays
    batches = tuple(len(image) for image in images)
    return Comparison(None if is_map else difference, equal if is_map else None, batches)


def check(comparison: Comparison, settings: ExportSettings, file_format: str) -> None:
    """Refuse, with ExportError, a file that is too far from PyTorch."""
    equal, difference = comparison.equal_pixels, comparison.max_relative_difference
    if equal is not None and not equal >= settings.equal_share:
        raise ExportError(
            f"the {file_format} file differs from PyTorch: {comparison.describe()}, at least "
            f"{100 * settings.equal_share:.4g}% must; the file was removed"
        )
    if difference is not None and not difference <= settings.tolerance:
        raise ExportError(
            f"the {file_format} file differs from PyTorch: {comparison.describe()}, allowed "
            f"{settings.tolerance:.2g}; the file was removed"
        )


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Whatever an exporter or a runtime raises becomes ExportError that says what was tried.

    Their warnings, about traced sizes and about themselves, say nothing that the comparison does
    not say better.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (LatlutError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"{what}: {error}") from error
