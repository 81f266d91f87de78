"""Power iteration, spectral layers, and networks of known Lipschitz constant."""

import copy
import pickle

import pytest
import torch
from torch.func import jacrev, vmap

from flowkit.lipschitz import (
    LipSwish,
    SpectralConv2d,
    SpectralLinear,
    convolution_matrix,
    held_weights,
    lipschitz_cnn,
    lipschitz_mlp,
    power_iteration,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heavy(net, factor=20.0, seed=0):
    """The net in float64, its parameters large: every weight has to be scaled down."""
    net, generator = net.double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += factor * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


def norm_of(matrix):
    return torch.linalg.matrix_norm(matrix, 2)


def power(A, start, **options):
    return power_iteration(lambda v: A @ v, lambda u: A.mT @ u, start, **options)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (40, 40)])
def test_power_iteration_finds_the_largest_singular_value_and_its_vectors(shape):
    A = randn(*shape)
    found = power(A, randn(shape[1], seed=1), iterations=10_000, tolerance=0.0)
    torch.testing.assert_close(found.norm, norm_of(A), rtol=1e-12, atol=0)
    torch.testing.assert_close(A @ found.right, found.norm * found.left, rtol=0, atol=1e-6)
    torch.testing.assert_close(A.mT @ found.left, found.norm * found.right, rtol=0, atol=1e-6)


def test_the_error_of_the_norm_falls_by_the_fourth_power_of_the_ratio():
    A = torch.diag(torch.tensor([1.0, 0.8, 0.0], dtype=torch.float64))
    start = torch.ones(3, dtype=torch.float64)
    errors = [1 - power(A, start, iterations=n, tolerance=-1.0).norm.item() for n in (10, 11)]
    assert errors[1] / errors[0] == pytest.approx(0.8**4, rel=0.02)


def test_power_iteration_is_a_lower_bound_and_close_however_small_the_gap():
    singular = torch.linspace(0.9, 1.0, 64, dtype=torch.float64)
    Q = torch.linalg.qr(randn(64, 64))[0]
    for seed in range(20):
        norm = power(Q * singular, randn(64, seed=seed)).norm
        assert 0.98 < norm <= 1 + 1e-12


def test_power_iteration_of_nothing_and_from_a_good_start():
    assert power(torch.zeros(3, 2), torch.ones(2)).norm == 0
    A = randn(30, 30)
    first = power(A, randn(30, seed=1))
    again = power(A + 1e-4 * randn(30, 30, seed=2), first.right)
    assert first.iterations > 5
    assert again.iterations <= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_beside_the_first_singular_vector_leaves_no_weight_above_the_coefficient(dtype):
    layer = SpectralLinear(2, 2, 0.9).to(dtype)
    layer.weight.data = torch.diag(torch.tensor([1.5, 1.2], dtype=dtype))
    layer.v = torch.tensor([1e-3, 1.0], dtype=dtype)
    found = power(layer.weight.detach(), layer.v)
    assert found.norm < 1.21, "a start that the plain tolerance does not mislead shows nothing"
    torch.testing.assert_close(norm_of(layer.eval().contraction()).item(), 0.9, rtol=1e-5, atol=0)
    layer.train()
    for _ in range(20):
        layer.contraction()
    torch.testing.assert_close(norm_of(layer.contraction()).item(), 0.9, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("inputs", "outputs", "kernel"), [(1, 1, 3), (2, 3, 3), (3, 2, 5), (2, 2, 1)])
def test_the_matrix_of_a_convolution_and_its_norm(inputs, outputs, kernel):
    layer = heavy(SpectralConv2d(inputs, outputs, kernel, (5, 4), coefficient=0.7))
    matrix, x = convolution_matrix(layer.weight, (5, 4)), randn(inputs, 5, 4)
    plain = layer.apply_to(x, layer.weight)
    torch.testing.assert_close((matrix @ x.flatten()).reshape(outputs, 5, 4), plain)
    u = randn(outputs, 5, 4, seed=1)
    torch.testing.assert_close((layer.adjoint_to(u, layer.weight) * x).sum(), (u * plain).sum())
    acting = convolution_matrix(layer.contraction(), (5, 4))
    torch.testing.assert_close(norm_of(acting), torch.tensor(0.7).double(), rtol=1e-3, atol=0)
    with torch.no_grad():
        dense = (acting @ x.flatten()).reshape(outputs, 5, 4) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x.expand(2, 3, inputs, 5, 4))[1, 2], dense)


def test_the_norm_of_the_kernel_is_not_that_of_the_convolution():
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert norm_of(kernel.flatten(1)) == 3
    assert 8.5 < norm_of(convolution_matrix(kernel, (16, 16))) < 9


