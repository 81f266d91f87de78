"""Answers to lesson 17, continuous."""

import math

import torch

from autograder.answers import right, wrong
from flowkit.lab.nets import apply_field
from flowkit.ode import RK4, integrate, step

# step_defect: log abs det(I + h A) = h tr A + c h^2 + ...


@right("step_defect")
def by_entries(A):
    """tr(A A) is the sum of A_ij A_ji."""
    return -(A * A.mT).sum((-2, -1)) / 2


@right("step_defect")
def by_einsum(A):
    return -0.5 * torch.einsum("...ij,...ji->...", A, A)


@wrong(
    "step_defect",
    "You squared the trace. The sum of the squared eigenvalues is wanted, and you have the square of their sum. Of which matrix are the squares the eigenvalues?",
)
def square_of_the_trace(A):
    return -0.5 * A.diagonal(dim1=-2, dim2=-1).sum(-1).square()


@wrong(
    "step_defect",
    "You summed the squares of the entries, A_ij A_ij. Is that the trace of A times A, or of A times its transpose?",
)
def squares_of_the_entries(A):
    return -0.5 * A.square().sum((-2, -1))


@wrong(
    "step_defect",
    "You summed the squares of the diagonal entries. For a matrix that is not triangular these are not the eigenvalues: which entries are on the diagonal of A A?",
)
def squares_of_the_diagonal(A):
    return -0.5 * A.diagonal(dim1=-2, dim2=-1).square().sum(-1)


@wrong(
    "step_defect",
    "Right in size, and of the wrong sign. The logarithm bends downwards: log(1 + u) is u minus what?",
)
def sign_lost(A):
    return 0.5 * (A @ A).diagonal(dim1=-2, dim2=-1).sum(-1)


@wrong(
    "step_defect",
    "Twice too large. Which factor stands before u^2 in the series of log(1 + u)?",
)
def half_lost(A):
    return -(A @ A).diagonal(dim1=-2, dim2=-1).sum(-1)


@wrong(
    "step_defect",
    "This is the coefficient of h^2 in det(I + h A) itself. What does the logarithm do to 1 + h tr A + ...?",
)
def of_the_determinant(A):
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * (trace.square() - (A @ A).diagonal(dim1=-2, dim2=-1).sum(-1))


@wrong(
    "step_defect",
    "This is the first term, the trace, that the formula has already. Which one comes after it?",
)
def first_term(A):
    return A.diagonal(dim1=-2, dim2=-1).sum(-1)


# divergence: the trace of dg/dx, exact or by Hutchinson's estimator.


@right("divergence")
def with_whole_jacobians(weights, t, x, probes=None):
    """The Jacobian of each point: D times the memory."""
    D = x.shape[-1]
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: apply_field(weights, t, y)))
    J = jacobian(x.reshape(-1, D)).reshape(*x.shape, D)
    if probes is None:
        return J.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.einsum("k...i,...ij,k...j->...", probes, J, probes) / len(probes)


@right("divergence")
def with_forward_mode(weights, t, x, probes=None):
    """Products A e in place of A' e: e' A e is the same."""

    def push(e):
        return torch.func.jvp(lambda y: apply_field(weights, t, y), (x,), (e,))[1]

    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return torch.stack([(push(e.expand_as(x)) * e).sum(-1) for e in units]).sum(0)
    return torch.stack([(push(e) * e).sum(-1) for e in probes]).mean(0)


@wrong(
    "divergence",
    "The exact trace that came back is the sum of all D^2 entries of the Jacobian. Which entry of its product with the i-th unit vector lies on the diagonal?",
)
def all_entries(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0].sum(-1) for e in units)
    return sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)


@wrong(
    "divergence",
    "Of every product you take one and the same entry, the first. The product with the i-th unit vector is the i-th row of the Jacobian: where in it is the diagonal?",
)
def always_the_first_entry(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., 0] for e in units)
    return sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)


