"""What a hidden test says tells nothing of its inputs, whatever a student's function makes of them."""

import numpy as np
import pytest

from autograder import check, diagnosis
from flowkit import Bijection

SECRETS = 8675.0, 4242.0


@pytest.fixture(autouse=True)
def fresh_kernel():
    check._passed.clear()
    check._failures.clear()


def fails(test):
    """All that the test says when it fails three times, and so says more and more."""
    said = []
    for _ in range(3):
        with pytest.raises(check.Outcome) as caught:
            test()
        said.append("\n".join([str(caught.value), *caught.value._render_traceback_()]))
    return "\n".join(said)


def says(student, secret, reference=lambda x: 2 * x):
    """What a test of several inputs says, one of them the secret."""
    check._failures.clear()
    cases = [(np.arange(3.0),), (np.full((2, 2), secret),), (np.array(secret),)]
    return fails(lambda: values(student, cases, reference))


def values(student, cases, reference):
    names = {"check": check, "answer": student, "cases": cases, "reference": reference}
    exec("check.values('nowhere.answer', cases, reference)", names)


def when_secret(disguise):
    return lambda x: disguise(float(x)) if np.ndim(x) == 0 else 2 * x


def raised(error):
    raise error


def warned(x):
    np.log(np.array(-x))
    import warnings

    warnings.warn(f"it was {x}", stacklevel=1)
    return np.array(np.nan)


DISGUISES = {
    "itself": lambda x: np.array(x),
    "a number": lambda x: x,
    "a word": lambda x: f"it was {x}",
    "a shape": lambda x: np.zeros(int(x)),
    "a list": lambda x: [x],
    "a length": lambda x: (0,) * int(x),
    "a key": lambda x: {x: 0},
    "a type": lambda x: type(f"was_{int(x)}", (), {})(),
    "a function": lambda x: type(lambda: 0)((lambda: 0).__code__, {}, f"was_{int(x)}"),
    "an error's text": lambda x: raised(ValueError(f"it was {x}")),
    "an error's type": lambda x: raised(type(f"was_{int(x)}", (Exception,), {})()),
    "a word of a stub": lambda x: raised(NotImplementedError(f"it was {x}")),
    "NaN and a warning": warned,
}


@pytest.mark.parametrize("name", DISGUISES)
def test_no_disguise_of_an_input_is_shown(name, monkeypatch):
    student = when_secret(DISGUISES[name])
    here = [says(student, secret) for secret in SECRETS]
    assert here[0] != here[1]  # in public a message is to be told from
    monkeypatch.setenv(check.HIDDEN, "1")
    hidden = [says(student, secret) for secret in SECRETS]
    assert hidden[0] == hidden[1]
    assert str(int(SECRETS[0])) not in hidden[0]


@pytest.mark.parametrize(
    "student",
    [
        lambda x: x + 1,  # everywhere
        lambda x: np.ones(np.shape(x)),
        lambda x: np.where(x > 1, x, 2 * x),  # at some entries
        lambda x: 2 * x[..., None],
        lambda x: (2 * x).astype(np.float32),
        lambda x: np.where(x > 100, 1 / (x * 0), 2 * x),
        lambda x: x.__imul__(2),
    ],
)
def test_nor_what_comes_of_all_inputs(student, monkeypatch):
    monkeypatch.setenv(check.HIDDEN, "1")
    with np.errstate(all="ignore"):
        hidden = [says(student, secret) for secret in SECRETS]
    assert hidden[0] == hidden[1]


@pytest.mark.parametrize(
    ("disguise", "reference"),
    [
        (lambda x: f"it was {x}", lambda x: "a word"),
        (lambda x: [x], lambda x: [1, 2]),
        (lambda x: {x: 1}, lambda x: {"a": 1}),
        (lambda x: x, lambda x: True),
        (lambda x: (x, x), lambda x: (1, 2, 3)),
        (lambda x: (1.0, x), lambda x: (1.0, 2.0)),
    ],
)
def test_nor_in_the_place_of_words_and_lists(disguise, reference, monkeypatch):
    alone = [[(np.array(secret),)] for secret in SECRETS]
    here = [fails(lambda c=cases: values(disguise, c, reference)) for cases in alone]
    assert here[0] != here[1]
    monkeypatch.setenv(check.HIDDEN, "1")
    hidden = [fails(lambda c=cases: values(disguise, c, reference)) for cases in alone]
    assert hidden[0] == hidden[1]


