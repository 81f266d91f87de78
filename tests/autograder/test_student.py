"""A student's process and the examiner's view of it: cells, calls, values, stand-ins. Without a sandbox."""

import functools
import random
import socket
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from rooms import forked, run

from autograder import check, draws, remote, wire
from flowkit import maps


@pytest.fixture
def process():
    with forked() as started:
        yield started


def define(process, source, name="f"):
    assert run(process, source) == ""
    return process.look([name])[name]


# Cells.


def test_cells_share_a_namespace_and_are_main(process):
    run(process, "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1")
    assert run(process, "print(P(2).x, __name__)") == "2 __main__\n"


def test_the_last_line_is_shown_and_a_semicolon_hides_it(process):
    assert process.run("x = 2\nx + 1", "a")["value"] == "3"
    assert process.run("x + 1;", "a")["value"] is None
    assert process.run("None", "a")["value"] is None


def test_an_error_tells_kind_line_and_trace_and_the_next_cell_runs(process):
    error = process.run("x = 1\nx / 0", "a")["error"]
    assert error["kind"] == "ZeroDivisionError"
    assert "line 2" in error["trace"]
    assert "student.py" not in error["trace"]
    assert process.run("def f(:", "b")["error"]["kind"] == "SyntaxError"
    assert run(process, "print(x)") == "1\n"


def test_an_error_in_a_helper_from_another_cell_is_told_by_the_line_that_called_it(process):
    process.run("def halved(x):\n    return x / len(x)", "helper")
    process.run("def f(x):\n    y = 2 * x\n    return halved(y)", "f")
    f = process.look(["f"])["f"]
    with pytest.raises(check.StudentError) as caught:
        f(3)
    assert (caught.value.line, caught.value.text.strip()) == (3, "return halved(y)")
    for source in ("z = 1\nhalved(z)", "%%time\nz = 1\nhalved(z)"):
        error = process.run(source, "a")["error"]
        assert (error["line"], error["text"]) == (2, "halved(z)")


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("%matplotlib inline\nprint(1)", "1\n"),
        ("%%time\ny = 3\nprint(y)", "3\n"),
        ("!ls\nprint(2)", "Commands that begin with ! do not run while work is graded.\n2\n"),
        ("%%bash\nls", "%%bash does nothing while work is graded.\n"),
        ("import sys; print('e', file=sys.stderr)", "e\n"),
        ("exit()", "SystemExit: "),
        ("class E(Exception):\n  def __str__(self): raise self\nraise E", "E: "),
    ],
)
def test_what_notebooks_have(process, source, printed):
    assert run(process, source) == printed


def test_definitions_below_a_timing_magic_stay(process):
    run(process, "%%time\ndef f(x):\n    return x + 1")
    assert process.look(["f"])["f"](1) == 2


def test_a_flood_of_output_is_cut_while_it_is_written(process):
    assert len(run(process, "for _ in range(10**5): print('x' * 100)")) == 20_000


# What the examiner finds.


def test_looking_for_names(process):
    run(process, "import math\nx = 1.5\ndef f(x): ...\ndef g(x): return x\nclass C: pass\ne = ...\nn = None")
    found = process.look(["x", "f", "g", "C", "math", "e", "n", "absent"])
    assert found.keys() == {"x", "f", "g", "C", "e", "n"}
    assert (found["x"], found["e"], found["n"]) == (1.5, ..., None)
    assert check._has_no_body(found["f"])
    assert not check._has_no_body(found["g"])
    assert callable(found["C"])


VALUES = [
    (np.arange(3.0), {"a": [1, (2, "b")]}, None, True, float("inf")),
    torch.ones(2, 3, dtype=torch.float32),
    np.float64(2.5),
    {1, 2},
    2**100,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_go_there_and_back(process, value):
    came = define(process, "def f(x): return x")(value)
    assert type(came) is type(value)
    assert repr(came) == repr(value)


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        ("torch.linalg.slogdet(torch.eye(2))", tuple),
        ("torch.nn.Parameter(torch.ones(2))", torch.Tensor),
        ("np.matrix([[1.0]])", np.ndarray),
        ("np.arange(3, dtype='>f8')", np.ndarray),
        ("__import__('collections').OrderedDict(a=1)", dict),
        ("type('N', (float,), {})(2.0)", float),
    ],
)
def test_subclasses_come_as_what_they_are_kinds_of(process, returned, kind):
    value = define(process, f"import torch, numpy as np\ndef f(): return {returned}")()
    assert type(value) is kind


