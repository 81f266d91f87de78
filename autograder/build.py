"""From masters to what students and nbgrader get: course/source, course/release, lessons/ and solutions/.

Everything is made in memory first, deterministic to the byte, and then either compared with what is on disk
or written, each file atomically. Students' copies come out of nbgrader's own generate_assignment steps, so
that what nbgrader expects of a release and what we publish cannot differ.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.course import Course, CourseError, Lesson
from autograder.glossary import WORDS_TABLE, words_table
from autograder.master import (
    HIDDEN,
    SCHEME,
    SOLUTION,
    WRITTEN_STUB,
    Cell,
    Master,
    read_cells,
    read_master,
    solved,
)

LESSON_TABLE = "<!-- lessons -->"
SHORT_TEST = 15  # lines of a public test that stay in view
END_OF_TABLE = "<!-- end of lessons -->"  # in README.md, which keeps its marks


@dataclass(frozen=True)
class Built:
    """What a build did, or would do.

    changed   files that were written; with check, files that differ from their master or are missing
    strays    files in lessons/ and solutions/ that no master makes: the build never deletes them
    missing   lessons of the syllabus without a master, or masters without a lesson
    """

    changed: tuple[Path, ...]
    strays: tuple[Path, ...]
    missing: tuple[str, ...]


def build(course: Course, topics: Iterable[str] | None = None, check: bool = False) -> Built:
    """Builds the lessons called `topics`, or all with the home notebook. With check, writes nothing.

    Raises CourseError when a master is broken or a file cannot be written; whatever was there stays whole.
    """
    topics = list(topics or [])
    lessons = course.choose(topics) if topics else [x for x in course.lessons if _has_master(course, x)]
    files = {path: data for lesson in lessons for path, data in _lesson_files(course, lesson)}
    if not topics:
        files |= dict(_home_files(course)) | dict(_readme(course))
    if check:
        kept = {path: data for path, data in files.items() if not path.is_relative_to(course.folder)}
        changed = [path for path, data in kept.items() if _differs(path, data)]
    else:
        changed = [path for path, data in files.items() if _write(path, data)]
    return Built(
        changed=tuple(sorted(changed)),
        strays=tuple(
            path for path in _built_already(course, lessons if topics else None) if path not in files
        ),
        missing=() if topics else tuple(_missing(course)),
    )


def source_notebook(course: Course, master: Master):
    """The instructor's notebook, with solutions and hidden tests and nbgrader's metadata in full."""
    return _notebook(_source_cells(course, master))


def release_notebook(course: Course, master: Master):
    """The student's notebook: the source put through the steps of nbgrader's generate_assignment."""
    import nbformat
    from nbconvert.exporters import NotebookExporter
    from nbgrader.converters import GenerateAssignment
    from traitlets.config import Config

    # SaveCells writes to the gradebook: that is for those who grade, not for those who build.
    config = Config({"SaveCells": {"enabled": False}, "Exporter": {"default_preprocessors": []}})
    exporter = NotebookExporter(config=config)
    for step in GenerateAssignment().preprocessors:
        exporter.register_preprocessor(step)
    try:
        text, _ = exporter.from_notebook_node(source_notebook(course, master))
    except (RuntimeError, ValueError) as error:
        raise CourseError(f"nbgrader cannot make a release of {master.path.name}: {error}") from None
    return nbformat.reads(text, as_version=4)


def solution_notebook(course: Course, master: Master):
    """The release with every solution and model answer in its place; hidden tests stay out."""
    notebook = release_notebook(course, master)
    answers = {
        cell.grade_id: _written_out(cell) if cell.kind == "written" else solved(cell.source)
        for cell in master.cells
        if cell.kind in ("solution", "written")
    }
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


def _lesson_files(course: Course, lesson: Lesson) -> Iterator[tuple[Path, bytes]]:
    master = read_master(course, lesson)
    release = release_notebook(course, master)
    yield _place(course.source, lesson), _bytes(source_notebook(course, master))
    yield _place(course.release, lesson), _bytes(release)
    yield from _with_twin(_place(course.published, lesson), release)
    yield from _with_twin(_place(course.solutions, lesson), solution_notebook(course, master))


def _home_files(course: Course) -> Iterator[tuple[Path, bytes]]:
    """lessons/index.ipynb: masters/index.py with the table of lessons in it."""
    path = course.masters / "index.py"
    if not path.is_file():
        raise CourseError(f"{path} is missing: it is the home notebook, with {LESSON_TABLE} for the table.")
    cells = read_cells(path)
    filled = [replace(cell, source=cell.source.replace(LESSON_TABLE, _table(course))) for cell in cells]
    home = _notebook(_notebook_cell("index", cell) for cell in filled)
    yield from _with_twin(course.published / "index.ipynb", home)


def _readme(course: Course) -> Iterator[tuple[Path, bytes]]:
    """README.md beside the course folder, with the table of lessons between its two marks, if it has them."""
    path = course.published.parent / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, opening, rest = text.partition(f"{LESSON_TABLE}\n")
    _, closing, after = rest.partition(END_OF_TABLE)
    if opening and closing:
        yield path, f"{before}{opening}\n{_table(course, 'lessons/')}\n\n{closing}{after}".encode()


def _table(course: Course, folder: str = "") -> str:
    rows = ["| Lesson | The question | Minutes | Points | First |", "| :-- | :-- | --: | --: | :-- |"]
    for lesson in course.lessons:
        title = f"[{lesson.order:02d} {lesson.title}]({folder}{lesson.name}/{lesson.topic}.ipynb)"
        first = ", ".join(course.lesson(topic).title for topic in lesson.prerequisites) or "nothing"
        rows.append(f"| {title} | {lesson.question} | {lesson.minutes} | {lesson.points} | {first} |")
    return "\n".join(rows)


def _with_twin(path: Path, notebook) -> Iterator[tuple[Path, bytes]]:
    yield path, _bytes(notebook)
    yield path.with_suffix(".py"), _twin(notebook)


def _place(folder: Path, lesson: Lesson) -> Path:
    return folder / lesson.name / f"{lesson.topic}.ipynb"


def _source_cells(course: Course, master: Master) -> Iterator:
    exercises = {exercise.name: exercise for exercise in master.exercises}
    for cell in master.cells:
        source = cell.source
        if cell.kind == "exercise":
            source = f"{exercises[cell.name].heading}\n\n{source}"
        elif cell.kind == "test":
            source = f"# Run this cell to check {cell.name}: {_worth(cell)}.\n{source}"
        elif cell.kind == "hidden":
            source = _hidden_source(cell)
        elif cell.kind == "prose" and cell.place == 1:
            title, _, rest = source.partition("\n")
            source = f"{title}\n\n{_lesson_line(course, master.lesson)}\n{rest}"
        elif cell.kind == "prose" and WORDS_TABLE in source:
            source = source.replace(WORDS_TABLE, words_table(course, master.lesson.topic))
        yield _notebook_cell(master.lesson.topic, replace(cell, source=source))


def _lesson_line(course: Course, lesson: Lesson) -> str:
    """What stands below a lesson's title, from the syllabus."""
    line = f"Lesson {lesson.order:02d} · {lesson.minutes} minutes · {lesson.points} points"
    needed = [course.lesson(topic) for topic in lesson.prerequisites]
    links = [f"[{other.title}](../{other.name}/{other.topic}.ipynb)" for other in needed]
    return f"{line} · first: {' and '.join(links)}" if links else line


