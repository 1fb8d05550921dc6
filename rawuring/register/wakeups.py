"""Eventfds: being woken by completions without waiting in the kernel.

May import abi, errors, syscalls.
"""

from __future__ import annotations

from .. import abi
from .calling import call, fd_array

__all__ = ["eventfd", "unregister_eventfd"]


def eventfd(fd: int, event_fd: int, *, only_async: bool = False) -> None:
    """Let completions signal `event_fd`; with `only_async` those alone that a worker thread of the kernel made.

    A batch may signal once: take it as a hint and drain the CQ. What waits by poll, as receives
    do, is completed without a worker: `only_async` never signals it.

    Since      Linux 5.2 (`only_async` 5.6)     Man   io_uring_register_eventfd(3), io_uring_register_eventfd_async(3)
    Errors     EBUSY there is one already; EINVAL not an eventfd
    """
    verb = abi.Register.EVENTFD_ASYNC if only_async else abi.Register.EVENTFD
    call(fd, verb, fd_array([event_fd]), 1)


def unregister_eventfd(fd: int) -> None:
    """Drop the eventfd.

    Since      Linux 5.2            Man   io_uring_unregister_eventfd(3)
    Errors     ENXIO there is none
    """
    call(fd, abi.Register.UNREGISTER_EVENTFD)
