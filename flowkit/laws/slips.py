"""The usual slips of a bijection, told from what came back: the words of `flowkit.laws`."""

import torch
from torch import Tensor

WHERE = (
    ". Does an unused branch of torch.where overflow (clamp its input first), or log(1 + exp(x)) (softplus), "
    "or sqrt at zero?"
)


def show(values: Tensor) -> str:
    """The first numbers of a tensor, short."""
    numbers = [f"{v:.4g}" for v in values.detach().flatten()[:6].tolist()]
    return f"[{', '.join(numbers)}{', ...' if values.numel() > 6 else ''}]"


def describe(returned: object) -> str:
    """What came back, by type and shape."""
    if torch.is_tensor(returned):
        return f"a tensor {tuple(returned.shape)} came back"
    if isinstance(returned, tuple | list):
        return f"a {type(returned).__name__} of {len(returned)} came back"
    return f"{type(returned).__name__} came back"


def of_shape(got: tuple[int, ...], batch: tuple[int, ...], event: tuple[int, ...]) -> str:
    """Why log_det has shape `got` and not `batch`."""
    if got == (*batch, *event):
        return ": it is per element; sum it over dimensions with sum(-1)"
    if got == (*batch, 1):
        return ": keepdim=True is one dimension too many"
    if got == ():
        return (
            ": it is one number for the whole batch; was it summed over the batch too, or is it that of a "
            "constant Jacobian, to be expanded to x.shape[:-1]?"
        )
    if got == event:
        return ": it was summed over the batch in place of the dimensions; sum over the last axis, sum(-1)"
    return ": one number for each point is asked for"


def of_infinite(value: Tensor) -> str:
    """Why a log-det is not finite where the points are."""
    if value.isnan():
        return ": was abs forgotten before log, or logdet used for slogdet? A determinant may be negative"
    return ": a log of 0; compute it from x in a form that does not round to 0"


def of_log_det(got: Tensor, truth: Tensor, jacobian: Tensor, way: str, judged: Tensor) -> str:
    """The likely reason that log-dets (N,) are `got` and not `truth`, the first that explains every point."""
    got, truth, jacobian = got.double(), truth.double(), jacobian.double()
    if float((got - truth)[judged].abs().max()) < 1e-4:
        return ". It is off by little: is there an epsilon inside a log, or a step in float32?"
    sign = 1 if way == "forward" else -1
    other = "inverse" if way == "forward" else "forward"
    diagonal = jacobian.diagonal(dim1=-2, dim2=-1)
    diagonal = diagonal if way == "forward" else 1 / diagonal
    logs = diagonal.abs().log()
    dim = diagonal.shape[-1]
    moved = torch.where(diagonal == 1, 0, diagonal).sum(-1)
    ratio = float((got * truth).sum() / truth.square().sum())
    shift = float((got - truth).median())
    candidates = [
        (-truth, f". It has the opposite sign: it belongs to the {other} map"),
        (truth.sum().expand_as(truth), ". It is the sum over the whole batch; sum over dimensions alone"),
        (truth.mean().expand_as(truth), ". It is the mean over the batch; each point has its own"),
        (truth / dim, ". It is the mean over dimensions; log-dets are summed"),
        (truth.exp(), ". It is the determinant: log was forgotten here, or exp in the map"),
        (
            -(-truth).exp(),
            ". It is minus the determinant of the other way: log was forgotten here, or exp in the map",
        ),
        (moved, ". It is the sum of derivatives: log was forgotten here, or exp in the map"),
        (sign * moved, ". It is a sum of derivatives: log was forgotten here, or exp in the map"),
        (torch.zeros_like(truth), ". It is 0: were the dimensions that the map moves left out?"),
        (logs[:, 0], ". It is the log-derivative of the first dimension alone: sum over all"),
        (logs.amax(-1), ". It is that of one dimension alone: sum over all"),
        (
            truth / 2,
            ". It is half of it: is a part of the map applied twice, or a square forgotten?",
        ),
        (2 * truth, ". It is twice as much: counted twice, or a square too many?"),
        (
            ratio * truth,
            f". It is {ratio:.4g} times the right one: is a factor missing (pixels, h w) or one too many?",
        ),
        (truth + shift, f". It is off by {shift:.4g} at every point: is a constant term missing?"),
    ]
    for candidate, sentence in candidates:
        if torch.allclose(got[judged], candidate[judged], rtol=1e-3, atol=1e-5):
            return sentence
    return ""


def of_round_trip(start: Tensor, out: Tensor, back: Tensor) -> str:
    """The likely reason that `start` went to `out` and came back as `back`."""
    a, b = start.flatten(1), back.flatten(1)

    def same(p: Tensor, q: Tensor) -> bool:
        return torch.allclose(p, q, rtol=1e-3, atol=1e-5)

    if same(b, out.flatten(1)):
        return ". The way back returns its input as it is"
    if not same(a, b) and same(a.sort(-1)[0], b.sort(-1)[0]):
        return (
            ". The numbers are right, their places wrong: put the halves or the order back as they were taken"
        )
    wrong = ~torch.isclose(a, b, rtol=1e-3, atol=1e-5).all(0)
    if wrong.any() and not wrong.all():
        return f". Only dimensions {wrong.nonzero().flatten().tolist()} are wrong"
    if bool(wrong.any()) is False:
        return ". It is off by little: is the solver's tolerance too loose, or a step in float32?"
    return ""
