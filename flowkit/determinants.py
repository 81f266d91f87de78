"""Determinants, from the definition to what a flow can afford: Laplace, LU, triangular matrices, the lemma.

Matrices are arrays (..., n, n); float32 and float64 are kept, integers become float64. NumPy alone. What
is named slogdet returns the sign and log abs det, which neither overflow nor underflow: det itself leaves the
range of floats at a few hundred dimensions. The determinant of a 0 x 0 matrix is 1.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from flowkit.maps import as_real


class Slogdet(NamedTuple):
    """det = sign exp(logabsdet). Where the matrix is singular the sign is 0 and logabsdet -inf."""

    sign: np.ndarray
    logabsdet: np.ndarray


class Expansion(NamedTuple):
    """A determinant by Laplace expansion, and how many multiplications it took for each matrix."""

    det: np.ndarray
    multiplications: int


class LU(NamedTuple):
    """P A = L U: A[permutation] = lower @ upper. sign (...) is det P, the parity of the row swaps.

    lower: (..., n, n), ones on its diagonal, none above 1 in size; upper: (..., n, n); permutation: (..., n).
    """

    permutation: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    sign: np.ndarray


def _square(a: ArrayLike, name: str = "a") -> np.ndarray:
    a = as_real(a, name)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name} must be square, of shape (..., n, n); its shape is {a.shape}")
    return a


# Laplace


def laplace(a: ArrayLike, memo: bool = False) -> Expansion:
    """det A = sum over j of (-1)^(i+j) A[i, j] M[i, j], along the first row, and so on within each minor M.

    Zero entries are skipped (in a batch, those that are zero in all its matrices): sparsity makes Laplace
    cheap, n - 1 multiplications where A is lower triangular (an upper triangular one has to be transposed
    first: its zeros are met too late). A full A takes O(n!). The minors of the last rows are named by their
    columns alone; with memo each is worked out once: O(2^n n), and memory O(2^n).

    >>> laplace([[1.0, 2.0], [3.0, 4.0]])
    Expansion(det=np.float64(-2.0), multiplications=2)
    """
    a = _square(a)
    n = a.shape[-1]
    zero = np.zeros(a.shape[:-2], a.dtype)[()]
    rows = [{j: a[..., i, j][()] for j in range(n) if a[..., i, j].any()} for i in range(n)]
    known: dict[tuple[int, ...], np.ndarray] = {}

    def expand(columns: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """The minor of these columns in the last rows, and the multiplications done for it."""
        if not columns:
            return zero + 1, 0
        row = rows[n - len(columns)]
        if len(columns) == 1:
            return row.get(columns[0], zero), 0
        if columns in known:
            return known[columns], 0
        total, count = zero, 0
        for place, j in enumerate(columns):
            if j in row:
                minor, inner = expand(columns[:place] + columns[place + 1 :])
                total = total - row[j] * minor if place % 2 else total + row[j] * minor
                count += inner + 1
        if memo:
            known[columns] = total
        return total, count

    return Expansion(*expand(tuple(range(n))))


def det_laplace(a: ArrayLike) -> np.ndarray:
    """The determinant by recursive Laplace expansion: (..., n, n) -> (...). O(n!): for n below 10."""
    return laplace(a).det


def det_laplace_memo(a: ArrayLike) -> np.ndarray:
    """The determinant by Laplace expansion with memo: (..., n, n) -> (...). O(2^n n): for n below 18."""
    return laplace(a, memo=True).det


# LU


def lu(a: ArrayLike) -> LU:
    """Gaussian elimination with partial pivoting: the largest of the column. O(n^3). A may be singular."""
    a = _square(a)
    n = a.shape[-1]
    # U above; below the diagonal, where U is zero, L
    packed: np.ndarray = a.reshape(math.prod(a.shape[:-2]), n, n).copy()
    batch = np.arange(len(packed))
    permutation = np.tile(np.arange(n), (len(packed), 1))
    sign = np.ones(len(packed), a.dtype)
    for k in range(n):
        pivot = k + np.abs(packed[:, k:, k]).argmax(-1)
        for rows in (packed, permutation):
            rows[batch, k], rows[batch, pivot] = rows[batch, pivot], rows[batch, k]
        sign[pivot != k] *= -1
        at = packed[:, k, k, None]
        packed[:, k + 1 :, k] /= np.where(at == 0, 1, at)  # a zero pivot has only zeros below
        packed[:, k + 1 :, k + 1 :] -= packed[:, k + 1 :, k, None] * packed[:, k, None, k + 1 :]
    packed = packed.reshape(a.shape)
    lower = np.tril(packed, -1) + np.eye(n, dtype=a.dtype)
    leading = a.shape[:-2]
    return LU(permutation.reshape(*leading, n), lower, np.triu(packed), sign.reshape(leading)[()])


def det_lu(a: ArrayLike) -> np.ndarray:
    """det A = det P times the product of U's diagonal: (..., n, n) -> (...). O(n^3)."""
    factors = lu(a)
    return factors.sign * det_triangular(factors.upper)


