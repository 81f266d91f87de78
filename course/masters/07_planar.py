# %% [markdown]
# # Planar, radial and Sylvester flows
#
# On the left, what we know: a function of the plane, high on two arcs. It is a density only up to a factor, and we have no samples. On the right, a density that integrates to one, that we can sample and evaluate. It is a round Gaussian after 16 bends, each one $\tanh$ across one straight line: five numbers a bend. (Training takes ten seconds. We know the factor by quadrature; the fit never sees it.)
#
# **You know a density only up to a constant, and have no data. How do you bend a Gaussian into it?**
#
# You will be able to
#
# - take the log-determinant of a planar, a radial and a Sylvester layer, in any dimension, without building a Jacobian;
# - derive when a planar layer folds, and make that impossible;
# - invert a layer that has no formula for its inverse;
# - fit a flow by reverse KL, and say why a KL below zero is an alarm;
# - say what a bend across a line can and cannot do.

# %%
import math

import torch

from autograder import check
from flowkit.energies import ENERGIES
from flowkit.lab import plots
from flowkit.lab.widgets import choice, play, predict, slider

torch.set_num_threads(1)  # the arrays are small: sharing them out among cores costs more than it saves
WALL, WIDTH = 4.0, 0.4
LOG_Z = {  # U1 by quadrature, U2 between its walls by hand: Gaussians 0.4 wide, along 8 units and two soft ends
    "U1": ENERGIES["U1"].log_z,
    "U2": math.log(WIDTH * math.sqrt(2 * math.pi)) + math.log(2 * WALL + WIDTH * math.sqrt(2 * math.pi)),
}


def base_log_density(z):
    """log q_0(z), standard normal: (..., D) -> (...)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def tanh_slope(a):
    """tanh'(a) = 1 - tanh(a)^2, elementwise."""
    return 1 - torch.tanh(a).square()


def log_target(energy, z):
    """log of the target, without -log Z: "U1", or "U2" between soft walls at z_1 = -4 and 4. (..., 2) -> (...)"""
    log_density = -ENERGIES[energy].potential(z)
    if energy == "U2":
        log_density = log_density - 0.5 * ((z[..., 0].abs() - WALL).clamp(min=0) / WIDTH).square()
    return log_density


def new_layers(K, seed):
    """K planar layers of the plane that hardly move a point: w (K, 2), u (K, 2), b (K,)."""
    generator = torch.Generator().manual_seed(seed)
    w, noise = torch.randn(2, K, 2, generator=generator)
    still = (
        math.log(math.e - 1) * w / w.square().sum(-1, keepdim=True)
    )  # section 2 turns this u into zero: m(log(e - 1)) = 0
    return w, still + 0.1 * noise, torch.randn(K, generator=generator)


# %% tags=["show", "hide-input"]
from functools import partial

import numpy as np
from IPython.display import display

from flowkit import Compose, Flow, Inverse, StandardNormal
from flowkit import planar as library
from flowkit import variational
from flowkit.lab import targets


def as_layer(w, u, b):
    """A planar layer of the library, with these parameters."""
    layer = library.Planar(len(w)).to(w)
    for parameter, value in zip((layer.w, layer.u, layer.b), (w, u, b), strict=True):
        parameter.data = value.detach().clone()
    return layer


def as_flow(layers):
    """The flow whose draws are z_K."""
    return Flow(StandardNormal(2), Inverse(Compose(*map(as_layer, *layers))))


def library_fit(energy, layers, steps, rate, faintest=0.01):
    flow = as_flow(layers)
    variational.annealed_fit(flow, partial(log_target, energy), steps, rate, faintest=faintest)
    bends = flow.bijection.bijection.bijections
    return tuple(torch.stack([getattr(bend, name).detach() for bend in bends]) for name in "wub")


def one_scale(images):
    """Gives densities one colour scale, up to the highest of them all."""
    top = max(image.get_array().max() for image in images)
    for image in images:
        image.set_clim(0, top)


box = (-4.0, 4.0, -4.0, 4.0)
flow = as_flow(library_fit("U1", new_layers(16, seed=0), 500, 5e-2))
fig, axes = plots.figure(columns=3)
panels = {
    "known: exp(-U1), up to a factor": lambda z: log_target("U1", z) - LOG_Z["U1"],
    "given: q₀": base_log_density,
    "made: q₁₆": flow.log_prob,
}
one_scale([plots.density(ax, f, box, n=120) for ax, f in zip(axes, panels.values(), strict=True)])
for ax, title in zip(axes, panels, strict=True):
    ax.set(title=title, xlabel="z₁", ylabel="z₂")
plots.show(
    fig,
    alt="Three densities on the plane. Left: two arcs that open towards each other, around (-2, 0) and (2, 0). Middle: a round Gaussian. Right: two arcs again, near those of the left, with a higher peak.",
)
with torch.no_grad():
    z = flow.bijection.inverse(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1)))[0]
    kl = variational.kl_alarm(flow.log_prob(z), log_target("U1", z) - LOG_Z["U1"])[0]
print(
    f"{(z[:, 0] > 0).double().mean():.0%} of the draws of q₁₆ lie on the right; it differs from the target by {kl:.3f} nats of KL (section 4)"
)

# %% [markdown]
# ## 1. One bend across a line
#
# Draw a line in the plane; in $D$ dimensions, a *hyperplane* $w^\top z + b = 0$. With $a = w^\top z + b$, a *planar layer* moves the points where $a > 0$ along $+u$ and those where $a < 0$ along $-u$:
#
# $$f(z) = z + u \tanh(a), \qquad a = w^\top z + b .$$
#
# Differentiate $f_i$ with respect to $z_j$: $J_{ij} = \delta_{ij} + u_i \tanh'(a)\, w_j$. So $J = I + \tanh'(a)\, u w^\top$, the identity plus a matrix of rank one. For that you know a determinant of cost $O(D)$: the lemma of [the determinants lesson](../04_determinants/determinants.ipynb), with $A = I$ and $m = 1$: $\det(I + p q^\top) = 1 + q^\top p$.
#
# **Which way?** Elsewhere in the course $f$ takes data to noise. Here there are no data. We draw noise $z_0 \sim q_0$ and push it forward through $K$ layers, $z_0 \to z_1 \to \dots \to z_K$, with $J_k = dz_k/dz_{k-1}$. Then
#
# $$\log q_K(z_K) = \log q_0(z_0) - \sum_k \log\lvert\det J_k\rvert .$$
#
# The formula of the course, with $g$ taking $z_K$ back to $z_0$, is $\log q_K(z_K) = \log q_0(g(z_K)) + \log\lvert\det dg/dz_K\rvert$. We compute $f = g^{-1}$, whose log-determinant is minus that of $g$.

# %% [markdown] exercise="planar_layer" title="the determinant of a bend" difficulty=2 importance=5 minutes=10
# Apply the lemma on paper. Then write `planar_layer(z, w, u, b)`, which returns the pair (moved points, $\log\lvert\det J\rvert$), in $O(D)$ a point: no matrices, no `torch.linalg`, no autograd.
#
# `z` has shape `(..., D)`, `w` and `u` have shape `(D,)`, and `b` is a tensor of shape `()`. The moved points have the shape of `z`, the log-determinants shape `(...)`. Take any $w$ and $u$: the determinant may be negative. Gradients must flow through. `tanh_slope` from the first cell is $\tanh'$.
#
# <details><summary>"My log-determinants have a dimension too many, or one too few"</summary>
#
# $a$ is one number for each point: `z @ w + b` has shape `(...)`. To add $u\tanh(a)$ to `z` it needs a last axis of length 1, `[..., None]`.
#
# </details>
# <details><summary>"I get nan at some points"</summary>
#
# When $w^\top u$ is far below zero the determinant changes sign. Which function stands between $\log$ and $\det$?
#
# </details>
# <details><summary>A template</summary>
#
# `a = ____`, then `moved = z + ____[..., None] * u`, then `return moved, torch.log(____(1 + ____ * (w @ u)))`
#
# </details>


