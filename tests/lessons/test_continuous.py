"""The numbers that lesson 17 states, on the lesson's own code."""

import builtins
import math
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from autograder.course import Course  # noqa: E402
from autograder.master import read_master, solved  # noqa: E402

COURSE = Course(Path(__file__).parents[2] / "course")


@pytest.fixture(scope="module")
def page():
    """The names that the solved notebook has at its end."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    for cell in read_master(COURSE, COURSE.lesson("continuous")).cells:
        if not cell.markdown and cell.kind not in ("test", "hidden"):
            exec(compile(solved(cell.source), f"17_continuous cell {cell.place}", "exec"), module.__dict__)
    return module


@pytest.mark.slow
def test_likelihood_and_matching_as_the_wrap_up_compares_them(page):
    (likelihood, mass), (matching, other_mass) = (
        page.results["likelihood", 200],
        page.results["matching", 5000],
    )
    assert 0 < likelihood < matching < 0.16
    assert mass == pytest.approx(1, abs=1e-3)
    assert other_mass == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_only_smooth_fields_with_fixed_noise_are_cheap(page):
    fine, coarse = page.price(torch.tanh, "none", 1e-5), page.price(torch.tanh, "none", 1e-2)
    assert 2 < fine / coarse < 5  # a tolerance a thousand times finer: "a few times as much"
    assert page.price(torch.tanh, "kept", 1e-5) < 1.2 * fine
    assert page.price(torch.relu, "none", 1e-4) > 5 * page.price(torch.tanh, "none", 1e-4)
    assert page.price(torch.tanh, "redrawn", 1e-4) == "gave up"


@pytest.mark.slow
def test_adaptive_steps_pay_where_the_field_turns_and_only_there(page):
    for name, least, most in [("two moons", 0.5, 2.0), ("a turn at t = 0.37", 10.0, 1000.0)]:
        weights, walkers = page.FIELDS[name], page.walkers
        end, _, count = page.solve_adaptive(weights, walkers, 1e-4)
        slope = page.partial(page.apply_field, weights)
        even = page.integrate(slope, walkers, 0.0, 1.0, count // 2, page.HEUN)
        gains = (even - page.truths[name]).abs().max() / (end - page.truths[name]).abs().max()
        assert least < gains < most


@pytest.mark.slow
def test_the_defect_of_the_steps_is_that_of_the_table(page):
    defect = page.step_defect(torch.tensor([[-4.0]])).item()
    assert defect == -8
    assert 1024 * math.log(1 - 4 / 1024) == pytest.approx(-4 + defect / 1024, abs=1e-4)


@pytest.mark.slow
def test_the_variances_of_both_kinds_of_probes(page):
    A = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0], [0.0, 1.0, -2.0]])
    linear = [(torch.cat([A.mT, torch.zeros(1, 3)]), torch.zeros(3))]
    S, x = ((A + A.mT) / 2).square(), torch.zeros(200_000, 3)
    normal = torch.randn(1, 200_000, 3, generator=torch.Generator().manual_seed(0))
    beside, on = 2 * (S.sum() - S.trace()).item(), 2 * S.trace().item()
    for probes, variance in [(normal.sign(), beside), (normal, beside + on)]:
        estimates = page.divergence(linear, 0.0, x, probes)
        assert estimates.mean() == pytest.approx(A.trace().item(), abs=0.05)
        assert estimates.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.slow
def test_redrawn_noise_spreads_less_and_does_not_cancel_on_the_way_back(page):
    torch.manual_seed(0)
    net = page.mlp_weights(4, 3, (8,), 3, False, torch.float64)
    x, kept = torch.randn(3).double().expand(2000, 3), torch.randn(1, 2000, 3).double().sign()

    def log_det(start, t0, t1, redrawn):
        def slope(t, state):
            probes = torch.randn_like(kept).sign() if redrawn else kept
            return page.apply_field(net, t, state[0]), page.divergence(net, t, state[0], probes)

        return page.integrate(slope, (start, torch.zeros(2000).double()), t0, t1, 10)

    ends = {redrawn: log_det(x, 0.0, 1.0, redrawn) for redrawn in (False, True)}
    (z, fixed), (_, shaken) = ends[False], ends[True]
    assert shaken.mean() == pytest.approx(fixed.mean().item(), abs=5 * fixed.std().item() / 2000**0.5)
    assert shaken.std() < fixed.std() / 3
    assert (log_det(z, 1.0, 0.0, False)[1] + fixed).abs().max() < 1e-4
    assert (log_det(z, 1.0, 0.0, True)[1] + shaken).abs().max() > 0.1
