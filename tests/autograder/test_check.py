"""The four outcomes of a check, told alike for notebooks, for executed cells and for plain Python."""

import json
import linecache
import os
import subprocess
import sys

import numpy as np
import pytest

from autograder import check, compare
from autograder.compare import same_arrays

TEST = """
import numpy as np
from autograder import check

def reference(x, slope):
    return slope * x.sum(-1)

rng = np.random.default_rng(0)
cases = [(rng.normal(size=(4, 3)), 2.0), (rng.normal(size=(2, 1)), -1.0)]
check.values("nowhere.scaled_sum", cases, reference)
"""
THAT = """
from autograder import check

def judge(returned, n):
    return None if returned.sum() == n else f"It sums to {returned.sum():g}."

check.that("nowhere.scaled_sum", judge, [(3,), (4,)])
"""


@pytest.fixture(autouse=True)
def fresh_kernel(monkeypatch):
    """As after a restart: nothing has passed, nothing has failed, nothing is being graded."""
    check._passed.clear()
    check._failures.clear()
    monkeypatch.delenv(check.SEED, raising=False)
    monkeypatch.delenv(check.HIDDEN, raising=False)


def run(student, test=TEST, namespace=None):
    """The namespace after the student's cell and the test cell."""
    namespace = {} if namespace is None else namespace
    for name, source in (("<student>", student), ("<test>", test)):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), namespace)
    return namespace


def answer(body, arguments="x, slope"):
    return f"import numpy as np\ndef scaled_sum({arguments}):\n    {body}\n"


def outcome(student, test=TEST):
    with pytest.raises(check.Outcome) as caught:
        run(student, test)
    return caught.value


def test_right(capsys):
    run(answer("return slope * x.sum(axis=-1)"))
    assert capsys.readouterr().out == (
        "✓ Right: scaled_sum passes its 2 public checks. Hidden tests run when your work is graded.\n"
    )


def test_what_the_library_has_is_no_answer():
    taken = outcome("from flowkit.determinants import laplace as scaled_sum")
    assert taken.kind == "library"
    assert "not there when work is graded" in taken.message


def test_right_without_hidden_tests_and_while_grading(capsys, monkeypatch):
    no_hidden = TEST.replace(", reference)", ", reference, hidden=False)")
    run(answer("return slope * x.sum(axis=-1)"), no_hidden)
    assert "Hidden" not in capsys.readouterr().out
    monkeypatch.setenv(check.HIDDEN, "1")
    run(answer("return slope * x.sum(axis=-1)"))
    assert capsys.readouterr().out == "✓ Right: scaled_sum passes its 2 hidden tests.\n"


@pytest.mark.parametrize(
    ("student", "kind"),
    [
        ("", "missing"),
        (answer("raise NotImplementedError()"), "stub"),
        (answer("..."), "empty"),
        (answer("pass"), "empty"),
        (answer('"""Only a docstring."""'), "empty"),
        (answer("return ..."), "empty"),
        ("scaled_sum = ...", "empty"),
    ],
)
def test_not_attempted(student, kind):
    found = outcome(student)
    assert isinstance(found, check.NotAttempted)
    assert found.kind == kind
    assert str(found).startswith("○ Not attempted: scaled_sum\n")


@pytest.mark.parametrize(
    ("student", "kind", "line"),
    [
        (
            answer("y = x + 1\n    return y @ np.zeros(9)"),
            "ValueError",
            "Your line 4:  return y @ np.zeros(9)",
        ),
        (answer("return x @ unknown"), "NameError", "Your line 3:  return x @ unknown"),
        (
            answer("return scaled_sum(x, slope)"),
            "RecursionError",
            "Your line 3:  return scaled_sum(x, slope)",
        ),
        (answer("exit()"), "SystemExit", "scaled_sum calls exit(): a function ends with return."),
        (answer("return 1", "x"), "TypeError", "It is called as scaled_sum(x, slope)."),
        (answer("return [1][5]"), "IndexError", "Your line 3:  return [1][5]"),
    ],
)
def test_error_in_your_code(student, kind, line):
    found = outcome(student)
    assert isinstance(found, check.ErrorInYourCode)
    assert found.kind == f"error:{kind}"
    assert line in found.message
    assert "slope = 2" in found.message
    assert "check.values" not in found.message


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("return max(x)", "NumPy's own functions take an axis"),
        ("return len(x.sum())", "nor has an array of shape ()"),
        ("return x @ unknown", "Every name that a function uses"),
        ("return x.sum(axis=2)", "Counted from the end, which axis do you mean?"),
    ],
)
def test_a_second_error_is_told_what_python_meant(body, more):
    first, second = outcome(answer(body)), outcome(answer(body))
    assert more not in first.message
    assert more in second.message