# %% solution="planar_layer"
def planar_layer(z, w, u, b):
    """(f(z), log abs det J) of a planar layer. z: (..., D); w, u: (D,); b: () -> (..., D), (...).

    >>> moved, log_det = planar_layer(torch.zeros(5, 2), torch.ones(2), torch.ones(2), torch.tensor(0.0))
    >>> moved.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    ### BEGIN SOLUTION
    a = z @ w + b
    moved = z + torch.tanh(a)[..., None] * u
    return moved, torch.log(torch.abs(1 + tanh_slope(a) * (w @ u)))
    ### END SOLUTION


# %% test="planar_layer" points=1
import torch
from autograder import check


def brute_force(z, w, u, b):
    """The slow specification: the formula, the whole Jacobian of each point, and its determinant."""

    def f(point):
        return point + u * torch.tanh(torch.sum(w * point) + b)

    points = z.reshape(-1, z.shape[-1])
    log_dets = [torch.linalg.slogdet(torch.func.jacrev(f)(point)).logabsdet for point in points]
    return torch.stack([f(point) for point in points]).reshape(z.shape), torch.stack(log_dets).reshape(
        z.shape[:-1]
    )


torch.manual_seed(0)
z, w, u = (
    torch.randn(6, 3).double(),
    torch.tensor([1.0, -2.0, 0.5]).double(),
    torch.tensor([0.5, 0.3, 2.0]).double(),
)
b = torch.tensor(0.4).double()
cases = [
    (z, w, u, b),
    (z[0], w, u, b),
    (z.reshape(3, 2, 3), w, u, b),
]  # a batch, one point, a batch of batches
cases += [(z, w, -4 * w, b), (z, w, 3 * w, -b), (z[:, :1], w[:1], u[:1], b)]  # folding, steep, D = 1
cases += [(z * 1e3, w, u, b), (z.float(), w.float(), u.float(), b.float())]
cases.append((z, w, u.clone().requires_grad_(), b))  # in training, gradients go back to the weights
check.values("planar.planar_layer", cases, brute_force)

# %% hidden="planar_layer" points=2
import torch
from autograder import check


def reference(z, w, u, b):
    a = (z * w).sum(-1) + b
    slope = 4 * torch.sigmoid(2 * a) * torch.sigmoid(-2 * a)
    return z + u * torch.tanh(a).unsqueeze(-1), (1 + slope * (u * w).sum()).abs().log()


rng = check.rng("planar.planar_layer")
cases = []
for shape, dtype in [
    ((2,), torch.float64),
    ((5, 7), torch.float32),
    ((2, 3, 4), torch.float64),
    ((4, 1), torch.float64),
]:
    z, w, u = (torch.from_numpy(rng.normal(size=s)).to(dtype) for s in (shape, shape[-1:], shape[-1:]))
    u = u - w * torch.clamp(w @ u + 0.5, max=0) / (w @ w)  # away from where the determinant is zero
    b = torch.from_numpy(rng.normal(size=())).to(dtype) if dtype == torch.float64 else torch.tensor(0.3)
    cases += [(z, w, u, b), (z * 100, w, u, b)]
    if dtype == torch.float64:
        cases += [(z, w, 10 * w, b), (z, w, -5 * w / (w @ w), b)]
check.values("planar.planar_layer", cases, reference)


# %% tags=["show", "hide-input"]
def reference_layer(z, w, u, b):
    a = z @ w + b
    return z + a.tanh()[..., None] * u, library.tanh_slope(a, 1 + w @ u).log()


def reference_inverse(y, w, u, b):
    return y - library.tanh_root(y @ w + b, 1 + w @ u).tanh()[..., None] * u


ticks, along = torch.linspace(-3, 3, 13), torch.linspace(-3, 3, 61)
grid_lines = torch.cat([torch.stack(torch.meshgrid(ticks, along, indexing="ij"), -1)] * 2)
grid_lines[13:] = grid_lines[13:].flip(-1)
pixels = targets.grid((-4, 4, -4, 4), 80)[0]


def draw_bend(scene, angle, steepness, dot, shear, shift):
    f = check.yours("planar.planar_layer", otherwise=reference_layer)
    turn = math.radians(angle)
    across = torch.tensor([math.cos(turn), math.sin(turn)])
    w, u = steepness * across, dot / steepness * across + shear * torch.stack([-across[1], across[0]])
    b = torch.tensor(-steepness * shift)
    before = reference_inverse(pixels, w, u, b)
    density = (base_log_density(before) - f(before, w, u, b)[1]).exp()
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    left.axes(x=(-4, 4), y=(-4, 4), xlabel="z₁", ylabel="z₂", title="image of the grid", equal=True)
    left.lines(f(grid_lines, w, u, b)[0], colour=plots.BLUE)
    edge = shift * across + 6 * torch.tensor([[-1.0], [1.0]]) * torch.stack([-across[1], across[0]])
    left.curve(edge, colour=plots.ORANGE, dash="dashed", label="w·z + b = 0")
    right.axes(x=(-4, 4), y=(-4, 4), xlabel="z₁", ylabel="z₂", title="density of f(z), z normal", equal=True)
    right.image(density, extent=(-4, 4, -4, 4), low=0.0)
    factor = (-f(shift * across, w, u, b)[1]).exp()
    return (
        f"w·u = {dot:.2f}: on the line the density is {factor:.2f} times what it was. "
        f"Far from it, points move by {u.norm():.2f} and keep their density."
    )


bend = play(
    draw_bend,
    angle=slider(0, 180, 20, step=5, label="angle of w (degrees)"),
    steepness=slider(0.5, 6.0, 2.0, step=0.1, label="length of w"),
    dot=slider(-0.95, 6.0, 4.0, step=0.05, label="w·u"),
    shear=slider(-1.5, 1.5, 0.0, step=0.1, label="u along the line"),
    shift=slider(-2.0, 2.0, 0.0, step=0.1, label="place of the line"),
)
display(bend)
predict(
    "Now ten planar layers, chosen at random, in 50 dimensions. Choose 50 orthogonal directions as well as you can: along how many of them does no point move?",
    ["none: each layer bends all of space", "10: one for each layer", "40: each layer takes one away"],
)

# %% [markdown]
# **What one bend can do.** With $w^\top u < 0$ it contracts space towards the hyperplane: a ridge of density. With $w^\top u > 0$ it tears space apart there: a valley, which can cut one hump into two. With $w^\top u = 0$ it shears, and no density changes.
#
# **What it cannot do.** The log-determinant depends on $w^\top z$ alone: a ridge runs along the *whole* hyperplane. Far out $\tanh$ is flat, so both sides move rigidly and the tails stay Gaussian.

# %% tags=["show"]
torch.manual_seed(1)
z0 = torch.randn(2000, 50, dtype=torch.float64)
z = z0
for w, u in torch.randn(10, 2, 50, dtype=torch.float64):
    z = z + torch.tanh(z @ w)[:, None] * u
moved = torch.linalg.matrix_rank(z - z0).item()
print(
    f"the points moved within {moved} of 50 directions; along the other {50 - moved} they are still exactly normal"
)

# %% [markdown]
# Each layer adds multiples of its own $u$, so that all moves lie in the span of ten vectors. A planar flow needs $D$ layers before it has touched every direction: a bend is a bottleneck one neuron wide. Section 3 widens it.
#
# ## 2. When a layer folds, and the way back
#
# A layer may send two points to one place. To see when, watch $a$ alone. Multiply $y = f(z)$ by $w$ and add $b$:
#
# $$w^\top y + b = a + c\tanh(a), \qquad c = w^\top u .$$
#
# One equation in one unknown. If its right side always rises, $a$ is determined by $y$, and so is $z = y - u\tanh(a)$. If not, several values of $a$ share one $y$: the layer folds. Below, on the left, is that right side for three values of $c$; on the right, what a fold does to densities. For each $a$ sent to $y$ the formula claims a density, and the truth is their *sum*: where there are several, each claim is too low. (See $y = \pm 1$; at $0$ the outer two claims are 0.005 each.)


# %% tags=["show", "hide-input"]
def claims_where_folded(y):
    """The three claims of log q's formula at y = a - 3 tanh(a), one for each branch of a: (N,) -> (3, N)."""
    claims = []
    for low, high in ((-20, -turn), (-turn, turn), (turn, 20)):
        branch = torch.linspace(low, high, 200_001, dtype=torch.float64)
        image = branch - 3 * torch.tanh(branch)
        order = image.argsort()
        a = torch.from_numpy(np.interp(y, image[order], branch[order], left=np.nan, right=np.nan))
        claims.append(base_log_density(a[:, None]).exp() / (1 - 3 * tanh_slope(a)).abs())
    return torch.stack(claims)


turn = math.acosh(math.sqrt(3))  # where the slope 1 - 3 tanh'(a) is zero
a = torch.linspace(-4, 4, 401)
fig, (left, right) = plots.figure(columns=2)
for c in (2.0, -0.5, -3.0):
    left.plot(a, a + c * torch.tanh(a), label=f"c = {c:g}")
