"""A sweep in parts: one process per device, each with its share of every pass.

A part is a share of the plan that changes from pass to pass, so that every op spec is measured on
every device in turn and the spread between passes holds the one between devices. The parts of
one pass are disjoint. Each process opens the same table; nothing else is shared.

Each process is watched as that of a sweep on one device is (``measure.supervising``): an op spec
that ends it, or that it hangs in, is failed by name, and another process goes on with the part.

A shard is a share that stays: jobs that share nothing at all measure one each, and their tables
are merged.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from latlut.errors import LatlutError, SpecError
from latlut.measure.plans import Plan
from latlut.measure.supervising import Supervision, supervise

#: How long a part may take to store what it measured after Ctrl-C, seconds.
STOP_GRACE_S = 60.0


@dataclass(frozen=True)
class Part:
    """One of ``count`` shares of a plan, the ``index``-th.

    Raises:
        SpecError: there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise SpecError(f"part {self.index} of {self.count} does not exist")

    def owns(self, position: int, pass_index: int, rebuilds: int = 1) -> bool:
        """Whether the plan's op spec at ``position`` is measured by this part in that pass.

        The share moves on after every ``rebuilds`` passes, not after every pass: else a build
        could always be measured on the same device, and the two could not be told apart.
        """
        return (position + pass_index // rebuilds) % self.count == self.index


@dataclass(frozen=True)
class Shard(Part):
    """A share that is the same in every pass: what one job measures into a table of its own.

    The op specs of a plan go to the shards in turn, in the plan's order. All shards have the
    whole plan's sentinels, by which ``table merge`` brings them to one level.
    """

    def owns(self, position: int, pass_index: int, rebuilds: int = 1) -> bool:
        """Whether the plan's op spec at ``position`` is this shard's, in any pass."""
        return position % self.count == self.index

    def of(self, plan: Plan) -> Plan:
        """The plan's op specs that are this shard's.

        Raises:
            SpecError: there are fewer op specs than shards, and none is left for this one.
        """
        specs = plan.specs[self.index :: self.count]
        if not specs:
            raise SpecError(
                f"shard {self.index + 1}/{self.count} is empty: the plan {plan.name!r} has "
                f"{len(plan.specs)} operator configurations, use at most as many shards"
            )
        return replace(plan, specs=specs)


@dataclass(frozen=True)
class PartResult:
    """How a part ended: what its worker returned, or ``error``; ``name`` is its device's."""

    name: str
    value: Any = None
    error: str = ""


#: What a part runs: its index, what it calls with anything that the parent shall hear of, and where
#: it says what it works on.
Worker = Callable[[int, Callable[[Any], None], Supervision], Any]


def run_parts(
    names: Sequence[str],
    worker: Worker,
    listener: Callable[[int, Any], None],
    *,
    timeout_s: float | None = None,
    say: Callable[[str], None] | None = None,
) -> list[PartResult]:
    """Run a worker once per name, each in a fresh process; wait for all of them.

    A worker whose process dies is run again, in another process that knows the op spec which ended
    the first. A part that fails is in the results with its error, and the others go on. Ctrl-C
    stops all:
    each worker gets a KeyboardInterrupt, once, and time to store what it has; then it is raised
    here. A second Ctrl-C ends the processes at once.

    Args:
        names: of the parts, for messages.
        worker: importable and picklable, since processes are spawned: a fork would take along
            threads and a device's context.
        listener: called with a part's index and what its worker reported.
        timeout_s: of one op spec in one pass; None for no limit.
        say: told of each process that died.

    Returns:
        One result per name, in order.
    """
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    pipes: dict[Connection, int] = {}
    # The child unpacks it when it is being watched: what it imports starts threads.
    told = pickle.dumps(worker)
    results = [PartResult(name, error="its process ended without a word") for name in names]
    try:
        for index in range(len(names)):
            mine, theirs = context.Pipe()
            child = context.Process(target=_run, args=(told, timeout_s, index, theirs), daemon=True)
            child.start()
            theirs.close()
            processes.append(child)
            pipes[mine] = index
        _listen(pipes, names, results, listener, say or (lambda text: None))
    except KeyboardInterrupt:
        _stop(processes, pipes)
        raise
    finally:
        for process in processes:
            process.join(5.0)
            if process.is_alive():
                process.terminate()
    for index, process in enumerate(processes):
        if results[index].error and process.exitcode and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            results[index] = PartResult(names[index], error=f"its process was ended by {name}")
    return results


def _listen(
    pipes: dict[Connection, int],
    names: Sequence[str],
    results: list[PartResult],
    listener: Callable[[int, Any], None],
    say: Callable[[str], None],
) -> None:
    """Pass reports on until every part has ended."""
    while pipes:
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            index = pipes[pipe]
            try:
                kind, value = pipe.recv()
            except EOFError:
                pipe.close()
                del pipes[pipe]
                continue
            if kind == "report":
                listener(index, value)
            elif kind == "death":
                say(f"{names[index]}: {value}")
            elif kind == "value":
                results[index] = PartResult(names[index], value)
            else:
                results[index] = PartResult(names[index], error=value)


def _stop(processes: list[BaseProcess], pipes: dict[Connection, int]) -> None:
    """Interrupt all parts and let them store what they have; reports go nowhere."""
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
    end = time.monotonic() + STOP_GRACE_S
    waiting = list(pipes)
    while waiting and time.monotonic() < end:
        for pipe in wait(waiting, timeout=1.0):
            assert isinstance(pipe, Connection)
            try:
                pipe.recv()
            except EOFError:
                waiting.remove(pipe)


def _run(told: bytes, timeout_s: float | None, index: int, pipe: Connection) -> None:
    """The child: start the process that measures, watch it, and start another where it dies."""
    try:
        found = supervise(timeout_s, lambda text: pipe.send(("death", text)))
    except LatlutError as error:
        _answer(pipe, "error", str(error))
        return
    if isinstance(found, int):
        sys.exit(found)
    _measure(pickle.loads(told), index, pipe, found)
    found.attempts.end()


def _measure(worker: Worker, index: int, pipe: Connection, supervision: Supervision) -> None:
    """The process that measures: run the worker and say how it ended."""
    was_interrupted = False

    def interrupt(number: int, frame: object) -> None:
        # Ctrl-C reaches the whole process group and the parent sends one more: one counts.
        nonlocal was_interrupted
        if not was_interrupted:
            was_interrupted = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)

    def report(value: Any) -> None:
        try:
            pipe.send(("report", value))
        except OSError:  # the parent is gone: nobody waits for the rest
            raise KeyboardInterrupt from None

    try:
        answer = ("value", worker(index, report, supervision))
    except KeyboardInterrupt:
        answer = ("error", "stopped")
    except LatlutError as error:
        answer = ("error", str(error))
    except Exception as error:
        answer = ("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    _answer(pipe, *answer)


def _answer(pipe: Connection, kind: str, value: Any) -> None:
    """The last word on a part."""
    with suppress(OSError):
        pipe.send((kind, value))
    pipe.close()
