"""Turns that a mode answers whole, by columns: a stopped server goes on when many connections have something for it."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from echo_client import (
    NOISE,
    SLOW_NBYTES,
    EchoProcess,
    connect,
    connections,
    expect,
    expect_end,
    expect_noise,
    message,
    receive,
    reset,
    until,
)
from echo_servers import needs_mode
from emulation import fewer
from test_queues import FakeKernel

from echo.modes.base import ACCEPT, IN_PLACE
from echo.modes.columns import Columns
from echo.service import RUNNING, STOPPING
from rawuring import abi
from rawuring.cq import CompletionQueue
from rawuring.sq import SubmissionQueue

MODES = ["multishot", "bundle", "zero-copy"]

COUNTS = """
sys.path.insert(0, 'tests')
import atexit, echo_audit
from echo.modes.pooled import Pooled
answer_failed, failed = Pooled._answer_failed, []
def counted(self, place):
    failed.append(place)
    return answer_failed(self, place)
Pooled._answer_failed = counted
@atexit.register
def tell():
    (mode,) = echo_audit.modes
    print("answered", mode.nanswered if mode._columns else None, "failed", len(failed))
"""

SMALL_SOCKETS = """
import socket
listen = socket.socket.listen
def listen_small(self, *arguments):
    self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30_000)
    listen(self, *arguments)
