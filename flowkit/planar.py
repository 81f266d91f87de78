"""Flows of low rank: planar, radial and Sylvester.

z = x + A h(B'x + b) with A and B of M columns has det dz/dx = det(I_M + diag(h') B'A), by the determinant
lemma and Sylvester's identity: M x M in place of D x D. Each layer has one scalar equation (Sylvester M) to
solve for its inverse, monotone where its constraint holds.

The papers push noise forward, x = g(z). Here forward goes from data to noise, as everywhere: the flow of
variational inference, whose sampling must be the cheap direction, is `Inverse` of these layers.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import Bijection, check_width
from flowkit.linear import Householder

BISECTIONS, NEWTON_STEPS = 12, 10
ONE = math.log(math.e - 1)  # softplus(ONE) = 1


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), finite for every x. F.softplus turns linear at 20, which loses 2e-9."""
    return -F.logsigmoid(-x)


def tanh_root(target: Tensor, gain: Tensor) -> Tensor:
    """a with a + (gain - 1) tanh(a) = target: unique, because the left side increases for every gain > 0.

    target and gain broadcast; gain is the slope of the left side at 0, and 1 its slope far out. Both sides
    are odd, so take target >= 0. With c = gain - 1, the root lies between target and q: the larger of
    target / gain and target - c when c >= 0, the smaller when c < 0. 12 bisections; then 10 Newton steps from
    the end on q's side, which cannot overshoot: the left side is concave for c >= 0, convex for c < 0.
    Tolerance: the equation holds to 4 eps |a| (1 + |c|) for gains from 1e-8 to 1e6, with eps = 1.2e-7 in
    float32 and 2.2e-16 in float64.
    Differentiable to every order by the implicit function theorem: da/dtarget = 1 / slope, da/dgain =
    -tanh(a) / slope. Cost: 22 evaluations of the left side and 10 of its slope, none kept in the graph.

    >>> a = tanh_root(torch.tensor(2.0), torch.tensor(4.0))
    >>> bool((a + 3 * a.tanh() - 2).abs() < 1e-6)
    True
    """
    return _TanhRoot.apply(*torch.broadcast_tensors(target, gain))


class _TanhRoot(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(target: Tensor, gain: Tensor) -> Tensor:  # type: ignore[override]  # as vmap needs it
        size, gain = target.abs(), gain.clamp(min=torch.finfo(gain.dtype).tiny)  # softplus underflows to 0
        concave = gain >= 1
        steep, flat = size / gain, size - (gain - 1)
        near, far = torch.where(concave, torch.maximum(steep, flat), torch.minimum(steep, flat)), size
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            is_near = (_left_side(middle, gain) < size) == concave
            near, far = torch.where(is_near, middle, near), torch.where(is_near, far, middle)
        for _ in range(NEWTON_STEPS):
            near = near - (_left_side(near, gain) - size) / tanh_slope(near, gain)
        return near * target.sign()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.save_for_backward(output, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a, gain = ctx.saved_tensors
        grad_target = grad / tanh_slope(a, gain)
        return grad_target, -grad_target * a.tanh()


def _left_side(a: Tensor, gain: Tensor) -> Tensor:
    h = a.tanh()
    return gain * h + (a - h)


def tanh_slope(a: Tensor, gain: Tensor) -> Tensor:
    """d/da of a + (gain - 1) tanh(a), written as gain sech(a)^2 + tanh(a)^2: a sum of positive terms.

    The form 1 + (gain - 1) sech(a)^2 cancels near gain = 0, and 1 - tanh(a)^2 at large a.
    """
    return gain * (4 * torch.sigmoid(2 * a) * torch.sigmoid(-2 * a)) + a.tanh().square()


class Planar(Bijection):
    """z = x + u^ tanh(w.x + b): stretches or contracts space across the hyperplane w.x + b = 0.

    forward   z = x + u^ tanh(a), a = w.x + b          log abs det dz/dx =  log(1 + tanh'(a) w.u^)
    inverse   x = z - u^ tanh(a), with a the root of   log abs det dx/dz = -log(1 + tanh'(a) w.u^)
              a + w.u^ tanh(a) = w.z + b
    Determinant lemma: det(I + tanh'(a) u^ w') = 1 + tanh'(a) w.u^.
    Constraint: w.u^ > -1, since tanh' goes up to 1. u^ = u + (m(w.u) - w.u) w / |w|^2 has w.u^ = m(w.u)
    with m(y) = softplus(y) - 1, and differs from u only along w. Written with softplus(-y) = softplus(y) - y:
    nothing overflows.
    Cost: O(D) a point for z and the log-dets; for x, O(D) and one scalar root (`tanh_root`, which gives the
    tolerance; x is differentiable).
    Parameters: w (D,), u (D,), b (). w starts as a random direction and u where u^ = 0: the identity.
    Raises ValueError if x does not have D dimensions. u^ is not defined at w = 0 (NaN).
    Rezende and Mohamed 2015, eq. 10 to 12 and appendix A.1, whose f is this forward.

    >>> f = Planar(2)
    >>> x = torch.randn(3, 2)
    >>> torch.allclose(f.inverse(f.forward(x)[0])[0], x, atol=1e-6)
    True
    """

    def __init__(self, dim: int):
        super().__init__()
        self.w = nn.Parameter(F.normalize(torch.randn(dim), dim=0))
        self.u = nn.Parameter(ONE * self.w.detach())
        self.b = nn.Parameter(torch.zeros(()))

    def constrained(self) -> tuple[Tensor, Tensor]:
        """u^ (D,), and the gain 1 + w.u^ > 0, a scalar."""
        y = self.w @ self.u
        return self.u + (softplus(-y) - 1) * self.w / self.w.square().sum(), softplus(y)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.w), "Planar")
        u, gain = self.constrained()
        a = x @ self.w + self.b
        return x + a.tanh()[..., None] * u, tanh_slope(a, gain).log()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.w), "Planar")
        u, gain = self.constrained()
        a = tanh_root(z @ self.w + self.b, gain)
        return z - a.tanh()[..., None] * u, -tanh_slope(a, gain).log()


