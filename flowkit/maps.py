"""Monotone maps of the line, each with its inverse and log-derivative: the parts of a flow in one dimension.

NumPy alone; every function takes arrays of any shape and keeps float32 and float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

REAL_LINE = (-math.inf, math.inf)


def as_real(a: ArrayLike, name: str = "x") -> np.ndarray:
    """The array as real floating point: float32, float64 and longer stay, integers become float64."""
    a = np.asarray(a)
    if a.dtype.kind in "biu":
        return a.astype(np.float64)
    if a.dtype.kind != "f":
        raise TypeError(f"{name} must hold real numbers; it holds {a.dtype}")
    return a.astype(np.float32) if a.dtype == np.float16 else a


@dataclass(frozen=True)
class Map1D:
    """A strictly monotone map f : x -> z of an open interval, with all that a density needs of it.

    forward(x), inverse(z), log_abs_derivative(x)    elementwise, the last being log abs f'(x)
    domain, codomain                                 where x and z live; the codomain is the domain's image,
                                                     so forward must have a limit at the domain's ends

    >>> halve = affine(0.5, 0.0)
    >>> float(halve.forward(3.0)), float(halve.inverse(1.5)), halve.codomain
    (1.5, 3.0, (-inf, inf))
    """

    name: str
    forward: Callable
    inverse: Callable
    log_abs_derivative: Callable
    domain: tuple[float, float] = REAL_LINE

    @property
    def codomain(self) -> tuple[float, float]:
        return _image(self.forward, self.domain)


def _image(f: Callable, interval: tuple[float, float]) -> tuple[float, float]:
    """The interval between the images of the ends, in order: a decreasing f swaps them."""
    with np.errstate(divide="ignore"):
        low, high = sorted(float(f(np.float64(end))) for end in interval)
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"the map must have a limit at both ends of {interval}; it gives {low} and {high}")
    return low, high


def invert(f: Map1D) -> Map1D:
    """The same map walked backwards: z -> x, whose log-derivative at z is -log abs f'(f^-1(z))."""

    def log_abs_derivative(z: ArrayLike) -> np.ndarray:
        return -f.log_abs_derivative(f.inverse(z))

    return Map1D(f"inverse of {f.name}", f.inverse, f.forward, log_abs_derivative, f.codomain)


def compose(*maps: Map1D) -> Map1D:
    """f = f_K o ... o f_1: f_1 is applied to the data first, and log-derivatives add, each at its own input.

    The domain is where every step is defined; ValueError if it is empty. compose() is the identity.

    >>> f = compose(affine(2.0, 1.0), LOG)      # z = log(2 x + 1)
    >>> f.domain, round(float(f.log_abs_derivative(1.0)), 6)
    ((-0.5, inf), -0.405465)
    """

    def forward(x: np.ndarray) -> np.ndarray:
        for f in maps:
            x = f.forward(x)
        return x

    def inverse(z: np.ndarray) -> np.ndarray:
        for f in reversed(maps):
            z = f.inverse(z)
        return z

    def log_abs_derivative(x: ArrayLike) -> np.ndarray:
        total = np.zeros_like(as_real(x))
        for f in maps:
            total = total + f.log_abs_derivative(x)
            x = f.forward(x)
        return total

    domain = REAL_LINE
    for f in reversed(maps):
        low, high = max(domain[0], f.codomain[0]), min(domain[1], f.codomain[1])
        if not low < high:
            raise ValueError(
                f"{f.name} maps to {f.codomain}, and what follows needs {domain}: no x passes through both"
            )
        domain = _image(f.inverse, (low, high))
    return Map1D(
        " then ".join(f.name for f in maps) or "identity", forward, inverse, log_abs_derivative, domain
    )


# The maps. Each log-derivative is written so that it neither overflows nor cancels, however large x is.


