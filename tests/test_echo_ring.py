"""The ring under the echo server: unusual rings, kernels that lack something, and what becomes of the buffers."""

from __future__ import annotations

import signal
import socket
import sys

import echo_client
import pytest
from echo_client import (
    NOISE,
    SLOW_NBYTES,
    EchoProcess,
    connect,
    echo,
    expect_end,
    expect_noise,
    push_until_blocked,
    reset,
    rounds,
    run_echo,
    stream,
)
from echo_servers import needs_mode, options_of
from emulation import fewer

from echo.needs import MODES

UNUSUAL = {
    "an ordinary ring": "",
    "a tiny ring": "import echo.server as s; s.SQ_ENTRIES, s.CQ_ENTRIES = 8, 16",
    "sends that are not silent": "import echo.server as s, functools as f; s.Ring = f.partial(s.Ring, wanted_flags=0)",
    "a kernel thread that submits": "sys.argv.append('--sqpoll')",
    "enters that are refused now and then": """
import errno, itertools, rawuring
submit_and_wait, count = rawuring.Ring.submit_and_wait, itertools.count()
def refuse(*arguments):
    if next(count) % 5 == 4:
        raise OSError(errno.EBUSY, "not now")
    return submit_and_wait(*arguments)
rawuring.Ring.submit_and_wait = refuse
""",
    "a tiny ring whose submits are refused now and then": """
import errno, itertools, rawuring
import echo.server as s; s.SQ_ENTRIES, s.CQ_ENTRIES = 8, 16
submit, refusals = rawuring.Ring.submit, itertools.count()
def refuse(*arguments):
    if next(refusals) % 3 == 2:
        raise OSError(errno.EBUSY, "not now")
    return submit(*arguments)
rawuring.Ring.submit = refuse
""",
    "polls that break now and then": """
import itertools
from echo.modes.pairs import LinkPollRecvSend as mode
await_input, count = mode.await_input, itertools.count()
def interrupted(self, connection):
    await_input(self, connection)
    if next(count) % 3 == 2:
        self.ring.sq.prep_cancel(connection.key + (2 << 32), 0, user_data=5 << 32)
mode.await_input = interrupted
""",
    "receives that cannot poll first": """
from echo.modes import trials
trials.BEHAVIOURS["recv_poll_first"] = "5.19", lambda ring: False
""",
    "buffers that bundles have shortened": """
from echo.modes import trials
from rawuring.buffers import BufferRing
trials.BEHAVIOURS["whole_buffers"] = "7.1", lambda ring: False
publish = BufferRing._publish
def shortened(self):
    first = self._coming[0]
    publish(self)
    for position in range(first, self._coming[0]):
        if position % 3 == 2:
            self._lens[position & self._mask] = 1 + position % 50
BufferRing._publish = shortened
""",
    "sends that cannot do without a copy": """
import itertools, errno
import echo.modes.zero_copy
from rawuring.sq import SubmissionQueue
echo.modes.zero_copy.CANNOT_PIN = (-errno.EFAULT,)
send_zc, count = SubmissionQueue.prep_send_zc, itertools.count()
def misplaced(self, fd, addr, *arguments, **keywords):
    send_zc(self, fd, addr if next(count) % 3 else 64, *arguments, **keywords)
SubmissionQueue.prep_send_zc = misplaced
""",
}
AUDIT = "sys.path.insert(0, 'tests'); import echo_audit"

POOLED = ["provided-buffers", "multishot", "bundle", "zero-copy"]


def every_manner(server: EchoProcess) -> None:
    """Much, in little time, of what a server can meet; with few and small buffers."""
    rounds(server.port, 60, 5, 100)
    rounds(server.port, 2, 2, 100_000)
    with connect(server.port, receive_nbytes=SLOW_NBYTES) as slow, connect(server.port) as fast:
        nbytes = push_until_blocked(slow, server)
        stream(fast, fewer(1_000_000))
        expect_noise(slow, nbytes)
        push_until_blocked(slow, server)
        for number in range(fewer(10, by=3)):
            sock = connect(server.port)
            server.process.send_signal(signal.SIGSTOP)
            sock.sendall(NOISE[: 1000 * number])
            reset(sock)
            server.process.send_signal(signal.SIGCONT)
        reset(slow)
    server.settle()


def seldom(values: list[str]) -> list[object]:
    """Parameters of a test: all but the first are slow, and for one Python."""
    marks = [pytest.mark.slow, pytest.mark.one_python]
    return [values[0], *(pytest.param(value, marks=marks) for value in values[1:])]


@pytest.mark.portable
@pytest.mark.parametrize("mode", seldom(sorted(set(MODES) - set(POOLED), key=lambda mode: mode != "recv-send")))
@pytest.mark.parametrize("unusual", ["a tiny ring", "a kernel thread that submits"])
def test_an_unusual_ring(mode: str, unusual: str) -> None:
    with EchoProcess(*options_of(mode), "--buffer-size", "4000", prelude=UNUSUAL[unusual]) as server:
        every_manner(server)
        server.stop()


@pytest.mark.portable
def test_submits_that_are_refused() -> None:
    """As before Linux 5.19 while completions have overflowed."""
    unusual = UNUSUAL["a tiny ring whose submits are refused now and then"]
    with EchoProcess(*options_of("recv-send"), "--buffer-size", "4000", prelude=unusual) as server:
        every_manner(server)
        server.stop()


