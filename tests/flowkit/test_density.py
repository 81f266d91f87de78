"""Every density integrates to one and agrees with SciPy's; divergences are what they are defined as."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats

from flowkit import density, kernels
from flowkit.change_of_variables import integrate, sin_log_density
from flowkit.kernels import KERNELS

C2 = np.array([[2.0, 0.6], [0.6, 0.5]])
C3 = np.array([[1.0, 0.3, -0.2], [0.3, 2.0, 0.5], [-0.2, 0.5, 0.7]])
M3 = np.array([0.5, -1.0, 2.0])
EACH_KERNEL = pytest.mark.parametrize("kernel", KERNELS)


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def draw(n, dim, seed=0):
    """Two clusters, apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) * 0.5 + 2 * rng.integers(0, 2, (n, 1))


def mass(log_density, dim, low=-6.0, high=8.0, n=700):
    """The integral over a box, by the midpoint rule."""
    edges = np.linspace(low, high, n + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(*[middle] * dim, indexing="ij"), -1)
    return np.exp(log_density(points)).sum() * ((high - low) / n) ** dim


# Gaussians


@pytest.mark.parametrize(("mean", "covariance"), [(M3, C3), (M3[:1], C3[:1, :1]), (M3[1:], C2)])
def test_gaussians_agree_with_scipy(mean, covariance):
    exact = scipy.stats.multivariate_normal(mean, covariance)
    x = np.random.default_rng(1).normal(size=(4, 5, len(mean))) * 3
    log_p = density.gaussian_log_density(x, mean, covariance)
    assert log_p.shape == (4, 5)
    close(log_p, exact.logpdf(x).reshape(4, 5))
    close(density.gaussian_log_density(x[0, 0], mean, covariance), exact.logpdf(x[0, 0]))
    close(density.gaussian_entropy(covariance), exact.entropy())


def test_gaussians_in_many_dimensions_and_far_away():
    dim = 400
    x = np.full((2, dim), 1e5)
    log_p = density.gaussian_log_density(x, np.zeros(dim), 1e-4 * np.eye(dim))
    close(log_p / (-0.5e14 * dim + 0.5 * dim * (math.log(1e4) - math.log(2 * math.pi))), 1)


def test_gaussians_integrate_to_one():
    assert mass(lambda x: density.gaussian_log_density(x, [0.5], [[0.7]]), 1) == pytest.approx(1, abs=1e-9)
    assert mass(lambda x: density.gaussian_log_density(x, [0.5, 1], 0.5 * C2), 2) == pytest.approx(
        1, abs=1e-9
    )


def test_the_fitted_gaussian_is_the_likeliest():
    data = draw(50, 2)
    mean, covariance = density.fit_gaussian(data)
    close(mean, data.mean(0))
    close(covariance, np.cov(data.T, bias=True))
    best = density.gaussian_log_density(data, mean, covariance).mean()
    close(best, -density.gaussian_entropy(covariance))  # the mean of the squared distances is D exactly
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = covariance + 0.05 * np.diag(rng.normal(size=2))
        assert density.gaussian_log_density(data, mean + 0.1 * rng.normal(size=2), near).mean() < best
    assert (
        density.gaussian_log_density(data, mean, np.cov(data.T)).mean() < best
    )  # N - 1 is not the likeliest


def test_draws_have_the_mean_and_the_covariance():
    draws = density.sample_gaussian(M3, C3, 40_000, np.random.default_rng(0))
    close(draws.mean(0), M3, 0.03)
    close(np.cov(draws.T), C3, 0.05)


def test_spreads_of_any_size_are_fitted():
    data = draw(5000, 3) * [1e-9, 1.0, 1e9]
    for dtype in (np.float32, np.float64):
        mean, covariance = density.fit_gaussian(data.astype(dtype))
        assert np.isfinite(density.gaussian_log_density(data.astype(dtype), mean, covariance)).all()


def test_rounding_does_not_make_a_covariance_unsymmetric():
    covariance = np.array([[1.0, 1e-17], [-3e-17, 1.0]])
    close(density.gaussian_log_density([1.0, 2.0], [0.0, 0.0], covariance), -2.5 - math.log(2 * math.pi))


