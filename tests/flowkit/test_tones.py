"""Synthesized notes: their pitch, their split, and the floor below which no model goes."""

import math

import pytest
import torch

from flowkit.causal import CausalModel
from flowkit.lab.tones import SCALE, level_entropy, pure_tones, tones
from flowkit.lab.training import fit, mean_log_prob
from flowkit.likelihoods import categorical
from flowkit.wavenet import WaveNet, mu_law


def test_the_scale_is_equally_tempered():
    steps = [0, 2, 4, 5, 7, 9, 11, 12]
    for pitch, step in zip(SCALE, steps, strict=True):
        assert pitch == pytest.approx(440 * 2 ** ((step - 9) / 12), abs=0.006)


def test_the_spectrum_peaks_at_the_note_and_its_overtones():
    notes = torch.arange(8)
    clean = pure_tones(notes, 4000, 4000, torch.Generator().manual_seed(0))
    assert clean.abs().max() < 0.8
    spectrum = torch.fft.rfft(clean).abs()  # one bin a Hz
    for note, line in zip(notes, spectrum, strict=True):
        heights = [line[round(h * SCALE[note]) - 3 :][:7].max() for h in (1, 2, 3)]
        assert abs(line.argmax() - SCALE[note]) <= 1
        assert heights[0] > 1.2 * heights[1] > 1.2**2 * heights[2] > 20 * line.median()


def test_it_is_split_and_of_the_seed():
    a, b, other = tones(), tones(), tones(seed=1)
    assert a.train.shape == (400, 256)
    assert a.valid.shape == a.test.shape == (100, 256)
    assert a.train_notes.unique().tolist() == list(range(8))
    assert torch.equal(a.train, b.train)
    assert not torch.equal(a.train, other.train)
    assert torch.equal(a.train, a.train.round())
    assert a.train.min() >= 0
    assert 32 < a.train.max() <= 63
    assert tones(dtype=torch.float64).test.dtype == torch.float64
    assert a.wave(a.train).abs().max() <= 1


def test_levels_are_the_notes_up_to_noise():
    """The pitch can be read off the quantized, noisy wave."""
    sound = tones(length=2000, sizes=(100, 1, 1))
    spectrum = torch.fft.rfft(sound.wave(sound.train)).abs()  # two Hz a bin
    heard = torch.tensor(SCALE)[sound.train_notes]
    assert ((2 * spectrum.argmax(-1) - heard).abs() < 3).float().mean() > 0.95


@pytest.mark.parametrize(("clean", "noise"), [(0.0, 0.02), (0.4, 0.02), (-0.75, 0.1), (0.0, 0.5)])
def test_the_entropy_of_a_level_is_that_of_its_histogram(clean, noise):
    generator = torch.Generator().manual_seed(0)
    draws = mu_law(clean + noise * torch.randn(400_000, generator=generator), 64)
    frequency = torch.bincount(draws.long()) / len(draws)
    want = torch.special.entr(frequency).sum().item()
    assert level_entropy(torch.tensor([clean]), noise, 64).item() == pytest.approx(want, abs=2e-3)


def histogram_cost(sound):
    """Nats a number for who knows only how often each level comes."""
    log_count = (torch.bincount(sound.train.flatten().long(), minlength=64) + 1.0).log()
    return -(log_count - log_count.logsumexp(0))[sound.test.long()].mean().item()


def test_the_floor_is_below_what_a_histogram_costs():
    sound = tones()
    assert 1 < sound.floor < histogram_cost(sound) - 1 < math.log(64)
    assert tones(noise=0.04).floor > sound.floor + 0.2


@pytest.mark.parametrize(("options", "message"), [({"noise": 0}, "positive"), ({"rate": 3000}, "above 3140")])
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tones(**options)


@pytest.mark.slow
def test_a_wavenet_learns_the_tones():
    """It gets more than half of the way from the histogram's cost to the floor, and never below the floor."""
    sound = tones(length=128)
    torch.manual_seed(0)
    model = CausalModel(WaveNet(64, 16, 32, dilations=(1, 2, 4, 8, 16)), (128,), categorical(64))
    fit(model, sound.train, 600, batch=16, lr=1e-2, clip=1.0, progress=False)
    cost = -mean_log_prob(model, sound.test) / 128
    assert sound.floor < cost < (sound.floor + histogram_cost(sound)) / 2
