"""The simulated class: every kind of student gets what they must, and mangled files lose no answer."""

import pytest
from courses import FIXTURE, copy_of_fixture
from nbgrader.api import Gradebook

from autograder import classroom as simulated
from autograder import gradebook
from autograder.build import build
from autograder.classroom import MANGLES, SPOILS, classroom
from autograder.course import Course, CourseError
from autograder.grade import grade
from autograder.submission import UnreadableSubmission, grade_id, is_answer, mend, read

LESSON = "03_triangles"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    course = copy_of_fixture(tmp_path_factory.mktemp("desk"))
    build(course)
    return simulated._desk(course, course.lessons[0])


@pytest.mark.parametrize("kind", MANGLES)
def test_mangled_files_lose_no_answer(desk, kind):
    taken = read(MANGLES[kind](desk.notebook(desk.solutions())))
    result, notes = mend(taken.notebook, desk.release)
    answers = {grade_id(c): c["source"] for c in result["cells"] if is_answer(c) and c["cell_type"] == "code"}
    assert {name: text.split() for name, text in answers.items()} == {
        name: text.split() for name, text in desk.solutions().items()
    }
    silent = ("byte order mark", "UTF-16", "CRLF", "no ids", "lists", "copied cell, empty")
    assert bool(taken.notes + notes) != any(word in kind for word in silent)


@pytest.mark.parametrize("kind", SPOILS)
def test_spoilt_files_are_refused_with_a_reason(desk, kind):
    with pytest.raises(UnreadableSubmission):
        read(SPOILS[kind](desk.notebook(desk.solutions())))


def test_the_same_seed_gives_the_same_class(desk, tmp_path):
    course = copy_of_fixture(tmp_path)
    build(course)
    lesson = course.lessons[0]
    one, same, other = (simulated._class(course, lesson, 12, seed) for seed in (0, 0, 1))
    assert one == same
    assert [s.kind for s in one] != [s.kind for s in other]
    assert {s.expected for s in one} <= {0.0, 5.0, 8.0}


def test_a_folder_with_other_things_in_it_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(CourseError, match="no class made"):
        classroom(Course(FIXTURE), None, 1, 0, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "all my work"


@pytest.mark.slow
def test_a_class_is_graded_as_expected(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "TIMEOUT", 8)
    rows = classroom(Course(FIXTURE), None, 12, 3, tmp_path / "class")
    assert [row for row in rows if not row.ok] == []
    assert len({row.kind for row in rows}) == 12
    folder = tmp_path / "class" / "course" / "feedback"
    assert len(list(folder.glob(f"*/{LESSON}/triangles.html"))) == 12


@pytest.mark.slow
def test_honest_work_gets_what_stock_nbgrader_gives(desk, tmp_path):
    """The same notebooks through nbgrader as it comes, and through autograder grade."""
    course = copy_of_fixture(tmp_path)
    build(course)
    handed_in = {
        "right": desk.notebook(desk.solutions()),
        "half": desk.notebook(desk.solutions(polygon_area="def polygon_area(corners):\n    return 0.0")),
        "untouched": desk.release,
    }
    for student, notebook in handed_in.items():
        folder = course.submitted / student / LESSON
        folder.mkdir(parents=True)
        (folder / "triangles.ipynb").write_bytes(simulated._bytes(notebook))
    grade(course, trust=True, count=2, timeout=60)
    assert _by_stock_nbgrader(course, tmp_path) == _scores(course.gradebook, handed_in)


def _by_stock_nbgrader(course, folder):
    from nbgrader.converters import Autograde
    from nbgrader.coursedir import CourseDirectory

    database = f"sqlite:///{folder / 'stock.db'}"
    gradebook.register(database, LESSON, "triangles", course.source / LESSON / "triangles.ipynb")
    place = CourseDirectory(
        root=str(course.folder), db_url=database, assignment_id=LESSON, autograded_directory="stock"
    )
    Autograde(coursedir=place).start()
    return _scores(database, ("right", "half", "untouched"))


def _scores(database, students):
    with Gradebook(database) as book:
        return {
            (student, grade.name): (grade.auto_score, grade.needs_manual_grade)
            for student in students
            for grade in book.find_submission_notebook("triangles", LESSON, student).grades
        }
