"""Likelihoods of one number given parameters: levels 0 ... L - 1, binary, and real; stateless functions.

Models of whole points (causal networks, the decoders of autoencoders) return a row of parameters for each
dimension; a likelihood says what probability these give to the number that stands there.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.coupling import bounded


class Likelihood(NamedTuple):
    """A family of distributions of one number, as stateless functions.

    log_prob(x, params) -> log p(x; params)    x: (...); params: (..., size); result (...)
    sample(params) -> x                        params: (..., size); result (...), in the dtype of params
    size                                       parameters for one number
    levels                                     L, where x is one of 0 ... L - 1; None where x is real
    """

    log_prob: Callable[[Tensor, Tensor], Tensor]
    sample: Callable[[Tensor], Tensor]
    size: int
    levels: int | None


def centred(level: Tensor, levels: int) -> Tensor:
    """Levels 0 ... L - 1 as even steps from -1 to 1: y = 2 level / (L - 1) - 1, the scale of networks.

    >>> centred(torch.tensor([0.0, 1.0, 2.0]), 3).tolist()
    [-1.0, 0.0, 1.0]
    """
    return 2 * level / (levels - 1) - 1


class Centre(nn.Module):
    """`centred` as a layer, for the front of a network."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return centred(x, self.levels)


def check_levels(x: Tensor, levels: int) -> None:
    """Raises ValueError unless x holds only 0, 1, ... levels - 1, as whole numbers of any dtype."""
    good = (x >= 0) & (x < levels) & (x == x.round())
    if not good.all():
        raise ValueError(
            f"x must hold the levels 0 ... {levels - 1} as whole numbers, got {x[~good][0].item():g} among "
            "them; dequantized data become levels again by x.floor()"
        )


def checked_count(levels: int) -> int:
    """The number of levels; ValueError below 2."""
    if levels < 2:
        raise ValueError(f"a likelihood of levels needs at least 2 of them, got {levels}")
    return levels


