"""How close stacks of couplings come to densities of known entropy, on one stated budget.

KL(target || flow) is the flow's cross-entropy on held-out points minus the entropy of the target. The mean of
log p - log q over the same points estimates it with less noise: that is the table's column. The mass of the
flow, by quadrature, says whether its log_prob is a density at all. Eight affine couplings take about as
long as three couplings with splines or mixtures: that is why they are compared.

    python benchmarks/fits.py    # prints the table, writes benchmarks/results/fits.json; two minutes
"""

import json
import time
from functools import partial
from pathlib import Path

import torch

from flowkit import Flow, StandardNormal
from flowkit.coupling import affine, coupling_stack
from flowkit.lab import targets
from flowkit.lab.nets import mlp
from flowkit.lab.training import fit
from flowkit.mixtures import mixture_cdf
from flowkit.splines import rational_quadratic

BUDGET = {"hidden": [64, 64], "steps": 2000, "batch": 256, "lr": 5e-3, "clip": 1.0, "seed": 0}
FLOWS = {  # layers, and what each does to the elements that move
    "8 affine": (8, affine()),
    "3 rational_quadratic": (3, rational_quadratic(bins=16, bound=5.0)),
    "3 mixture_cdf": (3, mixture_cdf(components=8)),
}
TARGETS = (targets.checkerboard, targets.eight_gaussians, targets.two_moons)
HELD_OUT = 20_000
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


def wide(extent):
    """The box, twice as long and as high: a flow puts some of its mass where the target has none."""
    x0, x1, y0, y1 = extent
    return (3 * x0 - x1) / 2, (3 * x1 - x0) / 2, (3 * y0 - y1) / 2, (3 * y1 - y0) / 2


def main():
    torch.set_num_threads(1)  # the networks are small: more threads only wait for one another
    print(f"couplings on one thread: {BUDGET}", flush=True)
    fits = [fit_one(name, make()) for make in TARGETS for name in FLOWS]
    columns = ("entropy", "cross_entropy", "kl", "standard_error", "mass", "cpu_seconds")
    print(f"{'target':16}{'flow':22}" + "".join(f"{name:>16}" for name in columns))
    for row in fits:
        print(f"{row['target']:16}{row['flow']:22}" + "".join(f"{row[name]:16.4f}" for name in columns))
    report = {"budget": BUDGET, "threads": 1, "torch": torch.__version__, "fits": fits}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
