"""Reading and mending: whatever happened to a file, its answers are found, and what was done is said."""

import copy
import json

import pytest

from autograder import submission
from autograder.submission import OTHER_LESSON, UnreadableSubmission, mend, read

STUB = "def area(a, b):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
ANSWER = "def area(a, b):\n    return a * b"
OTHER = "def area(a, b):\n    return a + b"
TEST = "from autograder import check\ncheck.values('shapes.area', [(2, 3)], reference=lambda a, b: a * b)"


def cell(source, grade_id=None, kind="code", **settings):
    metadata = {"nbgrader": {"grade_id": grade_id, "schema_version": 3, **settings}} if grade_id else {}
    identity = grade_id or f"c{abs(hash(source)) % 10**8}"
    plain = {"cell_type": kind, "id": identity, "metadata": metadata, "source": source}
    return plain | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def release():
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            cell("# Shapes", kind="markdown"),
            cell("import numpy as np", "code_1", locked=True),
            cell(STUB, "area", solution=True, grade=False, locked=False),
            cell(TEST, "area_test", grade=True, locked=True, points=2),
            cell(
                "YOUR ANSWER HERE", "why", kind="markdown", solution=True, grade=True, locked=False, points=1
            ),
        ],
    }


def answered():
    notebook = release()
    notebook["cells"][2]["source"] = ANSWER
    notebook["cells"][4]["source"] = "Because both sides count."
    return notebook


def as_bytes(notebook):
    return json.dumps(notebook).encode()


def mended(notebook):
    """The sources by grade_id after reading and mending, and all notes."""
    taken = read(as_bytes(notebook))
    result, notes = mend(taken.notebook, release())
    return result, taken.notes + notes


def source(notebook, grade_id):
    return next(c["source"] for c in notebook["cells"] if submission.grade_id(c) == grade_id)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: b"\n  " + text.encode() + b"\n",
    ],
)
def test_reads_every_unicode_encoding(encode):
    notebook = answered()
    notebook["cells"][4]["source"] = "Zażółć, 넓이, 面积"
    text = json.dumps(notebook, ensure_ascii=False)
    assert read(encode(text)).notebook["cells"][4]["source"] == "Zażółć, 넓이, 面积"


