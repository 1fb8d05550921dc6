"""What every encoder stands on: the slots of the SQ and the layout of an SQE.

May import abi and errors. Never makes a system call.

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

Requests of 128 bytes (NOP128, URING_CMD128)
    On a ring with Setup.SQE128 every slot has room for one. With Setup.SQE_MIXED such a request
    takes two neighbouring slots and may not begin in the last slot of the array: a NOP that is
    silent when it succeeds then fills that slot. Both are slots like others to `tail` and `ready`.
    The filler keeps a chain that runs through it whole. When the chain breaks before it, it
    completes with ECANCELED like the rest of the chain; its user_data is FILLER_USER_DATA.
    A ring on which a silent request was ever submitted refuses IO_DRAIN (EOPNOTSUPP).

Other names
    *_addr          an address; `addr` alone is that of the data
    nbytes          a length in bytes, whatever the C name is
    file_index      a slot of the file table, from 0 on, or abi.FILE_INDEX_ALLOC
    reserved_flags  what the kernel has no flags for yet: it wants 0

user_data and sqe_flags are keyword-only. The others are not, for speed alone (a keyword-only
parameter that is left out costs a dict look-up), and are best passed by keyword.
"""

from __future__ import annotations

from struct import Struct

from .. import abi
from ..errors import RawuringError, SubmissionQueueFullError

# struct io_uring_sqe, field by field:
#   opcode flags ioprio fd | off | addr | len op_flags | user_data | buf personality file_index
#   | addr3 | attr_type_mask
# "=" is the machine's byte order without padding of its own; `x` is a byte that is zeroed.
SQE = Struct("=BBHiQQIIQHHIQQ")
NOP = Struct("=BBxxi24xQ24x")  # opcode, flags, fd, user_data
FILE_IO = Struct("=BBHiqQIIQHH20x")  # off is signed: -1 is the file position
SOCKET_IO = Struct("=BBHi8xQIIQHH20x")  # no off
SEND_TO = Struct("=BBHiQQIIQHHH18x")  # off is addr2, and half of file_index addr_len
SPLICE = Struct("=BBxxiqqIIQxxHi16x")  # off and splice_off_in are signed, as is splice_fd_in
# opcode flags fd | cmd_op | addr | len op_flags | user_data | buf personality optlen | cmd
COMMAND = Struct("=BBxxiI4xQIIQHHI16s")
COMMAND128 = Struct("=BBxxiI4xQIIQHHI80s")
SQE128 = Struct("=BBHiQQIIQHHIQQ64x")

assert (
    SQE.size == NOP.size == FILE_IO.size == SOCKET_IO.size == SEND_TO.size == SPLICE.size == COMMAND.size
    == abi.IO_URING_SQE.nbytes
)  # fmt: skip
assert COMMAND128.size == SQE128.size == 2 * abi.IO_URING_SQE.nbytes

U32 = 0xFFFF_FFFF
FILLER_USER_DATA = 0xFFFF_FFFF_FFFF_FFFF

_NOP = int(abi.Op.NOP)
_SILENT = int(abi.SqeFlag.CQE_SKIP_SUCCESS)


def encoded_file_index(file_index: int) -> int:
    """The SQE's form of a fixed slot: slot + 1, since 0 means "an ordinary fd"; ALLOC stands for itself."""
    return file_index if file_index == abi.FILE_INDEX_ALLOC else file_index + 1


class Encoder:
    """Slots of the SQ, or of a block, and the encoder that can write any SQE."""

    __slots__ = ("_sqes", "_at", "_limit", "_stride", "_mixed")

    _sqes: memoryview  # the SQE array
    _at: int  # where the next SQE goes: its offset in the array
    _limit: int  # where the run of free slots that starts there ends
    _stride: int  # bytes of a slot: 64, or 128 with Setup.SQE128
    _mixed: bool  # Setup.SQE_MIXED: a request of 128 bytes takes two slots

    @property
    def tail(self) -> int:
        """How many slots were ever written."""
        raise NotImplementedError

    @property
    def space_left(self) -> int:
        """How many slots can be written before the queue is full."""
        raise NotImplementedError

    def _make_room(self) -> int:
        """Find the next run of free slots and return its start; an exception says why there is none."""
        raise NotImplementedError

    def _open_links(self) -> int:
        """The SqeFlag bits by which the SQE written last links to the next; 0 once it is published."""
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
        attr_type_mask: int = 0,
    ) -> None:
        """Write any SQE: the parameters are the fields of struct io_uring_sqe in their order."""
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SQE.pack_into(
            self._sqes, at, opcode, sqe_flags, ioprio, fd, off, addr,
            nbytes, op_flags, user_data, buf, personality, file_index, addr3, attr_type_mask,
        )  # fmt: skip
        self._at = at + self._stride

    def _encode128(self, shape: Struct, *values: int | bytes) -> None:
        """Write an SQE of 128 bytes: `values` in the order of `shape`, SQE128 or COMMAND128."""
        sqe = shape.pack(*values)  # first, so that a value that does not fit leaves no filler behind
        if self._stride == len(sqe):
            at = self._at
            if at == self._limit:
                at = self._make_room()
            self._sqes[at : at + len(sqe)] = sqe
            self._at = at + len(sqe)
        elif self._mixed:
            at = self._two_slots()
            self._sqes[at : at + len(sqe)] = sqe
            self._at = at + len(sqe)
        else:
            raise RawuringError(
                "a request of 128 bytes does not fit the SQEs of this ring: "
                "make it with Setup.SQE_MIXED (Linux 6.19) or Setup.SQE128"
            )

    def _two_slots(self) -> int:
        """Find two free slots side by side, next to be written, and return where the first starts."""
        at = self._at
        if at == self._limit:
            at = self._make_room()
        if self._limit - at >= 2 * self._stride:
            return at
        # To ask for room moves what is queued to the front, on a ring with Setup.SQ_REWIND.
        space_left, at = self.space_left, self._at
        if self._limit - at >= 2 * self._stride:
            return at
        is_last = len(self._sqes) - at == self._stride
        if space_left < 2 + is_last:
            raise SubmissionQueueFullError(
                f"the submission queue has no room for a request of two slots{' and a filler' if is_last else ''}: "
                "call submit(), then queue again, or make the ring larger"
            )
        if is_last:
            # A chain goes on through the filler.
            NOP.pack_into(self._sqes, at, _NOP, _SILENT | self._open_links(), -1, FILLER_USER_DATA)
            self._at = at + self._stride
        else:
            self._limit = at  # it is out of date: have it found anew
        return self._make_room()
