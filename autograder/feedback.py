"""`autograder feedback`: for each graded submission a page in nbgrader's template, and feedback.json
beside it.

Both say of every check what came of it, why, and the points; what was mended, and whether it came late.
Neither holds the source or the inputs of a hidden test, nor a traceback through test code.
"""

import functools
import json
import re
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from html import escape
from pathlib import Path

import nbformat
from joblib import Parallel, cpu_count, delayed
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat.v4 import new_markdown_cell, new_output
from nbgrader.api import MissingEntry
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import is_grade, is_solution

from autograder.build import HIDDEN
from autograder.course import Course, CourseError
from autograder.engine import BY_HAND, ERROR, RIGHT, UNTOUCHED, Result
from autograder.grade import nothing_graded, read_result
from autograder.gradebook import open_gradebook
from autograder.page import HEADS, without_head, write
from autograder.stock import is_hidden

FEW = 8  # pages that one process has written before another has started
TELLING = 16  # characters, without white space, from which a line of a hidden test is looked for in outputs
_STYLE = (
    "<style>div.panel-heading a, div.nbgrader_cell div.panel-heading a { color: inherit }"
    " a { text-decoration: underline }"
    " pre { white-space: pre-wrap !important; overflow-wrap: anywhere }"
    " th, td { padding: .2em .6em !important; text-align: left !important; vertical-align: top }"
    " .container .container { width: auto !important }</style>"
)
SYMBOLS = {RIGHT: "✓", BY_HAND: "…", UNTOUCHED: "○", ERROR: "!"}  # as the checks in a notebook have them
AGAIN = "These are the points of an earlier answer. A person will read this one."


