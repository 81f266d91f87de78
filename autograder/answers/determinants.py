"""Answers to lesson 04, determinants."""

import math

import numpy as np

from autograder.answers import right, wrong

# laplace: the determinant and the number of multiplications, with or without a memo.


@right("laplace")
def by_deleting_rows_and_columns(A, memo=False):
    known = {}

    def expand(M, columns):
        if M.shape == (1, 1):
            return M[0, 0], 0
        if memo and columns in known:
            return known[columns], 0
        det, count = 0.0, 0
        for j in np.flatnonzero(M[0]):
            rest = np.delete(M[1:], j, axis=1)
            below, cost = expand(rest, columns[:j] + columns[j + 1 :])
            det = det - M[0, j] * below if j % 2 else det + M[0, j] * below
            count += 1 + cost
        known[columns] = det
        return det, count

    return expand(np.asarray(A), tuple(range(len(A))))


@right("laplace")
def with_a_set_of_columns_as_bits(A, memo=False):
    n, counter, known = len(A), [0], {}

    def minor(i, used):
        if memo and used in known:
            return known[used]
        free = [j for j in range(n) if not used >> j & 1]
        if i == n - 1:
            return A[i][free[0]]
        det, sign = 0, 1
        for j in free:
            if A[i][j] != 0:
                det = det + sign * A[i][j] * minor(i + 1, used | 1 << j)
                counter[0] += 1
            sign = -sign
        known[used] = det
        return det

    return minor(0, 0), counter[0]


