"""What `autograder similar` shows of a lesson: the pairs on the terminal, and side by side on a page."""

from html import escape
from pathlib import Path

from autograder import page
from autograder.course import Course
from autograder.similarity import Pair, Similarity

HEADS = ("students", "weight", "share", "exercises")
STYLE = """\
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.pair > div { border: 1px solid #767676; min-width: 0; padding: .5rem }
.pair h4 { margin: 0 0 .5rem }
mark { background: #fff0b3; color: inherit; font-weight: 600 }
"""
NOTICE = """\
<p><strong>This page accuses nobody.</strong> It shows which answers share what few others in the class share,
so that a person can look. Honest answers to a small exercise are often the same; so are those of two students
who learned from one book, or in one tutorial; and both sides of a copy look alike. Talk with people before
you conclude anything.</p>
<p>Compared are syntax trees: names, numbers, comments and docstrings do not count. Weight: what is shared
weighs the more the fewer have it, and nothing where the lesson gave it. Share: the part of the smaller work
that is shared. Lines that hold shared parts are marked with ≈.</p>"""


def terminal(found: Similarity):
    """The pairs as a rich table."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(*HEADS, title=f"{found.lesson.name}: {_summary(found)}")
    for pair in found.pairs:
        shown.add_row(*(Text(value if isinstance(value, str) else f"{value:g}") for value in _row(pair)))
    return shown


def html(found: Similarity) -> str:
    """The pairs of a lesson as a page that needs nothing else."""
    body = [NOTICE, "<h2>The pairs</h2>", f"<p>{escape(_summary(found))}</p>"]
    if found.pairs:
        body.append(page.table("Pairs, the heaviest first", HEADS, map(_row, found.pairs)))
    for number, pair in enumerate(found.pairs, 1):
        body.append(f"<h2>{number}. {escape(' and '.join(pair.students))}</h2>")
        for shared in pair.shared:
            body.append(f"<h3>{escape(shared.exercise)}: weight {shared.weight:.1f}</h3>")
            sides = zip(pair.students, shared.sources, shared.lines, strict=True)
            body.append(f'<div class="pair">{"".join(_side(*side) for side in sides)}</div>')
    return page.page(f"{found.lesson.title}: similar answers", body, STYLE)


def write(course: Course, found: Similarity) -> Path:
    """Writes the page into the course's reports, and gives its path."""
    path = course.folder / "reports" / f"similar-{found.lesson.name}.html"
    page.write(path, html(found))
    return path


def _summary(found):
    words = f"{found.compared} submissions compared"
    return f"{words}, {found.unparsed} answers are no Python" if found.unparsed else words


def _row(pair: Pair):
    names = ", ".join(shared.exercise for shared in pair.shared)
    return " and ".join(pair.students), round(pair.weight, 1), f"{100 * pair.share:.0f} %", names


def _side(student, source, marked):
    lines = []
    for number, line in enumerate(source.split("\n"), 1):
        text = f"{'≈' if number in marked else ' '} {number:3} {escape(line)}"
        lines.append(f"<mark>{text}</mark>" if number in marked else text)
    code = "\n".join(lines)
    return f"<div><h4>{escape(student)}</h4><pre>{code}</pre></div>"
