"""The files in an LMS's zip or in a folder: their names, times and bytes, and why one is not to be read.

Nothing is unpacked: whoever wants a file's bytes gets them, up to a limit, and writes them where they belong.
"""

import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from autograder.course import CourseError
from autograder.submission import LARGEST

JUNK = {"__MACOSX", ".ipynb_checkpoints", "__pycache__", ".DS_Store", "Thumbs.db"}


@dataclass
class File:
    """A file in the zip or the folder. `read` gives its bytes; `trouble` is why it is not to be read."""

    parts: tuple[str, ...]
    time: datetime
    size: int
    read: Callable[[], bytes]
    trouble: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.parts)

    @property
    def is_junk(self) -> bool:
        """Whether it is what systems and editors leave behind."""
        return bool(JUNK & set(self.parts)) or self.parts[-1].startswith(".")


def files(source: Path, into: Path) -> Iterator[File]:
    """The files in a zip or a folder, by name.

    Raises CourseError when the source is neither, when a zip is damaged, and when what is in it would not fit
    on the disk that holds `into`.
    """
    if source.is_dir():
        return _in_folder(source)
    if not source.is_file():
        raise CourseError(f"{source} is not there: give the LMS's zip, or a folder.")
    if source.suffix.lower() == ".ipynb":
        raise CourseError(
            f"{source} is one notebook: put it in a folder as STUDENT/{source.name}, and collect that."
        )
    if not zipfile.is_zipfile(source):
        raise CourseError(f"{source} is neither a folder nor a zip. Unpack it, and collect the folder.")
    return _in_zip(source, into)


def _in_folder(source):
    for path in sorted(source.rglob("*")):
        trouble = "a link, which may point anywhere" if path.is_symlink() else ""
        if path.is_dir() and not trouble:
            continue
        state = path.lstat()
        if not trouble and not stat.S_ISREG(state.st_mode):
            trouble = "not a plain file"
        time = datetime.fromtimestamp(state.st_mtime, UTC)
        yield File(
            path.relative_to(source).parts,
            time,
            state.st_size,
            path.read_bytes,
            _large(state.st_size, trouble),
        )


def _in_zip(source, into):
    try:
        with zipfile.ZipFile(source) as archive:
            entries = sorted(archive.infolist(), key=lambda info: info.filename)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CourseError(f"{source} cannot be read: {error}. Download it again.") from None
    _require_space(source, entries, into)
    for info in entries:
        if not info.is_dir():
            yield File(
                PurePosixPath(info.filename).parts or ("?",),
                _zip_time(info),
                info.file_size,
                _reader(source, info),
                _large(info.file_size, _zip_trouble(info)),
            )


def _require_space(source, entries, into):
    """A zip of some megabytes can hold petabytes, each of its files below the limit."""
    whole = sum(info.file_size for info in entries if info.file_size <= LARGEST)
    free = shutil.disk_usage(into).free
    if whole > free:
        raise CourseError(
            f"{source} would unpack to {whole / 2**30:,.1f} GB, and {into} has {free / 2**30:,.1f} GB free."
            " If that is what the class handed in, make room; else look who handed in the large files."
        )


def _reader(source, info):
    def read():
        with zipfile.ZipFile(source) as archive, archive.open(info) as member:
            return member.read(LARGEST + 1)

    return read


def _zip_time(info):
    try:
        return datetime(*info.date_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)


def _zip_trouble(info):
    name = info.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "its path leads out of the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which may point anywhere"
    return "it is encrypted" if info.flag_bits & 1 else ""


def _large(size, trouble):
    if trouble or size <= LARGEST:
        return trouble
    return f"it has {size / 2**20:.0f} MB, more than {LARGEST // 2**20} MB; ask for it without outputs"
