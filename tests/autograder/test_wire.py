"""The wire: everything that may cross comes back exactly, and nothing else gets through."""

import json
import math
import socket
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autograder import wire
from autograder.wire import PREFIX, WireError, pack, receive, send, unpack

dtypes = st.sampled_from(sorted(wire.DTYPES)).map(np.dtype)
numpy_arrays = arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
tensors = arrays.arrays(
    st.sampled_from(sorted(wire.TENSORS - {"bfloat16"})).map(np.dtype),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
).map(torch.from_numpy)
hashable = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
)
leaves = hashable | st.complex_numbers() | numpy_arrays | tensors | numpy_arrays.map(lambda a: a.ravel()[:1])
values = st.recursive(
    leaves,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.lists(inside, max_size=4).map(tuple)
        | st.dictionaries(hashable, inside, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    """Equal in type and in every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, torch.Tensor):
        return one.requires_grad == other.requires_grad and same(one.detach().numpy(), other.detach().numpy())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return (
        repr(one) == repr(other)
        if not isinstance(one, (set, frozenset))
        else sorted(map(repr, one)) == sorted(map(repr, other))
    )


@settings(max_examples=100, deadline=None)
@given(values)
def test_what_may_cross_comes_back_exactly(value):
    assert same(unpack(pack(value)), value)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_a_mutated_message_is_a_value_or_a_wire_error(value, data):
    message = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    for mutated in (bytes(message), bytes(message[:cut]), bytes(message) + b"x"):
        try:
            unpack(mutated)
        except WireError:
            continue


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=4)
    )
)
def test_any_json_is_a_value_or_a_wire_error(tree):
    with pytest.raises(WireError) if isinstance(tree, list) and not tree else _maybe():
        unpack(_message(tree))


@pytest.mark.parametrize(
    "tree",
    [
        ["a", "float64", [2**40], 2**43],
        ["a", "float64", [2], 8],
        ["a", "object", [1], 8],
        ["a", "float64", [-1, -1], 8],
        ["a", "float64", [1] * 33, 8],
        ["a", "float64", [True], 8],
        ["t", "uint64", [1], 8, False],
        ["t", "int64", [1], 8, True],
        ["t", "float64", [1], 8, 1],
        ["b", 9],
        ["b", -1],
        ["b", True],
        ["s", ["l"]],
        ["d", "key"],
        ["d", ["l"], 1],
        ["i", "0x" + "f" * 20_000],
        ["f", "infinity"],
        ["c", 1, 2],
        ["o", 3],
        ["q"],
        {"a": 1},
        [],
        [1],
    ],
)
def test_what_is_malformed_is_a_wire_error(tree):
    with pytest.raises(WireError):
        unpack(_message(tree, bytes(8)))


def test_depth_count_and_size_have_caps(monkeypatch):
    deep = []
    for _ in range(wire.MOST_DEPTH + 1):
        deep = [deep]
    monkeypatch.setattr(wire, "MOST_PARTS", 1000)
    monkeypatch.setattr(wire, "MOST_BODY", 1000)
    for value in (deep, [0] * 1001, np.zeros(1000)):
        with pytest.raises(WireError):
            pack(value)
    circle = []
    circle.append(circle)
    with pytest.raises(WireError):
        pack(circle)
    with pytest.raises(WireError, match="digits"):
        pack(10**4000)
    for header in (b"[" * 100_000, b"1" * 100_000, json.dumps(["l", *[0] * 1001]).encode()):
        with pytest.raises(WireError):
            unpack(PREFIX.pack(wire.MAGIC, len(header), 0) + header)


def test_a_boolean_of_other_bits_is_refused():
    message = pack(np.array([True, False]))
    assert unpack(message).tolist() == [True, False]
    with pytest.raises(WireError):
        unpack(message[:-1] + b"\x02")


def test_exact_types_only():
    class Number(float):
        pass

    for value in (
        Number(1.0),
        object(),
        print,
        torch.nn.Parameter(torch.ones(1)),
        np.array([None]),
        range(3),
    ):
        with pytest.raises(WireError):
            pack(value)


def test_what_is_opaque_goes_by_name():
    objects = {7: print}
    message = pack([print, 1], opaque=lambda value: {"id": 7, "of": type(value).__name__})
    assert unpack(message, known=lambda name: objects[name["id"]]) == [print, 1]
    with pytest.raises(WireError):
        unpack(message)


def test_tensors_keep_dtype_gradient_and_values():
    value = torch.tensor([1.5, math.nan], dtype=torch.bfloat16)
    came = unpack(pack(value))
    assert came.dtype is torch.bfloat16
    assert torch.equal(came.isnan(), value.isnan())
    leaf = torch.randn(2, 3).mT.requires_grad_()
    came = unpack(pack(leaf))
    assert came.requires_grad
    assert torch.equal(came, leaf)
    came.detach()[0] = 0.0  # what arrives can be written to
    assert torch.equal(unpack(pack(torch.tensor([1 + 2j]).conj())), torch.tensor([1 - 2j]))


def test_a_message_that_announces_more_than_it_sends_costs_only_what_it_sends():
    near, far = socket.socketpair()
    far.sendall(PREFIX.pack(wire.MAGIC, 2**20, 2**28) + b"x" * 1000)
    far.close()
    tracemalloc.start()
    try:
        with near, pytest.raises(WireError):
            receive(near)
        assert tracemalloc.get_traced_memory()[1] < 4 * wire.CHUNK
    finally:
        tracemalloc.stop()


def test_sending_and_receiving(monkeypatch):
    near, far = socket.socketpair()
    with near, far:
        message = pack({"x": np.arange(10_000.0)})
        send(far, message)
        assert receive(near) == message
        send(far, message)
        with pytest.raises(WireError, match="larger than agreed"):
            receive(near, most=100)
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(TimeoutError):
            receive(near, deadline=0.0)
        far.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(WireError, match="no message"):
            receive(near)


def _message(tree, body=b""):
    header = json.dumps(tree).encode()
    return PREFIX.pack(wire.MAGIC, len(header), len(body)) + header + body


class _maybe:
    """A context in which a WireError is as good as none."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        return kind is not None and issubclass(kind, WireError)


def test_a_message_is_known_again_without_a_copy():
    value = {"a": np.arange(5000.0), "b": [1, "two", np.arange(6).reshape(2, 3).T], "c": np.ones(9000, bool)}
    message = wire.pack(value)
    assert wire.is_packed(message, value)
    value["a"][4321] += 1
    assert not wire.is_packed(message, value)
    assert not wire.is_packed(message, {**value, "d": None})
    assert not wire.is_packed(message + b" ", wire.unpack(message))