left.set(xlabel="a", ylabel="a + c tanh(a)", title="two rise everywhere, one does not", ylim=(-5, 5))
left.legend()
draws = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
folded = draws - 3 * torch.tanh(draws)
right.hist(folded, bins=120, range=(-2, 2), density=True, color=plots.GREY, alpha=0.6, label="samples")
levels = torch.linspace(-2, 2, 1001, dtype=torch.float64)
claims = claims_where_folded(levels)
for claim, name, dash in zip(claims, ("a < -1.15", "a between", "a > 1.15"), ("--", ":", "-."), strict=True):
    right.plot(levels, claim, linestyle=dash, label=f"claim of {name}")
right.plot(levels, claims.nansum(0), color=plots.BLACK, linestyle="-", linewidth=1, label="their sum")
right.set(
    xlabel="y = a - 3 tanh(a)",
    ylabel="density",
    title="c = -3: one y, up to three claims",
    ylim=(0, 0.8),
    xlim=(-2, 2),
)
right.legend(fontsize=8)
plots.show(
    fig,
    alt="Left: a + c tanh(a) against a. For c = 2 it rises steeply at zero; for c = -0.5 it rises more slowly there; for c = -3 it falls between two turning points. Right: a histogram of samples pushed through the folding layer, the density that the formula claims on each of three branches of a, and their sum, which follows the histogram. Each claim lies below it.",
)

# %% [markdown] exercise="constrain" title="no folds" difficulty=3 importance=5 minutes=15
# Derive on paper for which $c$ the function $a + c\tanh(a)$ never falls. (Between which two numbers does $\tanh'$ lie?) You will find a lower bound $c_{\min}$ on $w^\top u$.
#
# An optimizer knows no bounds: it moves any $w$ and $u$, and the layer uses another vector, $\hat u$, that obeys: leave $u$ alone *across* $w$, and change it along $w$ so that
#
# $$w^\top \hat u = m(w^\top u), \qquad m(c) = c_{\min} + \log(1 + e^{c}),$$
#
# above your bound for every $c$. Find the number $t$ with $\hat u = u + t\,w$, and write `constrain(w, u)`. Both have shape `(..., D)`, a vector for each layer, and so has the result. For $w = (2, 0)$ and $u = (0, 5)$, $\hat u = (-0.153, 5)$. It must stay finite for $w^\top u$ between $-1000$ and $1000$, and let gradients through.
#
# <details><summary>"It is right while w has length 1"</summary>
#
# Multiply $u + t\,w$ by $w$. What is $w^\top w$: the length of $w$, or its square?
#
# </details>
# <details><summary>"I get inf or nan for large products"</summary>
#
# $e^{1000}$ overflows before the logarithm is taken. `torch.nn.functional.softplus(c)` is $\log(1 + e^c)$, done with care.
#
# </details>
# <details><summary>"It is right for one layer and wrong for a stack"</summary>
#
# Each layer has its own product: `(w * u).sum(-1, keepdim=True)`, where `w @ u` would mix the layers.
#
# </details>
# <details><summary>A template</summary>
#
# `c = ____`, then `m = ____`, then `return u + (____ - ____) * w / ____`
#
# </details>


# %% solution="constrain"
def constrain(w, u):
    """u^ with w.u^ = m(w.u), moved along w alone. w, u: (..., D) -> (..., D)."""
    ### BEGIN SOLUTION
    c = (w * u).sum(-1, keepdim=True)
    m = torch.nn.functional.softplus(c) - 1
    return u + (m - c) * w / w.square().sum(-1, keepdim=True)
    ### END SOLUTION


# %% test="constrain" points=1
import math

import torch
from autograder import check


def by_search(w, u):
    """The slow specification: for each layer the t with w.(u + t w) = m(w.u), by bisection."""
    steepest = max((math.tanh(k * 1e-3 + 5e-7) - math.tanh(k * 1e-3 - 5e-7)) / 1e-6 for k in range(-9, 10))
    vectors = []
    for w_k, u_k in zip(
        w.reshape(-1, w.shape[-1]).tolist(), u.reshape(-1, w.shape[-1]).tolist(), strict=True
    ):
        c = sum(x * y for x, y in zip(w_k, u_k, strict=True))
        m = max(c, 0) + math.log1p(math.exp(-abs(c))) - 1 / steepest
        low, high = -1e4, 1e4
        for _ in range(100):
            t = (low + high) / 2
            product = sum(x * (y + t * x) for x, y in zip(w_k, u_k, strict=True))
            low, high = (t, high) if product < m else (low, t)
        vectors.append([y + t * x for x, y in zip(w_k, u_k, strict=True)])
    return torch.tensor(vectors, dtype=w.dtype).reshape(w.shape).requires_grad_(u.requires_grad)


torch.manual_seed(0)
w, u = torch.randn(2, 4, 3).double()
one = torch.tensor([2.0, 0.0]).double()
cases = [
    (one, torch.tensor([0.0, 5.0]).double()),
    (w, u),
    (w[0], u[0]),
    (w.reshape(2, 2, 3), 3 * u.reshape(2, 2, 3)),
]
cases += [(one, torch.tensor([sign * 500.0, 1.0]).double()) for sign in (-1, 1)]
cases += [(w[:, :1], u[:, :1]), (w.float(), u.float())]
cases.append((w, u.clone().requires_grad_()))  # in training, gradients go back to the weights
check.values("planar.constrain", cases, by_search)

# %% hidden="constrain" points=2
import torch
from autograder import check


def reference(w, u):
    c = torch.linalg.vecdot(w, u).unsqueeze(-1)
    return u + w * (torch.logaddexp(-c, torch.zeros_like(c)) - 1) / torch.linalg.vecdot(w, w).unsqueeze(-1)


rng = check.rng("planar.constrain")
cases = []
for shape, dtype in [
    ((2,), torch.float64),
    ((5, 7), torch.float32),
    ((2, 3, 4), torch.float64),
    ((4, 1), torch.float64),
]:
    w, u = (torch.from_numpy(rng.normal(size=shape)).to(dtype) for _ in range(2))
    w = w + torch.sign(w) * 0.3  # not too short
    cases += [(w, u), (3 * w, 2 * u), (0.3 * w, u)]
    if dtype == torch.float64:
        cases += [(w, size * w / w.square().sum(-1, keepdim=True) + u) for size in (-900, -30, 30, 900)]
check.values("planar.constrain", cases, reference)

# %% [markdown] exercise="planar_inverse" title="a root for each point" difficulty=3 importance=4 minutes=15
# A layer that does not fold has an inverse, though no formula for it. But the equation above is *scalar*: with $s = w^\top y + b$ known, find the $a$ with
#
# $$a + c\tanh(a) = s, \qquad c = w^\top u > -1,$$
#
# then $z = y - u\tanh(a)$. Write `planar_inverse(y, w, u, b)`: the $z$ with $f(z) = y$. Shapes are those of `planar_layer`; here $w^\top u > -1$ already holds.
#
# Use bisection. Since $\tanh$ lies between $-1$ and $1$, the root lies between $s - \lvert c\rvert$ and $s + \lvert c\rvert$. Halve it 60 times, all points at once. The test has far points too, and $c$ from $-0.99$ to $100$.
#
# <details><summary>"It works for one point, and fails for a batch"</summary>
#
# `if` wants one truth, and a batch has many. `torch.where(condition, A, B)` decides for each point.
#
# </details>
# <details><summary>"Newton's method jumps about"</summary>
#
# For $c = 100$ the curve is steep near zero and flat elsewhere. A tangent from the flat part lands on the other side.
#
# </details>
# <details><summary>A template</summary>
#
# `low, high = ____, ____`, then 60 times: `middle = (low + high) / 2`, `below = ____ < s`, `low = torch.where(below, ____, ____)`, `high = torch.where(below, ____, ____)`. At the end `return y - ____[..., None] * u`.
#
# </details>


# %% solution="planar_inverse"
def planar_inverse(y, w, u, b):
    """The z with f(z) = y, where w.u > -1. y: (..., D); w, u: (D,); b: () -> (..., D)."""
    ### BEGIN SOLUTION
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u
    ### END SOLUTION


# %% test="planar_inverse" points=1
import math

import torch
from autograder import check