def test_objects_stay_there_and_are_used_from_here(process):
    source = """
class Counter:
    def __init__(self, start): self.count = start
    def add(self, by=1):
        self.count += by
        return self
    def __len__(self): return self.count
    def __getitem__(self, i): return i * self.count
    def each(self): yield from range(self.count)
"""
    counter = define(process, source, "Counter")(2)
    assert type(counter).__name__ == "Counter"
    assert (len(counter.add(3)), counter.count, counter[2], list(counter.each())) == (
        5,
        5,
        10,
        [0, 1, 2, 3, 4],
    )
    counter.count = 7
    assert (counter.count, hasattr(counter, "absent")) == (7, False)
    total = define(process, "def f(c): return c.count")
    assert total(counter) == 7
    with pytest.raises(check.StudentError) as raised:
        counter[None]
    assert raised.value.kind == "TypeError"


# Calls.


def test_errors_are_told_with_the_student_s_line(process):
    f = define(process, "def g(x):\n    return x['k']\ndef f(x):\n    return g(x)")
    with pytest.raises(check.StudentError) as raised:
        f({})
    assert (raised.value.kind, raised.value.line, raised.value.text.strip()) == (
        "KeyError",
        2,
        "return x['k']",
    )
    f = define(process, "def f(): raise SystemExit")
    with pytest.raises(check.StudentError) as raised:
        f()
    assert raised.value.kind == "SystemExit"


def test_arguments_changed_in_place_are_changed_here(process):
    source = "def f(x, t, parts):\n    x += 1\n    t.zero_()\n    parts[0][0] = 5\n    parts.append(2)"
    x, t, parts = np.zeros(2), torch.ones(2), [np.zeros(1)]
    inner = parts[0]
    define(process, source)(x, t, parts)
    assert (x.tolist(), t.tolist(), inner.tolist(), parts[1:]) == ([1, 1], [0, 0], [5], [2])


