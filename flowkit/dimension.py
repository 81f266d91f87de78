"""Why a flow keeps the number of dimensions: rank and nullity, maps that collide, and the Hilbert curve.

A linear map from n to m < n dimensions sends a whole subspace to 0. A differentiable one does the same to
first order at each point, and walking along what it ignores gives other points of the same image. What is
only continuous can fill a square from a line, but not one-to-one; what is only one-to-one is not continuous.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev


def null_space(matrix: Tensor) -> Tensor:
    """An orthonormal basis of {v : A v = 0}, as columns: (m, n) -> (n, nullity).

    The right singular vectors whose singular value is below max(m, n) eps times the largest.
    Cost: O(m n^2 + n^3).

    >>> null_space(torch.tensor([[3.0, 4.0]])).abs()
    tensor([[0.8000],
            [0.6000]])
    """
    _, sizes, vectors = torch.linalg.svd(matrix, full_matrices=True)
    smallest = max(matrix.shape) * torch.finfo(matrix.dtype).eps * sizes.max() if len(sizes) else 0.0
    return vectors[int((sizes > smallest).sum()) :].mT


def rank_nullity(matrix: Tensor) -> tuple[int, int]:
    """The dimensions of the image and of the null space of A (m, n): they add up to n, and rank <= m.

    >>> rank_nullity(torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]))
    (1, 2)
    """
    nullity = null_space(matrix).shape[1]
    return matrix.shape[1] - nullity, nullity


def same_image(f: Callable[[Tensor], Tensor], x: Tensor, length: float, steps: int = 100) -> Tensor:
    """A path of points with the image of x: (steps + 1, n), each f(path_k) = f(x) to rounding.

    Each step goes length / steps along the null space of the Jacobian, on in the direction so far, and then
    three Newton steps x - J^+ (f(x) - target) return to the fibre. Since rank + nullity = n, every
    differentiable f to fewer dimensions has such a path through every point where it has full rank.
    f: (n,) -> (m,), differentiable by `torch.func`. Raises ValueError where the Jacobian has no null space.
    Cost: four Jacobians a step.

    >>> circle = same_image(lambda x: (x @ x)[None], torch.tensor([1.0, 0.0]), length=1.0)
    >>> bool((circle.norm(dim=1) - 1).abs().max() < 1e-5)
    True
    """
    target, path, direction = f(x), [x], None
    for _ in range(steps):
        ignored = null_space(jacrev(f)(x))
        if not ignored.shape[1]:
            raise ValueError("the Jacobian has no null space: near this point f ignores nothing")
        direction = ignored[:, 0] if direction is None else ignored @ (ignored.mT @ direction)
        direction = direction / direction.norm()
        x = x + length / steps * direction
        for _ in range(3):
            x = x - torch.linalg.pinv(jacrev(f)(x)) @ (f(x) - target)
        path.append(x)
    return torch.stack(path)


def hilbert_cells(order: int) -> Tensor:
    """The cells of a 2^n x 2^n grid in the order in which Hilbert's curve visits them: (4^n, 2) int64.

    Four copies of order n - 1, each in its quadrant, the first and last mirrored at a diagonal, so that the
    end of one is beside the start of the next: (y, x), (x, y + s), (x + s, y + s), (2 s - 1 - y, s - 1 - x).
    Every cell comes once, and neighbours in the order share an edge. Cell k of order n holds the cells
    4 k ... 4 k + 3 of order n + 1. Cost: O(4^n). Raises ValueError for a negative order. Hilbert 1891.

    >>> hilbert_cells(1).tolist()
    [[0, 0], [0, 1], [1, 1], [1, 0]]
    """
    if order < 0:
        raise ValueError(f"the order of Hilbert's curve is 0, 1, 2, ..., got {order}")
    x = y = torch.zeros(1, dtype=torch.int64)
    for n in range(order):
        s = 2**n
        x, y = torch.cat((y, x, x + s, 2 * s - 1 - y)), torch.cat((x, y + s, y + s, s - 1 - x))
    return torch.stack((x, y), -1)


def hilbert_curve(t: Tensor, order: int) -> Tensor:
    """The polygon through the centres of the order's cells at times t in [0, 1]: (...) -> (..., 2).

    Cell k has the time from k / 4^n to (k + 1) / 4^n, and the polygon is in it all that time. So polygons of
    order n and above differ by at most sqrt(2) / 2^n, everywhere: they converge uniformly, the limit is
    continuous, and it comes within sqrt(2) / 2^n of every point of the square, for every n: it fills it.
    Raises ValueError for t outside [0, 1].

    >>> hilbert_curve(torch.tensor([0.125, 0.25, 0.375]), 1).tolist()
    [[0.25, 0.25], [0.25, 0.5], [0.25, 0.75]]
    """
    if not ((t >= 0) & (t <= 1)).all():
        raise ValueError("the curve is defined for times from 0 to 1")
    centres = (hilbert_cells(order).to(t) + 0.5) / 2**order
    place = (t * 4**order - 0.5).clamp(0, 4**order - 1)
    k = place.floor().long().clamp(max=max(4**order - 2, 0))
    following = centres[(k + 1).clamp(max=4**order - 1)]
    return centres[k] + (place - k)[..., None] * (following - centres[k])


def largest_jump(order: int) -> float:
    """The longest time between two cells that share an edge, of a total of 1: how far the inverse tears.

    The curve is continuous: cells near in time are near in space. The way back is not: this stays above a
    half for every order, while the cells shrink to points. So the limit visits some points at two times.

    >>> largest_jump(1)
    0.75
    """
    when = torch.empty(2**order, 2**order, dtype=torch.int64)
    cells = hilbert_cells(order)
    when[cells[:, 0], cells[:, 1]] = torch.arange(4**order)
    jumps = [int(when.diff(dim=axis).abs().max()) for axis in (0, 1)] if order else [0]
    return max(jumps) / 4**order
