"""Answers to lesson 02, change of variables."""

import math

import numpy as np

from autograder.answers import right, wrong


def normal_log_density(z):
    """As the lesson has it."""
    return -0.5 * (np.square(z) + math.log(2 * math.pi))


def linear_step(h, A, b):
    """As the lesson has it."""
    return h @ A.T + b, np.full(h.shape[:-1], np.linalg.slogdet(A)[1])


def bend_step(h):
    """As the lesson has it."""
    t = np.tanh(h)
    return h - 0.8 * t, np.log(0.2 + 0.8 * t**2).sum(-1)


# affine_log_density: z = a x + b is standard normal.


@right("affine_log_density")
def as_a_normal_density(x, a, b):
    """x is normal with mean -b/a and standard deviation 1/abs a."""
    mean, deviation = -b / a, 1 / abs(a)
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)


@right("affine_log_density")
def with_the_square_of_the_slope(x, a, b):
    z = a * x + b
    return -0.5 * (z * z + math.log(2 * math.pi) - math.log(a * a))


@wrong(
    "affine_log_density",
    "Your density of x is low where the map stretches. Take two close points x that are mapped far apart, "
    "to places where noise is plenty: is x dense there, or sparse?",
    "The formula is log p_X(x) = log p_Z(f(x)) + log abs f'(x), and f is the map from x to z. "
    "Which map has the slope that you used?",
)
def minus_log_slope(x, a, b):
    z = a * x + b
    return -0.5 * (z**2 + math.log(2 * math.pi)) - math.log(abs(a))


@wrong(
    "affine_log_density",
    "This is the noise's log-density at z, without the correction for stretching. What is its mass, as a function of x?",
    "Take a = 2: the image of an interval is twice as wide as the interval. What does that do to the density of x?",
)
def no_correction(x, a, b):
    z = a * x + b
    return -0.5 * (z**2 + math.log(2 * math.pi))


@wrong(
    "affine_log_density",
    "You evaluate the noise's density at x. Where does the point go before the noise sees it?",
)
def noise_at_x(x, a, b):
    return -0.5 * (x**2 + math.log(2 * math.pi)) + math.log(abs(a))


@wrong(
    "affine_log_density",
    "You add abs a where its logarithm is needed: densities multiply, log-densities add logarithms.",
)
def slope_without_log(x, a, b):
    z = a * x + b
    return -0.5 * (z**2 + math.log(2 * math.pi)) + abs(a)


@wrong(
    "affine_log_density",
    "It is right for a positive slope, and for a negative one it is nan: a logarithm of a negative number. "
    "Can the width of an interval be negative?",
)
def no_absolute_value(x, a, b):
    z = a * x + b
    return -0.5 * (z**2 + np.log(2 * np.pi)) + np.log(a)


@wrong(
    "affine_log_density",
    "You went the other way: from z to x. Here z = a x + b is the noise, and x is given.",
)
def the_map_backwards(x, a, b):
    z = (x - b) / a
    return -0.5 * (z**2 + math.log(2 * math.pi)) - math.log(abs(a))


@wrong(
    "affine_log_density",
    "You ask the noise at the wrong end, at (x - b)/a: that is the sampler. Here x is given. Where is its z?",
    "z = a x + b: the flow goes from data to noise, and the slope that you use is already the flow's.",
)
def noise_at_the_wrong_end(x, a, b):
    return normal_log_density((x - b) / a) + math.log(abs(a))


@wrong(
    "affine_log_density",
    "You ask the noise at the wrong end, at (x - b)/a, and correct for no stretching. z = a x + b: where does the given x go?",
)
def noise_at_the_wrong_end_uncorrected(x, a, b):
    return normal_log_density((x - b) / a)


@wrong(
    "affine_log_density",
    "It is right where b = 0, and your answer does not change with b. Where does the shift send a point?",
)
def shift_forgotten(x, a, b):
    z = a * x
    return -0.5 * (z**2 + math.log(2 * math.pi)) + math.log(abs(a))


# log_abs_slope: the log-slope of four maps.


@right("log_abs_slope")
def by_logaddexp(name, x):
    formulas = {
        "exp": lambda: x,
        "decay": lambda: np.log(3.0) - 3 * x,
        "tanh": lambda: 2 * (np.log(2.0) - np.logaddexp(x, -x)),
        "cubic": lambda: np.log(1 + 3 * x**2),
    }
    return formulas[name]() + 0.0


