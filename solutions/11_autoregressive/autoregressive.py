# %% [markdown]
# # Autoregressive flows
#
# Lesson 11 · 120 minutes · 20 points · first: [Change of variables](../02_change_of_variables/change_of_variables.ipynb) and [Coupling flows](../08_coupling/coupling.ipynb)
#
# In the picture below, one layer with one small network has learned the same banana twice. In the middle it is nearly perfect. On the right it misses by a third of a nat, and no training will mend it. The two differ in one thing: which variable comes first.
#
# **Take one variable at a time, each given those before it. What do you gain, what do you pay, and does the order matter?**
#
# You will be able to
#
# - turn a product of conditionals into a flow, and derive its log-determinant;
# - build the masks of MADE, and find a leaking one by its Jacobian;
# - write a MAF in both directions, and an IAF that samples in one pass;
# - measure how both costs grow with the dimension;
# - say what a wrong order costs, and fit a density to within 0.02 nats of the best possible.

# %% nbgrader={"cell_type": "code", "checksum": "ec50e8cc8934cfcd83ece5e5a2876656", "grade": false, "grade_id": "code_1", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from autograder import check
from flowkit.lab import plots
from flowkit.lab.nets import apply_masked, masked_weights
from flowkit.lab.widgets import choice, play, predict, slider

torch.set_num_threads(1)  # the networks are small: sharing them out among cores costs more than it saves
LOG_2PI = math.log(2 * math.pi)


def normal_log_density(z):
    """log N(z; 0, 1), elementwise."""
    return -0.5 * (z.square() + LOG_2PI)


def conditioner(x, net):
    """(mu, s), each (..., D), in one pass of a masked network: x (..., D), net a list of (mask, W, b)."""
    mu, raw = apply_masked(net, x).unflatten(-1, (2, -1)).unbind(-2)
    return mu, 2 * torch.tanh(raw / 2)  # s stays between -2 and 2


def hidden_degrees(D, width):
    """A degree from 1 to D - 1 for each of `width` hidden units, by turns. (width,) int64."""
    return 1 + torch.arange(width) % max(D - 1, 1)


def trainable(nets):
    """A copy of the networks, with weights that ask for gradients."""
    return [
        [(mask, *(w.detach().clone().requires_grad_() for w in weights)) for mask, *weights in net]
        for net in nets
    ]


def weights(nets):
    """All weights of the networks, in one list."""
    return [w for net in nets for _, *pair in net for w in pair]


def detached(nets):
    """The networks with plain tensors for weights."""
    return [[(mask, W.detach(), b.detach()) for mask, W, b in net] for net in nets]


# %% tags=["show", "hide-input"]
from flowkit import Flow, StandardNormal
from flowkit import autoregressive as library
from flowkit.lab import targets, training

banana = targets.maf_figure_1()
WIDE = (-8.0, 40.0, -14.0, 14.0)  # holds all of the banana's mass, its long tails too


def nats_lost(log_prob, n=500):
    """What a model loses on the banana: the integral of p (log p - log q), by quadrature, without noise."""
    points, area = targets.grid(WIDE, n, torch.float64)
    log_p = banana.log_prob(points)
    with torch.no_grad():
        log_q = log_prob(points.float()).double()
    return ((log_p.exp() * (log_p - log_q)).sum() * area).item()


learned = {}
for order in ([1, 0], [0, 1]):
    torch.manual_seed(0)
    flow = Flow(StandardNormal(2), library.MAF(2, (32,), order))
    training.fit(flow, banana, steps=600, lr=1e-2, progress=False)
    learned[order[0]] = flow

fig, axes = plots.figure(columns=3, sharey=True)
window = (-4.0, 12.0, -7.0, 7.0)
points = banana.sample(2000, seed=1)
axes[0].plot(*points.T, ".", markersize=2, color=plots.BLUE)
axes[0].set(title="2,000 points", xlim=window[:2], ylim=window[2:], aspect="equal", ylabel="x₂")
for ax, first in zip(axes[1:], (1, 0), strict=True):
    flow = learned[first]
    plots.density(ax, flow.log_prob, window)
    ax.set(title=f"x{'₁₂'[first]} first: {nats_lost(flow.log_prob):.2f} nats lost")
for ax in axes:
    ax.set(xlabel="x₁")
plots.show(
    fig,
    alt="Left: points in the shape of a sideways banana, its bend at the left. Middle: a learned density of the same shape, with x₂ first. Right: with x₁ first the learned density is a blurred wedge with no hollow between its arms.",
)


# %% [markdown]
# ## 1. One variable at a time
#
# For every density and every order of its variables, the chain rule of probability holds:
#
# $$p(x) = \prod_{i=1}^{D} p(x_i \mid x_{<i}),$$
#
# where $x_{<i}$ are the variables that come before $x_i$. As a *Bayesian network*, a graph with an arrow to each variable from those it is conditioned on, it has every arrow that points forward. Nothing has been assumed yet.
#
# An *autoregressive model* gives each conditional a form. The simplest is Gaussian: $x_i$ given $x_{<i}$ has a mean $\mu_i(x_{<i})$ and a standard deviation $e^{s_i(x_{<i})}$. Such a model *is* a flow. Standardize each variable by its own conditional,
#
# $$z_i = \bigl(x_i - \mu_i(x_{<i})\bigr)\, e^{-s_i(x_{<i})},$$
#
# and given $x_{<i}$, $z_i$ is $\mathcal N(0, 1)$ whatever $x_{<i}$ is. So it is independent of the $z$ before it, and $z$ is standard normal. Since $z_i$ reads no variable after $x_i$, the Jacobian $J = dz/dx$ is lower triangular in this order.
#
# Texts that start from the noise write $x_i = z_i\,e^{s_i} + \mu_i$. That is our inverse, and its log-determinant has the opposite sign. The MAF paper calls our $s$ its $\alpha$.
#
# **A worked example**, with three conditionals written by hand: their product and the change of variables must give one number.

# %% tags=["show"]
def three_conditionals(x):
    """mu and s of x1 ~ N(0, 1), x2 given x1 ~ N(x1^2, 1/4), x3 given both ~ N(sin x1 + x2/2, exp(x2))."""
    x1, x2, _ = x
    zero = torch.zeros_like(x1)
    return torch.stack([zero, x1**2, x1.sin() + x2 / 2]), torch.stack([zero, zero - math.log(2), x2 / 2])


def standardized(x):
    mu, s = three_conditionals(x)
    return (x - mu) * torch.exp(-s)


point = torch.tensor([0.8, 0.3, -1.2], dtype=torch.float64)
mu, s = three_conditionals(point)
product = torch.distributions.Normal(mu, s.exp()).log_prob(point).sum()
J = torch.func.jacrev(standardized)(point)
changed = normal_log_density(standardized(point)).sum() + torch.linalg.slogdet(J).logabsdet
print(f"log of the product of conditionals  {product:.6f}")
print(f"change of variables, brute force    {changed:.6f}")

