"""Hostile submissions: what students could try against the grader, and whether any of it has an effect.

Each attack is a notebook of a small lesson, with code that tries one thing. It is graded like any other, and
what it did is looked for from outside: in its grade, in what it shows, in files, servers and processes that
stand ready to be reached, and in the grade of the honest neighbour who is graded next by the same engine. So
every attack is held against every effect, not only against the one that it is after.

An attack counts only if it would work. `off` names the defence without which it has its effect, which is how
the tests show that an attack is one. All of them are harmless: small, on loopback, against files and a
process that were made for it.
"""

import contextlib
import ctypes
import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from autograder import doctor, linux
from autograder.attacks import ANSWERS, ATTACKS, EFFECTS, FULL, PREAMBLE, Attack
from autograder.engine import Engine, EngineFailure, Mended
from autograder.sandbox import Limits

LESSON, TOPIC = "00_hostile", "hostile"
TIMEOUT = 2  # seconds a cell
ALLOWED = 7  # seconds for a whole submission, whatever it does
LIMITS = Limits(memory=256 * 2**20, cpu=20, disk=8 * 2**20, file=2 * 2**20, files=64)
ROOMY = Limits(memory=8 * 2**30, cpu=100, disk=64 * 2**20, file=64 * 2**20, files=4096)
MOST_MEMORY = 400 * 2**20  # bytes that a process may grow by before it counts as an effect
MOST_THREADS, MOST_PROCESSES = 100, 8

SYLLABUS = """
[[lesson]]
order = 0
topic = "hostile"
title = "Hostile"
question = "Does the grader hold?"
prerequisites = []
minutes = 1
points = 6
withheld = ["coupling"]
"""

# The first exercise is judged by checks; the second by plain assertions, with the lesson's own imports.
MASTER = '''# %% [markdown]
# # Hostile

# %%
import numpy as np

# %% [markdown] exercise="double" title="Twice" difficulty=1 importance=1 minutes=1
# Write `double(x)`.

# %% solution="double"
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    # {secret}
    return 2 * x
    ### END SOLUTION

# %% test="double" points=1
import numpy as np
from autograder import check

def reference_double(x):
    return x + x

check.values("hostile.double", [(np.arange(3.0),), (np.ones((2, 2)),)], reference_double)

# %% hidden="double" points=2
import numpy as np
from autograder import check

def hidden_double(x):
    return x + x

rng = check.rng("hostile.double")  # {secret}
check.values("hostile.double", [(rng.normal(size=5),), (np.array({number}.0),)], hidden_double)

# %% [markdown] exercise="norm" title="Length" difficulty=1 importance=1 minutes=1
# Write `norm(x)`.

# %% solution="norm"
def norm(x):
    """The length of a vector."""
    ### BEGIN SOLUTION
    return np.sqrt((x * x).sum())
    ### END SOLUTION

# %% test="norm" points=1
def reference_norm(x):
    return (x**2).sum() ** 0.5

assert norm(np.array([3.0, 4.0])) == 5.0
assert np.allclose(norm(np.array([5.0, 12.0])), 13.0)

# %% hidden="norm" points=2
def hidden_norm(x):
    return (x**2).sum() ** 0.5

for points in ([1.0, 2.0, 2.0], [{number}.0], [0.0, 0.0]):
    assert np.allclose(norm(np.array(points)), hidden_norm(np.array(points)))
'''

# What the neighbour looks at: whatever one submission could leave to the next.
PROBE = """
import builtins, os, signal, sys, threading
print(sorted(os.listdir(".")), os.getcwd(), sorted(os.environ))
print(threading.active_count(), [signal.getsignal(n) for n in (10, 12, 14, 15)], len(sys.path))
print(hasattr(sys, "left"), hasattr(builtins, "left"), np.allclose(1, 2), np.random.random())
"""


@dataclass
class Outcome:
    """What came of an attack: the effects that it had, its score and the seconds it took."""

    attack: Attack
    effects: set[str] = field(default_factory=set)
    score: float = 0.0
    seconds: float = 0.0

    def line(self) -> str:
        had = "; ".join(EFFECTS[effect] for effect in sorted(self.effects))
        return f"{self.attack.family}, {self.attack.name}: {had or 'no effect'}"


