"""JSON read strictly: an object with exactly the keys that are expected, each of them once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, LatlutError, did_you_mean
from latlut.files.reading import read_text


def read_json(path: Path, what: str, error: type[LatlutError] = ImportFileError) -> Any:
    """The value of a JSON file; ``what`` is as in ``parse_json``.

    Raises:
        LatlutError: of the class ``error``: a file that cannot be read, or what ``parse_json``
            refuses; the message begins with the path.
    """
    text = read_text(path, error)
    try:
        return parse_json(text, what)
    except ImportFileError as failure:
        raise error(f"{path}: {failure}") from failure


def parse_json(text: str, what: str) -> Any:
    """The value of a JSON text.

    Args:
        text: the JSON.
        what: what it is to be, for messages: ``an architecture``.

    Raises:
        ImportFileError: not JSON, NaN or an infinity, a key that stands twice in one object.
    """

    def refuse_constant(name: str) -> None:
        raise ImportFileError(f"{name} is not a value of {what}")

    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise ImportFileError(f"the key {name!r:.80} appears twice in one object")
        return found

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_repeated)
    except json.JSONDecodeError as error:
        raise ImportFileError(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"not readable JSON: {str(error)[:200]}") from error


def check_keys(item: object, expected: Sequence[str], where: str) -> None:
    """Refuse what is no object of exactly the expected keys; ``where`` names it in messages.

    Raises:
        ImportFileError: not an object, a key that is missing or unknown.
    """
    if not isinstance(item, dict):
        raise ImportFileError(f"{where} must be an object, received {item!r:.80}")
    missing = [name for name in expected if name not in item]
    if missing:
        raise ImportFileError(f"{where} lacks {', '.join(map(repr, missing))}")
    for name in item:
        if name not in expected:
            raise ImportFileError(
                f"{where} has an unknown key {name!r:.80}; {did_you_mean(name, list(expected))}"
            )


def checked_list(value: object, where: str) -> list[Any]:
    """``value`` if it is a list.

    Raises:
        ImportFileError: it is none.
    """
    if not isinstance(value, list):
        raise ImportFileError(f"{where} must be a list, received {value!r:.80}")
    return value
