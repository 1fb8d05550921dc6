"""Trials of what a ring is and has: file tables, other rings, its fd, SQPOLL, its completion queue.

May import its sibling `bench`, abi, register and syscalls.
"""

from __future__ import annotations

import os
import time

from ... import abi, register, syscalls
from ...register.calling import address
from .bench import TrialRing, connected_to, expect, listener, pipe, receive, succeeded

_Flag, _Setup = abi.SqeFlag, abi.Setup


def registered_files() -> str:
    with TrialRing() as ring, pipe() as (reader, writer):
        register.files(ring.fileno(), [reader])
        os.write(writer, b"by slot")
        data = bytearray(64)
        ring.sq.prep_read(0, address(data), len(data), -1, sqe_flags=_Flag.FIXED_FILE)
        res = succeeded("the read", ring.take_one()[1])
    expect(data[:res] == b"by slot", "what was read is not what was written")
    return "a pipe was read by its slot"


def direct_descriptors() -> str:
    with TrialRing() as ring, listener() as server:
        ring.file_table(2)
        ring.sq.prep_accept_direct(server.fileno(), 0, 0, 0, abi.FILE_INDEX_ALLOC)
        ring.submit()
        with connected_to(server) as client:
            slot = succeeded("the accept", ring.take_one()[1])
            data = bytearray(b"hello")
            ring.sq.prep_write(slot, address(data), len(data), 0, sqe_flags=_Flag.FIXED_FILE)
            succeeded("the write", ring.take_one()[1])
            expect(receive(client, 5) == b"hello", "what was received is not what was sent")
            ring.sq.prep_close_direct(slot)
            succeeded("the close", ring.take_one()[1])
    return "a connection was accepted into a slot that the kernel picked"


def msg_ring() -> str:
    with TrialRing() as ring, TrialRing() as other:
        ring.sq.prep_msg_ring(other.fileno(), 42, 43, 0)
        succeeded("the message", ring.take_one()[1])
        user_data, res, _ = other.take_one()
    expect((user_data, res) == (43, 42), "another ring got something else")
    return "another ring got the completion that was sent"


def msg_ring_fd() -> str:
    with TrialRing() as ring, TrialRing() as other, pipe() as (reader, writer):
        register.files(ring.fileno(), [reader])
        other.file_table(2)
        ring.sq.prep_msg_ring_fd(other.fileno(), 0, 1, 43, 0)
        succeeded("the message", ring.take_one()[1])
        other.take_one()
        os.write(writer, b"passed on")
        data = bytearray(64)
        other.sq.prep_read(1, address(data), len(data), -1, sqe_flags=_Flag.FIXED_FILE)
        res = succeeded("the read", other.take_one()[1])
    expect(data[:res] == b"passed on", "what was read is not what was written")
    return "another ring read from the file that was sent"


def registered_ring_fd() -> str:
    with TrialRing() as ring:
        index = register.ring_fd(ring.fileno())
        ring.sq.prep_nop()
        how = abi.Enter.GETEVENTS | abi.Enter.REGISTERED_RING
        succeeded("the enter", syscalls.enter(index, ring.sq.flush(), 1, how))
        expect(len(ring.completions()) == 1, "the request did not complete")
        register.unregister_ring_fd(ring.fileno(), index)
    return "entered by a registered index"


def sqpoll() -> str:
    with TrialRing(_Setup.SQPOLL) as ring:
        ring.sq.prep_nop(user_data=9)
        ring.submit()
        deadline = time.monotonic() + 1
        while not (found := ring.completions()) and time.monotonic() < deadline:
            time.sleep(0.0005)
        expect(bool(found), "a second went by, and the thread did not take the request")
        succeeded("the request", found[0][1])
    return "a request was taken by the kernel's thread"


def cq_overflow() -> str:
    with TrialRing(cq_entries=8) as ring:
        for user_data in range(16):
            if not user_data % 8:
                ring.submit()
            ring.sq.prep_nop(user_data=user_data)
        found = ring.results(16)
    expect(len(found) == 16, "a completion came twice")
    for res in found.values():
        succeeded("a request", res)
    return "16 completions came through a queue of 8"
