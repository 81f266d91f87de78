"""Likelihoods against high-precision arithmetic, scipy, and their own sums, moments and frequencies."""

import math

import mpmath
import pytest
import scipy.stats
import torch

from flowkit.likelihoods import (
    Centre,
    bernoulli,
    categorical,
    centred,
    log_sigmoid_difference,
    logistic_mixture,
    logistic_mixture_parts,
    normal,
)

DISCRETE = {
    "bernoulli": bernoulli(),
    "categorical": categorical(5),
    "logistic": logistic_mixture(5, 1),
    "mixture": logistic_mixture(17, 3),
    "two levels": logistic_mixture(2, 2),
}


def randn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_probabilities_of_all_levels_sum_to_one(name, scale):
    p = DISCRETE[name]
    params = randn(7, 2, p.size, scale=scale)
    log_p = torch.stack([p.log_prob(torch.full((7, 2), x), params) for x in range(p.levels)])
    assert log_p.shape == (p.levels, 7, 2)
    torch.testing.assert_close(log_p.logsumexp(0), torch.zeros(7, 2).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_samples_have_the_frequencies_of_the_probabilities(name):
    p = DISCRETE[name]
    params = randn(p.size, seed=3)
    torch.manual_seed(0)
    x = p.sample(params.expand(40_000, -1))
    probability = torch.stack([p.log_prob(torch.tensor(k), params) for k in range(p.levels)]).exp()
    frequency = torch.bincount(x.long(), minlength=p.levels) / len(x)
    assert ((frequency - probability).abs() < 5 * (probability / len(x)).sqrt() + 1e-4).all()


def test_categorical_is_scipys():
    logits = randn(6, 4)
    x = torch.tensor([0, 1, 2, 3, 0, 2])
    weights = logits.softmax(-1).numpy()
    want = [scipy.stats.rv_discrete(values=(range(4), w)).logpmf(k) for w, k in zip(weights, x, strict=True)]
    torch.testing.assert_close(categorical(4).log_prob(x, logits), torch.tensor(want), rtol=0, atol=1e-12)


def test_the_mixture_is_a_sum_of_differences_of_scipys_logistic():
    levels, params = 9, randn(9, 3 * 4)
    log_weights, means, log_scales = logistic_mixture_parts(params)
    y, half = centred(torch.arange(9.0).double(), levels)[:, None], 1 / 8
    upper, lower = (y + half).numpy(), (y - half).numpy()
    upper[-1], lower[0] = math.inf, -math.inf
    cells = scipy.stats.logistic(means.numpy(), log_scales.exp().numpy())
    want = (log_weights.exp() * torch.from_numpy(cells.cdf(upper) - cells.cdf(lower))).sum(-1).log()
    got = logistic_mixture(levels, 4).log_prob(torch.arange(9), params)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("a", [-1000.0, -40.0, -3.0, 0.0, 5.0, 40.0, 700.0, 1000.0])
@pytest.mark.parametrize("width", [1e-9, 1e-3, 1.0, 50.0])
def test_the_difference_keeps_its_digits_in_the_tails(a, width):
    with mpmath.workdps(1000):
        exact = mpmath.log(
            1 / (1 + mpmath.exp(-mpmath.mpf(a) - width)) - 1 / (1 + mpmath.exp(-mpmath.mpf(a)))
        )
        exact = float(exact)
    got = log_sigmoid_difference(*torch.tensor([a, width], dtype=torch.float64))
    assert got.item() == pytest.approx(exact, rel=1e-13)
    single = log_sigmoid_difference(torch.tensor(a), torch.tensor(width))
    assert single.item() == pytest.approx(exact, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("extreme", [1e2, 1e4, -1e4])
def test_extreme_parameters_give_finite_values_and_gradients(name, extreme):
    p = DISCRETE[name]
    for corner in range(p.size):
        params = torch.zeros(p.levels, p.size)
        params[:, corner] = extreme
        params.requires_grad_()
        log_p = p.log_prob(torch.arange(p.levels), params)
        log_p.sum().backward()
        assert log_p.isfinite().all()
        assert params.grad.isfinite().all()
        assert p.sample(params.detach()).isfinite().all()


def test_a_level_far_from_the_mean_pulls_it_in_single_precision():
    params = torch.tensor([0.0, 0.0, -3.0], requires_grad=True)  # one component at 0, scale about exp(-3)
    logistic_mixture(17, 1).log_prob(torch.tensor(15), params).backward()
    assert params.grad[1] > 10


def test_components_part():
    params = torch.zeros(2, 9, requires_grad=True)
    logistic_mixture(17, 3).log_prob(torch.tensor([2, 9]), params).sum().backward()
    assert len(set(params.grad[0, 3:6].tolist())) == 3


def test_bernoulli_is_binary_cross_entropy_and_normal_is_scipys():
    x, logits = torch.tensor([0.0, 1.0, 1.0]).double(), randn(3, 1)
    want = -torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], x, reduction="none")
    torch.testing.assert_close(bernoulli().log_prob(x, logits), want, rtol=1e-12, atol=1e-12)
    x, params = randn(5), randn(5, 2, seed=1)
    scale = (7 * torch.tanh(params[:, 1] / 7)).exp()
    want = torch.from_numpy(scipy.stats.norm(params[:, 0].numpy(), scale.numpy()).logpdf(x.numpy()))
    torch.testing.assert_close(normal().log_prob(x, params), want, rtol=1e-12, atol=1e-12)
    torch.manual_seed(0)
    draws = normal().sample(torch.tensor([2.0, -0.7]).expand(20_000, 2))
    assert draws.mean().item() == pytest.approx(2, abs=0.02)
    assert draws.std().log().item() == pytest.approx(7 * math.tanh(-0.1), abs=0.03)


def test_centred_spans_minus_one_to_one():
    x = torch.arange(5.0)
    assert Centre(5)(x).tolist() == [-1, -0.5, 0, 0.5, 1]


@pytest.mark.parametrize("p", [categorical(4), logistic_mixture(4)], ids=["categorical", "mixture"])
@pytest.mark.parametrize("x", [-1.0, 4.0, 1.5, math.nan])
def test_what_is_not_a_level_is_refused(p, x):
    with pytest.raises(ValueError, match=r"levels 0 \.\.\. 3 as whole numbers"):
        p.log_prob(torch.tensor([0.0, x]), torch.zeros(2, p.size))


def test_wrong_counts_are_refused():
    for make in (categorical, logistic_mixture):
        with pytest.raises(ValueError, match="at least 2"):
            make(1)
    with pytest.raises(ValueError, match="at least one component"):
        logistic_mixture(4, 0)
