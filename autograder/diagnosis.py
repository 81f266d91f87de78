"""Why an answer is wrong: from what a student's function returned, the likeliest slip, in words.

The order: nothing came back; a named wrong answer of the bank returns the same; an argument was changed in
place; right, and cut off from gradients; parts in another order; type, shape, dtype; one word for every
input; NaN and infinity; the field's general slips; what tells right inputs from wrong.
No message shows the expected numbers. What hidden tests say, Finding.hidden, shows no values at all.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from autograder.compare import (
    Path,
    Problem,
    arrays_in,
    as_array,
    at,
    close,
    compare,
    describe_type,
    dtype_name,
    few,
    is_array,
    is_scalar,
    largest,
    scalars_in,
    show,
    show_call,
)

HIDDEN = "AUTOGRADER_HIDDEN"  # the environment variable that says that a hidden test runs
UNSEEN = (
    "It is not right for an input that only the grader sees. Try inputs of your own: a single point, a batch,"
    " other shapes and dtypes, large values and zero."
)
MORE = "The hints below the statement of the exercise are titled by symptom: which of them fits?"


@dataclass
class Trial:
    """One call of the student's function: its inputs, what came back, and what should have."""

    names: list[str]
    args: tuple
    kwargs: dict
    returned: Any = None
    expected: Any = None
    within: tuple[float, float] = (0.0, 0.0)
    changed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def problem(self) -> Problem | None:
        return compare(self.returned, self.expected, self.within)

    @property
    def call(self) -> str:
        return show_call(self.names, self.args, self.kwargs)

    @property
    def on_paper(self) -> bool:
        """Whether a student sees the inputs whole, and can work with them by hand."""
        return few([*self.args, *self.kwargs.values()])

    @property
    def points(self) -> np.ndarray | None:
        """The first argument that is an array with dimensions: by convention, the points."""
        arrays = [a for a in arrays_in([*self.args, *self.kwargs.values()]) if a.ndim]
        return as_array(arrays[0]) if arrays else None


@dataclass(frozen=True)
class Finding:
    """What is wrong (kind, for counting) and what to say about it: at first, then more and more.

    hidden: what a hidden test says instead; UNSEEN where it is empty. Fixed words, and the names and lines
    that the student has: no input, nothing that came back, nothing that stands in the test. What a function
    returns may be its input in disguise, be it as a number, a shape, a key or the name of a type.
    """

    kind: str
    messages: tuple[str, ...]
    hidden: tuple[str, ...] = ()


def fixed(kind: str, *messages: str) -> Finding:
    """A finding whose messages show no values: hidden tests say them too."""
    return Finding(kind, messages, messages)


def explain(name: str, trials: list[Trial], named: Callable[[], Finding | None]) -> Finding:
    """The first finding, in the order above. At least one trial must have a problem.

    named: looks for the wrong answer of the bank that returns the same.
    """
    bad = [trial for trial in trials if trial.problem or trial.changed]
    bad = [trial for trial in bad if trial.changed or trial.problem.kind != "gradient"] or bad
    if all(trial.returned is None and trial.expected is not None for trial in trials):
        return nothing_returned(name)
    return (
        named()
        or changed_in_place(name, bad)
        or _cut_off(name, bad)
        or _in_another_order(name, trials)
        or _wrong_form(name, bad)
        or _word(name, trials)
        or _not_finite(name, trials)
        or _slip(name, trials)
        or _some_right(name, trials)
        or _first_entry(name, bad[0])
        or _plain(name, bad[0])
    )


def nothing_returned(name: str) -> Finding:
    """None came back where something else should have."""
    more = "A value that is computed, or printed, is not yet returned: the last line that runs hands it back."
    return fixed("none", f"{name} returned None. Is there a return?", more)


def changed_in_place(name: str, trials: list[Trial]) -> Finding | None:
    """An argument is no longer what it was before the call."""
    changed = next((trial.changed for trial in trials if trial.changed), None)
    if not changed:
        return None
    why = "in place: whoever called it still needs the old values. Which line writes into it?"
    more = (
        "Assignments such as x[...] = ..., x += ..., methods that end in an underscore and an optimizer's"
        " steps write into the array that came in. Make a new array, or work on a copy (detach() makes none)."
    )
    first = f"{name} changes its argument {' and '.join(changed)} {why}"
    return Finding("in_place", (first, more), (f"{name} changes an argument {why}", more))


