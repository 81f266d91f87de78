"""The report: its numbers are those that one computes by hand, and its page can be read by everybody."""

import io
import shutil

import nbformat
import numpy as np
import pytest
from classes import LESSON, built_course
from nbgrader.api import Gradebook
from outcomes import Page, check, keep, result
from rich.console import Console
from typer.testing import CliRunner

from autograder.cli import app
from autograder.course import Course, CourseError
from autograder.engine import ERROR, RIGHT, UNTOUCHED, WRONG, Result
from autograder.report import PARTLY, WAITS, report
from autograder.report_page import html, terminal, write
from autograder.stock import checks_of


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path):
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


def of(course, exercise):
    (found,) = report(course)
    return next(one for one in found.exercises if one.name == exercise)


def test_passed_mean_and_outcomes(course):
    twice = "✗ Not right yet: triangle_area\nYour {} is twice the area."
    keep(
        course,
        [
            result("ann"),
            result("bob", (2.0, 0.0, 0.0, 0.0, None), twice.format(1.5)),
            result("cat", (0.0, 0.0, 1.0, 2.0, None), twice.format(-7)),
            result("dan", (0.0, 0.0, 0.0, 0.0, None), "✗ Not right yet: triangle_area\nA list came back."),
        ],
    )
    found = of(course, "triangle_area")
    assert (found.points, found.passed, found.mean) == (5.0, 0.25, 0.35)
    assert found.outcomes == {RIGHT: 1, PARTLY: 1, WRONG: 2, ERROR: 0, UNTOUCHED: 0, WAITS: 0}
    assert (found.said, found.message) == (2, "Your 1.5 is twice the area.")
    assert of(course, "why_signed").passed is None
    assert of(course, "why_signed").outcomes[WAITS] == 4


def test_errors_and_empty_answers_are_told_apart(course):
    one = result("ann", (0.0, 0.0, 0.0, 0.0, None))
    one.checks[:2] = [check("triangle_area_test", 0.0, ERROR), check("triangle_area_hidden", 0.0, ERROR)]
    one.checks[2:4] = [check(f"polygon_area_{kind}", 0.0, UNTOUCHED) for kind in ("test", "hidden")]
    one.untouched = ["polygon_area", "why_signed"]
    keep(course, [one])
    assert of(course, "triangle_area").outcomes[ERROR] == 1
    assert of(course, "polygon_area").outcomes[UNTOUCHED] == 1
    assert of(course, "why_signed").outcomes[UNTOUCHED] == 1
    assert of(course, "why_signed").attempted == 0.0


def test_discrimination_is_the_correlation_with_the_rest(course):
    rng = np.random.default_rng(0)
    right = rng.random((40, 2)) < 0.5
    right[:20, 1] = right[:20, 0]
    scores = [((2.0 * a, 3.0 * a, 1.0 * b, 2.0 * b, None)) for a, b in right]
    keep(course, [result(f"s{i}", row) for i, row in enumerate(scores)])
    expected = np.corrcoef(right[:, 0], right[:, 1])[0, 1]
    # Point-biserial, in its own formula: the difference of the two groups' means, in standard deviations.
    rest, passed = 3.0 * right[:, 1], right[:, 0]
    share = passed.mean()
    by_groups = (rest[passed].mean() - rest[~passed].mean()) / rest.std() * np.sqrt(share * (1 - share))
    assert expected == pytest.approx(by_groups)
    assert of(course, "triangle_area").discrimination == pytest.approx(expected)
    assert of(course, "why_signed").discrimination is None


def test_no_discrimination_where_it_means_nothing(course):
    keep(course, [result(f"s{i}") for i in range(12)])
    assert of(course, "triangle_area").discrimination is None  # everybody has the same
    keep(course, [result(f"s{i}", (0.0, 0.0, 0.0, 0.0, None)) for i in range(6)])
    assert of(course, "triangle_area").discrimination == pytest.approx(1.0)
    for i in range(6, 12):
        shutil.rmtree(course.autograded / f"s{i}")
    assert of(course, "triangle_area").discrimination is None  # six are too few


def test_scores_by_hand_count(course):
    keep(course, [result("ann"), result("bob")])
    with Gradebook(course.gradebook) as book:
        grade = book.find_grade("why_signed", "triangles", LESSON, "ann")
        grade.manual_score, grade.needs_manual_grade = 1.0, False
        book.db.commit()
    found = of(course, "why_signed")
    assert (found.mean, found.outcomes[WAITS], found.outcomes[PARTLY]) == (0.5, 1, 1)
    (whole,) = report(course)
    assert sorted(whole.scores) == [8.0, 9.0]
    assert whole.waiting == 1


def test_unreadable_late_and_time(course):
    lost = result("lost", (0.0, 0.0, 0.0, 0.0, 0.0), unreadable="The file is empty.", seconds=99.0)
    bob = result("bob", seconds=4.0, timestamp="2026-10-01 12:01:00 UTC")
    keep(course, [result("ann", seconds=2.0), bob, lost])
    with Gradebook(course.gradebook) as book:  # set after the grading, as the feedback sees it too
        book.update_or_create_assignment(LESSON, duedate="2026-10-01 12:00:00 UTC")
    (found,) = report(course)
    assert (found.submissions, found.unreadable, found.late, found.seconds) == (3, ("lost",), 1, 3.0)
    assert of(course, "triangle_area").passed == 1.0


