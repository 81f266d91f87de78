"""Answers to lesson 11, autoregressive."""

import math
from itertools import pairwise

import numpy as np
import torch

from autograder.answers import right, wrong
from flowkit.lab.nets import apply_masked


def conditioner(x, net):
    """As the lesson's first cell has it: the answers call it, here and in the notebook."""
    mu, raw = apply_masked(net, x).unflatten(-1, (2, -1)).unbind(-2)
    return mu, 2 * torch.tanh(raw / 2)


def hidden_degrees(D, width):
    """As the lesson's first cell has it."""
    return 1 + torch.arange(width) % max(D - 1, 1)


# autoregressive_log_prob: x_i given x_<i is N(mu_i, exp(2 s_i)).


@right("autoregressive_log_prob")
def product_of_conditionals(x, mu, s):
    return torch.distributions.Normal(mu, torch.exp(s)).log_prob(x).sum(-1)


@right("autoregressive_log_prob")
def noise_and_log_det_apart(x, mu, s):
    z = (x - mu) / torch.exp(s)
    log_noise = -0.5 * z.square().sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)
    return log_noise - s.sum(-1)


@wrong(
    "autoregressive_log_prob",
    "Your log-determinant is that of the way back, dx/dz. Which map is differentiated, and what is its slope in x_i?",
    "z_i = (x_i - mu_i) exp(-s_i): how does z_i change when x_i grows by a little?",
)
def sign_of_the_log_det(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) + s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You ask the noise about z and leave it at that. Standardizing stretches and shrinks: which term accounts for it?",
    "Where s is zero you are right. Look at the diagonal of J where it is not.",
)
def no_log_det_at_all(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You multiply by exp(s) on the way to the noise. A wide conditional, with a large s: does standardizing stretch or shrink it?",
)
def scaled_by_exp_s(x, mu, s):
    z = (x - mu) * torch.exp(s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "This is the density of a flow z = (x - mu) exp(s). It integrates to one, with the deviations turned upside down: which sign has s in the formula of z?",
)
def s_reversed_in_both(x, mu, s):
    z = (x - mu) * torch.exp(s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) + s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You walk back: z exp(s) + mu is the map from noise to data. You have x: where does it go?",
)
def the_way_back(x, mu, s):
    z = x * torch.exp(s) + mu
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You take s for the standard deviation itself, and s may be negative. What does the statement say the deviation is?",
)
def s_as_deviation(x, mu, s):
    z = (x - mu) / s
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s.log()).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You take exp(s) for the variance. What does the statement say exp(s_i) is?",
)
def s_as_log_variance(x, mu, s):
    z = (x - mu) * torch.exp(-0.5 * s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - 0.5 * s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You subtract the scales exp(s_i) themselves. A determinant multiplies the diagonal: what is the logarithm of the product of the exp(-s_i)?",
)
def sum_of_scales(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - torch.exp(s)).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You add the diagonal of J itself, exp(-s_i): that is its trace. What does the determinant of a triangular matrix do with its diagonal, and what does the logarithm make of that?",
)
def trace(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) + torch.exp(-s)).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "Your determinant is right until the scales are large: a product of many small numbers is zero for the computer, and one of "
    "many large ones infinite. What does the logarithm make of a product, before it is computed?",
)
def log_of_the_product(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) + torch.exp(-s).prod(-1).log()


@wrong(
    "autoregressive_log_prob",
    "You have the log-density of each conditional, D numbers for each point. The density is their product: what becomes of the logarithms?",
)
def one_for_each_dimension(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return -0.5 * (z.square() + math.log(2 * math.pi)) - s


@wrong(
    "autoregressive_log_prob",
    "You average over the dimensions. Is the logarithm of a product of D factors the mean of their logarithms?",
)
def mean_for_sum(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).mean(-1)


@wrong(
    "autoregressive_log_prob",
    "One number came back for the whole batch, and each point has a density of its own. Over which axis do you sum?",
)
def summed_over_the_batch(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum()


@wrong(
    "autoregressive_log_prob",
    "This is the density. The exercise asks for its logarithm.",
)
def density_itself(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1).exp()


@wrong(
    "autoregressive_log_prob",
    "The constant of the normal density is there once, and there is a normal density for each of the D variables. How many constants?",
)
def constant_once(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * z.square() - s).sum(-1) - 0.5 * math.log(2 * math.pi)


@wrong(
    "autoregressive_log_prob",
    "The constant of the normal density is missing. normal_log_density from the first cell has it: do you use it?",
)
def constant_forgotten(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * z.square() - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You ask the noise about x. It is z that is standard normal.",
)
def noise_at_the_data(x, mu, s):
    return (-0.5 * (x.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "s is summed over the dimensions, and the noise's log-densities are not: D numbers came back for each point. What shape should each part have?",
)
def noise_not_summed(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return -0.5 * (z.square() + math.log(2 * math.pi)) - s.sum(-1, keepdim=True)


@wrong(
    "autoregressive_log_prob",
    "You divide x by its scale and subtract mu after that, unscaled. What is shifted first on the way to the noise?",
)
def shifted_after_scaling(x, mu, s):
    z = x * torch.exp(-s) - mu
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "Your conditionals all have mean zero: mu is not used. Where does standardizing begin?",
)
def mu_forgotten(x, mu, s):
    z = x * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "Each point is charged for the s of the whole batch. Over which axis do you sum s?",
)
def s_summed_over_the_batch(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) - s.sum()


@wrong(
    "autoregressive_log_prob",
    "You multiply the s_i. J has the exp(-s_i) in its diagonal: what does the logarithm make of their product?",
)
def product_of_the_logs(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi))).sum(-1) - s.prod(-1)


