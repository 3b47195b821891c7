"""What a remote worker and its driver send each other, as bytes.

A frame is a kind, ``J`` for JSON or ``B`` for bytes, a length of 4 bytes and the content. A message
is one JSON object in a frame; its ``blobs`` says how many frames of bytes follow.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from latlut.cluster.messages import Hello, LeaseResult, Lost, WorkerJob
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.timing import TimingSettings

HEAD = struct.Struct(">cI")
JSON, BLOB = b"J", b"B"


def frame(kind: bytes, content: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(kind, len(content)) + content


def message(values: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """A message with its blobs."""
    text = json.dumps({**values, "blobs": len(blobs)}, allow_nan=False).encode()
    return frame(JSON, text) + b"".join(frame(BLOB, blob) for blob in blobs)


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message from the driver with its blobs; None where the stream has ended."""
    content = _read_frame(stream)
    if content is None:
        return None
    values = json.loads(content)
    blobs = [_read_frame(stream) for _ in range(values.pop("blobs"))]
    whole = [blob for blob in blobs if blob is not None]
    return (values, whole) if len(whole) == len(blobs) else None


def _read_frame(stream: BinaryIO) -> bytes | None:
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    _, length = HEAD.unpack(head)
    content = stream.read(length)
    return content if len(content) == length else None


def job_values(job: WorkerJob) -> dict[str, Any]:
    """A job, JSON-able."""
    return asdict(job)


def job_of(values: Mapping[str, Any]) -> WorkerJob:
    """The job of ``job_values``."""
    settings = dict(values["settings"])
    timing = TimingSettings(**settings.pop("timing"))
    own_modules = tuple((name, text) for name, text in values["own_modules"])
    return WorkerJob(
        **{**values, "settings": SweepSettings(timing, **settings), "own_modules": own_modules}
    )


def answer_values(answer: Hello | LeaseResult | Lost) -> dict[str, Any]:
    """What a worker answers, JSON-able; ``remote_answers`` reads it."""
    if isinstance(answer, Lost):
        return {"type": "lost", "reason": answer.reason, "is_final": answer.is_final}
    if isinstance(answer, Hello):
        return {"type": "hello", **asdict(answer)}
    return {
        "type": "result",
        "opening": answer.opening,
        "group": answer.group,
        "found": [
            {
                "spec": item.spec.key,
                "samples_ns": item.sampling.samples_ns.tolist(),
                "interval_ms": [
                    _number(value)
                    for value in (
                        item.sampling.interval_ms.value,
                        item.sampling.interval_ms.low,
                        item.sampling.interval_ms.high,
                    )
                ],
                "warmup_runs": item.sampling.warmup_runs,
                "warmup_s": item.sampling.warmup_s,
                "timing_s": item.sampling.timing_s,
                "is_steady": bool(item.sampling.is_steady),
                "parity": item.parity,
                "host_share": item.host_share,
                "launch": item.launch,
            }
            for item in answer.found
        ],
        "failures": {spec.key: text for spec, text in answer.failures.items()},
        "readings": [[spec.key, group, ms] for spec, group, ms in answer.readings],
        "is_slow": bool(answer.is_slow),
        "state": None if answer.state is None else asdict(answer.state),
        "cpu_share": answer.cpu_share,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
