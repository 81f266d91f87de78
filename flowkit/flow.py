"""A density made of a base density and a bijection: log p_X(x) = log p_Z(f(x)) + log abs det dz/dx."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection


class Base(Protocol):
    """What a base density can do; the distributions of torch.distributions can."""

    def log_prob(self, z: Tensor, /) -> Tensor: ...

    def sample(self, shape: Any = ..., /) -> Tensor: ...

    def rsample(self, shape: Any = ..., /) -> Tensor: ...


class StandardNormal(nn.Module):
    """N(0, I) in D dimensions, as a module, so that it moves between devices and dtypes with its flow.

    log_prob(z) = -(z . z + D log 2 pi) / 2
    """

    zero: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of each point: (..., D) -> (...)."""
        return -0.5 * (z.square().sum(-1) + self.zero.numel() * math.log(2 * math.pi))

    def sample(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Independent draws: (*shape, D)."""
        return torch.randn(*shape, *self.zero.shape, dtype=self.zero.dtype, device=self.zero.device)

    rsample = sample


class Flow(nn.Module):
    """The density of x = f^-1(z), where z is drawn from a base density.

    base: StandardNormal(D), or any distribution of torch.distributions over points (event_shape (D,)).
    log_prob(x)            log p_Z(f(x)) + log abs det dz/dx        one forward pass
    sample(shape)          f^-1(z) with z drawn from the base       one inverse pass, no gradient
    rsample(shape)         the same, differentiable in the parameters
    """

    base: Base
    bijection: Bijection

    def __init__(self, base: Base, bijection: Bijection):
        super().__init__()
        self.base = base
        self.bijection = bijection

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each point: (..., D) -> (...)."""
        z, log_det = self.bijection.forward(x, context)
        return self.base.log_prob(z) + log_det

    def sample(self, shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        """Independent draws: (*shape, D)."""
        with torch.no_grad():
            return self.rsample(shape, context)

    def rsample(self, shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        """Reparametrized draws: (*shape, D), differentiable in the parameters of the bijection."""
        return self.bijection.inverse(self.base.rsample(shape), context)[0]

    def rsample_with_log_prob(
        self, shape: tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x = f^-1(z) and log p_X(x) = log p_Z(z) - log abs det dx/dz, in one pass."""
        z = self.base.rsample(shape)
        x, log_det = self.bijection.inverse(z, context)
        return x, self.base.log_prob(z) - log_det
