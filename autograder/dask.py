"""Grading on the machines of a Dask cluster: batches of submissions out, results back.

Workers get what they need as bytes in the tasks, so they share no file system with the gradebook's machine,
and never see the gradebook, the salt, or more than a batch of submissions at a time. On each of them a plugin
keeps the engine's processes, which are programs of their own: a Dask worker has threads, and is never forked.

Dask may run a batch twice, on a worker that was lost and on another; the results are the same, and the
journal takes them once. Dask's workers and its scheduler trust one another and the client. Give them a
network of their own, or TLS: docs/many-machines.md.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from autograder import workers
from autograder.course import Course, CourseError
from autograder.engine import Engine, EngineFailure, Result
from autograder.submission import LARGEST

try:
    from distributed import CancelledError, Client, WorkerPlugin, as_completed, get_worker
except ImportError:
    raise CourseError(
        "Grading on a cluster needs Dask. Here and on its machines: pip install"
        " 'normalizing-flows-course[cluster]'"
    ) from None

NAME = "autograder"  # of the plugin, and how the tasks' keys begin
RESOURCE = "grading"  # workers that have it give one to each batch
FEWEST, MOST = 8, 32  # submissions a batch
AHEAD = 2  # batches for each thread of the cluster that are under way at a time
RETRIES = 2
CONNECT = 30  # seconds
LOST = (
    "The connection to the Dask scheduler was lost. What is graded is kept. When it is back, run the same"
    " command."
)


def run(
    jobs: list[workers.Job], engine: type[Engine], course: Course, timeout: int, scheduler: "str | Client"
) -> Iterator[tuple[workers.Job, Result | None, str | None, str]]:
    """As `workers.run`, on the cluster of a scheduler: its address, or a Client that is connected to it.

    Raises CourseError when the cluster cannot be reached, or when its workers differ from this machine in
    what decides grades; EngineFailure when the engine cannot start there.
    """
    if not jobs:
        return
    with _client(scheduler) as client:
        plugin = Plugin(engine, timeout, _files(course, jobs))
        try:
            client.register_plugin(plugin, name=NAME)
        except (RuntimeError, OSError) as error:
            raise CourseError(f"The cluster's workers cannot grade: {error}") from None
        try:
            yield from _feed(client, jobs)
        except (OSError, CancelledError) as error:
            raise CourseError(f"{LOST} ({error})") from None
        finally:
            with contextlib.suppress(Exception):  # a cluster that is gone has no plugin either
                client.unregister_worker_plugin(NAME)


@contextlib.contextmanager
def _client(scheduler):
    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise CourseError(f"No Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        yield client


def _files(course, jobs) -> dict[str, bytes]:
    """What an engine reads of the course: the syllabus, and the lessons that are graded."""
    files = {course.syllabus.name: course.syllabus.read_bytes()}
    for lesson, topic in {(job.lesson, job.topic) for job in jobs}:
        for folder in (course.source, course.release):
            path = folder / lesson / f"{topic}.ipynb"
            files[str(path.relative_to(course.folder))] = path.read_bytes()
    return files


def _feed(client, jobs):
    """Keeps the cluster's threads busy. A batch that fails as a whole is tried again one by one."""
    batches = deque(_batches(jobs, _threads(client)))
    resources = _resources(client)
    under_way = {}
    done = as_completed(loop=client.loop)
    while batches or under_way:
        while batches and len(under_way) < AHEAD * _threads(client):
            batch = batches.popleft()
            future = client.submit(
                grade_batch, _packed(batch), key=_key(batch), retries=RETRIES, resources=resources, pure=False
            )
            under_way[future] = batch
            done.add(future)
        future = next(done)
        batch = under_way.pop(future)
        if future.status == "finished":
            yield from _unpacked(batch, future.result())
        elif future.status != "error":
            raise CourseError(LOST)
        elif len(batch) > 1:
            batches.extend([job] for job in batch)
        else:
            yield batch[0], None, None, f"Its task failed on the cluster: {future.exception()}"


def _threads(client) -> int:
    return max(1, sum(client.nthreads().values()))


def _resources(client) -> dict | None:
    offered = client.scheduler_info()["workers"].values()
    return {RESOURCE: 1} if any(RESOURCE in worker["resources"] for worker in offered) else None


def _batches(jobs, threads):
    """As large as leaves each thread several, so that none waits long for the last."""
    size = min(MOST, max(FEWEST, len(jobs) // (4 * threads)))
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _key(batch) -> str:
    """The same work has the same key, in this run and the next."""
    return f"{NAME}-{hashlib.sha256(' '.join(job.key for job in batch).encode()).hexdigest()}"


def _packed(batch) -> list[tuple[dict, bytes | int | None]]:
    return [(asdict(job), _content(Path(job.path))) for job in batch]


def _content(path) -> bytes | int | None:
    """A submission's bytes; its size alone where it is too large to be read; None where there is none."""
    try:
        size = path.stat().st_size
        return path.read_bytes() if size <= LARGEST else size
    except FileNotFoundError:
        return None


def _unpacked(batch, answers: bytes):
    for job, answer in zip(batch, json.loads(answers), strict=True):
        yield job, *workers.outcome(answer)


# What runs on the cluster's machines.


class Plugin(WorkerPlugin):
    """What a worker keeps while a course is graded: its lessons in a folder, and processes with engines."""

    name = NAME

    def __init__(self, engine: type[Engine], timeout: int, files: dict[str, bytes]):
        self.engine, self.timeout, self.files = engine, timeout, files
        self.environment = workers.environment()

    def setup(self, worker) -> None:
        here = workers.environment()
        if here != self.environment:
            raise RuntimeError(
                f"{worker.address} has {here}; the gradebook's machine has {self.environment}. Grades would"
                " depend on the machine. Install the same versions: constraints.txt lists them."
            )
        self.folder = tempfile.TemporaryDirectory(prefix="autograder-")
        for name, data in self.files.items():
            path = Path(self.folder.name, "course", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.idle: list[workers.Worker] = []

    def teardown(self, worker) -> None:
        while self.idle:
            self.idle.pop().dismiss()
        self.folder.cleanup()

    def grade(self, packed: list[tuple[dict, bytes | int | None]]) -> list[dict]:
        """The answers to a batch, in its order."""
        course = Path(self.folder.name, "course")
        with tempfile.TemporaryDirectory(prefix="batch-", dir=self.folder.name) as folder:
            jobs = []
            for place, (plain, content) in enumerate(packed):
                job = workers.Job(**plain)
                release = course / "release" / job.lesson / f"{job.topic}.ipynb"
                path = Path(folder, str(place), Path(job.path).name)
                _write(path, content)
                jobs.append(replace(job, path=str(path), release=str(release)))
            arguments = (str(course / "source"), self.timeout)
            done = workers.run(jobs, self.engine, arguments, 1, self.idle)
            answers = {job.path: workers.answer(*rest) for job, *rest in done}
        return [answers[job.path] for job in jobs]


def _write(path, content):
    path.parent.mkdir()
    if isinstance(content, int):  # a file of that size, which takes no space
        path.touch()
        os.truncate(path, content)
    elif content is not None:
        path.write_bytes(content)


def grade_batch(packed: list[tuple[dict, bytes | int | None]]) -> bytes:
    """The task: a batch of submissions in, their answers out, as JSON."""
    plugin = get_worker().plugins[NAME]
    try:
        return json.dumps(plugin.grade(packed)).encode()
    except EngineFailure as error:
        failure = f"The engine cannot start on {get_worker().address}: {error}"
        return json.dumps([workers.answer(None, None, failure) for _ in packed]).encode()
