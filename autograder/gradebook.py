"""nbgrader's gradebook, with one writer: lessons are registered in it, and results applied in batches.

SQLite in a file, or PostgreSQL: either way nbgrader and formgrader see what they would have written.
"""

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nbformat
from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Notebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    get_alembic_version,
)
from nbgrader.preprocessors import (
    AssignLatePenalties,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
    SaveCells,
)
from nbgrader.utils import parse_utc
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
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

# What the writer adds to nbgrader's tables: which result stands in the gradebook, written in the transaction
# that applies it; and from which source a lesson was registered.
_OURS = MetaData()
_APPLIED = Table(
    "autograder_applied",
    _OURS,
    Column("student", String(128), primary_key=True),
    Column("lesson", String(128), primary_key=True),
    Column("result_key", String(64)),
)
_REGISTERED = Table(
    "autograder_registered",
    _OURS,
    Column("lesson", String(128), primary_key=True),
    Column("source_key", String(64)),
)

_PAUSES = (0.5, 1, 2, 4, 8)  # seconds between tries, when a server's connection is lost

# Where the write-ahead log's shared memory works: elsewhere, as on NFS, another machine would not see it.
_LOCAL = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "bcachefs",
    "tmpfs",
    "overlay",
    "apfs",
    "hfs",
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


class _Registered(NamedTuple):
    """The ids that the gradebook gave a lesson and its cells, and when the lesson is due."""

    assignment: str
    notebook: str
    grades: dict[str, str]  # of graded cells, by name
    comments: dict[str, str]  # of cells that take a comment: answers and tasks
    due: datetime | None
    extensions: dict[str, timedelta]  # by student


class _Submitted(NamedTuple):
    """A student's submission in the gradebook."""

    id: str
    timestamp: datetime | None
    extension: timedelta | None


