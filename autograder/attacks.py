"""The hostile submissions that `autograder.hostile` lets loose: code that tries one thing each.

All are harmless: small, on loopback, against files and a process that were made for it. What an attacker may
be taken to know stands in names in capitals: see hostile.Ground.
"""

import textwrap
from dataclasses import dataclass

FULL = 6.0  # what the small lesson is worth
ANSWERS = {
    "double": "def double(x):\n    return x * 2\n",
    "norm": "def norm(x):\n    return np.sqrt((x * x).sum())\n",
}

PREAMBLE = """
import builtins, ctypes, gc, os, resource, signal, socket, struct, subprocess, sys, threading, time
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)

def managed():
    print(TOKEN)
"""


@dataclass(frozen=True)
class Attack:
    """One hostile submission.

    family: what kind of harm; effect: what it is after, one of EFFECTS. cell: code above the exercises;
    double, norm: what stands in their cells; after: code below the tests. deserves: its honest score. off:
    the defence without which it works: "split" (tests run elsewhere), "sandbox", "limits"; "" where none
    can be switched off. holds: the tiers that promise to stop it.
    """

    name: str
    family: str
    effect: str
    off: str
    cell: str = ""
    double: str = ""
    norm: str = ""
    after: str = ""
    deserves: float = 0.0
    holds: tuple[int, ...] = (3, 2)


EFFECTS = {
    "points": "its score is higher than its work",
    "less": "its score is lower than its work",
    "secret": "it shows what is kept from students",
    "claim": "it managed what must fail",
    "message": "a server heard from it",
    "file": "a file outside was changed or made",
    "victim": "another process was touched",
    "process": "a process of its stayed behind",
    "processes": "it started processes",
    "threads": "it started threads by the hundred",
    "memory": "it took more memory than it may",
    "slow": "it took more time than it may",
    "neighbour": "the next student's grade or notebook was another",
    "failure": "the engine failed",
}


def _family(name: str):
    def attack(name_, effect, off, cell="", **parts):
        parts = {key: textwrap.dedent(v) if isinstance(v, str) else v for key, v in parts.items()}
        return Attack(name_, name, effect, off, textwrap.dedent(cell), **parts)

    return attack


_cheat, _escape, _exhaust, _corrupt, _persist, _lie = map(
    _family, ("cheating", "escaping", "exhausting", "corrupting", "persisting", "lying")
)

_PATCHED_CHECK = """
    from autograder import check
    check.values = lambda *args, **options: None
"""

