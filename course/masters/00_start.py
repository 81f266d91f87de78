# %% [markdown]
# # Start here
#
# The dots in the first picture below fell at random, and they crowd in two bent bands, *two moons*. Follow them to the right: in twenty small steps the moons dissolve into a round cloud of noise, and no dot is lost. Each step is a function that can be undone.
#
# **Can every point of the noise find its way back to a moon?** If it can, then noise is all we need to make new moons, and the way through the steps tells us the *density* of the data at each place: how much probability there is per unit of area. That is a *normalizing flow*, and this course builds many of them ([lesson 02](../02_change_of_variables/change_of_variables.ipynb) begins). This short lesson gets you ready.
#
# You will be able to
#
# - run a lesson, read what a check tells you, and hand in your work;
# - find out whether your machine has what the course needs;
# - read the notation of the course, and say each symbol in code;
# - write functions that treat a whole batch of points at once;
# - compute with densities that are too small for the computer;
# - test a function without knowing its formula.

# %%
import math

import numpy as np

from autograder import check
from flowkit.lab import plots
from flowkit.lab.colours import rgba
from flowkit.lab.widgets import choice, play, predict, slider

# %% tags=["show", "hide-input"]
# Two moons, and a velocity that carries them to noise (see lessons 16 and 17)
half_turn = np.linspace(0, np.pi, 16)
upper = np.stack([np.cos(half_turn) - 0.5, np.sin(half_turn) - 0.25], axis=-1)
CENTRES, WIDTH, STEPS = 1.2 * np.concatenate([upper, -upper]), 0.12, 20
SEEN = (-4.6, 4.6)  # no point goes beyond


def velocity(x, t):
    """Where the points x, (N, 2), move at time t; the data are at t = 0 and the noise at t = 1."""
    variance = ((1 - t) * WIDTH) ** 2 + t**2
    away = x[:, None, :] - (1 - t) * CENTRES
    closeness = -0.5 * np.square(away).sum(axis=-1) / variance
    share = np.exp(closeness - closeness.max(axis=-1, keepdims=True))
    share = share / share.sum(axis=-1, keepdims=True)
    towards = (t - (1 - t) * WIDTH**2) / variance * away - CENTRES
    return (share[:, :, None] * towards).sum(axis=1)


def small_move(x, t, h):
    """One Runge-Kutta step of length h; backwards where h is negative."""
    a = velocity(x, t)
    b = velocity(x + h / 2 * a, t + h / 2)
    c = velocity(x + h / 2 * b, t + h / 2)
    d = velocity(x + h * c, t + h)
    return x + h / 6 * (a + 2 * b + 2 * c + d)


def journey(x, backwards=False):
    """The points after 0, 1, ..., STEPS steps; each step is two small moves."""
    h = (-1 if backwards else 1) / (2 * STEPS)
    places = [x]
    for k in range(2 * STEPS):
        x = small_move(x, (1 if backwards else 0) + k * h, h)
        places.append(x)
    return np.stack(places[::2])


rng = np.random.default_rng(0)
moons = CENTRES[rng.integers(32, size=500)] + WIDTH * rng.normal(size=(500, 2))
to_noise = journey(moons)
and_back = journey(to_noise[-1], backwards=True)
from_noise = journey(rng.normal(size=(500, 2)), backwards=True)


def is_upper(x):
    """Which of the two moons each point is nearer to."""
    distance = np.linalg.norm(x[:, None, :] - CENTRES, axis=-1)
    return distance.argmin(axis=1) < 16


fig, axes = plots.figure(columns=5, width=9, height=2.3, sharey=True)
for ax, step in zip(axes, (0, 3, 6, 12, 20), strict=True):
    above = is_upper(moons)
    ax.plot(*to_noise[step][above].T, "o", markersize=2, color=plots.BLUE)
    ax.plot(*to_noise[step][~above].T, "^", markersize=2, color=plots.ORANGE)
    ax.set(xlim=SEEN, ylim=SEEN, aspect="equal", xlabel="first coordinate", title=f"step {step}")
axes[0].set_ylabel("second coordinate")
plots.show(
    fig,
    alt="500 points in five panels. At step 0 they form two interleaved moons, the upper one of blue dots and the lower one of orange triangles. The moons thicken and run together; at step 20 all is one round cloud. It is blue above and on the left and orange below and on the right, and the border between the two winds like an S.",
)
print(f"there and back again, the point that strays most is off by {np.abs(and_back[-1] - moons).max():.0e}")


# %% tags=["show", "hide-input"]
def draw_journey(scene, way, step):
    places = {"data to noise": to_noise, "fresh noise to data": from_noise}[way]
    above = is_upper(places[0] if way == "data to noise" else places[-1])
    x = places[step]
    scene.axes(x=SEEN, y=SEEN, xlabel="first coordinate", ylabel="second coordinate", equal=True)
    scene.points(x[above], colour=plots.BLUE, label="upper moon", size=5)
    scene.points(x[~above], colour=plots.ORANGE, label="lower moon", size=5, marker="triangle")
    near = np.linalg.norm(x[:, None, :] - CENTRES, axis=-1).min(axis=1) < 3 * WIDTH
    return f"Step {step} of {STEPS}, {way}: {near.sum()} of {len(x)} points lie within 3 widths of a moon's middle line."


