"""Maximum likelihood: fit a density to data, watch it, and keep the best parameters."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

Nats = TypeVar("Nats", float, np.ndarray, Tensor)


class Density(Protocol):
    """What can be fitted: a log-density, (N, D) -> (N,), with parameters."""

    def log_prob(self, x: Tensor, /) -> Tensor: ...

    def parameters(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class History:
    """The learning curve of a fit: four arrays of one length, a number for each record.

    steps      updates made so far
    train      mean of -log_prob over the batches since the last record, nats
    held_out   mean of -log_prob over the held-out points, nats; NaN where there are none
    seconds    wall-clock time since the start
    best_step  the step whose parameters the flow now has
    """

    steps: np.ndarray
    train: np.ndarray
    held_out: np.ndarray
    seconds: np.ndarray
    best_step: int


def fit(
    flow: Density,
    data: Any,
    steps: int,
    *,
    batch: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
    held_out: ArrayLike | Tensor | None = None,
    every: int = 50,
    patience: int | None = None,
    schedule: str | None = "cosine",
    clip: float | None = None,
    progress: bool = True,
) -> History:
    """Minimize the mean of -flow.log_prob(x) with Adam (Kingma and Ba 2015), changing flow in place.

    flow       anything with log_prob(x), (N, D) -> (N,), and parameters()
    data       points (N, D), walked through in a new random order each epoch (a last, smaller batch is
               left out); or a target with `sample(n, seed)`, which gives fresh points at each step
    held_out   points (M, D) to judge the fit on at each record: the flow ends with the best parameters
    every      the steps from record to record
    patience   stop after this many records without a better held-out value
    schedule   "cosine": the learning rate falls from lr to zero along half a cosine; None: it stays
    clip       the largest norm of a gradient; a longer one is shortened to it

    One seed gives the same parameters to the bit, on one machine with one number of threads, whatever the
    flow draws itself; the global random state is left as it was. Modules are in train mode in a step, in eval
    mode when they are judged and at the end. Points are cast to the dtype and device of the first parameter.

    Raises ValueError when arguments or shapes do not fit, and FloatingPointError when the loss or its
    gradient is not finite: the flow then has the last parameters for which it was.
    """
    first = next(iter(flow.parameters()), None)
    if first is None:
        raise ValueError("the flow has no parameters to fit")
    if min(steps, batch, every) < 1:
        raise ValueError(f"steps, batch and every must be at least 1: they are {steps}, {batch} and {every}")
    if schedule not in ("cosine", None):
        raise ValueError(f'schedule is "cosine" or None, not {schedule!r}')
    if patience is not None and held_out is None:
        raise ValueError("patience needs held_out points: without them nothing says when to stop")
    held_out = None if held_out is None else _points(held_out, "held_out", first)
    data = data if hasattr(data, "sample") else _points(data, "data", first)
    batches = (x.to(first) for x in _batches(data, batch, Generator().manual_seed(seed)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _descend(flow, batches, steps, lr, held_out, every, patience, schedule, clip, progress)


def mean_log_prob(flow: Density, x: Tensor, batch: int = 8192) -> float:
    """The mean of flow.log_prob(x) over points (N, D), in nats, in eval mode and without gradients."""
    was_training = getattr(flow, "training", False)
    _set_mode(flow, training=False)
    with torch.no_grad():
        total = sum(_log_prob(flow, part).double().sum() for part in x.split(batch))
    _set_mode(flow, training=was_training)
    return float(total) / len(x)


def bits_per_dim(log_prob: Nats, dim: int) -> Nats:
    """-log_prob / (dim log 2): what a point costs for each of its dimensions, in bits. log_prob in nats.

    The density must be that of the data on their own scale of levels (0 ... 255, or 0 ... 16, plus U[0, 1)).
    The log-density of x / levels is dim * log(levels) nats higher: subtract them first.
    """
    return -log_prob / (dim * math.log(2))


def _descend(
    flow: Density,
    batches: Iterator[Tensor],
    steps: int,
    lr: float,
    held_out: Tensor | None,
    every: int,
    patience: int | None,
    schedule: str | None,
    clip: float | None,
    progress: bool,
) -> History:
    """The loop of `fit`."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    good = _Copy(flow)  # the last parameters whose loss was finite
    best, best_value, best_step = _Copy(flow), math.inf, 0
    records, losses, line = [], [], _Line(steps, progress)
    start = time.perf_counter()

    for step in range(1, steps + 1):
        _set_mode(flow, training=True)
        for group in optimizer.param_groups:
            group["lr"] = lr * _decay(schedule, (step - 1) / steps)
        x = next(batches)
        log_prob = _log_prob(flow, x)
        loss = -log_prob.mean()
        if not loss.isfinite():
            good.restore()
            raise FloatingPointError(_what_to_try("loss", step, lr, clip, x, log_prob))
        if not loss.requires_grad:
            raise ValueError("log_prob does not depend on the parameters: does it detach them, or use NumPy?")
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(flow.parameters(), math.inf if clip is None else clip)
        if not norm.isfinite():
            raise FloatingPointError(_what_to_try("gradient", step, lr, clip, x, log_prob))
        good.take()
        optimizer.step()
        losses.append(loss.item())

        if step % every == 0 or step == steps:
            value = math.nan if held_out is None else -mean_log_prob(flow, held_out)
            records.append((step, np.mean(losses), value, time.perf_counter() - start))
            losses = []
            if value < best_value:
                best.take()
                best_value, best_step = value, step
            if patience is not None and step - best_step >= patience * every:
                break
        line.show(step, records, losses)

    if held_out is None:
        best_step = step
    else:
        best.restore()
    _set_mode(flow, training=False)
    line.close(step, records, best_step)
    at, train, judged, seconds = (np.array(column) for column in zip(*records, strict=True))
    return History(at, train, judged, seconds, best_step)


