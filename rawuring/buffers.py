"""Memory that the kernel may use: pinned buffers, registered buffers, the provided-buffer ring.

May import abi, errors, atomics and register. It is the only module that touches the tail of a
buffer ring.

Pinning holds an *export* of the buffer (PEP 3118) for as long as a request may use it: its
owner can be dropped, and the memory stays; a `bytearray` that somebody tries to resize answers
with BufferError. ctypes objects that own their memory are refused, since `ctypes.resize` moves it
under an export.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct

from . import abi, register
from .atomics import Word16
from .errors import BufferUseError, OutOfOrderError, RawuringError
from .hints import Any, Final, Protocol

Buffer = Any  # an object with the buffer protocol: collections.abc.Buffer exists from 3.12 on only
Pin = tuple[object, int, int]  # what keeps the memory, its address, its size in bytes

_c_char = ctypes.c_char
_addressof = ctypes.addressof
_CDATA: Final = ctypes.c_char.__mro__[-2]  # the base of every ctypes object

_IOVEC = Struct("=QQ")


def pin_writable(buffer: Buffer) -> Pin:
    """Pin memory that the kernel will write. Returns (keep, address, bytes): hold `keep` until the final CQE."""
    if type(buffer) is not bytearray:
        return _pin_other(buffer, writable=True)
    nbytes = len(buffer)
    if not nbytes:
        return buffer, 0, 0
    export = _c_char.from_buffer(buffer)
    return export, _addressof(export), nbytes


def pin_readable(buffer: Buffer) -> Pin:
    """Pin memory that the kernel will read. Returns (keep, address, bytes): hold `keep` until the final CQE."""
    if type(buffer) is bytes:
        # Immutable, and never moved: the reference is enough.
        return buffer, _bytes_addr(buffer), len(buffer)
    if type(buffer) is bytearray:
        return pin_writable(buffer)
    return _pin_other(buffer, writable=False)


def _bytes_addr(data: bytes) -> int:
    # c_char_p holds the address of the object's own bytes; cast() would cost three times as much.
    return ctypes.c_void_p.from_buffer(ctypes.c_char_p(data)).value or 0


def _pin_other(buffer: Buffer, *, writable: bool) -> Pin:
    try:
        view = memoryview(buffer)
    except TypeError:
        raise BufferUseError(
            f"{type(buffer).__name__} has no memory to give the kernel: use a bytearray, an array or a memoryview"
            + ("" if writable else ", or bytes")
        ) from None
    owner = view.obj
    while isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, _CDATA) and _may_move(owner):
        raise BufferUseError("ctypes objects can move in memory (ctypes.resize): use a bytearray instead")
    if not view.c_contiguous:
        raise BufferUseError("this view is not contiguous: copy it into a bytearray first")
    nbytes = view.nbytes
    if not view.readonly:
        if not nbytes:
            return view, 0, 0
        export = _c_char.from_buffer(buffer)
        return export, _addressof(export), nbytes
    if writable:
        raise BufferUseError(
            f"{type(buffer).__name__} is read-only here, and the kernel would write into it: use a bytearray"
        )
    held = _ReadOnlyExport(buffer)
    return held, held.addr, nbytes


def _may_move(cdata: Any) -> bool:
    """Can ctypes.resize move the memory of a ctypes object? Not if it lies in that of another owner, which it holds."""
    while cdata._b_base_ is not None:
        cdata = cdata._b_base_
    if cdata._b_needsfree_:
        return True
    held = cdata._objects
    # What from_buffer was given; nothing after from_address.
    owners = [each.obj for each in (held.values() if isinstance(held, dict) else [held]) if isinstance(each, memoryview)]
    return not owners or any(isinstance(owner, _CDATA) and _may_move(owner) for owner in owners)


class _PyBuffer(ctypes.Structure):
    # struct Py_buffer (PEP 3118).
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class _ReadOnlyExport:
    """An export of a read-only buffer, for which ctypes has no `from_buffer`."""

    __slots__ = ("_view", "addr")

    def __init__(self, buffer: Buffer) -> None:
        self._view = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(self._view), 0)
        self.addr: int = self._view.buf or 0

    def __del__(self) -> None:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self._view))


def pin_iovecs(buffers: Sequence[Buffer], *, writable: bool) -> tuple[object, int, int]:
    """Pin several buffers and a struct iovec[] that names them. Returns (keep, address, count)."""
    return iovec_array([pin_writable(b) if writable else pin_readable(b) for b in buffers])


def iovec_array(pins: Sequence[Pin]) -> tuple[object, int, int]:
    """Pin a struct iovec[] that names pinned memory. Returns (keep, address, count)."""
    array = bytearray(_IOVEC.size * max(len(pins), 1))
    for i, (_, addr, nbytes) in enumerate(pins):
        _IOVEC.pack_into(array, i * _IOVEC.size, addr, nbytes)
    keep, addr, _ = pin_writable(array)
    return (pins, keep), addr, len(pins)


class RegisteredBuffers:
    """Buffers the kernel has pinned: for `Ring.read_fixed` and `Ring.write_fixed`, by position.

    The memory stays locked against resize until `unregister()`, and for requests in flight
    until their final CQE.
    """

    __slots__ = ("_fd", "_pins", "_registered", "__weakref__")

    _registered: bool
    _pins: list[Pin]

    def __init__(self, fd: int, buffers: Sequence[Buffer], before: RegisteredBuffers | None = None) -> None:
        if before is not None and before._registered:
            raise OutOfOrderError("a ring has one table of registered buffers: unregister() the other first")
        if isinstance(buffers, (bytes, bytearray, memoryview)) or not len(buffers):
            raise BufferUseError("register a list of buffers, with at least one in it")
        self._registered = False
        self._fd = fd
        self._pins = [pin_writable(b) for b in buffers]
        # Said before it is true: if an interrupt falls in between, the memory is kept.
        self._registered = True
        try:
            register.buffers(fd, [(addr, nbytes) for _, addr, nbytes in self._pins])
        except BaseException:
            self.unregister()
            raise

    def __len__(self) -> int:
        return len(self._pins)

    def place(self, index: int, offset: int, nbytes: int | None) -> Pin:
        """The (keep, address, bytes) of a part of buffer `index`; `nbytes` None is up to its end."""
        if not self._registered:
            raise OutOfOrderError("these buffers are not registered any more: register them anew")
        if not 0 <= index < len(self._pins):
            raise BufferUseError(f"there is no buffer {index}: {len(self._pins)} are registered, the first is 0")
        keep, addr, size = self._pins[index]
        if nbytes is None:
            nbytes = size - offset
        if offset < 0 or nbytes < 0 or offset + nbytes > size:
            raise BufferUseError(f"bytes {offset} to {offset + nbytes} are not inside buffer {index} of {size} bytes")
        return keep, addr + offset, nbytes

    def unregister(self) -> None:
        """Take the table back from the kernel. A second call does nothing.

        Before Linux 6.13 the kernel waits here until no request uses a buffer of the table any
        more: cancel those first, or have them complete.
        """
        if self._registered:
            try:
                register.unregister_buffers(self._fd)
            except OSError as error:
                if error.errno != errno.ENXIO:  # there is none: an interrupt came before it was said
                    raise
            self.release()

    def release(self) -> None:
        """Refuse later uses, and unlock the memory that no request uses."""
        self._registered = False
        self._pins = []


# An entry of a buffer ring: struct io_uring_buf without its last two bytes, which in entry 0
# are the ring's tail and must never be written with it.
_BUF = Struct("=QIH")
_LEN = Struct("=I")
_BUF_NBYTES: Final = abi.IO_URING_BUF.nbytes
_TAIL_OFFSET: Final = abi.IO_URING_BUF_RING.fields["tail"].offset
# Of an entry, in words of 4 bytes.
_BUF_NWORDS: Final = _BUF_NBYTES // 4
_LEN_WORD: Final = abi.IO_URING_BUF.fields["len"].offset // 4
_U16: Final = 0xFFFF
_U32: Final = 0xFFFF_FFFF
_F_BUFFER: Final = int(abi.CqeFlag.BUFFER)
_BUFFER_SHIFT: Final = abi.CQE_BUFFER_SHIFT
_F_BUF_MORE: Final = int(abi.CqeFlag.BUF_MORE)
_ASYNC: Final = int(abi.SqeFlag.ASYNC)
_ASYNC_LOSES: Final = "takes its buffers before there is data if ASYNC is set, and loses them if none comes: leave it out"
_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

Part = tuple[int, int, int]  # buffer, where in it, how many bytes: of the data of a completion


class Located(int):
    """The cqe_flags of a completion whose data lies in several buffers, or somewhere in one: `parts` says where.

    The kernel only names the first buffer. What follows can be told from the completions before,
    in the order in which the kernel posted them: so the ring notes it when it takes a completion.
    """

    parts: tuple[Part, ...] = ()


class BufferGroup:
    """Buffers of one size, side by side, of which the kernel picks one per completion.

    A completion with CqeFlag.BUFFER lends you the buffer `cqe_flags >> 16` with `res` bytes in
    it. Read it in place (`lend`, or `view` and `give_back`), and give it back soon: when the
    group is empty, receives end with ENOBUFS.
    """

    __slots__ = ("bgid", "count", "nbytes", "addr", "_memory", "_view", "_keep", "_returned", "_coming", "_open", "__weakref__")

    locates: bool = False
    """Does each completion have to be `Located`? Otherwise those of bundles alone."""

    def __init__(self, bgid: int, count: int, nbytes: int) -> None:
        self._open = False
        if not 0 <= bgid <= _U16:
            raise RawuringError(f"a group of buffers has a number from 0 to {_U16}: {bgid} is not, leave out `bgid`")
        if not 1 <= nbytes <= _U32 or count * nbytes > 1 << 40:
            raise RawuringError(f"{count} buffers of {nbytes} bytes cannot be had")
        self.bgid = bgid
        self.count = count
        self.nbytes = nbytes
        # Anonymous and private: after a fork the child writes into a copy.
        self._memory = mmap.mmap(-1, count * nbytes, flags=_PRIVATE)
        self._view = memoryview(self._memory)
        self._keep = _c_char.from_buffer(self._memory)
        self.addr = _addressof(self._keep)
        # Buffers to give back at the next chance. Finalizers of any thread add to it.
        self._returned: deque[int] = deque()
        # (the tail of a buffer ring, buffers to put behind it): replaced as a whole when the kernel has them.
        self._coming: tuple[int, list[int]] = (0, [])

    def addr_of(self, bid: int) -> int:
        """The address of buffer `bid`."""
        return self.addr + self._place(bid)

    def view(self, bid: int, nbytes: int, start: int = 0) -> memoryview:
        """`nbytes` of buffer `bid`, in place. Use it before the buffer is given back, then drop it."""
        start = self._place(bid, nbytes, start)
        try:
            return self._view[start : start + nbytes]
        except ValueError:
            raise OutOfOrderError("this group of buffers is closed: its memory is gone") from None

    def peek(self, bid: int, nbytes: int, start: int = 0) -> bytes:
        """A copy of what is in buffer `bid`, also after the group was closed."""
        start = self._place(bid, nbytes, start)
        return self._memory[start : start + nbytes]

    def _place(self, bid: int, nbytes: int = 0, start: int = 0) -> int:
        """Where in the memory of the group these bytes of a buffer begin."""
        if not 0 <= bid < self.count or start < 0 or nbytes < 0 or start + nbytes > self.nbytes:
            what = f"bytes {start} to {start + nbytes} of buffer {bid}" if 0 <= bid < self.count else f"buffer {bid}"
            raise BufferUseError(
                f"this group has the buffers 0 to {self.count - 1}, of {self.nbytes} bytes: {what} is not among them. "
                "Ask the group that the completion was received into"
            )
        return bid * self.nbytes + start

    def give_back(self, bids: Iterable[int]) -> None:
        """Give buffers back to the kernel.

        Giving back a buffer twice hands it out twice, and two connections will write into it.
        """
        raise NotImplementedError

    def _checked(self, bids: Iterable[int]) -> list[int]:
        bids = list(bids)
        if bids and not 0 <= min(bids) <= max(bids) < self.count:
            raise BufferUseError(f"this group has the buffers 0 to {self.count - 1}: {bids} are not all of them")
        return bids

    def lend(self, res: int, cqe_flags: int) -> Loan:
        """The data of one completion in place, for `with`: on exit the view is dead and the buffer is given back.

        Lend each completion once, at the group that it was received into. Slices of the view must
        not outlive it: they would show the next message.
        A completion without a buffer (the end of the stream, an error) lends an empty view.
        """
        return Loan(self, res, cqe_flags)

    def lend_bundle(self, res: int, cqe_flags: int) -> BundleLoan:
        """The data of one completion that may fill several buffers, in order: for `with`, or to iterate over.

            with pool.lend_bundle(res, cqe_flags) as views: ...     # all are given back on exit
            for view in pool.lend_bundle(res, cqe_flags): ...       # each is before the next comes

        Lend each completion once. All buffers but the last are full, or as full as the kernel had
        noted in the ring that it would fill them: before Linux 7.1 that may be less than their size.

        Limit      Linux 6.15, and those of 6.12 and 6.14 that receive into a bundle twice for one
                   completion as it does, may leave a gap within a buffer when data comes meanwhile:
                   what follows is wrong, and nothing tells. Mended in 6.16 and later ones of these.
        """
        return BundleLoan(self, res, cqe_flags)

    def take(self, res: int, cqe_flags: int) -> bytes:
        """A copy of the data of one completion; the buffer is given back."""
        loan = BundleLoan(self, res, cqe_flags)
        with loan as views:
            return b"".join(views)

    def copy(self, res: int, cqe_flags: int) -> bytes:
        """A copy of the data of one completion, whose buffer is still to be given back."""
        return b"".join(self.view(bid, nbytes, start) for bid, start, nbytes in self.parts(res, cqe_flags))

    def parts(self, res: int, cqe_flags: int) -> tuple[Part, ...]:
        """Where the data of one completion is."""
        if isinstance(cqe_flags, Located):
            return cqe_flags.parts
        return ((cqe_flags >> _BUFFER_SHIFT, 0, max(res, 0)),) if cqe_flags & _F_BUFFER else ()

    def locate(self, position: int, res: int, cqe_flags: int, *, bundle: bool = False) -> int:
        """The cqe_flags of the completion at `position` of the CQ, `Located`. Asking again changes nothing."""
        return cqe_flags

    def held(self, cqe_flags: int) -> list[int]:
        """The buffers that come with a completion, in a list for `drop` to empty."""
        if isinstance(cqe_flags, Located):
            bids = [bid for bid, _, _ in cqe_flags.parts]
        else:
            bids = [cqe_flags >> _BUFFER_SHIFT] if cqe_flags & _F_BUFFER else []
        if bids and max(bids) >= self.count:
            self._place(max(bids))  # of another group: it must not go into this one
        return bids

    def drop(self, held: list[int]) -> None:
        """Empty a list of buffers that nobody needs any more. Safe in a finalizer, in any thread.

        They go back to the kernel with `reclaim`, which the ring calls before it waits.
        """
        while held:
            # No call in between: an interrupt comes after one, and would lose the buffer or have it go back twice.
            bid = held[-1:]; del held[-1]; self._returned += bid  # fmt: skip

    def drop_first(self, held: list[int]) -> None:
        """Take the first off a list of buffers that are needed no more, as `drop` takes all."""
        bid = held[:1]; del held[0]; self._returned += bid  # fmt: skip

    def check_receives(self, sqe_flags: int, *, bundle: bool = False) -> None:
        """Refuse to be received into, where that cannot work."""
        if bundle and sqe_flags & _ASYNC:
            raise OutOfOrderError(f"a bundle {_ASYNC_LOSES}")

    @property
    def owes(self) -> bool:
        """Is there anything for `reclaim` to do?"""
        return bool(self._returned or self._coming[1])

    def reclaim(self) -> None:
        """Give back what was dropped. In the ring's thread."""
        raise NotImplementedError

    def release(self) -> None:
        """Refuse later uses. The memory goes when its last view does."""
        self._open = False
        self._view.release()


