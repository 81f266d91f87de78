"""The sandbox, tried from inside, at each tier that this machine has. Tier 0 is the control."""

import operator
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rooms import require, run, submission, zygote

from autograder import confine, landlock, linux, remote, sandbox, seccomp, wire

TIERS = pytest.mark.parametrize("tier", [3, 2])
ALL = pytest.mark.parametrize("tier", [3, 2, 0])


def outcome(tier: int, source: str, **options) -> str:
    with zygote(tier, **options) as started, submission(started) as process:
        return run(process, source)


REACHES_OUT = {
    "network": "import socket; socket.socket(); print('out')",
    "a process": "import os; os.fork() or os._exit(0); print('out')",
    "a program": "import subprocess; subprocess.run(['true']); print('out')",
    "a folder": "import os; os.listdir('{folder}'); print('out')",
    "a file": "open('{folder}/secret').read(); print('out')",
    "a new file": "open('{folder}/new', 'w').write('x'); print('out')",
    "a mode": "import os; os.chmod('{folder}/secret', 0o600); print('out')",
    "a signal": "import os; os.kill({process}, 0); print('out')",
    "a memory": "open('/proc/{process}/maps').read(); print('out')",
    "shared memory": "open('/dev/shm/x{process}', 'w').write('x'); print('out')",
}


@pytest.mark.parametrize("tier", [pytest.param(3), pytest.param(2), pytest.param(0, id="control")])
def test_nothing_reaches_out(tier, tmp_path):
    (tmp_path / "secret").write_text("hidden test")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o777)
    with zygote(tier) as started, submission(started) as process:
        managed = []
        for what, source in REACHES_OUT.items():
            source = source.format(folder=tmp_path, process=os.getpid())
            if run(process, source) == "out\n":
                managed.append(what)
    assert managed == ([] if tier else list(REACHES_OUT))
    assert (tmp_path / "new").exists() == (tier == 0)
    Path(f"/dev/shm/x{os.getpid()}").unlink(missing_ok=True)


@TIERS
def test_withheld_modules_and_answers_are_absent(tier):
    source = """
import importlib
for name in ("flowkit.maps", "flowkit.determinants", "autograder.answers.start", "autograder.grade"):
    try:
        importlib.import_module(name)
        print(name)
    except ModuleNotFoundError:
        pass
"""
    assert outcome(tier, source, withheld=["determinants"]).split() == ["flowkit.maps"]


@pytest.mark.slow
@TIERS
def test_nothing_that_is_ours_can_be_found_by_searching(tier):
    source = """
import os
for root in ("/", "/course", "/work", "/root", "/home", "/tmp", "/usr", *os.environ["PYTHONPATH"].split(":")):
    for folder, folders, files in os.walk(root):
        if folder.count("/") > 8:
            folders.clear()
        for name in files:
            if name in ("gradebook.db", "syllabus.toml", "determinants.py", "stock.py"):
                print(folder, name)
"""
    assert outcome(tier, source, withheld=["determinants"]) == ""


@ALL
def test_an_answer_may_draw(tier):
    source = """
import matplotlib.pyplot as plt
from flowkit.lab import plots
from flowkit.lab.widgets import play, slider

plt.plot([1, 2])
plt.show()
fig, ax = plots.figure()
assert plots.html(fig, alt="axes")

def draw(scene, a):
    scene.axes(x=(0, 1), y=(0, 1))
    return "Axes."

assert play(draw, a=slider(0, 1, 0)).render().summary == "Axes."
print("drawn")
"""
    assert outcome(tier, source) == "drawn\n"


@ALL
def test_nothing_stays_for_the_next(tier):
    leave = (
        "import builtins, sys; builtins.left = sys.left = 1; open('left.txt', 'w').write('x'); print('wrote')"
    )
    look = "import os, sys; print(hasattr(sys, 'left'), os.path.exists('left.txt'), os.listdir('.'))"
    with zygote(tier) as started:
        with submission(started) as process:
            assert run(process, leave) == "wrote\n"
        with submission(started) as process:
            assert run(process, look).split()[:2] == ["False", "False"]


