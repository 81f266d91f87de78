"""The answer bank: what may be declared, what is found, and the solution cell that an answer makes."""

import importlib
import sys
import textwrap

import numpy as np
import pytest

from autograder import answers

HEAD = """import math
import numpy as np
from math import log, exp as e
from autograder.answers import right, wrong
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Writes autograder/answers/invented.py into a folder of the test, and gives its bank."""
    monkeypatch.setattr(answers, "__path__", [*answers.__path__, str(tmp_path)])
    monkeypatch.setattr(answers, "_banks", {})

    def write(text):
        (tmp_path / "invented.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        return answers.bank("invented")

    yield write
    sys.modules.pop("autograder.answers.invented", None)


def test_a_topic_without_answers_has_an_empty_bank():
    empty = answers.bank("no_such_topic")
    assert (empty.exercises, empty.right("f"), empty.wrong("f")) == ([], [], [])


def test_an_import_that_fails_inside_a_bank_is_told(load):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load("import no_such_module")


def test_answers_in_their_order(load):
    bank = load("""
        @right("area")
        def by_sum(x): return x.sum()
        @wrong("area", "Why the mean?", "Look again.")
        def mean(x): return x.mean()
        @right("area")
        def by_dot(x): return x @ np.ones(len(x))
        @wrong("volume", "Empty.", when=lambda returned: returned == 0)
        def zero(): return 0
    """)
    assert bank.exercises == ["area", "volume"]
    assert [a.name for a in bank.right("area")] == ["by_sum", "by_dot"]
    assert [(a.name, a.messages) for a in bank.wrong("area")] == [("mean", ("Why the mean?", "Look again."))]
    assert bank.wrong("volume")[0].when(0)
    assert bank.right("area")[1].answer(np.arange(3.0)) == 3  # still an ordinary function


@pytest.mark.parametrize(
    ("declaration", "complaint"),
    [
        ('@wrong("area")', "needs messages"),
        ('@wrong("area", "")', "needs messages"),
        ('@wrong("area", "One.", "  ")', "needs messages"),
        ('@wrong("area", "One.", "One.")', "says what is said elsewhere"),
        ('@wrong("area", "Taken.")', "says what is said elsewhere"),
        ('@wrong("area", "One.", "Taken.")', "says what is said elsewhere"),
    ],
)
def test_messages_are_there_and_distinct(load, declaration, complaint):
    with pytest.raises(ValueError, match=f"bad to invented.area {complaint}"):
        load(f'@wrong("area", "Taken.")\ndef first(x): pass\n{declaration}\ndef bad(x): pass\n')


def test_a_bank_may_be_loaded_again(load):
    load('@wrong("area", "Taken.")\ndef first(x): pass\n')
    module = importlib.import_module("autograder.answers.invented")
    importlib.reload(module)
    assert len(answers.bank("invented").wrong("area")) == 1


def test_source_is_the_cell_that_a_student_would_write(load):
    bank = load('''
        @right("area")
        def by_recursion(x):
            """Sums by halves."""
            # a comment, with é and the name by_recursion
            if len(x) == 1: return x[0]
            return (by_recursion(x[: len(x) // 2])
                    + by_recursion(x[len(x) // 2 :]))  # é by_recursion
    ''')
    assert bank.right("area")[0].source() == textwrap.dedent('''\
        def area(x):
            """Sums by halves."""
            # a comment, with é and the name by_recursion
            if len(x) == 1: return x[0]
            return (area(x[: len(x) // 2])
                    + area(x[len(x) // 2 :]))  # é by_recursion
        ''')


def test_source_brings_the_imports_that_it_uses(load):
    bank = load("""
        @wrong(
            "area",
            "One.",
            when=lambda returned, x: True,
        )
        def d(x):
            def helper(y):
                return e(np.sum(y))
            return helper(x)
    """)
    source = bank.wrong("area")[0].source()
    assert source.startswith(
        "import numpy as np\nfrom math import exp as e\n\n\ndef area(x):\n    def helper(y):\n"
    )
    namespace = {}
    exec(source, namespace)
    assert namespace["area"](np.zeros(3)) == 1


def test_source_of_a_class(load):
    bank = load("""
        class Base:
            pass

        @right("Area")
        class Square(dict):
            def __init__(self):
                super(Square, self).__init__(side=2)
            def twice(self):
                return Square(), Square()
    """)
    source = bank.right("Area")[0].source()
    namespace = {}
    exec(source, namespace)
    assert namespace["Area"]().twice() == ({"side": 2}, {"side": 2})
    assert "Square" not in source


def test_an_answer_named_as_its_argument_is_refused(load):
    bank = load('@right("area")\ndef x(x):\n    return x\n')
    with pytest.raises(ValueError, match="call the answer something else"):
        bank.right("area")[0].source()
