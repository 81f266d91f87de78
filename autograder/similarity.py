"""`autograder similar`: pairs of answers that share what others do not, for a person to look at.

Each answer's syntax tree is written as a row of tokens: names are all the same, constants are told apart by
their kind alone, comments, docstrings and annotations are dropped; what a library calls its functions stays.
Of the row, fingerprints are chosen by winnowing (Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms
for document fingerprinting", SIGMOD 2003): two answers that share a run of SURE tokens share a fingerprint,
and no run shorter than GRAM makes one. A fingerprint weighs the more the fewer students have it, and nothing
when the release has it.

It accuses nobody. Two honest answers to a small exercise are often the same.
"""

import ast
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from autograder import syntax
from autograder.course import Course, Lesson
from autograder.grade import nothing_graded

GRAM = 12  # tokens: some two lines
WINDOW = 8  # of so many grams in a row, one is a fingerprint
SURE = GRAM + WINDOW - 1
COMMON = 30  # what more students than this have in common says nothing of any two of them
_POWERS = np.cumprod(np.full(GRAM, 0x9E3779B97F4A7C15, np.uint64))
_SPREAD = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Shared:
    """What two answers to one exercise share: its weight, and the lines that it touches in each."""

    exercise: str
    weight: float
    sources: tuple[str, str]
    lines: tuple[frozenset[int], frozenset[int]]


@dataclass(frozen=True)
class Pair:
    """Two students. share: of the weight of whichever answers weigh less, the part that is shared, 0 to 1."""

    students: tuple[str, str]
    weight: float
    share: float
    shared: tuple[Shared, ...]


@dataclass(frozen=True)
class Similarity:
    """The pairs of a lesson, heaviest first.

    compared: submissions; unparsed: answers that are no Python, and were left out.
    """

    lesson: Lesson
    compared: int
    unparsed: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class _Answer:
    """prints: the first token of each fingerprint, by its hash; lines: the line of each token."""

    source: str
    prints: dict[int, list[int]]
    lines: list[int]


