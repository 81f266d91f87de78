"""Densities to learn, each with its exact log-density and its entropy, so that a fit can be judged in nats.

The cross-entropy of a model on held-out data is at least the entropy of the target, and the difference is
KL(target || model). A model that seems to do better than the entropy has a bug, or too few held-out points.

    target = two_moons()
    x = target.sample(1000, seed=0)                  # (1000, 2)
    kl = -flow.log_prob(x).mean() - target.entropy   # nats, with a standard error of about 1 / sqrt(1000)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

Extent = tuple[float, float, float, float]
Draw = Callable[[int, Generator], Tensor]
LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """A density on R^D that can be sampled and evaluated, and whose entropy is known.

    dim        D
    entropy    -E log p(x), in nats
    extent     (x0, x1, y0, y1), a box that holds all but less than 1e-4 of the mass; None unless D = 2
    """

    name: str
    dim: int
    entropy: float
    extent: Extent | None
    draw: Draw = field(repr=False)
    log_density: LogDensity = field(repr=False)

    def sample(self, n: int, seed: int | Generator = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """n independent points, (n, D). One seed gives the same points in every dtype, up to rounding.

        seed: a number, or a generator whose stream goes on from call to call.
        """
        generator = seed if isinstance(seed, Generator) else Generator().manual_seed(seed)
        return self.draw(n, generator).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each point: (..., D) -> (...), computed in float64, returned in x's dtype.

        Raises ValueError when the last dimension of x is not D.
        """
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise ValueError(
                f"{self.name} is a density on points of shape (..., {self.dim}): x has shape {tuple(x.shape)}"
            )
        return self.log_density(x.double()).to(x.dtype)


def grid(extent: Extent, n: int = 400, dtype: torch.dtype = torch.float32) -> tuple[Tensor, float]:
    """The midpoints of n x n equal cells of the box, and the area of one cell.

    extent = (x0, x1, y0, y1) -> points (n, n, 2), with points[i, j] = (x_j, y_i) as images have it; area
    """
    x0, x1, y0, y1 = extent
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    y, x = torch.meshgrid(y0 + (y1 - y0) * middle, x0 + (x1 - x0) * middle, indexing="ij")
    return torch.stack([x, y], -1).to(dtype), (x1 - x0) * (y1 - y0) / n**2


def integral(
    log_prob: Callable[[Tensor], Tensor],
    extent: Extent,
    n: int = 400,
    dtype: torch.dtype = torch.float32,
) -> float:
    """The mass of a two-dimensional density in a box, by the midpoint rule: sum of exp(log_prob) times area.

    log_prob: (N, 2) -> (N,), for instance `flow.log_prob`, evaluated in dtype without gradients.
    Cost: n^2 points, 65,536 at a time.

    For smooth densities the error falls faster than any power of n once the cells are narrower than the
    finest detail; double n to see whether they are. Below one, the box is too small or mass is missing;
    above one, the log-determinant is wrong.
    """
    points, area = grid(extent, n, dtype)
    with torch.no_grad():
        masses = [log_prob(part).double().exp().sum() for part in points.reshape(-1, 2).split(65_536)]
    return float(sum(masses)) * area


