"""Answers to lesson 00, start."""

import math

import numpy as np

from autograder.answers import right, wrong

# squared_length: released as it should be.


@right("squared_length")
def by_einsum(x):
    return np.einsum("...d,...d->...", x, x)


@right("squared_length")
def of_the_norm(x):
    return np.linalg.norm(x, axis=-1) ** 2


@wrong(
    "squared_length",
    "You sum over the points: each column has become one number. Which axis runs over the coordinates of a point?",
)
def over_the_points(x):
    return (x**2).sum(axis=0)


@wrong("squared_length", "This is the length. The exercise asks for its square.")
def length(x):
    return np.sqrt((x**2).sum(axis=-1))


@wrong(
    "squared_length",
    "One number came back for the whole batch: a sum without axis= adds everything. Each point has its own length.",
)
def over_everything(x):
    return np.sum(x**2)


@wrong("squared_length", "You square the sum of the coordinates. Which comes first, squaring or summing?")
def square_of_the_sum(x):
    return x.sum(axis=-1) ** 2


# center: released with the mean along the wrong axis.


@right("center")
def by_summing(x):
    return x - np.sum(x, axis=0) / x.shape[0]


@right("center")
def by_rows(x):
    middle = np.mean(x, axis=-2, keepdims=True)
    return x - middle


@wrong(
    "center",
    "You subtract from each point the mean of its own coordinates, so every row has mean zero, and the columns have not. "
    "The points are the rows: along which axis do you go from point to point?",
    "Print x.mean(axis=0) and x.mean(axis=1) for a batch of shape (3, 2). Which of the two is a point?",
)
def mean_of_each_row(x):
    return x - x.mean(axis=1, keepdims=True)


@wrong(
    "center",
    "You subtract one number from everything: x.mean() is the mean over all points and all coordinates. "
    "How many numbers has the mean point?",
)
def mean_of_everything(x):
    return x - x.mean()


@wrong("center", "You moved the batch away from the origin: the mean is added. Where does the mean point go?")
def mean_added(x):
    return x + x.mean(axis=0)


@wrong("center", "You return the mean point. Subtract it from the batch.")
def the_mean_point(x):
    return x.mean(axis=0)


@wrong(
    "center",
    "You subtract the sum of the points, which is N times too far. What makes a mean of a sum?",
)
def sum_for_mean(x):
    return x - x.sum(axis=0)


@wrong(
    "center",
    "You center the batch, and then you divide it by its spread. Is that asked for?",
)
def divided_by_the_spread(x):
    with np.errstate(all="ignore"):
        return (x - x.mean(axis=0)) / x.std(axis=0)


@wrong(
    "center",
    "You subtract the median: each column now has its middle at zero, and its mean elsewhere. Which one is asked for?",
)
def median_for_mean(x):
    return x - np.median(x, axis=0)


# scale_and_shift: z = x exp(s) + t.


@right("scale_and_shift")
def with_names(x, s, t):
    scale = np.exp(s)
    return scale * x + t


@right("scale_and_shift")
def by_a_diagonal_matrix(x, s, t):
    return x @ np.diag(np.exp(s)) + t


@wrong(
    "scale_and_shift",
    "You multiply by s, and the scale is exp(s). With s = 0, what does your function return, and what should it?",
    "Where s is 0 or negative your map crushes the data or flips it over. NumPy's exponential is np.exp.",
)
def without_exp(x, s, t):
    return x * s + t


@wrong(
    "scale_and_shift",
    "You shift first and scale afterwards, so the shift is scaled too. What does the formula do first?",
)
def shift_first(x, s, t):
    return (x + t) * np.exp(s)


@wrong(
    "scale_and_shift",
    "You divide by exp(s) where the formula multiplies. Which sign has s in the exponent?",
)
def minus_s(x, s, t):
    return x * np.exp(-s) + t


@wrong(
    "scale_and_shift",
    "That is the way back, from z to x. Here x is given, and z is asked for.",
)
def the_way_back(x, s, t):
    return (x - t) * np.exp(-s)


@wrong(
    "scale_and_shift", "Your points are scaled, and not shifted. Which argument does your function never use?"
)
def without_t(x, s, t):
    return x * np.exp(s)


