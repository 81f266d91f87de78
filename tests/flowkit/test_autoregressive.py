"""What only autoregressive flows do: masks, orders, one pass against D steps, and their peers."""

import math

import pytest
import torch
from torch.func import jacrev
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from flowkit import Compose, Flow, Inverse, StandardNormal
from flowkit.autoregressive import (
    IAF,
    MAF,
    maf_stack,
    orders,
    standardize,
)
from flowkit.coupling import Transformer, additive, affine, dependencies
from flowkit.lab import targets
from flowkit.lab.training import fit
from flowkit.linear import Permutation
from flowkit.made import MADE, hidden_degrees, made_masks, positions


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(f, seed=0, std=0.5):
    """The module in float64, all its parameters drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    f = f.double()
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return f


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def before(order):
    """[i, j] is True where j stands before i in the order."""
    order = list(order)
    return torch.tensor(
        [[order.index(j) < order.index(i) for j in range(len(order))] for i in range(len(order))]
    )


def pattern(made, *context):
    """Which x_j move the outputs of dimension i at some random point, by autograd: (D, D) bool."""
    x = randn(16, made.dim)
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x, *context).sum(0), x)
    return (jacobian != 0).any(2).any(1)  # over points, then over the parameters of a dimension


def plain_inverse(maf, z, context=None):
    """D whole passes of the network, of which each gives one dimension."""
    x = torch.zeros_like(z)
    for i in maf.conditioner.order.tolist():
        better = maf.transformer.inverse(z, maf.conditioner(x, context))[0]
        x = torch.where(torch.arange(maf.conditioner.dim) == i, better, x)
    return x


ORDERS = [[0], [0, 1], [1, 0], [2, 0, 3, 1], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hidden", [(), (6,), (7, 13), (30, 6, 6)])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_each_output_reads_all_dimensions_before_it_and_no_other(order, hidden, context_dim):
    dim = len(order)
    hidden = tuple(width + (context_dim > 0) for width in hidden)
    made = drawn(MADE(dim, 2, hidden, order, context_dim, torch.nn.Tanh))
    context = randn(16, context_dim, seed=1)
    assert torch.equal(pattern(made, context), before(order))
    assert torch.equal(made.reads(), before(order))
    if context_dim:
        x = randn(16, dim)
        slopes = torch.autograd.functional.jacobian(lambda c: made(x, c).sum(0), context)
        assert (slopes != 0).all()  # every output sees every context, the first dimension too


@pytest.mark.parametrize("hidden", [(1,), (2, 5), (5, 1, 3), (3, 2)])
@pytest.mark.parametrize("dim", [1, 2, 7])
def test_narrow_layers_read_less_and_never_what_comes_later(hidden, dim):
    order = Permutation.random(dim, 3).order
    made = drawn(MADE(dim, 3, hidden, order, activation=torch.nn.Tanh))
    assert torch.equal(pattern(made), made.reads())
    assert not (made.reads() & ~before(order.tolist())).any()


def test_the_last_dimension_reads_all_through_a_single_unit():
    assert MADE(6, hidden=(1,)).reads()[-1].tolist() == [True] * 5 + [False]


def test_the_masks_are_those_of_the_formula():
    order, hidden = [2, 0, 1], (4, 3)
    masks = made_masks(order, hidden, context_dim=1)
    m = [
        torch.tensor([2, 3, 1, 0]),
        hidden_degrees(3, 4, 1),
        hidden_degrees(3, 3, 1),
        torch.tensor([2, 3, 1]),
    ]
    assert positions(order).tolist() == [2, 3, 1]
    for k, mask in enumerate(masks):
        for a, row in enumerate(mask.tolist()):
            for b, kept in enumerate(row):
                assert kept == (m[k + 1][a] > m[k][b] if k == 2 else m[k + 1][a] >= m[k][b])


@pytest.mark.parametrize(("dim", "context_dim"), [(1, 0), (1, 2), (2, 0), (5, 0), (5, 1), (64, 0)])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 63, 100])
def test_degrees_ascend_and_spread_evenly(dim, context_dim, width):
    lowest = 0 if context_dim or dim == 1 else 1
    degrees = hidden_degrees(dim, width, context_dim)
    assert degrees.tolist() == sorted(degrees.tolist())
    assert degrees[-1] == max(dim - 1, 0)
    assert degrees.min() >= lowest
    counts = degrees.bincount(minlength=dim)[lowest:]
    assert counts.max() - counts.min() <= 1


def test_a_mask_that_is_not_strict_would_be_seen():
    made = drawn(MADE(4, hidden=(9,), activation=torch.nn.Tanh))
    made.layers[-1].mask[positions(range(4))[:, None] >= hidden_degrees(4, 9)] = 1
    assert pattern(made).diagonal().any()


def test_masked_weights_get_no_gradient():
    made = drawn(MADE(5, 2, (8,)))
    made(randn(10, 5)).square().sum().backward()
    for layer in made.layers:
        assert (layer.weight.grad[layer.mask == 0] == 0).all()
        assert (layer.weight.grad[layer.mask == 1] != 0).any()


@pytest.mark.parametrize("order", ORDERS)
def test_maf_is_its_formula_and_its_jacobian_triangular(order):
    dim = len(order)
    maf, x = drawn(MAF(dim, (8,), order)), randn(6, dim)
    mu, raw = maf.conditioner(x).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    z, log_det = maf.forward(x)
    close(z, (x - mu) * torch.exp(-s))
    close(log_det, -s.sum(-1))
    jacobian = jacrev(lambda x: maf.forward(x)[0])(x[0])[order][:, order]
    assert (jacobian.triu(1) == 0).all()
    close(jacobian.diagonal().log().sum(), log_det[0])
    assert torch.equal(
        dependencies(maf, dim) | maf.conditioner.reads(), before(order) | torch.eye(dim).bool()
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hidden", [(), (1,), (8,), (5, 11)])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("transformer", [None, additive()])
def test_the_steps_give_what_d_whole_passes_give(order, hidden, context_dim, transformer):
    dim = len(order)
    maf = drawn(MAF(dim, hidden, order, transformer, context_dim))
    z, context = randn(3, 4, dim), randn(3, 4, context_dim, seed=1)
    x, log_det = maf.inverse(z, context)
    close(x, plain_inverse(maf, z, context))
    back, log_det_there = maf.forward(x, context)
    close(back, z, 1e-11)
    close(log_det_there, -log_det)


def test_the_steps_have_the_gradient_of_d_whole_passes():
    maf, context = drawn(MAF(5, (8, 6), [3, 1, 4, 0, 2], context_dim=2)), randn(4, 2)
    inputs = [randn(4, 5).requires_grad_(), *maf.parameters()]
    x, want = maf.inverse(inputs[0], context)[0], plain_inverse(maf, inputs[0], context)
    close(torch.autograd.grad(x.square().sum(), inputs), torch.autograd.grad(want.square().sum(), inputs))


@pytest.mark.parametrize(("dim", "hidden"), [(16, (64,)), (64, (256, 256))])
def test_sampling_costs_the_arithmetic_of_one_pass(dim, hidden):
    maf, z = MAF(dim, hidden), torch.randn(10, dim)

    def count(way):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            way(z)
        return counter.get_total_flops()

    density = count(maf.forward)
    assert count(maf.inverse) < density  # masked weights are not multiplied at all
    assert count(lambda z: plain_inverse(maf, z)) == dim * density


def test_one_by_one_draws_from_a_made_of_any_conditionals():
    made = drawn(MADE(3, 1, (8,), order=[2, 0, 1]), std=1.0)
    generator = torch.Generator().manual_seed(0)
    x = made.one_by_one(
        lambda i, logit: torch.bernoulli(logit[:, 0].sigmoid(), generator=generator), 20_000
    ).detach()
    cells = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    log_prob = -F.binary_cross_entropy_with_logits(made(cells)[..., 0], cells, reduction="none").sum(-1)
    close(log_prob.exp().sum(), torch.ones((), dtype=torch.float64))
    seen = (x[:, None] == cells).all(-1).double().mean(0)
    assert (seen - log_prob.exp()).abs().max() < 4 * 0.5 / math.sqrt(20_000)


def test_iaf_is_a_maf_walked_backwards():
    iaf = drawn(IAF(4, (8,), [1, 3, 0, 2]))
    maf = drawn(MAF(4, (8,), [1, 3, 0, 2], affine()))
    z = randn(5, 4)
    assert torch.equal(iaf.inverse(z)[0], maf.forward(z)[0])
    mu, raw = iaf.bijection.conditioner(z).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    x, log_det = iaf.inverse(z)
    close(x, z * s.exp() + mu)
    close(log_det, s.sum(-1))
    close(iaf.forward(x)[0], z)
    flow = Flow(StandardNormal(4).double(), iaf)
    x, log_prob = flow.rsample_with_log_prob((7,))
    close(flow.log_prob(x), log_prob, 1e-10)


def test_an_order_is_a_permutation_there_and_back():
    order, x = [2, 0, 3, 1], randn(5, 4)
    maf, plain = drawn(MAF(4, (8,), order)), drawn(MAF(4, (8,)))
    rows = torch.tensor(order)
    state = {name: value.clone() for name, value in maf.conditioner.state_dict().items()}
    with torch.no_grad():
        natural = plain.conditioner
        natural.layers[0].weight.copy_(state["layers.0.weight"][:, rows])
        natural.layers[0].bias.copy_(state["layers.0.bias"])
        natural.layers[1].weight.copy_(state["layers.1.weight"].unflatten(0, (4, 2))[rows].flatten(0, 1))
        natural.layers[1].bias.copy_(state["layers.1.bias"].unflatten(0, (4, 2))[rows].flatten(0, 1))
    there = Permutation(order)
    close(maf.forward(x), Compose(there, plain, Inverse(there)).forward(x))


def test_an_order_is_copied():
    for given in (torch.tensor([1, 0], dtype=torch.int32), torch.tensor([1, 0])):
        made = MADE(2, order=given)
        given.zero_()
        assert made.order.tolist() == [1, 0]


def test_orders():
    assert [order.tolist() for order in orders(3, 3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    shuffled = [[order.tolist() for order in orders(20, 2, shuffle=True, seed=seed)] for seed in (0, 0, 1)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert shuffled[0][0] != shuffled[0][1]
    stack = maf_stack(20, 2, shuffle=True)
    assert [layer.conditioner.order.tolist() for layer in stack.bijections] == shuffled[0]


def test_two_layers_let_everything_see_everything():
    stack = drawn(maf_stack(5, 2, (16,), activation=torch.nn.Tanh))
    assert dependencies(stack, 5).all()
    assert dependencies(stack.bijections[0], 5).sum() == 15


@pytest.mark.parametrize("make", [MAF, IAF, lambda dim: maf_stack(dim, 3), MADE])
def test_they_start_as_the_identity_with_gradients_that_move_them(make):
    f, x = make(4), torch.randn(6, 4)
    if isinstance(f, MADE):
        assert torch.equal(f(x), torch.zeros(6, 4, 1))
        return
    z, log_det = f.forward(x)
    assert torch.equal(z, x)
    assert (log_det == 0).all()
    Flow(StandardNormal(4), f).log_prob(x).mean().backward()
    assert all(m.layers[-1].weight.grad.abs().sum() > 0 for m in f.modules() if isinstance(m, MADE))


def test_extremes_stay_finite_in_float32():
    torch.manual_seed(0)
    stack = maf_stack(6, 8, (32,))
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += torch.randn_like(parameter)
    x = torch.cat([scale * torch.randn(20, 6) for scale in (1.0, 1e2, 1e4)])
    for way in (stack.forward, stack.inverse):
        z, log_det = way(x)
        assert z.isfinite().all()
        assert (log_det.abs() <= 8 * 6 * 2.0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MADE(3, order=[0, 1]), r"order of 3 dimensions has shape \(3,\), got \(2,\)"),
        (lambda: MADE(3, order=[0, 1, 1]), "not a permutation"),
        (lambda: MADE(0), "at least one dimension"),
        (lambda: MAF(3, hidden=(4, 0)), "at least one unit"),
        (lambda: standardize(0), "must be positive"),
        (lambda: MADE(3)(torch.zeros(2, 4)), r"this MADE takes points of shape \(\.\.\., 3\), got \(2, 4\)"),
        (lambda: MAF(3).forward(torch.zeros(2, 4)), r"this MAF takes points of shape \(\.\.\., 3\)"),
        (lambda: MAF(3).inverse(torch.zeros(2, 4)), r"this MAF takes points of shape \(\.\.\., 3\)"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_context_conditions_and_is_asked_for():
    f = drawn(MAF(3, (8,), context_dim=2, activation=torch.nn.Tanh))
    x, context = randn(4, 3), randn(4, 2, seed=1)
    assert (f.forward(x, context + 1)[0] != f.forward(x, context)[0]).all()
    one = f.inverse(x, context[0])
    close(one, f.inverse(x, context[:1].expand(4, 2)))  # one context for all points
    for wrong in (None, randn(4, 3)):
        for way in (f.forward, f.inverse):
            with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 2\)"):
                way(x, wrong)
    plain = drawn(MAF(3, (8,)))
    assert torch.equal(plain.inverse(x, context)[0], plain.inverse(x)[0])


def softplus_scale(params):
    raw, t = params.unbind(-1)
    return t, (F.softplus(raw) + 1e-3).log()


def softplus_forward(x, params):
    t, s = softplus_scale(params)
    return x * s.exp() + t, s


def softplus_inverse(z, params):
    t, s = softplus_scale(params)
    return (z - t) * (-s).exp(), -s


def copy_units(made, peer_layers):
    """Gives our MADE the peer's parameters; its hidden units are ours in another order."""
    columns = torch.arange(made.dim)
    with torch.no_grad():
        for k, (ours, theirs) in enumerate(zip(made.layers, peer_layers, strict=True)):
            last = k + 1 == len(peer_layers)
            rows = torch.arange(len(theirs.bias)) if last else theirs.degrees.argsort(stable=True)
            ours.weight.copy_(theirs.weight[rows][:, columns])
            ours.bias.copy_(theirs.bias[rows])
            assert torch.equal(ours.mask.double(), theirs.mask[rows][:, columns])
            columns = rows


