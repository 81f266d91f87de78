"""Normalization as a flow: ActNorm and batch normalization, affine maps whose numbers come from data.

Both bring each dimension to mean 0 and standard deviation 1, then scale and shift it. ActNorm reads one
batch, once, and is a function of one point from then on. Batch normalization reads every batch while it
trains: then z_n depends on all the x_m, and only in eval mode is there a map of one point to speak of.
"""

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection, check_width
from flowkit.elementwise import Affine


class ActNorm(Affine):
    """Affine, started so that each dimension of the first batch comes out with mean 0, standard deviation 1.

    forward   z = x * exp(s) + t          log abs det dz/dx =  sum over i of s_i
    inverse   x = (z - t) * exp(-s)       log abs det dx/dz = -sum over i of s_i
    The first forward in training mode sets s = -log std(x) and t = -mean(x) exp(s); from then on s and t are
    ordinary parameters, and the map is a function of one point. That it happened is kept in the buffer
    `initialized`, which is saved with the parameters, so that a loaded layer does not start again.
    Cost: O(D) for each. Parameters: log_scale (D,), shift (D,).
    Raises ValueError if the first batch has fewer than two points, or one constant dimension: no scale
    can bring that to 1. Kingma and Dhariwal 2018 (Glow), section 3.1.

    >>> f = ActNorm(1)
    >>> f.forward(torch.tensor([[1.0], [3.0], [5.0]]))[0].ravel().tolist()
    [-1.0, 0.0, 1.0]
    >>> f.forward(torch.tensor([7.0]))[0].tolist()      # from now on, (x - 3) / 2
    [2.0]
    """

    initialized: Tensor

    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialized:
            check_width(x, len(self.shift), "ActNorm")
            self.initialize(x)
        return super().forward(x)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Sets s and t from a batch (..., D)."""
        points = x.reshape(-1, len(self.shift))
        if len(points) < 2:
            raise ValueError(
                "ActNorm's first batch in training mode needs at least two points to have a spread"
            )
        std, mean = torch.std_mean(points, 0)
        if not (std > 0).all():
            raise ValueError(
                "ActNorm's first batch is constant in some dimension; no scale can make its spread 1"
            )
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-mean / std)
        self.initialized.fill_(True)


class BatchNorm(Bijection):
    """z = (x - m) / sqrt(v + eps) * exp(s) + t, with m and v of the batch in training, running ones in eval.

    forward   z = (x - m) * exp(a) + t       log abs det dz/dx =  sum over i of a_i
    inverse   x = (z - t) * exp(-a) + m      log abs det dx/dz = -sum over i of a_i
              with a = s - log(v + eps) / 2
    Eval mode: m and v are the buffers running_mean and running_var, and this is a bijection of one point.
    Train mode: m and v are the mean and the (biased) variance over all points of the batch, gradients
    flow through them, and the buffers move towards them by `momentum`. The log-det is reported as if m and v
    were constants. It is not that of a function of one x: z_n depends on every x_m, and the Jacobian of the
    whole batch is singular, since m is subtracted: x and x + c come out alike. So there is no inverse,
    and densities are judged in eval mode alone.
    Cost: O(D) a point for each. Parameters: log_scale s (D,), shift t (D,), both zero at the start. Buffers:
    running_mean (D,), zero, and running_var (D,), one: at the start, eval mode divides by sqrt(1 + eps).
    Raises ValueError if x does not have D dimensions, or a batch in training has fewer than two points;
    RuntimeError on inverse in training mode. Ioffe and Szegedy 2015; Dinh et al. 2017 (RealNVP), section 3.7.

    >>> f = BatchNorm(1)
    >>> z, log_det = f.forward(torch.tensor([[1.0], [3.0]]))        # variance 1
    >>> z.ravel().round(decimals=3).tolist(), log_det.round(decimals=3).tolist()
    ([-1.0, 1.0], [-0.0, -0.0])
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, len(self.shift), "BatchNorm")
        mean, var = self._of_batch(x) if self.training else (self.running_mean, self.running_var)
        log_slope = self._log_slope(var)
        return (x - mean) * log_slope.exp() + self.shift, log_slope.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(z, len(self.shift), "BatchNorm")
        if self.training:
            raise RuntimeError(
                "BatchNorm has no inverse in training mode, where it forgets the mean of its batch: "
                "call eval() first"
            )
        log_slope = self._log_slope(self.running_var)
        x = (z - self.shift) * (-log_slope).exp() + self.running_mean
        return x, -log_slope.sum().expand(z.shape[:-1])

    def _log_slope(self, var: Tensor) -> Tensor:
        return self.log_scale - 0.5 * (var + self.eps).log()

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over all points of x; the buffers follow, by the unbiased variance."""
        points = x.reshape(-1, len(self.shift))
        if len(points) < 2:
            raise ValueError("BatchNorm needs at least two points to have a spread in training mode")
        var, mean = torch.var_mean(points, 0, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * len(points) / (len(points) - 1), self.momentum)
        return mean, var
