"""A student's way through a lesson in JupyterLab: read, play, guess, answer wrong and right, validate."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyterlab_pages import choose

from autograder.answers import bank

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TOPIC = "change_of_variables"
NOTEBOOK = f"02_{TOPIC}/{TOPIC}.ipynb"
FIRST = "affine_log_density"  # the first exercise
WRONG = "return normal_log_density(a * x + b) - math.log(abs(a))"
RIGHT = "return normal_log_density(a * x + b) + math.log(abs(a))"
PATIENCE = 90_000  # milliseconds; nothing takes a tenth of it where nobody else is at work
BLANK = """({ width, height }) =>
  Object.assign(document.createElement("canvas"), { width, height }).toDataURL()"""
DONE = re.compile(r"\[\d+\]:")


class LessonPage:
    """A lesson, open in JupyterLab. Cells are called by their grade_id, or by what their source holds."""

    def __init__(self, page, path):
        self.page = page
        self.cells = nbformat.read(path, as_version=4).cells

    def names(self, kind):
        """The grade_ids of one kind, say of all that end in _test."""
        names = [cell.metadata.get("nbgrader", {}).get("grade_id", "") for cell in self.cells]
        return [name for name in names if name.endswith(kind)]

    def index(self, what):
        for number, cell in enumerate(self.cells):
            if cell.metadata.get("nbgrader", {}).get("grade_id") == what:
                return number
        return next(
            n for n, cell in enumerate(self.cells) if cell.cell_type == "code" and what in cell.source
        )

    def cell(self, what):
        number = what if isinstance(what, int) else self.index(what)
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"]')

    def output(self, what):
        return self.cell(what).locator(".jp-OutputArea")

    def prompt(self, what):
        return self.cell(what).locator(".jp-InputArea-prompt")

    def select(self, what):
        click(self.prompt(what), "prompt => prompt.closest('.jp-Cell').matches('.jp-mod-active')")

    def run(self, what):
        """Runs one cell, whose code is not folded away, to its end."""
        before = self.prompt(what).inner_text()
        self.select(what)
        self.page.keyboard.press("Control+Enter")
        expect(self.prompt(what)).not_to_have_text(before, timeout=PATIENCE)
        expect(self.prompt(what)).to_have_text(DONE, timeout=PATIENCE)

    def walk(self, start):
        """Shift+Enter from a cell to the last one, as in reading: a cell that fails does not hold it up."""
        self.select(start)
        for number in range(start, len(self.cells)):
            self.page.keyboard.press("Shift+Enter")
            expect(self.cell(number + 1)).to_contain_class("jp-mod-active")
            folded = not self.prompt(number).count()
            if self.cells[number].cell_type == "code" and not folded:
                expect(self.prompt(number)).to_have_text(DONE, timeout=PATIENCE)

    def replace_line(self, what, old, new):
        """Types in place of a line: the cursor behind it, the line selected as far as its indentation."""
        line = self.cell(what).locator(".cm-line").filter(has_text=old)
        click(line, "line => line.contains(getSelection().anchorNode)")
        self.page.keyboard.press("End")
        self.page.keyboard.press("Shift+Home")
        self.page.keyboard.type(new)

    def validate(self):
        """Presses nbgrader's button; returns its dialog."""
        self.page.get_by_role("button", name="Validate").click()
        dialog = self.page.locator(".jp-Dialog")
        expect(dialog).to_contain_text("Validation Results", timeout=PATIENCE)
        return dialog


def click(target, hit):
    """Clicks until it hits: outputs that arrive move the page under the hand."""
    for _ in range(20):
        target.click()
        if target.evaluate(hit):
            return
    raise AssertionError(f"{target} cannot be clicked")


def words(locator):
    """What is to be read there, without the breaks of lines."""
    return " ".join(locator.inner_text().split())


@pytest.fixture
def opened(lab, artefacts):
    """Opens a copy of a notebook under a name of its own; its last state is kept as a picture."""
    pages = {}

    def open_copy(path, name):
        shutil.copy(path, lab.folder / f"{name}.ipynb")
        pages[name] = lab.open(f"{name}.ipynb")
        return LessonPage(pages[name], path)

    yield open_copy
    for name, page in pages.items():
        page.screenshot(path=artefacts / f"{name}-end.png")
        page.close()


@pytest.fixture
def lesson(opened, request):
    """The lesson as it is released."""
    return opened(ROOT / "lessons" / NOTEBOOK, request.node.name.removeprefix("test_"))


class Interactive:
    """The interactive that a cell shows: what the canvas shows, and what is read out."""

    def __init__(self, lesson, what):
        self.page = lesson.page
        self.root = lesson.output(what).locator(".flowkit-widget")
        self.canvas = self.root.locator("canvas")
        self.slider = self.root.locator("input[type=range]").first
        expect(self.canvas).to_be_visible(timeout=PATIENCE)
        self.root.scroll_into_view_if_needed()
        self.picture = self.canvas.evaluate(BLANK)
        self.picture = self.next_picture()

    def next_picture(self):
        """What is on the canvas as soon as it is no longer the picture that was there."""
        canvas = self.canvas.element_handle()
        changed = "([canvas, before]) => canvas.toDataURL() !== before && canvas.toDataURL()"
        return self.page.wait_for_function(changed, arg=[canvas, self.picture], timeout=PATIENCE).json_value()

    def expect(self, slope):
        """The summary tells of this slope, and the picture is another than before."""
        summary = self.root.locator("[aria-live=polite]")
        expect(summary).to_contain_text(f"Slope {slope:.2f}:", timeout=PATIENCE)
        self.picture = self.next_picture()

    def drag(self):
        """Takes the knob of the slope in the mouse's hand, from 1.5, and pulls it beyond the right end."""
        size = self.slider.bounding_box()
        self.slider.hover(position={"x": size["width"] * (1.5 + 3) / 6, "y": size["height"] / 2})
        self.page.mouse.down()
        box = self.slider.bounding_box()
        self.page.mouse.move(box["x"] + box["width"] + 20, box["y"] + box["height"] / 2, steps=8)
        self.page.mouse.up()