class Writer:
    """The one writer of a course's gradebook. Use it in a `with`.

    Everything that it writes is applied in transactions, each whole or not at all, and writing it twice
    changes nothing. A connection to a server that is lost is made anew, for some fifteen seconds; then, and
    for every other trouble with the database, its methods raise CourseError.
    """

    def __init__(self, course: Course):
        self.course = course
        self.book = None
        self.lessons: dict[str, _Registered] = {}
        self.late_policy = None

    def __enter__(self) -> "Writer":
        self.book = open_gradebook(self.course.gradebook)
        try:
            _log_ahead(self.book.engine)
            self._transact(_prepare)
        except BaseException:
            self.book.close()
            raise
        return self

    def __exit__(self, *_):
        self.book.close()

    def register(self, lesson: Lesson) -> None:
        """Makes the gradebook know the lesson as it is built; see the function of the same name."""
        source = self.course.source / lesson.name / f"{lesson.topic}.ipynb"
        key = hashlib.sha256(source.read_bytes()).hexdigest()
        if self._transact(_source_key, lesson) != key:
            try:
                register(self.course.gradebook, lesson.name, lesson.topic, source)
            except SQLAlchemyError as error:
                raise _cannot_write(self.course.gradebook, error) from None
            row = {"lesson": lesson.name, "source_key": key}
            self._transact(_upsert, _REGISTERED, [row], ("lesson",), ("source_key",))
        self.lessons[lesson.name] = self._transact(_ids, lesson)

    def graded_cells(self, lesson: str) -> set[str]:
        """The names of the cells that a result of this registered lesson gives scores to."""
        return set(self.lessons[lesson].grades)

    def applied(self) -> dict[tuple[str, str], str]:
        """The key of the result that stands in the gradebook, by student and lesson."""
        return {(student, lesson): key for student, lesson, key in self._transact(_applied)}

    def note_lateness(self, results: Sequence[Result]) -> None:
        """Sets seconds_late of the results, by the due dates and extensions that stood when the lesson was
        registered: the gradebook need not be there.
        """
        for result in results:
            known = self.lessons[result.lesson]
            timestamp = _moment(result.timestamp)
            extension = known.extensions.get(result.student)
            result.seconds_late = _seconds_late(timestamp, known.due, extension)

    def apply(self, results: Sequence[Result]) -> None:
        """Puts results into the gradebook in one transaction, and notes in it that they are there.

        Manual scores and comments stay; a cell that has a manual score is marked for another look, as
        nbgrader does. Of two results of one submission the later counts. O(results), whatever the gradebook
        holds already.
        """
        last = {(result.student, result.lesson): result for result in results}
        self._transact(self._apply, _by_lesson(last.values()))

    def _apply(self, connection: Connection, groups) -> None:
        for lesson, results in groups:
            known = self.lessons[lesson]
            _add_submissions(connection, known, results)
            due, submitted = _deadlines(connection, known, [result.student for result in results])
            notebooks = _add_notebooks(connection, known, submitted)
            _put_grades(connection, known, results, notebooks)
            _put_comments(connection, known, results, notebooks)
            self._put_penalties(connection, results, submitted, due, notebooks)
            keys = [{"student": r.student, "lesson": lesson, "result_key": r.key} for r in results]
            _upsert(connection, _APPLIED, keys, on=("student", "lesson"), set=("result_key",))

    def _put_penalties(self, connection, results, submitted, due, notebooks) -> None:
        """What the late policy of the course's nbgrader_config.py takes off; nbgrader's own takes nothing."""
        late = {student: _seconds_late(s.timestamp, due, s.extension) for student, s in submitted.items()}
        late_ones = [notebooks[result.student] for result in results if late[result.student]]
        scores = _scores(connection, late_ones)
        rows = []
        for result in results:
            notebook = notebooks[result.student]
            seconds = late[result.student]
            penalty = self._penalty(result.student, scores[notebook], seconds) if seconds else None
            rows.append({"notebook": notebook, "penalty": penalty})
        table = SubmittedNotebook.__table__
        change = update(table).where(table.c.id == bindparam("notebook"))
        connection.execute(change.values(late_submission_penalty=bindparam("penalty")), rows)

    def _penalty(self, student: str, score: float, seconds: float) -> float | None:
        if self.late_policy is None:
            self.late_policy = AssignLatePenalties(config=self._config())
            self.late_policy.init_plugin()
        penalty = self.late_policy.plugin_inst.late_submission_penalty(student, score, seconds)
        if penalty is None:
            return None
        return self.late_policy._check_late_penalty(SimpleNamespace(score=score), penalty)

    def _config(self):
        path = self.course.folder / "nbgrader_config.py"
        if not path.is_file():
            return Config()
        return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()

    def _transact(self, work: Callable, *args) -> Any:
        """work(connection, *args) in a transaction; once more on a new connection where one was lost."""
        for pause in (*_PAUSES, None):
            try:
                with self.book.engine.begin() as connection:
                    return work(connection, *args)
            except DBAPIError as error:
                if pause is None or not _may_come_back(error, self.book.engine):
                    raise _cannot_write(self.course.gradebook, error) from None
            self.book.engine.dispose()
            time.sleep(pause)


def _may_come_back(error, engine):
    """Whether a server lost the connection, or is starting. SQLite has waited already when it complains."""
    return engine.dialect.name != "sqlite" and isinstance(error, OperationalError | InterfaceError)


def _cannot_write(db, error):
    return CourseError(
        f"The gradebook {_shown(db)} cannot be written: {_reason(error)}. No result is lost: those that are"
        " not in it yet are in the journal. When it can be written again, run the same command."
    )


def _reason(error):
    text = str(getattr(error, "orig", None) or error).strip()
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")


def _prepare(connection: Connection) -> None:
    """What the writer needs beyond nbgrader's tables; and what is missing where a first run was killed."""
    _OURS.create_all(connection)
    for table, column in _INDEXES.items():
        connection.execute(text(f"CREATE INDEX IF NOT EXISTS autograder_{table} ON {table} ({column})"))
    connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)"))
    if connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 0:
        insert = text("INSERT INTO alembic_version VALUES (:version)")
        connection.execute(insert, {"version": get_alembic_version()})


