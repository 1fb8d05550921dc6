"""The owned operations of `Ring`, by the themes of `prep`.

    files        read, write and their vectored, fixed and multishot forms, fsync
    ranges       fallocate, ftruncate, fadvise, madvise, sync_file_range, splice, tee
    descriptors  openat, openat2, close_fd, pipe, files_update, fixed_fd_install
    paths        statx, rename, unlink, rmdir, mkdir, symlink, linkat, extended attributes
    sockets      socket, bind, listen, accept, connect, shutdown
    transfers    send, sendto, recv, into provided buffers, as streams, as bundles
    messages     sendmsg, recvmsg, with control data and fds
    zero_copy    send_zc, sendmsg_zc and their fixed forms
    socket_commands
                 bytes that wait in a socket, its options, its names
    rings        msg_ring: data and files for another ring
    buffers      provided buffers of the legacy kind
    waiting      nop, poll, timeout, link_timeout, cancelling
    events       epoll_ctl, epoll_wait, waitid, futexes
    commands     uring_cmd and what block devices take; nop with flags

May import everything below ring. Each method takes Python objects, pins what the kernel will
touch, and hands a `prep_*` of the submission queue to `OwnedOperations._queue`; it never
writes an SQE itself.
"""

from .buffers import BufferOperations
from .commands import CommandOperations
from .descriptors import DescriptorOperations
from .events import EventOperations
from .files import FileOperations
from .messages import MessageOperations
from .paths import PathOperations
from .ranges import RangeOperations
from .rings import RingOperations
from .socket_commands import SocketCommands
from .sockets import SocketOperations
from .transfers import TransferOperations
from .waiting import WaitingOperations
from .zero_copy import ZeroCopyOperations

__all__ = ["Operations"]


class Operations(
    FileOperations,
    RangeOperations,
    DescriptorOperations,
    PathOperations,
    SocketOperations,
    TransferOperations,
    MessageOperations,
    ZeroCopyOperations,
    SocketCommands,
    RingOperations,
    BufferOperations,
    WaitingOperations,
    EventOperations,
    CommandOperations,
):
    """Every owned operation of a ring."""

    __slots__ = ()
