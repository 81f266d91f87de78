"""Tests are spread over processes, in another order each time: none draws what others leave it."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
