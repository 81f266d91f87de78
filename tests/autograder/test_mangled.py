"""Every notebook of the mangled corpus gets the grade and the note that stand with it, in one grading run."""

import json

import pytest
from classes import LESSON, built_course
from mangled import CASES, FILE, FULL

from autograder.grade import grade, read_result
from autograder.isolated import OpenEngine
from autograder.master import read_master, solved


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course after a run in which every case was a student. The cases are harmless: no sandbox."""
    course = built_course(tmp_path_factory.mktemp("mangled"))
    notebook = right_notebook(course)
    for case in CASES:
        folder = course.submitted / case.name / LESSON
        folder.mkdir(parents=True)
        case.hand_in(notebook, folder)
    run = grade(course, count=1, engine=OpenEngine, trust=True, timeout=10)
    return course, run


def right_notebook(course):
    """The release with the solutions in it, as a student would hand it in."""
    exercises = {e.name: e for e in read_master(course, course.lessons[0]).exercises}
    notebook = json.loads((course.release / LESSON / FILE).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        settings = cell["metadata"].get("nbgrader", {})
        if settings.get("solution") and not settings.get("grade"):
            cell["source"] = solved(exercises[settings["grade_id"]].solution.source)
        elif settings.get("solution"):
            cell["source"] = "Two triangles overlap with opposite signs, and the surplus cancels."
    return notebook


def test_there_are_enough_and_no_two_of_one_name():
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_gets_its_grade_and_its_note(graded, case):
    result = read_result(graded[0], case.name, LESSON)
    assert result is not None
    assert (result.score, bool(result.unreadable)) == (case.score, case.unreadable)
    notes = [*result.notes, *filter(None, [result.unreadable])]
    if case.says:
        assert any(case.says in note for note in notes), notes
    else:
        assert notes == []


def test_none_of_them_stops_the_run(graded):
    course, run = graded
    assert run.failed == []
    assert sum(line.score == FULL for line in run.results) > 20
    again = grade(course, count=1, engine=OpenEngine, trust=True, timeout=10)
    assert (again.results, again.failed) == ([], [])
