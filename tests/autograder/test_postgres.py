"""The gradebook on a PostgreSQL server: a real one, which is stopped, killed and started again."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from classes import LESSON, built_course, contents, hand_in
from engines import JOURNAL, QuickEngine, graded_so_far

from autograder import gradebook
from autograder.course import Course, CourseError
from autograder.grade import grade

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
PROGRAMS = max(
    Path("/usr/lib/postgresql").glob("*/bin"), default=Path(shutil.which("initdb") or "none").parent
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PROGRAMS / "initdb").is_file(), reason="PostgreSQL's server is not installed"),
]


class Server:
    """A PostgreSQL server in a folder of its own. It refuses to run as root, so root starts it as nobody."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, **self.user)
        self.owner = self.user.get("user") or getpass.getuser()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        command = [PROGRAMS / "initdb", "-D", self.folder / "data", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)
        self.start()

    def start(self):
        command = [PROGRAMS / "postgres", "-D", self.folder / "data", "-k", self.folder, "-p", str(self.port)]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self.user
            )
        ready = [PROGRAMS / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, capture_output=True).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self):
        """As a power cut would: it has no time to say goodbye."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 10
        while self._has_children() and time.monotonic() < deadline:
            time.sleep(0.05)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def _has_children(self):
        """Its backends have process groups of their own, and end when they see that it is gone."""
        found = subprocess.run(["pgrep", "-f", f"^postgres.*{self.port}"], capture_output=True)
        return found.returncode == 0

    def database(self, name: str) -> str:
        """The URL of a new database."""
        self.sql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://{self.owner}@127.0.0.1:{self.port}/{name}"

    def sql(self, name: str, statement: str):
        import psycopg

        place = f"host=127.0.0.1 port={self.port} user={self.owner} dbname={name}"
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute(statement)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def folder(built, tmp_path, monkeypatch):
    """A course in which twenty students have handed in."""
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    course = Course(shutil.copytree(built.folder, tmp_path / "course"))
    for number in range(80):
        hand_in(course, f"student{number:02d}", "return 1" if number % 2 else "pass")
    return course.folder


def run(course, **options):
    return grade(course, count=1, engine=QuickEngine, **options)


def test_both_databases_hold_the_same(folder, server):
    sqlite, postgres = Course(folder), Course(folder, server.database("same"))
    first = run(sqlite)
    again = run(postgres)
    assert (len(first.results), len(again.results), again.resumed) == (80, 80, 80)
    assert contents(postgres) == contents(sqlite)
    assert run(postgres).unchanged == 80
    assert gradebook.totals(postgres.gradebook, LESSON)["student01"] == 5.0


def test_by_hand_and_late_on_a_server(folder, server):
    from nbgrader.api import Gradebook

    course = Course(folder, server.database("byhand"))
    run(course)
    with Gradebook(course.gradebook) as book:
        book.update_or_create_assignment(LESSON, duedate="2026-09-30 10:00:00 UTC")
        found = book.find_grade("triangle_area_hidden", "triangles", LESSON, "student00")
        found.manual_score, found.needs_manual_grade = 2.5, False
        book.db.commit()
        book.grant_extension(LESSON, "student02", hours=2)
    for student in ("student00", "student02"):
        hand_in(course, student, "return 2", time="2026-09-30 11:00:00 UTC")
    late = {line.student: line.seconds_late for line in run(course).results}
    assert late == {"student00": 3600.0, "student02": 0.0}
    grades = contents(course)["student00"]["grades"]
    assert ("triangle_area_hidden", 3.0, 2.5, True) in grades


def test_lost_connections_are_made_anew(folder, server):
    course = Course(folder, server.database("lost"))

    def tell(done, of, what):
        if done in (20, 50):
            ours = "FROM pg_stat_activity WHERE datname = 'lost'"
            server.sql("postgres", f"SELECT pg_terminate_backend(pid) {ours}")

    graded = run(course, say=tell)
    assert (len(graded.results), graded.failed) == (80, [])
    assert len(contents(course)) == 80


def test_a_server_that_is_killed_and_started_again_loses_nothing(folder, server, tmp_path):
    course = Course(folder, server.database("killed"))
    killed = []

    def tell(done, of, what):
        if done == 40:
            server.kill()
            killed.append(done)
            server.start()

    graded = run(course, say=tell)
    assert killed
    assert (len(graded.results), graded.failed) == (80, [])
    assert len(contents(course)) == 80
    assert len(graded_so_far(tmp_path / "journal")) == 80


def test_a_server_that_is_gone_is_said_and_the_next_run_goes_on(folder, server, tmp_path, monkeypatch):
    monkeypatch.setattr(gradebook, "_PAUSES", (0.1, 0.1))
    course = Course(folder, server.database("gone"))
    with pytest.raises(CourseError, match=r"cannot be written: .* No result is lost"):
        run(course, say=lambda done, of, what: server.kill() if done == 40 else None)
    before = len(graded_so_far(tmp_path / "journal"))
    assert 40 <= before < 80
    with pytest.raises(CourseError, match="cannot be opened"):
        run(course)
    server.start()
    graded = run(course)
    assert graded.failed == []
    assert graded.resumed + graded.unchanged >= 32
    assert len(contents(course)) == 80
