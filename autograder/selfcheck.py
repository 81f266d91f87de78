"""Types every answer of the bank into its exercise, and sees that each gets what it must.

For each exercise: the reference and the other right answers get full marks; the untouched stub, an empty cell
and a syntax error get nothing, as "not attempted"; each named wrong answer is rejected with its own message.
A stub that is code already gets what that code deserves: full marks, or the message for its planted mistake.

A lesson is played without Jupyter: its code cells and the reference solutions run once, in a process of their
own, and each variant runs in a fork of it, so that a crash or a hang costs that variant alone.
"""

import ast
import contextlib
import io
import json
import linecache
import multiprocessing
import os
import subprocess
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from autograder import check
from autograder.answers import Answer, Bank, bank
from autograder.course import Course, Lesson
from autograder.master import Cell, Exercise, Master, read_master, solved, stub, stub_is
from autograder.sandbox import PROCESS
from autograder.student import warm

TIMEOUT = 60.0  # seconds for one variant with its tests
RIGHT_ANSWERS, WRONG_ANSWERS = 2, 3  # an exercise has at least so many, besides its solution


@dataclass(frozen=True)
class Row:
    """What one variant of one exercise got, and whether it is what it must get."""

    topic: str
    exercise: str
    variant: str
    must: str
    got: str
    ok: bool


@dataclass(frozen=True)
class Verdict:
    """What one test cell said. outcome: check's, "right", "broken" where the cell itself failed, or "not run"
    where the one before has settled it.
    """

    cell: str
    points: float
    outcome: str
    kind: str = ""
    message: str = ""