fig, ax = plots.figure(width=3.6, height=2.8)
plots.matrix(ax, J)
ax.set_xticks(range(3), "123")
ax.set_yticks(range(3), "123")
ax.set(xlabel="j: derivative by x_j", ylabel="i: of z_i", title="J at one point")
plots.show(
    fig,
    alt="A 3 by 3 matrix, lower triangular: above the diagonal all entries are zero. Its diagonal is 1, 2 and 0.86.",
)


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "35f313c09bfceb9cef1dc405f259ca0f", "grade": false, "grade_id": "autoregressive_log_prob_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 1: the price of a product
#
# difficulty 1 of 5 · importance 5 of 5 · 8 minutes · 2 points
#
# Which of $\mu_i$ and $s_i$ is in the diagonal above? Derive $\log\lvert\det J\rvert$, then type the log-density of $x$ as `autoregressive_log_prob(x, mu, s)`, in $O(D)$, without building $J$.
#
# The functions have run already: `x`, `mu` and `s` all have shape `(..., D)`, and the result has shape `(...)`, one number a point, also where $s$ is large, and lets gradients through. You may use `normal_log_density`, which is elementwise.
#
# The public test knows $\mu$ and $s$ at one point only. It makes up their derivatives at random, and takes the determinant of the whole matrix. When you are right, the interactive below draws *your* density. Move the slice: each one is a Gaussian, and the whole is none.
#
# <details><summary>"It is right where s is zero, and wrong elsewhere"</summary>
#
# $J$ is $dz/dx$. Does $z_i$ stretch or shrink the line of $x_i$ when $s_i$ is positive?
#
# </details>
# <details><summary>A template</summary>
#
# `z = ____`, then `return (normal_log_density(z) + ____).sum(-1)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "45e65699a94d2a87be112a7f40a98ecd", "grade": false, "grade_id": "autoregressive_log_prob", "locked": false, "schema_version": 3, "solution": true, "task": false}
def autoregressive_log_prob(x, mu, s):
    """log p(x), where x_i given x_<i is N(mu_i, exp(2 s_i)). x, mu, s: (..., D) -> (...).

    >>> autoregressive_log_prob(torch.zeros(5, 2), torch.zeros(5, 2), torch.zeros(5, 2)).shape
    torch.Size([5])
    """
    z = (x - mu) * torch.exp(-s)
    return (normal_log_density(z) - s).sum(-1)  # a triangular J: the product of the exp(-s_i)


# %% nbgrader={"cell_type": "code", "checksum": "def87c79f0475e2dad73f2afb3b4db83", "grade": true, "grade_id": "autoregressive_log_prob_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check autoregressive_log_prob: 1 point.
import math

import torch
from autograder import check


def brute_force(x, mu, s):
    """The slow specification: mu and s get random slopes in the variables before, and autograd the whole J."""
    D = x.shape[-1]
    generator = torch.Generator().manual_seed(1)
    slopes = torch.randn(2, D, D, generator=generator, dtype=x.dtype).tril(-1)

    def one(x, mu, s):
        def f(y):
            return (y - mu - slopes[0] @ (y - x)) * torch.exp(-s - slopes[1] @ (y - x))

        log_noise = -0.5 * (f(x).square() + math.log(2 * math.pi)).sum()
        return log_noise + torch.linalg.slogdet(torch.func.jacrev(f)(x)).logabsdet

    points = zip(x.reshape(-1, D), mu.reshape(-1, D), s.reshape(-1, D), strict=True)
    return torch.stack([one(*point) for point in points]).reshape(x.shape[:-1])


# First by hand: x = 3 where the conditional is N(1, 4), so that z = 1.
by_hand = [torch.tensor([[number]], dtype=torch.float64) for number in (3.0, 1.0, math.log(2))]
generator = torch.Generator().manual_seed(0)
batch = torch.randn(3, 2, 2, 5, generator=generator, dtype=torch.float64)
cases = [tuple(by_hand), tuple(batch[:, 0]), tuple(batch), tuple(batch[:, 0, 0])]
cases += [(batch[0, 0], batch[1, 0], batch[2, 0] + 8), (batch[0, 0], batch[1, 0], 0.1 * batch[2, 0] - 2)]
wide = torch.zeros(
    1, 64, dtype=torch.float64
)  # large scales: the product of the exp(-s) is no longer a number
cases += [(wide, wide, wide + 30), (wide, wide, wide - 30)]
cases.append((wide, wide, (wide + 1).requires_grad_()))  # in training, gradients go back to s
check.values("autoregressive.autoregressive_log_prob", cases, brute_force)


# %% nbgrader={"cell_type": "code", "checksum": "d7e93c06df4d8d2cd3fe9f6cd543f997", "grade": true, "grade_id": "autoregressive_log_prob_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 1 point.

# %% tags=["show", "hide-input"]
def reference_log_prob(x, mu, s):
    return torch.distributions.Normal(mu, s.exp()).log_prob(x).sum(-1)


pixels = targets.grid((-6, 6, -3, 3), 120)[0]
across = torch.linspace(-6, 6, 241)


def bent(x, bend, spread):
    """mu and s with x2 first: x2 ~ N(0, 1), x1 given x2 ~ N(bend (x2^2 - 1), exp(2 spread x2))."""
    x2 = x[..., 1]
    mu = torch.stack([bend * (x2.square() - 1), torch.zeros_like(x2)], -1)
    return mu, torch.stack([spread * x2, torch.zeros_like(x2)], -1)


def draw_slices(scene, bend, spread, at):
    log_prob = check.yours("autoregressive.autoregressive_log_prob", otherwise=reference_log_prob)
    density = log_prob(pixels, *bent(pixels, bend, spread)).exp()
    line = torch.stack([across, torch.full_like(across, at)], -1)
    slice_ = log_prob(line, *bent(line, bend, spread)).exp() / math.exp(-0.5 * (at**2 + LOG_2PI))
    mean, deviation = bend * (at**2 - 1), math.exp(spread * at)
    whole, cut = scene.panel(0, of=2), scene.panel(1, of=2)
    whole.axes(x=(-6, 6), y=(-3, 3), xlabel="x₁", ylabel="x₂", title="density of x")
    whole.image(density, extent=(-6, 6, -3, 3))
    whole.curve(line, colour=plots.ORANGE, dash="dashed", label="slice")
    cut.axes(x=(-6, 6), y=(0, 1.4), xlabel="x₁", ylabel="density", title="the slice, divided by p(x₂)")
    cut.curve(across, slice_, colour=plots.ORANGE, label="x₁ given x₂")
    return (
        f"Given x₂ = {at:.1f}, x₁ has mean {mean:.2f} and standard deviation {deviation:.2f}. "
        f"The highest density in the window is {density.max():.2f}."
    )


play(
    draw_slices,
    bend=slider(-1.5, 1.5, 1.0, step=0.1, label="bend of the mean"),
    spread=slider(-0.6, 0.6, 0.3, step=0.1, label="growth of the spread"),
    at=slider(-2, 2, -1.2, step=0.1, label="x₂ of the slice"),
)


# %% [markdown]
# ## 2. MADE: all conditionals in one pass
#
# $D$ networks, one for each conditional, would do. *MADE* makes do with one, and one pass of it: *masks* set some of its weights to zero, so that the outputs for $x_i$ read $x_{<i}$ only.
#
# Give each unit a *degree*: how many of the first variables it may know. The input in place $k$ of the order has degree $k$. Each hidden unit gets any degree from $1$ to $D - 1$. Then
#
# - a hidden unit reads the units that know no more than itself, $m_{\text{before}} \le m_{\text{after}}$;
# - the output for the variable in place $k$ has degree $k$ too, and reads *smaller* degrees only, $m_{\text{before}} < k$.
#
# Along a path the degree never falls, and at its end it rises. So a path leads from $x_j$ to the output of $x_i$ only if $j$ stands before $i$. The product of the masks counts the paths, and where it is zero, so is the Jacobian.
#
# In code, dimensions are counted from 0, and `order` is a list: `order[0]` is the dimension that comes first. `order = [2, 0, 1]` means $x_3$, then $x_1$ given $x_3$, then $x_2$ given both. A mask has the shape of its weights, `(after, before)`, True where a weight counts.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "92abec88dbec8e9ce1f3501914d5c722", "grade": false, "grade_id": "made_masks_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 2: the masks of MADE
#
# difficulty 3 of 5 · importance 5 of 5 · 15 minutes · 4 points
#
# Write `made_masks(order, hidden)`: a list of boolean tensors, one for each layer of weights. `hidden` lists the widths of the hidden layers, so there is one mask more than that: `made_masks([2, 0, 1], [4, 5])` has shapes `(4, 3)`, `(5, 4)`, `(3, 5)`. The last has one row for each dimension, which $\mu_i$ and $s_i$ share: `masked_weights(masks, size=2)` repeats it for both. With `hidden = []` there is one mask, `(D, D)`.
#
# Inputs and outputs stay where they are, column $j$ and row $i$ for dimensions $j$ and $i$: the order only gives them degrees. For hidden units `hidden_degrees(D, width)` from the first cell gives them; your own are welcome, since only the Jacobian of a network with your masks is judged. No output may read what does not come before it, and where all widths are at least $D - 1$, each output must be able to read all that comes before it.
#
# <details><summary>"[0, 1, 2] is right and [2, 0, 1] is not"</summary>
#
# `order[k]` is the dimension in place `k`. A column needs the opposite: the place of its dimension.
#
# </details>
# <details><summary>"An output reads its own variable, or misses the one just before it"</summary>
#
# Two comparisons occur, one strict and one not. Which layers have which?
#
# </details>
# <details><summary>A template</summary>
#
# `place = torch.empty(D, dtype=torch.long)`, then `place[torch.tensor(order)] = ____`; `degrees = [place] + [____ for width in hidden]`; in a loop over neighbours `____[:, None] >= ____`; at the end `place[:, None] > ____`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "a8b7ee1c6cd501182a1ccad8aa2cfaf7", "grade": false, "grade_id": "made_masks", "locked": false, "schema_version": 3, "solution": true, "task": false}
def made_masks(order, hidden):
    """The masks of MADE: a list of (after, before) bool, True where a weight counts.

    order: list of the D dimensions, the first one first. hidden: list of widths.

    >>> [tuple(mask.shape) for mask in made_masks([2, 0, 1], [4, 5])]
    [(4, 3), (5, 4), (3, 5)]
    """
    D = len(order)
    place = torch.empty(D, dtype=torch.long)
    place[torch.tensor(order)] = torch.arange(1, D + 1)
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


