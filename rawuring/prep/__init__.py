"""The encoders of `SubmissionQueue`, by theme: files, sockets, waiting, buffers.

May import abi. Each `prep_*` writes the 64 bytes of one SQE into shared memory and takes
integers only: fds, addresses, lengths. It never holds a reference to the memory behind an
address and never makes a system call.
"""

from .buffers import BufferPreps
from .files import FilePreps
from .sockets import SocketPreps
from .waiting import WaitingPreps

__all__ = ["BufferPreps", "FilePreps", "SocketPreps", "WaitingPreps"]
