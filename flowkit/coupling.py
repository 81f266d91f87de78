"""Coupling flows: keep some dimensions, and transform the others elementwise by what the kept ones say.

z_A = x_A and z_B = g(x_B; theta(x_A)). The Jacobian is block triangular with an identity block and a
diagonal one, so its determinant is a product of D_B slopes; and since x_A can be read off z_A, theta is
never inverted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection, Compose, check_width
from flowkit.elementwise import Scale
from flowkit.linear import Permutation

Net = Callable[[int, int], nn.Module]  # net(inputs, outputs) makes a network (..., inputs) -> (..., outputs)
Way = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # one direction of a scalar map: values, log-slopes


class Transformer(NamedTuple):
    """A family of increasing scalar maps g(x; params), as stateless functions.

    forward(x, params) -> z, log dz/dx     x: (..., D_B); params: (..., D_B, size); both results (..., D_B)
    inverse(z, params) -> x, log dx/dz     the log-derivatives are those of each element, not summed
    size                                   parameters for one element; all zero should give g(x) = x
    """

    forward: Way
    inverse: Way
    size: int


def additive_forward(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """z = x + t; slope 1, log-derivative 0. params: (..., D_B, 1) holds t."""
    return x + params[..., 0], torch.zeros_like(x)


def additive_inverse(z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """x = z - t; log-derivative 0."""
    return z - params[..., 0], torch.zeros_like(z)


def affine_forward(x: Tensor, params: Tensor, bound: float | None = 2.0) -> tuple[Tensor, Tensor]:
    """z = x * exp(s) + t; log-derivative s. params: (..., D_B, 2) holds t and the raw s."""
    t, raw = params.unbind(-1)
    s = bounded(raw, bound)
    return x * s.exp() + t, s


def affine_inverse(z: Tensor, params: Tensor, bound: float | None = 2.0) -> tuple[Tensor, Tensor]:
    """x = (z - t) * exp(-s); log-derivative -s."""
    t, raw = params.unbind(-1)
    minus_s = -bounded(raw, bound)
    return (z - t) * minus_s.exp(), minus_s


def bounded(raw: Tensor, bound: float | None) -> Tensor:
    """s = bound * tanh(raw / bound), between -bound and bound with slope 1 at 0; None leaves raw as it is."""
    return raw if bound is None else bound * torch.tanh(raw / bound)


def additive() -> Transformer:
    """NICE's transformer, z = x + t: it moves points and keeps volume."""
    return Transformer(additive_forward, additive_inverse, 1)


def affine(bound: float | None = 2.0) -> Transformer:
    """RealNVP's transformer, z = x * exp(s) + t with s = bound * tanh(raw / bound).

    What the bound forbids: one layer cannot stretch or shrink a dimension by more than exp(bound), 7.4
    times at 2. A density whose scale varies more than that needs more layers. What it buys: with bound=None
    one outlier makes s large, exp(s) makes the next layer's input larger still, and a deep stack overflows;
    bounded, the scales of K layers multiply to exp(K * bound) at most, 6e27 for 32 layers at 2, and float32
    holds 3e38.
    Raises ValueError unless bound is positive, or None for no bound.
    """
    if bound is not None and not bound > 0:
        raise ValueError(f"the bound of the log scale must be positive (None: no bound), got {bound}")
    return Transformer(partial(affine_forward, bound=bound), partial(affine_inverse, bound=bound), 2)


