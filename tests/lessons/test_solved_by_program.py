"""Every student notebook, answered with the master's solutions: as Jupyter runs it, and as it is graded."""

import json
import runpy
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from autograder.build import build
from autograder.course import Course, Lesson
from autograder.engine import BY_HAND, RIGHT
from autograder.grade import grade, read_result
from autograder.master import read_master, solved

ROOT = Path(__file__).parents[2]
COURSE = Course(ROOT / "course")
LESSONS = [lesson for lesson in COURSE.lessons if (COURSE.published / lesson.name).is_dir()]  # what is built
BUDGET = runpy.run_path(str(ROOT / "benchmarks" / "lessons.py"))  # what a lesson may cost

# Stands before the lesson, and keeps every interactive that the lesson makes.
BEFORE = """
from flowkit.lab import widgets as _widgets

_played, _play = [], _widgets.play


def _recording(draw, **controls):
    _played.append(_play(draw, **controls))
    return _played[-1]


_widgets.play = _recording
"""

# Stands behind the lesson: what it cost so far, and then its interactives wherever sliders go.
AFTER = f"""
{BUDGET["PEAK"]}
import json, time

print(json.dumps({{"cpu_seconds": time.process_time(), "megabytes": peak, "interactives": len(_played)}}))
for _widget in _played:
    for _corner in _widget.corners():
        _widget.render(_corner).encode()
"""


def solved_notebook(course: Course, lesson: Lesson) -> nbformat.NotebookNode:
    """The notebook that students get, its answers typed in."""
    notebook = nbformat.read(course.published / lesson.name / f"{lesson.topic}.ipynb", as_version=4)
    cells = read_master(course, lesson).cells
    answers = {cell.grade_id: solved(cell.source) for cell in cells if cell.kind == "solution"}
    answers |= {cell.grade_id: "For two reasons." for cell in cells if cell.kind == "written"}
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.pop(name, cell.source)
    assert not answers, "every answer has its cell"
    return notebook


def said(cell) -> str:
    """What a cell shows, as plain text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(shown)


def complaints(cell) -> list[str]:
    """What a cell writes to stderr, such as warnings."""
    outputs = cell.get("outputs", [])
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_in_a_kernel_it_runs_to_its_end_and_every_check_says_right(lesson, tmp_path):
    """Within its budget; and its interactives, now with the student's functions, draw at every corner."""
    notebook = solved_notebook(COURSE, lesson)
    lesson_cells = list(notebook.cells)
    before, after = nbformat.v4.new_code_cell(BEFORE), nbformat.v4.new_code_cell(AFTER)
    notebook.cells = [before, *lesson_cells, after]
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()

    tests = [test for exercise in read_master(COURSE, lesson).exercises for test in exercise.tests]
    cells = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in lesson_cells}
    assert len(tests) >= 4
    for test in tests:
        assert said(cells[test.grade_id]).startswith(f"✓ Right: {test.name} passes")
    assert [cell.source for cell in lesson_cells if complaints(cell)] == []

    cost = json.loads(said(after))
    assert cost["cpu_seconds"] <= 2 * BUDGET["SECONDS"]  # two cores, whatever else they are busy with
    assert cost["megabytes"] <= BUDGET["MEGABYTES"]
    assert cost["interactives"] >= 2, "a lesson has at least two interactives"


@pytest.mark.slow
def test_graded_they_all_get_full_marks(tmp_path):
    """By the engine that this machine offers, on a course built anew, in one run."""
    course = Course(shutil.copytree(COURSE.folder, tmp_path / "course", ignore=all_but_masters))
    build(course, [lesson.topic for lesson in LESSONS])
    for lesson in LESSONS:
        handed_in = course.submitted / "student" / lesson.name / f"{lesson.topic}.ipynb"
        handed_in.parent.mkdir(parents=True)
        nbformat.write(solved_notebook(course, lesson), handed_in)

    graded = grade(course, trust=True, timeout=120)  # seconds a cell, also where others are at work
    assert graded.failed == []
    for lesson in LESSONS:
        result = read_result(course, "student", lesson.name)
        assert [check.message for check in result.checks if check.outcome not in (RIGHT, BY_HAND)] == []
        written = [exercise for exercise in read_master(course, lesson).exercises if exercise.written]
        assert [check.exercise for check in result.checks if check.outcome == BY_HAND] == [
            exercise.name for exercise in written
        ]
        assert result.score == lesson.points - sum(exercise.points for exercise in written)
        assert result.notes == []


def all_but_masters(folder: str, names: list[str]) -> list[str]:
    """For copytree: what was built or handed in stays behind."""
    kept = {"masters", "syllabus.toml", "glossary.toml"}
    return [name for name in names if name not in kept] if Path(folder) == COURSE.folder else []
