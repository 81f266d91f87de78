"""Students get no solution, no hidden test and no mark scheme; the search finds every one that they would."""

import html
import json

import pytest
from courses import copy_of_fixture, edit_master

from autograder.build import build
from autograder.course import Course
from autograder.leaks import leaks

SOLUTION = """u, v = b - a, c - a
parallelogram = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
return parallelogram / 2"""
HIDDEN = """hidden_cases = [tuple(rng.normal(size=(3, *shape, 2))) for shape in [(), (5,), (2, 3)]]
check.values("triangles.triangle_area", hidden_cases, reference=hidden_determinant)"""
MODEL_ANSWER = (
    "Where the fan leaves the polygon, two of its triangles overlap "
    "with opposite signs, and the surplus cancels."
)
SCHEME = "One point for opposite orientations, one point for the cancellation."


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


def test_what_students_get_of_the_fixture_holds_no_secret(course):
    build(course)
    assert leaks(course, course.published, course.release) == []


def test_what_students_get_of_this_course_holds_no_secret():
    course = Course("course")
    assert list(course.published.rglob("*.ipynb"))
    assert leaks(course, course.published) == []


def test_the_search_finds_every_secret_where_it_may_stand(course):
    build(course)
    found = " ".join(leaks(course, course.source))
    for secret in (
        "the solution of triangles.triangle_area",
        "the solution of triangles.polygon_area",
        "a hidden test of triangles.triangle_area",
        "a hidden test of triangles.polygon_area",
        "the mark scheme of triangles.why_signed",
        "the model answer of triangles.why_signed",
    ):
        assert secret in found
    solutions = " ".join(leaks(course, course.solutions))
    assert "the solution of triangles.triangle_area" in solutions
    assert "hidden test" not in solutions


def as_metadata(secret):
    return json.dumps({"cells": [], "metadata": {"note": {"deep": [secret]}}})


def as_output(secret):
    lines = secret.splitlines(keepends=True)
    return json.dumps({"cells": [{"outputs": [{"text": lines, "output_type": "stream"}]}]})


def as_coloured_html(secret):
    lines = [f"<span class='x'>{html.escape(line)}</span>" for line in secret.split("\n")]
    return "<pre>" + "<br/>\n".join(lines) + "</pre>"


def as_comment(secret):
    return "# %% [markdown]\n" + "\n".join(f"# {line}" for line in secret.split("\n"))


def indented(secret):
    return "\n".join(f"      {line.replace(' - ', '  -  ')}  " for line in secret.split("\n"))


DISGUISES = {
    "metadata.ipynb": as_metadata,
    "output.ipynb": as_output,
    "feedback.html": as_coloured_html,
    "twin.py": as_comment,
    "notes.md": indented,
    "broken.ipynb": lambda secret: "{" + secret,
}


@pytest.mark.parametrize("secret", [SOLUTION, HIDDEN, MODEL_ANSWER, SCHEME])
@pytest.mark.parametrize("name", DISGUISES)
def test_a_leak_is_found_in_any_disguise(course, tmp_path, name, secret):
    path = tmp_path / "site" / name
    path.parent.mkdir()
    path.write_text(DISGUISES[name](secret), encoding="utf-8")
    (fault,) = leaks(course, path.parent)
    assert fault.startswith(f"{path} holds ")


def test_a_solution_that_the_lesson_shows_is_a_leak(course):
    shown = "\n".join(f"# {line}" for line in SOLUTION.split("\n"))
    edit_master(course, "# ## From triangles to polygons", f"# ## From triangles to polygons\n#\n{shown}")
    build(course)
    found = leaks(course, course.published)
    assert len(found) == 2
    assert all(
        "the solution of triangles.triangle_area, from the line 'parallelogram = u" in x for x in found
    )


@pytest.mark.parametrize("line", SOLUTION.split("\n"))
def test_one_line_of_a_longer_solution_may_be_shown(course, tmp_path, line):
    (tmp_path / "hint.md").write_text(line, encoding="utf-8")
    assert leaks(course, tmp_path / "hint.md") == []


def test_a_written_answer_without_a_model_answer_has_only_its_mark_scheme_to_keep(course):
    edit_master(course, MODEL_ANSWER, "YOUR ANSWER HERE")
    build(course)
    assert leaks(course, course.published) == []


def test_files_that_are_not_text_are_passed_over(course, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    assert leaks(course, tmp_path / "picture.png") == []
