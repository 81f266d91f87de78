# %% [markdown]
# # Change of variables
#
# Lesson 02 · 120 minutes · 20 points · first: [Start here](../00_start/start.ipynb)
#
# The histogram below counts 20,000 numbers, drawn from a Gaussian and pushed *backwards* through the curve on its left: start at z on the vertical axis, read off x. The orange curve was not fitted to them: it was *computed*, exactly, from the Gaussian and the function alone.
#
# **You push every point of a density through a function. What is the density of the result?** The answer is one line long, and every normalizing flow is built on it.
#
# You will be able to
#
# - derive the change of variables in one dimension from conservation of mass, and say where the absolute value comes from;
# - write log-densities that stay finite where the naive formula overflows;
# - add log-determinants along a chain of maps, in one dimension or many;
# - convict a wrong density with a test that needs no theory;
# - fit a flow by minimizing the negative log-likelihood.

# %% nbgrader={"cell_type": "code", "checksum": "8f59a4834a9fe05bb5e9ed688c3269f0", "grade": false, "grade_id": "code_1", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import numpy as np

from autograder import check
from flowkit.lab import plots
from flowkit.lab.widgets import play, predict, slider

LOG_2PI = math.log(2 * math.pi)


def normal_log_density(z):
    """log N(z; 0, 1), elementwise."""
    return -0.5 * (np.square(z) + LOG_2PI)


# %% tags=["show", "hide-input"]
x = np.linspace(-5, 5, 2001)
z = 0.4 * x + np.tanh(1.5 * (x + 2)) + np.tanh(1.5 * (x - 2))  # f : x -> z, always rising
slope = 0.4 + 1.5 / np.cosh(1.5 * (x + 2)) ** 2 + 1.5 / np.cosh(1.5 * (x - 2)) ** 2
noise = np.random.default_rng(0).normal(size=20_000)
samples = np.interp(noise, z, x)  # x = f^-1(z), read off the graph backwards

fig, (left, right) = plots.figure(columns=2)
left.plot(x, z, color=plots.BLUE)
left.set(xlabel="x (data)", ylabel="z (noise)", title="z = f(x)")
right.hist(samples, bins=100, density=True, color=plots.GREY, alpha=0.5, label="20,000 samples")
right.plot(x, np.exp(normal_log_density(z)) * slope, color=plots.ORANGE, label="computed")
right.set(xlabel="x (data)", ylabel="density", title="The density of x")
right.set_ylim(0, 0.42)
right.legend(loc="upper center", ncols=2)
plots.show(
    fig,
    alt="Left: a rising curve with two steep steps, at x = -2 and x = 2. Right: a histogram with two humps, at about -1.5 and 1.5, and a computed curve that follows it everywhere.",
)


# %% [markdown]
# ## 1. Mass is conserved
#
# Throughout the course, `x` is data and `z` is noise. The flow $f$ takes data to noise, $z = f(x)$, and sampling walks back: draw $z$ from a density that we know, $p_Z$, and return $x = f^{-1}(z)$. We want $p_X$, the density of those samples.
#
# Take a small interval of width $dx$ around $x$. The function $f$ carries it to an interval around $z = f(x)$, of width $dz$. A sample lands in the first interval exactly when its $z$ landed in the second: it is the same event. One event has one probability, so
#
# $$p_X(x)\,dx = p_Z(z)\,dz .$$
#
# Widths are positive. The width of the image is $dz = \lvert f'(x)\rvert\,dx$, with the absolute value because a falling function flips the interval around and leaves its width positive all the same. Divide by $dx$, take logarithms, and there it is:
#
# $$\log p_X(x) = \log p_Z(f(x)) + \log\lvert f'(x)\rvert .$$
#
# Read it aloud: *see where the point goes, ask the noise how dense it is there, and correct for the stretching on the way.* This is the only sign convention of the course. Where the literature writes the map the other way, $x = g(z)$ with $g = f^{-1}$, the correction reads $-\log\lvert g'(z)\rvert$: the same number, since $f'(x) = 1/g'(z)$.
#
# **A worked example.** Let $z = \log x$ for $x > 0$, so that $x = e^z$. Here $f'(x) = 1/x$, and with Gaussian noise the formula gives the *log-normal* density. The cell checks it in two ways that know nothing of the formula: the total mass, and the mass below 1 as counted on samples.
#
# **Noise need not be Gaussian.** Let $u = F(x)$ be uniform on $(0, 1)$, where its density is 1, and let $F$ rise from 0 to 1. The formula says $p_X(x) = 1 \cdot F'(x)$. So $F$ is the distribution function of $x = F^{-1}(u)$. This is *inverse-CDF sampling*; with $F(x) = 1 - e^{-x}$, `-np.log1p(-u)` draws waiting times of mean one.

# %% tags=["show"]
def log_normal_log_density(x):
    """log p_X(x) where z = log x is standard normal, x > 0."""
    return normal_log_density(np.log(x)) - np.log(x)  # log abs f'(x) = log(1/x) = -log x


x = np.linspace(1e-6, 60, 600_001)
p = np.exp(log_normal_log_density(x))
below_one = x <= 1
print(f"total mass         {np.trapezoid(p, x):.4f}")
print(f"mass below 1       {np.trapezoid(p[below_one], x[below_one]):.4f}")
drawn = np.exp(np.random.default_rng(1).normal(size=100_000))
print(f"samples below 1    {np.mean(drawn <= 1):.4f}")

