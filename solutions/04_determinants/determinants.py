# %% [markdown]
# # Determinants
#
# Lesson 04 · 120 minutes · 20 points · first: [Change of variables](../02_change_of_variables/change_of_variables.ipynb)
#
# A flow adds $\log\lvert\det J\rvert$ to the log-density of *every point of every batch*. For a small colour photograph of 32 by 32 pixels, $J$ has 3,072 rows.
#
# **What does such a determinant cost, and how do we avoid paying it?** The chart below counts multiplications. Two of its curves compute the same number, and one of these, at a billion multiplications a second, would run longer than the age of the universe from $n = 26$ on. The third needs a matrix of a special shape. You will write all three, time them, and meet a fourth.
#
# You will be able to
#
# - compute a determinant by Laplace expansion and by elimination, and say what each costs;
# - test a determinant by the laws that define it, with no second determinant at hand;
# - read an exponent off a stopwatch, and tell $n^3$ from $n!$;
# - keep log-determinants finite in hundreds of dimensions;
# - use the structure of a matrix, triangular, block-triangular or of low rank, to pay less.

# %% nbgrader={"cell_type": "code", "checksum": "f27d23ebd75b130dd24830afddec0ea9", "grade": false, "grade_id": "code_1", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import numpy as np

from autograder import check
from flowkit.lab import plots
from flowkit.lab.widgets import choice, play, predict, slider

# %% tags=["show", "hide-input"]
PER_SECOND, UNIVERSE = 1e9, 13.8e9 * 365.25 * 86400  # multiplications in a second; seconds since the big bang

n = np.arange(2, 3073)
log10_factorial = np.array([math.lgamma(k + 1) for k in n]) / math.log(10)
counts = {
    "Laplace expansion, 1.72 n!": log10_factorial + math.log10(math.e - 1),
    "elimination, n³/3": np.log10((n**3 - n) / 3),
    "triangular, n - 1": np.log10(n - 1),
}
fig, ax = plots.figure()
for label, log10_count in counts.items():
    ax.plot(n, log10_count, label=label)
for level, words in (
    (math.log10(PER_SECOND), "one second"),
    (math.log10(PER_SECOND * UNIVERSE), "the age of the universe"),
):
    ax.axhline(level, color=plots.GREY, linewidth=0.8, linestyle=":")
    ax.text(40, level + 0.4, words, color=plots.GREY)
ax.set(xscale="log", ylim=(0, 32), xlabel="rows of the matrix, n", ylabel="multiplications, log10")
ax.legend(loc="center right")
plots.show(
    fig,
    alt="The logarithm of the number of multiplications against n, up to 3072. Laplace expansion shoots up and crosses the line of one second between n = 12 and 13 and the age of the universe at n = 26. Elimination reaches about ten seconds at n = 3072, a triangular matrix stays far below.",
)
late = n[counts["Laplace expansion, 1.72 n!"] > math.log10(PER_SECOND * UNIVERSE)][0]
print(f"Laplace takes longer than the age of the universe from n = {late} on.")
print(
    f"Elimination of a 3072 x 3072 matrix: {10 ** counts['elimination, n³/3'][-1] / PER_SECOND:.1f} seconds for one point."
)


# %% [markdown]
# ## 1. A volume with a sign
#
# The determinant of a matrix is the area, or the volume, onto which it maps the unit box. Its sign says whether the box was turned over on the way. It is zero when the box collapses, and then the map has no inverse. Four laws pin it down; exactly one function of a square matrix obeys them all:
#
# | law | what is done to the rows | what the determinant does |
# | --- | --- | --- |
# | identity | nothing: the matrix is $I$ | it is 1 |
# | swap | two rows change places | it changes its sign |
# | scale | one row is multiplied by $c$ | it is multiplied by $c$ |
# | shear | a multiple of one row is added to another | it stays the same |
#
# It follows that $\det(AB) = \det A\,\det B$: for a fixed $B$ that has an inverse, $\det(AB)/\det B$ obeys all four laws in $A$. (If $B$ has none, both sides are zero.)
#
# The same laws hold for columns, since $\det A^\top = \det A$. Move the sliders until you have seen a flip and a collapse (make the columns equal). For a column shear, set the second entry of column 1 to 0, then move the first entry of column 2: the area stays.

# %% tags=["show", "hide-input"]
def draw_square(scene, a, c, b, d):
    from flowkit import determinants as reference

    laplace_ = check.yours("determinants.laplace", otherwise=reference.laplace)
    A = np.array([[a, b], [c, d]])
    det = float(laplace_(A)[0])
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    letter = np.array(
        [
            [0.3, 0.15],
            [0.3, 0.85],
            [0.75, 0.85],
            [0.75, 0.7],
            [0.45, 0.7],
            [0.45, 0.55],
            [0.65, 0.55],
            [0.65, 0.4],
            [0.45, 0.4],
            [0.45, 0.15],
        ]
    )
    flat, flipped = abs(det) < 0.005, det < 0
    colour = plots.ORANGE if flipped else plots.BLUE
    before, after = scene.panel(0, of=2), scene.panel(1, of=2)
    for panel, title, M, shade in (
        (before, "x: area 1", np.eye(2), plots.GREY),
        (after, f"A x: signed area {det:.2f}", A, colour),
    ):
        panel.axes(
            x=(-3, 3),
            y=(-3, 3),
            xlabel="first coordinate",
            ylabel="second coordinate",
            title=title,
            equal=True,
        )
        panel.polygon(square @ M.T, colour=shade, hatch=panel is after and flipped)
        panel.polygon(letter @ M.T, colour=shade, alpha=0.8, width=1.0)
        panel.arrow(0, 0, *M[:, 0], colour=plots.BLACK, label="column 1")
        panel.arrow(0, 0, *M[:, 1], colour=plots.PURPLE, label="column 2")
    if flat:
        words = "the square has collapsed onto a line, and no map leads back."
    else:
        words = "the letter is mirrored." if flipped else "the letter can be read as before."
    return f"The columns ({a:.1f}, {c:.1f}) and ({b:.1f}, {d:.1f}) span an area of {abs(det):.2f}, the determinant is {det:.2f}: {words}"