class _Borrowed:
    """What holds buffers of a group. They go back when it is dropped, if not before."""

    __slots__ = ("_pool", "_held")

    _pool: BufferGroup
    _held: list[int]

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held:
            self._pool.drop(held)


class Loan(_Borrowed):
    """A buffer while somebody reads it: see `BufferGroup.lend`. It goes back on exit, or when the loan is dropped."""

    __slots__ = ("_view",)

    def __init__(self, pool: BufferGroup, res: int, cqe_flags: int) -> None:
        self._pool, self._held = pool, pool.held(cqe_flags)
        parts = pool.parts(res, cqe_flags)
        if len(parts) > 1:
            self._held = []
            raise BufferUseError(f"the data of this completion fills {len(parts)} buffers: use lend_bundle")
        self._view = memoryview(b"")
        for bid, start, nbytes in parts:
            self._view = pool.view(bid, nbytes, start)

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        try:
            self._view.release()
        finally:
            self._pool.drop(self._held)
            self._pool.reclaim()


class BundleLoan(_Borrowed):
    """Several buffers while somebody reads them: see `BufferGroup.lend_bundle`. They go back when the loan is dropped."""

    __slots__ = ("_views",)

    def __init__(self, pool: BufferGroup, res: int, cqe_flags: int) -> None:
        self._pool, self._held = pool, pool.held(cqe_flags)
        self._views = [pool.view(bid, nbytes, start) for bid, start, nbytes in pool.parts(res, cqe_flags)]

    def __enter__(self) -> list[memoryview]:
        return list(self._views)

    def __exit__(self, *_: object) -> None:
        try:
            for view in self._views:
                view.release()
        finally:
            self._pool.drop(self._held)
            self._pool.reclaim()

    def __iter__(self) -> Iterator[memoryview]:
        while self._views:
            view = self._views[0]
            try:
                yield view
            finally:
                try:
                    del self._views[0]
                    view.release()
                finally:
                    self._pool.drop_first(self._held)
                    self._pool.reclaim()


