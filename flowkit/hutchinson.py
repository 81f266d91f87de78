"""Hutchinson's estimator: tr A = E[v'A v] for random probes v of mean 0 and covariance I.

One product A v in place of D of them, at the price of noise: averaging K probes divides its variance by K.
Hutchinson 1990.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Probe = Callable[[Tensor, Generator | None], Tensor]  # probe(like, generator): v with E[v v'] = I


def rademacher(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Random signs, -1 or 1 with probability 1/2 each, of the shape, dtype and device of `like`."""
    return torch.randint_like(like, 2, generator=generator).mul_(2).sub_(1)


def gaussian(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws from N(0, 1), of the shape, dtype and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def hutchinson_variance(matrix: Tensor, probe: Probe = rademacher) -> Tensor:
    """The variance of v'A v, one draw of Hutchinson's estimator of tr A, for (..., D, D) -> (...).

    With S = (A + A') / 2: gaussian 2 |S|_F^2; rademacher 2 (|S|_F^2 - sum over i of S_ii^2), which is the
    least of all distributions with independent entries, and 0 for a diagonal A, since signs square to 1. The
    antisymmetric part, a rotation, adds nothing. Raises ValueError for other probes.

    >>> [hutchinson_variance(torch.eye(3), probe).item() for probe in (gaussian, rademacher)]
    [6.0, 0.0]
    """
    squares = ((matrix + matrix.mT) / 2).square()
    total = squares.sum((-2, -1))
    if probe is rademacher:
        total = total - squares.diagonal(dim1=-2, dim2=-1).sum(-1)
    elif probe is not gaussian:
        raise ValueError("the variance is known for the probes rademacher and gaussian")
    return 2 * total