def test_warnings_are_raised_here(process):
    f = define(process, "import numpy as np\ndef f(x): return np.log(x)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        f(np.zeros(1))
    assert [(w.category, str(w.message)) for w in caught] == [
        (RuntimeWarning, "divide by zero encountered in log")
    ]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("odd", ["torch.eye(2).to_sparse()", "torch.nested.nested_tensor([torch.ones(2)])"])
def test_a_tensor_that_is_not_laid_out_as_an_array_comes_as_a_stand_in(process, odd):
    f = define(process, f"import torch\ndef f(): return {odd}")
    (called,) = f._announce_([((), {})])
    assert type(called.returned).__name__ == type(f()).__name__ == "Tensor"


def test_one_number_that_stands_for_too_many_is_an_error_that_says_so(process):
    f = define(process, "import numpy as np\ndef f(): return np.broadcast_to(3.0, (10**5, 10**5))")
    assert list(f._announce_([((), {})])) == []
    with pytest.raises(check.StudentError, match="too large to be sent: 76294 MB"):
        f()


def test_a_test_that_watches_the_memory_sees_what_a_call_took(process):
    f = define(process, "import numpy as np\ndef f(n): return float(np.ones(n).sum())")
    tracemalloc.start()
    try:
        f(1_000_000)
        assert 8e6 < tracemalloc.get_traced_memory()[1] < 9e6
    finally:
        tracemalloc.stop()


def test_draws_are_the_same_as_in_one_process(process):
    source = """
import random, torch, numpy as np
def f():
    return random.random(), np.random.random(), np.random.normal(), torch.rand(2)
"""
    f, namespace = define(process, source), {}
    exec(source, namespace)
    draws.seed("x")
    start = draws.snapshot()
    for _ in range(2):  # put back: the same again; not put back: they go on
        draws.restore(start)
        came = [f(), f()]
        draws.restore(start)
        assert repr(came) == repr([namespace["f"](), namespace["f"]()])


def test_calls_that_are_announced_go_together_and_give_the_same(process):
    source = """
import numpy as np, warnings
def f(x, fail=False):
    if fail:
        raise ValueError("no")
    x += 1
    warnings.warn("careful")
    print("called")
    return np.random.random() + x
"""
    f = define(process, source)
    cases = [
        ((np.zeros(2),), {}),
        ((), {"x": np.ones(2)}),
        ((np.ones(2),), {"fail": True}),
        ((np.ones(3),), {}),
    ]
    draws.seed("x")
    start = draws.snapshot()
    process.printed = ""
    became = list(f._announce_(cases))
    assert process.printed == "called\ncalled\n"
    assert [case[0][0].tolist() for case in cases[::2]] == [[0, 0], [1, 1]]  # what is given is not touched
    for (args, kwargs), called in zip(cases[:2], became, strict=False):
        draws.restore(start)
        with warnings.catch_warnings(record=True):
            assert called.returned.tolist() == f(*args, **kwargs).tolist()
    assert [(c.moved, c.warned) for c in became] == [
        ([0], [(UserWarning, "careful")]),
        (["x"], [(UserWarning, "careful")]),
        ([], []),
    ]
    assert str(became[2].error) == "no"  # and the one after it is not made


def test_what_was_announced_is_there_after_something_that_nobody_expected(process):
    f = define(process, "def f(x): return x + 1")
    process.follow = runs = [remote.to_run("def f(x): return x", "later")]
    became = f._announce_([((1,), {}), ((2,), {})])
    assert process.is_asked(runs)
    assert f(5) == 6
    assert [called.returned for called in became] == [2, 3]
    assert process.do(runs[0])["error"] is None
    assert not process.is_asked(runs)
    assert (process.look(["f"])["f"](1), f(1)) == (1, 2)


@pytest.mark.parametrize("calls", [[((np.zeros(2**22),), {})], [((print,), {}), ((1,), {})]])
def test_calls_that_are_large_or_call_back_are_not_announced(process, calls):
    seen = []
    calls = [(tuple(seen.append if arg is print else arg for arg in args), kwargs) for args, kwargs in calls]
    f = define(process, "def f(x): return 3")
    assert list(f._announce_(calls)) == []
    assert f(1) == 3


def test_answers_that_are_large_or_cannot_be_sent_are_left_for_later(process):
    f = define(process, "import numpy as np\ndef f(n): return np.zeros(n) if n else [[]] * 600_000")
    assert [called.returned.size for called in f._announce_([((n,), {}) for n in (5, 6, 2**22, 7)])] == [5, 6]
    assert list(f._announce_([((5,), {}), ((0,), {})])) == []


def test_names_mean_what_they_meant_at_a_place(process):
    run(process, "base = 1\ndef f(x): return x + base")
    f = process.look(["f"], place=4)["f"]
    run(process, "base = 2\ndef g(x): return x\ndel f")
    assert f(1) == 3
    process.recall(4)
    assert (f(1), process.look(["f", "g"]).keys()) == (2, {"f"})


def test_draws_of_a_cell_between_two_calls_do_not_show(process):
    f = define(process, "import random\ndef f(): return random.random()")
    draws.seed("x")
    start = draws.snapshot()
    first = list(f._announce_([((), {})]))
    run(process, "random.random()")
    draws.restore(start)
    assert list(f._announce_([((), {})])) == first


def test_a_student_cannot_choose_the_examiner_s_draws(process):
    f = define(process, "import random\ndef f(): random.seed(1)")
    draws.seed("x")
    f()
    here = random.random()
    random.seed(1)
    assert here != random.random()


# What tests give to students' functions.


def test_functions_of_a_test_travel_as_code_so_that_gradients_go_through(process):
    scale = torch.tensor(3.0)

    def function(x, power=2):
        return scale * x**power + torch.sin(x) * 0

    source = "import torch\ndef f(g, x):\n    return torch.func.grad(lambda x: g(x).sum())(x)"
    assert define(process, source)(function, torch.tensor([1.0, 2.0])).tolist() == [6.0, 12.0]


def test_functions_that_take_notes_are_called_back(process):
    seen = []

    def note(x):
        seen.append(x)
        return 2 * x

    assert define(process, "def f(g): return [g(i) for i in range(3)]")(note) == [0, 2, 4]
    assert seen == [0, 1, 2]


def test_a_call_back_may_call_the_student_again(process):
    inner = define(process, "def f(x): return x + 1")
    outer = define(process, "def h(g): return g(1)", "h")
    notes = []
    assert outer(lambda x: notes.append(x) or inner(x)) == 2
    with pytest.raises(check.StudentError, match="ZeroDivisionError"):
        outer(lambda x: notes.append(x) or 1 / 0)


@pytest.mark.parametrize(
    ("given", "used", "value"),
    [
        (np.exp, "g(0.0)", 1.0),
        (functools.partial(np.power, 2.0), "g(3.0)", 8.0),
        (torch.nn.Linear(1, 1, bias=False).requires_grad_(False), "float(g.weight.numel())", 1.0),
        (torch.float32, "g.itemsize", 4),
        (maps.normal_cdf if hasattr(maps, "normal_cdf") else np.log1p, "float(g(0.0)) >= 0", True),
    ],
    ids=["ufunc", "partial", "module", "dtype", "flowkit"],
)
def test_what_can_be_imported_there_goes_by_name(process, given, used, value):
    assert define(process, f"def f(g): return {used}")(given) == value


def test_generators_go_with_their_state(process):
    f = define(process, "def f(g): return g.random() if hasattr(g, 'random') else g.initial_seed()")
    assert f(np.random.default_rng(3)) == np.random.default_rng(3).random()
    assert f(torch.Generator().manual_seed(5)) == 5


def test_what_is_withheld_is_called_back_and_not_named():
    from flowkit import determinants

    function = next(
        v for v in vars(determinants).values() if getattr(v, "__module__", "") == determinants.__name__
    )
    with forked(withheld=["determinants"]) as process:
        assert "ref" not in process.describe(function)
    with forked() as process:
        assert "ref" in process.describe(function)


def test_what_cannot_be_sent_is_our_mistake(process):
    f = define(process, "def f(x): return 0")
    with pytest.raises(remote.OurFault, match="cannot be sent"):
        f(iter([]))


# What goes wrong.


# The pipe is among these.
EACH = "\n    for d in range(3, 64):\n        try: os.{}\n        except OSError: pass"


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(): os._exit(0)",
        "import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSEGV)",
        "import os\ndef f():" + EACH.format("write(d, b'x' * 100)"),
        "import os\ndef f():" + EACH.format("close(d)"),
    ],
    ids=["exits", "crashes", "talks nonsense", "hangs up"],
)
def test_a_process_that_dies_or_talks_nonsense_is_gone(source):
    with forked() as process:
        f = define(process, source)
        with pytest.raises(remote.Gone) as gone:
            f()
        assert gone.value.kind == "KernelDied"


