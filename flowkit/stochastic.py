"""Diffusions: Langevin sampling and its step-size bias, MALA, Fokker-Planck on a grid, and probability flow.

Overdamped Langevin: dX = score(X) dt + sqrt(2) dW with score = grad log p. Its density obeys Fokker-Planck,
    dp_t/dt = -div(score p_t) + Laplacian p_t
and stays at p once it is there. Here p may be unnormalized: only its score is used.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

LogDensity = Callable[[Tensor], Tensor]  # (..., D) -> (...), up to a constant
Score = Callable[[Tensor], Tensor]  # (..., D) -> (..., D)


class Chain(NamedTuple):
    """The states of a Markov chain after each step, (steps, ..., D), and its acceptance rate (...)."""

    points: Tensor
    acceptance: Tensor


def value_and_gradient(f: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and df/dx, (...) and (..., D), of a function that treats points one by one; both detached.

    >>> value_and_gradient(lambda x: -(x**2).sum(-1) / 2, torch.tensor([1.0, 2.0]))
    (tensor(-2.5000), tensor([-1., -2.]))
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def noise_like(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard normal noise with the shape, dtype and device of x."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def langevin(score: Score, x: Tensor, step: float, steps: int, generator: Generator | None = None) -> Tensor:
    """Unadjusted Langevin, x <- x + h score(x) + sqrt(2 h) noise: all states, (steps, ..., D).

    Euler-Maruyama on the Langevin equation. Its own stationary density is not p: the bias is O(h)
    (`langevin_variance` for a Gaussian), and at too large an h it has none. Cost: one score a step.
    Roberts and Tweedie 1996.

    >>> langevin(lambda x: -x, torch.zeros(5, 2), 0.1, 3).shape
    torch.Size([3, 5, 2])
    """
    points = []
    for _ in range(steps):
        x = (x + step * score(x)).detach() + (2 * step) ** 0.5 * noise_like(x, generator)
        points.append(x)
    return torch.stack(points)


def langevin_variance(step: float, variance: float = 1.0) -> float:
    """The variance that `langevin` reaches when p is N(0, variance): variance / (1 - h / (2 variance)).

    There it is the recursion x <- (1 - h / variance) x + sqrt(2 h) noise: a stationary v solves
    v = (1 - h / variance)^2 v + 2 h. Too wide, by the factor 1 + h / (2 variance) to first order.
    Raises ValueError unless 0 < h < 2 variance: beyond, the chain runs away.

    >>> langevin_variance(0.5)
    1.3333333333333333
    """
    if not 0 < step < 2 * variance:
        raise ValueError(f"the step must be between 0 and 2 variance = {2 * variance:g}, got {step:g}")
    return variance / (1 - step / (2 * variance))


def metropolis(
    x: Tensor, proposal: Tensor, log_ratio: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Each proposal with probability min(1, exp(log_ratio)), else x: the new states, and who accepted.

    x and proposal: (..., D); log_ratio: (...). NaN counts as a refusal.
    Metropolis et al. 1953; Hastings 1970.
    """
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=x.dtype, device=x.device)
    accepted = uniform.log() < log_ratio
    return torch.where(accepted[..., None], proposal, x), accepted


def mala(
    log_density: LogDensity, x: Tensor, step: float, steps: int, generator: Generator | None = None
) -> Chain:
    """Metropolis-adjusted Langevin: the Langevin step is a proposal, which corrects its bias at every h.

    log ratio = log p(y) - log p(x) + log q(x | y) - log q(y | x), q(y | x) = N(x + h score(x), 2 h I).
    Every row of x is a chain. Cost: one value and score a step. Roberts and Tweedie 1996.

    >>> chain = mala(lambda x: -(x**2).sum(-1) / 2, torch.zeros(5, 2), 0.1, 3)
    >>> chain.points.shape, chain.acceptance.shape
    (torch.Size([3, 5, 2]), torch.Size([5]))
    """

    def log_q(y: Tensor, x: Tensor, score: Tensor) -> Tensor:
        return -(y - x - step * score).square().sum(-1) / (4 * step)

    points, total = [], x.new_zeros(x.shape[:-1])
    value, score = value_and_gradient(log_density, x)
    for _ in range(steps):
        y = x + step * score + (2 * step) ** 0.5 * noise_like(x, generator)
        value_y, score_y = value_and_gradient(log_density, y)
        log_ratio = value_y - value + log_q(x, y, score_y) - log_q(y, x, score)
        x, accepted = metropolis(x, y, log_ratio, generator)
        value = torch.where(accepted, value_y, value)
        score = torch.where(accepted[..., None], score_y, score)
        points.append(x)
        total += accepted
    return Chain(torch.stack(points), total / steps)


