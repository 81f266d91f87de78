"""Grading through nbgrader's own Autograde: the reference that a faster engine must agree with.

Each submission is autograded in a folder and a gradebook of its own, which hold one student and one lesson,
so that many run side by side. nbgrader's chain is kept but for two parts: `Execute` survives a kernel that
dies or hangs, and `Outputs` sees to it that what a cell prints is no verdict. The student's code runs
without a sandbox, with the rights of whoever grades.
"""

import copy
import logging
import os
import re
import shutil
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbformat.v4 import new_output
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    IgnorePattern,
    LimitOutput,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from nbgrader.preprocessors import Execute as NbgraderExecute
from nbgrader.utils import is_grade, is_solution
from traitlets import Integer
from traitlets.config import Config

from autograder import check, gradebook
from autograder.build import HIDDEN as MARKERS
from autograder.diagnosis import HIDDEN
from autograder.engine import BY_HAND, ERROR, RIGHT, UNTOUCHED, WRONG, Check, EngineFailure, Mended

STUDENT = "student"  # the name under which a submission runs: ids may hold what nbgrader takes for a glob
MOST_OUTPUT = 1_000_000  # characters a cell
MOST_MESSAGE = 4_000


class Execute(NbgraderExecute):
    """Runs the code cells that are not tagged `show`, one kernel for all, and goes on after a kernel died
    or hung.

    A cell that kills the kernel or takes longer than `timeout` gets an error output and is not run again.
    A new kernel runs the cells before it once more, graded tests aside, and goes on behind it; so a fault
    costs what needs that cell.
    """

    most_output = Integer(MOST_OUTPUT, help="characters of output kept of a cell").tag(config=True)

    def preprocess(self, nb, resources):
        self.broken = set()
        self._forget_outputs(nb)
        start = 0
        while start is not None:
            start = self._run(nb, resources, start)
        return nb, resources

    @staticmethod
    def _forget_outputs(nb):
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None

    def _run(self, nb, resources, start):
        """Runs from cell `start` on in a new kernel. If it is lost: the cell to go on from, else None."""
        NotebookClient.__init__(self, nb, None)
        self.reset_execution_trackers()
        self._check_assign_resources(resources)
        self.interrupt_on_timeout = False
        self.raise_on_iopub_timeout = False
        self.iopub_timeout = 30
        self.shutdown_kernel = "immediate"
        with self.setup_kernel(env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            nb.metadata["language_info"] = self.wait_for_reply(self.kc.kernel_info())["content"][
                "language_info"
            ]
            self._quietly(_PRELUDE)
            for index, cell in enumerate(nb.cells):
                if self._is_left_out(cell, index) or (index < start and is_grade(cell)):
                    continue
                again = index < start
                try:
                    self._run_cell(copy.deepcopy(cell) if again else cell, index)
                except (DeadKernelError, CellTimeoutError) as error:
                    self.broken.add(index)
                    cell.outputs = [*cell.outputs, _fault(error, self.timeout)]
                    return start if again else index + 1
        return None

    def _is_left_out(self, cell, index):
        return cell.cell_type != "code" or index in self.broken or "show" in cell.metadata.get("tags", [])

    def _run_cell(self, cell, index):
        self.size = 0
        hidden = is_hidden(cell)
        if hidden:
            self._quietly(_HIDE_INPUTS)
        run_sync(self.async_execute_cell)(cell, index, store_history=True)
        if hidden:
            self._quietly(_SHOW_INPUTS)

    def _quietly(self, code):
        self.wait_for_reply(self.kc.execute(code, silent=True))

    def process_message(self, msg, cell, cell_index):
        """As nbclient's, but what goes beyond `most_output` is dropped while it is read."""
        if msg["msg_type"] in _OUTPUTS:
            before, self.size = self.size, self.size + _size(msg["content"])
            if self.size > self.most_output and msg["msg_type"] != "error":
                if before <= self.most_output:
                    cell.outputs.append(new_output("stream", name="stdout", text=_CUT))
                return None
        return super().process_message(msg, cell, cell_index)


# IPython's exit and quit stop the kernel a moment later, behind the back of whoever waits for it.
_PRELUDE = "import sys as _sys; exit = quit = _sys.exit; del _sys"
# While a hidden test runs, checks do not say on which inputs an answer is wrong.
_HIDE_INPUTS = f"import os as _os; _os.environ[{HIDDEN!r}] = '1'; del _os"
_SHOW_INPUTS = f"import os as _os; _os.environ.pop({HIDDEN!r}, None); del _os"
_OUTPUTS = {"stream", "display_data", "execute_result", "error"}
_CUT = "\n... The output was longer than the grader keeps. The rest was left out. ...\n"


def _size(content):
    return len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())