CHEATING = [
    _cheat(
        "numpy.allclose is always true",
        "points",
        "split",
        "np.allclose = lambda *args, **options: True",
        norm="def norm(x):\n    return 5.0",
    ),
    _cheat(
        "numpy.allclose is patched while a test runs",
        "points",
        "split",
        norm="""
        def norm(x):
            np.allclose = lambda *args, **options: True
            return 5.0
        """,
    ),
    _cheat(
        "check.values is replaced", "points", "split", _PATCHED_CHECK, double="def double(x):\n    return x"
    ),
    _cheat(
        "check finds nothing wrong",
        "points",
        "split",
        "from autograder import check; check._raise_if_wrong = lambda *args: None",
        double="def double(x):\n    return x",
    ),
    _cheat(
        "compare finds nothing different",
        "points",
        "split",
        "import autograder.diagnosis as d; d.compare = lambda *args, **options: None",
        double="def double(x):\n    return x",
    ),
    _cheat(
        "check is another module",
        "points",
        "split",
        """
        import types, autograder
        fake = types.ModuleType("autograder.check")
        fake.values = lambda *args, **options: None
        fake.rng = np.random.default_rng
        sys.modules["autograder.check"] = autograder.check = fake
        """,
    ),
    _cheat(
        "imports give what the student likes",
        "points",
        "split",
        """
        real = builtins.__import__
        class Yes:
            def __getattr__(self, name): return lambda *args, **options: self
        def hook(name, *args):
            return type("m", (), {"check": Yes()}) if name == "autograder" else real(name, *args)
        builtins.__import__ = hook
        """,
    ),
    _cheat(
        "assertions are dropped from the syntax tree",
        "points",
        "split",
        """
        import ast
        parse = ast.parse
        class Drop(ast.NodeTransformer):
            def visit_Assert(self, node): return ast.Pass()
        def without_assertions(*args, **options):
            return ast.fix_missing_locations(Drop().visit(parse(*args, **options)))
        ast.parse = without_assertions
        """,
    ),
    _cheat(
        "compile gives an empty program",
        "points",
        "split",
        """
        compiled = builtins.compile
        builtins.compile = lambda source, file, *args, **options: compiled(
            "" if "test" in str(file) or "hidden" in str(file) else source, file, *args, **options)
        """,
    ),
    _cheat("exec does nothing", "points", "split", "builtins.exec = lambda *args: None"),
    _cheat(
        "a float that equals everything",
        "points",
        "split",
        """
        class Liar(float):
            def __eq__(self, other): return True
            __hash__ = float.__hash__
        np.allclose = Liar.__eq__
        """,
        norm="def norm(x):\n    return Liar(0)",
    ),
    _cheat(
        "an array whose functions lie",
        "points",
        "split",
        """
        class Liar(np.ndarray):
            def __array_function__(self, function, types, args, options): return True
            def __eq__(self, other): return True
        """,
        norm="def norm(x):\n    return np.zeros(()).view(Liar)",
    ),
    _cheat(
        "an object that answers yes",
        "points",
        "split",
        """
        class Yes:
            def __getattr__(self, name): return self
            def __call__(self, *args, **options): return True
            def __eq__(self, other): return True
            def __array_function__(self, *args): return True
            def __bool__(self): return True
        """,
        norm="def norm(x):\n    return Yes()",
    ),
    _cheat(
        "the reference is called by its name",
        "points",
        "split",
        norm="""
        def norm(x):
            name = "hidden_norm" if "hidden_norm" in globals() else "reference_norm"
            return globals()[name](x)
        """,
    ),
    _cheat(
        "the reference is found in the frames",
        "points",
        "split",
        double="""
        def double(x):
            frame = sys._getframe()
            while frame:
                for names in (frame.f_locals, frame.f_globals):
                    for name in ("reference_double", "hidden_double", "reference"):
                        if name in names:
                            return names[name](x)
                frame = frame.f_back
        """,
    ),
    _cheat(
        "the reference is found in memory",
        "points",
        "split",
        double="""
        def double(x):
            for thing in gc.get_objects():
                if getattr(thing, "__name__", "") in ("reference_double", "hidden_double"):
                    return thing(x)
        """,
    ),
    _cheat(
        "a verdict is forged on the pipe",
        "points",
        "split",
        """
        from autograder import wire
        pipe = socket.socket(fileno=os.dup(3))
        def forge(x):
            wire.send(pipe, wire.pack({"printed": "", "value": None, "error": None}))
            time.sleep(0.3)
        """,
        norm="norm = forge",
        double="double = forge",
    ),
    _cheat(
        "the lesson's numpy is the student's",
        "points",
        "split",
        """
        class Fake:
            allclose = staticmethod(lambda *args, **options: True)
            array = staticmethod(lambda values: values)
        """,
        norm="np = Fake()\ndef norm(x):\n    return 5.0",
    ),
    _cheat(
        "the hidden seed is read",
        "secret",
        "split",
        double="def double(x):\n    print(os.environ.get('AUTOGRADER_SEED'))\n    return x",
    ),
    _cheat(
        "hidden inputs are printed",
        "secret",
        "split",
        double="def double(x):\n    print(x)\n    return x * 2",
        deserves=3.0,
    ),
    _cheat(
        "hidden inputs are raised",
        "secret",
        "split",
        double="""
        def double(x):
            if np.ndim(x) == 0:
                raise ValueError(f"The input was {x}")
            return x * 2
        """,
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs are the text of an assertion",
        "secret",
        "split",
        norm="""
        def norm(x):
            assert len(x) == 2, f"The input was {x[0]:.0f}"
            return np.sqrt((x * x).sum())
        """,
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs are the name of an exception",
        "secret",
        "split",
        norm="""
        def norm(x):
            if len(x) == 1:
                raise type(f"Was{x[0]:.0f}", (Exception,), {})
            return np.sqrt((x * x).sum())
        """,
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs are the text of an outcome",
        "secret",
        "split",
        norm="""
        class NotRight(Exception): pass
        def norm(x):
            if len(x) == 1:
                raise NotRight(f"The input was {x[0]:.0f}")
            return np.sqrt((x * x).sum())
        """,
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs come back as a word",
        "secret",
        "split",
        double="def double(x):\n    return x * 2 if np.ndim(x) else f'{x:.0f}'",
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs come back as a type",
        "secret",
        "split",
        double="def double(x):\n    return x * 2 if np.ndim(x) else type(f'Was{x:.0f}', (), {})()",
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs come back as a key",
        "secret",
        "split",
        double="def double(x):\n    return x * 2 if np.ndim(x) else {int(x): 1}",
        deserves=1.0,
    ),
    _cheat(
        "hidden inputs are kept, and printed below",
        "secret",
        "split",
        double="kept = []\ndef double(x):\n    kept.append(x)\n    return x * 2",
        after="print(kept)",
        deserves=3.0,
    ),
    _cheat(
        "the hidden tests are read from the course",
        "secret",
        "sandbox",
        "print(open(f'{COURSE}/source/00_hostile/hostile.ipynb').read())",
    ),
    _cheat(
        "the master is read", "secret", "sandbox", "print(open(f'{COURSE}/masters/00_hostile.py').read())"
    ),
    _cheat(
        "the gradebook is read", "secret", "sandbox", "print(open(f'{COURSE}/gradebook.db', 'rb').read())"
    ),
    _cheat(
        "another student's work is read",
        "secret",
        "sandbox",
        "print(open(f'{COURSE}/submitted/ann/00_hostile/hostile.ipynb').read())",
    ),
    _cheat(
        "the right answers are read",
        "claim",
        "sandbox",
        "open(f'{PACKAGE}/autograder/answers/coupling.py').read(); managed()",
    ),
    _cheat(
        "a withheld module is read",
        "claim",
        "sandbox",
        "open(f'{PACKAGE}/flowkit/coupling.py').read(); managed()",
    ),
    _cheat(
        "the grader's environment is read",
        "secret",
        "sandbox",
        """
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = open(f"/proc/{process}/environ", "rb").read().split(bytes(1))
            except OSError:
                continue
            print([word for word in words if word.startswith(b"AUTOGRADER_CANARY")])
        """,
    ),
    _cheat(
        "the grader's memory is read through /proc",
        "secret",
        "sandbox",
        """
        with open(f"/proc/{GRADER}/mem", "rb", 0) as file:
            file.seek(ADDRESS)
            print(file.read(40))
        """,
    ),
    _cheat(
        "the grader's memory is read by a system call",
        "secret",
        "sandbox",
        """
        here = ctypes.create_string_buffer(40)
        class Vector(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        local, far = Vector(ctypes.addressof(here), 40), Vector(ADDRESS, 40)
        libc.process_vm_readv(GRADER, ctypes.byref(local), 1, ctypes.byref(far), 1, 0)
        print(here.raw)
        """,
    ),
    _cheat(
        "the grader's descriptor is taken",
        "secret",
        "sandbox",
        """
        grader = libc.syscall(434, GRADER, 0)
        taken = libc.syscall(438, grader, DESCRIPTOR, 0)
        print(os.pread(taken, 100, 0))
        """,
    ),
]

