"""Worker processes that grade side by side: jobs in, results out, as JSON. They never see the gradebook.

A worker is a program of its own, started without anything of its parent's but one end of a socket pair, and
it ends when the other end is closed.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from multiprocessing.connection import Connection, wait
from pathlib import Path

from autograder import rules, submission
from autograder.engine import UNTOUCHED, Check, Engine, EngineFailure, Mended, Result

TRIES = 2  # a submission whose worker was killed is tried once more
STARTS = 3  # workers that may die one after another before they are ready
PATIENCE = 10  # seconds that a worker gets to tidy up when it is told to stop


@dataclass(frozen=True)
class Job:
    """One submission to grade: where it is, what it is graded against, and the result's key."""

    student: str
    lesson: str
    topic: str
    path: str
    release: str
    key: str
    seed: str
    timestamp: str
    notes: tuple[str, ...] = ()


def examine(engine: Engine, job: Job) -> tuple[Result, str]:
    """Reads, mends and grades one submission, readable or not: its result, and the text of its graded
    notebook. Raises EngineFailure alone.
    """
    began = time.monotonic()
    release = json.loads(Path(job.release).read_text(encoding="utf-8"))
    for cell in release["cells"]:
        cell["source"] = "".join(cell["source"])
    result = Result(job.student, job.lesson, job.key, [], list(job.notes), timestamp=job.timestamp)
    result.engine, result.tier = engine.name, engine.tier
    try:
        taken = submission.read(Path(job.path))
    except FileNotFoundError:
        result.unreadable = f"No notebook called {job.topic}.ipynb was handed in."
        result.checks, notebook = _nothing(release, result.unreadable)
    except submission.UnreadableSubmission as error:
        result.unreadable = error.reason
        result.checks, notebook = _nothing(release, error.reason)
    except OSError as error:
        raise EngineFailure(f"{job.path} cannot be read: {error.strerror}.") from error
    else:
        mended, notes = submission.mend(taken.notebook, release)
        result.notes += taken.notes + notes
        result.notes += _doubts(mended)
        result.untouched = _untouched(mended, release)
        work = Mended(job.student, job.lesson, job.topic, mended, job.seed)
        result.checks, notebook = engine.grade(work)
    result.seconds = time.monotonic() - began
    return result, json.dumps(notebook, ensure_ascii=False)  # nbformat's writer copies and indents


def _doubts(mended):
    """Where the lesson has rules on the source: answers in which a person should look for a breach."""
    code = [cell for cell in mended["cells"] if cell["cell_type"] == "code"]
    if not any("check.without(" in cell["source"] for cell in code):
        return []
    answers = [cell for cell in code if submission.is_answer(cell)]
    found = {submission.grade_id(cell): rules.doubts(cell["source"]) for cell in answers}
    return [
        f"A person will look at {name}, whose rule on the source could not be checked: {', '.join(doubts)}."
        for name, doubts in found.items()
        if doubts
    ]


def _untouched(mended, release):
    """The answers that are still as they were released."""
    stubs = {submission.grade_id(c): c["source"] for c in release["cells"] if submission.is_answer(c)}
    return [
        name
        for name, source in ((submission.grade_id(c), c["source"]) for c in mended["cells"])
        if name in stubs and source.strip() == stubs[name].strip()
    ]


def _nothing(release, reason):
    """What stands for a file that cannot be read: no points, and the release with the reason in it."""
    checks, exercise = [], ""
    for cell in release["cells"]:
        settings = cell["metadata"].get("nbgrader", {})
        if settings.get("solution"):
            exercise = settings["grade_id"]
        if not settings.get("grade"):
            continue
        hidden = not settings.get("solution") and settings["grade_id"].rpartition("_hidden")[1] != ""
        message = f"Nothing could be graded. {reason}"
        checks.append(
            Check(settings["grade_id"], exercise, float(settings["points"]), 0.0, UNTOUCHED, message, hidden)
        )
        if cell["cell_type"] == "code":
            error = {"output_type": "error", "ename": "Unreadable", "evalue": reason, "traceback": [message]}
            cell["outputs"] = [error]
    return checks, release


def run(
    jobs: list[Job], engine: type[Engine], arguments: tuple, count: int, idle: list["Worker"] | None = None
) -> Iterator[tuple[Job, Result | None, str | None, str]]:
    """Grades the jobs in `count` processes, and yields each as it is done: job, result, notebook, failure.

    Each process makes its engine by `engine(*arguments)`; the arguments are plain data. A process that dies
    is replaced. As many processes as cores, or more, keep to a core each: what one of them forks then finds
    its caches warm, and no core waits. Processes in `idle` are used first, and are there again at the end;
    without it all of them end. Leaving the iterator early stops all that are at work. Raises EngineFailure
    when the engine cannot start.
    """
    waiting = [(job, 1) for job in reversed(jobs)]
    resting = [] if idle is None else idle
    busy: dict[Connection, Worker] = {}
    failed_starts = 0
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                try:
                    worker = resting.pop()
                except IndexError:
                    worker = Worker(engine, arguments, _core(count, busy.values()))
                worker.give(*waiting.pop())
                busy[worker.pipe] = worker
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                said = worker.take()
                if said is READY:
                    failed_starts = 0
                    continue
                del busy[pipe]
                if said is None:
                    worker.stop()
                    failed_starts += not worker.ready
                    if failed_starts == STARTS:
                        raise EngineFailure("its process ends as it starts. Is there enough memory?")
                    if worker.ready and worker.tries == TRIES:
                        yield worker.job, None, None, KILLED
                    else:
                        waiting.append((worker.job, worker.tries + worker.ready))
                    continue
                job = worker.job
                if waiting:
                    worker.give(*waiting.pop())
                    busy[pipe] = worker
                else:
                    resting.append(worker)
                yield job, *outcome(said)
    finally:
        for worker in busy.values():
            worker.process.terminate()  # all at once: each takes its time to tidy up
        for worker in busy.values():
            worker.stop()
        if idle is None:
            for worker in resting:
                worker.dismiss()


