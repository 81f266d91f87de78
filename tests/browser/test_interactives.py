"""Interactives as a student meets them: in JupyterLab, by mouse and keyboard, in both themes and narrow."""

import pytest
from jupyterlab_pages import choose

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LESSON = [
    """
import numpy as np
from flowkit.lab import plots
from flowkit.lab.widgets import play, slider, choice, predict
x = np.linspace(-4, 4, 300)
def bell(scene, slope, kind):
    p = abs(slope) / np.sqrt(2 * np.pi) * np.exp(-((slope * x) ** 2) / 2)
    scene.axes(x=(-4, 4), y=(0, 1.25), xlabel="x", ylabel="density", title="One bell")
    scene.area(x, p, hatch=kind == "hatched")
    scene.curve(x, p, label="p_X")
    scene.points([0, 1], [p.max(), 0], colour=plots.ORANGE, marker="cross", size=10, label="peak")
    scene.text(2, 1, "mass is conserved")
    return f"Slope {slope:.1f}: the density peaks at {p.max():.2f}."
play(bell, slope=slider(-3, 3, 1.0, step=0.1, label="slope"), kind=choice(["plain", "hatched"], label="area"))
""",
    """
X, Y = np.meshgrid(*2 * [np.linspace(-3, 3, 21)])
def warp(scene, bend):
    if bend > 1.5:
        raise ValueError("the bend is too strong")
    P = np.stack([X + bend * np.sin(Y), Y + bend * np.cos(X) / 2], -1)
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    left.axes(x=(-5, 5), y=(-5, 5), xlabel="z_1", ylabel="z_2", title="Grid", equal=True)
    left.lines(np.concatenate([P, P.swapaxes(0, 1)]), label="image of the grid")
    left.polygon(P[10:12, 10:12].reshape(4, 2)[[0, 1, 3, 2]], colour=plots.RED, label="a cell")
    left.arrow(0, 0, 2, 2, label="column")
    right.axes(xlabel="x_1", ylabel="x_2", title="Density", equal=True)
    right.image(np.exp(-((X - bend * np.sin(Y)) ** 2) - Y**2 / 2), extent=(-3, 3, -3, 3))
    right.bars([-2, -1], [1, 2], colour=plots.GREEN, label="bars")
    return f"The grid is bent by {bend:.1f}."
play(warp, bend=slider(-2, 2, 0.5, step=0.1))
""",
    'guess = predict("When the slope doubles, the peak ...", ["doubles", "halves", "stays"])\nguess',
    "print('guessed', guess.value)",
]
PIXELS = "canvas => canvas.toDataURL()"


@pytest.fixture(scope="module")
def page(lab):
    lab.write("lesson.ipynb", *LESSON)
    page = lab.page("lesson.ipynb", height=1400)
    page.wait_for_selector(".flowkit-widget fieldset")
    yield page
    page.close()


@pytest.fixture
def bell(page):
    return Interactive(page, 0)


class Interactive:
    """The n-th interactive of a page."""

    def __init__(self, page, n):
        self.page = page
        self.root = page.locator(".flowkit-widget:has(canvas)").nth(n)
        self.canvas = self.root.locator("canvas")
        self.slider = self.root.locator("input[type=range]").first
        self.summary = self.root.locator("[aria-live=polite]")
        self.root.scroll_into_view_if_needed()
        self.canvas.wait_for()

    def pixels(self):
        """What is drawn, once it has stopped changing."""
        self.page.wait_for_timeout(150)
        return self.canvas.evaluate(PIXELS)

    def says(self, words):
        self.summary.filter(has_text=words).wait_for(timeout=15_000)


def test_dragging_with_the_mouse_changes_the_picture_and_the_summary(bell):
    before = bell.pixels()
    box = bell.slider.bounding_box()
    y = box["y"] + box["height"] / 2
    bell.page.mouse.move(box["x"] + box["width"] * 4 / 6, y)
    bell.page.mouse.down()
    for part in range(8, 13):
        bell.page.mouse.move(box["x"] + box["width"] * part / 12, y)
    bell.page.mouse.up()
    bell.says("Slope 3.0: the density peaks at 1.20.")
    assert bell.pixels() != before
    assert bell.root.locator(".flowkit-value").inner_text() == "3.0"
    bell.page.keyboard.press("ArrowLeft")
    bell.says("Slope 2.9")


def test_arrow_keys_move_the_slider_and_stay_out_of_the_notebook(bell):
    bell.slider.evaluate("range => { range.value = 1; range.dispatchEvent(new Event('input')); }")
    bell.says("Slope 1.0")
    before = bell.pixels()
    bell.slider.focus()
    for _ in range(3):
        bell.page.keyboard.press("ArrowRight")
    bell.says("Slope 1.3")
    assert bell.pixels() != before
    bell.page.keyboard.press("ArrowDown")
    bell.says("Slope 1.2")
    bell.page.keyboard.press("Home")
    bell.says("Slope -3.0")
    assert bell.slider.get_attribute("aria-valuetext") == "-3.0"
    assert bell.slider.evaluate("range => range === document.activeElement")


def test_a_choice_is_labelled_and_changes_the_picture(bell):
    before = bell.pixels()
    bell.root.get_by_label("area").select_option("hatched")
    bell.page.wait_for_timeout(500)
    assert bell.pixels() != before


