"""Continuous normalizing flows: a field moves points from data to noise, and its divergence moves densities.

Instantaneous change of variables: along a trajectory of dx/dt = g(t, x),
    d log p(x(t)) / dt = -tr(dg/dx)
so with z = x(1) and x = x(0), log p_X(x) = log p_Z(z) + integral from 0 to 1 of tr(dg/dx) dt. The log-det of
a flow that a field generates is that integral: a trace in place of a determinant, and any smooth field will
do. FFJORD runs the other way, from noise at t0 to data at t1: its field at t is -g at 1 - t.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from flowkit.adaptive_ode import adaptive
from flowkit.bijection import Bijection
from flowkit.hutchinson import Probe, rademacher
from flowkit.neural_ode import adjoint
from flowkit.ode import RK4, Counted, Solver, Tableau, solve

PointField = Callable[[Tensor, Tensor], Tensor]  # field(t, x): (..., D) -> (..., D), point by point


def pulled(field: PointField, t: Tensor, x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """g(t, x), and (dg/dx)' e for each of K vectors e: (K, D) or (K, ..., D) -> (K, ..., D)."""
    v, pull = torch.func.vjp(lambda x: field(t, x), x)  # type: ignore[misc]
    if len(vectors) == 1:  # one probe, the usual number, needs no vmap
        return v, pull(vectors[0].expand_as(x))[0][None]
    return v, torch.func.vmap(lambda e: pull(e.expand_as(x))[0])(vectors)


