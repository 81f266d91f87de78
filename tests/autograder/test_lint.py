"""Each rule of the author's guide, and a lesson that breaks it."""

import re

import pytest
from courses import copy_of_fixture, edit_master
from typer.testing import CliRunner

from autograder import answers, lint, syntax
from autograder.cli import app
from autograder.course import Course
from autograder.glossary import read_glossary
from autograder.master import read_master

CALL = 'check.values("triangles.triangle_area", [tuple(corners), tuple(corners[::-1])], '
CASES = CALL + "reference=by_determinant)"
SHOW = 'print("A square of side 2 has the area 4:", square(1.0).tolist())'
CLOSING = "# A determinant measures a parallelogram with its sign, and signs make overlaps cancel."
# (rule, how it is broken): (what stands in the fixture, what stands there instead, the fault)
BROKEN = {
    ("sizes", "prose"): (
        CLOSING,
        CLOSING + " word" * 2500,
        r"2\d\d\d words of prose; a lesson has 900 to 2500",
    ),
    ("words_are_listed_once", "no list"): (
        "# <!-- words -->",
        "#",
        "stands 0 times in its prose",
    ),
    ("points_match_the_syllabus", "points"): (
        'test="polygon_area" points=1',
        'test="polygon_area" points=2',
        "give 11 points, .* promises 10",
    ),
    ("unique_grade_ids", "grade_ids"): (
        'exercise="why_signed" title',
        'exercise="triangle_area_test" title="Twin" difficulty=1 importance=1 minutes=1\n\n'
        '# %% solution="triangle_area_test"\n'
        "### BEGIN SOLUTION\ntriangle_area_test = abs\n### END SOLUTION\n\n"
        '# %% [markdown] exercise="why_signed" title',
        "its grade_id triangle_area_test is that of cell 7 too",
    ),
    ("solutions_are_tested", "untested"): (
        '# %% test="polygon_area" points=1',
        "# %%",
        'add a public test, test="polygon_area"',
    ),
    ("marks_stand_in_their_cells", "stray marker"): (
        SHOW,
        "### BEGIN SOLUTION\n1\n### END SOLUTION",
        "### END SOLUTION has no meaning in a show",
    ),
    ("marks_stand_in_their_cells", "hidden marker"): (
        CASES,
        f"### BEGIN HIDDEN TESTS\n{CASES}",
        "BEGIN HIDDEN TESTS has no meaning in a test",
    ),
    ("marks_stand_in_their_cells", "rubric in prose"): (
        CLOSING,
        "# === BEGIN MARK SCHEME ===\n# === END MARK SCHEME ===",
        "in a prose cell",
    ),
    ("marks_stand_in_their_cells", "stub by hand"): (
        SHOW,
        "# YOUR CODE HERE",
        "# YOUR CODE HERE is what the build writes",
    ),
    ("valid_code", "syntax"): (
        SHOW,
        "print(1",
        "not valid Python: '\\(' was never closed, line 1 of the cell",
    ),
    ("tests_stand_alone", "undefined in a test"): (
        "corners = np.array([[0.0",
        "the_corners = np.array([[0.0",
        "corners is not defined in this cell",
    ),
    ("tests_stand_alone", "answer called"): (
        CASES,
        CASES.replace("=by_determinant", "=triangle_area"),
        "do not call triangle_area: give",
    ),
    ("tests_end_in_a_check", "bare expression"): (CASES, f"{CASES}\n0.5", "end the test in a call of check"),
    ("tests_end_in_a_check", "assertion last"): (
        CASES,
        f"{CASES}\nassert True",
        "end the test in a call of check",
    ),
    ("checks_name_their_exercise", "another exercise"): (
        CASES,
        CASES.replace('"triangles.triangle_area"', '"triangles.polygon_area"'),
        "argument of check.values must be \"triangles.triangle_area\", not 'triangles.polygon_area'",
    ),
    ("checks_name_their_exercise", "no topic"): (
        CASES,
        CASES.replace('"triangles.', '"'),
        "not 'triangle_area'",
    ),
    ("tests_can_run_apart", "laws"): (
        CASES,
        'check.bijection("triangles.triangle_area", lambda made: made, 2)',
        "check.bijection needs the student's own process",
    ),
    ("checks_name_their_exercise", "yours of no exercise"): (
        SHOW,
        'from autograder import check\ncheck.yours("triangles.area", otherwise=abs)',
        "argument of check.yours must be .*, not 'triangles.area'",
    ),
    ("graded_code_stands_without_shows", "graded code uses a show"): (
        SHOW,
        'half = 1\n\n# %%\nprint("side", half)',
        "half comes from cell 3, which does not run at grading",
    ),
    ("graded_code_stands_without_shows", "undefined in code"): (
        "    return half * np.array(",
        "    return scale * np.array(",
        "scale is not defined in this cell or in a cell before it",
    ),
    ("answers_keep_their_names", "a show cell's import"): (
        SHOW,
        "from math import sqrt as triangle_area",
        "the student's triangle_area is lost",
    ),
    ("nothing_withheld", "withheld"): (
        "import numpy as np\n\n\ndef square",
        "import numpy as np\nfrom flowkit import jacobians\n\n\ndef square",
        "flowkit.jacobians is withheld",
    ),
    ("seeds_are_explicit", "numpy's hidden state"): (
        SHOW,
        "np.random.seed(0)",
        "np.random.seed draws from hidden state",
    ),
    ("seeds_are_explicit", "no seed"): (
        SHOW,
        "rng = np.random.default_rng()",
        "np.random.default_rng\\(\\) has no seed",
    ),
    ("seeds_are_explicit", "torch without a seed"): (
        SHOW,
        "import torch\nprint(torch.randn(3))",
        "call torch.manual_seed first",
    ),
    ("headings_in_order", "no title"): (
        "# # Triangles\n#\n",
        "# No title.\n#\n",
        "the first cell begins with the title, '# Triangles'",
    ),
    ("headings_in_order", "another title"): (
        "# # Triangles\n",
        "# # Circles\n",
        "the first cell begins with the title, '# Triangles'",
    ),
    ("headings_in_order", "two titles"): (
        "# ## What you",
        "# # What you",
        "'# What you have seen' is a second title",
    ),
    ("headings_in_order", "skipped level"): (
        "# ## What you",
        "# ##### What you",
        "'##### What you have seen' skips a level: use ####",
    ),
    ("headings_in_order", "heading in an exercise"): (
        "# Write `polygon_area(corners)`:",
        "# ### More\n# Write `polygon_area(corners)`:",
        "'### More' stands under the exercise's ###",
    ),
    ("pictures_have_alt_text", "figure without alt"): (
        SHOW,
        "from flowkit.lab import plots\nplots.show(plots.figure())",
        "plots.show needs alt=",
    ),
    ("pictures_have_alt_text", "empty alt"): (
        SHOW,
        'from flowkit.lab import plots\nplots.show(plots.figure(), alt="")',
        "plots.show needs alt=",
    ),
    ("pictures_have_alt_text", "plt.show"): (
        SHOW,
        "import matplotlib.pyplot as plt\nplt.show()",
        "show figures by plots.show",
    ),
    ("pictures_have_alt_text", "image without alt"): (
        CLOSING,
        "# ![](../index.ipynb)",
        "the image ../index.ipynb has no alternative text",
    ),
    ("pictures_have_alt_text", "img without alt"): (
        CLOSING,
        '# <img src="a.png">',
        'has no alt="what is to be seen"',
    ),
    ("links_resolve", "broken link"): (
        CLOSING,
        "# [next](../04_circles/circles.ipynb)",
        "circles.ipynb leads nowhere",
    ),
    ("links_resolve", "broken anchor"): (
        CLOSING,
        "# [above](#Half-a-square)",
        "no heading has the anchor #Half-a-square",
    ),
    ("no_network", "urllib"): (SHOW, "import urllib.request", "urllib uses the network"),
    ("no_network", "download"): (
        SHOW,
        "from sklearn.datasets import *\nfetch_openml('x')",
        "fetch_openml\\( uses the network",
    ),
    ("no_network", "pip"): (SHOW, "%pip install x", "%pip uses the network"),
    ("no_network", "remote image"): (
        CLOSING,
        "# ![a](https://example.org/a.png)",
        "it loads something from the network",
    ),
    ("no_network", "remote script"): (
        CLOSING,
        '# <script src="https://example.org/a.js"></script>',
        "it loads something from",
    ),
    ("interactives_are_seen", "above the last line"): (
        SHOW,
        "from flowkit.lab.widgets import play, slider\nplay(print, x=slider(0, 1, 0))\nprint(1)",
        "this play\\(...\\) is none: end with it",
    ),
    ("hints_help", "one hint"): (
        '# <details><summary>"My area is negative"</summary>\n#\n'
        "# In which direction do your corners run? The sign is part of the answer.\n#\n# </details>\n",
        "",
        "polygon_area has 1 hints in <details>; give it 2 to 4",
    ),
    ("hints_help", "untitled hint"): (
        '<summary>"My area is negative"</summary>',
        "",
        "a hint has no <summary>",
    ),
    ("hints_help", "no template"): (
        "# u, v = b - a, ...\n# return (u[..., 0] * v[..., 1] - ...) / 2",
        "# return u[..., 0] / 2",
        "the last hint of triangle_area must be a template",
    ),
    ("details_are_closed", "open details"): (
        "# In which direction do your corners run? The sign is part of the answer.\n#\n# </details>",
        "# In which direction do your corners run? The sign is part of the answer.",
        "a <details> is not closed",
    ),
}


