"""Ratios of densities from classifiers, against closed forms and quadrature."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from flowkit.density_ratio import (
    ClassifierRatio,
    Diagnosis,
    classification_loss,
    diagnose,
    fit_ratio,
    gaussian_kl,
    gaussian_log_ratio,
    js_from_log_ratio,
    kl_donsker_varadhan,
    kl_fenchel,
    kl_plug_in,
    log_prior_odds,
    log_ratio_from_logit,
    logit_from_log_ratio,
)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def covariance(dim, seed):
    A = randn(dim, dim, seed=seed)
    return A @ A.mT / dim + 0.3 * torch.eye(dim)


def normal(mean, std):
    return Normal(*torch.tensor([mean, std], dtype=torch.float64))


def quadrature(f, p):
    """E_p f by the trapezoid rule on a line that holds all of p."""
    x = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    return torch.trapezoid(p.log_prob(x).exp() * f(x), x)


def js(p, q):
    """The Jensen-Shannon divergence, by its definition."""

    def to_middle(a):
        return lambda x: a.log_prob(x) - torch.logaddexp(p.log_prob(x), q.log_prob(x)) + math.log(2)

    return (quadrature(to_middle(p), p) + quadrature(to_middle(q), q)) / 2


class Quadratic(nn.Module):
    """The features x and x^2: with them logistic regression holds the log-ratio of all 1-D Gaussians."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(torch.cat((x, x.square()), -1))


@pytest.mark.parametrize("dim", [1, 4])
def test_the_ratio_and_the_kl_of_gaussians(dim):
    means, covs = randn(2, dim), [covariance(dim, seed) for seed in (1, 2)]
    p, q = (MultivariateNormal(mean, cov) for mean, cov in zip(means, covs, strict=True))
    parts = (means[0], covs[0], means[1], covs[1])
    x = randn(2, 5, dim, seed=3)
    difference = x - means[0], x - means[1]
    want = sum(
        sign * (torch.einsum("...i,ij,...j", d, cov.inverse(), d) + cov.logdet()) / 2
        for sign, d, cov in zip((-1, 1), difference, covs, strict=True)
    )
    torch.testing.assert_close(gaussian_log_ratio(x, *parts), want)
    torch.testing.assert_close(gaussian_kl(*parts), kl_divergence(p, q))
    back = (parts[2], parts[3], parts[0], parts[1])
    torch.testing.assert_close(gaussian_log_ratio(x, *back), -want)
    assert gaussian_kl(*parts[:2], *parts[:2]).abs() < 1e-12


@pytest.mark.parametrize(("count_p", "count_q"), [(1, 1), (3, 1), (1, 9)])
def test_the_logit_is_bayes_rule_and_the_prior_is_taken_off(count_p, count_q):
    p, q, x = normal(0.0, 1.0), normal(1.0, 2.0), torch.linspace(-3, 3, 11, dtype=torch.float64)
    share = count_p / (count_p + count_q)
    joint_p, joint_q = share * p.log_prob(x).exp(), (1 - share) * q.log_prob(x).exp()
    posterior = joint_p / (joint_p + joint_q)
    prior = log_prior_odds(count_p, count_q)
    log_ratio = p.log_prob(x) - q.log_prob(x)
    torch.testing.assert_close(logit_from_log_ratio(log_ratio, prior).sigmoid(), posterior)
    torch.testing.assert_close(log_ratio_from_logit(posterior.logit(), prior), log_ratio)


def test_the_loss_is_least_at_the_ratio_plus_the_prior_of_its_points():
    """On the exact measures, with three times as many points of p: a gradient of zero, and uphill around."""
    x = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    p, q = normal(0.0, 1.0), normal(1.0, 1.5)
    best = logit_from_log_ratio(p.log_prob(x) - q.log_prob(x), math.log(3)).requires_grad_()
    weights_p, weights_q = 3 * p.log_prob(x).exp(), q.log_prob(x).exp()

    def loss(logit):
        return (nn.functional.softplus(-logit) * weights_p + nn.functional.softplus(logit) * weights_q).sum()

    (slope,) = torch.autograd.grad(loss(best), best)
    assert slope.abs().max() < 1e-12
    assert loss(best) < min(loss(best + 0.1), loss(best - 0.1), loss(best - math.log(3)))


def test_the_classification_loss_is_the_cross_entropy():
    logit_p, logit_q = randn(7), randn(3, seed=1)
    want = nn.functional.binary_cross_entropy_with_logits(
        torch.cat((logit_p, logit_q)), (torch.arange(10) < 7).double()
    )
    torch.testing.assert_close(classification_loss(logit_p, logit_q), want)
    extreme = classification_loss(torch.tensor([1e4, -1e4]), torch.tensor([1e4, -1e4]))
    assert extreme == pytest.approx(5e3)


