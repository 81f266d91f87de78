"""A master is read into cells and exercises, or its author is told the cell and what to change."""

import jupytext
import pytest
from courses import FIXTURE, copy_of_fixture, edit_master
from jupytext.config import load_jupytext_configuration_file
from jupytext.paired_paths import paired_paths
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.preprocessors import ClearSolutions

from autograder.course import Course, CourseError
from autograder.master import read_master, solved, stub, stub_is


def read(course):
    return read_master(course, course.lessons[0])


@pytest.fixture(scope="module")
def master():
    return read(Course(FIXTURE))


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


def test_exercises_are_numbered_and_know_their_cells(master):
    assert [exercise.name for exercise in master.exercises] == ["triangle_area", "polygon_area", "why_signed"]
    area, polygon, why = master.exercises
    assert (area.number, area.title, area.difficulty, area.importance) == (1, "Half a parallelogram", 2, 5)
    assert (area.points, polygon.points, why.points) == (5, 3, 2)
    assert [cell.points for cell in (*area.tests, *area.hidden)] == [2, 3]
    assert area.written is None
    assert why.solution is None
    assert "MARK SCHEME" in why.written.source
    assert master.exercise("triangles.polygon_area") is polygon


def test_grade_ids_say_what_a_cell_is(master):
    ids = [cell.grade_id for cell in master.cells if cell.name == "triangle_area"]
    assert ids == ["triangle_area_statement", "triangle_area", "triangle_area_test", "triangle_area_hidden"]
    assert [cell.grade_id for cell in master.cells if cell.kind == "code"] == ["code_1"]
    assert {cell.grade_id for cell in master.cells if cell.kind in ("prose", "show")} == {""}


def test_cells_know_the_line_of_their_header(master):
    lines = master.path.read_text(encoding="utf-8").split("\n")
    for cell in master.cells:
        assert lines[cell.line - 1].startswith("# %%")
        assert not cell.name or f'"{cell.name}"' in lines[cell.line - 1]


def test_the_heading_is_made_from_the_header(master):
    assert master.exercises[0].heading.split("\n")[::2] == [
        "### Exercise 1: Half a parallelogram",
        "difficulty 2 of 5 · importance 5 of 5 · 5 minutes · 5 points",
    ]


SOURCES = [
    "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION",
    "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        y = 1\n\n        return y\n"
    "        ### END SOLUTION\n\n    def g(self):\n        ### BEGIN SOLUTION\n        pass\n"
    "        ### END SOLUTION\n",
    "### BEGIN SOLUTION\nf = abs\n### END SOLUTION\ng = f",
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_stub_is_what_nbgrader_makes(source):
    cell = new_code_cell(source, metadata={"nbgrader": {"solution": True}})
    notebook, _ = ClearSolutions().preprocess(new_notebook(cells=[cell]), {})
    assert stub(source) == notebook.cells[0].source


def test_a_solved_cell_keeps_all_but_the_markers():
    assert solved(SOURCES[0]) == "def f(x):\n    return x"


def test_a_stub_may_be_whole_or_broken_code():
    whole = "def f(x):\n    return x\n    ### BEGIN SOLUTION\n    # All is there.\n    ### END SOLUTION"
    broken = SOURCES[0].replace(":\n", ":\n    return -x  # repair this line\n")
    assert [stub_is(source) for source in (SOURCES[0], whole, broken)] == ["empty", "whole", "broken"]
    assert stub(broken).split("\n")[1] == "    return -x  # repair this line"
    assert solved(broken) == "def f(x):\n    return x"


def test_a_master_that_was_edited_as_a_notebook_reads_the_same(course, master):
    path = course.master(course.lessons[0])
    filters = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "all"}
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata["jupytext"] = filters
    path.write_text(jupytext.writes(notebook, fmt="py:percent"), encoding="utf-8")
    assert "# %% Half a parallelogram [markdown]" in path.read_text(encoding="utf-8")
    assert [cell.source for cell in read(course).cells] == [cell.source for cell in master.cells]
    assert [x.heading for x in read(course).exercises] == [x.heading for x in master.exercises]