ESCAPING = [
    _escape("TCP", "message", "sandbox", "socket.create_connection(('127.0.0.1', TCP), 1).sendall(b'out')"),
    _escape(
        "UDP",
        "message",
        "sandbox",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'out', ('127.0.0.1', UDP))",
    ),
    _escape(
        "TCP by system calls",
        "message",
        "sandbox",
        """
        number = libc.syscall(41, 2, 1, 0)
        address = struct.pack("=HH4s8x", 2, socket.htons(TCP), bytes([127, 0, 0, 1]))
        assert libc.syscall(42, number, address, 16) == 0
        os.write(number, b"out")
        """,
    ),
    _escape(
        "a Unix socket",
        "message",
        "sandbox",
        "s = socket.socket(socket.AF_UNIX); s.connect(UNIX); s.sendall(b'out')",
    ),
    _escape(
        "an abstract Unix socket",
        "message",
        "sandbox",
        "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + ABSTRACT); s.sendall(b'out')",
    ),
    _escape("a file is written", "file", "sandbox", "open(f'{OUT}/new', 'w').write('out')"),
    _escape("a file is emptied", "file", "sandbox", "open(f'{OUT}/target', 'w')"),
    _escape("a file is deleted", "file", "sandbox", "os.unlink(f'{OUT}/target')"),
    _escape("a file is moved", "file", "sandbox", "os.rename(f'{OUT}/target', f'{OUT}/moved')"),
    _escape("a folder is made", "file", "sandbox", "os.mkdir(f'{OUT}/folder')"),
    _escape(
        "a symlink leads out", "file", "sandbox", "os.symlink(OUT, 'way'); open('way/new', 'w').write('out')"
    ),
    _escape(
        "a hard link leads out",
        "secret",
        "sandbox",
        "os.link(f'{OUT}/secret', 'way'); print(open('way').read())",
    ),
    _escape("a program is made setuid", "file", "sandbox", "os.chmod(f'{OUT}/target', 0o4777)"),
    _escape("an owner is changed", "file", "sandbox", "os.chown(f'{OUT}/target', 65534, 65534)"),
    _escape("a program is started", "file", "sandbox", "subprocess.run(['touch', f'{OUT}/new'])"),
    _escape("a shell is started", "file", "sandbox", "os.system(f'echo out > {OUT}/new')"),
    _escape(
        "a program is started from memory",
        "claim",
        "sandbox",
        """
        number = os.memfd_create("program")
        os.write(number, open("/bin/true", "rb").read())
        if os.posix_spawn(f"/proc/self/fd/{number}", ["true"], {}):
            managed()
        """,
    ),
    _escape(
        "32-bit system calls",
        "file",
        "sandbox",
        """
        import mmap
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        page = libc.mmap(None, 4096, 7, 0x62, -1, 0)
        path = f"{OUT}/folder".encode() + bytes(1)
        ctypes.memmove(page + 2048, path, len(path))
        code = b"\\x53\\xb8\\x27\\0\\0\\0\\xbb" + struct.pack("<I", page + 2048)
        code += b"\\xb9\\xff\\x01\\0\\0\\xcd\\x80\\x5b\\xc3"
        ctypes.memmove(page, code, len(code))
        ctypes.CFUNCTYPE(ctypes.c_int)(page)()
        """,
    ),
    _escape("a process is killed", "victim", "sandbox", "os.kill(VICTIM, signal.SIGKILL)"),
    _escape("a process is killed by its thread", "victim", "sandbox", "libc.syscall(234, VICTIM, VICTIM, 9)"),
    _escape(
        "a process is killed by a descriptor",
        "victim",
        "sandbox",
        "libc.syscall(424, libc.syscall(434, VICTIM, 0), 9, None, 0)",
    ),
    _escape(
        "a process is killed by the news on a socket",
        "victim",
        "sandbox",
        """
        import fcntl
        fcntl.fcntl(3, fcntl.F_SETOWN, VICTIM)
        fcntl.fcntl(3, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(3, fcntl.F_SETFL, fcntl.fcntl(3, fcntl.F_GETFL) | os.O_ASYNC)
        """,
        **ANSWERS,
        deserves=FULL,
    ),
    _escape(
        "a process is traced",
        "victim",
        "sandbox",
        "libc.ptrace(16, VICTIM, None, None); time.sleep(0.2); libc.ptrace(8, VICTIM, None, None)",
    ),
    _escape("a process is slowed", "victim", "sandbox", "os.setpriority(os.PRIO_PROCESS, VICTIM, 9)"),
    _escape(
        "a process is tied to a core",
        "victim",
        "sandbox",
        "os.sched_setaffinity(VICTIM, {max(os.sched_getaffinity(0))})",
    ),
    _escape(
        "a process is limited",
        "victim",
        "sandbox",
        "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (17, 17))",
    ),
    _escape(
        "a process is offered to the kernel",
        "victim",
        "sandbox",
        "open(f'/proc/{VICTIM}/oom_score_adj', 'w').write('500')",
    ),
    _escape("new namespaces", "claim", "sandbox", "libc.unshare(0x10020000) == 0 and managed()"),
    _escape(
        "the grader's namespaces",
        "claim",
        "sandbox",
        "libc.setns(os.open(f'/proc/{GRADER}/ns/mnt', 0), 0) == 0 and managed()",
    ),
    _escape("another root", "claim", "sandbox", "os.chroot('/'); managed()"),
    _escape(
        "through /proc to the grader's root",
        "secret",
        "sandbox",
        "print(open(f'/proc/{GRADER}/root{OUT}/secret').read())",
    ),
    _escape(
        "through /proc to the grader's descriptor",
        "secret",
        "sandbox",
        "print(open(f'/proc/{GRADER}/fd/{DESCRIPTOR}').read())",
    ),
]

