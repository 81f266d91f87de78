"""The examiner's view of a student's process: stand-ins for what the student defined, and calls across.

Arguments and results cross by value. A function or an object of the student's stays where it is; the examiner
has a stand-in, which is called like the original. What a test gives as an argument travels as well: what can
be imported over there, by its name; a plain function of the test, as code, so that gradients go through it;
all other callables are called back.
"""

import builtins
import contextlib
import dis
import functools
import importlib
import inspect
import marshal
import socket
import sys
import tracemalloc
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from autograder import check, draws, foreign, student, wire
from autograder.compare import copied
from autograder.standins import Callable_, Object

LIBRARIES = ("builtins", "flowkit", "functools", "math", "numpy", "operator", "torch")
MOST_ANSWER = 128 * 2**20  # bytes that one call may return
MOST_TEXT = 20_000  # characters
MOST_TRACED = 2**28
MOST_CALLBACKS = 100_000
MOST_EXPECTED = 2**16  # bytes of requests that wait over there


def to_run(source: str, name: str, look: dict | None = None) -> dict:
    """The request for a cell to be run, and for a look after it; see Process.do."""
    return {"op": "run", "source": source, "name": name, "look": look}


def to_look(place: int, names: list[str], imports: list[str]) -> dict:
    """The request for what stands under these names after these imports. All names are kept as a place."""
    return {"op": "look", "place": place, "names": names, "imports": imports}


class Gone(BaseException):
    """The student's process is lost: it died, or did not answer in time, or said what is no answer.

    No Exception, so that no check takes it for one of the student's.
    """

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind, self.text = kind, text


class OurFault(BaseException):
    """A test gives a student's function what cannot be sent. No Exception, for the same reason."""


