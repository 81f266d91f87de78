"""Answers to lesson 07, planar, radial and Sylvester flows."""

import math

import torch
from torch.nn import functional as F

from autograder.answers import right, wrong
from flowkit.energies import ENERGIES

# planar_layer: z + u tanh(w.z + b), log abs(1 + tanh'(a) w.u).


@right("planar_layer")
def with_cosh_in_logarithms(z, w, u, b):
    a = (z * w).sum(-1) + b
    slope = torch.exp(2 * (math.log(2) - a.abs() - torch.log1p(torch.exp(-2 * a.abs()))))
    return z + u * torch.tanh(a).unsqueeze(-1), (1 + slope * torch.dot(w, u)).abs().log()


@right("planar_layer")
def by_the_vector_psi(z, w, u, b):
    """As in the paper: psi = h'(a) w, and the determinant is 1 + u.psi."""
    h = torch.tanh(z @ w + b)[..., None]
    psi = (1 - h**2) * w
    return z + u * h, torch.log(torch.abs(1 + psi @ u))


@wrong(
    "planar_layer",
    "Your log-determinants have the opposite sign: they are those of the way back. Which map takes z to the point that you return?",
    "The minus in log q_K stands outside of the layer. What does a layer itself report?",
)
def of_the_way_back(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, -torch.log(torch.abs(1 + (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "Your second part is the determinant's size itself. What do the formulas of this course add up along a chain of layers?",
)
def without_the_logarithm(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.abs(1 + (1 - h**2) * (w @ u))


@wrong(
    "planar_layer",
    "Where the layer folds you return nan: the determinant is negative there. What is taken before the logarithm?",
    "log of a negative number is nan. The formula of the change of variables has two bars around the determinant.",
)
def without_the_absolute_value(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(1 + (1 - h**2) * (w @ u))


@wrong(
    "planar_layer",
    "Your slope is 1 - tanh(a), without a square. What is the derivative of tanh, at a = 0 and far out on the left?",
)
def slope_without_the_square(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs(1 + (1 - h) * (w @ u)))


@wrong(
    "planar_layer",
    "Your slope is 1 / cosh(a): sech. The derivative of tanh falls off twice as fast. Which power of cosh is it?",
)
def sech_for_its_square(z, w, u, b):
    a = z @ w + b
    return z + torch.tanh(a)[..., None] * u, torch.log(torch.abs(1 + (w @ u) / torch.cosh(a)))


@wrong(
    "planar_layer",
    "In the determinant you use tanh(a) where its derivative belongs. What does J hold: values of the layer, or slopes?",
)
def value_for_slope(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs(1 + h * (w @ u)))


@wrong(
    "planar_layer",
    "The 1 of the lemma is missing: this is the determinant of the rank-one part alone, in one dimension. What is J besides it?",
)
def identity_forgotten(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs((1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "Your points move along w: the bend lies across w, but which vector says where points go?",
)
def moves_along_w(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * w, torch.log(torch.abs(1 + (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "You forgot b: your hyperplane goes through zero always. What shifts it?",
)
def without_b(z, w, u, b):
    h = torch.tanh(z @ w)
    return z + h[..., None] * u, torch.log(torch.abs(1 + (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "You return what is added to z, and not the sum. Where would a point go if u were zero?",
)
def only_the_step(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return h[..., None] * u, torch.log(torch.abs(1 + (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "You take each entry of u with the same entry of w, and add up logarithms. J is not diagonal: what does the lemma do with w and u?",
)
def as_if_diagonal(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs(1 + (1 - h**2)[..., None] * (w * u))).sum(-1)


@wrong(
    "planar_layer",
    "Your log-determinant is the same at every point. Does the layer stretch alike at the hyperplane and far away?",
    "What is the derivative of u tanh(a) with respect to z? a depends on z as well.",
)
def slope_forgotten(z, w, u, b):
    moved = z + torch.tanh(z @ w + b)[..., None] * u
    return moved, torch.log(torch.abs(1 + w @ u)).expand(z.shape[:-1]).clone()


@wrong(
    "planar_layer",
    "You move points along -u, and the slopes are those of a move along u. Which sign has the formula of f?",
)
def minus_in_the_move(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z - h[..., None] * u, torch.log(torch.abs(1 + (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "Your points are right. Your determinant is that of a move along -u: which sign stands before the matrix of rank one in J?",
)
def minus_in_the_determinant(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs(1 - (1 - h**2) * (w @ u)))


@wrong(
    "planar_layer",
    "Your points are right. In the lemma p and q are two vectors: you multiply w by itself. Which two make up the matrix of rank one?",
)
def w_with_itself(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[..., None] * u, torch.log(torch.abs(1 + (1 - h**2) * (w @ w)))


# constrain: u^ with w.u^ = softplus(w.u) - 1, changed along w alone.


@right("constrain")
def across_and_along(w, u):
    """Takes the part along w out of u, and puts another one in."""
    size = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    unit = w / size
    c = torch.sum(w * u, dim=-1, keepdim=True)
    across = u - (u * unit).sum(-1, keepdim=True) * unit
    return across + (torch.logaddexp(c, torch.zeros_like(c)) - 1) / size * unit


@right("constrain")
def without_cancelling(w, u):
    """log(1 + e^c) - 1 - c = log(1 + e^-c) - 1."""
    c = torch.einsum("...d,...d->...", w, u)[..., None]
    return u + (-F.logsigmoid(c) - 1) * w / torch.einsum("...d,...d->...", w, w)[..., None]


@wrong(
    "constrain",
    "It is right only where w has length 1: then the length and its square are the same. What is w.w?",
    "Several published implementations have this fault. Multiply your result by w: do you get m(c)?",
)
def length_for_its_square(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - 1 - c) * w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)


@wrong(
    "constrain",
    "You do not divide by anything: t w, multiplied by w, is t times what?",
)
def not_divided(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - 1 - c) * w


@wrong(
    "constrain",
    "You divide by u.u. Multiply u + t w by w: by what is t multiplied?",
)
def divided_by_u(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - 1 - c) * w / u.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "Your w.u^ is above zero always, so that no layer could ever contract. Where does m end for c far below zero, and which bound did you derive?",
)
def never_contracts(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - c) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "Your w.u^ is above 1 always: every layer stretches space at its hyperplane. Put your bound into 1 + c tanh'(a), at the a where tanh is steepest. What do you get?",
)
def bound_with_the_wrong_sign(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) + 1 - c) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "You add all of m(c) along w. But u has a part along w already, with w.u = c: by how much must that change?",
)
def old_part_left_in(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - 1) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "It is infinite where w.u is large: exp overflows before the logarithm brings it back. Which function of torch takes care of both?",
    "torch.nn.functional.softplus, or torch.logaddexp(c, zero).",
)
def exp_overflows(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (torch.log(1 + torch.exp(c)) - 1 - c) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "Your u^ has lost its part across w, which needs no constraint: only its product with w is right. What may stay as it was?",
)
def part_across_lost(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return (F.softplus(c) - 1) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "For one layer it is right. In a stack you sum the products of all layers into one number: over which axis does w.u go?",
)
def one_product_for_the_stack(w, u):
    c = (w * u).sum()
    return u + (F.softplus(c) - 1 - c) * w / w.square().sum()


@wrong(
    "constrain",
    "You scale u: so the part across w changes as well, and where w.u is zero you divide by it. Along which vector may u change?",
)
def u_scaled(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u * (F.softplus(c) - 1) / c


@wrong(
    "constrain",
    "You move u along itself. A step along u changes its part across w too. Which direction leaves that part alone?",
)
def moved_along_u(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (F.softplus(c) - 1 - c) * u / u.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "You clamp w.u at -1, and leave u alone above it. The exercise asks for the smooth m: an optimizer that reaches a clamp gets no slope there. What is m(0)?",
)
def clamped(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u + (c.clamp(min=-1) - c) * w / w.square().sum(-1, keepdim=True)


@wrong(
    "constrain",
    "You change u by the opposite of what is needed: t has the wrong sign. Is m(c) above c or below it, for c far below zero?",
)
def minus_t(w, u):
    c = (w * u).sum(-1, keepdim=True)
    return u - (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)


# planar_inverse: a scalar root for each point.


@right("planar_inverse")
def newton_that_cannot_leave(y, w, u, b):
    """Newton's steps, and a bisection wherever one would leave the bracket."""
    s, c = y @ w + b, w @ u
    low, high = s - abs(c), s + abs(c)
    a = s / (1 + c)
    a = torch.where((a > low) & (a < high), a, (low + high) / 2)
    for _ in range(80):
        h = torch.tanh(a)
        error = a + c * h - s
        low, high = torch.where(error < 0, a, low), torch.where(error < 0, high, a)
        step = a - error / (1 + c * (1 - h * h))
        a = torch.where((step > low) & (step < high), step, (low + high) / 2)
    return y - torch.tanh(a)[..., None] * u


@right("planar_inverse")
def point_by_point(y, w, u, b):
    """Bisection in Python's floats."""
    c = float(w @ u)
    heights = []
    for s in (y @ w + b).flatten().tolist():
        low, high = s - abs(c), s + abs(c)
        for _ in range(70):
            a = (low + high) / 2
            if a + c * math.tanh(a) < s:
                low = a
            else:
                high = a
        heights.append(math.tanh(a))
    return y - torch.tensor(heights, dtype=y.dtype).reshape(y.shape[:-1]).unsqueeze(-1) * u


@wrong(
    "planar_inverse",
    "You return y - u tanh(s), where the layer added u tanh(a): s is the first middle of the search, and a its last. Is there no search yet, or which end of the bracket moves where it should not?",
    "Where the layer moves points far, w.z + b and w.y + b are very different numbers. The root a is the first.",
)
def tanh_at_y(y, w, u, b):
    return y - torch.tanh(y @ w + b)[..., None] * u


@wrong(
    "planar_inverse",
    "You went forward once more. A point on the far side was moved along u: in which direction is the way back?",
)
def forward_again(y, w, u, b):
    return y + torch.tanh(y @ w + b)[..., None] * u


@wrong(
    "planar_inverse",
    "Newton's steps from s itself jump from one side to the other when c is large, and never settle. What does bisection need, that tangents do not?",
)
def newton_from_s(y, w, u, b):
    s, c = y @ w + b, w @ u
    a = s
    for _ in range(30):
        h = torch.tanh(a)
        a = a - (a + c * h - s) / (1 + c * (1 - h * h))
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "You repeat a = s - c tanh(a). That settles only while the slope of c tanh is below one in size. For which c is it?",
)
def fixed_point(y, w, u, b):
    s, c = y @ w + b, w @ u
    a = s
    for _ in range(60):
        a = s - c * torch.tanh(a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "You found the root, and added u tanh(a) where it must be taken away. Which of z and y is y = z + u tanh(a) solved for?",
)
def step_added(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y + torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "Your search starts between s - 1 and s + 1, and for large c the root is not there. It is tanh that lies between -1 and 1: what stands before it in the equation?",
)
def bracket_without_c(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - 1, s + 1
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "It is right for c > 0 alone. For a negative c your lower end s - c lies above the upper end s + c. What do the bars in the statement do?",
)
def bracket_upside_down(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c, s + c
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "The two halves are exchanged: your search runs away from the root, to an end of the bracket. If the curve is still below s at the middle, on which side of it is the root?",
)
def halves_exchanged(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, low, a), torch.where(below, a, high)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "Your root solves a + tanh(a) = s: the c is missing. By what is w multiplied, when w meets u tanh(a)?",
)
def without_c(y, w, u, b):
    s = y @ w + b
    low, high = s - 1, s + 1
    for _ in range(60):
        a = (low + high) / 2
        below = a + torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "You return the roots a, one number a point. The point itself is still to come: z = y - u tanh(a).",
)
def the_roots_alone(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return a


@wrong(
    "planar_inverse",
    "Your s lacks b: it is right where b is zero. What did you multiply by w, and what did you add, to get the equation?",
)
def shift_left_out(y, w, u, b):
    s, c = y @ w, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "The roots are near and not there: after 20 halvings an interval is a millionth of what it was. How many does double precision deserve?",
)
def too_few_halvings(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(20):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - torch.tanh(a)[..., None] * u


@wrong(
    "planar_inverse",
    "You took away a times u: the root itself. Which function of a did the layer put before u?",
)
def root_for_its_tanh(y, w, u, b):
    s, c = y @ w + b, w @ u
    low, high = s - c.abs(), s + c.abs()
    for _ in range(60):
        a = (low + high) / 2
        below = a + c * torch.tanh(a) < s
        low, high = torch.where(below, a, low), torch.where(below, high, a)
    return y - a[..., None] * u


# radial_layer: D - 1 factors across, one along.


@right("radial_layer")
def with_positive_terms(z, z0, alpha, beta):
    """Both factors as quotients: nothing cancels near beta = -alpha."""
    y = z - z0
    r = torch.sqrt((y * y).sum(-1))
    across = (alpha + beta + r) / (alpha + r)
    along = 1 + alpha * beta / (alpha + r) ** 2
    return z0 + across[..., None] * y, (z.shape[-1] - 1) * across.log() + along.log()


@right("radial_layer")
def by_the_lemma(z, z0, alpha, beta):
    """J = (1 + beta h) I + beta h' r (y/r)(y/r)': the determinant lemma, with the scalar taken out."""
    y = z - z0
    r = torch.linalg.vector_norm(y, dim=-1)
    h = 1 / (alpha + r)
    across = 1 + beta * h
    log_det = z.shape[-1] * torch.log(across) + torch.log1p(-beta * h**2 * r / across)
    return z + (beta * h).unsqueeze(-1) * y, log_det


@wrong(
    "radial_layer",
    "You count D directions across and one along: D + 1 in all. How many axes has the space?",
)
def all_of_D_across(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = z.shape[-1] * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "The factor along y is too large for positive beta: your h rises with r. Which sign has the derivative of 1 / (alpha + r)?",
)
def h_that_rises(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h + beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "You count one direction across y, and D - 1 along it. In how many directions does an arrow point?",
)
def exponents_exchanged(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = torch.log(1 + beta * h) + (z.shape[-1] - 1) * torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "You treat all D directions alike. Along y the factor itself changes with r: which term of the product rule is missing?",
)
def all_directions_alike(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    return z + (beta * h)[..., None] * y, z.shape[-1] * torch.log(1 + beta * h)


@wrong(
    "radial_layer",
    "You count one direction across, whatever D is. In the plane that is right. And in space?",
)
def one_across(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "The sign is that of the way back. You return where z goes: does space grow there for beta > 0, or shrink?",
)
def of_the_inverse(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, -log_det


@wrong(
    "radial_layer",
    "The factor along y is missing: D - 1 directions are counted, and the last one is not.",
)
def along_forgotten(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    return z + (beta * h)[..., None] * y, (z.shape[-1] - 1) * torch.log(1 + beta * h)


@wrong(
    "radial_layer",
    "The derivative of h is 1 / (alpha + r) to which power? Yours falls off too slowly.",
)
def h_not_squared(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "The product rule has h' times r, and the r is missing: your factor along y is wrong even far out, and worst at the centre.",
)
def r_forgotten(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "The product rule has two terms, and beta h itself is missing from your factor along y. What is the derivative of a product?",
)
def first_term_forgotten_along(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log((1 - beta * r * h**2).abs())
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "Your layer bends around zero, whatever z0 is. From where does y point to z?",
)
def around_zero(z, z0, alpha, beta):
    r = z.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * z, log_det


@wrong(
    "radial_layer",
    "With beta = 1 your factor along y is right, and with no other. Write beta h'(r) r out: which of its three factors is missing?",
)
def beta_forgotten_along(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "Your r is the square of the distance. Is anything missing around the sum of squares?",
)
def squared_distance(z, z0, alpha, beta):
    y = z - z0
    r = y.square().sum(-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


@wrong(
    "radial_layer",
    "One distance came back for the whole batch: a norm without an axis is that of all points together. Has each point a distance of its own?",
)
def norm_of_the_batch(z, z0, alpha, beta):
    y = z - z0
    r = y.norm()
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + beta * h * y, log_det.expand(z.shape[:-1])


@wrong(
    "radial_layer",
    "Points move along z itself, and not along z - z0: the centre moves too. What is y?",
)
def centre_forgotten(z, z0, alpha, beta):
    r = (z - z0).norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * z, log_det


@wrong(
    "radial_layer",
    "You count the points of the batch where the dimensions belong: your power is len(z) - 1. Which axis of z holds the D coordinates?",
)
def points_for_dimensions(z, z0, alpha, beta):
    y = z - z0
    r = y.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (len(z) - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    return z + (beta * h)[..., None] * y, log_det


# sylvester_log_det: three ways to one determinant.


@right("sylvester_log_det")
def with_einsum(z, Q, R, S, b, way):
    a = torch.einsum("nm,dm,...d->...n", S, Q, z) + b
    h = 1 / torch.cosh(a) ** 2
    if way == "diagonal":
        return (1 + h * torch.diagonal(R) * torch.diagonal(S)).abs().log().sum(-1)
    if way == "small":
        matrix = torch.eye(Q.shape[1], dtype=z.dtype) + torch.einsum("...i,ij->...ij", h, S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(Q.shape[0], dtype=z.dtype) + torch.einsum("di,...i,ie->...de", Q @ R, h, S @ Q.T)
    return torch.linalg.slogdet(matrix)[1]


@right("sylvester_log_det")
def by_explicit_diagonals(z, Q, R, S, b, way):
    a = z @ (Q @ S.T) + b
    slopes = torch.diag_embed(1 - torch.tanh(a) ** 2)
    if way == "large":
        J = torch.eye(Q.shape[0]).to(z) + Q @ R @ slopes @ S @ Q.T
    elif way == "small":
        J = torch.eye(Q.shape[1]).to(z) + slopes @ S @ Q.T @ Q @ R
    else:
        J = torch.eye(Q.shape[1]).to(z) + slopes @ torch.diag(R.diagonal() * S.diagonal())
        return torch.log(J.diagonal(dim1=-2, dim2=-1).abs()).sum(-1)
    return torch.linalg.slogdet(J).logabsdet


@wrong(
    "sylvester_log_det",
    "Where Q is not orthonormal, all your ways give what the diagonal gives. Does your small matrix hold Q'Q, and your large one Q itself?",
)
def diagonal_for_all(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)


@wrong(
    "sylvester_log_det",
    "Where Q is not orthonormal, your diagonal agrees with the other two: it has looked at Q'Q. The third way is to believe, and to be cheap.",
    "Which of Q, R and S may the third way use?",
)
def small_for_the_diagonal(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "You multiplied points by S where its transpose belongs: S Q'z for a column z is z @ Q @ S.T for a row. Which of the two is z here?",
)
def rows_taken_for_columns(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Inside the tanh you have R, and S stands outside: they have changed places. Which factor meets the point first?",
)
def r_and_s_exchanged(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ R.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (R @ Q.T @ Q @ S)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ S) * slope[..., None, :]) @ (R @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "The slopes are missing: your matrix holds S and R, as if tanh were a straight line. What is Lambda?",
)
def slopes_forgotten(z, Q, R, S, b, way):
    if way == "diagonal":
        log_det = torch.log(torch.abs(1 + R.diagonal() * S.diagonal())).sum()
    elif way == "small":
        log_det = torch.linalg.slogdet(torch.eye(len(b)).to(z) + S @ Q.T @ Q @ R).logabsdet
    else:
        log_det = torch.linalg.slogdet(torch.eye(len(Q)).to(z) + Q @ R @ S @ Q.T).logabsdet
    return log_det.expand(z.shape[:-1]).clone()


@wrong(
    "sylvester_log_det",
    "Your Lambda holds tanh(a) itself. What does a Jacobian hold: values of a function, or slopes?",
)
def value_in_lambda(z, Q, R, S, b, way):
    slope = torch.tanh(z @ Q @ S.T + b)
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Your slope is that of tanh at S Q'z, without b. What is the argument of tanh?",
)
def shift_forgotten(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Two of your ways are right. In the one by the diagonal you have one number for each of the M factors: what becomes of a product under the logarithm?",
)
def diagonal_not_summed(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal()))
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "In your small matrix S is transposed: S Q'Q R became S' Q'Q R. A released library had such a fault. Is its product still triangular?",
)
def factor_transposed(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S.T @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Your small matrix holds S R: it believes already that Q'Q = I. Which product is B A, before anything is believed of Q?",
)
def small_that_believes(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Where the columns of Q are orthonormal your small matrix has the right determinant by luck: R S and S R have one diagonal. Where they are not, R Q'Q S has another one. With A = Q R and B = S Q', which product is B A?",
)
def a_and_b_exchanged(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (R @ Q.T @ Q @ S)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Your diagonal uses Q: where the columns of Q are not orthonormal it sees that, and the third way believes Q'Q = I. What is the diagonal of S R, from R and S alone?",
)
def diagonal_that_looks_at_q(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * (S @ Q.T @ Q @ R).diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


def only_wrong_by(way):
    """Whether numbers of the right shape came back, and all are right but those of one way."""

    def judge(returned, *given):
        right_ones = with_einsum(*given)
        if returned.shape != right_ones.shape or not returned.isfinite().all():
            return False
        return given[-1] == way or torch.allclose(returned, right_ones, rtol=1e-4, atol=1e-5)

    return judge


@wrong(
    "sylvester_log_det",
    "Your large and small matrices are right, for every Q. The diagonal is not: I + Lambda S R is triangular, so its determinant is the product of its diagonal. What stands at place i of it?",
    "Write the case M = 1 out: all of R, S and Lambda are numbers then.",
    when=only_wrong_by("diagonal"),
)
def factors_added(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * (R.diagonal() + S.diagonal()))).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Your large matrix and your diagonal are right. The small one is not: it is I + Lambda B A, of size M. With A = Q R and B = S Q', which factors has B A, in which order? And is your I a matrix?",
    when=only_wrong_by("small"),
)
def small_without_s(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Your small matrix and your diagonal are right. The large one is not: it is I + A Lambda B, of size D. With A = Q R, is it A's rows or its columns that Lambda multiplies, and what is B?",
    when=only_wrong_by("large"),
)
def large_without_the_inner_factor(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ Q.T
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Where a factor is negative, your diagonal gives nan. What stands between log and det?",
)
def diagonal_without_the_absolute_value(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(1 + slope * R.diagonal() * S.diagonal()).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.linalg.slogdet(matrix).logabsdet


@wrong(
    "sylvester_log_det",
    "Where a determinant is negative, you return nan: you take the logarithm of the determinant itself. What does slogdet give instead?",
)
def logarithm_of_the_determinant(z, Q, R, S, b, way):
    slope = 1 - torch.tanh(z @ Q @ S.T + b) ** 2
    if way == "diagonal":
        return torch.log(torch.abs(1 + slope * R.diagonal() * S.diagonal())).sum(-1)
    if way == "small":
        matrix = torch.eye(len(b)).to(z) + slope[..., None] * (S @ Q.T @ Q @ R)
    else:
        matrix = torch.eye(len(Q)).to(z) + ((Q @ R) * slope[..., None, :]) @ (S @ Q.T)
    return torch.log(torch.linalg.det(matrix))


# below_zero: the estimate, its standard error, and the alarm.


@right("below_zero")
def by_sums(log_q, log_p):
    n = len(log_q)
    d = log_q - log_p
    k = d.sum() / n
    s = torch.sqrt((d - k).square().sum() / (n - 1) / n)
    return k, s, bool(torch.isnan(k)) or bool(k < -4 * s)


@right("below_zero")
def in_floats(log_q, log_p):
    d = (log_q - log_p).double()
    k, s = d.mean().item(), (d.var() / len(d)).sqrt().item()
    return k, s, not k + 4 * s >= 0


@wrong(
    "below_zero",
    "A KL that is no number raises no alarm: every comparison with nan is False. How would you ask the question the other way round?",
)
def nan_passes(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, bool(k < -4 * s)


@wrong(
    "below_zero",
    "Your alarm is silent for some estimates that are no number. nan can come from either density, and from a difference of two infinities. Of which number do you ask whether it is one?",
)
def nan_of_log_q_alone(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, bool(k < -4 * s) or bool(log_q.isnan().any())


@wrong(
    "below_zero",
    "You raise the alarm for every estimate below zero. An estimate of a true KL of zero is below zero half of the time: what is the standard error for?",
)
def no_room_for_noise(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, not bool(k >= 0)


@wrong(
    "below_zero",
    "Your second number is the spread of single draws. The error of a mean of N draws is smaller: by which factor?",
)
def deviation_of_one_draw(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std()
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "You divided the standard deviation by N itself. It is the variance of a mean that falls like 1/N: and its root?",
)
def divided_by_N(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / len(d)
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "Your differences are log p - log q: their mean is minus the KL. Under which density are the draws, and which logarithm comes first?",
)
def the_other_difference(log_q, log_p):
    d = log_p - log_q
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "Your standard deviation divides by N, and N - 1 was asked for: with 50 draws the difference shows.",
)
def divided_by_all(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std(correction=0) / math.sqrt(len(d))
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "You raise the alarm for a KL that is too large as well. A poor fit has a large KL, and no bug. On which side lies the impossible?",
)
def alarm_on_both_sides(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, not bool(abs(k) <= 4 * s)


@wrong(
    "below_zero",
    "Your bool is True where all is well, and False where it is not. The third answer is the alarm.",
)
def all_is_well(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, bool(k >= -4 * s)


@wrong(
    "below_zero",
    "You weigh the differences by q: but the draws come from q already, so that places where it is high come up more often. What is a plain mean over draws an estimate of?",
)
def weighed_twice(log_q, log_p):
    d = (log_q - log_p) * log_q.exp()
    k, s = d.mean(), d.std() / math.sqrt(len(d))
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "Your error is made from the variance, and has the unit of a KL squared. What is the root of a variance called?",
)
def variance_for_deviation(log_q, log_p):
    d = log_q - log_p
    k, s = d.mean(), d.var() / math.sqrt(len(d))
    return k, s, not bool(k >= -4 * s)


@wrong(
    "below_zero",
    "Your estimate grows with the number of draws: it is a sum. What does an expectation over draws become?",
)
def sum_for_mean(log_q, log_p):
    d = log_q - log_p
    k, s = d.sum(), d.std() / math.sqrt(len(d))
    return k, s, not bool(k >= -4 * s)


# fit_energy: reverse KL, annealed. Wrong answers are known by where their draws end up.


def pushed(layers, constrained=False):
    """20,000 draws of the flow, and their log-dets; constrained: u is taken for u^."""
    z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(8))
    w, u, b = (part.detach() for part in layers)
    if not constrained:
        u = without_cancelling(w, u)
    total = torch.zeros(len(z))
    for k in range(len(b)):
        z, log_det = by_the_vector_psi(z, w[k], u[k], b[k])
        total = total + log_det
    return z, total


def has_collapsed(returned, *given):
    return not pushed(returned)[1].mean() >= -50


def is_a_point_or_two(returned, *given):
    return -50 <= pushed(returned)[1].mean() < -4


def has_left(returned, *given):
    return pushed(returned)[0].mean(0).norm() > 20


def is_scattered(returned, *given):
    z = pushed(returned)[0]
    return z.norm(dim=-1).mean() > 20 and z.mean(0).norm() <= 20


def lies_too_far_out(returned, energy, *given):
    """The arcs of U1 lie at 2.14 from the centre, on average."""
    return energy == "U1" and 2.3 < pushed(returned)[0].norm(dim=-1).mean() < 4


def is_on_one_arc(returned, energy, *given):
    right_side = (pushed(returned)[0][:, 0] > 0).float().mean()
    return energy == "U1" and not 0.05 < right_side < 0.95


def kl_to_u1(layers):
    z0 = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(8))  # the draws of `pushed`
    z, total = pushed(layers)
    log_q = -0.5 * z0.square().sum(-1) - math.log(2 * math.pi) - total
    return (log_q - ENERGIES["U1"].log_prob(z)).mean()


def fits_in_reverse(returned, energy, *given):
    """What fails with the first layer first would pass with the last one first."""
    return energy == "U1" and kl_to_u1([part.flip(0) for part in returned]) < 0.6


def records_gradients(returned, *given):
    return any(part.requires_grad for part in returned)


def is_always_u1(returned, energy, *given):
    """Whichever energy was asked for, the KL to U1 is small."""
    return kl_to_u1(returned) < (0.6 if energy == "U1" else 1.5)


def was_constrained(returned, energy, *given):
    z, log_det = pushed(returned, constrained=True)
    again, log_det_again = pushed(returned)
    potential = ENERGIES[energy].potential
    loss, loss_again = (-log_det + potential(z)).mean(), (-log_det_again + potential(again)).mean()
    return loss < loss_again - 0.2


@right("fit_energy")
def all_in_one_loop(energy, layers, steps, rate):
    """The formulas of layer and constraint written out, and 300 draws at a time."""
    w, u, b = [part.detach().clone().requires_grad_(True) for part in layers]
    optimizer = torch.optim.Adam([w, u, b], rate)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        beta = min(1.0, 0.01 + 2 * step / steps)
        c = (w * u).sum(1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / (w * w).sum(1, keepdim=True)
        z = torch.randn(300, 2, generator=generator)
        loss = -0.5 * (z * z).sum(1).mean() - math.log(2 * math.pi)
        for k in range(len(b)):
            h = torch.tanh(z @ w[k] + b[k])
            loss = loss - torch.log(1 + (1 - h * h) * (w[k] @ bent[k])).mean()
            z = z + torch.outer(h, bent[k])
        log_p = -ENERGIES[energy].potential(z)
        if energy == "U2":
            log_p = log_p - 0.5 * ((z[:, 0].abs() - 4).clamp(min=0) / 0.4) ** 2
        optimizer.zero_grad()
        (loss - beta * log_p.mean()).backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@right("fit_energy")
def annealed_for_longer(energy, layers, steps, rate):
    """beta reaches one after 80% of the steps; the draws come from torch's own stream."""
    torch.manual_seed(2)
    parameters = [torch.nn.Parameter(part.clone()) for part in layers]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: max(0.0, 1 - k / max(steps, 1)))
    for k in range(steps):
        w, u, b = parameters
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, log_q = torch.randn(256, 2), 0.0
        for w_k, u_k, b_k in zip(w, bent, b, strict=True):
            slope = 1 - torch.tanh(z @ w_k + b_k) ** 2
            log_q = log_q - torch.log(torch.abs(1 + slope * (w_k @ u_k)))
            z = z + torch.tanh(z @ w_k + b_k)[:, None] * u_k
        energy_there = ENERGIES[energy].potential(z)
        if energy == "U2":
            energy_there = energy_there + 0.5 * ((z[:, 0].abs() - 4).clamp(min=0) / 0.4).square()
        optimizer.zero_grad()
        (log_q + min(1.0, 0.01 + k / (0.8 * steps)) * energy_there).mean().backward()
        optimizer.step()
        schedule.step()
    return tuple(part.detach() for part in parameters)


@wrong(
    "fit_energy",
    "Your layers fit far better when the last of them goes first. Which one do the draws of q_0 meet first in your loop: w[0], or w[-1]?",
    when=fits_in_reverse,
)
def last_layer_first(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in reversed(range(len(b))):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "Your draws have been crushed until hardly any volume is left, or until the numbers broke: the loss pays for contraction. Which sign has the sum of the log-determinants in log q_K?",
    "Where a layer contracts, density rises, and log q_K with it. Should the loss like that?",
    when=has_collapsed,
)
def log_det_added(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "All your draws sit where the target is highest, on a spot that is much too small. Which term of the loss rewards q for being spread out, and does all of it reach the gradient?",
    when=is_a_point_or_two,
)
def log_det_forgotten(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z = torch.randn(256, 2, generator=generator)
        for i in range(len(b)):
            z = z + torch.tanh(z @ w[i] + b[i])[:, None] * bent[i]
        loss = (min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "Your draws have run far away from the target, to where it is lowest. A good fit makes log p large under q: with which sign does it stand in a loss?",
    when=has_left,
)
def target_with_the_wrong_sign(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total - min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "Your draws are flung far apart, as if no layer knew where the others put the points. Which points does the second layer see in your loop?",
    when=is_scattered,
)
def every_layer_sees_z0(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z0, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z0 @ w[i] + b[i])
            z, total = z0 + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "The layers that came back fit much better if their u is used as it is than if it goes through constrain first, as it should. Which u bends points in your loop, and which one do you return?",
    "Whoever gets your layers will constrain them again. Which tensor does Adam move: u, or u^?",
    when=was_constrained,
)
def returns_the_constrained_u(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), bent.detach(), b.detach()


@wrong(
    "fit_energy",
    "Your draws lie too far out: on average more than 2.3 from the centre, where the arcs are at 2.14. Two slips do that: log q_0 is taken after the bends, and it belongs at the draw z_0; or gradients pile up from step to step. Which line looks like one of them?",
    when=lies_too_far_out,
)
def base_at_the_last_z(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (
            -0.5 * z.square().sum(-1) - total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "Nearly all draws end on one of the two arcs. What lets q find the other one before it sharpens: when is beta small in your loop, and which of the three terms does it multiply?",
    "A beta that multiplies all three terms is only a step size. Which one should it make faint? Print beta and the standard deviation of z_1 every 20 steps: q should grow wide first.",
    when=is_on_one_arc,
)
def not_annealed(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()


@wrong(
    "fit_energy",
    "The tensors that came back still record gradients. Which method cuts a tensor off from its graph?",
    when=records_gradients,
)
def not_detached(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES[energy].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w, u, b


@wrong(
    "fit_energy",
    "Asked for U2, your draws settle where U1 is low. Where does your loop use `energy`?",
    when=is_always_u1,
)
def always_u1(energy, layers, steps, rate):
    w, u, b = (part.clone().requires_grad_() for part in layers)
    optimizer = torch.optim.Adam([w, u, b], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        c = (w * u).sum(-1, keepdim=True)
        bent = u + (F.softplus(c) - 1 - c) * w / w.square().sum(-1, keepdim=True)
        z, total = torch.randn(256, 2, generator=generator), 0.0
        for i in range(len(b)):
            h = torch.tanh(z @ w[i] + b[i])
            z, total = z + h[:, None] * bent[i], total + torch.log(1 + (1 - h * h) * (w[i] @ bent[i]))
        loss = (-total + min(1.0, 0.01 + 2 * k / steps) * ENERGIES["U1"].potential(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach(), u.detach(), b.detach()