def _hidden_source(cell: Cell) -> str:
    comment = f"# Hidden tests run here when your work is graded: {_worth(cell)}."
    return "\n".join([comment, HIDDEN[0], cell.source, HIDDEN[1]])


def _worth(cell: Cell) -> str:
    return f"{cell.points:g} {'point' if cell.points == 1 else 'points'}"


def _written_out(cell: Cell) -> str:
    """A model answer and its mark scheme, as markdown without markers."""
    dropped = (*SOLUTION, SCHEME[1], WRITTEN_STUB)
    lines = [line for line in cell.source.split("\n") if not any(mark in line for mark in dropped)]
    return "\n".join("**How it is marked**\n" if SCHEME[0] in line else line for line in lines)


def _notebook_cell(topic: str, cell: Cell):
    from nbformat.v4 import new_code_cell, new_markdown_cell

    make = new_markdown_cell if cell.markdown else new_code_cell
    metadata = {"nbgrader": _nbgrader(cell)} if cell.grade_id else {}
    if cell.tags:
        metadata["tags"] = list(cell.tags)
    if _is_folded(cell):
        metadata["jupyter"] = {"source_hidden": True}  # folded away in JupyterLab, one click from view
    return make(cell.source, id=cell.grade_id or _id_of_place(topic, cell.place), metadata=metadata)