def test_gaussians_keep_float32():
    data = draw(20, 2).astype(np.float32)
    mean, covariance = density.fit_gaussian(data)
    assert {mean.dtype, covariance.dtype} == {np.dtype(np.float32)}
    assert density.gaussian_log_density(data, mean, covariance).dtype == np.float32


@pytest.mark.parametrize(
    "data", [np.ones((2, 2)), np.ones((9, 1)), np.arange(8.0)[:, None] * [1, 2], np.full((9, 1), 0.1)]
)
def test_flat_data_have_no_likeliest_gaussian(data):
    with pytest.raises(ValueError, match="lie in a plane"):
        density.fit_gaussian(data)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([0, 0], [[1, 0], [0, -1]], "positive definite"),
        ([0, 0], [[1, 0.5], [0, 1]], "symmetric"),
        ([0, 0], [1, 1], r"\(D, D\)"),
        ([0, 0, 0], np.eye(2), r"shape \(2,\)"),
    ],
)
def test_what_is_no_gaussian(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        density.gaussian_log_density(np.zeros(2), mean, covariance)


# Histograms


@pytest.mark.parametrize(
    ("dim", "bins"), [(1, 7), (2, 5), (3, 3), (2, [np.linspace(-9, 9, 8), np.linspace(-5, 9, 4)])]
)
def test_histograms_agree_with_numpy_and_integrate_to_one(dim, bins):
    data = draw(200, dim)
    histogram = density.fit_histogram(data, bins)
    heights, edges = np.histogramdd(data, bins, density=True)
    close(histogram.heights, heights)
    middles = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1)
    volume = np.prod(np.stack(np.meshgrid(*map(np.diff, edges), indexing="ij"), -1), -1)
    p = np.exp(density.histogram_log_density(middles, histogram))
    close(p, heights)
    assert (p * volume).sum() == pytest.approx(1)
    smooth = np.exp(
        density.histogram_log_density(middles, density.fit_histogram(data, bins, pseudocount=0.5))
    )
    assert (smooth > 0).all()
    assert (smooth * volume).sum() == pytest.approx(1)