class Process:
    """A student's process, by its connection. deadline: when it has to have answered, by time.monotonic.

    withheld: names of flowkit's modules that the student's process does not have. Whatever goes wrong over
    there is a Gone; a value that cannot be sent is an OurFault.
    """

    def __init__(self, pipe: socket.socket, seed: str, deadline: float, withheld: tuple[str, ...] = ()):
        self.pipe = pipe
        self.deadline = deadline
        self.withheld = withheld
        self.printed = ""
        self.callbacks: list[Callable] = []
        self.cells: dict[str, str] = {}  # what was run, by name
        self.expected: list[dict] = []  # requests that are over there already, and not yet answered
        self.early: list[tuple[dict, dict]] = []  # answers to such requests that came before they were wanted
        self.follow: list[dict] = []  # requests that are sure to come after the next announced calls
        self.sent = self.marked = None
        self.announced: bytes | None = None  # the calls that were announced last, packed
        self.references: dict[bytes, list] | None = None  # what a reference gave for such calls
        self._said(lambda: wire.receive(pipe, deadline, MOST_TEXT))  # it says that it is there
        self.untold = self._packed({"op": "begin", "seed": seed})  # goes with the first request

    def expect(self, requests: list[dict]) -> None:
        """Sends requests that are sure to come, in this order, before anybody waits for their answers.

        It is the same objects that will be asked for. More than a few cells are left for then.
        """
        messages = b"".join(map(self._packed, requests))
        if self.expected or len(messages) > MOST_EXPECTED:
            return  # more could fill the pipe in both directions
        self.expected += requests
        with contextlib.suppress(Gone):  # asking for them will say it
            self._send(messages)

    def is_asked(self, requests: list[dict]) -> bool:
        """Whether these have been sent, and wait for somebody to take the answers."""
        sent = [*self.expected, *(request for request, _ in self.early)]
        return all(any(request is other for other in sent) for request in requests)

    def do(self, request: dict) -> dict:
        """Runs a cell, or looks: what was `printed`, the `value` of the last line as text, and the `error`.

        `found` is what there is under the names: values, stand-ins, and a function without a body as one.
        """
        if request["op"] == "run":
            self.cells[request["name"]] = request["source"]
        answer = self._ask(request)
        found = {
            n: _empty if "empty" in entry else entry.get("value") for n, entry in answer["found"].items()
        }
        return {**answer, "found": found, "value": answer["value"] if type(answer["value"]) is str else None}

    def run(self, source: str, name: str) -> dict:
        return self.do(to_run(source, name))

    def look(self, names: list[str], place: int = 0) -> dict[str, Any]:
        found = self.do(to_look(place, names, []))["found"]
        return {name: value for name, value in found.items() if name in names}

    def recall(self, place: int) -> None:
        """From here on names mean over there what they meant at that place."""
        self.untold += self._packed({"op": "recall", "place": place})

    def environ(self, variables: dict[str, str]) -> None:
        """Sets environment variables over there."""
        self._ask({"op": "environ", "variables": variables})

    def call(self, target: Any, args: tuple, kwargs: dict) -> Any:
        """Calls a stand-in's original. Arguments that it changes in place are changed here too.

        Raises check.StudentError for what the student's code raises.
        """
        blob = self._packed((args, kwargs))
        request = {
            "op": "call",
            "target": target,
            "states": self._states(),
            "trace": tracemalloc.is_tracing(),
        }
        answer = self._ask(request, blob)
        self._note_draws(answer["drew"])
        if answer["changed"] is not None:
            self._put_back((args, kwargs), answer["changed"])
        for category, message in answer["warned"]:
            warnings.warn(message, category, stacklevel=3)
        if 0 < answer["peak"] < MOST_TRACED:
            bytes(answer["peak"])  # a test that watches the memory sees what the call took over there
        return self._outcome(answer)

    def announce(self, target: Any, calls: list[tuple[tuple, dict]]) -> Iterator[check.Called]:
        """Has calls done over there, each from the random states of now, while we go on here.

        Gives what became of them up to the first that raises. Of calls that are too large, or that call back
        a function which may take notes, it gives nothing: they are to be made one by one.
        """
        known, blob = len(self.callbacks), self._packed(calls)
        self.announced = None
        if len(blob) > student.MOST_AHEAD or len(self.callbacks) > known or tracemalloc.is_tracing():
            return iter(())
        self.marked, self.announced = None, blob
        request = {"op": "calls", "target": target, "states": self._states()}
        self.marked = None  # the states over there will be those after the last call
        messages = [self._packed(request), blob]
        self._await()
        self.expected.append(request)
        follow = b"".join(map(self._packed, self.follow))
        if self.follow and len(follow) <= MOST_EXPECTED:
            self.expected += self.follow
            messages.append(follow)
        self.follow = []
        self._send(*messages)
        return self._became(request)

    def kept(self) -> list | None:
        """A place for what a reference gives for the calls that were announced, with what it gave before.

        None where it is not the same for every submission. Of each test the last calls alone are kept.
        """
        if self.references is None or self.announced is None:
            return None
        if self.announced not in self.references:
            self.references.clear()
        return self.references.setdefault(self.announced, [])

    def _became(self, request):
        for answer in self._ask(request)["answers"]:
            formed = self._said(functools.partial(_formed, answer))
            value = error = None
            try:
                value = self._outcome(formed)
            except check.StudentError as raised:
                error = raised
            yield check.Called(value, error, formed["moved"], formed["warned"])

    def _packed(self, value):
        """A message of ours. Raises OurFault, which is not to be taken for the student's."""
        try:
            return wire.pack(value, self.describe)
        except wire.WireError as error:
            raise OurFault(str(error)) from None

    def get(self, target: Any, name: str) -> Any:
        answer = self._ask({"op": "get", "target": target, "name": name})
        error = answer["error"]
        if error is not None and error["kind"] == "AttributeError":
            raise AttributeError(error["message"])
        return self._outcome(answer)

    def set(self, target: Any, name: str, value: Any) -> None:
        self._outcome(self._ask({"op": "set", "target": target, "name": name, "value": value}))

    def special(self, target: Any, name: str, *args: Any) -> Any:
        answer = self._ask({"op": "special", "target": target, "name": name, "args": args})
        if answer["error"] is not None and answer["error"]["kind"] == "AttributeError":
            raise TypeError(answer["error"]["message"])  # as Python says of objects without that method
        return self._outcome(answer)

    def _outcome(self, answer):
        self.printed += answer["printed"]
        error = answer["error"]
        if error is None:
            return answer["value"]
        known = self._is_line(error["line"], error["text"])
        line, text = (error["line"], error["text"]) if known else (None, "")
        raise check.StudentError(error["kind"], error["message"], line, text)

    def _is_line(self, number, text):
        """Whether a cell has this line: what is told of it must not be a message in disguise."""
        if number is None or number < 1:
            return False
        lines = [source.splitlines()[number - 1 : number] for source in self.cells.values()]
        return [text] in [[line[:500].rstrip() for line in found] for found in lines]

    def _put_back(self, old, blob):
        self._said(lambda: _put_back(old, wire.unpack(blob, lambda name: name.get("as"))))

    def _ask(self, request, *more):
        """The answer. more: messages that the request is followed by."""
        for place, (asked, answer) in enumerate(self.early):
            if asked is request:
                del self.early[place]
                return answer
        if any(expected is request for expected in self.expected):
            while self.expected[0] is not request:
                self._await_one()
            del self.expected[0]
            return self._said(self._answer)
        self._await()
        self._send(self._packed(request), *more)
        return self._said(self._answer)

    def _await(self):
        """Takes in the answers that are still to come: something that nobody expected is asked for first."""
        while self.expected:
            self._await_one()

    def _await_one(self):
        self.early.append((self.expected.pop(0), self._said(self._answer)))

    def _send(self, *messages):
        untold, self.untold = self.untold, b""
        self._said(lambda: wire.send(self.pipe, b"".join([untold, *messages]), self.deadline))

    def _answer(self):
        for _ in range(MOST_CALLBACKS):
            answer = wire.unpack(wire.receive(self.pipe, self.deadline, MOST_ANSWER), self._known)
            if type(answer) is not dict or "callback" not in answer:
                return _formed(answer)
            self._call_back(answer)
        raise wire.WireError("It calls back without end.")

    def _said(self, talk):
        """What talking with the process gives. Raises Gone for whatever goes wrong over there."""
        try:
            return talk()
        except TimeoutError:
            raise Gone("Timeout", "") from None
        except _NONSENSE as error:
            raise Gone("KernelDied", str(error)) from None

    def _call_back(self, answer):
        function = self.callbacks[answer["callback"]]
        reply = {"op": "return", "value": None, "error": None}
        try:
            reply["value"] = function(*answer["args"], **answer["kwargs"])
            message = wire.pack(reply, self.describe)
        except Exception as error:  # the student gave it something that it cannot take
            message = wire.pack({**reply, "error": f"{type(error).__name__}: {error}"[:1000]})
        wire.send(self.pipe, message, self.deadline)

    # Random draws: the student's go on from the examiner's states, as they do in one process.

    def _states(self):
        """None where nothing happened here since the last call; "again" where the states were put back."""
        now = draws.snapshot()
        if now == self.marked:
            return None
        self.marked = now
        if now == self.sent:
            return "again"
        self.sent = now
        return now

    def _note_draws(self, drew):
        """After a call that drew, the states here move on too, but never to what the student says."""
        if drew:
            draws.advance()
            self.marked = draws.snapshot()

    # What has no type on the wire.

    def _known(self, name):
        if "as" in name:
            return name["as"]
        if "ellipsis" in name:
            return Ellipsis
        place, kind, called = name["handle"], _text(name["type"]), name["callable"]
        if type(place) is not int or type(called) is not bool:
            raise wire.WireError("This is no object of the student's.")
        base = Callable_ if called else Object
        made = type(kind if kind.isidentifier() else "object", (base,), {})
        return made(self, place, _text(name["name"]))

    def describe(self, value: Any) -> dict:
        """The name of a value that has no type on the wire, for foreign.made. Raises WireError."""
        if isinstance(value, Object):
            return {"handle": vars(value)["_place"]}
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.nn.Parameter):
            return {"parameter": value.detach().requires_grad_(value.requires_grad)}
        plain = foreign.as_plain(value)
        if plain is not foreign.MISSING:
            return {"as": plain}
        if torch and isinstance(value, torch.Generator):
            return {"generator": value.get_state()}
        if torch and isinstance(value, (torch.dtype, torch.device)):
            return {"ref": ["torch", str(value).removeprefix("torch.")]}
        if isinstance(value, np.random.Generator):
            return {"rng": value.bit_generator.state}
        if isinstance(value, functools.partial):
            return {"partial": [value.func, value.args, value.keywords]}
        return self._by_reference(value) or self._by_state(value) or self._as_code(value) or self._back(value)

    def _by_reference(self, value):
        module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(value, np.ufunc):
            module, qualified = "numpy", value.__name__
        if not isinstance(module, str) or not isinstance(qualified, str):
            return None
        package, _, rest = module.partition(".")
        if package not in LIBRARIES or (package == "flowkit" and rest.partition(".")[0] in self.withheld):
            return None
        try:
            found = functools.reduce(getattr, qualified.split("."), importlib.import_module(module))
        except (ImportError, AttributeError):
            return None
        return {"ref": [module, qualified]} if found is value else None

    def _by_state(self, value):
        """An object of a class that can be imported over there, by what it holds."""
        kind = type(value)
        if isinstance(value, (type, types.FunctionType)) or not self._by_reference(kind):
            return None
        return {"object": [kind, dict(vars(value))]} if hasattr(value, "__dict__") else None

    def _as_code(self, value):
        """A function of the test whose closure and globals are values: a copy does what it does."""
        if not isinstance(value, types.FunctionType) or (value.__code__.co_freevars and _writes(value)):
            return None
        names = {n: value.__globals__[n] for n in _global_names(value.__code__) if n in value.__globals__}
        names = {n: v for n, v in names.items() if not hasattr(builtins, n)}
        modules = {n: {"module": v.__name__} for n, v in names.items() if isinstance(v, types.ModuleType)}
        if any(v is value for v in names.values()) or any(
            not self._is_there(m["module"]) for m in modules.values()
        ):
            return None
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        if any(isinstance(part, (list, dict, set)) for part in (*cells, *names.values())):
            return None  # it may note something down there
        return {
            "code": marshal.dumps(value.__code__),
            "globals": {n: v for n, v in names.items() if n not in modules},
            "modules": {n: m["module"] for n, m in modules.items()},
            "defaults": value.__defaults__,
            "kwdefaults": value.__kwdefaults__,
            "cells": cells,
        }

    def _is_there(self, module):
        package, _, rest = module.partition(".")
        return package in LIBRARIES and not (package == "flowkit" and rest.partition(".")[0] in self.withheld)

    def _back(self, value):
        if not callable(value):
            raise wire.WireError(f"A {type(value).__name__} cannot be sent to a student's function.")
        self.callbacks.append(value)
        return {"callback": len(self.callbacks) - 1}


