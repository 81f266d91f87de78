"""What only elementwise flows do: their formulas, float32 at extremes, ActNorm's first batch."""

import math

import pytest
import torch
from scipy import special

from flowkit import Inverse
from flowkit.elementwise import Affine, LeakyReLU, Logit, Scale, Sigmoid, Softplus, Tanh
from flowkit.normalization import ActNorm

ACTIVATIONS = {"leaky_relu": LeakyReLU(0.01), "softplus": Softplus(), "sigmoid": Sigmoid(), "tanh": Tanh()}
X = torch.linspace(-30, 30, 1201, dtype=torch.float64)[:, None]
LOG_EXPIT = torch.from_numpy(special.log_expit(X.numpy()))  # log sigmoid


@pytest.mark.parametrize(
    ("f", "log_slope"),
    [
        (Softplus(), LOG_EXPIT),
        (Sigmoid(), LOG_EXPIT + LOG_EXPIT.flip(0)),
        (Tanh(), math.log(4) - 2 * torch.logaddexp(X, -X)),  # log sech^2
    ],
    ids=["softplus", "sigmoid", "tanh"],
)
def test_log_slopes_against_independent_formulas(f, log_slope):
    torch.testing.assert_close(f.forward(X)[1], log_slope[:, 0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_float32_is_finite_at_extremes_in_both_directions(name, sign):
    f = ACTIVATIONS[name]
    x = sign * torch.tensor([[0.0], [1e-30], [1e-4], [10.0], [50.0], [200.0], [1e4]])
    x.requires_grad_()
    z, log_det = f.forward(x)
    back, log_det_back = f.inverse(z)
    assert all(value.isfinite().all() for value in (z, log_det, back, log_det_back))
    assert f.codomain.check(z).all()
    (gradient,) = torch.autograd.grad((z.sum() + log_det.sum() + back.sum() + log_det_back.sum()), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("softplus", -80, 1e4), ("sigmoid", -80, 5), ("tanh", -3, 3), ("leaky_relu", -1e4, 1e4)],
)
def test_float32_round_trip_where_the_image_can_be_told_apart(name, low, high):
    x = torch.linspace(low, high, 1001)[:, None]
    z, log_det = ACTIVATIONS[name].forward(x)
    back, log_det_back = ACTIVATIONS[name].inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-4, atol=1e-4)


def test_softplus_does_not_turn_linear():
    x = torch.tensor([[21.0]], dtype=torch.float64)
    torch.testing.assert_close(Softplus().inverse(Softplus().forward(x)[0])[0], x, rtol=0, atol=1e-14)


def test_logit_is_sigmoid_walked_backwards():
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = Logit().forward(x)
    torch.testing.assert_close(z, torch.logit(x))
    torch.testing.assert_close(log_det, Inverse(Sigmoid()).forward(x)[1], rtol=0, atol=0)


@pytest.mark.parametrize("slope", [0.0, -0.1, math.inf, math.nan])
def test_leaky_relu_refuses_a_slope_without_inverse(slope):
    with pytest.raises(ValueError, match="no inverse"):
        LeakyReLU(slope)


@pytest.mark.parametrize("f", [Affine(3), Scale(3), ActNorm(3)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("shape", [(5, 2), (4,), (5, 1), ()])
def test_wrong_width_is_named(f, shape):
    for way in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=rf"{type(f).__name__} takes points of shape \(\.\.\., 3\)"):
            way(torch.zeros(shape))


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
