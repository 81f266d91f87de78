"""The student's side of the engine: it runs the cells, and calls what they define when the examiner asks.

    python -m autograder.student CONTROL-DESCRIPTOR SETTINGS-AS-JSON

starts a zygote, inside the sandbox: a process that has the lesson's libraries loaded, one thread, and nothing
that a student may not see. For each submission it forks a child, which is confined before it reads a byte of
the submission, and which talks with the examiner through a pipe of its own. The zygote runs no student's
code; when the examiner says so, or is gone, it kills the child, and waits until nothing of it is left.

Nothing that comes from here is believed: it is output, and values to be compared elsewhere.
"""

import contextlib
import importlib
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
import tracemalloc
import types
import warnings

import numpy as np

from autograder import check, confine, draws, seccomp, wire
from autograder.cells import Notebook
from autograder.compare import arrays_in
from autograder.foreign import MISSING, as_plain, made

START = b"S"
ENDED = struct.Struct("<i")
MOST_WARNINGS = 20
MOST_AHEAD = 2**24  # bytes of answers to calls that go together


# The zygote.


def main(control: int, settings: dict) -> None:
    """Warms up, says so, and forks for whoever asks, until the other side is closed."""
    pipe = socket.socket(fileno=control)
    warm(settings["modules"])
    confine.require_one_thread()
    settings["limits"]["memory"] += confine.memory_taken()
    settings["nowhere"] = os.open(os.devnull, os.O_RDWR)
    if settings["tier"] == 3:
        seccomp.program(platform.machine(), 1, True)
    if settings["read"] is not None:
        confine.restrict_files(settings["read"], settings["work"])
    pipe.sendall(START)
    children = {}  # by the line that each hangs on: pulled by somebody, or held by nobody, the child goes
    while True:
        ready, _, _ = select.select([pipe, *children], [], [])
        for line in children.keys() & ready:
            with contextlib.suppress(OSError), line:
                line.sendall(ENDED.pack(_end(children.pop(line))))
        if pipe in ready:
            word, descriptors, _, _ = socket.recv_fds(pipe, 1, 2)
            if word != START:
                break
            connection, line = descriptors
            children[socket.socket(fileno=line)] = _fork(connection, settings)
            os.close(connection)
    for child in children.values():
        _end(child)


def warm(modules: list[str]) -> None:
    """Loads what the lesson imports, and uses once what is slow when it is first used."""
    for name in modules:
        with contextlib.suppress(ImportError):  # then the student's import says so
            importlib.import_module(name)
    if "torch" in sys.modules:
        _warm_torch()
    if "matplotlib" in sys.modules:
        importlib.import_module("matplotlib.font_manager")
    import gc

    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, all of these pages in each child


def _warm_torch():
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    torch.distributions.Normal(0.0, 1.0).log_prob(torch.zeros(1))
    torch.linalg.slogdet(torch.eye(2))
    torch.func.vmap(torch.func.jacrev(torch.sin))(torch.ones(2, 2))
    isinstance(layer, torch.Generator)  # loads more at its first use


def _fork(descriptor, settings):
    child = confine.fork(settings["tier"])
    if child:
        return child
    try:
        for number in range(3):  # what the zygote writes to outlives this child
            os.dup2(settings["nowhere"], number)
        os.dup2(descriptor, 3)
        os.closerange(4, 2**16)
        confine.confine(settings)
        Student(socket.socket(fileno=3)).serve()
    finally:
        os._exit(0)


