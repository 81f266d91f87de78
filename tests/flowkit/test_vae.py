"""The autoencoder's bounds against the evidence of a model that has one, and digits."""

import math

import pytest
import torch
from torch import nn

from flowkit.elbo import LinearGaussian, gaussian_kl
from flowkit.lab.nets import mlp
from flowkit.lab.targets import digits
from flowkit.lab.training import bits_per_dim, fit
from flowkit.likelihoods import Centre, bernoulli, categorical, logistic_mixture, normal
from flowkit.posteriors import Posterior, iaf_flow, planar_flow
from flowkit.vae import VAE

DIM, SCALE = 4, 0.6


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(latents=1):
    return LinearGaussian(randn(DIM, latents), randn(DIM, seed=1), SCALE)


def vae_of(model, flow=None, context_dim=0):
    """The model as a VAE, with an encoder that is wrong but not absurd."""
    latents = model.weight.shape[1]
    decoder = nn.Linear(latents, 2 * DIM).double()
    encoder = nn.Linear(DIM, 2 * latents + context_dim)
    with torch.no_grad():
        decoder.weight.copy_(torch.stack([model.weight, 0 * model.weight], 1).flatten(0, 1))
        decoder.bias.copy_(torch.stack([model.bias, raw(SCALE).expand(DIM)], 1).flatten())
        encoder.weight.mul_(0.5)
    return VAE(Posterior(encoder, latents, flow, context_dim), decoder, normal()).double()


def exact(vae, model, shrinks=1.0, wider=1.0):
    """The VAE whose encoder knows the posterior of the one-latent model: without a flow, the gap is zero.

    shrinks undoes a flow that divides by so much; wider makes q that much wider than the posterior.
    """
    with torch.no_grad():
        gain = shrinks * model.posterior(torch.eye(DIM).double() + model.bias)[0][:, 0]
        scale = shrinks * wider * model.posterior(model.bias)[1].sqrt().item()
        vae.posterior.encoder.weight[:2] = torch.stack([gain, 0 * gain])
        vae.posterior.encoder.bias[:2] = torch.stack([-gain @ model.bias, raw(scale)])
    return vae


def raw(scale):
    """The parameter whose bounded exponential is the scale."""
    return torch.tensor(7 * math.atanh(math.log(scale) / 7), dtype=torch.float64)


