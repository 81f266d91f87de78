"""What the laws are tried on: copies of a map with its parameters moved, points, and what came back."""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from flowkit.laws.calls import (
    Raised,
    call,
    cast,
    fresh,
    jacobian_of,
    overflows,
    pair,
    parameters_of,
    randomize,
    size_of,
)

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
EXTREMES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
POINTS = 64
SMALL = 3.0  # what overflows at points of this size or more is let be
QUICK_DRAWS = 12  # further draws of the parameters, for the laws that break at few of them
SPREAD = 8.0
REAL = constraints.real


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


def is_real(constraint):
    return getattr(constraint, "base_constraint", constraint) is REAL


def lay(constraint, reals):
    """Real numbers laid into the domain."""
    if is_real(constraint):
        return reals
    try:
        return biject_to(constraint)(reals.clamp(-8, 8))
    except NotImplementedError:
        raise ValueError(f"torch.distributions.biject_to cannot draw points from {constraint}") from None


def trials(f, exam: Exam) -> Iterator["Trial"]:
    """The draws of the parameters, each at every dtype; then quick ones, each tensor at its own scale."""
    for draw in range(exam.draws):
        given, points = _prepared(f, exam)
        if draw and not parameters_of(given):
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
    given = cast(fresh(f), dtype=torch.float64)
    sizes = torch.tensor([1.0, 0.3, 1.0, 5.0], dtype=torch.float64).repeat(POINTS // 4)
    sizes = sizes.reshape(-1, *[1] * len(exam.event))
    x, z = (
        lay(getattr(given, name, REAL), sizes * torch.randn(POINTS, *exam.event, dtype=torch.float64))
        for name in ("domain", "codomain")
    )
    context = _draw_context(exam.context)
    with contextlib.suppress(Raised), torch.no_grad():
        call(given, "forward", x.clone(), context)  # what sets itself up at its first batch does so now
    return given, (x, z, context)


def _trial(f, moved, given, exam, dtype, std, points, first=False, quick=False):
    copies = [cast(copy.deepcopy(g), dtype=dtype) for g in (moved, given)]
    points = [p.to(dtype) if torch.is_tensor(p) and p.is_floating_point() else p for p in points]
    return Trial(f, *copies, exam, dtype, std, first, quick, *points)


def _draw_context(context):
    if isinstance(context, int):
        return torch.randn(POINTS, context, dtype=torch.float64)
    return None if context is None else context[torch.randint(len(context), (POINTS,))]


def _moved(given, exam, x, z, context, std, spread=1.0):
    """A copy with noise on its parameters: as much as is asked, halved while float64 cannot bear it."""
    for scale in [std / 2**k for k in range(8)] if std and parameters_of(given) else []:
        f = copy.deepcopy(given)
        randomize(f, scale, spread)
        try:
            if _is_tame(f, exam, x, z, context):
                return f, scale
        except Raised:
            return f, scale  # the laws will say so
    return given, 0.0


def _is_tame(f, exam, x, z, context):
    """Whether nothing overflows and the Jacobian can be inverted in float64, at half the points or more."""
    jacobian = jacobian_of(f, "forward", x, context)
    ways = [("forward", x), ("inverse", z)] if exam.inverse else [("forward", x)]
    for way, points in ways:
        if broken_values(f, way, points, pair(f, way, points.clone(), context)[0], context).any():
            return False
    if jacobian is None:
        return True
    condition = torch.linalg.cond(jacobian.nan_to_num()).masked_fill(
        ~jacobian.isfinite().all(-1).all(-1), math.inf
    )
    return bool((condition < 1e8).double().mean() >= 0.5)


def broken_values(f, way, start, out, context):
    """Where the result is not finite, unless a step overflows on the way and the point is not small."""
    bad = ~out.flatten(1).isfinite().all(1)
    large = bad & (size_of(start) >= SMALL)
    if large.any() and overflows(f, way, start[large], None if context is None else context[large]):
        return bad & ~large
    return bad


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
        return cast(copy.deepcopy(self.f), dtype=torch.float64) if self.widens else self.f

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
                    results.append((leg, shape, *pair(self.f, leg.way, points, c)))
        return results

    @cached_property
    def shaken(self) -> list:
        """Copies of f whose parameters are moved by some rounding errors."""
        copies = [copy.deepcopy(self.f) for _ in range(2)]
        with torch.no_grad():
            for parameter in [p for g in copies for p in parameters_of(g)]:
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
        out, log_det = pair(f, self.way, shake(self.start.clone()), t.context)
        if not t.exam.inverse:
            return out, log_det, self.start, -log_det
        return out, log_det, *pair(t.f, self.other, shake(out.clone()), t.context)

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
            out = pair(t.twin, self.way, x.clone(), context)[0]
        x, z = (x, out) if self.way == "forward" else (out, z)
        jacobian = jacobian_of(t.twin, "forward", x, context)
        if jacobian is None and t.exam.inverse:
            jacobian = jacobian_of(t.twin, "inverse", z, context)
            jacobian = None if jacobian is None else torch.linalg.inv_ex(jacobian)[0]
        return jacobian

    @cached_property
    def log_det(self):
        """What the log-det of this way must be: (N,) sign and log abs det by slogdet."""
        sign, log_det = torch.linalg.slogdet(self.jacobian)
        return sign, log_det if self.way == "forward" else -log_det

    @cached_property
    def truth_moved_by_rounding(self):
        """The change of slogdet when x and the parameters are shaken: long products lose digits too. (N,)"""
        t = self.trial
        sign = 1 if self.way == "forward" else -1
        change = torch.zeros(POINTS, dtype=torch.float64)
        for f in t.shaken:
            jacobian = jacobian_of(f, "forward", t.shake(self.sides[0]), t.context)
            if jacobian is not None:
                moved = torch.linalg.slogdet(jacobian)[1] - sign * self.log_det[1]
                change = torch.maximum(change, moved.abs().double())
        return change.nan_to_num(0, 0, 0)

    @cached_property
    def moved_by_rounding(self):
        """The change in out, log_det, back and its log_det, and slogdet, when all is shaken: each (N,)."""
        t = self.trial
        changes = []
        for f in t.shaken:
            with torch.no_grad():
                walks = self._walk(f, t.shake)
            changes.append(
                [size_of((a - b).reshape(POINTS, -1)) for a, b in zip(walks, self.result, strict=True)]
            )
        return [torch.stack(both).amax(0).nan_to_num(0, 0, 0) for both in zip(*changes, strict=True)]

    @cached_property
    def rounding(self):
        """The error of x, of z (absolute) and of log-dets that one rounding makes, by the condition of J."""
        x, z = map(size_of, self.sides)
        if self.jacobian is None:
            return torch.zeros_like(x), torch.zeros_like(z), torch.zeros_like(x)
        singular = torch.linalg.svdvals(self.jacobian.nan_to_num())
        known = singular[:, -1] > 1e3 * torch.finfo(singular.dtype).eps * singular[:, 0]
        of_x = self.trial.eps * (1 + z) / torch.where(known, singular[:, -1], 0)
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
        size = size_of(self.result[part].reshape(POINTS, -1)).nan_to_num(0, 0, 0)
        moved = self.moved_by_rounding
        # the Jacobian is taken at a rounded x, so a log-det may differ as that of the way back moves
        moved = torch.maximum(moved[1], moved[3]) if part == 1 else moved[part]
        return t.tolerance * (1 + size) + 16 * condition + 4 * moved

    def worst(self, error, part):
        """The index of the point that is judged and most in the wrong, or None."""
        slack = self.slack(part)
        bad = self.judged & ~(error <= slack)
        if not bad.any():
            return None
        return int((error / slack).nan_to_num(torch.inf).masked_fill(~bad, -1).argmax())
