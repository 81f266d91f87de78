"""`autograder doctor`: which sandbox this machine offers, tried out, and what is missing for a better one.

A tier is offered when a student's process really starts in it and is really kept in: nothing is concluded
from version numbers. Which means are there is only told to explain a tier that does not start.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from autograder import landlock, remote, seccomp
from autograder.sandbox import Limits, SandboxError, Zygote

WITHIN = 60  # seconds

TIERS = {
    3: "namespaces of its own (bubblewrap), seccomp and limits: nothing of this machine can be reached",
    2: "Landlock, seccomp and limits: files, network and other processes cannot be reached",
    0: "no sandbox: a submission runs with your rights",
}

OPEN_AT_2 = (
    f"Tier 2 limits each file that a submission writes ({Limits().file // 2**20} MB), but not how many: one"
    " that means harm can fill the disk until it is stopped. What it wrote goes with it."
)

# What a submission tries. Each line that it prints is something that it should not have managed.
_ATTEMPTS = """\
import os, socket, sys

def tried(what, function, *args):
    try:
        function(*args)
    except Exception:
        return
    print(what)

tried("opens a socket", socket.socket)
tried("starts a process", os.fork)
tried("reads {secret}", open, {secret!r})
tried("writes to {folder}", open, {folder!r} + "/written", "w")
tried("sees other processes", os.listdir, "/proc/{process}")
tried("signals another process", os.kill, os.getppid() or {process}, 0)
tried("imports the right answers", __import__, "autograder.answers.coupling")
"""


@dataclass
class Trial:
    """What trying a tier gave: whether it holds, and otherwise what went wrong."""

    tier: int
    holds: bool
    why: str = ""


@dataclass
class Report:
    """tier: the best that holds. trials: from the best tier down. advice: what to do, in sentences."""

    tier: int
    trials: list[Trial]
    advice: list[str]

    def lines(self) -> list[str]:
        lines = [f"Tier {self.tier}: {TIERS[self.tier]}."]
        if self.tier == 2:
            lines.append(OPEN_AT_2)
        lines += [
            f"Tier {trial.tier} does not hold here: {trial.why}" for trial in self.trials if not trial.holds
        ]
        return [*lines, *self.advice]


def examine() -> Report:
    """Tries the tiers from the best down, until one holds."""
    trials = []
    for tier in (3, 2):
        trials.append(attempt(tier))
        if trials[-1].holds:
            break
    best = trials[-1].tier if trials[-1].holds else 0
    return Report(best, trials, _advice(best))


def attempt(tier: int) -> Trial:
    """Starts a student's process in a tier, and lets it try to get out."""
    missing = _missing(tier)
    if missing:
        return Trial(tier, False, missing)
    try:
        managed = _managed(tier)
    except (SandboxError, OSError, remote.Gone) as error:
        return Trial(tier, False, str(error) or type(error).__name__)
    return Trial(tier, not managed, f"A submission {', '.join(managed)}." if managed else "")


def _managed(tier):
    """The attempts that a student's process in this tier did not fail at."""
    with tempfile.TemporaryDirectory(prefix="autograder-doctor-") as folder:
        secret = Path(folder, "secret")
        secret.write_text("hidden tests")
        Path(folder).chmod(0o777)
        source = _ATTEMPTS.format(secret=str(secret), folder=folder, process=os.getpid())
        zygote = Zygote(tier, (), [], Limits())
        try:
            started = zygote.start()
            process = remote.Process(started.pipe, "seed", time.monotonic() + WITHIN)
            answer = process.run(source, "attempts")
            if answer["error"] is not None:
                raise SandboxError(f"A submission could not run: {answer['error']['message']}")
            return answer["printed"].splitlines()
        finally:
            zygote.close()


def _missing(tier):
    """What a tier needs and is not there, in a sentence; empty where all seems to be."""
    if sys.platform != "linux":
        return f"It needs Linux, and this is {platform.system()}."
    if not seccomp.is_known():
        return f"It needs seccomp on x86-64 or arm64, and this is {platform.machine()}."
    if tier == 3 and shutil.which("bwrap") is None:
        return "bubblewrap is not installed."
    if tier == 2 and not landlock.version():
        return "The kernel has no Landlock (Linux 5.13 and newer), or it is switched off."
    return ""


def _advice(tier):
    if tier == 3:
        return []
    if sys.platform != "linux":
        return ["Grade in a Linux virtual machine or on a server: there submissions run in a sandbox."]
    if shutil.which("bwrap") is None:
        advice = ["Install bubblewrap: apt install bubblewrap, or dnf install bubblewrap."]
    else:
        advice = ["Grade as an ordinary user, not as root."] if os.getuid() == 0 else []
        advice += [
            "Let users make namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), or"
            " sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04 and newer); in a container,"
            " run it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --security-opt systempaths=unconfined."
        ]
    if tier == 0:
        advice.append("Until then, grade only what people you trust have handed in: --trust-submissions.")
    return advice


def environment() -> list[str]:
    """What grading runs with, in lines for a report of a fault."""
    versions = [f"Python {platform.python_version()}", f"{platform.system()} {platform.release()}"]
    return [f"{', '.join(versions)}, {os.cpu_count()} cores, user {os.getuid()}."]


def can_isolate() -> bool:
    """Whether the isolated engine runs here at all, be it without a sandbox."""
    return sys.platform == "linux"


def engine_of(tier: int, in_process: bool = False):
    """The engine that grades in a tier, with the tests apart from the student's code or in its process."""
    from autograder import isolated

    apart = {3: isolated.IsolatedEngine, 2: isolated.LandlockEngine, 0: isolated.OpenEngine}
    together = {3: isolated.InProcess, 2: isolated.InProcessLandlock, 0: isolated.InProcessOpen}
    return (together if in_process else apart)[tier]