play(
    draw_journey,
    way=choice(["data to noise", "fresh noise to data"], label="direction"),
    step=slider(0, STEPS, 0, step=1, label="step"),
)

# %% [markdown]
# Move the slider, with the mouse or with the arrow keys. Then choose *fresh noise to data*: 500 random points that no one has seen before take the steps in reverse. The colours tell which moon each of them ends on, so at step 0 you see which part of the noise belongs to which moon. A moon has no sharp edge: a few points, of the data too, lie more than three widths from its middle line.
#
# ## 1. Is your machine ready?
#
# You are reading a *notebook*: cells of text and cells of code, with a running Python behind them, the *kernel*. **Shift+Enter** runs a cell and goes to the next; `[*]` beside a cell means that it is still running. Run the cells from the top: later ones use what earlier ones define. When things get tangled, choose *Kernel, Restart Kernel and Run up to Selected Cell* from the menu.
#
# The cell below looks at what you have. A laptop with two cores is enough; nothing in this course needs a graphics card or, once installed, the network. The code of cells that only draw or report is folded away; open it whenever you are curious.

# %% tags=["show", "hide-input"]
import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, version


def package_version(name):
    """The version of a package, without importing it; None where it is missing."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "without a version"


def memory_in_gigabytes():
    """The machine's memory, or None where it cannot be found out."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total / 2**30


INSTALL = "install the course as README.md says, then restart the kernel"
USES = {
    "numpy": f"Needed in every lesson: {INSTALL}.",
    "matplotlib": f"Needed for the figures: {INSTALL}.",
    "anywidget": f"Without it the interactives do not move: {INSTALL}.",
    "torch": f"Not needed today, and from lesson 03 on: {INSTALL}.",
}
report = [
    ("Python", sys.version.split()[0], sys.version_info >= (3, 11), f"3.11 or newer is needed: {INSTALL}.")
]
for name, advice in USES.items():
    found = package_version(name)
    report.append((name, found or "missing", found is not None, advice))
memory = memory_in_gigabytes()
shown = "unknown" if memory is None else f"{memory:.1f} GB"
advice = "Lessons need up to 1.2 GB for themselves: close other notebooks and programs first."
report.append(("memory", shown, memory is None or memory >= 1.9, advice))
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
report.append(("cores", str(cores), cores >= 2, "Training will take about twice as long as stated."))

for what, is_there, good, advice in report:
    print(f"{what:12} {is_there:20} {'ok' if good else advice}")
if all(good for _, _, good, _ in report):
    print("All is there. Go on.")
else:
    print("Do what is said above first, or go on and expect trouble there.")

# %% [markdown]
# ## 2. How an exercise works
#
# An exercise has a statement, a cell that is yours, and a check. Run your cell, then the check. It has four outcomes:
#
# | | the check says | it means | what to do |
# | :-- | :-- | :-- | :-- |
# | ○ | not attempted | your function is not there, or is still empty | write it, or run its cell |
# | ! | error in your code | Python stopped in *your* line, which is shown | mend that line |
# | ✗ | not right yet | it ran, and what came back is wrong | read the reason; it often ends in a question |
# | ✓ | right | all public checks passed | go on |
#
# If you make the same mistake a second time, the check says more. The code of a long check is folded away: Shift+Enter runs it all the same, a click opens it. Below each statement stand *hints*, titled by symptom; click on one to open it. The last hint is a template with blanks.
#
# Most exercises also have *hidden tests*: the same question with other numbers and shapes, asked when your work is graded. They are there so that a function has to be right in general, and code that is passes both. The line under the title of an exercise says what it is worth, how hard it is and how much rests on it.
#
# Exercises are about points. Many points in one array are a *batch*: in an array of shape `(N, D)`, each of the `N` rows is a point, and each of the `D` columns a coordinate.

# %% [markdown] exercise="squared_length" title="one that is right already" difficulty=1 importance=2 minutes=3
# `squared_length(x)` gives the squared length of each point of a batch, $x_1^2 + \dots + x_D^2$. There is nothing to write. Run the cell, then run the check below it.
#
# Look at the last two lines of the cell all the same, a comment in capitals and a `raise` (it stops Python with an error). Every cell that is yours comes with them. They mark the place of your code, and keep an empty function from being taken for a wrong one. Here `return` comes first, so Python never reaches them. In other exercises you replace both by your code.
#
# <details><summary>"It says not attempted"</summary>
#
# The check looks for a function of that name in the running kernel. Have you run the cell that defines it? Press Shift+Enter in it.
#
# </details>
# <details><summary>A template</summary>
#
# Here is the line once more, with blanks, to see what a template looks like: `return np.square(____).sum(axis=____)`
#
# </details>


