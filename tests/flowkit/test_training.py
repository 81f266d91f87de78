"""fit: it learns, repeats itself to the bit, keeps the best, says what is wrong, and shows one line."""

import io
import math
from itertools import pairwise
from textwrap import dedent

import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from torch import nn

from flowkit import Bijection, Flow, StandardNormal
from flowkit.lab.targets import digits, gaussian
from flowkit.lab.training import bits_per_dim, fit, mean_log_prob

TARGET = gaussian((1.0, -2.0), ((2.0, 0.0), (0.0, 0.25)))


class Shift(Bijection):
    """z = exp(s) x + t for each dimension: all that a diagonal Gaussian needs."""

    def __init__(self, dim=2):
        super().__init__()
        self.s = nn.Parameter(torch.zeros(dim))
        self.t = nn.Parameter(torch.zeros(dim))

    def forward(self, x, context=None):
        return self.s.exp() * x + self.t, self.s.sum().expand(x.shape[:-1])


class Scripted(nn.Module):
    """In training each update adds lr to theta; in eval mode log_prob is what the script says of theta."""

    def __init__(self, script):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))
        self.script = script

    def log_prob(self, x):
        value = self.theta if self.training else self.script(self.theta)
        return value.expand(len(x))


def small_flow():
    return Flow(StandardNormal(2), Shift())


def quiet(flow, data, steps, **options):
    return fit(flow, data, steps, progress=False, **options)


def test_fit_recovers_a_gaussian_from_a_target():
    flow = small_flow()
    history = quiet(flow, TARGET, 400, lr=0.2, batch=512)
    deviation = torch.tensor([2.0, 0.25]).sqrt()
    torch.testing.assert_close(flow.bijection.s.detach(), -deviation.log(), rtol=0, atol=0.02)
    torch.testing.assert_close(
        flow.bijection.t.detach(), torch.tensor([-1.0, 2.0]) / deviation, rtol=0, atol=0.05
    )
    assert history.train[-1] == pytest.approx(TARGET.entropy, abs=0.03)
    assert -mean_log_prob(flow, TARGET.sample(20_000, seed=1)) == pytest.approx(TARGET.entropy, abs=0.03)


def test_fit_on_points_reaches_their_own_optimum():
    """The best diagonal Gaussian of given points has their mean and their deviation."""
    x = TARGET.sample(300, seed=5)
    flow = small_flow()
    quiet(flow, x.double().numpy(), 300, lr=0.2, batch=300)
    torch.testing.assert_close(flow.bijection.s.detach(), -x.std(0, correction=0).log(), rtol=0, atol=1e-3)


def test_history_is_the_learning_curve():
    history = quiet(small_flow(), TARGET, 25, every=10, held_out=TARGET.sample(100, seed=1))
    assert history.steps.tolist() == [10, 20, 25]
    assert all(len(column) == 3 for column in (history.train, history.held_out, history.seconds))
    assert np.isfinite(history.held_out).all()
    assert (np.diff(history.seconds) > 0).all()
    assert np.isnan(quiet(small_flow(), TARGET, 5).held_out).all()


