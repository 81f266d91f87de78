"""`autograder classroom`: a class of simulated students, from the LMS's zip to the feedback, each with the
score it must get.

Students answer from the master and from the answer bank: right, partly, wrong in named ways, not at all,
in files that were mangled on their way, in code that loops, exits or floods, and late. What a wrong answer
must get is asked of `selfcheck`, which plays lessons without Jupyter; all else follows from the points. So
the class tests all of grading.
"""

import ast
import copy
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path

import nbformat

from autograder import gradebook
from autograder.answers import Bank, bank
from autograder.build import build
from autograder.collect import collect
from autograder.course import Course, CourseError, Lesson
from autograder.feedback import feedback
from autograder.grade import grade, read_result
from autograder.master import Exercise, Master, read_master, solved, stub, stub_is
from autograder.selfcheck import selfcheck

DEFAULT = "change_of_variables"
MARK = ".classroom"  # in a folder that was made here, and may be made anew
TIMEOUT = 20  # seconds a cell
DUE = datetime(2026, 10, 1, 12, 0, 0)


@dataclass(frozen=True)
class Student:
    """One simulated student: what they hand in, when, and the score that it must get."""

    name: str
    lesson: Lesson
    kind: str
    data: bytes
    expected: float
    handed_in: datetime = DUE - timedelta(hours=3)


@dataclass(frozen=True)
class Row:
    """What a student must get, and what they got; got is None where there is no grade at all."""

    student: str
    lesson: str
    kind: str
    expected: float
    got: float | None
    late: bool
    notes: int

    @property
    def ok(self) -> bool:
        return (
            self.got is not None
            and abs(self.got - self.expected) < 1e-9
            and self.late == (self.kind == "late")
        )


def classroom(
    course: Course,
    topics: list[str] | None,
    students: int,
    seed: int,
    folder: Path,
    say: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[Row]:
    """Makes the class in `folder`, has it hand in, and grades it. The lesson is change of variables, or
    `topics`.

    The folder is made anew if a class made it; raises CourseError if it holds anything else, or when a lesson
    has no answer bank that selfcheck is content with.
    """
    lessons = _lessons(course, topics)
    place = _fresh(folder)
    copied = _copy_course(course, place)
    build(copied, [lesson.topic for lesson in lessons])
    everybody = [student for lesson in lessons for student in _class(copied, lesson, students, seed)]
    for lesson in lessons:
        _set_due(copied, lesson)
    names = _hand_in(place, everybody)
    for archive in sorted(place.glob("*.zip")):
        collect(copied, archive)
    grade(copied, trust=True, timeout=TIMEOUT, say=say)
    feedback(copied, say=say)
    totals = {lesson.name: gradebook.totals(copied.gradebook, lesson.name) for lesson in lessons}
    return [_row(copied, student, names[student], totals) for student in everybody]


def table(rows: list[Row]):
    """The rows as a rich table."""
    from rich.table import Table

    shown = Table(
        "student", "lesson", "what they did", "expected", "got", "late", "mended", "", title="The class"
    )
    for row in rows:
        got = "none" if row.got is None else f"{row.got:g}"
        mark = "[green]ok[/]" if row.ok else "[bold red]WRONG[/]"
        late = "late" if row.late else ""
        shown.add_row(
            row.student, row.lesson, row.kind, f"{row.expected:g}", got, late, str(row.notes or ""), mark
        )
    return shown


def _lessons(course, topics):
    if topics:
        return course.choose(topics)
    written = [lesson for lesson in course.lessons if (course.masters / f"{lesson.name}.py").is_file()]
    if not written:
        raise CourseError(f"No lesson of {course.folder} has a master, so there is nothing to hand in.")
    return tuple([lesson for lesson in written if lesson.topic == DEFAULT] or written[:1])


def _fresh(folder):
    folder = Path(folder).resolve()
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).is_file():
            raise CourseError(f"{folder} holds something that no class made. Say another: --folder NAME")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _copy_course(course, place):
    target = place / "course"
    target.mkdir()
    for name in ("syllabus.toml", "glossary.toml", "nbgrader_config.py"):
        if (course.folder / name).is_file():
            shutil.copyfile(course.folder / name, target / name)
    shutil.copytree(
        course.masters, target / "masters", ignore=shutil.ignore_patterns("*.ipynb", "__pycache__")
    )
    return Course(target)


