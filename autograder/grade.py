"""`autograder grade`: every submission that is new or changed is graded, and its result put into the
gradebook.

What is done is known by a key: the hash of the submission, of the lesson as it is graded, and of how it is
graded. A result is first written to grading/results, whole or not at all, and then applied to the
gradebook, which notes the key in the same transaction. So the command may be killed at any moment, and
when run again does only what is left.
"""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autograder import workers
from autograder.course import Course, CourseError, Lesson
from autograder.engine import Engine, Result, seed_of
from autograder.gradebook import Writer

VERSION = "1"  # raise it when the same submission would be graded differently
TIMEOUT = 30  # seconds a cell

NO_SANDBOX = """\
Nothing was graded: submissions are programs, and this version has no sandbox to run them in (tier 0).
Without one, a submission runs with your rights: it can read and change your files, other students' work,
the hidden tests and the gradebook, and it can use the network.
If you trust everybody who handed in, or if this is a machine that holds nothing else, say so:
    autograder grade --trust-submissions"""


@dataclass
class Graded:
    """What a run did. `failed`: student, lesson and reason of each submission that has no result."""

    results: list[Result] = field(default_factory=list)
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
) -> Graded:
    """Grades what is new or changed in the lessons `topics` (all when none), in `count` processes
    (default: the cores).

    `say(done, of, what)` is told of each submission. Raises CourseError without `trust`, when another run
    is at work on this course, when a lesson that has submissions is not built, or when the gradebook
    cannot be opened.
    """
    engine = engine or _best_engine()
    if engine.tier == 0 and not trust:
        raise CourseError(NO_SANDBOX)
    with _alone(course), Writer(course) as writer:
        lessons = [x for x in course.choose(topics) if any(course.submitted.glob(f"*/{x.name}"))]
        for lesson in lessons:
            _require_build(course, lesson)
            writer.register(lesson)
        jobs = [job for lesson in lessons for job in _jobs(course, lesson, engine, timeout)]
        graded, todo = _take_over(course, writer, jobs)
        say(0, len(todo), "")
        count = min(count or os.cpu_count() or 1, max(1, len(todo)))
        done = workers.run(todo, engine, (str(course.source), timeout), count)
        for number, (job, result, notebook, failure) in enumerate(done, 1):
            if result is None:
                graded.failed.append((job.student, job.lesson, failure))
            else:
                _keep_notebook(course, job, notebook)
                _apply(course, writer, job, result)
                graded.results.append(result)
            say(number, len(todo), f"{job.student} {job.lesson}")
        return graded


def _best_engine():
    from autograder.stock import NbgraderEngine

    return NbgraderEngine


def _take_over(course, writer, jobs):
    """What earlier runs did, applied to the gradebook where that is missing, and what is left to do."""
    graded = Graded()
    applied = writer.applied()
    todo = []
    for job in jobs:
        stored = read_result(course, job.student, job.lesson)
        notebook = course.autograded / job.student / job.lesson / f"{job.topic}.ipynb"
        if stored is None or stored.key != job.key or not notebook.is_file():
            todo.append(job)
        elif applied.get((job.student, job.lesson)) != job.key:
            _apply(course, writer, job, stored)
            graded.resumed += 1
            graded.results.append(stored)
        else:
            graded.unchanged += 1
    return graded, todo


def _apply(course, writer, job, result):
    """First the result on disk, then the gradebook: a run that dies in between applies it again."""
    path = result_path(course, job.student, job.lesson)
    _write_whole(path, json.dumps(result.as_dict(), ensure_ascii=False, indent=1).encode())
    late = writer.apply(result, job.topic)
    if late != result.seconds_late:
        result.seconds_late = late
        _write_whole(path, json.dumps(result.as_dict(), ensure_ascii=False, indent=1).encode())


def result_path(course: Course, student: str, lesson: str) -> Path:
    """Where the result of a submission is kept."""
    return course.folder / "grading" / "results" / student / f"{lesson}.json"


def read_result(course: Course, student: str, lesson: str) -> Result | None:
    """The last result of a submission; None where there is none that can be read."""
    try:
        plain = json.loads(result_path(course, student, lesson).read_text(encoding="utf-8"))
        return Result.from_dict(plain)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _keep_notebook(course, job, notebook):
    import nbformat

    text = nbformat.writes(nbformat.from_dict(notebook))
    folder = course.autograded / job.student / job.lesson
    _write_whole(folder / f"{job.topic}.ipynb", text.encode())
    if job.timestamp:
        _write_whole(folder / "timestamp.txt", job.timestamp.encode())


def _write_whole(path, data):
    """The file has these bytes, on disk, or what it had before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _jobs(course: Course, lesson: Lesson, engine: type[Engine], timeout: int) -> Iterator[workers.Job]:
    release = _built(course.release, lesson)
    salt = _salt(course)
    graded_by = [_built(course.source, lesson).read_bytes(), release.read_bytes(), salt.encode()]
    graded_by.append(f"{VERSION} {engine.name} {engine.tier} {timeout}".encode())
    for folder in sorted(course.submitted.glob(f"*/{lesson.name}")):
        student = folder.parent.name
        path, notes = _notebook_in(folder, lesson)
        timestamp = _text(folder / "timestamp.txt")
        yield workers.Job(
            student=student,
            lesson=lesson.name,
            topic=lesson.topic,
            path=str(path),
            release=str(release),
            key=_hash(*graded_by, _bytes(path), timestamp.encode(), student.encode()),
            seed=seed_of(salt, student),
            timestamp=timestamp,
            notes=(*notes, *filter(None, [_text(folder / "late.txt")])),
        )


def _notebook_in(folder, lesson):
    """The submission's notebook: by its name, or else the only one there is."""
    path = folder / f"{lesson.topic}.ipynb"
    others = sorted(folder.glob("*.ipynb"))
    if path.exists() or len(others) != 1:
        return path, ()
    return others[0], (f"Your notebook was called {others[0].name}; it was taken for {path.name}.",)


def _bytes(path):
    """Enough of a file to know it by; of one that is too large to be read, its size."""
    from autograder.submission import LARGEST

    if not path.is_file():
        return b""
    size = path.stat().st_size
    return path.read_bytes() if size <= LARGEST else str(size).encode()


def _hash(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _text(path):
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


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
