"""What a decoder's process gives up before it sees a file, as far as the system lets an ordinary user give it up.

===========  ===============================================================================  ===================
``held``     what it means                                                                    where
===========  ===============================================================================  ===================
``memory``   ``RLIMIT_AS`` of ``settings.decode_memory_bytes``                                Unix
``files``    ``RLIMIT_FSIZE`` 0: nothing can be put into any file; no core dumps              Unix
``rights``   ``PR_SET_NO_NEW_PRIVS``; root's capabilities are dropped                         Linux
``parent``   ``PR_SET_PDEATHSIG``: it dies with its parent                                    Linux
``paths``    Landlock: no file can be opened but Python's own, for reading; nothing can be    Linux 5.13 with
             made, renamed, removed or run                                                    Landlock
``calls``    seccomp: no sockets, no processes, no signals to others, no tracing, mounting,   Linux, x86-64 and
             keys, io_uring, namespaces                                                       AArch64
``network``  a network namespace without any interface, or ``calls``                          Linux
===========  ===============================================================================  ===================

The file that is decoded comes open, through the pipe, so with ``paths`` it is all that can be read. What can be written
to is the pipe and the memory for pixels (``room``), whose size is sealed. On macOS only the
first two hold, and on Windows a time limit alone: there, decode what you would open by hand.

Each step is taken where it is there and said in ``held`` when it was granted; nothing is assumed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

# -- linux/sched.h, linux/prctl.h, linux/capability.h
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
CLONE_THREAD: Final = 0x00010000
PR_SET_PDEATHSIG: Final = 1
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
CAPABILITY_VERSION_3: Final = 0x20080522
CAP_DAC_READ_SEARCH: Final = 1 << 2

# -- linux/landlock.h
LANDLOCK_CREATE_RULESET: Final = 444
LANDLOCK_ADD_RULE: Final = 445
LANDLOCK_RESTRICT_SELF: Final = 446
RIGHTS_OF_ABI: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""Landlock version -> number of rights over files that it knows; they are the lowest bits."""
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
TCP: Final = 0b11
"""Bind and connect, from version 4."""
SCOPED: Final = 0b11
"""Abstract Unix sockets and signals, from version 6."""
SYSTEM_FOLDERS: Final = (
    *("/usr", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/sys/devices/system/cpu"),
)
"""Where libraries and fonts lie."""

# -- linux/seccomp.h, linux/audit.h, asm/unistd.h
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
REFUSE: Final = 0x00050000 | errno.EPERM
ABSENT: Final = 0x00050000 | errno.ENOSYS
ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Name -> (number in a filter, column of the tables below)."""
X32_CALLS: Final = 0x40000000
"""On x86-64, calls from here on are those of another convention."""
CLONE3: Final = 435
"""Its flags are behind a pointer that a filter cannot follow; told that it is absent, libc takes ``clone``."""
CLONE: Final = (56, 220)
TO_OTHERS: Final = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131)}
"""Calls that signal: to itself a process may, that is how it aborts."""
REFUSED: Final = {
    # the network, and any socket
    **{"socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202)},
    **{"connect": (42, 203), "accept4": (288, 242)},
    # other programs and processes
    **{"fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434)},
    **{"pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272), "process_madvise": (440, 440)},
    **{"rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "process_mrelease": (448, 448)},
    # ways around the filter, and the widest doors of the kernel
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "seccomp": (317, 277)},
    **{"unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "personality": (135, 92)},
    # the system
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "swapon": (167, 224)},
    **{"mount_setattr": (442, 442), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430)},
    **{"fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "reboot": (169, 142)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105)},
    **{"finit_module": (313, 273), "delete_module": (176, 106), "acct": (163, 89), "settimeofday": (164, 170)},
    **{"sethostname": (170, 161), "setdomainname": (171, 162), "quotactl": (179, 60), "syslog": (103, 116)},
    # what outlives the process: System V objects, message queues, files of no name are under the limit of files
    **{"shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)},
    # the owner, mode and times of files, which Landlock leaves alone
    **{"chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1)},
    **{"fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1)},
    **{"utimensat": (280, 88), "futimesat": (261, -1), "setxattr": (188, 5), "lsetxattr": (189, 6)},
    **{"fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
}
"""Name of a call that is refused -> its number on each architecture, -1 where there is none."""


@dataclass(slots=True)
class Held:
    """What the system granted; the table above says what each means."""

    memory: bool = False
    files: bool = False
    rights: bool = False
    parent: bool = False
    paths: bool = False
    calls: bool = False
    network: bool = False

    def as_dict(self) -> dict[str, bool]:
        """For the pipe."""
        return asdict(self)


def enter(parent: int, readable: Iterable[str]) -> Held:
    """Give up rights, in the only thread there is and before any decoder is loaded.

    Args:
        parent: process id of the parent, to notice when it died before the signal was set.
        readable: folders that hold code which is still to be loaded; what of Python and the system is known here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = Held()
    try:
        import resource
    except ImportError:  # not a Unix
        return held
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    held.files = True
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        is_root = os.geteuid() == 0
        # root takes the first form; others need a user namespace of their own, where those are allowed
        namespace = libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
        # root's Python may lie in another's folder, which it then has to be able to read
        dropped = (is_root and _drop_capabilities(libc, CAP_DAC_READ_SEARCH)) or _drop_capabilities(libc, 0)
        held.rights = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and dropped
        # the signal is forgotten when rights change: so it comes behind them
        held.parent = libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
        if os.getppid() != parent:
            os._exit(0)
        held.paths = _lock_paths(libc, [*readable, *_python_folders(), *SYSTEM_FOLDERS])
        held.calls = _refuse_calls(libc)
        held.network = namespace or held.calls
    return held


def limit_memory(num_bytes: int) -> bool:
    """Bound the address space; False where the system has no such limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    except (ImportError, ValueError, OSError):
        return False
    return True


def _drop_capabilities(libc: Any, kept: int) -> bool:
    """Keep these capabilities alone."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    return bool(libc.capset(header, struct.pack("<6I", kept, kept, 0, 0, 0, 0)) == 0)


def _python_folders() -> list[str]:
    """Folders that modules and the libraries behind them are loaded from."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *sys.path]
    return [*named, *os.environ.get("LD_LIBRARY_PATH", "").split(":")]


def _lock_paths(libc: Any, readable: Iterable[str]) -> bool:
    """Landlock: of all files, only those in some folders can be opened, and only for reading."""
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = (1 << RIGHTS_OF_ABI[max(abi for abi in RIGHTS_OF_ABI if abi <= version)]) - 1
    handled = struct.pack("<3Q", rights, TCP if version >= 4 else 0, SCOPED if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in {os.path.realpath(path) for path in readable if path} - {"/"}:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # a folder that is not there needs no rule
            allowed = READ_FILE | READ_DIR if Path(path).is_dir() else READ_FILE
            libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("<Qi", allowed, place), 0)
            os.close(place)
        return bool(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


# -- a filter of system calls: linux/filter.h

LOAD: Final = 0x20
IF_EQUAL: Final = 0x15
IF_NOT_LESS: Final = 0x35
IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06
NUMBER_AT: Final = 0
ARCHITECTURE_AT: Final = 4
FIRST_ARGUMENT_AT: Final = 16


def _filter(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """(code, steps if true, steps if false, number) of each instruction."""
    architecture, column = ARCHITECTURES[machine]
    code = [(LOAD, 0, 0, ARCHITECTURE_AT), (IF_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    code.append((LOAD, 0, 0, NUMBER_AT))
    if machine == "x86_64":
        code += [(IF_NOT_LESS, 0, 1, X32_CALLS), (RETURN, 0, 0, REFUSE)]
    for numbers in REFUSED.values():
        if numbers[column] >= 0:
            code += [(IF_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, REFUSE)]
    code += [(IF_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]
    # with its first argument: a thread of its own, a signal to itself
    asked = [(CLONE[column], IF_ANY_BIT, CLONE_THREAD)]
    asked += [(numbers[column], IF_EQUAL, pid) for numbers in TO_OTHERS.values()]
    for number, test, value in asked:
        code += [(IF_EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT), (test, 0, 1, value)]
        code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    return [*code, (RETURN, 0, 0, ALLOW)]


def _refuse_calls(libc: Any) -> bool:
    """seccomp: refuse the calls that no decoder needs."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    code = _filter(machine, os.getpid())
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *one) for one in code))
    program = struct.pack("<H6xQ", len(code), ctypes.addressof(instructions))
    return bool(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0) == 0)
