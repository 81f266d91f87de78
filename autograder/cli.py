"""The command line: `autograder build`, `grade`, `feedback` and the others, each a few lines over its module.

Modules are imported inside the commands, so that `autograder --help` answers at once.
"""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from autograder.course import Course, CourseError

app = typer.Typer(
    help="Build the course's lessons and grade the work that students hand in.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

CourseFolder = Annotated[Path, typer.Option("--course", help="The course's folder.")]
Topics = Annotated[
    list[str] | None, typer.Argument(help="Lessons: coupling, 08_coupling or 08. All when none.")
]


def say(message: str, style: str | None = None, error: bool = False) -> None:
    """Prints one line, as it stands: names in brackets are no markup."""
    from rich.console import Console

    Console(stderr=error, highlight=False).print(message, style=style, markup=False, soft_wrap=True)


STOPPED = {"grade": " What is graded is kept: run the same command, and it does what is left."}


def command(function):
    """Registers a command. Told in one line on stderr: a CourseError, exit status 2, and Ctrl-C, 130."""

    @app.command()
    @functools.wraps(function)
    def run(*args, **kwargs):
        try:
            function(*args, **kwargs)
        except CourseError as error:
            say(str(error), style="red", error=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say(f"Stopped.{STOPPED.get(function.__name__, '')}", style="yellow", error=True)
            raise typer.Exit(130) from None

    return function


@command
def build(
    topics: Topics = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if anything differs.")] = False,
    course: CourseFolder = Path("course"),
):
    """Build lessons, solutions and nbgrader's folders from the masters."""
    from autograder.build import build

    built = build(Course(course), topics, check)
    for path in built.changed:
        say(f"{'differs from its master' if check else 'built'}: {path}")
    for path in built.strays:
        say(f"not built from any master: {path}. Move it away, or delete it.", style="yellow")
    for name in built.missing:
        say(f"missing: {name}", style="yellow")
    if built.strays or built.missing or (check and built.changed):
        if check:
            say("Run `autograder build`, and change masters only.", style="red", error=True)
        raise typer.Exit(1)
    if not built.changed:
        say("Everything is as its master says.", style="green")


@command
def lint(topics: Topics = None, course: CourseFolder = Path("course")):
    """Check the masters, the glossary and the answer bank against the author's guide."""
    from autograder.lint import lint

    faults = lint(Course(course), topics)
    for fault in faults:
        say(fault)
    if faults:
        raise typer.Exit(1)
    say("No faults.", style="green")


@command
def selfcheck(
    topics: Topics = None,
    course: CourseFolder = Path("course"),
    wrong_only: Annotated[bool, typer.Option("--wrong", help="Show only what is not as it must be.")] = False,
    answers_only: Annotated[
        bool, typer.Option("--answers", help="Only type answers in; let no hostile submissions loose.")
    ] = False,
):
    """Let hostile submissions loose on this machine's sandbox, and type every answer of the bank into its
    exercise: nothing may get out, and each answer must get what it must. Run it before grading."""
    from concurrent.futures import ThreadPoolExecutor

    from rich.console import Console

    from autograder import hostile
    from autograder.selfcheck import selfcheck, table

    chosen = Course(course)
    chosen.choose(topics)  # says at once which topic there is not
    safe = True
    with ThreadPoolExecutor(1) as beside, Console(stderr=True).status("Typing answers ...") as status:

        def typed(row):
            status.update(f"{row.topic}.{row.exercise}: {row.variant}")

        answers = beside.submit(selfcheck, chosen, topics, on_row=typed)
        if not answers_only:
            safety = hostile.examine(lambda line: status.update(f"hostile: {line}"))
            safe = safety.ok
            for line in safety.lines():
                say(line, style="green" if safe else "red", error=not safe)
        rows = answers.result()
    wrong = [row for row in rows if not row.ok]
    shown = wrong if wrong_only else rows
    if shown:
        Console().print(table(shown))
    say(f"{len(rows)} answers, {len(wrong)} not as they must be.", style="red" if wrong else "green")
    if wrong or not safe:
        raise typer.Exit(1)


Database = Annotated[
    str | None,
    typer.Option("--db", help="The gradebook's URL, such as postgresql://HOST/NAME. Default: gradebook.db."),
]


@command
def collect(
    source: Annotated[Path, typer.Argument(help="The LMS's zip (Canvas, Moodle), or a folder.")],
    course: CourseFolder = Path("course"),
    db: Database = None,
):
    """Take what students handed in into the course's submitted folder.

    The zip of all submissions from Canvas or Moodle, or a folder with STUDENT/NN_topic/topic.ipynb,
    STUDENT/topic.ipynb or STUDENT_topic.ipynb in it. Set the due date before, or collect again after it.
    """
    from rich.console import Console
    from rich.table import Table

    from autograder.collect import STAMP, collect

    collected = collect(Course(course, db), source)
    table = Table(title=f"{len(collected.taken)} submissions taken")
    for column in ("student", "lesson", "handed in", "", "late"):
        table.add_column(column)
    for taken in collected.taken:
        table.add_row(taken.student, taken.lesson, f"{taken.timestamp:{STAMP}}", taken.what, taken.late)
    if collected.taken:
        Console().print(table)
    for name, reason in collected.left:
        say(f"left out: {name}: {reason}", style="yellow")
    if not collected.taken:
        say("Nothing was taken.", style="red", error=True)
        raise typer.Exit(1)


@command
def doctor():
    """Say which sandbox this machine has for submissions. Exit status 1 where it has none."""
    from autograder.doctor import environment, examine

    report = examine()
    for line in environment():
        say(line)
    for number, line in enumerate(report.lines()):
        say(line, style=None if number else ("green" if report.tier else "red"))
    if not report.tier:
        raise typer.Exit(1)


Mode = Literal["isolated", "inprocess"]


@command
def grade(
    topics: Topics = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side. Default: the cores.")
    ] = None,
    trust_submissions: Annotated[
        bool, typer.Option("--trust-submissions", help="Run them without a sandbox, with your rights.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Grade on a Dask cluster: its scheduler's address, tcp://HOST:8786 or tls://HOST:8786."
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(min=1, help="Seconds that one cell may take. With another limit all is graded anew."),
    ] = 30,
    mode: Annotated[
        Mode,
        typer.Option(help="Where tests run; inprocess: with the student's code, which could spoil them."),
    ] = "isolated",
    course: CourseFolder = Path("course"),
    db: Database = None,
):
    """Grade every submission that is new or changed."""
    from autograder.grade import grade
    from autograder.progress import progress

    found = Course(course, db)
    with progress("Grading") as tell:
        graded = grade(
            found,
            topics,
            workers,
            trust_submissions,
            timeout,
            tell,
            scheduler=scheduler,
            in_process=mode == "inprocess",
        )
    for student, lesson, reason in graded.failed:
        say(f"no result: {student} {lesson}: {reason}", style="red", error=True)
    for result in graded.results:
        if result.unreadable:
            say(f"unreadable: {result.student} {result.lesson}: {result.unreadable}", style="yellow")
        if result.other:
            say(f"{result.student} {result.lesson}: it looks like another lesson's notebook", style="yellow")
    for path in graded.ignored:
        say(f"ignored: {path}. A submission is STUDENT/NN_topic/topic.ipynb", style="yellow")
    new = len(graded.results) - graded.resumed
    say(f"{new} graded, {graded.resumed} taken over from a stopped run, {graded.unchanged} unchanged.")
    if not graded.results and not graded.failed:
        why = "was new" if graded.unchanged else f"is handed in, in {found.submitted}"
        say(f"Nothing {why}, so nothing was graded.", style="green" if graded.unchanged else "yellow")
    if graded.failed:
        say(f"{len(graded.failed)} have no result. Run the command again for these.", style="red", error=True)
        raise typer.Exit(1)


@command
def feedback(topics: Topics = None, course: CourseFolder = Path("course"), db: Database = None):
    """Write each student's feedback, as a page and as JSON."""
    from autograder.feedback import feedback
    from autograder.progress import progress

    found = Course(course, db)
    with progress("Writing feedback") as tell:
        folders = feedback(found, topics, tell)
    say(f"{len(folders)} written to {found.feedback}", style="green")


@command
def report(
    topics: Topics = None,
    to: Annotated[
        Path | None, typer.Option(help="The page's file. Default: in the course's reports.")
    ] = None,
    course: CourseFolder = Path("course"),
    db: Database = None,
):
    """Say how the class did in each exercise, on the terminal and as a page."""
    from rich.console import Console

    from autograder.progress import progress
    from autograder.report import report
    from autograder.report_page import terminal, write

    found = Course(course, db)
    with progress("Reading results") as tell:
        reports = report(found, topics, tell)
    for one in reports:
        Console().print(terminal(one))
    say(f"The same with plots: {write(found, reports, to)}", style="green")


@command
def export(
    topics: Topics = None,
    format: Annotated[
        Literal["csv", "canvas", "moodle", "gradescope"], typer.Option(help="For whom the grades are.")
    ] = "csv",
    to: Annotated[
        Path | None, typer.Option(help="The file (gradescope: the folder). Default: in the course's reports.")
    ] = None,
    course: CourseFolder = Path("course"),
    db: Database = None,
):
    """Write the grades, as a spreadsheet, Canvas, Moodle or Gradescope take them."""
    from autograder.export import UNTIL, export

    path, waiting = export(Course(course, db), format, topics, to)
    say(f"Written: {path}", style="green")
    if waiting:
        say(f"Submissions with answers that a person has to read: {waiting}. {UNTIL}", style="yellow")


@command
def similar(
    topics: Topics = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs of each lesson.")] = 20,
    course: CourseFolder = Path("course"),
):
    """Show which answers share what few others share, side by side, for a person to look at."""
    from rich.console import Console

    from autograder.progress import progress
    from autograder.similarity import similar
    from autograder.similarity_page import terminal, write

    found = Course(course)
    with progress("Comparing") as tell:
        lessons = similar(found, topics, pairs, tell)
    for one in lessons:
        Console().print(terminal(one))
        say(f"Side by side: {write(found, one)}", style="green")
    say("This accuses nobody: honest answers are often alike. Look, and talk with people.")


@command
def classroom(
    topics: Topics = None,
    students: Annotated[int, typer.Option(min=1, help="How many hand in.")] = 30,
    seed: Annotated[int, typer.Option(help="Who does what; the same seed gives the same class.")] = 0,
    folder: Annotated[
        Path, typer.Option(help="Where the class is made; what was made there is replaced.")
    ] = Path("classroom"),
    course: CourseFolder = Path("course"),
):
    """Make a class of simulated students, and grade it from the LMS's zip to the feedback."""
    from rich.console import Console

    from autograder.classroom import classroom, table
    from autograder.progress import progress

    with progress("Teaching") as tell:
        rows = classroom(Course(course), topics, students, seed, folder, tell)
    Console().print(table(rows))
    wrong = [row for row in rows if not row.ok]
    say(f"{len(rows)} students, {len(wrong)} not graded as expected.", style="red" if wrong else "green")
    say(f"Feedback: {folder}/course/feedback/STUDENT/LESSON/*.html")
    say(f"Formgrader: cd {folder}/course && jupyter lab, then the menu Nbgrader, Formgrader")
    if wrong:
        raise typer.Exit(1)