def _set_due(course, lesson):
    source = course.source / lesson.name / f"{lesson.topic}.ipynb"
    gradebook.register(course.gradebook, lesson.name, lesson.topic, source)
    with gradebook.open_gradebook(course.gradebook) as book:
        book.update_or_create_assignment(lesson.name, duedate=f"{DUE:%Y-%m-%d %H:%M:%S} UTC")


def _hand_in(place, everybody):
    """Two zips, laid out as nbgrader does and as Canvas does. Gives the names that students get."""
    names = {}
    with (
        zipfile.ZipFile(place / "folders.zip", "w", zipfile.ZIP_DEFLATED) as folders,
        zipfile.ZipFile(place / "canvas.zip", "w", zipfile.ZIP_DEFLATED) as canvas,
    ):
        for number, student in enumerate(everybody):
            lesson = student.lesson
            stamp = f"{student.handed_in:%Y-%m-%d %H:%M:%S} UTC"
            if number % 2 == 0 or student.kind == "late":
                within = f"{student.name}/{lesson.name}"
                folders.writestr(f"{within}/{lesson.topic}.ipynb", student.data)
                folders.writestr(f"{within}/timestamp.txt", stamp)
                names[student] = student.name
            else:
                file = f"{student.name}_{1000 + number}_{90000 + number}_{lesson.topic}-1.ipynb"
                before_due = (DUE - timedelta(days=2)).timetuple()[:6]
                canvas.writestr(zipfile.ZipInfo(file, before_due), student.data)
                names[student] = f"{student.name}_{1000 + number}"
    return names


def _row(course, student, name, totals):
    result = read_result(course, name, student.lesson.name)
    got = totals[student.lesson.name].get(name)
    late = bool(result and result.seconds_late)
    notes = len(result.notes) if result else 0
    return Row(name, student.lesson.name, student.kind, student.expected, got, late, notes)


# Who is in the class.


@dataclass
class _Desk:
    """What a student needs to answer one lesson: the release, the master's answers, and what each is worth.

    `free` are the exercises that no other exercise uses: a wrong answer to one of them costs that one alone.
    """

    lesson: Lesson
    master: Master
    answers: Bank
    release: dict
    exercises: list[Exercise]
    free: list[Exercise]
    wrong_scores: dict[tuple[str, str], float]

    @property
    def full(self) -> float:
        return sum(_worth(exercise) for exercise in self.exercises)

    def solutions(self, **instead: str) -> dict[str, str]:
        """Sources by grade_id: the master's, but for those that are given."""
        return {e.name: solved(e.solution.source) for e in self.exercises} | instead

    def notebook(self, sources: dict[str, str]) -> dict:
        notebook = copy.deepcopy(self.release)
        for cell in notebook["cells"]:
            cell["source"] = sources.get(cell["metadata"].get("nbgrader", {}).get("grade_id"), cell["source"])
        return notebook


def _worth(exercise):
    return sum(cell.points for cell in (*exercise.tests, *exercise.hidden))


def _untouched(exercise):
    """What an answer gets as it was released: some releases are right already."""
    return _worth(exercise) if stub_is(exercise.solution.source) == "whole" else 0.0


def _class(course, lesson, count, seed) -> list[Student]:
    desk = _desk(course, lesson)
    draw = random.Random(f"{seed} {lesson.name}")
    groups = [list(group(desk)) for group in (_usual, _mistaken, _mangled, _hostile)]
    for group in groups:
        draw.shuffle(group)
    # In turn from each group, so that a small class has some of each.
    turns = [what for rank in zip_longest(*groups) for what in rank if what]
    return [Student(f"student{i + 1:02d}", lesson, *turns[i % len(turns)]) for i in range(count)]


def _desk(course, lesson):
    master = read_master(course, lesson)
    release = json.loads((course.release / lesson.name / f"{lesson.topic}.ipynb").read_text(encoding="utf-8"))
    release = nbformat.from_dict(release)
    for cell in release["cells"]:
        cell["source"] = "".join(cell["source"])
    exercises = [e for e in master.exercises if e.solution and (e.tests or e.hidden)]
    used = {name for e in exercises for name in _names_used(solved(e.solution.source)) if name != e.name}
    free = [e for e in exercises if e.name not in used]
    return _Desk(
        lesson, master, bank(lesson.topic), release, exercises, free, _wrong_scores(course, lesson, exercises)
    )


