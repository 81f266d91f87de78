"""Planted bugs: bijections with one thing wrong each, beside right twins; `check_bijection` tells them apart.

`python -m tests.flowkit.planted_bugs` writes docs/planted-bugs.md, the table of all of them, with what the
field's usual test says of each.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn
from torch.distributions import constraints
from torch.nn import functional as F

from flowkit import Bijection, Compose, Inverse
from flowkit.laws import laws

PAGE = Path(__file__).parents[2] / "docs" / "planted-bugs.md"


# Right flows, each short, and written so that one line can be spoilt


class Affine(Bijection):
    """z = slope x + shift; slopes of both signs, so abs matters."""

    def __init__(self, dim):
        super().__init__()
        self.slope = nn.Parameter(1 + torch.arange(dim) / dim)
        self.shift = nn.Parameter(torch.zeros(dim))

    def log_det(self, x):
        return self.slope.abs().log().sum().expand(x.shape[:-1])

    def forward(self, x, context=None):
        return self.slope * x + self.shift, self.log_det(x)

    def inverse(self, z, context=None):
        return (z - self.shift) / self.slope, -self.log_det(z)


class Shift(Bijection):
    """z = x + t."""

    def __init__(self, dim):
        super().__init__()
        self.t = nn.Parameter(torch.ones(dim))

    def forward(self, x, context=None):
        return x + self.t, x.new_zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return z - self.t, z.new_zeros(z.shape[:-1])


def root(c, target):
    """a with a + c tanh(a) = target, c > -1: bisection, then one Newton step, which carries the gradient."""
    with torch.no_grad():
        low, high = target - c.abs() - 1, target + c.abs() + 1
        for _ in range(60):
            a = (low + high) / 2
            above = a + c * torch.tanh(a) > target
            low, high = torch.where(above, low, a), torch.where(above, a, high)
        slope = 1 + c * (1 - torch.tanh(a).square())
    return a - (a + c * torch.tanh(a) - target) / slope


class Planar(Bijection):
    """z = x + u tanh(w.x + b), with u constrained so that w.u >= -1 + softplus > -1."""

    def __init__(self, dim, scale=1.0):
        super().__init__()
        self.w = nn.Parameter(scale * torch.linspace(0.5, 0.3, dim))
        self.u = nn.Parameter(scale * torch.linspace(0.2, 0.4, dim))
        self.b = nn.Parameter(torch.zeros(()))

    def softplus(self, x):
        return F.softplus(x)

    def square(self):
        return self.w.square().sum()

    def constrained_u(self):
        dot = self.w @ self.u
        return self.u + (self.softplus(dot) - 1 - dot) * self.w / self.square()

    def slope(self, a):
        return 1 - torch.tanh(a).square()

    def log_det(self, a, u):
        return torch.log((1 + self.slope(a) * (self.w @ u)).abs())

    def forward(self, x, context=None):
        u, a = self.constrained_u(), x @ self.w + self.b
        return x + torch.tanh(a)[..., None] * u, self.log_det(a, u)

    def inverse(self, z, context=None):
        u = self.constrained_u()
        a = root(self.w @ u, z @ self.w + self.b)
        return z - torch.tanh(a)[..., None] * u, -self.log_det(a, u)


class Radial(Bijection):
    """z = x + beta h(r) (x - x0), h = 1 / (alpha + r), with beta > -alpha."""

    def __init__(self, dim):
        super().__init__()
        self.x0 = nn.Parameter(torch.full((dim,), 0.3))
        self.raw_alpha = nn.Parameter(torch.zeros(()))
        self.raw_beta = nn.Parameter(torch.zeros(()))

    def alpha_beta(self):
        alpha = F.softplus(self.raw_alpha)
        return alpha, F.softplus(self.raw_beta) - alpha

    def radius(self, y):
        return torch.linalg.vector_norm(y, dim=-1, keepdim=True)

    def log_det(self, r, dim, h_sign=-1, exponent=-1):
        alpha, beta = self.alpha_beta()
        h = 1 / (alpha + r)
        along = 1 + beta * h + h_sign * beta * r * h.square()
        return ((dim + exponent) * torch.log(1 + beta * h) + torch.log(along))[..., 0]

    def forward(self, x, context=None):
        alpha, beta = self.alpha_beta()
        y = x - self.x0
        r = self.radius(y)
        return x + beta / (alpha + r) * y, self.log_det(r, x.shape[-1])

    def inverse(self, z, context=None):
        alpha, beta = self.alpha_beta()
        y = z - self.x0
        size = self.radius(y)
        half = (size - alpha - beta) / 2
        r = half + torch.sqrt(half.square() + alpha * size)  # r^2 + (alpha + beta - s) r = alpha s
        return self.x0 + y * (alpha + r) / (alpha + r + beta), -self.log_det(r, z.shape[-1])


class Sylvester(Bijection):
    """z = x + Q R1 tanh(R2 Q'x + b), R1 and R2 upper triangular; det = prod of 1 + tanh' R2_ii R1_ii."""

    def __init__(self, dim):
        super().__init__()
        self.vector = nn.Parameter(torch.ones(dim))
        self.r1, self.r2 = (nn.Parameter(torch.zeros(dim, dim)) for _ in range(2))
        self.b = nn.Parameter(torch.zeros(dim))

    def factors(self):
        """Q, a reflection, and R1, R2 with diagonals in (-1, 1), so that no 1 + tanh' R2_ii R1_ii is 0."""
        v = F.normalize(self.vector, dim=0)
        r1, r2 = (r.triu(1) + 0.95 * torch.tanh(r.diagonal()).diag() for r in (self.r1, self.r2))
        return torch.eye(len(v)).to(v) - 2 * torch.outer(v, v), r1, r2

    def forward(self, x, context=None):
        q, r1, r2 = self.factors()
        h = torch.tanh(x @ q @ r2.T + self.b)
        slopes = 1 + (1 - h.square()) * r1.diagonal() * r2.diagonal()
        return x + h @ r1.T @ q.T, torch.log(slopes).sum(-1)

    def inverse(self, z, context=None):
        q, r1, r2 = self.factors()
        target, product = z @ q @ r2.T + self.b, r2 @ r1
        h = torch.zeros_like(z)
        for i in reversed(range(z.shape[-1])):  # upper triangular: the last root first
            rest = target[..., i] - (h[..., i + 1 :] * product[i, i + 1 :]).sum(-1)
            a = root(product[i, i], rest)
            h = torch.cat((h[..., :i], torch.tanh(a)[..., None], h[..., i + 1 :]), -1)
        slopes = 1 + (1 - h.square()) * r1.diagonal() * r2.diagonal()
        return z - h @ r1.T @ q.T, -torch.log(slopes).sum(-1)


class Coupling(Bijection):
    """z_B = x_B exp(s(x_A)) + t(x_A): affine, or additive (NICE). The mask is 1 on A."""

    def __init__(self, dim, additive=False, features=0, start=0.0):
        super().__init__()
        self.additive = additive
        self.register_buffer("mask", (torch.arange(dim) % 2 == 0).to(torch.get_default_dtype()))
        generator = torch.Generator().manual_seed(dim)
        self.weight = nn.Parameter(start * torch.randn(2, dim + features, dim, generator=generator))
        self.bias = nn.Parameter(torch.zeros(2, dim))

    def shift_and_scale(self, kept, context):
        inputs = kept if context is None else torch.cat((kept, context), -1)
        t, s = (
            torch.tanh(inputs @ w + b) * (1 - self.mask) for w, b in zip(self.weight, self.bias, strict=True)
        )
        return t, torch.zeros_like(s) if self.additive else s

    def log_det(self, s):
        return s.sum(-1)

    def forward(self, x, context=None):
        t, s = self.shift_and_scale(x * self.mask, context)
        return x * s.exp() + t, self.log_det(s)

    def inverse(self, z, context=None):
        t, s = self.shift_and_scale(z * self.mask, context)
        return (z - t) * (-s).exp(), -self.log_det(s)


class Autoregressive(Bijection):
    """MAF's layer: z_i = (x_i - m(x_<i)) exp(-s(x_<i)); the inverse is sequential."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dim, dim))
        self.bias = nn.Parameter(torch.zeros(2, dim))

    def moments(self, x):
        return (torch.tanh(x @ w.triu(1) + b) for w, b in zip(self.weight, self.bias, strict=True))

    def forward(self, x, context=None):
        m, s = self.moments(x)
        return (x - m) * (-s).exp(), -s.sum(-1)

    def inverse(self, z, context=None):
        x = torch.zeros_like(z)
        for _ in range(z.shape[-1]):
            m, s = self.moments(x)
            x = z * s.exp() + m
        return x, s.sum(-1)


class Permutation(Bijection):
    """z_i = x_order[i]."""

    def __init__(self, dim):
        super().__init__()
        self.register_buffer("order", torch.randperm(dim))

    def forward(self, x, context=None):
        return x[..., self.order], x.new_zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return z[..., self.order.argsort()], z.new_zeros(z.shape[:-1])


class Linear(Bijection):
    """z = A x."""

    def __init__(self, dim):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(dim) + 0.3 * torch.ones(dim, dim).triu(1))

    def log_det(self, x):
        return torch.linalg.slogdet(self.matrix)[1].expand(x.shape[:-1])

    def forward(self, x, context=None):
        return x @ self.matrix.T, self.log_det(x)

    def inverse(self, z, context=None):
        return torch.linalg.solve(self.matrix.T, z[..., None, :], left=False)[..., 0, :], -self.log_det(z)


class LULinear(Linear):
    """z = L U x, with L unit lower triangular and the diagonal of U positive: log-det in O(D)."""

    def __init__(self, dim):
        super().__init__(dim)
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.strict = nn.Parameter(torch.zeros(dim, dim))
        del self.matrix

    @property
    def matrix(self):
        lower = self.strict.tril(-1) + torch.eye(len(self.strict)).to(self.strict)
        return lower @ (self.strict.triu(1) + self.log_diagonal.exp().diag())

    def log_det(self, x):
        return self.log_diagonal.sum().expand(x.shape[:-1])


class Convolution(Bijection):
    """Glow's 1x1 convolution on images (C, H, W): log-det = H W log abs det A."""

    def __init__(self, channels):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(channels))

    def log_det(self, x):
        pixels = x.shape[-1] * x.shape[-2]
        return pixels * torch.linalg.slogdet(self.matrix)[1].expand(x.shape[:-3])

    def forward(self, x, context=None):
        return torch.einsum("ij,...jhw->...ihw", self.matrix, x), self.log_det(x)

    def inverse(self, z, context=None):
        return torch.einsum("ij,...jhw->...ihw", self.matrix.inverse(), z), -self.log_det(z)


