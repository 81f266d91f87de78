"""What the student's child does to itself before it reads a submission: it gives up what it does not need.

The zygote forks it by `fork`, and the first thing that the child calls is `confine`. At tier 3 the child has
namespaces of its own: its processes, its files in memory, and all shared memory go when it goes. At tier 2
Landlock, which the zygote has put on itself, says what can be opened; see sandbox.py.
"""

import contextlib
import ctypes
import os
import resource

from autograder import landlock, linux, seccomp

WORK = "/tmp"  # at tier 3: where the student's code may write, in memory
MOST_FILES = 4096
MOST_THREADS = 32


def require_one_thread() -> None:
    """Raises RuntimeError where this process has more threads than one: a child's arithmetic would hang."""
    count = len(os.listdir("/proc/self/task"))
    if count != 1:
        raise RuntimeError(f"A process that forks must have one thread, and this one has {count}.")


def memory_taken() -> int:
    """The bytes of address space that this process has: libraries take gigabytes that cost nothing."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def fork(tier: int) -> int:
    """As os.fork. At tier 3 the child is the first process of namespaces of its own."""
    if tier < 3:
        return os.fork()
    user, group = os.getuid(), os.getgid()
    spaces = linux.NEW_USERS | linux.NEW_PROCESSES | linux.NEW_MOUNTS | linux.NEW_IPC
    child = linux.fork_into(spaces)
    if child == 0:
        _map_to_oneself(user, group)
    return child


def _map_to_oneself(user, group):
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        file = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(file, text.encode())
        os.close(file)


def confine(settings: dict) -> None:
    """Takes this process's rights, for good. settings: tier, work, and limits; see sandbox.Limits."""
    limits = settings["limits"]
    if settings["tier"] == 3:
        _own_files(limits["disk"])
    os.chdir(settings["work"])
    _limit(limits)
    if settings["tier"] == 3:  # counted in its own user namespace; elsewhere it counts all that the user runs
        resource.setrlimit(resource.RLIMIT_NPROC, (MOST_THREADS, MOST_THREADS))
    if settings["tier"] >= 2:
        with contextlib.suppress(OSError):  # nothing to give up
            linux.drop_capabilities()
        if settings["tier"] == 2:
            _one_thread()
        seccomp.restrict(threads=settings["tier"] == 3)


def _one_thread():
    """OpenMP, whose threads torch asks for, ends the program where it gets none: it is told to make none."""
    openmp = getattr(ctypes.CDLL(None), "omp_set_max_active_levels", None)
    if openmp is not None:
        openmp(0)


def _own_files(size):
    """An empty folder in memory to write in; /proc, with what it tells of others, is covered up."""
    linux.mount("none", "/", None, linux.RECURSIVE | linux.PRIVATE)
    plain = linux.NO_SETUID | linux.NO_DEVICES
    linux.mount("none", WORK, "tmpfs", plain, f"size={size},nr_inodes={MOST_FILES},mode=700")
    linux.mount("none", "/proc", "tmpfs", plain | linux.READ_ONLY | linux.NO_EXEC, "size=0,nr_inodes=1")


def _limit(limits):
    for what, most in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        with contextlib.suppress(ValueError):  # a lower hard limit is there already
            resource.setrlimit(what, (most, most))


def restrict_files(to_read: list[str], work: str) -> None:
    """At tier 2, in the zygote: nothing but these folders can be opened, and only `work` written in."""
    linux.drop_capabilities()
    rules = dict.fromkeys(to_read, landlock.TO_READ)
    landlock.restrict(rules | {work: landlock.TO_WRITE, "/dev/null": landlock.READ | landlock.WRITE})
