"""Answering a whole turn at once, by columns: what the pooled modes do while all goes well.

May import `base.py`, the states of `service.py` and the names of rawuring.

Most turns of a busy server are alike: each completion says that a buffer of the pool has something for a connection
that is free to send, and the answer is a send of that buffer. Then nothing is done per completion. What completed is
copied into a block of CQEs; the sends wait in a block of SQEs, one for each place in the ring of buffers, whose
addresses need not be written anew; descriptor and length come in by assigning columns of the one to columns of the
other; and all of them are queued by one copy.

That a turn is of that kind is asked by column, too. The kernel takes buffers in the order in which the ring has
them, so that the flags of all completions are known beforehand: more is to come, and which buffer it is. Any other
completion differs there: an accept, a send that has failed, an end of input. Such a turn, or one in which a
connection occurs twice or is not free, is for the loop of the mode.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from echo.modes.base import BUFFER_SHIFT, F_BUFFER, F_MORE, IN_PLACE, Cqe
from echo.service import RUNNING
from rawuring import CqeBlock, SqeBlock

if TYPE_CHECKING:
    from echo.modes.pooled import Pooled

EXPECTED = F_MORE | F_BUFFER


class Columns:
    """Takes the completions of a turn and answers them, or says which they are."""

    def __init__(self, mode: Pooled, most: int) -> None:
        """A turn of more than `most` completions is not answered: more sends could not be queued, or the CQ was full."""
        pool = mode.pool
        self._mode = mode
        self._most = most
        self._mask = pool.count - 1
        # By place in the ring of buffers. All is there twice, so that no run of places has to be cut in two.
        places = range(2 * pool.count)
        self.bids = [place & self._mask for place in places]
        self._flags_of = [EXPECTED | bid << BUFFER_SHIFT for bid in range(pool.count)]
        self._expected = memoryview(array("I", self._flags_of * 2))
        self.keys = memoryview(array("Q", bytes(8 * len(places))))
        self._sends = SqeBlock(len(places))
        msg_flags, sqe_flags = mode.send_flags
        for place in places:
            addr = mode.addrs[self.bids[place]]
            self._sends.prep_send(-1, addr, 0, msg_flags, user_data=IN_PLACE | place, sqe_flags=sqe_flags)
        self._to_fd, self.lens, self._addrs = map(self._sends.column, ("fd", "len", "addr"))
        self._taken = CqeBlock(mode.ring.cq.entries)
        self._user_data, self._cqe_flags = map(self._taken.column, ("user_data", "flags"))
        self._fds = self._taken.column("user_data", "i")
        self._res = self._taken.column("res", "I")

    def taker(self) -> Callable[[], list[Cqe] | None]:
        """A function that gives what has completed, or None if that is answered.

        Where nothing else is to be done between turns, it goes on with the next ones by itself. What could change that
        arrives as a completion, which is not for it to answer.
        """
        # All names are bound here: to look them up in each turn would cost half as much as what is done with them.
        mode, most, mask = self._mode, self._most, self._mask
        server, ring, busy, largest = mode.server, mode.ring, mode.busy, mode.ordinary_nbytes
        take_block, put_block, enter = ring.cq.take_block, ring.sq.put_block, ring.submit_and_wait
        batch, give_back = mode.batch, mode.give_back
        taken, user_data, cqe_flags, from_fd, res = self._taken, self._user_data, self._cqe_flags, self._fds, self._res
        sends, to_fd, lens, keys, bids, expected = self._sends, self._to_fd, self.lens, self.keys, self.bids, self._expected

        def take() -> list[Cqe] | None:
            free = server.state == RUNNING and not mode.later and not mode.starved
            while True:
                count = take_block(taken)
                first = mode.ntaken & mask
                end = first + count
                if not (free and 0 < count <= most and cqe_flags[:count] == expected[first:end]):
                    return taken.cqes(count)
                fds, nbytes = from_fd[:count], res[:count]
                each, sizes = set(fds), nbytes.tolist()
                if len(each) != count or not busy.isdisjoint(each) or max(sizes) > largest:
                    return taken.cqes(count)
                to_fd[first:end] = fds
                lens[first:end] = nbytes
                keys[first:end] = user_data[:count]
                put_block(sends, first, count)
                mode.ntaken += count
                mode.nanswered += count
                mode.nanswered_bytes += sum(sizes)
                lent = mode.lent
                if len(lent) < batch:
                    lent += bids[first:end]
                else:
                    mode.lent = bids[first:end]
                    give_back(lent)
                if server.alarm is not None:
                    return None
                server.nenters += 1
                enter()

        return take

    def given_back(self, first: int, bids: list[int]) -> None:
        """These buffers went into the ring from that place on."""
        first &= self._mask
        if self.bids[first : first + len(bids)] == bids:
            return
        flags = array("I", map(self._flags_of.__getitem__, bids))
        addrs = array("Q", map(self._mode.addrs.__getitem__, bids))
        nplaces, nbids = self._mask + 1, len(bids)
        ahead = nplaces - first  # so many places to the end of the ring
        # Where they are, and what of that is there once more: behind the end of the ring, and before its start.
        for place, low, high in (first, 0, nbids), (first + nplaces, 0, min(ahead, nbids)), (0, ahead, nbids):
            if low < high:
                run = slice(place, place + high - low)
                self.bids[run], self._expected[run], self._addrs[run] = bids[low:high], flags[low:high], addrs[low:high]
