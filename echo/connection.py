"""One echo connection as a state machine without I/O: what the peer gets next, and when to stop reading from it.

A server does the I/O, tells the connection what happened, and reads off it what to do. May import nothing; must
never touch a file descriptor.

    what happened                           call             state afterwards
    the socket did not take these bytes     keep(rest)       unchanged; above HIGH_WATER `reading` turns False
    it took n of the bytes in head()        sent(n)          unchanged; at LOW_WATER `reading` turns True again
    the peer has sent its last byte         end_of_input()   FINISHING: what is queued still goes out
    a reset, or any other error             lost()           LOST: nobody is there to send to

    what to do
    receive more                            while `reading`
    send head()                             while `nqueued`
    close                                   once finished()

Bytes that the socket takes at once never come here: with `nqueued` 0 a server sends what it has received directly,
and calls nothing.
"""

from __future__ import annotations

OPEN, FINISHING, LOST = range(3)

HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024


class Connection:
    """The state of one peer and the bytes it is still owed."""

    __slots__ = ("_filling", "_leaving", "nqueued", "reading", "state")

    def __init__(self) -> None:
        self.state = OPEN
        self.reading = True
        self.nqueued = 0
        # Two buffers, so that bytes can be added while the kernel reads those of an unfinished send.
        self._leaving: memoryview | None = None
        self._filling: bytearray | None = None

    def keep(self, rest: bytes | bytearray | memoryview) -> None:
        """Queue a copy of bytes that were received and not sent, behind those already queued."""
        if self._filling is None:
            self._filling = bytearray(rest)
        else:
            self._filling += rest
        self.nqueued += len(rest)
        if self.nqueued >= HIGH_WATER:
            self.reading = False

    def head(self) -> memoryview:
        """What to send next, not empty while `nqueued`. The bytes stay where they are until `sent` has used them up."""
        if not self._leaving:
            assert self._filling is not None, "nothing is queued"
            self._leaving = memoryview(self._filling)
            self._filling = None
        return self._leaving

    def sent(self, nbytes: int) -> None:
        """The socket took the first `nbytes` of head()."""
        assert self._leaving is not None
        self._leaving = self._leaving[nbytes:] or None
        self.nqueued -= nbytes
        if self.nqueued <= LOW_WATER and self.state == OPEN:
            self.reading = True

    def end_of_input(self) -> None:
        """The peer sends no more; it may still be reading."""
        self.reading = False
        if self.state == OPEN:
            self.state = FINISHING

    def lost(self) -> None:
        """Nothing can be sent or received any more. Memory lent to the kernel by head() stays."""
        self.reading = False
        self.state = LOST

    def finished(self) -> bool:
        """Whether the connection can be closed, as far as its queue knows."""
        return self.state == LOST or (self.state == FINISHING and not self.nqueued)