def _core(count, others):
    """The core for one more of `count` workers: one that the fewest others keep to. None where it is free."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not 0 < len(cores) <= count:
        return None
    taken = [worker.core for worker in others]
    return min(cores, key=taken.count)


KILLED = "The process that graded it was killed, twice. Is there enough memory?"
READY = object()
_TEXT = "utf-8", "surrogatepass"  # what somebody printed may be no text


def answer(result: Result | None, notebook: str | None, failure: str) -> dict:
    """What a worker says of a job, as plain data."""
    return {"result": result and result.as_dict(), "notebook": notebook, "failure": failure}


def outcome(answer: dict) -> tuple[Result | None, str | None, str]:
    """The inverse of `answer`."""
    result = Result.from_dict(answer["result"]) if answer["result"] else None
    return result, answer["notebook"], answer["failure"]


class Worker:
    """A process that makes an engine, and then grades one job after another; on this core alone, if any."""

    def __init__(self, engine: type[Engine], arguments: tuple, core: int | None = None):
        near, far = socket.socketpair()
        how = json.dumps([sys.path, far.fileno(), engine.__module__, engine.__qualname__, arguments])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, how],
            stdin=subprocess.DEVNULL,
            pass_fds=[far.fileno()],
            env={**dict.fromkeys(_THREADS, "1"), **os.environ},
        )
        far.close()
        self.core = core
        if core is not None:
            with contextlib.suppress(OSError):  # it has ended already, or the core is gone
                os.sched_setaffinity(self.process.pid, {core})
        self.pipe = Connection(near.detach())
        self.ready = False

    def give(self, job: Job, tries: int) -> None:
        """Hands over a job. Whether the worker is still alive, `take` will tell."""
        self.job, self.tries = job, tries
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(json.dumps(asdict(job)).encode())

    def take(self) -> dict | object | None:
        """The next thing that the worker says: READY, once; then answers; None when it has died.

        Raises EngineFailure when its engine cannot start.
        """
        try:
            said, notebook = json.loads(self.pipe.recv_bytes()), self.pipe.recv_bytes().decode(*_TEXT)
        except (EOFError, OSError):
            return None
        if self.ready:
            return {**said, "notebook": notebook or None}
        if said:
            raise EngineFailure(said)
        self.ready = True
        return READY

    def dismiss(self) -> None:
        """Lets an idle worker end by itself."""
        self.pipe.close()
        self._wait()

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self._wait()

    def _wait(self):
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PROGRAM = (
    "import json, sys; path, *how = json.loads(sys.argv[1]); sys.path[:] = path;"
    " from autograder.workers import serve; serve(*how)"
)


def serve(descriptor: int, module: str, name: str, arguments: list) -> None:
    """The life of a worker: says whether its engine is ready, then takes jobs until the pipe is closed."""
    warnings.filterwarnings("ignore", module="nbgrader")  # about its own use of SQLAlchemy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the jobs
    signal.signal(signal.SIGTERM, _leave)
    pipe = Connection(descriptor)
    try:
        engine = getattr(import_module(module), name)(*arguments)
        _say(pipe, "")
    except Exception as error:
        _say(pipe, f"{type(error).__name__}: {error}")
        return
    gc.freeze()  # the collector would look through all that was imported, again and again
    with pipe:
        while True:
            try:
                job = Job(**json.loads(pipe.recv_bytes()))
            except (EOFError, OSError):
                return
            try:
                result, notebook = examine(engine, job)
                _say(pipe, answer(result, None, ""), notebook)
            except EngineFailure as error:
                _say(pipe, answer(None, None, str(error)))


def _say(pipe, what, notebook=""):
    """The notebook goes by itself: it is JSON already, and long."""
    try:
        pipe.send_bytes(json.dumps(what).encode())
        pipe.send_bytes(notebook.encode(*_TEXT))
    except OSError:  # nobody listens any more
        raise SystemExit from None


def _leave(*_):
    raise SystemExit


def environment() -> str:
    """What, beside the course, decides what a submission gets: the versions of Python and of what grades."""
    packages = ("normalizing-flows-course", "numpy", "torch")
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    return ", ".join([f"Python {sys.version_info.major}.{sys.version_info.minor}", *versions])
