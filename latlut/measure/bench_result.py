"""What a benchmark of a network says: its latency, and what was inside the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latlut.files.writing import write_csv
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.workloads import Workload
from latlut.stats.machine_speed import is_disturbed


@dataclass(frozen=True)
class ClockContents:
    """What is inside the clock, told from the graph's nodes, inputs and outputs.

    Copies between host and device are never inside.
    """

    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    """``input_shapes``, ``output_shapes``: of the graph."""
    has_upsample: bool | None
    """An output has the image's height and width; None where no input is an image."""
    has_argmax: bool
    """The graph takes the best class itself."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Kind of node -> how many, of a graph that latlut did not make; empty for its own."""

    @classmethod
    def of(cls, workload: Workload, output_shapes: tuple[tuple[int, ...], ...]) -> ClockContents:
        """What a workload with outputs of these shapes has inside the clock."""
        image, shapes = workload.image_size, workload.input_shapes
        has_upsample = None
        if image is not None:
            # height and width follow each other in every layout
            has_upsample = any(
                image in zip(shape, shape[1:], strict=False)
                for shape in output_shapes
                if len(shape) >= 3
            )
        if isinstance(workload, OnnxWorkload):
            nodes = dict(workload.op_types)
            return cls(shapes, output_shapes, has_upsample, "ArgMax" in nodes, nodes)
        # A class map has no channels left.
        has_argmax = image is not None and any(len(shape) == 3 for shape in output_shapes)
        return cls(shapes, output_shapes, has_upsample, has_argmax)

    def describe(self) -> str:
        """Two lines for people."""
        inputs, outputs = (
            ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
            for shapes in (self.input_shapes, self.output_shapes)
        )
        inside, outside = self._of_graph() if self.nodes else self._of_segmenter()
        return (
            f"input {inputs}, output {outputs}\n"
            f"inside the clock: {', '.join(inside)}; outside: {', '.join(outside)}"
        )

    def _of_segmenter(self) -> tuple[list[str], list[str]]:
        inside = ["the network"]
        if self.has_upsample is None:  # it takes no image
            return inside, ["copies to and from the device", "what comes before and after"]
        outside = ["copies to and from the device", "reading and normalising images"]
        for is_inside, part in (
            (self.has_upsample, "enlarging the output to the image's size"),
            (self.has_argmax, "taking the best class"),
        ):
            (inside if is_inside else outside).append(part)
        return inside, outside

    def _of_graph(self) -> tuple[list[str], list[str]]:
        count = sum(self.nodes.values())
        steps = [f"{n} {kind}" for kind, n in self.nodes.items() if kind in POSTPROCESSING]
        inside = [f"all {count} nodes of the graph" if count > 1 else "the graph's one node"]
        if steps:
            inside[0] += f" ({', '.join(steps)} among them)"
        if self.has_upsample:
            inside.append("an output of the image's size")
        return inside, ["copies to and from the device", "what comes before and after the graph"]


#: Nodes that some exports leave to the program around the network.
POSTPROCESSING = ("Resize", "Upsample", "Softmax", "ArgMax", "TopK", "NonMaxSuppression")


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


@dataclass(frozen=True, repr=False)
class BenchResult:
    """A network's latency."""

    name: str
    batch: int | None
    """Items that a run takes; None where the graph does not say which axis counts them."""
    statistic: str
    """What a reading is of its samples."""
    latency_ms: float
    """The ``statistic`` of a run, over all passes, milliseconds."""
    ci_low_ms: float
    ci_high_ms: float
    """``ci_low_ms``, ``ci_high_ms``: 95% interval; NaN where one pass says nothing about its
    spread."""
    readings_ms: tuple[float, ...]
    """(passes,)."""
    percentiles_ms: Mapping[int, float]
    mean_ms: float
    """``percentiles_ms``, ``mean_ms``: of the samples of all passes together."""
    samples: int
    contents: ClockContents
    engine: Mapping[str, object]
    difference: float | None
    """From ``reference``; None where outputs were not compared."""
    reference: str
    arithmetic: str = "fp32"
    """What the graph itself computes in, beside the engine's precision."""
    cpu_share: float | None = None
    """The least share of the CPU in a pass (``measure.cpu_share``); None where it is not known.
    Where it is too small the interval has no lower end."""
    host_share: float | None = None
    """What the host takes to launch a run over what it takes on the GPU, median over the passes;
    None where it is not known, as on a CPU."""
    launch: str | None = None
    """How runs were launched on the GPU, None on a CPU."""
    warnings: tuple[str, ...] = ()
    paper: PaperReading | None = None
    samples_ms: tuple[tuple[float, ...], ...] = ()
    """Of each pass the durations of its runs, in order; (passes, runs)."""

    def __repr__(self) -> str:
        low, high = self.ci_low_ms, self.ci_high_ms
        bounds = "" if math.isnan(high) else f" ({low:.4g} to {high:.4g})"
        bounds = f" (at most {high:.4g})" if bounds and math.isnan(low) else bounds
        where = f"{self.engine['name']} on {self.engine['device']}"
        return f"<BenchResult {self.name}: {self.latency_ms:.4g} ms{bounds}, {where}>"

    @property
    def fps(self) -> float | None:
        """Images per second, one batch after the other; None where the batch is not known."""
        return self._per_second(self.latency_ms)

    @property
    def fps_interval(self) -> tuple[float | None, float | None]:
        """Bounds of ``fps``; None where they are unknown."""
        return self._per_second(self.ci_high_ms), self._per_second(self.ci_low_ms)

    def _per_second(self, run_ms: float) -> float | None:
        if self.batch is None or not math.isfinite(run_ms):
            return None
        return 1e3 * self.batch / run_ms

    def write_samples(self, path: Path) -> None:
        """The duration of every run as CSV: pass and run, from 1, and milliseconds."""
        rows = (
            (index, run, f"{ms:.6f}")
            for index, samples in enumerate(self.samples_ms, 1)
            for run, ms in enumerate(samples, 1)
        )
        write_csv(path, ("pass", "run", "ms"), rows)

    def to_dict(self) -> dict[str, object]:
        """JSON-able; None where nothing is known, and nothing of launches on a CPU."""
        paper = self.paper
        launches = {"host_share": self.host_share, "launch": self.launch} if self.launch else {}
        low, high = (x if math.isfinite(x) else None for x in (self.ci_low_ms, self.ci_high_ms))
        return {
            "name": self.name,
            "batch": self.batch,
            "statistic": self.statistic,
            "latency_ms": self.latency_ms,
            "ci_low_ms": low,
            "ci_high_ms": high,
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
                "nodes": dict(self.contents.nodes),
                "input_shapes": [list(shape) for shape in self.contents.input_shapes],
                "output_shapes": [list(shape) for shape in self.contents.output_shapes],
            },
            "engine": dict(self.engine),
            "cpu_share": self.cpu_share,
            "is_disturbed": is_disturbed(self.cpu_share),
            **launches,
            "arithmetic_of_the_graph": self.arithmetic,
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
