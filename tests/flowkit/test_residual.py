"""Residual flows: the fixed point, its gradient, estimated log-dets, and memory that is flat in depth."""

import copy
import math
import weakref
from functools import partial

import pytest
import torch

from flowkit import Compose, Flow, Inverse, StandardNormal, check_bijection
from flowkit.elementwise import Affine
from flowkit.hutchinson import rademacher
from flowkit.lab import targets
from flowkit.lab.training import fit
from flowkit.linear import Permutation
from flowkit.lipschitz import lipschitz_cnn, lipschitz_mlp, power_iteration
from flowkit.log_det_series import PowerSeries, Roulette, exact, truncation_bound
from flowkit.residual import Residual, ReversibleStack, fixed_point, iterations_for, residual_stack


class Times(torch.nn.Module):
    """g(x) = c x."""

    def __init__(self, c):
        super().__init__()
        self.c = torch.nn.Parameter(torch.tensor(c, dtype=torch.float64))

    def forward(self, x):
        return self.c * x


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(f, seed=0, std=1.0):
    """The module in float64, its parameters moved away from where they start."""
    f, generator = f.double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return f


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_minus_c_x_in_closed_form():
    f, x = Residual(Times(-0.9), 0.9), randn(5, 3)
    z, log_det = f.forward(x)
    close(z, 0.1 * x)
    close(log_det, torch.full_like(log_det, 3 * math.log(0.1)))
    back, log_det_back = f.inverse(z)
    close(back, x)
    close(log_det_back, -log_det)
    biased = Residual(Times(-0.9), 0.9, PowerSeries(10)).forward(x)[1]
    close(biased - log_det, torch.full_like(log_det, 3 * truncation_bound(0.9, 10)), 1e-10)


@pytest.mark.parametrize("lipschitz", [0.3, 0.9])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 0.0])
def test_the_fixed_point_is_as_near_as_its_bound(lipschitz, tolerance):
    net, z = drawn(lipschitz_mlp(4, (16,), lipschitz), std=5.0), 3 * randn(20, 4)
    truth = fixed_point(net, z, lipschitz).x
    close(truth + net(truth), z)
    found = fixed_point(net, z, lipschitz, tolerance)
    error = (found.x - truth).norm(dim=-1)
    assert (error <= found.bound + 1e-13).all()
    assert (found.bound <= max(tolerance, 1e-12)).all()
    first = net(z).norm(dim=-1)
    assert (error <= lipschitz**found.iterations / (1 - lipschitz) * first + 1e-13).all()
    assert found.iterations <= iterations_for(lipschitz, torch.finfo(z.dtype).eps)


def test_the_iteration_converges_at_the_rate_of_the_constant():
    """On x + c x the error is c^n times the first, and the bound is attained for negative c."""
    z = torch.ones(1, 1, dtype=torch.float64)
    for tolerance in (1e-3, 1e-6):
        found = fixed_point(lambda x: -0.5 * x, z, 0.5, tolerance)
        close(found.x - 2, torch.full_like(z, -(0.5**found.iterations)))
        close(found.bound, torch.full_like(found.bound, 0.5**found.iterations))
        assert tolerance / 2 < found.bound <= tolerance
    for lipschitz, error in ((0.5, 1e-3), (0.97, 1e-8)):
        n = iterations_for(lipschitz, error)
        assert lipschitz**n / (1 - lipschitz) <= error < lipschitz ** (n - 1) / (1 - lipschitz)


@pytest.mark.parametrize("c", [1.0, 1.01, -3.0])
def test_a_map_that_does_not_contract_is_named(c):
    with pytest.raises(RuntimeError, match=r"no contraction with the constant 0\.9"):
        fixed_point(lambda x: c * x, torch.ones(2, 1), 0.9)


def test_points_that_are_not_finite_stay_so_and_leave_the_others_alone():
    f = drawn(residual_stack(2, 1, (4,)))
    z = torch.tensor([[1.0, 2.0], [math.nan, 0.0]], dtype=torch.float64)
    x = f.bijections[0].solve(z).x
    assert x[1].isnan().all()
    x = fixed_point(f.bijections[0].net, torch.zeros(0, 2).double(), 0.9)
    assert x.x.shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trips_reach_rounding_at_every_size(dtype):
    f = drawn(Residual(lipschitz_mlp(3, (16,), 0.97), 0.97), std=3.0).to(dtype)
    for size in (1e-3, 1.0, 1e4):
        x = (size * randn(50, 3)).to(dtype)
        error = (f.inverse(f.forward(x)[0])[0] - x).abs().amax(-1)
        assert (error <= 1e3 * torch.finfo(dtype).eps * (1 + x.norm(dim=-1))).all()


def test_the_inverse_is_differentiated_as_the_unrolled_iteration_is():
    f, z = drawn(Residual(lipschitz_mlp(3, (8,), 0.8), 0.8)), randn(6, 3).requires_grad_()
    leaves = [z, *f.parameters()]
    x, log_det = f.inverse(z)
    got = torch.autograd.grad((x.square().sum() + log_det.sum()), leaves)
    unrolled = z
    for _ in range(150):
        unrolled = z - f.net(unrolled)
    want = torch.autograd.grad(unrolled.square().sum() - f.forward(unrolled)[1].sum(), leaves)
    close(x, unrolled)
    close(got, want, 1e-9)


