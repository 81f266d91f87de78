"""Squeezes, masks, splits and convolutional conditioners: against torch, the peers, and zero patterns."""

import pytest
import torch

from flowkit import Compose
from flowkit.coupling import Coupling, affine
from flowkit.images import (
    ConvConditioner,
    PerPixel,
    Split,
    Squeeze,
    channel_mask,
    checkerboard_mask,
    conv_coupling,
    squeeze,
    unsqueeze,
)
from flowkit.linear import Dense
from flowkit.normalization import ActNorm
from flowkit.splines import rational_quadratic


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stir(f, seed=0, std=0.5):
    """Moves the parameters of f, in float64, away from where they start."""
    f = f.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return f


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 6), (2, 8, 2)])
def test_squeeze_and_unsqueeze_are_torchs_pixel_shuffles(lead, shape):
    x = randn(*lead, *shape)
    y = squeeze(x)
    assert torch.equal(y, torch.nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(unsqueeze(y), x)


def test_an_empty_batch_is_squeezed():
    """Where torch's pixel_unshuffle hands it back as it was."""
    assert squeeze(torch.zeros(0, 3, 4, 6)).shape == (0, 12, 2, 3)
    assert unsqueeze(torch.zeros(0, 12, 2, 3)).shape == (0, 3, 4, 6)


def test_squeeze_is_that_of_the_peers():
    x = randn(5, 3, 4, 6)
    assert torch.equal(squeeze(x), pytest.importorskip("nflows.transforms").SqueezeTransform()(x)[0])
    assert torch.equal(squeeze(x), pytest.importorskip("normflows").flows.Squeeze().inverse(x)[0])


def test_squeeze_as_a_layer_squeezes_flat_points():
    x = randn(5, 3, 4, 6)
    z, log_det = Squeeze((3, 4, 6)).forward(x.flatten(1))
    assert torch.equal(z.unflatten(1, (12, 2, 3)), squeeze(x))
    assert not log_det.any()


def test_what_cannot_be_squeezed_says_so():
    with pytest.raises(ValueError, match="even: got 3 x 4"):
        squeeze(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="even: got 4 x 5"):
        Squeeze((1, 4, 5))
    with pytest.raises(ValueError, match="multiple of four"):
        unsqueeze(torch.zeros(6, 2, 2))


def test_checkerboards_are_complements_and_alternate():
    even, odd = (checkerboard_mask((2, 3, 4), parity).reshape(2, 3, 4) for parity in (0, 1))
    assert torch.equal(even, ~odd)
    assert even[0, 0, 0]
    assert (even[:, 1:] != even[:, :-1]).all()
    assert (even[:, :, 1:] != even[:, :, :-1]).all()
    assert torch.equal(even[0], even[1])


def test_a_squeezed_checkerboard_is_a_mask_of_channels():
    """The parities of the checkerboard are channels after the squeeze: 0 and 3 against 1 and 2."""
    kept = squeeze(checkerboard_mask((1, 4, 4)).reshape(1, 4, 4).double())
    assert [bool(channel.all()) for channel in kept] == [True, False, False, True]
    assert kept.sum() == 8


@pytest.mark.parametrize("channels", [2, 5])
def test_channel_masks_keep_whole_channels(channels):
    first, rest = (channel_mask((channels, 2, 3), first).reshape(channels, 6) for first in (True, False))
    assert torch.equal(first, ~rest)
    assert first.all(1).sum() == first.any(1).sum() == channels // 2


@pytest.mark.parametrize("mask", [lambda: channel_mask((1, 2, 2)), lambda: checkerboard_mask((3, 1, 1))])
def test_a_mask_that_keeps_nothing_or_all_is_refused(mask):
    with pytest.raises(ValueError, match="one to keep and one to move"):
        mask()


def test_per_pixel_is_a_block_diagonal_jacobian_with_one_block_a_pixel():
    shape = (3, 2, 2)
    f = PerPixel(shape, stir(Dense(3)))
    x = randn(12)
    jacobian = torch.autograd.functional.jacobian(lambda x: f.forward(x)[0], x).reshape(3, 4, 3, 4)
    for i in range(4):
        for j in range(4):
            block = jacobian[:, i, :, j]
            assert torch.equal(block, f.f.weight if i == j else torch.zeros(3, 3).double())
    log_det = torch.linalg.slogdet(f.f.weight).logabsdet
    torch.testing.assert_close(f.forward(x)[1], 4 * log_det, rtol=1e-12, atol=1e-12)  # H W blocks


def test_act_norm_per_pixel_is_over_all_pixels_and_agrees_with_nflows():
    x = 3 * randn(20, 2, 4, 3) + 1
    f = PerPixel((2, 4, 3), ActNorm(2)).double()
    z, log_det = f.forward(x.flatten(1))
    image = z.unflatten(1, (2, 4, 3))
    torch.testing.assert_close(image.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(image.transpose(0, 1).flatten(1).std(1), torch.ones(2).double())
    peer = pytest.importorskip("nflows.transforms").ActNorm(2).double()
    expected, expected_log_det = peer(x)
    torch.testing.assert_close(image, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-10, atol=1e-10)


def test_split_leaves_the_rest_as_it_is():
    f = Split(3, stir(Dense(3)))
    x = randn(5, 7)
    z, log_det = f.forward(x)
    assert torch.equal(z[:, 3:], x[:, 3:])
    torch.testing.assert_close((z[:, :3], log_det), f.f.forward(x[:, :3]))
    back, _ = f.inverse(z)
    assert torch.equal(back[:, 3:], x[:, 3:])  # exactly: it is kept, not drawn again
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)


def test_split_refuses_points_that_are_too_short():
    with pytest.raises(ValueError, match=r"goes on with 3 dimensions, got points \(5, 2\)"):
        Split(3, Compose()).forward(torch.zeros(5, 2))


MASKS = {
    "checkerboard": checkerboard_mask((2, 4, 4)),
    "odd": checkerboard_mask((2, 4, 4), 1),
    "first": channel_mask((2, 4, 4)),
    "last": channel_mask((2, 4, 4), first=False),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("transformer", [affine(), rational_quadratic(3)], ids=["affine", "spline"])
def test_a_conv_coupling_reads_what_is_kept_and_moves_the_rest(name, transformer):
    """The zero pattern of its Jacobian: 1 for kept, diagonal where both move, neighbours read only."""
    mask = MASKS[name]
    f = stir(conv_coupling(mask, (2, 4, 4), 8, transformer, torch.nn.Tanh))
    x = 0.5 * randn(32)
    jacobian = torch.autograd.functional.jacobian(lambda x: f.forward(x)[0], x)
    assert torch.equal(jacobian[mask], torch.eye(32).double()[mask])
    moved = jacobian[~mask][:, ~mask]
    assert torch.equal(moved != 0, torch.eye(len(moved)).bool())
    row, column = (torch.arange(32) % 16) // 4, torch.arange(32) % 4
    near = ((row[:, None] - row).abs() <= 2) & ((column[:, None] - column).abs() <= 2)  # two 3 x 3 kernels
    reads = jacobian[~mask][:, mask] != 0
    assert torch.equal(reads, near[~mask][:, mask])


def test_the_conditioner_is_a_plain_convolution_of_the_kept_channels():
    """Parameters of element (c, i, j) stand at (c, i, j) of its output, `size` channels for each c."""
    net = stir(ConvConditioner(MASKS["first"], (2, 4, 4), size=3, hidden=5))
    x = randn(2, 6, 16)
    expected = net.net(x.reshape(12, 1, 4, 4)).reshape(2, 6, 3, 16).mT
    torch.testing.assert_close(net(x).unflatten(-1, (16, 3)), expected, rtol=1e-12, atol=1e-12)
    assert net.net[0].in_channels == 1
    assert net.net[-1].out_channels == 3


def test_the_conditioner_leads_any_batch():
    net = stir(ConvConditioner(MASKS["odd"], (2, 4, 4), size=2, hidden=5))
    x = randn(2, 3, 16)
    torch.testing.assert_close(net(x)[1, 2], net(x[1, 2]), rtol=1e-12, atol=1e-12)
    assert net(x[:0]).shape == (0, 3, 32)
    with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 16\)"):
        net(torch.zeros(32).double())


def test_a_coupling_of_another_mask_is_told_apart():
    """A conditioner made for more kept elements than the coupling hands over."""
    mask = checkerboard_mask((1, 4, 4))
    mask[0] = False
    wrong = Coupling(mask, ConvConditioner(checkerboard_mask((1, 4, 4)), (1, 4, 4), 2), affine())
    with pytest.raises(ValueError, match="ConvConditioner takes points"):
        wrong.forward(torch.zeros(16))
