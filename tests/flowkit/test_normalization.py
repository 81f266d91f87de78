"""ActNorm's first batch; batch normalization in its two modes, against torch's own."""

import pytest
import torch

from flowkit import check_bijection
from flowkit.laws import laws
from flowkit.normalization import ActNorm, BatchNorm


def first_batch():
    return 5 * torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2


def test_act_norm_whitens_its_first_batch_and_only_that():
    f, x = ActNorm(4).double(), first_batch()
    z, log_det = f.forward(x.reshape(4, 25, 4))
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.reshape(-1, 4).std(0), torch.ones(4, dtype=torch.float64))
    assert log_det.shape == (4, 25)
    torch.testing.assert_close(log_det[0, 0], -x.std(0).log().sum())
    torch.testing.assert_close(f.forward(x + 7)[0], z.reshape(-1, 4) + 7 / x.std(0))


def test_act_norm_waits_for_training_and_remembers_when_loaded():
    f, x = ActNorm(4).double(), first_batch()
    f.eval()
    assert torch.equal(f.forward(x)[0], x)
    f.train()
    z = f.forward(x)[0]
    g = ActNorm(4).double()
    g.load_state_dict(f.state_dict())
    g.forward(10 * x)
    assert torch.equal(g.forward(x)[0], z)


def test_act_norm_refuses_a_first_batch_without_spread():
    with pytest.raises(ValueError, match="two points"):
        ActNorm(2).forward(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="constant"):
        ActNorm(2).forward(torch.tensor([[1.0, 2.0], [1.0, 3.0]]))


def test_act_norm_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms").ActNorm(4).double()
    f, x = ActNorm(4).double(), first_batch()
    for _ in range(2):  # the first batch starts both, the second does not
        torch.testing.assert_close(f.forward(x), peer.forward(x), rtol=1e-12, atol=1e-12)
        x = x + 1
    torch.testing.assert_close(f.inverse(x), peer.inverse(x), rtol=1e-12, atol=1e-12)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def beside_torch():
    """A BatchNorm of ours and one of torch's with the same parameters."""
    ours, torchs = BatchNorm(4).double(), torch.nn.BatchNorm1d(4).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(4, generator=generator))
        torchs.weight.copy_(ours.log_scale.exp())
        torchs.bias.copy_(ours.shift)
    return ours, torchs


def test_batch_norm_is_torchs_in_training_and_in_eval():
    ours, torchs = beside_torch()
    x = first_batch()
    for _ in range(3):
        z, log_det = ours.forward(x.reshape(4, 25, 4))
        close(z.reshape(-1, 4), torchs(x))
        assert log_det.shape == (4, 25)
        x = 0.5 * x + 3
    close(ours.running_mean, torchs.running_mean)
    close(ours.running_var, torchs.running_var)
    close(ours.eval().forward(x)[0], torchs.eval()(x))


def test_batch_norm_has_the_gradients_of_torchs():
    """They flow through the batch's mean and variance too."""
    gradients = []
    for f in beside_torch():
        x = first_batch().requires_grad_()
        z = f(x)[0] if isinstance(f, BatchNorm) else f(x)
        gradients.append(torch.autograd.grad(z.pow(3).sum(), x)[0])
    close(*gradients)


def test_batch_norm_agrees_with_nflows():
    peer = pytest.importorskip("nflows.transforms").BatchNorm(4).double().eval()
    ours = BatchNorm(4).double().eval()
    with torch.no_grad():
        peer.running_mean.copy_(torch.arange(4.0))
        peer.running_var.copy_(torch.arange(4.0) + 0.5)
        peer.bias.copy_(torch.ones(4))
        ours.running_mean.copy_(peer.running_mean)
        ours.running_var.copy_(peer.running_var)
        ours.shift.copy_(peer.bias)
        ours.log_scale.copy_(peer.weight.log())
    x = first_batch()
    for way in ("forward", "inverse"):
        close(getattr(ours, way)(x), getattr(peer, way)(x))


def test_batch_norm_starts_with_variance_one():
    x = first_batch()
    z, log_det = BatchNorm(4, eps=0.0).double().eval().forward(x)
    assert torch.equal(z, x)
    assert not log_det.any()


def test_the_log_det_in_training_holds_mean_and_variance_fixed():
    """It is that of (x - m) / sqrt(v + eps) with m and v as constants, not of the map as it is."""
    f = BatchNorm(4).double()
    x = first_batch()
    log_det = f.forward(x)[1]
    close(log_det, (-0.5 * (x.var(0, correction=0) + f.eps).log().sum()).expand(100))


def test_the_whole_batch_has_a_singular_jacobian_in_training():
    """For each dimension the mean is lost, and all but eps of the spread: rank N - 2."""
    f = BatchNorm(1).double()
    x = first_batch()[:6, :1]
    jacobian = torch.autograd.functional.jacobian(lambda x: f.forward(x)[0][:, 0], x)[..., 0]
    sizes = torch.linalg.svdvals(jacobian)
    assert sizes[:4].min() > 0.01
    assert sizes[4] < 1e-6
    assert sizes[5] < 1e-15


def test_the_law_checker_tells_the_modes_apart():
    check_bijection(BatchNorm(3).eval(), 3)
    with pytest.raises(AssertionError):
        check_bijection(BatchNorm(3).train(), 3)
    broken = {law for law, message in laws(BatchNorm(3).train(), 3, inverse=False) if message}
    assert "batch independence" in broken


def test_batch_norm_says_what_training_cannot_do():
    f = BatchNorm(2)
    with pytest.raises(RuntimeError, match="call eval"):
        f.inverse(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="two points"):
        f.forward(torch.zeros(1, 2))
    f.eval()
    assert f.forward(torch.zeros(1, 2))[0].shape == (1, 2)


@pytest.mark.parametrize("f", [ActNorm(3), BatchNorm(3), BatchNorm(3).eval()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("shape", [(5, 2), (4,), (5, 1), ()])
def test_wrong_width_is_named(f, shape):
    for way in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=rf"{type(f).__name__} takes points of shape \(\.\.\., 3\)"):
            way(torch.zeros(shape))
