"""A master: one lesson as its author writes it, with solutions and hidden tests, as a py:percent file."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from autograder.course import Course, CourseError, Lesson

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
WRITTEN_STUB = "YOUR ANSWER HERE"
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
BROKEN = "# repair this line"  # ends a line that only students get: a mistake that is theirs to find
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
SCHEME = ("=== BEGIN MARK SCHEME ===", "=== END MARK SCHEME ===")

LONGEST_NAME = 48  # with a suffix it must fit a notebook's cell id: 64 characters

# What a header may hold, by the key that says what kind of cell it is; {} are prose and code.
HEADERS = {
    "exercise": {"title": str, "difficulty": int, "importance": int, "minutes": int},
    "solution": {},
    "test": {"points": (int, float)},
    "hidden": {"points": (int, float)},
    "written": {"points": (int, float)},
}
MARKDOWN = {"exercise", "written"}


@dataclass(frozen=True)
class Cell:
    """One cell of a master.

    kind        "prose", "code", "show", "exercise", "solution", "test", "hidden" or "written"
    name        of the exercise that it belongs to; "" for prose, code and show
    grade_id    nbgrader's: the exercise's name for what the student writes, and with a suffix
                (_statement, _test, _test_2, _hidden) for the others; code_1, code_2, ... for code
    place, line where it stands in the file: the cell's number, from 1, and its header's line
    header      what else the header says: points, title, difficulty, importance, minutes
    """

    kind: str
    source: str
    place: int
    line: int
    name: str = ""
    grade_id: str = ""
    tags: tuple[str, ...] = ()
    header: dict = field(default_factory=dict, hash=False)

    @property
    def points(self) -> float:
        return self.header.get("points", 0)

    @property
    def markdown(self) -> bool:
        return self.kind in ("prose", "exercise", "written")


@dataclass(frozen=True)
class Exercise:
    """An exercise and its cells. `written` is the answer cell of one that is graded by hand."""

    name: str
    number: int
    title: str
    difficulty: int
    importance: int
    minutes: int
    statement: Cell
    solution: Cell | None
    tests: tuple[Cell, ...]
    hidden: tuple[Cell, ...]
    written: Cell | None

    @property
    def points(self) -> float:
        graded = (*self.tests, *self.hidden, *((self.written,) if self.written else ()))
        return sum(cell.points for cell in graded)

    @property
    def heading(self) -> str:
        """What the build writes above the statement."""
        return (
            f"### Exercise {self.number}: {self.title}\n\n"
            f"difficulty {self.difficulty} of 5 · importance {self.importance} of 5 · "
            f"{self.minutes} minutes · {self.points:g} {'point' if self.points == 1 else 'points'}"
        )


@dataclass(frozen=True)
class Master:
    """A lesson's cells in order, and its exercises in the order of their statements."""

    lesson: Lesson
    path: Path
    cells: tuple[Cell, ...]
    exercises: tuple[Exercise, ...]

    def exercise(self, name: str) -> Exercise:
        """The exercise called `name`, with or without its topic before it."""
        for exercise in self.exercises:
            if name in (exercise.name, f"{self.lesson.topic}.{exercise.name}"):
                return exercise
        names = ", ".join(exercise.name for exercise in self.exercises)
        raise CourseError(f"{self.path.name} has no exercise {name!r}; it has {names}.")


def read_master(course: Course, lesson: Lesson) -> Master:
    """Reads and checks the master of `lesson`. Raises CourseError: file, cell, what to change."""
    path = course.master(lesson)
    cells = tuple(_with_grade_ids(read_cells(path)))
    return Master(lesson, path, cells, tuple(_exercises(path, cells)))


def stub(source: str) -> str:
    """A solution cell as the student gets it: nbgrader's stub, indented, where the solution was.

    Markers must be balanced, as `read_master` has seen to.
    """
    lines, inside = [], False
    for line in source.split("\n"):
        if SOLUTION[0] in line:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text for text in STUB]
            inside = True
        elif SOLUTION[1] in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def solved(source: str) -> str:
    """A solution cell as solutions/ shows it: the whole answer, without marker lines and planted mistakes."""
    left_out = (*SOLUTION, BROKEN)
    return "\n".join(line for line in source.split("\n") if not any(mark in line for mark in left_out))