# %% nbgrader={"cell_type": "code", "checksum": "bce2159c25704409df0164195685f318", "grade": true, "grade_id": "made_masks_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check made_masks: 1 point.
import torch
from autograder import check


def zero_pattern(masks):
    """Where the Jacobian of a network with these masks is not zero. All is positive, so no ReLU is shut."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(mask.shape, generator=generator, dtype=torch.float64) + 0.5 for mask in masks]

    def network(x):
        for mask, W in zip(masks[:-1], weights, strict=False):
            x = torch.relu((W * mask) @ x + 1)
        return (weights[-1] * masks[-1]) @ x

    return torch.func.jacrev(network)(torch.ones(masks[0].shape[1], dtype=torch.float64)) != 0


def judge(masks, order, hidden):
    sizes = [len(order), *hidden, len(order)]
    shapes = [tuple(mask.shape) for mask in masks]
    wanted = list(zip(sizes[1:], sizes[:-1], strict=True))
    if shapes != wanted:
        return f"For hidden = {hidden} your masks have shapes {shapes}: they should be {wanted}, (after, before)."
    if any(mask.dtype != torch.bool for mask in masks):
        return f"Your masks are of dtype {masks[0].dtype}: make them boolean."
    reads = zero_pattern(masks)
    for i in range(len(order)):
        for j in range(len(order)):
            may = order.index(j) < order.index(i)
            if reads[i, j] and not may:
                return f"In the order {order}, the output of dimension {i} reads dimension {j}. Does {j} come before {i}?"
            if may and not reads[i, j] and all(width >= len(order) - 1 for width in hidden):
                return f"In the order {order}, no path leads from dimension {j} to the output of dimension {i}, and {j} comes before {i}. Where is it cut?"
    if len(order) > 1 and not reads.any():
        return f"With hidden = {hidden}, no output reads anything."


cases = [([0, 1, 2], [4, 5]), ([2, 0, 1], [4, 5]), ([1, 3, 0, 2], [3]), ([3, 2, 1, 0], [6, 7, 5])]
cases += [([2, 0, 1], []), ([0], [2]), ([4, 1, 0, 2, 3], [2, 1])]
check.that("autoregressive.made_masks", judge, cases)

# %% nbgrader={"cell_type": "code", "checksum": "ed630c98005c5389441d3c1ac57b230d", "grade": true, "grade_id": "made_masks_hidden", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 3 points.

# %% tags=["show", "hide-input"]
from flowkit.made import made_masks as reference_masks
from IPython.display import display


ORDERS = {"x₁, x₂, x₃, x₄": [0, 1, 2, 3], "x₄, x₃, x₂, x₁": [3, 2, 1, 0], "x₃, x₁, x₄, x₂": [2, 0, 3, 1]}
NAMES = [f"x{digit}" for digit in "₁₂₃₄"]
PARAMETERS = [f"μ{digit}, s{digit}" for digit in "₁₂₃₄"]


def heights(n):
    """The heights of n units in a column, the first at the top."""
    return [4.5 - 4 * (k + 0.5) / n for k in range(n)]


def draw_masks(scene, order, width, output):
    masks = check.yours("autoregressive.made_masks", otherwise=reference_masks)(order, [width, width])
    reads = [torch.eye(4)]
    for mask in masks:
        reads.append((mask.float() @ reads[-1] > 0).float())
    serves = [torch.arange(4) == output - 1]  # which units of a layer have a path to the output chosen
    for mask in masks[::-1]:
        serves.insert(0, mask[serves[0]].any(0))
    columns = [heights(4), heights(width), heights(width), heights(4)]
    place = torch.tensor([order.index(i) + 1 for i in range(4)])
    degrees = [
        place,
        *(known.sum(-1).long() for known in reads[1:3]),
        place,
    ]  # of how many inputs a unit knows
    thin, thick = [], []
    for k, mask in enumerate(masks):
        for after, before in mask.nonzero().tolist():
            on_path = serves[k + 1][after] and serves[k][before] and reads[k][before].any()
            (thick if on_path else thin).append([(k, columns[k][before]), (k + 1, columns[k + 1][after])])
    graph, matrix = scene.panel(0, of=2), scene.panel(1, of=2)
    graph.axes(x=(-0.9, 4.2), y=(0.2, 4.8), title="degrees, and the weights that are kept", frame=False)
    graph.lines(thin, colour=plots.GREY, alpha=0.35)
    graph.lines(thick, colour=plots.BLUE, width=2.5)
    for k, column in enumerate(columns):
        graph.points([(k, y) for y in column], colour=plots.BLACK, size=16)
        for y, degree in zip(column, degrees[k].tolist(), strict=True):
            graph.text(k, y, str(degree), colour="white", size=11)
    for i, y in enumerate(columns[0]):
        graph.text(-0.3, y, NAMES[i], align="right")
        chosen = plots.BLUE if i == output - 1 else plots.BLACK
        graph.text(3.3, y, PARAMETERS[i], colour=chosen, align="left")
    matrix.axes(x=(-0.6, 4.6), y=(0.2, 5.2), title="which output (row) reads which input", frame=False)
    for i in range(4):
        matrix.text(0.42, 4 - i, PARAMETERS[i], align="right")
        matrix.text(i + 1, 4.75, NAMES[i])
    for i, j in torch.cartesian_prod(torch.arange(4), torch.arange(4)).tolist():
        x, y = j + 1, 4 - i
        cell = [(x - 0.46, y - 0.46), (x + 0.46, y - 0.46), (x + 0.46, y + 0.46), (x - 0.46, y + 0.46)]
        if reads[-1][i, j]:
            matrix.polygon(cell, colour=plots.BLUE, alpha=0.15, width=0)
            matrix.text(x, y, "reads", colour=plots.BLUE)
        else:
            matrix.polygon(cell, colour=plots.GREY, alpha=0.1, width=0, hatch=True)
    heard = [NAMES[j] for j in range(4) if reads[-1][output - 1, j]]
    return f"The parameters of {NAMES[output - 1]} read {', '.join(heard) or 'nothing: they are constants'}."


display(
    play(
        draw_masks,
        order=choice(ORDERS, label="order"),
        width=slider(1, 8, 6, label="units in each hidden layer"),
        output=slider(1, 4, 4, label="output"),
    )
)
predict(
    "In the last mask somebody writes >= for >, so that every output but the last in the order reads its own variable too, and trains on the banana with the formula of exercise 1. What does the training report?",
    [
        "An error: the Jacobian is not triangular",
        "A worse likelihood: the flow has become less flexible",
        "A better likelihood than is possible",
    ],
)

# %% tags=["show"]
first, last = reference_masks([1, 0], [32])
place = torch.tensor([2, 1])  # x2 comes first: all hidden units know it, and now its own output reads them
leaking = [first, place[:, None] >= hidden_degrees(2, 32)]


class Claimed:
    """A network and the log-density that the formula claims for it."""

    def __init__(self, masks):
        (self.net,) = trainable([masked_weights(masks, size=2)])

    def parameters(self):
        return iter(weights([self.net]))

    def log_prob(self, x):
        return reference_log_prob(x, *conditioner(x, self.net))


print(f"entropy of the banana, below which no model can get: {banana.entropy:.3f} nats")
for name, masks in {"right masks": [first, last], "one comparison wrong": leaking}.items():
    model = Claimed(masks)
    training.fit(model, banana, steps=500, lr=1e-2, progress=False)
    claimed = -training.mean_log_prob(model, banana.sample(20_000, seed=5))
    print(f"{name:21} claims {claimed:6.3f} nats; mass {targets.integral(model.log_prob, banana.extent):.2f}")


# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "8ca2a48e9018102377b10735c2b59706", "grade": false, "grade_id": "find_leaks_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 3: the leaking mask
#
# difficulty 3 of 5 · importance 4 of 5 · 12 minutes · 3 points
#
# A *leak* looks like a triumph: the mean of $-\log p$ falls below the entropy, where only a bug can get. The mean read off its own variable removes it, $z_i$ is close to zero at no charge, and the "density" has far more mass than one. The Jacobian of the *conditioner* tells.
#
# `find_leaks(jacobians, order)` gets `jacobians` `(N, D, D)`, where `jacobians[n, i, j]` is $\partial\mu_i/\partial x_j$ at point $n$, by automatic differentiation, and the `order` that was promised. ($s$ shares the masks: $\mu$ convicts for both.) It returns a boolean tensor `(D, D)`: True at `[i, j]` if $\mu_i$ reads $x_j$ and $j$ does not come before $i$. A variable does not come before itself.
#
# A masked weight contributes exactly zero, so any other number is a leak, however small. And a ReLU that is shut at one point hides its paths there: look at all points.
#
# <details><summary>"A leak of the own variable is not found"</summary>
#
# What is on the diagonal? `triu(1)` starts above it.
#
# </details>
# <details><summary>"A right network in another order is accused"</summary>
#
# Which entries are allowed depends on the places of $i$ and $j$ in the order, not on $i$ and $j$.
#
# </details>
# <details><summary>A template</summary>
#
# `reads = (jacobians ____ 0).____(0)`, then `place = ____`, and `return reads & (place[:, None] ____ place)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "fbfecf08d719409fb364d7b2dbe838e3", "grade": false, "grade_id": "find_leaks", "locked": false, "schema_version": 3, "solution": true, "task": false}
def find_leaks(jacobians, order):
    """Which outputs read what they must not: (D, D) bool, rows are outputs. jacobians: (N, D, D)."""
    reads = (jacobians != 0).any(0)
    place = torch.argsort(torch.tensor(order))
    return reads & (place[:, None] <= place)


# %% nbgrader={"cell_type": "code", "checksum": "c5ecab810fb93ac7859bc39feadb7460", "grade": true, "grade_id": "find_leaks_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check find_leaks: 1 point.
import torch
from autograder import check
from flowkit import made
from flowkit.lab.nets import apply_masked, masked_weights


def jacobians_of(masks, points=6, bias=0.0):
    net = masked_weights(masks, seed=3, zero_last=False, dtype=torch.float64)
    net = [(mask, W, b + bias) for mask, W, b in net]
    x = torch.randn(points, masks[0].shape[1], generator=torch.Generator().manual_seed(1)).double()
    return torch.func.vmap(torch.func.jacrev(lambda x: apply_masked(net, x)))(x)


order = [2, 0, 3, 1]
right = made.made_masks(order, [8, 8])
place = torch.tensor([2, 4, 1, 3])
own = [*right[:2], place[:, None] >= 1 + torch.arange(8) * 3 // 8]
first = [torch.ones_like(right[0]), *right[1:]]
J = jacobians_of(right, bias=2.0)
tiny, signs = J.clone(), J.clone()
tiny[4, 2, 1] = 1e-12
signs[:2, 0, 3] = torch.tensor([-0.5, 0.5])
suspects = {
    "a network with the right masks": (J, order),
    "the last mask with >= for >": (jacobians_of(own, bias=2.0), order),
    "a first layer without a mask": (jacobians_of(first, bias=2.0), order),
    "the right masks, at points where some units are shut": (jacobians_of(right), order),
    "the right masks of another order": (
        jacobians_of(made.made_masks([0, 1, 2, 3], [8, 8]), bias=2.0),
        order,
    ),
    "one entry of 1e-12, at one point": (tiny, order),
    "one entry with slopes -0.5 and 0.5": (signs, order),
    "one entry of -2, at the last point": (
        -2 * (torch.arange(3)[:, None, None] == 2) * torch.eye(3, dtype=J.dtype).roll(1, 1),
        [0, 1, 2],
    ),
    "a single dimension, which reads itself": (torch.full((2, 1, 1), -0.5, dtype=J.dtype), [0]),
}


def by_hand(suspect, jacobians, order):
    D = len(order)
    leaks = torch.zeros(D, D, dtype=torch.bool)
    for i in range(D):
        for j in range(D):
            forbidden = order.index(j) >= order.index(i)
            leaks[i, j] = forbidden and any(J[i, j] != 0 for J in jacobians)
    return leaks


def ask(find_leaks, suspect, jacobians, order):
    """The suspect's name is for the message: your function gets the evidence alone."""
    return find_leaks(jacobians, order)


