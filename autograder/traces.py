"""What a test may leave behind in the process that runs it, for the tests of the next submission to meet.

The examiner's child grades one submission after another, since a fork and the pages that it copies cost more
than a short lesson's tests. It may do so as long as everything is as it was: each name of each module, the
attributes of our own classes, what our own lists and dictionaries hold, and the settings below. Whatever
differs costs the time of a fork, so all that is doubtful counts as a difference.
"""

import ctypes
import decimal
import gc
import os
import signal
import sys
import threading
import tracemalloc
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from autograder import check

OURS = ("autograder", "flowkit")
PER_SUBMISSION = {check.SEED, check.HIDDEN}  # environment variables that the examiner sets
MOST_GROWTH = 2**28  # bytes of memory

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Traces:
    """This process as it is now; `found` says later what is no longer so."""

    def __init__(self):
        self.settings = _settings()  # first: to look may load a module
        self.modules = set(sys.modules)
        self.spaces = [_Space(name, space) for name, space in _spaces()]
        self.memory = _memory()

    def found(self) -> str | None:
        """Where the first difference is, in words; None when there is none."""
        for space in self.spaces:
            if space.differs():
                return space.name
        now = _settings()
        changed = [name for name, value in self.settings.items() if now[name] != value]
        if _memory() > self.memory + MOST_GROWTH:
            changed.append("memory")
        return changed[0] if changed else None

    def loaded(self) -> list[str]:
        """The modules that were loaded meanwhile."""
        return sorted(set(sys.modules) - self.modules)


class _Space:
    """A dictionary or a list, and what is in it now."""

    def __init__(self, name: str, space: dict | list):
        self.name, self.space, self.parts = name, space, _parts(space)
        self.counter = self.count = None
        if _COUNTER is not None and isinstance(space, dict):
            self.counter = ctypes.c_uint64.from_address(id(space) + _COUNTER)
            self.count = self.counter.value

    def differs(self) -> bool:
        if self.counter is not None and self.counter.value == self.count:
            return False
        try:
            return _parts(self.space) != self.parts  # what is the same object is not asked
        except Exception:  # arrays, for one, do not say whether they are equal
            return True


def _parts(space):
    return tuple(space.values() if isinstance(space, dict) else space)


def _counter_of_dictionaries() -> int | None:
    """Where in a dictionary CPython keeps a number that each change makes another (PEP 509).

    None where it keeps none, as from 3.14 on. To compare thousands of dictionaries takes milliseconds.
    """
    place, tried = 24, {"a": 1}
    if type(tried).__basicsize__ < place + 8:
        return None
    counter = ctypes.c_uint64.from_address(id(tried) + place)
    seen = [counter.value]
    for change in (lambda d: d.update(a=2), lambda d: d.update(b=3), lambda d: d.pop("b"), dict.clear):
        change(tried)
        seen.append(counter.value)
    return place if len(set(seen)) == len(seen) else None


_COUNTER = _counter_of_dictionaries()


def _spaces() -> Iterator[tuple[str, dict | list]]:
    """All that holds names or parts, and what to call it."""
    yield "sys.modules", sys.modules
    for name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType):
            continue
        yield name, vars(module)
        if name.partition(".")[0] in OURS:
            for part, value in list(vars(module).items()):
                if isinstance(value, type):
                    yield f"{name}.{part}", _dictionary_of(value)
                elif isinstance(value, (dict, list)) and not part.startswith("__"):
                    yield f"{name}.{part}", value


def _dictionary_of(kind):
    """The dictionary of a class, which vars gives a view of."""
    (dictionary,) = gc.get_referents(vars(kind))
    return dictionary


def _settings() -> dict[str, Any]:
    """What Python and the libraries keep elsewhere than under a module's names."""
    torch = sys.modules.get("torch")
    return {
        "the environment": {k: v for k, v in os.environ.items() if k not in PER_SUBMISSION},
        "the working folder": os.getcwd(),
        "sys.path": list(sys.path),
        "the filters of warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)],
        "the limit of recursion": sys.getrecursionlimit(),
        "tracing": (sys.gettrace(), sys.getprofile(), tracemalloc.is_tracing()),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "threads": threading.active_count(),
        "decimal numbers": _of_decimal(decimal.getcontext()),
        "NumPy's errors": (np.geterr(), np.geterrcall()),
        "NumPy's printing": np.get_printoptions(),
        "PyTorch": _of_torch(torch) if torch else None,
    }


def _of_decimal(context):
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp


def _of_torch(torch):
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_anomaly_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def _memory():
    """The bytes of memory that this process really has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
