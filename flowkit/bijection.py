"""The contract of a bijection, and the two ways to build new ones from old: composition and inversion."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import constraints


class Bijection(nn.Module):
    """A differentiable map f : x -> z with a differentiable inverse. Forward is data to noise.

    z, log_det = f.forward(x)      x: (..., D) -> z: (..., D); log_det: (...), log abs det dz/dx at x
    x, log_det = f.inverse(z)      z: (..., D) -> x: (..., D); log_det: (...), log abs det dx/dz at z

    Each log_det belongs to the map just applied, is summed over dimensions, one number for each point,
    and has the dtype and device of its input. Forward and inverse log-dets of one point sum to zero.

    `domain` and `codomain` say where x and z live, as constraints of `torch.distributions`. A conditional
    bijection takes `context`, a tensor (..., C) whose leading dimensions are those of x.
    """

    domain: constraints.Constraint = constraints.real
    codomain: constraints.Constraint = constraints.real

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f(x) and log abs det dz/dx."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f^-1(z) and log abs det dx/dz."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")


class Compose(Bijection):
    """f = f_K o ... o f_1: f_1 is applied to the data first.

    forward   x -> f_K(... f_1(x))          log_det = sum over k of log abs det df_k, each at its own input
    inverse   z -> f_1^-1(... f_K^-1(z))    log_det = sum over k of log abs det df_k^-1
    Cost: the sum of the costs. Compose() is the identity. The context goes to every part.
    """

    bijections: Sequence[Bijection]

    def __init__(self, *bijections: Bijection):
        super().__init__()
        self.bijections = nn.ModuleList(bijections)  # type: ignore[assignment]  # it is a sequence of them
        if bijections:
            self.domain = bijections[0].domain
            self.codomain = bijections[-1].codomain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:-1])
        for f in self.bijections:
            x, step = f.forward(x, context)
            log_det = log_det + step
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[:-1])
        for f in reversed(self.bijections):
            z, step = f.inverse(z, context)
            log_det = log_det + step
        return z, log_det


class Inverse(Bijection):
    """The same map walked backwards: forward is f.inverse, and inverse is f.forward.

    An inverse autoregressive flow is Inverse of a masked autoregressive one; in variational lessons, a flow
    that pushes a simple posterior forward is Inverse of one that normalizes.
    """

    def __init__(self, bijection: Bijection):
        super().__init__()
        self.bijection = bijection
        self.domain = bijection.codomain
        self.codomain = bijection.domain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.forward(z, context)


def check_width(x: Tensor, dim: int, name: str) -> None:
    """Raises a ValueError, with the name of the layer, unless x is a batch of points of dimension dim."""
    if x.ndim == 0 or x.shape[-1] != dim:
        raise ValueError(f"{name} takes points of shape (..., {dim}), got {tuple(x.shape)}")