cases = [(suspect, *given) for suspect, given in suspects.items()]
check.values("autoregressive.find_leaks", cases, by_hand, use=ask)


# %% nbgrader={"cell_type": "code", "checksum": "5ecf6be15219bc00f16e45181339506f", "grade": true, "grade_id": "find_leaks_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% [markdown]
# ## 3. MAF: there in one pass, back in D
#
# Put MADE into the formula of section 1 and you have one layer of a *masked autoregressive flow*, MAF. Forward it is cheap: all of $x$ is there, one pass of the network gives all $\mu_i$ and $s_i$.
#
# The way back is another matter. $x_i = z_i\,e^{s_i} + \mu_i$, where $\mu_i$ and $s_i$ read $x_{<i}$, which are not there yet. The first variable in the order reads nothing: one pass gives its parameters, so it can be computed. With it known, a second pass gives the parameters of the second. After $k$ passes the first $k$ variables are right, whatever stands in the places of the others: the masks see to it that nobody looks there. So: $D$ passes.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "2c2866f3e1c15bd9226aff0ec7f8a5dd", "grade": false, "grade_id": "maf_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 4: there and back
#
# difficulty 3 of 5 · importance 5 of 5 · 15 minutes · 4 points
#
# Write `maf(x, net, order, inverse=False)`. It returns a pair: the points, `(..., D)`, and the log-determinant of the map that was applied, `(...)`. With `inverse=False` that is $z$ and $\log\lvert\det dz/dx\rvert$, and `order` is not needed. With `inverse=True` the first argument is $z$, and the pair is $x$ and $\log\lvert\det dx/dz\rvert$.
#
# `conditioner(x, net)` from the first cell gives the pair `(mu, s)`, both `(..., D)`. The masks in `net` belong to `order`, a list. Leave the tensor that comes in as it is.
#
# <details><summary>"It is right for [0, 1, 2] and wrong for other orders"</summary>
#
# Which variable reads nothing? The loop over dimensions has to begin there.
#
# </details>
# <details><summary>"My round trip does not close, and both formulas are right"</summary>
#
# What does the conditioner read on the way there? On the way back, does it get the $x$ found so far, or $z$?
#
# </details>
# <details><summary>"My first log-determinant is right and the second is not"</summary>
#
# The inverse map has the inverse Jacobian. What does that do to the logarithm of the determinant?
#
# </details>
# <details><summary>A template</summary>
#
# Back: `z, x = x, torch.zeros_like(x)`, then for each `i` in `____`: `mu, s = conditioner(____, net)` and `x[..., i] = ____`. After the loop, the `s` of the last pass are all right: why?
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "61eba83f7ea136be238fbd8594eb463c", "grade": false, "grade_id": "maf", "locked": false, "schema_version": 3, "solution": true, "task": false}
def maf(x, net, order, inverse=False):
    """One masked autoregressive flow, or its inverse, and the log-determinant. x: (..., D) -> (..., D), (...).

    >>> net = masked_weights([torch.tensor([[False, False], [True, False]])], size=2)  # order [0, 1], no hidden layer
    >>> [tuple(part.shape) for part in maf(torch.ones(5, 2), net, [0, 1])]
    [(5, 2), (5,)]
    """
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


