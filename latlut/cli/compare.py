"""``latlut compare``: networks side by side, counted and, when asked, measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import device_options, is_left_open
from latlut.cli.commands import Command
from latlut.cli.names import NETWORK
from latlut.cli.options import (
    csv_option,
    input_option,
    passes_option,
    plot_option,
    timeout_option,
    unchecked_option,
    wait_option,
)
from latlut.cli.output import (
    counted,
    json_option,
    note,
    print_json,
    print_table,
    quiet_option,
    remark,
    waiting,
)
from latlut.cli.progress import progress_bar

#: Columns that a narrow terminal can spare, the first one first.
_SPARE = ("published M parameters", "published G MACs", "published FPS")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latlut.engines.choosing import DeviceChoice
    from latlut.errors import LatlutError
    from latlut.measure.bench_result import BenchResult
    from latlut.measure.supervising import Supervision
    from latlut.operators.workloads import Workload
    from latlut.search.networks.baselines import Figure
    from latlut.search.networks.comparing import ComparisonRow


@click.command(cls=Command, shows_progress=True)
@click.argument("names", nargs=-1, type=NETWORK, metavar="[NETWORK]...")
@click.option(
    "--at", "sizes", type=click.Choice(["paper", "common", "both"]), default="common",
    show_default=True, help="Image sizes: each network's own paper's, one for all, or both.",
)  # fmt: skip
@input_option("Image size for all.", default="512x1024", show_default=True)
@click.option(
    "--measure", "is_measured", is_flag=True,
    help="Measure latencies; naming an engine, --cpu or --gpu does so too.",
)  # fmt: skip
@passes_option("Passes, each with a fresh session; one leaves the interval unknown.")
@unchecked_option
@timeout_option
@wait_option
@device_options
@csv_option("Write the rows as CSV.")
@plot_option("Draw accuracy over latency into FILE")
@json_option
@quiet_option
def compare(
    names: tuple[str, ...], sizes: str, input_size: tuple[int, int], is_measured: bool,
    passes: int, unchecked: bool, timeout_s: float, wait: bool, gpu: str | None, cpu: bool,
    engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...], csv_path: Path | None, plot_path: Path | None,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Networks side by side: parameters, multiply-accumulates, latency, and what papers say.

    NETWORK is a name, an architecture's .json, an .onnx, a training's folder, `all`, or `quick`
    (the light ones). Without one: all; the quick ones where latencies are measured.

    Weights are random: accuracies are published ones, and labelled so, or those of networks trained
    with latlut. The clock includes the network and upsampling the logits to the image's size, one
    image at a time; it excludes copies, reading and normalising images, and taking the best class.
    An ONNX file is measured as it is.

    \b
    latlut compare
    latlut compare --measure --plot compare.png
    latlut compare fasterseg-student found.json mine.onnx --engine onnxruntime
    latlut compare all --at paper --csv compare.csv
    """
    from latlut.measure.supervising import supervise_command

    supervision = supervise_command(", ".join(names) or "the networks", timeout_s or None)
    if isinstance(supervision, int):
        click.get_current_context().exit(supervision)
    from latlut.search.networks.comparing import compare as compare_networks
    from latlut.search.networks.comparing import write_rows
    from latlut.search.networks.cost import DEFINITION
    from latlut.search.networks.finding import QUICK, find_contenders

    asked = [name.strip() for item in names for name in item.split(",") if name.strip()]
    is_measured = is_measured or not _is_device_left_open()
    if not asked:
        asked = ["quick" if is_measured else "all"]
        if is_measured:
            remark(f"measuring {', '.join(QUICK)}; `latlut compare all` takes all of them", quiet)
    contenders = find_contenders(asked)
    bench = None
    if is_measured:
        from latlut.engines.choosing import DeviceChoice

        choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
        bench = _Bench(
            choice, passes, supervision, is_checked=not unchecked, is_waiting=wait, is_quiet=quiet
        )
    rows = compare_networks(contenders, sizes, input_size, bench)  # type: ignore[arg-type]
    if csv_path is not None:
        write_rows(csv_path, rows)
    if plot_path is not None:
        from latlut.reports.comparison import plot_comparison

        where = bench.where if bench else "counted, nothing measured"
        plot_comparison(
            rows, "Networks compared", f"{_sizes_text(sizes, input_size)}; {where}", plot_path
        )
    if as_json:
        print_json(
            {
                "definition": DEFINITION,
                "measured_on": bench.where if bench else None,
                "rows": [row.to_dict() for row in rows],
            }
        )
        return
    _print(rows, bench)
    for path in filter(None, (csv_path, plot_path)):
        note(f"written: {path}")


