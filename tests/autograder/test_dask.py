"""Grading on a cluster: real schedulers and workers, each a process of its own, and one of them killed."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classes import LESSON, built_course, graded_files, grades_of, hand_in
from engines import JOURNAL, PAUSE, QuickEngine, graded_so_far

from autograder.course import Course, CourseError
from autograder.grade import grade

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

HERE = Path(__file__).parent
QUIET = {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "0.99", "PYTHONWARNINGS": "ignore"}


class Cluster:
    """A scheduler and its workers, as programs; `within` runs them somewhere, such as in a namespace."""

    def __init__(self, folder: Path, environment: dict | None = None):
        self.folder = folder
        self.environment = {**os.environ, **QUIET, "PYTHONPATH": str(HERE), **(environment or {})}
        self.processes = []
        self.address = None

    def scheduler(self, *options: str, within: tuple = (), host: str = "127.0.0.1") -> str:
        port = free_port()
        arguments = ["scheduler", "--host", host, "--port", str(port), "--no-dashboard", *options]
        self._start("scheduler", arguments, within, "Scheduler at:")
        self.address = re.search(r"Scheduler at:\s+(\w+://[\d.:]+)", self._log("scheduler")).group(1)
        return self.address

    def worker(self, name: str, *options: str, within: tuple = ()) -> subprocess.Popen:
        """A worker without a nanny, so that killing it is the end of it."""
        local = ["--local-directory", str(self.folder / f"{name}-files"), "--no-dashboard", "--no-nanny"]
        arguments = ["worker", self.address, "--name", name, "--nthreads", "1", *local, *options]
        return self._start(name, arguments, within, "Registered to:")

    def _start(self, name, arguments, within, until):
        command = [*within, sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        self.processes.append(process)
        deadline = time.monotonic() + 60
        while until not in self._log(name):
            assert process.poll() is None, self._log(name)
            assert time.monotonic() < deadline, self._log(name)
            time.sleep(0.05)
        return process

    def _log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path):
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Its workers note whom they grade in a file, and take a while for each where a test says so."""
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Cluster(folder)
    yield made
    made.stop()


def test_two_workers_one_killed_in_the_middle_of_a_batch(course, cluster, tmp_path, monkeypatch):
    students = [f"student{i:02d}" for i in range(40)]
    for student in students:
        hand_in(course, student)
    cluster.environment[PAUSE] = "0.05"
    cluster.scheduler()
    victim = cluster.worker("one")
    cluster.worker("two")
    killed = []

    def tell(done, of, what):
        if done == 8 and not killed:
            killed.append(victim.pid)
            os.killpg(victim.pid, signal.SIGKILL)

    graded = grade(course, engine=QuickEngine, scheduler=cluster.address, say=tell)
    assert killed
    assert graded.failed == []
    assert sorted(line.student for line in graded.results) == students
    assert {score for score in grades_of(course).values()} == {5.0}
    assert len(graded_files(course)) == len(students)
    assert len(graded_so_far(tmp_path / "journal")) > len(students)  # the victim's batch was graded twice