waits = -np.log1p(-np.random.default_rng(1).uniform(size=100_000))  # x = F^-1(u)
edges = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
print("waiting times between", edges)
print("  counted            ", (np.histogram(waits, edges)[0] / len(waits)).round(3))
print("  integral of exp(-x)", -np.diff(np.exp(-edges)).round(3))

# %% tags=["show", "hide-input"]
predict(
    "z = x / 2 and z is standard normal. The density of z is 0.40 at its peak. How high is the peak of the density of x?",
    [
        "0.80: x is twice z, so its density doubles",
        "0.40: it is still a normal density",
        "0.20: x is spread over twice the width",
    ],
)

# %% tags=["show"]
x = np.linspace(-6, 6, 601)
peak = np.exp(normal_log_density(x / 2) + math.log(1 / 2)).max()
counted = np.mean(np.abs(2 * np.random.default_rng(2).normal(size=200_000)) < 0.05) / 0.1
print(f"peak by the formula {peak:.3f}, counted on samples {counted:.3f}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "1de323e181f5c294c5ebc2ecc8dc5628", "grade": false, "grade_id": "affine_log_density_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 1: a straight line
#
# difficulty 1 of 5 · importance 5 of 5 · 6 minutes · 3 points
#
# In the cell above, the samples $x = 2z$ are spread over twice the width, and the density halves. The factor is $\lvert f'(x)\rvert = 1/2$: the *flow* contracts by two where the *sampler* stretches by two. Most sign errors in flow code come from confusing the two.
#
# Now in general. Let $z = a x + b$ with $a \neq 0$, and let $z$ be standard normal. Write `affine_log_density(x, a, b)`, the log-density of $x$.
#
# `x` is an array of any shape, `a` and `b` are numbers, and the result has the shape of `x`. The slope may be negative. For example, at `x = 0` with `a = 1, b = 0` the answer is $-\tfrac12\log 2\pi$, about $-0.919$. You may use `normal_log_density`.
#
# When you are right, the interactive below draws *your* curve. The strip and its image hold the same samples: make the slope steep, and compare the two areas.
#
# <details><summary>"A negative slope gives nan, or math domain error"</summary>
#
# A width cannot be negative. Look again at the step from $dz$ to $dx$: which function of the slope is the factor?
#
# </details>
# <details><summary>"My values are off by a constant"</summary>
#
# Does the density of $x$ rise or fall when $\lvert a\rvert$ grows? Try `a = 10`: where do the samples $x = (z - b)/a$ lie?
#
# </details>
# <details><summary>A template</summary>
#
# `return normal_log_density(____) + math.log(____)`
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "2c138c154aec9f22c7271b1dbc783765", "grade": false, "grade_id": "affine_log_density", "locked": false, "schema_version": 3, "solution": true, "task": false}
def affine_log_density(x, a, b):
    """log p_X(x), where z = a x + b is standard normal. x: any shape -> the same shape."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "4c6d949596fecabadae717b65e4573e7", "grade": true, "grade_id": "affine_log_density_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check affine_log_density: 1 point.
import math

import numpy as np
from autograder import check


def log_mass_per_width(x, a, b, width=1e-3):
    """The slow specification: the mass of a small interval around x, by its width."""
    mass_below = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))
    one_end, other_end = a * (x - width / 2) + b, a * (x + width / 2) + b
    return np.log(np.abs(mass_below(other_end) - mass_below(one_end)) / width)


points = np.linspace(-1.5, 1.1, 5)
cases = [(points, 2.0, 0.5), (points, -0.5, 1.0), (points.reshape(5, 1), -2.0, 0.0)]
check.values("change_of_variables.affine_log_density", cases, log_mass_per_width, atol=1e-5)


# %% nbgrader={"cell_type": "code", "checksum": "a0af8847ef821fd50c267fdf55cbf88f", "grade": true, "grade_id": "affine_log_density_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def draw_affine(scene, a, b, at):
    if a == 0:
        a = 0.05  # a flow cannot have slope zero
    f = check.yours(
        "change_of_variables.affine_log_density",
        otherwise=lambda x, a, b: normal_log_density(a * x + b) + math.log(abs(a)),
    )
    x, z = np.linspace(-4, 4, 401), np.linspace(-4, 4, 401)
    strip = np.linspace(at, at + 0.5, 41)
    image = np.sort(a * strip + b)
    area = np.trapezoid(np.exp(f(strip, a, b)), strip)
    data, noise = scene.panel(0, of=2), scene.panel(1, of=2)
    data.axes(x=(-4, 4), y=(0, 1.3), xlabel="x", ylabel="density", title="data")
    data.curve(x, np.exp(f(x, a, b)), colour=plots.BLUE, label="p_X")
    data.area(strip, np.exp(f(strip, a, b)), colour=plots.BLUE, label="strip")
    noise.axes(x=(-4, 4), y=(0, 1.3), xlabel="z", title="noise")
    noise.curve(z, np.exp(normal_log_density(z)), colour=plots.ORANGE, label="p_Z", dash="dashed")
    noise.area(
        image, np.exp(normal_log_density(image)), colour=plots.ORANGE, label="image of the strip", hatch=True
    )
    return f"Slope {a:.2f}: the strip is 0.50 wide, its image {abs(a) * 0.5:.2f}; both hold {area:.3f} of the mass."


play(
    draw_affine,
    a=slider(-3, 3, 1.5, step=0.1, label="slope a"),
    b=slider(-2, 2, 0.0, step=0.1, label="shift b"),
    at=slider(-3, 2.5, 0.2, step=0.1, label="left edge of the strip"),
)

# %% [markdown]
# ## 2. Functions that bend
#
# A straight line stretches everywhere alike. A curved map stretches *here* and squeezes *there*: so a flow turns one hump into two. The formula wants the logarithm of the slope at each point, computed with care. Take $z = \tanh x$. Its slope is $1 - \tanh^2 x$, and at $x = 20$ the computer rounds $\tanh x$ to exactly 1:

# %% tags=["show"]
with np.errstate(divide="ignore"):
    print("log(1 - tanh(20)^2) computed as written:", np.log(1 - np.tanh(20.0) ** 2))
print("its true value, about log 4 - 40:        ", math.log(4) - 40)


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "4e93e32501f41608f3edddfa36d864ac", "grade": false, "grade_id": "log_abs_slope_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 2: four slopes
#
# difficulty 2 of 5 · importance 4 of 5 · 10 minutes · 3 points
#
# One infinite value makes an average over a million points infinite. The remedy is always the same: do the algebra on paper until no step overflows or cancels. Here $1 - \tanh^2 x = 1/\cosh^2 x$, whose logarithm is $-2\log\cosh x$, and $\cosh x = \tfrac12 e^{\lvert x\rvert}(1 + e^{-2\lvert x\rvert})$, so
#
# $$\log(1 - \tanh^2 x) = 2\,\bigl(\log 2 - \lvert x\rvert - \log(1 + e^{-2\lvert x\rvert})\bigr).$$
#
# Nothing in it overflows: $e^{-2\lvert x\rvert}$ lies between 0 and 1, and `np.log1p(t)` computes $\log(1 + t)$ without losing small `t`.
#
# Derive $\log\lvert f'(x)\rvert$ for the other three of these maps, and type all four formulas as code in `log_abs_slope(name, x)`:
#
# | `name` | the map |
# | --- | --- |
# | `"exp"` | $z = e^x$ |
# | `"decay"` | $z = e^{-3x}$, a falling map |
# | `"tanh"` | $z = \tanh x$ |
# | `"cubic"` | $z = x + x^3$ |
#
# `x` is an array, and the result has its shape. It must be finite for $\lvert x\rvert$ up to 400. For example `log_abs_slope("cubic", np.zeros(2))` is `[0., 0.]`.
#
# <details><summary>"decay is off by log 3, or has the wrong sign"</summary>
#
# The chain rule gives $f'(x) = -3e^{-3x}$. Take the absolute value first, then the logarithm of the product.
#
# </details>
# <details><summary>"tanh is fine near zero and infinite at 20"</summary>
#
# You take the logarithm of a difference that has rounded to zero. The statement above has the form that survives.
#
# </details>
# <details><summary>A template</summary>
#
# `if name == "decay": return math.log(____) - ____ * x`
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "bc315fe25e023e4817137cda616df0f6", "grade": false, "grade_id": "log_abs_slope", "locked": false, "schema_version": 3, "solution": true, "task": false}
def log_abs_slope(name, x):
    """log abs f'(x) for the map called name: "exp", "decay", "tanh" or "cubic". x: any shape -> the same shape."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "ff51c9e826355748479dbc13e8f9b3a3", "grade": true, "grade_id": "log_abs_slope_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check log_abs_slope: 1 point.
