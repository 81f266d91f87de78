"""Feedback: it says outcome, reason and points of every check, and nothing that its student must not see."""

import html
import json
import os
import re
import signal
from types import SimpleNamespace

import nbformat
import pytest
from courses import copy_of_fixture
from nbformat.v4 import new_code_cell, new_output
from nbgrader.api import Gradebook
from outcomes import Page

from autograder.build import HIDDEN, build
from autograder.course import CourseError
from autograder.engine import BY_HAND, RIGHT, WRONG, Check, Result
from autograder.feedback import AGAIN, _check, conceal, feedback, readable
from autograder.grade import grade
from autograder.leaks import leaks

LESSON = "03_triangles"
SECRET = "case = make_a_case_that_nobody_guesses(17)"
THIEF = """\
import inspect

def triangle_area(a, b, c):
    print("inputs", a, b, c)
    return 0 * a[..., 0]
"""
READ_HISTORY = "for text in In:\n    print(text)"
SCRIPT = """\
from IPython.display import HTML, display
display(HTML("<script>alert(1)</script><img src=x onerror=alert(2)>"))
def polygon_area(corners):
    raise ValueError("<script>alert(3)</script> | `x` $y$")
"""


def graded_cell(source, name, outputs):
    settings = {"grade_id": name, "grade": True, "solution": False, "locked": True, "points": 1}
    return new_code_cell(source, outputs=outputs, metadata={"nbgrader": settings})


