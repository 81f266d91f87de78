"""`autograder collect`: what students handed in, from an LMS's zip or a folder, into course/submitted.

Bytes are copied as they are. Known layouts, under any folder around them:

    STUDENT/08_coupling/coupling.ipynb              nbgrader's, and what our own lessons folder suggests
    STUDENT/coupling.ipynb
    STUDENT_coupling.ipynb, STUDENT_08_coupling.ipynb
    STUDENT+08_coupling+2026-10-01 12:00:00 UTC/coupling.ipynb    nbgrader's exchange
    lovelaceada_LATE_1042_77_coupling-1.ipynb       Canvas; the student becomes lovelaceada_1042
    anon_x7Qp2_77_coupling.ipynb                    Canvas, anonymous; the student becomes anon_x7Qp2
    Ada Lovelace_1042_assignsubmission_file_/coupling.ipynb       Moodle; the student becomes Ada_Lovelace
    Ada Lovelace_1042_assignsubmission_file_coupling.ipynb        Moodle, not in folders
    Participant_1042_assignsubmission_file_/coupling.ipynb        Moodle, anonymous; becomes Participant_1042

The files in Canvas's and Moodle's zips bear the time of the download. So a file from Canvas counts as handed
in by the due date, or where Canvas marks it as late, a second after it; one from Moodle, whose zip does not
say who is late, as handed in by the due date, and that this is not known is said.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autograder.course import Course
from autograder.inbox import File, files
from autograder.layouts import Found, LeftOut, parse_time, recognize

STAMP = "%Y-%m-%d %H:%M:%S UTC"
LONGEST_STAMP = 1000  # bytes of a timestamp.txt


@dataclass
class Taken:
    """One submission that was taken: `what` is new, replaced or unchanged; `late` says so when it is."""

    student: str
    lesson: str
    what: str
    timestamp: datetime
    late: str = ""
    came_from: str = ""


@dataclass
class Collected:
    """What was taken, and what was left out: its name, and why."""

    taken: list[Taken] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def collect(course: Course, source: Path) -> Collected:
    """Takes the submissions in `source`, a zip or a folder. The newest of a student's submissions of a
    lesson counts.

    An earlier one is moved to grading/earlier, never lost; an older one than what is there is left out,
    and said. Raises CourseError when the source is neither, when the zip is damaged, and when what is in it
    does not fit on the disk.
    """
    collected = Collected()
    all_files = [file for file in files(Path(source), course.folder) if not file.is_junk]
    stamps = {file.parts[:-1]: file for file in all_files if _is_stamp(file)}
    found = []
    for file in all_files:
        if file.parts[-1] == "timestamp.txt":
            continue
        try:
            found.append(_dated(recognize(course, file), stamps.get(file.parts[:-1])))
        except LeftOut as reason:
            collected.left.append((file.name, str(reason)))
    due = {lesson: _due(course, lesson) for lesson in {item.lesson for item in found}}
    for item in _settle_rivals(found, collected):
        _take(course, item, due[item.lesson], collected)
    return collected


def _is_stamp(file: File) -> bool:
    return file.parts[-1] == "timestamp.txt" and not file.trouble and file.size <= LONGEST_STAMP


def _dated(item: Found, stamp: File | None) -> Found:
    """With the time that a timestamp.txt beside the notebook says."""
    time = parse_time(_read(stamp).decode(errors="replace")) if stamp else None
    if time is not None:
        item.time, item.lms = time, ""
    return item


def _settle_rivals(found: list[Found], collected: Collected) -> Iterator[Found]:
    """Of several files of one student for one lesson: the one with the right name, then the newest."""
    groups = {}
    for item in found:
        groups.setdefault((item.student, item.lesson.order), []).append(item)
    for key in sorted(groups):
        items = groups[key]
        if len({item.identity for item in items}) > 1:
            reason = f"Two students would both be {items[0].student}: unpack the zip, and rename one of them."
            collected.left += [(item.file.name, reason) for item in items]
            continue
        items.sort(key=lambda item: (item.time, item.exact))
        same_folder = len({item.file.parts[:-1] for item in items}) == 1 and len(items[0].file.parts) > 1
        exact = [item for item in items if item.exact]
        best = exact[-1] if same_folder and exact else items[-1]
        collected.left += [
            (item.file.name, f"{best.file.name} was taken in its place.")
            for item in items
            if item is not best
        ]
        yield best


def _take(course, item, due, collected):
    try:
        data = _read(item.file)
    except LeftOut as reason:
        collected.left.append((item.file.name, str(reason)))
        return
    folder = course.submitted / item.student / item.lesson.name
    target, stamp = folder / f"{item.lesson.topic}.ipynb", folder / "timestamp.txt"
    time, late = _time(item, due)
    what = "new"
    if target.is_file():
        there = parse_time(stamp.read_text(encoding="utf-8")) if stamp.is_file() else None
        if target.read_bytes() == data:
            what = "unchanged"
            time, late = _time(replace(item, time=there) if there else item, due)
        elif there and there > time:
            reason = f"What was handed in on {there:{STAMP}} is newer, and stays."
            collected.left.append((item.file.name, reason))
            return
        else:
            what = "replaced"
            _keep_earlier(course, item, target, there)
    folder.mkdir(parents=True, exist_ok=True)
    _write(target, data)
    _write(stamp, f"{time:{STAMP}}".encode())
    _mark_late(folder / "late.txt", "Canvas marks it as late." if item.late else "")
    collected.taken.append(Taken(item.student, item.lesson.name, what, time, late, item.file.name))


def _time(item: Found, due: datetime | None) -> tuple[datetime, str]:
    """When it counts as handed in, and what there is to say of that; `due` in UTC, without a zone."""
    time = item.time.replace(microsecond=0)
    by = due.replace(tzinfo=UTC, microsecond=0) if due else None
    if item.late:
        return (by + timedelta(seconds=1) if by else time), "Canvas marks it as late."
    if by is None or time <= by:
        return time, ""
    if item.lms:
        return by, "" if item.lms == "Canvas" else "Not known: Moodle's zip does not say when it came."
    return time, "It came after the lesson was due."


def _read(file):
    try:
        return file.read()
    except Exception as error:  # zipfile hands on whatever the decompressor raises
        raise LeftOut(f"It cannot be read: {error}.") from None


def _keep_earlier(course, item, target, time):
    """The submission that is replaced, under its time, or under the first free number."""
    folder = course.folder / "grading" / "earlier" / item.student / item.lesson.name
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time:%Y-%m-%d_%H%M%S}" if time else "undated"
    number = 1
    while (place := folder / f"{name}_{number}.ipynb").exists():
        number += 1
    os.replace(target, place)


def _mark_late(path, sentence):
    if sentence:
        _write(path, sentence.encode())
    else:
        path.unlink(missing_ok=True)


def _write(path, data):
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)


def _due(course, lesson):
    """When the lesson is due, if a gradebook says so. Collecting makes no gradebook."""
    from autograder import gradebook

    database = course.gradebook.removeprefix("sqlite:///")
    if database != course.gradebook and not Path(database).is_file():
        return None
    return gradebook.due(course.gradebook, lesson.name)
