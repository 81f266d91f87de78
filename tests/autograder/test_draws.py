"""The global random states: what is drawn is seen, and what is restored is as it was."""

import random

import numpy as np
import pytest
import torch

from autograder import draws, wire

DRAWS = {
    "random": random.random,
    "gauss": random.gauss,
    "bits of no size": lambda: random.getrandbits(1),
    "numpy": np.random.random,
    "a normal with a spare": np.random.normal,
    "torch": lambda: torch.rand(1),
}


@pytest.mark.parametrize("quick", [True, False], ids=["by its place in memory", "by the library's functions"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_seen_and_a_restored_state_is_the_same(draw, quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(draws, "_TWISTER", None)
        monkeypatch.setattr(draws, "_BEFORE_SPARE", None)
    draws.seed("x")
    for _ in range(3):  # a spare normal is there the second time, and no longer the third
        states = draws.snapshot()
        assert draws.snapshot() == states == wire.unpack(wire.pack(states))
        drawn = draw()
        assert draws.snapshot() != states
        draws.restore(states)
        assert draws.snapshot() == states
        assert draw() == drawn


def test_the_states_are_found_in_memory():
    assert draws._TWISTER is not None
    assert draws._BEFORE_SPARE is not None


def test_another_generator_of_numpy_is_left_alone():
    ours = np.random.get_bit_generator()
    before = draws.snapshot()
    try:
        np.random.set_bit_generator(np.random.PCG64(5))
        draws.restore(before)
        draws.restore(draws.snapshot())
        assert DRAWS["numpy"]() == np.random.Generator(np.random.PCG64(5)).random()
    finally:
        np.random.set_bit_generator(ours)
    assert draws.snapshot() == before


def test_the_same_text_gives_the_same_draws():
    found = []
    for text in ("x", "x", "y"):
        draws.seed(text)
        found.append([draw() for draw in (random.random, np.random.random)] + [torch.rand(1).item()])
    assert found[0] == found[1] != found[2]