# %% solution="squared_length"
def squared_length(x):
    """The squared length of each point. x: (N, D) -> (N,)."""
    return np.square(x).sum(axis=-1)
    ### BEGIN SOLUTION
    # Nothing is missing: the line above is the whole answer.
    ### END SOLUTION


# %% test="squared_length" points=1
import numpy as np
from autograder import check


def one_at_a_time(x):
    """The slow specification: a loop over the points and their coordinates."""
    return np.array([sum(float(coordinate) ** 2 for coordinate in point) for point in x])


cases = [(np.array([[3.0, 4.0], [1.0, -1.0], [0.5, 2.0]]),), (np.array([[2.0, -3.0, 6.0]]),)]
check.values("start.squared_length", cases, one_at_a_time, hidden=False)

# %% [markdown] exercise="center" title="one that needs a fix" difficulty=1 importance=3 minutes=5
# `center(x)` should move a batch so that its mean point lies at the origin. `x` has shape `(N, D)`, one point in each *row*, and every *column* of the result has mean zero: `center(np.array([[1.0, 10.0], [3.0, 30.0]]))` is `[[-1., -10.], [1., 10.]]`.
#
# Somebody wrote it with one mistake. Run the cell and the check as they are, and read the message. Then repair the marked line; delete the comment and the `raise` below it, or leave them. (`keepdims=True` keeps the axis along which the mean is taken, with length 1.)
#
# <details><summary>"I do not know what axis means"</summary>
#
# `x.mean(axis=k)` runs along axis `k` and removes it. For `x` of shape `(5, 2)`, what are the shapes of `x.mean(axis=0)` and of `x.mean(axis=1)`? Try it in a cell of your own: the **+** button above the notebook makes one.
#
# </details>
# <details><summary>A template</summary>
#
# `return x - x.mean(axis=____)`
#
# </details>


# %% solution="center"
def center(x):
    """The batch minus its mean point. x: (N, D) -> (N, D)."""
    return x - x.mean(axis=1, keepdims=True)  # repair this line
    ### BEGIN SOLUTION
    return x - x.mean(axis=0)
    ### END SOLUTION


# %% test="center" points=1
import numpy as np
from autograder import check


def column_by_column(x):
    return np.stack([column - sum(column) / len(column) for column in x.T], axis=1)


rng = np.random.default_rng(0)
cases = [(rng.normal(size=(3, 2)) + np.array([1, 10]),), (rng.normal(size=(4, 4)),)]
check.values("start.center", cases, column_by_column)

# %% hidden="center" points=2
import numpy as np
from autograder import check

rng = check.rng("start.center")
cases = [(rng.normal(size=shape) * 3 + 5,) for shape in [(1, 3), (6, 1), (5, 7), (2, 2)]]
check.values("start.center", cases, lambda x: x - np.einsum("nd->d", x) / len(x))

# %% [markdown] exercise="scale_and_shift" title="all four outcomes" difficulty=1 importance=4 minutes=6
# The smallest flow of the course multiplies and adds: $z = x\,e^{s} + t$, coordinate by coordinate. The scale is written $e^s$ because it is then never zero, whatever number $s$ is, so the way back always exists.
#
# Write `scale_and_shift(x, s, t)`. `x` has shape `(..., D)`: the last axis runs over the $D$ coordinates, and in front of it there may be no axis (one point), one (a batch), or more. `s` and `t` have shape `(D,)`. For example, with `x = [1., 2.]`, `s = [0., 0.]` and `t = [10., 10.]` the answer is `[11., 12.]`.
#
# Meet the four outcomes on the way. After each change, run the cell and then the check:
#
# 1. Change nothing.
# 2. Put `return x * exp(s) + t` in place of the last two lines. Nothing is called `exp` here: which line does the check name?
# 3. Put `return x * s + t`. This one runs. What does the check say, and what more when you run it again?
# 4. Put the right formula.
#
# <details><summary>"Python does not know exp"</summary>
#
# The cell of imports says `import numpy as np`, so NumPy's functions are called `np.exp`, `np.log`, `np.sqrt`.
#
# </details>
# <details><summary>A template</summary>
#
# `return x * ____ + ____`
#
# </details>


# %% solution="scale_and_shift"
def scale_and_shift(x, s, t):
    """z = x exp(s) + t, coordinate by coordinate. x: (..., D); s, t: (D,) -> (..., D)."""
    ### BEGIN SOLUTION
    return x * np.exp(s) + t
    ### END SOLUTION


# %% test="scale_and_shift" points=1
import math

import numpy as np
from autograder import check


def coordinate_by_coordinate(x, s, t):
    points = x.reshape(-1, len(s))
    moved = [[point[i] * math.exp(s[i]) + t[i] for i in range(len(s))] for point in points]
    return np.reshape(moved, x.shape)