_NONSENSE = (wire.WireError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)

# What an answer may hold: the types of each part, and what stands for it when it is not there.
_PARTS = {
    "value": object,
    "found": dict,
    "answers": list,
    "error": (dict, type(None)),
    "printed": str,
    "changed": (bytes, type(None)),
    "moved": list,
    "warned": list,
    "drew": bool,
    "peak": int,
}
_ABSENT = {"value": None, "found": {}, "answers": [], "error": None, "printed": "", "changed": None}
_ABSENT |= {"moved": [], "warned": [], "drew": False, "peak": 0}


def _formed(answer):
    """The answer with all its parts, whatever was sent. Raises WireError when one is not of its type."""
    if type(answer) is not dict:
        raise wire.WireError("This is no answer.")
    parts = dict(_ABSENT)
    for name in parts.keys() & answer.keys():
        if not isinstance(answer[name], _PARTS[name]):
            raise wire.WireError(f"An answer has a wrong {name}.")
        parts[name] = answer[name]
    parts["printed"] = parts["printed"][:MOST_TEXT]
    if parts["error"] is not None:
        line, error = parts["error"].get("line"), parts["error"]
        texts = {name: _text(error.get(name, "")) for name in ("kind", "message", "text", "trace")}
        parts["error"] = {**texts, "line": line if type(line) is int else None}
    parts["warned"] = [(_category(kind), _text(message)) for kind, message in parts["warned"]]
    if not all(type(part) in (int, str) for part in parts["moved"]):
        raise wire.WireError("An argument has a number or a name.")
    parts["found"] = {name: entry for name, entry in parts["found"].items() if type(entry) is dict}
    return parts