def _log_ahead(engine) -> None:
    """Lets formgrader read while results are written, where the file system can do that."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    if _file_system(Path(engine.url.database)) in _LOCAL:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except OperationalError as error:
            raise _cannot_write(str(engine.url), error) from None


def _file_system(path: Path) -> str:
    """The type of the file system that a path is on; empty where that cannot be known."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    within = [(fields[1], fields[2]) for fields in mounts if path.resolve().is_relative_to(fields[1])]
    return max(within, key=lambda mount: len(mount[0]), default=("", ""))[1]


# The steps of a transaction, each a statement or two for all submissions of one lesson.


def _by_lesson(results) -> list[tuple[str, list[Result]]]:
    ordered = sorted(results, key=lambda result: result.lesson)
    return [(lesson, list(group)) for lesson, group in groupby(ordered, lambda result: result.lesson)]


def _source_key(connection: Connection, lesson: Lesson) -> str | None:
    """Of what the lesson was registered from; None where the gradebook does not have it."""
    key = select(_REGISTERED.c.source_key).where(_REGISTERED.c.lesson == lesson.name)
    return connection.execute(key).scalar() if _notebook(connection, lesson) else None


def _notebook(connection: Connection, lesson: Lesson):
    found = select(Notebook.assignment_id, Notebook.id).join(
        Assignment, Assignment.id == Notebook.assignment_id
    )
    return connection.execute(
        found.where(Assignment.name == lesson.name, Notebook.name == lesson.topic)
    ).first()


def _ids(connection: Connection, lesson: Lesson) -> _Registered:
    assignment, notebook = _notebook(connection, lesson)
    cell = BaseCell.__table__.c
    cells = connection.execute(
        select(cell.name, cell.id, cell.type).where(cell.notebook_id == notebook)
    ).all()
    grades = {name: id for name, id, kind in cells if kind in ("GradeCell", "TaskCell")}
    comments = {name: id for name, id, kind in cells if kind in ("SolutionCell", "TaskCell")}
    granted = SubmittedAssignment.__table__.c
    extensions = connection.execute(
        select(granted.student_id, granted.extension).where(
            granted.assignment_id == assignment, granted.extension.isnot(None)
        )
    )
    due = _due(connection, assignment)
    return _Registered(assignment, notebook, grades, comments, due, dict(extensions.all()))


def _applied(connection: Connection) -> list:
    return connection.execute(select(_APPLIED)).all()


def _add_submissions(connection, known, results) -> None:
    _upsert(connection, Student.__table__, [{"id": result.student} for result in results], on=("id",))
    stamped = [(result, _moment(result.timestamp)) for result in results]
    for has_stamp, change in ((True, ("timestamp",)), (False, ())):
        rows = [
            {"id": _new_id(), "assignment_id": known.assignment, "student_id": r.student, "timestamp": stamp}
            for r, stamp in stamped
            if (stamp is not None) == has_stamp
        ]
        _upsert(
            connection, SubmittedAssignment.__table__, rows, on=("assignment_id", "student_id"), set=change
        )


def _deadlines(connection, known, students) -> tuple[datetime | None, dict[str, _Submitted]]:
    """When the lesson is due, and what the students handed in, as far as the gradebook knows it."""
    table = SubmittedAssignment.__table__.c
    rows = connection.execute(
        select(table.student_id, table.id, table.timestamp, table.extension).where(
            table.assignment_id == known.assignment, table.student_id.in_(students)
        )
    )
    submitted = {student: _Submitted(*rest) for student, *rest in rows}
    return _due(connection, known.assignment), submitted


def _due(connection, assignment) -> datetime | None:
    return connection.execute(select(Assignment.duedate).where(Assignment.id == assignment)).scalar()


@lru_cache(maxsize=10_000)
def _moment(timestamp: str) -> datetime | None:
    """A time stamp as the gradebook keeps it: UTC, without a zone. Each is asked for more than once."""
    return parse_utc(timestamp) if timestamp else None