@pytest.mark.parametrize(("dim", "width", "blocks"), [(2, 5, 1), (4, 9, 2), (7, 12, 3)])
def test_masks_density_and_samples_agree_with_nflows(dim, width, blocks):
    transforms = pytest.importorskip("nflows.transforms")
    peer = drawn(
        transforms.MaskedAffineAutoregressiveTransform(
            dim, width, num_blocks=blocks, use_residual_blocks=False, activation=torch.tanh
        )
    )
    net = peer.autoregressive_net
    transformer = Transformer(softplus_forward, softplus_inverse, 2)
    maf = MAF(dim, (width,) * (blocks + 1), None, transformer, activation=torch.nn.Tanh).double()
    copy_units(maf.conditioner, [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer])
    x = randn(8, dim)
    close(maf.conditioner(x).flatten(-2), net(x))
    close(maf.forward(x), peer.forward(x))
    z = maf.forward(x)[0]
    close(maf.inverse(z), peer.inverse(z), 1e-11)


@pytest.mark.parametrize("order", ORDERS[2:])
def test_density_and_samples_agree_with_zuko(order):
    zuko = pytest.importorskip("zuko")
    maf, x = drawn(MAF(len(order), (8,), order, affine(None))), randn(8, len(order))

    def meta(x):
        t, s = maf.conditioner(x).unbind(-1)
        return zuko.transforms.DependentTransform(torch.distributions.AffineTransform(t, s.exp()), 1)

    peer = zuko.transforms.AutoregressiveTransform(meta, len(order))
    z, log_det = peer.call_and_ladj(x)
    close(maf.forward(x), (z, log_det))
    close(maf.inverse(z)[0], peer.inv(z), 1e-10)


def excess_on_figure_1(f):
    """Cross-entropy minus entropy in nats, of a fit to MAF's Figure 1, on the same held-out points."""
    target = targets.maf_figure_1()
    flow = Flow(StandardNormal(2), f)
    fit(flow, target, steps=1500, batch=512, lr=1e-2, clip=1.0, progress=False)
    x = target.sample(20_000, seed=1)
    with torch.no_grad():
        return (target.log_prob(x) - flow.log_prob(x.float())).mean().item()


@pytest.mark.slow
def test_one_layer_models_figure_1_in_the_right_order_only():
    torch.manual_seed(0)
    assert abs(excess_on_figure_1(MAF(2, order=[1, 0]))) < 0.02
    assert 0.30 < excess_on_figure_1(MAF(2, order=[0, 1])) < 0.37
