"""Figures in the course's style, shown with alternative text.

    fig, ax = plots.figure()
    ax.plot(x, p, label="p_X")
    plots.show(fig, alt="The density has one peak, at 2.")

JupyterLab ignores alternative text in the metadata of an output, so `show` writes the image as HTML.
matplotlib loads with the first figure: a submission that is graded imports this, and draws nothing.
"""

import base64
import io
import sys
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from cycler import cycler
from numpy.typing import ArrayLike

from flowkit.lab.colours import BLACK, BLUE, CYCLE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from torch import Tensor

__all__ = [
    "BLACK", "BLUE", "CYCLE", "DIVERGING", "GREEN", "GREY", "MAP", "ORANGE", "PURPLE", "RED", "SKY",
    "density", "figure", "grid", "html", "learning_curve", "matrix", "show",
]  # fmt: skip

MAP = "viridis"  # densities: more is lighter, in every kind of sight and in print
DIVERGING = "PuOr"  # numbers with a sign

Extent = tuple[float, float, float, float]  # x0, x1, y0, y1

_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=CYCLE)
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1))]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "font.size": 10,
    "hatch.linewidth": 0.6,
}


def figure(
    rows: int = 1, columns: int = 1, width: float | None = None, height: float | None = None, **subplots: Any
) -> "tuple[Figure, Any]":
    """A figure and its axes, as plt.subplots gives them: one Axes, or an array (rows, columns) squeezed.

    width, height: of the whole, in inches; by default the width of the page and a pleasant ratio.
    Other keywords (sharex, squeeze, subplot_kw, ...) go to Figure.subplots.
    """
    import matplotlib
    from matplotlib.figure import Figure

    width = width or min(9.0, (0, 6.0, 8.0)[columns] if columns < 3 else 9.0)
    height = height or rows * (3.4 if columns < 3 else 2.8)
    with matplotlib.rc_context(_STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        return fig, fig.subplots(rows, columns, **subplots)


def html(fig: "Figure", alt: str, caption: str = "", dpi: int = 192) -> str:
    """The figure as HTML, its PNG inside (by default two pixels for each of the page's); closes the figure.

    The caption is for the eye alone, since whoever does not see the image hears the alt.
    """
    import matplotlib

    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must say in words what the figure shows, for readers who do not see it")
    alt = " ".join(alt.split())
    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        fig.draw_without_rendering()  # axes of equal aspect need a second layout, or titles are cut off
        fig.savefig(stream, format="png", dpi=dpi, facecolor="white")
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)
    data = base64.b64encode(stream.getvalue()).decode()
    width = round(fig.get_figwidth() * 96)
    words = f'<figcaption aria-hidden="true">{escape(caption)}</figcaption>' if caption else ""
    return (
        f'<figure style="margin: 0.5em 0"><img alt="{escape(alt)}" width="{width}" '
        f'style="max-width: 100%; height: auto" src="data:image/png;base64,{data}">{words}</figure>'
    )


def show(fig: "Figure", alt: str) -> None:
    """Displays the figure with its alternative text, and closes it. An empty alt raises ValueError."""
    from IPython.display import display

    display({"text/html": html(fig, alt), "text/plain": " ".join(alt.split())}, raw=True)


def density(
    ax: "Axes", log_prob: Callable, extent: Extent = (-4, 4, -4, 4), n: int = 200, **image: Any
) -> "AxesImage":
    """The density exp(log_prob) of two variables as an image, on an n x n grid of cell centres.

    log_prob: points (N, 2) -> (N,), in NumPy or in torch. Returns the image, for a colour bar.
    """
    x0, x1, y0, y1 = extent
    x = x0 + (np.arange(n) + 0.5) * (x1 - x0) / n
    y = y0 + (np.arange(n) + 0.5) * (y1 - y0) / n
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    p = np.exp(_apply(log_prob, points)).reshape(n, n)
    ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    return ax.imshow(p, extent=extent, origin="lower", **{"cmap": MAP, **image})


def matrix(ax: "Axes", A: "ArrayLike | Tensor", hatched_zeros: bool = True, digits: int = 2) -> "AxesImage":
    """A matrix as a heat map, violet for positive and brown for negative, with its numbers when it is small.

    hatched_zeros: exact zeros are hatched, since a small number has nearly their colour. Returns the image.
    """
    from matplotlib.patches import Rectangle

    A = _array(A)
    if A.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, and this has shape {A.shape}")
    top = np.nanmax(np.abs(A), initial=0) or 1.0
    image = ax.imshow(A, cmap=DIVERGING, vmin=-top, vmax=top)
    ax.set(xticks=range(A.shape[1]), yticks=range(A.shape[0]))
    if max(A.shape) > 16:
        ax.set(xticks=[], yticks=[])
    for (i, j), a in np.ndenumerate(A):
        if a == 0 and hatched_zeros:
            box: dict[str, Any] = {"fill": False, "hatch": "////", "edgecolor": GREY, "linewidth": 0}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))
        elif max(A.shape) <= 8:
            colour = "white" if abs(a) > 0.6 * top else "black"
            ax.text(j, i, f"{a:.{digits}f}", ha="center", va="center", color=colour, fontsize=9)
    return image


def grid(ax: "Axes", f: Callable, extent: Extent = (-3, 3, -3, 3), n: int = 21, **line: Any) -> None:
    """The image of n x n grid lines under a map of the plane, f: (N, 2) -> (N, 2), in NumPy or in torch."""
    x0, x1, y0, y1 = extent
    s = np.linspace(0, 1, 100)
    for k in np.linspace(0, 1, n):
        along = np.stack([x0 + s * (x1 - x0), np.full_like(s, y0 + k * (y1 - y0))], -1)
        across = np.stack([np.full_like(s, x0 + k * (x1 - x0)), y0 + s * (y1 - y0)], -1)
        for path in (along, across):
            ax.plot(*_apply(f, path).T, **{"color": BLUE, "linestyle": "-", "linewidth": 0.7, **line})
    ax.set_aspect("equal")


def learning_curve(ax: "Axes", history: "ArrayLike | Tensor | dict[str, Any]", ylabel: str = "loss") -> None:
    """Losses against steps: a sequence of numbers, or a dict from a label to one."""
    curves = history if isinstance(history, dict) else {"": history}
    for label, losses in curves.items():
        losses = _array(losses)
        ax.plot(np.arange(1, len(losses) + 1), losses, label=label or None)
    if any(curves):
        ax.legend()
    ax.set(xlabel="step", ylabel=ylabel)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, float)


def _apply(f: Callable, points: np.ndarray) -> np.ndarray:
    """f at points, handed over as an array, or as a tensor when f takes no array."""
    try:
        return _array(f(points))
    except (TypeError, AttributeError, RuntimeError):
        if "torch" not in sys.modules:
            raise
    torch = sys.modules["torch"]
    parameter = next(iter(getattr(getattr(f, "__self__", f), "parameters", list)()), torch.empty(0))
    with torch.no_grad():
        return _array(f(torch.as_tensor(points, dtype=parameter.dtype, device=parameter.device)))
