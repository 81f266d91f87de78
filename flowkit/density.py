"""Density estimation before flows: Gaussians by maximum likelihood, histograms, and how to compare models.

NumPy alone. Points are arrays (..., D) and give log-densities (...); data are (N, D). One variable is D = 1:
x[:, None]. All densities integrate to one, and all likelihoods are in nats.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from flowkit.maps import as_real


def as_data(x: ArrayLike, name: str = "data", at_least: int = 1) -> np.ndarray:
    """Finite floats of shape (N, D), N at least at_least; ValueError otherwise."""
    x = as_real(x, name)
    if x.ndim != 2 or x.shape[1] == 0 or len(x) < at_least or not np.isfinite(x).all():
        raise ValueError(
            f"{name} must hold finite numbers in the shape (N, D), with N at least {at_least}; its shape is "
            f"{x.shape}. One variable is {name}[:, None]"
        )
    return x


def as_points(x: ArrayLike, dim: int) -> np.ndarray:
    """Floats of shape (..., dim); ValueError otherwise."""
    x = as_real(x)
    if x.ndim == 0 or x.shape[-1] != dim:
        raise ValueError(f"x must have the shape (..., {dim}); its shape is {x.shape}")
    return x


# Gaussians


def fit_gaussian(data: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and covariance (D, D) of greatest likelihood: both divide by N, not N - 1. O(N D^2).

    With N <= D the covariance is singular, and the likelihood has no maximum: that raises a ValueError.
    """
    data = as_data(data)
    mean = data.mean(0)
    centred = data - mean
    covariance = centred.T @ centred / len(data)
    if _is_flat(data, covariance):
        raise ValueError(
            f"{len(data)} points in {data.shape[1]} dimensions lie in a plane: no Gaussian fits them best. "
            "Take more points, or leave out a dimension that the others determine"
        )
    return mean, covariance


def _is_flat(data: np.ndarray, covariance: np.ndarray) -> bool:
    """Is a dimension constant, or determined by others? In units of the spreads, which may differ widely."""
    if (data == data[0]).all(0).any():
        return True
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / spread / spread[:, None]
    return np.linalg.matrix_rank(correlation, hermitian=True) < len(spread)


