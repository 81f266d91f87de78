"""Dual numbers, areas and diffeomorphisms, against torch.func and closed forms."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from flowkit.dual import derivative, jvp
from flowkit.jacobians import (
    area_ratio,
    chain_jacobians,
    det_sign,
    from_polar,
    from_polar_jacobian,
    hessian,
    inverse_jacobian,
    jacobian,
    mapped_cell,
    numerical_jacobian,
    polygon_area,
    singular_cells,
    to_polar,
    torch_jacobian,
    torch_jvp,
    torch_vjp,
)

A = np.array([[0.7, -1.3, 0.2], [0.4, 0.9, -0.6], [1.1, 0.3, 0.5]])
SHEAR = np.array([[1.0, 2.0], [0.0, 1.0]])


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def everything(x, xp):
    """R^3 -> R^4 through every rule, in NumPy or torch; for one point and for many."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    positive = xp.exp(-a) + xp.square(b) + 0.5
    angle = xp.sin(a * b) - xp.cos(c / positive) + positive**1.7 + 2.0**b
    root = xp.sqrt(positive) * xp.log(positive + c**2) + (+a) - abs(c)
    turned = (x @ (A.T if xp is np else torch.tensor(A.T)))[..., 1] ** 3
    power = positive ** xp.tanh(c) + 3 - xp.reshape(1 / positive, positive.shape) + 5 / (2 + xp.sign(b))
    return xp.stack([angle + x.sum(-1), root, turned - xp.arctan2(a, c), power], -1)


def in_numpy(x):
    return everything(x, np)


def in_torch(x):
    return everything(x, torch)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_every_rule_agrees_with_torch(shape):
    x = draw(*shape)
    close(in_numpy(x), in_torch(torch.tensor(x)))
    close(jacobian(in_numpy, x), torch_jacobian(in_torch, torch.tensor(x)))


@pytest.mark.parametrize("seed", range(3))
def test_jvp_agrees_with_torch_and_with_the_jacobian(seed):
    x, v, w = draw(3, seed=seed), draw(3, seed=seed + 10), draw(4, seed=seed + 20)
    z, along = jvp(in_numpy, x, v)
    for ours, torchs in zip((z, along), torch_jvp(in_torch, torch.tensor(x), torch.tensor(v)), strict=True):
        close(ours, torchs)
    J = jacobian(in_numpy, x)
    close(along, J @ v)
    value, pulled = torch_vjp(in_torch, torch.tensor(x), torch.tensor(w))
    close(value, z)
    close(pulled, w @ J)


def test_second_derivatives_agree_with_torch():
    for x in draw(3, 3):
        want = torch.func.jacfwd(torch.func.jacrev(in_torch))(torch.tensor(x))
        close(hessian(in_numpy, x), want)


def test_the_hessian_of_a_quadratic_form_of_a_batch():
    H = hessian(lambda x: ((x @ A) * x).sum(-1), draw(4, 3))
    close(H, np.broadcast_to(A + A.T, (4, 3, 3)))


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (np.exp, np.exp),
        (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        (lambda x: x**3, lambda x: 3 * x**2),
        (lambda x: x / (1 + x**2), lambda x: (1 - x**2) / (1 + x**2) ** 2),
        (lambda x: x**0 + x**1, np.ones_like),
        (lambda x: np.sqrt(x**2 + 1) - 3, lambda x: x / np.sqrt(x**2 + 1)),
        (lambda x: (x < 0) * -x + (x >= 0) * 2 * x, lambda x: np.where(x < 0, -1, 2)),
    ],
)
def test_derivatives_of_one_variable(f, slope):
    x = np.array([[-1.5, -0.2, 0.0], [0.3, 1.0, 2.5]])
    close(derivative(f, x), slope(x))


def test_a_power_of_zero_is_smooth_at_zero_to_any_order():
    assert derivative(lambda x: derivative(lambda x: derivative(lambda x: x**2, x), x), 0.0) == 0


def test_a_jvp_within_a_jvp_takes_the_outer_numbers_for_constants():
    """d/dx of x d/dy (x + y) is 1; whoever mixes the two perturbations up gets 2."""
    assert derivative(lambda x: x * derivative(lambda y: x + y, 1.0), 1.0) == 1
    assert derivative(lambda x: derivative(lambda y: x * y * y, x), 3.0) == 12


@pytest.mark.parametrize("gather", [list, tuple, np.array, np.stack])
def test_the_ways_to_return_several_numbers(gather):
    def f(x):
        a, b = x
        return gather([a * b, b**2, a])

    close(f(np.array([2.0, 3.0])), [6, 9, 2])
    close(jacobian(f, [2, 3]), [[3, 2], [0, 6], [1, 0]])
    close(hessian(f, [2, 3])[0], [[0, 1], [1, 0]])


def test_parts_put_together():
    close(
        jacobian(lambda x: np.concatenate([x[:1] ** 2, x[1:], np.ones(1)]), [2, 3]), [[4, 0], [0, 1], [0, 0]]
    )


