"""What a scene encodes, what the controls accept, and what stands in without a kernel or after an error."""

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
import torch
from traitlets import TraitError

from flowkit.lab.colours import rgba
from flowkit.lab.scene import Scene
from flowkit.lab.still import still
from flowkit.lab.widgets import choice, play, predict, slider


def drawn(*layers, **axes):
    """A scene with these layers, each a method's name and its arguments."""
    scene = Scene()
    scene.axes(**axes)
    for name, args, style in layers:
        getattr(scene, name)(*args, **style)
    return scene


def decode(scene):
    """The panels of an encoded scene, its arrays put back in place."""
    header, buffers = scene.encode()
    for panel in header["panels"]:
        for layer in panel["layers"]:
            for name, value in layer.items():
                if isinstance(value, dict):
                    kind = np.uint8 if name == "rgba" else "<f4"
                    layer[name] = np.frombuffer(buffers[value["buffer"]], kind).reshape(value["shape"])
    return header["panels"]


def only_layer(name, *args, **style):
    return decode(drawn((name, args, style)))[0]["layers"][0]


def slope_scene(scene, slope):
    scene.axes(x=(-1, 1), y=(-3, 3), xlabel="x", ylabel="z")
    scene.curve([-1, 1], [-slope, slope], label="f")
    return f"The slope is {slope:.1f}."


def image_of(html):
    data = re.search(r'base64,([^"]+)"', html)[1]
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    "make", [list, np.array, torch.tensor, lambda v: torch.tensor(v, requires_grad=True)]
)
def test_a_curve_holds_its_points_whatever_holds_the_numbers(make):
    layer = only_layer("curve", make([0.0, 1.0, 2.0]), make([1.0, 0.5, 4.0]), label="p", dash="dashed")
    assert layer["paths"].tolist() == [[0, 1], [1, 0.5], [2, 4]]
    assert (layer["label"], layer["dash"]) == ("p", "dashed")


def test_a_curve_is_broken_and_points_are_dropped_where_numbers_are_not_finite():
    x, y = [0, 1, 2, 3], [0, np.nan, np.inf, 5]
    assert np.isnan(only_layer("curve", x, y)["paths"]).tolist() == [
        [False] * 2,
        [True] * 2,
        [True] * 2,
        [False] * 2,
    ]
    assert only_layer("points", x, y)["at"].tolist() == [[0, 0], [3, 5]]
    assert only_layer("bars", x, y)["boxes"][:, 3].tolist() == [0, 5]
    assert only_layer("points", x, y, values=[0, 1, 2, 3])["rgba"].shape == (2, 4)


def test_numbers_beyond_single_precision_stay_finite():
    assert np.isfinite(only_layer("curve", [0, 1], [-1e300, 1e300])["paths"]).all()


def test_lines_are_separated_by_gaps():
    grid = np.arange(12.0).reshape(2, 3, 2)
    paths = only_layer("lines", grid)["paths"]
    assert np.isnan(paths[[3, 7]]).all()
    np.testing.assert_array_equal(paths[[0, 1, 2, 4, 5, 6]], grid.reshape(-1, 2))


def test_an_area_runs_forth_along_y_and_back_along_y0():
    ring = only_layer("area", [0, 1], [2, 3], y0=[-1, -2])["ring"]
    assert ring.tolist() == [[0, 2], [1, 3], [1, -2], [0, -1]]


def test_an_image_has_its_first_row_at_the_bottom_unless_told_otherwise():
    values = np.array([[0.0, 0.0], [1.0, np.nan]])
    pixels = only_layer("image", values, (0, 1, 0, 1))["rgba"]
    assert pixels[1, 0].tolist() == [0x44, 0x01, 0x54, 255]
    assert pixels[0, 0].tolist() == [0xFD, 0xE7, 0x25, 255]
    assert pixels[0, 1].tolist() == [0, 0, 0, 0]
    assert (
        only_layer("image", values, (0, 1, 0, 1), upper=True)["rgba"][0, 0].tolist() == pixels[1, 0].tolist()
    )


def test_colour_maps_agree_with_matplotlib():
    t = np.linspace(0, 1, 101)
    for ours, theirs in [("viridis", "viridis"), ("diverging", "PuOr"), ("grey", "gray")]:
        expected = matplotlib.colormaps[theirs](t) * 255
        assert np.abs(rgba(t, ours) - expected).max() < 8


def test_bars_arrows_text_and_polygons_hold_what_was_asked():
    assert only_layer("bars", [1], [2], width=0.5, base=1)["boxes"].tolist() == [[0.75, 1.25, 1, 3]]
    assert only_layer("arrow", 0, [0, 1], 1, 2)["ends"].tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]
    assert only_layer("text", 1, 2, "det J")["words"] == "det J"
    assert only_layer("polygon", [[0, 0], [1, 0], [1, 1]])["ring"].shape == (3, 2)


