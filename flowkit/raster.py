"""Images pixel by pixel, in raster order: PixelCNN plain and gated, and PixelRNN with its row LSTM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowkit.causal import CausalNet, MaskedConv2d, gate


def head(channels: int, size: int) -> nn.Sequential:
    """ReLU, a layer, ReLU, a layer, each on one pixel alone: (N, C, H, W) -> (N, size, H, W).

    >>> head(4, 17)(torch.zeros(5, 4, 8, 8)).shape
    torch.Size([5, 17, 8, 8])
    """
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, size, 1))


def check_odd(kernel: int) -> None:
    """Raises ValueError unless the kernel is odd and at least 3, so that it has a centre and a past."""
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernels of pixel networks are 3, 5, 7, ..., got {kernel}")


def blind_spot(shape: Sequence[int], kernel: int = 3) -> Tensor:
    """What no stack of masked k x k convolutions reads, however deep: (D, D) bool, rows are outputs.

    [i, j] is True where pixel j comes before i and is never read: those r > 0 rows above and more than
    r (k // 2) columns to the right. A path from i goes up at each layer or stays in its row, where it goes
    left; so it moves right by at most k // 2 for each row that it climbs.
    Van den Oord et al. 2016 (Conditional Image Generation with PixelCNN Decoders), Figure 1.

    >>> blind_spot((2, 4))[4].int().tolist()      # the first pixel of the second row
    [0, 0, 1, 1, 0, 0, 0, 0]
    """
    row, column = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
    row, column = row.flatten(), column.flatten()
    up = row[:, None] - row
    right = column - column[:, None]
    return (up > 0) & (right > up * (kernel // 2))


class PlainPixelCNN(CausalNet):
    """A stack of masked convolutions, A first, then B, with ReLU between: (N, 1, H, W) -> (N, size, H, W).

    It is causal, but blind to a part of the past that grows with the rows above (`blind_spot`).
    Cost: one pass O(layers k^2 C^2 H W). Raises ValueError unless kernel is odd and at least 3.
    Van den Oord, Kalchbrenner and Kavukcuoglu 2016 (Pixel Recurrent Neural Networks).

    >>> PlainPixelCNN(17)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 17, 8, 8])
    """

    def __init__(self, size: int, channels: int = 32, kernel: int = 3, layers: int = 5):
        super().__init__()
        check_odd(kernel)
        self.size = size
        stack: list[nn.Module] = [MaskedConv2d(1, channels, kernel, "A")]
        for _ in range(layers - 1):
            stack += [nn.ReLU(), MaskedConv2d(channels, channels, kernel, "B")]
        self.layers = nn.Sequential(*stack, head(channels, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GatedLayer(nn.Module):
    """One layer of the two stacks of a gated PixelCNN: (v, h) -> (v, h), each (N, C, H, W).

    vertical     v at row r reads rows r - k // 2 ... r of v, k columns wide: all of it lies in rows above
                 the pixel, because the first layer leaves row r out
    horizontal   h at column c reads columns c - k // 2 ... c of h in its own row (the first layer leaves c
                 out), and v at its own place
    Each goes through tanh * sigmoid (`gate`); h has a residual path, except in the first layer. What lies
    before a pixel is the rows above, a rectangle, and the left of its row, a line: no corner is cut off.

    >>> v, h = GatedLayer(1, 4, 3, first=True)(torch.zeros(5, 1, 8, 8), torch.zeros(5, 1, 8, 8))
    >>> v.shape, h.shape
    (torch.Size([5, 4, 8, 8]), torch.Size([5, 4, 8, 8]))
    """

    def __init__(self, inputs: int, channels: int, kernel: int, first: bool):
        super().__init__()
        self.first = first
        self.past = kernel // 2
        reach = self.past + (not first)
        self.vertical = nn.Conv2d(inputs, 2 * channels, (reach, kernel))
        self.horizontal = nn.Conv2d(inputs, 2 * channels, (1, reach))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        past, present = self.past, -int(self.first)  # padding by -1 drops the last row or column
        v = self.vertical(F.pad(v, (past, past, past, present)))
        from_h = self.horizontal(F.pad(h, (past, present, 0, 0)))
        new = self.out(gate(from_h + self.link(v)))
        return gate(v), new if self.first else h + new


class PixelCNN(CausalNet):
    """The gated PixelCNN, without a blind spot: (N, 1, H, W) -> (N, size, H, W).

    `layers` GatedLayers, then two 1 x 1 convolutions. After n layers a pixel has read n (k // 2) rows up
    and as many columns to either side: layers * (k // 2) >= max(H, W) - 1 reads all that comes before.
    Cost: one pass O(layers k^2 C^2 H W); sampling, D passes over the rows so far.
    Raises ValueError unless kernel is odd and at least 3.
    Van den Oord et al. 2016 (Conditional Image Generation with PixelCNN Decoders).

    >>> PixelCNN(17)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 17, 8, 8])
    """

    def __init__(self, size: int, channels: int = 32, kernel: int = 3, layers: int = 7):
        super().__init__()
        check_odd(kernel)
        self.size = size
        self.layers = nn.ModuleList(
            GatedLayer(channels if n else 1, channels, kernel, first=not n) for n in range(layers)
        )
        self.head = head(channels, size)

    def forward(self, x: Tensor) -> Tensor:
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h)


class RowLSTM(nn.Module):
    """An LSTM that goes down the rows, all columns at once: (N, C, H, W) -> (N, C, H, W).

    (o, f, i, g) = W_is * x_r + W_ss * h_(r-1) + b      convolutions along the row, of width k
    c_r = sigmoid(f) c_(r-1) + sigmoid(i) tanh(g),  h_r = sigmoid(o) tanh(c_r)
    W_is is masked: it reads columns c - k // 2 ... c. W_ss reads the finished row above on both sides.
    The rows come one after another, H steps; their columns in parallel. Cost: O(k C^2 H W).
    Van den Oord, Kalchbrenner and Kavukcuoglu 2016 (Pixel Recurrent Neural Networks).

    >>> RowLSTM(4, 3)(torch.zeros(5, 4, 8, 8)).shape
    torch.Size([5, 4, 8, 8])
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.past = kernel // 2
        self.input_to_state = nn.Conv2d(channels, 4 * channels, (1, self.past + 1))
        self.state_to_state = nn.Conv1d(channels, 4 * channels, kernel, padding=self.past, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        from_input = self.input_to_state(F.pad(x, (self.past, 0)))
        h = c = torch.zeros_like(x[:, :, 0])
        rows = []
        for gates in from_input.unbind(2):
            o, f, i, g = (gates + self.state_to_state(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            rows.append(h)
        return torch.stack(rows, 2)


class PixelRNN(CausalNet):
    """Row LSTMs on a masked convolution, each with a residual path: (N, 1, H, W) -> (N, size, H, W).

    One layer reads every row above, however far, but as a triangle: k // 2 more columns to either side for
    each row (the paper's diagonal LSTM reads all, at more cost). More layers widen it to the left alone: to
    the right it ends where the blind spot of masked convolutions begins.
    Cost: one pass O(layers k C^2 H W) in H steps a layer.
    Raises ValueError unless kernel is odd and at least 3.
    Van den Oord, Kalchbrenner and Kavukcuoglu 2016 (Pixel Recurrent Neural Networks).

    >>> PixelRNN(17)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 17, 8, 8])
    """

    def __init__(self, size: int, channels: int = 32, kernel: int = 3, layers: int = 2):
        super().__init__()
        check_odd(kernel)
        self.size = size
        self.front = MaskedConv2d(1, channels, kernel, "A")
        self.layers = nn.ModuleList(RowLSTM(channels, kernel) for _ in range(layers))
        self.head = head(channels, size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)
