"""Densities under a change of variables: mass is conserved, so log p_X(x) = log p_Z(f(x)) + log abs f'(x).

The flow f : x -> z takes data to noise; x = f^-1(z) samples. In D dimensions the derivative becomes the
Jacobian's determinant. NumPy alone; every function takes arrays of any shape and keeps float32 and float64.
The maps of the line (affine, EXP, TANH, CUBIC and so on) are those of `flowkit.maps`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from flowkit.maps import ARCSIN_BRANCHES, SIGMOID, Map1D, affine, as_real

# Base densities, and the density of x = f^-1(z)


def standard_normal_log_density(z: ArrayLike) -> np.ndarray:
    """log N(z; 0, 1) = -(z^2 + log 2 pi) / 2."""
    return -0.5 * (np.square(as_real(z)) + math.log(2 * math.pi))


def logistic_log_density(z: ArrayLike) -> np.ndarray:
    """The log-density of logit(u), u uniform: the sigmoid is its distribution function, s'(z) its density."""
    return SIGMOID.log_abs_derivative(as_real(z))


def uniform_log_density(z: ArrayLike, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """-log(high - low) on [low, high], -inf outside."""
    z = as_real(z)
    log_p = np.where((z < low) | (z > high), -math.inf, -math.log(high - low))
    return np.where(np.isnan(z), z, log_p).astype(z.dtype)[()]


def log_density(f: Map1D, base_log_density: Callable, x: ArrayLike) -> np.ndarray:
    """log p_X(x) = log p_Z(f(x)) + log abs f'(x), and -inf outside the domain of f.

    The base should live on the codomain of f: mass that it has elsewhere is lost, and p_X integrates to less.

    >>> from flowkit.maps import LOG
    >>> round(float(log_density(LOG, standard_normal_log_density, 2.0)), 6)     # log-normal
    -1.852312
    """
    x = as_real(x)
    low, high = f.domain
    outside = (x <= low) | (x >= high)
    inside = np.where(outside, _interior(low, high), x).astype(x.dtype)
    log_p = base_log_density(f.forward(inside)) + f.log_abs_derivative(inside)
    return np.where(outside, -math.inf, log_p).astype(x.dtype)[()]


def _interior(low: float, high: float) -> float:
    """Some point of the interval."""
    if math.isfinite(low):
        return (low + high) / 2 if math.isfinite(high) else low + 1
    return high - 1 if math.isfinite(high) else 0.0


def log_density_of_branches(
    branches: Sequence[Map1D], base_log_density: Callable, x: ArrayLike
) -> np.ndarray:
    """The density of x = g(z) where several z share one x: p_X(x) = sum over k of p_Z(f_k(x)) abs f_k'(x).

    Branch k is the inverse of g on one interval on which g is monotone: a map x -> z_k, on its own domain.
    """
    return np.logaddexp.reduce([log_density(f, base_log_density, x) for f in branches], axis=0)


def sin_log_density(x: ArrayLike) -> np.ndarray:
    """The log-density of sin(theta), theta uniform on the circle: p(x) = 1/(pi sqrt(1 - x^2)) for abs x < 1.

    Each branch gives 1/(2 pi) times 1/sqrt(1 - x^2). The poles at -1 and 1 are integrable; outside it is 0.

    >>> round(float(np.exp(sin_log_density(0.0))), 6)
    0.31831
    """
    x = as_real(x)
    outside = np.abs(x) > 1
    with np.errstate(divide="ignore"):
        log_derivative = ARCSIN_BRANCHES[0].log_abs_derivative(np.where(outside, 0.0, x))
    return np.where(outside, -math.inf, log_derivative - math.log(math.pi)).astype(x.dtype)[()]


def tabulated_cdf(density: Callable, grid: ArrayLike) -> Map1D:
    """The distribution function of any density on an increasing grid, as a piecewise linear map to (0, 1).

    Within a cell the density is the mean of its ends (the trapezoid rule), divided by the sum: it integrates
    to one even if `density` does not. Where it is zero, F is flat and has no inverse, and no draw falls.
    ValueError if the density is negative or not finite on the grid, or zero on all of it.
    """
    grid = as_real(grid, "grid").astype(np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all():
        raise ValueError("grid must be one-dimensional and increasing, with two points or more")
    height = np.broadcast_to(density(grid), grid.shape)
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (height[1:] + height[:-1]) * np.diff(grid))])
    if (height < 0).any() or not 0 < mass[-1] < math.inf:
        raise ValueError("density must be finite and not negative on the grid, and not zero on all of it")
    cdf = mass / mass[-1]
    with np.errstate(divide="ignore"):
        log_slope = np.log(0.5 * (height[1:] + height[:-1]) / mass[-1])

    def log_abs_derivative(x: ArrayLike) -> np.ndarray:
        cell = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(log_slope) - 1)
        return log_slope[cell].astype(as_real(x).dtype)

    return Map1D(
        "tabulated cdf",
        lambda x: np.interp(x, grid, cdf).astype(as_real(x).dtype),
        lambda u: np.interp(u, cdf, grid).astype(as_real(u).dtype),
        log_abs_derivative,
        (float(grid[0]), float(grid[-1])),
    )