def stub_is(source: str) -> str:
    """What the student finds in a solution cell: "empty", or code that runs before it gets to the stub.

    "whole" where nothing but comments is taken out of the release; "broken" where it has a planted mistake.
    """
    if BROKEN in source:
        return "broken"
    lines = [line.strip() for region in regions(source, SOLUTION) for line in region.split("\n")]
    return "empty" if any(line and not line.startswith("#") for line in lines) else "whole"


def regions(source: str, markers: tuple[str, str]) -> list[str]:
    """What stands between each pair of markers. Raises ValueError when they are not balanced."""
    found, current = [], None
    for line in source.split("\n"):
        if markers[0] in line:
            if current is not None:
                raise ValueError(f"{markers[0]} stands twice without {markers[1]} between")
            current = []
        elif markers[1] in line:
            if current is None:
                raise ValueError(f"{markers[1]} has no {markers[0]} before it")
            found.append("\n".join(current))
            current = None
        elif current is not None:
            current.append(line)
    if current is not None:
        raise ValueError(f"{markers[0]} has no {markers[1]} after it")
    return found


def where(path: Path, cell: Cell) -> str:
    """How messages name a cell: "08_coupling.py, cell 12 (line 140)"."""
    return f"{path.name}, cell {cell.place} (line {cell.line})"


def read_cells(path: Path) -> Iterator[Cell]:
    """The cells of a py:percent file, without grade_ids. Raises CourseError."""
    import jupytext  # a second to import: only when a master is read

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CourseError(f"{path} is not UTF-8: {error}. Save it as UTF-8.") from None
    try:
        notebook = jupytext.reads(text, fmt="py:percent")
    except Exception as error:  # jupytext hands on whatever its YAML or nbformat raise
        reason = str(error).split("\n")[0]
        raise CourseError(
            f"{path} cannot be read as a py:percent file ({reason}). Is its first block, between"
            " '# ---' lines, complete? A master needs no such block."
        ) from None
    lines = [n for n, line in enumerate(text.split("\n"), 1) if re.match(r"# %%(\s|$)", line)]
    first_is_untitled = len(notebook.cells) == len(lines) + 1
    lines = [1, *lines] if first_is_untitled else lines
    for place, (raw, line) in enumerate(zip(notebook.cells, lines, strict=False), 1):
        yield _cell(path, raw, place, line)


def _cell(path: Path, raw, place: int, line: int) -> Cell:
    metadata = {key: value for key, value in raw.metadata.items() if not key.startswith("lines_to_")}
    tags = tuple(metadata.pop("tags", ()))
    place_only = Cell("code", raw.source, place, line)
    kinds = [key for key in HEADERS if key in metadata]
    if len(kinds) > 1:
        raise _fault(path, place_only, f"a cell is one thing: {' and '.join(kinds)} cannot stand together")
    if not kinds:
        for key in metadata:
            raise _fault(path, place_only, f"the header has {key!r}, which means nothing here: take it out")
        return replace(place_only, kind=_plain_kind(raw, tags), tags=tags)
    kind = kinds[0]
    name = metadata.pop(kind)
    _check_header(path, place_only, kind, name, metadata, raw.cell_type == "markdown")
    cell = replace(place_only, kind=kind, name=name, tags=tags, header=metadata)
    _check_source(path, cell)
    return cell


def _plain_kind(raw, tags: tuple[str, ...]) -> str:
    if raw.cell_type != "code":
        return "prose"
    return "show" if "show" in tags else "code"


