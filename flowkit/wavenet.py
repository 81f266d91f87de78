"""WaveNet: sound sample by sample, with dilated causal convolutions whose past doubles with each layer."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.causal import CausalConv1d, CausalNet, Choose, gate, receptive_field


def mu_law(wave: Tensor, levels: int = 256) -> Tensor:
    """A wave in [-1, 1] as levels 0 ... L - 1, finer where it is quiet; levels as floats.

    level = round((L - 1) (y + 1) / 2) with y = sign(x) log(1 + mu |x|) / log(1 + mu), mu = L - 1. Hearing
    is roughly logarithmic. Values beyond [-1, 1] count as its ends.
    Van den Oord et al. 2016 (WaveNet), section 2.2.

    >>> mu_law(torch.tensor([-1.0, 0.0, 0.01, 1.0]), 256).tolist()
    [0.0, 128.0, 157.0, 255.0]
    """
    mu = levels - 1
    wave = wave.clamp(-1, 1)
    y = wave.sign() * torch.log1p(mu * wave.abs()) / math.log1p(mu)
    return ((y + 1) * mu / 2).round()


def mu_law_inverse(level: Tensor, levels: int = 256) -> Tensor:
    """The wave in [-1, 1] that stands for a level: sign(y) ((1 + mu)^|y| - 1) / mu, y = 2 level / mu - 1.

    Between two levels (a level of 0.5) it is the edge of their cells.

    >>> mu_law_inverse(torch.tensor([0.0, 255.0])).tolist()
    [-1.0, 1.0]
    """
    mu = levels - 1
    y = 2 * level / mu - 1
    return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


class WaveBlock(nn.Module):
    """z = tanh(W_f * x) sigmoid(W_g * x), a dilated causal convolution; then x + V z goes on, and S z out.

    x: (N, C, T) -> residual x + V z (N, C, T), and skip S z (N, skip, T). V and S act on one time alone.
    """

    def __init__(self, channels: int, skip: int, kernel: int, dilation: int):
        super().__init__()
        self.conv = CausalConv1d(channels, 2 * channels, kernel, dilation)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = gate(self.conv(x))
        return x + self.residual(z), self.skip(z)

    def stepper(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The same for one time after another: (N, C) -> (N, C) and (N, skip), with the past kept."""
        conv = self.conv.stepper()

        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            z = gate(conv(x))
            return x + at_one_time(self.residual, z), at_one_time(self.skip, z)

        return step


def at_one_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of width 1 at a single time: (N, inputs) -> (N, outputs)."""
    return F.linear(x, conv.weight[..., 0], conv.bias)


class WaveNet(CausalNet):
    """Dilated, gated causal convolutions with residual and skip paths: (N, 1, T) -> (N, size, T).

    A causal convolution of kind A, a WaveBlock for each dilation, and on the sum of all skips two layers that
    act on one time alone. Output t reads x_(t-R) ... x_(t-1), R = kernel + sum of (kernel - 1) dilation.
    Cost: one pass O(T) times the weights. Sampling T numbers: `one_by_one`, O(T) times the weights too, in T
    steps; by passes it would be O(T^2).
    dilations: 1, 2, 4, ... 32 by default; repeat them (1, 2, 4, 1, 2, 4) for more depth at one scale.
    Van den Oord et al. 2016 (WaveNet: A Generative Model for Raw Audio), section 2.

    >>> net = WaveNet(size=16, dilations=(1, 2, 4))
    >>> net(torch.zeros(5, 1, 20)).shape, net.receptive_field
    (torch.Size([5, 16, 20]), 9)
    """

    def __init__(
        self,
        size: int,
        channels: int = 24,
        skip: int = 48,
        kernel: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32),
    ):
        super().__init__()
        self.size = size
        self.dilations = tuple(dilations)
        self.front = CausalConv1d(1, channels, kernel, kind="A")
        self.blocks = nn.ModuleList(WaveBlock(channels, skip, kernel, d) for d in dilations)
        self.before_last = nn.Conv1d(skip, skip, 1)
        self.last = nn.Conv1d(skip, size, 1)

    @property
    def receptive_field(self) -> int:
        """R: how many numbers of the past each output reads."""
        dilations = (1, *self.dilations)
        return receptive_field([self.front.kernel_size[0]] * len(dilations), dilations)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        return self.last(self.before_last(total.relu()).relu())

    def stepper(self) -> Callable[[Tensor], Tensor]:
        """A function that is given x_(-1) = 0, x_0, x_1, ..., and returns at x_(t-1) the output of t.

        (N,) -> (N, size). Each layer keeps its own past, so a step computes one column of each and no more.
        Cost: O(weights) a step, whatever t.
        """
        front = self.front.stepper()
        blocks = [block.stepper() for block in self.blocks]  # type: ignore[operator]

        def step(x: Tensor) -> Tensor:
            x = front(x[:, None])
            total = torch.zeros((), dtype=x.dtype, device=x.device)
            for block in blocks:
                x, skip = block(x)
                total = total + skip
            return at_one_time(self.last, at_one_time(self.before_last, total.relu()).relu())

        return step

    def one_by_one(self, choose: Choose, n: int, shape: Sequence[int]) -> Tensor:
        """As `CausalNet.one_by_one`, with the past of every layer kept: T steps of O(weights) each.

        Paine et al. 2016 (Fast Wavenet Generation Algorithm).
        """
        with torch.no_grad():
            step = self.stepper()
            x = [next(self.parameters()).new_zeros(n)]
            for t in range(shape[0]):
                x.append(choose(t, step(x[-1])))
        return torch.stack(x[1:], -1)
