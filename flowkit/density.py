"""Density estimation before flows: Gaussians by maximum likelihood, histograms, kernels, and how to compare.

NumPy alone. Points are arrays (..., D) and give log-densities (...); data are (N, D). One variable is D = 1:
x[:, None]. All densities integrate to one, and all likelihoods are in nats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flowkit.maps import as_real


def _data(x, name="data", at_least=1):
    x = as_real(x, name)
    if x.ndim != 2 or x.shape[1] == 0 or len(x) < at_least or not np.isfinite(x).all():
        raise ValueError(
            f"{name} must hold finite numbers in the shape (N, D), with N at least {at_least}; its shape is "
            f"{x.shape}. One variable is {name}[:, None]"
        )
    return x


def _points(x, dim):
    x = as_real(x)
    if x.ndim == 0 or x.shape[-1] != dim:
        raise ValueError(f"x must have the shape (..., {dim}); its shape is {x.shape}")
    return x


# Gaussians


def fit_gaussian(data) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and covariance (D, D) of greatest likelihood: both divide by N, not N - 1. O(N D^2).

    With N <= D the covariance is singular, and the likelihood has no maximum: that raises a ValueError.
    """
    data = _data(data)
    mean = data.mean(0)
    centred = data - mean
    covariance = centred.T @ centred / len(data)
    if _is_flat(data, covariance):
        raise ValueError(
            f"{len(data)} points in {data.shape[1]} dimensions lie in a plane: no Gaussian fits them best. "
            "Take more points, or leave out a dimension that the others determine"
        )
    return mean, covariance


def _is_flat(data, covariance):
    """Is a dimension constant, or determined by others? In units of the spreads, which may differ widely."""
    if (data == data[0]).all(0).any():
        return True
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / spread / spread[:, None]
    return np.linalg.matrix_rank(correlation, hermitian=True) < len(spread)


def gaussian_log_density(x, mean, covariance):
    """log N(x; mean, covariance) = -(abs(L^-1 (x - mean))^2 + D log 2 pi)/2 - sum over i of log L_ii: (...).

    The covariance is L L^T (Cholesky): its log-determinant is read off the diagonal, and nothing is inverted.
    Cost: O(D^3) once, O(D^2) for each point. ValueError if the covariance is not positive definite.

    >>> round(float(gaussian_log_density([0.0, 0.0], [0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]])), 6)
    -2.531024
    """
    mean, factor = _gaussian(mean, covariance)
    x = _points(x, len(mean))
    whitened = _solve(factor, x - mean)
    constant = np.log(np.diag(factor)).sum() + 0.5 * len(mean) * math.log(2 * math.pi)
    return -0.5 * np.square(whitened).sum(-1) - constant


def sample_gaussian(mean, covariance, n: int, rng: np.random.Generator) -> np.ndarray:
    """n draws x = mean + L noise, L L^T = covariance: (n, D). O(D^3 + n D^2)."""
    mean, factor = _gaussian(mean, covariance)
    return mean + rng.standard_normal((n, len(mean))) @ factor.T


def gaussian_entropy(covariance) -> float:
    """-E log p = (D log(2 pi e) + log det covariance)/2 nats: the most that any model's likelihood can reach.

    >>> round(gaussian_entropy([[1.0]]), 6)
    1.418939
    """
    factor = _cholesky(covariance)
    return float(np.log(np.diag(factor)).sum() + 0.5 * len(factor) * math.log(2 * math.pi * math.e))


def _gaussian(mean, covariance):
    mean, factor = as_real(mean, "mean"), _cholesky(covariance)
    if mean.shape != (len(factor),):
        raise ValueError(
            f"mean must have the shape ({len(factor)},), as the covariance does; it has {mean.shape}"
        )
    return mean, factor


def _cholesky(covariance):
    covariance = as_real(covariance, "covariance")
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance must have the shape (D, D); it has {covariance.shape}")
    if not np.allclose(covariance, covariance.T, rtol=0, atol=1e-4 * np.abs(covariance).max(initial=0)):
        raise ValueError("covariance must be symmetric")
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covariance must be positive definite: along some direction it has no width"
        ) from None


def _solve(factor, x):
    """L^-1 x for points (..., D)."""
    flat = x.reshape(-1, x.shape[-1])
    return np.linalg.solve(factor, flat.T).T.reshape(x.shape)


# Histograms


