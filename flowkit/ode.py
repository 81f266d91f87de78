"""Ordinary differential equations dy/dt = field(t, y), and Runge-Kutta methods of fixed steps.

The state y is a tensor or a tuple of tensors; t reaches the field as a tensor of shape (), in the dtype of
y. Times may run backwards: from t1 to t0 a solver undoes, up to its error, what it did from t0 to t1.
Adaptive steps stand in `flowkit.adaptive_ode`, gradients at a flat memory in `flowkit.neural_ode`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

State = Any  # a Tensor, or a tuple of tensors
Field = Callable[[Tensor, State], State]
Solver = Callable[[Field, State, float, float], State]  # solver(field, y, t0, t1) is y at t1


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method (Butcher's tableau): its name, order, and coefficients.

    k_i = field(t + nodes[i] h, y + h sum over j < i of matrix[i][j] k_j)
    y at t + h = y + h sum over i of weights[i] k_i
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


EULER = Tableau("Euler", 1, (0,), ((),), (1,))
MIDPOINT = Tableau("midpoint", 2, (0, 1 / 2), ((), (1 / 2,)), (0, 1))
HEUN = Tableau("Heun", 2, (0, 1), ((), (1,)), (1 / 2, 1 / 2))
RK4 = Tableau(
    "RK4",
    4,
    (0, 1 / 2, 1 / 2, 1),
    ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)


def slope(field: Field, t: float | Tensor, y: State) -> State:
    """field(t, y) with t as a tensor (); ValueError unless the slope has the shape of y."""
    like = y[0] if isinstance(y, tuple) else y
    k = field(torch.as_tensor(t, dtype=like.dtype, device=like.device), y)
    if _shapes(k) != _shapes(y):
        raise ValueError(f"the slope must have the shape of the state, {_shapes(y)}; it has {_shapes(k)}")
    return k


def _shapes(y: State) -> Any:
    return [tuple(part.shape) for part in y] if isinstance(y, tuple) else tuple(y.shape)


def moved(y: State, h: float, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """y + h sum over i of weights[i] slopes[i], part by part; weights of 0 cost nothing."""
    if isinstance(y, tuple):
        columns = zip(*slopes, strict=True) if slopes else [()] * len(y)
        return tuple(moved(part, h, weights, column) for part, column in zip(y, columns, strict=True))
    for weight, k in zip(weights, slopes, strict=True):
        if weight:
            y = torch.add(y, k, alpha=h * weight)
    return y


def slopes_of(method: Tableau, field: Field, t: float, h: float, y: State, *known: State) -> list[State]:
    """k_1, ..., k_s of one step. `known` are the first of them, when the caller has them already."""
    slopes = list(known)
    for node, row in list(zip(method.nodes, method.matrix, strict=True))[len(known) :]:
        slopes.append(slope(field, t + node * h, moved(y, h, row, slopes)))
    return slopes


def step(method: Tableau, field: Field, t: float, h: float, y: State) -> State:
    """y at t + h, by one step of the method. Cost: as many evaluations of the field as it has weights.

    >>> step(EULER, lambda t, y: -y, 0.0, 0.5, torch.tensor(1.0))
    tensor(0.5000)
    """
    return moved(y, h, method.weights, slopes_of(method, field, t, h, y))


def integrate(field: Field, y: State, t0: float, t1: float, steps: int, method: Tableau = RK4) -> State:
    """y at t1, from y at t0, in `steps` equal steps. The error is O(h^order), h = (t1 - t0) / steps.

    Differentiable: autograd goes back through all steps and keeps all of them, O(steps) memory.
    Cost: steps * len(method.weights) evaluations. Raises ValueError unless steps >= 1.

    >>> integrate(lambda t, y: -y, torch.tensor(1.0), 0.0, 1.0, steps=10)     # exp(-1) = 0.3679
    tensor(0.3679)
    """
    if steps < 1:
        raise ValueError(f"integrate needs at least one step, got {steps}")
    h = (t1 - t0) / steps
    for n in range(steps):
        y = step(method, field, t0 + n * h, h, y)
    return y


def solve(field: Field, y: State, times: Sequence[float] | Tensor, method: Tableau = RK4) -> State:
    """The states at all the times, the first being y: stacked as (len(times), ...). One step between two.

    >>> solve(lambda t, y: 2 * t + 0 * y, torch.zeros(1), [0.0, 1.0, 2.0])[:, 0].tolist()     # t^2
    [0.0, 1.0, 4.0]
    """
    times = [float(t) for t in times]
    states = [y]
    for before, after in pairwise(times):
        states.append(step(method, field, before, after - before, states[-1]))
    if isinstance(y, tuple):
        return tuple(torch.stack(parts) for parts in zip(*states, strict=True))
    return torch.stack(states)


def order_of_accuracy(errors: Sequence[float], steps: Sequence[int]) -> float:
    """p of error = C h^p, as the slope of log error against log h, h = 1 / steps: least squares.

    >>> order_of_accuracy([1.0, 0.25, 0.0625], [10, 20, 40])
    2.0
    """
    x = -torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return round(float(x @ y / (x @ x)), 12)


class Counted:
    """A field that counts how often it is evaluated, which is what a solve costs.

    >>> field = Counted(lambda t, y: -y)
    >>> _ = integrate(field, torch.ones(2), 0.0, 1.0, steps=10)
    >>> field.evaluations
    40
    """

    def __init__(self, field: Field):
        self.field = field
        self.evaluations = 0

    def __call__(self, t: Tensor, y: State) -> State:
        self.evaluations += 1
        return self.field(t, y)


def sir(beta: float, gamma: float) -> Field:
    """The SIR epidemic (Kermack and McKendrick 1927): susceptible, infected, recovered, y = (..., 3).

    dS/dt = -beta S I / N     dI/dt = beta S I / N - gamma I     dR/dt = gamma I     N = S + I + R
    N is constant, and every Runge-Kutta method keeps it, to rounding: the slopes sum to 0 in each stage.
    The epidemic grows while beta S / N > gamma.

    >>> sir(0.5, 0.1)(torch.tensor(0.0), torch.tensor([0.9, 0.1, 0.0]))
    tensor([-0.0450,  0.0350,  0.0100])
    """

    def field(t: Tensor, y: Tensor) -> Tensor:
        susceptible, infected, _ = y.unbind(-1)
        new, recovered = beta * susceptible * infected / y.sum(-1), gamma * infected
        return torch.stack((-new, new - recovered, recovered), -1)

    return field
