"""A load over streams on an io_uring, in the raw layer of rawuring: one system call for all that a turn receives and
sends.

Imports its neighbours and rawuring. Needs Linux 6.0.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Sequence

from rawuring import Ring, UnsupportedError, abi
from tools.load_parts.base import LoadError, ceil_power
from tools.load_parts.streams import DEAF_PIECE, Connection, Deaf, Shape, Streams

SENDS = 1 << 20
"""Added to the index of a connection in the user_data of its sends."""
DEAF = 2 * SENDS
"""Added to the index of a deaf peer in the user_data of its sends."""

MOST_CONNECTIONS = 16_384
MOST_BUFFER = 1 << 18
MOST_BUFFERS = 1 << 26


class RingStreams(Streams):
    """Each connection has one multishot receive, which takes its buffers from a ring that all share, and the fixed
    slot of its index.
    """

    backend = "ring"

    def __init__(self, socks: Sequence[socket.socket], shape: Shape, deaf: Sequence[socket.socket] = ()) -> None:
        super().__init__(socks, shape, deaf)
        if len(socks) + len(deaf) > MOST_CONNECTIONS:
            raise LoadError(f"more than {MOST_CONNECTIONS:,} connections: use --client-backend epoll")
        # At most a receive and a send to queue for each connection in a turn.
        self.ring = Ring(max(64, ceil_power(2 * len(socks) + len(deaf))), register_ring_fd=True)
        try:
            needs = self.ring.lacks("recv_multishot")
            if needs:
                raise UnsupportedError("a multishot receive", needs)
            buffer_nbytes = min(self.most, MOST_BUFFER)
            count = min(ceil_power(2 * len(socks)), max(2, MOST_BUFFERS // buffer_nbytes))
            self.pool = self.ring.buffer_ring(count, buffer_nbytes)
            self.files = self.ring.file_table(len(socks))
            for connection in self.connections:
                self.files.update(connection.index, [connection.sock])
        except BaseException:
            self.ring.close()
            raise
        self.views = [self.pool.view(bid, buffer_nbytes) for bid in range(count)]
        self.block_addr = ctypes.c_void_p.from_buffer(ctypes.c_char_p(self.block)).value or 0
        self.send_flags = socket.MSG_WAITALL | socket.MSG_NOSIGNAL
        self.fixed = int(abi.SqeFlag.FIXED_FILE)
        # Of a message that is alone on its connection, only a failed send is heard of.
        self.single = self.single and shape.size <= buffer_nbytes
        self.send_sqe_flags = self.fixed | (int(abi.SqeFlag.CQE_SKIP_SUCCESS) if self.single else 0)
        self.poll_first = int(abi.RecvSend.POLL_FIRST)
        self.has_buffer, self.has_more = int(abi.CqeFlag.BUFFER), int(abi.CqeFlag.MORE)
        self.whole = self.has_buffer | self.has_more
        self.bid_shift = abi.CQE_BUFFER_SHIFT

    def close(self) -> None:
        self.views.clear()
        self.ring.close()

    def start(self) -> None:
        super().start()
        for connection in self.connections:
            self.receive(connection)

    def receive(self, connection: Connection) -> None:
        self.ring.sq.prep_recv_multishot(
            connection.index, 0, 0, 0, buf_group=self.pool.bgid, user_data=connection.index, sqe_flags=self.fixed,
            ioprio=self.poll_first,
        )  # fmt: skip

    def send(self, connection: Connection) -> None:
        if connection.sending or not connection.due:
            return
        index, nbytes = connection.index, min(connection.due, self.most)
        at = (self.at[index] + connection.in_flight) % self.period
        self.ring.sq.prep_send(index, self.block_addr + at, nbytes, self.send_flags, user_data=SENDS + index,
                               sqe_flags=self.send_sqe_flags)  # fmt: skip
        connection.sending = 0 if self.single else nbytes
        self.sent(connection, nbytes)

    def send_deaf(self, peer: Deaf) -> None:
        self.ring.sq.prep_send(peer.fd, self.block_addr, min(peer.left, DEAF_PIECE), socket.MSG_NOSIGNAL,
                               user_data=DEAF + peer.index)  # fmt: skip

    def completed(self, user_data: int, res: int, cqe_flags: int) -> None:
        """Whatever completes on one connection."""
        if user_data >= DEAF:
            peer = self.deaf[user_data - DEAF]
            peer.gone = res < 0
            peer.left -= max(res, 0)
            if peer.left and not peer.gone:
                self.send_deaf(peer)
            return
        connection = self.connections[user_data % SENDS]
        if res < 0 and res != -errno.ENOBUFS:
            self.ended(connection, os.strerror(-res))
        if user_data >= SENDS:
            if res != connection.sending:
                self.ended(connection, "a send was cut short")
            connection.sending = 0
        else:
            if not res:
                self.ended(connection, "the server closed it")
            if cqe_flags & self.has_buffer:
                self.received(connection, self.views[cqe_flags >> self.bid_shift][:res])
            if not cqe_flags & self.has_more:
                self.receive(connection)
        self.send(connection)

    def turn(self, timeout_ns: int | None = None) -> None:
        self.ring.submit_and_wait(1, timeout_ns)
        self.begin_turn()
        batch = self.ring.completions()
        for user_data, res, cqe_flags in batch:
            self.completed(user_data, res, cqe_flags)
        self.pool.give_back([flags >> self.bid_shift for _, _, flags in batch if flags & self.has_buffer])

    def run(self, until_ns: int) -> None:
        if not self.single:
            return super().run(until_ns)
        period, size, at, sent_ns = self.period, self.size, self.at, self.sent_ns
        startswith, views, block_addr = self.block.startswith, self.views, self.block_addr
        prep_send, sends = self.ring.sq.prep_send, SENDS
        send_flags, send_sqe_flags, whole = self.send_flags, self.send_sqe_flags, self.whole
        submit_and_wait, completions, give_back = self.ring.submit_and_wait, self.ring.completions, self.pool.give_back
        asked, has_buffer, bid_shift = self.asked.append, self.has_buffer, self.bid_shift
        echoes = 0
        while True:
            submit_and_wait(1)
            self.begin_turn()
            now_ns = self.now_ns
            if now_ns >= until_ns:
                break
            bids = []
            for user_data, res, cqe_flags in completions():
                if res != size or cqe_flags & whole != whole:
                    self.completed(user_data, res, cqe_flags)
                    if cqe_flags & has_buffer:
                        bids.append(cqe_flags >> bid_shift)
                    continue
                bid = cqe_flags >> bid_shift
                start = at[user_data]
                if not startswith(views[bid], start):
                    self.wrong(user_data, views[bid])
                # The message came back whole and as it was sent, and so goes the next one.
                bids.append(bid)
                start += size
                if start >= period:
                    start -= period
                at[user_data] = start
                echoes += 1
                asked(sent_ns[user_data])
                sent_ns[user_data] = now_ns
                prep_send(user_data, block_addr + start, size, send_flags, user_data=sends + user_data,
                          sqe_flags=send_sqe_flags)  # fmt: skip
            give_back(bids)
        self.echoes += echoes
