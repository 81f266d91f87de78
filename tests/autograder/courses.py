"""The small course that the tests of the tools read, build and grade, in a copy that a test may spoil."""

import shutil
from pathlib import Path

from autograder.course import Course

FIXTURE = Path(__file__).parent / "fixture_course"


def copy_of_fixture(folder: Path) -> Course:
    """The fixture course at folder/course, so that lessons/ and solutions/ are built into the folder."""
    return Course(shutil.copytree(FIXTURE, folder / "course"))


def edit_master(course: Course, old: str, new: str) -> None:
    """Replaces text of the first lesson's master; the text must be there once."""
    path = course.master(course.lessons[0])
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")
