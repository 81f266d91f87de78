"""A scene: what an interactive shows, as layers of numbers that a canvas (or matplotlib) can draw."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flowkit.lab.colours import BLACK, BLUE, MAPS, rgba

DASHES = ("solid", "dashed", "dotted")
MARKERS = ("circle", "square", "triangle", "cross")
Numbers = Any  # what `numbers` reads (lists, arrays, tensors), and None where it may be left out
LARGEST = 1e30  # float32 ends at 3e38; what lies beyond is off every picture anyway


def numbers(values: Any, name: str, ndim: int | None = None) -> np.ndarray:
    """Anything that holds real numbers, tensors included, as a float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().resolve_conj().numpy()
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold real numbers, and is {_short(values)}") from None
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), and has shape {array.shape}")
    return array


def _short(value: object) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 60 else text[:57] + "..."


def _pairs(x: Numbers, y: Numbers, name: str) -> np.ndarray:
    """Points (N, 2), given as x and y or as one array of points."""
    if y is None:
        points = numbers(x, name, 2)
        if points.shape[1] != 2:
            raise ValueError(f"{name} must be x and y, or points of shape (N, 2), not {points.shape}")
        return points
    x, y = numbers(x, f"{name}: x", 1), numbers(y, f"{name}: y", 1)
    if x.shape != y.shape:
        raise ValueError(f"{name}: x has {len(x)} numbers and y has {len(y)}")
    return np.stack([x, y], -1)


def _finite(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(-1)]


def _gaps(points: np.ndarray) -> np.ndarray:
    """Points that are not finite become NaN in all coordinates: the pen is lifted there."""
    return np.where(np.isfinite(points).all(-1, keepdims=True), points, np.nan)


def _limits(pair: Numbers, name: str) -> tuple[float, float]:
    pair = numbers(pair, f"axes: {name}", 1)
    if pair.shape != (2,) or not np.isfinite(pair).all() or not pair[0] < pair[1]:
        raise ValueError(f"axes: {name} must be (low, high) with low < high, not {pair.tolist()}")
    return float(pair[0]), float(pair[1])


def _one_of(value: str, allowed: Sequence[str], name: str) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
    return value


