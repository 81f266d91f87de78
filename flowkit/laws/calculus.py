"""Laws of calculus: log-dets, one to one, there and back, and the density that integrates to one."""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from flowkit.laws import slips
from flowkit.laws.calls import gradient_of, jacobian_of, pair, parameters_of, size_of
from flowkit.laws.exam import POINTS, REAL, is_real
from flowkit.laws.walks import Leg, Trial

DOWNHILL_STEPS = 10


def _log_det(t: Trial, leg: Leg) -> str | None:
    if leg.jacobian is None:
        return (
            "neither forward nor inverse can be differentiated in its input: compute with torch, without "
            "detach or item"
        )
    truth, got = leg.log_det[1].to(t.dtype), leg.result[1]
    flat = truth.isneginf() if leg.way == "forward" else truth.isposinf()
    sign = 1 if leg.way == "forward" else -1
    claims = flat & (sign * got > torch.log(torch.tensor(t.eps)) / 2)
    if claims.any():
        i = int(claims.nonzero()[0])
        return (
            f"at {slips.show(leg.start[i])} the Jacobian is singular, log abs det dz/dx minus infinity; "
            "log_det says "
            f"{got[i]:.4g}. The map is not one to one there: does it clamp, round or project?"
        )
    if t.precise and leg.judged.double().mean() < 0.25:
        i = int(leg.rounding[2].argmax())
        return (
            f"at most points, such as {slips.show(leg.start[i])}, the Jacobian is singular as far as float64 "
            "can tell"
        )
    error = (got - truth).abs()
    if leg.worst(error, 1) is None:
        return None
    # it costs D passes: only when in doubt
    worst = leg.worst(error - 4 * leg.truth_moved_by_rounding.to(error), 1)
    if worst is None:
        return None
    reason = slips.of_log_det(got, truth, leg.jacobian, leg.way, leg.judged)
    told = f"it is {got[worst]:.6g}; the Jacobian says {truth[worst]:.6g}{reason}"
    return f"at {slips.show(leg.start[worst])} {told}"


def log_det_forward(t: Trial) -> str | None:
    return _log_det(t, t.there)


def log_det_inverse(t: Trial) -> str | None:
    return _log_det(t, t.back) if t.exam.inverse else None


def one_to_one(t: Trial) -> str | None:
    """One sign of the determinant, here and as parameters go downhill in log_det, where a fold would open."""
    complaint = _folds(t)
    if complaint or not (t.precise and t.std) or t.quick or math.prod(t.exam.event) > 8:
        return complaint
    f = copy.deepcopy(t.given if t.first else t.f)
    for _ in range(DOWNHILL_STEPS):
        if not _step_downhill(f, t):
            return None
        complaint = _folds(replace(t, f=f))
        if complaint:
            return (
                f"after {DOWNHILL_STEPS} steps or fewer of the parameters towards small log-dets, {complaint}"
            )
    return None


def _step_downhill(f: object, t: Trial, length: float = 0.3) -> bool:
    """Moves the parameters by `length` against the gradient of the lowest log_det; False when it has none."""
    parameters = [p for p in parameters_of(f) if p.requires_grad]
    lowest = pair(f, "forward", t.x.clone(), t.context)[1].min()
    if not (parameters and lowest.requires_grad):
        return False
    gradient = gradient_of(lowest, parameters)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
    if not 0 < norm < math.inf:
        return False
    with torch.no_grad():
        for parameter, slope in zip(parameters, gradient, strict=True):
            parameter.sub_(length / norm * slope)
    return True


def _folds(t: Trial) -> str | None:
    if t.there.jacobian is None:
        return None
    sign = t.there.log_det[0]
    up, down = ((s * sign > 0) & t.there.judged for s in (1, -1))
    if not (up.any() and down.any()):
        return None
    return (
        f"the determinant of the Jacobian is positive at {slips.show(t.x[up][0])} and negative at "
        f"{slips.show(t.x[down][0])}: in between the map folds, so two points share one image. Is a "
        "constraint on the parameters wrong?"
    )


def _round_trip(leg: Leg) -> str | None:
    error = size_of(leg.result[2] - leg.start)
    i = leg.worst(error, 2)
    if i is None:
        return None
    names = ("x", "forward", "inverse") if leg.way == "forward" else ("z", "inverse", "forward")
    reason = slips.of_round_trip(leg.start, leg.out, leg.result[2])
    return (
        f"{names[0]} = {slips.show(leg.start[i])} comes back from {names[1]} and {names[2]} as "
        f"{slips.show(leg.result[2][i])}{reason}"
    )


