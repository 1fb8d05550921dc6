"""What every encoder stands on: the slots of the SQ and the layout of an SQE.

May import abi. Never makes a system call.

How an SQE is written
    One `Struct.pack_into` writes all 64 bytes: what a request does not use is zero, and
    nothing of the SQE that lay in the slot before survives. That is the fast way in Python,
    and it rules out the half-initialised SQE.

    The slot is taken by the last statement, `self._at = at + self._stride`. Whatever stops an
    encoder before it (a value that does not fit its field raises `struct.error`, a signal
    handler may raise anything) leaves the queue as it was. Queue nothing from a signal handler
    or a finalizer: one that runs in the middle of an encoder writes into the same slot.

    `at` is the place of the next SQE in the array, in bytes; `sq` says how it becomes the tail
    that the kernel sees. The encoders of the requests that programs make by the million repeat
    the four lines around `pack_into`, since a call into a shared helper costs as much as the
    rest; all others go through `_encode`.

The keyword arguments that encoders share
    user_data    u64, comes back in the CQE. Keep it below 2**63: the upper half belongs to
                 the owned layer, so that both can share a ring, and a completion with such a
                 value is taken for that of an owned operation.
    sqe_flags    SqeFlag bits: FIXED_FILE, IO_LINK, ASYNC, BUFFER_SELECT, ...
    ioprio       the 16-bit field of that name: an I/O priority for files, RecvSend or Accept
                 bits for sockets
    buf_group    group to take a buffer from, with SqeFlag.BUFFER_SELECT
    personality  registered credentials (io_uring_register_personality(3)); 0 for the submitter's own

How long memory must live: the words after `Memory` in the docstrings of encoders
    submit       until the kernel has consumed the SQE: until `submit()` returns, or with SQPOLL
                 until `sq.ready` says so
    completion   until the CQE
    final        until the CQE without CqeFlag.MORE
    notif        until the CQE with CqeFlag.NOTIF
    registered   until it is unregistered, and every request that uses it has completed
    none         no memory of yours is involved

user_data and sqe_flags are keyword-only. The others are not, for speed alone (a keyword-only
parameter that is left out costs a dict look-up), and are best passed by keyword.
"""

from __future__ import annotations

from struct import Struct

from .. import abi

# struct io_uring_sqe, field by field:
#   opcode flags ioprio fd | off | addr | len op_flags | user_data | buf personality file_index | addr3 | pad2
# "=" is the machine's byte order without padding of its own; `x` is a byte that is zeroed.
SQE = Struct("=BBHiQQIIQHHIQ8x")
NOP = Struct("=BBxxi24xQ24x")  # opcode, flags, fd, user_data
FILE_IO = Struct("=BBHiqQIIQHH20x")  # off is signed: -1 is the file position
SOCKET_IO = Struct("=BBHi8xQIIQHH20x")  # no off

assert SQE.size == NOP.size == FILE_IO.size == SOCKET_IO.size == abi.IO_URING_SQE.nbytes

U32 = 0xFFFF_FFFF


class Encoder:
    """Slots of the SQ, and the encoder that can write any SQE."""

    __slots__ = ("_sqes", "_at", "_limit", "_stride")

    _sqes: memoryview  # the SQE array
    _at: int  # where the next SQE goes: its offset in the array
    _limit: int  # where the run of free slots that starts there ends
    _stride: int  # bytes of an SQE: 64, or 128 with Setup.SQE128

    def _make_room(self) -> int:
        """Find the next run of free slots and return its start; an exception says why there is none."""
        raise NotImplementedError

    def _encode(
        self,
        opcode: int,
        fd: int,
        off: int,
        addr: int,
        nbytes: int,
        op_flags: int,
        user_data: int,
        sqe_flags: int,
        *,
        ioprio: int = 0,
        buf: int = 0,
        personality: int = 0,
        file_index: int = 0,
        addr3: int = 0,
    ) -> None:
        """Write any SQE: the parameters are the fields of struct io_uring_sqe in their order."""
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SQE.pack_into(
            self._sqes, at, opcode, sqe_flags, ioprio, fd, off, addr,
            nbytes, op_flags, user_data, buf, personality, file_index, addr3,
        )  # fmt: skip
        self._at = at + self._stride
