"""Targets: exact densities that integrate to one, samples that follow them, entropies that hold."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from flowkit.lab import targets
from flowkit.lab.targets import integral

MAKERS = {
    "gaussian": lambda: targets.gaussian((1.0, -2.0), ((2.0, 0.9), (0.9, 0.5))),
    "maf_figure_1": targets.maf_figure_1,
    "checkerboard": targets.checkerboard,
    "eight_gaussians": targets.eight_gaussians,
    "two_moons": targets.two_moons,
    "two_spirals": targets.two_spirals,
    "rings": targets.rings,
}
EVERY = pytest.mark.parametrize("target", [make() for make in MAKERS.values()], ids=list(MAKERS))


def wide(extent, times=2.0):
    """A box `times` as long and as high around the same middle."""
    x0, x1, y0, y1 = extent
    dx, dy = (times - 1) / 2 * (x1 - x0), (times - 1) / 2 * (y1 - y0)
    return x0 - dx, x1 + dx, y0 - dy, y1 + dy


@EVERY
def test_density_integrates_to_one(target):
    assert integral(target.log_prob, wide(target.extent), 240) == pytest.approx(1, abs=1e-3)


@EVERY
def test_extent_holds_the_mass(target):
    assert integral(target.log_prob, target.extent, 200, torch.float64) > 1 - 1e-4


@EVERY
def test_samples_have_the_entropy(target):
    """Five standard errors of a mean of 20,000: one false alarm in two million."""
    surprise = -target.log_prob(target.sample(20_000, seed=3, dtype=torch.float64))
    standard_error = surprise.std().item() / math.sqrt(len(surprise))
    assert surprise.mean().item() == pytest.approx(target.entropy, abs=5 * standard_error + 1e-9)


@EVERY
def test_samples_fall_where_the_density_says(target):
    """The share of the samples right of a line, above a line, and both, against quadrature.

    The lines are off-centre: a sampler that is upside down would pass at the middle of a symmetric density.
    """
    x0, x1, y0, y1 = target.extent
    x = target.sample(20_000, seed=4)
    cut_x, cut_y = x0 + 0.625 * (x1 - x0), y0 + 0.625 * (y1 - y0)
    for share, part in (
        ((x[:, 0] > cut_x).double().mean(), (cut_x, x1, y0, y1)),
        ((x[:, 1] > cut_y).double().mean(), (x0, x1, cut_y, y1)),
        (((x > torch.tensor([cut_x, cut_y])).all(-1)).double().mean(), (cut_x, x1, cut_y, y1)),
    ):
        mass = integral(target.log_prob, part, 200)
        standard_error = math.sqrt(max(mass * (1 - mass), 1e-4) / len(x))
        assert share.item() == pytest.approx(mass, abs=5 * standard_error)


@EVERY
def test_sampler_is_reproducible(target):
    once = target.sample(50, seed=7)
    assert once.shape == (50, target.dim)
    assert once.dtype == torch.float32
    assert torch.equal(once, target.sample(50, seed=7))
    assert not torch.equal(once, target.sample(50, seed=8))
    torch.testing.assert_close(target.sample(50, seed=7, dtype=torch.float64).float(), once)
    stream = torch.Generator().manual_seed(7)
    assert torch.equal(target.sample(50, seed=stream), once)
    assert not torch.equal(target.sample(50, seed=stream), once)


@EVERY
def test_log_prob_keeps_shape_and_dtype(target):
    x = target.sample(6, seed=0)
    values = target.log_prob(x)
    assert values.dtype == torch.float32
    assert target.log_prob(x[0]).shape == ()
    assert torch.equal(target.log_prob(x.reshape(2, 3, target.dim)), values.reshape(2, 3))
    torch.testing.assert_close(target.log_prob(x.double()), values.double(), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="has shape"):
        target.log_prob(torch.zeros(4, target.dim + 1))


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (targets.maf_figure_1, 3.5310),
        (targets.checkerboard, 3.4657),
        (targets.eight_gaussians, 2.8319),
        (targets.two_moons, 1.4168),
        (targets.two_spirals, 3.2137),
        (targets.rings, 2.6490),
    ],
)
def test_entropy_is_the_documented_one(make, published):
    """The numbers of the docstrings."""
    assert make().entropy == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize("name", ["eight_gaussians", "two_moons", "two_spirals", "rings"])
def test_entropy_holds_on_a_wider_box_with_other_cells(name):
    target = MAKERS[name]()
    points, area = targets.grid(wide(target.extent, 1.2), 311, torch.float64)
    log_p = target.log_prob(points)
    assert -(log_p.exp() * log_p).sum().item() * area == pytest.approx(target.entropy, abs=1e-6)


def moon(u):
    return np.stack([np.cos(np.pi * u) - 0.5, np.sin(np.pi * u) - 0.25], -1)


def spiral(u):
    t = 3 * np.pi * np.sqrt(u)
    return np.stack([t * np.cos(t) / 3, t * np.sin(t) / 3], -1)


@pytest.mark.parametrize(
    ("make", "noise", "curve"),
    [(targets.two_moons, 0.15, moon), (targets.two_moons, 0.03, moon), (targets.two_spirals, 0.2, spiral)],
    ids=["moons", "thin moons", "spirals"],
)
def test_curve_density_against_brute_force(make, noise, curve):
    """At the ends of the curve, on it, beside it and far away, to 1e-6: by half a million midpoints."""
    target = make(noise)
    along = curve((np.arange(500_000) + 0.5) / 500_000)
    along = np.concatenate([along, -along])
    for point in [*curve(np.array([0.0, 0.3, 1.0])), (0.3, -0.4), (-3.0, 0.2)]:
        exponents = -((point - along) ** 2).sum(-1) / (2 * noise**2)
        expected = logsumexp(exponents) - math.log(len(along) * 2 * math.pi * noise**2)
        value = target.log_prob(torch.tensor(point, dtype=torch.float64)).item()
        assert value == pytest.approx(expected, rel=1e-8, abs=1e-6)


def test_moons_are_mirror_images():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    moons = targets.two_moons()
    torch.testing.assert_close(moons.log_prob(x), moons.log_prob(-x))


def test_checkerboard_samples_stay_on_dark_squares():
    board = targets.checkerboard()
    assert board.log_prob(board.sample(200_000, seed=1)).isfinite().all()
    corners = torch.tensor([[-3.9, -3.9], [-3.9, 3.9], [5.0, 5.0], [-1.0, -1.0], [-1.0, 1.0]])
    assert board.log_prob(corners).isfinite().tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("dim", [1, 7])
def test_gaussian_agrees_with_torch(dim):
    generator = torch.Generator().manual_seed(dim)
    factor = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.mT + torch.eye(dim, dtype=torch.float64)
    mean = torch.randn(dim, generator=generator, dtype=torch.float64)
    ours = targets.gaussian(mean, covariance)
    theirs = torch.distributions.MultivariateNormal(mean, covariance)
    x = torch.randn(3, 4, dim, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    assert ours.entropy == pytest.approx(theirs.entropy().item())
    assert ours.extent is None
    torch.testing.assert_close(
        ours.sample(50_000, dtype=torch.float64).T.cov().reshape(dim, dim), covariance, rtol=0.1, atol=0.2
    )


def test_samples_in_float64_have_its_precision():
    x = targets.gaussian().sample(100, dtype=torch.float64)
    assert not torch.equal(x, x.float().double())


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (((1.0, 2.0), (2.0, 1.0)), "positive definite"),
        (((1.0, 0.5), (0.0, 1.0)), "symmetric"),
        ((1.0, 1.0), "have shapes"),
    ],
)
def test_gaussian_refuses_what_is_no_covariance(covariance, message):
    with pytest.raises(ValueError, match=message):
        targets.gaussian((0.0, 0.0), covariance)


def test_integral_sees_missing_and_surplus_mass():
    normal = targets.gaussian()
    assert integral(lambda x: normal.log_prob(x) + math.log(1.01), normal.extent) == pytest.approx(
        1.01, abs=1e-4
    )
    assert integral(normal.log_prob, (0.0, 5.0, -5.0, 5.0)) == pytest.approx(0.5, abs=1e-4)


def test_grid_is_laid_out_as_an_image():
    points, area = targets.grid((0.0, 4.0, 0.0, 2.0), 2)
    assert points.tolist() == [[[1.0, 0.5], [3.0, 0.5]], [[1.0, 1.5], [3.0, 1.5]]]
    assert area == 2.0


def test_digits_are_split_and_dequantized():
    data = targets.digits(seed=0)
    assert [tuple(part.shape) for part in (data.train, data.valid, data.test)] == [
        (1000, 64),
        (350, 64),
        (447, 64),
    ]
    assert [len(part) for part in (data.train_labels, data.valid_labels, data.test_labels)] == [
        1000,
        350,
        447,
    ]
    pixels = torch.cat([data.train, data.valid, data.test])
    assert pixels.min() >= 0
    assert pixels.max() < 17
    assert pixels.floor().unique().tolist() == list(range(17))
    assert (pixels - pixels.floor()).mean().item() == pytest.approx(
        0.5, abs=5 / math.sqrt(12 * pixels.numel())
    )
    assert torch.equal(data.train, targets.digits(seed=0).train)
    assert not torch.equal(data.train, targets.digits(seed=1).train)


def test_digits_keep_their_labels():
    """A nearest-mean classifier gets far more than one in ten right only if labels followed their images."""
    data = targets.digits(seed=2)
    means = torch.stack([data.train[data.train_labels == k].mean(0) for k in range(10)])
    guess = torch.cdist(data.test, means).argmin(-1)
    assert (guess == data.test_labels).double().mean() > 0.8