class Leaky(Bijection):
    """z = x above 0, x / 4 below."""

    def forward(self, x, context=None):
        return F.leaky_relu(x, 0.25), torch.where(x < 0, x.new_tensor(0.25).log(), 0).sum(-1)

    def inverse(self, z, context=None):
        return F.leaky_relu(z, 4.0), torch.where(z < 0, z.new_tensor(4.0).log(), 0).sum(-1)


class Softplus(Bijection):
    """z = log(1 + exp(x)) > 0."""

    codomain = constraints.positive

    def forward(self, x, context=None):
        return -F.logsigmoid(-x), F.logsigmoid(x).sum(-1)

    def inverse(self, z, context=None):
        log_slope = torch.log(-torch.expm1(-z))
        return z + log_slope, -log_slope.sum(-1)


class Logit(Bijection):
    """z = log x - log(1 - x), from the unit interval."""

    domain = constraints.unit_interval

    def forward(self, x, context=None):
        return torch.log(x) - torch.log1p(-x), -(torch.log(x) + torch.log1p(-x)).sum(-1)

    def inverse(self, z, context=None):
        return torch.sigmoid(z), (F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)


class Arsinh(Bijection):
    """z = arsinh(x), a softening of the tails; slope 1 / sqrt(1 + x^2)."""

    def forward(self, x, context=None):
        return torch.asinh(x), -0.5 * torch.log1p(x.square()).sum(-1)

    def inverse(self, z, context=None):
        size = z.abs()
        log_cosh = size + torch.log1p(torch.exp(-2 * size)) - torch.log(z.new_tensor(2.0))
        return torch.sinh(z), log_cosh.sum(-1)


