"""Parts of the GPU benchmark that need no GPU: empty caches, and the other clock."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.bench_gpu import against_host, fresh_engine

from latlut.files.writing import cache_folder


@pytest.mark.parametrize("has_own", [True, False])
def test_each_engine_finds_empty_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_own: bool
) -> None:
    monkeypatch.delenv("LATLUT_CACHE", raising=False)
    if has_own:
        monkeypatch.setenv("LATLUT_CACHE", str(tmp_path))
    before, folders, engines = os.environ.get("LATLUT_CACHE"), set(), []
    for _ in range(2):
        with fresh_engine("pytorch", "cpu", {}) as engine:
            folder = cache_folder("tensorrt")
            assert not folder.exists()
            folder.mkdir(parents=True)
            (folder / "a plan").touch()
            folders.add(folder)
            engines.append(engine)
        assert not folder.exists()
        assert os.environ.get("LATLUT_CACHE") == before
    assert len(folders) == 2
    assert engines[0] is not engines[1]


@pytest.mark.parametrize("slope", [1.0, 1.07])
def test_what_waiting_costs_is_told_from_a_clock_that_runs_wrong(slope: float) -> None:
    events_ms = np.geomspace(0.005, 20, 30)
    found = against_host(events_ms, 0.012 + slope * events_ms)
    assert found is not None
    assert found["slope"] == pytest.approx(slope)
    assert found["wait_us"] == pytest.approx(12)
    assert found["worst_residual_percent"] < 0.01
    assert against_host(events_ms[:2], events_ms[:2]) is None
