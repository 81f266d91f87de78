"""A course on disk: its lessons, read from syllabus.toml, and where everything that belongs to it lies."""

import tomllib
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path


class CourseError(Exception):
    """Something about the course must be changed by its author or instructor; the message says what."""


@dataclass(frozen=True)
class Lesson:
    """One [[lesson]] of the syllabus: `topic` names it everywhere, `withheld` lists flowkit modules."""

    order: int
    topic: str
    title: str
    question: str
    prerequisites: tuple[str, ...]
    minutes: int
    points: int
    withheld: tuple[str, ...]

    @property
    def name(self) -> str:
        """The lesson's name in folders and in the gradebook: "08_coupling"."""
        return f"{self.order:02d}_{self.topic}"


class Course:
    """The course in `folder`. `db` is the gradebook's URL where it is not gradebook.db in the folder.

    Raises CourseError when the folder or its syllabus.toml is missing, or when the syllabus is broken.
    """

    def __init__(self, folder: Path | str = "course", db: str | None = None):
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise CourseError(f"No course at {self.folder}: say where it is with --course.")
        self.syllabus = self.folder / "syllabus.toml"
        self.lessons = _read_syllabus(self.syllabus)
        self.gradebook = _with_driver(db) if db else f"sqlite:///{self.folder / 'gradebook.db'}"

    def lesson(self, topic: str) -> Lesson:
        """The lesson called "coupling", "08_coupling", "08" or "8"."""
        for lesson in self.lessons:
            if topic in (lesson.topic, lesson.name) or (topic.isdigit() and int(topic) == lesson.order):
                return lesson
        close = get_close_matches(topic, [name for x in self.lessons for name in (x.topic, x.name)], n=3)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        listed = ", ".join(lesson.name for lesson in self.lessons)
        raise CourseError(f"No lesson is called {topic!r}.{guess} The lessons are {listed}.")

    def choose(self, topics: list[str] | None = None) -> tuple[Lesson, ...]:
        """The lessons named by `topics`, in the syllabus's order; all of them when none is named."""
        chosen = {self.lesson(topic) for topic in topics or []}
        return tuple(lesson for lesson in self.lessons if not chosen or lesson in chosen)

    @property
    def masters(self) -> Path:
        return self.folder / "masters"

    @property
    def glossary(self) -> Path:
        return self.folder / "glossary.toml"

    @property
    def source(self) -> Path:
        """nbgrader's source: the instructor's notebooks, with solutions and hidden tests."""
        return self.folder / "source"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    @property
    def submitted(self) -> Path:
        return self.folder / "submitted"

    @property
    def autograded(self) -> Path:
        return self.folder / "autograded"

    @property
    def feedback(self) -> Path:
        return self.folder / "feedback"

    @property
    def published(self) -> Path:
        """lessons/, beside the course: what students open."""
        return self.folder.parent / "lessons"

    @property
    def solutions(self) -> Path:
        return self.folder.parent / "solutions"

    def master(self, lesson: Lesson) -> Path:
        """The file that the lesson is written in. Raises CourseError when it is not there."""
        path = self.masters / f"{lesson.name}.py"
        if not path.is_file():
            raise CourseError(f"{path} is missing: lesson {lesson.name} of the syllabus has no master.")
        return path


def _with_driver(db: str) -> str:
    """PostgreSQL is reached through psycopg 3, which a plain postgresql:// would not choose."""
    scheme, mark, rest = db.partition("://")
    return f"postgresql+psycopg://{rest}" if mark and scheme in ("postgresql", "postgres") else db


def _read_syllabus(path: Path) -> tuple[Lesson, ...]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("lesson", [])
    except FileNotFoundError:
        raise CourseError(f"{path} is missing: it lists the lessons, one [[lesson]] each.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is not valid TOML: {error}") from None
    if not isinstance(tables, list) or not tables:
        raise CourseError(f"{path} has no lesson: each is a [[lesson]] with its keys below it.")
    lessons = [_read_lesson(path, place, table) for place, table in enumerate(tables, 1)]
    for problem in _inconsistencies(lessons):
        raise CourseError(f"{path}: {problem}")
    return tuple(sorted(lessons, key=lambda lesson: lesson.order))


def _read_lesson(path: Path, place: int, table: dict) -> Lesson:
    name = f"lesson {place} ({table.get('topic', 'no topic')})"
    types = {field.name: field.type for field in fields(Lesson)}
    for key in table.keys() - types.keys():
        raise CourseError(
            f"{path}: {name} has a key {key!r} that means nothing; the keys are {', '.join(types)}."
        )
    for key, kind in types.items():
        if key not in table:
            raise CourseError(f"{path}: {name} has no {key!r}.")
        if not _fits(table[key], kind):
            wanted = {int: "a whole number", str: "a text"}.get(kind, "a list of names")
            raise CourseError(f"{path}: {key!r} of {name} must be {wanted}, not {table[key]!r}.")
    if not table["topic"].isidentifier():
        raise CourseError(f"{path}: 'topic' of {name} must be a Python name, such as change_of_variables.")
    return Lesson(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _fits(value, kind) -> bool:
    if kind in (int, str):
        return type(value) is kind and (kind is str or value >= 0) and value != ""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _inconsistencies(lessons: list[Lesson]):
    orders = {}
    for lesson in lessons:
        if lesson.order in orders:
            yield f"'order' of {lesson.topic} is {lesson.order}, which {orders[lesson.order]} has already."
        orders[lesson.order] = lesson.topic
    order_of = {}
    for lesson in lessons:
        if lesson.topic in order_of:
            yield f"two lessons have the topic {lesson.topic!r}."
        order_of[lesson.topic] = lesson.order
    for lesson in lessons:
        for topic in lesson.prerequisites:
            if topic not in order_of:
                yield f"'prerequisites' of {lesson.topic} names {topic!r}, which is no lesson."
            elif order_of[topic] >= lesson.order:
                yield f"'prerequisites' of {lesson.topic} names {topic!r}, which comes after it."