@wrong(
    "divergence",
    "Every sign is reversed: this is the rate of log p, which falls where the field spreads points out. What was asked for?",
)
def minus_the_trace(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return -sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return -(sum((pull(e)[0] * e).sum(-1) for e in probes)) / len(probes)


@wrong(
    "divergence",
    "The exact trace is right. With K probes you are K times too large: one probe is an estimate already. What do you do with several estimates of one number?",
)
def sum_over_probes(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum((pull(e)[0] * e).sum(-1) for e in probes)


@wrong(
    "divergence",
    "With probes your numbers are too small by the factor D. A scalar product is a sum over dimensions: which of the two is averaged?",
)
def mean_of_each_product(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum((pull(e)[0] * e).mean(-1) for e in probes) / len(probes)


@wrong(
    "divergence",
    "With probes you sum the entries of A'e. Where is the e on the other side?",
)
def second_dot_forgotten(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum(pull(e)[0].sum(-1) for e in probes) / len(probes)


@wrong(
    "divergence",
    "Right with one probe. With three, the answer depends on the first alone. What are the others for?",
)
def first_probe_only(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return (pull(probes[0])[0] * probes[0]).sum(-1)


@wrong(
    "divergence",
    "You return the exact trace where probes are given. It is the number that the estimate has for its mean, at D times the price. What does one product with a probe give?",
)
def probes_ignored(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(torch.eye(x.shape[-1], dtype=x.dtype)))


@wrong(
    "divergence",
    "You averaged the products and the probes first, and multiplied afterwards. Is a mean of products a product of means?",
)
def one_mean_of_products(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return (sum(pull(e)[0] for e in probes) / len(probes) * probes.mean(0)).sum(-1)


@wrong(
    "divergence",
    "With probes you multiply the field itself by e. It is its Jacobian that stands between the two e.",
)
def dotted_with_the_velocity(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum((apply_field(weights, t, x) * e).sum(-1) for e in probes) / len(probes)


@wrong(
    "divergence",
    "Right where the time does not matter. At t = 0.3 you return what belongs to t = 0. Does t reach the field?",
)
def time_forgotten(weights, t, x, probes=None):
    pull = torch.func.vjp(lambda y: apply_field(weights, 0.0, y), x)[1]
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
    return sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)


# transport: the state is (x, log-det), the slope (g, tr dg/dx).


@right("transport")
def with_one_tensor(weights, x, t0, t1, steps, probes=None):
    """The log-det as one more coordinate; the Jacobian whole."""
    D = x.shape[-1]

    def slope(t, y):
        points = y[..., :D].reshape(-1, D)
        J = torch.func.vmap(torch.func.jacrev(lambda p: apply_field(weights, t, p)))(points)
        J = J.reshape(*x.shape, D)
        if probes is None:
            rate = J.diagonal(dim1=-2, dim2=-1).sum(-1)
        else:
            rate = torch.einsum("k...i,...ij,k...j->k...", probes, J, probes).mean(0)
        return torch.cat([apply_field(weights, t, y[..., :D]), rate[..., None]], -1)

    y = integrate(slope, torch.cat([x, torch.zeros_like(x[..., :1])], -1), t0, t1, steps)
    return y[..., :D], y[..., D]


@right("transport")
def step_by_step(weights, x, t0, t1, steps, probes=None):
    """A loop over the steps of the library, with forward-mode products."""

    def slope(t, state):
        def push(e):
            return torch.func.jvp(lambda y: apply_field(weights, t, y), (state[0],), (e,))[1]

        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(push(e.expand_as(x))[..., i] for i, e in enumerate(units))
        else:
            rate = sum((push(e) * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, state[0]), rate

    state, h = (x, x.new_zeros(x.shape[:-1])), (t1 - t0) / steps
    for n in range(steps):
        state = step(RK4, slope, t0 + n * h, h, state)
    return state


@wrong(
    "transport",
    "Your points are right, and every log-det has the wrong sign. log p falls at the rate of the trace. Is it log p that you were asked for, or the log-det of the map?",
)
def minus_the_rate(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), -rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)


@wrong(
    "transport",
    "You solve from 0 to 1 whatever t0 and t1 are. Which times does the call ask for?",
)
def always_from_zero_to_one(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), 0.0, 1.0, steps)


@wrong(
    "transport",
    "You solve from t1 to t0. Which of the two is where the points start?",
)
def times_exchanged(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t1, t0, steps)


@wrong(
    "transport",
    "From the earlier to the later time you are right, and where t1 is earlier you go forward too. A solver takes negative steps: what did you do to the times?",
)
def never_backwards(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), min(t0, t1), max(t0, t1), steps)


@wrong(
    "transport",
    "Your field stands still: the velocity is always that at t0. Which time does slope get from the solver?",
)
def time_frozen(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t0, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t0, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)


@wrong(
    "transport",
    "Points right; your log-det is the trace at the point where the path begins, times the length of time. Where is the point when the solver asks?",
)
def trace_at_the_start(weights, x, t0, t1, steps, probes=None):
    given = x

    def slope(t, state):
        x = state[0]
        start = given
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), start)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)


@wrong(
    "transport",
    "Right forward in time. Going back, your log-det has the wrong sign: the solver's steps are negative already. Did you change a sign by hand?",
)
def backward_sign_by_hand(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    z, log_det = integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)
    return z, log_det if t1 > t0 else -log_det


@wrong(
    "transport",
    "The log-det comes first in your pair. In which order does the exercise ask for the two?",
    when=lambda returned, weights, x, *rest: returned[0].ndim == x.ndim - 1 and returned[1].shape == x.shape,
)
def pair_exchanged(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    z, log_det = integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)
    return log_det, z


@wrong(
    "transport",
    "You return log p: the log-density of the noise is in it. Here only the log-det is asked for.",
)
def log_density_added(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    z, log_det = integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)
    return z, log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


@wrong(
    "transport",
    "Right without probes. With probes your log-det is that of the exact trace. Do they reach your divergence?",
)
def probes_dropped(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)


def of_other_noise(returned, weights, x, t0, t1, steps, probes=None):
    """Right without probes; with them a log-det that is neither the exact one nor that of these probes."""
    points, exact = step_by_step(weights, x, t0, t1, steps)
    if not torch.allclose(returned[0], points, 1e-5, 1e-5):
        return False
    if probes is None:
        return torch.allclose(returned[1], exact, 1e-5, 1e-5)
    given = step_by_step(weights, x, t0, t1, steps, probes)[1]
    others = (exact, given, -given)
    return returned[1].shape == given.shape and not any(
        torch.allclose(returned[1], other, 1e-3, 1e-3) for other in others
    )


@wrong(
    "transport",
    "Your points are right. With probes your log-det is neither the exact one nor the estimate by those that you were given. Do yours come from the call, and stay the same at all times?",
    when=of_other_noise,
)
def probes_redrawn(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            fresh = torch.randn_like(probes).sign()
            rate = sum((pull(e)[0] * e).sum(-1) for e in fresh) / len(fresh)
        return apply_field(weights, t, x), rate

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)


@wrong(
    "transport",
    "Your log-det has one axis too many: (..., 1) where (...) is asked for. Which index takes the last axis away?",
    when=lambda returned, weights, x, *rest: returned[1].ndim == x.ndim,
)
def log_det_with_an_axis(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate[..., None]

    return integrate(slope, (x, torch.zeros_like(x[..., :1])), t0, t1, steps)


@wrong(
    "transport",
    "You return the log-det for each unit of time. An integral is a mean rate times a length: which length?",
)
def mean_of_the_rates(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        x = state[0]
        pull = torch.func.vjp(lambda y: apply_field(weights, t, y), x)[1]
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        return apply_field(weights, t, x), rate

    z, log_det = integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)
    return z, log_det / (t1 - t0)


@wrong(
    "transport",
    "Near, and not near enough: your error falls with the step and not with its fourth power. Is it integrate that takes your steps?",
)
def by_euler(weights, x, t0, t1, steps, probes=None):
    log_det, h = torch.zeros_like(x[..., 0]), (t1 - t0) / steps
    for n in range(steps):
        t = t0 + n * h
        v, pull = torch.func.vjp(lambda y, t=t: apply_field(weights, t, y), x)
        if probes is None:
            units = torch.eye(x.shape[-1], dtype=x.dtype)
            rate = sum(pull(e.expand_as(x))[0][..., i] for i, e in enumerate(units))
        else:
            rate = sum((pull(e)[0] * e).sum(-1) for e in probes) / len(probes)
        x, log_det = x + h * v, log_det + h * rate
    return x, log_det


# solve_adaptive: Euler and Heun, accepted or rejected.


@right("solve_adaptive")
def with_a_flag(weights, x, tolerance):
    """Lengths from what is left, the factor by a power."""
    t, h, times, tried, done = 0.0, 0.1, [0.0], 0, False
    while not done:
        left = 1 - t
        h = left if h > left else h
        v = apply_field(weights, t, x)
        w = apply_field(weights, t + h, x + h * v)
        tried = tried + 1
        error = (w - v).abs().max().item() * h / 2
        factor = 5.0 if error == 0 else 0.9 * (tolerance / error) ** 0.5
        if not error > tolerance:
            x = x + h * v + h / 2 * (w - v)
            t = t + h
            times.append(t)
        h = h * min(max(factor, 0.2), 5.0)
        done = 1 - t <= 1e-9
    times[-1] = 1.0
    return x, times, 2 * tried


@right("solve_adaptive")
def in_a_for_loop(weights, x, tolerance):
    """One step tried in each round of a for loop."""
    t, h, times = 0.0, 0.1, [0.0]
    for tried in range(1, 1_000_000):
        h = min(h, 1.0 - t)
        k1 = apply_field(weights, t, x)
        euler = x + h * k1
        heun = x + h * (k1 + apply_field(weights, t + h, euler)) / 2
        error = torch.linalg.vector_norm(heun - euler, ord=math.inf).item()
        if error <= tolerance:
            t, x, times = t + h, heun, [*times, t + h]
        if 1 - t <= 1e-9:
            return x, [*times[:-1], 1.0], 2 * tried
        h *= 5.0 if error == 0 else max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error)))