@wrong(
    "laplace",
    "All terms are added, and every second one is to be subtracted: this is the permanent of the matrix. "
    "Which law of the determinant does it break?",
    "In the formula stands (-1)^j. Where is it in your loop?",
)
def without_signs(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += row[j] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "A 2 x 2 matrix comes out right, and within a minor the signs go astray. You take the sign from the "
    "column's number "
    "in A: when columns have been removed, is the first entry of the minor still in column 0?",
)
def sign_of_the_column_in_the_whole_matrix(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** j * row[j] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "Your signs begin with a minus: a 2 x 2 matrix comes out with the opposite sign. The textbook's "
    "(-1)^(i+j) is the same "
    "whether you count from 0 or from 1, as long as row and column are counted alike. Which sign has the "
    "corner?",
)
def signs_begin_with_minus(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** (place + 1) * row[j] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right, and you multiply more often than you need: the minor of a zero entry is "
    "worked out too. "
    "What will it be multiplied by?",
)
def zeros_not_skipped(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            inner, cost = minor(columns[:place] + columns[place + 1 :])
            total += (-1) ** place * row[j] * inner
            count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "Without the memo all is right. With it you report as many multiplications as without. Is a minor that "
    "has been worked "
    "out looked up the second time, and what do you add to the count for a look-up?",
)
def memo_without_effect(A, memo=False):
    n = len(A)

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[j] * inner
                count += cost + 1
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "Without the memo all is right. Your memo tells minors apart by their size alone, and hands out the "
    "wrong one. "
    "What distinguishes two minors of the same size?",
)
def memo_by_size(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if len(columns) in known:
            return known[len(columns)], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[j] * inner
                count += cost + 1
        if memo:
            known[len(columns)] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right; your count charges for 1 x 1 minors too. Reading off an entry multiplies "
    "nothing.",
)
def single_entries_counted(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 1
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


@wrong(
    "laplace",
    "The determinants are right; you count the products in the first row only. "
    "What did each minor cost before it was multiplied?",
)
def cost_of_minors_lost(A, memo=False):
    n = len(A)

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, _ = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[j] * inner
                count += 1
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "A 2 x 2 matrix comes out right. Within a minor you look up the entry by its place in the minor; row is"
    " a row of A, where columns that have been removed still stand. Which number does the entry have there?",
)
def place_instead_of_the_column(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place in range(len(columns)):
            if row[place] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[place] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The right entries are asked whether they are zero, and others are multiplied: place counts within the "
    "minor, and row is a row of A. Which number does the entry have there?",
)
def place_in_the_product(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                inner, cost = minor(columns[:place] + columns[place + 1 :])
                total += (-1) ** place * row[place] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right, and your count is 0 throughout: you add what the minors cost, and they "
    "cost nothing unless somebody counts a product. Where does an entry meet its minor?",
)
def terms_not_counted(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
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
                count += cost
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right, and your count is twice what is asked for: you charge for the sign too. "
    "Signs are free.",
)
def two_for_each_term(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
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
                count += cost + 2
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right. You charge n multiplications for every term, n the size of A. How many "
    "does an entry times its minor take?",
)
def size_of_the_matrix_for_each_term(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
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
                count += cost + n
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right. The number of entries of the row is charged once in every turn of the "
    "loop, and the loop already takes a turn for each entry.",
)
def size_of_the_minor_for_each_term(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
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
                count += cost + len(columns)
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "The determinants are right. Your memo is at work when memo=False too, so the count is too small there.",
)
def memo_always(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
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
        known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "Without the memo all is right. With it you leave out the product of an entry with a minor that was looked up: the look-up is free, and the product still counts.",
)
def product_with_a_known_minor_free(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        total, count = 0, 0
        for place, j in enumerate(columns):
            if row[j] != 0:
                left = columns[:place] + columns[place + 1 :]
                if left in known:
                    inner, cost = known[left], -1
                else:
                    inner, cost = minor(left)
                total += (-1) ** place * row[j] * inner
                count += cost + 1
        if memo:
            known[columns] = total
        return total, count

    return minor(tuple(range(n)))


@wrong(
    "laplace",
    "Without the memo all is right. With it you charge for the look-up as well as for the product. Which of the two is a multiplication?",
)
def look_up_charged(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if columns in known:
            return known[columns], 1
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


@wrong(
    "laplace",
    "The determinants are right. You expand down to the empty matrix, and a 1 x 1 matrix then costs a multiplication by 1. What shall it cost?",
)
def down_to_the_empty_matrix(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        if not columns:
            return 1.0, 0
        if columns in known:
            return known[columns], 0
        row = A[n - len(columns)]
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


def _same(det, wanted):
    return bool(np.isclose(det, wanted, rtol=1e-6, atol=1e-8))


def _charges_two_for_every_2_x_2(returned, A, memo=False):
    """With the memo the count depends on whether the shortcut comes before it; then it is at least too "
    "large."""
    (det, count), (wanted, least) = returned, with_a_set_of_columns_as_bits(A, memo)
    return _same(det, wanted) and (count >= least if memo else count == formula_for_2_x_2(A)[1])


@wrong(
    "laplace",
    "The determinant is right. What does a 2 x 2 minor with a zero in it cost?",
    "You charge two multiplications for a d - b c always. The expansion skips an entry of the upper row "
    "that is zero.",
    when=_charges_two_for_every_2_x_2,
)
def formula_for_2_x_2(A, memo=False):
    n, known = len(A), {}

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if len(columns) == 2:
            i, j = columns
            return row[i] * A[n - 1][j] - row[j] * A[n - 1][i], 2
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


def _finds_the_whole_matrix_in_its_memo(returned, A, memo=False):
    """With the memo, nothing is multiplied at all; else it is right, perhaps with a memo that was not asked "
    "for."""
    det, count = returned
    wanted = [with_a_set_of_columns_as_bits(A, m) for m in (memo, True)]
    return (memo and count == 0) or (_same(det, wanted[0][0]) and count in [c for _, c in wanted])


@wrong(
    "laplace",
    "For some matrices you report no multiplication at all: the whole determinant was found in the "
    "dictionary. "
    "Does it survive from the previous call?",
    when=_finds_the_whole_matrix_in_its_memo,
)
def memo_survives(A, memo=False, known={}):  # noqa: B006
    n = len(A)

    def minor(columns):
        row = A[n - len(columns)]
        if len(columns) == 1:
            return row[columns[0]], 0
        if memo and columns in known:
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


# eliminate: (U, sign) by Gaussian elimination with partial pivoting.


@right("eliminate")
def row_after_row(A):
    U, sign, n = A.astype(float), 1, len(A)
    for k in range(n):
        p = max(range(k, n), key=lambda i: abs(U[i, k]))
        if U[p, k] == 0:
            continue
        if p > k:
            U[k], U[p] = U[p].copy(), U[k].copy()
            sign *= -1
        for i in range(k + 1, n):
            U[i] = U[i] - U[i, k] / U[k, k] * U[k]
    return U, sign


@right("eliminate")
def with_inversions_for_the_sign(A):
    U, n = np.array(A, dtype=float), len(A)
    order = np.arange(n)
    for k in range(n - 1):
        p = k + int(np.abs(U[k:, k]).argmax())
        U[[k, p]], order[[k, p]] = U[[p, k]], order[[p, k]]
        if U[k, k]:
            U[k + 1 :] = U[k + 1 :] - U[k + 1 :, [k]] / U[k, k] * U[k]
    inversions = sum(int(order[i] > order[j]) for j in range(n) for i in range(j))
    return np.triu(U), (-1) ** inversions


@wrong(
    "eliminate",
    "Two of your rows have become equal: U[k], U[p] = U[p], U[k] swaps views, and the second assignment "
    "reads a row that "
    "the first has overwritten already. How do you make NumPy copy both?",
)
def swap_of_views(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[k], U[p] = U[p], U[k]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "U is right, and your sign is always 1. What does a swap of two rows do to the determinant?",
)
def swaps_not_counted(A):
    U = np.array(A, dtype=float)
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        U[[k, p]] = U[[p, k]]
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, 1


@wrong(
    "eliminate",
    "U is right, and your sign flips at every step, even where the pivot already stands in its row. "
    "Is that a swap?",
)
def sign_flips_at_every_step(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        U[[k, p]] = U[[p, k]]
        sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "You never swap, and divide by whatever stands on the diagonal: a zero there ends in inf and nan.",
)
def no_pivoting(A):
    U = np.array(A, dtype=float)
    for k in range(len(U)):
        U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, 1


@wrong(
    "eliminate",
    "You never swap. A column whose pivot is zero is skipped, although an entry below it is not: which row could come up?",
)
def zero_pivots_skipped(A):
    U = np.array(A, dtype=float)
    for k in range(len(U)):
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, 1


@wrong(
    "eliminate",
    "You swap only when the pivot is zero. The determinant comes out, and the multipliers may be huge: "
    "which entry of the column keeps them below one?",
)
def swap_only_to_avoid_zero(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        if U[k, k] == 0:
            p = k + np.argmax(np.abs(U[k:, k]))
            if p != k:
                U[[k, p]] = U[[p, k]]
                sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "Your pivot is sought in the whole column, and rows above k are finished: swapping them back down "
    "spoils the triangle.",
)
def pivot_from_finished_rows(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = np.argmax(np.abs(U[:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "np.argmax of a slice that begins at row k counts from the beginning of the slice. Which row of U is "
    "that?",
)
def offset_of_the_slice_lost(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "You take the largest entry as the pivot; a negative one may be larger in size. What was asked for is "
    "the absolute value.",
)
def largest_without_absolute_value(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(U[k:, k])
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "The diagonal of your U is all ones: you divide each row by its pivot, and with it the determinant. "
    "Which of the four laws has a price?",
)
def rows_scaled_to_one(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k] /= U[k, k]
            U[k + 1 :] -= np.outer(U[k + 1 :, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "A regular matrix comes out right. When a whole column is zero from the diagonal down, you divide by "
    "zero. "
    "What is there left to eliminate in it?",
)
def divides_by_the_zero_pivot(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        U[k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k])
    return U, sign


@wrong(
    "eliminate",
    "The diagonal of your U and the sign are right. Below the diagonal your U is not zero: which columns of the rows below does your step change?",
)
def column_left_below_the_pivot(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :, k + 1 :] -= np.outer(U[k + 1 :, k] / U[k, k], U[k, k + 1 :])
    return U, sign


@wrong(
    "eliminate",
    "The diagonal of your U and the sign are right. Below the diagonal stand the multipliers, as codes for LU keep them. Here U is to be upper triangular.",
)
def multipliers_kept(A):
    U, sign = np.array(A, dtype=float), 1
    for k in range(len(U)):
        p = k + np.argmax(np.abs(U[k:, k]))
        if p != k:
            U[[k, p]] = U[[p, k]]
            sign = -sign
        if U[k, k] != 0:
            U[k + 1 :, k] /= U[k, k]
            U[k + 1 :, k + 1 :] -= np.outer(U[k + 1 :, k], U[k, k + 1 :])
    return U, sign


# broken_laws: which of the four laws do five claimed determinants break?


@right("broken_laws")
def with_isclose(claims, c):
    left = np.array([claims["identity"], claims["swapped"], claims["scaled"], claims["sheared"]])
    wanted = np.array([1.0, -claims["A"], c * claims["A"], claims["A"]])
    with np.errstate(invalid="ignore"):
        gap = np.abs(left - wanted)
        holds = (
            np.isfinite(left) & np.isfinite(wanted) & (gap <= 1e-6 * np.maximum(np.abs(left), np.abs(wanted)))
        )
    return [law for law, ok in zip(["identity", "swap", "scale", "shear"], holds, strict=True) if not ok]


@right("broken_laws")
def one_law_after_the_other(claims, c):
    def equal(a, b):
        return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 1e-6 * max(abs(a), abs(b))

    broken = []
    if not equal(claims["identity"], 1):
        broken.append("identity")
    if not equal(-claims["swapped"], claims["A"]):
        broken.append("swap")
    if not equal(claims["scaled"], c * claims["A"]):
        broken.append("scale")
    if not equal(claims["sheared"], claims["A"]):
        broken.append("shear")
    return broken


@wrong(
    "broken_laws",
    "nan gets through: every comparison with it is False, so no gap is ever too large. Ask whether the law "
    "holds, not "
    "whether it fails.",
)
def nan_gets_through(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if abs(a - b) > 1e-6 * max(abs(a), abs(b))]


@wrong(
    "broken_laws",
    "You expect a swap to leave the determinant alone, and so you accuse the innocent. What happens to the "
    "sign?",
)
def swap_without_sign(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)]


@wrong(
    "broken_laws",
    "You find the shear law broken where it holds. The area of a parallelogram is base times height: which "
    "of them does a shear change?",
)
def shear_multiplies(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], c * claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)]


@wrong(
    "broken_laws",
    "You compare sizes and throw the signs away. Three of the four laws say something about the sign.",
)
def sizes_only(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [
        law for law, (a, b) in laws.items() if not math.isclose(abs(a), abs(b), rel_tol=1e-6) or math.isinf(a)
    ]


@wrong(
    "broken_laws",
    "Determinants of moderate size are judged well. Yours is a fixed tolerance: next to it, every "
    "determinant of 1e-200 "
    "is zero, and among those of 1e200 mere rounding is a crime. To what should the gap be compared?",
)
def fixed_tolerance(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not abs(a - b) <= 1e-6]


@wrong(
    "broken_laws",
    "Moderate and huge determinants are judged well, and among tiny ones you find no fault at all: "
    "np.isclose adds an absolute tolerance of 1e-8 of its own.",
)
def isclose_as_it_comes(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not (np.isclose(a, b, rtol=1e-6) and np.isfinite(a))]


@wrong(
    "broken_laws",
    "Two infinite claims count as equal for you, as they do for Python. The exercise lets no infinite claim"
    " pass.",
)
def infinity_equals_infinity(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6)]


@wrong(
    "broken_laws",
    "You stop at the first broken law. A function can break several: the list holds all of them.",
)
def only_the_first(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)][:1]


@wrong(
    "broken_laws",
    "nan is caught and infinity gets through: a share of infinity is infinite, and inf <= inf is True. "
    "Which claims are no number to begin with?",
)
def infinite_tolerance(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not abs(a - b) <= 1e-6 * max(abs(a), abs(b))]


@wrong(
    "broken_laws",
    "Two kinds of claim get through np.isclose as it comes: an infinite one that meets another, and tiny "
    "ones, next to which its own absolute tolerance of 1e-8 is huge.",
)
def isclose_without_a_guard(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not np.isclose(a, b)]


@wrong(
    "broken_laws",
    "You accuse the innocent: two numbers that differ in the sixteenth digit only are equal by the "
    "statement. How large a gap does it allow?",
)
def equal_to_the_last_digit(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if a != b or math.isinf(a)]


@wrong(
    "broken_laws",
    "You ask for equality to the last digit, so rounding counts as a crime. How large a gap does the "
    "statement allow? (And does an infinite claim equal itself?)",
)
def different_to_the_last_digit(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if a != b]


@wrong(
    "broken_laws",
    "You find the scale law broken where it holds, and so you accuse the innocent. One row was multiplied "
    "by c: what becomes of the volume?",
)
def scale_without_c(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)]


@wrong(
    "broken_laws",
    "You find the swap law broken where it holds. A swap turns the sign over. Does it change anything else?",
)
def swap_multiplies(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -c * claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)]


@wrong(
    "broken_laws",
    "A set has no order, and prints differently each time. Return a list, in the order of the table of "
    "laws; an empty list if none is broken.",
)
def set_of_laws(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return {law for law, (a, b) in laws.items() if not math.isclose(a, b, rel_tol=1e-6) or math.isinf(a)}


@wrong(
    "broken_laws",
    "You list the laws that hold. Which ones are asked for?",
)
def laws_that_hold(claims, c):
    laws = {
        "identity": (claims["identity"], 1),
        "swap": (claims["swapped"], -claims["A"]),
        "scale": (claims["scaled"], c * claims["A"]),
        "shear": (claims["sheared"], claims["A"]),
    }
    return [law for law, (a, b) in laws.items() if math.isclose(a, b, rel_tol=1e-6) and not math.isinf(a)]


@wrong(
    "broken_laws",
    "You return the keys of the claims. The laws have names of their own: identity, swap, scale, shear.",
)
def keys_of_the_claims(claims, c):
    expected = {"identity": 1, "swapped": -claims["A"], "scaled": c * claims["A"], "sheared": claims["A"]}
    return [
        key
        for key, wanted in expected.items()
        if not math.isclose(claims[key], wanted, rel_tol=1e-6) or math.isinf(wanted)
    ]


# block_slogdet: sign and log abs det from the diagonal blocks.


@right("block_slogdet")
def collecting_the_blocks(J, sizes):
    ends = np.cumsum(sizes)
    found = [np.linalg.slogdet(J[..., e - s : e, e - s : e]) for s, e in zip(sizes, ends, strict=True)]
    return np.prod([f[0] for f in found], axis=0), np.sum([f[1] for f in found], axis=0)


@right("block_slogdet")
def by_splitting_off_the_first_block(J, sizes):
    k = sizes[0]
    sign, log_abs_det = np.linalg.slogdet(J[..., :k, :k])
    if len(sizes) == 1:
        return sign, log_abs_det
    other_sign, other_log = by_splitting_off_the_first_block(J[..., k:, k:], sizes[1:])
    return sign * other_sign, log_abs_det + other_log


@wrong(
    "block_slogdet",
    "You multiply the determinants of the blocks and take the logarithm at the end: of many small or large "
    "ones the product is zero, or no longer a float. Which operation on logarithms replaces the product?",
)
def logarithm_at_the_end(J, sizes):
    det, start = np.ones(J.shape[:-2]), 0
    for size in sizes:
        det = det * np.linalg.det(J[..., start : start + size, start : start + size])
        start += size
    with np.errstate(divide="ignore"):
        return np.sign(det), np.log(np.abs(det))


@wrong(
    "block_slogdet",
    "You read the diagonal entries alone. That is enough for a triangular matrix. What is the determinant "
    "of a 2 x 2 block?",
)
def diagonal_entries_only(J, sizes):
    diagonal = np.diagonal(J, axis1=-2, axis2=-1)
    return np.sign(diagonal).prod(-1), np.log(np.abs(diagonal)).sum(-1)


@wrong(
    "block_slogdet",
    "The logarithms are right, and your sign is always 1: that of a product of blocks is the product of "
    "their signs.",
)
def sign_always_one(J, sizes):
    total, start = np.zeros(J.shape[:-2]), 0
    for size in sizes:
        total = total + np.linalg.slogdet(J[..., start : start + size, start : start + size])[1]
        start += size
    return np.ones(J.shape[:-2]), total


@wrong(
    "block_slogdet",
    "The logarithms are right; the sign that you return is that of the last block. What became of the "
    "others?",
)
def sign_of_the_last_block(J, sizes):
    total, start = np.zeros(J.shape[:-2]), 0
    for size in sizes:
        sign, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        total = total + log
        start += size
    return sign, total


@wrong(
    "block_slogdet",
    "You take the determinant of the whole matrix, and with it all that stands outside the diagonal blocks. "
    "It costs n^3, and a nan there is enough to spoil it.",
)
def of_the_whole_matrix(J, sizes):
    return tuple(np.linalg.slogdet(J))


@wrong(
    "block_slogdet",
    "All your blocks begin at the upper left corner. Where does the second block begin?",
)
def start_not_moved(J, sizes):
    sign, total = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2])
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., :size, :size])
        sign, total = sign * s, total + log
    return sign, total