def _check_header(path: Path, cell: Cell, kind: str, name, metadata: dict, markdown: bool) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise _fault(path, cell, f"{kind}={name!r} must be a Python name in quotes")
    if len(name) > LONGEST_NAME:
        raise _fault(path, cell, f"{name!r} is longer than {LONGEST_NAME} characters")
    wanted = HEADERS[kind]
    for key in metadata.keys() - wanted.keys():
        raise _fault(path, cell, f"the header has {key!r}, which means nothing here: take it out")
    for key, types in wanted.items():
        if key not in metadata:
            raise _fault(path, cell, f"the header of {kind}={name!r} has no {key}=")
        value = metadata[key]
        if not isinstance(value, types) or isinstance(value, bool) or not (types is str or value > 0):
            must = "a text in quotes" if types is str else "a number above 0"
            raise _fault(path, cell, f"{key}={value!r} must be {must}")
        if key in ("difficulty", "importance") and value > 5:
            raise _fault(path, cell, f"{key}={value} must be from 1 to 5")
    if markdown != (kind in MARKDOWN):
        raise _fault(
            path, cell, f"{kind}={name!r} must {'' if kind in MARKDOWN else 'not '}be a [markdown] cell"
        )


def _check_source(path: Path, cell: Cell) -> None:
    for markers in (SOLUTION, SCHEME):
        try:
            found = regions(cell.source, markers)
        except ValueError as error:
            raise _fault(path, cell, str(error)) from None
        needed = (cell.kind, markers) in (("solution", SOLUTION), ("written", SCHEME))
        if needed and not any(region.strip() for region in found):
            raise _fault(path, cell, f"put what students must not see between {markers[0]} and {markers[1]}")
    if cell.kind == "solution":
        _check_code(path, cell)
        if cell.name not in _defined(cell.source):
            raise _fault(path, cell, f"the solution must define {cell.name!r}, the exercise's name")


def _check_code(path: Path, cell: Cell) -> None:
    for text, what in ((cell.source, "the solution"), (stub(cell.source), "the student's copy of it")):
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise _fault(
                path, cell, f"{what} is not valid Python: {error.msg}, its line {error.lineno}"
            ) from None


def _defined(source: str) -> set[str]:
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


SUFFIX = {"exercise": "_statement", "solution": "", "written": "", "test": "_test", "hidden": "_hidden"}


def _with_grade_ids(cells: Iterator[Cell]) -> Iterator[Cell]:
    counts: dict[tuple[str, str], int] = {}
    for cell in cells:
        if cell.kind in ("prose", "show"):
            yield cell
            continue
        stem = cell.name + SUFFIX[cell.kind] if cell.name else "code"
        count = counts[cell.kind, cell.name] = counts.get((cell.kind, cell.name), 0) + 1
        numbered = not cell.name or count > 1
        yield replace(cell, grade_id=f"{stem}_{count}" if numbered else stem)


def _exercises(path: Path, cells: tuple[Cell, ...]) -> Iterator[Exercise]:
    statements = [cell for cell in cells if cell.kind == "exercise"]
    known = set()
    for cell in cells:
        if cell.kind == "exercise":
            if cell.name in known:
                raise _fault(path, cell, f"a second exercise is called {cell.name!r}: rename one")
            known.add(cell.name)
        elif cell.name and cell.name not in known:
            raise _fault(
                path, cell, f'write its statement first, a cell with exercise="{cell.name}" title=...'
            )
    for number, statement in enumerate(statements, 1):
        yield _exercise(path, number, statement, [cell for cell in cells if cell.name == statement.name])


def _exercise(path: Path, number: int, statement: Cell, cells: list[Cell]) -> Exercise:
    of = {kind: tuple(cell for cell in cells if cell.kind == kind) for kind in HEADERS}
    for kind in ("solution", "written"):
        if len(of[kind]) > 1:
            raise _fault(path, of[kind][1], f"{statement.name!r} has a second {kind} cell: join the two")
    if not of["solution"] and not of["written"]:
        raise _fault(
            path, statement, f"nothing answers {statement.name!r}: add its solution= or written= cell"
        )
    return Exercise(
        name=statement.name,
        number=number,
        **statement.header,
        statement=statement,
        solution=next(iter(of["solution"]), None),
        tests=of["test"],
        hidden=of["hidden"],
        written=next(iter(of["written"]), None),
    )


def _fault(path: Path, cell: Cell, reason: str) -> CourseError:
    return CourseError(f"{where(path, cell)}: {reason}.")
