"""The encoders of `SubmissionQueue`, by theme.

    files        READ, WRITE and their vectored, fixed and multishot forms, FSYNC
    ranges       SYNC_FILE_RANGE, FALLOCATE, FTRUNCATE, FADVISE, MADVISE, SPLICE, TEE
    descriptors  OPENAT, OPENAT2, CLOSE, FILES_UPDATE, FIXED_FD_INSTALL, PIPE
    paths        STATX, RENAMEAT, UNLINKAT, MKDIRAT, SYMLINKAT, LINKAT, extended attributes
    sockets      SOCKET, BIND, LISTEN, ACCEPT, CONNECT, SHUTDOWN
    transfers    SEND, RECV, SENDMSG, RECVMSG
    zero_copy    SEND_ZC, SENDMSG_ZC, RECV_ZC
    buffers      PROVIDE_BUFFERS, REMOVE_BUFFERS
    waiting      NOP, POLL, TIMEOUT, LINK_TIMEOUT, ASYNC_CANCEL
    events       EPOLL_CTL, EPOLL_WAIT, WAITID, FUTEX
    rings        MSG_RING
    commands     URING_CMD and its socket and block device forms; any operation, field by field

May import abi and errors. Each `prep_*` writes the 64 bytes of one SQE (128 where its name says so) into
shared memory and takes integers only: fds, addresses, lengths (and the bytes of a command, which
it copies). It never holds a reference to the memory behind an address and never makes a system
call.
"""

from .buffers import BufferPreps
from .commands import CommandPreps
from .descriptors import DescriptorPreps
from .events import EventPreps
from .files import FilePreps
from .paths import PathPreps
from .ranges import RangePreps
from .rings import RingPreps
from .sockets import SocketPreps
from .transfers import TransferPreps
from .waiting import WaitingPreps
from .zero_copy import ZeroCopyPreps

__all__ = ["Preps"]


class Preps(
    FilePreps,
    RangePreps,
    DescriptorPreps,
    PathPreps,
    SocketPreps,
    TransferPreps,
    ZeroCopyPreps,
    BufferPreps,
    WaitingPreps,
    EventPreps,
    RingPreps,
    CommandPreps,
):
    """Every encoder of the submission queue."""

    __slots__ = ()
