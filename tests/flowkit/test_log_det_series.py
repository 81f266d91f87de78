"""The power series of log det(I + J): truncated, probed, and by Russian roulette."""

import itertools
import math

import numpy as np
import pytest
import torch

from flowkit.hutchinson import gaussian, rademacher
from flowkit.log_det_series import (
    PowerSeries,
    Roulette,
    exact,
    geometric,
    jacobian,
    probed_series,
    roulette_weights,
    series_log_det,
    terms_for,
    truncation_bound,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def contraction(dim, norm, seed=0):
    """A random matrix (D, D) of the given spectral norm."""
    A = randn(dim, dim, seed=seed)
    return norm * A / torch.linalg.matrix_norm(A, 2)


def curved(dim=4, seed=0):
    """x and g(x) = A tanh(B x), whose Jacobian changes from point to point, and A."""
    A, B = (contraction(dim, 0.8, seed=seed + k).requires_grad_() for k in (0, 1))
    x = randn(3, dim, seed=seed + 2).requires_grad_()
    return x, torch.tanh(x @ B.mT) @ A.mT, A


def all_signs(dim):
    """The 2^D vectors of signs: averaging over them is the expectation over a Rademacher probe."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dim)), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_exact_is_the_log_det_of_the_jacobian():
    x, g, A = curved()
    J = torch.autograd.functional.jacobian(lambda x: torch.tanh(x @ contraction(4, 0.8, 1).mT) @ A.mT, x[0])
    close(jacobian(g, x)[0], J)
    close(exact(g, x)[0], torch.linalg.det(torch.eye(4) + J).log())
    assert exact(g, x).requires_grad is False
    (grad,) = torch.autograd.grad(exact(g, x, True).sum(), x)
    assert (grad != 0).all()


def test_the_bias_of_the_truncated_series_attains_the_bound_on_minus_c_x():
    x, c = randn(5, 3).requires_grad_(), 0.9
    truth = 3 * math.log(1 - c)
    for terms, bits in ((5, 0.68), (10, 0.27), (20, 0.057)):
        got = PowerSeries(terms)(-c * x, x)
        close(got - truth, torch.full_like(got, 3 * truncation_bound(c, terms)), 1e-10)
        assert (got[0] - truth).item() / 3 / math.log(2) == pytest.approx(bits, rel=0.02)
        tail = c ** (terms + 1) / (terms + 1) / (1 - c)
        assert 0 < truncation_bound(c, terms) < tail


@pytest.mark.parametrize("norm", [0.3, 0.9])
def test_no_jacobian_goes_beyond_the_bound(norm):
    for seed, terms in itertools.product(range(10), (1, 2, 7)):
        J = contraction(5, norm, seed)
        error = series_log_det(J, [1] * terms) - torch.linalg.slogdet(torch.eye(5) + J).logabsdet
        assert abs(error) < 5 * truncation_bound(norm, terms)


def test_terms_for_is_the_least_number():
    for lipschitz, error in ((0.5, 1e-3), (0.9, 1e-6), (0.1, 0.2)):
        n = terms_for(lipschitz, error)
        assert truncation_bound(lipschitz, n) <= error
        assert n == 0 or truncation_bound(lipschitz, n - 1) > error


def averaged(neumann, weights):
    """The probed series averaged over all probes of signs, and the gradient of its sum in A."""
    x, g, A = curved()
    total = sum(
        probed_series(g, x, v.expand(3, 4), weights, True, neumann) for v in all_signs(4)
    ) / 16  # fmt: skip
    return total, torch.autograd.grad(total.sum(), (A, x))


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 6, roulette_weights(5)])
def test_both_gradients_are_in_expectation_that_of_the_exact_traces(weights):
    x, g, A = curved()
    want = series_log_det(jacobian(g, x, True), weights)
    want_grads = torch.autograd.grad(want.sum(), (A, x))
    for neumann in (False, True):
        total, grads = averaged(neumann, weights)
        close(total, want)
        close(grads, want_grads)


def test_neumann_changes_the_noise_of_the_gradient_and_not_the_value():
    x, g, A = curved()
    v = rademacher(x, seeded())
    plain, neumann = (probed_series(g, x, v, [1.0] * 5, True, way) for way in (False, True))
    close(plain, neumann)
    close(probed_series(g, x, v, [1.0] * 5, False), plain.detach())
    grads = [torch.autograd.grad(total.sum(), A, retain_graph=True)[0] for total in (plain, neumann)]
    assert (grads[0] - grads[1]).abs().max() > 1e-3


def saved_bytes(terms, neumann):
    """What autograd keeps for the gradient of a probed series of a small network."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 8))
    x, kept = torch.randn(64, 8, requires_grad=True), 0

    def pack(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        PowerSeries(terms, rademacher, neumann)(net(x), x, True)
    return kept


def test_the_memory_of_the_neumann_gradient_is_flat_in_the_number_of_terms():
    assert saved_bytes(2, True) == saved_bytes(40, True) > 0
    assert saved_bytes(40, False) > 10 * saved_bytes(2, False) > 0


def test_numpy_and_torch_count_geometric_draws_differently():
    ours = np.array([geometric(0.5, generator) for generator in [seeded()] for _ in range(20_000)])
    numpy = np.random.default_rng(0).geometric(0.5, 20_000)
    torch.manual_seed(0)
    failures = torch.distributions.Geometric(0.5).sample((20_000,)).numpy()
    assert (ours.min(), numpy.min(), failures.min()) == (1, 1, 0)
    error = 5 * math.sqrt(2 / 20_000)  # the variance is (1 - p) / p^2 = 2
    for draws, mean in ((ours, 2), (numpy, 2), (failures, 1)):
        assert draws.mean() == pytest.approx(mean, abs=error)
    shares = np.bincount(ours, minlength=5)[1:5] / len(ours)
    assert np.abs(shares - [1 / 2, 1 / 4, 1 / 8, 1 / 16]).max() < 0.02


def expected(terms, p, exact_terms, failures=False):
    """The roulette's expectation for the terms a_k, over N; with failures, N counts as torch's class does."""
    total = 0.0
    for n in range(0 if failures else 1, 200):
        weights = roulette_weights(exact_terms + n, p, exact_terms)
        probability = p * (1 - p) ** (n if failures else n - 1)
        total += probability * sum(a * w for a, w in zip(terms, weights, strict=False))
    return total


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("exact_terms", [0, 1, 2, 10])
def test_the_weights_make_the_roulette_unbiased_and_the_other_support_does_not(p, exact_terms):
    terms = [-(0.3**k) / k for k in range(1, 40)]
    assert expected(terms, p, exact_terms) == pytest.approx(math.log(0.7), abs=1e-12)
    lost = p * sum(terms[exact_terms:])  # every rouletted term comes 1 - p times as often as its weight says
    biased = expected(terms, p, exact_terms, failures=True)
    assert biased == pytest.approx(math.log(0.7) - lost, abs=1e-12)
    assert exact_terms == 10 or abs(lost) > 1e-3


def test_the_roulette_takes_four_terms_on_average():
    taken = [2 + geometric(0.5, generator) for generator in [seeded(1)] for _ in range(10_000)]
    assert np.mean(taken) == pytest.approx(Roulette().expected_terms, abs=5 * math.sqrt(2 / 10_000))
    assert Roulette().expected_terms == 4
    assert Roulette(p=0.25, exact_terms=3).expected_terms == 7


def roulette_variance(terms, p, exact_terms):
    """sum over j, k of a_j a_k (1 / P(N >= min(j, k)) - 1): the variance with exact traces."""
    a = np.array(terms)
    weights = np.array(roulette_weights(len(a), p, exact_terms))
    order = np.minimum.outer(np.arange(len(a)), np.arange(len(a)))
    return float(a @ (weights[order] - 1) @ a)


def test_the_roulette_is_unbiased_with_the_standard_error_of_the_formula():
    """The mean of 5000 calls must lie within four standard errors (6e-3 nats) of log det."""
    x, c = torch.ones(1, dtype=torch.float64, requires_grad=True), 0.6
    estimate, draws = Roulette(probe=None, generator=seeded()), 5000
    g = -c * x
    values = torch.stack([estimate(g, x) for _ in range(draws)])
    error = math.sqrt(roulette_variance([-(c**k) / k for k in range(1, 300)], 0.5, 2) / draws)
    assert 4 * error < 6e-3
    assert abs(values.mean() - math.log(1 - c)) < 4 * error
    assert values.std().item() / math.sqrt(draws) == pytest.approx(error, rel=0.2)
    assert abs(values.mean() - series_log_det(torch.full((1, 1), -c), [1.0] * 4)) > 20 * error


def test_the_probed_roulette_is_unbiased_on_a_curved_map():
    x, g, _ = curved(seed=5)
    estimate, truth = Roulette(generator=seeded(3)), exact(g, x)
    values = torch.stack([estimate(g, x) for _ in range(4000)])
    error = values.std(0) / math.sqrt(len(values))
    assert error.max() < 0.03
    assert ((values.mean(0) - truth).abs() < 4 * error).all()


def test_beyond_the_root_of_one_minus_p_the_variance_grows_without_end():
    def variance(c, count):
        return roulette_variance([-(c**k) / k for k in range(1, count)], 0.5, 2)

    assert variance(0.65, 800) == pytest.approx(variance(0.65, 400), rel=1e-3)
    assert variance(0.8, 400) > 1e3 * variance(0.8, 200)


def test_one_seed_gives_one_estimate():
    x, g, _ = curved()
    for make in (Roulette, lambda generator: PowerSeries(3, gaussian, generator=generator)):
        a, b, c = (make(generator=seeded(seed))(g, x) for seed in (0, 0, 1))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerSeries(0), "one term or more"),
        (lambda: Roulette(p=0.0), "0 < p < 1"),
        (lambda: Roulette(p=1.0), "0 < p < 1"),
        (lambda: Roulette(exact_terms=-1), "exact_terms >= 0"),
        (lambda: truncation_bound(1.0, 3), "below one"),
        (lambda: terms_for(0.5, 0.0), "must be positive"),
    ],
)
def test_what_has_no_meaning_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
