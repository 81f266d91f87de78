"""`autograder grade`: every submission that is new or changed is graded, and its result put into the
gradebook.

What is done is known by a key: the hash of the submission, of the lesson as it is graded, and of what grades
it. A batch of results goes three ways, in this order: the graded notebooks, each whole or not at all; the
journal, which is the truth; and the gradebook, which notes the keys in the same transaction. So the command
may be killed at any moment, and when run again does only what is left.
"""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nbgrader.utils import parse_utc

from autograder import workers
from autograder.course import Course, CourseError, Lesson
from autograder.engine import Engine, EngineFailure, Result, seed_of
from autograder.gradebook import Writer
from autograder.journal import Journal
from autograder.submission import OTHER_LESSON

BATCH = 32  # results that are put away together, at most
SOON = 1.0  # seconds after which those that have come are put away
LONGEST_ID = 128  # characters of a student's name that nbgrader's gradebook takes
VERSION = "4"  # raise it when the same submission would be graded differently
TIMEOUT = 30  # seconds a cell

NO_SANDBOX = """\
Nothing was graded: submissions are programs, and this machine has no sandbox to run them in (tier 0).
`autograder doctor` says what is missing.
Without one, a submission runs with your rights: it can read and change your files, other students' work,
the hidden tests and the gradebook, and it can use the network.
If you trust everybody who handed in, or if this is a machine that holds nothing else, say so:
    autograder grade --trust-submissions"""


@dataclass(frozen=True)
class Line:
    """What a run says of a submission; `read_result` has all of it. other: it looks like another lesson's."""

    student: str
    lesson: str
    score: float
    unreadable: str
    seconds_late: float
    other: bool


@dataclass
class Graded:
    """What a run did. `failed`: student, lesson and reason of each submission that has no result; `ignored`:
    what lies where no submission belongs.
    """

    results: list[Line] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unchanged: int = 0
    resumed: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)


def grade(
    course: Course,
    topics: list[str] | None = None,
    count: int | None = None,
    trust: bool = False,
    timeout: int = TIMEOUT,
    say: Callable[[int, int, str], None] = lambda done, of, what: None,
    engine: type[Engine] | None = None,
    scheduler=None,
    in_process: bool = False,
) -> Graded:
    """Grades what is new or changed in the lessons `topics` (all when none), in `count` processes
    (default: the cores), or on the machines of a Dask `scheduler`: its address, or a connected Client.

    in_process runs the tests in the student's process, for tests that need it; a submission can then tamper
    with them. `say(done, of, what)` is told of each submission.

    Raises CourseError without `trust`, when another run is at work on this course, when a lesson that has
    submissions is not built, when the engine or the cluster cannot be used, and when the disk or the
    gradebook cannot be written. What was graded by then is kept, and the next run goes on from there.
    """
    engine = engine or _best_engine(in_process)
    if engine.tier == 0 and not trust:
        raise CourseError(NO_SANDBOX)
    with _said_plainly(), _alone(course), Writer(course) as writer:
        lessons = [x for x in course.choose(topics) if any(course.submitted.glob(f"*/{x.name}"))]
        for lesson in lessons:
            _require_build(course, lesson)
            writer.register(lesson)
        graded = Graded(ignored=list(_ignored(course)))
        jobs = [job for lesson in lessons for job in _jobs(course, lesson, engine, timeout, graded)]
        keeper = Keeper(course, writer, graded)
        todo = keeper.take_over(jobs)
        say(0, len(todo), "")
        answers = _answers(course, todo, engine, timeout, count, scheduler)
        try:
            with closing(answers):
                for number, (job, result, notebook, failure) in enumerate(answers, 1):
                    keeper.keep(job, result, notebook, failure)
                    say(number, len(todo), f"{job.student} {job.lesson}")
        finally:  # also when the engine or the cluster gives up
            keeper.put_away()
        return graded


def _answers(course, todo, engine, timeout, count, scheduler):
    if scheduler is None:
        from joblib import cpu_count  # a container may have fewer than the machine

        count = min(count or cpu_count(), max(1, len(todo)))
        return workers.run(todo, engine, (str(course.source), timeout), count)
    from autograder import dask

    return dask.run(todo, engine, course, timeout, scheduler)


