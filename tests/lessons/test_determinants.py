"""The numbers that lesson 04 states in its prose."""

import math
from fractions import Fraction

import numpy as np
import pytest

from flowkit import determinants as dets

FULL = np.random.default_rng(0).uniform(0.5, 2, size=(7, 7))


def cheapest_losing_rank(d):
    """The first rank for which the lemma, as the lesson counts it, takes no fewer multiplications."""
    return next(m for m in range(1, d + 2) if 3 * d * m * (m + 1) + m**3 - m >= d**3 - d)


def test_a_full_matrix_takes_about_1_72_n_factorial_multiplications():
    for n in (8, 12, 20):
        share = Fraction(dets.laplace_multiplications(n), math.factorial(n))
        assert float(share) == pytest.approx(1.72, abs=0.005)


def test_a_full_4_x_4_matrix_takes_40_and_28_with_the_memo():
    assert dets.laplace(FULL[:4, :4]).multiplications == 40
    assert dets.laplace(FULL[:4, :4], memo=True).multiplications == 28


def test_a_lower_triangle_takes_6_and_an_upper_one_731():
    assert dets.laplace(np.tril(FULL)).multiplications == 6
    assert dets.laplace(np.triu(FULL)).multiplications == 731


def test_most_of_the_731_go_into_minors_that_are_zero():
    """Along an upper triangle, only the minor below the corner is not zero: all else is wasted."""
    wasted = dets.laplace(np.triu(FULL)).multiplications - sum(range(2, 8))
    corner_removed = [np.delete(np.triu(FULL)[1:], j, axis=1) for j in range(1, 7)]
    assert all(dets.laplace(minor).det == 0 for minor in corner_removed)
    assert wasted > 0.9 * 731


def test_a_full_count_over_n_factorial_is_a_partial_sum_of_e_minus_1():
    for n in (2, 5, 9):
        share = Fraction(dets.laplace_multiplications(n), math.factorial(n))
        assert share == sum(Fraction(1, math.factorial(k)) for k in range(1, n))


def test_laplace_outlasts_the_universe_from_26_rows_and_a_second_from_13():
    universe = 13.8e9 * 365.25 * 86400
    assert dets.laplace_multiplications(25) < 1e9 * universe < dets.laplace_multiplications(26)
    assert dets.laplace_multiplications(12) < 1e9 < dets.laplace_multiplications(13)


def test_a_small_photograph_takes_some_ten_billion_multiplications():
    assert dets.lu_multiplications(3072) == pytest.approx(1e10, rel=0.05)


def test_the_lemma_pays_up_to_0_53_d():
    assert cheapest_losing_rank(3) - 1 == 1
    assert cheapest_losing_rank(300) - 1 == 159
    for d in (1000, 3000):
        assert (cheapest_losing_rank(d) - 1) / d == pytest.approx(0.53, abs=0.005)
    mu = (cheapest_losing_rank(3000) - 1) / 3000
    assert 3 * mu**2 + mu**3 == pytest.approx(1, abs=0.005)


def test_a_random_matrix_of_310_rows_overflows_and_its_slogdet_does_not():
    large = np.random.default_rng(0).normal(size=(310, 310))
    with np.errstate(over="ignore"):
        assert np.isinf(np.linalg.det(large))
    assert math.isfinite(dets.slogdet_lu(large).logabsdet)
    assert np.linalg.det(1e-3 * np.eye(200)) == 0
    assert dets.slogdet_lu(1e-3 * np.eye(200)).logabsdet == pytest.approx(200 * math.log(1e-3))
