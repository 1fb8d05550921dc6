"""The verbs of io_uring_register(2), one function each, on the fd of a ring.

May import abi, errors, syscalls. Keeps no state: what is registered, the kernel knows.

Names are liburing's: `io_uring_register_clock` is `register.clock`, and `io_uring_clone_buffers`
is `register.clone_buffers`. `fd` is the ring's fd, or the RingIndex of a ring registered with the
calling thread. Every function raises the OSError of the errno; EINVAL is also what a kernel says
that is older than the verb, EEXIST what a ring says that belongs to another thread, and EACCES
what `restrictions` do not allow. Argument structs are needed for the duration of the call only;
what lives longer is said under Memory.

Each theme has its module. Those that few programs need are loaded when one of their names is
first asked for.
"""

from __future__ import annotations

from ..hints import TYPE_CHECKING
from .buffer_rings import *
from .buffer_tables import *
from .calling import RingIndex as RingIndex
from .file_tables import *
from .rings import *
from .wakeups import *

if TYPE_CHECKING:
    from .cancelling import *
    from .memory import *
    from .messages import *
    from .permissions import *
    from .queries import *
    from .waiting import *
    from .workers import *
    from .zero_copy import *
else:
    _LATER = ("cancelling", "memory", "messages", "permissions", "queries", "waiting", "workers", "zero_copy")

    def __getattr__(name: str) -> object:
        if not name.startswith("_"):
            from importlib import import_module

            for module in map(import_module, [f"{__name__}.{later}" for later in _LATER]):
                globals().update((public, getattr(module, public)) for public in module.__all__)
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