play(
    draw_square,
    a=slider(-1.5, 1.5, 1.0, step=0.1, label="column 1, first entry"),
    c=slider(-1.5, 1.5, 0.5, step=0.1, label="column 1, second entry"),
    b=slider(-1.5, 1.5, -0.6, step=0.1, label="column 2, first entry"),
    d=slider(-1.5, 1.5, 1.4, step=0.1, label="column 2, second entry"),
)


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "00ea5f4977c281d09792b1615a96e7a5", "grade": false, "grade_id": "laplace_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 1: Laplace expansion
#
# difficulty 3 of 5 · importance 4 of 5 · 28 minutes · 4 points
#
# Linear algebra tells us that $\det A$ is linear in each row, so split row 0 into its entries. With only $A_{0j}$ left in it, shears clear the rest of column $j$, and $j$ swaps of neighbouring columns bring that column to the front: a factor $(-1)^j$. What remains is $A_{0j}$ times a function of the other rows and columns. It obeys the four laws, so it is their determinant, the *minor* $M_{0j}$; with its sign it is called a cofactor. With rows and columns counted from 0,
#
# $$\det A = \sum_{j=0}^{n-1} (-1)^{j} A_{0j} M_{0j} .$$
#
# This is the *Laplace expansion*. A full matrix costs $T(n) = n\,(1 + T(n-1))$ multiplications. Divide by $n!$, and a known series appears:
#
# $$\frac{T(n)}{n!} = \frac{1}{1!} + \frac{1}{2!} + \dots + \frac{1}{(n-1)!} \to e - 1 = 1.718\dots$$
#
# Write `laplace(A, memo=False)` for `A` of shape `(n, n)`, $n \ge 1$. Return the pair `(det, multiplications)`.
#
# - Expand along the first row, and do the same within each minor, down to 1 x 1 matrices, which cost nothing.
# - An entry times its minor is one multiplication. Signs and sums are free. **Skip entries that are zero**: they need no minor. So a 2 x 2 matrix costs 2, and less with a zero in row 0.
# - With `memo=True`, work out each minor only once; to look it up later is free, and an entry times it is not.
#
# For example, `laplace(np.array([[1.0, 2.0], [3.0, 4.0]]))` is `(-2.0, 2)`, and a full 4 x 4 matrix takes 40 multiplications, or 28 with the memo.
#
# <details><summary>"2 x 2 is right, and 3 x 3 has a wrong sign"</summary>
#
# Within a minor the columns are counted anew. The sign depends on the *place* of the entry in its row of the minor, not on the column's number in $A$.
#
# </details>
# <details><summary>"What names a minor?"</summary>
#
# Rows are removed from the top, so the columns that are left say it all: a tuple of them is a good dictionary key. Make the dictionary afresh in each call of `laplace`, or it will remember the minors of another matrix.
#
# </details>
# <details><summary>A template</summary>
#
# An inner function `minor(columns)` returns a determinant and a count. In it: `row = A[n - len(columns)]`, and in the loop `inner, cost = minor(columns[:place] + columns[____:])`, `total += (-1) ** ____ * row[j] * inner`, `count += ____`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "7aa3434783dc23b050a5c796e3dfdf64", "grade": false, "grade_id": "laplace", "locked": false, "schema_version": 3, "solution": true, "task": false}
def laplace(A, memo=False):
    """(det A, multiplications) by Laplace expansion along the first row, zeros skipped. A: (n, n)."""
    n, known = len(A), {}

    def minor(columns):
        """The determinant of these columns in the last rows, and what it costs now."""
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[j] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


# %% nbgrader={"cell_type": "code", "checksum": "034b8b10deefd13ed7ffc37399bd370e", "grade": true, "grade_id": "laplace_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check laplace: 1 point.
from itertools import combinations, permutations

import numpy as np
from autograder import check


def sum_over_permutations(A, memo=False):
    """The slow specification: all products of one entry from each row and column; and all ways down."""
    n = len(A)
    det = 0.0
    for p in permutations(range(n)):
        inversions = sum(p[i] > p[j] for i, j in combinations(range(n), 2))
        det += (-1) ** inversions * np.prod([A[i, j] for i, j in enumerate(p)])
    ways = [
        p for k in range(1, n) for p in permutations(range(n), k) if all(A[i, j] for i, j in enumerate(p))
    ]
    if memo:  # ways that lead to the same minor count once
        ways = {(frozenset(p[:-1]), p[-1]) for p in ways}
    return det, len(ways)


rng = np.random.default_rng(0)
full = rng.normal(size=(5, 5)).round(1) + 0.05
sparse = rng.integers(-3, 4, size=(4, 4)) * (rng.random((4, 4)) < 0.7) * 1.0
cases = [(full,), (np.array([[1.0, 2.0], [3.0, 4.0]]),), (full[:3, :3],), (sparse,), (np.tril(full),)]
cases += [(full, True), (full[:4, :4], True), (sparse, True), (full[:1, :1],), (np.zeros((3, 3)),)]
cases += [(full[:4, :4], True)]  # once more: what one call works out is not known in the next
check.values("determinants.laplace", cases, sum_over_permutations)

# %% nbgrader={"cell_type": "code", "checksum": "3818dba373a782fb59320ac7bd3f2dee", "grade": true, "grade_id": "laplace_hidden", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 3 points.

# %% tags=["show"]
predict(
    "A 7 x 7 lower triangular matrix has nothing above its diagonal; its transpose, the upper triangular one, has nothing below. Your expansion skips zeros. What do the two cost?",
    [
        "6 multiplications each: the determinant is the same",
        "6 for the lower one, and 731 for the upper one",
        "6 for the upper one, and 731 for the lower one",
    ],
)


# %% tags=["show", "hide-input"]
def draw_sparsity(scene, pattern, n, zeros, memo):
    from flowkit import determinants as reference

    laplace_ = check.yours("determinants.laplace", otherwise=reference.laplace)
    rng = np.random.default_rng(1)
    A, chance = rng.uniform(0.5, 2, size=(7, 7)), rng.random((7, 7))
    keep = {"scattered": chance >= zeros, "lower": np.tri(7, dtype=bool), "upper": np.tri(7, dtype=bool).T}[
        pattern
    ]
    A = np.where(keep, A, 0.0)
    sizes = np.arange(2, n + 1)
    counts = np.array([laplace_(A[:k, :k], memo)[1] for k in sizes])
    dense = np.array([reference.laplace_multiplications(int(k), memo) for k in sizes])
    matrix, cost = scene.panel(0, of=2), scene.panel(1, of=2)
    matrix.axes(x=(0, n), y=(0, n), title="filled: not zero", equal=True, frame=False)
    matrix.image((A[:n, :n] != 0) * 1.0, extent=(0, n, 0, n), low=1.6, high=0, colours="grey", upper=True)
    ticks = np.arange(n + 1)
    matrix.lines(
        [[(0, t), (n, t)] for t in ticks] + [[(t, 0), (t, n)] for t in ticks], colour=plots.GREY, width=0.5
    )
    matrix.polygon([0, n, n, 0], [0, 0, n, n], colour=plots.GREY, alpha=0.0, width=1.0)
    cost.axes(
        x=(1.5, 7.5),
        y=(-0.2, 4.2),
        xlabel="n",
        ylabel="multiplications, log10",
        title="cost of the expansion",
    )
    cost.curve(sizes, np.log10(dense), colour=plots.GREY, dash="dashed", label="full matrix")
    cost.points(sizes, np.log10(dense), colour=plots.GREY, marker="square")
    shown = np.log10(np.maximum(counts, 0.7))  # a matrix whose first row is zero costs nothing
    cost.curve(sizes, shown, colour=plots.ORANGE, label="this matrix")
    cost.points(sizes, shown, colour=plots.ORANGE)
    share = np.mean(A[:n, :n] == 0)
    return f"n = {n}, {share:.0%} zeros: {counts[-1]} multiplications, where a full matrix takes {dense[-1]}."


