"""Determinants against NumPy's, against exact fractions, and against the laws that define a determinant."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowkit import determinants as dets

DETS = [dets.det_laplace, dets.det_laplace_memo, dets.det_lu]
TOLERANCE = {np.float32: 2e-4, np.float64: 1e-10}
small = st.integers(-9, 9)
quick = settings(deadline=None, max_examples=40)  # a busy machine is no failure


def integer_matrices(low=0, high=6):
    return st.integers(low, high).flatmap(lambda n: hnp.arrays(np.int64, (n, n), elements=small))


def exact_det(a):
    """Gaussian elimination in fractions: exact, and no code in common with what is tested."""
    rows = [[Fraction(int(entry)) for entry in row] for row in a]
    det = Fraction(1)
    while rows:
        pivot = next((i for i, row in enumerate(rows) if row[0]), None)
        if pivot is None:
            return Fraction(0)
        head = rows.pop(pivot)
        det *= head[0] * (-1) ** pivot
        rows = [[x - row[0] / head[0] * h for x, h in zip(row[1:], head[1:], strict=True)] for row in rows]
    return det


@pytest.mark.parametrize("det", DETS)
@quick
@given(a=integer_matrices())
def test_integer_determinants_are_exact(det, a):
    exact = float(exact_det(a))
    assert det(a) == pytest.approx(exact, rel=1e-9, abs=1e-6)
    if det is not dets.det_lu:
        assert det(a) == exact  # no division, and all products below 2^53


@quick
@given(a=integer_matrices())
def test_slogdet_lu_of_integers(a):
    exact = exact_det(a)
    sign, logabsdet = dets.slogdet_lu(a)
    if exact:
        assert sign == np.sign(exact)
        assert logabsdet == pytest.approx(math.log(abs(exact)), abs=1e-8)
    else:
        assert sign == 0 or logabsdet < -20  # rounding may leave a tiny pivot


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_against_numpy(n, leading, dtype):
    a = np.random.default_rng(n).normal(size=(*leading, n, n)).astype(dtype)
    tol = TOLERANCE[dtype]
    for det in DETS:
        np.testing.assert_allclose(det(a), np.linalg.det(a), rtol=tol, atol=tol)
        assert det(a).shape == leading
        assert det(a).dtype == dtype
    sign, logabsdet = dets.slogdet_lu(a)
    expected = np.linalg.slogdet(a)
    np.testing.assert_array_equal(sign, expected.sign)
    np.testing.assert_allclose(logabsdet, expected.logabsdet, rtol=tol, atol=tol)
    assert sign.dtype == logabsdet.dtype == dtype
    assert sign.shape == logabsdet.shape == leading


@pytest.mark.parametrize("det", DETS)
def test_the_determinant_of_nothing_is_one(det):
    assert det(np.zeros((0, 0))) == 1
    assert dets.slogdet_lu(np.zeros((0, 0))) == (1, 0)


@pytest.mark.parametrize("det", DETS)
@quick
@given(a=integer_matrices(2), scale=small, data=st.data())
def test_linear_in_each_row(det, a, scale, data):
    n = len(a)
    i = data.draw(st.integers(0, n - 1))
    row = data.draw(hnp.arrays(np.int64, n, elements=small))
    b, both = a.copy(), a.copy()
    b[i] = row
    both[i] = a[i] + scale * row
    assert det(both) == pytest.approx(det(a) + scale * det(b), rel=1e-9, abs=1e-5)


@pytest.mark.parametrize("det", DETS)
@quick
@given(a=integer_matrices(2), data=st.data())
def test_a_row_swap_flips_the_sign_and_a_repeated_row_collapses(det, a, data):
    i, j = data.draw(st.permutations(range(len(a))))[:2]
    swapped = a.copy()
    swapped[[i, j]] = a[[j, i]]
    assert det(swapped) == pytest.approx(-det(a), rel=1e-9, abs=1e-6)
    swapped[i] = swapped[j]
    assert det(swapped) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("det", DETS)
@quick
@given(a=integer_matrices(3, 3), b=integer_matrices(3, 3))
def test_product_transpose_and_identity(det, a, b):
    assert det(a @ b) == pytest.approx(det(a) * det(b), rel=1e-9, abs=1e-4)
    assert det(a.T) == pytest.approx(det(a), rel=1e-9, abs=1e-6)
    assert det(np.eye(3)) == 1


def test_det_of_the_inverse_is_the_reciprocal():
    a = np.random.default_rng(1).normal(size=(4, 5, 5))
    inverse = dets.solve_lu(dets.lu(a), np.eye(5))
    np.testing.assert_allclose(dets.det_lu(inverse), 1 / dets.det_lu(a), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("leading", [(), (6,), (2, 3)])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_lu_factors(n, leading, dtype):
    a = np.random.default_rng(n).normal(size=(*leading, n, n)).astype(dtype)
    permutation, lower, upper, sign = dets.lu(a)
    permuted = np.take_along_axis(a, permutation[..., None], -2)
    np.testing.assert_allclose(lower @ upper, permuted, atol=TOLERANCE[dtype] / 10)
    np.testing.assert_array_equal(np.triu(lower), np.broadcast_to(np.eye(n), lower.shape))
    np.testing.assert_array_equal(np.tril(upper, -1), 0)
    assert (np.abs(lower) <= 1).all()  # what partial pivoting promises
    np.testing.assert_allclose(sign, np.linalg.det(np.eye(n)[permutation]), atol=1e-12)
    assert lower.dtype == upper.dtype == sign.dtype == dtype


def test_lu_pivots_where_the_corner_is_zero():
    assert dets.det_lu([[0.0, 1.0], [1.0, 0.0]]) == -1
    tiny = np.array([[1e-20, 1.0], [1.0, 1.0]])  # without pivoting, 1 is lost beside 1e20
    assert dets.det_lu(tiny) == pytest.approx(-1)


def test_lu_leaves_its_argument_alone():
    a = np.random.default_rng(0).normal(size=(3, 3))
    before = a.copy()
    dets.lu(a)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize(
    "a",
    [
        np.zeros((3, 3)),
        [[1.0, 2.0], [2.0, 4.0]],
        [[0.0, 1.0], [0.0, 2.0]],
        [[0.0]],
        np.diag([1.0, 0.0, 1e300]),
    ],
)
def test_singular(a):
    assert dets.slogdet_lu(a) == (0, -math.inf)
    assert dets.det_lu(a) == 0
    with pytest.raises(ValueError, match="singular"):
        dets.solve_lu(dets.lu(a), np.ones((len(a), 1)))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_solve_lu(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(3, n, n)), rng.normal(size=(n, 2))
    np.testing.assert_allclose(dets.solve_lu(dets.lu(a), b), np.linalg.solve(a, b), rtol=1e-8, atol=1e-8)
    many = rng.normal(size=(4, 3, n, 2))  # one factorization, several right-hand sides
    np.testing.assert_allclose(
        dets.solve_lu(dets.lu(a), many), np.linalg.solve(a, many), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize(
    ("size", "logabsdet"), [(1e-200, 400 * math.log(1e-200)), (1e200, 400 * math.log(1e200))]
)
def test_det_leaves_the_range_of_floats_and_slogdet_does_not(size, logabsdet):
    a = np.diag(np.full(400, size))
    a[0, 0] *= -1
    with np.errstate(over="ignore"):
        assert abs(dets.det_lu(a)) == (0 if size < 1 else math.inf)
    for slogdet in (dets.slogdet_lu, dets.slogdet_triangular):
        assert slogdet(a).sign == -1
        assert slogdet(a).logabsdet == pytest.approx(logabsdet, rel=1e-12)
    assert dets.hadamard_bound(a) == pytest.approx(logabsdet, rel=1e-12)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_triangular(n, transpose):
    a = np.tril(np.random.default_rng(n).normal(size=(3, n, n)))
    a = a.swapaxes(-1, -2) if transpose else a
    expected = np.linalg.slogdet(a)
    np.testing.assert_array_equal(dets.slogdet_triangular(a).sign, expected.sign)
    np.testing.assert_allclose(
        dets.slogdet_triangular(a).logabsdet, expected.logabsdet, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(dets.det_triangular(a), np.linalg.det(a), rtol=1e-12)


@pytest.mark.parametrize("sizes", [(7,), (1, 6), (3, 4), (2, 0, 4, 1), (1,) * 7])
def test_block_triangular(sizes):
    a = np.random.default_rng(3).normal(size=(4, 7, 7))
    block = np.repeat(np.arange(len(sizes)), sizes)
    a = np.where(block[:, None] >= block, a, 0)
    sign, logabsdet = dets.slogdet_block_triangular(a, sizes)
    expected = np.linalg.slogdet(a)
    np.testing.assert_array_equal(sign, expected.sign)
    np.testing.assert_allclose(logabsdet, expected.logabsdet, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [0, 1, 3, 9])
@pytest.mark.parametrize("d", [0, 1, 2, 7])
def test_lemma(d, m, dtype):
    rng = np.random.default_rng(10 * d + m)
    v, w = rng.normal(size=(2, 4, d, m)).astype(dtype)
    diagonal = (rng.choice([-1, 1], size=d) * rng.uniform(0.5, 2, size=d)).astype(dtype)  # one for all four
    a = rng.normal(size=(4, d, d)).astype(dtype)
    tol = {np.float32: 2e-3, np.float64: 1e-9}[dtype]
    for base, results in [
        (np.diag(diagonal), [dets.slogdet_lemma(diagonal, v, w)]),
        (a, [dets.slogdet_lemma_general(a, v, w), dets.slogdet_lemma_general(dets.lu(a), v, w)]),
    ]:
        expected = np.linalg.slogdet((base + v @ w.swapaxes(-1, -2)).astype(np.float64))
        for sign, logabsdet in results:
            np.testing.assert_array_equal(sign, expected.sign)
            np.testing.assert_allclose(logabsdet, expected.logabsdet, rtol=tol, atol=tol)
            assert logabsdet.dtype == dtype
            assert logabsdet.shape == (4,)


def test_lemma_with_one_matrix_per_update_and_a_collapse():
    diagonal = np.array([[1.0, 2.0], [3.0, 4.0]])
    v = w = np.array([[1.0], [1.0]])
    expected = np.linalg.slogdet(diagonal[..., None] * np.eye(2) + v @ w.T)
    np.testing.assert_allclose(dets.slogdet_lemma(diagonal, v, w).logabsdet, expected.logabsdet)
    assert dets.slogdet_lemma([1.0, 1.0], [[-1.0], [0.0]], [[1.0], [5.0]]) == (0, -math.inf)  # w.v = -1


def test_lemma_does_not_overflow():
    d = 500
    sign, logabsdet = dets.slogdet_lemma(np.full(d, 1e300), np.full((d, 1), 1e150), np.full((d, 1), 1e150))
    assert sign == 1
    assert logabsdet == pytest.approx(d * math.log(1e300) + math.log(1 + d), rel=1e-12)


@quick
@given(
    a=st.integers(0, 6).flatmap(
        lambda n: hnp.arrays(np.float64, (n, n), elements=st.floats(-10, 10, allow_subnormal=False))
    )
)
def test_hadamard_bounds_the_determinant(a):
    logabsdet = dets.slogdet_lu(a).logabsdet
    assert logabsdet <= dets.hadamard_bound(a) + 1e-9
    assert logabsdet <= dets.hadamard_bound(a.T) + 1e-9


def test_hadamard_is_tight_for_orthogonal_rows_and_safe_at_extremes():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))
    stretch = np.array([1e-300, 1e-3, 1, 1e3, 1e300, 5, 7])[:, None]
    assert dets.hadamard_bound(stretch * q) == pytest.approx(np.log(stretch).sum(), abs=1e-9)
    assert dets.hadamard_bound([[0.0, 0.0], [1.0, 2.0]]) == -math.inf
    assert dets.hadamard_bound(np.ones((3, 2, 2), np.float32)).dtype == np.float32


@pytest.mark.parametrize("memo", [False, True])
@pytest.mark.parametrize("n", range(8))
def test_multiplications_of_a_full_matrix(n, memo):
    counted = dets.laplace(np.ones((2, n, n)), memo=memo).multiplications
    assert counted == dets.laplace_multiplications(n, memo=memo)


def test_the_cost_of_laplace_grows_as_the_factorial():
    assert dets.laplace_multiplications(15) / math.factorial(15) == pytest.approx(math.e - 1, rel=1e-9)
    assert dets.laplace_multiplications(20, memo=True) == 20 * 2**19 - 20


def test_zeros_make_laplace_cheap():
    n = 12
    lower = np.tril(np.random.default_rng(0).normal(size=(n, n)))
    det, multiplications = dets.laplace(lower)
    assert det == pytest.approx(np.diagonal(lower).prod(), rel=1e-12)
    assert multiplications == n - 1
    upper = dets.laplace(lower.T, memo=True)
    assert upper.det == pytest.approx(det, rel=1e-12)
    assert upper.multiplications > 100 * n


def test_a_tridiagonal_matrix_with_memo():
    n = 12
    a = np.diag(np.full(n, 2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    det, multiplications = dets.laplace(a, memo=True)
    assert det == n + 1  # the recurrence D_n = 2 D_(n-1) - D_(n-2)
    assert multiplications == n * (n + 1) // 2 + n - 3  # quadratic, where a full matrix takes 2^n


def test_a_batch_skips_what_is_zero_in_all_its_matrices():
    a = np.zeros((2, 3, 3))
    a[0] = np.eye(3)
    a[1] = np.eye(3)[[1, 0, 2]]
    np.testing.assert_array_equal(dets.det_laplace(a), [1, -1])
    assert dets.laplace(a).multiplications > dets.laplace(a[0]).multiplications == 2


class Counted:
    """A number that counts the multiplications and divisions done with it."""

    done = 0

    def __init__(self, value):
        self.value = value

    def _count(self, value):
        Counted.done += 1
        return Counted(value)

    def __mul__(self, other):
        return self._count(self.value * other.value)

    def __truediv__(self, other):
        return self._count(self.value / other.value)

    def __sub__(self, other):
        return Counted(self.value - other.value)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_multiplications_of_lu(n):
    """Elimination on paper, on numbers that count."""
    a = np.random.default_rng(n).normal(size=(n, n)) + 5 * np.eye(n)
    rows = [[Counted(x) for x in row] for row in a]
    Counted.done = 0
    for k in range(n):
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i][k + 1 :] = [
                x - factor * y for x, y in zip(rows[i][k + 1 :], rows[k][k + 1 :], strict=True)
            ]
    det = rows[0][0] if n else Counted(1.0)
    for k in range(1, n):
        det = det * rows[k][k]
    assert det.value == pytest.approx(dets.det_lu(a))
    assert Counted.done == dets.lu_multiplications(n)


def test_the_lemma_is_cheaper_until_its_rank_nears_the_dimension():
    cheaper = [m for m in range(1, 101) if dets.lemma_multiplications(100, m) < dets.lu_multiplications(100)]
    assert cheaper == list(range(1, len(cheaper) + 1))
    assert 50 <= len(cheaper) < 60


@pytest.mark.parametrize(
    "function",
    [
        *DETS,
        dets.slogdet_lu,
        dets.slogdet_triangular,
        dets.det_triangular,
        dets.hadamard_bound,
        dets.lu,
        dets.laplace,
    ],
)
@pytest.mark.parametrize("a", [3.0, [1.0, 2.0], np.ones((2, 3)), np.ones((2, 2, 3))])
def test_not_square(function, a):
    with pytest.raises(ValueError, match="must be square"):
        function(a)


@pytest.mark.parametrize("a", [[["a"]], [[None]], np.eye(2) * 1j])
def test_not_real(a):
    with pytest.raises(TypeError, match="real numbers"):
        dets.det_lu(a)


def test_wrong_shapes_and_zeros_are_named():
    with pytest.raises(ValueError, match=r"v\[:, None\]"):
        dets.slogdet_lemma(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, m\)"):
        dets.slogdet_lemma(np.ones(3), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"\(\.\.\., 1, m\)"):
        dets.slogdet_lemma(2.0, np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="v and w"):
        dets.slogdet_lemma_general(np.eye(3), np.ones((3, 1)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="has a zero"):
        dets.slogdet_lemma([1.0, 0.0], np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="singular"):
        dets.slogdet_lemma_general(np.zeros((2, 2)), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="sum to 3"):
        dets.slogdet_block_triangular(np.eye(3), [1, 1])


def test_nan_is_not_hidden():
    a = np.eye(3)
    a[1, 1] = np.nan
    for det in DETS:
        assert np.isnan(det(a))
    assert np.isnan(dets.slogdet_lu(a).logabsdet)
