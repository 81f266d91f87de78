"""Amortized posteriors that are flows, for autoencoders: Gaussian, planar, and inverse autoregressive.

q_0 -> q_K: the encoder gives a Gaussian q_0 for each x, and a flow pushes its draws z_0 to z_K. Then
log q_K(z_K) = log q_0(z_0) - sum log abs det dz_k/dz_(k-1). In the terms of `flowkit.bijection` z_K is the
data of that flow and z_0 its noise: what pushes is `inverse`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from flowkit.autoregressive import IAF, orders
from flowkit.bijection import Bijection, Compose, Inverse
from flowkit.coupling import Net, Transformer, bounded
from flowkit.flow import StandardNormal
from flowkit.planar import Planar


def gated_forward(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """z = sigma x + (1 - sigma) m; log-derivative log sigma. params: (..., D, 2) holds m and the raw s.

    sigma = sigmoid(s), 1 - sigma = sigmoid(-s), log sigma = logsigmoid(s): finite for every s.
    """
    m, s = params.unbind(-1)
    return s.sigmoid() * x + (-s).sigmoid() * m, F.logsigmoid(s)


def gated_inverse(z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """x = m + (z - m) / sigma; log-derivative -log sigma. It overflows where 1 / sigma does: s below -88."""
    m, s = params.unbind(-1)
    minus_log = -F.logsigmoid(s)
    return m + (z - m) * minus_log.exp(), minus_log


def gated() -> Transformer:
    """IAF's gated step, z' = sigma z + (1 - sigma) m: a mean of the old value and a new one, as in an LSTM.

    sigma < 1, so a step never stretches: volume shrinks by sum log sigma, and a scale that runs away is
    impossible. All parameters 0 give z / 2 (no choice of them the identity, which sigma -> 1 approaches).
    Kingma et al. 2016 (IAF), whose algorithm 1 has this step.

    >>> z, log_slope = gated().forward(torch.tensor([3.0]), torch.zeros(1, 2))
    >>> z.tolist(), log_slope.exp().tolist()
    ([1.5], [0.5])
    """
    return Transformer(gated_forward, gated_inverse, 2)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as the constant 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Amortized(Bijection):
    """A layer whose parameters depend on the point's context: theta = theta_0 + conditioner(context).

    forward   z = f(x; theta)       log abs det dz/dx = that of f at theta
    inverse   x = f^-1(z; theta)    log abs det dx/dz = that of f^-1 at theta
    Each posterior q(z given x) has its own shape, and one network, the encoder, pays for all of them: that is
    amortization. Cost: that of the layer, with P parameters for each point, and of the conditioner.

    layer: f, any bijection with P numbers as parameters, which stay as theta_0. context_dim: C.
    net: net(C, P) makes the conditioner, (..., C) -> (..., P); a linear map that starts at 0 by default.
    Raises ValueError for a context that is missing or not (..., C).
    Rezende and Mohamed 2015 (planar); van den Berg et al. 2018 (Sylvester).

    >>> f = Amortized(Planar(2), context_dim=3)
    >>> f.forward(torch.zeros(5, 2), torch.randn(5, 3))[1].shape
    torch.Size([5])
    """

    def __init__(self, layer: Bijection, context_dim: int, net: Net = zero_linear):
        super().__init__()
        self.layer = layer
        self.domain, self.codomain = layer.domain, layer.codomain
        self.context_dim = context_dim
        self.conditioner = net(context_dim, sum(parameter.numel() for parameter in layer.parameters()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_at_each(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_at_each(z, context, inverse=True)

    def _apply_at_each(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """The layer at every point with that point's parameters, by vmap over the points."""
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(f"this layer needs a context of shape (..., {self.context_dim}), got {got}")
        module = Inverse(self.layer) if inverse else self.layer
        change = self.conditioner(context)
        change = change.expand(*x.shape[:-1], -1).reshape(-1, change.shape[-1])
        points = x.reshape(-1, x.shape[-1])
        if not len(points):
            return x.clone(), x.new_zeros(x.shape[:-1])
        parameters = dict(module.named_parameters())
        parts = change.split([parameter.numel() for parameter in parameters.values()], -1)
        own = {
            name: parameter + part.reshape(-1, *parameter.shape)
            for (name, parameter), part in zip(parameters.items(), parts, strict=True)
        }
        z, log_det = vmap(lambda own, point: functional_call(module, own, (point,)))(own, points)
        return z.reshape(x.shape), log_det.reshape(x.shape[:-1])


