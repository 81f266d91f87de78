"""Dequantization, the three Jacobian terms of pixels, and bounds on the probability of whole numbers."""

import math

import pytest
import torch
from torch.distributions import Normal

from flowkit import Compose, Flow, StandardNormal
from flowkit.coupling import coupling_stack
from flowkit.elementwise import Affine, Logit
from flowkit.lab.nets import mlp
from flowkit.lab.targets import digits
from flowkit.lab.training import bits_per_dim as bits_of_levels
from flowkit.pixels import Dequantized, PixelHistogram, PixelLogit, bits_per_dim, dequantize, quantize


def levels_of(n, dim, levels=17, seed=0, dtype=torch.float64):
    return torch.randint(levels, (n, dim), generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dequantized_levels_are_told_again(dtype):
    x = levels_of(2000, 50, levels=256, dtype=dtype)
    y = dequantize(x, torch.Generator().manual_seed(1))
    assert y.dtype == dtype
    assert torch.equal(quantize(y, 256), x)


def test_the_noise_is_uniform():
    u = dequantize(torch.zeros(100_000, dtype=torch.float64), torch.Generator().manual_seed(1))
    assert u.min() >= 0
    assert u.max() < 1
    for power in (1, 2, 3):  # E u^k = 1 / (k + 1)
        assert u.pow(power).mean().item() == pytest.approx(1 / (power + 1), abs=0.005)


@pytest.mark.parametrize("x", [torch.tensor([1.5]), torch.tensor([1])])
def test_only_whole_numbers_are_dequantized(x):
    with pytest.raises(ValueError, match="whole numbers"):
        dequantize(x)
    with pytest.raises(ValueError, match="whole numbers"):
        Dequantized(Flow(StandardNormal(1), PixelLogit(17)), levels=17).log_prob(x)


def test_pixel_logit_is_three_maps_in_a_row():
    """Each with its Jacobian term: the division, the squeezing, and the logit."""
    x = dequantize(levels_of(20, 6), torch.Generator().manual_seed(1))
    divide, squeeze = Affine(6).double(), Affine(6).double()
    with torch.no_grad():
        divide.log_scale.fill_(-math.log(17))
        squeeze.log_scale.fill_(math.log(0.9))
        squeeze.shift.fill_(0.05)
    expected = Compose(divide, squeeze, Logit()).forward(x)
    torch.testing.assert_close(PixelLogit(17).forward(x), expected, rtol=1e-12, atol=1e-12)


def test_pixel_logit_holds_black_and_white_pixels_in_float32():
    f = PixelLogit(256)
    x = torch.tensor([[0.0, 255.99998]])
    z, log_det = f.forward(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(f.inverse(z)[0], x, rtol=1e-5, atol=1e-4)
    far, log_det = f.inverse(torch.tensor([[-1e4, 1e4]]))
    assert f.domain.check(far).all()
    assert log_det.item() == pytest.approx(-2e4, rel=1e-3)
    assert f.forward(far)[0].isfinite().all()


@pytest.mark.parametrize(("levels", "alpha"), [(0, 0.05), (-1, 0.05), (17, 0.5), (17, -0.1), (17, math.nan)])
def test_pixel_logit_refuses_what_has_no_inverse(levels, alpha):
    with pytest.raises(ValueError, match="alpha < 1/2"):
        PixelLogit(levels, alpha)


def test_bits_per_dim_on_either_scale():
    """A uniform density on 17 levels costs log2(17) bits, as do its pixels divided by 17."""
    assert bits_per_dim(torch.tensor(0.0), 64, levels=17).item() == pytest.approx(math.log2(17))
    assert bits_per_dim(torch.tensor(-64 * math.log(17)), 64).item() == pytest.approx(math.log2(17))


def test_all_jacobian_terms_are_counted_on_digits():
    """The logit-normal density of x / 17, and the logistic base that makes pixels uniform: log2(17) bits."""
    x = digits(dtype=torch.float64).valid[:50]
    p = x / 17
    by_hand = (Normal(0, 1).log_prob(p.log() - (1 - p).log()) - p.log() - (1 - p).log()).sum(-1)
    f = PixelLogit(17, alpha=0.0)
    log_prob = Flow(StandardNormal(64), f).log_prob(x)
    torch.testing.assert_close(log_prob, by_hand - 64 * math.log(17), rtol=1e-10, atol=1e-8)
    bits = bits_per_dim(log_prob, 64)
    torch.testing.assert_close(bits, bits_per_dim(by_hand, 64, levels=17))
    torch.testing.assert_close(bits, bits_of_levels(log_prob, 64))

    z, log_det = f.forward(x)
    logistic = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)
    uniform = bits_per_dim(logistic.sum(-1) + log_det, 64)
    assert (uniform - math.log2(17)).abs().max() < 1e-12


def test_the_pixel_histogram_is_its_frequencies():
    """Under a uniform base, the density in the cell of a level is the share of that level."""
    x = levels_of(200, 3, levels=5)
    x[:, 2] = 4.0
    f = PixelHistogram.fitted(x, levels=5, pseudo_count=1.0)
    log_prob = f.forward(dequantize(x, torch.Generator().manual_seed(1)))[1] - 3 * math.log(5)
    counts = torch.stack([(x == k).sum(0) for k in range(5)]) + 1.0
    shares = (counts / counts.sum(0)).double()
    expected = sum(shares[x[:, i].long(), i].log() for i in range(3))
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_the_pixel_histogram_makes_pixels_uniform_and_starts_as_the_identity():
    x = dequantize(levels_of(5000, 1).clamp(max=6), torch.Generator().manual_seed(1))
    z = PixelHistogram.fitted(x, levels=17).forward(x)[0]
    ranks = (z.flatten().sort()[0] / 17 - torch.linspace(0, 1, 5000)).abs().max()
    assert ranks < 0.03  # the Kolmogorov-Smirnov distance of 5000 uniform points is below that
    assert (PixelHistogram(1, 17).double().forward(x)[0] - x).abs().max() < 1e-12


def test_the_pixel_histogram_gives_each_level_a_share():
    x = torch.zeros(1000, 1, dtype=torch.float64)
    f = PixelHistogram.fitted(x, levels=17, pseudo_count=0.0)
    log_share = f.forward(torch.arange(17.0).double()[:, None] + 0.5)[1] - math.log(17)
    assert log_share.exp().sum().item() == pytest.approx(1)
    assert log_share[1:].min() > math.log(1e-4)
    assert log_share[0] > math.log(0.99)


MEAN, STD = 3.3, 1.5


def gaussian_flow():
    """N(3.3, 1.5^2) on the scale of the levels."""
    f = Affine(1).double()
    with torch.no_grad():
        f.log_scale.fill_(-math.log(STD))
        f.shift.fill_(-MEAN / STD)
    return Flow(StandardNormal(1).double(), f)


def log_mass(x):
    """log P(x): the mass of the cell [x, x + 1)."""
    cdf = Normal(torch.tensor(MEAN, dtype=torch.float64), STD).cdf
    return (cdf(x + 1) - cdf(x)).log()[:, 0]


X = torch.arange(8.0, dtype=torch.float64)[:, None]


def test_uniform_noise_bounds_the_probability_by_a_known_gap():
    """E log p(x + u) of a Gaussian, from E (x + u - m)^2 = (x + 1/2 - m)^2 + 1/12."""
    torch.manual_seed(0)
    model = Dequantized(gaussian_flow(), levels=8)
    mean = model.log_prob(X.expand(40_000, 8, 1)).mean(0)
    spread = (X[:, 0] + 0.5 - MEAN).square() + 1 / 12
    expected = -spread / (2 * STD**2) - math.log(STD) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.02)
    assert (expected < log_mass(X)).all()