play(
    draw_sparsity,
    pattern=choice(
        {"lower triangular": "lower", "upper triangular": "upper", "scattered zeros": "scattered"},
        value="scattered",
        label="pattern",
    ),
    n=slider(2, 7, 7, label="size n"),
    zeros=slider(0.0, 0.9, 0.5, step=0.1, label="fraction of zeros, if scattered"),
    memo=choice({"without memo": False, "with memo": True}, label="memo"),
)

# %% [markdown]
# ## 2. Elimination, and the range of numbers
#
# The expansion meets the zeros of a lower triangular matrix in the first row, and those of an upper one too late: most of the 731 multiplications go into minors that turn out to be zero. Yet an upper triangular matrix can be expanded along its first *column*. Either way one product is left, that of the diagonal. This gives the fast method: *make* the matrix triangular by shears, which cost nothing in determinant, and swaps, which cost a sign. It is Gaussian elimination, or *LU decomposition*: $PA = LU$, where $P$ swaps rows, $L$ collects the shears ($\det L = 1$) and $U$ is upper triangular. So
#
# $$\det A = \det P\;\prod_k U_{kk},$$
#
# where $\det P = \pm 1$ may stand on either side.
#
# A step with $k$ rows left below it takes $k$ divisions and $k^2$ multiplications, in all
#
# $$\sum_{k=1}^{n-1} (k + k^2) = \frac{n^3 - n}{3} .$$
#
# The product is the next trap. Of some hundred harmless factors, it may leave the range of floating-point numbers. Therefore `np.linalg.slogdet` returns two numbers, the sign and the logarithm of the size, and a flow never needs more. How large can it get? Of all boxes with edges of given lengths, the one with orthogonal edges is the largest: this is *Hadamard's inequality*. With $a_i$ for the rows of $A$,
#
# $$\log\lvert\det A\rvert = \sum_k \log\lvert U_{kk}\rvert \le \sum_i \log\lVert a_i\rVert .$$

# %% tags=["show"]
small, large = 1e-3 * np.eye(200), np.random.default_rng(0).normal(size=(310, 310))
orthogonal = np.linalg.qr(large)[0]
for name, A in (
    ("0.001 times I, n = 200", small),
    ("random normal, n = 310", large),
    ("orthogonal, n = 310", orthogonal),
):
    with np.errstate(over="ignore"):
        det = np.linalg.det(A)
    hadamard = np.log(np.linalg.norm(A, axis=1)).sum()
    print(
        f"{name:23} det {det:8.3g}   log abs det {round(np.linalg.slogdet(A)[1], 2) + 0:9.2f}   Hadamard's bound {round(hadamard, 2) + 0:9.2f}"
    )


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "f73ee4b14cca94b5524c79764fad89f3", "grade": false, "grade_id": "eliminate_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 2: elimination with a sign
#
# difficulty 3 of 5 · importance 5 of 5 · 16 minutes · 3 points
#
# Write `eliminate(A)`, which returns the pair `(U, sign)` for `A` of shape `(n, n)`: `U` is upper triangular, `sign` is $\det P$, that is 1 or -1, and $\det A$ is `sign * np.prod(np.diag(U))`. Work on a copy in floats, since `A` may hold whole numbers, and leave `A` as it is.
#
# For $k = 0, 1, \dots$ choose the *pivot*: among the entries of column $k$ in row $k$ **and below**, the one of largest absolute value (of equals, the first). Swap its row with row $k$. Then subtract multiples of row $k$ from the rows below, so that column $k$ becomes zero there. If the whole rest of the column is zero already, there is nothing to do: $A$ is singular, and $U_{kk} = 0$.
#
# This *partial pivoting* avoids division by zero, and keeps the multipliers at most 1 in absolute value, so that rounding errors do not grow wild. For example, `eliminate(np.array([[0., 1.], [2., 3.]]))` returns `[[2., 3.], [0., 1.]]` and `-1`.
#
# <details><summary>"Two of my rows have become equal"</summary>
#
# `U[k], U[p] = U[p], U[k]` swaps two *views*: when the second is written, it sees the first already overwritten. An index list on both sides, `U[[k, p]]`, makes copies.
#
# </details>
# <details><summary>"The size is right and the sign is not"</summary>
#
# Does a step flip the sign when the pivot already stands in row $k$?
#
# </details>
# <details><summary>A template</summary>
#
# In the loop: `p = k + np.argmax(____)`, then `if p != k: U[[k, p]] = ____; sign = ____`, then, unless the pivot is zero, `U[k + 1 :] -= np.outer(____, U[k])`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "1042f09ad68bde88b300204181655d72", "grade": false, "grade_id": "eliminate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def eliminate(A):
    """(U, sign) by Gaussian elimination with partial pivoting: det A = sign * prod(diag(U)). A: (n, n)."""
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            multipliers = U[k + 1 :, k] / U[k, k]
            U[k + 1 :, k:] -= np.outer(multipliers, U[k, k:])
    return U, sign


# %% nbgrader={"cell_type": "code", "checksum": "3387fd9dfefa8aa84dd2b30ba16a78f4", "grade": true, "grade_id": "eliminate_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check eliminate: 1 point.
import numpy as np
from autograder import check


def row_by_row(A):
    """The slow specification: plain loops over entries, and the sign as the determinant of P."""
    n, rows, order = len(A), [list(map(float, row)) for row in A], list(range(len(A)))
    for k in range(n):
        p = max(range(k, n), key=lambda i: abs(rows[i][k]))
        for each in (rows, order):
            each[k], each[p] = each[p], each[k]
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k] if rows[k][k] else 0.0
            rows[i] = [entry - factor * above for entry, above in zip(rows[i], rows[k], strict=True)]
    return np.array(rows), round(np.linalg.det(np.eye(n)[order]))