class Tanh(Bijection):
    """z = tanh(x), with a log-det that does not round to log 0, and an open end that the inverse bears."""

    codomain = constraints.interval(-1.0, 1.0)

    def forward(self, x, context=None):
        edge = 1 - torch.finfo(x.dtype).eps / 2
        size = x.abs()
        log_slope = 2 * (torch.log(x.new_tensor(2.0)) - size - torch.log1p(torch.exp(-2 * size)))
        return torch.tanh(x).clamp(-edge, edge), log_slope.sum(-1)

    def inverse(self, z, context=None):
        return torch.atanh(z), -(torch.log1p(z) + torch.log1p(-z)).sum(-1)


class ActNorm(Bijection):
    """z = (x - mean) / std of the first batch."""

    def __init__(self, dim):
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x, context=None):
        if not self.initialized:
            with torch.no_grad():
                self.mean.copy_(x.flatten(0, -2).mean(0))
                self.log_std.copy_(x.flatten(0, -2).std(0).log())
            self.mark()
        return (x - self.mean) * (-self.log_std).exp(), -self.log_std.sum().expand(x.shape[:-1])

    def mark(self):
        self.initialized.fill_(True)

    def inverse(self, z, context=None):
        return z * self.log_std.exp() + self.mean, self.log_std.sum().expand(z.shape[:-1])


