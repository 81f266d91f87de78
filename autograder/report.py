"""`autograder report`: how the class did, in each exercise, on the terminal and as a page.

Scores are the gradebook's, so those given by hand count; outcomes and messages are those of the last grading.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from nbgrader.api import Assignment, BaseCell, Grade, SubmittedAssignment, SubmittedNotebook
from sqlalchemy import select

from autograder import page
from autograder.course import Course, Lesson
from autograder.engine import BY_HAND, ERROR, RIGHT, UNTOUCHED, WRONG, Result
from autograder.grade import nothing_graded, read_result
from autograder.gradebook import open_gradebook

PARTLY, WAITS = "partly right", "waits for a person"
OUTCOMES = (RIGHT, PARTLY, WRONG, ERROR, UNTOUCHED, WAITS)
FEWEST = 10  # submissions from which a correlation says anything
EPSILON = 1e-9
LONGEST = 160  # characters of a message


@dataclass(frozen=True)
class Exercise:
    """How an exercise went.

    outcomes         how many submissions have each of OUTCOMES
    passed, mean     the share that has full points, and the mean share of the points, of those with a score;
                     None where nobody has one
    discrimination   the correlation of the exercise's score with the rest of the lesson's (point-biserial,
                     for all or nothing); None for fewer than FEWEST submissions, and where one of the two is
                     the same for everybody, or the exercise waits for a person
    message, said    what the check said most often to those who do not have it right, and to how many
    seconds          the median of the time that its tests ran, of the submissions where the engine says so;
                     None where there is none
    """

    name: str
    points: float
    outcomes: dict[str, int]
    passed: float | None
    mean: float | None
    discrimination: float | None
    message: str
    said: int
    seconds: float | None

    @property
    def attempted(self) -> float:
        """The share of submissions that hold an answer."""
        return 1 - self.outcomes[UNTOUCHED] / sum(self.outcomes.values())


@dataclass(frozen=True)
class LessonReport:
    """How a lesson went. Files that could not be read count in `submissions` alone.

    unreadable: whose they are; late: how many, by the due date of now; scores: of each submission that could
    be read; seconds: the median of the time that grading one took; waiting: answers that a person has to
    grade, which count zero until then.
    """

    lesson: Lesson
    submissions: int
    unreadable: tuple[str, ...]
    late: int
    points: float
    scores: np.ndarray
    seconds: float
    waiting: int
    exercises: tuple[Exercise, ...]


def report(
    course: Course,
    topics: list[str] | None = None,
    say: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[LessonReport]:
    """How the class did in the lessons `topics` (all when none) that are graded. O(submissions).

    Raises CourseError when nothing is graded.
    """
    lessons = [x for x in course.choose(topics) if any(course.autograded.glob(f"*/{x.name}"))]
    reports = []
    with open_gradebook(course.gradebook) as book:
        for number, lesson in enumerate(lessons):
            say(number, len(lessons), lesson.name)
            found = _read(course, lesson, _scores(book, lesson), _late(book, lesson))
            reports += [found] if found else []
    if not reports:
        raise nothing_graded(topics, "there is nothing to report")
    return reports


def results(course: Course, lesson: Lesson) -> Iterator[Result]:
    """The last result of each graded submission of a lesson, one after another, by student."""
    for folder in sorted(course.autograded.glob(f"*/{lesson.name}")):
        result = read_result(course, folder.parent.name, lesson.name)
        if result is not None:
            yield result


def _scores(book, lesson) -> dict[tuple[str, str], float | None]:
    """The gradebook's score of each graded cell, by student and cell; None where a person has to grade."""
    cell, submission, notebook = (
        BaseCell.__table__.c,
        SubmittedAssignment.__table__.c,
        SubmittedNotebook.__table__.c,
    )
    found = (
        select(submission.student_id, cell.name, Grade.score, Grade.needs_manual_grade, Grade.manual_score)
        .join(SubmittedNotebook.__table__, notebook.id == Grade.notebook_id)
        .join(SubmittedAssignment.__table__, submission.id == notebook.assignment_id)
        .join(Assignment.__table__, Assignment.__table__.c.id == submission.assignment_id)
        .join(BaseCell.__table__, cell.id == Grade.cell_id)
        .where(Assignment.__table__.c.name == lesson.name)
    )
    return {
        (student, name): None if waits and by_hand is None else score
        for student, name, score, waits, by_hand in book.db.execute(found)
    }


