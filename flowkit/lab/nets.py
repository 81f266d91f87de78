"""Neural networks that lessons use as parts: the maths around them lives in the topics' own modules."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


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