class Drawing:
    """The methods that draw, shared by Scene and Panel.

    Numbers may be lists, arrays or tensors. Points that are not finite are left out of the picture; any
    other argument that cannot be drawn raises ValueError. `colour` is a constant of `flowkit.lab.plots`, or
    any colour that both HTML and matplotlib know. A `label` makes an entry in the legend.
    """

    def _panel(self) -> "Panel":
        raise NotImplementedError

    def _add(self, kind: str, arrays: dict[str, np.ndarray], **style: object) -> None:
        arrays = {
            name: np.clip(a, -LARGEST, LARGEST) if a.dtype == float else a for name, a in arrays.items()
        }
        self._panel().layers.append({"kind": kind, "arrays": arrays, **style})

    def axes(
        self,
        x: Numbers = None,
        y: Numbers = None,
        xlabel: str = "",
        ylabel: str = "",
        title: str = "",
        equal: bool = False,
        frame: bool = True,
    ) -> None:
        """Limits (low, high) of x and y, by default those of the data, and the words around them.

        equal: one unit is as long in x as in y. frame=False: no axes at all, for drawings that have no scale.
        """
        panel = self._panel()
        panel.limits = {
            "x": None if x is None else _limits(x, "x"),
            "y": None if y is None else _limits(y, "y"),
        }
        panel.words = {"xlabel": str(xlabel), "ylabel": str(ylabel), "title": str(title)}
        panel.equal, panel.frame = bool(equal), bool(frame)

    def curve(
        self,
        x: Numbers,
        y: Numbers = None,
        colour: str = BLUE,
        label: str | None = None,
        width: float = 2.0,
        dash: str = "solid",
        alpha: float = 1.0,
    ) -> None:
        """A line through points; it breaks where a number is not finite. dash: solid, dashed or dotted."""
        path = _gaps(_pairs(x, y, "curve"))
        dash = _one_of(dash, DASHES, "curve: dash")
        self._add("curve", {"paths": path}, colour=colour, label=label, width=width, dash=dash, alpha=alpha)

    def lines(
        self,
        paths: Iterable[Numbers],
        colour: str = BLUE,
        label: str | None = None,
        width: float = 1.0,
        dash: str = "solid",
        alpha: float = 1.0,
    ) -> None:
        """Many lines: an array (L, N, 2), or a list of arrays (N_i, 2). A warped grid is one such layer."""
        paths = [_gaps(_pairs(path, None, "lines")) for path in paths]
        gap = np.full((1, 2), np.nan)
        joined = np.concatenate([part for path in paths for part in (path, gap)] or [gap])
        dash = _one_of(dash, DASHES, "lines: dash")
        self._add("curve", {"paths": joined}, colour=colour, label=label, width=width, dash=dash, alpha=alpha)

    def area(
        self,
        x: Numbers,
        y: Numbers,
        y0: Numbers = 0.0,
        colour: str = BLUE,
        label: str | None = None,
        alpha: float = 0.3,
        hatch: bool = False,
    ) -> None:
        """What lies between y and y0 (a number, or as many numbers as x). hatch tells two areas apart."""
        top = _pairs(x, y, "area")
        try:
            bottom = np.broadcast_to(numbers(y0, "area: y0"), top[:, 1].shape)
        except ValueError:
            raise ValueError(f"area: y0 must be a number or {len(top)} numbers") from None
        points = _finite(np.column_stack([top, bottom]))
        ring = np.concatenate([points[:, :2], points[::-1, [0, 2]]])
        self._add(
            "polygon", {"ring": ring}, colour=colour, label=label, alpha=alpha, hatch=bool(hatch), width=0.0
        )

    def polygon(
        self,
        x: Numbers,
        y: Numbers = None,
        colour: str = BLUE,
        label: str | None = None,
        alpha: float = 0.3,
        width: float = 2.0,
        hatch: bool = False,
    ) -> None:
        """A filled closed shape with an outline (width=0: none)."""
        ring = _finite(_pairs(x, y, "polygon"))
        self._add(
            "polygon", {"ring": ring}, colour=colour, label=label, alpha=alpha, hatch=bool(hatch), width=width
        )

    def points(
        self,
        x: Numbers,
        y: Numbers = None,
        colour: str = BLUE,
        label: str | None = None,
        size: float = 5.0,
        marker: str = "circle",
        alpha: float = 1.0,
        values: Numbers = None,
        colours: str = "viridis",
    ) -> None:
        """Markers `size` pixels wide. values: a number for each point, shown by the colour map `colours`."""
        points = _pairs(x, y, "points")
        keep = np.isfinite(points).all(-1)
        arrays = {"at": points[keep]}
        if values is not None:
            values = numbers(values, "points: values", 1)
            if values.shape != keep.shape:
                raise ValueError(f"points: {len(values)} values for {len(points)} points")
            arrays["rgba"] = self._colours(values, colours, None, None)[keep]
        marker = _one_of(marker, MARKERS, "points: marker")
        self._add("points", arrays, colour=colour, label=label, size=size, marker=marker, alpha=alpha)

    def image(
        self,
        values: Numbers,
        extent: Numbers,
        low: float | None = None,
        high: float | None = None,
        colours: str = "viridis",
        smooth: bool = False,
        upper: bool = False,
    ) -> None:
        """Numbers as colours: values[i, j] (rows, columns) fills a cell of extent = (x0, x1, y0, y1).

        Row 0 is at the bottom, as np.meshgrid(x, y) lays it out; upper=True puts it at the top, as in a
        matrix. low, high: the numbers at the ends of the map (default: the smallest and the largest).
        NaN is transparent. colours: viridis, diverging or grey.
        """
        values = numbers(values, "image", 2)
        if not values.size:
            raise ValueError(f"image: values are empty, of shape {values.shape}")
        extent = numbers(extent, "image: extent", 1)
        if extent.shape != (4,) or not np.isfinite(extent).all():
            raise ValueError("image: extent must be four finite numbers (x0, x1, y0, y1)")
        x, y = _limits(extent[:2], "image: extent x"), _limits(extent[2:], "image: extent y")
        pixels = self._colours(values, colours, low, high)
        top_first = pixels if upper else pixels[::-1]
        self._add(
            "image", {"rgba": np.ascontiguousarray(top_first)}, x=x, y=y, smooth=bool(smooth), label=None
        )

    @staticmethod
    def _colours(values: np.ndarray, colours: str, low: float | None, high: float | None) -> np.ndarray:
        finite = values[np.isfinite(values)]
        low = float(finite.min() if finite.size else 0.0) if low is None else float(low)
        high = float(finite.max() if finite.size else 1.0) if high is None else float(high)
        return rgba(values, _one_of(colours, MAPS, "colours"), low, high)

    def bars(
        self,
        x: Numbers,
        heights: Numbers,
        width: float = 0.8,
        base: float = 0.0,
        colour: str = BLUE,
        label: str | None = None,
        alpha: float = 0.85,
        hatch: bool = False,
    ) -> None:
        """Bars centred on x, from base to base + height."""
        points = _finite(_pairs(x, heights, "bars"))
        at, height = points.T
        boxes = np.stack([at - width / 2, at + width / 2, np.full_like(at, base), base + height], -1)
        self._add("bars", {"boxes": boxes}, colour=colour, label=label, alpha=alpha, hatch=bool(hatch))

    def text(
        self, x: float, y: float, words: str, colour: str = BLACK, size: float = 12, align: str = "center"
    ) -> None:
        """Words at a point. align: left, center or right of it is where the words' own edge lies."""
        at = _finite(numbers([[float(x), float(y)]], "text"))
        align = _one_of(align, ("left", "center", "right"), "text: align")
        self._add("text", {"at": at}, words=str(words), colour=colour, size=size, align=align, label=None)

    def arrow(
        self,
        x0: Numbers,
        y0: Numbers,
        x1: Numbers,
        y1: Numbers,
        colour: str = BLACK,
        label: str | None = None,
        width: float = 2.0,
        alpha: float = 1.0,
    ) -> None:
        """Arrows from (x0, y0) to (x1, y1): numbers for one, or arrays of one shape for a field of them."""
        ends = [numbers(end, "arrow") for end in (x0, y0, x1, y1)]
        try:
            rows = np.stack([end.ravel() for end in np.broadcast_arrays(*ends)], -1)
        except ValueError:
            raise ValueError(f"arrow: ends of shapes {', '.join(str(e.shape) for e in ends)}") from None
        self._add("arrow", {"ends": _finite(rows)}, colour=colour, label=label, width=width, alpha=alpha)