def test_error_in_a_helper_of_the_test_names_the_students_line():
    slope = 'type("Slope", (float,), {"__call__": lambda self: 1 / 0})(2.0)'
    test = TEST.replace("(rng.normal(size=(4, 3)), 2.0)", f"(rng.normal(size=(4, 3)), {slope})")
    assert slope in test
    found = outcome(answer("return x * slope()"), test)
    assert "Your line 3:  return x * slope()" in found.message
    assert "lambda" not in found.message.splitlines()[1]


@pytest.mark.parametrize(
    ("student", "line"),
    [
        (answer("y = 2 * x\n    return halved(y, slope)"), "Your line 4:  return halved(y, slope)"),
        (
            "class scaled_sum:\n    def __new__(cls, x, slope):\n        return halved(x, slope)\n",
            "Your line 3:  return halved(x, slope)",
        ),
        ("import functools\nscaled_sum = functools.partial(halved)\n", "Your line 2:  return x / len(slope)"),
    ],
    ids=["in a function", "in a class", "an object without code of its own"],
)
def test_error_in_a_helper_from_another_cell_names_the_line_that_called_it(student, line):
    namespace, file = {}, "<helper>"
    helper = "def halved(x, slope):\n    return x / len(slope)\n"
    linecache.cache[file] = (len(helper), None, helper.splitlines(keepends=True), file)
    exec(compile(helper, file, "exec"), namespace)
    with pytest.raises(check.ErrorInYourCode) as caught:
        run(student, TEST, namespace)
    assert line in caught.value.message


def test_error_seen_only_elsewhere():
    """As the engine tells it: the student's function runs in another process."""
    student = (
        "from autograder import check\n"
        "def scaled_sum(x, slope):\n"
        "    raise check.StudentError('KeyError', 'no such name', 7, '    return table[slope]')\n"
    )
    found = outcome(student)
    assert (found.outcome, found.kind) == ("error in your code", "error:KeyError")
    assert "Your line 7:  return table[slope]" in found.message
    stub = student.replace("'KeyError', 'no such name'", "'NotImplementedError', ''")
    assert outcome(stub).outcome == "not attempted"


def test_an_interrupt_is_the_students_own():
    with pytest.raises(KeyboardInterrupt):
        run(answer("raise KeyboardInterrupt"))


def test_wrong_before_an_error_is_told_first():
    found = outcome(answer("assert len(x) == 4\n    return -slope * x.sum(-1)"))
    assert (found.outcome, found.kind) == ("not right yet", "sign")


def test_not_callable():
    assert outcome("scaled_sum = 3").kind == "not_callable"


def test_messages_never_show_the_expected_numbers():
    expected = f"{2 * np.random.default_rng(0).normal(size=(4, 3)).sum(-1)[0]:.3f}"
    for body in ("return np.full(len(x), 0.25)", "return slope * x.sum(-1) + x[:, 0]", "return x.sum(-1)"):
        for _ in range(3):
            assert expected not in str(outcome(answer(body)))


def test_the_second_and_third_failure_of_a_kind_say_more():
    wrong = answer("return slope * np.sin(x).sum(-1)")
    lengths = [len(outcome(wrong).message) for _ in range(4)]
    assert lengths[0] < lengths[1] < lengths[2] == lengths[3]
    assert "\n" not in outcome(answer("return -slope * x.sum(-1)")).message


def test_a_notebook_shows_the_message_and_no_traceback():
    found = outcome(answer("return -slope * x.sum(-1)"))
    shown = found._render_traceback_()
    assert shown[0] == "\x1b[1m✗ Not right yet: scaled_sum\x1b[0m"
    assert " ".join("\n".join(shown[1:]).split()) == found.message
    assert all(len(line) <= check.WIDTH for text in shown[1:] for line in text.split("\n"))


