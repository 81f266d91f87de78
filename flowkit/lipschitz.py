"""Layers whose Lipschitz constant is known: weights scaled by a spectral norm that power iteration finds.

The Lipschitz constant of x -> W x + b is the spectral norm of W, its largest singular value. That of a
composition is at most the product, and an activation with slopes in [-1, 1] has constant 1 or less. So a
network whose weights all have a norm below one is a contraction, and x + g(x) can be undone (`residual`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Operator = Callable[[Tensor], Tensor]


class Spectrum(NamedTuple):
    """What power iteration ends with: norm = u'A v, and the unit vectors u (left) and v (right)."""

    norm: Tensor
    left: Tensor
    right: Tensor
    iterations: int


@torch.no_grad()
def power_iteration(
    operator: Operator, adjoint: Operator, v: Tensor, iterations: int = 100, tolerance: float = 1e-5
) -> Spectrum:
    """The spectral norm of a linear map A, from products with A and with its adjoint alone.

    u <- A v / |A v|, v <- A'u / |A'u|, and the norm is u'A v = |A'u|. It rises from below to the largest
    singular value s_1, its error falling by about (s_2 / s_1)^4 in each iteration; it stops when the norm
    grows by less than the share `tolerance`. However close s_2 is to s_1, the norm's square falls short by
    a share of 0.871 log(D) / (k - 1) or less after k products with A'A, on average over random starts in D
    dimensions (Kuczynski and Wozniakowski 1992).
    v: the start, of any shape that `operator` takes, not 0. A better one takes fewer iterations: keep v while
    A changes little, as in training.
    Cost: two products an iteration. The zero map has norm 0. The result carries no gradient.

    >>> A = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> found = power_iteration(lambda v: A @ v, lambda u: A.T @ u, torch.ones(2))
    >>> round(found.norm.item(), 4)
    3.0
    """
    last = v.new_zeros(())
    for done in range(1, iterations + 1):  # noqa: B007 - told in the result
        u = _unit(operator(v))
        v = adjoint(u)
        norm = torch.linalg.vector_norm(v)
        v = _unit(v)
        if norm - last <= tolerance * norm:
            break
        last = norm
    return Spectrum(norm, u, v, done)


def _unit(v: Tensor) -> Tensor:
    """v / |v|; 0 for v = 0."""
    return v / torch.linalg.vector_norm(v).clamp(min=torch.finfo(v.dtype).tiny)


class _Spectral(nn.Module):
    """A weight W that acts as W min(1, c / norm of W), the norm found by power iteration at each call.

    In training mode the vector v of the iteration is kept for the next call, which then takes a step or two
    and goes on from there. Else the iteration runs until the norm rises no more: from a start that is nearly
    orthogonal to the first right singular vector the norm rests at the second singular value for a while, and
    stopped there it would leave a weight above the coefficient.
    The norm is differentiated as u'A v with u and v fixed: its gradient, once u and v have converged.
    """

    weight: Tensor
    v: Tensor

    def __init__(self, coefficient: float, start: Tensor):
        super().__init__()
        if not 0 < coefficient < 1:
            raise ValueError(f"the coefficient must lie strictly between 0 and 1, got {coefficient}")
        self.coefficient = coefficient
        self.register_buffer("v", _unit(start))
        self.held: Tensor | None = None

    def apply_to(self, v: Tensor, weight: Tensor) -> Tensor:
        """A v, without bias."""
        raise NotImplementedError

    def adjoint_to(self, u: Tensor, weight: Tensor) -> Tensor:
        """A' u."""
        raise NotImplementedError

    def contraction(self) -> Tensor:
        """The weight as it acts: its norm is the coefficient or less. Differentiable in the weight."""
        if self.held is not None:
            return self.held
        fixed = self.weight.detach()
        found = power_iteration(
            lambda v: self.apply_to(v, fixed),
            lambda u: self.adjoint_to(u, fixed),
            self.v,
            tolerance=1e-5 if self.training else 0.0,
        )
        if self.training and found.norm > 0:
            self.v.copy_(found.right)
        norm = (found.left * self.apply_to(found.right, self.weight)).sum()
        return self.weight * (self.coefficient / norm.clamp(min=self.coefficient))


@contextmanager
def held_weights(net: nn.Module) -> Iterator[None]:
    """Within, the spectral layers of net keep the weights of now, without gradient.

    For many evaluations at one state of the parameters: power iteration runs once for each layer.
    """
    layers = [m for m in net.modules() if isinstance(m, _Spectral) and m.held is None]
    try:
        for layer in layers:
            layer.held = layer.contraction().detach()
        yield
    finally:
        for layer in layers:
            layer.held = None


class SpectralLinear(_Spectral):
    """x -> W x + b with W scaled so that its spectral norm is at most c < 1: (..., inputs) -> (..., outputs).

    W acts as W min(1, c / norm of W): it is left alone while it is small enough. The norm comes from power
    iteration, which ends a little below the truth: the constant is c to about four digits.
    Parameters: weight (outputs, inputs), bias (outputs,); the buffer v (inputs,). Cost: O(inputs * outputs)
    a point and an iteration. Raises ValueError unless 0 < coefficient < 1.
    Miyato et al. 2018 (spectral normalization); Behrmann et al. 2019 (i-ResNet).

    >>> layer = SpectralLinear(3, 2, coefficient=0.5)
    >>> _ = layer.weight.data.mul_(100)
    >>> round(torch.linalg.matrix_norm(layer.contraction(), 2).item(), 3)
    0.5
    """

    def __init__(self, inputs: int, outputs: int, coefficient: float = 0.9):
        super().__init__(coefficient, torch.randn(inputs))
        plain = nn.Linear(inputs, outputs)
        self.weight, self.bias = plain.weight, plain.bias

    def apply_to(self, v: Tensor, weight: Tensor) -> Tensor:
        return weight @ v

    def adjoint_to(self, u: Tensor, weight: Tensor) -> Tensor:
        return weight.mT @ u

    def forward(self, x: Tensor) -> Tensor:
        """W x + b."""
        return F.linear(x, self.contraction(), self.bias)