def _cut_off(name: str, bad: list[Trial]) -> Finding | None:
    """All values are right, and no gradient flows through them as one does in the reference."""
    if any(trial.problem.kind != "gradient" for trial in bad):
        return None
    first = (
        f"{name} returns the right values, but no gradient can flow back through them to its inputs, and"
        " training needs one. Which line cuts it off?"
    )
    more = (
        ".detach(), .item(), .data, torch.no_grad(), torch.tensor(...), and each way to NumPy or to Python's"
        " numbers, leave values alone. Keep to operations on tensors."
    )
    return fixed("gradient", first, more)


# Order, type, length, shape, dtype.


def _in_another_order(name: str, trials: list[Trial]) -> Finding | None:
    """All parts of the answer are right, and stand in one wrong order."""
    count = len(trials[0].expected) if isinstance(trials[0].expected, tuple) else 0
    if not 2 <= count <= 4 or not all(_has_parts(trial, count) for trial in trials):
        return None
    for order in list(permutations(range(count)))[1:]:
        turned = ((tuple(t.returned[place] for place in order), t.expected, t.within) for t in trials)
        if not any(compare(*each) for each in turned):
            return fixed("order", f"{name} returns the right values in another order than the statement's.")
    return None


def _has_parts(trial: Trial, count: int) -> bool:
    given = trial.returned
    return isinstance(given, tuple | list) and len(given) == len(trial.expected) == count


def _wrong_form(name: str, bad: list[Trial]) -> Finding | None:
    describe = {"type": _wrong_type, "length": _wrong_length, "shape": _wrong_shape, "dtype": _wrong_dtype}
    for kind, words in describe.items():
        for trial in bad:
            problem = trial.problem
            if problem and problem.kind == kind:
                first = f"{_subject(name, problem)} {words(trial, problem)}"
                hidden = f"{name} returned {OTHER_FORM[kind]}, for an input that only the grader sees."
                if kind == "shape":
                    hidden += f" {_shape_in_words(trial, problem)}"
                return Finding(kind, (first, f"The call was {name}({trial.call})."), (hidden,))
    return None


OTHER_FORM = {
    "type": "another type of value than is asked for",
    "length": "another number of values than is asked for",
    "shape": "another shape than is asked for",
    "dtype": "entries of another type than is asked for",
}


def _subject(name: str, problem: Problem) -> str:
    """ "affine", or "Part 2 of what affine" where the answer has parts."""
    if not problem.path:
        return name
    return f"Part {_part(problem.path)} of the answer: {name}"


def _part(path: Path) -> str:
    steps = [f"{step + 1}" if isinstance(step, int) else repr(step) for step in path]
    return " of part ".join(reversed(steps))


def _wrong_type(trial: Trial, problem: Problem) -> str:
    returned, expected = problem.returned, problem.expected
    came = f"returned {_in_words(returned)}"
    if returned is None:
        return f"{came}, where {_wanted(expected)} is asked for. Is there a return on every way through it?"
    if is_array(expected) and is_array(returned):
        return f"{came}, where {describe_type(expected)} is asked for. Keep to the library of the inputs."
    if is_array(expected) and isinstance(returned, tuple) and type(returned) is not tuple:
        return f"{came}, where {describe_type(expected)} is asked for. Which of its named parts is meant?"
    if is_array(expected) and isinstance(returned, (list, tuple)):
        return (
            f"{came}, where {describe_type(expected)} is asked for. Can the loop become one array operation?"
        )
    if isinstance(expected, tuple):
        return f"{came}, where {len(expected)} values are asked for, as a tuple. Is one missing after return?"
    if isinstance(expected, list):
        return f"{came} ({show(returned)}), where a list is asked for."
    return f"{came} ({show(returned)}), where {_wanted(expected)} is asked for."


def _is_word(value: Any) -> bool:
    """A single True or False, or a word."""
    return isinstance(value, str) or (is_scalar(value) and as_array(value).dtype.kind == "b")


def _in_words(value: Any) -> str:
    return "a string" if isinstance(value, str) else describe_type(value)


def _wanted(expected: Any) -> str:
    if isinstance(expected, str) or not is_scalar(expected):
        return _in_words(expected)
    return "True or False" if _is_word(expected) else "a number"


