"""Rules on the source: what is forbidden is found under every name that it goes by, and nothing else is."""

import linecache

import pytest
from rooms import forked, run

from autograder import check, workers
from autograder.rules import breach, doubts, in_words

WITHOUT = ("torch.linalg", "numpy.linalg.det", ".logdet")


@pytest.mark.parametrize(
    ("source", "full"),
    [
        ("import torch\ndef f(A):\n    return torch.linalg.det(A)", "torch.linalg.det"),
        ("def f(A):\n    return torch.linalg.det(A)", "torch.linalg"),
        ("import torch.linalg as L\nd = 1\ndef f(A):\n    return L.slogdet(A)", "torch.linalg"),
        ("from torch import linalg\nlinalg.det(A)", "torch.linalg"),
        ("from torch.linalg import det as d", "torch.linalg.det"),
        ("import torch as t\nL = t.linalg\nL.det(A)", "torch.linalg"),
        ("import torch\ndef f(A):\n    d = torch.linalg.det\n    return d(A)", "torch.linalg"),
        ("import torch\ngetattr(torch, 'linalg').det(A)", "torch.linalg"),
        ("np.linalg.det(A)", "numpy.linalg.det"),
        ("def f(A):\n    return A.logdet()", "logdet"),
    ],
)
def test_what_is_forbidden_is_found_under_every_name(source, full):
    line, text, found = breach(source, WITHOUT)
    assert found.startswith(full)
    assert text == source.splitlines()[line - 1].strip()


@pytest.mark.parametrize(
    "source",
    [
        "np.linalg.inv(A)",
        "# torch.linalg.det(A)\n'torch.linalg'",
        "class linalg: det = 1\nlinalg.det",
        "def f(A:\n    torch.linalg.det(A)",
        "",
    ],
)
def test_nothing_else_is(source):
    assert breach(source, WITHOUT) is None
    if not source.startswith("def f(A:"):
        assert doubts(source) == []


@pytest.mark.parametrize(
    ("source", "doubt"),
    [
        ("exec('torch.linalg.det(A)')", "exec"),
        ("eval(x)", "eval"),
        ("getattr(torch, 'lin' + 'alg')", "getattr with a computed name"),
        ("import sys\nsys.modules['torch']", "sys.modules"),
        ("import ctypes", "ctypes"),
        ("from importlib import import_module as i", "importlib"),
        ("%time f(3)", "a magic, or what is no Python"),
    ],
)
def test_what_cannot_be_read_is_listed(source, doubt):
    assert doubts(source) == [doubt]


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (("torch.linalg",), "torch.linalg"),
        (("torch.linalg", ".det"), "torch.linalg and det"),
        (("torch.linalg", "torch.det", ".det", ".inverse"), "torch.linalg, torch.det and inverse"),
    ],
)
def test_a_rule_is_said_once(without, words):
    assert in_words(without) == words


BREAKS = "def f(A):\n    return L.det(A)"
IMPORT = "from numpy import linalg as L"


def test_a_student_s_cell_that_breaks_the_rule_is_told_in_a_notebook():
    file = "<cell of f>"
    linecache.cache[file] = (len(BREAKS), None, BREAKS.splitlines(keepends=True), file)
    namespace = {"check": check}
    exec(IMPORT, namespace)
    exec(compile(BREAKS, file, "exec"), namespace)
    with pytest.raises(check.NotRight, match=r"uses numpy.linalg.det:\nreturn L.det\(A\)"):
        exec("check.without('toy.f', 'numpy.linalg')", namespace)
    exec("check.without('toy.f', 'numpy.fft')", namespace)


def test_and_in_the_engine_by_what_was_handed_in():
    with forked() as process:
        run(process, IMPORT)
        process.run(BREAKS, "f")
        namespace = {"check": check, **process.look(["f"])}
        with pytest.raises(check.NotRight, match=r"uses numpy\.linalg\.det"):
            exec("check.without('toy.f', 'numpy.linalg')", namespace)
        exec("check.without('toy.f', 'numpy.linalg.inv')", namespace)


def test_what_could_hide_a_breach_is_noted_for_a_person_and_costs_nothing():
    answer = {"cell_type": "code", "source": "exec('x')", "metadata": {"nbgrader": {"grade_id": "f"}}}
    answer["metadata"]["nbgrader"]["solution"] = True
    rule = {"cell_type": "code", "source": "check.without('toy.f', 'numpy.linalg')", "metadata": {}}
    assert workers._doubts({"cells": [answer]}) == []
    (note,) = workers._doubts({"cells": [answer, rule]})
    assert "f, whose rule" in note
    assert "exec" in note
