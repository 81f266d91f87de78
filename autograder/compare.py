"""Values that a student's function takes and gives: copied, compared, and described in a few words.

NumPy alone is needed. PyTorch is never imported here: a tensor can only be met when somebody has imported it.
"""

import copy
import functools
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

Path = tuple[int | str, ...]

# (rtol, atol) by the number of bits of the coarsest float that took part.
TOLERANCES = {64: (1e-6, 1e-8), 32: (1e-4, 1e-5), 16: (2e-2, 2e-2)}
_BITS = {"float16": 16, "bfloat16": 16, "float32": 32, "complex64": 32}
_UNCHANGING = {type(None), bool, int, float, complex, str, bytes}


@dataclass(frozen=True)
class Problem:
    """What is wrong, in which part of an answer. kind: type, length, shape, dtype, nan, values, gradient."""

    kind: str
    path: Path
    returned: Any
    expected: Any


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or is_tensor(value)


def is_scalar(value: Any) -> bool:
    """A number: Python's, NumPy's, or an array or tensor without dimensions."""
    return isinstance(value, (bool, int, float, complex, np.generic)) or (is_array(value) and value.ndim == 0)


def as_array(value: Any) -> np.ndarray:
    """The numbers of an array, a tensor or a scalar as a NumPy array."""
    if is_tensor(value):
        value = value.detach().cpu()
        value = value.resolve_conj() if value.is_complex() else value
        return (value.float() if dtype_name(value) == "bfloat16" else value).numpy()
    return np.asarray(value)


def dtype_name(value: Any) -> str:
    return _name(value.dtype)


@functools.cache
def _name(dtype):
    return str(dtype).removeprefix("torch.")


def copied(value: Any) -> Any:
    """A copy that shares no memory with the value. What cannot be copied is returned as it is."""
    if type(value) in _UNCHANGING:
        return value
    if is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return value.copy(order="K")
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(part) for part in value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Generator):
        return torch.Generator(device=value.device).set_state(value.get_state())
    try:
        return copy.deepcopy(value)
    except Exception:  # opaque objects forbid copying in ways of their own; sharing them is then all there is
        return value


def arrays_in(value: Any) -> list:
    """All arrays and tensors in nested tuples, lists and dicts."""
    if type(value) in _UNCHANGING:
        return []
    if is_array(value):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for part in value for array in arrays_in(part)] if isinstance(value, (list, tuple)) else []


def same_arrays(one: Any, other: Any) -> bool:
    """Whether all arrays inside two values are equal bit by bit: has an argument been changed in place?"""
    arrays, others = arrays_in(one), arrays_in(other)
    return len(arrays) == len(others) and all(map(_same_bits, arrays, others))