@pytest.mark.parametrize(("count_p", "count_q"), [(20_000, 20_000), (30_000, 3000)])
def test_a_classifier_learns_the_ratio_of_two_gaussians(count_p, count_q):
    torch.manual_seed(0)
    p, q = normal(0.5, 0.7), normal(0.0, 1.0)
    x_p = 0.5 + 0.7 * randn(count_p, 1, dtype=torch.float32)
    x_q = randn(count_q, 1, seed=1, dtype=torch.float32)
    ratio = ClassifierRatio(Quadratic())
    losses = fit_ratio(ratio, x_p, x_q, steps=600, lr=0.05, batch=512)
    x = torch.linspace(-1, 2, 13)
    truth = (p.log_prob(x) - q.log_prob(x)).float()
    with torch.no_grad():
        got, logit = ratio(x[:, None]), ratio.logit(x[:, None])
    assert (got - truth).abs().max() < 0.2
    assert losses.shape == (600,)
    assert losses[-100:].mean() < losses[:10].mean()
    if count_p != count_q:  # with the prior left in it is off everywhere
        assert (logit - truth).abs().min() > math.log(10) - 0.3
    assert ratio.prior == pytest.approx(math.log(count_p / count_q))


def test_a_fit_depends_on_its_seed_alone():
    def weight(seed):
        torch.manual_seed(0)
        ratio = ClassifierRatio(nn.Linear(2, 1))
        state = torch.get_rng_state()
        fit_ratio(ratio, randn(50, 2).float() + 1, randn(50, 2).float(), 20, batch=8, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return ratio.net.weight.detach().clone()

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


PAIRS = [((0.0, 1.0), (0.5, 1.5)), ((0.0, 1.0), (2.0, 0.8)), ((0.3, 0.7), (0.3, 0.7))]


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_divergences_from_the_true_ratio(p, q):
    """Samples against closed form and quadrature, within five standard errors of 400 000 points."""
    p, q = normal(*p), normal(*q)
    count = 400_000
    x_p, x_q = p.mean + p.stddev * randn(count), q.mean + q.stddev * randn(count, seed=1)
    on_p, on_q = (p.log_prob(x) - q.log_prob(x) for x in (x_p, x_q))
    kl = kl_divergence(p, q)
    assert kl_plug_in(on_p) == pytest.approx(kl.item(), abs=5 * on_p.std().item() / math.sqrt(count))
    spread = 5 * (on_p.std() + on_q.exp().std()).item() / math.sqrt(count) + 1e-12
    for bound in (kl_donsker_varadhan, kl_fenchel):
        assert bound(on_p, on_q).item() == pytest.approx(kl.item(), abs=spread)
    assert js_from_log_ratio(on_p, on_q).item() == pytest.approx(js(p, q).item(), abs=2e-3)


@pytest.mark.parametrize("shift", [-1.0, 0.3, 2.0])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3])
def test_the_bounds_are_bounds_for_wrong_ratios(shift, scale):
    """By quadrature, with T = scale * log p / q + shift: exact expectations, so that a bound cannot slip."""
    p, q = normal(0.0, 1.0), normal(0.7, 1.2)

    def T(x):
        return scale * (p.log_prob(x) - q.log_prob(x)) + shift

    kl = kl_divergence(p, q)
    mass = quadrature(lambda x: T(x).exp(), q)
    donsker_varadhan = quadrature(T, p) - mass.log()
    fenchel = quadrature(T, p) - mass + 1
    value = (
        math.log(2)
        + (quadrature(lambda x: T(x).sigmoid().log(), p) + quadrature(lambda x: (-T(x)).sigmoid().log(), q))
        / 2
    )
    assert fenchel <= donsker_varadhan <= kl + 1e-12
    assert value < js(p, q)
    if scale == 1:
        torch.testing.assert_close(donsker_varadhan, kl, rtol=1e-9, atol=0)
    # the estimators are these expressions, on any finite sets of values
    on_p, on_q = T(randn(500)), T(randn(400, seed=1))
    torch.testing.assert_close(kl_donsker_varadhan(on_p, on_q), on_p.mean() - on_q.exp().mean().log())
    torch.testing.assert_close(kl_fenchel(on_p, on_q), on_p.mean() - on_q.exp().mean() + 1)
    want = math.log(2) + (on_p.sigmoid().log().mean() + (1 - on_q.sigmoid()).log().mean()) / 2
    torch.testing.assert_close(js_from_log_ratio(on_p, on_q), want)