@wrong(
    "solve_adaptive",
    "Your times are those of steps that are all accepted, the long ones too. What should happen where the error is above the tolerance? (And are times and error plain numbers?)",
)
def nothing_rejected(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        t, x = t + h, x + h / 2 * (k1 + k2)
        times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "The steps are chosen well, and you keep Euler's point. Which of the two is the better one?",
)
def eulers_point(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h * k1
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Points and times are right. Your count holds the evaluations of accepted steps alone: was the field not evaluated for the others?",
)
def only_accepted_ones_counted(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
            evaluations += 2
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Points and times are right, and the count is half of the price. How often does a step look at the field?",
)
def one_for_each_step(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 1
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your error is twice the difference of the two points. Subtract Euler's from Heun's on paper: which factor stands before k2 - k1?",
)
def error_without_the_half(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your error is k2 - k1, a difference of two slopes. Subtract Euler's point from Heun's on paper: what stands before it?",
)
def bare_difference(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((k2 - k1).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your error is the difference of two velocities. Which factor makes it a difference of points?",
)
def error_without_h(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float(((k2 - k1) / 2).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your steps are longer than the rules allow: the error over all points is averaged somewhere. Which point decides?",
)
def mean_error(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().mean())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your steps are shorter than they must be: your error is a root of a sum of squares, over all points. Which number do the rules take for the error?",
)
def norm_of_all_entries(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).square().sum().sqrt())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "You take the point that errs most, and for its error the length of the difference. Do the rules ask for a length, or for an entry?",
)
def norm_of_each_point(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).square().sum(-1).sqrt().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "You take the largest entry, and a large negative one counts for nothing. What is missing from the error?",
)
def no_absolute_value(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "h is multiplied by tolerance / error itself, so it overreacts. The error falls as h^2: which power of their ratio reaches the tolerance?",
)
def square_root_forgotten(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * (tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "h aims at exactly the tolerance, and so misses it every other time. Which factor below one stands in the rules?",
)
def no_safety(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your steps are those of a factor that is used as it is. What is the least it may be, and the most? (And what does a step cost that is tried again?)",
)
def no_limits(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= 0.9 * math.sqrt(tolerance / error) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "Your last step goes past t = 1, and the points with it. What is the most that h may be?",
)
def past_the_end(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "k2 has the right point, and the time of k1. When does Euler's step arrive there?",
)
def time_forgotten_in_k2(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "You shrink h after a rejected step by other rules than after an accepted one: there it is halved. What do the rules say?",
)
def halved_when_rejected(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        grow = max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
        h *= grow if error <= tolerance else 0.5
    return x, [*times[:-1], 1.0], evaluations


@wrong(
    "solve_adaptive",
    "The list of times ends where the last step begins. At which time are the points that you return?",
)
def end_not_listed(weights, x, tolerance):
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, times[:-1], evaluations


# inspect_runs: round trips, noise kept, log-dets right on average.


@right("inspect_runs")
def point_by_point(x, back, jacobian, log_dets, log_dets_back):
    if not torch.allclose(back, x, rtol=0, atol=1e-4):
        return "not invertible"
    if not torch.allclose(log_dets, -log_dets_back, rtol=0, atol=1e-4):
        return "noise redrawn"
    for J, estimates in zip(jacobian, log_dets.T, strict=True):
        true = torch.linalg.slogdet(J).logabsdet
        if not abs(estimates.mean() - true) <= 5 * estimates.std() / len(estimates) ** 0.5 + 1e-4:
            return "wrong log-det"
    return "no objection"


@right("inspect_runs")
def by_largest_errors(x, back, jacobian, log_dets, log_dets_back):
    true = jacobian.det().abs().log()
    within = 5 * (log_dets.var(0) / len(log_dets)).sqrt() + 1e-4
    found = {
        "not invertible": bool(((back - x).abs() <= 1e-4).all()),
        "noise redrawn": bool(((log_dets + log_dets_back).abs() <= 1e-4).all()),
        "wrong log-det": bool(((log_dets.mean(0) - true).abs() <= within).all()),
    }
    return next((fault for fault, fine in found.items() if not fine), "no objection")


@wrong(
    "inspect_runs",
    "Sound flows are accused of redrawn noise: you ask whether the two log-dets are equal. What should the way back make of the way there?",
)
def log_dets_of_one_sign(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets - log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Noise that is redrawn passes: the two log-dets cancel on average over the runs, also there. Do they cancel in each run?",
)
def cancelled_on_average(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).mean(0).abs() <= 0.1).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Redrawn noise is unbiased, and your inspector has no objection to it. Which evidence does it leave on the way back?",
)
def noise_not_looked_at(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Sound flows with probes are called wrong: you allow too little. What has to agree with the true value, each run or their mean, and within how many standard errors?",
)
def each_run_for_itself(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Log-dets that are off by 0.3 pass: you allow too much. How much does the mean of K runs fluctuate?",
)
def deviation_for_standard_error(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0)
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "A log-det that is too high at one point and as much too low at another passes. Is each point judged by itself?",
)
def pooled_points(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.mean().abs() <= 5 * standard_error.mean() + 1e-4):
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "A log-det that is a little too high passes, at the point where the runs differ least. By whose fluctuation is that point judged, its own or that of the others?",
)
def one_standard_error_for_all(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std() / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "The exact trace is called wrong: its standard error is zero, and rounding is not. What stands beside the five standard errors?",
)
def no_floor(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Log-dets that are too low pass. For which sign of the error does your comparison hold whatever its size?",
)
def absolute_value_forgotten(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "You hold the log-dets against something else than the logarithm of the determinant's size. Which of the two numbers of slogdet is that?",
)
def log_forgotten(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.det(jacobian)
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "Your test lets nan through: every comparison with nan is False. Ask whether all entries are within the tolerance, and take the not of that.",
)
def nan_passes(x, back, jacobian, log_dets, log_dets_back):
    if ((back - x).abs() > 1e-4).any():
        return "not invertible"
    if ((log_dets + log_dets_back).abs() > 1e-4).any():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if (error.abs() > 5 * standard_error + 1e-4).any():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_runs",
    "A single entry that does not come back passes: you object only when all are wrong. Is it any or all?",
)
def all_entries_must_be_wrong(x, back, jacobian, log_dets, log_dets_back):
    if not ((back - x).abs() <= 1e-4).any():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"


