"""How waits for completions go: their clock, and busy polling of network queues.

May import abi, errors, syscalls.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import abi
from .calling import call

__all__ = ["Napi", "clock", "napi", "napi_add_id", "napi_del_id", "unregister_napi"]


def clock(fd: int, clock_id: int) -> None:
    """Measure the timeouts of enters by time.CLOCK_MONOTONIC (as without this) or time.CLOCK_BOOTTIME.

    It is the clock of Enter.ABS_TIMER, too. TIMEOUT requests carry their own.

    Since      Linux 6.12           Man   io_uring_register_clock(3)
    Errors     EINVAL another clock
    """
    # nr_args is 0: 1 gives EINVAL.
    call(fd, abi.Register.CLOCK, abi.IO_URING_CLOCK_REGISTER.pack(clockid=clock_id))


class Napi(NamedTuple):
    """How a ring polls network queues. `tracking` means nothing before Linux 6.13."""

    busy_poll_usec: int
    prefer_busy_poll: bool
    tracking: int  # an abi.NapiTracking


def napi(fd: int, busy_poll_usec: int, *, prefer_busy_poll: bool = False, tracking: int = 0) -> Napi:
    """Poll the queues of the network cards for so long before a wait sleeps. Returns the settings before.

    The kernel polls the queues that the sockets of the ring's requests are served by; with
    NapiTracking.STATIC those that `napi_add_id` names.

    Since      Linux 6.9 (`tracking` 6.13)          Man   io_uring_register_napi(3)
    Errors     EINVAL an IOPOLL ring, or a kernel without CONFIG_NET_RX_BUSY_POLL
    """
    layout = abi.IO_URING_NAPI
    arg = layout.pack(
        busy_poll_to=busy_poll_usec,
        prefer_busy_poll=int(prefer_busy_poll),
        opcode=int(abi.NapiOp.REGISTER_OP),
        op_param=int(tracking),
    )
    call(fd, abi.Register.NAPI, arg, 1)
    return _settings(arg)


def napi_add_id(fd: int, napi_id: int) -> None:
    """Poll this queue (SO_INCOMING_NAPI_ID names a socket's), after `napi` with NapiTracking.STATIC.

    Since      Linux 6.13           Man   io_uring_register_napi(3)
    Errors     EINVAL not a queue's id, or not static; EEXIST it is polled already
    """
    _change_id(fd, abi.NapiOp.STATIC_ADD_ID, napi_id)


def napi_del_id(fd: int, napi_id: int) -> None:
    """Stop polling a queue that `napi_add_id` named.

    Since      Linux 6.13           Man   io_uring_register_napi(3)
    Errors     EINVAL not a queue's id, or not static; ENOENT it is not polled
    """
    _change_id(fd, abi.NapiOp.STATIC_DEL_ID, napi_id)


def unregister_napi(fd: int) -> Napi:
    """Poll no queues any more. Returns the settings before, `tracking` excepted.

    Since      Linux 6.9            Man   io_uring_unregister_napi(3)
    Errors     EINVAL an IOPOLL ring, or a kernel without CONFIG_NET_RX_BUSY_POLL
    """
    arg = bytearray(abi.IO_URING_NAPI.nbytes)
    call(fd, abi.Register.UNREGISTER_NAPI, arg, 1)
    return _settings(arg)


def _change_id(fd: int, napi_op: abi.NapiOp, napi_id: int) -> None:
    call(fd, abi.Register.NAPI, abi.IO_URING_NAPI.pack(opcode=int(napi_op), op_param=napi_id), 1)


def _settings(arg: bytearray) -> Napi:
    values = abi.IO_URING_NAPI.unpack(arg)
    return Napi(values["busy_poll_to"], bool(values["prefer_busy_poll"]), values["op_param"])
