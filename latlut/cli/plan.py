"""``latlut plan``: look at what a sweep would measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from latlut.cli.choices import device_options, operators_option, space_option
from latlut.cli.commands import Group
from latlut.cli.names import NEW_TABLE, PLAN
from latlut.cli.onnx import MANY_PIECES, Shapes, check_files
from latlut.cli.options import batches_option, cut_option, input_option, shape_option
from latlut.cli.output import counted, json_option, note, print_json, print_table, quiet_option
from latlut.cli.profile_output import duration_of
from latlut.cli.profile_plan import cut_in, cut_onnx_files, plan_of
from latlut.cli.sweeping import as_in_file, default_path, settings_of
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.engines.choosing import DeviceChoice
    from latlut.measure.plan_summary import PlannedSpec
    from latlut.measure.plans import Plan
    from latlut.measure.preview import Preview
    from latlut.operators.onnx_cutting import CutFile
    from latlut.table.identity import Identity

#: Rows that are printed; --json has all.
_SHOWN = 30


@click.group(cls=Group)
def plan() -> None:
    """Look at what a sweep would measure, and how long that takes."""


@plan.command(short_help="Operators of a plan, or pieces of ONNX files.")
@click.argument("names", nargs=-1, type=PLAN, metavar="[NAME|FILE]...")
@click.option("--onnx", "is_onnx", is_flag=True, help="The files are ONNX files.")
@click.option("--all", "is_all", is_flag=True, help="List every operator configuration.")
@space_option
@input_option(show_default="the plan's")
@batches_option
@shape_option
@cut_option
@device_options
@click.option(
    "--table", "table_path", type=NEW_TABLE,
    help="What this table lacks, on its engine and device.",
)  # fmt: skip
@click.option(
    "--passes", type=click.IntRange(1, 100), default=5, show_default=True,
    help="Passes of the sweep.",
)  # fmt: skip
@operators_option
@quiet_option
@json_option
def show(
    names: tuple[str, ...], is_onnx: bool, is_all: bool, space_file: str | None,
    input_size: tuple[int, int] | None, batches: tuple[int, ...] | None, shapes: Shapes,
    cut: str | None, gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...], table_path: Path | None, passes: int,
    operator_modules: tuple[str, ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """A plan's operator configurations, or the pieces of ONNX files: how many, what they compute.

    NAME is a shipped plan, FILE a plan's TOML file or, with --onnx or by the ending, ONNX files.
    With a device (--cpu, --gpu, --engine) or a table it also says how long a sweep takes; a few
    operators are tried for that.

    \b
    latlut plan show fasterseg --input 256x512
    latlut plan show mine.toml --cpu
    latlut plan show network.onnx --batch 1,4 --cpu
    latlut plan show --onnx network.onnx --table profiles/mine.db
    """
    from latlut.engines.choosing import DeviceChoice
    from latlut.measure.onnx_plans import onnx_plan
    from latlut.measure.plan_summary import planned_specs
    from latlut.operators.own_modules import import_own_modules

    is_onnx = is_onnx or bool(names) and all(Path(name).suffix == ".onnx" for name in names)
    if bool(names) == bool(space_file):
        raise LatlutError("name a plan, a plan's file, ONNX files, or a space with --space")
    if len(names) > 1 and not is_onnx:
        raise LatlutError(f"a plan is shown alone, {len(names)} are named: choose one")
    paths = tuple(map(Path, names)) if is_onnx else ()
    check_files(paths, is_onnx, shapes)
    if cut and not is_onnx:
        raise LatlutError("--cut is for pieces of ONNX files: name files with --onnx")
    import_own_modules(operator_modules)
    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    has_device = bool(gpu or cpu or engine or table_path)
    device = _Device.chosen(choice, table_path) if has_device else None
    files: list[CutFile] = []
    if is_onnx:
        how = cut or cut_in(table_path)
        used = device.engine if device else None
        files = cut_onnx_files(paths, input_size, batches, shapes, how, used, quiet)
        found = onnx_plan(files, how)
    else:
        name = names[0] if names else None
        found = plan_of(name, space_file, (), input_size, batches)
    planned = planned_specs(found.specs, files)
    lasts = device.preview(found, batches, passes) if device else None
    if as_json:
        print_json(_as_json(found, planned, files, lasts))
        return
    _print(found, planned, files, is_all)
    if device is not None and lasts is not None:
        click.echo(f"{len(lasts.missing)} of them lack readings in {device.table(batches)}: "
                   f"{lasts.readings} to take, {lasts.reused} are there")  # fmt: skip
        click.echo(duration_of(lasts))
    elif len(planned) >= MANY_PIECES:
        note("how long that takes: name a device, --cpu or --gpu NAME")


class _Device(NamedTuple):
    """What a sweep would run on, and the table that it would go on with."""

    engine: Engine
    identity: Identity
    path: Path | None

    @classmethod
    def chosen(cls, choice: DeviceChoice, table_path: Path | None) -> _Device:
        """By the options, or as the table was measured."""
        from latlut.engines.choosing import choose_engine
        from latlut.measure.sweep_settings import identity_of

        choice, statistic, mode = as_in_file(choice, "p10", None, table_path)
        target, engine = choose_engine(choice)
        mode = mode or engine.default_mode
        own = identity_of(engine, target.name, statistic=statistic, mode=mode)
        return cls(engine, own, table_path)

    def preview(self, plan: Plan, batches: tuple[int, ...] | None, passes: int) -> Preview:
        """What a sweep of the plan would take."""
        from latlut.measure.preview import preview

        settings = settings_of(
            self.identity.statistic, 0.01, passes, None, 0, 1, self.table(batches)
        )
        return preview(plan, self.engine, self.identity, self.table(batches), settings)

    def table(self, batches: tuple[int, ...] | None) -> Path:
        """Where the sweep would write."""
        return self.path or default_path(self.identity.file_stem, batches)


def _print(found: Plan, planned: list[PlannedSpec], files: list[CutFile], is_all: bool) -> None:
    from latlut.measure.plan_summary import by_kind

    click.echo(f"{found.name}: {found.description}" if found.description else found.name)
    for file in files:
        click.echo(
            f"  {file.name}: {counted(len(file.pieces), 'piece')}, "
            f"{len(set(file.op_specs()))} of them unique"
            + (f"; {len(file.unpriced)} nodes are in none" if file.unpriced else "")
        )
    click.echo("")
    print_table(
        ["kind", "configurations", "G MACs", "largest, M MACs", "not counted"],
        [
            [
                item.kind,
                item.op_specs,
                item.macs / 1e9,
                item.largest_macs / 1e6,
                item.uncounted or None,
            ]
            for item in by_kind(planned)
        ],
    )
    if files or is_all:
        rows = [
            [item.label, item.times, None if item.macs is None else item.macs / 1e6]
            for item in sorted(planned, key=lambda item: -(item.macs or 0))
        ]
        shown = rows if is_all else rows[:_SHOWN]
        click.echo("")
        print_table(["operator configuration", "times", "M MACs"], shown)
        if len(shown) < len(rows):
            note(f"... {len(rows) - len(shown)} more: --all")
    total = sum(item.macs or 0 for item in planned)
    click.echo(
        f"\n{len(planned)} operator configurations to measure, {total / 1e9:.4g} G MACs in all"
    )


def _as_json(
    found: Plan, planned: list[PlannedSpec], files: list[CutFile], lasts: Preview | None
) -> dict[str, Any]:
    from latlut.measure.plan_summary import by_kind

    facts: dict[str, Any] = {
        "plan": found.name,
        "description": found.description,
        "hash": found.hash,
        "by_kind": [vars(item) for item in by_kind(planned)],
        "op_specs": [
            {"op_spec": item.spec.key, "label": item.label, "times": item.times, "macs": item.macs}
            for item in planned
        ],
    }
    if files:
        facts["files"] = [
            {"name": file.name, "pieces": len(file.pieces), "left_out": list(file.unpriced)}
            for file in files
        ]
    return facts if lasts is None else facts | {"sweep": vars(lasts)}
