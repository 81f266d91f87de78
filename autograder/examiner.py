"""The examiner's side of the engine: it runs the instructor's test cells, and never a line of a student's.

    python -m autograder.examiner DESCRIPTOR SETTINGS-AS-JSON

starts a zygote for one lesson: it has the lesson's test cells compiled and the reference loaded, and starts
the student's zygote (sandbox.py). A child that it forks takes one submission after another: it has the
student's cells run over there, runs the test cells here with stand-ins for what the student defined
(remote.py), and answers with the outputs of every cell. Where a test leaves a trace in it (traces.py), the
next submission gets a new child. Verdicts are found here; what comes from over there is only ever a value.
"""

import contextlib
import hashlib
import io
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from dataclasses import dataclass

import numpy as np

from autograder import check, compare, confine, diagnosis, draws, linux, remote, traces, wire
from autograder.engine import EngineFailure
from autograder.lesson import Lesson, Test, read_lesson
from autograder.sandbox import Limits, SandboxError, Started, Zygote
from autograder.student import warm

MOST_STARTS = 12  # of a student's process, for one submission
MOST_PRINTED = 100_000
MOST_SUBMISSIONS = 64  # for one child of the examiner's
STUCK = 3  # times the time limit, after which a test cell of ours is taken to hang

TIMEOUT = "What ran here did not end within {} seconds, and was stopped. Is there an endless loop?"
DIED = "Python ended while this ran. Does your code call os._exit, or need more memory than there is?"
GAVE_UP = "Not run: Python had ended in too many cells before."

LEFT, FAILED, NOBODY = 0, 1, 3  # exit codes of a child: another is wanted, something failed, all is over
_NUMBER = struct.Struct("<q")


# The zygote.


def main(descriptor: int, settings: dict) -> None:
    """Loads the lesson, says so, and has submissions graded, until the other side is closed."""
    pipe = socket.socket(fileno=descriptor)
    lesson = read_lesson(settings["source"], settings["topic"])
    limits = Limits(**settings["limits"])
    student = Zygote(settings["tier"], tuple(settings["withheld"]), lesson.modules, limits)
    try:
        warm([*lesson.needed, f"autograder.answers.{settings['topic']}"])
        confine.require_one_thread()
        wire.send(pipe, wire.pack({"ready": True}))
        _serve(pipe, lesson, student, settings)
    except (wire.WireError, SandboxError):
        return
    finally:
        student.close()


def _serve(pipe, lesson, student, settings):
    """Forks a child, which grades one submission after another, and another one when it has ended."""
    taken = mmap.mmap(-1, _NUMBER.size)  # the number of the last request that a child has taken
    while True:
        before = taken[:]
        news, told = socket.socketpair()
        process = os.fork()
        if process == 0:
            news.close()
            _grade_in_child(pipe, taken, told, lesson, student, settings)
        told.close()
        with news, news.makefile() as lines:
            imported = lines.read().split()  # up to the child's end
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == NOBODY:
            return
        student.require_alive()
        if imported:
            warm(imported)
            confine.require_one_thread()
        if code == LEFT:
            continue
        if taken[:] == before:
            sys.exit(f"A child of the examiner ended by itself, with code {code}.")
        (number,) = _NUMBER.unpack(taken)
        wire.send(pipe, wire.pack({"failure": "The examiner's process ended.", "number": number}))


def _grade_in_child(pipe, taken, told, lesson, student, settings):
    """Ends this process: when nobody is there to grade for, after a failure, or where a test left a trace.

    told: there it says which modules were loaded meanwhile, so that the next child has them.
    """
    status = FAILED
    try:
        linux.end_with_parent()
        _rehearse()
        clean, ready = traces.Traces(), student.start()
        references = {}  # what they gave, by test, for those that give the same for every submission
        for _ in range(MOST_SUBMISSIONS):
            if not pipe.recv(1, socket.MSG_PEEK):
                status = NOBODY
                return
            taken[:] = _NUMBER.pack(_NUMBER.unpack(taken)[0] + 1)  # this one, should reading it fail
            request = wire.unpack(wire.receive(pipe))
            taken[:] = _NUMBER.pack(request["number"])
            started, ready = ready, student.start()  # the next may get ready meanwhile
            submission = Submission(lesson, student, started, settings, references)
            answer = _answer(submission, request)
            wire.send(pipe, wire.pack({**answer, "number": request["number"]}))
            submission.leave()
            check.forget()
            if "failure" in answer or clean.found():
                break
        told.sendall(" ".join(clean.loaded()).encode())
        status = LEFT
    except wire.WireError:
        status = NOBODY
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer(submission, request):
    try:
        outputs, seconds = submission.grade(request["cells"], request["seed"])
    except EngineFailure as error:
        return {"failure": str(error)}
    return {"outputs": outputs, "seconds": seconds}


