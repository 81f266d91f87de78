"""The numbers that lesson 07 states, on the lesson's own code."""

import builtins
import math
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from autograder.answers import bank  # noqa: E402
from autograder.answers.planar import lies_too_far_out, not_annealed  # noqa: E402
from autograder.course import Course  # noqa: E402
from autograder.master import read_master, solved  # noqa: E402
from flowkit.energies import ENERGIES  # noqa: E402

COURSE = Course(Path(__file__).parents[2] / "course")


@pytest.fixture(scope="module")
def page():
    """The names that the solved notebook has at its end."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    for cell in read_master(COURSE, COURSE.lesson("planar")).cells:
        if not cell.markdown and cell.kind != "hidden":
            exec(compile(solved(cell.source), f"07_planar cell {cell.place}", "exec"), module.__dict__)
    return module


@pytest.mark.slow
def test_both_energies_are_fitted_to_a_tenth_of_a_nat_by_densities_of_mass_one(page):
    for kl, raised, mass in page.results.values():
        assert -0.01 < kl <= 0.1
        assert not raised
        assert abs(mass - 1) <= 1e-3


def kl_to_u1(page, layers):
    z, log_q = page.cloud, page.base_log_density(page.cloud)
    for bend in page.usable(layers):
        z, log_det = page.planar_layer(z, *bend)
        log_q = log_q - log_det
    return (log_q - ENERGIES["U1"].log_prob(z)).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 9])
def test_from_above_one_arc_annealing_finds_the_other_and_nothing_else_does(page, seed):
    layers = page.start(16, seed, 3.0)  # over 96 draws each: 0.06 to 0.27 annealed, 0.70 to 0.74 without
    assert kl_to_u1(page, page.fit_energy("U1", layers, 300, 4e-2)) < 0.45
    assert kl_to_u1(page, not_annealed("U1", layers, 300, 4e-2)) == pytest.approx(0.7, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "slip", "told_as"),
    [
        ("constrain(w, u)", "u", "returns_the_constrained_u"),
        ("optimizer.zero_grad()", "pass", "base_at_the_last_z"),
    ],
)
def test_slips_that_end_alike_are_told_in_words_that_fit_both(page, right, slip, told_as):
    master = read_master(COURSE, COURSE.lesson("planar"))
    (source,) = (solved(cell.source) for cell in master.cells if cell.grade_id == "fit_energy")
    assert right in source
    names = dict(vars(page))
    exec(source.replace(right, slip), names)
    given = ("U1", page.start(16, 9, 3.0), 300, 4e-2)
    returned = names["fit_energy"](*given)
    first = next(a.name for a in bank("planar").wrong("fit_energy") if a.when(returned, *given))
    assert first == told_as


@pytest.mark.slow
def test_the_example_of_the_constraint(page):
    bent = page.constrain(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0]))
    assert bent.tolist() == pytest.approx([-0.153, 5.0], abs=5e-4)


@pytest.mark.slow
def test_u2_between_its_walls_has_the_normalizer_that_is_stated(page):
    assert page.LOG_Z["U2"] == pytest.approx(2.2002, abs=5e-5)
    assert page.between_walls == pytest.approx(math.exp(page.LOG_Z["U2"]), rel=1e-9)


def test_within_one_of_the_centre_lie_39_of_100_normal_points():
    assert 1 - math.exp(-0.5) == pytest.approx(0.39, abs=5e-3)


def test_unequal_shares_of_two_equal_arcs_cost_little():
    assert 0.6 * math.log(2 * 0.6) + 0.4 * math.log(2 * 0.4) == pytest.approx(0.02, abs=5e-4)


@pytest.mark.slow
def test_the_claims_of_a_fold_add_up_to_its_density(page):
    levels = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    claims = page.claims_where_folded(levels)
    assert claims[[0, 2], 1000].tolist() == pytest.approx([0.005, 0.005], abs=5e-4)
    share = (page.folded.abs() < 1).float().mean().item()
    assert 2 * claims.sum(0).mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.slow
def test_a_distance_of_2_3_tells_a_base_density_that_is_taken_at_the_wrong_end(page):
    layers = page.start(16, 9, 3.0)
    assert not lies_too_far_out(page.fit_energy("U1", layers, 300, 4e-2), "U1")
    exact = page.targets.grid((-4, 4, -4, 4), 200)[0]
    weights = ENERGIES["U1"].log_prob(exact).exp()
    assert (exact.norm(dim=-1) * weights).sum() / weights.sum() == pytest.approx(2.14, abs=0.01)
