"""Rank and nullity, points that a map to fewer dimensions cannot tell apart, and the Hilbert curve."""

import math

import pytest
import scipy.linalg
import torch
from torch.func import jacrev

from flowkit.dimension import (
    hilbert_cells,
    hilbert_curve,
    largest_jump,
    null_space,
    rank_nullity,
    same_image,
)
from flowkit.lab.nets import mlp


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 2), (1, 5), (4, 4), (0, 3)])
def test_rank_and_nullity_add_up(m, n):
    rank, nullity = rank_nullity(randn(m, n))
    assert (rank, nullity) == (min(m, n), n - min(m, n))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_null_space_is_scipys(rank):
    matrix = randn(4, rank) @ randn(rank, 6, seed=1)
    ours, theirs = null_space(matrix), torch.from_numpy(scipy.linalg.null_space(matrix.numpy()))
    assert ours.shape == (6, 6 - rank)
    torch.testing.assert_close(ours.T @ ours, torch.eye(6 - rank).double())
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T)
    assert (matrix @ ours).abs().max() < 1e-12


@pytest.mark.parametrize(("n", "m"), [(2, 1), (3, 2), (7, 3)])
def test_a_network_to_fewer_dimensions_gives_far_points_one_image(n, m):
    torch.manual_seed(0)
    f = mlp(n, m, (16, 16), torch.nn.Tanh, zero_last=False).double()
    path = same_image(f, randn(n), length=2.0)
    assert path.shape == (101, n)
    assert (f(path) - f(path[0])).abs().max() < 1e-12
    assert (path.diff(dim=0).norm(dim=1) > 0.015).all()  # it never stops
    assert (path[-1] - path[0]).norm() > 0.5


def test_a_square_map_has_no_such_path():
    torch.manual_seed(0)
    f = mlp(3, 3, (16,), torch.nn.Tanh, zero_last=False).double()
    assert rank_nullity(jacrev(f)(randn(3))) == (3, 0)
    with pytest.raises(ValueError, match="has no null space"):
        same_image(f, randn(3), 1.0)


def test_the_fibre_of_a_norm_is_a_sphere():
    path = same_image(lambda x: x.norm()[None], randn(3), length=3.0, steps=50)
    radius = path[0].norm()
    torch.testing.assert_close(path.norm(dim=1), radius.expand(51))
    angle = torch.acos((path[0] @ path[-1]) / radius**2)
    assert angle.item() == pytest.approx(3.0 / radius.item(), rel=0.01)  # along a great circle


@pytest.mark.parametrize("order", range(7))
def test_every_cell_comes_once_and_neighbours_share_an_edge(order):
    cells = hilbert_cells(order)
    assert cells.shape == (4**order, 2)
    assert len({tuple(cell) for cell in cells.tolist()}) == 4**order
    assert cells.min() == 0
    assert cells.max() == 2**order - 1
    assert (cells.diff(dim=0).abs().sum(1) == 1).all()
    assert cells[0].tolist() == [0, 0]
    assert cells[-1].tolist() == [2**order - 1, 0]


@pytest.mark.parametrize("order", range(1, 7))
def test_each_order_refines_the_one_before(order):
    finer, coarser = hilbert_cells(order), hilbert_cells(order - 1)
    assert torch.equal(finer // 2, coarser.repeat_interleave(4, 0))


def test_near_in_time_is_near_in_space():
    """|h(s) - h(t)|^2 <= 6 |s - t|: continuity with exponent 1/2, for all pairs of cells."""
    cells = hilbert_cells(5).double()
    time = torch.arange(4.0**5)
    ratio = torch.cdist(cells, cells).square() / (time[:, None] - time).abs().clamp(min=1)
    assert 5 < ratio.max() < 6


@pytest.mark.parametrize("order", range(1, 9))
def test_near_in_space_need_not_be_near_in_time(order):
    assert largest_jump(order) >= 0.75
    cells = hilbert_cells(order)[[0, -1]]
    assert (cells[1] - cells[0]).tolist() == [2**order - 1, 0]


def test_a_grid_of_one_cell_has_no_jump():
    assert largest_jump(0) == 0


@pytest.mark.parametrize("order", range(6))
def test_polygons_converge_uniformly_and_fill_the_square(order):
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    coarse, fine = hilbert_curve(t, order), hilbert_curve(t, 8)
    assert (coarse - fine).norm(dim=1).max() <= math.sqrt(2) / 2**order
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.cdist(points, coarse).min(1).values.max() <= math.sqrt(2) / 2**order
    cell = (t * 4**order).long().clamp(max=4**order - 1)
    corner = hilbert_cells(order)[cell] / 2**order
    assert (coarse >= corner - 1e-12).all()
    assert (coarse <= corner + 1 / 2**order + 1e-12).all()


def test_the_polygon_is_continuous_and_passes_its_centres():
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    assert hilbert_curve(t, 4).diff(dim=0).norm(dim=1).max() <= 1.001 * 1e-5 * 4**4 / 2**4
    k = torch.arange(4**4)
    centres = (hilbert_cells(4) + 0.5) / 16
    torch.testing.assert_close(hilbert_curve((k + 0.5).double() / 4**4, 4), centres.double())
    assert hilbert_curve(torch.tensor(0.3), 4).shape == (2,)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"0, 1, 2, \.\.\."):
        hilbert_cells(-1)
    with pytest.raises(ValueError, match="from 0 to 1"):
        hilbert_curve(torch.tensor([0.5, 1.5]), 2)
