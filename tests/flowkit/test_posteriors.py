"""Amortized layers against a loop, the gated step, and posteriors that integrate to one."""

import pytest
import torch
from torch.distributions import Normal

from flowkit import Compose, Inverse
from flowkit.autoregressive import IAF
from flowkit.planar import Planar, Sylvester
from flowkit.posteriors import Amortized, Posterior, gated, iaf_flow, planar_flow


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module, seed=0, std=0.5):
    """The module in float64, its parameters moved away from where they start."""
    module = module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


FLOWS = {
    "gaussian": (lambda dim: None, 0),
    "planar": (lambda dim: planar_flow(dim, 3), 0),
    "amortized planar": (lambda dim: planar_flow(dim, 3, context_dim=2), 2),
    "iaf": (lambda dim: iaf_flow(dim, 2, (8,), context_dim=2), 2),
    "two kinds": (lambda dim: Compose(iaf_flow(dim, 1, (8,)), planar_flow(dim, 1, context_dim=2)), 2),
}


def posterior(name, dim=2, inputs=3):
    torch.manual_seed(0)
    make, context_dim = FLOWS[name]
    return drawn(Posterior(torch.nn.Linear(inputs, 2 * dim + context_dim), dim, make(dim), context_dim))


def test_the_gated_step_is_its_formula():
    x, params = randn(5, 3), randn(5, 3, 2, seed=1)
    m, sigma = params[..., 0], params[..., 1].sigmoid()
    z, log_slope = gated().forward(x, params)
    close(z, sigma * x + (1 - sigma) * m)
    close(log_slope, sigma.log())
    back, log_slope_back = gated().inverse(z, params)
    close(back, x)
    close(log_slope_back, -sigma.log())


@pytest.mark.parametrize("s", [-1e4, -80.0, 80.0, 1e4])
def test_the_gated_step_is_finite_where_the_gate_shuts_and_opens(s):
    x, params = torch.ones(1, requires_grad=True), torch.tensor([[3.0, s]], requires_grad=True)
    z, log_slope = gated().forward(x, params)
    (z + log_slope).sum().backward()
    assert z.item() == (3.0 if s < 0 else 1.0)
    assert log_slope.item() == pytest.approx(min(s, 0), abs=1e-6)
    assert x.grad.isfinite().all()
    assert params.grad.isfinite().all()


def test_kingmas_chain():
    """z' = sigma z + (1 - sigma) m, l -= sum log sigma, step by step, as the paper has it."""
    flow, noise, h = drawn(iaf_flow(3, 3, (16,), context_dim=2)), randn(7, 3), randn(7, 2, seed=1)
    z, log_q = noise, Normal(0.0, 1.0).log_prob(noise).sum(-1)
    for step in reversed(flow.bijections):
        m, s = step.bijection.conditioner(z, h).unbind(-1)
        sigma = s.sigmoid()
        z, log_q = sigma * z + (1 - sigma) * m, log_q - sigma.log().sum(-1)
    got, log_det = flow.inverse(noise, h)
    close(got, z)
    close(Normal(0.0, 1.0).log_prob(noise).sum(-1) - log_det, log_q)
    assert all(isinstance(step, IAF) for step in flow.bijections)
    assert len({tuple(step.bijection.conditioner.order.tolist()) for step in flow.bijections}) == 2


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("make", [lambda: Planar(3), lambda: Sylvester(3, 2), lambda: Inverse(Planar(3))])
def test_amortized_is_a_layer_of_its_own_for_each_point(make, way):
    torch.manual_seed(0)
    f = drawn(Amortized(make(), context_dim=2))
    x, context = randn(4, 3), randn(4, 2, seed=1)
    z, log_det = getattr(f, way)(x, context)
    change = f.conditioner(context)
    for k in range(4):
        own, at = make().double(), 0
        with torch.no_grad():
            for parameter, base in zip(own.parameters(), f.layer.parameters(), strict=True):
                part = change[k, at : at + base.numel()].reshape(base.shape)
                parameter.copy_(base + part)
                at += base.numel()
        assert at == change.shape[1]
        one, log_det_one = getattr(own, way)(x[k])
        close(z[k], one)
        close(log_det[k], log_det_one)


def test_amortized_starts_as_its_layer_and_takes_one_context_for_all():
    f = Amortized(Planar(3), context_dim=2).double()
    x = randn(2, 5, 3)
    close(f.forward(x, randn(2))[0], f.layer.forward(x)[0])
    f = drawn(f)
    context = randn(5, 2, seed=1)
    close(f.forward(x, context)[1], f.forward(x, context.expand(2, 5, 2))[1])
    f.forward(x, context)[1].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in f.parameters())


@pytest.mark.parametrize("context", [None, torch.zeros(4, 3), torch.tensor(0.0)])
def test_amortized_wants_its_context(context):
    with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 2\)"):
        Amortized(Planar(3), 2).forward(torch.zeros(4, 3), context)


@pytest.mark.parametrize("name", FLOWS)
def test_the_density_of_draws_is_the_density_at_those_points(name):
    q, x = posterior(name), randn(5, 3)
    z, log_q = q.rsample_with_log_prob(x, draws=6)
    assert z.shape == (6, 5, 2)
    assert log_q.shape == (6, 5)
    close(q.log_prob(z, x), log_q, 1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_a_posterior_integrates_to_one_and_draws_follow_it(name):
    q, x = posterior(name, dim=1), randn(3)
    with torch.no_grad():
        z = torch.linspace(-60, 60, 40_001, dtype=torch.float64)[:, None]
        density = q.log_prob(z, x).exp() * 120 / 40_000
        draws = q.rsample_with_log_prob(x, 40_000)[0]
    assert density.sum().item() == pytest.approx(1, abs=1e-4)
    mean = (density * z[:, 0]).sum()
    variance = (density * (z[:, 0] - mean).square()).sum()
    assert abs(draws.mean() - mean) < 5 * (variance / 40_000).sqrt()
    assert draws.var().item() == pytest.approx(variance.item(), rel=0.1)


@pytest.mark.parametrize("name", ["planar", "amortized planar", "iaf"])
def test_log_q_falls_by_the_autograd_log_det_of_the_whole_chain(name):
    q, x = posterior(name), randn(3)
    context = q.encode(x)[2]
    noise = randn(2, seed=3)

    def chain(z):
        return q.flow.inverse(z, context)[0]

    want = torch.linalg.slogdet(torch.autograd.functional.jacobian(chain, noise)).logabsdet
    close(q.flow.inverse(noise, context)[1], want, 1e-10)


def test_gradients_reach_the_encoder_and_the_flow():
    for name in FLOWS:
        q = posterior(name)
        z, log_q = q.rsample_with_log_prob(randn(4, 3))
        (log_q + z.square().sum(-1)).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in q.parameters())
        assert q.encoder.weight.grad.abs().sum(1).min() > 0


def test_extreme_encoders_give_finite_draws():
    q = Posterior(torch.nn.Linear(3, 4), 2)
    with torch.no_grad():
        q.encoder.bias.copy_(torch.tensor([0.0, 0.0, 1e6, -1e6]))
    z, log_q = q.rsample_with_log_prob(torch.zeros(5, 3))
    assert z.isfinite().all()
    assert log_q.isfinite().all()


def test_an_encoder_of_another_width_is_named():
    with pytest.raises(ValueError, match=r"returned 5 numbers .* \[2, 2, 0\] need 4"):
        Posterior(torch.nn.Linear(3, 5), 2).encode(torch.zeros(3))
