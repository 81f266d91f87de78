"""Notebooks that were mangled on their way, each with the grade and the note that it must get.

They are made from a right submission of the fixture course by small functions: one of a notebook gives the
bytes that arrive; one of a folder puts there what arrives. What is 200 MB large or a link is made there too.
"""

import codecs
import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autograder import classroom
from autograder.submission import LARGEST, MOST_CELLS, grade_id

FULL = 8.0  # what the fixture course's tests are worth; the written answer waits for a person
TRIANGLE, POLYGON = 5.0, 3.0
FILE = "triangles.ipynb"


@dataclass(frozen=True)
class Case:
    """What arrives, the score that it must get, and words that must be in its notes.

    says: a part of one note, or of what is said of a file that cannot be read; empty where nothing is to be
    said. unreadable: whether nothing of it can be graded.
    """

    name: str
    hand_in: Callable[[dict, Path], None]
    score: float
    says: str = ""
    unreadable: bool = False


CASES: list[Case] = []


def arrives(score: float, says: str = "", unreadable: bool = False):
    """Registers a function of a right notebook, which it may change, that gives the bytes that arrive."""

    def register(function):
        def hand_in(notebook, folder):
            (folder / FILE).write_bytes(function(copy.deepcopy(notebook)))

        CASES.append(Case(_name(function), hand_in, score, says, unreadable))
        return function

    return register


def lies_there(score: float, says: str = "", unreadable: bool = False):
    """Registers a function that puts into a folder what was handed in, from a right notebook's bytes."""

    def register(function):
        def hand_in(notebook, folder):
            function(as_bytes(notebook), folder)

        CASES.append(Case(_name(function), hand_in, score, says, unreadable))
        return function

    return register


def _name(function):
    return function.__name__.replace("_", " ")


def as_bytes(notebook, **options) -> bytes:
    return json.dumps(notebook, indent=1, ensure_ascii=False, **options).encode()


def place(notebook, name) -> int:
    return next(i for i, cell in enumerate(notebook["cells"]) if grade_id(cell) == name)


def cell(notebook, name) -> dict:
    return notebook["cells"][place(notebook, name)]


def own(source, kind="code", **metadata) -> dict:
    """A cell that the student made."""
    made = {"cell_type": kind, "id": f"own-{len(source)}", "metadata": metadata, "source": source}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


# What the simulated class hands in.

SAID = {
    "nbformat 3": "old format 3",
    "no metadata": "had lost its metadata",
    "copied answer": "answered in 2 cells; the last was graded",
    "split answer": "its halves were joined",
    "answer elsewhere": "stood in a cell of its own",
    "reversed": "put back in the order of the lesson",
    "tests deleted": "was missing; it was put back",
    "tests changed": "had been changed; the original was used",
    "answer as markdown": "had become a markdown cell",
    "cut off": "breaks off in the middle",
    "a web page": "a web page, not a notebook",
    "empty": "The file is empty",
}
for group, points in ((classroom.MANGLES, FULL), (classroom.SPOILS, 0.0)):
    for kind, change in group.items():
        name = kind.partition(": ")[2]

        def _hand_in(notebook, folder, change=change):
            (folder / FILE).write_bytes(change(copy.deepcopy(notebook)))

        CASES.append(Case(name, _hand_in, points, SAID.get(name, ""), group is classroom.SPOILS))


# Bytes.


@arrives(FULL)
def utf_16_big_endian(notebook):
    return codecs.BOM_UTF16_BE + as_bytes(notebook).decode().encode("utf-16-be")


@arrives(FULL)
def utf_32(notebook):
    return as_bytes(notebook).decode().encode("utf-32")


@arrives(FULL, "read as Windows-1252")
def windows_1252(notebook):
    notebook["cells"].append(own("Schöne Grüße", "markdown"))
    return as_bytes(notebook).decode().encode("cp1252", errors="replace")


@arrives(0.0, "says that it is utf-16, and is not", unreadable=True)
def half_of_a_utf_16_file(notebook):
    return codecs.BOM_UTF16_LE + b"\x00\xd8\x00"


@arrives(FULL)
def blank_lines_around_it(notebook):
    return b"\n\n   " + as_bytes(notebook) + b"\r\n\n"


