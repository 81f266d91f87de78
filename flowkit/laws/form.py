"""Laws of form: shapes, dtypes, devices, finite values, and each point by itself.

A law takes a trial, and returns None or what came back and the likely reason.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from flowkit.laws import slips
from flowkit.laws.calls import Raised, cast, fresh, pair, size_of
from flowkit.laws.exam import POINTS, REAL, is_real
from flowkit.laws.walks import Leg, Trial, broken_values


def runs(t: Trial) -> None:
    list(t.batches)  # makes all the calls: what they raise is the verdict


def shapes(t: Trial) -> str | None:
    for leg, shape, out, log_det in t.batches:
        asked = f"{leg.way} of a tensor {(*shape, *t.exam.event)}"
        if out.shape != (*shape, *t.exam.event):
            return f"{asked} returned points of shape {tuple(out.shape)}"
        if log_det.shape != shape:
            reason = slips.of_shape(tuple(log_det.shape), shape, t.exam.event)
            return f"{asked} returned log_det of shape {tuple(log_det.shape)}, not {shape}{reason}"
    return None


def dtypes(t: Trial) -> str | None:
    for leg, _, *returned in t.batches:
        for name, value in zip(("points", "log_det"), returned, strict=True):
            if value.dtype != t.dtype:
                return (
                    f"{leg.way} of {t.dtype} returned {name} of {value.dtype}; make new tensors with "
                    "x.new_zeros or dtype=x.dtype, and keep constants as buffers, which .to(dtype) moves"
                )
    return None


def devices(t: Trial) -> str | None:
    """Tried on the meta device, which every machine has: its tensors have a shape and no values."""
    if not (t.first and isinstance(t.f, nn.Module)):
        return None
    f = copy.deepcopy(t.f).to("meta")
    context = None if t.context is None else t.context.to("meta")
    for leg in t.legs:
        try:
            returned = pair(f, leg.way, leg.start.to("meta"), context)
        except Raised as raised:
            if "on the expected device" in str(raised) or "on the same device" in str(raised):
                return f"when the module is moved to another device, {raised}; register constants as buffers"
            continue  # it looks at values, which the meta device has not
        for name, value in zip(("points", "log_det"), returned, strict=True):
            if value.device.type != "meta":
                return (
                    f"{leg.way} returned {name} on {value.device}, not on its input's device; use x.new_zeros"
                )
    return None


def untouched(t: Trial) -> str | None:
    for leg in t.legs:
        points = leg.start.clone()
        with torch.no_grad():
            pair(t.f, leg.way, points, t.context)
        if not torch.equal(points, leg.start):
            return f"{leg.way} changed its input in place; work on a copy, or write x = x + ... for x += ..."
    return None


def deterministic(t: Trial) -> str | None:
    for leg in t.legs:
        with torch.no_grad():
            again = pair(t.f, leg.way, leg.start.clone(), t.context)
        for name, a, b in zip(("points", "log_det"), again, leg.result, strict=False):
            if not torch.equal(a.nan_to_num(), b.nan_to_num()):
                return (
                    f"{leg.way} of the same points twice gave {name} that differ by "
                    f"{(a - b).abs().max():.3g}: "
                    "it draws random numbers, or changes its own state, when it is called"
                )
    return None


def finite(t: Trial) -> str | None:
    for leg in t.legs:
        out, log_det = leg.result[:2]
        broken = broken_values(t.f, leg.way, leg.start, out, t.context)
        if t.precise and broken.any():
            i = int(broken.nonzero()[0])
            return f"{leg.way} of {slips.show(leg.start[i])} is {slips.show(out[i])}"
        fine = out.flatten(1).isfinite().all(1)
        if not log_det[fine].isfinite().all():
            i = int((fine & ~log_det.isfinite()).nonzero()[0])
            return (
                f"{leg.way} of {slips.show(leg.start[i])} has log_det {log_det[i]:.3g}"
                f"{slips.of_infinite(log_det[i])}"
            )
    return None


def rows_independent(t: Trial) -> str | None:
    order = torch.randperm(POINTS)
    for leg in t.legs:
        with torch.no_grad():
            context = None if t.context is None else t.context[order]
            permuted = pair(t.f, leg.way, leg.start[order].clone(), context)
            alone = [
                pair(
                    t.f,
                    leg.way,
                    leg.start[i : i + 1].clone(),
                    None if t.context is None else t.context[i : i + 1],
                )
                for i in range(4)
            ]
        back = order.argsort()
        complaint = _differs(
            leg, [part[back] for part in permuted], "with the rows of the batch in another order"
        )
        complaint = complaint or _differs(
            leg, [torch.cat(part) for part in zip(*alone, strict=True)], "taken alone"
        )
        if complaint:
            return complaint
    return None


def leading(t: Trial) -> str | None:
    for leg, shape, out, log_det in t.batches:
        flat = out.reshape(-1, *t.exam.event), log_det.reshape(-1)
        complaint = _differs(leg, flat, f"in a batch of shape {shape}")
        if complaint:
            return complaint
    return None


def _differs(leg: Leg, parts: Iterable[Tensor], how: str) -> str | None:
    """Compares (points, log_det) of the first rows, got in another way, with those of the whole batch."""
    for part, (name, got) in enumerate(zip(("the points", "log_det"), parts, strict=True)):
        n = len(got)
        whole = leg.result[part][:n]
        error = size_of(torch.where(got == whole, 0, got - whole).reshape(n, -1))
        allowed = (
            leg.trial.tolerance * (1 + size_of(whole.reshape(n, -1))) + 4 * leg.moved_by_rounding[part][:n]
        )
        bad = ~(error <= allowed) & whole.reshape(n, -1).isfinite().all(1)
        if bad.any():
            i = int(bad.nonzero()[0])
            return (
                f"{leg.way} of row {i} gives other values {how}: {name} differ by {error[i]:.3g}; each point "
                "must be mapped by itself, so no mean, norm or sum may run over the batch"
            )
    return None


def state(t: Trial) -> str | None:
    """A second copy that loads the state of the first must become the same map."""
    if not (t.first and isinstance(t.f, nn.Module) and t.precise):
        return None
    first, second = (cast(fresh(t.source), dtype=t.dtype) for _ in range(2))
    start = 2 * t.x[:32] if is_real(getattr(t.f, "domain", REAL)) else t.x[:32]
    context = None if t.context is None else t.context[:32]
    with torch.no_grad():
        pair(first, "forward", start.clone(), context)
        try:
            second.load_state_dict(first.state_dict())
        except RuntimeError as error:
            return f"the state_dict of one copy cannot be loaded into another: {error}"
        for training in (first.training, False):
            a, b = (
                pair(
                    g.train(training),
                    "forward",
                    t.x[32:].clone(),
                    None if t.context is None else t.context[32:],
                )
                for g in (first, second)
            )
            if not all(torch.allclose(p, q, equal_nan=True) for p, q in zip(a, b, strict=True)):
                return (
                    "a copy that loads the saved state is another map: what it keeps (a flag, a permutation, "
                    "statistics) must be a buffer or a parameter, not a plain attribute"
                )
    return None
