"""The self-check passes a bank that is as it must be, and fails for each way in which one may not be."""

import importlib
import multiprocessing
import sys

import pytest
from typer.testing import CliRunner

from autograder import answers, selfcheck
from autograder.cli import app
from autograder.course import Course, CourseError
from autograder.master import read_master
from autograder.selfcheck import check_lesson

SYLLABUS = """
[[lesson]]
order = 0
topic = "invented"
title = "Invented"
question = "Does it work?"
prerequisites = []
minutes = 1
points = 3
withheld = []
"""

MASTER = '''
# %% [markdown]
# # Invented

# %%
import numpy as np
scale = 2.0

# %% tags=["show"]
raise RuntimeError("cells that only show do not run")

# %% [markdown] exercise="first" title="First" difficulty=1 importance=1 minutes=1
# Write `first(x)`.

# %% solution="first"
def first(x):
    """Scaled sum of each row."""
    ### BEGIN SOLUTION
    return scale * x.sum(-1)
    ### END SOLUTION

# %%
points = np.arange(6.0).reshape(2, 3)

# %% test="first" points=1
from autograder import check
check.values("invented.first", [(points,)], lambda x: 2.0 * x.sum(-1))

# %% hidden="first" points=2
import numpy as np
from autograder import check
cases = [(np.array([[-1.0, -1.0], [1.0, 2.0]]),), (np.zeros((0, 2)),)]
check.values("invented.first", cases, lambda x: 2.0 * x.sum(-1))

# %% [markdown] exercise="second" title="Second" difficulty=1 importance=1 minutes=1
# Write `second(x)`, with your first.

# %% solution="second"
def second(x):
    ### BEGIN SOLUTION
    return first(x) + 1
    ### END SOLUTION

# %% test="second" points=1
from autograder import check
import numpy as np
check.values("invented.second", [(np.diag([1.0, 2.0, 3.0]),)], lambda x: 2.0 * x.sum(-1) + 1)
'''

