"""Monotone maps: round trips, derivatives against differences and extended precision, composition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit import maps
from flowkit.change_of_variables import log_abs_derivative_numerical
from flowkit.maps import affine, compose, invert

quick = settings(deadline=None, max_examples=60)  # a busy machine is no failure

# Each map with the range of x in which z is far enough from its codomain's ends for float32 to come back.
RANGES = [
    (affine(2.0, 1.0), -5, 5),
    (affine(-0.5, 3.0), -5, 5),
    (maps.EXP, -5, 5),
    (maps.LOG, 0.01, 100),
    (maps.TANH, -2.5, 2.5),
    (maps.ARCTANH, -0.98, 0.98),
    (maps.SIGMOID, -5, 5),
    (maps.LOGIT, 0.01, 0.99),
    (maps.CUBE, -5, 5),
    (maps.CUBE_ROOT, -50, 50),
    (maps.CUBIC, -5, 5),
    (invert(maps.CUBIC), -50, 50),
    (maps.ARCSIN_BRANCHES[0], -0.95, 0.95),
    (maps.EXPONENTIAL_CDF, 0.01, 5),
    (maps.CAUCHY_CDF, -20, 20),
    (compose(), -5, 5),
    (compose(affine(-0.5, 0.1), maps.TANH, maps.CUBIC), -3, 3),
]
ALL = pytest.mark.parametrize(("f", "low", "high"), RANGES, ids=[f.name for f, _, _ in RANGES])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@ALL
@DTYPES
def test_round_trip_shape_and_dtype(f, low, high, dtype):
    x = np.random.default_rng(0).uniform(low, high, size=(2, 3, 50)).astype(dtype)
    z = f.forward(x)
    tol = {np.float32: 2e-4, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(f.inverse(z), x, rtol=tol, atol=tol)
    assert ((f.codomain[0] < z) & (z < f.codomain[1])).all()
    for y in (z, f.inverse(z), f.log_abs_derivative(x)):
        assert y.shape == x.shape
        assert y.dtype == dtype


@ALL
def test_log_derivative_against_central_differences(f, low, high):
    x = np.random.default_rng(1).uniform(low, high, size=(4, 25))
    keep = np.abs(x) > 0.3 if f in (maps.CUBE, maps.CUBE_ROOT) else np.full(x.shape, True)
    rough = log_abs_derivative_numerical(f.forward, x[keep])
    np.testing.assert_allclose(f.log_abs_derivative(x[keep]), rough, atol=1e-6)


@ALL
def test_integers_and_single_numbers_are_taken(f, low, high):
    x = 1 if low <= 1 <= high else 0.5
    for one in (f.forward, f.log_abs_derivative):
        assert one(x) == pytest.approx(one(np.array([float(x)]))[0], rel=1e-15)
    assert f.inverse(f.forward(x)) == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("f", [f for f, _, _ in RANGES], ids=[f.name for f, _, _ in RANGES])
def test_the_inverse_has_the_negated_derivative(f):
    x = np.array([0.1, 0.5, 0.9])
    z = f.forward(x)
    np.testing.assert_allclose(invert(f).log_abs_derivative(z), -f.log_abs_derivative(x), atol=1e-10)
    assert invert(f).domain == f.codomain
    assert invert(invert(f)).domain == pytest.approx(f.domain)


long = np.longdouble
extended = pytest.mark.skipif(np.finfo(long).eps > 1e-18, reason="no extended precision on this machine")
EVERYWHERE = [
    -700.0,
    -300.0,
    -40.0,
    -20.0,
    -3.0,
    -1e-3,
    -1e-9,
    0.0,
    1e-9,
    1e-3,
    3.0,
    20.0,
    40.0,
    300.0,
    700.0,
]
UNIT = [1e-300, 1e-16, 1e-5, 0.3, 0.5, 1 - 1e-5, 1 - 2.0**-53]


@extended
@pytest.mark.parametrize(
    ("f", "xs", "exact"),
    [
        (maps.TANH, EVERYWHERE, lambda x: -2 * np.log(np.cosh(x))),
        (maps.SIGMOID, EVERYWHERE, lambda x: -2 * np.log(np.exp(x / 2) + np.exp(-x / 2))),
        (maps.CUBIC, [*EVERYWHERE, 1e150, -1e150], lambda x: np.log(1 + 3 * x * x)),
        (maps.CUBE, [1e-100, -1e-300, 1.0, 1e100], lambda x: np.log(3 * x * x)),
        (maps.LOGIT, UNIT, lambda x: -np.log(x * (1 - x))),
        (maps.ARCTANH, [*UNIT, *(-x for x in UNIT)], lambda x: -np.log((1 - x) * (1 + x))),
        (maps.ARCSIN_BRANCHES[0], [*UNIT, *(-x for x in UNIT)], lambda x: -np.log((1 - x) * (1 + x)) / 2),
        (maps.CAUCHY_CDF, [*EVERYWHERE, 1e200], lambda x: -np.log(np.pi * (1 + x * x))),
    ],
    ids=lambda f: getattr(f, "name", None),
)
def test_log_derivative_in_extended_precision(f, xs, exact):
    x = np.array(xs)
    np.testing.assert_allclose(
        f.log_abs_derivative(x), exact(x.astype(long)).astype(float), rtol=1e-14, atol=1e-15
    )


@extended
@pytest.mark.parametrize(
    ("function", "xs", "exact"),
    [
        (maps.SIGMOID.forward, EVERYWHERE, lambda x: 1 / (1 + np.exp(-x))),
        (maps.LOGIT.forward, UNIT, lambda x: np.log(x / (1 - x))),
        (maps.EXPONENTIAL_CDF.forward, [1e-300, 1e-9, 1.0, 30.0], lambda x: -np.expm1(-x)),
        (
            maps.CAUCHY_CDF.forward,
            [-1e200, -1e9, -1.0, 0.0, 1.0, 1e9],
            lambda x: np.arctan2(long(1), -x) / long_pi(),
        ),
        (maps.CAUCHY_CDF.inverse, [1e-300, 1e-9, 0.25, 0.75], lambda u: -1 / np.tan(long_pi() * u)),
    ],
)
def test_maps_in_extended_precision(function, xs, exact):
    x = np.array(xs)
    np.testing.assert_allclose(function(x), exact(x.astype(long)).astype(float), rtol=1e-13, atol=1e-16)


def long_pi():
    return 4 * np.arctan(long(1))


@quick
@given(z=st.floats(-1e250, 1e250, allow_subnormal=False))
def test_the_cubic_is_solved_at_every_size(z):
    x = maps.CUBIC.inverse(z)
    assert x + x**3 == pytest.approx(z, rel=1e-12)


def test_the_cauchy_median_is_zero():
    assert maps.CAUCHY_CDF.inverse(0.5) == pytest.approx(0, abs=1e-15)
    assert maps.CAUCHY_CDF.forward(0.0) == 0.5


def test_a_cube_has_no_derivative_to_take_the_log_of_at_zero():
    assert maps.CUBE.log_abs_derivative(0.0) == -math.inf
    assert maps.CUBE_ROOT.log_abs_derivative(0.0) == math.inf
    assert maps.CUBE.inverse(maps.CUBE.forward(0.0)) == 0  # a bijection all the same


@pytest.mark.parametrize(
    ("f", "domain", "codomain"),
    [
        (maps.LOG, (0, math.inf), (-math.inf, math.inf)),
        (maps.TANH, (-math.inf, math.inf), (-1, 1)),
        (maps.SIGMOID, (-math.inf, math.inf), (0, 1)),
        (maps.CUBIC, (-math.inf, math.inf), (-math.inf, math.inf)),
        (maps.EXPONENTIAL_CDF, (0, math.inf), (0, 1)),
        (maps.CAUCHY_CDF, (-math.inf, math.inf), (0, 1)),
        (maps.ARCSIN_BRANCHES[1], (-1, 1), (math.pi / 2, 3 * math.pi / 2)),
        (compose(maps.LOG, affine(-1.0, 0.0)), (0, math.inf), (-math.inf, math.inf)),
        (compose(affine(-2.0, 1.0), maps.LOG), (-math.inf, 0.5), (-math.inf, math.inf)),
        (compose(maps.TANH, maps.LOG), (0, math.inf), (-math.inf, 0)),
        (compose(maps.TANH, affine(0.5, 0.5), maps.LOGIT), (-math.inf, math.inf), (-math.inf, math.inf)),
        (compose(), (-math.inf, math.inf), (-math.inf, math.inf)),
    ],
    ids=lambda f: getattr(f, "name", None),
)
def test_domains(f, domain, codomain):
    assert f.domain == pytest.approx(domain)
    assert f.codomain == pytest.approx(codomain)


def test_composition_applies_the_first_map_first_and_adds_log_derivatives():
    x = np.linspace(-2, 2, 9)
    f = compose(affine(2.0, 1.0), maps.TANH)
    np.testing.assert_array_equal(f.forward(x), np.tanh(2 * x + 1))
    expected = math.log(2) + maps.TANH.log_abs_derivative(2 * x + 1)
    np.testing.assert_allclose(f.log_abs_derivative(x), expected, rtol=1e-14)


@quick
@given(slopes=st.lists(st.floats(0.1, 10) | st.floats(-10, -0.1), max_size=6), x=st.floats(-10, 10))
def test_affine_maps_compose_to_an_affine_map(slopes, x):
    chain = compose(*(affine(slope, 1.0) for slope in slopes))
    product = math.prod(slopes)
    assert chain.log_abs_derivative(x) == pytest.approx(math.log(abs(product)), abs=1e-12)
    rise = chain.forward(x + 1) - chain.forward(x)
    assert rise == pytest.approx(product, rel=1e-6, abs=1e-6)


def test_maps_that_do_not_meet_cannot_be_composed():
    with pytest.raises(ValueError, match="no x passes"):
        compose(maps.EXP, affine(-1.0, 0.0), maps.LOG)


def test_a_map_without_limits_has_no_codomain():
    f = maps.Map1D(
        "x/(1 + x)", lambda x: x / (1 + x), lambda z: z / (1 - z), lambda x: -2 * np.log1p(x), (0, math.inf)
    )
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="limit at both ends"):
        _ = f.codomain


@pytest.mark.parametrize(("slope", "shift"), [(0, 1), (math.nan, 0), (math.inf, 0), (1, math.nan)])
def test_an_affine_map_that_is_none(slope, shift):
    with pytest.raises(ValueError, match="not zero"):
        affine(slope, shift)


@pytest.mark.parametrize("x", [["a"], [None], [1j]])
def test_not_real(x):
    with pytest.raises(TypeError, match="must hold real numbers"):
        maps.as_real(x)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (int, np.float64),
        (bool, float),
    ],
)
def test_as_real(given_, kept):
    assert maps.as_real(np.ones(2, given_)).dtype == kept
