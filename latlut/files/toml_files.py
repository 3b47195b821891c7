"""TOML files from outside, of bounded size, depth and number of values.

The standard library's parser takes memory by the square of a dotted key's parts and knows numbers
of any length and NaN, none of which a setting has.
"""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, LatlutError
from latlut.files.reading import read_text

#: Parts of a dotted key; latlut's own files have 2.
MAX_KEY_PARTS = 16
#: Keys, headers and items of lists together; the longest plan has 100,000 op specs in a list. The
#: parser takes up to 20 us for one.
MAX_VALUES = 200_000
#: Depth of lists in lists and tables in tables.
MAX_DEPTH = 32
#: What TOML promises of whole numbers, 64 bits with sign.
_MOST = 1 << 63

#: Texts and comments; one that is never closed goes on to the end of its line or of the file.
_TEXTS = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+",
    re.DOTALL,
)
#: A key or number outside quotation marks; the parser takes 120 bytes for a digit.
_LONG_WORD = re.compile(r"\w{1000}")
#: Begins only where a word does: from within one, a long word would take time by its square.
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")


def read_toml(path: Path, error: type[LatlutError] = ImportFileError) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: the file.
        error: class of what is raised.

    Raises:
        LatlutError: of the class ``error``: a file that cannot be read, is no TOML, or has what no
            file of settings has; see ``parse_toml``.
    """
    return parse_toml(read_text(path, error), str(path), error)


def parse_toml(text: str, where: str, error: type[LatlutError] = ImportFileError) -> dict[str, Any]:
    """The content of a TOML text; ``where`` names it in messages.

    Raises:
        LatlutError: of the class ``error``: not TOML, more values, parts of a key or depth than
            any file of settings has, a whole number beyond 64 bits, NaN or an infinity.
    """
    bare = _TEXTS.sub("x", text)
    if sum(map(bare.count, "=,[")) > MAX_VALUES:
        raise error(f"{where}: more than {MAX_VALUES} values, which no such file has")
    if _LONG_WORD.search(bare):
        raise error(f"{where}: a key or number of a thousand characters, which no such file has")
    if _LONG_KEY.search(bare):
        raise error(f"{where}: a key of more than {MAX_KEY_PARTS} parts, which no such file has")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(f"{where}: not TOML: {str(failure)[:300]}") from failure
    _check_values(content, where, error)
    return content


def _check_values(content: object, where: str, error: type[LatlutError]) -> None:
    left = [(content, 0)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise error(f"{where}: values in each other more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            left += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, int) and not -_MOST <= value < _MOST:
            raise error(f"{where}: a whole number beyond 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise error(f"{where}: {value} is no value of a setting")