class _Bench:
    """Measures workloads on the chosen engine, and remembers on what."""

    def __init__(
        self,
        choice: DeviceChoice,
        passes: int,
        supervision: Supervision,
        *,
        is_checked: bool,
        is_waiting: bool,
        is_quiet: bool,
    ) -> None:
        from latlut.engines.choosing import choose_engine

        self.engine = choose_engine(choice)[1]
        self.supervision = supervision
        self.passes, self.is_checked, self.is_quiet = passes, is_checked, is_quiet
        self.waiting = waiting(is_waiting, is_quiet)
        self.results: list[BenchResult] = []

    @property
    def where(self) -> str:
        """Engine, version, precision and device."""
        engine = self.engine
        threads = f", threads: {engine.threads}" if engine.device.name == "cpu" else ""
        return (
            f"{engine.title} {engine.version}, {engine.precision}, {engine.device.model}{threads}"
        )

    def __call__(self, workloads: Sequence[Workload]) -> list[BenchResult | LatlutError]:
        """A result or an error per workload, in their order, measured in turns.

        Those that can be checked are measured first, then the others.
        """
        from latlut.measure.bench import BenchSettings, bench_workloads
        from latlut.measure.held_device import measuring_on
        from latlut.measure.timing import TimingSettings

        # A CPU takes seconds for some of these: few runs, their interval says how few.
        timing = TimingSettings(
            min_samples=4, max_samples=1000, min_time_s=0.3, time_cap_s=1.0, warmup_cap_s=0.5
        )
        found: dict[int, BenchResult | LatlutError] = {}

        def fail(workload: Workload, error: LatlutError) -> None:
            found[id(workload)] = error

        self.supervision.attempts.turn_to(None)
        held = measuring_on(self.engine, waiting=self.waiting)
        with held, progress_bar("measuring", self.is_quiet) as listener:
            for is_checked in (True, False):
                part = [
                    item
                    for item in workloads
                    if (self.is_checked and _is_continuous(item)) == is_checked
                ]
                if not part:
                    continue
                settings = BenchSettings(self.passes, timing, is_checked=is_checked)
                results = bench_workloads(
                    self.engine, part, settings, listener=listener, failed=fail,
                    supervision=self.supervision,
                )  # fmt: skip
                measured = [item for item in part if id(item) not in found]
                found |= {id(w): r for w, r in zip(measured, results, strict=True)}
                self.results += results
        return [found[id(item)] for item in workloads]


def _is_continuous(workload: Workload) -> bool:
    """Whether its output can be compared with PyTorch's: see ``Baseline.is_continuous``."""
    return bool(getattr(getattr(workload, "module", None), "is_continuous", True))


def _is_device_left_open() -> bool:
    options = ("gpu", "cpu", "engine", "precision", "threads", "engine_options")
    return all(map(is_left_open, options))


def _sizes_text(sizes: str, input_size: tuple[int, int]) -> str:
    common = f"{input_size[0]}x{input_size[1]}"
    return {
        "common": f"images of {common}",
        "paper": "images of the size that each network's paper uses",
        "both": f"images of {common} and of the size that each network's paper uses",
    }[sizes]