# %% nbgrader={"cell_type": "code", "checksum": "32f21dbd9653e13dce75a1ba240b819c", "grade": true, "grade_id": "maf_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check maf: 1 point.
import torch
from autograder import check
from flowkit import made
from flowkit.lab.nets import apply_masked, masked_weights


def one_by_one(x, net, order, inverse):
    """The slow specification: each variable by itself, the way back by bisection, J by autograd."""

    def forward(x):
        mu, raw = apply_masked(net, x).unflatten(-1, (2, -1)).unbind(-2)
        return (x - mu) / torch.exp(2 * torch.tanh(raw / 2))

    def backward(z):
        x = torch.zeros_like(z)
        for i in order:
            low, high = x.clone(), x.clone()
            low[i], high[i] = -1e4, 1e4
            for _ in range(70):
                middle = (low + high) / 2
                low, high = (middle, high) if forward(middle)[i] < z[i] else (low, middle)
            x = middle
        return x

    rows = x.reshape(-1, x.shape[-1])
    results = torch.stack([backward(row) for row in rows]) if inverse else forward(rows)
    jacobians = torch.func.vmap(torch.func.jacrev(forward))(results if inverse else rows)
    log_det = torch.linalg.slogdet(jacobians).logabsdet * (-1 if inverse else 1)
    return results.reshape(x.shape), log_det.reshape(x.shape[:-1])


# First a net of one weight, to work out on paper: mu_2 = 2 x_1 and s_2 is such that tanh(raw / 2) = 1/2.
mask = torch.tensor([[False, False], [True, False]]).repeat(2, 1)
W = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
b = torch.tensor([0.0, 0.0, 0.0, 3.0], dtype=torch.float64).clamp(min=1).log()
point = torch.tensor([[1.0, 5.0]], dtype=torch.float64)
cases = [(point, [(mask, W, b)], [0, 1], False), (point, [(mask, W, b)], [0, 1], True)]

generator = torch.Generator().manual_seed(0)
for order in ([0, 1, 2], [2, 0, 1]):
    net = masked_weights(made.made_masks(order, [7]), 2, seed=1, zero_last=False, dtype=torch.float64)
    x = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    for some in (x[0], x, x[0, 0]):  # a batch, a batch of batches, a single point
        cases += [(some, net, order, False), (some, net, order, True)]
check.values("autoregressive.maf", cases, one_by_one, rtol=1e-5, atol=1e-7)


# %% nbgrader={"cell_type": "code", "checksum": "e10126152004bd599162d4688dfeeeee", "grade": true, "grade_id": "maf_hidden", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 3 points.

# %% tags=["show", "hide-input"]
def reference_maf(x, net, order, inverse=False):
    s = 0
    start = x
    for _ in order if inverse else [0]:
        mu, s = conditioner(x, net)
        x = start * s.exp() + mu if inverse else (start - mu) * (-s).exp()
    return x, s.sum(-1) if inverse else -s.sum(-1)


def hand_made(first, bend, spread):
    """A net for u, then v: mu_u = 0.7, s_u = 0.3; mu_v = bend (abs(u) - 1), and s_v rises with u by `spread`."""
    V = torch.zeros(4, 2)
    V[:, first] = torch.tensor([1.0, -1.0, 1.0, 1.0])
    c = torch.tensor([0.0, 0.0, 1.5, -1.5])
    rows = torch.zeros(2, 2, 4)
    rows[0, 1 - first] = bend * torch.tensor([1.0, 1.0, 0.0, 0.0])
    rows[1, 1 - first] = spread * torch.tensor([0.0, 0.0, 1 / 1.5, -1 / 1.5])
    d = torch.zeros(2, 2)
    d[:, 1 - first] = torch.tensor([-bend, -spread])
    d[:, first] = torch.tensor([0.7, 2 * math.atanh(0.3 / 2)])
    hidden, last = reference_masks([first, 1 - first], [4])
    return [(hidden, V, c), (last.repeat(2, 1), rows.flatten(0, 1), d.flatten())]


ticks, along = torch.linspace(-2.5, 2.5, 11), torch.linspace(-2.5, 2.5, 61)
net_lines = torch.cat([torch.stack(torch.meshgrid(ticks, along, indexing="ij"), -1)] * 2)
net_lines[11:] = net_lines[11:].flip(-1)


def draw_way_back(scene, order, bend, spread, across):
    f = check.yours("autoregressive.maf", otherwise=reference_maf)
    net = hand_made(order[0], bend, spread)
    z = torch.full((2,), 1.0)
    z[order[0]] = across
    x, log_det = f(z, net, order, inverse=True)
    half_way = torch.where(torch.arange(2) == order[0], x, z)
    noise, data = scene.panel(0, of=2), scene.panel(1, of=2)
    noise.axes(x=(-3, 3), y=(-3, 3), xlabel="z₁", ylabel="z₂", title="noise", equal=True)
    noise.lines(net_lines, colour=plots.GREY, alpha=0.7)
    noise.points(z[None], colour=plots.ORANGE, size=11)
    data.axes(x=(-7, 7), y=(-7, 7), xlabel="x₁", ylabel="x₂", title="data: the way back", equal=True)
    data.lines(f(net_lines, net, order, inverse=True)[0], colour=plots.BLUE)
    data.points(z[None], colour=plots.GREY, size=8, marker="square", label="z")
    data.points(x[None], colour=plots.ORANGE, size=11, label="x")
    data.arrow(*z.tolist(), *half_way.tolist(), colour=plots.GREY)
    data.arrow(*half_way.tolist(), *x.tolist(), colour=plots.ORANGE)
    one, two = (f"x{'₁₂'[i]}" for i in order)
    return (
        f"First pass: {one} = {x[order[0]]:.2f}, which read nothing. Second pass: {two} = {x[order[1]]:.2f}, "
        f"given {one}. The volume around z changes by a factor {log_det.exp():.2f}."
    )


play(
    draw_way_back,
    order=choice({"x₁ first": [0, 1], "x₂ first": [1, 0]}, label="order"),
    bend=slider(-1.5, 1.5, 1.0, step=0.1, label="bend of the mean"),
    spread=slider(-1, 1, 0.5, step=0.1, label="growth of the spread"),
    across=slider(-2, 2, 1.8, step=0.1, label="first variable of z"),
)


