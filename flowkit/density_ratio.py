"""Density ratios by classification: a classifier's logit is log p(x) / q(x), up to the odds of its classes.

Bayes' rule: P(x came from p) / P(x came from q) = p(x) / q(x) * n_p / n_q. So whoever tells samples of p from
samples of q estimates their ratio, and needs no density. From the ratio follow divergences, the
game of generative adversarial networks (`discriminators`), and a check on how much of it to believe.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def log_prior_odds(count_p: int, count_q: int) -> float:
    """log n_p / n_q: what the logit says on average before it sees x.

    Raises ValueError unless both classes have points.
    """
    if count_p < 1 or count_q < 1:
        raise ValueError(f"a ratio needs points of both densities, got {count_p} and {count_q}")
    return math.log(count_p / count_q)


def log_ratio_from_logit(logit: Tensor, prior: float = 0.0) -> Tensor:
    """log p(x) / q(x) = logit - log prior odds. The prior is 0 for classes of one size.

    >>> half = torch.tensor([0.0])      # even odds, though p's points are three times as many
    >>> log_ratio_from_logit(half, log_prior_odds(300, 100)).exp()
    tensor([0.3333])
    """
    return logit - prior


def logit_from_log_ratio(log_ratio: Tensor, prior: float = 0.0) -> Tensor:
    """The best classifier's logit, log P(p given x) / P(q given x) = log p(x) / q(x) + log prior odds."""
    return log_ratio + prior