rng = np.random.default_rng(0)
cases = [
    (np.array([[0.0, 1.0], [2.0, 3.0]]),),
    (np.array([[4.0, 1.0], [2.0, 3.0]]),),
    (np.array([[1, 2], [3, 4]]),),
    (np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0], [5.0, 0.0, 6.0]]),),
    (rng.normal(size=(4, 4)),),
    (np.diag([1.0, 2.0, 3.0, 4.0, 5.0])[[1, 2, 3, 4, 0]],),
    (rng.normal(size=(6, 6)),),
]
check.values("determinants.eliminate", cases, row_by_row)


# %% nbgrader={"cell_type": "code", "checksum": "ec20fafb382d13424e3933eda227f84f", "grade": true, "grade_id": "eliminate_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "5014e18b09d7bd33308f24657b3a5db7", "grade": false, "grade_id": "broken_laws_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 3: guard a determinant
#
# difficulty 2 of 5 · importance 4 of 5 · 10 minutes · 2 points
#
# How do you test a determinant with no other at hand? By the four laws. Somebody's function was asked for five determinants; you get its answers as a dictionary `claims`:
#
# | key | the matrix it was asked about |
# | --- | --- |
# | `"identity"` | $I$ |
# | `"A"` | some matrix $A$ |
# | `"swapped"` | $A$ with rows 0 and 1 exchanged |
# | `"scaled"` | $A$ with row 0 multiplied by `c` |
# | `"sheared"` | $A$ with `c` times row 0 added to row 1 |
#
# Write `broken_laws(claims, c)`. It returns the list of the laws that the claims break, out of `"identity"`, `"swap"`, `"scale"`, `"shear"`, in this order, and `[]` if there is none. Two numbers count as equal when they differ by at most $10^{-6}$ times the larger of their absolute values. A claim that is `nan` or infinite breaks every law in which it takes part.
#
# <details><summary>"nan or inf passes"</summary>
#
# Every comparison with `nan` is False: ask whether a law *holds*, and report it when the answer is not True. And `inf <= inf` is True.
#
# </details>
# <details><summary>"Tiny determinants are never suspicious"</summary>
#
# Next to $10^{-200}$, any fixed tolerance is huge. `np.isclose` has one unless you give `atol`.
#
# </details>
# <details><summary>A template</summary>
#
# `laws = {"identity": (claims["identity"], 1), "swap": (claims["swapped"], ____), ...}`, and then a list comprehension with `if not ____`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "1502bdbcb87640286bdbfb299afae4b4", "grade": false, "grade_id": "broken_laws", "locked": false, "schema_version": 3, "solution": true, "task": false}
def broken_laws(claims, c):
    """Those of "identity", "swap", "scale", "shear" that the claimed determinants break, in this order."""
    det = claims["A"]
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -det),
        "scale": (claims["scaled"], c * det),
        "shear": (claims["sheared"], det),
    }
    return [
        law
        for law, (left, right) in laws.items()
        if not math.isclose(left, right, rel_tol=1e-6) or math.isinf(left)
    ]


# %% nbgrader={"cell_type": "code", "checksum": "45a288fec48bf621350de8a8e420ec7c", "grade": true, "grade_id": "broken_laws_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check broken_laws: 1 point.
from itertools import permutations

import numpy as np
from autograder import check


def claims_of(det, A, c):
    swapped, scaled, sheared = A[[1, 0, *range(2, len(A))]], A.copy(), A.copy()
    scaled[0] *= c
    sheared[1] += c * A[0]
    asked = {"identity": np.eye(len(A)), "A": A, "swapped": swapped, "scaled": scaled, "sheared": sheared}
    return {name: float(det(M)) for name, M in asked.items()}


def permanent(A):
    """Laplace expansion without the alternating sign."""
    return sum(np.prod(A[range(len(A)), p]) for p in permutations(range(len(A))))


rng = np.random.default_rng(0)
A, c = rng.normal(size=(3, 3)), -1.7
suspects = [
    (np.linalg.det, []),
    (permanent, ["swap", "shear"]),
    (lambda M: abs(np.linalg.det(M)), ["swap", "scale"]),
    (lambda M: np.linalg.det(2 * M), ["identity"]),
    (lambda M: np.nan, ["identity", "swap", "scale", "shear"]),
    (lambda M: np.inf, ["identity", "swap", "scale", "shear"]),
    (lambda M: 1e-200 * permanent(M), ["identity", "swap", "shear"]),
    (lambda M: 1e200 * np.linalg.det(M), ["identity"]),
]
cases = [(claims_of(det, A, c), c) for det, _ in suspects]
answers = iter([answer for _, answer in suspects])
check.values("determinants.broken_laws", cases, reference=lambda claims, c: next(answers))


# %% nbgrader={"cell_type": "code", "checksum": "e706e3cac4f2cd9ef6f78b4e2fe41197", "grade": true, "grade_id": "broken_laws_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 1 point.

# %% [markdown]
# ## 3. Structure, and a stopwatch
#
# Elimination works hard to reach a triangle. A flow's designer can start from one. If $z_i$ depends on $x_1, \dots, x_i$ only, then $\partial z_i/\partial x_j = 0$ for $j > i$: the Jacobian is a *triangular matrix*, and
#
# $$\log\lvert\det J\rvert = \sum_i \log\left\lvert\frac{\partial z_i}{\partial x_i}\right\rvert$$
#
# costs $n$ logarithms. What stands below the diagonal, however wild, does not enter: that is where a neural network may do as it likes. If the variables come in groups, and each depends on itself and earlier groups only, the Jacobian is a *block-triangular matrix*, and the determinants of its diagonal blocks multiply:
#
# $$\det\begin{pmatrix} P & 0 \\ R & Q \end{pmatrix} = \det\begin{pmatrix} P & 0 \\ R & I \end{pmatrix}\det\begin{pmatrix} I & 0 \\ 0 & Q \end{pmatrix} = \det P\,\det Q .$$
#
# For the last step, expand the first factor along its last column, again and again, and the second along its first row. An upper block triangle is the transpose of a lower one.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "563b83bca253f3bf48833b500d89f491", "grade": false, "grade_id": "block_slogdet_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 4: triangles and blocks
#
# difficulty 2 of 5 · importance 5 of 5 · 8 minutes · 3 points
#
# Write `block_slogdet(J, sizes)`: `J` has shape `(..., n, n)`, one block-triangular Jacobian for each point, and `sizes` is the list of the sizes of its diagonal blocks, from the upper left to the lower right. Return the pair `(sign, log_abs_det)`, each of shape `(...)`.
#
# A triangular matrix is the case in which all sizes are 1. Read nothing but the diagonal blocks: in the tests, the others hold anything, even `nan`. You may use `np.linalg.slogdet`, which takes `(..., m, m)`, on a block. For example, with `sizes = [2, 1]` the blocks of a matrix are `J[:2, :2]` and `J[2:, 2:]`.
#
# <details><summary>"I get -inf in 40 dimensions"</summary>
#
# The determinants of the blocks were multiplied, and their product is below the smallest float. What becomes of a product under the logarithm?
#
# </details>
# <details><summary>"LinAlgError: Last 2 dimensions of the array must be square"</summary>
#
# `J[a:b, c:d]` takes the first two axes, which in a batch count points. You want the last two: `J[..., a:b, c:d]`.
#
# </details>
# <details><summary>A template</summary>
#
# `sign, total, start = np.ones(____), np.zeros(____), 0`, and for each size: `s, l = np.linalg.slogdet(J[..., ____, ____])`, then update all three.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "29adfceca005b657b8a57408e8f4d9f0", "grade": false, "grade_id": "block_slogdet", "locked": false, "schema_version": 3, "solution": true, "task": false}
def block_slogdet(J, sizes):
    """(sign, log abs det) of a block-triangular matrix, from its diagonal blocks. J: (..., n, n) -> (...), (...)."""
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        block = slice(start, start + size)
        block_sign, block_log = np.linalg.slogdet(J[..., block, block])
        sign, total, start = sign * block_sign, total + block_log, start + size
    return sign, total


