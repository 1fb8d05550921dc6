"""Loads and stores of a u16 or u32 that the kernel reads or writes at the same moment, and a full fence.

May import the standard library, errors and syscalls. Never knows what a ring is: it orders
single words, and its users (mmap_ring, buffers) say which word needs what. Why they need it
is written down here, beside the code that provides it.

What each word needs
--------------------
A reader that sees a new head or tail must also see what that word announces, and a word must
never be seen half written. `store_release` is a store that everything before it precedes;
`load_acquire` is a load that everything after it follows; `load` and `store` promise no more
than one piece.

SQ tail      We write the SQEs (and their array entries), then `store_release`. The kernel
             loads it with acquire, then reads SQEs.
SQ head      The kernel stores it with release after its last read of an SQE. We `load_acquire`
             before we write into that slot again.
CQ tail      The kernel stores it with release after the CQEs. We `load_acquire`, then read CQEs.
CQ head      We copy the CQEs out, then `store_release`. The kernel's load is a plain one: it
             writes a CQE only in a branch that found room, and a store that depends on a
             branch is not made before the load that decides it.
SQ flags     The kernel sets and clears bits atomically; each is a hint on its own: `load`.
             NEED_WAKEUP alone needs more, see below.
CQ flags     One bit of ours that announces nothing else: `store`.
dropped, overflow   Counters of the kernel's: `load`.
buffer ring tail    (u16) We write the entries, then `store_release`. The kernel loads it with
             acquire, then reads an entry.

Without SQPOLL the kernel reads the SQ in our own thread, inside io_uring_enter, and on a
DEFER_TASKRUN ring it posts CQEs there too: a thread always sees its own stores in order. Other
rings get CQEs from io-wq workers and from other threads, and any ring's io-wq worker may take
a provided buffer: those words are shared between CPUs whatever the set-up.

NEED_WAKEUP, the one that acquire and release do not cover
----------------------------------------------------------
    we                       the SQ thread, before it sleeps
    store SQ tail            set NEED_WAKEUP
    full fence               full fence
    load SQ flags            load SQ tail
    wake it if set           stay awake if there is more

Whichever of the two stores is seen first, the other side's load comes after it: somebody
notices. Without our fence the load may be done while the store still waits in the CPU's store
buffer (x86 allows this as well): the thread goes to sleep on a queue that is not empty and we
do not wake it. Nothing but a full fence orders a store before a later load.

A system call is no fence: entering and leaving the kernel need not empty the store buffer.
io_uring_enter with SQ_WAKEUP needs none, because it takes the lock of the wait queue that the
thread joins before it looks at the tail; it is the decision *not* to call that needs the fence.
membarrier(2) returns without a barrier when it takes the process for single-threaded.

What the back-ends emit
-----------------------
`backend` is the first of these that the machine allows. `fence_backend` is libatomic or machine
code in the same order, on x86-64 and s390x too, where the fence is all they are needed for.

"tso"          x86-64, s390x. Loads stay in order, stores stay in order, and no store passes an
               earlier load: any aligned load is an acquire and any aligned store a release, if
               it is one instruction. It is: a memoryview of format "I" or "H" copies an item
               with a memcpy of 4 or 2 bytes (Objects/memoryobject.c), of which compilers make
               a mov (x86-64) or llgf, llgh, st, sth (s390x). The interpreter makes one such
               access at a time, in program order.
"libatomic"    __atomic_load_4 and its kin, which take the memory order as an argument.
"machine code" The instructions of _MACHINE_CODE below, in an executable mapping.
"none"         Plain accesses on a machine that needs more. aarch64 and ppc64 at least make
               them in one piece; riscv64 copies byte by byte, since the compiler may not assume
               the address aligned. Enough where one thread does everything: the ring must
               allow only DEFER_TASKRUN without SQPOLL, and no provided-buffer ring.

                load_acquire        store_release       full fence
    x86-64      mov                 mov                 lock or
    s390x       llgf                st                  bcr 15,0
    aarch64     ldar                stlr                dmb ish
    ppc64le     lwz; lwsync         lwsync; stw         sync
    riscv64     lw; fence r,rw      fence rw,w; sw      fence rw,rw
    loongarch64 ld.w; dbar 0        dbar 0; st.w        dbar 0

`struct.pack_into` is never an alternative: it zeroes the item, then writes it, and the kernel
may read the zero.

The GIL does not matter: the kernel takes no part in it, and it orders Python threads only
with each other. A free-threaded build changes nothing for a word shared with the kernel. It
does let two threads meet on one word: `tail = tail + 1` is a load and a store, and a
`release()` during another thread's `load()` takes the memory away under it. A ring belongs to
one thread there as anywhere.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from collections.abc import Callable, Iterable

from . import syscalls
from .errors import RawuringError, os_error
from .hints import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol

# C11's memory_order, as libatomic takes it.
_RELAXED: Final = 0
_ACQUIRE: Final = 2
_RELEASE: Final = 3
_SEQ_CST: Final = 5

_MACHINE: Final = os.uname().machine
_TSO: Final = ("x86_64", "s390x")


class Cell(Protocol):
    """A word as its one item: `cell[0]` is a load-acquire, `cell[0] = value` a store-release.

    What the queues' hot path uses: where a plain access is enough, it is a memoryview, which
    the interpreter reads and writes without a call.
    """

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class _Word:
    """An aligned word of `nbytes` at `offset` of writable `memory`, which must not move.

    ValueError if it is not aligned or not inside. A value must fit the word: the caller masks.
    """

    __slots__ = ()
    nbytes: ClassVar[int]

    def __init__(self, memory: memoryview, offset: int) -> None:
        raise NotImplementedError

    def load(self) -> int:
        """The value, in one piece; says nothing about any other memory."""
        raise NotImplementedError

    def load_acquire(self) -> int:
        """The value; what its writer released with it is visible from here on."""
        raise NotImplementedError

    def store(self, value: int) -> None:
        """Write the value in one piece; says nothing about any other memory."""
        raise NotImplementedError

    def store_release(self, value: int) -> None:
        """Write the value; who acquires it sees everything that was written before."""
        raise NotImplementedError

    @property
    def cell(self) -> Cell:
        """The word as a `Cell`, which `release` ends too."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of the memory; a second call does nothing. Any later access is a ValueError."""
        raise NotImplementedError


