"""Images in flows: layers that know that a point of D = C H W numbers is C channels of H x W pixels.

Points stay vectors (..., D), channel by channel and each channel row by row: x.unflatten(-1, (C, H, W)) is
the image. So these layers compose with all others, and obey the same contract. Shapes are (C, H, W).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowkit.bijection import Bijection, check_width
from flowkit.coupling import Coupling, Transformer, affine, checked_mask
from flowkit.linear import Permutation

Shape = tuple[int, int, int]


def squeeze(images: Tensor) -> Tensor:
    """Each block of 2 x 2 pixels becomes four channels: (..., C, H, W) -> (..., 4C, H/2, W/2).

    Channel 4 c + 2 i + j holds, of channel c, the pixels of row parity i and column parity j.
    Raises ValueError if H or W is odd. Dinh et al. 2017 (RealNVP), section 3.6.

    >>> squeeze(torch.arange(4.0).reshape(1, 2, 2)).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    >>> squeeze(torch.arange(16).reshape(1, 4, 4))[0].tolist()        # every second row, every second column
    [[0, 2], [8, 10]]
    """
    c, h, w = images.shape[-3:]
    if h % 2 or w % 2:
        raise ValueError(f"squeeze halves height and width, which must be even: got {h} x {w}")
    blocks = images.unflatten(-1, (w // 2, 2)).unflatten(-3, (h // 2, 2))  # (..., C, H/2, 2, W/2, 2)
    return blocks.movedim((-3, -1), (-4, -3)).reshape(*images.shape[:-3], 4 * c, h // 2, w // 2)


def unsqueeze(images: Tensor) -> Tensor:
    """The inverse of squeeze: (..., 4C, H, W) -> (..., C, 2H, 2W). Raises ValueError unless 4 divides 4C.

    >>> unsqueeze(torch.arange(4).reshape(4, 1, 1)).tolist()
    [[[0, 1], [2, 3]]]
    """
    c, h, w = images.shape[-3:]
    if c % 4:
        raise ValueError(f"unsqueeze takes a multiple of four channels, got {c}")
    blocks = images.unflatten(-3, (c // 4, 2, 2)).movedim((-4, -3), (-3, -1))  # (..., C/4, H, 2, W, 2)
    return blocks.reshape(*images.shape[:-3], c // 4, 2 * h, 2 * w)


def checkerboard_mask(shape: Shape, parity: int = 0) -> Tensor:
    """Keeps the pixels whose row + column is even (parity 0) or odd, in all channels: (C * H * W,) bool.

    Dinh et al. 2017 (RealNVP), section 3.4. Raises ValueError for images of one pixel.

    >>> checkerboard_mask((1, 2, 3)).tolist()
    [True, False, True, False, True, False]
    """
    _, h, w = shape
    board = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == parity % 2
    return checked_mask(board.expand(shape).reshape(-1))


def channel_mask(shape: Shape, first: bool = True) -> Tensor:
    """Keeps the first C // 2 channels, or all but those: (C * H * W,) bool. ValueError for one channel.

    >>> channel_mask((2, 1, 2)).tolist()
    [True, True, False, False]
    """
    c, h, w = shape
    return checked_mask(((torch.arange(c) < c // 2) == first).repeat_interleave(h * w))


class Squeeze(Permutation):
    """Squeezes images: a permutation of their numbers, as every reshaping is.

    forward   z = squeeze(x)        log abs det dz/dx = 0
    inverse   x = unsqueeze(z)      log abs det dx/dz = 0
    Cost: O(D) for each. No parameters. Raises ValueError if H or W is odd, or x does not have C H W
    dimensions. Dinh et al. 2017 (RealNVP), section 3.6.

    >>> Squeeze((1, 2, 4)).forward(torch.arange(8.0))[0].tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """

    def __init__(self, shape: Shape):
        super().__init__(squeeze(torch.arange(math.prod(shape)).reshape(shape)).reshape(-1))


class PerPixel(Bijection):
    """One bijection f of C dimensions, applied to the channels of each pixel.

    forward   z[:, i, j] = f(x[:, i, j])          log abs det dz/dx = sum over i, j of log abs det df
    inverse   x[:, i, j] = f^-1(z[:, i, j])       log abs det dx/dz = sum over i, j of log abs det df^-1
    The Jacobian has one C x C block for each pixel. Where f is linear, the blocks are equal and the sum is
    H W times the log-det of one. Around ActNorm, statistics are over all pixels of the batch.
    Cost: H W times that of f. Parameters: those of f. Raises ValueError if x does not have C H W dimensions.

    >>> from flowkit.elementwise import LeakyReLU
    >>> PerPixel((2, 1, 3), LeakyReLU(0.5)).forward(-torch.ones(6))[1].exp().item()      # (1/2)^6
    0.015625
    """

    def __init__(self, shape: Shape, f: Bijection):
        super().__init__()
        self.shape = shape
        self.f = f

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.f.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.f.inverse, z, context)

    def _each(self, way: Callable, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        c, h, w = self.shape
        check_width(x, c * h * w, type(self).__name__)
        pixels = x.unflatten(-1, (c, h * w)).mT  # (..., H W, C)
        z, log_det = way(pixels, None if context is None else context[..., None, :])
        return z.mT.flatten(-2), log_det.sum(-1)


class Split(Bijection):
    """Factors out: f goes on with the first `dim` dimensions, and the rest is left as it is.

    forward   z = (f(x_1 ... x_dim), x_dim+1 ... x_D)          log abs det dz/dx = that of f
    inverse   x = (f^-1(z_1 ... z_dim), z_dim+1 ... z_D)       log abs det dx/dz = that of f^-1
    The half that is factored out is not lost, nor drawn anew: it stands in the latent vector, behind what
    f makes of the other half. Nested, this is the multi-scale architecture.
    Cost: that of f, and O(D). Parameters: those of f. Raises ValueError if x has fewer than `dim` dimensions.
    Dinh et al. 2017 (RealNVP), section 3.6.

    >>> Split(1, Permutation([0])).forward(torch.tensor([1.0, 2.0]))
    (tensor([1., 2.]), tensor(0.))
    """

    def __init__(self, dim: int, f: Bijection):
        super().__init__()
        self.dim = dim
        self.f = f

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_first(self.f.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._on_first(self.f.inverse, z, context)

    def _on_first(self, way: Callable, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if x.ndim == 0 or x.shape[-1] < self.dim:
            raise ValueError(f"Split goes on with {self.dim} dimensions, got points {tuple(x.shape)}")
        z, log_det = way(x[..., : self.dim], context)
        return torch.cat((z, x[..., self.dim :]), -1), log_det


class ConvConditioner(nn.Module):
    """A small convolutional network as the conditioner of a Coupling: (..., D_A) -> (..., D_B * size).

    The kept numbers are laid out as an image, zero where others move; a 3 x 3 convolution, a 1 x 1 and a
    3 x 3 follow, with `hidden` channels between them; of the result the places that move are read. The last
    convolution starts at zero, so that the coupling starts as the identity.
    mask: (C * H * W,) bool, that of the coupling; size: parameters for each element that moves.
    Cost: O((9 C hidden + hidden^2 + 9 hidden C size) H W) a point. Channels of which nothing is kept
    are not read, and those of which nothing moves are not computed.
    Kingma and Dhariwal 2018 (Glow), section 3.3; theirs has 512 hidden channels.

    >>> shape = (2, 4, 4)
    >>> ConvConditioner(channel_mask(shape), shape, size=3)(torch.zeros(5, 16)).shape
    torch.Size([5, 48])
    """

    place: Tensor
    pick: Tensor

    def __init__(
        self,
        mask: Tensor,
        shape: Shape,
        size: int,
        hidden: int = 32,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        _, h, w = shape
        kept = checked_mask(mask).reshape(shape)
        read, made = kept[kept.any((1, 2))], ~kept[~kept.all((1, 2))]
        self.read_shape, self.made, self.size = (len(read), h, w), len(made), size
        self.register_buffer("place", read.reshape(-1).nonzero()[:, 0])
        self.register_buffer("pick", made.reshape(-1).nonzero()[:, 0])
        last = nn.Conv2d(hidden, len(made) * size, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.net = nn.Sequential(
            nn.Conv2d(len(read), hidden, 3, padding=1),
            activation(),
            nn.Conv2d(hidden, hidden, 1),
            activation(),
            last,
        )

    def forward(self, x_a: Tensor) -> Tensor:
        check_width(x_a, len(self.place), "this ConvConditioner")
        rows = x_a.reshape(-1, len(self.place))
        image = x_a.new_zeros(len(rows), math.prod(self.read_shape)).index_copy(-1, self.place, rows)
        params = self.net(image.unflatten(-1, self.read_shape))  # (N, channels * size, H, W)
        params = params.unflatten(1, (self.made, self.size)).movedim(2, -1).flatten(1, 3)
        return params.index_select(1, self.pick).reshape(*x_a.shape[:-1], len(self.pick) * self.size)


def conv_coupling(
    mask: Tensor,
    shape: Shape,
    hidden: int = 32,
    transformer: Transformer | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Coupling:
    """A Coupling of images with a convolutional conditioner; affine() unless another transformer is given.

    >>> shape = (1, 4, 4)
    >>> f = conv_coupling(checkerboard_mask(shape), shape)
    >>> x = torch.randn(5, 16)
    >>> bool((f.forward(x)[0] == x).all())      # the network starts at zero: the identity
    True
    """
    transformer = transformer or affine()
    conditioner = ConvConditioner(mask, shape, transformer.size, hidden, activation)
    return Coupling(mask, conditioner, transformer)
