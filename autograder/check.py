"""What a test cell calls. Its outcomes: not attempted, error in your code, not right yet, right.

    from autograder import check
    check.values("coupling.affine_log_det", cases, reference=brute_force)

The student's object is looked up by name among the caller's globals, and is only ever called. Right is
displayed; the others raise an AssertionError whose text is the message. In a notebook its traceback is the
message too: no line of the test is shown.
"""

import builtins
import contextlib
import dis
import hashlib
import inspect
import linecache
import os
import re
import sys
import textwrap
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any, NamedTuple

import numpy as np

from autograder import answers, diagnosis, draws
from autograder.compare import compare, copied, describe_type, same_arrays, tolerance
from autograder.diagnosis import Finding, Trial

SEED = "AUTOGRADER_SEED"  # set while grading, a value for each student
HIDDEN = diagnosis.HIDDEN  # not empty while a hidden test runs: messages then show no values
WIDTH = 88  # of messages: notebooks break the lines of an error within words

_passed: dict[str, Any] = {}
_failures: Counter[tuple[str, str]] = Counter()


class Outcome(AssertionError):
    """An answer that is not right. exercise, kind (which mistake) and message say why, as data."""

    outcome = "not right yet"
    symbol = "✗"

    def __init__(self, exercise: str, kind: str, message: str):
        self.exercise = exercise
        self.kind = kind
        self.message = message
        super().__init__(f"{self.headline}\n{message}")

    @property
    def headline(self) -> str:
        return f"{self.symbol} {self.outcome.capitalize()}: {_name(self.exercise)}"

    def _render_traceback_(self) -> list[str]:
        """What a notebook prints: the message, and no line of the test."""
        lines = [textwrap.fill(line, WIDTH, break_long_words=False) for line in self.message.split("\n")]
        return [f"\x1b[1m{self.headline}\x1b[0m", *lines]


class NotAttempted(Outcome):
    outcome = "not attempted"
    symbol = "○"


class ErrorInYourCode(Outcome):
    outcome = "error in your code"
    symbol = "!"


class NotRight(Outcome):
    pass


class StudentError(Exception):
    """An exception that was raised in the student's code where this process cannot see it.

    kind: the name of the exception's type; line, text: the student's own line. Whatever stands in for the
    student's function raises it, and the outcome is told as if the exception had been raised here. While a
    hidden test runs it has no message, and no name that a student has made: both could tell its inputs.
    """

    def __init__(self, kind: str, message: str, line: int | None = None, text: str = ""):
        if os.environ.get(HIDDEN):
            kind, message = _usual(kind), ""
        super().__init__(message)
        self.kind, self.line, self.text = kind, line, text


# What test cells call.


def values(
    exercise: str,
    cases: Iterable,
    reference: Callable,
    rtol: float | None = None,
    atol: float | None = None,
    *,
    use: Callable | None = None,
    hidden: bool = True,
) -> None:
    """On each case the student's function returns what the reference returns: values, shape, dtype.

    Where the reference's result asks for gradients, as it does when an input does, so must the student's.

    cases      tuples of arguments, or dicts of keyword arguments; everybody gets copies of their own
    reference  a function of the same arguments; tuples, lists and dicts are compared part by part
    rtol, atol 1e-6 and 1e-8 unless given; 1e-4 and 1e-5 where float32 takes part, 2e-2 for 16 bits
    use        use(student_object, *args) where the answer is a class, or is used otherwise than by one call
    hidden     False where the exercise has no hidden tests, for what is said on success
    Raises an Outcome unless all are right. A case that is no tuple and no dict is the author's TypeError.
    """
    answer = _find(exercise, sys._getframe(1).f_globals)
    trials = _trials(cases, reference)
    with _same_draws() as rewind:
        called = _announce(answer, trials, use, rewind)
        _expect(answer, trials, reference, rewind)  # first: the student's process may be at work meanwhile
        for number, trial in enumerate(trials):
            became = next(called, None)
            error = _run(answer, trial, use, rewind) if became is None else _noted(trial, became)
            if error is not None:
                _raise_if_wrong(exercise, trials[:number], use, rewind)
                _fail(exercise, *_outcome_of_error(exercise, error, answer, trial))
            trial.returned = copied(trial.returned)  # the student may hand out one buffer again and again
            inputs = [*trial.args, *trial.kwargs.values(), trial.returned, trial.expected]
            trial.within = tolerance(*inputs, rtol=rtol, atol=atol)
        _raise_if_wrong(exercise, trials, use, rewind)
    _succeed(exercise, answer.found, len(trials), hidden)