def _pin(memory: memoryview, offset: int, nbytes: int) -> ctypes.Array[ctypes.c_char]:
    """A ctypes object over the word. It exports `memory` for as long as it lives."""
    pinned = (ctypes.c_char * nbytes).from_buffer(memory, offset)
    if ctypes.addressof(pinned) % nbytes:
        raise ValueError(f"the word of {nbytes} bytes at offset {offset} is not aligned")
    return pinned


class _PlainWord32(_Word):
    __slots__ = ("_item",)
    nbytes = 4
    _format: ClassVar[Any] = "I"

    def __init__(self, memory: memoryview, offset: int) -> None:
        _pin(memory, offset, self.nbytes)
        self._item: memoryview[int] = memory[offset : offset + self.nbytes].cast(self._format)

    def load(self) -> int:
        return self._item[0]

    def store(self, value: int) -> None:
        self._item[0] = value

    @property
    def cell(self) -> Cell:
        return self._item

    def release(self) -> None:
        self._item.release()

    load_acquire = load
    store_release = store


class _PlainWord16(_PlainWord32):
    __slots__ = ()
    nbytes = 2
    _format = "H"


class _CalledWord(_Word):
    """A word behind an address, accessed by foreign functions with libatomic's signatures."""

    __slots__ = ("_address",)
    _load: ClassVar[Callable[..., int]]
    _store: ClassVar[Callable[..., None]]

    def __init__(self, memory: memoryview, offset: int) -> None:
        # What byref returns is passed as a pointer, with nothing to convert, and keeps the pin.
        self._address: object = ctypes.byref(_pin(memory, offset, self.nbytes))

    def load(self) -> int:
        return self._load(self._address or _refuse(), _RELAXED)

    def load_acquire(self) -> int:
        return self._load(self._address or _refuse(), _ACQUIRE)

    def store(self, value: int) -> None:
        self._store(self._address or _refuse(), value, _RELAXED)

    def store_release(self, value: int) -> None:
        self._store(self._address or _refuse(), value, _RELEASE)

    @property
    def cell(self) -> Cell:
        return self

    def __getitem__(self, index: int, /) -> int:
        return self.load_acquire()

    def __setitem__(self, index: int, value: int, /) -> None:
        self.store_release(value)

    def release(self) -> None:
        self._address = None


