"""Answers to lesson 08, coupling."""

import math

import torch

from autograder.answers import right, wrong
from flowkit.lab.nets import apply_mlp

# affine_coupling: z_A = x_A, z_B = x_B * exp(s(x_A)) + t(x_A), and back.


@right("affine_coupling")
def by_indexing(x, mask, net, inverse=False):
    """Writes into the moving columns of a copy."""
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    z, move = x.clone(), ~mask
    if inverse:
        z[..., move] = (x[..., move] - t[..., move]) / torch.exp(s[..., move])
    else:
        z[..., move] = x[..., move] * torch.exp(s[..., move]) + t[..., move]
    return z


@right("affine_coupling")
def by_masking(x, mask, net, inverse=False):
    """As in the RealNVP paper: s and t are multiplied by 1 - b."""
    keep = mask.to(x.dtype)
    t, raw = apply_mlp(net, x * keep).unflatten(-1, (-1, 2)).unbind(-1)
    s, t = (1 - keep) * 2 * torch.tanh(raw / 2), (1 - keep) * t
    return (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t


@wrong(
    "affine_coupling",
    "Your layer multiplies by s, and a scale must never be zero: what would the way back divide by?",
    "The formula has exp(s) where you have s. Why did its authors want a positive factor?",
)
def exp_forgotten(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) / s if inverse else x * s + t)


@wrong(
    "affine_coupling",
    "Your s and t have read x_B too. On the way back x_B is what you are looking for: could you compute them then?",
    "The conditioner takes `kept`: the point with zeros where it moves. What did you hand to it?",
)
def conditioner_sees_everything(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "The dimensions that came back unchanged are those where the mask is False. What does True stand for?",
    "It is a coupling, with A and B exchanged: check the mask both in what is kept and in what the conditioner sees.",
)
def complement_of_the_mask(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * ~mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t, x)


