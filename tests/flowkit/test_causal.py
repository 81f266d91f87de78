"""Causality by the zero pattern of the autograd Jacobian, models that sum to one, and sampling."""

import itertools

import pytest
import torch

from flowkit.causal import (
    CausalConv1d,
    CausalModel,
    CausalNet,
    MaskedConv2d,
    conv_mask,
    gate,
    reads,
    receptive_field,
)
from flowkit.likelihoods import categorical, logistic_mixture, normal
from flowkit.raster import PixelCNN, PixelRNN, PlainPixelCNN
from flowkit.wavenet import WaveNet

NETS = {
    "plain": lambda size: PlainPixelCNN(size, channels=4, layers=3),
    "gated": lambda size: PixelCNN(size, channels=4, layers=4),
    "row lstm": lambda size: PixelRNN(size, channels=4, layers=1),
    "wavenet": lambda size: WaveNet(size, channels=4, skip=6, dilations=(1, 2, 4)),
}


def made(name, size=3, seed=0):
    torch.manual_seed(seed)
    return NETS[name](size).double()


def places(name, height, width):
    return (height * width,) if name == "wavenet" else (height, width)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 5)])
def test_outputs_read_only_what_comes_before(name, shape):
    read = reads(made(name), places(name, *shape))
    assert torch.equal(read, read.tril(-1))
    below = torch.ones_like(read).tril(-1)
    assert read.sum() >= 0.4 * below.sum()  # and a good part of it, so that silence does not pass


def test_reads_sees_a_net_that_peeks():
    class Peeking(CausalNet):
        def __init__(self):
            super().__init__()
            self.size = 1
            self.conv = torch.nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(x)

    band = torch.ones(6, 6).triu(-1).tril(1).bool()
    assert torch.equal(reads(Peeking(), (6,)), band)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_masks_by_raster_order(kernel):
    centre = kernel // 2
    for r, c in itertools.product(range(kernel), repeat=2):
        before = (r, c) < (centre, centre)
        assert conv_mask(kernel, "A")[0, 0, r, c] == before
        assert conv_mask(kernel, "B")[0, 0, r, c] == (before or (r, c) == (centre, centre))


def test_colours_are_ordered_at_the_centre():
    a = conv_mask(3, "A", 3, 6, colours=3)[:, :, 1, 1]
    assert a.int().tolist() == [[0, 0, 0]] * 2 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2
    b = conv_mask(3, "B", 3, 3, colours=3)[:, :, 1, 1]
    assert b.int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_stack_in_colour_reads_earlier_colours_of_its_own_pixel():
    torch.manual_seed(0)
    first, then = MaskedConv2d(3, 6, 3, "A", 3).double(), MaskedConv2d(6, 3, 3, "B", 3).double()
    x = torch.randn(1, 3, 3, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: then(first(x).tanh()), x)[0, :, :, :, 0]
    order = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(27, 27)  # (row, column, colour) on both sides
    assert torch.equal(order, order.tril(-1))
    assert (order.diagonal(-1)[[0, 1, 3, 4]] != 0).all()  # red to green, green to blue


