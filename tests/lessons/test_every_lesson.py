"""What holds for every lesson: the budget of the kept table, and its answers."""

import importlib.util
import json
import re
import types
from pathlib import Path

import pytest

from autograder import check
from autograder.course import Course
from autograder.master import read_master, solved
from autograder.selfcheck import selfcheck

ROOT = Path(__file__).parents[2]
COURSE = Course(ROOT / "course")
LESSONS = [pytest.param(lesson, id=lesson.name) for lesson in COURSE.lessons]


def load_benchmark() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_lessons", ROOT / "benchmarks" / "lessons.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_lesson_that_fails_is_noticed(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('the third cell')\n")
    with pytest.raises(RuntimeError, match="the third cell"):
        load_benchmark().measure(tmp_path / "broken.py")


def test_the_kept_table_has_every_lesson_within_its_budget():
    benchmark = load_benchmark()
    kept = json.loads(benchmark.RESULTS.read_text())
    assert set(kept) == {lesson.topic for lesson in COURSE.lessons}
    for topic, cost in kept.items():
        assert cost["seconds"] <= benchmark.SECONDS, topic
        assert cost["megabytes"] <= benchmark.MEGABYTES, topic


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_answer_of_the_bank_gets_what_it_must(lesson):
    rows = selfcheck(COURSE, [lesson.topic])
    assert len(rows) > 30
    assert [f"{row.exercise}: {row.variant}" for row in rows if not row.ok] == []


TRAINED = {
    "planar": ["planar_layer", "constrain"],
    "coupling": ["affine_coupling", "coupling_log_det"],
    "autoregressive": ["autoregressive_log_prob"],
    "continuous": ["divergence", "transport", "matching_loss"],
}  # what a later exercise trains through


@pytest.mark.parametrize("topic", TRAINED)
def test_an_answer_through_which_no_gradient_flows_is_refused_where_training_needs_one(topic):
    pytest.importorskip("torch")
    cells = read_master(COURSE, COURSE.lesson(topic)).cells
    namespace = solved_page(cells)
    for name in TRAINED[topic]:
        (test,) = (cell for cell in cells if (cell.kind, cell.name) == ("test", name))
        source = re.sub(r"^check.without.*$", "", test.source, flags=re.M)  # it reads sources
        exec(source, dict(namespace))
        with pytest.raises(check.NotRight, match="no gradient can flow back"):
            exec(source, namespace | {name: cut_off(namespace[name])})


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_hidden_tests_take_the_solution_whatever_inputs_a_student_gets(lesson, monkeypatch):
    """Those of training exercises aside, whose margins the lessons state."""
    cells = read_master(COURSE, lesson).cells
    namespace = solved_page(cells)
    monkeypatch.setenv(check.HIDDEN, "1")
    rejected = []
    for cell in cells:
        if cell.kind != "hidden" or cell.name.startswith("fit_"):
            continue
        test = compile(cell.source, f"<hidden test of {cell.name}>", "exec")
        for seed in range(25):
            monkeypatch.setenv(check.SEED, f"seed {seed}")
            check.forget()
            try:
                exec(test, dict(namespace))
            except check.Outcome as outcome:
                rejected.append((seed, outcome.message))
    assert rejected == []


def solved_page(cells):
    """The names that a lesson's cells define, the answers among them."""
    namespace = {"__name__": "__main__"}
    for cell in cells:
        if cell.kind in ("code", "solution") and "show" not in cell.tags:
            exec(solved(cell.source), namespace)
    return namespace


def cut_off(function):
    """The function, with results that no gradient flows through."""

    def cut(*args, **kwargs):
        returned = function(*args, **kwargs)
        return tuple(r.detach() for r in returned) if isinstance(returned, tuple) else returned.detach()

    return cut