def _same_bits(one, other):
    one, other = as_array(one), as_array(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.hasobject:
        return np.array_equal(one, other)
    one, other = (np.ascontiguousarray(a.reshape(-1)).view(np.uint8) for a in (one, other))
    return np.array_equal(one, other)


def tolerance(*values: Any, rtol: float | None = None, atol: float | None = None) -> tuple[float, float]:
    """(rtol, atol) for the coarsest floating-point type among the arrays in the values, unless given."""
    bits = [_BITS.get(dtype_name(array), 64) for array in arrays_in(list(values))]
    default = TOLERANCES[min(bits, default=64)]
    return (default[0] if rtol is None else rtol), (default[1] if atol is None else atol)


def compare(returned: Any, expected: Any, within: tuple[float, float], path: Path = ()) -> Problem | None:
    """The first problem of what was returned, or None. Tuples, lists and dicts are compared part by part.

    A Python number, a NumPy scalar and an array without dimensions are the same thing. A list does for a
    tuple. within: (rtol, atol). NaN equals NaN. What asks for gradients is only met by what does, too.
    """
    problem = Problem("values", path, returned, expected)
    if isinstance(expected, dict):
        if not isinstance(returned, dict):
            return Problem("type", path, returned, expected)
        if returned.keys() != expected.keys():
            return Problem("length", path, returned, expected)
        return _first(compare(returned[k], expected[k], within, (*path, k)) for k in expected)
    if isinstance(expected, (list, tuple)):
        if not isinstance(returned, (list, tuple)):
            return Problem("type", path, returned, expected)
        if len(returned) != len(expected):
            return Problem("length", path, returned, expected)
        pairs = enumerate(zip(returned, expected, strict=True))
        return _first(compare(r, e, within, (*path, i)) for i, (r, e) in pairs)
    if is_scalar(expected) or is_array(expected):
        kind = _problem_of_numbers(returned, expected, within)
        return kind and Problem(kind, path, returned, expected)
    if type(returned) is not type(expected):
        return Problem("type", path, returned, expected)
    return None if returned == expected else problem


def at(path: Path, value: Any) -> Any:
    """The part of a nested value that a path leads to."""
    for step in path:
        value = value[step]
    return value


def _first(problems) -> Problem | None:
    """The first; what is only cut off from gradients comes after all that is wrong."""
    found = [problem for problem in problems if problem]
    return next((problem for problem in found if problem.kind != "gradient"), found[0] if found else None)


def _problem_of_numbers(returned: Any, expected: Any, within: tuple[float, float]) -> str | None:
    if not (is_scalar(returned) or is_array(returned)):
        return "type"
    if not (is_scalar(returned) or is_scalar(expected)) and is_tensor(returned) != is_tensor(expected):
        return "type"
    if np.shape(as_array(returned)) != np.shape(as_array(expected)):
        return "shape"
    if is_array(returned) and is_array(expected) and expected.ndim and not _same_dtype(returned, expected):
        return "dtype"
    wrong = ~close(returned, expected, within)
    if not wrong.any():
        return "gradient" if _asks_gradient(expected) and not _asks_gradient(returned) else None
    returned, expected = as_array(returned), as_array(expected)
    return "nan" if (wrong & ~_finite(returned) & _finite(expected)).any() else "values"


def _asks_gradient(value: Any) -> bool:
    return is_tensor(value) and value.requires_grad


def close(returned: Any, expected: Any, within: tuple[float, float]) -> np.ndarray:
    """Which entries agree, for two arrays of one shape: |returned - expected| <= atol + rtol |expected|.

    So do equal infinities, and NaN with NaN: as np.isclose, in a third of the time.
    """
    returned, expected = as_array(returned), as_array(expected)
    if returned.dtype.kind not in "fciub" or expected.dtype.kind not in "fciub":
        return np.asarray(returned == expected)
    rtol, atol = within
    returned, expected = _number(returned), _number(expected)
    with np.errstate(all="ignore"):
        size = np.abs(expected)
        near = (np.abs(returned - expected) <= atol + rtol * size) & np.isfinite(size)
        return np.asarray(near | (returned == expected) | (np.isnan(returned) & np.isnan(expected)))


def _number(array: np.ndarray) -> np.ndarray:
    return array.astype(float) if array.dtype.kind in "biu" or array.dtype.itemsize < 4 else array


def _finite(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array) if _is_inexact(array) else np.ones(array.shape, bool)


def _is_inexact(array: np.ndarray) -> bool:
    return array.dtype.kind in "fc"


def _same_dtype(returned: Any, expected: Any) -> bool:
    kinds = as_array(returned).dtype.kind, as_array(expected).dtype.kind
    return all(kind in "iu" for kind in kinds) or dtype_name(returned) == dtype_name(expected)


# Description, for messages.

ENTRIES = 25  # the arrays of a call are shown entry by entry up to here, all together
PARTS = 6  # as many parts of a list, tuple or dict are shown


def describe_type(value: Any) -> str:
    """A value's type in words, with its article."""
    if value is None:
        return "None"
    if is_tensor(value):
        return "a PyTorch tensor"
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of length {len(value)}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def show(value: Any, most: int = 12) -> str:
    """A value in a few words: small arrays by their entries, large ones by shape, dtype and range."""
    if is_scalar(value):
        return (
            f"{as_array(value)[()]:.5g}" if as_array(value).dtype.kind in "fiu" else str(as_array(value)[()])
        )
    if is_array(value):
        return _show_array(value, most)
    if isinstance(value, (list, tuple)):
        shown = [show(part, most) for part in value[:PARTS]] + (["..."] if len(value) > PARTS else [])
        return f"[{', '.join(shown)}]" if isinstance(value, list) else f"({', '.join(shown)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {show(v, most)}" for k, v in list(value.items())[:PARTS]) + "}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _show_array(value: Any, most: int) -> str:
    array = as_array(value)
    facts = f"shape {tuple(array.shape)}, {dtype_name(value)}"
    if array.size <= most:
        digits = {"float_kind": "{:.4g}".format, "int_kind": str}
        text = np.array2string(array, separator=", ", max_line_width=10_000, formatter=digits)
        return f"{' '.join(text.split())} ({facts})"
    finite = array[_finite(array)] if array.dtype.kind in "fiu" else np.array([])
    span = f", from {finite.min():.4g} to {finite.max():.4g}" if finite.size else ""
    return f"{describe_type(value)} ({facts}{span})"


def show_call(names: list[str], args: tuple, kwargs: dict) -> str:
    """The inputs of a call, by name: "x = ..., slope = 2". Entry by entry where they are few together."""
    most = ENTRIES if few([*args, *kwargs.values()]) else 6
    named = [*zip(names, args, strict=False), *kwargs.items()]
    return ", ".join(f"{name} = {show(value, most)}" for name, value in named)


def few(values: list) -> bool:
    """Whether `show_call` shows every entry of these inputs, so that a person can work with them."""
    return sum(map(_entries, values)) <= ENTRIES


def _entries(value: Any) -> float:
    """How many entries of arrays `show` is to write; infinitely many where it leaves out parts."""
    if is_array(value) and not is_scalar(value):
        return as_array(value).size
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, (list, tuple)):
        return 0
    return sum(map(_entries, parts)) if len(parts) <= PARTS else math.inf


def largest(values: Any) -> float:
    """The size of the largest finite entry among the numbers in a value."""
    parts = [values] if is_scalar(values) or is_array(values) else values
    if isinstance(parts, dict):
        parts = list(parts.values())
    if not isinstance(parts, (list, tuple)):
        return 0.0
    if is_scalar(values) or is_array(values):
        array = as_array(values)
        if array.dtype.kind not in "fciu" or not array.size:
            return 0.0
        return float(np.max(np.abs(array), where=_finite(array), initial=0.0))
    return max((largest(part) for part in parts), default=0.0)


def scalars_in(names: list[str], args: tuple, kwargs: dict) -> dict[str, float]:
    """The arguments that are real numbers, by name."""
    named = dict([*zip(names, args, strict=False), *kwargs.items()])
    found = {name: as_array(v)[()] for name, v in named.items() if is_scalar(v)}
    return {name: float(v) for name, v in found.items() if np.isrealobj(v) and math.isfinite(v)}
