"""How close a stack of affine couplings comes to densities of known entropy, on one stated budget.

KL(target || flow) is the flow's cross-entropy on held-out points minus the entropy of the target. The mean of
log p - log q over the same points estimates it with less noise: that is the table's column. The mass of the
flow, by quadrature, says whether its log_prob is a density at all.

    python benchmarks/fits.py    # prints the table, writes benchmarks/results/fits.json; a minute of CPU time
"""

import json
import time
from functools import partial
from pathlib import Path

import torch

from flowkit import Flow, StandardNormal
from flowkit.coupling import coupling_stack
from flowkit.lab import targets
from flowkit.lab.nets import mlp
from flowkit.lab.training import fit

BUDGET = {"layers": 8, "hidden": [64, 64], "steps": 2000, "batch": 256, "lr": 5e-3, "clip": 1.0, "seed": 0}
HELD_OUT = 20_000
RESULTS = Path(__file__).parent / "results" / "fits.json"


def fit_one(target) -> dict:
    """One fit on the budget, judged on held-out points."""
    torch.manual_seed(BUDGET["seed"])
    flow = Flow(StandardNormal(2), coupling_stack(2, BUDGET["layers"], partial(mlp, hidden=BUDGET["hidden"])))
    start = time.process_time()
    fit(flow, target, **{name: BUDGET[name] for name in ("steps", "batch", "lr", "clip", "seed")})
    seconds = time.process_time() - start
    x = target.sample(HELD_OUT, seed=BUDGET["seed"] + 1)
    with torch.no_grad():
        surprise = -flow.log_prob(x).double()
        excess = surprise + target.log_prob(x)
    return {
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
    print(f"affine couplings on one thread: {BUDGET}", flush=True)
    fits = [fit_one(make()) for make in (targets.checkerboard, targets.eight_gaussians, targets.two_moons)]
    columns = ("entropy", "cross_entropy", "kl", "standard_error", "mass", "cpu_seconds")
    print(f"{'target':16}" + "".join(f"{name:>16}" for name in columns))
    for row in fits:
        print(f"{row['target']:16}" + "".join(f"{row[name]:16.4f}" for name in columns))
    report = {"budget": BUDGET, "threads": 1, "torch": torch.__version__, "fits": fits}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