@ALL
def test_what_is_written_to_stderr_cannot_be_read_by_the_next(tier):
    with zygote(tier) as started:
        with submission(started) as process:
            run(process, "import os; os.write(2, b'an answer')")
        with submission(started) as process:
            assert run(process, "import os; print(os.read(2, 100), os.read(0, 100))") == "b'' b''\n"


@ALL
def test_memory_files_and_disk_have_limits(tier):
    with (
        zygote(tier, memory=300 * 2**20, file=2**20, disk=2 * 2**20) as started,
        submission(started) as process,
    ):
        assert "MemoryError" in run(process, "import numpy as np; np.ones(100_000_000)")
        assert run(process, "print(np.ones(1000).sum())") == "1000.0\n"
        assert "OSError" in run(
            process,
            "import os; f = os.open('a', os.O_CREAT | os.O_WRONLY);\nwhile True: os.write(f, b'x' * 2**16)",
        )
        assert "OSError" in run(process, "files = []\nwhile True: files.append(open('/dev/null'))")


@ALL
def test_an_endless_loop_is_ended_and_the_next_student_starts(tier):
    with zygote(tier) as of:
        started = of.start()
        process = remote.Process(started.pipe, "seed", time.monotonic() + 30)
        process.deadline = time.monotonic() + 0.2
        with pytest.raises(remote.Gone) as gone:
            process.run("while True: pass", "cell")
        assert gone.value.kind == "Timeout"
        assert os.WTERMSIG(started.end()) == 9
        with submission(of) as process:
            assert run(process, "print(1)") == "1\n"


@ALL
def test_a_process_that_nobody_holds_any_more_is_ended(tier):
    with zygote(tier) as of:
        started = of.start()
        process = remote.Process(started.pipe, "seed", time.monotonic() + 30)
        line, started.line = started.line, started.line.dup()
        line.close()
        assert run(process, "print(1)") == "1\n"  # somebody does
        started.line.close()
        with pytest.raises(remote.Gone):
            process.run("while True: pass", "cell")
        with submission(of) as process:
            assert run(process, "print(2)") == "2\n"


@ALL
def test_the_next_process_gets_ready_while_one_is_at_work(tier):
    with zygote(tier) as of:
        first, second = of.start(), of.start()
        at_work = remote.Process(first.pipe, "seed", time.monotonic() + 30)
        assert run(at_work, "open('here', 'w').close()") == ""
        first.end()
        process = remote.Process(second.pipe, "seed", time.monotonic() + 30)
        assert run(process, "import os; print(os.listdir())") == "[]\n"
        second.end()


def test_a_sandbox_that_has_ended_is_said():
    with zygote(0) as of:
        started = of.start()
        wire.receive(started.pipe)  # it is there, and has closed what it had of its zygote's
        of.process.kill()
        of.process.wait()
        with pytest.raises(sandbox.SandboxError, match="has ended"):
            of.require_alive()
        with pytest.raises(sandbox.SandboxError, match="has ended"):
            of.start()
        with pytest.raises(sandbox.SandboxError, match="has ended"):
            started.end()


@ALL
def test_a_student_s_process_holds_one_descriptor_and_no_secrets(tier):
    source = """
import os
def is_open(n):
    try:
        return bool(os.fstat(n))
    except OSError:
        return False
print([n for n in range(3, 200) if is_open(n)], [name for name in os.environ if "AUTOGRADER" in name])
"""
    assert outcome(tier, source) == "[3] []\n"


