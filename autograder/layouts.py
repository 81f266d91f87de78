"""Whose a file is, and for which lesson: read from its name and its folders.

As their own code names files, Canvas has SORTABLENAME[_LATE]_USER_FILE_NAME, or [LATE_]anon_ID_FILE_NAME
where students are anonymous; Moodle has FULL NAME_ID_assignsubmission_file, then a slash or an underscore,
then what the student uploaded, with its folders. Moodle's ID changes with the assignment, so it names nobody.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from autograder.course import Course, CourseError, Lesson
from autograder.inbox import File

CANVAS = re.compile(
    r"(?:(?P<user>.+?)_)??(?P<late>LATE_)?(?P<id>\d+|anon_[0-9a-z]+)_(?P<file>\d+)_(?P<name>.+)",
    re.IGNORECASE,
)
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)")
NAMELESS = "Participant"  # what Moodle calls everybody where students are anonymous
EXCHANGE = re.compile(r"(?P<student>[^+]+)\+(?P<lesson>[^+]+)\+(?P<time>[^+]+?)(?:\+.*)?")
COPY = re.compile(
    r"( ?\(\d+\)|-\d+|[-_ ]+copy ?\d*)+$", re.IGNORECASE
)  # what browsers, Canvas and Jupyter append
LONGEST_ID = 128  # characters of a student's name that nbgrader's gradebook takes


class LeftOut(Exception):
    """Why a file is not taken."""


@dataclass
class Found:
    """Whose a file is and what for.

    exact: it has the name that the lesson's notebook has. `lms`: which LMS's layout it has; its zips have the
    time of the download, so `time` is not when it was handed in. late: the LMS says so. identity: who the LMS
    or the folder says it is, since different names can become the same one.
    """

    student: str
    lesson: Lesson
    file: File
    time: datetime
    exact: bool
    identity: str
    lms: str = ""
    late: bool = False


def recognize(course: Course, file: File) -> Found:
    """Whose the file is. Raises LeftOut, which says why nobody can tell, or why it is not taken."""
    if file.trouble:
        raise LeftOut(f"{file.trouble[0].upper()}{file.trouble[1:]}.")
    name = PurePosixPath(file.parts[-1])
    if name.suffix.lower() == ".zip":
        raise LeftOut("A zip inside: unpack it, and collect it by itself.")
    if name.suffix.lower() != ".ipynb":
        raise LeftOut("Only .ipynb files are taken.")
    folders = file.parts[:-1]
    return (
        _by_folders(course, file, folders, name.stem)
        or _by_canvas(course, file, name.stem)
        or _by_moodle(course, file, MOODLE.fullmatch(name.stem))
        or _by_own_name(course, file, name.stem)
        or _by_last_folder(course, file, folders, name.stem)
    )


def parse_time(text: str) -> datetime | None:
    """A time stamp of nbgrader's; None for what is none."""
    from nbgrader.utils import parse_utc

    try:
        parsed = parse_utc(text.strip())
    except (ValueError, OverflowError, AttributeError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed else None


def _by_folders(course, file, folders, stem):
    """nbgrader's folders and its exchange's, and Moodle's, whatever folders stand around or in them."""
    for i in reversed(range(len(folders))):
        if moodle := MOODLE.fullmatch(folders[i]):
            return _by_moodle(course, file, moodle, stem)
        if exchange := EXCHANGE.fullmatch(folders[i]):
            found = _found(exchange["student"], _lesson(course, exchange["lesson"]), file, stem)
            found.time = parse_time(exchange["time"]) or file.time
            return found
        lesson = _known(course, folders[i])
        if lesson and folders[i] == lesson.name and i > 0:
            moodle = MOODLE.fullmatch(folders[i - 1])
            return _by_moodle(course, file, moodle, stem, lesson) or _found(
                folders[i - 1], lesson, file, stem
            )
    return None


def _by_canvas(course, file, stem):
    canvas = CANVAS.fullmatch(stem)
    if canvas is None or not (canvas["user"] or canvas["id"].lower().startswith("anon_")):
        return None
    student = "_".join(filter(None, (canvas["user"], canvas["id"])))
    found = _found(student, _lesson(course, canvas["name"]), file, canvas["name"])
    found.lms, found.late = "Canvas", bool(canvas["late"])
    return found


def _by_moodle(course, file, moodle, stem="", lesson=None):
    if moodle is None:
        return None
    stem = stem or moodle["file"]
    lesson = lesson or _lesson(course, stem)
    nameless = moodle["name"] == NAMELESS
    student = f"{NAMELESS}_{moodle['id']}" if nameless else moodle["name"]
    found = _found(student, lesson, file, stem, f"{moodle['name']} {moodle['id']}")
    found.lms = "Moodle"
    return found


def _by_own_name(course, file, stem):
    """STUDENT_topic.ipynb"""
    for lesson in sorted(course.lessons, key=lambda lesson: -len(lesson.topic)):
        named = rf"(.+?)[-_ +](?:{lesson.name}|{lesson.topic})"
        flat = re.fullmatch(named, COPY.sub("", stem), re.IGNORECASE)
        if flat and not _known(course, stem):
            return _found(flat[1], lesson, file, lesson.topic)
    return None


def _by_last_folder(course, file, folders, stem):
    if not folders:
        raise LeftOut(
            f"Nothing says whose it is: call it STUDENT_{stem}.ipynb, or put it in a folder STUDENT/."
        )
    return _found(folders[-1], _lesson(course, stem), file, stem)


def _found(student, lesson, file, stem, identity=""):
    student = unicodedata.normalize("NFC", student)
    clean = re.sub(r"[^\w.@-]+", "_", student).strip("_").lstrip(".")
    if not clean:
        raise LeftOut(f"{student!r} cannot be the name of a student.")
    if len(clean) > LONGEST_ID or len(clean.encode()) > 255:
        raise LeftOut(
            f"The name {clean[:20]}... is too long: a student's id has at most {LONGEST_ID} characters."
        )
    return Found(clean, lesson, file, file.time, stem == lesson.topic, identity or student)


def _known(course, name):
    name = COPY.sub("", name).strip().lower()
    return next((lesson for lesson in course.lessons if name in (lesson.topic, lesson.name)), None)


def _lesson(course, name):
    known = _known(course, name)
    if known is None:
        try:
            course.lesson(COPY.sub("", name))
        except CourseError as error:
            raise LeftOut(str(error)) from None
        raise LeftOut(f"A number alone does not name a lesson: {name!r}.")
    return known