def _wrong_length(trial: Trial, problem: Problem) -> str:
    if isinstance(problem.expected, dict):
        return f"returned the keys {list(problem.returned)}; the keys asked for are {list(problem.expected)}."
    if isinstance(problem.expected, list):  # how many are right is part of the answer
        return f"returned {_items(problem.returned)}, where another number of items is right for this input."
    return f"returned {len(problem.returned)} values, where {len(problem.expected)} are asked for."


def _items(value: list | tuple) -> str:
    kind = type(value).__name__
    items = "1 item" if len(value) == 1 else f"{len(value)} items"
    return f"a {kind} of {items}, {show(value)}" if len(value) else f"an empty {kind}"


def _wrong_dtype(trial: Trial, problem: Problem) -> str:
    came, wanted = dtype_name(problem.returned), dtype_name(problem.expected)
    given = {dtype_name(a) for a in arrays_in([*trial.args, *trial.kwargs.values()])}
    if wanted in given:
        return (
            f"returned {came} where {wanted} went in. Which array or constant inside is not of the type of"
            " the"
            " input?"
        )
    return f"returned entries of type {came}, where {wanted} is asked for."


def _wrong_shape(trial: Trial, problem: Problem) -> str:
    came, wanted = _shapes(problem)
    asked = f"shape {wanted}" if wanted else "a single number"
    if _is_word(problem.expected):
        asked = "True or False"
    given = f" for an input of shape {trial.points.shape}" if trial.points is not None else ""
    returned = f"shape {came}" if came else f"one number{given}"
    return f"returned {returned}, where {asked} is asked for. {_shape_in_words(trial, problem)}"


def _shapes(problem: Problem) -> tuple[tuple, tuple]:
    return np.shape(as_array(problem.returned)), np.shape(as_array(problem.expected))


def _shape_in_words(trial: Trial, problem: Problem) -> str:
    """What the wrong shape may come from, in fixed words."""
    (came, wanted), points = _shapes(problem), trial.points
    if _is_word(problem.expected):
        return "There is an answer for each entry: how do they combine into one?"
    rules: list[tuple[bool, str]] = [
        (
            not came and len(wanted) > 0,
            "Each point, or row, has a value of its own. Do you sum over too many axes, or not use the input"
            " at all?",
        ),
        (
            came == (*wanted, 1),
            "The last axis was kept with length 1: is it a keepdims, or a slice such as [:, :1]?",
        ),
        (
            points is not None and came == points.shape and came[:-1] == wanted,
            "There is one value for each dimension of each point: how do they combine into one for each"
            " point?",
        ),
        (
            came == (1, *wanted),
            "There is an extra axis of length 1 in front: has a point been made into a batch?",
        ),
        (
            len(wanted) > 0 and came == wanted[:-1],
            "The last axis is gone: it has been summed, averaged or indexed away.",
        ),
        (
            len(wanted) > 0 and came == wanted[1:],
            "The first axis is gone: have the points been summed together?",
        ),
        (len(came) > 1 and came == wanted[::-1], "That is the transpose: which index is the row?"),
        (
            math.prod(came) == math.prod(wanted),
            "The number of entries is right and their arrangement is not: where are axes merged, moved or"
            " lost?",
        ),
    ]
    default = "What does each axis stand for, and where does it come from?"
    return next((words for holds, words in rules if holds), default)


# NaN and infinity.


def _not_finite(name: str, trials: list[Trial]) -> Finding | None:
    bad = [trial for trial in trials if trial.problem and trial.problem.kind == "nan"]
    if not bad:
        return None
    trial, problem = bad[0], bad[0].problem
    array = as_array(problem.returned)
    what = "NaN" if np.isnan(array).any() else "infinity"
    count = int((~np.isfinite(array)).sum())
    where = f"at {count} of {array.size} entries, " if array.size > 1 else ""
    first = f"{_subject(name, problem)} returned {what} {where}for {trial.call}."
    told, unnamed = _told_apart(trials, lambda t: bool(t.problem) and t.problem.kind == "nan")
    if told:
        first += f" It happens {told}."
    hidden = f"{name} returned NaN or infinity{f' {unnamed}' if unnamed else ''}."
    ask = " Which step overflows, divides by zero, or takes the logarithm of something that is not positive?"
    limits = (
        "exp overflows beyond 709 in float64 and 88 in float32. Is there a form of the formula that never"
        " leaves the range?"
    )
    below_zero = any(re.search(r"invalid value encountered in (log|sqrt|power)", w) for w in trial.warnings)
    if below_zero:
        ask = " A number below zero went into a logarithm or a root. Which one, and may it be below zero?"
    said = f"Python warned: {trial.warnings[0]}. " if trial.warnings else ""
    size = largest([*trial.args, *trial.kwargs.values()])
    more = said if below_zero else f"{said}The largest number that went in is {size:.3g}; {limits}"
    return Finding("nan", (first + ask, more.strip()), (hidden + ask, limits))