def one_by_one(y, w, u, b):
    """The slow specification: Python's floats, from a bracket that is far too wide."""
    c, points = float(w @ u), []
    for point in y.reshape(-1, y.shape[-1]):
        s = float(point @ w + b)
        low, high = s - 1e4, s + 1e4
        for _ in range(100):
            a = (low + high) / 2
            low, high = (a, high) if a + c * math.tanh(a) < s else (low, a)
        points.append(point - math.tanh(a) * u)
    return torch.stack(points).reshape(y.shape)


torch.manual_seed(0)
w, across = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([2.0, 1.0, 0.0]).double()
b = torch.tensor(0.4).double()
cases = []
for c in (-0.99, 0.0, 0.7, 4.0, 100.0):
    u = c * w / (w @ w) + across  # w.u = c, and a part across w
    y = torch.randn(8, 3).double()
    cases += [(size * y, w, u, b) for size in (1, 10, 1000)]
cases += [(y[0], w, u, b), (y.reshape(2, 4, 3), w, u, b), (y[:, :1], w[:1], w[:1], b)]
cases += [(y.float(), w.float(), w.float() / 2, b.float())]
check.values("planar.planar_inverse", cases, one_by_one)

# %% hidden="planar_inverse" points=2
import torch
from autograder import check


def there(z, w, u, b):
    return z + torch.tanh((z * w).sum(-1) + b)[..., None] * u


rng = check.rng("planar.planar_inverse")
shapes = [
    ((2,), torch.float64),
    ((5, 7), torch.float32),
    ((2, 3, 4), torch.float64),
    ((40, 1), torch.float64),
]
origins, cases = [], []
for shape, dtype in shapes:
    z, w, across = (torch.from_numpy(rng.normal(size=s)).to(dtype) for s in (shape, shape[-1:], shape[-1:]))
    w = w + 0.3 * torch.sign(w)
    b = torch.tensor(float(rng.normal()), dtype=dtype)
    for c in (-0.9, 0.5, 5.0) if dtype == torch.float32 else (-0.99, -0.5, 3.0, 20.0, 100.0):
        u = across + w * (c - w @ across) / (w @ w)
        for size in (1, 20):
            origins.append(size * z)
            cases.append((there(size * z, w, u, b), w, u, b))
remaining = iter(origins)


def where_it_came_from(y, w, u, b):
    return next(remaining)


check.values("planar.planar_inverse", cases, where_it_came_from)