@arrives(FULL)
def every_letter_escaped(notebook):
    notebook["cells"].append(own("Zażółć, 넓이, 面积", "markdown"))
    return json.dumps(notebook, ensure_ascii=True).encode()


@arrives(FULL)
def half_a_character(notebook):
    """A lone surrogate: legal in JSON, and in no file."""
    notebook["cells"].append(own("\ud83d", "markdown"))
    return json.dumps(notebook).encode()


@arrives(FULL)
def line_ends_of_old_macs(notebook):
    for each in notebook["cells"]:
        each["source"] = each["source"].replace("\n", "\r")
    return as_bytes(notebook)


@arrives(0.0, "unresolved merge", unreadable=True)
def an_unresolved_merge(notebook):
    text = as_bytes(notebook).decode()
    half = text.index('"cells"')
    return f"{text[:half]}\n<<<<<<< HEAD\n{text[half:]}\n=======\n>>>>>>> mine\n".encode()


@arrives(0.0, "not JSON", unreadable=True)
def python_instead(notebook):
    return "\n\n".join(each["source"] for each in notebook["cells"]).encode()


@arrives(0.0, "a PDF", unreadable=True)
def printed_to_pdf(notebook):
    return b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


@arrives(0.0, "a zip archive", unreadable=True)
def zipped(notebook):
    return b"PK\x03\x04" + bytes(26)


@arrives(0.0, "not JSON", unreadable=True)
def two_notebooks_in_one_file(notebook):
    return as_bytes(notebook) + as_bytes(notebook)


@arrives(0.0, "The file is empty", unreadable=True)
def nothing_but_spaces(notebook):
    return b" \n\t\n"


@arrives(0.0, "nested too deeply", unreadable=True)
def nested_without_end(notebook):
    return b"[" * 200_000


@arrives(0.0, "not JSON", unreadable=True)
def zeros_of_a_crashed_disk(notebook):
    return bytes(4096)


# JSON, but what kind?


@arrives(0.0, "not a notebook: it has no list of cells", unreadable=True)
def json_but_no_notebook(notebook):
    return b'{"name": "Ann", "grade": 10}'


@arrives(0.0, "not a notebook: it has no list of cells", unreadable=True)
def a_list(notebook):
    return as_bytes(notebook["cells"])


@arrives(0.0, "not a notebook: it has no list of cells", unreadable=True)
def cells_in_a_dict(notebook):
    return as_bytes({**notebook, "cells": dict(enumerate(notebook["cells"]))})


@arrives(0.0, "says it has format 5", unreadable=True)
def a_format_of_the_future(notebook):
    return as_bytes(notebook | {"nbformat": 5})


@arrives(FULL)
def no_format_said(notebook):
    del notebook["nbformat"], notebook["nbformat_minor"], notebook["metadata"]
    return as_bytes(notebook)


@arrives(FULL)
def cells_that_are_no_cells(notebook):
    notebook["cells"] += [None, 7, "text", [], {"cell_type": "sonnet", "source": 5}, {}]
    return as_bytes(notebook)


@arrives(0.0, f"the limit is {MOST_CELLS}", unreadable=True)
def thousands_of_cells(notebook):
    notebook["cells"] += [{"cell_type": "raw", "source": ""}] * MOST_CELLS
    return json.dumps(notebook).encode()


@arrives(0.0, "was missing; the empty one was put back")
def no_cells_at_all(notebook):
    return as_bytes(notebook | {"cells": []})


@arrives(FULL)
def numbers_beyond_json(notebook):
    cell(notebook, "polygon_area")["metadata"]["score"] = float("nan")
    return as_bytes(notebook)


@arrives(FULL, "The cell code_1 had lost its metadata")
def metadata_of_other_types(notebook):
    """Tags as a text, metadata as a list, outputs as null."""
    for each, broken in zip(notebook["cells"], ([], "meta", None, {"tags": "show"}), strict=False):
        each["metadata"] = broken
    for each in notebook["cells"]:
        if each["cell_type"] == "code":
            each["outputs"], each["execution_count"] = None, "seven"
    return as_bytes(notebook)


# Other editors.


