"""The numbers that lesson 08 states, on the lesson's own code."""

import builtins
import linecache
import math
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from autograder import check  # noqa: E402
from autograder.course import Course  # noqa: E402
from autograder.master import read_master, solved  # noqa: E402
from flowkit.coupling import coupling_stack, graph  # noqa: E402
from flowkit.lab import costs  # noqa: E402
from flowkit.lab.nets import mlp  # noqa: E402

COURSE = Course(Path(__file__).parents[2] / "course")


@pytest.fixture(scope="module")
def page():
    """The names that the solved notebook has at its end."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    for cell in read_master(COURSE, COURSE.lesson("coupling")).cells:
        if not cell.markdown and cell.kind != "hidden":
            exec(compile(solved(cell.source), f"08_coupling cell {cell.place}", "exec"), module.__dict__)
    return module


@pytest.mark.slow
def test_the_students_stack_comes_within_3_hundredths_of_a_nat_and_is_a_density(page):
    assert page.gap <= 0.03
    assert page.gap >= -0.01  # below the entropy there is only a bug, or the noise of 50,000 points
    assert abs(page.mass - 1) <= 1e-3


@pytest.mark.slow
def test_one_mask_alone_stays_a_quarter_of_a_nat_away(page):
    assert page.unmixed == pytest.approx(1.705, abs=5e-4)
    assert page.moons.entropy == pytest.approx(1.417, abs=5e-4)
    stack = [(mask, net) for mask, net in page.new_stack(2, 8)[::2]]
    assert all(mask.tolist() == [True, False] for mask, _ in stack)
    flow = page.as_flow(page.fit_stack(stack, page.moons.sample(5000, seed=9), 600, 5e-3))
    with torch.no_grad():
        reached = -flow.log_prob(page.unseen).mean().item()
    assert page.best_unmixed(0) - 0.01 < reached < page.best_unmixed(0) + 0.1


@pytest.mark.slow
def test_nice_without_its_scale_cannot_reach_the_moons(page):
    assert page.highest > 2 / (2 * math.pi)


@pytest.mark.parametrize(("layers", "entries"), [(1, 15), (2, 30), (3, 36)])
def test_three_alternating_layers_let_six_dimensions_hear_one_another(layers, entries):
    assert graph(coupling_stack(6, layers, mlp), 6).sum() == entries


@pytest.mark.parametrize("dim", range(2, 9))
def test_from_four_dimensions_on_it_takes_three_layers(dim):
    full = [bool(graph(coupling_stack(dim, layers, mlp), dim).all()) for layers in (2, 3)]
    assert full == [dim < 4, True]


def test_bounded_scales_of_32_layers_stay_within_float32():
    assert math.exp(32 * 2) == pytest.approx(6e27, rel=0.05)
    assert torch.finfo(torch.float32).max == pytest.approx(3e38, rel=0.15)


def test_one_layer_with_a_scale_of_90_overflows_float32_alone():
    assert torch.tensor(90.0).exp().isinf()


@pytest.mark.parametrize(
    ("log_det", "name"),
    [
        ("torch.linalg.slogdet(J).logabsdet", "torch.linalg.slogdet"),
        ("torch.logdet(J)", "torch.logdet"),
        ("J.det().log()", "det"),
    ],
)
def test_a_determinant_is_refused_where_it_would_be_right(log_det, name):
    answer = (
        "import torch\ndef coupling_log_det(x, mask, s, t):\n"
        f"    J = torch.diag_embed(torch.where(mask, 1.0, s.exp()))\n    return {log_det}\n"
    )
    file = f"<cell with {name}>"
    linecache.cache[file] = (len(answer), None, answer.splitlines(keepends=True), file)
    cells = read_master(COURSE, COURSE.lesson("coupling")).cells
    test = next(cell for cell in cells if (cell.kind, cell.name) == ("test", "coupling_log_det"))
    namespace = {}
    exec(compile(answer, file, "exec"), namespace)
    with pytest.raises(check.NotRight, match=rf"(?s)torch.linalg, torch.det.* your cell uses {name}:"):
        exec(compile(test.source, "<test>", "exec"), namespace)


@pytest.mark.slow
def test_a_fresh_stack_is_frozen_and_a_trained_one_asks_for_no_gradients(page):
    x = torch.randn(5, 3)
    for mask, net in page.new_stack(3, 4):
        assert torch.equal(page.affine_coupling(x, mask, net), x)
    assert not any(w.requires_grad for w in page.weights(page.trained))


def test_a_network_of_two_hidden_layers_costs_what_the_table_says():
    D, H = costs.DIM, 64
    sizes = [w.numel() for w in coupling_stack(D, 1, mlp).parameters() if w.ndim == 2]
    assert sizes == [D * H / 2, H * H, H * D]
