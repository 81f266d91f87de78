# %% [markdown]
# # Continuous flows
#
# Below, a network says at each point of the plane and each time which way to go, and how fast. Who follows it from two moons at time 0 ends at time 1 in roughly a round Gaussian, but for a seam that its 1,500 training steps left open; who follows it backwards, from noise, ends in the moons. No mask, no triangular Jacobian, and nobody takes a determinant.
#
# **Let points drift along a field instead of passing through layers. What becomes of the determinant, and of the demand that the map can be inverted?**
#
# You will be able to
#
# - derive the instantaneous change of variables;
# - take a trace exactly in $D$ products, or estimate it without bias in one;
# - solve for a point and its log-det at once, in steps chosen by a tolerance;
# - tell a sound flow from one whose noise is redrawn, or whose log-det is wrong;
# - fit one density by likelihood and by flow matching, and compare the costs.

# %%
import math
import time
from functools import partial

import torch

from autograder import check
from flowkit.lab import plots
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.lab.widgets import choice, play, predict, slider
from flowkit.ode import integrate

torch.set_num_threads(1)  # the networks are small: sharing them out among cores costs more than it saves


def normal_log_density(z):
    """log N(z; 0, I): (..., D) -> (...)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def pulled(weights, t, x, e):
    """(dg/dx)' e at each point, by automatic differentiation: e (..., D), as x -> (..., D).

    One product, at about the cost of two evaluations of the field.
    """
    return torch.func.vjp(lambda x: apply_field(weights, t, x), x)[1](e)[0]


def least_time(function):
    """The shortest of five calls, in milliseconds."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def trainable(weights):
    """A copy of the weights that asks for gradients."""
    return [tuple(w.detach().clone().requires_grad_() for w in layer) for layer in weights]


def detached(weights):
    """The weights as plain tensors."""
    return [(W.detach(), b.detach()) for W, b in weights]


# %% tags=["show", "hide-input"]
from flowkit import continuous, flow_matching
from flowkit.lab import targets

moons = targets.two_moons()
moons_field = trainable(mlp_weights(3, 2, (64, 64), seed=0))
flow_matching.fit_batches(
    flow_matching.matching_batches(partial(apply_field, moons_field)),
    [w for layer in moons_field for w in layer],
    moons.sample(100_000, seed=0),
    steps=1500,
    rate=1e-2,
)
moons_field = detached(moons_field)


def carried(x, t0, t1, steps=24):
    """Points alone, from time t0 to t1, along the field of the picture."""
    return integrate(partial(apply_field, moons_field), x, t0, t1, steps)


cloud = moons.sample(1500, seed=1)
angle = torch.linspace(0, math.pi, 200)
curve = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], -1)  # the upper moon; the lower mirrors it
upper = torch.cdist(cloud, curve).amin(-1) < torch.cdist(cloud, -curve).amin(-1)
some = torch.randn(12, 2, generator=torch.Generator().manual_seed(5))
trails = torch.stack([carried(some, 1.0, t) if t < 1 else some for t in torch.linspace(1, 0, 25).tolist()])

