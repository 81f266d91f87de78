"""The grading run: what is new is graded once, whatever happens in between, and the gradebook agrees."""

import os
import shutil
from pathlib import Path

import pytest
from classes import LESSON, built_course, hand_in, without_slow_imports
from engines import JOURNAL, OpenEngine, QuickEngine, graded_so_far
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from autograder import doctor, gradebook, workers
from autograder.cli import app
from autograder.course import Course, CourseError
from autograder.engine import seed_of
from autograder.grade import grade, read_result


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path, monkeypatch):
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    monkeypatch.syspath_prepend(without_slow_imports(tmp_path))
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal"


def run(course, **options):
    return grade(course, count=1, engine=QuickEngine, **options)


def test_grades_land_in_the_gradebook(course):
    hand_in(course, "ann")
    hand_in(course, "bob", "pass")
    graded = run(course)
    assert {r.student: r.score for r in graded.results} == {"ann": 5.0, "bob": 0.0}
    assert gradebook.totals(course.gradebook, LESSON) == {"ann": 5.0, "bob": 0.0}
    with Gradebook(course.gradebook) as book:
        notebook = book.find_submission_notebook("triangles", LESSON, "ann")
        waiting = {grade.name: (grade.auto_score, grade.needs_manual_grade) for grade in notebook.grades}
    assert waiting["triangle_area_hidden"] == (3.0, False)
    assert waiting["why_signed"] == (None, True)
    assert (course.autograded / "ann" / LESSON / "triangles.ipynb").is_file()


def test_a_second_run_grades_nothing(course, journal):
    hand_in(course, "ann")
    run(course)
    again = run(course)
    assert (again.results, again.unchanged, again.failed) == ([], 1, [])
    assert graded_so_far(journal) == ["ann"]


@pytest.mark.slow
def test_what_changed_is_graded_again(course, journal):
    hand_in(course, "ann", "pass")
    hand_in(course, "bob")
    run(course)
    hand_in(course, "ann", "return 2")
    assert [r.student for r in run(course).results] == ["ann"]
    assert gradebook.totals(course.gradebook, LESSON)["ann"] == 5.0
    release_file = course.release / LESSON / "triangles.ipynb"
    release_file.write_text(release_file.read_text() + "\n")
    assert len(run(course).results) == 2


def test_what_cannot_be_read_has_a_result_and_stops_nobody(course):
    hand_in(course, "ann", data=b"<html>")
    hand_in(course, "bob", data=b"")
    hand_in(course, "cat")
    (course.submitted / "bob" / LESSON / "triangles.ipynb").unlink()
    graded = run(course)
    assert graded.failed == []
    assert {r.student: bool(r.unreadable) for r in graded.results} == {"ann": True, "bob": True, "cat": False}
    assert gradebook.totals(course.gradebook, LESSON) == {"ann": 0.0, "bob": 0.0, "cat": 5.0}
    with Gradebook(course.gradebook) as book:
        grades = book.find_submission_notebook("triangles", LESSON, "ann").grades
        assert [grade.auto_score for grade in grades] == [0.0] * 5


@pytest.mark.slow
def test_a_failing_engine_leaves_no_result_and_the_next_run_tries_again(course, monkeypatch):
    hand_in(course, "ann", "the engine fails")
    hand_in(course, "bob")
    graded = run(course)
    assert graded.failed == [("ann", LESSON, "the engine failed")]
    assert [r.student for r in graded.results] == ["bob"]
    assert read_result(course, "ann", LESSON) is None
    assert run(course).failed == graded.failed


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(course, journal):
    for student, answer in (("ann", "return 1"), ("bob", "the worker dies"), ("cat", "return 1")):
        hand_in(course, student, answer)
    graded = run(course)
    assert [student for student, _, _ in graded.failed] == ["bob"]
    assert sorted(r.student for r in graded.results) == ["ann", "cat"]
    assert graded_so_far(journal).count("bob") == 2


def test_a_result_that_did_not_reach_the_gradebook_is_applied_and_not_graded_again(course, journal):
    hand_in(course, "ann")
    fresh = Path(course.gradebook.removeprefix("sqlite:///")).read_bytes()
    run(course)
    Path(course.gradebook.removeprefix("sqlite:///")).write_bytes(fresh)
    graded = run(course)
    assert graded.resumed == 1
    assert graded_so_far(journal) == ["ann"]
    assert gradebook.totals(course.gradebook, LESSON) == {"ann": 5.0}


@pytest.mark.slow
def test_manual_grades_stay_and_ask_for_another_look(course):
    hand_in(course, "ann", "pass")
    run(course)
    with Gradebook(course.gradebook) as book:
        by_hand = book.find_grade("triangle_area_hidden", "triangles", LESSON, "ann")
        by_hand.manual_score, by_hand.needs_manual_grade = 2.5, False
        book.find_comment("triangle_area", "triangles", LESSON, "ann").manual_comment = "Nearly."
        book.db.commit()
    hand_in(course, "ann", "return 1")
    run(course)
    with Gradebook(course.gradebook) as book:
        found = book.find_grade("triangle_area_hidden", "triangles", LESSON, "ann")
        assert (found.auto_score, found.manual_score, found.needs_manual_grade) == (3.0, 2.5, True)
        assert book.find_comment("triangle_area", "triangles", LESSON, "ann").comment == "Nearly."


