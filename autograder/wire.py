"""What the two processes of the grading engine say to each other: JSON and raw buffers, never pickle.

A message is a fixed prefix, a JSON header and a body, which holds the bytes of all arrays one after another:

    b"NFW1"  header's length (u32)  body's length (u64)  header  body

Values have exact types: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, NumPy
arrays and scalars, and tensors, of the dtypes listed here. Everything else is opaque: the caller says how it
is named (`opaque`), and what to make of a name (`known`). Whatever arrives is checked against the caps before
anything is made of it, and nothing is allocated that was not sent. All faults are a WireError.
"""

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"NFW1"
PREFIX = struct.Struct("<4sIQ")
MOST_HEADER = 32 * 2**20  # bytes
MOST_BODY = 512 * 2**20  # bytes
MOST_DEPTH = 50
MOST_PARTS = 500_000  # values in a message, those inside others included
MOST_AXES = 32
MOST_DIGITS = 3000  # of a whole number, in hexadecimal: what Python still prints
CHUNK = 2**18  # bytes that are read at once
LARGE = 2**12  # bytes from which an array is not copied once more

NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = {*NUMBERS, "float16", "float32", "float64", "complex64", "complex128"}
TENSORS = (DTYPES - {"uint16", "uint32", "uint64"}) | {"bfloat16"}
SIZES = {name: np.dtype(name).itemsize for name in DTYPES} | {"bfloat16": 2}
NAMES = {np.dtype(name): name for name in DTYPES}  # a dtype's own .name is slow
SMALL = 2**63  # ints below it stand in the JSON as they are


def _refuse(word):
    raise ValueError(f"{word} is no number")


_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_DECODE = json.JSONDecoder(parse_constant=_refuse).decode


class WireError(Exception):
    """A message that cannot be read, or a value that cannot be sent. The text says why."""


def pack(value: Any, opaque: Callable[[Any], Any] | None = None) -> bytes:
    """The message for a value. opaque(object) names what has no type of its own here, as a plain value.

    Raises WireError for an opaque value without `opaque`, and beyond the caps.
    """
    return b"".join(_parts(value, opaque))


def is_packed(message: bytes, value: Any, opaque: Callable[[Any], Any] | None = None) -> bool:
    """Whether `message` is what `pack` gives for the value, found out without a copy. Raises as `pack`."""
    place = 0
    for part in _parts(value, opaque):
        if not message.startswith(part, place):
            return False
        place += len(part)
    return place == len(message)


def unpack(message: bytes | bytearray, known: Callable[[Any], Any] | None = None) -> Any:
    """The value of a whole message. known(name) makes something of an opaque value. Raises WireError."""
    if len(message) < PREFIX.size:
        raise WireError("The message breaks off in its prefix.")
    header, body = _lengths(message[: PREFIX.size])
    if len(message) != PREFIX.size + header + body:
        raise WireError("The message has not the length that it says.")
    return _parse(message, header, known)


def send(pipe: socket.socket, message: bytes, deadline: float | None = None) -> None:
    """Sends a whole message. Raises WireError when the other side is gone, TimeoutError at the deadline."""
    _until(pipe, deadline)
    try:
        pipe.sendall(message)
    except TimeoutError:
        raise
    except OSError as error:
        raise WireError(f"The other side is gone: {error.strerror}.") from None


def receive(pipe: socket.socket, deadline: float | None = None, most: int = MOST_BODY) -> bytearray:
    """A whole message, of at most `most` bytes. deadline: of time.monotonic, for all of it.

    Raises WireError for a wrong prefix and at the end of the stream, and TimeoutError at the deadline.
    """
    message = bytearray()
    _fill(message, pipe, PREFIX.size, deadline)
    header, body = _lengths(message)
    if header + body > most:
        raise WireError(f"A message of {(header + body) / 2**20:.0f} MB is larger than agreed.")
    _fill(message, pipe, PREFIX.size + header + body, deadline)
    return message


def _until(pipe, deadline):
    pipe.settimeout(None if deadline is None else max(1e-3, deadline - time.monotonic()))


def _fill(data, pipe, size, deadline):
    """Reads until there are `size` bytes. The buffer grows with what arrives, not with what was announced."""
    arrived = memoryview(bytearray(min(CHUNK, size - len(data))))
    while len(data) < size:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        _until(pipe, deadline)
        try:
            count = pipe.recv_into(arrived, min(CHUNK, size - len(data)))
        except TimeoutError:
            raise
        except OSError as error:
            raise WireError(f"The other side is gone: {error.strerror}.") from None
        if not count:
            raise WireError("The other side is gone.")
        data += arrived[:count]


