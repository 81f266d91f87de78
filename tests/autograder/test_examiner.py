"""The examiner's side: what test cells give, and that whatever a submission does costs only what does it."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from rooms import require

from autograder import compare, examiner, wire
from autograder.build import HIDDEN
from autograder.engine import ERROR, RIGHT, UNTOUCHED, WRONG, EngineFailure, Mended
from autograder.isolated import OpenEngine
from autograder.lesson import read_test

SQUARE_TEST = """\
from autograder import check
check.values("toy.square", [(3,), (-2.0,)], lambda x: x * x)
"""
SQUARE_HIDDEN = """\
### BEGIN HIDDEN TESTS
from autograder import check
rng = check.rng("toy.square")
check.values("toy.square", [(float(rng.normal()),)], lambda x: x * x)
### END HIDDEN TESTS
"""
CUBE_TEST = """\
import math
from autograder import check
check.values("toy.cube", [(2.0,), (3.0,)], lambda x: math.pow(x, 3))
"""
PLAIN_TEST = """\
assert square(2) == 4
assert half == 0.5, "half is not a half"
"""
SQUARE = "def square(x):\n    return x * x"
CUBE = "def cube(x):\n    return x ** 3"


def code(source, name=None, points=None, solution=False):
    metadata = {}
    if name:
        metadata["nbgrader"] = {
            "grade_id": name,
            "grade": points is not None,
            "solution": solution,
            "locked": points is not None,
            "schema_version": 3,
            "task": False,
            **({"points": points} if points is not None else {}),
        }
    return {
        "cell_type": "code",
        "id": (name or "given").replace("_", "-"),
        "metadata": metadata,
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def notebook(square=SQUARE, cube=CUBE, given="import math", tests=()):
    cells = [
        code(given),
        code(square, "square", solution=True),
        code(SQUARE_TEST, "square_test", 1),
        code(SQUARE_HIDDEN, "square_hidden", 2),
        code(cube, "cube", solution=True),
        code(CUBE_TEST, "cube_test", 3),
        *tests,
    ]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


class Toy:
    """A course of one small lesson, and its engine."""

    def __init__(self, folder: Path, timeout=20, engine=OpenEngine, tests=()):
        self.tests = tests
        path = folder / "source" / "01_toy" / "toy.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook(tests=tests)))
        self.engine = engine(folder / "source", timeout)

    def grade(self, square=SQUARE, cube=CUBE, given="import math", seed="5eed"):
        graded = notebook(square, cube, given, self.tests)
        return self.engine.grade(Mended("ann", "01_toy", "toy", graded, seed))

    def outcomes(self, *args, **kwargs):
        return {check.grade_id: check.outcome for check in self.grade(*args, **kwargs)[0]}

    def messages(self, *args, **kwargs):
        return {check.grade_id: check.message for check in self.grade(*args, **kwargs)[0]}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    made = Toy(tmp_path_factory.mktemp("toy"))
    yield made
    made.engine.close()


@pytest.fixture
def special(tmp_path):
    """Makes a toy with tests, an engine or a time limit of its own."""
    made = []

    def make(**options):
        made.append(Toy(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()


def every(outcome, **others):
    return {"square_test": outcome, "square_hidden": outcome, "cube_test": RIGHT} | others


def test_right_answers_get_full_marks(toy):
    checks, graded = toy.grade()
    assert {check.grade_id: check.score for check in checks} == {
        "square_test": 1.0,
        "square_hidden": 2.0,
        "cube_test": 3.0,
    }
    assert [check.hidden for check in checks] == [False, True, False]
    outputs = {
        cell["metadata"].get("nbgrader", {}).get("grade_id"): cell["outputs"] for cell in graded["cells"]
    }
    assert "✓ Right: square passes its 2 public checks" in outputs["square_test"][0]["text"]


def test_a_check_says_how_long_its_cell_ran(toy):
    slow = SQUARE.replace("def square", "import time\ndef square", 1).replace(
        "return", "time.sleep(0.1)\n    return"
    )
    assert slow != SQUARE
    taken = {check.grade_id: check.seconds for check in toy.grade(slow)[0]}
    assert taken["square_test"] >= 0.1 > taken["cube_test"] > 0


@pytest.mark.parametrize(
    ("square", "outcome", "said"),
    [
        ("def square(x):\n    return -x * x", WRONG, "Not right yet: square"),
        ("def square(x):\n    return x / 0", ERROR, "square raised ZeroDivisionError: division by zero"),
        ("def square(x):\n    return x / 0", ERROR, "Your line 2:  return x / 0"),
        ("def square(x):\n    print(x)", WRONG, "Is there a return"),
        ("def square(x):\n    raise NotImplementedError", UNTOUCHED, "still to be written"),
        ("def square(x):\n    ...", UNTOUCHED, "still empty"),
        ("", UNTOUCHED, "There is no square yet"),
        (
            "def square(x:\n",
            ERROR,
            "there is no square. SyntaxError: '(' was never closed (line 1 of the cell).",
        ),
        (
            "import flowkit.nothing\n" + SQUARE,
            ERROR,
            "for what that module holds, so it is not there when work",
        ),
        ("def area(x):\n    return x * x", UNTOUCHED, "if you renamed square"),
        ("square = 3", WRONG, "should be a function"),
        ("import sys\ndef square(x):\n    sys.exit()", ERROR, "calls exit()"),
    ],
)
def test_each_outcome_and_the_next_exercise_is_right(toy, square, outcome, said):
    assert toy.outcomes(square) == every(outcome)
    assert said in toy.messages(square)["square_test"]


DIES = {
    "while it is defined": "import os\nos._exit(0)\n" + SQUARE,
    "while it is called": "import os\ndef square(x):\n    os._exit(0)",
    "by a crash": "import ctypes\ndef square(x):\n    ctypes.string_at(0)",
    "when asked for": "import os\nclass S:\n    def __call__(self, x): os.abort()\nsquare = S()",
    "by a thread": "import os, threading, time\ndef square(x):\n"
    "    threading.Thread(target=os._exit, args=(1,)).start()\n    time.sleep(9)",
}


@pytest.mark.parametrize("how", DIES)
def test_a_death_costs_that_exercise_alone(toy, how):
    outcomes = toy.outcomes(DIES[how])
    assert outcomes["cube_test"] == RIGHT
    assert outcomes["square_test"] in (ERROR, UNTOUCHED)
    assert outcomes["square_hidden"] in (ERROR, UNTOUCHED)


def test_an_endless_loop_costs_that_exercise_alone(special):
    toy = special(timeout=0.5)
    loop = "def square(x):\n    while True: pass"
    assert toy.outcomes(loop) == every(ERROR)
    assert "did not end within 0.5 seconds" in toy.messages(loop)["square_test"]
    assert toy.outcomes("while True: pass") == every(ERROR)
    said = toy.messages("while True: pass")["square_test"]
    assert "there is no square. Timeout: What ran here" in said
    assert said.endswith("Is there an endless loop?")
    assert toy.messages("raise ValueError")["square_test"].endswith("there is no square. ValueError.")
    assert set(toy.outcomes(given="while True: pass").values()) == {RIGHT}


def test_what_was_defined_before_a_death_is_still_there(toy):
    given = "import math\nbase = 2"
    dies = "import os\ndef square(x):\n    os._exit(0)"
    assert toy.outcomes(dies, "def cube(x):\n    return x ** (base + 1)", given) == every(ERROR)


def test_one_that_dies_again_and_again_ends(toy):
    always = "import os, sys\nsys.settrace(lambda *_: os._exit(0))"
    outcomes = toy.outcomes(given=always, square=DIES["while it is called"], cube="import os\nos._exit(0)")
    assert RIGHT not in outcomes.values()
    assert toy.outcomes() == every(RIGHT)


WAITS = """
import os, pathlib, time
def square(x):
    for note in pathlib.Path({folder!r}).glob("*.kill"):
        note.rename(note.with_name(f"{{os.getpid()}}.pid"))
        time.sleep(30)
    return x * x
