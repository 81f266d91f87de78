"""Broken input for the two readers that meet what strangers send: the engine's wire and the notebook reader.

Each input is a valid one, mutated: bytes flipped, cut, doubled, spliced, or, in JSON, values swapped for
others. A reader may return, or raise its own error. Any other exception, more than ten seconds, or memory
that keeps growing is a find, and the input is kept. With atheris installed (pip install atheris) half of the
time goes to mutations that are guided by coverage. The minutes of all runs add up in the results.

    python benchmarks/fuzzing.py [MINUTES]    # half for each reader; one minute by default
"""

import contextlib
import importlib.util
import json
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import torch

from autograder import submission, wire

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fuzzing.json"
LONGEST = 10  # seconds an input may take
MOST_GROWTH = 300 * 2**10  # kB of memory that the readers may come to hold beyond the first inputs'
ODD = [None, True, -1, 2**70, 1e308, "", "\ud800", [], {}, [[]], {"cells": 3}, "a" * 1000, ["t", "float64"]]


def read_message(data: bytes) -> None:
    """The wire's parser."""
    with contextlib.suppress(wire.WireError):
        wire.unpack(data, lambda name: name)


def read_notebook(data: bytes) -> None:
    """Reading, and mending against a release."""
    try:
        taken = submission.read(data)
    except submission.UnreadableSubmission:
        return
    submission.mend(taken.notebook, RELEASE)


def release() -> dict:
    """A released notebook, short enough to be mended many times a second."""
    notebook = json.loads((ROOT / "lessons" / "00_start" / "start.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    graded = [cell for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    return {**notebook, "cells": [*notebook["cells"][:2], *graded[:5]]}


RELEASE = release()


def messages() -> list[bytes]:
    """Valid messages with every type that the wire carries."""
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 2), np.int8), np.array(True), np.float32(1)]
    tensors = [torch.randn(3, 2), torch.zeros(2, dtype=torch.bfloat16), torch.tensor(1, dtype=torch.int64)]
    values = [None, 1, 2**80, float("nan"), 1j, "text", b"bytes", (1, [2, {"k": {3}}]), frozenset([4])]
    return [wire.pack(value) for value in (*values, *arrays, *tensors, [arrays, tensors, values])]


def notebooks() -> list[bytes]:
    """Notebooks as editors save them."""
    texts = [json.dumps(RELEASE), json.dumps(RELEASE, indent=1)]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": RELEASE["cells"]}]}
    return [text.encode() for text in (*texts, json.dumps(old))] + [texts[0].encode("utf-16")]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "wire": (read_message, messages),
    "notebook": (read_notebook, notebooks),
}


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, changed in one to eight places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 8)):
        at, length = rng.randrange(len(data) + 1), rng.randint(1, 16)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = rng.choice((b"[", b"{", b'"', b"9" * length, b"\xff" * length, b"null", b"-1"))
            case 4:
                other = rng.choice(seeds)
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            case 5:
                data = bytearray(in_json(rng, bytes(data)))
    return bytes(data)


def in_json(rng: random.Random, data: bytes) -> bytes:
    """The same with a value of its JSON, wherever that begins and ends, swapped for an odd one."""
    start, end = data.find(b"["), data.rfind(b"]") + 1
    if data[:1] == b"{":
        start, end = 0, len(data)
    try:
        tree = json.loads(data[start:end])
    except (ValueError, RecursionError):
        return data
    nodes = [tree]
    for node in nodes:
        nodes += [
            n for n in (node.values() if isinstance(node, dict) else node) if isinstance(n, dict | list)
        ]
    node = rng.choice([node for node in nodes if node] or [[0]])
    node[rng.choice(list(node) if isinstance(node, dict) else range(len(node)))] = rng.choice(ODD)
    return data[:start] + json.dumps(tree).encode() + data[end:]


def too_long(signum, frame):
    raise TimeoutError(f"longer than {LONGEST} s")


def fuzz(name: str, seconds: float) -> dict:
    """Mutations of the seeds for so long: how many, and what was found."""
    target, seeds = TARGETS[name][0], TARGETS[name][1]()
    rng = random.Random(time.time_ns())
    signal.signal(signal.SIGALRM, too_long)
    found: list[str] = []
    count, first, start = 0, None, time.monotonic()
    while time.monotonic() < start + seconds and not found:
        data = mutated(rng, seeds)
        signal.alarm(LONGEST)
        try:
            target(data)
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}, in {kept(data)}")
        signal.alarm(0)
        count += 1
        if count == 2000:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first if first else 0
    if grown > MOST_GROWTH:
        found.append(f"the memory grew by {grown // 2**10} MB")
    return {"inputs": count, "minutes": (time.monotonic() - start) / 60, "found": found}


def fuzz_by_coverage(name: str, seconds: float) -> dict:
    """The same by atheris, in a process of its own: libFuzzer's, which ends where something is found."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(TARGETS[name][1]()):
            Path(folder, str(number)).write_bytes(seed)
        options = [f"-max_total_time={int(seconds)}", f"-timeout={LONGEST}", "-rss_limit_mb=4096", folder]
        run = subprocess.run(
            [sys.executable, __file__, "atheris", name, *options], capture_output=True, text=True, cwd=folder
        )
        inputs = re.findall(r"^#(\d+)", run.stderr, re.MULTILINE)
        found = [] if run.returncode == 0 else [f"{run.stderr[-1500:]}, in {kept(crash(folder))}"]
    return {"inputs": int(inputs[-1]) if inputs else 0, "minutes": seconds / 60, "found": found}


def crash(folder: str) -> bytes:
    crashes = [path for path in Path(folder).iterdir() if path.name.startswith(("crash", "timeout", "oom"))]
    return crashes[0].read_bytes() if crashes else b""


def kept(data: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="fuzzing-", delete=False) as file:
        file.write(data)
    return file.name


def by_coverage(name: str, options: list[str]) -> None:
    """Hands the process over to libFuzzer."""
    import atheris

    for module in (wire, submission):
        owners = [module, *(part for part in vars(module).values() if isinstance(part, type))]
        for function in {part for owner in owners for part in vars(owner).values() if is_ours(part, module)}:
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *options], TARGETS[name][0])
    atheris.Fuzz()


def is_ours(part: object, module: ModuleType) -> bool:
    return isinstance(part, FunctionType) and part.__module__ == module.__name__


def main(minutes: float):
    total = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    guided = importlib.util.find_spec("atheris") is not None
    for name in TARGETS:
        run = fuzz(name, 30 * minutes if not guided else 15 * minutes)
        if guided and not run["found"]:
            more = fuzz_by_coverage(name, 15 * minutes)
            run = {key: run[key] + more[key] for key in run}
        before = total.get(name, {"inputs": 0, "minutes": 0.0, "found": []})
        total[name] = {key: before[key] + run[key] for key in ("inputs", "minutes")} | {"found": run["found"]}
        print(
            f"{name}: {run['inputs']:,} inputs in {run['minutes']:.2g} minutes; {run['found'] or 'no finds'}"
        )
    RESULTS.write_text(json.dumps(total, indent=2) + "\n")
    sys.exit(any(entry["found"] for entry in total.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["atheris"]:
        by_coverage(sys.argv[2], sys.argv[3:])
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
