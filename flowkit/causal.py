"""Autoregression without a flow: p(x) = product over i of p(x_i given x_<i), with causal convolutions.

MADE masks dense layers; images (in raster order: row by row, left to right) and sounds have structure, and a
convolution whose kernel sees only what comes before is as causal, with few weights. All conditionals of a
given x cost one pass; sampling goes number by number. x is discrete here, so there is no Jacobian.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.bijection import check_width
from flowkit.likelihoods import Likelihood, centred

Choose = Callable[[int, Tensor], Tensor]  # choose(i, params) -> x_i: (n, size) -> (n,)


def conv_mask(kernel: int, kind: str, inputs: int = 1, outputs: int = 1, colours: int = 1) -> Tensor:
    """Which weights of a k x k convolution are kept: (outputs, inputs, k, k) bool.

    Kept are the rows above the centre, and in the centre row what is left of it. The centre itself: kind "A"
    leaves it out (the first layer, which reads x_i itself there), kind "B" keeps it (later layers, whose
    features at i have not read x_i). With colours, channels come in that many equal groups, one a colour
    in their order, and at the centre a group reads earlier groups (A), or those and itself (B).
    Raises ValueError for an even kernel, another kind, or channels that do not split evenly.
    Van den Oord, Kalchbrenner and Kavukcuoglu 2016 (Pixel Recurrent Neural Networks), section 3.4.

    >>> conv_mask(3, "A")[0, 0].int().tolist()
    [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    >>> conv_mask(3, "B")[0, 0].int().tolist()
    [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"a kernel with a centre has odd width, got {kernel}")
    check_kind(kind)
    if inputs % colours or outputs % colours:
        raise ValueError(f"{inputs} and {outputs} channels do not split into {colours} colours evenly")
    before = (torch.arange(kernel**2) < kernel**2 // 2).reshape(kernel, kernel)
    mask = before.expand(outputs, inputs, kernel, kernel).clone()
    reader = torch.arange(outputs) * colours // outputs
    read = torch.arange(inputs) * colours // inputs
    at_centre = reader[:, None] > read if kind == "A" else reader[:, None] >= read
    mask[:, :, kernel // 2, kernel // 2] = at_centre
    return mask


def check_kind(kind: str) -> None:
    """Raises ValueError unless kind is "A" or "B"."""
    if kind not in ("A", "B"):
        raise ValueError(f'kind is "A" (without the present) or "B" (with it), got {kind!r}')


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution with the mask of `conv_mask`: (N, inputs, H, W) -> (N, outputs, H, W).

    The border is padded with zeros, and masked weights get no gradient. A stack of kind A, then B, reads
    only pixels that come before in raster order, but not all of them (`flowkit.raster.blind_spot`).
    Cost: O(k^2 inputs outputs H W). Raises ValueError as conv_mask does.

    >>> MaskedConv2d(1, 8, 3, "A")(torch.zeros(5, 1, 4, 6)).shape
    torch.Size([5, 8, 4, 6])
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, kind: str, colours: int = 1):
        mask = conv_mask(kernel, kind, inputs, outputs, colours)
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class CausalConv1d(nn.Conv1d):
    """y_t = b + sum over j < k of W_j x_(t - j d - shift): (N, inputs, T) -> (N, outputs, T).

    The past alone is padded, with zeros before the beginning: no mask is needed. kind "B" has shift 0 and
    reads the present; kind "A" has shift 1 and reads only what came before. W_0 is weight[..., -1].
    kernel: k. dilation: d, the distance of two taps.
    Cost: O(k inputs outputs T). Raises ValueError for a kernel or dilation below 1, or another kind.

    >>> conv = CausalConv1d(1, 1, kernel=2, dilation=4)
    >>> conv(torch.zeros(5, 1, 10)).shape
    torch.Size([5, 1, 10])
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, kind: str = "B"):
        check_kind(kind)
        if kernel < 1 or dilation < 1:
            raise ValueError(f"kernel and dilation are at least 1, got {kernel} and {dilation}")
        super().__init__(inputs, outputs, kernel, dilation=dilation)
        self.shift = int(kind == "A")

    def forward(self, input: Tensor) -> Tensor:
        past = (self.kernel_size[0] - 1) * self.dilation[0] + self.shift
        return super().forward(F.pad(input, (past, -self.shift)))

    def stepper(self) -> Callable[[Tensor], Tensor]:
        """A function that is given x_0, x_1, ... in turn, and returns at x_t the y that kind "B" has at t.

        It keeps the last (k - 1) d + 1 inputs in a ring, and computes y_t alone: (N, inputs) -> (N, outputs).
        Of kind "A", whose y_t does not read x_t, the y returned at x_t is y_(t + 1).
        Cost: O(k inputs outputs) a step, whatever the dilation and however long the past.
        """
        (kernel,), (dilation,) = self.kernel_size, self.dilation
        weight = self.weight.movedim(2, 1).flatten(1)  # (outputs, k inputs), the oldest tap first
        ring: list[Tensor] = []
        now = -1

        def step(x: Tensor) -> Tensor:
            nonlocal now
            if not ring:
                ring.extend([torch.zeros_like(x)] * ((kernel - 1) * dilation + 1))
            now += 1
            ring[now % len(ring)] = x
            taps = [ring[(now - j * dilation) % len(ring)] for j in reversed(range(kernel))]
            return F.linear(torch.cat(taps, -1), weight, self.bias)

        return step


def receptive_field(kernels: Sequence[int], dilations: Sequence[int]) -> int:
    """How many inputs one output of a stack of convolutions reads: 1 + sum over layers of (k - 1) d.

    Without dilation it grows by k - 1 a layer; with d = 1, 2, 4, ... it doubles with each layer.

    >>> receptive_field([2] * 10, [1] * 10), receptive_field([2] * 10, [2**j for j in range(10)])
    (11, 1024)
    """
    return 1 + sum((k - 1) * d for k, d in zip(kernels, dilations, strict=True))


def gate(x: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b), where a and b are the two halves of the channels: (N, 2 C, ...) -> (N, C, ...).

    Van den Oord et al. 2016 (Conditional Image Generation with PixelCNN Decoders; WaveNet).

    >>> gate(torch.zeros(5, 6, 4)).shape
    torch.Size([5, 3, 4])
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class CausalNet(nn.Module):
    """A network whose outputs at place i read only the inputs before i: (N, 1, *shape) -> (N, size, *shape).

    Places are counted in raster order, over images (H, W) or sequences (T,), of any height and length.
    """

    size: int

    def one_by_one(self, choose: Choose, n: int, shape: Sequence[int]) -> Tensor:
        """Ancestral sampling: x_i = choose(i, params_i), place after place; (n, D), without gradient.

        choose gets the place and its parameters (n, size), which come from the x chosen so far, and
        returns (n,). Cost: D passes, each over the rows so far alone, since no later row is read: half of
        D whole passes. A network that can keep what it has computed does better (`flowkit.wavenet`).
        """
        with torch.no_grad():
            x = next(self.parameters()).new_zeros(n, 1, *shape)
            flat = x.flatten(1)  # a view of x
            row = math.prod(shape[1:])
            for i in range(math.prod(shape)):
                params = self(x[:, :, : i // row + 1]).flatten(2)[..., i]
                flat[:, i] = choose(i, params)
        return flat


def reads(net: CausalNet, shape: Sequence[int], points: int = 8, seed: int = 0) -> Tensor:
    """Which inputs each output reads: (D, D) bool; [i, j] is True where output i moves with input j.

    The zero pattern of the autograd Jacobian at some random points, with the outputs of one place mixed at
    random: D backward passes. A causal network is False on and above the diagonal. Where a ReLU is off at all
    points nothing is seen: take more points, or a network of more channels.

    >>> from flowkit.raster import PlainPixelCNN
    >>> reads(PlainPixelCNN(1), (2, 2)).int().tolist()[1]      # the second pixel reads the first
    [1, 0, 0, 0]
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(net.parameters())
    x = torch.randn(points, 1, *shape, generator=generator).to(like)
    mix = torch.randn(net.size, generator=generator).to(like)

    def outputs(x: Tensor) -> Tensor:
        return torch.einsum("ns...,s->n...", net(x), mix).sum(0).flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, x)  # (D, points, 1, *shape)
    return (jacobian != 0).any(1).flatten(1).cpu()


class CausalModel(nn.Module):
    """The distribution p(x) = product over i of p(x_i; theta_i(x_<i)) on points of levels 0 ... L - 1.

    log_prob(x)        sum over i of log p(x_i; theta_i)     one pass of the network
    sample(shape)      x_0, then x_1 given x_0, ...          D steps (`CausalNet.one_by_one`)

    net: any CausalNet, which sees levels as numbers from -1 to 1. shape: (H, W) or (T,), D numbers in all;
    points are rows (..., D) in raster order, so `flowkit.lab.training.fit` fits the model as it fits flows.
    likelihood: one of `flowkit.likelihoods` with levels, whose size is that of the net.
    Raises ValueError for a likelihood of another size or without levels; for x that is not (..., D), or
        not levels.

    >>> from flowkit.likelihoods import categorical
    >>> from flowkit.raster import PixelCNN
    >>> model = CausalModel(PixelCNN(17), (8, 8), categorical(17))
    >>> model.log_prob(model.sample((3,))).shape
    torch.Size([3])
    """

    def __init__(self, net: CausalNet, shape: Sequence[int], likelihood: Likelihood):
        super().__init__()
        if likelihood.levels is None:
            raise ValueError("a causal model needs a likelihood of levels, and this one is of real numbers")
        if likelihood.size != net.size:
            raise ValueError(
                f"the network gives {net.size} parameters for each number and the likelihood takes "
                f"{likelihood.size}"
            )
        self.net = net
        self.shape = tuple(shape)
        self.likelihood = likelihood
        self.levels = likelihood.levels

    def params(self, x: Tensor) -> Tensor:
        """theta_i(x_<i) for every i, in one pass: (..., D) -> (..., D, size)."""
        check_width(x, math.prod(self.shape), "this CausalModel")
        image = centred(x.to(next(self.net.parameters())), self.levels).reshape(-1, 1, *self.shape)
        return self.net(image).flatten(2).mT.reshape(*x.shape, self.net.size)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each point: (..., D) -> (...)."""
        return self.likelihood.log_prob(x, self.params(x)).sum(-1)

    def sample(self, shape: tuple[int, ...] = (), start: Tensor | None = None) -> Tensor:
        """Draws (*shape, D), levels as floats. start: (m,) or (*shape, m), the first m numbers, if given.

        With a start, the rest is drawn given it: half an image is completed, a sound goes on.
        """
        n = math.prod(shape)
        if start is None:
            start = torch.zeros(0)
        given = start.expand(*shape, start.shape[-1]).reshape(n, start.shape[-1])

        def choose(i: int, params: Tensor) -> Tensor:
            level = given[:, i].to(params) if i < given.shape[1] else self.likelihood.sample(params)
            return centred(level, self.levels)

        with torch.no_grad():
            x = self.net.one_by_one(choose, n, self.shape)
        return ((x + 1) * (self.levels - 1) / 2).round().reshape(*shape, -1)