def similar(
    course: Course,
    topics: list[str] | None = None,
    count: int = 20,
    say: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[Similarity]:
    """The `count` most similar pairs in each of the lessons `topics` (all when none) that are graded.

    O(tokens), and for each fingerprint O(COMMON^2) at most. Raises CourseError when nothing is graded.
    """
    lessons = [x for x in course.choose(topics) if any(course.autograded.glob(f"*/{x.name}"))]
    if not lessons:
        raise nothing_graded(topics, "there is nothing to compare")
    return [_compare(course, lesson, count, say) for lesson in lessons]


def _compare(course, lesson, count, say) -> Similarity:
    released = {name: _grams_of(source) for name, source in _answers(course.release / lesson.name, lesson)}
    answers: dict[tuple[str, str], _Answer] = {}
    unparsed = 0
    folders = sorted(course.autograded.glob(f"*/{lesson.name}"))
    for done, folder in enumerate(folders):
        say(done, len(folders), f"{lesson.name} {folder.parent.name}")
        for name, source in _answers(folder, lesson):
            try:
                answers[name, folder.parent.name] = _answer(source, released.get(name, set()))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                unparsed += 1
    say(len(folders), len(folders), lesson.name)
    return Similarity(lesson, len(folders), unparsed, tuple(_pairs(answers, len(folders), count)))


def _answers(folder, lesson) -> Iterator[tuple[str, str]]:
    """The student's cells of code in a graded notebook, by grade_id."""
    path = folder / f"{lesson.topic}.ipynb"
    if not path.is_file():
        return
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        settings = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "code" and settings.get("solution"):
            yield settings["grade_id"], "".join(cell["source"])


def _grams_of(source) -> set[int]:
    """Every gram of a released cell; none where it is not yet Python."""
    try:
        return set(grams([token for token, _ in tokens(source)]).tolist())
    except (SyntaxError, ValueError, RecursionError):
        return set()


def _answer(source, released) -> _Answer:
    found = tokens(source)
    prints = defaultdict(list)
    hashes = grams([token for token, _ in found])
    for place in winnow(hashes):
        if int(hashes[place]) not in released:
            prints[int(hashes[place])].append(place)
    return _Answer(source, dict(prints), [line for _, line in found])


def _pairs(answers, students, count) -> list[Pair]:
    holders = defaultdict(list)
    for (exercise, student), answer in answers.items():
        for mark in answer.prints:
            holders[exercise, mark].append(student)
    weights = {
        key: math.log((students + 1) / len(having))
        for key, having in holders.items()
        if len(having) <= COMMON
    }
    shared = Counter()
    for key, weight in weights.items():
        for pair in combinations(sorted(holders[key]), 2):
            shared[pair] += weight
    whole = Counter()
    for (exercise, student), answer in answers.items():
        whole[student] += sum(weights.get((exercise, mark), 0.0) for mark in answer.prints)
    heaviest = sorted(shared.items(), key=lambda item: (-item[1], item[0]))[:count]
    return [
        Pair(pair, weight, weight / min(whole[student] for student in pair), _shared(pair, answers, weights))
        for pair, weight in heaviest
    ]


def _shared(pair, answers, weights) -> tuple[Shared, ...]:
    found = []
    for exercise in dict.fromkeys(exercise for exercise, student in answers if student in pair):
        one, other = (answers.get((exercise, student)) for student in pair)
        if one is None or other is None:
            continue
        marks = {mark for mark in one.prints.keys() & other.prints.keys() if (exercise, mark) in weights}
        if marks:
            weight = sum(weights[exercise, mark] for mark in marks)
            lines = (_lines(one, marks), _lines(other, marks))
            found.append(Shared(exercise, weight, (one.source, other.source), lines))
    return tuple(sorted(found, key=lambda shared: -shared.weight))


def _lines(answer, marks) -> frozenset[int]:
    return frozenset(
        line for mark in marks for place in answer.prints[mark] for line in answer.lines[place : place + GRAM]
    )


# From source to fingerprints.


def tokens(source: str) -> list[tuple[str, int]]:
    """The tokens of a cell in the order of its syntax tree, each with its line. Raises SyntaxError."""
    tree = syntax.tree.__wrapped__(source)  # kept nowhere: there can be a hundred thousand
    own = {node.attr for node in ast.walk(tree) if _is_stored(node)}
    return [(_token(node, own), line) for node, line in _walk(tree)]


def _is_stored(node):
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)


def _walk(tree) -> Iterator[tuple[ast.AST, int]]:
    waiting = [(tree, 1)]
    while waiting:
        node, line = waiting.pop()
        line = getattr(node, "lineno", line)
        yield node, line
        waiting += [(child, line) for child in reversed(list(_children(node)))]


def _children(node) -> Iterator[ast.AST]:
    """What lies right below a node, without what says nothing of how it works."""
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "annotation", "returns", "type_comment", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield child


def _is_text(node):
    """A docstring, or any text that stands alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _token(node, own) -> str:
    kind = type(node).__name__.removeprefix("Ann")  # with or without an annotation, it is an assignment
    if isinstance(node, ast.Attribute):
        return kind if node.attr in own else f".{node.attr}"
    if isinstance(node, ast.Constant):
        return f"{kind} {type(node.value).__name__}"
    if isinstance(node, ast.keyword):
        return f"{kind} {node.arg}"
    return f"{kind} {node.name}" if isinstance(node, ast.alias) else kind


def grams(row: list[str]) -> np.ndarray:
    """A hash of each GRAM tokens in a row."""
    if len(row) < GRAM:
        return np.empty(0, np.uint64)
    numbers = np.array([zlib.crc32(token.encode()) for token in row], np.uint64)
    sums = sliding_window_view(numbers, GRAM) @ _POWERS  # modulo 2^64
    return (sums ^ (sums >> np.uint64(32))) * _SPREAD


def winnow(hashes: np.ndarray) -> list[int]:
    """The places of the fingerprints: in every WINDOW hashes in a row, the rightmost of the smallest."""
    if not len(hashes):
        return []
    windows = sliding_window_view(hashes, min(WINDOW, len(hashes)))
    width = windows.shape[1]
    rightmost = width - 1 - windows[:, ::-1].argmin(axis=1)
    return np.unique(rightmost + np.arange(len(windows))).tolist()
