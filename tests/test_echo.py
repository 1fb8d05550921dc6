"""What must hold for every echo server, in every mode, checked from outside by a client on plain sockets and threads."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest
from echo_client import (
    NARROW,
    NOISE,
    SLOW_NBYTES,
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
    stream,
    until,
)
from echo_servers import cramped as cramped
from echo_servers import options as options
from echo_servers import options_of, servers
from echo_servers import server as server
from echo_servers import shared as shared
from echo_servers import shared_cramped as shared_cramped
from emulation import fewer

# ---------------------------------------------------------------------------------------- every byte, in order, once


@pytest.mark.parametrize(
    ("nconnections", "nmessages", "nbytes"), [(1, 200, 500), (50, 20, 50), (200, 2, 20), (4, 1, 300_000)]
)
def test_messages(server: EchoProcess, nconnections: int, nmessages: int, nbytes: int) -> None:
    rounds(server.port, nconnections, nmessages, nbytes)


THOROUGH = servers(["recv-send", "multishot", "bundle", "zero-copy", "epoll"])


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("name", THOROUGH)
@pytest.mark.parametrize(
    ("nconnections", "nmessages", "nbytes"), [(1, 1000, 500), (50, 300, 50), (200, 100, 20), (4, 20, 300_000)]
)
def test_many_messages(name: str, nconnections: int, nmessages: int, nbytes: int) -> None:
    with EchoProcess(*options_of(name)) as server:
        rounds(server.port, nconnections, nmessages, nbytes)
        server.stop()


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("name", THOROUGH)
def test_100_megabytes(name: str) -> None:
    with EchoProcess(*options_of(name)) as server, connect(server.port) as sock:
        stream(sock, fewer(100_000_000))
        server.stop()


def test_a_stream(server: EchoProcess) -> None:
    with connect(server.port) as sock:
        stream(sock, fewer(10_000_000))


def test_pipelined_requests(server: EchoProcess) -> None:
    with connections(server.port, 10) as socks:
        for _ in range(2):
            for key, sock in enumerate(socks):
                for number in range(64):
                    sock.sendall(message(key, number, 512))
            for key, sock in enumerate(socks):
                expect(sock, b"".join(message(key, number, 512) for number in range(64)))


def test_a_byte_at_a_time(server: EchoProcess) -> None:
    with connections(server.port, 10) as socks:
        nbytes = fewer(100)
        for number in range(nbytes):
            for key, sock in enumerate(socks):
                sock.send(message(key, 0, nbytes)[number : number + 1])
        for key, sock in enumerate(socks):
            expect(sock, message(key, 0, nbytes))


# ----------------------------------------------------------------------------------------------------- few buffers


def test_few_small_buffers_only_slow_down(cramped: EchoProcess) -> None:
    rounds(cramped.port, 50, 5, 2500)
    with connect(cramped.port) as sock:
        stream(sock, fewer(500_000))


def test_few_buffers_for_many_that_send_and_end_at_once(cramped: EchoProcess) -> None:
    with connections(cramped.port, 60) as socks:
        for key, sock in enumerate(socks):
            echo(sock, message(key, 0, 100))
        cramped.process.send_signal(signal.SIGSTOP)
        for key, sock in enumerate(socks):
            if key % 3:
                sock.sendall(message(key, 1, 3000))
            if key % 3 < 2:
                sock.shutdown(socket.SHUT_WR)
        cramped.process.send_signal(signal.SIGCONT)
        for key, sock in enumerate(socks):
            if key % 3:
                expect(sock, message(key, 1, 3000))
            if key % 3 < 2:
                expect_end(sock)


def test_idle_connections_do_not_starve_others(cramped: EchoProcess) -> None:
    """They come while bulk senders empty the pool of a server that was stopped, and have nothing to say yet."""
    with connections(cramped.port, 4) as old:
        for key, sock in enumerate(old):
            echo(sock, message(key, 0, 100))
        cramped.process.send_signal(signal.SIGSTOP)
        nbytes = in_threads(lambda sock: push_until_blocked(sock, cramped), old, len(old))
        with connections(cramped.port, 100) as idle:
            cramped.process.send_signal(signal.SIGCONT)
            in_threads(lambda number: expect_noise(old[number], nbytes[number]), range(len(old)), len(old))
            for key, sock in enumerate(idle):
                echo(sock, message(key, 1, 50))


# ----------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("nbytes", [0, 1, 5000, 1_000_000])
def test_half_close(server: EchoProcess, nbytes: int) -> None:
    with connect(server.port) as sock:
        stream(sock, nbytes)


def test_a_reset_ends_that_connection_alone(server: EchoProcess) -> None:
    with connect(server.port) as witness:
        for number in range(fewer(10, 5)):
            at_once, in_message, while_queued = (connect(server.port) for _ in range(3))
            reset(at_once)
            in_message.sendall(NOISE[:300_000] if number % 2 else NOISE[:300])
            receive(in_message, 100)
            reset(in_message)
            while_queued.sendall(NOISE[:100_000])
            echo(witness, message(0, number, 1000))
            reset(while_queued)
            echo(witness, message(1, number, 1000))


def test_descriptors_that_come_back_at_once(server: EchoProcess) -> None:
    """The next connection gets the number of the one just closed, and none of its bytes."""
    with connect(server.port) as witness:
        for number in range(fewer(60)):
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


def test_peers_that_never_read_beside_50_that_do(options: tuple[str, ...]) -> None:
    with EchoProcess(*options) as server:
        rounds(server.port, 50, 2, 50)
        before = server.resident_nbytes()
        slow = [connect(server.port, receive_nbytes=SLOW_NBYTES) for _ in range(4)]
        nbytes = in_threads(lambda sock: push_until_blocked(sock, server), slow, len(slow))
        rounds(server.port, 50, 20, 50)
        # The pool of 8 MiB, and for each of them a queue above the mark by at most what was taken in one turn, a pool.
        assert server.resident_nbytes() - before < 48 << 20
        resumed, ended, was_reset, left = slow
        expect_noise(resumed, nbytes[0])
        echo(resumed, b"and on it goes")
        resumed.close()
        ended.shutdown(socket.SHUT_WR)
        expect_noise(ended, nbytes[1])
        expect_end(ended)
        ended.close()
        reset(was_reset)
        left.close()
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
            time.sleep(0.4)
            assert server.cpu_seconds() - before < 0.2
        rounds(server.port, 20, 2, 100)
        server.settle()
        assert re.search(r"\b4\d\d connections", server.stop())


def test_no_more_connections_than_wanted(options: tuple[str, ...]) -> None:
    with EchoProcess(*options, "--max-connections", "5", "--backlog", "50") as server:
        serve_in_waves(server.port, 30, 5)
        server.settle()
        server.stop()


# ----------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_what_was_received_before_the_signal_is_sent(options: tuple[str, ...], signum: signal.Signals) -> None:
    with EchoProcess(*options, "--grace", "60") as server, connections(server.port, 20) as socks:
        for sock in socks:
            echo(sock, b"before")
        server.process.send_signal(signal.SIGSTOP)
        for key, sock in enumerate(socks[1:]):
            sock.sendall(message(key, 0, 30_000))
        server.process.send_signal(signum)
        server.process.send_signal(signal.SIGCONT)
        for key, sock in enumerate(socks[1:]):
            expect(sock, message(key, 0, 30_000))
            expect_end(sock)
        expect_end(socks[0])
        output = server.wait()
        assert re.match(rf"Stopped by {signum.name} after .* s: 20 connections, [\d,]+ echoes, 570,120 bytes", output)


def refused(port: int) -> bool:
    """Whether nobody listens."""
    try:
        connect(port).close()
    except ConnectionError:
        return True
    return False


def test_the_grace_period_is_bounded(options: tuple[str, ...]) -> None:
    with (
        EchoProcess(*options, "--grace", "0.1", prelude=NARROW) as server,
        connect(server.port, receive_nbytes=SLOW_NBYTES) as slow,
    ):
        push_until_blocked(slow, server)
        server.stop()


def test_a_second_signal_ends_it_at_once(options: tuple[str, ...]) -> None:
    with (
        EchoProcess(*options, "--grace", "3600", prelude=NARROW) as server,
        connect(server.port, receive_nbytes=SLOW_NBYTES) as slow,
    ):
        push_until_blocked(slow, server)
        server.process.send_signal(signal.SIGINT)
        until(lambda: refused(server.port), "the listener to be closed")
        assert server.process.poll() is None
        server.stop(signal.SIGINT)
