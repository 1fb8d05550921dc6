"""A load generator for echo servers: python tools/load.py PORT [--connections 50] [--size 512] ...

A closed loop: on each connection `depth` messages are in flight, and the next is sent when one has
come back. Every byte that comes back is compared with what was sent there. After a warm-up the
measured window is timed; then what is in flight is awaited, and a byte too many is an error as well.
With --watch PID the CPU time of that process is read at both ends of the window, so it belongs to
exactly the echoes that were counted.

Imports the standard library, and rawuring for the ring backend. Starts and ends no server.
Exit status: 0 measured and every byte right, 1 not, 2 bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

# The streams are windows of one block of random bytes, read round and round. With a prime as its
# length and a prime as the step from one connection's start to the next, hardly two messages are
# alike: an answer meant for another connection is noticed, and so is an older one of its own.
LEAST_PERIOD = 65_521
STEP = 4_099
MOST_IN_FLIGHT = 1 << 24

STALLED_AFTER_S = 10
"""A phase that lasts this much longer than it should: the server has stopped answering."""

CONNECTED_WITHIN_S = 10.0

MOST_LOW_WATER = 1 << 18
"""A single message up to this size is received when it is whole, not piece by piece."""

Bytes = bytes | memoryview


class LoadError(Exception):
    """The server answered wrongly, hung up, or not at all."""


class Usage(NamedTuple):
    """What processes used up since they began, in nanoseconds."""

    cpu: int
    """CPU time of all threads, exact."""
    user: int
    """User mode's share of it, in whole clock ticks."""
    system: int
    """The kernel's share of it, in whole clock ticks."""
    waited: int
    """Time that the main thread was ready and something else ran on its CPU."""

    def since(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def usage(pids: Sequence[int]) -> Usage:
    """The sum over these processes."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    cpu = user = system = waited = 0
    for pid in pids:
        try:
            # What clock_getcpuclockid(3) computes: the scheduler's clock of that process.
            cpu += time.clock_gettime_ns((~pid << 3) | 2)
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError as error:
            raise LoadError(f"process {pid} cannot be watched: {error}") from None
        user += int(fields[11]) * tick_ns
        system += int(fields[12]) * tick_ns
        with contextlib.suppress(OSError), open(f"/proc/{pid}/schedstat", encoding="ascii") as schedstat:
            waited += int(schedstat.read().split()[1])
    return Usage(cpu, user, system, waited)


class Connection:
    """What one connection has under way. All lengths in bytes."""

    __slots__ = ("due", "expected", "fd", "in_flight", "index", "marked", "partial", "sending", "sock")

    def __init__(self, index: int, sock: socket.socket) -> None:
        self.index = index
        self.sock = sock
        self.fd = sock.fileno()
        self.in_flight = 0    # sent and not yet back
        self.partial = 0      # how much of the message now coming back is there
        self.due = 0          # may be sent and is not yet
        self.sending = 0      # of the send that the ring has not completed
        self.marked = 0       # until the message whose wait is timed has come back whole
        self.expected = b""   # the message in flight while it is the only one and untouched


class Load:
    """What the backends share: the streams, and the tally of what came back.

    Waits are timed from the turn of the loop that sent a message to the turn that had its answer,
    and kept as two moments: to subtract them can wait until the measuring is over.
    """

    def __init__(self, socks: Sequence[socket.socket], size: int, depth: int) -> None:
        self.size = size
        self.depth = depth
        self.most = size * depth
        self.single = depth == 1
        self.period = max(LEAST_PERIOD, self.most)
        block = random.Random(1).randbytes(self.period)
        self.block = block + block[: self.most]  # so a part that starts inside never has to wrap
        self.connections = [Connection(index, sock) for index, sock in enumerate(socks)]
        # By the index of a connection: where in the block the next byte to come back is, and when
        # the timed message was sent. The next byte to send is `in_flight` further on.
        self.at = [index * STEP % self.period for index in range(len(socks))]
        self.sent_ns = [0] * len(socks)
        self.now_ns = time.perf_counter_ns()  # when this turn of the loop began
        self.stopping = False
        self.echoes = 0
        self.turns = 0
        self.asked: list[int] = []  # when each timed message was sent,
        self.answered: list[tuple[int, int]] = []  # and up to which of them were answered when

    def forget(self) -> None:
        """Start the tally anew."""
        self.echoes = self.turns = 0
        self.asked.clear()
        self.answered.clear()

    def waits_ns(self) -> list[int]:
        """The waits so far, shortest first."""
        self.answered.append((self.now_ns, len(self.asked)))
        waits: list[int] = []
        for now_ns, end in self.answered:
            waits += [now_ns - asked_ns for asked_ns in self.asked[len(waits) : end]]
        return sorted(waits)

    def start(self) -> None:
        """Send the first messages."""
        for connection in self.connections:
            connection.due = self.most
            self.send(connection)

    def run(self, until_ns: int) -> None:
        """Go on until that moment of time.perf_counter_ns()."""
        while self.now_ns < until_ns:
            self.turn()

    def drain(self) -> None:
        """Send nothing new and await all that is in flight."""
        self.stopping = True
        while self.unanswered():
            self.turn()

    def turn(self) -> None:
        """Wait for something to happen and handle it."""
        raise NotImplementedError

    def begin_turn(self) -> None:
        """Note the time at which the waiting of this turn ended."""
        self.answered.append((self.now_ns, len(self.asked)))
        self.now_ns = time.perf_counter_ns()
        self.turns += 1

    def send(self, connection: Connection) -> None:
        """Send what is due."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the backend holds. The sockets are the caller's."""

    def received(self, connection: Connection, data: Bytes) -> None:
        """Compare what came back and account for it: each whole message makes another one due."""
        nbytes = len(data)
        at = self.at[connection.index]
        # With a start this is a memcmp of the two in place; `==` would copy one, and crawl over a memoryview.
        if nbytes > connection.in_flight or not self.block.startswith(data, at):
            self.wrong(connection, data)
        self.at[connection.index] = (at + nbytes) % self.period
        connection.in_flight -= nbytes
        whole, connection.partial = divmod(connection.partial + nbytes, self.size)
        self.echoes += whole
        if not self.stopping:
            connection.due += whole * self.size
        if connection.marked > 0:
            connection.marked -= nbytes
            if connection.marked <= 0:
                self.asked.append(self.sent_ns[connection.index])

    def sent(self, connection: Connection, nbytes: int) -> None:
        """Account for bytes that the socket took; one message at a time has its wait timed."""
        connection.due -= nbytes
        connection.in_flight += nbytes
        if connection.marked <= 0:
            connection.marked = connection.in_flight
            self.sent_ns[connection.index] = self.now_ns

    def wrong(self, connection: Connection, data: Bytes) -> NoReturn:
        """Say how the answer differs from what was sent."""
        extra = len(data) - connection.in_flight
        if extra > 0:
            raise LoadError(f"connection {connection.index}: {extra} bytes more came back than went")
        right = self.block[self.at[connection.index] :]
        first = next(i for i, byte in enumerate(data) if byte != right[i])
        raise LoadError(
            f"connection {connection.index}: of {len(data)} bytes that came back, byte {first} is "
            f"{data[first]:#04x} where {right[first]:#04x} went"
        )

    def ended(self, connection: Connection, why: str) -> NoReturn:
        raise LoadError(f"connection {connection.index}: {why}, with {connection.in_flight} bytes in flight")

    def unanswered(self) -> int:
        """How many connections have something in flight."""
        return sum(connection.in_flight > 0 for connection in self.connections)


class EpollLoad(Load):
    """On select.epoll: runs everywhere."""

    def __init__(self, socks: Sequence[socket.socket], size: int, depth: int) -> None:
        super().__init__(socks, size, depth)
        self.by_fd = {connection.fd: connection for connection in self.connections}
        self.epoll = select.epoll()
        for connection in self.connections:
            connection.sock.setblocking(False)
            self.epoll.register(connection.fd, select.EPOLLIN)

    def close(self) -> None:
        self.epoll.close()

    def send(self, connection: Connection) -> None:
        at = (self.at[connection.index] + connection.in_flight) % self.period
        message = self.block[at : at + connection.due]
        try:
            nbytes = connection.sock.send(message)
        except BlockingIOError:
            nbytes = 0
        except OSError as error:
            self.ended(connection, str(error))
        connection.expected = message if self.single and nbytes == self.size else b""
        self.sent(connection, nbytes)
        if connection.due:
            self.epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def event(self, connection: Connection, event: int) -> None:
        """Whatever epoll reports of one connection."""
        if event & select.EPOLLOUT:
            self.epoll.modify(connection.fd, select.EPOLLIN)
        if event & ~select.EPOLLOUT:
            try:
                data = connection.sock.recv(self.most)
            except OSError as error:
                self.ended(connection, str(error))
            if not data:
                self.ended(connection, "the server closed it")
            self.received(connection, data)
        if connection.due:
            self.send(connection)

    def turn(self) -> None:
        events = self.epoll.poll()
        self.begin_turn()
        for fd, event in events:
            self.event(self.by_fd[fd], event)

    def run(self, until_ns: int) -> None:
        if not self.single:
            return super().run(until_ns)
        block, period, size, by_fd, at, sent_ns = self.block, self.period, self.size, self.by_fd, self.at, self.sent_ns
        poll, asked = self.epoll.poll, self.asked.append
        echoes = 0
        while True:
            events = poll()
            self.begin_turn()
            now_ns = self.now_ns
            if now_ns >= until_ns:
                break
            for fd, event in events:
                connection = by_fd[fd]
                expected = connection.expected
                if event != 1 or not expected:  # 1 is EPOLLIN
                    self.event(connection, event)
                    continue
                try:
                    data = connection.sock.recv(size)
                except OSError as error:
                    self.ended(connection, str(error))
                if data != expected:
                    connection.expected = b""
                    if not data:
                        self.ended(connection, "the server closed it")
                    self.received(connection, data)
                    if connection.due:
                        self.send(connection)
                    continue
                # The message came back whole and as it was sent, and so goes the next one.
                index = connection.index
                start = at[index] + size
                if start >= period:
                    start -= period
                at[index] = start
                message = block[start : start + size]
                connection.expected = message
                echoes += 1
                asked(sent_ns[index])
                sent_ns[index] = now_ns
                try:
                    nbytes = connection.sock.send(message)
                except OSError:
                    nbytes = 0
                if nbytes != size:
                    connection.in_flight = nbytes
                    connection.due = size - nbytes
                    self.send(connection)
        self.echoes += echoes


class RingLoad(Load):
    """On an io_uring, in its raw layer: one system call for all that a turn receives and sends.

    Each connection has one multishot receive, which takes its buffers from a ring that all share,
    and the fixed slot of its index. Needs Linux 6.0.
    """

    SENDS = 1 << 20
    """Added to the index of a connection in the user_data of its sends."""
    MOST_CONNECTIONS = 16_384
    MOST_BUFFER = 1 << 18
    MOST_BUFFERS = 1 << 26

    def __init__(self, socks: Sequence[socket.socket], size: int, depth: int) -> None:
        from rawuring import Ring, UnsupportedError, abi

        super().__init__(socks, size, depth)
        if len(socks) > self.MOST_CONNECTIONS:
            raise LoadError(f"more than {self.MOST_CONNECTIONS:,} connections: use --client-backend epoll")
        # At most a receive and a send to queue for each connection in a turn.
        self.ring = Ring(max(64, ceil_power(2 * len(socks))), register_ring_fd=True)
        try:
            needs = self.ring.lacks("recv_multishot")
            if needs:
                raise UnsupportedError("a multishot receive", needs)
            buffer_nbytes = min(self.most, self.MOST_BUFFER)
            count = min(ceil_power(2 * len(socks)), max(2, self.MOST_BUFFERS // buffer_nbytes))
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
        self.single = depth == 1 and size <= buffer_nbytes
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
        index, nbytes = connection.index, connection.due
        at = (self.at[index] + connection.in_flight) % self.period
        self.ring.sq.prep_send(index, self.block_addr + at, nbytes, self.send_flags, user_data=self.SENDS + index,
                               sqe_flags=self.send_sqe_flags)  # fmt: skip
        connection.sending = 0 if self.single else nbytes
        self.sent(connection, nbytes)

    def completed(self, user_data: int, res: int, cqe_flags: int) -> None:
        """Whatever completes on one connection."""
        connection = self.connections[user_data % self.SENDS]
        if res < 0 and res != -errno.ENOBUFS:
            self.ended(connection, os.strerror(-res))
        if user_data >= self.SENDS:
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

    def turn(self) -> None:
        self.ring.submit_and_wait(1)
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
        prep_send, sends = self.ring.sq.prep_send, self.SENDS
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
                    self.wrong(self.connections[user_data], views[bid])
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


def ceil_power(number: int) -> int:
    """The least power of two that is no less."""
    return 1 << (number - 1).bit_length()


BACKENDS: dict[str, type[Load]] = {"epoll": EpollLoad, "ring": RingLoad}
"""How to be quick, and how to run everywhere."""


def connect(host: str, port: int, count: int, low_water: int) -> list[socket.socket]:
    """That many connections that wake up for `low_water` bytes; closed again if one of them fails."""
    with contextlib.ExitStack() as undo:
        socks = []
        for _ in range(count):
            sock = undo.enter_context(socket.create_connection((host, port), CONNECTED_WITHIN_S))
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            socks.append(sock)
        undo.pop_all()
    return socks


def percentile(ordered: Sequence[int], part: float) -> int:
    """The value below which that part of them lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def measure(load: Load, warm_up_s: float, seconds: float, watch: Sequence[int]) -> dict[str, Any]:
    """Start the load, let it settle, measure for that long, and wait for the last answer."""

    def stalled(signal_number: int, frame: object) -> NoReturn:
        raise LoadError(
            f"no end after {STALLED_AFTER_S} s more than planned: "
            f"{load.unanswered()} of {len(load.connections)} connections wait for an answer"
        )

    def run_for(duration_s: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, duration_s + STALLED_AFTER_S)
        load.run(time.perf_counter_ns() + int(duration_s * 1e9))

    previous = signal.signal(signal.SIGALRM, stalled)
    try:
        signal.setitimer(signal.ITIMER_REAL, STALLED_AFTER_S)
        load.start()
        run_for(warm_up_s)
        load.forget()
        server, own = usage(watch), usage([os.getpid()])
        began_ns = time.perf_counter_ns()
        run_for(seconds)
        wall_ns = time.perf_counter_ns() - began_ns
        server, own = usage(watch).since(server), usage([os.getpid()]).since(own)
        echoes, turns, waits_ns = load.echoes, load.turns, load.waits_ns()
        signal.setitimer(signal.ITIMER_REAL, STALLED_AFTER_S)
        load.drain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    if not echoes:
        raise LoadError(f"not one answer in {seconds} s")
    return {
        "echoes": echoes,
        "turns": turns,
        "wall_ns": wall_ns,
        "client_cpu_ns": own.cpu,
        "client_waited_ns": own.waited,
        "server_cpu_ns": server.cpu,
        "server_user_ns": server.user,
        "server_system_ns": server.system,
        "server_waited_ns": server.waited,
        "p50_ns": percentile(waits_ns, 0.50) if waits_ns else None,
        "p99_ns": percentile(waits_ns, 0.99) if waits_ns else None,
    }


def check_silence(socks: Sequence[socket.socket]) -> None:
    """After the last answer nothing more may come."""
    for index, sock in enumerate(socks):
        with contextlib.suppress(BlockingIOError):
            extra = sock.recv(65_536, socket.MSG_DONTWAIT)
            what = f"{len(extra)} bytes too many came back" if extra else "the server closed it"
            raise LoadError(f"connection {index}: {what} after the last answer")


def raise_fd_limit() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Arguments(argparse.ArgumentParser):
    """Bad usage is one line, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def duration(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds up to 3600")
    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="load.py", description="A load generator for echo servers.")
    parser.add_argument("port", type=positive)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--connections", type=positive, default=50, metavar="N")
    parser.add_argument("--size", type=positive, default=512, metavar="BYTES")
    parser.add_argument("--depth", type=positive, default=1, metavar="N",
                        help="messages in flight on each connection")
    parser.add_argument("--seconds", type=duration, default=1.0, help="the measured window")
    parser.add_argument("--warm-up", type=duration, default=0.2, metavar="SECONDS")
    parser.add_argument("--client-backend", choices=["auto", *BACKENDS], default="auto")
    parser.add_argument("--watch", type=positive, action="append", default=[], metavar="PID",
                        help="also tell the CPU time of this process (may be repeated)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.size * options.depth > MOST_IN_FLIGHT:
        parser.error(f"--size times --depth is at most {MOST_IN_FLIGHT} bytes")
    return options


def loaded(backend: str, socks: Sequence[socket.socket], size: int, depth: int) -> Load:
    """The load on that backend; "auto" is the first that works here."""
    if backend != "auto":
        return BACKENDS[backend](socks, size, depth)
    try:
        return RingLoad(socks, size, depth)
    except (ImportError, NotImplementedError, OSError):
        return EpollLoad(socks, size, depth)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    raise_fd_limit()
    socks: list[socket.socket] = []
    try:
        low_water = options.size if options.depth == 1 and options.size <= MOST_LOW_WATER else 1
        socks = connect(options.host, options.port, options.connections, low_water)
        with contextlib.closing(loaded(options.client_backend, socks, options.size, options.depth)) as load:
            result = measure(load, options.warm_up, options.seconds, options.watch)
        check_silence(socks)
    except (LoadError, NotImplementedError, OSError) as error:  # the second is an UnsupportedError
        print(f"load.py: {error}", file=sys.stderr)
        return 1
    finally:
        for sock in socks:
            sock.close()
    backend = next(name for name, kind in BACKENDS.items() if isinstance(load, kind))
    result = {"backend": backend, "connections": options.connections, "size": options.size,
              "depth": options.depth, **result}
    if options.json:
        print(json.dumps(result))
        return 0
    rate = result["echoes"] / result["wall_ns"] * 1e9
    busy = result["client_cpu_ns"] / result["wall_ns"]
    print(f"{rate:,.0f} echoes/s over {options.connections} connections, every byte right; "
          f"this client ({backend}) was {busy:.0%} busy; wait p50 {result['p50_ns'] / 1e3:,.0f} us, "
          f"p99 {result['p99_ns'] / 1e3:,.0f} us")
    if options.watch:
        print(f"watched: {result['server_cpu_ns'] / result['echoes'] / 1e3:.2f} us of CPU an echo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
