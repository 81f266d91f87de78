"""Glow's step and its scales against peers and by hand; temperature, attributes and interpolation."""

import math

import pytest
import torch

from flowkit import Compose, Flow, StandardNormal
from flowkit.coupling import additive, coupling_stack
from flowkit.elementwise import Affine
from flowkit.glow import (
    Conv1x1,
    Glow,
    GlowStep,
    add_attribute,
    attribute_vector,
    interpolate,
    sample_at,
)
from flowkit.images import PerPixel, Split, squeeze
from flowkit.lab.targets import digits
from flowkit.lab.training import fit, mean_log_prob
from flowkit.linear import Dense
from flowkit.pixels import Dequantized, PixelHistogram, PixelLogit, bits_per_dim, quantize


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stir(f, seed=0, std=0.3):
    """Moves the parameters of f, in float64, away from where they start."""
    f = f.double()
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * randn(*parameter.shape, seed=seed)
    return f


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


SHAPE = (3, 4, 5)


def test_the_1x1_convolution_is_torchs_and_its_log_det_has_a_factor_of_all_pixels():
    f = stir(Conv1x1(SHAPE))
    x = randn(6, 60)
    z, log_det = f.forward(x)
    image = torch.nn.functional.conv2d(x.unflatten(1, SHAPE), f.plu.matrix()[..., None, None], f.plu.bias)
    close(z, image.flatten(1))
    close(log_det, 20 * torch.linalg.slogdet(f.plu.matrix()).logabsdet.expand(6))


def test_the_1x1_convolution_is_one_linear_map_on_each_pixel():
    f = stir(Conv1x1(SHAPE))
    x = randn(2, 6, 60)
    for way in ("forward", "inverse"):
        close(getattr(f, way)(x), getattr(PerPixel(SHAPE, f.plu), way)(x))


def test_the_1x1_convolution_starts_as_an_orthogonal_matrix():
    torch.manual_seed(0)
    w = Conv1x1((8, 2, 2)).plu.matrix()
    torch.testing.assert_close(w @ w.mT, torch.eye(8), rtol=0, atol=1e-5)
    assert (w.abs() > 0.01).sum() > 40  # it mixes


def test_the_1x1_convolution_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms").OneByOneConvolution(3).double()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(randn(*parameter.shape))
    lower, upper = peer._create_lower_upper()
    f = Conv1x1(SHAPE).double()
    permutation = peer.permutation._permutation
    with torch.no_grad():  # theirs is z = L U P x + b, ours P L U x + b: compare behind their permutation
        f.plu.weight.copy_(lower.tril(-1) + upper.triu(1))
        f.plu.log_diagonal.copy_(upper.diagonal().log())
        f.plu.bias.copy_(peer.bias)
        f.plu.sign.fill_(1)
        f.plu.order.copy_(torch.arange(3))
    x = randn(6, *SHAPE, seed=1)
    z, log_det = f.forward(x[:, permutation].flatten(1))
    expected, expected_log_det = peer(x)
    close(z, expected.flatten(1))
    close(log_det, expected_log_det)


def test_the_1x1_convolution_agrees_with_normflows():
    peer = pytest.importorskip("normflows").flows.Invertible1x1Conv(3, use_lu=True).double()
    f = stir(Conv1x1(SHAPE))
    lower, upper = f.plu.factors()
    with torch.no_grad():
        f.plu.bias.zero_()
        peer.P.copy_(torch.eye(3).double()[f.plu.order])
        peer.L.copy_(lower)
        peer.U.copy_(upper.triu(1))
        peer.log_S.copy_(f.plu.log_diagonal)
        peer.sign_S.copy_(f.plu.sign)
    x = randn(6, 60, seed=1)
    expected, expected_log_det = peer.inverse(x.unflatten(1, SHAPE))  # their inverse normalizes
    z, log_det = f.forward(x)
    close(z, expected.flatten(1))
    close(log_det, expected_log_det.expand(6))
    close(f.inverse(z)[0], peer(expected)[0].flatten(1))