def _fault(error, timeout):
    if isinstance(error, CellTimeoutError):
        name, text = (
            "Timeout",
            f"This cell did not end within {timeout} seconds, and was stopped. Is there an endless loop?",
        )
    else:
        name, text = (
            "KernelDied",
            "Python ended while this cell ran. Does it call os._exit, or need more memory than there is?",
        )
    return new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])


class Outputs(NbGraderPreprocessor):
    """Sees to it that the points of a test cell hang on one thing: whether it ran to its end.

    nbgrader takes a line on stderr for a failure, and a displayed number for points. Both become plain
    output; a warning is still there to read.
    """

    def preprocess_cell(self, cell, resources, cell_index):
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.name = "stdout"
                elif output.output_type == "execute_result" and is_grade(cell):
                    output.output_type = "display_data"
                    del output["execution_count"]
        return cell, resources


class NbgraderEngine:
    """Grades with nbgrader. source: the course's source folder; timeout: seconds that one cell may take."""

    name = "nbgrader"
    tier = 0

    def __init__(self, source: Path, timeout: int = 30):
        self.source = Path(source)
        self.timeout = timeout
        self.templates = {}
        self.folder = tempfile.TemporaryDirectory(prefix="autograder-")
        self.complaints = _listen()

    def grade(self, submission: Mended) -> tuple[list[Check], dict]:
        self.complaints.clear()
        with tempfile.TemporaryDirectory(prefix="submission-", dir=self.folder.name) as root:
            notebook, scores = self._autograde(submission, Path(root))
        return checks_of(notebook, scores), notebook

    def _autograde(self, submission, root):
        shutil.copyfile(self._template(submission), root / "gradebook.db")
        place = Path(STUDENT, submission.lesson, f"{submission.topic}.ipynb")
        taken = root / "submitted" / place
        taken.parent.mkdir(parents=True)
        nbformat.write(nbformat.from_dict(submission.notebook), taken)
        os.environ["AUTOGRADER_SEED"] = submission.seed
        try:
            Autograde(coursedir=self._course(root, submission), config=self._config()).start()
        except Exception as error:
            raise EngineFailure(self._reason(error)) from error
        notebook = nbformat.read(root / "autograded" / place, as_version=4)
        with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
            graded = book.find_submission_notebook(submission.topic, submission.lesson, STUDENT)
            return notebook, {grade.name: grade.auto_score for grade in graded.grades}

    def _reason(self, error):
        """What went wrong: nbgrader logs the traceback, and then raises an error that says nothing."""
        tracebacks = [text for text in self.complaints if text.startswith("Traceback")]
        return tracebacks[-1].strip().splitlines()[-1] if tracebacks else f"{type(error).__name__}: {error}"

    def _template(self, submission):
        """A gradebook that knows the lesson and nobody: what each submission starts from."""
        if submission.lesson not in self.templates:
            path = Path(self.folder.name, f"{submission.lesson}.db")
            source = self.source / submission.lesson / f"{submission.topic}.ipynb"
            gradebook.register(f"sqlite:///{path}", submission.lesson, submission.topic, source)
            self.templates[submission.lesson] = path
        return self.templates[submission.lesson]

    def _course(self, root, submission):
        return CourseDirectory(
            root=str(root),
            source_directory=str(self.source),
            student_id=STUDENT,
            assignment_id=submission.lesson,
        )

    def _config(self):
        config = Config()
        config.Autograde.autograde_preprocessors = [
            Execute,
            Outputs,
            IgnorePattern,
            LimitOutput,
            SaveAutoGrades,
            CheckCellMetadata,
        ]
        config.Execute.timeout = self.timeout
        return config