import math

import numpy as np
from autograder import check

maps = {"exp": np.exp, "decay": lambda x: np.exp(-3 * x), "tanh": np.tanh, "cubic": lambda x: x + x**3}


def measured(name, x, step=1e-5):
    """The slow specification: the slope by a central difference."""
    return np.log(np.abs(maps[name](x + step) - maps[name](x - step)) / (2 * step))


def far_away(name, x):
    """What is left of three of the slopes where abs x is large, and no difference can be measured."""
    return {
        "decay": math.log(3) - 3 * x,
        "tanh": math.log(4) - 2 * np.abs(x),
        "cubic": math.log(3) + 2 * np.log(np.abs(x)),
    }[name]


def slow(name, x):
    return far_away(name, x) if np.abs(x).min() > 100 else measured(name, x)


points, large = np.linspace(-2, 2.5, 6), np.array([-400.0, 400.0])
cases = [(name, points) for name in maps] + [(name, large) for name in ("decay", "tanh", "cubic")]
check.values("change_of_variables.log_abs_slope", cases, slow, atol=1e-6)

# %% nbgrader={"cell_type": "code", "checksum": "e474aebca84bcfea4de0a6375f8e643c", "grade": true, "grade_id": "log_abs_slope_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown]
# ## 3. When several points share one image
#
# The formula asks for an invertible $f$. What if the sampler is not one-to-one? Draw an angle $\theta$ uniformly from the circle, $[0, 2\pi)$, and let $x = \sin\theta$. Each $x$ between $-1$ and $1$ comes from *two* angles, $\theta_1$ and $\theta_2$. Mass is still conserved: the mass near $x$ is the sum of the masses near its two angles. On the circle the sine has two branches, one where it rises (from $-\pi/2$ to $\pi/2$) and one where it falls. It is invertible on each, so each gives its share, and the *densities* (not their logarithms) add:
#
# $$p_X(x) = \sum_k p_\Theta(\theta_k)\,\left\lvert\frac{d\theta_k}{dx}\right\rvert .$$
#
# Here $\theta_k(x)$ plays the part of $z = f(x)$, and $d\theta_k/dx$ that of $f'$. The picture shows what your density has to look like. Why is it highest at the ends, where the sine turns around?

