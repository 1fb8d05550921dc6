"""Whether a ring has what a mode needs: by what the kernel says of itself and by trials, never by its version.

May import `base.py` and the names of rawuring. A trial is made on a ring with nothing in flight, and leaves it so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator

from echo.modes.base import F_MORE, Cqe
from rawuring import BufferRing, RawuringError, Ring, UnsupportedError, abi

BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)
BUNDLE = int(abi.RecvSend.BUNDLE)
NO_GROUP = 0xFFFF
CLOEXEC = int(socket.SOCK_CLOEXEC)


def missing(ring: Ring, names: Iterable[str]) -> str | None:
    """Why this ring cannot do with what it has, in words; None if it has everything that is named."""
    lacking = []
    for name in names:
        try:
            if not has(ring, name):
                lacking.append(name)
        except (OSError, RawuringError) as error:
            return f"cannot try {name}: {error}"
    return f"needs Linux {newest(lacking)}" if lacking else None


def has(ring: Ring, name: str) -> bool:
    """Whether this ring has one thing: an operation, a feature, a set-up flag or a behaviour."""
    if name in BEHAVIOURS:
        return BEHAVIOURS[name][1](ring)
    if name in abi.Op.__members__:
        return ring.supports(abi.Op[name])
    if name in abi.Feature.__members__:
        return bool(ring.features & abi.Feature[name])
    return bool(ring.setup_flags & abi.Setup[name])


def newest(names: Iterable[str]) -> str:
    """The first release that has all that is named."""
    return max((_since(name) for name in names), key=lambda release: [int(part) for part in release.split(".")])


def _since(name: str) -> str:
    if name in BEHAVIOURS:
        return BEHAVIOURS[name][0]
    for kind in abi.Op, abi.Feature, abi.Setup:
        if name in kind.__members__:
            return str(kind[name].since)
    raise KeyError(name)


# ------------------------------------------------------------------------------------------------------- the trials


def _take(ring: Ring, nr: int = 1) -> list[Cqe]:
    """Submit, and wait for so many completions."""
    completions: list[Cqe] = []
    while len(completions) < nr:
        ring.submit_and_wait(nr - len(completions))
        completions += ring.completions()
    return completions


@contextlib.contextmanager
def _somebody_waiting() -> Iterator[int]:
    """A listener with one connection to accept."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as peer:
        listener.bind("")
        listener.listen(1)
        peer.connect(listener.getsockname())
        yield listener.fileno()


def _accept_multishot(ring: Ring) -> bool:
    with _somebody_waiting() as listener_fd:
        ring.sq.prep_multishot_accept(listener_fd, 0, 0, CLOEXEC)
        ((_, res, cqe_flags),) = _take(ring)
        if res >= 0:
            os.close(res)
        if not cqe_flags & F_MORE:
            return False
        ring.sq.prep_cancel(0, 0, user_data=1)
        _take(ring, 2)
        return True


def _buffer_ring(ring: Ring) -> BufferRing | None:
    """One with a single buffer, if there can be any."""
    try:
        return ring.buffer_ring(1, 64)
    except UnsupportedError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _provided_buffer_ring(ring: Ring) -> bool:
    pool = _buffer_ring(ring)
    if pool is None:
        return False
    ring.close_buffer_ring(pool)
    return True


def _recv_multishot(ring: Ring) -> bool:
    pool = _buffer_ring(ring)
    if pool is None:
        return False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        ring.sq.prep_recv_multishot(ours.fileno(), 0, 0, 0, buf_group=pool.bgid)
        completions = _take(ring)
        while completions[-1][2] & F_MORE:
            completions += _take(ring)
    ring.close_buffer_ring(pool)
    _, res, cqe_flags = completions[0]
    return res == 1 and bool(cqe_flags & F_MORE)


def _recv_poll_first(ring: Ring) -> bool:
    """With a receive that finds no buffer: one that does not poll first says so before there is anything to receive."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ring.sq.prep_recv(
            ours.fileno(), 0, 1, 0, ioprio=int(abi.RecvSend.POLL_FIRST), buf_group=NO_GROUP, sqe_flags=BUFFER_SELECT
        )
        ring.submit_and_wait(0)
        while ring.sq.ready:
            os.sched_yield()  # to the kernel's thread that submits
        if ring.completions():
            return False
        theirs.send(b"x")
        _take(ring)
    return True


@contextlib.contextmanager
def _sent_with_urgent(*parts: bytes) -> Iterator[int]:
    """A TCP socket with all of these to receive, an urgent byte behind the first, and then the end.

    A receive ends before the urgent byte, as it does where data has come while it ran: short, with more to receive.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as theirs:
        ours, _ = listener.accept()
        with ours:
            first, *others = parts
            theirs.sendall(first)
            theirs.send(b"!", socket.MSG_OOB)
            for other in others:
                theirs.sendall(other)
            theirs.shutdown(socket.SHUT_WR)
            poll = select.poll()
            poll.register(ours, select.POLLRDHUP)
            poll.poll()
            yield ours.fileno()


def _recv_bundles(ring: Ring, fd: int, pool: BufferRing) -> Cqe:
    """Receive bundles up to the end: the completion of the first."""
    ring.sq.prep_recv_multishot(fd, 0, 0, 0, buf_group=pool.bgid, ioprio=BUNDLE)
    completions = _take(ring)
    while completions[-1][2] & F_MORE:
        completions += _take(ring)
    return completions[0]


def _recv_bundle(ring: Ring) -> bool:
    """Whether a bundle that took too little for its last buffer ends there: Linux 6.15 goes on in the next one."""
    pool = ring.buffer_ring(4, 64)
    with _sent_with_urgent(b"x", b"y") as fd:
        _, res, _ = _recv_bundles(ring, fd, pool)
    ring.close_buffer_ring(pool)
    return res == 1


def _whole_buffers(ring: Ring) -> bool:
    """Whether a bundle leaves the next buffer as it was, when it has counted on more data than there was.

    The urgent byte and the end of the stream count as data to receive, and are not received.
    """
    pool = ring.buffer_ring(2, 64)
    with _sent_with_urgent(b"x" * 64) as fd:
        _recv_bundles(ring, fd, pool)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"y" * 64)
        ring.sq.prep_recv(ours.fileno(), 0, 0, 0, buf_group=pool.bgid, sqe_flags=BUFFER_SELECT)
        ((_, res, _),) = _take(ring)
    ring.close_buffer_ring(pool)
    return res == 64


BEHAVIOURS: dict[str, tuple[str, Callable[[Ring], bool]]] = {
    "accept_multishot": (abi.Accept.MULTISHOT.since, _accept_multishot),
    "provided_buffer_ring": (abi.Register.PBUF_RING.since, _provided_buffer_ring),
    "recv_bundle": ("6.16", _recv_bundle),  # and later ones of 6.12 and 6.15
    "recv_multishot": (abi.RecvSend.RECV_MULTISHOT.since, _recv_multishot),
    "recv_poll_first": (abi.RecvSend.POLL_FIRST.since, _recv_poll_first),
    "whole_buffers": ("7.1", _whole_buffers),  # and later ones of 6.12, 6.18 and 7.0
}
"""By name: the release that brought it, and its trial."""
