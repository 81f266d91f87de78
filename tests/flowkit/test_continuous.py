"""Continuous flows: traces, Hutchinson's variance, the linear field, memory, peers; and flow matching."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.func import jacrev

from flowkit import Flow, StandardNormal
from flowkit.adaptive_ode import DORMAND_PRINCE, adaptive, dormand_prince
from flowkit.continuous import (
    CNF,
    LinearField,
    exact_divergence,
    hutchinson_divergence,
    linear_flow,
    transport,
)
from flowkit.flow_matching import flow_matching_loss, gaussian_field, straight_path
from flowkit.hutchinson import gaussian, hutchinson_variance, rademacher
from flowkit.lab.nets import mlp
from flowkit.neural_ode import TimeField
from flowkit.ode import RK4, integrate

FINE = partial(integrate, steps=40)
TIGHT = partial(adaptive, rtol=1e-9, atol=1e-9)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_field(dim=3, seed=0, activation=torch.nn.Tanh, context_dim=0):
    torch.manual_seed(seed)
    return TimeField(mlp(dim + 1 + context_dim, dim, (8,), activation, zero_last=False)).double()


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


class Fixed(torch.nn.Module):
    """A plain function of (t, x) as a field."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, t, x):
        return self.function(t, x)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3), (6, 1)])
def test_the_exact_trace_is_that_of_the_jacobian(shape):
    field, x, t = make_field(shape[-1]), randn(*shape), torch.tensor(0.3).double()
    v, divergence = exact_divergence(field, t, x)
    close(v, field(t, x))
    rows = [jacrev(lambda y: field(t, y))(y).trace() for y in x.reshape(-1, shape[-1])]
    close(divergence, torch.stack(rows).reshape(shape[:-1]) if rows else x.new_zeros(shape[:-1]))


def test_unit_probes_sum_to_the_trace_and_signs_estimate_it():
    field, x, t = make_field(4), randn(6, 4), torch.tensor(0.3).double()
    want = exact_divergence(field, t, x)[1]
    units = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 6, 4)
    close(4 * hutchinson_divergence(field, t, x, units)[1], want)  # the mean of four
    for noise in (rademacher, gaussian):
        probes = noise(x.expand(20_000, *x.shape), torch.Generator().manual_seed(0))
        estimate = hutchinson_divergence(field, t, x, probes)[1]
        jacobians = torch.stack([jacrev(lambda y: field(t, y))(y) for y in x])
        error = (hutchinson_variance(jacobians, noise) / 20_000).sqrt()
        assert ((estimate - want).abs() < 4 * error).all()


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_a_linear_field_has_the_matrix_exponential_and_t_times_the_trace(dim):
    matrix, x = randn(dim, dim), randn(5, dim, seed=1)
    flow = CNF(LinearField(matrix), partial(integrate, steps=40, method=DORMAND_PRINCE), time=0.7)
    z, log_det = linear_flow(matrix, x, 0.7)
    close(torch.linalg.slogdet(torch.linalg.matrix_exp(0.7 * matrix)).logabsdet, log_det[0])
    got, got_log_det = flow.forward(x)
    close(got, z, 1e-8)
    close(got_log_det, log_det)  # the trace is constant: no error of the solver in it
    close(flow.inverse(z)[0], x, 1e-8)
    close(flow.inverse(z)[1], -log_det)


def test_the_log_det_is_that_of_the_autograd_jacobian():
    flow, x = CNF(make_field(), partial(integrate, steps=25, method=DORMAND_PRINCE)), randn(2, 3)
    for way in (flow.forward, flow.inverse):
        jacobians = torch.stack([jacrev(lambda y, way=way: way(y)[0])(y) for y in x])
        close(way(x)[1], torch.linalg.slogdet(jacobians).logabsdet, 1e-10)


def test_points_and_log_dets_converge_at_the_order_of_the_solver():
    field, x = make_field(), randn(4, 3)
    exact = dormand_prince(
        lambda t, y: exact_divergence(field, t, y[0]), (x, x.new_zeros(4)), 0.0, 1.0, 1e-13, 1e-13
    )
    errors = {}
    for steps in (5, 10):
        got = CNF(field, partial(integrate, steps=steps)).forward(x)
        errors[steps] = torch.stack([(a - b).abs().max() for a, b in zip(got, exact.y, strict=True)])
    assert ((errors[5] / errors[10]).log2() > 3.5).all()


def test_with_adaptive_steps_a_looser_tolerance_costs_less_and_errs_more():
    field, x = make_field(), randn(16, 3)
    truth = CNF(field, partial(adaptive, rtol=1e-12, atol=1e-12)).forward(x)[1]
    cost, error = [], []
    for tolerance in (1e-4, 1e-7, 1e-10):
        flow = CNF(field, partial(adaptive, rtol=tolerance, atol=tolerance))
        error.append((flow.forward(x)[1] - truth).abs().max().item())
        cost.append(flow.evaluations)
    assert cost[0] < cost[1] < cost[2]
    assert error[0] > 5 * error[1] > 25 * error[2]