class BufferRing(BufferGroup):
    """A provided-buffer ring: giving a buffer back is a store into memory shared with the kernel.

    Memory     registered: until `Ring.close_buffer_ring` or the end of the ring, the kernel may
               write into any buffer that was given back
    Since      Linux 5.19           Man   io_uring_setup_buf_ring(3), io_uring_provided_buffers(7)
    """

    __slots__ = (
        "_fd", "_entries_memory", "_entries", "_lens", "_whole", "_entries_keep", "_tail_word", "_mask", "_order",
        "_following", "_slots", "_written",
    )  # fmt: skip

    pbuf_flags = 0

    def __init__(self, fd: int, bgid: int, count: int, nbytes: int) -> None:
        if count < 1 or count > abi.MAX_PBUF_RING_ENTRIES or count & (count - 1):
            raise RawuringError(f"a buffer ring has a power of two of buffers, up to 32768: {count} is not")
        super().__init__(bgid, count, nbytes)
        self._fd = fd
        self._entries_memory = mmap.mmap(-1, count * _BUF_NBYTES, flags=_PRIVATE)
        self._entries = memoryview(self._entries_memory)
        self._lens = self._entries.cast("I")[_LEN_WORD::_BUF_NWORDS]  # the column `len` of the entries
        self._whole = memoryview(_LEN.pack(nbytes) * count).cast("I")  # as it should be
        self._entries_keep = _c_char.from_buffer(self._entries_memory)
        self._tail_word = Word16(self._entries, _TAIL_OFFSET)
        self._mask = count - 1
        # The bid that each entry names now: in steady state buffers come back in the order they
        # went out, so that the entry is already right.
        self._order = [-1] * count
        # The buffer behind each, and the entry that names it, where bundles need them: see `follow`.
        self._following: list[int] | None = None
        self._slots: list[int] = []
        self._written = 0

    def register(self) -> None:
        """Show the group and all its buffers to the kernel. `Ring.buffer_ring` does it, and keeps the group from then on."""
        self._show(self.pbuf_flags)
        self._coming[1].extend(range(self.count))
        self._publish()

    def _show(self, pbuf_flags: int = 0) -> None:
        # Said before it is true: after an interrupt in between, `unregister` asks the kernel.
        self._open = True
        try:
            register.pbuf_ring(self._fd, _addressof(self._entries_keep), self.count, self.bgid, pbuf_flags)
        except OSError:
            self._open = False  # there may be one that is not ours
            raise

    def follow(self) -> None:
        """Note from now on which buffer is behind which: the completion of a bundle names its first alone."""
        if self._following is None:
            tail, mask, order = self._coming[0], self._mask, self._order
            following, slots = [-1] * self.count, [0] * self.count
            # Of buffers that are out already some are said wrongly: these come anew before a bundle has them.
            for position in range(tail - self.count, tail):
                following[order[position & mask]] = order[(position + 1) & mask]
                slots[order[position & mask]] = position & mask
            self._slots = slots
            self._written = tail
            self._following = following

    def locate(self, position: int, res: int, cqe_flags: int, *, bundle: bool = False) -> int:
        """The cqe_flags of the completion of a bundle, `Located`. One without data has no buffer, whatever it says."""
        if not cqe_flags & _F_BUFFER:
            return cqe_flags
        assert self._following is not None
        located, parts = Located(cqe_flags), []
        bid, left = cqe_flags >> _BUFFER_SHIFT, res
        while left > 0:
            # Before Linux 7.1 a bundle shortens the entry of a buffer that it does not mean to fill. If it then
            # takes nothing, another finds the buffer, and fills no more of it than its entry says.
            nbytes = min(left, self._lens[self._slots[bid]])
            if nbytes <= 0:
                break
            left -= nbytes
            parts.append((bid, 0, nbytes))
            bid = self._following[bid]
        located.parts = tuple(parts)
        return located

    def give_back(self, bids: Iterable[int]) -> None:
        """Give buffers back to the kernel: all of them with one store of the tail.

        Giving back a buffer twice hands it out twice, and two connections will write into it.
        """
        bids = list(bids)
        slot = self._coming[0] & self._mask
        if self._order[slot : slot + len(bids)] != bids:  # or what a check would tell is known already
            self._checked(bids)
        # From this line on they are the kernel's. Whatever interrupts the next ones, they are
        # done again with the same values.
        self._coming[1].extend(bids)
        self._publish()

    def reclaim(self) -> None:
        """Give back what was dropped. In the ring's thread."""
        while self._returned:
            coming, bid = self._coming[1], self._returned[0]; del self._returned[0]; coming += (bid,)  # fmt: skip
        if self._coming[1]:
            self._publish()

    def _publish(self) -> None:
        if not self._open:
            return  # the kernel has none of them any more
        if self._following is not None:
            return self._publish_followed(self._following)
        tail, coming = self._coming
        mask, order, lens, nbytes = self._mask, self._order, self._lens, self.nbytes
        done = 0
        while done < len(coming):
            slot = tail & mask
            run = coming[done : done + self.count - slot]  # to the end of the ring
            done += len(run)
            tail += len(run)
            end = slot + len(run)
            if order[slot:end] == run and lens[slot:end] == self._whole[slot:end]:
                continue
            for slot, bid in enumerate(run, slot):
                if order[slot] != bid:
                    _BUF.pack_into(self._entries, slot * _BUF_NBYTES, self.addr + bid * nbytes, nbytes, bid)
                    order[slot] = bid
                elif lens[slot] != nbytes:
                    # Shortened by a bundle, of somebody who encodes requests himself: see `locate`.
                    lens[slot] = nbytes
        self._tail_word.store_release(tail & _U16)
        self._coming = (tail, [])

    def _publish_followed(self, following: list[int]) -> None:
        tail, coming = self._coming
        for bid in coming:
            # An entry that the kernel may have seen is its own: it notes there how much of a buffer it has used.
            if tail >= self._written:
                before, slot = self._order[(tail - 1) & self._mask], tail & self._mask
                if before >= 0:
                    following[before] = bid
                nbytes = self._prepare(bid)
                _BUF.pack_into(self._entries, slot * _BUF_NBYTES, self.addr + bid * self.nbytes, nbytes, bid)
                self._order[slot] = bid
                if self._slots:
                    self._slots[bid] = slot
                self._written = tail + 1
            tail += 1
        self._tail_word.store_release(tail & _U16)
        self._coming = (tail, [])

    def _prepare(self, bid: int) -> int:
        """Make a buffer ready for the kernel. Returns how many bytes it may use. It may be done again."""
        return self.nbytes

    def unregister(self) -> None:
        """Take the group back from the kernel. `Ring.close_buffer_ring` calls it when nothing uses it any more."""
        if self._open:
            try:
                register.unregister_pbuf_ring(self._fd, self.bgid)
            except OSError as error:
                # There is none (EINVAL on 6.1): an interrupt came before it was said.
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
            self.release()

    def release(self) -> None:
        """Refuse later uses. The memory goes when its last view does."""
        super().release()
        self._tail_word.release()
        self._entries.release()


