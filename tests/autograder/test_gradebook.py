"""The writer of the gradebook: nbgrader's own rules, in batches, applied once or ten times alike."""

import shutil
import time

import pytest
from classes import LESSON, built_course, contents
from nbgrader.api import Gradebook
from nbgrader.preprocessors import SaveAutoGrades
from sqlalchemy import text

from autograder import gradebook
from autograder.course import Course, CourseError
from autograder.engine import BY_HAND, RIGHT, WRONG, Check, Result
from autograder.gradebook import Writer

DUE = "2026-10-01 12:00:00 UTC"
FULL = 8.0  # points of all code cells


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path):
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


def lesson(course):
    return course.lesson("triangles")


def result(course, student, share=1.0, key="key", time="2026-09-30 10:00:00 UTC", untouched=()):
    """A result that gives this share of every cell's points; what is written waits for a person."""
    with Gradebook(course.gradebook) as book:
        cells = [
            (c.name, c.max_score, c.cell_type) for c in book.find_notebook("triangles", LESSON).grade_cells
        ]
    checks = [
        Check(name, "x", points, None, BY_HAND)
        if kind == "markdown"
        else Check(name, "x", points, share * points, RIGHT if share else WRONG)
        for name, points, kind in cells
    ]
    return Result(student, LESSON, key, checks, untouched=list(untouched), timestamp=time)


def apply(course, *results):
    with Writer(course) as writer:
        writer.register(lesson(course))
        writer.note_lateness(results)
        writer.apply(results)


def grade_of(course, student, name="triangle_area_hidden"):
    with Gradebook(course.gradebook) as book:
        grade = book.find_grade(name, "triangles", LESSON, student)
        return grade.auto_score, grade.manual_score, grade.needs_manual_grade


def test_a_batch_applied_twice_is_applied_once(course):
    batch = [result(course, "ann"), result(course, "bob", 0.0, untouched=["triangle_area"])]
    apply(course, *batch)
    once = contents(course)
    apply(course, *batch)
    assert contents(course) == once
    assert once["ann"]["grades"] != once["bob"]["grades"]
    assert ("triangle_area", "No response.", None) in once["bob"]["comments"]
    with Writer(course) as writer:
        assert writer.applied() == {("ann", LESSON): "key", ("bob", LESSON): "key"}


def test_of_two_results_in_a_batch_the_later_counts(course):
    apply(course, result(course, "ann", 0.0, "old"), result(course, "ann", 1.0, "new"))
    assert grade_of(course, "ann")[0] == 3.0
    with Writer(course) as writer:
        assert writer.applied() == {("ann", LESSON): "new"}


def test_what_a_person_gave_stays_and_is_to_be_looked_at_again(course):
    apply(course, result(course, "ann", 0.0))
    with Gradebook(course.gradebook) as book:
        grade = book.find_grade("triangle_area_hidden", "triangles", LESSON, "ann")
        grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 2.5, 0.5, False
        book.find_comment("triangle_area", "triangles", LESSON, "ann").manual_comment = "Nearly."
        book.db.commit()
    apply(course, result(course, "ann", 1.0, "new"))
    assert grade_of(course, "ann") == (3.0, 2.5, True)
    assert gradebook.totals(course.gradebook, LESSON)["ann"] == FULL - 3.0 + 2.5 + 0.5
    with Gradebook(course.gradebook) as book:
        assert book.find_comment("triangle_area", "triangles", LESSON, "ann").comment == "Nearly."


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_the_writer_leaves_what_nbgrader_leaves(course):
    """The same submission, saved by nbgrader's own preprocessor and by the writer."""
    import nbformat

    released = nbformat.read(course.release / LESSON / "triangles.ipynb", as_version=4)
    resources = {
        "nbgrader": {
            "notebook": "triangles",
            "assignment": LESSON,
            "student": "ann",
            "db_url": course.gradebook,
        }
    }
    with Gradebook(course.gradebook) as book:
        book.add_student("ann")
        book.add_submission(LESSON, "ann", timestamp="2026-09-30 10:00:00 UTC")
    SaveAutoGrades().preprocess(released, resources)
    theirs = contents(course)["ann"]
    untouched = [name for name, comment, _ in theirs["comments"] if comment]
    by_hand = result(course, "bob", 1.0, untouched=untouched)
    scores = {name: score for name, score, *_ in theirs["grades"]}
    for check in by_hand.checks:
        check.score = scores[check.grade_id]
    apply(course, by_hand)
    assert contents(course)["bob"] == theirs


