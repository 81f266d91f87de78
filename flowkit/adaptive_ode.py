"""Adaptive steps: Dormand and Prince's pair of orders 5 and 4, to read; and torchdiffeq's, to use."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchdiffeq  # type: ignore[import-untyped]
from torch import Tensor

from flowkit.ode import HEUN, Counted, Field, State, Tableau, moved, slope, slopes_of

# The last stage stands at the new point itself: its slope is the first of the next step.
DORMAND_PRINCE = Tableau(
    "Dormand-Prince",
    5,
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
)
FOURTH_ORDER = (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
ERROR_WEIGHTS = tuple(b - c for b, c in zip(DORMAND_PRINCE.weights, FOURTH_ORDER, strict=True))
SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0  # a step grows or shrinks by these factors at most


REASONS = (
    "the solution blows up, or the field is stiff, not smooth or not finite there; or ask for less precision"
)


class Solution(NamedTuple):
    """What an adaptive solve found, and what it cost.

    y: the state at the end; times: t0 and the end of each accepted step; evaluations of the field; the
    number of steps that were rejected and tried again.
    """

    y: State
    times: list[float]
    evaluations: int
    rejected: int


def dormand_prince(
    field: Field,
    y: State,
    t0: float,
    t1: float,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_steps: int = 10_000,
) -> Solution:
    """y at t1 from y at t0, in steps as long as the tolerance allows.

    Each step gives y of order 5 and, from the same slopes, one of order 4; their difference estimates the
    error of the latter. With `error` its root mean square in units of atol + rtol max(|y|, |y_new|) (the
    largest over the tensors of a tuple), the step is accepted if error <= 1, and the next one is
    h * clip(0.9 error^(-1/5), 0.2, 10). The mean runs over the batch: one point's result depends, within
    the tolerance, on its companions. Tolerances are for one step: the errors of all steps add up.
    rtol counts as 100 eps at least, 1.2e-5 in float32, or rounding would reject every step.
    Differentiable through the accepted steps; their lengths count as constants.
    Cost: 6 evaluations a step, accepted or not, and 2 to start.
    Raises ArithmeticError when the step size underflows, or after max_steps steps.
    Dormand and Prince 1980; Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.

    >>> solution = dormand_prince(lambda t, y: -y, torch.tensor(1.0, dtype=torch.float64), 0.0, 1.0)
    >>> round(float(solution.y), 5), solution.rejected
    (0.36788, 0)
    """
    field = Counted(field)
    like = y[0] if isinstance(y, tuple) else y
    rtol = max(rtol, 100 * torch.finfo(like.dtype).eps)
    direction = math.copysign(1.0, t1 - t0)
    t, times, rejected = t0, [t0], 0
    first = slope(field, t0, y)
    length = first_step(field, t0, y, first, direction, rtol, atol) if t0 != t1 else 0.0
    while t != t1:
        if len(times) + rejected > max_steps:
            raise ArithmeticError(f"{max_steps} steps did not reach {t1:g}, only {t:g}: {REASONS}")
        if length <= 10 * math.ulp(t):
            raise ArithmeticError(f"the step size underflows at t = {t:g}: {REASONS}")
        end = t1 if length >= abs(t1 - t) else t + direction * length
        h = end - t
        slopes = slopes_of(DORMAND_PRINCE, field, t, h, y, first)
        new = moved(y, h, DORMAND_PRINCE.weights, slopes)
        error = error_ratio(error_estimate(h, slopes), y, new, rtol, atol)
        if error <= 1:
            t, y, first = end, new, slopes[-1]
            times.append(t)
        else:
            rejected += 1
        length = abs(h) * next_factor(error)
    return Solution(y, times, field.evaluations, rejected)


def heun_euler(field: Field, y: Tensor, tolerance: float, first: float = 0.1) -> Solution:
    """y at t = 1 from y at t = 0, by Heun's steps, each held to a tolerance by the Euler step inside it.

    Their difference, h/2 (k_2 - k_1), is the error that is estimated, by its largest entry; the next step is
    h * clip(0.9 sqrt(tolerance / error), 0.2, 5). The pair of orders 1 and 2 is the least that can adapt.

    >>> round(float(heun_euler(lambda t, y: -y, torch.tensor(1.0), 1e-4).y), 3)
    0.368
    """
    t, h, times, tried = 0.0, first, [0.0], 0
    while 1 - t > 1e-9:
        h, tried = min(h, 1 - t), tried + 1
        start, end = slopes_of(HEUN, field, t, h, y)
        apart = h / 2 * float((end - start).abs().max())
        if apart <= tolerance:
            t, y = t + h, y + h / 2 * (start + end)
            times.append(t)
        h *= min(5.0, max(SMALLEST, SAFETY * math.sqrt(tolerance / max(apart, 1e-300))))
    return Solution(y, [*times[:-1], 1.0], 2 * tried, tried + 1 - len(times))


def next_factor(error: float) -> float:
    """The factor on the step size: 0.9 error^(-1/5) between 0.2 and 10; 0.2 when the error is not a number.

    >>> next_factor(0.0), next_factor(1.0), next_factor(math.nan)
    (10.0, 0.9, 0.2)
    """
    if not error < math.inf:
        return SMALLEST
    return min(LARGEST, max(SMALLEST, SAFETY * error**-0.2)) if error else LARGEST


@torch.no_grad()
def error_estimate(h: float, slopes: Sequence[State]) -> State:
    """The fifth-order step minus the fourth-order one: h sum over i of (b_i - c_i) k_i, part by part."""
    if isinstance(slopes[0], tuple):
        return tuple(error_estimate(h, parts) for parts in zip(*slopes, strict=True))
    return h * sum(weight * k for weight, k in zip(ERROR_WEIGHTS, slopes, strict=True))


@torch.no_grad()
def error_ratio(error: State, y: State, new: State, rtol: float, atol: float) -> float:
    """The root mean square of error / (atol + rtol max(|y|, |new|)); the largest over a tuple's tensors."""
    if isinstance(y, tuple):
        ratios = [error_ratio(*parts, rtol, atol) for parts in zip(error, y, new, strict=True)]
        return math.nan if any(map(math.isnan, ratios)) else max(ratios)
    if not y.numel():
        return 0.0
    return float((error / (atol + rtol * torch.maximum(y.abs(), new.abs()))).square().mean().sqrt())