class IncrementalRing(BufferRing):
    """A provided-buffer ring whose buffers are used up bit by bit: one has the data of several completions.

    A buffer goes back to the kernel when the kernel is done with it and every loan of a part of it
    has ended. Completions without data (an end, an error) hold nothing.

    Where a completion's data begins is told by those before it. So they must come in the order in
    which they used the buffers, which they do from Linux 6.15 on, and in later ones of 6.12 and 6.14.
    On other kernels (`in_order`) a stream and another receive cannot be in flight together.

    Since      Linux 6.12           Man   io_uring_provided_buffers(7)
    Limit      made for sockets and pipes: a read of a regular file takes a whole buffer, and one
               that finds its end loses it for the group
    """

    __slots__ = ("in_order", "_used", "_lent", "_back", "_ended", "_ripe", "_located")

    locates = True
    pbuf_flags = int(abi.PbufRing.INC)

    in_order: bool
    """Do the completions of streams not overtake those of other receives on this kernel?"""

    def __init__(self, fd: int, bgid: int, count: int, nbytes: int) -> None:
        super().__init__(fd, bgid, count, nbytes)
        self.in_order = True
        self._following = [-1] * count
        # Of each buffer since the kernel has it: bytes used, parts lent, parts that came back, and whether the
        # kernel is done with it.
        self._used = [0] * count
        self._lent = [0] * count
        self._back = [0] * count
        self._ended = [False] * count
        # Buffers of which a part came back.
        self._ripe: list[int] = []
        # (position, its flags, what to note of its buffers): one store commits the three.
        self._located: tuple[int, int, list[tuple[int, int, int, bool]]] = (-1, 0, [])

    def locate(self, position: int, res: int, cqe_flags: int, *, bundle: bool = False) -> int:
        """The cqe_flags of the completion at `position` of the CQ, `Located`. Asking again changes nothing."""
        if position == self._located[0]:
            return self._located[1]
        self._note()
        if not cqe_flags & _F_BUFFER:
            return cqe_flags
        assert self._following is not None
        located, parts, notes = Located(cqe_flags), [], []
        bid, left = cqe_flags >> _BUFFER_SHIFT, res
        while left > 0:  # without data BUF_MORE is missing before Linux 7.0, though the kernel keeps the buffer
            start = self._used[bid]
            nbytes = min(left, self.nbytes - start)
            if nbytes <= 0:
                break  # it says that a buffer holds more than it can, which would end this ring if it were an exception
            left -= nbytes
            parts.append((bid, start, nbytes))
            # A read of a file ends a buffer that has room left, and BUF_MORE is missing. Where a bundle took
            # data twice for one completion, BUF_MORE is wrong before Linux 7.2: it ends full buffers alone.
            ended = start + nbytes == self.nbytes or not (bundle or cqe_flags & _F_BUF_MORE)
            notes.append((bid, start + nbytes, self._lent[bid] + 1, ended))
            bid = self._following[bid]
        located.parts = tuple(parts)
        self._located = (position, located, notes)
        return located

    def _note(self) -> None:
        position, flags_, notes = self._located
        for bid, used, lent, ended in notes:
            self._used[bid], self._lent[bid], self._ended[bid] = used, lent, ended
        self._located = (position, flags_, [])

    def give_back(self, bids: Iterable[int]) -> None:
        """End the loan of a part of each of these buffers: one mention for one completion."""
        self._returned.extend(self._checked(bids))
        self.reclaim()

    @property
    def owes(self) -> bool:
        """Is there anything for `reclaim` to do?"""
        return bool(self._returned or self._ripe or self._coming[1])

    def reclaim(self) -> None:
        """Give back the buffers that neither the kernel nor anybody else uses any more. In the ring's thread."""
        self._note()
        while self._returned:
            bid = self._returned[0]; del self._returned[0]; self._back[bid] += 1; self._ripe += (bid,)  # fmt: skip
        while self._ripe:
            bid, coming = self._ripe[-1], self._coming[1]
            if self._ended[bid] and self._back[bid] == self._lent[bid]:
                self._ended[bid] = False; coming += (bid,)  # fmt: skip
            del self._ripe[-1]
        if self._coming[1]:
            self._publish()

    def check_receives(self, sqe_flags: int, *, bundle: bool = False) -> None:
        """Refuse to be received into, where that cannot work."""
        if sqe_flags & _ASYNC:
            raise OutOfOrderError(f"a receive into an incremental buffer {_ASYNC_LOSES}")

    def _prepare(self, bid: int) -> int:
        self._used[bid] = self._lent[bid] = self._back[bid] = 0
        self._ended[bid] = False
        return self.nbytes


