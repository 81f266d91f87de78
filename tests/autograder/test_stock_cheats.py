"""The classical cheats give full marks in stock nbgrader, without the work; here they give none.

Stock nbgrader, with a course folder, its own `generate_assignment` and its own `autograde`, is the positive
control: what it lets pass shows that each cheat is one.
"""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from nbgrader.api import Gradebook
from rooms import require

from autograder.engine import Mended
from autograder.isolated import InProcessOpen, IsolatedEngine

pytestmark = pytest.mark.heavy

LESSON, TOPIC, POINTS = "ps1", "problem", 3.0
RIGHT = """\
def length(x):
    ### BEGIN SOLUTION
    return torch.sqrt((x * x).sum())
    ### END SOLUTION
"""
WRONG = "def length(x):\n    return x.sum()\n"
PUBLIC = "assert torch.allclose(length(torch.tensor([3.0, 4.0])), torch.tensor(5.0))"
HIDDEN = """\
### BEGIN HIDDEN TESTS
for points in ([2.0, -1.0, 2.0], [-7.0], [0.0, 0.0]):
    x = torch.tensor(points)
    assert torch.allclose(length(x), x.square().sum().sqrt())
### END HIDDEN TESTS
"""
READ = """
import json
for cell in json.load(open("{course}/%s/ps1/problem.ipynb"))["cells"]:
    if cell["metadata"].get("nbgrader", {{}}).get("grade_id") == "length":
        exec("".join(cell["source"]))
"""

# What stands in the cell of the answer, by what it does.
CHEATS = {
    "the comparison is patched": WRONG + "torch.allclose = lambda *args, **options: True",
    "assertions are dropped from the syntax tree": WRONG
    + """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.Pass()
get_ipython().ast_transformers.append(Drop())
""",
    "the test cell is replaced as it comes in": WRONG
    + """
def replaced(lines):
    return ["pass"] if any("assert" in line for line in lines) else lines
get_ipython().input_transformers_cleanup.append(replaced)
""",
    "a result is displayed while the test runs": """
import sys
def length(x):
    sys.displayhook("x")
    return x.sum()
""",
    "the solution is read from source": READ % "source",
    "another student's work is copied": READ % "submitted/ann",
}


def cell(source, name=None, points=None, solution=False):
    settings = {"grade_id": name, "grade": points is not None, "solution": solution, "task": False}
    settings |= {"locked": points is not None, "schema_version": 3}
    settings |= {} if points is None else {"points": points}
    return {
        "cell_type": "code",
        "id": name or "given",
        "metadata": {"nbgrader": settings} if name else {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def notebook(answer, hidden=HIDDEN):
    cells = [
        cell("import torch"),
        cell(answer, "length", solution=True),
        cell(PUBLIC, "public", 1),
        cell(hidden, "hidden", 2),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The folder of a course, and its answers: an honest one, a wrong one, and each cheat."""
    folder = tmp_path_factory.mktemp("stock") / "course"
    answers = {"ann": RIGHT, "bob": WRONG}
    answers |= {
        f"mallory{n}": text.format(course=folder) if "{course}" in text else text
        for n, text in enumerate(CHEATS.values())
    }
    write(folder / "source" / LESSON / f"{TOPIC}.ipynb", notebook(RIGHT))
    nbgrader(folder, "generate_assignment", LESSON, "--create")
    for student, answer in answers.items():
        write(folder / "submitted" / student / LESSON / f"{TOPIC}.ipynb", notebook(answer, hidden=""))
    return folder, answers


def write(path, made):
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made))


def nbgrader(folder, *words):
    command = [sys.executable, "-m", "nbgrader", *words, f"--CourseDirectory.root={folder}"]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic
    environment = {**os.environ, "PATH": programs}
    done = subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def scores_of(engine, answers):
    with closing(engine):
        return {
            student: sum(
                check.score or 0.0
                for check in engine.grade(
                    Mended(student, LESSON, TOPIC, notebook(answer, hidden=""), "5eed")
                )[0]
            )
            for student, answer in answers.items()
        }


def test_stock_nbgrader_gives_full_marks_to_every_cheat(course):
    folder, answers = course
    nbgrader(folder, "autograde", LESSON)
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        scores = {s.student_id: s.score for s in book.assignment_submissions(LESSON)}
    assert scores == dict.fromkeys(answers, POINTS) | {"bob": 0.0}


def test_the_isolated_engine_gives_them_nothing(course):
    require(3)
    folder, answers = course
    scores = scores_of(IsolatedEngine(folder / "source"), answers)
    assert scores == dict.fromkeys(answers, 0.0) | {"ann": POINTS}


def test_a_patched_comparison_works_where_tests_run_beside_the_student_s_code(course):
    """Isolation alone, and not the absence of Jupyter, is what stops it."""
    folder, answers = course
    patched = {"mallory0": answers["mallory0"]}
    assert scores_of(InProcessOpen(folder / "source"), patched) == {"mallory0": POINTS}
