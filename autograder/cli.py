"""The command line: `autograder build`, `grade`, `feedback` and the others, each a few lines over its module.

Modules are imported inside the commands, so that `autograder --help` answers at once.
"""

import functools
from pathlib import Path
from typing import Annotated

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


def command(function):
    """Registers a command. A CourseError is told in one line on stderr, with exit status 2."""

    @app.command()
    @functools.wraps(function)
    def run(*args, **kwargs):
        try:
            function(*args, **kwargs)
        except CourseError as error:
            say(str(error), style="red", error=True)
            raise typer.Exit(2) from None

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
):
    """Type every answer of the bank into its exercise, and see that each gets what it must."""
    from rich.console import Console

    from autograder.selfcheck import selfcheck, table

    console = Console(stderr=True)
    with console.status("Typing answers ...") as status:
        rows = selfcheck(
            Course(course),
            topics,
            on_row=lambda row: status.update(f"{row.topic}.{row.exercise}: {row.variant}"),
        )
    wrong = [row for row in rows if not row.ok]
    Console().print(table(wrong if wrong_only else rows))
    say(f"{len(rows)} answers, {len(wrong)} not as they must be.", style="red" if wrong else "green")
    if wrong:
        raise typer.Exit(1)
