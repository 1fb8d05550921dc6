"""Tests of tools/load.py: right answers are counted, wrong ones found, in each kind of load and on both of its backends.
Nothing here asserts a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench_samples import needs_ring
from support import skip_what_is_newer

from tools import load
from tools.load_parts.base import histogram, percentile
from tools.load_parts.epoll import EpollStreams
from tools.load_parts.schedule import Schedule
from tools.load_parts.streams import Shape

pytestmark = pytest.mark.one_python

BACKENDS = [
    pytest.param("epoll", marks=pytest.mark.slow),
    pytest.param("ring", marks=needs_ring),
]

# --- servers of one thread per connection

Answer = Callable[[socket.socket], None]


def echo(peer: socket.socket) -> None:
    while data := peer.recv(65_536):
        peer.sendall(data)


def dribble(peer: socket.socket) -> None:
    """Right, but in pieces that fit no message."""
    while data := peer.recv(65_536):
        for start in range(0, len(data), 777):
            peer.sendall(data[start : start + 777])


def corrupt(peer: socket.socket) -> None:
    done = 0
    while data := bytearray(peer.recv(65_536)):
        done += len(data)
        if done > 20_000:
            data[7] ^= 1
        peer.sendall(data)


def stale(peer: socket.socket) -> None:
    """Answers every message with the first one."""
    first = peer.recv(65_536)
    peer.sendall(first)
    while peer.recv(len(first)):
        peer.sendall(first)


def twice(peer: socket.socket) -> None:
    while data := peer.recv(65_536):
        peer.sendall(data + data)


def hang_up(peer: socket.socket) -> None:
    for _ in range(5):
        peer.sendall(peer.recv(65_536))
    peer.recv(1)


def swallow(peer: socket.socket) -> None:
    peer.sendall(peer.recv(65_536))
    while peer.recv(65_536):
        pass


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """The port of a server that treats each connection so."""

    def treat(peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer(peer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer = listener.accept()[0]
                threads.append(threading.Thread(target=treat, args=(peer,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()


def run_load(port: int, backend: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    argv = [str(port), "--json", "--client-backend", backend, "--seconds", "0.05", "--warm-up", "0.01", *words]
    status = load.main(argv)
    out, err = capsys.readouterr()
    if backend == "ring" and status:
        skip_what_is_newer(err)
    return status, json.loads(out) if out else None, err


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("connections", "size", "depth"), [(3, 512, 1), (1, 1, 1), (2, 100, 16), (2, 300_000, 1), (2, 70_000, 3)]
)
@pytest.mark.parametrize("answer", [echo, dribble])
def test_a_right_answer(
    backend: str, answer: Answer, connections: int, size: int, depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--connections", str(connections), "--size", str(size), "--depth", str(depth), "--watch", str(os.getpid())]
    words += ["--seconds", "0.3"] if size > 50_000 else []  # time for a whole one, however slow the machine
    with serving(answer) as port:
        status, result, err = run_load(port, backend, capsys, *words)
    assert (status, err) == (0, "")
    assert {"connections": connections, "size": size, "depth": depth, "backend": backend}.items() <= result.items()
    assert result["echoes"] > 0
    assert result["wall_ns"] >= 50_000_000
    assert result["client_cpu_ns"] > 0 and result["server_cpu_ns"] > 0
    assert 0 < result["p50_ns"] <= result["p99_ns"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("depth", ["1", "4"])
@pytest.mark.parametrize(("answer", "words"), [
    (corrupt, "came back"), (stale, "came back"), (twice, "came back"), (hang_up, "bytes in flight"), (swallow, "no end"),
])  # fmt: skip
def test_a_wrong_answer_is_found(
    backend: str, answer: Answer, words: str, depth: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(load, "STALLED_AFTER_S", 0.5 if answer is swallow else 20)
    with serving(answer) as port:
        status, result, err = run_load(port, backend, capsys, "--connections", "2", "--size", "600", "--depth", depth)
    assert (status, result) == (1, None)
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--churn"]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_listens(backend: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        status, _, err = run_load(taken.getsockname()[1], backend, capsys, *words)
    assert status == 1
    assert "refused" in err.lower()


# --- an open loop, connections that come and go, deaf peers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rate", "size"), [("500", "100"), ("1e5", "3000")])
def test_an_open_loop(backend: str, rate: str, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the server keeps up or not, what it answers is right, and ends."""
    words = ["--rate", rate, "--size", size, "--connections", "3", "--seconds", "0.2"]
    with serving(dribble) as port:
        status, result, err = run_load(port, backend, capsys, *words)
    assert (status, err) == (0, "")
    assert result["rate"] == float(rate) and result["echoes"] > 0 and result["lag_p99_ns"] >= 0
    assert 0 < result["p50_ns"] <= result["p99_ns"] <= result["p999_ns"]
    assert sum(count for _, count in result["histogram"]) == result["echoes"]