class _Copy:
    """A copy of a flow's parameters and buffers, to go back to."""

    def __init__(self, flow: Density) -> None:
        self.tensors = [*flow.parameters(), *(flow.buffers() if hasattr(flow, "buffers") else ())]
        self.saved = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def take(self) -> None:
        for saved, tensor in zip(self.saved, self.tensors, strict=True):
            saved.copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        for saved, tensor in zip(self.saved, self.tensors, strict=True):
            tensor.copy_(saved)


class _Line:
    """One line of plain text that rewrites itself, and stays with its last words.

    In a terminal by the carriage return; in Jupyter as one display that is updated, so that a saved notebook
    holds the last words alone. Where nobody watches (a pipe, a log file), only those are printed.
    """

    def __init__(self, steps: int, wanted: bool) -> None:
        self.steps = steps
        self.wanted = wanted
        self.jupyter = type(sys.stdout).__module__.startswith("ipykernel")
        self.live = self.jupyter or sys.stdout.isatty()
        self.start = self.shown = time.perf_counter()
        self.width = 0
        self.display = None

    def show(self, step: int, records: list, losses: list) -> None:
        """At most four times a second, the step, the losses, and the time left."""
        now = time.perf_counter()
        if not (self.wanted and self.live) or now - self.shown < 0.25:
            return
        self.shown = now
        train = np.mean(losses) if losses else records[-1][1]
        left = (now - self.start) / step * (self.steps - step)
        self._print(f"step {step} of {self.steps}: {_nats(train, records)}, {left:.0f} s left")

    def close(self, step: int, records: list, best_step: int) -> None:
        if self.wanted:
            seconds = time.perf_counter() - self.start
            kept = "" if best_step == step else f"; kept the parameters of step {best_step}"
            self._print(f"{step} steps in {seconds:.1f} s: {_nats(records[-1][1], records)}{kept}", end="\n")

    def _print(self, text: str, end: str = "") -> None:
        if self.jupyter:
            self._display({"text/plain": text})
            return
        print(("\r" if self.live else "") + text.ljust(self.width), end=end, flush=True)
        self.width = len(text)

    def _display(self, bundle: dict) -> None:
        from IPython.display import display  # there whenever ipykernel is, and needed nowhere else

        if self.display is None:
            self.display = display(bundle, raw=True, display_id=True)
        else:
            self.display.update(bundle, raw=True)


def _nats(train: float, records: list) -> str:
    held_out = records[-1][2] if records else math.nan
    return f"train {train:.3f} nats" + ("" if math.isnan(held_out) else f", held out {held_out:.3f} nats")


def _points(x: ArrayLike | Tensor, name: str, like: Tensor) -> Tensor:
    """x as a tensor of points with the dtype and device of `like`, or an error that says what is wrong."""
    x = torch.as_tensor(x)
    if x.ndim < 2 or len(x) == 0:
        advice = f": make it {name}[:, None] if its points have one dimension" if x.ndim == 1 else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}, and fit wants points (N, D){advice}")
    broken = int((~x.isfinite()).reshape(len(x), -1).any(-1).sum())
    if broken:
        raise ValueError(f"{broken} of the {len(x)} points of {name} are not finite: leave them out")
    return x.to(like)


def _batches(data: Any, batch: int, generator: Generator) -> Iterator[Tensor]:
    """Batches without end: fresh points of a target, or shuffled epochs over given points."""
    if hasattr(data, "sample"):
        while True:
            yield data.sample(batch, generator)
    batch = min(batch, len(data))
    whole = len(data) - len(data) % batch
    while True:
        for rows in torch.randperm(len(data), generator=generator)[:whole].split(batch):
            yield data[rows]


def _log_prob(flow: Density, x: Tensor) -> Tensor:
    """flow.log_prob(x), held to its shape: one number for each point."""
    log_prob = flow.log_prob(x)
    if log_prob.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob returned shape {tuple(log_prob.shape)} for points of shape {tuple(x.shape)}: it must"
            f" return one number for each of the {len(x)} points: sum over the dimensions of a point alone"
        )
    return log_prob


def _set_mode(flow: Density, training: bool) -> None:
    if hasattr(flow, "train"):
        flow.train(training)


def _decay(schedule: str | None, done: float) -> float:
    """The factor on the learning rate when the share `done` of the steps is done."""
    return 1.0 if schedule is None else 0.5 * (1 + math.cos(math.pi * done))


def _what_to_try(what: str, step: int, lr: float, clip: float | None, x: Tensor, log_prob: Tensor) -> str:
    """The message of a fit that left the finite numbers."""
    broken = ~log_prob.detach().isfinite()
    where = f" log_prob is {log_prob[broken][0]:g} at x = {x[broken][0].tolist()}." if broken.any() else ""
    clipping = "clip=1.0" if clip is None else f"a clip below {clip:g}"
    return (
        f"the {what} is not finite at step {step}.{where} The flow keeps the last parameters that gave a"
        f" finite loss. Try a smaller lr (it is {lr:g}), {clipping}, or a flow whose log-scales are bounded"
    )
