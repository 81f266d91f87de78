"""What the laws are tried on: copies of a map with its parameters moved, and points for them."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowkit.laws.calls import Raised, call, cast, fresh, jacobian_of, pair, parameters_of, randomize
from flowkit.laws.exam import POINTS, QUICK_DRAWS, REAL, SPREAD, Exam, lay
from flowkit.laws.walks import Trial, broken_values

Points = tuple[Tensor, Tensor, Tensor | None]  # of the domain, of the codomain, and their context


def trials(f: object, exam: Exam) -> Iterator[Trial]:
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


def _prepared(f: object, exam: Exam) -> tuple[Any, Points]:
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


def _trial(
    f: object,
    moved: object,
    given: object,
    exam: Exam,
    dtype: torch.dtype,
    std: float,
    points: Points,
    first: bool = False,
    quick: bool = False,
) -> Trial:
    moved, given = (cast(copy.deepcopy(g), dtype=dtype) for g in (moved, given))
    x, z = (p.to(dtype) for p in points[:2])
    context = points[2]
    if context is not None and context.is_floating_point():
        context = context.to(dtype)
    return Trial(f, moved, given, exam, dtype, std, first, quick, x, z, context)


def _draw_context(context: int | Tensor | None) -> Tensor | None:
    if isinstance(context, int):
        return torch.randn(POINTS, context, dtype=torch.float64)
    return None if context is None else context[torch.randint(len(context), (POINTS,))]


def _moved(
    given: Any, exam: Exam, x: Tensor, z: Tensor, context: Tensor | None, std: float, spread: float = 1.0
) -> tuple[Any, float]:
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


def _is_tame(f: object, exam: Exam, x: Tensor, z: Tensor, context: Tensor | None) -> bool:
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
