"""Operations in flight: what each keeps alive, and what its completions were.

May import errors. Knows neither rings nor memory: a ring fills the table and asks it.

The rules
    A token is a count that is never reused, with bit 63 set. The completion of an operation
    that is gone simply finds nothing; it never meets a later one, as it would if tokens were
    fds or slots.

    The table holds an operation, and through it everything the kernel may touch, from before
    its SQE is written until its *final* completion: the one without CqeFlag.MORE, whatever its
    result is. (That of a send without copies comes after the one with its result.) Who else
    refers to the operation does not matter.

    An interrupt can come between any two steps, so each step may be taken twice. Resolving a
    batch of completions again changes nothing: setting the outcome of an operation twice is
    harmless, and a stream remembers the position of the last completion it has taken.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator

from .errors import OutOfOrderError, UnsupportedError, os_error
from .hints import Any, Final, Generic, Protocol, TypeVar

OWNED: Final = 1 << 63  # tokens are at least this, user_data of the raw layer is below

_EINVAL: Final = errno.EINVAL
_EOPNOTSUPP: Final = errno.EOPNOTSUPP  # the answer to a command that a file does not know
_F_MORE: Final = 2

Cqe = tuple[int, int, int]  # user_data, res, cqe_flags: as it lay in the CQ
Outcome = tuple[int, int]  # res, cqe_flags
Prep = Callable[..., None]
Callback = Callable[[Any, int, int], object]  # operation, res, cqe_flags
Value = TypeVar("Value", covariant=True)


class Waiter(Protocol):
    """What an operation asks of its ring."""

    def wait_for(self, operation: Operation[Any], timeout_ns: int | None) -> Cqe: ...
    def wait_next(self, operation: Stream[Any], timeout_ns: int | None) -> bool: ...
    def wait_end(self, operation: Operation[Any], timeout_ns: int | None) -> None: ...
    def cancel(self, operation: Operation[Any]) -> Operation[Any]: ...
    def repeat(self, operation: Stream[Any]) -> Stream[Any]: ...
    def lacks(self, name: str) -> str | None: ...


class Operation(Generic[Value]):
    """A request in flight, and afterwards its outcome.

    Made by the methods of `Ring`. Dropping it changes nothing for the kernel: the ring holds
    it until its final completion.

    name      what was asked for, by the name of its encoder: recv, accept, ...
    cqe       (user_data, res, cqe_flags) of its final completion; None until it is there
    callback  what is called for its completions; None where nothing is

    Example
        import os
        from rawuring import Ring

        reader, writer = os.pipe()
        with Ring() as ring:
            operation = ring.read(reader, bytearray(8))
            print(operation)                            # <Operation read in flight>
            try:
                operation.wait(timeout_ns=10_000_000)
            except TimeoutError as error:
                print(error)                            # read: timed out and was cancelled
            print(operation.done)                       # True
        os.close(reader), os.close(writer)
    """

    __slots__ = ("token", "cqe", "callback", "special", "_ring", "name", "_keep", "__weakref__")

    # There is no __init__: a class without one is called in half the time.
    def begin(self, ring: Waiter, token: int, name: str, keep: object, callback: Callback | None) -> None:
        """Make it one in flight, right after it was made. The ring calls this."""
        self.token = token
        self.name = name  # what was asked for, by the name of its encoder: recv, accept, ...
        self.cqe: Cqe | None = None  # the final completion, once it is there
        self.callback = callback
        self.special = callback is not None  # its completions are more than an outcome
        self._ring = ring
        self._keep = keep

    @property
    def done(self) -> bool:
        """Is the final completion there? Nothing is submitted or waited for."""
        return self.cqe is not None

    @property
    def answer(self) -> Cqe | None:
        """The completion with the result, once it is there: the final one, as a rule."""
        return self.cqe

    def wait(self, timeout_ns: int | None = None) -> Value:
        """Submit, wait for the final completion, and return the result.

        Raises the OSError of a negative result (UnsupportedError if this kernel lacks the
        operation). When `timeout_ns` nanoseconds have passed, the operation is cancelled and
        TimeoutError raised, unless it completed all the same.
        """
        cqe = self.cqe
        if cqe is None:
            cqe = self._ring.wait_for(self, timeout_ns)
        res = cqe[1]
        self._keep = None  # it is, unless an interrupt came before
        if res < 0:
            raise self.error(res)
        return res  # type: ignore[return-value]

    def wait_cqe(self, timeout_ns: int | None = None) -> Outcome:
        """Like `wait`, and return (res, cqe_flags) of its `answer`: a negative `res` is data."""
        _, res, cqe_flags = self._ring.wait_for(self, timeout_ns)
        return res, cqe_flags

    def cancel(self) -> None:
        """Ask the kernel to cancel it. Its own final completion tells what became of it: ECANCELED, or its result."""
        if self.cqe is None:
            self._ring.cancel(self)

    def error(self, res: int) -> OSError | UnsupportedError:
        """The exception for a negative result of this operation."""
        if res in (-_EINVAL, -_EOPNOTSUPP):
            needs = self._ring.lacks(self.name)
            if needs:
                return UnsupportedError(self.name, needs)
        return os_error(-res, self.name)

    def settle(self) -> None:
        """Let go of what was kept for the kernel. The ring calls it after the final completion."""
        self._keep = None

    def note_first(self, cqe: Cqe) -> None:
        """Take a completion that is not the final one. It may be offered again."""

    def claim(self) -> None:
        """The callback has what the completion brought from now on."""

    def unclaim(self) -> None:
        """The callback never ran."""

    def __repr__(self) -> str:
        if self.cqe is None:
            return f"<{type(self).__name__} {self.name} in flight>"
        return f"<{type(self).__name__} {self.name} res={self.cqe[1]} cqe_flags={self.cqe[2]:#x}>"


class ValueOperation(Operation[Value]):
    """An operation whose result is made of more than `res`."""

    __slots__ = ()

    def wait(self, timeout_ns: int | None = None) -> Value:
        super().wait(timeout_ns)
        assert self.cqe is not None
        _, res, cqe_flags = self.cqe
        return self._value(res, cqe_flags)

    def _value(self, res: int, cqe_flags: int) -> Value:
        """The result of a completion that is no error."""
        raise NotImplementedError


def close_quietly(fd: int) -> None:
    """Close an fd that nobody took."""
    try:
        os.close(fd)
    except OSError:
        pass


class FdOperation(ValueOperation[int]):
    """An operation whose result is an fd. Until a wait or the callback has it, it is closed with the operation."""

    __slots__ = ("_taken",)

    _taken: bool

    def wait_cqe(self, timeout_ns: int | None = None) -> Outcome:
        outcome = super().wait_cqe(timeout_ns)
        self._taken = True
        return outcome

    def _value(self, res: int, cqe_flags: int) -> int:
        # In one line: an interrupt comes before, and the fd is closed with the operation, or after.
        self._taken = True; return res  # fmt: skip

    def claim(self) -> None:
        self._taken = True

    def unclaim(self) -> None:
        self._taken = False

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is not None and cqe[1] >= 0 and not getattr(self, "_taken", False):
            close_quietly(cqe[1])


class ZeroCopyOperation(Operation[int]):
    """A send that does not copy: its first completion has the result, its final one gives the memory back.

    `wait()` and `wait_cqe()` wait for the first. Until the final one, `wait_released()`, the ring
    keeps the memory locked, whoever dropped what: the network card may still read it, and changing
    it changes what is sent. The callback is called for both; the second has CqeFlag.NOTIF.
    """

    __slots__ = ("sent", "_reports")

    sent: Cqe | None
    _reports: bool  # was the usage report asked for?

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self._reports = keep[0]
        self.special = True
        self.sent = None

    def note_first(self, cqe: Cqe) -> None:
        self.sent = cqe

    @property
    def answer(self) -> Cqe | None:
        """The completion with the result: the first, or the only one of a request that was refused."""
        return self.sent or self.cqe

    def wait(self, timeout_ns: int | None = None) -> int:
        """Submit, wait for the first completion, and return the number of bytes sent. Otherwise as `Operation.wait`."""
        res, _ = self.wait_cqe(timeout_ns)
        if res < 0:
            raise self.error(res)
        return res

    def wait_released(self, timeout_ns: int | None = None) -> None:
        """Submit, and wait until the kernel needs the memory no more. TimeoutError leaves the operation as it is."""
        self._ring.wait_end(self, timeout_ns)

    @property
    def copied(self) -> bool | None:
        """Did the kernel copy the data after all? None before the memory is released, and if no report was asked for."""
        if self.cqe is None or self.sent is None or not self._reports:
            return None
        return self.cqe[1] != 0

    def __repr__(self) -> str:
        if self.cqe is None and self.sent is not None:
            return f"<{type(self).__name__} {self.name} res={self.sent[1]}, memory in use>"
        return f"<{type(self).__name__} {self.name} in flight>" if self.answer is None else (
            f"<{type(self).__name__} {self.name} res={self.answer[1]}, memory released>"
        )  # fmt: skip


class Stream(Operation[Value]):
    """A multishot operation: completions until one without CqeFlag.MORE.

    Iterating waits for the next completion, submits, and ends after the final one, whose
    negative `res` is yielded like the others: it says why the stream ended.

    Example
        import socket
        from rawuring import Ring

        ours, theirs = socket.socketpair()
        with Ring() as ring, ours, theirs:
            pool = ring.buffer_ring(count=8, nbytes=4096)
            theirs.send(b"hello")
            theirs.shutdown(socket.SHUT_WR)
            for res, cqe_flags in ring.recv_multishot(ours, pool):
                with pool.lend(res, cqe_flags) as view:
                    print(res, bytes(view))  # 5 b'hello', then 0 b''
    """

    __slots__ = ("stream", "request")

    # (completions that nobody took yet, position in the CQ after the last one that was added)
    stream: tuple[deque[Outcome], int]
    request: tuple[Any, ...]  # what the ring needs to queue it once more

    def begin(self, ring: Waiter, token: int, name: str, keep: object, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self.special = True
        self.stream = (deque(), -1)

    def add(self, outcome: Outcome, position: int) -> None:
        """Take the completion at `position` of the CQ, once however often it is offered."""
        waiting, upto = self.stream
        if position >= upto:
            # One store commits both.
            self.stream = (waiting if self.callback is not None else deque((*waiting, outcome)), position + 1)

    def next(self, timeout_ns: int | None = None) -> Outcome | None:
        """The next completion, or None after the final one. TimeoutError leaves the operation as it is."""
        if not self._ring.wait_next(self, timeout_ns):
            return None
        # No call stands between the look and the return: an interrupt comes after a call, and would lose it.
        waiting = self.stream[0]; outcome = waiting[0]; del waiting[0]; return outcome  # fmt: skip

    def again(self) -> Stream[Value]:
        """Queue the same request under a new token: for a stream that ended without being told to."""
        if self.cqe is None:
            raise OutOfOrderError(f"this {self.name} is still armed: again() is for one whose final completion came")
        return self._ring.repeat(self)

    def __iter__(self) -> Iterator[Outcome]:
        if self.callback is not None:
            raise OutOfOrderError("this operation hands its completions to a callback: do not iterate over it too")
        while self._ring.wait_next(self, None):
            waiting = self.stream[0]; outcome = waiting[0]; del waiting[0]; yield outcome  # fmt: skip

    def discard(self, res: int, cqe_flags: int) -> None:
        """Dispose of what a completion brought that nobody took."""

    def _discard_rest(self) -> None:
        stream = getattr(self, "stream", None)
        if stream is not None:
            for res, cqe_flags in stream[0]:
                self.discard(res, cqe_flags)


class Large(int):
    """The cqe_flags of a completion of 32 bytes, with its second half."""

    big_cqe: tuple[int, int] = (0, 0)


class LargeStream(Stream[Value]):
    """A stream whose completions have 32 bytes: their flags are `Large`."""

    __slots__ = ()


class FdStream(Stream[int]):
    """A stream of fds. Those that nobody took are closed with the operation."""

    __slots__ = ()

    def discard(self, res: int, cqe_flags: int) -> None:
        if res >= 0:
            close_quietly(res)

    def __del__(self) -> None:
        self._discard_rest()


class Pool(Protocol):
    """Where provided buffers come from and go back to."""

    @property
    def locates(self) -> bool: ...
    def locate(self, position: int, res: int, cqe_flags: int, *, bundle: bool = False) -> int: ...
    def held(self, cqe_flags: int) -> list[int]: ...
    def drop(self, held: list[int]) -> None: ...
    def copy(self, res: int, cqe_flags: int) -> bytes: ...


class BufferOperation(ValueOperation[bytes]):
    """An operation whose data comes in a provided buffer.

    `wait()` returns a copy and gives the buffer back; `wait_cqe()` and the callback get the
    buffer itself, for `lend`. A buffer that nobody took goes back with the operation.
    """

    __slots__ = ("pool", "bundles", "_held", "_data")

    pool: Pool
    bundles: bool  # may a completion fill several buffers?
    _held: list[int] | None  # the buffer, while it is the operation's to give back; None before one asks
    _data: bytes | None

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        _, self.pool, self.bundles = keep
        # Where the data is must be asked in the order of completion.
        self.special = self.special or self.bundles or self.pool.locates
        self._held = None
        self._data = None

    def wait_cqe(self, timeout_ns: int | None = None) -> Outcome:
        outcome = super().wait_cqe(timeout_ns)
        if self._data is not None:
            raise OutOfOrderError(f"wait() of this {self.name} gave its buffer back: use one or the other")
        self._held = []
        return outcome

    def claim(self) -> None:
        self._held = []

    def unclaim(self) -> None:
        self._held = None

    def _value(self, res: int, cqe_flags: int) -> bytes:
        if self._held is None:
            self._held = self.pool.held(cqe_flags)
        if self._data is None:
            if not self._held and self.pool.held(cqe_flags):
                raise OutOfOrderError(f"the buffer of this {self.name} is taken: lend it by the completion")
            self._data = self.pool.copy(res, cqe_flags)
        self.pool.drop(self._held)
        return self._data

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        held = getattr(self, "_held", None)
        if cqe is not None:
            self.pool.drop(self.pool.held(cqe[2]) if held is None else held)


class BufferStream(Stream[int]):
    """A stream of provided buffers. Those that nobody took go back to their pool with the operation."""

    __slots__ = ("pool", "bundles")

    pool: Pool
    bundles: bool  # may a completion fill several buffers?

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        _, self.pool, self.bundles, *_ = keep

    def discard(self, res: int, cqe_flags: int) -> None:
        self.pool.drop(self.pool.held(cqe_flags))

    def __del__(self) -> None:
        self._discard_rest()


class SendPool(Pool, Protocol):
    """Where the buffers of a send come from."""

    def begin_send(self, send: Operation[Any]) -> None: ...


class SendStream(BufferStream):
    """A send of provided buffers: completions until they are all sent.

    Their buffers are free as soon as a completion is resolved. After the final one nothing more of
    what this send took goes out: what its completions do not count was dropped.
    """

    __slots__ = ()

    pool: SendPool

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self.pool.begin_send(self)

    def wait(self, timeout_ns: int | None = None) -> int:
        """Submit, wait for the final completion, and return how many bytes were sent over all of them.

        Fewer than were put: the rest was dropped. Raises the OSError of a negative result if none were. For those without a callback that nobody iterates over.
        """
        _, res, _ = self._ring.wait_for(self, timeout_ns)
        nbytes = sum(max(sent, 0) for sent, _ in self.stream[0])
        if res < 0 and not nbytes:
            raise self.error(res)
        return nbytes