def _end(child):
    """Kills a child, and gives its wait status; where it has a PID namespace, all of that dies with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


# The child.


class Student:
    """Serves one submission. Requests are plain values; each has an `op`, and gets one answer."""

    def __init__(self, pipe: socket.socket):
        self.pipe = pipe
        self.notebook = Notebook()
        self.objects = []  # what the examiner knows by its place here
        self.places = {}  # id of an object -> its place
        self.given = {}  # id of an object that came from the examiner -> the object, its name there
        self.kept = {}  # place -> what the names meant there
        self.states = None  # the random states that the examiner sent last
        self.begun = None  # the states when those were put in place: a library may be loaded here alone
        self.drawn = None  # the states as they are

    def serve(self):
        """Says that it is there, and answers until the examiner is gone."""
        with contextlib.suppress(wire.WireError):
            wire.send(self.pipe, wire.pack({}))
            while True:
                self._answer(self._take())

    def _take(self):
        return wire.unpack(wire.receive(self.pipe), self._known)

    def _answer(self, request):
        operation = getattr(self, f"op_{request.pop('op')}")
        answer = operation(**request)
        if answer is not None:
            wire.send(self.pipe, self._packed(answer))

    def _packed(self, answer):
        try:
            return wire.pack(answer, self._opaque)
        except wire.WireError as error:
            if "answers" in answer:  # then each call is made by itself, and has an answer of its own
                return wire.pack({"answers": []})
            return wire.pack({"error": {**_NOTHING, "kind": "ValueError", "message": str(error)}})

    def op_begin(self, seed):
        draws.seed(seed)

    def op_run(self, source, name, look):
        value, error = self.notebook.run(source, name)
        self.drawn = None  # it may have drawn
        answer = {"printed": self.notebook.printed.take(), "value": value, "error": error}
        return answer if look is None else {**self.op_look(**look), **answer}

    def op_look(self, place, names, imports):
        """What the namespace has under these names; modules aside, which the examiner has its own of.

        imports: a public test's, which a notebook would have too. One that fails is left out.
        """
        for statement in imports:
            with contextlib.suppress(BaseException), self.notebook.quietly():
                exec(statement, self.notebook.namespace)
        self.notebook.printed.take()
        self.kept[place] = dict(self.notebook.namespace)
        found = {}
        for name in names:
            value = self.notebook.namespace.get(name, MISSING)
            if value is not MISSING and not isinstance(value, types.ModuleType):
                found[name] = {"empty": True} if check._has_no_body(value) else {"value": value}
        return {"found": found}

    def op_recall(self, place):
        """Later cells may have used a name again, for something else."""
        if place in self.kept:
            self.notebook.namespace.clear()
            self.notebook.namespace.update(self.kept[place])

    def op_environ(self, variables):
        os.environ.update(variables)
        return {}

    def op_calls(self, target, states):
        """Calls that are sure to come; each from the same random states, up to the first that raises.

        The next message is a list of their arguments. It is not inside this one, where it would be copied.
        When the answers grow large, the rest is left for later.
        """
        answers, size = [], 0
        for number, (args, kwargs) in enumerate(self._take()):
            self._set_draws("again" if number else states)
            given = {**dict(enumerate(args)), **kwargs}
            before = {place: contents(value) for place, value in given.items()}
            answer = self._try_and_note(target, args, kwargs)
            self.drawn = draws.snapshot()
            size += bytes_in(answer.get("value"))
            if answers and size > MOST_AHEAD:
                break
            answers.append(answer)
            if "error" in answer:
                break
            moved = [place for place, value in given.items() if contents(value) != before[place]]
            if moved:
                answer["moved"] = moved
        return {"answers": answers}

    def op_call(self, target, states, trace):
        """Calls target(*args, **kwargs). The arguments are the next message."""
        blob = wire.receive(self.pipe)
        args, kwargs = wire.unpack(blob, self._known)
        self._set_draws(states)
        with _traced(trace) as peak:
            answer = self._try_and_note(target, args, kwargs)
        now = draws.snapshot()
        answer["drew"], self.drawn = now != self.drawn, now
        answer["peak"] = peak()
        answer["changed"] = self._changed(args, kwargs, blob)
        return answer

    def op_get(self, target, name):
        return self._try(getattr, (target, name), {})

    def op_set(self, target, name, value):
        return {**self._try(setattr, (target, name, value), {}), "value": None}

    def op_special(self, target, name, args):
        """A special method, such as __len__, looked up on the type as Python does."""
        return self._try(lambda: getattr(type(target), name)(target, *args), (), {})

    def _try_and_note(self, function, args, kwargs):
        """As _try, with the warnings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = self._try(function, args, kwargs)
        if caught:
            noted = caught[:MOST_WARNINGS]
            answer["warned"] = [[w.category.__name__[:100], str(w.message)[:1000]] for w in noted]
        return answer

    def _try(self, function, args, kwargs):
        try:
            with self.notebook.quietly():
                answer = {"value": function(*args, **kwargs)}
        except BaseException as error:  # whatever it is, it is the student's
            answer = {"error": self.notebook.told(error)}
        answer["printed"] = self.notebook.printed.take()
        return answer

    def _set_draws(self, states):
        if type(states) is tuple:
            self.states = states
            draws.restore(states)
            self.drawn = self.begun = draws.snapshot()
        elif states == "again" and self.drawn != self.begun:
            draws.restore(self.states)
            self.drawn = self.begun

    def _changed(self, args, kwargs, blob):
        try:
            if wire.is_packed(blob, (args, kwargs), self._opaque):
                return None
            return wire.pack((args, kwargs), self._opaque)
        except wire.WireError:
            return None

    # What has no type on the wire.

    def _opaque(self, value):
        if id(value) in self.given:
            return self.given[id(value)][1]
        if value is Ellipsis:
            return {"ellipsis": True}
        plain = as_plain(value)
        if plain is not MISSING:
            return {"as": plain}
        if id(value) not in self.places:
            self.places[id(value)] = len(self.objects)
            self.objects.append(value)
        return {
            "handle": self.places[id(value)],
            "type": type(value).__name__[:60],
            "name": str(getattr(value, "__name__", ""))[:60] if isinstance(value, _NAMED) else "",
            "callable": callable(value),
        }

    def _known(self, name):
        if "handle" in name:
            return self.objects[name["handle"]]
        if "as" in name:
            return name["as"]
        value = made(name, self.call_back)
        self.given[id(value)] = value, name
        return value

    def call_back(self, place, /, *args, **kwargs):
        """Calls a function of the test, over there; while it runs, the examiner may ask for more."""
        wire.send(self.pipe, wire.pack({"callback": place, "args": args, "kwargs": kwargs}, self._opaque))
        while True:
            request = self._take()
            if request["op"] != "return":
                self._answer(request)
            elif request["error"] is not None:
                raise RuntimeError(request["error"])
            else:
                return request["value"]


def contents(value):
    """The bytes of all arrays inside a value, one after another, with their shapes."""
    if isinstance(value, np.ndarray):
        return [value.tobytes(), value.shape]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        torch = sys.modules.get("torch")
        return [wire.pack(value.detach())] if torch and isinstance(value, torch.Tensor) else []
    return [part for inside in value for part in contents(inside)]


def bytes_in(value):
    """How many all arrays inside a value have; more than go ahead where a sparse tensor cannot say."""
    try:
        return sum(array.nbytes for array in arrays_in(value))
    except Exception:
        return MOST_AHEAD + 1


_NOTHING = {"kind": "", "message": "", "line": None, "text": "", "trace": ""}
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


@contextlib.contextmanager
def _traced(wanted):
    """Gives a function that says how much memory was allocated inside, in bytes; 0 where it is not wanted."""
    if not wanted:
        yield lambda: 0
        return
    tracemalloc.start()
    peaks = []
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
