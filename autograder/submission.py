"""Reading what students hand in, and mending it.

`read` turns bytes into a notebook, whatever the LMS, the editor or the student did to the file, or says in
one sentence why it cannot. `mend` puts the student's answers back into the released notebook, so that what
is graded has the release's cells, order and metadata. Both say each thing that they did in a sentence for
the feedback. Neither runs code.
"""

import ast
import codecs
import functools
import json
import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

LARGEST = 50 * 2**20  # bytes; a notebook of this size holds outputs or data that no grader will look at
MOST_CELLS = 5000
ALIKE = 0.6  # similarity of sources from which an edited cell counts as the cell that it was
OTHER_LESSON = "Most cells of this notebook are of another lesson. Is it the right file?"


class UnreadableSubmission(Exception):
    """The file holds no notebook that could be graded. Its text is a sentence for the student."""

    @property
    def reason(self) -> str:
        return str(self)


@dataclass
class Submission:
    """A notebook in nbformat 4.5 without outputs, and the sentences that say what reading it took."""

    notebook: dict
    notes: list[str] = field(default_factory=list)


def read(source: Path | bytes) -> Submission:
    """The notebook in a file or in its bytes.

    Accepts any Unicode encoding with a byte order mark, UTF-8, and as a last resort Windows-1252; nbformat
    2 to 4; missing ids and fields. Raises UnreadableSubmission for everything else, FileNotFoundError for
    a path that is not there.
    """
    data = _bytes(source)
    text, notes = _decode(data)
    raw = _parse(text)
    cells, upgraded = _cells(raw)
    if upgraded:
        notes.append(f"Your notebook was saved in the old format {raw['nbformat']}; it was converted.")
    if len(cells) > MOST_CELLS:
        raise UnreadableSubmission(f"The notebook has {len(cells)} cells; the limit is {MOST_CELLS}.")
    clean = [_cell(cell, i) for i, cell in enumerate(cells)]
    return Submission({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": clean}, notes)


def _bytes(source):
    if isinstance(source, bytes):
        size, data = len(source), source
    else:
        path = Path(source)
        if path.is_symlink():
            raise UnreadableSubmission("The file is a link to another one. Hand in the notebook itself.")
        if path.is_dir():
            raise UnreadableSubmission("The file is a folder. Hand in the notebook itself.")
        size = path.stat().st_size
        if not path.is_file():
            raise UnreadableSubmission("What was handed in is not a file. Hand in the notebook itself.")
        data = path.read_bytes() if size <= LARGEST else b""
    if size > LARGEST:
        raise UnreadableSubmission(
            f"The file has {size / 2**20:.0f} MB; the limit is {LARGEST // 2**20} MB. "
            "Clear all outputs, save, and hand it in again."
        )
    if not data.strip():
        raise UnreadableSubmission("The file is empty. Save the notebook, and hand it in again.")
    for start, what in _NOT_NOTEBOOKS:
        if data.lstrip()[: len(start)].lower() == start:
            raise UnreadableSubmission(f"The file is {what}, not a notebook. Hand in the .ipynb file itself.")
    return data


_NOT_NOTEBOOKS = [
    (b"pk\x03\x04", "a zip archive"),
    (b"%pdf", "a PDF"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer"),
]
_MARKS = [
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]


def _decode(data):
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), []
            except UnicodeDecodeError:
                raise UnreadableSubmission(f"The file says that it is {encoding}, and is not.") from None
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        note = "Your file was not in UTF-8; it was read as Windows-1252, so accented letters may be wrong."
        return data.decode("cp1252", errors="replace"), [note]


def _parse(text):
    try:
        raw = json.loads(text)
    except RecursionError:
        raise UnreadableSubmission("The file is nested too deeply to be a notebook.") from None
    except ValueError as error:
        raise UnreadableSubmission(_why_not_json(text, error)) from None
    if not isinstance(raw, dict) or not isinstance(raw.get("cells", raw.get("worksheets")), list):
        raise UnreadableSubmission("The file is JSON, but not a notebook: it has no list of cells.")
    version = raw.setdefault("nbformat", 4)
    if not isinstance(version, int) or not 2 <= version <= 4:
        raise UnreadableSubmission(f"The notebook says it has format {version!r:.40}; 2 to 4 can be read.")
    return raw


def _why_not_json(text, error):
    if re.search(r"^<{7} ", text, re.MULTILINE):
        return "The file holds the marks of an unresolved merge (<<<<<<<). Resolve it, and hand it in again."
    where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
    if text.lstrip()[:1] == "{" and text.rstrip()[-1:] != "}":
        return (
            f"The file breaks off in the middle{where}: it was not saved or uploaded whole. Hand it in again."
        )
    return f"The file is not a notebook: it is not JSON{where}. Does JupyterLab open it?"


def _cells(raw):
    """The list of raw cells, and whether they came in an older format."""
    if "cells" in raw:
        return raw["cells"], raw["nbformat"] < 4
    sheets = [sheet for sheet in raw["worksheets"] if isinstance(sheet, dict)]
    return [cell for sheet in sheets for cell in _list(sheet.get("cells"))], True


def _list(value):
    return value if isinstance(value, list) else []


def _cell(raw, index):
    """A clean cell: of known type, with a text source, its tags and nbgrader's metadata, and no outputs."""
    raw = raw if isinstance(raw, dict) else {}
    kind = raw.get("cell_type") if isinstance(raw.get("cell_type"), str) else "raw"
    text = _text(raw.get("source", raw.get("input")))
    if kind == "heading":
        level = raw.get("level")
        kind, text = "markdown", "#" * (level if level in range(1, 7) else 1) + " " + text
    identity = raw.get("id")
    if not (isinstance(identity, str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", identity)):
        identity = f"cell-{index}"
    return _made(kind, text, identity, _metadata(raw.get("metadata")))


def _made(kind, text, identity, metadata):
    """A cell without outputs; what is neither code nor markdown is raw."""
    kind = kind if kind in ("code", "markdown") else "raw"
    ran = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"id": identity, "cell_type": kind, "metadata": metadata, "source": text, **ran}


def _text(value):
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    # A lone surrogate is legal in JSON and cannot be written to any file.
    value = value.encode("utf-8", "replace").decode("utf-8")
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _metadata(raw):
    raw = raw if isinstance(raw, dict) else {}
    tags = [tag for tag in _list(raw.get("tags")) if isinstance(tag, str)]
    metadata = {"tags": tags} if tags else {}
    nbgrader = raw.get("nbgrader")
    if isinstance(nbgrader, dict) and isinstance(nbgrader.get("grade_id"), str):
        metadata["nbgrader"] = {"grade_id": nbgrader["grade_id"]}
    return metadata


def mend(notebook: dict, release: dict) -> tuple[dict, list[str]]:
    """The student's answers in the released notebook, and what had to be done, sentence by sentence.

    Answers are found by grade_id, then by cell id, content and place. Tests and other locked cells come
    from the release, as do order, cell types and metadata. The student's own cells stay behind the cell
    that they followed. Neither argument is changed.
    """
    return _Mending(notebook, release).result()


def _copied(notebook):
    """A notebook is JSON; so this is many times as fast as copy.deepcopy."""
    return json.loads(json.dumps(notebook))


def grade_id(cell: dict) -> str | None:
    """nbgrader's name of a cell, or None."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def is_answer(cell: dict) -> bool:
    """Whether the released cell is one that the student writes in."""
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def is_locked(cell: dict) -> bool:
    """Whether the released cell is graded or read-only, so that the student's copy of it never counts."""
    settings = cell["metadata"].get("nbgrader", {})
    return not is_answer(cell) and bool(settings.get("grade") or settings.get("locked"))


def is_shown(cell: dict) -> bool:
    """Whether the cell only shows something (tag `show`), so that it is not run at grading."""
    return "show" in cell["metadata"].get("tags", [])


class _Mending:
    """One notebook on its way: `self.home[i]` is the release cell that student cell i was, or None."""

    def __init__(self, notebook, release):
        self.release = _copied(release)
        self.notes = []
        self.cells = self._join_halves(_copied(notebook["cells"]))
        self.home = [None] * len(self.cells)
        self.silenced = set()  # student cells that stay readable and are not run
        self.chosen = {}  # release index -> student cell whose source is the answer

    def result(self):
        self._say_other_lesson()
        self._match_by_name()
        self._match_by_content()
        for i, cell in enumerate(self.release["cells"]):
            if is_answer(cell):
                self._choose_answer(i, cell)
        self._say_order()
        cells = self._assemble()
        return {**self.release, "cells": cells}, list(dict.fromkeys(self.notes))

    def _join_halves(self, cells):
        """A cell that goes on indented where the one before it ended is its second half."""
        joined = []
        for cell in cells:
            before = joined[-1] if joined else None
            if before and self._is_second_half(before, cell):
                before["source"] += "\n" + cell["source"]
                name = f" of {grade_id(before)}" if grade_id(before) else ""
                self.notes.append(f"A cell{name} was split in two; its halves were joined.")
            else:
                joined.append(cell)
        return joined

    @staticmethod
    def _is_second_half(before, cell):
        return (
            before["cell_type"] == cell["cell_type"] == "code"
            and grade_id(cell) in (None, grade_id(before))
            and re.match(r"\s*\n*[ \t]+\S", cell["source"]) is not None
            and _tree(cell["source"]) is None
            and _tree(before["source"] + "\n" + cell["source"]) is not None
        )

    def _say_other_lesson(self):
        names = {grade_id(cell) for cell in self.cells} - {None}
        if 2 * len(names & {grade_id(cell) for cell in self.release["cells"]}) < len(names):
            self.notes.append(OTHER_LESSON)

    def _match_by_name(self):
        index = {grade_id(cell): i for i, cell in enumerate(self.release["cells"]) if grade_id(cell)}
        for j, cell in enumerate(self.cells):
            self.home[j] = index.get(grade_id(cell))

    def _match_by_content(self):
        """Cells without their metadata: first the sure ones (id, equal text), then the likely ones."""
        for sure in (_same_id, _same_text, _alike):
            for i, released in self._homeless():
                for j, cell in enumerate(self.cells):
                    if self.home[j] is None and sure(released, cell):
                        self.home[j] = i
                        if is_answer(released) or is_locked(released):
                            self._say_lost_metadata(released)
                        break

    def _homeless(self):
        found = set(self.home)
        return [(i, cell) for i, cell in enumerate(self.release["cells"]) if i not in found]

    def _say_lost_metadata(self, released):
        self.notes.append(
            f"The cell {grade_id(released)} had lost its metadata; it was recognized by its content."
        )

    def _choose_answer(self, i, released):
        """Among the copies of an answer, the last that is an answer; failing that, one found elsewhere."""
        copies = [j for j, home in enumerate(self.home) if home == i]
        written = [j for j in copies if not _is_stub(self.cells[j]["source"], released["source"])]
        name = grade_id(released)
        if not written:
            elsewhere = self._answers_elsewhere(released)
            if elsewhere:
                self.notes.append(
                    f"Your answer to {name} stood in a cell of its own; it was put in its place."
                )
            elif not copies and (host := self._merged_into(released)):
                self.chosen[i] = {**released, "source": f"# The answer stands in the cell of {host}."}
                self.notes.append(f"Your answer to {name} stood in the cell of {host}; it was left there.")
                return
            elif not copies:
                self.notes.append(f"The cell of {name} was missing; the empty one was put back.")
            written = elsewhere
        whole = [j for j in written if _defines(self.cells[j]["source"], _names(released))]
        if not whole and len(written) > 1 and self._join_answer(i, written, released):
            return
        best = (whole or written or copies)[-1:]
        if not best:
            return
        self.chosen[i] = self.cells[best[0]]
        self.home[best[0]] = i
        rivals = [j for j in copies + whole if j != best[0]]
        self._put_aside(rivals, released)
        if len(set(written)) > 1 and len(whole or written) > 1:
            self.notes.append(
                f"{name} was answered in {len(set(written))} cells; the last was graded, the others not run."
            )
        if self.cells[best[0]]["cell_type"] != released["cell_type"]:
            self.notes.append(
                f"The cell of {name} had become a {self.cells[best[0]]['cell_type']} cell; "
                f"it was read as {released['cell_type']}."
            )

    def _answers_elsewhere(self, released):
        names = _names(released)
        return [
            j
            for j, cell in enumerate(self.cells)
            if self.home[j] is None
            and names
            and _defines(cell["source"], names)
            and not _is_stub(cell["source"], released["source"])
        ]

    def _merged_into(self, released):
        """The name of an earlier answer whose cell defines this one too: the two cells were merged."""
        if released["cell_type"] == "code" and _names(released):
            for k, cell in self.chosen.items():
                if cell["cell_type"] == "code" and _defines(cell["source"], _names(released)):
                    return grade_id(self.release["cells"][k])
        return None

    def _join_answer(self, i, written, released):
        source = "\n".join(self.cells[j]["source"] for j in written)
        if released["cell_type"] == "code" and not _defines(source, _names(released)):
            return False
        if released["cell_type"] != "code":
            source = "\n\n".join(self.cells[j]["source"] for j in written)
        self.chosen[i] = {**self.cells[written[0]], "source": source}
        self.notes.append(
            f"The answer to {grade_id(released)} was split over {len(written)} cells; they were joined."
        )
        return True

    def _put_aside(self, rivals, released):
        """A rival that would define the answer anew stays readable and is not run; a helper is run."""
        for j in set(rivals):
            self.home[j] = None
            if released["cell_type"] == "code" and (
                _defines(self.cells[j]["source"], _names(released)) or _tree(self.cells[j]["source"]) is None
            ):
                self.silenced.add(j)

    def _say_order(self):
        order = [home for home in self.home if home is not None]
        first = list(dict.fromkeys(order))
        if first != sorted(first):
            self.notes.append("Cells had been moved; they were put back in the order of the lesson.")

    def _assemble(self):
        followers = {}
        anchor = -1
        copies = {}
        for j, cell in enumerate(self.cells):
            if self.home[j] is None:
                followers.setdefault(anchor, []).append(j)
            else:
                anchor = self.home[j]
                copies.setdefault(anchor, []).append(cell)
        cells = [self._own(j) for j in followers.get(-1, [])]
        for i, released in enumerate(self.release["cells"]):
            cells.append(self._settle(i, released, copies.get(i, [])))
            cells += [self._own(j) for j in followers.get(i, [])]
        return cells

    def _settle(self, i, released, copies):
        """The released cell as it is graded: the student's text where it is the student's to write."""
        cell = dict(released)
        if is_answer(released):
            cell["source"] = self.chosen.get(i, released)["source"]
        elif is_locked(released):
            self._say_locked(released, copies)
        elif copies and copies[-1]["cell_type"] == released["cell_type"]:
            cell["source"] = copies[-1]["source"]
        elif released["cell_type"] == "code" and not is_shown(released):
            first = next(iter(released["source"].strip().splitlines()), "")
            if first:
                self.notes.append(f"The cell that begins with `{first:.60}` was missing; it was put back.")
        return cell

    def _say_locked(self, released, copies):
        if not copies:
            self.notes.append(f"The cell {grade_id(released)} was missing; it was put back.")
        elif any(_squeezed(cell["source"]) != _squeezed(released["source"]) for cell in copies):
            self.notes.append(f"The cell {grade_id(released)} had been changed; the original was used.")
        elif any(cell["cell_type"] != released["cell_type"] for cell in copies):
            self.notes.append(f"The cell {grade_id(released)} had changed its type; the original was used.")

    def _own(self, j):
        """A cell of the student's own, under an id that no released cell has."""
        cell = self.cells[j]
        tags = cell["metadata"].get("tags", [])
        kind = "raw" if j in self.silenced else cell["cell_type"]
        return _made(kind, cell["source"], f"own-{j}", {"tags": tags} if tags else {})


def _same_id(released, cell):
    return released.get("id") is not None and released.get("id") == cell.get("id")


def _same_text(released, cell):
    return bool(_squeezed(cell["source"])) and _squeezed(released["source"]) == _squeezed(cell["source"])


def _alike(released, cell):
    """An edited copy: it defines the answer's names, or most of its text is the released cell's."""
    if is_answer(released) and released["cell_type"] == "code":
        return _defines(cell["source"], _names(released))
    if released["cell_type"] != cell["cell_type"]:
        return False
    a, b = released["source"][:4000], cell["source"][:4000]
    if not a.strip() or not b.strip():
        return False
    likeness = SequenceMatcher(None, a, b, autojunk=False)
    return likeness.real_quick_ratio() > ALIKE and likeness.quick_ratio() > ALIKE and likeness.ratio() > ALIKE


def _is_stub(source, stub):
    return not source.strip() or _squeezed(source) == _squeezed(stub)


def _squeezed(source):
    return "".join(source.split())


def _tree(source):
    """The syntax tree of a cell, line magics and shell lines aside; None where it is no Python."""
    python = re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        return ast.parse(python)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(1000)  # the released cells come again with each submission
def _defined(source):
    tree = _tree(source)
    names = set()
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def _names(released):
    """What an answer must define: the exercise's name, or whatever its stub defines."""
    if released["cell_type"] != "code":
        return set()
    stub = _defined(released["source"])
    return {grade_id(released)} & stub or stub


def _defines(source, names):
    return bool(names) and names <= _defined(source)
