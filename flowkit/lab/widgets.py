"""Interactives: a picture on a canvas, computed in Python, and the native controls that change it.

    def draw(scene, slope):
        scene.axes(x=(-4, 4), y=(-4, 4), xlabel="x", ylabel="z")
        scene.curve(x, slope * x, label="f")
        return f"The slope is {slope:.1f}."

    play(draw, slope=slider(-3, 3, 1.0, step=0.1))

The browser sends the values of the controls and waits for the picture before it sends newer ones, so that a
slow `draw` never falls behind the hand: what is drawn is always the newest value that Python could reach.

What the browser shows is in `views`, which loads when something is shown: a submission that is graded only
imports this, and shows nothing.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flowkit.lab.scene import decimals, numbers

if TYPE_CHECKING:
    from flowkit.lab.views import Canvas, Prediction


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


def play(draw: Callable, **controls: Slider | Choice) -> "Canvas":
    """An interactive: draw(scene, **values) fills a Scene and returns one sentence about it.

    Each keyword is an argument of draw, as a slider(...) or choice(...). End a cell with the call to show it.
    Raises ValueError when draw does not take these arguments.
    """
    from flowkit.lab.views import Canvas

    return Canvas(draw, **controls)


def predict(question: str, choices: list[str]) -> "Prediction":
    """A question to guess at before the next cell shows the truth. The guess is remembered as `.value`."""
    choices = [] if isinstance(choices, str) else [str(text) for text in choices]
    if not question.strip() or len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError("predict: a question and at least two different choices are needed")
    from flowkit.lab.views import Prediction

    return Prediction(question=question, choices=choices)
