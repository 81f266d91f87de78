"""What only couplings do: masks, the blocks of the Jacobian, dependency graphs, bounds, and their peers."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch.func import jacrev

from flowkit import Compose, Flow, Inverse, StandardNormal
from flowkit.coupling import (
    NICE,
    Coupling,
    Transformer,
    additive,
    additive_coupling,
    affine,
    affine_coupling,
    alternating_mask,
    coupling_stack,
    dependencies,
    graph,
    half_mask,
)
from flowkit.elementwise import Affine
from flowkit.lab import targets
from flowkit.lab.nets import mlp
from flowkit.linear import Dense, Permutation

small = partial(mlp, hidden=(8,), activation=torch.nn.Tanh)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(f, seed=0, std=0.5):
    """The module in float64, its parameters moved away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    f = f.double()
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return f


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "mask", [[True, False], [False, True, True, False, True], half_mask(7), alternating_mask(7, 1)]
)
def test_the_jacobian_is_an_identity_and_a_diagonal_beside_a_free_block(mask):
    mask = torch.as_tensor(mask)
    f, x = drawn(affine_coupling(mask, small)), randn(len(mask))
    z, log_det = f.forward(x)
    jacobian = jacrev(lambda x: f.forward(x)[0])(x)
    kept, moved = jacobian[mask], jacobian[~mask]
    assert torch.equal(z[mask], x[mask])
    assert torch.equal(kept[:, mask], torch.eye(int(mask.sum()), dtype=torch.float64))
    assert (kept[:, ~mask] == 0).all()
    assert (moved[:, mask] != 0).all()
    slopes = moved[:, ~mask]
    assert torch.equal(slopes, slopes.diag().diag())
    close(slopes.diag().log().sum(), log_det)


def test_affine_coupling_is_its_formula():
    conditioner = drawn(mlp(1, 4, (8,)))
    f, x = Coupling([False, True, False], conditioner, affine(bound=1.5)), randn(6, 3)
    t, raw = conditioner(x[:, 1:2]).reshape(6, 2, 2).unbind(-1)
    s = 1.5 * torch.tanh(raw / 1.5)
    want = torch.stack([x[:, 0] * s[:, 0].exp() + t[:, 0], x[:, 1], x[:, 2] * s[:, 1].exp() + t[:, 1]], -1)
    z, log_det = f.forward(x)
    close(z, want)
    close(log_det, s.sum(-1))
    back, log_det_back = f.inverse(z)
    close(back, x)
    close(log_det_back, -log_det)


def test_additive_coupling_keeps_volume_and_nice_scales_it():
    x = randn(5, 4)
    f = drawn(additive_coupling(alternating_mask(4), small))
    assert torch.equal(f.forward(x)[1], torch.zeros(5, dtype=torch.float64))
    assert not torch.equal(f.forward(x)[0], x)
    nice = drawn(NICE(4, small))
    close(nice.forward(x)[1], nice.bijections[-1].log_scale.sum().expand(5))


def test_masks():
    assert alternating_mask(5, 1).tolist() == [False, True, False, True, False]
    assert alternating_mask(4, 3).tolist() == alternating_mask(4, 1).tolist()
    for dim in (2, 3, 8):
        assert torch.equal(half_mask(dim, False), ~half_mask(dim))
        assert half_mask(dim).sum() == dim // 2


@pytest.mark.parametrize("make", [alternating_mask, half_mask, lambda dim: coupling_stack(dim, 2, mlp)])
@pytest.mark.parametrize("dim", [0, 1])
def test_one_dimension_cannot_be_coupled(make, dim):
    with pytest.raises(ValueError, match="one to keep and one to move"):
        make(dim)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, True, True], "keeps all of its 3"),
        ([False, False], "keeps none of its 2"),
        ([[True, False]], r"shape \(D,\)"),
        (True, r"shape \(D,\)"),
        ([0.0, 2.0], "only 0 and 1"),
    ],
)
def test_masks_that_split_nothing_are_refused(mask, message):
    for make in (
        lambda: affine_coupling(mask, mlp),
        lambda: Coupling(mask, torch.nn.Linear(1, 1), additive()),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_mask_may_be_zeros_and_ones():
    x = randn(3, 3)
    f = affine_coupling(torch.tensor([1.0, 0.0, 0.0]), small)
    assert torch.equal(f.kept, torch.tensor([0]))
    assert torch.equal(drawn(f).forward(x)[0][:, 0], x[:, 0])


def test_wrong_widths_are_named():
    f = affine_coupling(half_mask(3), mlp)
    for way in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 3\), got \(5, 4\)"):
            way(torch.zeros(5, 4))
    with pytest.raises(
        ValueError, match="returned 3 numbers for each point; 2 moving dimensions with 2 parameters"
    ):
        Coupling(half_mask(3), torch.nn.Linear(1, 3), affine()).forward(torch.zeros(5, 3))


@pytest.mark.parametrize("bound", [0, -1.0, math.nan])
def test_affine_refuses_a_bound_that_is_none(bound):
    with pytest.raises(ValueError, match="must be positive"):
        affine(bound)


