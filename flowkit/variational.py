"""Variational fits: a flow q is bent towards a density p that is known up to a constant, by reverse KL.

q is a flow that samples cheaply: planar layers are wrapped in `Inverse`, so that they push noise forward.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowkit.flow import Flow


def reverse_kl(flow: Flow, log_density: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """Monte Carlo estimate of E_q[log q(x) - log_density(x)] from n draws of the flow q; differentiable.

    If log_density is normalized this estimates KL(q || p) in nats, which is never negative though an
    estimate may be; if it lacks -log Z, KL(q || p) - log Z, whose minus is a lower bound on log Z. The draws
    are reparametrized, x = f^-1(z), so the gradient passes through x: O(1 / sqrt(n)) noise, no bias.
    log_density: (n, D) -> (n,). Cost: one inverse pass of n points, so wrap planar layers in `Inverse`.
    Raises ValueError if n < 1 or log_density does not return one number for each point.
    Rezende and Mohamed 2015, eq. 15.

    >>> from flowkit import Compose, Inverse, StandardNormal
    >>> from flowkit.energies import ENERGIES
    >>> from flowkit.planar import Planar
    >>> q = Flow(StandardNormal(2), Inverse(Compose(Planar(2), Planar(2))))
    >>> reverse_kl(q, ENERGIES["U1"].log_prob, 100).shape
    torch.Size([])
    """
    if n < 1:
        raise ValueError(f"the estimate needs at least one draw, got n = {n}")
    x, log_q = flow.rsample_with_log_prob((n,))
    log_p = log_density(x)
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"log_density must return one number for each of the {n} points, got {tuple(log_p.shape)}"
        )
    return (log_q - log_p).mean()


def annealed_fit(
    flow: Flow,
    log_density: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    n: int = 256,
    seed: int = 0,
    faintest: float = 0.01,
) -> None:
    """Trains the flow in place by reverse KL, on n draws a step, with Adam.

    The target is exp(beta log_density): beta rises from `faintest` to 1 in the first half of the steps, so
    that q spreads over all modes of a faint target before it sharpens; faintest=1 leaves the target as it is,
    and a mode that q does not start near may never be found. The step size falls linearly to zero. Leaves
    torch's own random stream as it was. Cost: steps times that of `reverse_kl` and its gradient.
    Rezende and Mohamed 2015, eq. 20.
    """
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for k in range(steps):
            beta = min(1.0, faintest + 2 * k / steps)
            optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
            optimizer.zero_grad()
            x, log_q = flow.rsample_with_log_prob((n,))
            (log_q - beta * log_density(x)).mean().backward()
            optimizer.step()


def kl_alarm(log_q: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor, bool]:
    """The estimate of KL(q || p) from draws of q, its standard error, and whether it cannot be true.

    log_q, log_p: the log-densities (N,) of model and normalized target at N draws of the model. A KL is never
    negative, so an estimate more than four standard errors below zero tells of a log_q or a log_p that is
    wrong; so does one that is NaN. The alarm is one-sided: a log_q that is too large everywhere passes.

    >>> log_p = torch.tensor([-1.0, -2.0, -3.0])
    >>> kl_alarm(log_p - torch.tensor([0.9, 1.0, 1.1]), log_p)[2]
    True
    """
    difference = log_q - log_p
    estimate, error = difference.mean(), difference.std() / math.sqrt(len(difference))
    return estimate, error, not bool(estimate >= -4 * error)
