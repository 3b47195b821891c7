"""What TensorBoard files of searches and trainings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class RunLog:
    """Writes event files into a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()

    def add(self, group: str, values: Mapping[str, object], number: int) -> None:
        """Those of the values that are floats, as ``group/name``, of a step or an epoch."""
        for name, value in values.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{group}/{name}", value, number)
