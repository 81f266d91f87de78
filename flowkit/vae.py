"""Variational autoencoders: a decoder from few latents, and a posterior, perhaps a flow, that proposes them.

The decoder need not be invertible, and the latents can be fewer than the data's dimensions, which a flow
cannot do (`flowkit.dimension`); the price is a bound (`flowkit.elbo`) where a flow has the likelihood.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowkit.elbo import gaussian_kl, importance_bound
from flowkit.likelihoods import Likelihood
from flowkit.posteriors import Posterior


class ElboParts(NamedTuple):
    """E_q log p(x given z) and KL(q || p(z)), estimated for each point, in nats: (...) both."""

    log_likelihood: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """log_likelihood - kl, a lower bound of log p(x) in expectation."""
        return self.log_likelihood - self.kl


class VAE(nn.Module):
    """p(x) = integral of p(z) p(x given z) dz, with p(z) = N(0, I) and p(x given z) = product of likelihoods.

    log_prob(x)          an unbiased estimate of the ELBO from one draw, the bound that training raises:
                         `flowkit.lab.training.fit` fits posterior and decoder together by it
    parts(x, draws)      its two terms, E_q log p(x given z) and KL(q || p(z))
    bound(x, draws)      the importance-weighted bound of K draws, between the ELBO and log p(x)
    sample(shape)        z from the prior, then x from p(x given z)

    decoder: (..., L) -> (..., D * size). likelihood: one of `flowkit.likelihoods`.
    Raises ValueError for a decoder of another width.
    Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014.

    >>> from flowkit.likelihoods import bernoulli
    >>> vae = VAE(Posterior(nn.Linear(6, 4), dim=2), nn.Linear(2, 6), bernoulli())
    >>> vae.bound(vae.sample((5,)), draws=10).shape
    torch.Size([5])
    """

    def __init__(self, posterior: Posterior, decoder: nn.Module, likelihood: Likelihood):
        super().__init__()
        self.posterior = posterior
        self.decoder = decoder
        self.likelihood = likelihood

    def params(self, z: Tensor) -> Tensor:
        """The parameters of p(x given z): (..., L) -> (..., D, size)."""
        return self.decoder(z).unflatten(-1, (-1, self.likelihood.size))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x given z), summed over the dimensions of x: (..., D) and (..., L) -> (...)."""
        params = self.params(z)
        if params.shape[-2] != x.shape[-1]:
            raise ValueError(
                f"the decoder gives parameters for {params.shape[-2]} numbers, and points have {x.shape[-1]}"
            )
        return self.likelihood.log_prob(x.expand(*z.shape[:-1], -1), params).sum(-1)

    def parts(self, x: Tensor, draws: int = 1, analytic: bool = False) -> ElboParts:
        """The ELBO's terms from a number of draws of q: (..., D) -> two of (...).

        kl is the mean of log q_K(z_K) - log p(z_K), or in closed form if analytic, which has no noise.
        Raises ValueError if analytic with a flow: the KL of q_0 is not that of q_K.
        """
        if analytic and self.posterior.flow is not None:
            raise ValueError("the closed form is the KL of q_0; after a flow, q_K's must be estimated")
        mean, log_scale, context = self.posterior.encode(x)
        z, log_q = self.posterior.push(mean, log_scale, context, draws)
        log_likelihood = self.log_likelihood(x, z).mean(0)
        if analytic:
            return ElboParts(log_likelihood, gaussian_kl(mean, log_scale))
        return ElboParts(log_likelihood, (log_q - self.posterior.noise.log_prob(z)).mean(0))

    def bound(self, x: Tensor, draws: int) -> Tensor:
        """The importance-weighted bound (`importance_bound`): (..., D) -> (...). Cost: K decoder passes."""
        z, log_q = self.posterior.rsample_with_log_prob(x, draws)
        return importance_bound(self.log_likelihood(x, z) + self.posterior.noise.log_prob(z) - log_q)

    def log_prob(self, x: Tensor) -> Tensor:
        """One draw's estimate of the ELBO, with the KL in closed form where it has one: (..., D) -> (...)."""
        return self.parts(x, analytic=self.posterior.flow is None).elbo

    def sample(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Draws of x: (*shape, D)."""
        with torch.no_grad():
            return self.likelihood.sample(self.params(self.posterior.noise.sample(shape)))
