"""The global random states of Python, NumPy and PyTorch, of whichever are loaded: seeded, read, restored."""

import ctypes
import hashlib
import random
import sys

import numpy as np

_KEY = 625 * 4  # bytes of a Mersenne twister: its key and its position


_PYTHON = random._inst  # whose methods random.random and the others are


def _twister_of_python() -> int | None:
    """Where CPython keeps the state of `random`: position, then key. None where it is laid out otherwise.

    random.getstate takes ten microseconds, to look there takes less than one.
    """
    if type(_PYTHON).__basicsize__ < object.__basicsize__ + _KEY:
        return None
    address = id(_PYTHON) + object.__basicsize__
    position, *key = np.frombuffer(ctypes.string_at(address, _KEY), np.uint32).tolist()
    return address if (*key, position) == random.getstate()[1] else None


_TWISTER = _twister_of_python()


def seed(text: str) -> None:
    """Seeds all of them; the same text gives the same draws."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch:
        torch.manual_seed(number)


def fingerprint() -> tuple:
    """Something that differs whenever something was drawn or restored in between."""
    torch = sys.modules.get("torch")
    twister = np.random.mtrand._rand._bit_generator.ctypes.state_address
    return (
        (ctypes.string_at(_TWISTER, _KEY), _PYTHON.gauss_next) if _TWISTER else random.getstate(),
        ctypes.string_at(twister, _KEY),
        torch.get_rng_state().numpy().tobytes() if torch else b"",
    )


def snapshot() -> dict:
    """The states as plain values of the wire."""
    version, key, gauss = random.getstate()
    name, twister, *rest = np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    return {
        "random": [version, np.array(key, np.uint32), gauss],
        "numpy": [name, twister, *rest],
        "torch": torch.get_rng_state() if torch else None,
    }


def restore(states: dict) -> None:
    """Puts a snapshot back. Only for snapshots of one's own side: the states are not checked."""
    version, key, gauss = states["random"]
    random.setstate((version, tuple(key.tolist()), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch and states["torch"] is not None:
        torch.set_rng_state(states["torch"])


def advance() -> None:
    """Draws a little from each: the states are then not what they were."""
    random.random()
    np.random.random()  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch:
        torch.rand(1)