class Histogram(NamedTuple):
    """heights (B_1, ..., B_D), the density in each cell; edges, the B_i + 1 borders of each dimension."""

    heights: np.ndarray
    edges: tuple[np.ndarray, ...]


def fit_histogram(data, bins: int | Sequence, pseudocount: float = 0.0) -> Histogram:
    """The density that is constant in each cell: heights = (count + a)/((N + a cells) volume).

    bins: how many in each dimension, between the smallest and the largest point, or one array of edges for
    each dimension. a is the pseudocount: above 0, no cell is empty, and no new point inside is impossible.
    Cost O(N D) and bins^D cells, most of them empty as D grows. ValueError if a point is outside the edges.
    """
    data = _data(data)
    if not pseudocount >= 0:
        raise ValueError(f"pseudocount must be 0 or more; it is {pseudocount}")
    count, edges = np.histogramdd(data, bins)
    if count.sum() != len(data):
        raise ValueError(f"{len(data) - int(count.sum())} points lie outside the edges: widen them")
    volume = np.ones(())
    for borders in edges:
        volume = volume[..., None] * np.diff(borders)
    return Histogram((count + pseudocount) / ((len(data) + pseudocount * count.size) * volume), tuple(edges))


def histogram_log_density(x, histogram: Histogram):
    """The log of the height of x's cell, -inf in empty cells and outside: (..., D) -> (...). O(D log bins).

    Cells include their left border; the last one includes both.
    """
    heights, edges = histogram
    x = _points(x, len(edges))
    cell, inside = [], np.ones(x.shape[:-1], bool)
    for i, borders in enumerate(edges):
        x_i = x[..., i]
        inside &= (x_i >= borders[0]) & (x_i <= borders[-1])
        cell.append(np.clip(np.searchsorted(borders, x_i, side="right") - 1, 0, len(borders) - 2))
    with np.errstate(divide="ignore"):
        log_p = np.log(np.where(inside, heights[tuple(cell)], 0.0))
    return np.where(np.isnan(x).any(-1), np.nan, log_p).astype(x.dtype)[()]


# Kernels


@dataclass(frozen=True)
class Kernel:
    """A density k of one variable, symmetric about zero, which a kernel density estimate puts on each point.

    log_density(u) elementwise; sample(shape, rng); variance of k.
    """

    name: str
    log_density: Callable
    sample: Callable
    variance: float