# %% nbgrader={"cell_type": "code", "checksum": "170be46e2d0ded9d39c446d6b09d44d7", "grade": true, "grade_id": "block_slogdet_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check block_slogdet: 1 point.
import numpy as np
from autograder import check


def whole(J, sizes):
    """The slow specification: the determinant of the whole matrix, zeros and all."""
    full, b = np.zeros_like(J), 0
    for size in sizes:
        a, b = b, b + size
        full[..., a:b, a:b] = J[..., a:b, a:b]
    sign, log_abs_det = np.linalg.slogdet(full)
    return sign, log_abs_det


rng = np.random.default_rng(0)
lower = np.tril(rng.normal(size=(4, 4)))
lower[2, 2] = -abs(lower[2, 2])
blocks = rng.normal(size=(5, 5))
blocks[:2, 2:] = 0
batch = rng.normal(size=(3, 5, 5))
batch[:, 2:, :2] = np.nan
batch[:, :2, 2:] = 0
cases = [(lower, [1, 1, 1, 1]), (blocks, [2, 3]), (batch, [2, 3])]
cases += [(1e-9 * np.eye(40), sizes) for sizes in ([1] * 40, [40])]
check.values("determinants.block_slogdet", cases, whole)


# %% nbgrader={"cell_type": "code", "checksum": "393d847410de7aa1d08b2c9930b20a04", "grade": true, "grade_id": "block_slogdet_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "a92f77628fe2f68c678d15ff2b28eee1", "grade": false, "grade_id": "fitted_growth_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 5: the law behind the stopwatch
#
# difficulty 3 of 5 · importance 4 of 5 · 12 minutes · 2 points
#
# Costs $t_1, t_2, \dots$ at sizes $n_1, n_2, \dots$ should follow one of two laws,
#
# $$t = c\,n^p \quad\text{or}\quad t = c\,(n!)^p .$$
#
# Take logarithms, and each law becomes a straight line: $\log t$ against $\log n$, or against $\log n!$. The slope is the exponent $p$.
#
# Write `fitted_growth(n, cost)` for two arrays of the same length. Fit both lines by least squares, keep the one with the smaller sum of squared residuals, and return `("power", p)` or `("factorial", p)`. Sizes go up to a thousand, and $1000!$ is no float: `math.lgamma(n + 1)` is $\log n!$, for one number `n` at a time.
#
# For example, the costs 1, 8, 64 at n = 1, 2, 4 give `("power", 3.0)`. Below, your function reads the law off exact counts; lines of that law are then fitted to counts and to measured seconds, which takes a while.
#
# <details><summary>"OverflowError, or inf, for large n"</summary>
#
# You built $n!$ and then took its logarithm. Go to the logarithm directly.
#
# </details>
# <details><summary>"My exponent is near zero or enormous"</summary>
#
# Both axes are logarithmic: did you take the logarithm of the cost as well as that of the size?
#
# </details>
# <details><summary>A template</summary>
#
# For each law an array `u`; `slope, offset = np.polyfit(u, ____, 1)`; `residual = np.sum((____) ** 2)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "0ae8833c172f307dfe188b9ef52a2b5d", "grade": false, "grade_id": "fitted_growth", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fitted_growth(n, cost):
    """("power", p) or ("factorial", p): the law that fits log cost better, and its exponent. n, cost: (N,)."""
    y = np.log(cost)
    logs = {"power": np.log(n), "factorial": np.array([math.lgamma(k + 1) for k in n])}
    fits = []
    for law, u in logs.items():
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, slope))
    _, law, slope = min(fits)
    return law, slope


# %% nbgrader={"cell_type": "code", "checksum": "742f8fd293482d6b514100df98b85bc8", "grade": true, "grade_id": "fitted_growth_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check fitted_growth: 1 point.
import math

import numpy as np
from autograder import check


def by_correlation(n, cost):
    """Of two lines, the one with the larger squared correlation leaves the smaller residual."""
    y = np.log(cost)
    axes = {"power": np.log(n), "factorial": np.array([math.lgamma(k + 1) for k in n])}
    law = max(axes, key=lambda name: np.corrcoef(axes[name], y)[0, 1] ** 2)
    u = axes[law]
    return law, np.mean((u - u.mean()) * (y - y.mean())) / np.var(u)


n = np.array([2, 3, 5, 8])
cases = [
    (np.array([1, 2, 4]), np.array([1.0, 8.0, 64.0])),
    (n, np.array([math.factorial(k) for k in n]) * 2e-6),
    (np.array([100, 200, 400, 800]), np.array([0.011, 0.019, 0.042, 0.081])),
]
check.values("determinants.fitted_growth", cases, by_correlation)

# %% nbgrader={"cell_type": "code", "checksum": "1be49302cc820de3b57ca4ec8096bf1d", "grade": true, "grade_id": "fitted_growth_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 1 point.

# %% tags=["show", "hide-input"]
import time

from flowkit import determinants as reference
from threadpoolctl import threadpool_limits


def lu_reference(A):
    factors = reference.lu(A)
    return factors.upper, factors.sign


def growth_reference(n, cost):
    u = {"power": np.log(n), "factorial": np.array([math.lgamma(k + 1) for k in n])}
    residuals = {law: np.polyfit(u[law], np.log(cost), 1, full=True)[1][0] for law in u}
    law = min(residuals, key=residuals.get)
    return law, np.polyfit(u[law], np.log(cost), 1)[0]


