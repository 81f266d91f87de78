"""The exponents of what flows cost, fitted to measured times and held against theory.

Each row times one operation at growing sizes, on one thread, in CPU seconds, and fits the slope of log time
against log size over them. The sizes are so large that calls of Python do not count. Matrix libraries do more
of their work at full speed as sizes grow, so cubes are seen a little below 3.

    python benchmarks/costs.py    # prints the table, writes benchmarks/results/costs.json; a minute
"""

import contextlib
import ctypes
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from flowkit.autoregressive import MAF
from flowkit.continuous import exact_divergence, hutchinson_divergence
from flowkit.coupling import affine_coupling, half_mask
from flowkit.determinants import laplace
from flowkit.glow import Conv1x1
from flowkit.hutchinson import rademacher
from flowkit.lab.nets import mlp
from flowkit.linear import Dense, Householder, Triangular
from flowkit.lipschitz import lipschitz_mlp
from flowkit.log_det_series import PowerSeries, exact
from flowkit.low_rank import LowRank
from flowkit.planar import Planar, Radial, Sylvester

RESULTS = Path(__file__).parent / "results" / "costs.json"
BATCH, WIDTH = 16, 32


class Row(NamedTuple):
    """make(size) gives what is timed. theory: the exponent; against: what the sizes are sizes of."""

    flow: str
    operation: str
    theory: float
    sizes: tuple[int, ...]
    make: Callable[[int], Callable[[], object]]
    against: str = "D"


def doubling(first: int, count: int) -> tuple[int, ...]:
    return tuple(first * 2**k for k in range(count))


def way(name: str, layer: Callable[[int], nn.Module], dim: Callable[[int], int] = lambda n: n):
    """Forward or inverse of a layer on a batch, away from its start."""

    def make(size):
        f = layer(size)
        for parameter in f.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter) / math.sqrt(size)
        x = torch.randn(BATCH, dim(size))
        return torch.no_grad()(lambda: getattr(f, name)(x))

    return make


def product(size):
    matrix, x = torch.randn(size, size), torch.randn(16 * BATCH, size)
    return lambda: x @ matrix.mT


def slogdet(size):
    matrix = torch.randn(size, size)
    return lambda: torch.linalg.slogdet(matrix)


def sum_of_logs(size):
    log_diagonal = torch.randn(size)
    return lambda: log_diagonal.sum()


def cofactors(size):
    matrix = np.random.default_rng(0).normal(size=(size, size))
    return lambda: laplace(matrix)


def net(inputs, outputs):
    return mlp(inputs, outputs, (WIDTH,), nn.Tanh, zero_last=False)


def d_passes(size):
    """Sampling as the formula says it: a whole pass for each dimension."""
    made = MAF(size, (WIDTH,)).conditioner
    z = torch.randn(BATCH, size)

    @torch.no_grad()
    def sample():
        x = torch.zeros_like(z)
        for i in range(size):
            mu, s = made(x)[:, i].unbind(-1)
            x[:, i] = z[:, i] * s.exp() + mu
        return x

    return sample


def residual_log_det(size, estimator):
    g = lipschitz_mlp(size, (WIDTH,))
    x = torch.randn(BATCH, size, requires_grad=True)
    return lambda: estimator(g(x), x, False)


def divergence(size, probes):
    f = net(size, size)
    x, t = torch.randn(BATCH, size), torch.tensor(0.0)
    if probes:
        v = rademacher(torch.empty(probes, BATCH, size))
        return torch.no_grad()(lambda: hutchinson_divergence(lambda t, x: f(x), t, x, v))
    return torch.no_grad()(lambda: exact_divergence(lambda t, x: f(x), t, x))


