"""Samples of a measurement as they are stored: compressed, and never more than can be meant."""

from __future__ import annotations

import zlib

import numpy as np

from latlut.errors import TableError

#: The most samples of one measurement; a sweep takes 1,000 unless told otherwise.
MOST_SAMPLES = 1_000_000


def pack_samples(samples_ns: np.ndarray) -> bytes:
    """(n,) nanoseconds as compressed little-endian int64."""
    return zlib.compress(np.ascontiguousarray(samples_ns, dtype="<i8").tobytes(), 6)


def unpack_samples(blob: bytes) -> np.ndarray:
    """(n,) int64 nanoseconds of what ``pack_samples`` made.

    Raises:
        TableError: it made something else, or more than ``MOST_SAMPLES``.
    """
    return np.frombuffer(unpacked_bytes(blob), dtype="<i8")


def unpacked_bytes(blob: bytes) -> bytes:
    """The same as 8 bytes a sample, for many blobs at once."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(blob, 8 * MOST_SAMPLES + 1)
    except (zlib.error, TypeError) as error:
        raise TableError(f"samples that cannot be decompressed: {error}") from error
    if len(data) > 8 * MOST_SAMPLES:
        raise TableError(f"more than {MOST_SAMPLES} samples of one measurement")
    if not stream.eof or len(data) % 8:
        raise TableError(f"samples that are cut short, after {len(data)} bytes")
    return data