def fokker_planck_matrix(potential: Tensor, width: float) -> Tensor:
    """L of dp/dt = L p, the Fokker-Planck equation of dX = -U'(X) dt + sqrt(2) dW on a grid: (n, n).

    potential: U at the centres of n cells of one width. Between neighbours flows, to the right,
        (B(w) p_i - B(-w) p_(i+1)) / width,  w = U_(i+1) - U_i,  B(w) = w / (exp(w) - 1)
    which is exact where the flux is constant and U linear between the centres (Scharfetter and Gummel 1969;
    Chang and Cooper 1970). Nothing crosses the ends. So the columns of L sum to 0, mass stays; off the
    diagonal nothing is negative, so p stays positive; and exp(-U) is stationary exactly. The error is
    otherwise O(width^2).

    >>> fokker_planck_matrix(torch.zeros(3), 1.0)
    tensor([[-1.,  1.,  0.],
            [ 1., -2.,  1.],
            [ 0.,  1., -1.]])
    """
    right, left = (_bernoulli(w) / width**2 for w in (potential.diff(), -potential.diff()))
    matrix = right.diag(-1) + left.diag(1)
    return matrix - matrix.sum(0).diag()


def _bernoulli(w: Tensor) -> Tensor:
    """w / (exp(w) - 1), 1 at 0."""
    small = w.abs() < 1e-8
    return torch.where(small, 1 - w / 2, w / torch.expm1(torch.where(small, 1.0, w)))


def fokker_planck(density: Tensor, matrix: Tensor, time: float) -> Tensor:
    """The density at a later time, exp(time L) p: exact in time. density: (..., n). O(n^3).

    >>> fokker_planck(torch.tensor([1.0, 0.0]), fokker_planck_matrix(torch.zeros(2), 1.0), 100.0)
    tensor([0.5000, 0.5000])
    """
    return density @ torch.linalg.matrix_exp(time * matrix).mT


class DiffusedMixture(NamedTuple):
    """A mixture of Gaussians under the Ornstein-Uhlenbeck diffusion dX = -X dt + sqrt(2) dW: in closed form.

    X_t = exp(-t) X_0 + sqrt(1 - exp(-2 t)) noise, so component k, N(mean_k, std_k^2 I) at t = 0, becomes
    N(exp(-t) mean_k, (exp(-2 t) std_k^2 + 1 - exp(-2 t)) I), and all of them N(0, I) in the end.
    weights: (K,), which sum to 1; means: (K, D); stds: (K,).
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def log_prob(self, x: Tensor, t: float | Tensor = 0.0) -> Tensor:
        """log p_t(x): (..., D) -> (...)."""
        offset, variance = self._offset(x, t)
        log_normal = -0.5 * (
            offset.square().sum(-1) / variance + x.shape[-1] * (2 * torch.pi * variance).log()
        )
        return (self.weights.log() + log_normal).logsumexp(-1)

    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        """grad log p_t(x): (..., D). The components' scores, weighed by their posterior probabilities.

        >>> one = DiffusedMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
        >>> one.score(0.3, torch.tensor([1.0, 2.0]))                  # N(0, I) is stationary
        tensor([-1., -2.])
        """
        offset, variance = self._offset(x, t)
        log_normal = -0.5 * (offset.square().sum(-1) / variance + x.shape[-1] * variance.log())
        posterior = (self.weights.log() + log_normal).softmax(-1)
        return -(posterior[..., None] * offset / variance[:, None]).sum(-2)

    def sample(self, n: int, t: float = 0.0, generator: Generator | None = None) -> Tensor:
        """n points of p_t: (n, D)."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        offset, variance = self._offset(self.means.new_zeros(self.means.shape[-1]), t)
        return variance.sqrt()[which, None] * noise_like(self.means[which], generator) - offset[which]

    def _offset(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """x - exp(-t) mean_k and the variance of each component at t: (..., K, D) and (K,)."""
        shrink = torch.exp(-torch.as_tensor(t, dtype=x.dtype, device=x.device))
        return x[..., None, :] - shrink * self.means, (shrink * self.stds) ** 2 + 1 - shrink**2


class ProbabilityFlow(nn.Module):
    """The field g(t, x) = -x - score(t, x): its flow has, at every t, the densities of the diffusion.

    Fokker-Planck of dX = -X dt + sqrt(2) dW reads dp_t/dt = -div((-x - grad log p_t) p_t), the equation of
    points that follow g without noise. So CNF(ProbabilityFlow(score), time=T) normalizes data to p_T, close
    to N(0, I) for T of 5 or so, and a score model is a continuous flow. Here t runs from data to noise.
    score(t, x): exact, as of a `DiffusedMixture`, or a trained module. Song et al. 2021.
    """

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.score = score

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -x - self.score(t, x)
