"""Diagonal plus low rank against the dense matrix: the determinant lemma and Woodbury's identity."""

import pytest
import torch

from flowkit.low_rank import LowRank, capacitance, low_rank_log_det, low_rank_solve


def drawn(dim, rank, seed=0):
    """s, U and V."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((dim,), (dim, rank), (dim, rank))
    ]


def dense(s, u, v):
    return s.exp().diag() + u @ v.mT


SIZES = [(1, 1), (2, 1), (7, 3), (7, 7), (50, 2)]


@pytest.mark.parametrize(("dim", "rank"), SIZES)
def test_the_determinant_lemma(dim, rank):
    s, u, v = drawn(dim, rank)
    expected = torch.linalg.slogdet(dense(s, u, v)).logabsdet
    torch.testing.assert_close(low_rank_log_det(s, u, v), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dim", "rank"), SIZES)
@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
def test_woodbury(dim, rank, lead):
    s, u, v = drawn(dim, rank)
    x = torch.randn(*lead, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x @ dense(s, u, v).mT
    torch.testing.assert_close(low_rank_solve(s, u, v, y), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dim", "rank"), SIZES)
def test_the_layer_is_its_matrix(dim, rank):
    f = LowRank(dim, rank).double()
    s, u, v = drawn(dim, rank)
    with torch.no_grad():
        for parameter, value in zip((f.log_diagonal, f.u, f.v), (s, u, v), strict=True):
            parameter.copy_(value)
        f.bias.fill_(0.5)
    x = torch.randn(4, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(f.forward(x)[0], x @ dense(s, u, v).mT + 0.5, rtol=1e-12, atol=1e-12)


def test_a_gaussian_of_low_rank_is_what_torch_has():
    """With A = S + U V' and x = A^-1 z: log p(x) against a multivariate normal with precision A'A."""
    s, u, v = drawn(6, 2)
    a = dense(s, u, v)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(6).double(), precision_matrix=a.mT @ a)
    z = x @ a.mT
    ours = -z.square().sum(-1) / 2 - 3 * torch.log(torch.tensor(2 * torch.pi)) + low_rank_log_det(s, u, v)
    torch.testing.assert_close(ours, normal.log_prob(x), rtol=1e-6, atol=1e-6)


def test_a_singular_matrix_says_so():
    """I - e e' for a unit vector e: the capacitance is 0."""
    e = torch.tensor([[1.0], [0.0], [0.0]])
    assert capacitance(torch.zeros(3), e, -e).item() == 0
    assert low_rank_log_det(torch.zeros(3), e, -e) == -torch.inf
    with pytest.raises(torch.linalg.LinAlgError):
        low_rank_solve(torch.zeros(3), e, -e, torch.ones(3))


def test_it_starts_as_the_identity_and_can_leave_it():
    f = LowRank(5, 2)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    z, log_det = f.forward(x)
    assert torch.equal(z, x)
    assert not log_det.any()
    (z.square().sum() - log_det.sum()).backward()
    assert f.u.grad.abs().min() > 0


@pytest.mark.parametrize("rank", [0, 4])
def test_the_rank_is_at_most_the_dimension(rank):
    with pytest.raises(ValueError, match="between 1 and the dimension 3"):
        LowRank(3, rank)


def test_wrong_width_is_named():
    f = LowRank(3, 1)
    for way in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=r"LowRank takes points of shape \(\.\.\., 3\)"):
            way(torch.zeros(5, 2))


@pytest.mark.slow
def test_the_cost_of_the_log_det_grows_with_the_dimension_and_not_with_its_cube():
    """From D = 500 to 4000 the dense determinant takes hundreds of times as long: 8^3 = 512, and r = 2."""
    import time

    def seconds(dim):
        s, u, v = drawn(dim, 2)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            low_rank_log_det(s, u, v)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(4000) < 40 * seconds(500)
