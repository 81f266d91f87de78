"""Samplers against known moments, Fokker-Planck and probability flow against closed forms."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from flowkit import Flow, StandardNormal
from flowkit.adaptive_ode import adaptive
from flowkit.continuous import CNF
from flowkit.stochastic import (
    DiffusedMixture,
    ProbabilityFlow,
    fokker_planck,
    fokker_planck_matrix,
    langevin,
    langevin_variance,
    mala,
    metropolis,
    value_and_gradient,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(x):
    return -x.square().sum(-1) / 2


def double_well(x):
    """-U of U = (x^2 - 1)^2: two modes; its moments are integrals on a grid."""
    return -(x.square() - 1).square().sum(-1)


LINE = torch.linspace(-4, 4, 4001, dtype=torch.float64)
WELL_MOMENT = float((LINE**2 * double_well(LINE[:, None]).softmax(0)).sum())


@pytest.mark.parametrize(("step", "variance"), [(0.05, 1.0), (0.8, 1.0), (1.0, 4.0)])
def test_langevin_reaches_the_biased_variance_of_its_formula(step, variance):
    x = math.sqrt(variance) * torch.randn(4000, 1, generator=seeded(), dtype=torch.float64)
    points = langevin(lambda x: -x / variance, x, step, 300, seeded(1))
    got = points[200::4].var()
    assert points.shape == (300, 4000, 1)
    close(got, tensor(langevin_variance(step, variance))[0], 0.02)
    if step / variance > 0.1:
        assert got > 1.1 * variance


def test_langevin_variance_is_a_fixed_point_and_ends_at_two():
    for step in (1e-6, 0.5, 1.9):
        v = langevin_variance(step, 1.0)
        assert v == pytest.approx((1 - step) ** 2 * v + 2 * step)
    assert langevin_variance(1e-3, 4.0) == pytest.approx(4 * (1 + 1e-3 / 8), rel=1e-7)
    for step in (0.0, 2.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 2 variance = 2"):
            langevin_variance(step)


def test_one_langevin_step_by_hand_and_seeds():
    x = tensor(1.0, 2.0)
    noise = torch.randn(2, generator=seeded(3), dtype=torch.float64)
    got = langevin(lambda x: -3 * x, x, 0.01, 1, seeded(3))
    close(got[0], x - 0.03 * x + math.sqrt(0.02) * noise)
    close(langevin(lambda x: -x, x, 0.1, 5, seeded(1)), langevin(lambda x: -x, x, 0.1, 5, seeded(1)))


def test_langevin_keeps_no_graph_of_a_trained_score():
    score = torch.nn.Linear(2, 2)
    assert not langevin(score, torch.ones(4, 2), 0.1, 3, seeded()).requires_grad


def test_langevin_runs_away_beyond_two_and_mala_does_not():
    x = torch.zeros(10, 1, dtype=torch.float64)
    assert langevin(lambda x: -x, x, 2.5, 200, seeded())[-1].abs().max() > 1e10
    chain = mala(normal, x, 2.5, 2000, seeded())
    close(chain.points[200:].var(), torch.ones(()).double(), 0.1)


@pytest.mark.parametrize("step", [0.05, 0.3])
def test_mala_has_no_bias_where_langevin_has(step):
    x = torch.ones(2000, 1, dtype=torch.float64)
    chain = mala(double_well, x, step, 400, seeded())
    moment = float(chain.points[200:].square().mean())
    assert moment == pytest.approx(WELL_MOMENT, abs=0.015)
    if step == 0.05:
        biased = langevin(lambda x: value_and_gradient(double_well, x)[1], x, step, 400, seeded())
        assert abs(float(biased[200:].square().mean()) - WELL_MOMENT) > 0.03
    assert chain.acceptance.shape == (2000,)


def test_mala_accepts_less_at_larger_steps():
    x = torch.randn(500, 4, generator=seeded(), dtype=torch.float64)
    rates = [float(mala(normal, x, step, 50, seeded(1)).acceptance.mean()) for step in (0.01, 0.3, 1.0, 1.9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.99
    assert rates[-1] < 0.6


def test_metropolis_keeps_and_takes_as_the_ratio_says():
    x, y = torch.zeros(20_000, 2), torch.ones(20_000, 2)
    log_ratio = torch.full((20_000,), math.log(0.3))
    new, accepted = metropolis(x, y, log_ratio, seeded())
    assert float(accepted.float().mean()) == pytest.approx(0.3, abs=0.015)
    assert torch.equal(new[:, 0], accepted.float())
    for ratio, all_or_none in ((0.0, True), (math.inf, True), (-math.inf, False), (math.nan, False)):
        assert (metropolis(x, y, torch.full((20_000,), ratio), seeded())[1] == all_or_none).all()


def test_value_and_gradient_of_each_point_even_without_grad():
    x = torch.randn(3, 4, 2, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        value, gradient = value_and_gradient(double_well, x)
    close(gradient, -4 * x * (x.square() - 1))
    close(value, double_well(x))
    assert not value.requires_grad


def cells(n, reach=6.0):
    width = 2 * reach / n
    return width * (torch.arange(n, dtype=torch.float64) + 0.5) - reach, width


@pytest.mark.parametrize("potential", [lambda x: x**2 / 2, lambda x: (x**2 - 1) ** 2 / 4, torch.zeros_like])
def test_fokker_planck_keeps_mass_and_sign_and_reaches_exp_minus_potential(potential):
    x, width = cells(120)
    matrix = fokker_planck_matrix(potential(x), width)
    close(matrix.sum(0), torch.zeros(120).double(), 1e-10)
    want = (-potential(x)).softmax(0) / width
    close(matrix @ want, torch.zeros(120).double(), 1e-8)
    start = torch.zeros(2, 120, dtype=torch.float64)
    start[0, 3] = start[1, 80] = 1 / width
    for time in (0.01, 0.5, 200.0):
        density = fokker_planck(start, matrix, time)
        close(density.sum(-1) * width, tensor(1.0, 1.0), 1e-9)
        assert (density > -1e-10).all()
    close(density, want.expand(2, 120), 1e-5)


def test_fokker_planck_carries_a_gaussian_as_ornstein_and_uhlenbeck_say():
    error = []
    for n in (60, 120):
        x, width = cells(n)
        start = Normal(tensor(1.5), 0.7).log_prob(x).exp()
        density = fokker_planck(start, fokker_planck_matrix(x**2 / 2, width), 0.4)
        variance = math.exp(-0.8) * 0.49 + 1 - math.exp(-0.8)
        want = Normal(tensor(1.5) * math.exp(-0.4), math.sqrt(variance)).log_prob(x).exp()
        error.append(float((density - want).abs().max()))
    assert error[1] < 1e-3
    assert 1.8 < math.log2(error[0] / error[1]) < 2.2


def test_fokker_planck_says_where_langevin_goes():
    x, width = cells(200, 3.0)
    start = torch.zeros(200, dtype=torch.float64)
    start[(x - 1).abs().argmin()] = 1 / width
    want = fokker_planck(start, fokker_planck_matrix((x**2 - 1) ** 2, width), 0.3)
    points = langevin(
        lambda x: -4 * x * (x**2 - 1), torch.ones(20_000, 1, dtype=torch.float64), 0.003, 100, seeded()
    )
    left = float((points[-1] < 0).double().mean())
    assert left == pytest.approx(float(want[x < 0].sum() * width), abs=0.015)
    assert left > 0.02


MIXTURE = DiffusedMixture(
    tensor(0.3, 0.7), torch.tensor([[2.0, -1.0], [-1.0, 0.5]], dtype=torch.float64), tensor(0.5, 0.8)
)


def marginal(t):
    """The mixture at t, by torch.distributions."""
    shrink = math.exp(-t)
    variance = shrink**2 * MIXTURE.stds**2 + 1 - shrink**2
    parts = Independent(Normal(shrink * MIXTURE.means, variance.sqrt()[:, None].expand(2, 2)), 1)
    return MixtureSameFamily(Categorical(MIXTURE.weights), parts)


@pytest.mark.parametrize("t", [0.0, 0.4, 3.0])
def test_the_diffused_mixture_is_the_mixture_of_its_closed_form(t):
    x = 2 * torch.randn(3, 4, 2, generator=seeded(), dtype=torch.float64)
    close(MIXTURE.log_prob(x, t), marginal(t).log_prob(x))
    close(MIXTURE.score(t, x), value_and_gradient(marginal(t).log_prob, x)[1])
    points = MIXTURE.sample(50_000, t, seeded())
    close(points.mean(0), marginal(t).mean, 0.03)
    close(points.var(0), marginal(t).variance, 0.05)


def test_the_diffused_mixture_is_where_the_diffusion_goes():
    points, h = MIXTURE.sample(20_000, 0.0, seeded()), 0.01
    moved = langevin(lambda x: -x, points, h, 40, seeded(1))[-1]
    close(moved.mean(0), marginal(0.4).mean, 0.04)
    close(moved.var(0), marginal(0.4).variance, 0.05)


def test_probability_flow_gives_the_log_density_of_the_mixture():
    time = 3.0
    flow = CNF(ProbabilityFlow(MIXTURE.score), partial(adaptive, rtol=1e-9, atol=1e-9), time=time)
    x = 2 * torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    z, log_det = flow.forward(x)
    close(MIXTURE.log_prob(z, time) + log_det, marginal(0.0).log_prob(x), 1e-6)
    close(flow.inverse(z)[0], x, 1e-5)


def test_a_gaussian_flows_in_a_straight_scaling():
    one = DiffusedMixture(tensor(1.0), torch.tensor([[1.0]]).double(), tensor(0.5))
    flow = CNF(ProbabilityFlow(one.score), partial(adaptive, rtol=1e-10, atol=1e-10), time=1.2)
    x, shrink = torch.linspace(-1, 3, 9, dtype=torch.float64)[:, None], math.exp(-1.2)
    scale = math.sqrt(shrink**2 * 0.25 + 1 - shrink**2) / 0.5
    z, log_det = flow.forward(x)
    close(z, shrink + scale * (x - 1), 1e-8)
    close(log_det, torch.full((9,), math.log(scale), dtype=torch.float64), 1e-8)


def test_run_long_enough_it_normalizes_and_samples():
    flow = Flow(StandardNormal(2).double(), CNF(ProbabilityFlow(MIXTURE.score), time=8.0))
    x = MIXTURE.sample(500, 0.0, seeded())
    close(flow.log_prob(x), marginal(0.0).log_prob(x), 3e-3)
    torch.manual_seed(0)
    close(flow.sample((4000,)).mean(0), marginal(0.0).mean, 0.1)
