"""The system calls, through libc's `syscall()`: io_uring_setup, io_uring_enter and
io_uring_register, and mmap and munmap for the ring's memory.

May import errors. Never knows what a ring is: it passes integers
and addresses on and hands the kernel's answer back.

EINTR policy: nothing is retried here. `enter` hands -EINTR back, so that the caller
returns to the interpreter, which runs the Python signal handlers, before it waits again.
"""

from __future__ import annotations

import ctypes
import os

from .errors import os_error
from .hints import Final


def _setup_number(machine: str) -> int:
    """The number of io_uring_setup; enter and register are the next two (asm/unistd.h)."""
    if machine == "alpha":
        return 535
    if machine.startswith("mips"):
        return 5425  # the n64 ABI counts from 5000
    return 425  # every architecture whose table was unified in Linux 5.1


NR_SETUP: Final = _setup_number(os.uname().machine)
NR_ENTER: Final = NR_SETUP + 1
NR_REGISTER: Final = NR_SETUP + 2

MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
# Subscription makes a new function object each time, so that each call below has its own prototype.
_setup = _libc["syscall"]
_setup.restype = ctypes.c_long
_setup.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_void_p]

register_call = _libc["syscall"]
"""`register` without the translation of its answer: register_call(NR_REGISTER, fd, opcode, arg_addr, nr_args)."""
register_call.restype = ctypes.c_long
register_call.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint]

# The hot calls have no argtypes: converting through them doubles their cost. Without them ctypes
# passes a Python int as a 32-bit C int, which is what the kernel reads of the fd, the counts
# and the flags. It must not happen to a pointer or a size_t, of which the upper half would be
# undefined (argsz is the seventh argument and travels on the stack), so these two are always
# given as ready-made C objects, never as Python ints.
enter_call_errno = _libc["syscall"]
"""`enter` without the translation of its answer: after -1 `last_errno` has the errno."""
enter_call = ctypes.CDLL(None)["syscall"]
"""The same for the two places where 50 ns count: call
enter_call(NR_ENTER, fd, to_submit, min_complete, enter_flags, None), and after -1 call `enter`:
nobody keeps the errno of this one. None is a NULL `arg`, and argsz may be left out with it: the
kernel reads it only where `arg` is not NULL."""
NO_ARGUMENT: Final = ctypes.c_size_t(0)
"""The `argsz` of an enter without an `arg`."""

_mmap = _libc["mmap"]
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_munmap = _libc["munmap"]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_get_errno = last_errno = ctypes.get_errno
"""The errno of this thread's last call of this module, but for `enter_call`."""


def setup(entries: int, params: bytearray) -> int:
    """io_uring_setup(2): create a ring of `entries` SQEs and return its fd (close-on-exec).

    `params` is a struct io_uring_params (120 bytes); the kernel writes its answer into it.
    It is needed for the duration of the call only. Raises the OSError of the errno.

    Since      Linux 5.1            Man   io_uring_setup(2)
    """
    export = ctypes.c_char.from_buffer(params)
    fd: int = _setup(NR_SETUP, entries, ctypes.addressof(export))
    if fd < 0:
        raise os_error(_get_errno(), "io_uring_setup")
    return fd


def enter(
    fd: int,
    to_submit: int,
    min_complete: int,
    enter_flags: int,
    arg: ctypes.c_void_p | None = None,
    argsz: ctypes.c_size_t = NO_ARGUMENT,
) -> int:
    """io_uring_enter(2): submit and/or wait. Returns the number of SQEs consumed, or -errno.

    `arg` points to a sigset_t (`argsz` 8) or, with Enter.EXT_ARG, to a struct
    io_uring_getevents_arg (`argsz` 24), and is needed for the duration of the call.
    Both are ctypes objects: see the comment above `enter_call`.

    Since      Linux 5.1            Man   io_uring_enter(2)
    """
    result: int = enter_call_errno(NR_ENTER, fd, to_submit, min_complete, enter_flags, arg, argsz)
    return result if result >= 0 else -_get_errno()


def register(fd: int, opcode: int, arg_addr: int | None, nr_args: int) -> int:
    """io_uring_register(2): returns what the verb returns. Raises the OSError of the errno.

    Since      Linux 5.1            Man   io_uring_register(2)
    """
    result: int = register_call(NR_REGISTER, fd, opcode, arg_addr, nr_args)
    if result < 0:
        raise os_error(_get_errno(), "io_uring_register")
    return result


def mmap(addr: int | None, nbytes: int, prot: int, mmap_flags: int, fd: int, offset: int) -> int:
    """mmap(2): returns the address. Raises the OSError of the errno.

    Python's own `mmap` object keeps a duplicate of the fd it maps, and with it the ring, so
    the ring's memory is mapped through this instead.
    """
    result: int | None = _mmap(addr, nbytes, prot, mmap_flags, fd, offset)
    if result is None or result == MAP_FAILED:
        raise os_error(_get_errno(), "mmap")
    return result


def munmap(addr: int, nbytes: int) -> None:
    """munmap(2). Raises the OSError of the errno. Nothing may refer to the memory any more."""
    if _munmap(addr, nbytes) < 0:
        raise os_error(_get_errno(), "munmap")