# Words: True, False, or a string.


def _word(name: str, trials: list[Trial]) -> Finding | None:
    """A number where a word is asked for, or the same word for every input."""
    if not all(_is_word(trial.expected) for trial in trials):
        return None
    number = next((trial for trial in trials if trial.problem and not _is_word(trial.returned)), None)
    if number:
        wanted = _wanted(number.expected)
        return Finding("type", (f"{name} returned {show(number.returned)}, where {wanted} is asked for.",))
    returned, expected = ({str(getattr(t, side)) for t in trials} for side in ("returned", "expected"))
    if len(returned) > 1 or len(expected) == 1:
        return None
    first = f"{name} returned {returned.pop()} for every input. Which of them asks for another answer?"
    hidden = f"{name} returned the same word for every input. Which of them asks for another answer?"
    more = "Which of its inputs does it use, and which should it?"
    return Finding("same_word", (first, more), (hidden, more))


# The field's general slips: what came back is a known function of what should have.


@dataclass(frozen=True)
class Sizes:
    """dims: D, the length of the points' last axis; points: how many points there are."""

    dims: int
    points: int


@dataclass(frozen=True)
class Slip:
    kind: str
    made: Callable[[np.ndarray, Sizes], np.ndarray]
    messages: tuple[str, ...]
    directed: tuple[str, ...] = ()  # what to say instead where the answer depends on a map's direction

    def messages_for(self, name: str) -> tuple[str, ...]:
        return self.directed if self.directed and DIRECTED.search(name) else self.messages


DIRECTED = re.compile("log_det|jacobian|slope|coupling|flow")  # exercises that differentiate a map


SLIPS = (
    Slip(
        "sign",
        lambda e, n: -e,
        (
            "The size is right everywhere and the sign is the opposite. Is a minus lost, or one too many?",
            "Work out one entry by hand, with its sign, and print each step beside it.",
        ),
        (
            "The size is right everywhere and the sign is the opposite. In which direction did you go?",
            "Forward is data to noise, and the log-determinant is that of dz/dx. A minus, or a map taken"
            " the other"
            " way round, turns it over.",
        ),
    ),
    Slip(
        "log_missing",
        lambda e, n: np.exp(e),
        ("What came back is the exponential of what is asked for. Is a logarithm missing at the end?",),
    ),
    Slip(
        "log_missing_and_sign",
        lambda e, n: np.exp(-e),
        ("What came back is the exponential of minus what is asked for. Are a logarithm and a minus lost?",),
        ("A logarithm is missing, and the direction is the opposite one. Which map did you differentiate?",),
    ),
    Slip(
        "exp_missing",
        lambda e, n: np.log(e),
        ("What came back is the logarithm of what is asked for. Is an exp missing, or a log too many?",),
    ),
    Slip(
        "reciprocal",
        lambda e, n: 1 / e,
        ("What came back is one over what is asked for. Do you divide where you should multiply?",),
        ("What came back is one over what is asked for. Which of dx/dz and dz/dx did you take?",),
    ),
    Slip(
        "mean_dims",
        lambda e, n: e / n.dims,
        (
            "It is too small by a factor, the length of the last axis. Did you average where you should"
            " add up?",
        ),
    ),
    Slip(
        "sum_dims",
        lambda e, n: e * n.dims,
        ("It is too large by a factor, the length of the last axis. Is something added up too often?",),
    ),
    Slip(
        "mean_points",
        lambda e, n: e / n.points,
        ("It is too small by the number of points. Where do you divide by it?",),
    ),
    Slip(
        "sum_points",
        lambda e, n: e * n.points,
        ("It is too large by the number of points. Did you add up where you should average?",),
    ),
    Slip("twice", lambda e, n: 2 * e, ("It is twice what it should be. Is something counted two times?",)),
    Slip("half", lambda e, n: e / 2, ("It is half of what it should be. Is a factor 2 or 1/2 misplaced?",)),
    Slip(
        "abs_too_many",
        lambda e, n: np.abs(e),
        ("The sizes are right, and the minus signs are lost. Where do you take an absolute value?",),
    ),
    Slip("square", lambda e, n: e * e, ("What came back is the square of what is asked for.",)),
    Slip(
        "root",
        lambda e, n: np.sqrt(e),
        ("What came back is the square root of what is asked for.",),
    ),
    Slip(
        "complement",
        lambda e, n: 1 - e,
        ("What came back is one minus what is asked for. Are the two sides exchanged?",),
    ),
    Slip(
        "transposed",
        lambda e, n: np.swapaxes(e, -1, -2) if e.ndim > 1 else e,
        ("That is the transpose. Which index is the row?",),
        ("That is the transpose. In J[i, j] = dz_i/dx_j, which index is the row?",),
    ),
    Slip(
        "reversed_dims",
        lambda e, n: np.flip(e, -1) if e.ndim else e,
        ("The values are right and stand in reverse order along the last axis.",),
    ),
    Slip(
        "summed_points",
        lambda e, n: np.full_like(e, e.sum()),
        ("Every entry is the sum over all the points. Each point has a value of its own.",),
    ),
    Slip(
        "negative_abs",
        lambda e, n: -np.abs(e),
        ("The sizes are right, and every sign is negative. Where does the sign come from?",),
    ),
)