def _print(rows: Sequence[ComparisonRow], bench: _Bench | None) -> None:
    from latlut.measure.cpu_share import disturbed_text
    from latlut.search.networks.cost import DEFINITION
    from latlut.stats.machine_speed import is_disturbed

    results = bench.results if bench else []
    shares = [item.cpu_share for item in results if item.cpu_share is not None]
    if shares and is_disturbed(min(shares)):
        note(disturbed_text(min(shares)))
    columns = ["network", "input", "M parameters", "G MACs"]
    columns += ["latency, ms", "FPS"] if bench else []
    columns += [
        f"published {name}" for name in ("mIoU val", "mIoU test", "M parameters", "G MACs", "FPS")
    ]
    table = []
    for row in rows:
        cost, paper = row.cost, row.published
        own = f" ({row.own_miou_percent:.1f} mIoU)" if row.own_miou_percent is not None else ""
        line: list[object] = [
            row.title + own,
            _size(row.input_size) + ("*" if row.is_paper_size else "") + _batch(row.batch),
            None if cost is None else cost.parameters / 1e6,
            None if cost is None or cost.macs is None else cost.macs / 1e9,
        ]
        if bench:
            line += [_latency(row), row.latency.fps if row.latency else None]
        line += [
            _value(paper.miou_val_percent if paper else None),
            _value(paper.miou_test_percent if paper else None),
            _value(paper.parameters_m if paper else None),
            _value(paper.macs_g if paper else None, paper.macs_input_size if paper else None),
            _value(paper.fps if paper else None, paper.input_size if paper else None),
        ]
        table.append(line)
    print_table(columns, table, spare=_SPARE)
    note()
    note(
        "published: figures of the papers, on Cityscapes and their own devices; (?): cited by "
        "another source, the paper itself was not checked"
    )
    for device, titles in _published_on(rows).items():
        note(f"  FPS, {device}: {', '.join(titles)}")
    note(f"* the size that its paper uses; {DEFINITION}")
    for row in rows:
        if row.cost is not None and row.cost.why_unknown:
            note(f"{row.title}: MACs unknown, {row.cost.why_unknown}")
        if row.failure:
            click.echo(f"failed: {row.failure}")
    if any(row.batch not in (None, 1) for row in rows):
        note("batch N: the latency is that of N images, MACs are those of one")
    if any(row.batch is None for row in rows):
        note("batch unknown: MACs and latency are those of one run, images per second unknown")
    _print_clock(bench)


def _print_clock(bench: _Bench | None) -> None:
    """What was measured on what, and what was inside the clock."""
    if bench is None:
        note("Nothing was measured; add --measure.")
        return
    results = bench.results
    if not results:
        note("nothing could be measured")
        return
    note(
        f"measured by {bench.where}; {counted(bench.passes, 'pass')}, "
        f"{results[0].statistic} of runs"
    )
    outside = "copies, reading and normalising images"
    notes: dict[str, list[str]] = {}
    for result in results:
        contents = result.contents
        if contents.nodes or not contents.has_upsample or contents.has_argmax:
            note(f"{result.name}: {contents.describe()}")
        if result.launch is not None:
            notes.setdefault(f"launched: {result.launch}", []).append(result.name)
        if result.arithmetic != "fp32":
            note(f"{result.name}: the file itself computes in {result.arithmetic}")
        if result.difference is None and not bench.is_checked:
            notes.setdefault("its output was not compared with anything", []).append(result.name)
        elif result.difference is None:
            note(
                f"{result.name}: its output was not compared with PyTorch's, rounding alone "
                "changes it in places"
            )
        for warning in result.warnings:
            notes.setdefault(warning, []).append(result.name)
    if any(not result.contents.nodes for result in results):
        note(
            "inside the clock: the network and upsampling the logits to the image's size; "
            f"outside: {outside}, the best class"
        )
    for warning, names in notes.items():
        note(f"note: {warning}: {', '.join(names)}")


def _published_on(rows: Sequence[ComparisonRow]) -> dict[str, list[str]]:
    """Device -> the networks whose published FPS are from it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        paper = row.published
        if paper is not None and paper.fps is not None:
            titles = found.setdefault(paper.fps_device, [])
            if row.title not in titles:
                titles.append(row.title)
    return found


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "-"


def _batch(batch: int | None) -> str:
    """What is said of a batch that is not 1."""
    if batch is None:
        return ", batch unknown"
    return "" if batch == 1 else f", batch {batch}"


def _latency(row: ComparisonRow) -> str | None:
    found = row.latency
    if found is None:
        return "failed" if row.failure else None
    half = (found.ci_high_ms - found.ci_low_ms) / 2
    return f"{found.latency_ms:.4g}" + (f" ±{half:.2g}" if math.isfinite(half) else "")


def _value(figure: Figure | None, size: tuple[int, int] | None = None) -> str:
    """A published number: with the size that it is of, and a mark where nobody read it."""
    if figure is None:
        return "-"
    shown = f"{figure.value:.4g}" + ("" if figure.is_confirmed else "(?)")
    return f"{shown} @{_size(size)}" if size else shown