def test_constants_have_no_derivative_and_are_broadcast():
    close(jacobian(lambda x: np.array([1.0, 2.0]), np.ones(3)), np.zeros((2, 3)))
    close(jacobian(lambda x: np.stack([x[0], 2.0]), np.ones(2)), [[1, 0], [0, 0]])
    z, along = jvp(lambda x: x + np.zeros((4, 1)), np.ones(2), 1.0)
    assert z.shape == along.shape == (4, 2)
    close(along, np.ones((4, 2)))


def test_matrices_on_either_side():
    x = draw(3)
    close(jacobian(lambda x: A @ x, x), A)
    close(jacobian(lambda x: x @ A, x), A.T)
    close(jacobian(lambda x: x @ A @ x, x), (A + A.T) @ x)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.flip(x, -1),
        lambda x: np.roll(x, 1, axis=-1),
        lambda x: np.cumsum(x, -1),
        lambda x: np.diff(x, axis=-1),
        lambda x: np.mean(x, -1, keepdims=True),
        lambda x: x.sum(-1, keepdims=True) - x,
        lambda x: np.moveaxis(np.stack([x, 2 * x]), 0, -1)[..., 1],
        lambda x: np.concatenate([x, np.reshape(x, x.shape)], -1),
    ],
)
def test_what_is_linear_is_its_own_jacobian(f):
    x, v = draw(4, 3), draw(4, 3, seed=1)
    close((jacobian(f, x) @ v[..., None])[..., 0], f(v))
    close(jacobian(lambda x: f(x**2), x) @ np.ones(3), f(2 * x))


def test_float32_stays():
    x = draw(5, 2).astype(np.float32)
    for f in (from_polar, to_polar, lambda x: np.tanh(2 * x) + 1, lambda x: np.stack([x[..., 0]] * 2, -1)):
        J = jacobian(f, x)
        assert J.dtype == np.float32
        close(J, jacobian(f, x.astype(np.float64)), 1e-4)
    assert hessian(lambda x: (x**3).sum(-1), x).dtype == np.float32
    assert jacobian(lambda x: np.stack([x[..., 0], np.float32(2) * x[..., 1] ** 0]), x[0]).dtype == np.float32
    assert jacobian(lambda x: np.stack([x[0], np.float32(2)]), x[0]).dtype == np.float32


@pytest.mark.parametrize(
    "f", [np.arctan, np.linalg.norm, np.add.reduce, np.prod, lambda x: np.add(x, 1, where=False)]
)
def test_an_unknown_derivative_is_an_error(f):
    with pytest.raises(TypeError, match="no derivative is known for np"):
        jvp(f, np.ones(2), 1.0)


@pytest.mark.parametrize("x", [1.0, np.ones((3, 0))])
def test_the_jacobian_needs_a_dimension(x):
    with pytest.raises(ValueError, match=r"shape \(..., D\)"):
        jacobian(np.exp, x)


def test_central_differences_are_the_other_modules_and_agree():
    from flowkit import change_of_variables

    assert numerical_jacobian is change_of_variables.numerical_jacobian
    x = draw(4, 3)
    close(numerical_jacobian(in_numpy, x), jacobian(in_numpy, x), 1e-7)


def test_the_jacobian_of_a_chain_is_a_product_and_its_det_too():
    maps = [lambda x: x @ A.T, np.tanh, lambda x: x + 0.3 * np.sin(x[..., ::-1])]
    x = draw(6, 3)
    whole = jacobian(lambda x: maps[2](maps[1](maps[0](x))), x)
    first, second, third = chain_jacobians(maps, x)
    close(third @ second @ first, whole)
    close(np.linalg.det(whole), np.prod([np.linalg.det(J) for J in (first, second, third)], axis=0))
    assert np.abs(first @ second @ third - whole).max() > 0.01  # the order matters to J, not to det J


def test_the_jacobian_of_the_inverse():
    p = np.array([[0.5, 0.2], [2.0, -2.5], [3.0, 3.0]])
    close(inverse_jacobian(from_polar, p), jacobian(to_polar, from_polar(p)))
    close(np.linalg.det(inverse_jacobian(from_polar, p)), 1 / p[:, 0])


@pytest.mark.parametrize(("f", "x"), [(from_polar, [0.0, 1.0]), (lambda x: x[:1], [1.0, 2.0])])
def test_no_inverse_no_jacobian(f, x):
    with pytest.raises(ValueError, match="no differentiable inverse"):
        inverse_jacobian(f, np.array(x))


def test_polar_coordinates():
    p = np.array([[0.3, 0.1], [1.0, -2.0], [4.0, 3.1], [0.0, 1.0]])
    close(jacobian(from_polar, p), from_polar_jacobian(p))
    close(np.linalg.det(from_polar_jacobian(p)), p[:, 0])
    close(to_polar(from_polar(p[:3])), p[:3])
    close(np.linalg.det(jacobian(to_polar, from_polar(p[:3]))), 1 / p[:3, 0])


def test_the_area_of_a_polygon():
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    close(polygon_area(circle), 500 * np.sin(2 * np.pi / 1000))
    close(polygon_area(circle[::-1]), -polygon_area(circle))
    close(polygon_area(1e-6 * circle + 1e3) / 1e-12, polygon_area(circle), 1e-4)
    assert polygon_area(np.stack([circle, 2 * circle])).shape == (2,)


