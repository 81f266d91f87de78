"""What a notebook's first cell imports is light: nobody waits, and grading forks it for each submission."""

import json
import statistics
import subprocess
import sys

import pytest

STATEMENTS = [
    "import flowkit",
    "from autograder import check",
    "from flowkit.lab import plots",
    "from flowkit.lab.widgets import choice, play, predict, slider",
]
HEAVY = {
    "torch",
    "nbgrader",
    "matplotlib",
    "scipy",
    "sklearn",
    "IPython",
    "jupytext",
    "nbformat",
    "anywidget",
}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_is_imported(statement):
    loaded = json.loads(run(f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"))
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def seconds(statement):
    """From inside a fresh interpreter: the processor time of the import alone, beyond NumPy's."""
    code = f"import time, numpy\nt = time.process_time()\n{statement}\nprint(time.process_time() - t)"
    return float(run(code))


@pytest.mark.slow
@pytest.mark.parametrize("statement", STATEMENTS)
def test_it_takes_little_time(statement):
    """150 ms of processor time beside NumPy, which the lessons need anyway; the median of five, once warm."""
    run(statement)
    assert statistics.median(seconds(statement) for _ in range(5)) < 0.15


def test_names_load_when_they_are_used():
    code = (
        "import flowkit, sys; a = 'torch' in sys.modules; flowkit.Bijection; print(a, 'torch' in sys.modules)"
    )
    assert run(code).split() == ["False", "True"]


def test_a_wrong_name_says_what_there_is():
    import flowkit

    with pytest.raises(AttributeError, match=r"flowkit has no 'nonsense'; it has .*Bijection"):
        _ = flowkit.nonsense
    assert "check_bijection" in dir(flowkit)