def gaussian_log_density(x: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> np.ndarray:
    """log N(x; mean, covariance) = -(abs(L^-1 (x - mean))^2 + D log 2 pi)/2 - sum over i of log L_ii: (...).

    The covariance is L L^T (Cholesky): its log-determinant is read off the diagonal, and nothing is inverted.
    Cost: O(D^3) once, O(D^2) for each point. ValueError if the covariance is not positive definite.

    >>> round(float(gaussian_log_density([0.0, 0.0], [0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]])), 6)
    -2.531024
    """
    mean, factor = _gaussian(mean, covariance)
    x = as_points(x, len(mean))
    whitened = _solve(factor, x - mean)
    constant = np.log(np.diag(factor)).sum() + 0.5 * len(mean) * math.log(2 * math.pi)
    return -0.5 * np.square(whitened).sum(-1) - constant


def sample_gaussian(mean: ArrayLike, covariance: ArrayLike, n: int, rng: np.random.Generator) -> np.ndarray:
    """n draws x = mean + L noise, L L^T = covariance: (n, D). O(D^3 + n D^2)."""
    mean, factor = _gaussian(mean, covariance)
    return mean + rng.standard_normal((n, len(mean))) @ factor.T


def gaussian_entropy(covariance: ArrayLike) -> float:
    """-E log p = (D log(2 pi e) + log det covariance)/2 nats: the most that any model's likelihood can reach.

    >>> round(gaussian_entropy([[1.0]]), 6)
    1.418939
    """
    factor = _cholesky(covariance)
    return float(np.log(np.diag(factor)).sum() + 0.5 * len(factor) * math.log(2 * math.pi * math.e))


def _gaussian(mean: ArrayLike, covariance: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    mean, factor = as_real(mean, "mean"), _cholesky(covariance)
    if mean.shape != (len(factor),):
        raise ValueError(
            f"mean must have the shape ({len(factor)},), as the covariance does; it has {mean.shape}"
        )
    return mean, factor


def _cholesky(covariance: ArrayLike) -> np.ndarray:
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


def _solve(factor: np.ndarray, x: np.ndarray) -> np.ndarray:
    """L^-1 x for points (..., D)."""
    flat = x.reshape(-1, x.shape[-1])
    return np.linalg.solve(factor, flat.T).T.reshape(x.shape)


# Histograms


class Histogram(NamedTuple):
    """heights (B_1, ..., B_D), the density in each cell; edges, the B_i + 1 borders of each dimension."""

    heights: np.ndarray
    edges: tuple[np.ndarray, ...]


def fit_histogram(data: ArrayLike, bins: int | Sequence, pseudocount: float = 0.0) -> Histogram:
    """The density that is constant in each cell: heights = (count + a)/((N + a cells) volume).

    bins: how many in each dimension, between the smallest and the largest point, or one array of edges for
    each dimension. a is the pseudocount: above 0, no cell is empty, and no new point inside is impossible.
    Cost O(N D) and bins^D cells, most of them empty as D grows. ValueError if a point is outside the edges.
    """
    data = as_data(data)
    if not pseudocount >= 0:
        raise ValueError(f"pseudocount must be 0 or more; it is {pseudocount}")
    count, edges = np.histogramdd(data, bins)
    if count.sum() != len(data):
        raise ValueError(f"{len(data) - int(count.sum())} points lie outside the edges: widen them")
    volume = np.ones(())
    for borders in edges:
        volume = volume[..., None] * np.diff(borders)
    return Histogram((count + pseudocount) / ((len(data) + pseudocount * count.size) * volume), tuple(edges))


def histogram_log_density(x: ArrayLike, histogram: Histogram) -> np.ndarray:
    """The log of the height of x's cell, -inf in empty cells and outside: (..., D) -> (...). O(D log bins).

    Cells include their left border; the last one includes both.
    """
    heights, edges = histogram
    x = as_points(x, len(edges))
    cell, inside = [], np.ones(x.shape[:-1], bool)
    for i, borders in enumerate(edges):
        x_i = x[..., i]
        inside &= (x_i >= borders[0]) & (x_i <= borders[-1])
        cell.append(np.clip(np.searchsorted(borders, x_i, side="right") - 1, 0, len(borders) - 2))
    with np.errstate(divide="ignore"):
        log_p = np.log(np.where(inside, heights[tuple(cell)], 0.0))
    return np.where(np.isnan(x).any(-1), np.nan, log_p).astype(x.dtype)[()]


# Likelihood and KL divergence


def mean_log_likelihood(log_density: Callable, x: ArrayLike) -> float:
    """The mean of log p over the points of x: up to a constant, minus KL(data || p). In nats a point."""
    return float(log_density(as_real(x)).mean())


def kl_gaussians(
    mean_p: ArrayLike, covariance_p: ArrayLike, mean_q: ArrayLike, covariance_q: ArrayLike
) -> float:
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


def kl_monte_carlo(log_p: Callable, log_q: Callable, x: ArrayLike) -> Estimate:
    """KL(p || q) = E log p(x) - log q(x), estimated by the mean over x drawn from p, with its standard error.

    Any two densities; the error falls as 1/sqrt(N). A mean below zero by many errors means that one of
    the log-densities is wrong, or that x is not drawn from p. The mean is inf where q gives a point
    density 0. ValueError if p itself does, or with fewer than two points.
    """
    x = as_real(x)
    own = np.ravel(log_p(x))
    if len(own) < 2 or (own == -math.inf).any():
        raise ValueError("x must hold two draws from p or more, and p must give each of them a density")
    ratio = own - np.ravel(log_q(x))
    if np.isposinf(ratio).any():
        return Estimate(math.inf, math.inf)
    return Estimate(float(ratio.mean()), float(ratio.std(ddof=1) / math.sqrt(len(ratio))))