"""


@pytest.mark.parametrize(("times", "outcome"), [(1, RIGHT), (2, ERROR)])
def test_what_is_killed_from_outside_is_done_again_once(toy, tmp_path, times, outcome):
    def kill():
        for _ in range(times):
            while not (found := list(tmp_path.glob("*.pid"))):
                time.sleep(0.01)
            found[0].unlink()
            os.kill(int(found[0].stem), signal.SIGKILL)

    for number in range(times):
        (tmp_path / f"{number}.kill").touch()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    outcomes = toy.outcomes(WAITS.format(folder=str(tmp_path)))
    killer.join()
    assert outcomes == every(RIGHT) | {"square_test": outcome}


def test_a_test_above_all_cells_finds_nothing(toy):
    moved = notebook()
    moved["cells"].insert(0, moved["cells"].pop(2))
    checks, _ = toy.engine.grade(Mended("ann", "01_toy", "toy", moved, "5eed"))
    outcomes = {check.grade_id: check.outcome for check in checks}
    assert outcomes == every(RIGHT) | {"square_test": UNTOUCHED}


def test_imports_of_a_public_test_are_there_for_later_answers(toy):
    uses = "def cube(x):\n    return check and x ** 3"
    assert toy.outcomes(cube=uses)["cube_test"] == RIGHT


def test_output_is_no_verdict(toy):
    loud = "import sys\ndef square(x):\n    print('✓ Right', 100, file=sys.stderr)\n    return x * x"
    assert toy.outcomes(loud) == every(RIGHT)
    _, graded = toy.grade(loud)
    texts = {
        cell["metadata"].get("nbgrader", {}).get("grade_id"): str(cell["outputs"]) for cell in graded["cells"]
    }
    assert "100" in texts["square_test"]
    assert "100" not in texts["square_hidden"]  # it could tell the hidden inputs


def test_tampering_with_what_compares_has_no_effect(toy):
    cheat = """
