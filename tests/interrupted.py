"""Scenarios that are interrupted at every line of rawuring in turn, for the child process of test_interrupts.

Run as: python interrupted.py SCENARIO. For n = 1, 2, ... a scenario is set up, its `act()` is run
with a trace function that raises KeyboardInterrupt before the n-th line of our own code, and then
`go_on()` uses the ring as a program would that caught it, and asserts that nothing was lost, done
twice or freed too early. It ends with the first n that `act()` does not reach. An emulated machine
is too slow for every line: there, n grows in steps.

May import rawuring, the standard library and emulation.py.
"""

from __future__ import annotations

import errno
import gc
import itertools
import linecache
import os
import socket
import sys
import warnings
import weakref
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from emulation import EMULATED, HANG_NS

import rawuring
from rawuring import Operation, Ring, Stream, abi, syscalls
from rawuring.buffers import BufferGroup
from rawuring.ring import closing

PACKAGE = str(Path(rawuring.__file__).parent) + os.sep
GETEVENTS = int(abi.Enter.GETEVENTS)
STEP = 47 if EMULATED else 1


class Buffer(bytearray):
    """A bytearray whose end can be seen."""


class Interrupt:
    """Raises KeyboardInterrupt before the n-th line of our code, once.

    A line counts the first two times it is reached, and if functions are named, in these alone.
    """

    def __init__(self, n: int, functions: frozenset[str] = frozenset()) -> None:
        self.left = n
        self.functions = functions
        self.reached: Counter[tuple[CodeType, int]] = Counter()
        self.at = ""
        self.source = ""

    def __enter__(self) -> Interrupt:
        sys.settrace(self._called)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(None)
        return kind is KeyboardInterrupt and self.fired

    @property
    def fired(self) -> bool:
        return self.left <= 0

    @property
    def function(self) -> str:
        """The name of the function that was interrupted."""
        return self.at.rpartition(" ")[2]

    def _called(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.functions and frame.f_code.co_name not in self.functions:
            return None
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            line = frame.f_code, frame.f_lineno
            self.reached[line] += 1
            self.left -= self.reached[line] <= 2
            if self.left == 0:
                sys.settrace(None)
                name = frame.f_code.co_filename.removeprefix(PACKAGE)
                self.at = f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"
                self.source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
                raise KeyboardInterrupt
        return self._line


class Scenario:
    """What is done, and what must hold after it was interrupted."""

    leaks: frozenset[str] = frozenset()
    """Functions in which an interrupt may leak an fd."""

    unmaps = False
    """Is it to be looked for mappings of a ring that are left?"""

    functions: frozenset[str] = frozenset()
    """Where to interrupt: in these alone, where the kernel takes its time and other scenarios cover the rest."""

    def act(self) -> None:
        """What is interrupted. Its results go into attributes."""
        raise NotImplementedError

    def go_on(self, interrupt: Interrupt) -> None:
        """Go on as if nothing had happened, check, and close everything."""
        raise NotImplementedError


class Connected(Scenario):
    """A ring and two ends of a connection."""

    setup_flags = 0
    kind = socket.SOCK_STREAM

    def __init__(self) -> None:
        self.ring = Ring(8, self.setup_flags)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, self.kind)

    def end(self) -> None:
        self.ring.close()
        assert not self.ring.in_flight
        self.ours.close()
        self.theirs.close()


class Receive(Connected):
    """Queue one recv and wait for it; the program goes on with the operation, or queues it anew if it has none."""

    op: Operation[int] | None = None
    nbytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(8)
        self.theirs.send(b"hello")

    def act(self) -> None:
        self.op = self.ring.recv(self.ours, self.buffer)
        self.nbytes = self.op.wait()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is None:
            assert self.ring.in_flight == 0, "an operation that nobody got is still there"
            self.op = self.ring.recv(self.ours, self.buffer)
        assert self.op.wait(HANG_NS) == 5
        assert self.nbytes in (0, 5)
        assert self.buffer == b"hello\0\0\0"
        self.buffer.extend(b"unlocked")
        self.ring.nop().wait()
        assert self.ring.in_flight == 0
        self.end()


