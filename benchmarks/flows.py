"""How fast flowkit is beside zuko, nflows and normflows: same architectures, inputs and thread, in one run.

Each row is one flow, built in every library that has it with the same number of parameters, in float32. A
round runs every library once, in turn, and the table shows medians over rounds of CPU time on one thread, so
that a busy moment hits all alike; the ratio is flowkit's median over that of the fastest peer. What a library
lacks is left blank. Log scales are not bounded (nor are those of normflows; zuko clips its own, nflows takes
a sigmoid): what the bound costs that flowkit has by default is in the rows that say so.

    python benchmarks/flows.py [ROW ...]    # prints the table, writes benchmarks/results/flows.json
"""

import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nflows.transforms as nt
import normflows as nf
import torch
import zuko
from torch import nn
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import FreeFormJacobianTransform, MonotonicRQSTransform

from flowkit import Compose, StandardNormal
from flowkit.adaptive_ode import adaptive
from flowkit.autoregressive import IAF, MAF, orders, standardize
from flowkit.continuous import CNF
from flowkit.coupling import affine, coupling
from flowkit.coupling import half_mask as half
from flowkit.glow import Conv1x1
from flowkit.lab.nets import mlp
from flowkit.lipschitz import lipschitz_mlp
from flowkit.neural_ode import TimeField
from flowkit.planar import Planar
from flowkit.residual import Residual
from flowkit.splines import rational_quadratic

DIM, LAYERS, HIDDEN, BATCH, BINS = 16, 8, (64, 64), 1024, 8
IMAGE = (12, 8, 8)
SHAPES = {"1x1 convolution": (768,), "MAF, D = 64": (64,), "MAF, D = 256": (256,)}  # others: (DIM,)
RESULTS = Path(__file__).parent / "results" / "flows.json"
LIBRARIES = ("flowkit", "zuko", "nflows", "normflows")

net = partial(mlp, hidden=HIDDEN, zero_last=False)