import builtins, numpy, sys
from autograder import check, compare, diagnosis
class Equal:
    def __eq__(self, other): return True
    def __bool__(self): return True
for module in (check, compare, diagnosis):
    for name, value in list(vars(module).items()):
        if callable(value):
            setattr(module, name, lambda *a, **k: None)
numpy.isclose = numpy.allclose = lambda *a, **k: numpy.True_
def square(x):
    return Equal()
"""
    assert toy.outcomes(cheat) == {"square_test": WRONG, "square_hidden": WRONG, "cube_test": RIGHT}


def test_the_hidden_test_and_its_seed_are_not_in_the_student_s_process(toy):
    spy = """
import os, gc, sys
def square(x):
    texts = [o for o in gc.get_objects() if type(o) is dict and "HIDDEN TESTS" in str(o.get("source"))]
    if texts or "AUTOGRADER_SEED" in os.environ:
        return x * x
    frame = sys._getframe()
    while frame:
        if "rng" in frame.f_globals:
            return x * x
        frame = frame.f_back
"""
    assert toy.outcomes(spy) == every(WRONG)


def test_the_same_submission_gets_the_same_draws_and_another_student_others(toy):
    noisy = "import random\ndef square(x):\n    return x * x if random.Random(str(x)).random() < 0.5 else 0"
    draws = "import random, numpy as np\nvalue = random.random(), np.random.random()\nprint(value)"
    one, again, other = (toy.grade(noisy, given=draws, seed=seed) for seed in ("a", "a", "b"))
    assert one == again
    text = [graded["cells"][0]["outputs"][0]["text"] for _, graded in (one, other)]
    assert text[0] != text[1]


def test_a_fault_of_our_own_test_is_no_zero(special):
    broken = code(
        "from autograder import check\nmissing_name\ncheck.values('toy.cube', [], abs)", "broken_test", 1
    )
    toy = special(tests=[broken])
    with pytest.raises(EngineFailure, match=r"broken_test .*NameError"):
        toy.grade()


def test_what_a_hidden_test_itself_says_of_its_inputs_stays_here(special):
    source = "import warnings\nwarnings.warn(f'input {square(3)}')\n{}[square(3)]"
    open_test, hidden = (
        code(source, "open_test", 1),
        code(f"{HIDDEN[0]}\n{source}\n{HIDDEN[1]}", "hidden_test", 1),
    )
    _, graded = special(tests=[open_test, hidden]).grade()
    said = {c["metadata"]["nbgrader"]["grade_id"]: str(c["outputs"]) for c in graded["cells"][-2:]}
    assert "input 9" in said["open_test"]
    assert "KeyError: 9" in said["open_test"]
    assert "KeyError" in said["hidden_test"]
    assert "9" not in said["hidden_test"]


def test_a_value_that_no_check_foresaw_is_the_student_s_error(toy):
    with pytest.raises(IndexError) as raised:
        compare.at((1,), [])
    assert examiner._while_comparing(raised.value)
    strange = (
        "import numpy as np\ndef square(x):\n    return {(x, 1j): {x}, float('nan'): [np.float16(x)] * 9}"
    )
    outcomes = toy.outcomes(strange)
    assert outcomes["square_test"] in (WRONG, ERROR)
    assert outcomes["cube_test"] == RIGHT


def test_an_argument_that_cannot_be_sent_is_our_fault(special):
    source = "from autograder import check\ncheck.values('toy.cube', [(iter([]),)], lambda x: 0)"
    toy = special(tests=[code(source, "iterator_test", 1)])
    with pytest.raises(EngineFailure, match=r"iterator_test .*cannot be sent"):
        toy.grade()


def test_laws_that_cannot_be_checked_from_here_are_our_fault(special):
    laws = code("from autograder import check\ncheck.bijection('toy.cube', lambda made: made, 2)", "laws", 1)
    with pytest.raises(EngineFailure, match="needs the bijection itself"):
        special(tests=[laws]).grade()


def test_a_test_of_ours_that_hangs_is_said(special):
    hangs = code("from autograder import check\nwhile True: pass", "hangs_test", 1)
    toy = special(tests=[hangs], timeout=0.3)
    with pytest.raises(EngineFailure, match="hangs_test did not end"):
        toy.grade()


def test_a_test_cell_that_the_instructor_does_not_have_is_said(toy):
    strange = Mended("ann", "01_toy", "toy", notebook(tests=[code("pass", "strange_test", 1)]), "5eed")
    with pytest.raises(EngineFailure, match="strange_test"):
        toy.engine.grade(strange)


def test_plain_asserts_are_tests_too(special):
    toy = special(tests=[code(PLAIN_TEST, "plain_test", 1)])
    assert toy.outcomes(given="half = 0.5")["plain_test"] == RIGHT
    assert toy.outcomes(given="half = 1")["plain_test"] == WRONG
    assert toy.messages(given="half = 1")["plain_test"] == "half is not a half"
    assert toy.messages(given="x = 1")["plain_test"] == "NameError: name 'half' is not defined"
    assert toy.outcomes("def square(x): return [1]", given="half = 0.5")["plain_test"] == WRONG


def test_the_submission_s_copy_of_a_test_is_not_run(toy):
    graded = notebook("def square(x): return 0")
    for cell in graded["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["source"] = "pass"
    checks, back = toy.engine.grade(Mended("ann", "01_toy", "toy", graded, "5eed"))
    assert [check.outcome for check in checks] == [WRONG, WRONG, RIGHT]
    assert "check.values" in back["cells"][2]["source"]


def test_an_examiner_that_is_lost_is_a_failure_and_the_next_submission_is_graded(toy):
    toy.grade()
    toy.engine.examiner.process.kill()
    with pytest.raises(EngineFailure, match="examiner ended"):
        toy.grade()
    assert toy.outcomes() == every(RIGHT)


def test_in_the_sandbox_it_is_the_same(special):
    from autograder.isolated import IsolatedEngine

    require(3)
    toy = special(engine=IsolatedEngine)
    assert toy.outcomes() == every(RIGHT)
    assert toy.outcomes(DIES["while it is called"]) == every(ERROR)
    assert toy.outcomes("import os\nos.fork()\n" + SQUARE) == every(ERROR)


def test_what_a_test_wants_to_know_of_the_student():
    test = read_test(
        "t",
        "import numpy as np\ndef helper(x): return student_helper(x) + np.pi\ncheck.that('toy.f', helper)",
    )
    assert {"student_helper", "f"} <= set(test.names)
    assert not {"helper", "np", "x", "print"} & set(test.names)
    assert test.imports == ["import numpy as np"]


# References whose answers are kept.

NOTED = """\
import random
from autograder import check

