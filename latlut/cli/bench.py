"""``latlut bench``: how long a whole network takes on an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.choices import (
    DurationType,
    ci_option,
    device_options,
    is_left_open,
    statistic_option,
)
from latlut.cli.commands import Command
from latlut.cli.meeting import is_met, meeting_text, table_estimate
from latlut.cli.names import NETWORK, TABLE
from latlut.cli.options import (
    NewFile,
    batch_option,
    classes_option,
    input_option,
    passes_option,
    shape_option,
    timeout_option,
    unchecked_option,
    wait_option,
)
from latlut.cli.output import (
    counted,
    interval_text,
    is_quiet,
    json_option,
    predicted_text,
    print_json,
    print_table,
    quiet_option,
    remark,
    waiting,
)
from latlut.cli.progress import progress_bar
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.measure.bench_result import BenchResult
    from latlut.operators.workloads import Workload


@click.command(cls=Command, shows_progress=True)
@click.argument("target", type=NETWORK, metavar="FILE|ARCH|RUN|BASELINE")
@device_options
@input_option(show_default="the file's or the run's own; else 1024x2048")
@batch_option(show_default="the file's own; else 1")
@shape_option
@click.option(
    "--inputs", "data_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Inputs of an ONNX or OpenVINO file: .npy, or .npz by name.", show_default="random",
)  # fmt: skip
@click.option("--no-upsample", is_flag=True, help="Do not enlarge the output to the image's size.")
@click.option("--argmax", "has_argmax", is_flag=True, help="Include taking the best class.")
@classes_option
@click.option(
    "--protocol", type=click.Choice(["latlut", "paper"]), default="latlut", show_default=True,
    help="paper: also the mean of six seconds after a warm-up, at batch 1.",
)  # fmt: skip
@passes_option("Passes, each with a fresh session; one leaves the interval unknown.")
@click.option(
    "-t", "--duration", "duration_s", type=DurationType(), show_default="0.5 to 1.5 s",
    help="Time of the runs in each pass, e.g. 10s.",
)  # fmt: skip
@click.option(
    "--iterations", type=click.IntRange(1, 1_000_000), show_default="10 to 2000",
    help="Number of runs in each pass.",
)  # fmt: skip
@statistic_option
@ci_option
@click.option(
    "--target-ms", type=click.FloatRange(min=0, min_open=True),
    help="Latency to meet: the last line says whether it is, and the exit code is 1 if not.",
)  # fmt: skip
@click.option(
    "--table", "table_name", type=TABLE,
    help="Table to compare with: what it says of the network stands in the last line.",
)  # fmt: skip
@unchecked_option
@timeout_option
@wait_option
@click.option(
    "--samples", "samples_path", type=NewFile(makes_folder=True), metavar="FILE",
    help="Write the duration of every run into a CSV file.",
)  # fmt: skip
@quiet_option
@json_option
def bench(
    target: str, gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...], input_size: tuple[int, int] | None,
    batch: int | None, shapes: tuple[tuple[str, tuple[int, ...]], ...], data_path: Path | None,
    no_upsample: bool, has_argmax: bool, num_classes: int | None,
    protocol: str, passes: int, duration_s: float | None, iterations: int | None, statistic: str,
    ci: float, target_ms: float | None, table_name: str | None, unchecked: bool, timeout_s: float,
    wait: bool, samples_path: Path | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure a whole network: latency, percentiles, frames per second.

    FILE is an ONNX file, an OpenVINO model (.xml), a TorchScript module (.pt) or an exported
    program (.pt2); ARCH an architecture's JSON file or a shipped name; RUN the folder of a
    training; BASELINE a hand-designed network. Measured as `latlut profile` measures: several
    passes with fresh sessions. A network that crashes the engine or hangs is named.

    \b
    latlut bench student.onnx --cpu --engine openvino
    latlut bench detector.onnx --cpu --shape image:1x3x640x640 --shape scale:1
    latlut bench fasterseg-student --cpu --input 512x1024 --protocol paper
    latlut bench runs/student --gpu 1080ti --precision fp16
    latlut bench student.onnx --cpu -t 10s --samples runs.csv
    latlut bench runs/search/student.json --cpu --input 256x512 --table cpu --target-ms 8.5
    """
    from latlut.measure.supervising import supervise_command

    supervision = supervise_command(target, timeout_s or None)
    if isinstance(supervision, int):
        click.get_current_context().exit(supervision)
    from dataclasses import replace

    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.bench import BenchSettings, bench_workload, check_paper_batch
    from latlut.measure.held_device import measuring_on
    from latlut.operators.module_files import MODULE_FILES, read_module

    suffix = Path(target).suffix.lower()
    if suffix in (".onnx", ".xml"):
        if has_argmax or no_upsample or num_classes is not None:
            raise LatlutError(
                f"{target} is measured as it is: --no-upsample, --argmax and --classes are for "
                "networks that latlut builds; export the file with or without them"
            )
        workload = _file_workload(Path(target), input_size, batch, dict(shapes), data_path)
        if workload.only_engine and is_left_open("engine"):
            engine = workload.only_engine
    elif suffix in MODULE_FILES and data_path is None:
        if named := [name for name, _ in shapes if name]:
            raise LatlutError(
                f"{target}: inputs of a module have no names, {named[0]!r} was given: --shape "
                "1x3x640x640, in order"
            )
        workload = read_module(Path(target), input_size, batch, [shape for _, shape in shapes])
        if is_left_open("engine"):
            engine = "pytorch"  # the one that runs such a file as it is
    elif shapes or data_path is not None:
        raise LatlutError(
            "--shape and --inputs are for files of networks (ONNX, TorchScript, exported programs; "
            "--inputs for ONNX alone); other networks take --input"
        )
    else:
        workload = find_workload(
            target, input_size, batch, not no_upsample, has_argmax, num_classes
        )
    defaults = BenchSettings()
    settings = replace(
        defaults,
        passes=passes,
        timing=replace(
            defaults.timing, statistic=statistic, ci=ci, **_lengths(duration_s, iterations)
        ),
        is_checked=not unchecked,
        has_paper_protocol=protocol == "paper",
    )
    if settings.has_paper_protocol:
        check_paper_batch(workload)
    priced = None
    if table_name is not None:
        if no_upsample or has_argmax:
            raise LatlutError(
                "a table prices networks with their logits enlarged and no best class: leave "
                "--no-upsample and --argmax out, or --table"
            )
        priced = table_estimate(table_name, target, workload, num_classes)
        if text := predicted_text([priced]):
            remark(f"{table_name}: {text}", quiet)
    table_ms = None if priced is None else priced.ms
    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    _, chosen = choose_engine(choice)
    remark(
        f"{workload.name} on {chosen.title} {chosen.version}, {chosen.device.model}, "
        f"{chosen.precision}, {counted(passes, 'pass')}",
        quiet,
    )
    supervision.attempts.turn_to(None)  # it may wait for the device as long as it likes
    held = measuring_on(chosen, waiting=waiting(wait, quiet))
    with held, progress_bar("bench", quiet) as listener:
        found = bench_workload(
            chosen, workload, settings, listener=listener, supervision=supervision
        )
    if samples_path is not None:
        found.write_samples(samples_path)
        remark(f"{samples_path}: {found.samples} runs", quiet)
    met = None if target_ms is None else is_met(target_ms, found.latency_ms, found.cpu_share)
    if as_json:
        asked = {"target_ms": target_ms, "table_ms": table_ms, "is_met": met}
        if priced is not None:
            asked["predicted_share"] = priced.predicted_share
        print_json(found.to_dict() | asked)
    else:
        if is_quiet():
            click.echo(interval_text(found.latency_ms, found.ci_low_ms, found.ci_high_ms))
        else:
            print_result(found)
        if target_ms is not None or table_ms is not None:
            click.echo(meeting_text(target_ms, table_ms, found.latency_ms, found.cpu_share))
    if target_ms is not None and not met:
        click.get_current_context().exit(1)