def test_many_draws_give_the_probability_itself():
    torch.manual_seed(0)
    model = Dequantized(gaussian_flow(), levels=8)
    torch.testing.assert_close(model.estimate(X, 20_000), log_mass(X), rtol=0, atol=0.03)


class CellNoise(torch.nn.Module):
    """The best noise: q(u | x) = p(x + u) / P(x), by the inverse CDF, as a Flow of the unit cube has it."""

    def rsample_with_log_prob(self, shape, context):
        normal = Normal(torch.tensor(MEAN, dtype=torch.float64), STD)
        x = (context + 1) / 2 * 7
        low, high = normal.cdf(x), normal.cdf(x + 1)
        u = normal.icdf(low + (high - low) * torch.rand(*shape, 1, dtype=torch.float64)) - x
        return u, (normal.log_prob(x + u) - (high - low).log()).sum(-1)


def test_with_the_posterior_as_noise_every_draw_is_the_probability():
    torch.manual_seed(0)
    model = Dequantized(gaussian_flow(), levels=8, noise=CellNoise())
    for _ in range(3):
        torch.testing.assert_close(model.log_prob(X), log_mass(X), rtol=1e-9, atol=1e-9)


def test_noise_that_learns_tightens_the_bound():
    """From a bad start, a few steps on a coarse grid of levels bring the mean above that of uniform noise."""
    torch.manual_seed(0)
    flow = gaussian_flow()
    net = coupling_stack(2, 2, lambda i, o: mlp(i, o, hidden=(16,)), context_dim=2)
    noise = Flow(StandardNormal(2), Compose(Logit(), Affine(2), net)).double()
    pair = Flow(StandardNormal(2).double(), _Twice(flow.bijection))
    learned, uniform = Dequantized(pair, 8, noise), Dequantized(pair, 8)
    x = torch.cartesian_prod(X[:, 0], X[:, 0])[::3].contiguous()
    before = learned.log_prob(x.expand(200, -1, 2)).mean().item()
    optimizer = torch.optim.Adam(noise.parameters(), lr=2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        (-learned.log_prob(x.expand(8, -1, 2)).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        after = learned.log_prob(x.expand(2000, -1, 2)).mean().item()
        flat = uniform.log_prob(x.expand(2000, -1, 2)).mean().item()
    exact = (log_mass(x[:, :1]) + log_mass(x[:, 1:])).mean().item()
    assert before < flat < after < exact + 0.005


class _Twice(torch.nn.Module):
    """One map of a number on each of two."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x, context=None):
        z, log_det = self.f.forward(x[..., None])
        return z[..., 0], log_det.sum(-1)


def test_samples_are_levels():
    torch.manual_seed(0)
    x = Dequantized(Flow(StandardNormal(3), PixelLogit(5)), levels=5).sample((400,))
    assert x.unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
