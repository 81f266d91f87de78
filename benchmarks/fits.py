"""How close flows come to densities of known entropy, and to handwritten digits, on stated budgets.

KL(target || flow) is the flow's cross-entropy on held-out points minus the entropy of the target. The mean of
log p - log q over the same points estimates it with less noise: that is the table's column. The mass of the
flow, by quadrature, says whether its log_prob is a density at all. Eight affine couplings take about as
long as three couplings with splines or mixtures: that is why they are compared.

The digits have no known entropy: there flows are judged by bits per dimension of the dequantized pixels,
every Jacobian term counted. 1000 digits teach, 350 say when to stop, and 447 are looked at once, at the end.

    python benchmarks/fits.py    # prints both tables, writes benchmarks/results/fits.json; six minutes
"""

import json
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from flowkit import Compose, Flow, StandardNormal
from flowkit.coupling import affine, coupling_stack
from flowkit.glow import Glow
from flowkit.lab import targets
from flowkit.lab.nets import mlp
from flowkit.lab.training import fit
from flowkit.mixtures import mixture_cdf
from flowkit.pixels import Dequantized, PixelHistogram, PixelLogit, bits_per_dim
from flowkit.splines import rational_quadratic

BUDGET = {"hidden": [64, 64], "steps": 2000, "batch": 256, "lr": 5e-3, "clip": 1.0, "seed": 0}
FLOWS = {  # layers, and what each does to the elements that move
    "8 affine": (8, affine()),
    "3 rational_quadratic": (3, rational_quadratic(bins=16, bound=5.0)),
    "3 mixture_cdf": (3, mixture_cdf(components=8)),
}
TARGETS = (targets.checkerboard, targets.eight_gaussians, targets.two_moons)
HELD_OUT = 20_000

DIGITS_BUDGET = {"batch": 128, "lr": 2e-3, "clip": 5.0, "every": 100, "patience": 6, "seed": 0}


def dropout_net(inputs, outputs):
    """One wide layer of which half is dropped at each step: 1000 digits are soon learned by heart."""
    return mlp(inputs, outputs, hidden=(256,)).insert(2, nn.Dropout(0.5))


PARTS = ("train", "valid", "test")
DIGITS_FLOWS = {  # what stands behind the histogram and the logit of each pixel, and its steps
    "8 affine": (lambda: coupling_stack(64, 8, dropout_net, permute=True), 1500),
    "6 rational_quadratic": (
        lambda: coupling_stack(64, 6, dropout_net, rational_quadratic(bins=5, bound=8.0), permute=True),
        1500,
    ),
    "Glow, 2 levels of 4 affine": (lambda: Glow((1, 8, 8), levels=2, steps=4), 2000),
}
RESULTS = Path(__file__).parent / "results" / "fits.json"


def fit_one(name, target) -> dict:
    """One fit on the budget, judged on held-out points."""
    layers, transformer = FLOWS[name]
    torch.manual_seed(BUDGET["seed"])
    net = partial(mlp, hidden=BUDGET["hidden"])
    flow = Flow(StandardNormal(2), coupling_stack(2, layers, net, transformer))
    start = time.process_time()
    fit(flow, target, **{key: BUDGET[key] for key in ("steps", "batch", "lr", "clip", "seed")})
    seconds = time.process_time() - start
    x = target.sample(HELD_OUT, seed=BUDGET["seed"] + 1)
    with torch.no_grad():
        surprise = -flow.log_prob(x).double()
        excess = surprise + target.log_prob(x)
    return {
        "flow": name,
        "target": target.name,
        "entropy": target.entropy,
        "cross_entropy": surprise.mean().item(),
        "kl": excess.mean().item(),
        "standard_error": excess.std().item() / HELD_OUT**0.5,
        "mass": targets.integral(flow.log_prob, wide(target.extent), 800),
        "cpu_seconds": seconds,
    }


def fit_digits(name, data) -> dict:
    """One fit, with fresh noise at every step; the best parameters for the second part of the digits."""
    make, steps = DIGITS_FLOWS[name]
    torch.manual_seed(DIGITS_BUDGET["seed"])
    histogram = PixelHistogram.fitted(data.train, data.levels)
    pixels = Compose(histogram, PixelLogit(data.levels, alpha=1e-3))
    flow = Flow(StandardNormal(64), Compose(pixels, make()))
    start = time.process_time()
    model = Dequantized(flow, data.levels)
    history = fit(model, data.train.floor(), steps, held_out=data.valid.floor(), **DIGITS_BUDGET)
    seconds = time.process_time() - start
    return {"flow": name, "steps": history.best_step, **bits(flow, data), "cpu_seconds": seconds}


def independent_pixels(data) -> dict:
    """The histogram of each pixel alone, in closed form: what a flow gains by dependence starts here."""
    box = torch.zeros(64), torch.full((64,), float(data.levels))
    base = torch.distributions.Independent(torch.distributions.Uniform(*box, validate_args=False), 1)
    flow = Flow(base, PixelHistogram.fitted(data.train, data.levels))
    return {"flow": "histograms", "steps": 0, **bits(flow, data), "cpu_seconds": 0.0}


def bits(flow, data) -> dict:
    """Bits per dimension on the three parts of the digits, and the standard error of the last."""
    with torch.no_grad():
        parts = {part: bits_per_dim(flow.log_prob(getattr(data, part)), 64) for part in PARTS}
    means = {part: each.mean().item() for part, each in parts.items()}
    return {**means, "standard_error": parts["test"].std().item() / len(data.test) ** 0.5}


def wide(extent):
    """The box, twice as long and as high: a flow puts some of its mass where the target has none."""
    x0, x1, y0, y1 = extent
    return (3 * x0 - x1) / 2, (3 * x1 - x0) / 2, (3 * y0 - y1) / 2, (3 * y1 - y0) / 2


def show(rows, columns):
    """The numbers of the rows under their names, behind the words."""
    words = [name for name in ("target", "flow") if name in rows[0]]
    print("".join(f"{name:28}" for name in words) + "".join(f"{name:>16}" for name in columns))
    for row in rows:
        print("".join(f"{row[name]:28}" for name in words) + "".join(f"{row[n]:16.4f}" for n in columns))


def main():
    torch.set_num_threads(1)  # the networks are small: more threads only wait for one another
    print(f"couplings on one thread: {BUDGET}", flush=True)
    fits = [fit_one(name, make()) for make in TARGETS for name in FLOWS]
    show(fits, ("entropy", "cross_entropy", "kl", "standard_error", "mass", "cpu_seconds"))
    print(f"digits, bits per dimension: {DIGITS_BUDGET}", flush=True)
    data = targets.digits()
    digits = [independent_pixels(data), *(fit_digits(name, data) for name in DIGITS_FLOWS)]
    show(digits, (*PARTS, "standard_error", "steps", "cpu_seconds"))
    report = {
        "budget": BUDGET,
        "threads": 1,
        "torch": torch.__version__,
        "fits": fits,
        "digits_budget": DIGITS_BUDGET,
        "digits": digits,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
