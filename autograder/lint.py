"""The author's guide as rules: each a small function that yields sentences saying where, and what to do."""

import builtins
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder import syntax
from autograder.course import Course, CourseError, Lesson
from autograder.glossary import WORDS_TABLE, read_glossary
from autograder.master import HIDDEN, SCHEME, SOLUTION, STUB, Cell, Exercise, Master, read_master, where

CELLS = (25, 45)
WORDS = (900, 2500)
EXERCISES = (4, 7)
HINTS = (2, 4)
ANSWERS = {"right": 2, "wrong": 3}
GRADED = ("code", "solution", "test", "hidden")
NETWORK = {"urllib", "urllib3", "requests", "http", "httpx", "aiohttp", "socket", "ftplib"}
DOWNLOADS = re.compile(r"torch\.hub|from_url\(|\bfetch_\w+\(|^\s*[!%]\s*(?:pip|conda|wget|curl|git)\b", re.M)
NUMPY_SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "rand_like"}
TORCH_DRAWS |= {"randn_like"}


@dataclass(frozen=True)
class Page:
    """A master, and what its rules compare it with."""

    course: Course
    master: Master
    glossary: tuple[dict, ...]

    @property
    def lesson(self) -> Lesson:
        return self.master.lesson

    def cells(self, *kinds: str) -> list[Cell]:
        return [cell for cell in self.master.cells if cell.kind in kinds]

    @property
    def markdown(self) -> list[Cell]:
        return [cell for cell in self.master.cells if cell.markdown]

    @property
    def code(self) -> list[Cell]:
        """The cells of code that parse; `valid_code` tells of the others."""
        return [cell for cell in self.master.cells if not cell.markdown and not syntax.error(cell.source)]

    def fault(self, cell: Cell, reason: str) -> str:
        return f"{where(self.master.path, cell)}: {reason}."


RULES: list[Callable[[Page], Iterable[str]]] = []


def rule(function: Callable[[Page], Iterable[str]]):
    RULES.append(function)
    return function


def lint(course: Course, topics: Iterable[str] | None = None) -> list[str]:
    """The faults of the lessons called `topics`, or of all that have a master, and of the glossary."""
    topics = list(topics or [])
    glossary, faults = read_glossary(course)
    for lesson in course.choose(topics):
        if topics or (course.masters / f"{lesson.name}.py").is_file():
            try:
                page = Page(course, read_master(course, lesson), glossary)
            except CourseError as error:
                faults.append(str(error))
            else:
                faults += [fault for check in RULES for fault in check(page)]
    return faults


# ---- what the lesson is made of


@rule
def sizes(page: Page) -> Iterator[str]:
    counts = {
        "cells": (len(page.master.cells), CELLS),
        "words of prose": (sum(_words(cell.source) for cell in page.cells("prose", "exercise")), WORDS),
        "exercises": (len(page.master.exercises), EXERCISES),
    }
    for what, (count, (least, most)) in counts.items():
        if not least <= count <= most:
            yield f"{page.master.path.name}: {count} {what}; a lesson has {least} to {most}."


@rule
def words_are_listed_once(page: Page) -> Iterator[str]:
    count = sum(cell.source.count(WORDS_TABLE) for cell in page.cells("prose"))
    if count != 1:
        yield (
            f"{page.master.path.name}: {WORDS_TABLE} stands {count} times in its prose. Put it once, in the"
            " wrap-up: the build writes the lesson's terms there."
        )
    if not any(term["lesson"] == page.lesson.topic for term in page.glossary):
        yield f"{page.master.path.name}: {page.course.glossary.name} has no term of this lesson."


@rule
def points_match_the_syllabus(page: Page) -> Iterator[str]:
    points = sum(exercise.points for exercise in page.master.exercises)
    if points != page.lesson.points:
        yield (
            f"{page.master.path.name}: its exercises give {points:g} points, and the syllabus"
            f" promises {page.lesson.points}: change the points= of its tests."
        )


@rule
def unique_grade_ids(page: Page) -> Iterator[str]:
    seen = {}
    for cell in page.master.cells:
        if cell.grade_id and cell.grade_id in seen:
            other = seen[cell.grade_id]
            reason = f"its grade_id {cell.grade_id} is that of cell {other.place} too: rename an exercise"
            yield page.fault(cell, reason)
        seen[cell.grade_id] = cell