@wrong(
    "autoregressive_log_prob",
    "You charge for the size of s, whatever its sign: a conditional that is narrow pays like one that is wide. The absolute value in the formula is that of the determinant: can exp(-s) be negative?",
)
def size_of_s(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s.abs()).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You charge for the mean of the s_i. The diagonal of J has D factors: what does the logarithm make of their product?",
)
def s_averaged(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi))).sum(-1) - s.mean(-1)


@wrong(
    "autoregressive_log_prob",
    "You multiply the log-densities of the z_i. Densities of independent variables multiply: what do their logarithms do?",
)
def logs_multiplied(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi))).prod(-1) - s.sum(-1)


@wrong(
    "autoregressive_log_prob",
    "Your z is x minus a scaled mu: x itself is not scaled. What does the factor exp(-s) multiply?",
)
def mu_alone_scaled(x, mu, s):
    z = x - mu * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You ask the noise about x - mu, which has the spread of the data still. What is left of standardizing?",
)
def not_scaled(x, mu, s):
    z = x - mu
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You take the logarithm of the sum of the diagonal of J. What does the determinant of a triangular matrix do with its diagonal?",
)
def log_of_the_trace(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi))).sum(-1) + torch.exp(-s).sum(-1).log()


@wrong(
    "autoregressive_log_prob",
    "Your z is scaled by exp(-s), and half of that is charged for. By how much does z_i grow when x_i does?",
)
def half_the_charge(x, mu, s):
    z = (x - mu) * torch.exp(-s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - 0.5 * s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You take exp(2 s) for the deviation. What does the statement call exp(s_i)?",
)
def variance_as_deviation(x, mu, s):
    z = (x - mu) * torch.exp(-2 * s)
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - 2 * s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "You divide by s itself, which may be negative. What does the formula of z divide by?",
)
def divided_by_s(x, mu, s):
    z = (x - mu) / s
    return (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "autoregressive_log_prob",
    "This is the log-determinant. Which density do you ask about z?",
)
def log_det_of_z_alone(x, mu, s):
    return -s.sum(-1)


# made_masks: degrees, and two comparisons.


@right("made_masks")
def with_loops(order, hidden):
    """Each entry by itself, with degrees drawn from a seed, as in the paper."""
    D = len(order)
    generator = torch.Generator().manual_seed(1)
    degrees = [[order.index(j) + 1 for j in range(D)]]
    for width in hidden:
        some = torch.randint(1, max(D, 2), (width,), generator=generator).tolist()
        every = list(range(1, max(D, 2)))
        degrees.append((every + some)[:width])
    masks = []
    for before, after in pairwise(degrees):
        masks.append(torch.tensor([[m <= n for m in before] for n in after]))
    masks.append(torch.tensor([[m < n for m in degrees[-1]] for n in degrees[0]]))
    return masks


@right("made_masks")
def by_permuting_columns(order, hidden):
    """The masks of the natural order, whose columns and rows are then moved to their dimensions."""
    D = len(order)
    back = torch.argsort(torch.tensor(order))
    degrees = [torch.arange(D), *(torch.arange(width) % max(D - 1, 1) for width in hidden)]
    masks = [after[:, None] >= before for before, after in pairwise(degrees)]
    masks.append(torch.arange(D)[:, None] > degrees[-1])
    masks[0] = masks[0][:, back]
    masks[-1] = masks[-1][back]
    return masks


@right("made_masks")
def strict_at_the_input(order, hidden):
    """Hidden degrees from 2 to D, strictly above what they read; then the last comparison is not strict."""
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    if not hidden:
        return [place[:, None] > place]
    degrees = [2 + torch.arange(width) % max(D - 1, 1) for width in hidden]
    masks = [degrees[0][:, None] > place]
    masks += [after[:, None] >= before for before, after in pairwise(degrees)]
    return [*masks, place[:, None] >= degrees[-1]]


@wrong(
    "made_masks",
    "You use order[k] as the degree of dimension k. order[k] is the dimension in place k: which place has dimension k?",
    "For order = [2, 0, 1], dimension 2 is in place 1. What are the places of dimensions 0, 1 and 2, in this order?",
)
def order_for_places(order, hidden):
    D = len(order)
    place = torch.tensor(order) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "Your masks are right for the natural order and ignore the one that is given. Which degree has the input of dimension order[0]?",
)
def order_ignored(order, hidden):
    D = len(order)
    place = torch.arange(1, D + 1)
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "The columns of your first mask follow the order, the rows of the last one do not. Which degree does the output of dimension i need?",
)
def outputs_in_the_natural_order(order, hidden):
    D = len(order)
    degrees = [torch.argsort(torch.tensor(order)) + 1] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, torch.arange(1, D + 1)[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "The rows of your last mask follow the order, the columns of the first one do not. Which degree has the input of dimension j?",
)
def inputs_in_the_natural_order(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [torch.arange(1, D + 1)] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "Outputs read their own variables: a unit that knows the first k variables feeds the output in place k. Which comparison should the last mask make?",
)
def last_mask_not_strict(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] >= degrees[-1]]


