"""``latlut profile``: measure a plan's operators into a latency table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from latlut.cli.choices import (
    DeviceListType,
    FractionType,
    ShardType,
    ci_option,
    device_options,
    is_left_open,
    mode_option,
    operators_option,
    space_option,
    statistic_option,
)
from latlut.cli.commands import Command
from latlut.cli.names import NEW_TABLE
from latlut.cli.onnx import MANY_PIECES, Shapes, check_files, onnx_options
from latlut.cli.options import (
    batches_option,
    budget_option,
    cut_option,
    dry_run_option,
    input_option,
    op_option,
    passes_option,
    plan_option,
    seed_option,
    sweep_timeout_option,
    unchecked_option,
    wait_option,
)
from latlut.cli.output import (
    counted,
    duration_text,
    json_option,
    quiet_option,
    remark,
    waiting,
)
from latlut.cli.profile_output import print_preview, print_report
from latlut.cli.profile_plan import (
    check_together,
    onnx_plan_of,
    own_modules_of,
    plan_of,
)
from latlut.cli.profile_workers import check_beside, profile_by_workers
from latlut.cli.progress import progress_bar
from latlut.cli.sweeping import as_in_file, default_path, measurements_in, settings_of
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.engines.choosing import DeviceChoice
    from latlut.machine.gpus import DetectedGpu
    from latlut.machine.targets import Target
    from latlut.table.identity import Identity


@click.command(cls=Command, shows_progress=True)
@device_options
@plan_option("Plan: which operators to measure.", "fasterseg")
@space_option
@onnx_options
@cut_option
@op_option("An operator to measure instead of a plan")
@input_option(show_default="the plan's")
@batches_option
@click.option(
    "--table", "table_path", type=NEW_TABLE,
    help="Table to write: a new one, or one to continue.",
    show_default="profiles/TARGET-ENGINE-PRECISION.db",
)  # fmt: skip
@passes_option("Passes over the plan; fewer than 3 leave intervals unknown or wide.")
@click.option(
    "--rebuilds", type=click.IntRange(1, 50), default=1, show_default=True,
    help="Independent builds of each operator, for engines that choose tactics while building.",
)  # fmt: skip
@click.option(
    "--devices", type=DeviceListType(),
    help="Measure on several GPUs of one model at once, numbered as by nvidia-smi: 0,1,2,3.",
)  # fmt: skip
@click.option(
    "--shard", type=ShardType(),
    help="Measure one of N equal shares of the plan, for job arrays; see `latlut table merge`.",
)  # fmt: skip
@click.option(
    "--ray", "address", metavar="auto|local|ADDRESS",
    help="Measure on all devices of the model in a Ray cluster; `local` is this machine alone.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 1024), show_default="one per GPU; one on a CPU",
    help="Workers per machine, with --ray.",
)  # fmt: skip
@click.option(
    "--remote", "remotes", multiple=True, metavar="USER@HOST[:PORT]",
    help="Measure on that machine by ssh; nothing is installed there; may be repeated.",
)  # fmt: skip
@click.option(
    "--remote-python", metavar="PATH", default="python3", show_default=True,
    help="Python with the engine on that machine, with --remote.",
)  # fmt: skip
@ci_option
@statistic_option
@budget_option
@click.option(
    "--fraction", type=FractionType(),
    help="Measure this share of the plan, the most informative first, and predict the rest.",
)  # fmt: skip
@click.option(
    "--until", type=FractionType(),
    help="Measure until predictions leave a network's 95% interval at this half-width, e.g. 2%.",
)  # fmt: skip
@sweep_timeout_option
@seed_option("Random seed of the order.", default=0, show_default=True)
@dry_run_option
@mode_option
@unchecked_option
@wait_option
@operators_option
@quiet_option
@json_option
def profile(
    gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...],
    plan: str | None, space_file: str | None, is_onnx: bool, files: tuple[Path, ...],
    shapes: Shapes, cut: str | None, ops: tuple[str, ...],
    input_size: tuple[int, int] | None, batches: tuple[int, ...] | None,
    table_path: Path | None, passes: int, rebuilds: int, devices: tuple[int, ...] | None,
    shard: tuple[int, int] | None, address: str | None, workers: int | None,
    remotes: tuple[str, ...], remote_python: str, ci: float,
    statistic: str, budget: float | None, fraction: float | None, until: float | None,
    timeout_s: float, seed: int, dry_run: bool,
    mode: str | None, unchecked: bool, wait: bool, operator_modules: tuple[str, ...],
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure the operators of a plan into a latency table.

    Runs several short passes in random order. Ctrl-C stops it; the same command continues it. An
    operator that crashes or hangs counts as failed, and the sweep continues without it.

    \b
    latlut profile --cpu --input 256x512             the whole FasterSeg space on this CPU
    latlut profile --gpu 1080ti                      on a GPU, through TensorRT
    latlut profile --gpu h200 --devices 0,1,2,3      on four of them at once
    latlut profile --gpu h200 --shard 2/8            the second job of eight
    latlut profile --gpu h200 --ray auto             on all of them in a Ray cluster
    latlut profile --cpu --remote me@board           on another machine, by ssh
    latlut profile --cpu --mode in-context           operators between neighbours, not alone
    latlut profile --cpu --space my_space.py --input 64x64     your own search space
    latlut profile --cpu --op "conv 64->96 stride 1 at 128x256"
    latlut profile --cpu --fraction 0.15             15% of it, the rest predicted
    latlut profile --cpu --onnx mine.onnx other.onnx the pieces of your own networks
    latlut profile --onnx --table mine.db            the pieces that the table holds, again
    """
    from latlut.measure.supervising import supervise

    is_active = fraction is not None or until is not None
    is_elsewhere = address is not None or bool(remotes)
    given = {
        "--plan": plan, "--space": space_file, "--op": ops, "--cut": cut, "--devices": devices,
        "--shard": shard, "--ray": address, "--remote": remotes, "--workers": workers,
        "--remote-python": None if is_left_open("remote_python") else remote_python,
        "--dry-run": dry_run,
    }  # fmt: skip
    check_together(given, is_onnx=is_onnx, is_active=is_active)
    check_files(files, is_onnx, shapes, needs_files=table_path is None or not table_path.exists())
    supervision = supervise(timeout_s or None, lambda text: remark(text, quiet))
    if isinstance(supervision, int):
        click.get_current_context().exit(supervision)
    from latlut.engines.choosing import DeviceChoice

    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    choice, statistic, mode = as_in_file(choice, statistic, mode, table_path)

    from latlut.operators.own_modules import import_own_modules

    if is_elsewhere:
        from functools import partial

        from latlut.cluster import sweep as by_workers
        from latlut.cluster.ssh_connection import Host
        from latlut.engines import engine_class

        check_beside("remote" if remotes else "ray", choice, mode)
        hosts = [Host.parse(text) for text in remotes]
        import_own_modules(operator_modules)
        wanted = (
            onnx_plan_of(
                files, input_size, batches, shapes, cut, engine_class(by_workers.engine_of(choice)),
                None, table_path, quiet,
            )
            if is_onnx
            else plan_of(plan, space_file, ops, input_size, batches)
        )  # fmt: skip
        left_s = supervision.left_of(budget)
        settings = settings_of(statistic, ci, passes, left_s, seed, rebuilds, table_path)
        own_modules = own_modules_of(operator_modules, space_file)

        def path_of(own: Identity) -> Path:
            return table_path or default_path(own.file_stem, batches)

        if hosts:
            run = partial(
                by_workers.sweep_on_hosts, wanted, choice, settings, hosts, python=remote_python,
                path_of=path_of, own_modules=own_modules, timeout_s=timeout_s or None,
                supervision=supervision,
            )  # fmt: skip
        else:
            run = partial(
                by_workers.sweep_on_ray, wanted, choice, settings, address or "auto", mode=mode,
                path_of=path_of, own_modules=own_modules, workers_per_node=workers,
            )  # fmt: skip
        where = f"by ssh on {', '.join(map(str, hosts))}" if hosts else f"Ray {address}"
        profile_by_workers(
            where,
            choice,
            wanted,
            settings,
            run,
            partial(print_report, is_named=bool(ops)),
            quiet=quiet,
            as_json=as_json,
        )
        return
    target, chosen, gpus = _choose(choice, devices)
    import_own_modules(operator_modules)
    if wait and len(gpus) > 1:
        raise LatlutError("--wait is for one device: leave it out, or --devices")
    if unchecked and len(gpus) > 1:
        raise LatlutError("--unchecked is for one device: leave it out, or --devices")
    chosen.is_compared = not unchecked
    if shard and len(gpus) > 1:
        raise LatlutError("a shard is measured on one device: leave --shard or --devices out")

    from latlut.measure.many_devices import DeviceJob, sweep_on_devices
    from latlut.measure.parts import Shard
    from latlut.measure.preview import preview
    from latlut.measure.profile import profile as sweep
    from latlut.measure.profile import roofline_of
    from latlut.measure.sweep_settings import check_mode, check_rebuilds, identity_of
    from latlut.operators.registry import check
    from latlut.table.identity import STANDALONE
    from latlut.table.subgraphs import require_graphs
    from latlut.table.table import LatencyTable

    wanted = (
        onnx_plan_of(
            files, input_size, batches, shapes, cut, type(chosen), chosen, table_path, quiet
        )
        if is_onnx
        else plan_of(plan, space_file, ops, input_size, batches)
    )
    part = Shard(shard[0] - 1, shard[1]) if shard else None
    mine = part.of(wanted) if part else wanted
    mode = mode or chosen.default_mode
    check_mode(chosen, mode)
    identity = identity_of(chosen, target.name, statistic=statistic, mode=mode)
    path = table_path or default_path(identity.file_stem, batches, shard)
    for spec in wanted.specs:
        check(spec)
    require_graphs(path, wanted.specs)
    left_s = supervision.left_of(budget)
    settings = settings_of(statistic, ci, passes, left_s, seed, rebuilds, path)
    passes, rebuilds = settings.passes, settings.rebuilds
    check_rebuilds(chosen, rebuilds)
    where = chosen.device.model if len(gpus) < 2 else f"{len(gpus)} x {chosen.device.model}"
    remark(
        f"{chosen.title} {chosen.version} on {where}, {chosen.precision}, "
        f"{chosen.threads} thread{'s' if chosen.threads > 1 else ''}; plan {wanted.name} with "
        f"{counted(len(mine.specs), 'operator configuration')}, {counted(passes, 'pass')}"
        f"{f' over {rebuilds} builds' if rebuilds > 1 else ''}"
        f"{'' if mode == STANDALONE else f', {mode}'} -> {path}",
        quiet or bool(supervision.failed),  # said by the process before
    )
    if dry_run:
        if len(gpus) > 1:
            raise LatlutError("--dry-run looks at one device: leave it out, or --devices")
        print_preview(
            preview(wanted, chosen, identity, path, settings, part, waiting(wait, quiet)),
            path, as_json,
        )  # fmt: skip
        return
    if is_active and mode != STANDALONE:
        raise LatlutError(
            "--fraction and --until predict latencies, not differences: use --mode standalone"
        )
    if is_onnx:
        from latlut.table.subgraphs import keep_pieces

        with LatencyTable.create(path, identity) as table:
            keep_pieces(table, mine.specs, wanted.cut)
            new = len(mine.specs) - len(table.held(mine.specs))
        if new >= MANY_PIECES and not supervision.failed:
            found = preview(wanted, chosen, identity, path, settings, part, waiting(wait, quiet))
            if found.seconds is not None:
                remark(
                    f"{new} pieces are new: that takes about {duration_text(found.seconds)}; "
                    "Ctrl-C stops it, and the same command continues",
                    quiet,
                )
    failed_parts: list[str] = []
    active = None
    before = measurements_in(path)
    try:
        with progress_bar("profile", quiet) as listener:
            if len(gpus) > 1:
                job = DeviceJob(
                    gpus, chosen.name, dict(chosen.options), path, identity, wanted, settings,
                    roofline_of(target, chosen), own_modules_of(operator_modules, space_file),
                    uuid4().hex, timeout_s or None,
                )  # fmt: skip
                with LatencyTable.create(path, identity) as table:
                    summary, failed_parts = sweep_on_devices(
                        table, job, listener, lambda text: remark(text, quiet)
                    )
            elif is_active:
                from latlut.measure.active import ActiveSettings, sweep_actively

                active = sweep_actively(
                    wanted, path, ActiveSettings(fraction or 1.0, until, seed),
                    lambda part, left_s: sweep(
                        part, chosen, target, path, replace(settings, budget_s=left_s), mode=mode,
                        listener=listener, waiting=waiting(wait, quiet), supervision=supervision,
                    ),
                    left_s, lambda text: remark(text, quiet),
                )  # fmt: skip
                summary = active.summary
            else:
                summary = sweep(
                    wanted, chosen, target, path, settings, mode=mode, listener=listener,
                    waiting=waiting(wait, quiet), part=part, supervision=supervision,
                )  # fmt: skip
    except KeyboardInterrupt:
        remark(
            f"stopped: {measurements_in(path) - before} new measurements are in {path}; "
            "the same command continues from here",
        )
        raise
    if failed_parts:
        click.echo("\n".join(failed_parts), err=True)
        remark("the same command continues with what is missing")
    with LatencyTable.open(path) as table:
        print_report(table, mine, summary, as_json, active=active, is_named=bool(ops))
    if summary.failed or failed_parts:
        click.get_current_context().exit(1)


def _choose(
    choice: DeviceChoice, devices: tuple[int, ...] | None
) -> tuple[Target, Engine, tuple[DetectedGpu, ...]]:
    """Target and engine; with ``--devices`` the GPUs too, the engine being on the first."""
    from latlut.engines import engine_class
    from latlut.engines.choosing import choose_engine
    from latlut.machine.gpus import choose_gpus, detect_gpus, target_of
    from latlut.machine.targets import load_target

    if devices is None:
        return *choose_engine(choice), ()
    if choice.gpu is None:
        raise LatlutError("--devices says which GPUs of a model: name the model with --gpu")
    gpus = choose_gpus(choice.gpu, devices, detect_gpus())
    engine = engine_class(choice.engine or "tensorrt")(
        choice.threads, choice.precision, gpus[0].uuid, dict(choice.engine_options)
    )
    is_file = bool(Path(choice.gpu).suffix)
    return (load_target(choice.gpu) if is_file else target_of(gpus[0])), engine, gpus
