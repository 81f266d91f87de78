"""Residual flows: z = x + g(x) where g is a contraction, undone by fixed-point iteration.

If the Lipschitz constant L of g is below one, x = z - g(x) has one solution and Banach's iteration finds
it; and the eigenvalues of dz/dx = I + J stay away from zero, so its determinant is positive. g is any network
with that constant (`lipschitz`), and log det(I + J) is found exactly or by a series (`log_det_series`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flowkit.bijection import Bijection, Compose
from flowkit.lipschitz import LipSwish, held_weights, lipschitz_mlp
from flowkit.log_det_series import Estimator, exact


class FixedPoint(NamedTuple):
    """A solution of x = z - g(x): the points, the iterations made, and a bound of each point's error."""

    x: Tensor
    iterations: int
    bound: Tensor


def iterations_for(lipschitz: float, error: float) -> int:
    """The least n with L^n / (1 - L) <= error: iterations for that error, in units of the first step.

    Banach: |x_n - x| <= L^n / (1 - L) |x_1 - x_0|.

    >>> iterations_for(0.5, 1e-3), iterations_for(0.9, 1e-3)
    (11, 88)
    """
    return max(math.ceil(math.log(error * (1 - lipschitz)) / math.log(lipschitz)), 1)


@torch.no_grad()
def fixed_point(
    g: Callable[[Tensor], Tensor], z: Tensor, lipschitz: float, tolerance: float = 0.0
) -> FixedPoint:
    """Solves x + g(x) = z for each point by x_0 = z, x_n = z - g(x_(n-1)): (..., D) -> (..., D).

    bound    |x_n - x| <= L / (1 - L) |x_n - x_(n-1)|, Euclidean, apart from rounding: (...)
    It stops when no point's bound exceeds the tolerance, or no point moves by more than rounding does; and
    at the latest after `iterations_for(lipschitz, eps)` iterations. Cost: one g each. No gradient.
    Raises RuntimeError when the points still move by then: the constant is not `lipschitz`.
    Behrmann et al. 2019 (i-ResNet), algorithm 1.

    >>> halved = fixed_point(lambda x: x / 2, torch.tensor([3.0]), lipschitz=0.5, tolerance=1e-3)
    >>> bool((halved.x - 2).abs() <= halved.bound), halved.iterations
    (True, 12)
    """
    eps = torch.finfo(z.dtype).eps
    factor = lipschitz / (1 - lipschitz)
    x, sizes = z, torch.linalg.vector_norm(z, dim=-1)
    for done in range(1, iterations_for(lipschitz, eps) + 1):  # noqa: B007 - told in the result
        last, x = x, z - g(x)
        step = torch.linalg.vector_norm(x - last, dim=-1)
        rounding = 4 * eps * (sizes + torch.linalg.vector_norm(x, dim=-1))
        if _settled(step, rounding.clamp(min=tolerance / factor), sizes):
            break
    if not _settled(step, (rounding / math.sqrt(eps)).clamp(min=tolerance / factor), sizes):
        raise RuntimeError(
            f"after {done} iterations the points still move by {step.max():.3g}: g is no contraction with "
            f"the constant {lipschitz:g}"
        )
    return FixedPoint(x, done, factor * step)


def _settled(step: Tensor, allowed: Tensor, sizes: Tensor) -> bool:
    """Whether no point moves by more than it may; those that are not finite from the start are let be."""
    return not (~((step <= allowed) & step.isfinite()) & sizes.isfinite()).any()


class Residual(Bijection):
    """z = x + g(x), with g a network whose Lipschitz constant L is below one.

    forward   z = x + g(x)                          log abs det dz/dx =  log det(I + J), J = dg/dx
    inverse   x = z - g(x), by fixed point          log abs det dx/dz = -log det(I + J), at x
    Each point moves by its own g; dimensions mix freely: the Jacobian has no zeros to rely on. Distances
    change by factors between 1 - L and 1 + L, so one block does little, and several are stacked.
    Cost: forward one pass; inverse log(eps) / log(L) passes or fewer; log-dets D products v'J and O(D^3) by
    `exact`, a handful of products by an estimator of `log_det_series`. Of these `exact` alone gives log-dets
    that obey every law: a truncated series is biased, and a probed one another number at each call.
    The inverse is differentiable once, by the implicit function theorem: dx = (I + J)^-1 (dz - dg), the
    system solved by the same iteration; its memory is that of one pass.

    net: g, (..., D) -> (..., D); lipschitz: its constant, or a bound of it, which nothing checks before the
    inverse fails to converge. Parameters: those of g. Raises ValueError unless 0 < lipschitz < 1, or when
    g changes the shape; RuntimeError from inverse when g is no contraction.
    Behrmann et al. 2019 (i-ResNet); Chen et al. 2019 (Residual Flows).

    >>> f = Residual(lipschitz_mlp(2, (8,), lipschitz=0.5), lipschitz=0.5)
    >>> x = torch.randn(3, 2)
    >>> torch.allclose(f.inverse(f.forward(x)[0])[0], x, atol=1e-5)
    True
    """

    def __init__(self, net: nn.Module, lipschitz: float, log_det: Estimator = exact):
        super().__init__()
        if not 0 < lipschitz < 1:
            raise ValueError(f"the Lipschitz constant must lie strictly between 0 and 1, got {lipschitz}")
        self.net = net
        self.lipschitz = lipschitz
        self.log_det = log_det

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            g = self.net(start)
            if g.shape != x.shape:
                raise ValueError(
                    f"g must keep the shape {tuple(x.shape)} of its points, got {tuple(g.shape)}"
                )
            log_det = self.log_det(g, start, wanted)
        return (x + g, log_det) if wanted else (x + g.detach(), log_det.detach())

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.solve(z).x
        if torch.is_grad_enabled():
            x = x.requires_grad_()
            g = self.net(x)
            x = _Implicit.apply(z - g, x, g, self.lipschitz)
        return x, -self.forward(x)[1]

    def solve(self, z: Tensor, tolerance: float = 0.0) -> FixedPoint:
        """f^-1(z) without gradient and log-det, as `fixed_point` returns it."""
        with torch.no_grad(), held_weights(self.net):
            return fixed_point(self.net, z.detach(), self.lipschitz, tolerance)