class Send(Protocol):
    """What a group to send from asks of a send: has it ended?"""

    @property
    def cqe(self) -> object: ...


class OutgoingRing(BufferRing):
    """Buffers to send from: `put` fills one, and `Ring.send_bundle` sends what is there, in that order.

    For one socket: the kernel sends the next buffer on whatever socket a bundle is sent on. A send
    takes every buffer when it starts. If it fails, is cancelled or ends short, what it had not sent
    is dropped: its result says how many bytes went out, and what follows is to be `put` anew. What
    was put after it had taken its own waits for the next send.

    The buffers of what was dropped can be filled again when no send of the group is in flight any
    more; on a ring whose restrictions keep it from asking the kernel (PBUF_STATUS) only when the
    group is closed.

    Since      Linux 6.10           Man   io_uring_prep_send_bundle(3)
    """

    __slots__ = ("_nbytes_of", "_free", "_located", "_sends", "_settled")

    _nbytes_of: list[int]
    _free: dict[int, None]  # in the order in which they became free
    _sends: weakref.WeakSet[Send]  # with all that are in flight, since the ring holds these
    _settled: bool  # is all that the sends took accounted for?

    locates = True

    def __init__(self, fd: int, bgid: int, count: int, nbytes: int) -> None:
        super().__init__(fd, bgid, count, nbytes)
        self._following = [-1] * count
        self._nbytes_of = [0] * count
        self._free = dict.fromkeys(range(count))
        self._located: tuple[int, int, list[int]] = (-1, 0, [])  # as an IncrementalRing has it
        self._sends = weakref.WeakSet()
        self._settled = True

    def register(self) -> None:
        """Show the group to the kernel, with nothing in it."""
        self._show()

    @property
    def free(self) -> int:
        """How many buffers can be filled."""
        self._settle()
        return len(self._free)

    def put(self, data: Buffer) -> int:
        """Copy `data` into a free buffer, to be sent behind what is there. Returns the buffer's id."""
        source = memoryview(data).cast("B")
        nbytes = len(source)
        if not 1 <= nbytes <= self.nbytes:
            raise BufferUseError(f"a buffer of {self.nbytes} bytes cannot hold {nbytes} to send")
        self._settle()
        if not self._free:
            raise OutOfOrderError("every buffer of this group waits to be sent: send_bundle first")
        if not self._open:
            raise OutOfOrderError("this group of buffers is closed: its memory is gone")
        bid = next(iter(self._free))
        self.view(bid, nbytes)[:] = source
        self._nbytes_of[bid] = nbytes
        coming = self._coming[1]
        del self._free[bid]; coming += (bid,)  # fmt: skip
        self._publish()
        return bid

    def locate(self, position: int, res: int, cqe_flags: int, *, bundle: bool = False) -> int:
        """The cqe_flags of the completion of a bundle, `Located`: its buffers are free from now on."""
        if position == self._located[0]:
            return self._located[1]
        self._note()
        if not cqe_flags & _F_BUFFER:
            return cqe_flags
        assert self._following is not None
        located, parts = Located(cqe_flags), []
        bid, left = cqe_flags >> _BUFFER_SHIFT, res
        while left > 0:
            nbytes = min(left, self._nbytes_of[bid])
            left -= nbytes
            parts.append((bid, 0, nbytes))
            bid = self._following[bid]
        located.parts = tuple(parts)
        self._located = (position, located, [bid for bid, _, _ in parts])
        return located

    def _note(self) -> None:
        position, flags_, sent = self._located
        for bid in sent:
            self._free[bid] = None
        self._located = (position, flags_, [])

    def begin_send(self, send: Send) -> None:
        """Know of a send before the kernel does."""
        self._sends.add(send)
        self._settled = False

    def _settle(self) -> None:
        """Free what was sent; and once no send is in flight, what the kernel took and did not send."""
        self._note()
        if self._settled:
            return
        for send in list(self._sends):
            if send.cqe is None:
                return
            self._sends.discard(send)
        if len(self._free) < self.count and self._open:
            self._free_dropped()
        self._settled = True

    def _free_dropped(self) -> None:
        try:
            head = register.buf_ring_head(self._fd, self.bgid)
        except OSError:
            return  # restricted
        tail, coming = self._coming
        waiting = {self._order[position & self._mask] for position in range(tail - ((tail - head) & _U16), tail)}
        for bid in range(self.count):
            if bid not in waiting and bid not in coming:
                self._free[bid] = None

    def check_receives(self, sqe_flags: int, *, bundle: bool = False) -> None:
        """Refused: what is to be sent lies there."""
        raise BufferUseError("these buffers are to send from: Ring.buffer_ring makes those to receive into")

    def held(self, cqe_flags: int) -> list[int]:
        """None: what was sent is free again."""
        return []

    def give_back(self, bids: Iterable[int]) -> None:
        """Refused: `put` fills a buffer and gives it to the kernel."""
        raise OutOfOrderError("buffers to send from come back by themselves: fill one with put()")

    def _prepare(self, bid: int) -> int:
        return self._nbytes_of[bid]