@contextmanager
def _said_plainly():
    """Troubles of the machine in one line, with what to do about them."""
    try:
        yield
    except EngineFailure as error:
        raise CourseError(f"The grading engine cannot start: {error}") from None
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise CourseError(
            f"Grading stopped: {error.strerror or error}{place}. What is graded is kept. Mend that, and run"
            " the same command: it does what is left."
        ) from error


def _best_engine(in_process=False):
    """The engine of the best sandbox here; nbgrader's own where the isolated one does not run."""
    from autograder import doctor

    tier = doctor.examine().tier
    if tier == 0 and not doctor.can_isolate():
        from autograder.stock import NbgraderEngine

        return NbgraderEngine
    return doctor.engine_of(tier, in_process)


class Keeper:
    """Puts results away, in batches: notebooks, journal, gradebook."""

    def __init__(self, course: Course, writer: Writer, graded: Graded):
        self.course, self.writer, self.graded = course, writer, graded
        self.journal = Journal(journal_path(course))
        self.waiting: list[tuple[workers.Job, Result, str]] = []
        self.last = time.monotonic()

    def take_over(self, jobs: list[workers.Job]) -> list[workers.Job]:
        """The jobs that are left to do. What earlier runs did is applied to the gradebook where it is not."""
        applied = self.writer.applied()
        todo, missing = [], []
        for job in jobs:
            if (
                self.journal.key(job.student, job.lesson) != job.key
                or not _graded_notebook(self.course, job).is_file()
            ):
                todo.append(job)
            elif applied.get((job.student, job.lesson)) != job.key:
                missing.append(job)
            else:
                self.graded.unchanged += 1
        for start in range(0, len(missing), BATCH):
            results = [self.journal.read(job.student, job.lesson) for job in missing[start : start + BATCH]]
            self.writer.note_lateness(results)
            self._apply(results)
        self.graded.resumed = len(missing)
        return todo

    def keep(self, job: workers.Job, result: Result | None, notebook: str | None, failure: str) -> None:
        """Takes what became of a job. It is put away with a full batch, or a second after the last one."""
        if result is not None:
            scored, must = {check.grade_id for check in result.checks}, self.writer.graded_cells(job.lesson)
            names = ", ".join(sorted(scored ^ must))
            failure = names and f"The engine's result does not fit the lesson's graded cells: {names}"
        if failure:
            self.graded.failed.append((job.student, job.lesson, failure))
            return
        self.waiting.append((job, result, notebook))
        if len(self.waiting) >= BATCH or time.monotonic() - self.last > SOON:
            self.put_away()

    def put_away(self) -> None:
        """Puts away what waits: each step is on disk before the next begins, so none is ahead of its past."""
        batch, self.waiting = self.waiting, []
        if batch:
            with ThreadPoolExecutor(8) as pool:  # the disk takes many files at a time, each of them slowly
                list(pool.map(lambda kept: _keep_notebook(self.course, kept[0], kept[2]), batch))
            results = [result for _, result, _ in batch]
            self.writer.note_lateness(results)
            self.journal.append(results)
            self._apply(results)
        self.last = time.monotonic()

    def _apply(self, results):
        self.writer.apply(results)
        self.graded.results += [
            Line(r.student, r.lesson, r.score, r.unreadable, r.seconds_late, OTHER_LESSON in r.notes)
            for r in results
        ]


def journal_path(course: Course) -> Path:
    """Where the results are kept."""
    return course.folder / "grading" / "journal.jsonl"


def read_result(course: Course, student: str, lesson: str) -> Result | None:
    """The last result of a submission; None where there is none."""
    journal = _journal(journal_path(course))
    journal.refresh()
    return journal.read(student, lesson)


_journal = cache(Journal)


def _ignored(course: Course) -> Iterator[str]:
    """Notebooks and folders in the submitted folder that belong to no lesson."""
    known = {lesson.name for lesson in course.lessons}
    for path in sorted(course.submitted.glob("*.ipynb")):
        yield path.name
    for path in sorted(course.submitted.glob("*/*")):
        if path.name not in known and (path.is_dir() or path.suffix == ".ipynb"):
            yield f"{path.parent.name}/{path.name}"


def nothing_graded(topics: list[str] | None, so: str) -> CourseError:
    """For commands that need results: there are none."""
    which = f"of {', '.join(topics)} " if topics else ""
    return CourseError(f"Nothing {which}is graded yet, so {so}. Run: autograder grade")