# %% tags=["show", "hide-input"]
def draw_root(scene, c, s):
    invert = check.yours("planar.planar_inverse", otherwise=reference_inverse)
    one, zero = torch.ones(1, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    root = invert(
        torch.tensor([s], dtype=torch.float64), one, c * one, zero
    ).item()  # w = 1, b = 0: then z is a
    a = torch.linspace(-12, 12, 961, dtype=torch.float64)
    scene.axes(x=(-12, 12), y=(-12, 12), xlabel="a", ylabel="a + c tanh(a)")
    scene.area(
        [s - abs(c) - 1e-6, s + abs(c) + 1e-6],
        [12, 12],
        y0=-12,
        colour=plots.GREY,
        label="where the search starts",
        alpha=0.2,
    )
    scene.curve(a, a + c * torch.tanh(a), colour=plots.BLUE, label="a + c tanh(a)")
    scene.curve([-12, 12], [s, s], colour=plots.ORANGE, dash="dashed", label="s")
    scene.points([root], [s], colour=plots.ORANGE, size=10, label="the root found")
    slope = 1 + c * (1 - math.tanh(root) ** 2)
    return (
        f"c = {c:.2f}, s = {s:.1f}: the root is {root:.4f}, where the curve has slope {slope:.3g}. "
        f"There the density of y is {1 / slope:.3g} times that of z."
    )


play(
    draw_root,
    c=slider(-0.99, 10.0, 4.0, step=0.01, label="c = w·u"),
    s=slider(-10.0, 10.0, 3.0, step=0.1, label="s = w·y + b"),
)

# %% [markdown]
# ## 3. Around a point, and many bends at once
#
# **Radial.** Bend around a centre $z_0$ instead of across a plane. With $y = z - z_0$, $r = \lvert y\rvert$ and $h(r) = 1/(\alpha + r)$, $\alpha > 0$,
#
# $$f(z) = z + \beta\, h(r)\, y .$$
#
# Turn the axes so that the first one points along $y$. A small step *across* $y$ leaves $r$ as it is, so it is scaled as $y$ is, by $1 + \beta h$. A step *along* $y$ changes $r$, and is scaled by the derivative of $r + \beta h(r)\, r$. In these axes $J$ is diagonal. The layer does not fold if $\beta > -\alpha$: for negative $\beta$ both factors are smallest at $r = 0$, where they are $1 + \beta/\alpha$; for positive $\beta$ both exceed 1. So each ray from $z_0$ goes to itself, and along it the distance always rises.
#
# **Sylvester.** $M$ planar layers in one: $f(z) = z + A\tanh(Bz + b)$, with $A$ of shape $D \times M$, $B$ of $M \times D$. *Sylvester's identity* gives its determinant,
#
# $$\det(I_D + A\,\Lambda B) = \det(I_M + \Lambda B A), \qquad \Lambda = \operatorname{diag}\tanh'(Bz + b),$$
#
# with $M = 1$ the lemma that you used. Van den Berg and others (2018) take $A = QR$ and $B = SQ^\top$, where $Q$ has orthonormal columns and $R$, $S$ are upper triangular. Then $BA = SQ^\top QR = SR$ is triangular: only a product along a diagonal is left. It cannot fold if $R_{ii}S_{ii} > -1$ for all $i$. To see it, multiply $f(z) = y$ by $SQ^\top$ and add $b$:
#
# $$a + SR\tanh(a) = s, \qquad a = SQ^\top z + b, \quad s = SQ^\top y + b .$$
#
# $SR$ is triangular, so the last row is the scalar equation of section 2. Its root known, the row above has one unknown, and so on up.

# %% [markdown] exercise="radial_layer" title="two factors in D dimensions" difficulty=3 importance=3 minutes=15
# Count the directions across and along, and derive $\log\lvert\det J\rvert$ in $D$ dimensions from the two factors. Then write `radial_layer(z, z0, alpha, beta)`: the pair (moved points, log-determinants), for `z` of shape `(..., D)`, `z0` of shape `(D,)`, and `alpha` and `beta` tensors of shape `()`, with $\beta > -\alpha$. At the centre itself, $r = 0$, it must be finite: nothing need be divided by $r$.
#
# <details><summary>"It is right for D = 2 and wrong for others, or the other way round"</summary>
#
# Of $D$ axes, one points along $y$. How many are left?
#
# </details>
# <details><summary>"The factor along y"</summary>
#
# $\frac{d}{dr}\bigl(r + \beta h(r)\, r\bigr)$ is a product rule: $1 + \beta h + \beta h' r$. Is $h$ rising or falling: which sign has $h'$?
#
# </details>
# <details><summary>A template</summary>
#
# `y = z - z0`, `r = y.norm(dim=____)`, `h = ____`, `across = 1 + beta * h`, `along = across ____ beta * r * ____`; `return z + ____[..., None] * y, ____ * torch.log(across) + torch.log(along)`
#
# </details>


# %% solution="radial_layer"
def radial_layer(z, z0, alpha, beta):
    """(f(z), log abs det J) of a radial layer. z: (..., D); z0: (D,); alpha, beta: () -> (..., D), (...)."""
    ### BEGIN SOLUTION
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    across = 1 + beta * h
    along = across - beta * r * h**2
    log_det = (z.shape[-1] - 1) * torch.log(across) + torch.log(along)
    return z + (beta * h)[..., None] * y, log_det
    ### END SOLUTION


# %% test="radial_layer" points=1
import torch
from autograder import check


def brute_force(z, z0, alpha, beta):
    """The slow specification: points one by one, and the whole Jacobian (h is constant where r = 0)."""

    def f(point):
        y = point - z0
        r = torch.sqrt((y * y).sum() + torch.finfo(y.dtype).tiny)
        return point + beta / (alpha + r) * y

    points = z.reshape(-1, z.shape[-1])
    log_dets = [torch.linalg.slogdet(torch.func.jacrev(f)(point)).logabsdet for point in points]
    return torch.stack([f(point) for point in points]).reshape(z.shape), torch.stack(log_dets).reshape(
        z.shape[:-1]
    )


torch.manual_seed(0)
z, z0 = torch.randn(6, 3).double(), torch.tensor([0.5, -1.0, 0.2]).double()
alpha, beta = torch.tensor(0.7).double(), torch.tensor(2.0).double()
cases = [(z, z0, alpha, beta), (z, z0, alpha, torch.tensor(-0.6).double()), (z[0], z0, alpha, beta)]
cases += [(z.reshape(3, 2, 3), z0, alpha, beta), (z0[None], z0, alpha, beta), (z * 1e3, z0, alpha, beta)]
cases += [(z[:, :1], z0[:1], alpha, beta), (torch.randn(4, 7).double(), torch.zeros(7).double(), alpha, beta)]
cases += [(z.float(), z0.float(), alpha.float(), beta.float())]
check.values("planar.radial_layer", cases, brute_force)

# %% hidden="radial_layer" points=2
import torch
from autograder import check


def reference(z, z0, alpha, beta):
    y = z - z0
    r = torch.linalg.vector_norm(y, dim=-1)
    across = (alpha + beta + r) / (alpha + r)
    along = 1 + alpha * beta / (alpha + r).square()
    return z0 + across.unsqueeze(-1) * y, across.log() * (z.shape[-1] - 1) + along.log()


rng = check.rng("planar.radial_layer")
cases = []
for shape, dtype in [
    ((2,), torch.float64),
    ((5, 7), torch.float32),
    ((2, 3, 4), torch.float64),
    ((4, 1), torch.float64),
]:
    z, z0 = (torch.from_numpy(rng.normal(size=s)).to(dtype) for s in (shape, shape[-1:]))
    alpha = torch.tensor(float(rng.uniform(0.3, 2)), dtype=dtype)
    for share in (-0.9, -0.3, 1.0, 20.0):
        cases += [(z, z0, alpha, share * alpha), (z * 100, z0, alpha, share * alpha)]
    cases.append((z0.expand(shape).clone(), z0, alpha, -alpha / 2))
check.values("planar.radial_layer", cases, reference)

# %% [markdown] exercise="sylvester_log_det" title="one determinant, three prices" difficulty=3 importance=4 minutes=20
# Write `sylvester_log_det(z, Q, R, S, b, way)`, the $\log\lvert\det J\rvert$ of $f(z) = z + QR\tanh(SQ^\top z + b)$ at points `z` of shape `(..., D)`, with `Q` `(D, M)`, `R` and `S` `(M, M)` upper triangular, `b` `(M,)`; shape `(...)`. Take it three ways:
#
# | `way` | from | costs, a point |
# | --- | --- | --- |
# | `"large"` | the determinant of $I_D + A\Lambda B$ | $O(D^3)$ |
# | `"small"` | the determinant of $I_M + \Lambda B A$, with $BA = SQ^\top QR$ | $O(DM + M^3)$ |
# | `"diagonal"` | $R$, $S$ and $\Lambda$ alone, believing that $Q^\top Q = I$ | $O(DM)$ |
#
# `torch.linalg.slogdet(matrices).logabsdet` takes matrices of shape `(..., n, n)`. The test also hands you a $Q$ whose columns are *not* orthonormal. Then the first two must still agree, and the third gives another number.
#
# <details><summary>"My three ways disagree although Q is orthonormal"</summary>
#
# Points are rows: $SQ^\top z$ is `z @ (S @ Q.T).T`. And $A\Lambda B$ scales the *columns* of $A$: `A * slope[..., None, :]`.
#
# </details>
# <details><summary>"The diagonal"</summary>
#
# What is the diagonal of a product of two upper triangular matrices? And that of $I + \Lambda SR$?
#
# </details>
# <details><summary>A template</summary>
#
# `slope = tanh_slope(____)`, shape `(..., M)`. Then `if way == "diagonal": return torch.log(torch.abs(1 + slope * ____)).sum(-1)`; `if way == "small": matrix = torch.eye(len(b)).to(z) + ____ * (S @ Q.T @ Q @ R)`; else `matrix = torch.eye(len(Q)).to(z) + (____ * slope[..., None, :]) @ ____`; at the end `return torch.linalg.slogdet(matrix).logabsdet`
#
# </details>


# %% solution="sylvester_log_det"
def sylvester_log_det(z, Q, R, S, b, way):
    """log abs det J of z + Q R tanh(S Q'z + b), by way "large", "small" or "diagonal". z: (..., D) -> (...)."""
    ### BEGIN SOLUTION
    A, B = Q @ R, S @ Q.T
    slope = tanh_slope(z @ B.T + b)
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (B @ A)
    else:
        matrix = torch.eye(len(Q)).to(z) + (A * slope[..., None, :]) @ B
    return torch.linalg.slogdet(matrix).logabsdet
    ### END SOLUTION


# %% test="sylvester_log_det" points=1
import torch
from autograder import check


def brute_force(z, Q, R, S, b, way):
    """The slow specification: the Jacobian of each point; for the belief, that of the layer in M dimensions."""
    M = len(b)

    def f(point):
        return point + Q @ (R @ torch.tanh(S @ (Q.mT @ point) + b))

    def in_the_frame(y, a):
        """The same layer for y = Q'z, if Q'Q = I: its tanh has slope tanh'(a) at y = 0."""
        return y + R @ torch.tanh(S @ y + a)

    log_dets = []
    for point in z.reshape(-1, z.shape[-1]):
        a = S @ (Q.mT @ point) + b
        jacobian = (
            torch.func.jacrev(f)(point)
            if way != "diagonal"
            else torch.func.jacrev(in_the_frame)(torch.zeros(M).to(z), a)
        )
        log_dets.append(torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(log_dets).reshape(z.shape[:-1])


torch.manual_seed(0)
z, skewed = torch.randn(6, 5).double(), torch.randn(5, 3).double()
Q = torch.linalg.qr(skewed).Q
R, S = torch.randn(2, 3, 3).double().triu()
R.diagonal().mul_(torch.sign(R.diagonal() * S.diagonal()))  # then R_ii S_ii > 0
b = torch.tensor([0.3, -0.5, 1.0]).double()
cases = []
for way in ("large", "small", "diagonal"):
    cases += [(z, Q, R, S, b, way), (z, skewed, R, S, b, way), (z[0], Q, R, S, b, way)]
    cases += [(z.reshape(3, 2, 5), Q, R, S, b, way), (z, Q[:, :1], R[:1, :1], S[:1, :1], b[:1], way)]
    cases += [(*(part.float() for part in (z, Q, R, S, b)), way), (z, Q, -4 * R, S, b, way)]  # it folds
check.values("planar.sylvester_log_det", cases, brute_force)

# %% hidden="sylvester_log_det" points=2
import math

import torch
from autograder import check


def reference(z, Q, R, S, b, way):
    a = torch.einsum("...d,dm,nm->...n", z, Q, S) + b
    slope = 4 * torch.sigmoid(2 * a) * torch.sigmoid(-2 * a)
    gram = torch.eye(len(b)).to(z) if way == "diagonal" else Q.mT @ Q
    return torch.linalg.slogdet(torch.eye(len(b)).to(z) + slope.unsqueeze(-1) * (S @ gram @ R)).logabsdet


def condition(z, Q, R, S, b):
    """How many times larger errors may become, in either determinant."""
    slope = 1 - torch.tanh(z @ Q @ S.mT + b).square()
    small = torch.eye(len(b)) + slope.unsqueeze(-1) * (S @ Q.mT @ Q @ R)
    large = torch.eye(len(Q)) + (Q @ R * slope.unsqueeze(-2)) @ (S @ Q.mT)
    return max(torch.linalg.cond(small).max().item(), torch.linalg.cond(large).max().item())


rng = check.rng("planar.sylvester_log_det")
cases = []
for shape, M, dtype in [
    ((2,), 1, torch.float64),
    ((5, 7), 3, torch.float32),
    ((2, 3, 4), 4, torch.float64),
    ((3, 1), 1, torch.float64),
]:
    sizes = [shape, (shape[-1], M), (M, M), (M, M), (M,)]
    single = dtype == torch.float32
    worst = math.inf
    while worst > (30 if single else 1e5):  # near a fold a determinant has no digits
        z, skewed, R, S, b = (torch.from_numpy(rng.normal(size=size)) for size in sizes)
        R, S = (P.triu(1) + torch.diag(P.diagonal().abs() + 0.1) for P in (R, S))
        bases = [torch.linalg.qr(skewed).Q] if single else [torch.linalg.qr(skewed).Q, skewed]
        given = [(z, Q, scale * R, S, b) for Q in bases for scale in (1, -5)]
        worst = max(condition(*parts) for parts in given)  # where scale is -5 it folds
    ways = ("large", "small", "diagonal")
    cases += [(*(part.to(dtype) for part in parts), way) for parts in given for way in ways]
check.values("planar.sylvester_log_det", cases, reference)

# %% [markdown]
# ## 4. Fit what you know up to a constant
#
# We know $\log\tilde p(z) = -U(z)$, where $p = \tilde p/Z$ and nobody tells us $Z$. How far is a model $q$ from $p$? The *Kullback-Leibler divergence*
#
# $$\mathrm{KL}(q \,\|\, p) = \mathbb{E}_q[\log q - \log p] \;\ge\; -\log \mathbb{E}_q[p/q] \;\ge\; 0$$
#
# is never negative: $-\log$ is convex (Jensen), and $\mathbb{E}_q[p/q] = \int p$ where $q > 0$, one at most. It is zero only if $q = p$. Maximum likelihood minimizes the other one, $\mathrm{KL}(\text{data} \,\|\, q)$, over data. We have draws of $q_K$ instead, and minimize the *reverse* one. Since $\log p = \log\tilde p - \log Z$,
#
# $$\mathrm{KL}(q_K \,\|\, p) = \mathbb{E}_{q_0}\bigl[\log q_0(z_0) - \textstyle\sum_k \log\lvert\det J_k\rvert - \log\tilde p(z_K)\bigr] + \log Z .$$
#
# $\log Z$ is a constant: an optimizer needs the bracket alone. That is *variational inference*.
#
# Rezende and Mohamed tested four energies:
#
# $$U_1 = \tfrac12\Bigl(\tfrac{\lvert z\rvert - 2}{0.4}\Bigr)^2 - \log\Bigl(e^{-\frac12\left(\frac{z_1 - 2}{0.6}\right)^2} + e^{-\frac12\left(\frac{z_1 + 2}{0.6}\right)^2}\Bigr), \qquad U_2 = \tfrac12\Bigl(\tfrac{z_2 - \sin(\pi z_1/2)}{0.4}\Bigr)^2,$$
#
# and $U_3$, $U_4$, waves that split in two. $U_2$ does not fade along $z_1$: do all four have a $Z$? The table integrates over larger and larger boxes. Only $U_1$ settles, at 1.8775. For the others $Z$ doubles with the box (the logarithm grows by $\log 2 = 0.6931$): on the plane they are no densities, and "the KL to $U_2$" means nothing before you state a *domain*. Adding $0.1\lvert z_1\rvert$ makes densities of them, too long for a short flow. We fit $U_2$ between soft walls at $\pm 4$, where $\log Z = 2.2002$.

# %% tags=["show", "hide-input"]
fig, axes = plots.figure(columns=4, height=2.6)
for ax, (name, energy) in zip(axes, ENERGIES.items(), strict=True):
    plots.density(ax, lambda z, U=energy.potential: -U(torch.as_tensor(z)), box, n=100)
    ax.set(title=f"exp(-{name})", xlabel="z₁", ylabel="z₂")
plots.show(
    fig,
    alt="U1: two arcs that open towards each other. U2: one wave along z₁. U3: a wave that splits in two around z₁ = 1 and closes again. U4: a wave that is two from z₁ = 1 on.",
)
print("log of the integral of exp(-U) over abs z₁ < B, abs z₂ < 8")
print("         B = 8    B = 16   B = 32   B = 200, with 0.1 abs z₁ added to U")
for name, energy in ENERGIES.items():
    boxes = [
        math.log(targets.integral(lambda z, U=energy.potential: -U(z), (-B, B, -8, 8), 32 * B, torch.float64))
        for B in (8, 16, 32)
    ]
    tailed = ""
    if energy.tail:
        wide = torch.arange(-200, 200, 0.1, dtype=torch.float64) + 0.05
        high = torch.arange(-8, 8, 0.02, dtype=torch.float64) + 0.01
        columns = [torch.stack(torch.meshgrid(part, high, indexing="ij"), -1) for part in wide.split(400)]
        tailed = f"{math.log(sum(energy.log_density(part).exp().sum().item() for part in columns) * 0.1 * 0.02):8.4f}"
    print(f"  {name}  {boxes[0]:8.4f} {boxes[1]:8.4f} {boxes[2]:8.4f}  {tailed}")
between_walls = targets.integral(lambda z: log_target("U2", z), (-8, 8, -8, 8), 800, torch.float64)
print(f"U2 between soft walls: {math.log(between_walls):.4f}, and by hand {LOG_Z['U2']:.4f}")

# %% [markdown] exercise="below_zero" title="the impossible divergence" difficulty=2 importance=5 minutes=8
# Where $Z$ is known, an estimated KL convicts bugs: the true one is never below zero. Write the alarm: `below_zero(log_q, log_p)` gets the log-densities `(N,)` of model and *normalized* target at N draws of the model. It returns the estimate $\hat k$, the mean of $\log q - \log p$; its standard error $s$, the standard deviation of these differences (with $N - 1$) over $\sqrt N$; and the alarm, a bool (or a tensor of one): True if $\hat k < -4s$, and also if $\hat k$ is `nan`.
#
# After the test, six suspects meet *your* alarm. All but one are wrong. Guess first: which pass?
#
# <details><summary>"An estimate that is nan raises no alarm"</summary>
#
# Every comparison with `nan` is False. Ask whether $\hat k \ge -4s$ *fails* to hold.
#
# </details>
# <details><summary>A template</summary>
#
# `difference = ____`, `k = ____`, `s = difference.std() / math.sqrt(____)`, then `return k, s, not bool(k >= ____)`
#
# </details>


# %% solution="below_zero"
def below_zero(log_q, log_p):
    """(KL estimate, its standard error, whether it is impossibly low or nan). log_q, log_p: (N,)."""
    ### BEGIN SOLUTION
    difference = log_q - log_p
    k = difference.mean()
    s = difference.std() / math.sqrt(len(difference))
    return k, s, not bool(k >= -4 * s)
    ### END SOLUTION


# %% test="below_zero" points=2
import math

import torch
from autograder import check
from flowkit.variational import kl_alarm

rng = check.rng("planar.below_zero")
cases = []
for n, dtype in [(400, torch.float64), (50, torch.float64), (1000, torch.float32)]:
    log_p = torch.from_numpy(rng.normal(size=n) - 2).to(dtype)
    noise = torch.from_numpy(rng.normal(size=n)).to(dtype)
    noise = (noise - noise.mean()) / noise.std()  # then the standard error is size / sqrt(n)
    for size in (0.5, 3.0):
        for errors in (-20.0, -5.0, -3.0, 0.0, 3.0, 20.0):
            cases.append((log_p + size * (noise + errors / math.sqrt(n)), log_p))
log_p = torch.zeros(10).double()
broken, empty = (torch.where(torch.arange(10) == 3, bad, log_p) for bad in (torch.nan, -torch.inf))
cases += [(broken, log_p), (log_p, broken), (empty, empty)]
check.values("planar.below_zero", cases, kl_alarm, hidden=False)


# %% tags=["show", "hide-input"]
def mass(log_density, extent=(-8.0, 8.0, -8.0, 8.0), n=700):
    return targets.integral(log_density, extent, n, torch.float64)


alarm = check.yours("planar.below_zero", otherwise=variational.kl_alarm)
z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
w, across = torch.tensor([[1.5, 0.0], [0.5, 0.5]], dtype=torch.float64)
b = torch.tensor(0.3, dtype=torch.float64)
suspects = [  # what is claimed of log q: the share of the log-det that is subtracted, and c = w.u
    ("right, contracts (c = -0.8)", 1, -0.8),
    ("log-det forgotten, contracts", 0, -0.8),
    ("log-det forgotten, stretches (c = 3)", 0, 3.0),
    ("log-det with the wrong sign, contracts", -1, -0.8),
    ("log-det with the wrong sign, stretches", -1, 3.0),
]
print(f"{'suspect, against its own true density':40} {'KL':>7} {'error':>7}  {'alarm':6} mass by quadrature")
for name, share, c in suspects:
    u = across + w * (c - w @ across) / (w @ w)
    y, log_det = reference_layer(z, w, u, b)
    truth = base_log_density(z) - log_det
    kl, error, raised = alarm(base_log_density(z) - share * log_det, truth)

    def claimed(y, share=share, u=u):
        before = reference_inverse(y, w, u, b)
        return base_log_density(before) - share * reference_layer(before, w, u, b)[1]

    print(f"{name:40} {kl:7.3f} {error:7.3f}  {raised!s:6} {mass(claimed):.3f}")
a = z[:, 0]
truth = claims_where_folded(a - 3 * torch.tanh(a)).nansum(0)  # in one dimension, with c = -3
kl, error, raised = alarm(base_log_density(a[:, None]) - (1 - 3 * tanh_slope(a)).abs().log(), truth.log())
print(f"{'folds (c = -3)':40} {kl:7.3f} {error:7.3f}  {raised!s:6} none: it has no inverse")

shifted = new_layers(16, seed=9)  # and the first layer moves everything by 3 to the right
for part, first in zip(shifted, ([0.0, 1.0], [3.0, math.log(math.e - 1)], 6.0), strict=True):
    part[0] = torch.tensor(first)
flows = {
    "start": as_flow(shifted),
    "plain": as_flow(library_fit("U1", shifted, 300, 4e-2, faintest=1.0)),
    "annealed": as_flow(library_fit("U1", shifted, 300, 4e-2)),
}
fig, axes = plots.figure(columns=3)
images = []
print("\nReverse KL to U1, from one start above the right arc, 300 steps:")
for ax, (name, flow) in zip(axes, flows.items(), strict=True):
    images.append(plots.density(ax, flow.log_prob, (-4, 6, -4, 4), n=100))
    ax.set(title=name, xlabel="z₁", ylabel="z₂")
    with torch.no_grad():
        ends = flow.bijection.inverse(z.float())[0]
        kl = variational.kl_alarm(flow.log_prob(ends), log_target("U1", ends) - LOG_Z["U1"])[0]
    print(f"{name:9} KL {kl:6.3f} nats, {(ends[:, 0] > 0).double().mean():.0%} of the draws on the right")
one_scale(images)
plots.show(
    fig,
    alt="Three densities on the plane. The start: a blob around (3, 0). The plain fit: the right arc of U1 alone. The annealed fit, from the same start: both arcs.",
)

# %% [markdown]
# The first KL is exactly zero: claim and truth are the same numbers. A layer that contracts has $\log\lvert\det J\rvert < 0$. Forget that, or its sign, and $\log q$ comes out too low everywhere: a KL below zero, as where the layer folds. If it stretches, $\log q$ is too high, and the alarm is silent: two of five bugs pass. The mass, taken through the inverse, misses none that has one.
#
# Reverse KL has a vice: where $q$ has no mass, nothing complains. Started above one arc, it may never find the other (the pictures). If $q$ covers one of two equal arcs perfectly, $q = 2p$ there, and $\mathrm{KL} = \log 2 = 0.69$, with no slope towards the other. Even a share of 60% to 40% costs 0.02 nats. *Annealing* makes the start matter less: replace $\log\tilde p$ by $\beta\log\tilde p$, with $\beta$ rising from 0.01 to 1 during the first half of the steps. A faint target is a broad one, and $q$ spreads over all of it before it sharpens.

# %% [markdown] exercise="fit_energy" title="bend a Gaussian" difficulty=4 importance=5 minutes=25
# Write `fit_energy(energy, layers, steps, rate)`. `energy` is `"U1"` or `"U2"`, for `log_target(energy, z)`. `layers` is a triple `(w, u, b)` of shapes `(K, 2)`, `(K, 2)`, `(K,)`, the first layer first; each bends with $\hat u$, from `constrain(w, u)`. Return the trained triple, with the free $u$, detached; what came in stays as it was.
#
# Use Adam on 256 fresh draws of $q_0$ a step. ($\mathbb{E}\log q_0(z_0)$ is constant: the loss may do without it.) In step $k$ the step size is `rate * (1 - k / steps)`, and `beta = min(1.0, 0.01 + 2 * k / steps)`. The check starts above *one* arc, takes 300 steps, and wants a KL below 0.6 nats on fresh draws: without annealing it stays near 0.7.
#
# <details><summary>"All my draws end up on one spot"</summary>
#
# Which term rewards $q$ for being spread out, and has it the right sign?
#
# </details>
# <details><summary>"It says: no gradient, a tensor changed in place, or backward through the graph a second time"</summary>
#
# `w = w.clone().requires_grad_()` is a leaf of your own: Adam moves it, and you return it. Compute $\hat u$ from it anew in every step.
#
# </details>
# <details><summary>"The KL stays near 0.7"</summary>
#
# One arc was never found. Print $\beta$: does it start small, and does it multiply the target alone?
#
# </details>
# <details><summary>A template</summary>
#
# In each step: `z = z0`, `total = 0`; for each layer `z, log_det = planar_layer(z, w[i], ____, b[i])` and `total = total + ____`; then `loss = (base_log_density(____) - ____ - ____ * log_target(energy, ____)).mean()`, `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`.
#
# </details>


# %% solution="fit_energy"
def fit_energy(energy, layers, steps, rate):
    """The layers (w, u, b), trained by reverse KL. Returns a triple of tensors, of the shapes that came in."""
    ### BEGIN SOLUTION
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        beta = min(1.0, 0.01 + 2 * k / steps)
        z0 = torch.randn(256, 2, generator=generator)
        z, total, u_hat = z0, 0.0, constrain(w, u)
        for i in range(len(b)):
            z, log_det = planar_layer(z, w[i], u_hat[i], b[i])
            total = total + log_det
        loss = (base_log_density(z0) - total - beta * log_target(energy, z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()
    ### END SOLUTION


# %% test="fit_energy" points=1
import math

import torch
from autograder import check
from flowkit import Compose
from flowkit.energies import ENERGIES
from flowkit.planar import Planar


def start(K, seed, shift):
    """K layers that hardly move a point; with a shift, the first one moves everything by it along z_1."""
    generator = torch.Generator().manual_seed(seed)
    w, noise = torch.randn(2, K, 2, generator=generator)
    b = torch.randn(K, generator=generator)
    if shift:
        w[0], b[0] = torch.tensor([0.0, 1.0]), 6.0
    u = math.log(math.e - 1) * w / w.square().sum(-1, keepdim=True) + 0.1 * noise
    if shift:
        u[0] = torch.tensor([shift, math.log(math.e - 1)])
    return w, u, b


def as_bijection(layers):
    """The layers as flowkit has them: each constrains its u by itself."""
    bends = []
    for w, u, b in zip(*layers, strict=True):
        bend = Planar(2)
        bend.w.data, bend.u.data, bend.b.data = w.detach(), u.detach(), b.detach()
        bends.append(bend)
    return Compose(*bends)


LOG_Z_OF = {"U1": ENERGIES["U1"].log_z, "U2": 2.2002}  # U2 between its walls


def judge(returned, energy, layers, steps, rate):
    """The KL on fresh draws, in nats."""
    shapes = [tuple(part.shape) for part in returned]
    if shapes != [tuple(part.shape) for part in layers]:
        return f"The three tensors that came back have shapes {shapes}. They go out as they came in: w, u, b."
    if any(part.requires_grad for part in returned):
        return "The tensors that came back still record gradients. Which method cuts a tensor off from its graph?"
    still = [name for name, part, was in zip("wub", returned, layers, strict=True) if torch.equal(part, was)]
    if still:
        return (
            f"{', '.join(still)} came back with the numbers that went in. What does your optimizer hold, "
            "and does the gradient of the loss reach it?"
        )
    z0 = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        z, total = as_bijection(returned).forward(z0)
        log_q = -0.5 * z0.square().sum(-1) - math.log(2 * math.pi) - total
        kl = (log_q + ENERGIES[energy].potential(z)).mean().item() + LOG_Z_OF[energy]
        if energy == "U2":
            kl += 0.5 * ((z[:, 0].abs() - 4).clamp(min=0) / 0.4).square().mean().item()
    on_the_right = (z[:, 0] > 0).double().mean()
    if energy == "U2" and not kl <= 2.5:
        return f"With U1 all is well; in {steps} steps from rest the KL to U2 is still {kl:.2g} nats."
    if energy == "U1" and not kl <= 0.6:
        return (
            f"On fresh draws the KL is {kl:.2g} nats, and 0.6 would do; {on_the_right:.0%} of the draws lie on the right. "
            "Does the loss fall? Does the step size? Does each step draw anew? "
            "Does the sum hold the log-determinants of all layers?"
        )


cases = [("U1", start(16, 9, 3.0), 300, 4e-2), ("U2", start(8, 1, 0.0), 60, 5e-2)]
check.that("planar.fit_energy", judge, cases)

# %% hidden="fit_energy" points=2
import math

import torch
from autograder import check
from flowkit.energies import ENERGIES

rng = check.rng("planar.fit_energy")


def start(K, seed, shift, mirror):
    """Layers whose fits are known for many draws, seen in a mirror that leaves the target as it is."""
    generator = torch.Generator().manual_seed(seed)
    w, noise = torch.randn(2, K, 2, generator=generator)
    b = torch.randn(K, generator=generator)
    u = math.log(math.e - 1) * w / w.square().sum(-1, keepdim=True) + 0.1 * noise
    if shift:
        w[0], b[0], u[0] = torch.tensor([0.0, 1.0]), 6.0, torch.tensor([shift, math.log(math.e - 1)])
    return w * mirror, u * mirror, b


def kl_of(returned, energy):
    w, u, b = returned
    c = (w * u).sum(-1, keepdim=True)
    u = u + (torch.logaddexp(c, torch.zeros_like(c)) - 1 - c) * w / w.square().sum(-1, keepdim=True)
    z0 = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(6))
    z, log_q = z0, -0.5 * z0.square().sum(-1) - math.log(2 * math.pi)
    for w_k, u_k, b_k in zip(w, u, b, strict=True):
        h = torch.tanh(z @ w_k + b_k)
        z, log_q = z + h[:, None] * u_k, log_q - torch.log1p((1 - h * h) * (w_k @ u_k))
    if energy == "U1":
        return (log_q + ENERGIES["U1"].potential(z)).mean().item() + ENERGIES["U1"].log_z
    width = 0.4 * math.sqrt(2 * math.pi)
    walls = 0.5 * ((z[:, 0].abs() - 4).clamp(min=0) / 0.4).square()
    return (log_q + ENERGIES["U2"].potential(z) + walls).mean().item() + math.log(width * (8 + width))


def judge_fresh(returned, energy, layers, steps, rate):
    with torch.no_grad():
        kl = kl_of(returned, energy)
    if not -0.1 <= kl <= (0.6 if energy == "U1" else 2.5):
        return f"From another start, on fresh draws, the KL to {energy} is {kl:.2g} nats."


def judge_no_step(returned, energy, layers, steps, rate):
    if not all(torch.equal(part, was) for part, was in zip(returned, layers, strict=True)):
        return "With steps = 0 the layers should come back as they came."


mirror = torch.from_numpy(rng.choice([-1.0, 1.0], size=2)).float()
arcs = ("U1", start(16, int(rng.choice([0, 9])), 3.0, mirror), 300, 4e-2)
wave = ("U2", start(12, int(rng.choice([0, 1])), 0.0, mirror[0]), 80, 5e-2)  # it is odd: both axes turn
check.that("planar.fit_energy", judge_no_step, [("U2", start(3, 5, 0.0, mirror[0]), 0, 5e-2)])
check.that("planar.fit_energy", judge_fresh, [arcs, wave])

# %% tags=["show", "hide-input"]
fit = check.yours("planar.fit_energy", otherwise=library_fit)
layer = check.yours("planar.planar_layer", otherwise=reference_layer)
invert = check.yours("planar.planar_inverse", otherwise=reference_inverse)
alarm = check.yours("planar.below_zero", otherwise=variational.kl_alarm)


def usable(layers):
    """(w, u^, b) of each layer, in double precision."""
    bends = [as_layer(*(part.double() for part in layer)) for layer in zip(*layers, strict=True)]
    return [(bend.w.detach(), bend.constrained()[0].detach(), bend.b.detach()) for bend in bends]


def log_prob(bends, z):
    """log q_K at any point: back through your inverse, layer by layer."""
    total = torch.zeros(z.shape[:-1], dtype=z.dtype)
    for w, u, b in reversed(bends):
        z = invert(z, w, u, b)
        total = total + layer(z, w, u, b)[1]
    return base_log_density(z) - total


print("Two fits of 1,000 steps each: half a minute to a minute.")
trained, results = {}, {}
cloud = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
fig, axes = plots.figure(rows=1, columns=4, width=9.0, height=2.6)
for energy, pair in zip(("U1", "U2"), axes.reshape(2, 2), strict=True):
    bends = trained[energy] = usable(fit(energy, new_layers(32, seed=0), 1000, 3e-2))
    z, log_q = cloud, base_log_density(cloud)
    for w, u, b in bends:
        z, log_det = layer(z, w, u, b)
        log_q = log_q - log_det
    kl, error, raised = alarm(log_q, log_target(energy, z) - LOG_Z[energy])
    total = mass(partial(log_prob, bends), (-6.0, 6.0, -6.0, 6.0), 300)
    results[energy] = (kl.item(), bool(raised), total)
    print(
        f"{energy}: KL {kl:.4f} nats, give or take {error:.4f}; alarm {raised}; mass through your inverse {total:.5f}; "
        f"{(z[:, 0] > 0).double().mean():.0%} of the draws on the right"
    )
    window = (-5.0, 5.0, -5.0, 5.0) if energy == "U2" else box
    shown = {
        "target": lambda z, energy=energy: log_target(energy, z) - LOG_Z[energy],
        "yours": partial(log_prob, bends),
    }
    images = []
    for ax, (name, log_density) in zip(pair, shown.items(), strict=True):
        images.append(plots.density(ax, lambda z, f=log_density: f(torch.as_tensor(z)), window, n=100))
        ax.set(title=f"{energy}: {name}", xlabel="z₁", ylabel="z₂")
    one_scale(images)
plots.show(
    fig,
    alt="Four densities, each pair on one colour scale: the two arcs of U1 and the flow's, nearly alike; the two waves of U2 between its walls and the flow's, nearly alike.",
)
print(
    "Now drag the number of bends. With U1: which of them tear (w·u > 0.5)? "
    "Is the gap the work of one bend, or of several? With U2, is anything cut?"
)


def draw_steps(scene, energy, step):
    z = cloud[:1500]
    ends = z
    for k, (w, u, b) in enumerate(trained[energy]):
        ends = layer(ends, w, u, b)[0]
        z = ends if k < step else z
    right = ends[:, 0] > 0
    scene.axes(x=(-5, 5), y=(-4, 4), xlabel="z₁", ylabel="z₂", title=f"after {step} of 32 bends", equal=True)
    scene.points(z[right], colour=plots.BLUE, size=4, label="will end on the right")
    scene.points(z[~right], colour=plots.ORANGE, size=5, marker="cross", label="will end on the left")
    inside = (z.norm(dim=-1) < 1).double().mean().item()
    start = f"After {step} bends, {inside:.0%} of the points lie within 1 of the centre; of all normal points, 39% do."
    if step == 0:
        return start
    w, u, _ = trained[energy][step - 1]
    tearing = sum((w @ u > 0.5).item() for w, u, _ in trained[energy])
    does = "contracts" if w @ u < 0 else "stretches a little" if w @ u < 0.5 else "tears apart"
    end = f" In all, {tearing} of 32 tear." if step == 32 else ""
    return f"{start} Bend {step} {does}: its w·u is {w @ u:.2f}.{end}"


play(draw_steps, energy=choice(["U1", "U2"], label="target"), step=slider(0, 32, 16, label="bends applied"))

# %% [markdown]
# ## What you have seen
#
# - A planar layer is the identity plus rank one: its determinant is $1 + \tanh'(a)\, w^\top u$, in $O(D)$. Radial layers have $D - 1$ factors of one kind and one of another; Sylvester's identity trades $D \times D$ for $M \times M$.
# - It folds when $w^\top u < -1$; $\hat u$ makes that impossible. Its inverse is one scalar root a point.
# - Reverse KL needs the target up to a constant, and draws of the model. Started above one arc it may never find the other, at a price of $\log 2$; annealing makes the start matter less. If it falls below zero, look for a bug.
#
# So you bend a Gaussian into a target by minimizing a mean over your own draws. One bend touches one direction, and its ridge runs along a whole hyperplane: two dimensions took 32 of them. A thousand ask for other layers.
#
# **The words of this lesson**
#
# <!-- words -->
#
# **Where it is used.** Variational inference in few dimensions, and the posteriors of variational autoencoders.
#
# **Further reading.** Rezende and Mohamed, *Variational inference with normalizing flows* (2015): these layers, their constraints and the four energies. Van den Berg, Hasenclever, Tomczak and Welling, *Sylvester normalizing flows for variational inference* (2018). Kong and Chaudhuri, *The expressive power of a class of normalizing flow models* (2020): what such layers cannot reach.
#
# **What it costs.** The inverse of a planar layer is the forward map and one root, whatever $D$ is.

# %% tags=["show", "hide-input"]
from flowkit.lab import costs

costs.show(topic="planar", seed=0)
