"""Exports: what a CSV reader gets back is what the gradebook has, and each LMS finds what it looks for."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
from classes import LESSON, built_course
from nbgrader.api import Gradebook
from outcomes import check, keep, result
from typer.testing import CliRunner

from autograder.cli import app
from autograder.course import Course, CourseError
from autograder.engine import ERROR
from autograder.export import FORMATS, export, text_of


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Names that try quoting, a student without any, one from Canvas, and one who handed in nothing."""
    course = built_course(tmp_path_factory.mktemp("built"))
    keep(course, [result("ada"), result("eve", (2.0, 0.0, 0.0, 0.0, None)), result("lovelaceada_1042")])
    with Gradebook(course.gradebook) as book:
        book.update_or_create_student(
            "ada", first_name='Ada "the\nfirst"', last_name="King, Łucja 王", email="a@b.c"
        )
        book.update_or_create_student("eve", first_name="=HYPERLINK(1)", last_name="-Smith", lms_user_id="77")
        book.update_or_create_student("idle", first_name="I", last_name="Dle")
        book.find_submission_notebook("triangles", LESSON, "eve").late_submission_penalty = 0.5
        book.db.commit()
    return course


@pytest.fixture
def course(graded, tmp_path):
    return Course(shutil.copytree(graded.folder, tmp_path / "course"))


def rows(course, format):
    path, _ = export(course, format)
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def by(rows, column):
    head, *lines = rows
    return {line[head.index(column)]: dict(zip(head, line, strict=True)) for line in lines}


def test_csv_has_a_line_for_each_student(course):
    found = by(rows(course, "csv"), "student_id")
    assert set(found) == {"ada", "eve", "idle", "lovelaceada_1042"}
    ada = found["ada"]
    assert (ada["last_name"], ada["first_name"], ada["email"]) == (
        "King, Łucja 王",
        'Ada "the first"',
        "a@b.c",
    )
    assert (ada["raw_score"], ada["score"], ada["max_score"]) == ("8", "8", "10")
    assert (ada["assignment"], ada["timestamp"], ada["needs_manual_grade"]) == (
        LESSON,
        "2026-09-30 10:00:00",
        "1",
    )
    eve = found["eve"]
    assert (eve["raw_score"], eve["late_submission_penalty"], eve["score"]) == ("2", "0.5", "1.5")
    assert (found["idle"]["timestamp"], found["idle"]["score"]) == ("", "0")


def test_csv_has_nbgraders_columns_in_their_order(course, tmp_path):
    from nbgrader.plugins import CsvExportPlugin

    with Gradebook(course.gradebook) as book:
        CsvExportPlugin(to=str(tmp_path / "theirs.csv")).export(book)
    theirs = (tmp_path / "theirs.csv").read_text().splitlines()[0].split(",")
    assert rows(course, "csv")[0][: len(theirs)] == theirs


@pytest.mark.parametrize("format", ["csv", "canvas", "moodle"])
def test_no_cell_of_text_is_a_formula(course, format):
    cells = [cell for row in rows(course, format) for cell in row]
    assert any(cell.startswith(("'=HYPERLINK(1)", "'-Smith")) for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_each_way_to_begin_a_formula_is_blunted(start):
    ((cell,),) = csv.reader(io.StringIO(text_of([[f"{start}1+1"]]), newline=""))
    assert cell.startswith("'")
    assert cell.endswith("1+1")


@pytest.mark.parametrize(
    "text",
    ["", "plain", 'say "no"', "a,b;c", "Żółć 王", "'quoted'", " = spaced", "١", "a\u2028b", '"', "é" * 500],
)
def test_text_comes_back_as_it_was(text):
    assert next(csv.reader(io.StringIO(text_of([["x", text]]), newline=""))) == ["x", text]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (-1.5, "-1.5"), (8.0, "8"), (0.00001, "0"), (123456.78, "123456.78"), (None, "")],
)
def test_numbers_are_short_and_stay_numbers(value, text):
    assert text_of([["x", value]]) == f"x,{text}\r\n"


def test_canvas_finds_its_columns_and_students(course):
    found = rows(course, "canvas")
    assert found[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", LESSON]
    assert found[1] == ["    Points Possible", "", "", "", "", "10"]
    students = {row[3]: row for row in found[2:]}
    assert students["eve"] == ["'-Smith, =HYPERLINK(1)", "77", "", "eve", "", "1.5"]
    assert students["lovelaceada_1042"][1] == "1042"
    assert students["ada"][:2] == ['King, Łucja 王, Ada "the first"', ""]
    assert students["idle"][5] == ""  # nothing handed in is no zero


def test_moodle_finds_its_columns_and_students(course):
    found = by(rows(course, "moodle"), "Username")
    assert found["ada"]["Email address"] == "a@b.c"
    assert found["eve"]["ID number"] == "77"
    assert {name: line[LESSON] for name, line in found.items()} == {
        "ada": "8",
        "eve": "1.5",
        "idle": "",
        "lovelaceada_1042": "8",
    }


def submission(course, student):
    folder, _ = export(course, "gradescope")
    return json.loads((folder / student / LESSON / "results.json").read_text(encoding="utf-8"))


def test_gradescope_gets_every_check(course):
    found = submission(course, "eve")
    assert (found["score"], found["max_score"]) == (1.5, 10.0)
    assert "0.5 points were taken off" in found["output"]
    assert "wait for a person" in found["output"]
    assert [test["score"] for test in found["tests"]] == [2.0, 0.0, 0.0, 0.0, 0.0]
    assert [test["max_score"] for test in found["tests"]] == [2.0, 3.0, 1.0, 2.0, 2.0]
    assert [test.get("status") for test in found["tests"]] == ["passed", *["failed"] * 3, None]
    assert found["tests"][1]["name"] == "triangle_area, hidden tests"


def test_gradescope_says_what_the_feedback_says(course):
    one = result("bob", (0.0, 0.0, 1.0, 2.0, None), notes=["Cells had been moved."])
    one.checks[0] = check(
        "triangle_area_test", 0.0, ERROR, "! Error in your code: triangle_area\nu is not there."
    )
    keep(course, [one])
    found = submission(course, "bob")
    assert found["tests"][0]["output"] == "u is not there."
    assert "Cells had been moved." in found["output"]


def test_what_waits_is_said(course):
    assert {format: export(course, format)[1] for format in FORMATS} == dict.fromkeys(FORMATS, 3)


def test_nothing_is_graded_yet(course, tmp_path):
    course.gradebook = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(CourseError, match="autograder grade"):
        export(course, "csv")


def test_the_command(course, tmp_path):
    place = tmp_path / "new" / "grades.csv"
    how = ["export", "triangles", "--format", "canvas", "--to", str(place), "--course", str(course.folder)]
    run = CliRunner().invoke(app, how)
    assert run.exit_code == 0
    assert "answers that a person has to read: 3" in run.output
    assert place.read_text(encoding="utf-8").startswith("Student,ID,")


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["Csv", "Canvas", "Moodle", "Gradescope"])
def test_nbgrader_runs_them(course, tmp_path, plugin):
    (course.folder / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.root = {str(course.folder)!r}\n"
    )
    ours, _ = export(course, plugin.lower(), ["triangles"])
    theirs = tmp_path / "theirs"
    nbgrader = [sys.executable, "-m", "nbgrader", "export", f"--exporter=autograder.export.{plugin}", "--to"]
    subprocess.run(
        [*nbgrader, str(theirs), "--assignment", LESSON], cwd=course.folder, check=True, timeout=120
    )
    assert _contents(theirs) == _contents(ours)


def _contents(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