@wrong(
    "block_slogdet",
    "Matrices one at a time are right. For a batch you return a single number, and each point has a "
    "Jacobian of its own.",
)
def summed_over_the_batch(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        sign, total, start = sign * s, total + log, start + size
    return np.prod(sign), np.sum(total)


@wrong(
    "block_slogdet",
    "Triangles are right. Your second block begins one row below the beginning of the first, whatever the "
    "first one's size. "
    "Where does it end?",
)
def start_moved_by_one(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        sign, total, start = sign * s, total + log, start + 1
    return sign, total


@wrong(
    "block_slogdet",
    "The first block is right. The second begins right, and ends at its SIZE: where does it end?",
)
def ends_at_its_size(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        block = J[..., start:size, start:size]
        block_sign, block_log = np.linalg.slogdet(block)
        sign, total, start = sign * block_sign, total + block_log, start + size
    return sign, total


@wrong(
    "block_slogdet",
    "Your sign is right, and your logarithm always 0: a product that begins with 0 stays there. What "
    "becomes of a product "
    "of determinants under the logarithm?",
)
def logarithms_multiplied_from_zero(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        sign, total, start = sign * s, total * log, start + size
    return sign, total


@wrong(
    "block_slogdet",
    "Your sign is right. You multiply the logarithms of the blocks: the determinants multiply, and what do "
    "their logarithms do?",
)
def logarithms_multiplied(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.ones(J.shape[:-2]), 0
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        sign, total, start = sign * s, total * log, start + size
    return sign, total


@wrong(
    "block_slogdet",
    "You return the logarithm first and the sign second. Which order does the statement ask for?",
)
def logarithm_first(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        s, log = np.linalg.slogdet(J[..., start : start + size, start : start + size])
        sign, total, start = sign * s, total + log, start + size
    return total, sign


@wrong(
    "block_slogdet",
    "You take the determinant of a block and its logarithm afterwards: that of one large block may be no float, or zero. What gives the logarithm at once?",
)
def logarithm_of_each_determinant(J, sizes):
    sign, total, start = np.ones(J.shape[:-2]), np.zeros(J.shape[:-2]), 0
    for size in sizes:
        det = np.linalg.det(J[..., start : start + size, start : start + size])
        with np.errstate(divide="ignore"):
            sign, total, start = sign * np.sign(det), total + np.log(np.abs(det)), start + size
    return sign, total


# fitted_growth: which law fits better, and its exponent.


@right("fitted_growth")
def by_correlation_and_decimal_logarithms(n, cost):
    y = np.log10(cost)
    lines = {
        "power": np.log10(n),
        "factorial": np.array([math.lgamma(k + 1) / math.log(10) for k in n]),
    }
    law = max(lines, key=lambda name: abs(np.corrcoef(lines[name], y)[0, 1]))
    return law, np.cov(lines[law], y)[0, 1] / np.var(lines[law], ddof=1)


@right("fitted_growth")
def with_sums_of_logarithms(n, cost):
    y = np.log(cost) - np.log(cost).mean()
    best = None
    factorials = np.array([np.log(np.arange(1, int(k) + 1)).sum() for k in n])
    for law, u in (("power", np.log(n)), ("factorial", factorials)):
        u = u - u.mean()
        p = (u @ y) / (u @ u)
        residual = ((y - p * u) ** 2).sum()
        if best is None or residual < best[0]:
            best = residual, law, p
    return best[1], best[2]


@wrong(
    "fitted_growth",
    "You answer with a power of n whatever the costs are. Fit the factorial too, with log n! on the axis: which of the two "
    "lines leaves less over?",
)
def always_a_power(n, cost):
    return "power", np.polyfit(np.log(n), np.log(cost), 1)[0]


@wrong(
    "fitted_growth",
    "Wherever the laws differ you name the other one. What do squared residuals measure: how well a line "
    "fits, or how badly?",
)
def the_larger_residual(n, cost):
    y, fits = np.log(cost), []
    for law, u in (("power", np.log(n)), ("factorial", np.array([math.lgamma(k + 1) for k in n]))):
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, slope))
    return max(fits)[1:]


@wrong(
    "fitted_growth",
    "Your exponents are one over what they should be: the axes are exchanged. Which of the two logarithms "
    "is to be "
    "explained by the other?",
)
def axes_exchanged(n, cost):
    y, fits = np.log(cost), []
    for law, u in (("power", np.log(n)), ("factorial", np.array([math.lgamma(k + 1) for k in n]))):
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, np.polyfit(y, u, 1)[0]))
    return min(fits)[1:]


@wrong(
    "fitted_growth",
    "You fit the costs themselves, without their logarithm. In c n^p, what makes p the slope of a line?",
)
def cost_without_logarithm(n, cost):
    fits = []
    for law, u in (("power", np.log(n)), ("factorial", np.array([math.lgamma(k + 1) for k in n]))):
        slope, offset = np.polyfit(u, cost, 1)
        fits.append((np.sum((cost - offset - slope * u) ** 2), law, slope))
    return min(fits)[1:]


@wrong(
    "fitted_growth",
    "Your exponents are too small by the factor log 10: one axis has decimal logarithms, the other natural "
    "ones.",
)
def two_kinds_of_logarithm(n, cost):
    y, fits = np.log10(cost), []
    for law, u in (("power", np.log(n)), ("factorial", np.array([math.lgamma(k + 1) for k in n]))):
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, slope))
    return min(fits)[1:]