LONG, HUGE, MIDDLE = doubling(8192, 5), doubling(2**17, 3), doubling(256, 4)
ROWS = [
    Row("dense", "forward", 2, doubling(128, 4), product),
    Row("dense", "log-det", 3, MIDDLE, slogdet),
    Row("dense", "inverse", 3, MIDDLE, way("inverse", Dense)),
    Row("triangular", "forward", 2, doubling(256, 3), way("forward", Triangular)),
    Row("triangular", "log-det", 1, doubling(2**17, 4), sum_of_logs),
    Row("triangular", "inverse", 2, doubling(256, 3), way("inverse", Triangular)),
    Row("Laplace expansion", "log-det", 1, (6, 7, 8), cofactors, "D!"),
    Row(
        "Householder, 8 reflections", "forward", 1, LONG, way("forward", partial(Householder, reflections=8))
    ),
    Row("diagonal + rank 4", "forward", 1, LONG, way("forward", partial(LowRank, rank=4))),
    Row("diagonal + rank 4", "inverse", 1, LONG, way("inverse", partial(LowRank, rank=4))),
    Row("planar", "forward", 1, LONG, way("forward", Planar)),
    Row("planar", "inverse", 1, HUGE, way("inverse", Planar)),
    Row("radial", "forward", 1, LONG, way("forward", Radial)),
    Row("radial", "inverse", 1, LONG, way("inverse", Radial)),
    Row("Sylvester, M = 4", "forward", 1, LONG, way("forward", partial(Sylvester, width=4))),
    Row("Sylvester, M = 4", "inverse", 1, HUGE, way("inverse", partial(Sylvester, width=4))),
    Row("coupling", "forward", 1, LONG, way("forward", lambda n: affine_coupling(half_mask(n), net))),
    Row("coupling", "inverse", 1, LONG, way("inverse", lambda n: affine_coupling(half_mask(n), net))),
    Row("MAF", "forward", 1, doubling(4096, 4), way("forward", partial(MAF, hidden=(WIDTH,)))),
    Row("MAF", "inverse, D passes", 2, doubling(256, 4), d_passes),
    Row("MAF", "inverse, one by one", 1, doubling(256, 4), way("inverse", partial(MAF, hidden=(WIDTH,)))),
    Row(
        "1x1 convolution",
        "forward",
        2,
        doubling(128, 4),
        way("forward", lambda c: Conv1x1((c, 8, 8)), lambda c: 64 * c),
        "C",
    ),
    Row(
        "1x1 convolution",
        "forward",
        1,
        doubling(64, 4),
        way("forward", lambda n: Conv1x1((8, 64, n)), lambda n: 8 * 64 * n),
        "HW",
    ),
    Row("residual", "log-det, exact", 3, doubling(256, 3), partial(residual_log_det, estimator=exact)),
    Row(
        "residual",
        "log-det, 4 products",
        1,
        LONG,
        partial(residual_log_det, estimator=PowerSeries(4, rademacher)),
    ),
    Row("CNF", "exact trace", 2, doubling(128, 4), partial(divergence, probes=0)),
    Row("FFJORD", "one probe", 1, LONG, partial(divergence, probes=1)),
]


def cpu_seconds(function: Callable[[], object], budget: float = 0.15) -> float:
    """The least CPU time of a call: as many as fit into the budget, at least three, after one to warm up."""
    function()
    times: list[float] = []
    end = time.process_time() + budget
    while len(times) < 3 or time.process_time() < end:
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def measure(row: Row) -> dict:
    torch.manual_seed(0)
    seconds = [cpu_seconds(row.make(size)) for size in row.sizes]
    sizes = [math.factorial(n) if row.against == "D!" else n for n in row.sizes]
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    return {
        "flow": row.flow,
        "operation": row.operation,
        "against": row.against,
        "theory": row.theory,
        "slope": slope,
        "sizes": row.sizes,
        "seconds": seconds,
    }


def keep_memory():
    """Has the C library keep large blocks: else each call gets fresh pages, and their clearing is timed."""
    with contextlib.suppress(AttributeError, OSError):  # no glibc, no such switch
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def main():
    torch.set_num_threads(1)
    keep_memory()
    print(f"{'flow':28}{'operation':22}{'against':>8}{'theory':>8}{'slope':>8}{'largest, ms':>13}")
    rows = []
    for row in map(measure, ROWS):
        rows.append(row)
        print(
            f"{row['flow']:28}{row['operation']:22}{row['against']:>8}{row['theory']:8g}{row['slope']:8.2f}"
            f"{1e3 * row['seconds'][-1]:13.2f}",
            flush=True,
        )
    RESULTS.write_text(json.dumps({"batch": BATCH, "threads": 1, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