@rule
def solutions_are_tested(page: Page) -> Iterator[str]:
    for exercise in page.master.exercises:
        if exercise.solution and not exercise.tests:
            yield page.fault(exercise.solution, f'add a public test, test="{exercise.name}"')


@rule
def marks_stand_in_their_cells(page: Page) -> Iterator[str]:
    for cell in page.master.cells:
        for marks, kinds in ((SOLUTION, ("solution", "written")), (SCHEME, ("written",)), (HIDDEN, ())):
            for mark in marks:
                if mark in cell.source and cell.kind not in kinds:
                    yield page.fault(cell, f"{mark} has no meaning in a {cell.kind} cell: take it out")
        if STUB[0] in cell.source:
            yield page.fault(cell, f"{STUB[0]} is what the build writes: mark the solution instead")


# ---- tests


@rule
def valid_code(page: Page) -> Iterator[str]:
    for cell in page.cells(*GRADED, "show"):
        if fault := syntax.error(cell.source):
            yield page.fault(cell, f"not valid Python: {fault}")


@rule
def tests_stand_alone(page: Page) -> Iterator[str]:
    for cell in _tests(page):
        for name in sorted(syntax.free_names(cell.source)):
            if name == cell.name:
                reason = f'do not call {name}: give check its name, "{page.lesson.topic}.{name}"'
            else:
                reason = f"{name} is not defined in this cell: a test imports or makes what it uses"
            yield page.fault(cell, reason)


@rule
def tests_end_in_a_check(page: Page) -> Iterator[str]:
    for cell in _tests(page):
        if not syntax.ends_in_call_of(cell.source, "check"):
            yield page.fault(
                cell,
                "end the test in a call of check: nbgrader reads the value of a bare expression as points",
            )


@rule
def checks_name_their_exercise(page: Page) -> Iterator[str]:
    known = {f"{page.lesson.topic}.{exercise.name}" for exercise in page.master.exercises}
    for cell in page.code:
        for call, first in syntax.calls_of(cell.source, "check"):
            wanted = {f"{page.lesson.topic}.{cell.name}"} if cell.kind in ("test", "hidden") else known
            if first not in wanted:
                names = " or ".join(f'"{name}"' for name in sorted(wanted)) or "an exercise of this lesson"
                yield page.fault(cell, f"the first argument of check.{call} must be {names}, not {first!r}")


@rule
def graded_code_stands_without_shows(page: Page) -> Iterator[str]:
    defined, shown = set(dir(builtins)), {}
    for cell in page.code:
        if cell.kind == "show":
            shown |= dict.fromkeys(syntax.bound_names(cell.source), cell)
            continue
        for name in sorted(syntax.free_names(cell.source) - defined):
            if name in shown:
                reason = f"{name} comes from cell {shown[name].place}, which does not run at grading"
                yield page.fault(cell, f"{reason}: define it in a cell without the tag show")
            elif cell.kind in ("code", "solution"):
                yield page.fault(cell, f"{name} is not defined in this cell or in a cell before it")
        if cell.kind in ("code", "solution"):
            defined |= syntax.bound_names(cell.source)


@rule
def answers_keep_their_names(page: Page) -> Iterator[str]:
    names = {exercise.name for exercise in page.master.exercises}
    for cell in page.code:
        taken = names & syntax.bound_names(cell.source)
        if cell.kind != "solution" and taken:
            name = min(taken)
            yield page.fault(cell, f"{name} is bound here, and the student's {name} is lost: rename this one")


@rule
def tests_can_run_apart(page: Page) -> Iterator[str]:
    for cell in _tests(page):
        if any(name == "check.bijection" for name, _, _ in syntax.calls(cell.source)):
            yield page.fault(
                cell, "check.bijection needs the student's own process: use check.values or check.that here"
            )


@rule
def nothing_withheld(page: Page) -> Iterator[str]:
    for cell in page.code:
        withheld = syntax.modules_of("flowkit", cell.source) & set(page.lesson.withheld)
        if cell.kind in ("code", "solution") and withheld:
            reason = f"flowkit.{min(withheld)} is withheld, so that it is absent at grading"
            yield page.fault(cell, f"{reason}: use it in show and test cells only")


