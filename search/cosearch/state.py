"""Where a search stands: all that its steps change, and the checkpoint that is gone back to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter

from latlut.search.cosearch.archive import Archive
from latlut.search.cosearch.balance import GradientBalance
from latlut.search.cosearch.inherited import InheritedScorer
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.loading import Batch, TrainBatches
from latlut.search.runs.checkpoints import (
    CHECKPOINTS,
    CheckpointError,
    last_checkpoint,
    load_checkpoint,
    restoring,
    save_checkpoint,
)
from latlut.search.runs.processes import on_first, share_state
from latlut.search.runs.settings import PhaseSettings
from latlut.search.runs.step import finite_loss, step_batches

#: Told after each step: phase, epoch, step, steps in the epoch, loss of the weights' step.
StepListener = Callable[[str, int, int, int, float], None]

PHASES = ("pretrain", "search", "rank", "evolve", "finalists")
#: What a checkpoint holds, and of which type.
_VALUES = {
    "space": str,
    "classes": int,
    "phase": str,
    "epoch": int,
    "optimizer": dict,
    "controller": dict,
    "balance": dict,
    "records": str,
    "archive": str,
}


class SearchState:
    """A search as it stands; at its start after construction.

    Args:
        problem: space, latency and target, from a table.
        data: images to search on.
        settings: everything else.
        folder: of the run; holds ``checkpoints/`` and ``archive/``.
        fabric: devices, precision and processes, launched.
        processes: how many the search began with, whose batches together make one; those of the
            fabric if None.

    Attributes:
        supernet, teacher, student: on the fabric's device.
        controller, balance: of lambda, and of the weights where gradients balance them.
        archive: of derived networks. records: one per epoch so far.
        on_step: told of each step.
    """

    def __init__(
        self,
        problem: SearchProblem,
        data: SegmentationData,
        settings: SearchSettings,
        folder: Path,
        fabric: Fabric,
        processes: int | None,
    ) -> None:
        self.problem, self.data, self.settings, self.folder = problem, data, settings, folder
        self.fabric, self.processes = fabric, processes or fabric.world_size
        seed = settings.seed
        self.supernet = problem.supernet(data.classes.count, seed)
        self.teacher, self.student = problem.teacher(seed + 1), problem.student(seed + 2)
        for module in (self.supernet, self.teacher, self.student):
            fabric.to_device(module)  # moves it in place
        if settings.is_channels_last:
            self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.controller, self.balance = problem.controller(), GradientBalance()
        self._scorer: InheritedScorer | None = None
        self.on_step: StepListener = lambda *_: None
        self.archive = Archive(folder / "archive")
        self.records: list[EpochRecord] = []
        choices = settings.architecture
        self._architecture_optimizer: Any = fabric.setup_optimizers(
            torch.optim.Adam(
                [*self.teacher.parameters(), *self.student.parameters()],
                lr=choices.lr,
                betas=choices.betas,
                weight_decay=choices.weight_decay,
            )
        )
        #: What is stored by ``state_dict`` and loaded again, by its name in a checkpoint.
        self._parts: dict[str, Any] = {
            "supernet": self.supernet,
            "teacher": self.teacher,
            "student": self.student,
            "latency": problem.latency,
            "architecture_optimizer": self._architecture_optimizer,
        }

    def phase(self, name: str) -> PhaseSettings:
        """The settings of one of ``PHASES``; those of the rank phase are both "rank"'s and
        "evolve"'s."""
        settings = self.settings
        found: PhaseSettings | None = {
            "pretrain": settings.pretrain,
            "search": settings.search,
            "finalists": settings.finalists,
        }.get(name, settings.rank)
        assert found is not None
        return found

    @property
    def phases(self) -> tuple[str, ...]:
        """Those of ``PHASES`` that there are."""
        settings = self.settings
        ranked = () if settings.rank is None else PHASES[2:4]
        last = PHASES[4:] if settings.finalists and settings.finalists.networks else ()
        return (*PHASES[:2], *ranked, *last)

    @property
    def weights_per_ms(self) -> tuple[float, ...]:
        """What the penalty's terms are weighed by: of operators, inputs and widths."""
        if self.settings.latency.weights == "gradient":
            return self.balance.weights_per_ms
        return tuple(self.controller.value * weight for weight in self.problem.latency.weights)

    def scorer(self) -> InheritedScorer:
        """Scores discrete networks; made once, as it keeps the images."""
        if self._scorer is None:
            data, rank = self.settings.data, self.settings.rank
            limit = data.evaluate_images if rank is None or rank.images is None else rank.images
            self._scorer = InheritedScorer(
                self.supernet, self.data, self.fabric, data.image_scale, limit
            )
        return self._scorer

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / CHECKPOINTS

    def batches_of(self, drawn: Iterator[Batch], group: PhaseSettings) -> Iterator[Batch]:
        """The batches of the next step, on the device."""
        return step_batches(self.fabric, drawn, group.accumulate, self.settings.is_channels_last)

    def rng(self, phase: str, epoch: int, step: int) -> random.Random:
        """Randomness of one step, the same on every process."""
        return random.Random(f"{self.settings.seed}/{phase}/{epoch}/{step}")

    def check_loss(
        self, place: tuple[str, int, int], half: TrainBatches, number: int, loss: float
    ) -> float:
        """The loss, if it is finite; else stop before the step is made, and say where."""
        phase, epoch, step = place
        count = self.phase(phase).accumulate
        where = f"{phase}, epoch {epoch + 1}, step {step + 1}, half {half.part!r}"
        numbers = range(step * count, (step + 1) * count)
        return finite_loss(loss, where, half, number, numbers, self.checkpoints)

    def save(self, phase: str, epoch: int, optimizer: Any) -> None:
        """Write where the run stands, on the first process.

        Args:
            phase, epoch: to go on with.
            optimizer: of the supernet's weights.

        Raises:
            CheckpointError: it cannot be written; the one before stays.
        """
        state = {
            "space": self._space(),
            "classes": self.data.classes.count,
            "phase": phase,
            "epoch": epoch,
            **{name: part.state_dict() for name, part in self._parts.items()},
            "optimizer": optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),  # empty but in 16-mixed
            "controller": self.controller.to_dict(),
            "balance": self.balance.to_dict(),
            "records": json.dumps([record.to_dict() for record in self.records]),
            "archive": self.archive.to_json(),
        }
        on_first(self.fabric, lambda: save_checkpoint(self.checkpoints, "search", state))

    def restore(self) -> dict[str, Any]:
        """Go back to the folder's last checkpoint.

        The first process reads it, and all have its state afterwards.

        Returns:
            The ``phase`` and ``epoch`` to go on with, and the state of the weights' ``optimizer``,
            None where there is no checkpoint.

        Raises:
            CheckpointError: it is damaged, or of another space or other classes.
        """
        share_state(self.fabric, self.supernet, self.teacher, self.student)
        state = on_first(self.fabric, self._stored)
        if state is None:
            return {"phase": PHASES[0], "epoch": 0, "optimizer": None}
        with restoring(self.checkpoints):
            records = TypeAdapter(list[EpochRecord]).validate_json(state["records"], strict=True)
            self.archive.restore(state["archive"])
            self.controller = self.controller.restored(state["controller"])
            self.balance = GradientBalance.restored(state["balance"])
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            if scaler := state.get("scaler"):
                self.fabric.strategy.precision.load_state_dict(scaler)
        self.records = records
        return state

    def _stored(self) -> dict[str, Any] | None:
        """The last checkpoint of this search, None if there is none."""
        path = last_checkpoint(self.checkpoints)
        if path is None:
            return None
        state = load_checkpoint(path, "search", _VALUES)
        if state["space"] != self._space():
            raise CheckpointError(
                f"{path} is of another space\n  there: {state['space']}\n  here:  {self._space()}\n"
                "search into another folder with --run"
            )
        if state["classes"] != self.data.classes.count:
            raise CheckpointError(
                f"{path} is of data with {state['classes']} classes, these have "
                f"{self.data.classes.count}; search into another folder with --run"
            )
        if state["phase"] not in PHASES:
            raise CheckpointError(
                f"{path} is of a phase {state['phase']!r:.40}, which there is not"
            )
        return state

    def _space(self) -> str:
        return json.dumps(self.problem.space.to_dict(), sort_keys=True)
