"""What a density ratio is used for: the game of a GAN, and the KL term of a VAE that has no density.

A discriminator's logit T(x) estimates log p(x) / q(x) (`density_ratio`); p is the data and q the generator,
or q the aggregate posterior of a VAE and p its prior. Only samples are needed, so q may be implicit.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def optimal_discriminator(log_p: Tensor, log_q: Tensor) -> Tensor:
    """D(x) = p(x) / (p(x) + q(x)) = sigmoid(log p / q), in [0, 1]. Goodfellow et al. 2014, proposition 1.

    >>> optimal_discriminator(torch.tensor([0.0, -400.0]), torch.tensor([0.0, 400.0]))
    tensor([0.5000, 0.0000])
    """
    return torch.sigmoid(log_p - log_q)


def discriminator_value(logit_p: Tensor, logit_q: Tensor) -> Tensor:
    """V = E_p log D + E_q log(1 - D), which the discriminator maximizes; 2 JS(p, q) - 2 log 2 at the best D.

    >>> value = discriminator_value(torch.zeros(2), torch.zeros(2))     # it cannot tell: -2 log 2
    >>> round(value.item(), 4)
    -1.3863
    """
    return F.logsigmoid(logit_p).mean() + F.logsigmoid(-logit_q).mean()


def saturating_loss(logit_q: Tensor) -> Tensor:
    """E_q log(1 - D), minimized by the generator of the minimax game: the logits of its samples.

    d/dT = -sigmoid(T): it vanishes where the discriminator is sure of a fake (T far below 0), which is where
    the generator starts. At the best D its gradient in the generator is that of 2 JS(p, q).
    """
    return F.logsigmoid(-logit_q).mean()


def non_saturating_loss(logit_q: Tensor) -> Tensor:
    """-E_q log D, minimized by the generator in practice.

    d/dT = -sigmoid(-T): near -1 on sure fakes. At the best D its gradient is that of KL(q, p) - 2 JS(p, q),
    so it pulls q into the modes of p and does not mind those it leaves out. Goodfellow et al. 2014; Arjovsky
    and Bottou 2017.
    """
    return -F.logsigmoid(logit_q).mean()


def adversarial_kl(log_ratio: Tensor) -> Tensor:
    """KL(q, p) as the mean of log q(z) / p(z) over samples of q: a VAE's term, from a discriminator.

    log_ratio: the logit that is positive where samples of q are likelier, at samples z of q; (N,) -> ().
    The gradient to the encoder goes through z alone: keep the discriminator's parameters out of the encoder's
    optimizer. Nothing is lost by that at the best discriminator, since E_q of the gradient of log q is 0.
    Mescheder et al. 2017 (adversarial variational Bayes); Makhzani et al. 2016 (adversarial autoencoders).

    >>> adversarial_kl(torch.tensor([0.5, 1.5]))
    tensor(1.)
    """
    return log_ratio.mean()


def aggregate_posterior_log_prob(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log q(z) = log of the mean over n of N(z; mean_n, diag std_n^2): (..., D) -> (...).

    mean, std: (N, D), what the encoder says of N data points. O(N D) a point. Of all priors p(z) this one
    makes a VAE's ELBO highest on those points (Hoffman and Johnson 2016; Tomczak and Welling 2018).

    >>> aggregate_posterior_log_prob(torch.zeros(2), torch.zeros(5, 2), torch.ones(5, 2))
    tensor(-1.8379)
    """
    parts = -((z[..., None, :] - mean) / std).square() / 2 - std.log() - math.log(2 * math.pi) / 2
    return parts.sum(-1).logsumexp(-1) - math.log(len(mean))


class Surgery(NamedTuple):
    """A VAE's KL term in two, in nats: rate = information + marginal, each an average over data."""

    rate: Tensor
    information: Tensor
    marginal: Tensor


def elbo_surgery(mean: Tensor, std: Tensor, samples: int = 100, seed: int = 0) -> Surgery:
    """mean over n of KL(q(z | x_n), p) = I(n; z) + KL(q(z), p), with p = N(0, I), by Monte Carlo.

    rate            in closed form: the KL term of the ELBO
    information     I(n; z) = E log q(z | x_n) / q(z), at most log N: what z tells of the point
    marginal        KL(q(z), p), zero where the prior is the aggregate posterior: what a better prior saves
    mean, std: (N, D). `samples` draws of z for each point; O(samples N^2 D). Hoffman and Johnson 2016.

    >>> parts = elbo_surgery(torch.zeros(4, 2), torch.ones(4, 2))
    >>> [round(abs(part.item()), 5) for part in parts]
    [0.0, 0.0, 0.0]
    """
    rate = (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1).mean() / 2
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, *mean.shape, generator=generator, dtype=torch.float64).to(mean)
    log_posterior = (-noise.square() / 2 - std.log() - math.log(2 * math.pi) / 2).sum(-1)
    log_aggregate = aggregate_posterior_log_prob(mean + std * noise, mean, std)
    information = (log_posterior - log_aggregate).mean()
    return Surgery(rate, information, rate - information)
