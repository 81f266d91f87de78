"""A scene as an image, for pages that no kernel stands behind."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from flowkit.lab import plots
from flowkit.lab.scene import Scene

_DASH = {"solid": "-", "dashed": "--", "dotted": ":"}
_MARK = {"circle": "o", "square": "s", "triangle": "^", "cross": "x"}


def still(scene: Scene) -> str:
    """The scene as an HTML figure; its summary is the alternative text and the caption."""
    fig, axes = plots.figure(1, len(scene.panels), squeeze=False)
    for ax, panel in zip(axes[0], scene.panels, strict=True):
        for depth, layer in enumerate(panel.layers):
            before = set(ax.get_children())
            _PAINT[layer["kind"]](ax, layer, layer["arrays"])
            for artist in (
                set(ax.get_children()) - before
            ):  # later layers cover earlier ones, as on the canvas
                artist.set_zorder(1 + depth / len(panel.layers))
        limits, words = panel.fitted(), panel.words
        ax.set(xlim=limits["x"], ylim=limits["y"], **words)
        ax.set_aspect("equal" if panel.equal else "auto")
        if not panel.frame:
            ax.set_axis_off()
        _legend(ax, words["title"])
    return plots.html(fig, alt=scene.summary, caption=scene.summary, dpi=120)


def _legend(ax: Axes, title: str) -> None:
    """The labels in rows between title and panel, as on the canvas: there they cover nothing."""
    labels = ax.get_legend_handles_labels()[1]
    if not labels:
        return
    columns = 2 if max(map(len, labels)) < 24 else 1
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=9, borderpad=0.2
    )
    ax.set_title(title, pad=6 + 16 * math.ceil(len(labels) / columns))


def _curve(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    ax.plot(
        *arrays["paths"].T, color=layer["colour"], label=layer["label"], linewidth=0.75 * layer["width"],
        linestyle=_DASH[layer["dash"]], alpha=layer["alpha"],
    )  # fmt: skip


def _polygon(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    hatch = "///" if layer["hatch"] else None
    fill = {"facecolor": (layer["colour"], layer["alpha"]), "edgecolor": layer["colour"], "hatch": hatch}
    ax.add_patch(Polygon(arrays["ring"], label=layer["label"], linewidth=0.75 * layer["width"], **fill))


def _points(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    colour = arrays["rgba"] / 255 if "rgba" in arrays else layer["colour"]
    area = (0.75 * layer["size"]) ** 2
    x, y = arrays["at"].T
    style = {"label": layer["label"], "marker": _MARK[layer["marker"]], "alpha": layer["alpha"]}
    ax.scatter(x, y, s=area, c=colour, linewidths=1.2 if layer["marker"] == "cross" else 0, **style)


def _image(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    smooth = "bilinear" if layer["smooth"] else "nearest"
    ax.imshow(arrays["rgba"], extent=(*layer["x"], *layer["y"]), interpolation=smooth, aspect="auto")


def _bars(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    hatch = "///" if layer["hatch"] else None
    label = layer["label"]
    for left, right, low, high in arrays["boxes"]:
        fill = {"facecolor": (layer["colour"], layer["alpha"]), "edgecolor": layer["colour"], "hatch": hatch}
        ax.add_patch(Rectangle((left, low), right - left, high - low, label=label, **fill))
        label = None


def _text(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    style = {"color": layer["colour"], "fontsize": 0.75 * layer["size"], "ha": layer["align"], "va": "center"}
    for x, y in arrays["at"]:
        ax.text(x, y, layer["words"], **style)


def _arrow(ax: Axes, layer: dict, arrays: dict[str, np.ndarray]) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": layer["colour"],
        "alpha": layer["alpha"],
        "shrinkA": 0,
        "shrinkB": 0,
    }
    for x0, y0, x1, y1 in arrays["ends"]:
        ax.annotate("", (x1, y1), (x0, y0), arrowprops={**style, "linewidth": 0.75 * layer["width"]})
    if layer["label"]:
        ax.plot([], [], color=layer["colour"], label=layer["label"])


_PAINT = {
    "curve": _curve,
    "polygon": _polygon,
    "points": _points,
    "image": _image,
    "bars": _bars,
    "text": _text,
    "arrow": _arrow,
}
