"""The journal: what was appended is read again, and what a crash or a bad disk left is not."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder import journal as module
from autograder.engine import RIGHT, Check, Result
from autograder.journal import Journal


def result(student="ann", key="k", message="", lesson="03_triangles"):
    return Result(student, lesson, key, [Check("area_test", "area", 2.0, 2.0, RIGHT, message)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "grading" / "journal.jsonl"


def test_what_is_appended_is_read_by_others_and_the_last_counts(path):
    writer, reader = Journal(path), Journal(path)
    assert reader.read("ann", "03_triangles") is None
    writer.append([result("ann", "old"), result("bob", message="Größe \ud800 ✗\nline two")])
    writer.append([result("ann", "new")])
    reader.refresh()
    for each in (writer, reader, Journal(path)):
        assert each.key("ann", "03_triangles") == "new"
        assert each.read("bob", "03_triangles") == result("bob", message="Größe \ud800 ✗\nline two")
        assert each.key("ann", "04_other") is None


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(min_value=1, max_value=2000), rubbish=st.binary(max_size=40))
def test_a_torn_last_line_is_healed(tmp_path_factory, cut, rubbish):
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    Journal(path).append([result("ann")])
    whole = path.read_bytes()
    Journal(path).append([result("bob")])
    torn = path.read_bytes()[len(whole) :][:-1][: cut % 200]
    path.write_bytes(whole + torn + rubbish.replace(b"\n", b""))
    healed = Journal(path)
    assert (healed.key("ann", "03_triangles"), healed.key("bob", "03_triangles")) == ("k", None)
    healed.append([result("cat")])
    assert path.read_bytes().startswith(whole)
    again = Journal(path)
    keys = [again.key(student, "03_triangles") for student in ("ann", "bob", "cat")]
    assert keys == ["k", None, "k"]


def test_a_spoilt_line_costs_its_own_submission_alone(path):
    Journal(path).append([result("ann"), result("bob"), result("cat")])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"score": 2.0', b'"score": 9.0')
    path.write_bytes(b"".join(lines))
    found = Journal(path)
    assert [found.key(s, "03_triangles") for s in ("ann", "bob", "cat")] == ["k", None, "k"]


def test_a_full_disk_leaves_the_journal_as_it_was(path, monkeypatch):
    journal = Journal(path)
    journal.append([result("ann")])
    before = path.read_bytes()

    def full(file, data):
        os.write(file.fileno(), data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append([result("bob")])
    assert path.read_bytes() == before
    journal.append([result("bob")])
    assert Journal(path).read("bob", "03_triangles") == result("bob")


def test_a_write_that_the_system_takes_in_parts_is_whole(path, monkeypatch):
    class Slow:
        taken = b""

        def write(self, data):
            self.taken += bytes(data[:3])
            return len(data[:3])

    slow = Slow()
    module._write(slow, b"0123456789")
    assert slow.taken == b"0123456789"


def test_a_journal_that_was_replaced_is_read_anew(path):
    reader = Journal(path)
    Journal(path).append([result("ann"), result("bob")])
    reader.refresh()
    other = path.with_name("other")
    Journal(other).append([result("cat"), result("dan"), result("eve")])
    os.replace(other, path)
    reader.refresh()
    assert reader.key("ann", "03_triangles") is None
    assert reader.read("eve", "03_triangles") == result("eve")
    path.unlink()
    reader.refresh()
    assert reader.key("eve", "03_triangles") is None
