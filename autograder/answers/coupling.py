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
    "The conditioner reads the half that stays, as it should, and then that half moves. Where does torch.where take its second argument?",
)
def kept_half_moves(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t, x)


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


@wrong(
    "affine_coupling",
    "You return a pair. Return the points alone: the log-determinant is exercise 2.",
    when=lambda returned, *given: isinstance(returned, tuple),
)
def returns_the_log_det_too(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    log_det = torch.where(mask, 0.0, s).sum(-1)
    if inverse:
        return torch.where(mask, x, (x - t) * torch.exp(-s)), -log_det
    return torch.where(mask, x, x * torch.exp(s) + t), log_det


@wrong(
    "affine_coupling",
    "You do the inverse where forward is asked, and forward where the inverse is: that is the noise-to-data convention. Which way does f go in this course?",
)
def from_noise_to_data(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, x * torch.exp(s) + t if inverse else (x - t) * torch.exp(-s))


@wrong(
    "affine_coupling",
    "You multiply by exp(-s) on the way to the noise, and your inverse undoes that: a bijection, and not this one. Which sign has s in the formula of z_B?",
)
def sign_of_s_reversed(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(s) if inverse else x * torch.exp(-s) + t)


@wrong(
    "affine_coupling",
    "Your forward and your inverse both multiply by exp(-s). Which of the two should stretch where s is positive?",
)
def forward_with_exp_of_minus_s(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(-s) if inverse else x * torch.exp(-s) + t)


@wrong(
    "affine_coupling",
    "You shift by s and scale by exp(t). Which of the pair that conditioner returns is s?",
)
def s_and_t_exchanged(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - s) * torch.exp(-t) if inverse else x * torch.exp(t) + s)