class Panel(Drawing):
    """One pair of axes and its layers."""

    def __init__(self) -> None:
        self.layers: list[dict] = []
        self.limits: dict[str, tuple[float, float] | None] = {"x": None, "y": None}
        self.words = {"xlabel": "", "ylabel": "", "title": ""}
        self.equal, self.frame = False, True

    def _panel(self) -> "Panel":
        return self

    def fitted(self) -> dict:
        """The limits; where none were given, those of the data (with a margin, unless an image fills it)."""
        return {axis: given or self._around(k) for k, (axis, given) in enumerate(self.limits.items())}

    def _around(self, k: int) -> tuple[float, float]:
        parts = [corners[..., k].ravel() for layer in self.layers for corners in _corners(layer)]
        seen = np.concatenate(parts or [np.zeros(0)])
        seen = seen[np.isfinite(seen)]
        if not seen.size:
            return 0.0, 1.0
        low, high = float(seen.min()), float(seen.max())
        tight = high > low and any(layer["kind"] == "image" for layer in self.layers)
        margin = 0.0 if tight else 0.04 * (high - low) or max(1e-3, 0.5 * abs(low))
        return low - margin, high + margin

    def describe(self) -> str:
        """The panel in words, for those who do not see it."""
        words = self.words
        labels = ", ".join(str(layer["label"]) for layer in self.layers if layer["label"])
        plane = f"{words['ylabel']} against {words['xlabel']}" if words["xlabel"] and words["ylabel"] else ""
        return ": ".join(part for part in (words["title"], plane, labels) if part)


def _corners(layer: dict) -> Iterator[np.ndarray]:
    """Arrays (..., 2) that hold the extremes of a layer."""
    if layer["kind"] == "image":
        yield np.array([layer["x"], layer["y"]]).T
    for name, array in layer["arrays"].items():
        if name == "boxes":
            yield array[:, [0, 2]]
            yield array[:, [1, 3]]
        elif name == "ends":
            yield array.reshape(-1, 2)
        elif name != "rgba":
            yield array


class Scene(Drawing):
    """What `draw(scene, ...)` fills: one panel, or several side by side.

    panel(i, of=n) returns panel i, and makes it the one that the scene's own methods draw in.
    """

    def __init__(self) -> None:
        self.panels = [Panel()]
        self._current = self.panels[0]
        self.summary = ""

    def _panel(self) -> "Panel":
        return self._current

    def panel(self, i: int, of: int) -> Panel:
        """Panel i of n, counted from 0, left to right."""
        if not 0 <= i < of:
            raise ValueError(f"panel({i}, of={of}): panels are counted from 0 to {of - 1}")
        self.panels += [Panel() for _ in range(of - len(self.panels))]
        self._current = self.panels[i]
        return self._current

    def describe(self) -> str:
        """What the picture shows, from its titles, axes and labels."""
        return "; ".join(words for panel in self.panels if (words := panel.describe())) or "A drawing"

    def encode(self) -> tuple[dict, list[bytes]]:
        """The scene as a header (JSON) and binary buffers; a layer's arrays are indices into the buffers.

        Coordinates are float32, colours uint8 (RGBA); everything is little-endian and row by row.
        """
        buffers: list[bytes] = []

        def store(array: np.ndarray) -> dict:
            kind = "<f4" if array.dtype == float else "u1"
            buffers.append(np.ascontiguousarray(array, kind).tobytes())
            return {"buffer": len(buffers) - 1, "shape": list(array.shape)}

        panels = [
            {
                **panel.fitted(),
                **panel.words,
                "equal": panel.equal,
                "frame": panel.frame,
                "layers": [
                    {
                        **{name: value for name, value in layer.items() if name != "arrays"},
                        **{name: store(array) for name, array in layer["arrays"].items()},
                    }
                    for layer in panel.layers
                ],
            }
            for panel in self.panels
        ]
        return {"panels": panels, "summary": self.summary, "picture": self.describe()}, buffers


def decimals(*steps: float) -> int:
    """How many digits after the point these numbers need, at most 6."""
    return max(
        (next((d for d in range(6) if math.isclose(round(s, d), s, abs_tol=1e-9)), 6) for s in steps),
        default=0,
    )
