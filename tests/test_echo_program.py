"""`python -m echo` as a program: its options, what it says, how it refuses, and its workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from echo_client import (
    GONE,
    NARROW,
    NOISE,
    SLOW_NBYTES,
    EchoProcess,
    connect,
    connections,
    echo,
    expect,
    expect_end,
    message,
    push_until_blocked,
    receive,
    rounds,
    run_echo,
    state,
    until,
)
from echo_servers import kind as kind
from echo_servers import missing
from emulation import HANG_S

from echo.needs import AUTO, MODES

pytestmark = pytest.mark.portable

# ------------------------------------------------------------------------------------------------- one server, a port


@pytest.mark.slow
def test_the_soft_limit_of_descriptors_is_raised() -> None:
    soft_limit = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (20, 100))"
    with EchoProcess("--backend", "epoll", prelude=soft_limit) as server:
        with connections(server.port, 50) as socks:
            for sock in socks:
                sock.sendall(b"hello")
            for sock in socks:
                expect(sock, b"hello")
        server.stop()


@pytest.mark.slow
def test_restart_on_the_same_port(kind: tuple[str, ...]) -> None:
    with EchoProcess(*kind) as first, connect(first.port) as sock:
        echo(sock, b"first")
        first.stop()
        with EchoProcess(*kind, port=first.port) as second, connect(second.port) as again:
            echo(again, b"second")
            second.stop()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_refused(workers: str) -> None:
    with EchoProcess("--workers", workers) as server:
        for others in "1", "2":
            status, output, errors = run_echo(str(server.port), "--workers", others)
            assert (status, output) == (1, "")
            assert re.fullmatch(rf"echo: port {server.port} on 127.0.0.1 is taken: .*\n", errors)
        server.stop()


SLOW_START = """
import time
from echo.workers import Workers
start = Workers._start
def late(*arguments):
    time.sleep(0.3)
    start(*arguments)
Workers._start = late
"""


@pytest.mark.slow
def test_of_two_servers_that_start_together_one_is_refused() -> None:
    """Neither listens yet when the other binds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ThreadPoolExecutor(2) as executor:
        starting = [executor.submit(EchoProcess, "--workers", "2", port=port, prelude=SLOW_START) for _ in range(2)]
        refused = [str(each.exception()) for each in starting if each.exception()]
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(each.result()) for each in starting if not each.exception()]
        assert len(refused) == 1 and f"echo: port {port} on 127.0.0.1 is taken: " in refused[0], refused
        with connect(port) as sock:
            echo(sock, b"alone")
            served[0].stop()


def needs_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_both_families_on_one_socket(kind: tuple[str, ...], workers: str) -> None:
    needs_ipv6()
    with EchoProcess(*kind, "--host", "::", "--workers", workers) as server:
        assert server.first_line.startswith("Listening on [::]:")
        with connect(server.port) as four, connect(server.port, "::1") as six:
            echo(four, b"four")
            echo(six, b"six")
        server.stop()


def test_one_family_alone(kind: tuple[str, ...]) -> None:
    needs_ipv6()
    with EchoProcess(*kind, "--host", "::1") as server:
        assert server.first_line.startswith("Listening on [::1]:")
        with connect(server.port, "::1") as six:
            echo(six, b"six")
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)
        server.stop()