def test_the_density_integrates_to_one():
    flow = Flow(StandardNormal(2).double(), CNF(make_field(2, 3), partial(integrate, steps=10)))
    line = torch.linspace(-9, 9, 91, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    assert float(flow.log_prob(points).detach().exp().sum() * 0.2**2) == pytest.approx(1, abs=1e-4)


def test_hutchinson_in_a_solve_is_unbiased_fixed_and_leaves_the_points_alone():
    field, x = make_field(), randn(1, 3).expand(4000, 3)
    exact = CNF(field, partial(integrate, steps=4))
    noisy = CNF(field, partial(integrate, steps=4), probes=1)
    z, want = exact.forward(x)
    torch.manual_seed(0)
    got_z, got = noisy.forward(x)
    close(got_z, z)
    assert got.std() > 0.01
    assert (got.mean() - want[0]).abs() < 4 * got.std() / math.sqrt(4000)
    torch.manual_seed(0)
    close(noisy.forward(x)[1], got)
    noisy.probes = 16
    close(noisy.forward(x)[1].std(), got.std() / 4, 0.1)


def test_the_probes_are_drawn_once_a_solve():
    """For a linear field the estimate is then time * e . A e: with signs, one of few numbers."""
    matrix = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.manual_seed(0)
    for solver in (partial(integrate, steps=7), TIGHT):
        _, log_det = CNF(LinearField(matrix), solver, probes=1).forward(randn(50, 2))
        close(log_det.detach().abs(), torch.ones(50).double())
        assert len(log_det.detach().round().unique()) == 2


def size_of_graph(result):
    """The number of operations that autograd keeps, each with the tensors that it saved."""
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


def test_the_flat_memory_gradient_is_autograds_and_its_graph_does_not_grow():
    field, x = make_field(), randn(8, 3)
    grads, kept = {}, {}
    for flat in (False, True):
        for steps in (20, 40):
            flow = CNF(field, partial(integrate, steps=steps), flat_memory=flat)
            log_prob = Flow(StandardNormal(3).double(), flow).log_prob(x).mean()
            kept[flat, steps] = size_of_graph(log_prob)
            grads[flat] = torch.autograd.grad(log_prob, list(field.parameters()))
    for a, b in zip(grads[False], grads[True], strict=True):
        close(a, b, 1e-6)
    assert kept[False, 40] > 1.9 * kept[False, 20]
    assert kept[True, 40] == kept[True, 20] < kept[False, 20] / 50


@pytest.mark.parametrize("flat", [False, True])
def test_a_context_conditions_and_is_differentiated(flat):
    field, x = make_field(context_dim=2), randn(5, 3)
    flow = CNF(field, FINE, context_dim=2, flat_memory=flat)
    context = randn(5, 2, seed=1).requires_grad_()
    z, log_det = flow.forward(x, context)
    close(flow.inverse(z, context)[0], x, 1e-7)
    one = flow.forward(x[2], context[2])
    close((z[2], log_det[2]), one)
    gradient = torch.autograd.grad(log_det.sum(), context)[0]
    shifted = context.detach() + 1e-5 * torch.eye(5, dtype=torch.float64)[:, :2]
    back = context.detach() - 1e-5 * torch.eye(5, dtype=torch.float64)[:, :2]
    numeric = (flow.forward(x, shifted)[1] - flow.forward(x, back)[1])[:2] / 2e-5
    close(gradient.diagonal(), numeric, 1e-6)
    for wrong in (None, randn(5, 3)):
        with pytest.raises(ValueError, match=r"needs a context of shape \(\.\.\., 2\)"):
            flow.forward(x, wrong)
    with pytest.raises(ValueError, match="without dimensions"):
        flow.forward(torch.tensor(1.0))


def test_transport_carries_densities_as_the_closed_form_says():
    matrix, x = randn(2, 2), randn(6, 2, seed=1)
    base = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    points, log_p = transport(lambda t, x: x @ matrix.mT, x, base.log_prob(x), times)
    assert points.shape == (41, 6, 2)
    for k in (0, 20, 40):
        scale = torch.linalg.matrix_exp(times[k] * matrix)
        moved = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale @ scale.mT)
        close(log_p[k], moved.log_prob(points[k]), 1e-5)


def test_zuko_agrees_on_a_linear_field_and_on_a_network():
    transforms = pytest.importorskip("zuko.transforms")
    for field in (LinearField(randn(3, 3)), make_field()):
        x = randn(6, 3, seed=2)
        theirs = transforms.FreeFormJacobianTransform(
            f=field, t0=0.0, t1=1.0, phi=tuple(field.parameters()), atol=1e-12, rtol=1e-12
        )
        flow = CNF(field, partial(adaptive, rtol=1e-12, atol=1e-12))
        close(flow.forward(x), theirs.call_and_ladj(x), 1e-10)
        close(flow.inverse(x), theirs.inv.call_and_ladj(x), 1e-10)


