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


def _function(name, *arguments):
    """Of the C library: found, with its types, before a child needs it, which would pay for each page.

    None on another system than Linux, which has not all of them.
    """
    function = getattr(_libc, name, None)
    if function is not None:
        function.argtypes = arguments
    return function


_WORD, _TEXT, _ADDRESS = ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p
_prctl = _function("prctl", ctypes.c_int, _WORD, _WORD, _WORD, _WORD)
_unshare = _function("unshare", ctypes.c_int)
_mount = _function("mount", _TEXT, _TEXT, _TEXT, _WORD, _TEXT)
_capset = _function("capset", _ADDRESS, _ADDRESS)
_syscall = _function("syscall", ctypes.c_long, _WORD, _WORD, _WORD, _WORD, _WORD)
_CAPABILITIES_OF_ONESELF = (ctypes.c_uint32 * 2)(0x20080522, 0)
_NONE = (ctypes.c_uint32 * 6)()
_ZEROS = (0, 0, 0, 0)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), with zeros for the arguments that are not given. Raises OSError."""
    return _check(_prctl(option, *arguments, *_ZEROS[len(arguments) :]))


def no_new_privileges() -> None:
    prctl(_SET_NO_NEW_PRIVILEGES, 1)


def not_dumpable() -> None:
    """Nobody but root may look into this process, through /proc or by ptrace."""
    prctl(_SET_DUMPABLE, 0)


def end_with_parent() -> None:
    """This process is killed when the one that forked it ends."""
    prctl(_END_WITH_PARENT, signal.SIGKILL)


def fork_into(namespaces: int) -> int:
    """As os.fork, with a child in new namespaces of its own. One thread only. Raises OSError.

    What Python does in a child for the locks and threads of others has nothing to do there, and is left out.
    """
    return _check(_syscall(_CLONE[platform.machine()], namespaces | signal.SIGCHLD, *_ZEROS))


def unshare(namespaces: int) -> None:
    _check(_unshare(namespaces))


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    _check(_mount(source.encode(), target.encode(), kind and kind.encode(), flags, data.encode()))


def drop_capabilities() -> None:
    """Gives up all rights beyond those of the user that one is. Raises OSError."""
    for capability in range(64):
        if _prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) < 0:
            break  # beyond the last that this kernel has, or there was none to drop
    _check(_capset(_CAPABILITIES_OF_ONESELF, _NONE))