@wrong(
    "affine_coupling",
    "The conditioner has read the half that moves, and the other half stayed. Which half is still there on the way back?",
)
def conditioner_reads_the_moving_half(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * ~mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "With inverse=True your layer does what it does without. Is the argument `inverse` used?",
)
def never_inverts(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.where(mask, x, x * torch.exp(2 * torch.tanh(raw / 2)) + t)


@wrong(
    "affine_coupling",
    "Forward is right. Going back you undo the scale before the shift: you put on socks, then shoes. What comes off first?",
)
def undone_in_the_wrong_order(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, x * torch.exp(-s) - t if inverse else x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "Forward is right. Going back you take the shift off and then scale by exp(s) once more. Which factor undoes exp(s)?",
)
def scale_not_undone(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(s) if inverse else x * torch.exp(s) + t)


# coupling_log_det: log abs det dz/dx, from s alone.


@right("coupling_log_det")
def summed_by_masking(x, mask, s, t):
    return (s * ~mask).sum(-1)


@right("coupling_log_det")
def summed_by_indexing(x, mask, s, t):
    """Sums only the columns that the layer moves."""
    return s[..., ~mask].sum(-1)


@right("coupling_log_det")
def along_the_diagonal(x, mask, s, t):
    """Goes down the diagonal of J: 1 for a kept dimension, exp(s_i) for one that moves."""
    total = torch.zeros_like(s[..., 0])
    for i, kept in enumerate(mask.tolist()):
        log_diagonal = torch.zeros_like(s[..., i]) if kept else s[..., i]
        total = total + log_diagonal
    return total


@wrong(
    "coupling_log_det",
    "You added the scale of the dimensions that the layer keeps. Which rows of the Jacobian are the identity's?",
    "s has an entry for every dimension; at the kept ones it is a leftover. What stands on the diagonal of J there?",
)
def sum_over_all(x, mask, s, t):
    return s.sum(-1)


@wrong(
    "coupling_log_det",
    "This is the log-determinant of the inverse: you are measuring dx/dz. Which map did you differentiate?",
    "Write z_B in terms of x_B. Is its derivative exp(s) or exp(-s)?",
)
def of_the_inverse(x, mask, s, t):
    return -torch.where(mask, 0.0, s).sum(-1)


@wrong(
    "coupling_log_det",
    "This is the determinant; the log-likelihood needs its logarithm. What is the logarithm of a product of exponentials?",
)
def without_the_logarithm(x, mask, s, t):
    return torch.where(mask, 0.0, s).sum(-1).exp()


@wrong(
    "coupling_log_det",
    "You add up the factors exp(s) themselves. A determinant multiplies the diagonal: what becomes of that under the logarithm?",
)
def sum_of_scales(x, mask, s, t):
    return torch.where(mask, 0.0, s.exp()).sum(-1)


@wrong(
    "coupling_log_det",
    "One number came back for the whole batch, and each point has its own volume change. Over which axes do you sum?",
    "s has shape (..., D), and the result (...): only one axis goes away.",
)
def summed_over_the_batch(x, mask, s, t):
    return torch.where(mask, 0.0, s).sum()


@wrong(
    "coupling_log_det",
    "You added the leftovers at the kept dimensions, and left out those that move. What does True in the mask stand for?",
    "Look at a mask that keeps all dimensions but one: how many entries of s can matter?",
)
def sum_over_the_kept(x, mask, s, t):
    return torch.where(mask, s, 0.0).sum(-1)


@wrong(
    "coupling_log_det",
    "You averaged over the moving dimensions: with three of them your value is a third. Does the determinant know how many there are?",
)
def mean_for_sum(x, mask, s, t):
    return s[..., ~mask].mean(-1)


@wrong(
    "coupling_log_det",
    "You averaged over all D dimensions, the kept ones counted as zero. Which operation turns a product into a logarithm?",
)
def mean_over_all(x, mask, s, t):
    return torch.where(mask, 0.0, s).mean(-1)


@wrong(
    "coupling_log_det",
    "It is right for small s. For 63 moving dimensions with s = 30 the product of the exp(s) is infinite, and its "
    "logarithm too. Can the logarithm be taken before anything overflows?",
)
def logarithm_of_the_product(x, mask, s, t):
    return torch.where(mask, 1.0, s.exp()).prod(-1).log()


# nice_log_prob: additive couplings, a scale layer, standard normal noise.


@right("nice_log_prob")
def by_columns(x, layers, log_scale):
    h = x.clone()
    for mask, net in layers:
        moved = h[..., ~mask] + apply_mlp(net, h * mask)[..., ~mask]
        h = h.clone()
        h[..., ~mask] = moved
    z = torch.exp(log_scale) * h
    return torch.sum(log_scale - 0.5 * z**2 - 0.5 * math.log(2 * math.pi), dim=-1)


@right("nice_log_prob")
def with_a_normal_of_other_width(x, layers, log_scale):
    """h is normal with standard deviation exp(-log_scale), and volume is kept on the way to it."""
    h = x
    for mask, net in layers:
        h = h + apply_mlp(net, torch.where(mask, h, torch.zeros_like(h))) * ~mask
    return torch.distributions.Normal(torch.zeros_like(log_scale), torch.exp(-log_scale)).log_prob(h).sum(-1)


@wrong(
    "nice_log_prob",
    "The couplings keep volume, and your density treats the last layer as if it did too. By how much does it stretch space?",
    "Your mass is not one unless log_scale is zero. What is the Jacobian of z = exp(sigma) * h?",
)
def scale_has_no_log_det(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)


@wrong(
    "nice_log_prob",
    "You subtract the scaling's log-determinant: that is the one of the map from noise to data. Where does f go?",
)
def minus_the_scale(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) - log_scale.sum()


@wrong(
    "nice_log_prob",
    "You multiply by log_scale itself. It is the logarithm of the scale: how do you get the scale from it?",
)
def scale_without_exp(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * log_scale
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Every shift is computed from the data itself. The second layer does not see the data: what does it see?",
)
def shifts_from_the_data(x, layers, log_scale):
    h = x
    for mask, net in layers:
        h = torch.where(mask, h, h + apply_mlp(net, x * mask))
    z = h * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your layers shift the dimensions that they should keep. What does True in the mask stand for?",
)
def shifts_the_kept(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x + apply_mlp(net, x * ~mask), x)
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "You apply the layers from the last to the first: that is the order of the way back. Which layer meets the data first?",
)
def layers_reversed(x, layers, log_scale):
    for mask, net in reversed(layers):
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "You ask the noise about x. It is z, after all couplings and the scaling, that is standard normal.",
)
def noise_at_the_data(x, layers, log_scale):
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


