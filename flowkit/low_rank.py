"""A linear flow whose matrix is diagonal plus low rank: a determinant and an inverse of size r, not D.

Two identities carry it. The matrix determinant lemma, det(S + U V') = det S det(I_r + V' S^-1 U), and
Woodbury's, (S + U V')^-1 = S^-1 - S^-1 U (I_r + V' S^-1 U)^-1 V' S^-1. Both ask only for the r x r matrix
in the middle, the capacitance.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import Bijection, check_width


def low_rank_log_det(log_diagonal: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """log abs det(S + U V') = sum of s_i + log abs det(I_r + V' S^-1 U), with S = diag(exp(s)).

    log_diagonal s: (D,); u and v: (D, r). Returns a scalar, minus infinity for a singular matrix.
    Cost: O(D r^2 + r^3), where the dense determinant takes O(D^3). Harville 1997 (Matrix algebra from a
    statistician's perspective), chapter 18.

    >>> u, v = torch.ones(3, 1), torch.ones(3, 1)
    >>> round(low_rank_log_det(torch.zeros(3), u, v).exp().item(), 4)        # det(I + u v') = 1 + v.u
    4.0
    """
    return log_diagonal.sum() + torch.linalg.slogdet(capacitance(log_diagonal, u, v)).logabsdet


def low_rank_solve(log_diagonal: Tensor, u: Tensor, v: Tensor, y: Tensor) -> Tensor:
    """x with (S + U V') x = y for each point, by Woodbury's identity: y and x are (..., D).

    log_diagonal s: (D,), S = diag(exp(s)); u and v: (D, r). Cost: O(D r^2 + r^3) once and O(D r) a point.
    Where the diagonal is small beside U V' the two terms of the identity cancel, and digits are lost: a
    second solve, of what the first left over, brings most of them back (iterative refinement).
    Raises torch.linalg.LinAlgError if the capacitance is exactly singular, and with it the matrix.

    >>> low_rank_solve(torch.zeros(2), torch.ones(2, 1), torch.ones(2, 1), torch.tensor([3.0, 3.0])).tolist()
    [1.0, 1.0]
    """
    middle = capacitance(log_diagonal, u, v).mT

    def by_woodbury(y: Tensor) -> Tensor:
        scaled = y * (-log_diagonal).exp()
        rows = torch.linalg.solve(middle, (scaled @ v).reshape(-1, v.shape[-1]), left=False)
        return scaled - rows.reshape(*y.shape[:-1], v.shape[-1]) @ u.mT * (-log_diagonal).exp()

    x = by_woodbury(y)
    return x + by_woodbury(y - x * log_diagonal.exp() - (x @ v) @ u.mT)


def capacitance(log_diagonal: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """I_r + V' S^-1 U, (r, r): singular exactly where S + U V' is. O(D r^2)."""
    return (
        torch.eye(u.shape[-1], dtype=u.dtype, device=u.device) + (v * (-log_diagonal).exp()[:, None]).mT @ u
    )


class LowRank(Bijection):
    """z = A x + b with A = diag(exp(s)) + U V': a diagonal, and r directions in which dimensions mix.

    forward   z = exp(s) * x + U (V' x) + b      log abs det dz/dx =  log abs det A
    inverse   x = A^-1 (z - b)                   log abs det dx/dz = -log abs det A
              log abs det A = sum of s_i + log abs det(I_r + V' diag(exp(-s)) U)
    Cost: O(D r) a point for z and for x; O(D r^2 + r^3) once for the log-dets and for Woodbury's capacitance.
    The matrix itself, of D^2 entries, is never formed. `low_rank_solve` says when digits are lost.
    Constraint: det A != 0, which nothing enforces; as for `linear.Dense`, maximum likelihood stays away.
    Parameters: log_diagonal s (D,) and U (D, r), zero at the start: the identity; V (D, r), random with
    columns of length about 1, so that U has a gradient; bias b (D,), zero.
    Raises ValueError unless 1 <= rank <= dim, or if x does not have D dimensions; torch.linalg.LinAlgError on
    inverting a singular A.

    >>> f = LowRank(100, rank=2)
    >>> x = torch.randn(5, 100)
    >>> bool((f.forward(x)[0] == x).all()), sum(p.numel() for p in f.parameters())
    (True, 600)
    """

    def __init__(self, dim: int, rank: int):
        super().__init__()
        if not 1 <= rank <= dim:
            raise ValueError(f"the rank of LowRank must be between 1 and the dimension {dim}, got {rank}")
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.u = nn.Parameter(torch.zeros(dim, rank))
        self.v = nn.Parameter(torch.randn(dim, rank) / dim**0.5)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.bias), "LowRank")
        z = x * self.log_diagonal.exp() + F.linear(x @ self.v, self.u, self.bias)
        return z, self._log_det().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.bias), "LowRank")
        x = low_rank_solve(self.log_diagonal, self.u, self.v, z - self.bias)
        return x, -self._log_det().expand(z.shape[:-1])

    def _log_det(self) -> Tensor:
        return low_rank_log_det(self.log_diagonal, self.u, self.v)