def that(
    exercise: str,
    judge: Callable[..., str | None],
    cases: Iterable = ((),),
    *,
    use: Callable | None = None,
    hidden: bool = True,
) -> None:
    """On each case, judge(returned, *args) finds what the student's function returned to be right.

    judge: None when it is right, else a sentence for the student. cases, use and hidden as in `values`. Of a
    hidden test's sentence the student sees what stands in the judge's source, and "…" for what it fills in.
    """
    answer = _find(exercise, sys._getframe(1).f_globals)
    trials = _trials(cases, judge, skip=1)
    with _same_draws() as rewind:
        for number, trial in enumerate(trials, 1):
            error = _run(answer, trial, use, rewind)
            sentence = None
            if error is None:
                sentence, error = _judged(judge, trial, answer)
            if error is not None:
                _fail(exercise, *_outcome_of_error(exercise, error, answer, trial))
            if sentence is not None or trial.changed:
                finding = _finding_of_judge(exercise, trials[:number], sentence, judge, use, rewind)
                _fail(exercise, NotRight, finding)
    _succeed(exercise, answer.found, len(trials), hidden)


def bijection(
    exercise: str, make: Callable, dim: int | tuple[int, ...], *, hidden: bool = True, **options: Any
) -> None:
    """The student's bijection, make(student_object), keeps every law of `flowkit.check_bijection`.

    dim and options are those of `check_bijection`; hidden as in `values`. The broken law is told in words. A
    wrong answer of the bank is recognised when it maps points to the same, or by when(bijection). The laws
    copy, cast and differentiate the bijection: so this is for notebooks, and for tests that are graded in the
    student's process. Raises TypeError where the test runs apart from it.
    """
    from flowkit.laws import LAWS, LawBroken, check_bijection

    answer = _find(exercise, sys._getframe(1).f_globals)
    if hasattr(answer.found, "_announce_"):
        raise TypeError("check.bijection needs the bijection itself. Grade it by check.values or check.that.")
    try:
        with _same_draws():
            _quietly(check_bijection, make(answer.found), dim, **options)
    except LawBroken as broken:
        if broken.__cause__ is not None:
            _fail(exercise, *_outcome_of_error(exercise, broken.__cause__, answer, Trial([], (), {})))
        finding = _named_bijection(exercise, answer.found, make, dim, options.get("context"))
        _fail(exercise, NotRight, finding or _broken_law(broken))
    except (Exception, SystemExit) as error:
        _fail(exercise, *_outcome_of_error(exercise, error, answer, Trial([], (), {})))
    _succeed(exercise, answer.found, len(LAWS), hidden)


def without(exercise: str, *forbidden: str) -> None:
    """The student's cell does without these: "torch.linalg", "numpy.linalg.det", or ".det" for methods.

    It says so only when the rule is broken; let it stand before the check that ends the cell. The source is
    read as `rules.breach` does. Raises NotRight.
    """
    from autograder import rules

    answer = _find(exercise, sys._getframe(1).f_globals)
    source, above = _written(answer)
    found = rules.breach(source, forbidden, above)
    if found:
        _, text, name = found
        message = (
            f"{_name(exercise)} is to do without {rules.in_words(forbidden)}, and your cell uses {name}:\n"
            f"{text}\nWhich formula gives the same from what you have already?"
        )
        _fail(exercise, NotRight, diagnosis.fixed("rule", message))


