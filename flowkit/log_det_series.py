"""log det(I + J) without the matrix: its power series, traces from random probes, a random number of terms.

log det(I + J) = tr log(I + J) = sum over k >= 1 of (-1)^(k+1) tr(J^k) / k when the norm of J is below one.
Here J = dg/dx of a network g, and v'J costs one backward pass. Each estimator below takes g(x) and x and
returns log abs det(I + J) for each point: exactly, truncated (biased), or by Russian roulette (unbiased).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from flowkit.hutchinson import Probe, rademacher

Estimator = Callable[[Tensor, Tensor, bool], Tensor]  # estimate(g(x), x, create_graph): (..., D) -> (...)


def jacobian(g: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """dg/dx at each point by D vector-Jacobian products in one batch: (..., D), (..., D) -> (..., D, D).

    g must have been computed from x, point by point, with x requiring a gradient.
    """
    dim = x.shape[-1]
    basis = torch.eye(dim, dtype=g.dtype, device=g.device)
    basis = basis.reshape(dim, *[1] * (g.ndim - 1), dim).expand(dim, *g.shape)
    (rows,) = torch.autograd.grad(
        g, x, basis, is_grads_batched=True, retain_graph=True, create_graph=create_graph
    )
    return rows.movedim(0, -2)


def exact(g: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """log abs det(I + J) from the whole Jacobian: D vector-Jacobian products and O(D^3) a point."""
    J = jacobian(g, x, create_graph)
    return torch.linalg.slogdet(torch.eye(x.shape[-1]).to(J) + J).logabsdet


def series_log_det(J: Tensor, weights: Sequence[float]) -> Tensor:
    """sum over k of weights[k - 1] (-1)^(k+1) tr(J^k) / k with exact traces: (..., D, D) -> (...).

    Weights of 1 give the truncated series. O(D^3) a term.

    >>> half = torch.full((1, 1), 0.5)
    >>> round(series_log_det(half, [1, 1, 1]).item(), 4)     # 1/2 - 1/8 + 1/24
    0.4167
    """
    power, total = torch.eye(J.shape[-1]).to(J), J.new_zeros(J.shape[:-2])
    for k, weight in enumerate(weights, 1):
        power = power @ J
        total = total + weight * (-1) ** (k + 1) / k * power.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total


def truncation_bound(lipschitz: float, terms: int) -> float:
    """How far the truncated series can be from log det(I + J), in nats for each dimension.

    -log(1 - L) - sum over k <= terms of L^k / k, where L < 1 bounds the norm of J; at most L^(n+1) / ((n + 1)
    (1 - L)). g(x) = -L x attains it: all terms have one sign. Behrmann et al. 2019 (i-ResNet).

    >>> [round(truncation_bound(0.9, n) / math.log(2), 3) for n in (5, 10, 20)]     # bits for each dimension
    [0.682, 0.265, 0.057]
    """
    if not 0 <= lipschitz < 1:
        raise ValueError(f"the series converges for a Lipschitz constant below one, not for {lipschitz}")
    return -math.log1p(-lipschitz) - math.fsum(lipschitz**k / k for k in range(1, terms + 1))


def terms_for(lipschitz: float, error: float) -> int:
    """The least number of terms whose truncation bound is `error` nats for each dimension, or less.

    >>> terms_for(0.5, 1e-3), terms_for(0.9, 1e-3)
    (7, 49)
    """
    if not error > 0:
        raise ValueError(f"the error must be positive, got {error}")
    terms = 0
    while truncation_bound(lipschitz, terms) > error:
        terms += 1
    return terms


def probed_series(
    g: Tensor, x: Tensor, v: Tensor, weights: Sequence[float], create_graph: bool, neumann: bool = True
) -> Tensor:
    """sum over k of weights[k - 1] (-1)^(k+1) v'J^k v / k at each point: one vector-Jacobian product a term.

    With neumann the gradient is that of the series another way: d tr(J^k) / k = tr(J^(k-1) dJ), so
        d (sum) = (sum over k of weights[k - 1] (-1)^(k-1) v'J^(k-1)) dJ v     in expectation over v.
    The bracket is found without a graph, and only one product is differentiated: the memory does not depend
    on the number of terms. Without it all products are kept and differentiated, and the memory is linear in
    them. The value is the same. Chen et al. 2019 (Residual Flows), section 3.2.
    """
    keep = create_graph and not neumann
    product, bracket, total = v, torch.zeros_like(v), v.new_zeros(v.shape[:-1])
    for k, weight in enumerate(weights, 1):
        signed = weight * (-1) ** (k + 1)
        bracket = bracket + signed * product.detach()
        (product,) = torch.autograd.grad(g, x, product, retain_graph=True, create_graph=keep)
        total = total + signed / k * (product * v).sum(-1)
    if not (create_graph and neumann):
        return total
    (last,) = torch.autograd.grad(g, x, bracket, create_graph=True)
    surrogate = (last * v).sum(-1)
    return total.detach() + surrogate - surrogate.detach()


@dataclass(frozen=True)
class PowerSeries:
    """The first `terms` of the series: biased by at most D `truncation_bound`, without noise if exact.

    probe: None for exact traces, O(D) products and O(terms D^3); rademacher or gaussian for one random
    probe a point, `terms` products. neumann: as in `probed_series`. generator: the global one unless given.
    """

    terms: int
    probe: Probe | None = None
    neumann: bool = True
    generator: Generator | None = None

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ValueError(f"a series needs one term or more, got {self.terms}")

    def __call__(self, g: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
        if self.probe is None:
            return series_log_det(jacobian(g, x, create_graph), [1.0] * self.terms)
        v = self.probe(x.detach(), self.generator)
        return probed_series(g, x, v, [1.0] * self.terms, create_graph, self.neumann)


def geometric(p: float, generator: Generator | None = None) -> int:
    """The number of tosses up to the first success: P(n) = p (1 - p)^(n-1) on {1, 2, ...}, mean 1 / p.

    NumPy's `Generator.geometric` and `Tensor.geometric_` count like this. `torch.distributions.Geometric`
    counts the failures before it, on {0, 1, ...}, mean 1 / p - 1: with the weights of the one and the draws
    of the other the roulette is biased.
    """
    return int(torch.empty((), dtype=torch.float64).geometric_(p, generator=generator))


def roulette_weights(terms: int, p: float = 0.5, exact_terms: int = 2) -> list[float]:
    """1 / P(N >= k) for k = 1 ... terms, where N = exact_terms + geometric(p).

    N is at least exact_terms + 1; beyond, P(N >= k) = (1 - p)^(k - exact_terms - 1).

    >>> roulette_weights(6)
    [1.0, 1.0, 1.0, 2.0, 4.0, 8.0]
    """
    return [(1 - p) ** -max(k - exact_terms - 1, 0) for k in range(1, terms + 1)]


@dataclass(frozen=True)
class Roulette:
    """Russian roulette: N terms, N = exact_terms + geometric(p), the k-th divided by P(N >= k). Unbiased.

    The k-th term is there with probability P(N >= k) and weighs 1 / P(N >= k): so its expectation is itself.
    At p = 1/2 and 2 exact terms E[N] = 2 + 1/p = 4 products. One N serves the whole batch, so that errors of
    its points are correlated. The variance is finite where L < sqrt(1 - p), L the spectral radius of J (0.71
    at p = 1/2); beyond, draws are still unbiased, and rare ones are huge.
    probe: None for exact traces. neumann, generator: as in `PowerSeries`. Raises ValueError unless 0 < p < 1
    and exact_terms >= 0. Kahn 1955; Chen et al. 2019 (Residual Flows).

    >>> Roulette().expected_terms
    4.0
    """

    p: float = 0.5
    exact_terms: int = 2
    probe: Probe | None = rademacher
    neumann: bool = True
    generator: Generator | None = None

    def __post_init__(self) -> None:
        if not 0 < self.p < 1 or self.exact_terms < 0:
            raise ValueError(f"a roulette needs 0 < p < 1 and exact_terms >= 0, got {self}")

    @property
    def expected_terms(self) -> float:
        """E[N] = exact_terms + 1 / p."""
        return self.exact_terms + 1 / self.p

    def __call__(self, g: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
        terms = self.exact_terms + geometric(self.p, self.generator)
        weights = roulette_weights(terms, self.p, self.exact_terms)
        if self.probe is None:
            return series_log_det(jacobian(g, x, create_graph), weights)
        v = self.probe(x.detach(), self.generator)
        return probed_series(g, x, v, weights, create_graph, self.neumann)
