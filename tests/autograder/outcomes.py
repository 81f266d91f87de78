"""Results of the fixture course for tests of what comes after grading, and pages as those tests read them."""

from html.parser import HTMLParser

from classes import LESSON

from autograder.course import Course
from autograder.engine import BY_HAND, RIGHT, WRONG, Check, Result
from autograder.grade import journal_path
from autograder.gradebook import Writer
from autograder.journal import Journal

POINTS = {"triangle_area_test": 2.0, "triangle_area_hidden": 3.0}
POINTS |= {"polygon_area_test": 1.0, "polygon_area_hidden": 2.0, "why_signed": 2.0}


def check(name: str, score: float | None, outcome: str | None = None, message: str = "") -> Check:
    """A check of the fixture's lesson. Without an outcome: right with all points, by hand without a score."""
    full = score == POINTS[name]
    outcome = outcome or (BY_HAND if score is None else RIGHT if full else WRONG)
    exercise = name.removesuffix("_test").removesuffix("_hidden")
    return Check(name, exercise, POINTS[name], score, outcome, message, name.endswith("_hidden"))


def result(student: str, scores=(2.0, 3.0, 1.0, 2.0, None), message="", **more) -> Result:
    """A submission that got these scores, in the order of the lesson."""
    checks = [
        check(name, score, message="" if score in (None, POINTS[name]) else message)
        for name, score in zip(POINTS, scores, strict=True)
    ]
    more = {"seconds": 1.0, "timestamp": "2026-09-30 10:00:00 UTC"} | more
    return Result(student, LESSON, f"key of {student}", checks, **more)


def keep(course: Course, results: list[Result]) -> None:
    """Puts results where grading puts them: journal, gradebook, and a folder for each graded notebook."""
    Journal(journal_path(course)).append(results)
    with Writer(course) as writer:
        writer.register(course.lessons[0])
        writer.apply(results)
    for one in results:
        (course.autograded / one.student / LESSON).mkdir(parents=True, exist_ok=True)


class Page(HTMLParser):
    """A page, taken apart: its elements in order, as (tag, attributes), and the text of each heading."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if _level(tag):
            self.headings.append("")
            self._in_heading = True

    def handle_endtag(self, tag):
        self._in_heading = self._in_heading and not _level(tag)

    def handle_data(self, data):
        if self._in_heading:
            self.headings[-1] += data

    def attributes(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def barriers(self) -> list[str]:
        """What would stop a reader who does not see the page; nothing when it is well made."""
        levels = [_level(tag) for tag, _ in self.elements if _level(tag)]
        skips = [b for a, b in zip([0, *levels], levels, strict=False) if b > a + 1]
        found = [f"a heading of level {level} stands below none of level {level - 1}" for level in skips]
        found += [] if levels.count(1) == 1 else [f"{levels.count(1)} headings of the first level"]
        found += [] if self.attributes("html")[0].get("lang") else ["the language is not said"]
        found += [] if len(self.attributes("main")) == 1 else ["no main part, or more than one"]
        found += [] if self.attributes("title") else ["no title"]
        found += [
            "an image without words" for image in self.attributes("img") if not image.get("alt", "").strip()
        ]
        found += ["a table's heading without scope" for cell in self.attributes("th") if "scope" not in cell]
        names = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        return found + [f"the id {name} twice" for name in set(names) if names.count(name) > 1]

    def needs(self) -> list[str]:
        """Addresses that the page would load."""
        places = [attributes.get("src") for _, attributes in self.elements]
        places += [attributes.get("href") for attributes in self.attributes("link")]
        return [place for place in places if place and not place.startswith("data:")]


def _level(tag):
    return int(tag[1]) if tag in ("h1", "h2", "h3", "h4", "h5", "h6") else 0