def planar_flow(dim: int, layers: int, context_dim: int = 0, net: Net = zero_linear) -> Inverse:
    """K planar layers that push noise forward, amortized if there is a context; for `Posterior`.

    z_k = z_(k-1) + u^ tanh(w.z_(k-1) + b). Starts as the identity. Rezende and Mohamed 2015.

    >>> planar_flow(2, layers=4).inverse(torch.zeros(5, 2))[0].shape      # inverse: noise to latent
    torch.Size([5, 2])
    """
    parts = [Amortized(Planar(dim), context_dim, net) if context_dim else Planar(dim) for _ in range(layers)]
    return Inverse(Compose(*parts))


def iaf_flow(
    dim: int,
    layers: int,
    hidden: Sequence[int] = (32,),
    context_dim: int = 0,
    transformer: Transformer | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Compose:
    """K inverse autoregressive steps, natural and reversed by turns, gated by default; for `Posterior`.

    z_k = sigma z_(k-1) + (1 - sigma) m, with m and sigma from a MADE that reads z_(k-1) and the context. One
    pass a step. Kingma et al. 2016 (IAF).

    >>> iaf_flow(3, layers=2).inverse(torch.zeros(5, 3))[1].shape
    torch.Size([5])
    """
    transformer = transformer or gated()
    turns = orders(dim, layers)
    return Compose(*(IAF(dim, hidden, order, transformer, context_dim, activation) for order in turns))


class Posterior(nn.Module):
    """q(z given x): z_0 = mean(x) + scale(x) * noise, then z_K = flow.inverse(z_0, h(x)).

    log q_0(z_0) = log N(z_0; mean, diag scale^2), log q_K(z_K) = log q_0(z_0) - log abs det dz_K/dz_0.
    encoder: (..., D) -> (..., 2 L + C), which holds mean, raw log scale (log scale = 7 tanh(raw / 7)) and
        h, the context of the flow. If its last layer starts at 0, q starts as N(0, I) before the flow.
    dim: L. flow: None for the Gaussian alone, `planar_flow`, `iaf_flow`, or any bijection from latent to
        noise. context_dim: C.
    Raises ValueError for an encoder of another width.

    >>> q = Posterior(nn.Linear(6, 4 + 3), dim=2, flow=iaf_flow(2, layers=2, context_dim=3), context_dim=3)
    >>> z, log_q = q.rsample_with_log_prob(torch.randn(5, 6), draws=10)
    >>> z.shape, log_q.shape
    (torch.Size([10, 5, 2]), torch.Size([10, 5]))
    """

    def __init__(self, encoder: nn.Module, dim: int, flow: Bijection | None = None, context_dim: int = 0):
        super().__init__()
        self.encoder = encoder
        self.noise = StandardNormal(dim)
        self.flow = flow
        self.sizes = [dim, dim, context_dim]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and log scale of q_0, each (..., L), and the context (..., C) or None."""
        out = self.encoder(x)
        if out.shape[-1] != sum(self.sizes):
            raise ValueError(
                f"the encoder returned {out.shape[-1]} numbers for each point; means, log scales and context "
                f"of widths {self.sizes} need {sum(self.sizes)}"
            )
        mean, raw, context = out.split(self.sizes, -1)
        return mean, bounded(raw, 7.0), context if self.sizes[2] else None

    def rsample_with_log_prob(self, x: Tensor, draws: int = 1) -> tuple[Tensor, Tensor]:
        """z_K (draws, ..., L) and log q_K(z_K) (draws, ...), differentiable, in one pass of the flow."""
        return self.push(*self.encode(x), draws)

    def push(
        self, mean: Tensor, log_scale: Tensor, context: Tensor | None, draws: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The same from what `encode` gave, where a caller needs that too."""
        noise = torch.randn(draws, *mean.shape, dtype=mean.dtype, device=mean.device)
        z = mean + log_scale.exp() * noise
        log_q = self.noise.log_prob(noise) - log_scale.sum(-1)
        if self.flow is None:
            return z, log_q
        z, log_det = self.flow.inverse(z, None if context is None else context.expand(*z.shape[:-1], -1))
        return z, log_q - log_det

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """log q(z given x) at any z (..., L): back to z_0, at the price of the flow's other direction."""
        mean, log_scale, context = self.encode(x)
        log_det = torch.zeros((), dtype=z.dtype, device=z.device)
        if self.flow is not None:
            z, log_det = self.flow.forward(z, None if context is None else context.expand(*z.shape[:-1], -1))
        return self.noise.log_prob((z - mean) * (-log_scale).exp()) - log_scale.sum(-1) + log_det
