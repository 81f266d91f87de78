"""What only linear flows do: their matrices, against each other, against their peers, and at the edge."""

import pytest
import torch

from flowkit import Compose
from flowkit.linear import PLU, QR, Dense, Householder, Permutation, Triangular


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(f, seed=0):
    """The layer in float64 with normal parameters."""
    f = f.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return f


def matrix(f, dim):
    """The matrix of a linear layer, column by column: A e_j + b - b."""
    zero = f.forward(torch.zeros(1, dim, dtype=torch.float64))[0]
    return (f.forward(torch.eye(dim, dtype=torch.float64))[0] - zero).mT


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_plu_is_the_matrix_it_was_given(dim):
    a = randn(dim, dim)
    f = PLU.from_matrix(a)
    close(matrix(f, dim), a)
    close(f.matrix(), a)
    close(f.forward(randn(3, dim))[1], torch.linalg.slogdet(a).logabsdet.expand(3))


def test_plu_refuses_a_singular_matrix():
    with pytest.raises(ValueError, match="singular"):
        PLU.from_matrix(torch.ones(2, 2))


def test_dense_says_so_when_it_has_no_inverse():
    f = Dense(2)
    torch.nn.init.ones_(f.weight)
    assert f.forward(torch.zeros(2))[1] == -torch.inf
    with pytest.raises(torch.linalg.LinAlgError):
        f.inverse(torch.zeros(2))


def test_dense_log_det_where_the_determinant_overflows():
    f = Dense(200)
    torch.nn.init.eye_(f.weight).data.mul_(10)
    torch.testing.assert_close(f.forward(torch.zeros(200))[1], 200 * torch.tensor(10.0).log())


@pytest.mark.parametrize("lower", [True, False])
def test_triangular_is_triangular(lower):
    a = matrix(drawn(Triangular(5, lower)), 5)
    assert torch.equal(a, a.tril() if lower else a.triu())
    assert (a.diagonal() > 0).all()
    assert (a != 0).sum() == 15


@pytest.mark.parametrize("count", [1, 2, 5])
def test_householder_is_orthogonal_and_flips_once_a_reflection(count):
    q = matrix(drawn(Householder(5, count)), 5)
    close(q @ q.mT, torch.eye(5, dtype=torch.float64))
    close(torch.linalg.det(q), torch.tensor((-1.0) ** count, dtype=torch.float64))


def test_qr_multiplies_an_orthogonal_and_a_triangular_matrix():
    f = drawn(QR(4))
    r, q = (matrix(part, 4) for part in f.bijections)
    close(matrix(f, 4), q @ r)
    assert torch.equal(r, r.triu())


def test_permutations_compose_as_their_orders_do():
    a, b = Permutation.random(6, seed=0), Permutation.random(6, seed=1)
    x = randn(2, 6)
    assert torch.equal(Compose(a, b).forward(x)[0], Permutation(a.order[b.order]).forward(x)[0])
    assert torch.equal(Permutation.reverse(6).forward(x)[0], x.flip(-1))
    assert not torch.equal(a.order, b.order)


@pytest.mark.parametrize("order", [[0, 0], [1, 2], [[0, 1]], [0, 2]])
def test_permutation_refuses_what_is_none(order):
    with pytest.raises(ValueError, match="not a permutation"):
        Permutation(order)


@pytest.mark.parametrize(
    "f",
    [Dense(3), Triangular(3), PLU(3), Householder(3, 2), Permutation.reverse(3)],
    ids=lambda f: type(f).__name__,
)
def test_wrong_width_is_named(f):
    for way in (f.forward, f.inverse):
        with pytest.raises(
            ValueError, match=rf"{type(f).__name__} takes points of shape \(\.\.\., 3\), got \(5, 2\)"
        ):
            way(torch.zeros(5, 2))


def both_ways_agree(f, peer, dim):
    x = randn(5, dim, seed=3)
    close(f.forward(x), peer.forward(x))
    close(f.inverse(x), peer.inverse(x))


def test_plu_agrees_with_nflows_lu():
    peer = drawn(pytest.importorskip("nflows.transforms").LULinear(5))
    lower, upper = peer._create_lower_upper()
    f = PLU(5).double()
    with torch.no_grad():
        f.weight.copy_(lower.tril(-1) + upper.triu(1))
        f.log_diagonal.copy_(upper.diagonal().log())
        f.bias.copy_(peer.bias)
    both_ways_agree(f, peer, 5)


def test_plu_agrees_with_zuko_lu():
    lu = torch.tril(randn(5, 5), -1) + torch.triu(randn(5, 5, seed=1), 1)
    lu = lu + torch.eye(5, dtype=torch.float64)
    peer = pytest.importorskip("zuko.transforms").LULinearTransform(lu)
    f = PLU(5).double()
    with torch.no_grad():
        f.weight.copy_(lu)
    x = randn(4, 5, seed=2)
    z, log_det = f.forward(x)
    close(z, peer(x))
    close(log_det, peer.log_abs_det_jacobian(x, z))


def test_householder_agrees_with_nflows():
    peer = drawn(pytest.importorskip("nflows.transforms").HouseholderSequence(5, 3))
    f = Householder(5, 3).double()
    with torch.no_grad():
        f.vectors.copy_(peer.q_vectors)
    both_ways_agree(f, peer, 5)


def test_dense_agrees_with_nflows():
    peer = drawn(pytest.importorskip("nflows.transforms").NaiveLinear(5))
    f = Dense(5).double()
    with torch.no_grad():
        f.weight.copy_(peer._weight)
        f.bias.copy_(peer.bias)
    x = randn(5, 5, seed=3)
    close(f.forward(x), peer.forward(x))  # its inverse calls a function that torch has removed


def test_permutation_agrees_with_nflows():
    order = torch.tensor([3, 0, 4, 1, 2])
    both_ways_agree(Permutation(order), pytest.importorskip("nflows.transforms").Permutation(order), 5)