@rule
def seeds_are_explicit(page: Page) -> Iterator[str]:
    for cell in page.code:
        calls = syntax.calls(cell.source, inside_functions=cell.kind != "solution")
        for name, has_arguments, _ in calls:
            numpy_draw = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", name)
            if numpy_draw and numpy_draw[1] not in NUMPY_SEEDED:
                yield page.fault(cell, f"{name} draws from hidden state: use np.random.default_rng(seed)")
            elif name.endswith("default_rng") and not has_arguments:
                yield page.fault(cell, f"{name}() has no seed: give it one")
        if cell.kind != "solution" and not _torch_is_seeded(cell):
            yield page.fault(
                cell, "torch draws random numbers here: call torch.manual_seed first, in this cell"
            )


def _torch_is_seeded(cell: Cell) -> bool:
    """Whether what the cell runs itself, outside functions, draws from torch after a seed in that cell."""
    calls = syntax.calls(cell.source, inside_functions=False)
    if any(name == "torch.manual_seed" for name, _, _ in calls):
        return True
    return not any(
        name.startswith("torch.") and name[6:] in TORCH_DRAWS and "generator" not in keywords
        for name, _, keywords in calls
    )


def _tests(page: Page) -> list[Cell]:
    return [cell for cell in page.code if cell.kind in ("test", "hidden")]


# ---- prose


@rule
def headings_in_order(page: Page) -> Iterator[str]:
    level = 0
    for cell in page.markdown:
        if cell.kind == "exercise":
            level = level and 3  # the build writes its ###
        for marks, title in _headings(cell.source):
            new = len(marks)
            if level == 0 and (new != 1 or title != page.lesson.title or cell.place != 1):
                yield page.fault(cell, f"the first cell begins with the title, '# {page.lesson.title}'")
            elif level and new == 1:
                yield page.fault(cell, f"'# {title}' is a second title: a lesson has one")
            elif new > level + 1:
                yield page.fault(cell, f"'{marks} {title}' skips a level: use {'#' * (level + 1)}")
            elif cell.kind == "exercise" and new < 4:
                yield page.fault(cell, f"'{marks} {title}' stands under the exercise's ###: use ####")
            level = new
    if level == 0:
        yield f"{page.master.path.name}: no heading; begin with '# {page.lesson.title}'."


@rule
def pictures_have_alt_text(page: Page) -> Iterator[str]:
    for cell in page.code:
        for name, _, keywords in syntax.calls(cell.source):
            if name in ("plt.show", "pyplot.show"):
                yield page.fault(cell, 'show figures by plots.show(fig, alt="what is to be seen")')
            elif name.endswith("plots.show") and keywords.get("alt", "") in ("", None):
                yield page.fault(cell, 'plots.show needs alt="what is to be seen"')
    for cell in page.markdown:
        for alt, target in re.findall(r"!\[(.*?)\]\((.*?)\)", _without_code(cell.source)):
            if not alt.strip():
                yield page.fault(cell, f"the image {target} has no alternative text")
        for tag in re.findall(r"<img\b[^>]*>", _without_code(cell.source)):
            if not re.search(r'\balt="[^"]*\S[^"]*"', tag):
                yield page.fault(cell, f'{tag} has no alt="what is to be seen"')


@rule
def interactives_are_seen(page: Page) -> Iterator[str]:
    for cell in page.code:
        for name in syntax.unseen_calls(cell.source, ("play", "predict")):
            reason = f"a cell shows its last value, and this {name}(...) is none: end with it, or display it"
            yield page.fault(cell, reason)


@rule
def links_resolve(page: Page) -> Iterator[str]:
    place = page.course.published / page.lesson.name
    built = {page.course.published / x.name / f"{x.topic}.ipynb" for x in page.course.lessons}
    built.add(page.course.published / "index.ipynb")
    titles = {_anchor(title) for title in _all_headings(page)}
    for cell in page.markdown:
        for target in re.findall(r"\]\(([^)\s]*)\)", _without_code(cell.source)):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            if path and not _exists(place / path, built):
                yield page.fault(
                    cell, f"the link {target} leads nowhere: paths start from lessons/{place.name}"
                )
            elif not path and anchor not in titles:
                yield page.fault(cell, f"no heading has the anchor #{anchor}")


@rule
def no_network(page: Page) -> Iterator[str]:
    for cell in page.master.cells:
        text = cell.source
        if cell.markdown:
            remote = r"!\[[^\]]*\]\(\s*https?:|<(?:img|script|iframe|link|video)\b[^>]*https?:"
            if re.search(remote, _without_code(text)):
                yield page.fault(cell, "it loads something from the network: compute it, or leave it out")
        elif found := sorted(syntax.imported_packages(text) & NETWORK) or DOWNLOADS.findall(text):
            yield page.fault(cell, f"{found[0].strip()} uses the network: lessons run without one")


