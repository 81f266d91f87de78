"""What every grading engine takes and gives, so that one can stand in for another.

An engine gets a mended notebook and runs its cells; it gives a Result for the gradebook and the feedback. It
never sees the gradebook, and what it gives is plain data: a Result crosses to another process as JSON.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Protocol

RIGHT, WRONG, ERROR, UNTOUCHED, BY_HAND = (
    "right",
    "not right yet",
    "error in your code",
    "not attempted",
    "graded by hand",
)


class EngineFailure(Exception):
    """The engine, not the student, failed: the submission has no result, and is graded again next time."""


@dataclass
class Check:
    """One graded cell: what it is worth, what it gave, and what the student is told.

    points is the most it can give; score is None where a person has to grade. message never holds test
    source. seconds: how long the cell ran, where the engine says so; two checks are equal whatever they took.
    """

    grade_id: str
    exercise: str
    points: float
    score: float | None
    outcome: str
    message: str = ""
    hidden: bool = False
    seconds: float | None = field(default=None, compare=False)


@dataclass
class Result:
    """What became of one submission. `key` says of which submission, release and engine it is the result."""

    student: str
    lesson: str
    key: str
    checks: list[Check]
    notes: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    unreadable: str = ""
    seconds: float = 0.0
    engine: str = ""
    tier: int = 0
    timestamp: str = ""
    seconds_late: float = 0.0

    @property
    def score(self) -> float:
        """The sum of what is graded so far; answers that wait for a person count zero."""
        return sum(check.score or 0.0 for check in self.checks)

    @property
    def points(self) -> float:
        return sum(check.points for check in self.checks)

    def as_dict(self) -> dict:
        return {**vars(self), "checks": [dict(vars(check)) for check in self.checks]}

    @classmethod
    def from_dict(cls, plain: dict) -> "Result":
        return cls(**{**plain, "checks": [Check(**check) for check in plain["checks"]]})


@dataclass(frozen=True)
class Mended:
    """A submission as an engine takes it: the release's cells with the student's answers in them."""

    student: str
    lesson: str
    topic: str
    notebook: dict
    seed: str


class Engine(Protocol):
    """Runs a mended notebook. `name` and `tier` (of the sandbox) are recorded with every grade.

    `grade` returns the checks and the graded notebook, whose outputs are such that nbgrader's
    `determine_grade` agrees with the scores. Whatever the submission does, it costs only the exercises
    that do it. Raises EngineFailure.
    """

    name: str
    tier: int

    def grade(self, submission: Mended) -> tuple[list[Check], dict]: ...


def seed_of(salt: str, student: str) -> str:
    """The seed of a student's hidden inputs: the same each time, and not to be guessed without the salt."""
    return hmac.new(salt.encode(), student.encode(), hashlib.sha256).hexdigest()[:16]