def test_masked_weights_get_no_gradient():
    conv = MaskedConv2d(2, 3, 3, "A")
    conv(torch.randn(4, 2, 5, 5)).square().sum().backward()
    assert (conv.weight.grad[~conv.mask] == 0).all()
    assert (conv.weight.grad[conv.mask] != 0).all()


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 2), (2, 8)])
def test_causal_convolution_is_its_formula_and_its_stepper(kernel, dilation, kind):
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, kernel, dilation, kind).double()
    x = torch.randn(4, 2, 12).double()
    shift = kind == "A"
    want = conv.bias[:, None].expand(4, 3, 12).clone()
    for t, j in itertools.product(range(12), range(kernel)):
        if (s := t - j * dilation - shift) >= 0:
            want[:, :, t] += x[:, :, s] @ conv.weight[..., kernel - 1 - j].T
    torch.testing.assert_close(conv(x), want, rtol=1e-12, atol=1e-12)
    step = conv.stepper()
    stepped = torch.stack([step(x[..., t]) for t in range(12)], -1)
    torch.testing.assert_close(stepped[..., : 12 - shift], want[..., shift:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernels", "dilations"), [([2, 2, 2], [1, 2, 4]), ([3, 3], [1, 1]), ([3, 2, 5], [4, 1, 2]), ([1], [7])]
)
def test_the_receptive_field_is_what_the_gradient_reaches(kernels, dilations):
    torch.manual_seed(0)
    stack = torch.nn.Sequential(
        *(CausalConv1d(1, 1, k, d).double() for k, d in zip(kernels, dilations, strict=True))
    )
    x = torch.zeros(1, 1, 40).double().requires_grad_()
    stack(x)[..., -1].sum().backward()
    reached = x.grad.flatten().nonzero()
    assert 40 - reached.min() == receptive_field(kernels, dilations)
    assert reached.max() == 39


def test_gate():
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(gate(x), x[:, :2].tanh() * x[:, 2:].sigmoid())


@pytest.mark.parametrize("name", NETS)
def test_a_model_sums_to_one_over_all_images(name):
    likelihood = categorical(2)
    model = CausalModel(made(name, likelihood.size), places(name, 2, 3), likelihood)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    assert model.log_prob(images).logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    assert model.log_prob(images).std() > 0.01


@pytest.mark.parametrize("name", NETS)
def test_samples_have_the_probabilities_of_the_model(name):
    model = CausalModel(made(name, 2), places(name, 2, 2), categorical(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3 if parameter.ndim > 1 else 1  # far from uniform
    torch.manual_seed(1)
    x = model.sample((20_000,))
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    frequency = (x[:, None] == images).all(-1).double().mean(0)
    probability = model.log_prob(images).exp()
    assert probability.max() > 1.5 * probability.min()
    assert ((frequency - probability).abs() < 5 * (probability / 20_000).sqrt()).all()


@pytest.mark.parametrize("name", NETS)
def test_sampling_place_by_place_sees_the_parameters_of_one_pass(name):
    likelihood = logistic_mixture(17, 2)
    model = CausalModel(made(name, likelihood.size), places(name, 4, 3), likelihood)
    torch.manual_seed(2)
    seen = []

    def choose(i, params):
        seen.append(params)
        return torch.randn(5).double()

    x = model.net.one_by_one(choose, 5, model.shape)
    assert x.shape == (5, 12)
    whole = model.net(x.reshape(5, 1, *model.shape)).flatten(2).mT
    torch.testing.assert_close(torch.stack(seen, 1), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_a_start_is_kept_and_the_rest_is_drawn_given_it(name):
    model = CausalModel(made(name, 17), places(name, 3, 3), categorical(17))
    start = torch.tensor([3.0, 16.0, 0.0, 5.0])
    torch.manual_seed(0)
    x = model.sample((40,), start)
    assert (x[:, :4] == start).all()
    assert x[:, 4:].std(0).min() > 1
    assert model.sample((2, 3)).shape == (2, 3, 9)
    assert model.sample().shape == (9,)
    assert torch.equal(x, x.round())
    assert model.log_prob(x.long()).dtype == torch.float64


def test_shapes_of_points():
    model = CausalModel(made("gated", 3), (2, 2), categorical(3))
    x = torch.tensor([[0.0, 1.0, 2.0, 0.0], [2.0, 2.0, 1.0, 0.0]])
    want = model.log_prob(x)
    assert model.log_prob(x[0]).shape == ()
    torch.testing.assert_close(model.log_prob(x[None, :, None]), want[None, :, None])
    assert model.log_prob(x[:0]).shape == (0,)


def test_what_is_refused():
    with pytest.raises(ValueError, match="odd width, got 4"):
        conv_mask(4, "A")
    with pytest.raises(ValueError, match='kind is "A"'):
        conv_mask(3, "C")
    with pytest.raises(ValueError, match='kind is "A"'):
        CausalConv1d(1, 1, 2, kind="C")
    with pytest.raises(ValueError, match="do not split into 3 colours"):
        MaskedConv2d(3, 4, 3, "A", 3)
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        CausalConv1d(1, 1, 0)
    with pytest.raises(ValueError, match="gives 3 parameters for each number and the likelihood takes 4"):
        CausalModel(made("plain", 3), (2, 2), categorical(4))
    with pytest.raises(ValueError, match="this one is of real numbers"):
        CausalModel(made("plain", 2), (2, 2), normal())
    model = CausalModel(made("plain", 3), (2, 2), categorical(3))
    with pytest.raises(ValueError, match=r"points of shape \(\.\.\., 4\), got \(5, 2, 2\)"):
        model.log_prob(torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match=r"x\.floor\(\)"):
        model.log_prob(torch.full((1, 4), 0.5))