def first_step(
    field: Field, t: float, y: State, first: State, direction: float, rtol: float, atol: float
) -> float:
    """A first step size, from the sizes of y, of its slope and of its second derivative: one evaluation."""
    size, speed = error_ratio(y, y, y, rtol, atol), error_ratio(first, y, y, rtol, atol)
    trial = 0.01 * size / speed if size > 1e-5 and speed > 1e-5 else 1e-6
    ahead = moved(y, direction * trial, (1.0,), (first,))
    change = moved(slope(field, t + direction * trial, ahead), -1.0, (1.0,), (first,))
    bend = max(speed, error_ratio(change, y, y, rtol, atol) / trial)
    return min(100 * trial, (0.01 / bend) ** 0.2 if bend > 1e-15 else max(1e-6, 1e-3 * trial))


def adaptive(field: Field, y: State, t0: float, t1: float, rtol: float = 1e-6, atol: float = 1e-6) -> State:
    """y at t1 by torchdiffeq's Dormand-Prince 5(4): to use. `dormand_prince` is the one to read.

    The steps are chosen so that each errs by about atol + rtol |y| at most, in root mean square over the
    whole batch: so a point's result depends, within the tolerance, on its companions. In float32, less
    than 1e-6 or so costs evaluations and buys only rounding. Differentiable, O(steps) memory.
    Raises AssertionError (torchdiffeq's) when the step size underflows.

    >>> adaptive(lambda t, y: -y, torch.tensor(1.0), 0.0, 1.0)
    tensor(0.3679)
    """
    like = y[0] if isinstance(y, tuple) else y
    if t0 == t1 or not like.numel():
        return y
    times = torch.tensor([t0, t1], dtype=torch.float64, device=like.device).to(like.dtype)
    states = torchdiffeq.odeint(field, y, times, rtol=rtol, atol=atol, method="dopri5")
    return tuple(part[-1] for part in states) if isinstance(y, tuple) else states[-1]