socket.socket.listen = listen_small
"""


def serving(mode: str, *options: str, prelude: str = "") -> EchoProcess:
    needs_mode(mode)
    return EchoProcess("--mode", mode, *options, prelude=COUNTS + prelude)


def counts(server: EchoProcess) -> tuple[int, int]:
    """End it: how many completions were answered by columns, and how many of those sends were short."""
    _, answered, _, failed = server.stop().splitlines()[-1].split()
    if answered == "None":
        pytest.skip("sends are not silent on this kernel: needs Linux 6.1 (DEFER_TASKRUN)")
    return int(answered), int(failed)


@contextlib.contextmanager
def stopped(server: EchoProcess) -> Iterator[None]:
    """The server finds all that happens meanwhile in one turn."""
    server.process.send_signal(signal.SIGSTOP)
    until(server.rests, "the server to stop")
    yield
    server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("nbuffers", [64, 32])
@pytest.mark.parametrize("mode", MODES)
def test_every_connection_gets_its_own(mode: str, nbuffers: int) -> None:
    """In any order, some with much, with connections that come and go in between; and with fewer buffers than that."""
    choice = random.Random(nbuffers)
    with serving(mode, "--buffers", str(nbuffers), "--buffer-size", "3000") as server:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connect(server.port)) for _ in range(40)]
            for number in range(fewer(60, by=3)):
                some = choice.sample(range(40), choice.randrange(5, 40))
                sizes = {key: choice.randrange(1, 3000) for key in some}
                if number % 5 == 2:
                    sizes[some[-1] if number % 2 else some[2]] = 10_000
                gone = choice.sample(some, 2) if number % 7 == 6 else []
                with stopped(server):
                    for key in some:
                        socks[key].sendall(message(key, number, sizes[key]))
                    if gone:
                        socks[gone[0]].shutdown(socket.SHUT_WR)
                        reset(socks[gone[1]])
                for key in some:
                    if key not in gone[1:]:
                        expect(socks[key], message(key, number, sizes[key]))
                if gone:
                    expect_end(socks[gone[0]])
                    for key in gone:
                        socks[key].close()
                        socks[key] = stack.enter_context(connect(server.port))
        server.settle()
        answered, failed = counts(server)
        assert answered > 100
        assert failed == 0


@pytest.mark.parametrize("nbytes", [12_000, 4_000])
@pytest.mark.parametrize("mode", MODES)
def test_what_a_socket_does_not_take_is_kept(mode: str, nbytes: int) -> None:
    """Peers that stop reading are found by sends that were queued by columns; or what came fills several buffers."""
    choice = random.Random(nbytes)
    with serving(mode, "--buffer-size", str(nbytes), prelude=SMALL_SOCKETS) as server:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connect(server.port, receive_nbytes=SLOW_NBYTES)) for _ in range(5)]
            fast = [stack.enter_context(connect(server.port)) for _ in range(5)]
            nsent = dict.fromkeys(slow, 0)
            for number in range(160):
                with stopped(server):
                    for sock in slow:
                        at = nsent[sock] % len(NOISE)
                        with contextlib.suppress(BlockingIOError):
                            piece = NOISE[at : at + choice.randrange(5_000, 12_000)]
                            nsent[sock] += sock.send(piece, socket.MSG_DONTWAIT)
                    for key, sock in enumerate(fast):
                        sock.sendall(message(key, number, 1000))
                for key, sock in enumerate(fast):
                    expect(sock, message(key, number, 1000))
                if number % 20 == 19:
                    for sock in slow:
                        expect_noise(sock, nsent[sock])
                        nsent[sock] = 0
        server.settle()
        answered, failed = counts(server)
        if nbytes == 12_000:
            assert answered > 100
            assert failed >= 1


def test_a_pipeline_is_in_order() -> None:
    """A connection that occurs twice in a turn, beside others, is not answered by columns."""
    with serving("multishot", "--buffer-size", "1000") as server:
        with connections(server.port, 6) as socks:
            for number in range(fewer(30)):
                sizes = [5000 if key == number % 6 else 100 for key in range(6)]
                with stopped(server):
                    for key, sock in enumerate(socks):
                        sock.sendall(message(key, number, sizes[key]))
                for key, sock in enumerate(socks):
                    assert receive(sock, sizes[key]) == message(key, number, sizes[key])
        server.settle()
        counts(server)


class FakeMode:
    """As much of a mode as `Columns` asks of it, on the queues of a fake kernel."""

    def __init__(self) -> None:
        self.kernel = FakeKernel(entries=8, cq_entries=16, start=0)
        memory = self.kernel.memory()
        sq, cq = SubmissionQueue(memory), CompletionQueue(memory)
        self.ring = SimpleNamespace(sq=sq, cq=cq, submit_and_wait=self.enter)
        self.coming: list[list[tuple[int, int, int]]] = []  # what completes in each enter
        self.pool = SimpleNamespace(count=8, addr_of=lambda bid: 1000 + bid)
        self.addrs = [self.pool.addr_of(bid) for bid in range(8)]
        self.server = SimpleNamespace(state=RUNNING, alarm=0.0, nenters=0)
        self.send_flags = 0x4040, 64
        self.ordinary_nbytes = 500
        self.ntaken = 6
        self.later: list[object] = []
        self.starved: list[object] = []
        self.busy: set[int] = set()
        self.nanswered = self.nanswered_bytes = 0
        self.batch = 4
        self.lent: list[int] = []
        self.back: list[list[int]] = []
        self.columns = Columns(self, 4)  # type: ignore[arg-type]
        self.take = self.columns.taker()

    def give_back(self, bids: list[int]) -> None:
        self.back.append(bids)

    def enter(self) -> None:
        self.ring.sq.flush()
        self.kernel.consume()
        self.ring.sq.all_consumed()
        for cqe in self.coming.pop(0):
            self.kernel.post(*cqe)


ORDINARY = [(1 << 35 | 7, 500, 6), (2 << 35 | 9, 1, 7), (3 << 35 | 8, 30, 0)]  # key, res, bid


def flags_of(bid: int, cqe_flags: int = 3) -> int:
    return bid << 16 | cqe_flags


@pytest.mark.portable
def test_a_whole_turn_is_answered() -> None:
    """Over the end of the ring of buffers, whose order has changed."""
    mode = FakeMode()
    mode.columns.given_back(15, [5, 0])  # the places 7 and 0
    ordinary = [(key, res, {7: 5, 0: 0}.get(bid, bid)) for key, res, bid in ORDINARY]
    for key, res, bid in ordinary:
        mode.kernel.post(key, res, flags_of(bid))
    assert mode.take() is None
    assert (mode.nanswered, mode.nanswered_bytes, mode.ntaken, mode.lent, mode.back) == (3, 531, 9, [6, 5, 0], [])
    mode.ring.sq.flush()
    sqe = abi.IO_URING_SQE
    sent = [
        [sqe.get(one, name) for name in ("opcode", "flags", "fd", "addr", "len", "rw_flags", "user_data")]
        for one in mode.kernel.consume()
    ]
    assert sent == [
        [abi.Op.SEND, 64, fd, 1000 + bid, res, 0x4040, IN_PLACE | place]
        for (fd, res, bid), place in zip([(7, 500, 6), (9, 1, 5), (8, 30, 0)], (6, 7, 8), strict=True)
    ]
    for (key, res, bid), place in zip(ordinary, (6, 7, 8), strict=True):
        assert (mode.columns.keys[place], mode.columns.lens[place], mode.columns.bids[place]) == (key, res, bid)


@pytest.mark.portable
def test_the_books_follow_any_order_of_buffers() -> None:
    """Every place is kept twice, and both are right."""
    mode, choice = FakeMode(), random.Random(1)
    order, first = list(range(8)), 0
    for _ in range(500):
        bids = [choice.randrange(8) for _ in range(choice.randrange(1, 9))]
        mode.columns.given_back(first, bids)
        for place, bid in enumerate(bids, first):
            order[place % 8] = bid
        first += len(bids)
        assert mode.columns.bids == 2 * order
        assert mode.columns._addrs.tolist() == [1000 + bid for bid in 2 * order]
        assert mode.columns._expected.tolist() == [flags_of(bid) for bid in 2 * order]


@pytest.mark.portable
@pytest.mark.parametrize("last", [[(ACCEPT, 12, 2)], [(4 << 35 | 10, 1, flags_of(6))], []])
def test_turns_follow_each_other(last: list[tuple[int, int, int]]) -> None:
    """Until one is not to be answered so; or until something is due."""
    mode = FakeMode()
    turns = [[(key, res, flags_of((bid + 3 * turn) % 8)) for key, res, bid in ORDINARY] for turn in range(3)]
    for cqe in turns[0]:
        mode.kernel.post(*cqe)
    mode.coming = [*turns[1:], last]
    mode.server.alarm = None
    assert mode.take() == last
    assert (mode.nanswered, mode.nanswered_bytes, mode.ntaken, mode.server.nenters) == (9, 3 * 531, 15, 3)
    assert (mode.back, mode.lent) == ([[6, 7, 0, 1, 2, 3]], [4, 5, 6])
    for number in range(3):
        mode.kernel.post(number)
    assert mode.take() == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


@pytest.mark.portable
@pytest.mark.parametrize(
    "what",
    ["twice", "busy", "large", "stopping", "later", "starved", "many", "end", "nonempty", "another buffer", "accept"],
)
def test_turns_that_are_not_answered(what: str) -> None:
    mode = FakeMode()
    cqes = [(key, res, flags_of(bid)) for key, res, bid in ORDINARY]
    key, res, _ = ORDINARY[2]
    if what == "twice":
        cqes[2] = ORDINARY[0][0], res, flags_of(0)
    elif what == "busy":
        mode.busy.add(9)
    elif what == "large":
        mode.ordinary_nbytes = 499
        mode.take = mode.columns.taker()
    elif what == "stopping":
        mode.server.state = STOPPING
    elif what in ("later", "starved"):
        getattr(mode, what).append(None)
    elif what == "many":
        cqes += [(4 << 35 | 10, 1, flags_of(1)), (5 << 35 | 11, 1, flags_of(2))]
    elif what == "end":
        cqes[2] = key, 0, 0
    elif what == "nonempty":
        cqes[2] = key, res, flags_of(0, 7)
    elif what == "another buffer":
        cqes[2] = key, res, flags_of(1)
    else:
        cqes[2] = ACCEPT, 12, 2
    for cqe in cqes:
        mode.kernel.post(*cqe)
    assert mode.take() == cqes
    assert (mode.nanswered, mode.ring.sq.ready, mode.lent) == (0, 0, [])
