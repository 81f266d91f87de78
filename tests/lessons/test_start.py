"""What lesson 00 promises: NumPy is enough, the four outcomes come in order, its numbers are right."""

import builtins
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from autograder import check
from autograder.course import Course
from autograder.master import read_master, solved, stub

COURSE = Course(Path(__file__).parents[2] / "course")


def play(cells, page=None):
    """The namespace after these cells, run in it with their solutions."""
    page = page or {"__builtins__": builtins, "__name__": "__main__"}
    for cell in cells:
        exec(compile(solved(cell.source), f"cell {cell.place}", "exec"), page)
    return page


@pytest.fixture(scope="module")
def master():
    return read_master(COURSE, COURSE.lesson("start"))


@pytest.fixture(scope="module")
def lesson(master):
    """Everything that the lesson defines, run to its end where torch cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return play(cell for cell in master.cells if not cell.markdown)


def answer(master, page, exercise, source):
    """What the public test says when the source stands in the solution cell."""
    exec(compile(source, "answer", "exec"), page)
    with pytest.raises(check.Outcome) as outcome:
        play(master.exercise(exercise).tests, page)
    return outcome.value


def test_the_four_outcomes_come_in_the_order_of_the_statement(master):
    exercise = master.exercise("scale_and_shift")
    page = {"__builtins__": builtins, "np": np}
    untouched = stub(exercise.solution.source)
    bodies = ["return x * exp(s) + t", "return x * s + t"]
    assert all(f"`{body}`" in exercise.statement.source for body in bodies)
    tail = untouched[untouched.index("# YOUR CODE HERE") :].rstrip()
    tries = [untouched, *(untouched.replace(tail, body) for body in bodies)]
    said = [answer(master, page, "scale_and_shift", source) for source in tries]
    assert [one.outcome for one in said] == ["not attempted", "error in your code", "not right yet"]
    again = answer(master, page, "scale_and_shift", tries[-1])
    assert again.kind == "named:without_exp"
    assert len(again.message) > len(said[-1].message)
    play([exercise.solution, *exercise.tests], page)


def test_the_first_exercise_is_released_right_and_the_second_broken(master):
    page = {"__builtins__": builtins, "np": np}
    exec(stub(master.exercise("squared_length").solution.source), page)
    play(master.exercise("squared_length").tests, page)
    broken = stub(master.exercise("center").solution.source)
    assert answer(master, page, "center", broken).kind == "named:mean_of_each_row"


def test_every_point_finds_its_way_back(lesson):
    off = np.abs(lesson["and_back"][-1] - lesson["moons"]).max()
    assert off < lesson["WIDTH"] / 1000
    assert max(np.abs(lesson[name]).max() for name in ("to_noise", "from_noise")) < lesson["SEEN"][1]
    near = [
        np.linalg.norm(x[:, None] - lesson["CENTRES"], axis=-1).min(axis=1) < 3 * lesson["WIDTH"]
        for x in (lesson["moons"], lesson["from_noise"][-1])
    ]
    assert [within.sum() for within in near] == [499, 498]
    z = lesson["to_noise"][-1]
    assert np.allclose(z.mean(axis=0), 0, atol=0.15)
    assert np.allclose(np.cov(z.T), np.eye(2), atol=0.15)


def test_the_numbers_in_the_prose(lesson):
    assert round(float(lesson["noise_log_density"](np.zeros(2))), 3) == -1.838
    assert np.round(lesson["log_sum_exp"](np.zeros((3, 2))), 3).tolist() == [0.693] * 3
    assert np.exp(709.0) < np.inf
    assert np.exp(-745.0) > 0
    assert np.exp(-745.2) == 0
    with np.errstate(over="ignore"):
        assert np.exp(710.0) == np.inf
    zero_from = 745.2 / (0.5 * math.log(2 * math.pi * math.e))  # dimensions, for the average log-density
    assert 500 < zero_from < 550
    assert lesson["center"](np.array([[1.0, 10.0], [3.0, 30.0]])).tolist() == [[-1, -10], [1, 10]]
    ones = np.zeros(2), np.full(2, 10.0)
    assert lesson["scale_and_shift"](np.array([1.0, 2.0]), *ones).tolist() == [11, 12]
