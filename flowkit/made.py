"""MADE: a network whose outputs each read only the dimensions before their own, by masks on its weights.

One pass gives the parameters of all conditionals p(x_i given x_<i); sampling walks through the dimensions in
their order, and computes each unit once, when all that it reads is known.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import check_width
from flowkit.linear import Permutation

Order = Sequence[int] | Tensor


def positions(order: Order) -> Tensor:
    """The place of each dimension in the order, from 1 to D: the inverse permutation, plus one. (D,) int64.

    >>> positions([2, 0, 1]).tolist()       # dimension 2 comes first
    [2, 3, 1]
    """
    return Permutation(order).back + 1


def hidden_degrees(dim: int, width: int, context_dim: int = 0) -> Tensor:
    """How many of the first dimensions each hidden unit may read: (width,) int64, ascending, evenly spread.

    From 1 to D - 1: reading none is no use, and what reads all D no output may read. From 0 with a context,
    which is what a unit of degree 0 reads (without such units the first dimension could not see it), and
    0 for all at D = 1.

    >>> hidden_degrees(4, 6).tolist(), hidden_degrees(4, 2).tolist()
    ([1, 1, 2, 2, 3, 3], [2, 3])
    >>> hidden_degrees(4, 4, context_dim=5).tolist()
    [0, 1, 2, 3]
    """
    lowest = 0 if context_dim or dim == 1 else 1
    return lowest + ((torch.arange(width) + 1) * (dim - lowest) - 1) // width


def made_masks(order: Order, hidden: Sequence[int] = (64, 64), context_dim: int = 0) -> list[Tensor]:
    """The masks of MADE, one for each layer of weights: (after, before) bool, True where a weight is kept.

    With m the degree of a unit (its position for an input, 0 for a context), a hidden unit reads what has
    m_before <= m_after, and an output only what has m_before < m_after. So a path from x_j to the output of
    dimension i exists only where j stands before i; the product of the masks counts these paths.
    order: order[0] is the dimension that comes first. The last mask has one row for each dimension.
    The first mask's columns are the D dimensions, then the context.
    Raises ValueError if order is empty or not a permutation, or a width is below 1.
    Germain, Gregor, Murray and Larochelle 2015 (MADE), eq. 12 and 13.

    >>> first, last = made_masks([0, 1, 2], hidden=[2])
    >>> first.int().tolist(), last.int().tolist()
    ([[1, 0, 0], [1, 1, 0]], [[0, 0], [1, 0], [1, 1]])
    """
    place = positions(order)
    if not len(place):
        raise ValueError("an order needs at least one dimension")
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden layers need at least one unit each, got widths {tuple(hidden)}")
    degrees = [torch.cat((place, place.new_zeros(context_dim)))]
    degrees += [hidden_degrees(len(place), width, context_dim) for width in hidden]
    masks = [after[:, None] >= before for before, after in pairwise(degrees)]
    return [*masks, place[:, None] > degrees[-1]]


class MaskedLinear(nn.Linear):
    """y = (mask * W) x + b, with a fixed mask (after, before) of 0 and 1. The masked weights get no gradient.

    The mask has the dtype of the weights: a bool one would be converted at every pass.
    """

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """A network whose outputs for dimension i read only the dimensions before i: (..., D) -> (..., D, size).

    One pass gives the parameters of all conditionals p(x_i given x_<i): size of them for each dimension.
    Those of the first dimension are constants, or functions of the context.

    order: order[0] is the dimension that comes first; the natural order unless given.
    hidden: the widths of the hidden layers; () gives a linear map. Each output can read all that it may if
        no layer is narrower than D - 1, or D with a context; narrower ones see dimensions in groups, and
        then the first dimensions may go without the context.
    context_dim: C, the width of a context (..., C) that every output may read. With 0 a context is ignored.
    activation: acts on each unit alone. zero_last: the last layer starts at zero, and so do all outputs.
    Cost: one pass, O(sum of before * after) a point; `one_by_one` about the same, in D steps.
    Parameters: those of the layers. Buffers: order (D,) and the masks.
    Raises ValueError as made_masks does; for x that is not (..., D); for a context that is missing or not
        (..., C). Germain et al. 2015 (MADE).

    >>> made = MADE(3, size=2)
    >>> made(torch.zeros(5, 3)).shape
    torch.Size([5, 3, 2])
    >>> made.reads().int().tolist()
    [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    """

    layers: Sequence[MaskedLinear]
    order: Tensor

    def __init__(
        self,
        dim: int,
        size: int = 1,
        hidden: Sequence[int] = (64, 64),
        order: Order | None = None,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        zero_last: bool = True,
    ):
        super().__init__()
        order = Permutation(range(dim) if order is None else order).order.clone()  # a copy: callers may share
        if order.shape != (dim,):
            raise ValueError(f"an order of {dim} dimensions has shape ({dim},), got {tuple(order.shape)}")
        *masks, last = made_masks(order, hidden, context_dim)
        self.register_buffer("order", order)
        self.dim, self.size, self.context_dim = dim, size, context_dim
        weights = map(MaskedLinear, [*masks, last.repeat_interleave(size, 0)])
        self.layers = nn.ModuleList(weights)  # type: ignore[assignment]  # it is a sequence of them
        self.activation = activation()
        if zero_last:
            nn.init.zeros_(self.layers[-1].weight)
            nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters of all dimensions: (..., D) -> (..., D, size)."""
        check_width(x, self.dim, "this MADE")
        if self.context_dim:
            x = torch.cat((x, self.checked_context(context, x.shape[:-1])), -1)
        *layers, last = self.layers
        for layer in layers:
            x = self.activation(layer(x))
        return last(x).unflatten(-1, (self.dim, self.size))

    def reads(self) -> Tensor:
        """Which dimensions each output can read, from the masks alone: (D, D) bool, rows are outputs."""
        paths = torch.eye(self.dim + self.context_dim).to(self.layers[0].mask)
        for layer in self.layers:
            paths = (layer.mask @ paths > 0).to(paths.dtype)
        return paths[:: self.size, : self.dim] > 0

    def one_by_one(
        self, choose: Callable[[int, Tensor], Tensor], points: int, context: Tensor | None = None
    ) -> Tensor:
        """Ancestral sampling: x_i = choose(i, params_i), dimension by dimension in the order; (points, D).

        choose gets the dimension and its parameters (points, size), which come from the x chosen so far, and
        returns (points,). context: (points, C), or anything that broadcasts to it.
        Cost: the arithmetic of one pass, in D steps, where D passes would do D times as much. A unit of
        degree m is computed once, when m dimensions are known; since units stand in order of their degree,
        what it reads is a leading block of the layer before. For a few dimensions or a single point the steps
        themselves are the cost, and D passes of a small network are as fast. Differentiable, at the price
        of O(D) times the memory of a pass.
        """
        steps = self._steps()
        tape = torch.is_grad_enabled()  # a tape keeps all that was read, so nothing may be overwritten
        widths = [layer.in_features for layer in self.layers]
        known = [self.layers[0].weight.new_empty(0 if tape else width, points) for width in widths]
        if self.context_dim:
            known[0] = _put(known[0], 0, self.checked_context(context, (points,)).mT, tape)
        x: dict[int, Tensor] = {}
        counts = [self.context_dim] + [0] * (len(known) - 1)  # what is known of each layer's input
        for i, step in zip(self.order.tolist(), steps, strict=True):
            for depth, (weight, bias) in enumerate(step):
                if len(bias):
                    block = torch.addmm(bias, weight[:, : counts[depth]], known[depth][: counts[depth]])
                    if depth + 1 < len(step):
                        units = self.activation(block)
                        known[depth + 1] = _put(known[depth + 1], counts[depth + 1], units, tape)
                        counts[depth + 1] += len(units)
            x[i] = choose(i, block.mT)
            known[0] = _put(known[0], counts[0], x[i][None], tape)
            counts[0] += 1
        return torch.stack([x[i] for i in range(self.dim)], -1)

    def _steps(self) -> list[tuple[tuple[Tensor, Tensor], ...]]:
        """For each dimension in the order, of each layer the weights and biases (units, 1) of its degree.

        The first layer's columns are the context, then the dimensions in their order; the last layer's rows
        are in that order too.
        """
        weights = [layer.weight for layer in self.layers]
        biases = [layer.bias[:, None] for layer in self.layers]
        columns = torch.cat((torch.arange(self.context_dim).to(self.order) + self.dim, self.order))
        rows = (self.order[:, None] * self.size + torch.arange(self.size).to(self.order)).flatten()
        weights[0] = weights[0].index_select(1, columns)
        weights[-1], biases[-1] = weights[-1].index_select(0, rows), biases[-1].index_select(0, rows)
        blocks = []
        for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            units = [self.size] * self.dim
            if depth + 1 < len(weights):
                degrees = hidden_degrees(self.dim, len(weight), self.context_dim)
                units = degrees.bincount(minlength=self.dim).tolist()
            blocks.append(zip(weight.split(units), bias.split(units), strict=True))
        return list(zip(*blocks, strict=True))

    def checked_context(self, context: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """The context of each point: (*shape, C)."""
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(f"this MADE needs a context of shape (..., {self.context_dim}), got {got}")
        return context.expand(*shape, -1)


def _put(rows: Tensor, at: int, new: Tensor, tape: bool) -> Tensor:
    """rows with new ones at `at`, the end of what is filled: joined for a tape, else written in place."""
    if tape:
        return torch.cat((rows, new))
    rows[at : at + len(new)] = new
    return rows
