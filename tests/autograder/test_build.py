"""What is built is nbgrader's, free of answers, the same to the byte everywhere, and held to its masters."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import pytest
from courses import copy_of_fixture, edit_master
from nbgrader.nbgraderformat import read as read_for_nbgrader
from typer.testing import CliRunner

from autograder.build import build
from autograder.cli import app
from autograder.course import Course, CourseError


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


@pytest.fixture
def built(course):
    build(course)
    return course


def notebook(folder, name="03_triangles/triangles.ipynb"):
    return nbformat.read(folder / name, as_version=4)


def cell(nb, grade_id):
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_notebook_is_valid_for_jupyter_and_nbgrader(built):
    for path in [*built.published.rglob("*.ipynb"), *built.folder.rglob("r*/*/*.ipynb")]:
        nb = read_for_nbgrader(str(path), as_version=4)
        nbformat.validate(nb)
        assert nb.metadata.kernelspec.name == "python3"
        assert "jupytext" not in nb.metadata
        assert not any(c.get("outputs") or c.get("execution_count") for c in nb.cells)
        assert len({c.id for c in nb.cells}) == len(nb.cells)


def test_students_get_stubs_and_nbgraders_metadata_in_full(built):
    nb = notebook(built.published)
    area = cell(nb, "triangle_area")
    assert area.source.endswith('"""\n    # YOUR CODE HERE\n    raise NotImplementedError()')
    assert area.id == "triangle_area"
    test = cell(nb, "triangle_area_test").metadata
    assert (test.editable, test.deletable) == (False, False)
    assert {key: value for key, value in test.nbgrader.items() if key != "checksum"} == {
        "schema_version": 3,
        "cell_type": "code",
        "grade": True,
        "grade_id": "triangle_area_test",
        "locked": True,
        "points": 2,
        "solution": False,
        "task": False,
    }
    assert cell(nb, "why_signed").source == "YOUR ANSWER HERE"
    assert (
        cell(nb, "triangle_area_hidden").source
        == "# Hidden tests run here when your work is graded: 3 points."
    )
    assert [c.metadata.tags for c in nb.cells if "tags" in c.metadata] == [["show"]]


def test_a_check_says_what_it_is_and_a_long_one_is_folded_away(course):
    short = "square_corners = "
    edit_master(course, short, "# a case\n" * 12 + short)
    build(course)
    for folder in (course.published, course.solutions, course.source):
        nb = notebook(folder)
        folded = {c.metadata.nbgrader.grade_id for c in nb.cells if c.metadata.get("jupyter")}
        assert folded == {"polygon_area_test"}
        assert cell(nb, "polygon_area_test").metadata.jupyter == {"source_hidden": True}
        assert cell(nb, "triangle_area_test").source.startswith(
            "# Run this cell to check triangle_area: 2 points.\nimport numpy"
        )


def test_headings_are_generated(built):
    nb = notebook(built.published)
    assert nb.cells[0].source.split("\n")[:3] == ["# Triangles", "", "Lesson 03 · 15 minutes · 10 points"]
    assert cell(nb, "polygon_area_statement").source.startswith(
        "### Exercise 2: A fan of triangles\n\n"
        "difficulty 3 of 5 · importance 4 of 5 · 8 minutes · 3 points\n\nWrite"
    )


def test_prerequisites_are_linked(course):
    syllabus = course.syllabus.read_text(encoding="utf-8")
    second = syllabus[syllabus.index("[[lesson]]") :]
    first = (
        second.replace("order = 3", "order = 1").replace("triangles", "lines").replace("Triangles", "Lines")
    )
    second = second.replace("prerequisites = []", 'prerequisites = ["lines"]')
    course.syllabus.write_text(f"{first}\n{second}", encoding="utf-8")
    course = Course(course.folder)
    build(course, ["triangles"])
    assert " · first: [Lines](../01_lines/lines.ipynb)\n" in notebook(course.published).cells[0].source
    result = build(course)
    assert result.missing == ("01_lines stands in the syllabus, but has no master",)
    assert "| 15 | 10 | Lines |" in notebook(course.published, "index.ipynb").cells[0].source


def test_the_home_notebook_lists_the_lessons(built):
    text = notebook(built.published, "index.ipynb").cells[0].source
    question = "How large is a triangle whose corners you know?"
    assert f"| [03 Triangles](03_triangles/triangles.ipynb) | {question} | 15 | 10 | nothing |" in text
    assert (built.published / "03_triangles/triangles.ipynb").is_file()


def test_solutions_are_whole_and_without_hidden_tests(built):
    nb = notebook(built.solutions)
    assert "return parallelogram / 2" in cell(nb, "triangle_area").source
    assert "SOLUTION" not in cell(nb, "triangle_area").source
    assert "hidden_determinant" not in json.dumps(nb)
    assert "**How it is marked**" in cell(nb, "why_signed").source
    assert "opposite orientations" in cell(nb, "why_signed").source


def test_the_source_holds_the_hidden_tests_for_nbgrader(built):
    source = cell(notebook(built.source), "triangle_area_hidden").source.split("\n")
    assert source[1] == "### BEGIN HIDDEN TESTS"
    assert "check.values(" in source[-2]
    assert notebook(built.release) == notebook(built.published)


def test_a_twin_says_what_its_notebook_says(built):
    for folder in (built.published, built.solutions):
        text = (folder / "03_triangles/triangles.py").read_text(encoding="utf-8")
        assert "jupytext" not in text
        assert "lines_to_next_cell" not in text
        twin, original = jupytext.reads(text, fmt="py:percent"), notebook(folder)
        assert [c.source for c in twin.cells] == [c.source for c in original.cells]
        for copied, told in zip(twin.cells, original.cells, strict=True):
            assert copied.metadata.get("nbgrader") == told.metadata.get("nbgrader")


