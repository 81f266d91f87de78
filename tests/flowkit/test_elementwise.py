"""What only elementwise flows do: their formulas, and float32 at extremes."""

import math

import pytest
import torch
from scipy import special

from flowkit import Inverse
from flowkit.elementwise import Affine, LeakyReLU, Logit, Scale, Sigmoid, Softplus, Tanh

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


@pytest.mark.parametrize("f", [Affine(3), Scale(3)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("shape", [(5, 2), (4,), (5, 1), ()])
def test_wrong_width_is_named(f, shape):
    for way in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=rf"{type(f).__name__} takes points of shape \(\.\.\., 3\)"):
            way(torch.zeros(shape))