def rule(name):
    (found,) = [check for check in lint.RULES if check.__name__ == name]
    return found


def page(course):
    lesson = course.lessons[-1]
    glossary, faults = read_glossary(course)
    assert faults == []
    return lint.Page(course, read_master(course, lesson), glossary)


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


@pytest.mark.parametrize(("name", "case"), BROKEN)
def test_a_rule_finds_what_breaks_it(course, name, case):
    old, new, message = BROKEN[name, case]
    assert not any(re.search(message, fault) for fault in rule(name)(page(course)))
    edit_master(course, old, new)
    faults = list(rule(name)(page(course)))
    assert any(re.search(message, fault) for fault in faults), faults
    assert all(fault.startswith("03_triangles.py") for fault in faults)


def test_every_rule_has_a_lesson_that_breaks_it():
    elsewhere = {"answers_are_banked", "answers_are_to_exercises", "nothing_before_its_lesson"}
    assert {check.__name__ for check in lint.RULES} == {name for name, _ in BROKEN} | elsewhere


def test_the_fixture_is_only_small_and_without_a_bank(course):
    faults = lint.lint(course)
    assert [fault for fault in faults if "answers/triangles.py" not in fault] == [
        "03_triangles.py: 18 cells; a lesson has 25 to 45.",
        "03_triangles.py: 157 words of prose; a lesson has 900 to 2500.",
        "03_triangles.py: 3 exercises; a lesson has 4 to 7.",
    ]