class Radial(Bijection):
    """z = x + beta h(r) (x - x0), r = |x - x0|, h(r) = 1 / (alpha + r): expands or contracts around x0.

    forward   z = x0 + (x - x0) (1 + beta h)
              log abs det dz/dx = (D - 1) log(1 + beta h) + log(1 + beta h + beta h' r), at r
    inverse   x = x0 + (z - x0) / (1 + beta h), with r >= 0 the root of r (1 + beta h(r)) = |z - x0|
              log abs det dx/dz = the same with a minus, at that r
    The D - 1 directions around x0 scale by 1 + beta h, the one along x - x0 by the derivative of
    r (1 + beta h). The equation for r is r^2 + (alpha + beta - s) r = alpha s with s = |z - x0|: its
    one positive root is known in closed form, to rounding; x is differentiable.
    Constraint: alpha > 0 and beta > -alpha, as alpha = exp(log_alpha), alpha + beta = softplus(raw_beta).
    Cost: O(D) a point for each.
    Parameters: x0 (D,), log_alpha (), raw_beta (). x0 starts random, beta at 0: the identity.
    Raises ValueError if x does not have D dimensions. Rezende and Mohamed 2015, eq. 14 and appendix A.2.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.x0 = nn.Parameter(torch.randn(dim))
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.raw_beta = nn.Parameter(torch.tensor(ONE))

    def constrained(self) -> tuple[Tensor, Tensor]:
        """alpha > 0 and alpha + beta > 0."""
        return self.log_alpha.exp(), softplus(self.raw_beta)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.x0), "Radial")
        alpha, total = self.constrained()
        y = x - self.x0
        r = torch.linalg.vector_norm(y, dim=-1)
        scale = (total + r) / (alpha + r)
        return self.x0 + y * scale[..., None], self._log_det(r, alpha, total)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.x0), "Radial")
        alpha, total = self.constrained()
        y = z - self.x0
        s = torch.linalg.vector_norm(y, dim=-1)
        half = (s - total) / 2
        big = half.abs() + torch.sqrt(half.square() + alpha * s)
        r = torch.where(half > 0, big, alpha * s / big)  # the form of the quadratic that does not cancel
        scale = (alpha + r) / (total + r)
        return self.x0 + y * scale[..., None], -self._log_det(r, alpha, total)

    def _log_det(self, r: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
        """Both factors as sums of positive terms: (total + r) / (alpha + r), and 1 + alpha beta h^2."""
        near = alpha / (alpha + r)
        along = r / (alpha + r) * (1 + near) + near * total / (alpha + r)
        return (len(self.x0) - 1) * torch.log((total + r) / (alpha + r)) + torch.log(along)


class Sylvester(Bijection):
    """z = x + Q R tanh(S Q'x + b): M planar layers at once, in an orthonormal frame.

    forward   z = x + Q R tanh(a), a = S Q'x + b
              log abs det dz/dx =  sum over i of log(1 + tanh'(a_i) R_ii S_ii)
    inverse   x = z - Q R tanh(a), with a the root of a + S R tanh(a) = S Q'z + b
              log abs det dx/dz = -sum over i of log(1 + tanh'(a_i) R_ii S_ii)
    Q (D, M) has orthonormal columns, R and S (M, M) are upper triangular. Sylvester's identity,
    det(I_D + Q R diag(h') S Q') = det(I_M + diag(h') S R), leaves an upper triangular matrix. So is
    S R, and a is found from the last row to the first, one monotone scalar root each.
    Constraint: R_ii S_ii > -1, as S_ii = exp(log_scale_i) and R_ii = (softplus(raw_i) - 1) / S_ii.
    Cost: O(D M) a point for z and, with M roots (`tanh_root`, tolerance there), for x; log-dets O(M); and
    O(K D M) once for Q. x is differentiable.
    Parameters: frame, a Householder of K reflections (K, D), whose product's first M columns are Q (K = M
    reaches every frame, up to signs); weight (M, M), R above its diagonal and S' below it; log_scale (M,);
    raw (M,); bias (M,). R starts at zero: the identity.
    Raises ValueError unless 1 <= M <= D and if x does not have D dimensions. Van den Berg et al. 2018,
    section 3, theorems 1 and 2; S is its R with a tilde.

    >>> f = Sylvester(5, 2)
    >>> f.forward(torch.zeros(4, 5))[1].shape
    torch.Size([4])
    """

    def __init__(self, dim: int, width: int, reflections: int | None = None):
        super().__init__()
        if not 1 <= width <= dim:
            raise ValueError(f"Sylvester's width M must be from 1 to D = {dim}, got {width}")
        self.dim = dim
        self.frame = Householder(dim, reflections or width)
        self.weight = nn.Parameter(torch.zeros(width, width))
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.raw = nn.Parameter(torch.full((width,), ONE))
        self.bias = nn.Parameter(torch.zeros(width))

    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q' (M, D), R (M, M), S (M, M), and the gains 1 + R_ii S_ii > 0, (M,)."""
        rows = torch.eye(len(self.bias), self.dim, dtype=self.bias.dtype, device=self.bias.device)
        gain, scale = softplus(self.raw), self.log_scale.exp()
        r = self.weight.triu(1) + torch.diag((gain - 1) / scale)
        s = self.weight.tril(-1).mT + torch.diag(scale)
        return self.frame.forward(rows)[0], r, s, gain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, self.dim, "Sylvester")
        frame, r, s, gain = self.factors()
        a = F.linear(x, s @ frame, self.bias)
        return x + a.tanh() @ (r.mT @ frame), tanh_slope(a, gain).log().sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, self.dim, "Sylvester")
        frame, r, s, gain = self.factors()
        a = self._roots(F.linear(z, s @ frame, self.bias), s @ r, gain)
        return z - a.tanh() @ (r.mT @ frame), -tanh_slope(a, gain).log().sum(-1)

    def _roots(self, rest: Tensor, product: Tensor, gain: Tensor) -> Tensor:
        """a with a + product tanh(a) = rest, product upper triangular: back substitution."""
        roots = []
        for i in reversed(range(len(gain))):
            a = tanh_root(rest[..., i], gain[i])
            rest = rest[..., :i] - a.tanh()[..., None] * product[:i, i]
            roots.append(a)
        return torch.stack(roots[::-1], -1)
