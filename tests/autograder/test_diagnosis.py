"""Each slip of the field, made on purpose, is told for what it is; what is right is not refused."""

import math

import numpy as np
import pytest
import torch

from autograder import answers, check, diagnosis
from autograder.answers import Bank, right, wrong

RNG = np.random.default_rng(0)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@pytest.fixture(autouse=True)
def fresh_kernel():
    check._passed.clear()
    check._failures.clear()


def log_density(x, slope):
    """A diagonal Gaussian under x -> slope * x: the reference of most tests here."""
    z = slope * x
    return -0.5 * (z * z).sum(-1) + x.shape[-1] * (math.log(abs(slope)) - HALF_LOG_2PI)


POINTS = [(RNG.normal(size=(5, 3)), 2.0), (RNG.normal(size=(1, 1)), -0.5), (RNG.normal(size=(2, 3, 7)), 0.3)]


def finding(student, cases=POINTS, reference=log_density, exercise="nowhere.answer", **options):
    """What a check says of an answer, or None when it is right."""
    namespace = {
        "check": check,
        "answer": student,
        "arguments": (exercise, cases, reference),
        "options": options,
    }
    try:
        exec("check.values(*arguments, **options)", namespace)
    except check.Outcome as outcome:
        return outcome
    return None


def of(transform):
    return lambda x, slope: transform(log_density(x, slope), x, slope)


@pytest.mark.parametrize(
    ("kind", "student"),
    [
        ("none", lambda x, slope: print(end="")),
        ("type", of(lambda e, x, s: e.tolist() if e.ndim == 1 else e)),
        ("type", of(lambda e, x, s: "0.3")),
        ("type", of(lambda e, x, s: torch.from_numpy(e))),
        ("type", of(lambda e, x, s: (e, e))),
        ("dtype", of(lambda e, x, s: e.astype(np.float32))),
        ("dtype", of(lambda e, x, s: e.astype(int))),
        ("shape", of(lambda e, x, s: e.sum())),
        ("shape", of(lambda e, x, s: float(e.sum()))),
        ("shape", of(lambda e, x, s: e[..., None])),
        ("shape", of(lambda e, x, s: e[None])),
        ("shape", lambda x, slope: -0.5 * (slope * x) ** 2 + math.log(abs(slope)) - HALF_LOG_2PI),
        ("nan", of(lambda e, x, s: e + np.log(np.float64(s)) - np.log(abs(s)))),
        ("nan", of(lambda e, x, s: np.where(x[..., 0] > 0, e, -np.inf))),
        ("sign", of(lambda e, x, s: -e)),
        ("log_missing", of(lambda e, x, s: np.exp(e))),
        ("log_missing_and_sign", of(lambda e, x, s: np.exp(-e))),
        ("reciprocal", of(lambda e, x, s: 1 / e)),
        ("mean_dims", of(lambda e, x, s: e / x.shape[-1])),
        ("sum_dims", of(lambda e, x, s: e * x.shape[-1])),
        ("mean_points", of(lambda e, x, s: e / e.size)),
        ("sum_points", of(lambda e, x, s: e * e.size)),
        ("twice", of(lambda e, x, s: 2 * e)),
        ("half", of(lambda e, x, s: e / 2)),
        ("square", of(lambda e, x, s: e * e)),
        ("complement", of(lambda e, x, s: 1 - e)),
        ("summed_points", of(lambda e, x, s: np.full_like(e, e.sum()))),
        ("reversed_dims", of(lambda e, x, s: e[..., ::-1])),
        ("constant", of(lambda e, x, s: e + 3)),
        ("factor", of(lambda e, x, s: e * 1.7)),
        ("same_number", of(lambda e, x, s: np.zeros_like(e))),
        ("some_inputs", of(lambda e, x, s: e + (s < 0))),
        ("some_inputs", of(lambda e, x, s: e * 1.3 if x.ndim > 2 else e)),
        ("some_entries", of(lambda e, x, s: np.where(np.arange(e.size).reshape(e.shape) % 2, e, e - e**3))),
        ("plain", of(lambda e, x, s: np.sin(e) + x[..., 0])),
    ],
)
def test_slips(kind, student):
    found = finding(student)
    assert found.kind == kind, str(found)


