"""Workers as Ray actors: one per device of the cluster.

Ray is asked for little: where the nodes are, an actor on each, its answers in the order in which
they come. An actor is never restarted by Ray itself; the driver decides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.cluster.worker import LeaseWorker
from latlut.errors import LatlutError
from latlut.measure.parts import Part
from latlut.operators.subgraph_store import contents
from latlut.opspec import OpSpec

#: How long an actor may take to give its device back, seconds.
_CLOSE_S = 5.0


@dataclass(frozen=True)
class _Place:
    """Where a worker runs: the node's id, and which of the workers there it is."""

    node: str
    name: str
    slot: Part


@contextmanager
def ray_pool(address: str, job: WorkerJob, per_node: int | None = None) -> Iterator[RayPool]:
    """The workers of a Ray cluster, of which none is started yet; ended after the block.

    Args:
        address: ``auto`` for the cluster that this machine is a node of, ``local`` for one of this
            machine alone, or a cluster's address.
        job: what the workers know.
        per_node: workers on each node; if not given, one per GPU, or one where the CPU is measured.

    Raises:
        LatlutError: Ray is not installed, no cluster answers, or it has no place for a worker.
    """
    ray = _ray()
    with redirect_stdout(sys.stderr):  # Ray prints there, and stdout is for results
        yield from _pool(ray, address, job, per_node)


def _pool(ray: Any, address: str, job: WorkerJob, per_node: int | None) -> Iterator[RayPool]:
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            **({"include_dashboard": False} if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise LatlutError(
            f"--ray {address}: no Ray cluster answers: {str(error).splitlines()[0]}\n"
            "start one with `ray start --head`, and `ray start --address HOST:6379` on every other "
            "machine; `--ray local` uses this machine alone"
        ) from error
    pool = RayPool(ray, job, _places(ray.nodes(), job, per_node))
    try:
        yield pool
    finally:
        for number in range(len(pool.names)):
            pool.stop(number)
        ray.shutdown()


class RayPool:
    """See ``cluster.driver.Pool``."""

    def __init__(self, ray: Any, job: WorkerJob, places: list[_Place]) -> None:
        self.names: Sequence[str] = [place.name for place in places]
        self._ray, self._job, self._places = ray, job, places
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}

    def start(self, number: int) -> None:
        """Start an actor on the worker's node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = self._places[number]
        kind = self._ray.remote(LeaseWorker).options(
            num_cpus=self._job.threads,
            num_gpus=0 if self._job.gpu is None else 1,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        )
        self._actors[number] = kind.remote(self._job, place.slot)
        self._call(number, lambda actor: actor.open.remote())

    def measure(self, number: int, lease: Lease, sentinels: tuple[OpSpec, ...]) -> None:
        """Give an actor a lease, and what to time beside it."""
        graphs = contents((*lease.specs, *sentinels))
        self._call(number, lambda actor: actor.measure.remote(lease, sentinels, graphs))

    def wait(self, timeout_s: float) -> list[tuple[int, Hello | LeaseResult | Lost]]:
        """What actors answered; of one that ended, that it did."""
        if not self._calls:
            return []
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        return [(self._calls.pop(call), self._answer(call)) for call in ready]

    def stop(self, number: int) -> None:
        """End an actor; one that waits gives its device back first."""
        actor = self._actors.pop(number, None)
        if actor is None:
            return
        is_busy = number in self._calls.values()
        self._calls = {call: own for call, own in self._calls.items() if own != number}
        with suppress(self._ray.exceptions.RayError):
            if not is_busy:
                self._ray.get(actor.close.remote(), timeout=_CLOSE_S)
        self._ray.kill(actor)

    def _call(self, number: int, ask: Callable[[Any], Any]) -> None:
        self._calls[ask(self._actors[number])] = number

    def _answer(self, call: Any) -> Hello | LeaseResult | Lost:
        try:
            answer: Hello | LeaseResult | Lost = self._ray.get(call)
            return answer
        except self._ray.exceptions.ActorUnschedulableError as error:
            return Lost(f"its node is gone: {_first_line(error)}", is_final=True)
        except self._ray.exceptions.RayActorError:
            return Lost("its process has ended, or its node does not answer")
        except self._ray.exceptions.RayError as error:  # a defect in the worker
            return Lost(f"it failed: {error}")


def _places(nodes: list[dict[str, Any]], job: WorkerJob, per_node: int | None) -> list[_Place]:
    """A place per device of the nodes that are alive."""
    found = []
    for node in nodes:
        resources = node["Resources"] if node["Alive"] else {}
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        count = min(gpus, per_node or gpus) if job.gpu is not None else per_node or 1
        if count * job.threads > cpus and resources:
            if job.gpu is None:
                raise LatlutError(
                    f"{count} workers of {job.threads} threads need {count * job.threads} CPUs, "
                    f"Ray's node {node['NodeManagerHostname']} has {cpus}: lower --workers or "
                    "--threads"
                )
            count = cpus // job.threads
        for slot in range(count if resources else 0):
            name = f"{node['NodeManagerHostname']}, worker {slot + 1} of {count}"
            found.append(_Place(node["NodeID"], name, Part(slot, count)))
    if not found:
        wanted = "GPU" if job.gpu is not None else "CPU"
        raise LatlutError(f"Ray's cluster has {len(nodes)} nodes and no {wanted} on any of them")
    return found


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise LatlutError(
            "--ray needs Ray, which is not installed: pip install 'latlut[cluster]'"
        ) from error
    return ray
