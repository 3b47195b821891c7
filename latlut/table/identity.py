"""Identity: what two latencies must have in common to stand in one table.

Everything else (clocks, temperature, dates, host, plan) is provenance of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from latlut.errors import IdentityError

#: Raised whenever the way of measuring changes so much that old and new entries do not compare.
PROTOCOL_VERSION = "1"

#: Of each text of an identity.
MOST_CHARACTERS = 500

STANDALONE, IN_CONTEXT = "standalone", "in-context"
#: How an operator is isolated: alone, or inside a network, by the difference of two graphs.
MODES = (STANDALONE, IN_CONTEXT)


@dataclass(frozen=True)
class Identity:
    """Device, engine and measuring protocol of a table.

    Attributes:
        target: latlut's name of the hardware, ``cpu`` or ``1080ti``.
        device_model: the name that the driver or the kernel gives.
        mode: how entries are isolated, one of ``MODES``.
        engine_options: the engine's settings that are not at their default, ``cuda_graph=on``.
    """

    target: str
    device_model: str
    engine: str
    engine_version: str
    precision: str = "fp32"
    threads: int = 1
    mode: str = STANDALONE
    statistic: str = "p10"
    power_mode: str = ""
    driver: str = ""
    protocol_version: str = PROTOCOL_VERSION
    engine_options: str = ""

    def to_dict(self) -> dict[str, str | int]:
        """Field name -> value, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Identity:
        """The identity of a mapping as ``to_dict`` gives it.

        Raises:
            IdentityError: a field is missing, unknown or of another type, or a mode that there is
                not.
        """
        known = {field.name for field in fields(cls)}
        required = {"target", "device_model", "engine", "engine_version"}
        if missing := sorted(required - set(values)):
            raise IdentityError(f"an identity needs {', '.join(missing)}")
        if unknown := sorted(set(values) - known):
            raise IdentityError(f"an identity has no field {', '.join(unknown)}")
        found = cls(**{name: _checked(name, value) for name, value in values.items()})  # type: ignore[arg-type]
        if found.mode not in MODES:
            raise IdentityError(f"mode is one of {', '.join(MODES)}, received {found.mode!r}")
        return found

    def differences(self, other: Identity) -> list[str]:
        """One phrase per differing field, ``engine_version: '1.32.0' here, '1.31.0' there``."""
        return [
            f"{name}: {mine!r} here, {theirs!r} there"
            for name, mine, theirs in (
                (field.name, getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            )
            if mine != theirs
        ]

    @property
    def is_in_context(self) -> bool:
        """Whether entries are differences of two graphs; then they may be zero or negative."""
        return self.mode == IN_CONTEXT

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """``engine_options`` as (name, value) pairs."""
        pairs = (option.partition("=") for option in self.engine_options.split(",") if option)
        return tuple((name, value) for name, _, value in pairs)

    @property
    def file_stem(self) -> str:
        """Default name of the table's file, without suffix; what is default is not in it."""
        parts = [self.target, self.engine, self.precision]
        if self.threads != 1:
            parts.append(f"{self.threads}threads")
        if self.mode != STANDALONE:
            parts.append(self.mode)
        parts += [option.replace("=", "_") for option in self.engine_options.split(",") if option]
        return "-".join(parts)


def _checked(name: str, value: object) -> str | int:
    """The value of a field: text on one line, or of ``threads`` a count, also as text."""
    if name == "threads":
        text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
        if text.isascii() and text.isdigit() and len(text) < 6 and int(text):
            return int(text)
        raise IdentityError(
            f"threads is a whole number from 1 to 99999, received {str(value)[:80]!r}"
        )
    if not isinstance(value, str):
        raise IdentityError(f"{name} is text, received {json.dumps(value, default=str)[:80]}")
    if len(value) > MOST_CHARACTERS or not value.isprintable():
        raise IdentityError(
            f"{name} is text on one line of at most {MOST_CHARACTERS} characters, "
            f"received {value[:80]!r}"
        )
    return value