def round_trip_x(t: Trial) -> str | None:
    return _round_trip(t.there) if t.exam.inverse else None


def round_trip_z(t: Trial) -> str | None:
    return _round_trip(t.back) if t.exam.inverse else None


def inverse_gradient(t: Trial) -> str | None:
    """Where inverse carries a gradient, as rsample needs, it must be that of the inverse map."""
    if not (t.exam.inverse and t.exam.inverse_gradient and t.precise) or t.there.jacobian is None:
        return None
    backward = jacobian_of(t.f, "inverse", t.there.out, t.context)
    if backward is None:
        return None
    product = backward @ t.there.jacobian
    condition = torch.linalg.cond(t.there.jacobian.nan_to_num())
    error = size_of(product - torch.eye(product.shape[-1]).to(product))
    allowed = 1e-6 + 1e3 * (t.there.rounding[2] + t.eps * condition)
    bad = t.there.judged & ~(error <= allowed)
    if not bad.any():
        return None
    i = int(bad.nonzero()[0])
    return (
        f"at z = {slips.show(t.there.out[i])} autograd's dx/dz times dz/dx is not the identity (off by "
        f"{error[i]:.3g}): "
        "part of inverse is detached, or its solver is differentiated wrongly"
    )


def in_codomain(t: Trial) -> str | None:
    for leg, constraint in zip(
        t.legs, (getattr(t.f, "codomain", REAL), getattr(t.f, "domain", REAL)), strict=False
    ):
        inside = constraint.check(leg.out).reshape(POINTS, -1).all(1)
        bad = leg.judged & ~inside
        if bad.any():
            i = int(bad.nonzero()[0])
            name = "codomain" if leg.way == "forward" else "domain"
            return (
                f"{leg.way} of {slips.show(leg.start[i])} is {slips.show(leg.out[i])}, outside the declared "
                f"{name} {constraint}"
            )
    return None


def integral(t: Trial) -> str | None:
    exam = t.exam
    wanted = exam.integrate
    if wanted is None:
        wanted = exam.inverse and exam.event in ((1,), (2,)) and is_real(getattr(t.f, "codomain", REAL))
    if not (wanted and t.precise and t.first):
        return None
    total, doubt, hits = _mass(t.f, exam.event[0], None if t.context is None else t.context[:1])
    if abs(total - 1) <= max(1e-2, 6 * doubt) or doubt > 0.1 or hits < 200:
        return None
    return (
        f"with a standard normal base the density integrates to {total:.4f} over data space, not to 1: "
        "the map covers some of its codomain twice or not at all, or log_det is wrong"
    )


@torch.no_grad()
def _mass(f: object, dim: int, context: Tensor | None) -> tuple[float, float, int]:
    """The integral over the preimage of [-6, 6]^D, its standard error, and how many points met the mass.

    Two random points in each cell of a grid: without bias, however the density jumps. The grid's lines are
    even and at quantiles of the preimage.
    """

    def log_density(points: Tensor) -> Tensor:
        c = None if context is None else context.expand(len(points), -1)
        z, log_det = pair(f, "forward", points, c)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    line = torch.linspace(-6, 6, 401 if dim == 1 else 41, dtype=torch.float64)
    z = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
    x = pair(f, "inverse", z, None if context is None else context.expand(len(z), -1))[0]
    if not x.isfinite().all():
        return 1.0, math.inf, 0
    shares = torch.linspace(0, 1, 1001 if dim == 1 else 61, dtype=x.dtype)
    even = x.amin(0) + (x.amax(0) - x.amin(0)) * shares[:, None]
    edges = [torch.cat(both).sort()[0] for both in zip(even.T, x.quantile(shares, dim=0).T, strict=True)]
    corners = torch.cartesian_prod(*[axis[:-1] for axis in edges]).reshape(-1, dim)
    sides = torch.cartesian_prod(*[axis.diff() for axis in edges]).reshape(-1, dim)
    logs = torch.stack([log_density(corners + sides * torch.rand_like(sides)) for _ in range(2)])
    masses = logs.exp() * sides.prod(-1)
    hits = int((logs > log_density(x).max() - 5).sum())
    return float(masses.sum()) / 2, float((masses[0] - masses[1]).square().sum().sqrt()) / 2, hits