@ALL
def test_it_does_not_see_what_the_grader_s_environment_holds(tier, monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    assert outcome(tier, "import os; print('DATABASE_PASSWORD' in os.environ)") == "False\n"


def test_at_tier_3_everybody_is_nobody_without_rights():
    source = "import os; print(os.getuid(), os.getpid(), sorted(os.listdir('/proc')))"
    user, process, listed = outcome(3, source).split(maxsplit=2)
    assert int(user) != 0
    assert (process, listed) == ("1", "[]\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_as_root_the_sandbox_belongs_to_a_user_without_rights():
    with zygote(3) as started:
        status = Path(f"/proc/{started.process.pid}/status").read_text()
    user = next(line for line in status.splitlines() if line.startswith("Uid:")).split()
    assert set(user[1:]) == {"65534"}
    assert "CapEff:\t0000000000000000" in status


MULTIPLY = """
import threading
multiply = lambda: results.append(torch.ones(300, 300) @ torch.ones(300, 300))
results, threads = [], [threading.Thread(target=multiply) for _ in range(2)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(results))
"""


@pytest.mark.slow
@TIERS
def test_who_asks_torch_for_threads_gets_its_arithmetic(tier):
    """At tier 2, where threads cannot be counted, there are none; OpenMP must not end the program for it."""
    source = """
import torch
torch.set_num_threads(2)
a = torch.randn(1500, 1500, requires_grad=True)
(a @ a.T).tanh().sum().backward()
torch.randn(3000, 1000).exp().sum()
print(bool(torch.isfinite(torch.linalg.eigvalsh((a.T @ a)[:200, :200])).all()))
"""
    with zygote(tier, modules=["torch"]) as started, submission(started) as process:
        assert run(process, source) == "True\n"
        said = run(process, MULTIPLY)
    assert said == ("2\n" if tier == 3 else "RuntimeError: can't start new thread")


@ALL
def test_threads_are_counted_or_there_are_none(tier):
    source = """
import threading
threading.stack_size(65536)
started, ended = [], threading.Event()
try:
    for _ in range(60):
        started.append(threading.Thread(target=ended.wait, daemon=True))
        started[-1].start()
except RuntimeError:
    started.pop()
print(len(started))
ended.set()
"""
    count = int(outcome(tier, source))
    assert {3: 0 < count < confine.MOST_THREADS, 2: count == 0, 0: count == 60}[tier]


def test_a_process_with_threads_must_not_fork():
    program = """
import threading, time
from autograder import confine
confine.require_one_thread()
threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
try:
    confine.require_one_thread()
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert "must have one thread, and this one has 2" in done.stdout


def test_a_warm_process_has_all_that_a_training_needs():
    """The first step of an optimizer loads hundreds of modules: the zygote does it for all its children."""
    program = """
import sys
from autograder.student import warm
warm(["torch"])
before = set(sys.modules)
import torch
x = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.Adam([x])
torch.distributions.Normal(x, 1.0).log_prob(torch.ones(2)).sum().backward()
optimizer.step()
print(len(before) > 500, sorted(set(sys.modules) - before), torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True [] 1\n"


HOLDS = {seccomp.EQUAL: operator.eq, seccomp.AT_LEAST: operator.ge, seccomp.HAS_BITS: operator.and_}


def answer(program, architecture, number, argument=0):
    """What a filter says to a system call, worked out step by step."""
    data = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: architecture, seccomp.FIRST_ARGUMENT: argument}
    steps, place, value = list(struct.iter_unpack("<HBBI", program)), 0, None
    while steps[place][0] != seccomp.RETURN:
        kind, yes, no, constant = steps[place]
        if kind == seccomp.LOAD:
            value, skipped = data[constant], 0
        else:
            skipped = yes if HOLDS[kind](value, constant) else no
        place += 1 + skipped
    return steps[place][3]


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_denies_what_it_should_and_nothing_else(machine):
    column, architecture = seccomp.ARCHITECTURES[machine]
    numbers, refused = seccomp.denied(machine), seccomp.REFUSE | seccomp.EPERM
    assert len(numbers) == len(set(numbers)) > 90
    threads, none = (seccomp.program(machine, 7, threads) for threads in (True, False))
    clone, clone3, kill, tgkill, limit = (
        each[column]
        for each in (seccomp.CLONE, seccomp.CLONE3, seccomp.KILL, seccomp.TGKILL, seccomp.PRLIMIT)
    )
    for number in {*range(600), 2**30 - 1} - {clone, clone3, kill, tgkill, limit}:
        expected = refused if number in numbers else seccomp.ALLOW
        assert answer(threads, architecture, number) == answer(none, architecture, number) == expected
    for number, argument, expected in [
        (clone, seccomp.CLONE_THREAD | 0x100, seccomp.ALLOW),
        (clone, 17, refused),
        (clone3, 0, seccomp.REFUSE | seccomp.ENOSYS),
        *((each, 7, seccomp.ALLOW) for each in (kill, tgkill)),
        *((each, 8, refused) for each in (kill, tgkill)),
        (limit, 0, seccomp.ALLOW),
        (limit, 8, refused),
    ]:
        assert answer(threads, architecture, number, argument) == expected
    assert answer(none, architecture, clone, seccomp.CLONE_THREAD) == seccomp.REFUSE | seccomp.EAGAIN
    assert answer(threads, architecture + 1, 0) == seccomp.KILL_PROCESS
    assert answer(seccomp.program("x86_64", 7, True), 0xC000003E, seccomp.X32) == seccomp.KILL_PROCESS


def test_the_filter_has_the_numbers_of_the_kernels_headers():
    assert {41, 59, 101} <= set(seccomp.denied("x86_64"))  # socket, execve, ptrace
    assert {198, 221, 117} <= set(seccomp.denied("aarch64"))


def test_the_files_of_the_sandbox_are_listed_and_no_more(tmp_path):
    folder = sandbox.visible_modules(tmp_path, ("coupling",))
    ours = {str(path.relative_to(folder / "autograder")) for path in (folder / "autograder").rglob("*.py")}
    assert ours == {f"{name}.py" for name in sandbox.VISIBLE}
    assert not (folder / "flowkit" / "coupling.py").exists()
    assert (folder / "flowkit" / "flow.py").exists()
    program = "import sys, autograder.student; print([m for m in sys.modules if m.startswith('autograder')])"
    environment = {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True, cwd="/"
    )
    assert "autograder.grade" not in done.stdout
    assert (
        str(folder)
        in subprocess.run(
            [sys.executable, "-c", "import autograder; print(autograder.__file__)"],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
            cwd="/",
        ).stdout
    )


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
    require(3)
    monkeypatch.setattr(sandbox, "SYSTEM", ())
    monkeypatch.setattr(sandbox, "DEVICES", ("/dev/nothing",))
    with pytest.raises(sandbox.SandboxError, match="nothing"):
        sandbox.Zygote(3, (), [], sandbox.Limits())


@pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock")
def test_landlock_leaves_what_is_allowed(tmp_path):
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "file").write_text("text")
    (tmp_path / "write").mkdir()
    child = os.fork()
    if child == 0:
        landlock.restrict(
            {str(tmp_path / "read"): landlock.TO_READ, str(tmp_path / "write"): landlock.TO_WRITE}
        )
        assert (tmp_path / "read" / "file").read_text() == "text"
        (tmp_path / "write" / "file").write_text("x")
        refused = []
        for act in (
            lambda: (tmp_path / "read" / "new").write_text("x"),
            lambda: (tmp_path / "write" / "folder").mkdir(),
            Path("/etc/hostname").read_text,
            lambda: os.listdir("/"),
        ):
            try:
                act()
            except PermissionError:
                refused.append(act)
        os._exit(len(refused))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4


def test_system_calls_that_fail_say_so():
    with pytest.raises(OSError, match="Invalid argument"):
        linux.prctl(999_999)
    assert confine.memory_taken() > 2**20


def test_what_another_system_lacks_is_missed_when_it_is_called_and_not_before():
    assert linux._function("no_such_function") is None
