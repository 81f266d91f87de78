"""The numbers that lesson 11 states, on the lesson's own code."""

import builtins
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from autograder.course import Course  # noqa: E402
from autograder.master import read_master, solved  # noqa: E402
from flowkit.lab.nets import apply_masked, masked_weights  # noqa: E402
from flowkit.made import made_masks  # noqa: E402

COURSE = Course(Path(__file__).parents[2] / "course")


@pytest.fixture(scope="module")
def page():
    """The names that the solved notebook has at its end."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    for cell in read_master(COURSE, COURSE.lesson("autoregressive")).cells:
        if not cell.markdown and cell.kind != "hidden":
            exec(
                compile(solved(cell.source), f"11_autoregressive cell {cell.place}", "exec"), module.__dict__
            )
    return module


@pytest.mark.slow
def test_the_banana_of_mafs_figure_1(page):
    assert page.banana.entropy == pytest.approx(3.5310, abs=5e-5)
    assert 0 <= page.lost["1 layer, x₂ first"] <= 0.02
    assert page.lost["1 layer, x₁ first"] == pytest.approx(0.33, abs=0.02)
    assert page.best_with_x1_first() == pytest.approx(0.335, abs=1e-3)
    assert all(abs(mass - 1) <= 1e-3 for mass in page.mass.values())


@pytest.mark.slow
def test_more_layers_help_only_where_orders_alternate(page):
    assert page.lost["4 layers, x₁ always first"] > 0.3
    assert 0 <= page.lost["4 layers, orders alternate"] <= 0.02


@pytest.mark.slow
def test_a_leak_claims_less_than_the_entropy(page):
    assert page.claimed < page.banana.entropy - 2
    assert page.targets.integral(page.model.log_prob, page.banana.extent) > 10


@pytest.mark.slow
def test_sampling_over_density_grows_about_like_the_dimension(page):
    for one, other in (("MAF, sampling", "MAF, density"), ("IAF, density", "IAF, sampling")):
        ratios = [slow / fast for slow, fast in zip(page.times[one], page.times[other], strict=True)]
        assert page.power_law(page.SIZES, ratios) == pytest.approx(1, abs=0.3)


@pytest.mark.slow
def test_a_maf_needs_as_many_passes_as_dimensions_and_a_coupling_one(page):
    assert page.passes_until_still(page.mafs["MAF"], page.z) == 8
    assert page.passes_until_still(page.mafs["coupling, as a masked network"], page.z) == 1
    assert page.gap < 1e-12


@pytest.mark.slow
def test_units_computed_once_sample_what_plain_passes_sample(page):
    with torch.no_grad():
        plain = page.maf(page.noise, page.as_net, list(range(64)), inverse=True)
        once = page.wide.inverse(page.noise)
    for a, b in zip(plain, once, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [[0], [2, 0, 1], [1, 3, 0, 2]])
def test_masked_networks_read_what_their_masks_let_through(order):
    masks = made_masks(order, [8, 9])
    net = masked_weights(masks, size=2, seed=1, zero_last=False, dtype=torch.float64)
    x = torch.randn(20, len(order), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: apply_masked(net, x)))(x)
    reads = (jacobians != 0).any(0).unflatten(0, (2, -1))  # a block for mu, a block for s
    place = torch.tensor([order.index(i) for i in range(len(order))])
    assert not (reads & (place[:, None] <= place)).any()
    assert torch.equal(reads.any(0), place[:, None] > place)


def test_masked_networks_start_at_zero():
    net = masked_weights(made_masks([1, 0], [4]), size=3)
    assert (apply_masked(net, torch.ones(2, 5, 2)) == torch.zeros(2, 5, 6)).all()