def test_js_ends_at_log_2_and_the_bounds_do_not_overflow():
    far = torch.full((10,), 800.0, dtype=torch.float64)
    assert js_from_log_ratio(far, -far) == pytest.approx(math.log(2), abs=1e-15)
    assert js_from_log_ratio(torch.zeros(3), torch.zeros(3)).abs() < 1e-7
    assert kl_donsker_varadhan(far, far).abs() < 1e-9


def diagnosis(distance, count=20_000):
    """The true log-ratio of N(distance, 1) and N(0, 1), on samples of both."""
    on_p, on_q = (
        distance * (mean + randn(count, seed=seed)) - distance**2 / 2
        for mean, seed in ((distance, 0), (0, 1))
    )
    return diagnose(on_p, on_q)


def test_the_diagnosis_of_the_true_ratio():
    near = diagnosis(0.5)
    assert near.mass_q == pytest.approx(1, abs=0.03)
    assert near.mass_p == pytest.approx(1, abs=0.03)
    assert near.effective == pytest.approx(math.exp(-(0.5**2)), abs=0.05)  # 1 / E_q w^2 = exp(-distance^2)
    assert near.accuracy == pytest.approx(Normal(0, 1).cdf(torch.tensor(0.25)).item(), abs=0.01)
    want = js(normal(0.5, 1.0), normal(0.0, 1.0)).item() / math.log(2)
    assert near.js_share == pytest.approx(want, abs=0.01)
    assert near.trustworthy


def test_far_densities_are_not_to_be_trusted_even_with_the_true_ratio():
    far = diagnosis(8.0)
    assert far.mass_q < 0.01  # the mean of exp T over q is 1, and 20 000 points do not find it
    assert far.effective < 0.01
    assert far.accuracy > 0.999
    assert far.js_share > 0.999
    assert not far.trustworthy


def test_a_forgotten_prior_is_seen_in_the_masses():
    on_p, on_q = 0.5 * (0.5 + randn(5000)) - 0.125, 0.5 * randn(5000, seed=1) - 0.125
    assert diagnose(on_p, on_q).trustworthy
    wrong = diagnose(on_p + math.log(3), on_q + math.log(3))
    assert wrong.mass_q == pytest.approx(3, rel=0.05)
    assert wrong.mass_p == pytest.approx(1 / 3, rel=0.05)
    assert not wrong.trustworthy


@pytest.mark.parametrize(
    "changed", [{"mass_q": 1.3}, {"mass_p": 0.7}, {"effective": 0.05}, {"accuracy": 0.99}]
)
def test_each_sign_alone_is_enough_for_distrust(changed):
    good = Diagnosis(mass_q=1.1, mass_p=0.9, effective=0.5, accuracy=0.6, js_share=0.1)
    assert good.trustworthy
    assert not good._replace(**changed).trustworthy


def test_a_single_point_is_one_effective_point():
    log_ratio = torch.zeros(50)
    log_ratio[7] = 100.0
    assert diagnose(torch.zeros(50), log_ratio).effective == pytest.approx(1 / 50)
    assert diagnose(torch.zeros(50), torch.zeros(50)).effective == pytest.approx(1)


def test_a_classifier_that_never_saw_an_overlap_is_wrong_and_the_diagnosis_says_so():
    """N(6, 1) against N(-6, 1): the true KL is 72 nats; the classifier, right on every point, says less."""
    torch.manual_seed(0)
    x_p, x_q = (mean + randn(4000, 1, seed=seed, dtype=torch.float32) for mean, seed in ((6, 0), (-6, 1)))
    ratio = ClassifierRatio(nn.Linear(1, 1))
    fit_ratio(ratio, x_p[:2000], x_q[:2000], steps=300)
    with torch.no_grad():
        on_p, on_q = ratio(x_p[2000:]), ratio(x_q[2000:])
    assert kl_plug_in(on_p) < 36
    assert diagnose(on_p, on_q).accuracy == 1
    assert not diagnose(on_p, on_q).trustworthy


def test_classes_without_points_and_points_of_other_widths_are_refused():
    for counts in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="points of both densities"):
            log_prior_odds(*counts)
    with pytest.raises(ValueError, match=r"\(2,\), of q \(3,\)"):
        fit_ratio(ClassifierRatio(nn.Linear(2, 1)), torch.zeros(4, 2), torch.zeros(4, 3), 1)
