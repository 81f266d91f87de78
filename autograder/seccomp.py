"""A seccomp filter for a process that runs a student's code: what it may ask of the kernel.

It may compute, start threads where something counts them, read and write files that it can reach, and use the
descriptors that it has. It may not start processes, open sockets, touch other processes, or use what outlives
it. What is denied fails with EPERM, as an error in the student's code. The filter is classic BPF, as in
seccomp(2); it cannot be taken off again.
"""

import ctypes
import functools
import os
import platform
import struct

from autograder import linux

# name:number on x86-64:number on arm64 (and all that have the generic table), from the kernel's unistd.h
DENIED = """
# New processes, programs and namespaces
fork:57:- vfork:58:- execve:59:221 execveat:322:281 unshare:272:97 setns:308:268
# Other processes
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 process_madvise:440:440
process_mrelease:448:448 kcmp:312:272 pidfd_open:434:434 pidfd_getfd:438:438 pidfd_send_signal:424:424
tkill:200:130 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 setpriority:141:140
sched_setscheduler:144:119 sched_setparam:142:118 sched_setattr:314:274 ioprio_set:251:30
migrate_pages:256:238 move_pages:279:239
# The network, and descriptors sent to others
socket:41:198 socketpair:53:199 bind:49:200 connect:42:203 listen:50:201 accept:43:202 accept4:288:242
sendmsg:46:211 sendmmsg:307:269 recvmmsg:299:243
# What outlives a process, or holds memory that no limit counts
shmget:29:194 shmat:30:196 shmctl:31:195 msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187
semget:64:190 semop:65:193 semctl:66:191 semtimedop:220:192 mq_open:240:180 mq_unlink:241:181 keyctl:250:219
add_key:248:217 request_key:249:218 memfd_create:319:279 memfd_secret:447:447
# Large and rarely needed parts of the kernel
io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427 io_setup:206:0 io_submit:209:2
bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 modify_ldt:154:- lookup_dcookie:212:18
nfsservctl:180:42 name_to_handle_at:303:- open_by_handle_at:304:- fanotify_init:300:262 quotactl:179:60
quotactl_fd:443:443 personality:135:92
# Mounts and the machine
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 fsopen:430:430 fsconfig:431:431 fsmount:432:432
fspick:433:433 move_mount:429:429 open_tree:428:428 mount_setattr:442:442 swapon:167:224 swapoff:168:225
acct:163:89 reboot:169:142 kexec_load:246:104 kexec_file_load:320:294 init_module:175:105
finit_module:313:273 delete_module:176:106 syslog:103:116 settimeofday:164:170 clock_settime:227:112
clock_adjtime:305:266 adjtimex:159:171 sethostname:170:161 setdomainname:171:162 iopl:172:- ioperm:173:-
vhangup:153:58
# Owners and modes, which Landlock leaves alone
chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92:- fchown:93:55 lchown:94:-
fchownat:260:54 utime:132:- utimes:235:- utimensat:280:88 futimesat:261:- setxattr:188:5 lsetxattr:189:6
fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16 mknod:133:- mknodat:259:33
# Who one is
setuid:105:146 setgid:106:144 setgroups:116:159 setreuid:113:145 setregid:114:143 setresuid:117:147
setresgid:119:149 setfsuid:122:151 setfsgid:123:152 capset:126:91
"""

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
CLONE, CLONE3, PRLIMIT, KILL, TGKILL = (56, 220), (435, 435), (302, 261), (62, 129), (234, 131)
CLONE_THREAD = 0x10000
X32 = 0x40000000  # the other numbering of system calls on x86-64

ALLOW, REFUSE, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000  # refuse: with an errno
EPERM, EAGAIN, ENOSYS = 1, 11, 38
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

SET_SECCOMP, FILTER = 22, 2  # prctl


def is_known() -> bool:
    """Whether the numbers of this machine's system calls are in the table."""
    return platform.machine() in ARCHITECTURES


def denied(machine: str) -> list[int]:
    """The numbers of the system calls that are denied whatever their arguments."""
    column = 1 + ARCHITECTURES[machine][0]
    words = [word.split(":") for line in DENIED.splitlines() if line[:1] != "#" for word in line.split()]
    return [int(word[column]) for word in words if word[column] != "-"]


@functools.cache  # a zygote makes it once: at tier 3 it is the same for all children
def program(machine: str, process: int, threads: bool) -> bytes:
    """The filter for one process, which may signal itself alone, and start threads or none."""
    column, architecture = ARCHITECTURES[machine]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL_PROCESS)]
    # clone3 hides its flags behind a pointer: the C library then takes clone.
    steps += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, REFUSE | ENOSYS)]
    if threads:
        steps += _only_if(CLONE[column], (HAS_BITS, CLONE_THREAD))
    else:
        steps += [(EQUAL, 0, 1, CLONE[column]), (RETURN, 0, 0, REFUSE | EAGAIN)]
    steps += _only_if(KILL[column], (EQUAL, process))
    steps += _only_if(TGKILL[column], (EQUAL, process))
    steps += _only_if(PRLIMIT[column], (EQUAL, 0))
    steps += [*_tree(_runs(denied(machine)), 0), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE | EPERM)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _runs(numbers):
    """Numbers in a row that have one answer: the first of each run, and whether they are denied."""
    runs = [(0, False)]
    for number in sorted(numbers):
        if runs[-1][0] == number:
            runs[-1] = number, True
        else:
            runs.append((number, True))
        runs.append((number + 1, False))
    return runs


def _tree(runs, behind):
    """Steps that find the run of a number by halving: of a new filter the kernel asks every number there is.

    behind: how many more steps there are before the two that end, of which the second denies.
    """
    if len(runs) == 1:
        return []
    middle = len(runs) // 2
    above = _tree(runs[middle:], behind)
    below = _tree(runs[:middle], len(above) + behind)
    end = len(below) + len(above) + behind
    to_above = len(below) if above else end + runs[middle][1]
    to_below = 0 if below else end + runs[0][1]
    return [(AT_LEAST, to_above, to_below, runs[middle][0]), *below, *above]


def _only_if(number, condition):
    """The call is allowed if its first argument is as it should, and refused otherwise."""
    test, value = condition
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (test, 0, 1, value),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE | EPERM),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def restrict(threads: bool) -> None:
    """Puts the filter on this process, for good. threads: whether it may start any. Raises OSError where the
    kernel has no seccomp.
    """
    steps = program(platform.machine(), os.getpid(), threads)
    filter_ = _Program(len(steps) // 8, steps)
    linux.no_new_privileges()
    linux.prctl(SET_SECCOMP, FILTER, ctypes.addressof(filter_))