@pytest.mark.parametrize("coefficient", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spectral_layer_stays_strictly_below_one(coefficient, dtype):
    for seed in range(5):
        layer = heavy(SpectralLinear(20, 12, coefficient), seed=seed).to(dtype)
        norm = norm_of(layer.contraction().double())
        assert coefficient - 1e-6 < norm < coefficient * (1 + 1e-3) < 1


def test_a_small_weight_is_left_alone():
    layer = SpectralLinear(4, 4, 0.9)
    with torch.no_grad():
        layer.weight.mul_(0.8 / norm_of(layer.weight))
    assert torch.equal(layer.contraction(), layer.weight)
    with torch.no_grad():
        layer.weight.zero_()
    layer.contraction().sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones(4, 4))
    assert layer.v.norm() == pytest.approx(1)  # a weight of 0 has no direction to keep


def test_training_keeps_the_vector_and_judging_does_not():
    layer = heavy(SpectralLinear(6, 5))
    before = layer.v.clone()
    layer.contraction()
    assert torch.equal(layer.v, before)
    layer.train().contraction()
    assert not torch.equal(layer.v, before)
    attained = (layer.weight @ layer.v).norm().item()
    assert attained == pytest.approx(norm_of(layer.weight).item(), rel=1e-4)
    layer.eval()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(randn(6)), layer(randn(6)))


def test_the_gradient_goes_through_the_norm():
    layer = heavy(SpectralLinear(4, 3, 0.5)).train()
    for _ in range(50):
        layer.contraction()
    weights = randn(3, 4, seed=3)
    (got,) = torch.autograd.grad((layer.contraction() * weights).sum(), layer.weight)
    W = layer.weight.detach().requires_grad_()
    (want,) = torch.autograd.grad((0.5 * W / norm_of(W) * weights).sum(), W)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    assert abs((got * W).sum()) < 1e-9  # scaling W changes nothing


def test_held_weights_are_the_same_and_are_let_go():
    net, x = heavy(lipschitz_mlp(3, (5,))), randn(7, 3)
    want = net(x)
    with held_weights(net):
        torch.testing.assert_close(net(x), want, rtol=0, atol=0)
        assert not net[0].contraction().requires_grad
    with pytest.raises(RuntimeError), held_weights(net):  # what raises within lets go, too
        net(x[:, :2])
    assert net[0].contraction().requires_grad


@pytest.mark.parametrize("b", [1e-3, 0.1, 0.5, 1.0, 10.0, 1e3])
def test_lipswish_is_a_contraction_for_every_b(b):
    activation = LipSwish().double()
    with torch.no_grad():
        activation.raw.fill_(torch.tensor(b).double().expm1().log() if b < 30 else b)
    x = (torch.linspace(-20, 20, 100_001, dtype=torch.float64) / b).requires_grad_()
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    assert 0.99 < slope.abs().max() < 1


@pytest.mark.parametrize("lipschitz", [0.5, 0.97])
@pytest.mark.parametrize(
    "make",
    [lambda lipschitz: lipschitz_mlp(9, (30, 20), lipschitz),
     lambda lipschitz: lipschitz_mlp(9, (), lipschitz),
     lambda lipschitz: lipschitz_cnn((1, 3, 3), (4, 3), lipschitz=lipschitz)],
)  # fmt: skip
def test_networks_keep_their_constant(make, lipschitz):
    net, x = heavy(make(lipschitz)), 3 * randn(50, 9)
    norms = norm_of(vmap(jacrev(net))(x))
    assert norms.max() <= lipschitz * (1 + 1e-3)
    distances = (net(x) - net(x.flip(0))).norm(dim=-1)
    assert (distances <= lipschitz * (1 + 1e-3) * (x - x.flip(0)).norm(dim=-1)).all()
    if len(net) == 1:
        assert norms.min() > 0.999 * lipschitz  # a linear net attains it


@pytest.mark.parametrize("coefficient", [0.0, 1.0, 1.5, float("nan")])
def test_coefficients_that_do_not_contract_are_refused(coefficient):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        SpectralLinear(2, 2, coefficient)


def test_convolutions_say_what_they_take():
    with pytest.raises(ValueError, match="odd"):
        SpectralConv2d(1, 1, 2, (4, 4))
    with pytest.raises(ValueError, match=r"images \(\.\.\., \(1, 4, 4\)\), got \(2, 1, 4, 5\)"):
        SpectralConv2d(1, 1, 3, (4, 4))(torch.zeros(2, 1, 4, 5))
