"""The global random states: what is drawn is seen, and what is restored is as it was."""

import random

import numpy as np
import pytest
import torch

from autograder import draws

DRAWS = {
    "random": random.random,
    "gauss": random.gauss,
    "bits of no size": lambda: random.getrandbits(1),
    "numpy": np.random.random,
    "torch": lambda: torch.rand(1),
}


@pytest.mark.parametrize("quick", [True, False], ids=["by its place in memory", "by random.getstate"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_seen_and_a_restored_state_is_the_same(draw, quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(draws, "_TWISTER", None)
    draws.seed("x")
    before, states = draws.fingerprint(), draws.snapshot()
    assert draws.fingerprint() == before
    draw()
    assert draws.fingerprint() != before
    draws.restore(states)
    assert draws.fingerprint() == before


def test_the_state_of_python_is_found_in_memory():
    assert draws._TWISTER is not None


def test_the_same_text_gives_the_same_draws():
    found = []
    for text in ("x", "x", "y"):
        draws.seed(text)
        found.append([draw() for draw in (random.random, np.random.random)] + [torch.rand(1).item()])
    assert found[0] == found[1] != found[2]