def test_a_histogram_s_borders_and_outside():
    histogram = density.fit_histogram([[0.0], [1.0], [1.5], [2.0]], [np.array([0.0, 1.0, 2.0, 4.0])])
    x = np.array([-1e-9, 0.0, 0.999, 1.0, 2.0, 3.999, 4.0, 4.001, np.nan, -np.inf])[:, None]
    p = np.exp(density.histogram_log_density(x, histogram))
    close(p, [0, 0.25, 0.25, 0.5, 0.125, 0.125, 0.125, 0, np.nan, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_no_cell_of_a_data_point_is_empty(dtype, seed):
    data = draw(300, 2, seed).astype(dtype)
    log_p = density.histogram_log_density(data, density.fit_histogram(data, [9, 13]))
    assert log_p.dtype == dtype
    assert np.isfinite(log_p).all()


def test_a_histogram_takes_no_points_outside_and_no_negative_pseudocount():
    with pytest.raises(ValueError, match="2 points lie outside"):
        density.fit_histogram([[0.5], [1.5], [-1.0]], [np.array([0.0, 1.0])])
    with pytest.raises(ValueError, match="pseudocount"):
        density.fit_histogram(draw(5, 1), 3, pseudocount=-1.0)


# Kernels


@EACH_KERNEL
def test_a_kernel_is_a_density_with_its_variance_and_its_draws(kernel):
    kernel = KERNELS[kernel]
    grid = np.linspace(-12, 12, 240_001) + 1e-7
    p = np.exp(kernel.log_density(grid))
    assert integrate(lambda u: p, grid) == pytest.approx(1, abs=1e-4)
    assert integrate(lambda u: p * u**2, grid) == pytest.approx(kernel.variance, abs=1e-4)
    cdf = np.cumsum(p) * (grid[1] - grid[0])
    draws = kernel.sample((4000,), np.random.default_rng(0))
    assert scipy.stats.kstest(draws, lambda u: np.interp(u, grid, cdf)).pvalue > 0.01
    assert np.isnan(kernel.log_density(np.array(np.nan)))
    assert kernel.log_density(np.array([np.inf, -np.inf])).tolist() == [-np.inf, -np.inf]


@EACH_KERNEL
@pytest.mark.parametrize(("dim", "bandwidth"), [(1, 0.3), (2, 0.5), (2, [0.4, 0.9])])
def test_estimates_integrate_to_one(kernel, dim, bandwidth):
    data = draw(12, dim)
    total = mass(
        lambda x: kernels.kde_log_density(x, data, bandwidth, kernel), dim, n=1400 if dim == 1 else 350
    )
    assert total == pytest.approx(1, abs=0.01 if kernel == "uniform" else 1e-3)


@EACH_KERNEL
def test_the_estimate_is_its_formula(kernel):
    data, x, h = draw(9, 3), draw(5, 3, seed=1).reshape(5, 1, 3), np.array([0.9, 1.5, 2.0])
    k = np.exp(KERNELS[kernel].log_density((x - data) / h)) / h
    with np.errstate(divide="ignore"):
        want = np.log(k.prod(-1).mean(-1))
    close(kernels.kde_log_density(x, data, h, kernel), want[:, None])


def test_the_estimate_agrees_with_scipy_at_the_same_bandwidth():
    data, x = draw(60, 1), np.linspace(-3, 5, 50)[:, None]
    theirs = scipy.stats.gaussian_kde(data.T)
    close(kernels.scott_bandwidth(data), theirs.factor * data.std(0, ddof=1))
    close(kernels.kde_log_density(x, data, kernels.scott_bandwidth(data)), theirs.logpdf(x.T))


def test_the_estimate_agrees_with_scipy_in_three_dimensions():
    """SciPy's kernel has the data's covariance, which is the identity once they are whitened."""
    data = draw(60, 3)
    data = np.linalg.solve(np.linalg.cholesky(np.cov(data.T)), data.T).T
    theirs, x = scipy.stats.gaussian_kde(data.T, 0.4), draw(20, 3, seed=1)
    close(kernels.kde_log_density(x, data, 0.4), theirs.logpdf(x.T))
    close(kernels.scott_bandwidth(data), np.full(3, scipy.stats.gaussian_kde(data.T).factor))


def test_slices_of_the_work_change_nothing(monkeypatch):
    data, x = draw(40, 2), draw(30, 2, seed=1)
    whole, alone = kernels.kde_log_density(x, data, 0.5), kernels.leave_one_out_log_density(data, 0.5)
    monkeypatch.setattr(kernels, "_AT_ONCE", 200)
    close(kernels.kde_log_density(x, data, 0.5), whole, 0)
    close(kernels.leave_one_out_log_density(data, 0.5), alone, 0)


def test_far_from_the_data_the_log_is_finite_or_minus_infinity_as_the_kernel_says():
    data = np.zeros((3, 2))
    close(kernels.kde_log_density([1e4, 0.0], data, 0.1), -0.5e10 - math.log(2 * math.pi * 0.01))
    for kernel in ("epanechnikov", "uniform", "triangular"):
        assert kernels.kde_log_density([1e4, 0.0], data, 0.1, kernel) == -math.inf


def test_estimates_keep_float32():
    data = draw(30, 2).astype(np.float32)
    for kernel in KERNELS:
        log_p = kernels.kde_log_density(data, data, 0.5, kernel)
        assert log_p.dtype == np.float32
        close(
            log_p,
            kernels.kde_log_density(data.astype(np.float64), data.astype(np.float64), 0.5, kernel),
            1e-3,
        )


@EACH_KERNEL
def test_draws_from_the_estimate_follow_it(kernel):
    data, h, rng = draw(5, 1), 0.4, np.random.default_rng(0)
    draws = kernels.sample_kde(data, h, 4000, rng, kernel)
    grid = np.linspace(-6, 8, 20_001)
    cdf = np.cumsum(np.exp(kernels.kde_log_density(grid[:, None], data, h, kernel))) * (grid[1] - grid[0])
    assert scipy.stats.kstest(draws[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 0.01


def test_a_kernel_of_ones_own():
    cauchy = kernels.Kernel("cauchy", scipy.stats.cauchy.logpdf, None, math.inf)
    close(kernels.kde_log_density([[0.5]], [[0.0]], 2.0, cauchy), scipy.stats.cauchy.logpdf(0.5, 0, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel": "cosine"}, "there are gaussian, epanechnikov"),
        ({"bandwidth": 0.0}, "bandwidth must be positive"),
        ({"bandwidth": [1.0, 1.0, 1.0]}, "or 2, one for each"),
        ({"data": np.zeros(5)}, r"One variable is data\[:, None\]"),
        ({"data": np.full((5, 2), np.nan)}, "finite"),
        ({"x": np.zeros((4, 3))}, r"shape \(..., 2\)"),
    ],
)
def test_what_an_estimate_cannot_use(wrong, message):
    with pytest.raises(ValueError, match=message):
        kernels.kde_log_density(**{"x": np.zeros(2), "data": np.zeros((5, 2)), "bandwidth": 1.0, **wrong})


# Bandwidths


@EACH_KERNEL
def test_leaving_one_out_is_leaving_one_out(kernel):
    data = draw(15, 2)
    want = [kernels.kde_log_density(data[n], np.delete(data, n, 0), 1.5, kernel) for n in range(15)]
    close(kernels.leave_one_out_log_density(data, 1.5, kernel), want)
    with pytest.raises(ValueError, match="at least 2"):
        kernels.leave_one_out_log_density(data[:1], 1.0, kernel)


def test_the_chosen_bandwidth_is_the_likeliest_and_two_modes_need_a_narrow_one():
    data, new = draw(400, 1), draw(400, 1, seed=1)
    bandwidths = np.geomspace(0.01, 3, 25)
    for held_out in (None, new):
        best = kernels.choose_bandwidth(data, bandwidths, held_out)
        scores = kernels.bandwidth_scores(data, bandwidths, held_out)
        assert scores.max() == scores[list(bandwidths).index(best)]
        assert 0.05 < best < 0.7 * kernels.scott_bandwidth(data)[0]
    seen = [kernels.kde_log_density(data, data, h).mean() for h in bandwidths]
    assert np.argmax(seen) == 0  # on data that it has seen, the narrowest wins


def test_kernels_that_leave_gaps():
    data = np.array([[0.0], [1.0], [10.0]])
    assert kernels.choose_bandwidth(data, [0.5, 9.5], kernel="triangular") == 9.5
    with pytest.raises(ValueError, match="wider"):
        kernels.choose_bandwidth(data, [0.1, 0.5], kernel="triangular")


def test_an_estimate_of_the_density_of_sin():
    x = np.sin(np.random.default_rng(0).uniform(0, 2 * math.pi, (20_000, 1)))
    grid = np.linspace(-0.8, 0.8, 50)
    exact = np.exp(sin_log_density(grid))
    close(np.exp(kernels.kde_log_density(grid[:, None], x, 0.08, "epanechnikov")), exact, 0.05)
    close(np.exp(density.histogram_log_density(grid[:, None], density.fit_histogram(x, 41))), exact, 0.08)


# What D costs


@pytest.mark.parametrize(("dim", "h"), [(1, 0.6), (2, 0.5), (4, 0.9)])
def test_the_relative_error_is_what_simulation_says(dim, h):
    n, rng, origin = 40, np.random.default_rng(0), np.zeros(dim)
    p = (2 * math.pi) ** (-dim / 2)
    errors = [
        (np.exp(kernels.kde_log_density(origin, rng.normal(size=(n, dim)), h)) / p - 1) ** 2
        for _ in range(3000)
    ]
    tolerance = 4 * np.std(errors) / math.sqrt(len(errors))
    assert np.mean(errors) == pytest.approx(kernels.kde_relative_error(n, dim, h), abs=tolerance)


def test_the_points_needed_are_silvermans_and_grow_without_mercy():
    table = [4, 19, 67, 223, 768, 2790, 10_700, 43_700, 187_000, 842_000]  # Silverman 1986, table 4.2
    ours = [math.ceil(kernels.samples_needed(dim)) for dim in range(1, 11)]
    assert ours[:5] == table[:5]
    np.testing.assert_allclose(ours, table, rtol=3e-3)
    assert kernels.samples_needed(20) > 1e11
    assert 1e93 < kernels.samples_needed(100) < 1e94
    assert kernels.samples_needed(1000) == math.inf


def test_the_points_needed_bring_the_error_down_and_fewer_do_not():
    for dim, target in ((1, 0.1), (5, 0.3), (8, 0.01)):
        n, h = kernels.samples_needed(dim, target), np.geomspace(1e-3, 3, 3000)
        assert kernels.kde_relative_error(n, dim, h).min() == pytest.approx(target, rel=1e-3)
        assert kernels.kde_relative_error(0.98 * n, dim, h).min() > target


@pytest.mark.parametrize(("dim", "error"), [(0, 0.1), (2, 0.0), (2, 1.0)])
def test_what_cannot_be_needed(dim, error):
    with pytest.raises(ValueError, match="relative_error between 0 and 1"):
        kernels.samples_needed(dim, error)


# Likelihood and KL divergence


def test_kl_of_gaussians_is_its_integral():
    args = [0.3], [[0.5]], [-0.4], [[1.2]]
    log_p, log_q = scipy.stats.norm(0.3, math.sqrt(0.5)).logpdf, scipy.stats.norm(-0.4, math.sqrt(1.2)).logpdf
    integral = integrate(lambda x: np.exp(log_p(x)) * (log_p(x) - log_q(x)), np.linspace(-10, 10, 20_001))
    assert density.kl_gaussians(*args) == pytest.approx(integral)


def test_kl_of_gaussians_is_its_formula_and_zero_only_at_home():
    mean, covariance = np.ones(3), np.diag([0.5, 1.0, 3.0])
    inverse = np.linalg.inv(covariance)
    want = (
        np.trace(inverse @ C3)
        + (mean - M3) @ inverse @ (mean - M3)
        - 3
        + math.log(np.linalg.det(covariance) / np.linalg.det(C3))
    ) / 2
    close(density.kl_gaussians(M3, C3, mean, covariance), want)
    close(density.kl_gaussians(M3, C3, M3, C3), 0)
    assert abs(density.kl_gaussians(mean, covariance, M3, C3) - want) > 0.1
    with pytest.raises(ValueError, match="3 dimensions and q has 2"):
        density.kl_gaussians(M3, C3, np.zeros(2), C2)


def test_kl_by_monte_carlo_is_as_far_off_as_it_says():
    x, q = density.sample_gaussian(M3, C3, 20_000, np.random.default_rng(0)), (np.ones(3), np.eye(3))
    estimate = density.kl_monte_carlo(
        lambda x: density.gaussian_log_density(x, M3, C3), lambda x: density.gaussian_log_density(x, *q), x
    )
    exact = density.kl_gaussians(M3, C3, *q)
    ratio = scipy.stats.multivariate_normal(M3, C3).logpdf(x) - scipy.stats.multivariate_normal(*q).logpdf(x)
    close(estimate.error, scipy.stats.sem(ratio))
    assert abs(estimate.mean - exact) < 3 * estimate.error


def test_kl_where_one_density_is_zero():
    def narrow(x):
        return kernels.kde_log_density(x, [[0.0]], 1.0, "uniform")

    def wide(x):
        return kernels.kde_log_density(x, [[0.0]], 2.0, "uniform")

    x = np.linspace(-1.9, 1.9, 8)[:, None]
    assert density.kl_monte_carlo(wide, narrow, x) == (math.inf, math.inf)
    close(density.kl_monte_carlo(narrow, wide, x / 2), (math.log(2), 0))
    for draws in (x, x[:1] / 2):
        with pytest.raises(ValueError, match="two draws"):
            density.kl_monte_carlo(narrow, wide, draws)


def test_the_mean_log_likelihood():
    x = draw(50, 2)
    want = scipy.stats.multivariate_normal([1, 0], C2).logpdf(x).mean()
    close(density.mean_log_likelihood(lambda x: density.gaussian_log_density(x, [1, 0], C2), x), want)


def test_log_sum_exp_agrees_with_scipy():
    a = np.array([[-1e4, -1e4 + 1, -math.inf], [-math.inf] * 3, [800.0, 3.0, 1.0]])
    for axis in (0, 1, -1):
        close(kernels.logsumexp(a, axis), scipy.special.logsumexp(a, axis))
    assert kernels.logsumexp(a.astype(np.float32)).dtype == np.float32


def test_numpy_alone():
    code = "import flowkit.density, sys; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