def test_context_conditions_and_is_asked_for():
    f = drawn(affine_coupling(alternating_mask(4), small, context_dim=2))
    x, context = randn(6, 4), randn(6, 2, seed=1)
    z, log_det = f.forward(x, context)
    close(f.inverse(z, context)[0], x)
    assert (f.forward(x, context + 1)[1] != log_det).all()
    close(
        f.forward(x, context[0])[0], f.forward(x, context[:1].expand(6, 2))[0]
    )  # one context for all points
    for wrong in (None, randn(6, 3), randn(2).sum()):
        with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 2\)"):
            f.forward(x, wrong)
    plain = drawn(affine_coupling(alternating_mask(4), small))
    assert torch.equal(Compose(f, plain, Affine(4).double()).forward(x, context)[0], plain.forward(z)[0])


def test_a_stack_starts_as_the_identity_with_gradients_that_move_it():
    x = torch.randn(20, 5)
    for permute in (False, True):
        stack = coupling_stack(5, 2, mlp, permute=permute)
        z, log_det = stack.forward(x)
        assert torch.equal(z, x)
        assert (log_det == 0).all()
    Flow(StandardNormal(5), stack).log_prob(x).mean().backward()
    assert all(layer.conditioner[-1].weight.grad.abs().sum() > 0 for layer in stack.bijections)


