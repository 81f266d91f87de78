"""Densities: they integrate to one, and agree with SciPy's, with samples, and with brute force."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit import change_of_variables as cov
from flowkit import maps
from flowkit.maps import affine, compose

quick = settings(deadline=None, max_examples=60)  # a busy machine is no failure
normal = cov.standard_normal_log_density
uniform = cov.uniform_log_density


def exponential(z):
    return cov.log_density(maps.EXPONENTIAL_CDF, uniform, z)


def uniform_on_both_sides(z):
    return uniform(z, -1, 1)


def wide(size, n=20_001):
    """A grid over the line that is fine in the middle and reaches far: sinh of an even one."""
    return np.sinh(np.linspace(-math.asinh(size), math.asinh(size), n))


def graded(low, high, n=20_001):
    """A grid on (low, high) that crowds towards both ends, where densities may have poles."""
    s = np.linspace(-1, 1, n)[1:-1]
    return low + (high - low) / 2 * (1 + np.sign(s) * (1 - (1 - np.abs(s)) ** 3))


positive = np.exp(np.linspace(-40, 9, 20_001))

# Name, map, base, grid, and SciPy's density where it has one. x = f^-1(z).
DENSITIES = [
    ("affine", affine(2.0, 1.0), normal, wide(40), scipy.stats.norm(-0.5, 0.5)),
    ("decreasing", affine(-0.25, 1.0), normal, wide(90), scipy.stats.norm(4, 4)),
    ("log-normal", maps.LOG, normal, positive, scipy.stats.lognorm(1)),
    ("Gumbel", compose(affine(-1.0, 0.0), maps.EXP), exponential, wide(60), scipy.stats.gumbel_r),
    ("log-exponential", maps.EXP, exponential, wide(60), scipy.stats.gumbel_l),
    ("tanh", maps.TANH, uniform_on_both_sides, wide(40), scipy.stats.logistic(0, 0.5)),
    ("arctanh", maps.ARCTANH, normal, graded(-1, 1), None),
    ("logistic", maps.SIGMOID, uniform, wide(60), scipy.stats.logistic),
    ("logit-normal", maps.LOGIT, normal, graded(0, 1), None),
    ("cube", maps.CUBE, normal, wide(5), None),
    ("cube root", maps.CUBE_ROOT, normal, np.sinh(np.linspace(-1.95, 1.95, 20_000)) ** 5, None),
    ("cubic", maps.CUBIC, normal, wide(5), None),
    ("exponential", maps.EXPONENTIAL_CDF, uniform, positive, scipy.stats.expon),
    ("Cauchy", maps.CAUCHY_CDF, uniform, wide(1e8), scipy.stats.cauchy),
    ("chain", compose(affine(-0.5, 0.2), maps.CUBIC, maps.TANH), uniform_on_both_sides, wide(20), None),
    (
        "shifted log-normal",
        compose(affine(2.0, 1.0), maps.LOG),
        normal,
        positive - 0.5,
        scipy.stats.lognorm(1, -0.5, 0.5),
    ),
]
EACH = pytest.mark.parametrize(
    ("name", "f", "base", "grid", "exact"), DENSITIES, ids=[d[0] for d in DENSITIES]
)


@EACH
def test_every_density_integrates_to_one(name, f, base, grid, exact):
    assert cov.integrate(lambda x: np.exp(cov.log_density(f, base, x)), grid) == pytest.approx(1, abs=2e-5)


@EACH
def test_densities_agree_with_scipy(name, f, base, grid, exact):
    if exact is None:  # then against the distribution function of the base, by differences
        exact_log = cov.log_abs_derivative_numerical(f.forward, x := np.array([0.3, 0.45, 0.7])) + base(
            f.forward(x)
        )
    else:
        exact_log = exact.logpdf(x := np.array([0.02, 0.3, 0.7, 1.5, 4.0]))
    np.testing.assert_allclose(cov.log_density(f, base, x), exact_log, rtol=1e-8, atol=1e-8)


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_shape_and_dtype(name, f, base, grid, exact, shape, dtype):
    log_p = cov.log_density(f, base, np.full(shape, 0.3, dtype))
    assert log_p.shape == shape
    assert log_p.dtype == dtype


@pytest.mark.parametrize(
    ("f", "outside"),
    [(maps.LOG, [-1.0, 0.0, math.inf]), (maps.LOGIT, [-0.1, 0.0, 1.0, 1.1]), (maps.CUBIC, [math.inf])],
)
@pytest.mark.filterwarnings("error")
def test_outside_the_domain_there_is_no_mass_and_no_warning(f, outside):
    np.testing.assert_array_equal(cov.log_density(f, normal, outside), -math.inf)
    assert np.isnan(cov.log_density(f, normal, math.nan))


def test_what_happens_at_the_zero_of_the_derivative():
    assert cov.log_density(maps.CUBE, normal, 0.0) == -math.inf
    assert cov.log_density(maps.CUBE_ROOT, normal, 0.0) == math.inf


@quick
@given(slope=st.floats(0.01, 100) | st.floats(-100, -0.01), shift=st.floats(-10, 10), z=st.floats(-5, 5))
def test_mass_is_conserved(slope, shift, z):
    """The mass of a short interval of z is that of its preimage, whichever way the map runs."""
    f = affine(slope, shift)
    x, width = f.inverse(z), 1e-3 / abs(slope)
    assert math.exp(cov.log_density(f, normal, x)) * width == pytest.approx(
        scipy.stats.norm.pdf(z) * 1e-3, rel=1e-9
    )


def test_base_densities():
    z = np.linspace(-30, 30, 7)
    np.testing.assert_allclose(normal(z), scipy.stats.norm.logpdf(z), rtol=1e-14)
    np.testing.assert_allclose(cov.logistic_log_density(z), scipy.stats.logistic.logpdf(z), rtol=1e-14)
    np.testing.assert_array_equal(uniform([-0.1, 0, 0.5, 1, 1.1]), [-math.inf, 0, 0, 0, -math.inf])
    assert uniform(np.float32(3), 2, 6) == pytest.approx(-math.log(4))
    assert uniform(np.ones(2, np.float32)).dtype == np.float32
    assert np.isnan(uniform(math.nan))


# The sine of a uniform angle


def uniform_angle(z):
    return uniform(z, -math.pi / 2, 1.5 * math.pi)


def test_sin_density_integrates_to_one_and_is_scipys():
    assert cov.integrate(lambda x: np.exp(cov.sin_log_density(x)), graded(-1, 1)) == pytest.approx(
        1, abs=1e-4
    )
    x = np.array([-0.999999, -0.5, 0.0, 0.1, 0.99])
    np.testing.assert_allclose(
        cov.sin_log_density(x), scipy.stats.arcsine(-1, 2).logpdf(x), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_array_equal(
        cov.sin_log_density([-1.0, 1.0, -1.5, 2.0]), [math.inf] * 2 + [-math.inf] * 2
    )
    assert cov.sin_log_density(np.float32(0.5)).dtype == np.float32


def test_the_two_branches_of_the_sine_add_up():
    x = np.linspace(-0.99, 0.99, 23).reshape(1, 23)
    both = cov.log_density_of_branches(maps.ARCSIN_BRANCHES, uniform_angle, x)
    np.testing.assert_allclose(both, cov.sin_log_density(x), rtol=1e-12, atol=1e-12)
    one = cov.log_density(maps.ARCSIN_BRANCHES[0], uniform_angle, x)
    np.testing.assert_allclose(both - one, math.log(2), rtol=1e-12)
    assert both.shape == x.shape


def test_branches_of_unequal_weight():
    """The square of N(1, 1): both roots count, each with its own density."""
    root = maps.Map1D("root", np.sqrt, np.square, lambda x: -math.log(2) - 0.5 * np.log(x), (0.0, math.inf))
    x = np.array([0.1, 1.0, 5.0])
    log_p = cov.log_density_of_branches([root, compose(root, affine(-1.0, 0.0))], lambda z: normal(z - 1), x)
    np.testing.assert_allclose(log_p, scipy.stats.ncx2(1, 1).logpdf(x), rtol=1e-8)


# Sampling


@pytest.mark.parametrize(
    ("cdf", "exact"),
    [
        (maps.EXPONENTIAL_CDF, scipy.stats.expon),
        (maps.SIGMOID, scipy.stats.logistic),
        (maps.CAUCHY_CDF, scipy.stats.cauchy),
        (compose(affine(0.5, -1.0), maps.SIGMOID), scipy.stats.logistic(2, 2)),
        (cov.tabulated_cdf(scipy.stats.norm.pdf, np.linspace(-8, 8, 2001)), scipy.stats.norm),
        (
            cov.tabulated_cdf(lambda x: 7 * x, np.linspace(0, 1, 501)),
            scipy.stats.beta(2, 1),
        ),  # not normalized
    ],
    ids=lambda f: getattr(f, "name", None),
)
def test_inverse_cdf_samples(cdf, exact):
    x = cov.inverse_cdf_sample(cdf, (20, 500), np.random.default_rng(7))
    assert x.shape == (20, 500)
    assert scipy.stats.kstest(x.ravel(), exact.cdf).pvalue > 0.01
    assert scipy.stats.kstest(x.ravel() * 1.1, exact.cdf).pvalue < 0.01  # the test can tell
    x = np.array([0.2, 0.5, 0.9])
    np.testing.assert_allclose(cov.log_density(cdf, uniform, x), exact.logpdf(x), atol=5e-3)


def test_samples_are_finite_at_the_ends_of_the_uniform():
    class Ends:
        def random(self, shape):
            return np.array([0.0, 1 - 2.0**-53])

    for cdf in (maps.EXPONENTIAL_CDF, maps.SIGMOID, maps.CAUCHY_CDF):
        assert np.isfinite(cov.inverse_cdf_sample(cdf, 2, Ends())).all()


def test_sines_of_uniform_angles_have_the_sin_density():
    grid = np.sin(np.linspace(-math.pi / 2, math.pi / 2, 4001))[1:-1]
    cdf = cov.tabulated_cdf(lambda x: np.exp(cov.sin_log_density(x)), grid)
    x = np.sin(np.random.default_rng(3).uniform(0, 2 * math.pi, 4000))
    assert scipy.stats.kstest(x, cdf.forward).pvalue > 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tabulated_cdf_is_a_map_like_the_others(dtype):
    cdf = cov.tabulated_cdf(lambda x: 1 + np.cos(3 * x), np.linspace(-1, 2, 40))
    x = np.random.default_rng(0).uniform(-1, 2, (3, 5)).astype(dtype)
    z = cdf.forward(x)
    np.testing.assert_allclose(cdf.inverse(z), x, atol=1e-5 if dtype == np.float32 else 1e-12)
    assert z.dtype == cdf.inverse(z).dtype == cdf.log_abs_derivative(x).dtype == dtype
    assert (cdf.domain, cdf.codomain) == ((-1.0, 2.0), (0.0, 1.0))
    cell = np.linspace(-1, 2, 40)[:-1] + 0.01
    rough = cov.log_abs_derivative_numerical(cdf.forward, cell)
    np.testing.assert_allclose(cdf.log_abs_derivative(cell), rough, atol=1e-6)
    np.testing.assert_array_equal(cov.log_density(cdf, uniform, [-1.5, 2.5]), -math.inf)


def test_no_draw_falls_where_a_tabulated_density_is_zero():
    cdf = cov.tabulated_cdf(lambda x: np.where(np.abs(x) < 1, 0.0, 1.0), np.linspace(-2, 2, 401))
    x = cov.inverse_cdf_sample(cdf, 2000, np.random.default_rng(0))
    assert np.abs(x).min() > 0.98
    assert cov.log_density(cdf, uniform, 0.005) == -math.inf


@pytest.mark.parametrize(
    ("density", "grid", "message"),
    [
        (np.cos, np.linspace(0, 3, 9), "not negative"),
        (lambda x: 0 * x, np.linspace(0, 3, 9), "not zero"),
        (lambda x: x + np.inf, np.linspace(0, 3, 9), "finite"),
        (lambda x: x * np.nan, np.linspace(0, 3, 9), "finite"),
        (np.exp, [0.0, 1.0, 1.0], "increasing"),
        (np.exp, [[0.0, 1.0]], "one-dimensional"),
        (np.exp, [0.0], "two points"),
    ],
)
def test_tables_that_are_none(density, grid, message):
    with pytest.raises(ValueError, match=message):
        cov.tabulated_cdf(density, grid)


# D dimensions


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
@pytest.mark.parametrize("D", [1, 2, 7])
def test_linear_against_the_normal_that_it_makes(D, leading):
    rng = np.random.default_rng(D)
    A, b, x = rng.normal(size=(D, D)), rng.normal(size=D), rng.normal(size=(*leading, D))
    inverse = np.linalg.inv(A)
    exact = scipy.stats.multivariate_normal(-inverse @ b, inverse @ inverse.T).logpdf(x)
    log_p = cov.log_density_linear(x, A, b)
    np.testing.assert_allclose(log_p, exact, rtol=1e-8, atol=1e-8)
    assert log_p.shape == leading
    rough = cov.log_density_numerical(lambda x: x @ A.T + b, normal, x)
    np.testing.assert_allclose(log_p, rough, atol=1e-6)


def test_linear_with_other_bases_matrices_and_dtypes():
    rng = np.random.default_rng(0)
    A, x = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3))
    each = [cov.log_density_linear(x[i], A[i], 0.5, cov.logistic_log_density) for i in range(5)]
    np.testing.assert_allclose(cov.log_density_linear(x, A, 0.5, cov.logistic_log_density), each, rtol=1e-12)
    assert cov.log_density_linear(x.astype(np.float32), A.astype(np.float32), 0.5).dtype == np.float32
    tiny = cov.log_density_linear(np.zeros(400), 1e-200 * np.eye(400), 0)
    assert tiny == pytest.approx(400 * (math.log(1e-200) - math.log(2 * math.pi) / 2))


def test_linear_says_what_is_wrong():
    with pytest.raises(ValueError, match="singular"):
        cov.log_density_linear(np.ones(2), np.ones((2, 2)), 0)
    for x, A in [(np.ones(3), np.eye(2)), (np.ones(2), np.ones((2, 3))), (1.0, np.eye(1)), (np.ones(2), 3.0)]:
        with pytest.raises(ValueError, match="must have the shape"):
            cov.log_density_linear(x, A, 0)


def polar(x):
    r, angle = x[..., 0], x[..., 1]
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize(("dtype", "tol"), [(np.float32, 2e-3), (np.float64, 1e-8)])
def test_numerical_jacobian_of_polar_coordinates(leading, dtype, tol):
    x = np.random.default_rng(0).uniform(0.5, 2, (*leading, 2)).astype(dtype)
    r, angle = x[..., 0], x[..., 1]
    exact = np.stack([np.cos(angle), -r * np.sin(angle), np.sin(angle), r * np.cos(angle)], -1)
    J = cov.numerical_jacobian(polar, x)
    np.testing.assert_allclose(J, exact.reshape(*leading, 2, 2), atol=tol)
    assert J.dtype == dtype
    np.testing.assert_allclose(cov.log_abs_det_numerical(polar, x), np.log(r), atol=4 * tol)


def test_numerical_jacobian_rows_are_outputs_and_columns_inputs():
    A = np.arange(6.0).reshape(2, 3)
    x = np.array([1e6, -1.0, 0.0])
    np.testing.assert_allclose(cov.numerical_jacobian(lambda x: x @ A.T, x), A, atol=1e-5)
    with pytest.raises(ValueError, match="log_abs_derivative_numerical"):
        cov.numerical_jacobian(np.sin, 1.0)
    assert cov.log_abs_derivative_numerical(np.sin, 1.0) == pytest.approx(math.log(math.cos(1)))
    assert cov.numerical_jacobian(lambda x: x, np.zeros((4, 0))).shape == (4, 0, 0)
    np.testing.assert_array_equal(cov.log_abs_det_numerical(lambda x: x, np.zeros((4, 0))), np.zeros(4))


# Maximum likelihood


@quick
@given(
    slope=st.floats(0.1, 5) | st.floats(-5, -0.1),
    shift=st.floats(-3, 3),
    seed=st.integers(0, 100),
)
def test_nll_gradient_against_differences(slope, shift, seed):
    x = np.random.default_rng(seed).normal(2, 3, size=50)

    def nll(parameters):
        return np.array([cov.affine_nll(*parameters, x)])

    rough = cov.numerical_jacobian(nll, np.array([slope, shift]))[0]
    np.testing.assert_allclose(cov.affine_nll_gradient(slope, shift, x), rough, rtol=1e-5, atol=1e-5)


@quick
@given(seed=st.integers(0, 1000), change=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)))
def test_the_fit_is_the_maximum(seed, change):
    x = np.random.default_rng(seed).gumbel(5, 2, size=(10, 7))
    slope, shift = cov.fit_affine(x)
    best = cov.affine_nll(slope, shift, x)
    np.testing.assert_allclose(cov.affine_nll_gradient(slope, shift, x), 0, atol=1e-9)
    assert cov.affine_nll(-slope, -shift, x) == pytest.approx(best, rel=1e-12)  # the mirror image
    assert cov.affine_nll(slope * (1 + change[0]), shift + change[1], x) >= best - 1e-12
    z = affine(slope, shift).forward(x)
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=1e-10)
    assert best == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + math.log(x.std()))


@pytest.mark.parametrize("x", [[], [3.0], [2.0, 2.0, 2.0], [1.0, math.nan], [1.0, math.inf]])
@pytest.mark.filterwarnings("error")
def test_no_fit_without_two_numbers(x):
    with pytest.raises(ValueError, match="not all the same"):
        cov.fit_affine(x)


def test_numpy_is_enough():
    """These lessons run where torch is not installed."""
    code = "import sys, flowkit.change_of_variables, flowkit.determinants; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