class Elu(Bijection):
    """z = x above 0, exp(x) - 1 below: onto (-1, inf)."""

    codomain = constraints.greater_than(-1.0)

    def forward(self, x, context=None):
        below = torch.minimum(x, x.new_zeros(()))
        return torch.where(x > 0, x, torch.expm1(below)), below.sum(-1)

    def inverse(self, z, context=None):
        x = torch.where(z > 0, z, torch.log1p(torch.minimum(z, z.new_zeros(()))))
        return x, -torch.minimum(x, x.new_zeros(())).sum(-1)


def fork(dim):
    """Several layers in a chain."""
    return Compose(Affine(dim), Coupling(dim), Permutation(dim), Coupling(dim), Leaky())


class Right(NamedTuple):
    """A right flow: `make(dim)`, and the options of the check."""

    make: Callable
    dims: tuple = (1, 2, 5)
    options: Mapping = MappingProxyType({})


RIGHT = {
    "affine": Right(Affine),
    "shift": Right(Shift),
    "planar": Right(Planar),
    "radial": Right(Radial),
    "Sylvester": Right(Sylvester),
    "additive coupling": Right(lambda dim: Coupling(dim, additive=True)),
    "affine coupling": Right(Coupling),
    "conditional coupling": Right(lambda dim: Coupling(dim, features=3), options={"context": 3}),
    "autoregressive": Right(Autoregressive),
    "inverse autoregressive": Right(lambda dim: Inverse(Autoregressive(dim))),
    "inverse planar": Right(lambda dim: Inverse(Planar(dim))),
    "permutation": Right(Permutation),
    "dense linear": Right(Linear),
    "LU linear": Right(LULinear),
    "1x1 convolution": Right(lambda shape: Convolution(shape[0]), ((3, 2, 2),)),
    "leaky ReLU": Right(lambda dim: Leaky()),
    "softplus": Right(lambda dim: Softplus()),
    "logit": Right(lambda dim: Logit()),
    "sigmoid": Right(lambda dim: Inverse(Logit())),
    "tanh": Right(lambda dim: Tanh()),
    "arsinh": Right(lambda dim: Arsinh()),
    "ELU": Right(lambda dim: Elu()),
    "ActNorm": Right(ActNorm),
    "a chain": Right(fork),
}


