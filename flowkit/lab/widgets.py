"""Interactives: a picture on a canvas, computed in Python, and the native controls that change it.

    def draw(scene, slope):
        scene.axes(x=(-4, 4), y=(-4, 4), xlabel="x", ylabel="z")
        scene.curve(x, slope * x, label="f")
        return f"The slope is {slope:.1f}."

    play(draw, slope=slider(-3, 3, 1.0, step=0.1))

The browser sends the values of the controls and waits for the picture before it sends newer ones, so that a
slow `draw` never falls behind the hand: what is drawn is always the newest value that Python could reach.
"""

import html
import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from flowkit.lab.scene import Scene, decimals, numbers

STATIC = Path(__file__).parent / "static"
STYLE = (STATIC / "lab.css").read_text()


def _module(*names: str) -> str:
    """One ES module of these files: a widget's module cannot import its neighbours."""
    return "".join((STATIC / name).read_text() for name in names)


class Slider:
    """A number between lo and hi; see `slider`."""

    def __init__(self, lo: float, hi: float, value: float, step: float | None, label: str | None) -> None:
        ends = [lo, hi, value] + ([] if step is None else [step])
        whole = all(isinstance(end, int) for end in ends)
        if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends):
            raise ValueError(f"slider: lo, hi, value and step must be finite numbers, not {ends}")
        if not lo < hi or not lo <= value <= hi:
            raise ValueError(f"slider: lo < hi and lo <= value <= hi must hold, not {lo}, {hi}, {value}")
        if step is not None and not 0 < step <= hi - lo:
            raise ValueError(f"slider: step must be positive and at most hi - lo, not {step}")
        self.kind = int if whole else float
        self.lo, self.hi, self.label = lo, hi, label
        self.step = step or (1 if whole else (hi - lo) / 100)
        self.value = self.read(value)

    def read(self, value: Any) -> float:
        """The nearest value on the slider's scale."""
        place = float(numbers(value, "the slider's value", 0).clip(self.lo, self.hi))
        steps = round((place - self.lo) / self.step)
        last = math.floor((self.hi - self.lo) / self.step + 1e-9)
        return self.kind(round(self.lo + min(steps, last) * self.step, 10))

    def corners(self) -> list:
        return sorted({self.read(end) for end in (self.lo, (self.lo + self.hi) / 2, self.hi)})

    def describe(self, name: str) -> dict:
        """What the browser needs to make it."""
        return {
            "kind": "slider", "name": name, "label": self.label or name, "min": self.lo, "max": self.hi,
            "step": self.step, "value": self.value, "digits": decimals(self.lo, self.step),
        }  # fmt: skip


class Choice:
    """One of several options; see `choice`."""

    def __init__(self, options: Iterable | dict, value: Any, label: str | None) -> None:
        self.options = (
            dict(options) if isinstance(options, dict) else {str(option): option for option in options}
        )
        if not self.options or isinstance(options, str):
            raise ValueError("choice: options must be a list or a dict with at least one entry")
        self.label = label
        self.value = next(iter(self.options.values())) if value is None else self.read(value)

    def read(self, value: Any) -> Any:
        """The option itself, or the one shown under this name."""
        if isinstance(value, str) and value in self.options:
            return self.options[value]
        for option in self.options.values():
            if option is value or (type(option) is type(value) and option == value):
                return option
        raise ValueError(f"choice: {value!r} is none of {', '.join(self.options)}")

    def corners(self) -> list:
        return list(self.options.values())

    def describe(self, name: str) -> dict:
        """What the browser needs to make it."""
        shown = next(text for text, option in self.options.items() if option is self.value)
        return {
            "kind": "choice", "name": name, "label": self.label or name,
            "options": list(self.options), "value": shown,
        }  # fmt: skip


def slider(lo: float, hi: float, value: float, step: float | None = None, label: str | None = None) -> Slider:
    """A number between lo and hi. `draw` gets an int when all the numbers given here are ints, else a float.

    step: default 1 for ints, else a hundredth of the range. label: default the name of the argument.
    """
    return Slider(lo, hi, value, step, label)


def choice(options: Iterable | dict, value: Any = None, label: str | None = None) -> Choice:
    """One of a list of options, shown by their str, or of a dict from what is shown to what `draw` gets."""
    return Choice(options, value, label)


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


def play(draw: Callable, **controls: Slider | Choice) -> Canvas:
    """An interactive: draw(scene, **values) fills a Scene and returns one sentence about it.

    Each keyword is an argument of draw, as a slider(...) or choice(...). End a cell with the call to show it.
    Raises ValueError when draw does not take these arguments.
    """
    return Canvas(draw, **controls)


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


def predict(question: str, choices: list[str]) -> Prediction:
    """A question to guess at before the next cell shows the truth. The guess is remembered as `.value`."""
    choices = [] if isinstance(choices, str) else [str(text) for text in choices]
    if not question.strip() or len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError("predict: a question and at least two different choices are needed")
    return Prediction(question=question, choices=choices)
