"""``latlut ablate``: the paper's Table 3, searched and trained over several seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.commands import Command
from latlut.cli.names import SEARCH_PRESET, TRAIN_PRESET
from latlut.cli.options import (
    NumbersType,
    accelerator_option,
    data_option,
    folder_option,
    input_option,
    overrides_of,
    preset_option,
    set_threads,
    setting_option,
    table_option,
    threads_option,
)
from latlut.cli.output import json_option, note, print_json, print_table, quiet_option
from latlut.cli.run_output import run_listener
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.search.cosearch.ablation_results import AblationResult, Difference
    from latlut.table.table import LatencyTable


@click.command(cls=Command, shows_progress=True)
@table_option()
@data_option("the presets'")
@preset_option(SEARCH_PRESET, "--search-preset", "As --preset of latlut search.")
@preset_option(TRAIN_PRESET, "--train-preset", "As --preset of latlut train.")
@click.option(
    "--seeds", type=NumbersType("SEEDS", "seeds: 0,1,2", lambda seed: seed >= 0),
    default="0,1,2", show_default=True,
    help="Random seeds; each is a whole ablation, and more of them narrow the intervals.",
)  # fmt: skip
@folder_option("runs/ablation")
@input_option("Image size of the latency.", show_default="the table's own")
@click.option(
    "--target-ms", type=click.FloatRange(min=0, min_open=True),
    help="Latency of all students by the table.", show_default="mean of random networks",
)  # fmt: skip
@click.option(
    "--fixed-width", type=click.IntRange(1, 12), metavar="TWELFTHS",
    help="Width in the searches with a fixed width.", show_default="8 where it is searched",
)  # fmt: skip
@accelerator_option
@threads_option()
@setting_option("search.epochs=5", "--search-set", " of the searches")
@setting_option("schedule.epochs=5", "--train-set", " of the trainings")
@quiet_option
@json_option
def ablate(
    table_name: str, data: str | None, search_preset: str, train_preset: str,
    seeds: tuple[int, ...], folder: Path, input_size: tuple[int, int] | None,
    target_ms: float | None, fixed_width: int | None, accelerator: str, threads: int | None,
    search_set: tuple[tuple[str, Any], ...], train_set: tuple[tuple[str, Any], ...],
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """The paper's Table 3: what searched widths, branches, pruning and distillation contribute.

    Searches three times (fixed width with one branch and with two, then searched widths with a
    teacher) and trains six networks alike: the three students, the teacher, that teacher pruned,
    and the last student again with the teacher. Ctrl-C stops it; the same command continues, and
    with more seeds it adds to what is there.

    \b
    latlut ablate --table tiny --target-ms 9              tiny, on generated scenes, three seeds
    latlut ablate --table tiny --target-ms 9 --seeds 0,1,2,3,4
    latlut ablate --table 1080ti --search-preset paper --train-preset paper --data cityscapes:FOLDER
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise LatlutError(
            "latlut ablate is one process, and torchrun started this one: give each device seeds "
            "of its own, in the same --run folder, and collect them with a last call"
        )
    from latlut.engines import run_environment
    from latlut.search.cosearch.ablation_run import run_ablation
    from latlut.search.cosearch.settings import load_settings
    from latlut.search.runs.processes import refuse_several
    from latlut.search.train.settings import load_train_settings
    from latlut.table.table import LatencyTable

    refuse_several("latlut ablate")
    chosen = {
        "data.name": data,
        "latency.target_ms": target_ms,
        "latency.input_size": input_size,
    }
    searching = load_settings(search_preset, overrides_of(chosen, search_set))
    training = load_train_settings(train_preset, overrides_of({"data.name": data}, train_set))
    set_threads(threads)
    with LatencyTable.open(table_name) as table:
        found = run_ablation(
            table, searching, training, folder, tuple(dict.fromkeys(seeds)), fixed_width,
            listener=run_listener(quiet), environment=run_environment,
            accelerator=accelerator,
        )  # fmt: skip
        _draw(found, table, folder / "ablation.png")
    if as_json:
        print_json(found.to_dict())
    else:
        _report(found, folder)


def _draw(found: AblationResult, table: LatencyTable, path: Path) -> None:
    from latlut.reports.ablation import plot_ablation

    seeds = len({item.seed for item in found.results})
    height, width = found.plan.input_size
    subtitle = f"seeds: {seeds}; latency of images of {height}x{width} by {table.path.name}"
    plot_ablation(found, "Ablation", subtitle, path)


def _report(found: AblationResult, folder: Path) -> None:
    """Print the rows, the differences and where it all is."""
    from latlut.search.cosearch.ablation import STRATEGIES
    from latlut.search.networks.cost import DEFINITION

    rows = []
    for strategy in STRATEGIES:
        miou, ms, fps, macs, parameters = (
            found.spread(strategy, name)
            for name in ("miou_percent", "latency_ms", "fps", "macs", "parameters")
        )
        assert miou is not None and macs is not None and parameters is not None
        rows.append(
            [
                strategy.title,
                miou.mean,
                miou.deviation,
                f"{miou.low:.4g} to {miou.high:.4g}",
                None if ms is None else ms.mean,
                None if ms is None else f"{ms.low:.4g} to {ms.high:.4g}",
                None if fps is None else fps.mean,
                macs.mean / 1e9,
                parameters.mean / 1e6,
            ]
        )
    seeds = sorted({item.seed for item in found.results})
    columns = ["", "mIoU, %", "sd", "range", "latency, ms", "range", "FPS", "G MACs",
               "M parameters"]  # fmt: skip
    print_table(columns, rows)
    note(f"\nmeans over the seeds {', '.join(map(str, seeds))}; {DEFINITION}")
    for text in filter(None, map(found.note, STRATEGIES)):
        note(text)
    note("\ndifferences in mIoU, percentage points, paired by seed:")
    for item in found.differences():
        note(f"  {_difference_text(item)}")
    note(f"\nin {folder}: ablation.csv, ablation.json, ablation.png, seed-*/")


def _difference_text(item: Difference) -> str:
    each = ", ".join(f"{value:+.2f}" for value in item.by_seed.values())
    interval = (
        "too few seeds for an interval"
        if item.ci_low is None or item.ci_high is None
        else f"95% interval {item.ci_low:+.2f} to {item.ci_high:+.2f}"
    )
    return f"{item.comparison.title}: {item.mean:+.2f} ({interval}); each seed {each}"