def _refuse() -> NoReturn:
    raise ValueError("operation forbidden on a released word")


class _Functions:
    """What a foreign back-end consists of: functions that ctypes calls.

    They have no argtypes: an address comes from byref, and a Python int is passed as a C int,
    its low 32 bits, which is what each of them reads. They are called without releasing the
    GIL, which costs more than they do.
    """

    __slots__ = ("load4", "store4", "load2", "store2", "fence")

    def __init__(
        self,
        load4: Callable[..., Any],
        store4: Callable[..., Any],
        load2: Callable[..., Any],
        store2: Callable[..., Any],
        fence: Callable[..., Any],
    ) -> None:
        self.load4 = load4
        self.store4 = store4
        self.load2 = load2
        self.store2 = store2
        self.fence = fence


def _prototyped(pointers: Iterable[int | tuple[str, ctypes.PyDLL]]) -> _Functions:
    restypes = (ctypes.c_uint32, None, ctypes.c_uint16, None, None)
    return _Functions(*(ctypes.PYFUNCTYPE(restype)(pointer) for restype, pointer in zip(restypes, pointers)))


def _libatomic() -> _Functions:
    """GCC's library. OSError or AttributeError where it, or a function of it, is missing."""
    library = ctypes.PyDLL("libatomic.so.1")
    names = ("__atomic_load_4", "__atomic_store_4", "__atomic_load_2", "__atomic_store_2", "atomic_thread_fence")
    return _prototyped((name, library) for name in names)


# The machine code of _Functions, in the order of the bytes in memory. It ignores the memory order
# and does what the strictest needs. No entry for big-endian ppc64: it has two calling conventions,
# and libatomic.
_MACHINE_CODE: Final = {
    "x86_64": {
        "load4": "8b07 c3",  # mov eax, [rdi]; ret
        "store4": "8937 c3",  # mov [rdi], esi; ret
        "load2": "0fb707 c3",  # movzx eax, word [rdi]; ret
        "store2": "668937 c3",  # mov [rdi], si; ret
        "fence": "f0830c2400 c3",  # lock or dword [rsp], 0; ret
    },
    "s390x": {
        "load4": "e32020000016 07fe",  # llgf %r2, 0(%r2); br %r14
        "store4": "50302000 07fe",  # st %r3, 0(%r2); br %r14
        "load2": "e32020000091 07fe",  # llgh %r2, 0(%r2); br %r14
        "store2": "40302000 07fe",  # sth %r3, 0(%r2); br %r14
        "fence": "07f0 07fe",  # bcr 15, 0; br %r14
    },
    "aarch64": {
        "load4": "00fcdf88 c0035fd6",  # ldar w0, [x0]; ret
        "store4": "01fc9f88 c0035fd6",  # stlr w1, [x0]; ret
        "load2": "00fcdf48 c0035fd6",  # ldarh w0, [x0]; ret
        "store2": "01fc9f48 c0035fd6",  # stlrh w1, [x0]; ret
        "fence": "bf3b03d5 c0035fd6",  # dmb ish; ret
    },
    "ppc64le": {
        "load4": "00006380 ac04207c 2000804e",  # lwz 3, 0(3); lwsync; blr
        "store4": "ac04207c 00008390 2000804e",  # lwsync; stw 4, 0(3); blr
        "load2": "000063a0 ac04207c 2000804e",  # lhz 3, 0(3); lwsync; blr
        "store2": "ac04207c 000083b0 2000804e",  # lwsync; sth 4, 0(3); blr
        "fence": "ac04007c 2000804e",  # sync; blr
    },
    "riscv64": {
        "load4": "03250500 0f003002 67800000",  # lw a0, 0(a0); fence r, rw; ret
        "store4": "0f001003 2320b500 67800000",  # fence rw, w; sw a1, 0(a0); ret
        "load2": "03550500 0f003002 67800000",  # lhu a0, 0(a0); fence r, rw; ret
        "store2": "0f001003 2310b500 67800000",  # fence rw, w; sh a1, 0(a0); ret
        "fence": "0f003003 67800000",  # fence rw, rw; ret
    },
    "loongarch64": {
        "load4": "84008028 00007238 2000004c",  # ld.w $a0, $a0, 0; dbar 0; ret
        "store4": "00007238 85008029 2000004c",  # dbar 0; st.w $a1, $a0, 0; ret
        "load2": "8400402a 00007238 2000004c",  # ld.hu $a0, $a0, 0; dbar 0; ret
        "store2": "00007238 85004029 2000004c",  # dbar 0; st.h $a1, $a0, 0; ret
        "fence": "00007238 2000004c",  # dbar 0; ret
    },
}
_SLOT_NBYTES: Final = 16  # room for one function, aligned for every machine


