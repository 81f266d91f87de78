"""Collecting: each layout is recognized, bytes stay as they are, nothing is lost or written elsewhere."""

import os
import shutil
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from courses import copy_of_fixture

from autograder.collect import collect
from autograder.course import CourseError
from autograder.gradebook import open_gradebook

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
        ("lovelaceada_late_1042_77_triangles.ipynb", "lovelaceada_1042"),
        ("van_der_berg_1042_77_03_triangles (1)-1.ipynb", "van_der_berg_1042"),
        ("żółćłucja_1042_77_Triangles.ipynb", "żółćłucja_1042"),
        ("anon_x7Qp2_77_triangles.ipynb", "anon_x7Qp2"),
        ("LATE_anon_x7Qp2_77_triangles-1.ipynb", "anon_x7Qp2"),
        ("anon_12345_77_triangles.ipynb", "anon_12345"),
        ("submissions/lovelaceada_1042_77_triangles.ipynb", "lovelaceada_1042"),
        ("Ada Lovelace_1042_assignsubmission_file_/triangles.ipynb", "Ada_Lovelace"),
        ("Ada Lovelace_1042_assignsubmission_file/triangles.ipynb", "Ada_Lovelace"),
        ("Ada Lovelace_1042_assignsubmission_file/my work/week 3/triangles.ipynb", "Ada_Lovelace"),
        ("Ada Lovelace_1042_assignsubmission_file_/03_triangles/work.ipynb", "Ada_Lovelace"),
        ("Ada Lovelace_1042_assignsubmission_file_triangles.ipynb", "Ada_Lovelace"),
        ("Séan O'Brien_1042_assignsubmission_file_/triangles.ipynb", "Séan_O_Brien"),
        ("Participant_1042_assignsubmission_file_/triangles.ipynb", "Participant_1042"),
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


@pytest.mark.parametrize("names", [("Ann Lee", "Ann_Lee"), ("ann,lee", "ann lee")])
def test_names_that_become_the_same_are_not_mixed_up(course, tmp_path, names):
    collected = collect(course, zipped(tmp_path, {f"{name}/triangles.ipynb": DATA for name in names}))
    assert collected.taken == []
    assert len(collected.left) == 2


def test_anonymous_students_of_moodle_are_told_apart(course, tmp_path):
    files = {f"Participant_{i}_assignsubmission_file_/triangles.ipynb": DATA for i in (1, 2)}
    assert collect(course, zipped(tmp_path, files)).left == []
    assert set(submitted(course)) == {"Participant_1", "Participant_2"}


def test_a_canvas_zip_as_it_comes(course, tmp_path):
    """Notebooks, a report beside one, a text entry, two tries of one student, and one that is late."""
    files = {
        "doejane_1001_501_triangles.ipynb": b"jane",
        "doejane_1001_502_notes.pdf": b"%PDF",
        "smithbob_LATE_1002_503_triangles-2.ipynb": b"bob",
        "liwei_1003_504_triangles.ipynb": b"wei",
        "liwei_1003_505_triangles-1.ipynb": b"wei, older",
        "roejo_1004_text.html": b"<p>done",
    }
    collected = collect(course, zipped(tmp_path, files))
    assert submitted(course) == {"doejane_1001": b"jane", "smithbob_1002": b"bob", "liwei_1003": b"wei"}
    assert [bool(taken.late) for taken in collected.taken] == [False, False, True]
    assert {name for name, _ in collected.left} == {
        "doejane_1001_502_notes.pdf",
        "liwei_1003_505_triangles-1.ipynb",
        "roejo_1004_text.html",
    }


@pytest.fixture(scope="module")
def gradebook(tmp_path_factory):
    """The files of `zipped` bear 10:00 on this day; the lesson was due on the day before."""
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    with open_gradebook(f"sqlite:///{path}") as book:
        book.add_assignment("03_triangles", duedate="2026-09-29 12:00:00 UTC")
    return path