# %% [markdown]
# ## 4. IAF: the same layer, walked the other way
#
# What if the parameters read the *noise* instead? An *inverse autoregressive flow*, IAF, samples by $x_i = z_i\,e^{s_i(z_{<i})} + \mu_i(z_{<i})$. All of $z$ is there, so one pass draws a sample, and gives its density. For a point $x$ from elsewhere, $z$ must be found one variable at a time.
#
# | | $x_i =$ | sampling | density of a given $x$ |
# | --- | --- | --- | --- |
# | MAF | $z_i\,e^{s_i(x_{<i})} + \mu_i(x_{<i})$ | $D$ passes | one pass |
# | IAF | $z_i\,e^{s_i(z_{<i})} + \mu_i(z_{<i})$ | one pass | $D$ passes |
#
# These are one layer, walked in its two directions. Write the IAF's map from $z$ to $x$ as $x_i = (z_i - \mu_i')\,e^{-s_i'}$, with $s' = -s$ and $\mu' = -\mu\,e^{-s}$: it is a MAF's forward map, started from the noise. So *a MAF inverted is an IAF*. Who trains on data wants MAF. Who samples and needs the samples' densities, to fit a density known up to a constant, wants IAF.
#
# A coupling is a special case too. Its first group of variables is *copied*, so it is there from the start. The others read only that group: one pass, in both directions.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "201041d84dc20bda2afcdd9533854ac2", "grade": false, "grade_id": "iaf_sample_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 5: sample and score
#
# difficulty 2 of 5 · importance 4 of 5 · 8 minutes · 2 points
#
# Write `iaf_sample(z, net)`: for noise `z` of shape `(..., D)`, drawn from a standard normal density, it returns the pair of $x$, `(..., D)`, and $\log p_X(x)$, `(...)`, with a single call of `conditioner`.
#
# The change of variables asks for $\log\lvert\det dz/dx\rvert$, and you have the map from $z$ to $x$.
#
# <details><summary>"My samples are right and their log-densities are not"</summary>
#
# Where the map stretches, samples lie further apart. Is the density there higher or lower?
#
# </details>
# <details><summary>A template</summary>
#
# `mu, s = conditioner(____, net)`, then `return ____, (normal_log_density(____) ____ s).sum(-1)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "8a0edf5e1f30e32b0f766a5439149cfd", "grade": false, "grade_id": "iaf_sample", "locked": false, "schema_version": 3, "solution": true, "task": false}
def iaf_sample(z, net):
    """x and log p_X(x) of an inverse autoregressive flow, in one pass. z: (..., D) -> (..., D), (...)."""
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu, (normal_log_density(z) - s).sum(-1)


# %% nbgrader={"cell_type": "code", "checksum": "8f1ca9763bad5c2113009dbd5d228e4f", "grade": true, "grade_id": "iaf_sample_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check iaf_sample: 1 point.
import math

import torch
from autograder import check
from flowkit import made
from flowkit.lab.nets import apply_masked, masked_weights


def whole_jacobian(z, net):
    """The slow specification: the whole Jacobian dx/dz at each point, and its determinant."""

    def to_data(z):
        mu, raw = apply_masked(net, z).unflatten(-1, (2, -1)).unbind(-2)
        return mu + z * torch.exp(2 * torch.tanh(raw / 2))

    rows = z.reshape(-1, z.shape[-1])
    jacobians = torch.func.vmap(torch.func.jacrev(to_data))(rows)
    log_noise = -0.5 * (rows.square() + math.log(2 * math.pi)).sum(-1)
    log_prob = log_noise - torch.linalg.slogdet(jacobians).logabsdet
    return to_data(z), log_prob.reshape(z.shape[:-1])


net = masked_weights(made.made_masks([2, 0, 1], [7]), 2, seed=1, zero_last=False, dtype=torch.float64)
z = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
one = masked_weights(made.made_masks([0], []), 2, zero_last=False, dtype=torch.float64)
cases = [(z[0], net), (z, net), (z[0, 0], net), (6 * z[1], net), (z[0, :, :1], one)]
check.values("autoregressive.iaf_sample", cases, whole_jacobian)


# %% nbgrader={"cell_type": "code", "checksum": "441acd13e0df906965a74980fc9ec3d1", "grade": true, "grade_id": "iaf_sample_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 1 point.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "e0b14dc49d5722e18001009d27636563", "grade": false, "grade_id": "power_law_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 6: how fast a cost grows
#
# difficulty 2 of 5 · importance 3 of 5 · 8 minutes · 2 points
#
# Next you measure the time that passes take, against $D$. If it is $c\,D^k$, then $\log t = \log c + k \log D$: on logarithmic axes a straight line of slope $k$.
#
# Write `power_law(sizes, seconds)`, which returns $k$, one number: the slope of the least-squares line through the logarithms. `sizes` and `seconds` are lists of positive numbers of one length, at least two. With $u = \log D$, $v = \log t$ it is $\sum_n (u_n - \bar u)(v_n - \bar v) \big/ \sum_n (u_n - \bar u)^2$.
#
# <details><summary>"A perfect power law is right, and noisy timings are not"</summary>
#
# Do all points count, or only the first and the last? Does your line have to pass through the origin?
#
# </details>
# <details><summary>A template</summary>
#
# `u = torch.tensor(sizes, dtype=torch.float64).log()`, the same for `v`, then `u, v = u - ____, v - ____` and `return (____ / ____).item()`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "5481f412a5bf7c40c93e19d4771625ac", "grade": false, "grade_id": "power_law", "locked": false, "schema_version": 3, "solution": true, "task": false}
def power_law(sizes, seconds):
    """The exponent k of seconds = c * sizes^k, by least squares on the logarithms. Two lists -> float.

    >>> round(power_law([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    u = torch.tensor(sizes, dtype=torch.float64).log()
    v = torch.tensor(seconds, dtype=torch.float64).log()
    u, v = u - u.mean(), v - v.mean()
    return ((u * v).sum() / (u * u).sum()).item()


# %% nbgrader={"cell_type": "code", "checksum": "8bc7e6a99394101f6d7e038321e1e56f", "grade": true, "grade_id": "power_law_test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check power_law: 2 points.
import numpy as np
from autograder import check


def least_squares(sizes, seconds):
    """The slow specification: the slopes between all pairs of points, weighted by their distance squared."""
    u, v = np.log(sizes), np.log(seconds)
    pairs = [(u[m] - u[n], v[m] - v[n]) for n in range(len(u)) for m in range(n)]
    return sum(du * dv for du, dv in pairs) / sum(du * du for du, _ in pairs)


rng = np.random.default_rng(0)
cases = [([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]), ([4, 64], [2e-4, 2e-4]), ([3, 30, 300], [5.0, 0.5, 0.05])]
for k in (0.2, 1.0, 2.5):
    sizes = np.sort(rng.choice(np.arange(2, 500), size=7, replace=False))
    seconds = 1e-4 * sizes**k * np.exp(0.3 * rng.normal(size=7))
    cases.append((sizes.tolist(), seconds.tolist()))
check.values("autoregressive.power_law", cases, least_squares, hidden=False)


# %% tags=["show"]
def passes_until_still(net, z):
    """Passes of x <- z exp(s(x)) + mu(x) from x = z until nothing changes; unlike `maf`, all variables at once."""
    x, passes = z, 0
    while True:
        mu, s = conditioner(x, net)
        better = z * torch.exp(s) + mu
        if torch.allclose(better, x, rtol=0, atol=1e-12):
            return passes
        x, passes = better, passes + 1


def random_net(masks, seed=0):
    return masked_weights(masks, size=2, seed=seed, zero_last=False, dtype=torch.float64)


eight = list(range(8))
reads_first_half = torch.tensor([[True] * 4 + [False] * 4] * 16)
moves_second_half = torch.tensor([[False] * 16] * 4 + [[True] * 16] * 4)
hidden, last = random_net([reads_first_half, moves_second_half])
moved = moves_second_half[:, 0].repeat(2)
coupling = [hidden, (last[0], last[1], last[2] * moved)]  # and the first half stays: mu = s = 0
z = torch.randn(100, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
mafs = {"MAF": random_net(reference_masks(eight, [64])), "coupling, as a masked network": coupling}
for name, net in mafs.items():
    print(f"{name:30} passes back from the noise: {passes_until_still(net, z)}, D = 8")

iaf = mafs["MAF"]  # the same weights, now reading noise
mu, s = conditioner(z, iaf)
mu_of_maf, s_of_maf = -mu * torch.exp(-s), -s
as_a_maf = (z - mu_of_maf) * torch.exp(-s_of_maf)  # a MAF's forward map
gap = (as_a_maf - (z * torch.exp(s) + mu)).abs().max()
print(f"an IAF's samples against a MAF's forward map from the noise: largest difference {gap:.0e}")
predict(
    "Next: the time of sampling from a MAF by plain passes, over the time of its density, for D from 4 to 128. With which power of D does this ratio grow?",
    ["0: a computer does the passes in parallel", "1", "2: there are D passes, and each has D variables"],
)

# %% tags=["show"]
import time
from functools import partial

import numpy as np

SIZES = [4, 8, 16, 32, 64, 128]
BATCH = 64


def reference_iaf(z, net):
    mu, s = conditioner(z, net)
    return z * s.exp() + mu, (normal_log_density(z) - s).sum(-1)


back_and_forth = check.yours("autoregressive.maf", otherwise=reference_maf)
sample_and_score = check.yours("autoregressive.iaf_sample", otherwise=reference_iaf)
exponent = check.yours(
    "autoregressive.power_law",
    otherwise=lambda sizes, seconds: np.polyfit(np.log(sizes), np.log(seconds), 1)[0],
)


def seconds_of(job, least=0.06):
    """The processor's time for one call, in seconds: what else the machine does meanwhile is not counted."""
    job()
    calls, start = 0, time.process_time()
    while calls < 3 or time.process_time() - start < least:
        job()
        calls += 1
    return (time.process_time() - start) / calls