def _slip(name: str, trials: list[Trial]) -> Finding | None:
    """A general slip that explains what came back on every input, those that came out right included.

    Where an answer has several parts, the slip has to explain every part that is wrong anywhere.
    """
    paths = _wrong_paths(trials)
    parts = [_numbers(trials, path) for path in paths]
    if None in parts or any(_proves_nothing([e for _, _, e in pairs]) for pairs in parts):
        return None
    finding = _slip_of(name, [pair for pairs in parts for pair in pairs])
    return finding and _naming(paths, trials, finding)


def _slip_of(name: str, pairs: list) -> Finding | None:
    if any(expected.dtype.kind == "b" for _, _, expected in pairs):
        return _exchanged(name, pairs)  # True is no half, square or constant away from False
    pairs = [(trial, _as_float(returned), _as_float(expected)) for trial, returned, expected in pairs]
    for slip in SLIPS:
        if all(_explains(slip, *pair) for pair in pairs):
            return fixed(slip.kind, *slip.messages_for(name))
    return _lost_sign(name, pairs) or _constant(name, pairs)


def _proves_nothing(expected: list[np.ndarray]) -> bool:
    """Any two small whole numbers are each other's half, square, or D-fold."""
    numbers = np.concatenate([np.ravel(e) for e in expected])
    return numbers.dtype.kind != "b" and len(np.unique(numbers)) < 2 and (numbers == np.round(numbers)).all()


def _numbers(trials: list[Trial], path: Path) -> list[tuple[Trial, np.ndarray, np.ndarray]] | None:
    """(trial, returned, expected) of one part, for every trial; None if it is not made of numbers."""
    pairs = []
    for trial in trials:
        try:
            returned, expected = as_array(at(path, trial.returned)), as_array(at(path, trial.expected))
        except (KeyError, IndexError, TypeError):
            return None
        if expected.dtype.kind not in "fciub" or returned.shape != expected.shape:
            return None
        if returned.dtype.kind not in "fciub":
            return None
        pairs.append((trial, returned, expected))
    return pairs


