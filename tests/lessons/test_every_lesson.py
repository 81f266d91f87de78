"""What holds for every lesson: its budget, its answers, and its interactives wherever sliders go."""

import builtins
import importlib.util
import json
import types
from pathlib import Path

import pytest

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
@pytest.mark.parametrize("lesson", LESSONS)
def test_solution_runs_within_its_budget(lesson):
    benchmark = load_benchmark()
    cost = benchmark.measure(COURSE.solutions / lesson.name / f"{lesson.topic}.py")
    assert cost["megabytes"] <= benchmark.MEGABYTES
    assert cost["cpu_seconds"] <= 2 * benchmark.SECONDS  # two cores, whatever else they are busy with


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


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_interactive_draws_at_every_corner(lesson, monkeypatch):
    """With the student's functions in the loop: all have passed by the end."""
    from flowkit.lab import widgets

    played = []
    real = widgets.play

    def recording(draw, **controls):
        played.append(real(draw, **controls))
        return played[-1]

    monkeypatch.setattr(widgets, "play", recording)
    page = types.ModuleType("__main__")
    page.__dict__["__builtins__"] = builtins
    for cell in read_master(COURSE, lesson).cells:
        if not cell.markdown:
            exec(compile(solved(cell.source), f"{lesson.name} cell {cell.place}", "exec"), page.__dict__)
    assert len(played) >= 2, "a lesson has at least two interactives"
    for widget in played:
        for corner in widget.corners():
            scene = widget.render(corner)
            assert scene.encode()
