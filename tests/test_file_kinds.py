"""Files of another kind than expected are called what they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx_models import segmenter
from PIL import Image

from latlut.cli import main
from latlut.files.kinds import kind_of_file


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE a (b)")


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an ONNX model": (".onnx", lambda path: path.write_bytes(segmenter())),
    "an SQLite file": (".db", database),
    "a PNG picture": (".png", lambda path: Image.new("L", (2, 2)).save(path)),
    "a JPEG picture": (".jpg", lambda path: Image.new("L", (2, 2)).save(path)),
    "a NumPy array": (".npy", lambda path: np.save(path, np.zeros(3))),
    "NumPy arrays": (".npz", lambda path: np.savez(path, a=np.zeros(3))),
    "a model of OpenVINO": (".xml", lambda path: path.write_text('<?xml version="1.0"?>\n<net/>')),
    "a TensorRT engine": (".engine", lambda path: path.write_bytes(b"ftrt" + bytes(40))),
    "a JSON text": (".json", lambda path: path.write_text('{"a": 1}')),
    "a file of entries": (".csv", lambda path: path.write_text("op_spec,latency_ms\n")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_told_by_content(tmp_path: Path, kind: str) -> None:
    suffix, write = KINDS[kind]
    write(tmp_path / f"a{suffix}")
    named = tmp_path / f"b{suffix if kind == 'NumPy arrays' else '.data'}"
    (tmp_path / f"a{suffix}").rename(named)
    assert kind_of_file(named).startswith(kind)


def test_what_cannot_be_told_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x08")
    assert kind_of_file(tmp_path / "a") == kind_of_file(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["profile", "--cpu", "--plan"], "an ONNX model"),
        (["profile", "--cpu", "--plan"], "an SQLite file"),
        (["arch", "show"], "an ONNX model"),
        (["arch", "show"], "an SQLite file"),
        (["table", "info"], "an ONNX model"),
        (["table", "info"], "a PNG picture"),
        (["table", "info"], "a NumPy array"),
        (["table", "import"], "a PNG picture"),
        (["bench", "--cpu"], "an SQLite file"),
        (["bench", "--cpu"], "a model of OpenVINO"),
        (["bench", "--cpu"], "a TensorRT engine"),
    ],
)
def test_messages_say_what_a_file_of_another_kind_is(
    tmp_path: Path, words: list[str], kind: str
) -> None:
    path = tmp_path / ("a.json" if words[0] == "arch" else "a.data")
    suffix, write = KINDS[kind]
    write(tmp_path / f"made{suffix}")
    (tmp_path / f"made{suffix}").rename(path)
    found = CliRunner().invoke(main, [*words, str(path)])
    assert found.exit_code == 2 and kind in found.output, found.output
    assert "Traceback" not in found.output