def exact_divergence(field: PointField, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """g(t, x) and tr(dg/dx): (..., D) and (...). Exact; differentiable.

    Cost: one evaluation and D vector-Jacobian products, one for each diagonal entry, done at once: O(D)
    times the memory of an evaluation.

    >>> v, divergence = exact_divergence(lambda t, x: x**2, torch.tensor(0.0), torch.tensor([1.0, 2.0]))
    >>> v, divergence
    (tensor([1., 4.]), tensor(6.))
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    v, rows = pulled(field, t, x, eye)  # rows[i, ..., j] is dg_i/dx_j
    return v, rows.diagonal(dim1=0, dim2=-1).sum(-1)


def hutchinson_divergence(field: PointField, t: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """g(t, x), and the mean over the probes e of e . (dg/dx)' e, which estimates tr(dg/dx) without bias.

    probes: (K, ..., D), noise of mean 0 and covariance I. Cost: one evaluation and K vector-Jacobian
    products, whatever D. Probes and variance stand in `flowkit.hutchinson`. Grathwohl et al. 2019 (FFJORD).

    >>> probes = rademacher(torch.empty(2, 2))
    >>> hutchinson_divergence(lambda t, x: x**2, torch.tensor(0.0), torch.tensor([1.0, 2.0]), probes)[1]
    tensor(6.)
    """
    v, products = pulled(field, t, x, probes)
    return v, (products * probes).sum(-1).mean(0)


def transport(
    field: PointField, x: Tensor, log_p: Tensor, times: Sequence[float] | Tensor, method: Tableau = RK4
) -> tuple[Tensor, Tensor]:
    """Points and their log-densities at all the times, by d log p / dt = -tr(dg/dx), one step between two.

    x: (..., D) and log_p: (...) at times[0]. Returns (T, ..., D) and (T, ...).

    >>> x, log_p = transport(lambda t, x: -x, torch.ones(2), torch.tensor(0.0), [0.0, 0.5, 1.0])
    >>> log_p                                               # space shrinks, density grows: 2 t
    tensor([0., 1., 2.])
    """

    def with_density(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        v, divergence = exact_divergence(field, t, state[0])
        return v, -divergence

    return solve(with_density, (x, log_p), times, method)


DEFAULT_SOLVER = partial(adaptive, rtol=1e-5, atol=1e-5)


class CNF(Bijection):
    """The flow of a field: dx/dt = g(t, x), from data at t = 0 to noise at t = time.

    forward   z = x(time), from x(0) = x       log abs det dz/dx =  integral of tr(dg/dx) over 0 <= t <= time
    inverse   x = x(0), from x(time) = z       log abs det dx/dz = -the same integral, along the same path
    Points and log-det are one solve, and both are right up to its error: round trips too. With an adaptive
    solver a point's result depends, within the tolerance, on the batch.
    Cost: `evaluations` (those of the last forward or inverse) times one evaluation of the field and D
    vector-Jacobian products, or K with K probes.

    field: a module, field(t, x) of shape (..., D), point by point, t of shape (); with context_dim, field(t,
        x, context). Smooth: tanh or softplus, not ReLU, whose kinks an adaptive solver stumbles over.
        Lipschitz in x, so that paths exist and do not cross: that alone makes the flow a bijection.
    solver: solver(field, y, t0, t1) for a tuple y: partial(integrate, steps=20), or partial(adaptive,
        rtol=1e-5, atol=1e-5), the default.
    probes: K > 0 estimates the trace by Hutchinson's estimator with K probes drawn by `noise`, rademacher or
        gaussian of `flowkit.hutchinson`. They are drawn once a solve and kept: one fixed integrand, that a
        solver can follow. log_det is then random and unbiased; z is not random. 0, the default, takes the
        exact trace. May be set at any time: train with 1, evaluate with 0.
    flat_memory: gradients by the adjoint method: memory that does not grow with the steps (`adjoint`).
    Parameters: those of the field. Raises ValueError for points without dimensions or a missing context;
        what the solver raises.

    Chen, Rubanova, Bettencourt and Duvenaud 2018 (Neural ODEs); Grathwohl et al. 2019 (FFJORD).

    >>> from flowkit.ode import integrate
    >>> flow = CNF(LinearField(torch.tensor([[1.0, 2.0], [0.0, -0.5]])), partial(integrate, steps=10))
    >>> z, log_det = flow.forward(torch.ones(3, 2))
    >>> log_det.detach(), flow.evaluations                  # the trace is 0.5
    (tensor([0.5000, 0.5000, 0.5000]), 40)
    """

    def __init__(
        self,
        field: nn.Module,
        solver: Solver = DEFAULT_SOLVER,
        time: float = 1.0,
        probes: int = 0,
        noise: Probe = rademacher,
        flat_memory: bool = False,
        context_dim: int = 0,
    ):
        super().__init__()
        self.field = field
        self.solver = solver
        self.time = time
        self.probes = probes
        self.noise = noise
        self.flat_memory = flat_memory
        self.context_dim = context_dim
        self.evaluations = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._flow(x, context, 0.0, self.time)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._flow(z, context, self.time, 0.0)

    def _flow(self, x: Tensor, context: Tensor | None, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        """Both directions are one solve: from t1 to t0 the integral of the trace changes its sign."""
        if x.ndim == 0:
            raise ValueError("a CNF takes points of shape (..., D), got a tensor without dimensions")
        extra = self._extra(x, context)
        divergence = exact_divergence
        if self.probes:
            probes = self.noise(x.detach().expand(self.probes, *x.shape), None)
            divergence = partial(hutchinson_divergence, probes=probes)
        counted = Counted(lambda t, y: divergence(lambda t, x: self.field(t, x, *extra), t, y[0]))
        start = (x, x.new_zeros(x.shape[:-1]))
        if self.flat_memory:
            parameters = [p for p in (*self.field.parameters(), *extra) if p.requires_grad]
            end = adjoint(counted, start, t0, t1, self.solver, parameters)
        else:
            end = self.solver(counted, start, t0, t1)
        self.evaluations = counted.evaluations
        return end

    def _extra(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """The context as the field's further arguments: one or none."""
        if not self.context_dim:
            return ()
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(f"this CNF needs a context of shape (..., {self.context_dim}), got {got}")
        return (context.expand(*x.shape[:-1], -1),)


class LinearField(nn.Module):
    """g(t, x) = A x: its flow is the matrix exponential, and the log-det of that t tr(A), exactly.

    Parameters: matrix (D, D). `linear_flow` is the solution in closed form.
    """

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return x @ self.matrix.mT


def linear_flow(matrix: Tensor, x: Tensor, time: float = 1.0) -> tuple[Tensor, Tensor]:
    """exp(time A) x, and log det exp(time A) = time tr(A): dx/dt = A x solved. O(D^3) for the exponential.

    >>> linear_flow(torch.diag(torch.tensor([1.0, -1.0])), torch.ones(2))
    (tensor([2.7183, 0.3679]), tensor(0.))
    """
    log_det = time * matrix.diagonal().sum()
    return x @ torch.linalg.matrix_exp(time * matrix).mT, log_det.expand(x.shape[:-1])
