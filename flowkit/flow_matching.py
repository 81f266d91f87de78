"""Conditional flow matching: the field of a continuous flow, learned by regression and without a solver.

For a pair of a data point x and a noise point z, the straight path is x_t = (1 - t) x + t z, with velocity
z - x. The field that predicts the velocity best, u(t, y) = E[z - x given x_t = y], carries the density of x
to that of z; so the regression of z - x on (t, x_t) learns a normalizing flow, CNF(field). Here t runs
from data to noise, as everywhere; Lipman et al. 2023 and Liu et al. 2023 run it from noise to data: their
field at t is minus ours at 1 - t.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from flowkit.ode import Field


def straight_path(x: Tensor, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = (1 - t) x + t z and its velocity z - x, both (..., D), for data x, noise z and times t (...).

    >>> straight_path(torch.zeros(2), torch.ones(2), torch.tensor(0.25))
    (tensor([0.2500, 0.2500]), tensor([1., 1.]))
    """
    t = t[..., None]
    return (1 - t) * x + t * z, z - x


def flow_matching_loss(field: Field, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """The mean over the points of |field(t, x_t) - (z - x)|^2, squared distances summed over dimensions.

    x: (N, D), data; z: (N, D), noise drawn from the base; t: (N,), uniform on [0, 1]. One evaluation of the
    field, for all points at their own times, and no solve. Its minimum is not 0, but the variance of z - x
    given x_t: many paths pass one point. Lipman et al. 2023; Liu et al. 2023; Tong et al. 2024.

    >>> x, z = torch.zeros(3, 2), torch.ones(3, 2)
    >>> flow_matching_loss(lambda t, y: torch.zeros_like(y), x, z, torch.rand(3))
    tensor(2.)
    """
    points, velocity = straight_path(x, z, t)
    return (field(t, points) - velocity).square().sum(-1).mean()


def matching_batches(field: Field) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The loss of a batch x, with noise and times drawn from a generator: what `fit_batches` takes."""

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return flow_matching_loss(field, x, z, torch.rand(len(x), generator=generator, dtype=x.dtype))

    return loss


def fit_batches(
    loss: Callable[[Tensor, torch.Generator], Tensor],
    parameters: Iterable[Tensor],
    data: Tensor,
    steps: int,
    rate: float,
    batch: int = 256,
    seed: int = 0,
) -> None:
    """Lowers loss(x, generator) over batches x of the data, by Adam, in place; the step size falls to zero.

    >>> shift = torch.zeros(1, requires_grad=True)
    >>> fit_batches(lambda x, generator: (x - shift).square().mean(), [shift], torch.ones(9, 1), 200, 0.1)
    >>> round(shift.item(), 2)
    1.0
    """
    draws = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        adam.zero_grad()
        loss(data[torch.randint(len(data), (batch,), generator=draws)], draws).backward()
        adam.step()


def gaussian_field(mean: Tensor, std: Tensor) -> Field:
    """The best field when the data are N(mean, diag(std^2)) and the noise N(0, I), both (D,): closed form.

    x_t is N((1 - t) mean, v), v = (1 - t)^2 std^2 + t^2, so
        u(t, y) = -mean + (t - (1 - t) std^2) / v (y - (1 - t) mean)
    elementwise. Its loss is pi/2 times the sum of std, and no field has less; its flow is
    z = (x - mean) / std.

    >>> field = gaussian_field(torch.zeros(1), 2 * torch.ones(1))
    >>> field(torch.tensor(0.0), torch.ones(1))
    tensor([-1.])
    """

    def field(t: Tensor, y: Tensor) -> Tensor:
        t = t[..., None]
        variance = (1 - t) ** 2 * std**2 + t**2
        return (t - (1 - t) * std**2) / variance * (y - (1 - t) * mean) - mean

    return field