@pytest.mark.parametrize(
    ("words", "student"),
    [
        ("Each point, or row, has a value of its own", of(lambda e, x, s: e.sum())),
        ("The last axis was kept with length 1", of(lambda e, x, s: e[..., None])),
        (
            "one value for each dimension of each point",
            lambda x, slope: -0.5 * (slope * x) ** 2 + math.log(abs(slope)) - HALF_LOG_2PI,
        ),
        ("The last axis is gone", of(lambda e, x, s: e.sum(-1) if e.ndim > 1 else e)),
        ("an extra axis of length 1 in front", of(lambda e, x, s: e[None])),
        ("float32 where float64 went in", of(lambda e, x, s: e.astype(np.float32))),
        ("wrong when slope is negative", of(lambda e, x, s: e + (s < 0))),
        ("It happens when slope is negative", of(lambda e, x, s: e * np.log(np.float64(s)))),
        (
            "wrong when the input has more than two axes",
            of(lambda e, x, s: e * 1.3 if x.ndim > 2 else e),
        ),
        ("and in one dimension (D = 1)", of(lambda e, x, s: e * 1.3 if x.shape[-1] == 1 else e)),
        ("Does the density still integrate to one?", of(lambda e, x, s: e + HALF_LOG_2PI)),
    ],
)
def test_words(words, student):
    assert words in finding(student).message


def test_inputs_that_have_names_are_called_by_them():
    cases = [(name, RNG.normal(size=3)) for name in ("flat", "steep", "odd", "even", "tiny")]

    def says(*wrong):
        student = lambda name, x: x + (name in wrong) * x**2  # noqa: E731
        return finding(student, cases, lambda name, x: x).message

    assert "wrong when name is 'odd'." in says("odd")
    assert "wrong when name is 'flat' or 'odd'." in says("flat", "odd")
    assert "wrong unless name is 'tiny'." in says("flat", "steep", "odd", "even")


def test_one_type_wrong_and_another_right():
    cases = [(RNG.normal(size=(4, 2)).astype(t), t(2)) for t in (np.float32, np.float64)]

    def double(x, slope):
        return slope * x

    assert finding(double, cases, double) is None
    assert (
        "float64 where float32 went in"
        in finding(lambda x, s: double(x, np.array([s], float)), cases, double).message
    )
    coarse = finding(lambda x, s: double(x, s) + (x.dtype == np.float64), cases, double)
    assert "wrong when the points are float64" in coarse.message


def test_small_whole_numbers_prove_no_slip():
    cases = [(np.eye(3),), (2 * np.eye(3),)]
    assert finding(lambda x: x.sum(-1), cases[:1], lambda x: x.sum(-1) + 2).kind == "plain"
    assert finding(lambda x: x.sum(-1), cases, lambda x: 3 * x.sum(-1)).kind == "mean_dims"


def alike(one, other):
    return one.shape == other.shape and bool(np.all(np.abs(one - other) < 1e-6))


ONES = np.ones(3)
PAIRS = [(ONES + 1e-12, ONES), (ONES + 1, ONES), (np.ones(1), ONES), (ONES * np.nan, ONES), (ONES, ONES)]


