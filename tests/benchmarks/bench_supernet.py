"""One weight step of the supernet in search mode: time and peak memory.

    python tests/benchmarks/bench_supernet.py [--rounds 3]

The step is four passes, forward and backward: the teacher, widest; the student at widths drawn at
random, at the widest and at the narrowest. 16 layers, F = 12, batch 2, 128x256, two threads.

Beside it stands the same step as the FasterSeg authors' code arranges it: each cell is run on each
of its two inputs and the outputs are mixed, every operator is computed by itself, and the graphs
of all passes are kept until one backward pass at the end. All variants run in turn, each in a
process of its own, so that its peak memory is its own; ours also under bfloat16 autocast. Peaks are
shown with and without what Python and its libraries take, and without weights and gradients too,
which fill most of either peak, whatever the arrangement.

"single-path" is a step of the rank phase: a random network, and the same at the widest and at the
narrowest widths, each forward and backward by itself, two images of that size as well. It is set
against "supernet", the step that runs all paths.

The arrangement of the reference is that of the authors' release; mixing inputs is Eq. 1 of the
paper.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latlut.search.cosearch.sampling import Sampler
from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.single_path import run_path
from latlut.search.supernet.supernet import Supernet
from latlut.spaces import FasterSegSpace
from latlut.spaces.shapes import SCALES, channels

TEACHER_END, STUDENT_END = 12, 8
VARIANTS = ("supernet", "bfloat16", "reference", "single-path")
#: What is set against what.
PAIRS = (("supernet", "reference"), ("bfloat16", "reference"), ("single-path", "supernet"))
Pass = tuple[Mixing, list[int], int]


def passes(space: FasterSegSpace, seed: int) -> Iterator[Pass]:
    """The mixing, widths and end width of the four passes of a step."""
    rng = random.Random(seed)
    count = len(space.cells()) - 1
    widest, narrowest = max(space.widths), min(space.widths)
    mixings = []
    for number in range(2):
        found = RelaxedArchitecture(space, seed=number).probabilities()
        mixings.append(Mixing(found.alpha.detach(), found.beta.detach()))
    yield mixings[0], [widest] * count, TEACHER_END
    yield mixings[1], [rng.choice(space.widths) for _ in range(count)], STUDENT_END
    yield mixings[1], [widest] * count, STUDENT_END
    yield mixings[1], [narrowest] * count, STUDENT_END


def loss_of(outputs: dict[tuple[int, ...], Tensor]) -> Tensor:
    """A stand-in for the sum of the heads' losses."""
    losses = [logits.square().mean() for logits in outputs.values()]
    return torch.stack(losses).sum()


def mixed_outputs(net: Supernet, image: Tensor, step: Pass) -> dict[tuple[int, ...], Tensor]:
    """The forward pass of the reference: cells run once per input, their outputs are mixed."""
    from plain_supernet import plain_operator

    mixing, widths, end_width = step
    space, ends = net.space, net.ends_of(end_width)
    rows = {cell: row for row, cell in enumerate(space.cells())}

    def cell(layer: int, scale: int, inputs: Sequence[Tensor], is_down: bool, width: int) -> Tensor:
        row = rows[layer, scale]
        out = channels(space.base_width, scale * (1 + is_down), width)
        mixed = net.super_cells[row].direction(is_down)
        results = []
        for part in inputs:
            parts = [plain_operator(mixed, name, part, out) for name in space.operators]
            results.append(sum(w * p for w, p in zip(mixing.alpha[row], parts, strict=True)))
        if len(results) == 1:
            return results[0]
        return mixing.beta[row] * results[0] + (1 - mixing.beta[row]) * results[1]

    entering: dict[tuple[int, int], list[Tensor]] = {(0, 8): [ends.stem(image)]}
    last: dict[int, Tensor] = {}
    for layer, scale in space.cells():
        inputs = entering[layer, scale]
        if layer == space.layers - 1:
            last[scale] = cell(layer, scale, inputs, False, end_width)
            continue
        for is_down in (True, False):
            target = (layer + 1, scale * (1 + is_down))
            if target[1] > SCALES[-1]:
                continue
            found = cell(layer, scale, inputs, is_down, widths[rows[target] - 1])
            sources = entering.setdefault(target, [])
            sources.insert(0, found) if is_down else sources.append(found)
    fine = {scale: entering[space.layers - 1, scale][-1] for scale in (8, 16)}
    refined = {
        8: last[8],
        16: ends.refine(16, last[16], [fine[8]]),
        32: ends.refine(32, last[32], [fine[16], fine[8]]),
    }
    return {output: ends.classify(output, [refined[s] for s in output]) for output in net.outputs}


