"""The errors that a caller can act on.

Every message says what was received, what was expected and what to do next. The
command line prints the message alone; anything that is not a ``LatlutError`` keeps
its traceback, because it is a defect of latlut.
"""

from __future__ import annotations

from collections.abc import Iterable


class LatlutError(Exception):
    """Base of all errors that a caller can cause or mend."""


class SpecError(LatlutError, ValueError):
    """An op spec, plan, architecture or size that makes no sense."""


class UnknownNameError(LatlutError, KeyError):
    """A name (operator, engine, target, plan, table) that nothing is registered under."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TableError(LatlutError):
    """A table file that cannot be opened, read or written."""


class IdentityError(TableError):
    """Rows or runs of another device, engine or measuring protocol than the table's own."""


class MissingEntryError(TableError, LookupError):
    """A latency that the table does not hold."""


class CalibrationError(TableError):
    """A calibration that cannot be fitted, or one that cannot be applied."""


class EngineError(LatlutError):
    """An engine that is missing, cannot run here, or rejects a graph."""


class OperatorError(SpecError, EngineError):
    """An operator whose builder or module raises, or gives another shape than its op spec says."""


class ParityError(EngineError):
    """An engine whose output differs from PyTorch's: what it would time is another operator."""


class DeviceLostError(EngineError):
    """The device is gone in the middle of its work: nothing more can be run on it."""


class DeviceBusyError(LatlutError):
    """Another process is measuring on the device."""


class TargetError(LatlutError):
    """The hardware asked for is not the hardware that is here."""


class PredictionError(LatlutError):
    """Latencies that cannot be predicted: too few are known, or none of that kind."""


class ImportFileError(LatlutError):
    """A file from outside (CSV, Parquet, .npy, JSON, TOML) that cannot be used as it is."""


class DataError(LatlutError, ValueError):
    """A data set that cannot be used as it is: files, masks, labels or sizes that do not fit."""


#: Known names that are listed where one of them is near.
MOST_LISTED = 40


def reason_of(error: BaseException) -> str:
    """What an engine's or PyTorch's error says; of TorchScript's, which begins with lines of its
    code, the end alone."""
    if isinstance(error, MemoryError):
        return f"the memory does not suffice ({error or 'MemoryError'})"
    text = str(error).strip()
    return text.splitlines()[-1] if "Traceback of TorchScript" in text else text


def did_you_mean(
    name: str, known: list[str], title: str = "known", short: Iterable[str] = ()
) -> str:
    """A sentence that names the nearest known name and lists the rest.

    Args:
        name: what was asked for.
        known: what there is.
        title: of the list.
        short: other names of it, named only where none of the known ones is near.
    """
    hint = nearest_name(name, known) or nearest_name(name, list(short))
    if hint and len(known) > MOST_LISTED:
        return hint.rstrip()
    return f"{hint}{title}: {', '.join(sorted(known)) or 'none'}"


def nearest_name(name: str, known: list[str]) -> str:
    """``did you mean 'NAME'? `` of the known name that is near; empty where none is."""
    from difflib import get_close_matches

    close = get_close_matches(name[:100], known, n=1)  # it may come from a hostile file
    return f"did you mean {close[0]!r}? " if close else ""