def test_the_gradient_of_the_inverse_keeps_one_pass():
    """Saved bytes do not depend on the number of iterations, which the constant moves from 50 to 1500."""
    kept = []
    for lipschitz in (0.5, 0.97):
        f = Residual(drawn(lipschitz_mlp(3, (8,), 0.4)), lipschitz)
        kept.append(peak_bytes(lambda f=f: f.inverse(randn(16, 3))))
    assert kept[0] == kept[1] > 0


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_without_gradients_nothing_is_kept(way):
    f, x = drawn(residual_stack(3, 2, (8,))), randn(4, 3)
    with torch.no_grad():
        bare = getattr(f, way)(x)
    assert not any(part.requires_grad for part in bare)
    close(bare, getattr(f, way)(x))
    assert x.requires_grad is False


def test_images_through_convolutions():
    f = drawn(Residual(lipschitz_cnn((2, 4, 4), (3,), lipschitz=0.8), 0.8))
    x = randn(5, 32)
    z, log_det = f.forward(x)
    close(f.inverse(z)[0], x, 1e-10)
    assert (f.forward(x)[0] - x).abs().max() > 0.1
    J = torch.autograd.functional.jacobian(lambda x: f.forward(x)[0], x[0])
    close(torch.linalg.slogdet(J).logabsdet, log_det[0], 1e-10)


@pytest.mark.parametrize(
    "log_det",
    [PowerSeries(40), PowerSeries(40, rademacher), PowerSeries(40, rademacher, neumann=False), Roulette()],
)
def test_estimators_serve_a_flow(log_det):
    """Against exact: equal for many exact terms; with one probe a point, near on average over many points."""
    torch.manual_seed(0)
    plain = drawn(residual_stack(2, 2, (8,), 0.6))
    f = copy.deepcopy(plain)
    for block in f.bijections:
        block.log_det = log_det
    x = randn(4000, 2)
    want, got = plain.forward(x), f.forward(x)
    close(got[0], want[0])
    if log_det == PowerSeries(40):
        close(got[1], want[1], 1e-8)
    assert abs((got[1] - want[1]).mean()) < 0.1
    grads = [
        torch.autograd.grad(log_det.mean(), list(g.parameters()), materialize_grads=True)
        for g, (_, log_det) in ((plain, want), (f, got))
    ]
    flat = [torch.cat([part.flatten() for part in grad]) for grad in grads]
    assert torch.cosine_similarity(*flat, dim=0) > 0.9


def peak_bytes(make, backward=False):
    """The most bytes that autograd's saved tensors hold at one time, parameters left out."""
    live = peak = 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # autograd puts its graph back; to hold it here would be a cycle

    def forget(size):
        nonlocal live
        live -= size

    def pack(tensor):
        nonlocal live, peak
        kept = Kept(tensor)
        if not isinstance(tensor, torch.nn.Parameter):
            live += tensor.nbytes
            peak = max(peak, live)
            weakref.finalize(kept, forget, tensor.nbytes)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        z, log_det = make()
        if backward:
            (z.sum() + log_det.sum()).backward()
    return peak


@pytest.mark.parametrize("log_det", [exact, Roulette(generator=None), PowerSeries(4, rademacher)])
def test_the_memory_of_the_reversible_gradient_is_flat_in_depth(log_det):
    def peak(layers, reversible):
        torch.manual_seed(0)
        f = drawn(residual_stack(4, layers, (16,), 0.7, log_det, reversible))
        return peak_bytes(lambda: f.forward(randn(64, 4)), backward=True)

    assert peak(12, True) == peak(2, True) > 0
    assert peak(12, False) > 4 * peak(2, False)
    assert peak(12, True) < peak(2, False)


def test_the_reversible_gradient_is_that_of_compose():
    plain = drawn(residual_stack(3, 8, (8,), 0.7))
    plain.bijections.insert(1, Permutation([2, 0, 1]))
    plain.bijections.insert(3, drawn(Affine(3)))
    reversible, x = ReversibleStack(*plain.bijections), randn(10, 3).requires_grad_()
    leaves, weights = [x, *plain.parameters()], randn(10, seed=4)
    grads = []
    for f in (plain, reversible):
        z, log_det = f.forward(x)
        grads.append(
            torch.autograd.grad((z * randn(10, 3, seed=3)).sum() + (log_det * weights).sum(), leaves)
        )
        close(f.inverse(z)[0], x, 1e-10)
    close(*grads, 1e-9)
    close(reversible.forward(x), plain.forward(x))
    assert reversible.forward(x)[0].grad_fn is not None
    with torch.no_grad():
        assert reversible.forward(x)[0].grad_fn is None


