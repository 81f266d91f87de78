"""What a test leaves behind is found, and the next submission does not meet it."""

import gc
import math
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import torch

from autograder import check, diagnosis
from autograder.traces import Traces
from flowkit.flow import Flow
from tests.autograder.test_examiner import Toy, code


def _start_thread(monkeypatch):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    monkeypatch.callback(lambda: (stop.set(), thread.join()))


CHANGES = {
    "a name of a library": lambda m: m.setattr(math, "tau", 6.0),
    "a new name of a library": lambda m: m.setattr(math, "left", 1, raising=False),
    "a function of ours": lambda m: m.setattr(diagnosis, "explain", print),
    "a method of ours": lambda m: m.setattr(Flow, "log_prob", print),
    "a dictionary of ours": lambda m: m.setitem(check._passed, "toy.square", print),
    "a loaded module": lambda m: m.setitem(sys.modules, "left", types.ModuleType("left")),
    "the environment": lambda m: m.setenv("LEFT", "1"),
    "the working folder": lambda m: m.chdir("/"),
    "the path": lambda m: m.syspath_prepend("/left"),
    "the limit of recursion": lambda m: m.call(sys.setrecursionlimit, 5000, sys.getrecursionlimit()),
    "garbage collection": lambda m: (gc.disable(), m.callback(gc.enable)),
    "a thread": _start_thread,
    "NumPy's errors": lambda m: m.call(lambda e: np.seterr(**e), {"all": "raise"}, np.geterr()),
    "NumPy's printing": lambda m: m.call(np.set_printoptions, 3, np.get_printoptions()["precision"]),
    "the dtype": lambda m: m.call(torch.set_default_dtype, torch.float64, torch.float32),
    "gradients": lambda m: m.call(torch.set_grad_enabled, False, True),
    "a filter of warnings": lambda m: m.setattr(warnings, "filters", [("error", None, Warning, None, 0)]),
    "memory": lambda m: m.setitem(KEPT, "bytes", np.ones(2**26)),
}
KEPT = {}


class _Changes(pytest.MonkeyPatch):
    """Undoes also what a function has to undo."""

    def __init__(self):
        super().__init__()
        self.last = []

    def callback(self, function):
        self.last.append(function)

    def call(self, function, value, before):
        function(value)
        self.last.append(lambda: function(before))

    def undo(self):
        while self.last:
            self.last.pop()()
        super().undo()


@pytest.mark.parametrize("what", CHANGES)
def test_each_trace_is_found(what):
    clean, changes = Traces(), _Changes()
    assert clean.found() is None
    try:
        CHANGES[what](changes)
        assert clean.found() is not None
    finally:
        changes.undo()


def test_what_differs_for_each_submission_is_no_trace(monkeypatch):
    clean = Traces()
    monkeypatch.setenv(check.SEED, "5eed")
    monkeypatch.setenv(check.HIDDEN, "1")
    assert clean.found() is None


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