# ---------------------------------------------------------------------------------------------------- what it says


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_live_statistics(kind: tuple[str, ...], workers: str) -> None:
    with EchoProcess(*kind, "--stats", "0.05", "--workers", workers) as server, connect(server.port) as sock:
        assert server.process.stdout is not None
        line = ""
        while not re.match(r"1 connections, [1-9][\d,]* echoes/s, [1-9][\d,]* bytes/s", line):
            for _ in range(20):
                echo(sock, NOISE[:500])
            line = server.process.stdout.readline()
        while not line.startswith("1 connections, 0 echoes/s, 0 bytes/s"):
            line = server.process.stdout.readline()
        ring = re.search(r", [\d,]+ enters/s, [\d.]+ completions each", line)
        assert bool(ring) == ("epoll" not in kind)
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reader_of_the_statistics_who_goes_away(kind: tuple[str, ...], workers: str) -> None:
    with EchoProcess(*kind, "--stats", "0.01", "--workers", workers) as server, connect(server.port) as sock:
        assert server.process.stdout is not None
        server.process.stdout.close()
        for number in range(20):
            echo(sock, message(0, number, 100))
            time.sleep(0.005)
        server.process.stdout = None
        server.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reader_of_the_statistics_who_does_not_read(workers: str) -> None:
    with EchoProcess("--backend", "epoll", "--stats", "0.01", "--workers", workers) as server:
        output = os.open(f"/proc/{server.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(output, bytes(4096))
        os.close(output)
        with connect(server.port) as sock:
            for number in range(20):
                echo(sock, message(0, number, 100))
                time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(HANG_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_quiet(kind: tuple[str, ...], workers: str) -> None:
    with EchoProcess(*kind, "--quiet", "--stats", "0.01", "--workers", workers) as server:
        with connect(server.port) as sock:
            assert server.first_line == f"{server.port}\n"
            echo(sock, b"hush")
        assert server.stop() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("70000",), "70000 is out of range, use 0 to 65535"),
        (("notaport",), "'notaport' is not a number"),
        (("0", "--backlog", "0"), "--backlog: 0 is out of range"),
        (("0", "--workers", "0"), "--workers: 0 is out of range"),
        (("0", "--grace", "long"), "'long' is not a number of seconds"),
        (("--stats", "12345"), "12345 is out of range"),
        (("0", "--nonsense"), "--nonsense"),
        (("0", "--mode", "no-such-mode"), "there is no mode 'no-such-mode': choose one of auto, readv-writev, "),
        (("0", "--mode", "no-such-mode", "--workers", "2"), "there is no mode 'no-such-mode': choose one of auto, "),
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


def test_the_first_line_says_why_a_mode_was_chosen() -> None:
    best, other = AUTO
    lack = missing(best)
    chosen = f"{other} ({best} {lack})" if lack else f"{best} (the best that this kernel can do)"
    with EchoProcess() as server, connect(server.port) as sock:
        assert f", mode {chosen}." in server.first_line
        echo(sock, NOISE[:1000])
    with EchoProcess("--mode", "recv-send") as server:
        assert ", mode recv-send (asked for)." in server.first_line


def test_list_modes() -> None:
    status, output, errors = run_echo("--list-modes")
    assert (status, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["mode", *MODES]


NO_IO_URING = """
sys.path.insert(0, "tests")
from test_diagnosis import CALLS, EPERM, RET_ERRNO, install_filter
install_filter(RET_ERRNO | EPERM, CALLS)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_where_io_uring_is_blocked(workers: str) -> None:
    status, output, errors = run_echo("0", "--workers", workers, prelude=NO_IO_URING)
    assert (status, output) == (1, "")
    assert re.fullmatch(r"echo: .*seccomp.* Or use --backend epoll\.\n", errors)
    with EchoProcess("--backend", "epoll", prelude=NO_IO_URING) as server, connect(server.port) as sock:
        echo(sock, b"all the same")


def test_list_modes_where_io_uring_is_blocked() -> None:
    status, output, errors = run_echo("--list-modes", prelude=NO_IO_URING)
    assert (status, errors) == (0, "")
    assert "seccomp" in output and " yes" not in output


# ---------------------------------------------------------------------------------------------------------- workers


def test_workers_share_the_port_and_their_work_is_added_up(kind: tuple[str, ...]) -> None:
    with EchoProcess(*kind, "--workers", "3") as server:
        assert re.match(r"Listening on 127\.0\.0\.1:\d+, 3 workers, each with (mode|backend) ", server.first_line)
        assert len(server.children()) == 3
        with connections(server.port, 40) as socks:
            for number in range(5):
                for key, sock in enumerate(socks):
                    echo(sock, message(key, number, 100))
            echo(socks[0], b"one more")
        output = server.stop(signal.SIGINT)
        assert re.match(r"Stopped by SIGINT after .* s: 40 connections, 201 echoes, 20,008 bytes", output)


def test_a_signal_to_the_whole_group_is_one_signal(kind: tuple[str, ...]) -> None:
    """As Ctrl-C and service managers send it: workers finish what they have received."""
    with EchoProcess(*kind, "--workers", "2", "--grace", "60") as server, connections(server.port, 10) as socks:
        for sock in socks:
            echo(sock, b"before")
        group = [server.pid, *server.children()]
        for signum in signal.SIGSTOP, signal.SIGINT:
            for pid in group:
                os.kill(pid, signum)
        for key, sock in enumerate(socks):
            sock.sendall(message(key, 0, 30_000))
        for pid in group:
            os.kill(pid, signal.SIGCONT)
        for key, sock in enumerate(socks):
            expect(sock, message(key, 0, 30_000))
            expect_end(sock)
        assert " 10 connections, " in server.wait()


def test_a_second_signal_ends_workers_at_once(kind: tuple[str, ...]) -> None:
    options = (*kind, "--workers", "2", "--grace", "3600")
    with (
        EchoProcess(*options, prelude=NARROW) as server,
        connect(server.port, receive_nbytes=SLOW_NBYTES) as slow,
    ):
        workers = server.children()
        push_until_blocked(slow, server)
        server.process.send_signal(signal.SIGINT)
        until(lambda: len(server.children()) == 1, "the worker without a connection to end")
        server.stop(signal.SIGINT)
        assert not any(state(pid) not in GONE for pid in workers)


def test_a_killed_worker_is_replaced_and_loses_only_its_own(kind: tuple[str, ...]) -> None:
    with EchoProcess(*kind, "--workers", "2") as server:
        assert server.process.stdout is not None
        killed, survivor = server.children()
        nfds = nfds_of(survivor)
        with connections(server.port, 40) as socks:
            for key, sock in enumerate(socks):
                echo(sock, message(key, 0, 1000))
            nothers = nfds_of(survivor) - nfds
            for key, sock in enumerate(socks):  # all of them are busy when it happens
                sock.sendall(message(key, 1, 100_000))
            os.kill(killed, signal.SIGKILL)
            assert server.process.stdout.readline().startswith(f"Worker {killed} was killed by SIGKILL: ")
            until(lambda: len(server.children()) == 2, "another worker")
            assert survivor in server.children()
            alive = [sock for key, sock in enumerate(socks) if gets_back(sock, message(key, 1, 100_000))]
            assert 0 < len(alive) == nothers < len(socks)
            rounds(server.port, 40, 2, 100)
        server.stop()


def nfds_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def gets_back(sock: socket.socket, data: bytes) -> bool:
    """Whether just these bytes come back, and one more that is sent now; or the connection is lost."""
    received = b""
    with contextlib.suppress(ConnectionError):
        received = receive(sock, len(data))
        assert data.startswith(received)
        sock.sendall(b"!")
        return receive(sock, 1) == b"!"
    return False


NOBODY_WAITS = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
"""As a server is started by a parent that ignores how its children end."""


def test_a_killed_worker_is_replaced_where_sigchld_was_ignored() -> None:
    with EchoProcess("--backend", "epoll", "--workers", "2", prelude=NOBODY_WAITS) as server:
        assert server.process.stdout is not None
        killed, survivor = server.children()
        os.kill(killed, signal.SIGKILL)
        assert server.process.stdout.readline().startswith(f"Worker {killed} was killed by SIGKILL: ")
        until(lambda: len(server.children() - {survivor}) == 1, "another worker")
        rounds(server.port, 10, 2, 100)
        server.stop()


@pytest.mark.parametrize("prelude", ["", "import echo.workers; echo.workers.PR_SET_PDEATHSIG = 0"])
def test_workers_die_with_their_parent(kind: tuple[str, ...], prelude: str) -> None:
    """By a signal; and where they get none, they see it."""
    with EchoProcess(*kind, "--workers", "2", prelude=prelude) as server, connect(server.port) as sock:
        echo(sock, b"alive")
        workers = server.children()
        server.process.kill()
        until(lambda: not any(state(pid) not in GONE for pid in workers), "the workers to die")


def test_connections_are_limited_over_all_workers(kind: tuple[str, ...]) -> None:
    with EchoProcess(*kind, "--workers", "2", "--max-connections", "7") as server:
        with connections(server.port, 40) as socks:
            for sock in socks:
                sock.sendall(b"hello")
            until(lambda: sum(has_answer(sock) for sock in socks) >= 7, "seven answers")
            time.sleep(0.1)
            assert sum(has_answer(sock) for sock in socks) == 7
        server.stop()


def has_answer(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False
