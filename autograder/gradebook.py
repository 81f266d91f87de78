"""nbgrader's gradebook, with one writer: lessons are registered in it, and results applied to it."""

import os
import sys
import warnings
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.preprocessors import (
    AssignLatePenalties,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
    SaveCells,
)
from sqlalchemy import text
from sqlalchemy.exc import SAWarning, SQLAlchemyError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from autograder.course import Course, CourseError, Lesson
from autograder.engine import Result

# nbgrader's own steps of generate_assignment, up to the one that saves: hidden tests are still in the cells.
_STEPS = (LockCells, ClearSolutions, ClearOutput, ComputeChecksums, SaveCells)

# nbgrader has no index on these foreign keys, and looks grades up by them.
_INDEXES = {
    "grade": "notebook_id",
    "comment": "notebook_id",
    "submitted_notebook": "assignment_id",
    "submitted_assignment": "student_id",
}


def register(db: str, lesson: str, topic: str, source: Path) -> None:
    """Makes the gradebook know a lesson and its graded cells, as nbgrader's generate_assignment would.

    Running it again brings the tests up to date. Raises CourseError when graded cells came or went after
    submissions were graded, which nbgrader's gradebook cannot follow.
    """
    notebook = nbformat.read(source, as_version=4)
    resources = {"nbgrader": {"notebook": topic, "assignment": lesson, "db_url": db}}
    with open_gradebook(db) as book:
        try:
            book.find_assignment(lesson)
        except MissingEntry:
            book.add_assignment(lesson)
    try:
        for step in _STEPS:
            notebook, resources = step().preprocess(notebook, resources)
    except RuntimeError as error:
        raise CourseError(
            f"The graded cells of {lesson} are not those that were graded before: {error}. Keep the gradebook"
            " of the old release, and grade the new one into another: --db sqlite:////path/to/new.db"
        ) from None


class Writer:
    """The one writer of a course's gradebook. Use it in a `with`."""

    def __init__(self, course: Course):
        self.course = course
        self.book = None

    def __enter__(self):
        self.book = open_gradebook(self.course.gradebook)
        self._execute(
            "CREATE TABLE IF NOT EXISTS autograder_applied"
            " (student VARCHAR(128), lesson VARCHAR(128), result_key VARCHAR(64),"
            " PRIMARY KEY (student, lesson))"
        )
        for table, column in _INDEXES.items():
            self._execute(f"CREATE INDEX IF NOT EXISTS autograder_{table} ON {table} ({column})")
        self.book.db.commit()
        return self

    def __exit__(self, *_):
        self.book.close()

    def register(self, lesson: Lesson) -> None:
        """Makes the gradebook know the lesson; see the function of the same name."""
        source = self.course.source / lesson.name / f"{lesson.topic}.ipynb"
        register(self.course.gradebook, lesson.name, lesson.topic, source)
        self.book.db.expire_all()

    def applied(self) -> dict[tuple[str, str], str]:
        """The key of the result that stands in the gradebook, by student and lesson."""
        rows = self._execute("SELECT student, lesson, result_key FROM autograder_applied")
        return {(student, lesson): key for student, lesson, key in rows}

    def apply(self, result: Result, topic: str) -> float:
        """Puts a result into the gradebook, and gives the seconds by which the submission was late.

        Applying it twice changes nothing. Manual scores and comments stay; a cell that has a manual score
        is marked for another look, as nbgrader does.
        """
        submission = self._submission(result)
        notebook = next(book for book in submission.notebooks if book.name == topic)
        grades = {grade.name: grade for grade in notebook.grades}
        for check in result.checks:
            grade = grades[check.grade_id]
            grade.auto_score = check.score
            grade.needs_manual_grade = grade.manual_score is not None or check.score is None
        for comment in notebook.comments:
            comment.auto_comment = "No response." if comment.name in result.untouched else None
        self.book.db.flush()
        late = max(0.0, submission.total_seconds_late)
        notebook.late_submission_penalty = self._penalty(result.student, notebook, late)
        names = {"student": result.student, "lesson": result.lesson}
        self._execute("DELETE FROM autograder_applied WHERE student = :student AND lesson = :lesson", **names)
        self._execute(
            "INSERT INTO autograder_applied VALUES (:student, :lesson, :key)", **names, key=result.key
        )
        self.book.db.commit()
        return late

    def _submission(self, result):
        try:
            self.book.find_student(result.student)
        except MissingEntry:
            self.book.add_student(result.student)
        stamp = {"timestamp": result.timestamp} if result.timestamp else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy
            return self.book.update_or_create_submission(result.lesson, result.student, **stamp)

    def _penalty(self, student, notebook, late):
        """What the late policy of the course's nbgrader_config.py takes off; nbgrader's own takes nothing."""
        if not late:
            return None
        step = AssignLatePenalties(config=self._config())
        step.init_plugin()
        penalty = step.plugin_inst.late_submission_penalty(student, notebook.score, late)
        return None if penalty is None else step._check_late_penalty(notebook, penalty)

    def _config(self):
        path = self.course.folder / "nbgrader_config.py"
        if not path.is_file():
            return Config()
        return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()

    def _execute(self, statement, **values):
        return self.book.db.execute(text(statement), values)


def due(db: str, lesson: str):
    """When the lesson is due (UTC, without a zone), or None where the gradebook names no date."""
    with open_gradebook(db) as book:
        try:
            return book.find_assignment(lesson).duedate
        except MissingEntry:
            return None


def totals(db: str, lesson: str) -> dict[str, float]:
    """The score of each student in a lesson, as the gradebook has it."""
    with open_gradebook(db) as book:
        try:
            submissions = book.assignment_submissions(lesson)
        except MissingEntry:
            return {}
        return {submission.student_id: submission.score for submission in submissions}


def open_gradebook(db: str) -> Gradebook:
    """The gradebook at a URL, made if it is not there yet. Raises CourseError when it cannot be opened."""
    # A new gradebook asks the program `alembic` for its version: the one beside this Python.
    beside = str(Path(sys.executable).parent)
    if beside not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    try:
        return Gradebook(_patient(db))
    except SQLAlchemyError as error:
        raise CourseError(f"The gradebook {db} cannot be opened: {str(error).splitlines()[0]}") from None


def _patient(db):
    """SQLite waits for another reader or writer, such as formgrader, rather than fail at once."""
    if db.startswith("sqlite:") and "timeout=" not in db:
        return f"{db}{'&' if '?' in db else '?'}timeout=60"
    return db
