"""What a search tells about each epoch: the rows of its trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def name_of(scales: Sequence[int]) -> str:
    """(16, 32) as "16+32", the name of a branch set."""
    return "+".join(map(str, scales))


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a search.

    Dictionaries are by the name of a branch set, ``"16+32"``; latencies are the table's estimates
    in milliseconds, ``miou`` the supernet's mean IoU on validation images with the soft choices
    of operators and inputs and the likeliest widths. Of a pretraining epoch and of the rank phase's
    training only the losses are known.
    """

    phase: str
    epoch: int
    """``phase``, ``epoch``: one of ``state.PHASES``, and the epoch within it from 0."""
    seconds: float
    """Wall time."""
    weight_loss: float | None = None
    architecture_loss: float | None = None
    """``weight_loss``, ``architecture_loss``: mean over the epoch's steps, of all passes together;
    the architecture's is without the penalty."""
    lambda_per_ms: float | None = None
    weights_per_ms: tuple[float, ...] = ()
    """``lambda_per_ms``, ``weights_per_ms``: the penalty's weight in the epoch's last step, and its
    parts for operators, inputs and widths."""
    expected_ms: float | None = None
    penalty_ms: float | None = None
    terms_ms: tuple[float, ...] = ()
    """``expected_ms``, ``penalty_ms``, ``terms_ms``: of the student's logits at its end."""
    derived_ms: Mapping[str, float] = field(default_factory=dict)
    """Of the student's derived networks."""
    fitted_ms: Mapping[str, float] = field(default_factory=dict)
    fitted_loss: Mapping[str, float] = field(default_factory=dict)
    """``fitted_ms``, ``fitted_loss``: of those fitted to the target, and the log probability given
    up."""
    miou: Mapping[str, float] = field(default_factory=dict)
    teacher_miou: Mapping[str, float] = field(default_factory=dict)
    """``miou``, ``teacher_miou``: fractions."""
    derived_miou: Mapping[str, float] = field(default_factory=dict)
    fitted_miou: Mapping[str, float] = field(default_factory=dict)
    """``derived_miou``, ``fitted_miou``: inherited by the discrete networks, fractions."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Target(m) of the derived networks."""
    skip_share: float | None = None
    narrowest_share: float | None = None
    """``skip_share``, ``narrowest_share``: of all cells and maps, how many have skip or the
    narrowest width as their likeliest choice."""
    largest_alpha: float | None = None
    """Mean over cells of the largest probability."""
    scored: int | None = None
    """Networks that have an inherited score of the rank phase by now."""
    best_miou: float | None = None
    best_ms: float | None = None
    """``best_miou``, ``best_ms``: of the best of them within the tolerance of the target."""
    trained_miou: float | None = None
    trained_ms: float | None = None
    trained_share: float | None = None
    inherited_miou: float | None = None
    """Of the finalist that was trained: its mIoU after that, its latency, which share of the
    schedule that was, and what it inherited."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """One row of ``trajectory.csv``: dictionaries spread over columns such as miou_16+32.

        Epochs count from 1, as everywhere that people read.
        """
        row: dict[str, Any] = {}
        for name, value in (asdict(self) | {"epoch": self.epoch + 1}).items():
            if name in ("terms_ms", "weights_per_ms"):
                title = "term_{}_ms" if name == "terms_ms" else "{}_per_ms"
                names = ("w1", "w2", "w3")
                row |= {title.format(n): v for n, v in zip(names, value, strict=False)}
            elif isinstance(value, dict):
                row |= {f"{name}_{key}": item for key, item in value.items()}
            else:
                row[name] = value
        return row

    def describe(self, epochs: int) -> str:
        """One line for people.

        Args:
            epochs: of the phase.
        """
        line = f"{self.phase} {self.epoch + 1}/{epochs}"
        if self.weight_loss is not None:
            line += f"  loss {self.weight_loss:.3g}"
        if self.phase == "search":
            best = max(self.scores, key=lambda name: self.scores[name])
            line += (
                f"  {best}: derived {self.derived_ms[best]:.4g} ms, fitted to "
                f"{self.fitted_ms[best]:.4g} ms, inherited mIoU "
                f"{100 * self.derived_miou[best]:.3g}% and {100 * self.fitted_miou[best]:.3g}%"
                f"  lambda {self.lambda_per_ms:.3g}"
            )
        if self.scored is not None:
            line += f"  {self.scored} networks scored"
        if self.best_miou is not None:
            line += f", best near the target {100 * self.best_miou:.3g}%, {self.best_ms:.4g} ms"
        if self.trained_miou is not None and self.inherited_miou is not None:
            part = 1.0 if self.trained_share is None else self.trained_share
            share = f"{100 * part:.3g}% of " if part < 1 else ""
            line += (
                f"  {self.trained_ms:.4g} ms, mIoU {100 * self.trained_miou:.3g}% after {share}its "
                f"own training, inherited {100 * self.inherited_miou:.3g}%"
            )
        return f"{line}  ({self.seconds:.0f} s)"