# matching_loss: the mean of |g(t, x_t) - (z - x)|^2.


@right("matching_loss")
def by_lerp(weights, x, z, t):
    v = apply_field(weights, t, torch.lerp(x, z, t[:, None]))
    return torch.linalg.vector_norm(v - z + x, dim=1).square().mean()


@right("matching_loss")
def by_sum_over_all(weights, x, z, t):
    way = z - x
    miss = apply_field(weights, t, x + t.unsqueeze(-1) * way) - way
    return (miss * miss).sum() / len(x)


@wrong(
    "matching_loss",
    "Your lines are right, and the velocity points from noise to data. Which way does a point go as t grows?",
)
def velocity_towards_the_data(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (x - z)).square().sum(-1).mean()


@wrong(
    "matching_loss",
    "At time 0 you are at the noise. Most papers do that; where is t = 0 in this course?",
)
def time_from_noise_to_data(weights, x, z, t):
    points = t[:, None] * x + (1 - t[:, None]) * z
    return (apply_field(weights, t, points) - (z - x)).square().sum(-1).mean()


@wrong(
    "matching_loss",
    "Both your line and your velocity run from noise to data: consistent, and the papers' convention. Which end has t = 0 in this course?",
)
def papers_convention(weights, x, z, t):
    points = t[:, None] * x + (1 - t[:, None]) * z
    return (apply_field(weights, t, points) - (x - z)).square().sum(-1).mean()