@wrong(
    "fitted_growth",
    "Powers are right. Your factorial is that of n - 1: the gamma function runs one ahead, Gamma(n + 1) = "
    "n!.",
)
def gamma_of_n(n, cost):
    y, fits = np.log(cost), []
    for law, u in (("power", np.log(n)), ("factorial", np.array([math.lgamma(k) for k in n]))):
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, slope))
    return min(fits)[1:]


@wrong(
    "fitted_growth",
    "For the power law you fit log cost against n. Take the logarithm of t = c n^p: what multiplies p?",
)
def size_without_logarithm(n, cost):
    y, fits = np.log(cost), []
    for law, u in (("power", n), ("factorial", np.array([math.lgamma(k + 1) for k in n]))):
        slope, offset = np.polyfit(u, y, 1)
        fits.append((np.sum((y - offset - slope * u) ** 2), law, slope))
    return min(fits)[1:]


# lemma: (X, S, sign, log abs det) for diag(a) + V W^T.


@right("lemma")
def with_column_vectors(a, V, W):
    X = (W / a[:, None]).T
    S = np.identity(W.shape[1]) + np.matmul(X, V)
    inner = np.linalg.slogdet(S)
    negative = np.count_nonzero(a < 0)
    return X, S, inner[0] * (-1) ** negative, inner[1] + np.sum(np.log(np.abs(a)))


