"""Autoregressive flows: transform each dimension elementwise by what the dimensions before it say.

p(x) = product over i of p(x_i given x_<i), and z_i = g(x_i; theta_i(x_<i)). The Jacobian is triangular in the
order of the dimensions, so its determinant is a product of D slopes. From x all theta_i come in one pass of
a masked network (MADE); from z they come one after another, since theta_i needs the x_<i that are not there
yet. A coupling is the case in which the first dimensions read nothing and the others read only those.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection, Compose, Inverse, check_width
from flowkit.coupling import Transformer, affine
from flowkit.made import MADE, Order


def standardize(bound: float | None = 2.0) -> Transformer:
    """MAF's transformer, z = (x - mu) * exp(-s): RealNVP's affine one walked backwards.

    The noise of a Gaussian conditional N(mu, exp(2 s)); log-derivative -s. params: (..., D, 2) holds mu and
    the raw s; s = bound * tanh(raw / bound), as in `flowkit.coupling.affine`, which says what the bound
    forbids and buys.
    """
    backwards = affine(bound)
    return Transformer(backwards.inverse, backwards.forward, backwards.size)


class MAF(Bijection):
    """Masked autoregressive flow: each dimension is transformed by parameters read off those before it.

    forward   z_i = g(x_i; theta_i(x_<i))       log abs det dz/dx = sum over i of log g'(x_i; theta_i)
              by default z_i = (x_i - mu_i(x_<i)) * exp(-s_i(x_<i)), and -sum over i of s_i
    inverse   x_i = g^-1(z_i; theta_i(x_<i))    log abs det dx/dz = sum over i of log (g^-1)'(z_i; theta_i)
              by default x_i = z_i * exp(s_i(x_<i)) + mu_i(x_<i), and sum over i of s_i
    Cost: forward, the density, is one pass of the network and O(D). Inverse, sampling, is D steps one after
    another, since theta_i needs the x_<i: the arithmetic of about one pass (`MADE.one_by_one`; D whole passes
    do D times as much), O(D) times the memory if gradients are wanted. Its other direction is cheap: `IAF`.

    dim: D. hidden, order, context_dim, activation: as in MADE; "before" means before in the order.
    transformer: g, standardize() by default; any Transformer of `flowkit.coupling` will do.
    Parameters: those of the MADE `conditioner`, whose last layer starts at zero, so that the flow starts as
        the identity. Invertible for all of them.
    Raises ValueError as MADE does.
    Papamakarios, Pavlakou and Murray 2017 (MAF), eq. 3 to 5; its alpha is our s.

    >>> maf = MAF(2, order=[1, 0])                 # x_1 first, then x_0 given x_1
    >>> maf.conditioner.reads().int().tolist()
    [[0, 1], [0, 0]]
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        order: Order | None = None,
        transformer: Transformer | None = None,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.transformer = transformer or standardize()
        self.conditioner = MADE(dim, self.transformer.size, hidden, order, context_dim, activation)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_width(x, self.conditioner.dim, "this MAF")
        z, log_slope = self.transformer.forward(x, self.conditioner(x, context))
        return z, log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        made = self.conditioner
        check_width(z, made.dim, "this MAF")
        columns = z.reshape(-1, made.dim).mT.contiguous()  # (D, points)
        points = columns.shape[1]
        if context is not None and made.context_dim:
            context = made.checked_context(context, z.shape[:-1]).reshape(points, made.context_dim)
        log_slopes = []

        def choose(i: int, params: Tensor) -> Tensor:
            x_i, log_slope = self.transformer.inverse(columns[i], params)
            log_slopes.append(log_slope)
            return x_i

        x = made.one_by_one(choose, points, context)
        return x.reshape(z.shape), torch.stack(log_slopes).sum(0).reshape(z.shape[:-1])


class IAF(Inverse):
    """Inverse autoregressive flow: a MAF walked backwards. Sampling takes one pass, the density D steps.

    inverse   x_i = g(z_i; theta_i(z_<i))       log abs det dx/dz = sum over i of log g'(z_i; theta_i)
              by default x_i = z_i * exp(s_i(z_<i)) + mu_i(z_<i), and sum over i of s_i
    forward   z_i = g^-1(x_i; theta_i(z_<i))    log abs det dz/dx = sum over i of log (g^-1)'(x_i; theta_i)
              by default z_i = (x_i - mu_i(z_<i)) * exp(-s_i(z_<i)), and -sum over i of s_i
    The parameters read the noise z_<i, and the MAF's read the data x_<i: that is the whole difference. Its
    own samples an IAF scores in one pass (`Flow.rsample_with_log_prob`), which is all that variational
    inference asks; data of others cost D steps.
    Cost: inverse one pass of the network and O(D), forward D steps one after another, as MAF's inverse.
    Parameters and arguments: those of MAF; the transformer, which now goes from noise to data, is affine() by
    default. Kingma et al. 2016 (IAF), eq. 10 and 11; its flow runs from noise to data, our inverse.
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        order: Order | None = None,
        transformer: Transformer | None = None,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__(MAF(dim, hidden, order, transformer or affine(), context_dim, activation))


def orders(dim: int, layers: int, shuffle: bool = False, seed: int = 0) -> list[Tensor]:
    """An order for each layer of a stack: natural and reversed by turns, or, shuffled, drawn from a seed.

    >>> [order.tolist() for order in orders(3, 2)]
    [[0, 1, 2], [2, 1, 0]]
    """
    if shuffle:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randperm(dim, generator=generator) for _ in range(layers)]
    return [torch.arange(dim).flip(0) if k % 2 else torch.arange(dim) for k in range(layers)]


def maf_stack(
    dim: int,
    layers: int,
    hidden: Sequence[int] = (64, 64),
    transformer: Transformer | None = None,
    context_dim: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    shuffle: bool = False,
    seed: int = 0,
) -> Compose:
    """MAFs one after another, each in an order of its own (`orders`), so that no dimension is first in all.

    One Gaussian MAF makes each conditional Gaussian, in its own order; the next one models what is left, in
    another. A MAF of order o is the permutation to o, the MAF of the natural order, and the way back, so no
    Permutation is needed between layers. For a stack that samples in one pass each: Inverse(maf_stack(...)).
    Cost: `layers` times that of MAF, in both directions.

    >>> stack = maf_stack(3, 4)
    >>> x = torch.randn(5, 3)
    >>> bool((stack.forward(x)[0] == x).all())      # the networks end at zero: the identity
    True
    """
    turns = orders(dim, layers, shuffle, seed)
    return Compose(*(MAF(dim, hidden, order, transformer, context_dim, activation) for order in turns))