fig, axes = plots.figure(columns=4, height=2.7)
for ax, t in zip(axes[:3], (0.0, 0.5, 1.0), strict=True):
    points = carried(cloud, 0.0, t) if t else cloud
    ax.plot(*points[upper].T, ".", markersize=2, color=plots.BLUE, label="upper moon")
    ax.plot(*points[~upper].T, "x", markersize=2, color=plots.ORANGE, label="lower moon")
    name = {0.0: "data, t = 0", 0.5: "t = 1/2", 1.0: "noise, t = 1"}[t]
    ax.set(xlabel="first dimension", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", title=name)
axes[0].set_ylabel("second")
axes[3].plot(*trails.permute(2, 0, 1), "-", color=plots.GREY, linewidth=1)
axes[3].plot(*some.T, "s", markersize=4, color=plots.PURPLE, label="noise")
axes[3].plot(*trails[-1].T, "o", markersize=4, color=plots.GREEN, label="data")
axes[3].set(xlabel="first dimension", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
axes[3].set_title("12 paths")
for ax in (axes[0], axes[3]):
    ax.legend(loc="lower center", ncols=2, fontsize=7, markerscale=1.5, columnspacing=1, handletextpad=0.2)
plots.show(
    fig,
    alt="Four pictures. Two interleaved crescents of points at time 0; the same points at time one half, in two bent bands that have swollen; at time 1 a roughly round cloud, with a narrow seam between the moons and a tail to the upper right. Last, twelve curved paths from squares, noise, to dots, data.",
)

# %% [markdown]
# ## 1. A field, and its flow
#
# A *field* $g(t, x)$ gives a velocity to every point at every time. A point that follows it solves an *ordinary differential equation* (ODE):
#
# $$\frac{dx}{dt} = g(t, x), \qquad x(0) = x \text{ (data)}, \qquad x(1) = z \text{ (noise)}.$$
#
# The simplest *solver* takes short straight steps, $x(t + h) \approx x(t) + h\,g(t, x(t))$: *Euler's method*. Each is a residual layer, the point plus a network of it. The limit of ever more and shorter ones is a *neural ODE*, and as a density a *continuous normalizing flow*, CNF.
#
# Is it a bijection? The way back is the same equation from $t = 1$ to $t = 0$. It fails only if two paths meet, or if one runs off to infinity, as $dx/dt = x^2$ does. Neither can happen if $g$ is *Lipschitz* in $x$: if $\lVert g(t,x) - g(t,y)\rVert \le L \lVert x - y\rVert$ for some number $L$, the distance $r$ of two paths obeys $-Lr \le dr/dt \le Lr$: it shrinks at most like $e^{-Lt}$, never to zero. Nor can a path run off: its speed grows at most in proportion to its distance, so the distance at most exponentially. A network of $\tanh$ layers is Lipschitz whatever its weights; one of ReLU too, but its derivative jumps. So a demand on the *map*, to be bijective, has become a mild demand on the *field*. The price: on the line, where paths cannot go round one another, they keep their order, and only increasing maps are left.
#
# A *solver's* map is another matter. Take $g(x) = -4x$. The exact flow is $z = e^{-4}x$, with log-derivative $-4$. Each of $n$ Euler steps multiplies by $1 - 4/n$. **Guess first:** for which $n$ has their map no inverse?

# %% tags=["show"]
print("  n      z at x = 1    log abs dz/dx     order of points")
for n in (1, 2, 3, 4, 5, 8, 64, 1024):
    factor = (1 - 4 / n) ** n
    log_slope = n * math.log(abs(1 - 4 / n)) if n != 4 else -math.inf
    fate = "collapsed" if factor == 0 else "kept" if 1 - 4 / n > 0 else "reversed in every step"
    print(f"{n:4}    {factor:12.5f}   {log_slope:12.4f}     {fate}")
print(f"exact   {math.exp(-4):12.5f}   {-4:12.4f}     kept")

# %% [markdown]
# Only for $n = 4$; with $n < 4$ the points overtake one another in every step. From $n = 5$ on $hL < 1$, and every step keeps their order. And the third column tends to $-4$, the slope of $g$ itself.
#
# ## 2. The instantaneous change of variables
#
# One Euler step has the Jacobian $I + hA$, where $A = \partial g/\partial x$, with entries $A_{ij} = \partial g_i/\partial x_j$. If $\lambda_i$ are the eigenvalues of $A$ (complex ones in conjugate pairs), its determinant is $\prod_i (1 + h\lambda_i)$, so for small $h$
#
# $$\log\lvert\det(I + hA)\rvert = \sum_i \log(1 + h\lambda_i) = h \sum_i \lambda_i + O(h^2) = h \operatorname{tr} A + O(h^2).$$
#
# A point's log-density *falls* by that: where a field spreads points out, they get sparser. Divide by $h$, let it go to zero, and you have the *instantaneous change of variables*, along a path:
#
# $$\frac{d}{dt} \log p_t(x(t)) = -\operatorname{tr} \frac{\partial g}{\partial x}, \qquad\text{so}\qquad \log p_X(x) = \log p_Z(z) + \int_0^1 \operatorname{tr} \frac{\partial g}{\partial x}\,dt .$$
#
# The log-determinant of the flow is the integral of a trace, the field's *divergence*. For the linear field $g = Ax$ it is constant, and the log-det over a time $t$ is exactly $t \operatorname{tr} A$: a check for everything below. Most papers let $t$ run from noise to data: their field at $t$ is minus ours at $1 - t$, and their integral has our sign reversed.

# %% [markdown] exercise="step_defect" title="what a step leaves out" difficulty=2 importance=4 minutes=8
# How good is the trace for a step that is not infinitely short? Derive $c$ in
#
# $$\log\lvert\det(I + hA)\rvert = h \operatorname{tr} A + c\,h^2 + O(h^3).$$
#
# Type it as `step_defect(A)`; the check refuses `torch.linalg` and all determinants. `A` has shape `(..., D, D)`, the result `(...)`. In $n$ steps of length $1/n$ along a linear field $c h^2$ adds up to $c/n$, the error of Euler's log-det: check your $c$ against the table's line for $n = 1024$, where $A = -4$.
#
# <details><summary>"Where do I start?"</summary>
#
# Write each $\log(1 + h\lambda_i)$ to second order. The sum of the eigenvalues is a trace. What matrix has the eigenvalues $\lambda_i^2$?
#
# </details>
# <details><summary>A template</summary>
#
# `return ____ * (____).diagonal(dim1=-2, dim2=-1).sum(-1)`
#
# </details>


# %% solution="step_defect"
def step_defect(A):
    """The coefficient of h^2 in log abs det(I + h A). A: (..., D, D) -> (...)."""
    ### BEGIN SOLUTION
    return -0.5 * (A @ A).diagonal(dim1=-2, dim2=-1).sum(-1)  # log(1 + u) = u - u^2/2 + ...
    ### END SOLUTION


# %% test="step_defect" points=1
import torch
from autograder import check


def measured(A, h=1e-3):
    """The slow specification: what a step and a step back have in common is c h^2, to fourth order."""
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    forth, back = torch.linalg.slogdet(eye + h * A).logabsdet, torch.linalg.slogdet(eye - h * A).logabsdet
    return (forth + back) / (2 * h**2)


torch.manual_seed(0)
cases = [(torch.tensor([[-4.0]], dtype=torch.float64),)]
cases += [(torch.randn(*shape, dtype=torch.float64),) for shape in [(2, 2), (4, 3, 3), (2, 2, 5, 5)]]
determinants = [f"{owner}.{name}" for owner in ("torch", "") for name in ("det", "logdet", "slogdet")]
check.without("continuous.step_defect", "torch.linalg", *determinants)
check.values("continuous.step_defect", cases, measured, rtol=1e-4, atol=1e-4)

# %% hidden="step_defect" points=1
import torch
from autograder import check


def by_eigenvalues(A):
    return (-0.5 * torch.linalg.eigvals(A.double()).square().sum(-1).real).to(A.dtype)


rng = check.rng("continuous.step_defect")
cases = []
for shape in [(1, 1), (3, 2, 2), (2, 3, 7, 7)]:
    for dtype in (torch.float32, torch.float64):
        cases.append((torch.from_numpy(rng.normal(size=shape)).to(dtype),))
cases.append((torch.triu(torch.from_numpy(100 * rng.normal(size=(4, 4))), 1),))  # nilpotent: c = 0
check.values("continuous.step_defect", cases, by_eigenvalues, rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## 3. Three prices for one number
#
# A general layer needs its whole Jacobian and a determinant, $O(D^3)$. A field needs the diagonal of its Jacobian alone. Automatic differentiation gives $A^\top e$ for a vector $e$ in one backward pass. With $e$ the $i$-th unit vector, entry $i$ of that product is $A_{ii}$: the exact trace takes $D$ products, $O(D^2)$ if an evaluation of the field is $O(D)$.
#
# FFJORD (Grathwohl and others) takes *one* product, $O(D)$. Draw a random $e$ with mean 0 and covariance $I$, a *probe*. Then
#
# $$\mathbb{E}\,[\,e^\top A\,e\,] = \sum_{ij} A_{ij}\,\mathbb{E}[e_i e_j] = \sum_i A_{ii} = \operatorname{tr} A :$$
#
# *Hutchinson's estimator*, right on average whatever $A$ is. Probes are Gaussian, or *Rademacher*, whose entries are $+1$ or $-1$ with equal chance.

# %% [markdown] exercise="divergence" title="a trace, exact or estimated" difficulty=2 importance=5 minutes=12
# Write `divergence(weights, t, x, probes=None)`. The field is `apply_field(weights, t, x)`, of $\tanh$ layers; `t` is a number, `x` has shape `(..., D)`, and the result `(...)`.
#
# - Without probes: the exact trace of $\partial g/\partial x$ at each point, in $D$ products.
# - With `probes`, of shape `(K, ..., D)`: the mean of $e^\top (\partial g/\partial x)\,e$ over the K probes, where each point has its own $e$.
#
# `pulled(weights, t, x, e)` from the first cell gives $(\partial g/\partial x)^\top e$ at all points at once, for an `e` of the shape of `x`. In section 5 gradients go through your functions: no `.item()`, no `.detach()`.
#
# <details><summary>"My exact trace is the sum of all entries of the Jacobian"</summary>
#
# One product with a vector of ones mixes all rows. Which entry of the product with the $i$-th unit vector, `torch.eye(D, dtype=x.dtype)[i].expand_as(x)`, do you want?
#
# </details>
# <details><summary>A template</summary>
#
# `sum(pulled(weights, t, x, ____)[..., i] for i in range(____))`, and `sum((____ * e).sum(____) for e in probes) / ____`.
#
# </details>


# %% solution="divergence"
def divergence(weights, t, x, probes=None):
    """tr(dg/dx) at each point, or its estimate. x: (..., D); probes: None or (K, ..., D) -> (...).

    >>> divergence([(torch.tensor([[2.0], [0.0]]), torch.zeros(1))], 0.0, torch.ones(5, 1))    # g = 2x
    tensor([2., 2., 2., 2., 2.])
    """
    ### BEGIN SOLUTION
    if probes is None:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        return sum(pulled(weights, t, x, e.expand_as(x))[..., i] for i, e in enumerate(units))
    return sum((pulled(weights, t, x, e) * e).sum(-1) for e in probes) / len(probes)
    ### END SOLUTION


# %% test="divergence" points=1
import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights


def with_whole_jacobians(weights, t, x, probes=None):
    """The slow specification: the Jacobian at each point, and its trace, or e' J e for each probe."""
    D = x.shape[-1]
    jacobians = torch.stack(
        [torch.func.jacrev(lambda y: apply_field(weights, t, y))(point) for point in x.reshape(-1, D)]
    ).reshape(*x.shape, D)
    if probes is None:
        return torch.einsum("...ii->...", jacobians)
    return torch.einsum("k...i,...ij,k...j->k...", probes, jacobians, probes).mean(0)


# First a linear field, to work out on paper: g_1 = x_1 + 3 x_2, g_2 = 5 x_1 - 2 x_2 + t.
W, b = torch.tensor([[1.0, 5.0], [3.0, -2.0], [0.0, 1.0]], dtype=torch.float64), torch.zeros(2).double()
points = torch.tensor([[0.5, -1.0], [2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
cases = [
    ([(W, b)], 0.0, points, None),
    ([(W, b)], 0.0, points, torch.tensor([[[1.0, 2.0], [2.0, -1.0], [0.0, 3.0]]], dtype=torch.float64)),
]
torch.manual_seed(0)
net = mlp_weights(4, 3, (8, 8), zero_last=False, dtype=torch.float64)
x = torch.randn(4, 3, dtype=torch.float64)
for some in (x, x[0], x.reshape(2, 2, 3)):  # a batch, a single point, a batch of batches
    one, three = torch.randn(1, *some.shape).double(), torch.randn(3, *some.shape).double()
    cases += [(net, 0.3, some, None), (net, 0.3, some, one), (net, 0.3, some, three)]
trained = [tuple(w.clone().requires_grad_() for w in layer) for layer in net]  # gradients go back to these
cases += [(trained, 0.3, x, None), (trained, 0.3, x, torch.ones(1, 4, 3).double())]
check.without("continuous.divergence", ".item", ".detach")
check.values("continuous.divergence", cases, with_whole_jacobians)

# %% hidden="divergence" points=2
import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights


def reference(weights, t, x, probes=None):
    """Without automatic differentiation: the Jacobian as a product of matrices, layer by layer."""
    *hidden, (W, _) = weights
    h = torch.cat([x, torch.full_like(x[..., :1], t)], -1)
    J = torch.eye(x.shape[-1] + 1, dtype=x.dtype)[: x.shape[-1]].expand(*x.shape, -1)
    for V, c in hidden:
        h = torch.tanh(h @ V + c)
        J = (J @ V) * (1 - h.square())[..., None, :]
    J = J @ W  # J[..., j, i] is dg_i/dx_j
    if probes is None:
        return J.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (probes * (J @ probes[..., None])[..., 0]).sum(-1).mean(0)


rng = check.rng("continuous.divergence")
cases = []
for shape, dtype in [((1,), torch.float64), ((5, 7), torch.float32), ((2, 3, 4), torch.float64)]:
    D = shape[-1]
    net = mlp_weights(D + 1, D, (9,), int(rng.integers(2**31)), False, dtype)
    x = torch.from_numpy(rng.normal(size=shape)).to(dtype)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=(5, *shape))).to(dtype)
    normal = torch.from_numpy(rng.normal(size=(2, *shape))).to(dtype)
    cases += [(net, float(rng.uniform()), x, probes) for probes in (None, signs, normal, signs[:1])]
cases.append((net, 1.0, 1e3 * x, None))  # where every tanh is flat
check.values("continuous.divergence", cases, reference)

# %% tags=["show", "hide-input"]
predict(
    "A field moves each dimension by itself, g_i = a_i x_i: its Jacobian is diagonal. What is the variance of Hutchinson's estimate with one Rademacher probe?",
    [
        "Twice the sum of the a_i squared, as with a Gaussian one",
        "Zero: every probe gives the trace",
        "It grows with D, whatever the a_i",
    ],
)


# %% tags=["show"]
def reference_divergence(weights, t, x, probes=None):
    field = partial(apply_field, weights)
    if probes is None:
        return continuous.exact_divergence(field, t, x)[1]
    return continuous.hutchinson_divergence(field, t, x, probes)[1]


my_divergence = check.yours("continuous.divergence", otherwise=reference_divergence)
torch.manual_seed(0)
D, N = 16, 50_000
full = torch.randn(D, D) / 4
for name, A in {"diagonal": torch.diag(full.diagonal()), "full": full}.items():
    linear = [(torch.cat([A.mT, torch.zeros(1, D)]), torch.zeros(D))]
    x, squares = torch.zeros(N, D), ((A + A.mT) / 2).square()  # S = (A + A')/2, squared entry by entry
    formulas = {"Gaussian": 2 * squares.sum(), "Rademacher": 2 * (squares.sum() - squares.diagonal().sum())}
    for noise, formula in formulas.items():
        probes = torch.randn(1, N, D) if noise == "Gaussian" else torch.randn(1, N, D).sign()
        estimates = my_divergence(linear, 0.0, x, probes)
        print(
            f"{name:8} {noise:10}  trace {A.diagonal().sum():6.3f}, mean of {N} estimates {estimates.mean():6.3f};"
            f"  variance {estimates.var():5.2f}, formula {formula:5.2f}"
        )


def all_rows(weights, t, x):
    """The rows of the Jacobian, by D products."""
    return [pulled(weights, t, x, e.expand_as(x)) for e in torch.eye(x.shape[-1])]


def log_det_of_jacobian(weights, t, x):
    """The general layer's way: the whole Jacobian, and its determinant."""
    return torch.linalg.slogdet(torch.stack(all_rows(weights, t, x), -2)).logabsdet


print("\nmilliseconds for 64 points:   D   one probe   exact trace   Jacobian and determinant")
for D in (16, 64, 256):
    net, x = mlp_weights(D + 1, D, (32,), zero_last=False), torch.randn(64, D)
    e = torch.randn(64, D).sign()
    ms = [
        least_time(partial(pulled, net, 0.0, x, e)),  # what a trace costs is its products
        least_time(partial(all_rows, net, 0.0, x)),
        least_time(partial(log_det_of_jacobian, net, 0.0, x)),
    ]
    print(f"{D:31} {ms[0]:11.2f} {ms[1]:13.2f} {ms[2]:26.2f}")

# %% [markdown]
# With $S = (A + A^\top)/2$ the estimate is a sum of uncorrelated terms:
#
# $$e^\top A\,e = \sum_i S_{ii}\,e_i^2 + 2 \sum_{i<j} S_{ij}\,e_i e_j .$$
#
# Each $e_i e_j$ with $i \ne j$ has variance 1, and $4\sum_{i<j} = 2\sum_{i\ne j}$: signs, which square to 1, have the variance $2\sum_{i \ne j} S_{ij}^2$. A Gaussian $e_i^2$ has variance 2, which adds $2\sum_i S_{ii}^2$. The mean of K probes has a K-th of either.
#
# And the prices: the Jacobian takes the same $D$ products as its exact trace. Up to $D = 64$ the determinant is hardly seen: the products are the price, and one probe takes one.

# %% [markdown] exercise="transport" title="a point and its log-det, in one solve" difficulty=3 importance=5 minutes=15
# Now the flow. Let a point carry its log-det along: the *state* is the pair $(x, \ell)$, with $dx/dt = g(t, x)$ and $d\ell/dt = \operatorname{tr} \partial g/\partial x$, from $\ell = 0$. One solve gives both. Write `transport(weights, x, t0, t1, steps, probes=None)`, which takes points `(..., D)` from time `t0` to `t1` and returns the pair (points, log-det), of shapes `(..., D)` and `(...)`.
#
# The solver is there: `integrate(slope, state, t0, t1, steps)` takes equal steps of the *Runge-Kutta method* RK4, whose error falls as $h^4$ where Euler's falls as $h$; it looks at the slope four times a step. `slope(t, state)` is a function that you define inside yours; a state is a tensor or a tuple of tensors, and the slope a like one. `t1` may be smaller than `t0`: then the points go back towards the data, and the log-det is that of the way back. Probes, where they are given, are the *same at all times* of the solve.
#
# Then drag the time: the interactive runs *your* function.
#
# <details><summary>"integrate complains about shapes"</summary>
#
# For points `(..., D)` the log-det has shape `(...)`: start from `torch.zeros_like(x[..., 0])`.
#
# </details>
# <details><summary>A template</summary>
#
# `def slope(t, state):`, in it `x, _ = state` and `return ____, ____`. Then `return integrate(slope, (x, ____), t0, t1, steps)`.
#
# </details>


# %% solution="transport"
def transport(weights, x, t0, t1, steps, probes=None):
    """Points at t1, and log abs det of the map that took them there. x: (..., D) -> (..., D) and (...)."""

    ### BEGIN SOLUTION
    def slope(t, state):
        x, _ = state
        return apply_field(weights, t, x), divergence(weights, t, x, probes)

    return integrate(slope, (x, torch.zeros_like(x[..., 0])), t0, t1, steps)
    ### END SOLUTION


# %% test="transport" points=1
import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.ode import integrate


def whole_jacobian(weights, x, t0, t1, steps, probes=None):
    """The slow specification: the Jacobian of the whole map at each point, and its determinant.

    Of probes, which are fixed, the integral of e' A e is asked: with forward differences for A e.
    """

    def move(point):
        return integrate(lambda t, y: apply_field(weights, t, y), point, t0, t1, 12)

    def estimate(t, state):
        v, h = apply_field(weights, t, state[0]), 1e-6
        moved = torch.stack([apply_field(weights, t, state[0] + h * e) for e in probes])
        return v, ((moved - v) / h * probes).sum(-1).mean(0)

    if probes is not None:
        return integrate(estimate, (x, torch.zeros_like(x[..., 0])), t0, t1, 12)
    jacobians = torch.func.vmap(torch.func.jacrev(move))(x.reshape(-1, x.shape[-1]))
    return move(x), torch.linalg.slogdet(jacobians).logabsdet.reshape(x.shape[:-1])


# First a linear field, to work out on paper: g = (x_1 + 3 x_2, x_2 / 2), so the log-det is 3/2 in all.
W, b = torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 0.0]], dtype=torch.float64), torch.zeros(2).double()
point = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
cases = [([(W, b)], point, 0.0, 1.0, 8), ([(W, b)], point, 1.0, 0.0, 8)]
torch.manual_seed(0)
net = mlp_weights(4, 3, (8,), zero_last=False, dtype=torch.float64)
x = torch.randn(4, 3, dtype=torch.float64)
for some in (x, x[0], x.reshape(2, 2, 3)):  # a batch, a single point, a batch of batches
    cases += [(net, some, 0.0, 1.0, 8), (net, some, 1.0, 0.0, 8), (net, some, 0.25, 0.75, 5)]
cases += [(net, y, 0.0, 1.0, 8, torch.randn(2, *y.shape).double().sign()) for y in (x, x[0])]
trained = [tuple(w.clone().requires_grad_() for w in layer) for layer in net]  # gradients go back to these
cases.append((trained, x, 0.0, 1.0, 8))
check.values("continuous.transport", cases, whole_jacobian, rtol=1e-4, atol=1e-4)

# %% hidden="transport" points=3
import torch
from autograder import check
from flowkit.continuous import exact_divergence, hutchinson_divergence
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.ode import integrate


def reference(weights, x, t0, t1, steps, probes=None):
    def slope(t, state):
        g = lambda t, x: apply_field(weights, t, x)  # noqa: E731
        exact = probes is None
        return exact_divergence(g, t, state[0]) if exact else hutchinson_divergence(g, t, state[0], probes)

    return integrate(slope, (x, x.new_zeros(x.shape[:-1])), t0, t1, steps)


def closed_form(weights, x, t0, t1, steps):
    A = weights[0][0][:-1].mT
    log_det = (t1 - t0) * A.diagonal().sum()
    return x @ torch.linalg.matrix_exp((t1 - t0) * A).mT, log_det.expand(x.shape[:-1])


rng = check.rng("continuous.transport")
cases = []
for shape, dtype in [((1,), torch.float64), ((5, 7), torch.float32), ((2, 3, 4), torch.float64)]:
    D = shape[-1]
    net = mlp_weights(D + 1, D, (9,), int(rng.integers(2**31)), False, dtype)
    x = torch.from_numpy(rng.normal(size=shape)).to(dtype)
    probes = torch.from_numpy(rng.normal(size=(2, *shape))).to(dtype)
    t0, t1 = rng.uniform(size=2).tolist()
    cases += [(net, x, 0.0, 1.0, 8), (net, x, 1.0, 0.0, 1), (net, x, t0, t1, 5), (net, x, t0, t1, 3, probes)]
check.values("continuous.transport", cases, reference)
A = torch.from_numpy(rng.normal(size=(7, 7)) / 3)
linear = [(torch.cat([A.mT, torch.zeros(1, 7).double()]), torch.zeros(7).double())]
x = torch.from_numpy(rng.normal(size=(3, 7)) * 100)
cases = [(linear, x, 0.0, 1.5, 48), (linear, x, 1.0, 0.0, 48)]
check.values("continuous.transport", cases, closed_form, rtol=1e-5, atol=1e-4)  # of hundreds


# %% tags=["show", "hide-input"]
def reference_transport(weights, x, t0, t1, steps):
    field, zeros = partial(apply_field, weights), torch.zeros_like(x[..., 0])
    points, log_p = continuous.transport(field, x, zeros, torch.linspace(t0, t1, steps + 1))
    return points[-1], -log_p[-1]


arrows = targets.grid((-3, 3, -3, 3), 9)[0].reshape(-1, 2)
rim_angle = torch.linspace(0, 2 * math.pi, 41)
rim = torch.stack([rim_angle.cos(), rim_angle.sin()], -1)
few, radius = cloud[:250], 0.2


def enclosed(path):
    """The area within a closed path, by the shoelace formula."""
    x, y = path.T
    return 0.5 * (x * y.roll(-1) - x.roll(-1) * y).sum().abs().item()


def draw_transport(scene, t, place):
    f = check.yours("continuous.transport", otherwise=reference_transport)
    centre = curve[int(place * (len(curve) - 1))]
    first = centre + radius * rim
    start = torch.cat([few, first, centre[None]])
    x, log_det = (
        f(moons_field, start, 0.0, t, max(2, round(8 * t))) if t else (start, torch.zeros(len(start)))
    )
    cell, log_det = x[len(few) : -1], log_det[-1].item()
    v = apply_field(moons_field, t, arrows)
    plane = {"x": (-3.2, 3.2), "y": (-3.2, 3.2), "xlabel": "first dimension", "equal": True}
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    left.axes(title=f"the field at t = {t:.2f}", ylabel="second", **plane)
    left.arrow(*arrows.T, *(arrows + 0.25 * v).T, colour=plots.GREY, width=1)
    right.axes(title=f"points at t = {t:.2f}", **plane)
    right.points(x[: len(few)][upper[: len(few)]], colour=plots.BLUE, size=3, label="upper moon")
    right.points(
        x[: len(few)][~upper[: len(few)]], colour=plots.ORANGE, size=4, marker="cross", label="lower moon"
    )
    right.polygon(cell, colour=plots.PURPLE, hatch=True, width=3, label="marked cell")
    right.curve(first, colour=plots.BLACK, width=1.5, dash="dashed", label="the cell at t = 0")
    growth = enclosed(cell) / enclosed(radius * rim)
    return (
        f"At t = {t:.2f} the marked cell has {growth:.2f} times its first area; the log-det at its centre is "
        f"{log_det:.3f}, and exp of that is {math.exp(log_det):.2f}."
    )


play(
    draw_transport,
    t=slider(0.0, 1.0, 0.5, step=0.05, label="time"),
    place=slider(0.0, 1.0, 0.3, step=0.05, label="place of the cell on the upper moon"),
)

# %% [markdown]
# ## 4. Steps chosen by a tolerance
#
# How many steps are enough depends on field, place and time. An *adaptive* solver measures its own error while it goes: it takes each step by two methods of different order that share their evaluations of the field, and takes their difference for the error. The cheapest pair is Euler and *Heun*:
#
# $$k_1 = g(t, x), \qquad k_2 = g(t + h,\; x + h k_1), \qquad \underbrace{x + h k_1}_{\text{Euler}}, \qquad \underbrace{x + \tfrac{h}{2}(k_1 + k_2)}_{\text{Heun}}, \qquad \text{difference } \tfrac{h}{2}(k_2 - k_1).$$
#
# If its largest entry is at most the *tolerance*, the step is *accepted*, with Heun's point, the better of the two. Otherwise it is *rejected* and tried again, shorter. Since the difference falls as $h^2$, the step that just meets the tolerance is $h \sqrt{\text{tolerance}/\text{error}}$. The price of a solve is its number of *function evaluations*, of the field: two for each step tried. Real solvers pair orders 5 and 4 (Dormand and Prince).

# %% [markdown] exercise="solve_adaptive" title="error against tolerance" difficulty=3 importance=4 minutes=15
# Write `solve_adaptive(weights, x, tolerance)`: it takes points `x`, `(..., D)`, from $t = 0$ to $t = 1$ by the pair above, without log-det. Return three things: the points at $t = 1$; the list of times `[0.0, ..., 1.0]` at which accepted steps begin and end; and the number of evaluations.
#
# All points take the same steps. The rules:
#
# - `h` begins at 0.1. A step never goes past $t = 1$: what is left is the most it may be. Stop when less than $10^{-9}$ is left, and let the last time be 1.0.
# - The error is the largest absolute entry of the difference, over all points and dimensions. A step whose error is at most the tolerance is accepted.
# - After each step tried, accepted or not, multiply the `h` that was tried by $0.9\sqrt{\text{tolerance}/\text{error}}$, though by no less than 0.2 and no more than 5. If the error is 0, by 5.
#
# If your loop does not end, print `t` and `h`. Then the interactive solves with *your* function: when do equal steps do as well?
#
# <details><summary>"A step is longer than the tolerance allows"</summary>
#
# Do `t` and `x` move only when a step is accepted?
#
# </details>
# <details><summary>A template</summary>
#
# Before: `t, h, times, evaluations = 0.0, 0.1, [0.0], 0`. Then `while 1 - t > 1e-9:`, `h = min(h, ____)`, the two slopes, `error = float(____)`, `if error <= tolerance: t, x = ____`, and last `h *= ____`, for which `max(0.2, min(5.0, ____))` helps.
#
# </details>


# %% solution="solve_adaptive"
def solve_adaptive(weights, x, tolerance):
    """x at t = 1, the times of the accepted steps, the number of evaluations, by Heun's and Euler's method."""
    ### BEGIN SOLUTION
    t, h, times, evaluations = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        evaluations += 2
        error = float((h / 2 * (k2 - k1)).abs().max())
        if error <= tolerance:
            t, x = t + h, x + h / 2 * (k1 + k2)
            times.append(t)
        h *= max(0.2, min(5.0, 0.9 * math.sqrt(tolerance / error))) if error > 0 else 5.0
    return x, [*times[:-1], 1.0], evaluations
    ### END SOLUTION


# %% test="solve_adaptive" points=1
import itertools

import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights


# Accepted steps and evaluations by the rules, for each case.
counts = {
    ((1,), 1e-2): (8, 16),
    ((1,), 1e-4): (63, 130),
    ((4, 2), 1e-3): (3, 6),
    ((5, 3), 1e-2): (24, 60),
    ((3,), 1e-4): (126, 262),
    ((2, 2, 3), 1e-3): (71, 158),
}


def judge(returned, weights, x, tolerance):
    """Follows the steps that were taken, and counts."""
    end, times, count = returned
    steps, evaluations = counts[tuple(x.shape), tolerance]
    if not all(isinstance(t, (int, float)) for t in times) or times[0] != 0 or times[-1] != 1:
        return f"The times should be numbers from 0.0 to 1.0; they begin with {times[:2]} and end with {times[-2:]}."
    if count % 2 or count < 2 * (len(times) - 1):
        return f"{count} evaluations were reported for {len(times) - 1} accepted steps. How many does each step tried cost?"
    for t, after in itertools.pairwise(times):
        h = after - t
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        error = float((h / 2 * (k2 - k1)).abs().max())
        if not error <= tolerance * (1 + 1e-6):
            return f"The step from {t:.4f} to {after:.4f} errs by {error:.2g}, and the tolerance is {tolerance:g}. Was it accepted?"
        x = x + h / 2 * (k1 + k2)
    if end.shape != x.shape or not torch.allclose(end, x, rtol=1e-6, atol=1e-8):
        return "The points are not those where Heun's method leads in the steps that you list. Which of the two points do you keep?"
    if len(times) - 1 != steps:
        return f"You took {len(times) - 1} accepted steps, and by the rules it would be {'fewer' if len(times) > steps else 'more'}. By what is h multiplied, and when?"
    if count != evaluations:
        return f"Your {steps} accepted steps are right, and {count} evaluations is not their price: do the rejected ones count?"


# First g = -x: the slope at x = 1 is -1.
decay = [(torch.tensor([[-1.0], [0.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))]
still = mlp_weights(3, 2, (4,), dtype=torch.float64)  # its last layer is zero: no error at all
wild = [(3 * W, b) for W, b in mlp_weights(4, 3, (8, 8), 1, False, torch.float64)]
torch.manual_seed(0)
x = torch.randn(5, 3, dtype=torch.float64)
cases = [
    (decay, torch.ones(1).double(), 1e-2),
    (decay, torch.ones(1).double(), 1e-4),
    (still, torch.ones(4, 2).double(), 1e-3),
    (wild, x, 1e-2),
    (wild, x[0], 1e-4),
    (wild, x[:4].reshape(2, 2, 3), 1e-3),
]
check.that("continuous.solve_adaptive", judge, cases)

# %% hidden="solve_adaptive" points=2
import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights


def by_the_rules(weights, x, tolerance):
    t, h, times, tried = 0.0, 0.1, [0.0], 0
    while 1 - t > 1e-9:
        h = min(h, 1 - t)
        k1 = apply_field(weights, t, x)
        k2 = apply_field(weights, t + h, x + h * k1)
        tried += 1
        error = (k2 - k1).abs().max().item() * h / 2
        if error <= tolerance:
            x = x + h * (k1 + k2) / 2
            t += h
            times.append(t)
        h *= min(5.0, max(0.2, 0.9 * (tolerance / error) ** 0.5)) if error else 5.0
    times[-1] = 1.0
    return x, times, 2 * tried


rng = check.rng("continuous.solve_adaptive")
cases = []
for shape in [(1,), (5, 7), (2, 3, 4)]:
    D = shape[-1]
    for size, tolerance in [(1, 1e-3), (4, 1e-2)]:
        net = mlp_weights(D + 1, D, (9,), int(rng.integers(2**31)), False, torch.float64)
        x = torch.from_numpy(rng.normal(size=shape))
        cases.append(([(size * W, b) for W, b in net], x, tolerance))
check.values("continuous.solve_adaptive", cases, by_the_rules)


# %% tags=["show", "hide-input"]
from IPython.display import display

from flowkit.adaptive_ode import dormand_prince, heun_euler
from flowkit.ode import HEUN


def reference_adaptive(weights, x, tolerance):
    solution = heun_euler(partial(apply_field, weights), x, tolerance)
    return solution.y, solution.times, solution.evaluations


def with_turn(weights, at=0.37, gain=1000):
    """The same network, whose units turn over within some thousandths of the time `at`."""
    (W, b), *others = weights
    return [(torch.cat([W[:-1], gain * W[-1:]]), b - gain * at * W[-1]), *others]


walkers = cloud[:64].double()
FIELDS = {
    "two moons": [(W.double(), b.double()) for W, b in moons_field],
    "a turn at t = 0.37": with_turn(mlp_weights(3, 2, (32,), 7, False, torch.float64)),
}
truths, line_ups = {}, {}
for name, weights in FIELDS.items():
    truths[name] = integrate(partial(apply_field, weights), walkers, 0.0, 1.0, 2000)
    solved = [reference_adaptive(weights, walkers, 10 ** (power / 2)) for power in range(-10, -1)]
    line_ups[name] = [
        (math.log10(count), (end - truths[name]).abs().max().log10().item()) for end, _, count in solved
    ]


def draw_tolerance(scene, power, name):
    solve = check.yours("continuous.solve_adaptive", otherwise=reference_adaptive)
    weights = FIELDS[name]
    end, times, count = solve(weights, walkers, 10**power)
    even = integrate(partial(apply_field, weights), walkers, 0.0, 1.0, count // 2, HEUN)
    error, same_price = ((points - truths[name]).abs().max().item() for points in (end, even))
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    left.axes(
        x=(0.8, 3.5),
        y=(-6, 0.5),
        xlabel="log10 of the evaluations",
        ylabel="log10 of the error",
        title="error against price",
    )
    left.curve(*zip(*line_ups[name], strict=True), colour=plots.GREY, label="other tolerances")
    left.points([math.log10(count)], [math.log10(error)], colour=plots.BLUE, size=12, label="this one")
    right.axes(
        x=(0, 1), y=(-4.2, 0), xlabel="t, from data to noise", ylabel="log10 of the step", title="the steps"
    )
    edges = torch.tensor(times).double()
    lengths = edges.diff()
    right.curve(
        edges.repeat_interleave(2)[1:-1],
        lengths.log10().repeat_interleave(2),
        colour=plots.BLUE,
        label="step length",
    )
    return (
        f"Tolerance {10**power:.1g} a step: {count} evaluations, {len(lengths)} accepted steps, the longest "
        f"{lengths.max() / lengths.min():.0f} times the shortest. The largest error at the end is {error:.1e}; "
        f"Heun with {count // 2} equal steps errs by {same_price:.1e}."
    )


display(
    play(
        draw_tolerance,
        power=slider(-5.0, -1.0, -3.0, step=0.25, label="log10 of the tolerance"),
        name=choice(list(FIELDS), label="field"),
    )
)

torch.manual_seed(0)
net = [(2 * W, b) for W, b in mlp_weights(3, 2, (64, 64), seed=6, zero_last=False, dtype=torch.float64)]
kept = torch.randn(1, *walkers.shape).double().sign()
noise = torch.Generator().manual_seed(0)


def price(activation, probes, tolerance):
    """Evaluations of points and log-det, by Dormand and Prince's pair."""

    def slope(t, state):
        e = kept if probes != "redrawn" else torch.randn(kept.shape, generator=noise).double().sign()
        field = lambda t, x: apply_field(net, t, x, activation)  # noqa: E731
        if probes == "none":
            return continuous.exact_divergence(field, t, state[0])
        return continuous.hutchinson_divergence(field, t, state[0], e)

    try:
        state = (walkers, torch.zeros(len(walkers)).double())
        return dormand_prince(slope, state, 0.0, 1.0, tolerance, tolerance, max_steps=150).evaluations
    except ArithmeticError:
        return "gave up"


print("evaluations for points and log-det, by Dormand and Prince's pair:\n")
print("tolerance   tanh, exact trace   ReLU, exact trace   tanh, one probe kept   tanh, probes redrawn")
for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
    row = [(torch.tanh, "none"), (torch.relu, "none"), (torch.tanh, "kept"), (torch.tanh, "redrawn")]
    a, b, c, d = (price(*case, tolerance) for case in row)
    print(f"{tolerance:9.0e} {a:>19} {b:>19} {c:>22} {d:>22}")

# %% [markdown] exercise="inspect_runs" title="three suspects" difficulty=3 importance=4 minutes=20
# Equal steps do as well on the moons, and far worse where the field turns at $t = 0.37$. A $\tanh$ field is smooth: a tolerance a thousand times finer costs a few times as much. A ReLU field has kinks, and its divergence *jumps* where a path crosses one: only tiny steps are accepted there. And noise drawn anew at every evaluation makes the two methods of a pair disagree, however short the step. Draw it *once for each solve*: then the integrand is a fixed smooth function, and the estimate is as unbiased as before.
#
# With equal steps nothing gives up. Redrawn noise leaves the mean right and the spread even smaller. But no single function is integrated: the way back no longer undoes the log-det of the way there, and a finer step changes the answer at random. So write an inspector. A flow ran K times on the same N points, forward and then back, each run with probes of its own, the same for the way there and the way back of that run. `inspect_runs(x, back, jacobian, log_dets, log_dets_back)` gets the points `x` and what came `back`, `(N, D)`; the true Jacobians of the map at `x`, `(N, D, D)`; and the log-dets that were reported, forward and back, `(K, N)` each. Return the first that applies:
#
# - `"not invertible"`: some entry of `back` is not within $10^{-4}$ of `x`;
# - `"noise redrawn"`: in some run and at some point, the two log-dets do not cancel to within $10^{-4}$;
# - `"wrong log-det"`: at some point, the mean of `log_dets` over the runs is not within 5 standard errors $+\,10^{-4}$ of the true $\log\lvert\det J\rvert$. The *standard error* of a mean of K numbers is their standard deviation (`.std(0)`), divided by $\sqrt K$;
# - `"no objection"`.
#
# <details><summary>"A right flow is called wrong"</summary>
#
# One estimate may be far off, and be sound: only the mean over the runs has to agree.
#
# </details>
# <details><summary>"A wrong log-det passes"</summary>
#
# Is each point judged by itself, by the fluctuation of a mean?
#
# </details>
# <details><summary>A template</summary>
#
# `if not ((____).abs() <= 1e-4).all(): return "not invertible"`, and so on; for the third `torch.linalg.slogdet(jacobian).logabsdet` and `log_dets.mean(____)`.
#
# </details>


# %% solution="inspect_runs"
def inspect_runs(x, back, jacobian, log_dets, log_dets_back):
    """ "not invertible", "noise redrawn", "wrong log-det" or "no objection". log_dets, log_dets_back: (K, N)."""
    ### BEGIN SOLUTION
    if not ((back - x).abs() <= 1e-4).all():
        return "not invertible"
    if not ((log_dets + log_dets_back).abs() <= 1e-4).all():
        return "noise redrawn"
    error = log_dets.mean(0) - torch.linalg.slogdet(jacobian).logabsdet
    standard_error = log_dets.std(0) / math.sqrt(len(log_dets))
    if not (error.abs() <= 5 * standard_error + 1e-4).all():
        return "wrong log-det"
    return "no objection"
    ### END SOLUTION


# %% test="inspect_runs" points=1
import torch
from autograder import check
from flowkit.continuous import exact_divergence, hutchinson_divergence
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.ode import integrate

K, N, D = 400, 5, 3
torch.manual_seed(0)
net = mlp_weights(D + 1, D, (8,), 3, False, torch.float64)
x = torch.randn(N, D, dtype=torch.float64)


def field(t, x):
    return apply_field(net, t, x)


jacobian = torch.func.vmap(torch.func.jacrev(lambda x: integrate(field, x, 0.0, 1.0, 20)))(x)


def solve(points, start, end, draw):
    """Points and log-dets of all the runs; draw() gives the probes of one evaluation."""

    def slope(t, state):
        probes = draw()
        return (
            exact_divergence(field, t, state[0])
            if probes is None
            else hutchinson_divergence(field, t, state[0], probes)
        )

    return integrate(slope, (points, torch.zeros_like(points[..., 0])), start, end, 6)


def runs(noise, redrawn=False):
    """back, log_dets and log_dets_back of K runs."""
    kept = noise()
    draw = noise if redrawn else lambda: kept
    z, there = solve(x.expand(K, N, D), 0.0, 1.0, draw)
    back, log_dets_back = solve(z, 1.0, 0.0, draw)
    return back[0], there, log_dets_back


def signs():
    return torch.randn(1, K, N, D).double().sign()


def normal():
    return torch.randn(1, K, N, D).double()


def uniform():
    return 2 * torch.rand(1, K, N, D).double() - 1  # of variance 1/3


def exact():
    return None


back, there, again = runs(signs)
_, other, _ = runs(signs)
one, point, quiet = torch.zeros(K, N).double(), torch.zeros(N).double(), torch.zeros(N).double()
one[7, 2], point[3] = 1e-3, 0.3
n = there.std(0).argmin()  # six standard errors too high, where they are the smallest
quiet[n] = (torch.linalg.slogdet(jacobian).logabsdet - there.mean(0) + 6 * there.std(0) / K**0.5 + 1e-4)[n]
suspects = {
    "signs, kept": ((back, there, again), "no objection"),
    "Gaussian probes, kept": (runs(normal), "no objection"),
    "the exact trace": (runs(exact), "no objection"),
    "signs, redrawn at every evaluation": (runs(signs, redrawn=True), "noise redrawn"),
    "signs, other ones on the way back": ((back, there, -other), "noise redrawn"),
    "log-dets of one run off by 1e-3 at one point": ((back, there + one, again), "noise redrawn"),
    "log-dets of one run too low at one point": ((back, there - one, again), "noise redrawn"),
    "both log-dets the same": ((back, there, there), "noise redrawn"),
    "probes of variance 1/3": (runs(uniform), "wrong log-det"),
    "the sign of the trace": ((back, -there, -again), "wrong log-det"),
    "0.3 too high at one point": ((back, there + point, again - point), "wrong log-det"),
    "0.3 too low at one point": ((back, there - point, again + point), "wrong log-det"),
    "0.3 too high at one point, too low at another": (
        (back, there + point - point.roll(1), again - point + point.roll(1)),
        "wrong log-det",
    ),
    "a little too high, where the runs hardly differ": (
        (back, there + quiet, again - quiet),
        "wrong log-det",
    ),
    "time runs the wrong way back": ((back + 0.3, there, again), "not invertible"),
    "one entry does not come back": ((back - 1e-3 * (x == x.max()), there, again), "not invertible"),
    "nan comes back": ((back * torch.nan, there, again), "not invertible"),
    "log-dets that are nan": ((back, there * torch.nan, again), "noise redrawn"),
    "all of it": ((back + 1, there + 1, again), "not invertible"),
    "redrawn, and of the wrong sign": ((back, -there, other), "noise redrawn"),
}


def verdict(suspect):
    return suspects[suspect][1]


def ask(inspect_runs, suspect):
    """The suspect's name is for the message: your function gets a copy of the evidence alone."""
    back, there, again = suspects[suspect][0]
    return inspect_runs(*(part.clone() for part in (x, back, jacobian, there, again)))


check.values("continuous.inspect_runs", [(suspect,) for suspect in suspects], verdict, use=ask)

# %% hidden="inspect_runs" points=2
import torch
from autograder import check

rng = check.rng("continuous.inspect_runs")
cases, answers = [], []
for K, N, D in [(50, 1, 1), (1000, 4, 2), (300, 6, 7)]:
    x = torch.from_numpy(rng.normal(size=(N, D)))
    jacobian = torch.from_numpy(rng.normal(size=(N, D, D)))
    jacobian[0] = torch.diag(torch.tensor([-3.0] + (D - 1) * [3.0]))  # at least log 3, and a reflection
    true = torch.linalg.slogdet(jacobian).logabsdet
    noise = torch.from_numpy(rng.normal(size=(K, N)))
    runs = true + (noise - noise.mean(0)) * torch.from_numpy(rng.uniform(0.1, 1, size=N))
    step = torch.zeros(N).double().index_fill(0, torch.tensor(int(rng.integers(N))), 1.0)
    bias = step * float(rng.choice([-1, 1])) * 8 * runs.std(0) / K**0.5
    slip = 1e-3 * float(rng.choice([-1, 1])) * torch.from_numpy(rng.permutation(K * N) == 0).reshape(K, N)
    for back, there, again, answer in [
        (x + 5e-5, runs, -runs + 5e-5, "no objection"),
        (x, true.expand(K, N), -true.expand(K, N), "no objection"),
        (x, runs + bias / 4, -runs - bias / 4, "no objection"),
        (x, runs + bias, -runs - bias, "wrong log-det"),
        (x, runs + slip, -runs, "noise redrawn"),
        (x, -runs, runs, "wrong log-det"),
        (x + 1e-3 * step[:, None], runs + slip, -runs, "not invertible"),
        (x, runs * torch.nan, -runs, "noise redrawn"),
        (x * torch.nan, runs, -runs, "not invertible"),
    ]:
        cases.append((x, back, jacobian, there, again))
        answers.append(answer)
answers = iter(answers)


def verdict(x, back, jacobian, log_dets, log_dets_back):
    return next(answers)


check.values("continuous.inspect_runs", cases, verdict)

# %% [markdown]
# ## 5. Two ways to train
#
# *By likelihood*, as every flow: solve from the data to $t = 1$, and maximize $\log p_Z(z) + \ell$, with gradients back through all steps of the solver. Each training step pays for a whole solve.
#
# *Flow matching* asks for no solve at all. Draw a data point $x$, an independent noise point $z$, and a time $t$, uniform on $[0, 1]$. Join the two by a straight line, run through at constant velocity:
#
# $$x_t = (1 - t)\,x + t\,z, \qquad \frac{dx_t}{dt} = z - x .$$
#
# These lines cross one another everywhere, so they are no flow. But let the field learn to *predict* the velocity from the place and the time, by least squares:
#
# $$\min_g \; \mathbb{E}\,\lVert g(t, x_t) - (z - x) \rVert^2 .$$
#
# The best prediction is an average, $g(t, y) = \mathbb{E}[z - x \mid x_t = y]$: the mean velocity of all lines through $y$ at time $t$, since the number nearest to many, in mean squared distance, is their mean. Through a wall of a small cell flows density times *mean* velocity, whatever the single velocities are. So a cloud moved by the mean field gains and loses in every cell what the cloud of lines does; the two start alike, and stay alike. This is called *conditional* flow matching: the velocity is known once the two ends are given. The loss never gets to zero, since many lines pass through one place.

# %% [markdown] exercise="matching_loss" title="a regression" difficulty=2 importance=5 minutes=8
# Write `matching_loss(weights, x, z, t)`: the mean over N pairs of $\lVert g(t, x_t) - (z - x) \rVert^2$, a tensor of shape `()`. `x` and `z` have shape `(N, D)`; `t`, of shape `(N,)`, has a time for each pair, and `apply_field` takes it as it is.
#
# <details><summary>"It is too small by a factor of D"</summary>
#
# A squared distance is a *sum* over dimensions; the mean runs over pairs. And `t[:, None]` is repeated along D.
#
# </details>
# <details><summary>A template</summary>
#
# `error = apply_field(weights, ____, ____) - (____)`, then `return error.square().____`.
#
# </details>


# %% solution="matching_loss"
def matching_loss(weights, x, z, t):
    """The mean squared distance of the field at x_t from z - x. x, z: (N, D); t: (N,) -> ()."""
    ### BEGIN SOLUTION
    points = (1 - t[:, None]) * x + t[:, None] * z
    return (apply_field(weights, t, points) - (z - x)).square().sum(-1).mean()
    ### END SOLUTION


# %% test="matching_loss" points=1
import torch
from autograder import check
from flowkit.lab.nets import apply_field, mlp_weights


def pair_by_pair(weights, x, z, t):
    """The slow specification: one pair at a time, and one coordinate."""
    total = 0.0
    for n in range(len(x)):
        start, way, time = x[n], z[n] - x[n], float(t[n])
        v = apply_field(weights, time, start + time * way)
        total += sum((v[i] - way[i]) ** 2 for i in range(len(way)))
    return total / len(x)


# First a field that stands still, and one pair: the loss is the squared distance, 25.
still = mlp_weights(3, 2, (4,), dtype=torch.float64)
ends = torch.tensor([[[0.0, 1.0]], [[3.0, 5.0]]], dtype=torch.float64)
cases = [(still, *ends, torch.tensor([0.25]).double())]
# Then g(t, x) = x: where the pair is at time t counts.
place = [(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).double(), torch.zeros(2).double())]
cases += [(place, *ends, torch.tensor([t]).double()) for t in (0.0, 0.25, 1.0)]
torch.manual_seed(0)
for N, D in [(5, 3), (4, 4), (1, 2), (6, 1)]:
    net = mlp_weights(D + 1, D, (8,), zero_last=False, dtype=torch.float64)
    cases.append((net, *torch.randn(2, N, D).double(), torch.rand(N).double()))
trained = [tuple(w.clone().requires_grad_() for w in layer) for layer in net]  # gradients go back to these
cases.append((trained, *cases[-1][1:]))
check.values("continuous.matching_loss", cases, pair_by_pair)

# %% hidden="matching_loss" points=1
import torch
from autograder import check
from flowkit.flow_matching import flow_matching_loss
from flowkit.lab.nets import apply_field, mlp_weights


def reference(weights, x, z, t):
    return flow_matching_loss(lambda t, y: apply_field(weights, t, y), x, z, t)


rng = check.rng("continuous.matching_loss")
cases = []
for N, D, dtype in [(1, 1, torch.float64), (7, 7, torch.float32), (20, 2, torch.float64)]:
    net = mlp_weights(D + 1, D, (9,), int(rng.integers(2**31)), False, dtype)
    x, z = torch.from_numpy(rng.normal(size=(2, N, D))).to(dtype)
    t = torch.from_numpy(rng.uniform(size=N)).to(dtype)
    cases += [(net, x, z, t), (net, 100 * x, z, t), (net, x, z, torch.zeros_like(t))]
check.values("continuous.matching_loss", cases, reference)

# %% [markdown] exercise="fit_cnf" title="the same density, twice" difficulty=4 importance=5 minutes=25
# Now fit. Write `fit_cnf(how, weights, data, steps, rate)`: it trains a copy of the field on `data`, `(N, D)`, and returns it in the form in which it came. The weights that came in must stay as they were: `trainable` and `detached` from the first cell copy them.
#
# Both ways take `steps` steps of Adam, each on 256 points drawn at random from `data`, while the step size falls in a straight line from `rate` to zero. What differs is the loss:
#
# - `how="likelihood"`: minus the mean log-likelihood, by a solve in 4 steps of RK4 from $t = 0$ to 1, with the exact trace;
# - `how="matching"`: the matching loss, with fresh $z$ and $t$ in every step.
#
# Your own `transport` and `matching_loss` do the work. The check tests these rules, then gives likelihood 40 steps and matching 500, after which unseen moons should come within 0.35 nats of the entropy. The next cell compares, in about a minute.
#
# <details><summary>"My later steps used the noise of the first"</summary>
#
# How often does the line run that draws it?
#
# </details>
# <details><summary>A template</summary>
#
# In the loop: `optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)`, `x = data[torch.randint(____, (256,))]`; for likelihood `z, log_det = ____` and `loss = -(____).mean()`; for matching `z = torch.randn(____)`, `t = torch.rand(____)`; then `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`.
#
# </details>


# %% solution="fit_cnf"
def fit_cnf(how, weights, data, steps, rate):
    """The weights of a field, trained on data (N, D). how: "likelihood" or "matching"."""
    ### BEGIN SOLUTION
    weights = trainable(weights)
    optimizer = torch.optim.Adam([w for layer in weights for w in layer])
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        if how == "likelihood":
            z, log_det = transport(weights, x, 0.0, 1.0, 4)
            loss = -(normal_log_density(z) + log_det).mean()
        else:
            z = torch.randn(x.shape, generator=generator)
            loss = matching_loss(weights, x, z, torch.rand(len(x), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return detached(weights)
    ### END SOLUTION


# %% test="fit_cnf" points=1
import torch
from autograder import check
from flowkit import Flow, StandardNormal
from flowkit.continuous import CNF
from flowkit.lab import targets
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.ode import integrate


class Field(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, t, x):
        return apply_field(self.weights, t, x)


def solver(field, y, t0, t1):
    return integrate(field, y, t0, t1, 10)


def not_trained(returned, weights):
    """What is wrong with weights that came back, before anything is asked of what they have learned."""
    pairs = zip(returned, weights, strict=True)
    if all(torch.equal(w, v) for layer, old in pairs for w, v in zip(layer, old, strict=True)):
        return "The weights that came back are those that went in. Which weights does your optimizer hold?"
    if any(w.requires_grad for layer in returned for w in layer):
        return "Your weights still ask for gradients, and those that came in did not."
    return None


def judge(returned, how, weights, data, steps, rate):
    """Held-out log-likelihood, against the entropy of the moons."""
    moons = targets.two_moons()
    unseen = moons.sample(1000, seed=7)
    flow = Flow(StandardNormal(2), CNF(Field(returned), solver))
    with torch.no_grad():
        gap = (moons.log_prob(unseen) - flow.log_prob(unseen)).mean().item()
    if not gap <= 0.35:
        return (
            f"By {how}, unseen points are {gap:.2g} nats less likely than they could be, and 0.35 would do. "
            "Print the loss: does it fall?"
        )


def judge_rules(returned, how, weights, data, steps, rate):
    """Tiny steps, and one bias for each rule: its pace is the way that it has gone, in units of the rate.

    The first bias has the same gradient in every step. The gradient of the second is led by the noise, of the
    third by the points, of the fourth by the times: about zero on average, so that fresh ones shake it.
    """
    fault = not_trained(returned, weights)
    if fault:
        return fault
    constant, noise, points, times = (returned[0][1].abs() / rate).tolist()
    if abs(points / constant - 1) < 1e-3:
        return (
            f"By {how}, all your steps lead where the same points would. Are 256 points drawn in each step?"
        )
    if how == "matching" and abs(noise / constant - 1) < 1e-3:
        return "Your later steps used the noise of the first. Where is z drawn?"
    if how == "matching" and returned[0][1][0] < 0 and abs(times / constant - 1) < 1e-3:
        return "Your later steps used the times of the first. Where is t drawn?"
    if all(abs(constant - pace) > 0.02 for pace in ((steps - 1) / 2, steps / 2, (steps + 1) / 2)):
        return (
            f"Where the gradient never changes, {steps} of your steps of Adam moved a bias by {constant:.3g} "
            "times the rate. Does each step begin with fresh gradients, and the step size fall in a straight line to zero?"
        )


def judge_times(returned, how, weights, data, steps, rate):
    """With one time t for all pairs the slope of the loss in the weight of t is t times that in the bias."""
    (W, b), (V, c) = returned[0], weights[0]
    if (W[1, 0] - V[1, 0]) * (b[0] - c[0]) > 0:
        return (
            "The weight of t and the bias move together, as when all pairs have one time. Has each its own?"
        )


# First the rules. The field is zero but for g_4 = -2 y_4; the data are 1000, 0, about 1000 noise, 1000.
torch.manual_seed(0)
W = torch.zeros(5, 4).index_put((torch.tensor(3), torch.tensor(3)), torch.tensor(-2.0))
wide = 1000 * torch.stack([torch.ones(5000), torch.zeros(5000), torch.randn(5000), torch.ones(5000)], -1)
calm = [(W, torch.zeros(4))]
check.that("continuous.fit_cnf", judge_rules, [("matching", calm, wide, 10, 1e-8)])
check.that("continuous.fit_cnf", judge_rules, [("likelihood", calm, wide, 8, 1e-8)])
start = mlp_weights(3, 2, (32, 32), seed=0)
data = targets.two_moons().sample(5000, seed=6)
check.that("continuous.fit_cnf", judge, [("matching", start, data, 500, 1e-2)])
# Then g = -2.4 y, and one point, 10: on average its error is -2, and its error times t is 1.
line, tens = [(torch.tensor([[-2.4], [0.0]]), torch.zeros(1))], torch.full((2000, 1), 10.0)
check.that("continuous.fit_cnf", judge_times, [("matching", line, tens, 1, 1e-3)])
check.that("continuous.fit_cnf", judge, [("likelihood", start, data, 40, 3e-2)])

# %% hidden="fit_cnf" points=2
import math

import torch
from autograder import check
from flowkit.lab import targets
from flowkit.lab.nets import apply_field, mlp_weights
from flowkit.ode import integrate

rng = check.rng("continuous.fit_cnf")
turn = rng.uniform(0, 2 * math.pi)  # other moons: turned, and moved away from zero
R = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
centre = torch.from_numpy(rng.uniform(-0.3, 0.3, size=2)).float()


def log_prob(x, weights):
    """With the trace by central differences: no automatic differentiation in the judge."""

    def slope(t, state):
        x, h = state[0], 1e-4
        ends = [apply_field(weights, t, x + sign * h * e) for e in torch.eye(2).double() for sign in (1, -1)]
        a, b, c, d = ends
        return apply_field(weights, t, x), ((a - b)[..., 0] + (c - d)[..., 1]) / (2 * h)

    weights = [(W.double(), b.double()) for W, b in weights]
    z, log_det = integrate(slope, (x.double(), torch.zeros(len(x)).double()), 0.0, 1.0, 10)
    return log_det - 0.5 * z.square().sum(-1) - math.log(2 * math.pi)


def judge_other_moons(returned, how, weights, data, steps, rate):
    moons = targets.two_moons()
    unseen = moons.sample(1000, seed=8)
    gap = (moons.log_prob(unseen) - log_prob(unseen @ R.mT + centre, returned)).mean().item()
    if not gap <= 0.45:
        return f"By {how}, on moons turned by an angle, unseen points are {gap:.2g} nats less likely than they could be."


def judge_no_step(returned, how, weights, data, steps, rate):
    pairs = zip(returned, weights, strict=True)
    if not all(torch.equal(w, v) for layer, old in pairs for w, v in zip(layer, old, strict=True)):
        return "With steps = 0 the field should come back with the weights that it had."


start = mlp_weights(3, 2, (32, 32), seed=4)
data = targets.two_moons().sample(5000, seed=int(rng.integers(2**31))) @ R.mT + centre
check.that(
    "continuous.fit_cnf", judge_no_step, [(how, start, data, 0, 1e-2) for how in ("likelihood", "matching")]
)
check.that("continuous.fit_cnf", judge_other_moons, [("likelihood", start, data, 40, 3e-2)])
check.that("continuous.fit_cnf", judge_other_moons, [("matching", start, data, 500, 1e-2)])


# %% tags=["show", "hide-input"]
def library_fit(how, weights, data, steps, rate):
    mine = trainable(weights)
    loss = flow_matching.matching_batches(partial(apply_field, mine))
    if how == "likelihood":
        loss = lambda x, generator: -log_prob(mine, x, 4).mean()  # noqa: E731
    flow_matching.fit_batches(loss, [w for layer in mine for w in layer], data, steps, rate)
    return detached(mine)


fit = check.yours("continuous.fit_cnf", otherwise=library_fit)
start, data, unseen = (
    mlp_weights(3, 2, (32, 32), seed=0),
    moons.sample(20_000, seed=2),
    moons.sample(5_000, seed=3),
)
box, fitted, results = (-4.0, 4.0, -4.0, 4.0), {}, {}


def log_prob(weights, x, steps=20):
    z, log_det = reference_transport(weights, x, 0.0, 1.0, steps)
    return normal_log_density(z) + log_det


print(f"entropy of the moons {moons.entropy:.3f} nats\n")
print("how          steps   seconds   nats above the entropy   integral   evaluations at tolerance 1e-3")
for how, steps, rate in [("likelihood", 200, 2e-2), ("matching", 200, 1e-2), ("matching", 5000, 1e-2)]:
    began = time.process_time()
    weights = fit(how, start, data, steps, rate)
    seconds = time.process_time() - began
    with torch.no_grad():
        gap = (moons.log_prob(unseen) - log_prob(weights, unseen)).mean().item()
    mass = targets.integral(partial(log_prob, weights), box, 120)
    _, _, count = reference_adaptive(weights, unseen[:500], 1e-3)
    fitted[how], results[how, steps] = weights, (gap, mass)
    print(f"{how:12} {steps:5} {seconds:9.1f} {gap:24.3f} {mass:10.4f} {count:21}")


def step_by_solve(weights, x, probes=0):
    flow = continuous.CNF(partial(apply_field, weights), partial(integrate, steps=4), probes=probes)
    z, log_det = flow.forward(x)
    (-(normal_log_density(z) + log_det).mean()).backward()


def step_by_matching(weights, x, z, t):
    flow_matching.flow_matching_loss(partial(apply_field, weights), x, z, t).backward()


print("\none step of training, milliseconds:   D   likelihood, exact trace   one probe   matching")
torch.manual_seed(0)
for D in (2, 16, 64):
    wide, x = trainable(mlp_weights(D + 1, D, (32, 32), seed=0)), torch.randn(256, D)
    z, t = torch.randn(256, D), torch.rand(256)
    ms = [
        least_time(partial(step_by_solve, wide, x)),
        least_time(partial(step_by_solve, wide, x, probes=1)),
        least_time(partial(step_by_matching, wide, x, z, t)),
    ]
    print(f"{D:39} {ms[0]:25.1f} {ms[1]:11.1f} {ms[2]:10.1f}")

pixels = targets.grid((-3, 3, -3, 3), 90)[0]
with torch.no_grad():
    learned = {how: log_prob(weights, pixels).exp() for how, weights in fitted.items()}
seeds = torch.randn(400, 2, generator=torch.Generator().manual_seed(9))


def draw_fit(scene, how, t):
    weights = fitted[how]
    g = partial(apply_field, weights)
    points = integrate(g, seeds, 1.0, t, 12) if t < 1 else seeds
    ends = integrate(g, points, t, 0.0, 12) if t > 0 else points
    straight = (1 - t) * ends + t * seeds
    away = (points - straight).norm(dim=-1).mean()
    left, right = scene.panel(0, of=2), scene.panel(1, of=2)
    plane = {"x": (-3, 3), "y": (-3, 3), "xlabel": "first dimension", "equal": True}
    left.axes(title="density learned", ylabel="second", **plane)
    left.image(learned[how], extent=(-3, 3, -3, 3))
    right.axes(title=f"400 samples on their way, t = {t:.2f}", **plane)
    right.points(points[40:], colour=plots.SKY, size=3)
    right.lines(
        torch.stack([ends, seeds], 1)[:40], colour=plots.BLACK, width=1.5, alpha=0.6, label="40 lines"
    )
    right.points(points[:40], colour=plots.BLUE, size=6, label="their points")
    return (
        f"Trained by {how}, at t = {t:.2f}: the points are {away:.2f} away, on average, from the straight "
        "lines between the ends of their paths, of which 40 are drawn."
    )


play(
    draw_fit,
    how=choice(["likelihood", "matching"], label="trained by"),
    t=slider(0.0, 1.0, 0.5, step=0.05, label="time: 1 is noise, 0 is data"),
)

# %% [markdown]
# ## What you have seen
#
# - A field replaces the layers. If it is Lipschitz, its paths never meet, and its flow is a bijection.
# - Along a path the log-density changes at the rate $-\operatorname{tr}\partial g/\partial x$: a trace in place of a determinant.
# - The trace costs $D$ products, or one with a random probe, unbiased. The probe is drawn once for each solve.
# - A tolerance buys accuracy for evaluations, and only smooth fields are cheap.
#
# On the moons likelihood wins: 200 steps, at twice the rate, come nearer than 5,000 of matching in similar time. Large models are matched: a step of likelihood costs many times as much, with the exact trace ever more as $D$ grows. Each $\log p$ is a solve, and matching's needed more evaluations: the lines are straight, the paths of the mean velocity are not.
#
# **The words of this lesson**
#
# <!-- words -->
#
# **Where it is used.** Flow matching trains many of today's generators of images and speech; the deterministic sampler of a diffusion model is a continuous flow too.
#
# **Further reading.** Chen and others, *Neural ordinary differential equations* (2018), section 4 and appendix A; Grathwohl and others, *FFJORD* (2019); Lipman and others, *Flow matching for generative modeling* (2023), which proves what section 5 argues.

# %% tags=["show", "hide-input"]
from flowkit.lab import costs

costs.show("continuous", seed=0)