def _empty(*args, **kwargs): ...


def _text(value):
    """Text of the student's, as far as it goes on."""
    if type(value) is not str:
        raise wire.WireError("There should be a text.")
    return value[:MOST_TEXT]


def _category(name):
    found = getattr(builtins, name, None) if type(name) is str else None
    return found if inspect.isclass(found) and issubclass(found, Warning) else UserWarning


def _put_back(old: Any, new: Any) -> None:
    """Makes the arrays inside `old` what they are in `new`, as far as the two have one form."""
    if type(old) is not type(new):
        return
    if isinstance(old, np.ndarray) and old.shape == new.shape and old.dtype == new.dtype:
        if old.flags.writeable:
            old[...] = new
    elif type(old).__name__ == "Tensor" and old.shape == new.shape and old.dtype == new.dtype:
        old.detach().copy_(new.detach())
    elif isinstance(old, dict):
        for key in old.keys() & new.keys():
            _put_back(old[key], new[key])
    elif isinstance(old, (list, tuple)):
        for one, other in zip(old, new, strict=False):
            _put_back(one, other)
        if isinstance(old, list):
            old[len(new) :] = copied(new[len(old) :])


def _global_names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_global_names, inner))


def _writes(function):
    """Whether a function may change a variable of the function around it."""
    return any(step.opname in ("STORE_DEREF", "STORE_GLOBAL") for step in dis.get_instructions(function))
