"""The few system calls of Linux that Python has no function for, by way of the C library."""

import ctypes
import os
import platform
import signal

NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_PROCESSES = 0x20000, 0x08000000, 0x10000000, 0x20000000
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18

_CLONE = {"x86_64": 56, "aarch64": 220}
_END_WITH_PARENT = 1
_SET_NO_NEW_PRIVILEGES, _SET_DUMPABLE, _DROP_FROM_BOUNDING_SET = 38, 4, 24

# PyDLL keeps the interpreter's lock, which a child must find held by its only thread.
_libc = ctypes.PyDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), with zeros for the arguments that are not given. Raises OSError."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    return _check(_libc.prctl(option, *map(ctypes.c_ulong, padded)))


def no_new_privileges() -> None:
    prctl(_SET_NO_NEW_PRIVILEGES, 1)


def not_dumpable() -> None:
    """Nobody but root may look into this process, through /proc or by ptrace."""
    prctl(_SET_DUMPABLE, 0)


def end_with_parent() -> None:
    """This process is killed when the one that forked it ends."""
    prctl(_END_WITH_PARENT, signal.SIGKILL)


def fork_into(namespaces: int) -> int:
    """As os.fork, with a child in new namespaces of its own. One thread only. Raises OSError."""
    flags = ctypes.c_ulong(namespaces | signal.SIGCHLD)
    zero = ctypes.c_ulong(0)
    child = _check(_libc.syscall(ctypes.c_long(_CLONE[platform.machine()]), flags, zero, zero, zero, zero))
    if child == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return child


def unshare(namespaces: int) -> None:
    _check(_libc.unshare(namespaces))


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    kind = kind and kind.encode()
    _check(_libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), data.encode()))


def drop_capabilities() -> None:
    """Gives up all rights beyond those of the user that one is. Raises OSError."""
    zero = ctypes.c_ulong(0)
    for capability in range(64):
        if _libc.prctl(_DROP_FROM_BOUNDING_SET, ctypes.c_ulong(capability), zero, zero, zero) < 0:
            break  # beyond the last that this kernel has, or there was none to drop
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))