@pytest.mark.parametrize("shape", [(2,), (4, 3)])
def test_a_polygon_has_two_coordinates(shape):
    with pytest.raises(ValueError, match=r"\(..., N, 2\)"):
        polygon_area(np.ones(shape))


@pytest.mark.parametrize(
    ("A", "area"),
    [
        (np.diag([3.0, 0.5]), 1.5),
        (SHEAR, 1.0),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), -1.0),
        (np.array([[1.0, 2.0], [2.0, 4.0]]), 0.0),
    ],
)
def test_linear_maps_stretch_a_cell_of_any_size_by_det(A, area):
    for size in (1e-3, 1.0, 10.0):
        close(area_ratio(lambda x: x @ A.T, np.array([0.3, -2.0]), size), area)


def test_the_area_of_a_mapped_cell_tends_to_det():
    p = np.array([[1.0, 0.5], [2.0, -1.0]])
    sizes = np.array([0.4, 0.2, 0.1, 0.05])
    for f, x in ((from_polar, p), (lambda x: np.exp(x) + x[..., ::-1] ** 2, p)):
        det = np.linalg.det(jacobian(f, x))
        error = np.array([np.abs(area_ratio(f, x, size) - det).max() for size in sizes])
        np.testing.assert_allclose(error[:-1] / error[1:], 4, rtol=0.05)  # second order
        close(area_ratio(f, x, 1e-4), det, 1e-7)


def test_more_points_per_side_follow_bent_edges():
    """The image of a polar cell about radius r is a piece of a ring, of area r size^2 exactly."""
    p = np.array([2.0, 0.3])
    errors = [abs(area_ratio(from_polar, p, 1.0, n) - 2.0) for n in (1, 4, 16)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert mapped_cell(from_polar, np.ones((5, 2)), 0.1, 3).shape == (5, 12, 2)


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"per_side": 0}, {"x": np.ones(3)}, {"x": 1.0}])
def test_a_cell_lies_in_the_plane(wrong):
    with pytest.raises(ValueError, match=r"shape \(..., 2\)"):
        mapped_cell(**{"f": from_polar, "x": np.ones(2), "size": 1.0, **wrong})


def test_the_sign_of_det():
    close(det_sign([np.eye(2), np.diag([1.0, -1.0]), SHEAR * 1e-12, np.ones((2, 2))]), [1, -1, 1, 0])
    close(det_sign(np.diag([1e-30, 1e-30, -1e-30])), -1)
    close(det_sign([[0.1, 0.3], [0.1 * 3, 0.3 * 3]]), 0)  # dependent up to rounding
    close(det_sign(np.zeros((2, 2))), 0)


def test_a_fold_is_found_and_nothing_else():
    x, y = np.linspace(-1, 1, 12), np.linspace(-2, 2, 7)
    cells = singular_cells(lambda p: np.stack([p[..., 0] ** 2 + p[..., 1], p[..., 1]], -1), x, y)
    assert cells.shape == (11, 6)
    assert cells[5].all()  # the cells that hold x = 0
    assert cells.sum() == 6


def test_the_curve_of_a_swirl_s_folds_goes_through_the_cells_found():
    """z = (x + a sin(3 y), y + a sin(3 x)) has det 1 - 9 a^2 cos 3x cos 3y."""
    axis = np.linspace(-1, 1, 41)

    def f(p, a):
        return p + a * np.sin(3 * p[..., ::-1])

    assert not singular_cells(lambda p: f(p, 0.3), axis, axis).any()
    det = 1 - 9 * 0.4**2 * np.cos(3 * axis)[:, None] * np.cos(3 * axis)
    corners = np.stack([det[i : i + 40, j : j + 40] for i in (0, 1) for j in (0, 1)])
    want = (corners > 0).any(0) & (corners < 0).any(0)
    found = singular_cells(lambda p: f(p, 0.4), axis, axis)
    assert want.any()
    assert (found == want).all()
    assert (singular_cells(lambda p: f(p, 0.4), axis, axis, jacobian=numerical_jacobian) == want).all()


def test_zeros_that_a_grid_sees_and_those_that_it_misses():
    def cube(x):
        return x**3

    assert singular_cells(cube, np.linspace(-1, 1, 5)).tolist() == [False, True, True, False]
    assert not singular_cells(cube, np.linspace(-1, 1, 4)).any()  # det touches zero between two points
    assert singular_cells(lambda x: x + x[..., ::-1], np.arange(3), np.arange(4)).all()  # a line
    assert not singular_cells(np.exp, np.linspace(-300, 20, 5), np.linspace(-300, 20, 5)).any()
    assert not singular_cells(lambda x: x @ A.T, *[np.arange(3)] * 3).any()


def test_where_the_map_is_not_defined_it_is_no_diffeomorphism():
    with np.errstate(invalid="ignore"):
        assert singular_cells(np.sqrt, np.array([-2.0, -1.0, 1.0, 2.0])).tolist() == [True, True, False]


def test_numpy_alone():
    code = "import flowkit.jacobians, sys; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
