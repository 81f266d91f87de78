"""Kernel density estimates: a bump on each point of the data, how wide it should be, and what D costs.

NumPy alone. Points are arrays (..., D) and give log-densities (...); data are (N, D), as in `density`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flowkit.density import as_data, as_points
from flowkit.maps import as_real


@dataclass(frozen=True)
class Kernel:
    """A density k of one variable, symmetric about zero, which a kernel density estimate puts on each point.

    log_density(u) elementwise; sample(shape, rng); variance of k.
    """

    name: str
    log_density: Callable
    sample: Callable
    variance: float


def _log_where_positive(height: np.ndarray) -> np.ndarray:
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


def kde_log_density(
    x: ArrayLike, data: ArrayLike, bandwidth: ArrayLike, kernel: str | Kernel = "gaussian"
) -> np.ndarray:
    """log (1/N) sum over n of prod over i of k((x_i - data_ni)/h_i)/h_i, by log-sum-exp: (..., D) -> (...).

    bandwidth h: a number, or one for each dimension (D,). kernel: a name in KERNELS, or a Kernel. Where no
    point is within reach of a kernel that ends, the density is 0 and its log -inf.
    Cost O(N D) for each x. Parzen 1962; Epanechnikov 1969.

    >>> float(np.exp(kde_log_density([0.5], [[0.0], [1.0], [9.0], [9.0]], 1.0, "uniform")))
    0.25
    """
    data = as_data(data)
    x = as_points(x, data.shape[1])
    flat = x.reshape(-1, data.shape[1])
    return _log_kernel_sums(flat, data, bandwidth, kernel).reshape(x.shape[:-1])[()] - math.log(len(data))


def leave_one_out_log_density(
    data: ArrayLike, bandwidth: ArrayLike, kernel: str | Kernel = "gaussian"
) -> np.ndarray:
    """The estimate's log-density at each of its own points, made from the N - 1 others: (N, D) -> (N,).

    With itself left in, a point would like its kernel to be as narrow as can be, and the likelihood
    grows without bound as h goes to 0. Cost O(N^2 D). ValueError with one point alone.
    """
    data = as_data(data, at_least=2)
    return _log_kernel_sums(data, data, bandwidth, kernel, leave_out_own=True) - math.log(len(data) - 1)


def sample_kde(
    data: ArrayLike, bandwidth: ArrayLike, n: int, rng: np.random.Generator, kernel: str | Kernel = "gaussian"
) -> np.ndarray:
    """n draws: a point of the data, each as likely, moved by h times a draw of the kernel: (n, D)."""
    data = as_data(data)
    noise = _kernel(kernel).sample((n, data.shape[1]), rng)
    return data[rng.integers(len(data), size=n)] + _bandwidth(bandwidth, data) * noise


def _kernel(kernel: str | Kernel) -> Kernel:
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in KERNELS:
        raise ValueError(f"there is no kernel {kernel!r}; there are {', '.join(KERNELS)}, or make a Kernel")
    return KERNELS[kernel]


def _bandwidth(bandwidth: ArrayLike, data: np.ndarray) -> np.ndarray:
    h = as_real(bandwidth, "bandwidth")
    if h.shape not in ((), data.shape[1:]) or not ((h > 0) & np.isfinite(h)).all():
        raise ValueError(
            f"bandwidth must be positive: one number, or {data.shape[1]}, one for each dimension"
        )
    return np.broadcast_to(h, data.shape[1:]).astype(data.dtype)


_AT_ONCE = 2**20  # distances in memory: below some 10 MB for each array of them


def _log_kernel_sums(
    x: np.ndarray, data: np.ndarray, bandwidth: ArrayLike, kernel: str | Kernel, leave_out_own: bool = False
) -> np.ndarray:
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


def logsumexp(a: ArrayLike, axis: int = -1) -> np.ndarray:
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


def bandwidth_scores(
    data: ArrayLike,
    bandwidths: Sequence[ArrayLike],
    held_out: ArrayLike | None = None,
    kernel: str | Kernel = "gaussian",
) -> np.ndarray:
    """The mean log-likelihood under each bandwidth, of held_out (M, D) or else leaving one out: (K,)."""
    if held_out is None:
        return np.array([leave_one_out_log_density(data, h, kernel).mean() for h in bandwidths])
    held_out = as_data(held_out, "held_out")
    return np.array([kde_log_density(held_out, data, h, kernel).mean() for h in bandwidths])


def choose_bandwidth(
    data: ArrayLike,
    bandwidths: Sequence[ArrayLike],
    held_out: ArrayLike | None = None,
    kernel: str | Kernel = "gaussian",
) -> ArrayLike:
    """The bandwidth under which points that the estimate has not seen are most likely.

    ValueError if under each of them some point has density 0: kernels that end leave gaps between the data.
    """
    scores = bandwidth_scores(data, bandwidths, held_out, kernel)
    if not len(scores) or not scores.max() > -math.inf:
        raise ValueError("every bandwidth leaves a point without a neighbour: offer wider ones")
    return bandwidths[int(scores.argmax())]


def scott_bandwidth(data: ArrayLike) -> np.ndarray:
    """N^(-1/(D + 4)) times the standard deviation, for each dimension: (D,). About right for Gaussians.

    It blurs several modes into one. Scott 1992, equation 6.44.
    """
    data = as_data(data, at_least=2)
    return data.std(0, ddof=1) * len(data) ** (-1 / (data.shape[1] + 4))


# What D costs


def kde_relative_error(n: float, dim: int, bandwidth: ArrayLike) -> np.ndarray:
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


def _bias_and_variance(dim: int, h: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Relative bias, and relative variance times n; expm1 and log1p keep the digits of small h."""
    spread = np.square(as_real(h, "bandwidth"))
    bias = np.expm1(-0.5 * dim * np.log1p(spread))
    return bias, (spread * (2 + spread)) ** (-0.5 * dim) - (1 + spread) ** -float(dim)