@wrong(
    "matching_loss",
    "Too small by the factor D. A squared distance is a sum over the dimensions: what is the mean taken over?",
)
def mean_over_dimensions(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (z - x)).square().mean()


@wrong(
    "matching_loss",
    "Too large by the factor N. What stands before the squared distance in the formula, a sum or a mean?",
)
def sum_over_pairs(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (z - x)).square().sum()


@wrong(
    "matching_loss",
    "One number for each pair came back. What becomes of them?",
    when=lambda returned, weights, x, z, t: returned.shape == t.shape,
)
def one_for_each_pair(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (z - x)).square().sum(-1)


@wrong(
    "matching_loss",
    "The field is asked about x, the end of the line. Where is the pair at time t?",
)
def field_at_the_data(weights, x, z, t):
    return (apply_field(weights, t, x) - (z - x)).square().sum(-1).mean()


@wrong(
    "matching_loss",
    "The field is asked about time 0 for every pair. What is the time of each?",
)
def field_without_time(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, 0.0, points) - (z - x)).square().sum(-1).mean()


@wrong(
    "matching_loss",
    "You have the mean distance, not squared. What would the best prediction be then: still the mean velocity?",
)
def distance_not_squared(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (z - x)).square().sum(-1).sqrt().mean()


@wrong(
    "matching_loss",
    "Your field is to predict z, the noise itself. What is the velocity of the line from x to z?",
)
def target_is_the_noise(weights, x, z, t):
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - z).square().sum(-1).mean()


