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
    of operators and inputs and the likeliest widths. Of a pretraining epoch only the losses are
    known.
    """

    phase: str
    epoch: int
    """``phase``, ``epoch``: ``pretrain`` or ``search``, and the epoch within it from 0."""
    seconds: float
    """Wall time."""
    weight_loss: float
    architecture_loss: float | None = None
    """``weight_loss``, ``architecture_loss``: mean over the epoch's steps, of all passes together;
    the architecture's is without the penalty."""
    lambda_per_ms: float | None = None
    """The penalty's weight during the epoch."""
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
    scores: Mapping[str, float] = field(default_factory=dict)
    """Target(m) of the derived networks."""
    skip_share: float | None = None
    narrowest_share: float | None = None
    """``skip_share``, ``narrowest_share``: of all cells and maps, how many have skip or the
    narrowest width as their likeliest choice."""
    largest_alpha: float | None = None
    """Mean over cells of the largest probability."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """One row of ``trajectory.csv``: dictionaries spread over columns such as miou_16+32."""
        row: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name == "terms_ms":
                row |= {f"term_{n}_ms": v for n, v in zip(("w1", "w2", "w3"), value, strict=False)}
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
        line = f"{self.phase} {self.epoch + 1}/{epochs}  loss {self.weight_loss:.3g}"
        if self.phase == "search":
            best = max(self.scores, key=lambda name: self.scores[name])
            line += (
                f"  {best}: derived {self.derived_ms[best]:.4g} ms, fitted "
                f"{self.fitted_ms[best]:.4g} ms, mIoU {100 * self.miou[best]:.3g}%"
                f"  lambda {self.lambda_per_ms:.3g}"
            )
        return f"{line}  ({self.seconds:.0f} s)"
