"""What is to be examined: the options of `check_bijection`, and how points are laid into a domain."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
EXTREMES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
POINTS = 64
SMALL = 3.0  # what overflows at points of this size or more is let be
QUICK_DRAWS = 12  # further draws of the parameters, for the laws that break at few of them
SPREAD = 8.0
REAL = constraints.real


@dataclass(frozen=True)
class Exam:
    """The options of `check_bijection`, which says what they mean."""

    dim: int | tuple[int, ...]
    context: int | Tensor | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    batch_shapes: tuple[tuple[int, ...], ...] = ((), (5,), (2, 3))
    seed: int = 0
    randomize: float = 0.5
    draws: int = 3
    integrate: bool | None = None
    inverse: bool = True
    inverse_gradient: bool = True
    extremes: tuple[float, ...] = EXTREMES
    tolerances: dict[torch.dtype, float] = field(default_factory=dict)

    @property
    def event(self) -> tuple[int, ...]:
        return (self.dim,) if isinstance(self.dim, int) else tuple(self.dim)


def is_real(constraint: Constraint) -> bool:
    return getattr(constraint, "base_constraint", constraint) is REAL


def lay(constraint: Constraint, reals: Tensor) -> Tensor:
    """Real numbers laid into the domain."""
    if is_real(constraint):
        return reals
    try:
        return biject_to(constraint)(reals.clamp(-8, 8))
    except NotImplementedError:
        raise ValueError(f"torch.distributions.biject_to cannot draw points from {constraint}") from None