def cpu_seconds(run, *arguments):
    """Of this process alone: what else the machine does is not counted."""
    start = time.process_time()
    run(*arguments)
    return time.process_time() - start


def median_seconds(run, matrices):
    """For each matrix; they take turns, so that a slow moment does not fall on one size alone."""
    times, end = [], time.perf_counter() + 1.5
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 50):
        times.append([cpu_seconds(run, A) for A in matrices])
    return np.median(times, axis=0)


expand = check.yours("determinants.laplace", otherwise=reference.laplace)
reduce_rows = check.yours("determinants.eliminate", otherwise=lu_reference)
by_blocks = check.yours("determinants.block_slogdet", otherwise=reference.slogdet_block_triangular)
growth = check.yours("determinants.fitted_growth", otherwise=growth_reference)
methods = {  # sizes to try, until one takes too long; what to time; what to count
    "Laplace expansion": ((4, 5, 6, 7, 8), expand, lambda A: expand(A)[1]),
    "elimination": ((20, 40, 80, 160, 240, 360, 540, 760), reduce_rows, lambda A: (len(A) ** 3 - len(A)) / 3),
    "triangular": ((64, 128, 256, 512, 1024), lambda A: by_blocks(A, [1] * len(A)), len),
}
rng = np.random.default_rng(0)
fig, axes = plots.figure(columns=2)
for colour, marker, (name, (sizes, run, count)) in zip(
    (plots.ORANGE, plots.BLUE, plots.GREEN), "os^", methods.items(), strict=True
):
    matrices = []
    for k in sizes:
        matrices.append(rng.normal(size=(k, k)))
        with threadpool_limits(1):
            enough = cpu_seconds(run, matrices[-1]) > 0.3
        if enough:
            break
    matrices = matrices[-5:]  # at small sizes the overhead of Python rules
    n = np.array([len(A) for A in matrices])
    with threadpool_limits(1):  # threads that wait for one another would be counted as work
        times = median_seconds(run, matrices)
    costs = times, np.array([float(count(A)) for A in matrices])
    law, _ = growth(
        n, costs[1]
    )  # the exact counts decide which law it is, the slopes are then fitted to both
    u = np.log(n) if law == "power" else np.array([math.lgamma(k + 1) for k in n])
    exponents = [np.polyfit(u, np.log(cost), 1)[0] for cost in costs]
    print(
        f"{name:18} law: {law:9}  exponent from seconds {exponents[0]:.2f}, from multiplications {exponents[1]:.2f}"
    )
    for ax, cost, p in zip(axes, costs, exponents, strict=True):
        line = np.exp(np.log(cost).mean() + p * (u - u.mean()))
        symbol = "n" if law == "power" else "(n!)"
        ax.plot(n, cost, marker, color=colour, linestyle="none")
        ax.plot(n, line, color=colour, linestyle="-", label=f"{name}: ${symbol}^{{{p:.2f}}}$")
for ax, ylabel in zip(axes, ("CPU seconds (median)", "multiplications"), strict=True):
    ax.set(xscale="log", yscale="log", xlabel="rows of the matrix, n", ylabel=ylabel)
    ax.set_ylim(top=100 * ax.get_ylim()[1])  # room for the legend
    ax.legend(fontsize=8, loc="upper left")
plots.show(
    fig,
    alt="Two charts on logarithmic axes, of seconds and of multiplications against n. Elimination and the triangular matrix give straight lines, the first three times as steep in multiplications. Laplace expansion bends upwards, and follows n factorial.",
)

# %% [markdown]
# The counts are exact, and their exponents are those of the theory. The seconds only come near: every step of a loop has an overhead that no multiplication explains. Over so few sizes, seconds alone may even prefer a tiny power of $n!$ to $n^3$.
#
# ## 4. Low rank: the matrix determinant lemma
#
# Not every useful Jacobian is triangular. From here on the size is called $d$: the number of variables, lesson 02's $D$, small because capitals are matrices here. Suppose $J = A + VW^\top$, where $A$ is diagonal and $V$ and $W$ have $d$ rows and only $m$ columns: every variable acts on every other, but through a bottleneck $m$ wide. The *matrix determinant lemma* says that an $m \times m$ determinant is then enough. To prove it, stack a larger matrix of size $d + m$ and make it block-triangular in two ways, by shears of whole blocks of rows:
#
# $$M = \begin{pmatrix} A & -V \\ W^\top & I \end{pmatrix} .$$
#
# *First way.* Add $V$ times the lower rows to the upper rows. The upper right block becomes $-V + V = 0$, the upper left one $A + VW^\top$. So $\det M = \det(A + VW^\top)\det I$. The cell checks it; the second way is yours.

# %% tags=["show"]
rng = np.random.default_rng(0)
d, m = 4, 2
a, V, W = rng.uniform(1, 2, size=d), rng.normal(size=(d, m)), rng.normal(size=(d, m))
M = np.block([[np.diag(a), -V], [W.T, np.eye(m)]])
shear = np.block([[np.eye(d), V], [np.zeros((m, d)), np.eye(m)]])
fig, axes = plots.figure(columns=2)
for ax, matrix, title in zip(
    axes, (M, shear @ M), ("M (hatched: exactly 0)", "after the first way"), strict=True
):
    plots.matrix(ax, np.where(np.abs(matrix) < 1e-12, 0, matrix))
    ax.axhline(d - 0.5, color=plots.BLACK)  # the blocks meet behind row and column d
    ax.axvline(d - 0.5, color=plots.BLACK)
    ax.set_title(title)