def test_a_function_among_the_arguments_is_not_described(monkeypatch):
    def secret_slope(x):
        return x

    def tells(x, f):
        return f"{f.__name__} {f.__code__.co_consts}"

    def both():
        values(tells, [(np.ones(2), secret_slope)], lambda x, f: f(x))

    assert "secret_slope" in fails(both)
    monkeypatch.setenv(check.HIDDEN, "1")
    assert "secret_slope" not in fails(both)


def test_of_a_judge_s_sentence_stays_what_its_source_says(monkeypatch):
    test = """
def by_how_much(returned):
    return f"It is off by {returned}. Does the loss fall?"

def judge(returned, x):
    return by_how_much(returned) if returned != 7 else "Seven is no answer."

check.that("nowhere.answer", judge, [(secret,)])
"""

    def told(student, secret=0):
        names = {"check": check, "answer": student, "secret": secret}
        check._failures.clear()
        with pytest.raises(check.NotRight) as caught:
            exec(compile(test, "<test>", "exec"), names)
        return caught.value.message

    assert told(lambda x: f"it was {x}", 8675) == "It is off by it was 8675. Does the loss fall?"
    monkeypatch.setenv(check.HIDDEN, "1")
    assert told(lambda x: f"it was {x}", 8675) == "It is off by …. Does the loss fall?"
    assert told(lambda x: "It is off by " * x, 3) == told(lambda x: "It is off by " * x, 5)
    assert told(lambda x: 7) == "Seven is no answer."
    wrong_kind = check._as_written("no word of it", lambda returned: None)
    assert wrong_kind == ""


class Shift(Bijection):
    """By so much that a round trip tells it."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x, context=None):
        return x + self.by, x.new_zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return z - 2 * self.by, z.new_zeros(z.shape[:-1])


def test_a_broken_law_is_named_and_no_more(monkeypatch):
    def told(secret):
        names = {"check": check, "answer": Shift, "make": lambda found: found(secret)}
        return fails(lambda: exec("check.bijection('nowhere.answer', make, 2)", names))

    assert told(8675.0) != told(4242.0)
    monkeypatch.setenv(check.HIDDEN, "1")
    check._failures.clear()
    first = told(8675.0)
    check._failures.clear()
    assert first == told(4242.0)
    assert "The law 'round trip' is broken" in first


def test_what_helps_without_telling_is_still_said(monkeypatch):
    monkeypatch.setenv(check.HIDDEN, "1")
    assert "the opposite" in says(lambda x: -2 * x, 3.0)
    assert "The last axis was kept with length 1" in says(lambda x: 2 * x[..., None], 3.0)
    assert "wrong when the inputs are large" in says(lambda x: 2 * x + 0.3 * (x > 20), 3000.0)
    assert "right for 2 of 3 inputs that only the grader sees" in says(
        lambda x: 2 * x + np.exp(x) * (x.ndim == 0), 3.0
    )
    assert "raised IndexError." in says(lambda x: x[..., 7], 3.0)
    pairs = says(lambda x: (x, -2 * x), 3.0, lambda x: (x, 2 * x))
    assert "Only part 2 of the answer is wrong. The size is right everywhere" in pairs


def test_a_finding_without_words_for_hidden_tests_says_the_neutral_sentence(monkeypatch):
    finding = diagnosis.Finding("new", ("It returned 8675.",))
    monkeypatch.setenv(check.HIDDEN, "1")
    with pytest.raises(check.NotRight) as caught:
        check._fail("nowhere.answer", check.NotRight, finding)
    assert caught.value.message == diagnosis.UNSEEN


def test_an_error_from_another_process_says_nothing_in_a_hidden_test(monkeypatch):
    """Plain assertions show what a function raised; a class of the student's may be called NotRight, too."""
    here = check.StudentError("NotRight", "it was 8675", 2, "    raise NotRight")
    assert (here.kind, str(here)) == ("NotRight", "it was 8675")
    monkeypatch.setenv(check.HIDDEN, "1")
    hidden = check.StudentError("NotRight", "it was 8675", 2, "    raise NotRight")
    assert (hidden.kind, str(hidden), hidden.line) == ("an exception of its own", "", 2)
    assert check.StudentError("KeyError", "8675").kind == "KeyError"