_HANG = "def double(x):\n    time.sleep(5)\n    return x"

EXHAUSTING = [
    _exhaust(
        "memory",
        "memory",
        "limits",
        """
        kept = []
        try:
            for _ in range(30):
                kept.append(np.ones(2**21))
        except MemoryError:
            pass
        time.sleep(0.4)
        """,
    ),
    _exhaust(
        "memory that is mapped",
        "memory",
        "limits",
        """
        import mmap
        kept = []
        try:
            for _ in range(30):
                kept.append(mmap.mmap(-1, 2**24))
                for place in range(0, 2**24, 4096):
                    kept[-1][place] = 1
        except OSError:
            pass
        time.sleep(0.4)
        """,
    ),
    _exhaust(
        "processes",
        "processes",
        "sandbox",
        """
        for _ in range(20):
            if os.fork() == 0:
                time.sleep(1.5)
                os._exit(0)
        time.sleep(0.4)
        """,
    ),
    _exhaust(
        "threads",
        "threads",
        "limits",
        """
        threading.stack_size(65536)
        try:
            for _ in range(300):
                threading.Thread(target=time.sleep, args=(0.8,), daemon=True).start()
        except RuntimeError:
            pass
        time.sleep(0.3)
        """,
    ),
    _exhaust("a cell without end", "slow", "limits", "end = time.time() + 8\nwhile time.time() < end: pass"),
    _exhaust("a cell that sleeps", "slow", "limits", "time.sleep(8)"),
    _exhaust("a function that sleeps", "slow", "limits", double=_HANG),
    _exhaust("a cell that stops itself", "slow", "", "os.kill(os.getpid(), signal.SIGSTOP)"),
    _exhaust(
        "signals are ignored, without end",
        "slow",
        "limits",
        """
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        time.sleep(8)
        """,
    ),
    _exhaust(
        "output without end",
        "slow",
        "limits",
        "end = time.time() + 8\nwhile time.time() < end: print('x' * 10_000)",
    ),
    _exhaust(
        "errors without end",
        "slow",
        "limits",
        "end = time.time() + 8\nwhile time.time() < end: os.write(2, b'x' * 10_000)",
    ),
    _exhaust(
        "a function that prints megabytes",
        "failure",
        "",
        double="def double(x):\n    print('x' * 50_000_000)\n    return x * 2",
        deserves=3.0,
    ),
    _exhaust(
        "a large file",
        "claim",
        "limits",
        """
        with open("large", "wb") as file:
            for _ in range(6):
                file.write(bytes(2**20))
        managed()
        """,
    ),
    _exhaust(
        "many files",
        "claim",
        "limits",
        """
        for number in range(20):
            with open(f"file{number}", "wb") as file:
                file.write(bytes(2**20))
        managed()
        """,
        holds=(3,),  # tier 2 limits each file, and not their sum
    ),
    _exhaust("open files", "claim", "limits", "kept = [open('/dev/null') for _ in range(200)]\nmanaged()"),
    _exhaust(
        "deep recursion",
        "failure",
        "",
        double="sys.setrecursionlimit(10**8)\ndef double(x):\n    return double(x)",
    ),
    _exhaust("a huge array comes back", "failure", "", double="def double(x):\n    return np.zeros(2**24)"),
    _exhaust("a huge number comes back", "failure", "", norm="def norm(x):\n    return 1 << 40_000_000"),
    _exhaust("a huge list comes back", "failure", "", double="def double(x):\n    return [0] * 2_000_000"),
    _exhaust(
        "a list that holds itself",
        "failure",
        "",
        double="def double(x):\n    kept = []\n    kept.append(kept)\n    return kept",
    ),
    _exhaust(
        "a sequence without end",
        "failure",
        "",
        """
        class Endless:
            def __iter__(self): return self
            def __next__(self): return 1.0
            def __len__(self): return 10**12
            def __getitem__(self, index): return 1.0
        """,
        double="def double(x):\n    return Endless()",
        norm="def norm(x):\n    return Endless()",
    ),
    _exhaust(
        "not a number, everywhere",
        "points",
        "",
        double="def double(x):\n    return np.full(np.shape(x), np.nan)",
        norm="def norm(x):\n    return np.nan",
    ),
    _exhaust(
        "an error with a message of megabytes",
        "failure",
        "",
        double="def double(x):\n    raise ValueError('x' * 30_000_000)",
    ),
    _exhaust(
        "an object that takes long to be shown",
        "slow",
        "limits",
        "class Slow:\n    def __repr__(self):\n        time.sleep(8)\n        return ''\nSlow()",
    ),
    _exhaust(
        "an answer of terabytes is announced",
        "failure",
        "",
        double="def double(x):\n    os.write(3, struct.pack('<4sIQ', b'NFW1', 10, 2**40))\n    time.sleep(3)",
    ),
    _exhaust(
        "an answer that never ends",
        "failure",
        "",
        double="def double(x):\n    os.write(3, struct.pack('<4sIQ', b'NFW1', 2**24, 0))\n    time.sleep(3)",
    ),
    _exhaust(
        "nonsense on the pipe",
        "failure",
        "",
        double="def double(x):\n    os.write(3, os.urandom(10_000))\n    time.sleep(3)",
    ),
    _exhaust("the pipe is closed", "failure", "", "os.close(3)"),
    _exhaust("Python is aborted", "failure", "", double="def double(x):\n    os.abort()"),
    _exhaust(
        "Python is left in every cell",
        "failure",
        "",
        "os._exit(0)",
        double="os._exit(0)",
        norm="os._exit(0)",
        after="os._exit(0)",
    ),
]