plots.show(
    fig,
    alt="Two 6 x 6 heat maps. In M, the upper left 4 x 4 block is diagonal. After the shear, the upper right 4 x 2 block is zero, and the upper left block is full.",
)
print(f"det M = {np.linalg.det(M):.6f},  det(A + V W^T) = {np.linalg.det(np.diag(a) + V @ W.T):.6f}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "5b0b2888dd2d2b9db1ced9400fe2872d", "grade": false, "grade_id": "lemma_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 6: prove the lemma, and use it
#
# difficulty 4 of 5 · importance 5 of 5 · 18 minutes · 3 points
#
# *Second way.* Subtract $X$ times the upper rows of $M$ from the lower rows. Which matrix $X$, of shape `(m, d)`, makes the lower left block zero, and what does the lower right block become? Call it $S$. On paper, write $\det M$ by its diagonal blocks once more, and compare with the first way: that is the lemma.
#
# Type the result: `lemma(a, V, W)`, where `a` of shape `(d,)` is the diagonal of $A$, without zeros, and `V` and `W` have shape `(d, m)`. Return the four values `(X, S, sign, log_abs_det)`, the last two for $A + VW^\top$.
#
# Never build a $d \times d$ matrix: the hidden tests have $d = 30{,}000$, where it would take 7 gigabytes, and the public test looks at the memory that you use. Your cost is $O(dm^2 + m^3)$, where elimination takes $O(d^3)$. Entries of `a` may be negative. You may use `np.linalg.slogdet`.
#
# <details><summary>"What is X?"</summary>
#
# The new lower left block is $W^\top - XA$. Set it to zero. To multiply by the inverse of a diagonal matrix is to divide columns, or rows: which? `W.T` has shape `(m, d)`, and `/ a` divides along the last axis.
#
# </details>
# <details><summary>"MemoryError"</summary>
#
# Somewhere a matrix has $d$ rows and $d$ columns: `np.diag(a)`, or a product in the wrong order. $S$ is the product of an $m \times d$ and a $d \times m$ matrix, and something.
#
# </details>
# <details><summary>"The size is right and the sign is not"</summary>
#
# The sign of $\det A$ is the product of the signs of its diagonal.
#
# </details>
# <details><summary>A template</summary>
#
# `X = ____ / a`, `S = np.eye(____) + ____`, `sign, log_abs_det = np.linalg.slogdet(S)`, and then what $A$ contributes to each.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "ba9a5312b62966ae3538b9b8e179b527", "grade": false, "grade_id": "lemma", "locked": false, "schema_version": 3, "solution": true, "task": false}
def lemma(a, V, W):
    """(X, S, sign, log abs det) for diag(a) + V W^T. a: (d,); V, W: (d, m); X: (m, d); S: (m, m). O(d m^2 + m^3)."""
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


# %% nbgrader={"cell_type": "code", "checksum": "2da32ecaf22b69993a020381cdc07863", "grade": true, "grade_id": "lemma_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check lemma: 1 point.
import tracemalloc

import numpy as np
from autograder import check


def by_force(a, V, W):
    """The slow specification: invert the large matrix M; the lower right block of its inverse is that of S."""
    d, m = V.shape
    M = np.block([[np.diag(a), -V], [W.T, np.eye(m)]])
    S = np.linalg.inv(np.linalg.inv(M)[d:, d:])
    sign, log_abs_det = np.linalg.slogdet(np.diag(a) + V @ W.T)
    return W.T @ np.diag(1 / a), S, sign, log_abs_det


def sparingly(lemma, a, V, W):
    """What lemma returns. It is called on many variables with an eye on the memory."""
    tracemalloc.start()
    try:
        returned, peak = lemma(a, V, W), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if len(a) >= 100 and peak >= 8 * len(a) ** 2:
        raise MemoryError(f"for d = {len(a)}, a matrix of d rows and d columns was built")
    return returned


rng = np.random.default_rng(0)
cases = [
    (rng.uniform(0.5, 2, size=d) * signs, rng.normal(size=(d, m)), rng.normal(size=(d, m)))
    for d, m, signs in ((4, 2, 1), (2, 1, 1), (5, 3, np.array([1, -1, -1, 1, -1])))
]
d = 100
cases.append((-rng.uniform(0.001, 0.01, size=d), rng.normal(size=(d, 2)), rng.normal(size=(d, 2))))
check.values("determinants.lemma", cases, by_force, use=sparingly)

# %% nbgrader={"cell_type": "code", "checksum": "3148e134e8d848393c1102ef3358ce8f", "grade": true, "grade_id": "lemma_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show"]
predict(
    "d = 300. Up to which rank m does the lemma take fewer multiplications than elimination?",
    [
        "up to about 17, the square root of 300",
        "up to about 160, a little over one half",
        "up to nearly 300",
    ],
)


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "21bfb7074990b50428284110af7e4f61", "grade": false, "grade_id": "crossover_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 7: where the lemma stops paying
#
# difficulty 3 of 5 · importance 3 of 5 · 10 minutes · 3 points
#
# Count multiplications and divisions:
#
# - elimination of an $n \times n$ matrix: $(n^3 - n)/3$;
# - the lemma: $dm$ for $X$, $dm^2$ for $XV$, and the elimination of the $m \times m$ matrix $S$.
#
# Write `crossover(d)`: the largest whole $m$ for which the lemma takes *fewer* of them than the elimination of the $d \times d$ matrix, or 0 if there is none. Compute with whole numbers; $d$ goes up to 5,000. For example, `crossover(3)` is 1: the lemma takes 6 against 8 for $m = 1$, and 20 for $m = 2$.
#
# Below, your function draws the line on the left; on the right a stopwatch checks it, which takes some seconds.
#
# <details><summary>"I am off by one"</summary>
#
# A loop that stops at the first $m$ for which the lemma loses has gone one too far.
#
# </details>
# <details><summary>"It is right for small d and far off for large d"</summary>
#
# When $m$ is comparable to $d$, no term may be dropped: $m^3/3$ is then as large as $dm^2$.
#
# </details>
# <details><summary>A template</summary>
#
# `def lemma_cost(m): return d * m + ____ + ____`, and `while lemma_cost(m + 1) < ____: m += 1`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "73011c4c94ad7ffbd654319ab5cc8550", "grade": false, "grade_id": "crossover", "locked": false, "schema_version": 3, "solution": true, "task": false}
def crossover(d):
    """The largest m for which the lemma takes fewer multiplications than elimination of a d x d matrix, or 0."""

    def elimination_cost(n):
        return (n**3 - n) // 3

    m = 0
    while d * (m + 1) + d * (m + 1) ** 2 + elimination_cost(m + 1) < elimination_cost(d):
        m += 1
    return m


# %% nbgrader={"cell_type": "code", "checksum": "62c5666b29e596d49044e592326a92dd", "grade": true, "grade_id": "crossover_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check crossover: 1 point.
from autograder import check


def steps_of_elimination(n):
    """In step k, k divisions and k^2 multiplications, for k = n-1, ..., 1."""
    return sum(k + k * k for k in range(n))


def by_counting(d):
    wins = [
        m for m in range(1, d + 1) if d * m + d * m * m + steps_of_elimination(m) < steps_of_elimination(d)
    ]
    return max(wins, default=0)


check.values("determinants.crossover", [(d,) for d in (1, 2, 3, 4, 10, 12, 59, 100)], by_counting)


# %% nbgrader={"cell_type": "code", "checksum": "18ec947e33ccbd1892c069d6c567c5e2", "grade": true, "grade_id": "crossover_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def least_milliseconds(run, *arguments):
    """Of many calls: what disturbs a call can only make it longer."""
    times, end = [], time.perf_counter() + 0.1
    while len(times) < 5 or time.perf_counter() < end:
        times.append(cpu_seconds(run, *arguments))
    return 1e3 * min(times)


def lemma_reference(a, V, W):
    X = W.T / a
    return X, None, *reference.slogdet_lemma(a, V, W)


def crossover_reference(d):
    m = np.arange(d + 1)
    return int(np.flatnonzero(3 * d * m + 3 * d * m**2 + m**3 - m < d**3 - d).max(initial=0))


use_lemma = check.yours("determinants.lemma", otherwise=lemma_reference)
rng = np.random.default_rng(0)
shares = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 1.0])
watch = {}
for d in (100, 300, 500):
    a, V, W = rng.uniform(1, 2, size=d), rng.normal(size=(d, d)) / d, rng.normal(size=(d, d))
    ranks = np.maximum(1, (shares * d).astype(int))
    with threadpool_limits(1):
        by_lemma = np.array([least_milliseconds(use_lemma, a, V[:, :m], W[:, :m]) for m in ranks])
        by_elimination = least_milliseconds(np.linalg.slogdet, np.diag(a) + V @ W.T)
    watch[d] = ranks, by_lemma, by_elimination


