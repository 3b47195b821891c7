"""Predictions from many known values: those of the equations as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from latlut.measure.plans import load_plan
from latlut.predict.conditioning import WIDE, Conditioned
from latlut.predict.features import Features
from latlut.predict.predictor import Kernel, Predictor

#: Lengths of logarithms of shapes and of categories, noise: rough, smooth, and kinds apart.
KERNELS = {
    "rough": (3.0, 1.0, 1e-3),
    "smooth": (40.0, 20.0, 3e-7),
    "kinds apart": (20.0, 0.1, 1e-6),
}


def matern(left: np.ndarray, right: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rasmussen and Williams, Eq. 4.17, of every pair."""
    apart = (left[:, None] - right[None]) / lengths
    distance = np.sqrt(3 * (apart**2).sum(axis=2))
    covariance: np.ndarray = (1 + distance) * np.exp(-distance)
    return covariance


def plainly(
    rows: np.ndarray, known: np.ndarray, values: np.ndarray, lengths: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation at the rows, Algorithm 2.1."""
    lower = np.linalg.cholesky(matern(known, known, lengths) + noise * np.eye(len(known)))
    solved = np.linalg.solve(lower, matern(known, rows, lengths))
    mean = solved.T @ np.linalg.solve(lower, values)
    return mean, np.sqrt(np.maximum(1 + noise - (solved**2).sum(axis=0), noise))


def points(count: int, seed: int) -> np.ndarray:
    """(count, 8): five logarithms of shapes on a grid, then one of three categories."""
    draw = np.random.default_rng(seed)
    shapes = np.unique(draw.integers(0, 12, (4 * count, 5)), axis=0)
    rows = draw.permutation(shapes)[:count] / 2.0
    return np.hstack([rows, np.eye(3)[draw.integers(0, 3, count)]])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("count", [20, 100, WIDE, WIDE + 1, 400, 656])
def test_predictions_are_those_of_the_equations(count: int, name: str) -> None:
    shape, category, noise = KERNELS[name]
    lengths = np.array([*[shape] * 5, *[category] * 3])
    known = points(count, 0)
    beside = known + np.array([*[0.05] * 5, 0, 0, 0])
    far = known[:50] * np.array([*[3.0] * 5, 1, 1, 1])
    new_kind = np.hstack([known[:20, :5], np.zeros((20, 3))])
    rows = np.vstack([known, beside, far, new_kind, points(100, 1)])
    values = np.sin(known[:, :5].sum(axis=1))

    given = Conditioned(lengths, known, noise)
    lower = given.triangle.inverse
    mean, left = given.moments(rows, lower.T @ (lower @ values))
    plain_mean, plain_sd = plainly(rows, known, values, lengths, noise)

    np.testing.assert_allclose(mean, plain_mean, rtol=1e-6, atol=1e-6)
    ratio = np.sqrt(left) / plain_sd
    # Neighbours alone may explain less than all, never more; of few known ones all are taken.
    assert ratio.min() > 1 - 1e-5
    assert ratio.max() < (1 + 1e-5 if count <= WIDE else 1.3)
    assert ratio[: 2 * count].max() < 1.1  # rows that are near known ones


def test_a_row_is_predicted_the_same_alone_and_among_others() -> None:
    lengths, known = np.ones(8), points(400, 0)
    given = Conditioned(lengths, known, 1e-3)
    weights = np.random.default_rng(2).normal(size=400)
    rows = np.vstack([points(300, 3), known[:10]])
    mean, left = given.moments(rows, weights)
    for number in (0, 7, 150, 309):
        alone = given.moments(rows[number : number + 1], weights)
        np.testing.assert_allclose(alone, ([mean[number]], [left[number]]), rtol=1e-9)


def test_no_rows_and_known_rows_that_are_equal() -> None:
    known = np.repeat(points(3, 0), 100, axis=0)
    given = Conditioned(np.ones(8), known, 1e-3)
    mean, left = given.moments(known[::50], np.full(300, 0.01))
    expected = matern(known[::50], known, np.ones(8)) @ np.full(300, 0.01)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    # A hundred equal values leave the noise and a hundredth of it, those taken around it up to
    # one in NEAR.
    assert (left > 1e-3).all() and (left < 1.02e-3).all()
    assert [len(part) for part in given.moments(known[:0], np.ones(300))] == [0, 0]


@pytest.mark.parametrize("count", [98, 656])
def test_a_predictor_of_a_plan_agrees_with_the_equations(count: int) -> None:
    specs = load_plan("fasterseg", (256, 512)).specs
    known = [specs[i] for i in np.random.default_rng(0).permutation(len(specs))[:count]]
    noise = np.random.default_rng(1).normal(0, 0.05, count)
    features = Features.of(known)
    lengths = (*[20.0] * features.numbers, *[5.0] * len(features.categories))
    latency_ms = np.exp(features.rows(known).log_work - 20 + noise)
    model = Predictor.fit(known, latency_ms, kernel=Kernel(lengths, 30.0, 1e-3))
    others = [
        spec.replace(inputs=[(c + 1, h, w) for c, h, w in spec.inputs])
        for spec in specs[::3]
        if spec.kind.endswith("conv") and model.can_predict(spec)
    ]
    wanted = [*(spec for spec in known if model.can_predict(spec)), *others]

    found, rows = model.predict(wanted), features.rows(wanted)
    targets = np.array(model.targets)
    mean, sd = plainly(
        rows.matrix, features.rows(known).matrix, (targets - targets.mean()) / targets.std(),
        np.array(lengths), 1e-3 / 30,
    )  # fmt: skip
    latency_ms = np.exp(targets.mean() + targets.std() * mean + rows.log_work)
    quantiles = [model.quantiles.get(name, model.quantiles[""]) for name in rows.categories]
    np.testing.assert_allclose(found.latency_ms, latency_ms, rtol=1e-4)
    half_width = targets.std() * 30**0.5 * sd * quantiles
    np.testing.assert_allclose(found.half_width, half_width, rtol=0.02)
