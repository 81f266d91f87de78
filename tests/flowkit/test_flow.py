"""Densities made of a base and a bijection."""

import math

import torch
from planted_bugs import Affine, Coupling, Leaky, Planar
from torch.distributions import Independent, Normal

from flowkit import Compose, Flow, StandardNormal


def drawn(f, seed=0, std=0.5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)
    return f.double()


def test_standard_normal_is_torchs():
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).reshape(2, 5, 3)
    theirs = Independent(Normal(torch.zeros(3).double(), torch.ones(3).double()), 1)
    assert torch.allclose(StandardNormal(3).double().log_prob(x), theirs.log_prob(x), atol=1e-12)


def test_an_affine_flow_is_a_normal_density():
    f = drawn(Affine(3))
    flow = Flow(StandardNormal(3).double(), f)
    theirs = Independent(Normal(-f.shift / f.slope, 1 / f.slope.abs()), 1)
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).reshape(10, 3)
    assert torch.allclose(flow.log_prob(x), theirs.log_prob(x), atol=1e-12)


def test_the_density_integrates_to_one():
    flow = Flow(StandardNormal(2), Compose(Planar(2), Leaky())).double()
    line = torch.linspace(-40, 12, 1301, dtype=torch.float64)
    density = flow.log_prob(torch.cartesian_prod(line, line)).exp()
    assert abs(float(density.sum().detach()) * (52 / 1300) ** 2 - 1) < 5e-3


def test_samples_have_the_densitys_moments():
    torch.manual_seed(0)
    flow = Flow(StandardNormal(2).double(), drawn(Affine(2)))
    x = flow.sample((20000,))
    f = flow.bijection
    assert torch.allclose(x.mean(0), -f.shift / f.slope, atol=0.05)
    assert torch.allclose(x.std(0) * f.slope.abs(), torch.ones(2).double(), atol=0.03)


def test_shapes_dtypes_and_gradients():
    flow = Flow(StandardNormal(3), Planar(3))
    assert flow.sample().shape == (3,)
    assert flow.sample((4, 2)).shape == (4, 2, 3)
    assert flow.log_prob(torch.zeros(4, 2, 3)).shape == (4, 2)
    assert flow.double().sample((2,)).dtype == torch.float64
    assert not flow.sample((2,)).requires_grad
    flow.rsample((8,)).sum().backward()
    assert flow.bijection.u.grad.abs().sum() > 0


def test_samples_and_their_log_densities_agree_with_log_prob():
    torch.manual_seed(0)
    flow = Flow(StandardNormal(3).double(), drawn(Compose(Planar(3), Affine(3))))
    x, log_prob = flow.rsample_with_log_prob((50,))
    assert torch.allclose(flow.log_prob(x), log_prob, atol=1e-9)


def test_a_base_of_torch_distributions():
    base = Independent(Normal(torch.ones(2), 2 * torch.ones(2)), 1)
    flow = Flow(base, Leaky())
    x = torch.tensor([[1.0, -4.0]])
    expected = base.log_prob(torch.tensor([[1.0, -1.0]])) + math.log(0.25)
    assert torch.allclose(flow.log_prob(x), expected)
    assert flow.sample((3,)).shape == (3, 2)


def test_a_conditional_density():
    torch.manual_seed(0)
    flow = Flow(StandardNormal(3).double(), drawn(Coupling(3, features=2)))
    context = torch.randn(6, 2, dtype=torch.float64)
    x, log_prob = flow.rsample_with_log_prob((6,), context)
    assert torch.allclose(flow.log_prob(x, context), log_prob, atol=1e-10)
    assert not torch.allclose(flow.log_prob(x, context.flip(0)), log_prob)