rng = np.random.default_rng(0)
shapes = [(3, 2), (1, 4), (2,), (2, 2, 3)]
cases = [(rng.normal(size=shape), *rng.normal(size=(2, shape[-1]))) for shape in shapes]
check.values("start.scale_and_shift", cases, coordinate_by_coordinate)

# %% hidden="scale_and_shift" points=2
import numpy as np
from autograder import check

rng = check.rng("start.scale_and_shift")
cases = [(rng.normal(size=shape), *rng.normal(size=(2, shape[-1]))) for shape in [(3,), (5, 1), (2, 3, 7)]]
cases.append((rng.normal(size=(4, 2)), np.array([-30.0, 30.0]), np.zeros(2)))
check.values("start.scale_and_shift", cases, lambda x, s, t: np.multiply(np.exp(s), x) + t)

# %% [markdown]
# ## 3. Arrays: a whole batch at once
#
# Loops over points are slow in Python and hide what is meant. Everything in this course works on batches: arrays of shape `(..., D)`, where the last axis runs over the $D$ coordinates of a point and all axes before it, as many as there are, over points. One point is `(D,)`, many are `(N, D)`, a batch of batches is `(M, N, D)`. A function that gives one number for each point, as `squared_length` does, returns `(...)`: the last axis is gone.
#
# So count axes from the end. `x.sum(axis=-1)` sums over coordinates whatever stands in front; `x.sum(axis=1)` does so only for `(N, D)`.
#
# When two shapes differ, NumPy *broadcasts*: it lines the shapes up from the right, and an axis that is missing or has length 1 is repeated. That made `scale_and_shift` short. It also makes mistakes silent.

# %% tags=["show", "hide-input"]
predict(
    "u has shape (5,) and v has shape (5, 1). What is the shape of u - v?",
    ["(5,): they hold five numbers each", "(5, 5): each number of u with each of v", "None: NumPy refuses"],
)

# %% tags=["show"]
u = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
v = u.reshape(5, 1)
print("shape of u - v            ", (u - v).shape)
print("mean squared difference   ", np.mean((u - v) ** 2))
print("the same with v.squeeze() ", np.mean((u - v.squeeze()) ** 2))

# %% [markdown]
# Five numbers compared with themselves have a mean squared difference of 4, without a word of warning. It is the mistake that you will meet most often in flow code.

# %% [markdown] exercise="noise_log_density" title="the density of noise" difficulty=2 importance=5 minutes=12
# Now a derivation, with its result typed as code. *Noise* in this course is the standard normal in $D$ dimensions: $D$ independent coordinates, each with the density
#
# $$p(z_i) = \frac{1}{\sqrt{2\pi}}\, e^{-z_i^2/2} .$$
#
# Independent means that the densities multiply. Take the logarithm of the product, on paper, and write `noise_log_density(z)`: `z` has shape `(..., D)`, the result `(...)`. It may be one point, and $D$ may be 1000. What is the constant in front, in $D$ dimensions? A right function gives $-1.838$ at the origin in two dimensions. When yours is right, the interactive below runs it.
#
# <details><summary>"It is right for D = 1 and off by a constant elsewhere"</summary>
#
# Each of the $D$ factors brings its own $1/\sqrt{2\pi}$. How many logarithms of it are in the sum? `z.shape[-1]` is $D$.
#
# </details>
# <details><summary>"I get -inf in many dimensions"</summary>
#
# The product of a thousand small numbers is zero to the computer. Take logarithms before you multiply.
#
# </details>
# <details><summary>A template</summary>
#
# `return -0.5 * ____ .sum(axis=____) - 0.5 * z.shape[____] * math.log(____)`
#
# </details>


