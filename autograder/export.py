"""`autograder export`: the grades, as a spreadsheet, Canvas, Moodle or Gradescope take them.

Each format is an nbgrader export plugin, so `nbgrader export --exporter=autograder.export.Canvas` works too.

A cell of text that a spreadsheet would take for a formula, since it begins with = + - @ or a tab, gets an
apostrophe before it: a student may choose a name, and an instructor opens the file. Numbers stay numbers.
Line breaks and other control characters in names become spaces.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, Student, SubmittedAssignment
from nbgrader.plugins import ExportPlugin
from traitlets import Instance

from autograder import page
from autograder.course import Course
from autograder.engine import RIGHT, Result
from autograder.grade import nothing_graded, read_result
from autograder.gradebook import open_gradebook

FROM_CANVAS = re.compile(r"\D.*_(\d+)")  # what `autograder collect` calls who comes from Canvas: NAME_ID
UNTIL = "Until then they count zero, or what an earlier answer was given."
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Grade:
    """What a student has in a lesson. raw: before the penalty for lateness; waits: a person has to grade."""

    timestamp: datetime | None
    raw: float
    penalty: float
    waits: bool

    @property
    def score(self) -> float:
        return max(0.0, self.raw - self.penalty)


@dataclass(frozen=True)
class Grades:
    """All that is exported: lessons by name, students by name, and the grades of who handed in."""

    lessons: list[Assignment]
    students: list[Student]
    by: dict[tuple[str, str], Grade]  # (student's id, lesson's name)


class _Export(ExportPlugin):
    """What the formats share. `to`, `student` and `assignment` are nbgrader's options."""

    name = "grades.csv"

    waiting = 0  # submissions whose score is not final

    def export(self, gradebook: Gradebook) -> None:
        """Writes the grades to `to`, or where the format has its place."""
        grades = self._read(gradebook)
        self.waiting = sum(grade.waits for grade in grades.by.values())
        if self.waiting:
            self.log.warning(
                "Submissions with answers that a person has to read: %d. %s", self.waiting, UNTIL
            )
        self._write(Path(self.to or self.name), grades)

    def _read(self, book: Gradebook) -> Grades:
        lessons, students = set(map(str, self.assignment)), set(map(str, self.student))
        found = book.db.query(
            SubmittedAssignment.student_id,
            Assignment.name,
            SubmittedAssignment.timestamp,
            SubmittedAssignment.score,
            SubmittedAssignment.late_submission_penalty,
            SubmittedAssignment.needs_manual_grade,
        ).join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        return Grades(
            sorted((x for x in book.assignments if not lessons or x.name in lessons), key=lambda x: x.name),
            sorted((x for x in book.students if not students or x.id in students), key=_alphabet),
            {
                (student, lesson): Grade(when, score, penalty or 0.0, waits)
                for student, lesson, when, score, penalty, waits in found
                if (not lessons or lesson in lessons) and (not students or student in students)
            },
        )

    def _write(self, path: Path, grades: Grades) -> None:
        page.write(path, text_of(self._rows(grades)))


class Csv(_Export):
    """nbgrader's own columns, quoted, and whether answers wait; a line for each student and lesson."""

    def _rows(self, grades):
        yield (
            *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
            *("raw_score", "late_submission_penalty", "score", "max_score", "needs_manual_grade"),
        )
        for lesson in grades.lessons:
            for student in grades.students:
                grade = grades.by.get((student.id, lesson.name), Grade(None, 0.0, 0.0, False))
                who = (student.id, student.last_name, student.first_name, student.email)
                scores = (grade.raw, grade.penalty, grade.score, float(lesson.max_score))
                yield lesson.name, lesson.duedate, grade.timestamp, *who, *scores, int(grade.waits)


class Canvas(_Export):
    """What Canvas's gradebook imports: a line for each student, a column for each lesson.

    Canvas knows a student by ID, else by SIS Login ID, else by name. ID is the gradebook's lms_user_id, or
    the number in the name that `autograder collect` gave who came from Canvas; the login is the student's id.
    A column goes to the assignment of the same title. Who handed in nothing has an empty cell.
    """

    name = "canvas.csv"

    def _rows(self, grades):
        yield "Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(x.name for x in grades.lessons)
        yield "    Points Possible", "", "", "", "", *(float(x.max_score) for x in grades.lessons)
        for student in grades.students:
            collected = FROM_CANVAS.fullmatch(student.id)
            number = student.lms_user_id or (collected[1] if collected else "")
            yield _last_first(student), number, "", student.id, "", *_scores(grades, student)


