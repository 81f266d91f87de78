"""Splines: increasing scalar maps with many parameters.

As transformers of `flowkit.coupling.Coupling` they bend each element by what the kept ones say, where an
affine map only shifts and scales. A spline maps [-bound, bound] to itself, cut into bins by knots
(x_k, z_k); outside it is the identity (linear tails). In bin k, with t = (x - x_k) / w and
y = (z - z_k) / h, where w and h are its width and height, the curve is an increasing map y(t) of the unit
interval, and dz/dx = (h / w) dy/dt. Every family below is one such y(t).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import Bijection, check_width
from flowkit.coupling import Transformer, Way


class Knots(NamedTuple):
    """K + 1 points that an increasing curve meets, and its slopes there; each (..., K + 1).

    x, z: increasing, both from -bound to bound. slope: positive; a linear spline does not read it.
    """

    x: Tensor
    z: Tensor
    slope: Tensor


class Curve(NamedTuple):
    """y(t) on one bin, from (0, 0) to (1, 1), with slopes a at t = 0 and b at t = 1.

    value(t, a, b) -> y, log dy/dt      solve(y, a, b) -> t, the inverse in closed form
    """

    value: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    solve: Callable[[Tensor, Tensor, Tensor], Tensor]


def linear_value(t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y = t; slope 1."""
    return t, torch.zeros_like(t)