CORRUPTING = [
    _corrupt(
        "the gradebook is overwritten",
        "file",
        "sandbox",
        "open(f'{COURSE}/gradebook.db', 'r+b').write(b'full marks')",
    ),
    _corrupt(
        "open descriptors are written to",
        "file",
        "",
        """
        for number in range(4, 1024):
            try:
                os.write(number, b"full marks")
            except OSError:
                pass
        """,
    ),
    _corrupt(
        "the student's own checks are rewritten",
        "claim",
        "sandbox",
        "import autograder.check as c; open(c.__file__, 'a').write('#'); managed()",
    ),
    _corrupt("the zygote is killed", "neighbour", "sandbox", "os.kill(os.getppid(), signal.SIGKILL)"),
    _corrupt("a file in shared memory", "file", "sandbox", "open(f'/dev/shm/{NAME}', 'w').write('out')"),
    _corrupt("a file in /var/tmp", "file", "sandbox", "open(f'/var/tmp/{NAME}', 'w').write('out')"),
    _corrupt("shared memory of System V", "file", "sandbox", "libc.shmget(KEY, 4096, 0o1600)"),
    _corrupt(
        "the neighbour's work is replaced",
        "file",
        "sandbox",
        "open(f'{COURSE}/submitted/ann/00_hostile/hostile.ipynb', 'w').write('{}')",
    ),
]