def _is_folded(cell: Cell) -> bool:
    """Code that only shows, and tests so long that their message would lie out of sight."""
    return "hide-input" in cell.tags or (cell.kind == "test" and len(cell.source.splitlines()) > SHORT_TEST)


def _nbgrader(cell: Cell) -> dict:
    """nbgrader's metadata, schema 3. All that is not for the student to write is locked."""
    answered = cell.kind in ("solution", "written")
    graded = cell.kind in ("test", "hidden", "written")
    return {
        "cell_type": "markdown" if cell.markdown else "code",
        "grade": graded,
        "grade_id": cell.grade_id,
        "locked": not answered,
        "schema_version": 3,
        "solution": answered,
        "task": False,
    } | ({"points": cell.points} if graded else {})


def _id_of_place(topic: str, place: int) -> str:
    return hashlib.sha256(f"{topic}/{place}".encode()).hexdigest()[:12]


def _notebook(cells: Iterable):
    from nbformat.v4 import new_notebook

    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return new_notebook(
        cells=list(cells), metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )


def _bytes(notebook) -> bytes:
    import nbformat

    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def _twin(notebook) -> bytes:
    """The notebook as a py:percent file: for reading and comparing, not paired with it."""
    import jupytext
    from nbformat import NotebookNode

    filters = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,nbgrader,-all"}
    twin = NotebookNode(notebook | {"metadata": NotebookNode(jupytext=filters)})
    return jupytext.writes(twin, fmt="py:percent").encode()


def _has_master(course: Course, lesson: Lesson) -> bool:
    return (course.masters / f"{lesson.name}.py").is_file()


def _missing(course: Course) -> Iterator[str]:
    for lesson in course.lessons:
        if not _has_master(course, lesson):
            yield f"{lesson.name} stands in the syllabus, but has no master"
    names = {lesson.name for lesson in course.lessons} | {"index"}
    for path in sorted(course.masters.glob("*.py")):
        if path.stem not in names:
            yield f"{path.name} is a master, but the syllabus has no such lesson"


def _built_already(course: Course, lessons: Iterable[Lesson] | None) -> Iterator[Path]:
    """The files in lessons/ and solutions/, of these lessons only where any are given."""
    for folder in (course.published, course.solutions):
        places = [folder] if lessons is None else [folder / lesson.name for lesson in lessons]
        for path in sorted(path for place in places for path in place.rglob("*") if path.is_file()):
            inner = path.relative_to(folder).parts
            if not any(part.startswith(".") or part == "__pycache__" for part in inner):
                yield path


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() != data
    except FileNotFoundError:
        return True


def _write(path: Path, data: bytes) -> bool:
    """Puts data in the file, whole or not at all. Returns whether that changed it."""
    if not _differs(path, data):
        return False
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CourseError(
            f"Cannot write {path}: {error.strerror}. What was there is untouched;"
            " make the folder writable, or build in a copy of the course."
        ) from None
    return True