@wrong(
    "affine_coupling",
    "The kept dimensions are counted twice: once as they came, and once within the part that moves. What should that part be where the mask is True?",
)
def kept_counted_twice(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return x * mask + ((x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "You add the whole of x to the part that moved, so the moving dimensions hold x_B once too often. Which part of x belongs there?",
)
def kept_part_added(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return x + torch.where(mask, 0.0, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "All dimensions moved, the kept ones too, by the leftovers of s and t. Where do you put x_A back?",
)
def kept_part_moves_too(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t


@wrong(
    "affine_coupling",
    "With inverse=True you put the kept dimensions back, and with inverse=False they move. What is z_A?",
)
def kept_part_moves_forward(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(-s)) if inverse else x * torch.exp(s) + t


@wrong(
    "affine_coupling",
    "With inverse=False the kept dimensions stay, and with inverse=True they move. What is x_A, given z_A?",
)
def kept_part_moves_back(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return (x - t) * torch.exp(-s) if inverse else torch.where(mask, x, x * torch.exp(s) + t)


@wrong(
    "affine_coupling",
    "Where the mask is True you return zeros. What became of x_A?",
)
def kept_part_lost(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return ((x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t) * ~mask


@wrong(
    "affine_coupling",
    "Forward is right. On the way back your conditioner reads z_B as well: with other inputs it gives other s and t. What did it read on the way there?",
)
def unmasked_on_the_way_back(x, mask, net, inverse=False):
    t, raw = apply_mlp(net, x if inverse else x * mask).unflatten(-1, (-1, 2)).unbind(-1)
    s = 2 * torch.tanh(raw / 2)
    return torch.where(mask, x, (x - t) * torch.exp(-s) if inverse else x * torch.exp(s) + t)


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
    "You averaged over all D dimensions, the kept ones counted as zero. Is the log of a product of D numbers the mean of their logs?",
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


@wrong(
    "coupling_log_det",
    "You add 1 for each kept dimension: it does stand on the diagonal of J. The kept rows have determinant 1; what is its logarithm?",
)
def ones_at_the_kept(x, mask, s, t):
    return torch.where(mask, 1.0, s).sum(-1)


@wrong(
    "coupling_log_det",
    "This is the sum of the diagonal of J, its trace. What does the determinant of a triangular matrix do with its diagonal?",
)
def trace(x, mask, s, t):
    return torch.where(mask, 1.0, s.exp()).sum(-1)


@wrong(
    "coupling_log_det",
    "You have the right number for each dimension of each point. How do they become one number for each point?",
)
def one_for_each_dimension(x, mask, s, t):
    return torch.where(mask, 0.0, s)


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
    "The noise sees what the last coupling makes of the data itself. Each layer started again from the original x; what does layer 2 see?",
    "If the result of a layer has a name of its own, which name does the next layer read?",
)
def each_layer_starts_again(x, layers, log_scale):
    h = x
    for mask, net in layers:
        h = torch.where(mask, x, x + apply_mlp(net, x * mask))
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
    "Your networks read the half that stays, as they should, and then that half moves. Where does torch.where take its second argument?",
)
def kept_half_moves_in_nice(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x + apply_mlp(net, x * mask), x)
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your networks read the half that moves. Which half is still there on the way back?",
)
def networks_read_the_moving_half(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * ~mask))
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your layers move all dimensions. Which of them stay, and what does the mask say of it?",
)
def all_dimensions_move(x, layers, log_scale):
    for mask, net in layers:
        x = x + apply_mlp(net, x * mask)
    z = x * log_scale.exp()
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your shifts are subtracted: that is the way from noise to data. Which way does f go?",
)
def shifts_subtracted(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x - apply_mlp(net, x * mask))
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


@wrong(
    "nice_log_prob",
    "You divide by exp(sigma), and your log-determinant is that of a map that multiplies. Which way does the last layer take h?",
)
def divides_by_the_scale(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * torch.exp(-log_scale)
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "You divide by exp(sigma) and subtract the sigmas: a density, with the scaling taken from noise to data. What does the formula of z say?",
)
def scale_from_noise_to_data(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * torch.exp(-log_scale)
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) - log_scale.sum()


@wrong(
    "nice_log_prob",
    "You scale the data and then run the couplings. Is sigma the first layer or the last one? Then the networks read other numbers.",
)
def scales_first(x, layers, log_scale):
    x = x * torch.exp(log_scale)
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your networks read all of x, the moving dimensions too: then the diagonal of J is no longer 1. What may the shift depend on?",
)
def net_sees_everything(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x))
    z = x * torch.exp(log_scale)
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "You add the factors exp(sigma) themselves. The determinant is their product: what is its logarithm?",
)
def sum_of_the_scales(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * torch.exp(log_scale)
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_scale.exp().sum()


@wrong(
    "nice_log_prob",
    "You count the scaling in the log-determinant, and never apply it. What does the noise see?",
)
def no_scaling(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "Your couplings are right, and log_scale is not used at all. Which layer comes after them?",
)
def scale_forgotten(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(-1)


@wrong(
    "nice_log_prob",
    "The constant of the normal density is there once, and there is a normal density for each of the D dimensions. How many constants?",
)
def constant_once(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * torch.exp(log_scale)
    return -0.5 * (z**2).sum(-1) - 0.5 * math.log(2 * math.pi) + log_scale.sum()


@wrong(
    "nice_log_prob",
    "The constant of the normal density is missing. normal_log_density from the first cell has it: do you use it?",
)
def constant_forgotten(x, layers, log_scale):
    for mask, net in layers:
        x = torch.where(mask, x, x + apply_mlp(net, x * mask))
    z = x * torch.exp(log_scale)
    return -0.5 * (z**2).sum(-1) + log_scale.sum()


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


@wrong(
    "dependency_graph",
    "Your couplings have the arrows from the kept to the moving, and no others: every dimension has lost the arrow from itself. What are z_A, and z_B where t = 0?",
)
def no_identity(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.zeros(D, D)
        if kind == "permute":
            step[torch.arange(D), torch.tensor(what)] = 1
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    'Your couplings are right, and a ("permute", order) layer changes nothing. After it, what has output i heard of?',
)
def permutations_ignored(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        if kind == "couple":
            step = torch.eye(D)
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
            reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "Your permutation reorders the columns of the matrix, which are the inputs of the whole stack. Whose order does the layer change?",
)
def permutation_of_the_columns(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        if kind == "permute":
            reach = reach[:, what]
            continue
        step = torch.eye(D)
        step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step @ reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "You gather the arrows of all the layers, and never join two of them to a path. If k hears j in the first layer and i hears k in the second, does i hear j?",
)
def arrows_of_all_layers_at_once(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = ((step + reach) > 0).float()
    return reach > 0


@wrong(
    "dependency_graph",
    "Your matrix is that of the last layer alone. What did its inputs already depend on?",
)
def last_layer_only(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = step
    return reach > 0


@wrong(
    "dependency_graph",
    "It is right for short stacks. In 120 layers the number of paths leaves float32, and infinity times zero is nan. Can you forget the number after each layer?",
)
def numbers_of_paths_overflow(layers, D):
    reach = torch.eye(D)
    for kind, what in layers:
        step = torch.eye(D)
        if kind == "permute":
            step = step[what]
        else:
            step[torch.outer(~torch.tensor(what), torch.tensor(what))] = 1
        reach = step @ reach
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
    "You compare log_det with something else than the logarithm: the determinant itself, or its sign, which slogdet gives first. Which of its two numbers do you want?",
)
def determinant_for_its_logarithm(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.det(jacobian).abs()).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


VERDICTS = ("not invertible", "wrong log-det", "frozen", "no objection")


@wrong(
    "inspect_stack",
    "One of the strings that you return is none of the four. Compare them letter for letter with the statement: hyphen, underscore, capitals?",
    when=lambda returned, *given: (
        isinstance(returned, str)
        and (returned not in VERDICTS or returned == by_counterexamples(*given[-5:]))
    ),
)
def a_string_of_its_own(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log_det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "You compare back with z. The inverse has taken z to the data again: what should it have met there?",
)
def back_compared_with_z(x, z, back, jacobian, log_det):
    if not ((back - z).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "An inverse that comes back too low gets past you: back - x is negative there, and so below 1e-6. What measures the size of a difference?",
)
def round_trip_without_abs(x, z, back, jacobian, log_det):
    if not ((back - x) <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "Whatever is too low gets past you, in back and in log_det: a negative difference is below 1e-6. What measures its size?",
)
def no_abs_anywhere(x, z, back, jacobian, log_det):
    if not ((back - x) <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]) <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "A log_det that is too low gets past you: the difference is negative there, and so below 1e-6. What measures its size?",
)
def log_det_without_abs(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]) <= 1e-6).all():
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    "An error of 5e-6 gets past you at a large entry: allclose and isclose allow errors in proportion to the values, unless rtol=0. Which tolerance is asked for?",
)
def with_allclose(x, z, back, jacobian, log_det):
    if not torch.allclose(back, x):
        return "not invertible"
    if not torch.allclose(log_det, torch.linalg.slogdet(jacobian)[1]):
        return "wrong log-det"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    'You say "frozen" of a stack that breaks a law as well. The verdicts are in an order, and the first that applies counts: which tests come first?',
)
def frozen_first(x, z, back, jacobian, log_det):
    if (z == x).all(0).any():
        return "frozen"
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_stack",
    'A stack with a wrong inverse and a wrong log-det gets "wrong log-det" from you. Which of the two is first in the list?',
)
def log_det_first(x, z, back, jacobian, log_det):
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    return "frozen" if (z == x).all(0).any() else "no objection"