def _lengths(duration_s: float | None, iterations: int | None) -> dict[str, Any]:
    """What --duration and --iterations change in how a pass is timed."""
    if duration_s is not None and iterations is not None:
        raise LatlutError("--duration and --iterations both say how long a pass is: choose one")
    if duration_s is not None:
        return {"min_time_s": duration_s, "time_cap_s": duration_s, "max_samples": 10_000_000}
    if iterations is not None:
        return {"min_samples": iterations, "max_samples": iterations}
    return {}


def find_workload(
    target: str,
    input_size: tuple[int, int] | None,
    batch: int | None,
    has_upsample: bool,
    has_argmax: bool,
    num_classes: int | None,
) -> Workload:
    """What the command line's target and sizes mean, of a network that latlut builds.

    Raises:
        LatlutError: no such network or file, or sizes that do not fit.
    """
    from latlut.search.networks.deployable import DEFAULT_SIZE
    from latlut.search.networks.finding import find_network

    network = find_network(target, num_classes)
    size = input_size or network.input_size or DEFAULT_SIZE
    return network.workload(size, batch or 1, has_upsample, has_argmax)


def _file_workload(
    path: Path,
    input_size: tuple[int, int] | None,
    batch: int | None,
    shapes: dict[str, tuple[int, ...]],
    data_path: Path | None,
) -> Workload:
    from latlut.operators.input_files import read_inputs
    from latlut.operators.ir_files import read_ir
    from latlut.operators.onnx_files import read_onnx

    read = read_onnx if path.suffix.lower() == ".onnx" else read_ir
    data = None if data_path is None else read_inputs(data_path)
    return read(path, input_size, batch, shapes=shapes, data=data)


