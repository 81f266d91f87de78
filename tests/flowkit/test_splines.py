"""Splines and mixture CDFs: their bounds, extremes, inverses, gradients, and their peers."""

import math
import pickle
from functools import partial

import pytest
import torch

from flowkit import check_bijection
from flowkit.coupling import coupling, coupling_stack, half_mask
from flowkit.lab.nets import mlp
from flowkit.mixtures import mixture_cdf, mixture_forward, mixture_inverse, mixture_logit
from flowkit.splines import (
    LINEAR,
    QUADRATIC,
    Elementwise,
    Knots,
    above,
    linear,
    linear_knots,
    quadratic,
    quadratic_knots,
    rational_quadratic,
    rational_quadratic_knots,
    spline_forward,
    spline_inverse,
)

SPLINES = {"linear": linear, "quadratic": quadratic, "rational_quadratic": rational_quadratic}
ALL = {name: make(5, 3.0) for name, make in SPLINES.items()} | {
    "one_bin": rational_quadratic(1, 3.0),
    "mixture": mixture_cdf(4),
    "one_logistic": mixture_cdf(1),
}
each = pytest.mark.parametrize("g", ALL.values(), ids=ALL.keys())
each_spline = pytest.mark.parametrize("make", SPLINES.values(), ids=SPLINES.keys())


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@each
def test_all_zero_is_the_identity(g):
    x = torch.cat([4 * randn(50), torch.tensor([-3.0, 0.0, 3.0, 1e3, -1e3]).double()])
    for way in (g.forward, g.inverse):
        close(way(x, torch.zeros(len(x), g.size).double()), (x, torch.zeros_like(x)))


@each
def test_it_is_increasing_and_its_log_derivative_is_that_of_autograd(g):
    x = 8 * torch.linspace(-1, 1, 401).double()
    params = 1.5 * randn(20, 1, g.size).expand(20, 401, g.size)
    for way in (g.forward, g.inverse):
        points = x.expand(20, 401).clone().requires_grad_()
        z, log_slope = way(points, params)
        slope = torch.autograd.grad(z.sum(), points)[0]
        close(log_slope, slope.log(), 1e-10)
        assert (z.diff(dim=-1) > 0).all()


@each
def test_inverse_undoes_forward(g):
    x, params = 4 * randn(2, 300), randn(2, 300, g.size, seed=1)
    z, log_slope = g.forward(x, params)
    back, log_slope_back = g.inverse(z, params)
    close(back, x, 1e-10)
    close(log_slope_back, -log_slope, 1e-10)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_values_and_gradients_are_finite_at_and_beyond_the_bounds(g, dtype, scale):
    beyond = math.nextafter(3.0, 4)
    x = torch.tensor([0.0, 2.999999, 3.0, beyond, 3.000001, 10.0, 1e4, 1e6], dtype=dtype)
    x = torch.cat([x, -x])
    params = (scale * randn(len(x), g.size)).to(dtype)
    for way in (g.forward, g.inverse):
        inputs = x.clone().requires_grad_(), params.clone().requires_grad_()
        z, log_slope = way(*inputs)
        assert z.isfinite().all()
        assert log_slope.isfinite().all()
        for part in (z, log_slope):
            for gradient in torch.autograd.grad(
                part.sum(), inputs, retain_graph=True, materialize_grads=True
            ):
                assert gradient.isfinite().all()


@each_spline
def test_a_spline_keeps_its_bounds_and_is_the_identity_outside(make):
    g, x = make(7, 2.5), torch.tensor([-1e9, -2.6, -2.5, 2.5, 2.6, 1e9])
    params = 3 * torch.randn(6, g.size, generator=torch.Generator().manual_seed(0))
    for way in (g.forward, g.inverse):
        z, log_slope = way(x, params)
        assert torch.equal(z[[0, 1, 4, 5]], x[[0, 1, 4, 5]])
        torch.testing.assert_close(z, x)
        assert (log_slope[[0, 1, 4, 5]] == 0).all()
    nan, log_slope = g.forward(torch.tensor([math.nan]), params[:1])
    assert nan.isnan().all()


def test_only_the_rational_quadratic_spline_has_slope_1_at_its_bounds():
    ends = torch.tensor([-2.5, 2.5]).double()
    slopes = [make(7, 2.5).forward(ends, randn(2, make(7, 2.5).size))[1] for make in SPLINES.values()]
    assert (slopes[0].abs() > 0.01).all()
    assert (slopes[1].abs() > 0.01).all()
    close(slopes[2], torch.zeros(2).double())


