"""A client for the echo servers on plain sockets and threads, and the server as a child process.

Imports the standard library and emulation.py only: what checks the server shares nothing with it. Every byte that
comes back is compared. Every wait is bounded by HANG_S.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from emulation import HANG_S, fewer

ROOT = Path(__file__).resolve().parent.parent
NOISE = random.Random(1).randbytes(1 << 20)

SLOW_NBYTES = 65536
"""The receive buffer of a slow reader. With a smaller one the kernel drops small segments, and waits long to resend."""

NARROW = """
import socket, echo.service
bind = echo.service.bind
def narrow(*arguments, **keywords):
    sock = bind(*arguments, **keywords)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return sock
echo.service.bind = narrow
"""
"""A server whose connections can send little ahead: what a peer has pushed until it was blocked never fits."""

T = TypeVar("T")
R = TypeVar("R")


# ---------------------------------------------------------------------------------------------------------- the server


class EchoProcess:
    """A running `python -m echo`, on a free port unless `port` says otherwise."""

    def __init__(self, *options: str, port: int = 0, descriptors: int | None = None, prelude: str = "") -> None:
        command = [*echo_command(prelude), str(port), *options]
        if descriptors is not None:
            command = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(descriptors), *command]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            _, problem = self.process.communicate(timeout=HANG_S)
            raise AssertionError(f"the server ended with {self.process.returncode}: {problem}")
        self.port = int(self.first_line.split(", ")[0].rpartition(":")[2])
        self.fds = self.nfds()

    def __enter__(self) -> EchoProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        print(self.process.communicate()[1], end="")  # shown if the test fails

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> str:
        """End it by a signal, require that it ended well, and return what it printed after the first line."""
        self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> str:
        """Require that it ends well by itself."""
        output, errors = self.process.communicate(timeout=HANG_S)
        assert (self.process.returncode, errors) == (0, "")
        return output

    def nfds(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_nbytes(self) -> int:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def cpu_seconds(self) -> float:
        """The processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> set[int]:
        """The processes that it has started and that run."""
        pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return {int(pid) for pid in pids if state(int(pid)) not in GONE}

    def rests(self) -> bool:
        """Whether it waits, or is stopped, and so do its workers: it is not merely waiting for a processor."""
        return not any(state(pid) in ("R", "D") for pid in {self.pid, *self.children()})

    def settle(self) -> None:
        """Require that every connection's descriptor is given back."""
        try:
            until(lambda: self.nfds() <= self.fds, f"{self.fds} descriptors at the start of the server")
        except AssertionError as error:
            raise AssertionError(f"{error}; now:\n{self.circumstances()}") from None

    def circumstances(self) -> str:
        """What it does and has open, as the kernel tells: threads, descriptors, its ring, connections not reset."""
        process = Path(f"/proc/{self.pid}")
        lines, inodes = [], set()
        for thread in sorted(process.glob("task/*")):
            name, wait = ((thread / file).read_text(encoding="utf-8").strip() for file in ("comm", "wchan"))
            lines.append(f"thread {thread.name} {name}: {state(int(thread.name))} {wait}")
        for fd in sorted((process / "fd").iterdir(), key=lambda path: int(path.name)):
            what = os.readlink(fd)
            lines.append(f"fd {fd.name}: {what}")
            if "io_uring" in what:
                lines.append((process / "fdinfo" / fd.name).read_text(encoding="ascii"))
            inodes.add(what.removeprefix("socket:[").rstrip("]"))
        for table in Path("/proc/net").glob("tcp*"):
            lines += [line for line in table.read_text(encoding="ascii").splitlines() if line.split()[9] in inodes]
        return "\n".join(lines)


GONE = ("", "Z", "X")


def state(pid: int) -> str:
    """The state of a process as ps(1) has it, such as R or S; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def echo_command(prelude: str = "") -> list[str]:
    """`python -m echo`, or the same with a few statements before it."""
    python = [sys.executable, "-W", "error"]
    if not prelude:
        return [*python, "-m", "echo"]
    return [*python, "-c", f"import sys\n{prelude}\nfrom echo.__main__ import main\nsys.exit(main())"]


def run_echo(*arguments: str, prelude: str = "") -> tuple[int, str, str]:
    """Run `python -m echo` to its end: exit status, output, errors."""
    command = [*echo_command(prelude), *arguments]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_S)
    return done.returncode, done.stdout, done.stderr


# ---------------------------------------------------------------------------------------------------------- the client


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that will be so soon."""
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, f"waited {HANG_S} s for {what}"
        time.sleep(0.01)