# %% tags=["show", "hide-input"]
theta = np.random.default_rng(3).uniform(0, 2 * np.pi, size=50_000)
fig, (left, right) = plots.figure(columns=2)
left.plot(theta[:1500], np.sin(theta[:1500]), ".", markersize=2, color=plots.BLUE)
left.axhline(0.5, color=plots.ORANGE, linestyle="--", linewidth=1)
left.set(xlabel="angle θ (radians)", ylabel="x = sin θ", title="Two angles for each x")
right.hist(np.sin(theta), bins=80, density=True, color=plots.GREY)
right.set(xlabel="x", ylabel="density", title="50,000 samples of sin θ")
plots.show(
    fig,
    alt="Left: one period of the sine; the dashed line at x = 0.5 meets it twice. Right: a histogram shaped like a bowl, about 0.32 in the middle and rising steeply towards x = -1 and x = 1.",
)


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "38119d0c2cdd10f9e380821859dabacb", "grade": false, "grade_id": "sine_log_density_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 3: the density of a sine
#
# difficulty 3 of 5 · importance 3 of 5 · 12 minutes · 3 points
#
# Derive the density of $x = \sin\theta$ with $\theta$ uniform on $[0, 2\pi)$, and type its logarithm as `sine_log_density(x)`.
#
# `x` is an array with values in the open interval $(-1, 1)$. The height at the middle of the histogram is a good check of your derivation.
#
# <details><summary>"My density is half of what it should be"</summary>
#
# How many angles between 0 and $2\pi$ have the sine $x$? Did you add the mass of each?
#
# </details>
# <details><summary>"I am left with a cosine of the angle"</summary>
#
# You know $\sin\theta = x$. Which identity gives $\cos\theta$ from it? The sign does not matter: why?
#
# </details>
# <details><summary>A template</summary>
#
# `return -math.log(____) - 0.5 * np.log(____)`
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "1021b3f1b394c91e83ea5dd3812cabe1", "grade": false, "grade_id": "sine_log_density", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sine_log_density(x):
    """log p_X(x) of x = sin(theta), theta uniform on the circle; -1 < x < 1. x: any shape -> the same shape."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "1e0711208e04c7067ac09326b9a3f26f", "grade": true, "grade_id": "sine_log_density_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check sine_log_density: 1 point.
import numpy as np
from autograder import check


def counted(x, width=0.01):
    """The slow specification: count a million evenly spaced angles whose sine lands near x."""
    sines = np.sort(np.sin(2 * np.pi * (np.arange(1_000_000) + 0.5) / 1_000_000))
    inside = np.searchsorted(sines, x + width / 2) - np.searchsorted(sines, x - width / 2)
    return np.log(inside / len(sines) / width)


check.values("change_of_variables.sine_log_density", [(np.linspace(-0.8, 0.8, 5),)], counted, atol=2e-3)


# %% nbgrader={"cell_type": "code", "checksum": "fcc2b04187dff327529f636a4d401d8c", "grade": true, "grade_id": "sine_log_density_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown]
# ## 4. Chains, and more than one dimension
#
# One simple map is not flexible. Many in a row are. Let $f = f_K \circ \dots \circ f_1$, with $f_1$ applied to the data first: $h_0 = x$, $h_k = f_k(h_{k-1})$, $z = h_K$. By the chain rule slopes multiply, so their logarithms *add*, each taken **at the input of its own step**:
#
# $$\log p_X(x) = \log p_Z(h_K) + \sum_{k=1}^{K} \log\lvert f_k'(h_{k-1})\rvert .$$
#
# In $D$ dimensions the small interval becomes a small box. A smooth map carries it to a small parallelepiped, whose edges are the columns of the *Jacobian* $J = dz/dx$, $J_{ij} = \partial z_i/\partial x_j$, times the edges of the box. Its volume is $\lvert\det J\rvert$ times the volume of the box (this is what a determinant measures: lesson 04), and mass is conserved as before:
#
# $$\log p_X(x) = \log p_Z(f(x)) + \log\lvert\det J\rvert .$$
#
# The slope has become a determinant, and nothing else has changed. For $z = A x + b$ the Jacobian is $A$ at every point. For an elementwise map it is diagonal, so its log-determinant is the *sum over the dimensions* of the log-slopes. Both are below, next to a brute force that builds the Jacobian by finite differences. Every array holds points of shape `(..., D)`, and every log-determinant has shape `(...)`: one number for each point.

# %% nbgrader={"cell_type": "code", "checksum": "8104c88439ce539ad10a6155b74812de", "grade": false, "grade_id": "code_2", "locked": true, "schema_version": 3, "solution": false, "task": false}
def linear_step(h, A, b):
    """h: (..., D) -> (A h + b, log abs det A for each point). Points are rows, so A h is written h @ A.T."""
    log_det = np.linalg.slogdet(A)[1]
    return h @ A.T + b, np.full(h.shape[:-1], log_det)


def bend_step(h):
    """h: (..., D) -> (h - 0.8 tanh h elementwise, log abs det J for each point). The slope is 1 - 0.8 (1 - tanh^2 h),
    between 0.2 and 1: so it rises everywhere, and is invertible."""
    t = np.tanh(h)
    return h - 0.8 * t, np.log(0.2 + 0.8 * t**2).sum(-1)


def brute_force_log_det(f, x, step=1e-5):
    """log abs det of the Jacobian of f at one point x, column by column."""
    columns = [(f(x + step * e) - f(x - step * e)) / (2 * step) for e in np.eye(len(x))]
    return np.linalg.slogdet(np.stack(columns, axis=1))[1]


A, b = np.array([[1.2, 0.5], [-0.3, 0.8]]), np.array([0.1, -0.2])
point = np.array([0.7, -1.1])
by_formula = linear_step(point, A, b)[1], bend_step(point)[1]
by_force = (
    brute_force_log_det(lambda h: linear_step(h, A, b)[0], point),
    brute_force_log_det(lambda h: bend_step(h)[0], point),
)
print(f"linear   closed form {by_formula[0]: .6f}   brute force {by_force[0]: .6f}")
print(f"bend     closed form {by_formula[1]: .6f}   brute force {by_force[1]: .6f}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "035627897bc5b3ca50446b8216588a50", "grade": false, "grade_id": "chain_log_density_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 4: a chain of layers
#
# difficulty 3 of 5 · importance 5 of 5 · 18 minutes · 3 points
#
# A deep flow, in values: `layers` is a list of pairs `(A, b)`. Each layer applies `linear_step` with its `A` and `b`, and then `bend_step`. The first layer of the list meets the data first, and after the last one the result is standard normal in $D$ dimensions.
#
# Write `chain_log_density(x, layers)`: `x` has shape `(..., D)` and the result shape `(...)`. With an empty list, `x` itself is standard normal. You may use `linear_step`, `bend_step` and `normal_log_density` (which is elementwise!).
#
# When you are right, the interactive below runs your chain. Add layers one at a time and watch a round Gaussian come apart. The right panel shows the image of a square grid. Where a cell comes out *small*, $\lvert\det J\rvert$ is small, and the density of the noise is multiplied by a number below one: there the humps part.
#
# <details><summary>"It is right for one layer and wrong for two"</summary>
#
# Which point does the second layer see? Its log-determinant belongs there, not at the data.
#
# </details>
# <details><summary>"Two numbers for each point", or "operands could not be broadcast"</summary>
#
# `normal_log_density` is elementwise. The coordinates of $z$ are independent, so the log-density of the point is their sum: over the last axis, and no other.
#
# </details>
# <details><summary>"The shape is wrong for an empty list"</summary>
#
# Start the total as zeros of shape `x.shape[:-1]`.
#
# </details>
# <details><summary>A template</summary>
#
# Before the loop: `total = np.zeros(x.shape[:-1])`. In the loop, twice: `x, log_det = ____` and `total = total + ____`. After it: `return ____ + total`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "328daf55926f1c7eb4b2fb5ee5e6870e", "grade": false, "grade_id": "chain_log_density", "locked": false, "schema_version": 3, "solution": true, "task": false}
def chain_log_density(x, layers):
    """log p_X(x) of a chain of layers (A, b). x: (..., D) -> (...)."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "c7780a10e84d9a51dd9407e9c81e6f25", "grade": true, "grade_id": "chain_log_density_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check chain_log_density: 1 point.