class Ground:
    """Where attacks are let loose: a course, and things to be reached, each watched. A context manager."""

    def __init__(self):
        self.secret, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.number = str(10_000_000 + secrets.randbelow(80_000_000))
        self.name = f"autograder-{secrets.token_hex(4)}"
        self.key = 1 + secrets.randbelow(2**30)
        self.memory = ctypes.create_string_buffer(self.secret.encode())
        self.folder = Path(tempfile.mkdtemp(prefix="autograder-hostile-"))
        self.out, self.course = self.folder / "out", self.folder / "course"
        self.elsewhere = [Path(folder) / self.name for folder in ("/dev/shm", "/var/tmp", "/tmp")]
        self.victim = self.untouched = self.clean = None

    def __enter__(self):
        linux.prctl(_SUBREAPER, 1)  # so that what an attack leaves running stays our descendant
        self._make_files()
        self.servers = _Servers(self.folder / "socket", self.name)
        self.descriptor = os.open(self.out / "secret", os.O_RDWR)
        self.release = json.loads((self.course / "release" / LESSON / f"{TOPIC}.ipynb").read_text())
        for cell in self.release["cells"]:
            cell["source"] = "".join(cell["source"])
        os.environ["AUTOGRADER_CANARY"] = self.secret
        self._prepare()
        return self

    def __exit__(self, *_):
        os.environ.pop("AUTOGRADER_CANARY", None)
        self.servers.close()
        os.close(self.descriptor)
        self._end_victim()
        for path in self.elsewhere:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        linux.prctl(_SUBREAPER, 0)

    @property
    def source(self) -> Path:
        """The course's source folder, for an engine."""
        return self.course / "source"

    def neighbour(self, engine: Engine) -> tuple:
        """What an honest student gets and sees; or the engine's failure."""
        try:
            checks, notebook = engine.grade(self._submission("neighbour", {"cell": PROBE, **ANSWERS}))
        except EngineFailure as error:
            return "failure", str(error)
        return [(c.grade_id, c.score, c.outcome, c.message) for c in checks], _shown(notebook)

    def untouched_score(self, engine: Engine) -> float:
        """What the release gets as it is."""
        checks, _ = engine.grade(self._submission("empty", {}))
        return sum(check.score or 0.0 for check in checks)

    def settle(self):
        """Notes how many processes there are while nothing is graded."""
        self._prepare()
        time.sleep(0.5)  # for those that come and go after the last submission
        self.usual = len(_alive())

    def attack(self, engine: Engine, attack: Attack, honest: tuple) -> Outcome:
        """Lets an attack loose, and says what it did. honest: what the neighbour gets without it."""
        self._prepare()
        files, victim, mine = self._files(), _state(self.victim.pid), _descendants()
        outcome = Outcome(attack)
        parts = {"cell": attack.cell, "double": attack.double, "norm": attack.norm, "after": attack.after}
        with _Sampler() as sampler:
            begin = time.monotonic()
            try:
                checks, notebook = engine.grade(self._submission("mallory", parts))
            except EngineFailure:
                checks, notebook = [], {"cells": []}
                outcome.effects.add("failure")
            outcome.seconds = time.monotonic() - begin
        outcome.score = sum(check.score or 0.0 for check in checks)
        shown = _shown(notebook)
        seen = {
            "points": outcome.score > attack.deserves,
            "less": bool(checks) and outcome.score < attack.deserves,
            "secret": any(word in shown for word in (self.secret, self.number)),
            "claim": self.token in shown,
            "message": self.servers.heard(),
            "file": self._files() != files,
            "victim": _state(self.victim.pid) != victim,
            "memory": sampler.memory > MOST_MEMORY,
            "threads": sampler.threads > MOST_THREADS,
            "processes": sampler.processes > MOST_PROCESSES,
            "slow": outcome.seconds > ALLOWED,
            "neighbour": self.neighbour(engine) != honest,
            "process": "failure" not in outcome.effects and _left(mine, self.usual),
        }
        outcome.effects |= {effect for effect, had in seen.items() if had}
        if "process" in outcome.effects:  # those that were ready for the next submissions were killed too
            self.neighbour(engine)
            self.neighbour(engine)
        return outcome

    def _submission(self, student, parts):
        notebook = json.loads(json.dumps(self.release))
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if parts.get(name):
                cell["source"] = parts[name]
        first = next(i for i, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code") + 1
        facts = [self._facts() + PREAMBLE] if student == "mallory" else []
        above = [*facts, *filter(None, [parts.get("cell")])]
        notebook["cells"][first:first] = [_code(source, i) for i, source in enumerate(above)]
        if parts.get("after"):
            notebook["cells"].append(_code(parts["after"], 9))
        return Mended(student, LESSON, TOPIC, notebook, self.secret)

    def _facts(self):
        """What an attacker may be taken to know, as Python."""
        package = Path(__file__).resolve().parents[1]
        facts = {"OUT": str(self.out), "COURSE": str(self.course), "PACKAGE": str(package)}
        facts |= {"TCP": self.servers.tcp, "UDP": self.servers.udp, "UNIX": self.servers.unix}
        facts |= {"ABSTRACT": self.name, "NAME": self.name, "KEY": self.key, "GRADER": os.getpid()}
        facts |= {"ADDRESS": ctypes.addressof(self.memory), "DESCRIPTOR": self.descriptor}
        facts |= {"VICTIM": self.victim.pid}
        lines = [f"{name} = {value!r}" for name, value in facts.items()]
        return "\n".join([*lines, f"TOKEN = {self.token[::-1]!r}[::-1]", ""])

    def _make_files(self):
        from autograder.build import build
        from autograder.course import Course

        self.out.mkdir()
        (self.out / "secret").write_text(self.secret)
        (self.course / "masters").mkdir(parents=True)
        (self.course / "syllabus.toml").write_text(SYLLABUS)
        (self.course / "glossary.toml").write_text("")
        master = MASTER.replace("{secret}", self.secret).replace("{number}", self.number)
        (self.course / "masters" / f"{LESSON}.py").write_text(master)
        build(Course(self.course), [TOPIC])
        work = self.course / "submitted" / "ann" / LESSON
        work.mkdir(parents=True)
        (work / f"{TOPIC}.ipynb").write_text(json.dumps({"cells": [], "secret": self.secret}))
        (self.course / "gradebook.db").write_text(f"SQLite {self.secret}")
        for path in (self.folder, *self.folder.rglob("*")):  # modes are no defence here: the sandbox is
            path.chmod(0o777 if path.is_dir() else 0o666)
        shutil.copytree(self.course, self.folder / "kept")

    def _prepare(self):
        """All as it was before the last attack."""
        if self.victim is None or _state(self.victim.pid) != self.untouched:
            self._end_victim()
            self.victim = subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL)
            time.sleep(0.02)  # until it is that program
            self.untouched = _state(self.victim.pid)
        if self._files() != self.clean:
            self._restore()
            self.clean = self._files()
        self.servers.heard()

    def _end_victim(self):
        if self.victim is not None:
            self.victim.kill()
            self.victim.wait()

    def _restore(self):
        for path in self.out.iterdir():
            if path.name != "secret":  # which is held open
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.out / "target").write_text("as it was")
        (self.out / "target").chmod(0o666)
        shutil.rmtree(self.course)
        shutil.copytree(self.folder / "kept", self.course)
        for path in self.elsewhere:
            path.unlink(missing_ok=True)
        _forget_shared_memory(self.key)

    def _files(self):
        found = {}
        for path in [*self.out.rglob("*"), *self.course.rglob("*"), *self.elsewhere]:
            with contextlib.suppress(FileNotFoundError):
                at = path.lstat()
                found[str(path)] = at.st_mode, at.st_uid, at.st_size, at.st_mtime_ns
        found["System V"] = _shared_memory(self.key)
        return found