def connect(port: int, host: str = "127.0.0.1", *, receive_nbytes: int | None = None) -> socket.socket:
    """A connection, with a small receive buffer if it is to be a slow reader."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_nbytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
    # The kernel's own timeouts: with settimeout() the interpreter polls before each receive and send.
    for option in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(HANG_S), 0))
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@contextlib.contextmanager
def connections(port: int, number: int) -> Iterator[list[socket.socket]]:
    """That many connections, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(port)) for _ in range(number)]


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def message(connection: int, number: int, nbytes: int) -> bytes:
    """Bytes that another connection, or another message, does not have."""
    start = (connection * 7919 + number * 104_729) % (len(NOISE) - nbytes)
    return NOISE[start : start + nbytes]


def receive(sock: socket.socket, nbytes: int) -> bytes:
    """Exactly so many bytes, fewer only if the peer has ended."""
    data = sock.recv(nbytes)
    while data and len(data) < nbytes:
        more = sock.recv(nbytes - len(data))
        if not more:
            break
        data += more
    return data


def expect(sock: socket.socket, data: bytes) -> None:
    """Require that just these bytes come next."""
    received = receive(sock, len(data))
    assert received == data, f"{len(received)} of {len(data)} bytes came back, or others than were sent"


def expect_end(sock: socket.socket) -> None:
    """Require that the peer has ended, without a byte more."""
    assert sock.recv(1) == b""


def echo(sock: socket.socket, data: bytes) -> None:
    """Send, and require the same back."""
    sock.sendall(data)
    expect(sock, data)


def in_threads(function: Callable[[T], R], arguments: Iterable[T], nthreads: int) -> list[R]:
    """Call the function with each argument: all results, or the first exception."""
    with ThreadPoolExecutor(nthreads) as executor:
        return list(executor.map(function, arguments))


def rounds(port: int, nconnections: int, nmessages: int, nbytes: int, *, nthreads: int = 2) -> None:
    """Each connection sends a message when it has its last one back. A thread cares for several connections."""
    nmessages = fewer(nmessages, by=100)

    def one_thread(keys: Sequence[int]) -> None:
        with connections(port, len(keys)) as socks:
            pairs = list(zip(keys, socks, strict=True))
            for number in range(nmessages):
                for key, sock in pairs:
                    sock.sendall(message(key, number, nbytes))
                for key, sock in pairs:
                    expect(sock, message(key, number, nbytes))

    nthreads = min(nthreads, nconnections)
    in_threads(one_thread, [range(first, nconnections, nthreads) for first in range(nthreads)], nthreads)


def stream(sock: socket.socket, nbytes: int) -> None:
    """Send without waiting for answers, end our side, and require the same bytes back and then the end."""

    def send() -> None:
        for start in range(0, nbytes, len(NOISE)):
            sock.sendall(NOISE[: nbytes - start])
        sock.shutdown(socket.SHUT_WR)

    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(send)
        try:
            expected = memoryview(NOISE + NOISE)
            start = 0
            while data := sock.recv(1 << 18):
                at = start % len(NOISE)
                assert data == bytes(expected[at : at + len(data)]), f"wrong bytes within {len(data)} after {start}"
                start += len(data)
            sending.result()
            assert start == nbytes
        except BaseException:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # for the sender, who may be blocked
            raise


def unread(sock: socket.socket) -> int:
    """How many bytes the other end, on this machine, has received and its program has not."""
    ours, theirs = (address[1] for address in (sock.getsockname(), sock.getpeername()))
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, *ends, _, queues = line.split()[:5]
        if [int(end.rpartition(":")[2], 16) for end in ends] == [theirs, ours]:
            return int(queues.partition(":")[2], 16)
    return 0


def push_until_blocked(sock: socket.socket, server: EchoProcess) -> int:
    """Send and never receive, until the server rests and does not take what has come; how many bytes went.

    Or until nothing has moved for a second: the kernel may stop sending for as long and longer, when a receiver that is
    full has dropped what would have told it that there is room.
    """
    sock.setblocking(False)
    nbytes = 0
    patience = 10
    while patience:
        if select.select([], [sock], [], 0.1)[1]:
            with contextlib.suppress(BlockingIOError):
                at = nbytes % len(NOISE)
                nbytes += sock.send(NOISE[at : at + 65536])
            patience = 10
        elif server.rests():
            patience = 0 if unread(sock) else patience - 1
    sock.setblocking(True)
    return nbytes


def expect_noise(sock: socket.socket, nbytes: int) -> None:
    """Require what push_until_blocked has sent."""
    start = 0
    while start < nbytes:
        at = start % len(NOISE)
        data = sock.recv(min(nbytes - start, len(NOISE) - at))
        assert data == NOISE[at : at + len(data)] != b""
        start += len(data)