def graded_notebook():
    error = new_output("error", ename="NotRight", evalue="no", traceback=[f"----> 2 {SECRET}"])
    hidden = f"# Hidden tests run here.\n{HIDDEN[0]}\nimport numpy as np\n{SECRET}\n{HIDDEN[1]}"
    printed = new_output("stream", name="stdout", text=f"I found:\n    {SECRET}\n")
    honest = new_output("stream", name="stdout", text="import numpy as np\n")
    cells = [
        graded_cell("assert area(2, 3) == 6", "area_test", [error]),
        graded_cell(hidden, "area_hidden", [error, printed]),
        new_code_cell("print(In[-1])", outputs=[printed]),
        new_code_cell("print('import numpy as np')", outputs=[honest]),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_hidden_source_is_concealed_wherever_it_stands():
    notebook = graded_notebook()
    checks = [
        Check("area_test", "area", 1, 0.0, WRONG, "✗ Not right yet: area\nIt is too large."),
        Check("area_hidden", "area", 1, 1.0, RIGHT, hidden=True),
    ]
    conceal(notebook, Result("ann", LESSON, "key", checks))
    text = json.dumps(notebook)
    assert "nobody_guesses" not in text
    assert HIDDEN[0] not in text
    assert "It is too large." in notebook.cells[0].outputs[0].text
    assert "Right" in notebook.cells[1].outputs[0].text
    assert notebook.cells[2].outputs[0].text == "This output is not shown.\n"
    assert notebook.cells[3].outputs[0].text == "import numpy as np\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Graded by the real engine: a thief, a writer of scripts, and a file that is no notebook."""
    course = copy_of_fixture(tmp_path_factory.mktemp("course"))
    build(course)
    released = json.loads((course.release / LESSON / "triangles.ipynb").read_text())
    thief = _answer(released, triangle_area=THIEF)
    thief["cells"].append({"cell_type": "code", "metadata": {}, "source": READ_HISTORY, "outputs": []})
    script = _answer(released, polygon_area=SCRIPT)
    for student, data in {
        "thief": json.dumps(thief),
        "script": json.dumps(script),
        "lost": "hello",
        "copied": json.dumps({**released, "cells": released["cells"][:5] * 2 + released["cells"][5:]}),
    }.items():
        folder = course.submitted / student / LESSON
        folder.mkdir(parents=True)
        (folder / "triangles.ipynb").write_text(data)
        (folder / "timestamp.txt").write_text("2026-10-03 12:00:00 UTC")
    grade(course, trust=True, count=2, timeout=60)
    with Gradebook(course.gradebook) as book:
        book.update_or_create_assignment(LESSON, duedate="2026-10-01 12:00:00 UTC")
    feedback(course)
    return course


def _answer(notebook, **answers):
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = answers.get(name, cell["source"])
    return notebook


def page(course, student):
    return (course.feedback / student / LESSON / "triangles.html").read_text()


def data(course, student):
    return json.loads((course.feedback / student / LESSON / "feedback.json").read_text())


@pytest.mark.parametrize(
    ("again", "by_hand", "score", "said"),
    [(True, None, None, "A person will read"), (True, 1.5, 1.5, AGAIN), (False, 1.5, 1.5, "")],
)
def test_what_is_said_of_an_answer_that_a_person_reads(again, by_hand, score, said):
    grade = SimpleNamespace(needs_manual_grade=again, manual_score=by_hand, score=by_hand or 0.0)
    shown = _check(Check("why", "why", 2.0, None, BY_HAND, "A person will read this answer."), grade)
    assert shown["score"] == score
    assert shown["message"].startswith(said)
    assert bool(shown["message"]) == bool(said)


def test_pages_written_side_by_side_are_those_written_one_after_the_other(course, monkeypatch):
    students, said = ["copied", "lost", "script", "thief"], []
    before = {student: (page(course, student), data(course, student)) for student in students}
    monkeypatch.setattr("autograder.feedback.FEW", 1)
    monkeypatch.setattr("autograder.feedback.cpu_count", lambda: 2)
    folders = feedback(course, say=lambda *words: said.append(words))
    assert [folder.parent.name for folder in folders] == students
    assert said == [(0, 4, ""), *((n, 4, f"{s} {LESSON}") for n, s in enumerate(students, 1))]
    assert {student: (page(course, student), data(course, student)) for student in students} == before


def test_what_goes_wrong_in_another_process_is_told(course, monkeypatch, tmp_path):
    monkeypatch.setattr("autograder.feedback.FEW", 1)
    monkeypatch.setattr("autograder.feedback.cpu_count", lambda: 2)
    monkeypatch.setattr(course, "gradebook", f"sqlite:///{tmp_path / 'another.db'}")
    Gradebook(course.gradebook).close()  # there it is, and empty
    with pytest.raises(CourseError, match="gradebook knows nothing of"):
        feedback(course)


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told(course, monkeypatch):
    monkeypatch.setattr("autograder.feedback.FEW", 1)
    monkeypatch.setattr("autograder.feedback.cpu_count", lambda: 2)
    monkeypatch.setattr("autograder.feedback._give", killed)
    with pytest.raises(CourseError, match="was killed"):
        feedback(course)


@pytest.mark.slow
def test_nothing_leaks(course):
    assert leaks(course, course.feedback) == []
    for student in ("thief", "script", "lost"):
        text = html.unescape(re.sub(r"<[^>]*>", "", page(course, student))) + json.dumps(
            data(course, student)
        )
        assert "hidden_determinant" not in text
        assert set(re.findall(r'File "<(\w+)', text)) <= {"cell"}  # tracebacks are of the student's own cells
    hidden = [check for check in data(course, "thief")["checks"] if check["hidden"]]
    assert hidden[0]["outcome"] == "not right yet"
    # The student's function printed each input that it got, those of the public test and the hidden ones.
    printed = re.findall(r"inputs \[.*", html.unescape(page(course, "thief")))
    assert printed == ["inputs [0. 0.] [1. 0.] [0. 1.]", "inputs [0. 1.] [1. 0.] [0. 0.]"]


@pytest.mark.slow
def test_each_check_has_outcome_message_and_points(course):
    found = data(course, "script")
    assert [check["name"] for check in found["checks"]] == [
        "triangle_area_test",
        "triangle_area_hidden",
        "polygon_area_test",
        "polygon_area_hidden",
        "why_signed",
    ]
    assert [check["points"] for check in found["checks"]] == [2, 3, 1, 2, 2]
    assert {check["outcome"] for check in found["checks"]} == {"not attempted", "error in your code"}
    assert all(check["message"] for check in found["checks"])
    assert found["points"] == 10


@pytest.mark.slow
def test_what_was_mended_and_lateness_are_said(course):
    text = page(course, "lost")
    assert "could not be graded" in text
    assert "2 days after the lesson was due" in text
    assert data(course, "copied")["seconds_late"] == 2 * 86400
    assert "What was mended" not in page(course, "thief")


@pytest.mark.slow
def test_students_text_is_no_markup(course):
    text = page(course, "script")
    body = text[text.index("<body") :]
    assert not re.search(r"<script[^>]*>\s*alert", body)
    assert not re.search(r"<img[^>]*onerror", body)
    assert '<html lang="en">' in text


@pytest.mark.slow
@pytest.mark.parametrize("student", ["thief", "script", "lost"])
def test_the_page_reads_without_eyes_or_colours(course, student):
    found = Page(page(course, student))
    assert found.barriers() == []
    assert found.headings[:2] == ["Triangles: your feedback", "Triangles"]
    symbols = re.findall(r"([✓✗…○!]) (right|not|error|graded)", html.unescape(page(course, student)))
    rows = 0 if student == "lost" else 5  # of what could not be read, the reason says all
    assert len(symbols) == rows  # the outcome of each check, in a sign and in words


NBGRADERS = """\
<html><head></head><body><div class="panel-heading">
<h4>triangles (Score: 1)</h4><div id="toc"><a href="#area_test">Test cell</a></div></div>
<div class="panel-body"><div id="notebook"><main><div id="notebook">
<h1>Yours<a class="anchor-link" href="#a">¶</a></h1><h1>Lesson</h1><h2>Part</h2>
<table><thead><tr><th style="x">a</th></tr></thead></table></div></main></div></div></body></html>"""


def test_nbgraders_page_is_made_readable():
    assert Page(NBGRADERS).barriers() != []
    found = Page(readable(NBGRADERS.replace("<head>", "<head><title>t</title>")))
    assert found.barriers() == []
    assert found.headings == ["Yours", "Lesson", "Part"]
    assert "Test cell" not in readable(NBGRADERS)
    assert [tag for tag, _ in found.elements if tag in ("main", "h1", "h2", "h3")] == [
        "main",
        "h1",
        "h2",
        "h3",
    ]


@pytest.mark.slow
def test_grades_given_by_hand_are_in_the_feedback(course):
    with Gradebook(course.gradebook) as book:
        by_hand = book.find_grade("why_signed", "triangles", LESSON, "thief")
        by_hand.manual_score, by_hand.needs_manual_grade = 1.5, False
        for name, text in (("why_signed", "The signs cancel."), ("triangle_area", "See me.")):
            book.find_comment(name, "triangles", LESSON, "thief").manual_comment = text
        book.db.commit()
    feedback(course)
    assert data(course, "thief")["score"] == 1.5
    text = page(course, "thief")
    head = text.partition("<h2")[0]
    assert '<a href="#why_signed"><code>why_signed</code></a>: The signs cancel.' in head
    assert '<a href="#comment-triangle_area"><code>triangle_area</code></a>: See me.' in head
    assert 'name="why_signed"' in text
    assert 'name="comment-triangle_area"' in text


@pytest.mark.slow
def test_each_check_of_the_table_leads_to_its_cell(course):
    text = page(course, "script")
    links = set(re.findall(r'href="#(\w+)"', text.partition("<h2")[0]))
    assert links == {check["name"] for check in data(course, "script")["checks"]}
    assert links <= set(re.findall(r'name="(\w+)"', text))