def categorical_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log softmax(logits)[x]: one logit for each level. x: (...) levels; logits: (..., L)."""
    check_levels(x, logits.shape[-1])
    return logits.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]


def categorical_sample(logits: Tensor) -> Tensor:
    """A level drawn from softmax(logits): (..., L) -> (...)."""
    return torch.distributions.Categorical(logits=logits, validate_args=False).sample().to(logits.dtype)


def categorical(levels: int) -> Likelihood:
    """p(x) = softmax(params)[x], with a parameter for each level: it knows nothing of their order.

    Cost: O(L). Raises ValueError for fewer than 2 levels, and where x is not one of them.

    >>> p = categorical(4)
    >>> p.log_prob(torch.tensor(3), torch.zeros(4)).exp().item()
    0.25
    """
    return Likelihood(categorical_log_prob, categorical_sample, checked_count(levels), levels)


def log_sigmoid_difference(a: Tensor, width: Tensor) -> Tensor:
    """log(sigmoid(a + width) - sigmoid(a)) for width > 0, without a subtraction of near equals.

    With b = a + width, sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(-width)), a product: the
    difference itself is 0 in float32 once a is above 17, with the gradient lost.

    >>> log_sigmoid_difference(torch.tensor(1000.0), torch.tensor(1.0)).item() > -1001
    True
    """
    return F.logsigmoid(a + width) + F.logsigmoid(-a) + torch.log(-torch.expm1(-width))


def logistic_mixture_parts(params: Tensor, bound: float = 7.0) -> tuple[Tensor, Tensor, Tensor]:
    """log weights, means and log scales of a mixture of logistics: (..., 3 K) -> three of (..., K).

    The means are spread over (-1, 1) where the raw means are 0, since components that start equal get equal
    gradients and never part. log scale = bound * tanh(raw / bound): from exp(-7) to exp(7) by default.
    """
    logits, means, raw = params.unflatten(-1, (3, -1)).unbind(-2)
    count = logits.shape[-1]
    spread = (2 * torch.arange(count).to(params) + 1) / count - 1
    return logits.log_softmax(-1), means + spread, bounded(raw, bound)


def logistic_mixture_log_prob(x: Tensor, params: Tensor, levels: int) -> Tensor:
    """log sum_k w_k [F((y + h - mu_k) / s_k) - F((y - h - mu_k) / s_k)], F the sigmoid, y = centred(x).

    h = 1 / (L - 1) is half the distance of two levels. The lowest level gets all that is below it, the
    highest all above: the probabilities sum to one. Each term is a product (`log_sigmoid_difference`).
    """
    check_levels(x, levels)
    log_weights, means, log_scales = logistic_mixture_parts(params)
    x, steepness = x.to(params)[..., None], (-log_scales).exp()
    width = 2 / (levels - 1) * steepness
    below = (centred(x, levels) - 1 / (levels - 1) - means) * steepness
    inside = log_sigmoid_difference(below, width)
    lowest, highest = F.logsigmoid(below + width), F.logsigmoid(-below)
    log_p = torch.where(x == 0, lowest, torch.where(x == levels - 1, highest, inside))
    return torch.logsumexp(log_weights + log_p, -1)


def logistic_mixture_sample(params: Tensor, levels: int) -> Tensor:
    """The level nearest to a draw from the mixture of logistics: (..., 3 K) -> (...)."""
    log_weights, means, log_scales = logistic_mixture_parts(params)
    chosen = categorical_sample(log_weights).long()[..., None]
    mean, scale = means.gather(-1, chosen)[..., 0], log_scales.gather(-1, chosen)[..., 0].exp()
    u = torch.rand_like(mean).clamp(min=torch.finfo(mean.dtype).tiny)
    y = mean + scale * (u.log() - torch.log1p(-u))
    return ((y + 1) * (levels - 1) / 2).round().clamp(0, levels - 1)


def logistic_mixture(levels: int, components: int = 4) -> Likelihood:
    """The discretized mixture of K logistics: 3 K parameters whatever the number of levels.

    It knows that level 7 lies between 6 and 8; `categorical` must learn that. Parameters: K logits, K
    means and K raw log scales, on the scale of `centred` (`logistic_mixture_parts`).
    Cost: O(K). Raises ValueError for fewer than 2 levels or 1 component, and where x is not a level.
    Salimans, Karpathy, Chen and Kingma 2017 (PixelCNN++), section 2.1, which takes the density for the
    difference in the tails; here the difference itself is computed.

    >>> p = logistic_mixture(4, components=2)
    >>> total = sum(p.log_prob(torch.tensor(x), torch.ones(6)).exp() for x in range(4))
    >>> round(total.item(), 5)
    1.0
    """
    if components < 1:
        raise ValueError(f"a mixture needs at least one component, got {components}")
    checked_count(levels)
    return Likelihood(
        partial(logistic_mixture_log_prob, levels=levels),
        partial(logistic_mixture_sample, levels=levels),
        3 * components,
        levels,
    )


def bernoulli_log_prob(x: Tensor, params: Tensor) -> Tensor:
    """x log sigmoid(l) + (1 - x) log sigmoid(-l) = log sigmoid((2 x - 1) l), with l the logit in params."""
    check_levels(x, 2)
    return F.logsigmoid((2 * x.to(params) - 1) * params[..., 0])


def bernoulli_sample(params: Tensor) -> Tensor:
    """1 with probability sigmoid(logit), else 0: (..., 1) -> (...)."""
    return torch.bernoulli(params[..., 0].sigmoid())


def bernoulli() -> Likelihood:
    """A binary number; params: (..., 1) holds its logit.

    >>> bernoulli().log_prob(torch.tensor(1.0), torch.zeros(1)).exp().item()
    0.5
    """
    return Likelihood(bernoulli_log_prob, bernoulli_sample, 1, 2)


def normal_log_prob(x: Tensor, params: Tensor, bound: float = 7.0) -> Tensor:
    """log N(x; mean, scale^2). params: (..., 2) holds mean and raw; log scale = bound tanh(raw / bound)."""
    mean, raw = params.unbind(-1)
    log_scale = bounded(raw, bound)
    return -0.5 * ((x - mean) * (-log_scale).exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)


def normal_sample(params: Tensor, bound: float = 7.0) -> Tensor:
    """mean + scale * N(0, 1): (..., 2) -> (...)."""
    mean, raw = params.unbind(-1)
    return mean + bounded(raw, bound).exp() * torch.randn_like(mean)


def normal() -> Likelihood:
    """A real number, N(mean, scale^2), with a mean and a bounded log scale for parameters.

    >>> round(normal().log_prob(torch.tensor(0.0), torch.zeros(2)).item(), 4)
    -0.9189
    """
    return Likelihood(normal_log_prob, normal_sample, 2, None)
