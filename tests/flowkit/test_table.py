"""Laws that hold for every bijection of the table."""

import importlib
import inspect
import io

import pytest
import torch
from table import BIJECTIONS, CASES, drawn, points

import flowkit
from flowkit import Bijection, check_bijection


def obeys_the_laws(name, dim, **options):
    row = BIJECTIONS[name]
    check_bijection(row.make(dim), dim, context=row.context or None, **options)


@pytest.mark.parametrize(
    ("name", "dim"),
    [(name, dim) for name, row in BIJECTIONS.items() for dim in {row.dims[0], 7} & set(row.dims)],
)
def test_laws_at_one_draw_of_the_parameters(name, dim):
    obeys_the_laws(name, dim, draws=1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dim"), CASES)
def test_laws(name, dim):
    obeys_the_laws(name, dim)


def assert_is_log_det_of(f, x, context, log_det):
    """log abs det of the autograd Jacobian at each of the points (N, D), to 1e-10 and what rounding it costs.

    A change dJ of J changes log abs det J by tr(J^-1 dJ): the determinant of a rounded Jacobian is off by its
    condition number times the rounding, which is the reference's error and not that of log_det.
    """
    jacobian = torch.autograd.functional.jacobian(lambda x: f(x, context)[0].sum(0), x).movedim(1, 0)
    rounding = torch.finfo(x.dtype).eps * torch.linalg.cond(jacobian).max().item()
    torch.testing.assert_close(
        log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10 + rounding
    )


@pytest.mark.parametrize(("name", "dim"), CASES)
def test_closed_form_log_dets_are_those_of_the_autograd_jacobian(name, dim):
    f = drawn(name, dim)
    x, context = points(name, dim, 5)
    z, log_det = f.forward(x, context)
    _, log_det_back = f.inverse(z, context)
    assert_is_log_det_of(f.forward, x, context, log_det)
    assert_is_log_det_of(f.inverse, z, context, log_det_back)


@pytest.mark.parametrize(("name", "dim"), CASES)
def test_saved_and_loaded_it_is_the_same_map(name, dim):
    f, g = drawn(name, dim), drawn(name, dim, seed=1)
    x, context = points(name, dim, 3)
    saved = io.BytesIO()
    torch.save(f.state_dict(), saved)
    saved.seek(0)
    g.load_state_dict(torch.load(saved, weights_only=True))
    torch.testing.assert_close(g.forward(x, context), f.forward(x, context), rtol=0, atol=0)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_an_empty_batch_is_a_batch(name):
    dim = BIJECTIONS[name].dims[-1]
    f = drawn(name, dim)
    x, context = points(name, dim, 0)
    for z, log_det in (f.forward(x, context), f.inverse(x, context)):
        assert z.shape == (0, dim)
        assert log_det.shape == (0,)


def test_the_table_holds_every_bijection_class():
    modules = [importlib.import_module(f"flowkit.{name}") for name in flowkit._MODULES]
    classes = {
        thing
        for module in modules
        for _, thing in inspect.getmembers(module, inspect.isclass)
        if issubclass(thing, Bijection) and thing is not Bijection
    }
    built = {type(part) for row in BIJECTIONS.values() for part in row.make(row.dims[-1]).modules()}
    assert classes <= built, f"no row of the table builds {classes - built}"