def rng(exercise: str) -> np.random.Generator:
    """A generator for hidden inputs: while grading, one for each student and exercise; elsewhere the same."""
    text = f"{os.environ.get(SEED, '0')}\n{exercise}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def yours(exercise: str, otherwise: Callable) -> Callable:
    """The student's function, if it has passed in this kernel and is still the same; else `otherwise`.

    In a cell it then says so; inside a function, which an interactive may call with every move, it does not.
    """
    caller, name = sys._getframe(1), _name(exercise)
    found = caller.f_globals.get(name)
    if found is not None and _passed.get(exercise) is found:
        return found
    if caller.f_locals is caller.f_globals:
        print(
            f"{name} has not passed its check since the kernel started: what you see here is made without it."
        )
    return otherwise


def forget() -> None:
    """Forgets what has passed and failed, as a new kernel would."""
    _passed.clear()
    _failures.clear()


# Finding the student's object, and calling it.


class _Answer:
    """The student's object, and the namespace that it lives in, by which their own lines are known."""

    def __init__(self, exercise: str, found: Any, namespace: dict, test_file: str):
        self.exercise, self.found, self.namespace, self.test_file = exercise, found, namespace, test_file


def _written(answer: _Answer) -> tuple[str, str]:
    """The source of the cell that defines the object, and of the cells above it as far as they are known."""
    cells = getattr(type(answer.found), "_cells_", None)  # a stand-in: the grader has what was handed in
    if cells is not None:
        sources = cells.fget(answer.found)
        return sources.get(_name(answer.exercise), ""), "\n".join(sources.values())
    code = _code(answer.found)
    lines = linecache.getlines(code.co_filename) if code else []
    modules = {n: v.__name__ for n, v in answer.namespace.items() if inspect.ismodule(v)}
    return "".join(lines), "\n".join(f"import {module} as {name}" for name, module in modules.items())


def _code(found: Any) -> types.CodeType | None:
    """The code of a function, or of a class's first method; None where there is none."""
    parts = vars(found).values() if inspect.isclass(found) else ()
    return getattr(next(filter(inspect.isfunction, parts), found), "__code__", None)


def _name(exercise: str) -> str:
    return exercise.rpartition(".")[2]


def _find(exercise: str, namespace: dict) -> _Answer:
    """Raises NotAttempted where there is nothing of that name, or an untouched body."""
    name = _name(exercise)
    if name not in namespace:
        _fail(exercise, NotAttempted, diagnosis.fixed("missing", missing(name)))
    found = namespace[name]
    if found is None or found is Ellipsis or _has_no_body(found):
        message = f"{name} is still empty: its body is yours to write."
        _fail(exercise, NotAttempted, diagnosis.fixed("empty", message))
    if isinstance(found, types.FunctionType | type) and (found.__module__ or "").startswith("flowkit."):
        message = f"This {name} is flowkit's own. It is not there when work is graded: yours is asked for."
        _fail(exercise, NotRight, diagnosis.fixed("library", message))
    if not callable(found):
        ask = "and should be a function. Is the name used twice?"
        messages, hidden = (f"{name} is {describe_type(found)} {ask}",), (f"{name} is no function {ask}",)
        _fail(exercise, NotRight, Finding("not_callable", messages, hidden))
    return _Answer(exercise, found, namespace, sys._getframe(2).f_code.co_filename)


def missing(name: str) -> str:
    """What a check says where nothing has the answer's name."""
    return (
        f"There is no {name} yet. Run the cell above first; if it ended in an error, or if you renamed"
        f" {name}, mend that."
    )


def _has_no_body(found: Any) -> bool:
    """Whether a plain function does nothing at all: `...`, `pass`, or a docstring. All else is opaque."""
    if not isinstance(found, types.FunctionType) or found.__code__.co_names:  # to ask for names is quick
        return False
    does_nothing = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "CACHE"}
    steps = list(dis.get_instructions(found))
    constants = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return {step.opname for step in steps} <= does_nothing and constants in ([None], [Ellipsis])


def _trials(cases: Iterable, described_by: Callable, skip: int = 0) -> list[Trial]:
    names = _parameters(described_by)[skip:]
    return [Trial(names, *_arguments(case)) for case in cases]


