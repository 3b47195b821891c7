"""The rank phase: which of the networks near the target is best, by the weights that they inherit.

    "rank"     single-path steps on the supernet's weights: a random network near a target, and the
               same at the widest and the narrowest widths (sandwich rule), all training images
    "evolve"   first all archived students and random networks near each target are scored, then
               mutations of the best, in generations

Soft choices say little about discrete networks: a mixture's score is no network's. Supernets
trained path by path do order them. Every draw follows from the seed and its number.

Source: Guo et al., Single Path One-Shot Neural Architecture Search, 2020; sandwich rule: Yu et al.,
Universally Slimmable Networks, 2019. The paper has no such phase: it picks by Target(m) among the
networks that the epochs of its search derived.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.sampling import Sampled, Sampler
from latlut.search.cosearch.state import SearchState
from latlut.search.data.loading import Batch, TrainBatches
from latlut.search.derive.derive import Placed, target_score
from latlut.search.runs.norms import shared_norms
from latlut.search.runs.step import make_step
from latlut.search.supernet.single_path import run_path
from latlut.search.train.losses import ohem_loss

#: Tries for each network that is wanted, before the space counts as exhausted.
_TRIES = 20


def sampler_of(search: SearchState) -> Sampler:
    """The sampler of the problem's students."""
    problem = search.problem
    return Sampler(
        problem.space,
        problem.student_widths,
        problem.student_end,
        problem.price,
        problem.is_allowed,
    )


def rank_epoch(
    search: SearchState, epoch: int, optimizer: Any, batches: TrainBatches
) -> EpochRecord:
    """One epoch of single-path training."""
    started, group = time.monotonic(), search.phase("rank")
    steps = len(batches) // group.accumulate
    sampler, drawn = sampler_of(search), batches.epoch(epoch)
    losses = []
    search.supernet.train()
    for step in range(steps):
        check = partial(search.check_loss, ("rank", epoch, step), batches, epoch)
        rng = search.rng("rank", epoch, step)
        loss = make_step(
            search.fabric,
            search.supernet,
            optimizer,
            _losses(search, sampler, rng, search.batches_of(drawn, group)),
            check,
            group.accumulate,
            group.clip,
        )
        losses.append(loss)
        search.on_step("rank", epoch, step + 1, steps, loss)
    return EpochRecord("rank", epoch, time.monotonic() - started, sum(losses) / steps)


def _losses(
    search: SearchState, sampler: Sampler, rng: random.Random, batches: Iterator[Batch]
) -> Iterator[Tensor]:
    """Of one step: the drawn network, widest, narrowest, and as drawn."""
    widths = sorted({max(sampler.widths), min(sampler.widths)}, reverse=True)
    for batch in batches:
        found = near_target(search, sampler, rng)
        genomes = [sampler.same_width(found.genome, width) for width in widths]
        paths = [sampler.decoded(genome) for genome in genomes] if len(sampler.widths) > 1 else []
        for placed in (*paths, found.placed):
            yield _loss(search, batch, placed)


def near_target(search: SearchState, sampler: Sampler, rng: random.Random) -> Sampled:
    """A random network within the rank phase's window around a random one of the targets."""
    assert search.settings.rank is not None
    window, targets = search.settings.rank.window, search.problem.targets_ms
    while True:
        found = sampler.towards(sampler.draw(rng), rng.choice(targets), window, rng)
        if found is not None:
            return found
        window *= 2  # a corner of the space that few networks reach


def _loss(search: SearchState, batch: Batch, placed: Placed) -> Tensor:
    with search.fabric.autocast():
        with shared_norms(search.fabric):
            logits = run_path(search.supernet, batch.image, placed.architecture, placed.layers)
        return ohem_loss(logits.float(), batch.label, fabric=search.fabric)


def evolve_epochs(search: SearchState) -> int:
    """Generations, the first of which scores what there is."""
    settings = search.settings.rank
    return 0 if settings is None else 1 + -(-settings.evolution // settings.generation)


def evolve_epoch(search: SearchState, epoch: int) -> EpochRecord:
    """Score what there is, or evolve one generation."""
    started = time.monotonic()
    settings, problem = search.settings.rank, search.problem
    assert settings is not None
    sampler, rng = sampler_of(search), search.rng("evolve", epoch, 0)
    scored: dict[Placed, float] = {
        item.placed: item.ranked for item in search.archive.items if item.ranked is not None
    }
    scorer = search.scorer()
    targets = problem.targets_ms
    steps = settings.candidates if epoch == 0 else settings.generation
    each = max(1, round(steps / len(targets)))
    done, total = 0, each * len(targets)

    def score(placed: Placed) -> float:
        if placed not in scored:
            scored[placed] = scorer.score(placed)
        return scored[placed]

    def told() -> None:
        nonlocal done
        done += 1
        search.on_step("evolve", epoch, done, total, 0.0)

    if epoch == 0:
        search.archive.items = [
            item if item.kind == "teacher" or not problem.is_allowed(item.architecture)
            else replace(item, ranked=score(item.placed))
            for item in search.archive.items
        ]  # fmt: skip
    for target_ms in targets:
        for number in range(each):
            if epoch and (epoch - 1) * settings.generation + number >= settings.evolution:
                break
            parents = [] if epoch == 0 else _parents(search, target_ms)
            found = _fresh(sampler, parents, target_ms, problem.tolerance, scored, rng)
            told()
            if found is None:
                break
            miou = score(found.placed)
            network = found.placed.architecture
            search.archive.items.append(
                Archived(
                    "evolved" if epoch else "random",
                    epoch,
                    tuple(branch.scale for branch in network.branches),
                    network,
                    found.latency_ms,
                    miou,
                    target_score(miou, found.latency_ms, target_ms),
                    layers=found.placed.layers,
                    ranked=miou,
                    target_ms=target_ms,
                )
            )
    near = search.archive.near(problem.target_ms, problem.tolerance)
    best = max(near, key=lambda item: item.best_accuracy) if near else None
    return EpochRecord(
        "evolve",
        epoch,
        time.monotonic() - started,
        scored=len(scored),
        best_miou=None if best is None else best.best_accuracy,
        best_ms=None if best is None else best.latency_ms,
    )


def _parents(search: SearchState, target_ms: float) -> list[Archived]:
    """The best near a target, the best first."""
    assert search.settings.rank is not None
    near = search.archive.near(target_ms, search.problem.tolerance)
    near = [item for item in near if item.ranked is not None]
    by_network = {item.placed: item for item in near}

    def rank(item: Archived) -> float:
        return -target_score(item.best_accuracy, item.ms, target_ms)

    return sorted(by_network.values(), key=rank)[: search.settings.rank.parents]


def _fresh(
    sampler: Sampler,
    parents: list[Archived],
    target_ms: float,
    tolerance: float,
    scored: dict[Placed, float],
    rng: random.Random,
) -> Sampled | None:
    """A network near the target that has no score yet; None where none was found.

    Args:
        parents: it is a mutation of one of these; a random one where there are none.
    """
    for _ in range(_TRIES):
        if parents:
            genome = sampler.embedded(rng.choice(parents).placed, rng)
            for _ in range(rng.randint(1, 3)):
                genome = sampler.mutated(genome, rng)
        else:
            genome = sampler.draw(rng)
        found = sampler.towards(genome, target_ms, tolerance, rng)
        if found is not None and found.placed not in scored:
            return found
    return None