import numpy as np
from autograder import check


def whole_chain_at_once(x, layers, step=1e-5):
    """The slow specification: the Jacobian of the whole chain by finite differences, and its determinant."""

    def f(h):
        for A, b in layers:
            u = A @ h + b
            h = u - 0.8 * np.tanh(u)
        return h

    def one(point):
        z, D = f(point), len(point)
        J = np.stack([(f(point + step * e) - f(point - step * e)) / (2 * step) for e in np.eye(D)], axis=1)
        return -0.5 * (z @ z + D * np.log(2 * np.pi)) + np.linalg.slogdet(J)[1]

    return np.array([one(point) for point in x.reshape(-1, x.shape[-1])]).reshape(x.shape[:-1])


rng = np.random.default_rng(0)
layers = [(np.eye(2) + 0.4 * rng.normal(size=(2, 2)), 0.3 * rng.normal(size=2)) for _ in range(3)]
x = rng.normal(size=(4, 2))
cases = [(x, layers[:1]), (x, layers[:2]), (x, layers), (x, [])]
cases += [(x[0], layers), (x.reshape(2, 2, 2), layers)]  # a single point, and a batch of batches
check.values("change_of_variables.chain_log_density", cases, whole_chain_at_once, atol=1e-5)


# %% nbgrader={"cell_type": "code", "checksum": "76055d4c7d98465a11923965f16edb3e", "grade": true, "grade_id": "chain_log_density_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def reference_chain(x, layers):
    total = np.zeros(x.shape[:-1])
    for A, b in layers:
        x, first = linear_step(x, A, b)
        x, second = bend_step(x)
        total = total + first + second
    return normal_log_density(x).sum(-1) + total


def turning_layer(angle, squeeze):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag([math.exp(squeeze), math.exp(-squeeze)]), np.zeros(2)