def _arguments(case: Any) -> tuple[tuple, dict]:
    if not isinstance(case, (tuple, dict)):
        raise TypeError(
            f"A case is a tuple of arguments, or a dict of keyword arguments, not {describe_type(case)}."
        )
    return ((), case) if isinstance(case, dict) else (case, {})


def _parameters(function: Callable) -> list[str]:
    """The names of our own function's parameters, for describing inputs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    star = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    return names + ([f"{star}[{i}]" for i in range(20)] if star else [])


class Called(NamedTuple):
    """What became of a call that was made in another process. moved: the arguments that it changed."""

    returned: Any
    error: BaseException | None
    moved: list[int | str]
    warned: list[tuple[type[Warning], str]]


def _announce(
    answer: _Answer, trials: list[Trial], use: Callable | None, rewind: Callable
) -> Iterator[Called]:
    """Has a stand-in's original called on all trials at once; gives what becomes of the first few, or all."""
    announce = getattr(answer.found, "_announce_", None)
    if use is not None or announce is None:
        return iter(())
    rewind()
    return announce([(trial.args, trial.kwargs) for trial in trials])


def _expect(answer: _Answer, trials: list[Trial], reference: Callable, rewind: Callable) -> None:
    """Asks the reference on every trial. A stand-in may keep what it gave on these trials: a list, to be
    filled while it is empty. What was drawn for is not kept.
    """
    kept = getattr(answer.found, "_kept_", None)
    if kept:
        for trial, expected in zip(trials, kept, strict=True):
            trial.expected = copied(expected)
        return
    drew = False
    rewind()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trial in trials:
            trial.expected = reference(*copied(trial.args), **copied(trial.kwargs))
            drew |= rewind()
    if kept is not None and not drew:
        kept += copied([trial.expected for trial in trials])


def _noted(trial: Trial, called: Called) -> BaseException | None:
    """As _run, for a call that was made already."""
    trial.returned = called.returned
    trial.warnings = [f"{category.__name__}: {text}" for category, text in called.warned]
    names = dict(enumerate(_names(trial))) | {name: name for name in trial.kwargs}
    trial.changed = [names[place] for place in called.moved if place in names]
    return called.error


def _run(answer: _Answer, trial: Trial, use: Callable | None, rewind: Callable) -> BaseException | None:
    """Calls the student's object on copies of the inputs, and notes what becomes of them.

    Returns what it raises. Warnings are kept for the message: on stderr they would cost points in nbgrader.
    """
    args, kwargs = copied(trial.args), copied(trial.kwargs)
    rewind()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trial.returned = _call(answer.found, use, args, kwargs)
        except (Exception, SystemExit) as error:  # exit() in an answer is a mistake like others
            return error
    trial.warnings = [f"{w.category.__name__}: {w.message}" for w in caught]
    trial.changed = _changed(trial, args, kwargs)
    return None


def _call(found: Any, use: Callable | None, args: tuple, kwargs: dict) -> Any:
    return found(*args, **kwargs) if use is None else use(found, *args, **kwargs)


def _changed(trial: Trial, args: tuple, kwargs: dict) -> list[str]:
    before = [*zip(_names(trial), trial.args, args, strict=False)]
    before += [(name, trial.kwargs[name], kwargs[name]) for name in kwargs]
    return [name for name, old, new in before if not same_arrays(old, new)]


def _names(trial: Trial) -> list[str]:
    """What to call the arguments, in their order."""
    return [*trial.names, *(f"number {i + 1}" for i in range(len(trial.names), len(trial.args)))]


