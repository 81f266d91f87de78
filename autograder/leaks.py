"""Whether anything that students get holds what they must not: solutions, hidden tests, mark schemes."""

import html
import json
import re
from collections.abc import Iterator, Set
from pathlib import Path

from autograder.course import Course
from autograder.master import SCHEME, SOLUTION, WRITTEN_STUB, Master, read_master, regions, stub

RUN = 3  # telling lines in a row that make a leak; all of them where a secret has fewer
HIDDEN_RUN = 2  # the same for hidden tests, whose lines tell more: those shown elsewhere do not count
TELLING = 12  # characters, without white space, from which a line says something


def leaks(course: Course, *places: Path) -> list[str]:
    """One sentence for each secret of the course's masters that some file in these folders (or files) holds.

    Looked for: the body of every solution, every hidden test, mark scheme and model answer, in runs of a few
    lines. White space does not count, nor HTML tags, JSON escapes, metadata or outputs of notebooks. Lines
    of a hidden test that the lesson shows elsewhere (imports, the public test's reference) are no secret.
    """
    lessons = [lesson for lesson in course.lessons if (course.masters / f"{lesson.name}.py").is_file()]
    secrets = [secret for lesson in lessons for secret in _secrets(read_master(course, lesson))]
    found = []
    for path in _files(places):
        text = _squeezed_text(path)
        for what, runs in secrets:
            leaked = next((run for run in runs if _squeeze("".join(run)) in text), None)
            if leaked:
                found.append(f"{path} holds {what}, from the line {leaked[0].strip()!r}.")
    return found


def _secrets(master: Master) -> Iterator[tuple[str, list[list[str]]]]:
    """What is secret, and the runs of lines that would give it away."""
    public = {_squeeze(line) for line in _public_lines(master)}
    for exercise in master.exercises:
        name = f"{master.lesson.topic}.{exercise.name}"
        if exercise.solution:
            for body in regions(exercise.solution.source, SOLUTION):
                yield f"the solution of {name}", _runs(body.split("\n"))
        for cell in exercise.hidden:
            yield f"a hidden test of {name}", _runs(cell.source.split("\n"), public, HIDDEN_RUN)
        if exercise.written:
            answer = exercise.written.source
            for scheme in regions(answer, SCHEME):
                yield f"the mark scheme of {name}", _runs(scheme.split("\n"))
                answer = answer.replace(scheme, "")
            public = (*SOLUTION, *SCHEME, WRITTEN_STUB)
            kept = [line for line in answer.split("\n") if not any(mark in line for mark in public)]
            yield f"the model answer of {name}", _runs(kept)


def _public_lines(master: Master) -> Iterator[str]:
    for cell in master.cells:
        if cell.kind not in ("hidden", "written"):
            yield from stub(cell.source).split("\n")


def _runs(lines: list[str], public: Set[str] = frozenset(), run: int = RUN) -> list[list[str]]:
    """The shortest stretches of neighbouring lines with so many telling ones, or one with all there are."""
    lines = [line for line in lines if line.strip()]
    telling = [_is_telling(line, public) for line in lines]
    wanted = min(run, sum(telling))
    places = [n for n, tells in enumerate(telling) if tells]
    if not wanted:
        return []
    return [lines[first : last + 1] for first, last in zip(places, places[wanted - 1 :], strict=False)]


def _is_telling(line: str, public: Set[str]) -> bool:
    squeezed = _squeeze(line)
    boilerplate = line.lstrip().startswith(("import ", "from ", "#"))
    return len(squeezed) >= TELLING and not boilerplate and squeezed not in public


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _squeezed_text(path: Path) -> str:
    """All text in a file without white space: as it stands, without tags, and without the `#` of twins."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".ipynb", ".json"):
            text += "\n".join(_strings(json.loads(text)))
    except UnicodeDecodeError:
        return ""
    except json.JSONDecodeError:
        pass
    untagged = html.unescape(re.sub(r"<[^<>]*>", "", text))
    return _squeeze("\n".join([text, untagged, re.sub(r"(?m)^# ?", "", text)]))


def _strings(value) -> Iterator[str]:
    """Every string in a JSON value, in order: the lines of a cell's source follow one another."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _files(places: tuple[Path, ...]) -> Iterator[Path]:
    for place in places:
        yield from [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
