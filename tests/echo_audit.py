"""Imported by an echo server before it starts: keeps books on the buffers of its pool, and closes them at exit.

Every buffer is in one place at a time: with the kernel, or with the server; and those that a send without a copy may
still read are with the server.
"""

from __future__ import annotations

import atexit
from typing import Any

from echo.modes.multishot import Bundle
from echo.modes.pooled import Lent, Pooled, PooledConnection
from echo.modes.zero_copy import ZeroCopy
from echo.server import RingServer
from rawuring import CqeBlock, Ring, abi
from rawuring.cq import CompletionQueue
from rawuring.sq import SubmissionQueue

modes: list[Pooled] = []
with_kernel: list[int] = []  # in the order in which a ring hands them out
leaving: list[Lent] = []  # what is being sent
read: dict[int, list[Lent]] = {}  # by user_data: what a send without a copy may still read

init, completions, take_block = Pooled.__init__, Ring.completions, CompletionQueue.take_block
give_back, send = Pooled.give_back, ZeroCopy.send_from_pool
send_zc, sendmsg_zc = SubmissionQueue.prep_send_zc, SubmissionQueue.prep_sendmsg_zc


def audited_init(self: Pooled, server: RingServer) -> None:
    init(self, server)
    modes.append(self)
    with_kernel[:] = range(self.pool.count)


def audited_completions(self: Ring) -> list[Any]:
    found = completions(self)
    book(found)
    return found


def audited_take_block(self: CompletionQueue, block: CqeBlock) -> int:
    count = take_block(self, block)
    book(block.cqes(count))
    return count


def book(found: list[Any]) -> None:
    for user_data, res, cqe_flags in found if modes else []:
        if user_data in read:
            if not cqe_flags & abi.CqeFlag.MORE:
                del read[user_data]
        elif cqe_flags & abi.CqeFlag.BUFFER:
            bid = cqe_flags >> abi.CQE_BUFFER_SHIFT
            assert bid in with_kernel, f"buffer {bid} came twice"
            at = with_kernel.index(bid)
            nbuffers = len(modes[0].received_much(res, cqe_flags)) if isinstance(modes[0], Bundle) else 1
            del with_kernel[at : at + max(1, nbuffers)]


def audited_give_back(self: Pooled, bids: list[int]) -> None:
    still_read = {bid for lent in read.values() for bid, _ in lent}
    assert not still_read & set(bids)
    assert not set(with_kernel) & set(bids)
    with_kernel.extend(bids)
    give_back(self, bids)
    if self._columns:
        expected = [self._columns.bids[place % self.pool.count] for place in range(self.ntaken, self.ntaken + len(with_kernel))]
        assert expected == with_kernel, "the books of the columns are wrong"


def audited_send(self: ZeroCopy, connection: PooledConnection, lent: list[Lent]) -> None:
    leaving[:] = lent
    send(self, connection, lent)


def audited_send_zc(self: SubmissionQueue, *arguments: Any, user_data: int) -> None:
    read[user_data] = list(leaving)
    send_zc(self, *arguments, user_data=user_data)


def audited_sendmsg_zc(self: SubmissionQueue, *arguments: Any, user_data: int) -> None:
    read[user_data] = list(leaving)
    sendmsg_zc(self, *arguments, user_data=user_data)


def close_the_books() -> None:
    (mode,) = modes
    assert not mode.connections
    assert not read
    assert sorted(with_kernel + mode.lent) == list(range(mode.pool.count)), "buffers were lost, or came twice"


Pooled.__init__ = audited_init  # type: ignore[method-assign]
Ring.completions = audited_completions  # type: ignore[method-assign,assignment]
CompletionQueue.take_block = audited_take_block  # type: ignore[method-assign]
Pooled.give_back = audited_give_back  # type: ignore[method-assign]
ZeroCopy.send_from_pool = audited_send  # type: ignore[method-assign]
SubmissionQueue.prep_send_zc = audited_send_zc  # type: ignore[method-assign,assignment]
SubmissionQueue.prep_sendmsg_zc = audited_sendmsg_zc  # type: ignore[method-assign,assignment]
atexit.register(close_the_books)
