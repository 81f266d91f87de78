"""The four densities on the plane that Rezende and Mohamed (2015, table 1) fit by variational inference.

Each is known by its energy U, up to its normalizer Z: reverse KL needs no more, maximum likelihood does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowkit.bijection import check_width


def u1(x: Tensor) -> Tensor:
    """U1 = ((|x| - 2) / 0.4)^2 / 2 - log(exp(-((x1 - 2) / 0.6)^2 / 2) + exp(-((x1 + 2) / 0.6)^2 / 2))."""
    ring = (torch.linalg.vector_norm(x, dim=-1) - 2) / 0.4
    return ring.square() / 2 - _either(x[..., 0] - 2, 0.6, x[..., 0] + 2, 0.6)


def u2(x: Tensor) -> Tensor:
    """U2 = ((x2 - w1) / 0.4)^2 / 2, w1 = sin(pi x1 / 2)."""
    return (_off_wave(x) / 0.4).square() / 2


def u3(x: Tensor) -> Tensor:
    """U3 = -log(exp(-((x2 - w1) / 0.35)^2 / 2) + exp(-((x2 - w1 + w2) / 0.35)^2 / 2)).

    w2 = 3 exp(-((x1 - 1) / 0.6)^2 / 2): the wave splits in two around x1 = 1.
    """
    split = 3 * torch.exp(-((x[..., 0] - 1) / 0.6).square() / 2)
    return -_either(_off_wave(x), 0.35, _off_wave(x) + split, 0.35)


def u4(x: Tensor) -> Tensor:
    """U4 = -log(exp(-((x2 - w1) / 0.4)^2 / 2) + exp(-((x2 - w1 + w3) / 0.35)^2 / 2)).

    w3 = 3 sigmoid((x1 - 1) / 0.3): two waves from x1 = 1 on.
    """
    split = 3 * torch.sigmoid((x[..., 0] - 1) / 0.3)
    return -_either(_off_wave(x), 0.4, _off_wave(x) + split, 0.35)


def _off_wave(x: Tensor) -> Tensor:
    return x[..., 1] - torch.sin(math.pi * x[..., 0] / 2)


def _either(a: Tensor, width_a: float, b: Tensor, width_b: float) -> Tensor:
    return torch.logaddexp(-(a / width_a).square() / 2, -(b / width_b).square() / 2)


@dataclass(frozen=True)
class Energy:
    """A density on the plane known by its energy: p(x) = exp(-U(x) - tail |x1|) / Z.

    tail    U2, U3 and U4 repeat or go straight along x1 and have infinite mass on the plane (Z doubles with
            the box); tail |x1| makes them densities. 0 for U1, which is one as it is
    log_z   log of Z, the integral over the plane
    """

    name: str
    potential: Callable[[Tensor], Tensor] = field(repr=False)
    log_z: float
    tail: float = 0.0

    def log_density(self, x: Tensor) -> Tensor:
        """-U(x) - tail |x1|, not normalized: (..., 2) -> (...). ValueError for points of another width."""
        check_width(x, 2, f"energy {self.name}")
        return -self.potential(x) - self.tail * x[..., 0].abs()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), normalized: (..., 2) -> (...)."""
        return self.log_density(x) - self.log_z


def _tailed(name: str, potential: Callable[[Tensor], Tensor], widths: float, tail: float = 0.1) -> Energy:
    """At each x1 stand Gaussians along x2, widths summing to `widths`; exp(-tail |x1|) holds 2 / tail."""
    return Energy(name, potential, math.log(2 / tail * math.sqrt(2 * math.pi) * widths), tail)


ENERGIES = {
    "U1": Energy("U1", u1, 1.8775016261097),
    "U2": _tailed("U2", u2, 0.4),
    "U3": _tailed("U3", u3, 0.35 + 0.35),
    "U4": _tailed("U4", u4, 0.4 + 0.35),
}
"""The four energies of Rezende and Mohamed 2015, table 1, by name."""