def test_lateness_follows_due_dates_and_extensions(course):
    with Gradebook(course.gradebook) as book:
        book.update_or_create_assignment(LESSON, duedate=DUE)
    late = [result(course, student, time="2026-10-01 13:00:00 UTC") for student in ("ann", "bob")]
    apply(course, *late)
    assert [r.seconds_late for r in late] == [3600.0, 3600.0]
    with Gradebook(course.gradebook) as book:
        book.grant_extension(LESSON, "bob", hours=2)
    apply(course, *late)
    assert [r.seconds_late for r in late] == [3600.0, 0.0]


def test_the_late_policy_of_the_course_takes_its_points(course):
    config = course.folder / "nbgrader_config.py"
    old = config.read_text() if config.is_file() else "c = get_config()\n"
    config.write_text(f"{old}\nc.LateSubmissionPlugin.penalty_method = 'zero'\n")
    with Gradebook(course.gradebook) as book:
        book.update_or_create_assignment(LESSON, duedate=DUE)
    apply(course, result(course, "ann"), result(course, "bob", time="2026-10-01 13:00:00 UTC"))
    penalties = {student: found["penalty"] for student, found in contents(course).items()}
    assert penalties == {"ann": None, "bob": FULL}
    apply(course, result(course, "bob"))
    assert contents(course)["bob"]["penalty"] is None


def test_a_lesson_is_registered_again_when_it_changed_and_only_then(course, monkeypatch):
    calls = []
    real = gradebook.register
    monkeypatch.setattr(gradebook, "register", lambda *args: (calls.append(args), real(*args)))
    for _ in range(2):
        apply(course, result(course, "ann"))
    assert len(calls) == 1
    source = course.source / LESSON / "triangles.ipynb"
    source.write_text(
        source.read_text().replace('"points": 3.0', '"points": 4.0').replace('"points": 3', '"points": 4')
    )
    apply(course, result(course, "ann"))
    assert len(calls) == 2


def test_the_gradebook_is_indexed_and_lets_others_read_while_it_is_written(course):
    with Writer(course) as writer, writer.book.engine.connect() as connection:
        plan = connection.execute(
            text("EXPLAIN QUERY PLAN SELECT * FROM grade WHERE notebook_id = 'x'")
        ).all()
        assert "autograder_grade" in str(plan)
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert not list(course.folder.glob("gradebook.db-*"))


@pytest.mark.slow
def test_a_gradebook_that_was_half_made_is_completed(course):
    with Gradebook(course.gradebook) as book:
        version = book.db.execute(text("SELECT version_num FROM alembic_version")).scalar()
        book.db.execute(text("DROP TABLE alembic_version"))
        book.db.commit()
    with Writer(course) as writer, writer.book.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [
            version
        ]


def test_a_read_only_gradebook_is_said(course):
    apply(course, result(course, "ann"))
    path = course.gradebook.removeprefix("sqlite:///")
    course.gradebook = f"sqlite:///file:{path}?mode=ro&uri=true"
    with pytest.raises(CourseError, match=r"readonly database.* No result is lost"):
        apply(course, result(course, "bob"))


@pytest.mark.parametrize(
    ("db", "match"),
    [
        ("sqlite:////nowhere/at/all/gradebook.db", "unable to open database file"),
        ("gradebook.db", "cannot be opened"),
        ("oracle://ann:secret@db/grades", "cannot be opened|needs the package"),
        ("postgresql://ann:secret@127.0.0.1:1/grades", r"ann:\*\*\*@127.0.0.1:1/grades cannot be opened"),
    ],
)
def test_a_gradebook_that_cannot_be_opened_is_said_without_its_password(course, db, match):
    with pytest.raises(CourseError, match=match) as error:
        gradebook.open_gradebook(Course(course.folder, db).gradebook)
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_a_submission_costs_the_same_among_two_thousand_as_among_twenty(course):
    """Flat, and well below what the lesson's cells take. benchmarks/gradebook.py goes to ten thousand."""
    template = result(course, "nobody")

    def batch(start, count):
        return [
            Result(f"student{i}", LESSON, "key", template.checks, timestamp=template.timestamp)
            for i in range(start, start + count)
        ]

    def seconds(writer, start):
        took = []
        for place in range(start, start + 5 * 32, 32):
            began = time.thread_time()
            writer.apply(batch(place, 32))
            took.append((time.thread_time() - began) / 32)
        return min(took)

    with Writer(course) as writer:
        writer.register(lesson(course))
        seconds(writer, 0)
        few = seconds(writer, 200)
        for place in range(400, 2400, 100):
            writer.apply(batch(place, 100))
        many = seconds(writer, 3000)
    assert many < 0.001
    assert many < 1.5 * few + 0.0001
