"""Worker processes that grade side by side: jobs in, results out, as JSON. They never see the gradebook."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path

from autograder import submission
from autograder.engine import UNTOUCHED, Check, Engine, EngineFailure, Mended, Result

TRIES = 2  # a submission whose worker was killed is tried once more


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


def examine(engine: Engine, job: Job) -> tuple[Result, dict]:
    """Reads, mends and grades one submission, readable or not. Raises EngineFailure alone."""
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
        result.untouched = _untouched(mended, release)
        work = Mended(job.student, job.lesson, job.topic, mended, job.seed)
        result.checks, notebook = engine.grade(work)
    result.seconds = time.monotonic() - began
    return result, notebook


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
    jobs: list[Job], make_engine: Callable[..., Engine], arguments: tuple, count: int
) -> Iterator[tuple[Job, Result | None, dict | None, str]]:
    """Grades the jobs in `count` processes, and yields each as it is done: job, result, notebook, why it
    failed.

    Each process makes its engine by `make_engine(*arguments)`. A process that dies is replaced. Leaving
    the iterator early stops all of them.
    """
    waiting = [(job, 1) for job in reversed(jobs)]
    workers = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < count:
                worker = _Worker(make_engine, arguments)
                workers[worker.pipe] = worker
                worker.give(*waiting.pop())
            for pipe in wait(list(workers)):
                worker = workers[pipe]
                job, tries = worker.job
                try:
                    answer = json.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    del workers[pipe]
                    worker.stop()
                    if tries < TRIES:
                        waiting.append((job, tries + 1))
                    else:
                        yield (
                            job,
                            None,
                            None,
                            "The process that graded it was killed, twice. Is there enough memory?",
                        )
                    continue
                if waiting:
                    worker.give(*waiting.pop())
                else:
                    del workers[pipe]
                    worker.dismiss()
                result = Result.from_dict(answer["result"]) if answer["result"] else None
                yield job, result, answer["notebook"], answer["failure"]
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    def __init__(self, make_engine, arguments):
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_work, args=(far, make_engine, arguments), daemon=False)
        self.process.start()
        far.close()

    def give(self, job, tries):
        self.job = job, tries
        self.pipe.send_bytes(json.dumps(asdict(job)).encode())

    def dismiss(self):
        """Lets an idle worker end by itself."""
        self.pipe.close()
        self.process.join()

    def stop(self):
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _work(pipe, make_engine, arguments):
    """The life of a worker: a job in, a result out, until the other end is closed."""
    import signal
    import warnings

    warnings.filterwarnings("ignore", module="nbgrader")  # about its own use of SQLAlchemy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the jobs
    signal.signal(signal.SIGTERM, _leave)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    engine = make_engine(*arguments)
    while True:
        try:
            job = Job(**json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):
            return
        try:
            result, notebook = examine(engine, job)
            answer = {"result": result.as_dict(), "notebook": notebook, "failure": ""}
        except EngineFailure as error:
            answer = {"result": None, "notebook": None, "failure": str(error)}
        try:
            pipe.send_bytes(json.dumps(answer).encode())
        except OSError:
            return


def _leave(*_):
    raise SystemExit