def linear_solve(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """t = y."""
    return y


def quadratic_value(t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y = a t + (b - a) t^2 / 2; slope a (1 - t) + b t. It ends at (1, 1) because (a + b) / 2 = 1."""
    slope = a * (1 - t) + b * t
    return t * (a + slope) / 2, slope.log()


def quadratic_solve(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """t = 2 y / (a + dy/dt), where (dy/dt)^2 = a^2 (1 - y) + b^2 y is the discriminant, never negative."""
    return 2 * y / (a + (a * a * (1 - y) + b * b * y).sqrt())


def rational_quadratic_value(t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y = t (t + a (1 - t)) / q, with q = t^2 + (1 - t)^2 + (a + b) t (1 - t).

    dy/dt = (a (1 - t)^2 + 2 t (1 - t) + b t^2) / q^2. Only positive numbers are added: nothing cancels.
    """
    u = 1 - t
    q = t * t + u * u + (a + b) * t * u
    return t * (t + a * u) / q, (a * u * u + 2 * t * u + b * t * t).log() - 2 * q.log()


def rational_quadratic_solve(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """t = 2 y / (2 y + m + r), with m = a (1 - y) - b y and r^2 = m^2 + 4 y (1 - y).

    r^2 is the discriminant of the quadratic equation for t. Written as b^2 - 4 a c it can round to a
    negative number; as a sum of squares it cannot, and it is 0 nowhere, since a and b are positive.
    Where m < 0, m + r would cancel: there it is 4 y (1 - y) / (r - m).
    """
    m, product = a * (1 - y) - b * y, 4 * y * (1 - y)
    larger = (m * m + product).sqrt() + m.abs()
    return 2 * y / (2 * y + torch.where(m < 0, product / larger, larger))


LINEAR = Curve(linear_value, linear_solve)
QUADRATIC = Curve(quadratic_value, quadratic_solve)
RATIONAL_QUADRATIC = Curve(rational_quadratic_value, rational_quadratic_solve)


def spline_forward(x: Tensor, knots: Knots, curve: Curve = RATIONAL_QUADRATIC) -> tuple[Tensor, Tensor]:
    """z and log dz/dx of a spline; the identity outside the knots. x: (...), knots: (..., K + 1) each."""
    inside, x_in, (x0, x1, z0, z1, d0, d1) = _bin(x, knots.x, knots)
    w, h = x1 - x0, z1 - z0
    y, log_slope = curve.value((x_in - x0) / w, d0 * w / h, d1 * w / h)
    return torch.where(inside, z0 + h * y, x), torch.where(inside, log_slope + (h / w).log(), 0)


def spline_inverse(z: Tensor, knots: Knots, curve: Curve = RATIONAL_QUADRATIC) -> tuple[Tensor, Tensor]:
    """x and log dx/dz of a spline; the identity outside the knots. z: (...), knots: (..., K + 1) each."""
    inside, z_in, (x0, x1, z0, z1, d0, d1) = _bin(z, knots.z, knots)
    w, h = x1 - x0, z1 - z0
    a, b = d0 * w / h, d1 * w / h
    t = curve.solve((z_in - z0) / h, a, b)
    log_slope = curve.value(t, a, b)[1] + (h / w).log()
    return torch.where(inside, x0 + w * t, z), torch.where(inside, -log_slope, 0)


def _bin(x: Tensor, edges: Tensor, knots: Knots) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Whether x lies between the outer edges, x moved there, and both ends of its bin in each of knots.

    The clamp stands before the maths: a `where` behind it would hide values out of range, and still pass
    their NaN gradients on.
    """
    low, high = edges[..., 0], edges[..., -1]
    inside = (x >= low) & (x <= high)
    x_in = torch.where(inside, x, low.detach())
    k = (edges[..., 1:-1] <= x_in[..., None]).sum(-1)  # the last edges are no start of a bin
    table = torch.stack(knots, -2)
    ends = torch.stack((k, k + 1), -1)[..., None, :].expand(*k.shape, 3, 2)
    return inside, x_in, table.expand(*k.shape, *table.shape[-2:]).gather(-1, ends).flatten(-2).unbind(-1)


def edges(sizes: Tensor, bound: float) -> Tensor:
    """The K + 1 ends of bins in [-bound, bound] with these relative sizes: (..., K), their sum is 1."""
    inner = bound * (2 * sizes.cumsum(-1)[..., :-1] - 1)
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def shares(raw: Tensor, smallest: float) -> Tensor:
    """Softmax over the last axis, squeezed so that no share is below the smallest; equal shares at 0."""
    return smallest + (1 - raw.shape[-1] * smallest) * raw.softmax(-1)


def above(raw: Tensor, smallest: float) -> Tensor:
    """smallest + softplus, shifted along raw so that it is 1 at 0."""
    return smallest + F.softplus(raw + math.log(math.expm1(1 - smallest)))


def linear_knots(params: Tensor, bins: int, bound: float, smallest: float) -> Knots:
    """Bins of equal width; params (..., K) holds the raw heights."""
    z = edges(shares(params, smallest), bound)
    x = torch.linspace(-bound, bound, bins + 1, dtype=z.dtype, device=z.device).expand_as(z)
    return Knots(x, z, torch.ones_like(z))


def quadratic_knots(params: Tensor, bins: int, bound: float, smallest: float) -> Knots:
    """params (..., 2K + 1) holds K raw widths and K + 1 raw slopes, scaled to the right total height."""
    raw_widths, raw_slopes = params.split((bins, bins + 1), -1)
    widths, slopes = shares(raw_widths, smallest), above(raw_slopes, smallest)
    areas = widths * (slopes[..., :-1] + slopes[..., 1:]) / 2
    total = areas.sum(-1, keepdim=True)
    return Knots(edges(widths, bound), edges(areas / total, bound), slopes / total)


def rational_quadratic_knots(params: Tensor, bins: int, bound: float, smallest: float) -> Knots:
    """params (..., 3K - 1) holds raw widths (K), heights (K) and inner slopes (K - 1); outer slopes are 1."""
    raw_widths, raw_heights, raw_slopes = params.split((bins, bins, bins - 1), -1)
    return Knots(
        edges(shares(raw_widths, smallest), bound),
        edges(shares(raw_heights, smallest), bound),
        F.pad(above(raw_slopes, smallest), (1, 1), value=1.0),
    )


def linear(bins: int = 8, bound: float = 5.0, smallest: float = 1e-3) -> Transformer:
    """A piecewise linear map with bins of equal width: its density is a histogram, with jumps at the knots.

    size = bins: the raw heights. Otherwise as `rational_quadratic`. Mueller et al. 2019 (Neural importance
    sampling), section 4.1.
    """
    return _spline(linear_knots, LINEAR, bins, bins, bound, smallest)


def quadratic(bins: int = 8, bound: float = 5.0, smallest: float = 1e-3) -> Transformer:
    """A piecewise quadratic map: its slope is piecewise linear, continuous inside, with jumps at the bounds.

    size = 2 bins + 1: raw widths and raw slopes at all knots; the heights follow from them, being integrals
    of the slope. Otherwise as `rational_quadratic`. Mueller et al. 2019 (Neural importance sampling),
    section 4.2.
    """
    return _spline(quadratic_knots, QUADRATIC, 2 * bins + 1, bins, bound, smallest)


def rational_quadratic(bins: int = 8, bound: float = 5.0, smallest: float = 1e-3) -> Transformer:
    """A monotone rational-quadratic spline: on each bin a quotient of quadratics, with continuous slopes.

    forward   z = z_k + h y(t)      log-derivative log(h / w) + log dy/dt       (see `Curve`)
    inverse   the root of a quadratic equation, in closed form; log-derivative minus that at the root
    Cost: O(bins) an element, in both directions. Outside [-bound, bound] z = x, and the slope is 1 there.
    size = 3 bins - 1: raw widths, raw heights (softmax) and raw inner slopes (softplus). All zero: the
    identity. Positive widths, heights and slopes make the map increasing; `smallest` holds them away from
    0: it is the least share of a bin in width and in height, and the least slope at a knot.
    Raises ValueError unless bins >= 1, bound > 0 and 0 < smallest < 1 / bins.
    Durkan et al. 2019 (Neural spline flows), eq. 4 to 8 and appendix A.

    >>> g = rational_quadratic(bins=4, bound=3.0)
    >>> x = torch.tensor([-9.0, -3.0, 0.5, 3.0, 9.0])
    >>> z, log_slope = g.forward(x, torch.randn(5, g.size))
    >>> bool((z[[0, 1, 3, 4]] == x[[0, 1, 3, 4]]).all()), log_slope[[0, 4]].tolist()
    (True, [0.0, 0.0])
    """
    return _spline(rational_quadratic_knots, RATIONAL_QUADRATIC, 3 * bins - 1, bins, bound, smallest)


def _spline(
    make_knots: Callable[..., Knots], curve: Curve, size: int, bins: int, bound: float, smallest: float
) -> Transformer:
    if bins < 1 or not bound > 0:
        raise ValueError(f"a spline needs one bin or more and a positive bound, got {bins} and {bound}")
    if not 0 < smallest < 1 / bins:
        raise ValueError(
            f"{bins} shares of [-bound, bound] are each below 1 / {bins}, got smallest={smallest}"
        )
    options = {"bins": bins, "bound": bound, "smallest": smallest}
    return Transformer(
        partial(_spline_way, spline_forward, make_knots, curve, options),
        partial(_spline_way, spline_inverse, make_knots, curve, options),
        size,
    )


def _spline_way(
    way: Callable[..., tuple[Tensor, Tensor]],
    make_knots: Callable[..., Knots],
    curve: Curve,
    options: dict,
    x: Tensor,
    params: Tensor,
) -> tuple[Tensor, Tensor]:
    return way(x, make_knots(params, **options), curve)


class Elementwise(Bijection):
    """z_i = g(x_i; params_i): a transformer with free parameters for each dimension, in place of a network.

    forward   z_i = g(x_i; params_i)         log abs det dz/dx = sum over i of log g'(x_i; params_i)
    inverse   x_i = g^-1(z_i; params_i)      log abs det dx/dz = sum over i of log (g^-1)'(z_i; params_i)
    Cost: D times that of the transformer. Parameters: params (D, size), zero at the start: the identity.
    Raises ValueError if x does not have D dimensions.
    """

    def __init__(self, dim: int, transformer: Transformer):
        super().__init__()
        self.transformer = transformer
        self.params = nn.Parameter(torch.zeros(dim, transformer.size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.transformer.forward, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.transformer.inverse, z)

    def _each(self, g: Way, x: Tensor) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.params), "Elementwise")
        z, log_slope = g(x, self.params)
        return z, log_slope.sum(-1)
