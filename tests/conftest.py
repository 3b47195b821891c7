"""Fixtures that several test files use. Locks and caches of tests never meet the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fake_engine
import pytest
from fake_engine import OPS, FakeEngine
from in_context_sweeps import free_identities_and_saving_upsampling, swept_file

from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable


@pytest.fixture(autouse=True)
def private_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """A lock folder and a graph cache of the test's own, and output of any width."""
    folder = tmp_path_factory.mktemp("private")
    monkeypatch.setenv("LATLUT_LOCK_DIR", str(folder / "locks"))
    monkeypatch.setenv("LATLUT_CACHE", str(folder / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of pytest-xdist have it


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes or text into a file of the test's own folder."""

    def write(data: bytes | str, name: str = "table.npy") -> Path:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@pytest.fixture
def plan() -> Plan:
    return plan_from_ops(OPS)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def identity(engine: FakeEngine) -> Identity:
    return identity_of(engine, "cpu", statistic="p10")


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "table.db"


@pytest.fixture
def table(table_path: Path) -> Iterator[LatencyTable]:
    """The test file's own ``table_path``, opened for reading."""
    with LatencyTable.open(table_path) as opened:
        yield opened


@pytest.fixture
def measured(db_path: Path, plan: Plan, engine: FakeEngine, identity: Identity) -> Path:
    """A table file with every op spec of ``plan``, five passes."""
    with LatencyTable.create(db_path, identity) as table:
        Sweep(table, plan, engine, SweepSettings()).run()
    return db_path


@pytest.fixture
def scripted_in_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """What operators of the fake engine cost in context."""
    monkeypatch.setattr(fake_engine, "work_ns", free_identities_and_saving_upsampling())


@pytest.fixture
def swept(scripted_in_context: None, db_path: Path) -> Path:
    """A table file of ``CONTEXT_OPS``, measured in context."""
    return swept_file(db_path)


@pytest.fixture
def swept_alone(scripted_in_context: None, tmp_path: Path) -> Path:
    """The same, measured alone."""
    return swept_file(tmp_path / "alone.db", mode="standalone")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums have the same order in every run."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
