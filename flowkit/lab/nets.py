"""Neural networks that lessons use as parts: the maths around them lives in the topics' own modules."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Weights = list[tuple[Tensor, Tensor]]  # a network as values: for each layer W (before, after) and b (after,)
MaskedWeights = list[tuple[Tensor, Tensor, Tensor]]  # of each layer a mask and W, (after, before), and b


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

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = (inputs, *hidden, outputs)
    weights = [(draw(before, after) / before**0.5, draw(after) / 2) for before, after in pairwise(sizes)]
    if zero_last:
        W, b = weights[-1]
        weights[-1] = (torch.zeros_like(W), torch.zeros_like(b))
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


def apply_field(
    weights: Weights,
    t: float | Tensor,
    x: Tensor,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
) -> Tensor:
    """The network with these weights as a field g(t, x) on the points: (..., D) -> (..., D).

    Its inputs are x and, last, t: a number, or (...) with a time for each point. Smooth layers by default.

    >>> apply_field(mlp_weights(3, 2, hidden=(8,)), 0.5, torch.ones(5, 2)).shape
    torch.Size([5, 2])
    """
    times = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[:-1])
    h = torch.cat([x, times[..., None]], -1)
    *hidden, (W, b) = weights
    for V, c in hidden:
        h = activation(h @ V + c)
    return h @ W + b


def masked_weights(
    masks: Sequence[Tensor],
    size: int = 1,
    seed: int = 0,
    zero_last: bool = True,
    dtype: torch.dtype = torch.float32,
) -> MaskedWeights:
    """A network with masked weights as values: [(mask, W, b), ...].

    masks: one for each layer, (after, before) bool, True where a weight counts. The rows of the last one
    are repeated as a whole, size times: the outputs are size blocks of one number for each of its rows.
    W: (after, before), entries N(0, 1 / before); b: (after,), entries N(0, 1/4). zero_last: as in `mlp`.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    *hidden, last = masks
    layers = []
    for mask in (*hidden, last.repeat(size, 1)):
        after, before = mask.shape
        layers.append((mask, draw(after, before) / max(before, 1) ** 0.5, draw(after) / 2))
    if zero_last:
        mask, W, b = layers[-1]
        layers[-1] = (mask, torch.zeros_like(W), torch.zeros_like(b))
    return [(mask, W.to(dtype), b.to(dtype)) for mask, W, b in layers]


def apply_masked(weights: MaskedWeights, x: Tensor) -> Tensor:
    """The masked network at x: (..., inputs) -> (..., outputs), ReLU between its layers.

    >>> first, last = torch.tensor([[True, False]] * 3), torch.tensor([[False] * 3, [True] * 3])
    >>> net = masked_weights([first, last], zero_last=False)
    >>> torch.func.jacrev(lambda x: apply_masked(net, x))(torch.ones(2)) != 0
    tensor([[False, False],
            [ True, False]])
    """
    *hidden, (mask, W, b) = weights
    for M, V, c in hidden:
        x = torch.relu(x @ (V * M).mT + c)
    return x @ (W * mask).mT + b