def draw_crossover(scene, d, percent):
    line = check.yours("determinants.crossover", otherwise=crossover_reference)(d)
    m = max(1, d * percent // 100)
    ranks = np.arange(1, d + 1)
    lemma_count = (d * ranks + d * ranks**2 + (ranks**3 - ranks) / 3) / 1e6
    elimination = (d**3 - d) / 3e6
    counted, timed = scene.panel(0, of=2), scene.panel(1, of=2)
    counted.axes(
        x=(0, d),
        y=(0, 4.5 * elimination),
        xlabel="rank m",
        ylabel="millions of multiplications",
        title="counted",
    )
    counted.curve(ranks, lemma_count, colour=plots.ORANGE, label="lemma")
    counted.curve([0, d], [elimination] * 2, colour=plots.BLUE, dash="dashed", label="elimination")
    counted.curve([line, line], [0, 4.5 * elimination], colour=plots.GREY, dash="dotted", label="crossover")
    counted.points([m], [lemma_count[m - 1]], colour=plots.ORANGE, size=9)
    at, by_lemma, by_elimination = watch[d]
    timed.axes(
        x=(0, d),
        y=(0, 1.15 * max(by_lemma.max(), by_elimination)),
        xlabel="rank m",
        ylabel="milliseconds",
        title="measured here",
    )
    timed.curve(at, by_lemma, colour=plots.ORANGE, label="lemma")
    timed.points(at, by_lemma, colour=plots.ORANGE)
    timed.curve([m, m], [0, np.interp(m, at, by_lemma)], colour=plots.GREY, dash="dotted", label="m")
    timed.curve([0, d], [by_elimination] * 2, colour=plots.BLUE, dash="dashed", label="slogdet")
    ratio = lemma_count[m - 1] / elimination
    return f"d = {d}, m = {m}: the lemma takes {ratio:.3g} times the multiplications of elimination; counted, it pays up to m = {line}, which is {line / d:.2f} d."


play(
    draw_crossover,
    d=choice([100, 300, 500], value=300, label="dimensions d"),
    percent=slider(1, 100, 10, label="rank m, in percent of d"),
)

# %% [markdown]
# ## What you have seen
#
# - Four laws define the determinant, and they test it too.
# - Laplace expansion takes about $1.72\,n!$ multiplications; zeros make it cheap, if they are met early.
# - Elimination takes $(n^3 - n)/3$; each swap flips the sign.
# - Triangular and block-triangular Jacobians cost their diagonal; the rest of them is free to do anything.
# - A diagonal plus rank $m$ costs $O(dm^2 + m^3)$. It pays, counted, up to $m \approx 0.53\,d$ (for large $d$ the counts meet at $3\mu^2 + \mu^3 = 1$, $\mu = m/d$); on the clock the line lies elsewhere, since not every multiplication takes the same time.
#
# So the determinant of an arbitrary Jacobian of a small photograph costs ten billion multiplications *a point*, and we avoid that by never making such a Jacobian. Every flow of the coming lessons is a way to know, in advance, which entries of $J$ are zero, or through which bottleneck they come.
#
# **The words of this lesson**
#
# | English | 한국어 | Polski | 中文 | What it means |
# | :-- | :-- | :-- | :-- | :-- |
# | Laplace expansion | 라플라스 전개 | rozwinięcie Laplace'a | 拉普拉斯展开 | The determinant as a sum over one row: each entry times its cofactor. |
# | cofactor | 여인수 | dopełnienie algebraiczne | 代数余子式 | The determinant of what is left of a matrix without one row and one column, with the sign of that place. |
# | LU decomposition | LU 분해 | rozkład LU | LU 分解 | A matrix, its rows permuted, written as a lower triangular times an upper triangular matrix: elimination, recorded. |
# | partial pivoting | 부분 피벗팅 | częściowy wybór elementu głównego | 部分主元法 | Swapping the largest entry of what is left of a column to the diagonal before it is eliminated. |
# | triangular matrix | 삼각행렬 | macierz trójkątna | 三角矩阵 | A matrix with only zeros on one side of its diagonal; its determinant is the product of the diagonal. |
# | block-triangular matrix | 블록 삼각행렬 | macierz blokowo-trójkątna | 分块三角矩阵 | A matrix of blocks with only zeros on one side of the diagonal blocks; its determinant is the product of theirs. |
# | Hadamard's inequality | 아다마르 부등식 | nierówność Hadamarda | 阿达马不等式 | The absolute determinant is at most the product of the lengths of the rows, and equal when these are orthogonal. |
# | matrix determinant lemma | 행렬식 보조정리 | lemat o wyznaczniku macierzy | 矩阵行列式引理 | The determinant of an invertible matrix plus one of rank m, by way of an m by m determinant. |
#
# **Where it is used.** In factor analysis covariance matrices are "diagonal plus low rank", and their log-determinants come from the lemma.
#
# **Further reading.** Trefethen and Bau, *Numerical Linear Algebra* (1997) tell why pivoting works. Papamakarios and others, *Normalizing flows for probabilistic modeling and inference* (2021), section 3, sorts flows by the structure of their Jacobians.
#
# **What flows cost.** In the table, $D$ is again the number of variables. *Dense linear, by LU* is $z = Ax$ with a full $A$, eliminated once for all points.

# %% tags=["show"]
from flowkit.lab import costs

costs.show(topic="determinants", seed=0)
