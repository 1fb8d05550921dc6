"""What the tests of blocked systems share: a forked child, whose process may be changed for good, and seccomp filters.

Imports rawuring's system call numbers and its diagnosis alone.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import pwd  # noqa: F401  (a child that has become another user could not import it any more)
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from rawuring import syscalls
from rawuring.diagnosis import why_unavailable

RET_KILL_PROCESS = 0x8000_0000
RET_KILL_THREAD = 0
RET_TRAP = 0x0003_0000
RET_ERRNO = 0x0005_0000
RET_ALLOW = 0x7FFF_0000

CALLS = (syscalls.NR_SETUP, syscalls.NR_ENTER, syscalls.NR_REGISTER)

NOBODY = 61_000 + os.getpid() % 2_000
"""A user and group of nobody else's, so that no other process, not even another run, has rings on their account."""


def in_child(work: Callable[[], Any]) -> Any:
    """The result of `work` in a forked child. It may fail or skip the test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            outcome: tuple[str, Any]
            try:
                outcome = ("done", work())
            except pytest.skip.Exception as skipped:
                outcome = ("skipped", str(skipped))
            except BaseException:
                outcome = ("failed", traceback.format_exc())
            with os.fdopen(writer, "wb") as file:
                pickle.dump(outcome, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        octets = file.read()
    _, status = os.waitpid(pid, 0)
    assert octets, f"the child ended with status {status}"
    how, result = pickle.loads(octets)
    if how == "skipped":
        pytest.skip(result)
    assert how == "done", result
    return result


def install_filter(action: int, numbers: tuple[int, ...], *, argument: tuple[int, int] | None = None) -> None:
    """Give `action` to these system calls of this process, for good (seccomp(2)).

    With `argument`, an index and a mask, to those alone whose argument has a bit of the mask in its low half.
    """
    load, jump_if_equal, jump_if_set, give = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, ...|JSET|K, BPF_RET|K
    program = [(load, 0, 0, 0)]
    for number in numbers:
        if argument is None:
            program += [(jump_if_equal, 0, 1, number), (give, 0, 0, action)]
        else:
            index, mask = argument
            low = 16 + 8 * index + (0 if sys.byteorder == "little" else 4)
            program += [
                (jump_if_equal, 0, 4, number), (load, 0, 0, low), (jump_if_set, 0, 1, mask), (give, 0, 0, action),
                (give, 0, 0, RET_ALLOW),
            ]  # fmt: skip
    program.append((give, 0, 0, RET_ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    set_no_new_privs, set_seccomp, mode_filter = 38, 22, 2
    if prctl(set_no_new_privs, 1, 0, 0, 0) or prctl(set_seccomp, mode_filter, ctypes.addressof(head), 0, 0):
        pytest.skip(f"no seccomp filter can be installed here: {os.strerror(ctypes.get_errno())}")


def become_ordinary(groups: tuple[int, ...] = ()) -> None:
    """Be an ordinary user from now on, for good: nobody if this is root, else who this is already."""
    if os.geteuid() == 0:
        os.setgroups(groups)
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limit_memlock(soft_nbytes: int) -> None:
    """Set RLIMIT_MEMLOCK, which without CAP_SYS_RESOURCE cannot be raised again beyond the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if 0 <= hard < soft_nbytes:
        pytest.skip(f"needs a hard RLIMIT_MEMLOCK of {soft_nbytes} bytes, and here it is {hard}")
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft_nbytes, hard))


@pytest.fixture(scope="module", autouse=True)
def ring_possible() -> None:
    found = why_unavailable()
    if found is not None:
        pytest.skip(f"no ring here: {found.sentence}")