def _machine_code() -> _Functions:
    """Our own few instructions. OSError where there are none, or none may be made executable.

    They are written into a file in memory that is then mapped like a program's: never writable
    and executable at once, which policies forbid, and the kernel keeps the instruction cache
    coherent as it does for any program. The mapping stays until the process ends.
    """
    code = _MACHINE_CODE.get(_MACHINE)
    if code is None:
        raise os_error(errno.ENOTSUP, f"machine code for {_MACHINE}")
    fd = os.memfd_create("rawuring-atomics")
    try:
        pieces = (bytes.fromhex(code[name]).ljust(_SLOT_NBYTES, b"\0") for name in _Functions.__slots__)
        os.write(fd, b"".join(pieces))
        address = syscalls.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    return _prototyped(range(address, address + _SLOT_NBYTES * len(code), _SLOT_NBYTES))


_FOREIGN: Final[dict[str, Callable[[], _Functions]]] = {"libatomic": _libatomic, "machine code": _machine_code}


@functools.cache
def _foreign() -> tuple[str, _Functions | None]:
    """The first foreign back-end that works here. The first call loads it; it may run twice, harmlessly."""
    for name, provide in _FOREIGN.items():
        try:
            return name, provide()
        except (OSError, AttributeError):
            pass
    return "none", None


def _make(name: str) -> tuple[type[_Word], type[_Word]]:
    """Word32 and Word16 of the back-end `name`. OSError where it cannot be had."""
    if name in ("tso", "none"):
        return _PlainWord32, _PlainWord16
    functions = _FOREIGN[name]()

    class CalledWord32(_CalledWord):
        __slots__ = ()
        nbytes = 4
        _load = functions.load4
        _store = functions.store4

    class CalledWord16(_CalledWord):
        __slots__ = ()
        nbytes = 2
        _load = functions.load2
        _store = functions.store2

    return CalledWord32, CalledWord16


def full_fence() -> None:
    """Every load and store before it precedes every one after it, a store before a load included.

    RawuringError where `has_full_fence` is False.
    """
    _fence(_SEQ_CST)


def _first_fence(order: int) -> None:
    global _fence
    functions = _foreign()[1]
    if functions is None:
        raise RawuringError(
            "SQPOLL needs a full memory fence, and there is none here: install libatomic.so.1 (Debian: libatomic1, "
            "Fedora: libatomic), allow executable mappings of a memfd, or use a ring without SQPOLL"
        )
    _fence = functions.fence
    _fence(order)


_fence: Callable[[int], object] = _first_fence

# Decided when first looked at, so that an import loads and maps nothing where TSO is enough.
has_full_fence: bool
fence_backend: str


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "has_full_fence":
            return _foreign()[1] is not None
        if name == "fence_backend":
            return _foreign()[0]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


backend: Final[str] = "tso" if _MACHINE in _TSO else _foreign()[0]

if TYPE_CHECKING:

    class Word32(_Word): ...

    class Word16(_Word): ...
else:
    Word32, Word16 = _make(backend)