def inverse_cdf_sample(cdf: Map1D, shape: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws x = F^-1(u) with u uniform on the open interval (0, 1)."""
    return cdf.inverse(np.maximum(rng.random(shape), 2.0**-54))


# D dimensions, and the slow specifications that closed forms are checked against


def log_density_linear(
    x: ArrayLike, A: ArrayLike, b: ArrayLike, base_log_density: Callable = standard_normal_log_density
) -> np.ndarray:
    """log p_X(x) = log p_Z(A x + b) + log abs det A, for x (..., D) and independent base dimensions: (...).

    A: (D, D), or (..., D, D) with one matrix for each point; singular ones raise a ValueError. Cost O(D^3).
    """
    x, A = as_real(x), as_real(A, "A")
    if x.ndim == 0 or A.shape[-2:] != (x.shape[-1], x.shape[-1]):
        raise ValueError(
            f"A must have the shape (..., D, D) for x (..., D); they have {A.shape} and {x.shape}"
        )
    sign, log_abs_det = np.linalg.slogdet(A)
    if np.any(sign == 0):
        raise ValueError("A is singular: the map collapses space, and x has no density under it")
    z = (A @ x[..., None])[..., 0] + b
    return base_log_density(z).sum(-1) + log_abs_det


def numerical_jacobian(f: Callable, x: ArrayLike) -> np.ndarray:
    """J[..., i, j] = dz_i/dx_j by central differences, f from (..., D) to (..., M): (..., M, D). 2 D calls.

    The step, eps^(1/3) max(1, abs x_j), balances truncation, O(step^2), against rounding, O(eps/step).

    >>> numerical_jacobian(lambda x: x**2, np.array([1.0, 3.0])).round(6).tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """
    x = as_real(x)
    if x.ndim == 0:
        raise ValueError(
            "x must have the shape (..., D); for one number there is log_abs_derivative_numerical"
        )
    step = np.finfo(x.dtype).eps ** (1 / 3) * np.maximum(1, np.abs(x))
    columns = []
    for j in range(x.shape[-1]):
        right, left = x.copy(), x.copy()
        right[..., j] += step[..., j]
        left[..., j] -= step[..., j]
        width = right[..., j, None] - left[..., j, None]
        columns.append((f(right) - f(left)) / width)
    return np.stack(columns, axis=-1) if columns else np.zeros((*np.shape(f(x)), 0), x.dtype)


def log_abs_det_numerical(f: Callable, x: ArrayLike) -> np.ndarray:
    """log abs det of the numerical Jacobian: (..., D) -> (...). Any f, at 2 D calls and O(D^3)."""
    return np.linalg.slogdet(numerical_jacobian(f, x))[1]


def log_density_numerical(f: Callable, base_log_density: Callable, x: ArrayLike) -> np.ndarray:
    """log p_X(x) of any f in D dimensions, with independent base dimensions, by brute force: (...)."""
    return base_log_density(f(as_real(x))).sum(-1) + log_abs_det_numerical(f, x)


def log_abs_derivative_numerical(f: Callable, x: ArrayLike) -> np.ndarray:
    """log abs f'(x) of an elementwise f by central differences: the same for maps in one dimension."""
    x = as_real(x)
    return log_abs_det_numerical(f, x[..., None])


def integrate(density: Callable, grid: ArrayLike) -> float:
    """The integral of a density over a grid, by the trapezoid rule.

    >>> round(integrate(lambda x: np.exp(standard_normal_log_density(x)), np.linspace(-9, 9, 1001)), 9)
    1.0
    """
    grid = as_real(grid, "grid")
    return float(np.trapezoid(density(grid), grid))


# Maximum likelihood, where it has a closed form: z = slope x + shift with a standard normal base


def affine_nll(slope: float, shift: float, x: ArrayLike) -> float:
    """The mean of -log p_X over x: mean (z^2 + log 2 pi)/2 - log abs slope, with z = slope x + shift."""
    return -log_density(affine(slope, shift), standard_normal_log_density, x).mean()


def affine_nll_gradient(slope: float, shift: float, x: ArrayLike) -> tuple[float, float]:
    """d nll / d slope = mean(z x) - 1/slope, d nll / d shift = mean(z)."""
    x = as_real(x)
    z = affine(slope, shift).forward(x)
    return (z * x).mean() - 1 / float(slope), z.mean()


def fit_affine(x: ArrayLike) -> tuple[float, float]:
    """The slope and shift of greatest likelihood: 1/std and -mean/std, which whiten x. The mirror image, both
    negated, is as likely.

    ValueError if x is empty, not finite, or constant: the likelihood then grows with the slope forever.
    """
    x = as_real(x).astype(np.float64)
    if x.size == 0 or not np.isfinite(x).all() or not x.std() > 0:
        raise ValueError(
            "x must hold finite numbers, not all the same: the likelihood has no maximum otherwise"
        )
    return float(1 / x.std()), float(-x.mean() / x.std())
