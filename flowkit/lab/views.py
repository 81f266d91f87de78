"""The widgets that `play` and `predict` return, as the browser has them: ES modules in static/."""

import html
import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from flowkit.lab.scene import Scene
from flowkit.lab.widgets import Choice, Slider

STATIC = Path(__file__).parent / "static"
STYLE = (STATIC / "lab.css").read_text()


def _module(*names: str) -> str:
    """One ES module of these files: a widget's module cannot import its neighbours."""
    return "".join((STATIC / name).read_text() for name in names)


class Canvas(anywidget.AnyWidget):
    """The widget that `play` returns.

    render(values)   the scene that `draw` makes of these values, by default the first ones; errors are raised
    corners()        every combination of the lowest, middle and highest value of each slider and all options
    In the notebook nothing is raised: an error's message takes the place of the summary; the picture stays.
    """

    _esm = _module("keys.js", "paint.js", "canvas.js")
    _css = STYLE
    controls = traitlets.List(traitlets.Dict()).tag(sync=True)
    first = traitlets.Dict().tag(sync=True)

    def __init__(self, draw: Callable, **controls: Slider | Choice) -> None:
        wrong = [name for name, control in controls.items() if not isinstance(control, (Slider, Choice))]
        if wrong:
            raise ValueError(f"play: {', '.join(wrong)} must be made by slider(...) or choice(...)")
        try:
            inspect.signature(draw).bind(None, **controls)
        except TypeError as error:
            raise ValueError(f"play: draw(scene, {', '.join(controls)}) cannot be called: {error}") from None
        self._draw, self._parts = draw, controls
        first, self._still = self._answer({})
        super().__init__(controls=[part.describe(name) for name, part in controls.items()], first=first)
        self.on_msg(self._on_request)

    def render(self, values: dict | None = None) -> Scene:
        """Calls draw on a fresh scene. Values are snapped to their scale; missing ones are the first ones."""
        values = values or {}
        unknown = set(values) - set(self._parts)
        if unknown:
            raise ValueError(
                f"there is no control {', '.join(sorted(unknown))}; there are {', '.join(self._parts)}"
            )
        scene = Scene()
        summary = self._draw(
            scene, **{name: part.read(values.get(name, part.value)) for name, part in self._parts.items()}
        )
        if not isinstance(summary, str) or not summary.strip():
            raise ValueError("draw must return one sentence that says what the picture shows")
        scene.summary = " ".join(summary.split())
        return scene

    def corners(self) -> list[dict]:
        """The values to test `draw` at."""
        grids = [part.corners() for part in self._parts.values()]
        return [dict(zip(self._parts, corner, strict=True)) for corner in itertools.product(*grids)]

    def _answer(self, values: dict) -> tuple[dict, Scene | None]:
        try:
            scene = self.render(values)
            header, buffers = scene.encode()
            return {"header": header, "buffers": buffers}, scene
        except (Exception, KeyboardInterrupt) as error:  # a student's function may fail in any way
            words = " ".join(str(error).split())[:300]
            return {"error": f"{type(error).__name__}: {words}" if words else type(error).__name__}, None

    def _on_request(self, _: object, content: dict, buffers: object) -> None:
        answer, _ = self._answer(content["values"])
        buffers = answer.pop("buffers", None)
        self.send({**answer, "view": content["view"]}, buffers)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]  # None without a view
        if self._still is None:
            words = self.first["error"]
            static = {"text/plain": words, "text/html": f"<p>{html.escape(words)}</p>"}
        else:
            from flowkit.lab.still import still  # matplotlib loads when a page is made, not before

            static = {"text/plain": self._still.summary, "text/html": still(self._still)}
        return {**data, **static}, metadata


class Prediction(anywidget.AnyWidget):
    """The widget that `predict` returns. `value` is the choice made, or None."""

    _esm = _module("keys.js", "predict.js")
    _css = STYLE
    question = traitlets.Unicode().tag(sync=True)
    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    value = traitlets.Unicode(None, allow_none=True).tag(sync=True)

    @traitlets.validate("value")
    def _known(self, proposal: Any) -> str | None:
        if proposal.value is not None and proposal.value not in self.choices:
            raise traitlets.TraitError(f"the guess must be one of {', '.join(self.choices)}")
        return proposal.value

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]  # None without a view
        items = "".join(f"<li>{html.escape(text)}</li>" for text in self.choices)
        static = {
            "text/plain": "\n".join([self.question, *(f"- {text}" for text in self.choices)]),
            "text/html": f"<p>{html.escape(self.question)}</p><ul>{items}</ul>",
        }
        return {**data, **static}, metadata
