"""``latlut quickstart``: the whole loop, small, on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.commands import Command
from latlut.cli.output import note, quiet_option, remark
from latlut.cli.progress import progress_bar
from latlut.shell import command

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.table.table import LatencyTable
    from latlut.validation.validate import Validation


@click.command(cls=Command, shows_progress=True)
@click.option(
    "--threads", type=click.IntRange(1, 4096), default=1, show_default=True,
    help="CPU threads of one inference.",
)  # fmt: skip
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("profiles"),
    show_default=True,
    help="Folder for the table, the plots and the runs.",
)
@quiet_option
def quickstart(threads: int, folder: Path, quiet: bool) -> None:
    """The whole loop, small: profile, validate, search, train, evaluate, export, bench, compare.

    On this CPU with ONNX Runtime, the plan `tiny` and generated street scenes; about five minutes
    on two idle cores. The network learns little in that time; the commands of each step do it
    properly. If it is stopped, the same command continues it.
    """
    from latlut.cli import main
    from latlut.cli.front import measure_front
    from latlut.cli.run_output import print_search, run_listener
    from latlut.engines import engine_class, run_environment
    from latlut.machine.targets import cpu_target
    from latlut.measure.held_device import measuring_on
    from latlut.measure.plans import load_plan
    from latlut.measure.sweep import Sweep
    from latlut.measure.sweep_settings import SweepSettings, identity_of
    from latlut.measure.timing import TimingSettings
    from latlut.search.cosearch.run import run_search
    from latlut.search.cosearch.settings import load_settings
    from latlut.search.runs.checkpoints import remove_checkpoints
    from latlut.search.runs.processes import refuse_several
    from latlut.table.roofline import Roofline
    from latlut.table.table import LatencyTable
    from latlut.validation.verdict import check

    refuse_several("latlut quickstart")
    engine = engine_class("onnxruntime")(threads=threads)
    plan = load_plan("tiny")
    target = cpu_target(threads)
    # Shorter than a real sweep, to be done in a minute; its intervals say what that costs.
    settings = SweepSettings(passes=3, timing=TimingSettings(min_time_s=0.03, time_cap_s=0.06))
    identity = identity_of(engine, target.name, statistic=settings.timing.statistic)
    path = folder / f"quickstart-{identity.file_stem}.db"
    remark(
        "this takes about five minutes on two idle cores, longer on a busy machine; Ctrl-C stops "
        "it, and the same command continues",
        quiet,
    )
    remark(
        f"1. profile {len(plan.specs)} operator configurations with {engine.title} "
        f"{engine.version} on "
        f"{engine.device.model}",
        quiet,
    )
    roofline = Roofline(
        target.peak_flops_per_s("fp32"), cache_bytes_per_s=target.cache_bandwidth_bytes_per_s
    )
    with measuring_on(engine), LatencyTable.create(path, identity) as table:
        with progress_bar("profile", quiet) as listener:
            Sweep(table, plan, engine, settings, roofline=roofline, listener=listener).run()
        if _has_calibration(table):
            remark("2. networks were measured and a calibration fitted by an earlier call", quiet)
        else:
            _validate(table, engine, quiet)
        click.echo(f"\n{path}: {check(table).sentence}")
        remark("3. search a network for the mean latency of random ones", quiet)
        run = folder / f"quickstart-{identity.file_stem}-search"
        searched = run_search(
            table, load_settings("quickstart"), run,
            listener=run_listener(quiet), environment=run_environment,
        )  # fmt: skip
        assert searched is not None  # one process
        print_search(searched, str(path))
    with LatencyTable.open(path) as table:
        met = measure_front(searched, table, engine, quiet)
    trained, exported = run / "trained", run / "student.onnx"
    for number, words in enumerate(
        (
            ["train", "--arch", str(run / "student.json"), "--preset", "quickstart",
             "--run", str(trained)],
            ["evaluate", str(trained), "--predictions", str(run / "predictions")],
            ["export", str(trained), "-o", str(exported)],
            ["bench", str(exported), "--cpu", "--passes", "3"],
            ["compare", str(trained), "fast-scnn", "enet", "--input", "128x256",
             "--cpu", "--passes", "3"],
        ),
        4,
    ):  # fmt: skip
        remark(f"\n{number}. latlut {shlex.join(words)}", quiet)
        main.main([*words, *(["--quiet"] if quiet else [])], standalone_mode=False)
    pictures = sorted((run / "predictions").rglob("*.png"))
    if pictures:
        note(f"\nwhat your network sees in a scene: {pictures[0]}")
    if searched.worth is not None:
        note(searched.worth.describe(searched.target_ms))
    freed = remove_checkpoints(run) + remove_checkpoints(trained)
    remark(f"removed {freed / 1e6:.0f} MB of checkpoints: the runs have ended", quiet)
    note(
        f"\nyour table: {path}\n"
        f"  look inside:          {command('table', 'info', path)}\n"
        f"  the whole space:      latlut profile --cpu --input 256x512\n"
        f"a longer search:        {command('search', '--table', path)}\n\n" + "\n".join(met)
    )


def _has_calibration(table: LatencyTable) -> bool:
    """Whether an earlier call has fitted one on the entries as they are."""
    from latlut.pricing.calibration import entries_digest, stored

    found = stored(table)
    return found is not None and found.entries_digest == entries_digest(table)


def _validate(table: LatencyTable, engine: Engine, quiet: bool) -> None:
    """Measure networks, calibrate on half of them, show what the other half says."""
    from latlut.cli.residuals import plot, print_validation
    from latlut.measure.timing import TimingSettings
    from latlut.table.calibrations import forget
    from latlut.table.space import space_of
    from latlut.validation.validate import ValidationSettings, store, validate

    remark("2. measure whole networks and compare them with the sum of their entries", quiet)
    settings = ValidationSettings(
        networks=24,
        rounds=2,
        timing=TimingSettings(min_samples=6, min_time_s=0.1, time_cap_s=0.2),
    )
    where = space_of(table)
    forget(table)  # of an earlier call, with other entries
    with progress_bar("validate", quiet) as listener:
        found = validate(table, engine, where, settings, listener=listener)
    number = store(table, found, settings, where)
    found = calibrated_on_half(table, found, number)
    picture = table.path.with_name(f"{table.path.stem}-validation.png")
    plot(table, found, where, picture)
    print_validation(found, str(table.path), str(picture))


def calibrated_on_half(table: LatencyTable, found: Validation, number: int) -> Validation:
    """Fit a calibration on half of a validation's networks; what the other half says of it.

    Networks of a machine that was disturbed are not learnt from: they are judged as they are.
    """
    from latlut.pricing.calibration import store
    from latlut.validation.fitting import calibrate, doubts, measured_networks
    from latlut.validation.validate import judge

    measured = measured_networks(table, validation_id=number)
    if doubtful := doubts(measured, table):
        note(f"not calibrated: {'; '.join(doubtful)}\n")
        return found
    fitted = calibrate(table, measured, len(measured) // 2)
    store(table, fitted.calibration, fitted.scores(), 0, fitted.used(str(table.path)))
    note(
        f"calibrated on {len(fitted.fitted)} of the networks; the other {len(fitted.others)} judge "
        "the plain sums and the calibrated estimates:\n"
    )
    return judge(found.networks, table, found.readings, found.sampler)
