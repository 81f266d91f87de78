"""A student's way through a lesson in JupyterLab: read, play, guess, answer wrong and right, validate."""

from pathlib import Path

import pytest
from jupyterlab_pages import choose

from autograder.answers import bank

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from lesson_pages import PATIENCE, Interactive, click, words
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TOPIC = "change_of_variables"
NOTEBOOK = f"02_{TOPIC}/{TOPIC}.ipynb"
FIRST = "affine_log_density"  # the first exercise
WRONG = "return normal_log_density(a * x + b) - math.log(abs(a))"
RIGHT = "return normal_log_density(a * x + b) + math.log(abs(a))"


@pytest.fixture
def lesson(opened, request):
    """The lesson as it is released."""
    return opened(ROOT / "lessons" / NOTEBOOK, request.node.name.removeprefix("test_"))


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
    interactive.expect("Slope 3.00:")
    interactive.slider.press("Home")
    interactive.expect("Slope -3.00:")
    interactive.slider.press("ArrowRight")
    interactive.expect("Slope -2.90:")
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
    interactive.expect("Slope -2.80:")
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
