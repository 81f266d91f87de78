"""The evidence lower bound, term by term, and a model whose evidence is known to compare it with.

log p(x) = E_q[log p(x given z)] - KL(q(z given x) || p(z)) + KL(q(z given x) || p(z given x)) for every
density q: the first two terms are the ELBO, and the last, which nobody can compute in general, is its gap.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def gaussian_kl_terms(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(mean_j, scale_j^2) || N(0, 1)) of each dimension, in nats: (..., L) -> (..., L).

    (mean^2 + scale^2 - 1 - log scale^2) / 2; written with expm1, so that it keeps its digits near 0.

    >>> gaussian_kl_terms(torch.tensor([0.0, 2.0]), torch.zeros(2)).tolist()
    [0.0, 2.0]
    """
    return 0.5 * (mean.square() + torch.expm1(2 * log_scale) - 2 * log_scale)


def gaussian_kl(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(mean, diag scale^2) || N(0, I)) in nats: the terms of the dimensions added, (..., L) -> (...).

    Kingma and Welling 2014 (Auto-Encoding Variational Bayes), appendix B.

    >>> gaussian_kl(torch.tensor([1.0, 2.0]), torch.zeros(2)).item()
    2.5
    """
    return gaussian_kl_terms(mean, log_scale).sum(-1)


def free_bits(kl: Tensor, least: float) -> Tensor:
    """sum over groups j of max(least, mean over points of KL_j), in nats: (..., L) -> ().

    The loss that takes it for the KL gains nothing by pushing a group below `least`, so the optimizer has no
    reason to switch off latents early, before the decoder has learned to read them. The minimum is taken of
    the batch's mean, a group at a time; a whole KL (N, 1) is one group.
    Raises ValueError if least is negative or kl is a single number. Kingma et al. 2016 (IAF).

    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), least=0.5).item()
    2.5
    """
    if not least >= 0:
        raise ValueError(f"free bits cannot be negative, got {least}")
    if not kl.ndim:
        raise ValueError("free bits want the KL of each group, (..., L), and got a single number")
    return kl.reshape(-1, kl.shape[-1]).mean(0).clamp(min=least).sum()


def importance_bound(log_weights: Tensor) -> Tensor:
    """log of the mean of K weights p(x, z_k) / q(z_k given x), with z_k drawn from q: (K, ...) -> (...).

    logsumexp over k, minus log K. Its expectation is the ELBO at K = 1, never falls as K grows, and tends to
    log p(x); the weights' mean is unbiased, their logarithm's expectation is below by Jensen's inequality.
    Averaging the logarithms instead gives the ELBO again, for every K.
    Raises ValueError for no draws. Burda, Grosse and Salakhutdinov 2016 (importance weighted autoencoders).

    >>> weights = torch.tensor([[1.0], [3.0]])
    >>> round(importance_bound(weights.log()).exp().item(), 5)
    2.0
    """
    if not log_weights.ndim or not len(log_weights):
        raise ValueError(f"the bound wants log weights (K, ...), K > 0; got shape {tuple(log_weights.shape)}")
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, I) in L dimensions, x = W z + b + scale * noise in D: what a VAE estimates, in closed form.

    weight: W (D, L), with L = 1 the model of one latent. bias: b (D,). scale: positive.
    With r = x - b and M = I + W'W / scale^2 (L x L):
    evidence     x ~ N(b, W W' + scale^2 I), with det = scale^(2 D) det M
    posterior    z given x ~ N(M^-1 W' r / scale^2, M^-1)
    Cost: O(D L^2 + L^3). Raises ValueError unless the shapes fit and scale is positive.
    Tipping and Bishop 1999 (Probabilistic principal component analysis).

    >>> model = LinearGaussian(torch.tensor([[2.0]]), torch.tensor([1.0]), scale=1.0)
    >>> mean, covariance = model.posterior(torch.tensor([6.0]))
    >>> round(mean.item(), 5), round(covariance.item(), 5)
    (2.0, 0.2)
    """

    weight: Tensor
    bias: Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1] or not self.scale > 0:
            raise ValueError(
                "a linear Gaussian model wants a weight (D, L), a bias (D,) and a positive scale, got "
                f"{tuple(self.weight.shape)}, {tuple(self.bias.shape)} and {self.scale}"
            )

    def _factor(self) -> Tensor:
        """The Cholesky factor of M."""
        latents = self.weight.shape[1]
        eye = torch.eye(latents, dtype=self.weight.dtype, device=self.weight.device)
        return torch.linalg.cholesky(eye + self.weight.mT @ self.weight / self.scale**2)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (..., L) and the covariance (L, L) of z given x."""
        factor = self._factor()
        projected = (x - self.bias) @ self.weight / self.scale**2
        mean = torch.cholesky_solve(projected[..., None], factor)[..., 0]
        return mean, torch.cholesky_inverse(factor)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x): (..., D) -> (...)."""
        r, dim = x - self.bias, len(self.bias)
        projected = r @ self.weight / self.scale**2
        square = r.square().sum(-1) / self.scale**2 - (projected * self.posterior(x)[0]).sum(-1)
        log_det = 2 * dim * math.log(self.scale) + 2 * self._factor().diagonal().log().sum()
        return -0.5 * (square + log_det + dim * math.log(2 * math.pi))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x given z): (..., D) and (..., L) -> (...)."""
        return self.expected_log_likelihood(x, z, torch.zeros_like(z))

    def expected_log_likelihood(self, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """E log p(x given z) under z ~ N(mean, diag scale^2); mean and scale (..., L). The ELBO's first part.

        E |r - W z|^2 = |r - W mean|^2 + sum over j of scale_j^2 |column j of W|^2.
        """
        miss = x - self.bias - mean @ self.weight.mT
        spread = scale.square() @ self.weight.square().sum(0)
        constant = len(self.bias) * math.log(2 * math.pi * self.scale**2)
        return -0.5 * ((miss.square().sum(-1) + spread) / self.scale**2 + constant)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n draws of x: (n, D)."""
        generator = torch.Generator().manual_seed(seed)
        dim, latents = self.weight.shape
        z = torch.randn(n, latents, generator=generator, dtype=torch.float64).to(self.weight)
        noise = torch.randn(n, dim, generator=generator, dtype=torch.float64).to(self.weight)
        return z @ self.weight.mT + self.bias + self.scale * noise
