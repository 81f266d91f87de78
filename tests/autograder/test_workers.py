"""Worker processes: one that dies is replaced, one that cannot start is said, none outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from classes import LESSON, built_course, hand_in, without_slow_imports
from engines import JOURNAL, PAUSE, QuickEngine

from autograder import workers
from autograder.engine import EngineFailure

HERE = Path(__file__).parent


class BrokenEngine(QuickEngine):
    """Named in no module that a worker could import."""


BrokenEngine.__module__ = "no_such_module"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    monkeypatch.syspath_prepend(without_slow_imports(tmp_path))


def job(course, student, answer="return 1"):
    hand_in(course, student, answer)
    path = course.submitted / student / LESSON / "triangles.ipynb"
    release = course.release / LESSON / "triangles.ipynb"
    return workers.Job(student, LESSON, "triangles", str(path), str(release), "key", "seed", "")


def arguments(course):
    return str(course.source), 30


def test_processes_are_kept_for_the_next_jobs_and_have_nothing_of_their_parents(course, tmp_path):
    idle = []
    with open(tmp_path / "open", "w") as ours:
        os.set_inheritable(ours.fileno(), True)  # as a careless library would
        for student in ("ann", "bob"):
            done = list(workers.run([job(course, student)], QuickEngine, arguments(course), 2, idle))
            assert [(j.student, r.score, failure) for j, r, _, failure in done] == [(student, 5.0, "")]
        assert len(idle) == 1
        if Path("/proc/self/fd").is_dir():
            names = [os.readlink(path) for path in Path(f"/proc/{idle[0].process.pid}/fd").iterdir()]
            assert ours.name not in names
    idle[0].dismiss()
    assert idle[0].process.returncode == 0


def test_an_idle_process_that_was_killed_costs_nobody_a_result(course):
    idle = []
    list(workers.run([job(course, "ann")], QuickEngine, arguments(course), 1, idle))
    idle[0].process.kill()
    idle[0].process.wait()
    done = list(workers.run([job(course, "bob")], QuickEngine, arguments(course), 1, idle))
    assert [(j.student, r.score) for j, r, _, _ in done] == [("bob", 5.0)]
    assert len(idle) == 1
    idle[0].dismiss()


def test_an_engine_that_cannot_start_is_said_once(course):
    jobs = [job(course, student) for student in ("ann", "bob", "cat")]
    with pytest.raises(EngineFailure, match="No module named 'no_such_module'"):
        list(workers.run(jobs, BrokenEngine, arguments(course), 2))


def test_processes_that_end_as_they_start_are_not_started_for_ever(course, monkeypatch):
    monkeypatch.setattr(workers, "_PROGRAM", "raise SystemExit(1)")
    with pytest.raises(EngineFailure, match="ends as it starts"):
        list(workers.run([job(course, "ann")], QuickEngine, arguments(course), 2))


def test_leaving_early_ends_the_processes(course, monkeypatch):
    monkeypatch.setenv(PAUSE, "0.2")
    made = []
    real = workers.Worker
    monkeypatch.setattr(workers, "Worker", lambda *a: made.append(real(*a)) or made[-1])
    running = workers.run([job(course, s) for s in ("ann", "bob", "cat")], QuickEngine, arguments(course), 2)
    next(running)
    running.close()
    assert len(made) == 2
    assert all(worker.process.returncode is not None for worker in made)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes choose no cores here")
@pytest.mark.parametrize(
    ("cores", "count", "kept"), [(2, 2, [1, 1]), (2, 3, [1, 2]), (1, 1, [1]), (2, 1, None)]
)
def test_as_many_workers_as_cores_keep_to_a_core_each(course, monkeypatch, cores, count, kept):
    machine = sorted(os.sched_getaffinity(0))
    if len(machine) < cores:
        pytest.skip("too few cores")
    monkeypatch.setenv(PAUSE, "0.2")
    idle, jobs = [], [job(course, f"student{n}") for n in range(count)]
    os.sched_setaffinity(0, machine[:cores])
    try:
        assert len(list(workers.run(jobs, QuickEngine, arguments(course), count, idle))) == count
    finally:
        os.sched_setaffinity(0, machine)
    places = [os.sched_getaffinity(worker.process.pid) for worker in idle]
    for worker in idle:
        worker.dismiss()
    if kept is None:
        assert places == [set(machine[:cores])]
    else:
        assert sorted(places.count({core}) for core in machine[:cores]) == kept


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes choose no cores here")
def test_whoever_replaces_a_worker_takes_its_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 6})
    assert workers._core(2, [SimpleNamespace(core=4)]) == 6
    assert workers._core(2, [SimpleNamespace(core=6)]) == 4


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers through Linux's /proc")
def test_workers_end_when_whoever_gives_the_jobs_is_killed(course, tmp_path):
    program = (
        "import json, sys; from autograder import workers; from engines import QuickEngine\n"
        "jobs = [workers.Job(**plain) for plain in json.loads(sys.argv[1])]\n"
        "for done in workers.run(jobs, QuickEngine, (sys.argv[2], 30), 1): print('done', flush=True)"
    )
    jobs = json.dumps([vars(job(course, f"student{i}")) for i in range(50)])
    environment = {**os.environ, PAUSE: "0.1", "PYTHONPATH": str(HERE)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, jobs, str(course.source)], env=environment, stdout=subprocess.PIPE
    )
    parent.stdout.readline()
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path("/proc", child, "cmdline").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(children) == 1
