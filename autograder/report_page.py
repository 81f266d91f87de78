"""What `autograder report` shows of the numbers: tables on the terminal, and a page with plots."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from autograder import page
from autograder.course import Course
from autograder.report import FEWEST, OUTCOMES, LessonReport

DPI = 120
HATCHES = ("", "//", "xx", "++", "..", "--")
HEADS = (
    "exercise",
    "points",
    "attempted",
    "passed",
    "mean",
    "discrimination",
    "seconds",
    "commonest message",
)
LESSON_HEADS = (
    "lesson",
    "submissions",
    "unreadable",
    "late",
    "mean score",
    "median score",
    "points",
    "seconds",
)
EXPLANATION = f"""\
<p>Passed: the share that has full points. Mean: the mean share of the points. Both are of the submissions
whose score is known; files that could not be read are left out, and count zero in the exports.</p>
<p>Discrimination: the correlation of the exercise's score with the score of the rest of the lesson. Near 0 or
below, those who do well elsewhere do no better here: read the exercise, its tests and its commonest message.
It is left out for fewer than {FEWEST} submissions, and while answers wait for a person.</p>
<p>Messages that differ in their numbers alone are counted together, and the first is shown. Seconds: the
median time that grading a submission took; of an exercise, the time that its tests ran, with the answers that
they call, where the engine noted it.</p>"""


def terminal(found: LessonReport):
    """The lesson as a rich table, and below it what takes more room than a column."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=f"{found.lesson.name}: {_summary(found)}", box=SIMPLE, pad_edge=False)
    for head in HEADS[:-1]:
        shown.add_column("discr." if head == "discrimination" else head, no_wrap=True)
    for row in _table(found):
        shown.add_row(*(_rich(value) for value in row[:-1]))
    said = [Text(f"{e.name}, {count(e.said, 'time')}: {e.message}") for e in found.exercises if e.said]
    lost = [Text(f"unreadable: {', '.join(found.unreadable)}")] if found.unreadable else []
    return Group(shown, *said, *lost)


def _rich(value):
    from rich.text import Text

    return Text(value if isinstance(value, str) else f"{value:g}")


def html(reports: Sequence[LessonReport]) -> str:
    """All of it as one page that needs nothing else."""
    body = []
    if len(reports) > 1:
        body += ["<h2>The course</h2>", page.table("Lessons", LESSON_HEADS, map(_lesson_row, reports))]
        body.append(_course_figure(reports))
    for found in reports:
        body.append(f"<h2>{escape(f'{found.lesson.order:02d} {found.lesson.title}')}</h2>")
        body.append(f"<p>{escape(_summary(found))}</p>")
        if found.exercises and len(found.scores):
            body += ["<h3>Exercises</h3>", page.table("How each exercise went", HEADS, _table(found))]
            body += [_outcomes_figure(found), "<h3>Scores</h3>", _scores_figure(found)]
            timed = [exercise for exercise in found.exercises if exercise.seconds is not None]
            body += ["<h3>Time</h3>", _seconds_figure(timed)] if timed else []
    title = f"{reports[0].lesson.title}: report" if len(reports) == 1 else "The course: report"
    return page.page(title, [*body, "<h2>How to read this</h2>", EXPLANATION])


def _summary(found):
    words = [count(found.submissions, "submission")]
    if found.unreadable:
        words.append(f"{len(found.unreadable)} unreadable")
    if found.late:
        words.append(f"{found.late} late")
    if len(found.scores):
        words.append(f"mean {found.scores.mean():.1f} of {found.points:g} points")
        words.append(f"graded in {found.seconds:.2g} s each (median)")
    if found.waiting:
        words.append(f"{count(found.waiting, 'answer')} to be read by a person")
    return ", ".join(words)