def test_a_poll_that_fails_breaks_its_link() -> None:
    needs_mode("link-poll-recv-send")
    with EchoProcess("--mode", "link-poll-recv-send", prelude=UNUSUAL["polls that break now and then"]) as server:
        every_manner(server)
        server.stop()


@pytest.mark.parametrize(
    ("mode", "unusual"),
    [
        *[(mode, "an ordinary ring") for mode in POOLED],
        *[
            pytest.param(mode, unusual, marks=[pytest.mark.slow, pytest.mark.one_python] if mode != "multishot" else [])
            for unusual in ("a tiny ring", "sends that are not silent", "a kernel thread that submits")
            for mode in POOLED
        ],
        ("multishot", "enters that are refused now and then"),
        pytest.param("multishot", "a tiny ring whose submits are refused now and then", marks=pytest.mark.slow),
        ("provided-buffers", "receives that cannot poll first"),
        ("bundle", "buffers that bundles have shortened"),
        ("zero-copy", "sends that cannot do without a copy"),
    ],
)
def test_no_buffer_is_lost_or_given_back_twice(mode: str, unusual: str) -> None:
    needs_mode(mode)
    prelude = f"{AUDIT}\n{UNUSUAL[unusual]}"
    if mode == "zero-copy":
        prelude += "\nimport echo.modes.zero_copy as z; z.COPIED_NBYTES = 500"
    with EchoProcess("--mode", mode, "--buffers", "8", "--buffer-size", "1000", prelude=prelude) as server:
        every_manner(server)
        server.stop()


def test_a_bundle_does_not_fill_its_last_buffer() -> None:
    """As before Linux 7.1, where the kernel notes in the ring how much of that buffer it meant to fill."""
    needs_mode("bundle")
    with EchoProcess("--mode", "bundle", "--buffers", "8", "--buffer-size", "1000") as server:
        with connect(server.port) as sock:
            for start in range(12):
                for nbytes in 1300, 3500:
                    echo(sock, NOISE[start : start + nbytes])
        server.settle()
        server.stop()


STOP_BEFORE_RECEIVING = """
import select, signal
import echo.service
from echo.server import RingServer
echo.service.GIVE_UP_SECONDS = 3600
accepted = RingServer._accepted
def accepted_and_stopped(self, res, cqe_flags):
    accepted(self, res, cqe_flags)
    if res >= 0:
        poll = select.poll()
        poll.register(res, events)
        poll.poll()
        self.signalled(signums)
RingServer._accepted = accepted_and_stopped
"""
"""A server that gets `signums` when there are `events` on its first connection: before the receive is submitted."""


@pytest.mark.parametrize("mode", POOLED)
def test_a_late_receive_finds_the_end(mode: str) -> None:
    prelude = f"{AUDIT}\n{STOP_BEFORE_RECEIVING}\nevents, signums = select.POLLIN, bytes([signal.SIGTERM])"
    with EchoProcess(*options_of(mode), "--grace", "3600", prelude=prelude) as server, connect(server.port) as sock:
        echo(sock, NOISE[:1000])
        expect_end(sock)
        server.wait()


@pytest.mark.parametrize("mode", POOLED)
def test_a_late_receive_finds_that_the_connection_was_reset(mode: str) -> None:
    prelude = f"{AUDIT}\n{STOP_BEFORE_RECEIVING}\nevents, signums = select.POLLHUP, bytes(2 * [signal.SIGTERM])"
    with EchoProcess(*options_of(mode), "--grace", "3600", prelude=prelude) as server:
        sock = connect(server.port)
        sock.sendall(NOISE[:1000])
        reset(sock)
        server.wait()


def test_a_server_that_does_not_settle_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    with EchoProcess() as server, connect(server.port) as sock:
        echo(sock, NOISE[:1000])
        monkeypatch.setattr(echo_client, "HANG_S", 0.1)
        with pytest.raises(AssertionError) as caught:
            server.settle()
    address = "%08X:%04X" % (int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder), server.port)
    for what in f"thread {server.pid} ", "fd 0: ", "anon_inode:[io_uring]", address:
        assert what in str(caught.value)


OLD_KERNEL = """
import rawuring.ring
from rawuring import UnsupportedError
def buffer_ring(*_):
    raise UnsupportedError("a provided-buffer ring", "5.19")
rawuring.ring.Ring.buffer_ring = buffer_ring
"""


def test_a_kernel_without_multishot() -> None:
    with EchoProcess(prelude=OLD_KERNEL) as server, connect(server.port) as sock:
        assert ", mode recv-send (multishot needs Linux 6.0)." in server.first_line
        echo(sock, NOISE[:1000])
    status, output, errors = run_echo("0", "--mode", "multishot", prelude=OLD_KERNEL)
    assert (status, output) == (1, "")
    assert errors == (
        "echo: mode multishot is not for this kernel (needs Linux 6.0): leave --mode out, or use --backend epoll\n"
    )


NO_TABLES = """
import rawuring.ring
def file_table(*_):
    raise OSError(12, "no memory")
rawuring.ring.Ring.file_table = file_table
"""


def test_files_and_buffers_that_cannot_be_registered() -> None:
    for workers in "1", "2":
        arguments = ("0", "--mode", "read-fixed-write-fixed", "--workers", workers)
        status, output, errors = run_echo(*arguments, prelude=NO_TABLES)
        assert (status, output) == (1, "")
        assert errors.startswith("echo: cannot register 1024 files, and 1024 buffers of 4096 bytes (")
        assert errors.count("\n") == 1
