"""Solvers against closed forms, their orders, scipy and torchdiffeq; adaptive steps; the adjoint."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torchdiffeq

from flowkit.adaptive_ode import (
    DORMAND_PRINCE,
    ERROR_WEIGHTS,
    adaptive,
    dormand_prince,
    next_factor,
)
from flowkit.lab.nets import mlp
from flowkit.neural_ode import NeuralODE, TimeField, adjoint
from flowkit.ode import (
    EULER,
    HEUN,
    MIDPOINT,
    RK4,
    Counted,
    Tableau,
    integrate,
    order_of_accuracy,
    sir,
    solve,
    step,
)

METHODS = [EULER, MIDPOINT, HEUN, RK4, DORMAND_PRINCE]
ids = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def logistic(t, y):
    """y' = y (1 - y) cos t, nonlinear and with time in it."""
    return y * (1 - y) * torch.cos(t)


def logistic_solution(y0, t):
    growth = math.exp(math.sin(t))
    return y0 * growth / (1 - y0 + y0 * growth)


@ids
def test_each_method_has_the_order_that_it_claims(method):
    steps = [32, 64, 128] if method.order > 2 else [64, 128, 256, 512]
    y0, want = tensor(0.2, 0.7), logistic_solution(tensor(0.2, 0.7), 2.0)
    errors = [float((integrate(logistic, y0, 0.0, 2.0, n, method) - want).abs().max()) for n in steps]
    assert -0.25 < order_of_accuracy(errors, steps) - method.order < 0.5


@ids
def test_a_tableau_is_consistent(method):
    for node, row in zip(method.nodes, method.matrix, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-14)
    for power in range(method.order):  # quadrature of t^power over [0, 1]
        moments = sum(b * c**power for b, c in zip(method.weights, method.nodes, strict=True))
        assert moments == pytest.approx(1 / (power + 1), abs=1e-14)


@ids
def test_a_linear_field_gets_the_taylor_polynomial(method):
    if method.order <= 4:
        z = -0.7
        want = sum(z**k / math.factorial(k) for k in range(method.order + 1))
        close(step(method, lambda t, y: -0.7 * y, 0.0, 1.0, tensor(1.0)), tensor(want))


def test_one_step_by_hand():
    def field(t, y):
        return t * y

    h, y = 0.5, 2.0  # from t = 1
    k1 = 1.0 * y
    k2 = 1.25 * (y + h / 2 * k1)
    k3 = 1.25 * (y + h / 2 * k2)
    k4 = 1.5 * (y + h * k3)
    close(step(EULER, field, 1.0, h, tensor(y)), tensor(y + h * k1))
    close(step(MIDPOINT, field, 1.0, h, tensor(y)), tensor(y + h * k2))
    close(step(HEUN, field, 1.0, h, tensor(y)), tensor(y + h / 2 * (k1 + 1.5 * (y + h * k1))))
    close(step(RK4, field, 1.0, h, tensor(y)), tensor(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)))


def test_the_steps_of_torchdiffeq():
    times = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)
    y = tensor(0.2, 0.7)
    close(solve(logistic, y, times, EULER), torchdiffeq.odeint(logistic, y, times, method="euler"))
    close(solve(logistic, y, times, MIDPOINT), torchdiffeq.odeint(logistic, y, times, method="midpoint"))
    theirs = torchdiffeq.odeint(logistic, y, times, method="rk4")  # the 3/8 rule
    assert 1e-7 < (solve(logistic, y, times, RK4) - theirs).abs().max() < 1e-3


def test_scipy_takes_the_same_step_of_dormand_and_prince():
    rk = pytest.importorskip("scipy.integrate").RK45
    y = np.array([0.2, 0.7])
    theirs = rk(lambda t, y: y * (1 - y) * math.cos(t), 0.0, y, 2.0, first_step=0.1, max_step=0.1)
    theirs.step()
    close(step(DORMAND_PRINCE, logistic, 0.0, 0.1, torch.tensor(y)), torch.tensor(theirs.y), 1e-14)
    assert np.abs(np.array(ERROR_WEIGHTS)) == pytest.approx(np.abs(rk.E), abs=1e-15)


