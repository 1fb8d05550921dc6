"""Set-up: io_uring_setup with the best flags that this kernel grants.

May import abi, atomics, errors, mmap_ring, syscalls and diagnosis. Never touches the words of a ring.

Flags that the caller named must be granted. Those that are merely wanted are dropped one by one,
the newest first, for as long as the kernel answers EINVAL. The kernel's release plays no part.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

from .. import abi, atomics, syscalls
from ..errors import RawuringError, RingSetupError
from ..hints import Final, NoReturn
from ..mmap_ring import OwnMemory

_Setup = abi.Setup

WANTED_FLAGS: Final = _Setup.SINGLE_ISSUER | _Setup.DEFER_TASKRUN | _Setup.SUBMIT_ALL | _Setup.NO_SQARRAY
"""The set-up flags that a `Ring` asks for on its own and does without where the kernel lacks them."""

_SETUP_RETRY_NS: Final = 300_000_000


def implied_flags(cq_entries: int | None, sq_thread_cpu: int | None, attach_to: object | None) -> int:
    implied = 0
    if cq_entries is not None:
        implied |= _Setup.CQSIZE
    if sq_thread_cpu is not None:
        implied |= _Setup.SQ_AFF
    if attach_to is not None:
        implied |= _Setup.ATTACH_WQ
    return implied


def refuse_flags(setup_flags: int) -> None:
    if setup_flags & _Setup.SQPOLL and not atomics.has_full_fence:
        raise RawuringError(
            "Setup.SQPOLL needs a full memory fence, which cannot be had here: install libatomic (Debian: libatomic1)"
        )


def check_ordering(granted: int) -> None:
    if atomics.backend == "none" and (granted & _Setup.SQPOLL or not granted & _Setup.DEFER_TASKRUN):
        raise RawuringError(
            "this machine orders memory weakly and neither libatomic nor executable memory can be had: only a ring "
            "with Setup.DEFER_TASKRUN and without SQPOLL is safe; install libatomic (Debian: libatomic1)"
        )


def _compatible(wanted: int, named: int) -> int:
    """The wanted flags that go together with those that the caller named."""
    for one, other in abi.SETUP_CONFLICTS:
        if named & one:
            wanted &= ~int(other)
        if named & other:
            wanted &= ~int(one)
    return _with_requirements(wanted, named)


def _with_requirements(wanted: int, named: int) -> int:
    """The wanted flags less those whose requirements are neither wanted nor named."""
    for flag, any_of in abi.SETUP_REQUIRES.items():
        if wanted & flag and not any((wanted | named) & needed for needed in any_of):
            wanted &= ~int(flag)
    return wanted


def _steps(wanted: int) -> Iterator[int]:
    """Sets of wanted flags to try: all of them, then without the newest, and so on."""
    flags = sorted((flag for flag in _Setup if wanted & flag), key=lambda flag: release(flag.since))
    while True:
        yield sum(flags)
        if not flags:
            return
        flags.pop()


def set_up(entries: int, named: int, wanted: int, params: bytearray) -> tuple[int, bytearray, OwnMemory | None]:
    """io_uring_setup with the best flags that are granted.

    Returns its fd (with REGISTERED_FD_ONLY the index), the kernel's answer, and with NO_MMAP the memory.
    """
    if not 0 <= entries < 1 << 32:
        raise RawuringError(f"a ring has 1 to {abi.MAX_ENTRIES} entries: {entries} cannot be had")
    code = 0  # not the exception, whose frames would keep the ring until the next garbage collection
    named, wanted = int(named), int(wanted)
    optional_flags = _compatible(wanted & ~named, named)
    if _contradict(named, optional_flags):
        _explain(errno.EINVAL, entries, named, params)
    for optional in _steps(optional_flags):
        attempt = bytearray(params)
        setup_flags = named | _with_requirements(optional, named)
        abi.IO_URING_PARAMS.put(attempt, "flags", setup_flags)
        try:
            if setup_flags & _Setup.NO_MMAP:
                return _set_up_on_own_memory(entries, attempt)
            return _set_up_patiently(entries, attempt), attempt, None
        except RingSetupError:
            raise
        except OSError as error:
            code = error.errno or 0
            if code != errno.EINVAL:
                break
    _explain(code, entries, named, params)


def _contradict(named: int, optional: int) -> bool:
    """Do the flags that the caller named not go together, or lack what they need? The kernel would only say EINVAL."""
    return any(named & one and named & other for one, other in abi.SETUP_CONFLICTS) or any(
        named & flag and not any((named | optional) & needed for needed in any_of)
        for flag, any_of in abi.SETUP_REQUIRES.items()
    )


def _explain(errno_value: int, entries: int, named: int, params: bytearray) -> NoReturn:
    from .. import diagnosis  # only a failure pays for it

    asked = abi.IO_URING_PARAMS.unpack(params)
    explained = diagnosis.explain_setup_failure(
        errno_value,
        entries,
        named,
        asked["cq_entries"] if named & _Setup.CQSIZE else None,
        sq_thread_cpu=asked["sq_thread_cpu"] if named & _Setup.SQ_AFF else None,
        wq_fd=asked["wq_fd"] if named & _Setup.ATTACH_WQ else None,
    )
    raise RingSetupError(errno_value, explained.text) from None


def _set_up_on_own_memory(entries: int, params: bytearray) -> tuple[int, bytearray, OwnMemory]:
    """io_uring_setup with Setup.NO_MMAP: on ordinary pages, or on a huge one if the kernel wants contiguous memory."""
    try:
        return _set_up_on_pages(entries, params, huge=False)
    except OSError as error:
        if error.errno != errno.EINVAL or entries <= 1:
            raise
        refused = error
    try:
        return _set_up_on_pages(entries, params, huge=True)
    except OSError as error:
        if error.errno == errno.ENOMEM and _takes_one_page(params):
            raise RingSetupError(
                errno.ENOMEM,
                "this kernel wants the memory of Setup.NO_MMAP to be contiguous (as Linux 6.5 to 6.9 do), which more "
                "than a page is on a huge page alone, and none is free: reserve one (`sysctl vm.nr_hugepages=1`), ask "
                "for fewer entries, or leave out NO_MMAP",
            ) from None
    raise refused


def _set_up_on_pages(entries: int, params: bytearray, *, huge: bool) -> tuple[int, bytearray, OwnMemory]:
    asked = abi.IO_URING_PARAMS.unpack(params)
    cq_entries = asked["cq_entries"] if asked["flags"] & _Setup.CQSIZE else 0
    own = OwnMemory(entries, cq_entries, asked["flags"], huge=huge)
    try:
        answer = bytearray(params)
        abi.IO_URING_PARAMS.put(answer, "sq_off.user_addr", own.sqes_addr)
        abi.IO_URING_PARAMS.put(answer, "cq_off.user_addr", own.rings_addr)
        return _set_up_patiently(entries, answer), answer, own
    except BaseException:
        own.mapping.close()
        raise


def _takes_one_page(params: bytearray) -> bool:
    """Would a ring like this be made if its queues fitted a page each?"""
    setup_flags = abi.IO_URING_PARAMS.get(params, "flags") & ~int(_Setup.REGISTERED_FD_ONLY | _Setup.CQSIZE)
    small = bytearray(params)
    abi.IO_URING_PARAMS.put(small, "flags", setup_flags)
    try:
        fd, _, own = _set_up_on_pages(2, small, huge=False)
    except OSError:
        return False
    os.close(fd)
    own.mapping.close()
    return True


def _set_up_patiently(entries: int, params: bytearray) -> int:
    """io_uring_setup; ENOMEM is tried again for a while, since the memory of a closed ring comes back late."""
    deadline = time.monotonic_ns() + _SETUP_RETRY_NS
    while True:
        try:
            return syscalls.setup(entries, params)
        except OSError as error:
            if error.errno != errno.ENOMEM or time.monotonic_ns() >= deadline:
                raise
        time.sleep(0.01)


def release(text: str) -> tuple[int, int]:
    """(major, minor) of a kernel release such as 6.12.3-amd64. It explains; it never decides."""
    major, _, rest = text.partition(".")
    minor = ""
    for char in rest:
        if not char.isdigit():
            break
        minor += char
    return int(major), int(minor or 0)