def _lengths(prefix):
    magic, header, body = PREFIX.unpack(prefix)
    if magic != MAGIC or header > MOST_HEADER or body > MOST_BODY:
        raise WireError("This is no message.")
    return header, body


# Writing. A part is plain JSON, or a list that begins with a letter.


def _parts(value, opaque):
    """What a message is made of: prefix, header, and the buffers, arrays of the caller's among them."""
    writer = _Writer(opaque)
    try:
        header = _ENCODE(writer.plain(value, 0)).encode()
    except (ValueError, RecursionError) as error:  # a lone surrogate in a string, for one
        raise WireError(f"It cannot be sent: {error}") from None
    size = sum(map(len, writer.buffers))
    if len(header) > MOST_HEADER or size > MOST_BODY:
        raise WireError(f"It is too large to be sent: {(len(header) + size) / 2**20:.0f} MB.")
    return [PREFIX.pack(MAGIC, len(header), size), header, *writer.buffers]


class _Writer:
    def __init__(self, opaque):
        self.opaque = opaque
        self.buffers = []
        self.parts = 0
        self.torch = sys.modules.get("torch")

    def inside(self, values, depth):
        """The parts of what is inside something at this depth."""
        self.parts += len(values)
        if depth >= MOST_DEPTH or self.parts > MOST_PARTS:
            raise WireError("It is nested too deeply, or has too many parts, to be sent.")
        return [v if type(v) in AS_THEY_ARE else self.plain(v, depth + 1) for v in values]

    def plain(self, value, depth):
        kind = type(value)
        if kind in AS_THEY_ARE:
            return value
        if kind is int:
            return value if -SMALL < value < SMALL else self.integer(value)
        if kind is float:
            return value if math.isfinite(value) else ["f", str(value)]
        if kind is np.ndarray and value.dtype in NAMES:
            return ["a", NAMES[value.dtype], list(value.shape), self.buffer(_bytes_of(value))]
        if self.torch is not None and kind is self.torch.Tensor:
            return self.tensor(value, depth)
        if kind in LETTERS:
            return [LETTERS[kind], *self.inside(value, depth)]
        if kind is dict:
            return ["d", *self.inside([part for pair in value.items() for part in pair], depth)]
        if kind is bytes:
            return ["b", self.buffer(value)]
        if kind is complex:
            return ["c", *self.inside((value.real, value.imag), depth)]
        if isinstance(value, np.generic) and value.dtype in NAMES:
            return ["g", NAMES[value.dtype], self.buffer(value.tobytes())]
        return self.named(value, depth)

    def integer(self, value):
        if value.bit_length() > 4 * (MOST_DIGITS - 3):
            raise WireError("A whole number has too many digits.")
        return ["i", hex(value)]

    def tensor(self, value, depth):
        name = str(value.dtype).removeprefix("torch.")
        torch = self.torch
        is_array = value.layout is torch.strided and not value.is_nested
        if name not in TENSORS or not is_array or value.device.type != "cpu":
            return self.named(value, depth)
        numbers = value.detach().resolve_conj().resolve_neg()
        if name == "bfloat16":
            numbers = numbers.contiguous().view(torch.int16)
        data = _bytes_of(numbers.numpy())
        return ["t", name, list(value.shape), self.buffer(data), value.requires_grad]

    def named(self, value, depth):
        if self.opaque is None:
            raise WireError(f"A {type(value).__name__} cannot be sent.")
        return ["o", *self.inside((self.opaque(value),), depth)]

    def buffer(self, data):
        self.buffers.append(data)
        return len(data)


def _bytes_of(array):
    """Its bytes; of a large array that is contiguous, no copy."""
    if array.nbytes > MOST_BODY:  # without as much memory: one number may be broadcast
        raise WireError(f"It is too large to be sent: {array.nbytes / 2**20:.0f} MB.")
    if array.nbytes < LARGE or not array.flags.c_contiguous:
        return array.tobytes()
    return memoryview(array.reshape(-1).view(np.uint8))


LETTERS = {list: "l", tuple: "u", set: "s", frozenset: "z"}
AS_THEY_ARE = {type(None), bool, str}


# Reading.


def _parse(message, header, known):
    try:
        tree = _DECODE(message[PREFIX.size : PREFIX.size + header].decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"The header is not JSON: {error}") from None
    reader = _Reader(message, PREFIX.size + header, known)
    value = reader.value(tree, 0)
    if reader.place != len(message):
        raise WireError("The body is longer than the header says.")
    return value


