"""io_uring for Python in pure ctypes: no compiler, no liburing, no dependency.

`Ring` is the whole of it for most programs; `abi` has the constants of io_uring, `system` those that
Python's own modules lack, and `inspect` shows what is in a ring.
"""

from __future__ import annotations

import sys

# A name makes `python -m rawuring` tell the reason in a line, without a traceback.
if sys.version_info < (3, 10):
    raise ImportError("rawuring needs Python 3.10 or later; this is " + sys.version.split()[0], name=__name__)
if sys.implementation.name != "cpython":
    # PyPy was seen to resize a bytearray or an array and to unmap an mmap while ctypes exported them, and another
    # process saw it write the four bytes of a memoryview's item one by one.
    raise ImportError(
        "rawuring needs CPython, which keeps memory in place that the kernel may write to; this is "
        + sys.implementation.name,
        name=__name__,
    )
if sys.maxsize < 2**32:
    raise ImportError(
        "rawuring needs a 64-bit Python: this one is 32-bit, and its C structures differ", name=__name__
    )
try:
    import ctypes
except ImportError:
    raise ImportError("rawuring needs ctypes, which this Python was built without", name=__name__) from None
del ctypes

from . import abi, system
from .buffers import BufferRing, ProvidedBuffers, RegisteredBuffers
from .cqe_block import CqeBlock
from .errors import (
    BufferUseError,
    ForkedRingError,
    LostCompletionsError,
    NestedWaitError,
    OutOfOrderError,
    RawuringError,
    RingClosedError,
    RingSetupError,
    SqeBlockFullError,
    SubmissionQueueFullError,
    UnsupportedError,
    WrongThreadError,
)
from .files import FileTable, Fixed
from .hints import TYPE_CHECKING
from .inflight import Operation, Stream
from .ring import WANTED_FLAGS, Ring
from .sqe_block import SqeBlock

if TYPE_CHECKING:
    from . import inspect as inspect

__version__ = "0.1.0"

__all__ = [
    "WANTED_FLAGS",
    "BufferRing",
    "BufferUseError",
    "CqeBlock",
    "FileTable",
    "Fixed",
    "ForkedRingError",
    "LostCompletionsError",
    "NestedWaitError",
    "Operation",
    "OutOfOrderError",
    "ProvidedBuffers",
    "RawuringError",
    "RegisteredBuffers",
    "Ring",
    "RingClosedError",
    "RingSetupError",
    "SqeBlock",
    "SqeBlockFullError",
    "Stream",
    "SubmissionQueueFullError",
    "UnsupportedError",
    "WrongThreadError",
    "abi",
    "system",
]


def __getattr__(name: str) -> object:
    # Loaded when it is asked for: most programs never look into a ring.
    if name != "inspect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(".inspect", __name__)
