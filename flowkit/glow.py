"""Glow: steps of ActNorm, an invertible 1x1 convolution and an affine coupling, at several scales.

One step on an image (C, H, W) has three log-dets: H W times the sum of ActNorm's log-scales, H W times
log abs det of the convolution's C x C matrix, and the sum of the coupling's log-scales over what it moves.
Points are vectors (..., C * H * W), as in `flowkit.images`. What can be done with the latent vectors of a
trained flow (temperature, interpolation, attribute vectors) stands at the end, and takes any flow.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection, Compose, check_width
from flowkit.coupling import Transformer
from flowkit.flow import Flow
from flowkit.images import PerPixel, Shape, Split, Squeeze, channel_mask, conv_coupling
from flowkit.linear import PLU
from flowkit.normalization import ActNorm


class Conv1x1(Bijection):
    """z[:, i, j] = W x[:, i, j] + b: an invertible 1x1 convolution, a learned mixing of the channels.

    forward   z[:, i, j] = W x[:, i, j] + b            log abs det dz/dx =  H W log abs det W
    inverse   x[:, i, j] = W^-1 (z[:, i, j] - b)       log abs det dx/dz = -H W log abs det W
    W = P L U, kept as its factors: log abs det W is the sum of C numbers, W^-1 comes by substitution.
    It is PerPixel(shape, PLU(C)), without the copies that bring the channels of a pixel side by side.
    Cost: O(C^2 H W) a point for z and for x, O(C^3) once for W or W^-1, O(C) for the log-dets.
    Parameters: those of plu, PLU(C); W starts as a random rotation or reflection, from torch's generator.
    Raises ValueError if x does not have C H W dimensions. Kingma and Dhariwal 2018 (Glow), section 3.2.

    >>> f = Conv1x1((3, 4, 4))
    >>> bool(f.forward(torch.randn(2, 48))[1].abs().max() < 1e-5)      # a rotation keeps volume
    True
    """

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        orthogonal, _ = torch.linalg.qr(torch.randn(shape[0], shape[0]))
        self.plu = PLU.from_matrix(orthogonal)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self.plu.matrix() @ self._columns(x) + self.plu.bias[:, None]
        return z.flatten(-2), self._log_det().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.plu.factors()
        permutation = torch.eye(len(lower)).to(lower)[self.plu.order]
        half = torch.linalg.solve_triangular(lower, permutation.mT, upper=False, unitriangular=True)
        back = torch.linalg.solve_triangular(upper, half, upper=True)  # U^-1 L^-1 P'
        x = back @ (self._columns(z) - self.plu.bias[:, None])
        return x.flatten(-2), -self._log_det().expand(z.shape[:-1])

    def _columns(self, x: Tensor) -> Tensor:
        """(..., C, H W): one column a pixel."""
        c, h, w = self.shape
        check_width(x, c * h * w, "Conv1x1")
        return x.unflatten(-1, (c, h * w))

    def _log_det(self) -> Tensor:
        return self.shape[1] * self.shape[2] * self.plu.log_diagonal.sum()


class GlowStep(Compose):
    """z = coupling(W actnorm(x)): one step of flow, on images of C >= 2 channels.

    forward   actnorm, then the 1x1 convolution, then a coupling that keeps the first C // 2 channels
              log abs det dz/dx = H W (sum over c of s_c + log abs det W) + sum over B of log g'
    inverse   the three inverses in the opposite order; log abs det dx/dz is the negative, at x
    Cost: O(C^2 H W) and one pass of the coupling's network, in both directions.
    transformer: affine() by default, whose scale exp(s) is bounded; Glow's is sigmoid(s + 2).
    Parameters: those of the three. The first forward in training mode sets ActNorm's, from its batch.
    Raises ValueError for one channel, or if x does not have C H W dimensions.
    Kingma and Dhariwal 2018 (Glow), section 3 and table 1.

    >>> step = GlowStep((4, 2, 2))
    >>> [type(part).__name__ for part in step.bijections]
    ['PerPixel', 'Conv1x1', 'Coupling']
    """

    def __init__(
        self,
        shape: Shape,
        hidden: int = 32,
        transformer: Transformer | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__(
            PerPixel(shape, ActNorm(shape[0])),
            Conv1x1(shape),
            conv_coupling(channel_mask(shape), shape, hidden, transformer, activation),
        )


class Glow(Compose):
    """The multi-scale flow: at each level squeeze, walk some steps, and factor out half of the channels.

    forward   f = Split(the levels below) o GlowStep o ... o GlowStep o Squeeze; the last level splits nothing
    inverse   the same walked backwards. log abs det: the sum over all steps, for both
    An image (C, H, W) leaves level 1 as (4C, H/2, W/2); its first half goes on, the second is latent.
    Cost: `steps` steps at each level, level k on D / 2^(k - 1) numbers: in all, less than two levels' worth.
    Parameters: those of the steps. `scales` cuts a latent vector into what each level left.
    Raises ValueError unless levels >= 1 and 2^levels divides H and W; if x does not have C H W dimensions.
    Kingma and Dhariwal 2018 (Glow), figure 2; Dinh et al. 2017 (RealNVP), section 3.6. Glow gives the
    factored-out half a mean and a scale that depend on the other half; here its base is the flow's.

    >>> f = Glow((1, 8, 8), levels=2, steps=1, hidden=8)
    >>> [tuple(part.shape) for part in f.scales(torch.zeros(5, 64))]
    [(5, 8, 2, 2), (5, 2, 4, 4)]
    """

    def __init__(
        self,
        shape: Shape,
        levels: int,
        steps: int,
        hidden: int = 32,
        transformer: Transformer | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        c, h, w = shape
        if levels < 1 or h % 2**levels or w % 2**levels:
            raise ValueError(
                f"Glow halves height and width at each level: {levels} levels do not fit {h} x {w}"
            )
        squeezed = (4 * c, h // 2, w // 2)
        half = (2 * c, h // 2, w // 2)
        options = (hidden, transformer, activation)
        parts: list[Bijection] = [Squeeze(shape), *(GlowStep(squeezed, *options) for _ in range(steps))]
        if levels > 1:
            parts.append(Split(math.prod(half), Glow(half, levels - 1, steps, *options)))
        super().__init__(*parts)
        self.shape, self.levels = shape, levels

    def scales(self, z: Tensor) -> list[Tensor]:
        """The latent vector (..., D) as images, coarsest first: what the last level made, then each half."""
        c, h, w = self.shape
        shapes = [(2**k * c, h // 2**k, w // 2**k) for k in range(1, self.levels + 1)]
        deepest = (2 * shapes[-1][0], *shapes[-1][1:])
        shapes = [deepest, *shapes[-2::-1]]
        parts = z.split([math.prod(shape) for shape in shapes], -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def sample_at(
    flow: Flow, temperature: float, shape: tuple[int, ...] = (), context: Tensor | None = None
) -> Tensor:
    """x = f^-1(T z), z drawn from the base: samples at temperature T, (*shape, D), no gradient.

    With a standard normal base the latent density becomes N(0, T^2 I), proportional to p_Z(z)^(1 / T^2).
    Where log abs det is the same everywhere (linear flows, additive couplings), the samples then have a
    density proportional to p_X(x)^(1 / T^2); elsewhere not quite. T < 1 trades variety for typicality, T = 0
    is the image of the base's centre. Raises ValueError if T < 0. Kingma and Dhariwal 2018 (Glow), section 6.

    >>> from flowkit.flow import StandardNormal
    >>> flow = Flow(StandardNormal(2), Compose())
    >>> sample_at(flow, 0.0, (3,)).abs().max().item()
    0.0
    """
    if not temperature >= 0:
        raise ValueError(f"a temperature is at least 0, got {temperature}")
    with torch.no_grad():
        return flow.bijection.inverse(temperature * flow.base.sample(shape), context)[0]


def attribute_vector(f: Bijection, x_with: Tensor, x_without: Tensor) -> Tensor:
    """mean of f(x) over points with an attribute minus that over points without: (N, D), (M, D) -> (D,).

    >>> attribute_vector(Compose(), torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0]])).tolist()
    [2.0]
    """
    return f.forward(x_with)[0].mean(0) - f.forward(x_without)[0].mean(0)


def add_attribute(f: Bijection, x: Tensor, vector: Tensor, alpha: float = 1.0) -> Tensor:
    """f^-1(f(x) + alpha v): the same points with more of an attribute, less for alpha < 0; x at alpha = 0.

    x: (..., D); vector v: (D,), from `attribute_vector`. Returns (..., D).
    Kingma and Dhariwal 2018 (Glow), section 6, add z_smile to make faces smile.

    >>> add_attribute(Compose(), torch.tensor([1.0]), torch.tensor([2.0]), alpha=-0.5).tolist()
    [0.0]
    """
    return f.inverse(f.forward(x)[0] + alpha * vector)[0]


def interpolate(f: Bijection, x0: Tensor, x1: Tensor, steps: int) -> Tensor:
    """f^-1((1 - a) f(x0) + a f(x1)) for `steps` values of a from 0 to 1: (..., D) twice -> (steps, ..., D).

    A straight line between latent vectors. In high dimensions its middle is nearer to 0 than typical points
    are: two independent draws of N(0, I) meet at norm sqrt(D / 2) in place of sqrt(D).

    >>> interpolate(Compose(), torch.tensor([0.0]), torch.tensor([4.0]), steps=3).ravel().tolist()
    [0.0, 2.0, 4.0]
    """
    z0, z1 = f.forward(x0)[0], f.forward(x1)[0]
    a = torch.linspace(0, 1, steps, dtype=z0.dtype, device=z0.device).reshape(-1, *[1] * z0.ndim)
    return f.inverse(torch.lerp(z0, z1, a))[0]