def _quietly(function: Callable, *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@contextlib.contextmanager
def _same_draws():
    """Gives a function that puts the global random states back to where they were, and does so at the end.

    It says whether they had moved. So the student, the reference and the wrong answers draw the same numbers.
    """
    began = draws.snapshot()

    def rewind():
        moved = draws.snapshot() != began
        if moved:  # to look is quicker than to set
            draws.restore(began)
        return moved

    try:
        yield rewind
    finally:
        rewind()


# From what came back to an outcome.


def _raise_if_wrong(exercise: str, trials: list[Trial], use: Callable | None, rewind: Callable) -> None:
    if any(trial.problem or trial.changed for trial in trials):
        finding = diagnosis.explain(_name(exercise), trials, lambda: _named(exercise, trials, use, rewind))
        _fail(exercise, NotRight, finding)


def _named(exercise: str, trials: list[Trial], use: Callable | None, rewind: Callable) -> Finding | None:
    """The first wrong answer of the bank that returns what the student's function did, on every input."""
    for answer in _wrong_answers(exercise):
        if all(_recognised(answer, trial, use, rewind) for trial in trials):
            return diagnosis.fixed(f"named:{answer.name}", *answer.messages)
    return None


def _wrong_answers(exercise: str) -> list[answers.Answer]:
    topic, _, name = exercise.rpartition(".")
    try:
        return answers.bank(topic).wrong(name) if topic else []
    except ImportError:  # the bank needs a library that is not here: then it cannot be asked
        return []


def _broken_law(broken: Exception) -> Finding:
    more = "Call forward and inverse on two or three points of your own, and look at shapes and values."
    first = f"The law '{broken.law}' is broken"
    unseen = f"{first}. flowkit's check_bijection tells more: try it with other dimensions and shapes."
    return Finding(f"law:{broken.law}", (f"{first}, {broken.message}", more), (unseen, more))


def _named_bijection(exercise: str, found: Any, make: Callable, dim: Any, context: Any) -> Finding | None:
    """The first wrong answer of the bank that maps points as the student's bijection does, both ways."""
    with _same_draws() as rewind:
        returned = _probed(found, make, dim, context, rewind)
        for answer in _wrong_answers(exercise):
            try:
                if answer.when is not None:
                    same = _quietly(answer.when, make(found))
                else:
                    probed = _probed(answer.answer, make, dim, context, rewind)
                    same = compare(returned, probed, tolerance(probed)) is None
            except Exception:  # then it is another mistake
                continue
            if same:
                return diagnosis.fixed(f"named:{answer.name}", *answer.messages)
    return None


def _probed(found: Any, make: Callable, dim: Any, context: Any, rewind: Callable) -> dict:
    """What a bijection makes of five points, forward and inverse, away from its initialization."""
    import torch

    rewind()
    f = make(found)
    rewind()
    shape = (dim,) if isinstance(dim, int) else tuple(dim)
    given = {"context": torch.randn(5, context)} if isinstance(context, int) else {}
    with torch.no_grad():
        for parameter in f.parameters() if isinstance(f, torch.nn.Module) else ():
            parameter.add_(0.5 * torch.randn_like(parameter))
        points = torch.rand(5, *shape)
        results = {}
        for way in ("forward", "inverse"):
            with contextlib.suppress(Exception):  # a way that raises has no results to compare
                results[way] = _quietly(getattr(f, way), points.clone(), **given)
    return results


def _recognised(answer: answers.Answer, trial: Trial, use: Callable | None, rewind: Callable) -> bool:
    args, kwargs = copied(trial.args), copied(trial.kwargs)
    try:
        if answer.when is not None:  # a predicate of what came back: of changed inputs it knows nothing
            return not trial.changed and bool(_quietly(answer.when, copied(trial.returned), *args, **kwargs))
        rewind()
        returned = _quietly(_call, answer.answer, use, args, kwargs)
        changes = bool(_changed(trial, args, kwargs))
        return changes == bool(trial.changed) and compare(trial.returned, returned, trial.within) is None
    except Exception:  # a wrong answer may well fail where the student's does not: then it is another mistake
        return False


def _finding_of_judge(
    exercise: str,
    trials: list[Trial],
    sentence: str | None,
    judge: Callable,
    use: Callable | None,
    rewind: Callable,
) -> Finding:
    name = _name(exercise)
    for trial in trials:
        trial.within = tolerance(*trial.args, *trial.kwargs.values(), trial.returned)
    if trials[-1].returned is None:
        return diagnosis.nothing_returned(name)
    found = _named(exercise, trials, use, rewind) or diagnosis.changed_in_place(name, trials)
    call = trials[-1].call
    return found or Finding(
        "judged",
        (sentence, f"The call was {name}({call})." if call else _LOOK_AGAIN),
        tuple(filter(None, [_as_written(sentence or "", judge)])),
    )


_LOOK_AGAIN = "Print what your function returns, and hold it against the statement of the exercise."


def _as_written(sentence: str, judge: Callable) -> str:
    """Those parts of a judge's sentence that stand in its source, "…" for the others; "" if there are none.

    Each part counts once: what a student hands back, and a judge repeats, is not to be spelt with them.
    """
    parts = [part for part in _texts(judge) if len(part) > 3]
    if not parts:
        return ""
    pattern = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
    found, end = {}, 0
    for match in re.finditer(pattern, sentence):
        if match[0] not in found:
            found[match[0]] = "…" if match.start() > end else ""
            end = match.end()
    tail = "…" if found and end < len(sentence) else ""
    return "".join(gap + part for part, gap in found.items()) + tail


def _texts(function: Callable) -> set[str]:
    """The strings in a function's code, and in that of the functions beside it that it names."""
    found, pending, seen = set(), [getattr(function, "__code__", None)], set()
    beside = getattr(function, "__globals__", {})
    while pending:
        code = pending.pop()
        if not isinstance(code, types.CodeType) or code in seen:
            continue
        seen.add(code)
        found.update(part for part in code.co_consts if isinstance(part, str))
        pending += code.co_consts
        named = [beside.get(name) for name in code.co_names]
        codes = [other.__code__ for other in named if type(other) is types.FunctionType]  # a stand-in is none
        pending += [other for other in codes if other.co_filename == code.co_filename]
    return found


def _judged(judge: Callable, trial: Trial, answer: _Answer) -> tuple[str | None, BaseException | None]:
    """The judge's sentence, or the error of the student's code that the judge ran into."""
    args, kwargs = copied(trial.args), copied(trial.kwargs)
    try:
        return _quietly(judge, trial.returned, *args, **kwargs), None
    except (Exception, SystemExit) as error:
        if isinstance(error, (StudentError, NotImplementedError)) or _own_line(error, answer) is not None:
            return None, error
        return (
            f"{_name(answer.exercise)} returned {describe_type(trial.returned)}, which is not of the kind"
            f" asked for ({type(error).__name__}: {error}).",
            None,
        )


def _outcome_of_error(
    exercise: str, error: BaseException, answer: _Answer, trial: Trial
) -> tuple[type[Outcome], Finding]:
    name = _name(exercise)
    kind, text = error.kind if isinstance(error, StudentError) else type(error).__name__, str(error)
    if kind == "NotImplementedError":
        first = f"{name} is still to be written: it raises NotImplementedError."
        said = f"{first} It says: {text}." if text else first
        return NotAttempted, Finding("stub", (said,), (first,))
    usual = _usual(kind)
    lines, unseen = [_raised(name, kind, text)], [_raised(name, usual, "")]
    where = (error.line, error.text) if isinstance(error, StudentError) else _own_line(error, answer)
    if where and where[0] is not None:
        line = f"Your line {where[0]}:  {where[1].strip()}"
        lines.append(line)
        unseen.append(line)
    elif kind == "TypeError":
        lines.append(
            f"It is called as {name}({', '.join([*trial.names[: len(trial.args)], *trial.kwargs])})."
        )
    if trial.call:
        lines.append(f"The input was {trial.call}.")
    messages, hidden = (
        ("\n".join(lines), _more_about(kind, text)),
        ("\n".join(unseen), _more_about(usual, "")),
    )
    return ErrorInYourCode, Finding(f"error:{kind}", messages, hidden)


_KINDS = {*dir(builtins), "AxisError", "LinAlgError"}


def _usual(kind: str) -> str:
    """The name of an exception's type, if it is not one of the student's making."""
    return kind if kind in _KINDS else "an exception of its own"


def _raised(name: str, kind: str, text: str) -> str:
    if kind == "RecursionError":
        return f"{name} calls itself without end. Which input stops it, and does each call come closer to it?"
    if kind == "SystemExit":
        return f"{name} calls exit(): a function ends with return."
    return f"{name} raised {kind}: {text}" if text else f"{name} raised {kind}."


def _more_about(kind: str, said: str) -> str:
    """What to look at. What Python said tells more than the kind of error, where it is one of the usual."""
    if "truth value of an" in said:
        return (
            "Python's if, and, or, max and min want one thing to compare, and an array is many. NumPy's own"
            " functions take an axis, as a.max(axis=...) does. Over which axis do you mean it?"
        )
    if "of unsized object" in said or "has no len()" in said:
        return "A single number has no length, nor has an array of shape (). Which value is one of these?"
    if "math domain" in said:
        return "A number that is not positive went into a logarithm or a root: which one, and may it be that?"
    if kind == "ValueError" and not re.search(
        r"shape|broadcast|dimension|axes|axis|size|operand|align", said
    ):
        kind = ""
    return {
        "NameError": "Every name that a function uses is an argument, is made inside it, or is imported"
        " above it.",
        "ValueError": "Print the shapes just before that line: which two do not fit, and which axis do you"
        " mean?",
        "RuntimeError": "Print the shapes and dtypes just before that line: which two do not fit?",
        "AxisError": "This input has fewer axes than that. Counted from the end, which axis do you mean?",
        "IndexError": "Print the shape of what is indexed: how many axes has it for one point, for a batch?",
        "TypeError": "Print the types just before that line: which one is not what you think?",
    }.get(kind, "Copy the input into a cell of your own, call your function on it, and look at each step.")


def _own_line(error: BaseException, answer: _Answer) -> tuple[int, str] | None:
    """Number and text of the last line that the error went through in the cell of the student's object.

    A helper from another cell is the lesson's as a rule: what the student can mend is the line that called
    it. Where that cell was not met, the first of the notebook's that was counts, the test cell aside. Outside
    of a notebook, the student's function and the test may stand in one file.
    """
    code = getattr(answer.found, "__code__", None)
    one_file = code is not None and code.co_filename == answer.test_file
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals is answer.namespace and (one_file or frame.f_code.co_filename != answer.test_file)
    ]
    if not own:
        return None
    code = _code(answer.found)
    home = code.co_filename if code and code.co_filename in dict(own) else own[0][0]
    line = dict(own)[home]  # of several lines in one file the last one stays
    return line, linecache.getline(home, line)


