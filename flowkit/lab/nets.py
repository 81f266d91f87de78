"""Neural networks that lessons use as parts: the maths around them lives in the topics' own modules."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Weights = list[tuple[Tensor, Tensor]]  # a network as values: for each layer W (before, after) and b (after,)


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[], nn.Module] = nn.ReLU,
    zero_last: bool = True,
) -> nn.Sequential:
    """A multilayer perceptron: (..., inputs) -> (..., outputs).

    hidden lists the widths of the hidden layers; () gives a linear map. With zero_last the last layer starts
    at zero, so the network starts as the constant 0 whatever its input: a flow that reads its parameters
    from such a network starts as the identity, and training departs from there.

    >>> mlp(2, 3, hidden=(8,))
    Sequential(
      (0): Linear(in_features=2, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    layers = []
    for before, after in pairwise((inputs, *hidden)):
        layers += [nn.Linear(before, after), activation()]
    last = nn.Linear((inputs, *hidden)[-1], outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def mlp_weights(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    seed: int = 0,
    zero_last: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """A multilayer perceptron as values, for functions that are given their network: [(W, b), ...].

    W: (before, after), entries N(0, 1 / before); b: (after,), entries N(0, 1/4). zero_last: as in `mlp`.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = (inputs, *hidden, outputs)
    weights = [(draw(before, after) / before**0.5, draw(after) / 2) for before, after in pairwise(sizes)]
    if zero_last:
        weights[-1] = tuple(torch.zeros_like(w) for w in weights[-1])
    return [(W.to(dtype), b.to(dtype)) for W, b in weights]


def apply_mlp(weights: Weights, x: Tensor) -> Tensor:
    """The network with these weights at x: (..., inputs) -> (..., outputs), ReLU between its layers.

    >>> weights = mlp_weights(2, 3, hidden=(8,))
    >>> apply_mlp(weights, torch.ones(5, 2)).shape
    torch.Size([5, 3])
    """
    *hidden, (W, b) = weights
    for V, c in hidden:
        x = torch.relu(x @ V + c)
    return x @ W + b
