"""WaveNet: its receptive field, its formula, cached generation against whole passes, and the mu-law."""

import time

import pytest
import torch

from flowkit.causal import CausalModel, CausalNet, reads
from flowkit.likelihoods import categorical
from flowkit.wavenet import WaveBlock, WaveNet, mu_law, mu_law_inverse


def made(**options):
    torch.manual_seed(0)
    return WaveNet(3, channels=5, skip=7, **options)


@pytest.mark.parametrize(
    ("kernel", "dilations", "field"),
    [(2, (1, 2, 4), 9), (2, (1, 1, 1), 5), (3, (1, 3), 11), (2, (1, 2, 1, 2), 8), (1, (1,), 1), (2, (), 2)],
)
def test_the_receptive_field_by_formula_and_by_gradient(kernel, dilations, field):
    net = made(kernel=kernel, dilations=dilations).double()
    assert net.receptive_field == field
    if dilations:
        read = reads(net, (16,))
        everywhere = torch.ones(16, 16).bool()
        assert torch.equal(read, everywhere.tril(-1) & everywhere.triu(-field))


def test_the_block_is_its_formula():
    torch.manual_seed(0)
    block = WaveBlock(2, 3, kernel=2, dilation=2).double()
    x = torch.randn(1, 2, 5).double()
    weight, bias = block.conv.weight, block.conv.bias
    a = bias + weight[..., 0] @ x[0, :, 2] + weight[..., 1] @ x[0, :, 4]
    z = a[:2].tanh() * a[2:].sigmoid()
    onward, skip = block(x)
    want = x[0, :, 4] + block.residual.weight[..., 0] @ z + block.residual.bias
    torch.testing.assert_close(onward[0, :, 4], want)
    torch.testing.assert_close(skip[0, :, 4], block.skip.weight[..., 0] @ z + block.skip.bias)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("options", [{}, {"kernel": 3, "dilations": (1, 3, 1)}, {"dilations": (64,)}])
def test_cached_generation_is_generation_by_passes(options, dtype, tolerance):
    net = made(**options).to(dtype)
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)).to(dtype)

    def choose(t, params):
        return (params.sum(-1) + noise[t]).tanh()

    cached = net.one_by_one(choose, 4, (40,))
    passes = CausalNet.one_by_one(net, choose, 4, (40,))
    torch.testing.assert_close(cached, passes, rtol=0, atol=tolerance)
    assert cached.std() > 0.3


def test_two_generations_do_not_share_their_past():
    net = made()
    first, second = net.stepper(), net.stepper()
    ones = [first(torch.ones(2)) for _ in range(9)]
    assert not torch.equal(ones[0], ones[-1])
    assert torch.equal(second(torch.ones(2)), ones[0])


def test_a_step_does_the_same_work_however_long_the_past():
    """Counted as floating-point operations: a pass over t numbers grows with t, a step does not."""
    from torch.utils.flop_counter import FlopCounterMode

    net = made(dilations=(1, 2, 4, 8))

    def flops(function):
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    step = net.stepper()
    work = [flops(lambda: step(torch.zeros(1))) for _ in range(50)]
    assert len(set(work)) == 1
    a, b = (flops(lambda t=t: net(torch.zeros(1, 1, t))) for t in (100, 200))
    assert b / a == pytest.approx(2, rel=0.05)
    assert a / 100 == pytest.approx(work[0], rel=0.05)


@pytest.mark.slow
def test_cached_generation_is_faster():
    model = CausalModel(made(dilations=(1, 2, 4, 8, 16)), (400,), categorical(3))

    def seconds(one_by_one):
        start = time.perf_counter()
        one_by_one(lambda t, params: params[:, 0], 1, (400,))
        return time.perf_counter() - start

    seconds(model.net.one_by_one)
    assert seconds(model.net.one_by_one) < seconds(lambda *args: CausalNet.one_by_one(model.net, *args))


def test_mu_law_goes_there_and_back():
    for levels in (2, 16, 255, 256):
        level = torch.arange(levels).double()
        assert torch.equal(mu_law(mu_law_inverse(level, levels), levels), level)
    wave = torch.linspace(-1, 1, 2001).double()
    back = mu_law_inverse(mu_law(wave))
    error = (back - wave).abs()
    assert error.max() < 0.023  # half a cell at full volume: log(256) / 255 is the width of one, in y / 2
    assert error[wave.abs() < 0.01].max() < 4e-4  # and far less where it is quiet
    assert mu_law(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_half_levels_are_the_edges_of_the_cells():
    edges = mu_law_inverse(torch.arange(15).double() + 0.5, 16)
    assert mu_law(edges - 1e-9, 16).tolist() == list(range(15))
    assert mu_law(edges + 1e-9, 16).tolist() == list(range(1, 16))
