"""What only planar, radial and Sylvester flows do: constraints, roots, determinants, peers; the energies."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from flowkit import Compose, Flow, Inverse, StandardNormal, check_bijection
from flowkit.elementwise import Affine
from flowkit.energies import ENERGIES
from flowkit.lab.targets import integral
from flowkit.planar import (
    Planar,
    Radial,
    Sylvester,
    tanh_root,
    tanh_slope,
)
from flowkit.variational import annealed_fit, kl_alarm, reverse_kl

GAINS = [1e-8, 1e-3, 0.5, 1.0, 2.0, 101.0, 1e4, 1e6]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


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


def planar(w, u, b=0.0, dtype=torch.float64):
    f = Planar(len(w)).to(dtype)
    with torch.no_grad():
        for parameter, value in zip((f.w, f.u, f.b), (w, u, b), strict=True):
            parameter.copy_(torch.as_tensor(value))
    return f


def jacobian(f, x):
    return torch.autograd.functional.jacobian(lambda x: f.forward(x)[0], x)


LAYERS = {"planar": Planar, "radial": Radial, "sylvester": lambda dim: Sylvester(dim, min(dim, 3))}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


# All three


@every_layer
def test_it_starts_as_the_identity_with_gradients_that_move_it(make):
    f, x = make(4), randn(5, 4, dtype=torch.float32)
    z, log_det = f.forward(x)
    close(z, x, 1e-6)
    close(log_det, torch.zeros(5), 1e-6)
    Flow(StandardNormal(4), f).log_prob(x + 1).mean().backward()
    assert sum(parameter.grad.abs().sum() for parameter in f.parameters()) > 0.1


@every_layer
@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("seed", range(5))
def test_float32_round_trips_to_1e_6_at_sensible_parameters(make, dim, seed):
    torch.manual_seed(seed)
    f = drawn(make(dim), seed, std=0.3).float()
    x = randn(500, dim, seed=seed, dtype=torch.float32)
    z, log_det = f.forward(x)
    back, log_det_back = f.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-5, atol=1e-5)


@every_layer
def test_wrong_widths_are_named(make):
    for way in (make(3).forward, make(3).inverse):
        with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 3\), got \(5, 4\)"):
            way(torch.zeros(5, 4))


@every_layer
def test_far_points_stay_finite_and_hardly_move(make):
    f, x = drawn(make(3)).float(), 1e15 * randn(20, 3, dtype=torch.float32)
    for way in (f.forward, f.inverse):
        moved, log_det = way(x.requires_grad_())
        (grad,) = torch.autograd.grad(log_det.sum() + moved.sum(), x)
        torch.testing.assert_close(moved, x, rtol=1e-5, atol=0)
        assert log_det.abs().max() < 1e-5
        assert grad.isfinite().all()


# The scalar root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gain", GAINS)
def test_the_root_solves_its_equation_to_the_tolerance_of_its_docstring(gain, dtype):
    sizes = torch.cat([torch.logspace(-12, 5, 500), torch.linspace(0, 2 * gain, 500)])
    target = torch.cat([-sizes, sizes]).to(dtype)
    a = tanh_root(target, torch.tensor(gain, dtype=dtype))
    exact, c = a.double(), torch.tensor(gain, dtype=dtype).double() - 1
    residual = exact + c * exact.tanh() - target.double()
    bound = 4 * torch.finfo(dtype).eps * exact.abs() * (1 + c.abs())
    assert (residual.abs() <= bound + 1e-15 * exact.abs()).all()
    assert (a.sign() == target.sign()).all()


def test_the_root_is_finite_where_the_gain_underflows():
    target = torch.tensor([0.0, 1e-30, 1e-3, 2.0])
    a = tanh_root(target, torch.tensor(0.0))
    assert a[0] == 0
    assert a[3] - a[3].tanh() == pytest.approx(2.0, rel=1e-6)
    assert a.isfinite().all()


def test_the_root_is_differentiable_twice_and_maps_over_batches():
    target, gain = 3 * randn(6), torch.tensor([0.05, 0.5, 1.0, 2.0, 5.0, 50.0], dtype=torch.float64)
    inputs = (target.requires_grad_(), gain.requires_grad_())
    assert torch.autograd.gradcheck(tanh_root, inputs)
    assert torch.autograd.gradgradcheck(tanh_root, inputs)
    assert torch.autograd.gradcheck(tanh_root, (target, gain[:1]))  # broadcast: the gradient is summed
    close(torch.func.vmap(tanh_root)(target, gain), tanh_root(target, gain))


def test_the_slope_keeps_its_digits_where_the_textbook_form_loses_them():
    a = torch.tensor([0.0, 1e-4, 8.0, 30.0])
    gain = torch.tensor([1e-9, 1e-9, 1e6, 1e6])
    exact = 1 + (gain.double() - 1) / a.double().cosh().square()
    naive = 1 + (gain - 1) * (1 - a.tanh().square())
    assert ((tanh_slope(a, gain) - exact).abs() < 3e-6 * exact).all()
    assert ((naive - exact).abs() > 1e-3 * exact).any()


# Planar


def test_planar_is_its_formula():
    f, x = drawn(Planar(3)), randn(6, 3)
    u, gain = f.constrained()
    a = x @ f.w + f.b
    z, log_det = f.forward(x)
    close(z, x + torch.outer(torch.tanh(a), u))
    close(log_det, torch.log(1 + (f.w @ u) / torch.cosh(a).square()))
    close(gain, 1 + f.w @ u)


@pytest.mark.parametrize("dot", [-80.0, -30.0, -3.0, -1.0, 0.0, 3.0, 100.0, 1e4])
def test_the_constraint_moves_u_along_w_alone_and_bounds_their_product(dot):
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    u = dot * w / w.square().sum() + torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    f = planar(w, u)
    constrained, gain = f.constrained()
    moved = constrained - u
    close(torch.linalg.cross(moved, w), torch.zeros(3).double(), 1e-10)
    close(w @ constrained, torch.tensor(np.logaddexp(0, dot) - 1), 1e-11)
    assert gain > 0


def test_below_the_bound_the_map_would_fold():
    """Two points meet at w.u = -1.5, which the layer cannot be set to."""
    a = torch.linspace(-1, 1, 201)
    assert (torch.diff(a - 1.5 * torch.tanh(a)) < 0).any()
    assert (torch.diff(a - torch.tanh(a)) >= 0).all()
    f = planar([1.0], [-1.5])
    assert (torch.diff(f.forward(a.double()[:, None])[0][:, 0]) > 0).all()


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("dot", [-80.0, 100.0, 1e4])
def test_extreme_products_of_w_and_u_stay_finite_in_float32(dot, scale):
    f = planar([scale, 0.0], [dot / scale, 0.3], 0.1, torch.float32)
    for x in (randn(50, 2, dtype=torch.float32), torch.zeros(1, 2), 1e6 * torch.ones(1, 2)):
        for way in (f.forward, f.inverse):
            f.zero_grad()
            z, log_det = way(x.requires_grad_())
            (z.sum() + log_det.sum()).backward()
            assert z.isfinite().all()
            assert log_det.isfinite().all()
            assert x.grad.isfinite().all()
            assert all(parameter.grad.isfinite().all() for parameter in f.parameters())


def test_a_product_of_100_obeys_all_laws():
    f = planar([10.0, 0.0], [10.0, 0.5], 0.2)
    x = randn(100, 2)
    z, log_det = f.forward(x)
    close(f.inverse(z)[0], x, 1e-9)
    brute = torch.stack([torch.linalg.slogdet(jacobian(f, point)).logabsdet for point in x])
    close(log_det, brute, 1e-10)
    assert log_det.max() > 3


def test_planar_agrees_with_normflows():
    flows = pytest.importorskip("normflows").flows
    f, x = drawn(Planar(5)), randn(8, 5)
    peer = flows.Planar((5,), u=f.u.detach()[None], w=f.w.detach()[None], b=f.b.detach()[None])
    close(f.forward(x), peer.forward(x))


# Radial


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_radial_scales_d_minus_1_directions_one_way_and_one_another(dim):
    f, x = drawn(Radial(dim), seed=dim), randn(dim)
    alpha, total = f.constrained()
    r = (x - f.x0).norm()
    beta, h = total - alpha, 1 / (alpha + r)
    across, along = 1 + beta * h, 1 + beta * h - beta * r * h**2
    singular = torch.linalg.svdvals(jacobian(f, x))
    close(singular.sort()[0], torch.stack([across] * (dim - 1) + [along]).sort()[0])
    close(f.forward(x)[1], (dim - 1) * across.log() + along.log())


@pytest.mark.parametrize("raw", [-30.0, -5.0, 0.0, 100.0])
@pytest.mark.parametrize("log_alpha", [-10.0, 0.0, 5.0])
def test_radial_is_finite_at_its_centre_and_at_extreme_parameters(raw, log_alpha):
    f = Radial(3)
    with torch.no_grad():
        f.raw_beta.fill_(raw)
        f.log_alpha.fill_(log_alpha)
    alpha, total = f.constrained()
    assert total - alpha >= -alpha
    for x in (f.x0.detach()[None].clone(), randn(20, 3, dtype=torch.float32), 1e8 * torch.ones(1, 3)):
        for way in (f.forward, f.inverse):
            f.zero_grad()
            z, log_det = way(x.requires_grad_())
            (z.sum() + log_det.sum()).backward()
            assert z.isfinite().all()
            assert log_det.isfinite().all()
            assert x.grad.isfinite().all()
            assert all(parameter.grad.isfinite().all() for parameter in f.parameters())


def test_radial_agrees_with_normflows():
    flows = pytest.importorskip("normflows").flows
    f, x = drawn(Radial(5)), randn(8, 5)
    peer = flows.Radial((5,), z_0=f.x0.detach()[None])
    peer.alpha, peer.beta = nn.Parameter(f.log_alpha.exp()[None]), nn.Parameter(f.raw_beta[None])
    close(f.forward(x), peer.forward(x))


# Sylvester


@pytest.mark.parametrize(("dim", "width"), [(1, 1), (5, 1), (5, 3), (4, 4)])
def test_sylvester_is_its_formula_and_its_determinant_is_m_by_m(dim, width):
    f, x = drawn(Sylvester(dim, width)), randn(6, dim)
    frame, r, s, gain = f.factors()
    close(frame @ frame.T, torch.eye(width, dtype=torch.float64))
    assert torch.equal(r, r.triu())
    assert torch.equal(s, s.triu())
    close(gain, 1 + r.diagonal() * s.diagonal())
    assert (gain > 0).all()
    a = x @ (s @ frame).T + f.bias
    slopes = torch.diag_embed(1 / a.cosh().square())
    z, log_det = f.forward(x)
    close(z, x + torch.tanh(a) @ (frame.T @ r).T)
    small = torch.eye(width) + slopes @ s @ r
    large = torch.eye(dim) + frame.T @ r @ slopes @ s @ frame
    close(log_det, torch.linalg.slogdet(small).logabsdet)
    close(log_det, torch.linalg.slogdet(large).logabsdet)


def test_a_transposed_factor_has_another_determinant():
    f, x = drawn(Sylvester(5, 3)), randn(6, 5)
    frame, r, s, _ = f.factors()
    slopes = torch.diag_embed(1 / (x @ (s @ frame).T + f.bias).cosh().square())
    wrong = torch.linalg.slogdet(torch.eye(3) + slopes @ s @ r.T).logabsdet
    assert (wrong - f.forward(x)[1]).abs().max() > 0.01


def test_sylvester_of_two_vectors_can_be_any_planar_flow():
    """q2 along w, q1 along what u has besides; the first row of tanh has weight 0."""
    flow, x = drawn(Planar(4)), randn(8, 4)
    with torch.no_grad():
        u, gain = flow.constrained()
        size = flow.w.norm()
        q2 = flow.w / size
        rest = u - (u @ q2) * q2
        q1 = rest / rest.norm()
        f = Sylvester(4, 2).double()
        f.frame.vectors.copy_(reflections(q1, q2))
        f.weight[0, 1] = rest.norm()
        f.log_scale[1] = size.log()
        f.raw.copy_(torch.expm1(torch.stack([torch.ones_like(gain), gain])).log())  # softplus(raw) = gain
        f.bias[1] = flow.b
        close(f.factors()[0], torch.stack([q1, q2]), 1e-12)
    close(f.forward(x), flow.forward(x), 1e-12)
    z = flow.forward(x)[0]
    close(f.inverse(z), flow.inverse(z), 1e-12)


def reflections(q1, q2):
    """Two Householder vectors whose product takes e1 to q1 and e2 to q2."""
    e1, e2 = torch.eye(len(q1), dtype=q1.dtype)[:2]
    second = e1 - q1  # applied last: takes e1 to q1
    pulled = q2 - 2 * (q2 @ second) / (second @ second) * second
    return torch.stack([e2 - pulled, second])


@pytest.mark.parametrize(("width", "dim"), [(0, 3), (4, 3)])
def test_sylvester_refuses_frames_that_cannot_be(width, dim):
    with pytest.raises(ValueError, match="from 1 to D = 3"):
        Sylvester(dim, width)


def test_more_reflections_are_more_parameters_of_the_same_map():
    f = drawn(Sylvester(6, 2, reflections=5))
    assert f.frame.vectors.shape == (5, 6)
    check_bijection(f.float(), 6, draws=1)


# Energies and reverse KL


@pytest.mark.parametrize("name", ENERGIES)
def test_log_z_is_the_integral(name):
    energy = ENERGIES[name]
    if not energy.tail:
        assert integral(energy.log_prob, (-6, 6, -6, 6), 400, torch.float64) == pytest.approx(1, abs=1e-9)
        return
    box = 40.0
    mass = integral(energy.log_prob, (-box, box, -8, 8), 1600, torch.float64)
    assert mass == pytest.approx(1 - math.exp(-energy.tail * box), abs=1e-4)


@pytest.mark.parametrize(("name", "log_z"), [("U1", 1.8775), ("U2", 2.9984), ("U3", 3.5580), ("U4", 3.6270)])
def test_log_z_has_the_known_digits(name, log_z):
    assert ENERGIES[name].log_z == pytest.approx(log_z, abs=5e-5)


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_without_its_tail_the_mass_doubles_with_the_box(name):
    potential = ENERGIES[name].potential
    small, large = (
        integral(lambda x: -potential(x), (-b, b, -8, 8), 800, torch.float64) for b in (8.0, 16.0)
    )
    assert large / small == pytest.approx(2, abs=1e-6)


def test_energies_are_the_formulas_of_the_table():
    z1, z2 = randn(2, 40).numpy() * 2
    w1, w2 = np.sin(2 * np.pi * z1 / 4), 3 * np.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + np.exp(-(z1 - 1) / 0.3))

    def bump(distance, width):
        return np.exp(-0.5 * (distance / width) ** 2)

    radius = np.hypot(z1, z2)
    want = {
        "U1": 0.5 * ((radius - 2) / 0.4) ** 2 - np.log(bump(z1 - 2, 0.6) + bump(z1 + 2, 0.6)),
        "U2": 0.5 * ((z2 - w1) / 0.4) ** 2,
        "U3": -np.log(bump(z2 - w1, 0.35) + bump(z2 - w1 + w2, 0.35)),
        "U4": -np.log(bump(z2 - w1, 0.4) + bump(z2 - w1 + w3, 0.35)),
    }
    points = torch.as_tensor(np.stack([z1, z2], -1))
    for name, energy in ENERGIES.items():
        tail = energy.tail * np.abs(z1)
        close(energy.potential(points), torch.as_tensor(want[name]), 1e-9)
        close(energy.log_density(points), -torch.as_tensor(want[name] + tail), 1e-9)
        close(energy.log_prob(points), -torch.as_tensor(want[name] + tail) - energy.log_z, 1e-9)


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_are_finite_far_out_with_finite_gradients(name):
    x = torch.tensor([[0.0, 0.0], [1e4, -1e4], [-1e4, 0.0], [3.0, 50.0]], requires_grad=True)
    value = ENERGIES[name].log_prob(x)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert x.grad.isfinite().all()
    with pytest.raises(ValueError, match=rf"energy {name} takes points of shape \(\.\.\., 2\)"):
        ENERGIES[name].log_prob(torch.zeros(4, 3))


def normal_at(mean):
    return lambda x: StandardNormal(2).double().log_prob(x - mean)


def test_reverse_kl_between_gaussians_is_its_closed_form():
    f = Affine(2).double()
    with torch.no_grad():
        f.log_scale.copy_(torch.tensor([0.3, -0.4]))
        f.shift.copy_(torch.tensor([0.5, 1.0]))
    flow, mean = Flow(StandardNormal(2).double(), f), torch.tensor([0.2, -1.0], dtype=torch.float64)
    scale, centre = (-f.log_scale).exp(), -f.shift * (-f.log_scale).exp()
    kl = ((scale**2 + (centre - mean) ** 2 - 1) / 2 - scale.log()).sum()
    torch.manual_seed(0)
    estimate = reverse_kl(flow, normal_at(mean), 200_000)
    assert estimate.item() == pytest.approx(kl.item(), abs=0.03)
    parameters = list(f.parameters())
    for got, want in zip(
        torch.autograd.grad(estimate, parameters), torch.autograd.grad(kl, parameters), strict=True
    ):
        close(got, want, 0.05)


def test_reverse_kl_without_log_z_is_off_by_log_z_and_is_zero_at_the_target():
    flow, energy = Flow(StandardNormal(2), Inverse(Planar(2))), ENERGIES["U3"]
    torch.manual_seed(1)
    normalized = reverse_kl(flow, energy.log_prob, 50)
    torch.manual_seed(1)
    close(reverse_kl(flow, energy.log_density, 50), normalized - energy.log_z, 1e-5)
    exact = Flow(StandardNormal(2), Compose())
    assert reverse_kl(exact, exact.log_prob, 10).abs() < 1e-6


def test_reverse_kl_says_what_is_wrong():
    flow = Flow(StandardNormal(2), Compose())
    with pytest.raises(ValueError, match="at least one draw"):
        reverse_kl(flow, flow.log_prob, 0)
    with pytest.raises(ValueError, match=r"one number for each of the 7 points, got \(\)"):
        reverse_kl(flow, lambda x: flow.log_prob(x).sum(), 7)
    with pytest.raises(ValueError, match=r"got \(7, 2\)"):
        reverse_kl(flow, lambda x: x, 7)


@pytest.mark.slow
def test_eight_planar_layers_fit_the_first_energy():
    """Two layers cannot cut a Gaussian into two arcs: they stay about 1 nat away, eight about 0.25."""
    gaps = {}
    for layers in (2, 8):
        torch.manual_seed(0)
        flow = Flow(StandardNormal(2), Inverse(Compose(*(Planar(2) for _ in range(layers)))))
        optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
        for _ in range(600):
            optimizer.zero_grad()
            reverse_kl(flow, ENERGIES["U1"].log_prob, 256).backward()
            optimizer.step()
        with torch.no_grad():
            gaps[layers] = reverse_kl(flow, ENERGIES["U1"].log_prob, 20_000).item()
    assert 0.05 < gaps[8] < 0.4 < 0.8 < gaps[2]


def test_the_alarm_is_for_estimates_far_below_zero_and_for_nan():
    noise = randn(400)
    noise = (noise - noise.mean()) / noise.std()  # then the standard error is 1 / 20
    log_p = randn(400, seed=1)
    for errors, alarm in [(-20, True), (-4.1, True), (-3.9, False), (0, False), (20, False)]:
        estimate, error, raised = kl_alarm(log_p + noise + errors / 20, log_p)
        assert estimate.item() == pytest.approx(errors / 20, abs=1e-12)
        assert error.item() == pytest.approx(1 / 20, rel=1e-12)
        assert raised is alarm
    assert kl_alarm(torch.full((5,), torch.nan), torch.zeros(5))[2] is True


def test_an_annealed_fit_lowers_the_divergence_and_draws_from_a_stream_of_its_own():
    torch.manual_seed(0)
    flow = Flow(StandardNormal(2), Inverse(Compose(Planar(2), Planar(2), Planar(2))))
    before, state = reverse_kl(flow, ENERGIES["U1"].log_prob, 2000).item(), torch.get_rng_state()
    annealed_fit(flow, ENERGIES["U1"].log_prob, 40, 0.1)
    assert torch.equal(state, torch.get_rng_state())
    assert reverse_kl(flow, ENERGIES["U1"].log_prob, 2000).item() < before / 2


@pytest.mark.parametrize(("faintest", "betas"), [(0.25, [0.25, 0.75, 1, 1]), (1.0, [1, 1, 1, 1])])
def test_an_annealed_fit_begins_as_faint_as_it_is_told(faintest, betas):
    seen = []

    def log_density(z):
        value = -z.square().sum(-1)
        value.register_hook(lambda slope: seen.append(-slope.sum().item()))  # of the mean of -beta value
        return value

    annealed_fit(Flow(StandardNormal(2), Inverse(Planar(2))), log_density, 4, 0.1, faintest=faintest)
    assert seen == pytest.approx(betas)
