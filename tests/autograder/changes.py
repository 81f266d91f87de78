"""What a test could leave behind, tried in a process of its own: is each found, and nothing before and after?

python tests/autograder/changes.py prints, for each change, whether it was found; with --compared as a Python
finds them that does not count the changes of a dictionary. See test_traces.py.
"""

import decimal
import gc
import json
import math
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import torch

from autograder import check, diagnosis, traces
from autograder.traces import Traces
from flowkit.flow import Flow


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
    "another module in its place": lambda m: m.setitem(sys.modules, "math", types.ModuleType("math")),
    "the environment": lambda m: m.setenv("LEFT", "1"),
    "the working folder": lambda m: m.chdir("/"),
    "the path": lambda m: m.syspath_prepend("/left"),
    "the limit of recursion": lambda m: m.call(sys.setrecursionlimit, 5000, sys.getrecursionlimit()),
    "garbage collection": lambda m: (gc.disable(), m.callback(gc.enable)),
    "a thread": _start_thread,
    "decimal numbers": lambda m: m.setattr(decimal.getcontext(), "prec", 50),
    "NumPy's errors": lambda m: m.call(lambda e: np.seterr(**e), {"all": "raise"}, np.geterr()),
    "NumPy's printing": lambda m: m.call(np.set_printoptions, 3, np.get_printoptions()["precision"]),
    "the dtype": lambda m: m.call(torch.set_default_dtype, torch.float64, torch.float32),
    "gradients": lambda m: m.call(torch.set_grad_enabled, False, True),
    "a filter of warnings": lambda m: m.setattr(warnings, "filters", [("error", None, Warning, None, 0)]),
    "what differs for each submission": lambda m: (m.setenv(check.SEED, "5eed"), m.setenv(check.HIDDEN, "1")),
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


def found(change) -> list[str | None]:
    """What is found before a change, when it is made, and when it is undone."""
    clean, changes = Traces(), _Changes()
    before = clean.found()
    try:
        change(changes)
        made = clean.found()
    finally:
        changes.undo()
    return [before, made, clean.found()]


if __name__ == "__main__":
    if sys.argv[1:] == ["--compared"]:
        traces._COUNTER = None
    json.dump({what: found(change) for what, change in CHANGES.items()}, sys.stdout)
