"""The CDF of a mixture of logistics as an increasing map of the whole line: Flow++'s transformer.

Unlike a spline it has no bounds. Its logit is computed by log-sum-exps, so that the tails keep their digits;
its inverse is one monotone scalar root.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from flowkit.coupling import Transformer, bounded


def mixture_logit(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """logit F(x) and its log-derivative, F the CDF of a mixture of K logistics; params (..., 3K).

    F(x) = sum of pi_i sigmoid(u_i), with u_i = (x - mu_i) / s_i. Its logit is log F - log(1 - F), two
    log-sum-exps, finite where F rounds to 0 or 1. The derivative F' / (F (1 - F)) = F'/F + F'/(1 - F) is
    sum of v_i sigmoid(-u_i) / s_i + sum of w_i sigmoid(u_i) / s_i, where v and w are the shares of the
    components in F and in 1 - F. In the tails one sum tends to 0 and the other to a 1 / s_i: nothing
    cancels. Its log is one more log-sum-exp, for the flats between narrow components.
    """
    raw_pi, _, _ = params.chunk(3, -1)
    mean, log_s = _components(params)
    u = (x[..., None] - mean) * (-log_s).exp()
    log_pi, log_up, log_down = raw_pi.log_softmax(-1), F.logsigmoid(u), F.logsigmoid(-u)
    below, over = log_pi + log_up, log_pi + log_down
    terms = torch.cat((below.log_softmax(-1) + log_down - log_s, over.log_softmax(-1) + log_up - log_s), -1)
    return below.logsumexp(-1) - over.logsumexp(-1), terms.logsumexp(-1)


def _components(params: Tensor) -> tuple[Tensor, Tensor]:
    """mu and log s, (..., K) each. The gains differ so that components which start equal can part: with the
    same gradients, they would move together for ever."""
    _, raw_mean, raw_scale = params.chunk(3, -1)
    gains = torch.linspace(1.0, 4.0, raw_mean.shape[-1], dtype=params.dtype, device=params.device)
    return gains * raw_mean, bounded(raw_scale, 4.0)


def mixture_forward(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """z = exp(a) logit F(x) + b; params (..., 3K + 2) holds those of F, then the raw a, then b."""
    logit, log_slope = mixture_logit(x, params[..., :-2])
    a = bounded(params[..., -2], 2.0)
    return a.exp() * logit + params[..., -1], log_slope + a


def mixture_inverse(z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """x with exp(a) logit F(x) + b = z, and log dx/dz.

    The root is found without gradients. Then a term of value 0 gives x the derivatives that the implicit
    function theorem says: those of (target - logit F) / slope, at the root.
    """
    mixture, a = params[..., :-2], bounded(params[..., -2], 2.0)
    target = (z - params[..., -1]) * (-a).exp()
    with torch.no_grad():
        root = _mixture_root(target, mixture)
    logit, log_slope = mixture_logit(root, mixture)
    rest = target - logit
    x = root + (rest - rest.detach()) * _reciprocal(log_slope.detach())
    return x, -a - mixture_logit(x, mixture)[1]


def _mixture_root(target: Tensor, params: Tensor) -> Tensor:
    """x with logit F(x) = target, by Newton's steps kept in a bracket.

    At the least mu_i + target s_i every u_i is at most target, and so is logit F; at the largest, at
    least: that is the bracket. A step that leaves it, or is not half as long as the one before, bisects.
    A point whose step is as small as rounding stays where it is from then on.
    """
    mean, log_s = _components(params)
    low, high = (mean + target[..., None] * log_s.exp()).aminmax(dim=-1)
    size = (mean.abs() + log_s.exp()).amax(-1)
    x, last, done = (low + high) / 2, high - low, torch.zeros_like(low, dtype=torch.bool)
    for _ in range(200):
        logit, log_slope = mixture_logit(x, params)
        rest = target - logit
        low, high = torch.where(rest >= 0, x, low), torch.where(rest <= 0, x, high)
        newton = rest * _reciprocal(log_slope)
        rounding = 8 * torch.finfo(x.dtype).eps * (x.abs() + size)
        tiny = newton.abs() <= rounding
        good = (x + newton >= low) & (x + newton <= high) & (newton.abs() <= last / 2)
        step = torch.where(good | tiny, newton, (low + high) / 2 - x)
        x, last = torch.where(done, x, x + step), step.abs()
        done = done | tiny | (high - low <= rounding)
        if done.all():
            break
    return x


def _reciprocal(log_slope: Tensor) -> Tensor:
    """1 / slope; where the curve is so flat that it would overflow, a number that may still be multiplied."""
    return (-log_slope).clamp(max=math.log(torch.finfo(log_slope.dtype).max) / 2).exp()


def mixture_cdf(components: int = 8) -> Transformer:
    """The CDF of a mixture of logistics, stretched back to the whole line: z = exp(a) logit F(x) + b.

    forward   z = exp(a) (log F - log(1 - F)) + b      log-derivative a + log F' - log F - log(1 - F)
    inverse   one monotone scalar root: Newton's method in a bracket; log-derivative minus that at the root
    Cost: O(components) an element forward, some 10 to 40 times that backward (6 to 33 evaluations were seen).
    size = 3 components + 2: raw weights (softmax), means (each times a fixed gain, from 1 to 4), log scales
    (bounded to [-4, 4] as in `affine`), then a (bounded to [-2, 2]) and b. All zero: the identity, logit
    being the inverse of the logistic CDF.
    Increasing for all parameters, as a CDF is; no bound, unlike a spline.
    Raises ValueError unless components >= 1. Ho et al. 2019 (Flow++), section 3.2.

    >>> g = mixture_cdf(3)
    >>> x, params = torch.linspace(-4, 4, 5, dtype=torch.float64), torch.randn(5, g.size, dtype=torch.float64)
    >>> bool((g.inverse(g.forward(x, params)[0], params)[0] - x).abs().max() < 1e-9)
    True
    """
    if components < 1:
        raise ValueError(f"a mixture needs one component or more, got {components}")
    return Transformer(mixture_forward, mixture_inverse, 3 * components + 2)
