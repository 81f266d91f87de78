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
from classes import LESSON, built_course, contents, graded_files, hand_in, without_slow_imports
from engines import JOURNAL, PAUSE, QuickEngine
from rooms import require

from autograder import doctor
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
from autograder import doctor, grade, gradebook, journal
from autograder.course import Course
from engines import QuickEngine

engine = doctor.engine_of(int(sys.argv[2])) if len(sys.argv) > 2 else QuickEngine

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
        graded = grade.grade(Course(sys.argv[1]), count=2, trust=True, engine=engine)
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
    """Grading runs of a course that can be killed, with a quick engine or with the isolated one of a tier."""

    def __init__(self, course: Course, folder: Path, tier: int | None = None):
        paths = os.pathsep.join([without_slow_imports(folder), str(HERE)])
        environment = {**os.environ, JOURNAL: str(folder / "graded"), PAUSE: "0.02", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(course.folder), *([] if tier is None else [str(tier)])],
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


def children(pid: int) -> list[int]:
    """The last one first. Raises ProcessLookupError when it has ended."""
    try:
        return [
            int(child) for child in reversed(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        ]
    except OSError:
        raise ProcessLookupError("It has ended.") from None


# Where a process stands below the run: a word of the command of each on the way.
EXAMINER = ("-c", "autograder.examiner")
ZYGOTE = (*EXAMINER, "bwrap", "bwrap", "autograder.student")
BELOW = {
    "runner": (),
    "worker": EXAMINER[:1],
    "examiner": EXAMINER,
    "examiner's child": (*EXAMINER, "autograder.examiner"),
    "sandbox": ZYGOTE[:3],
    "student's zygote": ZYGOTE,
    "student": (*ZYGOTE, "autograder.student"),
}


def process_of(run: int, kind: str) -> int:
    """A process of that kind, as soon as there is one. Raises ProcessLookupError when the run has ended."""
    while True:
        found = [run]
        for word in BELOW[kind]:
            found = [child for pid in found for child in _children_of(pid, run) if word in _command(child)]
        if found:
            return found[0]
        time.sleep(0.005)


def _children_of(pid, run):
    try:
        return children(pid)
    except ProcessLookupError:
        if pid == run:
            raise
        return []


def _command(pid):
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return [words[0].rpartition("/")[2], *words[1:3]]
    return []


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


@pytest.fixture
def isolated_runs(course, tmp_path):
    require(3)
    made = Runs(course, tmp_path, 3)
    yield made
    made.stop()


def undisturbed(built, course, folder, engine=QuickEngine) -> Course:
    """A course with the same submissions, graded in one go."""
    fresh = Course(shutil.copytree(built.folder, folder / "undisturbed"))
    shutil.copytree(course.submitted, fresh.submitted)
    shutil.copyfile(course.folder / "grading" / "salt", _made(fresh.folder / "grading") / "salt")
    assert grade(fresh, count=2, engine=engine).failed == []
    return fresh


def _made(folder):
    folder.mkdir()
    return folder


def everything(course: Course) -> dict:
    """What grading left behind, but for times: gradebook, autograded folder, and the journal's last words."""
    journal = Journal(journal_path(course))
    students = sorted(path.name for path in course.submitted.iterdir())
    results = {student: _timeless(journal.read(student, LESSON).as_dict()) for student in students}
    files = {
        str(path.relative_to(course.autograded)): path.read_bytes()
        for path in course.autograded.rglob("*")
        if path.is_file()
    }
    return {"gradebook": contents(course), "files": files, "results": results}


def _timeless(result):
    checks = [check | {"seconds": 0} for check in result["checks"]]
    return result | {"seconds": 0, "checks": checks}


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
@pytest.mark.heavy
def test_fifty_killed_at_random_moments_nothing_is_lost(built, course, runs, tmp_path):
    """Runner, with the writer in it, and workers in turn; students hand in for the first time and again."""
    draw = random.Random(0)
    killed = {"runner": 0, "worker": 0}
    for number in range(50):
        for student in {f"student{draw.randrange(number + 10)}" for _ in range(16)}:
            hand_in(course, student, draw.choice(["return 1", "pass"]), time=STAMP.format(number))
        kind = ("runner", "worker")[number % 2]
        runner = runs.start()
        time.sleep(draw.uniform(0, 0.4))  # most runs take longer
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_of(runner, kind), signal.SIGKILL)
            killed[kind] += 1
        assert runs.end() in ((0, -signal.SIGKILL) if kind == "runner" else (0,))
    runs.start()
    assert runs.end() == 0
    assert min(killed.values()) > 20
    assert everything(course) == everything(undisturbed(built, course, tmp_path))