def gaussian(mean: ArrayLike = (0.0, 0.0), covariance: ArrayLike = ((1.0, 0.0), (0.0, 1.0))) -> Target:
    """N(mean, covariance) in any dimension. Entropy: (D log(2 pi e) + log det covariance) / 2.

    Raises ValueError when the shapes do not fit or the covariance is not symmetric and positive definite.
    """
    mean = torch.as_tensor(mean, dtype=torch.float64)
    covariance = torch.as_tensor(covariance, dtype=torch.float64)
    dim = mean.numel()
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise ValueError(
            "a Gaussian wants a mean (D,) and a covariance (D, D): "
            f"they have shapes {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed or not torch.allclose(covariance, covariance.mT):
        raise ValueError("the covariance must be symmetric and positive definite")
    log_det = 2 * factor.diagonal().log().sum()

    def log_density(x: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(factor, (x - mean).unsqueeze(-1), upper=False).squeeze(-1)
        return -0.5 * (white.square().sum(-1) + dim * math.log(2 * math.pi) + log_det)

    def draw(n: int, generator: Generator) -> Tensor:
        return mean + torch.randn(n, dim, generator=generator, dtype=torch.float64) @ factor.mT

    reach = 5 * covariance.diagonal().sqrt()
    box = torch.stack([mean - reach, mean + reach], -1).flatten().tolist()
    entropy = 0.5 * (dim * math.log(2 * math.pi * math.e) + log_det.item())
    return Target("gaussian", dim, entropy, tuple(box) if dim == 2 else None, draw, log_density)


def maf_figure_1() -> Target:
    """x2 ~ N(0, 4), x1 given x2 ~ N(x2^2 / 4, 1): a banana that is easy in one order of the variables only.

    Entropy: log(2 pi e) + log 2 = 3.5310 nats. Papamakarios, Pavlakou and Murray (2017),
    "Masked autoregressive flow for density estimation", Figure 1.
    """

    def log_density(x: Tensor) -> Tensor:
        x1, x2 = x.unbind(-1)
        return -0.5 * ((x1 - x2.square() / 4).square() + x2.square() / 4) - math.log(4 * math.pi)

    def draw(n: int, generator: Generator) -> Tensor:
        noise1, noise2 = torch.randn(2, n, generator=generator, dtype=torch.float64)
        x2 = 2 * noise2
        return torch.stack([x2.square() / 4 + noise1, x2], -1)

    entropy = math.log(4 * math.pi * math.e)
    return Target("maf_figure_1", 2, entropy, (-5.0, 19.0, -9.0, 9.0), draw, log_density)


def checkerboard() -> Target:
    """Uniform on the dark squares of a 4 x 4 board of side 8, centred at zero. Entropy: log 32 = 3.4657 nats.

    Outside, log_prob is -inf. The board of FFJORD's toy data (Grathwohl et al. 2019).
    """
    steps = (
        2**20
    )  # midpoints of a grid that float32 holds exactly, so that rounding moves no point over an edge

    def draw(n: int, generator: Generator) -> Tensor:
        inside = (torch.randint(steps, (n, 2), generator=generator, dtype=torch.float64) + 0.5) / steps
        column = torch.randint(4, (n,), generator=generator)
        row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
        return 2 * (torch.stack([column, row], -1) - 2 + inside)

    def log_density(x: Tensor) -> Tensor:
        dark = torch.floor(x / 2).sum(-1) % 2 == 0
        on_board = ((x >= -4) & (x < 4)).all(-1)
        return x.new_full((), -math.log(32)).where(dark & on_board, -torch.inf)

    return Target("checkerboard", 2, math.log(32), (-4.0, 4.0, -4.0, 4.0), draw, log_density)


def eight_gaussians() -> Target:
    """Eight equal Gaussians of standard deviation 0.5 / 1.414 on a circle of radius 4 / 1.414.

    Entropy: 2.8319 nats, by quadrature (log 8 + log(2 pi e s^2) = 2.8382 would hold without overlap).
    The scaling of FFJORD's toy data (Grathwohl et al. 2019), 1.414 included.
    """
    radius, noise = 4 / 1.414, 0.5 / 1.414
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    centres = radius * torch.stack([angle.cos(), angle.sin()], -1)

    def draw(n: int, generator: Generator) -> Tensor:
        chosen = centres[torch.randint(8, (n,), generator=generator)]
        return chosen + noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    reach = radius + 6 * noise
    box = (-reach, reach, -reach, reach)
    return _blurred("eight_gaussians", noise, box, draw, _mixture(centres, noise))


def two_moons(noise: float = 0.15) -> Target:
    """Two interleaved half circles of radius one, blurred by Gaussian noise, and centred at zero.

    Upper moon: (cos t - 1/2, sin t - 1/4), t uniform on [0, pi]. The lower one is its mirror image in the
    origin. The density is the integral over t of N(x; moon(t), noise^2 I), by Gauss and Legendre's rule.
    Entropy by quadrature: 1.4168 nats at noise 0.15.
    """

    def upper(v: Tensor) -> Tensor:
        t = math.pi * v
        return torch.stack([t.cos() - 0.5, t.sin() - 0.25], -1)

    reach = 6 * noise
    extent = (-1.5 - reach, 1.5 + reach, -0.75 - reach, 0.75 + reach)
    return _curve_and_mirror("two_moons", upper, 1, math.pi, noise, extent)


def two_spirals(noise: float = 0.2) -> Target:
    """Two arms of one and a half turns, blurred by Gaussian noise.

    One arm: (t cos t, t sin t) / 3, t^2 uniform on [0, (3 pi)^2]. The other is its mirror image.
    Entropy by quadrature: 3.2137 nats at noise 0.2.
    """

    def arm(v: Tensor) -> Tensor:
        t = 3 * math.pi * v
        return torch.stack([t * t.cos(), t * t.sin()], -1) / 3

    reach = math.pi + 6 * noise
    return _curve_and_mirror("two_spirals", arm, 2, 15.5, noise, (-reach, reach, -reach, reach))


def rings(noise: float = 0.1, radii: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Target:
    """Concentric circles of equal mass, blurred by Gaussian noise of standard deviation s.

    One circle of radius R: p(x) = exp(-(r^2 + R^2) / 2 s^2) I_0(r R / s^2) / (2 pi s^2), where r is the norm
    of x and I_0 the modified Bessel function. Entropy by quadrature: 2.6490 nats at noise 0.1.
    """
    circles = torch.as_tensor(radii, dtype=torch.float64)

    def log_density(x: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        bessel = torch.special.i0e(r * circles / noise**2).log()  # scaled by exp(-r R / s^2): no overflow
        parts = bessel - (r - circles).square() / (2 * noise**2)
        return parts.logsumexp(-1) - math.log(2 * math.pi * noise**2 * len(radii))

    def draw(n: int, generator: Generator) -> Tensor:
        radius = circles[torch.randint(len(radii), (n,), generator=generator)]
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        circle = radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
        return circle + noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    reach = max(radii) + 6 * noise
    return _blurred("rings", noise, (-reach, reach, -reach, reach), draw, log_density)


def _mixture(centres: Tensor, noise: float, log_weights: Tensor | None = None) -> LogDensity:
    """x -> log of the sum over k of w_k N(x; c_k, noise^2 I); equal weights when none are given.

    The exponent -|x - c|^2 / 2 s^2 is expanded, so that one matrix product serves all pairs of point and
    centre; what cancels is some 1e4 at most, which leaves twelve digits of float64. Cost: one exponential for
    each pair, about four million pairs at a time.
    """
    if log_weights is None:
        log_weights = torch.full((len(centres),), -math.log(len(centres)), dtype=torch.float64)
    scaled = centres / noise**2
    offsets = log_weights - math.log(2 * math.pi * noise**2) - (centres * scaled).sum(-1) / 2

    def log_density(x: Tensor) -> Tensor:
        rows = x.reshape(-1, 2).split(4_000_000 // len(centres))
        parts = [torch.addmm(offsets, row, scaled.mT).logsumexp(-1) for row in rows]
        return torch.cat(parts).reshape(x.shape[:-1]) - x.square().sum(-1) / (2 * noise**2)

    return log_density


def _curve_and_mirror(
    name: str, curve: Callable[[Tensor], Tensor], power: int, length: float, noise: float, extent: Extent
) -> Target:
    """Half of the mass along a curve v -> (x, y), half along its mirror image in the origin, then blurred.

    v lies in [0, 1], and v^power is uniform. There are three Gauss and Legendre nodes for each standard
    deviation of the noise along the curve's length, where the rule has converged to rounding.
    """
    nodes, rule = np.polynomial.legendre.leggauss(16 + math.ceil(3 * length / noise))
    v = torch.from_numpy(nodes + 1) / 2
    weights = torch.from_numpy(rule) / 2 * power * v ** (power - 1)
    log_weights = (weights / 2).log().repeat(2)
    on_curve = curve(v)

    def draw(n: int, generator: Generator) -> Tensor:
        v = torch.rand(n, generator=generator, dtype=torch.float64) ** (1 / power)
        sign = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
        return sign * curve(v) + noise * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    density = _mixture(torch.cat([on_curve, -on_curve]), noise, log_weights)
    return _blurred(name, noise, extent, draw, density)


def _blurred(name: str, noise: float, extent: Extent, draw: Draw, log_density: LogDensity) -> Target:
    """The target with its entropy by the midpoint rule, in cells of half the noise's standard deviation.

    That is enough for a density blurred by Gaussian noise: the rule's error is about
    exp(-2 pi^2 (noise / cell)^2).
    """
    x0, x1, y0, y1 = extent
    points, area = grid(extent, math.ceil(2 * max(x1 - x0, y1 - y0) / noise), torch.float64)
    log_p = log_density(points)
    entropy = -float((log_p.exp() * log_p).sum()) * area
    return Target(name, 2, entropy, extent, draw, log_density)


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8 x 8 pixels, each pixel one of 17 levels 0 ... 16, split 1000 / 350 / 447.

    train, valid, test     (N, 64) pixels in reading order, dequantized: level + U[0, 1), in [0, 17)
    train_labels, ...      (N,) the digits, 0 ... 9

    The uniform density on [0, 17)^64 costs log2(17) = 4.087 bits per dimension. A model of y = x / 17 must
    subtract 64 log 17 nats from its log-density of y: the log-determinant of the scaling.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    train_labels: Tensor
    valid_labels: Tensor
    test_labels: Tensor
    levels: int = 17
    shape: tuple[int, int] = (8, 8)


def digits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Digits:
    """The digits that come with scikit-learn, shuffled, split and dequantized by the seed.

    Dequantization: the density of level + U[0, 1) gives a lower bound on the log-probability of the level
    (Theis, van den Oord and Bethge 2016, "A note on the evaluation of generative models").
    """
    from sklearn.datasets import load_digits  # a slow import, that only this function needs

    pixels, labels = load_digits(return_X_y=True)
    generator = Generator().manual_seed(seed)
    order = torch.randperm(len(pixels), generator=generator)
    below_one = 1 - 2**-18  # so that float32 rounds no pixel up to the next level
    noise = below_one * torch.rand(pixels.shape, generator=generator, dtype=torch.float64)
    images = (torch.from_numpy(pixels) + noise).to(dtype)[order]
    labels = torch.from_numpy(labels)[order]
    return Digits(*images.split([1000, 350, 447]), *labels.split([1000, 350, 447]))