# %% solution="noise_log_density"
def noise_log_density(z):
    """The log-density of the standard normal in D dimensions. z: (..., D) -> (...)."""
    ### BEGIN SOLUTION
    return -0.5 * np.square(z).sum(axis=-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
    ### END SOLUTION


# %% test="noise_log_density" points=2
import math
from decimal import Decimal

import numpy as np
from autograder import check


def product_of_densities(z):
    """The slow specification: multiply the densities, in decimals that never round to zero; then the logarithm."""

    def density(c):
        return Decimal(math.exp(-(c**2) / 2) / math.sqrt(2 * math.pi))

    products = [math.prod(density(float(c)) for c in point) for point in z.reshape(-1, z.shape[-1])]
    return np.reshape([float(product.ln()) for product in products], z.shape[:-1])


rng = np.random.default_rng(0)
cases = [(np.array([[0.3, -1.2], [0.0, 0.0], [2.0, 1.0]]),), (rng.normal(size=(4, 5)),)]
cases += [(rng.normal(size=3),), (rng.normal(size=(2, 1000)),)]  # one point; many dimensions
check.values("start.noise_log_density", cases, product_of_densities)

# %% hidden="noise_log_density" points=2
import math

import numpy as np
from autograder import check


def by_lengths(z):
    return -0.5 * (np.linalg.norm(z, axis=-1) ** 2 + z.shape[-1] * math.log(2 * math.pi))


rng = check.rng("start.noise_log_density")
cases = [(rng.normal(size=shape),) for shape in [(3,), (6, 1), (4, 7), (2, 3, 2), (2, 2, 1, 3)]]
cases += [(rng.normal(size=(3, 2000)),), (rng.normal(size=(2, 2)) * 1e3,)]
check.values("start.noise_log_density", cases, by_lengths)

# %% tags=["show", "hide-input"]
dimensions = np.arange(10, 1001, 10)
clouds = np.random.default_rng(1).normal(size=(100, 1000))


def draw_dimensions(scene, D):
    log_density = check.yours(
        "start.noise_log_density",
        otherwise=lambda z: (-0.5 * (np.square(z) + math.log(2 * math.pi))).sum(axis=-1),
    )
    lengths = np.linalg.norm(clouds[:, :D], axis=-1)
    heights, edges = np.histogram(lengths, bins=np.linspace(0, 35, 71))
    average = np.array([log_density(clouds[:, :d]).mean() for d in dimensions])
    here = log_density(clouds[:, :D]).mean()
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    left.axes(x=(0, 35), y=(0, 50), xlabel="length of a point", ylabel="points of 100", title="how far out")
    left.bars(edges[:-1] + 0.25, heights, width=0.5, colour=plots.BLUE)
    right.axes(x=(0, 1000), y=(-1500, 0), xlabel="dimensions D", title="average log-density")
    right.curve(dimensions, average, colour=plots.BLUE, label="of noise")
    right.curve([0, 1000], [-745.2, -745.2], colour=plots.RED, dash="dashed", label="exp gives 0 below this")
    right.points([D], [here], colour=plots.ORANGE, size=9)
    density = np.exp(here)
    return (
        f"D = {D}: the points lie at a distance of about {lengths.mean():.1f}, with log-density {here:.0f} on average; "
        f"its exponential is {density:.2g} to the computer."
    )


play(draw_dimensions, D=slider(1, 1000, 2, step=1, label="dimensions D"))

# %% [markdown]
# Two surprises. In many dimensions noise does not sit at the origin, where its density is highest: it lies in a thin shell of radius about $\sqrt D$, since each of the $D$ squares that make up the squared length is 1 on average. And beyond some 500 dimensions the density of a typical point is *zero* to the computer; its logarithm is an ordinary number. Drag to $D = 784$, the number of pixels of a small image. This is why every density in this course is a log-density.
#
# ## 4. The notation
#
# One notation, from here to the last lesson. Each row has its twin in code, run below on a flow that scales and shifts each coordinate. What $J$ is doing there is the subject of [Change of variables](../02_change_of_variables/change_of_variables.ipynb); today, just learn to read it.
#
# | symbol | meaning | in code |
# | :-- | :-- | :-- |
# | $x$, $z$ | data and noise, each of shape `(..., D)` | `x.shape` |
# | $f : x \to z$ and $f^{-1}$ | the flow, from data to noise; its inverse samples, from noise to data | `z = f(x)`, `x = (z - shift) / scale` |
# | $J_{ij} = \partial z_i / \partial x_j$ and $\log\lvert\det J\rvert$ | the Jacobian of $f$ at a point, how output $i$ changes with input $j$; its log-determinant, by how much $f$ stretches volume there | `J = np.diag(scale)`, `log_det = np.log(np.abs(scale)).sum()` |
# | $\log p_X(x) = \log p_Z(f(x)) + \log\lvert\det J\rvert$ | the log-density of data, from that of noise; every lesson uses this sign | `log_p = log_noise(f(x)) + log_det` |
# | $f = f_K \circ \dots \circ f_1$ | composition: $f_1$ meets the data first, log-determinants add | `for f_k in layers: x = f_k(x)` |
#
# In the library each flow goes both ways and returns the log-determinant with the point: `z, log_det = f.forward(x)` and `x, log_det = f.inverse(z)`.

# %% tags=["show"]
scale, shift = np.array([3.0, -0.5]), np.array([1.0, 0.0])


def f(x):
    return scale * x + shift


def log_noise(z):
    """The noise of exercise 4, in two dimensions."""
    return -0.5 * (z[..., 0] ** 2 + z[..., 1] ** 2) - math.log(2 * math.pi)


x = np.array([[0.2, -0.4], [1.0, 3.0], [0.0, 0.0], [-2.0, 1.0]])
z = f(x)
print("x, z                  ", x.shape, z.shape)
J, h = np.diag(scale), 1e-6
measured = np.stack([(f(x[0] + h * e) - f(x[0] - h * e)) / (2 * h) for e in np.eye(2)], axis=1)
print("J, and J measured     ", J.round(4).tolist(), measured.round(4).tolist())
log_det = np.log(np.abs(scale)).sum()
print("log abs det J         ", log_det.round(4), np.linalg.slogdet(J)[1].round(4))
log_p = log_noise(f(x)) + log_det
print("log p_X(x)            ", log_p.round(3))
edges = np.linspace(-30, 30, 1201)
grid = np.stack(np.meshgrid(edges, edges), axis=-1)
print("p_X integrates to     ", (np.exp(log_noise(f(grid)) + log_det).sum() * 0.05**2).round(6))
print("f^-1(f(x)) is x       ", np.allclose((z - shift) / scale, x))
layers, total = [f, f, f], 0.0
for f_k in layers:
    x, total = f_k(x), total + log_det
print("f o f o f: log-dets   ", total.round(4), np.linalg.slogdet(J @ J @ J)[1].round(4))

# %% [markdown]
# ## 5. Numbers that are too small
#
# A density is often a sum. The two moons of the first picture are a mixture of 32 small Gaussians, and the density of a mixture is the average of their densities. Far from the moons every term is tiny, and `exp` gives zero. That is *underflow*; beyond about $e^{709}$ the opposite happens, *overflow*, and `exp` gives infinity.

# %% tags=["show"]
with np.errstate(all="ignore"):
    for a in (np.array([-1.0, -2.0]), np.array([-1000.0, -1001.0]), np.array([1000.0, 999.0])):
        print(f"a = {a!s:18} log(sum(exp(a))) = {np.log(np.sum(np.exp(a)))}")

# %% [markdown] exercise="log_sum_exp" title="the log of a sum" difficulty=2 importance=5 minutes=9
# The second answer should be near $-1000$, the third near $1000$. Pull the largest term, with $m = \max_k a_k$, out of the sum:
#
# $$\log\sum_{k=1}^{n} e^{a_k} = \log\Bigl(e^{m}\sum_{k=1}^{n} e^{a_k - m}\Bigr) = m + \log\sum_{k=1}^{n} e^{a_k - m} .$$
#
# On the right every exponent is at most 0, so nothing overflows, and one of them is exactly 0, so the sum is at least 1 and its logarithm is safe.
#
# Write `log_sum_exp(a)`: `a` has shape `(..., n)`, the result `(...)`, one number for each row. An entry may be `-np.inf`, a term that is zero, as long as another in its row is finite. For example `log_sum_exp(np.zeros((3, 2)))` is three times $\log 2$, about 0.693. When you are right, the interactive below paints the moons with your function.
#
# <details><summary>"The shapes do not fit when I subtract the maximum"</summary>
#
# `a` has shape `(..., n)` and `a.max(axis=-1)` has shape `(...)`. With `keepdims=True` the last axis stays, with length 1, and broadcasting does what you want.
#
# </details>
# <details><summary>A template</summary>
#
# `m = a.max(axis=-1, keepdims=True)`, then `return ____ + np.log(np.exp(____).sum(axis=-1))`, where the first blank is `m` without its last axis: `m[..., 0]`.
#
# </details>


# %% solution="log_sum_exp"
def log_sum_exp(a):
    """log(sum(exp(a))) over the last axis, without overflow. a: (..., n) -> (...)."""
    ### BEGIN SOLUTION
    m = a.max(axis=-1, keepdims=True)
    return m.squeeze(axis=-1) + np.log(np.exp(a - m).sum(axis=-1))
    ### END SOLUTION


# %% test="log_sum_exp" points=2
import numpy as np
from autograder import check


def two_at_a_time(a):
    """The slow specification: NumPy adds two terms stably; repeat for each column."""
    total = a[..., 0]
    for k in range(1, a.shape[-1]):
        total = np.logaddexp(total, a[..., k])
    return total


cases = [
    (np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]]),),
    (np.array([[-1000.0, -1001.0], [-2000.0, -2003.0]]),),
    (np.array([1000.0, 999.0]),),
    (np.array([[-np.inf, 0.0], [3.0, -900.0]]),),  # a term that is zero
    (np.array([[[1.0, 2.0]], [[0.5, -0.5]], [[0.0, 9.0]]]),),  # an axis of length 1 in front
]
check.values("start.log_sum_exp", cases, two_at_a_time)