class ReceiveWithSqThread(Receive):
    """The same where a thread of the kernel reads the submission queue at any time."""

    setup_flags = int(abi.Setup.SQPOLL)
    functions = frozenset({
        "recv", "_begin", "_unqueue", "prep_recv", "has_room", "_turn", "submit_and_wait", "_submit_until", "flush",
        "needs_wakeup", "look", "_complete_enter",
    })  # fmt: skip


class ReceiveAndForget(Connected):
    """Queue and submit a recv, then drop everything: the memory stays as long as the kernel may write to it."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: Buffer | None = Buffer(64)

    def act(self) -> None:
        assert self.buffer is not None
        op = self.ring.recv(self.ours, self.buffer)
        self.ring.submit()
        op.cancel()
        op.cancel()
        self.ring.run_once()

    def go_on(self, interrupt: Interrupt) -> None:
        assert self.buffer is not None
        seen = weakref.ref(self.buffer)
        self.buffer = None
        gc.collect()
        kept = seen() is not None
        self.theirs.send(b"x" * 64)
        if self.ring.setup_flags & abi.Setup.SQPOLL:
            self.ring.submit()
        # Let the kernel do its part without submitting anything.
        syscalls.enter(self.ring.fileno(), 0, 0, GETEVENTS)
        try:
            self.ours.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            assert kept, "the kernel wrote into memory that was freed"
        self.end()
        gc.collect()
        assert seen() is None, "the memory was kept for ever"


class ReceiveAndForgetWithSqThread(ReceiveAndForget):
    """The same where a thread of the kernel reads the submission queue at any time."""

    setup_flags = int(abi.Setup.SQPOLL)
    functions = ReceiveWithSqThread.functions | {"submit", "run_once", "cancel", "_queue"}


class ReceiveMultishot(Connected):
    """Three messages through one multishot receive: each arrives once, in order, and every buffer comes home."""

    kind = socket.SOCK_SEQPACKET
    messages = [b"one", b"two", b"three"]

    stream: Stream[int] | None = None
    lent: tuple[int, int] | None = None
    before = 0  # what was received before it

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.buffer_ring(4, 16)
        self.got: list[bytes] = []
        for message in self.messages:
            self.theirs.send(message)

    def act(self) -> None:
        if self.stream is None:
            self.stream = self.ring.recv_multishot(self.ours, self.pool)
        while len(self.got) < 3:
            self.before = len(self.got)
            self.lent = self.stream.next()
            assert self.lent is not None
            with self.pool.lend(*self.lent) as view:
                self.got.append(bytes(view))
            self.lent = None

    def go_on(self, interrupt: Interrupt) -> None:
        if self.lent is not None:
            if len(self.got) == self.before:
                self.got.append(self.messages[self.before])  # it was handed over, and not looked at
            if interrupt.function in ("lend", "held") or interrupt.source.startswith(("loan = ", "self._pool, self._held")):
                self.pool.give_back(self.pool.held(self.lent[1]))  # the loan had not begun
            self.lent = None
        self.act()
        assert self.got == self.messages
        assert self.stream is not None
        self.stream.cancel()
        res, _ = self.stream.wait_cqe(HANG_NS)
        assert res == -errno.ECANCELED
        del self.stream
        check_pool(self.ring, self.pool, self.ours, self.theirs)
        self.end()


def check_pool(ring: Ring, pool: BufferGroup, ours: socket.socket, theirs: socket.socket) -> None:
    """Every buffer of the pool is the kernel's, once."""
    bids: list[int] = []
    for _ in range(pool.count):
        theirs.send(b"x")
        res, cqe_flags = ring.recv_select(ours, pool).wait_cqe(HANG_NS)
        assert res == 1, f"the pool lacks {pool.count - len(bids)} buffers: {res}"
        bids += pool.held(cqe_flags)
    assert sorted(bids) == list(range(pool.count)), bids
    theirs.send(b"x")
    res, cqe_flags = ring.recv_select(ours, pool).wait_cqe(HANG_NS)
    assert res == -errno.ENOBUFS, "a buffer is there twice"
    ours.recv(1)
    pool.give_back(bids)


class Iterate(ReceiveMultishot):
    """The same by iterating over the stream, with copies."""

    def act(self) -> None:
        if self.stream is None:
            self.stream = self.ring.recv_multishot(self.ours, self.pool)
        if len(self.got) == 3:
            return
        for self.lent in self.stream:
            self.before = len(self.got)
            self.got.append(self.pool.take(*self.lent))
            self.lent = None
            if len(self.got) == 3:
                return


