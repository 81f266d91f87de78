"""The law checker: it accepts right flows, refuses planted bugs, and says why."""

import copy
import re
import time

import planted_bugs
import pytest
import torch
from planted_bugs import BUGS, PAGE, RIGHT
from torch import nn

from flowkit import Bijection, Compose, check_bijection
from flowkit.laws import LAWS, LawBroken, laws

CASES = [(name, dim) for name, right in RIGHT.items() for dim in right.dims]


def built(name, dim, seed):
    torch.manual_seed(seed)
    return RIGHT[name].make(dim)


@pytest.mark.parametrize("name", RIGHT)
def test_right_flows_pass(name):
    dim = RIGHT[name].dims[-1]
    check_bijection(built(name, dim, 0), dim, **RIGHT[name].options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("name", "dim"), CASES)
def test_right_flows_pass_at_every_seed(name, dim, seed):
    check_bijection(built(name, dim, seed), dim, seed=seed, **RIGHT[name].options)


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_caught(name):
    assert planted_bugs.verdict(BUGS[name])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_caught_at_every_seed(name, seed):
    assert planted_bugs.verdict(BUGS[name], seed)


@pytest.mark.slow
def test_the_published_table_is_current():
    assert PAGE.read_text() == planted_bugs.page(), "run python -m tests.flowkit.planted_bugs"


def test_the_usual_test_is_too_weak():
    alive = [name for name, bug in BUGS.items() if planted_bugs.survives_usual_test(bug)]
    assert len(alive) > len(BUGS) / 2
    assert "opposite sign" in alive


@pytest.mark.parametrize(
    ("name", "law", "words"),
    [
        ("opposite sign", "log-det of forward", "opposite sign: it belongs to the inverse map"),
        ("mean for sum", "log-det of forward", "mean over dimensions"),
        ("log forgotten", "log-det of forward", "log was forgotten"),
        ("abs forgotten", "finite values", "abs forgotten"),
        ("mask parity", "log-det of forward", "It is 0"),
        ("h w missing", "log-det of forward", "0.25 times"),
        ("epsilon in the log", "log-det of forward", "epsilon"),
        ("float64 lost", "log-det of forward", "float32"),
        ("not summed", "shape", "sum it over dimensions"),
        ("summed over the batch", "shape", "summed over the batch"),
        ("float32 log-det", "dtype", "float32"),
        ("default zeros", "dtype", "new_zeros"),
        ("constant left behind", "device", "buffers"),
        ("in place", "input untouched", "in place"),
        ("half resampled", "same every time", "random"),
        ("batch norm in train mode", "batch independence", "no mean, norm or sum may run over the batch"),
        ("norm for its square", "one to one", "folds"),
        ("clamp", "log-det of forward", "clamp"),
        ("coupling inverse at D > 2", "round trip", "Only dimensions [1, 3] are wrong"),
        ("detached root", "gradient of inverse", "detached"),
        ("NaN through where", "extreme inputs", "torch.where"),
        ("ActNorm's flag", "saved state", "buffer"),
    ],
)
def test_a_broken_law_is_told_in_words(name, law, words):
    bug = BUGS[name]
    with pytest.raises(LawBroken) as caught:
        check_bijection(bug.make(bug.dim), bug.dim, **bug.options)
    assert caught.value.law == law
    assert words in caught.value.message
    assert "float" in caught.value.message


def test_laws_gives_every_verdict():
    verdicts = laws(BUGS["opposite sign"].make(3), 3)
    assert [law for law, _ in verdicts] == list(LAWS)
    assert {law for law, message in verdicts if message} == {"log-det of forward", "log-det of inverse"}


def test_laws_that_stand_on_a_broken_one_are_not_tried():
    verdicts = dict(laws(BUGS["not summed"].make(3), 3))
    assert verdicts["runs"] is None
    assert "sum it" in verdicts["shape"]
    assert verdicts["integral"] == "not tried before 'shape' holds"


class Raises(Bijection):
    def forward(self, x, context=None):
        raise ZeroDivisionError("a slip")


