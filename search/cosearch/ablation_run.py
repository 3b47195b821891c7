"""An ablation into a folder: three searches and six trainings for each seed, then all results.

    seed-N/search-NAME/   the searches of ``ablation.PlannedSearch``
    seed-N/NAME/          the trainings of ``ablation.STRATEGIES``
    ablation.csv, .json   what they came to

What is finished is only read, so that the same ablation goes on, and another seed adds to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from latlut.search.cosearch.ablation import (
    STRATEGIES,
    TEACHER,
    AblationPlan,
    ablation_settings,
    plan_ablation,
)
from latlut.search.cosearch.ablation_results import (
    AblationResult,
    SeedResult,
    seed_result,
    write_results,
)
from latlut.search.cosearch.folder import read_networks
from latlut.search.cosearch.run import run_search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.networks.model_files import load_model
from latlut.search.runs.folder import Environment, begin_run, is_finished
from latlut.search.runs.listening import RunListener
from latlut.search.train.data import checked_data
from latlut.search.train.folder import network_facts
from latlut.search.train.run import run_training
from latlut.search.train.settings import TrainSettings
from latlut.table.table import LatencyTable


def run_ablation(
    table: LatencyTable,
    searching: SearchSettings,
    training: TrainSettings,
    folder: Path,
    seeds: Sequence[int],
    fixed_width: int | None = None,
    *,
    listener: RunListener | None = None,
    environment: Environment = dict,
    accelerator: str = "cpu",
) -> AblationResult:
    """Search and train all that an ablation compares; its result, in ``folder`` as well.

    Args:
        table: prices networks; open for reading.
        searching, training: settings of all searches and trainings; their seeds do not matter.
        folder: takes everything.
        seeds: each is a whole ablation.
        fixed_width: see ``plan_ablation``.
        listener: told of all searches and trainings.
        environment, accelerator: see ``run_search``.

    Raises:
        LatlutError: settings, table, data or folder that do not fit each other, before anything is
            written; what ``run_search`` and ``run_training`` raise.
    """
    told = listener or RunListener()
    plan = plan_ablation(table, searching, fixed_width)
    checked_data(training.data, training.data.corrupt)  # refused before hours of searching
    settings = ablation_settings(searching, training, plan.fixed_width)
    facts = {
        "table": str(table.path),
        "table_identity": table.identity.to_dict(),
        "input_size": list(plan.input_size),
        "batch": plan.batch,
        "space": dict(plan.space),
        "target_ms": plan.target_ms,
        "targets_ms": {search.name: search.target_ms for search in plan.searches},
    }
    goes_on = begin_run(folder, settings, facts, environment)
    told.remark(_headline(plan, table, len(seeds), goes_on, folder))

    def results(seed: int) -> Iterator[SeedResult]:
        """Of one seed, each when its training is done."""
        here = folder / f"seed-{seed}"
        for search in plan.searches:
            place, own = here / f"search-{search.name}", search.seeded(seed)
            if is_finished(place, own.to_dict(), {}, read_networks):  # the table is not asked
                told.remark(f"{place} is finished")
            else:
                run_search(
                    table, own, place,
                    listener=told, environment=environment, accelerator=accelerator,
                )  # fmt: skip
        settings = training.model_copy(update={"seed": seed})
        for strategy in STRATEGIES:
            network = plan.network(strategy, here / f"search-{strategy.search}")
            place = here / strategy.name
            teacher = here / TEACHER.name if strategy.is_taught else None
            told.remark(f"seed {seed}: {strategy.title}, in {place}")
            what = network_facts(network, teacher)
            if is_finished(place, settings.to_dict(), what, load_model):
                told.remark(f"{place} is finished")
            else:
                run_training(
                    network, settings, place, teacher,
                    listener=told, environment=environment, accelerator=accelerator,
                )  # fmt: skip
            yield seed_result(strategy, seed, network, place, plan, table)

    order = [strategy.name for strategy in STRATEGIES]
    everything = [result for seed in seeds for result in results(seed)]
    everything.sort(key=lambda item: (order.index(item.strategy), item.seed))
    found = AblationResult(plan, tuple(everything))
    write_results(folder, found)
    return found


def _headline(
    plan: AblationPlan, table: LatencyTable, seeds: int, goes_on: bool, folder: Path
) -> str:
    searches = "\n".join(
        f"  {search.name}: {search.target_ms:.4g} ms"
        + (f" instead of {plan.target_ms:.4g} ms" if search.is_moved else "")
        + f", of {search.reachable_ms[0]:.4g} to {search.reachable_ms[1]:.4g} ms"
        for search in plan.searches
    )
    return (
        f"{'going on with' if goes_on else 'an ablation into'} {folder}: three searches and six "
        f"trainings for each seed, seeds: {seeds}\n"
        f"fixed width {plan.fixed_width} of 12; targets by {table.title} at "
        f"{plan.input_size[0]}x{plan.input_size[1]}:\n{searches}"
    )
