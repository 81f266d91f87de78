# %% [markdown]
# # Coupling flows
#
# Lesson 08 · 120 minutes · 20 points · first: [Change of variables](../02_change_of_variables/change_of_variables.ipynb) and [Determinants](../04_determinants/determinants.ipynb)
#
# The last lessons left us with a dilemma. A flow needs a map that can be inverted and whose determinant is cheap. A neural network is neither. Yet below, networks carry two crescents to what is nearly a round Gaussian, every step can be undone, and the log-determinant costs one sum. (The picture's folded code runs a finished flow from a library. Open it if you like: your exercises stay unsolved.)
#
# **How can a neural network take part in a map that must be invertible, with a determinant that costs nothing?** The trick fits in one line, and it carries the most widely used flows.
#
# You will be able to
#
# - write an affine coupling and its inverse, and say why its networks need no inverse;
# - derive its log-determinant, and check it by brute force;
# - build NICE, which keeps volume, and say what its scaling layer repairs;
# - read a stack of couplings as a graph, and see from it what can depend on what;
# - find a bug that breaks no law of bijections, and fit two moons to within 0.03 nats.

# %% nbgrader={"cell_type": "code", "checksum": "5a5531e94207706b3cbd59cd991aeafa", "grade": false, "grade_id": "code_1", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from autograder import check
from flowkit.lab import plots
from flowkit.lab.nets import apply_mlp, mlp_weights
from flowkit.lab.widgets import choice, play, predict, slider

torch.set_num_threads(1)  # the networks are small: sharing them out among cores costs more than it saves
LOG_2PI = math.log(2 * math.pi)


def normal_log_density(z):
    """log N(z; 0, 1), elementwise."""
    return -0.5 * (z.square() + LOG_2PI)


def conditioner(kept, net):
    """(s, t), each (..., D), from a point whose moving dimensions were set to zero, (..., D)."""
    t, raw = apply_mlp(net, kept).unflatten(-1, (-1, 2)).unbind(-1)  # the net gives t first
    return 2 * torch.tanh(raw / 2), t  # s stays between -2 and 2: section 4 says why


def new_stack(D, layers, hidden=(32, 32)):
    """A list of pairs (mask, net): masks alternate, and every network starts at zero."""
    dims = torch.arange(D)
    return [(dims % 2 == k % 2, mlp_weights(D, 2 * D, hidden, seed=k)) for k in range(layers)]


def trainable(stack):
    """A copy of the stack, with weights that ask for gradients."""
    return [
        (mask, [tuple(w.detach().clone().requires_grad_() for w in layer) for layer in net])
        for mask, net in stack
    ]


def weights(stack):
    """All weights of the stack, in one list."""
    return [w for _, net in stack for pair in net for w in pair]


def detached(stack):
    """The stack with plain tensors for weights."""
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in stack]


# %% tags=["show", "hide-input"]
from functools import partial

from flowkit import Compose, Flow, StandardNormal, coupling
from flowkit.lab import targets, training
from flowkit.lab.nets import mlp


def as_flow(stack):
    """The stack as flowkit has it: there a network sees, and gives, only what its layer needs."""

    def small(mask, net, x_kept):
        (W, b), *middle, (V, c) = net
        moved = (~mask).repeat_interleave(2)
        return apply_mlp([(W[mask], b), *middle, (V[:, moved], c[moved])], x_kept)

    layers = [coupling.Coupling(mask, partial(small, mask, net), coupling.affine()) for mask, net in stack]
    return Flow(StandardNormal(len(stack[0][0])), Compose(*layers))


def enlarge(axes):
    """Letters for three panels side by side, which a page shows smaller."""
    for ax in axes:
        ax.tick_params(labelsize=12)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_fontsize(14)


moons = targets.two_moons()
torch.manual_seed(0)
flow = Flow(StandardNormal(2), coupling.coupling_stack(2, 8, partial(mlp, hidden=(32, 32))))
training.fit(flow, moons, steps=500, lr=5e-3, clip=1.0, progress=False)
x = moons.sample(2000, seed=1)
angle = torch.linspace(0, math.pi, 200)
curve = torch.stack(
    [angle.cos() - 0.5, angle.sin() - 0.25], -1
)  # the upper moon; the lower is its mirror image
upper = torch.cdist(x, curve).amin(-1) < torch.cdist(x, -curve).amin(-1)
with torch.no_grad():
    z = flow.bijection.forward(x)[0]

fig, axes = plots.figure(columns=3, height=3.6)
for ax, points, name in zip(axes[:2], (x, z), "xz", strict=True):
    ax.plot(*points[upper].T, ".", markersize=2, color=plots.BLUE, label="upper moon")
    ax.plot(*points[~upper].T, "x", markersize=2, color=plots.ORANGE, label="lower moon")
    ax.set(xlabel=f"{name}₁", ylabel=f"{name}₂", aspect="equal")
axes[0].set(title="data", ylim=(-1.5, 2.9))
axes[0].legend(loc="upper center", markerscale=4, fontsize=13, handletextpad=0.2)
axes[1].set(title="noise: after 8 couplings")
plots.density(axes[2], flow.log_prob, moons.extent)
axes[2].set(title="the density learned", xlabel="x₁", ylabel="x₂")
enlarge(axes)
plots.show(
    fig,
    alt="Left: two interleaved crescents of points. Middle: the same points after eight couplings, a round cloud. Right: the learned density, two crescents.",
)

# %% [markdown]
# ## 1. Split, keep, transform
#
# Split the dimensions of $x$ in two: $x_A$ is *kept*, $x_B$ *moves*. A *mask* says which: in this course `mask` is a boolean tensor `(D,)`, True where a dimension is kept. The *affine coupling*, the layer of a flow called RealNVP (section 3 explains the name), is
#
# $$z_A = x_A, \qquad z_B = x_B \odot e^{s(x_A)} + t(x_A).$$
#
# The functions $s$ and $t$ come from a network, the *conditioner*. To go back we need $s$ and $t$ at the same point, and there they are: $x_A = z_A$ was never touched. So we run the *same* network, forward, and undo an affine map of numbers we now know:
#
# $$x_A = z_A, \qquad x_B = \bigl(z_B - t(z_A)\bigr) \odot e^{-s(z_A)}.$$
#
# RealNVP writes $y$ for our $z$, $b$ for the mask. Texts that define the layer from noise to data have $x_B = z_B \odot e^{s} + t$: their forward is our inverse.
#
# The next cell tries three conditioners that have no inverse of their own: one shifts by $\lvert x_A\rvert$, the same for $x_A$ and $-x_A$; one ignores its input; one jumps. **Guess first:** for which of them does the way back fail?

