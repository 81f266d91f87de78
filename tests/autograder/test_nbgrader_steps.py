"""nbgrader's own command, with our preprocessor: the grades of `autograder grade`, without running it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from courses import copy_of_fixture
from nbgrader.api import Gradebook
from rooms import require

from autograder import nbgrader_steps, submission
from autograder.build import build
from autograder.grade import grade
from autograder.master import read_master, solved
from autograder.stock import NbgraderEngine

LESSON = "03_triangles"
CONFIG = Path(__file__).parents[2] / "course" / "nbgrader_config.py"


@pytest.fixture
def course(tmp_path):
    """One answer right, one that would spoil the tests in a kernel, and a file that is no notebook."""
    course = copy_of_fixture(tmp_path)
    build(course)
    shutil.copy(CONFIG, course.folder)
    exercises = read_master(course, course.lessons[0]).exercises
    right = {e.name: solved(e.solution.source) for e in exercises if e.solution}
    spoils = "import numpy as np\nnp.allclose = np.isclose = lambda *a, **k: np.True_\n"
    wrong = {**right, "triangle_area": f"{spoils}def triangle_area(a, b, c):\n    return 0 * a[..., 0]"}
    for student, answers in {"ann": right, "eve": wrong}.items():
        notebook = json.loads((course.release / LESSON / "triangles.ipynb").read_text())
        for cell in notebook["cells"]:
            cell["source"] = answers.get(submission.grade_id(cell), cell["source"])
        hand_in(course, student, json.dumps(notebook))
    return course


def hand_in(course, student, text):
    folder = course.submitted / student / LESSON
    folder.mkdir(parents=True)
    (folder / "triangles.ipynb").write_text(text)


def scores(course):
    with Gradebook(course.gradebook) as book:
        return {
            (s.student.id, grade.name): (grade.auto_score, grade.needs_manual_grade)
            for s in book.assignment_submissions(LESSON)
            for notebook in s.notebooks
            for grade in notebook.grades
        }


@pytest.mark.slow
def test_nbgrader_s_command_gives_the_grades_of_ours(course):
    require(3)
    grade(course, trust=True, count=1)
    ours = scores(course)
    command = [sys.executable, "-m", "nbgrader", "autograde", LESSON, "--force"]
    done = subprocess.run(command, cwd=course.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert scores(course) == ours
    assert ours["ann", "triangle_area_hidden"][0] == 3
    assert ours["eve", "triangle_area_hidden"][0] == 0  # in a kernel she would have got 3


def test_a_new_build_gets_a_new_engine(course, monkeypatch):
    monkeypatch.setattr(nbgrader_steps.grade, "_best_engine", lambda: NbgraderEngine)
    lesson = course.lessons[0]
    first = nbgrader_steps._engine(course, lesson)
    assert nbgrader_steps._engine(course, lesson) is first
    (course.source / LESSON / "triangles.ipynb").touch()
    assert nbgrader_steps._engine(course, lesson) is not first