def _paths(value: Any, path: Path = ()) -> list[Path]:
    """The ways to all parts that have no parts of their own; to a value without parts, the empty way."""
    if not isinstance(value, (dict, list, tuple)):
        return [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    return [way for step, part in steps for way in _paths(part, (*path, step))]


def _wrong_paths(trials: list[Trial]) -> list[Path]:
    """The ways to the parts that are wrong for some input."""
    wrong = [path for trial in trials for path in _paths(trial.expected) if _wrong_at(path, trial)]
    return list(dict.fromkeys(wrong))


def _wrong_at(path: Path, trial: Trial) -> bool:
    try:
        return compare(at(path, trial.returned), at(path, trial.expected), trial.within) is not None
    except (KeyError, IndexError, TypeError):
        return True


def _naming(paths: list[Path], trials: list[Trial], finding: Finding) -> Finding:
    """The finding, with a word on which parts are wrong where others are right on every input."""
    every = {path for trial in trials for path in _paths(trial.expected)}
    if len(paths) == len(every):
        return finding
    first = f"Only {_in_a_row(paths)} of the answer {'is' if len(paths) == 1 else 'are'} wrong."
    parts_of_all = all(type(trial.expected) is tuple for trial in trials) and {len(p) for p in paths} == {1}
    unseen = first if parts_of_all else "Only a part of the answer is wrong."
    hidden = finding.hidden and (f"{unseen} {finding.hidden[0]}", *finding.hidden[1:])
    return replace(finding, messages=(f"{first} {finding.messages[0]}", *finding.messages[1:]), hidden=hidden)


def _in_a_row(paths: list[Path]) -> str:
    *others, last = [_part(path) for path in paths]
    return f"parts {', '.join(others)} and {last}" if others else f"part {last}"


def _exchanged(name: str, pairs: list) -> Finding | None:
    """False for True and True for False, everywhere."""
    if not all(r.dtype.kind == "b" and (r != e).all() for _, r, e in pairs):
        return None
    return fixed(
        "exchanged", f"{name} returned True where False is right, and False for True. Is a not lost?"
    )


def _as_float(array: np.ndarray) -> np.ndarray:
    """Booleans cannot be subtracted, and whole numbers overflow."""
    return array.astype(float) if array.dtype.kind in "iub" else array


def _explains(slip: Slip, trial: Trial, returned: np.ndarray, expected: np.ndarray) -> bool:
    points = trial.points
    sizes = Sizes(points.shape[-1], math.prod(points.shape[:-1])) if points is not None else Sizes(1, 1)
    with np.errstate(all="ignore"):
        made = slip.made(expected, sizes)
    return made.shape == returned.shape and bool(close(returned, made, trial.within).all())


def _lost_sign(name: str, pairs: list) -> Finding | None:
    """The expected values are never negative, and the student's are, with the same sizes."""
    same = all(
        close(np.abs(returned), np.abs(expected), trial.within).all() for trial, returned, expected in pairs
    )
    if not same or any(np.iscomplexobj(returned) for _, returned, _ in pairs):
        return None
    if all((expected >= 0).all() for _, _, expected in pairs):
        first = "The sizes are right, and some values are negative where none can be. Is an abs forgotten?"
        more = "A decreasing map has a negative derivative; the density it makes is still positive."
        return fixed("abs_missing", *((first, more) if re.search("densit|slope", name) else (first,)))
    return fixed("some_signs", "Every size is right, and some signs are wrong. What decides the sign?")


def _constant(name: str, pairs: list) -> Finding | None:
    """The same difference, or the same factor, at every entry of every input."""
    returned = np.concatenate([np.ravel(r) for _, r, _ in pairs])
    expected = np.concatenate([np.ravel(e) for _, _, e in pairs])
    rtol, atol = pairs[0][0].within
    if returned.size < 3 or not (np.isfinite(returned).all() and np.isfinite(expected).all()):
        return None
    if np.ptp(np.abs(expected)) <= 1e-3:
        return None
    if np.ptp(np.abs(returned)) <= atol:
        number, ask = show(returned[0]), "for everything. Does it use its inputs?"
        unseen = f"{name} returned one number {ask}"
        return Finding("same_number", (f"{name} returned {number} {ask}",), (unseen,))
    difference = returned - expected
    if np.allclose(difference, difference[0], rtol=10 * rtol, atol=10 * atol):
        halves = abs(difference[0]) / (0.5 * math.log(2 * math.pi))
        hint = " Does the density still integrate to one?" if abs(halves - round(halves)) < 1e-4 else ""
        ask = f"Which term does not depend on the input?{hint}"
        return fixed("constant", f"{name} is off by the same constant everywhere. {ask}")
    with np.errstate(all="ignore"):
        factor = returned / expected
    if np.isfinite(factor).all() and np.allclose(factor, factor[0], rtol=10 * rtol, atol=0):
        ask = "Which constant multiplies the whole, or should?"
        return fixed("factor", f"{name} is off by the same factor everywhere. {ask}")
    return None


# Right here and wrong there.


def _some_right(name: str, trials: list[Trial]) -> Finding | None:
    good = [trial for trial in trials if not trial.problem]
    bad = [trial for trial in trials if trial.problem]
    pattern = _pattern(name, bad)
    if pattern:
        return pattern
    paths = _wrong_paths(trials)
    told, unnamed = _told_apart(trials, lambda trial: bool(trial.problem))
    hidden = (_some(name, unnamed, len(good), len(trials)),)
    if told:
        first = _some(name, told, len(good), len(trials))
        return _naming(paths, trials, Finding("some_inputs", (first, _came_back(name, bad[0])), hidden))
    if good:
        first = f"{name} is right for {len(good)} of {len(trials)} inputs. {_came_back(name, bad[0])}"
        more = f"It is right for {good[0].call}. What tells the two apart?"
        return _naming(paths, trials, Finding("some_inputs", (first, more), hidden))
    return None


def _some(name: str, told: str | None, good: int, every: int) -> str:
    ask = "What tells these inputs from the others?"
    if told:
        return f"{name} is right for the other inputs, and wrong {told}. What does your code do with these?"
    return f"{name} is right for {good} of {every} inputs that only the grader sees. {ask}"


def _told_apart(trials: list[Trial], is_bad: Callable[[Trial], bool]) -> tuple[str | None, str | None]:
    """The words for what the bad inputs have in common and no other input has: two at most.

    First with the names and words among the arguments, then without them, for hidden tests.
    """
    bad = [is_bad(trial) for trial in trials]
    if all(bad):
        return None, None
    points = [dict(_properties(trial)) for trial in trials]
    every = [dict(_of_arguments(trial)) | found for trial, found in zip(trials, points, strict=True)]
    if bad.count(False) == 1 and bad.count(True) > 2:  # a single right input has much that others lack
        return _by_word(trials, bad), None
    return _by_word(trials, bad) or _telling(every, bad), _telling(points, bad)


def _by_word(trials: list[Trial], bad: list[bool]) -> str | None:
    """Where a word among the arguments names the inputs: which few are wrong, or which few are right."""
    words = [_words_given(trial) for trial in trials]
    for name in words[0]:
        shown = [show(given.get(name)) for given in words]
        wrong, right = (
            dict.fromkeys(v for v, b in zip(shown, bad, strict=True) if b is k) for k in (True, False)
        )
        if not wrong.keys() & right.keys():
            if 1 < len(wrong) < 4:
                return f"when {name} is {' or '.join(wrong)}"
            if len(wrong) > 3 > len(right):
                return f"unless {name} is {' or '.join(right)}"
    return None


def _telling(properties: list[dict[str, bool]], bad: list[bool]) -> str | None:
    every = dict.fromkeys(words for found in properties for words in found)
    telling = [words for words in every if [found.get(words, False) for found in properties] == bad]
    return ", and ".join(telling[:2]) or None


def _words_given(trial: Trial) -> dict[str, Any]:
    given = dict([*zip(trial.names, trial.args, strict=False), *trial.kwargs.items()])
    return {name: value for name, value in given.items() if _is_word(value)}


def _of_arguments(trial: Trial) -> Iterator[tuple[str, bool]]:
    words = _words_given(trial)
    for name, value in words.items():
        yield f"when {name} is {show(value)}", True
    for name, value in scalars_in(trial.names, trial.args, trial.kwargs).items():
        if name in words:  # True is positive, and nobody would say so
            continue
        yield f"when {name} is negative", value < 0
        yield f"when {name} is zero", value == 0
        yield f"when {name} is positive", value > 0


def _properties(trial: Trial) -> Iterator[tuple[str, bool]]:
    """Those of the points, and of the sizes of all, in fixed words."""
    points = trial.points
    if points is not None:
        yield f"when the points are {points.dtype}", True
        yield "when the input has a single axis", points.ndim == 1
        yield "when the input has two axes", points.ndim == 2
        yield "when the input has more than two axes", points.ndim > 2
        yield "in one dimension (D = 1)", points.ndim > 1 and points.shape[-1] == 1
        yield "in more than one dimension", points.ndim > 1 and points.shape[-1] > 1
        yield "for a batch of one", points.ndim > 1 and math.prod(points.shape[:-1]) == 1
        yield "for more than one point", math.prod(points.shape[:-1]) > 1
        yield "when the points have negative entries", bool(np.isrealobj(points) and (points < 0).any())
    yield "when the inputs are large", largest([*trial.args, *trial.kwargs.values()]) > 20


def _pattern(name: str, bad: list[Trial]) -> Finding | None:
    """A pattern in the entries that are right, the same in every input that has a wrong one."""
    path = _wrong_paths(bad)[0]
    pairs = [pair for pair in _numbers(bad, path) or [] if pair[1].ndim]  # a single number has no pattern
    if not pairs:
        return None
    rights = [close(returned, expected, trial.within) for trial, returned, expected in pairs]
    for words, pattern in PATTERNS.items():
        wanted = [pattern(trial, right.shape) for (trial, _, _), right in zip(pairs, rights, strict=True)]
        fits = all(w is not None and np.array_equal(w, r) for w, r in zip(wanted, rights, strict=True))
        if fits and any(right.any() for right in rights):
            first, unseen = f"{_who(name, path)} is right {words}", f"{name} is right {words}"
            hidden = () if path else (unseen,)
            return Finding("some_entries", (first, _came_back(name, bad[0])), hidden)
    return None


def _first_entry(name: str, trial: Trial) -> Finding | None:
    """Where the first wrong entry stands, when some are right."""
    path = _wrong_paths([trial])[0]
    pairs = _numbers([trial], path)
    if pairs is None or pairs[0][1].ndim == 0:
        return None
    _, returned, expected = pairs[0]
    right = close(returned, expected, trial.within)
    if not right.any():
        return None
    index = tuple(int(i) for i in np.argwhere(~right)[0])
    first = (
        f"{_who(name, path)} is right at {int(right.sum())} of {right.size} entries. The first that is not is"
        f" [{', '.join(map(str, index))}], where {show(returned[index])} came back, for {trial.call}."
    )
    hidden = f"{name} is right at some entries and wrong at others, for an input that only the grader sees."
    return Finding("some_entries", (first,), (hidden,))


def _who(name: str, path: Path) -> str:
    return f"Part {_part(path)} of {name}'s answer" if path else name


def _only(index: int, shape: tuple) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[index] = True
    return mask


def _like_points(trial: Trial, shape: tuple, sign: int) -> np.ndarray | None:
    points = trial.points
    return sign * points >= 0 if points is not None and points.shape == shape else None


def _at_zero(trial: Trial, shape: tuple) -> np.ndarray | None:
    """Where the point is the origin; entry by entry where the answer has the shape of the points."""
    points = trial.points
    if points is None or shape not in (points.shape, points.shape[:-1]):
        return None
    return points == 0 if shape == points.shape else (points == 0).all(axis=-1)


# Which entries are right, by the words for it. None where the pattern does not apply to the shape.
PATTERNS: dict[str, Callable[[Trial, tuple], np.ndarray | None]] = {
    "for the first point only. Is everything computed from it?": lambda trial, shape: (
        _only(0, shape) if shape[0] > 1 else None
    ),
    "for the last point only. Does a loop overwrite what it found before?": lambda trial, shape: (
        _only(-1, shape) if shape[0] > 1 else None
    ),
    "for all points but the first. Where does your loop begin?": lambda trial, shape: (
        ~_only(0, shape) if shape[0] > 1 else None
    ),
    "for all points but the last. Where does your loop end?": lambda trial, shape: (
        ~_only(-1, shape) if shape[0] > 1 else None
    ),
    "where the input is positive, and wrong where it is negative. What changes with its sign?": (
        lambda trial, shape: _like_points(trial, shape, 1)
    ),
    "where the input is negative, and wrong where it is positive. What changes with its sign?": (
        lambda trial, shape: _like_points(trial, shape, -1)
    ),
    "where the input is zero, and wrong elsewhere. Which terms depend on the input, and how?": _at_zero,
    "on the diagonal, and wrong beside it. How does one dimension move another?": lambda trial, shape: (
        np.eye(*shape, dtype=bool) if len(shape) == 2 and min(shape) > 1 else None
    ),
    "beside the diagonal, and wrong on it. How does a dimension move itself?": lambda trial, shape: (
        ~np.eye(*shape, dtype=bool) if len(shape) == 2 and min(shape) > 1 else None
    ),
}


def _came_back(name: str, trial: Trial) -> str:
    return (
        f"For {trial.call} it returned {show(trial.returned)}."
        if trial.call
        else (f"It returned {show(trial.returned)}.")
    )


def _plain(name: str, trial: Trial) -> Finding:
    paths = _wrong_paths([trial])
    are = "is" if len(paths) == 1 else "are"
    part = f" ({_in_a_row(paths)} {are} wrong)" if paths != [()] else ""
    ask = (
        "What should it be, by hand?" if trial.on_paper else "Which input, small enough for paper, fails too?"
    )
    return Finding(
        "plain",
        (
            f"{name} does not yet return what is asked for{part}. {_came_back(name, trial)} {ask}",
            "Take the smallest input that you can work out on paper, and print each step beside it.",
            MORE,
        ),
    )