def _names_used(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _wrong_scores(course, lesson, exercises):
    """What each wrong answer of the bank gets when selfcheck types it in: some pass a public test."""
    if not any(bank(lesson.topic).wrong(exercise.name) for exercise in exercises):
        return {}
    rows = selfcheck(course, [lesson.topic], whole=True)
    return {
        (row.exercise, row.variant.removeprefix("wrong: ")): float(row.got.split()[0])
        for row in rows
        if row.ok and row.variant.startswith("wrong: ")
    }


def _usual(desk: _Desk) -> Iterator[tuple]:
    """(kind, bytes, expected score) and, for who is late, when."""
    right = _bytes(desk.notebook(desk.solutions()))
    yield "right", right, desk.full
    yield "right, in other words", _bytes(desk.notebook(_other_words(desk))), desk.full
    yield "late", right, desk.full, DUE + timedelta(hours=5)
    yield "untouched", _bytes(desk.release), sum(_untouched(exercise) for exercise in desk.exercises)


def _mistaken(desk: _Desk) -> Iterator[tuple[str, bytes, float]]:
    for exercise in desk.free:
        left = desk.solutions(**{exercise.name: stub(exercise.solution.source)})
        lost = _worth(exercise) - _untouched(exercise)
        yield f"left out {exercise.name}", _bytes(desk.notebook(left)), desk.full - lost
        for answer in desk.answers.wrong(exercise.name):
            score = desk.wrong_scores.get((exercise.name, answer.name))
            if score is not None:
                typed = desk.solutions(**{exercise.name: answer.source()})
                expected = desk.full - _worth(exercise) + score
                yield f"wrong: {answer.name}", _bytes(desk.notebook(typed)), expected


def _other_words(desk):
    return desk.solutions(
        **{e.name: answer.source() for e in desk.exercises for answer in desk.answers.right(e.name)[:1]}
    )


def _hostile(desk: _Desk) -> Iterator[tuple[str, bytes, float]]:
    exercise = desk.free[-1]
    name, rest = exercise.name, desk.full - _worth(exercise)
    answer = solved(exercise.solution.source)
    wrapped = (
        f"{answer}\n\n_answer = {name}\n\n"
        f"def {name}(*args, **kwargs):\n    {{}}\n    return _answer(*args, **kwargs)\n"
    )
    cells = {
        "loops for ever": (f"def {name}(*args, **kwargs):\n    while True:\n        pass\n", rest),
        "calls os._exit": (f"import os\n\ndef {name}(*args, **kwargs):\n    os._exit(1)\n", rest),
        "ends Python in its cell": (f"{answer}\nimport os\nos._exit(0)\n", rest),
        "calls sys.exit": (f"import sys\n\ndef {name}(*args, **kwargs):\n    sys.exit()\n", rest),
        "calls exit in its cell": ("exit()\n", rest),
        "raises in its cell": ('raise RuntimeError("not today")\n', rest),
        "has a syntax error": (f"def {name}(:\n", rest),
        "prints megabytes": (wrapped.format('print("x" * 5_000_000)'), desk.full),
        "warns on stderr": (f"import sys\n\n{wrapped.format('print(1, file=sys.stderr)')}", desk.full),
    }
    for kind, (source, expected) in cells.items():
        yield kind, _bytes(desk.notebook(desk.solutions(**{name: source}))), expected


def _mangled(desk: _Desk) -> Iterator[tuple[str, bytes, float]]:
    notebook = desk.notebook(desk.solutions())
    for kind, mangle in MANGLES.items():
        yield kind, mangle(copy.deepcopy(notebook)), desk.full
    for kind, spoil in SPOILS.items():
        yield kind, spoil(copy.deepcopy(notebook)), 0.0


# What happens to files on their way. Each takes a right notebook and gives the bytes that arrive.


def _bytes(notebook) -> bytes:
    return json.dumps(notebook, indent=1, ensure_ascii=False).encode()


def _answers(notebook):
    """The places of the code cells that students write."""
    return [
        i
        for i, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "code" and cell["metadata"].get("nbgrader", {}).get("solution")
    ]


def _is_test(cell):
    settings = cell["metadata"].get("nbgrader", {})
    return settings.get("grade") and not settings.get("solution")


def in_format_3(notebook):
    cells = []
    for cell in notebook["cells"]:
        old = {"cell_type": cell["cell_type"], "metadata": cell["metadata"]}
        if cell["cell_type"] == "code":
            old |= {"input": cell["source"].splitlines(keepends=True), "language": "python", "outputs": []}
        else:
            old |= {"source": cell["source"]}
        cells.append(old)
    return _bytes(
        {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells, "metadata": {}}]}
    )