@pytest.mark.parametrize(
    ("words", "student"),
    [
        ("answer returned True for every input", lambda one, other: True),
        ("answer returned True for every input", lambda one, other: np.True_),
        ("it returned True", lambda one, other: one.shape == other.shape),
        ("it returned False", lambda one, other: bool((one == other).all())),
        ("it returned True", lambda one, other: np.all(np.abs(one) - np.abs(other) < 1e-6)),
        ("returned True where False is right", lambda one, other: not alike(one, other)),
        (
            "where True or False is asked for. There is an answer for each entry",
            lambda one, other: one == other,
        ),
        (
            "returned None, where True or False is asked for. Is there a return",
            lambda one, other: False if one.shape != other.shape else None,
        ),
        ("returned a string ('yes'), where True or False is asked for", lambda one, other: "yes"),
        (
            "returned 1.0001e-12, where True or False is asked for",
            lambda one, other: np.abs(one - other).max(),
        ),
    ],
)
def test_true_and_false_are_no_numbers(words, student):
    """A boolean cannot be subtracted, and True is neither half nor minus anything."""
    assert words in finding(student, PAIRS, alike).message


def test_masks_are_no_numbers():
    cases = [(RNG.normal(size=(4, 3)),), (RNG.normal(size=(2, 2)),)]

    def positive(x):
        return x > 0

    assert finding(lambda x: x <= 0, cases, positive).kind == "exchanged"
    assert finding(lambda x: x > -9, cases, positive).kind == "some_entries"


def test_strings():
    cases = [(1.0,), (-1.0,), (2.0,)]

    def verdict(x):
        return "up" if x > 0 else "down"

    assert "returned up for every input" in finding(lambda x: "up", cases, verdict).message
    assert "an int (3), where a string is asked for" in finding(lambda x: 3, cases, verdict).message
    assert "wrong when x is negative" in finding(lambda x: "up" if x > 0 else "no", cases, verdict).message


def test_directions_are_asked_of_maps_alone():
    for exercise, asked in (("nowhere.answer", False), ("nowhere.coupling_log_det", True)):
        for transform in (lambda e: -e, lambda e: np.exp(-e), lambda e: 1 / e):
            said = []
            for _ in range(2):
                said.append(finding_of(exercise, of(lambda e, x, s, t=transform: t(e))))
            assert any(word in said[1] for word in ("direction", "dz/dx", "Which map")) == asked, said


def finding_of(exercise, student):
    namespace = {"check": check, exercise.rpartition(".")[2]: student}
    namespace["arguments"] = (exercise, POINTS, log_density)
    with pytest.raises(check.NotRight) as caught:
        exec("check.values(*arguments)", namespace)
    return caught.value.message


def test_a_value_for_each_column_is_not_taken_for_one_for_each_dimension():
    def total(x):
        return x.sum()

    cases = [(RNG.normal(size=(4, 3)),)]
    assert "one value for each dimension" not in finding(lambda x: x.sum(0), cases, total).message


def test_patterns_of_entries():
    points = [(RNG.normal(size=(4, 4)),), (RNG.normal(size=(3, 3)),)]

    def cube(x):
        return x**3

    def half_wrong(where):
        return lambda x: np.where(where(x), cube(x), np.sin(x) + 2)

    def said(where):
        return finding(half_wrong(where), points, cube).message

    assert "for the first point only" in said(lambda x: np.arange(len(x))[:, None] < 1)
    assert "for the last point only" in said(lambda x: np.arange(len(x))[:, None] > len(x) - 2)
    assert "for all points but the last" in said(lambda x: np.arange(len(x))[:, None] < len(x) - 1)
    assert "wrong where it is negative" in said(lambda x: x > 0)
    assert "wrong where it is positive" in said(lambda x: x < 0)
    assert "on the diagonal" in said(lambda x: np.eye(len(x), dtype=bool))
    assert "beside the diagonal" in said(lambda x: ~np.eye(len(x), dtype=bool))
    assert "is right at 15 of 16 entries. The first that is not is [1, 2]" in said(
        lambda x: np.arange(x.size).reshape(x.shape) != 6
    )
    at_zero = [(np.array([[0.5, -1.0], [0.0, 0.0]]),), (RNG.normal(size=(3, 2)),), (np.ones(2) / 3,)]
    unsquared = finding(lambda x: -0.5 * x.sum(-1), at_zero, lambda x: -0.5 * (x**2).sum(-1))
    assert "where the input is zero, and wrong elsewhere" in unsquared.message
    assert finding(lambda x: cube(x).T, points, cube).kind == "transposed"
    assert finding(lambda x: np.abs(cube(x)), points, cube).kind == "abs_too_many"
    assert finding(cube, points, lambda x: np.abs(cube(x))).kind == "abs_missing"