@wrong("scale_and_shift", "You subtract t where the formula adds it.")
def minus_t(x, s, t):
    return x * np.exp(s) - t


@wrong(
    "scale_and_shift",
    "The two letters have changed places: you scale by exp(t) and shift by s. Which is which in the formula?",
)
def swapped(x, s, t):
    return x * np.exp(t) + s


@wrong(
    "scale_and_shift",
    "The shift has got into the exponent, where it scales. Where does exp end in the formula?",
)
def shift_in_the_exponent(x, s, t):
    return x * np.exp(s + t)


# noise_log_density: the standard normal in D dimensions.


@right("noise_log_density")
def adding_coordinates(z):
    one = -0.5 * (z**2 + np.log(2 * np.pi))
    return one.sum(axis=-1)


@right("noise_log_density")
def with_einsum(z):
    D = z.shape[-1]
    return -0.5 * np.einsum("...d,...d->...", z, z) - D * math.log(math.sqrt(2 * math.pi))


@wrong(
    "noise_log_density",
    "Your constant belongs to one dimension. Each of the D factors has a 1/sqrt(2 pi): how many logarithms of it are there?",
    "Multiply two densities on paper, with their constants. What stands in front of the product?",
)
def constant_of_one_dimension(z):
    return -0.5 * np.square(z).sum(axis=-1) - 0.5 * math.log(2 * math.pi)


@wrong(
    "noise_log_density",
    "One number came back for each coordinate, and a point has one density. "
    "The coordinates are independent: what happens to their log-densities?",
)
def not_summed(z):
    return -0.5 * (np.square(z) + math.log(2 * math.pi))


@wrong(
    "noise_log_density",
    "One number came back for the whole batch. Each point has its own density: sum over the last axis alone.",
)
def summed_over_everything(z):
    return np.sum(-0.5 * (np.square(z) + math.log(2 * math.pi)))


@wrong(
    "noise_log_density",
    "You sum over the points: each column has become one number. Which axis runs over the coordinates, "
    "counted from the end?",
)
def summed_over_the_points(z):
    return -0.5 * np.square(z).sum(axis=0) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


@wrong(
    "noise_log_density",
    "Your constant counts points: len(z) is the length of the first axis. Which axis has length D?",
)
def points_for_dimensions(z):
    return -0.5 * np.square(z).sum(axis=-1) - 0.5 * len(z) * math.log(2 * math.pi)


@wrong(
    "noise_log_density",
    "Your constant is twice what it should be. What does the square root in 1/sqrt(2 pi) do to the logarithm?",
)
def constant_without_the_root(z):
    return -0.5 * np.square(z).sum(axis=-1) - z.shape[-1] * math.log(2 * math.pi)


@wrong(
    "noise_log_density",
    "Your constant has the wrong sign. sqrt(2 pi) stands below the fraction line: what is the logarithm of 1/c?",
)
def constant_added(z):
    return -0.5 * np.square(z).sum(axis=-1) + 0.5 * z.shape[-1] * math.log(2 * math.pi)


@wrong("noise_log_density", "This is the density itself. Its logarithm is asked for.")
def the_density(z):
    return np.exp(-0.5 * (np.square(z) + math.log(2 * math.pi)).sum(axis=-1))


@wrong(
    "noise_log_density",
    "The constant is missing, so the density has not mass one. What becomes of the 1/sqrt(2 pi) in the logarithm?",
)
def without_constant(z):
    return -0.5 * np.square(z).sum(axis=-1)


@wrong(
    "noise_log_density",
    "It is right in few dimensions and for points that are not far out. Elsewhere the product of the densities rounds to "
    "zero, and its logarithm is -inf. Which sum has the same value, and no product in it?",
)
def log_of_the_product(z):
    with np.errstate(divide="ignore"):
        return np.log(np.prod(np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi), axis=-1))


# log_sum_exp: over the last axis.


@right("log_sum_exp")
def with_the_maximum_kept(a):
    m = np.max(a, axis=-1, keepdims=True)
    return (m + np.log(np.sum(np.exp(a - m), axis=-1, keepdims=True)))[..., 0]