def test_a_foreign_encoding_is_read_and_said():
    text = json.dumps(answered(), ensure_ascii=False).replace("Because", "Déjà")
    taken = read(text.encode("cp1252"))
    assert taken.notebook["cells"][4]["source"].startswith("Déjà")
    assert "Windows-1252" in taken.notes[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"hello", "not JSON"),
        (b"[1, 2]", "no list of cells"),
        (b'{"a": 1}', "no list of cells"),
        (b'{"cells": 3}', "no list of cells"),
        (b'{"cells": [], "nbformat": 9}', "format 9"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04rest", "zip"),
        (b"%PDF-1.7", "PDF"),
        (b"\xff\xfeabc", "utf-16"),
        (b'{"cells": [{"source": "a', "breaks off"),
        (b'{"cells":\n<<<<<<< HEAD\n[]\n=======\n}', "unresolved merge"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_says_why_a_file_is_no_notebook(data, words):
    with pytest.raises(UnreadableSubmission, match=words):
        read(data)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.ipynb"
    with open(path, "wb") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(UnreadableSubmission, match="200 MB"):
        read(path)


def test_too_many_cells_are_refused():
    with pytest.raises(UnreadableSubmission, match="6000 cells"):
        read(as_bytes({"nbformat": 4, "cells": [{}] * 6000}))


@pytest.mark.parametrize("junk", [None, 3, "text", [], {"cell_type": "video"}, {"source": 7, "metadata": 1}])
def test_broken_cells_do_no_harm(junk):
    notebook = answered()
    notebook["cells"].insert(2, junk)
    result, _ = mended(notebook)
    assert source(result, "area") == ANSWER


def test_a_lone_surrogate_can_be_written_again():
    notebook = answered()
    notebook["cells"][4]["source"] = "half a pair: \ud83d"
    json.dumps(mended(notebook)[0], ensure_ascii=False).encode()


def test_format_3_is_converted_and_said():
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Shapes", "metadata": {}},
        {
            "cell_type": "code",
            "input": ANSWER.splitlines(True),
            "metadata": {},
            "outputs": [],
            "language": "python",
        },
    ]
    result, notes = mended({"nbformat": 3, "worksheets": [{"cells": cells}], "metadata": {}})
    assert source(result, "area") == ANSWER
    assert any("old format 3" in note for note in notes)


def test_an_honest_notebook_is_left_as_it_is():
    result, notes = mended(answered())
    assert notes == []
    assert [c["source"] for c in result["cells"]] == [c["source"] for c in answered()["cells"]]
    assert result["metadata"] == release()["metadata"]


def test_an_untouched_notebook_is_the_release():
    assert mended(release()) == (release(), [])


def test_arguments_are_not_changed():
    notebook, original = read(as_bytes(answered())).notebook, release()
    before = copy.deepcopy((notebook, original))
    mend(notebook, original)
    assert (notebook, original) == before


def test_lost_metadata_is_no_loss():
    notebook = answered()
    for c in notebook["cells"]:
        c["metadata"] = {}
        c.pop("id")
    result, notes = mended(notebook)
    assert source(result, "area") == ANSWER
    assert sum("lost its metadata" in note for note in notes) >= 2
    assert [submission.grade_id(c) for c in result["cells"]].count("area") == 1


def test_of_copies_the_last_answer_counts():
    notebook = answered()
    notebook["cells"].insert(2, cell(OTHER, "area"))
    result, notes = mended(notebook)
    assert source(result, "area") == ANSWER
    assert any("answered in 2 cells" in note for note in notes)
    runs = [c for c in result["cells"] if c["cell_type"] == "code" and OTHER in c["source"]]
    assert runs == []
    assert any(c["source"] == OTHER for c in result["cells"])


def test_an_empty_copy_below_does_not_undo_the_answer():
    for empty in ("", STUB, f"{STUB}\n\n"):
        notebook = answered()
        notebook["cells"].insert(3, cell(empty, "area"))
        assert source(mended(notebook)[0], "area") == ANSWER


def test_a_split_answer_is_joined():
    first, second = ANSWER.split("\n")
    for name in ("area", None):
        notebook = answered()
        notebook["cells"][2]["source"] = first
        notebook["cells"].insert(3, cell(second, name))
        result, notes = mended(notebook)
        assert source(result, "area") == ANSWER
        assert any("split in two" in note for note in notes)


def test_an_answer_split_between_definitions_runs_whole():
    notebook = answered()
    notebook["cells"][2]["source"] = "def product(a, b):\n    return a * b"
    notebook["cells"].insert(3, cell("def area(a, b):\n    return product(a, b)", "area"))
    result, _ = mended(notebook)
    code = [c["source"] for c in result["cells"] if c["cell_type"] == "code"]
    names = {}
    exec("\n".join(text for text in code if "check" not in text), names)
    assert names["area"](2, 3) == 6


def test_order_is_restored_and_said():
    notebook = answered()
    notebook["cells"].reverse()
    result, notes = mended(notebook)
    names = [submission.grade_id(c) for c in result["cells"] if submission.grade_id(c)]
    assert names == ["code_1", "area", "area_test", "why"]
    assert any("put back in the order" in note for note in notes)


def test_deleted_cells_are_put_back():
    notebook = answered()
    del notebook["cells"][1:4]
    result, notes = mended(notebook)
    assert source(result, "area_test") == TEST
    assert source(result, "area") == STUB
    assert sum("missing" in note for note in notes) == 3


def test_retyped_cells_are_read_as_they_were():
    notebook = answered()
    notebook["cells"][2] = cell(ANSWER, "area", kind="markdown")
    notebook["cells"][4] = cell("Because both sides count.", "why", kind="code")
    result, notes = mended(notebook)
    kinds = {submission.grade_id(c): c["cell_type"] for c in result["cells"]}
    assert (kinds["area"], kinds["why"]) == ("code", "markdown")
    assert source(result, "area") == ANSWER
    assert sum("had become a" in note for note in notes) == 2


def test_a_changed_test_is_the_original_again():
    notebook = answered()
    notebook["cells"][3]["source"] = "pass"
    notebook["cells"][3]["metadata"]["nbgrader"]["points"] = 1000
    result, notes = mended(notebook)
    graded = next(c for c in result["cells"] if submission.grade_id(c) == "area_test")
    assert graded == release()["cells"][3]
    assert any("had been changed" in note for note in notes)


def test_an_answer_in_a_cell_of_its_own_is_found():
    notebook = answered()
    notebook["cells"][2]["source"] = STUB
    notebook["cells"].append(cell(ANSWER))
    result, notes = mended(notebook)
    assert source(result, "area") == ANSWER
    assert any("a cell of its own" in note for note in notes)


def test_own_cells_stay_where_they_stood():
    notebook = answered()
    notebook["cells"].insert(3, cell("print(area(2, 3))"))
    notebook["cells"].insert(0, cell("# my own remarks", kind="markdown"))
    result, notes = mended(notebook)
    texts = [c["source"] for c in result["cells"]]
    assert texts[0] == "# my own remarks"
    assert texts.index("print(area(2, 3))") == texts.index(ANSWER) + 1
    assert notes == []


def test_foreign_graded_cells_lose_their_points():
    notebook = answered()
    notebook["cells"].append(cell("1000", "bonus", grade=True, locked=True, points=1000))
    result, _ = mended(notebook)
    assert "nbgrader" not in result["cells"][-1]["metadata"]
    assert result["cells"][-1]["source"] == "1000"


def test_another_lessons_notebook_is_said():
    other = release()
    for number, one in enumerate(other["cells"]):
        one["metadata"]["nbgrader"] = {"grade_id": f"other{number}"}
    assert OTHER_LESSON in mended(other)[1]
    assert OTHER_LESSON not in mended(answered())[1]


def test_line_magics_do_not_hide_an_answer():
    notebook = answered()
    notebook["cells"][2] = cell(f"%matplotlib inline\n!ls\n{ANSWER}")
    assert ANSWER in source(mended(notebook)[0], "area")


def test_ids_are_unique_and_the_result_is_a_valid_notebook():
    import nbformat

    notebook = answered()
    notebook["cells"] += [cell("x = 1"), cell("x = 1"), cell(OTHER, "area")]
    result, _ = mended(notebook)
    ids = [c["id"] for c in result["cells"]]
    assert len(ids) == len(set(ids))
    nbformat.validate(nbformat.from_dict(result))