class WithContext(nn.Module):
    """A network for nflows, which hands every network a context."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.net = net(inputs, outputs)

    def forward(self, x, context=None):
        return self.net(x)


# One function a library and flow: it returns (module, forward, inverse), each of the two mapping points to
# points and log-det. Forward goes from data to noise.


def ours(*layers):
    f = Compose(*layers)
    return f, f.forward, f.inverse


def of_nflows(*layers):
    f = nt.CompositeTransform(list(layers))
    return f, f.forward, f.inverse


def of_normflows(*layers):
    """Its layers run from noise to data: the last is applied to the data first."""
    f = nn.ModuleList(layers)

    def there(x):
        total = 0
        for layer in reversed(f):
            x, log_det = layer.inverse(x)
            total = total + log_det
        return x, total

    def back(z):
        total = 0
        for layer in f:
            z, log_det = layer.forward(z)
            total = total + log_det
        return z, total

    return f, there, back


def of_zuko(*layers):
    f = nn.ModuleList(layers)

    def there(x):
        return zuko.transforms.ComposedTransform(*(layer() for layer in f)).call_and_ladj(x)

    def back(z):
        return zuko.transforms.ComposedTransform(*(layer() for layer in f)).inv.call_and_ladj(z)

    return f, there, back


def masks():
    return [half(DIM, first=k % 2 == 0) for k in range(LAYERS)]


def affine_coupling(bound: float | None = None) -> dict:
    def swap(k):
        block = nf.flows.AffineCoupling(net(DIM // 2, DIM), scale_map="exp")
        parts = [nf.flows.Split("channel" if k else "channel_inv"), block]
        return [*parts, nf.flows.Merge("channel" if k else "channel_inv")]

    return {
        "flowkit": ours(*(coupling(m, net, affine(bound)) for m in masks())),
        "zuko": of_zuko(*(GeneralCouplingTransform(DIM, mask=m, hidden_features=HIDDEN) for m in masks())),
        "nflows": of_nflows(*(nt.AffineCouplingTransform((~m).int(), WithContext) for m in masks())),
        "normflows": of_normflows(*(part for k in range(LAYERS) for part in swap(k % 2))),
    }


def spline_coupling() -> dict:
    options = {"num_bins": BINS, "tails": "linear", "tail_bound": 5.0}
    theirs = nt.PiecewiseRationalQuadraticCouplingTransform
    thirds = nf.flows.neural_spline.coupling.PiecewiseRationalQuadraticCoupling
    univariate = {
        "univariate": partial(MonotonicRQSTransform, bound=5.0),
        "shapes": [(BINS,), (BINS,), (BINS - 1,)],
    }
    return {
        "flowkit": ours(*(coupling(m, net, rational_quadratic(BINS)) for m in masks())),
        "zuko": of_zuko(
            *(GeneralCouplingTransform(DIM, mask=m, hidden_features=HIDDEN, **univariate) for m in masks())
        ),
        "nflows": of_nflows(*(theirs((~m).int(), WithContext, **options) for m in masks())),
        "normflows": of_normflows(*(thirds((~m).int(), WithContext, **options) for m in masks())),
    }


def autoregressive(
    dim: int = DIM, layers: int = LAYERS, inverse: bool = False, bound: float | None = None
) -> dict:
    """Hidden layers of 2 D units where 64 would be too few for each output to read all that it may."""
    hidden = HIDDEN if 2 * dim <= HIDDEN[0] else (2 * dim,) * len(HIDDEN)
    kind, transformer = (IAF, affine(bound)) if inverse else (MAF, standardize(bound))
    options = {"use_residual_blocks": False, "random_mask": False, "num_blocks": len(HIDDEN) - 1}
    theirs = [nt.MaskedAffineAutoregressiveTransform(dim, hidden[0], **options) for _ in range(layers)]
    thirds = [nf.flows.MaskedAffineAutoregressive(dim, hidden[0], **options) for _ in range(layers)]
    reverse = [nt.ReversePermutation(dim) for _ in range(layers)]
    turns = orders(dim, layers)
    made = [MaskedAutoregressiveTransform(dim, order=o, hidden_features=hidden) for o in turns]
    flows = {
        "flowkit": ours(*(kind(dim, hidden, o, transformer) for o in turns)),
        "zuko": of_zuko(*made),
        "nflows": of_nflows(*(part for pair in zip(theirs, reverse, strict=True) for part in pair)),
        "normflows": of_normflows(*thirds),
    }
    if inverse:
        for name in ("zuko", "nflows"):
            f, there, back = flows[name]
            flows[name] = f, back, there
    else:
        f, there, back = flows["normflows"]  # its forward takes one pass: noise to data as in IAF
        flows["normflows"] = f, back, there
    return flows


def planar() -> dict:
    """From noise to data, as in variational inference: the only direction that normflows has."""
    theirs = of_normflows(*(nf.flows.Planar((DIM,), act="tanh") for _ in range(LAYERS)))
    f = ours(*(Planar(DIM) for _ in range(LAYERS)))
    return {"flowkit": (f[0], None, f[1]), "normflows": (theirs[0], None, theirs[2])}


def residual() -> dict:
    """The same contractions in both; normflows takes a series of 20 exact traces, flowkit one LU."""
    nets = [lipschitz_mlp(DIM, HIDDEN) for _ in range(LAYERS)]
    theirs = [
        nf.flows.Residual(g, reduce_memory=False, exact_trace=True, n_power_series=20) for g in nets[::-1]
    ]
    return {
        "flowkit": ours(*(Residual(g, 0.9) for g in nets)),
        "normflows": of_normflows(*theirs),
    }


def continuous(probes: int = 0) -> dict:
    """Dormand-Prince at one tolerance; both take gradients by the adjoint method, at a flat memory.

    The weights are three times those at the start: a field that bends, as a trained one does. zuko crosses
    the gentle field of a fresh network in one step, and holds its log-det to 100 times the tolerance.
    """
    field = TimeField(mlp(DIM + 1, DIM, HIDDEN, nn.Tanh, zero_last=False))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(3)
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    flow = CNF(field, partial(adaptive, **tolerance), probes=probes, flat_memory=True)
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    peer = FreeFormJacobianTransform(
        field, zero, one, tuple(field.parameters()), exact=not probes, **tolerance
    )
    return {
        "flowkit": (field, flow.forward, flow.inverse),
        "zuko": (field, peer.call_and_ladj, peer.inv.call_and_ladj),
    }


def one_by_one_convolution() -> dict:
    """Images (C, H, W); flowkit's points are the flat vectors."""
    channels = IMAGE[0]

    def flat(flow):
        f, forward, inverse = flow

        def way(g):
            def on_rows(x):
                z, log_det = g(x.unflatten(-1, IMAGE))
                return z.flatten(1), log_det

            return on_rows

        return f, way(forward), way(inverse)

    return {
        "flowkit": ours(*(Conv1x1(IMAGE) for _ in range(LAYERS))),
        "nflows": flat(of_nflows(*(nt.OneByOneConvolution(channels) for _ in range(LAYERS)))),
        "normflows": flat(
            of_normflows(*(nf.flows.Invertible1x1Conv(channels, use_lu=True) for _ in range(LAYERS)))
        ),
    }