# %% hidden="log_sum_exp" points=2
import numpy as np
from autograder import check

rng = check.rng("start.log_sum_exp")
cases = [(rng.normal(size=shape) * 3,) for shape in [(4,), (5, 1), (3, 7), (2, 1, 3), (2, 3, 2)]]
cases += [(rng.normal(size=(4, 3)) * 2 + np.array([[-5000.0], [0.0], [800.0], [5000.0]]),)]
cases += [(np.array([[0.0, -np.inf], [-np.inf, -900.0]]),)]
check.values("start.log_sum_exp", cases, lambda a: np.logaddexp.reduce(a, axis=-1))


# %% tags=["show", "hide-input"]
def draw_moons(scene, formula, window):
    stable = check.yours("start.log_sum_exp", otherwise=lambda a: np.logaddexp.reduce(a, axis=-1))
    s = np.linspace(-window, window, 100)
    grid = np.stack(np.meshgrid(s, s), axis=-1)
    away = np.square(grid[:, :, None, :] - CENTRES).sum(axis=-1)
    terms = -0.5 * away / WIDTH**2 - math.log(2 * math.pi * WIDTH**2) - math.log(32)
    with np.errstate(divide="ignore"):
        log_p = stable(terms) if formula == "log_sum_exp" else np.log(np.exp(terms).sum(axis=-1))
    lost = np.isinf(log_p)
    truth = np.logaddexp.reduce(terms, axis=-1)
    depth = truth.max() - truth.min()
    scene.axes(xlabel="first coordinate", ylabel="second coordinate", title="log-density", equal=True)
    below = np.maximum(truth.max() - np.where(lost, np.nan, log_p), 0)
    shade = -np.sqrt(below)  # the root shows the moons and the depths
    scene.image(shade, extent=(-window, window, -window, window), low=-math.sqrt(depth), high=0)
    for part in np.linspace(0, 1, 4):  # the scale of the colours, in the legend
        red, green, blue, _ = rgba(np.array(1 - part))
        label = f"{truth.max() - part**2 * depth:.0f}"
        scene.points(
            [[np.nan, np.nan]], colour=f"#{red:02x}{green:02x}{blue:02x}", label=label, marker="square"
        )
    if lost.any():
        scene.text(-0.95 * window, 0.88 * window, "blank: -inf", align="left")
    return (
        f"Window of {2 * window:.0f} by {2 * window:.0f}: the log-density goes down to {log_p.min():.0f}, "
        f"and {lost.mean():.0%} of the window is lost."
    )


