"""The echo server on a ring: its loop, accepting, signals, closing. How bytes are received and sent is a mode's.

May import `counts.py`, `service.py`, the modes and the names of rawuring.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from ctypes import addressof, c_char
from dataclasses import replace

from echo.counts import Counts
from echo.modes import check_name, choose, table
from echo.modes.base import ACCEPT, F_MORE, KEY_STEP, KEYS_END, SIGNAL, UNHEEDED, Cqe, RingConnection
from echo.service import ENDED, RUNNING, STOPPING, EchoError, Options, Say, Service, Tell
from rawuring import RawuringError, Ring, abi

SQ_ENTRIES = 1024
CQ_ENTRIES = 4096
SQES_PER_CQE = 4
"""More than any completion makes a mode and the server queue."""

REFUSED = (errno.EBUSY, errno.EAGAIN)
"""The kernel did not take what was queued: first, completions must be taken, or memory be found."""

CLOEXEC = int(socket.SOCK_CLOEXEC)


def make_ring(sqpoll: bool = False) -> Ring:
    """The ring of a server, or one line that says why there is none."""
    try:
        setup_flags = abi.Setup.SQPOLL if sqpoll else 0
        return Ring(SQ_ENTRIES, setup_flags, cq_entries=CQ_ENTRIES, register_ring_fd=True)
    except RawuringError as error:
        raise EchoError(f"{error} Or {'leave --sqpoll out' if sqpoll else 'use --backend epoll'}.") from None


def describe_modes() -> str:
    """The text of --list-modes."""
    try:
        ring = make_ring()
    except EchoError as error:
        return table(None, "no io_uring") + f"\n\n{error}"
    with ring:
        return table(ring, "")


class RingServer(Service[RingConnection]):
    """Connections are known by a key, which `base.py` explains."""

    def __init__(self, listener: socket.socket, signals: socket.socket, options: Options, say: Say, tell: Tell) -> None:
        super().__init__(listener, signals, options, say, tell)
        check_name(options.mode)
        self.ring = make_ring(options.sqpoll)
        self._sqpoll = options.sqpoll
        self._early: list[Cqe] = []  # what was taken within a turn, for the next one
        try:
            mode, why = choose(options.mode, self.ring)
            self.mode = mode(self)
        except BaseException:
            self.ring.close()
            raise
        self.about = f"mode {mode.name} ({why})"
        if self.mode.most_connections is not None:
            self.most_connections = self.mode.most_connections
            self.about += f", at most {self.most_connections:,} connections"
        for sock in listener, signals:
            sock.setblocking(True)  # a request on them waits; before Linux 5.19 it would not if they did not block
        self._listener_fd = listener.fileno()
        self._signals_fd = signals.fileno()
        self._signums = bytearray(64)
        self._signums_addr = addressof(c_char.from_buffer(self._signums))
        self._next_key = KEY_STEP
        # How many connections there are must be known before each accept if there is a limit.
        self._multishot_accept = mode.multishot_accept and self.most_connections is None
        self.nenters = self._ncompletions = 0
        self._await_signal()
        self.accept_more()

    def run(self) -> None:
        self.mode.run()

    def close(self) -> None:
        with contextlib.suppress(OSError, RawuringError):
            self.ring.submit()  # what is to be closed
        for connection in self.connections.values():
            os.close(connection.fd)
        with warnings.catch_warnings():
            if self._sqpoll:
                # The kernel's thread may take longer than close() waits. What is kept then goes with the process.
                warnings.simplefilter("ignore", ResourceWarning)
            self.ring.close()

    # What a mode uses.

    def turns(self) -> Iterator[Iterable[Cqe]]:
        """What has completed, turn by turn, until the server has ended. A turn is one enter. Some the mode deals with at once.

        All that a turn makes us queue fits into the submission queue, which the enter has emptied; where it might not,
        room is made in between.
        """
        mode, ring = self.mode, self.ring
        most = 0 if self._sqpoll else ring.entries // SQES_PER_CQE
        submit_and_wait, take, drain, early = ring.submit_and_wait, mode.taker(), ring.completions, self._early
        while self.state != ENDED:
            self.nenters += 1
            try:
                if self.alarm is None:
                    submit_and_wait(0 if mode.hurry or early else 1)
                else:
                    timeout = self.attend()
                    submit_and_wait(0 if mode.hurry or early else 1, None if timeout is None else int(timeout * 1e9))
                completions = drain() if early else take()
                if completions is None:
                    continue
            except OSError as error:
                completions = self._enter_again(error)
            if early:
                completions = early + completions
                early.clear()
            if len(completions) >= CQ_ENTRIES:
                # The kernel may hold more back, among them of sends that must not be taken for silent.
                while ring.cq.overflowed:
                    submit_and_wait(0)
                    completions += drain()
            self._ncompletions += len(completions)
            yield completions if len(completions) <= most else self._in_parts(completions)

    def _enter_again(self, error: OSError) -> list[Cqe]:
        """Submit what was refused, if it can be. What has completed since."""
        completions: list[Cqe] = []
        while error.errno in REFUSED:
            completions += self.ring.completions()
            time.sleep(0.001)
            try:
                self.ring.submit_and_wait(0)
            except OSError as another:
                error = another
            else:
                return completions + self.ring.completions()
        raise error

    def _in_parts(self, completions: list[Cqe]) -> Iterator[Cqe]:
        part = self.ring.entries // SQES_PER_CQE
        for i, completion in enumerate(completions):
            if i % part == 0:
                self.make_room(min(part, len(completions) - i) * SQES_PER_CQE)
            yield completion

    def make_room(self, nsqes: int = SQES_PER_CQE) -> None:
        """Flush the submission queue if so many more do not fit."""
        while self.ring.sq.space_left < nsqes:
            try:
                self.ring.submit()
            except OSError as error:
                if error.errno not in REFUSED:
                    raise
                self._early += self.ring.completions()
                time.sleep(0.001)
            if self._sqpoll:
                os.sched_yield()

    def complete(self, user_data: int, res: int, cqe_flags: int) -> None:
        """A completion that is of no connection, or of one that is gone."""
        if user_data == ACCEPT:
            self._accepted(res, cqe_flags)
        elif user_data == SIGNAL:
            signums = bytes(self._signums[: max(res, 0)])
            self._await_signal()
            if res >= 0:
                self.signalled(signums)

    def retire(self, connection: RingConnection) -> None:
        """Close a connection that has nothing in flight."""
        self.mode.close(connection)
        self.closed(connection.key)

    # Accepting, and signals.

    def accept_more(self) -> None:
        """Arm an accept."""
        self.make_room()
        prep = self.ring.sq.prep_multishot_accept if self._multishot_accept else self.ring.sq.prep_accept
        prep(self._listener_fd, 0, 0, CLOEXEC, user_data=ACCEPT)
        self.accepting = True

    def accept_no_more(self) -> None:
        """Close the listener; who waits in its backlog is refused."""
        if self.accepting:
            self.make_room()
            self.ring.sq.prep_cancel(ACCEPT, 0, user_data=UNHEEDED)
        self.listener.close()

    def _accepted(self, res: int, cqe_flags: int) -> None:
        if res >= 0:
            key = self._next_key | res
            self._next_key = self._next_key + KEY_STEP if self._next_key < KEYS_END - KEY_STEP else KEY_STEP
            connection = self.mode.connection_class(key, res)
            self.opened(key, connection)
            self.mode.begin(connection)
            if self.state == STOPPING:
                self.stop_reading(connection)
            elif self.state != RUNNING:
                self.abandon(connection)
        if cqe_flags & F_MORE:
            return
        self.accepting = False
        if self.state != RUNNING:
            return
        if res < 0:
            self.accept_failed(-res)
        elif not self.full():
            self.accept_more()

    def stop_reading(self, connection: RingConnection) -> None:
        """Shut down receiving; an armed receive completes with the end of the input."""
        self.mode.shut_down(connection, socket.SHUT_RD)

    def abandon(self, connection: RingConnection) -> None:
        """Give it up; it is closed when its requests have completed."""
        self.make_room()
        self.mode.abandon(connection)

    def _await_signal(self) -> None:
        self.ring.sq.prep_recv(self._signals_fd, self._signums_addr, len(self._signums), 0, user_data=SIGNAL)

    def counts(self) -> Counts:
        counts, mode = super().counts(), self.mode
        return replace(
            counts,
            echoes=counts.echoes + mode.nanswered,
            nbytes=counts.nbytes + mode.nanswered_bytes,
            enters=self.nenters,
            completions=self._ncompletions + mode.nanswered,
        )
