"""Short synthesized notes, to learn sound from: no file, no network, and a known floor for every model."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from flowkit.wavenet import mu_law, mu_law_inverse

SCALE = (261.63, 293.66, 329.63, 349.23, 392.00, 440.00, 493.88, 523.25)  # C4 to C5 in Hz, equal temperament
OVERTONES = (1.0, 0.5, 0.25)  # the amplitudes of the first harmonics


@dataclass(frozen=True)
class Tones:
    """Notes of one scale, decaying, with overtones of random phase and a little noise, as mu-law levels.

    train, valid, test     (N, T) levels 0 ... L - 1, as floats; `wave` turns them into sound
    train_notes, ...       (N,) which note of SCALE it is
    floor                  nats a number: the mean entropy of a level of `test` given its note without
                           noise. Whoever knows the note pays that much, so on average no model pays less
    rate                   numbers a second, in Hz
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    train_notes: Tensor
    valid_notes: Tensor
    test_notes: Tensor
    floor: float
    levels: int
    rate: int

    def wave(self, levels: Tensor) -> Tensor:
        """Levels as a wave in [-1, 1], of the same shape."""
        return mu_law_inverse(levels, self.levels)


def pure_tones(notes: Tensor, length: int, rate: int, generator: Generator) -> Tensor:
    """Notes without noise, float64 in (-0.8, 0.8): (N,) -> (N, T).

    0.8 exp(-t / tau) * sum over h of a_h sin(2 pi h f t + phase_h) / sum of a_h, phases uniform, and tau
    uniform on one half to twice the length.
    """
    amplitudes = torch.tensor(OVERTONES, dtype=torch.float64)
    seconds = torch.arange(length, dtype=torch.float64) / rate
    count = len(notes)
    phases = 2 * math.pi * torch.rand(count, len(OVERTONES), 1, generator=generator, dtype=torch.float64)
    decay = (0.5 + 1.5 * torch.rand(count, 1, generator=generator, dtype=torch.float64)) * length / rate
    pitch = torch.tensor(SCALE, dtype=torch.float64)[notes][:, None, None]
    harmonic = torch.arange(1, len(OVERTONES) + 1, dtype=torch.float64)[:, None]
    waves = (2 * math.pi * harmonic * pitch * seconds + phases).sin()
    return 0.8 * (-seconds / decay).exp() * (amplitudes[:, None] * waves).sum(1) / amplitudes.sum()


def level_entropy(clean: Tensor, noise: float, levels: int) -> Tensor:
    """The entropy in nats of mu_law(clean + noise * N(0, 1)), for each number: (...) -> (...).

    A level's probability is that of its cell, a difference of normal distribution functions. Cost: O(L).

    >>> round(level_entropy(torch.zeros(1), 1.0, 2).item(), 4)      # a fair coin
    0.6931
    """
    edges = mu_law_inverse(torch.arange(levels - 1, dtype=torch.float64) + 0.5, levels)
    below = torch.special.ndtr((edges - clean.double()[..., None]) / noise)
    ends = torch.zeros_like(below[..., :1])
    probability = torch.cat((ends, below, ends + 1), -1).diff(dim=-1)
    return torch.special.entr(probability.clamp(min=0)).sum(-1)


def tones(
    seed: int = 0,
    length: int = 256,
    levels: int = 64,
    rate: int = 4000,
    noise: float = 0.02,
    sizes: tuple[int, int, int] = (400, 100, 100),
    dtype: torch.dtype = torch.float32,
) -> Tones:
    """Notes drawn from the seed: `sizes` of them to train, to validate and to test.

    noise: the standard deviation of the Gaussian noise, of a full volume of 1; positive, or the floor is not
    what the noise costs. rate: the highest overtone, 1570 Hz, must lie below half of it.
    Raises ValueError for other noise or rates.

    >>> sound = tones()
    >>> sound.train.shape, sound.levels
    (torch.Size([400, 256]), 64)
    """
    if not noise > 0:
        raise ValueError(f"the noise needs a positive standard deviation, got {noise}")
    highest = len(OVERTONES) * max(SCALE)
    if rate <= 2 * highest:
        raise ValueError(f"overtones up to {highest:.0f} Hz need a rate above {2 * highest:.0f}, got {rate}")
    generator = Generator().manual_seed(seed)
    notes = torch.randint(len(SCALE), (sum(sizes),), generator=generator)
    clean = pure_tones(notes, length, rate, generator)
    noisy = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    train, valid, test = mu_law(noisy, levels).to(dtype).split(sizes)
    train_notes, valid_notes, test_notes = notes.split(sizes)
    floor = level_entropy(clean[len(clean) - sizes[2] :], noise, levels).mean().item()
    return Tones(train, valid, test, train_notes, valid_notes, test_notes, floor, levels, rate)