def test_in_place():
    def changes(x, slope):
        result = log_density(x, slope)
        x += 1
        return result

    found = finding(changes)
    assert found.kind == "in_place"
    assert "changes its argument x in place" in found.message
    listed = finding(lambda x: x.append(3) or np.zeros(1), [([np.zeros(2)],)], lambda x: np.zeros(1))
    assert listed is None  # a number in a list is no array, and the values are right


def test_parts_are_named():
    cases = [(RNG.normal(size=(5, 3)),)]

    def pair(x):
        return x.exp() if torch.is_tensor(x) else np.exp(x), x.sum(-1)

    assert finding(pair, cases, pair) is None
    assert finding(lambda x: list(pair(x)), cases, pair) is None
    assert finding(lambda x: (pair(x)[0], -pair(x)[1]), cases, pair).kind == "sign"
    assert "Part 2 of the answer" in finding(lambda x: (pair(x)[0], pair(x)[1][:, None]), cases, pair).message
    assert "2 values are asked for, as a tuple" in finding(lambda x: pair(x)[0], cases, pair).message
    assert "returned 3 values, where 2" in finding(lambda x: (*pair(x), 1), cases, pair).message

    def table(x):
        return {"z": x, "inner": [x, {"log_det": x.sum(-1)}]}

    assert finding(table, cases, table) is None
    assert "the keys asked for are ['z', 'inner']" in finding(lambda x: {"z": x}, cases, table).message
    nested = finding(lambda x: {"z": x, "inner": [x, {"log_det": x}]}, cases, table)
    assert "Part 'log_det' of part 2 of part 'inner' of the answer" in nested.message


def test_parts_in_another_order():
    turned = finding(lambda x: sign_and_size(x)[::-1], SIGNED, sign_and_size)
    assert turned.kind == "order"
    assert "the right values in another order" in turned.message
    assert (
        finding(lambda x: list(sign_and_size(x)[1:] + sign_and_size(x)[:1]), SIGNED, sign_and_size).kind
        == "order"
    )
    once = finding(lambda x: sign_and_size(x)[:: -1 if len(x) == 2 else 1], SIGNED, sign_and_size)
    assert once.kind != "order"  # of one input alone it explains nothing


def test_a_result_with_named_parts_is_not_taken_for_a_loop():
    matrices = [(torch.eye(2).double(),), (torch.ones(3, 3).double() + torch.eye(3),)]
    found = finding(torch.linalg.slogdet, matrices, lambda A: torch.linalg.slogdet(A).logabsdet)
    assert "Which of its named parts is meant?" in found.message


def sign_and_size(x):
    return np.sign(x), np.log(np.abs(x)), len(x)


SIGNED = [(np.array([1.5, -2.5, 4.0]),), (np.array([-0.3, 5.0]),), (np.array([-7.0, 3.5, 2.5, -0.2]),)]