BANK = """
import os, time
import numpy as np
from autograder.answers import right, wrong

@right("first")
def by_loop(x):
    return np.array([scale * sum(row) for row in x])

@right("first")
def by_product(x):
    return 2 * x @ np.ones(x.shape[-1])

@wrong("first", "The minus?")
def negative(x):
    return -2 * x.sum(-1)

@wrong("first", "Which axis?")
def wrong_axis(x):
    return 2 * x.sum(0)

@wrong("first", "Only hidden inputs are negative.")
def lost_sign(x):
    return abs(2 * x.sum(-1))

@right("second")
def by_hand(x):
    return 2 * x.sum(-1) + 1

@right("second")
def from_one(x):
    return 1 + first(x)

@wrong("second", "One too many.")
def two(x):
    return 2 * x.sum(-1) + 2

@wrong("second", "One is missing.")
def none(x):
    return 2 * x.sum(-1)

@wrong("second", "Minus one?")
def minus(x):
    return 2 * x.sum(-1) - 1
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The rows of the invented lesson, by exercise and variant, with text of its bank replaced."""
    monkeypatch.setattr(answers, "__path__", [*answers.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # playing a lesson replaces it
    monkeypatch.delenv("AUTOGRADER_HIDDEN", raising=False)
    course = write_course(tmp_path)

    def play(old="", new="", timeout=30.0, side=1):
        assert old in BANK
        answers._banks.pop("invented", None)
        sys.modules.pop("autograder.answers.invented", None)
        (tmp_path / "invented.py").write_text(BANK.replace(old, new, 1) if old else BANK + new)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            bank = answers.bank("invented")
        finally:
            sys.dont_write_bytecode = before
        master = read_master(course, course.lessons[0])
        return {f"{row.exercise}, {row.variant}": row for row in check_lesson(master, bank, timeout, side)}

    yield play
    answers._banks.pop("invented", None)
    sys.modules.pop("autograder.answers.invented", None)


def write_course(folder):
    (folder / "course" / "masters").mkdir(parents=True)
    (folder / "course" / "syllabus.toml").write_text(SYLLABUS)
    (folder / "course" / "masters" / "00_invented.py").write_text(MASTER.lstrip())
    return Course(folder / "course")


def wrong_rows(rows):
    return {name: row.got for name, row in rows.items() if not row.ok}


def test_all_is_as_it_must_be(rows):
    found = rows()
    assert wrong_rows(found) == {}
    got = {name: row.got for name, row in found.items()}
    assert got["first, reference"] == got["first, right: by_loop"] == "3 of 3"
    assert got["first, untouched stub"] == "0 of 3: not attempted, stub (public test)"
    assert got["first, empty cell"] == "0 of 3: not attempted, missing (public test)"
    assert got["first, syntax error"] == "0 of 3: not attempted, missing (public test)"
    assert got["first, wrong: wrong_axis"] == "0 of 3: not right yet, named:wrong_axis (public test)"
    assert got["first, wrong: lost_sign"] == "1 of 3: not right yet, named:lost_sign (hidden test)"
    assert len(found) == 2 * (1 + 2 + 3 + 3)


def test_side_by_side_gives_the_same_rows_in_the_same_order(rows):
    crash = "return 2 * x.sum(-1) - 1", "os._exit(3)"
    alone, together = rows(*crash), rows(*crash, side=4)
    assert list(together.values()) == list(alone.values())
    assert not together["second, wrong: minus"].ok


def test_a_wrong_answer_is_settled_by_the_first_test_that_refuses_it(rows, tmp_path):
    """Tests train; those of right answers all run."""
    noted = tmp_path / "noted"
    path = tmp_path / "course" / "masters" / "00_invented.py"
    hidden = "cases = [(np.array"
    path.write_text(path.read_text().replace(hidden, f"open({str(noted)!r}, 'a').write('x')\n{hidden}"))
    assert wrong_rows(rows()) == {}
    ran = ["reference", "by_loop", "by_product", "untouched stub", "empty cell", "syntax error", "lost_sign"]
    assert len(noted.read_text()) == len(ran)


@pytest.mark.parametrize(
    ("old", "new", "row", "got"),
    [
        # a right answer is refused
        ("return 1 + first(x)", "return 1.5 + first(x)", "second, right: from_one", "not right yet"),
        # a wrong answer is accepted
        (
            "return 2 * x.sum(-1) - 1",
            "return 2 * x.sum(-1) + 1",
            "second, wrong: minus",
            "accepted: full marks",
        ),
        # a message does not fire: another wrong answer returns the same, and comes first
        ("return 2 * x.sum(-1) - 1", "return 2 * x.sum(-1) + 2", "second, wrong: minus", "One too many."),
        # a message does not fire: the answer raises
        ("return 2 * x.sum(-1) - 1", "return 1 / 0", "second, wrong: minus", "error in your code"),
        # a message does not fire: its predicate does not hold
        (
            '@wrong("second", "Minus one?")',
            '@wrong("second", "Minus one?", when=lambda returned, x: returned.sum() > 1e9)',
            "second, wrong: minus",
            "second is off by the same constant",
        ),
        # a crash and a hang cost their own row alone
        ("return 2 * x.sum(-1) - 1", "os._exit(3)", "second, wrong: minus", "ended with exit code 3"),
        pytest.param(
            *("return 2 * x.sum(-1) - 1", "time.sleep(60)", "second, wrong: minus", "no end after 3 s"),
            marks=pytest.mark.slow,
        ),
        # too few, and none of the lesson's
        ('@right("second")\ndef by_hand', "def by_hand", "second, right answers", "1"),
        ('@wrong("second", "Minus one?")\n', "", "second, wrong answers", "2"),
        ("", '@right("third")\ndef other(x): pass\n', "third, the bank", "the lesson has none"),
    ],
)
def test_what_is_not_as_it_must_be(rows, old, new, row, got):
    wrong = wrong_rows(rows(old, new, timeout=3.0 if "sleep" in new else 30.0))
    assert list(wrong) == [row]
    assert got in wrong[row]


def test_a_stub_that_is_whole_must_be_right(rows, tmp_path):
    path = tmp_path / "course" / "masters" / "00_invented.py"
    below = "return scale * x.sum(-1)\n    ### BEGIN SOLUTION\n    # Nothing is missing."
    above = "### BEGIN SOLUTION\n    return scale * x.sum(-1)"
    path.write_text(path.read_text().replace(above, below))
    found = rows()
    assert wrong_rows(found) == {}
    assert found["first, untouched stub"].got == "3 of 3"
    path.write_text(path.read_text().replace(below, below.replace("scale", "3")))
    assert "not right yet" in wrong_rows(rows())["first, untouched stub"]


def test_a_stub_that_is_broken_must_be_recognised(rows, tmp_path):
    path = tmp_path / "course" / "masters" / "00_invented.py"
    empty = path.read_text()
    mistake = '"""Scaled sum of each row."""\n    return scale * x.sum({axis})  # repair this line'
    for axis, wanted in ((0, set()), (None, {"first, untouched stub"})):
        path.write_text(empty.replace('"""Scaled sum of each row."""', mistake.format(axis=axis)))
        assert set(wrong_rows(rows())) == wanted


def test_a_cell_of_the_lesson_that_fails_is_told(rows, tmp_path):
    path = tmp_path / "course" / "masters" / "00_invented.py"
    path.write_text(path.read_text().replace("scale = 2.0", "scale = two"))
    wrong = wrong_rows(rows())
    assert wrong["first, cell 2"] == "NameError: name 'two' is not defined"
    assert "name 'scale' is not defined" in wrong["first, reference"]


def test_a_test_cell_that_breaks_is_told(rows, tmp_path):
    path = tmp_path / "course" / "masters" / "00_invented.py"
    path.write_text(path.read_text().replace("(np.diag(", "(np.dialog("))
    wrong = wrong_rows(rows())
    assert wrong["second, reference"].startswith("broken (public test): AttributeError")
    assert wrong["second, untouched stub"].startswith("broken (public test): AttributeError")


@pytest.mark.slow
def test_without_fork_each_variant_plays_the_lesson_again(rows, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    found = rows()
    named = {name: row for name, row in found.items() if "wrong: " in name}
    others = {name: row.got for name, row in found.items() if name not in named and not row.ok}
    assert others == {}
    assert found["second, right: from_one"].ok


def test_the_command_tells_and_exits_with_1(tmp_path, monkeypatch):
    """In the process that a lesson gets for itself, where the invented bank is not: counts are too low."""
    course = write_course(tmp_path)
    seen = []
    rows = selfcheck.selfcheck(course, ["invented"], jobs=1, on_row=seen.append)
    assert rows == seen
    monkeypatch.setattr(selfcheck, "selfcheck", lambda *args, **options: rows)
    assert {row.variant for row in rows if not row.ok} == {"right answers", "wrong answers"}
    assert {row.variant for row in rows if row.ok} == {
        "reference",
        "untouched stub",
        "empty cell",
        "syntax error",
    }
    result = CliRunner().invoke(app, ["selfcheck", "--answers", "--course", str(course.folder)])
    assert result.exit_code == 1
    assert "4 not as they must be" in result.output
    assert "Every answer, typed in" in result.output


def test_a_master_that_cannot_be_read_is_told(tmp_path):
    course = write_course(tmp_path)
    (course.masters / "00_invented.py").unlink()
    assert selfcheck.selfcheck(course) == []
    with pytest.raises(CourseError, match="has no master"):
        selfcheck.selfcheck(course, ["invented"])