def _late(book, lesson) -> set[str]:
    """Who handed in after the lesson was due, by the due date and the extensions of now."""
    submitted = book.db.query(SubmittedAssignment).join(Assignment).where(Assignment.name == lesson.name)
    return {one.student_id for one in submitted if one.total_seconds_late > 0}


@dataclass
class _Row:
    """What came of one exercise in one submission; score is NaN where a person has to grade, and seconds are
    NaN where the engine says none.
    """

    points: float
    score: float
    outcome: str
    message: str
    seconds: float


def _read(course, lesson, scores, late) -> LessonReport | None:
    points: dict[str, float] = {}
    rows: list[dict[str, _Row]] = []
    submissions = 0
    seconds, unreadable = [], []
    for result in results(course, lesson):
        submissions += 1
        if result.unreadable:
            unreadable.append(result.student)
        else:
            seconds.append(result.seconds)
            rows.append(_rows(result, scores, points))
    if not submissions:
        return None
    names = list(points)
    matrix = np.array([[row[name].score if name in row else np.nan for name in names] for row in rows])
    matrix = matrix.reshape(len(rows), len(names))
    exercises = tuple(
        _exercise(
            name, points[name], [row[name] for row in rows if name in row], _discrimination(matrix, column)
        )
        for column, name in enumerate(names)
    )
    return LessonReport(
        lesson=lesson,
        submissions=submissions,
        unreadable=tuple(unreadable),
        late=len(late),
        points=sum(points.values()),
        scores=np.nansum(matrix, axis=1),
        seconds=float(np.median(seconds)) if seconds else 0.0,
        waiting=sum(exercise.outcomes[WAITS] for exercise in exercises),
        exercises=exercises,
    )


def _rows(result: Result, scores, points) -> dict[str, _Row]:
    """What came of each exercise of a submission. Puts into `points` what each can give."""
    groups: dict[str, list] = {}
    for check in result.checks:
        groups.setdefault(check.exercise or check.grade_id, []).append(check)
    rows = {}
    for name, checks in groups.items():
        worth = sum(check.points for check in checks)
        points[name] = max(worth, points.get(name, 0.0))  # an older release may have had fewer checks
        found = [scores.get((result.student, check.grade_id), check.score) for check in checks]
        score = float("nan") if None in found else sum(found)
        outcome = _outcome(checks, score, worth, name in result.untouched)
        said = (c.message for c in checks if c.message and c.outcome not in (RIGHT, BY_HAND))
        message = "" if outcome == UNTOUCHED else next(said, "")
        taken = [check.seconds for check in checks if check.seconds is not None]
        rows[name] = _Row(worth, score, outcome, message, sum(taken) if taken else float("nan"))
    return rows


def _outcome(checks, score, points, untouched) -> str:
    if score >= points - EPSILON:
        return RIGHT
    if untouched or all(check.outcome == UNTOUCHED for check in checks):
        return UNTOUCHED
    if score > EPSILON:
        return PARTLY
    if np.isnan(score):
        return WAITS
    return ERROR if any(check.outcome == ERROR for check in checks) else WRONG


def _exercise(name, points, rows, discrimination) -> Exercise:
    known = [row for row in rows if not np.isnan(row.score)]
    worth = sum(row.points for row in known)
    outcomes = Counter(row.outcome for row in rows)
    message, said = _commonest(row.message for row in rows if row.message)
    seconds = [row.seconds for row in rows if not np.isnan(row.seconds)]
    return Exercise(
        name=name,
        points=points,
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        passed=outcomes[RIGHT] / len(known) if known else None,
        mean=sum(row.score for row in known) / worth if worth else None,
        discrimination=discrimination,
        message=message,
        said=said,
        seconds=float(np.median(seconds)) if seconds else None,
    )


def _discrimination(matrix, column) -> float | None:
    complete = ~np.isnan(matrix).any(axis=0)
    others = [other for other in np.flatnonzero(complete) if other != column]
    if len(matrix) < FEWEST or not complete[column]:
        return None
    score, rest = matrix[:, column], matrix[:, others].sum(axis=1)
    if np.ptp(score) < EPSILON or np.ptp(rest) < EPSILON:
        return None
    return float(np.corrcoef(score, rest)[0, 1])


def _commonest(messages: Iterable[str]) -> tuple[str, int]:
    """The message that comes most often, numbers in it aside, as its first reader got it; and how often."""
    counts, first = Counter(), {}
    for message in messages:
        text = " ".join(page.without_head(message).split())
        kind = re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", text)
        counts[kind] += 1
        first.setdefault(kind, text)
    kind, count = (counts.most_common(1) or [("", 0)])[0]
    text = first.get(kind, "")
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."), count