# dependency_graph: paths through a stack, read off the masks.


@right("dependency_graph")
def by_sets_of_inputs(layers, D):
    heard = [{j} for j in range(D)]
    for kind, what in layers:
        if kind == "permute":
            heard = [heard[j] for j in what]
        else:
            news = set().union(*[heard[j] for j in range(D) if what[j]])
            heard = [heard[i] if what[i] else heard[i] | news for i in range(D)]
    return torch.tensor([[j in heard[i] for j in range(D)] for i in range(D)])


@right("dependency_graph")
def by_rows(layers, D):
    """Row i is what output i has heard of; a moving row takes in the rows that are kept."""
    reach = torch.eye(D, dtype=torch.bool)
    for kind, what in layers:
        index = torch.tensor(what)
        if kind == "permute":
            reach = reach[index]
        else:
            reach = torch.where(index[:, None], reach, reach | reach[index].any(0))
    return reach


@wrong(
    "dependency_graph",
    "This is the transpose: entry [i, j] of yours says whether input i reaches output j. Which index is the row of J = dz/dx?",
)
def transposed(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach.T > 0


@wrong(
    "dependency_graph",
    "One layer is right and a stack is not: your layers are multiplied in the order of the way back. If y = R x, and z = M y, "
    "what is z in terms of x?",
)
def composed_backwards(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((reach @ step) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "You count the paths, and the question is whether there is one: a boolean.",
    "Compare your matrix with zero. In a long stack the numbers of paths overflow: is it enough to compare at the end?",
)
def counts_of_paths(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = step @ reach
    return reach


@wrong(
    "dependency_graph",
    "In your graph the kept dimensions listen to the moving ones. Who computes the shift, and who is shifted?",
)
def arrows_from_the_moving(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(torch.tensor(what), ~torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "Your moving dimensions forget themselves. z_B = x_B * exp(s) + t: does it read x_B?",
)
def no_diagonal(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        if kind == "permute":
            step = torch.eye(D)[what]
        else:
            step = torch.diag(torch.tensor(what).float())
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "You let every moving dimension read all the others. Within one layer, do two moving dimensions hear each other?",
)
def moving_read_everything(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[~torch.tensor(what)] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "Your permutation runs the other way: z_i = x_order[i] says where output i comes from, not where input i goes.",
)
def permutation_inverted(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what].T
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


# inspect_stack: two broken laws, and one bug that breaks none.


@right("inspect_stack")
def by_counterexamples(x, z, back, jacobian, log_det):
    true = torch.linalg.slogdet(jacobian)[1]
    verdicts = {
        "not invertible": torch.isclose(back, x, rtol=0, atol=1e-6).all(),
        "wrong log-det": torch.isclose(log_det, true, rtol=0, atol=1e-6).all(),
        "frozen": (z != x).any(dim=0).all(),
    }
    return next((name for name, innocent in verdicts.items() if not innocent), "no objection")


@right("inspect_stack")
def with_a_loop_over_dimensions(x, z, back, jacobian, log_det):
    if not torch.allclose(back, x, rtol=0, atol=1e-6):
        return "not invertible"
    if not torch.allclose(log_det, jacobian.det().abs().log(), rtol=0, atol=1e-6):
        return "wrong log-det"
    for i in range(x.shape[-1]):
        if torch.equal(z[:, i], x[:, i]):
            return "frozen"
    return "no objection"


@wrong(
    "inspect_stack",
    "Round trip and log-determinant are all that you look at, and the parity bug passes both. What does it do to a dimension?",
)
def laws_only(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_stack",
    "You accuse a stack whose round trip closes and whose dimensions all move. At one point an entry may stand still: "
    "what about the other points?",
    "Over which axis must `all` go before `any`: the points, or the dimensions?",
)
def any_entry_that_stands_still(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).any() else "no objection"


@wrong(
    "inspect_stack",
    "You call a stack frozen when whole points stand still. The parity bug freezes some dimensions of every point.",
)
def whole_points(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(1).any() else "no objection"


@wrong(
    "inspect_stack",
    "nan gets through: every comparison with it is False, also `> 1e-6`. Ask whether all entries are within the tolerance.",
)
def nan_passes(x, z, back, jacobian, log_det):
    if ((back - x).abs() > 1e-6).any():
        return "not invertible"
    if ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() > 1e-6).any():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "You accuse a right stack that swaps two dimensions: its determinant is negative, and the logarithm of that is nan. "
    "What does the change of variables wrap the determinant in?",
)
def without_the_absolute_value(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.logdet(jacobian)).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "You compare log_det with the determinant itself. Which function lies between the two?",
)
def determinant_for_its_logarithm(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.det(jacobian).abs()).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


# fit_stack: maximum likelihood of a stack, by Adam.


@right("fit_stack")
def with_a_scheduler(stack, data, steps, rate):
    """One flat list of parameters, PyTorch's own schedule, NumPy-style indexing."""
    layers = [
        (mask, [(torch.nn.Parameter(W.clone()), torch.nn.Parameter(b.clone())) for W, b in net])
        for mask, net in stack
    ]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: max(0.0, 1 - k / max(steps, 1)))
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        h = data[torch.randperm(len(data), generator=draws)[:256]]
        log_det = torch.zeros(len(h))
        for mask, net in layers:
            t, raw = apply_mlp(net, h * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2) * ~mask
            h = h * s.exp() + t * ~mask
            log_det = log_det + s.sum(-1)
        loss = (0.5 * h.square().sum(-1) + 0.5 * h.shape[-1] * math.log(2 * math.pi) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return [(mask, [(W.data, b.data) for W, b in net]) for mask, net in layers]


@right("fit_stack")
def with_gradients_by_hand(stack, data, steps, rate):
    """torch.autograd.grad, and the constant of the noise left out of the loss."""
    layers = [(mask, [[w.clone() for w in pair] for pair in net]) for mask, net in stack]
    weights = [w.requires_grad_() for _, net in layers for pair in net for w in pair]
    optimizer = torch.optim.Adam(weights)
    generator = torch.Generator().manual_seed(2)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (steps - k) / steps
        x = data[torch.randint(len(data), (256,), generator=generator)]
        loss = 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            loss = loss - s[:, ~mask].sum(-1).mean()
            x = torch.where(mask, x, x * s.exp() + t)
        loss = loss + 0.5 * x.square().sum(-1).mean()
        for w, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            w.grad = gradient
        optimizer.step()
    return [(mask, [tuple(w.detach() for w in pair) for pair in net]) for mask, net in layers]


def fate(returned, data):
    """The mean square of z over the data and its dimensions, where training has moved the weights at all."""
    x = data
    with torch.no_grad():
        for mask, net in returned:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            x = torch.where(mask, x, x * torch.exp(2 * torch.tanh(raw / 2)) + t)
    return x.square().mean().item()


def same_weights(returned, stack):
    """Whether training has left all weights as they were."""
    pairs = zip(stack, returned, strict=True)
    return all(
        torch.equal(w, v)
        for (_, net), (_, other) in pairs
        for one, two in zip(net, other, strict=True)
        for w, v in zip(one, two, strict=True)
    )


@wrong(
    "fit_stack",
    "The weights that came back are those that went in. Does every weight get to the optimizer, and do you return the copy "
    "that was trained?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and same_weights(returned, stack),
)
def untrained(stack, data, steps, rate):
    return [(mask, [(W.clone(), b.clone()) for W, b in net]) for mask, net in stack]


@wrong(
    "fit_stack",
    "Your flow crushes the data: every z lies close to zero, and nothing forbade it. Which term of the log-likelihood charges "
    "for shrinking, and what is its sign in your loss?",
    "The loss is minus (log-density of z plus the sum of the log-dets). Print both parts for some steps: which one runs away?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and fate(returned, data) < 0.2,
)
def log_det_forgotten(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = data[torch.randint(len(data), (256,), generator=generator)]
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            x = torch.where(mask, x, x * torch.exp(2 * torch.tanh(raw / 2)) + t)
        loss = 0.5 * x.square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "Your z have run far away from zero: you climb the loss instead of descending it. What does Adam do with the number that "
    "you call backward() on?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and not fate(returned, data) < 5,
)
def uphill(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (total - 0.5 * x.square().sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "The weights of every second layer never changed: half of your layers are still the identity. Which weights does your "
    "optimizer hold?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and same_weights(returned[1::2], stack[1::2]) and not same_weights(returned, stack)
    ),
)
def every_second_layer_only(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers[::2] for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]
