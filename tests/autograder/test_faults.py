"""Whatever is killed, and whenever: run again, grading ends as if nothing had happened.

The runs are children of one process that has imported everything, so that fifty of them take a minute.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classes import LESSON, built_course, contents, hand_in
from engines import JOURNAL, PAUSE, QuickEngine

from autograder.course import Course
from autograder.grade import grade, journal_path
from autograder.journal import Journal

HERE = Path(__file__).parent
STAMP = "2026-09-30 10:{:02d}:00 UTC"
LINUX = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds the workers through Linux's /proc"
)

PROGRAM = """
import os, signal, sys
from autograder import grade, gradebook, journal
from autograder.course import Course
from engines import QuickEngine

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(module, name):
    before = getattr(module, name)
    setattr(module, name, lambda *args, **options: die(before(*args, **options)))

def tear(file, data):
    file.write(data[: len(data) // 2])
    die()

FAULTS = {
    "nothing": lambda: None,
    "before a notebook is renamed": lambda: setattr(os, "replace", die),
    "after the notebooks": lambda: setattr(journal.Journal, "append", die),
    "in the middle of a line": lambda: setattr(journal, "_write", tear),
    "after the journal": lambda: setattr(gradebook.Writer, "apply", die),
    "in the middle of a transaction": lambda: die_after(gradebook, "_put_grades"),
    "after the commit": lambda: die_after(gradebook.Writer, "apply"),
}

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        FAULTS[line.strip()]()
        graded = grade.grade(Course(sys.argv[1]), count=2, engine=QuickEngine)
        os._exit(len(graded.failed))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
FAULTS = (
    "before a notebook is renamed",
    "after the notebooks",
    "in the middle of a line",
    "after the journal",
    "in the middle of a transaction",
    "after the commit",
)


class Runs:
    """Grading runs of a course that can be killed."""

    def __init__(self, course: Course, folder: Path):
        hidden = folder / "hidden"  # jsonschema can do without this, and it takes a second to import
        hidden.mkdir()
        (hidden / "rfc3987_syntax.py").write_text("raise ImportError")
        paths = os.pathsep.join([str(hidden), str(HERE)])
        environment = {**os.environ, JOURNAL: str(folder / "graded"), PAUSE: "0.02", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(course.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, fault: str = "nothing") -> int:
        """Starts a run and gives its process id."""
        print(fault, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """The exit status of the run: 0 when all have a result, and -9 when it was killed."""
        return int(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def a_child(pid: int) -> int:
    """A worker of a run, as soon as there is one."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        try:
            found = path.read_text().split()
        except FileNotFoundError:
            raise ProcessLookupError("The run has ended.") from None
        if found:
            return int(found[-1])
        time.sleep(0.005)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path, monkeypatch):
    monkeypatch.setenv(JOURNAL, str(tmp_path / "graded"))
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


@pytest.fixture
def runs(course, tmp_path):
    made = Runs(course, tmp_path)
    yield made
    made.stop()


def undisturbed(built, course, folder) -> Course:
    """A course with the same submissions, graded in one go."""
    fresh = Course(shutil.copytree(built.folder, folder / "undisturbed"))
    shutil.copytree(course.submitted, fresh.submitted)
    shutil.copyfile(course.folder / "grading" / "salt", _made(fresh.folder / "grading") / "salt")
    assert grade(fresh, count=2, engine=QuickEngine).failed == []
    return fresh


def _made(folder):
    folder.mkdir()
    return folder


def everything(course: Course) -> dict:
    """What grading left behind, but for times: gradebook, autograded folder, and the journal's last words."""
    journal = Journal(journal_path(course))
    students = sorted(path.name for path in course.submitted.iterdir())
    results = {student: journal.read(student, LESSON).as_dict() | {"seconds": 0} for student in students}
    files = {
        str(path.relative_to(course.autograded)): path.read_bytes()
        for path in course.autograded.rglob("*")
        if path.is_file()
    }
    return {"gradebook": contents(course), "files": files, "results": results}


@pytest.mark.slow
def test_killed_at_each_step_nothing_is_lost(built, course, runs, tmp_path):
    for number, fault in enumerate(FAULTS):
        for student in ("ann", f"bob{number}", f"cat{number}"):
            hand_in(course, student, "return 1" if student < "c" else "pass", time=STAMP.format(number))
        runs.start(fault)
        assert runs.end() == -signal.SIGKILL, fault
    runs.start()
    assert runs.end() == 0
    assert everything(course) == everything(undisturbed(built, course, tmp_path))


@LINUX
@pytest.mark.slow
def test_fifty_killed_at_random_moments_nothing_is_lost(built, course, runs, tmp_path):
    """Runner, with the writer in it, and workers in turn; students hand in for the first time and again."""
    draw = random.Random(0)
    killed = {"runner": 0, "worker": 0}
    for number in range(50):
        for student in {f"student{draw.randrange(number + 10)}" for _ in range(16)}:
            hand_in(course, student, draw.choice(["return 1", "pass"]), time=STAMP.format(number))
        kind = ("runner", "worker")[number % 2]
        runner = runs.start()
        time.sleep(draw.uniform(0, 0.8))
        with contextlib.suppress(ProcessLookupError):
            os.kill(runner if kind == "runner" else a_child(runner), signal.SIGKILL)
            killed[kind] += 1
        assert runs.end() in ((0, -signal.SIGKILL) if kind == "runner" else (0,))
    runs.start()
    assert runs.end() == 0
    assert min(killed.values()) > 20
    assert everything(course) == everything(undisturbed(built, course, tmp_path))
