"""The examiner's side of the engine: it runs the instructor's test cells, and never a line of a student's.

    python -m autograder.examiner DESCRIPTOR SETTINGS-AS-JSON

starts a zygote for one lesson: it has the lesson's test cells compiled and the reference loaded, and starts
the student's zygote (sandbox.py). For each submission it forks a child, which has the student's cells run
over there, runs the test cells here with stand-ins for what the student defined (remote.py), and answers with
the outputs of every cell. Verdicts are found here; what comes from over there is only ever a value.
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings

from autograder import check, compare, confine, diagnosis, draws, remote, wire
from autograder.engine import EngineFailure
from autograder.lesson import Lesson, read_lesson
from autograder.sandbox import Limits, SandboxError, Zygote
from autograder.student import warm

MOST_STARTS = 12  # of a student's process, for one submission
MOST_PRINTED = 100_000
STUCK = 3  # times the time limit, after which a test cell of ours is taken to hang

TIMEOUT = "This cell did not end within {} seconds, and was stopped. Is there an endless loop?"
DIED = "Python ended while this cell ran. Does it call os._exit, or need more memory than there is?"
GAVE_UP = "Not run: Python had ended in too many cells before."


# The zygote.


def main(descriptor: int, settings: dict) -> None:
    """Loads the lesson, says so, and forks for each submission, until the other side is closed."""
    pipe = socket.socket(fileno=descriptor)
    lesson = read_lesson(settings["source"], settings["topic"])
    limits = Limits(**settings["limits"])
    student = Zygote(settings["tier"], tuple(settings["withheld"]), lesson.modules, limits)
    try:
        warm([*lesson.needed, f"autograder.answers.{settings['topic']}"])
        confine.require_one_thread()
        wire.send(pipe, wire.pack({"ready": True}))
        while True:
            with (
                student.start() as started
            ):  # the student's next process gets ready while nobody waits for it
                request = wire.unpack(wire.receive(pipe))
                child = os.fork()
                if child == 0:
                    _grade_in_child(pipe, request, lesson, student, started, settings)
            status = os.waitpid(child, 0)[1]
            student.end()
            if status:
                lost = {"failure": "The examiner's process ended.", "number": request["number"]}
                wire.send(pipe, wire.pack(lost))
    except (wire.WireError, SandboxError):
        return
    finally:
        student.close()


def _grade_in_child(pipe, request, lesson, student, started, settings):
    status = 1
    try:
        submission = Submission(lesson, student, started, settings, request["seed"])
        try:
            outputs, seconds = submission.grade(request["cells"])
            answer = {"outputs": outputs, "seconds": seconds}
        except EngineFailure as error:
            answer = {"failure": str(error)}
        wire.send(pipe, wire.pack({**answer, "number": request["number"]}))
        status = 0
    finally:
        os._exit(status)


# The child.


class Submission:
    """One submission, from its first cell to its last. started: the connection to the first process."""

    def __init__(self, lesson: Lesson, student: Zygote, started: socket.socket, settings: dict, seed: str):
        self.lesson, self.student, self.started, self.seed = lesson, student, started, seed
        self.timeout, self.withheld = settings["timeout"], tuple(settings["withheld"])
        self.in_process = settings["in_process"]
        self.process = None
        self.starts = 0
        self.knows = False  # whether the process may have kept inputs of a hidden test
        self.done = []  # what a new process has to do again: cells, and imports of public tests
        self.namespace = {"__name__": "__main__", "__builtins__": __builtins__}
        self.theirs = set()  # names in it that are the student's
        os.environ[check.SEED] = seed
        draws.seed(f"{seed} examiner")
        for statement in lesson.imports:
            with contextlib.suppress(ImportError):
                exec(statement, self.namespace)
        for name in lesson.answers:
            self.namespace.pop(name, None)

    def grade(self, cells: list[dict]) -> tuple[list[list[dict]], list[float]]:
        """The outputs of the cells and their seconds. Each has a `source` to run, or the name of a `test`."""
        outputs, seconds = [], []
        self._announce(self._coming(cells))
        for position, cell in enumerate(cells, 1):
            began = time.monotonic()
            if "test" in cell:
                outputs.append(self._test(cell["test"], self._coming(cells[position:])))
            else:
                outputs.append(self._run(cell))
            seconds.append(round(time.monotonic() - began, 4))
        return outputs, seconds

    def _coming(self, cells):
        """What the student's process will be asked for these cells, up to the first test."""
        requests = []
        for cell in cells:
            if "test" in cell:
                names = self.lesson.tests[cell["test"]].names if cell["test"] in self.lesson.tests else []
                return [*requests, remote.to_look(names)]
            requests.append(remote.to_run(cell["source"], cell["name"]))
        return requests

    def _announce(self, requests):
        """Lets the student's process go on while we look at what it has said; a new one is not hurried."""
        if requests and not self.in_process:
            with contextlib.suppress(remote.Gone):
                process = self._living()
                process.deadline = time.monotonic() + self.timeout
                process.expect(requests)

    def _run(self, cell):
        try:
            outputs = self._run_there(self._living(), cell)
            if outputs and self._forget():
                outputs = self._run_there(self._living(), cell)
        except remote.Gone as gone:
            return [self._lost(gone)]
        self.done.append(cell)
        return outputs

    def _forget(self):
        """Ends a process that could tell the inputs of a hidden test; False where there is none."""
        if not self.knows:
            return False
        self._end()
        self.starts -= 1  # it was no fault of the student's
        return True

    def _run_there(self, process, cell):
        process.deadline = time.monotonic() + self.timeout
        answer = process.run(cell["source"], cell["name"])
        outputs = [_stream(answer["printed"])] if answer["printed"] else []
        if answer["value"] is not None:
            outputs.append(_stream(answer["value"] + "\n"))
        if answer["error"] is not None:
            error = answer["error"]
            outputs.append(_error(error["kind"], error["message"], error["trace"].splitlines()))
        return outputs

    def _living(self):
        """The student's process. A new one does again what the one before had done, up to where it was."""
        while self.process is None:
            if self.starts >= MOST_STARTS:
                raise remote.Gone("KernelDied", GAVE_UP)
            self.starts += 1
            begin = time.monotonic() + self.timeout
            try:
                connection, self.started = self.started or self.student.start(), None
                process = remote.Process(connection, _draws_of(self.seed), begin, self.withheld)
                again, self.done = self.done, []
                for position, step in enumerate(again):
                    self.done = again[position + 1 :]  # without this step, should it be lost there
                    self._do_again(process, step)
                    self.done = again
                self.done = again
                self.process = process
            except remote.Gone:
                self._end()
        return self.process

    def _do_again(self, process, step):
        if "imports" in step:
            process.do_imports(step["imports"])
        else:
            self._run_there(process, step)

    def _end(self):
        self.process, self.knows = None, False
        self.student.end()

    def _lost(self, gone):
        self._end()
        text = {"Timeout": TIMEOUT.format(self.timeout)}.get(gone.kind, DIED)
        text = GAVE_UP if gone.text == GAVE_UP else text
        return _error(gone.kind, text, [f"{gone.kind}: {text}"])

    # Tests.

    def _test(self, name, coming):
        test = self.lesson.tests.get(name)
        if test is None:
            raise EngineFailure(f"The instructor's notebook has no test cell {name}. Run: autograder build")
        if self.in_process:
            return self._test_there(test)
        failures, states = check._failures.copy(), draws.snapshot() if self.knows else None
        outputs, told = self._test_here(test)
        if told and not test.hidden and self._forget():  # once more, as if it were the first time
            check._failures.clear()
            check._failures.update(failures)
            draws.restore(states)
            outputs, _ = self._test_here(test)
        self.knows = self.process is not None and (self.knows or test.hidden)
        imports = [] if test.hidden else test.imports
        self._announce([remote.to_import(imports), *coming] if imports else coming)
        self._import_there(imports)
        return outputs

    def _test_there(self, test):
        """In the student's process, which is then told the seed too."""
        try:
            process = self._living()
            process.environ({check.SEED: self.seed, check.HIDDEN: "1" if test.hidden else ""})
            return self._run_there(process, {"source": self.lesson.sources[test.name], "name": test.name})
        except remote.Gone as gone:
            return [self._lost(gone)]

    def _test_here(self, test):
        """The outputs, and whether there is in them what the student's process said."""
        printed = io.StringIO()
        os.environ[check.HIDDEN] = "1" if test.hidden else ""
        try:
            process = self._living()
            process.printed = ""
            process.deadline = time.monotonic() + self.timeout
            self._look(process, test)
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
                warnings.catch_warnings(),
                _alarm(self.timeout),
            ):
                if test.hidden:  # a warning may quote the inputs
                    warnings.simplefilter("ignore")
                exec(test.code, self.namespace)
            fault = None
        except remote.Gone as gone:
            return [*_printed(printed.getvalue()), self._lost(gone)], False
        except _Stuck:
            raise EngineFailure(f"The test cell {test.name} did not end, by its own fault.") from None
        except BaseException as error:
            fault = self._fault(test, error)
        there = "" if test.hidden else self.process.printed
        outputs = [*_printed(there + printed.getvalue()), *([fault] if fault else [])]
        return outputs, bool(there or fault)

    def _look(self, process, test):
        """Puts stand-ins for the student's names into the namespace, and takes away those that are gone."""
        found = process.look(test.names)
        for name in self.theirs - found.keys():
            self.namespace.pop(name, None)
        self.namespace.update(found)
        self.theirs = set(found)

    def _import_there(self, imports):
        """In a notebook the imports of a public test are there for the cells below it too."""
        if imports:
            try:
                self.process.deadline = time.monotonic() + self.timeout
                self.process.do_imports(imports)
                self.done.append({"imports": imports})
            except remote.Gone:
                self._end()

    def _fault(self, test, error):
        """The output for what a test cell raised. Raises EngineFailure where it was the cell's own fault."""
        if isinstance(error, check.Outcome):
            return _error(type(error).__name__, str(error), error._render_traceback_())
        if isinstance(error, check.StudentError):
            return _error(error.kind, str(error), [f"{error.kind}: {error}"])
        if isinstance(error, AssertionError) or not test.checks or _while_comparing(error):
            kind = type(error).__name__
            quotes = test.hidden and not isinstance(error, AssertionError)  # the inputs, as a KeyError does
            return _error(kind, "" if quotes else str(error), [kind if quotes else f"{kind}: {error}"])
        raise EngineFailure(
            f"The test cell {test.name} of {self.lesson.topic} failed by itself, whatever the answer:"
            f" {type(error).__name__}: {error}"
        ) from error


def _while_comparing(error):
    """Whether it was raised while a student's value was compared or described: some values are odd."""
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
    return bool(files & {compare.__file__, diagnosis.__file__})


def _draws_of(seed):
    """What the student's random draws begin with: always the same, and nothing to be learned from it."""
    return hashlib.sha256(f"{seed} student".encode()).hexdigest()


class _Stuck(BaseException):
    pass


@contextlib.contextmanager
def _alarm(timeout):
    """Raises _Stuck inside when our own code takes much longer than any student's may."""

    def ring(*_):
        raise _Stuck

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, STUCK * timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _printed(text):
    return [_stream(text[:MOST_PRINTED])] if text else []


def _stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def _error(kind, text, lines):
    return {"output_type": "error", "ename": kind or "Error", "evalue": text, "traceback": list(lines)}


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
