"""``latlut search``: FasterSeg's search against a latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.commands import Command, printed_run_settings
from latlut.cli.names import SEARCH_PRESET
from latlut.cli.options import (
    NumbersType,
    input_option,
    overrides_of,
    run_options,
    set_threads,
    table_option,
)
from latlut.cli.output import (
    json_option,
    note,
    predicted_text,
    quiet_option,
    remark_predictions,
)
from latlut.cli.run_output import print_result_file, print_search, run_listener

if TYPE_CHECKING:
    from latlut.search.cosearch.folder import Found
    from latlut.table.table import LatencyTable


class WeightsType(click.ParamType[Any]):
    """paper, naive, auto, gradient, or three numbers."""

    name = "WEIGHTS"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """(w1, w2, w3), "auto" or "gradient"."""
        if value in ("auto", "gradient") or isinstance(value, tuple):
            return value
        if value == "naive":
            return (1 / 3, 1 / 3, 1 / 3)
        if value == "paper":
            from latlut.search.penalty.weights import PAPER_WEIGHTS

            return PAPER_WEIGHTS
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3:
            self.fail(
                f"{value!r}: paper, naive, auto, gradient, or three numbers w1,w2,w3", param, ctx
            )
        return numbers


@click.command(cls=Command, shows_progress=True, prints_run_settings=True)
@table_option()
@run_options("runs/search", "search.epochs=5", SEARCH_PRESET)
@input_option(
    "Image size of the latency; training uses its own size.", show_default="the table's own"
)
@click.option(
    "--target-ms", type=click.FloatRange(min=0, min_open=True),
    help="Latency of the student by the table.", show_default="mean of random networks",
)  # fmt: skip
@click.option(
    "--weights", type=WeightsType(), show_default="the preset's",
    help="Weights w1,w2,w3 of the penalty, or paper, naive, auto, gradient.",
)  # fmt: skip
@click.option(
    "--branches", type=click.IntRange(1, 2), show_default="the preset's",
    help="Number of branches of a network.",
)  # fmt: skip
@click.option(
    "--widths", type=NumbersType("WIDTHS", "widths: 4,6,8 or a single one"),
    show_default="the preset's", help="Widths of the student; a single one is fixed.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["ranked", "paper"]), default="ranked", show_default=True,
    help="paper: without the preset's ranking phase.",
)  # fmt: skip
@click.option(
    "--targets", type=str, metavar="MS,MS,...", help="Several target latencies, e.g. 6,7.5,9,12."
)
@click.option(
    "--front", type=click.IntRange(min=1),
    help="Number of targets, spread over the latencies that can be reached.",
)  # fmt: skip
@click.option(
    "--max-parameters", type=click.IntRange(min=1), help="Most parameters of the student."
)
@click.option(
    "--max-macs", type=click.IntRange(min=1),
    help="Most multiply-accumulates of the student, at the input size.",
)  # fmt: skip
@click.option(
    "--finalists", type=click.IntRange(0, 1000), show_default="the preset's, none",
    help="Networks per target to train, the best of 8 times as many; the best is chosen.",
)  # fmt: skip
@click.option("--measure", is_flag=True, help="Measure what was found, on the table's own device.")
@quiet_option
@json_option
def search(
    table_name: str, data: str | None, preset: str, folder: Path,
    input_size: tuple[int, int] | None, target_ms: float | None,
    weights: Any, branches: int | None, widths: tuple[int, ...] | None, seed: int | None,
    precision: str | None, accelerator: str, processes: int, timeout_s: float, threads: int | None,
    extra: tuple[tuple[str, Any], ...], method: str, targets: str | None, front: int | None,
    max_parameters: int | None, max_macs: int | None, finalists: int | None, measure: bool,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Search for a teacher and a student network whose latency hits a target.

    Pretrains a supernet, searches teacher and student in it with the table's decoupled latency
    penalty, derives networks each epoch, ranks networks near the target by their inherited weights,
    and keeps the best student within 2% of the target. --finalists trains networks from scratch,
    many briefly, the best of them longer; a finished search can be given it as well. Ctrl-C stops
    it; the same command continues from the last epoch.

    \b
    latlut search --table cpu-onnxruntime-fp32                    tiny, on generated scenes
    latlut search --table cpu-onnxruntime-fp32 --targets 6,7.5,9,12 --measure
    latlut search --table 1080ti --preset paper --data cityscapes:FOLDER --target-ms 8.3
    torchrun --nproc-per-node 4 -m -- latlut search --table h200 --preset paper --data FOLDER
    """
    chosen: dict[str, Any] = {
        "data.name": data,
        "latency.target_ms": target_ms,
        "latency.input_size": input_size,
        "latency.weights": weights,
        "latency.targets_ms": None if targets is None else _targets(targets),
        "latency.front": front,
        "latency.most_parameters": max_parameters,
        "latency.most_macs": max_macs,
        "finalists.networks": finalists,
        "space.branches": branches,
        "space.widths": widths,
        "seed": seed,
        "precision": precision,
    }
    from latlut.cli.front import engine_of, measure_front
    from latlut.engines import run_environment
    from latlut.search.cosearch.run import run_search
    from latlut.search.cosearch.settings import load_settings
    from latlut.table.table import LatencyTable

    settings = load_settings(preset, overrides_of(chosen, extra))
    if method == "paper":
        settings = settings.model_copy(update={"rank": None})
    if printed_run_settings(settings):
        return
    set_threads(threads)
    with LatencyTable.open(table_name) as table:
        remark_predictions(table, quiet)
        engine = engine_of(table) if measure else None
        found = run_search(
            table, settings, folder, listener=run_listener(quiet), environment=run_environment,
            accelerator=accelerator, devices=processes, timeout_s=timeout_s,
        )  # fmt: skip
    if found is None:  # another process tells
        return
    met: list[str] = []
    if engine is not None:
        with LatencyTable.open(table_name) as table:
            met = measure_front(found, table, engine, quiet)
    if as_json:
        print_result_file(folder)
        return
    print_search(found, table_name)
    with LatencyTable.open(table_name) as table:
        if text := _predicted(found, table, settings.latency.input_size):
            note(text)
    if met:
        click.echo("\n" + "\n".join(met))


def _predicted(found: Found, table: LatencyTable, input_size: tuple[int, int] | None) -> str:
    """How much of the students' latencies is predicted, in words; empty if all is measured."""
    from latlut.pricing.estimator import estimate
    from latlut.pricing.named import size_and_batch

    if not table.predicted_count:
        return ""
    where = size_and_batch(table, input_size, None)
    networks = [member.student.architecture for member in found.members]
    return predicted_text(
        [estimate(n.op_specs(*where), table, allow_missing=True) for n in networks]
    )


def _targets(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: milliseconds, 6,7.5,9", param_hint="--targets"
        ) from None