def test_this_course_has_no_faults():
    assert lint.lint(Course("course")) == []


def test_an_exercise_with_too_few_answers_is_named(course):
    faults = list(rule("answers_are_banked")(page(course)))
    assert len(faults) == 4
    assert faults[0] == (
        "autograder/answers/triangles.py: triangle_area has 0 right answers; write at least 2."
    )


def test_an_answer_to_no_exercise_is_named(course, monkeypatch):
    bank = answers.Bank("triangles")
    bank._right["circle_area", "abs"] = answers.Answer("circle_area", abs)
    monkeypatch.setattr(answers, "bank", lambda topic: bank)
    assert list(rule("answers_are_to_exercises")(page(course))) == [
        "autograder/answers/triangles.py: 'circle_area' is no exercise; rename it."
    ]


@pytest.fixture
def with_a_later_lesson(course):
    """The triangles come before the jacobians, whose term is in the glossary."""
    syllabus = course.syllabus.read_text(encoding="utf-8")
    later = syllabus[syllabus.index("[[lesson]]") :].replace("order = 3", "order = 4")
    later = later.replace('topic = "triangles"', 'topic = "jacobians"')
    course.syllabus.write_text(syllabus + later, encoding="utf-8")
    term = course.glossary.read_text(encoding="utf-8").replace("signed area", "Jacobian")
    with course.glossary.open("a", encoding="utf-8") as glossary:
        glossary.write("\n" + term.replace('lesson = "triangles"', 'lesson = "jacobians"'))
    return Course(course.folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SHOW, "from flowkit.jacobians import columns", "flowkit.jacobians belongs to lesson 04_jacobians"),
        (
            SHOW,
            "import flowkit\nflowkit.jacobians.columns",
            "flowkit.jacobians belongs to lesson 04_jacobians",
        ),
        (CLOSING, "# Then come jacobians.", "'Jacobian' is taught later, in 04_jacobians: say it otherwise"),
        (CLOSING, "# See [Jacobians](../04_jacobians/jacobians.ipynb).", None),
        (CLOSING, "# `jacobian` is only a name in code.", None),
    ],
)
def test_nothing_is_used_before_its_lesson(with_a_later_lesson, old, new, message):
    course = with_a_later_lesson
    edit_master(course, old, new)
    glossary, _ = read_glossary(course)
    surroundings = lint.Page(course, read_master(course, course.lessons[0]), glossary)
    faults = list(rule("nothing_before_its_lesson")(surroundings))
    assert len(faults) == (message is not None), faults
    assert message is None or message in faults[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('ko = "부호 있는 넓이"\n', "", "term 1 .signed area. lacks ko"),
        ('zh = "有向面积"', 'zh = " "', "lacks zh"),
        ('lesson = "triangles"', 'lesson = "circles"', "its lesson 'circles' is not in the syllabus"),
        ("[[term]]", "[[term", "is not valid TOML"),
    ],
)
def test_a_broken_glossary_is_named(course, old, new, message):
    text = course.glossary.read_text(encoding="utf-8")
    assert old in text
    course.glossary.write_text(text.replace(old, new), encoding="utf-8")
    assert any(re.search(message, fault) for fault in lint.lint(course))