def draw_chain(scene, K, angle, squeeze):
    layers = [turning_layer(math.radians(angle), squeeze) for _ in range(int(K))]
    log_density = check.yours("change_of_variables.chain_log_density", otherwise=reference_chain)
    s = np.linspace(-6, 6, 121)
    density = np.exp(log_density(np.stack(np.meshgrid(s, s), axis=-1), layers))
    t, along = np.linspace(-6, 6, 21), np.linspace(-6, 6, 61)
    lines = [np.stack([np.full(61, c), along], -1) for c in t] + [
        np.stack([along, np.full(61, c)], -1) for c in t
    ]
    for A, b in layers:
        lines = [bend_step(linear_step(line, A, b)[0])[0] for line in lines]
    data, noise = scene.panel(0, of=2), scene.panel(1, of=2)
    data.axes(x=(-6, 6), y=(-6, 6), xlabel="x₁", ylabel="x₂", title="density of x", equal=True)
    data.image(density, extent=(-6.05, 6.05, -6.05, 6.05))
    noise.axes(x=(-4, 4), y=(-4, 4), xlabel="z₁", ylabel="z₂", title="image of the grid", equal=True)
    noise.lines(lines, colour=plots.BLUE)
    mass = density.sum() * (s[1] - s[0]) ** 2
    return f"Layers: {int(K)}. The highest density is {density.max():.2f}, and this window holds {mass:.2f} of the mass."


play(
    draw_chain,
    K=slider(0, 4, 2, step=1, label="layers"),
    angle=slider(-90, 90, 30, step=5, label="turn, in degrees"),
    squeeze=slider(-0.15, 0.15, 0.05, step=0.05, label="squeeze"),
)


# %% [markdown]
# ## 5. Two directions, one loss, and a detective
#
# The two directions of a flow do two jobs. Forward, $x \to z$, gives densities, and so training. Backward, $z \to x$, gives samples. A flow is trained by moving its parameters until the data are likely, that is, by minimizing the *negative log-likelihood* (NLL), the average of $-\log p_X(x)$ over the data. With natural logarithms its unit is the *nat*.
#
# The two terms of the formula pull against each other. $\log p_Z(f(x))$ wants every $z$ near zero, where the noise is dense; alone, it would crush all data to a single point. $\log\lvert\det J\rvert$ forbids it, because a map that crushes has a very negative log-determinant. Forget the second term, and the map shrinks to nothing; get its sign wrong, and both terms shrink it, until near $a = 0$ the gradient $1/a$ explodes. Neither raises an error. So before you train, arm yourself with a test that convicts such bugs without knowing any formula.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "d6bfa7c0a10ddaf9a7f5625b097d9a83", "grade": false, "grade_id": "verdict_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 5: the sign-bug detective
#
# difficulty 3 of 5 · importance 4 of 5 · 20 minutes · 3 points
#
# A wrong sign changes the factor $\lvert a\rvert$ of an affine flow into $1/\lvert a\rvert$, so its "density" has mass $1/a^2$. Its samples look right all the same, since sampling never touches the log-determinant. Mass alone is no proof either: the density of $2z$ has mass one, and it is not the density of $z/2$. A good test looks at the mass and then compares with samples.
#
# Write the test. `verdict(grid, log_p, samples)` is given an increasing `grid` of shape `(N,)` that covers all the mass, a model's log-density `log_p` on it, shape `(N,)`, and `samples`, some thousands of numbers from the true density. It returns one of three strings:
#
# - `"not a density"` if the mass $\int e^{\log p(x)}\,dx$ (trapezoid rule) differs from one by more than 0.01, or is not a finite number;
# - `"wrong density"` if the mass is one, but at some point $g$ of the grid the model's probability of $x \le g$ differs by more than 0.05 from the fraction of samples with $x \le g$;
# - `"no objection"` otherwise.
#
# Why 0.05? With 4,000 samples, chance alone moves the fraction by 0.01 to 0.02. (This is the idea of the Kolmogorov-Smirnov test.) The public test brings twelve suspects.
#
# <details><summary>"nan gets 'no objection'"</summary>
#
# Every comparison with `nan` is False, so `abs(mass - 1) > 0.01` is False as well. Ask the opposite question: is the mass *within* 0.01 of one?
#
# </details>
# <details><summary>"The map backwards gets 'no objection'"</summary>
#
# It integrates to one, so only the samples can tell. Compare at every point of the grid, and take the largest gap, of either sign.
#
# </details>
# <details><summary>"It works on one grid and not on another"</summary>
#
# The points of the grid need not be evenly spaced. A trapezoid has its own width: `np.diff(grid)`.
#
# </details>
# <details><summary>A template</summary>
#
# `below = np.concatenate([[0.0], np.cumsum(____ * np.diff(grid))])`, then `fraction = np.searchsorted(np.sort(samples), grid, side="right") / ____`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "2bed4567529b40fb979c8caedb181e77", "grade": false, "grade_id": "verdict", "locked": false, "schema_version": 3, "solution": true, "task": false}
def verdict(grid, log_p, samples):
    """ "not a density", "wrong density" or "no objection". grid, log_p: (N,); samples: (M,)."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "56ba6520f83aa4020c5cc50d0f871662", "grade": true, "grade_id": "verdict_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check verdict: 1 point.
import math

import numpy as np
from autograder import check

rng = np.random.default_rng(0)
grid = np.sort(np.append(np.linspace(-30, 30, 4001), rng.uniform(-8, 4, size=2000)))  # not evenly spaced


def gaussian(z):
    return -0.5 * (z**2 + math.log(2 * math.pi))


samples = (rng.normal(size=4000) - 1) / 0.5  # z = 0.5 x + 1
humps = [gaussian(4 * (0.5 * grid + 1 - side)) for side in (-math.sqrt(15) / 4, math.sqrt(15) / 4)]
suspects = {
    "right": (gaussian(0.5 * grid + 1) + math.log(0.5), "no objection"),
    "minus the log-determinant": (gaussian(0.5 * grid + 1) - math.log(0.5), "not a density"),
    "no log-determinant": (gaussian(0.5 * grid + 1), "not a density"),
    "the map backwards": (gaussian((grid - 1) / 0.5) - math.log(0.5), "wrong density"),
    "too far to the left": (gaussian(0.5 * grid + 2) + math.log(0.5), "wrong density"),
    "right mean, too narrow": (gaussian(grid + 2), "wrong density"),
    "right mean and width, two humps": (np.logaddexp(*humps), "wrong density"),
    "a little to the left": (gaussian(0.5 * grid + 1.25) + math.log(0.5), "wrong density"),
    "hardly to the left": (gaussian(0.5 * grid + 1.03) + math.log(0.5), "no objection"),
    "half of the mass": (gaussian(0.5 * grid + 1) + 2 * math.log(0.5), "not a density"),
    "2% too much mass": (gaussian(0.5 * grid + 1) + math.log(0.51), "not a density"),
    "nan": (grid * np.nan, "not a density"),
}


def known(suspect, grid, log_p, samples):
    return suspects[suspect][1]


def ask(verdict, suspect, grid, log_p, samples):
    """The suspect's name is for the message: your function gets the evidence alone."""
    return verdict(grid, log_p, samples)