def test_the_build_is_the_same_to_the_byte_in_another_process_and_place(tmp_path_factory, built):
    other = copy_of_fixture(tmp_path_factory.mktemp("elsewhere"))
    run = [sys.executable, "-m", "autograder", "build", "--course", str(other.folder)]
    subprocess.run(run, check=True, env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Seoul"})
    assert contents(other.folder.parent) == contents(built.folder.parent)


def test_a_second_build_changes_nothing(built):
    assert build(built).changed == ()
    result = CliRunner().invoke(app, ["build", "--check", "--course", str(built.folder)])
    assert (result.exit_code, result.stdout) == (0, "Everything is as its master says.\n")


def spoil(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


SPOILT = {
    "lesson": ("lessons/03_triangles/triangles.ipynb", "Half a", "A half"),
    "twin": ("lessons/03_triangles/triangles.py", "Half a", "A half"),
    "solution": ("solutions/03_triangles/triangles.ipynb", "/ 2", "/ 3"),
    "home": ("lessons/index.ipynb", "Ready.", "Steady."),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_check_finds_a_hand_edit_and_writes_nothing(built, kind):
    name, old, new = SPOILT[kind]
    path = built.folder.parent / name
    spoil(path, old, new)
    before = contents(built.folder.parent)
    result = CliRunner().invoke(app, ["build", "--check", "--course", str(built.folder)])
    assert result.exit_code == 1
    assert f"differs from its master: {path}\n" in result.stdout
    assert contents(built.folder.parent) == before


def test_check_finds_a_changed_master_a_missing_file_and_a_stray_one(built):
    edit_master(built, "How large is a triangle whose", "What is the size of a triangle whose")
    gone = built.solutions / "03_triangles/triangles.py"
    gone.unlink()
    stray = built.published / "03_triangles/notes.txt"
    stray.write_text("mine", encoding="utf-8")
    result = build(built, check=True)
    assert {built.published / "03_triangles/triangles.ipynb", gone} <= set(result.changed)
    assert result.strays == (stray,)
    assert build(built).strays == (stray,)
    assert stray.read_text(encoding="utf-8") == "mine"


def test_a_lesson_can_be_built_alone(course):
    built = build(course, ["03"])
    assert not (course.published / "index.ipynb").exists()
    assert len(built.changed) == 6
    assert build(course, ["triangles"], check=True).changed == ()


def test_a_master_without_a_lesson_is_named(course):
    (course.masters / "04_circles.py").write_text("# %%\n", encoding="utf-8")
    assert build(course).missing == ("04_circles.py is a master, but the syllabus has no such lesson",)


@contextmanager
def read_only(folder):
    """The folder cannot be written, not even by root: root steps down for a while."""
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for path in folders:
        path.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in folders:
            path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are read-only by other means on Windows")
def test_a_read_only_course_is_said_and_loses_nothing(built):
    for parent in built.folder.parents:  # so that whoever root steps down to can read the files
        if "pytest-" in str(parent):
            parent.chmod(0o755)
    edit_master(built, "How large is a triangle whose", "What is the size of a triangle whose")
    before = contents(built.folder.parent)
    with (
        read_only(built.folder.parent),
        pytest.raises(CourseError, match=r"Cannot write .*: Permission denied"),
    ):
        build(built)
    assert contents(built.folder.parent) == before


def test_nothing_is_written_when_a_master_is_broken(course):
    edit_master(course, "    return parallelogram / 2\n    ### END SOLUTION", "    return parallelogram / 2")
    result = CliRunner().invoke(app, ["build", "--course", str(course.folder)])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "03_triangles.py, cell 6 (line 27): ### BEGIN SOLUTION has no ### END SOLUTION"
    )
    assert result.stderr.count("\n") == 1
    assert not course.published.exists()


def test_a_course_that_is_not_there_is_one_clear_line(tmp_path):
    result = CliRunner().invoke(app, ["build", "--course", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert result.stderr.startswith("No course at ")


def test_the_readme_lists_the_lessons(course):
    readme = course.published.parent / "README.md"
    readme.write_text("# Us\n\n<!-- lessons -->\n| old |\n<!-- end of lessons -->\nmore\n", encoding="utf-8")
    assert readme in build(course, check=True).changed
    build(course)
    text = readme.read_text(encoding="utf-8")
    assert "[03 Triangles](lessons/03_triangles/triangles.ipynb)" in text
    assert "old" not in text
    assert text.endswith("<!-- end of lessons -->\nmore\n")
    assert readme not in build(course, check=True).changed


@pytest.mark.slow
def test_nbgrader_itself_makes_the_same_release(built):
    released = contents(built.release)
    config = Path("course/nbgrader_config.py").read_text(encoding="utf-8")
    (built.folder / "nbgrader_config.py").write_text(config, encoding="utf-8")
    run = [sys.executable, "-m", "nbgrader", "generate_assignment", "03_triangles", "--force", "--create"]
    subprocess.run(run, check=True, cwd=built.folder, capture_output=True)
    assert contents(built.release) == released
    assert (built.folder / "gradebook.db").is_file()


def test_the_lessons_of_this_course_are_what_their_masters_say():
    built = build(Course("course"), check=True)
    assert (built.changed, built.strays, built.missing) == ((), (), ()), (
        "change masters only; autograder build"
    )
