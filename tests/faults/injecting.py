"""Commands that are killed, or whose disk fails, at their N-th change of a file below a folder.

    with Injector(["latlut.cli.table"]) as injector:
        calls = injector.run(["table", "import", "a.csv", "--table", "a.db"], folder).calls
        for at in instants(calls, 20, seed=0):
            found = injector.run([...], fresh_folder, fault=Fault.KILL, at=at)

``run`` forks the command from a process that has imported everything, so a case takes
milliseconds. ``shim.c`` says what counts as a change. ``LATLUT_FAULTS`` sets how many cases the
tests take.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import pytest
from checkout import ROOT

_HERE = Path(__file__).parent


class Fault(IntEnum):
    """What happens at the N-th change; the numbers are those of ``shim.c``."""

    NONE = 0
    #: SIGKILL before the change, or after half of the bytes of a write.
    KILL = 1
    TORN = 2
    #: From then on: no room (ENOSPC), a read-only disk (EROFS), a failing one (EIO).
    FULL = 3
    READ_ONLY = 4
    FAILING = 5
    #: SIGINT and SIGTERM beside the change.
    INTERRUPT = 6
    TERMINATE = 7


KILLS = (Fault.KILL, Fault.TORN)
DISK_FAULTS = (Fault.FULL, Fault.READ_ONLY, Fault.FAILING)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code, the negative number of the signal that ended it.
        output: what it printed, errors included.
        calls: how many changes it made or tried.
        hits: how many of them met the fault; 0 where the command ended before.
        seconds: how long it took.
    """

    code: int
    output: str
    calls: int
    hits: int
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output


def case_count(usual: int) -> int:
    """How many cases a test of many takes: ``LATLUT_FAULTS``, else ``usual``."""
    return int(os.environ.get("LATLUT_FAULTS") or usual)


def instants(calls: int, count: int, seed: int) -> list[int]:
    """Which changes to hit, of ``calls``: all where that is not more than ``count``.

    Otherwise the first, the last and a seeded choice of the others, in order.
    """
    if calls <= count:
        return list(range(1, calls + 1))
    between = random.Random(seed).sample(range(2, calls), max(count - 2, 0))
    return sorted({1, calls, *between})


class Injector:
    """A process that forks commands and lets them meet a fault. A context manager.

    Args:
        modules: imported once, before any command; what they import is not paid for again.

    Skips the test where there is no C compiler or no LD_PRELOAD.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = list(modules)

    def __enter__(self) -> Injector:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="shim-")))
        try:
            library = _compiled(folder)
            self._server = self._stack.enter_context(self._started(library, folder))
        except BaseException:
            self._stack.close()
            raise
        return self

    def _started(self, library: Path, folder: Path) -> subprocess.Popen[str]:
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "LATLUT_LOCK_DIR": str(folder / "locks"),
            "LATLUT_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, str(_HERE / "forking.py"), str(library), *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()  # its loop ends with its input
        self._stack.close()

    def run(
        self,
        arguments: Sequence[object],
        folder: Path,
        *,
        fault: Fault = Fault.NONE,
        at: int = 0,
        call: str = "faults.forking:command",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
        kill_after_s: float | None = None,
    ) -> Outcome:
        """One command in a process of its own.

        Args:
            arguments: of the command, ``["table", "info", path]``.
            folder: whose files are watched, with all folders in it.
            fault: what it meets.
            at: at which change, from 1; 0 only counts them.
            call: ``module:function`` that gets the arguments instead of ``latlut``.
            cwd: where it runs; ``folder`` if not given.
            environment: variables beside those of this process.
            timeout_s: the test fails where it takes longer.
            kill_after_s: SIGKILL after this time, wherever it is.
        """
        request = {
            "arguments": [str(word) for word in arguments],
            "folder": str(folder.resolve()),
            "fault": int(fault),
            "at": at,
            "call": call,
            "cwd": str(cwd or folder),
            "environment": dict(environment or {}),
            "timeout_s": timeout_s,
            "kill_after_s": kill_after_s,
        }
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        reply = json.loads(self._server.stdout.readline())
        words = " ".join(request["arguments"])
        assert reply.pop("has_ended"), f"{words} did not end within {timeout_s} s: {reply}"
        return Outcome(**reply)

    def cpu_seconds(self) -> float:
        """CPU time of the process that forks, and of all that it forked."""
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def sweep(
        self,
        arguments: Sequence[object],
        folder: Path,
        faults: Sequence[Fault],
        count: int,
        seed: int = 0,
        **options: object,
    ) -> Iterator[tuple[Fault, int, Outcome]]:
        """The command once per fault and instant, ``count`` in all, in folders like ``folder``.

        Each case starts from a copy of ``folder`` in its place, made anew; the caller looks at it
        between two cases.
        """
        pristine = folder.with_name(f"{folder.name}.pristine")
        shutil.copytree(folder, pristine, symlinks=True)

        def restore() -> None:
            shutil.rmtree(folder)
            shutil.copytree(pristine, folder, symlinks=True)

        calls = self.run(arguments, folder, **options).calls  # type: ignore[arg-type]
        assert calls, f"{arguments} changes nothing below {folder}"
        for number, fault in enumerate(faults):
            for at in instants(calls, max(count // len(faults), 1), seed + number):
                restore()
                found = self.run(arguments, folder, fault=fault, at=at, **options)  # type: ignore[arg-type]
                yield fault, at, found
        restore()


def _compiled(folder: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("injecting faults needs a C compiler and LD_PRELOAD")
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_HERE / "shim.c")]
    built = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the shim does not compile here: {built.stderr.strip()[:300]}")
    return library