_SUBREAPER = 36


def run(ground: Ground, engine: Engine, attacks: list[Attack]) -> Iterator[Outcome]:
    """Lets the attacks loose one after another on one engine.

    Raises EngineFailure where an honest submission does not get full marks, or an empty one gets any.
    """
    honest = ground.neighbour(engine)
    if honest[0] == "failure" or sum(score for _, score, *_ in honest[0]) != FULL:
        raise EngineFailure(f"An honest submission did not get full marks: {honest}")
    if (score := ground.untouched_score(engine)) != 0:
        raise EngineFailure(f"An empty submission got {score:g} points.")
    ground.settle()
    for attack in attacks:
        yield ground.attack(engine, attack, honest)


def engine_for(tier: int, source: Path, split: bool = True, limits: bool = True) -> Engine:
    """An engine with the corpus's small limits. Without split or limits, a defence is off: for controls."""
    made = doctor.engine_of(tier, in_process=not split)
    return made(source, TIMEOUT if limits else 30, LIMITS if limits else ROOMY)


@dataclass
class Safety:
    """Whether this machine is safe to grade on: the tier, what was let loose, and what speaks against it."""

    tier: int
    attacks: int
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems

    def lines(self) -> list[str]:
        if self.ok:
            spared = ", ".join(a.name for a in ATTACKS if self.tier not in a.holds)
            more = f" Tier {self.tier} does not promise to stop: {spared}." if spared else ""
            return [f"{self.attacks} hostile submissions in tier {self.tier}: none had any effect.{more}"]
        return ["This machine is NOT safe to grade on:", *self.problems]