PERSISTING = [
    _persist(
        "a daemon",
        "process",
        "sandbox",
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(20)
            os._exit(0)
        """,
    ),
    _persist(
        "a program in the background",
        "process",
        "sandbox",
        "subprocess.Popen(['sleep', '20'], start_new_session=True)",
    ),
    _persist("a start-up file", "file", "sandbox", "open(f'{OUT}/.profile', 'w').write('echo out')"),
    _persist(
        "a module that shadows numpy",
        "neighbour",
        "",
        "for name in ('numpy', 'sitecustomize', 'torch'):\n    open(f'{name}.py', 'w').write('left = 1')",
    ),
    _persist(
        "patched libraries",
        "neighbour",
        "",
        "np.allclose = lambda *args: True\nsys.left = builtins.left = 1\nsys.path.append('/')",
    ),
    _persist(
        "signal handlers, threads and exit handlers",
        "neighbour",
        "",
        """
        import atexit
        for number in (10, 12, 14, 15):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=time.sleep, args=(1,)).start()
        atexit.register(time.sleep, 30)
        """,
    ),
    _persist(
        "the environment and the working folder",
        "neighbour",
        "",
        "os.environ['LEFT'] = '1'; os.environ['PYTHONSTARTUP'] = '/x'; os.chdir('/')",
    ),
    _persist("random states", "neighbour", "", "np.random.seed(1); np.random.bytes(1000)"),
    _persist(
        "files in every folder that can be written to",
        "neighbour",
        "",
        """
        for folder in (".", "/tmp", "/dev/shm", os.environ["HOME"], "/course", "/run"):
            try:
                open(f"{folder}/left", "w").write("1")
            except OSError:
                pass
        if os.path.exists("/tmp/left") and os.getcwd() != "/tmp":
            managed()
        """,
    ),
]

LYING = [
    _lie("a check's message is printed", "points", "", "print('✓ Right: double passes its 2 hidden tests.')"),
    _lie(
        "a result is printed",
        "points",
        "",
        'print(\'{"score": 6, "outcome": "right", "grade_id": "double_hidden"}\')',
    ),
    _lie(
        "an outcome of check's is raised",
        "failure",
        "",
        "from autograder import check",
        double="def double(x):\n    raise check.NotRight('hostile.double', 'right', 'full marks')",
        norm="def norm(x):\n    raise check.NotAttempted('hostile.norm', 'right', 'full marks')",
    ),
    _lie(
        "an engine's failure is raised",
        "failure",
        "",
        """
        class EngineFailure(BaseException): pass
        class Gone(BaseException): pass
        """,
        double="def double(x):\n    raise EngineFailure('not my fault')",
        norm="def norm(x):\n    raise Gone('not my fault')",
    ),
    _lie(
        "an error that breaks while it is shown",
        "failure",
        "",
        """
        class Odd(Exception):
            def __str__(self): raise SystemExit
            def _render_traceback_(self): raise SystemExit
        """,
        double="def double(x):\n    raise Odd",
    ),
    _lie(
        "values that break a comparison",
        "failure",
        "",
        """
        odd = iter([float, {1: {2: {3}}}, np.datetime64("NaT"), memoryview(b"x"), np.array([None])] * 9)
        """,
        double="def double(x):\n    return next(odd)",
        norm="def norm(x):\n    return next(odd)",
    ),
    _lie(
        "an object with names of the examiner's",
        "failure",
        "",
        """
        class Object:
            _process = _place = __name__ = __class__ = property(lambda self: 1 / 0)
            def __array__(self, *args, **options): return np.array(["x"])
        """,
        double="def double(x):\n    return Object()",
        norm="def norm(x):\n    return Object()",
    ),
    _lie(
        "exit is called in a test",
        "failure",
        "",
        double="def double(x):\n    sys.exit(0)",
        norm="def norm(x):\n    raise KeyboardInterrupt",
    ),
    _lie(
        "warnings and errors beside right answers",
        "less",
        "",
        "import warnings; warnings.warn('old'); print('error', file=sys.stderr); os.write(2, b'error')",
        **ANSWERS,
        deserves=FULL,
    ),
]

ATTACKS: list[Attack] = [*CHEATING, *ESCAPING, *EXHAUSTING, *CORRUPTING, *PERSISTING, *LYING]
FAMILIES = tuple(dict.fromkeys(attack.family for attack in ATTACKS))