@arrives(FULL)
def saved_by_colab(notebook):
    notebook["metadata"] |= {"colab": {"provenance": []}, "accelerator": "GPU"}
    for number, each in enumerate(notebook["cells"]):
        each["metadata"] |= {"id": f"xY{number}", "colab": {"base_uri": "https://localhost:8080/"}}
        del each["id"]
        each["source"] = each["source"].splitlines(keepends=True)
    return as_bytes(notebook | {"nbformat_minor": 0})


@arrives(FULL, "had lost its metadata")
def colab_without_grade_ids(notebook):
    """Some exports keep the text, and nothing that they do not know."""
    for number, each in enumerate(notebook["cells"]):
        each["metadata"] = {"id": f"xY{number}"}
        del each["id"]
    return as_bytes(notebook)


@arrives(FULL)
def saved_by_vs_code(notebook):
    for each in notebook["cells"]:
        each["metadata"] |= {"vscode": {"languageId": "python"}}
        if each["cell_type"] == "code":
            each["execution_count"] = 1
    return json.dumps(notebook, indent=4).encode()


@arrives(FULL, "had lost its metadata")
def saved_by_a_hosted_editor(notebook):
    """As Deepnote and its like do: ids, metadata and trailing blanks are their own."""
    for number, each in enumerate(notebook["cells"]):
        each["metadata"] = {"cell_id": f"{number:032x}", "deepnote_cell_type": each["cell_type"]}
        each["id"] = f"{number:08x}"
        each["source"] = each["source"].rstrip() + "   "
    return as_bytes(notebook | {"deepnote_notebook_id": "0"})


@arrives(FULL, "had lost its metadata")
def through_a_python_file(notebook):
    """To a script and back: no ids, no metadata, blank lines around, markdown as it was."""
    cells = [own(f"\n{each['source']}\n\n", each["cell_type"]) for each in notebook["cells"]]
    for each in cells:
        del each["id"]
    return as_bytes(notebook | {"cells": cells})


@arrives(FULL, "had been changed; the original was used")
def reformatted_by_a_tool(notebook):
    """A formatter went over all code: quotes and commas differ, also in the tests."""
    for each in notebook["cells"]:
        if each["cell_type"] == "code":
            each["source"] = each["source"].replace('"', "'").replace("(a, b, c)", "(a, b, c,)")
    return as_bytes(notebook)


# Cells.


@arrives(FULL, "was missing; it was put back")
def imports_deleted(notebook):
    notebook["cells"] = [each for each in notebook["cells"] if "import numpy" not in each["source"][:20]]
    return as_bytes(notebook)


@arrives(TRIANGLE, "The cell of polygon_area was missing; the empty one was put back")
def an_answer_deleted(notebook):
    del notebook["cells"][place(notebook, "polygon_area")]
    return as_bytes(notebook)


@arrives(FULL, "The cell of why_signed was missing")
def all_prose_deleted(notebook):
    notebook["cells"] = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    return as_bytes(notebook)


@arrives(FULL, "polygon_area")
def two_answers_merged_into_one_cell(notebook):
    first = cell(notebook, "triangle_area")
    first["source"] += "\n\n\n" + notebook["cells"].pop(place(notebook, "polygon_area"))["source"]
    return as_bytes(notebook)


@arrives(FULL, "polygon_area")
def an_answer_and_its_test_merged(notebook):
    answer = cell(notebook, "polygon_area")
    test = notebook["cells"].pop(place(notebook, "polygon_area_test"))
    answer["source"] += "\n" + test["source"]
    return as_bytes(notebook)


@arrives(FULL, "joined")
def an_answer_in_three_pieces(notebook):
    index = place(notebook, "polygon_area")
    lines = notebook["cells"][index]["source"].rstrip().split("\n")
    pieces = [lines[:-2], lines[-2:-1], lines[-1:]]
    cells = [own("\n".join(piece), **notebook["cells"][index]["metadata"]) for piece in pieces]
    notebook["cells"][index : index + 1] = cells
    return as_bytes(notebook)


