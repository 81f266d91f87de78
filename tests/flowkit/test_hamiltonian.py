"""Leapfrog: volume, time reversal, energy; HMC against known moments and acceptance; the flow."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.func import jacrev

from flowkit.hamiltonian import HamiltonianFlow, energy, gaussian_energy_error, hmc, leapfrog
from flowkit.lab.nets import mlp
from flowkit.stochastic import value_and_gradient


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def normal(x):
    return -x.square().sum(-1) / 2


def banana(x):
    """x1 ~ N(0, 1), x2 given x1 ~ N(x1^2 / 2, 1): mean (0, 1/2), variances 1 and 3/2."""
    return -x[..., 0].square() / 2 - (x[..., 1] - x[..., 0].square() / 2).square() / 2


def banana_force(q):
    bend = q[..., 1] - q[..., 0].square() / 2
    return torch.stack((q[..., 0] * (bend - 1), -bend), -1)


def test_one_step_by_hand():
    q, p = leapfrog(banana_force, randn(5, 2), randn(5, 2, seed=1), 0.2, 1)
    half = randn(5, 2, seed=1) + 0.1 * banana_force(randn(5, 2))
    close(q, randn(5, 2) + 0.2 * half)
    close(p, half + 0.1 * banana_force(q))


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_many_steps_are_single_ones_in_a_row(steps):
    q, p = randn(5, 2), randn(5, 2, seed=1)
    want = (q, p)
    for _ in range(steps):
        want = leapfrog(banana_force, *want, 0.1, 1)
    close(leapfrog(banana_force, q, p, 0.1, steps), want)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        leapfrog(banana_force, q, p, 0.1, 0)


def test_leapfrog_keeps_volume_and_runs_back():
    q, p = randn(2), randn(2, seed=1)

    def step(x):
        return torch.cat(leapfrog(banana_force, *x.chunk(2), 0.25, 6))

    jacobian = jacrev(step)(torch.cat((q, p)))
    close(torch.linalg.det(jacobian), torch.ones(()).double(), 1e-10)
    assert (jacobian - torch.eye(4)).abs().max() > 1
    there = leapfrog(banana_force, q, p, 0.25, 6)
    close(leapfrog(banana_force, *there, -0.25, 6), (q, p), 1e-10)
    close(leapfrog(banana_force, there[0], -there[1], 0.25, 6), (q, -p), 1e-10)


def test_the_energy_error_is_second_order_and_does_not_drift():
    q, p = randn(50, 2), randn(50, 2, seed=1)
    start, errors = energy(banana, q, p), []
    for steps in (100, 200, 400):
        end = leapfrog(banana_force, q, p, 2 / steps, steps)
        errors.append((energy(banana, *end) - start).abs().max())
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5
    q, p = randn(50, 2), randn(50, 2, seed=1)
    long = leapfrog(lambda q: -q, q, p, 0.1, 10_000)
    assert ((energy(normal, *long) / energy(normal, q, p)) - 1).abs().max() < 0.01


def test_leapfrog_is_unstable_beyond_two():
    q, p = torch.ones(1), torch.zeros(1)
    assert leapfrog(lambda q: -q, q, p, 1.99, 500)[0].abs() < 100
    assert leapfrog(lambda q: -q, q, p, 2.05, 50)[0].abs() > 1e6
    for step in (0.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 2"):
            gaussian_energy_error(step, 3)


@pytest.mark.parametrize(("step", "steps"), [(0.5, 1), (0.5, 4), (1.2, 3)])
def test_the_mean_energy_error_of_a_gaussian(step, steps):
    q, p = randn(400_000, 1), randn(400_000, 1, seed=1)
    error = energy(normal, *leapfrog(lambda q: -q, q, p, step, steps)) - energy(normal, q, p)
    want = gaussian_energy_error(step, steps)
    assert abs(float(error.mean()) - want) < 4 * float(error.std()) / math.sqrt(400_000)
    close(error.neg().exp().mean(), torch.ones(()).double(), 0.02)  # E exp(-dH) = 1: volume is kept


@pytest.mark.parametrize("step", [0.1, 0.25, 0.4])
def test_acceptance_against_step_size_is_as_the_closed_form_says(step):
    dim, leaps = 200, 5
    chain = hmc(normal, randn(300, dim), step, leaps, 10, seeded(1))
    mu = dim * gaussian_energy_error(step, leaps)
    want = 2 * Normal(0.0, 1.0).cdf(-torch.tensor(mu / 2).sqrt())
    assert float(chain.acceptance.mean()) == pytest.approx(float(want), abs=0.03)


def test_hmc_has_the_moments_of_its_target():
    chain = hmc(banana, torch.zeros(1000, 2, dtype=torch.float64), 0.25, 8, 150, seeded())
    points = chain.points[30:].flatten(0, 1)
    close(points.mean(0), torch.tensor([0.0, 0.5], dtype=torch.float64), 0.02)
    close(points.var(0), torch.tensor([1.0, 1.5], dtype=torch.float64), 0.04)
    assert chain.points.shape == (150, 1000, 2)
    assert chain.acceptance.shape == (1000,)


def test_refusals_undo_the_bias_of_large_steps():
    """Leapfrog alone keeps an ellipse of the wrong width, at h = 1.6 a variance of 1 / (1 - h^2 / 4)."""
    chain = hmc(normal, randn(2000, 1), 1.6, 2, 150, seeded(1))
    assert float(chain.points[50:].var()) == pytest.approx(1, abs=0.04)
    assert 0.5 < float(chain.acceptance.mean()) < 0.95


def test_the_force_of_a_potential_is_minus_its_gradient():
    torch.manual_seed(0)
    flow = HamiltonianFlow(4, mlp(2, 1, (8,), torch.nn.Tanh, zero_last=False).double())
    q = randn(3, 5, 2)
    close(flow.force(q), value_and_gradient(lambda q: -flow.potential(q)[..., 0], q)[1])
    scalar = HamiltonianFlow(4, Quadratic())
    close(scalar.force(q), -q)


class Quadratic(torch.nn.Module):
    """U = |q|^2 / 2, of shape (...)."""

    def forward(self, q):
        return q.square().sum(-1) / 2


def test_the_flow_of_a_quadratic_potential_turns_phase_space():
    flow, x = HamiltonianFlow(2, Quadratic(), step=0.001, steps=1000), randn(6, 2)
    z, log_det = flow.forward(x)
    turn = torch.tensor([[math.cos(1), math.sin(1)], [-math.sin(1), math.cos(1)]], dtype=torch.float64)
    close(z, x @ turn.mT, 1e-6)
    assert torch.equal(log_det, torch.zeros(6).double())


def test_wrong_shapes_are_named():
    for dim in (0, 3):
        with pytest.raises(ValueError, match=f"must be even, got {dim}"):
            HamiltonianFlow(dim, Quadratic())
    with pytest.raises(ValueError, match="at least one step, got 0"):
        HamiltonianFlow(2, Quadratic(), steps=0)
    with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 4\), got \(5, 2\)"):
        HamiltonianFlow(4, Quadratic()).forward(torch.zeros(5, 2))
