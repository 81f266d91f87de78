"""The numbers that lesson 02 states in its prose."""

import math

import numpy as np
import pytest


def test_the_slope_of_the_first_figure_peaks_at_2_and_its_density_further_in():
    x = np.linspace(0, 5, 5001)
    z = 0.4 * x + np.tanh(1.5 * (x + 2)) + np.tanh(1.5 * (x - 2))
    slope = 0.4 + 1.5 / np.cosh(1.5 * (x + 2)) ** 2 + 1.5 / np.cosh(1.5 * (x - 2)) ** 2
    assert x[slope.argmax()] == pytest.approx(2, abs=0.01)
    assert x[(np.exp(-0.5 * z**2) * slope).argmax()] == pytest.approx(1.5, abs=0.05)


def test_chance_moves_the_fractions_of_4000_samples_by_0_01_to_0_02():
    ranks = np.arange(4001) / 4000
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(200):
        u = np.sort(rng.uniform(size=4000))
        gaps.append(max((ranks[1:] - u).max(), (u - ranks[:-1]).max()))
    assert 0.008 < np.quantile(gaps, 0.1) < np.quantile(gaps, 0.9) < 0.022
    assert max(gaps) < 0.05


def test_the_bend_of_the_chain_has_a_slope_between_0_2_and_1():
    h = np.linspace(-20, 20, 4001)
    slope = np.gradient(h - 0.8 * np.tanh(h), h)
    assert slope.min() == pytest.approx(0.2, abs=1e-3)
    assert slope.max() <= 1 + 1e-9


def test_the_wrong_sign_of_the_log_determinant_crushes_and_then_explodes():
    u, a, b, path = 1.0 + 0.6 * np.random.default_rng(6).normal(size=5000), 1.0, 0.0, []
    for _ in range(20):
        z = a * u + b
        a, b = a - 0.05 * (np.mean(z * u) + 1 / a), b - 0.05 * np.mean(z)
        path.append(a)
    assert min(abs(a) for a in path) < 0.1
    assert max(abs(step) for step in np.diff(path)) > 0.5


def test_seconds_cost_log_60():
    assert math.log(60) == pytest.approx(4.1, abs=0.01)