def test_float32_and_copies():
    flow, x = CNF(make_field().float()), randn(5, 3).float()
    z, log_det = flow.forward(x)
    assert z.dtype == log_det.dtype == torch.float32
    truth = CNF(make_field(), TIGHT).forward(x.double())
    close((z, log_det), tuple(part.float() for part in truth), 1e-4)
    close(copy.deepcopy(flow).forward(x), (z, log_det))
    with torch.no_grad():
        assert not flow.forward(x)[1].requires_grad


def test_a_cnf_learns_a_shifted_and_scaled_gaussian():
    torch.manual_seed(0)
    x = 0.5 * torch.randn(256, 2) + torch.tensor([1.0, -0.5])
    field = TimeField(mlp(3, 2, (16,), torch.nn.Tanh))
    flow = Flow(StandardNormal(2), CNF(field, partial(integrate, steps=4), probes=1))
    optimizer = torch.optim.Adam(flow.parameters(), 3e-2)
    for _ in range(80):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    flow.bijection.probes = 0
    entropy = math.log(2 * math.pi * math.e * 0.25)
    held_out = 0.5 * torch.randn(2000, 2) + torch.tensor([1.0, -0.5])
    kl = float(-flow.log_prob(held_out).mean()) - entropy
    assert -0.05 < kl < 0.12


def test_the_straight_path_goes_from_data_to_noise():
    x, z = randn(5, 2), randn(5, 2, seed=1)
    close(straight_path(x, z, torch.zeros(5).double())[0], x)
    close(straight_path(x, z, torch.ones(5).double())[0], z)
    half, velocity = straight_path(x, z, torch.full((5,), 0.5).double())
    close(half, (x + z) / 2)
    close(half + velocity / 2, z)


MEAN, STD = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double()


def test_the_best_field_of_gaussians_makes_them_normal():
    flow = CNF(Fixed(gaussian_field(MEAN, STD)), TIGHT)
    x = MEAN + STD * randn(6, 2)
    z, log_det = flow.forward(x)
    close(z, (x - MEAN) / STD, 1e-6)
    close(log_det, -STD.log().sum().expand(6), 1e-6)
    want = torch.distributions.Normal(MEAN, STD).log_prob(x).sum(-1)
    close(Flow(StandardNormal(2).double(), flow).log_prob(x), want, 1e-6)


def test_the_loss_of_the_best_field_is_its_formula_and_the_least():
    n = 200_000
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 2, generator=generator).double() for _ in range(2))
    x, t = MEAN + STD * x, torch.rand(n, generator=generator).double()
    best = gaussian_field(MEAN, STD)
    least = flow_matching_loss(best, x, z, t)
    assert float(least) == pytest.approx(math.pi / 2 * float(STD.sum()), rel=0.02)
    for slip in (lambda t, y: -best(t, y), lambda t, y: best(1 - t, y), lambda t, y: 1.1 * best(t, y)):
        assert flow_matching_loss(slip, x, z, t) > least + 0.01
    one = flow_matching_loss(best, x[:1], z[:1], t[:1])
    close(one, (best(t[:1], (1 - t[:1]) * x[:1] + t[:1] * z[:1]) - (z - x)[:1]).square().sum())


@pytest.mark.slow
def test_flow_matching_learns_the_density_of_a_cnf():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    field = TimeField(mlp(3, 2, (32, 32), torch.nn.Tanh))
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    mean, std = MEAN.float(), STD.float()
    for _ in range(600):
        x, z = torch.randn(512, 2, generator=generator) * std + mean, torch.randn(512, 2, generator=generator)
        loss = flow_matching_loss(field, x, z, torch.rand(512, generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    flow = Flow(StandardNormal(2), CNF(field, partial(integrate, steps=20)))
    held_out = torch.randn(2000, 2, generator=generator) * std + mean
    target = torch.distributions.Normal(mean, std)
    kl = float((target.log_prob(held_out).sum(-1) - flow.log_prob(held_out)).mean())
    assert -0.02 < kl < 0.06
    drawn = flow.sample((4000,))
    close(drawn.mean(0), mean, 0.15)
    close(drawn.std(0), std, 0.15)


def test_transport_takes_other_methods():
    x = randn(3, 2)
    for method in (RK4, DORMAND_PRINCE):
        points, log_p = transport(lambda t, x: -x, x, torch.zeros(3).double(), [0.0, 0.1, 0.2], method)
        close(points[-1], x * math.exp(-0.2), 1e-6)
        close(log_p[-1], torch.full((3,), 0.4, dtype=torch.float64))