def weight_step(net: Supernet, image: Tensor, variant: str, seed: int) -> None:
    """Forward and backward of the four passes; gradients add up in ``.grad``."""
    losses = []
    is_reference = variant == "reference"
    for step in passes(net.space, seed):
        if is_reference:
            losses.append(loss_of(mixed_outputs(net, image, step)))
            continue
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bfloat16"):
            loss = loss_of(net(image, *step))
        loss.backward()
    if is_reference:
        torch.stack(losses).sum().backward()


def single_path_step(net: Supernet, image: Tensor, seed: int) -> None:
    """Forward and backward of a random network at three widths; gradients add up in ``.grad``."""
    space = replace(net.space, num_classes=FasterSegSpace().num_classes)
    sampler, rng = Sampler(space, space.widths, STUDENT_END, lambda _: 1.0), random.Random(seed)
    drawn = sampler.draw(rng)
    genomes = [sampler.same_width(drawn, width) for width in (max(space.widths), min(space.widths))]
    for genome in (*genomes, drawn):
        placed = sampler.decoded(genome)
        logits = run_path(net, image, placed.architecture, placed.layers)
        logits.square().mean().backward()


def resident_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def run_variant(variant: str, threads: int, steps: int) -> None:
    """Print one variant's figures as JSON; for a child process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    libraries_mb = resident_mb()
    net = Supernet(FasterSegSpace()).train()
    image = torch.randn(2, 3, 128, 256)
    is_single = variant == "single-path"
    for parameter in net.parameters():
        # As in a run: of all paths every weight has a gradient, of a single one its own.
        parameter.grad = None if is_single else torch.ones_like(parameter)
    fixed_mb = resident_mb()
    seconds, cpu_seconds = [], []
    for seed in range(steps + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        if is_single:
            net.zero_grad(set_to_none=True)
            single_path_step(net, image, seed)
        else:
            weight_step(net, image, variant, seed)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found = {
        "seconds": min(seconds[1:]),  # the first step warms up
        "cpu_seconds": min(cpu_seconds[1:]),
        "peak_mb": peak_mb,
        "step_mb": peak_mb - libraries_mb,
        "fixed_mb": fixed_mb,
        "working_mb": peak_mb - fixed_mb,
    }
    print(json.dumps(found))


def main() -> None:
    """Print both variants' figures and their ratios with the spread over rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--only", choices=VARIANTS, action="append", help="leave out the others")
    options = parser.parse_args()
    if options.variant:
        run_variant(options.variant, options.threads, options.steps)
        return
    found: dict[str, list[dict[str, float]]] = {v: [] for v in options.only or VARIANTS}
    for _ in range(options.rounds):
        for variant, results in found.items():
            command = [sys.executable, __file__, "--variant", variant]
            command += ["--steps", str(options.steps), "--threads", str(options.threads)]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    labels = {
        "seconds": "s a step",
        "cpu_seconds": "s of processor time a step",
        "peak_mb": "MB peak resident memory",
        "step_mb": "MB of it but for Python and its libraries",
        "fixed_mb": "MB of it weights, gradients and libraries",
        "working_mb": "MB of it on top of those",
    }
    for variant, other in PAIRS:
        if variant not in found or other not in found:
            continue
        print(f"{variant} against {other}")
        for name, label in labels.items():
            ours, theirs = (
                np.array([result[name] for result in found[key]]) for key in (variant, other)
            )
            ratios = theirs / ours
            print(
                f"{np.median(ours):8.2f} against {np.median(theirs):8.2f} {label}: "
                f"{np.median(ratios):.2f}x ({ratios.min():.2f}x to {ratios.max():.2f}x)"
            )


if __name__ == "__main__":
    main()