@wrong(
    "made_masks",
    "Nothing leaks, and outputs miss variables that they may read: with each hidden layer one more is lost. May a hidden unit of degree 2 read an input of degree 2?",
)
def strict_everywhere(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] > degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "Your hidden layers make the strict comparison and the last mask the other one. Then a unit of degree m must count one variable more than it knows: which degrees did you give?",
)
def comparisons_exchanged(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] > degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] >= degrees[-1]]


@wrong(
    "made_masks",
    "Your outputs read what comes after them: the comparisons point the other way. Who may know more, the unit before the weight or the one after it?",
)
def comparisons_reversed(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] <= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] < degrees[-1]]


@wrong(
    "made_masks",
    "Your masks are the transposes: (before, after). A mask has the shape of its weights, and y = W x: which index of W counts the units of y?",
)
def transposed(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [(degrees[k + 1][:, None] >= degrees[k]).T for k in range(len(hidden))]
    return [*masks, (place[:, None] > degrees[-1]).T]


@wrong(
    "made_masks",
    "One mask is missing: the one of the output layer. How many layers of weights has a network with one hidden layer?",
)
def no_last_mask(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    return [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]


@wrong(
    "made_masks",
    "Your masks hold numbers where booleans are asked for. What kind of tensor does a comparison give?",
)
def masks_of_floats(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [(degrees[k + 1][:, None] >= degrees[k]).float() for k in range(len(hidden))]
    return [*masks, (place[:, None] > degrees[-1]).float()]


@wrong(
    "made_masks",
    "Nothing leaks, and the second variable in the order cannot read the first. From which number do you count the places, and from which does hidden_degrees count?",
)
def places_from_zero(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order))
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "Only your last mask hides anything. What does a hidden unit of degree 1 know if it reads all inputs?",
)
def last_mask_only(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [torch.ones(len(degrees[k + 1]), len(degrees[k])) > 0 for k in range(len(hidden))]
    return [*masks, place[:, None] > degrees[-1]]


@wrong(
    "made_masks",
    "Your last mask has 2 D rows. mu_i and s_i share a row here: who repeats the last mask for both?",
    when=lambda masks, order, hidden: (
        len(masks) == len(hidden) + 1 and masks[-1].ndim == 2 and len(masks[-1]) == 2 * len(order)
    ),
)
def rows_for_mu_and_s(order, hidden):
    D = len(order)
    place = torch.argsort(torch.tensor(order)) + 1
    degrees = [place] + [hidden_degrees(D, width) for width in hidden]
    masks = [degrees[k + 1][:, None] >= degrees[k] for k in range(len(hidden))]
    last = place[:, None] > degrees[-1]
    return [*masks, torch.cat([last, last])]


# find_leaks: the zero pattern of the conditioner's Jacobian, against the order.


@right("find_leaks")
def entry_by_entry(jacobians, order):
    D = len(order)
    leaks = torch.zeros(D, D, dtype=torch.bool)
    for i in range(D):
        for j in range(D):
            if order.index(j) >= order.index(i):
                leaks[i, j] = bool((jacobians[:, i, j] != 0).any())
    return leaks


@right("find_leaks")
def sorted_to_a_triangle(jacobians, order):
    """In the order a right Jacobian is strictly lower triangular; then everything goes back to its place."""
    index = torch.tensor(order)
    size = jacobians.abs().amax(0)[index][:, index]
    leaks = torch.zeros(len(order), len(order), dtype=torch.bool)
    leaks[index[:, None], index] = size.triu() > 0
    return leaks


@wrong(
    "find_leaks",
    "A conditional that reads its own variable goes unnoticed. Does a variable come before itself?",
    "Which comparison of the two places leaves the diagonal out?",
)
def own_variable_allowed(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).any(0) & (place[:, None] < place)


@wrong(
    "find_leaks",
    "You found what reads what it may. The question is what reads what it must not.",
)
def what_is_allowed(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).any(0) & (place[:, None] > place)


@wrong(
    "find_leaks",
    "You list what may be read, and each variable's reading of itself. What may not be read?",
)
def comparison_reversed(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).any(0) & (place[:, None] >= place)


@wrong(
    "find_leaks",
    "True stands wherever the order forbids to read, whether anything is read there or not. What do the Jacobians say?",
)
def all_that_is_forbidden(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return place[:, None] <= place


@wrong(
    "find_leaks",
    "True stands wherever the order allows to read. Which entries does it not allow, and at which of them do the Jacobians show a number?",
)
def all_that_is_allowed(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return place[:, None] > place


@wrong(
    "find_leaks",
    "Your rows and columns follow the order. In the answer, i and j of [i, j] are dimensions: where does your first row belong?",
)
def rows_in_the_order(jacobians, order):
    index = torch.tensor(order)
    return (jacobians != 0).any(0)[index][:, index].triu()


@wrong(
    "find_leaks",
    "This is all that is read, leaks or not: a right network would be accused. Where does the order come in?",
)
def all_that_is_read(jacobians, order):
    return (jacobians != 0).any(0)


@wrong(
    "find_leaks",
    "You hold every network to the natural order, and order is not used. Which entries are allowed if the last dimension comes first?",
)
def natural_order(jacobians, order):
    return (jacobians != 0).any(0).triu()


@wrong(
    "find_leaks",
    "You compare order[i] with order[j]. order[k] is the dimension in place k: in which place is dimension i?",
)
def order_for_the_places(jacobians, order):
    place = torch.tensor(order)
    return (jacobians != 0).any(0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "This is the transpose: rows are the outputs, which read, and columns what is read.",
)
def leaks_transposed(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return ((jacobians != 0).any(0) & (place[:, None] <= place)).T


@wrong(
    "find_leaks",
    "Your test looks at the first point alone. A ReLU that is shut there hides its leak: what do the other points say?",
)
def first_point_only(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians[0] != 0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "You want a leak to show at every point. How many points does it take to convict?",
)
def at_every_point(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).all(0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "A leak with slopes of both signs goes unnoticed: they cancel in your sum over the points. What is left if you drop the signs?",
)
def slopes_cancel(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.mean(0) != 0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "You see positive slopes only. What is a slope of -2?",
)
def positive_slopes_only(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians > 0).any(0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "A small leak goes unnoticed: your test has a threshold. Masked weights contribute exactly zero: is one needed?",
)
def with_a_threshold(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.abs() > 1e-6).any(0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "You answer whether there is a leak. Which output reads which dimension? The result has an entry for each pair.",
    when=lambda returned, *given: (
        isinstance(returned, bool) or (isinstance(returned, torch.Tensor) and returned.ndim == 0)
    ),
)
def yes_or_no(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return ((jacobians != 0).any(0) & (place[:, None] <= place)).any()


@wrong(
    "find_leaks",
    "You return a verdict for each point. One matrix is asked for: when is an entry a leak, given all points?",
)
def one_for_each_point(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "Two things. You hold every network to the natural order: which entries are allowed if the last dimension comes first? And a variable that reads itself goes unnoticed.",
)
def natural_order_and_own(jacobians, order):
    return (jacobians != 0).any(0).triu(1)


@wrong(
    "find_leaks",
    "Two things. You compare order[i] with order[j], and order[k] is the dimension in place k: in which place is dimension i? And a variable that reads itself goes unnoticed.",
)
def order_for_the_places_and_own(jacobians, order):
    given = torch.tensor(order)
    return (jacobians != 0).any(0) & (given[:, None] < given)


@wrong(
    "find_leaks",
    "Two things. Your rows and columns follow the order, where the i and j of [i, j] are dimensions. And a variable that reads itself goes unnoticed.",
)
def in_the_order_and_own(jacobians, order):
    return (jacobians[:, order][:, :, order] != 0).any(0).triu(1)


@wrong(
    "find_leaks",
    "Two things. Slopes of both signs cancel in your sum over the points. And a variable that reads itself goes unnoticed.",
)
def slopes_cancel_and_own(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.sum(0) != 0) & (place[:, None] < place)


@wrong(
    "find_leaks",
    "Two things. You look at the first point alone, and a ReLU may be shut there. And a variable that reads itself goes unnoticed.",
)
def first_point_and_own(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians[0] != 0) & (place[:, None] < place)


@wrong(
    "find_leaks",
    "Two things. You see positive slopes only. And a variable that reads itself goes unnoticed.",
)
def positive_and_own(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians > 0).any(0) & (place[:, None] < place)


@wrong(
    "find_leaks",
    "Two things. Your test has a threshold, and masked weights contribute exactly zero: is one needed? And a variable that reads itself goes unnoticed.",
)
def threshold_and_own(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.abs() > 1e-6).any(0) & (place[:, None] < place)


@wrong(
    "find_leaks",
    "Two things. In your mean over the points slopes of both signs cancel. And your test has a threshold: masked weights contribute exactly zero, so is one needed?",
)
def threshold_on_the_mean(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.mean(0).abs() > 1e-6) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "True stands also where an output could read a variable and does not. Nothing leaks there: when is an entry a leak?",
)
def missing_connections(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).any(0) ^ (place[:, None] > place)


@wrong(
    "find_leaks",
    "You look at the largest slope of each entry. What is it where one point has -2 and the others 0?",
)
def largest_slope(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians.amax(0) != 0) & (place[:, None] <= place)


@wrong(
    "find_leaks",
    "You list the lower triangle. In the natural order that is what may be read, and order is not used: which entries are forbidden?",
)
def lower_triangle(jacobians, order):
    return (jacobians != 0).any(0).tril()


@wrong(
    "find_leaks",
    "Your rows follow the order, and your columns do not. In the answer, i and j of [i, j] are dimensions, and what is forbidden depends on the places of both.",
)
def rows_alone_in_the_order(jacobians, order):
    return (jacobians != 0).any(0)[order].triu()


@wrong(
    "find_leaks",
    "Two things. You hold every network to the natural order: which entries are allowed if the last dimension comes first? And slopes of both signs cancel in your sum over the points.",
)
def natural_order_and_cancelled(jacobians, order):
    return (jacobians.sum(0) != 0).triu()


@wrong(
    "find_leaks",
    "Two things. Rows are the outputs, which read, and columns what is read: yours are exchanged. And a variable that reads itself goes unnoticed.",
)
def transposed_and_own(jacobians, order):
    place = torch.argsort(torch.tensor(order))
    return (jacobians != 0).any(0).T & (place[:, None] < place)


# maf: there in one pass, back in D.


@right("maf")
def all_variables_at_once(x, net, order, inverse=False):
    """Back without the order: D rounds, of which the k-th settles the k-th variable."""
    mu, s = conditioner(x, net)
    if not inverse:
        return (x - mu) / torch.exp(s), -s.sum(-1)
    z = x
    for _ in range(z.shape[-1]):
        mu, s = conditioner(x, net)
        x = z * torch.exp(s) + mu
    return x, s.sum(-1)


@right("maf")
def column_by_column(x, net, order, inverse=False):
    """Builds the answer from columns; the log-determinant is added up on the way."""
    if not inverse:
        mu, s = conditioner(x, net)
        return torch.exp(-s) * (x - mu), torch.sum(-s, dim=-1)
    columns = [torch.zeros_like(x[..., 0]) for _ in order]
    log_det = torch.zeros_like(x[..., 0])
    for i in order:
        mu, s = conditioner(torch.stack(columns, -1), net)
        columns[i] = x[..., i] * torch.exp(s[..., i]) + mu[..., i]
        log_det = log_det + s[..., i]
    return torch.stack(columns, -1), log_det


@wrong(
    "maf",
    "Your way back reads its parameters off z, in one pass. Which variables did mu and s read on the way there?",
    "You cannot know x_<i before you have computed it: with what does the loop begin, and what does the second pass read?",
)
def back_in_one_pass(x, net, order, inverse=False):
    mu, s = conditioner(x, net)
    if inverse:
        return x * torch.exp(s) + mu, s.sum(-1)
    return (x - mu) * torch.exp(-s), -s.sum(-1)


@wrong(
    "maf",
    "Your way back is right in the natural order only: your loop starts at dimension 0. Which dimension reads nothing?",
)
def back_in_the_natural_order(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in range(len(order)):
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "Your loop goes through the places of the dimensions 0, 1, 2, ... The dimensions in their places is what it needs: which of the two lists is order?",
)
def loop_over_the_places(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in torch.argsort(torch.tensor(order)).tolist():
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "Your way back finds the right points, and takes its log-determinant from an s that was read off z. Which s has scaled the variables?",
)
def log_det_read_off_z(x, net, order, inverse=False):
    mu, s = conditioner(x, net)
    if not inverse:
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x, log_det = x, torch.zeros_like(x), s.sum(-1)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, log_det


@wrong(
    "maf",
    "Your loop goes through the order from its end. Which of the variables can be computed first?",
)
def back_from_the_end(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in reversed(order):
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "The first variable of your way back is right and the next is not: all of your steps use the parameters of one pass. What is known after the first step that was not known before?",
)
def conditioner_outside_the_loop(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    mu, s = conditioner(x, net)
    for i in order:
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "The points are right. The log-determinant of your way back has the sign of the way there: the inverse map has the inverse Jacobian.",
)
def same_log_det_both_ways(x, net, order, inverse=False):
    mu, s = conditioner(x, net)
    if not inverse:
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, -s.sum(-1)


@wrong(
    "maf",
    "The points are right, and both log-determinants have the wrong sign: the map from noise to data is in your mind. What is dz_i/dx_i?",
)
def both_log_dets_reversed(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, -s.sum(-1)


@wrong(
    "maf",
    "The points are right. Your forward log-determinant has the sign of the way back: does z_i stretch or shrink the line when s_i is positive?",
)
def forward_log_det_reversed(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "Your forward map is x exp(s) + mu: that is how samples are made. Which of the two directions standardizes?",
)
def forward_is_a_coupling(x, net, order, inverse=False):
    mu, s = conditioner(x, net)
    if not inverse:
        return x * torch.exp(s) + mu, s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = (z[..., i] - mu[..., i]) * torch.exp(-s[..., i])
    return x, -s.sum(-1)


@wrong(
    "maf",
    "Forward is right. On the way back you undo the steps in the wrong order: what was done last is undone first. Was it the shift or the scale?",
)
def undone_in_the_wrong_order(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = (z[..., i] + mu[..., i]) * torch.exp(s[..., i])
    return x, s.sum(-1)


@wrong(
    "maf",
    "Forward is right. On the way back you multiply by exp(-s) once more. Which factor undoes exp(-s)?",
)
def scale_not_undone(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(-s[..., i]) + mu[..., i]
    return x, s.sum(-1)


@wrong(
    "maf",
    "With inverse=True you do what you do without. Is the argument `inverse` used?",
)
def never_inverts(x, net, order, inverse=False):
    mu, s = conditioner(x, net)
    return (x - mu) * torch.exp(-s), -s.sum(-1)


@wrong(
    "maf",
    "The points came back alone. A pair is asked for: the points, and one log-determinant for each of them.",
    when=lambda returned, *given: isinstance(returned, torch.Tensor),
)
def points_alone(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s)
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x


@wrong(
    "maf",
    "Your log-determinants are right for each dimension, and one number for each point is asked for. Over which axis does the log of a product become a sum?",
)
def log_det_not_summed(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s


@wrong(
    "maf",
    "Your log-determinant has been summed over the points too. Each point has a volume change of its own.",
)
def log_det_summed_over_the_batch(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum()
    z, x = x, torch.zeros_like(x)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum()


@wrong(
    "maf",
    "The log-determinant of your way back adds up whole passes: D times s, of which most are not settled yet. Which entry of s does each step use?",
)
def log_det_of_every_pass(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    z, x = x, torch.zeros_like(x)
    log_det = 0
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = z[..., i] * torch.exp(s[..., i]) + mu[..., i]
        log_det = log_det + s.sum(-1)
    return x, log_det


@wrong(
    "maf",
    "You write into the tensor that came in. It is the caller's: what does your loop need a copy of?",
)
def writes_into_its_argument(x, net, order, inverse=False):
    if not inverse:
        mu, s = conditioner(x, net)
        return (x - mu) * torch.exp(-s), -s.sum(-1)
    for i in order:
        mu, s = conditioner(x, net)
        x[..., i] = x[..., i] * torch.exp(s[..., i]) + mu[..., i]
    return x, s.sum(-1)


# iaf_sample: x_i = z_i exp(s_i(z_<i)) + mu_i(z_<i), scored on the way.


@right("iaf_sample")
def as_conditionals_given_the_noise(z, net):
    """x_i given z_<i is normal, and its density at the sample is that of the sample."""
    mu, s = conditioner(z, net)
    x = mu + torch.exp(s) * z
    return x, torch.distributions.Normal(mu, torch.exp(s)).log_prob(x).sum(-1)


@right("iaf_sample")
def in_two_parts(z, net):
    mu, s = conditioner(z, net)
    log_noise = -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)
    return z.mul(s.exp()).add(mu), log_noise - s.sum(-1)


@wrong(
    "iaf_sample",
    "Your samples are right. You add s: where samples are pulled apart, does their density rise?",
    "The formula has log abs det dz/dx, and your map goes from z to x.",
)
def log_det_of_dx_dz(z, net):
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu, (-0.5 * (z.square() + math.log(2 * math.pi)) + s).sum(-1)


@wrong(
    "iaf_sample",
    "Your samples are right, and their density is that of the noise alone. What has the map done to the volume around z?",
)
def no_log_det(z, net):
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu, (-0.5 * (z.square() + math.log(2 * math.pi))).sum(-1)


@wrong(
    "iaf_sample",
    "Your samples are right. You ask the noise density about x, and it is z that is standard normal.",
)
def noise_density_at_x(z, net):
    mu, s = conditioner(z, net)
    x = z * torch.exp(s) + mu
    return x, (-0.5 * (x.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "iaf_sample",
    "This is a MAF's forward map and its log-det: it divides by the scale. Which formula makes an IAF's samples?",
)
def forward_of_a_maf(z, net):
    mu, s = conditioner(z, net)
    return (z - mu) * torch.exp(-s), (-0.5 * (z.square() + math.log(2 * math.pi)) + s).sum(-1)


@wrong(
    "iaf_sample",
    "You standardize z where it should be stretched and shifted, and score as if it had been. Which way do samples go?",
)
def standardizes(z, net):
    mu, s = conditioner(z, net)
    return (z - mu) * torch.exp(-s), (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "iaf_sample",
    "You sample like a MAF: your parameters read the x made so far, in as many passes as it takes. What do an IAF's parameters read?",
)
def samples_a_maf(z, net):
    x = z
    for _ in range(z.shape[-1]):
        mu, s = conditioner(x, net)
        x = z * torch.exp(s) + mu
    return x, (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


@wrong(
    "iaf_sample",
    "Your parameters are read twice: first off z for the sample, then off x for its density. Which s has stretched the sample?",
)
def scored_with_other_parameters(z, net):
    mu, s = conditioner(z, net)
    x = z * torch.exp(s) + mu
    mu, s = conditioner(x, net)
    return x, (-0.5 * ((x - mu) * torch.exp(-s)).square() - 0.5 * math.log(2 * math.pi) - s).sum(-1)


@wrong(
    "iaf_sample",
    "Your second part is the log-determinant alone. The log-density of x has one more term.",
)
def log_det_alone(z, net):
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu, -s.sum(-1)


@wrong(
    "iaf_sample",
    "Your log-densities have one number for each dimension, and each point has one. What becomes of a product of D factors under the logarithm?",
)
def log_prob_not_summed(z, net):
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu, -0.5 * (z.square() + math.log(2 * math.pi)) - s


@wrong(
    "iaf_sample",
    "The samples came back alone. A pair is asked for: the samples and their log-densities.",
    when=lambda returned, *given: isinstance(returned, torch.Tensor),
)
def samples_alone(z, net):
    mu, s = conditioner(z, net)
    return z * torch.exp(s) + mu


@wrong(
    "iaf_sample",
    "You multiply by s where exp(s) belongs: a scale of zero could not be undone.",
)
def exp_forgotten(z, net):
    mu, s = conditioner(z, net)
    return z * s + mu, (-0.5 * (z.square() + math.log(2 * math.pi)) - s).sum(-1)


# power_law: the slope of a least-squares line through logarithms.


@right("power_law")
def by_polyfit(sizes, seconds):
    return float(np.polyfit(np.log2(sizes), np.log2(seconds), 1)[0])


@right("power_law")
def by_the_normal_equations(sizes, seconds):
    u = torch.tensor(sizes, dtype=torch.float64).log10()
    line = torch.stack([u, torch.ones_like(u)], -1)
    v = torch.tensor(seconds, dtype=torch.float64).log10()
    return torch.linalg.solve(line.T @ line, line.T @ v)[0]


@wrong(
    "power_law",
    "This is the slope through the numbers themselves, in seconds for each dimension. What makes a power law a straight line?",
)
def without_logarithms(sizes, seconds):
    return float(np.polyfit(sizes, seconds, 1)[0])


@wrong(
    "power_law",
    "You take the logarithm of the times and not of the sizes: that is the rate of an exponential law. Which axes make a power law straight?",
)
def logarithm_of_the_times_only(sizes, seconds):
    return float(np.polyfit(sizes, np.log(seconds), 1)[0])


@wrong(
    "power_law",
    "You take the logarithm of the sizes and not of the times. Which axes make a power law straight?",
)
def logarithm_of_the_sizes_only(sizes, seconds):
    return float(np.polyfit(np.log(sizes), seconds, 1)[0])


@wrong(
    "power_law",
    "Your line has to pass through the origin, as if the constant c were one. Do your formulas subtract the means?",
)
def through_the_origin(sizes, seconds):
    u, v = np.log(sizes), np.log(seconds)
    return float((u * v).sum() / (u * u).sum())


@wrong(
    "power_law",
    "Your line passes through the first and the last point, and ignores the others. Which line has the least squares?",
)
def first_and_last(sizes, seconds):
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


@wrong(
    "power_law",
    "You average the slopes between neighbours. Unevenly spaced points then count unevenly: what does the formula weigh them by?",
)
def mean_of_local_slopes(sizes, seconds):
    return float(np.mean(np.diff(np.log(seconds)) / np.diff(np.log(sizes))))


@wrong(
    "power_law",
    "Your sum of squares is that of the times. Is it time that you want as a function of size, or size as a function of time?",
)
def divided_by_the_wrong_squares(sizes, seconds):
    u, v = np.log(sizes), np.log(seconds)
    u, v = u - u.mean(), v - v.mean()
    with np.errstate(all="ignore"):
        return float((u * v).sum() / (v * v).sum())


@wrong(
    "power_law",
    "This is the intercept: the logarithm of c. Which of the two numbers of the line is the exponent?",
)
def the_intercept(sizes, seconds):
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[1])


@wrong(
    "power_law",
    "Slope and intercept came back. One number is asked for: which?",
    when=lambda returned, *given: np.size(returned) == 2,
)
def slope_and_intercept(sizes, seconds):
    return tuple(float(number) for number in np.polyfit(np.log(sizes), np.log(seconds), 1))


@wrong(
    "power_law",
    "This is how closely the points lie on a line: the correlation of the logarithms. How steep is the line?",
)
def correlation(sizes, seconds):
    u, v = np.log(sizes), np.log(seconds)
    u, v = u - u.mean(), v - v.mean()
    with np.errstate(all="ignore"):
        return float((u * v).sum() / np.sqrt((u * u).sum() * (v * v).sum()))


@wrong(
    "power_law",
    "You subtract the mean from the sizes' logarithms before squaring them and not before taking the product, or the other way round. Where do the means stand in the formula?",
)
def mean_of_the_sizes_left_in(sizes, seconds):
    u, v = np.log(sizes), np.log(seconds)
    return float(((u - u.mean()) * (v - v.mean())).sum() / (u * u).sum())


# fit_mafs: a stack by maximum likelihood.


@right("fit_mafs")
def with_a_scheduler(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, W, b in net for w in (W, b)], lr=rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / max(steps, 1))
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        z = data[torch.randint(len(data), (256,), generator=generator)]
        log_det = torch.zeros(256)
        for net in stack:
            mu, s = conditioner(z, net)
            z = (z - mu) / s.exp()
            log_det = log_det - s.sum(-1)
        loss = (0.5 * z.square().sum(-1) + 0.5 * z.shape[-1] * math.log(2 * math.pi) - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return [[(m, W.data, b.data) for m, W, b in net] for net in stack]


@right("fit_mafs")
def with_gradients_by_hand(nets, data, steps, rate):
    """torch.autograd.grad, and the constant of the noise left out of the loss."""
    stack = [[(m, *(w.clone().requires_grad_() for w in pair)) for m, *pair in net] for net in nets]
    leaves = [w for net in stack for _, *pair in net for w in pair]
    optimizer = torch.optim.Adam(leaves)
    generator = torch.Generator().manual_seed(2)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (steps - k) / steps
        x = data[torch.randperm(len(data), generator=generator)[:256]]
        loss = 0
        for net in stack:
            mu, s = conditioner(x, net)
            loss = loss + s.sum(-1).mean()
            x = (x - mu) * torch.exp(-s)
        loss = loss + 0.5 * x.square().sum(-1).mean()
        for w, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            w.grad = gradient
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


def mean_loss(returned, data, of_the_data=False, last_only=False, anew=False):
    """The mean negative log-likelihood, in nats, of the stack as it is, or as a slip has it.

    of_the_data: all its networks read the data; last_only: the log-det is that of the last layer;
    anew: every layer starts from the data again, and z is what the last one makes of them.
    """
    x, total = data, 0
    with torch.no_grad():
        for net in returned:
            mu, s = conditioner(data if of_the_data or anew else x, net)
            x = ((data if anew else x) - mu) * torch.exp(-s)
            total = (0 if last_only else total) - s.sum(-1)
        return (0.5 * x.square().sum(-1) + math.log(2 * math.pi) * x.shape[-1] / 2 - total).mean().item()


def gaussian_entropy(data):
    """The entropy of the Gaussian with the data's covariance: a banana that is fitted lies half a nat below."""
    D = data.shape[-1]
    return 0.5 * (D * math.log(2 * math.pi * math.e) + torch.logdet(torch.cov(data.T)).item())


def fits(returned, data):
    """Whether the stack has learned the banana, whose entropy is half a nat below, to about 0.05 nats."""
    return mean_loss(returned, data) < gaussian_entropy(data) - 0.46


def beyond_one_layer(slip):
    """when= of a slip that one layer cannot show: all stacks of one layer have been fitted, and the slip is seen in others."""

    def when(returned, nets, data, steps, rate):
        return steps > 0 and (fits(returned, data) if len(nets) == 1 else slip(returned, nets, data))

    return when


def spread(returned, data):
    """The mean square of z over the data: one for noise that is standard normal."""
    x = data
    with torch.no_grad():
        for net in returned:
            mu, s = conditioner(x, net)
            x = (x - mu) * torch.exp(-s)
    return x.square().mean().item()


def same_weights(returned, nets):
    """Whether training has left all weights as they were."""
    return all(
        torch.equal(W, V) and torch.equal(b, c)
        for net, old in zip(returned, nets, strict=True)
        for (_, W, b), (_, V, c) in zip(net, old, strict=True)
    )


@wrong(
    "fit_mafs",
    "The weights that came back still ask for gradients. Which helper of the first cell returns plain tensors?",
    when=lambda returned, *given: any(w.requires_grad for net in returned for _, *pair in net for w in pair),
)
def still_asking_for_gradients(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for net in stack:
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return stack


@wrong(
    "fit_mafs",
    "The weights that came back are those that went in. Does every weight get to the optimizer, are the gradients still there "
    "at its step, and do you return the copy that was trained?",
    when=lambda returned, nets, data, steps, rate: steps > 0 and same_weights(returned, nets),
)
def untrained(nets, data, steps, rate):
    return [[(mask, W.clone(), b.clone()) for mask, W, b in net] for net in nets]


@wrong(
    "fit_mafs",
    "Your stack crushes the data: every z lies close to zero, and nothing forbade it. Which term of the log-likelihood charges "
    "for shrinking, and what is its sign in your loss?",
    "The loss is minus (log-density of z plus the sum of the log-dets). Print both parts for some steps: which one runs away?",
    when=lambda returned, nets, data, steps, rate: steps > 0 and spread(returned, data) < 0.2,
)
def log_det_forgotten(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = data[torch.randint(len(data), (256,), generator=generator)]
        for net in stack:
            mu, s = conditioner(x, net)
            x = (x - mu) * torch.exp(-s)
        loss = 0.5 * x.square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "Only one of your layers has learned; the others came back as they were. Which weights does your optimizer hold?",
    when=beyond_one_layer(
        lambda returned, nets, data: (
            sum(not same_weights(returned[k : k + 1], nets[k : k + 1]) for k in range(len(nets))) == 1
        )
    ),
)
def first_layer_only(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for _, *pair in stack[0] for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for net in stack:
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "Your z are spread far wider than noise, and nothing held them back. Is the density asked of z, with its sign, and is z made by "
    "exp(-s)? Does each point have a log-det of its own, and does the gradient reach every layer?",
    when=lambda returned, nets, data, steps, rate: steps > 0 and not spread(returned, data) < 5,
)
def uphill(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for net in stack:
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (total - 0.5 * x.square().sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "One layer is right. With more, your loss counts both log-determinants, and z is what the last layer alone makes of the data. What does your second layer read?",
    when=beyond_one_layer(
        lambda returned, nets, data: mean_loss(returned, data, anew=True) < gaussian_entropy(data) - 1.5
    ),
)
def x_not_updated(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for net in stack:
            mu, s = conditioner(x, net)
            z, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * z.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "One layer is right. With more, your loss counts the log-determinant of the last one alone, and the first shrinks the data for nothing. Do log-determinants add up in your loop?",
    when=beyond_one_layer(
        lambda returned, nets, data: (
            mean_loss(returned, data, last_only=True) < mean_loss(returned, data) - 1.5
        )
    ),
)
def last_log_det_only(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x = data[torch.randint(len(data), (256,), generator=generator)]
        for net in stack:
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), -s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "One layer is right. With more, your loss falls for the stack taken from its last layer to its first. Which layer meets the data first?",
    when=beyond_one_layer(
        lambda returned, nets, data: (
            mean_loss(returned[::-1], data)
            < min(gaussian_entropy(data) - 0.4, mean_loss(returned, data) - 0.05)
        )
    ),
)
def layers_in_reverse(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        for net in reversed(stack):
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "One layer is right. With more, your loss falls for a map whose networks all read the data itself. The second layer does not see the data: what does it see?",
    when=beyond_one_layer(
        lambda returned, nets, data: (
            mean_loss(returned, data, of_the_data=True) < mean_loss(returned, data) - 0.05
        )
    ),
)
def layers_see_the_data(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[torch.randint(len(data), (256,), generator=generator)], 0
        first = x
        for net in stack:
            mu, s = conditioner(first, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]


@wrong(
    "fit_mafs",
    "The first 256 points have become far more likely than the others: you learned them by heart. Where does each step get its batch?",
    when=lambda returned, nets, data, steps, rate: (
        steps > 0
        and (len(nets) > 1 or fits(returned, data))
        and mean_loss(returned, data[:256])
        < mean_loss(returned, data[256:]) - (0.15 if len(nets) > 1 else 0.03)
    ),
)
def always_the_same_batch(nets, data, steps, rate):
    stack = [[(m, W.clone().requires_grad_(), b.clone().requires_grad_()) for m, W, b in net] for net in nets]
    optimizer = torch.optim.Adam([w for net in stack for _, *pair in net for w in pair], lr=rate)
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        x, total = data[:256], 0
        for net in stack:
            mu, s = conditioner(x, net)
            x, total = (x - mu) * torch.exp(-s), total - s.sum(-1)
        loss = (0.5 * x.square().sum(-1) - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [[(m, W.detach(), b.detach()) for m, W, b in net] for net in stack]
