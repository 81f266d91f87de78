"""The blind spot and its cure, the triangle of the row LSTM, and digits."""

import pytest
import torch

from flowkit.causal import CausalModel, reads
from flowkit.lab.targets import digits
from flowkit.lab.training import bits_per_dim, fit, mean_log_prob
from flowkit.likelihoods import categorical
from flowkit.raster import GatedLayer, PixelCNN, PixelRNN, PlainPixelCNN, RowLSTM, blind_spot

SHAPE = (5, 6)
BEFORE = torch.ones(30, 30).tril(-1).bool()


def made(kind, **options):
    torch.manual_seed(0)
    return kind(2, channels=16, **options).double()


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_plain_stack_is_blind_to_the_upper_right_however_deep(kernel):
    read = reads(made(PlainPixelCNN, kernel=kernel, layers=8), SHAPE)
    assert torch.equal(read, BEFORE & ~blind_spot(SHAPE, kernel))
    assert blind_spot(SHAPE, kernel).any()


def test_the_blind_spot_one_pixel_at_a_time():
    spot = blind_spot((3, 5))[10 + 1].reshape(3, 5)  # row 2, column 1
    assert spot.int().tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize(("kernel", "layers"), [(3, 5), (5, 3)])
def test_the_gated_stacks_read_all_that_comes_before(kernel, layers):
    assert torch.equal(reads(made(PixelCNN, kernel=kernel, layers=layers), SHAPE), BEFORE)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_gated_stack_reads_a_rectangle_that_grows_with_its_layers(layers):
    read = reads(made(PixelCNN, layers=layers), (7, 7))[24].reshape(7, 7)  # row 3, column 3
    want = torch.zeros(7, 7).bool()
    want[3 - layers : 3, 3 - layers : 4 + layers] = True
    want[3, 3 - layers : 3] = True
    assert torch.equal(read, want)


def test_the_gated_layer_is_its_formula_at_one_pixel():
    torch.manual_seed(0)
    layer = GatedLayer(2, 2, 3, first=False).double()
    v, h = torch.randn(2, 1, 2, 4, 4).double()
    got_v, got_h = layer(v, h)
    from_v = torch.einsum("oiab,iab->o", layer.vertical.weight, v[0, :, 1:3, 0:3]) + layer.vertical.bias
    from_h = torch.einsum("oiab,iab->o", layer.horizontal.weight, h[0, :, 2:3, 0:2]) + layer.horizontal.bias
    both = from_h + layer.link.weight[:, :, 0, 0] @ from_v + layer.link.bias
    want = layer.out.weight[:, :, 0, 0] @ (both[:2].tanh() * both[2:].sigmoid()) + layer.out.bias
    torch.testing.assert_close(got_v[0, :, 2, 1], from_v[:2].tanh() * from_v[2:].sigmoid())
    torch.testing.assert_close(got_h[0, :, 2, 1], h[0, :, 2, 1] + want)


def triangle(height, width, kernel, layers):
    """What a PixelRNN reads, by following the formula of the row LSTM with sets."""
    past = kernel // 2
    here = [(r, c) for r in range(height) for c in range(width)]
    inside = set(here)
    seen = {
        (r, c): {
            (a, b)
            for a in range(r - past, r + 1)
            for b in range(c - past, c + past + 1)
            if (a, b) < (r, c) and (a, b) in inside
        }
        for r, c in here
    }
    for _ in range(layers):
        state = {}
        for r, c in here:
            inputs = [seen[r, b] for b in range(c - past, c + 1) if (r, b) in inside]
            above = [state[r - 1, b] for b in range(c - past, c + past + 1) if (r - 1, b) in inside]
            state[r, c] = set().union(*inputs, *above)
        seen = {place: seen[place] | state[place] for place in here}
    return torch.tensor([[j in seen[i] for j in here] for i in here])


@pytest.mark.parametrize(("kernel", "layers"), [(3, 1), (3, 3), (5, 1)])
def test_the_row_lstm_reads_a_triangle(kernel, layers):
    read = reads(made(PixelRNN, kernel=kernel, layers=layers), SHAPE)
    assert torch.equal(read, triangle(*SHAPE, kernel, layers))
    assert not (read & blind_spot(SHAPE, kernel)).any()
    above = read.reshape(5, 6, 5, 6).diagonal(dim1=1, dim2=3)  # (row, row, column): the pixels right above
    assert (above == torch.ones(5, 5).tril(-1).bool()[..., None]).all()  # however far, in one layer


def test_the_row_lstm_of_one_column_is_torchs_lstm():
    torch.manual_seed(0)
    ours, theirs = RowLSTM(4, 3).double(), torch.nn.LSTM(4, 4).double()
    turn = torch.cat([torch.arange(4 * g, 4 * g + 4) for g in (1, 2, 3, 0)])  # o, f, i, g to i, f, g, o
    turn = turn[[4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]]
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input_to_state.weight[turn, :, 0, -1])
        theirs.weight_hh_l0.copy_(ours.state_to_state.weight[turn, :, 1])
        theirs.bias_ih_l0.copy_(ours.input_to_state.bias[turn])
        theirs.bias_hh_l0.zero_()
    x = torch.randn(3, 4, 6, 1).double()
    want = theirs(x[..., 0].permute(2, 0, 1))[0].permute(1, 2, 0)[..., None]
    torch.testing.assert_close(ours(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [PlainPixelCNN, PixelCNN, PixelRNN])
def test_even_kernels_are_refused(kind):
    with pytest.raises(ValueError, match=r"3, 5, 7, \.\.\., got 4"):
        kind(2, kernel=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PlainPixelCNN, PixelCNN, PixelRNN])
def test_digits_are_learned_beyond_the_histograms_of_their_pixels(kind):
    """A histogram for each pixel costs 2.4 bits per dimension: what is less was learned from neighbours."""
    data = digits()
    torch.manual_seed(0)
    model = CausalModel(kind(17, channels=24, layers=3), (8, 8), categorical(17))
    fit(model, data.train.floor(), 200, batch=100, lr=5e-3, progress=False)
    held_out = bits_per_dim(mean_log_prob(model, data.valid.floor()), 64)
    assert held_out < 2.3
    assert model.sample((2,)).shape == (2, 64)
