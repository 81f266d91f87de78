"""Hutchinson's estimator: its probes, and that its variance is the formula."""

import itertools
import math

import pytest
import torch

from flowkit.hutchinson import gaussian, hutchinson_variance, rademacher


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def all_signs(dim):
    """The 2^D vectors of signs: averaging over them is the expectation over a Rademacher probe."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dim)), dtype=torch.float64)


@pytest.mark.parametrize("probe", [rademacher, gaussian])
def test_probes_have_mean_zero_and_the_identity_as_covariance(probe):
    v = probe(torch.empty(40_000, 3, dtype=torch.float64), seeded())
    assert v.dtype == torch.float64
    assert v.mean(0).abs().max() < 5 / 200
    assert (v.mT @ v / len(v) - torch.eye(3)).abs().max() < 5 * math.sqrt(2) / 200
    if probe is rademacher:
        assert set(v.unique().tolist()) == {-1.0, 1.0}
    else:
        assert v.pow(4).mean() == pytest.approx(3, abs=5 * math.sqrt(96 / 120_000))


def test_hutchinson_is_unbiased_and_its_variance_is_the_formula():
    A, v = randn(4, 4), all_signs(4)
    draws = ((v @ A) * v).sum(-1)
    close(draws.mean(), A.trace())
    close(draws.var(correction=0), hutchinson_variance(A, rademacher))
    v = gaussian(torch.empty(400_000, 4, dtype=torch.float64), seeded())
    draws = ((v @ A) * v).sum(-1)
    variance = hutchinson_variance(A, gaussian)
    assert abs(draws.mean() - A.trace()) < 4 * (variance / len(v)).sqrt()
    assert draws.var() == pytest.approx(variance.item(), rel=0.03)
    with pytest.raises(ValueError, match="rademacher and gaussian"):
        hutchinson_variance(A, torch.rand_like)


@pytest.mark.parametrize("probe", [rademacher, gaussian])
def test_a_rotation_adds_no_variance(probe):
    A = randn(5, 5)
    close(hutchinson_variance(A - A.mT, probe), torch.zeros(()).double())