def test_a_stub_that_is_code_already_is_no_attempt(course):
    """What is said of a planted mistake is not said of what a student wrote."""
    stub = result("ann", (2.0, 0.0, 0.0, 0.0, None), "The planted mistake.", untouched=["triangle_area"])
    keep(course, [stub, result("bob", (0.0, 0.0, 0.0, 0.0, None), "A list came back.")])
    found = of(course, "triangle_area")
    assert (found.outcomes[UNTOUCHED], found.outcomes[WRONG], found.attempted) == (1, 1, 0.5)
    assert (found.said, found.message) == (1, "A list came back.")


def test_the_time_of_an_exercise_is_that_of_its_tests(course):
    taken = {"ann": (1.0, 2.0), "bob": (2.0, 3.0), "cat": (0.5, None), "dan": (None, None)}
    results = [result(student) for student in taken]
    for one in results:
        for found, seconds in zip(one.checks, taken[one.student], strict=False):
            found.seconds = seconds
    keep(course, results)
    assert of(course, "triangle_area").seconds == 3.0  # of 3, 5 and 0.5; the fourth says none
    assert of(course, "polygon_area").seconds is None
    (found,) = report(course)
    page = Page(html([found]))
    alt = [image["alt"] for image in page.attributes("img")]
    assert "Seconds that the tests of each exercise ran, medians: triangle_area 3." in alt
    assert "Time" in page.headings
    for one in results:
        one.checks[0].seconds = one.checks[1].seconds = None
    keep(course, results)
    assert "Time" not in Page(html(report(course))).headings


def test_nbgrader_notes_the_time_of_a_cell():
    begin, end = "2026-09-30T10:00:00Z", "2026-09-30T10:00:02.250000Z"
    ran = {"iopub.status.busy": begin, "shell.execute_reply": end}
    for times, seconds in ((ran, 2.25), ({"iopub.status.busy": begin}, None), ({}, None)):
        settings = {"grade_id": "area_test", "grade": True, "solution": False, "points": 1}
        metadata = {"nbgrader": settings, "execution": times}
        cell = {"cell_type": "code", "metadata": metadata, "source": "", "outputs": []}
        notebook = nbformat.from_dict({"cells": [cell]})
        assert checks_of(notebook, {"area_test": 1.0})[0].seconds == seconds


def test_results_of_an_older_release_do_not_stop_it(course):
    keep(course, [result("ann")])
    old = Result("bob", LESSON, "old key", [check("triangle_area_test", 2.0)])
    keep(course, [old])
    assert of(course, "polygon_area").outcomes[RIGHT] == 1
    assert of(course, "triangle_area").outcomes[RIGHT] == 2  # each by what it was worth then
    assert of(course, "triangle_area").points == 5.0


def test_only_unreadable_files(course):
    keep(course, [result("lost", (0.0,) * 5, unreadable="The file is empty.")])
    reports = report(course)
    assert reports[0].exercises == ()
    assert "1 unreadable" in html(reports)


def test_nothing_is_graded_yet(course):
    with pytest.raises(CourseError, match="autograder grade"):
        report(course)


def class_of(course):
    says = "✗ Not right yet\nWhat is <b>2</b> & [bold]3[/bold]?"
    low = [result(f"low{i}", (2.0, 0.0, 0.0, 0.0, None), says) for i in range(8)]
    keep(course, [*low, *(result(f"s{i}") for i in range(8))])


def test_the_page_reads_without_eyes_or_colours_or_network(course):
    class_of(course)
    (found,) = report(course)
    page = Page(html([found, found]))  # as of two lessons
    assert page.barriers() == []
    assert page.needs() == []
    assert page.headings[:4] == ["The course: report", "The course", "03 Triangles", "Exercises"]
    alt = [image["alt"] for image in page.attributes("img")]
    assert any("triangle_area 8 right, 8 partly right" in words for words in alt)
    assert len(alt) == 5
    assert {cell["scope"] for cell in page.attributes("th")} == {"col", "row"}


def test_messages_are_no_markup(course):
    class_of(course)
    (found,) = report(course)
    assert "<b>" not in html([found])
    assert "&lt;b&gt;2&lt;/b&gt; &amp; [bold]3[/bold]" in html([found])
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal(found))
    assert "What is <b>2</b> & [bold]3[/bold]?" in stream.getvalue()


def test_where_the_page_goes(course, tmp_path):
    class_of(course)
    reports = report(course)
    assert write(course, reports) == course.folder / "reports" / f"{LESSON}.html"
    elsewhere = write(course, reports, tmp_path / "new" / "page.html")
    assert elsewhere.read_text().startswith("<!DOCTYPE html>")


def test_the_command(course):
    assert CliRunner().invoke(app, ["report", "--course", str(course.folder)]).exit_code == 2
    class_of(course)
    run = CliRunner().invoke(app, ["report", "triangles", "--course", str(course.folder)])
    assert run.exit_code == 0
    assert "50 %" in run.output
    assert (course.folder / "reports" / f"{LESSON}.html").is_file()
