"""What a benchmark of a network says: its latency, and what was inside the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ClockContents:
    """What is inside the clock, told from the graph's input and outputs.

    ``has_upsample``: an output has the image's height and width. ``has_argmax``: the graph takes
    the best class itself. Copies between host and device are never inside.
    """

    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    has_upsample: bool
    has_argmax: bool

    def describe(self) -> str:
        """Two lines for people."""
        inputs, outputs = (
            ", ".join("x".join(map(str, shape)) for shape in shapes)
            for shapes in (self.input_shapes, self.output_shapes)
        )
        inside = ["the network"]
        outside = ["copies to and from the device", "reading and normalising images"]
        for is_inside, part in (
            (self.has_upsample, "enlarging the output to the image's size"),
            (self.has_argmax, "taking the best class"),
        ):
            (inside if is_inside else outside).append(part)
        return (
            f"input {inputs}, output {outputs}\n"
            f"inside the clock: {', '.join(inside)}; outside: {', '.join(outside)}"
        )


@dataclass(frozen=True)
class PaperReading:
    """A reading by the protocol of the FasterSeg authors: the mean of ``runs`` runs."""

    mean_ms: float
    runs: int
    seconds: float

    @property
    def fps(self) -> float:
        """Images per second; the protocol's batch is 1."""
        return 1e3 / self.mean_ms


@dataclass(frozen=True)
class BenchResult:
    """A network's latency.

    ``latency_ms`` is the ``statistic`` of a run of ``batch`` images, over all passes; NaN bounds
    where one pass says nothing about its spread. ``readings_ms`` (passes,); ``percentiles_ms`` and
    ``mean_ms`` are of the samples of all passes together. ``difference`` from ``reference`` is
    None where outputs were not compared.
    """

    name: str
    batch: int
    statistic: str
    latency_ms: float
    ci_low_ms: float
    ci_high_ms: float
    readings_ms: tuple[float, ...]
    percentiles_ms: Mapping[int, float]
    mean_ms: float
    samples: int
    contents: ClockContents
    engine: Mapping[str, object]
    difference: float | None
    reference: str
    warnings: tuple[str, ...] = ()
    paper: PaperReading | None = None

    @property
    def fps(self) -> float:
        """Images per second, one batch after the other."""
        return 1e3 * self.batch / self.latency_ms

    @property
    def fps_interval(self) -> tuple[float, float]:
        """Bounds of ``fps``; NaN where they are unknown."""
        return 1e3 * self.batch / self.ci_high_ms, 1e3 * self.batch / self.ci_low_ms

    def to_dict(self) -> dict[str, object]:
        """JSON-able; NaN where nothing is known."""
        paper = self.paper
        return {
            "name": self.name,
            "batch": self.batch,
            "statistic": self.statistic,
            "latency_ms": self.latency_ms,
            "ci_low_ms": self.ci_low_ms,
            "ci_high_ms": self.ci_high_ms,
            "fps": self.fps,
            "fps_low": self.fps_interval[0],
            "fps_high": self.fps_interval[1],
            "mean_ms": self.mean_ms,
            "percentiles_ms": {f"p{rank}": value for rank, value in self.percentiles_ms.items()},
            "readings_ms": list(self.readings_ms),
            "samples": self.samples,
            "inside_the_clock": {
                "upsample": self.contents.has_upsample,
                "argmax": self.contents.has_argmax,
                "copies": False,
                "input_shapes": [list(shape) for shape in self.contents.input_shapes],
                "output_shapes": [list(shape) for shape in self.contents.output_shapes],
            },
            "engine": dict(self.engine),
            "difference": self.difference,
            "reference": self.reference,
            "warnings": list(self.warnings),
            "paper_protocol": None
            if paper is None
            else {
                "mean_ms": paper.mean_ms,
                "fps": paper.fps,
                "runs": paper.runs,
                "seconds": paper.seconds,
            },
        }
