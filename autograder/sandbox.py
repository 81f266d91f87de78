"""Starts a student's zygote where it can see and do as little as this machine makes possible.

Tier 3: bubblewrap, under a user who has no rights: namespaces of its own, no network, and of the files only
the Python installation and a folder with those modules that the lesson's students may see. Each submission
then gets further namespaces, a folder in memory, seccomp and limits (confine.py). Tier 2: Landlock in the
place of namespaces. Tier 0: nothing but limits.
"""

import compileall
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import autograder
import flowkit
from autograder import linux

VISIBLE = (
    "__init__",
    "answers/__init__",
    "cells",
    "check",
    "compare",
    "confine",
    "diagnosis",
    "draws",
    "foreign",
    "landlock",
    "linux",
    "rules",
    "seccomp",
    "student",
    "wire",
)  # modules of autograder that are in the sandbox: no answers
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
INSIDE = "/course"  # where the visible modules are, at tier 3
READY_WITHIN = 120  # seconds
# For both zygotes: one thread, and memory that is used again rather than given back and asked for anew.
PROCESS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    "MPLBACKEND": "agg",
}


@dataclass(frozen=True)
class Limits:
    """What one submission may take. memory is on top of what the libraries take; sizes are bytes."""

    memory: int = 2 * 2**30
    cpu: int = 600
    disk: int = 64 * 2**20
    file: int = 32 * 2**20
    files: int = 64


class SandboxError(Exception):
    """The zygote did not start. The text says what it said."""


def visible_modules(folder: Path, withheld: tuple[str, ...]) -> Path:
    """Copies into `folder` those modules that a student's code may import, and gives the folder."""
    ours = Path(autograder.__file__).parent
    for name in VISIBLE:
        copy = folder / "autograder" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ours / f"{name}.py", copy)
    shutil.copytree(
        Path(flowkit.__file__).parent,
        folder / "flowkit",
        ignore=lambda at, names: _left_out(Path(at), names, withheld),
    )
    compileall.compile_dir(folder, quiet=2)  # a zygote that compiled would have holes all over its memory
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _left_out(at, names, withheld):
    of_the_lesson = [n for n in names if at.name == "flowkit" and n.removesuffix(".py") in withheld]
    return {"__pycache__", *of_the_lesson}