# fit_cnf: the same density by likelihood and by flow matching.


@right("fit_cnf")
def with_whole_jacobians_and_a_scheduler(how, weights, data, steps, rate):
    """The trace by whole Jacobians; Adam's step size by a scheduler; another seed."""
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / max(steps, 1))
    generator = torch.Generator().manual_seed(1)

    def slope(t, state):
        J = torch.func.vmap(torch.func.jacrev(lambda y: apply_field(layers, t, y)))(state[0])
        return apply_field(layers, t, state[0]), J.diagonal(dim1=-2, dim2=-1).sum(-1)

    for _ in range(steps):
        x = data[torch.randint(len(data), (256,), generator=generator)]
        if how == "matching":
            z, t = torch.randn(x.shape, generator=generator), torch.rand(256, 1, generator=generator)
            loss = (apply_field(layers, t[:, 0], x + t * (z - x)) - z + x).square().mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return [(W.data, b.data) for W, b in layers]


@right("fit_cnf")
def with_gradients_by_hand(how, weights, data, steps, rate):
    """torch.autograd.grad, and the trace by unit vectors."""
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    flat = [w for layer in layers for w in layer]
    optimizer = torch.optim.Adam(flat)
    generator = torch.Generator().manual_seed(2)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (steps - k) / steps
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(256, data.shape[-1], generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            miss = apply_field(layers, t, x + t[:, None] * (z - x)) - (z - x)
            loss = miss.square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = 0.5 * z.square().sum(-1).mean() - log_det.mean()
        for w, gradient in zip(flat, torch.autograd.grad(loss, flat, allow_unused=True), strict=True):
            w.grad = gradient
        optimizer.step()
    return [tuple(w.detach() for w in layer) for layer in layers]


def unchanged(returned, weights):
    """For each layer whether training has left it as it was."""
    return [
        all(torch.equal(w, v) for w, v in zip(layer, old, strict=True))
        for layer, old in zip(returned, weights, strict=True)
    ]


def nats(weights, data, t0=0.0, t1=1.0, sign=1.0):
    """The mean negative log-likelihood of 300 points where the field, times sign, runs from t0 to t1."""

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: sign * apply_field(weights, t, y), state[0])
        units = torch.eye(data.shape[-1], dtype=data.dtype)
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    x = data[:300]
    z, log_det = integrate(slope, (x, torch.zeros_like(x[:, 0])), t0, t1, 6)
    return (0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) - log_det).mean().item()