@right("log_abs_slope")
def by_cases(name, x):
    if name == "exp":
        return np.array(x)
    elif name == "decay":
        return -3 * x + math.log(3)
    elif name == "tanh":
        return math.log(4) - 2 * np.logaddexp(0, 2 * x) + 2 * x
    elif name == "cubic":
        return np.log1p(3 * np.square(x))


@wrong(
    "log_abs_slope",
    "decay has the slope -3 exp(-3x): its absolute value has a factor 3, and you have lost its logarithm.",
    "The logarithm of a product is a sum: log(3 exp(-3x)) = log 3 + ...",
)
def factor_of_decay_lost(name, x):
    if name == "exp":
        return x
    if name == "decay":
        return -3 * x
    if name == "tanh":
        return 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
    return np.log1p(3 * x**2)


@wrong(
    "log_abs_slope",
    "These are the slopes themselves, not their logarithms. What does the formula add?",
)
def slopes_without_log(name, x):
    if name == "exp":
        return np.exp(x)
    if name == "decay":
        return 3 * np.exp(-3 * x)
    if name == "tanh":
        return 1 - np.tanh(x) ** 2
    return 1 + 3 * x**2


@wrong(
    "log_abs_slope",
    "These are the log-slopes of the inverse maps, dx/dz: each has the opposite sign. The flow goes from x to z.",
)
def of_the_inverse(name, x):
    if name == "exp":
        return -x
    if name == "decay":
        return 3 * x - math.log(3)
    if name == "tanh":
        return -2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
    return -np.log1p(3 * x**2)


@wrong(
    "log_abs_slope",
    "This is right for moderate x. At x = 20 the tanh is exactly 1 in the computer's arithmetic, its slope is rounded "
    "to zero, and the logarithm is infinite: use the form of the statement, which never subtracts.",
)
def naive_tanh(name, x):
    if name == "exp":
        return x
    if name == "decay":
        return np.log(3.0) - 3 * x
    if name == "tanh":
        return np.log(1 - np.tanh(x) ** 2)
    return np.log(1 + 3 * x**2)


@wrong(
    "log_abs_slope",
    "Far out, your decay and your tanh are infinite: the slope overflows or vanishes before the logarithm sees it. "
    "How far can you take the logarithm on paper?",
)
def naive_decay_and_tanh(name, x):
    with np.errstate(all="ignore"):
        if name == "exp":
            return x
        if name == "decay":
            return np.log(np.abs(-3 * np.exp(-3 * x)))
        if name == "tanh":
            return np.log(1 - np.tanh(x) ** 2)
        return np.log(1 + 3 * x**2)


@wrong(
    "log_abs_slope",
    "decay is right for moderate x. At x = 400 and -400 it is infinite: the exponential vanishes or overflows before "
    "the logarithm sees it. Which logarithm can be taken on paper?",
)
def naive_decay(name, x):
    with np.errstate(all="ignore"):
        if name == "exp":
            return x
        if name == "decay":
            return np.log(np.abs(-3 * np.exp(-3 * x)))
        if name == "tanh":
            return 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
        return np.log(1 + 3 * x**2)


@wrong(
    "log_abs_slope",
    "Your decay has the wrong sign in x. As x grows exp(-3x) flattens out: does its slope grow or shrink?",
)
def decay_growing(name, x):
    if name == "exp":
        return x
    if name == "decay":
        return math.log(3) + 3 * x
    if name == "tanh":
        return 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
    return np.log1p(3 * x**2)


@wrong(
    "log_abs_slope",
    "Your cubic is infinite or wrong near zero. The map is x + x^3: what is its slope at x = 0?",
)
def cubic_without_one(name, x):
    if name == "exp":
        return x
    if name == "decay":
        return math.log(3) - 3 * x
    if name == "tanh":
        return 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
    return np.log(3 * x**2)


# sine_log_density: x = sin(theta), theta uniform on the circle.


@right("sine_log_density")
def adding_two_branches(x):
    one_branch = -math.log(2 * math.pi) - 0.5 * np.log((1 - x) * (1 + x))
    return np.logaddexp(one_branch, one_branch)


