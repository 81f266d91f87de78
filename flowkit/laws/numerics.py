"""Laws of numerics: finite gradients, and finite values at extreme inputs."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from flowkit.laws import slips
from flowkit.laws.calls import cast, gradient_of, overflows, pair, parameters_of
from flowkit.laws.exam import POINTS, REAL, SMALL, lay
from flowkit.laws.walks import Trial


def _gradients(
    f: object, way: str, points: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The value, log_det, the gradient of their sum in the points, and in all parameters end to end."""
    leaf = points.detach().clone().requires_grad_()
    out, log_det = pair(f, way, leaf.clone(), context)
    total = out.sum() + log_det.sum()
    if not total.requires_grad:
        return out, log_det, torch.zeros_like(leaf), leaf.new_zeros(1)
    parameters = [p for p in parameters_of(f) if p.requires_grad]
    of_points, *of_parameters = gradient_of(total, [leaf, *parameters])
    return out, log_det, of_points, torch.cat([leaf.new_zeros(1), *(g.flatten() for g in of_parameters)])


def finite_gradients(t: Trial) -> str | None:
    if not t.precise:
        return None
    for leg in t.legs:
        rows = leg.judged & leg.out.flatten(1).isfinite().all(1)
        points, context = leg.start[rows], None if t.context is None else t.context[rows]
        _, _, of_points, of_parameters = _gradients(t.f, leg.way, points, context)
        fine = of_points.flatten(1).isfinite().all(1)
        if not fine.all():
            i = int((~fine).nonzero()[0])
            return (
                f"{leg.way} at {slips.show(points[i])} has gradient {slips.show(of_points[i])}{slips.WHERE}"
            )
        if not of_parameters.isfinite().all():
            return f"{leg.way} has a gradient in its parameters that is not finite{slips.WHERE}"
    return None


def extreme(t: Trial) -> str | None:
    """Parameters as given. Float64 must be finite, unless a step overflows at sizes from 3 on; and float32
    wherever float64 says that the number fits into it."""
    if not (t.first and t.exam.extremes):
        return None
    for leg, name in zip(t.legs, ("domain", "codomain"), strict=False):
        constraint = getattr(t.given, name, REAL)
        if not _all_finite(t, leg.way, constraint):
            complaints = (_extreme_of_size(t, leg.way, constraint, size) for size in t.exam.extremes)
            complaint = next(filter(None, complaints), None)
            if complaint:
                return complaint
    return None


def _corners(t: Trial, constraint: Constraint, sizes: Iterable[float]) -> tuple[Tensor, Tensor | None]:
    """All coordinates of one size: positive, negative, and by turns."""
    signs = torch.ones(3, *t.exam.event, dtype=torch.float64)
    signs[1] = -1
    signs.flatten(1)[2, ::2] = -1
    points = torch.cat([lay(constraint, size * signs) for size in sizes]).to(t.dtype)
    return points, None if t.context is None else t.context[torch.arange(len(points)) % POINTS]


def _all_finite(t: Trial, way: str, constraint: Constraint) -> bool:
    """The quick answer, for all sizes in one batch."""
    parts = _gradients(t.given, way, *_corners(t, constraint, t.exam.extremes))
    return all(part.isfinite().all() for part in parts)


def _extreme_of_size(t: Trial, way: str, constraint: Constraint, size: float) -> str | None:
    points, context = _corners(t, constraint, [size])
    got = truth = _gradients(t.given, way, points, context)
    if t.widens and not t.precise:
        wide = cast(copy.deepcopy(t.given), dtype=torch.float64)
        truth = _gradients(wide, way, points.double(), t.widen(context))
    excused = size >= SMALL and not truth[0].isfinite().all() and overflows(t.given, way, points, context)
    largest = 1e-8 * torch.finfo(t.dtype).max
    names = ("the value", "log_det", "the gradient", "the gradient in the parameters")
    all_fit = True
    for name, part, wanted in zip(names, got, truth, strict=True):
        fits = torch.full_like(wanted, not excused, dtype=torch.bool)
        if t.widens and not t.precise:
            fits = wanted.isfinite() & (wanted.abs() < largest)
        if name == names[-1] and not all_fit:
            return None  # summed over points of which some do not fit
        all_fit = all_fit and bool(fits.all())
        bad = fits & ~part.isfinite()
        if bad.any():
            return f"{way} at coordinates of size {size:g}: {name} is {slips.show(part[bad])}{slips.WHERE}"
    return None