# %% tags=["show"]
torch.manual_seed(0)
x_a, x_b = torch.randn(2, 1000, dtype=torch.float64)
conditioners = {
    "t = abs(x_A)": (torch.sin(x_a), x_a.abs()),
    "s = 0, t = 3": (torch.zeros_like(x_a), torch.full_like(x_a, 3.0)),
    "both jump": (torch.sign(x_a), torch.floor(3 * x_a)),
}
for name, (s, t) in conditioners.items():
    z_b = x_b * s.exp() + t
    back = (z_b - t) * (-s).exp()
    print(f"{name:14} largest error after the round trip {(back - x_b).abs().max():.1e}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "d5d599f6d7256959e3b5bfa468979580", "grade": false, "grade_id": "affine_coupling_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 1: there and back
#
# difficulty 2 of 5 · importance 5 of 5 · 12 minutes · 3 points
#
# All three come back (an error of $10^{-15}$ is rounding): nothing ever asks for the inverse of $s$ or $t$. Write `affine_coupling(x, mask, net, inverse=False)`. With `inverse=False` it returns $z$ for the points `x` of shape `(..., D)`. With `inverse=True` the first argument is $z$, and it returns $x$. It returns the points alone, and lets gradients through; their log-determinant is the next exercise.
#
# `conditioner(kept, net)` from the first cell gives the pair `(s, t)`. All three have shape `(..., D)`: `kept` is the point with zeros where it moves, and of `s` and `t` only the entries of the moving dimensions count. The mask is boolean; `x * mask` and `~mask` work, and `torch.where(mask, a, b)` takes `a` where a dimension is kept.
#
# <details><summary>"Forward is right and inverse is not"</summary>
#
# Undo the last step first. And which point does the conditioner get?
#
# </details>
# <details><summary>"It inverts what I did, but the test says that it is wrong"</summary>
#
# Is it the *kept* part that the conditioner sees, and the *other* part that moves?
#
# </details>
# <details><summary>A template</summary>
#
# `s, t = conditioner(____, net)`, then `moved = ____ if inverse else ____`, then `return torch.where(mask, ____, moved)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "0d291424c51cef087232b5fabf4b20da", "grade": false, "grade_id": "affine_coupling", "locked": false, "schema_version": 3, "solution": true, "task": false}
def affine_coupling(x, mask, net, inverse=False):
    """One affine coupling, or its inverse. x: (..., D); mask: (D,) bool, True = kept -> (..., D).

    >>> affine_coupling(torch.ones(5, 2), torch.tensor([True, False]), mlp_weights(2, 4)).shape
    torch.Size([5, 2])
    """
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "dee55f4d7c85484a66457a6bb1b42685", "grade": true, "grade_id": "affine_coupling_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check affine_coupling: 1 point.
import torch
from autograder import check
from flowkit.lab.nets import apply_mlp, mlp_weights


def one_by_one(x, mask, net, inverse):
    """The slow specification: each number by itself, and the way back by bisection."""
    shape, x = x.shape, x.reshape(-1, len(mask))  # (..., D): leading axes only count the points
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    result = x.clone()
    for n in range(len(x)):
        for i in range(len(mask)):
            if mask[i]:
                continue
            stretch, shift = float(torch.exp(2 * torch.tanh(raw[n, i] / 2))), float(t[n, i])
            if not inverse:
                result[n, i] = float(x[n, i]) * stretch + shift
                continue
            low, high = -1e3, 1e3
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if middle * stretch + shift < x[n, i] else (low, middle)
            result[n, i] = low
    return result.reshape(shape)


# First a net of one weight, to work out on paper: where x_1 is kept, t = x_1 and tanh(raw / 2) = 1/2.
small = torch.tensor([True, False])
W = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
b = torch.tensor([0.0, 0.0, 0.0, torch.log(torch.tensor(3.0))], dtype=torch.float64)
point = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
cases = [(point, small, [(W, b)], False), (point, small, [(W, b)], True)]

torch.manual_seed(0)
mask = torch.tensor([True, False, True])
net = mlp_weights(3, 6, (8,), zero_last=False, dtype=torch.float64)
x = torch.randn(4, 3, dtype=torch.float64)
cases += [(x, mask, net, False), (x, ~mask, net, False), (x, mask, net, True), (x, ~mask, net, True)]
for some in (x[0], x.reshape(2, 2, 3)):  # a single point, and a batch of batches
    cases += [(some, mask, net, False), (some, mask, net, True)]
cases.append((x.clone().requires_grad_(), mask, net, False))  # in training, gradients go back through it
check.values("coupling.affine_coupling", cases, one_by_one)

# %% nbgrader={"cell_type": "code", "checksum": "b4e83d564f9ebd1eb2a238163af115d1", "grade": true, "grade_id": "affine_coupling_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown]
# ## 2. The triangular Jacobian
#
# Order the dimensions so that the kept ones come first: the same reordering of rows and columns leaves a determinant as it was. Below is $J = dz/dx$ of a coupling that keeps the first three of six dimensions, computed by automatic differentiation, with its zeros hatched. It falls into four blocks of 3 by 3. **Guess first:** the cell after it adds random numbers to one block at a time, and takes the determinant.

# %% tags=["show", "hide-input"]
half = coupling.half_mask(6)  # keeps the first three
net = mlp_weights(6, 12, (16,), seed=4, zero_last=False, dtype=torch.float64)
layer = as_flow([(half, net)]).bijection
torch.manual_seed(2)
point = torch.randn(6, dtype=torch.float64)
J = torch.func.jacrev(lambda x: layer.forward(x)[0])(point)

fig, ax = plots.figure(width=5, height=4.2)
plots.matrix(ax, J)
ax.set_xticks(range(6), "123456")
ax.set_yticks(range(6), "123456")
ax.set(xlabel="j: derivative by x_j", ylabel="i: of z_i", title="J of one coupling")
plots.show(
    fig,
    alt="A 6 by 6 matrix. The upper left 3 by 3 block is the identity, the upper right block is zero, the lower right block is diagonal with positive entries, and the lower left block is full of numbers of both signs.",
)
predict(
    "One block of this matrix can be replaced by any numbers without changing the determinant. Which?",
    ["Upper right: the zeros", "Lower left: the derivatives of s and t", "Lower right: the diagonal"],
)

# %% tags=["show"]
torch.manual_seed(3)
blocks = {
    "upper left": (slice(0, 3), slice(0, 3)),
    "upper right": (slice(0, 3), slice(3, 6)),
    "lower left": (slice(3, 6), slice(0, 3)),
    "lower right": (slice(3, 6), slice(3, 6)),
}
print(f"as it is               det = {torch.linalg.det(J):8.4f}")
for name, block in blocks.items():
    changed = J.clone()
    changed[block] += torch.randn(3, 3, dtype=torch.float64)
    print(f"{name + ' disturbed':22} det = {torch.linalg.det(changed):8.4f}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "4665c7b78c584acf288c8eecde9df063", "grade": false, "grade_id": "coupling_log_det_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 2: the price of a coupling
#
# difficulty 2 of 5 · importance 5 of 5 · 10 minutes · 4 points
#
# The four blocks, for any coupling:
#
# $$J = \begin{pmatrix} I & 0 \\ \partial z_B/\partial x_A & \operatorname{diag}\bigl(e^{s(x_A)}\bigr) \end{pmatrix}.$$
#
# Top: $z_A$ is $x_A$ and knows nothing of $x_B$. Lower right: each $z_{B,i}$ depends on its own $x_{B,i}$ alone, with slope $e^{s_i}$. Lower left: the derivatives of the networks, as wild as they like. $J$ is lower triangular, so its determinant is the product of its diagonal, and never asks for a derivative of the networks: they need neither an inverse *nor* a Jacobian. (In the other convention $J$ is $dx/dz$, and the log-determinant has our sign reversed.)
#
# Derive $\log\lvert\det J\rvert$ on paper, then type it as `coupling_log_det(x, mask, s, t)`. It takes $O(D)$; the check refuses `torch.linalg` and all other determinants. The networks have run already: `x`, `s` and `t` have shape `(..., D)`, and the entries of `s` and `t` at kept dimensions are leftovers that mean nothing. The result has shape `(...)`, one number for each point, and lets gradients through.
#
# The public test makes up the derivatives of $s$ and $t$ at random, and takes the determinant of the whole matrix. When you are right, your bars below stand beside the brute force, and the interactive runs *your* two functions.
#
# <details><summary>"My values have the right size and the wrong sign"</summary>
#
# $J$ is $dz/dx$. Does $z_B$ stretch or shrink when $s$ is positive?
#
# </details>
# <details><summary>"I get one number for the whole batch"</summary>
#
# Each point has its own volume change. Over which axis do you sum?
#
# </details>
# <details><summary>"It is right for one mask and wrong for its complement"</summary>
#
# True means kept. Which rows of $J$ belong to the identity?
#
# </details>
# <details><summary>A template</summary>
#
# `return torch.where(mask, ____, ____).sum(-1)`
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "f503a6af4cd6d8b6de5799daf0fc9dc6", "grade": false, "grade_id": "coupling_log_det", "locked": false, "schema_version": 3, "solution": true, "task": false}
def coupling_log_det(x, mask, s, t):
    """log abs det dz/dx of an affine coupling. x, s, t: (..., D); mask: (D,) bool, True = kept -> (...).

    >>> coupling_log_det(torch.zeros(5, 2), torch.tensor([True, False]), torch.zeros(5, 2), torch.ones(5, 2)).shape
    torch.Size([5])
    """
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "d21fa82fee651f345294130da018d5f2", "grade": true, "grade_id": "coupling_log_det_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check coupling_log_det: 1 point.
import torch
from autograder import check


def brute_force(x, mask, s, t):
    """The slow specification: s and t get random slopes in x_A, and autograd the whole Jacobian."""
    generator = torch.Generator().manual_seed(1)
    slopes = torch.randn(2, len(mask), len(mask), generator=generator, dtype=x.dtype)

    def log_det(x, s, t):
        def f(y):
            step = (y - x) * mask
            return torch.where(mask, y, y * torch.exp(s + slopes[0] @ step) + t + slopes[1] @ step)

        return torch.linalg.slogdet(torch.func.jacrev(f)(x)).logabsdet

    D = len(mask)
    points = zip(x.reshape(-1, D), s.reshape(-1, D), t.reshape(-1, D), strict=True)
    return torch.stack([log_det(*point) for point in points]).reshape(x.shape[:-1])


torch.manual_seed(0)
mask = torch.tensor([True, False, True, False, False])
batches = [torch.randn(3, n, 5, dtype=torch.float64) for n in (4, 1, 3)]
cases = [(x, m, s, t) for (x, s, t), m in zip(batches, (mask, ~mask, mask.flip(0)), strict=True)]
x, s, t = torch.randn(3, 2, 2, 5, dtype=torch.float64)  # a batch of batches, and a single point
cases += [(x, mask, s, t), (x[0, 0], mask, s[0, 0], t[0, 0])]
x = torch.zeros(1, 64, dtype=torch.float64)  # large scales: the product of the exp(s) is infinite
cases += [(x, torch.arange(64) == 0, x + 30, x)]
cases.append((x, torch.arange(64) == 0, (x + 1).requires_grad_(), x))  # in training, gradients go back to s
determinants = [f"{owner}.{name}" for owner in ("torch", "") for name in ("det", "logdet", "slogdet")]
check.without("coupling.coupling_log_det", "torch.linalg", *determinants)
check.values("coupling.coupling_log_det", cases, brute_force)


# %% nbgrader={"cell_type": "code", "checksum": "8d41e779d0c3fe5e7d5daf749e1dede5", "grade": true, "grade_id": "coupling_log_det_hidden", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 3 points.

# %% tags=["show", "hide-input"]
def reference_coupling(x, mask, net, inverse=False):
    f = as_flow([(mask, net)]).bijection
    return (f.inverse if inverse else f.forward)(x)[0]


def reference_log_det(x, mask, s, t):
    return coupling.affine_forward(x, torch.stack([t, s], -1), bound=None)[1][..., ~mask].sum(-1)


log_det = check.yours("coupling.coupling_log_det", otherwise=reference_log_det)
torch.manual_seed(5)
x = torch.randn(6, 6, dtype=torch.float64)
jacobians = torch.stack([torch.func.jacrev(lambda x: layer.forward(x)[0])(point) for point in x])
forced = torch.linalg.slogdet(jacobians).logabsdet
fig, ax = plots.figure(height=2.6)
places = range(6)
whose = "the library's" if log_det is reference_log_det else "yours"
ax.bar([i - 0.2 for i in places], forced.tolist(), 0.4, color=plots.GREY, label="brute force")
log_dets = log_det(x, half, *conditioner(x * half, net)).tolist()
ax.bar([i + 0.2 for i in places], log_dets, 0.4, color=plots.BLUE, hatch="//", label=whose)
ax.axhline(0, color=plots.BLACK, linewidth=0.8, linestyle="-")
ax.set(xlabel="point", ylabel="log abs det J")
ax.legend()
plots.show(fig, alt=f"Six pairs of bars, brute force beside {whose}, of equal height in each pair.")

line = torch.linspace(-3, 3, 61)
ticks = torch.linspace(-3, 3, 13)
grid_lines = torch.cat([torch.stack(torch.meshgrid(ticks, line, indexing="ij"), -1)] * 2)
grid_lines[13:] = grid_lines[13:].flip(-1)
pixels = targets.grid((-3, 3, -3, 3), 70)[0]


def hand_made(scale, shift):
    """A net for either mask: of the kept u, t is shift * (abs(u) / 2 - 3/4), and the raw s rises from -scale to scale."""
    hidden = torch.tensor([1.0, -1.0, 1.0, 1.0]).expand(2, 4), torch.tensor([0.0, 0.0, 1.5, -1.5])
    t_and_s = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 1 / 1.5], [0.0, -1 / 1.5], [-0.75, -1.0]])
    last = (t_and_s * torch.tensor([shift, scale])).repeat(1, 2)
    return [hidden, (last[:4], last[4])]


