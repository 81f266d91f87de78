"""`autograder collect`: what students handed in, from an LMS's zip or a folder, into course/submitted.

Bytes are copied as they are. Known layouts, under any folder around them:

    STUDENT/08_coupling/coupling.ipynb              nbgrader's, and what our own lessons folder suggests
    STUDENT/coupling.ipynb
    STUDENT_coupling.ipynb, STUDENT_08_coupling.ipynb
    STUDENT+08_coupling+2026-10-01 12:00:00 UTC/coupling.ipynb    nbgrader's exchange
    lovelaceada_LATE_1042_77_coupling-1.ipynb       Canvas; the student becomes lovelaceada_1042
    Ada Lovelace_1042_assignsubmission_file_/coupling.ipynb       Moodle; the student becomes Ada_Lovelace
"""

import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from autograder.course import Course, CourseError, Lesson
from autograder.submission import LARGEST

STAMP = "%Y-%m-%d %H:%M:%S UTC"
CANVAS = re.compile(
    r"(?P<user>[^_]+)_(?:(?P<late>LATE)_)?(?P<id>\d+)_(?P<file>\d+)_(?P<name>.+)", re.IGNORECASE
)
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?")
EXCHANGE = re.compile(r"(?P<student>[^+]+)\+(?P<lesson>[^+]+)\+(?P<time>[^+]+?)(?:\+.*)?")
COPY = re.compile(
    r"( ?\(\d+\)|-\d+|[-_ ]+copy ?\d*)+$", re.IGNORECASE
)  # what browsers, Canvas and Jupyter append
JUNK = {"__MACOSX", ".ipynb_checkpoints", "__pycache__", ".DS_Store", "Thumbs.db"}


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


@dataclass
class _File:
    """A file in the zip or the folder. `read` gives its bytes; `trouble` is why it is not to be read."""

    parts: tuple[str, ...]
    time: datetime
    size: int
    read: Callable[[], bytes]
    trouble: str = ""

    @property
    def name(self):
        return "/".join(self.parts)


@dataclass
class _Found:
    """Whose a file is and what for."""

    student: str
    lesson: Lesson
    file: _File
    time: datetime
    exact: bool
    late: str = ""
    identity: str = ""


def collect(course: Course, source: Path) -> Collected:
    """Takes the submissions in `source`, a zip or a folder. The newest of a student's submissions of a
    lesson counts.

    An earlier one is moved to grading/earlier, never lost; an older one than what is there is left out,
    and said. Raises CourseError when the source is neither, or when the zip is damaged.
    """
    collected = Collected()
    files = list(_files(Path(source)))
    stamps = {f.parts[:-1]: f for f in files if f.parts[-1] == "timestamp.txt" and not f.trouble}
    found = []
    for file in files:
        if JUNK & set(file.parts) or file.parts[-1].startswith(".") or file.parts[-1] == "timestamp.txt":
            continue
        try:
            found.append(_recognize(course, file, stamps.get(file.parts[:-1])))
        except _LeftOut as reason:
            collected.left.append((file.name, str(reason)))
    due = {lesson: _due(course, lesson) for lesson in {item.lesson for item in found}}
    for item in _settle_rivals(found, collected):
        _take(course, item, due[item.lesson], collected)
    return collected


class _LeftOut(Exception):
    """Why a file is not taken."""


def _files(source: Path) -> Iterator[_File]:
    if source.is_dir():
        return _in_folder(source)
    if not source.is_file():
        raise CourseError(f"{source} is not there: give the LMS's zip, or a folder.")
    if source.suffix.lower() == ".ipynb":
        raise CourseError(
            f"{source} is one notebook: put it in a folder as STUDENT/{source.name}, and collect that."
        )
    if not zipfile.is_zipfile(source):
        raise CourseError(f"{source} is neither a folder nor a zip. Unpack it, and collect the folder.")
    return _in_zip(source)


def _in_folder(source):
    for path in sorted(source.rglob("*")):
        trouble = "a link, which may point anywhere" if path.is_symlink() else ""
        if path.is_dir() and not trouble:
            continue
        state = path.lstat()
        if not trouble and not stat.S_ISREG(state.st_mode):
            trouble = "not a plain file"
        time = datetime.fromtimestamp(state.st_mtime, UTC)
        yield _File(path.relative_to(source).parts, time, state.st_size, path.read_bytes, trouble)


def _in_zip(source):
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise CourseError(f"{source} cannot be read: {error}. Download it again.") from None
    with archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if not info.is_dir():
                yield _File(
                    PurePosixPath(info.filename).parts or ("?",),
                    _zip_time(info),
                    info.file_size,
                    _reader(source, info),
                    _zip_trouble(info),
                )


def _reader(source, info):
    def read():
        with zipfile.ZipFile(source) as archive, archive.open(info) as member:
            return member.read(LARGEST + 1)

    return read


def _zip_time(info):
    try:
        return datetime(*info.date_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)


def _zip_trouble(info):
    name = info.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "its path leads out of the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which may point anywhere"
    return "it is encrypted" if info.flag_bits & 1 else ""


