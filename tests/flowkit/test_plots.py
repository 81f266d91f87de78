"""Figures: alternative text, colours that everyone can tell apart, and the helpers that lessons draw with."""

import base64
import io
import itertools
import re

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from flowkit.lab import colours, plots

# Severe protanopia and deuteranopia in linear RGB: Machado, Oliveira and Fernandes (2009), table 1.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(
        rgb, 0, 1
    )
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    """WCAG contrast ratio."""
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_first_four_colours_are_told_apart(deficiency):
    seen = [lab(np.array(DEFICIENCIES[deficiency]) @ linear(colour)) for colour in plots.CYCLE[:4]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_colours_stand_out_from_light_and_dark_pages(background):
    assert min(contrast(colour, background) for colour in (*plots.CYCLE, plots.GREY)) >= 3


def test_lines_of_a_figure_differ_in_dash_too():
    _, ax = plots.figure()
    lines = [ax.plot([0, 1])[0] for _ in plots.CYCLE]
    assert len({str(line._dash_pattern) for line in lines}) == len(plots.CYCLE)


def test_show_writes_an_image_with_its_alternative_text_and_closes_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    plots.show(fig, alt='A line "rises"\n  from 0 to 1.')
    assert not plt.fignum_exists(fig.number)
    assert shown[0]["text/plain"] == 'A line "rises" from 0 to 1.'
    assert 'alt="A line &quot;rises&quot; from 0 to 1."' in shown[0]["text/html"]
    data = re.search(r'base64,([^"]+)"', shown[0]["text/html"])[1]
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
    assert picture.shape[1] == pytest.approx(
        2 * int(re.search(r'width="(\d+)"', shown[0]["text/html"])[1]), abs=2
    )


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_show_wants_alternative_text(alt):
    with pytest.raises(ValueError, match="alt must say"):
        plots.show(plots.figure()[0], alt=alt)


def test_nothing_is_cut_off_where_axes_of_equal_aspect_stand_in_a_row():
    fig, axes = plots.figure(columns=3, sharey=True)
    for ax in axes:
        plots.density(ax, lambda x: -0.5 * (x**2).sum(-1), (-4, 12, -7, 7), n=5)
        ax.set(title="x₁ first: 0.33 nats lost", xlabel="x₁")
    axes[0].set(ylabel="x₂")
    data = re.search(r'base64,([^"]+)"', plots.html(fig, alt="Three densities"))[1]
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))[..., :3]
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    assert all((edge == 1).all() for edge in edges)


def test_figure_gives_axes_as_subplots_does():
    assert plots.figure(2, 3)[1].shape == (2, 3)
    fig, axes = plots.figure(1, 2, width=5, height=2, sharey=True)
    assert axes.shape == (2,)
    assert fig.get_size_inches().tolist() == [5, 2]


def log_normal_numpy(x):
    return -(x.astype(float) ** 2).sum(-1) / 2 - np.log(2 * np.pi)


def log_normal_torch(x):
    return -(x.square().sum(-1) / 2) - np.log(2 * np.pi)


@pytest.mark.parametrize("log_prob", [log_normal_numpy, log_normal_torch])
def test_density_evaluates_at_the_centres_of_its_cells(log_prob):
    _, ax = plots.figure()
    image = plots.density(ax, log_prob, extent=(-5, 5, -6, 6), n=50)
    assert image.get_array().sum() * (10 / 50) * (12 / 50) == pytest.approx(1, abs=1e-4)


def test_density_hands_a_module_points_of_its_own_type():
    module = torch.nn.Linear(2, 1).double()
    _, ax = plots.figure()
    image = plots.density(ax, lambda x: log_normal_torch(x), n=4)
    assert np.isfinite(image.get_array()).all()
    assert plots.density(ax, module, n=4).get_array().shape == (4, 4)


def test_density_does_not_hide_the_error_of_the_function():
    def broken(x):
        raise TypeError("forgot the scale")

    with pytest.raises(TypeError, match="forgot the scale"):
        plots.density(plots.figure()[1], broken)


def test_matrix_hatches_zeros_and_writes_the_rest():
    _, ax = plots.figure()
    plots.matrix(ax, torch.tensor([[1.0, 0.0], [-2.5, 3.0]]))
    hatched = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(0.5, -0.5)]
    assert [text.get_text() for text in ax.texts] == ["1.00", "-2.50", "3.00"]
    with pytest.raises(ValueError, match="two dimensions"):
        plots.matrix(ax, [1.0, 2.0])


def test_grid_draws_the_image_of_every_line():
    _, ax = plots.figure()
    plots.grid(ax, lambda x: 2 * x + 1, extent=(-1, 1, -1, 1), n=5)
    ends = np.concatenate([line.get_xydata() for line in ax.lines])
    assert len(ax.lines) == 10
    assert (ends.min(0).tolist(), ends.max(0).tolist()) == ([-1, -1], [3, 3])


def test_learning_curves_are_labelled():
    _, ax = plots.figure()
    plots.learning_curve(ax, {"train": [3, 2, 1], "held out": torch.tensor([3.0, 2.5, 2.0])})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "held out"]
    assert ax.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]


def test_plots_and_widgets_share_their_colours():
    assert plots.BLUE == colours.BLUE == plots.CYCLE[0]