def test_the_likelihood_is_the_models():
    model = known(2)
    vae, x, z = vae_of(model), model.sample(5), randn(3, 5, 2, seed=2)
    torch.testing.assert_close(vae.log_likelihood(x, z), model.log_likelihood(x, z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("analytic", [True, False])
def test_both_terms_converge_to_their_closed_forms(analytic):
    model = known(2)
    vae, x = vae_of(model), model.sample(3)
    mean, log_scale, _ = vae.posterior.encode(x)
    torch.manual_seed(0)
    with torch.no_grad():
        parts = vae.parts(x, draws=100_000, analytic=analytic)
    want = model.expected_log_likelihood(x, mean, log_scale.exp())
    torch.testing.assert_close(parts.log_likelihood, want, rtol=0.02, atol=0.02)
    tolerance = 1e-12 if analytic else 0.03
    torch.testing.assert_close(parts.kl, gaussian_kl(mean, log_scale), rtol=0, atol=tolerance)
    assert torch.equal(parts.elbo, parts.log_likelihood - parts.kl)


def test_with_the_true_posterior_the_bound_is_the_evidence_from_one_draw():
    model = known()
    vae, x = exact(vae_of(model), model), model.sample(6)
    want = model.log_evidence(x)
    torch.testing.assert_close(vae.parts(x).elbo, want, rtol=0, atol=1e-10)
    torch.testing.assert_close(vae.bound(x, 5), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("flow", [None, "planar", "iaf"])
def test_bounds_stand_in_order_below_the_evidence(flow):
    torch.manual_seed(0)
    flows = {"planar": planar_flow(1, 2, context_dim=2), "iaf": iaf_flow(1, 2, context_dim=2)}
    model = known()
    vae, x = vae_of(model, flows.get(flow), 2 if flow else 0), model.sample(4)
    exact(vae, model, shrinks=4.0 if flow == "iaf" else 1.0, wider=2.0)  # two gates that are half open
    with torch.no_grad():
        elbo = vae.parts(x, draws=20_000).elbo
        tens = vae.bound(x.expand(2000, 4, DIM), 10).mean(0)
        tight = vae.bound(x, 100_000)
    evidence = model.log_evidence(x)
    assert (elbo + 0.05 < tens).all()
    assert (tens + 0.01 < evidence).all()
    torch.testing.assert_close(tight, evidence, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("flow", "context_dim"), [(None, 0), (planar_flow(1, 2, 2), 2), (iaf_flow(1, 2, context_dim=2), 2)]
)
def test_training_closes_the_gap(flow, context_dim):
    torch.manual_seed(0)
    model = known()
    vae, x = vae_of(model, flow, context_dim), model.sample(500)
    vae.decoder.requires_grad_(False)  # the model is known: only its posterior is learned
    evidence = model.log_evidence(x).mean().item()
    parameters = [*vae.posterior.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.02)
    before = vae.parts(x, 20).elbo.mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        (-vae.log_prob(x).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        after = vae.parts(x, 20).elbo.mean().item()
    assert before < evidence - 0.5
    assert evidence - 0.1 < after < evidence + 0.02


def test_samples_have_the_evidences_moments():
    model = known()
    torch.manual_seed(0)
    x = vae_of(model).sample((200_000,))
    assert x.shape == (200_000, DIM)
    covariance = model.weight @ model.weight.T + SCALE**2 * torch.eye(DIM).double()
    torch.testing.assert_close(x.mean(0), model.bias, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("likelihood", [bernoulli(), categorical(5), logistic_mixture(5, 2)])
def test_levels_are_drawn_scored_and_shaped(likelihood):
    torch.manual_seed(0)
    vae = VAE(Posterior(nn.Linear(6, 4), 2), nn.Linear(2, 6 * likelihood.size), likelihood)
    x = vae.sample((3, 5))
    assert x.shape == (3, 5, 6)
    assert x.max() == likelihood.levels - 1
    assert vae.log_prob(x).shape == vae.bound(x, 4).shape == (3, 5)
    assert (vae.log_prob(x) < 0).all()
    assert vae.log_prob(x[0, 0]).shape == ()


def test_what_is_refused():
    flow = iaf_flow(2, 1)
    vae = VAE(Posterior(nn.Linear(6, 4), 2, flow), nn.Linear(2, 5), bernoulli())
    with pytest.raises(ValueError, match="KL of q_0; after a flow"):
        vae.parts(torch.zeros(6), analytic=True)
    with pytest.raises(ValueError, match="for 5 numbers, and points have 6"):
        vae.log_prob(torch.zeros(6))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "planar", "iaf"])
def test_digits_are_learned(kind):
    """Better, as a bound, than the 2.4 bits per dimension of a histogram for each pixel."""
    torch.manual_seed(0)
    data, latents, context = digits(), 8, 16
    flow = {
        "gaussian": None,
        "planar": planar_flow(latents, 4, context),
        "iaf": iaf_flow(latents, 2, (32,), context),
    }[kind]
    context = context if flow is not None else 0
    encoder = nn.Sequential(Centre(17), mlp(64, 2 * latents + context, (64,)))
    likelihood = logistic_mixture(17, 2)
    decoder = mlp(latents, 64 * likelihood.size, (64,), zero_last=False)
    vae = VAE(Posterior(encoder, latents, flow, context), decoder, likelihood)
    fit(vae, data.train.floor(), 800, batch=100, lr=5e-3, clip=10.0, progress=False)
    with torch.no_grad():
        held_out = bits_per_dim(vae.bound(data.valid.floor(), 50).mean(), 64)
    assert held_out < 2.35