def test_warnings_do_not_fail_and_do_not_reach_stderr(capfd):
    run(answer("np.log(np.zeros(1))\n    return slope * x.sum(-1)"))
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "Right" in printed.out


def test_what_the_function_prints_stays(capsys):
    run(answer("print('shape', x.shape)\n    return slope * x.sum(-1)"))
    assert capsys.readouterr().out.startswith("shape (4, 3)\nshape (2, 1)\n")


def test_hidden_inputs_are_not_shown(monkeypatch):
    monkeypatch.setenv(check.HIDDEN, "1")
    for body in ("return slope * np.sin(x).sum(-1)", "return 1 / 0", "return slope * x * np.nan", "return x"):
        for _ in range(3):
            message = outcome(answer(body)).message
            assert "slope = " not in message
            assert "x = " not in message


def test_everybody_gets_copies_and_the_same_random_numbers():
    student = answer("x = x.copy(); x[:] = x + np.random.normal(size=x.shape); return slope * x.sum(-1)")
    noisy = TEST.replace("x.sum(-1)", "(x + np.random.normal(size=x.shape)).sum(-1)")
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    run(student, noisy)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_generator_is_copied_too():
    test = """
import numpy as np
from autograder import check
rng = np.random.default_rng(5)
check.values("nowhere.scaled_sum", [(rng, 2.0)], lambda x, slope: slope * x.normal(size=3))
assert rng.normal() == np.random.default_rng(5).normal()
"""
    run(answer("return slope * x.normal(size=3)"), test)


def test_keyword_cases_and_bad_cases():
    test = TEST.replace("(rng.normal(size=(4, 3)), 2.0)", "{'x': rng.normal(size=(4, 3)), 'slope': 2.0}")
    run(answer("return slope * x.sum(-1)"), test)
    with pytest.raises(TypeError, match="A case is a tuple of arguments"):
        run(answer("return slope * x.sum(-1)"), TEST.replace("(rng.normal(size=(2, 1)), -1.0)", "3.0"))


def test_use_calls_the_answer_as_the_author_says():
    student = "class scaled_sum:\n    def __init__(self, s): self.s = s\n    def go(self, x): return {}\n"
    test = TEST.replace(", reference)", ", reference, use=lambda Answer, x, slope: Answer(slope).go(x))")
    run(student.format("self.s * x.sum(-1)"), test)
    assert outcome(student.format("-self.s * x.sum(-1)"), test).kind == "sign"
    assert outcome(student.format("self.t"), test).kind == "error:AttributeError"


def test_that(capsys):
    run(answer("return np.eye(n)", "n"), THAT)
    assert "passes its 2 public checks" in capsys.readouterr().out
    found = outcome(answer("return np.ones(n + 1)", "n"), THAT)
    assert (found.kind, found.message) == ("judged", "It sums to 4.")
    assert outcome(answer("x = 3", "n"), THAT).message == "scaled_sum returned None. Is there a return?"
    assert outcome(answer("return 1 / 0", "n"), THAT).kind == "error:ZeroDivisionError"
    assert "returned a list of length 3, which is not of the kind asked for" in (
        outcome(answer("return [1, 1, 1]", "n"), THAT).message
    )


def test_a_judge_s_later_case_may_be_of_arrays():
    cases = "[(np.zeros(2),), (np.ones(2),)]"
    test = "import numpy as np\n" + THAT.replace("[(3,), (4,)]", cases)
    test = test.replace("returned.sum() == n", "(returned == n + 1).all()")
    wrong = answer("return np.array([1.0, 1.0])", "n")
    assert "It sums to 2." in str(outcome(wrong, test))


def test_that_judges_classes_and_lays_their_errors_to_their_account():
    judge = "def judge(made, n): return None if made.total() == n else 'No.'"
    test = THAT.replace('"It sums', '"No').split("def judge")[0] + judge + "\n"
    test += 'check.that("nowhere.scaled_sum", judge, [(3,)])\n'
    student = "class scaled_sum:\n    def __init__(self, n): self.n = n\n    def total(self): {}\n"
    run(student.format("return self.n"), test)
    assert outcome(student.format("return 0"), test).message == "No."
    assert outcome(student.format("raise NotImplementedError"), test).outcome == "not attempted"
    assert "Your line 3" in outcome(student.format("return self.m"), test).message


