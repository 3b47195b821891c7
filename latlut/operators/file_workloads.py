"""What models in files from elsewhere have in common: named inputs of known shapes and types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from latlut.operators.input_axes import InputAxes, common_batch, common_image_size
from latlut.operators.workloads import Workload


@dataclass(frozen=True)
class FileWorkload(Workload):
    """A model in a file; there is no PyTorch module of it."""

    names: tuple[str, ...]
    """Of the inputs."""
    types: tuple[str, ...]
    """NumPy's names of the inputs' types."""
    axes: tuple[InputAxes, ...]
    """What is known of each input's axes."""
    given: tuple[np.ndarray, ...] = field(default=(), repr=False, kw_only=True)
    """Inputs to run on; random ones where it is empty."""

    has_module: ClassVar[bool] = False

    @property
    def input_names(self) -> tuple[str, ...]:
        """The file's own."""
        return self.names

    @property
    def input_types(self) -> tuple[np.dtype, ...]:
        """The file's own."""
        return tuple(map(np.dtype, self.types))

    def random_inputs(self, seed: int = 0) -> list[np.ndarray]:
        """What was given, or random arrays."""
        return list(self.given) or super().random_inputs(seed)

    @property
    def batch(self) -> int | None:
        """Items that one run takes; None where the file does not say which axis counts them."""
        return common_batch(self.axes, self.input_shapes)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of its image; None where it takes none, or several sizes."""
        return common_image_size(self.axes, self.input_shapes)
