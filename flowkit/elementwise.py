"""Elementwise flows: one scalar map for each dimension, so a diagonal Jacobian.

For z_i = h_i(x_i) the log-determinant is sum over i of log abs h_i'(x_i): O(D) in every direction. What
they cannot do is mix: z_i never sees x_j. All are written so that float32 stays finite where the
mathematics is.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from flowkit.bijection import Bijection, Inverse, check_width


class Affine(Bijection):
    """z = x * exp(s) + t, a scale and a shift for each dimension.

    forward   z = x * exp(s) + t          log abs det dz/dx =  sum over i of s_i
    inverse   x = (z - t) * exp(-s)       log abs det dx/dz = -sum over i of s_i
    Cost: O(D) for each. The scale is positive by its form, so the map is invertible for every s.
    Parameters: log_scale (D,), shift (D,), both zero at the start: the identity.
    Raises ValueError if x does not have D dimensions.

    >>> Affine(3).forward(torch.ones(2, 3))[1].tolist()      # the identity, until it is trained
    [0.0, 0.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.shift), type(self).__name__)
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.shift), type(self).__name__)
        return (z - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[:-1])


class Scale(Bijection):
    """z = x * exp(s): a diagonal matrix with a positive diagonal, NICE's scaling layer.

    forward   z = x * exp(s)      log abs det dz/dx =  sum over i of s_i
    inverse   x = z * exp(-s)     log abs det dx/dz = -sum over i of s_i
    Cost: O(D) for each. Parameters: log_scale (D,), zero at the start: the identity.
    Raises ValueError if x does not have D dimensions. Dinh et al. 2014 (NICE), section 3.3.

    >>> Scale(2).inverse(torch.tensor([1.0, -2.0]))[0].tolist()
    [1.0, -2.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.log_scale), "Scale")
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.log_scale), "Scale")
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[:-1])


class LeakyReLU(Bijection):
    """z = x where x >= 0, slope * x elsewhere.

    forward   z = max(x, 0) + slope * min(x, 0)     log abs det dz/dx =  log(slope) * #{i: x_i < 0}
    inverse   x = max(z, 0) + min(z, 0) / slope     log abs det dx/dz = -log(slope) * #{i: z_i < 0}
    Cost: O(D) for each. The derivative jumps at 0, and so does the density; there the right-hand one counts.
    Raises ValueError unless slope > 0: at 0 all negative numbers would meet.

    >>> z, log_det = LeakyReLU(0.5).forward(torch.tensor([-2.0, 3.0]))
    >>> z.tolist(), log_det.exp().item()
    ([-1.0, 3.0], 0.5)
    """

    def __init__(self, slope: float = 0.01):
        super().__init__()
        if not 0 < slope < math.inf:
            raise ValueError(
                f"the slope of LeakyReLU must be positive and finite, got {slope}: it has no inverse"
            )
        self.slope = slope

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.leaky_relu(x, self.slope), math.log(self.slope) * (x < 0).sum(-1).to(x.dtype)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.leaky_relu(z, 1 / self.slope), -math.log(self.slope) * (z < 0).sum(-1).to(z.dtype)


class Softplus(Bijection):
    """z = log(1 + exp(x)), from all numbers to the positive ones.

    forward   z = log(1 + exp(x))         log abs det dz/dx =  sum of log sigmoid(x)
    inverse   x = z + log(1 - exp(-z))    log abs det dx/dz = -sum of log(1 - exp(-z))
    Cost: O(D) for each. Where exp(x) underflows (x below -87 in float32), z is held at
    the smallest normal number.

    >>> bool(Softplus().forward(torch.tensor([-1e4, 1e4]))[0].isfinite().all())
    True
    """

    codomain = constraints.positive

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = -F.logsigmoid(-x)  # F.softplus turns linear at 20, which loses 2e-9
        return z.clamp(min=torch.finfo(x.dtype).tiny), F.logsigmoid(x).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_slope = torch.log(-torch.expm1(-z))  # log(1 - exp(-z)) without its cancellation near 0
        return z + log_slope, -log_slope.sum(-1)


class Sigmoid(Bijection):
    """z = 1 / (1 + exp(-x)), from all numbers to (0, 1).

    forward   z = sigmoid(x)                   log abs det dz/dx =  sum of log sigmoid(x) + log sigmoid(-x)
    inverse   x = log z - log(1 - z)           log abs det dx/dz = -sum of log z + log(1 - z)
    Cost: O(D) for each. Where sigmoid(x) would round to 0 or 1 (x above 17 in float32), z stays at the
    nearest number inside (0, 1), so that the inverse is finite; the log-det, computed from x, is right all
    along.

    >>> z, log_det = Sigmoid().forward(torch.zeros(2))
    >>> z.tolist(), round(log_det.exp().item(), 4)        # the slope is 1/4 at 0, twice
    ([0.5, 0.5], 0.0625)
    """

    codomain = constraints.unit_interval

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        finfo = torch.finfo(x.dtype)
        z = x.sigmoid().clamp(finfo.tiny, 1 - finfo.eps / 2)
        return z, (F.logsigmoid(x) + F.logsigmoid(-x)).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_z, log_rest = z.log(), torch.log1p(-z)
        return log_z - log_rest, -(log_z + log_rest).sum(-1)


class Logit(Inverse):
    """z = log x - log(1 - x), from (0, 1) to all numbers: Sigmoid walked backwards.

    forward   z = log x - log(1 - x)           log abs det dz/dx = -sum of log x + log(1 - x)
    inverse   x = sigmoid(z)                   log abs det dx/dz =  sum of log sigmoid(z) + log sigmoid(-z)
    Cost: O(D) for each. It turns data in the unit interval, pixels for one, into data on the whole line.

    >>> Logit().forward(torch.tensor([0.5]))[0].item()
    0.0
    """

    def __init__(self) -> None:
        super().__init__(Sigmoid())


class Tanh(Bijection):
    """z = tanh(x), from all numbers to (-1, 1).

    forward   z = tanh(x)     log abs det dz/dx =  sum of log(1 - tanh(x)^2)
                                                =  sum of 2 (log 2 - abs x - log(1 + exp(-2 abs x)))
    inverse   x = atanh(z)    log abs det dx/dz = -sum of log(1 - z) + log(1 + z)
    Cost: O(D) for each. Where tanh(x) would round to 1 (x above 9 in float32), z stays at the nearest
    number inside (-1, 1); the second form of the log-det, which does not go through z, is right all along.

    >>> Tanh().forward(torch.zeros(2))
    (tensor([0., 0.]), tensor(0.))
    """

    codomain = constraints.interval(-1.0, 1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        edge = 1 - torch.finfo(x.dtype).eps / 2
        size = x.abs()
        log_slope = 2 * (math.log(2) - size + F.logsigmoid(2 * size))
        return x.tanh().clamp(-edge, edge), log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.atanh(), -(torch.log1p(-z) + torch.log1p(z)).sum(-1)
