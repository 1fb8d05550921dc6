"""What the trials share: a ring, something to talk to, and completions that come or do not.

May import abi, errors, register and ring. Never waits longer than a second for a completion.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final

from ... import abi
from ...diagnosis.report import errno_name, failed
from ...errors import RingSetupError, UnsupportedError
from ...ring import Ring

Cqe = tuple[int, int, int]

_PATIENCE_NS: Final = 1_000_000_000
MOMENT_NS: Final = 1_000_000
"""What a timeout that is waited for takes."""

# What the kernel answers to a set-up or a verb that it does not know, and what a restriction does.
_REFUSALS: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES)
_SHORTAGES: Final = (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE)


class Negative(Exception):
    """The kernel does not do it; the text is what it did."""


def attempt(work: Callable[[], str]) -> tuple[bool | None, str]:
    """Is the behaviour there (None: not found out), and what was seen?"""
    try:
        return True, work()
    except (Negative, UnsupportedError) as error:
        return False, str(error)
    except OSError as error:
        # What the trial needs besides io_uring, such as a socket, says nothing about the kernel's io_uring.
        of_io_uring = isinstance(error, RingSetupError) or str(error.strerror).startswith("io_uring_")
        text = str(error) if error.errno is None else f"{errno_name(error.errno)}: {error.strerror}"
        if isinstance(error, RingSetupError):
            text = failed(error.errno or 0)  # what its own text tells to do may name this process, which ends
        return False if of_io_uring and error.errno in _REFUSALS else None, text
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


class TrialRing(Ring):
    """A small ring, and its completions as many at a time as are asked for."""

    __slots__ = ("_spare",)

    def __init__(self, setup_flags: int = 0, *, cq_entries: int | None = None) -> None:
        super().__init__(8, setup_flags, cq_entries=cq_entries)
        self._spare: list[Cqe] = []

    def __enter__(self) -> TrialRing:
        return self

    def take(self, nr: int) -> list[Cqe]:
        """Submit, and wait for so many completions."""
        self.submit()
        while len(self._spare) < nr:
            self.submit_and_wait(nr - len(self._spare), _PATIENCE_NS)
            batch = self.completions()
            if not batch:
                raise Negative(f"waited a second for {nr} completions, and {len(self._spare)} came")
            self._spare += batch
        taken, self._spare = self._spare[:nr], self._spare[nr:]
        return taken

    def take_one(self) -> Cqe:
        (found,) = self.take(1)
        return found

    def results(self, nr: int) -> dict[int, int]:
        """By user_data, of requests of which each completes once."""
        return {user_data: res for user_data, res, _ in self.take(nr)}


def succeeded(what: str, res: int) -> int:
    """`res`, of which -errno means that the kernel does not do it, and a lack of memory or of fds nothing."""
    if -res in _SHORTAGES:
        raise OSError(-res, what)
    if res < 0:
        raise Negative(f"{what} gave {errno_name(-res)}")
    return res


def outcome(res: int) -> str:
    return errno_name(-res) if res < 0 else str(res)


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Negative(otherwise)


def goes_on(what: str, cqe_flags: int) -> None:
    expect(bool(cqe_flags & abi.CqeFlag.MORE), f"{what} ended with its first completion")


def timespec(nanoseconds: int) -> bytearray:
    return abi.KERNEL_TIMESPEC.pack(tv_sec=nanoseconds // 10**9, tv_nsec=nanoseconds % 10**9)


def receive(sock: socket.socket, nbytes: int) -> bytes:
    """As many bytes, from the other end of what is tried."""
    sock.settimeout(1)
    received = b""
    try:
        while len(received) < nbytes and (more := sock.recv(nbytes - len(received))):
            received += more
    except TimeoutError:
        raise Negative(f"{len(received)} of {nbytes} bytes arrived within a second") from None
    return received


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a stream that needs no network."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        yield one, other


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    """A listening socket with a name that the kernel picks, and no file has."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind("")
        sock.listen(4)
        yield sock


@contextlib.contextmanager
def connected_to(sock: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(sock.family, sock.type) as client:
        client.settimeout(1)
        client.connect(sock.getsockname())
        yield client


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over the loopback interface."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with connected_to(server) as one:
            other, _ = server.accept()
            with other:
                yield one, other
