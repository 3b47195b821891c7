"""Kills and failing disks over the commands that write tables and run folders: what they left.

    python tests/faults/campaign.py --kills 1000 --disk 300 --seed 1

prints one line per command. Each case starts from the same folder: the command meets one fault,
the folder is looked at, the same command is given again, the folder is looked at again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from faults.injecting import DISK_FAULTS, KILLS, Fault, Injector, Outcome
from faults.measuring import ACKNOWLEDGED
from faults.scenarios import MODULES, SCENARIOS, Facts, rows

#: Words of which a refusal has one, by what the disk answered.
_REASONS = {
    Fault.FULL: ("disk is full", "disk I/O error"),
    Fault.READ_ONLY: ("read-only", "Read-only file system", "may not be written", "disk I/O error"),
    Fault.FAILING: ("Input/output error", "disk I/O error", "unable to open database file"),
}
STOPPED = 130


@dataclass(frozen=True)
class Case:
    """A fault: at the ``at``-th change of a file, or after a time."""

    fault: Fault
    at: int = 0
    after_s: float | None = None

    def __str__(self) -> str:
        place = f"at change {self.at}" if self.after_s is None else f"after {self.after_s:.3f} s"
        return f"{self.fault.name} {place}"


@dataclass
class Tally:
    """What a command's cases came to; ``problems`` names each that should not be."""

    kills: int = 0
    disk_faults: int = 0
    stops: int = 0
    lost: int = 0
    doubled: int = 0
    refused: int = 0
    tracebacks: int = 0
    misreported: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return self.kills + self.disk_faults + self.stops

    def add(self, what: str, text: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self.problems.append(f"{what}: {text}")


class Campaign:
    """The cases of one command.

    Args:
        injector: with the modules of ``scenarios``.
        name: of the scenario.
        place: an empty folder.
    """

    def __init__(self, injector: Injector, name: str, place: Path) -> None:
        self.name, self.scenario, self._injector = name, SCENARIOS[name], injector
        self.folder, self._pristine = place / "folder", place / "pristine"
        self._copy, self._noted = place / "copy", place / "acknowledged"
        self._pristine.mkdir()
        self.scenario.prepare(self._pristine)
        self.before = self.scenario.facts(self._pristine)
        undisturbed = self._undisturbed()
        self.after = self._look()
        self.calls, self.seconds = undisturbed.calls, undisturbed.seconds
        assert self.after != self.before, f"{name} changes nothing"
        assert not self.before - self.after, f"{name} removes something"
        self.tally = Tally()

    def _undisturbed(self) -> Outcome:
        for _ in range(2):  # the first one fills caches
            self._restore()
            found = self._run()
            assert found.code == 0, f"{self.name}: {found.output}"
        return found

    def _restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._pristine, self.folder)
        self._noted.write_text("")

    def _run(self, case: Case | None = None) -> Outcome:
        case = case or Case(Fault.NONE)
        return self._injector.run(
            self.scenario.words, self.folder, fault=case.fault, at=case.at, call=self.scenario.call,
            kill_after_s=case.after_s, environment={ACKNOWLEDGED: str(self._noted)},
        )  # fmt: skip

    def _look(self) -> Facts:
        """Facts of a copy: looking at a table may change it."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.folder, self._copy)
        found = self.scenario.facts(self._copy)
        for path in self._copy.glob("*.db"):
            with closing(sqlite3.connect(path)) as connection:
                sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                sound &= not connection.execute("PRAGMA foreign_key_check").fetchall()
            if not sound:
                found["damaged", path.name] += 1
        return found

    def run(self, cases: Iterable[Case], until_s: float = math.inf) -> None:
        """Each case, and the command again after it; none is begun after ``time.monotonic``."""
        for case in cases:
            if time.monotonic() > until_s:
                return
            self._restore()
            found = self._run(case)
            if not self._was_met(case, found):
                continue
            now = self._look()
            noted = self._noted.read_text()
            again = self._run()
            self._judge(case, found, now, noted, again, self._look())

    def _was_met(self, case: Case, found: Outcome) -> bool:
        """Whether the fault came before the command's end; counts it then."""
        if case.fault in KILLS:
            self.tally.kills += found.was_killed
            return found.was_killed
        if not found.hits:
            return False
        if case.fault is Fault.INTERRUPT:
            self.tally.stops += 1
        else:
            self.tally.disk_faults += 1
        return True

    def _judge(
        self, case: Case, found: Outcome, now: Facts, noted: str, again: Outcome, final: Facts
    ) -> None:
        tally = self.tally
        where = f"{self.name}, {case}: exit code {found.code}\n{found.output[-2000:]}"
        for outcome in (found, again):
            if outcome.has_traceback:
                tally.add("tracebacks", f"{where}\nafterwards: {again.output[-2000:]}")
                break
        if case.fault not in KILLS:
            self._judge_report(case, found, where)
        lost = (self.before - now) + (self.before - final)
        if self.scenario.is_atomic and now not in (self.before, self.after):
            lost += (self.after - now) or (now - self.after)
        if found.code == 0:
            lost += self.after - now
        kept = {tuple(row) for row in self._readings()}
        lost.update(fact for fact in _facts_of(noted) if fact not in kept)
        if again.code != 0:
            tally.add("refused", f"{where}\nafterwards {again.code}: {again.output[-2000:]}")
        else:
            lost += self.after - final
            left = [path.name for path in self.folder.rglob("*") if _is_left_over(path)]
            if extra := [*(final - self.after), *left]:
                tally.add("doubled", f"{where}\nafterwards too much: {extra[:5]}")
        if lost:
            tally.add("lost", f"{where}\nlost: {list(lost)[:5]}")

    def _judge_report(self, case: Case, found: Outcome, where: str) -> None:
        """Whether exit code and message are those that are documented."""
        if case.fault is Fault.INTERRUPT:
            is_right = found.code in (0, STOPPED)
        elif found.code == 2:
            is_right = any(words in found.output for words in _REASONS[case.fault])
        else:
            is_right = found.code == 0
        if not is_right:
            self.tally.add("misreported", where)

    def _readings(self) -> list[tuple[str, int, float]]:
        if self.name != "sweep":
            return []
        return rows(
            self.folder / "table.db",
            "SELECT key, pass_index, reading_ms FROM measurements"
            " JOIN op_specs ON op_specs.id = op_spec_id JOIN passes ON passes.id = pass_id",
        )

    def kills(self, count: int, seed: int) -> Iterator[Case]:
        """At changes of files, before and in the middle of a write, and at any time."""
        draw = random.Random(f"{self.name}/{seed}/kills")
        for number in range(4 * count):
            if self.tally.kills >= count:
                return
            if number % 3 == 2:
                yield Case(Fault.KILL, after_s=draw.uniform(0.0, self.seconds))
            else:
                yield Case(KILLS[number % 3], draw.randint(1, self.calls))

    def disk_faults(self, count: int, seed: int) -> Iterator[Case]:
        draw = random.Random(f"{self.name}/{seed}/disk")
        for number in range(4 * count):
            if self.tally.disk_faults >= count:
                return
            yield Case(DISK_FAULTS[number % len(DISK_FAULTS)], draw.randint(1, self.calls))

    def stops(self, count: int, seed: int) -> Iterator[Case]:
        """Ctrl-C."""
        draw = random.Random(f"{self.name}/{seed}/stops")
        for _ in range(count):
            yield Case(Fault.INTERRUPT, draw.randint(1, self.calls))