@each_spline
def test_a_spline_meets_its_knots(make):
    bins = 6
    knots_of = {
        linear: linear_knots,
        quadratic: quadratic_knots,
        rational_quadratic: rational_quadratic_knots,
    }
    g = make(bins, 2.0, 0.01)
    params = 2 * randn(g.size)
    knots = knots_of[make](params, bins, 2.0, 0.01)
    z, log_slope = g.forward(knots.x, params.expand(bins + 1, -1))
    close(z, knots.z)
    close(g.inverse(knots.z, params.expand(bins + 1, -1))[0], knots.x)
    if make is not linear:
        close(log_slope, knots.slope.log())
    extreme = knots_of[make](100 * params, bins, 2.0, 0.01)
    assert extreme.x.diff().min() > 0.99 * 0.01 * 4
    assert extreme.slope.min() > 0
    if make is not quadratic:  # its heights follow from its slopes
        assert extreme.z.diff().min() > 0.99 * 0.01 * 4


def test_the_inverse_of_a_steep_bin_is_increasing():
    """One bin, flat in the middle between steep ends, in float32."""
    y = torch.linspace(0, 1, 20001)
    x, slope = torch.tensor([-1.0, 1.0]), torch.tensor([1e3, 1e3])
    z, log_slope = spline_inverse(2 * y - 1, Knots(x, x, slope))
    assert z.isfinite().all()
    assert log_slope.isfinite().all()
    assert (z.diff() >= 0).all()


def test_the_textbook_discriminant_would_round_below_zero():
    """The reason for the sum of squares: at very steep knots b^2 - 4 a c fails, and ours holds."""
    generator = torch.Generator().manual_seed(0)
    a, b = 10 ** (8 * torch.rand(2, 100_000, generator=generator))
    y = a / (a + b)  # where m is 0
    bend = a + b - 2
    textbook = (a - y * bend) ** 2 + 4 * y * (1 - a + y * bend)
    assert (textbook < 0).any()
    ends = torch.tensor([-1.0, 1.0]).expand(len(y), 2)
    x, log_slope = spline_inverse(2 * y - 1, Knots(ends, ends, torch.stack((a, b), -1)))
    assert (x.abs() <= 1).all()
    assert log_slope.isfinite().all()


@pytest.mark.parametrize("bad", [(0, 1.0, 1e-3), (4, 0.0, 1e-3), (4, -1.0, 1e-3), (4, math.nan, 1e-3)])
@each_spline
def test_splines_without_bins_or_bound_are_refused(make, bad):
    with pytest.raises(ValueError, match="one bin or more and a positive bound"):
        make(*bad)


@pytest.mark.parametrize("smallest", [0.0, 0.25, math.nan])
@each_spline
def test_shares_that_do_not_fit_are_refused(make, smallest):
    with pytest.raises(ValueError, match="shares of"):
        make(4, 1.0, smallest)


def test_a_mixture_without_components_is_refused():
    with pytest.raises(ValueError, match="one component or more"):
        mixture_cdf(0)