# Wrong flows: each overrides what it spoils


class OppositeSign(Affine):
    def log_det(self, x):
        return -super().log_det(x)


class WrongDirection(Coupling):
    def log_det(self, s):
        return -s.sum(-1)


class DetOfInverse(Linear):
    def log_det(self, x):
        return torch.linalg.slogdet(self.matrix.inverse())[1].expand(x.shape[:-1])


class NoAbs(Affine):
    def __init__(self, dim):
        super().__init__(dim)
        self.slope = nn.Parameter(torch.full((dim,), 0.5))

    def log_det(self, x):
        return self.slope.log().sum().expand(x.shape[:-1])


class NoLog(Affine):
    def log_det(self, x):
        return self.slope.abs().prod().expand(x.shape[:-1])


class SummedOverBatch(Coupling):
    def log_det(self, s):
        return s.sum()


class SummedOverBatchOnly(Coupling):
    def log_det(self, s):
        return s.sum(0)


class Mean(Coupling):
    def log_det(self, s):
        return s.mean(-1)


class PerElement(Coupling):
    def log_det(self, s):
        return s


class ScalarLogDet(Affine):
    def log_det(self, x):
        return self.slope.abs().log().sum()


class TransposedSylvester(Sylvester):
    def factors(self):
        q, r1, r2 = super().factors()
        return q, r1, r2.T


class TwicePlanar(Planar):
    def forward(self, x, context=None):
        once, log_det = super().forward(x)
        return super().forward(once)[0], log_det

    def inverse(self, z, context=None):
        return super().inverse(super().inverse(z)[0])


class Sech(Planar):
    def slope(self, a):
        return 1 / torch.cosh(a)


class NormForSquare(Planar):
    def __init__(self, dim):
        super().__init__(dim)
        self.w = nn.Parameter(torch.full((dim,), 0.6 / dim**0.5))
        self.u = nn.Parameter(torch.full((dim,), -2 / dim**0.5))

    def square(self):
        return self.w.norm()


class OverflowingPlanar(Planar):
    def softplus(self, x):
        return torch.log(1 + torch.exp(x))


class EpsilonInLog(Planar):
    def log_det(self, a, u):
        return torch.log((1 + self.slope(a) * (self.w @ u)).abs() + 1e-6)


class DetachedRoot(Planar):
    def inverse(self, z, context=None):
        u = self.constrained_u()
        with torch.no_grad():
            a = root(self.w @ u, z @ self.w + self.b)
        return z - torch.tanh(a)[..., None] * u, -self.log_det(a, u)


class BatchRadial(Radial):
    def radius(self, y):
        return torch.linalg.vector_norm(y).expand(*y.shape[:-1], 1)


class RadialExponent(Radial):
    def log_det(self, r, dim):
        return super().log_det(r, dim, exponent=0)


class RadialSign(Radial):
    def log_det(self, r, dim):
        return super().log_det(r, dim, h_sign=1)


class InverseForTwoDimensions(Coupling):
    def inverse(self, z, context=None):
        first = torch.cat((z[..., :1], torch.zeros_like(z[..., 1:])), -1)
        t, s = self.shift_and_scale(first, context)
        return (z - t) * (-s).exp(), -self.log_det(s)


class MaskParity(Coupling):
    def log_det(self, s):
        return (s * self.mask).sum(-1)


class InterleavedConcatenated(Coupling):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return torch.cat((z[..., ::2], z[..., 1::2]), -1), log_det