def test_masters_alone_are_paired_for_authors():
    config = load_jupytext_configuration_file("jupytext.toml")
    formats = config.default_formats("course/masters/08_coupling.py")
    paths = [path for path, _ in paired_paths("course/masters/08_coupling.py", {"extension": ".py"}, formats)]
    assert paths == ["course/masters/08_coupling.ipynb", "course/masters/08_coupling.py"]
    for built in (
        "lessons/08_coupling/coupling.ipynb",
        "solutions/08_coupling/coupling.py",
        "flowkit/maps.py",
    ):
        assert config.default_formats(built) is None


SOLUTION = '# %% solution="triangle_area"'
TEST = '# %% test="triangle_area" points=2'
STATEMENT = 'exercise="triangle_area" title="Half a parallelogram" difficulty=2 importance=5 minutes=5'
FAULTS = {
    "two kinds in a cell": (SOLUTION, f'{SOLUTION} test="triangle_area"', "a cell is one thing"),
    "unknown key": (TEST, f"{TEST} weight=2", "the header has 'weight', which"),
    "unknown key of prose": (
        "# %% [markdown]\n# ## What",
        "# %% [markdown] a=1\n# ## What",
        "has 'a', which",
    ),
    "no points": (TEST, '# %% test="triangle_area"', "has no points="),
    "points in words": (TEST, TEST.replace("2", '"two"'), "points='two' must be a number above 0"),
    "no points at all": (TEST, TEST.replace("2", "0"), "points=0 must be a number above 0"),
    "no title": (STATEMENT, STATEMENT.replace(' title="Half a parallelogram"', ""), "has no title="),
    "beyond the scale": (
        STATEMENT,
        STATEMENT.replace("=5 min", "=6 min"),
        "importance=6 must be from 1 to 5",
    ),
    "no name": (TEST, TEST.replace("triangle_area", "triangle area"), "must be a Python name in quotes"),
    "too long a name": (TEST, TEST.replace("triangle_area", 50 * "a"), "longer than 48 characters"),
    "code as markdown": (TEST, TEST.replace("%% ", "%% [markdown] "), "must not be a .markdown. cell"),
    "no end": (
        "    return parallelogram / 2\n    ### END SOLUTION",
        "    return 1",
        "no ### END SOLUTION after",
    ),
    "no begin": ("    ### BEGIN SOLUTION\n    u, v", "    u, v", "no ### BEGIN SOLUTION before"),
    "twice begun": ("    u, v = b", "    ### BEGIN SOLUTION\n    u, v = b", "stands twice without"),
    "no rubric": (
        "# One point for opposite orientations, one point for the cancellation.\n",
        "",
        "students must not",
    ),
    "another name": ("def triangle_area(", "def triangle(", "must define 'triangle_area'"),
    "broken code": ("    u, v = b - a, c - a", "    u, v = b -", "the solution is not valid Python"),
    "no statement": (STATEMENT, "", "write its statement first"),
    "named twice": ('exercise="polygon_area"', 'exercise="triangle_area"', "a second exercise is called"),
    "two solutions": ('# %% solution="polygon_area"', SOLUTION, "must define 'triangle_area'"),
    "no answer": (
        '# %% [markdown] written="why_signed" points=2',
        "# %% [markdown]",
        "nothing answers 'why_signed': add its solution=",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_broken_master_names_the_cell_and_the_change(course, kind):
    old, new, message = FAULTS[kind]
    edit_master(course, old, new)
    with pytest.raises(CourseError, match=r"^03_triangles.py, cell \d+ \(line \d+\): .*" + message):
        read(course)


def test_a_master_that_is_not_text_is_named(course):
    course.master(course.lessons[0]).write_bytes(b"# %%\n\xff\xfe")
    with pytest.raises(CourseError, match=r"03_triangles\.py is not UTF-8"):
        read(course)


def test_a_broken_first_block_is_named(course):
    path = course.master(course.lessons[0])
    path.write_text("# ---\n# jupyter:\n#   kernelspec:\n#     name: x\n# ---\n# %%\n1", encoding="utf-8")
    with pytest.raises(CourseError, match=r"03_triangles\.py cannot be read"):
        read(course)
