"""The contract, composition and inversion."""

import pytest
import torch
from planted_bugs import Affine, Coupling, Leaky, Logit, Planar, Softplus
from torch.distributions import constraints

from flowkit import Bijection, Compose, Inverse, check_bijection


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_compose_applies_the_first_first():
    f, g = Affine(3), Leaky()
    x = points(5, 3)
    y, log_det_f = f.forward(x)
    z, log_det_g = g.forward(y)
    got, log_det = Compose(f, g).forward(x)
    assert torch.equal(got, z)
    assert torch.allclose(log_det, log_det_f + log_det_g)


def test_compose_undoes_the_last_first():
    f = Compose(Affine(3), Leaky(), Planar(3)).double()
    x = points(5, 3).double()
    z, log_det = f.forward(x)
    back, log_det_back = f.inverse(z)
    assert torch.allclose(back, x, atol=1e-10)
    assert torch.allclose(log_det + log_det_back, torch.zeros(()).double(), atol=1e-10)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_compose_of_nothing_is_the_identity(shape):
    x = points(*shape)
    z, log_det = Compose().forward(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(shape[:-1]))


def test_compose_takes_its_domains_from_its_ends():
    f = Compose(Logit(), Affine(2), Softplus())
    assert f.domain is constraints.unit_interval
    assert f.codomain is constraints.positive
    check_bijection(f, 2)


def test_inverse_swaps_maps_and_domains():
    f = Softplus()
    g = Inverse(f)
    x = points(5, 2)
    assert all(map(torch.equal, g.inverse(x), f.forward(x)))
    z = f.forward(x)[0]
    assert all(map(torch.equal, g.forward(z), f.inverse(z)))
    assert (g.domain, g.codomain) == (f.codomain, f.domain)


def test_the_context_goes_to_every_part():
    f = Compose(Coupling(3, features=2), Inverse(Coupling(3, features=2)), Affine(3))
    check_bijection(f, 3, context=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    x = points(5, 3)
    assert not torch.allclose(f.forward(x, points(5, 2))[0], f.forward(x, points(5, 2, seed=1))[0])


def test_parts_are_registered():
    f = Compose(Affine(3), Inverse(Planar(3)))
    assert {name.split(".")[0] for name in f.state_dict()} == {"bijections"}
    assert len(list(f.parameters())) == 5


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_what_is_not_written_says_so(way):
    with pytest.raises(NotImplementedError, match=f"Bijection has no {way}"):
        getattr(Bijection(), way)(points(2))