def feedback(
    course: Course,
    topics: list[str] | None = None,
    say: Callable[[int, int, str], None] = lambda done, of, what: None,
) -> list[Path]:
    """Writes the feedback of all that is graded in the lessons `topics` (all when none), and gives the
    folders.

    Grades are the gradebook's, so those given by hand count. Raises CourseError when nothing is graded, and
    when a process that writes pages is killed.
    """
    results = [
        (lesson, result)
        for lesson in course.choose(topics)
        for folder in sorted(course.autograded.glob(f"*/{lesson.name}"))
        if (result := read_result(course, folder.parent.name, lesson.name))
    ]
    if not results:
        raise nothing_graded(topics, "there is no feedback to give")
    side_by_side = Parallel(min(cpu_count(), 1 + len(results) // FEW), return_as="generator")
    folders = []
    say(0, len(results), "")
    try:
        for folder in side_by_side(delayed(_give)(course, lesson, result) for lesson, result in results):
            lesson, result = results[len(folders)]
            folders.append(folder)
            say(len(folders), len(results), f"{result.student} {lesson.name}")
    except BrokenProcessPool:
        raise CourseError(
            "A process that writes feedback was killed. Is there enough memory? Run the same command again."
        ) from None
    return folders


def _give(course, lesson, result):
    graded = _graded(course, lesson, result)
    if graded is None:
        raise CourseError(
            f"The gradebook knows nothing of {result.student}'s {lesson.name}. Run `autograder grade` again."
        )
    notebook = nbformat.read(
        course.autograded / result.student / lesson.name / f"{lesson.topic}.ipynb", as_version=4
    )
    conceal(notebook, result)
    notebook.cells.insert(0, new_markdown_cell(_summary(lesson, graded), id="summary"))
    resources = {
        "unique_key": lesson.topic,
        "nbgrader": {
            "student": result.student,
            "assignment": lesson.name,
            "notebook": lesson.topic,
            "db_url": course.gradebook,
        },
    }
    page, _ = _exporter(course.folder).from_notebook_node(notebook, resources=resources)
    folder = course.feedback / result.student / lesson.name
    write(folder / f"{lesson.topic}.html", readable(page))
    write(folder / "feedback.json", json.dumps(graded, ensure_ascii=False, indent=1) + "\n")
    return folder


@functools.cache
def _exporter(folder):
    """nbgrader's feedback template. HTML is cleaned: a page of feedback runs no script of a student's."""
    config = GenerateFeedback(coursedir=CourseDirectory(root=str(folder))).config
    exporter = HTMLExporter(config=config, sanitize_html=True)
    for step in (GetGrades, CSSHTMLHeaderPreprocessor):
        exporter.register_preprocessor(step, enabled=True)
    return exporter


def readable(text: str) -> str:
    """nbgrader's page for everybody: its language and its main part are said, its headings stand in order
    below one of the first level, tables say what heads what, links are seen without colour, and nothing has
    to be scrolled sideways. Its list of cells without names goes: ours has the names, and what they say.
    """
    text = text.replace("<html>", '<html lang="en">', 1).replace("</head>", f"{_STYLE}</head>", 1)
    text = text.replace("<main", "<div").replace("</main>", "</div>")  # the template's, of a part of the page
    text = text.replace("<body>", "<body><main>", 1).replace("</body>", "</main></body>", 1)
    for name in ("notebook", "notebook-container"):  # both of its templates have them
        text = text.replace(f' id="{name}"', "", 1)
    body = '<div class="panel-body">'
    text = re.sub(rf'<div class="panel-heading">\s*<h4>.*?{body}', body, text, count=1, flags=re.S)
    text = re.sub(r'<a class="anchor-link".*?</a>', "", text)
    before, title, after = text.partition("</h1>")
    after = re.sub(r"<(/?)h([1-5])\b", lambda match: f"<{match[1]}h{int(match[2]) + 1}", after)
    return re.sub(r"<th(?=[\s>])", '<th scope="col"', before + title + after)


def _graded(course, lesson, result: Result) -> dict | None:
    """What feedback.json says: the engine's result, with the scores and comments that the gradebook has."""
    with open_gradebook(course.gradebook) as book:
        try:
            notebook = book.find_submission_notebook(lesson.topic, lesson.name, result.student)
        except MissingEntry:
            return None
        scores = {grade.name: grade for grade in notebook.grades}
        comments = {c.name: c.manual_comment for c in notebook.comments if c.manual_comment}
        penalty = notebook.late_submission_penalty or 0.0
        checks = [_check(check, scores[check.grade_id]) for check in result.checks]
        return {
            "student": result.student,
            "lesson": lesson.name,
            "title": lesson.title,
            "score": notebook.score - penalty,
            "points": notebook.max_score,
            "waiting": sum(check["points"] for check in checks if check["score"] is None),
            "late_penalty": penalty,
            "seconds_late": max(0.0, notebook.assignment.total_seconds_late),
            "unreadable": result.unreadable,
            "notes": result.notes,
            "checks": checks,
            "comments": comments,
            "engine": result.engine,
            "tier": result.tier,
        }


def _check(check, grade):
    waits = grade.needs_manual_grade and grade.manual_score is None
    message = check.message
    if check.outcome == BY_HAND and not waits:
        message = AGAIN if grade.needs_manual_grade else ""
    return {
        "name": check.grade_id,
        "exercise": check.exercise,
        "hidden": check.hidden,
        "points": check.points,
        "score": None if waits else grade.score,
        "outcome": check.outcome,
        "message": message,
    }


def conceal(notebook, result: Result) -> None:
    """Takes out of a graded notebook what its student must not see: hidden tests, errors inside tests."""
    secrets = {line for cell in notebook.cells if is_hidden(cell) for line in _hidden_lines(cell.source)}
    public = {_squeeze(line) for cell in notebook.cells for line in _public_lines(cell)}
    secrets = {line for line in secrets if len(line) >= TELLING and line not in public}
    messages = {check.grade_id: check for check in result.checks}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if is_grade(cell) and not is_solution(cell):
            _tell(cell, messages.get(cell.metadata.nbgrader.grade_id))
        cell.outputs = [_harmless(output, secrets) for output in cell.outputs]
    for cell in notebook.cells:
        cell.source = _without_hidden(cell.source)


def _tell(cell, check):
    """A test cell shows the outcome in words. What it printed is shown where the test is public."""
    kept = [] if check is None or check.hidden else [o for o in cell.outputs if o.output_type == "stream"]
    cell.outputs = [*kept, new_output("stream", name="stdout", text=f"{_in_words(check)}\n")]


def _in_words(check):
    """What a check says, headed by its outcome; the messages of autograder.check have such a head already."""
    if check is None:
        return ""
    if check.message.startswith(HEADS):
        return check.message
    return f"{SYMBOLS.get(check.outcome, '✗')} {check.outcome.capitalize()}\n{check.message}".strip()


def _harmless(output, secrets):
    if output.output_type == "error":
        output.traceback = [_plain(line) for line in output.traceback]
    text = _squeeze(json.dumps(output, ensure_ascii=False).replace("\\n", "\n").replace('\\"', '"'))
    if any(line in text for line in secrets):
        return new_output("stream", name="stdout", text="This output is not shown.\n")
    return output


def _plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _hidden_lines(source):
    inside = source.partition(HIDDEN[0])[2].partition(HIDDEN[1])[0]
    return [_squeeze(line) for line in inside.split("\n")]


def _public_lines(cell):
    return _without_hidden(cell.source).split("\n")


def _without_hidden(source):
    before, mark, rest = source.partition(HIDDEN[0])
    return before.rstrip() + rest.partition(HIDDEN[1])[2] if mark else source


def _squeeze(text):
    return "".join(text.split())


def _summary(lesson, graded):
    """The head of the page, in markdown: a table of the checks, and what was mended."""
    lines = [
        f"# {lesson.title}: your feedback",
        "",
        f"**{graded['score']:g} of {graded['points']:g} points.**",
    ]
    if graded["waiting"]:
        lines[-1] += f" {graded['waiting']:g} more wait for a person to read your answer."
    if graded["unreadable"]:
        lines += ["", f"**Your file could not be graded.** {_md(graded['unreadable'])}"]
    if graded["seconds_late"]:
        taken = f" {graded['late_penalty']:g} points were taken off." if graded["late_penalty"] else ""
        lines += ["", f"It came {_duration(graded['seconds_late'])} after the lesson was due.{taken}"]
    if not graded["unreadable"]:
        lines += ["", "| Check | Outcome | Points | What it says |", "| :-- | :-- | :-- | :-- |"]
        lines += [_row(check) for check in graded["checks"]]
    if graded["comments"]:
        lines += ["", "**Comments on your answers**", ""]
        lines += [_comment(name, text, graded["checks"]) for name, text in graded["comments"].items()]
    if graded["notes"]:
        lines += ["", "**What was mended before grading**", ""]
        lines += [f"- {_md(note)}" for note in graded["notes"]]
    return "\n".join(lines)


def _comment(name, text, checks):
    is_check = any(check["name"] == name for check in checks)
    place = name if is_check else f"comment-{name}"  # as the template has it
    return f"- [`{name}`](#{place}): {_md(text)}"


def _row(check):
    kind = "hidden tests" if check["hidden"] else "public tests"
    kind = "written" if check["name"] == check["exercise"] else kind
    name = f"[`{check['exercise'] or check['name']}`](#{check['name']}), {kind}"
    points = "waits" if check["score"] is None else f"{check['score']:g}"
    symbol = SYMBOLS.get(check["outcome"], "✗")
    said = _md(without_head(check["message"]))
    cells = (name, f"{symbol} {check['outcome']}", f"{points} / {check['points']:g}", said)
    return f"| {' | '.join(cells)} |"


def _md(text):
    """A student's text in markdown: nothing in it is markup."""
    text = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", text)
    return escape(text, quote=False).replace("\n", "<br>")


def _duration(seconds):
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