def _recognize(course, file, stamp):
    if file.trouble:
        raise _LeftOut(f"{file.trouble[0].upper()}{file.trouble[1:]}.")
    name = PurePosixPath(file.parts[-1])
    if name.suffix.lower() == ".zip":
        raise _LeftOut("A zip inside: unpack it, and collect it by itself.")
    if name.suffix.lower() != ".ipynb":
        raise _LeftOut("Only .ipynb files are taken.")
    if file.size > LARGEST:
        raise _LeftOut(
            f"It has {file.size / 2**20:.0f} MB, more than {LARGEST // 2**20} MB. Ask for it without outputs."
        )
    item = _place(course, file, name.stem)
    if stamp is not None:
        item.time = _parse_time(_read(stamp).decode(errors="replace")) or item.time
    return item


def _place(course, file, stem):
    folders = file.parts[:-1]
    for i in reversed(range(len(folders))):
        exchange = EXCHANGE.fullmatch(folders[i])
        if exchange:
            lesson = _lesson(course, exchange["lesson"])
            time = _parse_time(exchange["time"]) or file.time
            return _found(exchange["student"], lesson, file, stem, time=time)
        lesson = _known(course, folders[i])
        if lesson and folders[i] == lesson.name and i > 0:
            return _found(_student_folder(folders[i - 1])[0], lesson, file, stem)
    canvas = CANVAS.fullmatch(stem)
    if canvas:
        late = "Canvas marks it as late." if canvas["late"] else ""
        student = f"{canvas['user']}_{canvas['id']}"
        return _found(student, _lesson(course, canvas["name"]), file, canvas["name"], late=late)
    for lesson in sorted(course.lessons, key=lambda lesson: -len(lesson.topic)):
        flat = re.fullmatch(
            rf"(.+?)[-_ +](?:{lesson.name}|{lesson.topic})", COPY.sub("", stem), re.IGNORECASE
        )
        if flat and not _known(course, stem):
            return _found(flat[1], lesson, file, lesson.topic)
    if not folders:
        raise _LeftOut(
            f"Nothing says whose it is: call it STUDENT_{stem}.ipynb, or put it in a folder STUDENT/."
        )
    student, identity = _student_folder(folders[-1])
    return _found(student, _lesson(course, stem), file, stem, identity=identity)


def _found(student, lesson, file, stem, time=None, late="", identity=""):
    clean = re.sub(r"[^\w.@-]+", "_", unicodedata.normalize("NFC", student)).strip("_")
    if not clean.strip("."):
        raise _LeftOut(f"{student!r} cannot be the name of a student.")
    return _Found(clean.lstrip("."), lesson, file, time or file.time, stem == lesson.topic, late, identity)


def _student_folder(folder):
    moodle = MOODLE.fullmatch(folder)
    return (moodle["name"], moodle["id"]) if moodle else (folder, "")


def _known(course, name):
    name = COPY.sub("", name).strip().lower()
    return next((lesson for lesson in course.lessons if name in (lesson.topic, lesson.name)), None)


def _lesson(course, name):
    known = _known(course, name)
    if known is None:
        try:
            course.lesson(COPY.sub("", name))
        except CourseError as error:
            raise _LeftOut(str(error)) from None
        raise _LeftOut(f"A number alone does not name a lesson: {name!r}.")
    return known


def _settle_rivals(found: list[_Found], collected: Collected) -> Iterator[_Found]:
    """Of several files of one student for one lesson: the one with the right name, then the newest."""
    groups = {}
    for item in found:
        groups.setdefault((item.student, item.lesson.order), []).append(item)
    for key in sorted(groups):
        items = groups[key]
        if len({item.identity for item in items}) > 1:
            collected.left += [
                (i.file.name, f"Two students would both be {i.student}: rename a folder.") for i in items
            ]
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
    except _LeftOut as reason:
        collected.left.append((item.file.name, str(reason)))
        return
    folder = course.submitted / item.student / item.lesson.name
    target, stamp = folder / f"{item.lesson.topic}.ipynb", folder / "timestamp.txt"
    time = item.time.replace(microsecond=0)
    what = "new"
    if target.is_file():
        there = _parse_time(stamp.read_text(encoding="utf-8")) if stamp.is_file() else None
        if target.read_bytes() == data:
            what, time = "unchanged", there or time
        elif there and there > time:
            reason = f"What was handed in on {there:{STAMP}} is newer, and stays."
            collected.left.append((item.file.name, reason))
            return
        else:
            what = "replaced"
            _keep_earlier(course, item, target, there)
    late = item.late or (
        "It came after the lesson was due." if due and time.replace(tzinfo=None) > due else ""
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(target, data)
    _write(stamp, f"{time:{STAMP}}".encode())
    _mark_late(folder / "late.txt", item.late)
    collected.taken.append(Taken(item.student, item.lesson.name, what, time, late, item.file.name))


def _read(file):
    try:
        return file.read()
    except Exception as error:  # zipfile hands on whatever the decompressor raises
        raise _LeftOut(f"It cannot be read: {error}.") from None


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


def _parse_time(text):
    from nbgrader.utils import parse_utc

    try:
        parsed = parse_utc(text.strip())
    except (ValueError, OverflowError, AttributeError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed else None


def _due(course, lesson):
    """When the lesson is due, if a gradebook says so. Collecting makes no gradebook."""
    from autograder import gradebook

    database = course.gradebook.removeprefix("sqlite:///")
    if database != course.gradebook and not Path(database).is_file():
        return None
    return gradebook.due(course.gradebook, lesson.name)
