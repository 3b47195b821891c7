"""The search: a supernet is pretrained, then teacher and student are searched in it together.

Phase "pretrain" trains the supernet's weights while all choices stay uniform; phase "search" takes
turns between a step on the weights (first half of the training images) and a step on alpha, beta
and gamma of teacher and student (second half), first order. The student's loss has the decoupled
latency of the chosen table in it, weighed by lambda, which a controller moves so that the derived
student comes to the target; the teacher stays widest and has no penalty.

Each pass through the supernet is followed by its own backward pass, so that peak memory is that of
one pass. All randomness (order, augmentation, widths) comes from the seed and the step's number: a
run that was killed goes on from its last checkpoint and ends, on a CPU, in the same bits.

Source: FasterSeg, Sec. 3.3 to 3.5 and Appendix D. Unlike the authors' code, the step on the
architecture leaves no gradient in the weights, pretraining trains the student's stem and heads
too, and lambda follows the derived network (see ``controller``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from latlut.errors import DataError, SpecError
from latlut.search.cosearch.archive import Archive
from latlut.search.cosearch.finalists import clear_finalist, finalist_epoch, trials_left
from latlut.search.cosearch.judging import judged, mixing_of
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.ranking import evolve_epoch, evolve_epochs, rank_epoch
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.cosearch.state import SearchState, StepListener
from latlut.search.data.augment import Augmentation
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.loading import Batch, TrainBatches, train_halves
from latlut.search.runs.checkpoints import restoring
from latlut.search.runs.norms import shared_norms
from latlut.search.runs.processes import mean_of
from latlut.search.runs.settings import PhaseSettings
from latlut.search.runs.step import (
    LossCheck,
    make_step,
    set_rate,
    weight_optimizer,
)
from latlut.search.supernet.drawn import drawn_mixing
from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.widths import (
    Widths,
    gumbel_widths,
    random_widths,
    same_width,
)
from latlut.search.train.losses import ohem_loss

#: Told after each epoch, with the search as it stands.
EpochListener = Callable[[EpochRecord, SearchState], None]


class Search(SearchState):
    """One search, from the supernet's first step to the archive of derived networks.

    Args:
        problem, data, settings, folder: see ``SearchState``.
        fabric: devices, precision and processes, launched; one CPU process if not given.
        processes: see ``SearchState``.
        on_step, on_epoch: listeners.
    """

    def __init__(
        self,
        problem: SearchProblem,
        data: SegmentationData,
        settings: SearchSettings,
        folder: Path,
        fabric: Fabric | None = None,
        processes: int | None = None,
        on_step: StepListener | None = None,
        on_epoch: EpochListener | None = None,
    ) -> None:
        fabric = fabric or Fabric(accelerator="cpu", devices=1)
        super().__init__(problem, data, settings, folder, fabric, processes)
        self.on_step = on_step or self.on_step
        self.on_epoch = on_epoch or (lambda *_: None)

    def run(self) -> Archive:
        """Run what is left of all phases; the archive of derived networks.

        Raises:
            DivergedError: a loss that is not finite; the last checkpoint is from before.
            CheckpointError: the folder's checkpoint is of another search, or cannot be written.
        """
        state = self.restore()
        for phase in self.phases[self.phases.index(state["phase"]) :]:
            group, is_trained = self.phase(phase), phase not in ("evolve", "finalists")
            first = state["epoch"] if phase == state["phase"] else 0
            optimizer, halves = self._weight_optimizer(group), self.halves(phase)
            if is_trained and phase == state["phase"] and state["optimizer"] is not None:
                with restoring(self.checkpoints):
                    optimizer.load_state_dict(state["optimizer"])
            epoch = first
            while epoch < self.epochs(phase):
                set_rate(optimizer, group.lr * group.lr_decay**epoch)
                record = self._epoch(phase, epoch, optimizer, halves)
                self.records.append(record)
                self.save(phase, epoch + 1, optimizer)
                if phase == "finalists":
                    clear_finalist(self, epoch)
                self.on_epoch(record, self)
                epoch += 1
        return self.archive

    def epochs(self, phase: str) -> int:
        """How many epochs a phase has: generations of "evolve", trainings of "finalists", at most
        until the first rung is complete."""
        if phase == "evolve":
            return evolve_epochs(self)
        if phase == "finalists":
            done = sum(record.phase == phase for record in self.records)
            return done + trials_left(self)
        return self.phase(phase).epochs

    def _weight_optimizer(self, group: PhaseSettings) -> Any:
        return weight_optimizer(self.fabric, self.supernet, group)

    def halves(self, phase: str) -> tuple[TrainBatches, TrainBatches]:
        """The phase's batches for the weights and for the architecture, labels at 1/8.

        From the rank phase on the first are of all training images.

        Raises:
            DataError: a half of the training images is smaller than one batch of all processes,
                which is smaller than their number.
            SpecError: crops so small that a norm would see a single value.
        """
        group, data = self.phase(phase), self.settings.data
        looks = Augmentation(
            group.crop, scales=data.crop_scales, image_scale=data.image_scale, label_stride=8
        )
        batch = group.batch * self.processes
        smallest = batch * -(-group.crop[0] // 64) * -(-group.crop[1] // 64)
        if smallest < 2:
            raise SpecError(
                f"a batch of {batch} crops of {group.crop[0]}x{group.crop[1]} leaves one "
                "pixel at the coarsest scale, which cannot be normalised: a larger batch or crop"
            )
        how: dict[str, Any] = {
            "seed": self.settings.seed,
            "iterations": None if group.iterations is None else group.iterations * group.accumulate,
            "rank": self.fabric.global_rank,
            "world_size": self.fabric.world_size,
            "workers": data.workers,
            "pin_memory": self.fabric.device.type == "cuda",
        }
        if phase not in ("pretrain", "search"):
            halves = (TrainBatches(self.data.train, looks, batch, part="all", **how),) * 2
        else:
            halves = train_halves(self.data.train, looks, batch, **how)
        if len(halves[0]) < group.accumulate:
            raise DataError(
                f"a half of the training images makes {len(halves[0])} batches, fewer than the "
                f"{group.accumulate} of one step: accumulate fewer, or take more images"
            )
        return halves

    def _epoch(
        self, phase: str, epoch: int, optimizer: Any, halves: tuple[TrainBatches, TrainBatches]
    ) -> EpochRecord:
        if phase == "rank":
            return rank_epoch(self, epoch, optimizer, halves[0])
        if phase == "evolve":
            return evolve_epoch(self, epoch)
        if phase == "finalists":
            return finalist_epoch(self, epoch)
        started = time.monotonic()
        group, is_search = self.phase(phase), phase == "search"
        steps = len(halves[0]) // group.accumulate
        # Pretraining and search see other crops in epochs of the same number.
        number = epoch + (self.settings.pretrain.epochs if is_search else 0)
        first, second = (half.epoch(number) for half in halves)
        weight_losses, architecture_losses = [], []
        for step in range(steps):
            generator = self._generator(phase, epoch, step)
            check = partial(self.check_loss, (phase, epoch, step), halves[0], number)
            weight_losses.append(self._weight_step(phase, first, optimizer, generator, check))
            if is_search:
                check = partial(self.check_loss, (phase, epoch, step), halves[1], number)
                architecture_losses.append(self._architecture_step(second, generator, check))
            self.on_step(phase, epoch, step + 1, steps, weight_losses[-1])
        mean_loss = sum(weight_losses) / steps
        if not is_search:
            return EpochRecord(phase, epoch, time.monotonic() - started, mean_loss)
        found = judged(self, epoch)
        seconds = time.monotonic() - started
        return EpochRecord(
            phase, epoch, seconds, mean_loss, sum(architecture_losses) / steps, **found
        )

    def _weight_step(
        self,
        phase: str,
        batches: Iterator[Batch],
        optimizer: Any,
        generator: torch.Generator,
        check: LossCheck,
    ) -> float:
        """A step on the supernet's weights; the loss, summed over passes and heads."""
        group = self.phase(phase)
        self.supernet.train()

        def losses() -> Iterator[Tensor]:
            for batch in self.batches_of(batches, group):
                for relaxed, end, widths in self._weight_passes(phase, generator):
                    mixing = self._mixing(phase, relaxed, generator)
                    frozen = Mixing(mixing.alpha.detach(), mixing.beta.detach())
                    yield self._loss(batch, frozen, widths, end)

        return make_step(
            self.fabric, self.supernet, optimizer, losses(), check, group.accumulate, group.clip
        )

    def _weight_passes(
        self, phase: str, generator: torch.Generator
    ) -> Iterator[tuple[RelaxedArchitecture, int, Widths]]:
        """Sandwich rule: the widest, the narrowest, and drawn widths between them.

        Drawn uniformly, twice, while pretraining, where the widest pass goes through the teacher's
        ends and the others through the student's; from gamma, once, while searching.
        """
        student, end = self.student, self.problem.student_end
        widest, narrowest = max(student.widths), min(student.widths)
        yield (
            self.teacher,
            self.problem.teacher_end,
            same_width(self.teacher, self.teacher.widths[0]),
        )
        if phase == "search":
            drawn = gumbel_widths(student, generator)
            yield student, end, Widths(drawn.values)
            if widest != narrowest:
                yield student, end, same_width(student, widest)
                yield student, end, same_width(student, narrowest)
            return
        yield student, end, same_width(student, narrowest)
        if widest != narrowest:
            for _ in range(2):
                yield student, end, random_widths(student, generator)

    def _architecture_step(
        self, batches: Iterator[Batch], generator: torch.Generator, check: LossCheck
    ) -> float:
        """A step on alpha, beta and gamma of both; the loss without the penalty."""
        group = self.settings.search
        both = nn.ModuleList([self.teacher, self.student])
        self.supernet.train()

        def losses() -> Iterator[Tensor]:
            for batch in self.batches_of(batches, group):
                for relaxed, end in (
                    (self.teacher, self.problem.teacher_end),
                    (self.student, self.problem.student_end),
                ):
                    widths = gumbel_widths(relaxed, generator)
                    mixing = self._mixing("search", relaxed, generator)
                    yield self._loss(batch, mixing, widths, end)
            if self.controller.value:
                self.fabric.backward(self._penalty())

        with _frozen(self.supernet):
            return make_step(
                self.fabric, both, self._architecture_optimizer, losses(), check, group.accumulate
            )

    def _penalty(self) -> Tensor:
        """The student's penalty, after the backward passes of the loss."""
        terms = self.problem.latency(self.student)
        if self.settings.latency.weights != "gradient":
            return self.controller.value * terms.penalty_ms
        factors = [self.student.alpha, self.student.beta, self.student.gamma]
        of_terms = torch.autograd.grad(terms.terms_ms.sum(), factors, retain_graph=True)
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        of_loss = [
            terms.terms_ms.new_zeros(()) if item.grad is None else item.grad.norm() / scale
            for item in factors
        ]
        loss_norms = mean_of(self.fabric, torch.stack(of_loss)).tolist()
        # An overflow under half precision: its step is left out, and its norms count for nothing.
        if all(map(math.isfinite, loss_norms)):
            strength = self.controller.value * self.problem.target_ms
            term_norms = [float(gradient.norm()) for gradient in of_terms]
            self.balance = self.balance.after(loss_norms, term_norms, strength)
        weights = terms.terms_ms.new_tensor(self.balance.weights_per_ms)
        return (weights * terms.terms_ms).sum()

    def _mixing(
        self, phase: str, relaxed: RelaxedArchitecture, generator: torch.Generator
    ) -> Mixing:
        """The choices of one pass: all of them, or those that are drawn."""
        paths = self.settings.supernet.paths
        if phase != "search" or paths == "all":
            return mixing_of(relaxed)
        return drawn_mixing(relaxed, paths, generator)

    def _loss(self, batch: Batch, mixing: Mixing, widths: Widths, end: int) -> Tensor:
        """The loss of one pass: hard pixels' cross entropy at 1/8, summed over the heads."""
        fabric, label = self.fabric, batch.label
        with fabric.autocast():
            with shared_norms(fabric):
                outputs = self.supernet(batch.image, mixing, widths.values, end, widths.gates)
            losses = [
                ohem_loss(logits.float(), label, fabric=fabric) for logits in outputs.values()
            ]
            return torch.stack(losses).sum()

    def _generator(self, phase: str, epoch: int, step: int) -> torch.Generator:
        """Randomness of one step's widths and paths."""
        return torch.Generator().manual_seed(self.rng(phase, epoch, step).getrandbits(63))


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """The module's parameters take no gradient inside the block: none is computed, none leaks."""
    parameters = [item for item in module.parameters() if item.requires_grad]
    for item in parameters:
        item.requires_grad_(False)
    try:
        yield
    finally:
        for item in parameters:
            item.requires_grad_(True)
