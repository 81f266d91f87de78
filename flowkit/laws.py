"""The laws of a bijection, checked on anything that claims to be one.

`check_bijection` is the one law checker of the course: students run it on their flows, the grader on
answers, and the tests on `flowkit`. Round trip plus "log-dets cancel" is the field's usual test, and it
is too weak: a log-det wrong in both directions passes. Here the log-det is held against the Jacobian
that autograd finds, away from initialization.
"""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from flowkit import slips

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
EXTREMES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
POINTS = 64
DOWNHILL_STEPS = 10
QUICK_DRAWS = 12  # further draws of the parameters, for the laws that break at few of them
SPREAD = 8.0
REAL = constraints.real


class LawBroken(AssertionError):
    """A map that claims to be a bijection breaks a law.

    law: its short name, a key of `LAWS`; message: what came back, at which dtype and shape, and the likely
    reason. When the map raised, its own exception is the `__cause__`.
    """

    def __init__(self, law: str, message: str):
        super().__init__(f"{law}: {message}")
        self.law = law
        self.message = message


def check_bijection(f, dim: int | tuple[int, ...], **options) -> None:
    """Checks that f keeps every law of a bijection; raises LawBroken at the first that it breaks.

    f: a `Bijection`, or any object with its `forward` and `inverse`; or a class or function without
        arguments that makes one (then the saved state is also loaded into one built afresh). f itself is left
        as it was: deep copies are tried.
    dim: the number of dimensions D, or the shape of one point, such as (C, H, W).

    Options:
    context     a number of features C (drawn from N(0, 1)), or a tensor (n, C) from which rows are drawn
    dtypes      (torch.float64, torch.float32)
    batch_shapes    ((), (5,), (2, 3)): leading dimensions tried, beside the flat batch of 64 points
    seed        0: all draws are made from it, and torch's global generator is put back
    randomize   0.5: noise of this standard deviation is added to all parameters, of twice and four times
                as much in the second and third draw. A module with a method `randomize_(std)` moves its own. While
                f overflows or is singular to float64, the noise is halved, down to none
    draws       3 draws of the parameters
    integrate   whether the density with a standard normal base must integrate to one over data space;
                by default when D is 1 or 2, f has an inverse, and the codomain is real
    inverse     True; False for a map whose inverse is not wanted
    inverse_gradient    True: where the result of inverse carries a gradient, it must be right. False for a numerical
                inverse that is not meant to be differentiated
    extremes    the sizes of the coordinates at which values and gradients must be finite
    tolerances  {torch.float64: 1e-10, torch.float32: 1e-4}

    What is compared may differ by tolerance * (1 + size) plus what rounding does to a right
    implementation, point by point: 16 eps (1 + abs z) / s_min for x, 16 eps (1 + abs x) s_max for z, both relative
    for log-dets, where s_min and s_max are the singular values of the Jacobian; and 4 times the change observed
    when inputs, parameters and the value handed to the way back are moved by 16 eps. Points where rounding
    leaves less than one digit are not judged. So right but ill-conditioned flows pass.

    Cost: about 100 passes and 25 D backward passes on 64 points for each dtype, tens of milliseconds for a small flow.
    """
    for broken in _examine(f, Exam(dim, **options)).values():
        if broken is not None:
            raise broken


def laws(f, dim: int | tuple[int, ...], **options) -> list[tuple[str, str | None]]:
    """The verdict of every law, in order: (law, None) when it holds, (law, message) when it is broken.

    Takes what `check_bijection` takes. Where f breaks a law that others stand on, such as its shape, these
    others are reported as not tried.
    """
    verdicts = _examine(f, Exam(dim, **options))
    return [(law, None if broken is None else broken.message) for law, broken in verdicts.items()]


@dataclass(frozen=True)
class Exam:
    """The options of `check_bijection`, which says what they mean."""

    dim: int | tuple[int, ...]
    context: int | Tensor | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    batch_shapes: tuple[tuple[int, ...], ...] = ((), (5,), (2, 3))
    seed: int = 0
    randomize: float = 0.5
    draws: int = 3
    integrate: bool | None = None
    inverse: bool = True
    inverse_gradient: bool = True
    extremes: tuple[float, ...] = EXTREMES
    tolerances: dict[torch.dtype, float] = field(default_factory=dict)

    @property
    def event(self) -> tuple[int, ...]:
        return (self.dim,) if isinstance(self.dim, int) else tuple(self.dim)