class _Reader:
    """Reads the parts of a header; `place` is where the next buffer begins."""

    def __init__(self, message, place, known):
        self.message, self.place, self.known = message, place, known
        self.parts = 0

    def inside(self, parts, depth):
        """The values of what is inside something at this depth."""
        self.parts += len(parts)
        if depth >= MOST_DEPTH or self.parts > MOST_PARTS:
            raise WireError("It is nested too deeply, or has too many parts.")
        return [part if type(part) in PLAIN else self.value(part, depth + 1) for part in parts]

    def value(self, tree, depth):
        if type(tree) in PLAIN:
            return tree
        if type(tree) is not list or not tree or type(tree[0]) is not str:
            raise WireError("The header holds what is no value.")
        read = READERS.get(tree[0])
        if read is None:
            raise WireError(f"No value begins with {tree[0]!r:.20}.")
        try:
            return read(self, tree[1:], depth)
        except _MALFORMED as error:
            raise WireError(f"A value of kind {tree[0]} is malformed: {error}") from None

    def dictionary(self, parts, depth):
        if len(parts) % 2:
            raise WireError("A dictionary has a key without a value.")
        inside = self.inside(parts, depth)
        return dict(zip(inside[::2], inside[1::2], strict=True))

    def integer(self, parts, depth):
        (text,) = parts
        if type(text) is not str or len(text) > MOST_DIGITS:
            raise WireError("This is no whole number.")
        return int(text, 16)

    def special(self, parts, depth):
        (text,) = parts
        if text not in ("nan", "inf", "-inf"):
            raise WireError("This is no number.")
        return float(text)

    def complex(self, parts, depth):
        real, imaginary = self.inside(parts, depth)
        if type(real) is not float or type(imaginary) is not float:
            raise WireError("This is no complex number.")
        return complex(real, imaginary)

    def scalar(self, parts, depth):
        name, size = parts
        return self.numbers(name, DTYPES, [], size)[()]

    def array(self, parts, depth):
        name, shape, size = parts
        return self.numbers(name, DTYPES, shape, size)

    def tensor(self, parts, depth):
        import torch

        name, shape, size, wants_gradient = parts
        if name == "bfloat16":
            value = torch.from_numpy(self.numbers(name, TENSORS, shape, size)).view(torch.bfloat16)
        else:
            value = torch.from_numpy(self.numbers(name, TENSORS, shape, size))
        if type(wants_gradient) is not bool:
            raise WireError("This is no tensor.")
        return value.requires_grad_(wants_gradient)

    def numbers(self, name, dtypes, shape, size):
        if type(name) is not str or name not in dtypes or type(shape) is not list or len(shape) > MOST_AXES:
            raise WireError("This is no array.")
        if not all(type(n) is int and n >= 0 for n in shape) or type(size) is not int:
            raise WireError("This is no array.")
        count = math.prod(shape)
        if count * SIZES[name] != size:
            raise WireError("An array has not the size that its shape says.")
        dtype = "int16" if name == "bfloat16" else name
        start = self.skip(size)
        if name == "bool" and np.frombuffer(self.message, np.uint8, size, start).max(initial=0) > 1:
            raise WireError("A boolean is neither 0 nor 1.")
        return np.frombuffer(self.message, dtype, count, start).reshape(shape).copy()

    def bytes(self, parts, depth):
        (size,) = parts
        start = self.skip(size)
        return bytes(memoryview(self.message)[start : start + size])

    def skip(self, size):
        """Where a buffer of that size begins. The place moves on behind it."""
        start = self.place
        if type(size) is not int or not 0 <= size <= len(self.message) - start:
            raise WireError("The body is shorter than the header says.")
        self.place += size
        return start

    def opaque(self, parts, depth):
        (name,) = self.inside(parts, depth)
        if self.known is None:
            raise WireError("An opaque value came where none is known.")
        return self.known(name)


PLAIN = {*AS_THEY_ARE, int, float}
# Too few parts, unhashable keys, a size beyond C's, a name that nobody knows.
_MALFORMED = (TypeError, ValueError, OverflowError, RuntimeError, LookupError, AttributeError, ImportError)

READERS = {
    "l": _Reader.inside,
    "u": lambda reader, parts, depth: tuple(reader.inside(parts, depth)),
    "s": lambda reader, parts, depth: set(reader.inside(parts, depth)),
    "z": lambda reader, parts, depth: frozenset(reader.inside(parts, depth)),
    "d": _Reader.dictionary,
    "i": _Reader.integer,
    "f": _Reader.special,
    "c": _Reader.complex,
    "b": _Reader.bytes,
    "g": _Reader.scalar,
    "a": _Reader.array,
    "t": _Reader.tensor,
    "o": _Reader.opaque,
}
