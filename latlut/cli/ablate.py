"""``latlut ablate``: the paper's Table 3, searched and trained over several seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from latlut.cli.choices import SizeType
from latlut.cli.options import SettingType, overrides_of, set_threads
from latlut.cli.output import json_option, print_json, print_table, quiet_option, remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.search.cosearch.ablation import AblationPlan
    from latlut.search.cosearch.ablation_results import AblationResult, Difference, SeedResult
    from latlut.search.cosearch.settings import SearchSettings
    from latlut.search.train.settings import TrainSettings
    from latlut.spaces import Architecture
    from latlut.table.table import LatencyTable


class SeedsType(click.ParamType[tuple[int, ...]]):
    """Seeds, separated by commas."""

    name = "SEEDS"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The seeds, without repetition."""
        if isinstance(value, tuple):
            return value
        try:
            seeds = tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            seeds = ()
        if not seeds or min(seeds) < 0:
            self.fail(f"{value!r} names no seeds: 0,1,2", param, ctx)
        return seeds


@click.command()
@click.option("--table", "table_name", required=True, metavar="NAME|FILE", help="Latency table.")
@click.option("--data", metavar="NAME|PATH", help="Data set [the presets'; street-scenes].")
@click.option(
    "--search-preset", default="tiny", show_default=True, metavar="NAME|FILE",
    help="As --preset of latlut search.",
)  # fmt: skip
@click.option(
    "--train-preset", default="tiny", show_default=True, metavar="NAME|FILE",
    help="As --preset of latlut train.",
)  # fmt: skip
@click.option(
    "--seeds", type=SeedsType(), default="0,1,2", show_default=True,
    help="Each is a whole ablation; the more, the more certain.",
)  # fmt: skip
@click.option(
    "--run", "folder", type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/ablation"), show_default=True,
    help="The run's folder; the same command goes on with a run that was stopped.",
)  # fmt: skip
@click.option("--input", "input_size", type=SizeType(), help="As of latlut search.")
@click.option(
    "--target-ms", type=float,
    help="Latency of all students, by the table [the mean of random networks].",
)  # fmt: skip
@click.option(
    "--fixed-width", type=click.IntRange(1, 12), metavar="TWELFTHS",
    help="Of the searches of fixed width [8 where it is searched, as in the paper].",
)  # fmt: skip
@click.option("--accelerator", default="auto", show_default=True, help="auto, cpu or gpu.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads on the CPU.")
@click.option(
    "--search-set", type=SettingType(), multiple=True,
    help="Any other setting of the searches, search.epochs=5; may be repeated.",
)  # fmt: skip
@click.option(
    "--train-set", type=SettingType(), multiple=True,
    help="Any other setting of the trainings, schedule.epochs=5; may be repeated.",
)  # fmt: skip
@quiet_option
@json_option
def ablate(
    table_name: str, data: str | None, search_preset: str, train_preset: str,
    seeds: tuple[int, ...], folder: Path, input_size: tuple[int, int] | None,
    target_ms: float | None, fixed_width: int | None, accelerator: str, threads: int | None,
    search_set: tuple[tuple[str, Any], ...], train_set: tuple[tuple[str, Any], ...],
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """What fixed widths, branches, searching, pruning and distilling come to: six networks a seed.

    Searches three times (fixed width with one branch and with two, then searched widths with a
    teacher) and trains six networks alike: the three students, the teacher, that teacher pruned,
    and the last student again with the teacher. Ctrl-C stops it; the same command goes on, and
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
    from latlut.search.cosearch.ablation import ablation_settings, plan_ablation
    from latlut.search.cosearch.ablation_results import AblationResult, write_results
    from latlut.search.cosearch.settings import load_settings
    from latlut.search.runs.folder import begin_run
    from latlut.search.train.data import checked_data
    from latlut.search.train.settings import load_train_settings
    from latlut.table.table import LatencyTable

    chosen = {
        "data.name": data,
        "latency.target_ms": target_ms,
        "latency.input_size": input_size,
    }
    searching = load_settings(search_preset, overrides_of(chosen, search_set))
    training = load_train_settings(train_preset, overrides_of({"data.name": data}, train_set))
    set_threads(threads)
    with LatencyTable.open(table_name) as table:
        plan = plan_ablation(table, searching, fixed_width)
        checked_data(training.data)  # refused before hours of searching
        settings = ablation_settings(searching, training, plan.fixed_width)
        goes_on = begin_run(folder, settings, _facts(plan, table), _remarks())
        remark(_headline(plan, table, seeds, goes_on, folder), quiet)
        work = _Work(plan, table, training, folder, accelerator, quiet)
        by_seed = [result for seed in seeds for result in work.results(seed)]
        found = AblationResult(plan, _by_strategy(by_seed))
        write_results(folder, found)
        _draw(found, table, folder / "ablation.png")
        if as_json:
            print_json(found.to_dict())
        else:
            report(found, folder)


class _Work(NamedTuple):
    """What all seeds have in common, and doing them."""

    plan: AblationPlan
    table: LatencyTable
    training: TrainSettings
    folder: Path
    accelerator: str
    is_quiet: bool

    def results(self, seed: int) -> Iterator[SeedResult]:
        """The results of a seed, each when its training is done; what is finished is read."""
        from latlut.search.cosearch.ablation import STRATEGIES, TEACHER
        from latlut.search.cosearch.ablation_results import seed_result

        here = self.folder / f"seed-{seed}"
        for search in self.plan.searches:
            self._search(search.seeded(seed), here / f"search-{search.name}")
        settings = self.training.model_copy(update={"seed": seed})
        for strategy in STRATEGIES:
            network = self.plan.network(strategy, here / f"search-{strategy.search}")
            trained = here / strategy.name
            teacher = here / TEACHER.name if strategy.is_taught else None
            remark(f"seed {seed}: {strategy.title}, in {trained}", self.is_quiet)
            self._train(network, teacher, settings, trained)
            yield seed_result(strategy, seed, network, trained, self.plan, self.table)

    def _search(self, settings: SearchSettings, folder: Path) -> None:
        from latlut.cli.search import run_search
        from latlut.search.cosearch.folder import RunFolder

        if RunFolder(folder).is_finished(settings):
            remark(f"{folder} is finished", self.is_quiet)
            return
        run_search(self.table, settings, folder, self.is_quiet, self.accelerator)

    def _train(
        self, network: Architecture, teacher: Path | None, settings: TrainSettings, folder: Path
    ) -> None:
        from latlut.cli.train import Plan, run_training
        from latlut.search.train.folder import is_trained

        if is_trained(folder, settings, network, teacher):
            remark(f"{folder} is finished", self.is_quiet)
            return
        plan = Plan(network, teacher)
        run_training(plan, settings, folder, self.is_quiet, self.accelerator)


def _facts(plan: AblationPlan, table: LatencyTable) -> dict[str, Any]:
    """What must be the same when the run goes on, besides its settings."""
    return {
        "table": str(table.path),
        "table_identity": table.identity.to_dict(),
        "input_size": list(plan.input_size),
        "batch": plan.batch,
        "space": dict(plan.space),
        "target_ms": plan.target_ms,
        "targets_ms": {search.name: search.target_ms for search in plan.searches},
    }


def _remarks() -> dict[str, Any]:
    from latlut.machine.provenance import collect_environment
    from latlut.table.table import now_text
    from latlut.version import __version__

    return {
        "started_at": now_text(),
        "latlut_version": __version__,
        "environment": dict(collect_environment()),
    }


def _headline(
    plan: AblationPlan, table: LatencyTable, seeds: tuple[int, ...], goes_on: bool, folder: Path
) -> str:
    searches = "\n".join(
        f"  {search.name}: {search.target_ms:.4g} ms"
        + (f" instead of {plan.target_ms:.4g} ms" if search.is_moved else "")
        + f", of {search.reachable_ms[0]:.4g} to {search.reachable_ms[1]:.4g} ms"
        for search in plan.searches
    )
    return (
        f"{'going on with' if goes_on else 'an ablation into'} {folder}: three searches and six "
        f"trainings for each of {len(seeds)} seed(s)\n"
        f"fixed width {plan.fixed_width} of 12; targets by {table.path} at "
        f"{plan.input_size[0]}x{plan.input_size[1]}:\n{searches}"
    )


def _by_strategy(results: list[SeedResult]) -> tuple[SeedResult, ...]:
    from latlut.search.cosearch.ablation import STRATEGIES

    names = [strategy.name for strategy in STRATEGIES]
    return tuple(sorted(results, key=lambda item: (names.index(item.strategy), item.seed)))


def _draw(found: AblationResult, table: LatencyTable, path: Path) -> None:
    from latlut.reports.ablation import plot_ablation

    seeds = len({item.seed for item in found.results})
    height, width = found.plan.input_size
    subtitle = f"{seeds} seed(s); latency of images of {height}x{width} by {table.path.name}"
    plot_ablation(found, "Ablation", subtitle, path)


def report(found: AblationResult, folder: Path) -> None:
    """Print the rows, the differences and where it all is."""
    from latlut.search.cosearch.ablation import STRATEGIES
    from latlut.search.networks.cost import DEFINITION

    rows = []
    for strategy in STRATEGIES:
        miou, ms = found.spread(strategy, "miou_percent"), found.spread(strategy, "latency_ms")
        rows.append(
            [
                strategy.title,
                miou.mean,
                miou.deviation,
                f"{miou.low:.4g} to {miou.high:.4g}",
                ms.mean,
                f"{ms.low:.4g} to {ms.high:.4g}",
                found.spread(strategy, "fps").mean,
                found.spread(strategy, "macs").mean / 1e9,
                found.spread(strategy, "parameters").mean / 1e6,
            ]
        )
    seeds = sorted({item.seed for item in found.results})
    columns = ["", "mIoU, %", "sd", "range", "latency, ms", "range", "FPS", "G MACs",
               "M parameters"]  # fmt: skip
    print_table(columns, rows)
    click.echo(f"\nmeans over {len(seeds)} seed(s), {', '.join(map(str, seeds))}; {DEFINITION}")
    for note in filter(None, map(found.note, STRATEGIES)):
        click.echo(note)
    click.echo("\ndifferences in mIoU, percentage points, paired by seed:")
    for item in found.differences():
        click.echo(f"  {_difference_text(item)}")
    click.echo(f"\nin {folder}: ablation.csv, ablation.json, ablation.png, seed-*/")


def _difference_text(item: Difference) -> str:
    each = ", ".join(f"{value:+.2f}" for value in item.by_seed.values())
    interval = (
        "too few seeds for an interval"
        if item.ci_low is None or item.ci_high is None
        else f"95% interval {item.ci_low:+.2f} to {item.ci_high:+.2f}"
    )
    return f"{item.comparison.title}: {item.mean:+.2f} ({interval}); each seed {each}"
