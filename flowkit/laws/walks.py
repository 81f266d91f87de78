"""One trial of a map: its points taken one way and back again, and what rounding may do to them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flowkit.laws.calls import cast, jacobian_of, overflows, pair, parameters_of, size_of
from flowkit.laws.exam import POINTS, SMALL, SPREAD, TOLERANCES, Exam


def broken_values(f: object, way: str, start: Tensor, out: Tensor, context: Tensor | None) -> Tensor:
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

    def widen(self, values: Any) -> Any:
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

    def shake(self, values: Tensor) -> Tensor:
        return values * (1 + 16 * self.eps * torch.empty_like(values).uniform_(-1, 1))


@dataclass
class Leg:
    """The 64 points taken one way and back again, with the Jacobian and what rounding may do to each."""

    trial: Trial
    way: str
    other: str
    start: Tensor

    @cached_property
    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return self._walk(self.trial.f, lambda values: values)

    def _walk(self, f: object, shake: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Out and back: f, if shaken, is so on the way out only."""
        t = self.trial
        out, log_det = pair(f, self.way, shake(self.start.clone()), t.context)
        if not t.exam.inverse:
            return out, log_det, self.start, -log_det
        return out, log_det, *pair(t.f, self.other, shake(out.clone()), t.context)

    @property
    def out(self) -> Tensor:
        return self.result[0]

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """x and z of each point."""
        return (self.start, self.out) if self.way == "forward" else (self.out, self.start)

    @cached_property
    def jacobian(self) -> Tensor | None:
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
    def log_det(self) -> tuple[Tensor, Tensor]:
        """What the log-det of this way must be: (N,) sign and log abs det by slogdet."""
        sign, log_det = torch.linalg.slogdet(self.jacobian)
        return sign, log_det if self.way == "forward" else -log_det

    @cached_property
    def truth_moved_by_rounding(self) -> Tensor:
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
    def moved_by_rounding(self) -> list[Tensor]:
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
    def rounding(self) -> tuple[Tensor, Tensor, Tensor]:
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
    def judged(self) -> Tensor:
        """Where at least one digit survives rounding."""
        return 16 * self.rounding[2] < 0.05

    def slack(self, part: int) -> Tensor:
        """The allowance for part 0 to 3 of the walk: out, log_det, back, its log_det."""
        t = self.trial
        of_x, of_z, of_log_det = self.rounding
        of_out, of_back = (of_z, of_x) if self.way == "forward" else (of_x, of_z)
        condition = (of_out, of_log_det, of_back, of_log_det)[part]
        size = size_of(self.result[part].reshape(POINTS, -1)).nan_to_num(0, 0, 0)
        changes = self.moved_by_rounding
        # the Jacobian is taken at a rounded x, so a log-det may differ as that of the way back moves
        moved = torch.maximum(changes[1], changes[3]) if part == 1 else changes[part]
        return t.tolerance * (1 + size) + 16 * condition + 4 * moved

    def worst(self, error: Tensor, part: int) -> int | None:
        """The index of the point that is judged and most in the wrong, or None."""
        slack = self.slack(part)
        bad = self.judged & ~(error <= slack)
        if not bad.any():
            return None
        return int((error / slack).nan_to_num(torch.inf).masked_fill(~bad, -1).argmax())
