"""A search's scalars and figures as TensorBoard event files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.state import SearchState
from latlut.search.runs.listening import RunLog
from latlut.search.supernet.relaxed import RelaxedArchitecture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SearchLog(RunLog):
    """Writes each step's loss and each epoch's record."""

    def on_step(self, phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
        """One step's loss, numbered from the phase's start."""
        self.add(phase, {"weight_loss": loss}, epoch * steps + step - 1)

    def on_epoch(self, record: EpochRecord, search: SearchState) -> None:
        """One epoch's numbers, and pictures of alpha and gamma."""
        self.add(f"{record.phase}_epochs", record.flat(), record.epoch + 1)
        if record.phase != "search":
            return
        with self.writing() as writer:
            for role in ("student", "teacher"):
                relaxed: RelaxedArchitecture = getattr(search, role)
                writer.add_figure(f"choices/{role}", choices_figure(relaxed), record.epoch + 1)
            writer.flush()


def choices_figure(relaxed: RelaxedArchitecture) -> Figure:
    """Probabilities of operators, of inputs from the finer scale, and of widths, as heat maps.

    One row per supernet cell, (layer, 1/scale), from the image down.
    """
    from matplotlib.figure import Figure

    with torch.no_grad():
        found = relaxed.probabilities()
    cells = [f"{layer}, 1/{scale}" for layer, scale in relaxed.space.cells()]
    parts = (
        ("operator (alpha)", found.alpha, list(relaxed.space.operators), cells),
        ("from finer (beta)", found.beta[:, None], [""], cells),
        ("width (gamma)", found.gamma, [f"{width}/12" for width in relaxed.widths], cells[1:]),
    )
    figure = Figure(figsize=(9, 1.5 + 0.19 * len(cells)), layout="constrained")
    columns = [max(2, len(names)) for _, _, names, _ in parts]
    axes = figure.subplots(1, 3, width_ratios=columns)
    for axis, (title, values, names, rows) in zip(axes, parts, strict=True):
        image = axis.imshow(values.cpu().numpy(), vmin=0, vmax=1, aspect="auto", cmap="viridis")
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(rows)), rows, fontsize=6)
    figure.colorbar(image, ax=list(axes), shrink=0.5)
    return figure