play(
    draw_moons,
    formula=choice(["the plain formula", "log_sum_exp"], label="computed with"),
    window=slider(2.0, 10.0, 6.0, step=0.5, label="half the window"),
)

# %% [markdown]
# With the plain formula everything in the blank region is lost, although the points there are only a few units away from the moons. One such point makes the average log-density of a whole batch infinite.
#
# ## 6. A test that needs no formula
#
# How do you test a function whose right values you do not know? By a *property*: something that holds for every right function and every input. Here is one that every flow and every density of this course shares (not `center`: it looks at the whole batch). **Each point of a batch is treated on its own.** So the result for the batch must be the results for its points, one by one. No formula is needed, any input will do, and it catches sums over the wrong axis, forgotten axes and means over the batch, which let one point change the result of another.

# %% [markdown] exercise="alike" title="together or alone" difficulty=2 importance=4 minutes=8
# Write the comparison. `alike(together, alone)` gets two arrays: `together`, what a function returned for a batch, and `alone`, what it returned point by point, stacked. It returns `True` where they are alike, and `False` otherwise:
#
# - the shapes must be the same. Never trust broadcasting in a test;
# - every entry must agree up to rounding: a difference below $10^{-6}$ is fine, and a larger one is not, however large the entry;
# - `nan` is like nothing, not even like another `nan`.
#
# The cell after the check sets your test on four functions: the length of a point, its log-density, *softmax* (the exponentials of the coordinates, divided by their sum) and *standardize* (a mean subtracted, then a division by the spread). One mixes points, so no flow could use it.
#
# <details><summary>"nan gets True"</summary>
#
# Every comparison with `nan` is False, so `difference > 1e-6` does not notice it. Ask the opposite question: are all differences *small*?
#
# </details>
# <details><summary>"Wrong shapes get True"</summary>
#
# A difference of shapes `(2, 1)` and `(2,)` has shape `(2, 2)`, and all four numbers may be small. Look at the shapes before you subtract.
#
# </details>
# <details><summary>"A right function gets False, or a difference that is too large True"</summary>
#
# Sums in another order differ in their last digits: is your comparison exact? `np.allclose` has a bound of its own, `atol + rtol * abs(alone)`: which numbers stand there unless you say so?
#
# </details>
# <details><summary>A template</summary>
#
# `if together.shape != ____: return False`, then `return bool(np.all(np.abs(____) < ____))`
#
# </details>


# %% solution="alike"
def alike(together, alone):
    """Whether two arrays have one shape and the same entries, up to rounding. -> bool"""
    ### BEGIN SOLUTION
    if together.shape != alone.shape:
        return False
    return bool(np.all(np.abs(together - alone) < 1e-6))
    ### END SOLUTION


# %% test="alike" points=2
import numpy as np
from autograder import check

