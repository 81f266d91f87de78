"""Every bijection of flowkit, by name. Whoever adds one adds a row, and all laws run over it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from flowkit import Bijection, Compose, Inverse
from flowkit.adaptive_ode import DORMAND_PRINCE
from flowkit.autoregressive import IAF, MAF, maf_stack
from flowkit.continuous import CNF
from flowkit.coupling import (
    NICE,
    additive_coupling,
    affine,
    affine_coupling,
    alternating_mask,
    coupling_stack,
    half_mask,
)
from flowkit.elementwise import Affine, LeakyReLU, Logit, Scale, Sigmoid, Softplus, Tanh
from flowkit.glow import Conv1x1, Glow, GlowStep
from flowkit.hamiltonian import HamiltonianFlow
from flowkit.images import PerPixel, Split, Squeeze, checkerboard_mask, conv_coupling
from flowkit.lab.nets import mlp
from flowkit.linear import PLU, QR, Dense, Householder, Permutation, Triangular
from flowkit.low_rank import LowRank
from flowkit.mixtures import mixture_cdf
from flowkit.neural_ode import TimeField
from flowkit.normalization import ActNorm, BatchNorm
from flowkit.ode import integrate
from flowkit.pixels import PixelHistogram, PixelLogit
from flowkit.planar import Planar, Radial, Sylvester
from flowkit.posteriors import Amortized, gated, iaf_flow, planar_flow
from flowkit.residual import residual_stack
from flowkit.splines import Elementwise, linear, quadratic, rational_quadratic


class Row(NamedTuple):
    """make(dim) builds it; dims are those to test; context is the width of the context that it wants."""

    make: Callable[[int], Bijection]
    dims: tuple[int, ...] = (1, 2, 7, 64)
    context: int = 0


net = partial(
    mlp, hidden=(8,), activation=torch.nn.Tanh
)  # smooth, so that second derivatives exist everywhere
SMALL = (1, 2, 7)  # random matrices of size 64 are too ill-conditioned to be inverted in float32
COUPLED = (2, 7, 64)  # one dimension cannot be split
IMAGES = (16, 64)  # one channel of 4 x 4 or 8 x 8 pixels; or four channels of a quarter


def started_act_norm(dim):
    """An ActNorm that has seen its first batch."""
    layer = ActNorm(dim)
    layer.forward(3 * torch.randn(64, dim, generator=torch.Generator().manual_seed(0)) + 1)
    return layer


def grown_batch_norm(dim):
    """A BatchNorm in eval mode whose running statistics have met a batch."""
    layer = BatchNorm(dim)
    layer.forward(3 * torch.randn(64, dim, generator=torch.Generator().manual_seed(0)) + 1)
    return layer.eval()


def given_plu(dim):
    """A PLU with row exchanges and negative pivots."""
    return PLU.from_matrix(torch.randn(dim, dim, generator=torch.Generator().manual_seed(dim)))


def square(dim, channels=1):
    """The shape (C, H, H) of an image with this many numbers."""
    side = round((dim / channels) ** 0.5)
    return channels, side, side


def glow_like(dim):
    """Layers of all three topics in one chain."""
    return Compose(
        started_act_norm(dim),
        PLU(dim),
        affine_coupling(half_mask(dim), net),
        LeakyReLU(0.3),
        Householder(dim, 2),
    )


class GentleField(torch.nn.Module):
    """A smooth field whose Lipschitz constant is below 1 whatever its parameters: one short step will do."""

    def __init__(self, dim, context_dim=0):
        super().__init__()
        self.first = torch.nn.Linear(dim + 1 + context_dim, 4)
        self.last = torch.nn.Linear(4, dim)

    def forward(self, t, x, context=None):
        inputs = TimeField(torch.nn.Identity())(t, x, context)
        first, last = (layer.weight / (1 + layer.weight.norm()) for layer in (self.first, self.last))
        return (inputs @ first.mT + self.first.bias).tanh() @ last.mT + self.last.bias


def gentle_cnf(dim, context_dim=0):
    """A CNF over so short a time that one step of order 5 errs by less than 1e-11."""
    solver = partial(integrate, steps=1, method=DORMAND_PRINCE)
    return CNF(GentleField(dim, context_dim), solver, time=0.05, context_dim=context_dim)


BIJECTIONS = {
    "identity": Row(lambda dim: Compose()),
    "affine": Row(Affine),
    "scale": Row(Scale),
    "act_norm": Row(ActNorm),
    "act_norm_started": Row(started_act_norm),
    "leaky_relu": Row(lambda dim: LeakyReLU(0.1)),
    "leaky_relu_steep": Row(lambda dim: LeakyReLU(3.0)),
    "softplus": Row(lambda dim: Softplus()),
    "sigmoid": Row(lambda dim: Sigmoid()),
    "logit": Row(lambda dim: Logit()),
    "tanh": Row(lambda dim: Tanh()),
    "permutation": Row(partial(Permutation.random, seed=1)),
    "reverse": Row(Permutation.reverse),
    "dense": Row(Dense, SMALL),
    "lower": Row(Triangular, SMALL),
    "upper": Row(partial(Triangular, lower=False), SMALL),
    "plu": Row(PLU, SMALL),
    "plu_given": Row(given_plu, SMALL),
    "householder": Row(partial(Householder, reflections=3)),
    "qr": Row(QR, SMALL),
    "planar": Row(Planar),
    "inverse_planar": Row(lambda dim: Inverse(Planar(dim)), (7,)),
    "radial": Row(Radial),
    "sylvester": Row(lambda dim: Sylvester(dim, min(dim, 3))),
    "sylvester_full": Row(lambda dim: Sylvester(dim, dim), (7,)),
    "low_rank_stack": Row(lambda dim: Compose(Planar(dim), Radial(dim), Sylvester(dim, 1)), (7,)),
    "additive_coupling": Row(lambda dim: additive_coupling(alternating_mask(dim), net), COUPLED),
    "affine_coupling": Row(lambda dim: affine_coupling(half_mask(dim), net), COUPLED),
    "affine_coupling_other_half": Row(lambda dim: affine_coupling(half_mask(dim, False), net), COUPLED),
    "affine_coupling_unbounded": Row(
        lambda dim: affine_coupling(alternating_mask(dim, 1), net, None), SMALL[1:]
    ),
    "conditional_coupling": Row(
        lambda dim: affine_coupling(alternating_mask(dim), net, context_dim=3), COUPLED, context=3
    ),
    "conditional_stack": Row(
        lambda dim: Compose(coupling_stack(dim, 2, net, context_dim=2), Affine(dim)), SMALL[1:], context=2
    ),
    "nice": Row(lambda dim: NICE(dim, net), COUPLED),
    "real_nvp": Row(lambda dim: coupling_stack(dim, 4, net), COUPLED),
    "real_nvp_permuted": Row(lambda dim: coupling_stack(dim, 4, net, permute=True), SMALL[1:]),
    "inverse_real_nvp": Row(lambda dim: Inverse(coupling_stack(dim, 2, net)), COUPLED),
    "maf": Row(partial(MAF, hidden=(8, 12), activation=torch.nn.Tanh)),
    "maf_shuffled": Row(
        lambda dim: MAF(dim, (9,), Permutation.random(dim, 2).order, affine(), activation=torch.nn.Tanh),
        SMALL,
    ),
    "conditional_maf": Row(
        partial(MAF, hidden=(8,), context_dim=3, activation=torch.nn.Tanh), SMALL, context=3
    ),
    "iaf": Row(partial(IAF, hidden=(8,), activation=torch.nn.Tanh), SMALL),
    "gated_iaf": Row(partial(IAF, hidden=(8,), transformer=gated(), activation=torch.nn.Tanh), SMALL),
    "iaf_posterior_flow": Row(
        lambda dim: iaf_flow(dim, 2, (8,), context_dim=2, activation=torch.nn.Tanh), SMALL, context=2
    ),
    "planar_posterior_flow": Row(lambda dim: planar_flow(dim, 1, context_dim=3), SMALL[1:], context=3),
    "amortized_sylvester": Row(
        lambda dim: Amortized(Sylvester(dim, min(dim, 2)), context_dim=2), (1,), context=2
    ),
    "maf_stack": Row(partial(maf_stack, layers=2, hidden=(8,), activation=torch.nn.Tanh), SMALL),
    "glow_like": Row(glow_like, SMALL[1:]),
    "batch_norm": Row(lambda dim: BatchNorm(dim).eval()),
    "batch_norm_grown": Row(grown_batch_norm),
    "low_rank": Row(lambda dim: LowRank(dim, min(dim, 2)), SMALL),
    "low_rank_full": Row(lambda dim: LowRank(dim, dim), (7,)),
    "pixel_logit": Row(lambda dim: PixelLogit(17)),
    "pixel_logit_tight": Row(lambda dim: PixelLogit(1, alpha=0.0), SMALL),
    "pixel_histogram": Row(lambda dim: PixelHistogram(dim, 5)),
    "split": Row(lambda dim: Split(dim // 2, coupling_stack(dim // 2, 2, net)), (7, 64)),
    "squeeze": Row(lambda dim: Squeeze(square(dim)), IMAGES),
    "per_pixel": Row(lambda dim: PerPixel(square(dim, 4), Dense(4)), IMAGES),
    "conditional_per_pixel": Row(
        lambda dim: PerPixel(square(dim, 4), affine_coupling([True, False, True, False], net, context_dim=2)),
        IMAGES[:1],
        context=2,
    ),
    "conv_1x1": Row(lambda dim: Conv1x1(square(dim, 4)), IMAGES),
    "conv_coupling": Row(
        lambda dim: conv_coupling(
            checkerboard_mask(square(dim)), square(dim), hidden=4, activation=torch.nn.Tanh
        ),
        IMAGES,
    ),
    "glow_step": Row(lambda dim: GlowStep(square(dim, 4), hidden=4, activation=torch.nn.Tanh), IMAGES),
    "glow": Row(
        lambda dim: Glow(
            square(dim),
            levels=2,
            steps=1,
            hidden=4,
            transformer=rational_quadratic(4),
            activation=torch.nn.Tanh,
        ),
        IMAGES,
    ),
    "residual": Row(lambda dim: residual_stack(dim, 1, (8,)).eval()),
    "reversible_stack": Row(lambda dim: residual_stack(dim, 1, (8,), 0.5, reversible=True).eval(), (7,)),
    "cnf": Row(gentle_cnf, (2,)),
    "conditional_cnf": Row(partial(gentle_cnf, context_dim=2), (7,), context=2),
    "hamiltonian": Row(lambda dim: HamiltonianFlow(dim, net(dim // 2, 1), step=0.3, steps=3), (2, 64)),
    "elementwise_rational_quadratic": Row(lambda dim: Elementwise(dim, rational_quadratic())),
    "elementwise_mixture": Row(lambda dim: Elementwise(dim, mixture_cdf(4)), SMALL),
    "linear_spline_stack": Row(lambda dim: coupling_stack(dim, 2, net, linear(bound=3.0)), SMALL[1:]),
    "quadratic_spline_stack": Row(lambda dim: coupling_stack(dim, 2, net, quadratic(bound=3.0)), SMALL[1:]),
    "rational_quadratic_stack": Row(lambda dim: coupling_stack(dim, 3, net, rational_quadratic()), SMALL[1:]),
    "mixture_stack": Row(lambda dim: coupling_stack(dim, 2, net, mixture_cdf(3)), SMALL[1:]),
    "coupling_to_unit_cube": Row(lambda dim: Compose(coupling_stack(dim, 2, net), Sigmoid()), SMALL[1:]),
}

CASES = [(name, dim) for name, row in BIJECTIONS.items() for dim in row.dims]


def drawn(name: str, dim: int, seed: int = 0, std: float = 0.5) -> Bijection:
    """The row's bijection in float64, its parameters moved away from where they start."""
    f = BIJECTIONS[name].make(dim).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return f


def points(name: str, dim: int, count: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random points in the domain of the row, and a context for them if it wants one: float64."""
    generator = torch.Generator().manual_seed(seed)
    domain = BIJECTIONS[name].make(dim).domain
    x = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    width = BIJECTIONS[name].context
    context = torch.randn(count, width, generator=generator, dtype=torch.float64) if width else None
    return torch.distributions.transform_to(domain)(x), context