def test_a_term_stands_in_the_glossary_once(course):
    text = course.glossary.read_text(encoding="utf-8")
    course.glossary.write_text(text + text, encoding="utf-8")
    assert any("term 2 (signed area) stands there twice" in fault for fault in lint.lint(course))
    course.glossary.unlink()
    assert any("glossary.toml is missing" in fault for fault in lint.lint(course))


def test_a_broken_master_is_one_fault_among_others(course):
    edit_master(course, '# %% test="polygon_area" points=1', '# %% test="polygon_area"')
    assert [fault for fault in lint.lint(course) if "has no points=" in fault]


def test_the_command_says_the_faults_and_fails(course):
    result = CliRunner().invoke(app, ["lint", "03", "--course", str(course.folder)])
    assert result.exit_code == 1
    assert "03_triangles.py: 3 exercises; a lesson has 4 to 7." in result.stdout.split("\n")


NAMES = {
    "x = y": {"y"},
    "def f(a):\n    return a + b": {"b"},
    "def f():\n    g()\ndef g():\n    f()": set(),
    "[i for i in range(3) if i > low]": {"low"},
    "import numpy as np\nnp.zeros(n)": {"n"},
    "class A(B):\n    x = 1\n    def f(self):\n        return super().f() + self.x": {"B"},
    "lambda z: z + w": {"w"},
    "total = 0\ndef f():\n    global total\n    total += 1": set(),
    "%timeit f(x)\ny = 1": set(),
    "y = (a\n% b)": {"a", "b"},
}


@pytest.mark.parametrize("source", NAMES)
def test_free_names_are_those_that_a_cell_needs(source):
    assert syntax.free_names(source) == NAMES[source]