def test_an_answer_that_is_too_large_is_the_student_s_error(process, monkeypatch):
    f = define(process, "import numpy as np\ndef f(n): return np.zeros(n)")
    with pytest.raises(check.StudentError, match="too large"):
        f(wire.MOST_BODY // 8 + 1)


@pytest.mark.parametrize(
    "answer",
    [
        {"found": {"f": {"value": 1}}},
        {"value": 1, "warned": [["SystemExit", "x"]]},
        {"value": 1, "warned": [3]},
        {"value": 1, "changed": b"nonsense"},
        {"value": 1, "peak": "much"},
        {"value": 1, "drew": None},
        {"error": {"kind": 3}},
        {"error": {}},
        {"answers": [3]},
        {"answers": [{"value": 1, "moved": [{}]}]},
        {"callback": 99, "args": (), "kwargs": {}},
        {"callback": "x"},
        [1],
        None,
        {},
    ],
    ids=repr,
)
def test_a_forged_answer_is_a_value_an_error_or_the_end(answer):
    """Nothing that a student's process says makes the examiner fail."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(wire.pack({}) + wire.pack(answer))
        process = remote.Process(near, "seed", time.monotonic() + 1)
        try:
            assert process.call(remote.Callable_(process, 0, "f"), (), {}) in (1, None)
        except (remote.Gone, check.StudentError):
            assert "value" not in (answer or ()) or len(answer) == 2


def test_requests_that_are_expected_are_answered_in_their_order():
    with forked() as process:
        runs = [remote.to_run(f"x = {n}; print(x)", f"cell {n}") for n in range(3)]
        look = remote.to_look(0, ["x"], [])
        process.expect([*runs, look])
        assert [process.do(request)["printed"] for request in runs] == ["0\n", "1\n", "2\n"]
        assert process.do(look)["found"] == {"x": 2}
        process.expect([remote.to_run("x = 5", "a"), look])
        assert process.look(["y", "x"]) == {"x": 5}  # what was expected is done before what was not
        assert process.is_asked([look])
        assert process.do(look)["found"] == {"x": 5}
        assert not process.is_asked([look])


def test_a_death_is_laid_to_the_request_that_it_happened_in():
    with forked() as process:
        runs = [remote.to_run(source, source) for source in ("x = 1", "import os; os._exit(0)", "y = 2")]
        process.expect(runs)
        assert process.do(runs[0])["error"] is None
        with pytest.raises(remote.Gone):
            process.do(runs[1])


@pytest.mark.parametrize(
    ("line", "text"), [(271828, "    return 1 / x"), (2, "3.14159"), (-1, ""), (3, "    return 1 / x")]
)
def test_a_line_that_no_cell_has_is_not_told(line, text):
    with forked() as process:
        process.run("def f(x):\n    return 1 / x", "f")
        assert process._is_line(2, "    return 1 / x")
        assert not process._is_line(line, text)
