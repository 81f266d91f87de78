"""The examples in flowkit's docstrings run, and give what they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import flowkit

MODULES = [found.name for found in pkgutil.walk_packages(flowkit.__path__, "flowkit.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name):
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_a_wrong_example_is_seen():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