def mixture(params):
    """torch's own mixture of logistics with the parameters of ours."""
    dist = torch.distributions
    raw_pi, raw_mean, raw_scale = params.chunk(3, -1)
    mean = torch.linspace(1.0, 4.0, raw_pi.shape[-1], dtype=torch.float64) * raw_mean
    squash = [dist.SigmoidTransform().inv, dist.AffineTransform(mean, (4 * torch.tanh(raw_scale / 4)).exp())]
    unit = dist.Uniform(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
    logistic = dist.TransformedDistribution(unit, squash, validate_args=False)
    return dist.MixtureSameFamily(dist.Categorical(logits=raw_pi), logistic, validate_args=False)


def test_the_mixture_is_its_definition():
    x, params = 2 * randn(200), randn(200, 12, seed=1)
    logit, log_slope = mixture_logit(x, params)
    want = mixture(params)
    cdf = want.cdf(x)
    close(logit, torch.logit(cdf), 1e-9)
    close(log_slope, want.log_prob(x) - cdf.log() - torch.log1p(-cdf), 1e-9)


def test_the_mixture_in_its_tails_is_a_line():
    """Far out the widest component is all that is left: slope 1 / s, though F is 0 or 1 in float32."""
    params = torch.tensor([0.0, 0.3, 0.0, 0.5, math.log(0.5), math.log(2.0)])
    params[4:] = 4 * torch.atanh(params[4:] / 4)
    for x in (-1e5, -300.0, 300.0, 1e5):
        logit, log_slope = mixture_logit(torch.tensor(x), params)
        assert abs(logit) > 100
        assert log_slope.item() == pytest.approx(-math.log(2), abs=1e-4)


def test_the_mixture_root_is_found_where_newton_alone_would_jump():
    """Narrow components far apart: the curve is a staircase, whose flats have slopes below 1e-300."""
    params = torch.zeros(4001, 11).double()
    params[:, 3:6] = torch.tensor([-30.0, 0.0, 30.0])
    params[:, 6:9] = -20.0
    x = torch.linspace(-60, 60, 4001).double()
    z, log_slope = mixture_forward(x, params)
    assert log_slope.min() < -700
    assert log_slope.isfinite().all()
    back, _ = mixture_inverse(z, params)
    again, _ = mixture_forward(back, params)
    close(again, z, 1e-11)


def test_gradients_of_the_mixture_inverse_are_those_of_the_implicit_function():
    z, params = randn(6), randn(6, 11, seed=1)
    assert torch.autograd.gradcheck(
        mixture_inverse, (z.requires_grad_(), params.requires_grad_()), atol=1e-6, rtol=1e-6
    )


def test_equal_components_part():
    """From all zero the components see one gradient; unequal gains make their means differ after a step."""
    torch.manual_seed(0)
    f, x = Elementwise(1, mixture_cdf(2)), torch.cat([torch.randn(500) - 3, torch.randn(500) + 3])[:, None]
    optimizer = torch.optim.Adam(f.parameters(), 0.05)
    for _ in range(300):
        z, log_det = f.forward(x)
        loss = ((z**2).sum(-1) / 2 - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    means = f.params[0, 2:4] * torch.tensor([1.0, 4.0])
    assert means.min() < -2
    assert means.max() > 2


@each
def test_couplings_and_elementwise_layers_obey_the_laws(g):
    check_bijection(Elementwise(1, g), 1, draws=1)
    net = partial(mlp, hidden=(8,), activation=torch.nn.Tanh)
    check_bijection(coupling(half_mask(3), net, g), 3, draws=1)


def test_it_pickles():
    f = coupling_stack(2, 2, mlp, rational_quadratic()).double()
    x = randn(3, 2)
    assert torch.equal(pickle.loads(pickle.dumps(f)).forward(x)[0], f.forward(x)[0])


def test_elementwise_names_a_wrong_width():
    with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 3\), got \(5, 4\)"):
        Elementwise(3, linear()).forward(torch.zeros(5, 4))


BINS, BOUND = 7, 2.5


def same_as_nflows(functional):
    """The rational-quadratic spline of a library of nflows' family agrees, both ways, inside and outside."""
    x = 1.5 * randn(4, 60)
    params = 1.5 * randn(4, 60, 3 * BINS - 1, seed=1)
    widths, heights, slopes = params.split((BINS, BINS, BINS - 1), -1)
    raw = slopes + math.log(math.expm1(1 - 1e-3))
    g = rational_quadratic(BINS, BOUND)
    assert (x.abs() > BOUND).any()
    for inverse, way in ((False, g.forward), (True, g.inverse)):
        want = functional(x, widths, heights, raw, inverse=inverse, tails="linear", tail_bound=BOUND)
        close(way(x, params), want)


def test_rational_quadratic_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    same_as_nflows(peer.unconstrained_rational_quadratic_spline)


def test_rational_quadratic_agrees_with_normflows():
    peer = pytest.importorskip("normflows.utils.splines")
    same_as_nflows(peer.unconstrained_rational_quadratic_spline)


def test_rational_quadratic_agrees_with_zuko():
    transforms = pytest.importorskip("zuko.transforms")
    x = 1.5 * randn(300)
    raw = [1.5 * randn(300, size, seed=size) for size in (BINS, BINS, BINS - 1)]
    peer = transforms.MonotonicRQSTransform(*raw, bound=BOUND)
    knots = Knots(peer.horizontal, peer.vertical, peer.derivatives)
    z, log_slope = peer.call_and_ladj(x)
    close(spline_forward(x, knots), (z, log_slope))
    close(spline_inverse(x, knots)[0], peer.inv(x))


def test_linear_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms.splines.linear")
    x, raw = BOUND * torch.rand(300, dtype=torch.float64), randn(300, BINS)
    knots = linear_knots(raw, BINS, BOUND, 0.0)
    want = peer.linear_spline(x, raw, left=-BOUND, right=BOUND, bottom=-BOUND, top=BOUND)
    close(spline_forward(x, knots, LINEAR), want)


def test_quadratic_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms.splines.quadratic")
    x, params = 2 * BOUND * torch.rand(300, dtype=torch.float64) - BOUND, randn(300, 2 * BINS + 1)
    widths, slopes = params.split((BINS, BINS + 1), -1)
    raw = slopes + math.log(math.expm1(1 - 1e-3))
    box = {"left": -BOUND, "right": BOUND, "bottom": -BOUND, "top": BOUND, "min_bin_height": 0.0}
    knots = quadratic_knots(params, BINS, BOUND, 1e-3)
    close(spline_forward(x, knots, QUADRATIC), peer.quadratic_spline(x, widths, raw, **box))
    want = peer.quadratic_spline(x, widths, raw, inverse=True, **box)
    close(spline_inverse(x, knots, QUADRATIC), want, 1e-10)


def test_above_is_one_at_zero_and_never_below_the_smallest():
    assert above(torch.tensor(0.0).double(), 0.2).item() == pytest.approx(1, abs=1e-15)
    assert above(torch.tensor(-1e4), 0.2).item() == pytest.approx(0.2)