def test_states_may_be_tuples_of_any_shapes():
    def field(t, y):
        a, b = y
        return -b.sum(-1) * t, a[..., None] * torch.ones_like(b)

    a, b = tensor(1.0, 2.0), torch.ones(2, 3, dtype=torch.float64)

    def flat(t, y):
        slopes = field(t, (y[:2], y[2:].reshape(2, 3)))
        return torch.cat([slopes[0], slopes[1].reshape(-1)])

    want = solve(flat, torch.cat([a, b.reshape(-1)]), [0.0, 0.3, 0.5])
    got = solve(field, (a, b), [0.0, 0.3, 0.5])
    close(got[0], want[:, :2])
    close(got[1], want[:, 2:].reshape(3, 2, 3))
    for solver in (adaptive, lambda *arguments: dormand_prince(*arguments).y):
        close(solver(field, (a, b), 0.0, 0.5)[1], got[1][-1], 1e-3)


def test_solve_ends_where_integrate_does_and_keeps_the_start():
    y = torch.rand(4, 2, dtype=torch.float64)
    states = solve(logistic, y, torch.linspace(1.0, -1.0, 6, dtype=torch.float64), HEUN)
    assert states.shape == (6, 4, 2)
    assert torch.equal(states[0], y)
    close(states[-1], integrate(logistic, y, 1.0, -1.0, 5, HEUN))


def test_back_in_time_undoes():
    y = tensor(0.2, 0.7)
    for solver in (partial(integrate, steps=40), partial(adaptive, rtol=1e-9, atol=1e-9)):
        there = solver(logistic, y, 0.0, 2.0)
        close(solver(logistic, there, 2.0, 0.0), y, 1e-6)
    there = dormand_prince(logistic, y, 0.0, 2.0, 1e-9, 1e-9).y
    close(dormand_prince(logistic, there, 2.0, 0.0, 1e-9, 1e-9).y, y, 1e-7)


def test_wrong_fields_and_steps_are_named():
    with pytest.raises(ValueError, match=r"the slope must have the shape of the state, \(2,\); it has \(\)"):
        integrate(lambda t, y: y.sum(), torch.ones(2), 0.0, 1.0, 3)
    with pytest.raises(ValueError, match=r"\[\(2,\), \(\)\]; it has \[\(2,\)\]"):
        integrate(lambda t, y: y[:1], (torch.ones(2), torch.ones(())), 0.0, 1.0, 3)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        integrate(logistic, torch.ones(2), 0.0, 1.0, 0)


def test_the_epidemic_keeps_its_total_and_ends_where_it_must():
    y = torch.tensor([0.99, 0.01, 0.0], dtype=torch.float64) * tensor(1.0, 1000.0)[:, None]
    beta, gamma = 0.5, 0.2
    for method in METHODS:
        states = solve(sir(beta, gamma), y, torch.linspace(0, 200, 401), method)
        close(states.sum(-1) / y.sum(-1), torch.ones(401, 2, dtype=torch.float64), 1e-13)
    susceptible, infected, recovered = (states[-1] / y.sum(-1, keepdim=True)).unbind(-1)
    final = 0.99 * torch.exp(-beta / gamma * recovered)  # dS/dR = -beta S / (gamma N), integrated
    close(susceptible, final, 1e-7)
    assert (infected < 1e-6).all()
    peak = states[:, 0, 1].argmax()
    assert states[peak, 0, 0] == pytest.approx(gamma / beta, abs=0.03)  # growth stops at beta S = gamma N


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_the_error_follows_the_tolerance_and_the_evaluations_too(tolerance):
    y = tensor(0.2, 0.7)
    solution = dormand_prince(logistic, y, 0.0, 6.0, tolerance, tolerance)
    error = (solution.y - logistic_solution(y, 6.0)).abs().max()
    assert error < 20 * tolerance
    steps = len(solution.times) - 1
    assert solution.evaluations == 2 + 6 * (steps + solution.rejected)
    assert solution.times[-1] == 6.0
    assert all(a < b for a, b in zip(solution.times, solution.times[1:], strict=False))
    counted = Counted(logistic)
    dormand_prince(counted, y, 0.0, 6.0, tolerance, tolerance)
    assert counted.evaluations == solution.evaluations
    tighter = dormand_prince(logistic, y, 0.0, 6.0, tolerance / 1e3, tolerance / 1e3)
    assert 2 < tighter.evaluations / solution.evaluations < 6  # 1000^(1/5) = 4


