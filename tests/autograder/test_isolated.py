"""The isolated engine on whole lessons: what nbgrader's own engine gives, it gives too, and faster."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from courses import copy_of_fixture
from nbgrader.utils import determine_grade
from rooms import require

from autograder import submission
from autograder.answers import bank
from autograder.build import build
from autograder.course import Course
from autograder.engine import BY_HAND, RIGHT, UNTOUCHED, Mended
from autograder.isolated import InProcess, InProcessOpen, IsolatedEngine, OpenEngine, withheld_by
from autograder.master import read_master
from autograder.selfcheck import _variants
from autograder.stock import NbgraderEngine

COURSE = Path(__file__).parents[2] / "course"
LESSONS = [lesson.topic for lesson in Course(COURSE).lessons]
SEED = "5eed"


@pytest.fixture(scope="module")
def fixture_course(tmp_path_factory):
    course = copy_of_fixture(tmp_path_factory.mktemp("isolated"))
    build(course)
    return course


@pytest.fixture(scope="module")
def real_course(tmp_path_factory):
    """The real course, built anew where nobody else builds."""
    import shutil

    folder = tmp_path_factory.mktemp("real")
    shutil.copytree(COURSE / "masters", folder / "course" / "masters")
    for name in ("syllabus.toml", "glossary.toml", "nbgrader_config.py"):
        shutil.copy(COURSE / name, folder / "course" / name)
    made = Course(folder / "course")
    build(made, LESSONS)
    return made


def mended(course, lesson, source_of=lambda name, cell: cell["source"], seed=SEED):
    """The lesson with something typed into its solution cells."""
    release = json.loads((course.release / lesson.name / f"{lesson.topic}.ipynb").read_text())
    for cell in release["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code" and submission.is_answer(cell):
            cell["source"] = source_of(submission.grade_id(cell), cell)
    return Mended("ann", lesson.name, lesson.topic, release, seed)


def variants(course, lesson):
    """For each exercise all that can be typed into it, the reference first, as the self-check has it."""
    exercises = [e for e in read_master(course, lesson).exercises if e.solution and (e.tests or e.hidden)]
    return {e.name: list(_variants(e, bank(lesson.topic))) for e in exercises}


def reference(course, lesson):
    typed = variants(course, lesson)
    return mended(course, lesson, lambda name, cell: typed[name][0].source)


@pytest.mark.parametrize("engine", [OpenEngine, InProcessOpen])
def test_the_reference_gets_full_marks_and_the_release_none(fixture_course, engine):
    lesson = fixture_course.lessons[0]
    grader = engine(fixture_course.source)
    checks, notebook = grader.grade(reference(fixture_course, lesson))
    empty, _ = grader.grade(mended(fixture_course, lesson))
    grader.close()
    assert {c.outcome for c in checks} <= {RIGHT, BY_HAND, UNTOUCHED}
    assert sum(c.score or 0 for c in checks) == sum(c.points for c in checks if c.outcome == RIGHT) > 0
    assert sum(c.score or 0 for c in empty) < sum(c.score or 0 for c in checks)
    nbformat.validate(nbformat.from_dict(notebook))
    hidden = [cell for cell in notebook["cells"] if "BEGIN HIDDEN TESTS" in cell["source"]]
    assert hidden  # the graded notebook shows the instructor what ran


def test_nbgrader_reads_the_same_scores_from_the_outputs(fixture_course):
    lesson = fixture_course.lessons[0]
    grader = OpenEngine(fixture_course.source)
    for work in (reference(fixture_course, lesson), mended(fixture_course, lesson)):
        checks, notebook = grader.grade(work)
        cells = {
            cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata
        }
        assert [determine_grade(cells[c.grade_id])[0] for c in checks] == [c.score for c in checks]
        as_json = nbformat.reads(nbformat.writes(notebook), as_version=4)
        assert as_json == notebook
    grader.close()


def test_grading_leaves_the_submission_as_it_was(fixture_course):
    work = reference(fixture_course, fixture_course.lessons[0])
    before = copy.deepcopy(work.notebook)
    grader = OpenEngine(fixture_course.source)
    first = grader.grade(work)
    assert work.notebook == before
    assert grader.grade(work) == first
    grader.close()


def test_what_is_withheld_is_read_from_the_syllabus(fixture_course, tmp_path):
    assert "coupling" in withheld_by(COURSE, "coupling")
    assert withheld_by(tmp_path, "coupling") == ()


# Against nbgrader's own engine.


@pytest.mark.heavy
@pytest.mark.parametrize("topic", LESSONS)
def test_the_same_scores_and_messages_as_nbgrader_on_the_whole_bank(real_course, topic):
    """Notebook k has in every exercise the k-th thing that can be typed into it."""
    require(3)
    lesson = real_course.lesson(topic)
    typed = variants(real_course, lesson)
    isolated, stock = IsolatedEngine(real_course.source), NbgraderEngine(real_course.source)
    for k in range(max(map(len, typed.values()))):
        work = mended(real_course, lesson, lambda name, _, k=k: typed[name][k % len(typed[name])].source)
        ours, _ = isolated.grade(work)
        theirs, _ = stock.grade(work)
        assert ours == theirs
    isolated.close()


@pytest.mark.heavy
def test_the_course_of_nbgrader_s_quickstart_is_graded_as_nbgrader_does(tmp_path):
    require(3)
    command = [sys.executable, "-m", "nbgrader", "quickstart", "course"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    source = tmp_path / "course" / "source"
    isolated = InProcess(source)
    graded = 0
    for path in sorted(source.glob("ps1/*.ipynb")):
        stock = NbgraderEngine(source)  # one for each: it knows one notebook of an assignment
        for solved in (True, False):
            ours, theirs = (grader.grade(handed_in(path, solved))[0] for grader in (isolated, stock))
            assert [(c.grade_id, c.score) for c in ours] == [(c.grade_id, c.score) for c in theirs]
            graded += len(ours)
    isolated.close()
    assert graded > 8


def handed_in(path, solved):
    """An assignment with its own solutions, or with nothing in the place of them."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        settings = cell.metadata.get("nbgrader", {})
        if settings.get("solution") and cell.cell_type == "code" and not solved:
            cell.source = "raise NotImplementedError()"
    return Mended("ann", path.parent.name, path.stem, notebook, SEED)