def started(f, dim, seed=0):
    """f in float64, moved, its ActNorms having met a batch."""
    f.double().forward(2 * randn(50, dim, seed=seed) + 1)
    return stir(f, seed)


def test_a_step_has_three_log_dets():
    torch.manual_seed(0)
    step = started(GlowStep((4, 3, 3), hidden=6), 36)
    x = randn(5, 36, seed=1)
    act_norm, conv, coupling = step.bijections
    y, _ = act_norm.forward(x)
    y, _ = conv.forward(y)
    moved = coupling.forward(y)[1]
    by_hand = 9 * act_norm.f.log_scale.sum() + 9 * torch.linalg.slogdet(conv.plu.matrix()).logabsdet + moved
    close(step.forward(x)[1], by_hand)


def test_glow_splits_half_of_the_channels_at_each_level():
    """Two levels by hand: squeeze, step, keep the second half, squeeze the first, step."""
    torch.manual_seed(0)
    f = started(Glow((1, 4, 4), levels=2, steps=1, hidden=6), 16)
    top, split = f.bijections[1], f.bijections[2]
    assert isinstance(split, Split)
    x = randn(5, 16, seed=1)
    y, log_det = top.forward(squeeze(x.unflatten(1, (1, 4, 4))).flatten(1))
    first, second = y.unflatten(1, (4, 2, 2)).chunk(2, 1)
    z, deeper = split.f.bijections[1].forward(squeeze(first).flatten(1))
    close(f.forward(x), (torch.cat((z, second.flatten(1)), 1), log_det + deeper))