@wrong(
    "inspect_stack",
    'The parity bug with a wrong log-det gets "frozen" from you. Which of the two is first in the list?',
)
def frozen_before_the_log_det(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).all():
        return "not invertible"
    if (z == x).all(0).any():
        return "frozen"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).all():
        return "wrong log-det"
    return "no objection"


@wrong(
    "inspect_stack",
    "One good entry is enough for you to let a stack pass. Some entry wrong should suffice to object: any, or all?",
)
def any_for_all(x, z, back, jacobian, log_det):
    if not ((back - x).abs() <= 1e-6).any():
        return "not invertible"
    if not ((log_det - torch.linalg.slogdet(jacobian)[1]).abs() <= 1e-6).any():
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
def with_a_constant_step(stack, data, steps, rate):
    """The step size does not fall, and the weights still ask for gradients: the statement says that both pass."""
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(3)
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
    return layers


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
    "The weights that came back are those that went in. Does every weight get to the optimizer, are the gradients still there "
    "at its step, and do you return the copy that was trained?",
    "Print the gradient of one weight just before `optimizer.step()`: is there one left?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and same_weights(returned, stack),
)
def untrained(stack, data, steps, rate):
    return [(mask, [(W.clone(), b.clone()) for W, b in net]) for mask, net in stack]


def travelled(returned, stack):
    """The median way that a weight has gone, of those that have moved; 0 where none has."""
    ways = [
        (w - v).abs().flatten()
        for (_, net), (_, old) in zip(returned, stack, strict=True)
        for pair, was in zip(net, old, strict=True)
        for w, v in zip(pair, was, strict=True)
    ]
    moved = torch.cat(ways)
    return moved[moved > 0].median().item() if moved.any() else 0.0