def test_the_rest_of_a_message_wakes_too() -> None:
    """The sockets wake for a whole message, until a part of one was taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (sock,) = load.connect("127.0.0.1", listener.getsockname()[1], count=1, low_water=100)
        peer = listener.accept()[0]
        with sock, peer, contextlib.closing(EpollStreams([sock], Shape(100))) as streams:
            streams.start()
            data = peer.recv(100, socket.MSG_WAITALL)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 100
            streams.received(streams.connections[0], data[:99])
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            peer.sendall(data[99:])
            streams.turn()
            assert streams.echoes == 1


@pytest.mark.portable
def test_the_waits_of_an_open_loop_begin_with_the_schedule() -> None:
    schedule = Schedule(1000, 2)
    schedule.began_ns = 0
    assert schedule.take_due(-1) == range(0, 1)
    assert schedule.next_ns() == 1_000_000
    assert schedule.take_due(999_999) == range(1, 1)
    # The client was away for two intervals: three messages are due, of which the first is late by most of them.
    assert schedule.take_due(3_500_000) == range(1, 4)
    assert schedule.lags == [0, 2_500_000]
    schedule.answer(1, 2, 5_000_000)  # messages 1 and 3, of which the client sent both at 3.5 ms
    schedule.answer(0, 1, 5_000_000)
    assert schedule.waits == [4_000_000, 2_000_000, 5_000_000]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("connections", "size"), [(1, 1), (8, 512), (2, 200_000)])
def test_churn(backend: str, connections: int, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--churn", "--connections", str(connections), "--size", str(size), "--seconds", "0.1"]
    words += ["--watch", str(os.getpid())]
    peers = 0

    def count(peer: socket.socket) -> None:
        nonlocal peers
        peers += 1
        dribble(peer)

    with serving(count) as port:
        status, result, err = run_load(port, backend, capsys, *words)
    assert (status, err) == (0, "")
    assert 0 < result["echoes"] <= peers
    assert 0 < result["p50_ns"] <= result["p999_ns"]
    assert result["server_cpu_ns"] > 0 and result["server_resident_nbytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("answer", "words"), [
    (lambda peer: peer.sendall(bytes([byte ^ 1 for byte in peer.recv(100)])), "came back"),
    (lambda peer: peer.sendall(peer.recv(100)[:60]), "closed it after 60 of 100 bytes"),
    (lambda peer: peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)), "reset"),
])  # fmt: skip
def test_a_wrong_answer_is_found_in_churn(
    backend: str, answer: Answer, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answer) as port:
        status, result, err = run_load(port, backend, capsys, "--churn", "--connections", "2", "--size", "100")
    assert (status, result) == (1, None)
    assert words in err


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("hangs_up", [False, True])
def test_deaf_peers(backend: str, hangs_up: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """They send until the server takes no more, and the others are served meanwhile."""
    nbytes = 1 << 28 if hangs_up else 200_000

    def answer(peer: socket.socket) -> None:
        data = peer.recv(65_536)
        if len(data) <= 64:
            peer.sendall(data)
            echo(peer)
        while not hangs_up and peer.recv(65_536):
            pass

    words = ["--connections", "3", "--size", "64", "--deaf", "2", "--deaf-bytes", str(nbytes), "--seconds", "0.2"]
    with serving(answer) as port:
        status, result, err = run_load(port, backend, capsys, *words)
    assert (status, err) == (0, "")
    assert result["echoes"] > 0
    assert result["deaf_gone"] == (2 if hangs_up else 0)
    assert (result["deaf_sent_nbytes"] == 2 * nbytes) != hangs_up


# --- the figures


@pytest.mark.portable
def test_percentiles_and_histogram() -> None:
    assert [percentile([1, 2, 3, 4], part) for part in (0.0, 0.5, 0.99)] == [1, 3, 4]
    assert histogram([]) == []
    assert histogram([0, 1, 1, 2, 1000], steps=1) == [(0, 1), (1, 2), (2, 1), (1024, 1)]
    assert histogram([7, 80, 85, 900]) == [(7, 1), (91, 2), (1024, 1)]


# --- the program


@pytest.mark.portable
@pytest.mark.parametrize(("words", "said"), [
    ([], "required"),
    (["1", "--rate", "0"], "messages a second"),
    (["1", "--rate", "5", "--depth", "2"], "not allowed with"),
    (["1", "--churn", "--deaf", "1"], "--deaf"),
    (["1", "--size", "10000000", "--depth", "2"], "at most"),
])  # fmt: skip
def test_bad_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load.main(words)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_what_a_reader_at_a_terminal_sees(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--client-backend", "epoll", "--seconds", "0.1", "--warm-up", "0.02", "--watch", str(os.getpid())]
    with serving(echo) as port:
        assert load.main([str(port), *words, "--rate", "1000", "--deaf", "1", "--deaf-bytes", "1"]) == 0
    out = capsys.readouterr().out
    assert "every byte right" in out and "p99.9" in out
    assert "asked for 1,000 a second" in out
    assert "1 deaf peers sent 1 bytes" in out
    assert "MiB resident" in out