def test_steps_are_short_where_the_solution_bends_and_rejected_at_the_bend():
    def van_der_pol(t, y):
        q, v = y.unbind(-1)
        return torch.stack((v, 10 * (1 - q**2) * v - q), -1)

    y = tensor(2.0, 0.0)
    solution = dormand_prince(van_der_pol, y, 0.0, 30.0, 1e-8, 1e-8)
    theirs = pytest.importorskip("scipy.integrate").solve_ivp(
        lambda t, y: [y[1], 10 * (1 - y[0] ** 2) * y[1] - y[0]],
        (0, 30),
        [2, 0],
        "DOP853",
        rtol=1e-12,
        atol=1e-12,
    )
    close(solution.y, torch.tensor(theirs.y[:, -1]), 1e-4)
    lengths = torch.tensor(solution.times).diff()
    assert lengths.max() > 10 * lengths.min()
    assert solution.rejected > 3


def test_as_many_evaluations_as_scipy_and_torchdiffeq_within_a_factor():
    ours = dormand_prince(logistic, tensor(0.2, 0.7), 0.0, 6.0, 1e-8, 1e-8).evaluations
    theirs = pytest.importorskip("scipy.integrate").solve_ivp(
        lambda t, y: y * (1 - y) * math.cos(t), (0, 6), [0.2, 0.7], rtol=1e-8, atol=1e-8
    )
    counted = Counted(logistic)
    adaptive(counted, tensor(0.2, 0.7), 0.0, 6.0, 1e-8, 1e-8)
    assert 0.7 < ours / theirs.nfev < 1.4
    assert 0.7 < ours / counted.evaluations < 1.4


def test_what_cannot_be_solved_is_told():
    with pytest.raises(ArithmeticError, match=r"underflows at t = 0\.99|underflows at t = 1"):
        dormand_prince(lambda t, y: y**2, tensor(1.0), 0.0, 2.0)  # 1 / (1 - t)
    with pytest.raises(ArithmeticError, match="underflows at t = 0"):
        dormand_prince(lambda t, y: y * math.nan, tensor(1.0), 0.0, 1.0)
    with pytest.raises(ArithmeticError, match="5 steps did not reach 100"):
        dormand_prince(logistic, tensor(0.5), 0.0, 100.0, 1e-9, 1e-9, max_steps=5)
    assert next_factor(math.inf) == 0.2
    assert next_factor(2.0**5) == pytest.approx(0.45)


def test_nothing_to_solve():
    y = tensor(0.3)
    assert torch.equal(dormand_prince(logistic, y, 1.0, 1.0).y, y)
    assert torch.equal(adaptive(logistic, y, 1.0, 1.0), y)
    empty = torch.zeros(0, 2)
    assert adaptive(logistic, empty, 0.0, 1.0).shape == (0, 2)
    assert dormand_prince(logistic, empty, 0.0, 1.0).y.shape == (0, 2)


def test_float32_stays_float32_and_does_not_stall_at_fine_tolerances():
    y = torch.tensor([0.2, 0.7])
    solution = dormand_prince(logistic, y, 0.0, 6.0, 1e-12, 1e-6)
    assert solution.y.dtype == torch.float32
    close(solution.y, logistic_solution(y, 6.0), 1e-4)
    assert integrate(logistic, y, 0.0, 1.0, 5).dtype == torch.float32


def test_a_relu_field_stalls_adaptive_steps():
    """Both fields turn at the same places; the smooth one costs less."""
    torch.manual_seed(0)
    x, evaluations = torch.randn(64, 2, dtype=torch.float64), []
    for activation in (torch.nn.ReLU, torch.nn.Tanh):
        torch.manual_seed(1)
        field = TimeField(mlp(3, 2, (32, 32), activation, zero_last=False)).double()
        solution = dormand_prince(field, x, 0.0, 2.0, 1e-8, 1e-8)
        evaluations.append(solution.evaluations)
    assert evaluations[0] > 3 * evaluations[1]


def make_field(dim=3, seed=0):
    torch.manual_seed(seed)
    return TimeField(mlp(dim + 1, dim, (8,), torch.nn.Tanh, zero_last=False)).double()


def gradients(field, solver, y):
    y = y.clone().requires_grad_()
    loss = solver(field, y, 0.0, 1.5).sin().sum()
    return torch.autograd.grad(loss, [y, *field.parameters()])