@pytest.mark.parametrize(
    ("words", "transform"),
    [
        ("Only part 2 of the answer is wrong. The size is right everywhere", lambda s, e, n: (s, -e, n)),
        (
            "Only part 2 of the answer is wrong. answer returned 0 for everything",
            lambda s, e, n: (s, 0 * e, n),
        ),
        (
            "Only part 1 of the answer is wrong. The sizes are right, and the minus",
            lambda s, e, n: (s * s, e, n),
        ),
        ("Only parts 1 and 2 of the answer are wrong. The size is right", lambda s, e, n: (-s, -e, n)),
        ("It is twice what it should be", lambda s, e, n: (2 * s, 2 * e, 2 * n)),
        ("(parts 1 and 2 are wrong)", lambda s, e, n: (s + 0.3, e + 1.1 * s, n)),
        (
            "Only part 3 of the answer is wrong. answer is right for 1 of 3 inputs",
            lambda s, e, n: (s, e, {3: 4, 4: 1}.get(n, n)),
        ),
        (
            "Part 2 of answer's answer is right for all points but the last",
            lambda s, e, n: (s, np.append(e[:-1], 9.0), n),
        ),
    ],
)
def test_the_wrong_part_of_several_is_named(words, transform):
    """What is said of one part is not said of the others, and a slip explains every part that is wrong."""
    outcome = finding(lambda x: transform(*sign_and_size(x)), SIGNED, sign_and_size)
    assert words in outcome.message
    assert "square" not in outcome.message


def test_how_many_items_a_list_has_may_be_the_answer():
    def negative(x):
        return [str(number) for number in x if number < 0]

    assert finding(lambda x: tuple(negative(x)), SIGNED, negative) is None
    one_more = finding(lambda x: [*negative(x), "4.0"], SIGNED, negative).message
    assert "a list of 2 items, ['-2.5', '4.0'], where another number of items is right" in one_more
    assert "returned an empty list, where" in finding(lambda x: [], SIGNED, negative).message
    assert (
        "a set ({'-2.5'}), where a list is asked for"
        in finding(lambda x: set(negative(x)), SIGNED, negative).message
    )


def test_true_and_false_tell_inputs_apart_by_their_names():
    cases = [(np.arange(3.0), flag, kind) for flag in (False, True) for kind in ("mean", "sum")]

    def total(x, squared, kind):
        return getattr(x**2 if squared else x, kind)()

    said = finding(lambda x, squared, kind: total(x, False, kind), cases, total).message
    assert "wrong when squared is True" in said
    assert "wrong when kind is 'sum'" in finding(lambda x, s, k: total(x, s, "mean"), cases, total).message


@pytest.mark.parametrize(
    "wrap", [float, np.float64, np.asarray, lambda v: torch.tensor(float(v)), np.float32]
)
def test_a_scalar_is_a_scalar(wrap):
    assert finding(lambda x: wrap(x.sum()), [(np.arange(3.0),)], lambda x: x.sum()) is None
    assert finding(lambda x: wrap(x.sum()), [(np.arange(3.0),)], lambda x: float(x.sum())) is None


def test_tensors_gradients_and_tolerance():
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    weight = torch.ones(3, requires_grad=True)
    cases = [(x, weight), (x.double(), weight.detach().double()), (x.half(), weight.detach().half())]

    def apply(x, weight):
        return (x * weight).exp()

    assert finding(apply, cases, apply) is None
    assert finding(lambda x, w: apply(x, w) * (1 + 1e-5), cases[:1], apply) is None
    assert finding(lambda x, w: apply(x, w) * (1 + 1e-5), cases[1:2], apply).kind == "factor"
    assert finding(lambda x, w: apply(x, w) * (1 + 1e-5), cases[1:2], apply, rtol=1e-4) is None
    assert finding(lambda x, w: apply(x, w).numpy(force=True), cases[:1], apply).kind == "type"
    assert finding(lambda x, w: x.mul_(2) and None, [cases[0]], lambda x, w: x).kind in (
        "none",
        "error:RuntimeError",
    )
    assert weight.grad is None