class NoExp(Coupling):
    def forward(self, x, context=None):
        t, s = self.shift_and_scale(x * self.mask, context)
        s = 1 + s
        return x * s + t, (s * (1 - self.mask)).sum(-1)

    def inverse(self, z, context=None):
        t, s = self.shift_and_scale(z * self.mask, context)
        s = 1 + s
        return (z - t) / s, -(s * (1 - self.mask)).sum(-1)


class DropoutConditioner(Coupling):
    def shift_and_scale(self, kept, context):
        return super().shift_and_scale(F.dropout(kept, 0.5, self.training), context)


class OnePassInverse(Autoregressive):
    def inverse(self, z, context=None):
        m, s = self.moments(z)
        return z * s.exp() + m, s.sum(-1)


class ConditionsOnItself(Autoregressive):
    def moments(self, x):
        return (torch.tanh(x @ w.triu() + b) for w, b in zip(self.weight, self.bias, strict=True))


class LosesFloat64(Affine):
    def forward(self, x, context=None):
        return (self.slope.float() * x.float() + self.shift.float()).to(x.dtype), self.log_det(x)


class ReturnsFloat32(Affine):
    def log_det(self, x):
        return super().log_det(x).float()


class DefaultZeros(Shift):
    def forward(self, x, context=None):
        return x + self.t, torch.zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return z - self.t, torch.zeros(z.shape[:-1])


class PlainConstant(Shift):
    def __init__(self, dim):
        super().__init__(dim)
        self.unit = torch.full((dim,), 2.0)

    def forward(self, x, context=None):
        return x + self.t * self.unit.to(x.dtype), x.new_zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return z - self.t * self.unit.to(z.dtype), z.new_zeros(z.shape[:-1])


class InPlace(Shift):
    def forward(self, x, context=None):
        x += self.t
        return x, x.new_zeros(x.shape[:-1])


class BatchNorm(Bijection):
    def __init__(self, dim):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, x, context=None):
        rows = x.reshape(-1, x.shape[-1])
        self.mean, self.var = rows.mean(0), (rows - rows.mean(0)).square().mean(0) + 1e-5
        return (x - self.mean) * self.var.rsqrt(), -0.5 * self.var.log().sum().expand(x.shape[:-1])

    def inverse(self, z, context=None):
        return z * self.var.sqrt() + self.mean, 0.5 * self.var.log().sum().expand(z.shape[:-1])


class ForgetfulActNorm(ActNorm):
    def __init__(self, dim):
        super().__init__(dim)
        del self.initialized
        self.initialized = False

    def mark(self):
        self.initialized = True


class ForgetfulPermutation(Permutation):
    def __init__(self, dim):
        super().__init__(dim)
        order = self.order
        del self.order
        self.order = order


class NoPixels(Convolution):
    def log_det(self, x):
        return torch.linalg.slogdet(self.matrix)[1].expand(x.shape[:-3])


class LogDet(Linear):
    def log_det(self, x):
        return torch.logdet(self.matrix).expand(x.shape[:-1])


class Resampled(Shift):
    def inverse(self, z, context=None):
        half = z.shape[-1] // 2
        kept, log_det = super().inverse(z)
        return torch.cat((kept[..., half:], torch.randn_like(kept[..., :half])), -1), log_det


class NanThroughWhere(Elu):
    def forward(self, x, context=None):
        return torch.where(x > 0, x, torch.exp(x) - 1), torch.minimum(x, x.new_zeros(())).sum(-1)


class OntoTheLine(Elu):
    codomain = constraints.real


class OverflowingSoftplus(Softplus):
    def forward(self, x, context=None):
        return torch.log(1 + torch.exp(x)), F.logsigmoid(x).sum(-1)


class RoundedTanh(Tanh):
    def forward(self, x, context=None):
        z, _ = super().forward(x)
        return z, torch.log(1 - torch.tanh(x).square()).sum(-1)