@right("sine_log_density")
def as_a_beta_density(x):
    """(1 + x)/2 is Beta(1/2, 1/2)."""
    u, v = (1 + x) / 2, (1 - x) / 2
    return -0.5 * np.log(u) - 0.5 * np.log(v) - math.log(math.pi) - math.log(2)


@wrong(
    "sine_log_density",
    "Your density is half of what it should be: its mass is one half. How many angles have the sine x?",
    "Each x between -1 and 1 comes from two angles, and the mass near each of them lands near x.",
)
def one_branch(x):
    return -math.log(2 * math.pi) - 0.5 * (np.log1p(x) + np.log1p(-x))


@wrong(
    "sine_log_density",
    "Your density falls towards the ends, and the histogram rises there: the correction has the wrong sign. "
    "Is it dx/dtheta or dtheta/dx that the formula wants?",
)
def wrong_direction(x):
    return -math.log(math.pi) + 0.5 * (np.log1p(x) + np.log1p(-x))


@wrong(
    "sine_log_density",
    "You have 1 - x^2 where its square root belongs: cos(theta) = sqrt(1 - sin(theta)^2).",
)
def square_root_lost(x):
    return -math.log(math.pi) - (np.log1p(x) + np.log1p(-x))


@wrong(
    "sine_log_density",
    "This is the density itself. The exercise asks for its logarithm.",
)
def density_itself(x):
    return 1 / (math.pi * np.sqrt((1 - x) * (1 + x)))


@wrong(
    "sine_log_density",
    "You add the logarithms of the two branches. Two masses add: what does the sum of their logarithms stand for?",
)
def logs_added(x):
    return 2 * (-math.log(2 * math.pi) - 0.5 * (np.log1p(x) + np.log1p(-x)))


# chain_log_density: layers (A, b), each a linear step and a bend.


@right("chain_log_density")
def with_a_list_of_log_dets(x, layers):
    log_dets = []
    h = x
    for A, b in layers:
        u = h @ A.T + b
        t = np.tanh(u)
        log_dets += [np.linalg.slogdet(A)[1], np.log(0.2 + 0.8 * t * t).sum(-1)]
        h = u - 0.8 * t
    D = x.shape[-1]
    return -0.5 * (h * h).sum(-1) - 0.5 * D * math.log(2 * math.pi) + sum(log_dets)


@right("chain_log_density")
def by_recursion(x, layers):
    if not layers:
        return -0.5 * (x**2 + math.log(2 * math.pi)).sum(axis=-1)
    (A, b), rest = layers[0], layers[1:]
    u = np.matmul(x, np.transpose(A)) + b
    log_det = np.log(np.abs(np.linalg.det(A))) + np.log1p(-0.8 / np.cosh(np.clip(u, -300, 300)) ** 2).sum(
        axis=-1
    )
    return log_det + by_recursion(u - 0.8 * np.tanh(u), rest)


@wrong(
    "chain_log_density",
    "The sign of your log-determinants is that of the inverse maps. Which way do these layers go, "
    "from data to noise or back?",
)
def minus_log_dets(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) - total


@wrong(
    "chain_log_density",
    "The noise sees what the last layer makes of the data itself: each layer started again from x. What does layer 2 see?",
)
def each_layer_starts_again(x, layers):
    total, z = np.zeros(x.shape[:-1]), x
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        z = u - 0.8 * np.tanh(u)
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "Your density is that of z, without the sum of the log-determinants. Is it added at the end?",
)
def total_forgotten(x, layers):
    for A, b in layers:
        u = x @ A.T + b
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1)


@wrong(
    "chain_log_density",
    "Only the last layer's log-determinants are in your sum. Which line overwrites what the ones before had added?",
)
def last_layer_alone(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "You stop after the first layer. How far to the right does return stand?",
)
def returns_inside_the_loop(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
        return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1)


@wrong(
    "chain_log_density",
    "You average the log-densities of the coordinates. They are independent: what becomes of their densities, and of the logarithms?",
)
def mean_over_the_coordinates(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).mean(-1) + total


