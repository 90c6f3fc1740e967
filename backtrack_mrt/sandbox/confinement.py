"""What a process gives up before it runs code that nobody has read.

It keeps what computing needs: memory, time, the pipes that it has. The kernel refuses everything else (seccomp, an
allow-list): no file is opened, no process or thread is started, no signal sent, no socket made, no limit raised. Time,
memory and file size are limited on top; a process of root's becomes nobody. Linux on x86-64 and AArch64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

_NOBODY = 65534
_PDEATHSIG, _NO_NEW_PRIVS, _SECCOMP = 1, 38, 22  # linux/prctl.h
_FILTER_MODE = 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # linux/seccomp.h; 1 is EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h, words at a fixed place
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_X32 = 0x40000000

# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn mremap madvise
# nanosleep getpid exit uname gettimeofday getrusage times getuid getgid geteuid getegid getppid sigaltstack futex
# sched_getaffinity sched_yield clock_gettime clock_getres clock_nanosleep exit_group getrandom restart_syscall gettid
# poll/ppoll
_ALLOWED = {
    "x86_64": (
        0xC000003E,
        *(0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 25, 28, 35, 39, 60, 63, 96, 98, 100, 102, 104, 107, 108, 110),
        *(131, 202, 204, 24, 228, 229, 230, 231, 318, 219, 186, 7, 271, 201),
    ),
    "aarch64": (
        0xC00000B7,
        *(63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 216, 233, 101, 172, 93, 160, 169, 165, 153, 174, 176),
        *(175, 177, 173, 132, 98, 123, 124, 113, 114, 115, 94, 278, 128, 178, 73),
    ),
}


def unconfinable() -> str | None:
    """Why untrusted code cannot be confined on this machine, None if it can."""
    if not sys.platform.startswith("linux") or platform.machine() not in _ALLOWED:
        return f"{sys.platform} on {platform.machine()} has no such confinement: Linux on x86-64 or AArch64 has"
    if ctypes.CDLL(None).prctl(21, 0, 0, 0, 0) < 0:  # PR_GET_SECCOMP
        return "this kernel was built without seccomp"
    return None


def dies_with_its_parent() -> None:
    """Have the kernel end this process when the one that forked it ends."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def confine(cpu_s: int, memory_mb: int, keep: tuple[int, ...]) -> None:
    """Give up everything but computing and the descriptors `keep`. Raises OSError where the kernel does not agree."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    highest, low = max(*keep, 3) + 1, 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 16)
    space = memory_mb << 20
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: space,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: highest,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    dies_with_its_parent()  # a change of the user has undone it
    _refuse_system_calls()


def _refuse_system_calls() -> None:
    architecture, *allowed = _ALLOWED[platform.machine()]
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NUMBER_AT), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in allowed:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _REFUSE))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER_MODE, head, 0, 0)):
        if library.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refuses to confine this process")