def test_panels_are_drawn_apart_and_limits_fit_the_data():
    scene = Scene()
    left = scene.panel(0, of=2)
    scene.curve([0, 1], [0, 100])
    scene.panel(1, of=2)
    scene.points([5], [5])
    left.curve([0, 2], [0, 0])
    panels = decode(scene)
    assert [len(panel["layers"]) for panel in panels] == [2, 1]
    assert panels[0]["x"] == pytest.approx((-0.08, 2.08))
    assert panels[0]["y"] == pytest.approx((-4, 104))
    assert panels[1]["x"][0] < 5 < panels[1]["x"][1]


@pytest.mark.parametrize(
    ("name", "args", "style", "words"),
    [
        ("curve", ([0, 1], [0]), {}, "x has 2 numbers and y has 1"),
        ("curve", ([0, 1], ["a", "b"]), {}, "must hold real numbers"),
        ("curve", (np.zeros((3, 3)),), {}, r"shape \(N, 2\)"),
        ("curve", ([0], [0]), {"dash": "wavy"}, "solid, dashed, dotted"),
        ("points", ([0], [0]), {"marker": "star"}, "circle, square"),
        ("points", ([0], [0]), {"values": [1, 2]}, "2 values for 1 points"),
        ("area", ([0, 1], [0, 1]), {"y0": [1, 2, 3]}, "a number or 2 numbers"),
        ("image", (np.zeros(3), (0, 1, 0, 1)), {}, "2 dimension"),
        ("image", (np.zeros((0, 3)), (0, 1, 0, 1)), {}, "empty"),
        ("image", (np.zeros((2, 2)), (0, 1)), {}, "four finite numbers"),
        ("image", (np.zeros((2, 2)), (0, 1, 0, 1)), {"colours": "jet"}, "viridis"),
        ("arrow", (0, [1, 2], [1, 2, 3], 0), {}, "shapes"),
        ("axes", (), {"x": (1, 1)}, "low < high"),
        ("axes", (), {"y": (0, np.nan)}, "low < high"),
        ("panel", (2,), {"of": 2}, "counted from 0 to 1"),
    ],
)
def test_what_cannot_be_drawn_raises_and_says_why(name, args, style, words):
    with pytest.raises(ValueError, match=words):
        getattr(Scene(), name)(*args, **style)


def test_a_slider_keeps_to_its_scale():
    tenth = slider(-3, 3, 1.0, step=0.1)
    assert tenth.read(0.30000001) == 0.3
    assert tenth.read(99) == 3
    assert isinstance(slider(1, 10, 3).value, int)
    assert isinstance(slider(0, 2, 0.0).value, float)
    assert slider(0, 1.0, 0, step=0.3).corners() == [0, 0.6, 0.9]  # 1.0 is not on the scale


@pytest.mark.parametrize(
    "args", [(1, 0, 0), (0, 1, 2), (0, 1, 0.5, 0), (0, 1, 0.5, 3), (0, float("inf"), 1), ("a", 1, 1)]
)
def test_a_slider_that_makes_no_sense_is_refused(args):
    with pytest.raises(ValueError, match="slider"):
        slider(*args)


def test_a_choice_hands_over_the_option_itself():
    options = {"sine": np.sin, "cosine": np.cos}
    picked = choice(options, value="cosine", label="f")
    assert picked.value is np.cos
    assert picked.read("sine") is np.sin
    assert picked.describe("f")["value"] == "cosine"
    assert choice([False, True]).read("True") is True
    with pytest.raises(ValueError, match="none of sine, cosine"):
        picked.read("tangent")
    with pytest.raises(ValueError, match="at least one"):
        choice([])


def test_corners_are_every_combination():
    def draw(scene, a, b, kind):
        return "Nothing."

    widget = play(draw, a=slider(0, 10, 5), b=slider(-1, 1, 0.5), kind=choice(["p", "q"]))
    corners = widget.corners()
    assert len(corners) == 3 * 3 * 2
    assert {corner["b"] for corner in corners} == {-1, 0, 1}
    for corner in corners:
        assert widget.render(corner).summary == "Nothing."


def test_the_browser_is_answered_with_the_newest_picture_or_the_error():
    def draw(scene, k):
        scene.curve([0, 1], [0, 1 / k])
        return f"k is {k}."

    widget, sent = play(draw, k=slider(0, 5, 2)), []
    widget.send = lambda content, buffers=None: sent.append((content, buffers))
    widget._on_request(widget, {"view": "a", "values": {"k": 4}}, [])
    widget._on_request(widget, {"view": "a", "values": {"k": 0}}, [])
    (picture, buffers), (failure, nothing) = sent
    assert (picture["view"], picture["header"]["summary"]) == ("a", "k is 4.")
    assert np.frombuffer(buffers[0], "<f4").tolist() == [0, 0, 1, 0.25]
    assert failure == {"view": "a", "error": "ZeroDivisionError: division by zero"}
    assert nothing is None
    with pytest.raises(ZeroDivisionError):
        widget.render({"k": 0})


