"""Jacobians, what they do to areas, and where a map stops being a diffeomorphism.

J[..., i, j] = dz_i/dx_j for f : x (..., D) -> z (..., M) that treats each point by itself. NumPy alone, but
for the twins in torch at the end. `numerical_jacobian`, by central differences, is change_of_variables' own.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from flowkit.change_of_variables import numerical_jacobian as numerical_jacobian
from flowkit.dual import Dual, as_array, jvp
from flowkit.maps import as_real

if TYPE_CHECKING:  # flowkit.jacobians itself is light: torch loads in its twins alone
    from torch import Tensor

# Column by column


def jacobian(f: Callable, x: ArrayLike | Dual) -> np.ndarray:
    """J column by column, J e_j by a jvp for each j: (..., D) -> (..., M, D). D passes through f.

    Where f returns one number for each point, (...), this is its gradient, (..., D).

    >>> jacobian(lambda x: np.stack([x[0] * x[1], np.sin(x[1])]), [2.0, 0.0]).tolist()
    [[0.0, 2.0], [0.0, 1.0]]
    """
    x = x if isinstance(x, Dual) else as_real(x)
    if len(x.shape) == 0 or x.shape[-1] == 0:
        raise ValueError("x must have the shape (..., D), D at least 1; for one number there is derivative")
    basis = np.eye(x.shape[-1], dtype=x.dtype)
    return np.stack([jvp(f, x, e)[1] for e in basis], axis=-1)


def hessian(f: Callable, x: ArrayLike) -> np.ndarray:
    """H[..., i, j] = d^2 f / dx_i dx_j for f : (..., D) -> (...), by duals of duals: (..., D, D). D^2 passes.

    If f has M outputs, H is (..., M, D, D). The change of variables needs only J: volume is first order.

    >>> hessian(lambda x: x[0] ** 2 * x[1], [1.0, 3.0]).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    return jacobian(lambda y: jacobian(f, y), x)


# Products and inverses


def chain_jacobians(maps: Sequence[Callable], x: ArrayLike) -> list[np.ndarray]:
    """The Jacobian of each of f_1, ..., f_K in f_K o ... o f_1, each at its own input: K of (..., D, D).

    Their product J_K ... J_1 is the Jacobian of the whole, and so the product of their dets is its det.
    """
    at: np.ndarray | Dual = as_real(x)
    out = []
    for f in maps:
        out.append(jacobian(f, at))
        at = as_array(f(at))
    return out


def inverse_jacobian(f: Callable, x: ArrayLike) -> np.ndarray:
    """The Jacobian of f^-1 at z = f(x), which is J(x)^-1, without f^-1 itself: (..., D, D).

    Its det is 1/det J.
    ValueError where det J is 0: f has no differentiable inverse there.
    """
    try:
        return np.linalg.inv(jacobian(f, x))
    except np.linalg.LinAlgError:
        raise ValueError("J must be square, and not singular: f has no differentiable inverse at x") from None


# Areas in the plane