def test_a_burst_of_moves_ends_at_the_newest_value(bell):
    values = "range => { for (let k = 0; k <= 40; k++) { range.value = k / 20;"
    bell.slider.evaluate(values + " range.dispatchEvent(new Event('input')); } }")
    bell.says("Slope 2.0")


def test_the_picture_is_named_for_those_who_do_not_see_it(bell):
    assert bell.canvas.get_attribute("role") == "img"
    assert bell.canvas.get_attribute("aria-label") == "One bell: density against x: p_X, peak"
    assert bell.root.get_by_label("slope").count() == 1
    bell.page.wait_for_timeout(600)
    assert bell.summary.get_attribute("aria-busy") == "false"


def test_an_error_takes_the_summary_and_leaves_the_picture_and_the_widget_alive(page):
    warp = Interactive(page, 1)
    before = warp.pixels()
    warp.slider.focus()
    page.keyboard.press("End")
    warp.says("ValueError: the bend is too strong")
    assert warp.pixels() == before
    page.keyboard.press("Home")
    warp.says("The grid is bent by -2.0.")
    assert warp.pixels() != before


def test_a_guess_is_noted_and_reaches_python(page):
    question = page.get_by_role("group", name="When the slope doubles, the peak ...")
    question.get_by_label("doubles").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.get_by_text("Your guess is noted: run the next cell to see.").wait_for()
    page.locator(".jp-CodeCell").nth(3).locator(".jp-InputArea-editor").click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("guessed halves").wait_for()


def test_after_a_restart_of_the_kernel_the_summary_says_what_to_do(lab):
    lab.write("restart.ipynb", LESSON[0])
    page = lab.page("restart.ipynb")
    bell = Interactive(page, 0)
    bell.says("Slope 1.0")
    choose(page, "Kernel", "Restart Kernel…")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    page.locator(".jp-Notebook-ExecutionIndicator:not([data-status=idle])").wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    bell.slider.focus()
    page.keyboard.press("ArrowRight")
    bell.says("after a restart, run this cell again")
    page.close()


@pytest.mark.parametrize(
    ("name", "dark", "width"), [("light", False, 1200), ("dark", True, 1200), ("narrow", False, 420)]
)
def test_the_picture_fits_its_page_and_its_theme(lab, artefacts, name, dark, width):
    lab.write(f"{name}.ipynb", *LESSON)
    page = lab.page(f"{name}.ipynb", dark=dark, width=width, height=1400)
    try:
        for n in range(2):
            interactive = Interactive(page, n)
            interactive.pixels()
            interactive.root.screenshot(path=artefacts / f"interactive-{name}-{n}.png")
            widths = interactive.canvas.evaluate("c => [c.width, c.clientWidth, c.parentElement.clientWidth]")
            assert widths[0] == 2 * widths[1] == 2 * widths[2]
            assert interactive.root.evaluate("root => root.scrollWidth <= root.clientWidth")
        ink = interactive.canvas.evaluate(TEXT_BRIGHTNESS)
        assert ink > 200 if dark else ink < 60
    finally:
        page.close()


def test_words_that_have_no_room_are_broken_or_moved_and_never_cut(lab):
    lab.write("words.ipynb", WORDY)
    page = lab.open("words.ipynb", width=560)
    page.evaluate(WATCH_WORDS)
    choose(page, "Run", "Run All Cells")
    Interactive(page, 0).says("Drawn.")
    said = page.evaluate("window.said")
    assert {"from the left", "to the right"} < {words for words, *_ in said}
    assert not any(words.startswith("a title") and words.endswith("narrow") for words, *_ in said)
    for words, start, end, width in said:
        assert start >= 0, words
        assert end <= width, words
    page.close()


WORDY = """
from flowkit.lab.widgets import play, slider
def wordy(scene, at):
    for i in range(2):
        panel = scene.panel(i, of=2)
        panel.axes(x=(0, 1), y=(0, 1), title="a title that is long, for panels that are narrow", frame=False)
        panel.text(0.98, 0.2, "from the left", align="left")
        panel.text(0.02, 0.8, "to the right", align="right")
    return "Drawn."
play(wordy, at=slider(0, 1, 0.5))
"""
# Keeps all words that are drawn, where they begin and end, and how wide their canvas is.
WATCH_WORDS = """() => {
  window.said = [];
  const pens = CanvasRenderingContext2D.prototype;
  const draw = pens.fillText;
  pens.fillText = function (words, x, y) {
    const { actualBoundingBoxLeft: left, actualBoundingBoxRight: right } = this.measureText(words);
    const at = this.getTransform().transformPoint(new DOMPoint(x, y)).x / devicePixelRatio;
    window.said.push([words, at - left, at + right, this.canvas.clientWidth]);
    draw.call(this, words, x, y);
  };
}"""


# The brightness of the axes' words, the most opaque grey pixels left of the first panel.
TEXT_BRIGHTNESS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, canvas.height / 5, 60, canvas.height / 2);
  const grey = [];
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 220) grey.push(data[i]);
  return grey.reduce((sum, g) => sum + g, 0) / grey.length;
}"""