@right("log_sum_exp")
def by_sorting(a):
    """The largest term apart: m + log(1 + the others)."""
    ordered = np.sort(a, axis=-1)
    m = ordered[..., -1]
    return m + np.log1p(np.exp(ordered[..., :-1] - m[..., None]).sum(axis=-1))


@wrong(
    "log_sum_exp",
    "This is the plain formula: right for moderate numbers, and infinite where exp overflows or all terms round to zero. "
    "Which number can you pull out of the sum first?",
    "Subtract the largest a of each row before exp, and give it back after log.",
)
def plain(a):
    with np.errstate(all="ignore"):
        return np.log(np.exp(a).sum(axis=-1))


@wrong(
    "log_sum_exp",
    "You took the maximum out of the sum and did not put it back. Where is the factor exp(m) in your result?",
)
def maximum_not_given_back(a):
    m = a.max(axis=-1, keepdims=True)
    return np.log(np.exp(a - m).sum(axis=-1))


@wrong(
    "log_sum_exp",
    "Your values are too small by the logarithm of the number of terms: you average where you should add up.",
)
def mean_for_sum(a):
    m = a.max(axis=-1, keepdims=True)
    return m[..., 0] + np.log(np.exp(a - m).mean(axis=-1))


@wrong(
    "log_sum_exp",
    "This is the largest term alone. It is close where one term outweighs the others. What do the others add?",
)
def maximum_alone(a):
    return a.max(axis=-1)


@wrong(
    "log_sum_exp",
    "You use one maximum for the whole array. In a row that lies far below it, every term still rounds to zero. "
    "Which maximum does each row need?",
)
def one_maximum_for_all(a):
    with np.errstate(all="ignore"):
        return a.max() + np.log(np.exp(a - a.max()).sum(axis=-1))


@wrong(
    "log_sum_exp",
    "Only one number comes back for all rows together. The sum runs over the last axis alone.",
)
def over_all_rows(a):
    return a.max() + np.log(np.exp(a - a.max()).sum())