def polygon_area(vertices: ArrayLike) -> np.ndarray:
    """The area of polygons (..., N, 2) by the shoelace formula: (...). Negative where they run clockwise.

    >>> float(polygon_area([[0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    vertices = as_real(vertices, "vertices")
    if vertices.ndim < 2 or vertices.shape[-1] != 2:
        raise ValueError(f"vertices must have the shape (..., N, 2); their shape is {vertices.shape}")
    x, y = np.moveaxis(vertices - vertices[..., :1, :], -1, 0)  # from a corner: small areas keep their digits
    return 0.5 * (x * np.roll(y, -1, -1) - np.roll(x, -1, -1) * y).sum(-1)


def mapped_cell(f: Callable, x: ArrayLike, size: float, per_side: int = 1) -> np.ndarray:
    """The image of the square of this size about x (..., 2), as a polygon: (..., 4 per_side, 2).

    The square runs anticlockwise from its lower left corner; more points on each side follow bent images.
    """
    x = as_real(x)
    if x.ndim == 0 or x.shape[-1] != 2 or not size > 0 or per_side < 1:
        raise ValueError("x must have the shape (..., 2), size must be positive, and per_side 1 or more")
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], x.dtype) * (size / 2)
    ahead = np.roll(corners, -1, 0) - corners
    along = np.arange(per_side, dtype=x.dtype)[:, None] / per_side
    square = (corners[:, None] + along * ahead[:, None]).reshape(-1, 2)
    return f(x[..., None, :] + square)


def area_ratio(f: Callable, x: ArrayLike, size: float, per_side: int = 1) -> np.ndarray:
    """The area of the mapped cell over that of the square: (...). As size goes to 0 it tends to det J.

    The error is O(size^2), until rounding, O(eps abs z/size), takes over. Negative where f turns the square
    over; its absolute value is the factor by which f stretches areas, and so thins densities.
    """
    return polygon_area(mapped_cell(f, x, size, per_side)) / size**2


def from_polar(p: np.ndarray) -> np.ndarray:
    """(r, angle) -> (r cos angle, r sin angle), for p (..., 2). det J = r: zero at the origin."""
    r, angle = p[..., 0], p[..., 1]
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=-1)


def from_polar_jacobian(p: np.ndarray) -> np.ndarray:
    """[[cos angle, -r sin angle], [sin angle, r cos angle]]: (..., 2) -> (..., 2, 2)."""
    r, cos, sin = p[..., 0], np.cos(p[..., 1]), np.sin(p[..., 1])
    return np.stack([np.stack([cos, -r * sin], axis=-1), np.stack([sin, r * cos], axis=-1)], axis=-2)


def to_polar(x: np.ndarray) -> np.ndarray:
    """x (..., 2) -> (r, angle), the angle in (-pi, pi]: the inverse of from_polar on r > 0. det J = 1/r."""
    r = np.sqrt(np.square(x[..., 0]) + np.square(x[..., 1]))
    return np.stack([r, np.arctan2(x[..., 1], x[..., 0])], axis=-1)


# Diffeomorphisms


def det_sign(J: ArrayLike, tolerance: float = 1e-12) -> np.ndarray:
    """The sign of det J for J (..., D, D): 1, -1, or 0 where the rows of J are dependent: (...).

    Dependent: abs det J is at most tolerance times the product of the rows' lengths, Hadamard's bound. So
    a map that shrinks everything is not taken for one that collapses. For few dimensions: the ratio to the
    bound falls as exp(-D/2) even for random matrices.
    """
    J = as_real(J, "J")
    length = np.linalg.norm(J, axis=-1, keepdims=True)
    det = np.linalg.det(J / np.where(length > 0, length, 1))
    return np.where(np.abs(det) <= tolerance, 0.0, np.sign(det))


def singular_cells(f: Callable, *axes: ArrayLike, jacobian: Callable = jacobian) -> np.ndarray:
    """The cells of a grid in which f is not a diffeomorphism: det J has not one sign at all their corners.

    axes: for each dimension its grid points, (n_1,), ..., (n_D,). Returns booleans (n_1 - 1, ..., n_D - 1):
    True where det J changes sign, is zero, or is not a number. By the intermediate value theorem det J
    is then zero in the cell, if J is continuous. A grid accuses and never acquits: it misses a det that
    touches zero between its points, as x^3's does, and det J of one sign makes f injective only locally.
    jacobian(f, x): `jacobian`, or `numerical_jacobian` for an f that duals cannot follow.
    """
    points = np.stack(np.meshgrid(*(as_real(a, "axes") for a in axes), indexing="ij"), axis=-1)
    sign = det_sign(jacobian(f, points))
    low = high = np.where(np.isnan(sign), 0.0, sign)
    for axis in range(len(axes)):
        first, last = slice(None, -1), slice(1, None)
        pick = (slice(None),) * axis
        low = np.minimum(low[(*pick, first)], low[(*pick, last)])
        high = np.maximum(high[(*pick, first)], high[(*pick, last)])
    return (low <= 0) & (high >= 0)


# The same in torch: f takes and returns tensors


def torch_jvp(f: Callable, x: "Tensor", v: "Tensor") -> "tuple[Tensor, Tensor]":
    """f(x) and J v: jvp's twin, for tensors."""
    from torch import func

    return func.jvp(f, (x,), (v,))  # type: ignore[return-value]  # three with has_aux alone


def torch_vjp(f: Callable, x: "Tensor", w: "Tensor") -> "tuple[Tensor, Tensor]":
    """f(x) and w^T J, for w of f(x)'s shape: reverse mode, one row of J for a small multiple of f's own cost.

    A gradient is one vjp where it is D jvps, so training goes backwards; forward mode keeps no tape.
    """
    from torch import func

    z, pull_back = func.vjp(f, x)  # type: ignore[misc]  # three with has_aux alone
    return z, pull_back(w)[0]


def torch_jacobian(f: Callable, x: "Tensor") -> "Tensor":
    """J by rows, a vjp for each, (..., M, D). M passes backwards, vectorized; f sees one point (D,)."""
    from torch import func

    rows = func.vmap(func.jacrev(f))(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], *rows.shape[1:])