class Select(Connected):
    """One recv into a provided buffer: the data comes once, and the buffer goes home."""

    op: Operation[bytes] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.buffer_ring(2, 16)
        self.theirs.send(b"data")

    def act(self) -> None:
        self.op = self.ring.recv_select(self.ours, self.pool)
        self.op.wait()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is None:
            self.op = self.ring.recv_select(self.ours, self.pool)
        assert self.op.wait(HANG_NS) == b"data"
        assert self.op.wait() == b"data"
        del self.op
        check_pool(self.ring, self.pool, self.ours, self.theirs)
        self.end()


class ReturnBuffers(Connected):
    """Buffers given back in batches, around the end of the ring: each is the kernel's once."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.ring.buffer_ring(4, 16)
        self.held: list[int] = []
        for _ in range(3):
            self.theirs.send(b"x")
            _, cqe_flags = self.ring.recv_select(self.ours, self.pool).wait_cqe()
            self.held += self.pool.held(cqe_flags)

    def act(self) -> None:
        self.pool.drop(self.held)
        self.ring.nop().wait()

    def go_on(self, interrupt: Interrupt) -> None:
        self.pool.drop(self.held)
        self.ring.nop().wait()
        check_pool(self.ring, self.pool, self.ours, self.theirs)
        self.end()


class Accept(Scenario):
    """Three connections through callbacks and `run()`: each is called back once, and no fd is left."""

    op: Operation[int] | None = None

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.clients = [socket.create_connection(self.listener.getsockname(), timeout=HANG_NS / 1e9) for _ in range(3)]
        self.accepted: list[int] = []

    def queue(self) -> Operation[int]:
        return self.ring.accept_multishot(self.listener, callback=self.called)

    def called(self, op: Operation[int], res: int, cqe_flags: int) -> None:
        if res < 0:
            raise op.error(res)
        self.accepted.append(res)
        os.close(res)
        if len(self.accepted) == 3:
            self.ring.stop()

    def act(self) -> None:
        self.op = self.queue()
        self.ring.run()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is None:
            self.op = self.queue()
        if len(self.accepted) < 3:
            self.ring.run()
        assert len(self.accepted) == 3
        for client in self.clients:
            assert client.recv(1) == b""
            client.close()
        self.ring.close()
        self.listener.close()


class AcceptOnce(Accept):
    """The same, one accept after the other."""

    def queue(self) -> Operation[int]:
        return self.ring.accept(self.listener, callback=self.called)

    def called(self, op: Operation[int], res: int, cqe_flags: int) -> None:
        super().called(op, res, cqe_flags)
        if len(self.accepted) < 3:
            while self.op is not None:
                self.op = None
            self.op = self.queue()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.ring.in_flight == 0:
            self.op = None
        super().go_on(interrupt)


class AcceptAndWait(Scenario):
    """`fd = ring.accept(listener).wait()`: the connection is the program's, or closed with the operation, or still there."""

    fd = -1

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.listener.getsockname(), timeout=HANG_NS / 1e9)

    def act(self) -> None:
        self.fd = self.ring.accept(self.listener).wait()

    def go_on(self, interrupt: Interrupt) -> None:
        gc.collect()
        if self.fd >= 0:
            os.close(self.fd)
        self.ring.close()
        gc.collect()
        self.listener.close()
        try:
            assert self.client.recv(1) == b""
        except ConnectionResetError:
            pass  # it was still in the backlog
        self.client.close()


class OpenInto(Scenario):
    """A file opened into a slot that the kernel picks: taken once, or emptied."""

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.files = self.ring.file_table(2)
        self.fixed: rawuring.Fixed | None = None

    def act(self) -> None:
        self.fixed = self.ring.openat_direct("/dev/null", self.files).wait()

    def go_on(self, interrupt: Interrupt) -> None:
        gc.collect()
        if self.fixed is not None:
            self.fixed.close()
        while self.ring.in_flight:
            self.ring.run_once()
        self.ring.nop().wait()
        taken = [self.ring.openat_direct("/dev/null", self.files).wait() for _ in range(2)]
        assert sorted(fixed.slot for fixed in taken) == [0, 1]
        self.ring.close()