class SpectralConv2d(_Spectral):
    """A convolution of images of one size, whose norm as a linear map is at most c < 1.

    (..., C_in, H, W) -> (..., C_out, H, W), stride 1, odd kernel k, zeros around the image. The norm is that
    of the whole map, a matrix of C_out H W rows (`convolution_matrix`), by power iteration with the
    convolution and its transpose; the norm of the kernel as a (C_out, C_in k k) matrix is another number, and
    can be up to k times smaller.
    Parameters: weight (C_out, C_in, k, k), bias (C_out,); the buffer v (C_in, H, W).
    Cost: that of a convolution, for each image and each iteration.
    Raises ValueError unless 0 < coefficient < 1 and the kernel is odd. Gouk et al. 2021.

    >>> layer = SpectralConv2d(1, 2, kernel=3, size=(4, 4), coefficient=0.5)
    >>> layer(torch.zeros(7, 1, 4, 4)).shape
    torch.Size([7, 2, 4, 4])
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, size: tuple[int, int], coefficient: float = 0.9
    ):
        if kernel % 2 == 0:
            raise ValueError(f"an even kernel changes the size of the image: take an odd one, not {kernel}")
        super().__init__(coefficient, torch.randn(inputs, *size))
        plain = nn.Conv2d(inputs, outputs, kernel)
        assert plain.bias is not None
        self.weight, self.bias = plain.weight, plain.bias
        self.padding = kernel // 2

    def apply_to(self, v: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(v, weight, padding=self.padding)

    def adjoint_to(self, u: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(u, weight, padding=self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of each image."""
        if x.shape[-3:] != self.v.shape:
            raise ValueError(f"this layer takes images (..., {tuple(self.v.shape)}), got {tuple(x.shape)}")
        images = x.reshape(-1, *x.shape[-3:])
        z = F.conv2d(images, self.contraction(), self.bias, padding=self.padding)
        return z.reshape(*x.shape[:-3], *z.shape[1:])


def convolution_matrix(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The convolution of images (C_in, H, W), zeros around them, as a matrix (C_out H W, C_in H W).

    weight: (C_out, C_in, k, k), k odd. Cost: C_in H W convolutions; for tests and pictures.

    >>> convolution_matrix(torch.tensor([[[[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]]), (1, 3))
    tensor([[1., 0., 0.],
            [2., 1., 0.],
            [0., 2., 1.]])
    """
    inputs = weight.shape[1] * size[0] * size[1]
    basis = torch.eye(inputs, dtype=weight.dtype, device=weight.device).reshape(-1, weight.shape[1], *size)
    return F.conv2d(basis, weight, padding=weight.shape[-1] // 2).flatten(1).mT


class LipSwish(nn.Module):
    """x * sigmoid(b x) / 1.1, elementwise: smooth, and of Lipschitz constant below 1 for each b > 0.

    The slope of x sigmoid(b x) is at most 1.0999 whatever b. Unlike ReLU's or tanh's its second derivative
    does not vanish where its first is large, and the gradient of a log-det needs the second.
    Parameter: raw (1,), b = softplus(raw), 1/2 at the start. Chen et al. 2019 (Residual Flows).

    >>> LipSwish()(torch.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.full((1,), math.log(math.expm1(0.5))))

    def forward(self, x: Tensor) -> Tensor:
        """The activation of each element."""
        return x * torch.sigmoid(F.softplus(self.raw) * x) / 1.1


def lipschitz_mlp(
    dim: int,
    hidden: Sequence[int] = (64, 64),
    lipschitz: float = 0.9,
    activation: Callable[[], nn.Module] = LipSwish,
) -> nn.Sequential:
    """A network (..., D) -> (..., D) whose Lipschitz constant is at most `lipschitz`.

    Each of its layers gets the coefficient lipschitz^(1 / layers); the activation must have constant 1.

    >>> lipschitz_mlp(2, (8,))(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """
    widths = (dim, *hidden, dim)
    coefficient = lipschitz ** (1 / (len(widths) - 1))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [SpectralLinear(before, after, coefficient), activation()]
    return nn.Sequential(*layers[:-1])


def lipschitz_cnn(
    shape: tuple[int, int, int],
    channels: Sequence[int] = (16,),
    kernel: int = 3,
    lipschitz: float = 0.9,
    activation: Callable[[], nn.Module] = LipSwish,
) -> nn.Sequential:
    """Convolutions of images laid flat, (..., C H W) -> (..., C H W), of constant at most `lipschitz`.

    >>> lipschitz_cnn((1, 4, 4), (3,))(torch.zeros(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """
    widths = (shape[0], *channels, shape[0])
    coefficient = lipschitz ** (1 / (len(widths) - 1))
    layers: list[nn.Module] = [nn.Unflatten(-1, shape)]
    for before, after in pairwise(widths):
        layers += [SpectralConv2d(before, after, kernel, shape[1:], coefficient), activation()]
    return nn.Sequential(*layers[:-1], nn.Flatten(-3))