class InverseAtWrongPoint(Arsinh):
    def inverse(self, z, context=None):
        return torch.sinh(z), 0.5 * torch.log1p(z.square()).sum(-1)


class Clamped(Bijection):
    def forward(self, x, context=None):
        return x.clamp(-5, 5), x.new_zeros(x.shape[:-1])

    inverse = forward


class StaleChain(Compose):
    def forward(self, x, context=None):
        z, log_det = x, x.new_zeros(x.shape[:-1])
        for f in self.bijections:
            z = f.forward(z)[0]
            log_det = log_det + f.forward(x)[1]
        return z, log_det

    def inverse(self, z, context=None):
        x, _ = super().inverse(z)
        return x, -self.forward(x)[1]


class Bug(NamedTuple):
    """make(dim) is wrong as `what` says; `met` says where people met it."""

    what: str
    make: Callable
    dim: int | tuple = 3
    met: str = ""
    options: Mapping = MappingProxyType({})


BUGS = {
    "opposite sign": Bug("both log-dets have the other sign", OppositeSign),
    "wrong direction": Bug("z = x exp(s) + t with log-det -sum s: dx/dz for dz/dx", WrongDirection),
    "det of the inverse": Bug("log abs det A^-1 reported for z = A x", DetOfInverse),
    "abs forgotten": Bug("log of slopes that may be negative", NoAbs, 5),
    "log forgotten": Bug("the determinant, not its logarithm", NoLog),
    "summed over the batch": Bug("s.sum() for s.sum(-1)", SummedOverBatch),
    "summed over the wrong axis": Bug("s.sum(0) for s.sum(-1)", SummedOverBatchOnly),
    "mean for sum": Bug("the log-det averaged over dimensions", Mean),
    "not summed": Bug("one log-det for each element", PerElement),
    "scalar log-det": Bug("one number for all points, since the Jacobian is constant", ScalarLogDet),
    "transposed Sylvester": Bug(
        "one triangular factor transposed, so that the determinant is not the product of diagonals",
        TransposedSylvester,
        met="Pyro 1.9.2, off by up to 0.43 nats",
        options={"inverse": False},
    ),
    "planar twice": Bug(
        "the map applied twice, the log-det of once", TwicePlanar, 2, "FFJORD's planar layer"
    ),
    "sech for sech^2": Bug("the derivative of tanh without its square", Sech),
    "norm for its square": Bug(
        "abs w for abs w squared in the constraint of u, so that the map folds",
        NormForSquare,
        2,
        "at least five repositories",
    ),
    "planar overflow": Bug("log(1 + exp(w.u)) at w.u = 100", lambda dim: OverflowingPlanar(dim, scale=20.0)),
    "epsilon in the log": Bug("log(abs det + 1e-6)", EpsilonInLog),
    "detached root": Bug(
        "the numerical root of the inverse carries no gradient, the rest does", DetachedRoot
    ),
    "radial norm over the batch": Bug("one radius for all points", BatchRadial, met="a popular radial flow"),
    "radial exponent": Bug("the tangential factor to the power D for D - 1", RadialExponent),
    "radial sign": Bug("h' with the sign of h", RadialSign),
    "coupling inverse at D > 2": Bug(
        "the inverse conditions on the first dimension alone",
        InverseForTwoDimensions,
        5,
        "a popular coupling",
    ),
    "mask parity": Bug("s summed over the half that is kept", MaskParity),
    "interleaved, concatenated": Bug(
        "halves taken by turns on the way in, put side by side on the way out", InterleavedConcatenated, 4
    ),
    "exp forgotten": Bug("z = x s + t with log-det sum s", NoExp),
    "dropout in the conditioner": Bug("the map is drawn anew at each call", DropoutConditioner),
    "IAF taken for MAF": Bug("the inverse of an autoregressive layer in one pass", OnePassInverse),
    "conditions on itself": Bug("the mask of the first layer not strict: x_i sees x_i", ConditionsOnItself),
    "float64 lost": Bug("float32 inside, float64 outside", LosesFloat64, met="normflows"),
    "float32 log-det": Bug("the log-det in float32, whatever x is", ReturnsFloat32, met="normflows"),
    "default zeros": Bug("torch.zeros in the default dtype, on the default device", DefaultZeros),
    "constant left behind": Bug("a constant that .to(device) does not move", PlainConstant),
    "in place": Bug("x += t changes the caller's x", InPlace),
    "batch norm in train mode": Bug("mean and variance of the batch at hand", BatchNorm),
    "ActNorm's flag": Bug("`initialized` is no buffer: a loaded layer starts again", ForgetfulActNorm),
    "permutation not saved": Bug(
        "the order drawn at construction is no buffer", lambda dim: partial(ForgetfulPermutation, dim), 5
    ),
    "h w missing": Bug(
        "a 1x1 convolution's log-det without the number of pixels", lambda s: NoPixels(s[0]), (3, 2, 2)
    ),
    "logdet for slogdet": Bug("NaN where the determinant is negative", LogDet),
    "half resampled": Bug("the inverse draws the factored-out half anew", Resampled, 4),
    "NaN through where": Bug(
        "exp overflows in the branch of torch.where not taken", lambda dim: NanThroughWhere()
    ),
    "softplus overflow": Bug("log(1 + exp(x)) at x = 100", lambda dim: OverflowingSoftplus()),
    "log of a rounded zero": Bug("log(1 - tanh(x)^2) where tanh rounds to 1", lambda dim: RoundedTanh()),
    "codomain": Bug("ELU declared onto the whole line", lambda dim: OntoTheLine()),
    "inverse log-det at z": Bug("the derivative at z in place of x", lambda dim: InverseAtWrongPoint()),
    "clamp": Bug("a clamp at 5 for stability", lambda dim: Clamped()),
    "stale chain": Bug(
        "a chain that takes all log-dets at its first input",
        lambda dim: StaleChain(Arsinh(), Affine(dim), Arsinh()),
    ),
}