def is_hidden(cell: dict) -> bool:
    """Whether the cell holds tests that students do not get to see."""
    return MARKERS[0] in cell["source"]


def checks_of(notebook: dict, scores: dict[str, float | None]) -> list[Check]:
    """The checks of an autograded notebook. A test belongs to the answer that stands before it."""
    checks, exercise, broken = [], "", None
    for cell in notebook["cells"]:
        settings = cell["metadata"].get("nbgrader", {})
        if is_solution(cell):
            exercise, broken = settings["grade_id"], _error_of(cell)
        if is_grade(cell):
            checks.append(_check(cell, exercise, broken, scores[settings["grade_id"]]))
    return checks


def _check(cell, exercise, broken, score):
    points = float(cell["metadata"]["nbgrader"]["points"])
    hidden = is_hidden(cell)
    outcome, message = _verdict(cell, score, points, hidden)
    if broken and check.missing(exercise) in message:
        outcome, message = ERROR, _no_answer(exercise, broken)
    name, seconds = cell["metadata"]["nbgrader"]["grade_id"], _seconds(cell)
    return Check(name, exercise, points, score, outcome, message, hidden, seconds)


def _seconds(cell):
    """How long the cell ran, as nbclient notes it beside the cell; None where it did not run to its end."""
    times = cell["metadata"].get("execution", {})
    begin, end = times.get("iopub.status.busy"), times.get("shell.execute_reply")
    if not (begin and end):
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _verdict(cell, score, points, hidden):
    if cell["cell_type"] != "code":
        return (
            (BY_HAND, "A person will read this answer.")
            if score is None
            else (UNTOUCHED, "No answer was given.")
        )
    error = _error_of(cell)
    return (_outcome(error["ename"]), _message(error, hidden)) if error else (RIGHT, "")


def _error_of(cell):
    """What the cell ended in, as nbformat has it; None where it ended well, or is no code."""
    errors = [output for output in cell.get("outputs", ()) if output["output_type"] == "error"]
    return errors[-1] if errors else None


def _no_answer(exercise, error):
    """The answer's own cell ended in an error, so there is nothing to test: what the student is told."""
    text = re.sub(r"\s*\([^()]*, line (\d+)\)$", r" (line \1 of the cell)", error["evalue"].strip())
    said = f"The cell of {exercise} ended in an error, so that there is no {exercise}. {error['ename']}"
    said += f": {text}" if text else ""
    said += "" if said.endswith((".", "?", "!")) else "."
    if error["ename"] == "ModuleNotFoundError" and "'flowkit." in text:
        said += " This lesson asks for what that module holds, so it is not there when work is graded."
    return said[:MOST_MESSAGE]


def _outcome(name):
    return {"NotRight": WRONG, "NotAttempted": UNTOUCHED, "AssertionError": WRONG}.get(name, ERROR)


def _message(error, hidden):
    text = error["evalue"].strip()
    if error["ename"] in _FRIENDLY:
        return text[:MOST_MESSAGE]
    if hidden:  # the text of a foreign error may hold the hidden input, as a KeyError's does
        return f"A hidden test stopped with {error['ename']:.60}."
    return f"{error['ename']}: {text}"[:MOST_MESSAGE]


_FRIENDLY = {"NotRight", "NotAttempted", "ErrorInYourCode", "AssertionError", "Timeout", "KernelDied"}


def _listen():
    """What nbgrader logs goes into a list, for the message of a failure, and not onto the screen."""
    complaints = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: complaints.append(record.getMessage())
    log = logging.getLogger("traitlets")
    log.handlers, log.propagate = [handler], False
    return complaints