def draw_coupling(scene, scale, shift, keeps):
    f = check.yours("coupling.affine_coupling", otherwise=reference_coupling)
    log_det = check.yours("coupling.coupling_log_det", otherwise=reference_log_det)
    mask, net = torch.tensor([keeps == 1, keeps == 2]), hand_made(scale, shift)
    z = f(pixels, mask, net)
    density = (normal_log_density(z).sum(-1) + log_det(pixels, mask, *conditioner(pixels * mask, net))).exp()
    data, noise = scene.panel(0, of=2), scene.panel(1, of=2)
    data.axes(x=(-3, 3), y=(-3, 3), xlabel="x₁", ylabel="x₂", title="density of x", equal=True)
    data.image(density, extent=(-3, 3, -3, 3))
    noise.axes(x=(-5, 5), y=(-5, 5), xlabel="z₁", ylabel="z₂", title="image of the grid", equal=True)
    noise.lines(f(grid_lines, mask, net), colour=plots.BLUE)
    return (
        f"x{'₁₂'[keeps - 1]} is kept: grid lines of constant x{'₁₂'[keeps - 1]} stay straight. "
        f"The highest density is {density.max():.2f}."
    )


play(
    draw_coupling,
    scale=slider(-2, 2, 1.0, step=0.1, label="strength of s"),
    shift=slider(-3, 3, 2.0, step=0.1, label="strength of t"),
    keeps=choice({"x₁ is kept": 1, "x₂ is kept": 2}, label="mask"),
)


