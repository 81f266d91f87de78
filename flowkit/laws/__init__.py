"""The laws of a bijection, checked on anything that claims to be one.

`check_bijection` is the one law checker of the course: students run it on their flows, the grader on
answers, and the tests on `flowkit`. Round trip plus "log-dets cancel" is the field's usual test, and it
is too weak: a log-det wrong in both directions passes. Here the log-det is held against the Jacobian
that autograd finds, away from initialization.
"""

from collections.abc import Callable
from typing import Any

import torch

from flowkit.laws import calculus, form, numerics
from flowkit.laws.calls import Raised
from flowkit.laws.exam import Exam
from flowkit.laws.trials import trials
from flowkit.laws.walks import Trial


class LawBroken(AssertionError):
    """A map that claims to be a bijection breaks a law.

    law: its short name, a key of `LAWS`; message: what came back, at which dtype and shape, and the likely
    reason. When the map raised, its own exception is the `__cause__`.
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(f"{law}: {message}")
        self.law = law
        self.message = message


def check_bijection(f: object, dim: int | tuple[int, ...], **options: Any) -> None:
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
    randomize   0.5: noise of this standard deviation is added to all parameters; twice and four times as
                much in the second and third draw. A module with a method `randomize_(std)` moves itself.
                While f overflows, or float64 cannot invert its Jacobian, the noise is halved, down to none
    draws       3 draws of the parameters for all laws; 12 more (2 when D > 8), each tensor moved by its
                own scale, for finite values, the log-det and the sign of the determinant. Where D <= 8, they
                also walk 10 steps towards small log-dets, where a map that can fold does
    integrate   whether the density with a standard normal base must integrate to one over data space; by
                default when D is 1 or 2, f has an inverse, and the codomain is real
    inverse     True; False for a map whose inverse is not wanted
    inverse_gradient    True: where the result of inverse carries a gradient, it must be right. False for a
                numerical inverse that is not meant to be differentiated
    extremes    the sizes of the coordinates at which values and gradients must be finite, for the parameters
                as given: (0, 0.5, 1, 2, 3, 5, 10, 30, 100). From 3 on, what overflows float64 is let be; and
                float32 must be finite wherever float64's result fits into it. () for none
    tolerances  {torch.float64: 1e-10, torch.float32: 1e-4}

    What is compared may differ by tolerance * (1 + size) plus what rounding does to a right implementation,
    point by point: 16 eps (1 + abs z) / s_min for x and 16 eps (1 + abs x) s_max for z, their sum relative to
    the sizes for log-dets, where s_min and s_max are the extreme singular values of the Jacobian; and 4
    times the change observed when inputs, parameters and the value handed to the way back are moved by 16
    eps, that of the Jacobian's slogdet too. Float32 log-dets are held against the float64 Jacobian. Points
    where rounding leaves less than a digit or so are not judged; in float64 a quarter of them must be. So
    right but ill-conditioned flows pass. Draws are draws: what breaks at rare parameters may be missed.

    Cost: some 600 passes and 100 D backward passes on 64 points; 20 ms without parameters, 0.1 to 0.3 s for a
    small flow with them, on one core.
    """
    for broken in _examine(f, Exam(dim, **options)).values():
        if broken is not None:
            raise broken


def laws(f: object, dim: int | tuple[int, ...], **options: Any) -> list[tuple[str, str | None]]:
    """The verdict of every law, in order: (law, None) when it holds, (law, message) when it is broken.

    Takes what `check_bijection` takes. Where f breaks a law that others stand on, such as its shape, these
    others are reported as not tried.
    """
    verdicts = _examine(f, Exam(dim, **options))
    return [(law, None if broken is None else broken.message) for law, broken in verdicts.items()]


def _examine(f: object, exam: Exam) -> dict[str, LawBroken | None]:
    """The first breach of each law over all draws and dtypes; None for the laws that hold."""
    broken: dict[str, LawBroken | None] = dict.fromkeys(LAWS)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(exam.seed)
        try:
            for trial in trials(f, exam):
                for law in QUICK if trial.quick else LAWS:
                    broken[law] = broken[law] or _verdict(law, LAWS[law], trial)
                    if broken[law] is not None and law in FOUNDATIONS:
                        return _stop(broken, law)
        except Raised as raised:
            first = next(iter(LAWS))
            verdict = broken[first] = LawBroken(first, str(raised))
            verdict.__cause__ = raised.__cause__
            return _stop(broken, first)
    return broken


def _stop(broken: dict[str, LawBroken | None], failed: str) -> dict[str, LawBroken | None]:
    names = list(LAWS)
    untried = names[names.index(failed) + 1 :]
    return broken | {law: LawBroken(law, f"not tried before '{failed}' holds") for law in untried}


def _verdict(law: str, judge: Callable[[Trial], str | None], trial: Trial) -> LawBroken | None:
    try:
        complaint = judge(trial)
        cause = None
    except Raised as raised:
        complaint, cause = str(raised), raised.__cause__
    if complaint is None:
        return None
    verdict = LawBroken(law, f"in {trial.where}: {complaint}")
    verdict.__cause__ = cause
    return verdict


LAWS: dict[str, Callable[[Trial], str | None]] = {
    "runs": form.runs,
    "shape": form.shapes,
    "dtype": form.dtypes,
    "device": form.devices,
    "input untouched": form.untouched,
    "same every time": form.deterministic,
    "finite values": form.finite,
    "batch independence": form.rows_independent,
    "leading dimensions": form.leading,
    "log-det of forward": calculus.log_det_forward,
    "one to one": calculus.one_to_one,
    "codomain": calculus.in_codomain,
    "round trip": calculus.round_trip_x,
    "log-det of inverse": calculus.log_det_inverse,
    "round trip from z": calculus.round_trip_z,
    "gradient of inverse": calculus.inverse_gradient,
    "finite gradients": numerics.finite_gradients,
    "extreme inputs": numerics.extreme,
    "saved state": form.state,
    "integral": calculus.integral,
}
QUICK = ("finite values", "log-det of forward", "one to one")
FOUNDATIONS = ("runs", "shape", "dtype")