def _facts_of(noted: str) -> Iterator[tuple[str, int, float]]:
    """Op spec, pass and milliseconds that were acknowledged; of networks none has a row."""
    for line in noted.splitlines():
        label, pass_index, reading_ms = json.loads(line)
        if " at " in label:
            yield label, pass_index, reading_ms


def _is_left_over(path: Path) -> bool:
    return path.name.endswith((".latlut-part", "-wal", "-shm", "-journal"))


def run_all(
    names: Sequence[str], kills: int, disk: int, stops: int, seed: int, limit_s: float = math.inf
) -> Iterator[tuple[str, Tally, float]]:
    """The campaign of each command, for so long at most: name, what it came to, CPU seconds."""
    with Injector(MODULES) as injector:
        for number, name in enumerate(names):
            began_s = _cpu_s(injector)
            with tempfile.TemporaryDirectory(prefix="faults-") as place:
                campaign = Campaign(injector, name, Path(place))
                share = [_share(total, number, len(names)) for total in (kills, disk, stops)]
                until_s = time.monotonic() + limit_s
                campaign.run(campaign.disk_faults(share[1], seed), until_s)
                campaign.run(campaign.stops(share[2], seed), until_s)
                campaign.run(campaign.kills(share[0], seed), until_s)
            yield name, campaign.tally, _cpu_s(injector) - began_s


def _share(total: int, number: int, count: int) -> int:
    return total // count + (number < total % count)


def _cpu_s(injector: Injector) -> float:
    return time.process_time() + injector.cpu_seconds()


_COLUMNS = ("kills", "disk_faults", "stops", "lost", "doubled", "refused", "tracebacks",
            "misreported")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="in all [1000]")
    parser.add_argument("--disk", type=int, default=300, help="failing disks in all [300]")
    parser.add_argument("--stops", type=int, default=100, help="Ctrl-C in all [100]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="may be repeated")
    parser.add_argument("--seconds", type=float, default=math.inf, help="per command at most")
    chosen = parser.parse_args()
    names = chosen.only or list(SCENARIOS)
    print(f"{'command':12}" + "".join(f"{name:>13}" for name in _COLUMNS) + f"{'CPU s':>9}")
    total: Counter[str] = Counter()
    found = run_all(names, chosen.kills, chosen.disk, chosen.stops, chosen.seed, chosen.seconds)
    for name, tally, cpu_s in found:
        counts = [getattr(tally, column) for column in _COLUMNS]
        print(f"{name:12}" + "".join(f"{n:>13}" for n in counts) + f"{cpu_s:>9.0f}", flush=True)
        for problem in tally.problems[:10]:
            print(problem, file=sys.stderr, flush=True)
        total.update(dict(zip(_COLUMNS, counts, strict=True)), seconds=round(cpu_s))
    counts = [total[column] for column in _COLUMNS]
    print(f"{'all':12}" + "".join(f"{n:>13}" for n in counts) + f"{total['seconds']:>9.0f}")
    return int(any(total[column] for column in _COLUMNS[3:]))


if __name__ == "__main__":
    sys.exit(main())