def examine(on_line: Callable[[str], None] = lambda line: None, jobs: int | None = None) -> Safety:
    """Lets all attacks loose in the best tier of this machine, in `jobs` processes side by side.

    An honest and an empty submission are graded first, and the watch is tried: two attacks that it must see,
    because their defence is off. on_line is told of each attack.
    """
    tier = doctor.examine().tier
    if tier == 0:
        return Safety(0, 0, [NO_SANDBOX])
    jobs = jobs or min(2, os.cpu_count() or 1)
    with ThreadPoolExecutor(jobs) as pool:
        shares = list(pool.map(lambda share: _in_a_process(tier, share, jobs, on_line), range(jobs)))
    problems = [problem for share, _ in shares for problem in share]
    return Safety(tier, sum(count for _, count in shares), problems)


NO_SANDBOX = (
    "It has no sandbox (tier 0): a submission would run with your rights, and no attack was let loose."
    " `autograder doctor` says what is missing."
)
SEEN = {"numpy.allclose is always true": "split", "a file is written": "sandbox"}
DONE = "that was all"


def _in_a_process(tier, share, of, on_line):
    """The problems that a share of the attacks made, and how many there were. Each has processes to watch."""
    program = "import sys; from autograder import hostile; hostile.write_share(*map(int, sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(tier), str(share), str(of)]
    problems, count, last = [], 0, None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            last, problem = json.loads(line)
            problems += [problem] if problem else []
            count += last != DONE
            on_line(last)
    if last != DONE:
        problems.append(f"The attacks ended early, with exit code {process.returncode}, after: {last}.")
    return problems, count