def iaf_density(x, net, order):
    """The noise behind given points, one variable at a time: what the density of an IAF needs."""
    z = torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(z, net)
        z[..., i] = (x[..., i] - mu[..., i]) * torch.exp(-s[..., i])
    return z, -s.sum(-1)


times = {name: [] for name in ("MAF, density", "MAF, sampling", "IAF, sampling", "IAF, density")}
for D in SIZES:
    order = list(range(D))
    net = masked_weights(reference_masks(order, [128]), size=2)
    points = torch.randn(BATCH, D, generator=torch.Generator().manual_seed(D))
    jobs = [
        (back_and_forth, (points, net, order)),
        (back_and_forth, (points, net, order, True)),
        (sample_and_score, (points, net)),
        (iaf_density, (points, net, order)),
    ]
    for name, (job, given) in zip(times, jobs, strict=True):
        times[name].append(seconds_of(partial(job, *given)))

fig, ax = plots.figure(height=3.6)
for (name, seconds), marker in zip(times.items(), "osx^", strict=True):
    ax.loglog(
        SIZES,
        [1e3 * t for t in seconds],
        marker=marker,
        label=f"{name}: slope {exponent(SIZES, seconds):.2f}",
    )
ax.set_xticks(SIZES, SIZES)
ax.minorticks_off()
ax.set(xlabel="D", ylabel=f"milliseconds for {BATCH} points")
ax.legend()
plots.show(
    fig,
    alt="Times on logarithmic axes. MAF's density and IAF's sampling lie low and rise slowly; MAF's sampling and IAF's density rise together, much steeper.",
)
for one, other in (("MAF, sampling", "MAF, density"), ("IAF, density", "IAF, sampling")):
    ratios = [slow / fast for slow, fast in zip(times[one], times[other], strict=True)]
    print(
        f"{one} / {other}: {', '.join(f'{r:.0f}' for r in ratios)} times; slope {exponent(SIZES, ratios):.2f}"
    )

# The trick: hidden units of degree m need the first m variables only, so each is computed once.
torch.manual_seed(0)
wide = library.MAF(64, (512, 512))
noise = torch.randn(256, 64)
as_net = [(layer.mask, layer.weight, layer.bias) for layer in wide.conditioner.layers]
as_net[-1] = tuple(torch.cat([part[0::2], part[1::2]]) for part in as_net[-1])  # all mu, then all s
with torch.no_grad():
    plain = seconds_of(lambda: back_and_forth(noise, as_net, list(range(64)), inverse=True))
    once = seconds_of(lambda: wide.inverse(noise))
print(
    f"D = 64, two layers 512 wide, 256 points: plain passes {1e3 * plain:.0f} ms, each unit once {1e3 * once:.0f} ms"
)


# %% [markdown]
# One pass itself grows with $D$: overhead first, arithmetic later, so its curve bends. $D$ of them cost one power more: the *ratio* grows about like $D$. (The last line above is a trick: a hidden unit of degree $m$ is computed once, when its $m$ variables are there. All $D$ steps together then cost the arithmetic of one pass, but there are still $D$ of them.)
#
# ## 5. The order, and a stack that mends it
#
# The banana has $x_2 \sim \mathcal N(0, 4)$, and $x_1$ given $x_2$ is $\mathcal N(x_2^2/4,\, 1)$. The chain rule holds in both orders. The *Gaussian form* of the conditionals does not. With $x_2$ first both conditionals are Gaussian, and the model is exact. With $x_1$ first, the model has to call Gaussian a $p(x_1)$ that is skewed, and a $p(x_2 \mid x_1)$ that has two humps where $x_1$ is large: at $x_1 = 6$ the points of the first picture lie in two arms. No network mends that.
#
# A second layer does: it models what the first has left over, its $z$. If $x_1$ comes first in every layer, all that ever happens to it is a shift and a scaling by constants, so the model's $p(x_1)$ stays Gaussian. And $x_2$ given $x_1$ meets one affine map after another, all with numbers read off $x_1$: again one affine map (lesson 08). Four layers are one. Let the orders alternate, and no variable is first in all layers.

# %% [markdown] nbgrader={"cell_type": "markdown", "checksum": "5816c567b332059602d91e239a8864b9", "grade": false, "grade_id": "fit_mafs_statement", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 7: fit the banana
#
# difficulty 2 of 5 · importance 5 of 5 · 15 minutes · 3 points
#
# Train a stack of MAFs. `nets` is a list of networks, the first meets the data first, and standard normal noise stands behind the last. The density takes one pass of each, and no order, since it is in the masks. Write `fit_mafs(nets, data, steps, rate)`, which returns a list of trained networks of the same form.
#
# As in lesson 08, the recipe is Adam on the mean negative log-likelihood of batches of 256 points, drawn at random from `data` `(N, D)`, with a step size that falls in a straight line from `rate` to zero. What came in must stay as it was. The first cell's `trainable(nets)`, `weights(nets)` and `detached(nets)` do what they did there.
#
# The check trains one layer in the right order, then a stack whose first layer has the wrong one. After 300 steps unseen points must be within 0.05 nats of the best possible. The last cell takes 1,200 and goes on to 0.02.
#
# <details><summary>"The loss falls below the entropy, 3.53 nats"</summary>
#
# Does the sum of $-s$ come with the right sign, and once for each layer?
#
# </details>
# <details><summary>"One layer is right and two are not"</summary>
#
# The second layer does not see the data. What does it see, and what does it add to the log-density?
#
# </details>
# <details><summary>"It learns, and stops too early"</summary>
#
# Are gradients set to zero before each `backward()`? Does every weight get to the optimizer?
#
# </details>
# <details><summary>A template</summary>
#
# In a loop over the layers: `mu, s = conditioner(____, net)`, `x = ____`, `total = total + ____`. Then `loss = -(____ + total).mean()`, `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`. The step size, before each step: `for group in optimizer.param_groups: group["lr"] = rate * (1 - k / steps)`.
#
# </details>