def reference(x):
    open({path!r}, "a").write("asked ")
    return {gives}

{above}check.values("toy.square", {cases}, reference)
"""


@pytest.mark.parametrize(
    ("gives", "cases", "above", "again"),
    [
        ("x * x", "[(3,), (4,)]", "", False),
        ("cube(x) / x", "[(3,), (4,)]", "", True),  # it asks the student
        ("x * x + 0 * random.random()", "[(3,), (4,)]", "", True),  # it draws
        ("x * x", "[(random.random(),), (4,)]", "", True),  # each student has inputs of their own
        ("x * x", "[(3,), (4,)]", "check.without('toy.square', 'numpy.linalg')\n", False),
        ("x * x", "[(3,), (4,)]", "check.values('toy.square', [(0,)], abs)\n", True),  # more is to come
    ],
    ids=["same", "asks", "draws", "inputs", "a rule", "two checks"],
)
def test_a_reference_is_not_asked_again_where_it_says_the_same_to_all(
    special, tmp_path, gives, cases, above, again
):
    path = tmp_path / "asked"
    test = code(NOTED.format(path=str(path), gives=gives, cases=cases, above=above), "noted_test", 1)
    toy = special(tests=[test])
    wrong = "def square(x):\n    return 2 * x"
    for source in (SQUARE, wrong, SQUARE):  # all is loaded now, and stays
        toy.grade(source, seed="first")
    path.write_text("")
    found = [toy.outcomes(source, seed=seed)["noted_test"] for source, seed in ((SQUARE, "a"), (wrong, "b"))]
    assert found == [RIGHT, WRONG]
    assert path.read_text().split() == ["asked"] * (4 if again else 0)


def test_a_reference_that_asks_the_student_is_asked_about_each(special):
    halved = """\
