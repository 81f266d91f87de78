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
from classes import LESSON, built_course, contents, graded_files, grades_of, hand_in
from engines import JOURNAL, PAUSE, QuickEngine, graded_so_far

from autograder.course import Course, CourseError
from autograder.grade import grade

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
import dask as dask_itself

from autograder import dask, workers

pytestmark = pytest.mark.slow

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
            deadline = time.monotonic() + 10
            while len(graded_so_far(tmp_path / "journal")) < done + 9 and time.monotonic() < deadline:
                time.sleep(0.01)  # more than one batch of 8 is begun and not done: both are in the middle
            killed.append(victim.pid)
            os.killpg(victim.pid, signal.SIGKILL)

    graded = grade(course, engine=QuickEngine, scheduler=cluster.address, say=tell)
    assert killed
    assert graded.failed == []
    assert sorted(line.student for line in graded.results) == students
    assert set(grades_of(course).values()) == {5.0}
    assert len(graded_files(course)) == len(students)
    assert len(graded_so_far(tmp_path / "journal")) > len(students)  # the victim's batch was graded twice


def test_a_cluster_and_this_machine_give_the_same(course, built, cluster, tmp_path):
    """Also for a file that is missing, one that is no notebook, and one that is too large to be sent."""
    for number in range(20):
        hand_in(course, f"student{number:02d}", "return 1" if number % 2 else "pass")
    hand_in(course, "html", data=b"<html>")
    hand_in(course, "fails", "the engine fails")
    hand_in(course, "dies", "the worker dies")
    for student in ("missing", "large"):
        hand_in(course, student)
    (course.submitted / "missing" / LESSON / "triangles.ipynb").unlink()
    os.truncate(course.submitted / "large" / LESSON / "triangles.ipynb", 200 * 2**20)
    here = Course(shutil.copytree(course.folder, tmp_path / "here"))
    cluster.scheduler()
    cluster.worker("one", "--resources", "grading=1")
    graded = grade(course, engine=QuickEngine, scheduler=cluster.address)
    locally = grade(here, count=1, engine=QuickEngine)
    assert [student for student, _, _ in sorted(graded.failed)] == ["dies", "fails"]
    assert sorted(graded.failed) == sorted(locally.failed)
    assert contents(course) == contents(here)
    assert graded_files(course) == graded_files(here)
    assert len(grades_of(course)) == 23


def test_two_hosts_that_share_no_files(course, cluster, tmp_path):
    """One worker is in a network and a mount namespace of its own, in which the course's folder is empty."""
    if os.getuid() != 0 or subprocess.run(["ip", "netns", "list"], capture_output=True).returncode:
        pytest.skip("making network namespaces takes root and iproute2")
    students = [f"student{i:02d}" for i in range(24)]
    for student in students:
        hand_in(course, student)
    name = f"host{os.getpid()}"
    with second_host(name) as address:
        cluster.scheduler(host=address)
        empty = f'mount -t tmpfs none {course.folder} && exec "$@"'
        there = ("ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", empty, "sh")
        cluster.worker("there", within=there)
        graded = grade(course, engine=QuickEngine, scheduler=cluster.address)
    assert graded.failed == []
    assert sorted(grades_of(course)) == students


@contextlib.contextmanager
def second_host(name):
    """A network namespace, joined to this one by a cable. Gives this end's address."""
    here, there = f"{name[-8:]}a", f"{name[-8:]}b"
    commands = [
        f"netns add {name}",
        f"link add {here} type veth peer name {there} netns {name}",
        f"addr add 10.213.77.1/24 dev {here}",
        f"link set {here} up",
        f"-n {name} addr add 10.213.77.2/24 dev {there}",
        f"-n {name} link set {there} up",
        f"-n {name} link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield "10.213.77.1"
    finally:
        subprocess.run(["ip", "link", "delete", here], capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_encrypted_and_nobody_without_the_certificate(course, cluster, tmp_path):
    hand_in(course, "ann")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=course"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-ca-file", str(certificate), "--tls-cert", str(certificate), "--tls-key", str(key)]
    cluster.scheduler("--protocol", "tls", *files)
    cluster.worker("one", *files)
    assert cluster.address.startswith("tls://")
    with pytest.raises(CourseError, match="No Dask scheduler answers"):
        grade(course, engine=QuickEngine, scheduler=cluster.address)
    settings = {
        "distributed.comm.tls.ca-file": str(certificate),
        "distributed.comm.tls.client.cert": str(certificate),
        "distributed.comm.tls.client.key": str(key),
    }
    with dask_itself.config.set(settings):
        assert len(grade(course, engine=QuickEngine, scheduler=cluster.address).results) == 1


def test_a_scheduler_that_is_lost_is_said_and_the_next_run_goes_on(course, cluster, monkeypatch):
    students = [f"student{i:02d}" for i in range(40)]
    for student in students:
        hand_in(course, student)
    cluster.environment[PAUSE] = "0.1"
    address = cluster.scheduler()
    cluster.worker("one")

    def tell(done, of, what):
        if done == 8:
            os.killpg(cluster.processes[0].pid, signal.SIGKILL)

    monkeypatch.setattr(dask, "CONNECT", 3)
    with pytest.raises(CourseError, match="scheduler was lost"):
        grade(course, engine=QuickEngine, scheduler=address, say=tell)
    graded = grade(course, count=1, engine=QuickEngine)
    assert graded.resumed + graded.unchanged >= 8
    assert sorted(grades_of(course)) == students


def test_workers_that_differ_in_what_decides_grades_are_refused(course, cluster, monkeypatch):
    hand_in(course, "ann")
    cluster.scheduler()
    cluster.worker("one")
    monkeypatch.setattr(workers, "environment", lambda: "Python 2.7")
    with pytest.raises(CourseError, match=r"cannot grade.*Python 2\.7.*constraints\.txt"):
        grade(course, engine=QuickEngine, scheduler=cluster.address)


def test_no_scheduler_there_is_said(course, monkeypatch):
    hand_in(course, "ann")
    monkeypatch.setattr("autograder.dask.CONNECT", 1)
    with pytest.raises(CourseError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9"):
        grade(course, engine=QuickEngine, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(CourseError, match="No Dask scheduler answers at nonsense"):
        grade(course, engine=QuickEngine, scheduler="nonsense://x")


def test_batches_have_keys_of_their_work_and_sizes_that_fill_the_cluster():
    jobs = [workers.Job(f"s{i}", LESSON, "triangles", "", "", f"key{i}", "", "") for i in range(1000)]
    sizes = {threads: {len(b) for b in dask._batches(jobs, threads)[:-1]} for threads in (1, 16, 500)}
    assert sizes == {1: {32}, 16: {15}, 500: {8}}
    assert [job for batch in dask._batches(jobs, 16) for job in batch] == jobs
    assert dask._key(jobs[:8]) == dask._key(list(jobs[:8])) != dask._key(jobs[8:16])


def test_without_dask_it_is_said_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "autograder.dask")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CourseError, match=r"normalizing-flows-course\[cluster\]"):
        import autograder.dask  # noqa: F401
