"""A class of the fixture course for the tests of grading: who hands in what, and what grading left."""

import json
from pathlib import Path

from courses import copy_of_fixture
from nbgrader.api import Gradebook

from autograder import gradebook
from autograder.build import build
from autograder.course import Course

LESSON = "03_triangles"


def built_course(folder: Path) -> Course:
    """The fixture course in a folder, built and registered in its gradebook."""
    course = copy_of_fixture(folder)
    build(course)
    gradebook.register(course.gradebook, LESSON, "triangles", course.source / LESSON / "triangles.ipynb")
    return course


def without_slow_imports(folder: Path) -> str:
    """A folder for the head of a worker's path: it hides what jsonschema takes a second for, and can miss."""
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "rfc3987_syntax.py").write_text("raise ImportError")
    return str(hidden)


def hand_in(course, student, answer="return 1", data=None, time="2026-09-30 10:00:00 UTC"):
    """Puts into `submitted` a release with this answer in it, or any other bytes."""
    notebook = json.loads((course.release / LESSON / "triangles.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "triangle_area":
            cell["source"] = f"def triangle_area(a, b, c):\n    {answer}\n"
    folder = course.submitted / student / LESSON
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "triangles.ipynb").write_bytes(json.dumps(notebook).encode() if data is None else data)
    (folder / "timestamp.txt").write_text(time)


def grades_of(course: Course) -> dict[str, float]:
    """The score of each student, as the gradebook has it."""
    return gradebook.totals(course.gradebook, LESSON)


def contents(course: Course) -> dict:
    """All that the gradebook says of submissions, without the ids that it draws by lot."""
    with Gradebook(course.gradebook) as book:
        found = {}
        for submission in book.assignment_submissions(LESSON):
            notebook = submission.notebooks[0]
            found[submission.student_id] = {
                "handed in": str(submission.timestamp),
                "penalty": notebook.late_submission_penalty,
                "grades": sorted(
                    (g.name, g.auto_score, g.manual_score, g.needs_manual_grade) for g in notebook.grades
                ),
                "comments": sorted((c.name, c.auto_comment, c.manual_comment) for c in notebook.comments),
            }
        return found


def graded_files(course: Course) -> dict[str, bytes]:
    """Every graded notebook, by student."""
    return {
        path.parent.parent.name: path.read_bytes()
        for path in course.autograded.glob(f"*/{LESSON}/triangles.ipynb")
    }