@rule
def nothing_before_its_lesson(page: Page) -> Iterator[str]:
    later = {x.topic: x for x in page.course.lessons if x.order > page.lesson.order}
    for cell in page.code:
        for module in sorted(syntax.modules_of("flowkit", cell.source) & later.keys()):
            yield page.fault(
                cell, f"flowkit.{module} belongs to lesson {later[module].name}, which comes later"
            )
    terms = [term for term in page.glossary if term["lesson"] in later]
    for cell in page.markdown:
        prose = _without_code(cell.source)
        for term in terms:
            lesson = later[term["lesson"]]
            if (
                re.search(rf"\b{re.escape(term['en'])}s?\b", prose, re.I)
                and f"{lesson.topic}.ipynb" not in prose
            ):
                reason = f"'{term['en']}' is taught later, in {lesson.name}"
                yield page.fault(cell, f"{reason}: say it otherwise, or link to that lesson in this cell")


@rule
def hints_help(page: Page) -> Iterator[str]:
    for exercise, hints in _hints(page):
        if not HINTS[0] <= len(hints) <= HINTS[1]:
            reason = f"{exercise.name} has {len(hints)} hints in <details>; give it {HINTS[0]} to {HINTS[1]}"
            yield page.fault(exercise.statement, reason)
            continue
        for hint in hints:
            if not re.search(r"<summary>\s*\S.*?</summary>", hint, re.S):
                yield page.fault(exercise.statement, "a hint has no <summary> that names its symptom")
        if not re.search(r"(```|`)[^`]*(?:(?<!\[)\.\.\.|__)[^`]*\1", hints[-1]):
            reason = f"the last hint of {exercise.name} must be a template: code with blanks, ... or ___"
            yield page.fault(exercise.statement, reason)


@rule
def details_are_closed(page: Page) -> Iterator[str]:
    for cell in page.markdown:
        if cell.source.count("<details") != cell.source.count("</details>"):
            yield page.fault(cell, "a <details> is not closed in its cell")


@rule
def answers_are_banked(page: Page) -> Iterator[str]:
    from autograder.answers import bank

    answers = bank(page.lesson.topic)
    for exercise in page.master.exercises:
        for kind, least in ANSWERS.items():
            count = len(getattr(answers, kind)(exercise.name))
            if exercise.solution and count < least:
                yield (
                    f"autograder/answers/{page.lesson.topic}.py: {exercise.name} has {count} {kind} answers;"
                    f" write at least {least}."
                )


@rule
def answers_are_to_exercises(page: Page) -> Iterator[str]:
    from autograder.answers import bank

    names = {exercise.name for exercise in page.master.exercises}
    for name in bank(page.lesson.topic).exercises:
        if name not in names:
            yield f"autograder/answers/{page.lesson.topic}.py: {name!r} is no exercise; rename it."


def _hints(page: Page) -> Iterator[tuple[Exercise, list[str]]]:
    """Each exercise with code, and the <details> from its statement up to the next one."""
    places = [exercise.statement.place for exercise in page.master.exercises] + [len(page.master.cells) + 1]
    for exercise, end in zip(page.master.exercises, places[1:], strict=True):
        own = page.master.cells[exercise.statement.place - 1 : end - 1]
        text = "\n".join(cell.source for cell in own if cell.kind in ("exercise", "prose"))
        if exercise.solution:
            yield exercise, re.findall(r"<details.*?</details>", text, re.S)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def _words(text: str) -> int:
    prose = re.sub(r"<[^<>]*>|\$\$.*?\$\$", " ", _without_code(text), flags=re.S)
    return len(re.findall(r"[^\W\d_][\w'’-]*", prose))


def _headings(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(#{1,6}) +(.*?) *$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)


def _all_headings(page: Page) -> Iterator[str]:
    for cell in page.markdown:
        yield from (title for _, title in _headings(cell.source))
    for exercise in page.master.exercises:
        yield from (title for _, title in _headings(exercise.heading))


def _anchor(title: str) -> str:
    """As JupyterLab makes it: spaces become hyphens."""
    return title.replace(" ", "-")


def _exists(path: Path, built: set[Path]) -> bool:
    path = path.resolve()
    return path in built or path.exists()
