"""Calls of the map under test, so that what it raises is told from our own errors; copies; derivatives."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flowkit.laws import slips


class Raised(Exception):
    """The map under test raised; the cause is what it raised."""


def call(f: Any, way: str, points: Tensor, context: Tensor | None = None) -> Any:
    """f.forward or f.inverse; what it raises is wrapped, to be told from our own errors."""
    try:
        method = getattr(f, way)
        return method(points) if context is None else method(points, context)
    except Exception as error:
        shape = tuple(points.shape)
        raise Raised(f"{way} raised {type(error).__name__}: {error} (on a tensor {shape})") from error


def fresh(f: Any) -> Any:
    """A copy of f, or a new one when f makes them."""
    if isinstance(f, type) or not hasattr(f, "forward"):
        return f()
    try:
        return copy.deepcopy(f)
    except RuntimeError as error:
        message = (
            f"it cannot be copied ({error}): keep parameters and buffers, and compute from them when called"
        )
        raise Raised(message) from error


def cast(f: Any, **to: Any) -> Any:
    return f.to(**to) if isinstance(f, nn.Module) else f


def parameters_of(f: object) -> list[nn.Parameter]:
    return [p for p in f.parameters() if p.is_floating_point()] if isinstance(f, nn.Module) else []


@torch.no_grad()
def randomize(module: nn.Module, std: float, spread: float = 1.0) -> None:
    """Adds noise to all parameters, each tensor's of std to `spread` times std, even on the log scale."""

    def scale() -> float:
        return std * spread ** float(torch.rand(()))

    if hasattr(module, "randomize_"):
        module.randomize_(scale())  # type: ignore[operator]  # a method of the map's own
        return
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.add_(scale() * torch.randn_like(parameter))
    for child in module.children():
        randomize(child, std, spread)


def pair(f: Any, way: str, points: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What `call` returns, held to be two tensors, the first as long as the points."""
    returned = call(f, way, points, context)
    if not (isinstance(returned, tuple | list) and len(returned) == 2 and torch.is_tensor(returned[0])):
        raise Raised(
            f"{way} must return a pair of tensors, the points and log_det; {slips.describe(returned)}"
        )
    if not torch.is_tensor(returned[1]):
        raise Raised(
            f"{way} must return log_det as a tensor, one number for each point; {slips.describe(returned[1])}"
        )
    points, log_det = returned
    return points, log_det


def jacobian_of(f: Any, way: str, points: Tensor, context: Tensor | None) -> Tensor | None:
    """(N, D, D) by autograd, events flattened; None when the result carries no gradient of the points."""
    leaf = points.detach().clone().requires_grad_()
    out, _ = pair(f, way, leaf.clone(), context)
    if not out.requires_grad or out.shape != points.shape:
        return None
    columns = out.flatten(1).unbind(1)
    rows = [gradient_of(column.sum(), [leaf])[0].flatten(1) for column in columns]
    jacobian = torch.stack(rows, 1)
    return jacobian if jacobian.any() else None


def gradient_of(scalar: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        return torch.autograd.grad(scalar, leaves, retain_graph=True, materialize_grads=True)
    except RuntimeError as error:
        raise Raised(f"the result cannot be differentiated: {error}") from error


def size_of(points: Tensor) -> Tensor:
    """max abs of each point, (N,)."""
    return points.detach().flatten(1).abs().amax(1)


class _Watch(TorchDispatchMode):
    """Notes whether any step of a computation overflows to infinity."""

    overflowed = False

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if torch.is_tensor(out) and out.is_floating_point():
            self.overflowed = self.overflowed or bool(out.isinf().any())
        return out


@torch.no_grad()
def overflows(f: Any, way: str, points: Tensor, context: Tensor | None = None) -> bool:
    """Whether some step of f passes the largest number there is: so that inf and NaN are the map's own."""
    with _Watch() as watch:
        call(f, way, points.clone(), context)
    return watch.overflowed