ROWS = {  # name: (makes the flows, points in a batch, operations)
    "affine coupling": (affine_coupling, BATCH, ("log_prob", "train", "sample")),
    "affine coupling, bounded": (partial(affine_coupling, 2.0), BATCH, ("log_prob", "train", "sample")),
    "spline coupling": (spline_coupling, BATCH, ("log_prob", "train", "sample")),
    "MAF": (autoregressive, BATCH, ("log_prob", "train", "sample")),
    "MAF, bounded": (partial(autoregressive, bound=2.0), BATCH, ("log_prob", "train", "sample")),
    "MAF, D = 64": (partial(autoregressive, 64, 2), 256, ("log_prob", "train", "sample")),
    "MAF, D = 256": (partial(autoregressive, 256, 2), 64, ("log_prob", "train", "sample")),
    "IAF": (partial(autoregressive, inverse=True), BATCH, ("log_prob", "sample")),
    "1x1 convolution": (one_by_one_convolution, 64, ("log_prob", "train", "sample")),
    "residual": (residual, 256, ("log_prob", "train", "sample")),
    "CNF": (continuous, 256, ("log_prob", "train", "sample")),
    "CNF, one probe": (partial(continuous, probes=1), 256, ("log_prob", "train", "sample")),
    "planar": (planar, BATCH, ("sample", "train backwards")),
}


def operation(name: str, flow: tuple, points: torch.Tensor) -> Callable[[], object]:
    """What is timed: log-densities, those and their gradients, draws; each from the same points."""
    f, forward, inverse = flow
    base = StandardNormal(points[0].numel())

    def train(way):
        f.zero_grad(set_to_none=True)
        out, log_det = way(points)
        (-base.log_prob(out.flatten(1)) - log_det).mean().backward()

    @torch.no_grad()
    def log_prob():
        z, log_det = forward(points)
        return base.log_prob(z.flatten(1)) + log_det

    @torch.no_grad()
    def sample():
        return inverse(points)[0]

    return {
        "log_prob": log_prob,
        "sample": sample,
        "train": partial(train, forward),
        "train backwards": partial(train, inverse),
    }[name]


def medians(functions: dict[str, Callable], least: int = 7, budget: float = 2.0) -> dict[str, float]:
    """The median CPU seconds of each on the one thread, all run in turn; as many rounds as fit the budget."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    end = time.perf_counter() + budget
    while len(times["flowkit"]) < least or time.perf_counter() < end:
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def measure(name: str) -> list[dict]:
    make, batch, operations = ROWS[name]
    torch.manual_seed(0)
    flows = make()
    parameters = {library: sum(p.numel() for p in flow[0].parameters()) for library, flow in flows.items()}
    points = torch.randn(batch, *SHAPES.get(name, (DIM,)))
    rows = []
    for what in operations:
        seconds = medians({library: operation(what, flow, points) for library, flow in flows.items()})
        peers = {library: t for library, t in seconds.items() if library != "flowkit"}
        fastest = min(peers, key=peers.get)
        ratio = seconds["flowkit"] / peers[fastest]
        rows.append(
            {
                "flow": name,
                "operation": what,
                "batch": batch,
                "milliseconds": {library: 1e3 * t for library, t in seconds.items()},
                "parameters": parameters,
                "fastest_peer": fastest,
                "ratio": ratio,
            }
        )
        cells = "".join(f"{1e3 * seconds[x]:11.2f}" if x in seconds else " " * 11 for x in LIBRARIES)
        print(f"{name:26}{what:17}{cells}{ratio:8.2f}", flush=True)
    return rows


def main(names):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'milliseconds':26}{'':17}" + "".join(f"{x:>11}" for x in LIBRARIES) + f"{'ratio':>8}")
    rows = [row for name in names or ROWS for row in measure(name)]
    if not names:
        report = {"threads": 1, "torch": torch.__version__, "machine": platform.machine(), "rows": rows}
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