def fate(weights, data):
    """The mean square of z over the data and its dimensions."""
    z = integrate(lambda t, y: apply_field(weights, t, y), data, 0.0, 1.0, 10)
    return z.square().mean().item()


FITS = 1.9  # nats on the moons: their entropy is 1.42, an untrained field has 2.4


@wrong(
    "fit_cnf",
    "Every weight came back as it went in. Does each get to the optimizer, are the gradients still there at its step, and do you return the copy that was trained?",
    when=lambda returned, how, weights, data, steps, rate: steps > 0 and all(unchanged(returned, weights)),
)
def untrained(how, weights, data, steps, rate):
    return [(W.clone(), b.clone()) for W, b in weights]


def pace(returned, how, weights, data, steps, rate, bias):
    """How far a bias has gone, in units of the rate, where the public test asks for the rules; else nan."""
    return (returned[0][1][bias].abs() / rate).item() if data.shape[-1] == 4 and steps else math.nan


def keeps_pace(bias):
    """A predicate: whether this bias has gone as far as the first one, whose gradient never changes."""
    return lambda *fit: math.isclose(pace(*fit, bias), pace(*fit, 0), rel_tol=1e-3)


@wrong(
    "fit_cnf",
    "Where the gradient never changes, you get a little less far than by a step size that falls in a straight line. So it is where gradients add up from step to step. Does each step begin with fresh ones?",
    when=lambda *fit: 0.09 < -pace(*fit, 0) % 0.5 < 0.13,
)
def gradients_added_up(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z_, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z_.square().sum(-1) - log_det).mean()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Your later steps lead where the points of the first would. Is it other points that each step draws?",
    when=keeps_pace(2),
)
def same_points_in_every_step(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[:256]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z_, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z_.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Your second step used the noise of the first. Where is z drawn, and how often?",
    when=lambda returned, how, *rest: how == "matching" and keeps_pace(1)(returned, how, *rest),
)
def noise_drawn_once(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(256, data.shape[-1], generator=generator)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        t = torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z_, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z_.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Your second step used the times of the first. Where is t drawn, and how often?",
    when=lambda returned, how, *rest: (
        how == "matching" and returned[0][1][0] < 0 and keeps_pace(3)(returned, how, *rest)
    ),
)
def times_drawn_once(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(256, generator=generator)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z = torch.randn(x.shape, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z_, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z_.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Where the gradient never changes, all your steps are equally long, the last like the first. What is the step size to do while you train?",
    when=lambda returned, how, weights, data, steps, rate: math.isclose(
        pace(returned, how, weights, data, steps, rate, 0), steps, rel_tol=1e-3
    ),
)
def constant_rate(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for _ in range(steps):
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z_, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z_.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Some layers came back with the weights that they had, and others have learned. Which weights does your optimizer hold?",
    when=lambda returned, how, weights, data, steps, rate: steps > 0 and any(unchanged(returned, weights)),
)
def last_layer_only(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers[-1:] for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "By likelihood your flow crushes the data: every z lies close to zero. Which term of the log-likelihood charges for that: is it in your loss, with which sign, and does its gradient reach the weights?",
    when=lambda returned, how, weights, data, steps, rate: (
        steps > 0 and how == "likelihood" and fate(returned, data) < 0.2
    ),
)
def log_det_forgotten(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, _ = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = 0.5 * z.square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "By likelihood your field fits the data when it is solved from t = 1 to t = 0. At which time are the data in this course?",
    when=lambda returned, how, weights, data, steps, rate: (
        steps > 0 and how == "likelihood" and nats(returned, data, 1.0, 0.0) < FITS < nats(returned, data)
    ),
)
def solved_backwards(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 1.0, 0.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "By matching, your field fits the data once every arrow is turned round. Which way does a point go as t grows?",
    when=lambda returned, how, weights, data, steps, rate: (
        steps > 0 and how == "matching" and nats(returned, data, sign=-1.0) < FITS < nats(returned, data)
    ),
)
def velocity_reversed(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (x - z)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "By matching, your field fits the data when t runs from 1 to 0: the papers' convention. Which end of a line has t = 0 here?",
    when=lambda returned, how, weights, data, steps, rate: (
        steps > 0 and how == "matching" and nats(returned, data, 1.0, 0.0) < FITS < nats(returned, data)
    ),
)
def matched_from_noise_to_data(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = t[:, None] * x + (1 - t[:, None]) * z
            loss = (apply_field(layers, t, points) - (x - z)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "By likelihood, training has made the data less likely than they were before it. Does the loss that you print fall? Which signs do its two terms have?",
    when=lambda returned, how, weights, data, steps, rate: (
        steps > 0 and how == "likelihood" and not nats(returned, data) < nats(weights, data) + 1
    ),
)
def uphill(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = -(0.5 * z.square().sum(-1) + log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]


@wrong(
    "fit_cnf",
    "Your weights still ask for gradients, and those that came in did not. What does detached make of them?",
    when=lambda returned, *rest: any(w.requires_grad for layer in returned for w in layer),
)
def gradients_kept(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(256, generator=generator)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layers


def together(returned, how, weights, data, steps, rate):
    """Whether the weight of t and the bias of a linear field on the line have moved the same way."""
    (W, b), (V, c) = returned[0], weights[0]
    return how == "matching" and len(weights) == 1 and ((W - V)[1, 0] * (b - c)[0]).item() > 0


@wrong(
    "fit_cnf",
    "By matching, the weight of t and the bias moved together, as they do when all pairs have one time. Does each pair have a time of its own?",
    when=together,
)
def one_time_for_all_pairs(how, weights, data, steps, rate):
    layers = [tuple(w.clone().requires_grad_() for w in layer) for layer in weights]
    optimizer = torch.optim.Adam([w for layer in layers for w in layer], lr=rate)
    generator = torch.Generator().manual_seed(0)

    def slope(t, state):
        v, pull = torch.func.vjp(lambda y: apply_field(layers, t, y), state[0])
        units = torch.eye(data.shape[-1])
        return v, sum(pull(e.expand_as(v))[0][:, i] for i, e in enumerate(units))

    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        z, t = torch.randn(x.shape, generator=generator), torch.rand(1, generator=generator).expand(256)
        if how == "matching":
            points = (1 - t[:, None]) * x + t[:, None] * z
            loss = (apply_field(layers, t, points) - (z - x)).square().sum(-1).mean()
        else:
            z, log_det = integrate(slope, (x, torch.zeros(256)), 0.0, 1.0, 4)
            loss = (0.5 * z.square().sum(-1) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(W.detach(), b.detach()) for W, b in layers]