def _examine(f, exam: Exam) -> dict[str, LawBroken | None]:
    """The first breach of each law over all draws and dtypes; None for the laws that hold."""
    broken: dict[str, LawBroken | None] = dict.fromkeys(LAWS)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(exam.seed)
        try:
            for trial in _trials(f, exam):
                for law in QUICK if trial.quick else LAWS:
                    broken[law] = broken[law] or _verdict(law, LAWS[law], trial)
                    if broken[law] is not None and law in FOUNDATIONS:
                        return _stop(broken, law)
        except _Raised as raised:
            first = next(iter(LAWS))
            broken[first] = LawBroken(first, str(raised))
            broken[first].__cause__ = raised.__cause__
            return _stop(broken, first)
    return broken


def _stop(broken, failed):
    names = list(LAWS)
    untried = names[names.index(failed) + 1 :]
    return broken | {law: LawBroken(law, f"not tried before '{failed}' holds") for law in untried}


def _verdict(law, judge, trial) -> LawBroken | None:
    try:
        complaint = judge(trial)
        cause = None
    except _Raised as raised:
        complaint, cause = str(raised), raised.__cause__
    if complaint is None:
        return None
    verdict = LawBroken(law, f"in {trial.where}: {complaint}")
    verdict.__cause__ = cause
    return verdict


# Trials: f copied, moved away from initialization, and what it returns


class _Raised(Exception):
    """The map under test raised; the cause is what it raised."""


def _call(f, way, points, context=None):
    """f.forward or f.inverse, with what it raises wrapped, so that our own errors are not laid to its charge."""
    try:
        method = getattr(f, way)
        return method(points) if context is None else method(points, context)
    except Exception as error:
        shape = tuple(points.shape)
        raise _Raised(f"{way} raised {type(error).__name__}: {error} (on a tensor {shape})") from error


def _fresh(f):
    """A copy of f, or a new one when f makes them."""
    if isinstance(f, type) or not hasattr(f, "forward"):
        return f()
    try:
        return copy.deepcopy(f)
    except RuntimeError as error:
        message = (
            f"it cannot be copied ({error}): keep parameters and buffers, and compute from them when called"
        )
        raise _Raised(message) from error


def _cast(f, **to):
    return f.to(**to) if isinstance(f, nn.Module) else f


def _parameters(f):
    return [p for p in f.parameters() if p.is_floating_point()] if isinstance(f, nn.Module) else []


@torch.no_grad()
def _randomize(module, std, spread=1.0):
    """Adds noise to all parameters; each tensor's is up to `spread` times std, drawn evenly on the log scale."""

    def scale():
        return std * spread ** float(torch.rand(()))

    if hasattr(module, "randomize_"):
        module.randomize_(scale())
        return
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.add_(scale() * torch.randn_like(parameter))
    for child in module.children():
        _randomize(child, std, spread)


def _is_real(constraint):
    return getattr(constraint, "base_constraint", constraint) is REAL


def _lay(constraint, reals):
    """Real numbers laid into the domain."""
    if _is_real(constraint):
        return reals
    try:
        return biject_to(constraint)(reals.clamp(-8, 8))
    except NotImplementedError:
        raise ValueError(f"torch.distributions.biject_to cannot draw points from {constraint}") from None


def _trials(f, exam: Exam) -> Iterator["Trial"]:
    """The draws of the parameters, each at every dtype; then quick ones, where each tensor has its own scale."""
    for draw in range(exam.draws):
        given, points = _prepared(f, exam)
        if draw and not _parameters(given):
            return
        moved, std = _moved(given, exam, *points, exam.randomize * 2**draw)
        for dtype in exam.dtypes:
            yield _trial(f, moved, given, exam, dtype, std, points, first=draw == 0)
    for _ in range(QUICK_DRAWS if math.prod(exam.event) <= 8 else 2):
        given, points = _prepared(f, exam)
        moved, std = _moved(given, exam, *points, exam.randomize, SPREAD)
        yield _trial(f, moved, given, exam, exam.dtypes[0], std, points, quick=True)