def slogdet_lu(a: ArrayLike) -> Slogdet:
    """Sign and log abs det through LU: (..., n, n) -> (...), (...). O(n^3).

    >>> sign, logabsdet = slogdet_lu(1e-200 * np.eye(3))     # det underflows: 1e-600
    >>> float(sign), round(float(logabsdet), 3)
    (1.0, -1381.551)
    """
    factors = lu(a)
    sign, logabsdet = slogdet_triangular(factors.upper)
    return Slogdet(factors.sign * sign, logabsdet)


def solve_lu(factors: LU, b: ArrayLike) -> np.ndarray:
    """X with A X = B, for B (..., n, m): forward substitution in L, then backward in U. O(n^2 m).

    ValueError where A is singular.
    """
    lower, upper = factors.lower, factors.upper
    n = upper.shape[-1]
    if (_diagonal(upper) == 0).any():
        raise ValueError("the matrix is singular: it has no inverse")
    b = as_real(b, "b")
    leading = np.broadcast_shapes(upper.shape[:-2], b.shape[:-2])
    b = np.broadcast_to(b, (*leading, *b.shape[-2:]))
    x = np.take_along_axis(b, np.broadcast_to(factors.permutation[..., None], (*leading, n, 1)), -2)
    x = x.astype(np.result_type(upper, b))
    for i in range(n):
        x[..., i, :] -= (lower[..., i, None, :i] @ x[..., :i, :])[..., 0, :]
    for i in reversed(range(n)):
        x[..., i, :] -= (upper[..., i, None, i + 1 :] @ x[..., i + 1 :, :])[..., 0, :]
        x[..., i, :] /= upper[..., i, i, None]
    return x


# Structure that makes determinants cheap


def _diagonal(a: np.ndarray) -> np.ndarray:
    return np.diagonal(a, axis1=-2, axis2=-1)


def det_triangular(a: ArrayLike) -> np.ndarray:
    """The product of the diagonal of a triangular matrix, upper or lower: (..., n, n) -> (...). O(n)."""
    return _diagonal(_square(a)).prod(-1)


def slogdet_triangular(a: ArrayLike) -> Slogdet:
    """Sign and log abs det of a triangular matrix, upper or lower. O(n): only the diagonal is read."""
    return _slogdet_diagonal(_diagonal(_square(a)))


def _slogdet_diagonal(diagonal: np.ndarray) -> Slogdet:
    with np.errstate(divide="ignore"):
        return Slogdet(np.sign(diagonal).prod(-1), np.log(np.abs(diagonal)).sum(-1))


def slogdet_block_triangular(a: ArrayLike, sizes: Sequence[int]) -> Slogdet:
    """det of [[A, 0], [C, B]] = det A det B, for any number of diagonal blocks of the sizes given.

    O(sum of sizes^3). Only the diagonal blocks are read. The Jacobian of a coupling layer is such a matrix.
    """
    a = _square(a)
    if sum(sizes) != a.shape[-1] or any(size < 0 for size in sizes):
        raise ValueError(f"the sizes of the blocks must sum to {a.shape[-1]}; they are {list(sizes)}")
    sign, logabsdet = np.ones(a.shape[:-2], a.dtype), np.zeros(a.shape[:-2], a.dtype)
    start = 0
    for size in sizes:
        block = slogdet_lu(a[..., start : start + size, start : start + size])
        sign, logabsdet = sign * block.sign, logabsdet + block.logabsdet
        start += size
    return Slogdet(sign[()], logabsdet[()])


