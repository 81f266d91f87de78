"""A student's way through lesson 11 in JupyterLab: to its end, and back to an exercise."""

from pathlib import Path

import pytest
from jupyterlab_pages import choose

from autograder.answers import bank

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from lesson_pages import PATIENCE, Interactive, click
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TOPIC = "autoregressive"
NOTEBOOK = Path(__file__).parents[2] / "lessons" / f"11_{TOPIC}" / f"{TOPIC}.ipynb"
EXERCISE = "made_masks"
PLAYS_IT = f'check.yours("{TOPIC}.{EXERCISE}"'
DEGREES = "degrees = [place] + [hidden_degrees(D, width) for width in hidden]"
OTHER_DEGREES = "degrees = [place] + [D - hidden_degrees(D, width) for width in hidden]"  # another picture
WRONG = "return masks + [place[:, None] >= degrees[-1]]"
RIGHT = "return masks + [place[:, None] > degrees[-1]]"
ANSWER = f"""\
D = len(order)
place = torch.argsort(torch.tensor(order)) + 1
{DEGREES}
masks = [after[:, None] >= before for before, after in zip(degrees, degrees[1:])]
{WRONG}"""


def test_a_student_mistakes_a_comparison_and_sees_the_own_masks_at_work(opened, artefacts):
    lesson = opened(NOTEBOOK, "lesson-11")
    tests = lesson.names("_test")

    def keep(name):
        lesson.page.screenshot(path=artefacts / f"lesson-11-{name}.png")

    choose(lesson.page, "Run", "Run All Cells")
    expect(lesson.output(tests[0])).to_contain_text("Not attempted", timeout=PATIENCE)
    lesson.walk(lesson.index(tests[0]) + 1)
    for test in tests:
        expect(lesson.output(test)).to_contain_text(f"Not attempted: {test.removesuffix('_test')}")
    for number, cell in enumerate(lesson.cells):
        if "show" in cell.metadata.get("tags", []):
            shown = lesson.output(number).locator(".jp-OutputArea-child").first
            expect(shown).to_be_attached(timeout=PATIENCE)
            expect(lesson.output(number).get_by_text("Traceback")).to_have_count(0)
    keep("read")

    interactive = Interactive(lesson, PLAYS_IT)
    lessons_own = interactive.picture
    interactive.drag()
    interactive.next_picture()
    expect(interactive.slider).to_have_js_property("value", interactive.slider.get_attribute("max"))
    keep("interactive")

    slip = next(answer for answer in bank(TOPIC).wrong(EXERCISE) if answer.name == "last_mask_not_strict")
    lesson.replace_line(EXERCISE, "raise NotImplementedError()", ANSWER)
    for message in slip.messages:
        lesson.check(EXERCISE)
        expect(lesson.output(f"{EXERCISE}_test")).to_contain_text(message, timeout=PATIENCE)
    expect(lesson.prompt(f"{EXERCISE}_test")).to_have_count(0)  # a long check stays folded away
    lesson.cell(EXERCISE).locator(".cm-line").last.scroll_into_view_if_needed()
    expect(lesson.output(f"{EXERCISE}_test")).to_be_in_viewport(ratio=1)  # and its message beside the answer
    keep("wrong")
    interactive = Interactive(lesson, PLAYS_IT)
    while interactive.slider.input_value() != interactive.slider.get_attribute("value"):  # where it began
        interactive.press("ArrowLeft")
    assert interactive.picture == lessons_own  # a wrong answer is not played

    question = lesson.output(PLAYS_IT)
    click(question.get_by_role("radio").last, "radio => radio.checked")
    expect(question).to_contain_text("Your guess is noted")
    keep("guess")

    lesson.replace_line(EXERCISE, WRONG, RIGHT)
    lesson.replace_line(EXERCISE, DEGREES, OTHER_DEGREES)
    lesson.check(EXERCISE)
    expect(lesson.output(f"{EXERCISE}_test")).to_contain_text("Right", timeout=PATIENCE)
    keep("right")

    interactive = Interactive(lesson, PLAYS_IT)
    interactive.press("ArrowLeft")
    assert interactive.press("ArrowRight") != lessons_own
    keep("own-masks")
