"""The environment of a run: readable everywhere, comparable, and pinning that is undone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latlut.engines import engine_packages
from latlut.errors import SpecError
from latlut.machine import cpu
from latlut.machine import pinning as affinity
from latlut.machine import provenance as environment
from latlut.machine.cpu import allowed_cpus
from latlut.machine.pinning import choose_cpus, pinned
from latlut.machine.provenance import (
    FACTS,
    collect_environment,
    cpu_steal_fraction,
    environment_changes,
)

needs_pinning = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process"
)


def test_every_fact_is_declared_once_and_described() -> None:
    names = [fact.name for fact in FACTS]
    assert len(names) == len(set(names))
    assert all(fact.description for fact in FACTS)


def test_an_environment_has_every_key_and_survives_json() -> None:
    collected = collect_environment()
    assert list(collected) == [fact.name for fact in FACTS]
    assert json.loads(json.dumps(collected, allow_nan=False)) == collected
    assert all(
        value is None or isinstance(value, (str, int, float)) for value in collected.values()
    )
    assert collected["cpu_model"]
    assert collected["allowed_cpus"] == len(allowed_cpus())
    assert isinstance(collected["latlut"], str)


def test_versions_come_without_importing_the_packages() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from latlut.machine.provenance import collect_environment\n"
        "e = collect_environment();"
        "print(e['numpy'], [m for m in ('torch', 'numpy', 'onnxruntime') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    import numpy

    assert answer.stdout.strip() == f"{numpy.__version__} []"


def test_a_machine_that_shows_nothing_gives_none_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(path: str | Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(cpu, "kernel_text", unreadable)
    collected = collect_environment()
    assert collected["cpu_governor"] is None
    assert collected["cpu_steal_ticks"] is None
    assert collected["cpu_model"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("model name: AMD EPYC\ncpu family: 25\nmodel: 17", "AMD EPYC (family 25, model 17)"),
        ("model name: AMD EPYC\ncpu family: 25\nmodel: 1", "AMD EPYC (family 25, model 1)"),
        ("model name: AMD EPYC 7B13\ncpu family: 25\nmodel: 1", "AMD EPYC 7B13"),
        ("model name: Intel(R) Core(TM) i7-8700 CPU\nmodel: 158", "Intel(R) Core(TM) i7-8700 CPU"),
        (
            "model name: QEMU Virtual CPU version 2.5+\ncpu family: 15\nmodel: 107",
            "QEMU Virtual CPU version 2.5+ (family 15, model 107)",
        ),
        ("CPU implementer: 0x41\nCPU part: 0xd0c", "aarch64 (implementer 0x41, part 0xd0c)"),
        ("", "aarch64"),
    ],
)
def test_cpus_of_one_hidden_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, fields: str, expected: str
) -> None:
    monkeypatch.setattr(cpu, "kernel_text", lambda path: fields)
    monkeypatch.setattr(cpu.platform, "processor", lambda: "")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    assert cpu.cpu_model() == expected


def test_nothing_changed_between_two_moments() -> None:
    before = collect_environment()
    after = dict(before) | {"load_1min": 99.0, "cpu_mhz": 1.0, "boot_id": "another"}
    assert environment_changes(before, after) == []


def test_changes_that_matter_are_sentences() -> None:
    before = {"cpu_governor": "powersave", "onnxruntime": "1.31.0", "cpu_power_limit_w": 65.0}
    after = {"cpu_governor": "performance", "onnxruntime": "1.32.0", "cpu_power_limit_w": 45.0}
    assert environment_changes(before, after, engine_packages()) == [
        "frequency governor of the allowed CPUs was powersave, is now performance",
        "sustained CPU power limit was 65.0 W, is now 45.0 W",
        "version of ONNX Runtime was 1.31.0, is now 1.32.0",
    ]


def test_the_unreadable_and_the_undeclared_are_no_change_but_a_missing_package_is() -> None:
    before = {"microcode": "0x1", "tensorrt": "10.0", "removed_key": 1}
    after = {"microcode": None, "tensorrt": None, "host": "a"}
    assert environment_changes(before, after, engine_packages()) == [
        "version of TensorRT was 10.0, is now not installed"
    ]


@pytest.mark.parametrize(
    ("steal", "total", "boot", "expected"),
    [
        (25, 100, "a", 0.25),
        (0, 100, "a", 0.0),
        (0, 0, "a", None),
        (25, 100, "b", None),
        (None, 100, "a", None),
    ],
)
def test_steal_is_a_share_of_the_time_in_between(
    steal: int | None, total: int, boot: str, expected: float | None
) -> None:
    before = {"cpu_steal_ticks": 1000, "cpu_total_ticks": 50_000, "boot_id": "a"}
    after = {
        "cpu_steal_ticks": None if steal is None else 1000 + steal,
        "cpu_total_ticks": 50_000 + total,
        "boot_id": boot,
    }
    assert cpu_steal_fraction(before, after) == expected


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/a/b", {"/sys/fs/cgroup/a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"/sys/fs/cgroup/a/cpu.max": "max 100000"}, None),
        (
            "0::/a/b",
            {
                "/sys/fs/cgroup/a/cpu.max": "400000 100000",
                "/sys/fs/cgroup/a/b/cpu.max": "200000 100000",
            },
            2.0,
        ),
        ("0::/not/mounted/here", {"/sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x",
            {
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
    ],
)
def test_the_tightest_control_group_limit_counts(
    monkeypatch: pytest.MonkeyPatch, cgroup: str, limits: dict[str, str], expected: float | None
) -> None:
    files = {"/proc/self/cgroup": cgroup, **limits}

    def read(path: str | Path) -> str:
        try:
            return files[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(cpu, "kernel_text", read)
    assert cpu.cgroup_cpus() == expected


@pytest.fixture
def eight_cpus_on_four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        core = number - number % 2
        (folder / "thread_siblings_list").write_text(f"{core}-{core + 1}\n")
    monkeypatch.setattr(cpu, "CPU_DIR", tmp_path)
    monkeypatch.setattr(affinity, "allowed_cpus", lambda: tuple(range(8)))


@pytest.mark.usefixtures("eight_cpus_on_four_cores")
@pytest.mark.parametrize(
    ("threads", "expected"),
    [(1, (7,)), (2, (5, 7)), (4, (1, 3, 5, 7)), (5, (1, 3, 5, 6, 7)), (8, tuple(range(8)))],
)
def test_the_highest_cpus_are_chosen_one_per_core_first(
    threads: int, expected: tuple[int, ...]
) -> None:
    assert choose_cpus(threads) == expected
    assert cpu.physical_cores(expected) == min(threads, 4)


def test_impossible_thread_counts_are_refused() -> None:
    here = len(allowed_cpus())
    with pytest.raises(SpecError, match=f"may use {here} CPUs"):
        choose_cpus(here + 1)
    with pytest.raises(SpecError, match="at least 1"):
        choose_cpus(0)


@needs_pinning
def test_pinning_holds_inside_and_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(choose_cpus(1)) as cpus:
        assert cpus == (max(before),)
        assert os.sched_getaffinity(0) == set(cpus)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ZeroDivisionError), pinned(choose_cpus(1)):
        _ = 1 / 0
    assert os.sched_getaffinity(0) == before


@needs_pinning
def test_pinning_moves_threads_that_exist_and_those_that_start() -> None:
    before = os.sched_getaffinity(0)
    start, seen = threading.Event(), {}

    def report(name: str, wait: bool) -> None:
        if wait:
            start.wait(60)
        seen[name] = os.sched_getaffinity(0)

    older = threading.Thread(target=report, args=("older", True))
    older.start()
    with pinned(choose_cpus(1)) as cpus:
        start.set()
        newer = threading.Thread(target=report, args=("newer", False))
        newer.start()
        newer.join()
        older.join()
    assert seen == {"older": set(cpus), "newer": set(cpus)}
    assert os.sched_getaffinity(0) == before


@needs_pinning
def test_cpus_that_are_not_allowed_are_refused() -> None:
    for cpus in ([10_000], []):
        with pytest.raises(SpecError, match="this process may use"), pinned(cpus):
            pass


def test_a_system_without_pinning_measures_unpinned_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.warns(RuntimeWarning, match="unpinned"), pinned(choose_cpus(1)) as cpus:
        assert cpus == ()


def test_a_process_is_gone_only_where_that_is_known() -> None:
    here = environment.collect_environment()
    assert not environment.is_process_gone(here)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    ended = here | {"process_id": child.pid}
    assert environment.is_process_gone(ended)
    assert environment.is_process_gone(here | {"boot_id": "of another boot"})
    for unknown in ({"host": "another"}, {"boot_id": None}, {"process_id": None}):
        assert not environment.is_process_gone(ended | unknown)
    assert not environment.is_process_gone({})
