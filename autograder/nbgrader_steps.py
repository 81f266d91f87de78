"""`nbgrader autograde`, and so formgrader's button, with the engine of `autograder grade`: the same grades.

course/nbgrader_config.py names the preprocessor here among those that nbgrader runs on each submission.
"""

from pathlib import Path

import nbformat
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder import grade, workers
from autograder.course import Course
from autograder.engine import seed_of
from autograder.stock import Execute, NbgraderEngine, Outputs

NO_SANDBOX = (
    "There is no sandbox on this machine, so this submission runs with your rights, in a kernel as nbgrader"
    " always does it. `autograder doctor` says what is missing."
)

_warm = {}  # the engine that graded last, by what it grades: starting one takes seconds


class Grade(NbGraderPreprocessor):
    """Runs a submission in the sandbox, and hands on its graded notebook, whose outputs give the scores.

    The submission is read where it was handed in, and mended as `autograder grade` does it. Where there is no
    sandbox the notebook runs in a kernel. Raises EngineFailure.
    """

    def preprocess(self, nb, resources):
        about = resources["nbgrader"]
        course = Course(CourseDirectory(parent=self).root)
        lesson = course.lesson(about["assignment"])
        engine = _engine(course, lesson)
        if isinstance(engine, NbgraderEngine):
            self.log.warning(NO_SANDBOX)
            nb, resources = Execute(parent=self).preprocess(nb, resources)
            return Outputs(parent=self).preprocess(nb, resources)
        folder = course.submitted / about["student"] / lesson.name
        path, notes = grade._notebook_in(folder, lesson)
        job = workers.Job(
            student=about["student"],
            lesson=lesson.name,
            topic=lesson.topic,
            path=str(path),
            release=str(grade._built(course.release, lesson)),
            key="",
            seed=seed_of(grade._salt(course), about["student"]),
            timestamp="",
            notes=notes,
        )
        result, graded = workers.examine(engine, job)
        for note in filter(None, [result.unreadable, *result.notes]):
            self.log.warning("%s: %s", job.student, note)
        return nbformat.reads(graded, as_version=4), resources


def _engine(course, lesson):
    """The engine of the best sandbox here, with the lesson as it is built now."""
    source = grade._built(course.source, lesson)
    key = str(source), Path(source).stat().st_mtime_ns
    if key not in _warm:
        for old in _warm.values():
            getattr(old, "close", lambda: None)()
        _warm.clear()
        kind = grade._best_engine()
        _warm[key] = (kind if kind.tier else NbgraderEngine)(course.source, grade.TIMEOUT)
    return _warm[key]