def affine(slope: float, shift: float) -> Map1D:
    """z = slope x + shift, log abs f' = log abs slope. The slope may be negative; ValueError if it is 0."""
    slope, shift = float(slope), float(shift)
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(shift):
        raise ValueError(f"slope must be finite and not zero, shift finite; they are {slope} and {shift}")
    return Map1D(
        f"affine({slope:g}, {shift:g})",
        lambda x: slope * x + shift,
        lambda z: (z - shift) / slope,
        lambda x: np.full_like(as_real(x), math.log(abs(slope))),
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _logit(z: np.ndarray) -> np.ndarray:
    return np.log(z) - np.log1p(-z)


def _sigmoid_log_derivative(x: ArrayLike) -> np.ndarray:
    """log s(x)(1 - s(x)) = -softplus(x) - softplus(-x)."""
    return -np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x)))


def _tanh_log_derivative(x: ArrayLike) -> np.ndarray:
    """log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), even in x."""
    return 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))


def _cube_log_derivative(x: ArrayLike) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return math.log(3) + 2 * np.log(np.abs(x))


def _solve_cubic(z: np.ndarray) -> np.ndarray:
    """The real root of x + x^3 = z: x = 2/sqrt(3) sinh t makes it sinh 3t = 3 sqrt(3)/2 z. No cancelling."""
    return 2 / math.sqrt(3) * np.sinh(np.arcsinh(1.5 * math.sqrt(3) * z) / 3)


EXP = Map1D("exp", np.exp, np.log, as_real)
LOG = invert(EXP)
TANH = Map1D("tanh", np.tanh, np.arctanh, _tanh_log_derivative)
ARCTANH = invert(TANH)
SIGMOID = Map1D("sigmoid", _sigmoid, _logit, _sigmoid_log_derivative)
LOGIT = invert(SIGMOID)

# x^3 is a bijection but no diffeomorphism: its derivative vanishes at 0, so p_X(0) = 0 (log -inf) for any
# base; in the other direction, f = cube root, p_X has a pole at 0 (log +inf). Both still integrate to one.
CUBE = Map1D("x^3", lambda x: as_real(x) ** 3, np.cbrt, _cube_log_derivative)
CUBE_ROOT = invert(CUBE)

# x + x^3 has a derivative of at least 1: a diffeomorphism.
CUBIC = Map1D(
    "x + x^3", lambda x: x + as_real(x) ** 3, _solve_cubic, lambda x: np.log1p(3 * np.square(as_real(x)))
)


def _arcsin_log_derivative(x: np.ndarray) -> np.ndarray:
    return -0.5 * (np.log1p(-x) + np.log1p(x))


# sin on a circle has two branches: z rises from -pi/2 to pi/2, then x falls while z goes on to 3 pi/2.
ARCSIN_BRANCHES = (
    Map1D("arcsin", np.arcsin, np.sin, _arcsin_log_derivative, (-1.0, 1.0)),
    Map1D("pi - arcsin", lambda x: math.pi - np.arcsin(x), np.sin, _arcsin_log_derivative, (-1.0, 1.0)),
)


# A distribution function F is a flow to the uniform on (0, 1): its log-derivative is the log-density, its
# inverse the quantile function. The logistic distribution's F is SIGMOID.


def _cauchy_cdf(x: ArrayLike) -> np.ndarray:
    """1/2 + arctan(x)/pi, without cancellation in the left tail."""
    return np.arctan2(1, -as_real(x)) / math.pi


def _cauchy_quantile(u: ArrayLike) -> np.ndarray:
    """tan(pi (u - 1/2)) = -1/tan(pi u), from the nearer end, where u is precise."""
    u = as_real(u)
    return np.copysign(1 / np.tan(math.pi * np.minimum(u, 1 - u)), u - 0.5)


EXPONENTIAL_CDF = Map1D(
    "exponential cdf",
    lambda x: -np.expm1(-x),
    lambda u: -np.log1p(-u),
    lambda x: -as_real(x),
    (0.0, math.inf),
)
CAUCHY_CDF = Map1D(
    "Cauchy cdf", _cauchy_cdf, _cauchy_quantile, lambda x: -math.log(math.pi) - 2 * np.log(np.hypot(1, x))
)
