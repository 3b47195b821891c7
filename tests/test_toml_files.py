"""TOML of bounded size, depth and number of values."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlut.errors import DataError, ImportFileError
from latlut.files.toml_files import parse_toml, read_toml

GOOD = {
    "texts": 'a = "x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x" # b.b.b.b.b.b.b.b.b.b.b.b.b.b.b.b.b.b\n',
    "long text": 'a = """1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18.19 ""="" [[[\n"""\n',
    "keys": "[a.b.c]\nd.e = 9223372036854775807\n",
    "numbers": "a = [1.5, -0.0, 1e300, 0x7fff_ffff_ffff_ffff]",
}
BAD = {
    "dotted": (".".join("a" * 100_000) + " = 1", "a key of more than 16 parts"),
    "dotted and quoted": (" . ".join(['"a"'] * 50) + " = 1", "a key of more than 16 parts"),
    "header": ("[" + ".".join("a" * 50) + "]", "a key of more than 16 parts"),
    "keys": ("".join(f"a{n} = 1\n" for n in range(200_001)), "more than 200000 values"),
    "tables": ("".join(f"[a{n}]\n" for n in range(200_001)), "more than 200000 values"),
    "items": ("a = [" + "1," * 200_001 + "]", "more than 200000 values"),
    "depth": ("a = " + "[" * 1000 + "]" * 1000, "not TOML|deep"),
    "some depth": ("a = " + "[" * 40 + "]" * 40, "more than 32 deep"),
    "hexadecimal": ("a = 0x" + "f" * 900, "a whole number beyond 64 bits"),
    "decimal": ("a = " + "9" * 900, "a whole number beyond 64 bits"),
    "long number": ("a = " + "9" * 2_000_000, "a key or number of a thousand characters"),
    "long word": ("a" * 2_000_000, "a key or number of a thousand characters"),
    "words": ("aa-" * 300 + " " + "b c " * 500_000, "not TOML"),
    "negative": ("a = -9223372036854775809", "a whole number beyond 64 bits"),
    "nan": ("a = [nan]", "nan is no value of a setting"),
    "infinity": ("a.b = -inf", "-inf is no value of a setting"),
    "open text": ('a = """' + '\\"""' * 1000, "not TOML"),
    "twice": ("a = 1\na = 2", "not TOML"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_settings_have_is_read(name: str) -> None:
    import tomllib

    assert parse_toml(GOOD[name], "f") == tomllib.loads(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_no_settings_have_is_refused(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    path = tmp_path / "f.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ImportFileError, match=f"f\\.toml: .*({message})"):
        read_toml(path)
    with pytest.raises(DataError):
        read_toml(path, DataError)
