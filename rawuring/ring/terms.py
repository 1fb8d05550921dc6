"""The terms of a wait: until when, how long for fewer completions than asked for, and with which signals blocked.

May import abi, errors and mmap_ring. Never enters the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ctypes import addressof, c_char, c_size_t, c_void_p
from operator import index
from struct import Struct

from .. import abi
from ..errors import RawuringError
from ..hints import Final
from ..mmap_ring import Mapping

_NS_PER_S: Final = 1_000_000_000
_NS_PER_US: Final = 1_000
_MAX_MIN_WAIT_NS: Final = ((1 << 32) - 1) * _NS_PER_US

_TIMESPEC_NBYTES: Final = abi.KERNEL_TIMESPEC.nbytes
_GETEVENTS_ARG: Final = Struct("=QIIQ")  # sigmask, sigmask_sz, min_wait_usec, ts
_REG_WAIT: Final = Struct("=qqIIQI28x")  # ts, min_wait_usec, flags, sigmask, sigmask_sz
assert _GETEVENTS_ARG.size == abi.IO_URING_GETEVENTS_ARG.nbytes
assert _REG_WAIT.size == abi.IO_URING_REG_WAIT.nbytes

_EXT_ARG: Final = int(abi.Enter.EXT_ARG)
_EXT_ARG_REG: Final = int(abi.Enter.EXT_ARG_REG)
_ABS_TIMER: Final = int(abi.Enter.ABS_TIMER)
_TS: Final = int(abi.RegWait.TS)


class Terms:
    """What a wait asks for besides a number of completions and a timeout."""

    __slots__ = ("now", "is_absolute", "min_until", "mask")

    def __init__(self, now: Callable[[], int], is_absolute: bool, min_until: int | None, mask: int | None) -> None:
        self.now = now  # the clock of its deadline
        self.is_absolute = is_absolute  # the kernel is told the deadline itself, not the time left
        self.min_until = min_until  # the time.monotonic_ns() from which on one completion is enough
        self.mask = mask  # the signals to block meanwhile: bit n - 1 is signal n


def mask_of(signals: Iterable[int]) -> int:
    """A kernel's sigset_t with these signals."""
    import signal  # only a wait with a mask pays for its enums

    mask = 0
    for number in signals:
        if not 1 <= number < signal.NSIG:
            raise RawuringError(f"there is no signal {number}")
        mask |= 1 << number - 1
    return mask


def min_until(min_wait_ns: int) -> int | None:
    """When a minimum wait of so many nanoseconds from now is over. The kernel counts it in 32 bits of microseconds."""
    if not 0 <= index(min_wait_ns) <= _MAX_MIN_WAIT_NS:
        raise RawuringError(f"min_wait_ns is a number from 0 to {_MAX_MIN_WAIT_NS}, not {min_wait_ns}")
    return time.monotonic_ns() + min_wait_ns if min_wait_ns else None


class EnterArgument:
    """The argument of enters that wait, in memory that is written anew for each.

    A struct io_uring_getevents_arg and the timespec it points to; or, with a `region`, its entry
    `number`, a struct io_uring_reg_wait, of which an enter is told no more than the offset. As made
    it asks for the timeout in `timespec` (seconds, nanoseconds) and nothing else.
    """

    __slots__ = ("arg", "argsz", "enter_flags", "timespec", "_memory", "_mask", "_timespec_addr", "_mask_addr", "_pins")

    def __init__(self, region: Mapping | None = None, number: int = 0) -> None:
        mask = bytearray(abi.SIGSET_NBYTES)
        self._mask = memoryview(mask).cast("Q")
        self._pins = [c_char.from_buffer(mask)]
        self._mask_addr = addressof(self._pins[0])
        if region is None:
            memory = bytearray(_TIMESPEC_NBYTES + _GETEVENTS_ARG.size)
            self._pins.append(c_char.from_buffer(memory))
            self._memory = memoryview(memory)
            self._timespec_addr = addressof(self._pins[1])
            self.arg, self.argsz = c_void_p(self._timespec_addr + _TIMESPEC_NBYTES), c_size_t(_GETEVENTS_ARG.size)
            self.enter_flags = _EXT_ARG
        else:
            offset = number * _REG_WAIT.size
            self._memory = region.view[offset : offset + _REG_WAIT.size]
            self._timespec_addr = 0
            self.arg, self.argsz = c_void_p(offset), c_size_t(_REG_WAIT.size)
            self.enter_flags = _EXT_ARG | _EXT_ARG_REG
        self.timespec = self._memory[:_TIMESPEC_NBYTES].cast("q")
        self._ask(0, has_timeout=True, mask=None)

    def tell(self, deadline: int | None, terms: Terms) -> int:
        """Ask for all that a wait asks for. Returns the Enter flags that go with it."""
        if deadline is not None:
            self.tell_timeout(deadline if terms.is_absolute else max(deadline - terms.now(), 0))
        min_wait_ns = 0 if terms.min_until is None else max(terms.min_until - time.monotonic_ns(), 0)
        self._ask(-(-min_wait_ns // _NS_PER_US), has_timeout=deadline is not None, mask=terms.mask)
        return self.enter_flags | _ABS_TIMER if terms.is_absolute else self.enter_flags

    def tell_timeout(self, timeout_ns: int) -> None:
        """Set the timeout alone."""
        self.timespec[0], self.timespec[1] = divmod(timeout_ns, _NS_PER_S)

    def release(self) -> None:
        """Let go of the region. A second call does nothing."""
        self.timespec.release()
        self._memory.release()

    def _ask(self, min_wait_usec: int, *, has_timeout: bool, mask: int | None) -> None:
        if mask is not None:
            self._mask[0] = mask
        sigmask, sigmask_nbytes = (0, 0) if mask is None else (self._mask_addr, abi.SIGSET_NBYTES)
        if self._timespec_addr:
            ts = self._timespec_addr if has_timeout else 0
            _GETEVENTS_ARG.pack_into(self._memory, _TIMESPEC_NBYTES, sigmask, sigmask_nbytes, min_wait_usec, ts)
        else:
            _REG_WAIT.pack_into(
                self._memory, 0, *self.timespec, min_wait_usec, _TS if has_timeout else 0, sigmask, sigmask_nbytes
            )