def _fail(exercise: str, outcome: type[Outcome], finding: Finding) -> None:
    """Raises the outcome. The second and third failure of one kind say more; hidden tests show no values."""
    _passed.pop(exercise, None)
    _failures[exercise, finding.kind] += 1
    messages = (finding.hidden or (diagnosis.UNSEEN,)) if os.environ.get(HIDDEN) else finding.messages
    if outcome is NotRight and len(messages) == 1:
        messages = (*messages, diagnosis.MORE)
    said = messages[: _failures[exercise, finding.kind]]
    raise outcome(exercise, finding.kind, "\n".join(said)) from None


def _succeed(exercise: str, found: Any, count: int, hidden: bool) -> None:
    _passed[exercise] = found
    kind = "hidden" if os.environ.get(HIDDEN) else "public"
    noun = "test" if kind == "hidden" else "check"
    checks = f"its {kind} {noun}" if count == 1 else f"its {count} {kind} {noun}s"
    while_grading = SEED in os.environ or kind == "hidden"
    remain = " Hidden tests run when your work is graded." if hidden and not while_grading else ""
    _display("✓ Right:", f"{_name(exercise)} passes {checks}.{remain}")


def _display(word: str, text: str) -> None:
    """As HTML in a notebook, as a line elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        page = (
            '<div role="status" style="border-left: 4px solid #1b7f3b; padding: 0.3em 0.8em">'
            f"<strong>{escape(word)}</strong> {escape(text)}</div>"
        )
        ipython.display.display({"text/plain": f"{word} {text}", "text/html": page}, raw=True)
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(f"{word} {text}".encode(encoding, "replace").decode(encoding))
