"""The global random states of Python, NumPy and PyTorch, of whichever are loaded: seeded, read, restored.

Every call of a student's function begins from states that are looked at, sent and put back. The functions
that the libraries have for that take a hundred microseconds together, to copy the same memory takes five.
"""

import ctypes
import hashlib
import random
import struct
import sys

import numpy as np

_KEY = 625 * 4  # bytes of a Mersenne twister: its key and its position
_SPARE = struct.Struct("@id")  # NumPy's spare normal: whether there is one, and which

_PYTHON = random._inst  # whose methods random.random and the others are
_NUMPY = np.random.mtrand  # whose _rand np.random.random and the others are methods of


def _twister_of_python() -> int | None:
    """Where CPython keeps the state of `random`: position, then key. None where it is laid out otherwise."""
    if type(_PYTHON).__basicsize__ < object.__basicsize__ + _KEY:
        return None
    address = id(_PYTHON) + object.__basicsize__
    position, *key = np.frombuffer(ctypes.string_at(address, _KEY), np.uint32).tolist()
    return address if (*key, position) == random.getstate()[1] else None


def _spare_of_numpy() -> int | None:
    """How far inside a RandomState its spare normal is. None where it is laid out otherwise."""
    tried = np.random.RandomState(0)
    address, size = id(tried), type(tried).__basicsize__
    without, _ = ctypes.string_at(address, size), tried.standard_normal()
    spare = tried.get_state()[3:]
    place = ctypes.string_at(address, size).find(_SPARE.pack(*spare))
    return place if place >= 0 and _SPARE.unpack_from(without, place)[0] == 0 else None


_TWISTER, _BEFORE_SPARE = _twister_of_python(), _spare_of_numpy()


def seed(text: str) -> None:
    """Seeds all of them; the same text gives the same draws."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch:
        torch.manual_seed(number)


def snapshot() -> tuple:
    """The states, as plain values of the wire. Two are equal unless something was drawn in between."""
    torch = sys.modules.get("torch")
    return _python(), _numpy(), torch.get_rng_state().numpy().tobytes() if torch else None


def restore(states: tuple) -> None:
    """Puts a snapshot back. Only for snapshots of one's own side: the states are not checked."""
    python, numpy, tensors = states
    _restore_python(python)
    _restore_numpy(numpy)
    torch = sys.modules.get("torch")
    if torch and tensors is not None:
        torch.set_rng_state(torch.frombuffer(bytearray(tensors), dtype=torch.uint8))


def advance() -> None:
    """Draws a little from each: the states are then not what they were."""
    random.random()
    np.random.random()  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch:
        torch.rand(1)


def _python() -> tuple:
    return (ctypes.string_at(_TWISTER, _KEY), _PYTHON.gauss_next) if _TWISTER else random.getstate()


def _restore_python(state):
    if _TWISTER:
        twister, _PYTHON.gauss_next = state
        ctypes.memmove(_TWISTER, twister, _KEY)
    else:
        random.setstate(state)


def _numpy() -> tuple | None:
    """None where somebody has set another generator, which is left alone."""
    generator = _NUMPY._rand
    bits = generator._bit_generator
    if type(bits) is not np.random.MT19937:
        return None
    if _BEFORE_SPARE is None:
        _, key, *rest = generator.get_state()
        return key.tobytes(), *rest
    spare = ctypes.string_at(id(generator) + _BEFORE_SPARE, _SPARE.size)
    return ctypes.string_at(bits.ctypes.state_address, _KEY), spare


def _restore_numpy(state):
    generator = _NUMPY._rand
    bits = generator._bit_generator
    if type(bits) is not np.random.MT19937 or state is None:
        return
    key, *rest = state
    if _BEFORE_SPARE is None:
        generator.set_state(("MT19937", np.frombuffer(key, np.uint32), *rest))
    else:
        ctypes.memmove(bits.ctypes.state_address, key, _KEY)
        ctypes.memmove(id(generator) + _BEFORE_SPARE, *rest, _SPARE.size)