def test_what_lies_beside_the_submissions_is_said(course):
    hand_in(course, "ann", "return 1")
    for place in ("zoe/triangles.ipynb", "xia/triangles/triangles.ipynb", "stray.ipynb"):
        path = course.submitted / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert run(course).ignored == ["stray.ipynb", "xia/triangles", "zoe/triangles.ipynb"]


def test_an_interrupted_run_says_what_is_kept(course, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("autograder.grade.grade", interrupted)
    stopped = CliRunner().invoke(app, ["grade", "--course", str(course.folder)])
    assert stopped.exit_code == 130
    assert "What is graded is kept" in stopped.output
    monkeypatch.setattr("autograder.report.report", interrupted)
    assert CliRunner().invoke(app, ["report", "--course", str(course.folder)]).output.strip() == "Stopped."


def test_lateness_is_known(course):
    with Gradebook(course.gradebook) as book:
        book.update_or_create_assignment(LESSON, duedate="2026-10-01 12:00:00 UTC")
    hand_in(course, "ann")
    hand_in(course, "bob", time="2026-10-01 13:00:00 UTC")
    late = {r.student: r.seconds_late for r in run(course).results}
    assert late == {"ann": 0.0, "bob": 3600.0}


def test_without_a_sandbox_trust_must_be_said(course, journal):
    hand_in(course, "ann")
    with pytest.raises(CourseError, match="--trust-submissions"):
        grade(course, count=1, engine=OpenEngine)
    assert graded_so_far(journal) == []
    assert len(grade(course, count=1, engine=OpenEngine, trust=True).results) == 1


def test_a_machine_without_a_sandbox_is_refused_without_trust(course, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: doctor.Report(0, [], []))
    with pytest.raises(CourseError, match="no sandbox"):
        grade(course)


def test_a_lesson_that_is_not_built_is_said(course):
    hand_in(course, "ann")
    (course.source / LESSON / "triangles.ipynb").unlink()
    with pytest.raises(CourseError, match="autograder build triangles"):
        run(course)


def test_only_one_run_at_a_time(course):
    import fcntl

    (course.folder / "grading").mkdir()
    with open(course.folder / "grading" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CourseError, match="Another"):
            run(course)


def test_seeds_belong_to_students_and_salts():
    assert seed_of("salt", "ann") == seed_of("salt", "ann")
    assert len({seed_of("salt", "ann"), seed_of("salt", "bob"), seed_of("pepper", "ann")}) == 3


def test_half_a_character_stops_nobody(course):
    hand_in(course, "ann", "return '\ud800'")
    hand_in(course, "bob")
    assert sorted(line.student for line in run(course).results) == ["ann", "bob"]
    text = (course.autograded / "ann" / LESSON / "triangles.ipynb").read_text(encoding="utf-8")
    assert "return '?'" in text


def test_what_names_and_time_stamps_may_be(course):
    """A name that databases refuse has no result and stops nobody; a time that means nothing is none."""
    hand_in(course, "ann", time="yesterday or so")
    hand_in(course, "x" * 129)
    os.makedirs(os.fsencode(course.submitted) + b"/b\xffb/" + LESSON.encode())
    graded = run(course)
    assert [line.student for line in graded.results] == ["ann"]
    assert sorted(student[:3] for student, _, _ in graded.failed) == ["'b\\", "'xx"]
    result = read_result(course, "ann", LESSON)
    assert result.timestamp == ""
    assert any("'yesterday or so' means nothing" in note for note in result.notes)


class ForgetfulEngine(QuickEngine):
    def grade(self, submission):
        checks, notebook = super().grade(submission)
        return checks[1:], notebook


def test_a_result_that_lacks_a_cell_is_no_result(course, monkeypatch):
    hand_in(course, "ann")
    monkeypatch.setattr(workers, "run", in_this_process)
    graded = grade(course, count=1, engine=ForgetfulEngine)
    assert [(student, "does not fit" in reason) for student, _, reason in graded.failed] == [("ann", True)]
    assert read_result(course, "ann", LESSON) is None
    assert gradebook.totals(course.gradebook, LESSON) == {}


def in_this_process(jobs, engine, arguments, count):
    for job in jobs:
        yield job, *workers.examine(engine(*arguments), job), ""


def test_as_many_workers_as_a_container_may_use_cores(course, monkeypatch):
    for number in range(5):
        hand_in(course, f"student{number}")
    counts = []
    monkeypatch.setattr(workers, "run", lambda *words: counts.append(words[-1]) or in_this_process(*words))
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    assert len(grade(course, engine=QuickEngine).results) == 5
    assert counts == [3]


def test_progress_says_what_is_done_of_how_many(course):
    for student in ("ann", "bob", "cat"):
        hand_in(course, student)
    said = []
    run(course, say=lambda *words: said.append(words))
    assert [words[:2] for words in said] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert sorted(what for _, _, what in said[1:]) == [f"{s} {LESSON}" for s in ("ann", "bob", "cat")]


def test_another_version_of_what_grades_grades_again(course, monkeypatch):
    hand_in(course, "ann")
    run(course)
    monkeypatch.setattr(workers, "environment", lambda: "numpy 99")
    assert len(run(course).results) == 1