@right("lemma")
def entry_by_entry_of_s(a, V, W):
    m = V.shape[1]
    S = np.array([[(W[:, i] * V[:, j] / a).sum() + (i == j) for j in range(m)] for i in range(m)])
    sign, log_abs_det = np.linalg.slogdet(S)
    return W.T / a, S, sign * np.sign(a).prod(), log_abs_det + 0.5 * np.log(a**2).sum()


@wrong(
    "lemma",
    "You multiply by A where its inverse is needed. The lower left block becomes W^T - X A: is it zero with"
    " your X?",
)
def multiplied_by_a(a, V, W):
    X = W.T * a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "Your S lacks what stood in the lower right block of M before you subtracted anything from it.",
)
def identity_forgotten(a, V, W):
    X = W.T / a
    S = X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "The sign in S is wrong: you subtract X times the upper right block of M. Which sign has V there?",
)
def minus_in_s(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) - X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "The determinant is right, and X and S belong to the transposed matrix: V and W are exchanged. "
    "Which of them stands in the lower left block?",
)
def v_and_w_exchanged(a, V, W):
    X = V.T / a
    S = np.eye(V.shape[1]) + X @ W
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "X and S are right. You return the determinant of S alone. Which other diagonal block has M after the "
    "second way?",
)
def det_of_a_forgotten(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    return X, S, *np.linalg.slogdet(S)


@wrong(
    "lemma",
    "All is right but the sign, which leaves A out. How many entries of a are negative?",
)
def sign_of_a_forgotten(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign, log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "X, S and the sign are right. Your logarithm is that of det S alone. Which other block has a determinant?",
)
def log_det_of_a_forgotten(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det


@wrong(
    "lemma",
    "X is right, and your S does without it: W^T V is what X V would be if A were I. What does the lower right block become?",
)
def s_without_x(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + W.T @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "X and S are right. You subtract log abs det A. Did you divide by det A, or multiply?",
)
def log_det_of_a_subtracted(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det - np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "In few dimensions all is right. In many, the product of the entries of a leaves the range of floats "
    "before you take "
    "its logarithm.",
)
def logarithm_of_the_product(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    det_a = np.prod(a)
    return X, S, sign * np.sign(det_a), log_abs_det + np.log(np.abs(det_a))


@wrong("lemma", "X has the wrong sign, and S with it. With your X, is W^T - X A zero?")
def minus_in_x(a, V, W):
    X = -W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "S and the determinant are right, and X has the opposite sign. X times the upper rows is subtracted: "
    "with your X, is W^T - X A zero?",
)
def minus_in_x_alone(a, V, W):
    X = -W.T / a
    S = np.eye(V.shape[1]) - X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "X and S are right. You add the logarithms of a as they come; for a negative entry, what is the size of"
    " det A?",
)
def logarithms_of_negative_entries(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    with np.errstate(invalid="ignore"):
        return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(a).sum()


@wrong(
    "lemma",
    "In few dimensions all is right. In many, the product of the entries of a is too small for a float, and"
    " np.sign of it is 0. "
    "What do you need of each entry for the sign?",
)
def sign_of_the_product(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    with np.errstate(over="ignore", under="ignore"):
        return X, S, sign * np.sign(np.prod(a)), log_abs_det + np.log(np.abs(a)).sum()


@wrong(
    "lemma",
    "X, S and the sign are right. In many dimensions the product of the entries of a leaves the range of "
    "floats before you take its logarithm. What is the logarithm of a product?",
)
def logarithm_of_the_size_of_the_product(a, V, W):
    X = W.T / a
    S = np.eye(V.shape[1]) + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    with np.errstate(divide="ignore"):
        return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.prod(np.abs(a)))


@wrong(
    "lemma",
    "X is right. S = 1 + ... adds 1 to every entry of the product. Which matrix stood in the lower right "
    "block?",
)
def one_for_identity(a, V, W):
    X = W.T / a
    S = 1 + X @ V
    sign, log_abs_det = np.linalg.slogdet(S)
    return X, S, sign * np.prod(np.sign(a)), log_abs_det + np.log(np.abs(a)).sum()


# crossover: the largest rank for which the lemma takes fewer multiplications.


@right("crossover")
def by_bisection(d):
    low, high = 0, d
    while high - low > 1:
        m = (low + high) // 2
        if 3 * d * m * (m + 1) + m**3 - m < d**3 - d:
            low = m
        else:
            high = m
    return low


@right("crossover")
def counting_all_ranks_that_win(d):
    elimination = (d**3 - d) // 3
    return sum(d * m + d * m**2 + (m**3 - m) // 3 < elimination for m in range(1, d + 1))


@wrong(
    "crossover",
    "Your number is one too large: it is the first rank for which the lemma loses.",
)
def first_that_loses(d):
    m = 1
    while d * m + d * m**2 + (m**3 - m) // 3 < (d**3 - d) // 3:
        m += 1
    return m


@wrong(
    "crossover",
    "Where the lemma wins at all, your number is one too large: your loop stops at the first rank for which it loses.",
)
def first_that_loses_from_zero(d):
    m = 0
    while d * m + d * m**2 + (m**3 - m) // 3 < (d**3 - d) // 3:
        m += 1
    return m


@wrong(
    "crossover",
    "You leave out the elimination of S. When m is half of d, is m^3/3 small against d m^2?",
)
def elimination_of_s_forgotten(d):
    m = 0
    while d * (m + 1) + d * (m + 1) ** 2 < (d**3 - d) // 3:
        m += 1
    return m


@wrong(
    "crossover",
    "You leave out the d m divisions for X. They are few, and whole numbers do not forgive.",
)
def divisions_forgotten(d):
    m = 0
    while d * (m + 1) ** 2 + ((m + 1) ** 3 - m - 1) // 3 < (d**3 - d) // 3:
        m += 1
    return m


@wrong(
    "crossover",
    "You compare orders of growth, d m^2 + m^3 with d^3. The factors that O( ) hides decide where two "
    "curves cross: "
    "which is the factor of an elimination?",
)
def orders_only(d):
    m = 0
    while d * (m + 1) ** 2 + (m + 1) ** 3 < d**3:
        m += 1
    return m


@wrong(
    "crossover",
    "You return the square root of d, which the count does not bear out. At m = sqrt(d) the lemma takes "
    "about d^2 "
    "multiplications. How many does elimination take?",
)
def square_root(d):
    return math.isqrt(d)


@wrong(
    "crossover",
    "You keep d m^2 alone. Two of the lemma's three terms are missing: when m is half of d, is m^3/3 small "
    "against d m^2?",
)
def largest_term_alone(d):
    m = 0
    while d * (m + 1) ** 2 < (d**3 - d) // 3:
        m += 1
    return m


@wrong(
    "crossover",
    "For d = 1 there is nothing to eliminate, no m wins, and you return -1. What is asked for where there "
    "is none?",
)
def minus_one_where_none(d):
    m = d
    while m >= 0 and d * m + d * m**2 + (m**3 - m) // 3 >= (d**3 - d) // 3:
        m -= 1
    return m


@wrong(
    "crossover",
    "You count n^3/3 for an elimination. The statement's count is a little smaller, and where the two costs"
    " nearly "
    "meet that decides.",
)
def third_of_the_cube(d):
    m = 0
    while 3 * d * (m + 1) + 3 * d * (m + 1) ** 2 + (m + 1) ** 3 < d**3:
        m += 1
    return m


@wrong(
    "crossover",
    "You take a fixed fraction of d. It holds for large d, where the d m divisions no longer matter. What "
    "is the count itself?",
    when=lambda returned, d: returned in (int(0.53 * d), round(0.53 * d), int(0.532 * d), round(0.532 * d)),
)
def fixed_fraction(d):
    return int(0.53 * d)
