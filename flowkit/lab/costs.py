"""The running comparison of flows: what forward, inverse and log-det cost, in theory and measured here."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape

import numpy as np
from IPython.display import display
from threadpoolctl import threadpool_limits

DIM = 64
BATCH = 256

Calls = tuple[Callable, Callable, Callable]  # forward, inverse and log-det on a batch


@dataclass(frozen=True)
class Row:
    """One flow: orders of cost for a point, and make(rng) -> its forward, inverse and log-det on a batch."""

    topic: str
    flow: str
    orders: tuple[str, str, str]
    make: Callable[[np.random.Generator], Calls]


def seconds(function: Callable[[], object], budget: float = 0.05) -> float:
    """Median CPU time of a call: as many as fit into the budget, at least three, after one to warm up."""
    function()
    times: list[float] = []
    end = time.process_time() + budget
    while len(times) < 3 or time.process_time() < end:
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _elementwise(rng: np.random.Generator) -> Calls:
    x, a, b = rng.normal(size=(BATCH, DIM)), rng.uniform(0.5, 2, DIM), rng.normal(size=DIM)
    return lambda: a * x + b, lambda: (x - b) / a, lambda: np.log(np.abs(a)).sum(-1)


def _dense(rng: np.random.Generator) -> Calls:
    x, A = rng.normal(size=(BATCH, DIM)), rng.normal(size=(DIM, DIM))
    return lambda: x @ A.T, lambda: np.linalg.solve(A, x.T).T, lambda: np.linalg.slogdet(A)[1]


def _triangular(rng: np.random.Generator) -> Calls:
    x, L = rng.normal(size=(BATCH, DIM)), np.tril(rng.normal(size=(DIM, DIM))) / DIM + np.eye(DIM)

    def substitute() -> np.ndarray:
        z = np.zeros_like(x)
        for i in range(DIM):
            z[:, i] = (x[:, i] - z[:, :i] @ L[i, :i]) / L[i, i]
        return z

    return lambda: x @ L.T, substitute, lambda: np.log(np.abs(np.diagonal(L))).sum(-1)


def _planar(rng: np.random.Generator) -> Calls:
    import torch

    from flowkit.planar import Planar, tanh_slope

    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        f = Planar(DIM)
        x, a = torch.randn(BATCH, DIM), torch.randn(BATCH)
    forward = torch.no_grad()(f.forward)
    inverse = torch.no_grad()(f.inverse)
    w, u = f.w.detach(), f.u.detach()
    return lambda: forward(x), lambda: inverse(x), lambda: tanh_slope(a, 1 + w @ u).log()


def _coupling(rng: np.random.Generator) -> Calls:
    import torch

    from flowkit.coupling import coupling_stack
    from flowkit.lab.nets import mlp

    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        f = coupling_stack(DIM, layers=1, net=mlp)
        x = torch.randn(BATCH, DIM)
    forward = torch.no_grad()(f.forward)
    inverse = torch.no_grad()(f.inverse)
    s = torch.zeros(BATCH, DIM // 2)
    return lambda: forward(x), lambda: inverse(x), lambda: s.sum(-1)


def _autoregressive(rng: np.random.Generator) -> Calls:
    import torch

    from flowkit.autoregressive import MAF

    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        f = MAF(DIM)
        x = torch.randn(BATCH, DIM)
    forward = torch.no_grad()(f.forward)
    inverse = torch.no_grad()(f.inverse)
    s = torch.zeros(BATCH, DIM)
    return lambda: forward(x), lambda: inverse(x), lambda: s.sum(-1)


def _continuous(rng: np.random.Generator, probes: int = 0) -> Calls:
    import torch

    from flowkit.continuous import CNF
    from flowkit.lab.nets import mlp
    from flowkit.neural_ode import TimeField
    from flowkit.ode import integrate

    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        field = TimeField(mlp(DIM + 1, DIM, (64,), torch.nn.Tanh))
        x = torch.randn(BATCH, DIM)
    points = torch.no_grad()(partial(integrate, field, steps=5))
    whole = torch.no_grad()(CNF(field, partial(integrate, steps=5), probes=probes).forward)
    return lambda: points(x, 0.0, 1.0), lambda: points(x, 1.0, 0.0), lambda: whole(x)[1]


ROWS = (
    Row("change_of_variables", "affine, elementwise", ("D", "D", "D"), _elementwise),
    Row("determinants", "dense linear, by LU", ("D²", "D³ once, then D²", "D³ once"), _dense),
    Row("determinants", "triangular linear", ("D²", "D²", "D"), _triangular),
    Row("planar", "planar", ("D", "D, one root", "D"), _planar),
    Row("coupling", "affine coupling, net of two layers H wide", ("D H + H²", "D H + H²", "D"), _coupling),
    Row(
        "autoregressive",
        "MAF, net of two layers H wide",
        ("D H + H²", "D H + H², in D steps", "D"),
        _autoregressive,
    ),
    Row("continuous", "CNF, net H wide, n = 20 evaluations", ("n D H", "n D H", "n D² H"), _continuous),
    Row(
        "continuous",
        "FFJORD: the same, one probe",
        ("n D H", "n D H", "n D H"),
        partial(_continuous, probes=1),
    ),
)


def measure(topic: str, seed: int) -> list[tuple[Row, list[float]]]:
    """Each row up to the lesson `topic`, with microseconds a point for forward, inverse and log-det.

    On one core: on a busy machine threads that wait for one another cost more than the arithmetic.
    """
    topics = [row.topic for row in ROWS]
    if topic not in topics:
        known = ", ".join(dict.fromkeys(topics))
        raise ValueError(f"no flow is measured for {topic!r}; there are rows for {known}")
    last = max(i for i, name in enumerate(topics) if name == topic)
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):
        return [(row, [seconds(f) / BATCH * 1e6 for f in row.make(rng)]) for row in ROWS[: last + 1]]


def show(topic: str, seed: int) -> None:
    """Displays the comparison as a table, up to and with the lesson `topic`."""
    head = ("flow", "forward", "inverse", "log-det")
    body = [
        (row.flow, *(f"O({order}), {t:.3g} µs" for order, t in zip(row.orders, times, strict=True)))
        for row, times in measure(topic, seed)
    ]
    caption = f"Cost for one point, and the time measured here on one core: D = {DIM}, batches of {BATCH}"
    text = "\n".join(["  ".join(row) for row in (head, *body)])
    display({"text/html": _html(caption, head, body), "text/plain": f"{caption}\n{text}"}, raw=True)


def _html(caption: str, head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"
    )
