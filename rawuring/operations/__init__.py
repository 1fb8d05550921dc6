"""The owned operations of `Ring`, by theme: files, sockets, waiting, buffers.

May import everything below ring. Each method takes Python objects, pins what the kernel will
touch, and hands a `prep_*` of the submission queue to `OwnedOperations._queue`; it never
writes an SQE itself.
"""

from .buffers import BufferOperations
from .files import FileOperations
from .sockets import SocketOperations
from .waiting import WaitingOperations

__all__ = ["BufferOperations", "FileOperations", "SocketOperations", "WaitingOperations"]
