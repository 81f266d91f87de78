"""Pixels as points: dequantization, the logit that frees them of their bounds, and bits per dimension.

A pixel is a whole number, 0 to levels - 1, and a density can be made as high as one likes at whole numbers:
its log-likelihood there says nothing. Noise u in [0, 1) spreads each level over a cell of volume 1. Then
P(x) = integral over [0, 1)^D of p(x + u) du is a probability, and by Jensen's inequality
log P(x) >= E log p(x + u): the density's mean log-likelihood is a bound on that of a model of the levels.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from flowkit.bijection import Bijection
from flowkit.flow import Flow
from flowkit.splines import Elementwise, linear

SMALLEST = 1e-4  # the least probability of a level in a PixelHistogram


def dequantize(x: Tensor, generator: Generator | None = None) -> Tensor:
    """x + u, with u uniform on [0, 1)^D: whole numbers spread over their cells.

    x: (..., D), whole numbers in a floating-point dtype. Returns (..., D), and quantize gives x back exactly:
    where x + u would round up to the next level, the nearest number below it stands.
    Raises ValueError if x is not floating-point, or has a part behind the point. Uria, Murray and Larochelle
    2013 (RNADE); Theis, van den Oord and Bethge 2016.

    >>> x = torch.tensor([0.0, 7.0, 16.0])
    >>> quantize(dequantize(x), levels=17).tolist()
    [0.0, 7.0, 16.0]
    """
    u = torch.rand(x.shape, generator=generator, dtype=_checked(x).dtype, device=x.device)
    return _inside_cell(x, u)


def quantize(y: Tensor, levels: int) -> Tensor:
    """The level of each pixel, min(max(floor(y), 0), levels - 1): what a sample of a density is rounded to.

    >>> quantize(torch.tensor([-0.2, 3.9, 17.1]), levels=17).tolist()
    [0.0, 3.0, 16.0]
    """
    return y.floor().clamp(0, levels - 1)


def bits_per_dim(log_prob: Tensor, dim: int, levels: int = 1) -> Tensor:
    """log2(levels) - log_prob / (dim log 2): what a point costs for each of its dimensions, in bits.

    log_prob: nats, the log-density of pixels divided by `levels`, into [0, 1). The term log2(levels) is the
    log-determinant of that division, and the default 1 is for pixels on their own scale, [0, levels).
    A flow whose first layer is PixelLogit counts its own Jacobian: its log_prob is on their own scale.

    >>> bits_per_dim(torch.tensor(0.0), dim=64, levels=256).item()      # the uniform density on [0, 1)^64
    8.0
    """
    return math.log2(levels) - log_prob / (dim * math.log(2))


class PixelLogit(Bijection):
    """z = logit(p), p = alpha + (1 - 2 alpha) x / levels: pixels in [0, levels) to the whole line.

    forward   z = log p - log(1 - p)                         log abs det dz/dx = sum of l(z_i)
    inverse   x = levels (sigmoid(z) - alpha) / (1 - 2 alpha)    log abs det dx/dz = -sum of l(z_i)
              l(z) = log((1 - 2 alpha) / levels) - log sigmoid(z) - log sigmoid(-z)
    Three Jacobian terms: the division by levels, the squeezing by 1 - 2 alpha, and the logit. Left out, the
    first changes the bits per dimension by log2(levels), the second by log2(1 - 2 alpha), and the third by
    the mean over the data of log2 of the logit's slope.
    Domain: p in (0, 1), that is x from -levels alpha / (1 - 2 alpha) to levels (1 - alpha) / (1 - 2 alpha).
    It holds [0, levels) with a margin, so black and white pixels stay finite. What mass a flow puts into
    the margin is lost to the pixels, and its samples there are for `quantize`. Where x would round to an end
    of the domain it stays inside; the log-det, computed from z, is right all along.
    Cost: O(D) for each. No parameters. Raises ValueError unless levels > 0 and 0 <= alpha < 1/2.
    Dinh et al. 2017 (RealNVP), section 4.1, with alpha = 0.05; Papamakarios et al. 2017 (MAF), in this form.

    >>> f = PixelLogit(levels=16)
    >>> z, log_det = f.forward(torch.tensor([8.0]))
    >>> z.item(), round(log_det.exp().item(), 4)       # 0.9 / 16, divided by p (1 - p) = 1/4
    (0.0, 0.225)
    """

    def __init__(self, levels: float, alpha: float = 0.05):
        super().__init__()
        if not (levels > 0 and 0 <= alpha < 0.5):
            raise ValueError(f"PixelLogit needs levels > 0 and 0 <= alpha < 1/2, got {levels} and {alpha}")
        self.alpha = alpha
        self.slope = (1 - 2 * alpha) / levels
        self.domain = constraints.interval(-alpha / self.slope, (1 - alpha) / self.slope)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_p, log_rest = (self.alpha + self.slope * x).log(), torch.log1p(-self.alpha - self.slope * x)
        return log_p - log_rest, (math.log(self.slope) - log_p - log_rest).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log(self.slope)
        rounding, tiny = 4 * torch.finfo(z.dtype).eps, torch.finfo(z.dtype).tiny
        low = (tiny - self.alpha * (1 - rounding)) / self.slope
        high = (1 - self.alpha) * (1 - rounding) / self.slope
        return ((z.sigmoid() - self.alpha) / self.slope).clamp(low, high), log_slope.sum(-1)


class PixelHistogram(Bijection):
    """z_i = levels F_i(x_i), F_i the CDF of a histogram with one bin a level: it makes each pixel uniform.

    forward   z_i = levels F_i(x_i)              log abs det dz/dx = sum of log(levels p_i[floor(x_i)])
    inverse   x_i = F_i^-1(z_i / levels)         log abs det dx/dz = -sum of log(levels p_i[floor(x_i)])
    Under a uniform base on [0, levels)^D this is the model of independent levels with probabilities p_i; a
    flow behind it has only to learn how pixels depend on each other. In image processing its name is
    histogram equalization. Linear on each cell, so no noise within one is bent.
    Domain: [0, levels]; outside, z = x. No p_i[k] is below 1e-4, so that each level can be drawn.
    Cost: O(D levels) for each. Parameters: logits (D, levels), zero at the start: the identity; `fitted`
    sets them to those of a data set. Raises ValueError if x does not have D dimensions.

    >>> x = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    >>> z, log_det = PixelHistogram.fitted(x, levels=2, pseudo_count=0.0).forward(torch.tensor([0.5]))
    >>> round(z.item(), 3), round(log_det.exp().item(), 3)        # the first 3/4 of [0, 2) are for level 0
    (0.75, 1.5)
    """

    def __init__(self, dim: int, levels: int):
        super().__init__()
        self.centre = levels / 2
        self.f = Elementwise(dim, linear(bins=levels, bound=self.centre, smallest=SMALLEST))
        self.domain = self.codomain = constraints.interval(0.0, float(levels))

    @classmethod
    def fitted(cls, x: Tensor, levels: int, pseudo_count: float = 0.5) -> "PixelHistogram":
        """The histograms of x, (N, D) whole numbers or dequantized; pseudo_count is added to each bin.

        Without it, a level that a pixel never has in x is given about 2e-4.
        """
        counts = F.one_hot(quantize(x, levels).long(), levels).sum(0).to(x) + pseudo_count
        p = (counts / counts.sum(-1, keepdim=True)).clamp(min=2 * SMALLEST)
        layer = cls(x.shape[-1], levels).to(x)
        with torch.no_grad():  # shares() gives SMALLEST + (1 - levels SMALLEST) softmax(logits)
            layer.f.params.copy_((p / p.sum(-1, keepdim=True) - SMALLEST).log())
        return layer

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.f.forward(x - self.centre)
        return z + self.centre, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.f.inverse(z - self.centre)
        return x + self.centre, log_det


class Dequantized(nn.Module):
    """A model of whole numbers made of a density: P(x) = integral over [0, 1)^D of p(x + u) du.

    flow: p, a density of x + u on the scale of the levels (`PixelLogit` as its first layer, for one).
    levels: each pixel is one of 0 to levels - 1.
    noise: q(u | x), a Flow on the unit cube whose context, (..., D), is x brought to [-1, 1]; by default u is
        uniform. A flow from the cube to a normal base is Compose(Logit(), f) with f conditional.

    log_prob(x)           log p(x + u) - log q(u | x) with one u drawn from q: a random number whose mean
                          is at most log P(x), with equality where q(u | x) is p(x + u) / P(x)
    estimate(x, samples)  the log of the mean of p(x + u) / q(u | x) over draws of u: the same bound, tighter
                          with each further draw; it tends to log P(x)
    sample(shape)         levels of points drawn from the flow
    Fitted by the mean of log_prob, p and q learn together (variational dequantization). Fresh noise is drawn
    at each call; uniform noise that is drawn once can be learned by heart.
    Cost: a pass of the flow for each draw, and one of the noise. Raises ValueError if x is not whole numbers.
    Ho et al. 2019 (Flow++), section 3.1; for estimate, Burda et al. 2016.

    >>> from flowkit.flow import StandardNormal
    >>> model = Dequantized(Flow(StandardNormal(2), PixelLogit(16)), levels=16)
    >>> model.log_prob(torch.tensor([[3.0, 15.0]])).shape, model.sample((5,)).shape
    (torch.Size([1]), torch.Size([5, 2]))
    """

    def __init__(self, flow: Flow, levels: int, noise: Flow | None = None):
        super().__init__()
        self.flow = flow
        self.levels = levels
        self.noise = noise

    def log_prob(self, x: Tensor) -> Tensor:
        """One draw of log p(x + u) - log q(u | x) for each point: (..., D) -> (...)."""
        _checked(x)
        if self.noise is None:
            return self.flow.log_prob(dequantize(x))
        context = 2 * x / max(self.levels - 1, 1) - 1
        u, log_q = self.noise.rsample_with_log_prob(x.shape[:-1], context)
        return self.flow.log_prob(_inside_cell(x, u)) - log_q

    def estimate(self, x: Tensor, samples: int) -> Tensor:
        """The importance-weighted bound of `samples` draws: (..., D) -> (...), O(samples) memory."""
        draws = self.log_prob(x.expand(samples, *x.shape))
        return draws.logsumexp(0) - math.log(samples)

    def sample(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Independent draws of levels: (*shape, D)."""
        return quantize(self.flow.sample(shape), self.levels)


def _inside_cell(x: Tensor, u: Tensor) -> Tensor:
    """x + u, held below the next whole number, to which it may round."""
    return torch.minimum(x + u, torch.nextafter(x + 1, x))


def _checked(x: Tensor) -> Tensor:
    if not x.is_floating_point() or (x != x.floor()).any():
        raise ValueError(
            f"dequantization takes whole numbers in a floating-point dtype, got {x.dtype}"
            + (" with parts behind the point: they are dequantized already" if x.is_floating_point() else "")
        )
    return x
