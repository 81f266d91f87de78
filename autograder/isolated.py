"""The isolated engine: a submission's cells run in a sandbox, its tests run elsewhere.

For the lesson that is being graded there are two processes beside this one: the examiner (examiner.py), and
in the sandbox the student's (student.py). Both are started once; the student's forks for each submission.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
from nbgrader.utils import determine_grade

from autograder import wire
from autograder.course import Course, CourseError
from autograder.engine import Check, EngineFailure, Mended
from autograder.lesson import read_lesson
from autograder.sandbox import PROCESS, Limits
from autograder.stock import checks_of

READY_WITHIN = 180  # seconds
MOST_CELLS_OF_TIME = 40  # a submission may take so many times the time limit of a cell


class IsolatedEngine:
    """Grades in tier 3. source: the course's source folder; timeout: seconds that one cell may take."""

    name = "isolated"
    tier = 3
    in_process = False

    def __init__(self, source: Path | str, timeout: int = 30, limits: Limits | None = None):
        self.source = Path(source)
        self.timeout = timeout
        self.limits = limits or Limits()
        self.examiner = None

    def grade(self, submission: Mended) -> tuple[list[Check], dict]:
        """The checks and the graded notebook, as engine.Engine says."""
        examiner = self._examiner(submission)
        graded = nbformat.from_dict(submission.notebook)  # a copy, of nodes as nbgrader wants them
        steps = _steps(graded, examiner.tests)
        cells = [step for _, step in steps]
        outputs, seconds = self._ask(examiner, {"seed": submission.seed, "cells": cells})
        _forget_outputs(graded)
        for count, ((cell, _), found) in enumerate(zip(steps, outputs, strict=True), 1):
            cell["execution_count"], cell["outputs"] = count, nbformat.from_dict(found)
        scores = {
            cell.metadata.nbgrader["grade_id"]: determine_grade(cell)[0]
            for cell in graded.cells
            if cell.metadata.get("nbgrader", {}).get("grade")
        }
        taken = {step.get("test"): spent for step, spent in zip(cells, seconds, strict=True)}
        checks = [replace(c, seconds=taken.get(c.grade_id)) for c in checks_of(graded, scores)]
        return checks, graded

    def close(self) -> None:
        """Ends the processes. Otherwise they end with this one."""
        if self.examiner is not None:
            self.examiner.close()
            self.examiner = None

    def _examiner(self, submission):
        lesson = submission.lesson, submission.topic
        if self.examiner is None or self.examiner.lesson != lesson:
            self.close()
            path = self.source / submission.lesson / f"{submission.topic}.ipynb"
            withheld = withheld_by(self.source.parent, submission.topic)
            settings = {"tier": self.tier, "in_process": self.in_process, "withheld": withheld}
            settings |= {"timeout": self.timeout, "limits": asdict(self.limits)}
            self.examiner = _Examiner(lesson, path, settings)
        return self.examiner

    def _ask(self, examiner, request):
        try:
            answer = examiner.ask(request, MOST_CELLS_OF_TIME * self.timeout)
        except (wire.WireError, TimeoutError) as error:
            said = examiner.said()
            self.close()
            raise EngineFailure(f"The examiner ended. {error} {said}".strip()) from None
        if "failure" in answer:
            raise EngineFailure(answer["failure"])
        return answer["outputs"], answer["seconds"]


class LandlockEngine(IsolatedEngine):
    """The same in tier 2, for machines without user namespaces."""

    tier = 2


class OpenEngine(IsolatedEngine):
    """The same without a sandbox: tests are run apart all the same, and cannot be tampered with."""

    tier = 0


class InProcess(IsolatedEngine):
    """In the sandbox too, but tests run in the student's process, as they do in a notebook.

    For courses whose tests need the student's namespace. A submission cannot get out, but it can read and
    change the tests that it is graded by.
    """

    name = "in-process"
    in_process = True


class InProcessLandlock(InProcess):
    """The same in tier 2."""

    tier = 2


class InProcessOpen(InProcess):
    """The same without a sandbox."""

    tier = 0


def withheld_by(folder: Path, topic: str) -> tuple[str, ...]:
    """The modules of flowkit that a lesson withholds; none where the folder holds no course of ours."""
    try:
        return Course(folder).lesson(topic).withheld
    except CourseError:
        return ()


class _Examiner:
    """The examiner's process for one lesson."""

    def __init__(self, lesson, path, settings):
        self.lesson = lesson
        self.asked = 0
        self.tests = read_lesson(path, lesson[1]).sources
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self.pipe, far = socket.socketpair()
        settings = {**settings, "source": str(path), "topic": lesson[1]}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.examiner", str(far.fileno()), json.dumps(settings)],
            env=os.environ | PROCESS,
            pass_fds=(far.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.complaints,
        )
        far.close()
        try:
            wire.receive(self.pipe, time.monotonic() + READY_WITHIN)
        except (wire.WireError, TimeoutError):
            said = self.said()
            self.close()
            raise EngineFailure(f"The examiner of {lesson[0]} did not start. {said}") from None

    def ask(self, request, seconds):
        """The answer to this request. To an earlier one there may be two: its own, and that it was lost."""
        deadline = time.monotonic() + seconds
        self.asked += 1
        wire.send(self.pipe, wire.pack({**request, "number": self.asked}), deadline)
        while True:
            answer = wire.unpack(wire.receive(self.pipe, deadline))
            if answer["number"] == self.asked:
                return answer

    def said(self):
        """The last that it wrote to stderr; it is ended for that."""
        self.stop()
        self.complaints.seek(0)
        return self.complaints.read()[-2000:].decode(errors="replace").strip()

    def stop(self):
        """It ends when it finds nobody at the other end, and takes its zygote and its folder with it."""
        self.pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self):
        self.stop()
        self.complaints.close()


def _steps(notebook, tests):
    """The cells that are run, each with what the examiner is told of it. Tests are the instructor's own."""
    steps = []
    for index, cell in enumerate(notebook["cells"]):
        settings = cell["metadata"].get("nbgrader", {})
        name = settings.get("grade_id", str(index))
        if cell["cell_type"] != "code" or "show" in cell["metadata"].get("tags", []):
            continue
        if settings.get("grade") and not settings.get("solution"):
            cell["source"] = tests.get(name, cell["source"])
            steps.append((cell, {"test": name}))
        elif cell["source"].strip():
            steps.append((cell, {"source": cell["source"], "name": name}))
    return steps


def _forget_outputs(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