def test_a_draw_that_does_not_fit_its_controls_is_refused():
    with pytest.raises(ValueError, match="cannot be called"):
        play(slope_scene, steepness=slider(0, 1, 0.5))
    with pytest.raises(ValueError, match="slope must be made by slider"):
        play(slope_scene, slope=(0, 1))
    with pytest.raises(ValueError, match="no control shift"):
        play(slope_scene, slope=slider(0, 1, 0.5)).render({"shift": 1})
    with pytest.raises(ValueError, match="one sentence"):
        play(lambda scene: None).render()


def test_a_page_without_a_kernel_shows_the_first_picture_with_its_summary():
    widget = play(slope_scene, slope=slider(-3, 3, 1.0, step=0.1))
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == "The slope is 1.0."
    assert '<img alt="The slope is 1.0."' in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert image_of(data["text/html"])[..., :3].std() > 0.01


def test_every_kind_of_layer_leaves_ink_in_the_static_picture():
    blank = image_of(
        play(lambda scene: scene.axes(x=(0, 1), y=(0, 1)) or "Blank.")._repr_mimebundle_()[0]["text/html"]
    )
    layers = {
        "curve": ([0, 1], [0, 1]),
        "lines": ([[[0, 0], [1, 1]]],),
        "area": ([0, 1], [1, 1]),
        "polygon": ([[0, 0], [1, 0], [1, 1]],),
        "points": ([0.5], [0.5]),
        "image": ([[0.0, 1.0]], (0, 1, 0, 1)),
        "bars": ([0.5], [0.7]),
        "text": (0.5, 0.5, "words"),
        "arrow": (0, 0, 1, 1),
    }
    for name, args in layers.items():

        def draw(scene, name=name, args=args):
            scene.axes(x=(0, 1), y=(0, 1))
            getattr(scene, name)(*args)
            return "One layer."

        picture = image_of(play(draw)._repr_mimebundle_()[0]["text/html"])
        assert picture.shape == blank.shape
        assert np.abs(picture - blank).max() > 0.3, name


def test_later_layers_cover_earlier_ones_in_a_still_too():
    def draw(scene):
        scene.axes(x=(0, 1), y=(0, 1), frame=False)
        scene.curve([0, 1], [0.5, 0.5], colour="black", width=6)
        scene.points([[0.5, 0.5]], colour="white", size=40)
        return "A line behind a white disc."

    picture = image_of(play(draw)._repr_mimebundle_()[0]["text/html"])
    row = picture[picture.shape[0] // 2 - 30 : picture.shape[0] // 2 + 30].min(axis=(0, 2))
    middle = len(row) // 2
    assert row[middle - 3 : middle + 3].min() > 0.9
    assert row[len(row) // 4] < 0.1


@pytest.mark.parametrize("words", [["p", "q", "r"], ["a label that is longer than half of the panel"] * 2])
def test_the_legend_of_a_still_covers_neither_panel_nor_title(words, monkeypatch):
    figures = []
    monkeypatch.setattr("flowkit.lab.plots.html", lambda fig, **_: figures.append(fig) or "")
    scene = Scene()
    scene.axes(title="title")
    for k, label in enumerate(words):
        scene.curve([0, 1], [k, k + 1], label=label)
    still(scene)
    figures[0].draw_without_rendering()
    (ax,) = figures[0].axes
    legend, title = ax.get_legend().get_window_extent(), ax.title.get_window_extent()
    assert ax.bbox.y1 <= legend.y0 + 1
    assert legend.y1 <= title.y0 + 1


def test_a_draw_that_fails_at_once_still_makes_a_widget_that_says_so():
    def draw(scene):
        raise NotImplementedError("write <f> first")

    data, _ = play(draw)._repr_mimebundle_()
    assert data["text/html"] == "<p>NotImplementedError: write &lt;f&gt; first</p>"


def test_a_prediction_is_remembered():
    guess = predict("Doubling the slope, the peak ...", ["doubles", "halves"])
    assert guess.value is None
    guess.value = "halves"
    assert guess.value == "halves"
    with pytest.raises(TraitError, match="must be one of"):
        guess.value = "stays"
    assert "<li>doubles</li>" in guess._repr_mimebundle_()[0]["text/html"]


@pytest.mark.parametrize(
    ("question", "choices"), [("", ["a", "b"]), ("q", ["a"]), ("q", ["a", "a"]), ("q", "ab")]
)
def test_a_question_without_choices_is_refused(question, choices):
    with pytest.raises(ValueError, match="predict"):
        predict(question, choices)
