"""The one progress bar: what is done, of how much, and the time left."""

from contextlib import contextmanager


@contextmanager
def progress(title: str):
    """Gives tell(done, of, what), to be called at the beginning with 0 and then after each part."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def tell(done, of, what):
            bar.update(task, completed=done, total=of or 1, description=f"{title} {what}".strip())

        yield tell