def test_yours_is_the_students_function_once_it_has_passed():
    ask = "found = check.yours('nowhere.scaled_sum', otherwise=max)"
    namespace = run(answer("return slope * x.sum(-1)"))
    exec(ask, namespace)
    assert namespace["found"] is namespace["scaled_sum"]
    exec(answer("return 1"), namespace)  # edited, not yet checked
    exec(ask, namespace)
    assert namespace["found"] is max
    with pytest.raises(check.NotRight):
        run(answer("return 1"), TEST, namespace)
    exec(ask, namespace)
    assert namespace["found"] is max


def test_a_cell_is_told_that_it_does_without_the_students_function(capsys):
    namespace = run(answer("return slope * x.sum(-1)"))
    capsys.readouterr()
    ask = "found = check.yours('nowhere.scaled_sum', otherwise=max)"
    exec(ask, namespace)
    assert capsys.readouterr().out == ""
    exec(answer("return 1"), namespace)
    exec(f"def draw():\n    {ask}\ndraw()", namespace)  # an interactive, which would say it with every move
    assert capsys.readouterr().out == ""
    exec(ask, namespace)
    assert capsys.readouterr().out.startswith("scaled_sum has not passed its check since the kernel started")


def test_rng_depends_on_the_student_and_the_exercise_alone(monkeypatch):
    draws = [check.rng("a.f").normal(), check.rng("a.f").normal(), check.rng("a.g").normal()]
    monkeypatch.setenv(check.SEED, "1234")
    draws += [check.rng("a.f").normal(), check.rng("a.f").normal()]
    assert draws[0] == draws[1]
    assert draws[3] == draws[4]
    assert len(set(draws)) == 3
    assert draws[0] == pytest.approx(-0.60534, abs=1e-5)  # the same on every machine, in every process


def test_check_is_light_and_needs_numpy_alone():
    program = "import sys; from autograder import check; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "IPython", "matplotlib", "nbformat", "flowkit"]
    result = subprocess.run(
        [sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_a_console_without_the_symbols_still_prints():
    program = TEST.replace(
        "from autograder import check", "from autograder import check\n" + answer("return slope * x.sum(-1)")
    )
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    assert b"? Right: scaled_sum" in result.stdout


@pytest.mark.slow
def test_in_a_kernel():
    """What Jupyter shows: one error output with the message alone, and one HTML display."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    wrong, right = answer("return -slope * x.sum(-1)"), answer("return slope * x.sum(-1)")
    broken = answer("y = x + 1\n    return y @ np.zeros(9)")
    for source in (wrong, TEST, broken, TEST, right, TEST):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute()
    first, second, third = (notebook.cells[i].outputs for i in (1, 3, 5))
    assert [(o.output_type, o.ename) for o in (*first, *second)] == [
        ("error", "NotRight"),
        ("error", "ErrorInYourCode"),
    ]
    assert "check.values" not in json.dumps([first, second])
    assert "Your line 4:  return y @ np.zeros(9)" in "\n".join(second[0].traceback)
    assert [o.output_type for o in third] == ["display_data"]
    assert third[0].data["text/html"].startswith('<div role="status"')
    assert third[0].data["text/plain"].startswith("✓ Right: scaled_sum passes")


def test_inputs_expanded_from_one_number_are_compared_bit_by_bit():
    """Their strides are zero: no bytes to look at without a copy."""
    expanded = np.broadcast_to(3.0, (50, 1))
    assert same_arrays(expanded, expanded.copy())
    assert not same_arrays(expanded, expanded + 1)


ODD = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, 1 + 1e-7, 1e4, 1e300, -1e300, 1e-300, 1e-9])


@pytest.mark.parametrize("within", [(1e-6, 1e-8), (0.0, 0.0), (1e-2, 1.0)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "int64", "bool"])
def test_numbers_agree_where_numpy_says_so(dtype, within):
    with np.errstate(all="ignore"):
        odd = (ODD[3:8] if dtype in ("int64", "bool") else ODD).astype(dtype)
        one, other = (each.ravel() for each in np.meshgrid(odd, odd))
        expected = np.isclose(*(a * 1.0 if dtype == "bool" else a for a in (one, other)), *within, True)
    assert np.array_equal(compare.close(one, other, within), expected)
    assert [bool(compare.close(a, b, within)) for a, b in zip(one, other, strict=True)] == expected.tolist()
    assert expected.any()
