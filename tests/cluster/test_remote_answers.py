"""What a stranger's machine answers is validated before anything is stored."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from scripted_pool import ScriptedPool

from latlut.cluster.frames import answer_values, job_of, job_values
from latlut.cluster.leases import LeaseBook
from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.cluster.remote_answers import read_answer
from latlut.cluster.ssh_connection import Host
from latlut.errors import LatlutError
from latlut.measure.sweep_settings import SweepSettings
from latlut.opspec import OpSpec

SPECS = (OpSpec.parse("conv 4->4 at 8x8"), OpSpec.parse("conv 4->8 at 8x8"))
LEASE = Lease(0, 0, SPECS)
JOB = WorkerJob("h200", "scripted", "fp32", 1, {}, None, SweepSettings(), (("a.py", "x = 1"),))


def answered(kind: type) -> dict[str, Any]:
    """What a worker sends, after its way as JSON."""
    pool = ScriptedPool([1.0])
    pool.start(0)
    if kind is LeaseResult:
        pool.wait(0)
        pool.measure(0, LEASE, SPECS[:1])
    ((_, answer),) = pool.wait(0)
    assert isinstance(answer, kind)
    return json.loads(json.dumps(answer_values(answer)))


def read(values: object) -> object:
    return read_answer(json.dumps(values).encode(), JOB, LEASE, SPECS[:1])


def test_jobs_and_answers_come_through_whole() -> None:
    assert job_of(json.loads(json.dumps(job_values(JOB)))) == JOB
    hello = read(answered(Hello))
    assert isinstance(hello, Hello)
    assert hello.identity.device_model == "NVIDIA H200"
    result = read(answered(LeaseResult))
    assert isinstance(result, LeaseResult)
    assert [item.spec for item in result.found] == list(SPECS)
    assert result.found[0].sampling.samples_ns.dtype == "int64"
    assert [spec for spec, _, _ in result.readings] == [SPECS[0]]
    ended = read({"type": "ended", "spec": SPECS[1].key, "reason": "ended \x1b[31m"})
    assert ended == Lost("ended ?[31m", culprit=SPECS[1])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        (Hello, ("identity", "engine"), "another"),
        (Hello, ("identity", "target"), "cpu"),
        (Hello, ("identity", "threads"), 2),
        (Hello, ("environment", "host"), ["a"]),
        (Hello, ("peaks",), [1.0]),
        (Hello, ("type",), "other"),
        (Hello, ("more",), 1),
        (LeaseResult, ("found", 0, "spec"), SPECS[1].key),
        (LeaseResult, ("found", 0, "spec"), "conv 9->9 at 8x8"),
        (LeaseResult, ("found", 0, "samples_ns"), []),
        (LeaseResult, ("found", 0, "samples_ns", 0), -1),
        (LeaseResult, ("found", 0, "samples_ns", 0), 1 << 70),
        (LeaseResult, ("found", 0, "samples_ns", 0), 1.5),
        (LeaseResult, ("found", 0, "interval_ms", 0), 1e6),
        (LeaseResult, ("found", 0, "interval_ms", 0), None),
        (LeaseResult, ("found", 0, "interval_ms", 1), 1e6),
        (LeaseResult, ("readings", 0, 0), SPECS[1].key),
        (LeaseResult, ("readings", 0, 2), math.nan),
        (LeaseResult, ("readings", 0), "abc"),
        (LeaseResult, ("cpu_share",), 7),
        (LeaseResult, ("group",), True),
    ],
)
def test_what_is_no_answer_to_what_was_asked_is_refused(
    kind: type, path: tuple[Any, ...], value: object
) -> None:
    values = answered(kind)
    place = values
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(LatlutError):
        read(values)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"type": 1}', b"null"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(LatlutError):
        read_answer(content, JOB, LEASE, ())


def test_a_result_of_no_lease_is_refused() -> None:
    content = json.dumps(answered(LeaseResult)).encode()
    with pytest.raises(LatlutError, match="no lease"):
        read_answer(content, JOB, None, SPECS)


def test_a_cut_connection_blames_no_op_spec() -> None:
    book = LeaseBook({0: SPECS[:1]}, 1)
    for _ in range(10):
        lease = book.next()
        assert lease is not None
        book.give_back(lease)
    assert lease.deaths == 0


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("me@board", Host("board", "me")),
        ("board:2222", Host("board", None, 2222)),
        ("me@[fe80::1]:22", Host("fe80::1", "me", 22)),
    ],
)
def test_hosts(text: str, host: Host) -> None:
    assert Host.parse(text) == host
    assert str(host) == text


@pytest.mark.parametrize("text", ["", "me@", "me@board:0", "me@board:99999", "-oProxy=x", "a b"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(LatlutError, match="USER@HOST"):
        Host.parse(text)