@pytest.mark.parametrize(
    ("cut", "kind"),
    [
        (lambda value, log_det: (value, log_det), None),
        (lambda value, log_det: (value.detach(), log_det), "gradient"),
        (lambda value, log_det: (value, log_det.item()), "gradient"),
        (lambda value, log_det: (value.detach(), log_det + 1), "plain"),  # what is wrong comes first
        (lambda value, log_det: (value.detach().double(), log_det), "dtype"),
    ],
)
def test_right_values_that_are_cut_off_from_gradients(cut, kind):
    cases = [(torch.ones(3),), (torch.arange(3.0).requires_grad_(),)]

    def reference(x):
        return x * x, x.sum()

    found = finding(lambda x: cut(*reference(x)), cases, reference)
    assert (found and found.kind) == kind
    if kind == "gradient":
        assert "no gradient can flow back" in found.message


def test_gradients_are_asked_for_where_the_inputs_ask():
    cases = [(torch.ones(3),)]
    assert finding(lambda x: (x * x).detach(), cases, lambda x: x * x) is None


def test_nan_where_nan_is_right():
    cases = [(np.array([0.0, 1.0, -1.0]),)]
    with np.errstate(all="ignore"):
        assert finding(np.log, cases, np.log) is None
    assert finding(lambda x: np.where(x < 0, 0.0, np.log(np.maximum(x, 1e-300))), cases, np.log) is not None


def test_warnings_help_to_find_a_nan():
    student = of(lambda e, x, s: e + np.log(np.minimum(x[..., 0] * 0, 0)))
    finding(student)
    assert "Python warned: RuntimeWarning: divide by zero" in finding(student).message


# Named wrong answers.


@pytest.fixture
def bank(monkeypatch):
    """A bank for the topic "nowhere", with wrong answers to the exercise "answer"."""
    monkeypatch.setattr(answers, "_banks", {"nowhere": Bank("nowhere")})
    monkeypatch.setattr(answers, "bank", lambda topic: answers._banks.get(topic, Bank(topic)))

    def declare(decorator, function, name):
        function.__module__, function.__name__ = "autograder.answers.nowhere", name
        return decorator(function)

    return declare


def test_a_named_wrong_answer_comes_first_and_escalates(bank):
    bank(wrong("answer", "raised"), lambda x, slope: 1 / 0, "raises")
    bank(wrong("answer", "another"), of(lambda e, x, s: e + 1 if x.ndim == 2 else e), "partly")
    bank(wrong("answer", "first", "second", "third"), of(lambda e, x, s: -e), "inverse")
    student = of(lambda e, x, s: -e + 1e-12)
    bank(wrong("answer", "it is one more"), of(lambda e, x, s: e + 1), "one_more")
    one_more = of(lambda e, x, s: e + 1)
    assert finding(one_more).message == "it is one more"
    assert finding(one_more).message == f"it is one more\n{diagnosis.MORE}"
    assert [finding(student).message for _ in range(4)] == [
        "first",
        "first\nsecond",
        "first\nsecond\nthird",
        "first\nsecond\nthird",
    ]
    assert finding(student).kind == "named:inverse"
    assert finding(of(lambda e, x, s: 1 - e)).kind == "complement"


def test_a_wrong_answer_with_right_values_is_told_by_what_it_changes(bank):
    def changes(x, slope):
        result = log_density(x, slope)
        x *= 0
        return result

    bank(wrong("answer", "right here, wrong elsewhere"), of(lambda e, x, s: e), "harmless")
    assert finding(changes).kind == "in_place"
    bank(wrong("answer", "told by what came back", when=lambda returned, *args: True), log_density, "told")
    assert finding(changes).kind == "in_place"  # what came back may be right: no word of it, then
    bank(wrong("answer", "you write into x"), changes, "changes")
    assert finding(changes).message == "you write into x"


def test_a_predicate_recognises_without_running_again(bank):
    def slow(x, slope):
        raise AssertionError("run again")

    told = wrong("answer", "all the same", when=lambda returned, x, slope: np.ptp(returned) == 0)
    bank(told, slow, "constant")
    assert finding(of(lambda e, x, s: np.full_like(e, 7.0))).message == "all the same"
    assert finding(of(lambda e, x, s: -e)).kind == "sign"