def usual_test(f, dim) -> bool:
    """Round trip and ld + ld_inv = 0 on one float32 batch at initialization: True when f passes."""
    event = (dim,) if isinstance(dim, int) else dim
    f = f if hasattr(f, "forward") else f()
    x = torch.randn(16, *event)
    z, log_det = f.forward(x)
    back, log_det_back = f.inverse(z)
    same = torch.allclose(back, x, atol=1e-4)
    return same and torch.allclose(log_det + log_det_back, torch.zeros(()), atol=1e-4)


def verdict(bug: Bug, seed: int = 0) -> list[str]:
    """The laws that the bug breaks, at a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        f = bug.make(bug.dim)
    found = laws(f, bug.dim, seed=seed, **bug.options)
    return [law for law, message in found if message and not message.startswith("not tried")]


def survives_usual_test(bug: Bug) -> bool:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return usual_test(bug.make(bug.dim), bug.dim)


def page() -> str:
    """The table, as Markdown."""
    rows = [
        f"| {name} | {bug.what} | {bug.met} | {'lets it live' if survives_usual_test(bug) else 'catches it'} "
        f"| {verdict(bug)[0]} |"
        for name, bug in BUGS.items()
    ]
    alive = sum("lets it live" in row for row in rows)
    return "\n".join(
        [
            "# Planted bugs",
            "",
            f"`flowkit.check_bijection` is tried on {len(BUGS)} bijections with one bug each, and must "
            f"catch all; and on {len(RIGHT)} right ones, and must pass all. The field's usual test, a round "
            "trip and log-dets that cancel on one float32 batch at initialization, lets "
            f"{alive} of the {len(BUGS)} live. "
            "The bugs are classes in `tests/flowkit/planted_bugs.py`, which also writes this page: "
            "`python -m tests.flowkit.planted_bugs`.",
            "",
            "| bug | what is wrong | where it was met | the usual test | the law that catches it |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
