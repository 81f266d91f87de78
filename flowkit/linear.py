"""Linear flows: z = A x + b, and the ways to write A so that its determinant and its inverse cost little.

The Jacobian is A everywhere, so one log-det serves all points. A full matrix costs O(D^3) for it; a
triangular one O(D), the product of its diagonal; an orthogonal one nothing at all, since abs det = 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import Bijection, Compose, check_width


class Permutation(Bijection):
    """Reorders dimensions: z_i = x_order[i].

    forward   z = P x, P[i, order[i]] = 1      log abs det dz/dx = 0
    inverse   x = P' z                         log abs det dx/dz = 0
    Cost: O(D) for each. No parameters; the buffers order (D,) and its inverse.
    Raises ValueError if order is not a permutation of 0 to D - 1, or x does not have D dimensions.

    >>> Permutation([2, 0, 1]).forward(torch.tensor([1.0, 2.0, 3.0]))
    (tensor([3., 1., 2.]), tensor(0.))
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int] | Tensor):
        super().__init__()
        order = torch.as_tensor(order, dtype=torch.long)
        if order.ndim != 1 or order.sort()[0].tolist() != list(range(order.numel())):
            raise ValueError(f"not a permutation of 0 to D - 1: {order.tolist()}")
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    @classmethod
    def reverse(cls, dim: int) -> "Permutation":
        """The last dimension first."""
        return cls(range(dim - 1, -1, -1))

    @classmethod
    def random(cls, dim: int, seed: int) -> "Permutation":
        """One of the dim! orders, drawn from a seed."""
        return cls(torch.randperm(dim, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.order), "Permutation")
        return x.index_select(-1, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.order), "Permutation")
        return z.index_select(-1, self.back), z.new_zeros(z.shape[:-1])


class Dense(Bijection):
    """z = A x + b with A any invertible matrix.

    forward   z = A x + b             log abs det dz/dx =  log abs det A
    inverse   x = A^-1 (z - b)        log abs det dx/dz = -log abs det A
    Cost: forward O(D^2) a point, inverse O(D^3) once and O(D^2) a point (one LU, no inverse is formed),
    log-dets O(D^3) once.
    Constraint: det A != 0, which nothing enforces: gradient ascent on the log-likelihood stays away by
    itself, since log abs det A falls to minus infinity there; PLU cannot get there at all.
    Parameters: weight A (D, D), bias b (D,); the identity at the start.
    Raises ValueError if x does not have D dimensions; torch.linalg.LinAlgError on inverting a singular A.

    >>> Dense(2).forward(torch.tensor([1.0, 2.0]))[0].tolist()
    [1.0, 2.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.bias), "Dense")
        return F.linear(x, self.weight, self.bias), self._log_det().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.bias), "Dense")
        rows = (z - self.bias).reshape(-1, len(self.bias))
        x = torch.linalg.solve(self.weight.mT, rows, left=False)  # rows are points: X A' = Z - b
        return x.reshape(z.shape), -self._log_det().expand(z.shape[:-1])

    def _log_det(self) -> Tensor:
        return torch.linalg.slogdet(self.weight).logabsdet  # det itself overflows from D of about 100


class Triangular(Bijection):
    """z = T x + b with T triangular and its diagonal positive.

    forward   z = T x + b             log abs det dz/dx =  sum over i of log T_ii = sum of s_i
    inverse   x = T^-1 (z - b)        log abs det dx/dz = -sum of s_i
    Cost: O(D^2) a point for z and for x (substitution), O(D) for the log-dets. Invertible for all parameters.
    Parameters: weight (D, D), of which only the part below (lower) or above the diagonal is used;
    log_diagonal s (D,); bias b (D,). All zero at the start: the identity. Raises ValueError if x does not
    have D dimensions.

    >>> bool((Triangular(3).matrix() == torch.eye(3)).all())
    True
    """

    def __init__(self, dim: int, lower: bool = True):
        super().__init__()
        self.lower = lower
        self.weight = nn.Parameter(torch.zeros(dim, dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def matrix(self) -> Tensor:
        """T, (D, D)."""
        strict = self.weight.tril(-1) if self.lower else self.weight.triu(1)
        return strict + self.log_diagonal.exp().diag()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.bias), "Triangular")
        return F.linear(x, self.matrix(), self.bias), self.log_diagonal.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.bias), "Triangular")
        x = solve(self.matrix(), z - self.bias, upper=not self.lower)
        return x, -self.log_diagonal.sum().expand(z.shape[:-1])


class PLU(Bijection):
    """z = P L U x + b: a permutation, a unit lower triangular matrix and an upper triangular one.

    forward   z = P L U x + b                     log abs det dz/dx =  sum over i of log abs U_ii = sum of s_i
    inverse   x = U^-1 L^-1 P' (z - b)            log abs det dx/dz = -sum of s_i
    Cost: O(D^2) a point for z and for x (two substitutions), O(D) for the log-dets. Every invertible matrix
    has this form for some P; and with U_ii = sign_i exp(s_i) no value of the parameters is singular.
    Parameters: weight (D, D), the part of L below its diagonal and the part of U above; log_diagonal s
    (D,); bias b (D,). All zero at the start. Buffers: order (D,), (P y)_i = y_order[i], and sign (D,), both
    fixed in training: the identity and ones, unless from_matrix sets them. Raises ValueError if x does not
    have D dimensions.
    Kingma and Dhariwal 2018 (Glow), eq. 10 and 11.

    >>> f = PLU.from_matrix(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    >>> z, log_det = f.forward(torch.tensor([1.0, 1.0]))
    >>> z.tolist(), round(log_det.exp().item(), 4)
    ([2.0, 1.0], 2.0)
    """

    order: Tensor
    sign: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("order", torch.arange(dim))
        self.register_buffer("sign", torch.ones(dim))

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> "PLU":
        """The layer whose P L U is the given matrix (D, D), in its dtype. O(D^3); ValueError if singular."""
        layer = cls(len(matrix)).to(matrix)
        permutation, lower, upper = torch.linalg.lu(matrix)
        diagonal = upper.diagonal()
        if (diagonal == 0).any():
            raise ValueError("the matrix is singular: its LU decomposition has a zero on the diagonal")
        with torch.no_grad():
            layer.weight.copy_(lower.tril(-1) + upper.triu(1))
            layer.log_diagonal.copy_(diagonal.abs().log())
        layer.sign.copy_(diagonal.sign())
        layer.order.copy_(permutation.argmax(1))
        return layer

    def matrix(self) -> Tensor:
        """P L U, (D, D). O(D^3)."""
        lower, upper = self.factors()
        return (lower @ upper).index_select(0, self.order)

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, each (D, D)."""
        lower = self.weight.tril(-1) + torch.eye(len(self.bias)).to(self.weight)
        return lower, self.weight.triu(1) + (self.sign * self.log_diagonal.exp()).diag()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.bias), "PLU")
        lower, upper = self.factors()
        z = F.linear(F.linear(x, upper), lower).index_select(-1, self.order) + self.bias
        return z, self.log_diagonal.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.bias), "PLU")
        lower, upper = self.factors()
        y = (z - self.bias).index_select(-1, self.order.argsort())
        x = solve(upper, solve(lower, y, upper=False), upper=True)
        return x, -self.log_diagonal.sum().expand(z.shape[:-1])