def print_result(found: BenchResult) -> None:
    """Latency, frames per second, percentiles, and what was timed."""
    from latlut.measure.cpu_share import disturbed_text
    from latlut.stats.machine_speed import is_disturbed

    if found.cpu_share is not None and is_disturbed(found.cpu_share):
        click.echo(disturbed_text(found.cpu_share))
    click.echo(f"{found.name}, batch {'unknown' if found.batch is None else found.batch}")
    click.echo(
        f"  latency  {interval_text(found.latency_ms, found.ci_low_ms, found.ci_high_ms)}: "
        f"{found.statistic} of a run, median over "
        f"{counted(len(found.readings_ms), 'pass')}, 95% interval"
    )
    if found.fps is None:
        click.echo("  speed    unknown: the file does not say which axis of its input is the batch")
    else:
        click.echo(f"  speed    {interval_text(found.fps, *found.fps_interval, 'FPS')}")
    if found.paper is not None:
        paper = found.paper
        click.echo(
            f"  paper    {paper.mean_ms:.4g} ms, {paper.fps:.4g} FPS: mean of {paper.runs} runs in "
            f"{paper.seconds:.1f} s after a warm-up; no interval, interruptions included"
        )
    click.echo("")
    columns = ["", *(f"p{rank}" for rank in found.percentiles_ms), "mean", "samples"]
    row = ["ms", *found.percentiles_ms.values(), found.mean_ms, found.samples]
    print_table(columns, [row])
    click.echo("")
    click.echo(found.contents.describe())
    if found.arithmetic != "fp32":
        click.echo(f"the file itself computes in {found.arithmetic}")
    facts = found.engine
    threads = "" if facts["driver"] else f", threads: {facts['threads']}"
    click.echo(
        f"{facts['title']} {facts['version']}, {facts['precision']}{threads}, {facts['device']}; "
        f"{facts['clock']}"
    )
    if found.launch is not None:
        share = "" if found.host_share is None else f", host {100 * found.host_share:.0f}% of a run"
        click.echo(f"launched: {found.launch}{share}")
    if found.difference is None:
        click.echo("its output was not compared with anything")
    else:
        what = "of the pixels" if found.contents.has_argmax else "of the largest output at most"
        click.echo(
            f"compared with {found.reference} before timing: differs by {found.difference:.2g} "
            + what
        )
    for warning in found.warnings:
        click.echo(f"note: {warning}")