@pytest.mark.parametrize(("shape", "levels"), [((1, 8, 8), 3), ((3, 4, 8), 2), ((2, 2, 2), 1)])
def test_scales_have_the_shapes_of_the_levels_and_lose_nothing(shape, levels):
    torch.manual_seed(0)
    f = Glow(shape, levels, steps=1, hidden=4)
    c, h, w = shape
    dim = c * h * w
    z = f.forward(torch.randn(5, dim))[0]
    scales = f.scales(z)
    n = 2**levels
    expected = [(2 * n * c, h // n, w // n)]
    expected += [(2**k * c, h // 2**k, w // 2**k) for k in range(levels - 1, 0, -1)]
    assert [tuple(part.shape[1:]) for part in scales] == expected
    assert torch.equal(torch.cat([part.flatten(1) for part in scales], 1), z)
    assert f.scales(z[0])[0].shape == scales[0].shape[1:]


def test_noise_in_the_last_scale_leaves_the_coarse_half_as_it_is():
    """Images that share the coarse latents share the half that level 1 sends on, and differ in the other."""
    torch.manual_seed(0)
    f = started(Glow((1, 4, 4), levels=2, steps=2, hidden=6), 16)
    z = randn(16, seed=1)
    other = torch.cat((z[:8], randn(8, seed=2)))
    level_one = Compose(*f.bijections[:-1])
    halves, others = (level_one.forward(f.inverse(z)[0])[0].chunk(2) for z in (z, other))
    torch.testing.assert_close(halves[0], others[0], rtol=1e-10, atol=1e-10)
    assert (halves[1] - others[1]).abs().max() > 0.1


def test_glow_refuses_images_that_do_not_halve():
    for shape, levels in (((1, 8, 8), 4), ((1, 6, 8), 2), ((1, 8, 8), 0)):
        with pytest.raises(ValueError, match="do not fit"):
            Glow(shape, levels, steps=1)


def gaussian_flow():
    """x = A^-1 (z - b): N(-A^-1 b, (A'A)^-1)."""
    f = Dense(3).double()
    with torch.no_grad():
        f.weight.copy_(randn(3, 3) + 2 * torch.eye(3))
        f.bias.copy_(randn(3, seed=1))
    return Flow(StandardNormal(3).double(), f)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_temperature_scales_the_spread_of_a_gaussian(temperature):
    """p^(1 / T^2) of a Gaussian has T^2 times its covariance, and its mean."""
    torch.manual_seed(0)
    flow = gaussian_flow()
    a, b = flow.bijection.weight.detach(), flow.bijection.bias.detach()
    x = sample_at(flow, temperature, (200_000,))
    assert not x.requires_grad
    torch.testing.assert_close(x.mean(0), -torch.linalg.solve(a, b), rtol=0, atol=0.02)
    torch.testing.assert_close(x.T.cov(), temperature**2 * torch.linalg.inv(a.T @ a), rtol=0.02, atol=0.01)


def test_temperature_zero_is_the_image_of_the_centre_and_negative_none():
    flow = gaussian_flow()
    close(sample_at(flow, 0.0, (2,)), flow.bijection.inverse(torch.zeros(2, 3).double())[0])
    with pytest.raises(ValueError, match="at least 0"):
        sample_at(flow, -1.0)


def test_with_additive_couplings_the_tempered_density_is_a_power():
    """log p_T(x) - log p(x) / T^2 is one number, whatever x."""
    temperature = 0.7
    f = coupling_stack(2, 4, lambda i, o: torch.nn.Linear(i, o), additive()).double()
    x = randn(6, 2)
    plain = Flow(StandardNormal(2).double(), f).log_prob(x)
    cooler = Affine(2).double()
    torch.nn.init.constant_(cooler.log_scale, -math.log(temperature))  # z / T is standard normal
    tempered = Flow(StandardNormal(2).double(), Compose(f, cooler)).log_prob(x)
    gap = tempered - plain / temperature**2
    close(gap, gap[0].expand(6))


def curved():
    return stir(coupling_stack(4, 4, lambda i, o: torch.nn.Linear(i, o)), std=0.2)


def test_attributes_move_latent_means():
    f = curved()
    x_with, x_without = randn(30, 4) + 1, randn(20, 4, seed=1)
    vector = attribute_vector(f, x_with, x_without)
    close(vector, f.forward(x_with)[0].mean(0) - f.forward(x_without)[0].mean(0))
    moved = add_attribute(f, x_without, vector, alpha=1.0)
    torch.testing.assert_close(f.forward(moved)[0].mean(0), f.forward(x_with)[0].mean(0))
    torch.testing.assert_close(add_attribute(f, x_with, vector, alpha=0.0), x_with)
    there = add_attribute(f, x_with, vector, alpha=2.0)
    torch.testing.assert_close(add_attribute(f, there, vector, alpha=-2.0), x_with)


def test_interpolation_is_straight_in_the_latent_space():
    f = curved()
    x0, x1 = randn(5, 4), randn(5, 4, seed=1)
    path = interpolate(f, x0, x1, steps=5)
    assert path.shape == (5, 5, 4)
    torch.testing.assert_close(path[0], x0)
    torch.testing.assert_close(path[-1], x1)
    z = f.forward(path)[0]
    torch.testing.assert_close(z[1:] - z[:-1], (z[-1] - z[0]).expand(4, 5, 4) / 4)
    assert not torch.allclose(path[2], (x0 + x1) / 2, atol=1e-3)  # bent in the space of the data
    assert interpolate(f, x0[0], x1[0], steps=2).shape == (2, 4)


@pytest.mark.slow
def test_a_few_steps_of_glow_beat_independent_pixels_on_digits():
    data = digits()
    histogram = PixelHistogram.fitted(data.train, data.levels)
    independent = histogram.forward(data.valid)[1].mean() - 64 * math.log(data.levels)
    torch.manual_seed(0)
    glow = Glow((1, 8, 8), levels=2, steps=2, hidden=16)
    flow = Flow(StandardNormal(64), Compose(histogram, PixelLogit(data.levels, 1e-3), glow))
    fit(Dequantized(flow, data.levels), data.train.floor(), 60, batch=128, lr=3e-3, clip=5.0, progress=False)
    bits = bits_per_dim(torch.tensor(mean_log_prob(flow, data.valid)), 64)
    assert bits < bits_per_dim(independent, 64) - 0.1
    assert bits > 1.5
    assert quantize(flow.sample((20,)), data.levels).isfinite().all()