@pytest.mark.parametrize("data", [TARGET, TARGET.sample(70, seed=0)], ids=["target", "points"])
def test_one_seed_gives_the_same_parameters_to_the_bit(data):
    """Also when the flow itself draws random numbers, and whatever the global state was."""

    class Noisy(Flow):
        def log_prob(self, x):
            return super().log_prob(x + 0.1 * torch.randn_like(x))

    results = []
    for state, seed in ((1, 0), (2, 0), (1, 3)):
        flow = Noisy(StandardNormal(2), Shift())
        torch.manual_seed(state)
        before = torch.get_rng_state()
        quiet(flow, data, 30, lr=0.05, batch=32, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(torch.cat([flow.bijection.s, flow.bijection.t]).detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_epochs_walk_through_all_points():
    seen = []

    class Watching(Flow):
        def log_prob(self, x):
            seen.append(x)
            return super().log_prob(x)

    x = torch.arange(20.0).reshape(10, 2)
    quiet(Watching(StandardNormal(2), Shift()), x, 4, batch=5, lr=1e-6)
    for epoch in (torch.cat(seen[:2]), torch.cat(seen[2:])):
        assert sorted(epoch[:, 0].tolist()) == x[:, 0].tolist()
        assert not torch.equal(epoch, x)
    assert not torch.equal(seen[0], seen[2])


def test_the_best_parameters_come_back():
    """Held-out log_prob peaks where theta is 1: after ten updates of 0.1 each."""
    flow = Scripted(lambda theta: -((theta - 1) ** 2))
    history = quiet(flow, torch.zeros(8, 1), 40, lr=0.1, every=2, held_out=torch.zeros(4, 1), schedule=None)
    assert flow.theta.item() == pytest.approx(1, abs=1e-4)
    assert history.best_step == 10
    assert history.steps[-1] == 40
    assert history.held_out.argmin() == 4
    assert not flow.training


def test_patience_stops_early():
    flow = Scripted(lambda theta: -((theta - 1) ** 2))
    history = quiet(
        flow, torch.zeros(8, 1), 400, lr=0.1, every=2, held_out=torch.zeros(4, 1), schedule=None, patience=3
    )
    assert history.steps[-1] == 16
    assert flow.theta.item() == pytest.approx(1, abs=1e-4)


def test_buffers_are_restored_with_the_parameters():
    """Batch statistics belong to the parameters that they were gathered with."""

    class Counting(Scripted):
        def __init__(self, script):
            super().__init__(script)
            self.register_buffer("updates", torch.zeros(()))

        def log_prob(self, x):
            self.updates += self.training
            return super().log_prob(x)

    flow = Counting(lambda theta: -((theta - 1) ** 2))
    quiet(flow, torch.zeros(8, 1), 30, lr=0.1, every=5, held_out=torch.zeros(4, 1), schedule=None)
    assert flow.updates.item() == 10


def test_schedule():
    """Under a constant gradient Adam moves by the learning rate: the path is the sum of the schedule."""
    constant, cosine = Scripted(None), Scripted(None)
    quiet(constant, torch.zeros(2, 1), 20, lr=0.1, schedule=None)
    quiet(cosine, torch.zeros(2, 1), 20, lr=0.1, schedule="cosine")
    expected = sum(0.05 * (1 + math.cos(math.pi * k / 20)) for k in range(20))
    assert constant.theta.item() == pytest.approx(2.0, abs=1e-4)
    assert cosine.theta.item() == pytest.approx(expected, abs=1e-4)


def test_clip_shortens_long_gradients_alone():
    class Steep(Scripted):
        def log_prob(self, x):
            return 1000 * super().log_prob(x)

    norms = []
    for clip in (0.5, 2000.0, None):
        flow = Steep(None)
        quiet(flow, torch.zeros(2, 1), 1, clip=clip)
        norms.append(flow.theta.grad.norm().item())
    assert norms == pytest.approx([0.5, 1000.0, 1000.0], rel=1e-4)


def test_a_loss_that_is_not_finite_is_an_error_that_keeps_the_last_good_parameters():
    class Cliff(Scripted):
        """Falls off at the fifth step: log_prob is finite while theta < 0.35."""

        def log_prob(self, x):
            value = self.theta if self.theta < 0.35 else self.theta * math.nan
            return value.expand(len(x))

    flow = Cliff(None)
    with pytest.raises(
        FloatingPointError, match=r"loss is not finite at step 5\b.*nan at x = \[0.0\].*smaller lr"
    ):
        quiet(flow, torch.zeros(4, 1), 20, lr=0.1, schedule=None)
    assert flow.theta.item() == pytest.approx(0.3, abs=1e-4)


def test_a_gradient_that_is_not_finite_is_an_error_before_the_step():
    """`where` hides a NaN in the value and not in its gradient."""

    class Trap(Scripted):
        def log_prob(self, x):
            value = torch.where(self.theta < 1, self.theta, (self.theta - 1).sqrt())
            return value.expand(len(x))

    flow = Trap(None)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1"):
        quiet(flow, torch.zeros(4, 1), 20, clip=1.0)
    assert flow.theta.item() == 0


def returning(reduce):
    class Returning(Flow):
        def log_prob(self, x):
            return reduce(super().log_prob(x), x)

    return Returning(StandardNormal(2), Shift())


@pytest.mark.parametrize(
    ("flow", "data", "options", "message"),
    [
        (small_flow(), torch.zeros(5), {}, r"data has shape \(5,\).*data\[:, None\]"),
        (small_flow(), torch.zeros(0, 2), {}, r"data has shape \(0, 2\)"),
        (
            small_flow(),
            torch.tensor([[0.0, math.nan], [1.0, 1.0]]),
            {},
            "1 of the 2 points of data are not finite",
        ),
        (small_flow(), TARGET, {"held_out": torch.zeros(3)}, r"held_out has shape \(3,\)"),
        (small_flow(), TARGET, {"patience": 2}, "patience needs held_out"),
        (small_flow(), TARGET, {"schedule": "linear"}, "schedule is"),
        (small_flow(), TARGET, {"batch": 0}, "at least 1"),
        (StandardNormal(2), TARGET, {}, "no parameters"),
        (
            returning(lambda log_p, x: log_p.mean()),
            TARGET,
            {},
            r"returned shape \(\) for points of shape \(256, 2\)",
        ),
        (returning(lambda log_p, x: log_p[:, None]), TARGET, {}, r"returned shape \(256, 1\)"),
        (returning(lambda log_p, x: log_p.detach()), TARGET, {}, "does not depend on the parameters"),
    ],
)
def test_wrong_arguments_and_shapes_are_told(flow, data, options, message):
    with pytest.raises(ValueError, match=message):
        quiet(flow, data, 3, **options)


def test_a_flow_is_anything_with_log_prob_and_parameters():
    class Plain:
        def __init__(self):
            self.mean = torch.zeros(2, dtype=torch.float64, requires_grad=True)

        def parameters(self):
            return [self.mean]

        def log_prob(self, x):
            return -0.5 * (x - self.mean).square().sum(-1) - math.log(2 * math.pi)

    flow = Plain()
    quiet(flow, TARGET, 300, lr=0.05, held_out=TARGET.sample(2000, seed=1))
    assert flow.mean.tolist() == pytest.approx([1.0, -2.0], abs=0.15)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_that_rewrites_itself(monkeypatch, capsys):
    class Slow(Flow):
        def log_prob(self, x):
            clock[0] += 0.1
            return super().log_prob(x)

    clock, screen = [0.0], Terminal()
    monkeypatch.setattr("flowkit.lab.training.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("sys.stdout", screen)
    fit(Slow(StandardNormal(2), Shift()), TARGET, 40, every=10, held_out=TARGET.sample(50, seed=1))
    frames = screen.getvalue().split("\r")[1:]
    assert len(frames) > 5
    assert all("\n" not in frame for frame in frames[:-1])
    assert frames[-1].endswith("\n")
    assert "s left" in frames[-2]
    assert "held out" in frames[-2]
    assert frames[-1].startswith("40 steps in ")
    assert all(len(after) >= len(before.rstrip()) for before, after in pairwise(frames))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_progress_in_a_notebook_is_one_output_of_plain_text():
    code = """
        import torch
        from flowkit.lab.targets import gaussian
        from flowkit.lab.training import fit
        class Model(torch.nn.Linear):
            def log_prob(self, x):
                return -(x - self.bias).square().sum(-1)
        fit(Model(1, 2), gaussian(), 1500);
    """
    notebook = new_notebook(cells=[new_code_cell(dedent(code))])
    NotebookClient(notebook).execute()
    [output] = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"].startswith("1500 steps in ")


def test_progress_without_a_screen_is_one_sentence(capsys):
    fit(small_flow(), TARGET, 5)
    shown = capsys.readouterr()
    assert shown.out.startswith("5 steps in ")
    assert shown.out.count("\n") == 1
    assert "\r" not in shown.out
    assert shown.err == ""
    quiet(small_flow(), TARGET, 5)
    assert capsys.readouterr().out == ""


def test_mean_log_prob_is_the_mean_in_eval_mode():
    x = TARGET.sample(1000, seed=0)
    flow = small_flow()
    assert mean_log_prob(flow, x, batch=300) == pytest.approx(flow.log_prob(x).mean().item(), rel=1e-5)
    scripted = Scripted(lambda theta: theta + 7)
    assert mean_log_prob(scripted, x) == 7
    assert scripted.training


def test_bits_per_dim_of_uniform_pixels():
    """17 equal levels cost log2(17) bits a pixel, and a Gaussian the known figure of its covariance."""
    assert bits_per_dim(-64 * math.log(17), 64) == pytest.approx(math.log2(17))
    assert bits_per_dim(torch.tensor([-2 * math.log(2), 0.0]), 2).tolist() == pytest.approx([1.0, 0.0])


def test_bits_per_dim_of_a_gaussian_on_digits():
    """About 3 bits: the figure of a full-covariance Gaussian on the held-out digits."""
    data = digits()
    model = gaussian(data.train.double().mean(0), data.train.double().T.cov() + 1e-6 * torch.eye(64))
    assert bits_per_dim(model.log_prob(data.test.double()).mean().item(), 64) == pytest.approx(2.99, abs=0.05)