# %% [markdown]
# ## 3. NICE: when volume is kept
#
# The first of the family, *NICE*, has $s = 0$: an *additive coupling*, $z_B = x_B + t(x_A)$. Every entry on the diagonal of $J$ is 1, so $\log\lvert\det J\rvert = 0$ at every point, for any network. A shear in each layer: shapes change, areas do not. Such a map is *volume preserving*.
#
# That is cheap, and it has a price. With log-determinant zero, $p_X(x) = p_Z(f(x))$: the highest density of the data equals the highest density of the noise, $(2\pi)^{-D/2}$, whatever you train. Probability can be moved around and never concentrated. NICE repairs this with a last layer that scales each dimension by a number of its own, the same for all points:
#
# $$z = e^{\sigma} \odot h, \qquad \log\lvert\det\rvert = \sum_i \sigma_i,$$
#
# where $h$ is what the couplings have made of $x$. RealNVP lets the scale depend on the point instead: its name is short for *real-valued non-volume preserving*.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "aac963fc9b954f3c8a3757d163096b03", "grade": false, "grade_id": "nice_log_prob_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 3: NICE, whole
#
# difficulty 2 of 5 · importance 4 of 5 · 10 minutes · 3 points
#
# Write `nice_log_prob(x, layers, log_scale)`, the log-density of a whole NICE with standard normal noise: `x` of shape `(..., D)`, result `(...)`.
#
# `layers` is a list of pairs `(mask, net)`, and the first meets the data first. Here a net gives the shift alone: `apply_mlp(net, kept)` is $t$, of shape `(..., D)`. After all layers, `log_scale`, of shape `(D,)`, is $\sigma$. The public test takes the determinant of the Jacobian of the whole map, so if your couplings had a log-determinant other than zero, it would tell.
#
# After it, step through a stack: choose *additive* and watch the areas.
#
# <details><summary>"I am off by a constant"</summary>
#
# One layer changes volume. Does it stretch, on the way from data to noise, when $\sigma > 0$?
#
# </details>
# <details><summary>"It is right for one layer and wrong for two"</summary>
#
# Each layer sees what the layers before it made of $x$. Is `x` updated in your loop?
#
# </details>
# <details><summary>A template</summary>
#
# In the loop: `x = torch.where(mask, ____, ____)`. After it: `z = ____`, then `return normal_log_density(z).sum(-1) + ____`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "99fa03a60d11431eacae163465cc1edd", "grade": false, "grade_id": "nice_log_prob", "locked": false, "schema_version": 3, "solution": true, "task": false}
def nice_log_prob(x, layers, log_scale):
    """log p_X(x) of additive couplings and a diagonal scaling. x: (..., D); log_scale: (D,) -> (...)."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "4e4e77d0245c0648407779ca667c3686", "grade": true, "grade_id": "nice_log_prob_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check nice_log_prob: 1 point.
import math

import torch
from autograder import check
from flowkit.lab.nets import apply_mlp, mlp_weights


def whole_jacobian(x, layers, log_scale):
    """The slow specification: the Jacobian of the whole map at each point, and its determinant."""

    def f(h):
        for mask, net in layers:
            h = h + ~mask * apply_mlp(net, h * mask)
        return h * log_scale.exp()

    def one(point):
        log_noise = -0.5 * (f(point).square() + math.log(2 * math.pi)).sum()
        return log_noise + torch.linalg.slogdet(torch.func.jacrev(f)(point)).logabsdet

    return torch.stack([one(point) for point in x.reshape(-1, x.shape[-1])]).reshape(x.shape[:-1])


# First a net of one weight, to work out on paper: x_1 is kept, and moves x_2 by its double.
W, b = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
point = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
log_scale = torch.tensor([0.5, -1.0], dtype=torch.float64)
cases = [(point, [(torch.tensor([True, False]), [(W, b)])], log_scale)]

torch.manual_seed(0)
mask = torch.tensor([True, False, True])
layers = [(m, mlp_weights(3, 3, (8,), k, False, torch.float64)) for k, m in enumerate([mask, ~mask, mask])]
x, log_scale = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
cases += [(x, layers, 0 * log_scale), (x, layers[:1], log_scale), (x, layers, log_scale)]
cases += [(x[0], layers, log_scale), (x.reshape(2, 2, 3), layers, log_scale)]
check.values("coupling.nice_log_prob", cases, whole_jacobian)


# %% nbgrader={"cell_type": "code", "checksum": "8454f250a826bd9bc486f20877a484fc", "grade": true, "grade_id": "nice_log_prob_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def wild_stack(layers, additive):
    """Random networks, gentle enough to look at; additive: s = 0."""
    stack = []
    for k in range(layers):
        (W, b), (V, c) = mlp_weights(2, 4, (12,), seed=20 + k, zero_last=False)
        size = torch.tensor([0.7, 0.0 if additive else 0.7]).repeat(2)
        stack.append((torch.arange(2) % 2 == k % 2, [(W, b), (V * size, 0.5 * c * size)]))
    return stack


STACKS = {kind: wild_stack(6, kind == "additive") for kind in ("affine", "additive")}
centres = targets.grid((-2, 2, -2, 2), 14)[0].reshape(-1, 2)
rim = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def around(middle, size, n=12):
    """The rim of a square, n points a side."""
    share = torch.arange(n)[:, None, None] / n
    path = rim * (1 - share) + rim.roll(-1, 0) * share
    return middle + size / 2 * path.transpose(0, 1).reshape(-1, 2)


def enclosed(path):
    """The area within a closed path, by the shoelace formula."""
    x, y = path.T
    return 0.5 * (x * y.roll(-1) - x.roll(-1) * y).sum().abs().item()


def draw_steps(scene, step, kind, place):
    f = check.yours("coupling.affine_coupling", otherwise=reference_coupling)
    log_det = check.yours("coupling.coupling_log_det", otherwise=reference_log_det)
    middle = torch.tensor([place, 0.5])
    shapes = {
        "lines": grid_lines * 2 / 3,
        "dots": torch.cat([centres, middle[None]]),
        "cell": around(middle, 0.5),
    }
    total = torch.zeros(len(shapes["dots"]))
    before = shapes
    for mask, net in STACKS[kind][:step]:
        dots = shapes["dots"]
        total = total + log_det(dots, mask, *conditioner(dots * mask, net))
        before, shapes = shapes, {name: f(points, mask, net) for name, points in shapes.items()}
    # Two points that are nowhere fix the ends of the colours.
    areas = torch.cat([total[:-1].clip(-1.5, 1.5), torch.tensor([-1.5, 1.5])])
    who = "nothing has moved" if step == 0 else f"layer {step} moves z{'₂₁'[(step - 1) % 2]}"
    for i, (now, title) in enumerate([(before, "before the layer"), (shapes, who)]):
        panel = scene.panel(i, of=2)
        panel.axes(x=(-4, 4), y=(-4, 4), xlabel="z₁", ylabel="z₂", title=title, equal=True)
        panel.lines(now["lines"], colour=plots.GREY, alpha=0.7)
        if i == 1:
            nowhere = torch.full((2, 2), torch.nan)
            panel.points(torch.cat([now["dots"][:-1], nowhere]), values=areas, colours="diverging", size=5)
        panel.polygon(now["cell"], colour=plots.BLUE, alpha=0.5, hatch=True)
    growth = enclosed(shapes["cell"]) / 0.5**2
    return (
        f"After {step} layers: {who}. The marked cell has {growth:.2f} times its first area; "
        f"the log-dets at its centre add up to {total[-1]:.2f}, and exp of that is {total[-1].exp():.2f}. "
        "Right, where space has grown the dots are violet, where it has shrunk brown."
    )


play(
    draw_steps,
    step=slider(0, 6, 2, label="layers applied"),
    kind=choice(["affine", "additive"], label="couplings"),
    place=slider(-1.8, 1.8, -0.6, step=0.1, label="place of the marked cell"),
)

# %% [markdown]
# ## 4. Stacks, and the graph they draw
#
# One coupling leaves $x_A$ as it was, so the next must keep something else. Either the masks alternate, or the mask stays and a *permutation* of the dimensions stands between the layers, $z_i = x_{\text{order}[i]}$. A permutation only relabels: $\lvert\det\rvert = 1$.
#
# Read a coupling as a *graph*: an arrow from input $j$ to output $i$ where $i$ reads $j$. Arrows run from each dimension to itself, and from all of $A$ to each of $B$; none from one of $B$ to another. Seen as a model of $x$, a *Bayesian network*, it has the arrows from $A$ to $B$ alone: the noise dimensions are independent, and each $x_i$ is computed from its own $z_i$ and $x_A$, so the moving dimensions are independent of one another *given* $x_A$, $p(x) = p(x_A)\prod_{i \in B} p(x_i \mid x_A)$. A stack is deeper: output $i$ depends on input $j$ if some path of arrows leads through the layers from $j$ to $i$. It can be read off the masks, before any training.
#
# With depth, one numerical warning. Scales multiply. If each $s$ stays below 2, a dimension that moves in 32 layers can grow by $e^{64}$, about $6 \cdot 10^{27}$: float32 ends at $3 \cdot 10^{38}$. Unbounded, one layer with $s = 90$ overflows alone, and an outlier is enough for that. So `conditioner` bounds $s$ by a $\tanh$; the price is that one layer cannot stretch by more than $e^2$.

# %% tags=["show", "hide-input"]
fig, ax = plots.figure(width=4, height=3.2)
mask = coupling.alternating_mask(6)
for i, j in coupling.graph(as_flow(new_stack(6, 1)).bijection, 6).nonzero().tolist():
    ax.annotate(
        "", (1, -i), (0, -j), arrowprops={"arrowstyle": "->", "color": plots.BLUE if i != j else plots.GREY}
    )
for i in range(6):
    for column, name in enumerate("xz"):
        ax.text(
            1.12 * column - 0.06,
            -i,
            f"{name}{'₁₂₃₄₅₆'[i]}" + (" kept" if column and mask[i] else ""),
            va="center",
        )
ax.set(xlim=(-0.2, 1.4), ylim=(-5.5, 0.5), title="one coupling as a graph")
ax.axis("off")
plots.show(
    fig,
    alt="Six inputs on the left, six outputs on the right. Each input has an arrow to its own output. Besides, inputs 1, 3 and 5, which are kept, have arrows to outputs 2, 4 and 6, which move.",
)
predict(
    "Six dimensions, masks that alternate. After how many layers can every output depend on every input?",
    ["2", "3", "6"],
)

# %% tags=["show", "hide-input"]
fig, axes = plots.figure(columns=3, height=3.6)
for K, ax in enumerate(axes, start=1):
    reach = coupling.graph(as_flow(new_stack(6, K)).bijection, 6)
    plots.matrix(ax, reach.double(), digits=0)
    ax.set_xticks(range(6), "123456")
    ax.set_yticks(range(6), "123456")
    ax.set(title=f"{K} layer{'s' * (K > 1)}: {int(reach.sum())} of 36", xlabel="input j", ylabel="output i")
enlarge(axes)
plots.show(
    fig,
    alt="Three 6 by 6 matrices of ones and hatched zeros: which output can depend on which input. After one layer 15 of 36 entries are one, after two layers 30, after three all 36.",
)
for D in range(2, 9):
    full = [bool(coupling.graph(as_flow(new_stack(D, K)).bijection, D).all()) for K in range(1, 5)]
    print(f"D = {D}: every output can depend on every input after {full.index(True) + 1} layers")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "8ef678048eeee11e0340bd782995000f", "grade": false, "grade_id": "dependency_graph_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 4: who can hear whom
#
# difficulty 3 of 5 · importance 3 of 5 · 20 minutes · 2 points
#
# Why three? Say the first layer keeps $A$ and moves $B$. After it, each of $B$ has heard of itself and all of $A$; after the second, each of $A$ has heard of everyone. Those of $B$ have yet to hear of *one another*, and the third layer tells them. With a single dimension in $B$ ($D = 2$ or 3) two are enough.
#
# Compute such matrices yourself. The graph of two layers is a product of their matrices: a path $i \leftarrow k \leftarrow j$. Write `dependency_graph(layers, D)`: a boolean tensor `(D, D)`, with entry `[i, j]` True where output $i$ of the whole stack can depend on input $j$.
#
# `layers` is a list, data first. Each entry is a pair: `("couple", mask)`, with a list of D booleans, True = kept (a list: make it a tensor before `~`); or `("permute", order)`, with $z_i = x_{\text{order}[i]}$. With no layers, each output is its own input. The public test builds random maps with these masks and looks where their Jacobian is not zero.
#
# <details><summary>"My matrix is the transpose"</summary>
#
# Rows are outputs. And if the layer has matrix $M$ and all before it $R$, is it $MR$ or $RM$?
#
# </details>
# <details><summary>"My entries are 2 and 3"</summary>
#
# A matrix product counts the paths. You want to know whether there is one.
#
# </details>
# <details><summary>A template</summary>
#
# `reach = torch.eye(D)`. For each layer make `step`, `(D, D)`: for a permutation `torch.eye(D)[____]`; for a coupling the identity, and True at all (moving, kept) pairs. Then `reach = ((____ @ ____) > 0).float()`: clipped after each layer, since in a long stack the numbers of paths overflow. At the end `return reach > 0`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "daba32ee8fa608f9d57eafcc9e881dfe", "grade": false, "grade_id": "dependency_graph", "locked": false, "schema_version": 3, "solution": true, "task": false}
def dependency_graph(layers, D):
    """Which inputs each output of a stack can depend on: (D, D) bool, rows are outputs.

    >>> dependency_graph([("couple", [True, False])], 2)
    tensor([[ True, False],
            [ True,  True]])
    """
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "2d705a6a3db5ba7eb1e6412daa3efe18", "grade": true, "grade_id": "dependency_graph_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check dependency_graph: 1 point.
import torch
from autograder import check


def where_the_jacobian_is_not_zero(layers, D):
    """The slow specification: a random map with these masks, and its Jacobian at a random point."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(len(layers), D, D, generator=generator, dtype=torch.float64)
    x = torch.randn(D, generator=generator, dtype=torch.float64)

    def f(x):
        for (kind, what), W in zip(layers, weights, strict=True):
            if kind == "permute":
                x = x[torch.tensor(what)]
            else:
                mask = torch.tensor(what)
                x = x + ~mask * torch.sin(W @ (x * mask))
        return x

    return torch.func.jacrev(f)(x) != 0