from autograder import check
check.values("toy.square", [(2.0,)], lambda x: cube(x) / 2)
"""
    toy = special(tests=[code(halved, "halved_test", 1)])
    doubled = "def cube(x):\n    return 4 * x ** 3"
    assert toy.outcomes()["halved_test"] == RIGHT
    assert toy.outcomes(cube=doubled)["halved_test"] == WRONG
    assert toy.outcomes()["halved_test"] == RIGHT


def test_what_is_kept_of_a_reference_is_each_submission_s_own_copy(special):
    told = """\
import numpy as np
from autograder import check
check.values("toy.square", [(np.arange(3.0),)], lambda x: [x * x, {"of": x}])
"""
    toy = special(tests=[code(told, "told_test", 1)])
    right = "def square(x):\n    return [x * x, {'of': x}]"
    wrong = "def square(x):\n    return [0 * x, {'of': x}]"
    found = [toy.outcomes(source)["told_test"] for source in (right, wrong, right, wrong)]
    assert found == [RIGHT, WRONG, RIGHT, WRONG]


def test_a_hidden_test_s_reference_is_asked_each_time(special, tmp_path):
    path = tmp_path / "asked"
    source = NOTED.format(path=str(path), gives="x * x", cases="[(3,)]", above="")
    toy = special(tests=[code(f"{HIDDEN[0]}\n{source}{HIDDEN[1]}", "noted_hidden", 1)])
    assert [toy.outcomes()["noted_hidden"] for _ in range(2)] == [RIGHT, RIGHT]
    assert path.read_text().split() == ["asked"] * 2


# What a hidden test gives away.


KEEPS = "seen = []\ndef square(x):\n    seen.append(x)\n    return x * x"


def test_later_cells_and_checks_cannot_tell_the_hidden_inputs(special):
    late = code(SQUARE_TEST.replace("(-2.0,)", "(-4.0,)"), "late_test", 1)
    toy = special(tests=[late])
    tells = "print('kept', len(seen))\n" + CUBE
    checks, graded = toy.grade(KEEPS, cube=tells)
    assert [check.outcome for check in checks] == [RIGHT] * 4
    outputs = {c["metadata"].get("nbgrader", {}).get("grade_id"): c["outputs"] for c in graded["cells"]}
    assert "kept 2" in outputs["cube"][0]["text"]  # those of the public test
    raises = KEEPS.replace("    return", "    if x == -4: raise ValueError(str(seen))\n    return")
    assert "[3, -2.0, 3, -4.0]" in toy.messages(raises)["late_test"]


def test_a_hidden_test_meets_the_names_as_they_were_where_it_stands(toy):
    square = "power = 2\ndef square(x):\n    return x ** power"
    again = "power = 3\ndef square(x):\n    return 0\ndef cube(x):\n    return x ** power"
    assert toy.outcomes(square, again) == every(RIGHT)
    dies = "import os\ndef cube(x):\n    os._exit(0)\npower, square = 3, None"
    assert toy.outcomes(square, dies) == every(RIGHT, cube_test=ERROR)
    assert toy.outcomes(square, "import os\npower, square = 3, None\nos._exit(0)")["square_hidden"] == RIGHT


def test_what_a_later_cell_changes_in_place_a_hidden_test_meets_changed(toy):
    """In a notebook that runs from top to bottom it would not: the exception that this order makes."""
    square = "powers = [2]\ndef square(x):\n    return x ** powers[0]"
    assert toy.outcomes(square, "powers[0] = 3\n" + CUBE) == every(RIGHT, square_hidden=WRONG)


def test_a_hidden_test_does_without_a_cell_that_dies_when_it_is_run_again(special, tmp_path):
    seen = repr(str(tmp_path / "seen"))
    twice = f"import os\nif os.path.exists({seen}): os._exit(0)\nopen({seen}, 'w').close()\n"
    outcomes = special().outcomes(twice + SQUARE, DIES["while it is called"].replace("square", "cube"))
    assert outcomes == {"square_test": RIGHT, "square_hidden": UNTOUCHED, "cube_test": ERROR}


def test_a_mistake_in_one_exercise_says_no_more_about_another(toy):
    both = "def square(x):\n    return -x * x", "def cube(x):\n    return -x ** 3"
    alone = toy.messages(cube=both[1])["cube_test"]
    assert toy.messages(both[0], both[1])["cube_test"] == alone


def test_what_an_error_says_in_a_hidden_test_is_not_told(toy):
    tells = "class Is(Exception): pass\ndef square(x):\n    raise Is(f'it is {x}')"
    said = toy.messages(tells)["square_hidden"]
    assert not re.search(r"\d\.\d", said)
    assert "Is(" in said  # the student's own line
    assert "raised an exception of its own" in said


def test_a_name_that_a_test_imports_is_never_the_student_s(special):
    spoilt = "class math:\n    pow = staticmethod(lambda a, b: 0)\ndef cube(x): return 0"
    uses = code(
        "from autograder import check\ncheck.values('toy.cube', [(2.0,)], lambda x: math.pow(x, 3))", "p", 1
    )
    toy = special(tests=[uses])
    assert toy.outcomes(cube=spoilt)["p"] == WRONG


def test_an_answer_to_an_earlier_submission_is_passed_over(toy):
    toy.grade()
    examiner_ = toy.engine.examiner
    wire.send(examiner_.pipe, wire.pack({"seed": "a", "cells": [], "number": 0}))
    assert toy.outcomes() == every(RIGHT)
