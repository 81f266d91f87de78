"""Values without a type of their own on the wire, on their way into and out of the student's process."""

import functools
import importlib
import marshal
import sys
import types

import numpy as np

from autograder import wire

MISSING = object()


def as_plain(value):
    """A value of a plain type that is as good as this one of a subclass; MISSING where there is none."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        plain = np.array(value, dtype=value.dtype.newbyteorder("="), subok=False)
        return plain if plain.dtype.name in wire.DTYPES and type(plain) is np.ndarray else MISSING
    torch = sys.modules.get("torch")
    if torch and isinstance(value, torch.Tensor):
        return _plain_tensor(torch, value)
    for kind in (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset):
        if isinstance(value, kind) and type(value) is not kind:
            return kind(value)
    return MISSING


def _plain_tensor(torch, value):
    """A parameter, or another subclass, as a tensor; what is still not plain then is opaque."""
    if type(value) is torch.Tensor:
        return MISSING
    plain = value.detach().as_subclass(torch.Tensor)
    return plain.requires_grad_(value.requires_grad) if type(plain) is torch.Tensor else MISSING


def made(name, call_back):
    """An object that the examiner described: see remote.Process.describe."""
    match name:
        case {"ref": [module, qualified]}:
            return functools.reduce(getattr, qualified.split("."), importlib.import_module(module))
        case {"partial": [function, args, kwargs]}:
            return functools.partial(function, *args, **kwargs)
        case {"parameter": tensor}:
            return sys.modules["torch"].nn.Parameter(tensor.detach(), tensor.requires_grad)
        case {"object": [kind, state]}:
            value = object.__new__(kind)
            value.__dict__.update(state)
            return value
        case {"generator": state}:
            return sys.modules["torch"].Generator().set_state(state)
        case {"rng": state}:
            rng = np.random.default_rng()
            rng.bit_generator.state = state
            return rng
        case {"code": code, "globals": names, "modules": modules, "cells": cells}:
            names = {"__builtins__": __builtins__, "__name__": "test", **names}
            names |= {alias: importlib.import_module(module) for alias, module in modules.items()}
            closure = tuple(types.CellType(cell) for cell in cells)
            function = types.FunctionType(marshal.loads(code), names, None, name["defaults"], closure)
            function.__kwdefaults__ = name["kwdefaults"]
            return function
        case {"callback": place}:
            return functools.partial(call_back, place)
    raise wire.WireError("The examiner named something that is not known here.")