def test_random_answers_are_recognised_by_their_draws(bank):
    def noisy(x, slope):
        return log_density(x, slope) + np.random.normal(size=x.shape[:-1])  # noqa: NPY002

    bank(right("answer"), of(lambda e, x, s: e), "other")
    bank(wrong("answer", "it is noisy"), noisy, "noisy")
    assert finding(noisy).message == "it is noisy"


def test_a_bank_that_needs_what_is_not_installed_is_not_asked(monkeypatch):
    def missing(topic):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(answers, "bank", missing)
    assert finding(of(lambda e, x, s: -e)).kind == "sign"


# Bijections.


class Scale(torch.nn.Module):
    """z = x exp(a), with a log-det that a test may spoil."""

    signs = (1, -1)

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        return x * self.a.exp(), self.signs[0] * self.a.sum().expand(x.shape[:-1])

    def inverse(self, z, context=None):
        return z * (-self.a).exp(), self.signs[1] * self.a.sum().expand(z.shape[:-1])


class Swapped(Scale):
    signs = (-1, 1)


def law_told(student):
    namespace = {"check": check, "answer": student}
    try:
        exec("check.bijection('nowhere.answer', lambda Answer: Answer(), 2, draws=1)", namespace)
    except check.Outcome as outcome:
        return outcome
    return None


def test_bijections(bank):
    class Forward(Scale):
        def inverse(self, z, context=None):
            raise NotImplementedError

    class Broken(Scale):
        def forward(self, x, context=None):
            return self.nothing

    assert law_told(Scale) is None
    found = law_told(Swapped)
    assert (found.outcome, found.kind) == ("not right yet", "law:log-det of forward")
    assert law_told(Forward).outcome == "not attempted"
    assert law_told(Broken).kind == "error:AttributeError"
    bank(
        wrong("answer", "the log-det of the other direction"),
        type("Other", (Swapped,), {}),
        "other_direction",
    )
    assert law_told(Swapped).message == "the log-det of the other direction"


def test_every_slip_is_made_on_purpose_above():
    made = {mark.args[1][i][0] for mark in test_slips.pytestmark for i in range(len(mark.args[1]))}
    elsewhere = {"transposed", "abs_too_many", "exp_missing", "root", "negative_abs"}
    assert {slip.kind for slip in diagnosis.SLIPS} <= made | elsewhere


@pytest.mark.parametrize(
    ("kind", "transform"),
    [("exp_missing", np.log), ("root", np.sqrt), ("negative_abs", lambda e: -np.abs(e))],
)
def test_slips_of_positive_answers(kind, transform):
    cases = [(RNG.normal(size=(4, 2)),), (RNG.normal(size=(3, 2)),)]
    sign = -1 if kind == "negative_abs" else 1

    def reference(x):
        values = np.exp(x).sum(-1)
        return values * np.where(np.arange(len(x)) % 2, sign, 1)

    assert finding(lambda x: transform(reference(x)), cases, reference).kind == kind


@pytest.mark.parametrize(
    ("matrix", "sizes", "asked"),
    [
        (np.diag([4.5, 2.0, 7.0, 5.0, 3.0]), [2, 3], "by hand?"),
        (np.diag([4.5, 2.0, 7.0, 5.0, 3.0, 8.0]), [2, 4], "small enough for paper"),
        (np.diag([4.5, 2.0, 7.0]), [1] * 30, "small enough for paper"),
    ],
)
def test_only_what_is_shown_whole_is_to_be_worked_out_by_hand(matrix, sizes, asked):
    said = finding(lambda matrix, sizes: 10.3, [(matrix, sizes)], lambda matrix, sizes: matrix.sum()).message
    shown = all(f"{entry:.4g}" in said for entry in np.diag(matrix)) and "..." not in said
    assert asked in said
    assert shown == (asked == "by hand?")
