"""Similar answers: a copy is found through disguises that change no tree, and what all share is light."""

import json
import shutil

import numpy as np
import pytest
from classes import LESSON, built_course
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import Page
from typer.testing import CliRunner

from autograder.cli import app
from autograder.course import Course, CourseError
from autograder.similarity import GRAM, SURE, WINDOW, grams, similar, tokens, winnow
from autograder.similarity_page import html

HEAD = "import numpy as np\n\ndef polygon_area(corners):\n"
ORIGINAL = f'''{HEAD}    """The area."""
    total = 0.0
    # walk along the edges
    for i in range(len(corners)):
        j = (i + 1) % len(corners)
        if np.allclose(corners[i], corners[j]):
            continue
        total += corners[i, 0] * corners[j, 1] - corners[j, 0] * corners[i, 1]
    return total / 2
'''
DISGUISED = """import numpy as np

def polygon_area(points):
    "Walks around, and adds up the pieces."
    result: float = 10.5

    for first in range(len(points)):
        second = (first + 7) % len(points)   # the next one
        if np.allclose(points[first], points[second]):
            continue
        result += (points[first, 0] * points[second, 1]
                   - points[second, 0] * points[first, 1])
    return result / 3
"""
OTHERS = [
    f"{HEAD}    x, y = corners.T\n    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1), axis=0)\n",
    f"{HEAD}    centre = corners.mean(0)\n    u = corners - centre\n    v = np.concatenate([u[1:], u[:1]])\n"
    "    return np.linalg.det(np.stack([u, v], axis=-1)).sum() / 2\n",
    f"{HEAD}    parts = [triangle_area(corners[0], a, b) for a, b in zip(corners[1:-1], corners[2:])]\n"
    "    return sum(parts, start=np.float64(0))\n",
    f"{HEAD}    if len(corners) < 3:\n        return 0.0\n    head, *rest = corners\n    total = 0.0\n"
    "    while len(rest) > 1:\n        total = total + triangle_area(head, rest[0], rest[1])\n"
    "        rest.pop(0)\n"
    "    return total\n",
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_course(tmp_path_factory.mktemp("built"))


@pytest.fixture
def course(built, tmp_path):
    return Course(shutil.copytree(built.folder, tmp_path / "course"))


def answered(course, answers: dict[str, str]):
    """Graded notebooks in which each student has this answer to polygon_area; and the pairs of them."""
    release = json.loads((course.release / LESSON / "triangles.ipynb").read_text())
    for student, source in answers.items():
        for cell in release["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("grade_id") == "polygon_area":
                cell["source"] = source
        folder = course.autograded / student / LESSON
        folder.mkdir(parents=True)
        (folder / "triangles.ipynb").write_text(json.dumps(release))
    (found,) = similar(course)
    return found


def others():
    return {f"other{i}": source for i, source in enumerate(OTHERS)}


def test_a_copy_in_disguise_comes_first(course):
    found = answered(course, {"ann": ORIGINAL, "zoe": DISGUISED, **others()})
    first, *rest = found.pairs
    assert first.students == ("ann", "zoe")
    assert first.share > 0.9
    assert all(pair.weight < first.weight / 3 for pair in rest)
    (shared,) = first.shared
    assert shared.exercise == "polygon_area"
    assert {7, 8, 9, 10, 11} <= shared.lines[0]
    assert 6 not in shared.lines[0]  # the comment


def test_half_a_copy_is_found_where_it_is(course):
    half = ORIGINAL.replace(
        "    return total / 2", "    return float(np.abs(np.linalg.norm(np.array([total]))))"
    )
    found = answered(course, {"ann": ORIGINAL, "zoe": half, **others()})
    assert found.pairs[0].students == ("ann", "zoe")
    (shared,) = found.pairs[0].shared
    assert 9 in shared.lines[0] & shared.lines[1]
    assert 12 not in shared.lines[0] | shared.lines[1]


def test_what_the_release_gives_weighs_nothing(course):
    release = json.loads((course.release / LESSON / "triangles.ipynb").read_text())
    stub = next(
        c["source"]
        for c in release["cells"]
        if c["metadata"].get("nbgrader", {}).get("grade_id") == "polygon_area"
    )
    found = answered(course, {"ann": "".join(stub), "zoe": "".join(stub), **others()})
    assert not [pair for pair in found.pairs if "ann" in pair.students and "zoe" in pair.students]


def test_what_everybody_has_weighs_less_than_what_two_have(course):
    alone = answered(course, {"ann": ORIGINAL, "zoe": DISGUISED, **others()}).pairs[0].weight
    shutil.rmtree(course.autograded)
    crowd = answered(course, {f"s{i}": ORIGINAL for i in range(6)}).pairs[0].weight
    assert crowd < alone / 5


def test_what_too_many_have_is_no_evidence(course):
    assert answered(course, {f"s{i:02d}": ORIGINAL for i in range(31)}).pairs == ()


def test_answers_that_are_no_python_are_counted_and_left_out(course):
    found = answered(course, {"ann": "def polygon_area(:", "bob": "x = \0", "zoe": ORIGINAL})
    assert (found.compared, found.unparsed, found.pairs) == (3, 2, ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a = b + 1", "x = y + 2  # why"),
        ("def f(x: int) -> int:\n    'doc'\n    return x", "def g(y):\n    return y"),
        ("self.w = self.w * 2", "self.weights = self.weights * 3"),
        ("%matplotlib inline\nx = 1", "%time\ny = 2"),
    ],
)
def test_what_does_not_count(one, other):
    assert [token for token, _ in tokens(one)] == [token for token, _ in tokens(other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("np.exp(x)", "np.log(x)"),
        ("x.sum(axis=0)", "x.sum(keepdims=0)"),
        ("a + b", "a - b"),
        ("import math", "import cmath"),
        ("f(x)", "x"),
    ],
)
def test_what_counts(one, other):
    assert [token for token, _ in tokens(one)] != [token for token, _ in tokens(other)]


words = st.lists(st.sampled_from([f"t{i}" for i in range(40)]), max_size=60)


@settings(max_examples=100, deadline=None)
@given(words, words, words, words, st.lists(st.sampled_from("abcdefgh"), min_size=SURE, max_size=40))
def test_a_shared_run_that_is_long_enough_is_always_found(a, b, c, d, run):
    """The guarantee of winnowing."""
    chosen = [{int(hashes[i]) for i in winnow(hashes)} for hashes in (grams(a + run + b), grams(c + run + d))]
    assert chosen[0] & chosen[1]


def test_fingerprints_are_as_dense_as_winnowing_promises():
    hashes = grams([f"t{i}" for i in np.random.default_rng(0).integers(0, 1000, 20_000)])
    assert len(winnow(hashes)) / len(hashes) == pytest.approx(2 / (WINDOW + 1), rel=0.05)


def test_runs_that_are_too_short_make_no_fingerprint():
    assert winnow(grams(["t"] * (GRAM - 1))) == []
    assert winnow(grams(["t"] * GRAM)) == [0]


def test_the_page_shows_both_sides_and_accuses_nobody(course):
    answers = {"ann": ORIGINAL + "# <script>alert(1)</script>\n", "zoe": DISGUISED, **others()}
    text = html(answered(course, answers))
    page = Page(text)
    assert page.barriers() == []
    assert page.needs() == []
    assert "accuses nobody" in text
    assert page.headings[1:3] == ["The pairs", "1. ann and zoe"]
    assert "<script>" not in text
    assert "≈   7     for i in range(len(corners)):" in text
    assert "    6     # walk along the edges" in text


def test_the_command(course):
    how = ["similar", "--course", str(course.folder)]
    assert CliRunner().invoke(app, how).exit_code == 2
    with pytest.raises(CourseError, match="autograder grade"):
        similar(course)
    answered(course, {"ann": ORIGINAL, "zoe": DISGUISED, **others()})
    run = CliRunner().invoke(app, how)
    assert run.exit_code == 0
    assert "ann and zoe" in run.output
    assert "accuses nobody" in run.output
    assert (course.folder / "reports" / f"similar-{LESSON}.html").is_file()