class Link(Connected):
    """A chain that breaks: what is queued after it is no part of it, wherever the block was left."""

    ops: list[Operation[int]]

    def __init__(self) -> None:
        super().__init__()
        self.ops = []
        self.buffer = bytearray(8)
        self.theirs.send(b"short")

    def act(self) -> None:
        with self.ring.link(2):
            self.ops.append(self.ring.read(self.ours, self.buffer))
            self.ops.append(self.ring.nop())
        self.ring.submit_and_wait(1)

    def go_on(self, interrupt: Interrupt) -> None:
        last = self.ring.nop()
        assert last.wait(HANG_NS) == 0, "it was cancelled with the chain"
        for op in self.ops:
            op.wait_cqe(HANG_NS)
        if len(self.ops) == 2:
            # An interrupt inside the block takes the chain back as a whole.
            outcomes = [op.cqe[1] for op in self.ops if op.cqe]
            assert outcomes in ([5, -errno.ECANCELED], [-errno.ECANCELED, -errno.ECANCELED])
        with self.ring.link(2):
            ops = [self.ring.nop(), self.ring.nop()]
        assert [op.wait(HANG_NS) for op in ops] == [0, 0]
        assert self.ring.in_flight == 0
        self.end()


class ChainInFullQueue(Scenario):
    """More operations than the queue has room for, and a chain behind them."""

    def __init__(self) -> None:
        self.ring = Ring(2)
        self.ops: list[Operation[int]] = []

    def act(self) -> None:
        for _ in range(3):
            self.ops.append(self.ring.nop())
        with self.ring.link(2):
            self.ops.append(self.ring.nop())
            self.ops.append(self.ring.nop())

    def go_on(self, interrupt: Interrupt) -> None:
        assert [op.wait(HANG_NS) for op in self.ops[:3]] == [0] * len(self.ops[:3])
        # An interrupt inside the block takes the chain back as a whole.
        assert {op.wait_cqe(HANG_NS)[0] for op in self.ops[3:]} in (set(), {0}, {-errno.ECANCELED})
        assert self.ring.nop().wait(HANG_NS) == 0
        assert self.ring.in_flight == 0
        self.ring.close()


