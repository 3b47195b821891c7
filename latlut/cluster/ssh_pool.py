"""Workers on machines that are reached by ssh, one on each; nothing is installed there.

The connections live in a thread of their own. What the workers answer comes through a queue, as the
driver asks for it. A connection that ends is made again a few times; the driver decides what
happens to the lease.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from latlut.cluster.frames import HEAD, JSON, job_values, message
from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.cluster.remote_answers import MAX_MESSAGE, read_answer
from latlut.cluster.remote_code import READY, boot_command, packed_code
from latlut.cluster.sent_graphs import graph_to_send
from latlut.cluster.ssh_connection import Host, UnreachableError, connect, imported_asyncssh
from latlut.engines import engine_class, engine_module
from latlut.errors import EngineError, LatlutError, SpecError
from latlut.measure.supervising import Supervision
from latlut.operators.graph_cache import GraphCache
from latlut.opspec import OpSpec

#: Seconds before each attempt to connect again.
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 20.0)
#: How long a worker may take to end and remove its folder, seconds.
#: Characters of a reason.
_MOST_REASON = 500
_CLOSE_S = 10.0
#: Lines of a worker's stderr that are kept for the message about its end.
_LINES = 20

_Answer = Hello | LeaseResult | Lost


@contextmanager
def ssh_pool(
    hosts: Sequence[Host],
    job: WorkerJob,
    *,
    python: str = "python3",
    timeout_s: float | None = None,
    supervision: Supervision | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[SshPool]:
    """The workers of these machines, of which none is started yet; ended after the block.

    Args:
        hosts: one worker on each.
        job: what the workers know.
        python: the interpreter there.
        timeout_s: of one op spec in one pass.
        supervision: where to say which op spec is built here, and which ended earlier processes.
        say: told of connections that are tried again.

    Raises:
        LatlutError: asyncssh is not installed.
    """
    imported_asyncssh()
    pool = SshPool(hosts, job, python, timeout_s, supervision or Supervision(), say)
    try:
        yield pool
    finally:
        pool.close()


@dataclass
class _Worker:
    """One machine's worker, as this side knows it."""

    host: Host
    task: Any = None
    process: Any = None
    is_ready: bool = False
    """Whether it has been sent the code."""
    has_greeted: bool = False
    lease: Lease | None = None
    """What it has."""
    sentinels: tuple[OpSpec, ...] = ()
    failures: dict[OpSpec, str] = field(default_factory=dict)
    """Of the lease: what could not be built here."""
    pass_index: int | None = None
    """In which it opened the sentinels."""
    compared: set[tuple[OpSpec, int]] = field(default_factory=set)
    """(op spec, build) whose reference outputs it was sent."""


