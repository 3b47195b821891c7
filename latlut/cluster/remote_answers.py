"""What a remote worker answers, validated at the door: types, ranges, and that it was asked for."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.errors import LatlutError
from latlut.files.strict_json import parse_json
from latlut.machine.gpu_state import GpuState
from latlut.measure.groups import TimedSpec
from latlut.opspec import OpSpec
from latlut.stats.quantiles import Interval
from latlut.stats.sampling import Sampling
from latlut.table.identity import STANDALONE, Identity

#: Bytes of a message: a lease of 12 op specs has about 100 kB.
MAX_MESSAGE = 16 << 20

_Text = Annotated[str, Field(max_length=10_000)]
_Name = Annotated[str, Field(max_length=1000)]
_Ms = Annotated[float, Field(gt=0, le=1e9)]
_Seconds = Annotated[float, Field(ge=0, le=1e6)]
_Count = Annotated[int, Field(ge=0, le=1 << 40)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, le=1e21)]
_Nanoseconds = Annotated[int, Field(ge=0, le=10**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _State(_Strict):
    """See ``GpuState``."""

    sm_mhz: _Count | None
    memory_mhz: _Count | None
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    throttle_reasons: list[_Name] | None
    other_processes: list[_Count] | None
    performance_state: _Count | None
    is_persistent: bool | None
    default_sm_mhz: _Count | None
    default_memory_mhz: _Count | None
    max_sm_mhz: _Count | None
    max_memory_mhz: _Count | None
    has_clock_lock: bool | None
    uuid: _Name
    slowdown_readings: _Count

    def state(self) -> GpuState:
        values = self.model_dump()
        for name in ("throttle_reasons", "other_processes"):
            values[name] = None if values[name] is None else tuple(values[name])
        return GpuState(**values)


class _Hello(_Strict):
    type: Literal["hello"]
    version: _Name
    identity: dict[_Name, _Name | int]
    device: _Name
    place: _Name
    environment: dict[_Name, _Text | int | float | dict[_Name, _Text] | None]
    launch_floor_ms: _Ms | None
    peaks: Annotated[list[_Positive | None], Field(min_length=3, max_length=3)]
    state: _State | None


class _Found(_Strict):
    spec: _Name
    samples_ns: Annotated[list[_Nanoseconds], Field(min_length=1, max_length=1_000_000)]
    interval_ms: Annotated[list[_Ms | Literal[0] | None], Field(min_length=3, max_length=3)]
    warmup_runs: _Count
    warmup_s: _Seconds
    timing_s: _Seconds
    is_steady: bool
    parity: Annotated[float, Field(ge=0)] | None
    host_share: Annotated[float, Field(ge=0)] | None
    launch: _Text | None


class _Result(_Strict):
    type: Literal["result"]
    opening: _Count
    group: _Count
    found: list[_Found]
    failures: dict[_Name, _Text]
    readings: list[Annotated[list[Any], Field(min_length=3, max_length=3)]]
    is_slow: bool
    state: _State | None
    cpu_share: _Share | None


class _Lost(_Strict):
    type: Literal["lost"]
    reason: _Text
    is_final: bool


class _Ended(_Strict):
    type: Literal["ended"]
    spec: _Name | None
    reason: _Text


_Answer: TypeAdapter[_Hello | _Result | _Lost | _Ended] = TypeAdapter(
    Annotated[_Hello | _Result | _Lost | _Ended, Field(discriminator="type")]
)
_Reading: TypeAdapter[tuple[str, int, float]] = TypeAdapter(tuple[_Name, _Count, _Ms])


def read_answer(
    content: bytes, job: WorkerJob, lease: Lease | None, sentinels: tuple[OpSpec, ...]
) -> Hello | LeaseResult | Lost:
    """The answer in a message.

    Args:
        content: the JSON.
        job: what the worker was told.
        lease: what it has, None where it has none.
        sentinels: what it times beside it.

    Raises:
        LatlutError: it is no answer, or not one to what was asked.
    """
    try:
        values = parse_json(content.decode(), "an answer")
        if isinstance(values, dict):
            values.pop("blobs", None)
        found = _Answer.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LatlutError(f"{place}: {first['msg']}"[:300]) from error
    except UnicodeDecodeError as error:
        raise LatlutError("no text") from error
    if isinstance(found, _Lost):
        return Lost(_printable(found.reason), found.is_final)
    if isinstance(found, _Ended):
        mine = {spec.key: spec for spec in (*(lease.specs if lease else ()), *sentinels)}
        return Lost(_printable(found.reason), culprit=mine.get(found.spec or ""))
    if isinstance(found, _Hello):
        return _hello(found, job)
    if lease is None:
        raise LatlutError("a result of no lease")
    return _result(found, lease, sentinels)


def _hello(found: _Hello, job: WorkerJob) -> Hello:
    identity = Identity.from_dict(found.identity)
    wanted = {
        "engine": job.engine,
        "precision": job.precision,
        "threads": job.threads,
        "statistic": job.settings.timing.statistic,
        "mode": job.mode or STANDALONE,
    }
    for name, value in wanted.items():
        if getattr(identity, name) != value:
            raise LatlutError(f"{name} {getattr(identity, name)!r} where {value!r} was asked for")
    if (identity.target == "cpu") != (job.gpu is None):
        raise LatlutError(f"it measures on {identity.target!r}")
    flops, memory, cache = found.peaks
    return Hello(
        _printable(found.version),
        identity,
        _printable(found.device),
        _printable(found.place),
        found.environment,
        found.launch_floor_ms,
        (flops, memory, cache),
        found.state.state() if found.state else None,
    )


def _result(found: _Result, lease: Lease, sentinels: tuple[OpSpec, ...]) -> LeaseResult:
    mine = {spec.key: spec for spec in lease.specs}
    beside = {spec.key: spec for spec in sentinels}
    keys = [item.spec for item in found.found] + list(found.failures)
    if len(keys) != len(set(keys)) or not set(keys) <= set(mine):
        raise LatlutError("operator configurations twice, or others than were asked for")
    readings = []
    for item in found.readings:
        try:
            key, group, ms = _Reading.validate_python(tuple(item), strict=True)
        except ValidationError as error:
            raise LatlutError(f"readings: {error.errors()[0]['msg']}") from error
        if key not in beside:
            raise LatlutError(f"a reading of {key!r:.80}, which is no reference operator")
        readings.append((beside[key], group, ms))
    return LeaseResult(
        lease,
        found.opening,
        found.group,
        tuple(_timed(mine[item.spec], item) for item in found.found),
        {mine[key]: _printable(text) for key, text in found.failures.items()},
        tuple(readings),
        found.is_slow,
        found.state.state() if found.state else None,
        found.cpu_share,
    )


def _timed(spec: OpSpec, item: _Found) -> TimedSpec:
    samples_ns = np.array(item.samples_ns, dtype=np.int64)
    value, low, high = (math.nan if side is None else float(side) for side in item.interval_ms)
    if not samples_ns.min() / 1e6 <= value <= samples_ns.max() / 1e6:
        raise LatlutError(f"{spec.key}: a latency of {value} ms outside of its samples")
    if low > value or high < value:
        raise LatlutError(f"{spec.key}: a latency of {value} ms outside of its interval")
    sampling = Sampling(
        samples_ns,
        Interval(value, low, high),
        item.warmup_runs,
        item.warmup_s,
        item.timing_s,
        item.is_steady,
    )
    return TimedSpec(spec, sampling, item.parity, item.host_share, item.launch)


def _printable(text: str) -> str:
    """Text that does nothing to a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