class TimeOut(Connected):
    """A wait that times out, and a timer that is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(8)
        self.op: Operation[int] | None = None
        self.timer: Operation[int] | None = None

    def act(self) -> None:
        self.timer = self.ring.timeout(3600 * 10**9)
        self.op = self.ring.recv(self.ours, self.buffer)
        try:
            self.op.wait(100_000)
        except TimeoutError:
            pass
        self.timer.cancel()
        self.timer.wait_cqe()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.op is not None:
            self.op.cancel()
            assert self.op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
            self.buffer.extend(b"unlocked")
        if self.timer is not None:
            self.timer.cancel()
            assert self.timer.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
        self.ring.nop().wait()
        self.ring.completions()
        while self.ring.in_flight:
            self.ring.run_once()
        self.end()


class Close(Connected):
    """`close()` with everything in flight, interrupted, and called once more."""

    unmaps = True
    raw = False

    def __init__(self) -> None:
        super().__init__()
        ring = self.ring
        self.pool = ring.buffer_ring(2, 16)
        self.files = ring.file_table(1)
        registered = Buffer(64)
        ring.register_buffers([registered])
        buffers = Buffer(64), Buffer(64)
        self.seen = [weakref.ref(buffer) for buffer in (*buffers, registered)]
        ring.recv(self.ours, buffers[0])
        ring.recv_multishot(self.theirs, self.pool)
        ring.timeout(3600 * 10**9)
        ring.openat("/dev/null")
        if self.raw:
            ring.sq.prep_timeout(0, 0, 0)
            ring.sq.prep_poll_add(self.ours.fileno(), 1)
        ring.submit()
        ring.nop()
        ring.recv(self.ours, buffers[1])

    def act(self) -> None:
        self.ring.close()

    def go_on(self, interrupt: Interrupt) -> None:
        fd = -1 if self.ring.closed else self.ring.fileno()
        self.end()
        assert self.ring.closed
        assert fd < 0 or not is_ring(fd)
        del self.pool, self.files
        gc.collect()
        assert [seen() for seen in self.seen] == [None] * 3, "memory was kept"


class CloseWithRaw(Close):
    """The same with requests of the raw layer in flight, which nothing keeps track of."""

    raw = True
    functions = frozenset({
        "_raw_used", "_tear_down", "_watch_kernel", "_give_writer", "_hung_up", "_close_fd", "_let_go", "_release_tables"
    })  # fmt: skip


class CloseSqThread(Close):
    """The same where a thread of the kernel reads the submission queue at any time."""

    setup_flags = int(abi.Setup.SQPOLL)
    functions = frozenset({"_quiesce", "_take_back", "discard_last", "flush", "needs_wakeup", "_complete_enter"})


class Collect(Connected):
    """A ring that is dropped with requests in flight, unclosed: its finalizer does all that close() would."""

    functions = frozenset({"_tear_down", "_close_fd"})

    def __init__(self) -> None:
        warnings.simplefilter("ignore", ResourceWarning)
        super().__init__()
        self.number = self.ring.fileno()
        self.seen = [weakref.ref(buffer := Buffer(64))]
        self.ring.recv(self.ours, buffer)
        self.ring.submit()
        self.dropped = [self.ring]
        del self.ring

    def act(self) -> None:
        self.dropped.clear()
        gc.collect()

    def go_on(self, interrupt: Interrupt) -> None:
        gc.collect()
        assert not is_ring(self.number), "the ring's fd is still open"
        assert self.seen[0]() is None or closing._kept, "freed too early"
        self.theirs.send(b"x")
        assert self.ours.recv(1) == b"x"
        self.ours.close()
        self.theirs.close()


def is_ring(fd: int) -> bool:
    try:
        return "io_uring" in os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return False


class Mixed(Connected):
    """Requests of both layers on one ring: `completions()` hands out each raw one once, callbacks are called once."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[int] = []
        self.called: list[int] = []
        for i in range(3):
            self.ring.sq.prep_nop(user_data=i)
            self.ring.nop(callback=lambda op, res, cqe_flags: self.called.append(op.token))
        self.buffer = bytearray(8)
        self.theirs.send(b"hello")
        self.op = self.ring.recv(self.ours, self.buffer)
        self.pending = self.ring.recv(self.theirs, self.buffer)

    def act(self) -> None:
        while len(self.raw) < 3 or len(self.called) < 3 or not self.op.done:
            self.ring.submit_and_wait(1)  # which what an interrupt left does not keep waiting
            self.raw += [user_data for user_data, _, _ in self.ring.completions()]

    def go_on(self, interrupt: Interrupt) -> None:
        self.act()
        assert sorted(self.raw) == [0, 1, 2]
        assert sorted(self.called) == sorted(set(self.called)) and len(self.called) == 3
        assert self.op.done and self.op.wait() == 5
        assert not self.pending.done
        self.end()


class Run(Scenario):
    """`run()` does not return before each callback was called, once."""

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.called: list[int] = []
        for _ in range(3):
            self.ring.nop(callback=lambda op, res, cqe_flags: self.called.append(op.token))

    def act(self) -> None:
        self.ring.run()

    def go_on(self, interrupt: Interrupt) -> None:
        self.act()
        assert len(self.called) == len(set(self.called)) == 3
        self.ring.close()


class Block(Scenario):
    """NOPs as a block, over the end of the queue, until each has completed once: it is queued whole or not at all."""

    def __init__(self) -> None:
        self.ring = Ring(8)
        self.taken: list[int] = []
        self.block = rawuring.SqeBlock(6)
        self.start = self.ring.sq.tail

    def act(self) -> None:
        while self.block.space_left:
            self.block.prep_nop(user_data=self.block.tail)
        while self.ring.sq.tail < self.start + 12:
            self.ring.submit()
            self.ring.sq.put_block(self.block)
        while len(self.taken) < 12:
            self.ring.submit_and_wait(1)
            self.taken += [user_data for user_data, _, _ in self.ring.completions()]

    def go_on(self, interrupt: Interrupt) -> None:
        before = self.ring.sq.tail - self.start
        assert before in (0, 6, 12), "a part of the block is queued"
        if interrupt.function in ("drain", "__setitem__", "store_release"):
            # What an interrupt keeps `completions()` from returning is lost to its caller. (The last two are in the
            # way where a plain store of the head promises nothing.)
            self.taken = []
            self.start = self.ring.sq.tail
            self.ring.submit_and_wait(0)
            self.ring.completions()
        self.act()
        assert self.taken == [*range(6), *range(6)]
        self.ring.close()