# %% nbgrader={"cell_type": "code", "checksum": "fed02e2a01b71849d1970bc28e10063b", "grade": false, "grade_id": "fit_mafs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_mafs(nets, data, steps, rate):
    """The networks of a stack of MAFs, trained on data (N, D) by maximum likelihood. Returns a list like nets."""
    nets = trainable(nets)
    optimizer = torch.optim.Adam(weights(nets), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        total = 0
        for net in nets:
            mu, s = conditioner(x, net)
            x = (x - mu) * torch.exp(-s)
            total = total - s.sum(-1)
        loss = -(normal_log_density(x).sum(-1) + total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return detached(nets)


# %% nbgrader={"cell_type": "code", "checksum": "9988316de32ceb9fd2c6dfcc30ba9878", "grade": true, "grade_id": "fit_mafs_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
# Run this cell to check fit_mafs: 1 point.
import math

import torch
from autograder import check
from flowkit import made
from flowkit.lab import targets
from flowkit.lab.nets import apply_masked, masked_weights


def log_prob(x, nets):
    total = 0
    for net in nets:
        mu, raw = apply_masked(net, x).unflatten(-1, (2, -1)).unbind(-2)
        s = 2 * torch.tanh(raw / 2)
        x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
    return total - 0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)


def judge(returned, nets, data, steps, rate):
    """Held-out log-likelihood, against the entropy of the banana."""
    if any(w.requires_grad for net in returned for _, *pair in net for w in pair):
        return "The weights that came back still ask for gradients. Which helper of the first cell takes that off?"
    for k, (net, old) in enumerate(zip(returned, nets, strict=True)):
        if any((mask != was).any() for (mask, *_), (was, *_) in zip(net, old, strict=True)):
            return f"nets[{k}] came back with other masks: only weights are trained."
        if all(torch.equal(W, V) for (_, W, _), (_, V, _) in zip(net, old, strict=True)):
            return (
                f"nets[{k}] came back with the weights that went in. Which weights does your optimizer hold?"
            )
    banana = targets.maf_figure_1()
    unseen = banana.sample(4000, seed=7)
    with torch.no_grad():
        gap = (banana.log_prob(unseen) - log_prob(unseen, returned)).mean().item()
    if not gap <= 0.05:
        return (
            f"With {len(nets)} layer{'s' * (len(nets) > 1)}, unseen points are {gap:.2g} nats less likely than they "
            "could be, and 0.05 would do. Does the loss fall? Are gradients set to zero before each backward()? "
            "Does every batch bring other points?"
        )


def new_nets(orders):
    return [masked_weights(made.made_masks(order, [32]), 2, seed=k) for k, order in enumerate(orders)]


data = targets.maf_figure_1().sample(10_000, seed=6)
cases = [(new_nets([[1, 0]]), data, 300, 1e-2), (new_nets([[0, 1], [1, 0]]), data, 300, 1e-2)]
check.that("autoregressive.fit_mafs", judge, cases)


# %% nbgrader={"cell_type": "code", "checksum": "143097698c9e188e9e7df6483e26d4a2", "grade": true, "grade_id": "fit_mafs_hidden", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
# Hidden tests run here when your work is graded: 2 points.

# %% tags=["show", "hide-input"]
def reference_fit(nets, data, steps, rate):
    nets = trainable(nets)

    class Stack:
        def parameters(self):
            return iter(weights(nets))

        def log_prob(self, x):
            return stack_log_prob(nets, x)

    training.fit(Stack(), data, steps=steps, lr=rate, progress=False)
    return detached(nets)


def stack_log_prob(nets, x):
    """log p(x) of a stack of MAFs: (..., 2) -> (...)."""
    total = 0
    for net in nets:
        mu, s = conditioner(x, net)
        x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
    return normal_log_density(x).sum(-1) + total


def best_with_x1_first():
    """What the best Gaussian conditionals lose with x1 first, from the moments of the banana itself."""
    points, area = targets.grid(WIDE, 1000, torch.float64)
    mass = banana.log_prob(points).exp() * area  # points[i, j] = (x_j, y_i)
    x1, x2 = points.unbind(-1)
    mass_1, mean_1 = mass.sum(0), (mass * x1).sum()
    variance_1 = (mass * (x1 - mean_1).square()).sum()
    variance_2 = (mass * x2.square()).sum(0) / mass_1  # given x1; the mean is 0 by symmetry
    first, second = (0.5 * (LOG_2PI + 1 + v.log()) for v in (variance_1, variance_2))
    return (first + (mass_1 * second).sum() - banana.entropy).item()


fit = check.yours("autoregressive.fit_mafs", otherwise=reference_fit)
data = banana.sample(20_000, seed=2)
STACKS = {
    "1 layer, x₂ first": [[1, 0]],
    "1 layer, x₁ first": [[0, 1]],
    "4 layers, x₁ always first": [[0, 1]] * 4,
    "4 layers, orders alternate": [[0, 1], [1, 0]] * 2,
}
fits, lost, mass = {}, {}, {}
for name, layers in STACKS.items():
    fresh = [masked_weights(reference_masks(order, [32]), size=2, seed=k) for k, order in enumerate(layers)]
    fits[name] = fit(fresh, data, steps=1200, rate=1e-2)
    lost[name] = nats_lost(lambda x, nets=fits[name]: stack_log_prob(nets, x))
    mass[name] = targets.integral(lambda x, nets=fits[name]: stack_log_prob(nets, x), WIDE, 500)
print(f"entropy of the banana {banana.entropy:.4f} nats")
for name in STACKS:
    print(f"{name:27} {banana.entropy + lost[name]:.4f} nats: {lost[name]:+.4f}; mass {mass[name]:.4f}")
print(f"the best that one layer can do with x₁ first, from the banana's moments: {best_with_x1_first():+.4f}")

fig, axes = plots.figure(columns=3, sharey=True)
for ax, name in zip(axes, list(STACKS)[1:], strict=True):
    plots.density(ax, lambda x, nets=fits[name]: stack_log_prob(nets, torch.as_tensor(x).float()), window)
    ax.set(title=name, xlabel="x₁")
axes[0].set(ylabel="x₂")
plots.show(
    fig,
    alt="Three learned densities. One layer with x₁ first: a blurred wedge. Four layers, x₁ always first: still not the banana. Four layers whose orders alternate: the banana.",
)

# %% [markdown]
# ## What you have seen
#
# - Every density is a product of conditionals. Give each a Gaussian form, standardize, and you have a flow whose $J$ is triangular: $\log\lvert\det J\rvert = -\sum_i s_i$.
# - MADE computes all conditionals in one pass. Its masks let through what comes before.
# - A leak shows in the Jacobian of the conditioner, or in a likelihood that is too good to be possible.
# - MAF: density in one pass, sampling in $D$. IAF is the same layer walked the other way, and a coupling the case where both take one.
# - The order matters as soon as the conditionals have a form: 0.34 nats on the banana. More layers in that order do not win them back, and alternating orders do.
#
# So you gain conditionals as bent as a network can bend them, in one pass, with a log-determinant that is a sum. You pay with samples that come one variable at a time. And yes, the order matters.
#
# **The words of this lesson**
#
# | English | 한국어 | Polski | 中文 | What it means |
# | :-- | :-- | :-- | :-- | :-- |
# | autoregressive model | 자기회귀 모형 | model autoregresyjny | 自回归模型 | A density written as a product of conditionals, each of one variable given those before it in some order. |
# | masked autoencoder (MADE) | 마스크 오토인코더 (MADE) | maskowany autoenkoder (MADE) | 掩码自编码器 (MADE) | A network whose weights are masked such that its outputs for a variable read only the variables before it. |
# | degree of a unit | 유닛의 차수 | stopień neuronu | 单元的度数 | The number of variables, counted from the first in the order, that a unit of MADE may know. |
# | leaking mask | 정보가 새는 마스크 | przeciekająca maska | 泄漏的掩码 | A mask that leaves a path from a variable to an output that must not read it. |
# | masked autoregressive flow | 마스크 자기회귀 흐름 | maskowany przepływ autoregresyjny | 掩码自回归流 | A flow that standardizes each variable by parameters read off the variables before it: density in one pass, sampling in D. |
# | inverse autoregressive flow | 역 자기회귀 흐름 | odwrotny przepływ autoregresyjny | 逆自回归流 | A masked autoregressive flow walked backwards, its parameters read off the noise: sampling in one pass, density in D. |
#
# **Where it is used.** MAFs model tables of numbers, and the parameters of a simulator given its output. IAFs stand in for densities known up to a constant, and sample sound fast.
#
# **Further reading.** Germain, Gregor, Murray and Larochelle, *MADE* (2015), has the masks. Papamakarios, Pavlakou and Murray, *Masked autoregressive flow for density estimation* (2017), has the banana in its Figure 1. Kingma and others, *Improved variational inference with inverse autoregressive flow* (2016), has the other direction; its flow runs from noise to data, our inverse.
#
# **What it costs.** Below, $D$ is the number of dimensions and $H$ the width of the hidden layers of one network. The inverse of the last row computes each hidden unit once, in $D$ steps.

# %% tags=["show", "hide-input"]
from flowkit.lab import costs

costs.show(topic="autoregressive", seed=0)