@arrives(FULL)
def a_helper_in_a_cell_of_its_own(notebook):
    """Half of the answer stands in a cell that the student made above it."""
    index = place(notebook, "polygon_area")
    notebook["cells"][index]["source"] = "def polygon_area(corners):\n    return fan(corners).sum()"
    helper = "def fan(corners):\n    return triangle_area(corners[0], corners[1:-1], corners[2:])"
    notebook["cells"].insert(index, own(helper))
    return as_bytes(notebook)


@arrives(FULL, "put back in the order of the lesson")
def answers_swapped(notebook):
    one, other = place(notebook, "triangle_area"), place(notebook, "polygon_area")
    cells = notebook["cells"]
    cells[one], cells[other] = cells[other], cells[one]
    return as_bytes(notebook)


@arrives(FULL, "had lost its metadata")
def answers_retyped(notebook):
    """New cells with the same code; the old ones are gone."""
    for name in ("triangle_area", "polygon_area"):
        index = place(notebook, name)
        notebook["cells"][index] = own(f"# my answer\n{notebook['cells'][index]['source']}")
    return as_bytes(notebook)


@arrives(FULL, "answered in 2 cells; the last was graded")
def a_second_try_below_the_first(notebook):
    index = place(notebook, "triangle_area")
    first = copy.deepcopy(notebook["cells"][index]) | {"id": "first"}
    first["source"] = "def triangle_area(a, b, c):\n    return 'no idea yet'"
    notebook["cells"].insert(index, first)
    return as_bytes(notebook)


@arrives(FULL, "triangle_area was answered in 2 cells; the last was graded")
def the_whole_lesson_twice(notebook):
    """All cells were selected, copied and pasted below."""
    again = copy.deepcopy(notebook["cells"])
    for number, each in enumerate(again):
        each["id"] = f"again-{number}"
    notebook["cells"] += again
    return as_bytes(notebook)


@arrives(FULL)
def one_id_for_all_cells(notebook):
    for each in notebook["cells"]:
        each["id"] = "cell"
    return as_bytes(notebook)


@arrives(POLYGON, "Your answer to polygon_area stood in a cell of its own")
def one_grade_id_on_two_answers(notebook):
    """The polygon's cell was made by copying the triangle's, which is gone under that name."""
    first, second = cell(notebook, "triangle_area"), cell(notebook, "polygon_area")
    wrong = "def triangle_area(a, b, c):\n    return 0.0 * (a[..., 0] + b[..., 0] + c[..., 0])"
    second["metadata"] = copy.deepcopy(first["metadata"])
    second["source"] = (
        "def polygon_area(corners):\n    x, y = corners.T\n"
        "    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2"
    )
    first["source"] = wrong
    return as_bytes(notebook)


@arrives(FULL, "had become a raw cell")
def an_answer_as_raw_cell(notebook):
    answer = cell(notebook, "triangle_area")
    answer["cell_type"] = "raw"
    return as_bytes(notebook)


@arrives(FULL, "had become a code cell")
def the_written_answer_as_code(notebook):
    cell(notebook, "why_signed")["cell_type"] = "code"
    return as_bytes(notebook)


@arrives(TRIANGLE)
def code_fences_typed_into_a_cell(notebook):
    """Pasted from a chat, with its fences: no Python, so the exercise has no answer."""
    answer = cell(notebook, "polygon_area")
    answer["source"] = f"```python\n{answer['source']}\n```"
    return as_bytes(notebook)


@arrives(TRIANGLE)
def tabs_and_blanks_mixed(notebook):
    answer = cell(notebook, "polygon_area")
    lines = answer["source"].rstrip().split("\n")
    answer["source"] = "\n".join([*lines[:-1], "\t" + lines[-1].strip()])
    return as_bytes(notebook)


@arrives(FULL)
def no_break_spaces_from_a_web_page(notebook):
    """They stand in a comment, where Python takes them."""
    cell(notebook, "polygon_area")["source"] += "\n#\u00a0the\u00a0end\u200b"
    return as_bytes(notebook)


@arrives(FULL)
def prompts_of_magics(notebook):
    notebook["cells"].insert(1, own("%matplotlib inline\n!pip install numpy\n%timeit sum(range(9))"))
    return as_bytes(notebook)