alone = np.array([-1.5, 0.25, -0.5])
with_nan = np.array([-1.5, np.nan, -0.5])
suspects = {
    "right": (alone, alone, True),
    "right, with other last digits": (alone + np.array([1e-12, 0, -1e-12]), alone, True),
    "below the bound, at a zero": (np.array([5e-7, 2.0]), np.array([0, 2.0]), True),
    "above the bound": (alone + np.array([0, 5e-6, 0]), alone, False),
    "above the bound, at a large entry": (np.array([1000.0005]), np.array([1000.0]), False),
    "one entry too large": (alone + np.array([0, 0.1, 0]), alone, False),
    "one entry too small": (alone - np.array([0, 0, 0.1]), alone, False),
    "errors that cancel": (alone + np.array([0.1, -0.1, 0]), alone, False),
    "all entries wrong": (-alone, alone, False),
    "summed over the batch": (np.array(alone.sum()), alone, False),
    "nan": (with_nan, alone, False),
    "nan in both": (with_nan, with_nan, False),
    "one axis too many": (np.array([[0.7]]), np.array([0.7]), False),
    "a column": (np.full((2, 1), 0.7), np.full(2, 0.7), False),
    "one value for two points": (np.full(1, 0.7), np.full(2, 0.7), False),
}
cases = [(together, alone) for together, alone, _ in suspects.values()]
answers = iter([answer for _, _, answer in suspects.values()])
check.values("start.alike", cases, reference=lambda together, alone: next(answers))

# %% hidden="alike" points=3
import numpy as np
from autograder import check

rng = check.rng("start.alike")
cases = []
for shape in [(1,), (4,), (5, 3), (2, 3, 2)]:
    alone = rng.normal(size=shape)
    one_wrong, one_nan = alone.copy(), alone.copy()
    one_wrong.flat[rng.integers(alone.size)] -= 1e-5
    one_nan.flat[rng.integers(alone.size)] = np.nan
    cases += [(alone + 1e-11, alone), (one_wrong, alone), (one_nan, alone), (one_nan, one_nan)]
    cases += [(alone + 8e-7, alone), (0 * alone - 8e-7, 0 * alone), (1e4 * alone + 1e-4, 1e4 * alone)]
    cases += [(alone[..., None], alone), (alone.sum(), alone), (alone.mean(axis=0) + 0 * alone, alone + 1)]
cases.append((np.full((1, 2), 0.5), np.full((3, 2), 0.5)))


def same_shape_and_close(together, alone):
    return np.shape(together) == np.shape(alone) and np.allclose(together, alone, rtol=0, atol=1e-6)


check.values("start.alike", cases, same_shape_and_close)

# %% tags=["show"]
suspects = {
    "length": lambda x: np.sqrt(np.square(x).sum(axis=-1)),
    "log-density": lambda x: -0.5 * np.square(x).sum(axis=-1) - math.log(2 * math.pi),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
    "standardize": lambda x: (x - x.mean(axis=0)) / np.sqrt(1 + x.var(axis=0)),
}
words = {True: "treats points alike", False: "mixes points", None: "waits for your test"}
same = check.yours("start.alike", otherwise=lambda together, alone: None)
points = np.random.default_rng(2).normal(size=(6, 2))
for name, function in suspects.items():
    print(f"{name:12} {words[same(function(points), np.concatenate([function(x[None]) for x in points]))]}")

# %% [markdown]
# ## What you have seen
#
# - A check has four outcomes, says why, and says more the second time. Hidden tests ask the same question with other inputs.
# - Arrays have shape `(..., D)`: one function for one point, a batch, or a batch of batches. Count axes from the end.
# - The flow goes from data to noise, and $\log p_X(x) = \log p_Z(f(x)) + \log\lvert\det J\rvert$.
# - Densities live as logarithms, and sums of them need the log-sum-exp trick.
# - A property test finds bugs without a formula.
#
# And the first question? Yes. The line under the first picture says how far from its place the worst of 500 points ends, there and back: less than a thousandth of the width of a moon, because steps of finite length are undone with finite precision. Fresh noise makes moons as good as the data: 498 of 500 points lie within three widths of a middle line, of the data 499. That we can go both ways, and know the stretching on the way, is the whole idea of a flow.
#
# **The words of this lesson**
#
# <!-- words -->
#
# **Handing in.** Save (Ctrl+S) and hand in this file, `start.ipynb`, under its own name, where your course tells you to. Your functions are run afresh, from the top, when they are graded. Before you hand in, do the same: *Kernel, Restart Kernel and Run All Cells*. It stops at a check that fails; run the rest by hand. If you study alone, `solutions/` beside `lessons/` has every lesson worked out. Look there after an honest try.
#
# **Keeping your work.** An update of the course brings new versions of these files. So first copy the notebooks that you have worked in to a folder of your own, `mine/` beside `lessons/` for example; they run there too. Then update. If git refuses because a lesson has changed on your side, `git restore lessons` puts the original back; your copy is safe.
#
# **Further reading.** Harris and others, *Array programming with NumPy* (2020), tells in eight pages why arrays and broadcasting are as they are. Blanchard, Higham and Higham, *Accurately computing the log-sum-exp and softmax functions* (2021), prove that the trick of exercise 5 is safe.