def slogdet_lemma(diagonal: ArrayLike, v: ArrayLike, w: ArrayLike) -> Slogdet:
    """The matrix determinant lemma: det(A + V W^T) = det(I + W^T A^-1 V) det A, for A = diag(diagonal).

    diagonal: (..., d), no zeros; v, w: (..., d, m). Cost O(d m^2 + m^3) against the O(d^3) of LU: the
    determinant of an update of rank m is that of an m x m matrix. Planar flows have m = 1.

    >>> slogdet_lemma([1.0, 1.0], [[1.0], [2.0]], [[3.0], [0.0]])     # [[4, 0], [6, 1]]
    Slogdet(sign=np.float64(1.0), logabsdet=np.float64(1.3862943611198906))
    """
    diagonal = np.atleast_1d(as_real(diagonal, "diagonal"))
    v, w = _tall(v, w, diagonal.shape[-1])
    if (diagonal == 0).any():
        raise ValueError("diagonal has a zero: the lemma divides by A. Build the matrix and use slogdet_lu")
    return _lemma(_slogdet_diagonal(diagonal), v / diagonal[..., None], w)


def slogdet_lemma_general(a: ArrayLike | LU, v: ArrayLike, w: ArrayLike) -> Slogdet:
    """The lemma for any invertible A, given as a matrix (..., d, d) or as its LU: (..., d, m) for v and w.

    O(d^3) for a matrix; O(d^2 m + m^3) with the LU at hand. ValueError where A is singular.
    """
    factors = a if isinstance(a, LU) else lu(a)
    v, w = _tall(v, w, factors.upper.shape[-1])
    sign, logabsdet = slogdet_triangular(factors.upper)
    return _lemma(Slogdet(factors.sign * sign, logabsdet), solve_lu(factors, v), w)


def _tall(v: ArrayLike, w: ArrayLike, d: int) -> tuple[np.ndarray, np.ndarray]:
    v, w = as_real(v, "v"), as_real(w, "w")
    if v.ndim < 2 or w.ndim < 2 or v.shape[-2:] != w.shape[-2:] or v.shape[-2] != d:
        raise ValueError(
            f"v and w must both have the shape (..., {d}, m); they have {v.shape} and {w.shape}. "
            "A vector v becomes a matrix of rank one as v[:, None]"
        )
    return v, w


def _lemma(outer: Slogdet, solved: np.ndarray, w: np.ndarray) -> Slogdet:
    inner = slogdet_lu(np.eye(w.shape[-1], dtype=w.dtype) + w.swapaxes(-1, -2) @ solved)
    return Slogdet(outer.sign * inner.sign, outer.logabsdet + inner.logabsdet)


# Size and cost


def hadamard_bound(a: ArrayLike) -> np.ndarray:
    """log abs det A <= the sum of the logs of the rows' Euclidean norms: the edges of a box bound its volume.

    (..., n, n) -> (...), -inf where a row is zero. Equality where the rows are orthogonal. O(n^2).
    """
    sizes = np.abs(_square(a))
    largest = sizes.max(-1, keepdims=True, initial=0)
    scaled = sizes / np.where(largest == 0, 1, largest)  # so that squares neither overflow nor underflow
    with np.errstate(divide="ignore"):
        return (np.log(largest[..., 0]) + 0.5 * np.log(np.square(scaled).sum(-1))).sum(-1)


def laplace_multiplications(n: int, memo: bool = False) -> int:
    """What `laplace` does on a full n x n matrix: T(n) = n (1 + T(n-1)), some 1.72 n!; memo: n 2^(n-1) - n.

    >>> [laplace_multiplications(n) for n in (2, 3, 4, 10)], laplace_multiplications(10, memo=True)
    ([2, 9, 40, 6235300], 5110)
    """
    if memo:
        return n * 2 ** (n - 1) - n if n > 1 else 0
    return n * (1 + laplace_multiplications(n - 1)) if n > 1 else 0


def lu_multiplications(n: int) -> int:
    """Multiplications and divisions of `det_lu`: (n^3 - n)/3 in the elimination, n - 1 along the diagonal."""
    return (n**3 - n) // 3 + max(n - 1, 0)


def lemma_multiplications(d: int, m: int) -> int:
    """Multiplications and divisions of the lemma, A diagonal: V/A, W^T V/A, the LU of m x m, and det A."""
    return d * m + d * m**2 + lu_multiplications(m) + d