@wrong(
    "fit_stack",
    "Half of the weights that moved have come further than 0.4 * steps * rate from where they were, and Adam moves a weight by about "
    "its step size: they hardly ever turned. What does backward() do with the gradients that are there already?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and travelled(returned, stack) > 0.4 * steps * rate
    ),
)
def gradients_pile_up(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


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


def mean_loss(returned, data, masked=True, of_the_data=False, again=False):
    """The mean negative log-likelihood, in nats, of the map as it is, or as a slip has it.

    masked: the networks see the kept dimensions alone; of_the_data: those of the data, in every layer;
    again: every layer moves the data, so that of the points the last layer alone counts.
    """
    x, total = data, 0
    with torch.no_grad():
        for mask, net in returned:
            x = data if again else x
            seen = data if of_the_data else x
            t, raw = apply_mlp(net, seen * mask if masked else seen).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        return (0.5 * x.square().sum(-1) + math.log(2 * math.pi) * x.shape[-1] / 2 - total).mean().item()


def leftovers(returned):
    """The largest size of a weight that makes s at a kept dimension: zero before training, and after it."""
    return max(net[-1][0][:, 1::2][:, mask].abs().max().item() for mask, net in returned)


def better(slip, returned, data, **how):
    """Whether the map that has the slip was the one trained: it fits the data, and the map as it is does not.

    Untrained stacks have 2.4 nats on the moons, whose entropy is 1.42.
    """
    return mean_loss(slip, data, **how) < min(1.9, mean_loss(returned, data) - 0.3)


@wrong(
    "fit_stack",
    "Your loss fell below zero, where no density of these points can come: it is that of layers of which each starts again from the data. "
    "Does layer 2 see what layer 1 made, and does its gradient get back to layer 1, past any detach or no_grad?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and mean_loss(returned, data, again=True) < 0,
)
def layers_start_again(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            z = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * z.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "Your networks have learned an s for the dimensions that they keep, and no map uses it: it only flatters your loss. Do you add s only where dimensions move?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and leftovers(returned) > 0.05,
)
def leftovers_counted(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + s.sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "Your loss falls for a map whose networks all read the data itself. The second layer does not see the data: what does it see?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and better(returned, returned, data, of_the_data=True)
    ),
)
def layers_see_the_data(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        first = x
        for mask, net in layers:
            t, raw = apply_mlp(net, first * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "Your loss falls for a map whose networks read the moving dimensions too, and then the sum of s is not its log-determinant. What did exercise 1 hand to the conditioner?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and better(returned, returned, data, masked=False)
    ),
)
def conditioner_unmasked(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in layers:
            t, raw = apply_mlp(net, x).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "Your loss falls for the stack taken from its last layer to its first. Which layer meets the data first?",
    when=lambda returned, stack, data, steps, rate: steps > 0 and better(returned[::-1], returned, data),
)
def layers_in_reverse(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for mask, net in reversed(layers):
            t, raw = apply_mlp(net, x * mask).unflatten(-1, (-1, 2)).unbind(-1)
            s = 2 * torch.tanh(raw / 2)
            total = total + torch.where(mask, 0.0, s).sum(-1)
            x = torch.where(mask, x, x * torch.exp(s) + t)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [(mask, [(W.detach(), b.detach()) for W, b in net]) for mask, net in layers]


@wrong(
    "fit_stack",
    "The first 256 points have become far more likely than the others: you learned them by heart. Where does each step get its batch?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and mean_loss(returned, data[:256]) < min(1.4, mean_loss(returned, data[256:]) - 0.3)
    ),
)
def always_the_same_batch(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers for pair in net for w in pair], lr=rate)
    for _ in range(steps):
        x, total = data[:256], 0
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


@wrong(
    "fit_stack",
    "Your z have run far from zero. Does the loss that you print fall? If it rises, check its sign; if it falls, does your "
    "loop compute the same map as the stack: mask, order, updated x?",
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
    "4 of 8 layers came back with the weights that went in: every second one is still the identity. Which weights does your "
    "optimizer hold?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0
        and [k for k in range(8) if same_weights(returned[k : k + 1], stack[k : k + 1])]
        in ([1, 3, 5, 7], [0, 2, 4, 6])
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


@wrong(
    "fit_stack",
    "7 of 8 layers came back with the weights that went in: only stack[0] has learned. Which weights does your optimizer hold?",
    when=lambda returned, stack, data, steps, rate: (
        steps > 0 and same_weights(returned[1:], stack[1:]) and not same_weights(returned[:1], stack[:1])
    ),
)
def first_layer_only(stack, data, steps, rate):
    layers = [(m, [(W.clone().requires_grad_(), b.clone().requires_grad_()) for W, b in n]) for m, n in stack]
    optimizer = torch.optim.Adam([w for _, net in layers[:1] for pair in net for w in pair], lr=rate)
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