def test_what_the_map_raised_is_the_cause():
    with pytest.raises(LawBroken, match="forward raised ZeroDivisionError: a slip") as caught:
        check_bijection(Raises(), 2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_missing_inverse_is_named_unless_it_is_not_wanted():
    class OneWay(planted_bugs.Affine):
        inverse = Bijection.inverse

    with pytest.raises(LawBroken, match="no inverse"):
        check_bijection(OneWay(2), 2)
    check_bijection(OneWay(2), 2, inverse=False)


def test_not_a_pair():
    class Single(planted_bugs.Shift):
        def forward(self, x, context=None):
            return x + self.t

    with pytest.raises(LawBroken, match="must return a pair"):
        check_bijection(Single(2), 2)


def test_a_python_number_is_no_log_det():
    class Number(planted_bugs.Shift):
        def forward(self, x, context=None):
            return x + self.t, 0.0

    with pytest.raises(LawBroken, match="float came back"):
        check_bijection(Number(2), 2)


def test_the_callers_map_and_generator_are_left_as_they_were():
    f = planted_bugs.fork(3)
    before, rng = copy.deepcopy(f.state_dict()), torch.get_rng_state()
    check_bijection(f, 3)
    assert all(torch.equal(value, before[key]) for key, value in f.state_dict().items())
    assert f.training
    assert all(p.grad is None for p in f.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_it_can_be_run_without_gradients_on():
    with torch.no_grad():
        check_bijection(planted_bugs.Planar(2), 2)


def test_the_same_seed_gives_the_same_verdicts():
    bug = BUGS["sech for sech^2"]
    assert laws(bug.make(3), 3, seed=5) == laws(bug.make(3), 3, seed=5)


class Positive(planted_bugs.Affine):
    """Slopes that plain noise would send through zero; it says how they are to be moved."""

    def log_det(self, x):
        return self.slope.log().sum().expand(x.shape[:-1])

    def randomize_(self, std):
        self.slope.mul_(torch.exp(std * torch.randn_like(self.slope)))
        self.shift.add_(std * torch.randn_like(self.shift))


def test_a_module_may_say_how_it_is_moved():
    check_bijection(Positive(5), 5)
    check_bijection(Compose(Positive(5), planted_bugs.Leaky()), 5)


class Deep(Compose):
    """Unbounded exp couplings with ReLU nets: right, and beyond float64 when their weights are noise."""

    def __init__(self, dim, layers, width=64):
        super().__init__(*[NetCoupling(dim, width, flip=bool(k % 2)) for k in range(layers)])


class NetCoupling(Bijection):
    def __init__(self, dim, width, flip):
        super().__init__()
        self.flip, self.half = flip, dim // 2
        self.net = nn.Sequential(nn.Linear(self.half, width), nn.ReLU(), nn.Linear(width, dim))

    def _couple(self, x, sign):
        x = x.flip(-1) if self.flip else x
        kept, moved = x[..., : self.half], x[..., self.half :]
        t, s = self.net(kept).chunk(2, -1)
        moved = moved * s.exp() + t if sign > 0 else (moved - t) * (-s).exp()
        z = torch.cat((kept, moved), -1)
        return z.flip(-1) if self.flip else z, sign * s.sum(-1)

    def forward(self, x, context=None):
        return self._couple(x, 1)

    def inverse(self, z, context=None):
        return self._couple(z, -1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_but_ill_conditioned_flows_pass(seed):
    torch.manual_seed(seed)
    check_bijection(Deep(4, layers=2), 4, seed=seed)
    check_bijection(Deep(4, layers=5), 4, seed=seed, extremes=(), draws=1)


def test_plain_objects_and_constructors():
    class Doubles:
        def forward(self, x):
            return 2 * x, x.new_full(x.shape[:-1], x.shape[-1]) * torch.log(x.new_tensor(2.0))

        def inverse(self, z):
            return z / 2, z.new_full(z.shape[:-1], -z.shape[-1]) * torch.log(z.new_tensor(2.0))

    check_bijection(Doubles(), 3)
    check_bijection(Doubles, 3)
    check_bijection(lambda: planted_bugs.Planar(3), 3)


def test_a_context_may_be_rows():
    classes = torch.eye(4, dtype=torch.float64)
    check_bijection(planted_bugs.Coupling(3, features=4), 3, context=classes)


def test_a_tolerance_may_be_given():
    class Rough(planted_bugs.Shift):
        def inverse(self, z, context=None):
            return z - self.t + 1e-6, z.new_zeros(z.shape[:-1])

    with pytest.raises(LawBroken, match="solver's tolerance"):
        check_bijection(Rough(2), 2)
    check_bijection(Rough(2), 2, tolerances={torch.float64: 1e-5})


def test_the_integral_is_tried_when_only_it_can_tell():
    """A map onto half of the line that says it is onto all of it: every derivative is right."""

    class Half(Bijection):
        def forward(self, x, context=None):
            return torch.exp(x), x.sum(-1)

        def inverse(self, z, context=None):
            z = z.abs()
            return torch.log(z), -torch.log(z).sum(-1)

    verdicts = dict(laws(Half(), 1, extremes=()))
    mass = float(re.search(r"integrates to ([0-9.]+)", verdicts["integral"])[1])
    assert abs(mass - 0.5) < 0.01


@pytest.mark.slow
def test_it_is_quick():
    f = planted_bugs.fork(2)
    check_bijection(f, 2)
    start = time.process_time()
    check_bijection(f, 2)
    assert time.process_time() - start < 1
