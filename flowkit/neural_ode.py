"""Neural ODEs: gradients through a solver at a memory that does not grow with its steps.

A residual block y + g(y) is one Euler step of length 1: more and shorter steps are a deeper network with
shared weights, and their limit is a neural ODE. Trajectories of one field never cross, so y(0) -> y(1) is
one to one: in one dimension it is increasing, and no neural ODE on the line swaps two points.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flowkit.ode import Field, Solver, State, slope


def adjoint(
    field: Field,
    y: State,
    t0: float,
    t1: float,
    solver: Solver,
    parameters: Sequence[Tensor] | None = None,
) -> State:
    """What solver(field, y, t0, t1) returns, with a gradient that keeps nothing but the end of the solve.

    With a(t) = dL/dy(t), the backward pass solves, from t1 down to t0,
        dy/dt = field(t, y)     da/dt = -a' dfield/dy     dG/dt = -a' dfield/dtheta
    from y(t1), dL/dy(t1) and 0; a(t0) is dL/dy(t0), and G(t0) is dL/dtheta.
    Memory: O(1) in the number of steps, where autograd through the solver needs O(steps). Time: the solve
    once more, with a vector-Jacobian product at each evaluation. The gradient is that of the exact
    solution, up to the solver's error, and not that of the solver's result. The trajectory is found again
    backwards: where the field contracts strongly, errors grow on the way back.

    parameters: what the gradient is wanted of; by default those of the field, if it is a module. Once
    differentiable. Chen, Rubanova, Bettencourt and Duvenaud 2018 (Neural ODEs); Pontryagin et al. 1962.

    >>> from functools import partial
    >>> from flowkit.ode import integrate
    >>> w, y = torch.tensor(2.0, requires_grad=True), torch.tensor(1.0)
    >>> end = adjoint(lambda t, y: w * y, y, 0.0, 1.0, partial(integrate, steps=50), [w])
    >>> torch.autograd.grad(end, w)[0], end.detach()        # both are exp(2)
    (tensor(7.3891), tensor(7.3891))
    """
    if parameters is None:
        parameters = tuple(field.parameters()) if isinstance(field, nn.Module) else ()
    parts = y if isinstance(y, tuple) else (y,)

    def of_parts(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return slope(field, t, state) if isinstance(y, tuple) else (slope(field, t, state[0]),)

    end = _Adjoint.apply(of_parts, solver, (t0, t1), len(parts), *parts, *parameters)
    return end if isinstance(y, tuple) else end[0]


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, field: Field, solver: Solver, times: tuple[float, float], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.field, ctx.solver, ctx.times, ctx.count = field, solver, times, count
        end = tuple(part.clone() for part in solver(field, tensors[:count], *times))
        ctx.save_for_backward(*end, *tensors[count:])
        return end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        n = ctx.count
        end, parameters = ctx.saved_tensors[:n], ctx.saved_tensors[n:]

        def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            a = state[n : 2 * n]
            with torch.enable_grad():
                y = tuple(part.detach().requires_grad_() for part in state[:n])
                k = ctx.field(t, y)
                product = sum((p * q).sum() for p, q in zip(a, k, strict=True))
            pulled = _gradient(product, (*y, *parameters))
            return (*(part.detach() for part in k), *(-g for g in pulled))

        zeros = (torch.zeros_like(p) for p in parameters)
        t0, t1 = ctx.times
        state = ctx.solver(augmented, (*end, *grads, *zeros), t1, t0)
        return None, None, None, None, *state[n:]


def _gradient(scalar: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Zeros where the scalar does not depend on a leaf, or on any."""
    if not scalar.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(scalar, leaves, allow_unused=True, materialize_grads=True)


class TimeField(nn.Module):
    """field(t, y) = net([y, t]): a network (..., D + 1) -> (..., D) that reads the time as a last feature.

    t is a tensor (), or one time for each point. A context, (..., C), may follow: net([y, t, context]).
    Make the activation smooth (tanh, softplus): the order of a solver, and the error estimate that sets the
    steps of an adaptive one, rest on Taylor's theorem. A ReLU field has a kink at each hinge that a
    trajectory crosses, and each must be crossed in a tiny step.

    >>> field = TimeField(nn.Linear(3, 2))
    >>> field(torch.tensor(0.5), torch.ones(7, 2)).shape
    torch.Size([7, 2])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor, context: Tensor | None = None) -> Tensor:
        parts = [t[..., None]] if context is None else [t[..., None], context]
        return self.net(torch.cat([y, *(part.expand(*y.shape[:-1], -1) for part in parts)], -1))


class NeuralODE(nn.Module):
    """The layer y(0) -> y(1) of dy/dt = field(t, y).

    solver(field, y, t0, t1): partial(integrate, steps=20), or partial(adaptive, rtol=1e-5), or, for memory
    that does not grow with the steps, partial(adjoint, solver=either). Runs back from 1 to 0 by `inverse`.

    >>> from functools import partial
    >>> from flowkit.ode import integrate
    >>> layer = NeuralODE(TimeField(nn.Linear(3, 2)), partial(integrate, steps=4))
    >>> layer(torch.ones(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, field: nn.Module, solver: Solver):
        super().__init__()
        self.field = field
        self.solver = solver

    def forward(self, y: Tensor) -> Tensor:
        """y(1) from y(0)."""
        return self.solver(self.field, y, 0.0, 1.0)

    def inverse(self, y: Tensor) -> Tensor:
        """y(0) from y(1), by the same field solved backwards."""
        return self.solver(self.field, y, 1.0, 0.0)
