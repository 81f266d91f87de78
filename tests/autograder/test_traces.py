"""What a test leaves behind is found, and the next submission does not meet it."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from changes import CHANGES
from test_examiner import Toy, code

from autograder import traces
from autograder.traces import Traces


@pytest.fixture(scope="module", params=[[], ["--compared"]], ids=["counted", "compared"])
def tried(request):
    """What is found of each change, in a process where nothing else happens."""
    program = [sys.executable, str(Path(__file__).parent / "changes.py"), *request.param]
    return json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("what", CHANGES)
def test_each_trace_is_found(tried, what):
    before, made, undone = tried[what]
    assert before is undone is None
    assert (made is None) == (what == "what differs for each submission")


def test_this_python_counts_the_changes_of_a_dictionary():
    """Another may not: then all is well, but slower."""
    assert traces._COUNTER is not None or sys.version_info >= (3, 12)


def test_modules_that_were_loaded_are_told(monkeypatch):
    clean = Traces()
    monkeypatch.setitem(sys.modules, "left", types.ModuleType("left"))
    assert clean.loaded() == ["left"]


# In the engine. Each test cell prints the process that it runs in.

WHERE = "import os\nprint('in', os.getpid())\n"


def processes(folder, test, count=3):
    """Grades as often: the process of each time, and the outcomes of the test."""
    toy = Toy(folder, tests=[code(WHERE + test, "where", 1)])
    try:
        graded = [toy.grade() for _ in range(count)]
    finally:
        toy.engine.close()
    outcomes = [{check.grade_id: check.score for check in checks}["where"] for checks, _ in graded]
    return [notebook["cells"][-1]["outputs"][0]["text"] for _, notebook in graded], outcomes


def test_one_process_grades_one_submission_after_another(tmp_path):
    where, outcomes = processes(tmp_path, "")
    assert len(set(where)) == 1
    assert outcomes == [1, 1, 1]


LEAVES = {
    "a name": "import math\nassert not hasattr(math, 'left')\nmath.left = 1",
    "a function": "import flowkit.determinants as d\nassert callable(d.lu)\nd.lu = None",
    "a setting": "import numpy as np\nassert np.geterr()['over'] == 'warn'\nnp.seterr(over='raise')",
    "the environment": "assert 'LEFT' not in os.environ\nos.environ['LEFT'] = '1'",
}


@pytest.mark.parametrize("what", LEAVES)
def test_where_a_test_leaves_a_trace_the_next_submission_does_not_meet_it(tmp_path, what):
    where, outcomes = processes(tmp_path, LEAVES[what])
    assert len(set(where)) == 3
    assert outcomes == [1, 1, 1]


def test_what_is_not_looked_at_is_met(tmp_path):
    """The control: it is the looking that keeps the next submission from it."""
    hides = "import re\nassert 'left' not in vars(re.Scanner)\nre.Scanner.left = 1"
    assert processes(tmp_path, hides)[1] == [1, 0, 0]


def test_a_module_that_a_test_loads_late_is_there_for_the_next_process(tmp_path):
    where, _ = processes(tmp_path, "def late():\n    import wave\nlate()")
    assert where[0] != where[1] == where[2]