def _rehearse():
    """Uses once what every submission will: a fork copies memory at its first use, and now nobody waits."""
    arrays = [np.arange(3.0), np.ones((2, 2))]
    cases = [(array,) for array in arrays]
    names = {"check": check, "answer": lambda x: x + 1, "reference": lambda x: x + 1.0, "cases": cases}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("check.values('.answer', cases, reference)", "<rehearsal>", "exec"), names)
    check.forget()
    check.rng("")
    wire.unpack(wire.pack({"arrays": arrays, "words": ["a", 1, None, 2.0]}))


# The child.


@dataclass(frozen=True)
class Step:
    """A cell. request: what the student's process is asked to do for it; None where it is a test, run here.

    place: the step whose look finds what the test wants. later: whether it is run when all others are done.
    """

    request: dict | None
    test: Test | None = None
    place: int = 0
    later: bool = False


class Submission:
    """One submission, from its first cell to its last. started: the first process, which gets ready already.

    Cells and public tests are run in their order; then the hidden tests, with names that mean what they meant
    where each stands. So a process has seen no hidden input while it says what a student is to read.
    """

    def __init__(self, lesson: Lesson, student: Zygote, started: Started, settings: dict, references: dict):
        self.lesson, self.student, self.started = lesson, student, started
        self.references = references
        self.timeout, self.withheld = settings["timeout"], tuple(settings["withheld"])
        self.in_process = settings["in_process"]
        self.seed = ""
        self.process = None
        self.starts = 0
        self.done = []  # requests that a new process has to do again
        self.found = {}  # what the student has, by the place of the look
        self.namespace = {"__name__": "__main__", "__builtins__": __builtins__}
        self.theirs = set()  # names in it that are the student's
        for statement in lesson.imports:
            with contextlib.suppress(ImportError):
                exec(statement, self.namespace)
        for name in lesson.answers:
            self.namespace.pop(name, None)

    def grade(self, cells: list[dict], seed: str) -> tuple[list[list[dict]], list[float]]:
        """The outputs of the cells and their seconds. Each has a `source` to run, or the name of a `test`."""
        self.seed = os.environ[check.SEED] = seed
        draws.seed(f"{seed} examiner")
        steps = self._steps(cells)
        outputs, seconds = [[] for _ in steps], [0.0 for _ in steps]
        self._announce(_coming(steps))
        for number in sorted(range(len(steps)), key=lambda number: steps[number].later):
            began = time.monotonic()
            step, coming = steps[number], _coming(steps[number + 1 :])
            outputs[number] = self._run(step.request) if step.request else self._test(step, coming)
            seconds[number] = round(time.monotonic() - began, 4)
        count = len(cells)
        return outputs[-count:], seconds[-count:]

    def _steps(self, cells):
        """A step for each cell, which looks for what the tests below it want; one before for the topmost."""
        looks, steps = [_look(0)], []
        for number, cell in enumerate(cells, 1):
            if "test" not in cell:
                looks.append(_look(number))
                steps.append(Step(remote.to_run(cell["source"], cell["name"], looks[-1])))
                continue
            test = self.lesson.tests.get(cell["test"])
            if test is None:
                missing = f"The instructor's notebook has no test cell {cell['test']}."
                raise EngineFailure(f"{missing} Run: autograder build")
            if not self.in_process:
                looks[-1]["names"] += test.names
                looks[-1]["imports"] += [] if test.hidden else test.imports
            steps.append(Step(None, test, looks[-1]["place"], test.hidden and not self.in_process))
        for step in filter(lambda step: step.request, steps):
            step.request["look"] = _unless_empty(step.request["look"])
        first = _unless_empty(looks[0])
        return [Step(remote.to_look(**first)), *steps] if first else steps

    def _announce(self, requests):
        """Lets the student's process go on while we look at what it has said; a new one is not hurried."""
        if requests and not self.in_process:
            with contextlib.suppress(remote.Gone):
                process = self._living()
                process.deadline = time.monotonic() + self.timeout
                process.expect(requests)

    def _run(self, request):
        try:
            outputs = self._once_more(lambda: self._do(self._living(), request))
        except remote.Gone as gone:
            self.done += _look_alone(request)
            return [self._lost(gone)]
        self.done.append(request)
        return outputs

    def _once_more(self, do):
        """What `do` gives. Where the process is killed from outside, as for want of memory, it is done again.

        Once. A process can bring it about, by closing its pipe for one, and gains nothing by it: it is new.
        """
        try:
            return do()
        except remote.Gone as gone:
            if gone.kind == "Timeout" or self.process is None or self.end() != signal.SIGKILL:
                raise
        return do()

    def _do(self, process, request):
        process.deadline = time.monotonic() + self.timeout
        answer = process.do(request)
        look = request["look"] if request["op"] == "run" else request
        if look:
            self.found[look["place"]] = answer["found"]
        outputs = [_stream(answer["printed"])] if answer["printed"] else []
        if answer["value"] is not None:
            outputs.append(_stream(answer["value"] + "\n"))
        if answer["error"] is not None:
            error = answer["error"]
            outputs.append(_error(error["kind"], error["message"], error["trace"].splitlines()))
        return outputs

    def _living(self):
        """The student's process. A new one does again what was done before, but for what is lost then."""
        while self.process is None:
            if self.starts >= MOST_STARTS:
                raise remote.Gone("KernelDied", GAVE_UP)
            self.starts += 1
            self.found, request = {}, None
            try:
                self.started = self.started or self.student.start()
                begun = time.monotonic() + self.timeout
                process = remote.Process(self.started.pipe, _draws_of(self.seed), begun, self.withheld)
                for request in list(self.done):
                    self._do(process, request)
                self.process = process
            except remote.Gone:
                done, self.done = self.done, []
                for other in done:
                    self.done += _look_alone(request) if other is request else [other]
                self.end()
        return self.process

    def end(self) -> int:
        """Does away with the student's process, if there is one: its wait status. Raises SandboxError."""
        started, self.started, self.process = self.started, None, None
        return started.end() if started else 0

    def leave(self) -> None:
        """Lets go of the student's process; where another would meet its files, it ends before."""
        if self.started and self.started.work:
            self.end()
        elif self.started:
            self.started.let_go()

    def _lost(self, gone):
        self.end()
        text = {"Timeout": TIMEOUT.format(self.timeout)}.get(gone.kind, DIED)
        text = GAVE_UP if gone.text == GAVE_UP else text
        return _error(gone.kind, text, [f"{gone.kind}: {text}"])

    # Tests.

    def _test(self, step, coming):
        if self.in_process:
            return self._test_there(step.test)
        outputs = self._test_here(step, coming if step.test.closes and not step.later else [])
        if not step.later and not (self.process and self.process.is_asked(coming)):
            self._announce(coming)
        return outputs

    def _test_there(self, test):
        """In the student's process, which is then told the seed too."""
        try:
            return self._once_more(lambda: self._do_test_there(test))
        except remote.Gone as gone:
            return [self._lost(gone)]

    def _do_test_there(self, test):
        process = self._living()
        process.environ({check.SEED: self.seed, check.HIDDEN: "1" if test.hidden else ""})
        return self._do(process, remote.to_run(self.lesson.sources[test.name], test.name))

    def _test_here(self, step, follow):
        """The outputs. follow: what is sure to be asked for after the calls of a test that closes."""
        try:
            return self._once_more(lambda: self._do_test_here(step, follow))
        except remote.Gone as gone:
            return [self._lost(gone)]
        except _Stuck:
            raise EngineFailure(f"The test cell {step.test.name} did not end, by its own fault.") from None

    def _do_test_here(self, step, follow):
        test, printed = step.test, io.StringIO()
        os.environ[check.HIDDEN] = "1" if test.hidden else ""
        process = self._living()
        process.printed, process.follow = "", follow
        process.references = self.references.setdefault(test.name, {}) if test.same_for_all else None
        process.deadline = time.monotonic() + self.timeout
        if step.later:
            process.recall(step.place)
        self._put_in(self.found.get(step.place, {}), test.names)
        fault = []
        try:
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
                warnings.catch_warnings(),
                _alarm(self.timeout),
            ):
                if test.hidden:  # a warning may quote the inputs
                    warnings.simplefilter("ignore")
                exec(test.code, self.namespace)
        except (remote.Gone, _Stuck):
            raise
        except BaseException as error:
            fault = [self._fault(test, error)]
        there = "" if test.hidden else process.printed
        return [*_printed(there + printed.getvalue()), *fault]

    def _put_in(self, found, names):
        """Puts stand-ins for the student's names into the namespace, and takes away those that are gone."""
        for name in self.theirs:
            self.namespace.pop(name, None)
        self.theirs = found.keys() & set(names)
        self.namespace.update({name: compare.copied(found[name]) for name in self.theirs})

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


def _look(place):
    return {"place": place, "names": [], "imports": []}


def _unless_empty(look):
    return look if look["names"] or look["imports"] else None


def _look_alone(request):
    """What is left of a request where the cell is lost."""
    look = request["look"] if request["op"] == "run" else None
    return [remote.to_look(**look)] if look else []


def _coming(steps):
    """What the student's process will be asked for these steps, up to a test that is not for later."""
    requests = []
    for step in steps:
        if step.request:
            requests.append(step.request)
        elif not step.later:
            break
    return requests


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
