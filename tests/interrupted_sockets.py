"""More scenarios that are interrupted at every line: sends without copies, bundles, incremental buffers.

Run as `interrupted` runs its own, by test_owned_interrupts. May import what that may.
"""

from __future__ import annotations

import socket

from emulation import HANG_NS
from interrupted import Buffer, Connected, Interrupt, Scenario, check_pool

from rawuring import Operation, Ring, Stream
from rawuring.inflight import BufferOperation, SendStream, ZeroCopyOperation

Outcome = tuple[int, int]


class SendZeroCopy(Scenario):
    """One send without copies, and its release: the data is sent once, and the memory free afterwards."""

    op: ZeroCopyOperation | None = None

    def __init__(self) -> None:
        self.ring = Ring(8)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.theirs = socket.create_connection(listener.getsockname(), timeout=HANG_NS / 1e9)
            self.ours, _ = listener.accept()
        self.data = Buffer(b"hello")

    def act(self) -> None:
        if self.op is None:
            self.op = self.ring.send_zc(self.ours, self.data)
        assert self.op.wait() == 5
        self.op.wait_released()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is None:
            assert self.ring.in_flight == 0, "an operation that nobody got is still there"
        self.act()
        assert self.op is not None and self.op.done
        assert self.theirs.recv(100) == b"hello"
        self.data.append(0)
        self.ring.close()
        self.ours.close()
        self.theirs.close()


class ReceiveBundle(Connected):
    """One recv into several buffers: the data comes once, and the buffers go home."""

    op: BufferOperation | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.buffer_ring(4, 4)
        self.theirs.send(b"0123456789")

    def act(self) -> None:
        if self.op is None:
            self.op = self.ring.recv_select(self.ours, self.pool, bundle=True)
        received = self.op.wait()
        assert received and b"0123456789".startswith(received)

    def go_on(self, interrupt: Interrupt) -> None:
        self.act()
        assert self.op is not None
        if len(self.op.wait()) < 10:
            self.ours.recv(100)  # the kernel may fill fewer than it could
        del self.op
        check_pool(self.ring, self.pool, self.ours, self.theirs)
        self.end()


class Incremental(Connected):
    """Data in parts of two incremental buffers: no part is lent twice, and none is lost."""

    stream: Stream[int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.buffer_ring(2, 16, incremental=True)
        self.lent: list[Outcome] = []
        self.theirs.send(b"00000111112222233333")

    def act(self) -> None:
        if self.stream is None:
            self.stream = self.ring.recv_multishot(self.ours, self.pool)
        while sum(res for res, _ in self.lent) < 20:
            got = self.stream.next()
            if got is None:
                self.stream = self.stream.again()
            else:
                self.lent.append(got)

    def go_on(self, interrupt: Interrupt) -> None:
        self.act()
        assert self.stream is not None
        assert b"".join(self.pool.copy(*each) for each in self.lent) == b"00000111112222233333"
        self.stream.cancel()
        self.stream.wait_cqe(HANG_NS)
        del self.stream
        for each in self.lent:
            self.pool.take(*each)
        # Around and around: a buffer that were lost would be missed, one that was there twice overwritten.
        for i in range(6):
            data = bytes([65 + i]) * 16
            self.theirs.send(data)
            received = b""
            while len(received) < 16:
                received += self.ring.recv_select(self.ours, self.pool).wait(HANG_NS)
            assert received == data
        self.end()


class SendBundle(Connected):
    """Three buffers, filled and sent: each is sent at most once, in order, and can be filled again."""

    op: SendStream | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.send_buffers(4, 8)

    def act(self) -> None:
        for data in (b"0", b"1", b"2"):
            self.pool.put(data)
        self.op = self.ring.send_bundle(self.ours, self.pool)
        self.op.wait()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is None:
            self.op = self.ring.send_bundle(self.ours, self.pool)
        res, _ = self.op.wait_cqe(HANG_NS)
        assert self.pool.free == 4
        if res > 0:
            assert b"012".startswith(self.theirs.recv(100))
        for data in (b"a", b"b", b"c", b"d"):
            self.pool.put(data)
        sending: Operation[int] = self.ring.send_bundle(self.ours, self.pool)
        assert sending.wait(HANG_NS) == 4 and self.theirs.recv(100) == b"abcd"
        self.end()


SCENARIOS: dict[str, type[Scenario]] = {
    each.__name__: each for each in (SendZeroCopy, ReceiveBundle, Incremental, SendBundle)
}
