"""The game of a GAN and the KL term of a VAE, from the ratio: against closed forms and quadrature."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from flowkit.density_ratio import ClassifierRatio, fit_ratio
from flowkit.discriminators import (
    adversarial_kl,
    aggregate_posterior_log_prob,
    discriminator_value,
    elbo_surgery,
    non_saturating_loss,
    optimal_discriminator,
    saturating_loss,
)

LINE = torch.linspace(-15, 15, 6001, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantiles(count=200_000):
    """Points that stand for N(0, 1): means over them are integrals, to about 1e-4."""
    return Normal(0.0, 1.0).icdf((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def integral(values):
    return torch.trapezoid(values, LINE)


def js(p, q):
    a, b = p.log_prob(LINE), q.log_prob(LINE)
    middle = torch.logaddexp(a, b) - math.log(2)
    return integral(a.exp() * (a - middle) + b.exp() * (b - middle)) / 2


def generator(shift):
    """q = N(shift, 1), a density whose shift is to be learned."""
    return Normal(shift, torch.ones((), dtype=torch.float64))


P = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def best_logit(x, shift):
    return P.log_prob(x) - generator(shift).log_prob(x)


def test_the_optimal_discriminator_and_its_value_are_the_js_divergence():
    shift = torch.tensor(1.3, dtype=torch.float64)
    q = generator(shift)
    log_p, log_q = P.log_prob(LINE), q.log_prob(LINE)
    D = optimal_discriminator(log_p, log_q)
    torch.testing.assert_close(D, log_p.exp() / (log_p.exp() + log_q.exp()))
    value = integral(log_p.exp() * D.log() + log_q.exp() * (1 - D).log())
    torch.testing.assert_close(value, 2 * js(P, q) - 2 * math.log(2))
    z = quantiles()
    sampled = discriminator_value(best_logit(z, shift), best_logit(z + shift, shift))
    torch.testing.assert_close(sampled, value, rtol=0, atol=1e-4)
    for wrong in (0.3, -0.3):  # no other logit does better
        assert (
            discriminator_value(best_logit(z, shift) + wrong, best_logit(z + shift, shift) + wrong) < sampled
        )


@pytest.mark.parametrize("logit", [-60.0, -2.0, 0.0, 0.7, 60.0])
def test_the_slopes_of_the_two_losses(logit):
    T = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    (saturating,) = torch.autograd.grad(saturating_loss(T), T)
    (other,) = torch.autograd.grad(non_saturating_loss(T), T)
    torch.testing.assert_close(saturating, -torch.sigmoid(T.detach()))
    torch.testing.assert_close(other, -torch.sigmoid(-T.detach()))
    if logit == -60.0:  # sure fakes: one loss is silent, the other is not
        assert saturating.abs() < 1e-25
        assert other < -0.999


@pytest.mark.parametrize("shift", [0.4, -1.5, 3.0])
def test_the_generator_descends_the_divergences_that_the_docstrings_name(shift):
    """The gradient through samples z + shift at a fixed best discriminator, against that of the integrals."""
    start = torch.tensor(shift, dtype=torch.float64)
    moving = start.clone().requires_grad_()
    logit = best_logit(quantiles() + moving, start)
    losses = saturating_loss(logit), non_saturating_loss(logit)
    got = [torch.autograd.grad(loss, moving, retain_graph=True)[0] for loss in losses]
    variable = start.clone().requires_grad_()
    q = generator(variable)
    divergence = js(P, q)
    want = 2 * divergence, kl_divergence(q, P) - 2 * divergence
    for one, other in zip(got, want, strict=True):
        (slope,) = torch.autograd.grad(other, variable, retain_graph=True)
        torch.testing.assert_close(one, slope, rtol=1e-3, atol=1e-4)
        assert slope * start > 0  # both pull the generator to the data


def test_far_from_the_data_only_one_loss_has_a_gradient():
    moving = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
    logit = best_logit(quantiles() + moving, moving.detach())
    saturating, other = (
        torch.autograd.grad(loss(logit), moving, retain_graph=True)[0]
        for loss in (saturating_loss, non_saturating_loss)
    )
    assert saturating.abs() < 1e-6
    assert other == pytest.approx(12, rel=1e-3)  # KL(q, P) has slope 12, and JS none


@pytest.mark.parametrize(("mean", "std"), [(0.7, 0.5), (-1.0, 1.8)])
def test_the_adversarial_kl_has_the_value_and_the_gradient_of_the_kl(mean, std):
    """With the best discriminator held fixed, the gradient through the samples is the whole gradient."""
    parameters = torch.tensor([mean, std], dtype=torch.float64, requires_grad=True)
    z = parameters[0] + parameters[1] * quantiles()
    q = Normal(*parameters.detach())
    term = adversarial_kl(q.log_prob(z) - P.log_prob(z))
    want = kl_divergence(Normal(*parameters), P)
    torch.testing.assert_close(term, want, rtol=0, atol=2e-3)
    got, slope = (torch.autograd.grad(value, parameters)[0] for value in (term, want))
    torch.testing.assert_close(got, slope, rtol=1e-3, atol=1e-3)


def test_the_aggregate_posterior_is_a_mixture():
    mean, std, z = randn(5, 2), randn(5, 2, seed=1).exp(), randn(3, 4, 2, seed=2)
    parts = Normal(mean, std).log_prob(z[..., None, :]).sum(-1).exp()
    torch.testing.assert_close(aggregate_posterior_log_prob(z, mean, std), parts.mean(-1).log())
    one = aggregate_posterior_log_prob(LINE[:, None], mean[:, :1], std[:, :1])
    assert integral(one.exp()) == pytest.approx(1, abs=1e-6)
    assert aggregate_posterior_log_prob(torch.full((2,), 1e3).double(), mean, std).isfinite()


def aggregate_kl(mean, std):
    """KL(q(z), N(0, 1)) in one dimension, by quadrature."""
    log_q = aggregate_posterior_log_prob(LINE[:, None], mean, std)
    return integral(log_q.exp() * (log_q - P.log_prob(LINE)))


def test_the_surgery_of_the_kl_term():
    mean, std = 1.5 * randn(6, 1), 0.3 + randn(6, 1, seed=1).abs() / 2
    parts = elbo_surgery(mean, std, samples=4000)
    torch.testing.assert_close(parts.rate, kl_divergence(Normal(mean, std), P).sum(-1).mean())
    assert parts.marginal.item() == pytest.approx(aggregate_kl(mean, std).item(), abs=0.02)
    assert 0 < parts.information < math.log(6)
    torch.testing.assert_close(parts.information + parts.marginal, parts.rate)
    apart = elbo_surgery(20 * torch.arange(4.0)[:, None], torch.ones(4, 1))
    assert apart.information.item() == pytest.approx(math.log(4), abs=1e-5)


def test_a_discriminator_learns_the_kl_of_an_aggregate_posterior():
    """Three posteriors against the prior: the classifier sees samples alone, quadrature knows the mixture."""
    torch.manual_seed(0)
    mean, std = torch.tensor([[-1.2], [0.2], [1.3]]).double(), torch.tensor([[0.5], [0.6], [0.4]]).double()
    rows = torch.randint(3, (20_000,), generator=torch.Generator().manual_seed(2))
    z, prior = mean[rows] + std[rows] * randn(20_000, 1), randn(20_000, 1, seed=1)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    ratio = ClassifierRatio(net.double())
    fit_ratio(ratio, z[:10_000], prior[:10_000], steps=800, batch=512)
    truth = aggregate_kl(mean, std).item()
    assert 0.05 < truth < 0.5
    with torch.no_grad():
        assert adversarial_kl(ratio(z[10_000:])).item() == pytest.approx(truth, abs=0.04)