def gaussian_log_ratio(x: Tensor, mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """log N(x; mean_p, cov_p) / N(x; mean_q, cov_q): (..., D) -> (...). O(D^3) once, O(D^2) a point.

    Quadratic in x; linear where the covariances are one, and so logistic regression is exact.

    >>> one, zero, x = torch.ones(1), torch.zeros(1), torch.tensor([[0.0], [2.0]])
    >>> gaussian_log_ratio(x, one, torch.eye(1), zero, torch.eye(1))
    tensor([-0.5000,  1.5000])
    """
    p, q = (
        torch.distributions.MultivariateNormal(mean, cov) for mean, cov in ((mean_p, cov_p), (mean_q, cov_q))
    )
    return p.log_prob(x) - q.log_prob(x)


def gaussian_kl(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """KL(p, q) = E_p log p / q of two Gaussians, in nats.

    (tr(C_q^-1 C_p) + (m_q - m_p)' C_q^-1 (m_q - m_p) - D + log det C_q - log det C_p) / 2. O(D^3).

    >>> gaussian_kl(torch.ones(2), torch.eye(2), torch.zeros(2), torch.eye(2))
    tensor(1.)
    """
    L_p, L_q = torch.linalg.cholesky(cov_p), torch.linalg.cholesky(cov_q)
    columns = torch.cat((L_p, (mean_q - mean_p)[:, None]), -1)
    spread = torch.linalg.solve_triangular(L_q, columns, upper=False).square().sum()
    log_dets = L_q.diagonal().log().sum() - L_p.diagonal().log().sum()
    return (spread - len(mean_p)) / 2 + log_dets


def classification_loss(logit_p: Tensor, logit_q: Tensor) -> Tensor:
    """The mean log-loss over all points: of p, softplus(-logit), and of q, softplus(logit).

    It is least where the logit is log p / q + log n_p / n_q, the counts being those of its arguments.
    """
    total = F.softplus(-logit_p).sum() + F.softplus(logit_q).sum()
    return total / (logit_p.numel() + logit_q.numel())


class ClassifierRatio(nn.Module):
    """log p(x) / q(x) as the logit of a network less the log prior odds of the points it learned from.

    net: (..., D) -> (..., 1). prior: log n_p / n_q; `fit_ratio` sets it.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> p, q = 1 + torch.randn(4000, 1), torch.randn(1000, 1)
    >>> ratio = ClassifierRatio(nn.Linear(1, 1))
    >>> losses = fit_ratio(ratio, p, q, steps=400, lr=0.05)
    >>> bool((ratio(torch.tensor([[0.0], [2.0]])) - torch.tensor([-0.5, 1.5])).abs().max() < 0.3)
    True
    """

    prior: Tensor

    def __init__(self, net: nn.Module, prior: float = 0.0):
        super().__init__()
        self.net = net
        self.register_buffer("prior", torch.tensor(float(prior)))

    def logit(self, x: Tensor) -> Tensor:
        """log P(p given x) / P(q given x) among the points it learned from: (..., D) -> (...)."""
        return self.net(x).squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x) / q(x): (..., D) -> (...)."""
        return self.logit(x) - self.prior


def fit_ratio(
    ratio: ClassifierRatio,
    p: Tensor,
    q: Tensor,
    steps: int,
    lr: float = 1e-2,
    batch: int = 256,
    seed: int = 0,
) -> Tensor:
    """Trains the classifier on points of p (N, D) and of q (M, D) by Adam; returns the losses (steps,).

    Batches are drawn from all N + M points, so its classes are as uneven as they are; the prior is set to
    log N / M. One seed gives one result; the global random state is left alone. Raises ValueError when a
    class has no points or the points are of different widths.
    """
    if p.shape[1:] != q.shape[1:]:
        raise ValueError(f"points of p are {tuple(p.shape[1:])}, of q {tuple(q.shape[1:])}: not one space")
    ratio.prior.fill_(log_prior_odds(len(p), len(q)))
    generator = torch.Generator().manual_seed(seed)
    points, ours = torch.cat((p, q)), torch.arange(len(p) + len(q)) < len(p)
    optimizer = torch.optim.Adam(ratio.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(points), (batch,), generator=generator)
        logit = ratio.logit(points[rows])
        loss = classification_loss(logit[ours[rows]], logit[~ours[rows]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def kl_plug_in(log_ratio_p: Tensor) -> Tensor:
    """KL(p, q) = E_p log p / q, the mean of the log-ratio over points of p. Of no sign for a wrong ratio."""
    return log_ratio_p.mean()


def kl_donsker_varadhan(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Tensor:
    """E_p T - log E_q exp T: at most KL(p, q) for any function T, and equal at log p / q.

    From finite samples of q it is a little high: the logarithm of a mean is low on average. It does not see a
    constant added to T, such as a forgotten prior. Donsker and Varadhan 1983.
    """
    return log_ratio_p.mean() - (log_ratio_q.logsumexp(0) - math.log(len(log_ratio_q)))


def kl_fenchel(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Tensor:
    """E_p T - E_q exp T + 1: at most KL(p, q) for any T, equal at log p / q alone, and unbiased.

    Below Donsker and Varadhan's, since log a <= a - 1. Nguyen, Wainwright and Jordan 2010.
    """
    return log_ratio_p.mean() - log_ratio_q.exp().mean() + 1


def js_from_log_ratio(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Tensor:
    """log 2 + E_p log sigmoid(T) / 2 + E_q log sigmoid(-T) / 2: the Jensen-Shannon divergence, or less.

    At most JS(p, q) = KL(p, m) / 2 + KL(q, m) / 2 with m = (p + q) / 2 for any T, equal at log p / q. JS
    itself is at most log 2, which densities far apart reach: from there on it says nothing of their distance.
    log 2 less this is the log-loss of a classifier with even classes. Goodfellow et al. 2014.

    >>> js_from_log_ratio(torch.full((3,), 50.0), torch.full((3,), -50.0)) / math.log(2)
    tensor(1.)
    """
    return math.log(2) + (F.logsigmoid(log_ratio_p).mean() + F.logsigmoid(-log_ratio_q).mean()) / 2


class Diagnosis(NamedTuple):
    """What a log-ratio says of itself on held-out points, beside what it should say.

    mass_q          E_q exp T, 1 for the true ratio
    mass_p          E_p exp(-T), 1 too
    effective       (sum of w)^2 / (n sum of w^2), w = exp T on the points of q: near 1 where p is like q, and
                    1 / n where a single point carries E_q exp T, which then is worth nothing
    accuracy        of the classifier T > 0, classes even: 1/2 for p = q; near 1 the points are told apart
                    without error, and any T that is large enough on them has the same loss
    js_share        the JS divergence as a share of log 2
    """

    mass_q: float
    mass_p: float
    effective: float
    accuracy: float
    js_share: float

    @property
    def trustworthy(self) -> bool:
        """Masses within a fifth of 1, a tenth of the points or more effective, accuracy below 0.98.

        A rule of thumb: where p and q overlap little no classifier has seen points to learn the ratio from.
        """
        near = all(abs(mass - 1) < 0.2 for mass in (self.mass_q, self.mass_p))
        return near and self.effective > 0.1 and self.accuracy < 0.98


def diagnose(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Diagnosis:
    """The diagnosis of a log-ratio from its values at held-out points of p (N,) and of q (M,).

    >>> diagnose(torch.zeros(4), torch.zeros(4)).trustworthy
    True
    >>> diagnose(torch.full((4,), 30.0), torch.full((4,), -30.0)).trustworthy
    False
    """
    weights = torch.softmax(log_ratio_q, 0)
    right = (log_ratio_p > 0).double().mean() + (log_ratio_q < 0).double().mean()
    ties = (log_ratio_p == 0).double().mean() + (log_ratio_q == 0).double().mean()
    return Diagnosis(
        mass_q=log_ratio_q.double().exp().mean().item(),
        mass_p=(-log_ratio_p.double()).exp().mean().item(),
        effective=1 / (len(weights) * weights.double().square().sum().item()),
        accuracy=((right + ties / 2) / 2).item(),
        js_share=js_from_log_ratio(log_ratio_p, log_ratio_q).item() / math.log(2),
    )
