"""Hamiltonian flow: leapfrog, which keeps volume and runs back exactly; HMC; and a flow of log-det 0.

H(q, p) = U(q) + |p|^2 / 2 with U = -log density. dq/dt = p, dp/dt = -grad U(q), the force. The divergence
of that field is 0, so the flow keeps volume (Liouville). Leapfrog keeps it too, step by step: each of its
kicks and drifts is a shear.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from flowkit.bijection import Bijection, check_width
from flowkit.stochastic import Chain, LogDensity, metropolis, noise_like, value_and_gradient


def leapfrog(
    force: Callable[[Tensor], Tensor], q: Tensor, p: Tensor, step: float, steps: int
) -> tuple[Tensor, Tensor]:
    """q and p after `steps` leapfrog steps: half a kick, drift, kick, ..., drift, half a kick.

    One step: p <- p + h/2 force(q);  q <- q + h p;  p <- p + h/2 force(q).
    Exactly volume-preserving, and reversible: the step -h undoes it, as does p <- -p before and after.
    The energy errs by O(h^2) and does not drift, while h is below 2 / the highest frequency.
    q, p: (..., D). Cost: steps + 1 forces. Raises ValueError unless steps >= 1.

    >>> q, p = leapfrog(lambda q: -q, torch.tensor([1.0]), torch.tensor([0.0]), 0.1, 63)
    >>> q, p                                            # about one turn
    (tensor([0.9998]), tensor([-0.0194]))
    """
    if steps < 1:
        raise ValueError(f"leapfrog needs at least one step, got {steps}")
    p = p + step / 2 * force(q)
    for n in range(steps):
        q = q + step * p
        p = p + (step if n < steps - 1 else step / 2) * force(q)
    return q, p


def energy(log_density: LogDensity, q: Tensor, p: Tensor) -> Tensor:
    """H = -log density(q) + |p|^2 / 2: (..., D), (..., D) -> (...)."""
    return p.square().sum(-1) / 2 - log_density(q)


def gaussian_energy_error(step: float, steps: int) -> float:
    """The mean of H after - H before, per dimension, when q and p are N(0, I): leapfrog in closed form.

    A step turns by theta, cos(theta) = 1 - h^2/2, around an ellipse of axes' ratio chi = 1 / sqrt(1 - h^2/4):
    (chi - 1/chi)^2 sin(steps theta)^2 / 2, which is O(h^4). Of D dimensions, D times that, mu; and HMC then
    accepts, for large D, 2 Phi(-sqrt(mu / 2)). Beskos, Pillai, Roberts, Sanz-Serna and Stuart 2013.
    Raises ValueError unless 0 < h < 2: beyond, leapfrog is unstable.

    >>> round(gaussian_energy_error(1.0, 1), 6)
    0.03125
    """
    if not 0 < step < 2:
        raise ValueError(f"leapfrog on a standard normal is stable for steps between 0 and 2, got {step:g}")
    theta = torch.acos(torch.tensor(1 - step**2 / 2, dtype=torch.float64))
    chi = (1 - step**2 / 4) ** -0.5
    return float((chi - 1 / chi) ** 2 * torch.sin(steps * theta) ** 2 / 2)


def hmc(
    log_density: LogDensity,
    x: Tensor,
    step: float,
    leaps: int,
    steps: int,
    generator: Generator | None = None,
) -> Chain:
    """Hamiltonian Monte Carlo: fresh momenta, `leaps` leapfrog steps, then accept or refuse.

    log ratio = H before - H after: no proposal density and no Jacobian, since leapfrog keeps volume and is
    reversible. Every row of x is a chain. Cost: leaps + 1 scores and two densities a step.
    Duane, Kennedy, Pendleton and Roweth 1987; Neal 2011.

    >>> chain = hmc(lambda x: -(x**2).sum(-1) / 2, torch.zeros(5, 2), 0.1, 10, 3)
    >>> chain.points.shape
    torch.Size([3, 5, 2])
    """
    points, total = [], x.new_zeros(x.shape[:-1])
    for _ in range(steps):
        p = noise_like(x, generator)
        q, p_end = leapfrog(lambda q: value_and_gradient(log_density, q)[1], x, p, step, leaps)
        with torch.no_grad():
            log_ratio = energy(log_density, x, p) - energy(log_density, q, p_end)
        x, accepted = metropolis(x, q, log_ratio, generator)
        points.append(x)
        total += accepted
    return Chain(torch.stack(points), total / steps)


class HamiltonianFlow(Bijection):
    """Leapfrog in a learned potential, as a bijection of phase space: x = (q, p), D = 2 d.

    forward   z = leapfrog of (q, p) with step h, `steps` times        log abs det dz/dx = 0
    inverse   x = the same with step -h                                log abs det dx/dz = 0
    No determinant at all, and no freedom to change volume: the density is only carried around.
    Cost: steps + 1 values and gradients of U, for each of the four.

    potential: a module U, (..., d) -> (...) or (..., 1), point by point. Smooth: its second derivatives are
        in the Jacobian. Parameters: those of U.
    Raises ValueError if D is not even and positive, if x does not have D dimensions, or unless steps >= 1.

    Neal 2011 for leapfrog; Toth et al. 2020 (Hamiltonian Generative Networks) for flows of this kind.

    >>> flow = HamiltonianFlow(4, nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(flow.inverse(flow.forward(x)[0])[0], x, atol=1e-6)
    True
    """

    def __init__(self, dim: int, potential: nn.Module, step: float = 0.1, steps: int = 5):
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"phase space has as many momenta as positions: D must be even, got {dim}")
        if steps < 1:
            raise ValueError(f"a HamiltonianFlow needs at least one step, got {steps}")
        self.dim = dim
        self.potential = potential
        self.step = step
        self.steps = steps

    def force(self, q: Tensor) -> Tensor:
        """-grad U(q), differentiable."""
        value, pull = torch.func.vjp(self.potential, q)  # type: ignore[misc]
        return -pull(torch.ones_like(value))[0]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(x, self.step)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(z, -self.step)

    def _run(self, x: Tensor, step: float) -> tuple[Tensor, Tensor]:
        check_width(x, self.dim, "this HamiltonianFlow")
        q, p = x.chunk(2, -1)
        return torch.cat(leapfrog(self.force, q, p, step, self.steps), -1), x.new_zeros(x.shape[:-1])
