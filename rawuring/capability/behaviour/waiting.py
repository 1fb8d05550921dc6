"""Trials of waiting: timeouts, polls, links, cancelling.

May import its sibling `bench`, abi and syscalls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket

from ... import abi, syscalls
from ...register.calling import address
from .bench import MOMENT_NS, Negative, TrialRing, expect, goes_on, outcome, pair, pipe, receive, succeeded, timespec

_Flag = abi.SqeFlag


def wait_timeout() -> str:
    moment = timespec(MOMENT_NS)
    arg = abi.IO_URING_GETEVENTS_ARG.pack(sigmask_sz=abi.SIGSET_NBYTES, ts=address(moment))
    how = abi.Enter.GETEVENTS | abi.Enter.EXT_ARG
    with TrialRing() as ring:
        res = syscalls.enter(
            ring.fileno(), 0, 1, how, ctypes.c_void_p(address(arg)), ctypes.c_size_t(abi.IO_URING_GETEVENTS_ARG.nbytes)
        )
    if res != -errno.ETIME:
        succeeded("the wait", res)
        raise Negative("the wait ended without a completion and without ETIME")
    return "a wait for nothing ended with ETIME"


def linked_requests() -> str:
    with TrialRing() as ring:
        ring.sq.prep_poll_add(-1, select.POLLIN, user_data=1, sqe_flags=_Flag.IO_LINK)
        ring.sq.prep_nop(user_data=2)
        found = ring.results(2)
        expect(found[1] < 0, "a poll of fd -1 succeeded")
        expect(found[2] == -errno.ECANCELED, f"what was linked to a failed request gave {outcome(found[2])}")
        ring.sq.prep_nop(user_data=1, sqe_flags=_Flag.IO_LINK)
        ring.sq.prep_nop(user_data=2)
        order = []
        for user_data, res, _ in ring.take(2):
            succeeded("a request of a chain", res)
            order.append(user_data)
    expect(order == [1, 2], "a chain of two did not run in order")
    return "a chain ran in order, and the rest of one that failed was cancelled"


def linked_timeout() -> str:
    moment = timespec(MOMENT_NS)
    with TrialRing() as ring, pipe() as (reader, _):
        ring.sq.prep_poll_add(reader, select.POLLIN, user_data=1, sqe_flags=_Flag.IO_LINK)
        ring.sq.prep_link_timeout(address(moment), 0, user_data=2)
        found = ring.results(2)
    if found[2] != -errno.ETIME:
        succeeded("the timeout", found[2])
    expect(found[1] == -errno.ECANCELED, f"the request it was linked to gave {outcome(found[1])}")
    return "a poll was cancelled when its time was up"


def timeout_multishot() -> str:
    moment = timespec(MOMENT_NS)
    with TrialRing() as ring:
        ring.sq.prep_timeout(address(moment), 2, abi.Timeout.MULTISHOT)
        _, res, cqe_flags = ring.take_one()
        if res != -errno.ETIME:
            succeeded("the timeout", res)
        goes_on("the timeout", cqe_flags)
        ring.take_one()
    return "one request, two expirations"


def poll_multishot() -> str:
    with TrialRing() as ring, pipe() as (reader, writer):
        ring.sq.prep_poll_multishot(reader, select.POLLIN)
        for _ in range(2):
            ring.submit()
            os.write(writer, b"x")
            _, res, cqe_flags = ring.take_one()
            succeeded("the poll", res)
            goes_on("the poll", cqe_flags)
            os.read(reader, 1)
    return "one request, two events"


def cancel_fd() -> str:
    with TrialRing() as ring, pipe() as (reader, _):
        ring.sq.prep_poll_add(reader, select.POLLIN, user_data=1)
        ring.submit()
        ring.sq.prep_cancel_fd(reader, 0, user_data=2)
        user_data, res, _ = ring.take_one()
        if user_data == 2:
            succeeded("the cancel", res)
        found = {user_data: res, **ring.results(1)}
    succeeded("the cancel", found[2])
    expect(found[1] == -errno.ECANCELED, f"the request on that fd gave {outcome(found[1])}")
    return "a poll was cancelled by the fd it waited for"


def cqe_skip_success() -> str:
    with TrialRing() as ring, pair() as (one, other):
        data = bytearray(b"quiet")
        ring.sq.prep_send(one.fileno(), address(data), len(data), socket.MSG_NOSIGNAL, user_data=1,
                          sqe_flags=_Flag.CQE_SKIP_SUCCESS)  # fmt: skip
        ring.sq.prep_nop(user_data=2)
        user_data, res, _ = ring.take_one()
        expect(user_data == 2, f"a send that was to be silent gave {outcome(res)}")
        expect(receive(other, 5) == b"quiet", "the silent send sent something else")
    return "a send that succeeded left no completion"
