"""The bound's terms against torch's KL, quadrature, and a linear Gaussian model with known evidence."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from flowkit.elbo import LinearGaussian, free_bits, gaussian_kl, gaussian_kl_terms, importance_bound


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def model(dim=4, latents=1, scale=0.7):
    return LinearGaussian(randn(dim, latents), randn(dim, seed=1), scale)


@pytest.mark.parametrize("shape", [(3,), (5, 1), (2, 5, 7)])
def test_the_kl_of_gaussians_is_torchs(shape):
    mean, log_scale = randn(*shape), randn(*shape, seed=1)
    zero = torch.zeros_like(mean)
    want = kl_divergence(Normal(mean, log_scale.exp()), Normal(zero, zero + 1))
    close(gaussian_kl_terms(mean, log_scale), want)
    close(gaussian_kl(mean, log_scale), want.sum(-1))


def test_the_kl_keeps_its_digits_near_zero():
    log_scale = torch.tensor([1e-4])
    assert gaussian_kl(torch.zeros(1), log_scale).item() == pytest.approx(1e-8, rel=1e-3)
    assert ((log_scale.exp().square() - 1) / 2 - log_scale).item() != pytest.approx(1e-8, rel=0.1)


@pytest.mark.parametrize("latents", [1, 2, 4])
def test_the_evidence_is_that_of_the_dense_gaussian(latents):
    m = model(latents=latents)
    x = randn(3, 2, 4, seed=2)
    covariance = m.weight @ m.weight.T + m.scale**2 * torch.eye(4).double()
    close(m.log_evidence(x), MultivariateNormal(m.bias, covariance).log_prob(x), 1e-10)


@pytest.mark.parametrize("latents", [1, 3])
def test_bayes_rule(latents):
    m = model(latents=latents)
    x, z = m.sample(6, seed=3), randn(6, latents, seed=4)
    mean, covariance = m.posterior(x)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_posterior = MultivariateNormal(mean, covariance).log_prob(z)
    close(m.log_likelihood(x, z) + log_prior - log_posterior, m.log_evidence(x), 1e-10)


def test_the_evidence_by_quadrature():
    m, x = model(), randn(4, seed=5)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    joint = m.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z)[:, 0]
    assert torch.logsumexp(joint + math.log(24 / 20_000), 0).item() == pytest.approx(m.log_evidence(x).item())


def test_evidence_is_likelihood_minus_kl_plus_gap():
    m = model(latents=2)
    x, mean, log_scale = m.sample(5), randn(5, 2, seed=6), 0.3 * randn(5, 2, seed=7)
    elbo = m.expected_log_likelihood(x, mean, log_scale.exp()) - gaussian_kl(mean, log_scale)
    at, covariance = m.posterior(x)
    q = MultivariateNormal(mean, torch.diag_embed((2 * log_scale).exp()))
    gap = kl_divergence(q, MultivariateNormal(at, covariance))
    assert (gap > 0.01).all()
    close(elbo + gap, m.log_evidence(x), 1e-10)


def test_the_expected_likelihood_is_the_mean_over_draws():
    m = model(latents=2)
    x, mean, scale = randn(4, seed=1), randn(2, seed=2), randn(2, seed=3).abs()
    draws = m.log_likelihood(x, mean + scale * randn(200_000, 2, seed=4))
    error = (draws.mean() - m.expected_log_likelihood(x, mean, scale)).abs()
    assert error < 5 * draws.std() / 200_000**0.5


def test_samples_have_the_evidences_moments():
    m = model(latents=2)
    x = m.sample(100_000)
    covariance = m.weight @ m.weight.T + m.scale**2 * torch.eye(4).double()
    torch.testing.assert_close(x.mean(0), m.bias, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0.03, atol=0.03)
    assert torch.equal(m.sample(3, seed=1), m.sample(3, seed=1))


def log_weights(draws, repeats, mean, scale):
    """Weights of the one-latent model at one x, for a proposal that is not the posterior: (K, repeats)."""
    m, x = model(), randn(4, seed=8)
    z = mean + scale * randn(draws, repeats, seed=9)
    proposal = Normal(*torch.tensor([mean, scale], dtype=torch.float64))
    log_joint = m.log_likelihood(x, z[..., None]) + Normal(0.0, 1.0).log_prob(z)
    return log_joint - proposal.log_prob(z), m.log_evidence(x)


def test_the_importance_bound_rises_to_the_evidence():
    weights, evidence = log_weights(256, 2000, mean=0.0, scale=1.0)
    bounds = [importance_bound(weights[:k]).mean().item() for k in (1, 4, 16, 64, 256)]
    assert all(a < b for a, b in pairwise(bounds))
    gaps = [evidence.item() - bound for bound in bounds]
    assert gaps[0] > 1
    assert abs(gaps[-1]) < 0.02
    assert gaps[0] > 20 * abs(gaps[-1])


def test_with_the_true_posterior_every_weight_is_the_evidence():
    m, x = model(), randn(4, seed=8)
    mean, covariance = m.posterior(x)
    weights, evidence = log_weights(7, 3, mean.item(), covariance.sqrt().item())
    close(weights, evidence.expand(7, 3), 1e-10)


def test_the_importance_bound_is_the_log_of_a_mean_and_stable():
    weights = randn(6, 3)
    close(importance_bound(weights), weights.exp().mean(0).log())
    close(importance_bound(weights - 5000), weights.exp().mean(0).log() - 5000)
    assert torch.equal(importance_bound(weights[:1]), weights[0])


def test_free_bits():
    kl = torch.tensor([[0.0, 3.0, 1.0], [0.8, 1.0, 3.0]]).double().requires_grad_()
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum(-1).mean().item())
    assert free_bits(kl, 0.5).item() == pytest.approx(0.5 + 2 + 2)  # of the mean 0.4, not of each point
    assert free_bits(kl[None, :, None], 0.5).item() == pytest.approx(4.5)
    free_bits(kl, 0.5).backward()
    assert kl.grad.tolist() == [[0, 0.5, 0.5], [0, 0.5, 0.5]]


def test_what_is_refused():
    with pytest.raises(ValueError, match="cannot be negative, got -1"):
        free_bits(torch.zeros(2, 2), -1)
    with pytest.raises(ValueError, match="got a single number"):
        free_bits(torch.tensor(1.0), 1)
    for none in (torch.zeros(0, 3), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="K > 0"):
            importance_bound(none)
    for weight, bias, scale in (
        (torch.ones(3), torch.ones(3), 1),
        (torch.ones(3, 1), torch.ones(1), 1),
        (torch.ones(3, 1), torch.ones(3), 0),
    ):
        with pytest.raises(ValueError, match="a positive scale"):
            LinearGaussian(weight, bias, scale)
