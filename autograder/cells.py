"""Running a notebook's cells without Jupyter: magics, the value of the last line, what is printed.

This runs in the student's process. Nothing here is trusted with a verdict.
"""

import ast
import contextlib
import io
import linecache
import sys
import traceback
import types

MOST_TEXT = 20_000  # characters kept of what a cell prints, of a value that it shows, and of a message


class Printed(io.TextIOBase):
    """Where print goes: the first MOST_TEXT characters are kept, the rest is dropped while it is written."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += str(text)[: MOST_TEXT - len(self.text)]
        return len(text)

    def writable(self):
        return True

    def take(self) -> str:
        """What was written since the last time."""
        text, self.text = self.text, ""
        return text


class Notebook:
    """A namespace in which cells run, as __main__, and what they print.

    files: the sources by the name under which they stand in tracebacks.
    """

    def __init__(self):
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.namespace = module.__dict__
        self.namespace.update(__builtins__=__builtins__, get_ipython=lambda: _Shell(self), exit=sys.exit)
        self.namespace["quit"] = sys.exit
        self.files = {}
        self.printed = Printed()

    @contextlib.contextmanager
    def quietly(self):
        """Inside, what is printed on either stream is kept for `printed.take`."""
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self.printed
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

    def run(self, source: str, name: str) -> tuple[str | None, dict | None]:
        """Runs a cell: the value of its last line as text, or None, and what it raised, or None."""
        try:
            with self.quietly():
                return self._run(source, f"<cell {name}>"), None
        except BaseException as error:
            return None, self.told(error)

    def _run(self, source, file):
        tree = self._parse(source, file)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
            last = compile(ast.Expression(tree.body.pop().value), file, "eval")
        exec(compile(tree, file, "exec"), self.namespace)
        value = eval(last, self.namespace) if last else None
        return None if value is None else repr(value)[:MOST_TEXT]

    def _parse(self, source, file):
        """The cell as Python. Magics and ! are rewritten as Jupyter does, where it is not Python already."""
        self.files[file] = source
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        try:
            return ast.parse(source, file)
        except SyntaxError:
            from IPython.core.inputtransformer2 import TransformerManager

            return ast.parse(TransformerManager().transform_cell(source), file)

    def told(self, error: BaseException) -> dict:
        """What an exception says, as plain values: kind, message, the student's own line, and a traceback."""
        line, text = self._own_line(error)
        try:
            message = str(error)[:MOST_TEXT]
        except Exception:
            message = ""
        return {
            "kind": type(error).__name__[:100],
            "message": message,
            "line": line,
            "text": text,
            "trace": self._trace(error),
        }

    def _own_line(self, error):
        """Number and text of the last line that the error went through in the first cell that it met.

        That is the cell that ran, or the one whose function was called. A helper from another cell is the
        lesson's as a rule: what the student can mend is the line that called it.
        """
        if isinstance(error, SyntaxError) and error.filename in self.files:
            return error.lineno, (error.text or "").rstrip()
        own = []
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code is _Shell._run.__code__:
                own.clear()  # so far there was a magic, and the cell is what it runs
            elif frame.f_code.co_filename in self.files:
                own.append((frame.f_code.co_filename, line))
        if not own:
            return None, ""
        file = own[0][0]
        line = dict(own)[file]  # of several lines in one file the last one stays
        lines = self.files[file].splitlines()
        return line, lines[line - 1][:500].rstrip() if 0 < line <= len(lines) else ""

    def _trace(self, error):
        """The traceback from the student's first line on."""
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code.co_filename not in self.files:
            step = step.tb_next
        try:
            lines = traceback.format_exception(type(error), error, step, limit=20)
        except Exception:  # an exception may well break while it is printed
            lines = [type(error).__name__]
        return "".join(lines)[:MOST_TEXT]


class _Shell:
    """As much of IPython's shell as grading needs: timing magics run their code, all others do nothing."""

    def __init__(self, notebook):
        self.notebook = notebook
        self.user_ns = notebook.namespace

    def run_line_magic(self, name, line, *_, **__):
        if name == "time" and line:
            return self._run(line)

    def run_cell_magic(self, name, line, cell):
        if name in ("time", "capture", "prun"):
            return self._run(cell)
        print(f"%%{name} does nothing while work is graded.")

    def system(self, command):
        print("Commands that begin with ! do not run while work is graded.")

    def getoutput(self, command, *_, **__):
        self.system(command)
        return []

    def _run(self, source):
        return self.notebook._run(source, f"<cell {len(self.notebook.files)}, below a magic>")