class ProvidedBuffers(BufferGroup):
    """A group of the legacy kind: giving a buffer back is a request, queued by `Ring.provide_buffers`'s ring.

    Memory     registered: until the end of the ring
    Since      Linux 5.7            Man   io_uring_prep_provide_buffers(3)
    """

    __slots__ = ("_provide", "_chaining")

    def __init__(
        self, bgid: int, count: int, nbytes: int, provide: Callable[[int, int], object], chaining: Callable[[], bool]
    ) -> None:
        if not 1 <= count <= _U16:
            raise RawuringError(f"a group of the legacy kind has 1 to {_U16} buffers: {count} is not")
        super().__init__(bgid, count, nbytes)
        self._provide = provide  # first bid, how many; what it cannot queue it drops
        self._chaining = chaining  # would a request be part of a chain?
        self._open = True

    def give_back(self, bids: Iterable[int]) -> None:
        """Give buffers back to the kernel: a request for each, submitted with the next ones; within a chain, after it."""
        self._returned.extend(self._checked(bids))
        self.reclaim()

    def reclaim(self) -> None:
        """Give back what was dropped, but not into a chain that is being made. In the ring's thread."""
        while self._returned and self._open and not self._chaining():
            bid = self._returned[0]; del self._returned[0]; self._provide(bid, 1)  # fmt: skip
