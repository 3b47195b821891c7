"""Damaged files of every kind: a reader refuses them with a LatlutError or reads them.

The test by default mutates whole files at random, seeded. The long one is guided by coverage and
needs atheris (``pip install atheris``); ``python tests/fuzz/guided.py`` runs one reader for longer.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from fuzz.fuzz_readers import READERS, accepts, seeds_of
from fuzz.large_inputs import LARGE, MOST_MB, cost_of

#: Readers whose large files are read in every run; those of the others take six minutes.
_BOUNDED = ("table", "parquet", "picture")
#: Mutations of each reader: half a second.
MUTATIONS = 300
_WORDS = (
    b"\0", b"\xff" * 4, b"-1", b"nan", b"inf", b"1e999", b"9" * 30, b"true", b"null", b"[" * 40,
    b"{", b"}", b".", b",", b'"', b"'", b"\n", b"\r", b"#", b"=", b"\x80\xd8", b"\x7f\xff\xff\xff",
)  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes changed, cut, repeated or replaced by words that hurt."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 1, 1, 2, 8, 64)))
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[start % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[start:end] = chance.choice(_WORDS)
        elif kind == 2:
            data[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
        elif kind == 3:
            data[start:start] = data[start:end] * chance.choice((1, 2, 50))
        else:
            del data[start : end if chance.random() < 0.8 else len(data)]
    return bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = tmp_path / f"whole{reader.suffix}"
    if name == "classes":  # it names folders, which are not there
        assert not accepts(reader, path, seeds_of(name)[0])
        return
    if name == "inputs":
        assert accepts(reader, path.with_suffix(".npy"), seeds_of(name)[0])
    assert all(accepts(reader, path, content) for content in seeds_of(name))


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    reader, chance = READERS[name], random.Random(zlib.crc32(name.encode()))
    refused = 0
    for _ in range(MUTATIONS):
        content = mutated(chance.choice(seeds_of(name)), chance)
        refused += not accepts(reader, tmp_path / f"f{reader.suffix}", content)
    assert refused > MUTATIONS // 20  # they are no longer whole files


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_guided_by_coverage_nothing_crashes(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    command = [sys.executable, Path(__file__).with_name("guided.py"), name, "--seconds", "60"]
    command += ["--corpus", tmp_path]
    found = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    assert found.returncode == 0, found.stderr[-4000:]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in _BOUNDED else pytest.mark.long)
        for name in LARGE
    ],
)
def test_large_files_take_little_memory(name: str) -> None:
    """The dearest files of up to 10 MB that we know of; seconds are printed by ``large_inputs``."""
    for label, content in LARGE[name]().items():
        cost = cost_of(name, content)
        assert not cost.error, f"{label}: {cost}"
        assert cost.grown_mb < MOST_MB, f"{label}: {cost}"
