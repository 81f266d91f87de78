"""Student's processes for tests: in a sandbox, or without one in a fork of the test."""

import functools
import os
import socket
import time
from contextlib import contextmanager

import pytest

from autograder import doctor, remote
from autograder.sandbox import Limits, Zygote
from autograder.student import Student

WITHIN = 30


@functools.cache
def trial(tier: int) -> doctor.Trial:
    return doctor.attempt(tier)


def require(tier: int) -> None:
    """Skips the test where this machine does not offer the tier; tier 0 is everywhere."""
    if tier and not trial(tier).holds:
        pytest.skip(f"tier {tier} does not hold here: {trial(tier).why}")


@contextmanager
def zygote(tier: int, withheld=(), modules=("numpy",), **limits):
    require(tier)
    started = Zygote(tier, tuple(withheld), list(modules), Limits(**limits))
    try:
        yield started
    finally:
        started.close()


@contextmanager
def submission(of: Zygote, seconds: float = WITHIN):
    """A connection to a new student's process of a zygote."""
    started = of.start()
    try:
        yield remote.Process(started.pipe, "seed", time.monotonic() + seconds)
    finally:
        started.end()


@contextmanager
def forked(withheld=()):
    """A student's process without a sandbox, forked from the test."""
    near, far = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            for number in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.dup2(far.fileno(), 3)
            os.closerange(4, 2**16)  # what the tests of a hostile student write to is not pytest's
            Student(socket.socket(fileno=3)).serve()
        finally:
            os._exit(0)
    far.close()
    try:
        yield remote.Process(near, "seed", time.monotonic() + WITHIN, tuple(withheld))
    finally:
        near.close()
        os.waitpid(child, 0)


def run(process: remote.Process, source: str) -> str:
    """What a cell prints; what it raises is told as "Kind: message"."""
    process.deadline = time.monotonic() + WITHIN
    answer = process.run(source, "cell")
    error = answer["error"]
    return answer["printed"] + (f"{error['kind']}: {error['message']}" if error else "")