class Zygote:
    """A student's zygote, started at one of the tiers; `start` gives a new student's process.

    A process may get ready while another is at work, but one at a time runs a student's code. Raises
    SandboxError.
    """

    def __init__(self, tier: int, withheld: tuple[str, ...], modules: list[str], limits: Limits):
        self.tier = tier
        self.folder = tempfile.TemporaryDirectory(prefix="autograder-")
        root = Path(self.folder.name)
        root.chmod(0o755)
        code = visible_modules(root / "code", withheld)
        work = root / "work"
        work.mkdir()
        self.control, far = socket.socketpair()
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115
        command, environment, prepare = self._command(far.fileno(), code, work, modules, limits)
        with far:
            self.process = self._started(command, environment, prepare, far)
        self.control.settimeout(READY_WITHIN)
        try:
            self._read(1)
        except SandboxError:
            self.close()
            raise

    def _started(self, command, environment, prepare, far):
        try:
            return subprocess.Popen(
                command,
                env=environment,
                pass_fds=(far.fileno(),),
                preexec_fn=prepare,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                cwd="/",
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.folder.cleanup()
            why = "root may not make mount namespaces, or not become another user" if prepare else error
            raise SandboxError(f"The sandbox (tier {self.tier}) did not start: {why}.") from None

    def start(self) -> "Started":
        """A new student's process, which gets ready by itself."""
        near, far = socket.socketpair()
        line, its_line = socket.socketpair()
        with far, its_line:
            try:
                socket.send_fds(self.control, [b"S"], [far.fileno(), its_line.fileno()])
            except OSError:
                raise SandboxError(f"The sandbox (tier {self.tier}) has ended. {self._said()}") from None
        line.settimeout(READY_WITHIN)
        work = Path(self.folder.name) / "work" if self.tier < 3 else None
        return Started(near, line, work)

    def require_alive(self) -> None:
        """Raises SandboxError where the zygote has ended."""
        if self.process.poll() is not None:
            raise SandboxError(f"The sandbox (tier {self.tier}) has ended. {self._said()}")

    def close(self) -> None:
        """Ends the zygote, and whatever it has started."""
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.complaints.close()
        self.folder.cleanup()

    def _read(self, size):
        data = b""
        while len(data) < size:
            try:
                part = self.control.recv(size - len(data))
            except OSError:
                part = b""
            if not part:
                raise SandboxError(
                    f"The sandbox (tier {self.tier}) did not start or has ended. {self._said()}"
                )
            data += part
        return data

    def _said(self):
        self.complaints.seek(0)
        return self.complaints.read()[-2000:].decode(errors="replace").strip()

    def _command(self, descriptor, code, work, modules, limits):
        settings = {"tier": self.tier, "modules": modules, "limits": asdict(limits)}
        settings |= {"work": "/tmp" if self.tier == 3 else str(work), "read": None}
        python = [sys.executable, "-m", "autograder.student", str(descriptor)]
        if self.tier == 3:
            places = {str(path): str(path) for path in _installation()}
            wrapped = _bubblewrap(places | {str(code): INSIDE}, _masks(code))
            user = _nobody() if os.getuid() == 0 else None
            prepare = None
            if user:
                wrapped, prepare = _as_nobody(user, places | {str(code): INSIDE}, _masks(code), work)
            return [*wrapped, *python, json.dumps(settings)], _environment(INSIDE, "/tmp"), prepare
        if self.tier == 2:
            settings["read"] = [*_readable(code), str(code), *DEVICES]
        return [*python, json.dumps(settings)], _environment(str(code), str(work)), None


@dataclass
class Started:
    """A student's process. pipe: the connection to it; line: it lives as long as somebody holds this.

    work: the folder that it writes in, where it is not in memory of its own.
    """

    pipe: socket.socket
    line: socket.socket
    work: Path | None

    def end(self) -> int:
        """Kills it, and gives its wait status when nothing of it is left. Raises SandboxError."""
        try:
            self.line.sendall(b"E")
            status = self.line.recv(4, socket.MSG_WAITALL)
        except OSError:
            status = b""
        self.let_go()
        if len(status) < 4:
            raise SandboxError("The sandbox has ended.")
        if self.work is not None:
            _clear(self.work)
        return int.from_bytes(status, "little", signed=True)

    def let_go(self) -> None:
        """Closes this side. Where nobody else holds the process, its zygote kills it."""
        self.line.close()  # first: a process that is killed does not spend time on the end of its pipe
        self.pipe.close()


def _environment(code, work):
    return PROCESS | {
        "PATH": "/usr/bin:/bin",
        "HOME": work,
        "TMPDIR": work,
        "MPLCONFIGDIR": work,
        "IPYTHONDIR": work,
        "PYTHONPATH": code,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def _installation():
    """The folders of this Python and of its libraries, and of the system, that are there."""
    wanted = [Path(sys.base_prefix), Path(sys.prefix), *map(Path, SYSTEM)]
    found = list(dict.fromkeys(path for path in wanted if path.exists()))
    real = [path for path in found if not any(other in path.parents for other in found)]
    return [path for path in real if path != Path("/")]


def _masks(code):
    """Our own packages, where they are installed among the others: they are covered up."""
    packages = [Path(module.__file__).resolve().parent for module in (autograder, flowkit)]
    inside = [p for p in packages if any(root in p.parents for root in _installation())]
    return [str(path) for path in inside]


def _readable(code):
    """For Landlock, which cannot take away again: the installation without our own packages."""
    masked = [Path(path) for path in _masks(code)]
    pending, readable = list(_installation()), []
    while pending:
        path = pending.pop()
        if path in masked:
            continue
        if any(path in mask.parents for mask in masked):
            pending += list(path.iterdir())
        else:
            readable.append(str(path))
    return readable


def _bubblewrap(places, masks):
    """The command, up to the program: `places` read-only, each under its name inside, and nothing else."""
    words = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-ipc", "--unshare-pid"]
    words += ["--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    words += ["--hostname", "grading", "--proc", "/proc", "--tmpfs", "/tmp"]
    for source, inside in places.items():
        path = Path(inside)
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), inside]
        else:
            words += ["--ro-bind", source, inside]
    for device in DEVICES:
        words += ["--dev-bind", device, device]
    for mask in masks:
        words += ["--tmpfs", mask, "--remount-ro", mask]
    return [*words, "--chdir", "/tmp", "--remount-ro", "/", "--"]


def _nobody():
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return None


def _as_nobody(user, places, masks, work):
    """The command, and what the child does before it: root shows the folders to a user without rights.

    Folders that only root may enter are mounted where that user can reach them, in a mount namespace that
    goes with the child.
    """
    staged = {str(work / str(n)): (source, inside) for n, (source, inside) in enumerate(places.items())}

    def prepare():
        linux.unshare(linux.NEW_MOUNTS)
        linux.mount("none", "/", None, linux.RECURSIVE | linux.PRIVATE)
        linux.mount("none", str(work), "tmpfs", 0, "mode=755")
        for stage, (source, _) in staged.items():
            if os.path.isdir(source):
                os.mkdir(stage)
            else:
                open(stage, "w").close()
            linux.mount(source, stage, None, linux.BIND | linux.RECURSIVE)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return _bubblewrap({stage: inside for stage, (_, inside) in staged.items()}, masks), prepare


def _clear(folder):
    """Removes what a submission left. There are no folders in it: Landlock lets nobody make one."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
