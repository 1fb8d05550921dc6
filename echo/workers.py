"""Several processes that serve one port: the kernel gives each connection to one of them.

May import `counts.py` and `service.py`. Serves nothing itself: it starts the workers, replaces those that die, passes
signals on and adds up what they did.

The port is bound here first, without SO_REUSEPORT: somebody else's server on it is noticed. That socket stays bound,
and never listens, so that the port stays ours when no worker is there, and is the same for all if it was to be any. As two such sockets would
not notice each other, one parent starts at a time.

A worker and the parent share a socket. Down go the numbers of signals, each a byte, as `Signals` gives them to a server
alone; up come messages, and the end when the worker has died. A worker ignores the signals of the terminal and of
service managers, which often go to all processes of a group: only what the parent passes on counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from typing import Any, Protocol

from echo.counts import Counts
from echo.service import GIVE_UP_SECONDS, EchoError, Options, Say, Signals, Tell, address_of, bind, listen

PR_SET_PDEATHSIG = 1

MESSAGE_NBYTES = 64 * 1024
SHORT_LIFE = 0.5
"""Seconds: who dies sooner than that is replaced only after as long again, so that a fault does not spin."""
PATIENCE = 5.0
"""Seconds that a worker may take longer to end than it should, and another server to start."""
TURNSTILE = "\0python -m echo --workers"
"""An abstract address: it goes with the socket."""


class Server(Protocol):
    """What a worker runs."""

    about: str

    def run(self) -> None: ...
    def close(self) -> None: ...
    def counts(self) -> Counts: ...


MakeServer = Callable[[socket.socket, socket.socket, Options, Say, Tell], Server]


class Worker:
    """A process that serves, as its parent sees it."""

    def __init__(self, place: int, pid: int, channel: socket.socket) -> None:
        self.place = place
        self.pid = pid
        self.channel = channel
        self.started = time.monotonic()
        self.about = ""
        """How it serves, once it does."""
        self.failure: EchoError | None = None
        self.counts = Counts()

    def heard(self, message: dict[str, Any]) -> None:
        """Take what it says of itself."""
        if "counts" in message:
            self.counts = Counts(*message["counts"])
        elif "about" in message:
            self.about = message["about"]
        else:
            self.failure = EchoError(message["error"])
            self.failure.status = message["status"]


class Workers:
    """`number` processes, each with a server from `make_server`."""

    def __init__(
        self,
        host: str,
        port: int,
        backlog: int,
        number: int,
        make_server: MakeServer,
        signals: Signals,
        options: Options,
        say: Say,
        tell: Tell,
    ) -> None:
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # inherited; nobody could be waited for
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._turnstile = turnstile()
        try:
            self._holder = bind(host, port)
        except BaseException:
            self._turnstile.close()
            raise
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.address = address_of(self._holder)
        self.about = ""
        self.stopped_by = ""
        self._host, self._port, self._backlog = host, self._holder.getsockname()[1], backlog
        self._make_server = make_server
        self._signals = signals
        self._say = say
        self._tell = tell
        self._workers: dict[int, Worker] = {}  # by the descriptor of the channel
        self._vacant: dict[int, float] = {}  # places without a worker, and when to fill them
        self._lost = Counts()  # of those who are gone
        self._poll = select.poll()
        self._poll.register(signals.reader, select.POLLIN)
        self._kill_at: float | None = None
        self._tell_at: float | None = None
        self._options = list(shares(options, number))
        try:
            for place in range(len(self._options)):
                self._start(place)
            while not all(worker.about for worker in self._workers.values()) and not self.stopped_by:
                self._turn()
        except BaseException:
            self.close()
            raise
        self._turnstile.close()
        about = next((worker.about for worker in self._workers.values()), "")
        self.about = f"{len(self._options)} workers, each with {about}"
        self._tell_at = None if options.stats is None else time.monotonic() + options.stats

    def run(self) -> None:
        """Keep the workers running until a signal, and then until they have ended."""
        while self._workers or not self.stopped_by:
            self._turn()

    def close(self) -> None:
        """End every worker that is left."""
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGKILL)
        for worker in list(self._workers.values()):
            self._bury(worker)
        self._holder.close()
        self._turnstile.close()

    def counts(self) -> Counts:
        """The sum over all workers, the dead included as far as they had told."""
        total = self._lost
        for worker in self._workers.values():
            total += worker.counts
        return total

    # The parent's loop.

    def _turn(self) -> None:
        """Wait for something to happen or to be due, and do it."""
        times = [*self._vacant.values(), *(at for at in (self._kill_at, self._tell_at) if at is not None)]
        timeout = max(0.0, min(times) - time.monotonic()) * 1000 if times else None
        for fd, _ in self._poll.poll(timeout):
            if fd == self._signals.reader.fileno():
                self._signalled(self._signals.reader.recv(4096))
            else:
                self._hear(self._workers[fd])
        now = time.monotonic()
        for place in [place for place, at in self._vacant.items() if at <= now]:
            try:
                self._start(place)
            except OSError as error:
                self._vacant[place] = now + SHORT_LIFE
                self._say(f"A worker cannot be started ({error.strerror}): it is tried again.")
            else:
                del self._vacant[place]
        if self._tell_at is not None and self._tell_at <= now:
            stats = self._options[0].stats
            assert stats is not None
            self._tell_at = now + stats
            self._tell(self.counts())
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            for worker in self._workers.values():
                os.kill(worker.pid, signal.SIGKILL)

    def _signalled(self, signums: bytes) -> None:
        for signum in signums:
            if signum not in Signals.CAUGHT:
                continue
            grace = 0.0 if self.stopped_by else self._options[0].grace
            self.stopped_by = self.stopped_by or signal.Signals(signum).name
            self._kill_at = time.monotonic() + grace + GIVE_UP_SECONDS + PATIENCE
            self._vacant.clear()
            for worker in self._workers.values():
                with contextlib.suppress(OSError):
                    worker.channel.send(bytes([signum]))

    def _hear(self, worker: Worker) -> None:
        try:
            data = worker.channel.recv(MESSAGE_NBYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            worker.heard(json.loads(data))
            return
        died = self._bury(worker)
        if self.stopped_by:
            return
        if not self.about:
            raise worker.failure or EchoError(f"a worker {died} before it served")
        now = time.monotonic()
        self._vacant[worker.place] = now if now - worker.started > SHORT_LIFE else now + SHORT_LIFE
        self._say(f"Worker {worker.pid} {died}: its connections are lost, and another takes its place.")

    def _bury(self, worker: Worker) -> str:
        """Take a worker off the books. Returns how it ended."""
        _, status = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        fd = worker.channel.fileno()
        self._poll.unregister(fd)
        del self._workers[fd]
        worker.channel.close()
        self._lost = self._lost + replace(worker.counts, connected=0)
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with status {code}" + (f" ({worker.failure})" if worker.failure else "")

    # Starting a worker.

    def _start(self, place: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        with theirs:
            # A signal must not reach a child that still has our handler: it would write to our descriptor.
            signal.pthread_sigmask(signal.SIG_BLOCK, Signals.CAUGHT)
            try:
                pid = os.fork()
                if not pid:
                    _work(parent, lambda: self._serve(place, ours, theirs), theirs)
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, Signals.CAUGHT)
        ours.setblocking(False)
        self._workers[ours.fileno()] = Worker(place, pid, ours)
        self._poll.register(ours, select.POLLIN)

    def _serve(self, place: int, parents: socket.socket, channel: socket.socket) -> None:
        """The life of a worker."""
        parents.close()  # or the end of the parent would not be that of the channel
        for worker in self._workers.values():
            worker.channel.close()
        self._signals.reader.close()
        self._holder.close()
        self._turnstile.close()
        with listen(self._host, self._port, self._backlog, shared=True) as listener:

            def tell(counts: Counts) -> None:
                with contextlib.suppress(BlockingIOError):  # the parent does not listen, and the next says as much
                    _send(channel, socket.MSG_DONTWAIT, counts=astuple(counts))

            server = self._make_server(listener, channel, self._options[place], self._say, tell)
            try:
                _send(channel, about=server.about)
                server.run()
                _send(channel, counts=astuple(server.counts()))
            finally:
                server.close()


def turnstile() -> socket.socket:
    """What only one process of this network namespace has at a time, from its own on until it is closed; it waits for that.

    Whoever holds it for too long, or whatever forbids it, does not keep a server from its start.
    """
    lock = socket.socket(socket.AF_UNIX)
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            lock.bind(TURNSTILE)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < give_up:
                time.sleep(0.01)
                continue
        return lock


def shares(options: Options, number: int) -> Iterator[Options]:
    """The options of each worker: the connections that there may be are divided."""
    most = options.max_connections
    if most is None:
        return (options for _ in range(number))
    number = min(number, most)
    return (replace(options, max_connections=most // number + (place < most % number)) for place in range(number))


def _send(channel: socket.socket, msg_flags: int = 0, **message: Any) -> None:
    """A message to the parent, if it is there."""
    with contextlib.suppress(BrokenPipeError):
        channel.send(json.dumps(message).encode(), msg_flags)


def _work(parent: int, serve: Callable[[], None], channel: socket.socket) -> None:
    """The child of a fork: it never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for signum in Signals.CAUGHT:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, Signals.CAUGHT)
        ctypes.CDLL(None).prctl(ctypes.c_int(PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() == parent:  # else it is gone already
            serve()
            status = 0
    except EchoError as error:
        _send(channel, error=str(error), status=error.status)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