one, other = [True, False, True, False], [False, True, False, True]
half, shift = [True, True, False, False], [3, 0, 1, 2]
cases = [
    ([("couple", one)], 4),
    ([("couple", one), ("couple", other)], 4),
    ([("permute", shift)], 4),
    ([("couple", half), ("permute", shift), ("couple", half)], 4),
    ([], 3),
    ([("couple", one), ("couple", other)] * 60, 4),
]
check.values("coupling.dependency_graph", cases, where_the_jacobian_is_not_zero)


# %% nbgrader={"cell_type": "code", "checksum": "87c070d8735f1cbd0a220c4739b4cf0e", "grade": true, "grade_id": "dependency_graph_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 1 point.

# %% tags=["show", "hide-input"]
def reference_graph(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        layer = (
            coupling.Permutation(what)
            if kind == "permute"
            else coupling.Coupling(what, None, coupling.affine())
        )
        reach = coupling.graph(layer, D).float() @ reach
    return reach > 0


evens, first_half = [True, False] * 3, [True] * 3 + [False] * 3
PLANS = {
    "masks alternate": [("couple", evens), ("couple", [not kept for kept in evens])] * 3,
    "the same mask always": [("couple", evens)] * 6,
    "one mask, then reversed": [("couple", first_half), ("permute", [5, 4, 3, 2, 1, 0])] * 3,
    "one mask, then shifted by one": [("couple", first_half), ("permute", [5, 0, 1, 2, 3, 4])] * 3,
}


def draw_graph(scene, plan, depth, output):
    graph = check.yours("coupling.dependency_graph", otherwise=reference_graph)
    layers = PLANS[plan][:depth]
    heard = [
        graph(layers[k:], 6)[output - 1].tolist() for k in range(depth + 1)
    ]  # by the output, in each column
    thin, thick = [], []
    for k, layer in enumerate(layers):
        for i, j in graph([layer], 6).nonzero().tolist():
            on_path = heard[k + 1][i] and heard[k][j]
            (thick if on_path else thin).append([(k, 6 - j), (k + 1, 6 - i)])
    scene.axes(
        x=(-0.6, depth + 0.6), y=(0.3, 6.7), title="from the data (left) to the noise (right)", frame=False
    )
    scene.lines(thin, colour=plots.GREY, alpha=0.35)
    scene.lines(thick, colour=plots.BLUE, width=2.5)
    dots = [(k, 6 - i, heard[k][i]) for k in range(depth + 1) for i in range(6)]
    scene.points(
        [dot[:2] for dot in dots if not dot[2]] or [(0.0, 99.0)], colour=plots.GREY, size=8, marker="square"
    )
    scene.points([dot[:2] for dot in dots if dot[2]], colour=plots.BLUE, size=12)
    for i in range(6):
        scene.text(-0.35, 6 - i, f"x{'₁₂₃₄₅₆'[i]}")
        scene.text(depth + 0.35, 6 - i, f"z{'₁₂₃₄₅₆'[i]}")
    names = ", ".join(f"x{'₁₂₃₄₅₆'[j]}" for j in range(6) if heard[0][j])
    return f"After {depth} layer{'s' * (depth > 1)}, z{'₁₂₃₄₅₆'[output - 1]} can depend on {names}."


play(
    draw_graph,
    plan=choice(list(PLANS), label="stack"),
    depth=slider(1, 6, 2, label="layers"),
    output=slider(1, 6, 2, label="output"),
)


# %% [markdown]
# ## 5. Without mixing, and a bug that breaks no law
#
# In the interactive above, choose *the same mask always*. $x_A$ passes through all layers untouched, and each $x_{B,i}$ meets one affine map after another, each with numbers computed from the same $x_A$. Affine maps compose to an affine map: the whole stack is *one* coupling. The model then says that $x_A$ is standard normal and that $x_B$ given $x_A$ is Gaussian, at any depth and whatever the data.
#
# That stack is easily built by accident:
#
# ```python
# for k in range(0, layers, 2):           # a pair at a time
#     add(alternating_mask(D, k % 2))     # k is even: always the same parity
#     add(alternating_mask(D, k % 2))
# ```
#
# It is a perfect bijection: round trips close, log-determinants are exact, densities integrate to one. Training runs, and stalls at a mediocre likelihood. Only a test about *dimensions* finds it.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "e600e401b5787509a41513640167bfd1", "grade": false, "grade_id": "inspect_stack_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 5: the mask parity bug
#
# difficulty 3 of 5 · importance 4 of 5 · 12 minutes · 3 points
#
# Write the inspector that tells this bug from the two that break laws. `inspect_stack(x, z, back, jacobian, log_det)` is given the evidence of one stack at N points: `x` `(N, D)`, `z = f(x)` `(N, D)`, `back`, what the stack's inverse makes of `z`, the true Jacobians `(N, D, D)` by automatic differentiation, and the `log_det` that the stack reports `(N,)`. Return the first that applies:
#
# - `"not invertible"`: some entry of `back` is not within 1e-6 of `x`;
# - `"wrong log-det"`: some entry of `log_det` is not within 1e-6 of $\log\lvert\det J\rvert$;
# - `"frozen"`: some dimension has $z_i = x_i$ at *every* point;
# - `"no objection"`.
#
# (The networks of `new_stack` start at zero, so a fresh stack is the identity, and `"frozen"`. Inspect after some training.)
#
# <details><summary>"A stack whose numbers are nan gets 'no objection'"</summary>
#
# Comparisons with `nan` are False. Ask whether all entries *are* within the tolerance.
#
# </details>
# <details><summary>"An error of 5e-6 gets past me"</summary>
#
# `allclose` and `isclose` allow `atol + rtol * abs(other)`. What is `rtol` when you do not say?
#
# </details>
# <details><summary>"A right stack with a permutation is accused"</summary>
#
# Swapping two dimensions makes the determinant negative. What is the formula's determinant wrapped in?
#
# </details>
# <details><summary>A template</summary>
#
# `if not ((____).abs() <= 1e-6).all(): return "not invertible"`, and so on; at the end `(z == x).all(____).any()`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "17382687d180ead5066be0f170c5afcb", "grade": false, "grade_id": "inspect_stack", "locked": false, "schema_version": 3, "solution": true, "task": false}
def inspect_stack(x, z, back, jacobian, log_det):
    """ "not invertible", "wrong log-det", "frozen" or "no objection". x, z, back: (N, D); jacobian: (N, D, D)."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "efb25f647c853ed6bc148f616ae99366", "grade": true, "grade_id": "inspect_stack_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check inspect_stack: 1 point.
from functools import partial

import torch
from autograder import check
from flowkit import Compose, coupling
from flowkit.lab.nets import mlp
from flowkit.linear import Permutation


def stack(parities):
    torch.manual_seed(0)
    net = partial(mlp, hidden=(8,), activation=torch.nn.Tanh, zero_last=False)
    masks = [coupling.alternating_mask(4, parity) for parity in parities]
    return Compose(*[coupling.affine_coupling(mask, net) for mask in masks]).double()


def evidence(f, inverse):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        z, log_det = f.forward(x)
        back = inverse.inverse(z)[0]
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f.forward(x)[0]))(x).detach()
    return x, z, back, jacobian, log_det


def off(values, by):
    """One entry, the largest in size, is off by so much."""
    flat = values.flatten()
    return flat.index_add(0, flat.abs().argmax()[None], flat.new_tensor([by])).reshape(values.shape)


right, frozen, complement = stack([0, 1, 0, 1]), stack([0, 0, 0, 0]), stack([1, 0, 1, 0])
x, z, back, jacobian, log_det = evidence(right, right)
bug = evidence(frozen, frozen)
one_entry, one_point = z.clone(), z.clone()
one_entry[0, 1], one_point[0] = x[0, 1], x[0]
swap, unit = Compose(right, Permutation([1, 0, 2, 3])), torch.eye(4).double().expand(6, 4, 4)
suspects = {
    "right": ((x, z, back, jacobian, log_det), "no objection"),
    "right, and it ends in a swap of two dimensions": (evidence(swap, swap), "no objection"),
    "right, and one entry of z is that of x": ((x, one_entry, back, jacobian, log_det), "no objection"),
    "right, and one point stands still": ((x, one_point, back, jacobian, log_det), "no objection"),
    "the parity bug": (bug, "frozen"),
    "a shift of all dimensions, and of nothing else": ((x, x + 0.5, x, unit, 0 * log_det), "no objection"),
    "an inverse with the other mask": (evidence(right, complement), "not invertible"),
    "an inverse 5e-6 too low at one entry": ((x, z, off(back, -5e-6), jacobian, log_det), "not invertible"),
    "an inverse 0.1 too low at one entry": ((x, z, off(back, -0.1), jacobian, log_det), "not invertible"),
    "an inverse 0.1 too high at one entry": ((x, z, off(back, 0.1), jacobian, log_det), "not invertible"),
    "an inverse that gives nan": ((x, z, back * torch.nan, jacobian, log_det), "not invertible"),
    "the log-det of the inverse": ((x, z, back, jacobian, -log_det), "wrong log-det"),
    "a log-det 5e-6 too low at one point": ((x, z, back, jacobian, off(log_det, -5e-6)), "wrong log-det"),
    "a log-det 0.1 too low at one point": ((x, z, back, jacobian, off(log_det, -0.1)), "wrong log-det"),
    "a log-det 0.1 too high at one point": ((x, z, back, jacobian, off(log_det, 0.1)), "wrong log-det"),
    "a log-det that is nan": ((x, z, back, jacobian, log_det * torch.nan), "wrong log-det"),
    "the parity bug, and an inverse with the other mask": (evidence(frozen, complement), "not invertible"),
    "the parity bug, and a wrong log-det": ((*bug[:4], bug[4] + 1), "wrong log-det"),
    "wrong inverse, wrong log-det": ((x, z, back + 1, jacobian, log_det + 1), "not invertible"),
}


def verdict(suspect, x, z, back, jacobian, log_det):
    return suspects[suspect][1]


def ask(inspect_stack, suspect, x, z, back, jacobian, log_det):
    """The suspect's name is for the message: your function gets the evidence alone."""
    return inspect_stack(x, z, back, jacobian, log_det)


cases = [(suspect, *given) for suspect, (given, _) in suspects.items()]
check.values("coupling.inspect_stack", cases, verdict, use=ask)


# %% nbgrader={"cell_type": "code", "checksum": "8a8b1402a7fa86d5253b65d1e1f8e7a0", "grade": true, "grade_id": "inspect_stack_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "1e7f7d06068006bc3b6c610266cc19d2", "grade": false, "grade_id": "fit_stack_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 6: two moons
#
# difficulty 4 of 5 · importance 5 of 5 · 25 minutes · 3 points
#
# Now train. A stack is data too: a list of pairs `(mask, net)`, as `new_stack` makes it, with standard normal noise behind it. Write `fit_stack(stack, data, steps, rate)`: it returns a trained stack of the same form.
#
# Use Adam on the mean negative log-likelihood of batches of 256 points, drawn at random from `data` `(N, D)`. Let the step size fall in a straight line from `rate` to zero: a constant one keeps jumping about the optimum. (That costs little in 300 steps, and the check nearly always lets it pass; in 2,500 you see it.) The stack that came in must stay as it was. Three helpers from the first cell: `trainable(stack)` copies it, with weights that ask for gradients; `weights(stack)` lists them for the optimizer; `detached(stack)` is what to return, though the check takes weights that still ask for gradients.
#
# The check takes 300 steps and wants unseen points within 0.13 nats of the best possible, the entropy of the moons. The last cell of the lesson takes 2,500 and goes on to 0.03.
#
# <details><summary>"The loss falls without end"</summary>
#
# Which term forbids the map to crush all points to zero, and does it have the right sign?
#
# </details>
# <details><summary>"It learns, slowly, and stops too early"</summary>
#
# Each layer sees what the layers before it made of `x`. Does every weight get to the optimizer?
#
# </details>
# <details><summary>"The loss falls, and then it swings or rises"</summary>
#
# `backward()` adds to the gradients that are there: which line makes them zero first? And the step size, before each step: `for group in optimizer.param_groups: group["lr"] = rate * (1 - k / steps)`.
#
# </details>
# <details><summary>A template</summary>
#
# In a loop over the layers: `s, t = conditioner(____, net)`, `total = total + ____`, `x = ____`. Then `loss = -(____ + total).mean()`, `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "d2d0103e8853b2529d60abfcf565dce6", "grade": false, "grade_id": "fit_stack", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_stack(stack, data, steps, rate):
    """The stack, trained on data (N, D) by maximum likelihood. Returns a list of (mask, net), as it came."""
    # YOUR CODE HERE
    raise NotImplementedError()


# %% nbgrader={"cell_type": "code", "checksum": "c800ffc8ca2d1ee49b78ba7834db4a1d", "grade": true, "grade_id": "fit_stack_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check fit_stack: 1 point.
from functools import partial

import torch
from autograder import check
from flowkit import Compose, Flow, StandardNormal
from flowkit.coupling import Coupling, affine
from flowkit.lab import targets
from flowkit.lab.nets import apply_mlp, mlp_weights


def as_flow(stack):
    """The stack as flowkit has it: there a network sees, and gives, only what its layer needs."""

    def small(mask, net, x_kept):
        (W, b), *middle, (V, c) = net
        moved = (~mask).repeat_interleave(2)
        return apply_mlp([(W[mask], b), *middle, (V[:, moved], c[moved])], x_kept)

    layers = [Coupling(mask, partial(small, mask, net), affine()) for mask, net in stack]
    return Flow(StandardNormal(len(stack[0][0])), Compose(*layers))


def judge(returned, stack, data, steps, rate):
    """Held-out log-likelihood, against the entropy of the moons."""
    if [mask.tolist() for mask, _ in returned] != [mask.tolist() for mask, _ in stack]:
        return "The stack that came back has other masks than the one that went in: only weights are trained."
    same = [
        all(
            torch.equal(w, v)
            for pair, was in zip(net, old, strict=True)
            for w, v in zip(pair, was, strict=True)
        )
        for (_, net), (_, old) in zip(returned, stack, strict=True)
    ]
    if any(same):
        which = ", ".join(str(k) for k, unchanged in enumerate(same) if unchanged)
        return (
            f"{sum(same)} of {len(same)} layers came back with the weights that went in: stack[k] for k = {which}. "
            "Which weights does your optimizer hold?"
        )
    moons = targets.two_moons()
    unseen = moons.sample(4000, seed=7)
    with torch.no_grad():
        gap = (moons.log_prob(unseen) - as_flow(returned).log_prob(unseen)).mean().item()
    if not gap <= 0.13:
        return (
            f"Unseen points are {gap:.2g} nats less likely than they could be, and 0.13 would do. Does the loss fall? "
            "Does every batch bring other points? Do you add s only where dimensions move?"
        )


stack = [(torch.arange(2) % 2 == k % 2, mlp_weights(2, 4, (32, 32), seed=k)) for k in range(8)]
data = targets.two_moons().sample(5000, seed=6)
check.that("coupling.fit_stack", judge, [(stack, data, 300, 5e-3)])


# %% nbgrader={"cell_type": "code", "checksum": "1b729bd3a878f950eba85f560dc4ca3b", "grade": true, "grade_id": "fit_stack_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def library_fit(stack, data, steps, rate):
    stack = trainable(stack)
    flow = as_flow(stack)
    flow.parameters = lambda: iter(weights(stack))
    training.fit(flow, data, steps=steps, lr=rate, progress=False)
    return detached(stack)


fit = check.yours("coupling.fit_stack", otherwise=library_fit)
trained = detached(fit(new_stack(2, 8), moons.sample(20_000, seed=2), steps=2500, rate=5e-3))
flow = as_flow(trained)
unseen = moons.sample(50_000, seed=3)
box = (-5.0, 5.0, -5.0, 5.0)
with torch.no_grad():
    gap = (moons.log_prob(unseen) - flow.log_prob(unseen)).mean().item()
mass = targets.integral(flow.log_prob, box, 400)


def best_unmixed(axis):
    """The least cross-entropy when x_A = (dimension `axis`) stays: x_A normal, x_B given x_A Gaussian."""
    points, area = targets.grid(moons.extent, 400, torch.float64)
    mass = moons.log_prob(points).exp() * area
    x_a, x_b = points[..., axis], points[..., 1 - axis]
    mass_a = mass.sum(axis, keepdim=True)  # points[i, j] = (x_j, y_i): summing over i leaves a density of x
    mean = (mass * x_b).sum(axis, keepdim=True) / mass_a
    variance = (mass * (x_b - mean).square()).sum(axis, keepdim=True) / mass_a
    return (mass * (0.5 * (LOG_2PI + 1 + variance.log()) - normal_log_density(x_a))).sum().item()


with torch.no_grad():
    learned = flow.log_prob(targets.grid(box, 160)[0]).exp()
highest = moons.log_prob(targets.grid(moons.extent, 400)[0]).max().exp()
unmixed = min(best_unmixed(0), best_unmixed(1))
print(f"entropy of the moons                      {moons.entropy:.3f} nats")
print(
    f"your flow, on 50,000 unseen points        {moons.entropy + gap:.3f} nats: {gap:.3f} from the best possible"
)
print(
    f"the best stack with the same mask always  {unmixed:.3f} nats, at any depth: "
    f"not mixing costs {unmixed - moons.entropy:.2f} nats"
)
print(f"mass of your density                      {mass:.5f}")
print(
    f"highest density: moons {highest:.2f}, yours {learned.max():.2f}, NICE unscaled {1 / (2 * math.pi):.2f}"
)
if learned.max() > 1.1 * highest:
    print("Your flow overshoots at a few places: these hold little mass, so the likelihood hardly minds.")

cloud = moons.sample(600, seed=4)
upper = torch.cdist(cloud, curve).amin(-1) < torch.cdist(cloud, -curve).amin(-1)


def draw_flow(scene, step):
    f = check.yours("coupling.affine_coupling", otherwise=reference_coupling)
    x, lines = cloud, grid_lines * 2 / 3
    for mask, net in trained[:step]:
        x, lines = f(x, mask, net), f(lines, mask, net)
    data, noise = scene.panel(0, of=2), scene.panel(1, of=2)
    data.axes(
        x=moons.extent[:2], y=(-2.5, 2.5), xlabel="x₁", ylabel="x₂", title="density learned", equal=True
    )
    data.image(learned, extent=box[:2] * 2)
    noise.axes(
        x=(-4, 4),
        y=(-4, 4),
        xlabel="first dimension",
        ylabel="second",
        title=f"after {step} of 8 layers",
        equal=True,
    )
    noise.lines(lines, colour=plots.GREY, alpha=0.4)
    noise.points(x[upper], colour=plots.BLUE, size=4, label="upper moon")
    noise.points(x[~upper], colour=plots.ORANGE, size=5, marker="cross", label="lower moon")
    radius = x.norm(dim=-1)
    return (
        f"After {step} of 8 layers, {(radius < 1.177).double().mean():.0%} of the points lie within 1.18 of zero; "
        "for standard normal noise it is half."
    )


play(draw_flow, step=slider(0, 8, 4, label="layers applied"))

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "288b83923a2038bd375744b333672288", "grade": false, "grade_id": "straight_conditioners_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 7: twenty straight layers
#
# difficulty 3 of 5 · importance 4 of 5 · 5 minutes · 2 points
#
# Mira stacks twenty couplings whose masks alternate, and to save time makes every conditioner as simple as she can: $t(x_A) = W x_A + b$ is linear, and $s$ is a constant vector. On the two moons her likelihood is that of a single Gaussian. In two to four sentences: why can more layers not help her? Name one smallest change to a conditioner that would let her leave the Gaussians.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "4cbb45c4ffc7ba4e86ce4f5abfc02219", "grade": true, "grade_id": "straight_conditioners", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# YOUR ANSWER HERE

# %% [markdown]
# ## What you have seen
#
# - Keep $x_A$, move $x_B$ by numbers computed from $x_A$. Going back, $x_A$ is there, so $s$ and $t$ need no inverse.
# - $J$ is triangular: $\log\lvert\det J\rvert$ is the sum of $s$ over the moving dimensions, and no derivative of a network is asked for.
# - Without mixing you would stay at 1.705 nats, where the entropy is 1.417 and eight alternating layers come near it.
# - NICE keeps volume, so only its scaling layer can change how high a density gets.
# - Masks or permutations mix. From four dimensions on, three alternating layers let every output depend on every input; without mixing, any depth is one layer.
# - A bug in the masks' parity breaks no law. Ask also which dimensions move.
#
# So a network takes part by *choosing the numbers* of a map that is invertible whatever they are. The affine map of one coupling is stiff, though: given $x_A$, it can only shift and stretch. What else could stand in its place, at the same price?
#
# **The words of this lesson**
#
# | English | 한국어 | Polski | 中文 | What it means |
# | :-- | :-- | :-- | :-- | :-- |
# | coupling layer | 결합 층 | warstwa sprzęgająca | 耦合层 | A bijection that keeps some dimensions and transforms the others elementwise, with parameters computed from the kept ones. |
# | affine coupling | 아핀 결합 | sprzężenie afiniczne | 仿射耦合 | A coupling that scales by exp(s) and shifts by t what moves, where s and t are computed from what is kept. |
# | additive coupling | 가법 결합 | sprzężenie addytywne | 加性耦合 | A coupling that only shifts what moves, so that its log-determinant is zero. |
# | conditioner | 조건화 네트워크 | sieć warunkująca | 条件网络 | The network that computes the parameters of a layer from the dimensions that the layer keeps; it needs no inverse. |
# | volume preserving | 부피 보존 | zachowujący objętość | 保体积 | Said of a map whose Jacobian determinant has absolute value one everywhere. |
#
# **Where it is used.** Couplings sample as fast as they evaluate, so they propose states in lattice field theory and molecular simulation, and stand in the invertible networks of inverse problems. Images take the same layers further.
#
# **Further reading.** Dinh, Krueger and Bengio, *NICE* (2014), section 3, is where the idea is first argued. Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP* (2017), equations 4 to 8, is this lesson in one page. Teshima and others, *Coupling-based invertible neural networks are universal diffeomorphism approximators* (2020), says what enough layers can do.
#
# **What it costs.** Below, $D$ is the number of dimensions and $H$ the width of the two hidden layers of a network. It reads $D/2$ numbers and gives $s$ and $t$ of the other $D/2$: that is $\tfrac{1}{2}DH + H^2 + DH$ multiplications. Both directions run it once; the log-determinant only adds up $s$.

# %% tags=["show", "hide-input"]
from flowkit.lab import costs

costs.show(topic="coupling", seed=0)