def selfcheck(
    course: Course,
    topics: list[str] | None = None,
    jobs: int | None = None,
    timeout: float = TIMEOUT,
    on_row: Callable[[Row], None] = lambda row: None,
    whole: bool = False,
) -> list[Row]:
    """The rows of the topics, or of every lesson that has a master. on_row is called as each row is known.

    whole: whether a wrong answer meets the tests below the one that refuses it too; some train.

    Lessons run side by side, `jobs` of them, the last ones first, which train: each in a process with one
    thread, and with forks side by side, so that no core waits for the last lesson. Raises CourseError where a
    topic that is asked for has no master, or where a master cannot be read.
    """
    lessons = [x for x in course.choose(topics) if topics or (course.masters / f"{x.name}.py").is_file()]
    for lesson in lessons:
        read_master(course, lesson)
    jobs = jobs or os.cpu_count() or 1
    side = max(min(jobs, 2), jobs // max(len(lessons), 1))
    with ThreadPoolExecutor(jobs) as pool:
        found = [
            pool.submit(_in_a_process, course, lesson, timeout, side, whole, on_row)
            for lesson in reversed(lessons)
        ]
        return [row for rows in reversed(found) for row in rows.result()]


def check_lesson(
    master: Master, answers: Bank, timeout: float = TIMEOUT, side: int = 1, whole: bool = False
) -> Iterator[Row]:
    """The rows of one lesson, played in this process and its forks, `side` of them at a time."""
    topic = master.lesson.topic
    known = {exercise.name for exercise in master.exercises}
    for name in answers.exercises:
        if name not in known:
            yield Row(topic, name, "the bank", "an exercise of this name", "the lesson has none", False)
    played, namespace = 0, _fresh_namespace()
    for exercise in (e for e in master.exercises if e.solution and (e.tests or e.hidden)):
        start = master.cells.index(exercise.solution)
        for cell in master.cells[played:start]:
            problem = _play(cell, namespace)
            if problem:
                yield Row(topic, exercise.name, f"cell {cell.place}", "runs", problem, False)
        played = start
        before = [cell for cell in master.cells[:start] if cell.kind in ("code", "solution")]
        cells, running = _cells_of(master, exercise), deque()
        for variant in _variants(exercise, answers):
            settled = variant.kind == "wrong" and not whole
            running.append((variant, _Fork(namespace, before, cells, variant.source, settled, timeout)))
            if len(running) == side:
                first, fork = running.popleft()
                yield first.row(topic, exercise, fork.verdicts())
        for variant, fork in running:
            yield variant.row(topic, exercise, fork.verdicts())
        yield from _counted(topic, exercise, answers)


def table(rows: list[Row]):
    """The rows as a rich table, by exercise."""
    from rich.table import Table

    shown = Table("exercise", "answer", "must get", "gets", "", title="Every answer, typed in")
    for row in rows:
        mark = "[green]ok[/]" if row.ok else "[bold red]WRONG[/]"
        shown.add_row(f"{row.topic}.{row.exercise}", row.variant, row.must, row.got, mark)
    return shown


# What is typed in, and what it must get.


@dataclass(frozen=True)
class Variant:
    """One thing to type into an exercise.

    kind: right, nothing (empty stub, empty cell, syntax error), broken (a stub with a mistake) or wrong.
    """

    label: str
    kind: str
    source: str
    answer: Answer | None = None

    def row(self, topic: str, exercise: Exercise, verdicts: list[Verdict]) -> Row:
        must, problem = JUDGES[self.kind](self, verdicts)
        return Row(topic, exercise.name, self.label, must, problem or _summary(verdicts), problem is None)


def _variants(exercise: Exercise, answers: Bank) -> Iterator[Variant]:
    untouched = stub(exercise.solution.source)
    yield Variant("reference", "right", solved(exercise.solution.source))
    for answer in answers.right(exercise.name):
        yield Variant(f"right: {answer.name}", "right", answer.source(), answer)
    kinds = {"empty": "nothing", "whole": "right", "broken": "broken"}
    yield Variant("untouched stub", kinds[stub_is(exercise.solution.source)], untouched)
    yield Variant("empty cell", "nothing", "")
    yield Variant("syntax error", "nothing", f"{untouched}\n)")
    for answer in answers.wrong(exercise.name):
        yield Variant(f"wrong: {answer.name}", "wrong", answer.source(), answer)


def _must_be_right(variant: Variant, verdicts: list[Verdict]) -> tuple[str, str | None]:
    refused = [v for v in verdicts if v.outcome != "right"]
    return "full marks", _said(refused[0]) if refused else None


def _must_be_nothing(variant: Variant, verdicts: list[Verdict]) -> tuple[str, str | None]:
    other = [v for v in verdicts if v.outcome != check.NotAttempted.outcome]
    return "0, not attempted", _said(other[0]) if other else None


def _must_be_recognised(variant: Variant, verdicts: list[Verdict]) -> tuple[str, str | None]:
    """The planted mistake stands in the bank, and the public test already tells it."""
    first = verdicts[0]
    named = first.outcome == check.NotRight.outcome and first.kind.startswith("named:")
    return "the planted mistake's message", None if named else _said(first)


def _must_be_rejected(variant: Variant, verdicts: list[Verdict]) -> tuple[str, str | None]:
    """Rejected by the public test or at least by a hidden one; the first that does says its own message."""
    must = "its own message"
    refused = [v for v in verdicts if v.outcome != "right"]
    if not refused:
        return must, "accepted: full marks"
    first = refused[0]
    its_own = first.kind == f"named:{variant.answer.name}" and variant.answer.messages[0] in first.message
    return must, None if its_own else _said(first)


JUDGES = {
    "right": _must_be_right,
    "nothing": _must_be_nothing,
    "broken": _must_be_recognised,
    "wrong": _must_be_rejected,
}


def _counted(topic: str, exercise: Exercise, answers: Bank) -> Iterator[Row]:
    wanted = (("right", RIGHT_ANSWERS), ("wrong", WRONG_ANSWERS))
    for kind, least in wanted:
        count = len(getattr(answers, kind)(exercise.name))
        if count < least:
            yield Row(topic, exercise.name, f"{kind} answers", f"at least {least}", f"{count}", False)


def _summary(verdicts: list[Verdict]) -> str:
    score = sum(v.points for v in verdicts if v.outcome == "right")
    refused = [v for v in verdicts if v.outcome != "right"]
    full = sum(v.points for v in verdicts)
    first = f": {refused[0].outcome}, {refused[0].kind} ({refused[0].cell})" if refused else ""
    return f"{score:g} of {full:g}{first}"


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome} ({verdict.cell}): {verdict.message}"


# Playing cells.


def _fresh_namespace() -> dict:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main  # dataclasses and pickling look their module up by name
    return main.__dict__


def _cells_of(master: Master, exercise: Exercise) -> list[Cell]:
    """From the exercise's solution cell to its last test: these, and the code cells between them."""
    tests = {*exercise.tests, *exercise.hidden}
    start = master.cells.index(exercise.solution)
    end = max(master.cells.index(test) for test in tests)
    cells = master.cells[start : end + 1]
    return [cell for cell in cells if cell == exercise.solution or cell in tests or cell.kind == "code"]