class Make(Scenario):
    """A ring that is made, used once and closed. Interrupted while it is made, it may leak its fd."""

    unmaps = True
    leaks = frozenset({"setup", "set_up", "_set_up_patiently", "__init__"})
    functions = leaks | {
        "_map", "mmap", "buffer_ring", "register", "pbuf_ring", "_publish", "register_buffers", "buffers", "file_table",
        "files_sparse", "unregister", "close", "_tear_down", "_close_fd", "_let_go", "_release_tables",
    }  # fmt: skip

    ring: Ring | None = None

    def act(self) -> None:
        self.ring = Ring(8)
        self.ring.buffer_ring(2, 16)
        self.ring.register_buffers([bytearray(8)])
        self.ring.file_table(2)
        self.ring.nop().wait()
        self.ring.close()

    def go_on(self, interrupt: Interrupt) -> None:
        if self.ring is not None:
            if not self.ring.closed:
                self.ring.buffer_ring(2, 16)
                self.ring.nop().wait()
            self.ring.close()


class Messages(Connected):
    """sendmsg and recvmsg, with an fd in the control data, which is received once."""

    sent: Operation[int] | None = None
    received: Operation[Any] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray(4), bytearray(4)

    def act(self) -> None:
        if self.sent is None:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, self.ours.fileno().to_bytes(4, sys.byteorder))
            self.sent = self.ring.sendmsg(self.theirs, [b"ab", b"cdef"], [rights])
        if self.received is None:
            self.received = self.ring.recvmsg(self.ours, self.data, 64)
        assert self.sent.wait() == 6
        self.received.wait()

    def go_on(self, interrupt: Interrupt) -> None:
        self.act()
        assert self.received is not None
        message = self.received.wait()
        assert (message.nbytes, bytes(self.data[0] + self.data[1])) == (6, b"abcdef\0\0")
        (fd,) = message.fds
        os.close(fd)
        self.end()


SCENARIOS: dict[str, type[Scenario]] = {
    each.__name__: each
    for each in (
        Receive, ReceiveWithSqThread, ReceiveAndForget, ReceiveAndForgetWithSqThread, ReceiveMultishot, Iterate,
        Select, ReturnBuffers, Accept, AcceptOnce, AcceptAndWait, OpenInto, Link, ChainInFullQueue, TimeOut, Close,
        CloseWithRaw, CloseSqThread, Collect, Mixed, Run, Block, Make, Messages,
    )
}  # fmt: skip


def open_fds() -> set[int]:
    # One was that of the directory itself.
    return {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def mappings() -> int:
    with open("/proc/self/maps") as maps:
        return maps.read().count("io_uring")


UNMAPPING = {"mmap", "munmap", "__init__", "close"}
"""Functions in which an interrupt may leak a mapping, since the other order could unmap what is not ours."""


def run(scenario: type[Scenario], first: int = 1) -> None:
    """Interrupt a scenario at every line in turn."""
    lost: list[object] = []

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        # Python drops an exception in a finalizer, and with it what the finalizer had to do.
        if args.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(args)
        lost.append(args.exc_type)

    sys.unraisablehook = unraisable
    gc.freeze()
    for n in itertools.count(first, STEP):
        before, mapped = open_fds(), mappings()
        lost.clear()
        made = scenario()
        with Interrupt(n, scenario.functions) as interrupt:
            made.act()
        try:
            made.go_on(interrupt)
            del made
            gc.collect()
            leaked = open_fds() - before
            if leaked and not (interrupt.function in scenario.leaks or lost):
                raise AssertionError(f"leaked {[os.readlink(f'/proc/self/fd/{fd}') for fd in leaked]}")
            for fd in leaked:
                os.close(fd)
            if mappings() > mapped and interrupt.function not in UNMAPPING and not leaked:
                raise AssertionError("leaked a mapping of a ring")
        except BaseException as error:
            raise AssertionError(f"after an interrupt at line {n}, {interrupt.at}") from error
        if not interrupt.fired:
            print(n - 1)
            return


def main() -> None:
    warnings.simplefilter("error")
    run(SCENARIOS[sys.argv[1]], int(sys.argv[2]) if len(sys.argv) > 2 else 1)


if __name__ == "__main__":
    main()