@pytest.mark.parametrize("solver", [partial(integrate, steps=60), partial(adaptive, rtol=1e-10, atol=1e-10)])
def test_the_adjoint_gives_the_gradient_of_autograd(solver):
    field, y = make_field(), torch.randn(5, 3, dtype=torch.float64)
    want = gradients(field, solver, y)
    got = gradients(field, partial(adjoint, solver=solver), y)
    for a, b in zip(got, want, strict=True):
        close(a, b, 1e-6)
    rough = gradients(field, partial(adjoint, solver=partial(integrate, steps=5, method=EULER)), y)
    assert (rough[0] - want[0]).abs().max() > 1e-3  # the comparison can fail


def test_adaptive_steps_are_differentiable_and_serve_the_adjoint():
    def by_dormand_prince(field, y, t0, t1):
        return dormand_prince(field, y, t0, t1, 1e-9, 1e-9).y

    w, y = tensor(0.7).requires_grad_(), tensor(2.0)
    for solver in (by_dormand_prince, partial(adjoint, solver=by_dormand_prince, parameters=[w])):
        end = solver(lambda t, y: w * y, y, 0.0, 3.0)
        close(torch.autograd.grad(end.sum(), w)[0], 6 * torch.exp(3 * w), 1e-6)


def test_the_adjoint_of_an_exponential_in_closed_form():
    w, y = tensor(0.7).requires_grad_(), tensor(2.0).requires_grad_()
    end = adjoint(lambda t, y: w * t * y, y, 1.0, 3.0, partial(integrate, steps=100), [w])
    grads = torch.autograd.grad(end.sum(), [w, y])
    close(end, 2 * torch.exp(4 * w), 1e-6)
    close(grads[0], 8 * torch.exp(4 * w), 1e-6)
    close(grads[1], torch.exp(4 * w), 1e-6)


def test_the_adjoint_of_tuples_and_of_what_does_not_depend():
    w = tensor(0.7).requires_grad_()
    y, c = tensor(1.0).requires_grad_(), tensor(5.0).requires_grad_()
    end = adjoint(
        lambda t, y: (w * y[0], torch.zeros_like(y[1])), (y, c), 0.0, 1.0, partial(integrate, steps=50), [w]
    )
    grads = torch.autograd.grad(end[0].sum() + 3 * end[1].sum(), [w, y, c])
    close(grads, (w.exp(), w.exp(), tensor(3.0)), 1e-6)
    still = adjoint(lambda t, y: torch.ones_like(y), y, 0.0, 2.0, partial(integrate, steps=2))
    close(torch.autograd.grad(still.sum(), y), (tensor(1.0),))


def kept_bytes(solver):
    """Bytes that autograd saves for the backward pass of one solve."""
    total = 0

    def count(saved):
        nonlocal total
        total += saved.nbytes
        return saved

    field, y = make_field(), torch.randn(16, 3, dtype=torch.float64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        solver(field, y, 0.0, 1.0)
    return total


def test_the_adjoint_keeps_no_more_for_more_steps():
    few, many = partial(integrate, steps=4), partial(integrate, steps=40)
    assert kept_bytes(many) > 9 * kept_bytes(few)
    assert 0 < kept_bytes(partial(adjoint, solver=many)) == kept_bytes(partial(adjoint, solver=few))
    assert kept_bytes(partial(adjoint, solver=few)) < kept_bytes(few) / 4


def test_a_neural_ode_is_one_to_one_and_keeps_the_order_of_a_line():
    layer = NeuralODE(make_field(1), partial(integrate, steps=50))
    y = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    out = layer(y)
    assert (out.diff(dim=0) > 0).all()
    close(layer.inverse(out), y, 1e-6)
    assert not torch.allclose(out, y, atol=0.1)


def test_one_euler_step_is_a_residual_block():
    field, y = make_field(), torch.randn(5, 3, dtype=torch.float64)
    layer = NeuralODE(field, partial(integrate, steps=1, method=EULER))
    close(layer(y), y + field.net(torch.cat([y, torch.zeros(5, 1, dtype=torch.float64)], -1)))


def test_a_time_field_reads_one_time_for_each_point():
    field, y, t = make_field(), torch.randn(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    close(field(t, y), torch.stack([field(a, b) for a, b in zip(t, y, strict=True)]))


def test_a_user_may_bring_a_method():
    three_eighths = Tableau(
        "3/8",
        4,
        (0, 1 / 3, 2 / 3, 1),
        ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    )
    times, y = torch.linspace(0.0, 2.0, 9, dtype=torch.float64), tensor(0.2, 0.7)
    close(solve(logistic, y, times, three_eighths), torchdiffeq.odeint(logistic, y, times, method="rk4"))
