"""A lesson on a page of JupyterLab: its cells, and the interactives that they show."""

import re

import nbformat
from playwright.sync_api import expect

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

    def unfold(self, what):
        """Opens the code of a cell, if it is folded away."""
        closed = self.cell(what).locator(".jp-InputPlaceholder .jp-Placeholder-content")
        if closed.count():
            closed.click()
        expect(self.prompt(what)).to_have_count(1)

    def run(self, what):
        """Runs one cell to its end."""
        self.unfold(what)
        before = self.prompt(what).inner_text()
        self.select(what)
        self.page.keyboard.press("Control+Enter")
        expect(self.prompt(what)).not_to_have_text(before, timeout=PATIENCE)
        expect(self.prompt(what)).to_have_text(DONE, timeout=PATIENCE)

    def walk(self, start):
        """Shift+Enter from a cell to the last one, as in reading: a cell that fails does not hold it up.

        What is sent before a cell has failed is not run, so each is waited for; a folded check has no prompt,
        and has ended when it says something.
        """
        self.select(start)
        for number in range(start, len(self.cells)):
            self.page.keyboard.press("Shift+Enter")
            expect(self.cell(number + 1)).to_contain_class("jp-mod-active")
            cell = self.cells[number]
            if cell.cell_type != "code":
                continue
            if self.prompt(number).count():
                expect(self.prompt(number)).to_have_text(DONE, timeout=PATIENCE)
            elif cell.metadata.get("nbgrader", {}).get("grade"):
                said = self.output(number).locator(".jp-OutputArea-child").first
                expect(said).to_be_attached(timeout=PATIENCE)

    def check(self, exercise):
        """Runs an answer and then its check as students do: Shift+Enter, Shift+Enter."""
        self.select(exercise)
        self.page.keyboard.press("Shift+Enter")
        self.page.keyboard.press("Shift+Enter")

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


class Interactive:
    """The interactive that a cell shows: what the canvas shows, and what is read out."""

    def __init__(self, lesson, what):
        self.page = lesson.page
        self.root = lesson.output(what).locator(".flowkit-widget:has(canvas)")
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

    def expect(self, words):
        """The summary says this, and the picture is another than before."""
        summary = self.root.locator("[aria-live=polite]")
        expect(summary).to_contain_text(words, timeout=PATIENCE)
        self.picture = self.next_picture()

    def press(self, key):
        """A key on the slider; gives the picture that follows."""
        self.slider.press(key)
        self.picture = self.next_picture()
        return self.picture

    def drag(self):
        """Takes the slider's knob in the mouse's hand, and pulls it beyond the right end."""
        place = "range => (range.value - range.min) / (range.max - range.min)"
        size = self.slider.bounding_box()
        at = 8 + self.slider.evaluate(place) * (size["width"] - 16)  # the knob is some 16 pixels wide
        self.slider.hover(position={"x": at, "y": size["height"] / 2})
        self.page.mouse.down()
        box = self.slider.bounding_box()
        self.page.mouse.move(box["x"] + box["width"] + 20, box["y"] + box["height"] / 2, steps=8)
        self.page.mouse.up()
