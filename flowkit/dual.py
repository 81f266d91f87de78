"""Forward mode by dual numbers: value + tangent e, with e^2 = 0, so that arithmetic differentiates.

NumPy alone.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowkit.maps import as_real

Numbers = Any  # numbers, arrays, and Duals of Duals: what NumPy's functions and operators take


def _power_slope(a: Numbers, b: Numbers) -> Numbers:
    """b a^(b - 1), and 0 where b = 0: also at a = 0, where a^(-1) is infinite."""
    if isinstance(b, Dual) or np.all(b):
        return b * a ** (b - 1)
    b = np.asarray(b, _form(a).dtype)
    return b * a ** np.where(b == 0, 1, b - 1)


# For each function the derivative with respect to each argument.
PARTIALS: dict[np.ufunc, list[Callable]] = {
    np.positive: [lambda a: 1],
    np.negative: [lambda a: -1],
    np.add: [lambda a, b: 1, lambda a, b: 1],
    np.subtract: [lambda a, b: 1, lambda a, b: -1],
    np.multiply: [lambda a, b: b, lambda a, b: a],
    np.divide: [lambda a, b: 1 / b, lambda a, b: -a / (b * b)],
    np.power: [_power_slope, lambda a, b: a**b * np.log(a)],
    np.absolute: [np.sign],
    np.sign: [lambda a: 0],
    np.square: [lambda a: 2 * a],
    np.sqrt: [lambda a: 0.5 / np.sqrt(a)],
    np.exp: [np.exp],
    np.log: [lambda a: 1 / a],
    np.sin: [np.cos],
    np.cos: [lambda a: -np.sin(a)],
    np.tanh: [lambda a: 1 - np.tanh(a) ** 2],
    np.arctan2: [lambda y, x: x / (x * x + y * y), lambda y, x: -y / (x * x + y * y)],
}
# Functions that are linear in their arrays, and so map tangents as they map values.
LINEAR = {np.stack, np.concatenate, np.reshape, np.moveaxis, np.flip, np.roll}
LINEAR |= {np.sum, np.mean, np.cumsum, np.diff}
COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """value + tangent e, with e^2 = 0: f(a + b e) = f(a) + f'(a) b e, so arithmetic differentiates.

    value, tangent    arrays of one shape, or Duals again for second derivatives
    level             which jvp made it: to a jvp within a jvp, the outer one's numbers are constants

    NumPy's functions and operators accept it: those in PARTIALS, matrix products, indexing, and those in
    LINEAR; comparisons look at the value alone. TypeError for all others: an unknown derivative is never
    taken as zero. Cost: a small multiple of f's. Wengert 1964; Siskind and Pearlmutter 2005 (the levels).

    >>> Dual(3.0, 1.0) ** 2
    Dual(9.0, 6.0)
    """

    def __init__(self, value: Numbers, tangent: Numbers, level: int = 0) -> None:
        self.value, self.tangent, self.level = value, tangent, level

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Numbers, **options: object) -> Numbers:
        if method != "__call__" or options or ufunc not in {*PARTIALS, *COMPARISONS, np.matmul}:
            raise TypeError(
                f"no derivative is known for np.{ufunc.__name__} called so: see PARTIALS; for z += a, write "
                "z = z + a"
            )
        level = max(_level(a) for a in inputs)
        values = [_part(a, level, "value") for a in inputs]
        value = ufunc(*values)
        if ufunc in COMPARISONS:
            return value
        tangent = np.zeros(value.shape, value.dtype)
        for i, a in enumerate(inputs):
            if _level(a) == level and ufunc is np.matmul:  # the product rule
                factors = [*values[:i], a.tangent, *values[i + 1 :]]
                tangent = tangent + ufunc(factors[0], factors[1])
            elif _level(a) == level:
                tangent = tangent + PARTIALS[ufunc][i](*values) * a.tangent
        return Dual(value, tangent, level)

    def __array_function__(
        self, function: Callable, types: object, args: tuple, options: dict[str, object]
    ) -> "Dual":
        if function not in LINEAR:
            raise TypeError(f"no derivative is known for np.{function.__name__}: see LINEAR and PARTIALS")
        arrays, *rest = args
        several = isinstance(arrays, list | tuple)
        level = max(map(_level, arrays)) if several else self.level

        def apply(part: str) -> Numbers:
            parts = [_part(a, level, part) for a in arrays] if several else _part(arrays, level, part)
            return function(parts, *rest, **options)

        return Dual(apply("value"), apply("tangent"), level)

    def __getitem__(self, index: Any) -> "Dual":
        return Dual(self.value[index], self.tangent[index], self.level)

    def __repr__(self) -> str:
        return f"Dual({self.value}, {self.tangent})"

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Dual":
        return np.sum(self, axis, keepdims=keepdims)  # type: ignore[call-overload]  # by __array_function__

    @property
    def shape(self) -> tuple[int, ...]:
        return _form(self.value).shape

    @property
    def dtype(self) -> np.dtype:
        return _form(self.value).dtype


def _level(a: object) -> int:
    return a.level if isinstance(a, Dual) else -1


def _form(a: Numbers) -> "np.ndarray | Dual":
    """What has a's shape and dtype."""
    return a if isinstance(a, Dual) else np.asarray(a)


def _part(a: Numbers, level: int, part: str) -> Numbers:
    """The value or the tangent at a level, to which numbers of lower levels are constants."""
    if _level(a) == level:
        return getattr(a, part)
    return a if part == "value" else np.zeros(_form(a).shape, _form(a).dtype)


def as_array(z: ArrayLike | Dual) -> np.ndarray | Dual:
    """What f returned, as an array or a Dual: a list, or NumPy's array of objects, is put together first."""
    if isinstance(z, list | tuple) or (isinstance(z, np.ndarray) and z.dtype == object):
        return np.stack([as_array(part) for part in z])  # type: ignore[misc]  # Duals by __array_function__
    return z if isinstance(z, Dual) else as_real(z, "f(x)")


_levels = itertools.count(1)


def jvp(f: Callable, x: ArrayLike | Dual, v: ArrayLike | Dual) -> tuple:
    """f(x) and J v, exact, in one pass through f: how z moves as x moves along v. J itself is not built.

    x, v: (..., D); any v that broadcasts. f is written with NumPy's functions (see Dual).

    >>> jvp(lambda x: np.exp(2 * x), 0.0, 1.0)
    (np.float64(1.0), np.float64(2.0))
    """
    x = x if isinstance(x, Dual) else as_real(x)
    v = v if isinstance(v, Dual) else as_real(v, "v")
    level = next(_levels)
    z = as_array(f(Dual(x, v + np.zeros(x.shape, x.dtype), level)))
    return _part(z, level, "value"), _part(z, level, "tangent")


def derivative(f: Callable, x: ArrayLike | Dual) -> np.ndarray:
    """f'(x) of an f that works on each number by itself, x of any shape: one jvp along ones."""
    return jvp(f, x, 1.0)[1]
