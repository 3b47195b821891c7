"""Identity: what two latencies must have in common to stand in one table.

Everything else (clocks, temperature, dates, host, plan) is provenance of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from latlut.errors import IdentityError

#: Raised whenever the way of measuring changes so much that old and new entries do not compare.
PROTOCOL_VERSION = "1"

STANDALONE, IN_CONTEXT = "standalone", "in-context"
#: How an operator is isolated: alone, or inside a network, by the difference of two graphs.
MODES = (STANDALONE, IN_CONTEXT)

#: More than any machine has.
MAX_THREADS = 65_536
#: Characters of a field; a driver's name of a device has up to 100.
MAX_TEXT = 1000
_REQUIRED = {"target", "device_model", "engine", "engine_version"}


@dataclass(frozen=True)
class Identity:
    """Device, engine and measuring protocol of a table."""

    target: str
    """latlut's name of the hardware, ``cpu`` or ``1080ti``."""
    device_model: str
    """The name that the driver or the kernel gives."""
    engine: str
    engine_version: str
    precision: str = "fp32"
    threads: int = 1
    mode: str = STANDALONE
    """How entries are isolated, one of ``MODES``."""
    statistic: str = "p10"
    power_mode: str = ""
    driver: str = ""
    protocol_version: str = PROTOCOL_VERSION
    engine_options: str = ""
    """The engine's settings that are not at their default, ``cuda_graph=on``."""

    def to_dict(self) -> dict[str, str | int]:
        """Field name -> value, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Identity:
        """The identity of a mapping as ``to_dict`` gives it.

        Raises:
            IdentityError: a field is missing or unknown, no text or a text that cannot be shown, no
                number of threads, or a mode that there is not.
        """
        known = {field.name for field in fields(cls)}
        if missing := sorted(_REQUIRED - set(values)):
            raise IdentityError(f"an identity needs {', '.join(missing)}")
        if unknown := sorted(set(values) - known):
            raise IdentityError(f"an identity has no field {', '.join(unknown)[:200]}")
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

    def __str__(self) -> str:
        """One line for people: engine, device, and what is not the default."""
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        words = [self.precision, count if self.target == "cpu" else "", self.power_mode]
        words += [self.mode if self.is_in_context else "", self.engine_options]
        on = f"{self.engine} {self.engine_version} on {self.device_model}"
        return ", ".join([on, *filter(None, words)])

    @property
    def is_of_this_protocol(self) -> bool:
        """Whether latlut measures as these entries were measured, so that it can add to them."""
        return self.protocol_version == PROTOCOL_VERSION

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
    """A field's value; a number of threads may be a text, as it is in CSV.

    Raises:
        IdentityError: a value of another type or out of range.
    """
    if name == "threads":
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if is_number and 1 <= value <= MAX_THREADS:  # type: ignore[operator]
            return value  # type: ignore[return-value]
        raise IdentityError(
            f"threads is a whole number from 1 to {MAX_THREADS}, received {_shown(value)}"
        )
    if not isinstance(value, str):
        raise IdentityError(f"{name} is a text, received {_shown(value)}")
    if len(value) > MAX_TEXT or not value.isprintable():
        raise IdentityError(
            f"{name} is a text of at most {MAX_TEXT} characters that can be shown, received "
            + _shown(value)
        )
    if name in _REQUIRED and not value.strip():
        raise IdentityError(f"{name} is empty: say what was measured")
    return value


def _shown(value: object) -> str:
    # The decimal digits of a number from a file may be more than Python prints.
    is_long = isinstance(value, int) and abs(value) > MAX_THREADS
    return f"a number beyond {MAX_THREADS}" if is_long else f"{ascii(value)[:80]}"