def write_share(tier: int, share: int, of: int) -> None:
    """Lets every `of`-th attack loose, and writes for each its name and what is wrong, as JSON."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    promised = [attack for attack in ATTACKS if tier in attack.holds]
    with Ground() as ground:
        try:
            if share == 0:
                for problem in _unseen(ground):
                    print(json.dumps([DONE, problem]), file=out)
            with closing(engine_for(tier, ground.source)) as engine:
                for outcome in run(ground, engine, promised[share::of]):
                    problem = outcome.line() if outcome.effects else ""
                    print(json.dumps([outcome.attack.name, problem]), file=out)
            print(json.dumps([DONE, ""]), file=out)
        except EngineFailure as error:
            print(json.dumps([DONE, f"Grading failed: {error}"]), file=out)


def _unseen(ground):
    """The attacks without their defence that the watch does not see."""
    for name, off in SEEN.items():
        attack = next(attack for attack in ATTACKS if attack.name == name)
        with closing(engine_for(0, ground.source, split=off != "split")) as engine:
            (outcome,) = run(ground, engine, [attack])
        if attack.effect not in outcome.effects:
            yield f"The watch is blind: with its defence off, {attack.name!r} had no effect."


def _code(source, number):
    return {
        "cell_type": "code",
        "id": f"own-{number}",
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def _shown(notebook) -> str:
    """All that the cells of a graded notebook show."""
    return json.dumps([cell.get("outputs", []) for cell in notebook["cells"]])


class _Servers:
    """Four servers on this machine, and whether anybody has reached one of them."""

    def __init__(self, path: Path, name: str):
        self.tcp_socket, self.udp_socket = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        for each in (self.tcp_socket, self.udp_socket):
            each.bind(("127.0.0.1", 0))
        self.unix_socket, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix_socket.bind(str(path))
        path.chmod(0o777)
        self.abstract.bind(f"\0{name}")
        for each in (self.tcp_socket, self.unix_socket, self.abstract):
            each.listen()
        self.tcp, self.udp = (s.getsockname()[1] for s in (self.tcp_socket, self.udp_socket))
        self.unix = str(path)
        self.all = (self.tcp_socket, self.udp_socket, self.unix_socket, self.abstract)

    def heard(self) -> bool:
        """Whether there was any connection or message since the last time."""
        heard = False
        while ready := select.select(self.all, [], [], 0)[0]:
            heard = True
            for each in ready:
                if each is self.udp_socket:
                    each.recv(100)
                else:
                    each.accept()[0].close()
        return heard

    def close(self):
        for each in self.all:
            each.close()


class _Sampler:
    """Looks, while it is open, at how much the processes below this one take, over what they took before."""

    def __enter__(self):
        self.memory = self.threads = self.processes = 0
        self.before = self._taken()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def _sample(self):
        while not self.ended.wait(0.04):
            count, memory, threads = self._taken()
            self.processes = max(self.processes, count - self.before[0])
            self.memory = max(self.memory, memory - self.before[1])
            self.threads = max(self.threads, threads)

    @staticmethod
    def _taken():
        """How many processes there are, and the memory and the threads of the largest."""
        found = _descendants()
        sizes, threads = [0], [0]
        for process in found:
            with contextlib.suppress(OSError, IndexError, ValueError):
                words = Path(f"/proc/{process}/statm").read_text().split()
                sizes.append(int(words[1]) * resource.getpagesize())
                threads.append(len(os.listdir(f"/proc/{process}/task")))
        return len(found), max(sizes), max(threads)


def _descendants() -> set[int]:
    """The processes that this one has started, and those that they have."""
    found, pending = set(), [os.getpid()]
    while pending:
        for task in _tasks(pending.pop()):
            with contextlib.suppress(OSError):
                children = [int(word) for word in Path(task, "children").read_text().split()]
                pending += [child for child in children if child not in found]
                found.update(children)
    return found


def _tasks(process):
    try:
        return [f"/proc/{process}/task/{task}" for task in os.listdir(f"/proc/{process}/task")]
    except OSError:
        return []


def _left(before: set[int], usual: int) -> bool:
    """Whether there are more processes than usual. If so, those that were not there before are killed.

    What is on its way out, as the processes that a submission had, gets half a second for it, and so do those
    that get ready for the next submissions in their place: it is counted when the number stays as it is.
    """
    until, same = time.monotonic() + 0.5, 0
    while same < 3 and time.monotonic() < until:
        same = same + 1 if len(_alive()) == usual else 0
        time.sleep(0.015)
    more = len(_alive()) > usual
    for process in _alive() - before if more else ():
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(process, 0)
    return more


def _alive():
    return {process for process in _descendants() if not _has_ended(process)}


def _has_ended(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True


def _state(process: int) -> tuple | None:
    """What others could have done to a process; None when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        tracer = next(line for line in status.splitlines() if line.startswith("TracerPid"))
        state = next(line for line in status.splitlines() if line.startswith("State"))
        if "Z" in state:
            return None
        return (
            "T" in state.upper().split()[1],
            tracer,
            os.getpriority(os.PRIO_PROCESS, process),
            sorted(os.sched_getaffinity(process)),
            resource.prlimit(process, resource.RLIMIT_NOFILE),
            Path(f"/proc/{process}/oom_score_adj").read_text(),
        )
    except (OSError, StopIteration):
        return None


def _shared_memory(key: int) -> list[int]:
    """The ids of System V's segments under a key."""
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return []
    return [int(line.split()[1]) for line in lines if int(line.split()[0]) == key]


def _forget_shared_memory(key: int) -> None:
    for identity in _shared_memory(key):
        ctypes.CDLL(None).shmctl(identity, 0, None)