def _prepared(f, exam):
    """f in float64, set up, with points of its domain and codomain, and a context."""
    given = _cast(_fresh(f), dtype=torch.float64)
    sizes = torch.tensor([1.0, 0.3, 1.0, 5.0], dtype=torch.float64).repeat(POINTS // 4)
    sizes = sizes.reshape(-1, *[1] * len(exam.event))
    x, z = (
        _lay(getattr(given, name, REAL), sizes * torch.randn(POINTS, *exam.event, dtype=torch.float64))
        for name in ("domain", "codomain")
    )
    context = _draw_context(exam.context)
    with contextlib.suppress(_Raised), torch.no_grad():
        _call(given, "forward", x.clone(), context)  # what sets itself up at its first batch does so now
    return given, (x, z, context)


def _trial(f, moved, given, exam, dtype, std, points, first=False, quick=False):
    copies = [_cast(copy.deepcopy(g), dtype=dtype) for g in (moved, given)]
    points = [p.to(dtype) if torch.is_tensor(p) and p.is_floating_point() else p for p in points]
    return Trial(f, *copies, exam, dtype, std, first, quick, *points)


def _draw_context(context):
    if isinstance(context, int):
        return torch.randn(POINTS, context, dtype=torch.float64)
    return None if context is None else context[torch.randint(len(context), (POINTS,))]


def _moved(given, exam, x, z, context, std, spread=1.0):
    """A copy with noise on its parameters: as much as is asked, halved while float64 cannot bear it."""
    for scale in [std / 2**k for k in range(8)] if std and _parameters(given) else []:
        f = copy.deepcopy(given)
        _randomize(f, scale, spread)
        try:
            if _is_tame(f, exam, x, z, context):
                return f, scale
        except _Raised:
            return f, scale  # the laws will say so
    return given, 0.0


def _is_tame(f, exam, x, z, context):
    """Whether nothing overflows and the Jacobian can be inverted in float64, at half the points or more."""
    jacobian = _jacobian(f, "forward", x, context)
    ways = [("forward", x), ("inverse", z)] if exam.inverse else [("forward", x)]
    if any(_broken_values(points, _pair(f, way, points.clone(), context)[0]).any() for way, points in ways):
        return False
    if jacobian is None:
        return True
    condition = torch.linalg.cond(jacobian.nan_to_num()).masked_fill(
        ~jacobian.isfinite().all(-1).all(-1), math.inf
    )
    return bool((condition < 1e8).double().mean() >= 0.5)


def _broken_values(start, out):
    """Where the result is NaN, or infinite though the point is not large: steep maps overflow at large ones."""
    out = out.flatten(1)
    return out.isnan().any(1) | (out.isinf().any(1) & (_size(start) < 3))


def _pair(f, way, points, context=None):
    """What `_call` returns, held to be two tensors, the first as long as the points."""
    returned = _call(f, way, points, context)
    if not (isinstance(returned, tuple | list) and len(returned) == 2 and torch.is_tensor(returned[0])):
        raise _Raised(
            f"{way} must return a pair of tensors, the points and log_det; {slips.describe(returned)}"
        )
    if not torch.is_tensor(returned[1]):
        raise _Raised(
            f"{way} must return log_det as a tensor, one number for each point; {slips.describe(returned[1])}"
        )
    return returned


def _jacobian(f, way, points, context):
    """(N, D, D) by autograd, events flattened; None when the result does not carry the gradient of the points."""
    leaf = points.detach().clone().requires_grad_()
    out, _ = _pair(f, way, leaf.clone(), context)
    if not out.requires_grad or out.shape != points.shape:
        return None
    columns = out.flatten(1).unbind(1)
    rows = [_gradient(column.sum(), [leaf])[0].flatten(1) for column in columns]
    jacobian = torch.stack(rows, 1)
    return jacobian if jacobian.any() else None


def _gradient(scalar, leaves):
    try:
        return torch.autograd.grad(scalar, leaves, retain_graph=True, materialize_grads=True)
    except RuntimeError as error:
        raise _Raised(f"the result cannot be differentiated: {error}") from error


def _size(points):
    """max abs of each point, (N,)."""
    return points.detach().flatten(1).abs().amax(1)


@dataclass
class Trial:
    """One draw of the parameters at one dtype: `f` moved, `given` as it came, both set up."""

    source: object
    f: object
    given: object
    exam: Exam
    dtype: torch.dtype
    std: float
    first: bool
    quick: bool
    x: Tensor
    z: Tensor
    context: Tensor | None

    @property
    def where(self) -> str:
        size = f"{self.std:g}" + (f" to {SPREAD * self.std:g}" if self.quick else "")
        moved = f", with noise of {size} on the parameters" if self.std else ""
        return f"{str(self.dtype).removeprefix('torch.')}{moved}"

    @property
    def tolerance(self) -> float:
        return (TOLERANCES | self.exam.tolerances)[self.dtype]

    @property
    def eps(self) -> float:
        return torch.finfo(self.dtype).eps

    @property
    def precise(self) -> bool:
        return self.dtype == torch.float64

    @cached_property
    def there(self) -> "Leg":
        return Leg(self, "forward", "inverse", self.x)

    @cached_property
    def back(self) -> "Leg":
        return Leg(self, "inverse", "forward", self.z)

    @property
    def legs(self) -> list["Leg"]:
        return [self.there, self.back] if self.exam.inverse else [self.there]

    @cached_property
    def twin(self) -> object:
        """The same map in float64, where it is to be tried there: the Jacobian is taken from it."""
        return _cast(copy.deepcopy(self.f), dtype=torch.float64) if self.widens else self.f

    @property
    def widens(self) -> bool:
        return torch.float64 in self.exam.dtypes

    def widen(self, values):
        floats = torch.is_tensor(values) and values.is_floating_point()
        return values.double() if self.widens and floats else values

    @cached_property
    def batches(self) -> list:
        """(leg, shape, points, log_det) of the flat batch and of each of the leading shapes, both ways."""
        results = []
        for leg in self.legs:
            for shape in [(POINTS,), *self.exam.batch_shapes]:
                n = torch.Size(shape).numel()
                c = (
                    None
                    if self.context is None
                    else self.context[:n].reshape(*shape, *self.context.shape[1:])
                )
                points = leg.start[:n].reshape(*shape, *self.exam.event).clone()
                with torch.no_grad():
                    results.append((leg, shape, *_pair(self.f, leg.way, points, c)))
        return results

    @cached_property
    def shaken(self) -> list:
        """Copies of f whose parameters are moved by some rounding errors."""
        copies = [copy.deepcopy(self.f) for _ in range(2)]
        with torch.no_grad():
            for parameter in [p for g in copies for p in _parameters(g)]:
                parameter.copy_(self.shake(parameter))
        return copies

    def shake(self, values):
        return values * (1 + 16 * self.eps * torch.empty_like(values).uniform_(-1, 1))


@dataclass
class Leg:
    """The 64 points taken one way and back again, with the Jacobian and what rounding may do to each."""

    trial: Trial
    way: str
    other: str
    start: Tensor

    @cached_property
    def result(self):
        with torch.no_grad():
            return self._walk(self.trial.f, lambda values: values)

    def _walk(self, f, shake):
        """Out and back: f, if shaken, is so on the way out only."""
        t = self.trial
        out, log_det = _pair(f, self.way, shake(self.start.clone()), t.context)
        if not t.exam.inverse:
            return out, log_det, self.start, -log_det
        return out, log_det, *_pair(t.f, self.other, shake(out.clone()), t.context)

    @property
    def out(self):
        return self.result[0]

    @property
    def sides(self):
        """x and z of each point."""
        return (self.start, self.out) if self.way == "forward" else (self.out, self.start)

    @cached_property
    def jacobian(self):
        """dz/dx at each point, by autograd of forward, or of inverse where forward carries no gradient."""
        t = self.trial
        context = t.widen(t.context)
        x = z = t.widen(self.start)
        with torch.no_grad():
            out = _pair(t.twin, self.way, x.clone(), context)[0]
        x, z = (x, out) if self.way == "forward" else (out, z)
        jacobian = _jacobian(t.twin, "forward", x, context)
        if jacobian is None and t.exam.inverse:
            jacobian = _jacobian(t.twin, "inverse", z, context)
            jacobian = None if jacobian is None else torch.linalg.inv_ex(jacobian)[0]
        return jacobian

    @cached_property
    def log_det(self):
        """What the log-det of this way must be: (N,) sign and log abs det by slogdet."""
        sign, log_det = torch.linalg.slogdet(self.jacobian)
        return sign, log_det if self.way == "forward" else -log_det

    @cached_property
    def moved_by_rounding(self):
        """The change in out, log_det, back and its log_det, and slogdet, when all is shaken: each (N,)."""
        t = self.trial
        changes = []
        for f in t.shaken:
            with torch.no_grad():
                walks = self._walk(f, t.shake)
            changes.append(
                [_size((a - b).reshape(POINTS, -1)) for a, b in zip(walks, self.result, strict=True)]
            )
        return [torch.stack(both).amax(0).nan_to_num(0, 0, 0) for both in zip(*changes, strict=True)]

    @cached_property
    def rounding(self):
        """The error of x, of z (absolute) and of log-dets that one rounding makes, by the condition of J."""
        x, z = map(_size, self.sides)
        if self.jacobian is None:
            return torch.zeros_like(x), torch.zeros_like(z), torch.zeros_like(x)
        singular = torch.linalg.svdvals(self.jacobian.nan_to_num())
        of_x = self.trial.eps * (1 + z) / singular[:, -1]
        of_z = self.trial.eps * (1 + x) * singular[:, 0]
        return of_x, of_z, of_x / (1 + x) + of_z / (1 + z)

    @cached_property
    def judged(self):
        """Where at least one digit survives rounding."""
        return 16 * self.rounding[2] < 0.05

    def slack(self, part):
        """The allowance for part 0 to 3 of the walk: out, log_det, back, its log_det."""
        t = self.trial
        of_x, of_z, of_log_det = self.rounding
        condition = [of_z if self.way == "forward" else of_x, of_log_det]
        condition = [*condition, of_x if self.way == "forward" else of_z, of_log_det][part]
        size = _size(self.result[part].reshape(POINTS, -1)).nan_to_num(0, 0, 0)
        return t.tolerance * (1 + size) + 16 * condition + 4 * self.moved_by_rounding[part]

    def worst(self, error, part):
        """The index of the point that is judged and most in the wrong, or None."""
        slack = self.slack(part)
        bad = self.judged & ~(error <= slack)
        if not bad.any():
            return None
        return int((error / slack).nan_to_num(torch.inf).masked_fill(~bad, -1).argmax())


# The laws. Each takes a trial and returns None, or what came back and the likely reason.


def _runs(t):
    t.batches  # noqa: B018: all calls are made here; what they raise is the verdict


def _shapes(t):
    for leg, shape, out, log_det in t.batches:
        asked = f"{leg.way} of a tensor {(*shape, *t.exam.event)}"
        if out.shape != (*shape, *t.exam.event):
            return f"{asked} returned points of shape {tuple(out.shape)}"
        if log_det.shape != shape:
            reason = slips.of_shape(tuple(log_det.shape), shape, t.exam.event)
            return f"{asked} returned log_det of shape {tuple(log_det.shape)}, not {shape}{reason}"
    return None


def _dtypes(t):
    for leg, _, *returned in t.batches:
        for name, value in zip(("points", "log_det"), returned, strict=True):
            if value.dtype != t.dtype:
                return (
                    f"{leg.way} of {t.dtype} returned {name} of {value.dtype}; make new tensors with "
                    "x.new_zeros or dtype=x.dtype, and keep constants as buffers, which .to(dtype) moves"
                )
    return None


def _devices(t):
    """Tried on the meta device, which every machine has: its tensors have a shape and no values."""
    if not (t.first and isinstance(t.f, nn.Module)):
        return None
    f = copy.deepcopy(t.f).to("meta")
    context = None if t.context is None else t.context.to("meta")
    for leg in t.legs:
        try:
            returned = _pair(f, leg.way, leg.start.to("meta"), context)
        except _Raised as raised:
            if "on the expected device" in str(raised) or "on the same device" in str(raised):
                return f"when all of the module is moved to another device, {raised}; register constants as buffers"
            continue  # it looks at values, which the meta device has not
        for name, value in zip(("points", "log_det"), returned, strict=True):
            if value.device.type != "meta":
                return (
                    f"{leg.way} returned {name} on {value.device}, not on its input's device; use x.new_zeros"
                )
    return None


def _untouched(t):
    for leg in t.legs:
        points = leg.start.clone()
        with torch.no_grad():
            _pair(t.f, leg.way, points, t.context)
        if not torch.equal(points, leg.start):
            return f"{leg.way} changed its input in place; work on a copy, or write x = x + ... for x += ..."
    return None


def _deterministic(t):
    for leg in t.legs:
        with torch.no_grad():
            again = _pair(t.f, leg.way, leg.start.clone(), t.context)
        for name, a, b in zip(("points", "log_det"), again, leg.result, strict=False):
            if not torch.equal(a.nan_to_num(), b.nan_to_num()):
                return (
                    f"{leg.way} of the same points twice gave {name} that differ by {(a - b).abs().max():.3g}: "
                    "it draws random numbers, or changes its own state, when it is called"
                )
    return None


def _finite(t):
    for leg in t.legs:
        out, log_det = leg.result[:2]
        broken = _broken_values(leg.start, out)
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


def _in_codomain(t):
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


def _rows_independent(t):
    order = torch.randperm(POINTS)
    for leg in t.legs:
        with torch.no_grad():
            context = None if t.context is None else t.context[order]
            permuted = _pair(t.f, leg.way, leg.start[order].clone(), context)
            alone = [
                _pair(
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


def _leading(t):
    for leg, shape, out, log_det in t.batches:
        flat = out.reshape(-1, *t.exam.event), log_det.reshape(-1)
        complaint = _differs(leg, flat, f"in a batch of shape {shape}")
        if complaint:
            return complaint
    return None


def _differs(leg, parts, how):
    """Compares (points, log_det) of the first rows, got in another way, with those of the whole batch."""
    for part, (name, got) in enumerate(zip(("the points", "log_det"), parts, strict=True)):
        n = len(got)
        whole = leg.result[part][:n]
        error = _size(torch.where(got == whole, 0, got - whole).reshape(n, -1))
        allowed = (
            leg.trial.tolerance * (1 + _size(whole.reshape(n, -1))) + 4 * leg.moved_by_rounding[part][:n]
        )
        bad = ~(error <= allowed) & whole.reshape(n, -1).isfinite().all(1)
        if bad.any():
            i = int(bad.nonzero()[0])
            return (
                f"{leg.way} of row {i} gives other values {how}: {name} differ by {error[i]:.3g}; each point "
                "must be mapped by itself, so no mean, norm or sum may run over the batch"
            )
    return None


def _log_det(t, leg):
    if leg.jacobian is None:
        return "neither forward nor inverse can be differentiated in its input: compute with torch, without detach or item"
    truth, got = leg.log_det[1].to(t.dtype), leg.result[1]
    flat = truth.isneginf() if leg.way == "forward" else truth.isposinf()
    sign = 1 if leg.way == "forward" else -1
    claims = flat & (sign * got > torch.log(torch.tensor(t.eps)) / 2)
    if claims.any():
        i = int(claims.nonzero()[0])
        return (
            f"at {slips.show(leg.start[i])} the Jacobian is singular, so log abs det is minus infinity; log_det says "
            f"{got[i]:.4g}. The map is not one to one there: does it clamp, round or project?"
        )
    if t.precise and leg.judged.double().mean() < 0.25:
        i = int(leg.rounding[2].argmax())
        return f"at most points, such as {slips.show(leg.start[i])}, the Jacobian is singular as far as float64 can tell"
    i = leg.worst((got - truth).abs(), 1)
    if i is None:
        return None
    reason = slips.of_log_det(got, truth, leg.jacobian, leg.way, leg.judged)
    return f"at {slips.show(leg.start[i])} it is {got[i]:.6g}; the Jacobian says {truth[i]:.6g}{reason}"


def _log_det_forward(t):
    return _log_det(t, t.there)


def _log_det_inverse(t):
    return _log_det(t, t.back) if t.exam.inverse else None


def _one_to_one(t):
    """One sign of the determinant, here and as the parameters go downhill in log_det, where a fold would open."""
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


def _step_downhill(f, t, length=0.3):
    """Moves all parameters by `length` against the gradient of the lowest log_det; False when there is none."""
    parameters = [p for p in _parameters(f) if p.requires_grad]
    lowest = _pair(f, "forward", t.x.clone(), t.context)[1].min()
    if not (parameters and lowest.requires_grad):
        return False
    gradient = _gradient(lowest, parameters)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
    if not 0 < norm < math.inf:
        return False
    with torch.no_grad():
        for parameter, slope in zip(parameters, gradient, strict=True):
            parameter -= length / norm * slope
    return True


def _folds(t):
    if t.there.jacobian is None:
        return None
    sign = t.there.log_det[0]
    up, down = ((s * sign > 0) & t.there.judged for s in (1, -1))
    if not (up.any() and down.any()):
        return None
    return (
        f"the determinant of the Jacobian is positive at {slips.show(t.x[up][0])} and negative at "
        f"{slips.show(t.x[down][0])}: in between the map folds, so two points share one image. Is a constraint "
        "on the parameters wrong?"
    )


def _round_trip(leg):
    error = _size(leg.result[2] - leg.start)
    i = leg.worst(error, 2)
    if i is None:
        return None
    names = ("x", "forward", "inverse") if leg.way == "forward" else ("z", "inverse", "forward")
    reason = slips.of_round_trip(leg.start, leg.out, leg.result[2])
    return (
        f"{names[0]} = {slips.show(leg.start[i])} comes back from {names[1]} and {names[2]} as "
        f"{slips.show(leg.result[2][i])}{reason}"
    )


def _round_trip_x(t):
    return _round_trip(t.there) if t.exam.inverse else None


def _round_trip_z(t):
    return _round_trip(t.back) if t.exam.inverse else None


def _inverse_gradient(t):
    """Where inverse carries a gradient, as rsample needs, it must be that of the inverse map."""
    if not (t.exam.inverse and t.exam.inverse_gradient and t.precise) or t.there.jacobian is None:
        return None
    backward = _jacobian(t.f, "inverse", t.there.out, t.context)
    if backward is None:
        return None
    product = backward @ t.there.jacobian
    condition = torch.linalg.cond(t.there.jacobian.nan_to_num())
    error = _size(product - torch.eye(product.shape[-1]).to(product))
    allowed = 1e-6 + 1e3 * (t.there.rounding[2] + t.eps * condition)
    bad = t.there.judged & ~(error <= allowed)
    if not bad.any():
        return None
    i = int(bad.nonzero()[0])
    return (
        f"at z = {slips.show(t.there.out[i])} autograd's dx/dz times dz/dx is not the identity (off by {error[i]:.3g}): "
        "part of inverse is detached, or its solver is differentiated wrongly"
    )


def _gradients(f, way, points, context):
    """The value, log_det, the gradient of their sum in the points, and in all parameters end to end."""
    leaf = points.detach().clone().requires_grad_()
    out, log_det = _pair(f, way, leaf.clone(), context)
    total = out.sum() + log_det.sum()
    if not total.requires_grad:
        return out, log_det, torch.zeros_like(leaf), leaf.new_zeros(1)
    parameters = [p for p in _parameters(f) if p.requires_grad]
    of_points, *of_parameters = _gradient(total, [leaf, *parameters])
    return out, log_det, of_points, torch.cat([leaf.new_zeros(1), *(g.flatten() for g in of_parameters)])


def _finite_gradients(t):
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


def _extreme(t):
    """Parameters as given. Float64 must be finite, unless points overflow at sizes above 10; and float32
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


def _corners(t, constraint, sizes):
    """All coordinates of one size: positive, negative, and by turns."""
    signs = torch.ones(3, *t.exam.event, dtype=torch.float64)
    signs[1] = -1
    signs.flatten(1)[2, ::2] = -1
    points = torch.cat([_lay(constraint, size * signs) for size in sizes]).to(t.dtype)
    return points, None if t.context is None else t.context[torch.arange(len(points)) % POINTS]


def _all_finite(t, way, constraint):
    """The quick answer, for all sizes in one batch."""
    parts = _gradients(t.given, way, *_corners(t, constraint, t.exam.extremes))
    return all(part.isfinite().all() for part in parts)


def _extreme_of_size(t, way, constraint, size):
    points, context = _corners(t, constraint, [size])
    got = truth = _gradients(t.given, way, points, context)
    if t.widens and not t.precise:
        wide = _cast(copy.deepcopy(t.given), dtype=torch.float64)
        truth = _gradients(wide, way, points.double(), t.widen(context))
    names = ("the value", "log_det", "the gradient", "the gradient in the parameters")
    for name, part, wanted in zip(names, got, truth, strict=True):
        needed = wanted.isfinite() & (wanted.abs() < 1e-8 * torch.finfo(t.dtype).max)
        if t.precise or not t.widens:
            needed = torch.full_like(needed, size <= 10 or bool(truth[0].isfinite().all()))
        bad = needed & ~part.isfinite()
        if bad.any():
            return f"{way} at coordinates of size {size:g}: {name} is {slips.show(part[bad])}{slips.WHERE}"
    return None


def _state(t):
    """A second copy that loads the state of the first must become the same map."""
    if not (t.first and isinstance(t.f, nn.Module) and t.precise):
        return None
    first, second = (_cast(_fresh(t.source), dtype=t.dtype) for _ in range(2))
    start = 2 * t.x[:32] if _is_real(getattr(t.f, "domain", REAL)) else t.x[:32]
    context = None if t.context is None else t.context[:32]
    with torch.no_grad():
        _pair(first, "forward", start.clone(), context)
        try:
            second.load_state_dict(first.state_dict())
        except RuntimeError as error:
            return f"the state_dict of one copy cannot be loaded into another: {error}"
        for training in (first.training, False):
            a, b = (
                _pair(
                    g.train(training),
                    "forward",
                    t.x[32:].clone(),
                    None if context is None else t.context[32:],
                )
                for g in (first, second)
            )
            if not all(torch.allclose(p, q, equal_nan=True) for p, q in zip(a, b, strict=True)):
                return (
                    "a copy that loads the saved state is another map: what it keeps (a flag, a permutation, "
                    "statistics) must be a buffer or a parameter, not a plain attribute"
                )
    return None


def _integral(t):
    exam = t.exam
    wanted = exam.integrate
    if wanted is None:
        wanted = exam.inverse and exam.event in ((1,), (2,)) and _is_real(getattr(t.f, "codomain", REAL))
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
def _mass(f, dim, context):
    """The integral over the preimage of [-6, 6]^D, its standard error, and how many points met the mass.

    Two random points in each cell of a grid: without bias, however the density jumps. The grid's lines are
    even and at quantiles of the preimage.
    """

    def log_density(points):
        c = None if context is None else context.expand(len(points), -1)
        z, log_det = _pair(f, "forward", points, c)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    line = torch.linspace(-6, 6, 401 if dim == 1 else 41, dtype=torch.float64)
    z = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
    x = _pair(f, "inverse", z, None if context is None else context.expand(len(z), -1))[0]
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


LAWS = {
    "runs": _runs,
    "shape": _shapes,
    "dtype": _dtypes,
    "device": _devices,
    "input untouched": _untouched,
    "same every time": _deterministic,
    "finite values": _finite,
    "batch independence": _rows_independent,
    "leading dimensions": _leading,
    "log-det of forward": _log_det_forward,
    "one to one": _one_to_one,
    "codomain": _in_codomain,
    "round trip": _round_trip_x,
    "log-det of inverse": _log_det_inverse,
    "round trip from z": _round_trip_z,
    "gradient of inverse": _inverse_gradient,
    "finite gradients": _finite_gradients,
    "extreme inputs": _extreme,
    "saved state": _state,
    "integral": _integral,
}
QUICK = ("finite values", "log-det of forward", "one to one")
FOUNDATIONS = ("runs", "shape", "dtype")
