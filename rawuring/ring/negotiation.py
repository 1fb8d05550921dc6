"""Set-up: io_uring_setup with the best flags that this kernel grants.

May import abi, atomics, errors, syscalls and diagnosis. Never touches the memory of a ring.

Flags that the caller named must be granted. Those that are merely wanted are dropped one by one,
the newest first, for as long as the kernel answers EINVAL. The kernel's release plays no part.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Final

from .. import abi, atomics, syscalls
from ..errors import RawuringError, RingSetupError

_Setup = abi.Setup

WANTED_FLAGS: Final = _Setup.SINGLE_ISSUER | _Setup.DEFER_TASKRUN | _Setup.SUBMIT_ALL | _Setup.NO_SQARRAY
"""The set-up flags that a `Ring` asks for on its own and does without where the kernel lacks them."""

_NOT_YET: Final = _Setup.NO_MMAP | _Setup.REGISTERED_FD_ONLY | _Setup.SQE_MIXED | _Setup.SQ_REWIND

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
    not_yet = setup_flags & _NOT_YET
    if not_yet:
        raise RawuringError(f"{_Setup(not_yet)!r}: a Ring cannot be made with that yet")
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


def set_up(entries: int, named: int, wanted: int, params: bytearray) -> tuple[int, bytearray]:
    """io_uring_setup with the best flags that are granted. Returns the fd and the kernel's answer."""
    if not 0 <= entries < 1 << 32:
        raise RawuringError(f"a ring has 1 to {abi.MAX_ENTRIES} entries: {entries} cannot be had")
    last: OSError | None = None
    named, wanted = int(named), int(wanted)
    for optional in _steps(_compatible(wanted & ~named, named)):
        attempt = bytearray(params)
        abi.IO_URING_PARAMS.put(attempt, "flags", named | _with_requirements(optional, named))
        try:
            return _set_up_patiently(entries, attempt), attempt
        except OSError as error:
            last = error
            if error.errno != errno.EINVAL:
                break
    assert last is not None and last.errno is not None
    from .. import diagnosis  # only a failure pays for it

    asked = abi.IO_URING_PARAMS.unpack(params)
    explained = diagnosis.explain_setup_failure(
        last.errno,
        entries,
        named,
        asked["cq_entries"] if named & _Setup.CQSIZE else None,
        sq_thread_cpu=asked["sq_thread_cpu"] if named & _Setup.SQ_AFF else None,
        wq_fd=asked["wq_fd"] if named & _Setup.ATTACH_WQ else None,
    )
    raise RingSetupError(last.errno, explained.text) from None


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
