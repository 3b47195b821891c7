"""Files of built engines and timing caches: what is of no use here is set aside, never loaded."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latlut.engines.tensorrt.cache import CacheFile, EngineCache, packed, unpacked

HERE = {"library": "tensorrt 11.4.0", "device": "NVIDIA H100 9.0"}
words = st.text(max_size=20)


@given(st.binary(max_size=200), st.dictionaries(words, words, max_size=3))
def test_what_is_packed_is_unpacked(content: bytes, made_by: dict[str, str]) -> None:
    made_by.pop("sha256", None)
    assert unpacked(packed(content, made_by), made_by) == (content, "")


@given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(1, 255))
@example(b"\0", packed(b"\0", HERE).index(b'": "') + 2, ord(" ") ^ ord("\t"))
@example(b"", packed(b"", HERE).index(b', "library"') + 1, ord(" ") ^ ord("\t"))
def test_a_damaged_file_is_never_taken(content: bytes, place: int, change: int) -> None:
    data = bytearray(packed(content, HERE))
    data[place % len(data)] ^= change
    assert unpacked(bytes(data), HERE)[0] is None
    assert unpacked(bytes(data[:-1]), HERE)[0] is None


@given(st.binary(max_size=200))
def test_anything_else_is_refused_with_a_reason(data: bytes) -> None:
    content, reason = unpacked(data, HERE)
    assert content is None
    assert reason


@pytest.mark.parametrize(
    ("field", "other"), [("library", "tensorrt 10.9.0"), ("device", "NVIDIA L4 8.9")]
)
def test_another_version_or_gpu_is_named_and_replaced(
    tmp_path: Path, field: str, other: str
) -> None:
    path = tmp_path / "folder" / "some.engine"
    assert CacheFile(path, HERE | {field: other}).write(b"old")
    mine = CacheFile(path, HERE)
    with pytest.warns(UserWarning, match=f"its {field} is {other}, here it is {HERE[field]}"):
        assert mine.read() is None
    assert path.name in mine.remarks[0]
    mine.write(b"new")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mine.read() == b"new"


def test_engines_are_told_apart_by_graph_recipe_and_device(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, HERE)
    paths = {
        cache.file(b"graph", "fp32 build 0").path,
        cache.file(b"other graph", "fp32 build 0").path,
        cache.file(b"graph", "fp16 build 0").path,
        cache.file(b"graph", "fp32 build 1").path,
        EngineCache(tmp_path, HERE | {"device": "NVIDIA L4 8.9"})
        .file(b"graph", "fp32 build 0")
        .path,
    }
    assert len(paths) == 5
    # Another version takes the same place: an engine is on disk once.
    newer = EngineCache(tmp_path, HERE | {"library": "tensorrt 12.0"})
    assert newer.file(b"graph", "fp32 build 0").path in paths


def test_the_least_recently_used_engines_go_first(tmp_path: Path) -> None:
    import os

    cache = EngineCache(tmp_path, HERE)
    files = [cache.file(bytes([number]), "fp32") for number in range(4)]
    for age, file in enumerate(files):
        file.write(b"x" * 1000)
        os.utime(file.path, (1000 - age, 1000 - age))
    assert files[3].read() is not None  # used just now
    cache.trim(limit_bytes=2 * files[0].path.stat().st_size)
    assert [file.path.exists() for file in files] == [True, False, False, True]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    file = CacheFile(blocked / "some.engine", HERE)
    assert not file.write(b"content")
    assert file.read() is None