@LINUX
@pytest.mark.heavy
def test_fifty_killed_of_all_processes_nothing_is_lost(built, course, isolated_runs, tmp_path):
    """With the isolated engine. A worker has children, and these too: each kind is killed in turn."""
    runs, draw = isolated_runs, random.Random(0)
    killed = dict.fromkeys(BELOW, 0)
    for number in range(50):
        for student in {f"student{draw.randrange(number + 60)}" for _ in range(60)}:
            hand_in(course, student, draw.choice(["return 1", "pass"]), time=STAMP.format(number))
        kind = list(BELOW)[number % len(BELOW)]
        run = runs.start()
        with contextlib.suppress(ProcessLookupError):
            process_of(run, "student")  # the engine is at work
            time.sleep(draw.uniform(0, 0.3))
            os.kill(process_of(run, kind), signal.SIGKILL)
            killed[kind] += 1
        ended = runs.end()
        assert ended in ((0, -signal.SIGKILL) if kind == "runner" else (0, 1)), kind
    runs.start()
    assert runs.end() == 0
    assert min(killed.values()) >= 5, killed
    assert everything(course) == everything(undisturbed(built, course, tmp_path, doctor.engine_of(3)))


# What the machine can refuse. The run ends with one line that says what to do, and the next one goes on.


def run_in(course: Course, before="", within=(), options=()) -> subprocess.CompletedProcess:
    """`autograder grade` as a program of its own, after some lines that spoil its world."""
    program = f"""
import resource
from autograder import cli, grade
from engines import QuickEngine
grade._best_engine = lambda *_: QuickEngine
{before}
cli.app(["grade", "--workers", "1", "--course", {str(course.folder)!r}, *{list(options)}])
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "400"}
    command = [*within, sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def a_class(course: Course) -> list[str]:
    students = [f"student{i:02d}" for i in range(40)]
    for student in students:
        hand_in(course, student)
    return students


def goes_on(course: Course, students: list[str]) -> None:
    """A run in a world that is whole again has a result for each."""
    graded = grade(course, count=1, engine=QuickEngine)
    assert graded.failed == []
    assert sorted(contents(course)) == sorted(graded_files(course)) == students
    assert not list(course.autograded.rglob("*.new"))


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_said_and_nothing_is_lost(course):
    """The journal is what grows: each of its lines is a few kB, and a graded notebook is less than 20 kB."""
    students = a_class(course)
    told = run_in(course, "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))")
    assert told.returncode == 2
    assert "File too large" in told.stderr or "disk I/O error" in told.stderr
    assert "Traceback" not in told.stderr
    goes_on(course, students)


def can_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this machine gives no mount namespace (unshare)")
@pytest.mark.parametrize(("place", "size"), [("autograded", "300k"), ("grading", "20k")])
def test_a_full_disk_is_said_and_nothing_is_lost(course, place, size):
    """The folder is on a small disk, whose content is kept when it is full."""
    students = a_class(course)
    folder = course.folder / place
    folder.mkdir(exist_ok=True)
    small = f'mount -t tmpfs -o size={size} small {folder} && "$@"'
    script = f"{small}; status=$?; cp -a {folder}/. {folder}.kept; exit $status"
    within = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    told = run_in(course, within=within)
    assert told.returncode == 2
    assert "No space left on device" in told.stderr
    assert "What is graded is kept" in told.stderr
    folder.rmdir()
    folder.with_name(f"{place}.kept").rename(folder)
    goes_on(course, students)


@pytest.mark.slow
def test_a_gradebook_that_cannot_be_written_is_said_and_the_journal_keeps_the_results(course):
    students = a_class(course)
    goes_on(course, students)
    for student in students:
        hand_in(course, student, "pass")
    file = course.gradebook.removeprefix("sqlite:///")
    told = run_in(course, options=["--db", f"sqlite:///file:{file}?mode=ro&uri=true"])
    assert told.returncode == 2
    assert "readonly database" in told.stderr
    assert "No result is lost" in told.stderr
    journal = Journal(journal_path(course))
    assert any(journal.read(student, LESSON).score == 0.0 for student in students)
    goes_on(course, students)