@arrives(0.0, "the original was used")
def tests_edited_so_that_all_pass(notebook):
    """The answers are as wrong as before, whatever the student's copies of the tests say."""
    for each in notebook["cells"]:
        settings = each["metadata"].get("nbgrader", {})
        if settings.get("grade") and not settings.get("solution"):
            each["source"] = "print('Right:')"
    for name in ("triangle_area", "polygon_area"):
        cell(notebook, name)["source"] = f"def {name}(*corners):\n    return 'right'"
    return as_bytes(notebook)


@arrives(0.0)
def outputs_faked(notebook):
    """The tests have run, so their outputs say, and all was right."""
    said = {"output_type": "stream", "name": "stdout", "text": "✓ Right: it passes its 3 hidden tests."}
    for each in notebook["cells"]:
        if each["cell_type"] == "code":
            each["outputs"], each["execution_count"] = [said], 1
    for name in ("triangle_area", "polygon_area"):
        cell(notebook, name)["source"] = ""
    return as_bytes(notebook)


@arrives(0.0)
def points_raised_in_the_metadata(notebook):
    for each in notebook["cells"]:
        settings = each["metadata"].get("nbgrader", {})
        settings |= {"points": 1000, "grade": True, "solution": True, "locked": False} if settings else {}
    for name in ("triangle_area", "polygon_area"):
        cell(notebook, name)["source"] = ""
    return as_bytes(notebook)


@arrives(FULL)
def answers_tagged_show(notebook):
    """Cells with this tag do not run at grading; the release's tags count, not the student's."""
    for name in ("triangle_area", "polygon_area"):
        cell(notebook, name)["metadata"]["tags"] = ["show", "hide-input"]
    return as_bytes(notebook)


# Files.


@lies_there(0.0, f"the limit is {LARGEST // 2**20} MB", unreadable=True)
def two_hundred_megabytes(data, folder):
    with open(folder / FILE, "wb") as file:
        file.write(data)
        file.truncate(200 * 2**20)


@lies_there(FULL)
def megabytes_of_outputs(data, folder):
    notebook = json.loads(data)
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 5_000_000}, "metadata": {}}
    code = next(each for each in notebook["cells"] if each["cell_type"] == "code")
    code["outputs"] = [picture]
    (folder / FILE).write_bytes(as_bytes(notebook))


@lies_there(FULL, "was called Triangles (1).ipynb; it was taken for triangles.ipynb")
def a_wrong_name(data, folder):
    (folder / "Triangles (1).ipynb").write_bytes(data)


@lies_there(0.0, "No notebook called triangles.ipynb", unreadable=True)
def two_wrong_names(data, folder):
    (folder / "draft.ipynb").write_bytes(data)
    (folder / "final.ipynb").write_bytes(data)


@lies_there(FULL)
def a_second_notebook_beside_it(data, folder):
    (folder / FILE).write_bytes(data)
    (folder / "triangles-old.ipynb").write_bytes(b"{}")


@lies_there(FULL)
def checkpoints_and_hidden_files_beside_it(data, folder):
    (folder / FILE).write_bytes(data)
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "triangles-checkpoint.ipynb").write_bytes(b"{}")


@lies_there(0.0, "No notebook called triangles.ipynb", unreadable=True)
def an_empty_folder(data, folder):
    pass


@lies_there(0.0, "is a folder", unreadable=True)
def a_folder_of_that_name(data, folder):
    (folder / FILE).mkdir()
    (folder / FILE / FILE).write_bytes(data)


@lies_there(0.0, "is a link", unreadable=True)
def a_link_to_another_student(data, folder):
    neighbour = folder.parent.parent / "a neighbour" / folder.name / FILE
    neighbour.parent.mkdir(parents=True, exist_ok=True)
    neighbour.write_bytes(data)
    (folder / FILE).symlink_to(neighbour)


@lies_there(0.0, "is a link", unreadable=True)
def a_link_to_nowhere(data, folder):
    (folder / FILE).symlink_to(folder / "gone.ipynb")


@lies_there(0.0, "is a link", unreadable=True)
def a_link_to_itself(data, folder):
    (folder / FILE).symlink_to(FILE)


@lies_there(0.0, "not a file", unreadable=True)
def a_pipe_that_nobody_writes_to(data, folder):
    os.mkfifo(folder / FILE)