class Householder(Bijection):
    """z = H_K ... H_1 x, a product of reflections H_k = I - 2 v_k v_k' / v_k'v_k; orthogonal.

    forward   z = H_K ... H_1 x      log abs det dz/dx = 0
    inverse   x = H_1 ... H_K z      log abs det dx/dz = 0     each reflection is its own inverse
    Cost: O(K D) a point for z and for x; the log-dets are known. K = D reflections reach every orthogonal
    matrix whose determinant is (-1)^D. Parameters: vectors (K, D), random at the start; only their
    directions count.
    Constraint: v_k != 0. Raises ValueError if x does not have D dimensions. Tomczak and Welling 2016.

    >>> x = torch.tensor([3.0, 4.0])
    >>> round(Householder(2, 5).forward(x)[0].norm().item(), 4)
    5.0
    """

    def __init__(self, dim: int, reflections: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(reflections, dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflect(x, F.normalize(self.vectors, dim=-1))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflect(z, F.normalize(self.vectors, dim=-1).flip(0))

    def _reflect(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        check_width(x, directions.shape[-1], "Householder")
        for u in directions:
            x = x - 2 * (x @ u)[..., None] * u
        return x, x.new_zeros(x.shape[:-1])


class QR(Compose):
    """z = Q (R x + b): R upper triangular with a positive diagonal, Q orthogonal, of D reflections.

    forward   z = Q (R x + b)         log abs det dz/dx =  sum over i of log R_ii
    inverse   x = R^-1 (Q' z - b)     log abs det dx/dz = -sum over i of log R_ii
    Cost: O(D^2) a point for z and for x, O(D) for the log-dets. Parameters: those of Triangular and
    Householder.

    >>> f, x = QR(3), torch.randn(4, 3)
    >>> bool((f.inverse(f.forward(x)[0])[0] - x).abs().max() < 1e-4)
    True
    """

    def __init__(self, dim: int):
        super().__init__(Triangular(dim, lower=False), Householder(dim, dim))


def solve(triangular: Tensor, z: Tensor, upper: bool) -> Tensor:
    """x with T x = z for each point: T (D, D) triangular, z (..., D). O(D^2) a point, by substitution.

    >>> solve(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([1.0, 5.0]), upper=False).tolist()
    [1.0, 2.0]
    """
    rows = z.reshape(-1, z.shape[-1])
    return torch.linalg.solve_triangular(triangular.mT, rows, upper=not upper, left=False).reshape(z.shape)