def test_the_reversible_gradient_meets_the_random_numbers_of_its_forward():
    """With one probe for both, the gradient is that of the very estimate; another's is far from it."""
    f = drawn(residual_stack(3, 2, (8,), 0.7, PowerSeries(5, rademacher, neumann=False), reversible=True))
    x = randn(1, 3)
    moved = f.bijections[0].net[0].bias

    def with_seed(shift, seed=7):
        torch.manual_seed(seed)
        with torch.no_grad():
            moved[0] += shift
        value = f.forward(x)[1].sum()
        with torch.no_grad():
            moved[0] -= shift
        return value.item()

    torch.manual_seed(7)
    value = f.forward(x)[1].sum()
    torch.manual_seed(8)  # what is drawn between forward and backward does not matter
    state = torch.get_rng_state()
    (got,) = torch.autograd.grad(value, moved)
    assert torch.equal(torch.get_rng_state(), state)
    slope = (with_seed(1e-5) - with_seed(-1e-5)) / 2e-5
    other = (with_seed(1e-5, 8) - with_seed(-1e-5, 8)) / 2e-5
    assert got[0].item() == pytest.approx(slope, abs=1e-7)
    assert abs(other - slope) > 1e-4


def test_the_inverse_asks_for_each_norm_once(monkeypatch):
    f, z, calls = drawn(Residual(lipschitz_mlp(3, (8,), 0.9), 0.9)), randn(4, 3), []

    def counted(*args, **options):
        calls.append(args)
        return power_iteration(*args, **options)

    monkeypatch.setattr("flowkit.lipschitz.power_iteration", counted)
    assert f.solve(z).iterations > 5
    assert len(calls) == 2


def test_parameters_changed_before_backward_are_noticed():
    f = residual_stack(2, 2, (4,), reversible=True)
    loss = f.forward(torch.randn(3, 2))[1].sum()
    with torch.no_grad():
        f.bijections[0].net[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed between forward and backward"):
        loss.backward()


def test_shared_blocks_and_frozen_parameters():
    block = drawn(Residual(lipschitz_mlp(2, (4,), 0.5), 0.5))
    block.net[0].bias.requires_grad_(False)
    x = randn(5, 2)
    grads = []
    for f in (Compose(block, block), ReversibleStack(block, block)):
        z, log_det = f.forward(x)
        grads.append(torch.autograd.grad(z.square().sum() + log_det.sum(), block.net[2].weight)[0])
    close(*grads, 1e-10)


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, -0.5, math.nan])
def test_constants_that_do_not_contract_are_refused(lipschitz):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Residual(torch.nn.Identity(), lipschitz)


def test_networks_of_another_width_are_named():
    with pytest.raises(ValueError, match=r"keep the shape \(5, 3\) of its points, got \(5, 2\)"):
        Residual(torch.nn.Linear(3, 2), 0.5).forward(torch.zeros(5, 3))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2, 9])
def test_laws_of_stacks_and_convolutions(dim):
    check_bijection(partial(eval_stack, dim), dim)
    if dim == 9:
        check_bijection(Residual(lipschitz_cnn((1, 3, 3), (2,), lipschitz=0.8), 0.8).eval(), 9)


def eval_stack(dim):
    return Compose(residual_stack(dim, 2, (8,), 0.7), Inverse(residual_stack(dim, 1, (8,), 0.5))).eval()


@pytest.mark.slow
def test_two_moons_are_learned_with_the_roulette_and_judged_exactly():
    torch.manual_seed(0)
    moons = targets.two_moons()
    x, held_out = moons.sample(2000, seed=0).float(), moons.sample(1000, seed=1).float()
    stack = residual_stack(2, 6, (64,), 0.97, Roulette(), activation=torch.nn.Tanh)
    wide, narrow = Affine(2), Affine(2)
    with torch.no_grad():
        wide.log_scale.fill_(1.0)
        narrow.log_scale.fill_(-1.0)
    flow = Flow(StandardNormal(2), Compose(wide, stack, narrow))
    fit(flow, x, 250, lr=1e-2, progress=False)
    for block in stack.bijections:
        block.log_det = exact
    after = flow.log_prob(held_out).mean().item()
    assert -moons.entropy - 0.12 < after < -moons.entropy + 0.05


@pytest.mark.parametrize("terms", [1, 8])
def test_it_agrees_with_normflows(terms):
    flows = pytest.importorskip("normflows").flows
    net, x = drawn(lipschitz_mlp(3, (8,), 0.7)), randn(6, 3)
    peer = flows.Residual(net, reverse=False, exact_trace=True, n_power_series=terms).double().train()
    net.eval()
    f = Residual(net, 0.7, PowerSeries(terms))
    close(f.forward(x), peer.forward(x))
    flat = drawn(lipschitz_mlp(2, (8,), 0.7))
    two = flows.Residual(flat, reverse=False, brute_force=True).double()
    flat.eval()
    close(Residual(flat, 0.7).forward(x[:, :2]), two.forward(x[:, :2]))
    close(two.inverse(x[:, :2])[0], Residual(flat, 0.7).inverse(x[:, :2])[0], 1e-2)  # its tolerance is wide
