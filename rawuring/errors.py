"""The exceptions of rawuring, and the turning of an errno into the right OSError.

May import the standard library only. Never talks to the kernel.

Three kinds of failure stay apart:

* `res < 0` in a completion is data: nothing is raised until somebody asks for the
  value with `Operation.wait()`, which raises the OSError of that errno.
* A system call that failed is an OSError with its errno.
* A use of this library that cannot work is a RawuringError whose text says what to do
  instead.

Example
    from rawuring import BufferUseError, Ring

    with Ring() as ring:
        print(ring.openat("/no/such/file").wait_cqe())  # (-2, 0)
        try:
            ring.openat("/no/such/file").wait()
        except FileNotFoundError as error:
            print(error.errno)                          # 2
        try:
            ring.read(0, b"read-only")
        except BufferUseError:
            print(ring.in_flight)                       # 0
"""

from __future__ import annotations

import errno
import os


class RawuringError(Exception):
    """A use of rawuring that cannot work. The text says what to do instead."""


class RingSetupError(RawuringError, OSError):
    """io_uring_setup(2) failed: `errno` is the kernel's, the text says why and what to do."""

    def __init__(self, errno_value: int, text: str) -> None:
        # OSError takes (errno, text) and fills the attributes; RawuringError adds nothing.
        OSError.__init__(self, errno_value, text)

    def __str__(self) -> str:
        return str(self.strerror)


class RingClosedError(RawuringError, ValueError):
    """The ring is closed, like ValueError of a closed file."""

    def anew(self) -> RingClosedError:
        """The same to raise once more: one object raised again and again would keep every frame it came through."""
        return type(self)(*self.args)


class ForkedRingError(RingClosedError):
    """The ring was made by the parent of this process and works only there."""


class WrongThreadError(RawuringError):
    """A ring works only in the thread that made (or enabled) it."""


class SubmissionQueueFullError(RawuringError):
    """Every SQE is taken: submit, then queue again."""


class SqeBlockFullError(RawuringError):
    """Every SQE of a block is written: make a larger block, or clear this one."""


class NestedWaitError(RawuringError):
    """A callback waited for a completion, which only the code that runs callbacks can bring."""


class BufferUseError(RawuringError, TypeError):
    """An object that cannot be the memory, group of buffers or file that is asked for.

    Memory that is read-only, not contiguous or movable; a part that is not inside its buffer; something
    of another kind. (A group or table that is closed, or of another ring, is an OutOfOrderError.)
    """


class OutOfOrderError(RawuringError):
    """Calls that are each right came in an order that cannot work."""


class UnsupportedError(RawuringError, NotImplementedError):
    """This kernel lacks what was asked for. `needs` is the release that brought it."""

    def __init__(self, what: str, needs: str) -> None:
        super().__init__(f"{what} needs Linux {needs}, and this kernel does not have it")
        self.what = what
        self.needs = needs


class LostCompletionsError(RawuringError):
    """The kernel had no memory for completions and dropped them (EBADR): the ring's state is unknown."""


# The kernel's own codes for a call to be made again after a signal, which programs are not meant to see:
# ERESTARTSYS and those beside it. io_uring gives them away where a cancellation interrupts a worker
# thread in the middle of an openat, for instance (seen on Linux 6.18), and says EINTR in a read.
RESTARTS = (512, 513, 514, 516)


def os_error(errno_value: int, what: str) -> OSError:
    """The OSError (of the subclass Python gives this errno) for a call named `what`."""
    if errno_value in RESTARTS:
        errno_value = errno.EINTR
    return OSError(errno_value, f"{what}: {os.strerror(errno_value)}")
