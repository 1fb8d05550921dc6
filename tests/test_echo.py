"""What must hold for every echo server, checked from outside by a client on plain sockets and threads."""

from __future__ import annotations

import functools
import re
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from echo_client import (
    NOISE,
    EchoProcess,
    connect,
    connections,
    echo,
    expect,
    expect_end,
    expect_noise,
    in_threads,
    message,
    push_until_blocked,
    receive,
    reset,
    rounds,
    run_echo,
    stream,
    until,
)
from emulation import EMULATED, fewer

SERVERS = {
    "auto": (),
    "multishot": ("--mode", "multishot"),
    "recv-send": ("--mode", "recv-send"),
    "poll-recv-send": ("--mode", "poll-recv-send"),
    "epoll": ("--backend", "epoll"),
}


@functools.cache
def missing(mode: str) -> str:
    """What this kernel lacks for a mode, in the server's own words; "" if nothing."""
    _, output, _ = run_echo("--list-modes")
    (line,) = (line for line in output.splitlines() if line.split()[:1] == [mode])
    return line.partition("  no: ")[2]


def needs_mode(mode: str) -> None:
    """Skip the test where the kernel cannot do that mode."""
    if missing(mode):
        pytest.skip(f"mode {mode}: {missing(mode)}")


# Under emulation the server that users of that kernel get. `auto` is one of the others.
@pytest.fixture(scope="module", params=["auto"] if EMULATED else [name for name in SERVERS if name != "auto"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that choose a server."""
    if request.param not in ("auto", "epoll"):
        needs_mode(request.param)
    return SERVERS[request.param]


@pytest.fixture(scope="module")
def shared(options: tuple[str, ...]) -> Iterator[EchoProcess]:
    """One server for all tests that leave it as it was; at the end it must have lost nothing."""
    with EchoProcess(*options) as process:
        yield process
        process.settle()
        assert "connections" in process.stop()


@pytest.fixture
def server(shared: EchoProcess) -> Iterator[EchoProcess]:
    """The shared server, which a test must leave without connections."""
    yield shared
    shared.settle()


# ---------------------------------------------------------------------------------------- every byte, in order, once


@pytest.mark.parametrize(
    ("nconnections", "nmessages", "nbytes"), [(1, 1000, 500), (50, 1000, 50), (200, 1000, 20), (4, 5, 300_000)]
)
def test_messages(server: EchoProcess, nconnections: int, nmessages: int, nbytes: int) -> None:
    rounds(server.port, nconnections, nmessages, nbytes)


def test_100_megabytes(server: EchoProcess) -> None:
    with connect(server.port) as sock:
        stream(sock, fewer(100_000_000))


def test_pipelined_requests(server: EchoProcess) -> None:
    with connections(server.port, 10) as socks:
        for _ in range(5):
            for key, sock in enumerate(socks):
                for number in range(64):
                    sock.sendall(message(key, number, 512))
            for key, sock in enumerate(socks):
                expect(sock, b"".join(message(key, number, 512) for number in range(64)))


def test_a_byte_at_a_time(server: EchoProcess) -> None:
    with connections(server.port, 20) as socks:
        nbytes = fewer(200)
        for number in range(nbytes):
            for key, sock in enumerate(socks):
                sock.send(message(key, 0, nbytes)[number : number + 1])
        for key, sock in enumerate(socks):
            expect(sock, message(key, 0, nbytes))


def test_idle_connections_do_not_starve_others(options: tuple[str, ...]) -> None:
    """They come while bulk senders empty the pool of a server that was stopped, and have nothing to say yet."""
    with EchoProcess(*options, "--buffers", "8") as server, connections(server.port, 6) as old:
        for key, sock in enumerate(old):
            echo(sock, message(key, 0, 100))
        server.process.send_signal(signal.SIGSTOP)
        nbytes = [push_until_blocked(sock) for sock in old]
        idle = [connect(server.port) for _ in range(100)]
        server.process.send_signal(signal.SIGCONT)
        in_threads(lambda number: expect_noise(old[number], nbytes[number]), range(len(old)), len(old))
        for key, sock in enumerate(idle):
            echo(sock, message(key, 1, 50))
            sock.close()


def test_a_tiny_pool_of_tiny_buffers_only_slows_down(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--buffers", "4", "--buffer-size", "100") as server:
        rounds(server.port, 50, 20, 250)
        with connect(server.port) as sock:
            stream(sock, fewer(1_000_000))
        server.settle()
        server.stop()


def test_few_buffers_for_many_that_send_and_end_at_once(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--buffers", "2") as server, connections(server.port, 60) as socks:
        for key, sock in enumerate(socks):
            echo(sock, message(key, 0, 100))
        server.process.send_signal(signal.SIGSTOP)
        for key, sock in enumerate(socks):
            if key % 3:
                sock.sendall(message(key, 1, 100))
            if key % 3 < 2:
                sock.shutdown(socket.SHUT_WR)
        server.process.send_signal(signal.SIGCONT)
        for key, sock in enumerate(socks):
            if key % 3:
                expect(sock, message(key, 1, 100))
            if key % 3 < 2:
                expect_end(sock)
        server.stop()


# ----------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("nbytes", [0, 1, 5000, 3_000_000])
def test_half_close(server: EchoProcess, nbytes: int) -> None:
    with connect(server.port) as sock:
        stream(sock, nbytes)


def test_half_close_while_much_is_queued(server: EchoProcess) -> None:
    with connect(server.port, receive_nbytes=4096) as sock:
        nbytes = push_until_blocked(sock)
        sock.shutdown(socket.SHUT_WR)
        expect_noise(sock, nbytes)
        expect_end(sock)


def test_a_reset_ends_that_connection_alone(server: EchoProcess) -> None:
    with connect(server.port) as witness:
        for number in range(fewer(20, 5)):
            at_once, in_message, while_queued = (connect(server.port) for _ in range(3))
            reset(at_once)
            in_message.sendall(NOISE[:300_000] if number % 2 else NOISE[:300])
            receive(in_message, 100)
            reset(in_message)
            while_queued.sendall(NOISE[:100_000])
            echo(witness, message(0, number, 1000))
            reset(while_queued)
            echo(witness, message(1, number, 1000))


def test_a_reset_of_a_peer_that_does_not_read(server: EchoProcess) -> None:
    with connect(server.port) as witness:
        sock = connect(server.port, receive_nbytes=4096)
        push_until_blocked(sock)
        reset(sock)
        echo(witness, b"still here")


def test_descriptors_that_come_back_at_once(server: EchoProcess) -> None:
    """The next connection gets the number of the one just closed, and none of its bytes."""
    with connect(server.port) as witness:
        for number in range(fewer(150)):
            old = connect(server.port)
            old.sendall(message(1, number, 2000))
            if number % 3:
                receive(old, 10)
            (reset if number % 2 else socket.socket.close)(old)
            with connect(server.port) as new:
                echo(new, message(2, number, 100))
                echo(witness, message(3, number, 100))
                echo(new, message(4, number, 100))


# ---------------------------------------------------------------------------------------------- peers that do not read


def test_a_peer_that_never_reads_beside_50_that_do(options: tuple[str, ...]) -> None:
    with EchoProcess(*options) as server:
        rounds(server.port, 50, 20, 50)
        before = server.resident_nbytes()
        with connect(server.port, receive_nbytes=4096) as slow, connect(server.port, receive_nbytes=4096) as slower:
            nbytes = push_until_blocked(slow)
            push_until_blocked(slower)
            rounds(server.port, 50, 200, 50)
            assert server.resident_nbytes() - before < 24 << 20
            expect_noise(slow, nbytes)
            echo(slow, b"and on it goes")
        server.settle()
        server.stop()


# ------------------------------------------------------------------------------------------------------- out of room


def serve_in_waves(port: int, nclients: int, most: int) -> None:
    """More clients than there is room for: some are served, the rest as those leave. All have connected at once."""
    waiting = {}
    for key in range(nclients):
        sock = connect(port)
        sock.sendall(message(key, 0, 100))
        waiting[sock] = key
    while waiting:
        until(lambda: any(arrived(sock) for sock in waiting), "an answer")
        served = [sock for sock in waiting if arrived(sock)]
        assert len(served) <= most
        for sock in served:
            expect(sock, message(waiting[sock], 0, 100))
            echo(sock, message(waiting.pop(sock), 1, 100))
            sock.close()


def arrived(sock: socket.socket) -> bool:
    """Whether something can be received."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_64_descriptors_and_200_clients(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, descriptors=64) as server:
        serve_in_waves(server.port, 200, 64)
        with connections(server.port, 200) as socks:
            # Some are connected, the others wait. A server that tries again and again would use all of this time.
            echo(socks[0], b"first")
            before = server.cpu_seconds()
            time.sleep(1)
            assert server.cpu_seconds() - before < 0.5
        rounds(server.port, 20, 20, 100)
        server.settle()
        assert re.search(r"\b4\d\d connections", server.stop())


@pytest.mark.slow
def test_the_soft_limit_of_descriptors_is_raised() -> None:
    soft_limit = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (20, 100))"
    with EchoProcess("--backend", "epoll", prelude=soft_limit) as server:
        rounds(server.port, 50, 2, 10)
        with connections(server.port, 50) as socks:
            for sock in socks:
                sock.sendall(b"hello")
            for sock in socks:
                expect(sock, b"hello")
        server.stop()


def test_no_more_connections_than_wanted(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--max-connections", "5", "--backlog", "50") as server:
        serve_in_waves(server.port, 30, 5)
        server.settle()
        server.stop()


# --------------------------------------------------------------------------------------------------------- the program


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(options: tuple[str, ...], signum: signal.Signals) -> None:
    with EchoProcess(*options) as server, connect(server.port) as idle, connect(server.port) as sock:
        echo(sock, NOISE[:1000])
        output = server.stop(signum)
        assert re.match(rf"Stopped by {signum.name} after .* s: 2 connections, \d+ echoes, 1,000 bytes", output)
        expect_end(sock)
        expect_end(idle)


def test_what_was_received_before_the_signal_is_sent(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--grace", "60") as server, connections(server.port, 20) as socks:
        for sock in socks:
            echo(sock, b"before")
        server.process.send_signal(signal.SIGSTOP)
        for key, sock in enumerate(socks):
            sock.sendall(message(key, 0, 30_000))
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        for key, sock in enumerate(socks):
            expect(sock, message(key, 0, 30_000))
            expect_end(sock)
        assert " 600,120 bytes" in server.wait()


def refused(port: int) -> bool:
    """Whether nobody listens."""
    try:
        connect(port).close()
    except ConnectionError:
        return True
    return False


def test_the_grace_period_is_bounded(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--grace", "0.1") as server, connect(server.port, receive_nbytes=4096) as slow:
        push_until_blocked(slow)
        server.stop()


def test_a_second_signal_ends_it_at_once(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--grace", "3600") as server, connect(server.port, receive_nbytes=4096) as slow:
        push_until_blocked(slow)
        server.process.send_signal(signal.SIGINT)
        until(lambda: refused(server.port), "the listener to be closed")
        assert server.process.poll() is None
        server.stop(signal.SIGINT)


@pytest.mark.slow
def test_restart_on_the_same_port(options: tuple[str, ...]) -> None:
    with EchoProcess(*options) as first, connect(first.port) as sock:
        echo(sock, b"first")
        first.stop()
        with EchoProcess(*options, port=first.port) as second, connect(second.port) as again:
            echo(again, b"second")
            second.stop()


@pytest.mark.slow
def test_a_taken_port_is_refused(server: EchoProcess, options: tuple[str, ...]) -> None:
    status, output, errors = run_echo(str(server.port), *options)
    assert (status, output) == (1, "")
    assert re.fullmatch(rf"echo: port {server.port} on 127.0.0.1 is taken: .*\n", errors)


def test_both_families_on_one_socket(options: tuple[str, ...]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with EchoProcess(*options, "--host", "::") as server:
        assert server.first_line.startswith("Listening on [::]:")
        with connect(server.port) as four, connect(server.port, "::1") as six:
            echo(four, b"four")
            echo(six, b"six")
        server.stop()


@pytest.mark.slow
def test_live_statistics(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--stats", "0.05") as server, connect(server.port) as sock:
        assert server.process.stdout is not None
        echo(sock, NOISE[:5000])
        lines = [server.process.stdout.readline()]
        while not lines[-1].startswith("1 connections, 0 echoes/s, 0 bytes/s"):
            lines.append(server.process.stdout.readline())
        assert any(re.match(r"1 connections, [\d,]+ echoes/s, [\d,]+ bytes/s", line) for line in lines)
        server.stop()


@pytest.mark.slow
def test_a_reader_of_the_statistics_who_goes_away(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--stats", "0.01") as server, connect(server.port) as sock:
        assert server.process.stdout is not None
        server.process.stdout.close()
        for number in range(20):
            echo(sock, message(0, number, 100))
            time.sleep(0.005)
        server.process.stdout = None
        server.stop()


@pytest.mark.slow
def test_quiet(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--quiet", "--stats", "0.01") as server, connect(server.port) as sock:
        assert server.first_line == f"{server.port}\n"
        echo(sock, b"hush")
        assert server.stop() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("70000",), "70000 is out of range, use 0 to 65535"),
        (("notaport",), "'notaport' is not a number"),
        (("0", "--backlog", "0"), "--backlog: 0 is out of range"),
        (("0", "--workers", "2"), "--workers: only 1"),
        (("0", "--grace", "long"), "'long' is not a number of seconds"),
        (("--stats", "12345"), "12345 is out of range"),
        (("0", "--nonsense"), "--nonsense"),
        (("0", "--mode", "no-such-mode"), "there is no mode 'no-such-mode': choose one of auto, multishot, "),
        (("0", "--backend", "epoll", "--mode", "multishot"), "--mode belongs to --backend io_uring"),
        (("0", "--host", "192.0.2.1"), "192.0.2.1 is not an address of this machine"),
        (("0", "--host", "no.such.host.invalid"), "cannot resolve"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], complaint: str) -> None:
    status, output, errors = run_echo(*arguments)
    assert (status, output) == (2, "")
    assert re.fullmatch(r"echo: .*\n", errors)
    assert complaint in errors


# ------------------------------------------------------------------------------------------------ the ring underneath

UNUSUAL = {
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
}
AUDIT = "sys.path.insert(0, 'tests'); import echo_audit"


def every_manner(server: EchoProcess) -> None:
    """Much, in little time, of what a server can meet; with few and small buffers."""
    rounds(server.port, 60, 30, 100)
    rounds(server.port, 2, 3, 100_000)
    with connect(server.port, receive_nbytes=4096) as slow, connect(server.port) as fast:
        nbytes = push_until_blocked(slow)
        stream(fast, fewer(2_000_000))
        expect_noise(slow, nbytes)
        push_until_blocked(slow)
        for number in range(fewer(10, by=3)):
            sock = connect(server.port)
            server.process.send_signal(signal.SIGSTOP)
            sock.sendall(NOISE[: 1000 * number])
            reset(sock)
            server.process.send_signal(signal.SIGCONT)
        reset(slow)
    server.settle()


@pytest.mark.parametrize("mode", ["recv-send", pytest.param("poll-recv-send", marks=pytest.mark.slow)])
@pytest.mark.parametrize("unusual", ["a tiny ring", "a kernel thread that submits"])
def test_an_unusual_ring(mode: str, unusual: str) -> None:
    with EchoProcess("--mode", mode, "--buffer-size", "4000", prelude=UNUSUAL[unusual]) as server:
        every_manner(server)
        server.stop()


@pytest.mark.parametrize("prelude", ["", *UNUSUAL.values()], ids=["an ordinary ring", *UNUSUAL])
def test_no_buffer_is_lost_or_given_back_twice(prelude: str) -> None:
    needs_mode("multishot")
    options = ("--mode", "multishot", "--buffers", "8", "--buffer-size", "1000")
    with EchoProcess(*options, prelude=f"{AUDIT}\n{prelude}") as server:
        every_manner(server)
        server.stop()


def test_the_first_line_says_why_a_mode_was_chosen() -> None:
    lack = missing("multishot")
    chosen = f"recv-send (multishot {lack})" if lack else "multishot (the best that this kernel can do)"
    with EchoProcess() as server, connect(server.port) as sock:
        assert f", mode {chosen}." in server.first_line
        echo(sock, NOISE[:1000])
    with EchoProcess("--mode", "recv-send") as server:
        assert ", mode recv-send (asked for)." in server.first_line


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


NO_IO_URING = """
sys.path.insert(0, "tests")
from test_diagnosis import CALLS, EPERM, RET_ERRNO, install_filter
install_filter(RET_ERRNO | EPERM, CALLS)
"""


def test_where_io_uring_is_blocked() -> None:
    status, output, errors = run_echo("0", prelude=NO_IO_URING)
    assert (status, output) == (1, "")
    assert re.fullmatch(r"echo: .*seccomp.* Or use --backend epoll\.\n", errors)
    with EchoProcess("--backend", "epoll", prelude=NO_IO_URING) as server, connect(server.port) as sock:
        echo(sock, b"all the same")
    status, output, errors = run_echo("--list-modes", prelude=NO_IO_URING)
    assert (status, errors) == (0, "")
    assert "seccomp" in output and " yes" not in output


def test_list_modes() -> None:
    status, output, errors = run_echo("--list-modes")
    assert (status, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["mode", "multishot", "recv-send", "poll-recv-send"]