def test_a_due_date_that_is_set_between_two_collects_makes_nobody_late(course, gradebook, tmp_path):
    names = ("ann_1_2_triangles.ipynb", "bob_1_assignsubmission_file_/triangles.ipynb")
    path = zipped(tmp_path, dict.fromkeys(names, DATA))
    collect(course, path)
    shutil.copy(gradebook, course.folder / "gradebook.db")
    ann, bob = collect(course, path).taken
    assert (ann.what, ann.late) == ("unchanged", "")
    assert (bob.what, bob.late[:9]) == ("unchanged", "Not known")
    assert {taken.timestamp for taken in (ann, bob)} == {datetime(2026, 9, 29, 12, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("name", "stamp", "late"),
    [
        ("ann_1_2_triangles.ipynb", "2026-09-29 12:00:00 UTC", ""),
        ("ann_LATE_1_2_triangles.ipynb", "2026-09-29 12:00:01 UTC", "Canvas marks it as late."),
        ("ann_1_assignsubmission_file_/triangles.ipynb", "2026-09-29 12:00:00 UTC", "Not known"),
        ("ann/triangles.ipynb", "2026-09-30 ", "after the lesson was due"),
    ],
)
def test_the_time_of_a_download_makes_nobody_late(course, gradebook, tmp_path, name, stamp, late):
    shutil.copy(gradebook, course.folder / "gradebook.db")
    (taken,) = collect(course, zipped(tmp_path, {name: DATA})).taken
    assert taken.late.startswith(late) if late.startswith("Not") else late in taken.late
    assert bool(taken.late) == bool(late)
    folder = course.submitted / taken.student / "03_triangles"
    assert (folder / "timestamp.txt").read_text().startswith(stamp)


def test_a_file_that_is_collected_again_keeps_its_time(course, gradebook, tmp_path):
    place = tmp_path / "inbox" / "ann" / "03_triangles"
    place.mkdir(parents=True)
    (place / "triangles.ipynb").write_bytes(DATA)
    (place / "timestamp.txt").write_text("2026-09-29 08:00:00 UTC")
    collect(course, tmp_path / "inbox")
    shutil.copy(gradebook, course.folder / "gradebook.db")
    (taken,) = collect(course, zipped(tmp_path, {"ann/triangles.ipynb": DATA})).taken
    assert (taken.what, taken.late) == ("unchanged", "")
    assert taken.timestamp == datetime(2026, 9, 29, 8, tzinfo=UTC)


def test_a_bomb_is_left_out_unopened(course, tmp_path):
    """One file of 64 MB of zeros, in a few kilobytes of zip; the others are taken."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ann/triangles.ipynb", DATA)
        with archive.open("bob/triangles.ipynb", "w", force_zip64=True) as file:
            for _ in range(64):
                file.write(bytes(2**20))
    collected = collect(course, path)
    assert submitted(course) == {"ann": DATA}
    assert "64 MB, more than 50 MB" in collected.left[0][1]


def test_a_bomb_that_lies_about_its_size_is_left_out(course, tmp_path):
    path = zipped(tmp_path, {"ann/triangles.ipynb": DATA})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bob/triangles.ipynb", bytes(2**20))
    data = bytearray(path.read_bytes())
    real, lie = (2**20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    path.write_bytes(data.replace(real, lie))
    collected = collect(course, path)
    assert submitted(course) == {"ann": DATA}
    assert "cannot be read" in collected.left[0][1]


def test_many_files_that_fill_the_disk_are_refused_before_the_first(course, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * len(DATA) - 1))
    files = {f"s{i}/triangles.ipynb": DATA for i in range(3)}
    with pytest.raises(CourseError, match="would unpack to"):
        collect(course, zipped(tmp_path, files))
    assert submitted(course) == {}


def test_one_name_twice_in_a_zip(course, tmp_path):
    path = zipped(tmp_path, {"ann/triangles.ipynb": b"first"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(zipfile.ZipInfo("ann/triangles.ipynb", (2026, 9, 30, 11, 0, 0)), b"second")
    collected = collect(course, path)
    assert submitted(course) == {"ann": b"second"}
    assert len(collected.left) == 1


def test_a_name_that_no_gradebook_takes(course, tmp_path):
    collected = collect(course, zipped(tmp_path, {f"{'x' * 129}/triangles.ipynb": DATA}))
    assert "too long" in collected.left[0][1]


def test_a_huge_time_stamp_is_not_read(course, tmp_path):
    files = {"ann/03_triangles/triangles.ipynb": DATA, "ann/03_triangles/timestamp.txt": b"2026-09-29" * 1000}
    (taken,) = collect(course, zipped(tmp_path, files)).taken
    assert taken.timestamp.day == 30


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