@wrong(
    "chain_log_density",
    "Every log-determinant here is taken at the data. The second step does not see the data: which point does it see?",
    "In the sum, the k-th slope is evaluated at h_{k-1}, what the first k - 1 steps have made of x. Is x updated in your loop?",
)
def all_at_the_data(x, layers):
    h, total = x, np.zeros(x.shape[:-1])
    for A, b in layers:
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(x) ** 2).sum(-1)
        u = h @ A.T + b
        h = u - 0.8 * np.tanh(u)
    return -0.5 * (h**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "You ask the noise about x. It is the end of the chain, z, that is standard normal.",
)
def noise_at_the_data(x, layers):
    h, total = x, np.zeros(x.shape[:-1])
    for A, b in layers:
        u = h @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        h = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "One number comes back for each coordinate, and each point has one density. "
    "The coordinates of z are independent: what becomes of their log-densities?",
)
def not_summed_over_dimensions(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)) + total[..., None]


@wrong(
    "chain_log_density",
    "You apply the layers from the last to the first. The first of the list meets the data first.",
)
def layers_reversed(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in reversed(layers):
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "The log-determinant of your bend is taken at the input of the layer. Which point does bend_step see, "
    "once the linear step is done?",
)
def bend_at_the_layers_input(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * np.tanh(x) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "You bend first and map linearly afterwards. In which order does a layer take its two steps?",
)
def bend_first(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        t = np.tanh(x)
        total = total + np.linalg.slogdet(A)[1] + np.log(0.2 + 0.8 * t**2).sum(-1)
        x = (x - 0.8 * t) @ A.T + b
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "The bends are in your sum, and the linear steps are not. Do they change volume?",
)
def linear_log_det_forgotten(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        u = x @ A.T + b
        total = total + np.log(0.2 + 0.8 * np.tanh(u) ** 2).sum(-1)
        x = u - 0.8 * np.tanh(u)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + total


@wrong(
    "chain_log_density",
    "Every point gets the log-densities of all points together. Over which axis do the coordinates of one point stand?",
)
def noise_summed_over_everything(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        x, linear = linear_step(x, A, b)
        x, bent = bend_step(x)
        total = total + linear + bent
    return normal_log_density(x).sum() + total


@wrong(
    "chain_log_density",
    "Your chain is linear throughout: each layer has a second step, which moves the points and has a log-determinant.",
)
def no_bend(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        x, linear = linear_step(x, A, b)
        total = total + linear
    return normal_log_density(x).sum(-1) + total


@wrong(
    "chain_log_density",
    "The linear steps are in your sum, and the bends are not. Do they change volume?",
)
def log_det_of_the_bend_forgotten(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        x, linear = linear_step(x, A, b)
        x, _ = bend_step(x)
        total = total + linear
    return normal_log_density(x).sum(-1) + total


@wrong(
    "chain_log_density",
    "You take the log-determinant of each bend where the bend has led. At which end of a step is its slope taken?",
)
def bend_at_its_output(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        x, linear = linear_step(x, A, b)
        x, _ = bend_step(x)
        total = total + linear + bend_step(x)[1]
    return normal_log_density(x).sum(-1) + total


# verdict: the sign-bug detective.


@right("verdict")
def by_counting_samples(grid, log_p, samples):
    p = np.exp(log_p)
    slices = 0.5 * (p[:-1] + p[1:]) * (grid[1:] - grid[:-1])
    if not np.isclose(slices.sum(), 1, rtol=0, atol=0.01):
        return "not a density"
    model = np.append(0, np.cumsum(slices))
    counted = np.array([(samples <= x).mean() for x in grid])
    return "wrong density" if np.any(np.abs(model - counted) > 0.05) else "no objection"


@right("verdict")
def with_a_loop(grid, log_p, samples):
    p = np.exp(log_p)
    mass = np.trapezoid(p, grid)
    if not np.isfinite(mass) or abs(mass - 1) > 0.01:
        return "not a density"
    ordered, below = np.sort(samples), 0.0
    for i in range(1, len(grid)):
        below += (p[i] + p[i - 1]) / 2 * (grid[i] - grid[i - 1])
        if abs(below - np.searchsorted(ordered, grid[i], side="right") / len(ordered)) > 0.05:
            return "wrong density"
    return "no objection"


@wrong(
    "verdict",
    "Your test lets nan through: every comparison with nan is False. Ask instead whether the mass is within 0.01 of one.",
)
def nan_passes(grid, log_p, samples):
    mass = np.trapezoid(np.exp(log_p), grid)
    if abs(mass - 1) > 0.01:
        return "not a density"
    p = np.exp(log_p)
    below = np.append(0, np.cumsum((p[1:] + p[:-1]) / 2 * np.diff(grid)))
    fraction = np.searchsorted(np.sort(samples), grid, side="right") / len(samples)
    return "wrong density" if np.abs(below - fraction).max() > 0.05 else "no objection"


@wrong(
    "verdict",
    "Your test finds no fault with the map used backwards, whose mass is one. Are the samples in your test, at every point "
    "of the grid, and for gaps of either sign?",
)
def mass_only(grid, log_p, samples):
    mass = np.trapezoid(np.exp(log_p), grid)
    return "no objection" if abs(mass - 1) <= 0.01 else "not a density"


@wrong(
    "verdict",
    "Even the right density is 'not a density' to your test. Print the mass that you compute for it. If it is not one: "
    "which function of log_p do you integrate, and by which width is each value multiplied?",
)
def integrates_the_log(grid, log_p, samples):
    mass = np.trapezoid(log_p, grid)
    if not abs(mass - 1) <= 0.01:
        return "not a density"
    return "no objection"


@wrong(
    "verdict",
    "Even the right density is 'wrong density' to you, though its mass passes. Print the largest gap for it. Is every "
    "trapezoid of your running sum as wide as the first? Is what you compare with it a fraction of the samples?",
)
def widths_all_alike(grid, log_p, samples):
    p = np.exp(log_p)
    if not abs(np.trapezoid(p, grid) - 1) <= 0.01:
        return "not a density"
    fraction = np.searchsorted(np.sort(samples), grid, side="right") / len(samples)
    gap = np.cumsum(p) * (grid[1] - grid[0]) - fraction
    return "wrong density" if np.abs(gap).max() > 0.05 else "no objection"


@wrong(
    "verdict",
    "You have no objection to a density of the right mean that is too narrow. Do you compare at every point of the grid, "
    "and does the largest gap decide?",
)
def means_compared(grid, log_p, samples):
    p = np.exp(log_p)
    if not abs(np.trapezoid(p, grid) - 1) <= 0.01:
        return "not a density"
    return "wrong density" if abs(np.trapezoid(p * grid, grid) - samples.mean()) > 0.1 else "no objection"


@wrong(
    "verdict",
    "You have no objection to a density that lies too far to the left, whose probability of x <= g is too large. "
    "Is a gap of either sign a gap?",
)
def model_below_the_samples(grid, log_p, samples):
    p = np.exp(log_p)
    below = np.append(0, np.cumsum((p[1:] + p[:-1]) / 2 * np.diff(grid)))
    if not abs(below[-1] - 1) <= 0.01:
        return "not a density"
    fraction = np.searchsorted(np.sort(samples), grid, side="right") / len(samples)
    return "wrong density" if (fraction - below).max() > 0.05 else "no objection"


@wrong(
    "verdict",
    "You have no objection to the map used backwards, whose probability of x <= g is too small. Is a gap of either "
    "sign a gap?",
)
def model_above_the_samples(grid, log_p, samples):
    p = np.exp(log_p)
    below = np.append(0, np.cumsum((p[1:] + p[:-1]) / 2 * np.diff(grid)))
    if not abs(below[-1] - 1) <= 0.01:
        return "not a density"
    fraction = np.searchsorted(np.sort(samples), grid, side="right") / len(samples)
    return "wrong density" if (below - fraction).max() > 0.05 else "no objection"


# fit_waiting_times: z = a log x + b by gradient descent.


@right("fit_waiting_times")
def with_named_gradients(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        z = a * u + b
        gradient_a = (z * u).mean() - 1 / a
        gradient_b = z.mean()
        a -= rate * gradient_a
        b -= rate * gradient_b
    return float(a), float(b)


@right("fit_waiting_times")
def with_sums_computed_once(x, steps, rate):
    u = np.log(x)
    mean, square = u.mean(), (u * u).mean()
    theta = np.array([1.0, 0.0])
    for _ in range(steps):
        a, b = theta
        theta = theta - rate * np.array([a * square + b * mean - 1 / a, a * mean + b])
    return theta[0], theta[1]


@wrong(
    "fit_waiting_times",
    "Your a has shrunk to nothing: only the first term is at work, and it pulls every z to zero. "
    "Which term of the log-likelihood forbids that, and what is its derivative with respect to a?",
    when=lambda returned, *args: 0 <= returned[0] < 1e-2 and abs(returned[1]) < 1e-2,
)
def log_det_forgotten(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        z = a * u + b
        a, b = a - rate * np.mean(z * u), b - rate * np.mean(z)
    return a, b


@wrong(
    "fit_waiting_times",
    "Your log-determinant pushes a the wrong way, towards zero and past it. The loss has - log a in it: "
    "what is its derivative?",
)
def log_det_of_the_wrong_sign(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        z = a * u + b
        a, b = a - rate * (np.mean(z * u) + 1 / a), b - rate * np.mean(z)
    return a, b


@wrong(
    "fit_waiting_times",
    "Your numbers ran away. Does a step go against the gradient? Is it the gradient of the average, not of the sum? "
    "Print a for the first five steps.",
    when=lambda returned, *args: not np.isfinite(returned).all() or max(abs(v) for v in returned) > 1e6,
)
def uphill(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    with np.errstate(all="ignore"):
        for _ in range(steps):
            z = a * u + b
            a, b = a + rate * (np.mean(z * u) - 1 / a), b + rate * np.mean(z)
    return a, b


@wrong(
    "fit_waiting_times",
    "Your map fits x itself, and the chain begins with u = log x.",
    when=lambda returned, x, *args: np.allclose(returned, (1 / x.std(), -x.mean() / x.std()), rtol=0.02),
)
def without_the_logarithm(x, steps, rate):
    a, b = 1.0, 0.0
    for _ in range(steps):
        z = a * x + b
        a, b = a - rate * (np.mean(z * x) - 1 / a), b - rate * np.mean(z)
    return a, b


@wrong(
    "fit_waiting_times",
    "You return the mean and the standard deviation of log x. Those describe the data; z = a u + b needs the numbers "
    "that undo them.",
    when=lambda returned, x, *args: np.allclose(
        sorted(returned), sorted((np.log(x).std(), np.log(x).mean())), rtol=0.01
    ),
)
def mean_and_deviation(x, steps, rate):
    u = np.log(x)
    return u.std(), u.mean()


@wrong(
    "fit_waiting_times",
    "Your two gradients are the same but for the log-determinant. z = a u + b: how fast does z change with a, and how fast with b?",
)
def gradient_of_a_without_u(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        z = a * u + b
        a, b = a - rate * (np.mean(z) - 1 / a), b - rate * np.mean(z)
    return a, b


@wrong(
    "fit_waiting_times",
    "The two numbers fit the data the other way round. In which order does the exercise ask for them?",
    when=lambda returned, x, *args: np.allclose(
        returned, (-np.log(x).mean() / np.log(x).std(), 1 / np.log(x).std()), rtol=0.02
    ),
)
def pair_swapped(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        z = a * u + b
        a, b = a - rate * (np.mean(z * u) - 1 / a), b - rate * np.mean(z)
    return b, a


@wrong(
    "fit_waiting_times",
    "The fit is good. But after one step only a is where the gradient leads: b has moved by the gradient at the new a.",
    "When your line for b runs, a is no longer what it was at the beginning of the step. How do you keep both old?",
)
def b_sees_the_new_a(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        a -= rate * (np.mean((a * u + b) * u) - 1 / a)
        b -= rate * np.mean(a * u + b)
    return a, b


@wrong(
    "fit_waiting_times",
    "The fit is good. But after one step only b is where the gradient leads: a has moved by the gradient at the new b.",
    "When your line for a runs, b is no longer what it was at the beginning of the step. How do you keep both old?",
)
def a_sees_the_new_b(x, steps, rate):
    u, a, b = np.log(x), 1.0, 0.0
    for _ in range(steps):
        b -= rate * np.mean(a * u + b)
        a -= rate * (np.mean((a * u + b) * u) - 1 / a)
    return a, b


@wrong(
    "fit_waiting_times",
    "The pair is the best one, even when steps = 1. Gradient descent is asked for: where does one step lead from a = 1, b = 0?",
    when=lambda returned, x, *args: np.allclose(
        returned, (1 / np.log(x).std(), -np.log(x).mean() / np.log(x).std()), rtol=0.02
    ),
)
def closed_form(x, steps, rate):
    u = np.log(x)
    return 1 / u.std(), -u.mean() / u.std()