def _log_where_positive(height):
    """log height, -inf where it is negative: the kernel ends there."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(height, 0))


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            "gaussian",
            lambda u: -0.5 * (np.square(u) + math.log(2 * math.pi)),
            lambda shape, rng: rng.standard_normal(shape),
            1.0,
        ),
        Kernel(
            "epanechnikov",
            lambda u: _log_where_positive(0.75 * (1 - np.square(u))),
            lambda shape, rng: np.median(rng.uniform(-1, 1, (3, *shape)), axis=0),
            1 / 5,
        ),
        Kernel(
            "uniform",
            lambda u: np.where(np.abs(u) > 1, -math.inf, np.where(np.isnan(u), u, -math.log(2))),
            lambda shape, rng: rng.uniform(-1, 1, shape),
            1 / 3,
        ),
        Kernel(
            "triangular",
            lambda u: _log_where_positive(1 - np.abs(u)),
            lambda shape, rng: rng.uniform(-0.5, 0.5, (2, *shape)).sum(0),
            1 / 6,
        ),
    )
}


def kde_log_density(x, data, bandwidth, kernel: str | Kernel = "gaussian"):
    """log (1/N) sum over n of prod over i of k((x_i - data_ni)/h_i)/h_i, by log-sum-exp: (..., D) -> (...).

    bandwidth h: a number, or one for each dimension (D,). kernel: a name in KERNELS, or a Kernel. Where no
    point is within reach of a kernel that ends, the density is 0 and its log -inf.
    Cost O(N D) for each x. Parzen 1962; Epanechnikov 1969.

    >>> float(np.exp(kde_log_density([0.5], [[0.0], [1.0], [9.0], [9.0]], 1.0, "uniform")))
    0.25
    """
    data = _data(data)
    x = _points(x, data.shape[1])
    flat = x.reshape(-1, data.shape[1])
    return _log_kernel_sums(flat, data, bandwidth, kernel).reshape(x.shape[:-1])[()] - math.log(len(data))


def leave_one_out_log_density(data, bandwidth, kernel: str | Kernel = "gaussian"):
    """The estimate's log-density at each of its own points, made from the N - 1 others: (N, D) -> (N,).

    With itself left in, a point would like its kernel to be as narrow as can be, and the likelihood
    grows without bound as h goes to 0. Cost O(N^2 D). ValueError with one point alone.
    """
    data = _data(data, at_least=2)
    return _log_kernel_sums(data, data, bandwidth, kernel, leave_out_own=True) - math.log(len(data) - 1)


def sample_kde(data, bandwidth, n: int, rng: np.random.Generator, kernel: str | Kernel = "gaussian"):
    """n draws: a point of the data, each as likely, moved by h times a draw of the kernel: (n, D)."""
    data = _data(data)
    noise = _kernel(kernel).sample((n, data.shape[1]), rng)
    return data[rng.integers(len(data), size=n)] + _bandwidth(bandwidth, data) * noise


def _kernel(kernel):
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in KERNELS:
        raise ValueError(f"there is no kernel {kernel!r}; there are {', '.join(KERNELS)}, or make a Kernel")
    return KERNELS[kernel]


def _bandwidth(bandwidth, data):
    h = as_real(bandwidth, "bandwidth")
    if h.shape not in ((), data.shape[1:]) or not ((h > 0) & np.isfinite(h)).all():
        raise ValueError(
            f"bandwidth must be positive: one number, or {data.shape[1]}, one for each dimension"
        )
    return np.broadcast_to(h, data.shape[1:]).astype(data.dtype)


_AT_ONCE = 2**20  # distances in memory: below some 10 MB for each array of them


def _log_kernel_sums(x, data, bandwidth, kernel, leave_out_own=False):
    """log of the sum over the data of the product kernel, for x (Q, D), a slice of x at a time: (Q,)."""
    k, h = _kernel(kernel).log_density, _bandwidth(bandwidth, data)
    x, data = x / h, data / h
    out = np.empty(len(x), x.dtype)
    step = max(1, _AT_ONCE // len(data))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        log_k = sum(k(part[:, i, None] - data[:, i]) for i in range(data.shape[1]))
        if leave_out_own:
            own = np.arange(len(part))
            log_k[own, start + own] = -math.inf
        out[start : start + step] = logsumexp(log_k, axis=1)
    return out - np.log(h).sum()


def logsumexp(a, axis: int = -1):
    """log of the sum of exp a, which neither overflows nor underflows: the largest term is taken out first.

    >>> round(float(logsumexp([-1000.0, -1000.0])), 6)
    -999.306853
    """
    a = as_real(a, "a")
    largest = a.max(axis=axis, keepdims=True, initial=-math.inf)
    largest = np.where(np.isinf(largest), 0, largest)  # all -inf: the sum is 0, not exp(-inf + inf)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(a - largest).sum(axis)) + largest.squeeze(axis)


# Bandwidths


def bandwidth_scores(data, bandwidths: Sequence, held_out=None, kernel: str | Kernel = "gaussian"):
    """The mean log-likelihood under each bandwidth, of held_out (M, D) or else leaving one out: (K,)."""
    if held_out is None:
        return np.array([leave_one_out_log_density(data, h, kernel).mean() for h in bandwidths])
    held_out = _data(held_out, "held_out")
    return np.array([kde_log_density(held_out, data, h, kernel).mean() for h in bandwidths])


def choose_bandwidth(data, bandwidths: Sequence, held_out=None, kernel: str | Kernel = "gaussian"):
    """The bandwidth under which points that the estimate has not seen are most likely.

    ValueError if under each of them some point has density 0: kernels that end leave gaps between the data.
    """
    scores = bandwidth_scores(data, bandwidths, held_out, kernel)
    if not len(scores) or not scores.max() > -math.inf:
        raise ValueError("every bandwidth leaves a point without a neighbour: offer wider ones")
    return bandwidths[int(scores.argmax())]


def scott_bandwidth(data):
    """N^(-1/(D + 4)) times the standard deviation, for each dimension: (D,). About right for Gaussians.

    It blurs several modes into one. Scott 1992, equation 6.44.
    """
    data = _data(data, at_least=2)
    return data.std(0, ddof=1) * len(data) ** (-1 / (data.shape[1] + 4))


# What D costs


def kde_relative_error(n: float, dim: int, bandwidth):
    """E (estimate - p)^2/p^2 at the origin, for n points of a standard normal and a Gaussian kernel, exactly.

    The kernel widens the normal to variance 1 + h^2, which gives the bias, (1 + h^2)^(-D/2) - 1; the
    variance, divided by p^2, is (((1 + h^2)^2 - 1)^(-D/2) - (1 + h^2)^(-D))/n. Fryer 1976.
    """
    bias, variance = _bias_and_variance(dim, bandwidth)
    return bias**2 + variance / n


def samples_needed(dim: int, relative_error: float = 0.1) -> float:
    """How many points bring kde_relative_error at the origin below relative_error, under the best bandwidth.

    The bandwidth is searched on a fine grid. 4, 19, 67, 223, 768 for D = 1 to 5 and 842,000 for D = 10
    are Silverman's figures (1986, table 4.2); here as fractions, as exact as the grid; inf past 1e308.
    ValueError unless D is 1 or more and 0 < relative_error < 1 (0 everywhere is an estimate with error 1).

    >>> [math.ceil(samples_needed(dim)) for dim in (1, 2, 3, 4, 5)]
    [4, 19, 67, 223, 768]
    """
    if dim < 1 or not 0 < relative_error < 1:
        raise ValueError("dim must be 1 or more, and relative_error between 0 and 1")
    # The bias alone reaches the whole error at this h, and no wider one can do.
    widest = math.sqrt((1 - math.sqrt(relative_error)) ** (-2 / dim) - 1)
    with np.errstate(over="ignore"):
        bias, variance = _bias_and_variance(dim, widest * np.arange(1, 10_000) / 10_000)
        return float((variance / (relative_error - bias**2)).min())


def _bias_and_variance(dim, h):
    """Relative bias, and relative variance times n; expm1 and log1p keep the digits of small h."""
    spread = np.square(as_real(h, "bandwidth"))
    bias = np.expm1(-0.5 * dim * np.log1p(spread))
    return bias, (spread * (2 + spread)) ** (-0.5 * dim) - (1 + spread) ** -float(dim)


# Likelihood and KL divergence


def mean_log_likelihood(log_density: Callable, x) -> float:
    """The mean of log p over the points of x: up to a constant, minus KL(data || p). In nats a point."""
    return float(log_density(as_real(x)).mean())


def kl_gaussians(mean_p, covariance_p, mean_q, covariance_q) -> float:
    """KL(p || q) = (tr(C_q^-1 C_p) + (m_q - m_p)^T C_q^-1 (m_q - m_p) - D + log(det C_q/det C_p))/2 nats.

    At least 0, and 0 only if p = q; not the same the other way round. Cost O(D^3).

    >>> round(kl_gaussians([0.0], [[1.0]], [1.0], [[1.0]]), 6)
    0.5
    """
    (mean_p, p), (mean_q, q) = _gaussian(mean_p, covariance_p), _gaussian(mean_q, covariance_q)
    if len(p) != len(q):
        raise ValueError(f"both must live in the same space; p has {len(p)} dimensions and q has {len(q)}")
    ratio, shift = np.linalg.solve(q, p), np.linalg.solve(q, mean_q - mean_p)
    log_dets = 2 * np.log(np.diag(ratio)).sum()  # log det C_p - log det C_q: both factors are triangular
    return float(0.5 * (np.square(ratio).sum() + np.square(shift).sum() - len(p) - log_dets))


class Estimate(NamedTuple):
    """A mean over random draws, and its standard error."""

    mean: float
    error: float


def kl_monte_carlo(log_p: Callable, log_q: Callable, x) -> Estimate:
    """KL(p || q) = E log p(x) - log q(x), estimated by the mean over x drawn from p, with its standard error.

    Any two densities; the error falls as 1/sqrt(N). A mean below zero by many errors means that one of
    the log-densities is wrong, or that x is not drawn from p. The mean is inf where q gives a point
    density 0. ValueError if p itself does, or with fewer than two points.
    """
    x = as_real(x)
    log_p = np.ravel(log_p(x))
    if len(log_p) < 2 or (log_p == -math.inf).any():
        raise ValueError("x must hold two draws from p or more, and p must give each of them a density")
    ratio = log_p - np.ravel(log_q(x))
    if np.isposinf(ratio).any():
        return Estimate(math.inf, math.inf)
    return Estimate(float(ratio.mean()), float(ratio.std(ddof=1) / math.sqrt(len(ratio))))