def count(number: int, name: str) -> str:
    """1 answer, 2 answers.

    >>> count(1, "answer"), count(2, "answer")
    ('1 answer', '2 answers')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def _table(found):
    return [
        (
            exercise.name,
            exercise.points,
            _percent(exercise.attempted),
            _percent(exercise.passed),
            _percent(exercise.mean),
            "" if exercise.discrimination is None else f"{exercise.discrimination:.2f}",
            "" if exercise.seconds is None else f"{exercise.seconds:.2g}",
            f"{exercise.said}: {exercise.message}" if exercise.said else "",
        )
        for exercise in found.exercises
    ]


def _lesson_row(found):
    scores = found.scores
    middle = (f"{scores.mean():.1f}", f"{np.median(scores):.1f}") if len(scores) else ("", "")
    return (
        found.lesson.name,
        found.submissions,
        len(found.unreadable),
        found.late,
        *middle,
        found.points,
        f"{found.seconds:.2g}",
    )


def _percent(share):
    return "" if share is None else f"{100 * share:.0f} %"


def _outcomes_figure(found):
    """Stacked bars, told apart by hatches as well as by colours."""
    from flowkit.lab import plots

    looks = dict(zip(OUTCOMES, zip(_colours(plots), HATCHES, strict=True), strict=True))
    fig, ax = plots.figure(height=1.2 + 0.4 * len(found.exercises), width=9)
    names = [exercise.name for exercise in found.exercises]
    left = np.zeros(len(names))
    for outcome, (colour, hatch) in looks.items():
        counts = np.array([exercise.outcomes[outcome] for exercise in found.exercises])
        if counts.any():
            share = 100 * counts / [sum(exercise.outcomes.values()) for exercise in found.exercises]
            ax.barh(names, share, left=left, color=colour, hatch=hatch, edgecolor="white", label=outcome)
            left += share
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="submissions, %")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    said = (f"{exercise.name} {_in_words(exercise)}" for exercise in found.exercises)
    return plots.html(fig, alt=f"What came of each exercise, in submissions: {'; '.join(said)}.", dpi=DPI)


def _in_words(exercise):
    return ", ".join(f"{count} {outcome}" for outcome, count in exercise.outcomes.items() if count)


def _scores_figure(found):
    from flowkit.lab import plots

    fig, ax = plots.figure(width=9, height=2.6)
    edges = np.linspace(0, max(found.points, 1), 21)
    counts, _, _ = ax.hist(found.scores, bins=edges, color=plots.BLUE, edgecolor="white")
    ax.set(xlabel="score", ylabel="submissions")
    low, middle, high = np.percentile(found.scores, [25, 50, 75])
    alt = (
        f"A histogram of the scores of {len(found.scores)} submissions: half lie between {low:.1f} and"
        f" {high:.1f} of {found.points:g} points, the median is {middle:.1f}, and the tallest bar begins at"
        f" {edges[int(counts.argmax())]:.1f}."
    )
    return plots.html(fig, alt=alt, dpi=DPI)


def _seconds_figure(exercises):
    from flowkit.lab import plots

    fig, ax = plots.figure(height=1.2 + 0.3 * len(exercises), width=9)
    ax.barh([e.name for e in exercises], [e.seconds for e in exercises], color=plots.BLUE)
    ax.invert_yaxis()
    ax.set(xlabel="seconds, median")
    said = ", ".join(f"{exercise.name} {exercise.seconds:.2g}" for exercise in exercises)
    return plots.html(fig, alt=f"Seconds that the tests of each exercise ran, medians: {said}.", dpi=DPI)


def _course_figure(reports):
    """The middle half of the scores in each lesson, and the median."""
    from flowkit.lab import plots

    shown = [found for found in reports if len(found.scores) and found.points]
    names = [found.lesson.name for found in shown]
    quartiles = np.array(
        [100 * np.percentile(found.scores, [25, 50, 75]) / found.points for found in shown]
    ).reshape(-1, 3)
    low, middle, high = quartiles.T
    fig, ax = plots.figure(width=9, height=1.2 + 0.3 * len(names))
    ax.barh(names, high - low, left=low, color=plots.SKY, label="middle half of the class")
    ax.plot(middle, names, "o", color=plots.BLACK, label="median")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="score, % of the points")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    medians = ", ".join(f"{name} {value:.0f}" for name, value in zip(names, middle, strict=True))
    return plots.html(fig, alt=f"Scores by lesson, in percent of the points; medians: {medians}.", dpi=DPI)


def _colours(plots):
    return plots.BLUE, plots.SKY, plots.ORANGE, plots.RED, plots.GREY, plots.PURPLE


def write(course: Course, reports: Sequence[LessonReport], to: Path | None = None) -> Path:
    """Writes the page, by default into the course's reports folder, and gives its path."""
    name = reports[0].lesson.name if len(reports) == 1 else "course"
    path = Path(to) if to else course.folder / "reports" / f"{name}.html"
    page.write(path, html(reports))
    return path