class Coupling(Bijection):
    """Keeps x_A, and transforms each element of x_B by parameters that a network computes from x_A.

    forward   z_A = x_A, z_B = g(x_B; theta)       log abs det dz/dx = sum over B of log g'(x_B; theta)
    inverse   x_A = z_A, x_B = g^-1(z_B; theta)    log abs det dx/dz = sum over B of log (g^-1)'(z_B; theta)
              with theta = conditioner(x_A), which is conditioner(z_A)
    Cost: one pass of the network and O(D), for each of the four.

    mask: (D,) bool, True where a dimension is kept (A). One or more must be kept, one or more must move.
    conditioner: a network theta, (..., D_A + C) -> (..., D_B * size), any at all: it needs no inverse. It
        reads x_A, then the context. If its last layer starts at zero (`flowkit.lab.nets.mlp` does), the
        layer starts as the identity.
    transformer: g, for example additive() or affine().
    context_dim: C. With 0 a context is ignored, so that conditional and other layers mix in one Compose.
    Parameters: those of the conditioner. The mask is kept as index buffers kept (D_A,) and moved (D_B,).
    Raises ValueError for a mask that is not (D,), keeps all or keeps none; for x that is not (..., D); for
        a context that is missing or not (..., C); for a conditioner of another width.

    Dinh et al. 2014 (NICE), section 3.2; Dinh et al. 2017 (RealNVP), eq. 4 to 8; its eq. 9 calls the mask b.

    >>> swing = Coupling([True, False], nn.Linear(1, 1), additive())
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> z, log_det = swing.forward(x)
    >>> bool((z[:, 0] == x[:, 0]).all()), bool((z[:, 1] == x[:, 1]).any()), log_det.tolist()
    (True, False, [0.0, 0.0])
    """

    kept: Tensor
    moved: Tensor

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        conditioner: nn.Module,
        transformer: Transformer,
        context_dim: int = 0,
    ):
        super().__init__()
        mask = checked_mask(mask)
        self.register_buffer("kept", mask.nonzero()[:, 0])
        self.register_buffer("moved", (~mask).nonzero()[:, 0])
        self.conditioner = conditioner
        self.transformer = transformer
        self.context_dim = context_dim

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(self.transformer.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(self.transformer.inverse, z, context)

    def _couple(self, g: Way, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both directions are one: x_A is the same before and after, and only g differs."""
        check_width(x, len(self.kept) + len(self.moved), "this Coupling")
        params = self._params(x.index_select(-1, self.kept), context)
        z_b, log_slope = g(x.index_select(-1, self.moved), params)
        return x.index_copy(-1, self.moved, z_b), log_slope.sum(-1)

    def _params(self, x_a: Tensor, context: Tensor | None) -> Tensor:
        """theta(x_A, context), one row of parameters for each dimension that moves: (..., D_B, size)."""
        if self.context_dim:
            if context is None or context.shape[-1:] != (self.context_dim,):
                got = "none" if context is None else f"one of shape {tuple(context.shape)}"
                raise ValueError(
                    f"this Coupling needs a context of shape (..., {self.context_dim}), got {got}"
                )
            x_a = torch.cat((x_a, context.expand(*x_a.shape[:-1], -1)), -1)
        params = self.conditioner(x_a)
        shape = (len(self.moved), self.transformer.size)
        if params.shape[-1] != shape[0] * shape[1]:
            raise ValueError(
                f"the conditioner returned {params.shape[-1]} numbers for each point; {shape[0]} moving "
                f"dimensions with {shape[1]} parameters each need {shape[0] * shape[1]}"
            )
        return params.unflatten(-1, shape)


def checked_mask(mask: Tensor | Sequence[bool]) -> Tensor:
    """The mask as a bool tensor (D,); ValueError unless it keeps some dimensions and lets some move."""
    mask = torch.as_tensor(mask)
    if mask.ndim != 1:
        raise ValueError(
            f"a mask has shape (D,), one entry for each dimension; got shape {tuple(mask.shape)}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"a mask holds only 0 and 1 (False and True); got {mask.tolist()}")
    mask = mask.bool()
    if mask.all() or not mask.any():
        which = "all of its" if mask.all() else "none of its"
        raise ValueError(
            f"the mask keeps {which} {len(mask)} dimensions; a coupling needs one to keep and one to move"
        )
    return mask


def alternating_mask(dim: int, parity: int = 0) -> Tensor:
    """Keeps every second dimension: the even ones (0, 2, ...) for parity 0, the odd ones for parity 1.

    >>> alternating_mask(5).tolist()
    [True, False, True, False, True]
    """
    return checked_mask(torch.arange(dim) % 2 == parity % 2)


def half_mask(dim: int, first: bool = True) -> Tensor:
    """Keeps the first dim // 2 dimensions, or all but those; the two are complements.

    >>> half_mask(5).tolist()
    [True, True, False, False, False]
    """
    return checked_mask((torch.arange(dim) < dim // 2) == first)


def coupling(
    mask: Tensor | Sequence[bool], net: Net, transformer: Transformer, context_dim: int = 0
) -> Coupling:
    """A Coupling with a network made to measure: net(D_A + C, D_B * size)."""
    mask = checked_mask(mask)
    kept = int(mask.sum())
    outputs = (len(mask) - kept) * transformer.size
    return Coupling(mask, net(kept + context_dim, outputs), transformer, context_dim)


def additive_coupling(mask: Tensor | Sequence[bool], net: Net, context_dim: int = 0) -> Coupling:
    """NICE's layer: z_A = x_A, z_B = x_B + t(x_A); its log-det is 0. Dinh et al. 2014, section 3.2."""
    return coupling(mask, net, additive(), context_dim)


def affine_coupling(
    mask: Tensor | Sequence[bool], net: Net, bound: float | None = 2.0, context_dim: int = 0
) -> Coupling:
    """RealNVP's layer: z_A = x_A, z_B = x_B * exp(s(x_A)) + t(x_A). Dinh et al. 2017, eq. 4 to 8."""
    return coupling(mask, net, affine(bound), context_dim)


def coupling_stack(
    dim: int,
    layers: int,
    net: Net,
    transformer: Transformer | None = None,
    context_dim: int = 0,
    permute: bool = False,
    seed: int = 0,
) -> Compose:
    """Couplings whose masks alternate, so that two layers in a row move every dimension once.

    net(inputs, outputs) makes each layer's network, `flowkit.lab.nets.mlp` for one; transformer is affine()
    by default. With permute, a random permutation drawn from seed stands after every second layer. It
    stands between pairs because one between the two layers of a pair can undo their alternation, and leave
    a dimension that never moves.
    Cost: `layers` passes of the network and O(layers * D), in both directions.
    Raises ValueError if dim < 2: there is nothing to keep.

    >>> from flowkit.lab.nets import mlp
    >>> stack = coupling_stack(3, 4, mlp)
    >>> x = torch.randn(5, 3)
    >>> bool((stack.forward(x)[0] == x).all())      # the networks start at zero: the identity
    True
    """
    transformer = transformer or affine()
    generator = torch.Generator().manual_seed(seed)
    parts: list[Bijection] = []
    for k in range(layers):
        if permute and k and k % 2 == 0:
            parts.append(Permutation(torch.randperm(dim, generator=generator)))
        parts.append(coupling(alternating_mask(dim, k), net, transformer, context_dim))
    return Compose(*parts)


class NICE(Compose):
    """Additive couplings with alternating masks, and one diagonal scaling at the end.

    forward   z = exp(s) * (f_K o ... o f_1)(x)            log abs det dz/dx =  sum over i of s_i
    inverse   x = (f_1^-1 o ... o f_K^-1)(exp(-s) * z)     log abs det dx/dz = -sum over i of s_i
    Each f_k keeps volume; without the scaling the mode of p_X would always be as high as that of p_Z.
    Cost: `layers` passes of the network and O(layers * D), in both directions.
    Parameters: those of the networks and log_scale (D,). Dinh et al. 2014 (NICE), sections 3.2 and 3.3.
    """

    def __init__(self, dim: int, net: Net, layers: int = 4):
        super().__init__(*coupling_stack(dim, layers, net, additive()).bijections, Scale(dim))


def dependencies(f: Bijection, dim: int, points: int = 8, seed: int = 0) -> Tensor:
    """Which inputs each output reads: [i, j] is True where dz_i/dx_j is not 0 at some random point.

    Read off the autograd Jacobian of f as it now is, O(D) backward passes: a stack that is still the
    identity shows a diagonal. Returns (D, D) bool. `graph` says the same from the masks alone.
    """
    x = torch.randn(points, dim, generator=torch.Generator().manual_seed(seed))
    x = x.to(next(f.parameters(), x))
    jacobian = torch.autograd.functional.jacobian(lambda x: f.forward(x)[0].sum(0), x)  # (D, points, D)
    return (jacobian != 0).any(1).cpu()


def graph(f: Bijection, dim: int) -> Tensor:
    """Which inputs each output can read, from the structure alone: (D, D) bool, rows are outputs.

    This is the Bayesian network of the layer: an arrow from j to i where [i, j] is True. A coupling has the
    diagonal and all (moved, kept) pairs. Layers compose by the Boolean product of their matrices: paths
    through the stack. Any other layer is asked by `dependencies`.
    """
    if isinstance(f, Compose):
        reach = torch.eye(dim, dtype=torch.bool)
        for layer in f.bijections:
            reach = (graph(layer, dim).float() @ reach.float()) > 0
        return reach
    if isinstance(f, Coupling):
        reads = torch.eye(dim, dtype=torch.bool)
        reads[f.moved.cpu()[:, None], f.kept.cpu()] = True
        return reads
    return dependencies(f, dim)
