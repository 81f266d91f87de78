"""The journal: every result that grading gave, a line each, in one file that only grows.

A line is the CRC-32 of its JSON, a space, and the result as JSON. Results are on disk when `append` returns.
A line that was torn by a crash, or that the disk has spoilt, counts as not written: its submission is graded
again. The last line of a submission is its result.
"""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from autograder.engine import Result


class _Place(NamedTuple):
    key: str
    start: int
    length: int


class Journal:
    """The journal in a file, which need not be there yet.

    In memory are only the places of the results, some 300 bytes a submission. Many may read it while one
    appends; `refresh` takes in what was appended since.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._forget()
        self.refresh()

    def _forget(self):
        self._places: dict[tuple[str, str], _Place] = {}
        self._end = 0  # of the last whole line
        self._file = None

    def refresh(self) -> None:
        """Takes in the lines that are new: O(their bytes). A file that was replaced is read anew."""
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            self._forget()
            return
        if self._file != (state.st_dev, state.st_ino) or state.st_size < self._end:
            self._forget()
            self._file = (state.st_dev, state.st_ino)
        if state.st_size > self._end:
            with open(self.path, "rb") as file:
                file.seek(self._end)
                for line in file:
                    if line.endswith(b"\n"):
                        self._take_in(line)

    def _take_in(self, line):
        plain = _parse(line)
        if plain is not None:
            place = _Place(plain["key"], self._end, len(line))
            self._places[plain["student"], plain["lesson"]] = place
        self._end += len(line)

    def key(self, student: str, lesson: str) -> str | None:
        """The key of a submission's last result, without reading it; None where there is none."""
        place = self._places.get((student, lesson))
        return place and place.key

    def read(self, student: str, lesson: str) -> Result | None:
        """The last result of a submission; None where there is none."""
        place = self._places.get((student, lesson))
        if place is None:
            return None
        with open(self.path, "rb") as file:
            file.seek(place.start)
            plain = _parse(file.read(place.length))
        return None if plain is None else Result.from_dict(plain)

    def append(self, results: Iterable[Result]) -> None:
        """Adds results; when it returns they are on disk. Only one process may append at a time.

        What a crash left behind the last whole line is cut off first. Raises OSError, after which the
        journal is what it was before.
        """
        lines = [_line(result) for result in results]
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            file.truncate(self._end)
            try:
                _write(file, b"".join(lines))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._end)
                raise
            state = os.fstat(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)
        self._file = (state.st_dev, state.st_ino)
        for line in lines:
            self._take_in(line)


def _line(result):
    text = json.dumps(result.as_dict()).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _parse(line):
    """The JSON of a line; None for a line that is not as it was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    return json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None


def _write(file, data):
    """Writes all of it: the system may take a part at a time, and says that the disk is full at the next."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _sync_folder(folder):
    """A new file is there after a power cut only when its folder is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