def _seconds_late(timestamp, due, extension) -> float:
    if timestamp is None or due is None:
        return 0.0
    by = due if extension is None else due + extension
    return max(0.0, (timestamp - by).total_seconds())


def _add_notebooks(connection, known, submitted) -> dict[str, str]:
    """The id of each student's notebook in the gradebook."""
    table = SubmittedNotebook.__table__
    rows = [
        {"id": _new_id(), "assignment_id": found.id, "notebook_id": known.notebook, "flagged": False}
        for found in submitted.values()
    ]
    _upsert(connection, table, rows, on=("notebook_id", "assignment_id"))
    students = {found.id: student for student, found in submitted.items()}
    found = connection.execute(
        select(table.c.assignment_id, table.c.id).where(
            table.c.notebook_id == known.notebook, table.c.assignment_id.in_(list(students))
        )
    )
    return {students[submission]: notebook for submission, notebook in found}


def _put_grades(connection, known, results, notebooks) -> None:
    """nbgrader's rule: what has no score, or had one by hand, asks for a person's look."""
    table = Grade.__table__
    rows = [
        {
            "id": _new_id(),
            "notebook_id": notebooks[result.student],
            "cell_id": known.grades[check.grade_id],
            "auto_score": check.score,
            "needs_manual_grade": check.score is None,
        }
        for result in results
        for check in result.checks
    ]
    again = table.c.manual_score.isnot(None)
    _upsert(
        connection,
        table,
        rows,
        on=("cell_id", "notebook_id"),
        set=("auto_score", "needs_manual_grade"),
        also=lambda new: {"needs_manual_grade": again | new.needs_manual_grade},
    )


def _put_comments(connection, known, results, notebooks) -> None:
    rows = [
        {
            "id": _new_id(),
            "notebook_id": notebooks[result.student],
            "cell_id": cell,
            "auto_comment": "No response." if name in result.untouched else None,
        }
        for result in results
        for name, cell in known.comments.items()
    ]
    _upsert(connection, Comment.__table__, rows, on=("cell_id", "notebook_id"), set=("auto_comment",))


def _scores(connection, notebooks) -> dict[str, float]:
    if not notebooks:
        return {}
    score = func.coalesce(func.sum(Grade.score), 0.0)
    found = (
        select(Grade.notebook_id, score).where(Grade.notebook_id.in_(notebooks)).group_by(Grade.notebook_id)
    )
    return {notebook: score for notebook, score in connection.execute(found)}  # noqa: C416


def _new_id() -> str:
    """32 hexadecimal digits, as nbgrader's ids have, but in the order of time: an index then grows at its
    end. Ids drawn by lot would touch a page anywhere for each row, and cost more with each student.
    """
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def _upsert(connection, table, rows, on, set=(), also=lambda new: {}) -> None:
    """Inserts rows; where one with the same `on` is there already, it takes the columns `set` of the new."""
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table)
    if set:
        values = {name: insert.excluded[name] for name in set} | also(insert.excluded)
        insert = insert.on_conflict_do_update(index_elements=on, set_=values)
    else:
        insert = insert.on_conflict_do_nothing(index_elements=on)
    connection.execute(insert, rows)


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
    except ModuleNotFoundError as error:
        raise CourseError(
            f"The gradebook {_shown(db)} needs the package {error.name}. For PostgreSQL:"
            " pip install 'normalizing-flows-course[postgres]'"
        ) from None
    except SQLAlchemyError as error:
        raise CourseError(f"The gradebook {_shown(db)} cannot be opened: {_reason(error)}.") from None


def _patient(db):
    """SQLite waits for another reader or writer, such as formgrader, rather than fail at once."""
    if db.startswith("sqlite:") and "timeout=" not in db:
        return f"{db}{'&' if '?' in db else '?'}timeout=60"
    return db


def _shown(db):
    """The URL without its password."""
    try:
        return make_url(db).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(its URL cannot be read)"