class SshPool:
    """See ``cluster.driver.Pool``."""

    def __init__(
        self,
        hosts: Sequence[Host],
        job: WorkerJob,
        python: str,
        timeout_s: float | None,
        supervision: Supervision,
        say: Callable[[str], None],
    ) -> None:
        self.names: Sequence[str] = [str(host) for host in hosts]
        self._job, self._supervision, self._say, self._python = job, supervision, say, python
        self._workers = [_Worker(host) for host in hosts]
        self._answers: queue.Queue[tuple[int, Any, _Answer]] = queue.Queue()
        self._cache = GraphCache()
        self._has_graphs = engine_class(job.engine).reads_onnx
        module = engine_module(job.engine)
        needed = [("numpy", "numpy"), (module, module.replace("_", "-"))]
        self._command = boot_command(python, needed, uuid4().hex[:12], timeout_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, number: int) -> None:
        """Connect to a machine and start its worker."""
        worker = self._workers[number]
        worker.lease, worker.pass_index = None, None
        worker.compared.clear()
        worker.task = self._run(self._serve(number, worker))

    def measure(self, number: int, lease: Lease, sentinels: tuple[OpSpec, ...]) -> None:
        """Send a worker a lease, with the graphs of its op specs where the engine reads graphs."""
        worker = self._workers[number]
        worker.lease, worker.sentinels, worker.failures = lease, sentinels, {}
        graphs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        specs = [spec for spec in lease.specs if self._add(spec, worker, graphs, blobs)]
        if worker.pass_index != lease.pass_index and self._has_graphs:
            worker.pass_index = lease.pass_index
            for spec in sentinels:
                if spec not in specs:
                    with suppress(EngineError, SpecError):  # it fails as an entry, too
                        self._add_graph(spec, graphs, blobs, is_compared=False)
        values = {
            "type": "lease",
            "pass_index": lease.pass_index,
            "build": lease.build,
            "specs": [spec.key for spec in specs],
            "sentinels": [spec.key for spec in sentinels],
            "graphs": graphs,
        }
        content = message(values, blobs)
        self._loop.call_soon_threadsafe(self._write, worker, content)

    def wait(self, timeout_s: float) -> list[tuple[int, _Answer]]:
        """What workers answered; of one that ended, that it did."""
        try:
            number, task, answer = self._answers.get(timeout=timeout_s or 0.001)
        except queue.Empty:
            return []
        worker = self._workers[number]
        if task is not worker.task:  # of one that was stopped meanwhile
            return []
        if isinstance(answer, LeaseResult):
            answer = replace(answer, failures={**answer.failures, **worker.failures})
            worker.lease = None
        return [(number, answer)]

    def stop(self, number: int) -> None:
        """End a worker, which removes its folder, and the connection."""
        worker = self._workers[number]
        task, worker.task = worker.task, None
        if task is None:
            return
        if worker.process is not None:
            self._loop.call_soon_threadsafe(worker.process.stdin.close)
        with suppress(Exception):  # what went wrong there was said
            try:
                task.result(_CLOSE_S if worker.process is not None else 0.1)
            finally:
                task.cancel()

    def close(self) -> None:
        """End all workers."""
        for number in range(len(self._workers)):
            self.stop(number)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)

    def _add(
        self, spec: OpSpec, worker: _Worker, graphs: list[dict[str, Any]], blobs: list[bytes]
    ) -> bool:
        """Whether an op spec can be measured; its graph is added."""
        assert worker.lease is not None
        if (known := self._supervision.failed.get(spec.key)) is not None:
            worker.failures[spec] = known
            return False
        if not self._has_graphs:
            return True
        key = (spec, worker.lease.build)
        try:
            self._add_graph(spec, graphs, blobs, is_compared=key not in worker.compared)
        except (EngineError, SpecError, MemoryError) as error:
            worker.failures[spec] = str(error) or type(error).__name__
            return False
        worker.compared.add(key)
        return True

    def _add_graph(
        self, spec: OpSpec, graphs: list[dict[str, Any]], blobs: list[bytes], *, is_compared: bool
    ) -> None:
        attempts = self._supervision.attempts
        attempts.begin_visit()
        attempts.turn_to(spec.key)
        try:
            graph, more = graph_to_send(spec, self._cache, is_compared=is_compared)
        finally:
            attempts.turn_to(None)
        graphs.append(graph)
        blobs += more

    def _run(self, work: Coroutine[Any, Any, None]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _write(self, worker: _Worker, content: bytes) -> None:
        with suppress(OSError):  # reading says that the connection is gone
            if worker.process is not None:
                worker.process.stdin.write(content)

    async def _serve(self, number: int, worker: _Worker) -> None:
        """A worker's life, from connecting to its end; answers go into the queue."""
        while worker.task is None:  # the thread that starts it has not noted it yet
            await asyncio.sleep(0)
        task = worker.task
        try:
            connection = await self._connected(worker)
            async with connection:
                lost = await self._talk(number, worker, task, connection)
        except LatlutError as error:
            lost = Lost(str(error), is_final=True)
        except (OSError, imported_asyncssh().Error) as error:
            lost = Lost(f"the connection was lost: {error}", is_cut=True)
        except Exception as error:  # a defect here must not leave the driver waiting
            lost = Lost(f"{type(error).__name__}: {error}", is_final=True)
        finally:
            worker.process = None
        self._answers.put((number, task, lost))

    async def _connected(self, worker: _Worker) -> Any:
        """A connection, tried again where there was one before."""
        for delay_s in BACK_OFF_S if worker.has_greeted else ():
            try:
                return await connect(worker.host)
            except UnreachableError as error:
                first = str(error).splitlines()[0]
                self._say(f"{first}; trying again in {delay_s:.0f} s")
                await asyncio.sleep(delay_s)
        return await connect(worker.host)

    async def _talk(self, number: int, worker: _Worker, task: Any, connection: Any) -> Lost:
        """Start the process there and pass on what it answers; how it ended."""
        process = await connection.create_process(self._command, encoding=None)
        worker.process, worker.is_ready = process, False
        said: deque[str] = deque(maxlen=_LINES)
        listening = asyncio.ensure_future(_listen(process.stderr, said))
        try:
            while True:
                content = await _message(process.stdout)
                if content == READY and not worker.is_ready:
                    worker.is_ready = True
                    process.stdin.write(packed_code() + message(job_values(self._job)))
                    continue
                answer = read_answer(content, self._job, worker.lease, worker.sentinels)
                if isinstance(answer, Lost):
                    return _with_last_words(answer, said)
                worker.has_greeted = True
                self._answers.put((number, task, answer))
        except asyncio.IncompleteReadError:
            await listening
            await process.wait_closed()
            return _ending(worker.host, process, said, self._python)
        except LatlutError as error:
            return Lost(f"it answers what it was not asked: {error}", is_final=True)
        finally:
            listening.cancel()
            process.close()
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(process.wait_closed(), _CLOSE_S)


async def _message(stream: Any) -> bytes:
    """The JSON of the next message.

    Raises:
        IncompleteReadError: the stream has ended.
        LatlutError: no message, or one that is too long.
    """
    kind, length = HEAD.unpack(await stream.readexactly(HEAD.size))
    if kind != JSON or length > MAX_MESSAGE:
        raise LatlutError("no message")
    content: bytes = await stream.readexactly(length)
    return content


async def _listen(stream: Any, said: deque[str]) -> None:
    """Keep the last lines of a worker's stderr."""
    async for line in stream:
        said.append(line[:1000].decode(errors="replace").rstrip())


def _with_last_words(lost: Lost, said: deque[str]) -> Lost:
    """With the last line of stderr, where the process ended by no fault of an op spec."""
    last = next((line for line in reversed(said) if line.strip()), "")
    if lost.culprit is not None or not last:
        return lost
    return replace(lost, reason=f"{lost.reason}: {last}"[:_MOST_REASON])


def _ending(host: Host, process: Any, said: deque[str], python: str) -> Lost:
    """Why a process gave no more answers."""
    last = next((line for line in reversed(said) if line.strip()), "")
    if process.exit_status in (126, 127):
        return Lost(
            f"no Python runs as {python} on {host} ({last}): name one with --remote-python PATH",
            is_final=True,
        )
    if process.exit_status is None and process.exit_signal is None:
        return Lost("the connection was lost", is_cut=True)
    how = f"exit({process.exit_status})" if process.exit_signal is None else "a signal"
    return Lost(f"its process ended by {how}{f': {last}' if last else ''}")