def _play(cell: Cell, namespace: dict) -> str | None:
    """Runs a cell that others need: code, or a solution. Returns what it raised, in words."""
    if cell.kind not in ("code", "solution"):
        return None
    source = solved(cell.source) if cell.kind == "solution" else cell.source
    try:
        with _silence():
            _execute(source, f"<cell {cell.place}>", namespace)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _execute(source: str, name: str, namespace: dict) -> None:
    """Runs the source of a cell; tracebacks and messages can quote its lines."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)


def _verdicts(namespace: dict, cells: list[Cell], typed: str, settled: bool) -> list[Verdict]:
    """What the tests among the cells say when `typed` stands in the solution cell.

    settled: whether the first test that refuses it settles all, and those below are not run.
    """
    found = []
    for cell in cells:
        if settled and any(verdict.outcome != "right" for verdict in found):
            if cell.kind in ("test", "hidden"):
                found.append(Verdict(LABELS[cell.kind], cell.points, "not run"))
            continue
        if cell.kind == "solution":
            with contextlib.suppress(Exception), _silence():  # the tests tell what follows from an error here
                _execute(typed, f"<cell {cell.place}>", namespace)
        elif cell.kind == "code":
            with contextlib.suppress(Exception), _silence():
                _execute(cell.source, f"<cell {cell.place}>", namespace)
        else:
            found.append(_verdict(cell, namespace))
    return found


LABELS = {"test": "public test", "hidden": "hidden test"}


def _verdict(cell: Cell, namespace: dict) -> Verdict:
    os.environ[check.HIDDEN] = "1" if cell.kind == "hidden" else ""
    label = LABELS[cell.kind]
    try:
        with _silence():
            _execute(cell.source, f"<cell {cell.place}>", namespace)
    except check.Outcome as outcome:
        return Verdict(label, cell.points, outcome.outcome, outcome.kind, outcome.message)
    except Exception as error:
        return Verdict(label, cell.points, "broken", type(error).__name__, f"{type(error).__name__}: {error}")
    return Verdict(label, cell.points, "right")


@contextlib.contextmanager
def _silence():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


# Processes.


class _Fork:
    """A child that finds the verdicts of a variant. Where there is no fork, it plays the cells before first.

    It is started at once, and by the only thread there is; `verdicts` waits for it.
    """

    def __init__(
        self,
        namespace: dict,
        before: list[Cell],
        cells: list[Cell],
        typed: str,
        settled: bool,
        timeout: float,
    ):
        forks = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if forks else "spawn")
        self.graded = [cell for cell in cells if cell.kind in ("test", "hidden")]
        self.timeout, self.deadline = timeout, time.monotonic() + timeout
        self.receive, send = context.Pipe(duplex=False)
        ready = (namespace, []) if forks else (None, before)
        self.child = context.Process(target=_child, args=(*ready, cells, typed, settled, send))
        self.child.start()
        send.close()

    def verdicts(self) -> list[Verdict]:
        try:
            if self.receive.poll(max(0.0, self.deadline - time.monotonic())):
                return self.receive.recv()
            reason = f"no end after {self.timeout:g} s"
        except EOFError:
            self.child.join()
            reason = f"the process ended with exit code {self.child.exitcode}"
        finally:
            self.child.kill()
            self.child.join()
            self.receive.close()
        return [Verdict(LABELS[cell.kind], cell.points, "broken", "process", reason) for cell in self.graded]


def _child(
    namespace: dict | None, before: list[Cell], cells: list[Cell], typed: str, settled: bool, send
) -> None:
    if namespace is None:
        namespace = _fresh_namespace()
        for cell in before:
            _play(cell, namespace)
    send.send(_verdicts(namespace, cells, typed, settled))
    send.close()


def _in_a_process(
    course: Course, lesson: Lesson, timeout: float, side: int, whole: bool, on_row: Callable[[Row], None]
) -> list[Row]:
    """The rows of one lesson, from a process with one thread, so that it may fork after it has used torch."""
    program = "import sys; from autograder import selfcheck; selfcheck._write_rows(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(course.folder), lesson.topic, str(timeout), str(side)]
    command += ["whole"] if whole else []
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | PROCESS, text=True) as process:
        for line in process.stdout:
            rows.append(Row(**json.loads(line)))
            on_row(rows[-1])
    if process.returncode:
        row = Row(
            lesson.topic, "", "the lesson", "is played to its end", f"exit code {process.returncode}", False
        )
        rows.append(row)
        on_row(row)
    return rows


def _imported(master: Master) -> list[str]:
    """The modules that the lesson's tests import."""
    tests = [cell.source for cell in master.cells if cell.kind in ("test", "hidden")]
    nodes = [node for source in tests for node in ast.walk(ast.parse(source))]
    plain = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    return [*plain, *(node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module)]


def _write_rows(folder: str, topic: str, timeout: str, side: str, whole: str = "") -> None:
    """Writes the rows of one lesson to stdout, a line of JSON each. What the lesson prints goes nowhere."""
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    course = Course(Path(folder))
    master = read_master(course, course.lesson(topic))
    answers = bank(topic)
    warm(_imported(master))  # what torch loads at its first use costs a second, which each fork would pay
    for row in check_lesson(master, answers, float(timeout), int(side), bool(whole)):
        print(json.dumps(asdict(row)), file=rows)