class Moodle(_Export):
    """What Moodle's "Import: CSV file" takes: a line for each student, a column for each lesson.

    Moodle asks which column says who a student is: the username, the ID number or the email address. Who
    handed in nothing has an empty cell.
    """

    name = "moodle.csv"

    def _rows(self, grades):
        yield (
            "Username",
            "ID number",
            "Email address",
            "First name",
            "Last name",
            *(x.name for x in grades.lessons),
        )
        for student in grades.students:
            who = (student.id, student.lms_user_id, student.email, student.first_name, student.last_name)
            yield *who, *_scores(grades, student)


class Gradescope(_Export):
    """STUDENT/LESSON/results.json for each submission, as Gradescope takes it from an autograder.

    `to` is the folder above. Messages are those of the feedback, which tell nothing of hidden tests.
    """

    name = "gradescope"
    course = Instance(Course, allow_none=True, help="the course; that of nbgrader's configuration when none")

    def _write(self, path, grades):
        course = self.course or Course(self.parent.coursedir.root)
        lessons = {lesson.name: float(lesson.max_score) for lesson in grades.lessons}
        for (student, lesson), grade in grades.by.items():
            result = read_result(course, student, lesson)
            if result is not None:
                text = json.dumps(_submission(result, grade, lessons[lesson]), ensure_ascii=False, indent=1)
                page.write(path / student / lesson / "results.json", f"{text}\n")


FORMATS = {"csv": Csv, "canvas": Canvas, "moodle": Moodle, "gradescope": Gradescope}


def export(
    course: Course, format: str, topics: list[str] | None = None, to: Path | None = None
) -> tuple[Path, int]:
    """Writes the grades of the lessons `topics` (all when none) in one of FORMATS. Gives the path of the file
    (the folder, for gradescope), which lies in the course's reports unless `to` is given; and of how many
    submissions answers wait for a person.

    Raises CourseError when no such lesson is graded.
    """
    plugin = FORMATS[format](course=course) if format == "gradescope" else FORMATS[format]()
    path = Path(to) if to else course.folder / "reports" / plugin.name
    plugin.to = str(path)
    plugin.assignment = [lesson.name for lesson in course.choose(topics)]
    with open_gradebook(course.gradebook) as book:
        graded = {name for (name,) in book.db.query(Assignment.name).join(SubmittedAssignment)}
        plugin.assignment = [name for name in plugin.assignment if name in graded]
        if not plugin.assignment:
            raise nothing_graded(topics, "there is nothing to export")
        plugin.export(book)
    return path, plugin.waiting


def text_of(rows: Iterable[Sequence]) -> str:
    """Rows as CSV (RFC 4180). Floats are written short, None as nothing, and no text is a formula."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    for row in rows:
        writer.writerow(_cell(value) for value in row)
    return stream.getvalue()


def _cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return value
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in str(value))
    return f"'{text}" if str(value).startswith(FORMULA) else text


def _scores(grades, student):
    found = (grades.by.get((student.id, lesson.name)) for lesson in grades.lessons)
    return [None if grade is None else grade.score for grade in found]


def _alphabet(student):
    return (student.last_name or "", student.first_name or "", student.id)


def _last_first(student):
    return ", ".join(filter(None, (student.last_name, student.first_name))) or student.id


def _submission(result: Result, grade: Grade, points: float) -> dict:
    notes = [result.unreadable, *result.notes]
    if grade.penalty:
        notes.append(f"{grade.penalty:g} points were taken off for lateness.")
    if grade.waits:
        notes.append(f"Some answers wait for a person. {UNTIL}")
    return {
        "score": grade.score,
        "max_score": points,
        "execution_time": round(result.seconds, 3),
        "output": "\n".join(filter(None, notes)),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_test(number, check) for number, check in enumerate(result.checks, 1)],
    }


def _test(number, check) -> dict:
    """What a check gave. One that waits for a person has no status, lest it look failed."""
    test = {
        "number": str(number),
        "name": f"{check.exercise or check.grade_id}{', hidden tests' if check.hidden else ''}",
        "score": check.score or 0.0,
        "max_score": check.points,
        "output": page.without_head(check.message) or check.outcome,
        "output_format": "text",
        "visibility": "visible",
    }
    return (
        test if check.score is None else {**test, "status": "passed" if check.outcome == RIGHT else "failed"}
    )