def without_metadata(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        del cell["id"]
    return _bytes(notebook)


def without_ids(notebook):
    for cell in notebook["cells"]:
        del cell["id"]
    return _bytes(notebook | {"nbformat_minor": 4})


def with_a_copied_answer(notebook):
    """The first try, with another answer, stands above the last one, under the same grade_id."""
    place = _answers(notebook)[-1]
    first = copy.deepcopy(notebook["cells"][place])
    first["id"] = "copied"
    name = first["metadata"]["nbgrader"]["grade_id"]
    first["source"] = f"def {name}(*args, **kwargs):\n    return 0\n"
    notebook["cells"].insert(place, first)
    return _bytes(notebook)


def with_a_copied_stub(notebook):
    """An empty copy of the answer stands below it."""
    place = _answers(notebook)[-1]
    empty = copy.deepcopy(notebook["cells"][place])
    empty["id"] = "empty"
    empty["source"] = ""
    notebook["cells"].insert(place + 1, empty)
    return _bytes(notebook)


def with_a_split_answer(notebook):
    """Split in JupyterLab: both halves keep the metadata."""
    place = _answers(notebook)[-1]
    cell = notebook["cells"][place]
    lines = cell["source"].split("\n")
    second = copy.deepcopy(cell)
    second["id"] = "second-half"
    cell["source"], second["source"] = "\n".join(lines[:-1]), lines[-1]
    notebook["cells"].insert(place + 1, second)
    return _bytes(notebook)


def with_the_answer_elsewhere(notebook):
    """Written into a cell at the end, after the tests; the answer's own cell is empty."""
    cell = notebook["cells"][_answers(notebook)[-1]]
    notebook["cells"].append(
        {"cell_type": "code", "id": "own", "metadata": {}, "source": cell["source"], "outputs": []}
    )
    cell["source"] = ""
    return _bytes(notebook)


def in_reverse(notebook):
    notebook["cells"].reverse()
    return _bytes(notebook)


def without_tests(notebook):
    notebook["cells"] = [cell for cell in notebook["cells"] if not _is_test(cell)]
    return _bytes(notebook)


def with_tests_changed(notebook):
    for cell in notebook["cells"]:
        if _is_test(cell):
            cell["source"] = "assert False"
    return _bytes(notebook)


def with_answers_as_markdown(notebook):
    cell = notebook["cells"][_answers(notebook)[-1]]
    cell["cell_type"] = "markdown"
    for key in ("outputs", "execution_count"):
        cell.pop(key, None)
    return _bytes(notebook)


def with_sources_as_lists(notebook):
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return _bytes(notebook)


def with_windows_line_ends(notebook):
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].replace("\n", "\r\n")
    return _bytes(notebook).replace(b"\n", b"\r\n")


MANGLES: dict[str, Callable[[dict], bytes]] = {
    "mangled: byte order mark": lambda notebook: b"\xef\xbb\xbf" + _bytes(notebook),
    "mangled: UTF-16": lambda notebook: _bytes(notebook).decode().encode("utf-16"),
    "mangled: CRLF": with_windows_line_ends,
    "mangled: nbformat 3": in_format_3,
    "mangled: no metadata": without_metadata,
    "mangled: no ids": without_ids,
    "mangled: copied answer": with_a_copied_answer,
    "mangled: copied cell, empty": with_a_copied_stub,
    "mangled: split answer": with_a_split_answer,
    "mangled: answer elsewhere": with_the_answer_elsewhere,
    "mangled: reversed": in_reverse,
    "mangled: tests deleted": without_tests,
    "mangled: tests changed": with_tests_changed,
    "mangled: answer as markdown": with_answers_as_markdown,
    "mangled: sources as lists": with_sources_as_lists,
}
SPOILS: dict[str, Callable[[dict], bytes]] = {
    "unreadable: cut off": lambda notebook: _bytes(notebook)[:2000],
    "unreadable: a web page": lambda notebook: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "unreadable: empty": lambda notebook: b"",
}