@wrong(
    "log_sum_exp",
    "You pull out the smallest term. The exponents that remain are positive, and may overflow, or the term is zero and "
    "cannot be divided by. Which term keeps all exponents at 0 or below?",
)
def smallest_term(a):
    m = a.min(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        return m[..., 0] + np.log(np.exp(a - m).sum(axis=-1))


@wrong(
    "log_sum_exp",
    "squeeze() without an axis drops every axis of length 1, those in front as well, and broadcasting does the rest. "
    "Which axis do you want to lose?",
)
def squeezed_everywhere(a):
    m = a.max(axis=-1, keepdims=True)
    return m.squeeze() + np.log(np.exp(a - m).sum(axis=-1))


# alike: the property test.


@right("alike")
def by_allclose(together, alone):
    return together.shape == alone.shape and np.allclose(together, alone, rtol=0, atol=1e-6)


@right("alike")
def by_the_largest_difference(together, alone):
    if np.shape(together) != np.shape(alone):
        return False
    return bool(np.max(np.abs(together - alone)) < 1e-6)


@wrong(
    "alike",
    "Your test compares arrays of different shapes: NumPy broadcasts them, and equal numbers in a wrong arrangement pass. "
    "What must be compared before the entries?",
)
def broadcasts(together, alone):
    return bool(np.allclose(together, alone, rtol=0, atol=1e-6))


@wrong(
    "alike",
    "Your test lets nan through: a comparison with nan is False, so no difference is ever too large. "
    "Ask whether all differences are small instead.",
)
def nan_passes(together, alone):
    if together.shape != alone.shape:
        return False
    return not np.any(np.abs(together - alone) > 1e-6)


@wrong(
    "alike",
    "Your test wants equality to the last digit, and convicts a right function: sums in another order round differently.",
)
def exact(together, alone):
    return together.shape == alone.shape and bool(np.all(together == alone))


@wrong(
    "alike",
    "An entry that is too small passes your test: its difference is negative, and so below any bound. "
    "What is missing around the difference?",
)
def without_absolute_value(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.all(together - alone < 1e-6))


@wrong(
    "alike",
    "One agreeing entry is enough for your test. How many must agree?",
)
def any_entry(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.any(np.abs(together - alone) < 1e-6))


@wrong(
    "alike",
    "Your test lets errors cancel: one entry too large and another too small add up to nothing. "
    "What must be small at each entry, before anything is summed?",
)
def difference_of_sums(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(abs((together - alone).sum()) < 1e-6)


@wrong(
    "alike",
    "Your test compares totals alone. Arrays of any shape, with any errors that cancel, have the same total.",
)
def totals(together, alone):
    return bool(np.isclose(np.sum(together), np.sum(alone), rtol=0, atol=1e-6))


@wrong(
    "alike",
    "nan in both arrays passes your test. A function that returns nan on every input would be called right. "
    "What does equal_nan do?",
)
def nan_like_nan(together, alone):
    return together.shape == alone.shape and np.allclose(together, alone, rtol=0, atol=1e-6, equal_nan=True)


@wrong(
    "alike",
    "Your test takes the absolute values first, so that -1.5 and 1.5 are alike, and too small an entry passes. "
    "Which number should be small without its sign?",
)
def sizes_compared(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.all(np.abs(together) - np.abs(alone) < 1e-6))


@wrong(
    "alike",
    "Your test compares the shapes alone. Two arrays of one shape may hold different numbers.",
)
def shapes_alone(together, alone):
    return together.shape == alone.shape


@wrong(
    "alike",
    "Your test counts the axes. Lengths matter too: shapes (1,) and (2,) have one axis each, and broadcast.",
)
def axes_counted(together, alone):
    return together.ndim == alone.ndim and bool(np.all(np.abs(together - alone) < 1e-6))


@wrong(
    "alike",
    "Two things. Sums in another order round differently, and == convicts them; and arrays of different shapes are "
    "broadcast before they are compared. Begin with the shapes.",
)
def exact_and_broadcast(together, alone):
    return bool(np.all(together == alone))


@wrong(
    "alike",
    "Your test lets differences through that are no rounding. Where does the statement draw the line?",
)
def too_lax(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.all(np.abs(together - alone) < 1e-3))


@wrong(
    "alike",
    "Your test refuses a difference that the statement calls fine. Where does the statement draw the line, and where do you?",
)
def too_strict(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.all(np.abs(together - alone) < 1e-9))


@wrong(
    "alike",
    "Your bound grows with the entries: beside a large entry, a large difference passes. The statement has one bound for all.",
    "If you call np.allclose: it allows atol + rtol * abs(alone). Which rtol do you use, perhaps without saying so?",
)
def relative_as_well(together, alone):
    return together.shape == alone.shape and bool(np.allclose(together, alone, atol=1e-6))


@wrong(
    "alike",
    "Your bound depends on the entries: beside a large one, a large difference passes, and beside a zero one that is fine is refused. "
    "The statement has one bound for all.",
    "If you call np.allclose: it allows atol + rtol * abs(alone). Which two numbers do you use, perhaps without saying so?",
)
def bounds_of_allclose(together, alone):
    return together.shape == alone.shape and bool(np.allclose(together, alone))


@wrong(
    "alike",
    "Two things. np.allclose and its like broadcast: a wrong shape passes. And your bound depends on the entries, where the "
    "statement has one bound for all. Begin with the shapes.",
    "np.allclose allows atol + rtol * abs(alone). Which two numbers do you use, perhaps without saying so?",
)
def plain_allclose(together, alone):
    return bool(np.allclose(together, alone))


@wrong(
    "alike",
    "Two things. Arrays of different shapes are broadcast before they are compared, so that a wrong shape passes. And differences "
    "pass that are no rounding: where does the statement draw the line?",
)
def too_lax_and_broadcast(together, alone):
    return bool(np.all(np.abs(together - alone) < 1e-3))


@wrong(
    "alike",
    "Your test lets a difference through that the statement does not call fine. Where does it draw the line, and where do you?",
)
def somewhat_too_lax(together, alone):
    if together.shape != alone.shape:
        return False
    return bool(np.all(np.abs(together - alone) < 1e-4))