def test_a_student_reads_the_lesson_to_its_end(lesson, artefacts):
    choose(lesson.page, "Run", "Run All Cells")
    tests = lesson.names("_test")
    expect(lesson.output(tests[0])).to_contain_text("Not attempted", timeout=PATIENCE)
    expect(lesson.prompt(lesson.index(tests[0]) + 1)).to_have_text("[ ]:")  # a failure ends Run All
    lesson.walk(lesson.index(tests[0]) + 1)
    for test in tests:
        expect(lesson.output(test)).to_contain_text(f"Not attempted: {test.removesuffix('_test')}")
    last = len(lesson.cells) - 1
    expect(lesson.output(last)).to_be_visible(timeout=PATIENCE)
    lesson.page.screenshot(path=artefacts / "lesson-read.png")
    everything_shown = [n for n, cell in enumerate(lesson.cells) if "show" in cell.metadata.get("tags", [])]
    for number in everything_shown:
        expect(lesson.output(number).locator(".jp-OutputArea-child").first).to_be_attached()
        expect(lesson.output(number).get_by_text("Traceback")).to_have_count(0)


def test_the_first_figure_is_there_also_for_those_who_do_not_see_it(lesson, artefacts):
    choose(lesson.page, "Run", "Run All Cells")
    figure = lesson.output("plots.show(").get_by_role("img")
    expect(figure).to_be_visible(timeout=PATIENCE)
    assert figure.evaluate("img => img.complete && img.naturalWidth > 100")
    alt = figure.get_attribute("alt")
    assert len(alt) > 40
    assert alt in lesson.cells[lesson.index("plots.show(")].source
    figure.scroll_into_view_if_needed()
    lesson.page.screenshot(path=artefacts / "lesson-figure.png")


def test_a_student_guesses_answers_and_sees_the_own_function_at_work(lesson, artefacts):
    page = lesson.page
    test, play = f"{FIRST}_test", "play("

    def keep(name):
        page.screenshot(path=artefacts / f"lesson-{name}.png")

    choose(page, "Run", "Run All Cells")
    expect(lesson.output(test)).to_contain_text(f"Not attempted: {FIRST}", timeout=PATIENCE)

    question = lesson.output("predict(")
    click(question.get_by_role("radio").last, "radio => radio.checked")
    expect(question).to_contain_text("Your guess is noted: run the next cell to see.")
    lesson.run(lesson.index("predict(") + 1)
    expect(lesson.output(lesson.index("predict(") + 1)).to_contain_text("peak by the formula 0.199")
    keep("guess")

    lesson.output(test).scroll_into_view_if_needed()
    keep("not-attempted")
    lesson.walk(lesson.index(test) + 1)

    interactive = Interactive(lesson, play)
    interactive.drag()
    interactive.expect(slope=3)
    interactive.slider.press("Home")
    interactive.expect(slope=-3)
    interactive.slider.press("ArrowRight")
    interactive.expect(slope=-2.9)
    keep("interactive")

    slip = next(answer for answer in bank(TOPIC).wrong(FIRST) if answer.name == "minus_log_slope")
    lesson.replace_line(FIRST, "raise NotImplementedError()", WRONG)
    for message in slip.messages:
        lesson.run(FIRST)
        lesson.run(test)
        assert message in words(lesson.output(test))
    keep("wrong")

    lesson.replace_line(FIRST, WRONG, f"{FIRST}.slope = a\n{RIGHT}")
    lesson.run(FIRST)
    lesson.run(test)
    expect(lesson.output(test)).to_contain_text("Right")
    keep("right")

    interactive = Interactive(lesson, play)
    interactive.slider.press("ArrowRight")
    interactive.expect(slope=-2.8)
    lesson.select(test)
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type(f"{FIRST}.slope")
    page.keyboard.press("Control+Enter")
    below = lesson.index(test) + 1
    expect(lesson.output(below)).to_contain_text("-2.8", timeout=PATIENCE)
    keep("own-function")

    dialog = lesson.validate()
    tests = lesson.names("_test")
    expect(dialog.get_by_text("Not attempted: ")).to_have_count(len(tests) - 1)
    for name in tests[1:]:
        expect(dialog).to_contain_text(f"Not attempted: {name.removesuffix('_test')}")
    expect(dialog).to_contain_text("You did not provide a response.")  # to the written question
    dialog.get_by_text("Not attempted: ").last.scroll_into_view_if_needed()
    keep("validate")
    dialog.get_by_role("button", name="Ok").click()
    expect(dialog).to_have_count(0)


def test_the_solution_validates(opened, artefacts):
    lesson = opened(ROOT / "solutions" / NOTEBOOK, "the_solution")
    expect(lesson.validate()).to_contain_text("Success! Your notebook passes all the tests.")
    lesson.page.screenshot(path=artefacts / "lesson-validate-solution.png")