def _graded_notebook(course, job):
    return course.autograded / job.student / job.lesson / f"{job.topic}.ipynb"


def _keep_notebook(course, job, notebook):
    path = _graded_notebook(course, job)
    if job.timestamp:
        _write_whole(path.with_name("timestamp.txt"), job.timestamp.encode())
    _write_whole(path, notebook.encode(errors="replace"))  # JSON has half characters, and UTF-8 has none


def _write_whole(path, data):
    """The file has these bytes, on disk, or what it had before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)


def _jobs(
    course: Course, lesson: Lesson, engine: type[Engine], timeout: int, graded: Graded
) -> Iterator[workers.Job]:
    release = _built(course.release, lesson)
    salt = _salt(course)
    graded_by = [_built(course.source, lesson).read_bytes(), release.read_bytes(), salt.encode()]
    graded_by.append(f"{VERSION} {engine.name} {engine.tier} {timeout} {workers.environment()}".encode())
    for folder in sorted(course.submitted.glob(f"*/{lesson.name}")):
        student = folder.parent.name
        if not _can_be_kept(student):
            reason = f"The folder's name is no student's id: at most {LONGEST_ID} characters, in UTF-8"
            graded.failed.append((ascii(student)[:40], lesson.name, reason))
            continue
        try:
            path, notes = _notebook_in(folder, lesson)
            timestamp, doubt = _timestamp(folder / "timestamp.txt")
            late = _text(folder / "late.txt")
            key = _hash(*graded_by, _bytes(path), timestamp.encode(), student.encode())
        except OSError as error:
            reason = f"{error.filename} cannot be read: {error.strerror}"
            graded.failed.append((student, lesson.name, reason))
            continue
        yield workers.Job(
            student=student,
            lesson=lesson.name,
            topic=lesson.topic,
            path=str(path),
            release=str(release),
            key=key,
            seed=seed_of(salt, student),
            timestamp=timestamp,
            notes=(*notes, *filter(None, [doubt, late])),
        )


def _can_be_kept(student):
    """Whether the databases take the id: a file system's names can hold bytes that are no text."""
    try:
        return len(student) <= LONGEST_ID and bool(student.encode())
    except UnicodeEncodeError:
        return False


def _timestamp(path):
    """When the work was handed in, and a note for the student where the file does not say it."""
    stamp = _text(path)
    try:
        parse_utc(stamp or None)
    except (ValueError, OverflowError):
        return "", f"The time stamp {stamp[:40]!r} means nothing, so the work counts as in time."
    return stamp, ""


def _notebook_in(folder, lesson):
    """The submission's notebook: by its name, or else the only one there is."""
    path = folder / f"{lesson.topic}.ipynb"
    others = sorted(folder.glob("*.ipynb"))
    if path.is_symlink() or path.exists() or len(others) != 1:
        return path, ()
    return others[0], (f"Your notebook was called {others[0].name}; it was taken for {path.name}.",)


def _bytes(path):
    """Enough of a file to know it by; of one that is too large to be read, its size."""
    from autograder.submission import LARGEST

    if path.is_symlink() or not path.is_file():
        return b""
    size = path.stat().st_size
    return path.read_bytes() if size <= LARGEST else str(size).encode()


def _hash(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _text(path):
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _salt(course):
    """The course's secret, from which the seeds of hidden inputs are made; made at the first grading."""
    path = course.folder / "grading" / "salt"
    if not path.is_file():
        _write_whole(path, secrets.token_hex(16).encode())
        path.chmod(0o600)
    return _text(path)


def _require_build(course, lesson):
    for folder in (course.source, course.release):
        if not _built(folder, lesson).is_file():
            raise CourseError(
                f"{_built(folder, lesson)} is missing, so {lesson.name} cannot be graded. "
                f"Run: autograder build {lesson.topic}"
            )


def _built(folder, lesson):
    return folder / lesson.name / f"{lesson.topic}.ipynb"


@contextmanager
def _alone(course):
    """One grading run for each course: the lock goes with the process that holds it, however that ends."""
    path = course.folder / "grading" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(
                f"Another `autograder grade` is at work on {course.folder}. Wait for it, or stop it."
            ) from None
        yield