class _Implicit(torch.autograd.Function):
    """The value z - g(x) at the fixed point x; its gradient goes through (I + J)^-T first."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, g: Tensor, lipschitz: float) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.lipschitz = lipschitz
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, g = ctx.saved_tensors

        def transposed(w: Tensor) -> Tensor:
            return torch.autograd.grad(g, x, w, retain_graph=True)[0]

        return fixed_point(transposed, grad, ctx.lipschitz).x, None, None, None


class ReversibleStack(Compose):
    """Compose, whose forward keeps no activations: going backwards, each block's input is its inverse.

    forward   z = f_K(... f_1(x)), as Compose          log abs det dz/dx = sum over k of log abs det df_k
    inverse   x = f_1^-1(... f_K^-1(z))                log abs det dx/dz = sum over k of log abs det df_k^-1
    In forward only the last z is kept; the gradient walks from
    it through the blocks, inverts each (no log-det), runs it again with the same random numbers, and
    differentiates it alone. So the memory is that of one block, flat in depth.
    Cost: forward as Compose; backward one inverse and one more forward pass for each block. The inputs come
    back up to rounding that grows with depth, as the inverse's does. The gradient is first-order only.
    Raises RuntimeError when parameters were changed between forward and backward.
    Gomez et al. 2017 (RevNet), for other blocks.

    >>> f = residual_stack(2, 3, (8,), reversible=True)
    >>> z, log_det = f.forward(torch.randn(5, 2))
    >>> (z.sum() + log_det.sum()).backward()
    >>> f.bijections[0].net[0].weight.grad.shape
    torch.Size([8, 2])
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not (torch.is_grad_enabled() and (parameters or x.requires_grad)):
            return super().forward(x, context)
        return _Reversible.apply(self.bijections, context, x, *parameters)


class _Reversible(torch.autograd.Function):
    """Compose's forward without a graph, and its gradient block by block from the last output."""

    @staticmethod
    def forward(
        ctx: Any, blocks: Sequence[Bijection], context: Tensor | None, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:-1])
        ctx.seeds = torch.randint(2**62, (len(blocks),)).tolist()
        for block, seed in zip(blocks, ctx.seeds, strict=True):
            with _seeded(seed, x):
                x, step = block.forward(x, context)
            log_det = log_det + step
        ctx.blocks, ctx.context, ctx.parameters = blocks, context, parameters
        ctx.versions = [p._version for p in parameters]
        ctx.save_for_backward(x)
        return x, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.versions != [p._version for p in ctx.parameters]:
            raise RuntimeError("parameters were changed between forward and backward: the inputs are lost")
        (z,) = ctx.saved_tensors
        found: dict[Tensor, Tensor] = {}
        for block, seed in zip(reversed(ctx.blocks), reversed(ctx.seeds), strict=True):
            x = block.solve(z).x if isinstance(block, Residual) else block.inverse(z, ctx.context)[0]
            own = [p for p in block.parameters() if p.requires_grad]
            grad, *of_own = _replay(block, seed, x, ctx.context, own, (grad, grad_log_det))
            for p, of_p in zip(own, of_own, strict=True):
                found[p] = found[p] + of_p if p in found else of_p
            z = x
        return None, None, grad, *(found[p] for p in ctx.parameters)


def _replay(
    block: Bijection,
    seed: int,
    x: Tensor,
    context: Tensor | None,
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The block's vector-Jacobian product at x: the gradients in x and in the parameters."""
    with torch.enable_grad(), _seeded(seed, x):
        x = x.detach().requires_grad_()
        outputs = block.forward(x, context)
        pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        out, grad = zip(*pairs, strict=True)
        return torch.autograd.grad(out, (x, *parameters), grad, materialize_grads=True)


@contextmanager
def _seeded(seed: int, x: Tensor) -> Iterator[None]:
    """Random numbers from a seed, on the CPU and on the device of x; the generators are put back."""
    devices = [] if x.device.type in ("cpu", "meta") else [x.device]
    with torch.random.fork_rng(devices, device_type=x.device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield


def residual_stack(
    dim: int,
    layers: int,
    hidden: Sequence[int] = (64, 64),
    lipschitz: float = 0.9,
    log_det: Estimator = exact,
    reversible: bool = False,
    activation: Callable[[], nn.Module] = LipSwish,
) -> Compose:
    """Residual blocks with `lipschitz_mlp` inside, each of constant at most `lipschitz`.

    The inverse multiplies errors by at most (1 - L)^-layers. reversible: a `ReversibleStack`.

    >>> residual_stack(3, 2, (8,)).forward(torch.zeros(5, 3))[1].shape
    torch.Size([5])
    """
    nets = [lipschitz_mlp(dim, hidden, lipschitz, activation) for _ in range(layers)]
    blocks = [Residual(net, lipschitz, log_det) for net in nets]
    return (ReversibleStack if reversible else Compose)(*blocks)
