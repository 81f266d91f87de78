"""A graded class as an instructor meets it in formgrader."""

import shutil
from pathlib import Path

import pytest
from jupyterlab_pages import choose, jupyterlab

from autograder.classroom import classroom
from autograder.course import Course

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests/autograder/fixture_course"
LESSON, TOPIC = "03_triangles", "triangles"
POINTS, GRADED_CELLS, WRITTEN = 10, 5, "why_signed"
PATIENCE = 60_000  # milliseconds


@pytest.fixture
def graded(tmp_path):
    """The folder of a course that three students handed in to, and the score that each must have."""
    rows = classroom(Course(FIXTURE), None, 3, 1, tmp_path / "class")
    folder = tmp_path / "class/course"
    shutil.copy(ROOT / "course/nbgrader_config.py", folder)
    return folder, {row.student: row.expected for row in rows}


@pytest.fixture
def page(graded, browser, tmp_path):
    """JupyterLab started in the course's folder."""
    with jupyterlab(browser, tmp_path, graded[0]) as lab:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab.url}/lab?reset")
        yield page
        page.close()


def test_formgrader_lists_the_class_and_takes_points_by_hand(graded, page, artefacts):
    scores = graded[1]
    assert len(set(scores.values())) > 1
    choose(page, "Nbgrader", "Formgrader")
    form = page.frame_locator("iframe[src*=formgrader]")

    def follow(*links):
        for link in links:
            form.get_by_role("link", name=link, exact=True).click()

    def listed():
        """What Manage Students lists: the overall score of each student."""
        follow("Manage Students")
        rows = form.locator("tbody tr")
        expect(rows).to_have_count(len(scores), timeout=PATIENCE)
        found = {name: rows.filter(has_text=name).get_by_text(f" / {POINTS}") for name in scores}
        return {name: float(cell.inner_text().split(" / ")[0]) for name, cell in found.items()}

    assignment = form.get_by_role("row").filter(has_text=LESSON)
    expect(assignment.locator("td.num-submissions")).to_have_text(str(len(scores)), timeout=PATIENCE)
    page.screenshot(path=artefacts / "formgrader-assignments.png")

    assert listed() == scores
    page.screenshot(path=artefacts / "formgrader-students.png")

    follow("Manual Grading", LESSON, TOPIC, "Submission #1")
    expect(form.locator("input.score")).to_have_count(GRADED_CELLS, timeout=PATIENCE)
    expect(form.get_by_text("triangle_area passes").first).to_be_visible()
    # The page listens to its fields once it shows what was graded by machine.
    expect(form.locator("input.score[placeholder]").first).to_be_visible(timeout=PATIENCE)
    with page.expect_response(lambda answer: "/api/grade/" in answer.url and answer.request.method == "PUT"):
        form.locator(f"input.score#{WRITTEN}").fill("2")
        page.keyboard.press("Tab")
    page.screenshot(path=artefacts / "formgrader-submission.png")

    follow("Manual Grading")
    assert sum(listed().values()) == sum(scores.values()) + 2