cases = [(name, grid, log_p, samples) for name, (log_p, _) in suspects.items()]
cases.append(("a little to the left", grid, suspects["a little to the left"][0], samples[:3000]))
check.values("change_of_variables.verdict", cases, known, use=ask)


# %% nbgrader={"cell_type": "code", "checksum": "ebdb354b9c45c16997828146d95e88d6", "grade": true, "grade_id": "verdict_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "89a6370781543d49b93abd266573f2e6", "grade": false, "grade_id": "fit_waiting_times_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 6: your first flow
#
# difficulty 4 of 5 · importance 5 of 5 · 18 minutes · 3 points
#
# Now train. The data are waiting times: positive, with a long tail. A chain of two maps makes them Gaussian: $u = \log x$, then $z = a u + b$ with $a > 0$. By the chain rule,
#
# $$\log p_X(x) = \log p_Z(a \log x + b) + \log a - \log x .$$
#
# Write `fit_waiting_times(x, steps, rate)`: it starts at $a = 1$, $b = 0$, takes `steps` steps of gradient descent on the average NLL with step size `rate`, and returns the pair `(a, b)`.
#
# Derive the two gradients on paper first: which of the three terms depend on $a$, and which on $b$? In each step both are taken at the same $(a, b)$. Your pair is judged by the log-likelihood of times that it has not seen: it must come within 0.01 nats of the best possible.
#
# <details><summary>"My a shrinks towards zero"</summary>
#
# Only the first term is at work: it pulls every $z$ to zero. What does $-\log a$ contribute to the gradient with respect to $a$?
#
# </details>
# <details><summary>"My a runs away"</summary>
#
# Check both signs. The loss is *minus* the log-likelihood, and you step *against* its gradient.
#
# </details>
# <details><summary>"It settles, but not at the best fit"</summary>
#
# By the chain rule $\partial z/\partial a = u$ and $\partial z/\partial b = 1$: the two gradients are not alike.
#
# </details>
# <details><summary>A template</summary>
#
# In the loop: `z = a * u + b`, then `a, b = a - rate * (np.mean(____) - ____), b - rate * np.mean(____)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "3218899d5d02321b42fbe8df07ebf720", "grade": false, "grade_id": "fit_waiting_times", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_waiting_times(x, steps, rate):
    """(a, b) that minimize the mean NLL of z = a log x + b. x: (N,) positive."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "1b79232625fbfeaacc727182e5d34dcb", "grade": true, "grade_id": "fit_waiting_times_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check fit_waiting_times: 1 point.
import math

import numpy as np
from autograder import check


def judge_fit(a, b):
    """Held-out log-likelihood, against the best affine map of log x (mean and standard deviation)."""
    if a <= 0:
        return f"You returned a = {a:.3g}, and log a needs a > 0. Does the gradient of -log a push a away from zero? Do you return a first?"
    u = np.log(np.exp(1.0 + 0.6 * np.random.default_rng(7).normal(size=5000)))
    held_out = np.mean(-0.5 * (a * u + b) ** 2 + math.log(a) - u)
    best = np.mean(-0.5 * ((u - 1.0) / 0.6) ** 2 - math.log(0.6) - u)
    if held_out < best - 0.01:
        return f"With a = {a:.3g} and b = {b:.3g}, unseen waiting times are {best - held_out:.2g} nats less likely than they could be."


def judge_one_step(a, b, x, rate):
    """The slow specification of one step: the gradients of the loss by central differences."""

    def loss(a, b):
        return np.mean(0.5 * (a * np.log(x) + b) ** 2 - math.log(a) + np.log(x))

    h = 1e-5
    slope_a, slope_b = (loss(1 + h, 0) - loss(1 - h, 0)) / (2 * h), (loss(1, h) - loss(1, -h)) / (2 * h)
    right = abs(a - (1 - rate * slope_a)) <= 1e-4 * rate, abs(b + rate * slope_b) <= 1e-4 * rate
    if not all(right):
        which = {(True, False): "a is right, b is not", (False, True): "b is right, a is not"}
        return f"The fit is good. But with steps = 1 you return a = {a:.4g}, b = {b:.4g}: {which.get(right, 'neither is right')}. Where does one step lead from a = 1, b = 0?"


def judge(returned, x, steps, rate):
    a, b = (float(value) for value in returned)
    if not (math.isfinite(a) and math.isfinite(b)):
        return f"You returned a = {a} and b = {b}. Did a step divide by zero, or run away?"
    return judge_one_step(a, b, x, rate) if steps == 1 else judge_fit(a, b)


data = np.exp(1.0 + 0.6 * np.random.default_rng(6).normal(size=5000))
check.that("change_of_variables.fit_waiting_times", judge, [(data, 2000, 0.05), (data[:100], 1, 0.1)])


# %% nbgrader={"cell_type": "code", "checksum": "57a49ea5b199f278b061e36d8a75ecd7", "grade": true, "grade_id": "fit_waiting_times_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def reference_fit(x, steps, rate):
    u = np.log(x)
    return 1 / u.std(), -u.mean() / u.std()


fit = check.yours("change_of_variables.fit_waiting_times", otherwise=reference_fit)
waiting = np.exp(1.0 + 0.6 * np.random.default_rng(5).normal(size=5000))
a, b = fit(waiting, 2000, 0.05)
x = np.linspace(0.05, 20, 800)
density = np.exp(normal_log_density(a * np.log(x) + b) + math.log(a) - np.log(x))
fig, ax = plots.figure()
ax.hist(waiting, bins=80, density=True, color=plots.GREY, alpha=0.6, label="data")
ax.plot(x, density, color=plots.ORANGE, label=f"flow: a = {a:.2f}, b = {b:.2f}")
ax.set(xlabel="waiting time x (minutes)", ylabel="density (per minute)", xlim=(0, 20))
ax.legend()
plots.show(
    fig,
    alt="The histogram of waiting times and the fitted density, which follows it from the steep rise near zero through the peak to the long tail.",
)

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "19c21053634469c7f293305318da56cf", "grade": false, "grade_id": "units_matter_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 7: minutes or seconds?
#
# difficulty 2 of 5 · importance 4 of 5 · 6 minutes · 2 points
#
# Maria records waiting times in minutes and Jan records the same times in seconds. Both train the flow of the last exercise until it fits as well as it can, and Jan reports an average log-likelihood that is lower by about 4.1. Is his fit worse? Explain in two to four sentences where the number comes from, and what it says about comparing log-likelihoods.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "8fb281287fe81cc474d14c07eb6e6b06", "grade": true, "grade_id": "units_matter", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# YOUR ANSWER HERE

# %% [markdown]
# ## What you have seen
#
# - Mass is conserved: $\log p_X(x) = \log p_Z(f(x)) + \log\lvert\det J\rvert$, with $f$ from data to noise and the absolute value because widths are positive.
# - Along a chain log-determinants add, each at the input of its own step, and each point has one.
# - Where several points share an image, densities add over the branches. The sine is nearly flat where it turns, so many angles crowd into few $x$: there the density soars.
# - Stability is algebra: the naive log-slope of $\tanh$ is already infinite at $x = 20$.
# - A wrong log-determinant raises no error. Check the mass, then check against samples.
#
# So the curve of the first figure is $p_Z(f(x))\,\lvert f'(x)\rvert$, and that is all there is to it. The slope peaks at $\pm 2$, but the noise is denser nearer $z = 0$, so the product peaks further in. What is still missing is speed: a general determinant in $D$ dimensions is expensive, and the next lessons are about maps whose determinant is cheap. The cost table below grows with each of them; *affine, elementwise* is $z_i = a_i x_i + b_i$.
#
# **The words of this lesson**
#
# | English | 한국어 | Polski | 中文 | What it means |
# | :-- | :-- | :-- | :-- | :-- |
# | normalizing flow | 정규화 흐름 | przepływ normalizujący | 标准化流 | A differentiable map with a differentiable inverse that takes data to noise of a known density. |
# | change of variables | 변수 변환 | zamiana zmiennych | 变量替换 | The rule that gives the density of a mapped variable: the old density times the absolute Jacobian determinant. |
# | log-determinant | 로그 행렬식 | logarytm wyznacznika | 对数行列式 | The logarithm of the absolute value of the Jacobian determinant: what a flow adds to the log-density of the noise. |
# | Jacobian | 야코비 행렬 | macierz Jacobiego | 雅可比矩阵 | The matrix of the partial derivatives of a map: entry (i, j) says how output i changes with input j. |
# | log-normal density | 로그 정규 분포의 밀도 | gęstość log-normalna | 对数正态密度 | The density of a positive variable whose logarithm is Gaussian. |
# | inverse-CDF sampling | 역누적분포 표본추출 | próbkowanie metodą odwrotnej dystrybuanty | 逆累积分布采样 | Sampling by applying the inverse of the cumulative distribution function to uniform noise. |
# | negative log-likelihood | 음의 로그 가능도 | ujemna log-wiarygodność | 负对数似然 | The average of minus the log-density over the data: the loss that trains a flow. |
#
# **Where it is used.** Physicists turn densities over frequency into densities over wavelength; Stan samples positive parameters by their logarithms, and adds the log-determinant.
#
# **Further reading.** Papamakarios and others, *Normalizing flows for probabilistic modeling and inference* (2021), section 2, derives the same formula. Kobyzev, Prince and Brubaker, *Normalizing flows: an introduction and review of current methods* (2020), lists the families that this course visits.

# %% tags=["show", "hide-input"]
from flowkit.lab import costs

costs.show(topic="change_of_variables", seed=0)
