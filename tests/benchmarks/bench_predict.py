"""How fast an opened table predicts: one op spec, and a thousand at once.

    python tests/benchmarks/bench_predict.py

CPU time of one thread, from 15%, 30% and all of the FasterSeg plan, beside Eq. 2.25 and 2.26 of
Rasmussen and Williams written out, in the same process. BLAS has one thread: what its others took
would not be counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from latlut.measure.plans import load_plan
from latlut.opspec import OpSpec
from latlut.predict.features import Features
from latlut.predict.predictor import Kernel, Predictor

PLAN = load_plan("fasterseg", (256, 512)).specs


def quantiles_ms(action: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """(p10, median, p90) milliseconds of ``repeats`` runs, CPU time of this thread."""
    taken = []
    for _ in range(repeats):
        started = time.thread_time()
        action()
        taken.append(1e3 * (time.thread_time() - started))
    low, middle, high = np.quantile(taken, [0.1, 0.5, 0.9])
    return float(low), float(middle), float(high)


def a_predictor(known: list[OpSpec]) -> Predictor:
    """A model of invented latencies with lengths as the real ones have."""
    features = Features.of(known)
    noise = np.random.default_rng(0).normal(0, 0.1, len(known))
    lengths = (*[3.0] * features.numbers, *[1.0] * len(features.categories))
    latency_ms = np.exp(features.rows(known).log_work - 20 + noise)
    return Predictor.fit(known, latency_ms, kernel=Kernel(lengths, 1.0, 1e-3))


def plainly(model: Predictor, specs: list[OpSpec]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of f, as the equations are written."""
    known = model.features.rows([OpSpec.parse(key) for key in model.keys]).matrix
    own = model.kernel.between(known, known) + model.kernel.noise * np.eye(len(known))
    beside = model.kernel.between(model.features.rows(specs).matrix, known)
    solved = np.linalg.solve(own, beside.T)
    variance = model.kernel.amplitude - (beside * solved.T).sum(axis=1)
    return solved.T @ np.array(model.targets), variance


def main() -> None:
    """Print every figure with its spread."""
    others = [
        spec.replace(inputs=[(c + more, h, w) for c, h, w in spec.inputs])
        for more in (1, 2)
        for spec in PLAN
        if spec.kind.endswith(("conv", "conv_2x"))
    ][:1000]
    for count in (98, 200, len(PLAN)):
        model = a_predictor(random.Random(0).sample(list(PLAN), count))
        model.predict(others)
        for batch, repeats in ((others[:1], 1000), (others, 100)):
            low, middle, high = quantiles_ms(partial(model.predict, batch), repeats)
            _, plain, _ = quantiles_ms(partial(plainly, model, batch), 5)
            print(
                f"{len(batch)} from {count} known: {middle:.3g} ms (p10 {low:.3g}, p90 "
                f"{high:.3g}), {plain / middle:.0f} times faster than the equations as written"
            )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
