"""DecoupledLatency: gradients against finite differences, drawn widths, dtypes and devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brute_latency import Brute, fixed_factors, random_relaxed, small_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tables import invented_ms, table_shelf

from latlut.errors import LatlutError
from latlut.search.penalty.decoupled import DecoupledLatency
from latlut.search.supernet.relaxed import RelaxedArchitecture


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    """A function that makes, once each, a table of a space."""
    with table_shelf(tmp_path_factory.mktemp("tables")) as table_of:
        yield table_of


# --- gradients ---


def value_of(latency: DecoupledLatency, relaxed: RelaxedArchitecture, weights) -> torch.Tensor:
    found = latency(relaxed)
    return (
        weights[0] * found.penalty_ms
        + (torch.tensor(weights[1:4], dtype=torch.double) * found.terms_ms).sum()
        + weights[4] * found.expected_ms
    )


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize(
    "weights", [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1),
                (0.3, -1, 2, 0.5, 1.7)],
)  # fmt: skip
def test_gradient_equals_finite_differences(tables, branches: int, weights) -> None:
    space = small_space(5, branches)
    latency = DecoupledLatency(space, tables(space), weights=(0.2, 0.3, 0.5))
    relaxed = random_relaxed(space, 9)
    value_of(latency, relaxed, weights).backward()
    step = 1e-5
    for parameter in (relaxed.alpha, relaxed.beta, relaxed.gamma):
        numeric = torch.zeros_like(parameter)
        with torch.no_grad():
            for place in np.ndindex(*parameter.shape):
                before = parameter[place].item()
                parameter[place] = before + step
                high = value_of(latency, relaxed, weights).item()
                parameter[place] = before - step
                low = value_of(latency, relaxed, weights).item()
                parameter[place] = before
                numeric[place] = (high - low) / (2 * step)
        assert torch.allclose(parameter.grad, numeric, rtol=1e-5, atol=1e-7)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), spread=st.floats(0.01, 30.0), layers=st.integers(3, 9))
def test_gradient_and_range_for_any_logits(tables, seed: int, spread: float, layers: int) -> None:
    space = small_space(layers)
    latency = DecoupledLatency(space, tables(space))
    relaxed = random_relaxed(space, seed, spread=spread)
    direction = [torch.randn_like(parameter) for parameter in relaxed.parameters()]
    found = latency(relaxed)
    found.expected_ms.backward()
    slope = sum(
        float((parameter.grad * way).sum())
        for parameter, way in zip(relaxed.parameters(), direction, strict=True)
    )
    ends = []
    step = 1e-4 / max(spread, 1.0)
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, way in zip(relaxed.parameters(), direction, strict=True):
                parameter.add_(way, alpha=sign * step if sign == 1 else -2 * step)
        ends.append(latency(relaxed).expected_ms.item())
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-5)
    assert 0 < latency.prices.fixed_ms < found.expected_ms.item()


def test_gradient_reaches_every_parameter(tables) -> None:
    space = small_space(16)
    relaxed = random_relaxed(space, 10)
    DecoupledLatency(space, tables(space))(relaxed).penalty_ms.backward()
    for parameter in (relaxed.alpha, relaxed.beta, relaxed.gamma):
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("free", ["alpha", "beta", "gamma"])
def test_some_factors_may_need_no_gradient(tables, free: str) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space))
    relaxed, other = random_relaxed(space, 11), random_relaxed(space, 11)
    latency(other).expected_ms.backward()
    for name, parameter in relaxed.named_parameters():
        parameter.requires_grad_(name == free)
    latency(relaxed).expected_ms.backward()
    for name, parameter in relaxed.named_parameters():
        if name == free:
            assert torch.equal(parameter.grad, getattr(other, name).grad)
        else:
            assert parameter.grad is None
    for parameter in relaxed.parameters():
        parameter.requires_grad_(False)
    assert not latency(relaxed).penalty_ms.requires_grad


def test_a_second_derivative_is_refused(tables) -> None:
    space = small_space()
    relaxed = random_relaxed(space, 12)
    value = DecoupledLatency(space, tables(space))(relaxed).expected_ms
    with pytest.raises(LatlutError, match="no derivative of its own"):
        torch.autograd.grad(value, relaxed.alpha, create_graph=True)


def test_single_precision_in_and_out(tables) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space))
    relaxed = RelaxedArchitecture(space)
    found = latency(relaxed)
    assert {value.dtype for value in found} == {torch.float32}
    found.penalty_ms.backward()
    assert relaxed.beta.grad.dtype == torch.float32
    assert found.expected_ms.item() == pytest.approx(latency(relaxed.double()).expected_ms.item())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_parameters_on_a_gpu(tables) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space))
    here, there = random_relaxed(space, 13), random_relaxed(space, 13).cuda()
    found = latency(there)
    found.penalty_ms.backward()
    latency(here).penalty_ms.backward()
    assert found.terms_ms.is_cuda
    assert torch.equal(there.gamma.grad.cpu(), here.gamma.grad)


# --- drawn widths ---


def test_drawn_widths_have_the_exact_value_as_their_mean(tables) -> None:
    space = small_space()
    relaxed = random_relaxed(space, 14)
    exact = DecoupledLatency(space, tables(space))(relaxed)
    drawing = DecoupledLatency(space, tables(space), sampling="gumbel", seed=1)
    draws = [drawing(relaxed) for _ in range(1500)]
    values = np.array([draw.expected_ms.item() for draw in draws])
    error = values.std() / np.sqrt(len(values))
    assert error > 0
    assert abs(values.mean() - exact.expected_ms.item()) < 4 * error
    thirds = np.array([draw.terms_ms[2].item() for draw in draws])
    assert abs(thirds.mean() - exact.terms_ms[2].item()) < 4 * thirds.std() / np.sqrt(len(thirds))
    assert draws[0].terms_ms[:2].tolist() == exact.terms_ms[:2].tolist()


def test_drawn_widths_have_the_gradient_of_their_soft_ones(tables) -> None:
    """Straight-through: PyTorch's own gumbel_softmax(hard=True) under the same noise."""
    space = small_space(4)
    latency = DecoupledLatency(space, tables(space), sampling="gumbel", seed=3)
    relaxed = random_relaxed(space, 15)
    found = latency(relaxed)
    found.terms_ms[2].backward()
    uniform = torch.rand(
        relaxed.gamma.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double
    )
    logits = relaxed.gamma.detach().clone().requires_grad_()
    soft = (logits - (-uniform.log()).log()).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), 2).double()
    drawn = hard - soft.detach() + soft
    brute = Brute(space, invented_ms, space.widths, 8)
    p = fixed_factors(relaxed, "gamma")
    assert found.terms_ms[2].item() == pytest.approx(
        brute.expected_ms(p._replace(gamma=drawn.detach())), rel=1e-9
    )
    slopes = torch.zeros_like(hard)  # multilinear in each entry of gamma: a unit step is exact
    for place in np.ndindex(*hard.shape):
        step = torch.zeros_like(hard)
        step[place] = 1
        ends = [brute.expected_ms(p._replace(gamma=hard + sign * step)) for sign in (1, -1)]
        slopes[place] = (ends[0] - ends[1]) / 2
    (drawn * slopes).sum().backward()
    assert torch.allclose(relaxed.gamma.grad, logits.grad, rtol=1e-8, atol=1e-10)


def test_drawing_goes_on_where_a_checkpoint_was_made(tables) -> None:
    space = small_space()
    relaxed = random_relaxed(space, 16)
    first = DecoupledLatency(space, tables(space), sampling="gumbel", seed=5)
    first(relaxed)
    second = DecoupledLatency(space, tables(space), sampling="gumbel", seed=9)
    second.load_state_dict(first.state_dict())
    assert [first(relaxed).expected_ms.item() for _ in range(5)] == [
        second(relaxed).expected_ms.item() for _ in range(5)
    ]