@pytest.mark.parametrize("layers", [2, 3, 8])
@pytest.mark.parametrize("dim", [2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_every_dimension_moves_with_and_without_permutations(layers, dim, seed):
    for permute in (False, True):
        stack = drawn(coupling_stack(dim, layers, small, permute=permute, seed=seed))
        x = randn(dim)
        slopes = jacrev(lambda x, stack=stack: stack.forward(x)[0])(x)
        order = torch.arange(dim)
        for layer in stack.bijections:
            order = order[layer.order] if isinstance(layer, Permutation) else order
        assert (slopes[torch.arange(dim), order] != 1).all()


def test_permutations_are_those_of_the_seed():
    orders = [
        [
            p.order.tolist()
            for p in coupling_stack(16, 6, mlp, permute=True, seed=seed).bijections
            if isinstance(p, Permutation)
        ]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert len(orders[0]) == 2


def test_dependencies_see_what_the_masks_allow():
    assert dependencies(Affine(3), 3).tolist() == torch.eye(3).bool().tolist()
    layer = drawn(affine_coupling([True, False, False], small))
    assert dependencies(layer, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert dependencies(Inverse(layer), 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert graph(Inverse(layer), 3).tolist() == graph(layer, 3).tolist()


@pytest.mark.parametrize("dim", [2, 3, 6])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("permute", [False, True])
def test_the_graph_of_a_stack_is_the_zero_pattern_of_its_jacobian(dim, layers, permute):
    stack = coupling_stack(dim, layers, small, permute=permute)
    want = graph(stack, dim)
    assert torch.equal(dependencies(drawn(stack), dim), want)
    assert torch.equal(graph(stack, dim), want)  # the structure does not know the parameters
    if not permute:  # with one dimension on a side, two layers let everything see everything; else three
        assert want.all() == (layers >= (2 if dim <= 3 else 3))


def test_the_graph_finds_a_mask_of_the_wrong_parity():
    parts = [drawn(affine_coupling(alternating_mask(4), small)) for _ in range(4)]
    assert torch.equal(graph(Compose(*parts), 4), graph(parts[0], 4))
    assert dependencies(Compose(*parts, Dense(4).double()), 4).sum() == 8


def rough_stack(bound, layers=32, dim=6):
    """Couplings whose networks' last layers are far from zero, in float32."""
    torch.manual_seed(0)
    net = partial(mlp, hidden=(32,), zero_last=False)
    return coupling_stack(dim, layers, net, affine(bound))


def test_32_bounded_couplings_stay_finite_in_float32_and_unbounded_ones_overflow():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    x = torch.cat([scale * x / x.abs().max() for scale in (1.0, 1e2, 1e4)])
    stack = rough_stack(2.0)
    for way in (stack.forward, stack.inverse):
        x_in = x.clone().requires_grad_()
        z, log_det = way(x_in)
        log_det.sum().backward()
        assert z.isfinite().all()
        assert log_det.isfinite().all()
        assert x_in.grad.isfinite().all()
        assert (log_det.abs() <= 32 * 3 * 2.0).all()
    assert not rough_stack(None).forward(x)[0].isfinite().all()


def test_the_bound_is_what_the_docstring_says():
    params = torch.tensor([[[0.0, -1e6]], [[0.0, 0.0]], [[0.0, 1e6]]])
    z, s = affine(2.0).forward(torch.ones(3, 1), params)
    assert s[:, 0].tolist() == [-2, 0, 2]
    assert z.max() == pytest.approx(math.exp(2))
    assert math.exp(2) == pytest.approx(7.4, abs=0.05)
    assert math.exp(64) == pytest.approx(6e27, rel=0.05)


def test_it_copies_pickles_and_moves_to_half_precision():
    f, x = drawn(coupling_stack(4, 2, small)), randn(3, 4)
    for g in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(g.forward(x)[0], f.forward(x)[0])
    z, log_det = f.bfloat16().forward(x.bfloat16())
    assert z.dtype == log_det.dtype == torch.bfloat16


def test_two_moons_are_learned():
    torch.manual_seed(0)
    moons = targets.two_moons()
    x, held_out = moons.sample(1000, seed=0).float(), moons.sample(1000, seed=1).float()
    flow = Flow(StandardNormal(2), coupling_stack(2, 6, partial(mlp, hidden=(32,))))
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    after = flow.log_prob(held_out).mean().item()
    assert -moons.entropy - 0.15 < after < -moons.entropy + 0.05


def test_mlp_starts_at_zero_unless_told_and_may_be_linear():
    x = torch.randn(4, 3)
    assert torch.equal(mlp(3, 2).forward(x), torch.zeros(4, 2))
    assert (mlp(3, 2, zero_last=False)(x) != 0).any()
    assert [type(part) for part in mlp(3, 2, hidden=())] == [torch.nn.Linear]
    assert [part.out_features for part in mlp(3, 2, (5, 4), torch.nn.Tanh)[::2]] == [5, 4, 2]


def in_blocks(net, moved):
    """Our (D_B, 2) rows of parameters, from a network that returns all t, then all s."""
    return torch.nn.Sequential(net, Turn(moved))


class Turn(torch.nn.Module):
    def __init__(self, moved):
        super().__init__()
        self.moved = moved

    def forward(self, params):
        return params.unflatten(-1, (2, self.moved)).mT.flatten(-2)


class IgnoresContext(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, context=None):
        return self.net(x)


def sigmoid_scale(params):
    t, raw = params.unbind(-1)
    return t, (torch.sigmoid(raw + 2) + 1e-3).log()


def sigmoid_forward(x, params):
    t, s = sigmoid_scale(params)
    return x * s.exp() + t, s


def sigmoid_inverse(z, params):
    t, s = sigmoid_scale(params)
    return (z - t) * (-s).exp(), -s


@pytest.mark.parametrize(
    "mask", [half_mask(5), alternating_mask(6), torch.tensor([False, True, True, False])]
)
def test_affine_coupling_with_the_scale_of_nflows_agrees_with_it(mask):
    transforms = pytest.importorskip("nflows.transforms")
    kept, moved, x = int(mask.sum()), int((~mask).sum()), randn(8, len(mask))
    net = drawn(mlp(kept, 2 * moved, (8,)))
    peer = transforms.AffineCouplingTransform((~mask).int(), lambda i, o: IgnoresContext(net))
    f = Coupling(mask, in_blocks(net, moved), Transformer(sigmoid_forward, sigmoid_inverse, 2))
    close(f.forward(x), peer.forward(x))
    close(f.inverse(x), peer.inverse(x))


def test_additive_coupling_agrees_with_nflows():
    transforms = pytest.importorskip("nflows.transforms")
    mask, x = alternating_mask(5), randn(8, 5)
    net = drawn(mlp(3, 2, (8,)))
    peer = transforms.AdditiveCouplingTransform((~mask).int(), lambda i, o: IgnoresContext(net))
    f = Coupling(mask, net, additive())
    close(f.forward(x), peer.forward(x))
    close(f.inverse(x), peer.inverse(x))


def test_affine_coupling_agrees_with_zuko():
    transforms = pytest.importorskip("zuko.transforms")
    mask, x = torch.tensor([False, True, True, False, True]), randn(2, 4, 5)
    net = drawn(mlp(3, 4, (8,)))
    f = Coupling(mask, net, affine(None))

    def meta(x_a):
        t, s = net(x_a).unflatten(-1, (2, 2)).unbind(-1)
        return transforms.DependentTransform(torch.distributions.AffineTransform(t, s.exp()), 1)

    z, log_det = transforms.CouplingTransform(meta, mask).call_and_ladj(x)
    close(f.forward(x), (z, log_det))
    close(f.inverse(z)[0], x)


def test_a_stack_agrees_with_normflows_masked_affine():
    flows = pytest.importorskip("normflows").flows
    stack, x = drawn(coupling_stack(5, 4, small)), randn(8, 5)

    def padded(layer, which):
        """s or t of the layer, as a function of the masked x and with zeros where a dimension is kept."""

        def net(x):
            params = layer.conditioner(x[:, layer.kept]).unflatten(-1, (-1, 2))[..., which]
            s_or_t = 2 * torch.tanh(params / 2) if which else params
            return torch.zeros_like(x).index_copy(1, layer.moved, s_or_t)

        return net

    want, want_log_det = x, 0
    for layer in stack.bijections:
        peer = flows.MaskedAffineFlow(torch.zeros(5).double().index_fill(0, layer.kept, 1.0))
        peer.t, peer.s = padded(layer, 0), padded(layer, 1)
        want, step = peer.forward(want)
        want_log_det = want_log_det + step
    close(stack.forward(x), (want, want_log_det))
