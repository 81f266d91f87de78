"""Collecting: each layout is recognized, bytes stay as they are, nothing is lost or written elsewhere."""

import os
import zipfile
from datetime import UTC, datetime

import pytest
from courses import copy_of_fixture

from autograder.collect import collect
from autograder.course import CourseError

DATA = b'\xef\xbb\xbf{"cells": [],\r\n "nbformat": 4}'


@pytest.fixture
def course(tmp_path):
    return copy_of_fixture(tmp_path)


def zipped(folder, files):
    path = folder / "handed_in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 9, 30, 10, 0, 0)), data)
    return path


def submitted(course):
    return {
        path.parent.parent.name: path.read_bytes()
        for path in course.submitted.glob("*/03_triangles/triangles.ipynb")
    }


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("ann/03_triangles/triangles.ipynb", "ann"),
        ("all of them/ann/03_triangles/triangles.ipynb", "ann"),
        ("ann/03_triangles/my work.ipynb", "ann"),
        ("ann/triangles.ipynb", "ann"),
        ("ann/03_triangles.ipynb", "ann"),
        ("ann/triangles (1).ipynb", "ann"),
        ("ann/triangles-Copy1.ipynb", "ann"),
        ("ann_triangles.ipynb", "ann"),
        ("ann_03_triangles.ipynb", "ann"),
        ("ann-lee_triangles (2).ipynb", "ann-lee"),
        ("submissions/ann_triangles.ipynb", "ann"),
        ("ann+03_triangles+2026-09-30 10:00:00 UTC/triangles.ipynb", "ann"),
        ("ann+03_triangles+2026-09-30 10:00:00 UTC+x7f3/triangles.ipynb", "ann"),
        ("lovelaceada_1042_77_triangles.ipynb", "lovelaceada_1042"),
        ("lovelaceada_LATE_1042_77_triangles-2.ipynb", "lovelaceada_1042"),
        ("Ada Lovelace_1042_assignsubmission_file_/triangles.ipynb", "Ada_Lovelace"),
        ("Łukasz Żak_7_assignsubmission_file_/Triangles.IPYNB", "Łukasz_Żak"),
    ],
)
def test_recognizes_the_layout_and_copies_the_bytes(course, tmp_path, name, student):
    collected = collect(course, zipped(tmp_path, {name: DATA}))
    assert collected.left == []
    assert submitted(course) == {student: DATA}
    folder = course.submitted / student / "03_triangles"
    assert (folder / "timestamp.txt").read_text().startswith("2026-09-30")
    assert collected.taken[0].what == "new"


def test_a_folder_is_collected_like_a_zip(course, tmp_path):
    place = tmp_path / "inbox" / "ann"
    place.mkdir(parents=True)
    (place / "triangles.ipynb").write_bytes(DATA)
    (place / "timestamp.txt").write_text("2026-09-29 08:00:00 UTC")
    collected = collect(course, tmp_path / "inbox")
    assert submitted(course) == {"ann": DATA}
    assert collected.taken[0].timestamp == datetime(2026, 9, 29, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ann/trianlges.ipynb", "Did you mean"),  # codespell:ignore trianlges
        ("ann/notes.ipynb", "The lessons are 03_triangles"),
        ("triangles.ipynb", "Nothing says whose"),
        ("ann/triangles.py", "Only .ipynb"),
        ("ann/work.zip", "A zip inside"),
        ("../ann/triangles.ipynb", "out of the archive"),
        ("/etc/ann/triangles.ipynb", "out of the archive"),
        ("ann/../../03_triangles/triangles.ipynb", "out of the archive"),
        ("C:\\ann\\triangles.ipynb", "out of the archive"),
        (".../triangles.ipynb", "cannot be the name"),
    ],
)
def test_says_why_a_file_is_left_out(course, tmp_path, name, words):
    before = sorted(tmp_path.rglob("*"))
    source = zipped(tmp_path, {name: DATA})
    collected = collect(course, source)
    assert collected.taken == []
    assert words in collected.left[0][1]
    assert sorted(p for p in tmp_path.rglob("*") if p != source) == before


def test_junk_is_passed_over_in_silence(course, tmp_path):
    names = [
        "__MACOSX/ann/._triangles.ipynb",
        "ann/.ipynb_checkpoints/triangles-checkpoint.ipynb",
        "ann/.DS_Store",
    ]
    collected = collect(course, zipped(tmp_path, dict.fromkeys(names, DATA)))
    assert (collected.taken, collected.left) == ([], [])


def test_links_are_left_out(course, tmp_path):
    place = tmp_path / "inbox" / "ann"
    place.mkdir(parents=True)
    os.symlink(course.masters / "03_triangles.py", place / "triangles.ipynb")
    link = zipfile.ZipInfo("ben/triangles.ipynb")
    link.external_attr = 0o120777 << 16
    archive = tmp_path / "link.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(link, "/etc/passwd")
    for source in (tmp_path / "inbox", archive):
        collected = collect(course, source)
        assert collected.taken == []
        assert "link" in collected.left[0][1]


def test_a_newer_one_replaces_and_the_earlier_one_is_kept(course, tmp_path):
    for hour, data in (("08", b"first"), ("09", b"second")):
        place = tmp_path / hour / "ann" / "03_triangles"
        place.mkdir(parents=True)
        (place / "triangles.ipynb").write_bytes(data)
        (place / "timestamp.txt").write_text(f"2026-09-29 {hour}:00:00 UTC")
    assert collect(course, tmp_path / "08").taken[0].what == "new"
    assert collect(course, tmp_path / "09").taken[0].what == "replaced"
    assert submitted(course) == {"ann": b"second"}
    kept = list((course.folder / "grading" / "earlier").rglob("*.ipynb"))
    assert [path.read_bytes() for path in kept] == [b"first"]
    again = collect(course, tmp_path / "08")
    assert again.taken == []
    assert "newer" in again.left[0][1]
    assert collect(course, tmp_path / "09").taken[0].what == "unchanged"
    assert submitted(course) == {"ann": b"second"}


def test_the_notebook_with_the_right_name_is_taken(course, tmp_path):
    files = {"ann/03_triangles/scratch.ipynb": b"scratch", "ann/03_triangles/triangles.ipynb": DATA}
    collected = collect(course, zipped(tmp_path, files))
    assert submitted(course) == {"ann": DATA}
    assert "was taken in its place" in collected.left[0][1]


def test_two_students_of_one_name_are_not_mixed_up(course, tmp_path):
    files = {f"Ann Lee_{i}_assignsubmission_file_/triangles.ipynb": DATA for i in (1, 2)}
    collected = collect(course, zipped(tmp_path, files))
    assert collected.taken == []
    assert all("Two students" in reason for _, reason in collected.left)


def test_late_by_the_lms_is_kept_and_marked(course, tmp_path):
    collected = collect(course, zipped(tmp_path, {"ann_LATE_1_2_triangles.ipynb": DATA}))
    assert "late" in collected.taken[0].late
    assert "late" in (course.submitted / "ann_1" / "03_triangles" / "late.txt").read_text()


@pytest.mark.parametrize("name", ["nowhere.zip", "broken.zip", "ann.ipynb"])
def test_says_what_is_wrong_with_the_source(course, tmp_path, name):
    if name != "nowhere.zip":
        (tmp_path / name).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(CourseError, match=name):
        collect(course, tmp_path / name)
