"""A worker on a machine that is reached by ssh: leases come on stdin, answers go to stdout."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from latlut.cluster.frames import answer_values, job_of, message, read_message
from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.cluster.sent_graphs import received_graphs
from latlut.cluster.worker import LeaseWorker
from latlut.machine.gpus import DetectedGpu, detect_gpus
from latlut.measure.attempts import Attempts
from latlut.measure.parts import Part
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec


class RemoteWorker(LeaseWorker):
    """The worker of a machine; graphs that were sent stand for operators."""

    def __init__(self, job: WorkerJob, attempts: Attempts) -> None:
        super().__init__(job, Part(0, 1), attempts, self._workload)
        self.graphs: dict[OpSpec, Workload] = {}

    def _workload(self, spec: OpSpec) -> Workload:
        """What was sent; an engine that runs PyTorch modules is sent nothing."""
        return self.graphs.get(spec) or Workload.from_spec(spec)

    def _check(self, spec: OpSpec) -> None:
        if spec not in self.graphs:  # what was built elsewhere may be an operator unknown here
            super()._check(spec)

    def _gpus(self) -> list[DetectedGpu]:
        """All of the machine."""
        return detect_gpus()


def serve(attempts: Attempts) -> None:
    """Answer until stdin ends.

    Args:
        attempts: told which op spec is worked on.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what engines and operators print is no answer
    sys.stdout = sys.stderr
    commands = os.fdopen(os.dup(0), "rb")
    first = read_message(commands)
    if first is None:
        return
    worker = RemoteWorker(job_of(first[0]), attempts)
    _send(answers, worker.open())
    while (command := read_message(commands)) is not None:
        values, blobs = command
        worker.graphs = received_graphs(values["graphs"], blobs)
        lease = Lease(values["pass_index"], values["build"], _specs(values["specs"]))
        answer = worker.measure(lease, _specs(values["sentinels"]))
        attempts.turn_to(None)
        _send(answers, answer)
    worker.close()


def _specs(keys: list[str]) -> tuple[OpSpec, ...]:
    return tuple(map(OpSpec.parse, keys))


def _send(stream: BinaryIO, answer: Hello | LeaseResult | Lost) -> None:
    stream.write(message(answer_values(answer)))
    stream.flush()
